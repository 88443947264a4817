"""What the node decides about each link while it shakes hands: the Gate of its sessions."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.gossip.admission import Admission
from stellar_overlay.gossip.peer_exchange import PeerExchange
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Herder
from stellar_overlay.node.connection import Connection
from stellar_overlay.store.ban_manager import BanManager
from stellar_overlay.store.peer_manager import BackOffUpdate, PeerManager, StoredPeerType
from stellar_overlay.wire.message import Hello, PeerEntry


class Door:
    """What the decisions rest on, for all links of a node."""

    def __init__(
        self,
        admission: Admission,
        bans: BanManager,
        book: PeerManager,
        exchange: PeerExchange,
        herder: Herder,
        clock: IReactorTime,
    ) -> None:
        self.admission = admission
        self.bans = bans
        self.book = book
        self.exchange = exchange
        self.herder = herder
        self.clock = clock

    def gate_of(self, link: Connection) -> LinkGate:
        """Return the gate of one link."""
        return LinkGate(link, self)


class LinkGate:
    """The decisions about one link.

    Nothing is written down before its key is proven, over this link or, for a promotion, over
    another one.
    """

    __slots__ = ("_door", "_link")

    def __init__(self, link: Connection, door: Door) -> None:
        self._link = link
        self._door = door

    def check_node(self, hello: Hello) -> None:
        if self._link.remote is None:
            raise DropReason.NO_REMOTE_ADDRESS.violation()
        self._check_ban(hello)

    def check_hello(self, hello: Hello) -> None:
        peer_id = PeerId(hello.node_key)
        try:
            self._door.admission.check_hello(peer_id, self._door.clock.seconds())
        except PeerViolation:
            self._note_promotion(peer_id)
            raise

    def settle_duplicate(self, hello: Hello) -> None:
        door, address = self._door, self._address(hello)
        observed = StoredPeerType.INBOUND
        if address in door.admission.preferred_addresses:
            observed = StoredPeerType.PREFERRED
        elif self._link.we_called_remote:
            observed = StoredPeerType.OUTBOUND
        door.book.update_type(address, observed, preferred_known=True)
        door.admission.settle_duplicate(self._link, PeerId(hello.node_key), door.clock.seconds())

    def peers_to_send(self) -> Sequence[PeerEntry]:
        hello = self._link.session.auth.remote
        assert hello is not None
        return self._door.exchange.to_send(self._address(hello))

    def admit(self, hello: Hello) -> None:
        self._check_ban(hello)  # that the operator may have spoken since HELLO
        address = self._address(hello)
        if self._link.we_called_remote:
            self._door.book.update_backoff(address, BackOffUpdate.RESET)
        self._door.admission.admit(self._link, PeerId(hello.node_key), address)

    def scp_state_from(self) -> int:
        return self._door.herder.scp_state_from()

    def _check_ban(self, hello: Hello) -> None:
        if self._door.bans.is_banned(PeerId(hello.node_key).strkey):
            raise DropReason.BANNED.violation()

    def _address(self, hello: Hello) -> ResolvedPeerAddress:
        """Return where the node can be dialled: where we did, or else where it says it listens."""
        remote = self._link.remote
        assert remote is not None
        if self._link.we_called_remote:
            return remote
        return ResolvedPeerAddress(remote.host, hello.listening_port)

    def _note_promotion(self, peer_id: PeerId) -> None:
        """Note that a peer that dialled us answers where it says that it listens.

        Its key is proven over the link that there is; this one was dialled to find out
        (connection.md 8.7, "promotion").
        """
        remote, other = self._link.remote, self._door.admission.authenticated.get(peer_id)
        if not self._link.we_called_remote or remote is None or not isinstance(other, Connection):
            return
        hello = other.session.auth.remote
        if hello is None or other.remote is None:
            return
        if (other.remote.host, hello.listening_port) == (remote.host, remote.port):
            self._door.book.update_type(remote, StoredPeerType.OUTBOUND, preferred_known=True)
