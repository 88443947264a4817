"""Whom a survey asks next."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.survey_turns import NOBODY, Turns


def all_of(turns: Turns, count: int = 1000) -> str:
    """Ask so many nodes, or all, and return them in order; names are of one letter here."""
    asked: list[str] = []
    while len(asked) < count and (node := turns.next()) is not None:
        turns.take(node)
        asked.append(node)
    return "".join(asked)


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns(1000)

    def test_in_turn(self) -> None:
        """Each reporter has a node asked, then the next one; who comes later joins in."""
        self.turns.name("1", "abcd")
        self.turns.name("2", "xy")
        self.assertEqual(all_of(self.turns, 3), "axb")
        self.turns.name("3", "pq")
        self.assertEqual(all_of(self.turns), "ycpdq")

    def test_first(self) -> None:
        """The nodes of the user and of the surveyor are asked before all, whenever they come."""
        self.turns.name("1", "abc")
        self.turns.name(NOBODY, "uv")
        self.assertEqual(all_of(self.turns, 3), "uva")
        self.turns.name(NOBODY, "w")
        self.assertEqual(all_of(self.turns), "wbc")

    def test_named_by_several(self) -> None:
        """A node is asked at the first turn that names it, and costs the other reporters none."""
        self.turns.name("1", "abcx")
        self.turns.name("2", "xay")
        self.assertEqual(all_of(self.turns), "axbyc")

    def test_named_again(self) -> None:
        """Naming the same nodes over and over changes nothing."""
        for _ in range(3):
            self.turns.name("1", "abc")
            self.turns.name("2", "xyz")
        self.assertEqual(all_of(self.turns, 2), "ax")
        self.turns.name("1", "abcd")
        self.assertEqual(all_of(self.turns), "byczd")
        self.assertEqual(self.turns.not_asked, 0)

    def test_next(self) -> None:
        """Who is next stays so until asked; who was asked out of turn is left out."""
        self.turns.name("1", "abc")
        self.turns.name("2", "xy")
        self.assertEqual((self.turns.next(), self.turns.next()), ("a", "a"))
        self.turns.take("b")
        self.assertNotIn("b", self.turns)
        self.assertEqual(all_of(self.turns), "axcy")

    def test_again(self) -> None:
        """Who has more to say has that at a turn of its own; the silent follow the unasked."""
        self.turns.name(NOBODY, "12")
        self.assertEqual(all_of(self.turns), "12")
        self.turns.name("1", "abc")
        self.turns.name("2", "xyz")
        self.turns.repeat("1", is_own=True)
        self.assertEqual(all_of(self.turns, 4), "1xay")
        for node in "ax":
            self.turns.repeat(node)
        self.assertIn("a", self.turns)
        self.assertEqual(self.turns.again_count, 2)
        self.assertEqual(all_of(self.turns), "bzcxa")

    def test_again_after_all(self) -> None:
        """Whose answer came meanwhile is not asked again."""
        self.turns.name("1", "a")
        self.assertEqual(all_of(self.turns), "a")
        self.turns.repeat("a")
        self.turns.drop_repeat("a")
        self.turns.drop_repeat("a")
        self.assertEqual((self.turns.next(), self.turns.again_count), (None, 0))

    def test_full(self) -> None:
        """When enough were asked, others are only counted; asking one again is possible."""
        self.turns = Turns(3)
        self.turns.name("1", "abc")
        self.turns.name("2", "xyb")
        self.assertEqual((self.turns.first_time_count, self.turns.not_asked), (3, 5))
        self.assertEqual(all_of(self.turns), "axb")
        self.turns.name("3", "pa")
        self.assertEqual((self.turns.first_time_count, self.turns.not_asked), (0, 3))
        self.assertNotIn("p", self.turns)
        self.turns.repeat("x")
        self.assertEqual(all_of(self.turns), "x")

    @settings(derandomize=True, max_examples=100)
    @given(
        st.lists(st.lists(st.integers(0, 60), max_size=40), min_size=1, max_size=6),
        st.integers(1, 80),
    )
    def test_any_names(self, named: list[list[int]], max_nodes: int) -> None:
        """All are asked once, or as many as may be; nobody waits behind another's crowd."""
        turns = Turns(max_nodes)
        for reporter, nodes in enumerate(named):
            turns.name(f"reporter {reporter}", map(str, nodes))
        asked = list(islice(iter(lambda: all_of(turns, 1) or None, None), 1000))
        every = {str(node) for nodes in named for node in nodes}
        self.assertEqual(len(asked), len({*asked}))
        self.assertEqual(len(asked), min(max_nodes, len(every)))
        self.assertEqual(turns.not_asked, len(every - {*asked}))
        for nodes in named:
            for place, node in enumerate(dict.fromkeys(nodes)):
                if str(node) in asked:
                    self.assertLess(asked.index(str(node)), (place + 1) * len(named))
