"""``stellar-overlay submit``: push a signed transaction through the overlay, see who asks for it.

It is advertised to a few peers and sent to those that demand it, as every node does. Nothing here
tells whether it gets into a ledger.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from stellar_overlay.error import ConfigError, XdrError
from stellar_overlay.identity import (
    PUBNET_PASSPHRASE,
    TESTNET_PASSPHRASE,
    LocalNode,
    network_id,
)
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.tools.cli import ExitStatus, print_json
from stellar_overlay.tools.contact import (
    Contact,
    Failure,
    addresses_of,
    complain,
    config_of,
    status_of,
)
from stellar_overlay.tools.running import local_node, run_reactor
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import Message, MessageType, decode_hashes
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.transaction import TransactionView, tx_full_hash

DEFAULT_PEERS = 3
ECHO_SECONDS = 2.0
"""How long it is listened for news from elsewhere once every peer has asked."""
MAX_TEXT = 1024 * 1024
"""Characters of an envelope; the largest that is legal has 350,000."""


@dataclass(frozen=True)
class Heard:
    """What a peer did: ``demand``, ``advert`` or ``transaction``; and how long after our advert."""

    peer: str
    what: str
    ms: float


@dataclass
class Report:
    """What came of it; its fields are those of ``--json``.

    :ivar tx_hash: what the network calls the transaction; ``hash`` is by what it was advertised.
    :ivar peers: who was connected: ``node`` and ``address``.
    :ivar told: how many of them it was advertised to.
    :ivar demands: who asked for it, each once; ``echoes``: who advertised or sent it to us.
    :ivar failures: why there was no link to others.
    """

    tx_hash: str
    hash: str
    size: int
    peers: list[dict[str, str]] = field(default_factory=list)
    told: int = 0
    demands: list[Heard] = field(default_factory=list)
    echoes: list[Heard] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def status(self) -> ExitStatus:
        """What the command ends with."""
        if not self.peers:
            return status_of(self.failures)
        return ExitStatus.DONE if self.demands else ExitStatus.CHECK_FAILED


class Submission:
    """One transaction on its way to a few peers.

    :param overlay: not started yet, and stopped in the end.
    :param message: the TRANSACTION, which passed the structural check.
    """

    def __init__(
        self,
        overlay: OverlayManager,
        clock: IReactorTime,
        message: Message,
    ) -> None:
        self._overlay = overlay
        self._clock = clock
        self._message = message
        self._hash = tx_full_hash(message.body)
        self._advertised_at = 0.0
        self._enough: Deferred[None] = Deferred()
        self._echo: IDelayedCall | None = None
        self.report = Report(
            tx_hash=TransactionView(message.body)
            .contents_hash(overlay.local_node.network_id)
            .hex(),
            hash=self._hash.hex(),
            size=message.size - 4,
        )

    async def run(self, contact: Contact, seconds: float) -> Report:
        """Connect, advertise, and answer until all have asked or the time is over."""
        await self._overlay.start()
        await contact.reach()
        report = self.report
        report.failures = list(contact.failures.values())
        report.peers = [
            {"node": peer.strkey, "address": str(address)}
            for address, peer in contact.peers.items()
        ]
        if report.peers:
            self._overlay.observe(
                self._note,
                MessageType.FLOOD_DEMAND,
                MessageType.FLOOD_ADVERT,
                MessageType.TRANSACTION,
                name="submit",
            )
            self._advertised_at = self._clock.seconds()
            report.told = self._overlay.broadcast(self._message)
            self._enough.addTimeout(seconds, self._clock, lambda *_: None)
            await self._enough
            if self._echo is not None and self._echo.active():
                self._echo.cancel()
        await self._overlay.stop()
        return report

    def _note(self, message: OverlayMessage) -> None:
        if message.type is MessageType.TRANSACTION:
            is_ours = message.body == self._message.body
        else:
            is_ours = self._hash in decode_hashes(message.body)
        if not is_ours:
            return
        is_demand = message.type is MessageType.FLOOD_DEMAND
        what = message.type.name.lower().removeprefix("flood_")
        peer = message.from_peer.strkey
        heard = self.report.demands if is_demand else self.report.echoes
        if any((one.peer, one.what) == (peer, what) for one in heard):
            return
        milliseconds = (self._clock.seconds() - self._advertised_at) * 1000
        heard.append(Heard(peer, what, round(milliseconds, 1)))
        if is_demand and len(heard) == self.report.told:
            self._echo = self._clock.callLater(ECHO_SECONDS, self._enough.callback, None)


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Submit and print what came of it."""
    node = local_node(arguments)
    config = config_of(node)
    addresses = addresses_of(arguments, config)
    wanted = arguments.peers or len(arguments.peer) or DEFAULT_PEERS
    config.target_outbound_peers = max(config.target_outbound_peers, wanted)
    message = transaction_of(_text(arguments.envelope))
    objection = objection_to(message, node, max_size=config.max_tx_size)
    if objection is not None and not arguments.force:
        raise ConfigError(f"{objection}; --force sends it all the same")
    reports: list[Report] = []

    async def main(reactor: Any) -> None:
        overlay = OverlayManager(config, node, reactor=reactor)
        reactor.addSystemEventTrigger("before", "shutdown", overlay.stopService)
        contact = Contact(overlay, reactor, addresses, wanted, follows_hints=not arguments.peer)
        submission = Submission(overlay, reactor, message)
        reports.append(await submission.run(contact, arguments.seconds))

    run_reactor(main)
    report = reports[0]
    if arguments.json:
        print_json({"ok": report.status is ExitStatus.DONE, **asdict(report)})
    elif report.peers:
        print("\n".join(_lines(report, arguments.seconds)))
    else:
        complain("submit", report.failures, is_well_known=not arguments.peer)
    return report.status


def transaction_of(text: str) -> Message:
    """Return the TRANSACTION of a TransactionEnvelope in base64, in which there may be spaces.

    :raises ConfigError: when it is none, or not in the one form that nodes take.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"ENVELOPE: more than {MAX_TEXT} characters are no transaction")
    try:
        envelope = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("ENVELOPE: is not base64") from None
    if not envelope:
        raise ConfigError("ENVELOPE: is empty")
    body = MessageType.TRANSACTION.to_bytes(4, "big") + envelope
    try:
        xdr_check.check(body)
    except XdrError as error:
        raise ConfigError(f"ENVELOPE: is no TransactionEnvelope in XDR: {error}") from None
    return Message(body)


def objection_to(message: Message, node: LocalNode, *, max_size: int) -> str | None:
    """Return why no node of the network would take a transaction, as far as that can be told.

    :param max_size: bytes of a message, beyond which we send none.
    """
    if message.size > max_size:
        return f"it has {message.size} bytes, and {max_size} is more than any network allows"
    view = TransactionView(message.body)
    for part in (view,) if view.inner is None else (view, view.inner):
        which = "the transaction" if part is view else "the transaction inside the fee bump"
        if not part.is_signed:
            return f"{which} is not signed"
        if not _may_be_signed(part, node.network_id):
            return f"{which} has no good signature of its source account: {_whose(part)}"
    earliest, latest = view.time_bounds or (0, 0)
    now = node.wall_clock()
    if 0 < latest < now:
        return f"its time bounds have ended {_seconds(now - latest)} ago"
    if earliest > now:
        return f"its time bounds begin in {_seconds(earliest - now)} only"
    return None


def _seconds(seconds: float) -> str:
    return f"{max(1, round(seconds))} s"


def _may_be_signed(view: TransactionView, network: bytes) -> bool:
    """Tell whether its source has signed it, or others have, which only a ledger can judge."""
    checks = view.signature_checks(network)
    return not checks or any(is_signed_by(*check) for check in checks)


def _whose(view: TransactionView) -> str:
    """Say what is the matter with a signature."""
    for name, passphrase in (("testnet", TESTNET_PASSPHRASE), ("pubnet", PUBNET_PASSPHRASE)):
        if _may_be_signed(view, network_id(passphrase)):
            return f"it is signed for another network, --network {name}"
    return "it is signed for another network, or was changed since"


def _text(envelope: str) -> str:
    """Return what the command line gives, or else what is on stdin.

    :raises ConfigError: when there is nothing to read.
    """
    if envelope != "-":
        return envelope
    if sys.stdin is None:
        raise ConfigError("ENVELOPE: there is no input to read it from")
    return sys.stdin.buffer.read(MAX_TEXT + 1).decode("ascii", errors="replace")


def _lines(report: Report, seconds: int) -> Iterator[str]:
    names = {peer["node"]: f"{peer['node']} {peer['address']}" for peer in report.peers}
    yield f"transaction    {report.tx_hash}"
    yield f"advertised as  {report.hash}, {report.size} bytes, to {_peers(report.told)}"
    for failure in report.failures:
        yield f"no link        {failure}"
    for heard in report.demands:
        yield f"asked          {names.get(heard.peer, heard.peer)} after {heard.ms:.0f} ms"
    for heard in report.echoes:
        did = "advertised it" if heard.what == "advert" else "sent it"
        yield f"heard back     {names.get(heard.peer, heard.peer)} {did} after {heard.ms:.0f} ms"
    if report.demands:
        count = len(report.demands)
        yield f"verdict        {_peers(count)} asked for it; whether it gets into a ledger is for"
        yield "               the network to say"
    else:
        yield f"verdict        nobody asked for it within {seconds} s: the peers have it already,"
        yield "               or found it to be no good of late, or are out of sync"


def _peers(count: int) -> str:
    return f"{count} peer" if count == 1 else f"{count} peers"
