"""A brain that knows nothing: for tools, and for a node that only keeps company."""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import EnvelopeStatus, Overlay, ScpState, TxStatus
from stellar_overlay.wire.message import Message


class IgnoringHerder:
    """Answers nothing and remembers nothing.

    What peers tell is acknowledged, so that their credit comes back, and goes no further.

    :ivar lost_sync_count: how often consensus was lost: it is never followed.
    """

    lost_sync_count = 0

    def start(self, overlay: Overlay) -> None:
        """Need no overlay."""

    def stop(self) -> None:
        """Do nothing, as before."""

    # What peers tell.

    def recv_scp_envelope(
        self, body: bytes, from_peer: PeerId, done: Callable[[EnvelopeStatus], None]
    ) -> None:
        """Take no notice of it, but that it was heard: it is judged once."""
        done(EnvelopeStatus.PROCESSED)

    def recv_transaction(
        self, body: bytes, tx_hash: bytes, from_peer: PeerId, done: Callable[[TxStatus], None]
    ) -> None:
        """Take no notice of it, likewise."""
        done(TxStatus.DUPLICATE)

    def recv_quorum_set(self, item_hash: bytes, message: Message) -> None:
        """Have no use for it."""

    def recv_tx_set(self, item_hash: bytes, message: Message) -> None:
        """Have no use for it."""

    def note_own_envelope(self, message: Message) -> None:
        """Keep it for nobody."""

    # What peers ask.

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        """Know no quorum set."""
        return None

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Know no transaction set."""
        return None

    def get_tx(self, tx_hash: bytes) -> Message | None:
        """Know no transaction."""
        return None

    def is_banned_tx(self, tx_hash: bytes) -> bool:
        """Think no ill of any."""
        return False

    def get_scp_state(self, ledger_seq: int) -> ScpState:
        """Know no SCP message."""
        return ScpState()

    # Where it stands.

    def tracking_ledger(self) -> int:
        """Never know."""
        return 0

    def min_slot_to_remember(self) -> int:
        """Leave out no slot."""
        return 1

    def checkpoint_slot(self) -> int:
        """Keep none in particular."""
        return 0

    def scp_state_from(self) -> int:
        """Ask for the SCP messages of every slot that the peer knows."""
        return 1

    def is_tracking(self) -> bool:
        """Miss nothing."""
        return True
