"""Core's names and JSON for what is counted: meters with their rates, timers, gauges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from stellar_overlay.admin.styled import Json
from stellar_overlay.error import SurveyRefusal
from stellar_overlay.interfaces import Clock
from stellar_overlay.metrics import Counter, OverlayMetrics, Timer

TICK_SECONDS = 5
"""How often the counts are looked at for their rates (medida EWMA)."""
_MINUTES = (1, 5, 15)
_ALPHAS = tuple(1 - math.exp(-TICK_SECONDS / (60 * minutes)) for minutes in _MINUTES)
_QUANTILES = {"median": 0.5, "75%": 0.75, "95%": 0.95, "98%": 0.98, "99%": 0.99, "99.9%": 0.999}
_MS = 1000.0


class MeterName(NamedTuple):
    """What core calls a counter of ours, and what it counts."""

    name: str
    event: str


METERS: dict[str, MeterName] = {
    "messages_read": MeterName("overlay.message.read", "message"),
    "messages_written": MeterName("overlay.message.write", "message"),
    "messages_broadcast": MeterName("overlay.message.broadcast", "message"),
    "bytes_read": MeterName("overlay.byte.read", "byte"),
    "bytes_written": MeterName("overlay.byte.write", "byte"),
    "async_read": MeterName("overlay.async.read", "call"),
    "async_write": MeterName("overlay.async.write", "call"),
    "errors_read": MeterName("overlay.error.read", "error"),
    "timeouts_idle": MeterName("overlay.timeout.idle", "timeout"),
    "timeouts_straggler": MeterName("overlay.timeout.straggler", "timeout"),
    "item_fetcher_next_peer": MeterName("overlay.item-fetcher.next-peer", "item-fetcher"),
    "queue_drop_scp": MeterName("overlay.outbound-queue.drop-scp", "message"),
    "queue_drop_tx": MeterName("overlay.outbound-queue.drop-tx", "message"),
    "queue_drop_advert": MeterName("overlay.outbound-queue.drop-advert", "message"),
    "queue_drop_demand": MeterName("overlay.outbound-queue.drop-demand", "message"),
    "flood_broadcast": MeterName("overlay.flood.broadcast", "message"),
    "flood_advertised": MeterName("overlay.flood.advertised", "message"),
    "flood_demanded": MeterName("overlay.flood.demanded", "message"),
    "flood_fulfilled": MeterName("overlay.flood.fulfilled", "message"),
    "flood_unfulfilled_banned": MeterName("overlay.flood.unfulfilled-banned", "message"),
    "flood_unfulfilled_unknown": MeterName("overlay.flood.unfulfilled-unknown", "message"),
    "pulled_relevant_txs": MeterName("overlay.flood.relevant-txs", "transaction"),
    "pulled_irrelevant_txs": MeterName("overlay.flood.irrelevant-txs", "transaction"),
    "abandoned_demands": MeterName("overlay.flood.abandoned-demands", "message"),
    "demand_timeouts": MeterName("overlay.demand.timeout", "timeout"),
    "flood_unique_bytes_recv": MeterName("overlay.flood.unique-recv", "byte"),
    "flood_duplicate_bytes_recv": MeterName("overlay.flood.duplicate-recv", "byte"),
    "fetch_unique_bytes_recv": MeterName("overlay.fetch.unique-recv", "byte"),
    "fetch_duplicate_bytes_recv": MeterName("overlay.fetch.duplicate-recv", "byte"),
    "inbound_attempt": MeterName("overlay.inbound.attempt", "connection"),
    "inbound_establish": MeterName("overlay.inbound.establish", "connection"),
    "inbound_drop": MeterName("overlay.inbound.drop", "connection"),
    "inbound_reject": MeterName("overlay.inbound.reject", "connection"),
    "outbound_attempt": MeterName("overlay.outbound.attempt", "connection"),
    "outbound_establish": MeterName("overlay.outbound.establish", "connection"),
    "outbound_drop": MeterName("overlay.outbound.drop", "connection"),
    "outbound_cancel": MeterName("overlay.outbound.cancel", "connection"),
    "survey_started": MeterName("overlay.survey.started", "survey"),
    "survey_stopped": MeterName("overlay.survey.stopped", "survey"),
    "survey_requests": MeterName("overlay.survey.requests", "message"),
    "survey_responses": MeterName("overlay.survey.responses", "message"),
    "survey_answers": MeterName("overlay.survey.answers", "message"),
    "survey_signature_checks": MeterName("overlay.survey.signature-checks", "signature"),
}
"""By attribute of :class:`OverlayMetrics`; what core counts and we do not measure is left out.

Those of surveys have names of ours: core counts only the messages.
"""

TIMERS = {
    "connection_latency": "overlay.connection.latency",
    "connection_read_throttle": "overlay.connection.read-throttle",
    "connection_flood_throttle": "overlay.connection.flood-throttle",
    "tx_pull_latency": "overlay.flood.tx-pull-latency",
    "peer_tx_pull_latency": "overlay.flood.peer-tx-pull-latency",
    "fetch_tx_set": "overlay.fetch.txset",
    "fetch_quorum_set": "overlay.fetch.qset",
}
_METER_NAMES = {attribute: meter.name for attribute, meter in METERS.items()}
GAUGES = {"flood_known_count": "overlay.memory.flood-known"}


class Meter:
    """How fast a count grows: since the beginning, and of late.

    :param now: when the count was 0, in seconds of the injected clock.
    """

    __slots__ = ("_last", "_rates", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._last = 0
        self._rates: tuple[float, ...] | None = None

    def tick(self, count: int) -> None:
        """Take what the count is now, one tick after the last time."""
        rate = max(0, count - self._last) / TICK_SECONDS
        self._last = count
        before = self._rates
        self._rates = (
            (rate,) * len(_ALPHAS)
            if before is None
            else tuple(
                old + alpha * (rate - old) for old, alpha in zip(before, _ALPHAS, strict=True)
            )
        )

    def rates(self, count: int, now: float) -> dict[str, Json]:
        """Return the four rates, per second."""
        seconds = now - self._since
        of_late = self._rates or (0.0,) * len(_MINUTES)
        return {
            "rate_unit": "s",
            "mean_rate": count / seconds if seconds > 0 else 0.0,
            **{
                f"{minutes}_min_rate": rate for minutes, rate in zip(_MINUTES, of_late, strict=True)
            },
        }


class Medida:
    """Reports what an overlay counts as core's ``/metrics`` does; :meth:`tick` it every 5 s.

    :param gauges: returns figures that are looked at when they are asked for, by core's name.
    """

    def __init__(
        self,
        metrics: OverlayMetrics,
        clock: Clock,
        gauges: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._gauges = gauges
        now = clock.seconds()
        self._meters = {attribute: Meter(now) for attribute in (*METERS, *TIMERS)}

    def tick(self) -> bool:
        """Look at all counts; there is always a next time."""
        for attribute, meter in self._meters.items():
            meter.tick(self._count(attribute))
        return True

    def report(self, enabled: str | None = None) -> dict[str, Json]:
        """Return all metrics by core's name, sorted.

        :param enabled: domains (``overlay``) and full names, separated by commas; None is all.
        """
        self._metrics.refresh()
        figures: dict[str, Json] = {name: _gauge(count) for name, count in self._gauges().items()}
        for attribute, gauge in GAUGES.items():
            figures[gauge] = _gauge(self._count(attribute))
        for attribute, meter in METERS.items():
            figures[meter.name] = self._meter(attribute, meter.event)
        for attribute, timer in TIMERS.items():
            figures[timer] = self._timer(attribute)
        for reason, refused in self._metrics.survey_refusals.items():
            figures[refused_name(reason)] = _gauge(refused.get())
        wanted = None if not enabled else set(enabled.split(","))
        return {
            name: figures[name]
            for name in sorted(figures)
            if wanted is None or name in wanted or _domain(name) in wanted
        }

    def clear(self, domain: str = "") -> None:
        """Begin anew with all that is counted and timed, of one domain or of all.

        Gauges stay: they are looked at when they are asked for.
        """
        now = self._clock.seconds()
        for attribute, name in (*_METER_NAMES.items(), *TIMERS.items()):
            if domain in ("", _domain(name)):
                getattr(self._metrics, attribute).reset()
                self._meters[attribute] = Meter(now)
        for reason, refused in self._metrics.survey_refusals.items():
            if domain in ("", _domain(refused_name(reason))):
                refused.reset()

    def _count(self, attribute: str) -> int:
        metric = getattr(self._metrics, attribute)
        if isinstance(metric, Timer):
            return metric.snapshot().count
        assert isinstance(metric, Counter)
        return metric.get()

    def _meter(self, attribute: str, event: str) -> Json:
        count = self._count(attribute)
        return {
            "type": "meter",
            "count": count,
            "event_type": event,
            **self._meters[attribute].rates(count, self._clock.seconds()),
        }

    def _timer(self, attribute: str) -> Json:
        """Return a timer in milliseconds.

        Its samples are not kept: each percentile is the highest that it can be, given their least,
        mean and greatest (Markov's inequality); ``stddev`` is left out.
        """
        timer: Timer = getattr(self._metrics, attribute)
        known = timer.snapshot()
        return {
            "type": "timer",
            "count": known.count,
            "event_type": "calls",
            **self._meters[attribute].rates(known.count, self._clock.seconds()),
            "duration_unit": "ms",
            "min": known.min * _MS,
            "max": known.max * _MS,
            "mean": known.avg * _MS,
            "sum": known.total * _MS,
            **{
                name: min(known.max, known.min + (known.avg - known.min) / (1 - quantile)) * _MS
                for name, quantile in _QUANTILES.items()
            },
            "100%": known.max * _MS,
        }


def refused_name(reason: SurveyRefusal) -> str:
    """Return what the survey messages are called that were refused for a reason."""
    return f"overlay.survey.refused-{reason.name.lower().replace('_', '-')}"


def _domain(name: str) -> str:
    return name.partition(".")[0]


def _gauge(count: int) -> Json:
    return {"type": "counter", "count": count}
