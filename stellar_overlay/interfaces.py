"""The ports: what one room may use of another without importing it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stellar_overlay.wire.message import Hello, PeerEntry


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
