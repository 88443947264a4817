"""What an overlay counts, as text for Prometheus; no word of a peer ever gets into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import NamedTuple, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector, CollectorRegistry

from stellar_overlay.admin.accept import Accept
from stellar_overlay.admin.prometheus_names import (
    FIGURES,
    LIMIT,
    LINKS,
    PEER_COUNT,
    PEER_COUNT_HELP,
    PREFIX,
    Figure,
)
from stellar_overlay.admin.route import JSON_TYPE, TEXT_TYPE, Answer, Ask
from stellar_overlay.metrics import Counter, OverlayMetrics, Timer
from stellar_overlay.node.manager import OverlayManager

OPEN_METRICS_TYPE = "application/openmetrics-text"
OPEN_METRICS_VERSION = "1.0.0"
PROMETHEUS_CONTENT = f"{TEXT_TYPE}; version=0.0.4; charset=utf-8"
OPEN_METRICS_CONTENT = f"{OPEN_METRICS_TYPE}; version={OPEN_METRICS_VERSION}; charset=utf-8"

Members: TypeAlias = Mapping[str, Counter | Timer]


class Gauge(NamedTuple):
    """A figure that is looked at when it is asked for; the name is whole."""

    name: str
    help: str
    value: float


class Scrape(NamedTuple):
    """All figures at one moment."""

    body: bytes
    content_type: str


class OverlayCollector(Collector):
    """Shows prometheus-client what an overlay counts; nothing is copied until it is asked for.

    To be asked in the reactor's thread, as :meth:`OverlayMetrics.refresh` is called.

    :param gauges: returns what is only looked at when it is asked for.
    """

    def __init__(
        self, metrics: OverlayMetrics, gauges: Callable[[], Iterable[Gauge]] = tuple
    ) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yield every counter and timer, also those that have no row in the table of names."""
        self._metrics.refresh()
        for name, help_text, value in self._gauges():
            yield GaugeMetricFamily(name, help_text, value=value)
        for attribute, metric in vars(self._metrics).items():
            members = _members(metric)
            if members:
                yield _family(attribute, members)
        limits = GaugeMetricFamily(PREFIX + LIMIT.name, LIMIT.help, labels=(LIMIT.label,))
        for limit, most in self._metrics.limits.items():
            limits.add_metric((limit,), most)
        yield limits


def prometheus_text(collector: Collector, accept: str | None = None) -> Scrape:
    """Return all figures of a collector: as OpenMetrics to whom that is as welcome, else as text.

    :param accept: the header of the request, None when it has none.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    wanted = Accept(accept)
    open_metrics = wanted.named(OPEN_METRICS_TYPE, (None, OPEN_METRICS_VERSION))
    if open_metrics and open_metrics >= wanted.weight(TEXT_TYPE):
        return Scrape(openmetrics.generate_latest(registry), OPEN_METRICS_CONTENT)
    return Scrape(generate_latest(registry), PROMETHEUS_CONTENT)


def is_for_prometheus(accept: str | None) -> bool:
    """Tell whether a client that may have core's JSON, or text, is to have text.

    It must name a kind of text that we write. Where JSON is named as well and as welcome, as many
    a client does that takes whatever there is, it gets JSON.
    """
    wanted = Accept(accept)
    text = max(wanted.named(kind) or 0.0 for kind in (TEXT_TYPE, OPEN_METRICS_TYPE))
    json = wanted.weight(JSON_TYPE)
    return text > json or (text == json > 0 and wanted.named(JSON_TYPE) is None)


class PrometheusApi:
    """Answers whoever scrapes a node."""

    def __init__(self, overlay: OverlayManager) -> None:
        self._collector = OverlayCollector(overlay.metrics, lambda: link_gauges(overlay))

    def scrape(self, ask: Ask) -> Answer:
        """Answer ``/prometheus``."""
        body, content_type = prometheus_text(self._collector, ask.header("Accept"))
        return Answer(body.decode(), content_type)

    def scrape_or(self, otherwise: Callable[[Ask], Answer]) -> Callable[[Ask], Answer]:
        """Return what answers a path that has something else for those who want no text."""

        def answer(ask: Ask) -> Answer:
            is_scraped = is_for_prometheus(ask.header("Accept"))
            return self.scrape(ask) if is_scraped else otherwise(ask)

        return answer


def link_gauges(overlay: OverlayManager) -> Iterator[Gauge]:
    """Yield how many links there are, under henyey's names."""
    peers = [peer.direction for peer in overlay.peer_infos()]
    pending = [peer.direction for peer in overlay.pending_peers()]
    yield Gauge(PEER_COUNT, PEER_COUNT_HELP, len(peers))
    for name, figure in LINKS.items():
        direction, _, stage = name.partition("_")
        links = peers if stage == "authenticated" else pending
        yield Gauge(PREFIX + name, figure.help, links.count(direction))


def _members(metric: object) -> Members:
    """Return the counters and timers in an attribute: by reason, or a single one by no name."""
    if isinstance(metric, Counter | Timer):
        return {"": metric}
    items = metric.items() if isinstance(metric, dict) else ()
    return {
        key.name.lower(): member
        for key, member in items
        if isinstance(key, Enum) and isinstance(member, Counter | Timer)
    }


def _family(attribute: str, members: Members) -> Metric:
    """Return an attribute's figures; without a row in the table it is named after itself."""
    words = attribute.replace("_", " ").capitalize()
    figure = FIGURES.get(attribute) or Figure(words, label="" if "" in members else "kind")
    name, labels = PREFIX + (figure.name or attribute), [figure.label] if figure.label else []
    timed = SummaryMetricFamily(f"{name}_seconds", figure.help, labels=labels)
    kind = GaugeMetricFamily if figure.is_gauge else CounterMetricFamily
    counted = kind(name, figure.help, labels=labels)
    for member, metric in members.items():
        values = [member] if labels else []
        if isinstance(metric, Timer):
            known = metric.snapshot()
            timed.add_metric(values, known.count, known.total)
        else:
            counted.add_metric(values, metric.get())
    return timed if timed.samples else counted
