"""Nodes that an operator wants no company of (connection.md 9.8, DECISIONS.md 17)."""

from __future__ import annotations

from stellar_overlay.error import ErrorCode, PeerBanned, PeerDisconnected
from stellar_overlay.wire.message import MessageType
from tests.scenarios.network import INBOUND, OUTBOUND, GoodPeer, ScenarioTestCase

DROPPED = (0, b"dropped by user")


class BanTests(ScenarioTestCase):
    """Bans in force, and their end."""

    def test_a_banned_caller_is_closed_at_hello(self) -> None:
        """H12, row 28: without a byte, and the one who bans keeps no row of it (DECISIONS 7)."""
        node = self.network.add_node("node")
        host = self.network.add_peer("banned", kind=GoodPeer, is_listening=False)
        self.network.result_of(node.ban_peer(host.local_node.peer_id))
        drops = self.drops(node)
        for _ in range(3):
            peer = host.dial(self.network.address("node"))
            self.network.advance(0)
            self.assertTrue(peer.is_closed)
            self.assertEqual(peer.received, [])
        reasons = [(event.reason, event.by, event.code) for event in drops]
        self.assertEqual(reasons, [("node is banned", "us", None)] * 3)
        self.assertEqual(node.known_peers(), [])
        self.assert_idle(node)

    def test_between_two_nodes(self) -> None:
        """H12: whichever of them dials, there is no link, and who bans keeps no row by AUTH."""
        cases = ("one", "two", PeerBanned), ("two", "one", PeerDisconnected)
        for caller, callee, error in cases:
            one, two = self.network.add_node("one"), self.network.add_node("two")
            self.network.result_of(one.ban_peer(two.local_node.peer_id))
            refused = self.network.node(caller).connect(self.network.address(callee))
            with self.assertRaises(error):
                self.network.result_of(refused)
            self.assertEqual((one.peer_infos(), two.peer_infos()), ([], []))
            self.assertIs(self.row(self.network.node(callee), caller), None)
            row = self.row(self.network.node(caller), callee)
            assert row is not None  # the dial itself was noted
            self.assertEqual((row.num_failures, row.peer_type), (1, INBOUND))
            self.again()

    def test_a_ban_cuts_the_link(self) -> None:
        """DECISIONS 17: a connected node is told "dropped by user", and refused from then on."""
        node = self.network.add_node("node")
        host = self.network.add_peer("peer", kind=GoodPeer)
        peer = host.dial(self.network.address("node"))
        self.network.advance(1)
        self.assertEqual(len(node.peer_infos()), 1)
        drops = self.drops(node)
        self.network.result_of(node.ban_peer(host.local_node.peer_id))
        self.network.advance(0)
        self.assertEqual(peer.error, DROPPED)
        self.assertEqual(
            [(event.reason, event.by, event.code) for event in drops],
            [("dropped by user", "us", ErrorCode.ERR_MISC)],
        )
        self.network.advance(60)  # it is not dialled with success either
        self.assertEqual(node.peer_infos(), [])
        for answered in host.answered:
            self.assertEqual(answered.of_type(MessageType.AUTH), [])

    def test_a_ban_during_the_handshake(self) -> None:
        """DECISIONS 17: a node that is between HELLO and AUTH is not let in any more."""
        node = self.network.add_node("node")
        host = self.network.add_peer("peer", is_listening=False, is_polite=False)
        peer = host.dial(self.network.address("node"))
        peer.say_hello()
        self.network.advance(0)
        self.assertEqual(len(node.pending_peers()), 1)
        self.network.result_of(node.ban_peer(host.local_node.peer_id))
        self.network.advance(0)
        self.assertEqual(peer.error, DROPPED)
        self.assertEqual(node.known_peers(), [])

    def test_a_timed_ban_ends_by_the_clock(self) -> None:
        """Y8: to the second, for callers and for the tick alike; no longer listed after it."""
        node = self.network.add_node("node", known_peers=["peer"])
        host = self.network.add_peer("peer", kind=GoodPeer)
        peer_id = host.local_node.peer_id
        self.network.result_of(node.ban_peer(peer_id, seconds=100))
        began = self.network.clock.seconds()
        self.assertEqual(node.banned_peers(), [peer_id])
        self.network.advance(99.5 - self.network.clock.seconds() + began)
        self.assertEqual(node.peer_infos(), [])
        early = host.dial(self.network.address("node"))
        self.network.advance(0)
        self.assertTrue(early.is_closed)
        self.network.advance(0.5)
        late = host.dial(self.network.address("node"))
        self.network.advance(0)
        self.assertFalse(late.is_closed)
        self.assertEqual((len(node.peer_infos()), node.banned_peers()), (1, []))

    def test_the_longer_ban_holds(self) -> None:
        """Y8: a timed ban does not weaken one for good, which replaces a timed one."""
        node = self.network.add_node("node")
        for number, order in enumerate(((None, 10), (10, None), (10, 1000), (1000, 10))):
            host = self.network.add_peer(f"peer {number}", is_listening=False)
            for seconds in order:
                self.network.result_of(node.ban_peer(host.local_node.peer_id, seconds=seconds))
        self.network.advance(500)
        self.assertEqual(len(node.banned_peers()), 4)
        self.network.advance(501)
        self.assertEqual(len(node.banned_peers()), 2)

    def test_unban(self) -> None:
        """Y8: effective at once; the known peer is back when its back-off allows."""
        node = self.network.add_node("node", known_peers=["peer"])
        host = self.network.add_peer("peer", kind=GoodPeer)
        self.network.result_of(node.ban_peer(host.local_node.peer_id))
        self.network.advance(30)
        self.assertEqual(node.peer_infos(), [])
        self.network.result_of(node.unban_peer(host.local_node.peer_id))
        self.assertTrue(self.network.run_until(lambda: bool(node.peer_infos()), timeout=120))

    def test_bans_outlive_a_crash(self) -> None:
        """Y8: an acknowledged ban or unban is on disk: nothing is lost to ``kill -9``."""
        node = self.network.add_node("node", database=self.mktemp())
        hosts = [
            self.network.add_peer(f"peer {number}", kind=GoodPeer, is_listening=False)
            for number in range(4)
        ]
        ids = [host.local_node.peer_id for host in hosts]
        for peer_id, seconds in zip(ids, (None, 50, 5000, None), strict=True):
            self.network.result_of(node.ban_peer(peer_id, seconds=seconds))
        self.network.result_of(node.unban_peer(ids[3]))
        self.network.crash("node")
        self.network.advance(60)
        node = self.network.restart("node")
        self.assertEqual(set(node.banned_peers()), {ids[0], ids[2]})
        for _ in range(2):
            peers = [host.dial(self.network.address("node")) for host in hosts]
            self.network.advance(0)
            self.assertEqual([peer.is_closed for peer in peers], [True, False, True, False])
            self.network.crash("node")
            self.assertEqual([peer.is_closed for peer in peers], [True] * 4)
            node = self.network.restart("node")

    def test_a_banned_peer_is_not_a_neighbour_for_long(self) -> None:
        """Rows 28, 58: each refused dial counts as a failure, so a banned peer is dialled less."""
        node = self.network.add_node("node", known_peers=["peer"])
        host = self.network.add_peer("peer", kind=GoodPeer)
        self.network.result_of(node.ban_peer(host.local_node.peer_id))
        self.network.advance(1200)
        row = self.row(node, "peer")
        assert row is not None
        self.assertEqual(row.peer_type, OUTBOUND)
        self.assertEqual(row.num_failures, len(host.answered))
        self.assertTrue(4 <= row.num_failures <= 15, row.num_failures)
