"""Transactions: advertised, demanded, and spread as they were signed, byte by byte."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

from stellar_overlay.error import ErrorCode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.loopback import EPOCH
from stellar_overlay.wire.message import Message, decode_hashes
from stellar_overlay.wire.transaction import tx_full_hash
from tests.scenarios.traffic import (
    ADVERT,
    DEMAND,
    TX,
    Boaster,
    Heard,
    Neighbour,
    Reader,
    TrafficTestCase,
    a_hash,
    chain,
    core_and_outer,
    forged,
    invocation,
    mesh,
    payment,
    payments,
    ring,
    transaction,
    twins,
)

CORRUPT = (ErrorCode.ERR_DATA, b"received corrupt XDR")
PERIOD = 0.2
MAX_ASKED = 15

FLOOD_FIGURES = (
    "flood_advertised",
    "flood_demanded",
    "flood_fulfilled",
    "flood_unfulfilled_unknown",
    "flood_unfulfilled_banned",
)


def hash_of(message: Message) -> bytes:
    """Return the hash by which a TRANSACTION is advertised."""
    return tx_full_hash(message.body)


class TwinTests(TrafficTestCase):
    """Bytes that a lax reader takes for a transaction, and that are not its canonical ones."""

    def test_twins_spread_nowhere(self) -> None:
        """Each costs its sender the link, pushed or sent under a demand; nobody hears of it."""
        for name, body in twins(invocation()).items():
            for is_demanded in (False, True):
                twin = Message(body)
                node = self.add()
                reader = self.call("reader", Reader)
                sender = self.call("sender", Neighbour)
                heard = Heard(node, TX)
                if is_demanded:
                    sender.offer(twin)
                else:
                    sender.flood(twin)
                self.network.advance(5)
                self.assertEqual((sender.is_closed, sender.error), (True, CORRUPT), name)
                self.assertEqual(sender.hashes(DEMAND), [hash_of(twin)] if is_demanded else [])
                self.assertEqual((heard.messages, reader.bodies(ADVERT)), ([], []), name)
                self.assert_linked(reader)
                self.again()

    def test_the_twin_does_not_stand_in_the_way(self) -> None:
        """The canonical transaction spreads after its twins were refused, and as it is."""
        original = invocation()
        node = self.add()
        reader = self.call("reader", Reader)
        for name, body in twins(original).items():
            self.call(name, Neighbour).flood(Message(body))
        self.network.advance(1)
        self.call("honest", Neighbour).offer(original)
        self.network.advance(2)
        self.assert_told([reader], TX, original.body)
        self.assertEqual(len(node.peer_infos()), 2)

    def test_what_is_no_good_spreads_nowhere(self) -> None:
        """Not signed, badly signed, too late, too early: the link stays, and it ends here."""
        now = EPOCH
        unsigned = payment(1).body
        bad = {
            "unsigned": transaction(unsigned[4:-76] + bytes(4)),
            "forged": forged(payment(1)),
            "too late": payment(2, bounds=(0, now - 100)),
            "too early": payment(3, bounds=(now + 1000, 0)),
        }
        node = self.add()
        reader = self.call("reader", Reader)
        sender = self.call("sender", Neighbour)
        heard = Heard(node, TX)
        sender.offer(*bad.values())
        good = payment(4, bounds=(now - 100, now + 100))
        sender.offer(good)
        self.network.advance(3)
        self.assertEqual(len(heard.messages), 5)
        self.assertEqual(reader.bodies(TX), [good.body])
        self.assert_linked(sender, reader)
        self.assertEqual(self.figures(node, "pulled_relevant_txs", "pulled_irrelevant_txs"), [1, 4])


class SpreadingTests(TrafficTestCase):
    """Every node has every transaction in the end, and nobody is sent one twice."""

    def spread(
        self, nodes: Sequence[OverlayManager], messages: Sequence[Message], seconds: float
    ) -> list[Heard]:
        """Broadcast from the nodes in turn; check that all have all, each received once."""
        heard = [Heard(node, TX) for node in nodes]
        for number, message in enumerate(messages):
            nodes[number % len(nodes)].broadcast(message)
        self.network.advance(seconds)
        for number, one in enumerate(heard):
            others = [
                message.body
                for origin, message in enumerate(messages)
                if origin % len(nodes) != number
            ]
            self.assertEqual(sorted(one.first()), sorted(others))
            self.assertEqual(one.again(), [])
        return heard

    def test_ten_nodes(self) -> None:
        """A canonical transaction reaches all of them, byte by byte as it was broadcast."""
        self.begin(latency=0.05)
        links = [*ring(10), (0, 5), (2, 7)]
        nodes = self.build(links)
        pushed = Heard(nodes[5], ADVERT, DEMAND)
        self.spread(nodes, [invocation()], 10)
        kinds = {message.type for message in pushed.messages}
        self.assertEqual(kinds, {ADVERT, DEMAND})

    def test_four_nodes(self) -> None:
        """FL1: 20 transactions, in turn, in a full mesh."""
        nodes = self.build(mesh(4))
        self.spread(nodes, payments(20), 10)
        for node in nodes:
            _, demanded, _, unknown, banned = self.figures(node, *FLOOD_FIGURES)
            self.assertEqual((demanded, unknown, banned), (15, 0, 0))

    def test_the_figures_of_two_nodes(self) -> None:
        """FL2: ten on each side; ten advertised, demanded and sent each way."""
        nodes = self.build([(0, 1)])
        adverts = [Heard(node, ADVERT) for node in nodes]
        self.spread(nodes, payments(20), 5)
        for node, heard in zip(nodes, adverts, strict=True):
            self.assertEqual(self.figures(node, *FLOOD_FIGURES), [10, 10, 10, 0, 0])
            hashes = [one for message in heard.messages for one in decode_hashes(message.body)]
            self.assertEqual((len(hashes), len(set(hashes))), (10, 10))

    def test_the_figures_of_four_nodes(self) -> None:
        """FL4: five each."""
        nodes = self.build(mesh(4))
        self.spread(nodes, payments(20), 10)
        for node in nodes:
            advertised, demanded, fulfilled, unknown, banned = self.figures(node, *FLOOD_FIGURES)
            self.assertTrue(5 <= advertised <= 60, advertised)
            self.assertTrue(1 <= demanded <= 60, demanded)
            self.assertTrue(5 <= fulfilled <= 60, fulfilled)
            self.assertLessEqual(fulfilled, advertised)
            self.assertEqual((unknown, banned), (0, 0))

    def test_a_core_with_outer_nodes(self) -> None:
        """FL5: five in a mesh, ten around them; all 15 have all 20."""
        self.begin(latency=0.05)
        self.spread(self.build(core_and_outer(5, 10)), payments(20), 15)

    def test_tiny_capacities(self) -> None:
        """F31: credit for one message at a time; 200 transactions at 20 a second."""
        nodes = self.build(
            chain(3),
            peer_reading_capacity=2,
            peer_flood_reading_capacity=1,
            flow_control_send_more_batch_size=1,
        )
        heard = [Heard(node, TX) for node in nodes[1:]]
        messages = payments(200)
        for message in messages:
            nodes[0].broadcast(message)
            self.network.advance(0.05)
        self.network.advance(30)
        for one in heard:
            self.assertEqual(sorted(one.first()), sorted(message.body for message in messages))
            self.assertEqual(one.again(), [])
        for node in nodes:
            self.assertEqual(self.figures(node, "demand_timeouts", "abandoned_demands"), [0, 0])
        self.assertEqual(len(self.network.links()), 2)


class DemandTests(TrafficTestCase):
    """Whom a node asks for what was advertised to it, and when."""

    def assert_split(self, peers: Sequence[Neighbour], sizes: list[int]) -> None:
        """Check how many hashes each was asked for since the last look, in any order."""
        asked = sorted(len(peer.hashes(DEMAND)) for peer in peers)
        self.assertEqual(asked, sizes)

    def test_advertised_again_and_again(self) -> None:
        """A5: one demand in all."""
        self.add()
        peer = self.call("peer", Boaster)
        for pause in (0, 0, 0, 10):
            self.network.advance(pause)
            peer.advertise(a_hash("tx"))
        self.network.advance(10)
        self.assertEqual(peer.hashes(DEMAND), [a_hash("tx")])
        self.network.advance(60)
        peer.advertise(a_hash("tx"))  # everything is forgotten by now
        self.network.advance(1)
        self.assertEqual(peer.hashes(DEMAND), 2 * [a_hash("tx")])

    def test_an_unknown_demand(self) -> None:
        """A5, seen from the other end: counted, and not answered."""
        node = self.add()
        peer = self.call("peer", Neighbour)
        peer.demand(a_hash("tx"))
        peer.demand(a_hash("tx"), a_hash("tx"))
        self.network.advance(1)
        self.assertEqual(self.figures(node, "flood_fulfilled", "flood_unfulfilled_unknown"), [0, 2])
        self.assertEqual(peer.bodies(TX), [])

    def test_both_have_it(self) -> None:
        """A6: asked of one, once; told to neither, as both have it."""
        node = self.add()
        peers = self.calls(2, Neighbour)
        for peer in peers:
            peer.offer(payment(1))
        self.network.advance(5)
        self.assert_split(peers, [0, 1])
        self.assertEqual([peer.bodies(ADVERT) for peer in peers], [[], []])
        self.assertEqual(self.figures(node, "flood_demanded", "flood_advertised"), [1, 0])

    def test_different_hashes(self) -> None:
        """A7: each is asked for its own, within one period."""
        self.add()
        peers = self.calls(2, Boaster)
        for number, peer in enumerate(peers):
            peer.advertise(a_hash(number))
        self.network.advance(PERIOD + 0.001)
        self.assertEqual([peer.hashes(DEMAND) for peer in peers], [[a_hash(0)], [a_hash(1)]])

    def test_the_same_hashes(self) -> None:
        """A8: five from two peers: shared out at first; later each is asked for the others."""
        self.add()
        peers = self.calls(2, Boaster)
        hashes = [a_hash(number) for number in range(5)]
        for peer in peers:
            peer.advertise(*hashes)
        self.network.advance(PERIOD + 0.001)
        self.assert_split(peers, [2, 3])
        self.assertEqual(sorted(peers[0].hashes(DEMAND) + peers[1].hashes(DEMAND)), sorted(hashes))
        self.network.advance(0.5 + PERIOD)  # the back-off of one attempt
        for peer in peers:
            self.assertEqual(sorted(peer.hashes(DEMAND)), sorted(hashes))
            self.assertEqual(len(peer.bodies(DEMAND)), 2)
        self.network.advance(10)
        self.assert_split(peers, [5, 5])

    def test_overlapping_hashes(self) -> None:
        """A9: {0, 1, 3} and {0, 2, 3}: two each, and then the third."""
        self.add()
        peers = self.calls(2, Boaster)
        for peer, numbers in zip(peers, [(0, 1, 3), (0, 2, 3)], strict=True):
            peer.advertise(*map(a_hash, numbers))
        self.network.advance(PERIOD + 0.001)
        self.assert_split(peers, [2, 2])
        self.assertEqual(len(set(peers[0].hashes(DEMAND) + peers[1].hashes(DEMAND))), 4)
        self.network.advance(0.5 + PERIOD)
        self.assert_split(peers, [3, 3])


class LiarTests(TrafficTestCase):
    """A13: nineteen peers advertise one transaction, and none sends it."""

    def setUp(self) -> None:
        super().setUp()
        self.wanted = payment(0)
        self.node = self.add()

    def demands(self, peers: Sequence[Neighbour]) -> list[tuple[float, Neighbour]]:
        """Return when each was asked, in that order."""
        asked = [(at, peer) for peer in peers for at in peer.times(DEMAND)]
        return sorted(asked, key=lambda entry: entry[0])

    def assert_gaps(self, asked: list[tuple[float, Neighbour]]) -> None:
        """Check that no two demands went to one peer, and the pauses between them."""
        self.assertEqual(len({peer.peer_id for _, peer in asked}), len(asked))
        times = [at for at, _ in asked]
        gaps = [round(later - earlier, 6) for earlier, later in pairwise(times)]
        self.assertGreaterEqual(min(gaps), 0.5)
        self.assertLessEqual(max(gaps), 2.2)
        self.assertEqual(gaps, sorted(gaps))

    def test_none_serves_it(self) -> None:
        """Fifteen are asked, one after the other, each once, in ten minutes."""
        peers = self.calls(19, Boaster)
        for peer in peers:
            peer.advertise(hash_of(self.wanted))
        self.network.advance(600)
        asked = self.demands(peers)
        self.assertEqual(len(asked), MAX_ASKED)
        self.assert_gaps(asked)
        self.assert_linked(*peers)
        self.assertEqual(
            self.figures(self.node, "flood_demanded", "demand_timeouts", "abandoned_demands"),
            [15, 14, 1],
        )

    def test_others_are_sent_instead(self) -> None:
        """A different transaction under each demand does not end the search; the right one does."""
        peers = self.calls(10, Neighbour)
        for number, peer in enumerate(peers):
            peer.transactions[hash_of(self.wanted)] = payment(100 + number)
            peer.advertise(hash_of(self.wanted))
        self.network.advance(20)
        asked = self.demands(peers)
        self.assertEqual(len(asked), 10)
        self.assert_gaps(asked)
        honest = self.call("honest", Neighbour)
        honest.offer(self.wanted)
        late = self.calls(3, Boaster, name="late")
        self.network.advance(1)
        for peer in late:
            peer.advertise(hash_of(self.wanted))
        self.network.advance(20)
        self.assertEqual(honest.hashes(DEMAND), [hash_of(self.wanted)])
        self.assertEqual([peer.bodies(DEMAND) for peer in late], [[], [], []])
        self.assertEqual(self.figures(self.node, "flood_demanded", "pulled_relevant_txs"), [11, 11])

    def test_one_that_comes_back(self) -> None:
        """Who was asked is not asked again under the same key, on whatever link."""
        host = self.host("liar", Boaster)
        asked = 0
        for _ in range(5):
            peer = self.dial(host, Boaster)
            peer.advertise(hash_of(self.wanted))
            self.network.advance(5)
            asked += len(peer.hashes(DEMAND))
            peer.hang_up()
            self.network.advance(1)
        self.assertEqual(asked, 1)

    def test_it_comes_in_between(self) -> None:
        """Nobody is asked any more once somebody pushed it."""
        peers = self.calls(19, Boaster)
        for peer in peers:
            peer.advertise(hash_of(self.wanted))
        self.network.advance(4)
        asked = len(self.demands(peers))
        self.assertTrue(2 <= asked <= 6, asked)
        random.Random(1).choice(peers).flood(self.wanted)
        self.network.advance(60)
        self.assertEqual(len(self.demands(peers)), asked)


class QuietTests(TrafficTestCase):
    """A transaction that is gone."""

    def test_a_peer_that_leaves_with_the_advert(self) -> None:
        """What was demanded of a peer that left is asked of the next."""
        node = self.add()
        boaster = self.call("boaster", Boaster)
        boaster.advertise(hash_of(payment(1)))
        self.network.advance(PERIOD + 0.001)
        self.assertEqual(len(boaster.hashes(DEMAND)), 1)
        boaster.hang_up()
        honest = self.call("honest", Neighbour)
        honest.offer(payment(1))
        self.network.advance(2)
        self.assertEqual(len(honest.hashes(DEMAND)), 1)
        self.assertEqual(self.figures(node, "pulled_relevant_txs"), [1])
