"""Peers for a command that needs a few, and a reason for each that is none."""

from __future__ import annotations

import argparse
import random
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from stellar_overlay.address import PeerAddress
from stellar_overlay.bounded import BoundedDict
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import (
    ConfigError,
    ConnectionFailed,
    ConnectionTimeout,
    ErrorCode,
    InvalidPeerAddress,
    OverlayError,
    PeerNotFound,
)
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.store.peer_manager import StoredPeerType
from stellar_overlay.tools.cli import ExitStatus, shown
from stellar_overlay.wire.message import MessageType

PATIENCE_SECONDS = 1.5
"""How long a peer that has shaken hands may take to say that it is full after all."""
CONTACT_SECONDS = 30
"""After so long nobody else is dialled in a round."""
MAX_HINTS = 50
"""Addresses that peers shared and that are dialled in a round, when those we knew are no good."""
RETRY_SECONDS = 5
MAX_RETRY_SECONDS = 300
"""From a round to the next; twice as long each time that nobody was reached."""
MAX_REASONS = 10
MAX_REMEMBERED = 1000
"""Peers of which is remembered how their links ended."""


@dataclass(frozen=True)
class Failure:
    """Why there is no link to an address, in words that follow it."""

    address: str
    reason: str
    is_refusal: bool = False

    def __str__(self) -> str:
        return shown(f"{self.address}: {self.reason}")


def config_of(node: LocalNode, *, allow_private: bool = False) -> OverlayConfig:
    """Return the configuration of a tool that looks on: it relays nothing, and nobody calls it.

    What is known of a public network is in it. The node dials nobody by itself: that is for
    :class:`Contact`, which can say what came of it.
    """
    config = OverlayConfig(
        network_passphrase=node.network_passphrase,
        mode="observe",
        listen_enabled=False,
        run_standalone=True,
        allow_private=allow_private,
    )
    config.add_public_network()
    return config


def addresses_of(arguments: argparse.Namespace, config: OverlayConfig) -> list[PeerAddress]:
    """Return those of ``--peer``, or the well-known ones of the network in any order.

    :raises ConfigError: when one is no address, or there is none.
    """
    try:
        given = [PeerAddress.parse(peer) for peer in arguments.peer]
    except InvalidPeerAddress as error:
        raise ConfigError(f"--peer: {error}") from None
    addresses = list(dict.fromkeys(given or config.known_addresses))
    if not addresses:
        raise ConfigError("--peer: is needed, as no peer of this network is well known")
    if not given:
        random.SystemRandom().shuffle(addresses)
    return addresses


class Contact:
    """Finds peers: who is asked first, and then whom these name.

    :param overlay: that runs, or will before :meth:`reach` is called.
    :param addresses: whom to dial, in this order.
    :param wanted: how many links there should be.
    :param follows_hints: whether to dial addresses that peers share, when the others are no good.
    :ivar failures: why there is no link, by address.
    :ivar has_met_anyone: whether a peer ever stayed.
    """

    def __init__(
        self,
        overlay: OverlayManager,
        clock: IReactorTime,
        addresses: Sequence[PeerAddress],
        wanted: int,
        *,
        follows_hints: bool,
    ) -> None:
        self.failures: dict[PeerAddress, Failure] = {}
        self.has_met_anyone = False
        self._overlay = overlay
        self._clock = clock
        self._addresses = tuple(addresses)
        self._wanted = wanted
        self._follows_hints = follows_hints
        self._links: dict[PeerAddress, PeerId] = {}
        self._waiting: deque[PeerAddress] = deque()
        self._tried: set[PeerAddress] = set()
        self._deadline = 0.0
        self._ended: BoundedDict[PeerId, PeerEvent] = BoundedDict(MAX_REMEMBERED)
        self._staying: BoundedDict[PeerId, None] = BoundedDict(MAX_REMEMBERED)
        self._settling: dict[PeerId, Deferred[None]] = {}
        overlay.on_peer_event(self._note_event)
        overlay.observe(self._note_word, MessageType.GET_SCP_STATE, name="contact")

    async def reach(self) -> None:
        """Dial until there are links enough, or nobody is left; :attr:`failures` says why."""
        self._forget_ended_links()
        self.failures.clear()
        self._waiting = deque(one for one in self._addresses if one not in self._links)
        self._tried = {*self._addresses}
        self._deadline = self._clock.seconds() + CONTACT_SECONDS
        missing = max(0, self._wanted - len(self._links))
        await gatherResults(
            [Deferred.fromCoroutine(self._fill_a_slot()) for _ in range(missing)],
            consumeErrors=True,
        )

    async def keep(self) -> None:
        """Look for others whenever there are too few links, until this is cancelled."""
        wait: float = RETRY_SECONDS
        due = self._clock.seconds()
        while True:
            await deferLater(self._clock, RETRY_SECONDS)
            before = len(self._links)
            self._forget_ended_links()
            now, links = self._clock.seconds(), len(self._links)
            if links < before:
                wait, due = RETRY_SECONDS, now
            if links < self._wanted and now >= due:
                await self.reach()
                wait = (
                    RETRY_SECONDS if len(self._links) > links else min(2 * wait, MAX_RETRY_SECONDS)
                )
                due = self._clock.seconds() + wait

    @property
    def peers(self) -> dict[PeerAddress, PeerId]:
        """Who is connected, by the address that was dialled."""
        self._forget_ended_links()
        return dict(self._links)

    async def _fill_a_slot(self) -> None:
        """Dial one after the other until one stays."""
        while (address := self._next()) is not None:
            failure = await self._dial(address)
            if failure is None:
                return
            self.failures[address] = failure

    async def _dial(self, address: PeerAddress) -> Failure | None:
        try:
            peer_id = await self._overlay.connect(address)
        except ConnectionFailed as error:
            return Failure(str(address), _why_unreachable(error))
        except OverlayError as error:
            return Failure(str(address), _without_address(str(error)), is_refusal=True)
        reason = await self._settle(peer_id)
        if reason is not None:
            return Failure(str(address), reason, is_refusal=True)
        self._links[address] = peer_id
        self.has_met_anyone = True
        return None

    async def _settle(self, peer_id: PeerId) -> str | None:
        """Wait until it is clear that a peer keeps the link; return why if it does not.

        Who is full says so only after the handshake (core Peer.cpp, recvAuth).
        """
        if self._is_connected(peer_id) and peer_id not in self._staying:
            settled: Deferred[None] = Deferred()
            self._settling[peer_id] = settled
            settled.addTimeout(PATIENCE_SECONDS, self._clock, lambda *_: None)
            await settled
            self._settling.pop(peer_id, None)
        if self._is_connected(peer_id):
            return None
        ending = self._ended.get(peer_id)
        return "the link ended at once" if ending is None else _why_ended(ending)

    def _next(self) -> PeerAddress | None:
        """Return whom to dial next."""
        if self._clock.seconds() > self._deadline:
            return None
        if not self._waiting and self._follows_hints:
            self._take_hints()
        return self._waiting.popleft() if self._waiting else None

    def _take_hints(self) -> None:
        room = MAX_HINTS + len(self._addresses) - len(self._tried)
        for record in self._overlay.known_peers():
            is_hint = record.peer_type is StoredPeerType.INBOUND and not record.num_failures
            address = PeerAddress(record.address.host, record.address.port)
            if room > 0 and is_hint and address not in self._tried:
                room -= 1
                self._tried.add(address)
                self._waiting.append(address)

    def _is_connected(self, peer_id: PeerId) -> bool:
        try:
            self._overlay.peer(peer_id)
        except PeerNotFound:
            return False
        return True

    def _forget_ended_links(self) -> None:
        self._links = {
            address: peer_id
            for address, peer_id in self._links.items()
            if self._is_connected(peer_id)
        }

    def _note_word(self, message: OverlayMessage) -> None:
        """Note that a peer stays: this is what comes after all that a full one says."""
        self._staying.put(message.from_peer, None)
        self._end_settling(message.from_peer)

    def _note_event(self, event: PeerEvent) -> None:
        if event.kind == "peer.dropped" and event.peer_id is not None:
            self._ended.put(event.peer_id, event)
            self._staying.pop(event.peer_id)
            self._end_settling(event.peer_id)

    def _end_settling(self, peer_id: PeerId) -> None:
        settling = self._settling.pop(peer_id, None)
        if settling is not None and not settling.called:
            settling.callback(None)


def status_of(failures: Sequence[Failure]) -> ExitStatus:
    """Return the status of a command that found no peer: refused, if anybody was there at all."""
    is_refused = any(failure.is_refusal for failure in failures)
    return ExitStatus.REFUSED if is_refused else ExitStatus.UNREACHABLE


def complain(command: str, failures: Sequence[Failure], *, is_well_known: bool) -> None:
    """Say on stderr why there is no peer, a line for each.

    :param is_well_known: whether it was not the user who named them.
    """
    lines = [str(failure) for failure in failures[:MAX_REASONS]]
    if len(failures) > MAX_REASONS:
        lines.append(f"and so on: {len(failures)} peers in all")
    if is_well_known and status_of(failures) is ExitStatus.UNREACHABLE:
        lines.append("is there no network? stellar-overlay demo needs none")
    for line in lines:
        print(f"stellar-overlay {command}: {line}", file=sys.stderr)


def _why_unreachable(error: ConnectionFailed) -> str:
    cause = error.__cause__
    if isinstance(error, ConnectionTimeout):
        return "nobody answers there in time"
    if isinstance(cause, RefusedError):
        return "nobody listens there: the connection was refused"
    if isinstance(cause, DNSLookupError):
        return "its name cannot be resolved"
    return f"nobody can be reached there: {cause or error}"


def _why_ended(event: PeerEvent) -> str:
    if event.by == "us":
        return f"it was refused by us: {event.reason}"
    if event.code == ErrorCode.ERR_LOAD:
        return f"the peer is full: {event.reason}"
    if event.code is not None:
        return f"the peer refused us: {event.reason}"
    return "the peer closed the connection without a word right after the handshake"


def _without_address(text: str) -> str:
    """Return a reason without the address of whom it is about, which is said already."""
    head, colon, reason = text.partition(": ")
    try:
        PeerAddress.parse(head)
    except InvalidPeerAddress:
        return text
    return reason if colon else text
