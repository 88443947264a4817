"""The overlay of one node: makes its parts, starts and stops them, answers for its peers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import (
    AlreadyConnected,
    ConfigError,
    DropReason,
    PeerNotFound,
)
from stellar_overlay.gossip.admission import Admission
from stellar_overlay.gossip.peer_exchange import PeerExchange
from stellar_overlay.gossip.survey import SurveyManager
from stellar_overlay.identity import (
    OVERLAY_MIN_VERSION,
    OVERLAY_VERSION,
    LocalNode,
    PeerId,
)
from stellar_overlay.interfaces import Herder, Verifier
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.company import Company
from stellar_overlay.node.configured_peers import ConfiguredPeers
from stellar_overlay.node.dialer import Connect, Dialer, tcp_endpoints
from stellar_overlay.node.events import PeerEvent, PeerListener
from stellar_overlay.node.flooding import Flooding, observer_herder, signature_verifier
from stellar_overlay.node.gate import Door
from stellar_overlay.node.lifecycle import Lifecycle
from stellar_overlay.node.limit_table import limits_of
from stellar_overlay.node.limits import connection_limits, session_config
from stellar_overlay.node.links import Links
from stellar_overlay.node.listener import ConnectionFactory, ListenerService
from stellar_overlay.node.peer import Peer, PeerInfo, PendingPeer
from stellar_overlay.node.resolver import Resolve, name_resolver
from stellar_overlay.node.subscriptions import Callback, Observer, Subscription
from stellar_overlay.node.surveying import Surveying
from stellar_overlay.store.peer_manager import PeerRecord
from stellar_overlay.store.stores import Stores
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import Message, MessageType, encode_get_scp_state

if TYPE_CHECKING:
    from stellar_sdk.xdr import StellarMessage

STOP_SECONDS = 3
"""How long stopping waits for links to deliver their last words."""
LISTEN_BACKLOG = 100
"""Connections that the kernel accepts ahead of us (core PeerDoor.cpp:15)."""


class OverlayManager(Lifecycle):
    """One node's overlay: ``await start()``, or as a service of an application.

    :param config: checked and copied; later changes have no effect.
    :param reactor: the running one if none is given.
    :param listen: where to listen, as an endpoint or its description; None follows ``config``.
    :param connect: returns the endpoint of an address that is dialled.
    :param resolve: finds the address of a name.
    :param herder: the node's brain; an :class:`ObserverHerder` if none is given.
    :param verifier: checks signatures for that one; a small thread pool if none is given.
    :param database: where addresses and bans are kept: a path, or ``sqlite3://PATH``; None is
        memory.
    :raises ConfigError: for a setting that cannot be.
    """

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
        verifier: Verifier | None = None,
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
            name_of=self.name_of,
            preferred_ids=config.preferred_ids,
            preferred_only=config.preferred_peers_only,
        )
        for warning in self.admission.limits.warnings:
            self._log.warn("{text}", text=warning)
        self.metrics.limits.update({limit.name: limit.total for limit in limits_of(config)})
        parts: list[IService] = []
        if herder is None:
            verifier = verifier or signature_verifier(clock)
            if IService.providedBy(verifier):
                parts.append(verifier)
            herder = observer_herder(config, local_node, verifier, clock)
        self._peers: dict[PeerId, Peer] = {}
        self._flooding = Flooding(config, herder, self._peers, clock, self._random, self.metrics)
        self._surveying = Surveying(
            config,
            self.local_node,
            herder,
            self._flooding.relay,
            self._peers,
            clock,
            self.metrics,
        )
        self._flooding.dispatcher.handlers.update(self._surveying.manager.handlers)
        self._make_links(listen, connect)
        parts += [self._flooding, self._surveying, self._listener, self._dialer]
        if not config.run_standalone:
            parts.append(self._company)
        for service in parts:
            service.setServiceParent(self)

    def _make_links(
        self, listen: IStreamServerEndpoint | str | None, connect: Connect | None
    ) -> None:
        config, clock, book = self.config, self._clock, self.stores.peers
        flooding, herder = self._flooding, self._flooding.herder
        own_addresses: set[ResolvedPeerAddress] = set()
        exchange = PeerExchange(
            book,
            own_port=lambda: self.local_node.listening_port,
            own_addresses=own_addresses,
            allow_private=config.allow_private,
            allow_localhost=config.allow_localhost,
        )
        flooding.dispatcher.learn_peers(exchange)
        self._links = Links(
            self.local_node,
            session_config(config, herder),
            Door(self.admission, self.stores.bans, book, exchange, herder, clock),
            flooding.dispatcher,
            flooding.relay,
            self.survey,
            self._peers,
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

    # A service.

    async def open(self) -> None:
        """Bind the port and load what is stored, before anybody is accepted.

        :raises ConfigError: when the database is not ours to use.
        :raises Exception: what the endpoint raises when the port cannot be opened.
        """
        await self._listener.listen()
        await self.stores.open()
        self.local_node.listening_port = self._listener.port or self.config.listen_port
        self.stores.startService()

    async def close(self, *, was_running: bool) -> None:
        """Say goodbye to every peer and close the database, within five seconds."""
        try:
            if was_running:
                await self._close_links()
            else:
                await maybeDeferred(self._listener.stopService)
        finally:
            self._links.subscriptions.end_all()
            await maybeDeferred(self.stores.stopService)

    async def _close_links(self) -> None:
        gone = self._links.drop_all(DropReason.SHUTDOWN.violation)
        late = self._clock.callLater(STOP_SECONDS, self._links.abort_all)
        await gone
        if late.active():
            late.cancel()

    @property
    def herder(self) -> Herder:
        """The node's brain: where consensus stands, what was heard of it."""
        return self._flooding.herder

    @property
    def survey(self) -> SurveyManager:
        """Time-sliced surveys: to begin one, and to see where one stands."""
        return self._surveying.manager

    @property
    def peer_port(self) -> int | None:
        """The port that is listened on; None when there is none."""
        return self._listener.port

    # Peers.

    async def connect(self, address: PeerAddress | str) -> PeerId:
        """Dial; return who answered, once it is authenticated.

        :raises OverlayError: that says why there is no link.
        """
        self.check_running()
        address = _as_address(address)
        resolved = await self._resolve(address)
        self.check_running()
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

    def name_of(self, peer_id: PeerId) -> str:
        """Return how core's short text names a node: by its alias, or by its first characters."""
        return self.config.node_names.get(peer_id.strkey, peer_id.short)

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
        self.check_running()
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
        self.check_running()
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
        peer = self.peer(peer_id)
        is_sent = peer.send(message)
        if is_sent:
            self._flooding.relay.note_told(peer, message)
        return is_sent

    def broadcast(self, message: Message | StellarMessage) -> int:
        """Push an SCP message to every peer, or advertise a transaction and serve it.

        Peers that know it already, or were told before, are left out.

        :returns: how many peers were told.
        :raises XdrError: for a body that peers would drop us for.
        :raises ValueError: for what is not flooded.
        """
        if not isinstance(message, Message):
            message = Message.from_xdr(message)
        xdr_check.check(message.body)
        self.check_running()
        return self._flooding.relay.broadcast_own(message)

    def request_scp_state(self, ledger_seq: int) -> int:
        """Ask every peer for the SCP messages from that slot on; 0 is all they know.

        :returns: how many peers were asked.
        :raises ValueError: for what is no ledger sequence.
        """
        if not isinstance(ledger_seq, int) or not 0 <= ledger_seq < 2**32:
            raise ValueError(f"a ledger sequence is 0 to 2^32-1, not {ledger_seq!r:.100}")
        question = Message(encode_get_scp_state(ledger_seq))
        return sum([peer.send(question) for peer in self._links.peers.values()])

    # Items.

    async def fetch_tx_set(self, item_hash: bytes, timeout: float = 10) -> Message:
        """Return the TX_SET or GENERALIZED_TX_SET with a 32-byte hash, from whoever has it.

        :param timeout: seconds; cancelling the call ends the search as well.
        :raises FetchTimeout: when nobody had it in time.
        """
        self.check_running()
        return await self._flooding.fetch_tx_set(item_hash, timeout)

    async def fetch_quorum_set(self, item_hash: bytes, timeout: float = 10) -> Message:
        """Return the SCP_QUORUMSET with a 32-byte hash, likewise."""
        self.check_running()
        return await self._flooding.fetch_quorum_set(item_hash, timeout)

    def publish(self, message: Message | StellarMessage) -> bytes:
        """Keep a transaction set or quorum set for peers who ask for it; return its hash.

        :raises XdrError: for a body that peers would drop us for.
        :raises ValueError: for any other message.
        """
        if not isinstance(message, Message):
            message = Message.from_xdr(message)
        xdr_check.check(message.body)
        self.check_running()
        return self._flooding.dispatcher.cache_item(message)

    # Who listens.

    def observe(
        self,
        callback: Callback,
        *types: MessageType,
        duplicates: bool = True,
        name: str | None = None,
    ) -> Observer:
        """Call ``callback`` with each message of ``types``, or of all types if none is given.

        A Deferred or coroutine that it returns holds the sender's credit until it is done.

        :param duplicates: whether it wants flooded messages that were heard before, too.
        :param name: what the log calls it when it holds messages for long.
        """
        return self._links.subscriptions.observe(callback, *types, duplicates=duplicates, name=name)

    def subscribe(
        self,
        *types: MessageType,
        duplicates: bool = True,
        lossy: int = 0,
        name: str | None = None,
    ) -> Subscription:
        """Return the messages of ``types``, or of all types, as an async iterator.

        Each item holds its sender's credit until the next one is asked for. Ends when the
        overlay stops.

        :param lossy: hold nobody's credit, but keep only so many unread messages, the newest;
            how many were dropped is ``lost`` of what is returned. 0 loses nothing.
        """
        return self._links.subscriptions.subscribe(
            *types, duplicates=duplicates, lossy=lossy, name=name
        )

    def on_peer_event(self, listener: PeerListener) -> Callable[[], None]:
        """Call ``listener`` with each :class:`PeerEvent`; return what ends that."""
        return self._links.events.add(listener)

    # Inside.

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
