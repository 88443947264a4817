"""Which slots are of use, given the one that consensus has reached."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SLOT = 2**32 - 1
"""Ledgers are numbered with 32 bits; a slot is a 64-bit number, of which the rest is nonsense."""
SLOTS_AHEAD = 100
"""How far ahead of us others may be (core Herder.h, LEDGER_VALIDITY_BRACKET)."""
CHECKPOINT_LEDGERS = 64
"""How many ledgers history archives publish together (core HistoryManager.h)."""


def checkpoint_of(ledger: int) -> int:
    """Return the first ledger of the checkpoint that contains ``ledger``; 0 for 0.

    Checkpoints begin at 1, 64, 128 and so on (core HistoryManager.h:270). A node that catches up
    begins with that ledger, which is why its SCP messages are kept for longer than others.
    """
    return max(1, ledger - ledger % CHECKPOINT_LEDGERS) if ledger else 0


@dataclass(frozen=True, slots=True)
class SlotWindow:
    """The slots from ``lowest`` to ``highest``, and the ``checkpoint`` if it is not 0."""

    lowest: int = 1
    highest: int = MAX_SLOT
    checkpoint: int = 0

    @classmethod
    def around(cls, tracking: int, slots_to_remember: int, *, is_ahead_open: bool) -> SlotWindow:
        """Return the window of a tracking ledger; all slots when that is 0 (DECISIONS 19a).

        :param slots_to_remember: how many, the tracking ledger included.
        :param is_ahead_open: whether others may be ahead of us by any number.
        """
        if not tracking:
            return cls()
        return cls(
            lowest=max(1, tracking - slots_to_remember + 1),
            highest=MAX_SLOT if is_ahead_open else min(MAX_SLOT, tracking + SLOTS_AHEAD),
            checkpoint=checkpoint_of(tracking),
        )

    def __contains__(self, slot: int) -> bool:
        return self.lowest <= slot <= self.highest or slot == self.checkpoint != 0
