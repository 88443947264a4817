"""Messages as an async iterator, which holds each until the next is asked for."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from stellar_overlay.node.subscriptions import Subscription
from stellar_overlay.wire.message import (
    Message,
    MessageType,
)
from tests.builders import advert, get_tx_set
from tests.node.listening import ADVERT, ListeningTestCase, granted


class SubscriptionTests(ListeningTestCase):
    """``subscribe``: an async iterator that holds each item until the next one is asked for."""

    def read(
        self, subscription: Subscription, count: int | None = None
    ) -> tuple[list[Message], list[Any]]:
        """Begin to read so many items, or all; return what is read and how it ended."""
        read: list[Message] = []

        async def consume() -> str:
            async for message in subscription:
                read.append(Message(message.body))
                if len(read) == count:
                    return "enough"
            return "the end"

        return read, self.world.outcome(consume())

    def test_messages_come_in_order(self) -> None:
        """Those that came before the first was asked for, and those that come later."""
        subscription = self.node.subscribe(ADVERT)
        self.say(advert(1), advert(2))
        read, ended = self.read(subscription)
        self.say(advert(3))
        self.say(get_tx_set())
        self.say(advert(4))
        self.assertEqual(read, [advert(number) for number in (1, 2, 3, 4)])
        self.assertEqual(ended, [])

    def test_an_item_is_held_until_the_next_is_asked_for(self) -> None:
        """What is not read is not granted anew; nor is what is being looked at."""
        subscription = self.node.subscribe(ADVERT)
        self.say(advert(1), advert(2))
        self.assertEqual(granted(self.peer), 0)
        first = self.world.result(subscription.__anext__())
        self.world.settle()
        self.assertEqual((first.body, granted(self.peer)), (advert(1).body, 0))
        self.world.result(subscription.__anext__())
        self.world.settle()
        self.assertEqual(granted(self.peer), 1)
        waiting = self.world.outcome(subscription.__anext__())
        self.world.settle()
        self.assertEqual((waiting, granted(self.peer)), ([], 2))

    def test_all_types(self) -> None:
        """Without types, every message."""
        read, _ = self.read(self.node.subscribe())
        self.say(advert(1), get_tx_set(2))
        self.assertEqual(read, [advert(1), get_tx_set(2)])

    def test_it_ends_when_the_overlay_stops(self) -> None:
        """For who waits, and for who asks later; what was not read is let go of."""
        waiting = self.read(self.node.subscribe(ADVERT))[1]
        idle = self.node.subscribe(ADVERT)
        self.say(advert())
        self.world.result(self.node.stop())
        self.assertEqual(waiting, ["the end"])
        self.assertEqual(self.read(idle), ([], ["the end"]))

    def test_it_ends_at_once_when_the_overlay_has_stopped(self) -> None:
        """Who subscribes too late does not wait for ever."""
        self.world.result(self.node.stop())
        self.assertEqual(self.read(self.node.subscribe()), ([], ["the end"]))

    def test_it_may_begin_before_the_overlay(self) -> None:
        """Who subscribes before the start misses nothing."""
        node = self.world.node(2, is_started=False)
        read, ended = self.read(node.subscribe(ADVERT))
        self.world.result(node.start())
        self.say(advert(), peer=self.world.call(2, number=7))
        self.assertEqual((read, ended), ([advert()], []))

    def test_cancelling_returns_all_credit(self) -> None:
        """Of what was read last, and of what was not read; the iteration ends."""
        subscription = self.node.subscribe(ADVERT)
        self.say(advert(1), advert(2))
        self.world.result(subscription.__anext__())
        subscription.cancel()
        subscription.cancel()
        self.world.settle()
        self.assertEqual(granted(self.peer), 2)
        self.assertEqual(self.read(subscription), ([], ["the end"]))
        self.say(advert(3))
        self.assertEqual(granted(self.peer), 3)

    def test_cancelling_wakes_who_waits(self) -> None:
        """The loop ends."""
        subscription = self.node.subscribe()
        _, ended = self.read(subscription)
        subscription.cancel()
        self.assertEqual(ended, ["the end"])

    def test_leaving_the_loop_lets_go(self) -> None:
        """An iterator that nobody has any more holds nobody's credit."""

        async def first() -> bytes:
            async for message in self.node.subscribe(ADVERT):
                return message.body
            raise AssertionError

        outcome = self.world.outcome(first())
        self.say(advert(1), advert(2))
        self.assertEqual(outcome, [advert(1).body])
        gc.collect()
        self.world.settle()
        self.assertEqual(granted(self.peer), 2)
        self.say(advert(3))
        self.assertEqual(granted(self.peer), 3)

    def test_a_cancelled_reader_loses_nothing(self) -> None:
        """Who gives up waiting can ask again, and gets what came meanwhile."""
        subscription = self.node.subscribe(ADVERT)
        waiting = Deferred.fromCoroutine(subscription.__anext__())
        outcome = self.world.outcome(waiting)
        waiting.cancel()
        self.assertIs(type(outcome[0]), CancelledError)
        self.say(advert(1))
        message = self.world.result(subscription.__anext__())
        self.assertEqual(message.body, advert(1).body)

    def test_two_readers_at_once(self) -> None:
        """Only one can wait; the second is told, and the first gets its message."""
        subscription = self.node.subscribe(ADVERT)
        read, _ = self.read(subscription, 1)
        with self.assertRaises(RuntimeError):
            self.world.result(subscription.__anext__())
        self.say(advert(1))
        self.assertEqual(read, [advert(1)])

    def test_a_slow_reader_slows_its_peers_only(self) -> None:
        """One subscription that is never read does not keep another from its messages."""
        stuck = self.node.subscribe(ADVERT)
        read, _ = self.read(self.node.subscribe(MessageType.GET_TX_SET))
        self.say(advert(1), advert(2))
        for number in range(20):
            self.say(get_tx_set(number))
        self.assertEqual(len(read), 20)
        self.assertEqual(granted(self.peer), 0)
        stuck.cancel()

    def test_nothing_piles_up(self) -> None:
        """A peer that respects its grants has two messages here; one that does not is dropped."""
        subscription = self.node.subscribe(ADVERT)
        reasons = self.reasons_of(self.node)
        self.say(advert(1), advert(2), advert(3))
        self.assertEqual(reasons, ["unexpected flood message, peer at capacity"])
        read, _ = self.read(subscription)
        self.assertEqual(read, [advert(1), advert(2)])
