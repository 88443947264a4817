"""The demo's nodes: who they are, and when they have found each other."""

from __future__ import annotations

from argparse import Namespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import LocalNode
from stellar_overlay.tools.demo_network import Network, seconds_per_ledger
from tests.tools.demo_kit import SimulatedNetwork


class NodeTests(SynchronousTestCase):
    def network(self, seed: int = 7, *, template: LocalNode | None = None) -> Network:
        arguments = Namespace(nodes=7, seconds=1, seed=seed)
        return Network(arguments, template or LocalNode.testnet(), Clock())

    def test_same_keys(self) -> None:
        """The same seed makes the same nodes, another seed others."""

        def keys(seed: int) -> list[bytes]:
            network = self.network(seed)
            return [network.add_node().local_node.peer_id.key for _ in range(7)]

        self.assertEqual(keys(1), keys(1))
        self.assertEqual(len(set(keys(1) + keys(2))), 14)

    def test_template(self) -> None:
        """All nodes are of the network, and of the versions, that the command line names."""
        template = LocalNode("mine", overlay_min_version=40, overlay_version=41)
        node = self.network(template=template).add_node().local_node
        self.assertEqual(node.network_passphrase, "mine")
        self.assertEqual((node.overlay_min_version, node.overlay_version), (40, 41))
        self.assertNotEqual(node.peer_id, template.peer_id)

    def test_default_brain(self) -> None:
        """The herder is the one that the overlay would have made, and knows no ledger yet."""
        network = self.network()
        node = network.add_node()
        self.assertIsInstance(node._flooding.herder, ObserverHerder)
        self.assertEqual((node.config.mode, network.ledgers), ("relay", [0]))


class PaceTests(SynchronousTestCase):
    def test_pace(self) -> None:
        """No peer is to be asked for more than five sets of one signer in a minute."""
        for validators, seconds, period in (
            (5, 1, 1), (5, 20, 1), (5, 25, 1), (5, 26, 2), (5, 60, 3), (5, 86_400, 3),
            (2, 20, 2), (2, 60, 6), (1, 5, 1), (1, 20, 4), (1, 9999, 12),
        ):  # fmt: skip
            with self.subTest(validators=validators, seconds=seconds):
                self.assertEqual(seconds_per_ledger(validators, seconds), period)


class LinkTests(SynchronousTestCase):
    def simulated(self, nodes: int, known: dict[int, int] | None = None) -> SimulatedNetwork:
        return SimulatedNetwork(Namespace(nodes=nodes, seconds=1, seed=7), known)

    def test_found(self) -> None:
        """Each link is there once, with both of its ends."""
        network = self.simulated(3)
        self.assertFalse(network.is_whole)
        network.find_links()
        self.assertTrue(network.is_whole)
        self.assertEqual(len({frozenset(link) for link in network.links}), 3)
        self.assertEqual((len(network.links), network.count_ends()), (3, 6))

    def test_two(self) -> None:
        """Two nodes have no more than one link."""
        network = self.simulated(2)
        self.assertEqual(network.links_wanted, 1)
        network.find_links()
        self.assertEqual(len(network.links), 1)

    def test_islands(self) -> None:
        """Two pairs of nodes that do not know of each other are no whole network."""
        network = self.simulated(4, known={2: 2, 3: 2})
        network.world.advance(30)
        self.assertEqual(len(network.world.links()), 2)
        self.assertFalse(network.is_whole)

    def test_lost_end(self) -> None:
        """A link that ended is not counted any more."""
        network = self.simulated(3)
        network.find_links()
        network.world.unplug("node 2")
        network.world.advance(1)
        self.assertEqual(network.count_ends(), 2)
