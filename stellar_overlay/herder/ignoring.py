"""A brain that knows nothing: for tools, and for a node that only keeps company."""

from __future__ import annotations

from stellar_overlay.wire.message import Message


class IgnoringHerder:
    """Answers nothing and remembers nothing."""

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        """Know no quorum set."""
        return None

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Know no transaction set."""
        return None

    def scp_state_from(self) -> int:
        """Ask for the SCP messages of every slot that the peer knows."""
        return 1

    def is_tracking(self) -> bool:
        """Miss nothing."""
        return True
