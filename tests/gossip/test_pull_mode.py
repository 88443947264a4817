"""Several nodes that advertise, demand and answer: scenarios A5 to A13 of core's tests."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise

from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip import demand_history
from stellar_overlay.gossip.tx_adverts import PullModeConfig
from stellar_overlay.gossip.tx_demands import TxDemandsManager, TxKnownStatus
from stellar_overlay.identity import PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.testing.clock import SimulatedClock
from stellar_overlay.wire.message import Message, MessageType, decode_hashes, encode_hashes
from tests.builders import transaction

LATENCY = 0.0005
EPSILON = 0.002
"""Longer than a message takes."""
QUICK = PullModeConfig(
    flood_demand_backoff_delay_ms=200, max_tx_set_size_ops=1000, soroban_ledger_max_tx_count=100
)
"""As in core's scenarios, where each wait is a whole number of periods."""


def hash_of(message: Message) -> bytes:
    """Return the hash by which a transaction is advertised."""
    return hashlib.sha256(message.body[4:]).digest()


class Wire:
    """A node's link to another one; what is sent arrives a moment later."""

    def __init__(self, clock: SimulatedClock, node: Node) -> None:
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.ping_ms: int | None = None
        self.peer_id = node.peer_id
        self.back: Wire
        self._clock = clock
        self._node = node

    def send(self, message: Message) -> bool:
        self._clock.callLater(LATENCY, self._node.receive, self.back, message)
        return True


class Node:
    """A node that knows transactions by their hash, and keeps what it pulls.

    :ivar pool: what it gives away.
    :ivar heard: when each message arrived, from whom, and what.
    :ivar lies: what it sends instead of what is demanded.
    """

    def __init__(
        self, clock: SimulatedClock, number: int, config: PullModeConfig, seed: int
    ) -> None:
        self.peer_id = PeerId(number.to_bytes(32, "big"))
        self.metrics = OverlayMetrics()
        self.pool: dict[bytes, Message] = {}
        self.lies: Message | None = None
        self.heard: list[tuple[float, PeerId, Message]] = []
        self.links: dict[PeerId, Wire] = {}
        self.manager = TxDemandsManager(
            tx_status=self._status,
            get_tx=self.pool.get,
            config=config,
            random=random.Random(seed),
            metrics=self.metrics,
        )
        self._clock = clock
        self._config = config

    def start(self) -> None:
        """Demand and advertise in time, from now on."""
        for function, period_ms in (
            (self._demand, self._config.flood_demand_period_ms),
            (self._flush, self._config.flood_advert_period_ms),
        ):
            loop = LoopingCall(function)
            loop.clock = self._clock
            loop.start(period_ms / 1000)

    def broadcast(self, message: Message) -> None:
        """Have a transaction, and advertise it to whoever did not."""
        tx_hash = hash_of(message)
        self.pool[tx_hash] = message
        for adverts in self.manager.adverts.values():
            adverts.queue_outgoing_advert(tx_hash)

    def advertise(self, to: Node, hashes: Sequence[bytes]) -> None:
        """Advertise hashes to one peer, whether there is anything behind them or not."""
        self.links[to.peer_id].send(Message(encode_hashes(MessageType.FLOOD_ADVERT, hashes)))

    def receive(self, link: Wire, message: Message) -> None:
        """Do what a node does with a message."""
        now = self._clock.seconds()
        self.heard.append((now, link.peer_id, message))
        if message.type is MessageType.FLOOD_ADVERT:
            self.manager.recv_advert(link, decode_hashes(message.body), 1)
        elif message.type is MessageType.FLOOD_DEMAND:
            self.manager.recv_demand(link, decode_hashes(message.body), now)
            if self.lies is not None:
                link.send(self.lies)
        else:
            tx_hash = hash_of(message)
            self.manager.record_tx_received(tx_hash, link.peer_id, now)
            if tx_hash not in self.pool:
                self.broadcast(message)

    def count(self, kind: MessageType) -> int:
        """Return how many messages of a type arrived."""
        return sum(message.type is kind for _, _, message in self.heard)

    @property
    def unknown(self) -> int:
        """How many demanded hashes it did not know."""
        return self.metrics.flood_unfulfilled_unknown.get()

    @property
    def fulfilled(self) -> int:
        """How many it sent."""
        return self.metrics.flood_fulfilled.get()

    def meet(self, other: Node) -> None:
        """Connect the two."""
        wires = Wire(self._clock, other), Wire(self._clock, self)
        wires[0].back, wires[1].back = wires[1], wires[0]
        for node, wire in zip((self, other), wires, strict=True):
            node.links[wire.peer_id] = wire
            node.manager.add_peer(wire)

    def _demand(self) -> None:
        self.manager.demand(self._clock.seconds())

    def _flush(self) -> None:
        for adverts in self.manager.adverts.values():
            adverts.maybe_flush_on_timer()

    def _status(self, tx_hash: bytes) -> TxKnownStatus:
        return TxKnownStatus.KNOWN if tx_hash in self.pool else TxKnownStatus.UNKNOWN


class PullModeTestCase(SynchronousTestCase):
    """Makes nodes that share a clock."""

    def setUp(self) -> None:
        self.clock = SimulatedClock()

    def nodes(self, count: int, config: PullModeConfig = QUICK) -> list[Node]:
        """Return nodes that do not know each other yet."""
        return [Node(self.clock, number, config, seed=number) for number in range(count)]

    def company(self, count: int, config: PullModeConfig = QUICK) -> list[Node]:
        """Return nodes that are all connected, and have just demanded."""
        nodes = self.nodes(count, config)
        for node, other in combinations(nodes, 2):
            node.meet(other)
        for node in nodes:
            node.start()
        return nodes

    def periods(self, count: int = 1) -> None:
        """Let all demand so many times, and what they send arrive."""
        period = QUICK.flood_demand_period_ms / 1000
        now = self.clock.seconds()
        self.clock.advance((now // period + count) * period + EPSILON - now)


class ThreeNodesTests(PullModeTestCase):
    """A5 to A10: nodes 0 and 1 advertise to node 2."""

    def setUp(self) -> None:
        super().setUp()
        self.zero, self.one, self.two = self.company(3)

    def sent_demands(self, of: Node) -> int:
        """Return how many FLOOD_DEMANDs a node sent."""
        return sum(
            peer_id == of.peer_id and message.type is MessageType.FLOOD_DEMAND
            for node in (self.zero, self.one, self.two)
            for _, peer_id, message in node.heard
        )

    def hashes(self, count: int, start: int = 0) -> list[bytes]:
        """Return the hashes of transactions that nobody has."""
        return [hash_of(transaction(number=number)) for number in range(start, start + count)]

    def unknown(self) -> list[int]:
        """Return how many unknown hashes nodes 0 and 1 were asked for, the lower number first."""
        return sorted((self.zero.unknown, self.one.unknown))

    def test_duplicate_adverts(self) -> None:
        """A5: three times the same advert, and once more after 10 s: one demand."""
        for _ in range(3):
            self.zero.advertise(self.two, self.hashes(1))
        self.periods(3)
        self.assertEqual((self.sent_demands(self.two), self.zero.unknown), (1, 1))
        self.clock.advance(10)
        self.zero.advertise(self.two, self.hashes(1))
        self.periods(3)
        self.assertEqual((self.sent_demands(self.two), self.zero.unknown), (1, 1))

    def test_known_transactions_are_not_advertised_back(self) -> None:
        """A6: who gets a transaction does not advertise it to those who advertised it."""
        message = transaction()
        self.zero.broadcast(message)
        self.one.broadcast(message)
        self.clock.advance(1)
        self.assertEqual(self.sent_demands(self.two), 1)
        self.assertEqual(self.zero.fulfilled + self.one.fulfilled, 1)
        self.assertEqual(self.two.count(MessageType.FLOOD_ADVERT), 2)
        self.assertEqual(self.two.count(MessageType.TRANSACTION), 1)
        self.assertEqual(self.two.metrics.flood_advertised.get(), 0)
        self.assertEqual(self.two.pool, {hash_of(message): message})

    def test_two_from_two(self) -> None:
        """A7: each is asked for what it advertised, within one period."""
        first, second = self.hashes(2)
        self.zero.advertise(self.two, [first])
        self.one.advertise(self.two, [second])
        self.periods()
        self.assertEqual(self.sent_demands(self.two), 2)
        self.assertEqual((self.zero.unknown, self.one.unknown), (1, 1))

    def test_the_same_from_two(self) -> None:
        """A8: five hashes are split 2 to 3; when nobody serves them, each is asked for the rest."""
        for node in (self.zero, self.one):
            node.advertise(self.two, self.hashes(5))
        self.periods()
        self.assertEqual((self.sent_demands(self.two), self.unknown()), (2, [2, 3]))
        demanded = [
            tx_hash
            for node in (self.zero, self.one)
            for _, _, message in node.heard
            for tx_hash in decode_hashes(message.body)
        ]
        self.assertEqual(sorted(demanded), sorted(self.hashes(5)))
        self.periods()
        self.assertEqual((self.sent_demands(self.two), self.unknown()), (4, [5, 5]))

    def test_overlapping(self) -> None:
        """A9: {0, 1, 3} and {0, 2, 3} make two demands each, and then one more each."""
        a, b, c, d = self.hashes(4)
        self.zero.advertise(self.two, [a, b, d])
        self.one.advertise(self.two, [a, c, d])
        self.periods()
        self.assertEqual((self.sent_demands(self.two), self.unknown()), (2, [2, 2]))
        self.periods()
        self.assertEqual((self.sent_demands(self.two), self.unknown()), (4, [3, 3]))

    def test_chance_decides_who_is_asked_for_more(self) -> None:
        """A10: in 300 rounds of A8 none of the two is asked first more than 200 times."""
        larger: Counter[bool] = Counter()
        for number in range(300):
            before = self.zero.unknown
            for node in (self.zero, self.one):
                node.advertise(self.two, self.hashes(5, 5 * number))
            self.periods()
            self.assertEqual(self.sent_demands(self.two), 4 * number + 2)
            self.assertEqual(self.unknown(), [5 * number + 2, 5 * number + 3])
            larger[self.zero.unknown - before == 3] += 1
            self.periods()
            self.assertEqual(self.unknown(), [5 * number + 5] * 2)
            self.two.heard.clear()
        self.assertLessEqual(max(larger.values()), 200)


class LoadTests(PullModeTestCase):
    """A11: a node with transactions, and one without."""

    def test_ten_transactions(self) -> None:
        """Ten hashes are advertised one way and none the other, and each is demanded once."""
        one, two = self.company(2)
        for number in range(10):
            one.broadcast(transaction(number=number))
        self.clock.advance(15)
        self.assertEqual(one.metrics.flood_advertised.get(), 10)
        self.assertEqual(two.metrics.flood_advertised.get(), 0)
        self.assertGreater(one.count(MessageType.FLOOD_DEMAND), 0)
        self.assertEqual((one.fulfilled, one.unknown, two.unknown), (10, 0, 0))
        self.assertEqual(two.pool, one.pool)
        latency = two.metrics.peer_tx_pull_latency.snapshot()
        self.assertEqual(latency.count, 10)
        self.assertAlmostEqual(latency.max, 2 * LATENCY)
        self.assertEqual(two.metrics.demand_timeouts.get(), 0)

    def test_everybody_gets_everything_once(self) -> None:
        """In a company of eight that floods 40 transactions, nobody is sent one twice."""
        nodes = self.company(8)
        for number in range(40):
            nodes[number % 8].broadcast(transaction(number=number))
        self.clock.advance(5)
        for number, node in enumerate(nodes):
            self.assertEqual(len(node.pool), 40)
            self.assertEqual(node.count(MessageType.TRANSACTION), 35, number)
            self.assertEqual(node.unknown, 0)

    def test_along_a_chain(self) -> None:
        """Ten nodes in a row, each advertising what it gets: 300 ms a hop at most."""
        nodes = self.nodes(10)
        for node, following in pairwise(nodes):
            node.meet(following)
        for node in nodes:
            node.start()
        message = transaction()
        nodes[0].broadcast(message)
        self.clock.advance(9 * (0.3 + 3 * LATENCY))
        for node in nodes:
            self.assertEqual(list(node.pool.values()), [message])


class NobodyServesTests(PullModeTestCase):
    """A13 and T16."""

    WANTED = hashlib.sha256(b"").digest()

    def search(self, liar: Message | None = None) -> list[tuple[float, PeerId]]:
        """Let 19 peers advertise a hash to node 0; return when it demanded it, and of whom."""
        zero, *others = self.nodes(20, PullModeConfig())
        for other in others:
            other.lies = liar
            other.meet(zero)
            other.advertise(zero, [self.WANTED])
        zero.start()
        self.clock.advance(600)
        self.zero = zero
        return sorted(
            (when, other.peer_id)
            for other in others
            for when, _, message in other.heard
            if message.type is MessageType.FLOOD_DEMAND
        )

    def test_fifteen_demands(self) -> None:
        """A13: in ten minutes, never two of one peer, 0.5 to 2.2 s apart; then it is given up."""
        demands = self.search()
        self.assertEqual(len(demands), 15)
        self.assertEqual(len({peer_id for _, peer_id in demands}), 15)
        gaps = [after - before for (before, _), (after, _) in pairwise(demands)]
        self.assertTrue(all(0.5 - 1e-6 <= gap <= 2.2 + 1e-6 for gap in gaps), gaps)
        for gap, least in zip(gaps, [0.5, 1.0, 1.5, *[2.0] * 11], strict=True):
            self.assertTrue(least - 1e-6 <= gap <= least + 0.2 + 1e-6, gaps)
        self.assertEqual(self.zero.metrics.flood_demanded.get(), 15)
        self.assertEqual(self.zero.metrics.demand_timeouts.get(), 14)
        self.assertEqual(self.zero.metrics.abandoned_demands.get(), 1)
        self.assertFalse(self.zero.manager.has_work)

    def test_another_transaction_does_not_stop_it(self) -> None:
        """Each peer answers with a transaction that nobody demanded: it is taken, and no more."""
        lie = transaction(number=99)
        demands = self.search(lie)
        self.assertEqual(len(demands), 15)
        self.assertEqual(len({peer_id for _, peer_id in demands}), 15)
        self.assertEqual(self.zero.pool, {hash_of(lie): lie})
        self.assertEqual(self.zero.count(MessageType.TRANSACTION), 15)
        self.assertEqual(self.zero.metrics.abandoned_demands.get(), 1)
        self.assertEqual(self.zero.metrics.tx_pull_latency.snapshot().count, 0)

    def test_junk_does_not_delay_others(self) -> None:
        """T16: four peers that advertise 2,000 junk hashes a second each delay nobody.

        Not even when no more of them are remembered.
        """
        self.patch(demand_history, "MAX_WAITING", 2000)
        zero, honest, *attackers = self.nodes(6, PullModeConfig())
        for other in (honest, *attackers):
            other.meet(zero)
        zero.start()
        honest.start()
        for second in range(6):
            for number, attacker in enumerate(attackers):
                for half in range(2):
                    first = 1000 * (half + 2 * (number + 4 * second))
                    junk = [b"%32d" % each for each in range(first, first + 1000)]
                    attacker.advertise(zero, junk)
            honest.broadcast(transaction(number=second))
            self.clock.advance(1)
            self.assertEqual(len(zero.pool), second + 1)
        latency = zero.metrics.peer_tx_pull_latency.snapshot()
        self.assertEqual(latency.count, 6)
        self.assertAlmostEqual(latency.max, 2 * LATENCY)
        unserved = zero.manager.stats.unserved_demands
        self.assertEqual(sum(attacker.unknown for attacker in attackers), unserved)
        self.assertTrue(1000 <= unserved <= 2000, unserved)
