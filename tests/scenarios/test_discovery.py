"""Networks that find themselves, and each other again (connection.md 8.6, 8.7, 9.6, 9.7)."""

from __future__ import annotations

import random

from stellar_overlay.store.peer_manager import StoredPeerType
from tests.scenarios.network import OUTBOUND, ScenarioTestCase, shuffled

FRUGAL = {"target_outbound_peers": 2, "max_inbound_peers": 6, "max_pending_connections": 8}
"""Settings for large networks: each dial is a whole handshake."""


class SeedTests(ScenarioTestCase):
    """Twenty nodes that know one address."""

    def build(self, *, database: str | None = None) -> list[str]:
        """Start a seed and 19 nodes that know nobody else; return the names of the nodes."""
        network = self.begin(seed=2, latency=0.02)
        network.add_node("seed")
        names = [f"node {number}" for number in range(19)]
        for name in names:
            network.add_node(
                name, known_peers=["seed"], database=database if name == names[7] else None
            )
        return names

    def whole(self, timeout: float, without: tuple[str, ...] = ()) -> bool:
        network = self.network
        return network.run_until(lambda: network.is_whole(without), timeout=timeout)

    def test_they_need_the_seed_only_once(self) -> None:
        """Connected within 30 s through PEERS; without the seed, too; so is whoever comes back."""
        names = self.build()
        self.assertTrue(self.whole(30))
        self.network.advance(30 - self.network.clock.seconds())
        self.assertTrue(self.network.is_whole(without=["seed"]))
        three = names[2], names[9], names[15]
        for name in three:
            self.network.crash(name)
        self.assertTrue(self.whole(30))
        self.assertTrue(self.whole(30, without=("seed",)))
        self.network.advance(30)
        for name in three:
            self.network.restart(name)
        self.assertTrue(self.whole(30))

    def test_any_three(self) -> None:
        """The seed among them: those that remain are connected, and again when they return."""
        for seed, how in ((1, "stop"), (2, "crash")):
            names = self.build()
            self.network.advance(30)
            three = ["seed", *random.Random(seed).sample(names, 2)]
            for name in three:
                getattr(self.network, how)(name)
            self.assertTrue(self.whole(30), (seed, three))
            self.network.advance(20)
            for name in three:
                self.network.restart(name)
            self.assertTrue(self.whole(60), (seed, three))
            self.leave_nothing_behind()
        self.begin()

    def test_back_without_the_seed(self) -> None:
        """A node that crashed is back with its peers in 10 s; the seed is gone, and not asked."""
        names = self.build(database=self.mktemp())
        self.network.advance(40)
        name, seed = names[7], self.network.address("seed")
        target = self.network.node(name).config.target_outbound_peers
        self.assertEqual(self.network.node(name).admission.authenticated_outbound, target)
        self.network.crash("seed")
        self.network.crash(name)
        self.network.advance(5)
        self.network.restart(name, known_peers=[])
        node = self.network.node(name)
        self.assertGreater(len(node.known_peers()), 10)
        self.network.memory.dials.clear()
        self.network.advance(10)
        self.assertEqual(node.admission.authenticated_outbound, target)
        self.assertTrue(self.network.is_whole())
        own = self.network.address(name).host
        to_seed = [dial for dial in self.network.memory.dials if dial[1:] == (own, seed)]
        self.assertLessEqual(len(to_seed), 2)  # it is in the table, and as good as any other


class PromotionTests(ScenarioTestCase):
    """How an address that was only heard of becomes one that answers."""

    def test_three_nodes(self) -> None:
        """R11: 1 knows 2, 3 knows 1; in 72 s each knows each of the others as OUTBOUND."""
        network = self.begin(seed=1, latency=0.01)
        network.add_node("1", known_peers=["10.0.0.2"])
        network.add_node("2")
        network.add_node("3", known_peers=["10.0.0.1"])
        known = {"1": ["2"], "3": ["1"]}
        network.advance(2)
        for name, others in known.items():
            for other in others:
                self.assertEqual(self.types(network.node(name), other), [OUTBOUND])
        network.advance(8)
        self.assertTrue(network.is_whole())
        everybody = ("1", "2", "3")

        def all_outbound() -> bool:
            found: set[StoredPeerType | None] = set()
            for name in everybody:
                others = [other for other in everybody if other != name]
                found.update(self.types(network.node(name), *others))
            return found == {OUTBOUND}

        self.assertTrue(network.run_until(all_outbound, timeout=62))
        pairs = {frozenset((a, b)) for a in everybody for b in everybody if a != b}
        self.assertEqual(network.links(), pairs)


class ChurnTests(ScenarioTestCase):
    """Nodes come and go."""

    def test_a_hundred_join_one_by_one(self) -> None:
        """T3: in random order, up to 3 s apart; 15 s later all are connected."""
        network, chance = self.begin(seed=3, latency=0.02), random.Random(3)
        names = [f"node {number}" for number in range(100)]
        order = shuffled(names, 3)
        for number, name in enumerate(order):
            known = chance.sample(order[:number], 1) if number else []
            network.add_node(name, known_peers=known, **FRUGAL)  # type: ignore[arg-type]
            network.advance(chance.uniform(0, 3))
        network.advance(15)
        self.assertEqual(len(network.running), 100)
        self.assertTrue(network.is_whole())

    def test_churn(self) -> None:
        """T4: two leave and return, then ten times three: connected each time in 30 s and 60 s."""
        network, chance = self.begin(seed=5, latency=0.02), random.Random(5)
        names = [f"node {number}" for number in range(16)]
        for name in names:
            network.add_node(name, known_peers=["node 0", "node 1"], **FRUGAL)  # type: ignore[arg-type]
        self.assertTrue(network.run_until(network.is_whole, timeout=30))
        for number in range(11):
            gone = chance.sample(names, 3 if number else 2)
            for name in gone:
                chance.choice((network.stop, network.crash))(name)
            network.advance(chance.uniform(0, 10))
            for name in gone:
                network.restart(name)
            timeout = 60 if number else 30
            self.assertTrue(network.run_until(network.is_whole, timeout=timeout), (number, gone))
