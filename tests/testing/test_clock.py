"""Time in a simulation: exact, in order, and compatible with Twisted's own clock."""

from __future__ import annotations

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.testing.clock import SimulatedClock


class SimulatedClockTests(SynchronousTestCase):
    """Each call sees the moment it was due."""

    def setUp(self) -> None:
        self.clock = SimulatedClock()
        self.seen: list[tuple[str, float]] = []

    def see(self, name: str) -> None:
        self.seen.append((name, self.clock.seconds()))

    def test_moments(self) -> None:
        """Whatever the step, and also what a call starts; equal moments in the order of asking."""
        self.clock.callLater(3, self.see, "c")
        self.clock.callLater(1, self.see, "a")
        self.clock.callLater(1, self.see, "b")
        self.clock.callLater(1.5, lambda: self.clock.callLater(1, self.see, "later"))
        self.clock.callLater(10, self.see, "not yet")
        self.clock.advance(5)
        self.assertEqual(self.seen, [("a", 1), ("b", 1), ("later", 2.5), ("c", 3)])
        self.assertEqual(self.clock.seconds(), 5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_no_time(self) -> None:
        """What is due now happens when no time passes, and what it starts for now as well."""
        self.clock.callLater(0, lambda: self.clock.callLater(0, self.see, "now"))
        self.clock.advance(0)
        self.assertEqual(self.seen, [("now", 0)])

    def test_moving(self) -> None:
        """A call can be put off, forward, or off for good, also by another one."""
        off, on, gone = (self.clock.callLater(2, self.see, name) for name in ("off", "on", "gone"))
        self.clock.callLater(1, off.delay, 5)
        self.clock.callLater(0.5, on.reset, 0.25)
        self.clock.callLater(1.5, gone.cancel)
        again = self.clock.callLater(3, self.see, "again")
        self.clock.callLater(1, again.reset, 20)
        self.clock.callLater(2, again.reset, 3)
        self.clock.advance(30)
        self.assertEqual(self.seen, [("on", 0.75), ("again", 5), ("off", 7)])
        self.assertRaises(AlreadyCalled, off.reset, 1)
        self.assertRaises(AlreadyCancelled, gone.delay, 1)

    def test_loops(self) -> None:
        """It is a Clock, for loops as for all else."""
        self.assertIsInstance(self.clock, Clock)
        loop = LoopingCall(self.see, "tick")
        loop.clock = self.clock
        loop.start(3)
        self.clock.pump([4, 4])
        loop.stop()
        self.assertEqual(self.seen, [("tick", 0), ("tick", 3), ("tick", 6)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
