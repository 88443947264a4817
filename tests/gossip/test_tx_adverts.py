"""What a peer advertises to us, and what we advertise to it."""

from __future__ import annotations

import hashlib
import math
from collections import deque
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ConfigError
from stellar_overlay.gossip.tx_adverts import (
    TX_ADVERT_VECTOR_MAX_SIZE,
    TX_DEMAND_VECTOR_MAX_SIZE,
    PullModeConfig,
    TxAdverts,
    TxAdvertsStats,
)
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, decode_hashes


def tx(number: int) -> bytes:
    """Return the hash of some transaction."""
    return hashlib.sha256(b"%d" % number).digest()


def txs(start: int, stop: int) -> list[bytes]:
    """Return the hashes of several."""
    return [tx(number) for number in range(start, stop)]


def drain(adverts: TxAdverts) -> list[bytes]:
    """Pop whatever waits."""
    popped = []
    while (tx_hash := adverts.pop_incoming_advert()) is not None:
        popped.append(tx_hash)
    return popped


class ConfigTests(SynchronousTestCase):
    """messages.md 2.2, 2.3 and 2.5."""

    def test_sizes(self) -> None:
        """Core's formulas, with the example of messages.md 2.3, and what we begin with."""
        config = PullModeConfig(max_tx_set_size_ops=1000, soroban_ledger_max_tx_count=100)
        self.assertEqual(config.max_advert_size, 22)  # ceil(1100 * 100 / 5000)
        self.assertEqual(config.max_demand_size, 88)  # ceil(2200 * 200 / 5000)
        self.assertEqual(PullModeConfig().max_advert_size, 202)
        self.assertEqual(PullModeConfig().max_demand_size, 808)

    def test_parts_are_rounded_as_in_core(self) -> None:
        """Each rate is rounded down to whole operations, the share of a period up."""
        config = PullModeConfig(
            flood_op_rate_per_ledger=0.0159,
            flood_soroban_rate_per_ledger=0.019,
            max_tx_set_size_ops=100,
            soroban_ledger_max_tx_count=100,
        )
        self.assertEqual(config.max_advert_size, 1)  # int(1.59) + int(1.9) = 2 -> ceil(0.04)
        self.assertEqual(config.max_demand_size, 1)
        config = PullModeConfig(max_tx_set_size_ops=50, soroban_ledger_max_tx_count=1)
        self.assertEqual(config.max_advert_size, 2)  # ceil(51 / 50)

    @settings(derandomize=True, max_examples=200)
    @given(
        rate=st.floats(1e-6, 1e6),
        operations=st.integers(1, 2**31 - 1),
        period=st.integers(1, 10**6),
        close=st.integers(1, 10**6),
    )
    def test_sizes_are_always_legal(
        self, rate: float, operations: int, period: int, close: int
    ) -> None:
        """Whatever is configured, 1 to 1,000 hashes go into a message (A4), never none."""
        config = PullModeConfig(
            flood_op_rate_per_ledger=rate,
            max_tx_set_size_ops=operations,
            flood_advert_period_ms=period,
            flood_demand_period_ms=period,
            expected_close_ms=close,
        )
        self.assertTrue(1 <= config.max_advert_size <= TX_ADVERT_VECTOR_MAX_SIZE)
        self.assertTrue(1 <= config.max_demand_size <= TX_DEMAND_VECTOR_MAX_SIZE)

    def test_nonsense_is_refused(self) -> None:
        """By name, before anything is divided by it."""
        for name, value in (
            ("expected_close_ms", 0),
            ("max_tx_set_size_ops", -1),
            ("advert_history_size", 0),
        ):
            with self.assertRaisesRegex(ConfigError, name):
                PullModeConfig(**{name: value})
        for rate in (math.nan, math.inf, 0.0):
            with self.assertRaises(ConfigError):
                PullModeConfig(flood_op_rate_per_ledger=rate)


class TxAdvertsTestCase(SynchronousTestCase):
    """Makes adverts whose messages are kept."""

    def setUp(self) -> None:
        self.sent: list[Message] = []
        self.metrics = OverlayMetrics()

    def adverts(self, config: PullModeConfig | None = None) -> TxAdverts:
        return TxAdverts(self.sent.append, config, metrics=self.metrics)

    def sent_hashes(self) -> list[list[bytes]]:
        """Return the hashes of each message."""
        self.assertTrue(all(each.type is MessageType.FLOOD_ADVERT for each in self.sent))
        return [decode_hashes(message.body) for message in self.sent]


class OutgoingTests(TxAdvertsTestCase):
    """messages.md 2.3."""

    def test_sent_within_a_period(self) -> None:
        """A2: one hash waits for company, but not longer than 100 ms."""
        adverts, clock = self.adverts(), Clock()
        loop = LoopingCall(adverts.maybe_flush_on_timer)
        loop.clock = clock
        loop.start(PullModeConfig().flood_advert_period_ms / 1000)
        self.assertTrue(adverts.queue_outgoing_advert(tx(0)))
        self.assertTrue(adverts.has_outgoing)
        self.assertEqual((self.sent, adverts.outgoing_size), ([], 1))
        clock.advance(0.1)
        self.assertEqual((self.sent_hashes(), adverts.outgoing_size), ([[tx(0)]], 0))
        self.assertFalse(adverts.has_outgoing)
        clock.pump([0.1] * 10)
        self.assertEqual(len(self.sent), 1)

    def test_sent_at_once_when_enough_wait(self) -> None:
        """A3: the hash that fills an advert sends it."""
        adverts = self.adverts(PullModeConfig(max_tx_set_size_ops=200))
        most = PullModeConfig(max_tx_set_size_ops=200).max_advert_size
        self.assertGreater(most, 1)
        for tx_hash in txs(1, most):
            adverts.queue_outgoing_advert(tx_hash)
        self.assertEqual((self.sent, adverts.outgoing_size), ([], most - 1))
        adverts.queue_outgoing_advert(tx(most))
        self.assertEqual(adverts.outgoing_size, 0)
        self.assertEqual(self.sent_hashes(), [txs(1, most + 1)])

    def test_never_more_than_1000(self) -> None:
        """A4: whatever the size of a ledger; and never an empty advert."""
        adverts = self.adverts(PullModeConfig(max_tx_set_size_ops=1000 * 100 * 1000))
        for tx_hash in txs(0, 2500):
            adverts.queue_outgoing_advert(tx_hash)
        adverts.flush_advert()
        adverts.flush_advert()
        self.assertEqual([len(hashes) for hashes in self.sent_hashes()], [1000, 1000, 500])
        self.assertEqual([*chain(*self.sent_hashes())], txs(0, 2500))

    def test_not_told_what_it_told_us(self) -> None:
        """Who advertised a transaction is not told of it, and only what is queued is counted."""
        adverts = self.adverts()
        adverts.queue_incoming_advert([tx(0)], 7)
        adverts.pop_incoming_advert()
        self.assertFalse(adverts.queue_outgoing_advert(tx(0)))
        self.assertTrue(adverts.queue_outgoing_advert(tx(1)))
        adverts.flush_advert()
        self.assertEqual(self.sent_hashes(), [[tx(1)]])
        self.assertEqual(self.metrics.flood_advertised.get(), 1)

    def test_what_we_told_it_is_not_what_it_told_us(self) -> None:
        """The history holds what the peer advertised only (messages.md 2.3)."""
        adverts = self.adverts()
        adverts.queue_outgoing_advert(tx(0))
        adverts.flush_advert()
        self.assertFalse(adverts.seen_advert(tx(0)))

    def test_a_peer_that_ends_while_it_is_told(self) -> None:
        """The send may end the link: nothing is sent twice, and nothing raises."""

        def send(message: Message) -> None:
            self.sent.append(message)
            adverts.shutdown()

        adverts = TxAdverts(send, metrics=self.metrics)
        adverts.queue_outgoing_advert(tx(0))
        adverts.flush_advert()
        adverts.flush_advert()
        self.assertFalse(adverts.queue_outgoing_advert(tx(1)))
        adverts.flush_advert()
        self.assertEqual(self.sent_hashes(), [[tx(0)]])


class IncomingTests(TxAdvertsTestCase):
    """messages.md 2.4."""

    LIMIT = 200

    def adverts(self, config: PullModeConfig | None = None) -> TxAdverts:
        return super().adverts(config or PullModeConfig(max_tx_set_size_ops=self.LIMIT))

    def test_retries_yield_to_new_ones(self) -> None:
        """A1: with L new ones there is no room for a retry, since retries are popped first."""
        adverts = self.adverts()
        adverts.queue_incoming_advert(txs(0, self.LIMIT), 1)
        self.assertEqual(adverts.size(), self.LIMIT)
        adverts.retry_incoming_advert(txs(self.LIMIT, 2 * self.LIMIT))
        self.assertEqual(adverts.size(), self.LIMIT)
        self.assertEqual(drain(adverts), txs(0, self.LIMIT))
        self.assertEqual(adverts.size(), 0)
        self.assertFalse(adverts.has_adverts)

    def test_retries_come_first(self) -> None:
        """A1: L/2 and L/2 have room; retries first, then new ones, each in their order."""
        adverts, half = self.adverts(), self.LIMIT // 2
        adverts.queue_incoming_advert(txs(0, half), 1)
        adverts.retry_incoming_advert(txs(self.LIMIT, self.LIMIT + half))
        self.assertEqual(adverts.size(), self.LIMIT)
        self.assertTrue(adverts.has_adverts)
        self.assertEqual(drain(adverts), txs(self.LIMIT, self.LIMIT + half) + txs(0, half))

    def test_new_ones_push_out_retries_and_then_the_oldest(self) -> None:
        """Trimming pops, and so takes what would come next."""
        adverts = self.adverts(PullModeConfig(max_tx_set_size_ops=4))
        adverts.retry_incoming_advert(txs(0, 2))
        adverts.queue_incoming_advert(txs(10, 13), 1)
        self.assertEqual(adverts.stats.retry_queue_size, 1)
        adverts.queue_incoming_advert(txs(20, 23), 1)
        self.assertEqual(drain(adverts), [tx(12), *txs(20, 23)])

    def test_more_than_the_limit_in_one_advert(self) -> None:
        """Row 22: the last L are queued, all are remembered."""
        adverts = self.adverts(PullModeConfig(max_tx_set_size_ops=10))
        adverts.queue_incoming_advert(txs(0, 1000), 1)
        self.assertEqual(adverts.stats.history_size, 1000)
        self.assertTrue(all(adverts.seen_advert(tx_hash) for tx_hash in txs(0, 1000)))
        self.assertEqual(drain(adverts), txs(990, 1000))

    def test_repeated_hashes(self) -> None:
        """Within a message they count once (DECISIONS.md 13), in another one again, as in core."""
        adverts = self.adverts()
        adverts.queue_incoming_advert([tx(0), tx(1), tx(0)] * 300, 1)
        self.assertEqual(adverts.size(), 2)
        adverts.queue_incoming_advert([tx(1)], 1)
        self.assertEqual(drain(adverts), [tx(0), tx(1), tx(1)])

    def test_empty(self) -> None:
        """Row 25: an advert of nothing is harmless, and so is popping it."""
        adverts = self.adverts()
        adverts.queue_incoming_advert([], 1)
        adverts.retry_incoming_advert([])
        self.assertIsNone(adverts.pop_incoming_advert())
        self.assertFalse(adverts.has_adverts)

    def test_retries_wait_until_due(self) -> None:
        """Each from its own moment on; new ones do not wait behind them."""
        adverts = self.adverts()
        adverts.retry_incoming_advert([tx(3)], 3.0)
        adverts.retry_incoming_advert([tx(1)], 1.0)
        adverts.retry_incoming_advert([tx(4)], 3.0)
        adverts.queue_incoming_advert([tx(0)], 1)
        self.assertEqual(adverts.size(), 4)
        self.assertEqual(adverts.pop_incoming_advert(0.9), tx(0))
        self.assertIsNone(adverts.pop_incoming_advert(0.9))
        self.assertEqual(adverts.pop_incoming_advert(1.0), tx(1))
        self.assertIsNone(adverts.pop_incoming_advert(2.9))
        self.assertEqual(adverts.pop_incoming_advert(3.0), tx(3))
        self.assertEqual(adverts.pop_incoming_advert(3.0), tx(4))
        self.assertEqual(adverts.size(), 0)

    def test_stats(self) -> None:
        """One figure for each queue; all are empty after the end, and stay so."""
        adverts = self.adverts()
        adverts.queue_incoming_advert(txs(0, 3), 1)
        adverts.retry_incoming_advert(txs(3, 5))
        adverts.queue_outgoing_advert(tx(9))
        self.assertEqual(
            adverts.stats,
            TxAdvertsStats(
                incoming_queue_size=3, retry_queue_size=2, outgoing_queue_size=1, history_size=3
            ),
        )
        empty = TxAdvertsStats(
            incoming_queue_size=0, retry_queue_size=0, outgoing_queue_size=0, history_size=0
        )
        adverts.shutdown()
        self.assertEqual(adverts.stats, empty)
        adverts.queue_incoming_advert(txs(0, 3), 1)
        adverts.retry_incoming_advert(txs(0, 3))
        adverts.queue_outgoing_advert(tx(0))
        self.assertEqual(adverts.stats, empty)
        self.assertEqual(self.sent, [])

    @settings(derandomize=True, max_examples=150)
    @given(
        limit=st.integers(1, 6),
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("new"), st.lists(st.integers(0, 20), max_size=10)),
                st.tuples(st.just("retry"), st.lists(st.integers(0, 20), max_size=10)),
                st.tuples(st.just("pop"), st.just(list[int]())),
            ),
            max_size=30,
        ),
    )
    def test_as_core_does(self, limit: int, steps: list[tuple[str, list[int]]]) -> None:
        """Two plain queues and core's rules give the same, step by step."""
        adverts = self.adverts(PullModeConfig(max_tx_set_size_ops=limit))
        incoming: deque[int] = deque()
        retries: deque[int] = deque()

        def pop() -> int | None:
            queue = retries or incoming
            return queue.popleft() if queue else None

        for step, numbers in steps:
            if step == "pop":
                expected = pop()
                popped = adverts.pop_incoming_advert()
                self.assertEqual(popped, None if expected is None else tx(expected))
                continue
            hashes = [tx(number) for number in numbers]
            if step == "new":
                adverts.queue_incoming_advert(hashes, 1)
                incoming.extend(dict.fromkeys(numbers))
            else:
                adverts.retry_incoming_advert(hashes)
                retries.extend(numbers)
            while len(incoming) + len(retries) > limit:
                pop()
            self.assertEqual(adverts.size(), len(incoming) + len(retries))
            self.assertEqual(adverts.stats.retry_queue_size, len(retries))


class HistoryTests(TxAdvertsTestCase):
    """What is remembered of a peer's adverts (T14)."""

    def test_bounded(self) -> None:
        """The oldest are forgotten; an advert that is heard again is as young as a new one."""
        adverts = self.adverts(PullModeConfig(advert_history_size=100))
        adverts.queue_incoming_advert(txs(0, 60), 1)
        adverts.queue_incoming_advert(txs(60, 100), 1)
        adverts.queue_incoming_advert([tx(0)], 1)
        adverts.queue_incoming_advert(txs(100, 110), 1)
        self.assertEqual(adverts.stats.history_size, 100)
        forgotten = [number for number in range(110) if not adverts.seen_advert(tx(number))]
        self.assertEqual(forgotten, list(range(1, 11)))

    def test_a_flood_of_adverts(self) -> None:
        """T14: 100 messages of 1,000 hashes leave 10,000 remembered and as many waiting."""
        adverts = self.adverts()
        for start in range(0, 100_000, 1000):
            adverts.queue_incoming_advert(
                [number.to_bytes(32, "little") for number in range(start, start + 1000)], 1
            )
        stats = adverts.stats
        self.assertEqual((stats.history_size, stats.incoming_queue_size), (10_000, 10_000))
        self.assertFalse(adverts.seen_advert((89_999).to_bytes(32, "little")))
        self.assertTrue(adverts.seen_advert((90_000).to_bytes(32, "little")))

    def test_prefixes_do_not_matter(self) -> None:
        """Hashes that differ in their last byte only are different ones (core 26.0.1)."""
        adverts = self.adverts()
        adverts.queue_incoming_advert([bytes(31) + bytes([number]) for number in range(200)], 1)
        self.assertEqual(adverts.stats.history_size, 200)
        self.assertFalse(adverts.seen_advert(bytes(31) + b"\xff"))

    def test_clear_below(self) -> None:
        """Exact, in whatever order the ledgers came; FL3: then it can be advertised again."""
        adverts = self.adverts()
        adverts.queue_incoming_advert([tx(1), tx(2)], 20)
        adverts.queue_incoming_advert([tx(3)], 10)
        adverts.queue_incoming_advert([tx(1)], 21)
        adverts.clear_below(10)
        self.assertEqual(adverts.stats.history_size, 3)
        adverts.clear_below(21)
        self.assertEqual([number for number in range(5) if adverts.seen_advert(tx(number))], [1])
        self.assertTrue(adverts.queue_outgoing_advert(tx(2)))
        self.assertFalse(adverts.queue_outgoing_advert(tx(1)))
        self.assertEqual(adverts.stats.incoming_queue_size, 4)
        adverts.clear_below(100)
        self.assertEqual(adverts.stats.history_size, 0)
