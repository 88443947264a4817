"""The observers of a node, without the node: what is refused, and what a failure may not break."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, eventAsText

from stellar_overlay.error import ErrorCode
from stellar_overlay.node.subscriptions import OverlayMessage, Subscriptions
from stellar_overlay.wire.message import MessageType
from tests.node.alone import ADVERT, PEER, QUERY, AloneTestCase

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


class DuplicateTests(AloneTestCase):
    """What was heard before is shown again, to those that want it."""

    def observed(self, *, duplicates: bool) -> list[bool]:
        """Observe adverts; return a list in which it will appear which were the first."""
        firsts: list[bool] = []
        self.subscriptions.observe(
            lambda message: firsts.append(message.is_first), ADVERT, duplicates=duplicates
        )
        return firsts

    def test_who_sees_them(self) -> None:
        """All do, unless they ask not to."""
        every, once = self.observed(duplicates=True), self.observed(duplicates=False)
        read = self.subscriptions.subscribe(ADVERT)
        read_once = self.subscriptions.subscribe(ADVERT, duplicates=False)
        for is_first in (True, False, False):
            self.say(is_first=is_first)
        self.assertEqual((every, once), ([True, False, False], [True]))
        self.assertEqual(
            [self.next_of(read).is_first for _ in range(3)],
            [True, False, False],
        )
        self.assertTrue(self.next_of(read_once).is_first)
        waiting = Deferred.fromCoroutine(read_once.__anext__())
        self.say(is_first=False)
        self.assertNoResult(waiting)
        self.say()
        self.assertTrue(self.successResultOf(waiting).is_first)

    def test_they_are_held_as_well(self) -> None:
        """Their credit is the sender's, too; nobody holds one that is shown to nobody."""
        subscription = self.subscriptions.subscribe(QUERY)
        self.observed(duplicates=False)
        self.assertIsNone(self.say(is_first=False))
        pending = self.say(QUERY, is_first=False)
        assert pending is not None
        self.assertNoResult(pending)
        subscription.cancel()
        self.successResultOf(pending)

    def test_who_wants_them_can_be_looked_up(self) -> None:
        """By the number of the type, as those who want what is new."""
        both = self.subscriptions.observe(self.note, ADVERT, QUERY)
        once = self.subscriptions.observe(self.note, ADVERT, duplicates=False)
        kinds = {int(ADVERT): (both, once), int(QUERY): (both,)}
        self.assertEqual(self.subscriptions.by_kind, kinds)
        again = {int(ADVERT): (both,), int(QUERY): (both,)}
        self.assertEqual(self.subscriptions.by_kind_duplicates, again)
        both.cancel()
        self.assertEqual(self.subscriptions.by_kind, {int(ADVERT): (once,)})
        self.assertEqual(self.subscriptions.by_kind_duplicates, {})

    def test_a_message_is_the_first_unless_told(self) -> None:
        """What is not flooded is no duplicate of anything."""
        firsts = self.observed(duplicates=False)
        self.assertIsNone(self.subscriptions.deliver(PEER, int(ADVERT), b"", 0.0))
        self.assertEqual(firsts, [True])


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
