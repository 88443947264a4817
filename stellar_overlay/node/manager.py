"""The overlay of one node: makes its parts, starts and stops them, answers for its peers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import (
    AlreadyConnected,
    AlreadyStarted,
    ConfigError,
    DropReason,
    NotStarted,
    PeerNotFound,
    ShuttingDown,
)
from stellar_overlay.gossip.admission import Admission
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.peer_exchange import PeerExchange
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import (
    OVERLAY_MIN_VERSION,
    OVERLAY_VERSION,
    LocalNode,
    PeerId,
)
from stellar_overlay.interfaces import Herder
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.company import Company
from stellar_overlay.node.configured_peers import ConfiguredPeers
from stellar_overlay.node.dialer import Connect, Dialer, tcp_endpoints
from stellar_overlay.node.events import PeerEvent, PeerListener
from stellar_overlay.node.gate import Door
from stellar_overlay.node.limits import connection_limits, session_config
from stellar_overlay.node.links import Links
from stellar_overlay.node.listener import ConnectionFactory, ListenerService
from stellar_overlay.node.peer import Peer, PeerInfo, PendingPeer
from stellar_overlay.node.resolver import Resolve, name_resolver
from stellar_overlay.node.subscriptions import Callback, Observer, Subscription
from stellar_overlay.store.peer_manager import PeerRecord
from stellar_overlay.store.stores import Stores
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
    :param resolve: finds the address of a name.
    :param herder: the node's brain.
    :param database: where addresses and bans are kept: a path, or ``sqlite3://PATH``; None is
        memory.
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
        resolve: Resolve | None = None,
        herder: Herder | None = None,
        random: random.Random | None = None,
    ) -> None:
        super().__init__()
        self.config = config = config.checked()
        self.local_node = _with_versions_of(config, local_node)
        if config.network_passphrase != local_node.network_passphrase:
            raise ConfigError(
                f"network_passphrase {config.network_passphrase!r} is not the network of the"
                f" local node, {local_node.network_passphrase!r}"
            )
        self.metrics = OverlayMetrics()
        clock: Any = reactor if reactor is not None else _running_reactor()
        self._clock = clock
        self._random = random or _fresh_random()
        self._resolve = resolve or name_resolver(
            clock,
            allow_private=config.allow_private,
            timeout_seconds=config.connect_timeout_secs,
        )
        self._state = _State.NEW
        self._start_result: Failure | None = None
        self._waiters: list[Deferred[Any]] = []
        self._stopped: Deferred[None] | None = None
        self.stores = Stores(
            database,
            clock,
            wall_clock=local_node.wall_clock,
            random=self._random,
            metrics=self.metrics,
        )
        self.admission = Admission(
            connection_limits(config),
            local_node.peer_id,
            allow_private=config.allow_private,
            name_of=self._name_of,
            preferred_ids=config.preferred_ids,
            preferred_only=config.preferred_peers_only,
        )
        for warning in self.admission.limits.warnings:
            self._log.warn("{text}", text=warning)
        self._make_parts(herder or IgnoringHerder(), listen, connect)

    def _make_parts(
        self, herder: Herder, listen: IStreamServerEndpoint | str | None, connect: Connect | None
    ) -> None:
        config, clock, book = self.config, self._clock, self.stores.peers
        own_addresses: set[ResolvedPeerAddress] = set()
        exchange = PeerExchange(
            book,
            own_port=lambda: self.local_node.listening_port,
            own_addresses=own_addresses,
            allow_private=config.allow_private,
            allow_localhost=config.allow_localhost,
        )
        self._links = Links(
            self.local_node,
            session_config(config),
            Door(self.admission, self.stores.bans, book, exchange, herder, clock),
            MessageDispatcher(herder, exchange),
            self.metrics,
            clock,
        )
        self._listener = ListenerService(
            self._endpoint(listen), ConnectionFactory(self._links.accept)
        )
        self._dialer = Dialer(
            connect or tcp_endpoints(clock, config.connect_timeout_secs),
            ConnectionFactory(self._links.dialled),
            self.admission,
            book,
            self._links.is_connected,
            own_addresses,
            self.metrics,
        )
        self._company = Company(
            ConfiguredPeers(
                config.known_addresses, config.preferred_addresses, self._resolve, clock
            ),
            self.stores,
            self.admission,
            self._dialer,
            clock,
            period_seconds=config.auth_timeout_secs + 1,  # core OverlayManagerImpl.cpp:660
            allow_private=config.allow_private,
            allow_localhost=config.allow_localhost,
            is_connected=self._links.is_connected,
            is_tracking=herder.is_tracking,
            uniform=self._random.random,
        )
        parts = [self._listener, self._dialer]
        if not config.run_standalone:
            parts.append(self._company)
        for service in parts:
            service.setServiceParent(self)

    # A service.

    async def start(self) -> None:
        """Listen, load what is stored, accept, then dial.

        :raises AlreadyStarted: when it was started before.
        :raises ConfigError: when the database is not ours to use.
        :raises Exception: what the endpoint raises when the port cannot be opened.
        """
        if self._state is not _State.NEW:
            raise AlreadyStarted("an OverlayManager is started once; make a new one")
        self._state = _State.STARTING
        try:
            await self._listener.listen()
            await self.stores.open()
        except Exception:
            self._state = _State.STOPPED
            self._start_result = Failure()
            await maybeDeferred(self._listener.stopService)
            self._wake_waiters()
            raise
        if self._state is not _State.STARTING:
            await maybeDeferred(self._listener.stopService)
            await maybeDeferred(self.stores.stopService)
            raise ShuttingDown("stopped before it had started")
        self.local_node.listening_port = self._listener.port or self.config.listen_port
        self._state = _State.RUNNING
        self._start_result = None
        self.stores.startService()
        super().startService()
        self._wake_waiters()

    def startService(self) -> None:
        """Start; :meth:`when_started` tells how it went, and the log if nobody asked."""
        is_asked = bool(self._waiters)
        starting = Deferred.fromCoroutine(self.start())
        starting.addErrback(self._note_failed_start, is_asked)

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
        address = _as_address(address)
        resolved = await self._resolve(address)
        self._check_running()
        for peer in self._links.peers.values():
            if peer.address == resolved:
                raise AlreadyConnected(f"{address} is {peer.peer_id}, connected already")
        link = await self._dialer.dial(resolved)
        peer_id = link.session.auth.peer_id
        assert peer_id is not None
        return peer_id

    async def disconnect(self, peer_id: PeerId | str) -> None:
        """Drop a peer: it is told "dropped by user".

        :raises PeerNotFound: when it is not connected.
        """
        self.peer(peer_id).drop(DropReason.DROPPED_BY_USER.violation())

    def peer(self, peer_id: PeerId | str) -> Peer:
        """Return a connected peer.

        :raises PeerNotFound: when it is not connected.
        """
        try:
            return self._links.peers[_as_peer_id(peer_id)]
        except KeyError:
            raise PeerNotFound(f"{peer_id} is not connected") from None

    def peer_infos(self) -> list[PeerInfo]:
        """Return what is known of each connected peer, in the order of authentication."""
        now = self._clock.seconds()
        return [peer.info(now) for peer in self._links.peers.values()]

    def pending_peers(self) -> list[PendingPeer]:
        """Return the links that are in their handshake, oldest first."""
        return self._links.pending_peers()

    def known_peers(self) -> list[PeerRecord]:
        """Return every address in the table of peers."""
        return self.stores.peers.get_all_peers()

    def add_known_peers(self, addresses: Iterable[PeerAddress | str]) -> None:
        """Add to the peers of the configuration, until the node stops."""
        self._company.configured.add_known([_as_address(address) for address in addresses])

    # Bans.

    async def ban_peer(self, peer_id: PeerId | str, seconds: float | None = None) -> None:
        """Ban a node, connected or not, and drop it; in force at once, on disk when this returns.

        :param seconds: for how long; None is until it is unbanned.
        :raises DatabaseError: when it is in force, but not on disk yet.
        """
        self._check_running()
        node = _as_peer_id(peer_id)
        bans = self.stores.bans
        done = (
            bans.ban_node(node.strkey)
            if seconds is None
            else (bans.ban_node_for(node.strkey, seconds))
        )
        self._links.events.publish(
            PeerEvent(
                kind="peer.banned", ts=self.local_node.wall_clock(), peer_id=node, seconds=seconds
            )
        )
        self._links.drop_node(node, DropReason.DROPPED_BY_USER.violation("banned"))
        await done

    async def unban_peer(self, peer_id: PeerId | str) -> None:
        """End a ban, if there is one; on disk when this returns.

        :raises DatabaseError: when it is over, but not on disk yet.
        """
        self._check_running()
        await self.stores.bans.unban_node(_as_peer_id(peer_id).strkey)

    def banned_peers(self) -> list[PeerId]:
        """Return the nodes that are banned at present."""
        return [PeerId.from_strkey(node) for node in self.stores.bans.get_bans()]

    def send_to(self, peer_id: PeerId | str, message: Message | StellarMessage) -> bool:
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
        before, self._state = self._state, _State.STOPPED
        if before is _State.STARTING:  # the disk may hang, and nobody shall wait for it
            await maybeDeferred(self._listener.stopService)
            await maybeDeferred(self.stores.stopService)
        if before is not _State.RUNNING:
            self._wake_waiters()
            return
        try:
            await super().stopService()
            gone = self._links.drop_all(DropReason.SHUTDOWN.violation)
            late = self._clock.callLater(STOP_SECONDS, self._links.abort_all)
            await gone
            if late.active():
                late.cancel()
            self._links.subscriptions.end_all()
        finally:
            await maybeDeferred(self.stores.stopService)

    def _name_of(self, peer_id: PeerId) -> str:
        """Return how core's short text names a node: by its alias, or by its first characters."""
        return self.config.node_names.get(peer_id.strkey, peer_id.short)

    def _note_failed_start(self, failure: Failure, is_asked: bool) -> None:
        if not is_asked:
            self._log.error("cannot start: {error}", error=str(failure.value))

    def _wake_waiters(self) -> None:
        if self._state in (_State.NEW, _State.STARTING):
            return
        result = self._start_result
        if result is None and self._state is _State.STOPPED:
            result = Failure(NotStarted("the overlay was stopped; make a new one"))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(result)

    def _check_running(self) -> None:
        if self._state is not _State.RUNNING:
            raise NotStarted("the overlay does not run")

    def _endpoint(self, listen: IStreamServerEndpoint | str | None) -> IStreamServerEndpoint | None:
        if listen is None:
            if self.config.run_standalone or not self.config.listen_enabled:
                return None
            listen = f"tcp:{self.config.listen_port}"
        if not isinstance(listen, str):
            return listen
        if listen.startswith(("tcp:", "tcp6:")) and ":backlog=" not in listen:
            listen += f":backlog={LISTEN_BACKLOG}"
        endpoint: IStreamServerEndpoint = serverFromString(self._clock, listen)
        return endpoint


class _State(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"


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


def _as_address(address: PeerAddress | str) -> PeerAddress:
    if isinstance(address, str):
        return PeerAddress.parse(address)
    if not isinstance(address, PeerAddress):
        raise TypeError(f"a PeerAddress or 'host:port' is wanted, not {address!r}")
    return address


def _as_peer_id(peer_id: PeerId | str) -> PeerId:
    if isinstance(peer_id, str):
        return PeerId.from_strkey(peer_id)
    if not isinstance(peer_id, PeerId):
        raise TypeError(f"a PeerId or 'G…' is wanted, not {type(peer_id).__name__}")
    return peer_id


def _fresh_random() -> random.Random:
    return random.SystemRandom()


def _running_reactor() -> Any:
    from twisted.internet import reactor

    return reactor
