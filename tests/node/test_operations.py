"""What an operator, or a program, can ask of a running node."""

from __future__ import annotations

import errno

from twisted.application.service import MultiService
from twisted.internet.defer import fail
from twisted.internet.error import ConnectError
from twisted.logger import LogLevel, capturedLogs

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import (
    AlreadyStarted,
    ConfigError,
    ConnectionFailed,
    InvalidKey,
    NotStarted,
    OverlayError,
    PeerBanned,
    PeerNotFound,
)
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import PendingPeer
from stellar_overlay.store.peer_manager import StoredPeerType
from stellar_overlay.wire.message import MessageType
from tests.builders import get_tx_set, make_node
from tests.node.world import PORT, LivelyPeer, WorldTestCase, ip

PEER = make_node(9).peer_id


class BanTests(WorldTestCase):
    """Bans, by node id."""

    def test_a_connected_peer(self) -> None:
        """It is told "dropped by user", announced as banned, and not let in again."""
        node = self.world.node()
        events: list[PeerEvent] = []
        node.on_peer_event(events.append)
        peer = self.world.call()
        self.world.result(node.ban_peer(PEER))
        self.assertEqual(peer.error, (0, b"dropped by user"))
        self.assertEqual(node.banned_peers(), [PEER])
        kinds = [event.kind for event in events]
        self.assertEqual(
            kinds, ["peer.connecting", "peer.authenticated", "peer.banned", "peer.dropped"]
        )
        self.assertEqual((events[2].peer_id, events[2].seconds), (PEER, None))
        again = self.world.call()
        self.assertEqual((again.received, again.is_closed), ([], True))

    def test_a_stranger(self) -> None:
        """Row 28, H12: it need not be connected; it gets no HELLO, and no row."""
        node = self.world.node()
        self.world.result(node.ban_peer(PEER.strkey))
        caller = self.world.call()
        self.assertEqual((caller.received, caller.is_closed), ([], True))
        self.assertEqual(node.known_peers(), [])
        self.world.answer()
        with self.assertRaises(PeerBanned):
            self.world.result(node.connect(ip(9)))

    def test_between_hello_and_auth(self) -> None:
        """T24: a ban that comes while a peer shakes hands still holds."""
        node = self.world.node()
        peer = self.world.call(is_polite=False)
        peer.say_hello()
        self.world.settle()
        peer.auth.accept_hello(peer.auth.read_hello(peer.received[0]))
        self.world.result(node.ban_peer(PEER))
        peer.say_auth()
        self.world.settle()
        self.assertTrue(peer.is_closed)
        self.assertEqual(node.peer_infos(), [])

    def test_for_a_while(self) -> None:
        """A timed ban ends by itself."""
        node = self.world.node()
        self.world.result(node.ban_peer(PEER, seconds=60))
        self.world.advance(59)
        self.assertTrue(self.world.call().is_closed)
        self.world.advance(2)
        self.assertEqual(node.banned_peers(), [])
        self.assertFalse(self.world.call().is_closed)

    def test_unban(self) -> None:
        """A ban ends at once when it is lifted; to lift none is harmless."""
        node = self.world.node()
        self.world.result(node.unban_peer(PEER))
        self.world.result(node.ban_peer(PEER))
        self.world.result(node.unban_peer(PEER.strkey))
        self.assertEqual(node.banned_peers(), [])
        self.assertFalse(self.world.call().is_closed)

    def test_nonsense(self) -> None:
        """What is no node id, or no time, is refused and bans nobody."""
        node = self.world.node()
        with self.assertRaises(InvalidKey):
            self.world.result(node.ban_peer("GARBAGE"))
        for seconds in (0, -1, float("nan"), float("inf")):
            with self.assertRaises(OverlayError):
                self.world.result(node.ban_peer(PEER, seconds=seconds))
        self.assertEqual(node.banned_peers(), [])

    def test_wrong_arguments(self) -> None:
        """What is of the wrong type says so; nothing is banned."""
        node = self.world.node()
        for peer_id, seconds in ((None, None), (5, None), (PEER, "5"), (PEER, True)):
            with self.assertRaises(TypeError):
                self.world.result(node.ban_peer(peer_id, seconds))  # type: ignore[arg-type]
        with self.assertRaises(TypeError):
            self.world.result(node.unban_peer(None))  # type: ignore[arg-type]
        self.assertEqual(node.banned_peers(), [])

    def test_without_a_running_node(self) -> None:
        """Nothing would keep the ban."""
        node = self.world.node(is_started=False)
        with self.assertRaises(NotStarted):
            self.world.result(node.ban_peer(PEER))
        self.world.result(node.start())
        self.world.result(node.stop())
        with self.assertRaises(NotStarted):
            self.world.result(node.unban_peer(PEER))

    def test_a_restart(self) -> None:
        """A ban that was acknowledged is there after the next start."""
        database = self.mktemp()
        node = self.world.node(database=database)
        self.world.result(node.ban_peer(PEER))
        self.world.result(node.stop())
        self.assertEqual(self.world.node(2, database=database).banned_peers(), [PEER])


class ListTests(WorldTestCase):
    """What is known of peers."""

    def test_a_pending_peer(self) -> None:
        """Before its HELLO by its socket, then by where it says that it listens."""
        node = self.world.node()
        peer = self.world.call(is_polite=False)
        (pending,) = node.pending_peers()
        self.assertEqual(pending.direction, "inbound")
        self.assertEqual(pending.address, ResolvedPeerAddress(ip(9), 40_000))
        peer.say_hello()
        self.world.settle()
        self.assertEqual(
            node.pending_peers(),
            [PendingPeer(address=ResolvedPeerAddress(ip(9), PORT), direction="inbound")],
        )
        peer.auth.accept_hello(peer.auth.read_hello(peer.received[0]))
        peer.say_auth()
        self.world.settle()
        self.assertEqual((node.pending_peers(), len(node.peer_infos())), ([], 1))

    def test_a_connected_peer(self) -> None:
        """All that ``/peers`` shows of it."""
        node = self.world.node(run_standalone=True)
        peer = self.world.call(kind=LivelyPeer)
        self.world.advance(6)
        (info,) = node.peer_infos()
        self.assertAlmostEqual(info.connected_seconds, 6)
        self.assertEqual((info.direction, info.is_preferred), ("inbound", False))
        self.assertEqual(info.latency_ms, 0)
        self.assertEqual((info.messages_read, info.messages_written), (4, 5))
        written = self.world.transports()[1].written
        self.assertEqual(info.bytes_written, len(written))
        self.assertEqual(info.bytes_read, len(self.world.transports()[0].written))
        self.assertGreater(info.async_reads, 0)
        self.assertGreater(info.async_writes, 0)
        self.assertEqual(info.messages_dropped, 0)
        self.assertEqual(info.flow_control.local_flood_capacity, 200)
        self.assertFalse(peer.is_closed)

    def test_rows(self) -> None:
        """Who called us is INBOUND, whom we dialled OUTBOUND: from the proof of its key on."""
        node = self.world.node(run_standalone=True)
        self.world.call(number=8)
        self.world.answer(9)
        self.world.result(node.connect(ip(9)))
        types = {str(row.address): row.peer_type for row in node.known_peers()}
        self.assertEqual(
            types,
            {
                f"{ip(8)}:{PORT}": StoredPeerType.INBOUND,
                f"{ip(9)}:{PORT}": StoredPeerType.OUTBOUND,
            },
        )

    def test_added_peers(self) -> None:
        """Known peers that are added while the node runs are dialled at the next tick."""
        node = self.world.node()
        self.world.advance(5)
        self.world.answer(9, kind=LivelyPeer)
        node.add_known_peers([PeerAddress(ip(9))])
        self.world.advance(4)
        self.assertEqual(len(node.peer_infos()), 1)

    def test_by_text(self) -> None:
        """A node id may be given as G…; what is none is refused as such."""
        node = self.world.node()
        peer = self.world.call()
        self.assertTrue(node.send_to(PEER.strkey, get_tx_set()))
        self.world.settle()
        self.assertEqual(len(peer.of_type(MessageType.GET_TX_SET)), 1)
        with self.assertRaises(InvalidKey):
            node.send_to("G", get_tx_set())
        self.world.result(node.disconnect(PEER.strkey))
        with self.assertRaises(PeerNotFound):
            self.world.result(node.disconnect(PEER.strkey))


class DialTests(WorldTestCase):
    """What a dial costs the address."""

    def failures(self, node: OverlayManager) -> int:
        (row,) = node.known_peers()
        return row.num_failures

    def test_a_refusal_counts(self) -> None:
        """Every dial is a failure until AUTH."""
        node = self.world.node(run_standalone=True)
        for count in (1, 2, 3):
            with self.assertRaises(ConnectionFailed):
                self.world.result(node.connect(ip(9)))
            self.assertEqual(self.failures(node), count)
        self.world.answer()
        self.world.result(node.connect(ip(9)))
        self.assertEqual(self.failures(node), 0)

    def test_our_own_trouble_does_not(self) -> None:
        """When we are offline, nobody is forgotten for it."""
        node = self.world.node(run_standalone=True)
        for number in (errno.ENETUNREACH, errno.EMFILE, errno.ECONNREFUSED):
            error = ConnectError(osError=number)

            class Endpoint:
                def connect(self, _: object, error: ConnectError = error) -> object:
                    return fail(error)

            node._dialer._connect = lambda _, endpoint=Endpoint: endpoint()  # type: ignore[misc]
            with self.assertRaises(ConnectionFailed):
                self.world.result(node.connect(ip(9)))
            self.assertEqual(self.failures(node), int(number == errno.ECONNREFUSED))

    def test_a_wrong_address(self) -> None:
        """What is no address is no attempt."""
        node = self.world.node()
        for wrong in (5, None):
            with self.assertRaises(TypeError):
                self.world.result(node.connect(wrong))  # type: ignore[arg-type]
            with self.assertRaises(TypeError):
                node.add_known_peers([ip(9), wrong])  # type: ignore[list-item]
        self.assertEqual(node.metrics.outbound_attempt.get(), 0)


class ServiceTests(WorldTestCase):
    """A node as a service of somebody else's."""

    def test_a_second_start(self) -> None:
        """It is said in the log, and who waits is told: a node is started once."""
        node = self.world.node()
        parent = MultiService()
        parent.startService()
        self.world.result(node.stop())
        with capturedLogs() as logged:
            node.setServiceParent(parent)
        errors = [event for event in logged if event["log_level"] is LogLevel.error]
        self.assertIn("started once", errors[0]["error"])
        with self.assertRaises(NotStarted):
            self.world.result(node.when_started())
        with self.assertRaises(AlreadyStarted):
            self.world.result(node.start())

    def test_a_wrong_database(self) -> None:
        """The node is not started, and lets go of its port."""
        node = self.world.node(database="mysql://nobody", is_started=False)
        with self.assertRaises(ConfigError):
            self.world.result(node.start())
        self.assertEqual(self.world.network._ports, {})
        self.world.nodes.remove(node)

    def test_stopped_before_it_ran(self) -> None:
        """Who waits for the start is told that there will be none."""
        node = self.world.node(is_started=False)
        waiting = self.world.outcome(node.when_started())
        self.world.result(node.stop())
        self.assertIs(type(waiting[0]), NotStarted)
