"""Which items are asked for, and who may have us ask for more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.wanted import (
    MAX_PER_SIGNER,
    MAX_PER_SIGNER_AND_SLOT,
    MAX_WANTED,
    MAX_WANTED_BY_OTHERS,
    WantedItems,
)
from stellar_overlay.herder.window import MAX_SLOT, SlotWindow
from tests.herder.kit import a_hash

SIGNER, OTHER = a_hash("signer"), a_hash("other")


def add(
    wanted: WantedItems, name: object, slot: int = 1, signer: bytes = SIGNER, *, own: bool = True
) -> bool:
    """Let a signer name an item."""
    return wanted.add(a_hash(name), slot, signer, is_configured=own)


class WantedItemsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wanted = WantedItems()

    def test_each_item_is_asked_for_once(self) -> None:
        """By each of the first two who name it; and again when it has come and was lost."""
        self.assertTrue(add(self.wanted, 1))
        self.assertFalse(add(self.wanted, 1))
        self.assertTrue(add(self.wanted, 1, signer=OTHER))
        self.assertFalse(add(self.wanted, 1, signer=OTHER))
        self.assertFalse(add(self.wanted, 1, signer=bytes(32)))
        self.wanted.discard(a_hash(1))
        self.assertEqual(len(self.wanted), 0)
        self.assertTrue(add(self.wanted, 1))

    def test_a_later_slot_asks_again(self) -> None:
        """So that it is not given up together with an old slot that somebody named first."""
        add(self.wanted, 1, slot=5)
        self.assertTrue(add(self.wanted, 1, slot=9, signer=OTHER))
        self.assertFalse(add(self.wanted, 1, slot=8, signer=OTHER))
        self.wanted.keep_only(SlotWindow(9))
        self.assertFalse(add(self.wanted, 1, slot=9, signer=OTHER))

    def test_other_slots_are_forgotten_but_for_the_checkpoint(self) -> None:
        """As fetching does, so that both agree on what is under way."""
        for slot in range(1, 8):
            add(self.wanted, slot, slot)
        self.wanted.keep_only(SlotWindow(4, 6, 2))
        self.assertEqual(len(self.wanted), 4)
        for slot in (1, 3, 7):
            self.assertTrue(add(self.wanted, slot, 4))
        for slot in (2, 4, 5, 6):
            self.assertFalse(add(self.wanted, slot, slot))

    def test_a_far_slot_ends_no_search(self) -> None:
        """Who names an item for a slot that is never reached does not have it asked for last."""
        self.assertTrue(add(self.wanted, 1, slot=MAX_SLOT))
        self.assertTrue(add(self.wanted, 1, slot=5, signer=OTHER))
        self.assertFalse(add(self.wanted, 1, slot=6, signer=OTHER))
        self.wanted.keep_only(SlotWindow.around(5, 12, is_ahead_open=False))
        self.assertEqual(len(self.wanted), 0)
        self.assertTrue(add(self.wanted, 1, slot=6, signer=OTHER))
        self.wanted.keep_only(SlotWindow.around(6, 12, is_ahead_open=True))
        self.assertFalse(add(self.wanted, 1, slot=6, signer=OTHER))

    def test_a_second_signer_counts_on_nobody_s_account(self) -> None:
        """The first pays, however many name it."""
        for number in range(MAX_PER_SIGNER_AND_SLOT):
            add(self.wanted, number)
            self.assertTrue(add(self.wanted, number, signer=OTHER))
        self.assertFalse(add(self.wanted, "one more"))
        asked = [add(self.wanted, -1 - n, signer=OTHER) for n in range(MAX_PER_SIGNER_AND_SLOT)]
        self.assertTrue(all(asked))
        self.assertEqual(len(self.wanted), 2 * MAX_PER_SIGNER_AND_SLOT)

    def test_a_signer_who_invents_hashes_is_stopped(self) -> None:
        """At so many of one slot, and so many of all; others go on as before."""
        asked = [add(self.wanted, number) for number in range(50)]
        self.assertEqual(sum(asked), MAX_PER_SIGNER_AND_SLOT)
        asked += [add(self.wanted, (slot, n), slot) for slot in range(2, 100) for n in range(9)]
        self.assertEqual(sum(asked), MAX_PER_SIGNER)
        self.assertTrue(add(self.wanted, "honest", signer=OTHER))

    def test_what_was_refused_may_be_asked_for_when_there_is_room(self) -> None:
        """Nothing remembers that it was refused."""
        for number in range(MAX_PER_SIGNER_AND_SLOT):
            add(self.wanted, number)
        self.assertFalse(add(self.wanted, "late"))
        self.wanted.discard(a_hash(0))
        self.assertTrue(add(self.wanted, "late"))

    def test_nodes_that_we_do_not_know_ourselves_leave_room_for_those_that_we_do(self) -> None:
        """However many signers there are, half of all is left to the configured ones."""
        for number in range(MAX_WANTED):
            add(self.wanted, number, signer=a_hash((number, "signer")), own=False)
        self.assertEqual(len(self.wanted), MAX_WANTED_BY_OTHERS)
        for number in range(MAX_WANTED):
            add(self.wanted, -1 - number, signer=a_hash((number, "configured")))
        self.assertEqual(len(self.wanted), MAX_WANTED)

    @settings(derandomize=True, max_examples=100)
    @given(
        st.lists(
            st.tuples(st.sampled_from("aaadc"), st.integers(0, 30), st.integers(1, 6)), max_size=80
        )
    )
    def test_accounts_are_settled(self, steps: list[tuple[str, int, int]]) -> None:
        """Whatever is named, comes or grows old: when all is gone, there is room for all again."""
        wanted = WantedItems()
        for what, number, slot in steps:
            if what == "a":
                add(wanted, number, slot, signer=a_hash(number % 2), own=number % 3 == 0)
            elif what == "d":
                wanted.discard(a_hash(number))
            else:
                wanted.keep_only(SlotWindow(slot, slot + number % 3, 2))
        wanted.keep_only(SlotWindow(99))
        self.assertEqual(len(wanted), 0)
        for signer in (0, 1):
            asked = [add(wanted, (n, signer), 1, a_hash(signer), own=False) for n in range(9)]
            self.assertEqual(sum(asked), MAX_PER_SIGNER_AND_SLOT)
