"""Which slot consensus has reached (DECISIONS 19a)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.tracking import (
    MAX_NODES_HEARD,
    MajorityTracking,
    QuorumTracking,
    Tracking,
)
from stellar_overlay.herder.window import MAX_SLOT
from stellar_overlay.wire.quorum_set import FlatQuorumSet
from tests.herder.kit import KEYS, a_hash, quorum_of


def note(tracking: Tracking, slot: int, *nodes: int, now: float = 0) -> int:
    """Let nodes, counted from 0, externalize a slot; return where that leads."""
    for node in nodes:
        tracking.note(KEYS[node], slot, now)
    return tracking.slot


class QuorumTrackingTests(SynchronousTestCase):
    def test_the_quorum_set_has_to_be_satisfied(self) -> None:
        """By statements about that very slot, not by each node's latest."""
        tracking = QuorumTracking(quorum_of(0, 1, 2, threshold=2))
        self.assertEqual(note(tracking, 10, 0), 0)
        self.assertEqual(note(tracking, 11, 1), 0)
        self.assertEqual(note(tracking, 10, 1), 10)
        self.assertEqual(note(tracking, 11, 2), 11)

    def test_inner_sets_count(self) -> None:
        """As in the quorum sets of public networks: organisations of several nodes."""
        inner = tuple(quorum_of(n, n + 1, n + 2, threshold=2) for n in (0, 3, 6))
        tracking = QuorumTracking(FlatQuorumSet(2, (), inner))
        self.assertEqual(note(tracking, 7, 0, 1, 2, 3, 6), 0)
        self.assertEqual(note(tracking, 7, 8), 7)

    def test_others_do_not_matter(self) -> None:
        """However many they are, and however often one repeats itself."""
        tracking = QuorumTracking(quorum_of(0, 1, threshold=2))
        self.assertEqual(note(tracking, 9, 3, 4, 5, 6, 7, 0, 0, 0), 0)

    def test_the_highest_slot_is_kept(self) -> None:
        """An older slot that is agreed upon later changes nothing."""
        tracking = QuorumTracking(quorum_of(0, 1))
        self.assertEqual(note(tracking, 20, 0, 1), 20)
        self.assertFalse(tracking.note(KEYS[0], 19, 1))
        self.assertFalse(tracking.note(KEYS[1], 19, 1))
        self.assertEqual(tracking.slot, 20)

    def test_slots_beyond_32_bits_are_ignored(self) -> None:
        """Even if all agree."""
        tracking = QuorumTracking(quorum_of(0))
        self.assertEqual(note(tracking, MAX_SLOT + 1, 0), 0)
        self.assertEqual(note(tracking, 0, 0), 0)
        self.assertEqual(note(tracking, MAX_SLOT, 0), MAX_SLOT)

    def test_one_member_cannot_make_us_forget_what_others_said(self) -> None:
        """Each node has room of its own, for the slots that it has named last."""
        tracking = QuorumTracking(quorum_of(0, 1, 2, threshold=2))
        note(tracking, 10, 0)
        for slot in range(1000, 3000):
            note(tracking, slot, 2)
        self.assertEqual(note(tracking, 10, 1), 10)

    def test_lost_means_only_that_it_is_not_fresh(self) -> None:
        """The slot stays: nothing below it can be news."""
        tracking = QuorumTracking(quorum_of(0))
        self.assertFalse(tracking.is_fresh(0))
        note(tracking, 5, 0, now=100)
        self.assertTrue(tracking.is_fresh(134.9))
        self.assertFalse(tracking.is_fresh(135))
        tracking.lose()
        self.assertFalse(tracking.is_fresh(100))
        self.assertEqual(tracking.slot, 5)


class MajorityTrackingTests(SynchronousTestCase):
    def test_two_thirds_rounded_up(self) -> None:
        """Of 4 nodes heard it takes 3; the first one heard is all there is."""
        tracking = MajorityTracking()
        self.assertEqual(note(tracking, 10, 0), 10)
        self.assertEqual(note(tracking, 10, 1, 2, 3), 10)
        self.assertEqual(note(tracking, 11, 0, 1), 10)
        self.assertEqual(note(tracking, 11, 2), 11)

    def test_who_is_further_on_has_reached_the_slot_as_well(self) -> None:
        """Nobody externalizes a slot without those before it."""
        tracking = MajorityTracking()
        note(tracking, 10, 0, 1, 2)
        note(tracking, 13, 0)
        self.assertEqual(note(tracking, 12, 1), 12)

    def test_nodes_count_for_60_seconds(self) -> None:
        """Who has fallen silent does not hold up the others for longer."""
        tracking = MajorityTracking()
        note(tracking, 10, 0, 1, 2, now=0)
        self.assertEqual(note(tracking, 11, 0, now=59.9), 10)
        self.assertEqual(note(tracking, 12, 0, now=60), 12)

    def test_at_most_100_slots_a_step(self) -> None:
        """The first step is of any size: 0 is where nothing is known."""
        tracking = MajorityTracking()
        self.assertEqual(note(tracking, 50_000, 0), 50_000)
        self.assertEqual(note(tracking, 60_000, 0), 50_100)
        self.assertEqual(note(tracking, 60_000, 0), 50_200)

    def test_it_starts_anew_when_lost(self) -> None:
        """Whatever was heard before: the network itself may have started anew."""
        tracking = MajorityTracking()
        note(tracking, 10_000, 0, 1, 2)
        tracking.lose()
        self.assertEqual(tracking.slot, 0)
        self.assertEqual(note(tracking, 3, 1, now=36), 3)

    def test_one_liar_among_three_moves_nothing(self) -> None:
        """Neither forwards nor back."""
        tracking = MajorityTracking()
        note(tracking, 10, 0, 1, 2)
        for slot in (11, 110, MAX_SLOT, 1):
            self.assertEqual(note(tracking, slot, 2), 10)
        self.assertEqual(note(tracking, 11, 0), 11)

    def test_slots_beyond_32_bits_are_ignored(self) -> None:
        """And so is who names them."""
        tracking = MajorityTracking()
        self.assertEqual(note(tracking, MAX_SLOT + 1, 0), 0)
        self.assertEqual(note(tracking, 7, 1), 7)

    def test_inventing_nodes_costs_bounded_memory(self) -> None:
        """Those that were silent for longest are forgotten, so in the end two thirds of the rest
        are enough, old news or not.
        """
        tracking = MajorityTracking()
        note(tracking, 10, 0)
        for number in range(2 * MAX_NODES_HEARD):
            tracking.note(a_hash(number), 5, 0)
        self.assertEqual(tracking.slot, 10)
        for number in range(MAX_NODES_HEARD * 2 // 3 + 1):
            tracking.note(a_hash(-number), 11, 0)
        self.assertEqual(tracking.slot, 11)

    @settings(derandomize=True, max_examples=100)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), min_size=1, max_size=60))
    def test_against_the_definition(self, said: list[tuple[int, int]]) -> None:
        """The highest slot that two thirds have reached, at any moment so far."""
        tracking = MajorityTracking()
        highest: dict[int, int] = {}
        best = 0
        for node, slot in said:
            highest[node] = max(slot, highest.get(node, 0))
            note(tracking, slot, node)
            for candidate in highest.values():
                reached = sum(one >= candidate for one in highest.values())
                if slot > best and 3 * reached >= 2 * len(highest):
                    best = max(best, candidate)
            self.assertEqual(tracking.slot, best)
