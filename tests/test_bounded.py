"""A map that never grows beyond what it was allowed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.bounded import BoundedDict


class BoundedDictTests(SynchronousTestCase):
    def test_the_oldest_goes_first(self) -> None:
        """Whoever came when there was no room makes room for itself."""
        pool: BoundedDict[str, int] = BoundedDict(2)
        for number, key in enumerate("abc"):
            pool.put(key, number)
        self.assertEqual((list(pool), len(pool), pool.evicted), (["b", "c"], 2, 1))
        self.assertEqual([pool.get(key) for key in "abc"], [None, 1, 2])
        self.assertNotIn("a", pool)
        self.assertIn("b", pool)

    def test_being_read_makes_nothing_younger(self) -> None:
        """First in, first out, whatever was asked for in between."""
        pool: BoundedDict[str, int] = BoundedDict(2)
        pool.put("a", 0)
        pool.put("b", 1)
        self.assertEqual(pool.get("a"), 0)
        pool.put("c", 2)
        self.assertEqual(list(pool), ["b", "c"])

    def test_what_is_put_again_is_young_again(self) -> None:
        """It is there once, with its new value and weight, and nothing was evicted for it."""
        pool: BoundedDict[str, int] = BoundedDict(2, 10)
        pool.put("a", 0, 4)
        pool.put("b", 1, 4)
        pool.put("a", 2, 6)
        self.assertEqual((list(pool), pool.get("a")), (["b", "a"], 2))
        self.assertEqual((pool.weight, pool.evicted), (10, 0))
        pool.put("c", 3, 1)
        self.assertEqual((list(pool), pool.weight, pool.evicted), (["a", "c"], 7, 1))

    def test_weight(self) -> None:
        """As many of the oldest go as the weight of the newest asks for; just enough stay."""
        pool: BoundedDict[str, None] = BoundedDict(100, 10)
        for key in "abcde":
            pool.put(key, None, 2)
        self.assertEqual((len(pool), pool.weight), (5, 10))
        pool.put("f", None, 5)
        self.assertEqual((list(pool), pool.weight, pool.evicted), (["d", "e", "f"], 9, 3))

    def test_what_is_too_heavy_alone(self) -> None:
        """It is not kept, and costs nobody else its place; but what it replaces is gone."""
        pool: BoundedDict[str, int] = BoundedDict(100, 10)
        pool.put("a", 0, 5)
        pool.put("b", 1, 5)
        pool.put("c", 2, 11)
        self.assertEqual((list(pool), pool.weight, pool.evicted), (["a", "b"], 10, 0))
        pool.put("a", 3, 11)
        self.assertEqual((list(pool), pool.weight, pool.evicted), (["b"], 5, 0))
        pool.put("d", 4, 10)
        self.assertEqual((list(pool), pool.weight, pool.evicted), (["d"], 10, 1))

    def test_pop(self) -> None:
        """What is taken out is no eviction, and its weight goes with it."""
        pool: BoundedDict[str, int] = BoundedDict(100, 10)
        pool.put("a", 7, 5)
        self.assertEqual((pool.pop("a"), pool.pop("a"), pool.pop("b")), (7, None, None))
        self.assertEqual((len(pool), pool.weight, pool.evicted), (0, 0, 0))

    def test_clear(self) -> None:
        """Nothing is left, and there is room for as much as at first."""
        pool: BoundedDict[int, int] = BoundedDict(3, 30)
        for number in range(5):
            pool.put(number, number, 10)
        pool.clear()
        self.assertEqual((list(pool), len(pool), pool.weight), ([], 0, 0))
        for number in range(3):
            pool.put(number, number, 10)
        self.assertEqual(list(pool), [0, 1, 2])

    def test_no_room_at_all(self) -> None:
        """A limit of nothing keeps nothing."""
        pool: BoundedDict[str, int] = BoundedDict(0)
        pool.put("a", 0)
        self.assertEqual((list(pool), pool.weight), ([], 0))

    @settings(derandomize=True, max_examples=200)
    @given(
        st.integers(0, 5),
        st.one_of(st.none(), st.integers(0, 12)),
        st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 9)), max_size=60),
    )
    def test_any_story(
        self, entries: int, most: int | None, story: list[tuple[bool, int, int]]
    ) -> None:
        """It is what a plain list of the youngest would be, and within its limits at all times."""
        pool: BoundedDict[int, int] = BoundedDict(entries, most)
        model: list[tuple[int, int]] = []
        for number, (is_put, key, weight) in enumerate(story):
            model = [entry for entry in model if entry[0] != key]
            if not is_put:
                pool.pop(key)
            else:
                pool.put(key, number, weight)
                if most is None or weight <= most:
                    model.append((key, weight))
            while len(model) > entries or (most is not None and sum(w for _, w in model) > most):
                del model[0]
            self.assertEqual(list(pool), [key for key, _ in model])
            self.assertEqual((len(pool), pool.weight), (len(model), sum(w for _, w in model)))
