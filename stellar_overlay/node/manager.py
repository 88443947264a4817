"""The overlay of one node: makes its parts, starts and stops them, answers for its peers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import (
    AlreadyConnected,
    AlreadyStarted,
    ConfigError,
    DropReason,
    NotStarted,
    OverlayError,
    PeerNotFound,
    ShuttingDown,
)
from stellar_overlay.gossip.admission import Admission, ConnectionLimits
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import (
    OVERLAY_MIN_VERSION,
    OVERLAY_VERSION,
    LocalNode,
    PeerId,
)
from stellar_overlay.interfaces import Herder
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.dialer import Connect, Dialer, Redialler, tcp_endpoints
from stellar_overlay.node.events import PeerListener
from stellar_overlay.node.links import Links
from stellar_overlay.node.listener import ConnectionFactory, ListenerService
from stellar_overlay.node.peer import Peer, PeerInfo
from stellar_overlay.node.subscriptions import Callback, Observer, Subscription
from stellar_overlay.session.flow_control import FlowControlConfig
from stellar_overlay.session.outbox import OutboxConfig
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import Message, MessageType

if TYPE_CHECKING:
    from stellar_sdk.xdr import StellarMessage

STOP_SECONDS = 3
"""How long stopping waits for links to deliver their last words."""
LISTEN_BACKLOG = 100
"""Connections that the kernel accepts ahead of us (core PeerDoor.cpp:15)."""


class OverlayManager(MultiService):
    """One node's overlay: ``await start()``, or as a service of an application.

    :param config: checked and copied; later changes have no effect.
    :param reactor: the running one if none is given.
    :param listen: where to listen, as an endpoint or its description; None follows ``config``.
    :param connect: returns the endpoint of an address that is dialled.
    :param herder: the node's brain.
    :param database: where addresses and bans are to be kept; None is memory.
    :raises ConfigError: for a setting that cannot be.
    """

    _log = Logger()

    def __init__(
        self,
        config: OverlayConfig,
        local_node: LocalNode,
        *,
        reactor: IReactorTime | None = None,
        database: str | None = None,
        listen: IStreamServerEndpoint | str | None = None,
        connect: Connect | None = None,
        herder: Herder | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        super().__init__()
        self.config = config.checked()
        self.local_node = _with_versions_of(self.config, local_node)
        self.database = database
        if self.config.network_passphrase != local_node.network_passphrase:
            raise ConfigError(
                f"network_passphrase {self.config.network_passphrase!r} is not the network of the"
                f" local node, {local_node.network_passphrase!r}"
            )
        self.metrics = OverlayMetrics()
        clock: Any = reactor if reactor is not None else _running_reactor()
        self._clock: IReactorTime = clock
        herder = herder or IgnoringHerder()
        self.admission = Admission(
            connection_limits(self.config),
            local_node.peer_id,
            allow_private=self.config.allow_private,
            name_of=self._name_of,
        )
        self._links = Links(
            self.local_node,
            session_config(self.config),
            self.admission,
            MessageDispatcher(herder),
            herder,
            self.metrics,
            clock,
        )
        self._listener = ListenerService(
            self._endpoint(listen), ConnectionFactory(self._links.accept)
        )
        self._dialer = Dialer(
            connect or tcp_endpoints(clock, self.config.connect_timeout_secs),
            ConnectionFactory(self._links.dialled),
            self.admission,
            self.metrics,
        )
        configured = (*self.config.preferred_addresses, *self.config.known_addresses)
        self._redialler = Redialler(configured, uniform)
        self._tick = LoopingCall(self._dial_due)
        self._tick.clock = clock
        self._state = _State.NEW
        self._start_result: Failure | None = None
        self._waiters: list[Deferred[Any]] = []
        self._stopped: Deferred[None] | None = None
        for service in (self._listener, self._dialer):
            service.setServiceParent(self)

    # A service.

    async def start(self) -> None:
        """Listen, then dial.

        :raises AlreadyStarted: when it was started before.
        :raises Exception: what the endpoint raises when the port cannot be opened.
        """
        if self._state is not _State.NEW:
            raise AlreadyStarted("an OverlayManager is started once")
        self._state = _State.STARTING
        try:
            await self._listener.listen()
        except Exception:
            self._state = _State.STOPPED
            self._start_result = Failure()
            self._wake_waiters()
            raise
        if self._state is not _State.STARTING:
            await maybeDeferred(self._listener.stopService)
            raise ShuttingDown("stopped before it had started")
        self.local_node.listening_port = self._listener.port or self.config.listen_port
        self._state = _State.RUNNING
        self._start_result = None
        super().startService()
        if not self.config.run_standalone:
            self._tick.start(self.config.auth_timeout_secs + 1)  # core OverlayManagerImpl.cpp:660
        self._wake_waiters()

    def startService(self) -> None:
        """Start; :meth:`when_started` tells how it went."""
        Deferred.fromCoroutine(self.start()).addErrback(lambda failure: None)

    def when_started(self) -> Deferred[None]:
        """Return a Deferred that fires once the node listens, or fails with why it cannot."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self._wake_waiters()
        return waiter

    def stopService(self) -> Deferred[None]:
        """Say goodbye to every peer and stop; the Deferred fires within five seconds."""
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        stopped: Deferred[None] = Deferred()
        self._stopped.chainDeferred(stopped)
        self._stopped.addErrback(lambda failure: None)
        return stopped

    async def stop(self) -> None:
        """Say goodbye to every peer and stop, within five seconds."""
        await self.stopService()

    @property
    def peer_port(self) -> int | None:
        """The port that is listened on; None when there is none."""
        return self._listener.port

    # Peers.

    async def connect(self, address: PeerAddress | str) -> PeerId:
        """Dial; return who answered, once it is authenticated.

        :raises OverlayError: that says why there is no link.
        """
        self._check_running()
        if isinstance(address, str):
            address = PeerAddress.parse(address)
        for peer in self._links.peers.values():
            if peer.is_at(address):
                raise AlreadyConnected(f"{address} is {peer.peer_id}, connected already")
        link = await self._dialer.dial(address)
        peer_id = link.session.auth.peer_id
        assert peer_id is not None
        return peer_id

    async def disconnect(self, peer_id: PeerId) -> None:
        """Drop a peer: it is told "dropped by user".

        :raises PeerNotFound: when it is not connected.
        """
        self.peer(peer_id).drop(DropReason.DROPPED_BY_USER.violation())

    def peer(self, peer_id: PeerId) -> Peer:
        """Return a connected peer.

        :raises PeerNotFound: when it is not connected.
        """
        try:
            return self._links.peers[peer_id]
        except KeyError:
            raise PeerNotFound(f"{peer_id} is not connected") from None

    def peer_infos(self) -> list[PeerInfo]:
        """Return what is known of each connected peer, in the order of authentication."""
        return [peer.info for peer in self._links.peers.values()]

    def send_to(self, peer_id: PeerId, message: Message | StellarMessage) -> bool:
        """Queue a message for one peer; False when it will not get it.

        :raises PeerNotFound: when it is not connected.
        :raises XdrError: for a body that the peer would drop us for.
        :raises ValueError: for what only the protocol itself may send.
        """
        if not isinstance(message, Message):
            message = Message.from_xdr(message)
        xdr_check.check(message.body)
        return self.peer(peer_id).send(message)

    # Who listens.

    def observe(self, callback: Callback, *types: MessageType) -> Observer:
        """Call ``callback`` with each message of ``types``, or of all types if none is given.

        A Deferred or coroutine that it returns holds the sender's credit until it is done.
        """
        return self._links.subscriptions.observe(callback, *types)

    def subscribe(self, *types: MessageType) -> Subscription:
        """Return the messages of ``types``, or of all types, as an async iterator.

        Each item holds its sender's credit until the next one is asked for. Ends when the
        overlay stops.
        """
        return self._links.subscriptions.subscribe(*types)

    def on_peer_event(self, listener: PeerListener) -> Callable[[], None]:
        """Call ``listener`` with each :class:`PeerEvent`; return what ends that."""
        return self._links.events.add(listener)

    # Inside.

    async def _stop(self) -> None:
        was_running, self._state = self._state is _State.RUNNING, _State.STOPPED
        if not was_running:
            return
        if self._tick.running:
            self._tick.stop()
        await super().stopService()
        gone = self._links.drop_all(DropReason.SHUTDOWN.violation)
        late = self._clock.callLater(STOP_SECONDS, self._links.abort_all)
        await gone
        if late.active():
            late.cancel()
        self._links.subscriptions.end_all()

    def _dial_due(self) -> None:
        now = self._clock.seconds()
        for address in self._redialler.due(now):
            free = self.config.target_outbound_peers - self.admission.outbound
            if free <= 0 or self._is_connected(address):
                continue
            if not self._dialer.is_dialling(address) and self.admission.may_dial():
                self._redialler.note_attempt(address, now)
                Deferred.fromCoroutine(self._dial_configured(address))

    def _name_of(self, peer_id: PeerId) -> str:
        """Return how core's short text names a node: by its alias, or by its first characters."""
        return self.config.node_names.get(peer_id.strkey, peer_id.short)

    def _is_connected(self, address: PeerAddress) -> bool:
        return self._dialer.has_link(address) or any(
            peer.is_at(address) for peer in self._links.peers.values()
        )

    async def _dial_configured(self, address: PeerAddress) -> None:
        try:
            await self._dialer.dial(address)
        except OverlayError as error:
            self._log.info("{error}", error=str(error))
        except Exception:
            self._log.failure("dialling {address}", address=address)
        else:
            self._redialler.note_success(address, self._clock.seconds())

    def _wake_waiters(self) -> None:
        if self._state not in (_State.NEW, _State.STARTING):
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(self._start_result)

    def _check_running(self) -> None:
        if self._state is not _State.RUNNING:
            raise NotStarted("the overlay does not run")

    def _endpoint(self, listen: IStreamServerEndpoint | str | None) -> IStreamServerEndpoint | None:
        if listen is None:
            if self.config.run_standalone or not self.config.listen_enabled:
                return None
            listen = f"tcp:{self.config.listen_port}:backlog={LISTEN_BACKLOG}"
        return serverFromString(self._clock, listen) if isinstance(listen, str) else listen


class _State(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"


def connection_limits(config: OverlayConfig) -> ConnectionLimits:
    """Return how many links of each kind a checked configuration allows."""
    return ConnectionLimits.of(
        config.max_outbound_peers, config.max_inbound_peers, config.max_pending_connections
    )


def session_config(config: OverlayConfig) -> SessionConfig:
    """Return the settings of each link that a checked configuration asks for."""

    def pick(kind: type) -> dict[str, Any]:
        return {
            row.name: getattr(config, row.name) for row in fields(kind) if hasattr(config, row.name)
        }

    return SessionConfig(
        **pick(SessionConfig),
        flow_control=FlowControlConfig(**pick(FlowControlConfig)),
        outbox=OutboxConfig(**pick(OutboxConfig)),
    )


def _with_versions_of(config: OverlayConfig, local_node: LocalNode) -> LocalNode:
    """Return a copy of the node with the overlay versions that it or the configuration asks for."""
    asked = config.overlay_min_version, config.overlay_version
    node = copy.copy(local_node)
    announced = node.overlay_min_version, node.overlay_version
    default = OVERLAY_MIN_VERSION, OVERLAY_VERSION
    if announced == default:
        node.overlay_min_version, node.overlay_version = asked
    elif asked not in (default, announced):
        raise ConfigError(
            f"overlay versions {asked[0]}..{asked[1]} of the configuration are not those of the"
            f" local node, {announced[0]}..{announced[1]}"
        )
    return node


def _running_reactor() -> Any:
    from twisted.internet import reactor

    return reactor
