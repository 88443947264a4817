"""Peers that take and do not give, among others that do: what they cost, and whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from stellar_overlay.error import DropReason
from stellar_overlay.gossip.tx_adverts import TxAdvertsStats
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.observer import OverlayMessage
from stellar_overlay.node.subscriptions import Subscription
from stellar_overlay.session.outbox import ANSWER_BYTE_LIMIT, MessagePriority
from stellar_overlay.testing.memory import BUFFER_SIZE, MemoryTransport
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import nominate, prepare
from stellar_overlay.wire.transaction import tx_full_hash
from stellar_overlay.wire.tx_set import generalized_tx_set
from tests.builders import transaction
from tests.scenarios.traffic import (
    ADVERT,
    DEMAND,
    DONT_HAVE,
    GET_QUORUM_SET,
    GET_TX_SET,
    SCP,
    TX,
    TX_SET,
    Boaster,
    Heard,
    Neighbour,
    Reader,
    Stingy,
    TrafficTestCase,
    a_hash,
    a_value,
    externalized,
    forged,
    payment,
    payments,
    validator,
)

HONEST = 8
MEBIBYTE = 1024 * 1024


def large_tx_set() -> Message:
    """Return a transaction set of 200 KB."""
    envelopes = [transaction(100_000, number).body[4:] for number in range(2)]
    return generalized_tx_set(a_hash("previous ledger"), envelopes)


class AmongOthersTests(TrafficTestCase):
    """One unfair peer among eight that are honest, who go on as if it were not there."""

    def start(self, **settings: Any) -> None:
        self.node = self.add(**settings)
        self.honest = self.calls(HONEST, Reader, name="honest")
        self.slot = 100
        self.said: list[tuple[int, Message]] = []
        self.number = 0

    def chat(self, seconds: int, *, each: int = 1) -> None:
        """Let each honest peer say something every second: a statement, and transactions."""
        for _ in range(seconds):
            self.slot += 1
            for number, peer in enumerate(self.honest):
                offered = payments(each, self.number)
                self.number += each
                statement = externalized(self.slot, by=number)
                peer.flood(statement)
                peer.offer(*offered)
                self.said += [(number, message) for message in (statement, *offered)]
            self.network.advance(1)

    def assert_honest_have_everything(self) -> None:
        """Check that each has heard what the others said, once, two seconds later at most."""
        self.network.advance(2)
        self.assert_linked(*self.honest)
        for number, peer in enumerate(self.honest):
            heard = sorted(peer.bodies(SCP) + peer.bodies(TX))
            said = sorted(message.body for by, message in self.said if by != number)
            self.assertEqual(heard, said)

    def count(self, name: str) -> int:
        """Return one counter."""
        return self.figures(self.node, name)[0]

    def adverts(self, peer: Neighbour) -> TxAdvertsStats:
        """Return what is kept of a peer's adverts."""
        return self.node._flooding.relay.demands.adverts[self.node.peer(peer.peer_id)].stats

    def drop_count(self, reason: DropReason) -> int:
        """Return how many links ended for a reason."""
        return self.node.metrics.drops[reason].get()

    def test_nobody_is_unfair(self) -> None:
        """What the others are compared with."""
        self.start()
        self.chat(10, each=3)
        self.assert_honest_have_everything()
        dropped = ("queue_drop_scp", "queue_drop_tx", "queue_drop_demand", "queue_drop_advert")
        self.assertEqual(self.figures(self.node, *dropped), [0, 0, 0, 0])

    def test_never_grants(self) -> None:
        """Its queues stay short: old statements and adverts go. After 60 s it goes, too."""
        self.start(max_tx_set_size_ops=50)
        stingy = self.call("stingy", Stingy)
        outbox = self.outbox(self.node, stingy)
        for _ in range(5):
            self.chat(10)
            self.assertLessEqual(outbox.queue_size(MessagePriority.SCP), 8 * 13)
            self.assertLessEqual(outbox.queue_weight(MessagePriority.FLOOD_ADVERT), 50)
        self.assert_linked(stingy)
        self.assertGreater(self.count("queue_drop_scp"), 8 * 30)
        self.assertGreater(self.count("queue_drop_advert"), 200)
        self.assertEqual((stingy.bodies(SCP), stingy.bodies(ADVERT)), ([], []))
        self.chat(16)
        self.assertTrue(stingy.is_closed)
        self.assertEqual(self.drop_count(DropReason.NO_FLOOD_REQUESTS), 1)
        self.assert_honest_have_everything()

    def test_demands_and_never_grants(self) -> None:
        """F32: transactions for it are given up beyond the limit in bytes."""
        self.start(outbound_tx_queue_byte_limit=20_000)
        stingy = self.call("stingy", Stingy)
        outbox = self.outbox(self.node, stingy)
        for _ in range(10):
            self.chat(1, each=3)
            stingy.demand(*(tx_full_hash(one.body) for _, one in self.said if one.type is TX))
            self.network.advance(0)
            self.assertLessEqual(outbox.queue_weight(MessagePriority.TRANSACTION), 20_000)
        self.assertGreater(self.count("queue_drop_tx"), 100)
        self.assertEqual(stingy.bodies(TX), [])
        self.assert_honest_have_everything()

    def test_never_reads(self) -> None:
        """What is written for it stays within bounds, answers included; it goes in time."""
        self.start()
        item_hash = self.node.publish(large_tx_set())
        reading = self.call("deaf", Neighbour)
        ours = self.network.memory.transports[-1][1]
        assert isinstance(ours, MemoryTransport)
        ours.cork()
        for _ in range(280):
            reading.ask(GET_TX_SET, item_hash)
        peak = buffered = 0
        for _ in range(50):
            self.chat(1)
            peak = max(peak, self.count("answers_unsent_bytes"))
            buffered = max(buffered, ours.buffered)
        self.assertTrue(ANSWER_BYTE_LIMIT - 2 * MEBIBYTE < peak <= ANSWER_BYTE_LIMIT, peak)
        self.assertLess(buffered, BUFFER_SIZE + 2 * MEBIBYTE)
        self.assertGreater(self.count("answers_refused"), 100)
        self.assertEqual(len(reading.bodies(TX_SET)), 0)
        self.chat(15)
        self.network.advance(70)
        self.assertTrue(reading.is_closed)
        self.assertEqual(self.count("answers_unsent_bytes"), 0)
        timed_out = (DropReason.NO_FLOOD_REQUESTS, DropReason.STRAGGLING, DropReason.IDLE)
        self.assertEqual(sum(map(self.drop_count, timed_out)), 1)
        self.assert_honest_have_everything()

    def test_advertises_and_never_serves(self) -> None:
        """So many hashes of it are kept and no more; the transactions of others still come."""
        self.start()
        boaster = self.call("boaster", Boaster)
        for batch in range(40):
            boaster.advertise(*(a_hash((batch, number)) for number in range(1000)))
        for _ in range(15):
            self.chat(1, each=3)
            stats = self.adverts(boaster)
            self.assertLessEqual(stats.history_size, 10_000)
            self.assertLessEqual(stats.incoming_queue_size + stats.retry_queue_size, 10_000)
        self.assertEqual(boaster.backlog, 0)
        self.assert_honest_have_everything()
        demanded = len(boaster.hashes(DEMAND))
        self.assertGreater(demanded, 5000)
        self.assertEqual(self.count("demand_timeouts"), 0)
        self.assertEqual(self.count("abandoned_demands"), 0)
        self.network.advance(61)
        self.assertEqual(self.count("abandoned_demands"), demanded)
        self.assert_linked(boaster)

    def test_repeats_a_demand(self) -> None:
        """A thousand times: answered once, and again after half a minute."""
        self.start()
        self.chat(1)
        pest = self.call("pest", Neighbour)
        wanted = next(message for _, message in self.said if message.type is TX)
        fulfilled = self.count("flood_fulfilled")
        for _ in range(10):
            for _ in range(100):
                pest.demand(tx_full_hash(wanted.body))
            self.chat(1)
        self.assert_honest_have_everything()
        self.assertEqual(pest.backlog, 0)
        self.assertEqual(pest.bodies(TX), [wanted.body])
        self.assertEqual(self.count("queries_ignored"), 999)
        others = (HONEST - 1) * HONEST * 10  # each has got each of the others'
        self.assertEqual(self.count("flood_fulfilled") - fulfilled, others + 1)
        self.network.advance(30)
        pest.demand(tx_full_hash(wanted.body))
        self.network.advance(1)
        self.assertEqual(pest.bodies(TX), 2 * [wanted.body])

    def test_asks_a_thousand_questions(self) -> None:
        """300 of each kind in a minute are answered, the others ignored without a word."""
        self.start()
        pest = self.call("pest", Neighbour)
        item_hash = self.node.publish(large_tx_set())
        for batch in range(10):
            for number in range(100):
                pest.ask(GET_TX_SET, item_hash)
                pest.ask(GET_QUORUM_SET, a_hash((batch, number)))
            self.chat(1)
        self.assert_honest_have_everything()
        self.assertEqual((len(pest.bodies(TX_SET)), len(pest.bodies(DONT_HAVE))), (300, 300))
        self.assertEqual(self.count("queries_ignored"), 1400)
        self.assertEqual(self.count("answers_unsent_bytes"), 0)
        self.assert_linked(pest)

    def test_forges_signatures(self) -> None:
        """A thousand statements and transactions: none goes further, and all are counted."""
        self.start()
        forger = self.call("forger", Neighbour)
        bad = [forged(prepare(validator(20), slot, a_value())) for slot in range(90, 190)]
        for round_ in range(5):
            forger.flood(*bad, *(forged(one) for one in payments(100, 1000 + 100 * round_)))
            self.chat(1)
        self.assert_honest_have_everything()
        self.assertEqual(forger.backlog, 0)
        self.assertEqual(self.count("scp_discarded"), 500)
        self.assertEqual(self.count("pulled_irrelevant_txs"), 500)
        self.assert_linked(forger)

    def test_all_at_once(self) -> None:
        """One of each kind."""
        self.start()
        item_hash = self.node.publish(large_tx_set())
        stingy, boaster = self.call("stingy", Stingy), self.call("boaster", Boaster)
        pest = self.call("pest", Neighbour)
        self.call("deaf", Neighbour)
        ours = self.network.memory.transports[-1][1]
        ours.cork()
        for batch in range(10):
            boaster.advertise(*(a_hash((batch, number)) for number in range(1000)))
            for _ in range(50):
                pest.demand(a_hash("unknown"))
                pest.ask(GET_TX_SET, item_hash)
                stingy.ask(GET_TX_SET, item_hash)
            self.chat(1)
        self.assert_honest_have_everything()


class ClassTests(TrafficTestCase):
    """Y14, Y20, Y29: what waits for credit keeps nothing else waiting."""

    def test_what_does_not_fit_lets_others_pass(self) -> None:
        """Y14: a statement too long for the credit in bytes; the transaction behind it leaves."""
        node = self.add()
        stingy = self.call("stingy", Stingy)
        votes = [a_value(number) for number in range(20)]
        long, short = nominate(validator(0), 1, votes), payment(1)
        stingy.relent(10, 40)  # the advert
        node.broadcast(short)
        self.network.advance(0.2)
        self.assertEqual(stingy.hashes(ADVERT), [tx_full_hash(short.body)])
        node.broadcast(long)
        stingy.demand(tx_full_hash(short.body))
        self.network.advance(0)
        stingy.relent(10, short.size + 8)
        self.network.advance(0)
        self.assertEqual((stingy.bodies(TX), stingy.bodies(SCP)), ([short.body], []))
        stingy.relent(1, long.size)
        self.network.advance(0)
        self.assertEqual(stingy.bodies(SCP), [long.body])

    def test_answers_need_no_credit(self) -> None:
        """Y20, Y29: who grants nothing is answered, at once, before what is flooded to it."""
        node = self.add()
        item_hash = node.publish(large_tx_set())
        stingy = self.call("stingy", Stingy)
        statements = [prepare(validator(by), 1, a_value()) for by in range(50)]
        for statement in statements:
            node.broadcast(statement)
        stingy.relent()
        stingy.ask(GET_TX_SET, item_hash)
        stingy.ask(GET_TX_SET, a_hash("nothing"))
        self.network.advance(0)
        self.assertEqual((len(stingy.bodies(TX_SET)), len(stingy.bodies(DONT_HAVE))), (1, 1))
        self.assertEqual(len(stingy.bodies(SCP)), 50)
        stingy = self.call("stingier", Stingy)
        for statement in [prepare(validator(by), 2, a_value()) for by in range(50)]:
            node.broadcast(statement)
        stingy.ask(GET_TX_SET, item_hash)
        self.network.advance(0)
        self.assertEqual((len(stingy.bodies(TX_SET)), stingy.bodies(SCP)), (1, []))


class StuckSubscriberTests(TrafficTestCase):
    """A subscriber that holds all it gets for 45 s, while ten peers push all they may."""

    CREDIT = 50
    MESSAGES = 120

    def setUp(self) -> None:
        super().setUp()
        self.node = self.add(
            peer_reading_capacity=self.CREDIT + 1,
            peer_flood_reading_capacity=self.CREDIT,
            flow_control_send_more_batch_size=10,
        )
        self.pushers = self.calls(10, Neighbour, name="pusher")
        self.said = [
            [prepare(validator(number), slot, a_value()) for slot in range(1, self.MESSAGES + 1)]
            for number in range(10)
        ]

    def push(self) -> None:
        for pusher, said in zip(self.pushers, self.said, strict=True):
            pusher.flood(*said)

    async def read(self, subscription: Subscription, into: list[OverlayMessage]) -> None:
        async for message in subscription:
            into.append(message)  # noqa: PERF401 - it does not end

    def test_45_seconds(self) -> None:
        """No loss, nothing beyond credit, a warning at 30 s; then everything flows."""
        subscription = self.node.subscribe(SCP, duplicates=False, name="the slow one")
        shown = Heard(self.node, SCP)
        drops = self.drops(self.node)
        self.push()
        with capturedLogs() as events:
            self.network.advance(29.9)
            self.assertEqual([each for each in events if each["log_level"] >= LogLevel.warn], [])
            self.network.advance(15.1)
        (warning,) = [each for each in events if each["log_level"] >= LogLevel.warn]
        self.assertIn(
            f"the slow one is stuck with {10 * self.CREDIT} message(s)", formatEvent(warning)
        )
        self.assertEqual([pusher.sent for pusher in self.pushers], 10 * [self.CREDIT])
        self.assertEqual([pusher.granted for pusher in self.pushers], 10 * [self.CREDIT])
        self.assertEqual(len(shown.messages), 10 * self.CREDIT)
        (unprocessed,) = self.figures(self.node, "received_unprocessed_bytes")
        self.assertLessEqual(unprocessed, sum(len(one.body) for one in shown.messages))
        read: list[OverlayMessage] = []
        reading = Deferred.fromCoroutine(self.read(subscription, read))
        self.network.advance(5)
        self.assertNoResult(reading)
        for pusher, said in zip(self.pushers, self.said, strict=True):
            mine = [message.body for message in read if message.from_peer == pusher.peer_id]
            self.assertEqual(mine, [message.body for message in said])
            self.assertEqual(pusher.backlog, 0)
        self.assertEqual(drops, [])
        self.assertEqual(self.figures(self.node, "received_unprocessed_bytes"), [0])
        for number, pusher in enumerate(self.pushers):  # and all was relayed meanwhile
            others = {one.body for by, said in enumerate(self.said) if by != number for one in said}
            self.assertEqual(set(pusher.bodies(SCP)), others)

    def test_pushers_that_leave(self) -> None:
        """What they sent is still there to be read, and nobody is owed anything for it."""
        subscription = self.node.subscribe(SCP)
        self.push()
        self.network.advance(20)
        for pusher in self.pushers[:5]:
            pusher.hang_up()
        self.network.advance(1)
        self.assertEqual(len(self.node.peer_infos()), 5)
        read: list[OverlayMessage] = []
        Deferred.fromCoroutine(self.read(subscription, read))
        self.network.advance(5)
        counts = Counter(message.from_peer for message in read if message.is_first)
        expected = 5 * [self.CREDIT] + 5 * [self.MESSAGES]
        self.assertEqual([counts[pusher.peer_id] for pusher in self.pushers], expected)
        subscription.cancel()

    def test_longer_than_a_node_bears(self) -> None:
        """A node that gets no credit for 60 s leaves; until 45 s it waits, and then goes on."""
        for seconds, is_linked in ((45, True), (66, False)):
            node = self.add(
                f"stuck {seconds}",
                peer_reading_capacity=6,
                peer_flood_reading_capacity=5,
                flow_control_send_more_batch_size=1,
            )
            sender = self.add(f"sender {seconds}")
            self.link(f"sender {seconds}", f"stuck {seconds}")
            drops = self.drops(sender)
            subscription = node.subscribe(SCP, duplicates=False)
            for slot in range(1, 21):
                sender.broadcast(prepare(validator(0), slot, a_value()))
            with capturedLogs():
                self.network.advance(seconds)
            self.assertEqual(
                [event.reason for event in drops],
                [] if is_linked else [DropReason.NO_FLOOD_REQUESTS.text],
            )
            read: list[OverlayMessage] = []
            Deferred.fromCoroutine(self.read(subscription, read))
            self.network.advance(1)
            self.assertEqual(len(read), 20 if is_linked else 5)
            subscription.cancel()

    def test_lossy(self) -> None:
        """Who would rather lose some keeps nobody waiting, and knows how many."""
        subscription = self.node.subscribe(SCP, lossy=100, name="the lossy one")
        self.push()
        self.network.advance(45)
        self.assertEqual([pusher.backlog for pusher in self.pushers], 10 * [0])
        self.assertEqual(subscription.lost, 10 * self.MESSAGES - 100)
        self.assertEqual(self.figures(self.node, "observer_lost"), [subscription.lost])
        read: list[OverlayMessage] = []
        Deferred.fromCoroutine(self.read(subscription, read))
        self.network.advance(0)
        self.assertEqual(len(read), 100)
        subscription.cancel()


class IgnoredTests(TrafficTestCase):
    """F30: a node that ignores everything still returns credit."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.add(
            herder=IgnoringHerder(),
            peer_reading_capacity=2,
            peer_flood_reading_capacity=1,
            flow_control_send_more_batch_size=1,
        )

    def test_a_hundred_transactions(self) -> None:
        """One at a time, from a peer that keeps to its credit."""
        peer = self.call("peer", Neighbour)
        peer.flood(*payments(100))
        self.network.advance(1)
        self.assert_linked(peer)
        self.assertEqual((peer.sent, peer.granted, peer.backlog), (100, 101, 0))
        flow = self.node.peer(peer.peer_id).flow_control
        self.assertEqual((flow.local_flood_capacity, flow.is_throttled), (1, False))

    def test_from_a_node(self) -> None:
        """Likewise from a node, that has them demanded, and sends each."""
        sender = self.add("sender")
        self.link("sender", "node")
        heard = Heard(self.node, TX)
        for message in payments(100):
            sender.broadcast(message)
            self.network.advance(0.05)
        self.network.advance(30)
        self.assertEqual((len(heard.first()), heard.again()), (100, []))
        self.assertEqual(len(self.network.links()), 1)
        (info,) = sender.peer_infos()
        self.assertEqual((info.flow_control.peer_message_capacity, info.messages_dropped), (1, 0))
