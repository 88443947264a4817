"""A stellar.toml over real HTTPS, on loopback."""

from __future__ import annotations

import gzip
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET

from stellar_overlay.node.home_domains import HomeDomainError, HomeDomainValidator, fetch_validators
from tests.node.https_server import (
    HttpsServer,
    Pages,
    certificate,
    redirect,
    serving,
    silence,
    text,
    trusting,
)
from tests.node.test_home_domains import KEY, entry

_Test = TypeVar("_Test", bound=Callable[..., Awaitable[None]])
in_reactor: Callable[[_Test], _Test] = pytest_twisted.ensureDeferred

PATH = "/.well-known/stellar.toml"


def the_reactor() -> Any:
    """Return the running one."""
    from twisted.internet import reactor

    return reactor


async def fetch(server: HttpsServer, **settings: Any) -> tuple[HomeDomainValidator, ...]:
    """Return the validators of a server, whose certificate is trusted if it is for localhost."""
    settings = {"policy": trusting(certificate("localhost")), "timeout_seconds": 5, **settings}
    return await fetch_validators(server.domain, reactor=the_reactor(), **settings)


async def refusal(server: HttpsServer, pattern: str, **settings: Any) -> None:
    """Check what is said about a server; the domain is always named."""
    with pytest.raises(HomeDomainError) as caught:
        await fetch(server, **settings)
    said = str(caught.value)
    assert said.startswith(f'home domain "{server.domain}": '), said
    assert re.search(pattern, said), said
    assert said.isprintable()
    assert len(said) < 300


@in_reactor
async def test_success() -> None:
    """The file is found at its place, read and understood; nothing is asked to be compressed."""
    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = text(entry())
        (found,) = await fetch(server)
        assert (str(found.address), str(found.peer_id)) == ("core.example.org:11625", KEY)
        (request,) = server.pages.requests
        assert (request.getHeader("accept-encoding") or "").startswith("identity")


@in_reactor
async def test_status() -> None:
    """Only 200 is a file, whatever comes with it."""
    async with serving(the_reactor()) as server:
        await refusal(server, "answers with HTTP status 404")

        def teapot(request: Request) -> bytes:
            request.setResponseCode(500, b"\x1b[31m")
            return entry().encode()

        server.pages.answers[PATH] = teapot
        await refusal(server, "answers with HTTP status 500$")


@in_reactor
async def test_not_toml() -> None:
    """What the file lacks is said as clearly."""
    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = text("<html>")
        await refusal(server, "is not TOML")
        server.pages.answers[PATH] = text("")
        await refusal(server, "no VALIDATORS")


@in_reactor
async def test_certificates() -> None:
    """One that nobody vouches for, or that is for another name, is refused."""
    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = text(entry())
        await refusal(server, "TLS failed: .*certificate verify failed", policy=None)
    async with serving(the_reactor(), "other.example") as server:
        server.pages.answers[PATH] = text(entry())
        policy = trusting(certificate("other.example"))
        await refusal(server, "its certificate is for another name", policy=policy)


@in_reactor
async def test_no_tls() -> None:
    """A server that speaks something else."""
    factory = Factory.forProtocol(_Babbler)
    port = the_reactor().listenTCP(0, factory, interface="127.0.0.1")
    try:
        await refusal(HttpsServer(port, Pages()), "TLS failed|closed")
    finally:
        await port.stopListening()


@in_reactor
async def test_no_handshake() -> None:
    """A server that accepts connections and says nothing at all."""
    port = the_reactor().listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    try:
        server = HttpsServer(port, Pages())
        await refusal(server, r"no answer within 0\.3 s$", timeout_seconds=0.3)
    finally:
        await port.stopListening()


@in_reactor
async def test_nobody_listens() -> None:
    """A closed port."""
    async with serving(the_reactor()) as server:
        pass
    await refusal(server, "refused")


@in_reactor
async def test_silence() -> None:
    """The end of all patience is the same for a silent server and a trickling one."""
    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = silence
        await refusal(server, r"no answer within 0\.3 s$", timeout_seconds=0.3)
        server.pages.answers[PATH] = trickle
        await refusal(server, r"no answer within 0\.3 s$", timeout_seconds=0.3)


@in_reactor
async def test_too_large() -> None:
    """The size is counted while reading, whatever the server announces or does not."""
    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = text(entry() + "#" * (100 * 1024))
        await refusal(server, "more than 102400 bytes")
        server.pages.answers[PATH] = trickle
        await refusal(server, "more than 20 bytes", max_bytes=20)
        server.pages.answers[PATH] = text(entry())
        assert await fetch(server, max_bytes=len(entry()))
        await refusal(server, "more than", max_bytes=len(entry()) - 1)


@in_reactor
async def test_endless_headers() -> None:
    """Headers count, too."""

    def answer(request: Request) -> bytes:
        for number in range(200):
            request.setHeader(f"X-{number}", "x" * 1000)
        return entry().encode()

    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = answer
        await refusal(server, "more than 102400 bytes")


@in_reactor
async def test_compressed() -> None:
    """A few bytes that would unpack to any number are not unpacked."""

    def answer(request: Request) -> bytes:
        request.setHeader("Content-Encoding", "gzip")
        return gzip.compress(b"#" * 50_000_000)

    async with serving(the_reactor()) as server:
        server.pages.answers[PATH] = answer
        await refusal(server, "came compressed")


@in_reactor
async def test_redirects() -> None:
    """Up to three are followed, within the host or to a public one."""
    async with serving(the_reactor()) as server:
        answers = server.pages.answers
        answers["/3"] = text(entry())
        answers["/2"] = redirect("/3", 308)
        answers["/1"] = redirect(f"https://{server.domain}/2", 301)
        answers[PATH] = redirect("/1")
        assert len(await fetch(server)) == 1
        answers["/3"] = redirect("/4")
        await refusal(server, "more than 3 redirects")


@in_reactor
async def test_bad_redirects() -> None:
    """None leads to HTTP, to a private host, or nowhere."""
    async with serving(the_reactor()) as server:
        for location, reason in {
            f"http://{server.domain}{PATH}": "not HTTPS",
            "ftp://example.org/": "not HTTPS",
            "https://user@example.org/": "not HTTPS",
            "https://[::1": "not HTTPS",
            "https://127.0.0.1:1/": "not a public host",
            "https://router/": "not a public host",
            "https://db.internal/" + "x" * 1000: "not a public host",
            "https://a..b/": "not a public host",
        }.items():
            server.pages.answers[PATH] = redirect(location)
            await refusal(server, f"is redirected to .*{reason}")


@in_reactor
async def test_cancelled() -> None:
    """Whoever loses interest leaves no connection."""
    async with serving(the_reactor()) as server:
        asked: Deferred[None] = Deferred()

        def answer(request: Request) -> int:
            asked.callback(None)
            return silence(request)

        server.pages.answers[PATH] = answer
        fetching = Deferred.fromCoroutine(fetch(server))
        await asked
        fetching.cancel()
        with pytest.raises(CancelledError):
            await fetching


def trickle(request: Request) -> int:
    """Answer with one more byte every few milliseconds, for ever."""
    trickling = LoopingCall(request.write, b"#")

    def stop(failure: Any) -> None:
        failure.trap(ConnectionClosed)
        trickling.stop()

    request.notifyFinish().addErrback(stop)
    trickling.start(0.005)
    return NOT_DONE_YET


class _Babbler(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"220 mail.example ESMTP\r\n" * 10)
        self.transport.loseConnection()
