"""Messages that flood: to everybody, once, and never back."""

from __future__ import annotations

from collections import Counter

from stellar_overlay.node.observer import OverlayMessage
from stellar_overlay.wire.message import Message, MessageType, encode_hashes
from stellar_overlay.wire.scp import nominate, prepare
from stellar_overlay.wire.transaction import tx_full_hash
from tests.scenarios.traffic import (
    ADVERT,
    DEMAND,
    SCP,
    TX,
    Heard,
    Neighbour,
    Reader,
    TrafficTestCase,
    a_hash,
    a_value,
    chain,
    core_and_outer,
    externalized,
    mesh,
    payment,
    payments,
    ring,
    star,
    validator,
)

LATENCY = 0.05
SECONDS = 5


class TopologyTests(TrafficTestCase):
    """Everybody hears of a message once, whatever the network looks like."""

    def assert_floods(
        self, links: list[tuple[int, int]], messages: list[Message], *, most_copies: int
    ) -> None:
        """Let the nodes broadcast messages in turn, and check what each has heard.

        :param most_copies: how often one node may hear one message at most.
        """
        self.again(latency=LATENCY)
        nodes = self.build(links)
        self.settle()
        heard = [Heard(node, SCP) for node in nodes]
        origins = {}
        for number, message in enumerate(messages):
            origin = number % len(nodes)
            origins[message.body] = origin
            self.assertGreater(nodes[origin].broadcast(message), 0)
        self.network.advance(SECONDS)
        for number, one in enumerate(heard):
            mine = {body for body, origin in origins.items() if origin == number}
            self.assertEqual(sorted(one.first()), sorted(origins.keys() - mine))
            self.assertLessEqual(set(one.copies().values()), {1})  # per direction of a link
            bodies = Counter(message.body for message in one.messages)
            self.assertLessEqual(max(bodies.values(), default=0), most_copies)
        sent = sum(len(one.messages) for one in heard)
        self.assertLessEqual(sent, 2 * len(links) * len(messages))

    def test_a_chain(self) -> None:
        """Each node hears it from one side, and passes it on to the other."""
        self.assert_floods(chain(6), [externalized(1)], most_copies=1)

    def test_a_ring(self) -> None:
        """The node opposite hears it from both sides."""
        self.assert_floods(ring(6), [externalized(1)], most_copies=2)

    def test_a_star(self) -> None:
        """The centre passes on to all but who told it."""
        self.assert_floods(star(7), [externalized(1)], most_copies=1)
        self.assert_floods(star(7), [externalized(1, by=by) for by in range(7)], most_copies=1)

    def test_prepares_in_a_mesh(self) -> None:
        """FL6: 20 signed PREPAREs among four nodes, each heard by all others."""
        prepares = [prepare(validator(by), 2, a_value()) for by in range(20)]
        self.assert_floods(mesh(4), prepares, most_copies=3)

    def test_prepares_in_a_core_with_outer_nodes(self) -> None:
        """FL6: likewise with ten nodes around."""
        prepares = [prepare(validator(by), 2, a_value()) for by in range(20)]
        self.assert_floods(core_and_outer(4, 10), prepares, most_copies=9)


class RepetitionTests(TrafficTestCase):
    """What was said once is never said again."""

    def test_repeated_and_echoed(self) -> None:
        """Y11: only the first copy goes out; a second sender is known to know, too."""
        node = self.add()
        a, b, c, d = self.calls(4, Neighbour)
        message = externalized(1)
        a.flood(message)
        a.flood(message, message)
        self.network.advance(1)
        self.assert_told([a], SCP)
        self.assert_told([b, c, d], SCP, message.body)
        for peer in (b, c, d, a):  # each says it back
            peer.flood(message)
        self.network.advance(1)
        self.assert_told([a], SCP)
        self.assert_told([b, c, d], SCP, message.body)
        self.assertEqual(node.broadcast(message), 0)
        self.assertEqual(
            self.figures(node, "flood_unique_recv", "flood_duplicate_recv", "flood_known_count"),
            [1, 6, 1],
        )

    def test_who_is_known_to_know(self) -> None:
        """Y11: the application tells nobody who has said it, first or later."""
        node = self.add(mode="observe")
        a, b, c = self.calls(3, Neighbour)
        message = externalized(1)
        a.flood(message)
        b.flood(message)
        self.network.advance(1)
        self.assertEqual(node.broadcast(message), 1)
        self.network.advance(1)
        self.assert_told([a, b], SCP)
        self.assert_told([c], SCP, message.body)

    def test_two_senders_in_one_turn(self) -> None:
        """Y11: who has said it before it is passed on is not told."""
        self.begin(latency=LATENCY)
        self.add()
        a, b, c = self.calls(3, Neighbour)
        message = externalized(1)
        a.flood(message)
        b.flood(message)
        self.network.advance(1)
        self.assertLessEqual(len(b.bodies(SCP)), 1)  # our copy may have crossed theirs
        self.assert_told([a], SCP)
        self.assert_told([c], SCP, message.body)

    def test_a_peer_that_comes_back(self) -> None:
        """Who reconnects with the same key is not told again; somebody new is."""
        node = self.add()
        host = self.host("peer", Neighbour)
        before = self.dial(host, Neighbour)
        messages = externalized(1), payment(1)
        hashes = [tx_full_hash(messages[1].body)]
        self.assertEqual([node.broadcast(message) for message in messages], [1, 1])
        self.network.advance(1)
        self.assert_told([before], SCP, messages[0].body)
        self.assertEqual(before.hashes(ADVERT), hashes)
        before.hang_up()
        self.network.advance(1)
        stranger = self.call("stranger", Neighbour)
        self.assertEqual([node.broadcast(message) for message in messages], [1, 1])
        after = self.dial(host, Neighbour)
        self.assertEqual([node.broadcast(message) for message in messages], [0, 0])
        self.network.advance(1)
        self.assertEqual((after.bodies(SCP), after.hashes(ADVERT)), ([], []))
        self.assert_told([stranger], SCP, messages[0].body)
        self.assertEqual(stranger.hashes(ADVERT), hashes)

    def test_an_echo_reaches_the_application(self) -> None:
        """Y33: what we said ourselves, and duplicates, are shown to those who want them."""
        node = self.add()
        peer, other = self.calls(2, Neighbour)
        everything = Heard(node, SCP)
        news: list[OverlayMessage] = []
        node.observe(news.append, SCP, duplicates=False)
        own, theirs = externalized(1), externalized(1, by=1)
        node.broadcast(own)
        peer.flood(own, theirs)
        other.flood(theirs)
        self.network.advance(1)
        self.assertEqual(
            [(one.from_peer, one.body, one.is_first) for one in everything.messages],
            [
                (peer.peer_id, own.body, False),
                (peer.peer_id, theirs.body, True),
                (other.peer_id, theirs.body, False),
            ],
        )
        self.assertEqual([one.body for one in news], [theirs.body])

    def test_adverts_and_demands_are_not_remembered(self) -> None:
        """Y7: they take credit and are handed on, each of them, however often it comes."""
        node = self.add()
        peer = self.call("peer", Neighbour)
        heard = Heard(node, ADVERT, DEMAND)
        advert = Message(encode_hashes(ADVERT, [a_hash("unknown")]))
        demand = Message(encode_hashes(DEMAND, [a_hash("unknown")]))
        peer.flood(*45 * [advert], *45 * [demand])
        self.network.advance(1)
        self.assertEqual([one.is_first for one in heard.messages], 90 * [True])
        self.assertEqual(
            self.figures(node, "flood_known_count", "flood_unique_recv", "flood_duplicate_recv"),
            [0, 2, 88],
        )
        self.assertEqual(peer.granted, 200 + 2 * 40)


class ModeTests(TrafficTestCase):
    """DECISIONS 19: who observes relays nothing, and speaks for itself."""

    def test_observing(self) -> None:
        """Nothing that is heard leaves; a relaying node in the same place passes it on."""
        for mode, is_relaying in (("observe", False), ("relay", True)):
            node = self.add(mode=mode)
            sender = self.call("sender", Neighbour)
            other = self.call("other", Reader)
            heard = Heard(node, SCP, TX)
            envelope, pulled = externalized(1), payment(1)
            nomination = nominate(validator(2), 1, [a_value()])
            sender.flood(envelope, nomination)
            sender.offer(pulled)
            self.network.advance(2)
            bodies = sorted([envelope.body, nomination.body])
            self.assertEqual(sorted(heard.first()), sorted([*bodies, pulled.body]))
            self.assert_told([other], SCP, *(bodies if is_relaying else []))
            self.assert_told([other], TX, *([pulled.body] if is_relaying else []))
            self.again()

    def test_own_messages(self) -> None:
        """What the application broadcasts leaves in both modes, and is served."""
        for mode in ("observe", "relay"):
            node = self.add(mode=mode)
            readers = self.calls(3, Reader)
            envelope, own = externalized(1), payment(1)
            self.assertEqual([node.broadcast(one) for one in (envelope, own)], [3, 3])
            self.network.advance(2)
            self.assert_told(readers, SCP, envelope.body)
            self.assert_told(readers, TX, own.body)
            self.again()


class TransactionTests(TrafficTestCase):
    """FL3 and FL7: who is told of a transaction, and when again."""

    def test_who_is_told(self) -> None:
        """FL7: five peers that were dialled; the third had the first one itself."""
        node = self.add()
        hosts = [self.host(f"stub {n}", Neighbour, is_listening=True) for n in range(5)]
        for host in hosts:
            self.network.result_of(node.connect(host.address))
        peers = [peer for host in hosts for peer in host.answered if isinstance(peer, Neighbour)]
        first, second = payment(1), payment(2)

        def told() -> list[int]:
            self.network.advance(1)
            return [len(peer.hashes(ADVERT)) for peer in peers]

        peers[2].flood(first)
        self.assertEqual(told(), [1, 1, 0, 1, 1])
        node.broadcast(first)
        self.assertEqual(told(), [1, 1, 0, 1, 1])
        node.broadcast(second)
        self.assertEqual(told(), [2, 2, 1, 2, 2])

    def test_told_again_when_forgotten(self) -> None:
        """FL3: at once nobody is; after the memory of floods is over, everybody once more."""
        nodes = self.build([(0, 1)], flood_ttl_secs=60)
        counts = []
        own = [payment(1), payment(2)]
        for seconds in (0, 2, 70, 2):
            self.network.advance(seconds)
            for node, message in zip(nodes, own, strict=True):
                node.broadcast(message)
            self.network.advance(1)
            counts.append([self.figures(node, "flood_advertised")[0] for node in nodes])
        self.assertEqual(counts, [[1, 1], [1, 1], [2, 2], [2, 2]])

    def test_told_again_when_consensus_has_moved_on(self) -> None:
        """FL3: twelve ledgers keep it as well, however long they take."""
        node = self.add(flood_ttl_secs=10)
        peer = self.call("peer", Neighbour)
        own = payment(1)
        peer.flood(externalized(1))
        self.network.advance(6)  # the ledger of what comes is known now
        node.broadcast(own)
        told = []
        for slot in range(2, 15):
            self.network.advance(5)
            node.broadcast(own)
            told.append(len(peer.bodies(ADVERT)))
            peer.flood(externalized(slot))
        self.network.advance(11)
        node.broadcast(own)
        self.network.advance(1)
        self.assertEqual((told, len(peer.bodies(ADVERT))), (13 * [1], 2))


class RateLimitTests(TrafficTestCase):
    """DECISIONS 14: what is more than an operator wants in a second."""

    def test_too_many_transactions(self) -> None:
        """They are dropped and counted, their credit returns; SCP messages are never dropped."""
        node = self.add(flood_rate_limit_per_sec=10)
        sender = self.call("sender", Neighbour)
        reader = self.call("reader", Reader)
        many = payments(100)
        statements = [externalized(1, by=by) for by in range(100)]
        sender.flood(*many, *statements)
        self.network.advance(0.9)
        self.assertEqual((sender.backlog, sender.granted), (0, 200 + 200))
        self.assertEqual(len(reader.hashes(ADVERT)), 10)
        self.assert_told([reader], SCP, *(message.body for message in statements))
        self.assertEqual(self.figures(node, "flood_rate_limited"), [90])
        self.network.advance(1)
        sender.flood(many[99])  # it is not remembered
        self.network.advance(1)
        self.assertIn(many[99].body, reader.bodies(TX))
        self.assert_linked(sender)


class UnknownKindTests(TrafficTestCase):
    """What is broadcast by hand."""

    def test_what_is_not_flooded(self) -> None:
        """An answer is for one peer, and is refused here."""
        node = self.add()
        with self.assertRaises(ValueError):
            node.broadcast(Message(MessageType.DONT_HAVE.to_bytes(4, "big") + bytes(36)))
