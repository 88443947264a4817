"""Messages as an async iterator, which holds each until the next is asked for."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import ShuttingDown
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import Subscription
from stellar_overlay.wire.message import (
    Message,
    MessageType,
)
from tests.builders import advert, get_tx_set, make_node
from tests.node.listening import ADVERT, ListeningTestCase, granted
from tests.node.world import PORT, WorldTestCase, ip


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


@implementer(IStreamServerEndpoint)
class SlowEndpoint:
    """Opens its port, or fails to, when told to."""

    def __init__(self, opens: IStreamServerEndpoint) -> None:
        self.opening: Deferred[None] = Deferred()
        self._opens = opens

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self.opening.addCallback(lambda _: self._opens.listen(protocolFactory))


class NeverRanTests(WorldTestCase):
    """A node that is stopped ends its subscriptions, however far it got."""

    def setUp(self) -> None:
        super().setUp()
        self.endpoint = SlowEndpoint(self.world.network.server(ip(1), PORT))
        self.node = OverlayManager(
            OverlayConfig(allow_private=True),
            make_node(1),
            reactor=self.world.clock,
            listen=self.endpoint,
            herder=IgnoringHerder(),
        )
        self.reader = self.node.subscribe(ADVERT)
        self.lossy = self.node.subscribe(lossy=10)
        self.idle = self.node.subscribe()
        self.observer = self.node.observe(lambda message: None)
        self.waiting = [self.world.outcome(self.read(one)) for one in (self.reader, self.lossy)]

    async def read(self, subscription: Subscription) -> str:
        """Read to the end."""
        async for _ in subscription:
            raise AssertionError
        return "the end"

    def assert_ended(self) -> None:
        """Check that all have ended, and that who comes too late does not wait."""
        self.assertEqual(self.waiting, 2 * [["the end"]])
        self.assertEqual(self.world.result(self.read(self.idle)), "the end")
        self.assertTrue(self.observer.is_cancelled)
        self.assertTrue(self.node.observe(lambda message: None).is_cancelled)
        self.assertEqual(self.world.result(self.read(self.node.subscribe())), "the end")
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_it_was_not_even_started(self) -> None:
        """Nothing was opened, and nothing will come."""
        self.world.settle()
        self.assertEqual(self.waiting, [[], []])
        self.world.result(self.node.stop())
        self.assert_ended()

    def test_it_is_stopped_while_it_starts(self) -> None:
        """At once, though its port hangs; and when that opens after all, it is closed."""
        starting = self.world.outcome(self.node.start())
        self.world.result(self.node.stop())
        self.assert_ended()
        self.endpoint.opening.callback(None)
        self.world.settle()
        self.assertIsInstance(starting[0], ShuttingDown)
        with self.assertRaises(RefusedError):
            self.world.call()

    def test_it_fails_to_start(self) -> None:
        """That ends it as well: there is no second start."""
        starting = self.world.outcome(self.node.start())
        self.assertEqual(self.waiting, [[], []])
        self.endpoint.opening.errback(ZeroDivisionError())
        self.world.settle()
        self.assertIsInstance(starting[0], ZeroDivisionError)
        self.assert_ended()
        self.world.result(self.node.stop())

    def test_it_fails_to_stop(self) -> None:
        """Whoever stops it is told, and the subscriptions end all the same."""

        def fail() -> None:
            raise ZeroDivisionError

        self.patch(self.node._listener, "stopService", fail)
        with self.assertRaises(ZeroDivisionError):
            self.world.result(self.node.stop())
        self.assert_ended()
