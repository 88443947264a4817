"""A node's admin HTTP, ours or stellar-core's, as a client sees it.

Importing this takes a while (treq, twisted.web).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn
from typing import Protocol as Port

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from stellar_overlay.address import MAX_PORT
from stellar_overlay.error import ConfigError, OverlayError

STALL_SECONDS = 10
"""Without any progress: until there is a connection, then a head, then the next piece of a body."""
TOTAL_SECONDS = 300
"""For a request and its answer to the last byte."""
MAX_BYTES = 256 * 1024 * 1024
"""Of an answer; the survey of a network of 1,000 nodes with 72 peers each has some 40 MB."""

_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?(/[!-~]*)?")
_IPV6 = re.compile(r"http://(\[([^]]+)\](?::[0-9]+)?)")
_NAME_OF_A_LITERAL = "ipv6.invalid"


class AdminError(OverlayError):
    """A node's admin HTTP did not do what it was asked for; the text says why, in one line."""


class AdminUnreachable(AdminError):
    """Nobody answers there, or not in time."""

    retriable = True


class AdminTooLong(AdminError):
    """An answer has more bytes than anybody wants, and will not have fewer the next time."""


class AdminMalformed(AdminError):
    """What answers there says what no admin HTTP says."""

    retriable = True


class AdminRefused(AdminError):
    """The node is there and will not do that."""


class AdminNotFound(AdminRefused):
    """The node does not know that path."""


class Admin(Port):
    """What a survey needs of an admin HTTP."""

    async def get(self, path: str, **parameters: str | int) -> str:
        """Return the text that the node answers with.

        :raises AdminError: when it does not answer with a text.
        """
        ...


def admin_url(text: str) -> str:
    """Return the address of an admin HTTP, without the slash at its end.

    :raises ConfigError: when it is none, or has what it should not have: a user, a query.
    """
    match = _URL.fullmatch(text)
    if text.startswith("https://["):
        raise ConfigError("--admin: https wants a name, as no certificate is for an IPv6 address")
    if match is None or "?" in text or "#" in text or not 0 < int(match[2] or 80) <= MAX_PORT:
        raise ConfigError(
            f"--admin: must be a URL such as http://127.0.0.1:11626, not {text!r:.100}"
        )
    return text.rstrip("/")


class AdminClient:
    """Asks over HTTP, each question on a connection of its own, as stellar-core closes them.

    :param url: as :func:`admin_url` returns it.
    """

    def __init__(
        self,
        url: str,
        reactor: Any,
        *,
        stall_seconds: float = STALL_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._url = url
        self._reactor = reactor
        self._stall_seconds = stall_seconds
        self._total_seconds = total_seconds
        self._max_bytes = max_bytes
        self._tls = BrowserLikePolicyForHTTPS()

    async def get(self, path: str, **parameters: str | int) -> str:
        """Return the text at ``path``, which begins with a slash.

        :raises AdminUnreachable: when there is none in time.
        :raises AdminTooLong: when it is too long.
        :raises AdminMalformed: when it is no HTTP.
        :raises AdminRefused: when the node's guard does not let us in.
        :raises AdminNotFound: when the node has nothing of that name.
        """

        def give_up(_: object, seconds: float) -> NoReturn:
            raise AdminUnreachable(f"{self._url}{path}: no whole answer within {seconds:g} s")

        stall = _Stall(self._reactor, self._stall_seconds, lambda: asking.cancel())
        asking = Deferred.fromCoroutine(self._get(path, parameters, stall.note_progress))
        try:
            return await asking.addTimeout(self._total_seconds, self._reactor, give_up)
        except Exception as error:  # dozens of them, from sockets to twisted.web
            if stall.is_over:
                raise AdminUnreachable(
                    f"{self._url}{path}: no answer, or no more of it, "
                    f"within {self._stall_seconds:g} s"
                ) from error
            if isinstance(error, AdminError | CancelledError):
                raise
            raise self._explained(path, _cause(error)) from error
        finally:
            stall.stop()

    async def _get(
        self, path: str, parameters: dict[str, str | int], note_progress: Callable[[], None]
    ) -> str:
        pool = _Pool(self._reactor, note_progress)
        headers = Headers({"User-Agent": ["stellar-overlay"]})
        url = self._url
        if (literal := _IPV6.match(url)) is None:
            agent = Agent(self._reactor, self._tls, connectTimeout=self._stall_seconds, pool=pool)
        else:
            endpoints = _OneHost(self._reactor, literal[2], self._stall_seconds)
            agent = Agent.usingEndpointFactory(self._reactor, endpoints, pool)
            headers.addRawHeader("Host", literal[1])
            url = url.replace(f"[{literal[2]}]", _NAME_OF_A_LITERAL, 1)
        response = await HTTPClient(agent).get(
            f"{url}{path}",
            params={name: str(value) for name, value in parameters.items()},
            headers=headers,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        note_progress()
        body = _Body(self._max_bytes, note_progress)
        response.deliverBody(body)
        if isinstance(response.length, int) and response.length > self._max_bytes:
            body.refuse()
        data = await body.complete
        self._check_status(path, response)
        return data.decode(errors="backslashreplace")

    def _check_status(self, path: str, response: IResponse) -> None:
        if response.code == 200:
            return
        where = f"{self._url}{path}"
        if response.code == 403:
            raise AdminRefused(
                f"{where}: the node's guard forbids it (403): it takes orders only at addresses "
                "that are its own; use a loopback address, or name this one with --http-host there"
            )
        if response.code == 404:
            raise AdminNotFound(
                f"{where}: the node does not know this (404): it is too old, or runs standalone"
            )
        raise AdminMalformed(f"{where}: the answer has HTTP status {response.code}")

    def _explained(self, path: str, error: Exception) -> AdminError:
        """Say in one line what went wrong."""
        if isinstance(error, RefusedError):
            return AdminUnreachable(
                f"{self._url}: nobody listens there: the connection was refused"
            )
        if isinstance(error, DNSLookupError):
            return AdminUnreachable(f"{self._url}: its name cannot be resolved")
        if isinstance(error, ConnectError):
            return AdminUnreachable(f"{self._url}: nobody can be reached there: {error}")
        if isinstance(error, ConnectionClosed):
            return AdminUnreachable(
                f"{self._url}{path}: the connection was closed before the end of the answer"
            )
        if isinstance(error, _TooLong):
            return AdminTooLong(
                f"{self._url}{path}: the answer has more than {self._max_bytes} bytes"
            )
        reason = f"{type(error).__name__}: {str(error)!r:.100}"
        return AdminMalformed(f"{self._url}{path}: the answer is no HTTP ({reason})")


class _TooLong(Exception):
    """An answer has more bytes than anybody wants."""


class _Stall:
    """Gives something up that makes no progress.

    :ivar is_over: whether it did.
    """

    def __init__(self, clock: IReactorTime, seconds: float, give_up: Callable[[], object]) -> None:
        self.is_over = False
        self._seconds = seconds
        self._give_up = give_up
        self._timer = clock.callLater(seconds, self._end)

    def note_progress(self) -> None:
        """Wait from now on."""
        if self._timer.active():
            self._timer.reset(self._seconds)

    def stop(self) -> None:
        """Wait no more; twice is harmless."""
        if self._timer.active():
            self._timer.cancel()

    def _end(self) -> None:
        self.is_over = True
        self._give_up()


@implementer(IAgentEndpointFactory)
class _OneHost:
    """Finds one address, whatever host is asked for: treq itself takes no IPv6 address for one."""

    def __init__(self, reactor: Any, address: str, seconds: float) -> None:
        self._reactor = reactor
        self._address = address
        self._seconds = seconds

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        return TCP6ClientEndpoint(self._reactor, self._address, uri.port, self._seconds)


class _Pool(HTTPConnectionPool):
    """Keeps no connection, but tells when there is one."""

    def __init__(self, reactor: Any, note_connected: Callable[[], None]) -> None:
        super().__init__(reactor, persistent=False)
        self._note_connected = note_connected

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Any]:  # noqa: N802
        connecting: Deferred[Any] = super().getConnection(key, endpoint)

        def connected(connection: Any) -> Any:
            self._note_connected()
            return connection

        return connecting.addCallback(connected)


class _Body(Protocol):
    """Takes an answer in, and its connection down when that is given up.

    :ivar complete: fires with all of it.
    """

    def __init__(self, max_bytes: int, note_progress: Callable[[], None]) -> None:
        self.complete: Deferred[bytearray] = Deferred(lambda _: self._abort())
        self._max_bytes = max_bytes
        self._note_progress = note_progress
        self._data = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._note_progress()
        if len(self._data) + len(data) <= self._max_bytes:
            self._data += data
        else:
            self.refuse()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.complete.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # the latter: nobody said how long it is
            self.complete.callback(self._data)
        else:
            self.complete.errback(reason)

    def refuse(self) -> None:
        """Take no more, as it is too long."""
        if not self.complete.called:
            self._data.clear()
            self._abort()
            self.complete.errback(_TooLong())

    def _abort(self) -> None:
        transport: Any = self.transport
        getattr(transport, "abortConnection", transport.loseConnection)()


def _cause(error: Exception) -> Exception:
    """Return what happened, which twisted.web wraps, more than once."""
    reasons: list[Failure] = getattr(error, "reasons", None) or []
    cause = reasons[0].value if reasons else error
    assert isinstance(cause, Exception)
    return error if cause is error else _cause(cause)
