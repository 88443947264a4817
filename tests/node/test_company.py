"""Whom a whole node keeps company with, tick by tick."""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.store.peer_manager import PeerRecord, StoredPeerType
from stellar_overlay.wire.message import Message
from tests.builders import WALL_NOW, make_node
from tests.node.world import PORT, LivelyPeer, WorldTestCase, ip


def at(number: int, port: int = PORT) -> ResolvedPeerAddress:
    """Return where a host listens."""
    return ResolvedPeerAddress(ip(number), port)


class CompanyTestCase(WorldTestCase):
    def dials(self, node: OverlayManager) -> Callable[[], int]:
        return node.metrics.outbound_attempt.get

    def row(self, node: OverlayManager, address: ResolvedPeerAddress) -> PeerRecord | None:
        """Return the row of an address, if there is one."""
        return next((row for row in node.known_peers() if row.address == address), None)


class ConfiguredTests(CompanyTestCase):
    """The peers of the configuration."""

    def test_they_are_in_the_table_at_once_and_dialled_soon(self) -> None:
        """P15, R11: typed at the start; dialled within core's two seconds."""
        for number in (7, 8, 9):
            self.world.answer(number, kind=LivelyPeer)
        node = self.world.node(known_peers=[ip(7), ip(8)], preferred_peers=[ip(9)])
        types = {row.address: row.peer_type for row in node.known_peers()}
        outbound, preferred = StoredPeerType.OUTBOUND, StoredPeerType.PREFERRED
        self.assertEqual(types, {at(7): outbound, at(8): outbound, at(9): preferred})
        self.world.advance(2)
        connected = {info.peer_id for info in node.peer_infos()}
        self.assertEqual(connected, {make_node(number).peer_id for number in (7, 8, 9)})

    def test_a_former_stranger(self) -> None:
        """P16: a row of an address that becomes configured gets its type, and is due."""
        database = self.mktemp()
        first = self.world.node(database=database, number=2)
        for number in (7, 8):
            first.stores.peers.store(
                PeerRecord(address=at(number), next_attempt=int(WALL_NOW) + 9000, num_failures=50)
            )
        self.world.result(first.stop())
        node = self.world.node(
            database=database, known_peers=[ip(7)], preferred_peers=[ip(8)], number=3
        )
        rows = {row.address: (row.peer_type, row.num_failures) for row in node.known_peers()}
        self.assertEqual(
            rows, {at(7): (StoredPeerType.OUTBOUND, 0), at(8): (StoredPeerType.PREFERRED, 0)}
        )

    def test_no_more_than_the_target(self) -> None:
        """With two slots to fill, the third known peer is not dialled."""
        for number in (7, 8, 9):
            self.world.answer(number, kind=LivelyPeer)
        node = self.world.node(
            known_peers=[ip(7), ip(8), ip(9)], target_outbound_peers=2, max_outbound_peers=5
        )
        self.world.advance(30)
        outbound = [info for info in node.peer_infos() if info.direction == "outbound"]
        self.assertEqual((len(outbound), self.dials(node)()), (2, 2))

    def test_each_failure_doubles_the_waiting_time(self) -> None:
        """Connection.md 9.2: after the n-th failure, 1 to 10 * 2^n seconds, at a tick."""
        node = self.world.node(known_peers=[ip(9)])
        for failures in range(1, 6):
            row = self.row(node, at(9))
            assert row is not None
            before = self.dials(node)()
            self.world.advance(max(0, row.next_attempt - node.local_node.wall_clock()) + 4)
            self.assertEqual(self.dials(node)(), before + 1)
            row = self.row(node, at(9))
            assert row is not None
            self.assertEqual(row.num_failures, failures)
            wait = row.next_attempt - node.local_node.wall_clock()
            self.assertTrue(-4 <= wait <= 10 * 2**failures, wait)

    def test_a_lost_peer_is_dialled_again(self) -> None:
        """After a success the count begins anew: at the latest ten seconds and a tick later."""
        acceptors = self.world.answer(9, kind=LivelyPeer)
        node = self.world.node(known_peers=[ip(9)])
        self.world.advance(2)
        for number in range(6):
            self.world.advance(20)
            self.assertEqual(len(acceptors), number + 1)
            acceptors[-1].send_forged(Message(b"\0\0\0\6" + bytes(32)))
            self.world.settle()
            self.assertEqual(node.peer_infos(), [])
            self.world.advance(13)
            self.assertEqual(len(node.peer_infos()), 1)

    def test_a_black_hole(self) -> None:
        """It has one attempt at a time, and does not keep others from being dialled."""
        self.world.network.black_holes.add(ip(9))
        self.world.answer(8, kind=LivelyPeer)
        node = self.world.node(known_peers=[ip(9), ip(8)])
        self.world.advance(2)
        self.assertEqual((len(node.peer_infos()), node.admission.outbound), (1, 2))

    def test_a_connected_peer_is_not_dialled_again(self) -> None:
        """Y26: not by its name when it is known by number, nor when it announces another port."""
        self.world.network.names["node.example"] = [ip(8)]
        self.world.answer(8, kind=LivelyPeer)
        self.world.answer(9, local_node=make_node(9, port=777), kind=LivelyPeer)
        node = self.world.node(known_peers=["node.example", ip(8), ip(9)])
        self.world.advance(100)
        self.assertEqual(len(node.peer_infos()), 2)
        self.assertEqual(self.dials(node)(), 2)

    def test_nothing_is_dialled_after_the_stop(self) -> None:
        """The tick and the reconnecting services end with the node."""
        node = self.world.node(known_peers=[ip(9)], preferred_peers=[ip(8)])
        self.world.advance(3)
        self.world.result(node.stop())
        dials = self.dials(node)()
        self.world.advance(60)
        self.assertEqual(self.dials(node)(), dials)

    def test_nobody_is_dialled_standing_alone(self) -> None:
        """RUN_STANDALONE: no listener, no tick."""
        self.world.answer(9, kind=LivelyPeer)
        node = self.world.node(known_peers=[ip(9)], run_standalone=True)
        self.world.advance(30)
        self.assertEqual(self.dials(node)(), 0)


class PreferredTests(CompanyTestCase):
    """Links that come back by themselves."""

    def test_a_preferred_peer_comes_back(self) -> None:
        """Its delays are the table's: a few seconds after it was lost."""
        acceptors = self.world.answer(9, kind=LivelyPeer)
        node = self.world.node(preferred_peers=[ip(9)])
        self.world.advance(30)
        self.assertEqual(len(acceptors), 1)
        self.assertTrue(node.peer_infos()[0].is_preferred)
        acceptors[0].transport.loseConnection()  # type: ignore[union-attr]
        self.world.advance(4)
        self.assertEqual((len(acceptors), len(node.peer_infos())), (2, 1))

    def test_a_dead_one_costs_ever_less(self) -> None:
        """An hour of refusals is a dozen dials, not a thousand."""
        node = self.world.node(preferred_peers=[ip(9)])
        self.world.advance(3600, step=1)
        self.assertTrue(5 <= self.dials(node)() <= 20, self.dials(node)())

    def test_written_in_numbers(self) -> None:
        """It has a service of its own, as one with a name has."""
        node = self.world.node(preferred_peers=[ip(9)])
        self.assertEqual(set(node._company._reconnecting), {at(9)})

    def test_it_moves(self) -> None:
        """When its name leads elsewhere it is sought there, and no longer where it was."""
        names = self.world.network.names
        names["node.example"] = [ip(8)]
        node = self.world.node(preferred_peers=["node.example"])
        self.world.advance(30)
        names["node.example"] = []
        self.world.advance(600)
        self.assertEqual(set(node._company._reconnecting), {at(8)})  # as long as nobody knows
        names["node.example"] = [ip(9)]
        self.world.answer(9, kind=LivelyPeer)
        self.world.advance(1210)
        self.assertEqual(set(node._company._reconnecting), {at(9)})
        self.assertEqual([info.address for info in node.peer_infos()], [at(9)])

    def test_it_evicts_a_stranger(self) -> None:
        """R6: with every outbound slot taken, a preferred peer that we dial takes one."""
        strangers = self.world.answer(7, kind=LivelyPeer)
        node = self.world.node(target_outbound_peers=1, max_inbound_peers=1)
        reasons = self.reasons_of(node)
        self.world.result(node.connect(ip(7)))
        self.world.answer(9, kind=LivelyPeer)
        node._company.configured.add_known([])
        node.admission.preferred_addresses = frozenset({at(9)})
        self.world.result(node.connect(ip(9)))
        self.assertEqual(reasons, ["preferred peer selected instead"])
        self.assertEqual(strangers[0].error, (4, b"preferred peer selected instead"))
        self.assertEqual([info.address for info in node.peer_infos()], [at(9)])


class AnchorTests(CompanyTestCase):
    """A few peers are remembered to be dialled first after a restart."""

    def test_they_need_no_seed(self) -> None:
        """They are dialled although their next attempt is not due yet."""
        database = self.mktemp()
        self.world.answer(9, kind=LivelyPeer)
        node = self.world.node(database=database, known_peers=[ip(9)])
        self.world.advance(5)
        self.world.result(node.stop())
        again = self.world.node(2, database=database)
        row = self.row(again, at(9))
        assert row is not None
        again.stores.peers.store(
            PeerRecord(
                address=at(9),
                next_attempt=row.next_attempt + 1000,
                num_failures=row.num_failures,
                peer_type=row.peer_type,
            )
        )
        self.world.advance(1)
        self.assertEqual([info.address for info in again.peer_infos()], [at(9)])


class LostHerder(IgnoringHerder):
    """Has lost sight of consensus."""

    def is_tracking(self) -> bool:
        return False


class OutOfSyncTests(CompanyTestCase):
    """Once a minute another peer is tried."""

    def test_random_drop(self) -> None:
        """Y31, T5: with all slots taken, one non-preferred outbound peer is told to go."""
        acceptors = [self.world.answer(number, kind=LivelyPeer) for number in (7, 8, 9)]
        node = self.world.node(
            herder=LostHerder(),
            known_peers=[ip(7), ip(8)],
            preferred_peers=[ip(9)],
            target_outbound_peers=3,
        )
        reasons = self.reasons_of(node)
        self.world.advance(60)
        self.assertEqual((len(node.peer_infos()), reasons), (3, []))
        self.world.advance(7)
        self.assertEqual(reasons, ["random disconnect due to out of sync"])
        told = [peer.error for peers in acceptors[:2] for peer in peers if peer.error]
        self.assertEqual(told, [(4, b"random disconnect due to out of sync")])
        self.assertIsNone(acceptors[2][0].error)
        self.world.advance(600)
        self.assertTrue(3 <= len(reasons) <= 11, len(reasons))
        self.assertEqual(len(acceptors[2]), 1)

    def test_not_while_in_sync(self) -> None:
        """A herder that follows consensus keeps its peers."""
        self.world.answer(9, kind=LivelyPeer)
        node = self.world.node(known_peers=[ip(9)], target_outbound_peers=1)
        self.world.advance(300)
        self.assertEqual(len(node.peer_infos()), 1)
        self.assertEqual(node.metrics.outbound_drop.get(), 0)
