"""``stellar-overlay probe``: dial one peer, shake hands, report what it says and why it refuses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IReactorTime

from stellar_overlay.address import MAX_PORT, PeerAddress
from stellar_overlay.error import (
    ConfigError,
    ConnectionFailed,
    ConnectionTimeout,
    DropReason,
    InvalidPeerAddress,
    PeerError,
    PeerViolation,
)
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.dialer import Connect, open_link, tcp_endpoints
from stellar_overlay.node.flush_queue import FlushQueue
from stellar_overlay.node.listener import ConnectionFactory
from stellar_overlay.node.refusal import explain
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.handshake import OpenGate
from stellar_overlay.session.session import Session
from stellar_overlay.tools.cli import ExitStatus, print_json, shown
from stellar_overlay.tools.running import local_node, run_reactor
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.message import Hello, MessageType, PeerEntry, decode_peers

PATIENCE_SECONDS = 1.5
"""How long an authenticated peer may take to share addresses, or to refuse us after all."""
HANDSHAKE_SECONDS = 5
"""How long it may take to get there."""


@dataclass
class Report:
    """What one probe found; its fields are those of ``--json``."""

    address: str
    authenticated: bool = False
    node_id: str | None = None
    version_string: str | None = None
    ledger_version: int | None = None
    overlay_version: int | None = None
    overlay_min_version: int | None = None
    listening_port: int | None = None
    handshake_ms: float | None = None
    peers: list[str] = field(default_factory=list)
    refusal: dict[str, object] | None = None


class Probe(OpenGate):
    """One link that wants nothing but to know who is there.

    :param connect: returns the endpoint of the address.
    """

    def __init__(
        self,
        node: LocalNode,
        connect: Connect,
        clock: IReactorTime,
        *,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._node = node
        self._connect = connect
        self._clock = clock
        self._handshake_seconds = handshake_seconds
        self._metrics = OverlayMetrics()
        self._flusher = FlushQueue(clock)
        self._peers: list[PeerEntry] = []
        self._authenticated_at: float | None = None
        self._enough: Deferred[None] = Deferred()
        self._gone: Deferred[None] = Deferred()

    async def run(self, address: PeerAddress) -> Report:
        """Dial, and say what came of it.

        :raises ConnectionFailed: when nobody answered.
        """
        link = await open_link(self._connect, address, ConnectionFactory(self._link))
        report = Report(str(address))
        too_late = self._clock.callLater(
            self._handshake_seconds, lambda: link.drop(DropReason.IDLE.violation())
        )
        try:
            await link.when_authenticated()
            too_late.cancel()
            timer = self._clock.callLater(PATIENCE_SECONDS, self._note_enough)
            await self._enough
            if timer.active():
                timer.cancel()
            if link.violation is not None:
                raise link.violation
            link.drop(PeerViolation("the probe is done"))
        except PeerViolation as violation:
            report.refusal = _refusal(link, violation)
        if too_late.active():
            too_late.cancel()
        await self._gone
        if self._authenticated_at is not None:
            seconds = self._authenticated_at - link.session.clocks.connected_at
            report.authenticated, report.handshake_ms = True, round(seconds * 1000, 1)
        if link.session.auth.remote is not None:
            _describe(report, link.session.auth.remote)
        report.peers = [
            str(PeerAddress(peer.host, peer.port))
            for peer in self._peers
            if 0 < peer.port <= MAX_PORT
        ]
        return report

    def _link(self, _: IAddress) -> Connection:
        return Connection(self, self._clock, self._flusher, self._metrics, we_called_remote=True)

    def _note_enough(self) -> None:
        if not self._enough.called:
            self._enough.callback(None)

    # What the link asks.

    def open_session(self, link: Connection) -> Session:
        return Session(AuthContext(self._node, True), self, now=self._clock.seconds())

    def link_authenticated(self, link: Connection) -> None:
        """Wait for what follows, such as a refusal."""
        self._authenticated_at = self._clock.seconds()

    def dispatch(self, link: Connection, items: Sequence[Item]) -> None:
        for kind, body in items:
            if kind == MessageType.PEERS:
                self._peers = decode_peers(body)
            elif kind == MessageType.GET_SCP_STATE:  # all there is to say was said before it
                self._note_enough()
        link.processed(items)

    def link_dropped(self, link: Connection, violation: PeerViolation) -> None:
        self._note_enough()

    def link_gone(self, link: Connection) -> None:
        self._gone.callback(None)


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Probe and print; the status says whether it was refused or never reached."""
    try:
        address = PeerAddress.parse(arguments.address)
    except InvalidPeerAddress as error:
        raise ConfigError(str(error)) from None
    node = local_node(arguments)
    results: list[Report | ConnectionFailed] = []

    async def main(reactor: Any) -> None:
        connect = tcp_endpoints(reactor, arguments.timeout)
        probe = Probe(node, connect, reactor, handshake_seconds=arguments.timeout)
        try:
            results.append(await probe.run(address))
        except ConnectionFailed as error:
            results.append(error)

    run_reactor(main)
    result = results[0]
    if isinstance(result, ConnectionFailed):
        report = Report(str(address), refusal=_unreachable(result))
        status = ExitStatus.UNREACHABLE
    else:
        report = result
        status = ExitStatus.DONE if report.refusal is None else ExitStatus.REFUSED
    if arguments.json:
        print_json(asdict(report))
    else:
        print("\n".join(_lines(report)))
    return status


def _describe(report: Report, hello: Hello) -> None:
    report.node_id = PeerId(hello.node_key).strkey
    report.version_string = hello.version_string.decode(errors="backslashreplace")
    report.ledger_version = hello.ledger_version
    report.overlay_version = hello.overlay_version
    report.overlay_min_version = hello.overlay_min_version
    report.listening_port = hello.listening_port


def _refusal(link: Connection, violation: PeerViolation) -> dict[str, object]:
    code: str | None = None
    if isinstance(violation, PeerError):
        code = violation.reason.partition(" ")[0]
    elif violation.code is not None:
        code = violation.code.name
    return {"code": code, "text": violation.reason, "explanation": _explain(link, violation)}


def _explain(link: Connection, violation: PeerViolation) -> str:
    """Say what a person who probes wants to know, where it is not what the node's log says."""
    remote = link.session.auth.remote
    if violation.kind in (DropReason.READ_ERROR, DropReason.CORRUPT_XDR) and remote is None:
        return f"what answers there is no Stellar peer ({violation.detail or violation.reason})"
    if violation.kind in (DropReason.LOST_AT_HEADER, DropReason.LOST_IN_BODY) and remote:
        when = "right after" if link.is_authenticated else "during"
        return f"the peer closed the connection without a word {when} the handshake"
    return explain(link, violation)


def _unreachable(error: ConnectionFailed) -> dict[str, object]:
    cause = error.__cause__
    if isinstance(error, ConnectionTimeout):
        explanation = "nobody answers there in time: a wrong address, or a firewall"
    elif isinstance(cause, RefusedError):
        explanation = "nobody listens there: the connection was refused"
    elif isinstance(cause, DNSLookupError):
        explanation = "its name cannot be resolved: no such host, or no network"
    else:
        explanation = f"nobody can be reached there: {cause or error}"
    return {"code": None, "text": str(error), "explanation": explanation}


def _lines(report: Report) -> Iterator[str]:
    yield f"address           {report.address}"
    if report.node_id is not None:
        yield f"node id           {report.node_id}"
        yield f"version           {shown(report.version_string or '')}"
        yield f"overlay           {report.overlay_min_version}..{report.overlay_version}"
        yield f"ledger            {report.ledger_version}"
        yield f"listening port    {report.listening_port}"
    if report.authenticated:
        yield f"handshake         {report.handshake_ms} ms"
        yield f"addresses shared  {len(report.peers)}"
    if report.refusal is None:
        yield "verdict           it would talk to us"
    else:
        yield f"verdict           {shown(str(report.refusal['explanation']))}"
