"""Which messages came of late: messages.md 6.4."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.recent import FETCHED, FLOODED, MAX_RECENT, RecentMessages
from stellar_overlay.wire.message import MessageType


def body(number: int) -> bytes:
    """Return a message, by its number."""
    return b"message %d" % number


class KindTests(SynchronousTestCase):
    """What counts as what."""

    def test_flooded(self) -> None:
        """Eight types."""
        self.assertEqual(
            {MessageType(kind).name for kind in FLOODED},
            {
                "SCP_MESSAGE",
                "TRANSACTION",
                "FLOOD_ADVERT",
                "FLOOD_DEMAND",
                "TIME_SLICED_SURVEY_REQUEST",
                "TIME_SLICED_SURVEY_RESPONSE",
                "TIME_SLICED_SURVEY_START_COLLECTING",
                "TIME_SLICED_SURVEY_STOP_COLLECTING",
            },
        )

    def test_fetched(self) -> None:
        """Three types."""
        self.assertEqual(
            {MessageType(kind).name for kind in FETCHED},
            {"TX_SET", "GENERALIZED_TX_SET", "SCP_QUORUMSET"},
        )

    def test_none_is_both(self) -> None:
        """And the others are neither."""
        self.assertFalse(FLOODED & FETCHED)
        self.assertLess(len(FLOODED | FETCHED), len(MessageType))


class RecentTests(SynchronousTestCase):
    """What is remembered, and for how long."""

    def test_new_once(self) -> None:
        """By its very bytes."""
        recent = RecentMessages()
        said = [recent.note(one) for one in (b"a", b"a", b"b", b"a", b"b", b"a\0")]
        self.assertEqual(said, [True, False, True, False, False, True])

    def test_the_last_32767(self) -> None:
        """Are remembered in any case; of what is older than 65,535, nothing."""
        recent = RecentMessages()
        for number in range(MAX_RECENT):
            self.assertTrue(recent.note(body(number)))
        kept = range(MAX_RECENT - 32_767, MAX_RECENT)
        self.assertFalse(any(recent.note(body(number)) for number in kept))
        for number in range(MAX_RECENT, 2 * MAX_RECENT):
            recent.note(body(number))
        self.assertTrue(all(recent.note(body(number)) for number in range(100)))

    def test_as_few_as_one(self) -> None:
        """The smallest memory still knows what came last."""
        for size in (0, 1, 2, 3):
            recent = RecentMessages(size)
            self.assertEqual([recent.note(one) for one in (b"a", b"a", b"b", b"b")], [1, 0, 1, 0])

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.integers(2, 12), st.lists(st.integers(0, 15), max_size=80))
    def test_any_messages(self, size: int, numbers: Sequence[int]) -> None:
        """Half as many different ones are remembered as there may be; never more than that."""
        recent = RecentMessages(size)
        noted: list[int] = []  # those that were new, in order
        for number in numbers:
            is_new = recent.note(body(number))
            if number in noted[-(size // 2) :]:
                self.assertFalse(is_new)
            if number not in noted[-size:]:
                self.assertTrue(is_new)
            if is_new:
                noted.append(number)
