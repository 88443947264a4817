"""``stellar-overlay watch``: what a node that looks on sees of a network."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.tools.contact import config_of
from stellar_overlay.tools.sightings import Event
from stellar_overlay.tools.watch import Watch
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set, quorum_set_hash
from stellar_overlay.wire.scp import externalize, nominate, stellar_value
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set_hash
from tests.herder.kit import forged, payment
from tests.herder.kit import transaction as transaction_of
from tests.tools.onlookers import OnlookerTestCase

PAYMENT = transaction_of(payment())


class WatchTests(OnlookerTestCase):
    """A watch of a private network: two nodes that know each other, or fewer."""

    passphrase = "private"

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Event] = []

    def watch(
        self, *names: str, scp: bool = True, tx: bool = True, seconds: float | None = None
    ) -> Watch:
        """Begin to watch these nodes."""
        watch = Watch(
            config_of(self.me, allow_private=True),
            self.me,
            self.network.clock,
            self.events.append,
            wants_scp=scp,
            wants_tx=tx,
            **self.ports,
        )
        self.with_contact = self.contact(watch.overlay, *names)
        self.running = Deferred.fromCoroutine(watch.run(self.with_contact, seconds))
        self.network.advance(3)
        return watch

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of a kind so far."""
        return [event for event in self.events if event["kind"] == kind]

    def node(self, name: str) -> OverlayManager:
        """Return a new node."""
        return self.network.add_node(name)

    def test_what_is_flooded(self) -> None:
        """Statements and transactions, with who signed, who sent, and how long it took."""
        node = self.node("a")
        self.watch("a")
        node.broadcast(externalize(node.local_node, 7, b"value"))
        node.broadcast(PAYMENT)
        self.network.advance(2)
        (statement,), (transaction,) = self.of_kind("scp"), self.of_kind("tx")
        name = node.local_node.peer_id.strkey
        self.assertEqual((statement["signer"], statement["peer"]), (name, name))
        self.assertEqual((transaction["peer"], transaction["advertised_by"]), (name, name))
        self.assertGreaterEqual(transaction["pull_ms"], 2000 * 0.01)
        self.assertLess(transaction["pull_ms"], 1000)

    def test_who_is_first(self) -> None:
        """What both of two nodes send is shown twice, but the first time only one was first."""
        first, second = self.node("a"), self.node("b")
        watch = self.watch("a", "b")
        message = nominate(first.local_node, 7, [b"value"])
        first.broadcast(message)
        self.network.advance(0.5)
        second.broadcast(message)
        self.network.advance(0.5)
        names = [node.local_node.peer_id.strkey for node in (first, second)]
        events = self.of_kind("scp")
        self.assertEqual([event["peer"] for event in events], names)
        self.assertEqual([event["first"] for event in events], [True, False])
        self.assertAlmostEqual(events[1]["behind_ms"], 500, delta=50)
        peers = watch.summary()["peers"]
        self.assertEqual(
            [(one["peer"], one["first"], one["messages"]) for one in peers],
            [(names[0], 1, 1), (names[1], 0, 1)],
        )

    def test_forged(self) -> None:
        """A statement that nobody signed is not shown, only counted."""
        liar = self.network.add_peer("liar")
        watch = self.watch("liar")
        (peer,) = liar.answered
        peer.send(forged(externalize(liar.local_node, 7, b"value")))
        peer.send(externalize(liar.local_node, 8, b"value"))
        self.network.advance(1)
        self.assertEqual([event["slot"] for event in self.of_kind("scp")], [8])
        self.assertEqual(watch.summary()["forged"], 1)

    def test_slots(self) -> None:
        """Slots as consensus reaches them, with who says so; here a majority of one."""
        node = self.node("a")
        watch = self.watch("a")
        for slot in (7, 8):
            node.broadcast(externalize(node.local_node, slot, b"value"))
            self.network.advance(5)
        found = [(event["slot"], event["validators"]) for event in self.of_kind("slot")]
        self.assertEqual(found, [(7, 1), (8, 1)])
        first, second = self.of_kind("slot")
        self.assertIsNone(first["seconds"])
        self.assertAlmostEqual(second["seconds"], 5, delta=0.5)
        self.assertEqual(watch.summary()["last_slot"], 8)

    def test_items(self) -> None:
        """What statements name is fetched, and shown when it comes."""
        node = self.node("a")
        self.watch("a")
        tx_set = generalized_tx_set(bytes(32), [PAYMENT.body[4:]])
        quorum = encode_quorum_set(FlatQuorumSet(1, (node.local_node.peer_id.key,)))
        node.publish(tx_set)
        node.publish(quorum)
        value = stellar_value(tx_set_hash(tx_set.body), 1)
        named = quorum_set_hash(quorum.body)
        node.broadcast(externalize(node.local_node, 7, value, quorum_set_hash=named))
        self.network.advance(5)
        (shown_set,), (shown_quorum,) = self.of_kind("txset"), self.of_kind("qset")
        self.assertEqual(shown_set["hash"], tx_set_hash(tx_set.body).hex())
        self.assertEqual((shown_quorum["hash"], shown_quorum["validators"]), (named.hex(), 1))

    def test_only_one_of_both(self) -> None:
        """Who wants statements sees no transactions, and the other way round; peers always."""
        node = self.node("a")
        for wanted, other in (("scp", "tx"), ("tx", "scp")):
            self.events.clear()
            watch = self.watch("a", **{other: False})
            node.broadcast(externalize(node.local_node, 7 if wanted == "scp" else 8, b"value"))
            node.broadcast(transaction_of(payment(sequence=len(wanted))))
            self.network.advance(2)
            kinds = {event["kind"] for event in self.events} - {"slot"}
            self.assertEqual(kinds, {"peer.connecting", "peer.authenticated", wanted})
            watch.end()
            self.network.advance(1)

    def test_relays_nothing(self) -> None:
        """It looks on: nothing of what it hears goes out again."""
        node = self.node("a")
        other = self.network.add_peer("other")
        self.watch("a", "other")
        node.broadcast(externalize(node.local_node, 7, b"value"))
        node.broadcast(PAYMENT)
        self.network.advance(2)
        (peer,) = other.answered
        for kind in (MessageType.SCP_MESSAGE, MessageType.FLOOD_ADVERT, MessageType.TRANSACTION):
            self.assertEqual(peer.of_type(kind), [])

    def test_seconds(self) -> None:
        """It ends by itself when it should, and says goodbye."""
        node = self.node("a")
        reasons: list[str | None] = []
        node.on_peer_event(lambda event: reasons.append(event.reason))
        watch = self.watch("a", seconds=10)
        self.network.advance(5)
        self.assertNoResult(self.running)
        self.network.advance(5)
        self.assertIsNone(self.successResultOf(self.running))
        self.assertIn("ERR_MISC (shutdown)", reasons)
        self.assertEqual(self.of_kind("peer.dropped"), [])
        self.assertAlmostEqual(watch.summary()["seconds"], 10, delta=0.2)

    def test_stopped(self) -> None:
        """It can be stopped in whatever state, more than once, and leaves no timer behind."""
        self.network.add_peer("a")
        watch = self.watch("a", seconds=1000)
        stopped = [watch.stop(), watch.stop()]
        self.network.advance(5)
        for each in (*stopped, self.running):
            self.successResultOf(each)
        calls = [call for call in self.network.clock.getDelayedCalls() if call.active()]
        self.assertEqual(calls, [])

    def test_stopped_early(self) -> None:
        """The same while it is still looking for peers."""
        self.network.memory.black_holes.add(self.network.add_peer("a").address.host)
        watch = self.watch("a")
        stopped = watch.stop()
        self.network.advance(30)
        for each in (stopped, self.running):
            self.successResultOf(each)

    def test_nobody(self) -> None:
        """Where nobody can be reached there is nothing to watch: it ends, and says why."""
        self.network.add_peer("a", is_listening=False)
        self.watch("a", seconds=1000)
        self.assertIsNone(self.successResultOf(self.running))
        self.assertFalse(self.with_contact.has_met_anyone)
        (failure,) = self.with_contact.failures.values()
        self.assertIn("the connection was refused", failure.reason)

    def test_peer_comes_back(self) -> None:
        """A peer that is lost is dialled again, and both are events."""
        self.node("a")
        self.watch("a")
        self.network.stop("a")
        self.network.restart("a")
        self.network.advance(20)
        self.assertEqual(len(self.of_kind("peer.authenticated")), 2)
        (dropped,) = self.of_kind("peer.dropped")
        self.assertEqual((dropped["by"], dropped["reason"]), ("them", "ERR_MISC (shutdown)"))
