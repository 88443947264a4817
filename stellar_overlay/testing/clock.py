"""A clock for whole networks: exact to the moment, and quick with thousands of timers."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock


class SimulatedClock(Clock):
    """A :class:`~twisted.internet.task.Clock` on which each call sees the moment it was due.

    Twisted's own shows every call the end of the step instead, so that whatever follows from a
    call is late by up to a step, and sorts all timers at every one of them.
    """

    def callLater(  # noqa: N802
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002
        *args: object,
        **kw: object,
    ) -> DelayedCall:
        call = _Call(
            self.rightNow + delay, callable, args, kw, self.calls.remove, self._move, self.seconds
        )
        insort(self.calls, call)
        return call

    def advance(self, amount: float) -> None:
        """Let so many seconds pass: one moment after the other at which something is due."""
        end = self.rightNow + amount
        while self.calls and self.calls[0].getTime() <= end:
            call = self.calls.pop(0)
            call.called = 1
            self.rightNow = max(self.rightNow, call.getTime())
            call.func(*call.args, **call.kw)
        self.rightNow = end

    def _move(self, call: DelayedCall) -> None:
        """Put a call that was put off, or forward, where it belongs."""
        self.calls.remove(call)
        insort(self.calls, call)


class _Call(DelayedCall):
    """Says also when it is put off; Twisted's reactors find that out when it is due."""

    def reset(self, secondsFromNow: float) -> None:  # noqa: N803
        super().reset(secondsFromNow)
        self._settle()

    def delay(self, secondsLater: float) -> None:  # noqa: N803
        super().delay(secondsLater)
        self._settle()

    def _settle(self) -> None:
        self.activate_delay()
        self.resetter(self)
