"""When a slot's EXTERNALIZE statements were heard, and when we believed them: for surveys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.interfaces import ScpLatency

MAX_SLOTS = 24
"""Of how many slots it is remembered."""
SLOTS_TIMED_AHEAD = 8
"""So far ahead of consensus; whoever makes up farther ones pushes nothing out."""

Report = Callable[[ScpLatency, float], None]


@dataclass(slots=True)
class _Times:
    first: float
    own: float | None = None


class ExternalizeTimes:
    """Times each slot's consensus, from the first statement heard to the last.

    Core reports the second kind from the first statement on, too (HerderSCPDriver.cpp:1524-1538);
    here it is from our own time on, as its name says.

    :param report: called with the kind and seconds of each sample.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._slots: BoundedDict[int, _Times] = BoundedDict(MAX_SLOTS)

    def note_heard(self, slot: int, now: float) -> None:
        """Note that one more node says that consensus on a slot is reached."""
        times = self._slots.get(slot)
        if times is None:
            self._slots.put(slot, _Times(now))
        elif times.own is not None:
            self._report(ScpLatency.SELF_TO_OTHER, now - times.own)

    def note_own(self, slot: int, now: float) -> None:
        """Note that we believe it, too; once per slot."""
        times = self._slots.get(slot)
        if times is None:  # we were the first of all
            self._slots.put(slot, _Times(now, now))
        elif times.own is None:
            times.own = now
            self._report(ScpLatency.FIRST_TO_SELF, now - times.first)
