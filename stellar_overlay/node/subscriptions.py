"""Who listens to the overlay: observers, and async iterators made of them.

A message is processed when its last consumer is done with it, and only then is its sender's
credit returned. So a slow consumer slows its peers down, and nothing piles up here but what the
peers were granted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import finalize

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.identity import PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import MESSAGE_TYPES, Message, MessageType

if TYPE_CHECKING:
    from stellar_sdk.xdr import StellarMessage


@dataclass(frozen=True, eq=False)
class OverlayMessage:
    """A message and where it came from.

    :ivar received_at: Unix time in seconds when its bytes arrived.
    """

    from_peer: PeerId
    type: MessageType
    body: bytes
    received_at: float

    @cached_property
    def message(self) -> StellarMessage:
        """The decoded message, made on first use.

        :raises XdrError: never for a message that a peer sent; those were checked.
        """
        return Message(self.body).decoded


Callback = Callable[[OverlayMessage], "Deferred[Any] | Coroutine[Any, Any, Any] | None"]


class Observer:
    """A callback and what it wants to see; :meth:`cancel` ends it."""

    def __init__(
        self, callback: Callback, types: frozenset[MessageType], owner: Subscriptions
    ) -> None:
        self.callback = callback
        self.types = types
        self.is_cancelled = False
        self._owner = owner

    def cancel(self) -> None:
        """See nothing from now on; twice is harmless."""
        self.is_cancelled = True
        self._owner.remove(self)


class Subscription(AsyncIterator[OverlayMessage]):
    """Messages in the order in which they came, each held until the next one is asked for.

    Ends when it is cancelled, the overlay stops, or nobody has it any more: leaving the loop is
    enough to let go of what was not read.
    """

    def __init__(self, types: frozenset[MessageType], owner: Subscriptions) -> None:
        self._inbox = _Inbox(types, owner)
        # Whoever collects garbage may be a thread that must touch no transport.
        finalize(self, owner.call, self._inbox.close).atexit = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> OverlayMessage:
        return await self._inbox.next()

    def cancel(self) -> None:
        """End the iteration and return the credit of everything that was not read."""
        self._inbox.close()


class _Inbox:
    """What a subscription has not read yet. It does not know the subscription."""

    def __init__(self, types: frozenset[MessageType], owner: Subscriptions) -> None:
        self._waiting: deque[tuple[OverlayMessage, Deferred[None]]] = deque()
        self._held: Deferred[None] | None = None
        self._reader: Deferred[None] | None = None
        self._is_closed = False
        self._observer = Observer(self._take, types, owner)
        owner.add(self._observer, self.close)

    async def next(self) -> OverlayMessage:
        """Release the last message and return the next one.

        :raises StopAsyncIteration: when there is none and will be none.
        """
        if self._reader is not None:
            raise RuntimeError("somebody waits for the next message already")
        self._release()
        while not self._waiting:
            if self._is_closed:
                raise StopAsyncIteration
            self._reader = Deferred()
            try:
                await self._reader
            finally:
                self._reader = None
        message, self._held = self._waiting.popleft()
        return message

    def close(self) -> None:
        """Return the credit of everything that was not read, and take nothing more."""
        self._is_closed = True
        self._observer.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _, done in waiting:
            done.callback(None)
        self._release()
        self._wake()

    def _take(self, message: OverlayMessage) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._waiting.append((message, done))
        self._wake()
        return done

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.callback(None)

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)


class Subscriptions:
    """All observers, by the type of message that they want.

    :param call: calls a function in the thread of the transports, from whatever thread.
    """

    _log = Logger()

    def __init__(
        self,
        metrics: OverlayMetrics,
        call: Callable[[Callable[[], object]], object] = lambda function: function(),
    ) -> None:
        self.call = call
        self._metrics = metrics
        self._observers: dict[Observer, Callable[[], None]] = {}
        self._is_ended = False
        self.by_kind: dict[int, tuple[Observer, ...]] = {}
        """The observers of each number of a message type; absent where there is none."""

    def observe(self, callback: Callback, *types: MessageType | int) -> Observer:
        """Call ``callback`` with each message of ``types``, or of all types if none is given.

        :raises TypeError: when one of ``types`` is none, or the callback cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"the callback must be callable, not {_shown(callback)}")
        observer = Observer(callback, _message_types(types), self)
        self.add(observer, observer.cancel)
        return observer

    def subscribe(self, *types: MessageType | int) -> Subscription:
        """Return the messages of ``types``, or of all types, as an async iterator.

        :raises TypeError: when one of ``types`` is none.
        """
        return Subscription(_message_types(types), self)

    def add(self, observer: Observer, end: Callable[[], None]) -> None:
        """Take an observer; ``end`` is called when the overlay stops, or has stopped already."""
        if self._is_ended:
            end()
        else:
            self._observers[observer] = end
            self._index()

    def remove(self, observer: Observer) -> None:
        """Forget an observer."""
        if self._observers.pop(observer, None) is not None:
            self._index()

    def end_all(self) -> None:
        """End every observer: the overlay stops."""
        self._is_ended = True
        for end in list(self._observers.values()):
            end()

    def deliver(
        self, from_peer: PeerId, kind: int, body: bytes, received_at: float
    ) -> Deferred[Any] | None:
        """Show a message to its observers; the Deferred fires when the last is done with it.

        None means that all of them are done already. What an observer raises is logged and
        counted, and concerns nobody else.
        """
        message = OverlayMessage(from_peer, MESSAGE_TYPES[kind], body, received_at)
        pending = []
        for observer in self.by_kind.get(kind, ()):
            if observer.is_cancelled:  # by one that saw the message before it
                continue
            done = self._call(observer, message)
            if done is not None:
                done.addErrback(self._note_failure, message)
                pending.append(done)
        return DeferredList(pending) if pending else None

    def _call(self, observer: Observer, message: OverlayMessage) -> Deferred[Any] | None:
        try:
            result = observer.callback(message)
        except BaseException:  # a cancelled task is no reason to stop the node, nor is sys.exit()
            self._note_failure(Failure(), message)
            return None
        if isinstance(result, Deferred):
            return result
        return Deferred.fromCoroutine(result) if isinstance(result, Coroutine) else None

    def _note_failure(self, failure: Failure, message: OverlayMessage) -> None:
        self._metrics.observer_errors.inc()
        self._log.failure(
            "An observer failed on {kind} from {peer}",
            failure=failure,
            kind=message.type.name,
            peer=message.from_peer.strkey,
        )

    def _index(self) -> None:
        by_kind: dict[int, list[Observer]] = {}
        for observer in self._observers:
            for kind in observer.types:
                by_kind.setdefault(int(kind), []).append(observer)
        self.by_kind = {kind: tuple(observers) for kind, observers in by_kind.items()}


def _message_types(types: tuple[MessageType | int, ...]) -> frozenset[MessageType]:
    """Return the types that are wanted: these, or all when there are none.

    :raises TypeError: when one is neither a type of message nor its number.
    """
    for kind in types:
        if not isinstance(kind, int) or isinstance(kind, bool) or kind not in MESSAGE_TYPES:
            raise TypeError(
                "types of messages are given one by one, each a MessageType or its number, not "
                + _shown(kind)
            )
    return frozenset(MESSAGE_TYPES[kind] for kind in types or MESSAGE_TYPES)


def _shown(value: object) -> str:
    return f"{value!r:.100}"
