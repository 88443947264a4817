"""Counters and timers, from any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, SurveyRefusal
from stellar_overlay.metrics import Counter, OverlayMetrics, Timer, TimerSnapshot

THREADS, TIMES = 8, 2000


def in_threads(work: Callable[[int], None]) -> None:
    """Run ``work`` often in several threads at once, each with its number."""

    def run(number: int) -> None:
        for _ in range(TIMES):
            work(number)

    threads = [Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class CounterTests(SynchronousTestCase):
    """A number that grows, or is set."""

    def test_counting(self) -> None:
        """It begins at 0, grows by 1 or by more, can be set, and says what it was when reset."""
        counter = Counter()
        self.assertEqual(counter.get(), 0)
        counter.inc()
        counter.inc(41)
        self.assertEqual(counter.get(), 42)
        counter.set(7)
        self.assertEqual((counter.reset(), counter.get()), (7, 0))

    def test_threads(self) -> None:
        """No increment is lost."""
        counter = Counter()
        in_threads(lambda number: counter.inc(number))
        self.assertEqual(counter.get(), sum(range(THREADS)) * TIMES)

    def test_resetting_loses_nothing(self) -> None:
        """What several threads take out is what others put in."""
        counter = Counter()
        taken = Counter()
        in_threads(lambda number: counter.inc() if number % 2 else taken.inc(counter.reset()))
        self.assertEqual(taken.get() + counter.get(), THREADS // 2 * TIMES)


class TimerTests(SynchronousTestCase):
    """How often, and how long."""

    def test_empty(self) -> None:
        """Without a sample everything is 0."""
        nothing = TimerSnapshot(count=0, total=0.0, avg=0.0, min=0.0, max=0.0)
        self.assertEqual(Timer().snapshot(), nothing)

    @settings(derandomize=True, max_examples=100)
    @given(st.lists(st.floats(0, 1e6), min_size=1))
    def test_figures(self, samples: list[float]) -> None:
        """Count, total, average, least and most."""
        timer = Timer()
        for sample in samples:
            timer.record(sample)
        figures = timer.snapshot()
        self.assertEqual((figures.count, figures.min), (len(samples), min(samples)))
        self.assertEqual(figures.max, max(samples))
        self.assertAlmostEqual(figures.total, sum(samples), delta=1e-6 * figures.total)
        self.assertAlmostEqual(figures.avg * figures.count, figures.total, delta=1e-6)

    def test_reset(self) -> None:
        """All samples are forgotten, the least and the greatest as well."""
        timer = Timer()
        timer.record(5.0)
        timer.reset()
        timer.record(7.0)
        self.assertEqual((timer.snapshot().count, timer.snapshot().min), (1, 7.0))

    def test_threads(self) -> None:
        """No sample is lost."""
        timer = Timer()
        in_threads(lambda number: timer.record(float(number)))
        figures = timer.snapshot()
        self.assertEqual((figures.count, figures.max), (THREADS * TIMES, THREADS - 1.0))
        self.assertEqual(figures.total, float(sum(range(THREADS)) * TIMES))


class OverlayMetricsTests(SynchronousTestCase):
    """All figures of one overlay."""

    def test_snapshot(self) -> None:
        """Every figure is there under its name, with the value it has now."""
        metrics = OverlayMetrics()
        metrics.messages_read.inc(3)
        metrics.connection_latency.record(0.25)
        metrics.drops[DropReason.SHUTDOWN].inc()
        metrics.survey_refusals[SurveyRefusal.BAD_KEY].inc(2)
        before = metrics.snapshot()
        metrics.messages_read.inc()
        self.assertEqual(before["messages_read"], 3)
        self.assertEqual(
            before["connection_latency"],
            TimerSnapshot(count=1, total=0.25, avg=0.25, min=0.25, max=0.25),
        )
        self.assertEqual(before["drop.SHUTDOWN"], 1)
        self.assertEqual(before["survey_refused.BAD_KEY"], 2)
        named = {
            name for name, value in vars(metrics).items() if isinstance(value, Counter | Timer)
        }
        drops = {f"drop.{reason.name}" for reason in DropReason}
        refusals = {f"survey_refused.{refusal.name}" for refusal in SurveyRefusal}
        self.assertEqual(set(before), named | drops | refusals)

    def test_every_reason_has_a_counter(self) -> None:
        """Of its own, at 0."""
        metrics = OverlayMetrics()
        self.assertEqual(set(metrics.drops), set(DropReason))
        self.assertEqual(set(metrics.survey_refusals), set(SurveyRefusal))
        metrics.drops[DropReason.IDLE].inc()
        self.assertEqual(sum(counter.get() for counter in metrics.drops.values()), 1)

    def test_two_overlays_share_nothing(self) -> None:
        """Each has its own figures."""
        one, other = OverlayMetrics(), OverlayMetrics()
        one.bytes_read.inc()
        one.drops[DropReason.IDLE].inc()
        self.assertEqual((other.bytes_read.get(), other.drops[DropReason.IDLE].get()), (0, 0))
