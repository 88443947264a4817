"""What is counted, in core's words: names, rates, and figures that add up."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.medida import GAUGES, METERS, TICK_SECONDS, TIMERS, Medida, Meter
from stellar_overlay.error import SurveyRefusal
from stellar_overlay.metrics import Counter, OverlayMetrics, Timer


class MeterTests(SynchronousTestCase):
    """How fast something grows."""

    def test_steady(self) -> None:
        """What grows steadily has that rate at once, over every period."""
        meter = Meter(0)
        for tick in range(1, 5):
            meter.tick(10 * tick)
        rates = meter.rates(40, 20)
        self.assertEqual(rates.pop("rate_unit"), "s")
        self.assertEqual(set(rates), {"mean_rate", "1_min_rate", "5_min_rate", "15_min_rate"})
        self.assertEqual(set(rates.values()), {2.0})

    def test_decay(self) -> None:
        """When it ends, the rate falls to 1/e in a minute, and more slowly over longer periods."""
        meter = Meter(0)
        meter.tick(50)
        for _ in range(12):
            meter.tick(50)
        rates: dict[str, Any] = meter.rates(50, 65)
        self.assertAlmostEqual(rates["1_min_rate"], 10 / math.e)
        self.assertAlmostEqual(rates["5_min_rate"], 10 / math.e ** (1 / 5))
        self.assertAlmostEqual(rates["15_min_rate"], 10 / math.e ** (1 / 15))
        self.assertAlmostEqual(rates["mean_rate"], 50 / 65)

    def test_before_the_first_tick(self) -> None:
        """Nothing is known then, and nothing is divided by nothing."""
        rates = Meter(7).rates(3, 7)
        self.assertEqual({rates["mean_rate"], rates["1_min_rate"]}, {0.0})

    def test_reset(self) -> None:
        """A count that was cleared has no negative rate."""
        meter = Meter(0)
        meter.tick(100)
        meter.tick(0)
        rates: dict[str, Any] = meter.rates(0, 10)
        self.assertGreater(rates["1_min_rate"], 0)


class MedidaTests(SynchronousTestCase):
    """The whole report."""

    def setUp(self) -> None:
        self.metrics = OverlayMetrics()
        self.clock = Clock()
        self.medida = Medida(self.metrics, self.clock, lambda: {"overlay.inbound.live": 3})

    def figures(self, name: str) -> dict[str, Any]:
        """Return what is said of one metric."""
        report: dict[str, Any] = self.medida.report(name)
        self.assertEqual(list(report), [name])
        found: dict[str, Any] = report[name]
        return found

    def test_names(self) -> None:
        """Every name of the tables is one of our counters or timers, and none stands twice."""
        for attribute in (*METERS, *GAUGES):
            self.assertIsInstance(getattr(self.metrics, attribute), Counter, attribute)
        for attribute in TIMERS:
            self.assertIsInstance(getattr(self.metrics, attribute), Timer, attribute)
        report = self.medida.report()
        tables: tuple[Sized, ...] = (METERS, TIMERS, GAUGES, SurveyRefusal)
        self.assertEqual(len(report), sum(map(len, tables)) + 1)
        self.assertEqual(list(report), sorted(report))

    def test_refused_surveys(self) -> None:
        """By their reasons, under names of ours."""
        self.metrics.survey_refusals[SurveyRefusal.NOT_PERMITTED].inc(3)
        figures = self.figures("overlay.survey.refused-not-permitted")
        self.assertEqual(figures, {"type": "counter", "count": 3})

    def test_meter(self) -> None:
        """A meter has core's fields, its count and its event."""
        self.metrics.bytes_read.inc(100)
        self.clock.advance(TICK_SECONDS)
        self.assertTrue(self.medida.tick())
        self.assertEqual(
            self.figures("overlay.byte.read"),
            {
                "type": "meter", "count": 100, "event_type": "byte", "rate_unit": "s",
                "mean_rate": 20.0, "1_min_rate": 20.0, "5_min_rate": 20.0, "15_min_rate": 20.0,
            },
        )  # fmt: skip

    def test_timer(self) -> None:
        """A timer is in milliseconds; a percentile is never less than the true one."""
        samples = [0.010, 0.010, 0.010, 0.050]
        for seconds in samples:
            self.metrics.connection_latency.record(seconds)
        timer = self.figures("overlay.connection.latency")
        self.assertEqual(
            (timer["type"], timer["count"], timer["duration_unit"]), ("timer", 4, "ms")
        )
        for name, value in (("min", 10), ("max", 50), ("mean", 20), ("sum", 80), ("100%", 50)):
            self.assertAlmostEqual(timer[name], value)
        self.assertGreaterEqual(timer["median"], 10)
        self.assertAlmostEqual(timer["median"], 30)
        self.assertAlmostEqual(timer["75%"], 50)
        self.assertAlmostEqual(timer["99%"], 50)
        self.assertNotIn("stddev", timer)

    def test_equal_samples(self) -> None:
        """Where all samples are equal, or there are none, the percentiles are exact."""
        self.assertEqual(self.figures("overlay.fetch.qset")["99%"], 0)
        for _ in range(3):
            self.metrics.fetch_quorum_set.record(0.25)
        timer = self.figures("overlay.fetch.qset")
        self.assertEqual({timer[name] for name in ("median", "75%", "99.9%", "100%")}, {250.0})

    def test_clear(self) -> None:
        """Counts, times and their rates begin anew; another domain is left as it is."""
        metrics = self.metrics
        metrics.bytes_read.inc(100)
        metrics.fetch_quorum_set.record(0.25)
        metrics.survey_refusals[SurveyRefusal.BAD_KEY].inc()
        metrics.flood_known_count.set(7)
        self.clock.advance(TICK_SECONDS)
        self.medida.tick()
        before = self.medida.report()
        self.medida.clear("over")
        self.assertEqual(self.medida.report(), before)
        self.medida.clear("overlay")
        self.assertEqual(metrics.flood_known_count.get(), 7)
        metrics.flood_known_count.set(0)
        expected = Medida(OverlayMetrics(), self.clock, lambda: {"overlay.inbound.live": 3})
        self.assertEqual(self.medida.report(), expected.report())
        metrics.bytes_read.inc(20)
        self.clock.advance(TICK_SECONDS)
        self.medida.tick()
        read = self.figures("overlay.byte.read")
        self.assertEqual((read["mean_rate"], read["1_min_rate"]), (4.0, 4.0))
        self.medida.clear()
        self.assertEqual(metrics.bytes_read.get(), 0)

    def test_gauges(self) -> None:
        """What is only looked at when it is asked for is fresh."""
        self.metrics.refreshers.append(lambda: self.metrics.flood_known_count.set(7))
        self.assertEqual(
            self.figures("overlay.memory.flood-known"), {"type": "counter", "count": 7}
        )
        self.assertEqual(self.figures("overlay.inbound.live"), {"type": "counter", "count": 3})

    def test_filter(self) -> None:
        """A domain or full names, exactly; an unknown one matches nothing, an empty one all."""
        everything = self.medida.report()
        self.assertEqual(self.medida.report("overlay"), everything)
        self.assertEqual(self.medida.report(""), everything)
        self.assertEqual(self.medida.report("over"), {})
        self.assertEqual(self.medida.report("overlay.byte"), {})
        both = self.medida.report("overlay.byte.read,overlay.byte.write,scp")
        self.assertEqual(list(both), ["overlay.byte.read", "overlay.byte.write"])
