"""What the overlay counts and times.

The hot path adds to plain integers and reports them here once per batch; :meth:`Counter.inc`,
:meth:`Timer.record` and :meth:`OverlayMetrics.snapshot` may be called from any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from stellar_overlay.error import DropReason


class Counter:
    """A number that grows, or is set."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0

    def inc(self, amount: int = 1) -> None:
        """Add ``amount``."""
        with self._lock:
            self._value += amount

    def set(self, value: int) -> None:
        """Make it ``value``."""
        with self._lock:
            self._value = value

    def get(self) -> int:
        """Return the number."""
        return self._value

    def reset(self) -> int:
        """Make it 0; return what it was."""
        with self._lock:
            value, self._value = self._value, 0
        return value


@dataclass(frozen=True, kw_only=True)
class TimerSnapshot:
    """How often something was timed, and for how many seconds."""

    count: int
    total: float
    avg: float
    min: float
    max: float


class Timer:
    """How often something happened, and how long it took: in seconds."""

    __slots__ = ("_count", "_lock", "_max", "_min", "_total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._total = 0.0
        self._min = 0.0
        self._max = 0.0

    def record(self, seconds: float) -> None:
        """Add one sample."""
        with self._lock:
            self._min = seconds if self._count == 0 else min(self._min, seconds)
            self._max = max(self._max, seconds)
            self._count += 1
            self._total += seconds

    def snapshot(self) -> TimerSnapshot:
        """Return the figures, which belong together."""
        with self._lock:
            count, total = self._count, self._total
            return TimerSnapshot(
                count=count,
                total=total,
                avg=total / count if count else 0.0,
                min=self._min,
                max=self._max,
            )

    def reset(self) -> None:
        """Forget all samples."""
        with self._lock:
            self._count, self._total, self._min, self._max = 0, 0.0, 0.0, 0.0


class OverlayMetrics:
    """All counters and timers of one overlay; names as in core's OverlayMetrics."""

    def __init__(self) -> None:
        self.messages_read = Counter()
        self.messages_written = Counter()
        self.bytes_read = Counter()
        self.bytes_written = Counter()
        self.async_read = Counter()
        self.async_write = Counter()
        self.errors_read = Counter()
        self.timeouts_idle = Counter()
        self.timeouts_straggler = Counter()
        self.inbound_attempt = Counter()
        self.inbound_establish = Counter()
        self.inbound_drop = Counter()
        self.inbound_reject = Counter()
        self.outbound_attempt = Counter()
        self.outbound_establish = Counter()
        self.outbound_drop = Counter()
        self.outbound_cancel = Counter()
        self.observer_errors = Counter()
        self.database_errors = Counter()
        self.connection_latency = Timer()
        self.connection_read_throttle = Timer()
        self.connection_flood_throttle = Timer()
        self.drops = {reason: Counter() for reason in DropReason}
        """How many links ended, by reason."""

    def snapshot(self) -> dict[str, int | TimerSnapshot]:
        """Return every figure under its name; drops as ``drop.REASON``."""
        figures: dict[str, int | TimerSnapshot] = {}
        for name, metric in vars(self).items():
            if isinstance(metric, Counter):
                figures[name] = metric.get()
            elif isinstance(metric, Timer):
                figures[name] = metric.snapshot()
        for reason, counter in self.drops.items():
            figures[f"drop.{reason.name}"] = counter.get()
        return figures
