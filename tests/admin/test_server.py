"""The admin HTTP as a whole: what answers at which path, who may change what, what goes wrong."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from stellar_overlay.admin.server import ANSWER_SECONDS, AdminHttp
from stellar_overlay.error import ConfigError, OverlayError
from tests.admin.kit import HERE, HTTP_PORT, AdminTestCase, Client, parse, request
from tests.builders import make_node
from tests.node.world import ip

CHANGING = (
    "/startsurveycollecting?nonce=5",
    "/stopsurveycollecting",
    "/stopsurvey",
    "/surveytopologytimesliced",
    "/connect",
    "/droppeer",
    "/ban",
    "/unban",
    "/clearmetrics",
)
READING = ("/info", "/peers", "/scp", "/metrics", "/getsurveyresult", "/bans", "/quorum", "/ll")


class PathTests(AdminTestCase):
    """Paths."""

    def test_unknown(self) -> None:
        """What is unknown is a page that tools know by its words."""
        for uri in ("/nothing", "/peers/", "/logrotate", "//info", "/INFO", "*", "/getcursor?id=x"):
            reply = self.get(uri)
            self.assertEqual((reply.status, reply.headers["content-type"]), (404, "text/html"), uri)
            self.assertIn("Supported HTTP commands are listed in the <a href=", reply.text)
            self.assertIn(">docs</a>", reply.text)
            self.assertNotIn("nothing", reply.text)

    def test_undecodable(self) -> None:
        """What cannot be decoded is a bad request."""
        self.assertEqual(self.get("/info%").status, 400)

    def test_quirks(self) -> None:
        """A path is decoded before it is split, as core does it."""
        self.assertEqual(self.ask("/%73cp%3Flimit=0"), self.ask("/scp?limit=0"))

    def test_port(self) -> None:
        """The port is known while it is open."""
        self.assertEqual(self.http.port, HTTP_PORT)
        self.stop(self.http)
        self.assertIsNone(self.http.port)

    def test_hosts_are_checked(self) -> None:
        """A host that can be none is refused at once."""
        self.assertRaises(ConfigError, self.serve, self.node, "a b")


class GuardTests(AdminTestCase):
    """Who may change something."""

    def status(self, uri: str, *headers: tuple[str, str]) -> int:
        """Return the status of a request with only these headers."""
        return self.reply(request(uri, headers)).status

    def test_foreign_host(self) -> None:
        """Only what changes something needs to call us by a name of ours."""
        for headers in ((), (("Host", "evil.example"),), (("Host", HERE), ("Host", HERE))):
            for uri in CHANGING:
                self.assertEqual(self.status(uri, *headers), 403, uri)
            for uri in READING:
                self.assertEqual(self.status(uri, *headers), 200, uri)
        self.assertFalse(self.node.survey.is_active)

    def test_foreign_page(self) -> None:
        """A page of another site cannot change anything, by any method."""
        for header in (
            ("Origin", "http://evil.example"),
            ("Origin", "null"),
            ("Origin", "http://localhost:3000"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ):
            for uri in CHANGING:
                self.assertEqual(self.status(uri, ("Host", HERE), header), 403, header)
        reply = self.get(CHANGING[0], ("Origin", "http://evil.example"), method="POST")
        self.assertEqual(reply.status, 403)
        self.assertEqual(set(reply.json()), {"error"})
        self.assertFalse(self.node.survey.is_active)

    def test_own_names(self) -> None:
        """Loopback, the bound address, our own page."""
        for headers in (
            (("Host", "localhost"),),
            (("Host", ip(1)),),
            (("Host", HERE), ("Origin", f"http://{HERE}"), ("Sec-Fetch-Site", "same-origin")),
            (("Host", HERE), ("Sec-Fetch-Site", "none")),
        ):
            for uri in CHANGING:
                self.assertEqual(self.status(uri, *headers), 200, headers)

    def test_before_anything_else(self) -> None:
        """Who may not change anything does not even learn whether the parameters are right."""
        self.assertEqual(self.status("/startsurveycollecting?nonce=x", ("Host", "evil")), 403)


class NamedTests(AdminTestCase):
    """A node that has a name."""

    def serve(self, node: object, *hosts: str) -> AdminHttp:
        return super().serve(self.node, "node.example.org")

    def test_named(self) -> None:
        """Its name is accepted, and its page by that name."""
        for origin in ((), (("Origin", f"http://node.example.org:{HTTP_PORT}"),)):
            headers = (("Host", f"node.example.org:{HTTP_PORT}"), *origin)
            self.assertEqual(self.reply(request("/stopsurvey", headers)).status, 200)


class BootingTests(AdminTestCase):
    """Before the node runs, and after."""

    is_started = False

    def test_booting(self) -> None:
        """A known command says so; what is unknown is unknown already."""
        booting = {"error": "Core is booting, try again later"}
        for uri in (*READING, *CHANGING):
            self.assertEqual(self.ask(uri), booting)
        self.assertEqual(self.get("/nothing").status, 404)
        self.world.result(self.node.start())
        self.assertIn("info", self.ask("/info"))
        self.world.result(self.node.stop(), 5)
        self.assertEqual(self.ask("/info"), booting)


class FailureTests(AdminTestCase):
    """What a command raises."""

    def fail_with(self, error: Exception) -> None:
        """Let ``/peers`` raise."""

        def peers() -> None:
            raise error

        self.patch(self.node, "peer_infos", peers)

    def test_expected(self) -> None:
        """One of our errors is told, escaped, and not logged."""
        self.fail_with(OverlayError('say "no" to </b>\x1b'))
        reply = self.get("/peers")
        self.assertEqual(reply.json(), {"exception": 'say "no" to </b>\x1b'})
        self.assertNotIn("<", reply.text)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unexpected(self) -> None:
        """A fault of ours is logged; the client learns its kind and nothing else."""
        self.fail_with(ZeroDivisionError("secret"))
        reply = self.get("/peers")
        self.assertEqual(
            (reply.status, reply.text), (200, '{"exception": "internal error: ZeroDivisionError"}')
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class LaterTests(AdminTestCase):
    """A command that takes its time."""

    def setUp(self) -> None:
        super().setUp()
        self.cancelled = 0
        self.done: Deferred[None] = Deferred(self.note_cancelled)
        self.patch(self.node, "ban_peer", self.ban_peer)
        self.client = self.connect(request(f"/ban?node={make_node(9).peer_id}"))

    def note_cancelled(self, _: object) -> None:
        """Count."""
        self.cancelled += 1

    async def ban_peer(self, node: object, seconds: object) -> None:
        """Take as long as the test likes."""
        await self.done

    def answer_to(self, client: Client) -> str:
        """Return what a client was answered."""
        self.world.settle()
        reply = parse(client.heard)
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, "application/json"))
        return reply.text

    def test_answered(self) -> None:
        """The reply comes when there is an answer; others are answered meanwhile."""
        other = self.connect(request("/stopsurvey"))
        self.assertEqual(self.answer_to(other), "survey stopped")
        self.world.advance(ANSWER_SECONDS - 1)
        self.assertEqual(self.client.heard, b"")
        self.done.callback(None)
        self.world.settle()
        self.assertTrue(self.answer_to(self.client).startswith("Ban peer: G"))
        self.assertTrue(self.client.is_closed)

    def test_failed(self) -> None:
        """What goes wrong later is told as if it had gone wrong at once."""
        self.done.errback(OverlayError("<no>"))
        self.assertEqual(self.answer_to(self.client), r'{"exception": "\u003cno\u003e"}')
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_our_fault(self) -> None:
        """A fault of ours is logged then, too."""
        self.done.errback(ZeroDivisionError())
        self.assertEqual(
            self.answer_to(self.client), '{"exception": "internal error: ZeroDivisionError"}'
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_too_late(self) -> None:
        """After ten seconds there is an answer that says so."""
        self.world.advance(ANSWER_SECONDS)
        self.assertEqual(self.answer_to(self.client), '{"exception": "no answer in 10 s"}')
        self.assertEqual(self.cancelled, 1)
        self.assertEqual(self.http._answering, set())

    def test_client_gone(self) -> None:
        """Nothing goes on for a client that is gone, and nothing goes wrong."""
        assert self.client.transport is not None
        self.client.transport.loseConnection()
        self.world.settle()
        self.assertEqual((self.cancelled, self.http._answering), (1, set()))
        self.assertEqual(self.http._factory.channels, set())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stop(self) -> None:
        """When we stop, nobody is kept waiting."""
        self.stop(self.http)
        self.assertEqual(
            self.answer_to(self.client), '{"error": "Core is booting, try again later"}'
        )
        self.assertEqual((self.cancelled, self.http._answering), (1, set()))
        self.assertEqual(self.flushLoggedErrors(), [])


class TableTests(AdminTestCase):
    """The table of commands."""

    def test_marks(self) -> None:
        """What changes something is marked, and nothing else."""
        routes = self.http._routes
        marked = {f"/{name}" for name, route in routes.items() if route.is_changing}
        self.assertEqual(marked, {uri.partition("?")[0] for uri in CHANGING})
