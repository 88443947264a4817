"""A node with its admin HTTP, in memory, and a client that sends what it is told to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from stellar_overlay.address import PeerAddress
from stellar_overlay.admin.server import AdminHttp
from stellar_overlay.node.manager import OverlayManager
from tests.node.world import WorldTestCase, ip

HTTP_PORT = 11626
HERE = f"{ip(1)}:{HTTP_PORT}"
"""Where the node is asked."""
OPERATOR = ip(200)


class Reply(NamedTuple):
    """What came back: the status, the headers with names in lower case, the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body; it is always ASCII."""
        return self.body.decode("ascii")

    def json(self) -> Any:
        """Return the body as what it says it is."""
        return json.loads(self.text)


def parse(data: bytes) -> Reply:
    """Read one reply, whose length must be as it says unless it has no body."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(lines) == len(headers), lines
    assert body in (b"", body[: int(headers["content-length"])]), data
    return Reply(int(status.split(" ")[1]), headers, body)


class Client(Protocol):
    """Keeps what it hears.

    :ivar is_closed: whether the other side has closed.
    """

    def __init__(self) -> None:
        self.heard = b""
        self.is_closed = False

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_closed = True


def request(
    uri: str, headers: Iterable[tuple[str, str]] = (("Host", HERE),), method: str = "GET"
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {uri} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class AdminTestCase(WorldTestCase):
    """One node at 10.0.0.1 with its admin HTTP; it is started if :attr:`is_started`."""

    is_started = True
    settings: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def setUp(self) -> None:
        super().setUp()
        self.node = self.make_node()
        self.http = self.serve(self.node)

    def make_node(self) -> OverlayManager:
        """Return the node."""
        return self.world.node(is_started=self.is_started, is_observing=True, **self.settings)

    def serve(self, node: OverlayManager, *hosts: str) -> AdminHttp:
        """Return the admin HTTP of a node, which is stopped before the node."""
        endpoint = self.world.network.server(ip(1), HTTP_PORT)
        http = AdminHttp(node, endpoint, hosts=hosts, clock=self.world.clock)
        self.world.result(http.listen())
        http.startService()
        self.addCleanup(self.stop, http)
        return http

    def stop(self, http: AdminHttp) -> None:
        """Stop it; that takes a second at most, whatever its clients do."""
        stopped = http.stopService()
        self.world.advance(1)
        self.successResultOf(stopped)

    def connect(self, data: bytes = b"") -> Client:
        """Return a client that has sent these bytes."""
        client = Client()
        self.world.network.connect(
            OPERATOR, PeerAddress(ip(1), HTTP_PORT), Factory.forProtocol(lambda: client)
        )
        self.world.settle()
        self.send(client, data)
        return client

    def send(self, client: Client, data: bytes) -> None:
        """Let a client send more."""
        if not client.is_closed:
            assert client.transport is not None
            client.transport.write(data)
        self.world.settle()

    def reply(self, data: bytes) -> Reply:
        """Return the reply to a raw request, after which no connection is left."""
        client = self.connect(data)
        reply = parse(client.heard)
        self.assertEqual(reply.headers["connection"], "close")
        assert client.transport is not None
        client.transport.loseConnection()
        self.world.settle()
        self.assertEqual(self.http._factory.channels, set())
        return reply

    def get(self, uri: str, *headers: tuple[str, str], method: str = "GET") -> Reply:
        """Return the reply to a request for a URI that is called by the node's address."""
        return self.reply(request(uri, (("Host", HERE), *headers), method))

    def ask(self, uri: str) -> Any:
        """Return the JSON at a URI, of a command that is known."""
        reply = self.get(uri)
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, "application/json"))
        return reply.json()

    def say(self, uri: str) -> str:
        """Return the plain text at a URI, of a command that is known."""
        reply = self.get(uri)
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, "application/json"))
        return reply.text
