"""What a node does every so often, and when it does not."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.node.loops import Loop

PERIOD = 0.25
"""Sums of it are exact."""


class LoopTests(SynchronousTestCase):
    """A function that says whether there is more to do."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.called: list[float] = []
        self.has_more = False

    def run_once(self) -> bool:
        """Note the time, in periods; say whether there is more to do."""
        self.called.append(self.clock.seconds() / PERIOD)
        return self.has_more

    def loop(self, function: Callable[[], bool] | None = None, *, is_idle: bool = False) -> Loop:
        """Return a loop that was started."""
        loop = Loop("test", function or self.run_once, PERIOD, self.clock, is_idle=is_idle)
        loop.startService()
        return loop

    def wait(self, periods: float) -> None:
        """Let so many periods pass, in small steps."""
        self.clock.pump([PERIOD / 4] * round(4 * periods))

    def test_as_long_as_there_is_something_to_do(self) -> None:
        """Once a period, the first time after one."""
        self.has_more = True
        loop = self.loop()
        self.assertEqual(self.called, [])
        self.wait(3)
        self.assertEqual(self.called, [1, 2, 3])
        self.has_more = False
        self.wait(10)
        self.assertEqual(self.called, [1, 2, 3, 4])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        loop.stopService()

    def test_nothing_ticks_when_there_is_nothing_to_do(self) -> None:
        """No timer is left after the first look; none at all for what begins idle."""
        self.loop()
        self.wait(1)
        self.assertEqual((len(self.called), self.clock.getDelayedCalls()), (1, []))
        self.loop(is_idle=True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waking(self) -> None:
        """The next call is one period from then, however long it slept."""
        loop = self.loop(is_idle=True)
        self.wait(4.5)
        loop.wake()
        self.assertEqual(self.called, [])
        self.wait(1)
        self.assertEqual(self.called, [5.5])
        self.wait(3)
        loop.wake()
        self.wait(3)
        self.assertEqual(self.called, [5.5, 9.5])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waking_again_and_again(self) -> None:
        """Neither hurries it nor puts it off, and costs one timer."""
        loop = self.loop(is_idle=True)
        for _ in range(8):
            loop.wake()
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.wait(0.25)
        self.assertEqual(self.called, [1, 2])

    def test_a_function_that_raises(self) -> None:
        """Is logged under its name, and called again: what it had to do is not done."""
        failures = [ZeroDivisionError(), KeyError("x")]

        def fail() -> bool:
            if failures:
                raise failures.pop()
            return self.run_once()

        with capturedLogs() as events:
            self.loop(fail)
            self.wait(10)
        self.assertEqual(self.called, [3])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, KeyError)), 2)
        self.assertEqual([formatEvent(event) for event in events], ["The loop test failed"] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping(self) -> None:
        """No timer is left, and waking it does nothing."""
        self.has_more = True
        loop = self.loop()
        self.wait(1)
        loop.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        loop.wake()
        self.wait(5)
        self.assertEqual(self.called, [1])

    def test_stopping_what_sleeps(self) -> None:
        """Is as good."""
        loop = self.loop(is_idle=True)
        loop.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopping_from_within(self) -> None:
        """A function may stop its own loop, whatever it returns."""

        def stop() -> bool:
            loop.stopService()
            return self.run_once()

        loop = self.loop(stop)
        for self.has_more in (True, False):
            loop.startService()
            self.wait(5)
            self.assertEqual(self.clock.getDelayedCalls(), [], self.has_more)
        self.assertEqual(len(self.called), 2)

    def test_starting_again(self) -> None:
        """It goes on as if it was new."""
        self.has_more = True
        loop = self.loop()
        self.wait(1)
        loop.stopService()
        self.wait(1.5)
        loop.startService()
        self.wait(2)
        self.assertEqual(self.called, [1, 3.5, 4.5])
        loop.stopService()

    def test_a_clock_that_jumps(self) -> None:
        """What was missed is not made up for."""
        self.has_more = True
        loop = self.loop()
        self.clock.advance(100 * PERIOD)
        self.assertEqual(len(self.called), 1)
        loop.stopService()

    def test_before_it_was_started(self) -> None:
        """Nothing is called, however often it is woken."""
        loop = Loop("test", self.run_once, PERIOD, self.clock)
        loop.wake()
        self.wait(5)
        self.assertEqual((self.called, self.clock.getDelayedCalls()), ([], []))

    def test_waking_before_the_start(self) -> None:
        """There is something to do, then: one period after the start, though it began idle."""
        loop = Loop("test", self.run_once, PERIOD, self.clock, is_idle=True)
        loop.wake()
        self.wait(2)
        loop.startService()
        self.wait(5)
        self.assertEqual(self.called, [3])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waking_from_within(self) -> None:
        """The function has made something to do for the next time, whatever it returns."""

        def run_twice() -> bool:
            if not self.called:
                loop.wake()
            return self.run_once()

        loop = self.loop(run_twice)
        self.wait(10)
        self.assertEqual(self.called, [1, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waking_and_stopping_from_within(self) -> None:
        """Nothing ticks; what it was woken for is done after the next start."""

        def wake_and_stop() -> bool:
            if not self.called:
                loop.wake()
                loop.stopService()
            return self.run_once()

        loop = self.loop(wake_and_stop)
        self.wait(4)
        self.assertEqual((self.called, self.clock.getDelayedCalls()), ([1], []))
        loop.startService()
        self.wait(4)
        self.assertEqual((self.called, self.clock.getDelayedCalls()), ([1, 5], []))
