"""Long replies of the admin HTTP, over TCP: they leave as fast as they are read."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from stellar_overlay.admin import channel
from stellar_overlay.admin.channel import AdminFactory, AdminRequest
from tests.integration.members import LOOPBACK, in_reactor, the_reactor, until

BODY = bytes(range(256)) * 32_768
FOR_EVER = -1
QUESTION = b"%s / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Reader(Protocol):
    """Asks, and reads as told: all at once, or with pauses, or nothing."""

    def __init__(
        self, method: bytes, pause: float | None = None, *, is_closing: bool = False
    ) -> None:
        self.method = method
        self.pause = pause
        self.is_closing = is_closing
        self.heard = bytearray()
        self.ended: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        transport: Any = self.transport
        transport.write(QUESTION % self.method)
        if self.is_closing:
            transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        if self.pause is not None:
            transport: Any = self.transport
            transport.pauseProducing()
            if self.pause != FOR_EVER:
                the_reactor().callLater(self.pause, transport.resumeProducing)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(bytes(self.heard).partition(b"\r\n\r\n")[2])


async def ask(
    method: bytes = b"GET",
    *,
    pause: float | None = None,
    is_closing: bool = False,
    others: int = 0,
) -> bytes:
    """Return the body that a reader got, beside others who read nothing."""

    def answer(request: AdminRequest) -> None:
        request.reply(200, {"Content-Type": "text/plain"}, BODY)

    clock = the_reactor()
    factory = AdminFactory(answer, clock)
    port = await TCP4ServerEndpoint(clock, 0, interface=LOOPBACK).listen(factory)
    endpoint = TCP4ClientEndpoint(clock, LOOPBACK, port.getHost().port)
    deaf = [Reader(b"GET", FOR_EVER) for _ in range(others)]
    for other in deaf:
        await connectProtocol(endpoint, other)
        await until(lambda: bool(deaf[-1].heard), 10)
    reader = Reader(method, pause, is_closing=is_closing)
    await connectProtocol(endpoint, reader)
    body = await reader.ended
    for other in deaf:
        transport: Any = other.transport
        transport.abortConnection()
        await other.ended
    await factory.close_all()
    await port.stopListening()
    return body


@in_reactor
async def test_all_of_it() -> None:
    """Eight megabytes, whole and in order; and none of it to HEAD."""
    assert await ask() == BODY
    assert await ask(b"HEAD") == b""


@in_reactor
async def test_slow_and_stopped() -> None:
    """A long reply may take longer, in proportion; whoever stops is not waited for."""
    with (
        patch.object(channel, "REQUEST_SECONDS", 0.5),
        patch.object(channel, "SLOWEST_BYTES_PER_SECOND", len(BODY) // 2),
    ):
        assert await ask(pause=0.005) == BODY
        assert len(await ask(pause=5)) < len(BODY)


@in_reactor
async def test_half_closed() -> None:
    """Who has nothing more to say is answered in full."""
    assert await ask(is_closing=True) == BODY


@in_reactor
async def test_too_much_unread() -> None:
    """A reply that would be too much with those that are not read yet is not kept for anybody."""
    with patch.object(channel, "MAX_UNREAD_BYTES", len(BODY) + 1000):
        assert await ask(others=1) == b"too many replies unread\n"
        assert await ask() == BODY
