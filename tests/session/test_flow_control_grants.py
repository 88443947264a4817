"""Credit given back: when a grant is due, and for exactly how much."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.session.flow_control import FlowControl, Item, SendMoreCapacity
from stellar_overlay.wire.auth import AuthState
from tests.builders import advert, scp_prepare, transaction
from tests.by_hand import ByHand
from tests.session.test_flow_control import adverts, flow_with, items, queries


def through(flow: FlowControl, batch: Sequence[Item]) -> list[SendMoreCapacity]:
    """Begin and end all of ``batch``; return the grants."""
    assert flow.begin(batch) == (len(batch), None)
    return flow.end(batch)


class GrantTests(SynchronousTestCase):
    """A grant returns exactly what was processed, after a full batch of messages or of bytes."""

    def test_exactly_at_the_fortieth(self) -> None:
        """39 bring nothing, the 40th brings (40, their bytes)."""
        flow = FlowControl()
        self.assertEqual(through(flow, adverts(39)), [])
        self.assertEqual(through(flow, adverts(1)), [SendMoreCapacity(40, 1600)])
        self.assertEqual(through(flow, adverts(39)), [])

    def test_exactly_at_the_bytes(self) -> None:
        """40 and 72 bytes reach G = 112 and do not reach G = 113."""
        two = items(advert(hashes=1), advert(hashes=2))
        for batch_bytes, grants in ((112, [SendMoreCapacity(2, 112)]), (113, [])):
            flow = flow_with(capacity_bytes=1000, batch_bytes=batch_bytes)
            self.assertEqual(through(flow, two), grants, f"G = {batch_bytes}")

    def test_default_bytes(self) -> None:
        """Three adverts of 32,008 bytes are below 100,000, the fourth is not."""
        flow = FlowControl()
        self.assertEqual(through(flow, adverts(3, hashes=1000)), [])
        self.assertEqual(through(flow, adverts(1, hashes=1000)), [SendMoreCapacity(4, 128_032)])

    def test_several_out_of_one_end(self) -> None:
        """100 that end together are two grants of 40, oldest first; 20 wait for 20 more."""
        flow = FlowControl()
        batch = adverts(40) + adverts(40, hashes=2) + adverts(20)
        self.assertEqual(
            through(flow, batch), [SendMoreCapacity(40, 1600), SendMoreCapacity(40, 2880)]
        )
        self.assertEqual(through(flow, adverts(20)), [SendMoreCapacity(40, 1600)])

    def test_either_limit_ends_a_batch(self) -> None:
        """The bytes of a batch start anew after a grant by count, and the reverse."""
        flow = flow_with(messages=10, batch=3, capacity_bytes=1000, batch_bytes=200)
        batch = adverts(3) + items(advert(hashes=6)) + adverts(2) + adverts(1)
        self.assertEqual(
            through(flow, batch),
            [SendMoreCapacity(3, 120), SendMoreCapacity(1, 200), SendMoreCapacity(3, 120)],
        )

    def test_batch_of_one(self) -> None:
        """Each message is granted back by itself."""
        flow = flow_with(messages=2, batch=1)
        grants = through(flow, items(advert(hashes=1), advert(hashes=2)))
        self.assertEqual(grants, [SendMoreCapacity(1, 40), SendMoreCapacity(1, 72)])

    def test_batch_of_zero_bytes(self) -> None:
        """With G = 0 each flood message is granted back; other messages grant nothing."""
        flow = flow_with(capacity_bytes=1000, batch_bytes=0)
        self.assertEqual(through(flow, queries(3)), [])
        grants = through(flow, adverts(1) + queries(1) + items(scp_prepare()))
        self.assertEqual(grants, [SendMoreCapacity(1, 40), SendMoreCapacity(1, 180)])

    def test_other_messages_grant_nothing(self) -> None:
        """Thousands of queries bring no grant and do not disturb a batch."""
        flow = FlowControl()
        through(flow, adverts(39))
        for _ in range(20):
            self.assertEqual(through(flow, queries(200)), [])
        self.assertEqual(through(flow, adverts(1)), [SendMoreCapacity(40, 1600)])

    def test_one_at_a_time(self) -> None:
        """The seed's names for one message: begin says yes, end returns the grant or None."""
        flow = flow_with(messages=2, batch=2)
        for expected in (None, SendMoreCapacity(2, 80), None):
            self.assertTrue(flow.begin_message_processing(advert()))
            self.assertEqual(flow.end_message_processing(advert()), expected)

    def test_full_again(self) -> None:
        """When all is processed, local capacity is full, granted back or not (F2)."""
        flow = FlowControl()
        fresh = flow.get_stats()
        through(flow, adverts(77) + queries(5))
        self.assertEqual(flow.get_stats(), fresh)


class EndOnceTests(SynchronousTestCase):
    def test_more_ends_than_begins(self) -> None:
        """Y13: ending what never began is our own mistake, and changes nothing."""
        flow = FlowControl()
        flow.begin(adverts(1))
        before = flow.get_stats()
        self.assertRaises(AssertionError, flow.end, adverts(2))
        self.assertRaises(AssertionError, flow.end, adverts(1, hashes=2))
        self.assertEqual(flow.get_stats(), before)
        self.assertEqual(flow.end(adverts(1)), [])
        self.assertRaises(AssertionError, flow.end, adverts(1))


class TransactionSizeTests(SynchronousTestCase):
    """Connection.md 6.3: growth is granted at once, as bytes alone."""

    def test_increase(self) -> None:
        """F and what is left of it grow by the same, in automatic and in fixed mode."""
        for flow, total in ((FlowControl(), 300_000), (flow_with(capacity_bytes=900), 900)):
            flow.begin(adverts(1))
            self.assertEqual(flow.handle_tx_size_increase(500), SendMoreCapacity(0, 500))
            self.assertEqual(flow.max_tx_size, 102_900)
            self.assertEqual(flow.get_stats().local_flood_bytes_capacity, total - 40 + 500)
            self.assertEqual(flow.get_stats().local_flood_capacity, 199)

    def test_the_room_is_there(self) -> None:
        """A transaction that needs the increase is legal after it, and not before."""
        flow = flow_with(capacity_bytes=1000)
        self.assertFalse(flow.begin_message_processing(transaction(1200)))
        flow.handle_tx_size_increase(200)
        self.assertTrue(flow.begin_message_processing(transaction(1200)))

    def test_decrease(self) -> None:
        """A smaller limit takes nothing back: the peer may send all that it was granted."""
        hand = ByHand().go_to(AuthState.GOT_AUTH)
        session = hand.side.session
        session.set_max_tx_size(102_400 + 500, 0.0)
        hand.hear()
        granted, heard = session.flow_control.get_stats(), list(hand.heard)
        session.set_max_tx_size(1000, 0.0)
        self.assertEqual(session.flow_control.max_tx_size, 1000)
        self.assertEqual(session.flow_control.get_stats(), granted)
        hand.hear()
        self.assertEqual(hand.heard, heard)
        sizes = [100_000] * 3 + [500]
        hand.say(*[hand.sealed(transaction(size).body) for size in sizes])
        self.assertIsNone(hand.side.violation)
        self.assertEqual([message.size for message in hand.side.messages], sizes)


class SendMoreCapacityTests(SynchronousTestCase):
    def test_should_send(self) -> None:
        """A grant is worth a message when either number is not 0."""
        for messages, size, expected in ((0, 0, False), (1, 0, True), (0, 1, True), (2, 3, True)):
            self.assertIs(SendMoreCapacity(messages, size).should_send, expected)
