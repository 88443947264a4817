"""HTTP within limits: what is too long, too slow or too much, and what it costs."""

from __future__ import annotations

import random

from twisted.internet import error

from stellar_overlay.admin.channel import (
    LINGER_SECONDS,
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    REQUEST_SECONDS,
)
from tests.admin.kit import HERE, AdminTestCase, parse, request

GARBAGE_REQUESTS = 2000
LINES = (
    b"GET /info HTTP/1.1\r\n", b"POST /peers?fullkeys=true HTTP/1.1\r\n", b"", b"",
    b"GET /scp?limit=%s HTTP/1.0\r\n", b"HEAD /nothing HTTP/1.1\r\n", b"GET /%zz HTTP/1.1\r\n",
    b"POST /stopsurvey HTTP/1.1\r\nHost: localhost\r\n",
)  # fmt: skip
PIECES = (
    b"GET ", b"POST ", b"HEAD ", b"/info", b"/peers", b"/scp?limit=", b"/stopsurvey", b"/%", b"?",
    b"&", b"=", b"%zz", b"%00", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9\r\n", b"\r\n", b"\n",
    b"\r", b"Host: localhost\r\n", b"Host:\r\n", b": x\r\n", b" folded\r\n", b"X: y\r\n", b"X:\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: x\r\n", b"\x00",
    b"Content-Length: " + b"9" * 6000 + b"\r\n", b"Content-Length: 70000\r\n", b"\xff" * 9,
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n", b"ffffffffffffffff\r\n",
    b"5\r\n", b"zz\r\n", b"0\r\n\r\n", b"Cookie: \xff=\x00\r\n", b"Expect: 100-continue\r\n",
    b"Content-Type: multipart/form-data; boundary=\r\n", b"Upgrade: websocket\r\n", b"a" * 5000,
    b"Origin: null\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00",
)  # fmt: skip


class ReplyTests(AdminTestCase):
    """What every reply is like."""

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        get, head = self.get("/scp"), self.get("/scp", method="HEAD")
        self.assertEqual((head.status, head.headers, head.body), (200, get.headers, b""))

    def test_methods(self) -> None:
        """A known command may be asked by any method."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "ANYTHING"):
            self.assertEqual(self.get("/scp", method=method), self.get("/scp"))

    def test_headers(self) -> None:
        """It says what it is, that it is not to be kept, and grants nothing to other sites."""
        for uri in ("/info", "/nothing", "/%"):
            reply = self.get(uri, ("Origin", "http://evil.example"))
            self.assertEqual(reply.headers["x-content-type-options"], "nosniff")
            self.assertEqual(reply.headers["cache-control"], "no-store")
            self.assertFalse([name for name in reply.headers if name.startswith("access-control")])

    def test_old_http(self) -> None:
        """HTTP/1.0 is understood, without any header."""
        self.assertEqual(self.reply(b"GET /info HTTP/1.0\r\n\r\n").status, 200)

    def test_piecemeal(self) -> None:
        """A request may come byte by byte."""
        client = self.connect()
        for byte in request("/scp"):
            self.send(client, bytes([byte]))
        self.assertEqual(parse(client.heard).status, 200)

    def test_only_one(self) -> None:
        """What follows the first request is not looked at."""
        client = self.connect(request("/scp") + request("/startsurveycollecting?nonce=1"))
        self.assertEqual(parse(client.heard).status, 200)
        self.assertTrue(client.is_closed)
        self.assertFalse(self.node.survey.is_active)


class LimitTests(AdminTestCase):
    """What is too long."""

    def test_long_line(self) -> None:
        """A request line of 8 KiB is the longest."""
        self.assertEqual(self.reply(request("/" + "x" * MAX_HEAD_BYTES)).status, 400)
        self.assertEqual(self.reply(b"x" * 2 * MAX_HEAD_BYTES).status, 400)

    def test_long_head(self) -> None:
        """The headers count, too: by bytes and by number."""
        headers = [("Host", HERE), *[(f"X-{number}", "y" * 1000) for number in range(9)]]
        self.assertEqual(self.reply(request("/info", headers)).status, 400)
        many = [("X", "y")] * (MAX_HEADERS + 1)
        self.assertEqual(self.reply(request("/info", many)).status, 400)

    def test_body(self) -> None:
        """A body of 64 KiB is read and ignored; a longer one is refused before it comes."""
        body = b"x" * MAX_BODY_BYTES
        head = request("/scp", [("Host", HERE), ("Content-Length", str(len(body)))], "POST")
        self.assertEqual(self.reply(head + body).status, 200)
        for size in (str(MAX_BODY_BYTES + 1), "9" * 5000, "1" * 18):
            head = request("/scp", [("Host", HERE), ("Content-Length", size)], "POST")
            self.assertEqual(self.reply(head).status, 413)

    def test_chunks(self) -> None:
        """A body of unknown length may be as long and no longer."""
        head = request("/scp", [("Host", HERE), ("Transfer-Encoding", "chunked")], "POST")
        chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        self.assertEqual(self.reply(head + 16 * chunk + b"0\r\n\r\n").status, 200)
        self.assertEqual(self.reply(head + 17 * chunk).status, 413)

    def test_refused_changes_nothing(self) -> None:
        """A request that was refused half-way is not carried out by what follows."""
        for bad in (b"no colon\r\n", b"Content-Length: x\r\n", b"Content-Length: 99999\r\n"):
            data = b"GET /startsurveycollecting?nonce=1 HTTP/1.1\r\nHost: localhost\r\n"
            client = self.connect(data + bad + b"X: y\r\n\r\n")
            self.send(client, b"\r\n\r\n" + request("/startsurveycollecting?nonce=1"))
            self.assertIn(parse(client.heard).status, (400, 413))
            self.assertFalse(self.node.survey.is_active)
            self.world.advance(LINGER_SECONDS)
            self.assertTrue(client.is_closed)

    def test_connections(self) -> None:
        """There are at most 128; one that goes makes room."""
        clients = [self.connect() for _ in range(MAX_CONNECTIONS)]
        self.assertRaises(error.ConnectionRefusedError, self.connect, request("/info"))
        assert clients[0].transport is not None
        clients[0].transport.loseConnection()
        self.world.settle()
        self.assertEqual(parse(self.connect(request("/info")).heard).status, 200)


class TimeTests(AdminTestCase):
    """What takes too long."""

    def test_silence(self) -> None:
        """Who says nothing is gone after 15 s."""
        client = self.connect()
        self.world.advance(REQUEST_SECONDS - 0.5)
        self.assertFalse(client.is_closed)
        self.world.advance(0.5)
        self.assertTrue(client.is_closed)

    def test_drip(self) -> None:
        """A byte now and then buys no more time."""
        client = self.connect()
        for byte in request("/" + "x" * 100)[:REQUEST_SECONDS]:
            self.send(client, bytes([byte]))
            self.world.advance(1)
        self.assertTrue(client.is_closed)

    def test_half_a_body(self) -> None:
        """Nor does a body that does not come."""
        client = self.connect(request("/info", [("Host", HERE), ("Content-Length", "5")]) + b"1")
        self.world.advance(REQUEST_SECONDS)
        self.assertEqual((client.is_closed, client.heard), (True, b""))

    def test_deaf(self) -> None:
        """Who does not read the reply is gone after as long again."""
        client = self.connect()
        ours = self.world.transports()[1]
        ours.cork()
        self.send(client, request("/info"))
        self.assertFalse(ours.is_closed)
        self.world.advance(REQUEST_SECONDS + 1)
        self.assertTrue(ours.is_closed)
        self.assertEqual(client.heard, b"")

    def test_stop(self) -> None:
        """Stopping waits a second for who is slow, and not at all when there is nobody."""
        client = self.connect()
        self.send(client, b"GET /in")
        self.connect()
        ours = self.world.transports()[1]
        ours.write(b"x")
        ours.cork()
        stopped = self.http.stopService()
        self.world.settle()
        self.assertTrue(client.is_closed)
        self.assertNoResult(stopped)
        self.world.advance(1)
        self.successResultOf(stopped)
        self.assertIsNone(self.http.port)


class GarbageTests(AdminTestCase):
    """What is no HTTP at all."""

    def test_garbage(self) -> None:
        """Whatever comes is answered or dropped; nothing fails, nothing stays."""
        chance = random.Random(11626)
        statuses = set()
        for _ in range(GARBAGE_REQUESTS):
            pieces = [chance.choice(LINES), *chance.choices(PIECES, k=chance.randrange(6))]
            pieces.append(chance.choice((b"\r\n", b"\r\n\r\n", b"")))
            if chance.random() < 0.2:
                pieces.append(chance.randbytes(chance.randrange(200)))
            client = self.connect()
            for piece in (b"".join(pieces),) if chance.random() < 0.7 else pieces:
                self.send(client, piece)
            if client.heard:
                heard = client.heard.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
                statuses.add(parse(heard).status if heard else 100)
            self.assertNotIn(b"Traceback", client.heard)
            assert client.transport is not None
            client.transport.abortConnection()  # type: ignore[attr-defined]
            self.world.settle()
        self.assertLessEqual({200, 400, 404, 413}, statuses)
        self.assertLessEqual(statuses, {100, 200, 400, 403, 404, 413})
        self.assertEqual(self.http._factory.channels, set())
        self.assertEqual(self.flushLoggedErrors(), [])
