"""Two links between the same two nodes: which one stays (DECISIONS.md 5 and 6)."""

from __future__ import annotations

import random

from stellar_overlay.error import AlreadyConnected
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.memory import MemoryTransport
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType, decode_hash_query, encode_dont_have
from tests.builders import get_tx_set, make_node
from tests.node.world import World, WorldTestCase, ip

SEEDS = 100
ALREADY = "already-connected peer: "


class CrossedDialTests(WorldTestCase):
    """Both nodes dial each other at about the same time."""

    def cross(self, seed: int) -> tuple[OverlayManager, OverlayManager]:
        """Let two nodes dial each other, each at some moment and over lines of some latency."""
        chance = random.Random(seed)
        self.world = world = World()
        first, second = chance.sample((1, 2), 2)
        # Without ticks, that would try the addresses of those who called.
        nodes = world.node(first, run_standalone=True), world.node(second, run_standalone=True)
        outcomes = []
        for node, to in zip(nodes, (second, first), strict=True):
            world.network.latency = chance.choice((0.01, 0.05, 0.1))
            outcomes.append(world.outcome(node.connect(ip(to))))
            world.advance(chance.uniform(0, 0.45), step=0.01)
        world.advance(3, step=0.01)
        for outcome in outcomes:
            self.assertIn(type(outcome[0]), (PeerId, AlreadyConnected), (seed, outcome[0]))
        return nodes

    def test_exactly_one_link_remains(self) -> None:
        """Y27: and it is the same one for both, whatever the offsets, latencies and keys."""
        survivors = set()
        for seed in range(SEEDS):
            one, other = self.cross(seed)
            (of_other,), (of_one,) = one.peer_infos(), other.peer_infos()
            self.assertEqual({of_one.direction, of_other.direction}, {"inbound", "outbound"}, seed)
            lines = self.world.network.transports
            open_lines = [line for line in lines if not (line[0].is_closed and line[1].is_closed)]
            self.assertEqual(len(open_lines), 1, seed)
            one.send_to(of_other.peer_id, get_tx_set(1))
            other.send_to(of_one.peer_id, get_tx_set(2))
            self.world.advance(20)
            self.assertEqual((len(one.peer_infos()), len(other.peer_infos())), (1, 1), seed)
            survivors.add((len(lines), of_other.direction))
            self.leave_nothing_behind()
        # With and without a second line, and with either of two as the winner: all occur.
        self.assertEqual(survivors, {(1, "outbound"), (2, "outbound"), (2, "inbound")})

    def test_of_two_proven_links_the_one_of_the_greater_id_stays(self) -> None:
        """When both get as far as AUTH at both ends, the ids decide, and the loser is told."""
        for numbers in ((1, 2), (2, 1)):
            self.world = world = World(latency=0.1)
            nodes = [world.node(number) for number in numbers]
            reasons = [self.reasons_of(node) for node in nodes]
            world.outcome(nodes[0].connect(ip(numbers[1])))
            world.outcome(nodes[1].connect(ip(numbers[0])))
            world.advance(3, step=0.01)
            greater, lesser = sorted(nodes, key=lambda node: node.local_node.peer_id, reverse=True)
            self.assertEqual([info.direction for info in greater.peer_infos()], ["outbound"])
            self.assertEqual([info.direction for info in lesser.peer_infos()], ["inbound"])
            self.assertEqual([len(texts) for texts in reasons], [1, 1])
            for texts in reasons:
                self.assertRegex(texts[0] or "", "already.connected peer")
            self.leave_nothing_behind()


class SecondLinkTests(WorldTestCase):
    """A node that is connected comes a second time."""

    def pong(self, peer: ScriptedPeer) -> None:
        """Answer the latest ping."""
        ping = peer.of_type(MessageType.GET_SCP_QUORUMSET)[-1]
        peer.send(Message(encode_dont_have(10, decode_hash_query(ping.body))))

    def refusal(self) -> tuple[int, bytes]:
        return 2, (ALREADY + make_node(9).peer_id.short).encode()

    def test_the_older_of_one_direction_stays(self) -> None:
        """Row 34: the newcomer is told in its HELLO stage, and gets no AUTH."""
        node = self.world.node()
        events: list[str] = []
        node.on_peer_event(lambda event: events.append(event.kind))
        peer, newcomer = self.world.call(), self.world.call()
        self.assertEqual(newcomer.error, self.refusal())
        self.assertEqual(newcomer.of_type(MessageType.AUTH), [])
        self.assertEqual(len(node.peer_infos()), 1)
        self.assertFalse(peer.is_closed)
        kinds = ["connecting", "authenticated", "connecting", "dropped"]
        self.assertEqual(events, [f"peer.{kind}" for kind in kinds])

    def test_the_older_stays_when_both_were_in_their_handshake(self) -> None:
        """Settled at AUTH: the second to prove the key is refused, and was never a peer."""
        node = self.world.node()
        peers = [self.world.call(is_polite=False) for _ in range(2)]
        for peer in peers:
            peer.say_hello()
        self.world.settle()
        for peer in peers:
            peer.auth.accept_hello(peer.auth.read_hello(peer.received[0]))
            peer.say_auth()
            self.world.settle()
        self.assertEqual([peer.error for peer in peers], [None, self.refusal()])
        self.assertEqual(len(node.peer_infos()), 1)
        self.assertTrue(node.send_to(make_node(9).peer_id, get_tx_set()))
        self.world.settle()
        self.assertEqual(peers[0].of_type(MessageType.GET_TX_SET), [get_tx_set()])

    def test_a_silent_link_makes_way(self) -> None:
        """Ten seconds without a word, and a newcomer with the same key replaces it."""
        node = self.world.node()
        old = self.world.call()
        self.world.advance(9.5)
        self.assertEqual(self.world.call().error, self.refusal())
        self.world.advance(0.5)
        newcomer = self.world.call()
        self.assertIsNone(newcomer.error)
        self.assertEqual(old.error, self.refusal())
        self.assertEqual(len(node.peer_infos()), 1)
        node.send_to(make_node(9).peer_id, get_tx_set())
        self.world.settle()
        self.assertEqual(newcomer.of_type(MessageType.GET_TX_SET), [get_tx_set()])

    def test_a_silent_link_makes_way_for_one_of_the_other_direction(self) -> None:
        """Whichever id is greater: a node that was cut off and dials us is not locked out."""
        for number in (9, 1):  # the node's own number is 2
            self.world = World()
            self.world.answer(number)
            node = self.world.node(2)
            self.world.result(node.connect(ip(number)))
            self.world.advance(10)
            newcomer = self.world.call(2, number=number)
            self.assertIsNone(newcomer.error, number)
            self.assertEqual([info.direction for info in node.peer_infos()], ["inbound"])
            self.leave_nothing_behind()

    def test_a_link_that_answers_pings_is_not_silent(self) -> None:
        """However long nothing else is said."""
        node = self.world.node()
        peer = self.world.call()
        for _ in range(6):
            self.world.advance(5)
            self.pong(peer)
            self.world.settle()
        self.world.advance(4)
        self.assertEqual(self.world.call().error, self.refusal())
        self.assertEqual(len(node.peer_infos()), 1)

    def test_the_end_of_the_old_link_does_not_touch_the_new_one(self) -> None:
        """The replaced link closes seconds later; the peer stays listed and reachable."""
        node = self.world.node()
        self.world.call()
        self.world.advance(10)
        ours: MemoryTransport = self.world.transports()[1]
        ours.cork()
        newcomer = self.world.call()
        self.assertFalse(ours.is_closed)
        self.world.advance(5)
        self.assertTrue(ours.is_closed)
        self.assertEqual(len(node.peer_infos()), 1)
        self.assertEqual(list(node.admission.authenticated), [make_node(9).peer_id])
        self.assertFalse(newcomer.is_closed)

    def test_a_replayed_hello_locks_nobody_out(self) -> None:
        """Who repeats another node's HELLO cannot prove its key, and is in nobody's way."""
        node = self.world.node()
        thieves = [self.world.call(number=8, is_polite=False) for _ in range(20)]
        recorded = ScriptedPeer(make_node(9)).auth.create_hello()
        for thief in thieves:
            thief.send(recorded)
        self.world.settle()
        self.assertEqual([thief.error for thief in thieves], [None] * 20)
        victim = self.world.call()
        self.assertIsNone(victim.error)
        self.assertEqual([info.peer_id for info in node.peer_infos()], [make_node(9).peer_id])
        late = self.world.call(number=8, is_polite=False)
        late.send(recorded)
        self.world.settle()
        self.assertEqual(late.error, self.refusal())
        self.assertFalse(victim.is_closed)
