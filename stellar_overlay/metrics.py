"""What the overlay counts and times.

The hot path adds to plain integers and reports them here once per batch; :meth:`Counter.inc`,
:meth:`Timer.record` and :meth:`OverlayMetrics.snapshot` may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from stellar_overlay.error import DropReason, SurveyRefusal


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

    def add(self, amount: int) -> None:
        """Add ``amount`` without a lock: for what only the reactor's thread counts, and often."""
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
        self.messages_broadcast = Counter()
        self.queue_drop_scp = Counter()
        self.queue_drop_tx = Counter()
        self.queue_drop_demand = Counter()
        self.queue_drop_advert = Counter()
        self.flood_broadcast = Counter()
        self.flood_advertised = Counter()
        self.flood_demanded = Counter()
        self.flood_fulfilled = Counter()
        self.flood_unfulfilled_banned = Counter()
        self.flood_unfulfilled_unknown = Counter()
        self.flood_unique_recv = Counter()
        self.flood_duplicate_recv = Counter()
        self.flood_unique_bytes_recv = Counter()
        self.flood_duplicate_bytes_recv = Counter()
        self.flood_rate_limited = Counter()
        self.flood_known_count = Counter()
        self.flood_evicted = Counter()
        self.fetch_unique_recv = Counter()
        self.fetch_duplicate_recv = Counter()
        self.fetch_unique_bytes_recv = Counter()
        self.fetch_duplicate_bytes_recv = Counter()
        self.item_fetcher_next_peer = Counter()
        self.item_fetcher_tracker_cap_reached = Counter()
        self.demand_timeouts = Counter()
        self.abandoned_demands = Counter()
        self.pulled_relevant_txs = Counter()
        self.pulled_irrelevant_txs = Counter()
        self.queries_ignored = Counter()
        self.answers_refused = Counter()
        self.scp_discarded = Counter()
        self.answers_unsent_bytes = Counter()
        self.received_unprocessed_bytes = Counter()
        self.receive_holds = Counter()
        self.cpu_holds = Counter()
        self.survey_started = Counter()
        self.survey_stopped = Counter()
        self.survey_requests = Counter()
        self.survey_responses = Counter()
        self.survey_answers = Counter()
        self.survey_signature_checks = Counter()
        self.observer_lost = Counter()
        self.observer_errors = Counter()
        self.database_errors = Counter()
        self.connection_latency = Timer()
        self.connection_read_throttle = Timer()
        self.connection_flood_throttle = Timer()
        self.tx_pull_latency = Timer()
        self.peer_tx_pull_latency = Timer()
        self.fetch_tx_set = Timer()
        self.fetch_quorum_set = Timer()
        self.drops = {reason: Counter() for reason in DropReason}
        """How many links ended, by reason."""
        self.survey_refusals = {reason: Counter() for reason in SurveyRefusal}
        """How many survey messages were not taken, by reason."""
        self.limits: dict[str, int] = {}
        """What may be used at most, by name: the sums of ``node.limit_table``."""
        self.refreshers: list[Callable[[], None]] = []
        """Called by :meth:`refresh`, to set the figures that are only looked at then."""

    def refresh(self) -> None:
        """Set what is only looked at when it is asked for: before any figure is read."""
        for refresh in self.refreshers:
            refresh()

    def snapshot(self) -> dict[str, int | TimerSnapshot]:
        """Return every figure by name.

        Drops are ``drop.REASON``, refused survey messages ``survey_refused.REASON``, limits
        ``limit.NAME``.
        """
        self.refresh()
        figures: dict[str, int | TimerSnapshot] = {}
        for name, metric in vars(self).items():
            if isinstance(metric, Counter):
                figures[name] = metric.get()
            elif isinstance(metric, Timer):
                figures[name] = metric.snapshot()
        for reason, counter in self.drops.items():
            figures[f"drop.{reason.name}"] = counter.get()
        for refusal, counter in self.survey_refusals.items():
            figures[f"survey_refused.{refusal.name}"] = counter.get()
        for name, limit in self.limits.items():
            figures[f"limit.{name}"] = limit
        return figures
