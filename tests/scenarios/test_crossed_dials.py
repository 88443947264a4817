"""Two nodes that dial each other (DECISIONS.md 5 and 6), while both keep ticking."""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred

from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.memory import MemoryTransport
from tests.builders import get_tx_set
from tests.scenarios.network import GoodPeer, ScenarioTestCase

ROUNDS = 100


class CrossedDialTests(ScenarioTestCase):
    """Whatever the offsets, latencies and keys."""

    def open_lines(self) -> list[tuple[MemoryTransport, MemoryTransport]]:
        """Return the connections of which at least one end is open."""
        lines = self.network.memory.transports
        return [line for line in lines if not (line[0].is_closed and line[1].is_closed)]

    def cross(self, seed: int, settle_seconds: float = 4) -> list[OverlayManager]:
        """Let two nodes that know each other find each other; return both, some seconds later."""
        chance = random.Random(seed)
        network = self.again(seed=seed, latency=chance.choice((0.0, 0.01, 0.05, 0.1, 0.4)))
        names = chance.sample(("one", "two"), 2)
        network.add_node(names[0], known_peers=[names[1]])
        if chance.random() < 0.5:
            network.advance(chance.uniform(0, 1.5))
        network.add_node(names[1], known_peers=[names[0]])
        network.advance(1.2)  # from one second on they begin to dial
        for name, to in chance.sample((names, names[::-1]), 2):
            if chance.random() < 0.5:
                dialling = Deferred.fromCoroutine(network.node(name).connect(network.address(to)))
                dialling.addErrback(lambda failure: None)  # whatever comes of it
            network.advance(chance.choice((0, 0, 0.001, 0.03, 0.1, 0.4)))
        network.advance(settle_seconds)
        return [network.node(name) for name in ("one", "two")]

    def assert_one_link(self, nodes: list[OverlayManager], seed: int) -> str:
        """Check that there is one link, the same for both; return its direction for the first."""
        one, two = nodes
        (of_two,), (of_one,) = one.peer_infos(), two.peer_infos()
        self.assertEqual({of_one.direction, of_two.direction}, {"inbound", "outbound"}, seed)
        before = of_one.messages_read, of_two.messages_read
        self.assertTrue(one.send_to(of_two.peer_id, get_tx_set(1)))
        self.assertTrue(two.send_to(of_one.peer_id, get_tx_set(2)))
        self.network.advance(1)
        (of_two,), (of_one,) = one.peer_infos(), two.peer_infos()
        self.assertGreater(of_one.messages_read, before[0], seed)
        self.assertGreater(of_two.messages_read, before[1], seed)
        return of_two.direction

    def test_exactly_one_link_lives(self) -> None:
        """Y27, row 59: a hundred times, the same link for both, and it still lives a minute on."""
        directions, crossings = [], 0
        for seed in range(ROUNDS):
            nodes = self.cross(seed)
            directions.append(self.assert_one_link(nodes, seed))
            crossings += len(self.network.memory.transports) > 1
            since = [info.connected_at for node in nodes for info in node.peer_infos()]
            self.network.advance(60)
            later = [info.connected_at for node in nodes for info in node.peer_infos()]
            self.assertEqual(since, later, seed)
            self.assertLessEqual(len(self.open_lines()), 1, seed)
        self.assertGreater(crossings, ROUNDS // 4)  # many did dial at once
        self.assertEqual(set(directions), {"inbound", "outbound"})

    def test_nobody_is_charged(self) -> None:
        """DECISIONS 6: of two nodes that dialled each other, neither counts a failure."""
        crossed = 0
        for seed in range(12):
            nodes = self.cross(seed, settle_seconds=8)
            crossed += len(self.network.memory.transports) > 1
            for node, other in zip(nodes, ("two", "one"), strict=True):
                row = self.row(node, other)
                assert row is not None
                self.assertEqual(row.num_failures, 0, (seed, other))
        self.assertGreater(crossed, 2)

    def test_a_late_end_removes_nobody_else(self) -> None:
        """Y27: a link that was replaced may close late; the newcomer stays in every list."""
        node = self.network.add_node("node")
        host = self.network.add_peer("peer", kind=GoodPeer, is_listening=False, is_polite=True)
        old = host.dial(self.network.address("node"))
        self.network.advance(0)
        self.assertFalse(old.is_closed)
        near, far = self.network.memory.transports[-1]
        near.cork()  # the old link falls silent
        self.network.advance(12)
        far.cork()  # and does not close before it is broken off
        newcomer = host.dial(self.network.address("node"))
        self.network.advance(0)
        self.assertEqual(len(node.peer_infos()), 1)
        self.assertFalse(far.is_closed)
        self.network.advance(6)
        self.assertTrue(far.is_closed)
        self.assertFalse(newcomer.is_closed)
        (info,) = node.peer_infos()
        self.assertTrue(node.send_to(info.peer_id, get_tx_set()))
        self.assertEqual(node.admission.authenticated_inbound, 1)
        self.assertEqual(set(node.admission.closing), set())
