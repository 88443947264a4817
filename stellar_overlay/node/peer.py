"""An authenticated link as the rest of the node, and its users, see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import PeerViolation
from stellar_overlay.identity import PeerId
from stellar_overlay.node.connection import Connection
from stellar_overlay.session.flow_control import FlowControlStats
from stellar_overlay.session.outbox import MessagePriority
from stellar_overlay.wire.message import Hello, Message
from stellar_overlay.wire.survey_body import PeerCounters


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerInfo:
    """What is known of a connected peer.

    :ivar address: its IP address and the port that it says it listens on.
    :ivar direction: ``inbound`` or ``outbound``: who dialled.
    :ivar version_string: as its HELLO says, undecodable bytes escaped.
    :ivar connected_at: Unix time in seconds when it was authenticated.
    :ivar handshake_ms: from the TCP connection to that moment.
    :ivar connected_seconds: for how long it has been connected.
    :ivar latency_ms: the latest round trip; None before the first.
    :ivar is_preferred: whether it is one of ours to keep.
    :ivar async_reads: how often something was read from its transport; ``async_writes`` likewise.
    :ivar messages_dropped: how many messages for it were given up for want of its credit.
    :ivar unique_flood_messages_recv: what it flooded to us that nobody had of late;
        ``duplicate_flood_messages_recv``: what somebody had. Both also in bytes; of transaction
        sets and quorum sets: ``unique_fetch_messages_recv`` and so on.
    :ivar flow_control: where credit stands in both directions.
    """

    peer_id: PeerId
    address: ResolvedPeerAddress
    direction: str
    version_string: str
    overlay_version: int
    overlay_min_version: int
    ledger_version: int
    connected_at: float
    handshake_ms: float
    connected_seconds: float
    latency_ms: int | None
    is_preferred: bool
    messages_read: int
    messages_written: int
    bytes_read: int
    bytes_written: int
    async_reads: int
    async_writes: int
    messages_dropped: int
    unique_flood_messages_recv: int
    unique_flood_bytes_recv: int
    duplicate_flood_messages_recv: int
    duplicate_flood_bytes_recv: int
    unique_fetch_messages_recv: int
    unique_fetch_bytes_recv: int
    duplicate_fetch_messages_recv: int
    duplicate_fetch_bytes_recv: int
    flow_control: FlowControlStats


@dataclass(slots=True)
class ReceivedCounts:
    """What came from one peer: messages and bytes, heard for the first time and again."""

    unique: int = 0
    unique_bytes: int = 0
    duplicate: int = 0
    duplicate_bytes: int = 0

    def add(self, unique: int, unique_bytes: int, duplicate: int, duplicate_bytes: int) -> None:
        """Count a batch."""
        self.unique += unique
        self.unique_bytes += unique_bytes
        self.duplicate += duplicate
        self.duplicate_bytes += duplicate_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingPeer:
    """A link in its handshake.

    :ivar address: of its socket, or with the port that it says it listens on once it did.
    """

    address: ResolvedPeerAddress | None
    direction: str


class Peer:
    """An authenticated :class:`Connection`.

    :param wall_now: Unix time of its authentication.
    :param flood_bit: stands for it in what the flood gate remembers.
    :param is_preferred: tells whether a peer is one of ours to keep, at present.
    :ivar address: its IP address, and the port that it says it listens on.
    :ivar flood: what it flooded to us; ``fetched``: the transaction sets and quorum sets.
    :ivar ahead: how many messages and bytes were read after the one being handled.
    """

    __slots__ = (
        "_is_preferred",
        "_since",
        "_wall_since",
        "address",
        "ahead",
        "connection",
        "fetched",
        "flood",
        "flood_bit",
        "peer_id",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        wall_now: float,
        now: float,
        flood_bit: int = 0,
        is_preferred: Callable[[Connection], bool] = lambda link: False,
    ) -> None:
        peer_id = connection.session.auth.peer_id
        assert peer_id is not None
        assert connection.remote is not None
        self.connection = connection
        self.peer_id = peer_id
        self.address = ResolvedPeerAddress(connection.remote.host, self.hello.listening_port)
        self.flood_bit = flood_bit
        self.flood = ReceivedCounts()
        self.fetched = ReceivedCounts()
        self.ahead = 0, 0
        self._since = now
        self._wall_since = wall_now
        self._is_preferred = is_preferred

    @property
    def hello(self) -> Hello:
        """What it said of itself."""
        hello = self.connection.session.auth.remote
        assert hello is not None
        return hello

    @property
    def direction(self) -> str:
        """Who dialled: ``inbound`` or ``outbound``."""
        return self.connection.direction

    @property
    def is_inbound(self) -> bool:
        """Whether it dialled us."""
        return not self.connection.we_called_remote

    @property
    def version_string(self) -> bytes:
        """As its HELLO says: up to 100 bytes from the network."""
        return self.hello.version_string

    @property
    def linked_at(self) -> float:
        """When the TCP connection was made, in seconds of the injected clock."""
        return self.connection.session.clocks.connected_at

    @property
    def ping_ms(self) -> int | None:
        """The latest round trip in milliseconds; None before the first."""
        return self.connection.session.clocks.ping_ms

    @property
    def last_read(self) -> float:
        """When it was last heard, in seconds of the injected clock."""
        return self.connection.last_read

    @property
    def flow_control(self) -> FlowControlStats:
        """Where credit stands in both directions."""
        return self.connection.session.flow_control.get_stats()

    def info(self, now: float) -> PeerInfo:
        """Return what is known of the peer at a moment."""
        link, hello = self.connection, self.hello
        return PeerInfo(
            peer_id=self.peer_id,
            address=self.address,
            direction=self.direction,
            version_string=hello.version_string.decode(errors="backslashreplace"),
            overlay_version=hello.overlay_version,
            overlay_min_version=hello.overlay_min_version,
            ledger_version=hello.ledger_version,
            connected_at=self._wall_since,
            handshake_ms=(self._since - self.linked_at) * 1000,
            connected_seconds=now - self._since,
            latency_ms=self.ping_ms,
            is_preferred=self._is_preferred(link),
            async_reads=link.async_reads,
            async_writes=link.async_writes,
            messages_dropped=sum(map(link.session.outbox.dropped, MessagePriority)),
            **self.counters()._asdict(),
            flow_control=self.flow_control,
        )

    def counters(self) -> PeerCounters:
        """Return what surveys tell of the link; each of them only ever grows."""
        link, flood, fetched = self.connection, self.flood, self.fetched
        return PeerCounters(
            messages_read=link.messages_read - self.ahead[0],
            messages_written=link.messages_written,
            bytes_read=link.bytes_read - self.ahead[1],
            bytes_written=link.bytes_written,
            unique_flood_bytes_recv=flood.unique_bytes,
            duplicate_flood_bytes_recv=flood.duplicate_bytes,
            unique_fetch_bytes_recv=fetched.unique_bytes,
            duplicate_fetch_bytes_recv=fetched.duplicate_bytes,
            unique_flood_messages_recv=flood.unique,
            duplicate_flood_messages_recv=flood.duplicate,
            unique_fetch_messages_recv=fetched.unique,
            duplicate_fetch_messages_recv=fetched.duplicate,
        )

    def watch_latency(self, callback: Callable[[int], None] | None) -> None:
        """Call ``callback`` with each round trip in milliseconds from now on; None ends that."""
        self.connection.session.clocks.on_round_trip = callback

    def send(self, message: Message) -> bool:
        """Queue a message for the end of the turn; False when the peer will not get it.

        :raises ValueError: for what only the protocol itself may send.
        """
        return self.connection.send(message)

    def drop(self, violation: PeerViolation) -> None:
        """End the link."""
        self.connection.drop(violation)

    def __repr__(self) -> str:
        return f"<Peer {self.peer_id.short} {self.direction} {self.address}>"
