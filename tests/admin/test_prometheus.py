"""What is counted, as Prometheus reads it: every figure once, under a name that it takes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from enum import Enum

from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.prometheus import (
    OPEN_METRICS_CONTENT,
    PROMETHEUS_CONTENT,
    Gauge,
    OverlayCollector,
    is_for_prometheus,
    prometheus_text,
)
from stellar_overlay.admin.prometheus_names import FIGURES, LINKS, PREFIX
from stellar_overlay.error import DropReason, SurveyRefusal
from stellar_overlay.metrics import Counter, OverlayMetrics, Timer
from tests.admin.kit import AdminTestCase
from tests.builders import make_node

OPEN_METRICS = "application/openmetrics-text"
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"
SCRAPE_SECONDS = 0.020


def families(metrics: OverlayMetrics) -> dict[str, Metric]:
    """Return what is exported of some figures, parsed, by the family's name."""
    text = prometheus_text(OverlayCollector(metrics)).body.decode("ascii")
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found), "a family stands twice"
    return {family.name: family for family in found}


def values(metrics: OverlayMetrics) -> dict[str, float]:
    """Return every sample by its name, and by its label's value when it has one."""
    found: dict[str, float] = {}
    for family in families(metrics).values():
        for sample in family.samples:
            name = " ".join([sample.name, *sample.labels.values()])
            assert name not in found, name
            found[name] = sample.value
    return found


def measured(metrics: OverlayMetrics) -> Iterator[tuple[str, str, Counter | Timer]]:
    """Yield the attribute, the reason or nothing, and the metric, of all that are counted."""
    for attribute, metric in vars(metrics).items():
        if isinstance(metric, Counter | Timer):
            yield attribute, "", metric
        elif isinstance(metric, dict):
            for key, member in metric.items():
                assert isinstance(key, Enum)
                assert isinstance(member, Counter | Timer)
                yield attribute, f" {key.name.lower()}", member


class OverlayCollectorTests(SynchronousTestCase):
    """What prometheus-client is shown."""

    def setUp(self) -> None:
        self.metrics = OverlayMetrics()

    def test_nothing_is_forgotten(self) -> None:
        """Every counter and every timer is there once, with a value of its own."""
        expected: dict[str, float] = {}
        for number, (attribute, reason, metric) in enumerate(measured(self.metrics), start=1):
            figure = FIGURES[attribute]
            name = PREFIX + (figure.name or attribute)
            if isinstance(metric, Timer):
                metric.record(number)
                metric.record(0.5)
                expected[f"{name}_seconds_count{reason}"] = 2
                expected[f"{name}_seconds_sum{reason}"] = number + 0.5
            else:
                metric.inc(number)
                expected[f"{name}{'' if figure.is_gauge else '_total'}{reason}"] = number
        self.assertEqual(values(self.metrics), expected)

    def test_table(self) -> None:
        """Every attribute of the figures has a row in the table, and no row is out of date."""
        attributes = vars(self.metrics).keys() - {"limits", "refreshers"}
        self.assertEqual(attributes, FIGURES.keys())
        for attribute, figure in FIGURES.items():
            self.assertEqual(bool(figure.label), isinstance(getattr(self.metrics, attribute), dict))
            self.assertRegex(figure.help, r"^[A-Z][^\n]*[a-z)]$", attribute)

    def test_names(self) -> None:
        """Names are legal, end as their kind does, and have a help text; times are in seconds."""
        self.metrics.limits["tx_pool"] = 1
        ends = {"counter": "", "gauge": "", "summary": "_seconds"}
        for name, family in families(self.metrics).items():
            self.assertRegex(name, r"^stellar_overlay_[a-z0-9_]*[a-z]$")
            self.assertTrue(name.endswith(ends[family.type]), name)
            self.assertNotRegex(name, "_(total|count|sum|bucket|created|info)$")
            self.assertTrue(family.documentation, name)
            suffixes = {sample.name.removeprefix(name) for sample in family.samples}
            kinds = {"counter": {"_total"}, "gauge": {""}, "summary": {"_count", "_sum"}}
            self.assertEqual(suffixes, kinds[family.type], name)

    def test_henyey(self) -> None:
        """What henyey counts as well has its name, so that its dashboards find it."""
        names = set(values(self.metrics))
        for name in (
            "message_read_total", "message_write_total", "message_broadcast_total",
            "byte_read_total", "byte_write_total", "async_read_total", "async_write_total",
            "error_read_total", "timeout_idle_total", "timeout_straggler_total",
            "inbound_attempt_total", "inbound_establish_total", "inbound_drop_total",
            "inbound_reject_total", "outbound_attempt_total", "outbound_establish_total",
            "outbound_drop_total", "flood_broadcast_total", "flood_unique_recv_total",
            "flood_duplicate_recv_total", "fetch_unique_recv_total", "fetch_duplicate_recv_total",
            "item_fetcher_next_peer_total", "outbound_queue_drop_scp_total",
            "outbound_queue_drop_tx_total", "outbound_queue_drop_advert_total",
            "outbound_queue_drop_demand_total", "memory_flood_known",
            "connection_latency_seconds_sum", "flood_throttle_seconds_count",
            "tx_pull_latency_seconds_sum", "peer_tx_pull_latency_seconds_count",
        ):  # fmt: skip
            self.assertIn(f"stellar_overlay_{name}", names)

    def test_reasons(self) -> None:
        """Drops and refusals are one metric each, with all reasons from the beginning."""
        self.metrics.drops[DropReason.WRONG_NETWORK].inc(2)
        self.metrics.survey_refusals[SurveyRefusal.TOO_LATE].inc(3)
        found = families(self.metrics)
        for name, reasons, reason, count in (
            ("drops", DropReason, "wrong_network", 2),
            ("survey_refusals", SurveyRefusal, "too_late", 3),
        ):
            samples = found[f"stellar_overlay_{name}"].samples
            self.assertEqual({tuple(sample.labels) for sample in samples}, {("reason",)})
            by_reason = {sample.labels["reason"]: sample.value for sample in samples}
            self.assertEqual(set(by_reason), {each.name.lower() for each in reasons})
            self.assertEqual((by_reason[reason], sum(by_reason.values())), (count, count))

    def test_limits(self) -> None:
        """Limits are one gauge, by their names."""
        self.metrics.limits.update(tx_pool=1 << 40, peers=10_000)
        (tx_pool, peers) = families(self.metrics)["stellar_overlay_limit"].samples
        self.assertEqual((tx_pool.labels, tx_pool.value), ({"limit": "tx_pool"}, 1 << 40))
        self.assertEqual((peers.labels, peers.value), ({"limit": "peers"}, 10_000))

    def test_gauges_are_fresh(self) -> None:
        """What is only looked at when it is asked for is looked at, each time."""
        self.metrics.refreshers.append(lambda: self.metrics.flood_known_count.inc())
        collector = OverlayCollector(self.metrics, lambda: [Gauge("live", "How many.", 7)])
        for known in ("1.0", "2.0"):
            lines = prometheus_text(collector).body.decode().splitlines()
            self.assertIn("# HELP live How many.", lines)
            self.assertIn("live 7.0", lines)
            self.assertIn(f"stellar_overlay_memory_flood_known {known}", lines)

    def test_large_counts(self) -> None:
        """Counts are exact, as long as a float can be."""
        self.metrics.bytes_read.inc(2**53 - 1)
        self.assertEqual(values(self.metrics)["stellar_overlay_byte_read_total"], 2**53 - 1)

    def test_without_a_row(self) -> None:
        """A metric that the table does not know is shown all the same, after its attribute."""
        reasons = {DropReason.SELF: Timer()}
        reasons[DropReason.SELF].record(2)
        vars(self.metrics).update(new_things=Counter(), new_times=reasons)
        found = values(self.metrics)
        self.assertEqual(found["stellar_overlay_new_things_total"], 0)
        self.assertEqual(found["stellar_overlay_new_times_seconds_sum self"], 2)


class NegotiationTests(SynchronousTestCase):
    """Who gets which kind of text."""

    def content(self, accept: str | None) -> str:
        """Return the kind that is sent, which must be what it says."""
        metrics = OverlayMetrics()
        metrics.bytes_read.inc(3)
        metrics.connection_latency.record(0.25)
        body, content = prometheus_text(OverlayCollector(metrics), accept)
        parse = (
            openmetrics.text_string_to_metric_families
            if content == OPEN_METRICS_CONTENT
            else text_string_to_metric_families
        )
        text = body.decode("ascii")
        found = {sample.name: sample.value for family in parse(text) for sample in family.samples}
        self.assertEqual(found["stellar_overlay_byte_read_total"], 3)
        self.assertEqual(found["stellar_overlay_connection_latency_seconds_sum"], 0.25)
        self.assertEqual(text.endswith("# EOF\n"), content == OPEN_METRICS_CONTENT)
        return content

    def test_content_types(self) -> None:
        """They are those that Prometheus knows."""
        self.assertEqual(PROMETHEUS_CONTENT, "text/plain; version=0.0.4; charset=utf-8")
        self.assertEqual(
            OPEN_METRICS_CONTENT, "application/openmetrics-text; version=1.0.0; charset=utf-8"
        )

    def test_open_metrics(self) -> None:
        """OpenMetrics is for whoever asks for the version that we write, and prefers it to text."""
        for accept in (
            OPEN_METRICS, f"{OPEN_METRICS};version=1.0.0", f"{OPEN_METRICS}, text/plain",
            f"text/plain;q=0.5, {OPEN_METRICS};q=0.6", f"{OPEN_METRICS};q=0.1, */*;q=0.1",
            PROMETHEUS_3,
        ):  # fmt: skip
            self.assertEqual(self.content(accept), OPEN_METRICS_CONTENT, accept)

    def test_text(self) -> None:
        """Everybody else gets text, whatever they name: there is nothing else here."""
        for accept in (
            None, "", "*/*", "text/*", "text/plain", "application/json", BROWSER, "nonsense",
            f"{OPEN_METRICS};q=0", f"{OPEN_METRICS};version=0.0.1", f"{OPEN_METRICS};version=2",
            f"{OPEN_METRICS};q=0.5, text/plain;q=0.6", f"{OPEN_METRICS};q=0.5, */*",
        ):  # fmt: skip
            self.assertEqual(self.content(accept), PROMETHEUS_CONTENT, accept)

    def test_text_instead_of_json(self) -> None:
        """Text is for whoever names a kind of it, unless JSON is at least as welcome by name."""
        for accept in (
            "text/plain", "TEXT/PLAIN;version=0.0.4", OPEN_METRICS, f"{OPEN_METRICS};version=0.0.1",
            "text/plain, */*", "text/plain;q=0.2, */*;q=0.1", "text/plain;q=0.2",
            "application/json;q=0.5, text/plain", "application/*, text/plain",
            "application/json;q=0, text/plain;q=0.1", PROMETHEUS_3,
        ):  # fmt: skip
            self.assertTrue(is_for_prometheus(accept), accept)

    def test_json(self) -> None:
        """Core's JSON is for all others, as for those who name nothing."""
        for accept in (
            None, "", "*/*", "text/*", "text/html", "application/json", BROWSER, "nonsense",
            "text/plain;q=0", "text/plain;q=0, */*", "text/plain;q=0.5, */*", "text/plain;q=x",
            "application/json, text/plain, */*", "text/plain;q=0.8, application/json;q=0.9",
            f"{OPEN_METRICS};q=0", "text/plainer", "*/*;q=0, text/plain;q=0",
        ):  # fmt: skip
            self.assertFalse(is_for_prometheus(accept), accept)


class RouteTests(AdminTestCase):
    """Both paths of a node, and what a scrape of it holds and costs."""

    settings = {"max_inbound_peers": 100}  # noqa: RUF012

    def scrape(self, uri: str = "/prometheus", *headers: tuple[str, str]) -> dict[str, float]:
        """Return what is scraped, without what has a label."""
        reply = self.get(uri, *headers)
        self.assertEqual((reply.status, reply.headers["content-type"]), (200, PROMETHEUS_CONTENT))
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(reply.text)
            for sample in family.samples
            if not sample.labels
        }

    def test_prometheus(self) -> None:
        """It is text whatever is asked for, OpenMetrics for those who ask for that."""
        for accept in ("application/json", "*/*", BROWSER):
            self.assertIn(
                "stellar_overlay_byte_read_total", self.scrape("/prometheus", ("Accept", accept))
            )
        reply = self.get("/prometheus", ("Accept", PROMETHEUS_3))
        self.assertEqual(reply.headers["content-type"], OPEN_METRICS_CONTENT)
        self.assertTrue(reply.text.endswith("# EOF\n"))

    def test_metrics(self) -> None:
        """It is core's JSON unless text is asked for."""
        self.assertIn("metrics", self.ask("/metrics"))
        for accept in ("*/*", BROWSER, "application/json"):
            reply = self.get("/metrics", ("Accept", accept))
            self.assertEqual(reply.headers["content-type"], "application/json")
            self.assertIn("overlay.byte.read", reply.json()["metrics"])
        self.assertIn("stellar_peer_count", self.scrape("/metrics", ("Accept", "text/plain")))

    def test_links(self) -> None:
        """Connected peers and handshakes are counted, under henyey's names."""
        self.world.call(number=9)
        self.world.call(number=8, is_polite=False)
        found = self.scrape()
        self.assertEqual(found["stellar_peer_count"], 1)
        self.assertEqual(
            {name: found[f"stellar_overlay_{name}"] for name in LINKS},
            {
                "inbound_authenticated": 1, "outbound_authenticated": 0,
                "inbound_pending": 1, "outbound_pending": 0,
            },
        )  # fmt: skip
        self.assertEqual(found["stellar_overlay_inbound_establish_total"], 2)
        read = self.node.metrics.messages_read.get()
        self.assertEqual(found["stellar_overlay_message_read_total"], read)

    def test_limits(self) -> None:
        """All limits of the node are there."""
        samples = re.findall(
            '^stellar_overlay_limit{limit="(.*)"} ', self.get("/prometheus").text, re.M
        )
        self.assertEqual(samples, list(self.node.metrics.limits))
        self.assertGreater(len(samples), 10)

    def test_words_of_peers(self) -> None:
        """Nothing that a peer says gets into it, nor who it is."""
        node = make_node(9)
        node.version_string = 'evil"} 1\n#<script>'
        self.world.call(number=9, local_node=node)
        text = self.get("/prometheus").text
        for word in ("evil", "script", node.peer_id.strkey[:5], "10.0.0.9"):
            self.assertNotIn(word, text)

    def test_a_scrape_is_cheap(self) -> None:
        """With 72 peers it takes much less than it may, in processor time."""
        for number in range(72):
            self.world.call(number=number + 20)
        self.assertEqual(self.scrape()["stellar_peer_count"], 72)
        seconds = []
        for _ in range(5):
            start = time.process_time()
            self.get("/prometheus")
            seconds.append(time.process_time() - start)
        self.assertLess(min(seconds), SCRAPE_SECONDS)


class AloneTests(AdminTestCase):
    """A node that talks to nobody."""

    settings = {"run_standalone": True}  # noqa: RUF012

    def test_routes(self) -> None:
        """It is scraped like any other."""
        for uri in ("/prometheus", "/metrics"):
            reply = self.get(uri, ("Accept", "text/plain"))
            self.assertEqual(reply.headers["content-type"], PROMETHEUS_CONTENT)


class BootingTests(AdminTestCase):
    """A node that does not run yet."""

    is_started = False

    def test_routes(self) -> None:
        """It says so, which is no figure."""
        for uri in ("/prometheus", "/metrics"):
            self.assertEqual(
                self.get(uri, ("Accept", "text/plain")).json(),
                {"error": "Core is booting, try again later"},
            )
