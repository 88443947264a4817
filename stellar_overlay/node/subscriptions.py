"""Who listens to the overlay: observers, and async iterators made of them.

A message is processed when its last consumer is done with it, and only then is its sender's
credit returned. So a slow consumer slows its peers down, and nothing piles up here but what the
peers were granted. Who had rather lose messages than slow anybody down says so.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.holding import Claim, Holders
from stellar_overlay.node.inbox import HeldUnread, Inbox, LossyUnread, Subscription
from stellar_overlay.node.observer import Callback, Observer, OverlayMessage
from stellar_overlay.wire.message import MESSAGE_TYPES, MessageType

__all__ = ["Callback", "Observer", "OverlayMessage", "Subscription", "Subscriptions"]

ByKind = dict[int, tuple[Observer, ...]]


class Subscriptions:
    """All observers, by the type of message that they want.

    :param call: calls a function in the thread of the transports, from whatever thread.
    :param clock: for warnings of who holds messages for long; None gives none.
    """

    _log = Logger()

    def __init__(
        self,
        metrics: OverlayMetrics,
        call: Callable[[Callable[[], object]], object] = lambda function: function(),
        clock: Clock | None = None,
    ) -> None:
        self.call = call
        self._metrics = metrics
        self._holders = Holders(clock)
        self._observers: dict[Observer, None] = {}
        self._is_ended = False
        self.by_kind: ByKind = {}
        """The observers of each number of a message type; absent where there is none."""
        self.by_kind_duplicates: ByKind = {}
        """Those of them that want what was heard before, too."""

    def observe(
        self,
        callback: Callback,
        *types: MessageType | int,
        duplicates: bool = True,
        name: str | None = None,
    ) -> Observer:
        """Call ``callback`` with each message of ``types``, or of all types if none is given.

        :param duplicates: whether also with what was heard before.
        :param name: what warnings call the observer; by default the name of the callback.
        :raises TypeError: when one of ``types`` is none, or the callback cannot be called.
        """
        if not callable(callback):
            raise TypeError(f"the callback must be callable, not {_shown(callback)}")
        observer = Observer(
            callback,
            _message_types(types),
            name=name,
            wants_duplicates=duplicates,
            forget=self._forget,
        )
        self._add(observer)
        return observer

    def subscribe(
        self,
        *types: MessageType | int,
        duplicates: bool = True,
        lossy: int = 0,
        name: str | None = None,
    ) -> Subscription:
        """Return the messages of ``types``, or of all types, as an async iterator.

        :param duplicates: whether also what was heard before.
        :param lossy: hold nobody's credit and keep at most so many unread messages, and 16 MiB
            of them, the oldest of which are lost first; 0 loses none.
        :param name: what warnings call the subscription; by default what it is for.
        :raises TypeError: when one of ``types`` is none, or ``lossy`` is no number.
        :raises ValueError: when ``lossy`` is negative.
        """
        wanted = _message_types(types)
        unread = LossyUnread(lossy, self._metrics.observer_lost) if _is_lossy(lossy) else None
        inbox = Inbox(unread or HeldUnread())
        observer = Observer(
            inbox.put,
            wanted,
            name=name or _subscription_name(wanted),
            wants_duplicates=duplicates,
            on_cancel=inbox.close,
            forget=self._forget,
        )
        self._add(observer)
        return Subscription(observer, inbox, self.call)

    def end_all(self) -> None:
        """End every observer: the overlay stops."""
        self._is_ended = True
        for observer in list(self._observers):
            observer.cancel()

    def deliver(
        self, from_peer: PeerId, kind: int, body: bytes, received_at: float, is_first: bool = True
    ) -> Deferred[None] | None:
        """Show a message to its observers; the Deferred fires when the last is done with it.

        None means that all of them are done already. What an observer raises is logged and
        counted, and concerns nobody else.

        :param is_first: False when the body was heard before, which not all want to see.
        """
        message = OverlayMessage(from_peer, MESSAGE_TYPES[kind], body, received_at, is_first)
        claim = None
        for observer in (self.by_kind if is_first else self.by_kind_duplicates).get(kind, ()):
            if observer.is_cancelled:  # by one that saw the message before it
                continue
            done = self._call(observer, message)
            if done is not None:
                if claim is None:
                    claim = Claim(len(body))
                    claim.hold()  # ourselves, until all have seen it
                self._hold(observer, message, claim, done)
        if claim is None:
            return None
        claim.let_go()
        if claim.freed.called:
            return None
        self._holders.watch()
        return claim.freed

    def _call(self, observer: Observer, message: OverlayMessage) -> Deferred[Any] | None:
        try:
            result = observer.callback(message)
        except BaseException:  # a cancelled task is no reason to stop the node, nor is sys.exit()
            self._note_failure(Failure(), message)
            return None
        if result is None:
            return None
        if isinstance(result, Coroutine):
            result = Deferred.fromCoroutine(result)
        if not isinstance(result, Deferred) or _is_done(result):
            return None
        return result

    def _hold(
        self, observer: Observer, message: OverlayMessage, claim: Claim, done: Deferred[Any]
    ) -> None:
        done.addErrback(self._note_failure, message)
        if not observer.is_cancelled:  # while it saw the message
            self._holders.hold(observer, claim)
            done.addBoth(self._let_go, observer, claim)

    def _let_go(self, result: object, observer: Observer, claim: Claim) -> object:
        self._holders.let_go(observer, claim)
        return result

    def _note_failure(self, failure: Failure, message: OverlayMessage) -> None:
        self._metrics.observer_errors.inc()
        self._log.failure(
            "An observer failed on {kind} from {peer}",
            failure=failure,
            kind=message.type.name,
            peer=message.from_peer.strkey,
        )

    def _add(self, observer: Observer) -> None:
        if self._is_ended:
            observer.cancel()
        else:
            self._observers[observer] = None
            self._index()

    def _forget(self, observer: Observer) -> None:
        if self._observers.pop(observer, observer) is None:
            self._index()
            self._holders.let_go_of_all(observer)

    def _index(self) -> None:
        self.by_kind = _by_kind(self._observers)
        self.by_kind_duplicates = _by_kind(
            observer for observer in self._observers if observer.wants_duplicates
        )


def _is_done(deferred: Deferred[Any]) -> bool:
    """Tell whether it has fired with nothing: as that of a reader that keeps up."""
    return bool(deferred.called) and not deferred.paused and deferred.result is None


def _by_kind(observers: Iterable[Observer]) -> ByKind:
    by_kind: dict[int, list[Observer]] = {}
    for observer in observers:
        for kind in observer.types:
            by_kind.setdefault(int(kind), []).append(observer)
    return {kind: tuple(found) for kind, found in by_kind.items()}


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


def _is_lossy(max_messages: int) -> bool:
    """Tell whether a subscription loses what is more; refuse what is no number of messages."""
    if not isinstance(max_messages, int) or isinstance(max_messages, bool):
        raise TypeError(f"lossy is a number of messages, not {_shown(max_messages)}")
    if max_messages < 0:
        raise ValueError(f"lossy is at least 0, not {_shown(max_messages)}")
    return max_messages > 0


def _subscription_name(types: frozenset[MessageType]) -> str:
    if len(types) == len(MESSAGE_TYPES):
        return "subscription to everything"
    return "subscription to " + ", ".join(kind.name for kind in sorted(types))


def _shown(value: object) -> str:
    return f"{value!r:.100}"
