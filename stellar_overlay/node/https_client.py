"""One small file over HTTPS, from a server that may mean harm.

Importing this takes a while (treq, twisted.web): do so within functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn
from urllib.parse import urljoin

import treq
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import VerificationError
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from stellar_overlay.config_rules import shown
from stellar_overlay.error import OverlayError

MAX_REDIRECTS = 3
HEADER_BYTES = 64 * 1024
"""What a server may send beyond the file itself: headers, chunk sizes, redirects."""

_REDIRECTS = (301, 302, 303, 307, 308)
_URL = re.compile(r"https://([A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[!-~]*)?")


class HttpsError(OverlayError):
    """A file could not be fetched; the text says why, in one line."""

    retriable = True


async def get(
    url: str,
    *,
    reactor: Any,
    policy: IPolicyForHTTPS | None,
    timeout_seconds: float,
    max_bytes: int,
    may_follow: Callable[[str], bool],
) -> bytes:
    """Return the file at ``url``; no connection is left, however this ends.

    :param policy: whom to trust; None is the system's certificates.
    :param timeout_seconds: for everything: names, connections, redirects, the last byte.
    :param may_follow: tells whether a redirect may lead to that host.
    :raises HttpsError: when there is no such file, or not in time, or it is too large.
    """
    visit = _Visit(reactor, policy or BrowserLikePolicyForHTTPS(), max_bytes + HEADER_BYTES)

    def give_up(_: object, seconds: float) -> NoReturn:
        raise HttpsError(f"no answer within {seconds:g} s")

    fetching = Deferred.fromCoroutine(_fetch(url, reactor, visit, max_bytes, may_follow))
    try:
        return await fetching.addTimeout(timeout_seconds, reactor, give_up)
    except Exception as error:  # dozens of them, from sockets to OpenSSL
        cause = _cause(error)
        if isinstance(cause, HttpsError | CancelledError):
            raise cause from None
        if visit.is_too_long:
            raise HttpsError(f"more than {max_bytes} bytes") from None
        raise HttpsError(_reason(cause)) from error
    finally:
        visit.end()


async def _fetch(
    url: str, reactor: Any, visit: _Visit, max_bytes: int, may_follow: Callable[[str], bool]
) -> bytes:
    agent = _PlainAgent(Agent.usingEndpointFactory(reactor, visit))
    client = HTTPClient(agent)
    for _ in range(MAX_REDIRECTS + 1):
        response = await client.get(
            url,
            headers=Headers({"User-Agent": ["stellar-overlay"]}),
            allow_redirects=False,
            unbuffered=True,
            reactor=reactor,
        )
        if response.code in _REDIRECTS:
            url = _redirected(url, response.headers, may_follow)
        elif response.code == 200:
            return await _body(response, max_bytes)
        else:
            raise HttpsError(f"{url} answers with HTTP status {response.code}")
    raise HttpsError(f"more than {MAX_REDIRECTS} redirects")


async def _body(response: IResponse, max_bytes: int) -> bytes:
    body = bytearray()

    def collect(data: bytes) -> None:
        body.extend(data)
        if len(body) > max_bytes:
            raise HttpsError(f"more than {max_bytes} bytes")

    await treq.collect(response, collect)
    return bytes(body)


def _redirected(url: str, headers: Headers, may_follow: Callable[[str], bool]) -> str:
    """Return where a redirect leads.

    :raises HttpsError: when that is nowhere to go: not HTTPS, or not a public host.
    """
    location = (headers.getRawHeaders("Location") or [""])[0]
    try:
        target = _URL.fullmatch(urljoin(url, location))
    except ValueError:  # of a bracket without its partner
        target = None
    if target is None:
        raise HttpsError(f"is redirected to {shown(location)}, which is not HTTPS")
    old = _URL.fullmatch(url)
    if not (old and old[1] == target[1]) and not may_follow(target[1]):
        raise HttpsError(f"is redirected to {shown(location)}, which is not a public host")
    return target[0]


def _cause(error: Exception) -> Exception:
    """Return what happened, which twisted.web wraps, more than once."""
    reasons: list[Failure] = getattr(error, "reasons", None) or []
    cause = reasons[0].value if reasons else error
    assert isinstance(cause, Exception)
    return error if cause is error else _cause(cause)


def _reason(error: Exception) -> str:
    """Say in one line what went wrong."""
    if isinstance(error, DNSLookupError):
        return "no such name"
    if isinstance(error, VerificationError):
        return "its certificate is for another name"
    if isinstance(error, ConnectionClosed):
        return "the connection was closed before the end of the answer"
    if type(error).__module__ == "OpenSSL.SSL":
        details = [str(entry[-1]) for entry in error.args[0]] if error.args else []
        return f"TLS failed: {shown(', '.join(details))}"
    return f"{type(error).__name__}: {shown(str(error))}"


@implementer(IAgentEndpointFactory)
class _Visit:
    """The connections of one fetch, and the bytes that came in through them.

    :ivar is_too_long: whether it was ended because there were too many.
    """

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS, max_bytes: int) -> None:
        self.is_too_long = False
        self._reactor = reactor
        self._policy = policy
        self._bytes_left = max_bytes
        self._connections: list[_Connections] = []

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        options = self._policy.creatorForNetloc(uri.host, uri.port)
        named = HostnameEndpoint(self._reactor, uri.host, uri.port)
        return _Endpoint(wrapClientTLS(options, named), self)

    def watch(self, factory: IProtocolFactory) -> _Connections:
        """Return a factory whose connections are counted here."""
        connections = _Connections(factory, self)
        self._connections.append(connections)
        return connections

    def note_bytes(self, count: int) -> bool:
        """Tell whether so many more bytes are fine; end the visit otherwise."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            self.is_too_long = True
            self.end()
        return not self.is_too_long

    def end(self) -> None:
        """Close what is open, without waiting for a server to agree."""
        for connections in self._connections:
            for connection in list(connections.protocols):
                connection.abortConnection()


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects on behalf of a visit."""

    def __init__(self, endpoint: IStreamClientEndpoint, visit: _Visit) -> None:
        self._endpoint = endpoint
        self._visit = visit

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self._endpoint.connect(self._visit.watch(protocolFactory)).addCallback(_unwrapped)


def _unwrapped(counted: IProtocol) -> IProtocol:
    assert isinstance(counted, _Counted)
    protocol: IProtocol = counted.wrappedProtocol
    return protocol


class _Counted(ProtocolWrapper):
    factory: _Connections

    def dataReceived(self, data: bytes) -> None:
        if self.factory.visit.note_bytes(len(data)):
            super().dataReceived(data)


class _Connections(WrappingFactory[_Counted]):
    """Those that are open, in ``protocols``."""

    protocol = _Counted
    noisy = False

    def __init__(self, factory: IProtocolFactory, visit: _Visit) -> None:
        super().__init__(factory)
        self.visit = visit


@implementer(IAgent)
class _PlainAgent:
    """Asks for no compression and takes none, as a few bytes may hide any number of them."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders("Accept-Encoding", ["identity"])
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(_plain)


def _plain(response: IResponse) -> IResponse:
    encodings = response.headers.getRawHeaders("Content-Encoding") or []
    if any(encoding.strip().lower() != "identity" for encoding in encodings):
        raise HttpsError("the file came compressed, although nobody asked for that")
    return response
