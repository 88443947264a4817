"""HTTP on a connection: one small request, one whole reply, and the connection is closed."""

# ruff: noqa: N802, N815 - twisted.web's names

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory, Request

MAX_HEAD_BYTES = 8 * 1024
"""Of the request line and of all headers together."""
MAX_HEADERS = 100
MAX_BODY_BYTES = 64 * 1024
"""A body is read and forgotten: no command has one."""
REQUEST_SECONDS = 15
"""In which a request must be here, and then a short reply be read."""
SLOWEST_BYTES_PER_SECOND = 64 * 1024
"""How fast a long reply must be read besides."""
MAX_UNREAD_BYTES = 256 * 1024 * 1024
"""Of all replies together; a single one may be longer."""
LINGER_SECONDS = 2
"""For how long a client may go on sending what was refused already, so that it reads why."""
CLOSE_SECONDS = 1
"""How long stopping waits for replies to be read."""
MAX_CONNECTIONS = 128

_HEADERS = b"Connection: close\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
_LONG_NUMBER = re.compile(rb"(?i)content-length[ \t]*:[ \t]*[0-9]{19,}")


class AdminRequest(Request):
    """A request, handed as it is to the site once it is all here.

    What twisted.web would make of path, query and form is of no use here: core's rules differ.
    """

    channel: AdminChannel
    _received_bytes = 0

    def gotLength(self, length: int | None) -> None:
        """Keep no body."""

    def parseCookies(self) -> None:
        """Have no use for any."""

    def handleContentChunk(self, data: bytes) -> None:
        """Count the body, whose length may not have been announced."""
        self._received_bytes += len(data)
        if self._received_bytes > MAX_BODY_BYTES:
            self.channel.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Have it answered."""
        self.method, self.uri, self.clientproto = command, path, version
        self.channel.factory.answer(self)

    def headers_of(self, name: str) -> list[str]:
        """Return every value of a header, byte by byte."""
        values = self.requestHeaders.getRawHeaders(name.encode(), [])
        return [value.decode("latin-1") for value in values]

    def last_header(self, name: str) -> str | None:
        """Return its last value; None when there is none."""
        return next(reversed(self.headers_of(name)), None)

    def reply(self, code: int, headers: dict[str, str], body: bytes) -> None:
        """Send the whole reply, without its body to a HEAD request; to nobody who is gone."""
        if self._disconnected:
            return
        if not self.channel.make_room(len(body)):
            code, headers, body = HTTPStatus.SERVICE_UNAVAILABLE, {}, b"too many replies unread\n"
        self.setResponseCode(code)
        for line in _HEADERS.splitlines():
            name, _, value = line.partition(b": ")
            self.setHeader(name, value)
        for key, text in headers.items():
            self.setHeader(key.encode(), text.encode())
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()


class AdminChannel(HTTPChannel):
    """Reads one request within limits, and waits neither for its rest nor for a slow reader."""

    MAX_LENGTH = MAX_HEAD_BYTES
    totalHeadersSize = MAX_HEAD_BYTES
    maxHeaders = MAX_HEADERS
    requestFactory = AdminRequest
    factory: AdminFactory
    transport: Any
    _networkProducer: Any
    _is_refused = False
    reply_bytes = 0

    def make_room(self, size: int) -> bool:
        """Note how long the reply will be; False when too many others are not read yet."""
        unread = sum(channel.reply_bytes for channel in self.factory.channels)
        if unread and unread + size > MAX_UNREAD_BYTES:
            return False
        self.reply_bytes = size
        return True

    def connectionMade(self) -> None:
        self.factory.channels.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.forget(self)

    def resetTimeout(self) -> None:
        """Give no more time to who sends a byte now and then."""

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        return False

    def dataReceived(self, data: bytes) -> None:
        if not self._is_refused:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self._is_refused:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HTTPStatus.BAD_REQUEST)

    def headerReceived(self, line: bytes) -> bool:
        if _LONG_NUMBER.match(line):  # Python itself reads no number of thousands of digits
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return not self._is_refused and super().headerReceived(line)

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_BODY_BYTES:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if not self._is_refused:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._is_refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self._is_refused:
            super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        self.setTimeout(REQUEST_SECONDS + self.reply_bytes / SLOWEST_BYTES_PER_SECOND)
        super().requestDone(request)

    def timeoutConnection(self) -> None:
        self.transport.abortConnection()

    def refuse(self, code: HTTPStatus) -> None:
        """Say that a request is not taken, and hear no more of it."""
        if self._is_refused:
            return
        self._is_refused = True
        body = f"{code.value} {code.phrase}\n".encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\n" % (code.value, code.phrase.encode())
            + _HEADERS
            + b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        self._close_politely()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(HTTPStatus.BAD_REQUEST)

    def _close_politely(self) -> None:
        """Close our side only: a reset would take the reply from who is still sending."""
        self._networkProducer.unregisterProducer()
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if half_close is None:
            self.transport.loseConnection()
        else:
            self.setTimeout(LINGER_SECONDS)
            half_close()


class AdminFactory(HTTPFactory):
    """Makes the channels of a site, up to a number.

    :param answer: is called with each request once it is all here, and replies to it.
    :ivar channels: those that are open.
    """

    noisy = False
    protocol: Any = AdminChannel

    def __init__(self, answer: Callable[[AdminRequest], None], reactor: IReactorTime) -> None:
        super().__init__(timeout=REQUEST_SECONDS, reactor=reactor)
        self.answer = answer
        self.channels: set[AdminChannel] = set()
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a channel, or None where there are too many already."""
        return super().buildProtocol(addr) if len(self.channels) < MAX_CONNECTIONS else None

    def forget(self, channel: AdminChannel) -> None:
        """Note that a channel is closed."""
        self.channels.discard(channel)
        if not self.channels and self._all_gone is not None:
            all_gone, self._all_gone = self._all_gone, None
            all_gone.callback(None)

    def close_all(self) -> Deferred[None]:
        """Close all channels; what is not sent after a second is not sent any more."""
        if not self.channels:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        late = self.reactor.callLater(CLOSE_SECONDS, self._abort_all)
        for channel in tuple(self.channels):
            channel.loseConnection()

        def cancel(_: None) -> None:
            if late.active():
                late.cancel()

        return gone.addCallback(cancel)

    def _abort_all(self) -> None:
        for channel in tuple(self.channels):
            channel.transport.abortConnection()

    def startFactory(self) -> None:
        """Keep no access log, and no clock for its times."""

    def stopFactory(self) -> None:
        """Have nothing to close."""

    def log(self, request: Request) -> None:
        """Keep no access log."""
