"""Many messages between two sessions: credit bounds what is under way, and loses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.session.flow_control import FlowControlConfig
from stellar_overlay.session.outbox import MessagePriority, OutboxConfig
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE
from stellar_overlay.wire.message import FLOOD_TYPES, Message, MessageType
from tests.builders import (
    advert,
    demand,
    get_tx_set,
    quorum_set,
    scp_externalize,
    scp_prepare,
    transaction,
)
from tests.by_hand import ByHand
from tests.pair import LivePair, Pair, Side
from tests.session.test_credit_scenarios import grants

READ_FLOOR = MAX_MESSAGE_SIZE + 4


def flooded(side: Side) -> list[Message]:
    """Return the flood messages that came out of ``side``."""
    return [message for message in side.messages if message.type in FLOOD_TYPES]


def backlog(side: Side) -> int:
    """Return how many flood messages wait to leave."""
    return sum(side.session.outbox.queue_size(priority) for priority in MessagePriority)


def mixed(number: int) -> Message:
    """Return the n-th of a mix of flood messages of 40 to 2,008 bytes."""
    kinds = (
        advert(number, number % 63),
        demand(number, 1 + number % 5),
        transaction(200 + 4 * (number % 400), number),
        scp_prepare(number, value=bytes(number % 97)),
    )
    return kinds[number % 4]


class BothWaysTests(SynchronousTestCase):
    """3,000 flood messages each way, with default settings."""

    def assert_consistent(self, pair: Pair, pushed: dict[int, list[Message]]) -> None:
        """Check both directions: no more was sent than granted, and nothing is lost."""
        for sender in (pair.caller, pair.callee):
            receiver = pair.other(sender)
            stats = sender.session.flow_control.get_stats()
            sent = len(pushed[id(sender)]) - backlog(sender)
            received = flooded(receiver)
            granted = sum(messages for messages, _ in grants(receiver))
            self.assertLessEqual(len(received), sent)
            self.assertLessEqual(stats.peer_message_capacity + sent, granted)
            self.assertLessEqual(granted, 200 + len(received) // 40 * 40)
            for side in (sender, receiver):
                self.assertIsNone(side.reason)
                local = side.session.flow_control.get_stats()
                self.assertEqual(local.local_total_capacity, 201)
                self.assertEqual(local.local_flood_bytes_capacity, 300_000)

    def test_small_messages(self) -> None:
        """Adverts of 40 bytes: both sides' numbers agree after each step, and all arrive."""
        pair = LivePair()
        pushed: dict[int, list[Message]] = {id(pair.caller): [], id(pair.callee): []}
        for turn in range(10):
            for side, base in ((pair.caller, 0), (pair.callee, 10**6)):
                for number in range(turn * 300, turn * 300 + 300):
                    pushed[id(side)].append(advert(base + number))
                    side.session.send(pushed[id(side)][-1], pair.now)
            while pair.step():
                self.assert_consistent(pair, pushed)
        for side in (pair.caller, pair.callee):
            self.assertEqual(flooded(pair.other(side)), pushed[id(side)])
            self.assertEqual(grants(side), [(200, 300_000)] + [(40, 1600)] * 75)
            stats = side.session.flow_control.get_stats()
            self.assertEqual(stats.peer_message_capacity, 200)
            self.assertEqual(stats.peer_bytes_capacity, 300_000)

    def test_mixed_messages(self) -> None:
        """All four kinds, of many sizes: each kind arrives whole, in order and once."""
        pair = LivePair()
        pushed = [mixed(number) for number in range(3000)]
        for start in range(0, 3000, 75):
            for side in (pair.caller, pair.callee):
                for message in pushed[start : start + 75]:
                    self.assertTrue(side.session.send(message, pair.now))
            pair.settle()
        for side in (pair.caller, pair.callee):
            self.assertIsNone(side.reason)
            for kind in FLOOD_TYPES:
                expected = [message for message in pushed if message.type is kind]
                self.assertEqual(side.of_type(kind), expected)


class HeldCreditTests(SynchronousTestCase):
    """A consumer that is not done stops the peer; nothing is lost, and memory is bounded."""

    def held(self, messages: Sequence[Message]) -> LivePair:
        """Return a pair whose callee holds all it gets, after the caller sent these."""
        pair = LivePair()
        pair.callee.holds_credit = True
        for message in messages:
            self.assertTrue(pair.caller.session.send(message, pair.now))
        pair.settle()
        return pair

    def assert_all_arrive(self, pair: LivePair, expected: Sequence[Message]) -> None:
        """Let the consumer be done with one message at a time; all come, in order and once."""
        most = 0
        while pair.callee.held:
            most = max(most, len(pair.callee.held))
            pair.release(pair.callee, 1)
            pair.settle()
        self.assertLessEqual(most, 201)
        self.assertEqual(flooded(pair.callee), list(expected))
        self.assertEqual((pair.caller.reason, pair.callee.reason), (None, None))

    def test_by_count(self) -> None:
        """Of 1,000 adverts exactly 200 come; the others wait with the sender."""
        pushed = [advert(number) for number in range(1000)]
        pair = self.held(pushed)
        self.assertEqual(len(pair.callee.held), 200)
        self.assertEqual(backlog(pair.caller), 800)
        self.assertEqual(pair.caller.session.flow_control.out_messages, 0)
        self.assert_all_arrive(pair, pushed)

    def test_by_bytes(self) -> None:
        """Of adverts of 3,208 bytes exactly 93 come: 298,344 of 300,000 bytes."""
        pushed = [advert(number, 100) for number in range(99)]
        pair = self.held(pushed)
        self.assertEqual(len(pair.callee.held), 93)
        self.assertEqual(pair.caller.session.flow_control.out_bytes, 1656)
        self.assert_all_arrive(pair, pushed)

    def test_one_grant_lets_forty_come(self) -> None:
        """39 that are done bring nothing; the 40th brings 40 more."""
        pair = self.held([advert(number) for number in range(1000)])
        for count, come in ((39, 200), (1, 240), (40, 280), (79, 320)):
            pair.release(pair.callee, count)
            pair.settle()
            self.assertEqual(len(flooded(pair.callee)), come)

    def test_not_flooded_passes(self) -> None:
        """While 200 adverts are held, questions and answers still come through."""
        pair = self.held([advert(number) for number in range(1000)])
        pair.caller.session.send(get_tx_set(), pair.now)
        pair.settle()
        self.assertEqual(pair.callee.of_type(MessageType.GET_TX_SET), [get_tx_set()])

    def test_grants_are_what_was_processed(self) -> None:
        """The sum of all grants but the first is the sum of what was processed."""
        pushed = [mixed(number) for number in range(1, 400)]
        pair = self.held([message for message in pushed if message.type in FLOOD_TYPES])
        processed = []
        while pair.callee.held:
            processed += [body for kind, body in pair.callee.held[:7] if kind in FLOOD_TYPES]
            pair.release(pair.callee, 7)
            pair.settle()
        first, *later = grants(pair.callee)
        self.assertEqual(first, (200, 300_000))
        count = sum(messages for messages, _ in later)
        self.assertLess(len(processed) - count, 40)
        self.assertEqual(sum(size for _, size in later), sum(map(len, processed[:count])))

    def test_longer_than_a_minute(self) -> None:
        """Held for more than 60 s, with more to send, it is the sender that ends the link."""
        pair = self.held([advert(number) for number in range(201)])
        pair.advance(70)
        self.assertEqual(pair.caller.kind, DropReason.NO_FLOOD_REQUESTS)

    def test_longer_than_a_minute_with_nothing_more(self) -> None:
        """Held for ten minutes, with nothing more to send, the link lives on."""
        pair = self.held([advert(number) for number in range(200)])
        pair.advance(600)
        self.assertTrue(pair.is_authenticated)


class TotalCapacityTests(SynchronousTestCase):
    """F15, row 47: what is not flooded pauses reading, and never ends a link."""

    def rounds(self, receiver: FlowControlConfig, burst: int, count: int) -> Iterator[LivePair]:
        """Yield a pair after each burst of quorum sets of 1,000 validators, held; then release."""
        pair = LivePair(configs=(SessionConfig(), SessionConfig(flow_control=receiver)))
        pair.callee.holds_credit = True
        for number in range(count):
            for _ in range(burst):
                pair.caller.session.send(quorum_set(1000, number), pair.now)
            pair.settle()
            yield pair
            while pair.callee.held:
                pair.release(pair.callee)
            pair.settle()

    def test_bytes(self) -> None:
        """F15: in each of 25 rounds 12 of 16 come, reading pauses, and then all have come."""
        size = quorum_set(1000).size
        self.assertEqual(size, 36_016)
        capacity = 12 * size - 1
        receiver = FlowControlConfig(
            peer_reading_capacity=100_000, peer_total_reading_capacity_bytes=capacity
        )
        total = READ_FLOOR + capacity
        for number, pair in enumerate(self.rounds(receiver, 16, 25), 1):
            session = pair.callee.session
            stats = session.flow_control.get_stats()
            self.assertEqual(len(pair.callee.held), 12)
            self.assertEqual(len(pair.callee.messages), 16 * number - 4 + 1)  # GET_SCP_STATE
            self.assertFalse(session.may_read)
            self.assertGreater(pair.unread(pair.callee), 0)
            self.assertEqual(stats.local_total_bytes_capacity, total - 12 * size)
            self.assertEqual(stats.local_flood_bytes_capacity, 300_000)
        stats = session.flow_control.get_stats()
        self.assertTrue(session.may_read)
        self.assertEqual(stats.local_total_bytes_capacity, total)
        self.assertEqual(len(pair.callee.of_type(MessageType.SCP_QUORUMSET)), 16 * 25)
        self.assertTrue(pair.is_authenticated)

    def test_count(self) -> None:
        """Of 500 queries 201 are in processing; the others come as those end."""
        pair = LivePair()
        pair.callee.holds_credit = True
        asked = [get_tx_set(number) for number in range(500)]
        for message in asked:
            pair.caller.session.send(message, pair.now)
        pair.settle()
        self.assertEqual(len(pair.callee.held), 201)
        while pair.callee.held:
            pair.release(pair.callee, 1)
            self.assertLessEqual(len(pair.callee.held), 201)
        self.assertEqual(pair.callee.of_type(MessageType.GET_TX_SET), asked)
        self.assertTrue(pair.is_authenticated)

    def test_paused_for_minutes(self) -> None:
        """Row 47: reading that pauses for five minutes ends no link, on either side."""
        receiver = FlowControlConfig(peer_total_reading_capacity_bytes=1)
        pair = next(self.rounds(receiver, 2, 1))
        pair.advance(300)
        self.assertTrue(pair.is_authenticated)
        pair.release(pair.callee)
        pair.settle()
        self.assertEqual(pair.callee.of_type(MessageType.SCP_QUORUMSET), [quorum_set(1000)] * 2)
        pair.callee.holds_credit = False
        pair.release(pair.callee)
        pair.advance(60)
        self.assertTrue(pair.is_authenticated)

    def test_smallest(self) -> None:
        """F30, F31: with all capacities 1, everything still passes, in order."""
        tiny = FlowControlConfig(
            peer_reading_capacity=2,
            peer_flood_reading_capacity=1,
            flow_control_send_more_batch_size=1,
            peer_total_reading_capacity_bytes=1,
        )
        config = SessionConfig(flow_control=tiny)
        pair = LivePair(configs=(config, config))
        pushed = [transaction(200, number) for number in range(200)]
        for side in (pair.caller, pair.callee):
            for message in pushed:
                side.session.send(message, pair.now)
        pair.settle()
        for side in (pair.caller, pair.callee):
            self.assertEqual(flooded(side), pushed)
            self.assertIsNone(side.reason)


class NeverGrantsTests(SynchronousTestCase):
    """Row 55: what waits for a peer that grants nothing is bounded."""

    def test_queues(self) -> None:
        """Each queue stays at its limit; the protocol's own messages still leave."""
        config = SessionConfig(
            outbox=OutboxConfig(max_tx_set_size_ops=50, outbound_tx_queue_byte_limit=8000)
        )
        mouth = ByHand(Pair(configs=(config, config))).go_to(AuthState.GOT_AUTH)
        session = mouth.side.session
        for number in range(2000):
            for message in (
                scp_prepare(1 + number % 3, number, node=1 + number % 7),
                scp_externalize(1 + number % 3, node=20),
                transaction(200, number),
                demand(number, 2),
                advert(number, 3),
            ):
                session.send(message, float(number) / 100)
            mouth.hear()
            weights = [session.outbox.queue_weight(p) for p in MessagePriority]
            for weight, limit in zip(weights[1:], (8000, 50, 50), strict=True):
                self.assertLessEqual(weight, limit)
        self.assertNotIn(MessageType.FLOOD_ADVERT, mouth.side.sent_types())
        dropped = [session.outbox.dropped(p) for p in MessagePriority]
        self.assertEqual(dropped[1], 2000 - session.outbox.queue_size(MessagePriority.TRANSACTION))
        self.assertTrue(all(dropped))

    def test_scp_of_one_round(self) -> None:
        """However long it lasts, one statement for each node, slot and protocol waits."""
        mouth = ByHand().go_to(AuthState.GOT_AUTH)
        outbox = mouth.side.session.outbox
        sizes = []
        for number in range(1, 1000):
            mouth.side.session.send(scp_prepare(1 + number % 3, number, node=1 + number % 7), 0.0)
            mouth.hear()
            sizes.append(outbox.queue_size(MessagePriority.SCP))
        self.assertEqual(sizes[-1], 21)
        self.assertTrue(all(later - earlier in (0, 1) for earlier, later in pairwise(sizes)))
