"""A sample of what was measured of late: messages.md 5.6, percentiles as core's."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import inf, nan
from statistics import median, quantiles

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.sliding_sample import (
    MAX_U32,
    MAX_VALUES,
    WINDOW_SECONDS,
    SlidingSample,
    clamped_u32,
)


def sample_of(*values: float) -> SlidingSample:
    """Return a sample of values that were all measured at once."""
    sample = SlidingSample()
    for value in values:
        sample.add(value, 0.0)
    return sample


class PercentileTests(SynchronousTestCase):
    """R7: linear between the two nearest values."""

    def test_nothing(self) -> None:
        """Every percentile of nothing is 0."""
        self.assertEqual([SlidingSample().percentile(q) for q in (0, 0.5, 0.75, 1)], [0.0] * 4)

    def test_one_value(self) -> None:
        """It is every percentile of itself."""
        self.assertEqual([sample_of(7).percentile(q) for q in (0, 0.5, 0.75, 1)], [7.0] * 4)

    def test_known_percentiles(self) -> None:
        """What R's quantile() says by default; the order of arrival does not matter."""
        sample = sample_of(40, 10, 30, 20)
        self.assertEqual(sample.percentile(0.5), 25)
        self.assertEqual(sample.percentile(0.75), 32.5)
        self.assertEqual([sample.percentile(0), sample.percentile(1)], [10, 40])
        self.assertEqual(sample_of(1, 2, 3, 4, 100).percentile(0.75), 4)

    def test_no_quantile(self) -> None:
        """A quantile is from 0 to 1."""
        for quantile in (-0.01, 1.01, 75, nan):
            with self.assertRaises(ValueError):
                sample_of(1).percentile(quantile)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 2**32), min_size=2, max_size=60))
    def test_as_others_reckon(self, values: list[int]) -> None:
        """The standard library's inclusive method is the same one."""
        sample = sample_of(*values)
        self.assertEqual(sample.percentile(0.5), median(values))
        self.assertAlmostEqual(
            sample.percentile(0.75), quantiles(values, n=4, method="inclusive")[2], places=3
        )

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(0, 100))
    def test_by_exact_fractions(self, values: list[int], percent: int) -> None:
        """Any percentile lies on the line through the sorted values, drawn without rounding."""
        ordered = sorted(values)
        place = Fraction(percent, 100) * (len(values) - 1)
        below = int(place)
        above = min(below + 1, len(values) - 1)
        exact = ordered[below] + (place - below) * (ordered[above] - ordered[below])
        percentile = sample_of(*values).percentile(percent / 100)
        self.assertAlmostEqual(percentile, float(exact), places=3)


class WindowTests(SynchronousTestCase):
    """What is still in the sample."""

    def test_what_is_older_than_the_window_goes(self) -> None:
        """Five minutes before the newest value are in, a moment more is not."""
        sample = SlidingSample()
        sample.add(1, 10.0)
        sample.add(2, 10.5)
        sample.add(3, 10.0 + WINDOW_SECONDS)
        self.assertEqual(len(sample), 3)
        sample.add(4, 10.4 + WINDOW_SECONDS)
        self.assertEqual([len(sample), sample.percentile(0)], [3, 2])

    def test_the_newest_value_counts_not_the_present(self) -> None:
        """Nothing gets old while nothing is measured; then it goes all at once."""
        sample = sample_of(1, 2, 3)
        self.assertEqual(sample.percentile(0.5), 2)
        sample.add(9, 1e6)
        self.assertEqual([len(sample), sample.percentile(0.5)], [1, 9])

    def test_the_number_of_values_is_bounded(self) -> None:
        """The oldest make room."""
        sample = sample_of(*range(MAX_VALUES + 100))
        self.assertEqual(len(sample), MAX_VALUES)
        self.assertEqual([sample.percentile(0), sample.percentile(1)], [100, MAX_VALUES + 99])

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.floats(0, 200), min_size=1, max_size=40))
    def test_any_pauses(self, pauses: Sequence[float]) -> None:
        """What is left are the values of the last five minutes, whenever they were taken."""
        sample, now = SlidingSample(), 0.0
        times = []
        for pause in pauses:
            now += pause
            times.append(now)
            sample.add(now, now)
        left = [time for time in times if time >= now - WINDOW_SECONDS]
        self.assertEqual(len(sample), len(left))
        self.assertEqual([sample.percentile(0), sample.percentile(1)], [left[0], now])


class ClampTests(SynchronousTestCase):
    """How a measured number becomes one of the wire."""

    def test_clamping(self) -> None:
        """Cut to a whole number of 32 bits; no number at all is the greatest (core numeric.cpp)."""
        for number, clamped in {
            0.0: 0,
            -1.5: 0,
            -inf: 0,
            0.999: 0,
            28.5: 28,
            MAX_U32 - 0.5: MAX_U32 - 1,
            float(MAX_U32): MAX_U32,
            1e300: MAX_U32,
            inf: MAX_U32,
            nan: MAX_U32,
        }.items():
            self.assertEqual(clamped_u32(number), clamped, number)
            self.assertIs(type(clamped_u32(number)), int)
