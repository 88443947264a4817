"""The observers of a node, without the node: what is refused, and what a failure may not break."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ErrorCode
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.subscriptions import OverlayMessage, Subscriptions
from stellar_overlay.wire.message import MessageType
from tests.builders import WALL_NOW, advert, get_tx_set, make_node

PEER = make_node(9).peer_id
ADVERT = MessageType.FLOOD_ADVERT
QUERY = MessageType.GET_TX_SET

NO_TYPES: tuple[object, ...] = (
    "SCP_MESSAGE",
    "11",
    b"\x0b",
    None,
    11.0,
    True,
    False,  # ERROR_MSG is 0
    1,  # no type of message
    -1,
    2**70,
    [ADVERT],
    (ADVERT, QUERY),
    {ADVERT},
    MessageType,
)


class AloneTestCase(SynchronousTestCase):
    """Subscriptions that get messages from nobody."""

    def setUp(self) -> None:
        self.metrics = OverlayMetrics()
        self.subscriptions = Subscriptions(self.metrics)
        self.seen: list[MessageType] = []

    def note(self, message: OverlayMessage) -> None:
        """Keep the type of a message."""
        self.seen.append(message.type)

    def say(self, kind: MessageType = ADVERT) -> Deferred[Any] | None:
        """Deliver a message."""
        body = advert().body if kind is ADVERT else get_tx_set().body
        return self.subscriptions.deliver(PEER, int(kind), body, WALL_NOW)


class ForgottenTests(AloneTestCase):
    """A subscription that nobody has any more."""

    def test_in_whatever_thread_it_is_noticed(self) -> None:
        """It is closed in the thread of the transports, not by whoever collects garbage."""
        calls: list[Callable[[], object]] = []
        subscriptions = Subscriptions(self.metrics, calls.append)
        subscription = subscriptions.subscribe(ADVERT)
        self.assertEqual(len(subscriptions.by_kind), 1)
        del subscription
        gc.collect()
        self.assertEqual(len(subscriptions.by_kind), 1)
        (close,) = calls
        close()
        self.assertEqual(subscriptions.by_kind, {})


class RefusedTests(AloneTestCase):
    """Calls that make no sense are refused at once, and leave nothing behind."""

    def assert_refused(self, call: Callable[..., object], *arguments: object) -> str:
        """Check that a call is refused and that later ones work; return what was said."""
        error = str(self.assertRaises(TypeError, call, *arguments))
        self.assertNotIn("\n", error)
        self.assertEqual(self.subscriptions.by_kind, {})
        observer = self.subscriptions.observe(self.note, ADVERT)
        self.say()
        self.assertEqual(self.seen.pop(), ADVERT)
        observer.cancel()
        self.assertEqual(self.subscriptions.by_kind, {})
        return error

    def test_types(self) -> None:
        """What is no type is refused with what is wanted and what was given."""
        for wrong in NO_TYPES:
            for types in ((wrong,), (ADVERT, wrong), (wrong, ADVERT)):
                with self.subTest(types=types):
                    for error in (
                        self.assert_refused(self.subscriptions.observe, self.note, *types),
                        self.assert_refused(self.subscriptions.subscribe, *types),
                    ):
                        self.assertIn("one by one, each a MessageType or its number", error)
                        self.assertIn(repr(wrong)[:100], error)

    def test_callback(self) -> None:
        """What cannot be called is no callback; a type in its place is the likely mistake."""
        for wrong in (None, "callback", ADVERT, [self.note]):
            error = self.assert_refused(self.subscriptions.observe, wrong, ADVERT)
            self.assertIn("must be callable", error)
            self.assertIn(repr(wrong)[:100], error)

    def test_stopping_after_a_refusal(self) -> None:
        """The overlay can stop: nothing that was refused is ended."""
        self.assertRaises(TypeError, self.subscriptions.observe, self.note, "SCP_MESSAGE")
        self.assertRaises(TypeError, self.subscriptions.subscribe, [ADVERT])
        self.subscriptions.end_all()
        self.assertRaises(TypeError, self.subscriptions.observe, self.note, "SCP_MESSAGE")

    def test_numbers(self) -> None:
        """The number of a type is as good as the type, and any type may be given twice."""
        self.subscriptions.observe(self.note, int(ADVERT), ADVERT)
        self.say()
        self.say(QUERY)
        self.assertEqual(self.seen, [ADVERT])
        self.assertIs(type(self.seen[0]), MessageType)

    def test_number_of_another_kind(self) -> None:
        """An enum that is a number stands for that number."""
        observer = self.subscriptions.observe(self.note, ErrorCode.ERR_AUTH)
        self.assertEqual(observer.types, {MessageType.DONT_HAVE})


class HarmlessTests(AloneTestCase):
    """Whatever an observer raises is logged, returns the credit, and stops nobody."""

    ERRORS: tuple[type[BaseException], ...] = (
        asyncio.CancelledError,
        SystemExit,
        GeneratorExit,
        KeyboardInterrupt,
        ZeroDivisionError,
    )

    def check(self, observer: Callable[[OverlayMessage], Any], error: type[BaseException]) -> None:
        """Check what becomes of a message whose first observer fails."""
        first = self.subscriptions.observe(observer, ADVERT)
        second = self.subscriptions.observe(self.note, ADVERT)
        with capturedLogs() as events:
            pending = self.say()
            if pending is not None:
                self.successResultOf(pending)
        self.assertEqual(self.seen.pop(), ADVERT)
        (event,) = [event for event in events if "log_failure" in event]
        self.assertIs(event["log_failure"].type, error)
        text = eventAsText(event, includeTraceback=False)
        self.assertIn("FLOOD_ADVERT", text)
        self.assertIn(PEER.strkey, text)
        self.assertEqual(len(self.flushLoggedErrors(error)), 1)
        self.assertEqual(self.metrics.observer_errors.reset(), 1)
        first.cancel()
        second.cancel()

    def test_callback(self) -> None:
        """A callback that raises what is no Exception has failed like any other."""
        for error in self.ERRORS:
            with self.subTest(error=error):

                def observer(message: OverlayMessage, error: type[BaseException] = error) -> None:
                    raise error

                self.check(observer, error)

    def test_coroutine(self) -> None:
        """So has a coroutine."""
        for error in self.ERRORS:
            with self.subTest(error=error):

                async def observer(
                    message: OverlayMessage, error: type[BaseException] = error
                ) -> None:
                    raise error

                self.check(observer, error)
