"""An authenticated link as the rest of the node, and its users, see it."""

from __future__ import annotations

from dataclasses import dataclass

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import PeerViolation
from stellar_overlay.identity import PeerId
from stellar_overlay.node.connection import Connection
from stellar_overlay.session.flow_control import FlowControlStats
from stellar_overlay.wire.message import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerInfo:
    """What is known of a connected peer.

    :ivar address: its IP address and the port that it says it listens on.
    :ivar direction: ``inbound`` or ``outbound``: who dialled.
    :ivar version_string: as its HELLO says, undecodable bytes escaped.
    :ivar connected_at: Unix time in seconds when it was authenticated.
    :ivar handshake_ms: from the TCP connection to that moment.
    """

    peer_id: PeerId
    address: PeerAddress
    direction: str
    version_string: str
    overlay_version: int
    overlay_min_version: int
    ledger_version: int
    connected_at: float
    handshake_ms: float


class Peer:
    """An authenticated :class:`Connection`.

    :param wall_now: Unix time of its authentication.
    """

    __slots__ = ("connection", "info", "peer_id")

    def __init__(self, connection: Connection, *, wall_now: float, now: float) -> None:
        hello, peer_id = connection.session.auth.remote, connection.session.auth.peer_id
        assert hello is not None
        assert peer_id is not None
        assert connection.remote is not None
        self.connection = connection
        self.peer_id = peer_id
        self.info = PeerInfo(
            peer_id=peer_id,
            address=ResolvedPeerAddress(connection.remote.host, hello.listening_port),
            direction="outbound" if connection.we_called_remote else "inbound",
            version_string=hello.version_string.decode(errors="backslashreplace"),
            overlay_version=hello.overlay_version,
            overlay_min_version=hello.overlay_min_version,
            ledger_version=hello.ledger_version,
            connected_at=wall_now,
            handshake_ms=(now - connection.session.clocks.connected_at) * 1000,
        )

    @property
    def ping_ms(self) -> int | None:
        """The latest round trip in milliseconds; None before the first."""
        return self.connection.session.clocks.ping_ms

    @property
    def flow_control(self) -> FlowControlStats:
        """Where credit stands in both directions."""
        return self.connection.session.flow_control.get_stats()

    def is_at(self, address: PeerAddress) -> bool:
        """Tell whether the peer has this IP address and listens on this port."""
        return (self.info.address.host, self.info.address.port) == (address.host, address.port)

    def send(self, message: Message) -> bool:
        """Queue a message for the end of the turn; False when the peer will not get it.

        :raises ValueError: for what only the protocol itself may send.
        """
        return self.connection.send(message)

    def drop(self, violation: PeerViolation) -> None:
        """End the link."""
        self.connection.drop(violation)

    def __repr__(self) -> str:
        return f"<Peer {self.peer_id.short} {self.info.direction} {self.info.address}>"
