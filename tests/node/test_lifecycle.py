"""Starting once, which takes time and may fail, and stopping at any moment."""

from __future__ import annotations

from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import AlreadyStarted, NotStarted, ShuttingDown
from stellar_overlay.node.lifecycle import Lifecycle


class Part(Service):
    """A child that notes when it is started and stopped, and takes its time for the latter."""

    def __init__(self, log: list[str], mark: str) -> None:
        self.stopping: Deferred[None] | None = None
        self._log_of = log
        self._mark = mark

    def startService(self) -> None:
        super().startService()
        self._log_of.append(f"start {self._mark}")

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self._log_of.append(f"stop {self._mark}")
        return self.stopping


class Whole(Lifecycle):
    """Opens and closes when it is told to.

    :ivar opening: what it waits for; ``closing`` likewise.
    """

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.opening: Deferred[None] = Deferred()
        self.closing: Deferred[None] | None = None
        self._log_of = log

    async def open(self) -> None:
        self._log_of.append("open")
        await self.opening
        self._log_of.append("is open")

    async def close(self, *, was_running: bool) -> None:
        self._log_of.append(f"close {was_running}")
        if self.closing is not None:
            await self.closing


class BadPart(Part):
    """A child that cannot be started."""

    def startService(self) -> None:
        raise ZeroDivisionError


STOPPED = ["stop bad", "stop b", "stop a"]
"""What a whole with such a part does when that has failed."""


class LifecycleTestCase(SynchronousTestCase):
    """One whole with two parts, and what happens to them."""

    def setUp(self) -> None:
        self.log: list[str] = []
        self.whole = Whole(self.log)
        self.parts = [Part(self.log, mark) for mark in "ab"]
        for part in self.parts:
            part.setServiceParent(self.whole)

    def start(self) -> Deferred[None]:
        """Begin to start."""
        return Deferred.fromCoroutine(self.whole.start())

    def started(self) -> None:
        """Start, at once."""
        self.whole.opening.callback(None)
        self.successResultOf(self.start())
        self.log.clear()

    def error_of(self, deferred: Deferred[Any], kind: type[Exception]) -> Exception:
        """Return what a Deferred has failed with."""
        failure = self.failureResultOf(deferred, kind)
        assert isinstance(failure.value, kind)
        return failure.value


class OrderTests(LifecycleTestCase):
    """What comes before what."""

    def test_starting(self) -> None:
        """The children start when everything is open, in their order; then the caller goes on."""
        asked = self.whole.when_started()
        starting = self.start()
        self.assertEqual(self.log, ["open"])
        self.assertFalse(self.whole.running)
        with self.assertRaises(NotStarted):
            self.whole.check_running()
        asked.addCallback(lambda _: self.log.append("asked"))
        self.whole.opening.callback(None)
        self.assertEqual(self.log, ["open", "is open", "start a", "start b", "asked"])
        self.successResultOf(starting)
        self.whole.check_running()
        self.assertTrue(self.whole.running)

    def test_stopping(self) -> None:
        """The children stop, the last first; when the slowest has, everything is closed."""
        self.started()
        waiting = self.parts[0].stopping = Deferred()
        stopping = self.whole.stopService()
        self.assertEqual(self.log, ["stop b", "stop a"])
        with self.assertRaises(NotStarted):
            self.whole.check_running()
        self.assertNoResult(stopping)
        self.whole.closing = Deferred()
        waiting.callback(None)
        self.assertEqual(self.log, ["stop b", "stop a", "close True"])
        self.assertNoResult(stopping)
        self.whole.closing.callback(None)
        self.successResultOf(stopping)

    def test_a_child_that_fails_to_stop(self) -> None:
        """The others stop, and everything is closed."""
        self.started()
        failing = self.parts[1].stopping = Deferred()
        failing.errback(ZeroDivisionError())
        self.successResultOf(self.whole.stopService())
        self.assertEqual(self.log, ["stop b", "stop a", "close True"])
        failing.addErrback(lambda failure: None)  # else it is logged some day

    def test_as_a_child(self) -> None:
        """In an application it starts when that does, and holds up its stop."""
        application = MultiService()
        self.whole.setServiceParent(application)
        application.startService()
        self.whole.opening.callback(None)
        self.whole.closing = Deferred()
        stopping = application.stopService()
        self.assertNoResult(stopping)
        self.whole.closing.callback(None)
        self.successResultOf(stopping)


class FailureTests(LifecycleTestCase):
    """What cannot be opened."""

    def test_late(self) -> None:
        """What was opened is closed, and only then is the caller told; no child was started."""
        starting, asked = self.start(), self.whole.when_started()
        self.whole.closing = Deferred()
        self.whole.opening.errback(ZeroDivisionError())
        self.assertEqual(self.log, ["open", "close False"])
        self.assertNoResult(starting)
        self.assertNoResult(asked)
        self.whole.closing.callback(None)
        error = self.error_of(starting, ZeroDivisionError)
        self.assertIs(self.error_of(asked, ZeroDivisionError), error)
        self.assertIs(self.error_of(self.whole.when_started(), ZeroDivisionError), error)
        self.assertFalse(self.whole.running)

    def test_of_a_child(self) -> None:
        """What was started is stopped, what was opened is closed; then all are told."""
        bad = BadPart(self.log, "bad")
        bad.setServiceParent(self.whole)
        asked, starting = self.whole.when_started(), self.start()
        self.whole.closing = Deferred()
        self.whole.opening.callback(None)
        self.assertEqual(self.log[2:], ["start a", "start b", *STOPPED, "close True"])
        self.assertNoResult(starting)
        self.whole.closing.callback(None)
        error = self.error_of(starting, ZeroDivisionError)
        self.assertIs(self.error_of(asked, ZeroDivisionError), error)
        self.assertFalse(self.whole.running)
        with self.assertRaises(NotStarted):
            self.whole.check_running()
        self.log.clear()
        self.successResultOf(self.whole.stopService())
        self.assertEqual(self.log, [])

    def test_of_a_child_and_of_the_end(self) -> None:
        """Why it did not start is told; what failed then is logged."""
        BadPart(self.log, "bad").setServiceParent(self.whole)
        asked, starting = self.whole.when_started(), self.start()
        self.whole.closing = Deferred()
        self.whole.opening.callback(None)
        self.whole.closing.errback(KeyError("database"))
        self.error_of(starting, ZeroDivisionError)
        self.error_of(asked, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_both_ends(self) -> None:
        """What cannot be opened cannot be closed: all are told the former; the log has both."""
        asked, starting = self.whole.when_started(), self.start()
        self.whole.closing = Deferred()
        self.whole.opening.errback(ZeroDivisionError())
        with capturedLogs() as events:
            self.whole.closing.errback(KeyError())
        error = self.error_of(starting, ZeroDivisionError)
        self.assertIs(self.error_of(asked, ZeroDivisionError), error)
        self.assertIs(self.error_of(self.whole.when_started(), ZeroDivisionError), error)
        self.assertEqual(list(map(formatEvent, events)), ["cannot close what was opened"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.successResultOf(self.whole.stopService())

    def test_it_is_final(self) -> None:
        """It cannot be started again, and stopping it closes nothing twice."""
        self.whole.opening.errback(ZeroDivisionError())
        self.error_of(self.start(), ZeroDivisionError)
        self.error_of(self.start(), AlreadyStarted)
        self.log.clear()
        self.successResultOf(self.whole.stopService())
        self.assertEqual(self.log, [])
        with self.assertRaises(NotStarted):
            self.whole.check_running()

    def test_as_a_service(self) -> None:
        """It is logged if nobody asked, and nothing else is."""
        self.whole.opening.errback(ZeroDivisionError("no port"))
        with capturedLogs() as events:
            self.whole.startService()
        self.assertEqual([formatEvent(event) for event in events], ["cannot start: no port"])

    def test_as_a_service_of_which_somebody_asked(self) -> None:
        """Who asked is told, and the log is not."""
        asked = self.whole.when_started()
        self.whole.opening.errback(ZeroDivisionError("no port"))
        with capturedLogs() as events:
            self.whole.startService()
        self.assertEqual(list(events), [])
        self.error_of(asked, ZeroDivisionError)

    def test_starting_twice_as_a_service(self) -> None:
        """Is logged, and changes nothing."""
        self.started()
        with capturedLogs() as events:
            self.whole.startService()
        (event,) = events
        self.assertRegex(formatEvent(event), "cannot start: .* is started once")
        self.whole.check_running()
        self.assertEqual(self.log, [])


class StopWhileStartingTests(LifecycleTestCase):
    """Who stops it does not wait for what hangs."""

    def test_the_stop_is_not_held_up(self) -> None:
        """It is closed at once, and what is opened later is closed again."""
        starting, asked = self.start(), self.whole.when_started()
        self.successResultOf(self.whole.stopService())
        self.assertEqual(self.log, ["open", "close False"])
        self.error_of(asked, NotStarted)
        self.assertNoResult(starting)
        self.whole.opening.callback(None)
        self.assertEqual(self.log[2:], ["is open", "close False"])
        self.error_of(starting, ShuttingDown)
        self.assertFalse(self.whole.running)

    def test_what_fails_after_the_stop(self) -> None:
        """The caller of start is told why; whoever stopped it is done already."""
        starting = self.start()
        self.successResultOf(self.whole.stopService())
        self.whole.opening.errback(ZeroDivisionError())
        self.error_of(starting, ZeroDivisionError)
        self.successResultOf(self.whole.stopService())
        self.assertEqual(self.log, ["open", "close False", "close False"])
        self.error_of(self.whole.when_started(), ZeroDivisionError)

    def test_cancelling_the_start(self) -> None:
        """Ends it like a failure."""
        starting = self.start()
        starting.cancel()
        self.failureResultOf(starting)
        self.assertEqual(self.log, ["open", "close False"])
        self.error_of(self.start(), AlreadyStarted)
        with self.assertRaises(NotStarted):
            self.whole.check_running()

    def test_the_stop_from_within_the_start(self) -> None:
        """Whoever hears that it runs may stop it at once."""
        asked = self.whole.when_started()
        stopping: list[Deferred[None]] = []
        asked.addCallback(lambda _: stopping.append(self.whole.stopService()))
        self.whole.opening.callback(None)
        self.successResultOf(self.start())
        self.successResultOf(stopping[0])
        expected = ["start a", "start b", "stop b", "stop a", "close True"]
        self.assertEqual(self.log[2:], expected)


class StopTests(LifecycleTestCase):
    """Stopping is done once."""

    def test_several_at_a_time(self) -> None:
        """All wait for the same end."""
        self.started()
        self.whole.closing = Deferred()
        stopping = [self.whole.stopService() for _ in range(3)]
        stopping.append(Deferred.fromCoroutine(self.whole.stop()))
        for deferred in stopping:
            self.assertNoResult(deferred)
        self.whole.closing.callback(None)
        for deferred in stopping:
            self.successResultOf(deferred)
        self.assertEqual(self.log, ["stop b", "stop a", "close True"])

    def test_one_that_gives_up_waiting(self) -> None:
        """Ends nobody else's wait, nor the stop itself."""
        self.started()
        self.whole.closing = Deferred()
        impatient, patient = self.whole.stopService(), self.whole.stopService()
        impatient.cancel()
        self.failureResultOf(impatient)
        self.assertNoResult(patient)
        self.whole.closing.callback(None)
        self.successResultOf(patient)

    def test_what_never_started(self) -> None:
        """Is closed all the same, once; who asked, or asks later, hears that it will not start."""
        asked = self.whole.when_started()
        self.whole.closing = Deferred()
        stopping = [self.whole.stopService(), self.whole.stopService()]
        self.assertEqual(self.log, ["close False"])
        self.assertNoResult(stopping[0])
        self.whole.closing.callback(None)
        for deferred in (*stopping, self.whole.stopService()):
            self.successResultOf(deferred)
        self.assertEqual(self.log, ["close False"])
        self.error_of(asked, NotStarted)
        self.error_of(self.whole.when_started(), NotStarted)
        self.error_of(self.start(), AlreadyStarted)

    def test_a_failure_to_close(self) -> None:
        """Whoever stops it is told."""
        self.started()
        self.whole.closing = Deferred()
        stopping = self.whole.stopService()
        self.whole.closing.errback(ZeroDivisionError())
        self.error_of(stopping, ZeroDivisionError)

    def test_all_are_told_of_a_failure_to_close(self) -> None:
        """Those who wait for the end, the one who began to, and whoever asks when it is over."""
        self.started()
        self.whole.closing = Deferred()
        stopping = [self.whole.stopService() for _ in range(3)]
        stopping.append(Deferred.fromCoroutine(self.whole.stop()))
        stopping[1].cancel()
        self.failureResultOf(stopping.pop(1))
        self.whole.closing.errback(ZeroDivisionError())
        for deferred in (*stopping, self.whole.stopService()):
            self.error_of(deferred, ZeroDivisionError)
        self.assertEqual(self.log, ["stop b", "stop a", "close True"])

    def test_stopping_again_from_within(self) -> None:
        """Who hears of the end may ask for it once more."""
        self.started()
        again: list[Deferred[None]] = []
        first = self.whole.stopService()
        first.addCallback(lambda _: again.append(self.whole.stopService()))
        self.successResultOf(first)
        self.successResultOf(again[0])

    def test_after_the_stop(self) -> None:
        """Who asks whether it started is told that it was stopped."""
        self.started()
        self.successResultOf(self.whole.when_started())
        self.successResultOf(self.whole.stopService())
        self.error_of(self.whole.when_started(), NotStarted)

    def test_who_waits_no_more(self) -> None:
        """A Deferred that was cancelled does no harm to the others."""
        gone, asked = self.whole.when_started(), self.whole.when_started()
        gone.cancel()
        self.failureResultOf(gone)
        self.whole.opening.callback(None)
        self.successResultOf(self.start())
        self.successResultOf(asked)
