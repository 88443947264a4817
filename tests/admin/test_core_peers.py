"""Core's commands about single peers, asked over HTTP: each text, and what really happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from stellar_overlay.admin.core_peers import NO_ADDRESS, PeerCommands
from stellar_overlay.error import DatabaseError, ErrorCode
from tests.admin.kit import HERE, AdminTestCase, request
from tests.builders import make_node
from tests.node.world import PORT, ip

PEER = make_node(9).peer_id
STRANGER = make_node(8).peer_id
HOSTILE = '%1b[31m%00</script><b>%c2%85%e2%80%ae"'
HARMLESS = r"\u001b[31m\u0000\u003c/script\u003e\u003cb\u003e\u0085\u202e" + r"\""


class PeerCommandsTestCase(AdminTestCase):
    """A node whose log is kept."""

    def setUp(self) -> None:
        super().setUp()
        self.log: Sequence[LogEvent] = self.enterContext(capturedLogs())

    def logged(self, word: str) -> list[str]:
        """Return what was said at level info with a word in it."""
        said = [formatEvent(one) for one in self.log if one["log_level"] is LogLevel.info]
        return [text for text in said if word in text]


class ConnectTests(PeerCommandsTestCase):
    """``/connect``."""

    def test_connect(self) -> None:
        """The text comes at once, the link by and by."""
        self.world.answer(9)
        self.assertEqual(
            self.say(f"/connect?peer={ip(9)}&port={PORT}"), f"Connect to: {ip(9)}:11625"
        )
        self.assertEqual([peer.peer_id for peer in self.node.peer_infos()], [PEER])

    def test_again(self) -> None:
        """The text is the same for who is connected already; nothing comes of it."""
        self.world.answer(9)
        for _ in range(2):
            self.assertEqual(
                self.say(f"/connect?peer={ip(9)}&port={PORT}"), f"Connect to: {ip(9)}:11625"
            )
        self.assertEqual(len(self.node.peer_infos()), 1)
        (text,) = self.logged("connect to")
        self.assertIn("connected already", text)

    def test_name(self) -> None:
        """A name is looked up."""
        self.world.network.names["nine.example"] = [ip(9)]
        self.world.answer(9)
        self.assertEqual(
            self.say(f"/connect?peer=nine.example&port={PORT}"), "Connect to: nine.example:11625"
        )
        self.assertEqual(len(self.node.peer_infos()), 1)

    def test_failure(self) -> None:
        """Nobody there, no such name: one line in the log, and no traceback."""
        for host in (ip(77), "nobody.example"):
            self.assertEqual(self.say(f"/connect?peer={host}&port=1"), f"Connect to: {host}:1")
        self.world.advance(10)
        self.assertEqual(len(self.logged(f"connect to {ip(77)}:1: ")), 1)
        self.assertEqual(len(self.logged("connect to nobody.example:1: ")), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_missing(self) -> None:
        """Both are wanted; a last one without value is none."""
        for uri in ("/connect", "/connect?peer=h", "/connect?port=1", "/connect?port=1&peer="):
            self.assertEqual(self.say(uri), NO_ADDRESS)
        self.assertEqual(NO_ADDRESS, "Must specify a peer and port: connect&peer=PEER&port=PORT")

    def test_no_address(self) -> None:
        """What is no address is an exception, in which it stands harmlessly."""
        for uri in (
            "/connect?peer=h&port=0", "/connect?peer=h&port=65536", "/connect?peer=h&port=x",
            "/connect?peer=&port=1", "/connect?peer=::1&port=1", f"/connect?peer={HOSTILE}&port=1",
        ):  # fmt: skip
            reply = self.get(uri)
            self.assertEqual(set(reply.json()), {"exception"}, uri)
            self.assertTrue(reply.text.isprintable())
            self.assertNotIn("<", reply.text)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_stop_meanwhile(self) -> None:
        """A node that stops gives up, and says nothing worse than that."""
        self.world.answer(9, is_polite=False)
        self.say(f"/connect?peer={ip(9)}&port={PORT}")
        self.assertEqual(len(self.node.pending_peers()), 1)
        self.world.result(self.node.stop(), 5)
        self.assertEqual(len(self.logged(f"connect to {ip(9)}:11625: ")), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_our_fault(self) -> None:
        """What should not happen is logged as that."""

        async def connect(_: object) -> None:
            raise ZeroDivisionError

        self.patch(self.node, "connect", connect)
        self.assertEqual(self.say("/connect?peer=h&port=1"), "Connect to: h:1")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class DropTests(PeerCommandsTestCase):
    """``/droppeer``."""

    settings = {"node_names": {PEER.strkey: "nine"}}  # noqa: RUF012

    def test_drop(self) -> None:
        """The peer is told by whom; it may come back."""
        for name in (PEER.strkey, "$nine", f"@{PEER.strkey[:7]}"):
            peer = self.world.call(number=9)
            self.assertEqual(self.say(f"/droppeer?node={name}"), f"Drop peer: {name}")
            self.assertEqual(peer.error, (ErrorCode.ERR_MISC, b"dropped by user"))
            self.assertEqual(self.node.peer_infos(), [])
        self.assertEqual(self.node.banned_peers(), [])

    def test_ban(self) -> None:
        """With ban=1, and only so, it is banned as well."""
        self.world.call(number=9)
        self.assertEqual(self.say("/droppeer?node=$nine&ban=true"), "Drop peer: $nine")
        self.assertEqual(self.node.banned_peers(), [])
        peer = self.world.call(number=9)
        self.assertEqual(self.say("/droppeer?node=$nine&ban=1"), "Drop and ban peer: $nine")
        self.assertEqual(peer.error, (ErrorCode.ERR_MISC, b"dropped by user"))
        self.assertEqual(self.node.banned_peers(), [PEER])
        self.world.call(number=9)
        self.assertEqual(self.node.peer_infos(), [])

    def test_not_found(self) -> None:
        """Who is not connected is not found, and not banned; nor is who is shaking hands."""
        self.world.call(number=8, is_polite=False)
        for name in (PEER.strkey, STRANGER.strkey, "$nobody", "@GZZ", "nine", "@", "$", "G"):
            reply = self.say(f"/droppeer?node={name}&ban=1")
            self.assertEqual(reply, f"Peer {name} not found")
        self.assertEqual(self.say("/droppeer?node=&ban=1"), "Peer  not found")
        self.assertEqual(self.node.banned_peers(), [])
        self.assertEqual(len(self.node.pending_peers()), 1)

    def test_missing(self) -> None:
        """Whom must be said."""
        for uri in ("/droppeer", "/droppeer?ban=1", "/droppeer?node="):
            self.assertEqual(self.say(uri), "Must specify at least peer id: droppeer?node=NODE_ID")

    def test_hostile(self) -> None:
        """What is repeated is harmless in a terminal, in JSON and in a page."""
        for command in ("droppeer", "unban", "ban"):
            self.assertEqual(self.say(f"/{command}?node={HOSTILE}"), f"Peer {HARMLESS} not found")


class BanTests(PeerCommandsTestCase):
    """``/bans``, ``/unban``, and ``/ban``, which is ours."""

    settings = {"node_names": {PEER.strkey: "nine"}}  # noqa: RUF012

    def bans(self) -> Any:
        """Return who is banned."""
        answer = self.ask("/bans")
        self.assertEqual(set(answer), {"bans"})
        return answer["bans"]

    def test_nobody(self) -> None:
        """Nobody is null, as jsoncpp writes it."""
        self.assertEqual(self.say("/bans"), '{\n   "bans" : null\n}\n')

    def test_ban_and_unban(self) -> None:
        """A node is banned whether it is connected or not, and unbanned whether it was banned."""
        peer = self.world.call(number=9)
        self.assertEqual(self.say("/ban?node=$nine"), "Ban peer: $nine")
        self.assertIsNotNone(peer.error)
        self.assertEqual(self.say(f"/ban?node={STRANGER}"), f"Ban peer: {STRANGER}")
        self.assertEqual(self.bans(), sorted([PEER.strkey, STRANGER.strkey]))
        self.assertEqual(self.say(f"/unban?node={PEER}"), f"Unban peer: {PEER}")
        self.assertEqual(self.say("/unban?node=$nine"), "Unban peer: $nine")
        self.assertEqual(self.bans(), [STRANGER.strkey])

    def test_for_a_while(self) -> None:
        """A ban may end by itself."""
        self.assertEqual(self.say("/ban?node=$nine&seconds=60"), "Ban peer for 60 s: $nine")
        self.world.advance(59)
        self.assertEqual(self.bans(), [PEER.strkey])
        self.world.advance(1)
        self.assertIsNone(self.bans())

    def test_seconds(self) -> None:
        """A time must be one; what is none bans nobody."""
        garbled = {"exception": "Failed to parse 'seconds' argument"}
        for text in ("x", "-1", "1.5", str(2**32)):
            self.assertEqual(self.ask(f"/ban?node=$nine&seconds={text}"), garbled)
        self.assertEqual(self.ask("/ban?seconds=&node=$nine"), garbled)
        self.assertIn("must be above 0", self.ask("/ban?node=$nine&seconds=0")["exception"])
        self.assertIsNone(self.bans())

    def test_unknown(self) -> None:
        """Who cannot be told is not found; whom must be said."""
        for command in ("ban", "unban"):
            self.assertEqual(self.say(f"/{command}?node=$no"), "Peer $no not found")
            for uri in (f"/{command}", f"/{command}?node="):
                self.assertEqual(
                    self.say(uri), f"Must specify at least peer id: {command}?node=NODE_ID"
                )
        self.assertIsNone(self.bans())

    def test_waits_for_the_disk(self) -> None:
        """The answer says that it is done, so it comes once it is on disk; or that it is not."""
        done: Deferred[None] = Deferred()
        ban_node = self.node.stores.bans.ban_node

        def slowly(node_id: str) -> Deferred[None]:
            ban_node(node_id)
            return done

        self.patch(self.node.stores.bans, "ban_node", slowly)
        client = self.connect(request("/ban?node=$nine"))
        self.assertEqual(client.heard, b"")
        self.assertEqual(self.node.banned_peers(), [PEER])
        done.errback(DatabaseError("not on disk"))
        self.world.settle()
        self.assertTrue(client.heard.endswith(b'\r\n\r\n{"exception": "not on disk"}'))
        self.assertEqual(self.flushLoggedErrors(), [])


class ForeignTests(AdminTestCase):
    """Requests that a page of another site sends."""

    def test_nothing_happens(self) -> None:
        """Nobody is dialled, dropped, banned or unbanned for it."""
        self.world.call(number=9)
        answering = self.world.answer(7)
        self.world.result(self.node.ban_peer(STRANGER))
        uris = (
            f"/connect?peer={ip(7)}&port={PORT}", f"/droppeer?node={PEER}&ban=1",
            f"/ban?node={PEER}", f"/unban?node={STRANGER}",
        )  # fmt: skip
        paths = {uri[1:].partition("?")[0] for uri in uris}
        routes = PeerCommands(self.node).routes()
        self.assertEqual(paths, {name for name, route in routes.items() if route.is_changing})
        for uri in uris:
            for headers in (
                (("Host", "evil.example"),),
                (("Host", HERE), ("Origin", "http://evil.example")),
                (("Host", HERE), ("Sec-Fetch-Site", "cross-site")),
            ):
                for method in ("GET", "POST"):
                    reply = self.reply(request(uri, headers, method))
                    self.assertEqual((reply.status, set(reply.json())), (403, {"error"}), uri)
        self.assertEqual(answering, [])
        self.assertEqual([peer.peer_id for peer in self.node.peer_infos()], [PEER])
        self.assertEqual(self.node.banned_peers(), [STRANGER])
