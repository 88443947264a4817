"""All links of a node: makes them, asks admission about them, and hands their messages on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from stellar_overlay.address import MAX_PORT, ResolvedPeerAddress
from stellar_overlay.error import DropReason, PeerError, PeerViolation
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.gossip.survey import SurveyManager
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.budget import Shares
from stellar_overlay.node.connection import Connection, resolved_address
from stellar_overlay.node.delivery import Delivery
from stellar_overlay.node.events import PeerEvent, PeerEvents
from stellar_overlay.node.flush_queue import FlushQueue
from stellar_overlay.node.gate import Door
from stellar_overlay.node.peer import Peer, PendingPeer
from stellar_overlay.node.subscriptions import Subscriptions
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.outbox import Entry, drop_counters
from stellar_overlay.session.session import Session
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthContext, SessionIdentity
from stellar_overlay.wire.message import Message, MessageType

ORPHANED_LIMIT = 64 * 1024 * 1024
"""Bytes that consumers may hold of peers that are gone, before nobody new is let in."""
_BY_THEM = frozenset({DropReason.REMOTE_ERROR, DropReason.LOST_AT_HEADER, DropReason.LOST_IN_BODY})


class Links:
    """Owns every :class:`Connection` of a node, from its first byte to its last.

    :ivar peers: the authenticated ones.
    """

    _log = Logger()

    def __init__(
        self,
        local_node: LocalNode,
        session_config: SessionConfig,
        door: Door,
        dispatcher: MessageDispatcher,
        relay: Relay,
        survey: SurveyManager,
        peers: dict[PeerId, Peer],
        metrics: OverlayMetrics,
        clock: IReactorTime,
    ) -> None:
        self.peers = peers
        if IReactorFromThreads.providedBy(clock):
            self.subscriptions = Subscriptions(metrics, clock.callFromThread, clock)
        else:
            self.subscriptions = Subscriptions(metrics, clock=clock)
        self.events = PeerEvents()
        self._shares = Shares(clock)
        metrics.refreshers.append(lambda: self._shares.report(metrics))
        self._local_node = local_node
        self._identity = SessionIdentity(local_node)
        self._session_config = replace(
            session_config,
            outbox=replace(
                session_config.outbox,
                answer_budget=self._shares.answers,
                note_dropped=drop_counters(metrics),
            ),
        )
        self._door = door
        self._admission = door.admission
        self._is_preferred = door.admission.is_link_preferred  # one for all peers
        self._dispatcher = dispatcher
        self._relay = relay
        self._survey = survey
        relay.push = self.push  # type: ignore[assignment]  # its peers are ours
        self._delivery = Delivery(
            relay, dispatcher.handlers, self.subscriptions, local_node.wall_clock, metrics
        )
        self._metrics = metrics
        self._clock = clock
        self._flusher = FlushQueue(clock)
        self._open: dict[Connection, Peer | None] = {}
        self._addresses: Counter[ResolvedPeerAddress] = Counter()  # of the authenticated peers
        self._is_closing = False
        self._on_empty: list[Deferred[None]] = []

    # What the factories call.

    def accept(self, address: IAddress) -> Connection | None:
        """Return a link for a connection that came in; None when there is no slot for it."""
        remote = resolved_address(address)
        self._metrics.inbound_attempt.inc()
        if self._is_closing or self._is_clogged or not self._admission.may_accept(remote):
            self._metrics.inbound_reject.inc()
            self._metrics.drops[DropReason.NO_PENDING_SLOT].inc()
            self._log.debug(
                "{remote} refused: {reason}", remote=remote, reason=DropReason.NO_PENDING_SLOT.text
            )
            return None
        self._metrics.inbound_establish.inc()
        return self._link(we_called_remote=False)

    def dialled(self, address: IAddress) -> Connection | None:
        """Return a link for a connection that we opened."""
        if self._is_closing or self._is_clogged:
            return None
        self._metrics.outbound_establish.inc()
        return self._link(we_called_remote=True)

    # What the manager calls.

    def drop_all(self, violation: Callable[[], PeerViolation]) -> Deferred[None]:
        """End every link; fire when the last transport is closed."""
        self._is_closing = True
        for link in list(self._open):
            link.drop(violation())
        empty: Deferred[None] = Deferred()
        self._on_empty.append(empty)
        self._check_empty()
        return empty

    def drop_node(self, peer_id: PeerId, violation: PeerViolation) -> None:
        """End every link to a node, in whatever state, as far as it said who it is."""
        for link in list(self._open):
            if link.session.auth.peer_id == peer_id:
                link.drop(violation)

    def is_connected(self, address: ResolvedPeerAddress) -> bool:
        """Tell whether a peer is connected that listens there."""
        return self._addresses[address] > 0

    def pending_peers(self) -> list[PendingPeer]:
        """Return the links that are in their handshake, oldest first."""
        return [
            PendingPeer(address=_address_of(link), direction=link.direction)
            for link, peer in self._open.items()
            if peer is None and link.violation is None
        ]

    def abort_all(self) -> None:
        """Close every transport at once."""
        for link in list(self._open):
            link.abort()

    def push(self, message: Message, peers: Sequence[Peer]) -> None:
        """Queue one SCP message, of a slot that matters, for many peers: see ``Relay.push``."""
        if message.type is not MessageType.SCP_MESSAGE:
            for peer in peers:
                peer.send(message)
            return
        entry = Entry(message.body, self._clock.seconds(), message.size)
        links = [peer.connection for peer in peers]
        for link in links:
            link.session.outbox.scp.push(entry)
        self._flusher.add_all(links)

    # What a link calls.

    def open_session(self, link: Connection) -> Session:
        session = link.session = Session(
            AuthContext(self._local_node, link.we_called_remote, identity=self._identity),
            self._door.gate_of(link),
            self._session_config,
            now=self._clock.seconds(),
            is_known=self._relay.gate.records.__contains__,
            metrics=self._metrics,
        )
        self._open[link] = None
        self._admission.open(link)
        self._publish("peer.connecting", link)
        return session

    def link_authenticated(self, link: Connection) -> None:
        now, peer_id = self._clock.seconds(), link.session.auth.peer_id
        assert peer_id is not None
        peer = Peer(
            link,
            wall_now=self._local_node.wall_clock(),
            now=now,
            flood_bit=self._relay.gate.bit_of(peer_id),
            is_preferred=self._is_preferred,
        )
        self._open[link] = self.peers[peer.peer_id] = peer
        self._addresses[peer.address] += 1
        self._relay.demands.add_peer(peer)
        self._survey.record_added_peer(peer)
        info = peer.info(now)
        self._log.info(
            "{link}: authenticated, {direction}, {version!r}, overlay {overlay}",
            link=link.label,
            direction=info.direction,
            version=info.version_string,
            overlay=info.overlay_version,
        )
        self._publish(
            "peer.authenticated",
            link,
            version_string=info.version_string,
            overlay_version=info.overlay_version,
            handshake_ms=info.handshake_ms,
        )
        self._dispatcher.peers_changed()

    def dispatch(self, link: Connection, items: Sequence[Item]) -> None:
        peer = self._open[link]
        assert peer is not None
        self._delivery.dispatch(link, peer, items, self._clock.seconds())

    def link_dropped(self, link: Connection, violation: PeerViolation) -> None:
        self._admission.remove(link)
        self._delivery.forget(link)
        peer = self._open.get(link)
        if peer is not None:
            self._dispatcher.forget(peer)
            self._relay.demands.remove_peer(peer)
            self._addresses[peer.address] -= 1
            if not self._addresses[peer.address]:
                del self._addresses[peer.address]
            if self.peers.get(peer.peer_id) is peer:
                del self.peers[peer.peer_id]
                self._relay.gate.release(peer.peer_id)
                self._survey.record_dropped_peer(peer)
        if link.remote is not None:
            self._door.book.forget_dead_peers(link.remote.host)
        self._count_drop(link, violation)
        by = "them" if violation.kind in _BY_THEM else "us"
        log = self._log.info if peer is not None else self._log.debug
        log(
            "{link}: dropped by {by}: {reason} {detail}",
            link=link.label,
            by=by,
            reason=violation.reason,
            detail=f"({violation.detail})" if violation.detail else "",
        )
        code = violation.remote_code if isinstance(violation, PeerError) else violation.code
        self._publish("peer.dropped", link, reason=violation.reason, by=by, code=code)

    @property
    def _is_clogged(self) -> bool:
        """Whether somebody here holds so much of peers that are gone that no new ones may come."""
        return self._delivery.orphaned > ORPHANED_LIMIT

    def link_gone(self, link: Connection) -> None:
        self._open.pop(link, None)
        self._admission.forget(link)
        self._check_empty()

    def _link(self, *, we_called_remote: bool) -> Connection:
        return Connection(
            self,
            self._clock,
            self._flusher,
            self._metrics,
            we_called_remote=we_called_remote,
            shares=self._shares,
        )

    def _count_drop(self, link: Connection, violation: PeerViolation) -> None:
        metrics = self._metrics
        (metrics.outbound_drop if link.we_called_remote else metrics.inbound_drop).inc()
        match violation.kind:
            case DropReason.IDLE:
                metrics.timeouts_idle.inc()
            case DropReason.STRAGGLING:
                metrics.timeouts_straggler.inc()
            case DropReason.READ_ERROR | DropReason.LOST_AT_HEADER | DropReason.LOST_IN_BODY:
                metrics.errors_read.inc()
            case DropReason.PEER_REJECTED:
                outbound = link.we_called_remote
                (metrics.outbound_cancel if outbound else metrics.inbound_reject).inc()

    def _check_empty(self) -> None:
        if not self._open:
            waiting, self._on_empty = self._on_empty, []
            for deferred in waiting:
                deferred.callback(None)

    def _publish(self, kind: str, link: Connection, **fields: Any) -> None:
        if not self.events.is_watched:
            return
        peer = self._open.get(link)
        session = getattr(link, "session", None)
        self.events.publish(
            PeerEvent(
                kind=kind,
                ts=self._local_node.wall_clock(),
                address=link.remote if peer is None else peer.address,
                direction=link.direction,
                peer_id=None if session is None else session.auth.peer_id,
                **fields,
            )
        )


def _address_of(link: Connection) -> ResolvedPeerAddress | None:
    hello, remote = link.session.auth.remote, link.remote
    if hello is None or remote is None or not 0 < hello.listening_port <= MAX_PORT:
        return remote
    return ResolvedPeerAddress(remote.host, hello.listening_port)
