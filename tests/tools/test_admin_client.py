"""The HTTP client of the survey: every answer that a server may give, and none at all."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ConfigError
from stellar_overlay.tools.admin_client import (
    AdminClient,
    AdminError,
    AdminMalformed,
    AdminNotFound,
    AdminRefused,
    AdminTooLong,
    AdminUnreachable,
    admin_url,
)

OK = b"HTTP/1.0 200 OK\r\n"
"""As stellar-core says it."""


class UrlTests(SynchronousTestCase):
    def test_good(self) -> None:
        """With a port or without, with a path or without; the last slash is of no meaning."""
        for text, url in (
            ("http://127.0.0.1:11626", "http://127.0.0.1:11626"),
            ("http://localhost:11626/", "http://localhost:11626"),
            ("https://core_1.example.org/node/admin/", "https://core_1.example.org/node/admin"),
            ("http://[::1]:80", "http://[::1]:80"),
        ):
            self.assertEqual(admin_url(text), url)

    def test_bad(self) -> None:
        """What is no URL, or has a user, a query or an impossible port."""
        for text in (
            *("", "127.0.0.1:11626", "ftp://host", "http://", "http://:80", "http://host:0"),
            *("http://host:65536", "http://host:", "http://a b", "http://user@host"),
            *(
                "http://u:p@host",
                "http://host/?a=b",
                "http://host/#x",
                "http://::1",
                "http://host\n",
            ),
            *("http://h\u00f6st", "https://[::1]:80"),
        ):
            error = self.assertRaises(ConfigError, admin_url, text)
            self.assertIn("--admin", str(error))


class ClientTests(SynchronousTestCase):
    url = "http://127.0.0.1:11626"
    host = "127.0.0.1"

    def ask(self, *, max_bytes: int = 1000, path: str = "/info", **parameters: str | int) -> None:
        """Ask, and get as far as the connection."""
        self.reactor = MemoryReactorClock()
        client = AdminClient(self.url, self.reactor, max_bytes=max_bytes)
        self.asking = Deferred.fromCoroutine(client.get(path, **parameters))

    def connect(self) -> None:
        """Let the server take the connection."""
        host, port, factory, *_ = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), (self.host, 11626))
        self.transport = StringTransport()
        protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
        assert protocol is not None
        self.protocol: IProtocol = protocol
        self.protocol.makeConnection(self.transport)

    def test_ipv6(self) -> None:
        """An address in brackets is dialled as it is, and is the Host that is asked for."""
        self.url, self.host = "http://[::1]:11626", "::1"
        self.ask()
        self.connect()
        self.assertIn(b"\r\nHost: [::1]:11626\r\n", self.transport.value())
        self.assertNotIn(b"invalid", self.transport.value())
        self.protocol.dataReceived(OK + b"Content-Length: 2\r\n\r\nhi")
        self.assertEqual(self.successResultOf(self.asking), "hi")

    def answer(self, data: bytes, *, closes: bool = True) -> None:
        """Ask, and answer this."""
        self.ask()
        self.connect()
        self.protocol.dataReceived(data)
        if closes:
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def failure(self, kind: type[AdminError]) -> str:
        """Return what the question failed with, which names where."""
        text = str(self.failureResultOf(self.asking, kind).value)
        self.assertIn("http://127.0.0.1:11626", text)
        self.assertTrue(text.isprintable())
        return text

    def test_question(self) -> None:
        """One GET with the parameters; nothing is kept open, and no origin is claimed."""
        self.ask(path="/startsurveycollecting", nonce=7)
        self.connect()
        head = self.transport.value().lower()
        self.assertTrue(head.startswith(b"get /startsurveycollecting?nonce=7 http/1.1\r\n"), head)
        self.assertIn(b"host: 127.0.0.1:11626\r\n", head)
        self.assertIn(b"connection: close\r\n", head)
        self.assertNotIn(b"origin", head)

    def test_answer(self) -> None:
        """The text, whether its length was said, or it ends with the connection, or in pieces."""
        for data in (
            OK + b"Content-Length: 5\r\n\r\nhello",
            OK + b"\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ):
            self.answer(data)
            self.assertEqual(self.successResultOf(self.asking), "hello")
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_odd_bytes(self) -> None:
        """What is no UTF-8 can be shown all the same."""
        self.answer(OK + b"\r\n\xff")
        self.assertEqual(self.successResultOf(self.asking), "\\xff")

    def test_status(self) -> None:
        """Forbidden, unknown, broken, and elsewhere: each is said."""
        for status, kind, word in (
            (b"403 Forbidden", AdminRefused, "--http-host"),
            (b"404 Not Found", AdminNotFound, "does not know"),
            (b"500 Oops", AdminMalformed, "500"),
            (b"302 Found\r\nLocation: http://other/", AdminMalformed, "302"),
        ):
            self.answer(b"HTTP/1.0 %s\r\nContent-Length: 0\r\n\r\n" % status)
            self.assertIn(word, self.failure(kind))

    def test_no_http(self) -> None:
        """Somebody else answers."""
        self.answer(b"SSH-2.0-OpenSSH_9.6\r\n")
        self.assertIn("no HTTP", self.failure(AdminMalformed))

    def test_cut_off(self) -> None:
        """The server goes away before or within its answer."""
        for data in (b"", OK, OK + b"Content-Length: 6\r\n\r\nhello"):
            self.answer(data)
            self.assertIn("before the end", self.failure(AdminUnreachable))

    def test_too_long(self) -> None:
        """An answer with too many bytes is cut off, or not waited for if it says its length."""
        for data in (b"\r\n" + bytes(1001), b"Content-Length: 1001\r\n\r\n"):
            self.answer(OK + data, closes=False)
            self.assertIn("more than 1000 bytes", self.failure(AdminTooLong))
            self.assertTrue(self.transport.disconnecting)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.answer(OK + b"\r\n" + b"a" * 1000)
        self.assertEqual(len(self.successResultOf(self.asking)), 1000)

    def test_silence(self) -> None:
        """After ten seconds it is enough: without a connection, a head, or a whole body."""
        for data in (None, b"", OK, OK + b"Content-Length: 6\r\n\r\nhello"):
            self.ask()
            if data is not None:
                self.connect()
                self.protocol.dataReceived(data)
            self.reactor.advance(9.9)
            self.assertNoResult(self.asking)
            self.reactor.advance(0.2)
            if data is not None and not self.asking.called:
                self.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertIn("within 10 s", self.failure(AdminUnreachable))
            if data is not None:
                self.assertTrue(self.transport.disconnecting)
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_slow(self) -> None:
        """As long as there is progress it is waited for: a connection, a head, piece by piece."""
        self.ask()
        self.reactor.advance(9.9)
        self.connect()
        self.reactor.advance(9.9)
        self.protocol.dataReceived(OK + b"Content-Length: 20\r\n\r\n")
        for _ in range(20):
            self.reactor.advance(9.9)
            self.assertNoResult(self.asking)
            self.protocol.dataReceived(b"a")
        self.assertEqual(self.successResultOf(self.asking), "a" * 20)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stalled(self) -> None:
        """Ten seconds without another piece are enough, however many came before."""
        self.ask()
        self.connect()
        self.protocol.dataReceived(OK + b"Content-Length: 20\r\n\r\n")
        for _ in range(5):
            self.reactor.advance(9)
            self.protocol.dataReceived(b"a")
        self.reactor.advance(10.1)
        self.assertIn("no more of it, within 10 s", self.failure(AdminUnreachable))
        self.assertTrue(self.transport.disconnecting)

    def test_endless(self) -> None:
        """After five minutes it is enough, whatever still comes."""
        self.ask()
        self.connect()
        self.protocol.dataReceived(OK + b"\r\n")
        for _ in range(59):
            self.reactor.advance(5)
            self.protocol.dataReceived(b"a")
        self.assertNoResult(self.asking)
        self.reactor.advance(5.1)
        self.assertIn("no whole answer within 300 s", self.failure(AdminUnreachable))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """Nobody listens there."""
        self.ask()
        connector = self.reactor.connectors[-1]
        self.reactor.tcpClients[-1][2].clientConnectionFailed(connector, Failure(RefusedError()))
        self.reactor.advance(1)
        self.assertIn("nobody listens there", self.failure(AdminUnreachable))

    def test_cancelled(self) -> None:
        """A question that nobody waits for any more takes its connection down."""
        self.ask()
        self.connect()
        self.protocol.dataReceived(OK + b"Content-Length: 6\r\n\r\nhello")
        self.asking.cancel()
        self.assertTrue(self.transport.disconnecting)
        self.failureResultOf(self.asking)
