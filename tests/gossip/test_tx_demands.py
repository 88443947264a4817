"""Who is asked for which transaction, and what we answer to who asks us."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip import demand_history, tx_demands
from stellar_overlay.gossip.demand_history import (
    MAX_DELAY_DEMAND_SECONDS,
    MAX_RETRY_COUNT,
    RETENTION_SECONDS,
)
from stellar_overlay.gossip.tx_adverts import PullModeConfig
from stellar_overlay.gossip.tx_demands import (
    ANSWER_AGAIN_SECONDS,
    MAX_ANSWERS_REMEMBERED,
    DemandStatus,
    TxDemandsManager,
    TxDemandsStats,
    TxKnownStatus,
    TxPullLatency,
)
from stellar_overlay.identity import PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, decode_hashes
from tests.builders import transaction

PERIOD = 0.2


def tx(number: int, kind: str = "tx") -> bytes:
    """Return the hash of some transaction."""
    return hashlib.sha256(f"{kind}/{number}".encode()).digest()


class FakeLink:
    """A peer that keeps what it is sent.

    :ivar takes: whether it will get it.
    """

    def __init__(self, number: int) -> None:
        self.peer_id = PeerId(number.to_bytes(32, "big"))
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.ping_ms: int | None = None
        self.takes = True
        self.sent: list[Message] = []

    def send(self, message: Message) -> bool:
        if self.takes:
            self.sent.append(message)
        return self.takes

    @property
    def demands(self) -> list[list[bytes]]:
        """What it was asked for, in each message."""
        return [
            decode_hashes(message.body)
            for message in self.sent
            if message.type is MessageType.FLOOD_DEMAND
        ]

    @property
    def demanded(self) -> list[bytes]:
        """The same, all together."""
        return [tx_hash for hashes in self.demands for tx_hash in hashes]


class DemandsTestCase(SynchronousTestCase):
    """One node, which knows what the test says, and its peers."""

    def setUp(self) -> None:
        self.metrics = OverlayMetrics()
        self.status: dict[bytes, TxKnownStatus] = {}
        self.pool: dict[bytes, Message] = {}
        self.looked: list[bytes] = []
        self.manager = self.make()

    def make(self, config: PullModeConfig | None = None) -> TxDemandsManager:
        return TxDemandsManager(
            tx_status=self.look,
            get_tx=self.pool.get,
            config=config,
            random=random.Random(7),
            metrics=self.metrics,
        )

    def look(self, tx_hash: bytes) -> TxKnownStatus:
        self.looked.append(tx_hash)
        return self.status.get(tx_hash, TxKnownStatus.UNKNOWN)

    def links(self, count: int) -> list[FakeLink]:
        """Return so many peers."""
        links = [FakeLink(number) for number in range(1, count + 1)]
        for link in links:
            self.manager.add_peer(link)
        return links

    def run_for(self, start: float, seconds: float) -> float:
        """Demand in each period; return when the next run is."""
        for number in range(round(seconds / PERIOD)):
            self.manager.demand(start + number * PERIOD)
        return start + seconds


class StatusTests(DemandsTestCase):
    """messages.md 2.5, step 3."""

    def test_delays(self) -> None:
        """They grow by 0.5 s with each peer asked, up to 2 s; MAX_RETRY_COUNT is 15."""
        self.assertEqual(
            [self.manager.retry_delay(n) for n in (0, 1, 2, 3, 4, 5, 15)],
            [0, 0.5, 1, 1.5, 2, 2, 2],
        )
        self.assertEqual((MAX_RETRY_COUNT, MAX_DELAY_DEMAND_SECONDS), (15, 2.0))
        self.assertEqual(RETENTION_SECONDS, 60)
        self.manager = self.make(PullModeConfig(flood_demand_backoff_delay_ms=50))
        self.assertEqual(self.manager.retry_delay(3), 0.15)

    def test_what_is_known_is_not_demanded(self) -> None:
        """Neither what is in the pool nor what was found to be no good."""
        (link,) = self.links(1)
        self.status = {tx(0): TxKnownStatus.KNOWN, tx(1): TxKnownStatus.BANNED}
        self.manager.recv_advert(link, [tx(0), tx(1), tx(2)], 1)
        self.manager.demand(0)
        self.assertEqual(link.demands, [[tx(2)]])
        for number, status in enumerate((DemandStatus.DISCARD, DemandStatus.DISCARD)):
            self.assertIs(self.manager.demand_status(tx(number), link.peer_id, 0), status)
        self.assertEqual(self.manager.adverts[link].size(), 0)

    def test_one_peer_at_a_time(self) -> None:
        """The second is asked when the first had its time, the third when the second had more."""
        first, second, third = self.links(3)
        self.manager.recv_advert(first, [tx(0)], 1)
        self.assertIs(self.manager.demand_status(tx(0), first.peer_id, 0), DemandStatus.DEMAND)
        self.manager.demand(0)
        status = self.manager.demand_status
        self.assertIs(status(tx(0), first.peer_id, 30), DemandStatus.DISCARD)
        self.assertIs(status(tx(0), second.peer_id, 0.49), DemandStatus.RETRY_LATER)
        self.assertIs(status(tx(0), second.peer_id, 0.5), DemandStatus.DEMAND)
        self.manager.recv_advert(second, [tx(0)], 1)
        self.manager.demand(0.5)
        self.assertIs(status(tx(0), third.peer_id, 1.49), DemandStatus.RETRY_LATER)
        self.assertIs(status(tx(0), third.peer_id, 1.5), DemandStatus.DEMAND)
        self.assertEqual(self.metrics.demand_timeouts.get(), 1)
        self.assertEqual(self.metrics.flood_demanded.get(), 2)

    def test_fifteen_peers_at_most(self) -> None:
        """The sixteenth is not asked, however long ago that was, until all is forgotten."""
        links = self.links(16)
        for number, link in enumerate(links):
            self.manager.recv_advert(link, [tx(0)], 1)
            self.manager.demand(3 * number)
        self.assertEqual([len(link.demanded) for link in links], [1] * 15 + [0])
        self.assertEqual(self.manager.adverts[links[-1]].size(), 0)

    def test_a_new_link_to_the_same_node(self) -> None:
        """A peer that comes back is not asked again: it is known by its key."""
        (link,) = self.links(1)
        self.manager.recv_advert(link, [tx(0)], 1)
        self.manager.demand(0)
        self.manager.remove_peer(link)
        self.manager.recv_advert(link, [tx(1)], 1)
        (again,) = self.links(1)
        self.manager.recv_advert(again, [tx(0)], 1)
        self.run_for(1, 10)
        self.assertEqual((again.demanded, len(link.sent)), ([], 1))

    def test_forgotten_after_a_minute(self) -> None:
        """A hash that is advertised again then is demanded again, of the same peer too."""
        (link,) = self.links(1)
        self.manager.recv_advert(link, [tx(0)], 1)
        self.manager.demand(0)
        for now, demands, abandoned in ((59.8, 1, 0), (60, 2, 1)):
            self.manager.recv_advert(link, [tx(0)], 1)
            self.manager.demand(now)
            self.assertEqual(len(link.demands), demands)
            self.assertEqual(self.metrics.abandoned_demands.get(), abandoned)
        self.manager.demand(120)
        self.assertEqual(self.manager.pending_count, 0)
        self.assertEqual(self.metrics.abandoned_demands.get(), 2)
        self.assertFalse(self.manager.has_work)

    def test_hashes_repeated_in_an_advert(self) -> None:
        """One demand (A5 and DECISIONS.md 13), and nothing for an empty advert."""
        (link,) = self.links(1)
        self.manager.recv_advert(link, [], 1)
        self.manager.demand(0)
        self.assertEqual(link.sent, [])
        for _ in range(3):
            self.manager.recv_advert(link, [tx(0)] * 1000, 1)
        self.run_for(0, 10)
        self.assertEqual(link.demands, [[tx(0)]])

    def test_so_many_in_a_run(self) -> None:
        """The rest waits for the next one, in order."""
        self.manager = self.make(
            PullModeConfig(max_tx_set_size_ops=1000, soroban_ledger_max_tx_count=100)
        )
        (link,) = self.links(1)
        hashes = [tx(number) for number in range(100)]
        self.manager.recv_advert(link, hashes, 1)
        self.manager.demand(0)
        self.manager.demand(0.2)
        self.assertEqual(link.demands, [hashes[:88], hashes[88:]])

    def test_after_the_end(self) -> None:
        """Nothing is asked, taken or answered, and no link is remembered."""
        (link,) = self.links(1)
        self.pool[tx(0)] = transaction()
        self.manager.recv_advert(link, [tx(1)], 1)
        self.manager.shutdown()
        self.manager.demand(0)
        self.manager.recv_advert(link, [tx(2)], 1)
        self.manager.recv_demand(link, [tx(0)], 0)
        self.manager.demand(1)
        self.assertEqual((link.sent, self.manager.adverts), ([], {}))
        self.assertFalse(self.manager.has_work)

    def test_a_link_that_ends_in_a_run(self) -> None:
        """When the first message ends it, and others with it, the run goes on for the rest."""
        links = self.links(4)

        class Ending(FakeLink):
            def send(ending, message: Message) -> bool:  # noqa: N805
                for link in (ending, *links[:2]):
                    self.manager.remove_peer(link)
                return super().send(message)

        ending = Ending(9)
        self.manager.add_peer(ending)
        for number, link in enumerate((*links, ending)):
            self.manager.recv_advert(link, [tx(number)], 1)
        self.manager.demand(0)
        self.assertEqual([len(link.demands) for link in links[2:]], [1, 1])
        self.assertEqual(list(self.manager.adverts), links[2:])


class ReceivedTests(DemandsTestCase):
    """messages.md 2.7."""

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second, self.stranger = self.links(3)
        for link, now in ((self.first, 10), (self.second, 11)):
            self.manager.recv_advert(link, [tx(0)], 1)
            self.manager.demand(now)

    def test_latencies(self) -> None:
        """The total once, a peer's for each that was asked (seed 2b.25)."""
        record = self.manager.record_tx_received
        self.assertEqual(
            record(tx(0), self.second.peer_id, 11.5),
            TxPullLatency(total_latency=1.5, peer_latency=0.5, peers_asked=2),
        )
        self.assertEqual(
            record(tx(0), self.first.peer_id, 12),
            TxPullLatency(total_latency=2, peer_latency=2, peers_asked=2),
        )
        self.assertEqual(
            record(tx(0), self.stranger.peer_id, 12),
            TxPullLatency(total_latency=2, peer_latency=None, peers_asked=2),
        )
        total = self.metrics.tx_pull_latency.snapshot()
        peers = self.metrics.peer_tx_pull_latency.snapshot()
        self.assertEqual((total.count, total.max), (1, 1.5))
        self.assertEqual((peers.count, peers.min, peers.max), (2, 0.5, 2))

    def test_not_asked_for(self) -> None:
        """Row 20: it is nobody's pull."""
        self.assertIsNone(self.manager.record_tx_received(tx(5), self.first.peer_id, 12))
        self.assertEqual(self.metrics.tx_pull_latency.snapshot().count, 0)

    def test_received_in_time(self) -> None:
        """It is not abandoned, and what is remembered of it goes a minute after the demand."""
        self.manager.record_tx_received(tx(0), self.second.peer_id, 12)
        self.assertEqual(
            self.manager.stats,
            TxDemandsStats(pending_demands=1, demand_history_size=1, unserved_demands=0),
        )
        self.assertIsNotNone(self.manager.record_tx_received(tx(0), self.first.peer_id, 69))
        self.assertTrue(self.manager.has_work)
        self.manager.demand(70)
        self.assertEqual(self.manager.pending_count, 0)
        self.assertEqual(self.metrics.abandoned_demands.get(), 0)
        self.assertIsNone(self.manager.record_tx_received(tx(0), self.first.peer_id, 70))

    def test_received_late_and_demanded_anew(self) -> None:
        """What came long after it was demanded is forgotten a minute after the demand, too."""
        self.manager.recv_advert(self.first, [tx(1)], 1)
        self.manager.demand(20)
        self.manager.record_tx_received(tx(1), self.first.peer_id, 21)
        self.manager.record_tx_received(tx(0), self.second.peer_id, 65)
        self.manager.recv_advert(self.first, [tx(0)], 1)
        self.manager.demand(70)
        self.assertEqual(self.first.demanded, [tx(0), tx(1), tx(0)])
        self.assertEqual(self.manager.pending_count, 2)
        self.manager.demand(80)
        self.assertEqual(self.manager.pending_count, 1)
        self.assertEqual(self.manager.stats.unserved_demands, 1)

    def test_the_herder_decides_whether_it_is_found(self) -> None:
        """Received, but neither kept nor banned: others are asked on, as in core."""
        self.manager.record_tx_received(tx(0), self.second.peer_id, 12)
        self.manager.recv_advert(self.stranger, [tx(0)], 1)
        self.manager.demand(12)
        self.assertEqual(self.stranger.demanded, [tx(0)])
        self.status[tx(0)] = TxKnownStatus.KNOWN
        status = self.manager.demand_status(tx(0), PeerId(bytes(32)), 20)
        self.assertIs(status, DemandStatus.DISCARD)

    def test_a_different_transaction_stops_nothing(self) -> None:
        """What was demanded is still demanded of others."""
        self.manager.record_tx_received(tx(1), self.first.peer_id, 11.5)
        self.status[tx(1)] = TxKnownStatus.KNOWN
        self.manager.recv_advert(self.stranger, [tx(0)], 1)
        self.manager.demand(12)
        self.assertEqual(self.stranger.demanded, [tx(0)])
        self.assertEqual(self.metrics.tx_pull_latency.snapshot().count, 0)


class AnswerTests(DemandsTestCase):
    """messages.md 2.6."""

    def setUp(self) -> None:
        super().setUp()
        (self.link,) = self.links(1)

    def have(self, count: int) -> list[bytes]:
        """Put so many transactions into the pool."""
        hashes = [tx(number, "pool") for number in range(count)]
        for number, tx_hash in enumerate(hashes):
            self.pool[tx_hash] = transaction(100, number)
        return hashes

    def test_answers(self) -> None:
        """A transaction for each that we have, in order; nothing but a count for the others."""
        known = self.have(2)
        self.status[tx(8)] = TxKnownStatus.BANNED
        self.manager.recv_demand(self.link, [known[1], tx(8), tx(9), known[0], tx(9)], 0)
        self.assertEqual(self.link.sent, [self.pool[known[1]], self.pool[known[0]]])
        self.assertEqual(self.metrics.flood_fulfilled.get(), 2)
        self.assertEqual(self.metrics.flood_unfulfilled_banned.get(), 1)
        self.assertEqual(self.metrics.flood_unfulfilled_unknown.get(), 1)

    def test_nothing_demanded(self) -> None:
        """Row 25."""
        self.manager.recv_demand(self.link, [], 0)
        self.assertEqual(self.link.sent, [])

    def test_one_hash_a_thousand_times(self) -> None:
        """Row 27: in one message it counts once, in a thousand it is answered once."""
        (known,) = self.have(1)
        self.manager.recv_demand(self.link, [known] * 1000, 0)
        self.assertEqual(len(self.link.sent), 1)
        self.assertEqual(self.metrics.queries_ignored.get(), 0)
        for number in range(1000):
            self.manager.recv_demand(self.link, [known], number / 100)
        self.assertEqual(len(self.link.sent), 1)
        self.assertEqual(self.metrics.flood_fulfilled.get(), 1)
        self.assertEqual(self.metrics.queries_ignored.get(), 1000)

    def test_asked_again_in_earnest(self) -> None:
        """Who lost the answer gets another one, and others their own at once."""
        (known,) = self.have(1)
        other = FakeLink(9)
        self.manager.add_peer(other)
        for now, answers in (
            (0, 1),
            (ANSWER_AGAIN_SECONDS - 0.1, 1),
            (ANSWER_AGAIN_SECONDS, 2),
            (2 * ANSWER_AGAIN_SECONDS - 0.1, 2),
        ):
            self.manager.recv_demand(self.link, [known], now)
            self.assertEqual(len(self.link.sent), answers)
        self.manager.recv_demand(other, [known], 1)
        self.assertEqual(len(other.sent), 1)

    def test_an_answer_that_was_not_taken(self) -> None:
        """It is not counted as one, and does not stand in the way of another."""
        (known,) = self.have(1)
        self.link.takes = False
        self.manager.recv_demand(self.link, [known], 0)
        self.assertEqual(self.metrics.answers_refused.get(), 1)
        self.assertEqual(self.metrics.flood_fulfilled.get(), 0)
        self.link.takes = True
        self.manager.recv_demand(self.link, [known], 0.1)
        self.assertEqual(len(self.link.sent), 1)

    def test_what_is_remembered_of_answers(self) -> None:
        """So many a peer, for so long; it goes with the link. Unknown hashes are not kept."""
        known = self.have(MAX_ANSWERS_REMEMBERED + 10)
        self.manager.recv_demand(self.link, known, 0)
        self.manager.recv_demand(self.link, [tx(number) for number in range(1000)], 1)
        self.assertEqual(len(self.link.sent), len(known))
        self.manager.recv_demand(self.link, known[20:], 2)
        self.assertEqual(len(self.link.sent), len(known))
        self.manager.recv_demand(self.link, known[:10], 3)
        self.assertEqual(len(self.link.sent), len(known) + 10)
        self.manager.remove_peer(self.link)
        self.manager.recv_demand(self.link, known, 4)
        self.assertEqual(len(self.link.sent), len(known) + 10)
        self.manager.add_peer(self.link)
        self.manager.recv_demand(self.link, [known[-1]], 4)
        self.assertEqual(len(self.link.sent), len(known) + 11)


class HostileTests(DemandsTestCase):
    """T14 to T16: junk costs little, and honest peers do not wait for it."""

    def junk(self, link: FakeLink, count: int, kind: str = "junk") -> None:
        """Let a peer advertise so many hashes."""
        hashes = [tx(number, kind) for number in range(count)]
        for start in range(0, count, 1000):
            self.manager.recv_advert(link, hashes[start : start + 1000], 1)

    def test_junk_does_not_starve_others(self) -> None:
        """T16: behind 10,000 hashes of one peer's, five of another's are demanded at once."""
        attacker, honest = self.links(2)
        self.junk(attacker, 10_000)
        wanted = [tx(number) for number in range(5)]
        self.manager.recv_advert(honest, wanted, 1)
        self.manager.demand(0)
        self.assertEqual(honest.demands, [wanted])
        self.assertEqual(len(attacker.demanded), PullModeConfig().max_demand_size)

    def test_unwanted_hashes_are_looked_at_once(self) -> None:
        """10,000 known ones are gone after one run; the next ones cost nothing."""
        (link,) = self.links(1)
        self.junk(link, 10_000)
        self.status = {tx(number, "junk"): TxKnownStatus.KNOWN for number in range(10_000)}
        self.manager.demand(0)
        self.assertEqual(len(self.looked), 10_000)
        self.assertEqual(self.manager.adverts[link].size(), 0)
        self.run_for(0.2, 10)
        self.assertEqual((len(self.looked), link.sent), (10_000, []))

    def test_waiting_hashes_are_not_looked_at_until_due(self) -> None:
        """What somebody else was asked for is left alone for as long as that takes."""
        self.patch(tx_demands, "MAX_LOOKS_PER_RUN", 1000)
        first, second = self.links(2)
        self.junk(first, 400)
        self.manager.demand(0)
        self.junk(second, 400)
        self.manager.demand(0.2)
        self.looked.clear()
        self.manager.demand(0.4)
        self.assertEqual(self.looked, [])
        self.manager.demand(0.6)
        self.assertEqual(len(second.demanded), 400)

    def test_one_run_is_bounded(self) -> None:
        """However many hashes wait; and all peers that have any get as many looks."""
        self.patch(tx_demands, "MAX_LOOKS_PER_RUN", 100)
        *attackers, honest = self.links(10)
        for number, link in enumerate(attackers):
            self.junk(link, 1000, str(number))
        for number in range(1000):
            for kind in range(9):
                self.status[tx(number, str(kind))] = TxKnownStatus.KNOWN
        for run in range(20):
            self.manager.recv_advert(honest, [tx(run)], 1)
            self.manager.demand(run * PERIOD)
            self.assertEqual(honest.demanded[-1], tx(run))
            self.assertLessEqual(len(self.looked), 100)
            self.looked.clear()

    def test_the_history_is_bounded(self) -> None:
        """Junk of some fills half of it and their share of the rest; then it waits, others do not.

        What was received makes room again, and in the end a minute does.
        """
        self.patch(demand_history, "MAX_WAITING", 400)
        attacker, second, honest = self.links(3)
        self.junk(attacker, 1000)
        self.junk(second, 1000, "more")
        for run in range(100):  # which is more than the honest one's share
            now = run * PERIOD
            self.manager.recv_advert(honest, [tx(run)], 1)
            self.manager.demand(now)
            self.assertEqual(honest.demanded[-1], tx(run))
            self.manager.record_tx_received(tx(run), honest.peer_id, now)
        waiting = self.manager.stats.unserved_demands
        self.assertTrue(200 <= waiting <= 400, waiting)
        status = self.manager.demand_status(tx(999, "junk"), attacker.peer_id, 20)
        self.assertIs(status, DemandStatus.RETRY_LATER)
        self.assertEqual(len(attacker.demanded) + len(second.demanded), waiting)
        self.assertEqual(self.manager.adverts[attacker].size(), 1000 - len(attacker.demanded))
        self.run_for(20, 42)
        self.assertEqual(self.metrics.abandoned_demands.get(), waiting)
        self.assertGreater(len(attacker.demanded) + len(second.demanded), waiting)

    def test_many_identities_do_not_break_the_bound(self) -> None:
        """Who comes back under ever new keys gets a share each time, but not beyond the whole."""
        self.patch(demand_history, "MAX_WAITING", 100)
        for number in range(1, 50):
            link = FakeLink(number)
            self.manager.add_peer(link)
            self.junk(link, 100, str(number))
            self.manager.demand(number * PERIOD)
            self.manager.remove_peer(link)
        self.assertEqual(self.manager.stats.unserved_demands, 100)

    def test_colliding_junk_is_asked_for_15_times(self) -> None:
        """Twenty peers that advertise the same junk again and again get 15 demands a hash."""
        links = self.links(20)
        for run in range(250):  # 50 s
            for link in links:
                self.manager.recv_advert(link, [tx(0), tx(1)], 1)
            self.manager.demand(run * PERIOD)
        demanded = [tx_hash for link in links for tx_hash in link.demanded]
        self.assertEqual((demanded.count(tx(0)), demanded.count(tx(1))), (15, 15))
        self.assertLessEqual(max(len(link.demanded) for link in links), 2)


class RuleTests(SynchronousTestCase):
    """Whatever happens in whatever order."""

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32),
        steps=st.lists(
            st.tuples(
                st.integers(0, 17),  # who advertises
                st.lists(st.integers(0, 4), max_size=4),  # what
                st.integers(0, 12),  # and how many runs go by after it
                st.none() | st.integers(0, 4),  # what comes in, from that peer
            ),
            max_size=60,
        ),
    )
    def test_rules(self, seed: int, steps: list[tuple[int, list[int], int, int | None]]) -> None:
        """Only what a peer advertised, never twice of one, each wait kept, 15 in all, in 60 s."""
        known: set[bytes] = set()
        manager = TxDemandsManager(
            tx_status=lambda tx_hash: (
                TxKnownStatus.KNOWN if tx_hash in known else TxKnownStatus.UNKNOWN
            ),
            get_tx=lambda tx_hash: None,
            random=random.Random(seed),
        )
        links = [FakeLink(number) for number in range(18)]
        for link in links:
            manager.add_peer(link)
        asked: dict[bytes, list[tuple[float, FakeLink]]] = defaultdict(list)
        advertised: set[tuple[FakeLink, bytes]] = set()
        run = 0
        for who, what, runs, received in steps:
            hashes = [tx(number) for number in what]
            manager.recv_advert(links[who], hashes, 1)
            advertised.update((links[who], tx_hash) for tx_hash in hashes)
            if received is not None:
                manager.record_tx_received(tx(received), links[who].peer_id, run * PERIOD)
                known.add(tx(received))
            for _ in range(runs):
                run += 1
                manager.demand(run * PERIOD)
                for link in links:
                    for tx_hash in link.demanded:
                        self.assertNotIn(tx_hash, known)
                        self.assertIn((link, tx_hash), advertised)
                        asked[tx_hash].append((run * PERIOD, link))
                    link.sent.clear()
        for times in asked.values():
            self.check_search(times)

    def check_search(self, asked: list[tuple[float, FakeLink]]) -> None:
        """Check the demands for one hash, a minute at a time."""
        while asked:
            end = asked[0][0] + RETENTION_SECONDS - 1e-6
            search = [each for each in asked if each[0] < end]
            asked = asked[len(search) :]
            self.assertLessEqual(len(search), MAX_RETRY_COUNT)
            self.assertEqual(len({link for _, link in search}), len(search))
            for number, ((before, _), (after, _)) in enumerate(pairwise(search), 1):
                self.assertGreaterEqual(after - before, min(number * 0.5, 2) - 1e-6)
