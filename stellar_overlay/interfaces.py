"""The ports: what one room may use of another without importing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.message import Hello, Message, PeerEntry


class Gate(Protocol):
    """What a node decides about one link while it shakes hands.

    Asked in core's order of checks. Each ``check_`` and ``settle_`` raises
    :exc:`~stellar_overlay.error.PeerViolation` to end the link.
    """

    def check_node(self, hello: Hello) -> None:
        """Refuse a banned node, or a link whose remote address cannot be told."""
        ...

    def check_hello(self, hello: Hello) -> None:
        """Refuse a node that we are connected to already."""
        ...

    def settle_duplicate(self, hello: Hello) -> None:
        """Decide between this link and another one to the same node, now that its key is proven."""
        ...

    def peers_to_send(self) -> Sequence[PeerEntry]:
        """Return the addresses that an acceptor shares with who dialled it; may be empty."""
        ...

    def admit(self, hello: Hello) -> None:
        """Take the peer among the authenticated ones, or refuse it for want of a slot."""
        ...

    def scp_state_from(self) -> int:
        """Return the slot from which on we ask the peer for SCP messages."""
        ...


class AddressBook(Protocol):
    """What gossip may use of the table of peers."""

    def ensure_exists(self, address: ResolvedPeerAddress) -> bool:
        """Remember an address that was heard of, if there is room; tell whether it is known."""
        ...

    def get_peers_to_send(
        self, size: int, accept: Callable[[ResolvedPeerAddress], bool]
    ) -> list[ResolvedPeerAddress]:
        """Return up to ``size`` accepted addresses to share, at random.

        Those come first at which somebody has answered us.
        """
        ...


class PeerSource(Protocol):
    """Addresses of one type that are due to be dialled."""

    def get_random_peers(
        self, count: int, accept: Callable[[ResolvedPeerAddress], bool]
    ) -> list[ResolvedPeerAddress]:
        """Return up to ``count`` accepted addresses, at random."""
        ...


class Link(Protocol):
    """What gossip may use of an authenticated peer."""

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""
        ...

    @property
    def address(self) -> ResolvedPeerAddress:
        """Its IP address, and the port that it says it listens on."""
        ...

    def send(self, message: Message) -> bool:
        """Queue a message; False when the peer will not get it."""
        ...


class Herder(Protocol):
    """What a node's brain must answer: what a validator's ledger would know."""

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        """Return the SCP_QUORUMSET with that SHA-256, if it is known."""
        ...

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Return the TX_SET or GENERALIZED_TX_SET with that hash, if it is known."""
        ...

    def scp_state_from(self) -> int:
        """Return the slot from which on a new peer is asked for SCP messages."""
        ...

    def is_tracking(self) -> bool:
        """Tell whether the node follows consensus; out of sync, it tries other peers."""
        ...
