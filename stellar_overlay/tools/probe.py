"""``stellar-overlay probe``: dial one peer, shake hands, report what it says and why it refuses."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import (
    ConfigError,
    ConnectionFailed,
    InvalidPeerAddress,
    PeerError,
    PeerViolation,
)
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection, FlushQueue
from stellar_overlay.node.dialer import Connect, open_link, tcp_endpoints
from stellar_overlay.node.listener import ConnectionFactory
from stellar_overlay.node.refusal import explain
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.session import Session
from stellar_overlay.tools.cli import ExitStatus, print_json, shown
from stellar_overlay.tools.running import local_node, run_reactor
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.message import Hello, MessageType, PeerEntry, decode_peers

PATIENCE_SECONDS = 1.5
"""How long an authenticated peer may take to share addresses, or to refuse us after all."""


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


class Probe:
    """One link that wants nothing but to know who is there.

    :param connect: returns the endpoint of the address.
    """

    def __init__(self, node: LocalNode, connect: Connect, clock: IReactorTime) -> None:
        self._node = node
        self._connect = connect
        self._clock = clock
        self._metrics = OverlayMetrics()
        self._flusher = FlushQueue(clock)
        self._peers: list[PeerEntry] = []
        self._enough: Deferred[None] = Deferred()
        self._gone: Deferred[None] = Deferred()

    async def run(self, address: PeerAddress) -> Report:
        """Dial, and say what came of it.

        :raises ConnectionFailed: when nobody answered.
        """
        link = await open_link(self._connect, address, ConnectionFactory(self._link))
        report = Report(str(address))
        try:
            await link.when_authenticated()
            report.authenticated = True
            report.handshake_ms = round(
                (self._clock.seconds() - link.session.connected_at) * 1000, 1
            )
            timer = self._clock.callLater(PATIENCE_SECONDS, self._note_enough)
            await self._enough
            if timer.active():
                timer.cancel()
            if link.violation is not None:
                raise link.violation
            link.drop(PeerViolation("the probe is done"))
        except PeerViolation as violation:
            report.refusal = _refusal(link, violation)
        await self._gone
        if link.session.auth.remote is not None:
            _describe(report, link.session.auth.remote)
        report.peers = [str(PeerAddress(peer.host, peer.port)) for peer in self._peers if peer.port]
        return report

    def _link(self, _: IAddress) -> Connection:
        return Connection(self, self._clock, self._flusher, self._metrics, we_called_remote=True)

    def _note_enough(self) -> None:
        if not self._enough.called:
            self._enough.callback(None)

    # What the link and its session ask.

    def open_session(self, link: Connection) -> Session:
        return Session(AuthContext(self._node, True), self, now=self._clock.seconds())

    def link_authenticated(self, link: Connection) -> None:
        """Wait for what follows."""

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

    def check_node(self, hello: Hello) -> None:
        """Talk to anybody."""

    def check_hello(self, hello: Hello) -> None:
        """Talk to anybody."""

    def settle_duplicate(self, hello: Hello) -> None:
        """Have no other link."""

    def admit(self, hello: Hello) -> None:
        """Talk to anybody."""

    def peers_to_send(self) -> Sequence[PeerEntry]:
        return ()

    def scp_state_from(self) -> int:
        return 2**32 - 1  # nothing: we only knock


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Probe and print; the status says whether it was refused or never reached."""
    try:
        address = PeerAddress.parse(arguments.address)
    except InvalidPeerAddress as error:
        raise ConfigError(str(error)) from None
    node = local_node(arguments)
    results: list[Report | ConnectionFailed] = []

    async def main(reactor: Any) -> None:
        probe = Probe(node, tcp_endpoints(reactor, arguments.timeout), reactor)
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
    return {"code": code, "text": violation.reason, "explanation": explain(link, violation)}


def _unreachable(error: ConnectionFailed) -> dict[str, object]:
    return {"code": None, "text": str(error), "explanation": f"nobody answers there: {error}"}


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
