"""The observers of a node, without the node: for tests of what they see and hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.subscriptions import OverlayMessage, Subscription, Subscriptions
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import WALL_NOW, advert, get_tx_set, make_node

PEER = make_node(9).peer_id
ADVERT = MessageType.FLOOD_ADVERT
QUERY = MessageType.GET_TX_SET


class CountingClock(Clock):
    """Also counts the calls that were put off.

    :ivar timers: how many so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timers = 0

    def callLater(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802 - Twisted's name
        self.timers += 1
        return super().callLater(*args, **kwargs)


class AloneTestCase(SynchronousTestCase):
    """Subscriptions that get messages from nobody, and must leave no timer behind."""

    def setUp(self) -> None:
        self.metrics = OverlayMetrics()
        self.clock = CountingClock()
        self.subscriptions = Subscriptions(self.metrics, clock=self.clock)
        self.seen: list[MessageType] = []
        self.events: Sequence[LogEvent] = self.enterContext(capturedLogs())
        self._lines_read = 0
        self.addCleanup(self.leave_nothing_behind)

    def leave_nothing_behind(self) -> None:
        """Check that nobody waits for anything once all observers have ended."""
        self.subscriptions.end_all()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.subscriptions.by_kind, {})
        self.assertEqual(self.subscriptions.by_kind_duplicates, {})

    def note(self, message: OverlayMessage) -> None:
        """Keep the type of a message."""
        self.seen.append(message.type)

    def say(self, kind: MessageType = ADVERT, *, is_first: bool = True) -> Deferred[None] | None:
        """Deliver a message."""
        return self.tell(advert() if kind is ADVERT else get_tx_set(), is_first=is_first)

    def tell(self, message: Message, *, is_first: bool = True) -> Deferred[None] | None:
        """Deliver this message."""
        return self.subscriptions.deliver(
            PEER, int(message.type), message.body, WALL_NOW, is_first=is_first
        )

    def held(self, kind: MessageType = ADVERT) -> Deferred[None]:
        """Deliver a message that somebody holds."""
        pending = self.say(kind)
        assert pending is not None
        self.assertNoResult(pending)
        return pending

    def next_of(self, subscription: Subscription) -> OverlayMessage:
        """Return the next message of a subscription that has one."""
        message = self.successResultOf(Deferred.fromCoroutine(subscription.__anext__()))
        assert isinstance(message, OverlayMessage)
        return message

    def lines(self) -> list[tuple[str, str]]:
        """Return what was logged since this was asked last: level and text."""
        events, self._lines_read = self.events[self._lines_read :], len(self.events)
        return [(event["log_level"].name, formatEvent(event)) for event in events]

    def wait(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        end = self.clock.seconds() + seconds
        while (left := end - self.clock.seconds()) > 0:
            self.clock.advance(min(left, 0.5))
