"""A sample of what was measured of late, and its percentiles."""

from __future__ import annotations

from collections import deque
from math import floor, isnan

WINDOW_SECONDS = 300
"""How much older than the newest value another one may be (medida histogram.cc)."""
MAX_VALUES = 1028
"""How many values there may be; the oldest make room (medida histogram.cc)."""
MAX_U32 = 2**32 - 1


class SlidingSample:
    """The values of the last ``WINDOW_SECONDS`` before the newest one, at most ``MAX_VALUES``.

    Time alone makes nothing old: what was measured last stays. Of values in quick succession
    core keeps some by chance, so that few span the whole window; here the latest stay, and the
    same values always make the same sample.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=MAX_VALUES)

    def add(self, value: float, now: float) -> None:
        """Take a value, measured not before the one that was taken last."""
        while self._values and self._values[0][0] < now - WINDOW_SECONDS:
            self._values.popleft()
        self._values.append((now, value))

    def percentile(self, quantile: float) -> float:
        """Return a percentile, interpolated between the two nearest values (R7); 0 of none.

        :param quantile: 0 is the least value, 0.5 the median, 1 the greatest.
        :raises ValueError: when it is not from 0 to 1.
        """
        if not 0 <= quantile <= 1:
            raise ValueError(f"a quantile is from 0 to 1, not {quantile}")
        if not self._values:
            return 0.0
        values = sorted(value for _, value in self._values)
        place = quantile * (len(values) - 1)
        below = floor(place)
        if below + 1 == len(values):
            return values[-1]
        return values[below] + (place - below) * (values[below + 1] - values[below])

    def __len__(self) -> int:
        return len(self._values)


def clamped_u32(number: float) -> int:
    """Return a number as the wire takes it, cut to a whole one (core doubleToClampedUint32).

    What is no number at all becomes the greatest.
    """
    return MAX_U32 if isnan(number) else int(min(max(number, 0), MAX_U32))
