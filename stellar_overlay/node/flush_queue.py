"""Writes once per turn: whatever a turn of the reactor makes many links say, each writes once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

FEW = 4
"""Links that are written to at once: a reactor's call costs as much as a write or two."""


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

    def add_all(self, links: Iterable[Flushable]) -> None:
        """Flush many links then."""
        self._dirty.update(dict.fromkeys(links))
        if not self._turns and self._call is None:
            self._call = self._clock.callLater(0, self._flush_later)

    def begin_turn(self) -> None:
        """Note that :meth:`end_turn` will follow; turns may nest."""
        self._turns += 1

    def end_turn(self) -> None:
        """Flush what the turn made dirty: at once if that is little.

        What goes to many waits for what the other links bring in the same turn of the reactor, so
        that each is written to once.
        """
        self._turns -= 1
        if self._turns or not self._dirty or self._call is not None:
            return
        if len(self._dirty) > FEW:
            self._call = self._clock.callLater(0, self._flush_later)
        else:
            self._flush()

    def _flush_later(self) -> None:
        self._call = None
        self._flush()

    def _flush(self) -> None:
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for link in dirty:
                link.flush()
