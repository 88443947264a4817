"""The admin HTTP of a node: a service that finds what answers a request, and lets it answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger

from stellar_overlay.admin.channel import AdminFactory, AdminRequest
from stellar_overlay.admin.core_api import CoreApi
from stellar_overlay.admin.guard import Guard
from stellar_overlay.admin.medida import TICK_SECONDS, Medida
from stellar_overlay.admin.query import BadUri, split_uri
from stellar_overlay.admin.route import (
    HTML_TYPE,
    JSON_TYPE,
    TEXT_TYPE,
    Answer,
    Answering,
    Ask,
    Route,
    Routes,
)
from stellar_overlay.admin.styled import quoted
from stellar_overlay.error import NotStarted, OverlayError
from stellar_overlay.node.loops import Loop
from stellar_overlay.node.manager import OverlayManager

ANSWER_SECONDS = 10
"""How long a command may take; who then has no answer is told so."""
BOOTING = '{"error": "Core is booting, try again later"}'
_COMMANDS_URL = (
    "https://github.com/stellar/stellar-core/blob/master/docs/software/commands.md#http-commands"
)
NOT_FOUND = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>stellar-overlay: no such command</title></head>
<body><h1>No such command</h1>
<p>Supported HTTP commands are listed in the <a href="{_COMMANDS_URL}">docs</a> of stellar-core;
a node without a ledger has those that concern the overlay.</p></body></html>
"""
"""Tools know it by "Supported HTTP commands" (messages.md 8.2)."""


class AdminHttp(MultiService):
    """Answers an operator over HTTP, from :meth:`listen` on; before the node runs, that it boots.

    :param endpoint: where to listen.
    :param hosts: further host names by which requests that change something may call us.
    :param clock: for time-outs and rates; the reactor.
    :raises ConfigError: for what is no host name.
    """

    _log = Logger()

    def __init__(
        self,
        overlay: OverlayManager,
        endpoint: IStreamServerEndpoint,
        *,
        hosts: Sequence[str] = (),
        clock: IReactorTime,
    ) -> None:
        super().__init__()
        self._overlay = overlay
        self._endpoint = endpoint
        self._clock: Any = clock
        self._guard = Guard(hosts)
        self._factory = AdminFactory(self._answer, clock)
        self._port: IListeningPort | None = None
        self._answering: set[Deferred[Answer]] = set()
        medida = Medida(overlay.metrics, self._clock, self._gauges)
        Loop("metric rates", medida.tick, TICK_SECONDS, clock).setServiceParent(self)
        self._routes: Routes = CoreApi(overlay, medida).routes()

    async def listen(self) -> None:
        """Open the port, and answer.

        :raises Exception: whatever the endpoint raises, such as CannotListenError.
        """
        self._port = await self._endpoint.listen(self._factory)

    @property
    def port(self) -> int | None:
        """The number of the port that is open; None when none is, or it has no number."""
        return None if self._port is None else getattr(self._port.getHost(), "port", None)

    def stopService(self) -> Deferred[Any]:
        """Close the port and all connections, within a second or so."""
        stopped = [maybeDeferred(super().stopService)]
        for answering in tuple(self._answering):
            answering.cancel()
        port, self._port = self._port, None
        if port is not None:
            stopped.append(maybeDeferred(port.stopListening))
        stopped.append(self._factory.close_all())
        return gatherResults(stopped)

    # Requests.

    def _answer(self, request: AdminRequest) -> None:
        """Reply to a request that is all here, at once or later."""
        answer = self._answer_to(request)
        if isinstance(answer, Answer):
            _reply(answer, request)
            return
        self._answering.add(answer)
        # Nobody is left to hear it, and what was changed is changed already.
        request.notifyFinish().addErrback(lambda _: answer.cancel())
        answer.addBoth(self._note_answered, answer).addCallback(_reply, request)

    def _note_answered(self, result: Answer, answering: Deferred[Answer]) -> Answer:
        self._answering.discard(answering)
        return result

    def _answer_to(self, request: AdminRequest) -> Answer | Deferred[Answer]:
        try:
            command, query = split_uri(request.uri)
        except BadUri as error:
            return Answer(f"400 Bad Request: {error}\n", TEXT_TYPE, 400)
        route = self._routes.get(command)
        if route is None:
            return Answer(NOT_FOUND, HTML_TYPE, 404)
        refusal = self._refusal(request) if route.may_change(query) else None
        if refusal is not None:
            self._log.debug("/{command} is refused: {reason}", command=command, reason=refusal)
            return Answer(f'{{"error": {quoted(refusal)}}}', JSON_TYPE, 403)
        return self._run(route, Ask(command, query, request.last_header))

    def _refusal(self, request: AdminRequest) -> str | None:
        """Return why a request may not change anything."""
        bound = request.getHost()
        return self._guard.refusal(
            hosts=request.headers_of("Host"),
            origins=request.headers_of("Origin"),
            fetch_sites=request.headers_of("Sec-Fetch-Site"),
            bound_host=getattr(bound, "host", None),
            bound_port=getattr(bound, "port", None),
        )

    def _run(self, route: Route, ask: Ask) -> Answer | Deferred[Answer]:
        """Return what a command answers; what it raises is told in a reply like any other."""
        try:
            self._overlay.check_running()
        except NotStarted:
            return Answer(BOOTING)
        try:
            answer = route.answer(ask)
        except Exception as error:
            return self._raised(error, ask)
        if isinstance(answer, Answer):
            return answer
        return Deferred.fromCoroutine(self._in_time(answer, ask))

    async def _in_time(self, answering: Answering, ask: Ask) -> Answer:
        """Return an answer that is waited for, but not for long."""
        waiting = Deferred.fromCoroutine(answering).addTimeout(ANSWER_SECONDS, self._clock)
        try:
            return await waiting
        except DeferredTimeout:
            return _exception(f"no answer in {ANSWER_SECONDS} s")
        except CancelledError:  # we stop, or nobody waits any more
            return Answer(BOOTING)
        except Exception as error:
            return self._raised(error, ask)

    def _raised(self, error: Exception, ask: Ask) -> Answer:
        """Tell of an exception that is being handled.

        What is no :exc:`OverlayError` is our fault: it is logged, and only its kind is told.
        """
        if isinstance(error, OverlayError):
            return _exception(str(error))
        self._log.failure("The command {command} failed", command=ask.command)
        return _exception(f"internal error: {type(error).__name__}")

    def _gauges(self) -> dict[str, int]:
        """Return what is only looked at when it is asked for."""
        peers, pending = self._overlay.peer_infos(), self._overlay.pending_peers()
        directions = [peer.direction for peer in peers] + [peer.direction for peer in pending]
        return {
            "overlay.connection.authenticated": len(peers),
            "overlay.connection.pending": len(pending),
            "overlay.inbound.live": directions.count("inbound"),
        }


def _exception(text: str) -> Answer:
    return Answer(f'{{"exception": {quoted(text)}}}')


def _reply(answer: Answer, request: AdminRequest) -> None:
    headers = {"Content-Type": answer.content_type}
    if answer.content_type == HTML_TYPE:
        headers["Content-Security-Policy"] = "default-src 'none'"
    request.reply(answer.code, headers, answer.text.encode())
