"""Writes once per turn: whatever a turn of the reactor makes many links say, each writes once."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Flushable(Protocol):
    """A link, as far as the queue knows it."""

    def flush(self) -> None:
        """Write what may leave."""
        ...


class FlushQueue:
    """The links that have something to send, flushed together once per turn of the reactor."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._dirty: dict[Flushable, None] = {}
        self._turns = 0
        self._call: IDelayedCall | None = None

    def add(self, link: Flushable) -> None:
        """Flush ``link`` when the present turn ends, or soon if there is none."""
        self._dirty[link] = None
        if not self._turns and self._call is None:
            self._call = self._clock.callLater(0, self._flush_later)

    def begin_turn(self) -> None:
        """Note that :meth:`end_turn` will follow; turns may nest."""
        self._turns += 1

    def end_turn(self) -> None:
        """Flush what the turn made dirty."""
        self._turns -= 1
        if not self._turns and self._dirty:
            self._flush()

    def _flush_later(self) -> None:
        self._call = None
        self._flush()

    def _flush(self) -> None:
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for link in dirty:
                link.flush()
