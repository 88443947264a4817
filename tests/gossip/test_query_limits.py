"""How many questions of a peer are answered: row 50, Y19."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.query_limits import LIMITS, WINDOW_SECONDS, QueryLimits
from stellar_overlay.wire.message import MessageType

STATE = MessageType.GET_SCP_STATE


class QueryLimitsTests(SynchronousTestCase):
    """Tumbling windows, one per kind."""

    def setUp(self) -> None:
        self.limits = QueryLimits()

    def test_limits(self) -> None:
        """300, 300 and 10 per minute; what is more is refused."""
        for kind, most in {
            MessageType.GET_TX_SET: 300,
            MessageType.GET_SCP_QUORUMSET: 300,
            STATE: 10,
        }.items():
            allowed = [self.limits.allow(kind, 0.1 * number) for number in range(most + 5)]
            self.assertEqual(allowed, [True] * most + [False] * 5, kind)

    def test_the_window_restarts_at_the_first_question_after_it(self) -> None:
        """Connection.md 4.8: a window begins with a question, however late that is."""
        for _ in range(10):
            self.assertTrue(self.limits.allow(STATE, 100.0))
        self.assertFalse(self.limits.allow(STATE, 100.0 + WINDOW_SECONDS - 0.001))
        start = 100.0 + 3.5 * WINDOW_SECONDS
        for _ in range(10):
            self.assertTrue(self.limits.allow(STATE, start))
        self.assertFalse(self.limits.allow(STATE, start + WINDOW_SECONDS - 0.001))
        self.assertTrue(self.limits.allow(STATE, start + WINDOW_SECONDS))

    def test_what_is_refused_does_not_put_off_the_next_window(self) -> None:
        """Who never stops asking is answered again after a minute."""
        allowed = [self.limits.allow(STATE, float(now)) for now in range(120)]
        expected = [True] * 10 + [False] * 50
        self.assertEqual(allowed, 2 * expected)

    def test_kinds_are_counted_apart(self) -> None:
        """Who has used up one kind of question may ask another."""
        for kind, most in LIMITS.items():
            self.assertTrue(all(self.limits.allow(kind, 0.0) for _ in range(most)), kind)

    def test_peers_are_counted_apart(self) -> None:
        """What one has asked is nothing to another."""
        for _ in range(11):
            self.limits.allow(STATE, 0.0)
        self.assertTrue(QueryLimits().allow(STATE, 0.0))

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.floats(0, 70), max_size=60))
    def test_any_questions(self, pauses: Sequence[float]) -> None:
        """Ten in each window, the first ten; a window begins with a question that is answered."""
        limits, now = QueryLimits(), 0.0
        since, count = float("-inf"), 0
        for pause in pauses:
            now += pause
            if now - since >= WINDOW_SECONDS:
                since, count = now, 0
            count += 1
            self.assertIs(limits.allow(STATE, now), count <= 10)
