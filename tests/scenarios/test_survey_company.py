"""A survey of twenty nodes that talk, five of which come and go: everything adds up."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from stellar_overlay.identity import PeerId
from stellar_overlay.node.peer import PeerInfo
from stellar_overlay.node.surveying import PHASE_SECONDS
from stellar_overlay.wire.survey_body import PeerCounters, TimeSlicedPeerData, TopologyResponse
from stellar_overlay.wire.tx_set import tx_set_hash
from tests.scenarios.surveys import (
    COLLECTING,
    INACTIVE,
    NONCE,
    REPORTING,
    SurveyTestCase,
    Watch,
    difference,
    edges_of,
)
from tests.scenarios.traffic import a_tx_set, externalized, payment

LATENCY = 0.01
NODES = 20
LEDGER_SECONDS = 5
COLLECTING_LEDGERS = 14


def called(number: int) -> str:
    """Return the name of a node."""
    return f"node {number}"


class CompanyTests(SurveyTestCase):
    """Nodes that find each other by themselves, over links of 10 ms, with databases."""

    def setUp(self) -> None:
        super().setUp()
        self.network = self.again(seed=5, latency=LATENCY)
        self.chance = random.Random(5)
        self.watches: dict[str, Watch] = {}
        self.number = 0

    def start(self, number: int) -> None:
        """Start one more node."""
        name = called(number)
        self.network.add_node(
            name,
            database=self.mktemp(),
            surveyor_keys=[self.key(called(0))],
            known_peers=[called(one) for one in range(min(number, 3))],
            target_outbound_peers=3,
            max_inbound_peers=12,
            expected_ledger_close_secs=LEDGER_SECONDS,
        )
        self.watches[name] = Watch(self.network.node(name))

    def restart(self, name: str) -> None:
        """Start a node again."""
        self.watches[name] = Watch(self.network.restart(name))

    def live(self, ledgers: int, *events: Callable[[], object]) -> None:
        """Let ledgers close, with traffic; something more may happen in each."""
        for number in range(ledgers):
            if number < len(events):
                events[number]()
            nodes = list(self.network.running.values())
            self.slot += 1
            tx_set = a_tx_set(self.slot)
            for by in range(3):
                node = nodes[0] if by == 0 else self.chance.choice(nodes)
                node.publish(tx_set)
                node.broadcast(externalized(self.slot, by=by, tx_set=tx_set_hash(tx_set.body)))
                self.network.advance(0.1)
            for _ in range(2):
                self.number += 1
                self.chance.choice(nodes).broadcast(payment(self.number))
                self.network.advance((LEDGER_SECONDS - 0.3) / 2)

    def ids(self, names: Iterable[str]) -> set[PeerId]:
        """Return who nodes are."""
        return {self.key(name) for name in names}

    def test_it_adds_up(self) -> None:
        """Every figure of every node is what its own counters say, and the links are the truth."""
        for number in range(NODES - 1):
            self.start(number)
        self.live(4)
        surveyor = self.network.node(called(0)).survey
        surveyor.start_collecting(NONCE)
        self.live(2)
        self.assert_phases(self.network.running.values(), COLLECTING)
        self.live(
            COLLECTING_LEDGERS,
            lambda: self.network.stop(called(15)),
            lambda: self.start(NODES - 1),
            lambda: self.network.crash(called(16)),
            lambda: self.network.unplug(called(17)),
            lambda: self.restart(called(15)),
            lambda: self.network.stop(called(18)),
            lambda: self.restart(called(16)),
            lambda: self.network.plug(called(17)),
        )
        self.assertTrue(self.network.is_whole())
        self.assertTrue(surveyor.stop_collecting())
        self.network.advance(1)

        # These missed the START; 17 was cut off, and remembers.
        ignorant = {called(number) for number in (15, 16, 19)}
        informed = {called(number) for number in range(18)} - ignorant
        for name in informed:
            self.assert_phases([self.network.node(name)], REPORTING)
        for name in ignorant:
            self.assert_phases([self.network.node(name)], INACTIVE, None)
        for number in range(1, NODES):
            surveyor.request(self.key(called(number)))
        self.live(2 * 3 + 1)
        topology = surveyor.results().topology
        assert topology is not None
        answers = {node: answer for node, answer in topology.items() if answer is not None}
        self.assertEqual(set(answers), self.ids(informed))
        self.assertEqual(set(topology) - set(answers), self.ids((*ignorant, called(18))))
        for name in informed:
            self.assert_true(self.watches[name], answers[self.key(name)])
        self.assert_edges(answers)
        self.assert_eventful(answers)
        surveyor.stop_reporting()

    def assert_true(self, watch: Watch, answer: TopologyResponse) -> None:
        """Check what a node reports against what it has counted itself."""
        stayed, node = watch.stayed, answer.node
        for way, reported in (("inbound", answer.inbound), ("outbound", answer.outbound)):
            expected = [
                peer_id for peer_id, (_, now) in sorted(stayed.items()) if now.direction == way
            ]
            self.assertEqual([PeerId(peer.node) for peer in reported], expected)
            for peer in reported:
                self.assert_counters(*stayed[PeerId(peer.node)], peer)
        self.assertEqual(
            (node.total_inbound_peers, node.total_outbound_peers),
            (len(answer.inbound), len(answer.outbound)),
        )
        self.assertEqual(
            (node.added_authenticated_peers, node.dropped_authenticated_peers),
            (watch.added, watch.dropped),
        )
        self.assertEqual((node.max_inbound_peers, node.max_outbound_peers), (12, 3))
        self.assertEqual((node.lost_sync_count, node.is_validator), (0, False))

    def assert_counters(self, then: PeerInfo, now: PeerInfo, peer: TimeSlicedPeerData) -> None:
        """Check what is reported of one link."""
        self.assertEqual(peer.counters, difference(then, now))
        seconds = now.connected_seconds + now.handshake_ms / 1000
        self.assertEqual(peer.seconds_connected, int(round(seconds, 6)))
        self.assertEqual(peer.average_latency_ms, now.latency_ms)  # they are all alike
        self.assertEqual(peer.version_string.decode(), now.version_string)

    def assert_edges(self, answers: dict[PeerId, TopologyResponse]) -> None:
        """Check that the links reported are those that stayed, each told alike by both ends."""
        dialled, answered = edges_of(answers)
        watches = [self.watches[name] for name in self.watches if self.key(name) in answers]
        truth = {
            (watch.node.local_node.peer_id, peer_id)
            if now.direction == "outbound"
            else (peer_id, watch.node.local_node.peer_id)
            for watch in watches
            for peer_id, (_, now) in watch.stayed.items()
        }
        self.assertEqual(dialled | answered, truth)
        self.assertEqual(dialled, answered)  # whoever did not answer has no link that stayed
        now = {frozenset((self.key(a), self.key(b))) for a, b in map(tuple, self.network.links())}
        self.assertLessEqual({frozenset(edge) for edge in truth}, now)

    def assert_eventful(self, answers: dict[PeerId, TopologyResponse]) -> None:
        """Check that there was something to report."""
        nodes = [answer.node for answer in answers.values()]
        self.assertGreater(sum(node.added_authenticated_peers for node in nodes), 5)
        self.assertGreater(sum(node.dropped_authenticated_peers for node in nodes), 5)
        cut_off = answers[self.key(called(17))]
        self.assertEqual((cut_off.inbound, cut_off.outbound), ((), ()))
        self.assertGreater(cut_off.node.dropped_authenticated_peers, 0)
        links = [peer for one in answers.values() for peer in (*one.inbound, *one.outbound)]
        for name in PeerCounters._fields:
            total = sum(getattr(peer.counters, name) for peer in links)
            if name.startswith("duplicate_fetch"):
                continue  # nobody asks twice here
            self.assertGreater(total, 0, name)

    def test_nobody_stops_it(self) -> None:
        """The surveyor is gone: all phases end in time, also where nodes came and went."""
        for number in range(NODES):
            self.network.add_node(
                called(number),
                surveyor_keys=[self.key(called(0))],
                known_peers=[called(one) for one in range(min(number, 3))],
                target_outbound_peers=2,
                survey_phase_minutes=1,
            )
        self.network.advance(10)
        self.network.node(called(0)).survey.start_collecting(NONCE)
        self.network.advance(1)
        every = list(self.network.running.values())
        self.assert_phases(every, COLLECTING)
        crashed = (0, 11, 12)
        for number in crashed:
            self.network.crash(called(number))
        self.network.unplug(called(13))
        self.network.restart(called(12))
        self.network.advance(57)
        left = [self.network.node(called(one)) for one in range(NODES) if one not in crashed]
        self.assert_phases(left, COLLECTING)
        self.network.advance(3 + PHASE_SECONDS)
        self.assert_phases(left, REPORTING)
        self.network.advance(60 + PHASE_SECONDS)
        self.assert_phases(self.network.running.values(), INACTIVE, None)
