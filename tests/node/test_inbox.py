"""Subscriptions alone: how they end, what they let go of, and what a lossy one loses."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.metrics import Counter
from stellar_overlay.node.inbox import MAX_LOSSY_BYTES, LossyUnread, Subscription
from stellar_overlay.node.observer import OverlayMessage
from stellar_overlay.wire.message import MessageType
from tests.builders import WALL_NOW, advert
from tests.node.alone import ADVERT, PEER, AloneTestCase


def message_of(body: bytes) -> OverlayMessage:
    """Return a message of which only the size matters."""
    return OverlayMessage(PEER, MessageType.TRANSACTION, body, WALL_NOW)


class EndTests(AloneTestCase):
    """However the reading ends, nothing is held afterwards, and no timer is left."""

    def check_free(self, *pending: Deferred[None]) -> None:
        """Check that nothing is held any more."""
        gc.collect()
        for deferred in pending:
            self.successResultOf(deferred)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.subscriptions.by_kind, {})
        self.assertIsNone(self.say())

    def test_break(self) -> None:
        """A loop that is left."""

        async def read() -> bytes:
            async for message in self.subscriptions.subscribe(ADVERT):
                await gate
                return message.body
            raise AssertionError

        gate: Deferred[None] = Deferred()
        reading = Deferred.fromCoroutine(read())
        pending = self.held(), self.held()
        gate.callback(None)
        self.assertEqual(self.successResultOf(reading), advert().body)
        self.check_free(*pending)

    def test_a_cancelled_task(self) -> None:
        """One that waits for the next message, and one that looks at a message for long."""
        for is_busy in (False, True):
            with self.subTest(is_busy=is_busy):
                gate: Deferred[None] = Deferred()
                reading = Deferred.fromCoroutine(self.read_until(gate))
                pending = [self.held(), self.held()] if is_busy else []
                reading.cancel()
                self.failureResultOf(reading, CancelledError)
                del reading
                self.check_free(*pending)

    async def read_until(self, gate: Deferred[None]) -> None:
        """Look at each message until ``gate`` fires."""
        async for _ in self.subscriptions.subscribe(ADVERT):
            await gate

    def test_an_error_in_the_loop(self) -> None:
        """What was read, and what was not, is let go of."""
        gate: Deferred[None] = Deferred()
        reading = Deferred.fromCoroutine(self.read_until(gate))
        pending = self.held(), self.held()
        gate.errback(ZeroDivisionError())
        self.failureResultOf(reading, ZeroDivisionError)
        del reading, gate
        self.check_free(*pending)

    def test_garbage(self) -> None:
        """A generator around a subscription, which nobody finishes."""

        async def bodies() -> AsyncGenerator[bytes, None]:
            async for message in self.subscriptions.subscribe(ADVERT):
                yield message.body

        async def first_of(generator: AsyncGenerator[bytes, None]) -> bytes:
            return await anext(generator)

        generator = bodies()
        first = Deferred.fromCoroutine(first_of(generator))
        pending = self.held(), self.held()
        self.assertEqual(self.successResultOf(first), advert().body)
        del generator, first
        self.check_free(*pending)

    def test_cancelling_within_the_loop(self) -> None:
        """Even before the message at hand is held."""

        async def read() -> int:
            count = 0
            async for _ in subscription:
                count += 1
                subscription.cancel()
            return count

        subscription = self.subscriptions.subscribe(ADVERT)
        reading = Deferred.fromCoroutine(read())
        self.assertIsNone(self.say())
        self.assertEqual(self.successResultOf(reading), 1)
        self.check_free()

    def test_cancelling_what_is_stuck(self) -> None:
        """Its warning names what it is for; then it is over."""
        subscription = self.subscriptions.subscribe(MessageType.SCP_MESSAGE, ADVERT)
        pending = self.held(), self.held()
        self.wait(30)
        ((level, text),) = self.lines()
        self.assertEqual(level, "warn")
        self.assertIn("subscription to SCP_MESSAGE, FLOOD_ADVERT is stuck", text)
        self.assertIn("2 message(s), 80 bytes", text)
        subscription.cancel()
        self.assertEqual(len(self.lines()), 1)
        self.check_free(*pending)


class LossyTests(AloneTestCase):
    """``lossy``: keeps the latest, holds nobody's credit, and counts what it lost."""

    def bodies(self, count: int) -> list[bytes]:
        """Deliver so many different messages, which nobody may hold; return their bodies."""
        messages = [advert(number) for number in range(count)]
        for message in messages:
            self.assertIsNone(self.tell(message))
        return [message.body for message in messages]

    async def read_all(self, subscription: Subscription) -> list[OverlayMessage]:
        """Return what a subscription has until it ends."""
        return [message async for message in subscription]

    def test_ten_thousand(self) -> None:
        """Nobody reads: the latest thousand are there, in order, and nine thousand are lost."""
        subscription = self.subscriptions.subscribe(ADVERT, lossy=1000)
        bodies = self.bodies(10_000)
        self.assertEqual(subscription.lost, 9000)
        self.assertEqual(self.metrics.observer_lost.get(), 9000)
        read = [self.next_of(subscription).body for _ in range(1000)]
        self.assertEqual(read, bodies[-1000:])
        reading = Deferred.fromCoroutine(self.read_all(subscription))
        self.assertNoResult(reading)
        subscription.cancel()
        self.assertEqual(self.successResultOf(reading), [])
        self.assertEqual(subscription.lost, 9000)

    def test_a_reader_that_keeps_up(self) -> None:
        """Loses nothing, however little is kept for it."""
        read: list[bytes] = []
        note = read.append

        async def consume() -> None:
            async for message in self.subscriptions.subscribe(ADVERT, lossy=1):
                note(message.body)

        reading = Deferred.fromCoroutine(consume())
        self.assertEqual(self.bodies(100), read)
        self.assertEqual(self.metrics.observer_lost.get(), 0)
        self.subscriptions.end_all()
        self.successResultOf(reading)

    def test_bytes(self) -> None:
        """At most 16 MiB, however many messages may be kept."""
        subscription = self.subscriptions.subscribe(MessageType.TX_SET, lossy=1000)
        body = bytes(5 * 1024 * 1024)
        for _ in range(7):
            pending = self.subscriptions.deliver(PEER, int(MessageType.TX_SET), body, WALL_NOW)
            self.assertIsNone(pending)
        self.assertEqual(subscription.lost, 4)
        for _ in range(3):
            self.assertEqual(len(self.next_of(subscription).body), len(body))

    def test_nobody_is_warned_of(self) -> None:
        """It holds nothing, so it cannot be stuck; one that does is, beside it."""
        lossy = self.subscriptions.subscribe(ADVERT, lossy=10, name="lossy")
        self.bodies(20)
        self.next_of(lossy)
        self.assertEqual(self.clock.timers, 0)
        holding = self.subscriptions.subscribe(ADVERT, name="holding")
        self.held()
        self.wait(100)
        self.assertEqual({text.split()[0] for _, text in self.lines()}, {"holding"})
        holding.cancel()
        self.assertEqual(lossy.lost, 11 - 1)

    def test_the_end(self) -> None:
        """Cancelled, or left: it takes no more, and what was not read is forgotten, not lost."""
        subscription = self.subscriptions.subscribe(ADVERT, lossy=5)
        self.bodies(5)
        subscription.cancel()
        reading = Deferred.fromCoroutine(self.read_all(subscription))
        self.assertEqual(self.successResultOf(reading), [])
        left = self.subscriptions.subscribe(ADVERT, lossy=5)
        self.assertEqual(len(self.subscriptions.by_kind), 1)
        del left
        gc.collect()
        self.assertEqual(self.subscriptions.by_kind, {})
        self.assertEqual(self.metrics.observer_lost.get(), 0)

    def test_what_is_not_lossy(self) -> None:
        """Has lost nothing."""
        subscription = self.subscriptions.subscribe(ADVERT)
        self.held()
        self.assertEqual(subscription.lost, 0)

    def test_what_makes_no_sense(self) -> None:
        """A number of messages is wanted; nothing is left behind by what is refused."""
        for wrong in (True, False, None, 1.5, "1000"):
            with self.subTest(wrong=wrong), self.assertRaises(TypeError):
                self.subscriptions.subscribe(ADVERT, lossy=wrong)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            self.subscriptions.subscribe(ADVERT, lossy=-1)
        self.assertEqual(self.subscriptions.by_kind, {})


class LossyUnreadTests(SynchronousTestCase):
    """The limits, whatever comes and goes."""

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(
        st.integers(1, 6),
        st.lists(st.one_of(st.none(), st.sampled_from((0, 1, 5, 8, 15, 16, 17))), max_size=40),
    )
    def test_the_latest_are_kept(self, limit: int, sizes: list[int | None]) -> None:
        """In order, within both limits, and none is lost that would have fit."""
        bodies = {size: bytes(size * MAX_LOSSY_BYTES // 16) for size in sizes if size is not None}
        lost_in_all = Counter()
        unread = LossyUnread(limit, lost_in_all)
        expected: list[OverlayMessage] = []
        lost = 0
        for size in sizes:
            if size is None:
                self.assertIs(unread.pop(), expected.pop(0) if expected else None)
                continue
            expected.append(message_of(bodies[size]))
            unread.put(expected[-1])
            while len(expected) > limit or sum(len(m.body) for m in expected) > MAX_LOSSY_BYTES:
                expected.pop(0)
                lost += 1
            self.assertEqual((unread.lost, lost_in_all.get()), (lost, lost))
        for message in expected:
            self.assertIs(unread.pop(), message)
        self.assertIsNone(unread.pop())
