"""All links of a node: makes them, asks admission about them, and hands their messages on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger

from stellar_overlay.error import DropReason, PeerError, PeerViolation
from stellar_overlay.gossip.admission import Admission
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.interfaces import Herder
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection, resolved_address
from stellar_overlay.node.events import PeerEvent, PeerEvents
from stellar_overlay.node.flush_queue import FlushQueue
from stellar_overlay.node.peer import Peer
from stellar_overlay.node.subscriptions import Subscriptions
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.session import Session
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthContext, SessionIdentity
from stellar_overlay.wire.message import Hello, PeerEntry

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
        admission: Admission,
        dispatcher: MessageDispatcher,
        herder: Herder,
        metrics: OverlayMetrics,
        clock: IReactorTime,
    ) -> None:
        self.peers: dict[PeerId, Peer] = {}
        self.subscriptions = Subscriptions(metrics)
        self.events = PeerEvents()
        self._local_node = local_node
        self._identity = SessionIdentity(local_node)
        self._session_config = session_config
        self._admission = admission
        self._dispatcher = dispatcher
        self._herder = herder
        self._metrics = metrics
        self._clock = clock
        self._flusher = FlushQueue(clock)
        self._open: dict[Connection, Peer | None] = {}
        self._is_closing = False
        self._on_empty: list[Deferred[None]] = []

    # What the factories call.

    def accept(self, address: IAddress) -> Connection | None:
        """Return a link for a connection that came in; None when there is no slot for it."""
        remote = resolved_address(address)
        self._metrics.inbound_attempt.inc()
        if self._is_closing or not self._admission.may_accept(remote):
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
        if self._is_closing:
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

    def abort_all(self) -> None:
        """Close every transport at once."""
        for link in list(self._open):
            link.abort()

    # What a link calls.

    def open_session(self, link: Connection) -> Session:
        session = link.session = Session(
            AuthContext(self._local_node, link.we_called_remote, identity=self._identity),
            _LinkGate(link, self._admission, self._herder, self._clock),
            self._session_config,
            now=self._clock.seconds(),
            metrics=self._metrics,
        )
        self._open[link] = None
        self._admission.open(link)
        self._publish("peer.connecting", link)
        return session

    def link_authenticated(self, link: Connection) -> None:
        peer = Peer(link, wall_now=self._local_node.wall_clock(), now=self._clock.seconds())
        self._open[link] = self.peers[peer.peer_id] = peer
        info = peer.info
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

    def dispatch(self, link: Connection, items: Sequence[Item]) -> None:
        peer = self._open[link]
        assert peer is not None
        now, wall_now = self._clock.seconds(), self._local_node.wall_clock()
        handlers, observed = self._dispatcher.handlers, self.subscriptions.by_kind
        done: Sequence[Item] = items
        if not observed.keys().isdisjoint({kind for kind, _ in items}):
            done = self._deliver(link, peer, items, wall_now)
        for kind, body in items:
            handler = handlers.get(kind)
            if handler is not None and link.violation is None:
                handler(peer, body, now)
        link.processed(done)

    def link_dropped(self, link: Connection, violation: PeerViolation) -> None:
        peer_id = link.session.auth.peer_id
        self._admission.remove(link, peer_id)
        peer = self._open.get(link)
        if peer is not None:
            self._dispatcher.forget(peer)
            if self.peers.get(peer.peer_id) is peer:
                del self.peers[peer.peer_id]
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

    def link_gone(self, link: Connection) -> None:
        self._open.pop(link, None)
        self._admission.forget(link)
        self._check_empty()

    def _link(self, *, we_called_remote: bool) -> Connection:
        return Connection(
            self, self._clock, self._flusher, self._metrics, we_called_remote=we_called_remote
        )

    def _deliver(
        self, link: Connection, peer: Peer, items: Sequence[Item], wall_now: float
    ) -> list[Item]:
        """Show items to observers; return those whose credit nobody holds.

        When an observer drops the peer, what came after is not looked at.
        """
        done = []
        deliver, observed = self.subscriptions.deliver, self.subscriptions.by_kind
        for item in items:
            if link.violation is not None:
                break
            pending = deliver(peer.peer_id, *item, wall_now) if item[0] in observed else None
            if pending is None:
                done.append(item)
            else:
                pending.addCallback(_release, link, item)
        return done

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
                address=link.remote if peer is None else peer.info.address,
                direction="outbound" if link.we_called_remote else "inbound",
                peer_id=None if session is None else session.auth.peer_id,
                **fields,
            )
        )


def _release(_: object, link: Connection, item: Item) -> None:
    link.processed((item,))


class _LinkGate:
    """The node's decisions about one link."""

    __slots__ = ("_admission", "_clock", "_herder", "_link")

    def __init__(
        self, link: Connection, admission: Admission, herder: Herder, clock: IReactorTime
    ) -> None:
        self._link = link
        self._admission = admission
        self._herder = herder
        self._clock = clock

    def check_node(self, hello: Hello) -> None:
        if self._link.remote is None:
            raise DropReason.NO_REMOTE_ADDRESS.violation()

    def check_hello(self, hello: Hello) -> None:
        self._admission.check_hello(PeerId(hello.node_key), self._clock.seconds())

    def settle_duplicate(self, hello: Hello) -> None:
        peer_id = PeerId(hello.node_key)
        self._admission.settle_duplicate(self._link, peer_id, self._clock.seconds())

    def peers_to_send(self) -> Sequence[PeerEntry]:
        return ()

    def admit(self, hello: Hello) -> None:
        self._admission.admit(self._link, PeerId(hello.node_key))

    def scp_state_from(self) -> int:
        return self._herder.scp_state_from()
