"""Observers of messages: what they see, the credit that they hold, and what they may break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, eventAsText

from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    encode_dont_have,
)
from tests.builders import WALL_NOW, advert, demand, get_tx_set, make_node
from tests.node.listening import ADVERT, ListeningTestCase, granted
from tests.node.world import WorldTestCase


def returning(deferred: Deferred[None]) -> Callable[[OverlayMessage], Deferred[None]]:
    """Return an observer that is done when ``deferred`` fires."""
    return lambda message: deferred


def noting(bodies: list[bytes]) -> Callable[[OverlayMessage], None]:
    """Return an observer that keeps the bodies that it sees."""
    return lambda message: bodies.append(message.body)


class ObserverTests(ListeningTestCase):
    """``observe``: a callback sees each message of the types that it asked for."""

    def test_what_is_seen(self) -> None:
        """Who sent it, its type, its exact body, when it came; decoded on demand."""
        seen: list[OverlayMessage] = []
        self.node.observe(seen.append, ADVERT)
        self.say(advert(1))
        (message,) = seen
        self.assertEqual(message.from_peer, make_node(9).peer_id)
        self.assertIs(message.type, ADVERT)
        self.assertEqual(message.body, advert(1).body)
        self.assertEqual(message.received_at, WALL_NOW)
        self.assertEqual(message.message, advert(1).decoded)

    def test_types(self) -> None:
        """One type, several, or all that are not the link's own business."""
        one: list[MessageType] = []
        two: list[MessageType] = []
        every: list[MessageType] = []
        self.node.observe(lambda message: one.append(message.type), ADVERT)
        self.node.observe(
            lambda message: two.append(message.type), MessageType.GET_TX_SET, MessageType.DONT_HAVE
        )
        self.node.observe(lambda message: every.append(message.type))
        self.say(advert(), get_tx_set(), Message(encode_dont_have(6, bytes(32))))
        self.peer.grant()
        self.say(demand())
        self.assertEqual(one, [ADVERT])
        self.assertEqual(two, [MessageType.GET_TX_SET, MessageType.DONT_HAVE])
        self.assertEqual(every, [*one, *two, MessageType.FLOOD_DEMAND])

    def test_the_order_is_that_of_arrival(self) -> None:
        """Messages of different types, in one read, are not sorted by anything."""
        seen: list[bytes] = []
        self.node.observe(lambda message: seen.append(message.body))
        messages = [advert(1), get_tx_set(1), advert(2), get_tx_set(2)]
        self.say(*messages)
        self.assertEqual(seen, [message.body for message in messages])

    def test_credit_is_returned_when_the_callback_returns(self) -> None:
        """Without a Deferred nothing is held."""
        self.node.observe(lambda message: None)
        self.say(advert(1), advert(2))
        self.assertEqual(granted(self.peer), 2)

    def test_a_deferred_holds_credit(self) -> None:
        """The grant follows when it fires, whatever with; one that has fired holds nothing."""
        waiting: list[Deferred[Any]] = [Deferred(), Deferred()]
        results = [*waiting, succeed("done")]
        self.node.observe(lambda message: results.pop(0), ADVERT)
        self.say(advert(1), advert(2))
        self.assertEqual(granted(self.peer), 0)
        waiting[1].callback("whatever")
        self.world.settle()
        self.assertEqual(granted(self.peer), 1)
        self.say(advert(3))
        self.assertEqual(granted(self.peer), 2)
        waiting[0].callback(None)
        self.world.settle()
        self.assertEqual(granted(self.peer), 3)

    def test_a_coroutine_holds_credit(self) -> None:
        """It is run, and the grant follows when it ends."""
        gate: Deferred[None] = Deferred()
        seen: list[str] = []

        async def observer(message: OverlayMessage) -> None:
            seen.append("begin")
            await gate
            seen.append("end")

        self.node.observe(observer, ADVERT)
        self.say(advert())
        self.assertEqual((seen, granted(self.peer)), (["begin"], 0))
        gate.callback(None)
        self.world.settle()
        self.assertEqual((seen, granted(self.peer)), (["begin", "end"], 1))

    def test_the_last_of_several_observers_counts(self) -> None:
        """A message is processed when all are done with it."""
        waiting: list[Deferred[None]] = [Deferred(), Deferred()]
        for deferred in waiting:
            self.node.observe(returning(deferred), ADVERT)
        self.node.observe(lambda message: None, ADVERT)
        self.say(advert())
        waiting[1].callback(None)
        self.world.settle()
        self.assertEqual(granted(self.peer), 0)
        waiting[0].callback(None)
        self.world.settle()
        self.assertEqual(granted(self.peer), 1)

    def test_a_stuck_observer_pauses_its_senders_and_no_one_else(self) -> None:
        """The peer whose messages are held cannot go on; the other one gets all it wants."""
        seen: list[Message] = []

        def observer(message: OverlayMessage) -> Deferred[None] | None:
            seen.append(Message(message.body))
            return Deferred() if message.from_peer == make_node(9).peer_id else None

        self.node.observe(observer)
        self.say(*(get_tx_set(number) for number in range(10)))
        self.assertEqual(seen, [get_tx_set(number) for number in range(3)])
        for number in range(100, 150):
            self.say(advert(number), peer=self.other)
        self.assertEqual(len(seen), 53)
        self.assertEqual(granted(self.other), 50)
        self.assertEqual(self.world.clock.seconds(), 0)
        self.assertEqual(len(self.node.peer_infos()), 2)

    def test_cancelling(self) -> None:
        """An observer sees nothing more; cancelling twice, or from within, is harmless."""
        seen: list[OverlayMessage] = []
        observer = self.node.observe(seen.append)
        self.say(get_tx_set(1))
        observer.cancel()
        observer.cancel()
        self.say(get_tx_set(2))
        self.assertEqual(len(seen), 1)

        def once(message: OverlayMessage) -> None:
            seen.append(message)
            within.cancel()

        within = self.node.observe(once)
        self.say(get_tx_set(3), get_tx_set(4))
        self.assertEqual(len(seen), 2)

    def test_an_observer_that_cancels_another(self) -> None:
        """The other does not see even the message at hand."""
        seen: list[str] = []
        self.node.observe(lambda message: other.cancel(), ADVERT)
        other = self.node.observe(lambda message: seen.append("late"), ADVERT)
        self.say(advert())
        self.assertEqual(seen, [])

    def test_an_observer_that_drops_the_sender(self) -> None:
        """What came in the same read is not shown, and no answer to it is sent."""
        seen: list[bytes] = []

        async def observer(message: OverlayMessage) -> None:
            seen.append(message.body)
            await self.node.disconnect(message.from_peer)

        self.node.observe(observer)
        self.say(get_tx_set(1), get_tx_set(2))
        self.assertEqual(seen, [get_tx_set(1).body])
        self.assertEqual(self.peer.error, (0, b"dropped by user"))
        self.assertEqual(self.peer.of_type(MessageType.DONT_HAVE), [])
        self.assertEqual(self.node._links._dispatcher._limits, {})

    def test_a_deferred_that_outlives_its_link(self) -> None:
        """It fires when the sender is gone, or has come back: nobody is granted anything."""
        waiting: Deferred[None] = Deferred()
        self.node.observe(lambda message: waiting, ADVERT)
        self.say(advert())
        self.world.result(self.node.disconnect(make_node(9).peer_id))
        again = self.world.call(number=9)
        waiting.callback(None)
        self.world.settle()
        self.assertEqual((granted(self.peer), granted(again)), (0, 0))


class FailingObserverTests(ListeningTestCase):
    """What an observer raises is logged with peer and kind, returns its credit, harms nobody."""

    def check(self, observer: Callable[[OverlayMessage], Any]) -> None:
        seen: list[OverlayMessage] = []
        self.node.observe(observer, ADVERT)
        self.node.observe(seen.append, ADVERT)
        self.say(advert(1), advert(2))
        self.say(advert(3))
        self.assertEqual(len(seen), 3)
        self.assertEqual(granted(self.peer), 3)
        self.assertEqual(len(self.node.peer_infos()), 2)
        self.assertEqual(self.node.metrics.observer_errors.get(), 3)

    def check_log(self) -> None:
        """The log names the message kind and the whole id of the peer, and has the traceback."""
        failures = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(len(failures), 3)

    def test_at_once(self) -> None:
        """A callback that raises."""

        def observer(message: OverlayMessage) -> None:
            raise ZeroDivisionError

        self.check(observer)
        self.check_log()

    def test_what_is_no_exception(self) -> None:
        """A callback that raises what would end a program fails like any other."""

        def observer(message: OverlayMessage) -> None:
            raise SystemExit(1)

        self.check(observer)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 3)

    def test_later(self) -> None:
        """A Deferred that fails, at once or after a while."""
        waiting: list[Deferred[None]] = []

        def observer(message: OverlayMessage) -> Deferred[None]:
            if len(waiting) == 2:
                return fail(ZeroDivisionError())
            waiting.append(Deferred())
            self.world.clock.callLater(0, waiting[-1].errback, ZeroDivisionError())
            return waiting[-1]

        self.check(observer)
        self.check_log()

    def test_in_a_coroutine(self) -> None:
        """Before and after its first await."""

        async def observer(message: OverlayMessage) -> None:
            if message.body == advert(2).body:
                raise ZeroDivisionError
            await succeed(None)
            raise ZeroDivisionError

        self.check(observer)
        self.check_log()

    def test_the_log_says_whose_message_it_was(self) -> None:
        """With the kind and the sender's full id, as fields and in the text."""
        self.node.observe(lambda message: 1 // 0, ADVERT)  # type: ignore[arg-type,return-value]
        with capturedLogs() as events:
            self.say(advert())
        self.flushLoggedErrors(ZeroDivisionError)
        (event,) = [event for event in events if "log_failure" in event]
        text = eventAsText(event)
        self.assertIn("FLOOD_ADVERT", text)
        self.assertIn(make_node(9).peer_id.strkey, text)
        self.assertIn("ZeroDivisionError", text)


class AloneTests(WorldTestCase):
    """What a node does with its observers when there is nothing to observe."""

    def test_observing_before_the_start(self) -> None:
        """An observer that is there from the beginning sees the first message of all."""
        node = self.world.node(is_started=False)
        seen: list[bytes] = []
        node.observe(lambda message: seen.append(message.body))
        self.world.result(node.start())
        self.world.call().send(advert())
        self.world.settle()
        self.assertEqual(seen, [advert().body])

    def test_observers_of_one_node_see_nothing_of_another(self) -> None:
        """Each manager has its own."""
        nodes: list[OverlayManager] = [self.world.node(number) for number in (1, 2)]
        seen: list[list[bytes]] = [[], []]
        for node, bodies in zip(nodes, seen, strict=True):
            node.observe(noting(bodies))
        self.world.call(2).send(advert())
        self.world.settle()
        self.assertEqual(seen, [[], [advert().body]])
