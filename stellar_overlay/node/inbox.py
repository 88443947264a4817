"""Messages as an async iterator: what it has not read yet, held or, if so wished, lost."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from weakref import finalize

from twisted.internet.defer import Deferred

from stellar_overlay.metrics import Counter
from stellar_overlay.node.observer import Observer, OverlayMessage

MAX_LOSSY_BYTES = 16 * 1024 * 1024
"""Unread bytes that a lossy subscription keeps; the largest message of all fits in."""


class Subscription(AsyncIterator[OverlayMessage]):
    """Messages in the order in which they came, each held until the next one is asked for.

    Ends when it is cancelled, the overlay stops, or nobody has it any more: leaving the loop is
    enough to let go of what was not read.

    :param call: calls a function in the thread of the transports, from whatever thread.
    """

    def __init__(
        self, observer: Observer, inbox: Inbox, call: Callable[[Callable[[], object]], object]
    ) -> None:
        self._observer = observer
        self._inbox = inbox
        # Whoever collects garbage may be a thread that must touch no transport.
        finalize(self, call, observer.cancel).atexit = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> OverlayMessage:
        return await self._inbox.next()

    @property
    def lost(self) -> int:
        """How many messages were dropped unread; 0 unless the subscription is lossy."""
        return self._inbox.unread.lost

    def cancel(self) -> None:
        """End the iteration and return the credit of everything that was not read."""
        self._observer.cancel()


class Inbox:
    """The reader's end of a subscription. It does not know the subscription."""

    def __init__(self, unread: Unread) -> None:
        self.unread = unread
        self._reader: Deferred[None] | None = None
        self._is_closed = False

    async def next(self) -> OverlayMessage:
        """Release the last message and return the next one.

        :raises StopAsyncIteration: when there is none and will be none.
        """
        if self._reader is not None:
            raise RuntimeError("somebody waits for the next message already")
        self.unread.release()
        while (message := self.unread.pop()) is None:
            if self._is_closed:
                raise StopAsyncIteration
            self._reader = Deferred()
            try:
                await self._reader
            finally:
                self._reader = None
        return message

    def put(self, message: OverlayMessage) -> Deferred[None] | None:
        """Take a message; the Deferred fires when the one after it is asked for."""
        done = self.unread.put(message)
        self._wake()
        return done

    def close(self) -> None:
        """Forget what was not read, and wake whoever waits for more."""
        self._is_closed = True
        self.unread.clear()
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)


class Unread(Protocol):
    """Messages that wait for the reader of a subscription.

    :ivar lost: how many were dropped.
    """

    lost: int

    def put(self, message: OverlayMessage) -> Deferred[None] | None:
        """Add the youngest; return what fires when the reader is done with it, if it is held."""
        ...

    def pop(self) -> OverlayMessage | None:
        """Remove and return the oldest; None if there is none."""
        ...

    def release(self) -> None:
        """Note that the reader is done with the one that it got last."""
        ...

    def clear(self) -> None:
        """Forget all; their credit is returned by who cancels the observer."""
        ...


class HeldUnread:
    """Keeps everything: nobody sends more than was granted, and what waits here is not."""

    def __init__(self) -> None:
        self.lost = 0
        self._waiting: deque[tuple[OverlayMessage, Deferred[None]]] = deque()
        self._last: Deferred[None] | None = None

    def put(self, message: OverlayMessage) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._waiting.append((message, done))
        return done

    def pop(self) -> OverlayMessage | None:
        if not self._waiting:
            return None
        message, self._last = self._waiting.popleft()
        return message

    def release(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.callback(None)

    def clear(self) -> None:
        self._waiting.clear()
        self._last = None


class LossyUnread:
    """Holds nobody's credit: keeps the youngest messages and counts the others.

    :param max_messages: how many there may be; together at most :data:`MAX_LOSSY_BYTES`.
    :param lost_in_all: counts them, too.
    """

    def __init__(self, max_messages: int, lost_in_all: Counter) -> None:
        self.lost = 0
        self._max_messages = max_messages
        self._lost_in_all = lost_in_all
        self._waiting: deque[OverlayMessage] = deque()
        self._bytes = 0

    def put(self, message: OverlayMessage) -> None:
        waiting = self._waiting
        waiting.append(message)
        self._bytes += len(message.body)
        while len(waiting) > self._max_messages or self._bytes > MAX_LOSSY_BYTES:
            self._bytes -= len(waiting.popleft().body)
            self.lost += 1
            self._lost_in_all.inc()

    def pop(self) -> OverlayMessage | None:
        if not self._waiting:
            return None
        message = self._waiting.popleft()
        self._bytes -= len(message.body)
        return message

    def release(self) -> None:
        pass

    def clear(self) -> None:
        self._waiting.clear()
        self._bytes = 0
