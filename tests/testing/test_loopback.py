"""The network in a box: what it promises to those who test with it."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ConnectionFailed
from stellar_overlay.testing.loopback import LoopbackNetwork


class LoopbackTests(SynchronousTestCase):
    """Real nodes on a clock."""

    def test_two_nodes(self) -> None:
        """A name is all a node need know of another; both ends see the link."""
        network = LoopbackNetwork()
        network.add_node("one")
        network.add_node("two", known_peers=["one"])
        self.assertTrue(network.run_until(network.is_whole, timeout=5))
        self.assertEqual(network.links(), {frozenset(("one", "two"))})

    def test_the_same_seed_is_the_same_run(self) -> None:
        """Keys, dials and links; another seed gives others."""
        self.assertEqual(self.run_of(1), self.run_of(1))
        self.assertNotEqual(self.run_of(1), self.run_of(2))

    def run_of(self, seed: int) -> list[object]:
        network = LoopbackNetwork(seed=seed, latency=0.01)
        network.add_node("a")
        for number in range(6):
            network.add_node(f"n{number}", known_peers=["a"], target_outbound_peers=2)
        network.advance(20)
        return [
            (name, sorted((info.peer_id, info.connected_at) for info in node.peer_infos()))
            for name, node in network.running.items()
        ]

    def test_stop_and_restart(self) -> None:
        """A node that was stopped is gone at once, and comes back as the same node."""
        network = LoopbackNetwork()
        first = network.add_node("one")
        network.add_node("two", known_peers=["one"])
        network.advance(5)
        network.stop("one")
        self.assertEqual(network.links(), set())
        self.assertRaises(LookupError, network.node, "one")
        again = network.restart("one")
        self.assertEqual(again.local_node.peer_id, first.local_node.peer_id)
        self.assertRaises(ValueError, network.restart, "one")
        self.assertTrue(network.run_until(lambda: len(network.links()) == 1, timeout=60))

    def test_crash(self) -> None:
        """A node that crashed says nothing to anybody, and remembers only what was on disk."""
        network = LoopbackNetwork()
        network.add_node("one", database=self.mktemp())
        network.add_node("two", known_peers=["one"])
        network.advance(5)
        reasons: list[str | None] = []
        network.node("two").on_peer_event(lambda event: reasons.append(event.reason))
        network.crash("one")
        self.assertEqual(len(reasons), 1)
        self.assertIn("error reading message", str(reasons[0]))
        known = [str(row.address) for row in network.restart("one").known_peers()]
        self.assertEqual(known, [str(network.address("two"))])

    def test_nothing_is_left(self) -> None:
        """When all nodes are stopped no timer is."""
        network = LoopbackNetwork()
        network.add_node("one")
        network.add_node("two", known_peers=["one"])
        network.advance(5)
        for name in ("one", "two"):
            network.stop(name)
        network.advance(6)
        self.assertEqual(network.clock.getDelayedCalls(), [])

    def test_another_setting_after_a_restart(self) -> None:
        """A node comes back as it was, but for what is said."""
        network = LoopbackNetwork()
        network.add_node("one", target_outbound_peers=3)
        network.stop("one")
        config = network.restart("one", max_inbound_peers=7).config
        self.assertEqual((config.target_outbound_peers, config.max_inbound_peers), (3, 7))

    def test_unplugged(self) -> None:
        """A host that is cut off runs on without links, and finds its way back."""
        network = LoopbackNetwork()
        network.add_node("one")
        two = network.add_node("Two", known_peers=["one"])
        network.advance(5)
        network.unplug("one")
        network.advance(5)
        self.assertEqual((network.links(), len(network.running)), (set(), 2))
        network.plug("one")
        self.assertTrue(network.run_until(network.is_whole, timeout=120))
        self.assertEqual(len(two.peer_infos()), 1)

    def test_a_name_is_given_once(self) -> None:
        """Two hosts of one name would be confusing."""
        network = LoopbackNetwork()
        network.add_node("one")
        self.assertRaises(ValueError, network.add_node, "one")
        self.assertRaises(ValueError, network.add_peer, "one")


class ScriptedHostTests(SynchronousTestCase):
    """Hosts of peers that say what they are told to."""

    def test_answering(self) -> None:
        """A node dials it by its name, whatever the case; without a listener it is refused."""
        network = LoopbackNetwork(latency=0.1)
        host = network.add_peer("Peer")
        node = network.add_node("node")
        peer_id = network.result_of(node.connect("peer"))
        self.assertEqual(peer_id, host.local_node.peer_id)
        (peer,) = host.answered
        self.assertIsNotNone(peer.auth.opening)
        network.result_of(node.disconnect(peer_id))
        host.stop_listening()
        with self.assertRaisesRegex(ConnectionFailed, "refused"):
            network.result_of(node.connect("peer"))
        self.assertEqual([str(dial.to) for dial in network.memory.dials], [str(host.address)] * 2)

    def test_dialling(self) -> None:
        """Its peers have its key and address, or another key."""
        network = LoopbackNetwork()
        node = network.add_node("node")
        host = network.add_peer("peer", is_listening=False)
        other = network.add_peer("other", is_listening=False)
        host.dial(network.address("node"))
        host.dial(network.address("node"), local_node=other.local_node)
        network.advance(0)
        infos = node.peer_infos()
        self.assertEqual([info.address.host for info in infos], [host.address.host] * 2)
        ids = [info.peer_id for info in infos]
        self.assertEqual(ids, [host.local_node.peer_id, other.local_node.peer_id])

    def test_mute(self) -> None:
        """One that is not polite says nothing, and is dropped for it."""
        network = LoopbackNetwork()
        mute = network.add_peer("mute", is_polite=False)
        node = network.add_node("node", known_peers=["mute"])
        network.advance(10)
        self.assertEqual(len(mute.answered[0].received), 1)  # HELLO
        self.assertGreaterEqual(node.metrics.timeouts_idle.get(), 1)


class ResultTests(SynchronousTestCase):
    """Waiting for what takes time."""

    def test_results(self) -> None:
        """A value, an exception, or too long."""
        network = LoopbackNetwork()
        later: Deferred[str] = Deferred()
        network.clock.callLater(3, later.callback, "done")
        self.assertEqual(network.result_of(later), "done")
        self.assertAlmostEqual(network.clock.seconds(), 3, delta=0.11)
        with self.assertRaises(ZeroDivisionError):
            network.result_of(fail(ZeroDivisionError()))
        with self.assertRaisesRegex(TimeoutError, "no result in 2 s"):
            network.result_of(Deferred(), timeout=2)
