"""Which slots are of use."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.window import MAX_SLOT, SlotWindow, checkpoint_of


class CheckpointTests(SynchronousTestCase):
    def test_checkpoints_are_those_of_core(self) -> None:
        """HistoryManager.h:270: 1..63, 64..127, and so on; there is none before ledger 1."""
        for ledger, first in ((0, 0), (1, 1), (63, 1), (64, 64), (127, 64), (128, 128)):
            self.assertEqual(checkpoint_of(ledger), first)


class SlotWindowTests(SynchronousTestCase):
    def test_all_slots_while_consensus_is_unknown(self) -> None:
        """DECISIONS 19a: open while tracking is 0, but never beyond 32 bits."""
        window = SlotWindow.around(0, 12, is_ahead_open=True)
        self.assertTrue(all(slot in window for slot in (1, 2, 10**9, MAX_SLOT)))
        self.assertTrue(all(slot not in window for slot in (0, MAX_SLOT + 1, 2**64 - 1)))

    def test_tracking_less_11_to_tracking_and_100(self) -> None:
        """And the first ledger of the checkpoint."""
        window = SlotWindow.around(1060, 12, is_ahead_open=False)
        for slot in (1049, 1060, 1160, 1024):
            self.assertIn(slot, window)
        for slot in (0, 1, 1023, 1025, 1048, 1161):
            self.assertNotIn(slot, window)

    def test_others_may_be_ahead_by_any_number_when_we_are_out_of_sync(self) -> None:
        """As in core when it is not tracking (messages.md 4.2); the past stays closed."""
        window = SlotWindow.around(1060, 12, is_ahead_open=True)
        self.assertIn(MAX_SLOT, window)
        self.assertNotIn(MAX_SLOT + 1, window)
        self.assertNotIn(1048, window)

    @settings(derandomize=True, max_examples=200)
    @given(st.integers(1, MAX_SLOT), st.integers(1, 50), st.booleans())
    def test_bounds(self, tracking: int, remembered: int, is_ahead_open: bool) -> None:
        """At most 64 bits, never below 1, and always with the tracking ledger in it."""
        window = SlotWindow.around(tracking, remembered, is_ahead_open=is_ahead_open)
        self.assertIn(tracking, window)
        self.assertEqual(window.lowest, max(1, tracking - remembered + 1))
        self.assertLessEqual(window.highest, MAX_SLOT)
        self.assertTrue(0 < window.checkpoint <= tracking < window.checkpoint + 64)
        self.assertNotIn(0, window)
