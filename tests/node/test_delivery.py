"""The one way from a verified message to those who want it, and of its credit back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import EnvelopeStatus, Herder, Overlay, TxStatus
from stellar_overlay.metrics import OverlayMetrics, TimerSnapshot
from stellar_overlay.node.delivery import Delivery
from stellar_overlay.node.flooding import observer_herder
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import ReceivedCounts
from stellar_overlay.node.subscriptions import OverlayMessage, Subscriptions
from stellar_overlay.session.flow_control import Item
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.codec import frame
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_hashes,
    encode_dont_have,
    encode_get_scp_state,
    encode_hashes,
)
from stellar_overlay.wire.scp import nominate
from stellar_overlay.wire.transaction import tx_full_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set, tx_set_hash
from tests.builders import (
    WALL_NOW,
    advert,
    demand,
    get_tx_set,
    make_node,
    quorum_set,
    scp_nominate,
    transaction,
)
from tests.gossip import surveys
from tests.herder import kit
from tests.herder.kit import ManualVerifier, forged
from tests.node.listening import ADVERT, TINY, granted
from tests.node.world import MiddlingRandom, WorldTestCase

SCP = scp_nominate()
TX = transaction()
SCP_KIND = MessageType.SCP_MESSAGE
TX_KIND = MessageType.TRANSACTION
Verdicts = dict[MessageType, EnvelopeStatus | TxStatus]
BAD: Verdicts = {SCP_KIND: EnvelopeStatus.DISCARDED, TX_KIND: TxStatus.ERROR}
GOOD: Verdicts = {SCP_KIND: EnvelopeStatus.READY, TX_KIND: TxStatus.PENDING}


class JudgingHerder(IgnoringHerder):
    """Says what it is told to say, at once or later, and relays what is good if it shall.

    :ivar verdicts: what it says at once of each type; without one it says nothing for now.
    :ivar waiting: whom it owes a verdict.
    :ivar heard: all it was asked about.
    :ivar failing: what it raises on.
    :ivar lowest_slot: the oldest slot that is worth sending.
    """

    def __init__(self) -> None:
        self.verdicts: dict[MessageType, Any] = {}
        self.waiting: list[Callable[[Any], None]] = []
        self.heard: list[bytes] = []
        self.failing: bytes | None = None
        self.lowest_slot = 1
        self.is_relaying = False
        self.overlay: Overlay | None = None

    def start(self, overlay: Overlay) -> None:
        self.overlay = overlay

    def recv_scp_envelope(
        self, body: bytes, from_peer: PeerId, done: Callable[[EnvelopeStatus], None]
    ) -> None:
        self._judge(Message(body), done)

    def recv_transaction(
        self, body: bytes, tx_hash: bytes, from_peer: PeerId, done: Callable[[TxStatus], None]
    ) -> None:
        self._judge(Message(body), done)

    def min_slot_to_remember(self) -> int:
        return self.lowest_slot

    def _judge(self, message: Message, done: Callable[[Any], None]) -> None:
        self.heard.append(message.body)
        if message.body == self.failing:
            raise ZeroDivisionError
        if self.is_relaying and self.overlay is not None:
            self.overlay.broadcast(message)
        if message.type in self.verdicts:
            done(self.verdicts[message.type])
        else:
            self.waiting.append(done)


class DeliveryTestCase(WorldTestCase):
    """A node with little credit to give, whose brain says what it shall, and two peers."""

    def setUp(self) -> None:
        super().setUp()
        self.herder = JudgingHerder()
        self.open(self.herder)

    def open(self, herder: Herder, **settings: Any) -> None:
        """Start a node that the tests are about."""
        self.node: OverlayManager = self.world.node(herder=herder, **TINY, **settings)
        self.peer = self.world.call(number=9)
        self.other = self.world.call(number=8)

    def say(self, *messages: Message, peer: ScriptedPeer | None = None) -> None:
        """Let a peer send these, which are read in one go."""
        peer = peer or self.peer
        peer.send_bytes(b"".join(frame(peer.auth.wrap_message(each)) for each in messages))
        self.world.settle()

    def grants(self) -> tuple[int, int]:
        """Return how many flood messages each peer was granted since its first grant."""
        return granted(self.peer), granted(self.other)

    def release(self, status: EnvelopeStatus | TxStatus) -> None:
        """Let the herder say what it thinks of the oldest message."""
        self.herder.waiting.pop(0)(status)
        self.world.settle()

    def known(self, message: Message) -> bool:
        """Tell whether a message is remembered."""
        return self.node._flooding.relay.gate.has_seen(message)


class DuplicateTests(DeliveryTestCase):
    """What was heard before costs a look into one dict."""

    def setUp(self) -> None:
        super().setUp()
        self.herder.verdicts = dict(GOOD)

    def test_the_herder_is_asked_once(self) -> None:
        """Whoever sends it how often."""
        self.say(SCP, SCP)
        self.say(TX)
        self.say(SCP, TX, peer=self.other)
        self.assertEqual(self.herder.heard, [SCP.body, TX.body])

    def test_each_is_credited(self) -> None:
        """SEND_MORE_EXTENDED counts the duplicates, those within one read as well."""
        self.say(SCP, SCP)
        self.assertEqual(self.grants(), (2, 0))
        self.say(SCP, TX, peer=self.other)
        self.say(SCP, TX, peer=self.other)
        self.assertEqual(self.grants(), (2, 4))

    def test_what_is_counted(self) -> None:
        """New and again, messages and bytes, by peer and in all; adverts as well."""
        self.say(SCP, SCP)
        self.say(TX, advert())
        self.say(SCP, TX, peer=self.other)
        infos = {info.peer_id: info for info in self.node.peer_infos()}
        new_bytes = SCP.size + TX.size + advert().size
        expected = (
            (9, (3, new_bytes, 1, SCP.size)),
            (8, (0, 0, 2, SCP.size + TX.size)),
        )
        for number, figures in expected:
            info = infos[make_node(number).peer_id]
            counted = (
                info.unique_flood_messages_recv,
                info.unique_flood_bytes_recv,
                info.duplicate_flood_messages_recv,
                info.duplicate_flood_bytes_recv,
            )
            self.assertEqual(counted, figures)
        figures_of_all = self.node.metrics.snapshot()
        self.assertEqual(figures_of_all["flood_unique_recv"], 3)
        self.assertEqual(figures_of_all["flood_unique_bytes_recv"], new_bytes)
        self.assertEqual(figures_of_all["flood_duplicate_recv"], 3)
        self.assertEqual(figures_of_all["flood_duplicate_bytes_recv"], 2 * SCP.size + TX.size)
        self.assertEqual(figures_of_all["flood_known_count"], 2)

    def test_transactions_that_were_demanded(self) -> None:
        """A copy of whoever was asked is an answer, too, though an irrelevant one."""
        body_hash = [tx_full_hash(TX.body)]
        for peer in (self.peer, self.other):
            peer.send(Message(encode_hashes(ADVERT, body_hash)))
        self.world.advance(2, step=0.1)
        for peer in (self.peer, self.other):
            self.assertEqual(len(peer.of_type(MessageType.FLOOD_DEMAND)), 1)
            self.say(TX, peer=peer)
        metrics = self.node.metrics
        self.assertEqual(metrics.tx_pull_latency.snapshot().count, 1)
        self.assertEqual(metrics.peer_tx_pull_latency.snapshot().count, 2)
        relevant, irrelevant = metrics.pulled_relevant_txs, metrics.pulled_irrelevant_txs
        self.assertEqual((relevant.get(), irrelevant.get()), (1, 1))

    def test_structure_is_not_looked_at_again(self) -> None:
        """What is remembered is dropped before it is walked; what is not is refused."""
        broken = Message(SCP.body + bytes(4))
        self.node._flooding.relay.gate.add_record(broken.body, 0, 0.0)
        self.say(broken)
        self.assertFalse(self.peer.is_closed)
        self.assertEqual((self.herder.heard, self.grants()), ([], (1, 0)))
        self.node._flooding.relay.gate.forget(broken)
        self.say(broken)
        self.assertEqual(self.peer.error, (1, b"received corrupt XDR"))

    def test_signatures_are_not_looked_at_again(self) -> None:
        """While one is being verified, and afterwards."""
        self.world.result(self.node.stop())
        verifier = ManualVerifier(is_prompt=False)
        local_node = make_node(2)
        herder = observer_herder(self.node.config, local_node, verifier, self.world.clock)
        self.node = self.world.node(2, herder=herder)
        peers = [self.world.call(2, number=number) for number in (10, 11, 12)]
        message = nominate(make_node(5), 3, [b"v"])
        for peer in peers:
            self.say(message, peer=peer)
        self.assertEqual(verifier.checked, 1)
        verifier.release()
        for peer in peers:
            self.say(message, peer=peer)
        self.assertEqual(verifier.checked, 1)
        bad = forged(nominate(make_node(5), 4, [b"v"]))
        self.say(bad, peer=peers[0])
        verifier.release()
        self.assertEqual(self.node.metrics.scp_discarded.get(), 1)
        self.assertFalse(any(peer.is_closed for peer in peers))

    def test_observers(self) -> None:
        """They reach whoever wants them, marked as such, and nobody else."""
        every: list[tuple[bool, bytes]] = []
        once: list[tuple[bool, bytes]] = []
        self.node.observe(lambda message: every.append((message.is_first, message.body)))
        self.node.observe(
            lambda message: once.append((message.is_first, message.body)), duplicates=False
        )
        self.say(SCP, SCP)
        self.say(SCP, TX, peer=self.other)
        self.say(TX)
        firsts = [(True, SCP.body), (True, TX.body)]
        self.assertEqual(once, firsts)
        again = (False, SCP.body)
        self.assertEqual(every, [firsts[0], again, again, firsts[1], (False, TX.body)])

    def test_a_held_duplicate(self) -> None:
        """Holds its own sender's credit, and no other's."""
        waiting: list[Deferred[None]] = []

        def hold(message: OverlayMessage) -> Deferred[None] | None:
            if message.is_first:
                return None
            waiting.append(Deferred())
            return waiting[-1]

        self.node.observe(hold, SCP_KIND)
        self.say(SCP)
        self.say(SCP, peer=self.other)
        self.assertEqual(self.grants(), (1, 0))
        waiting[0].callback(None)
        self.world.settle()
        self.assertEqual(self.grants(), (1, 1))

    def test_adverts_demands_and_questions_are_never_duplicates(self) -> None:
        """Y7: each is looked at, however often it was heard."""
        seen: list[bool] = []
        self.node.observe(lambda message: seen.append(message.is_first), ADVERT)
        self.say(advert(), advert())
        self.say(demand(), get_tx_set(), get_tx_set())
        self.assertEqual(seen, [True, True])
        self.assertEqual(len(self.peer.of_type(MessageType.DONT_HAVE)), 2)
        self.assertEqual(self.node.metrics.flood_unfulfilled_unknown.get(), 1)
        self.assertEqual(self.node._flooding.relay.gate.records, {})


class CountTests(DeliveryTestCase):
    """What is unique and what is a duplicate: messages.md 6.4, across all peers."""

    def setUp(self) -> None:
        super().setUp()
        self.herder.verdicts = dict(GOOD)

    def counts(self, number: int, what: str) -> tuple[int, int, int, int]:
        """Return what a peer sent, flooded or fetched: unique and duplicate, with their bytes."""
        peer = self.node._links.peers[make_node(number).peer_id]
        counts = peer.flood if what == "flood" else peer.fetched
        return counts.unique, counts.unique_bytes, counts.duplicate, counts.duplicate_bytes

    def figures(self, what: str) -> tuple[int | TimerSnapshot, ...]:
        """Return what the node counted of all, likewise."""
        figures = self.node.metrics.snapshot()
        return tuple(
            figures[f"{what}_{name}_recv"]
            for name in ("unique", "unique_bytes", "duplicate", "duplicate_bytes")
        )

    def assert_counted(self, message: Message, what: str) -> None:
        """Check that a message counts as new once, and then as a duplicate of whoever sends it."""
        before, size = self.figures(what), message.size
        of_peer, of_other = self.counts(9, what), self.counts(8, what)
        self.say(message)
        self.say(message)
        self.say(message, peer=self.other)
        for counted, then, gained in (
            (self.counts(9, what), of_peer, (1, size, 1, size)),
            (self.counts(8, what), of_other, (0, 0, 1, size)),
            (self.figures(what), before, (1, size, 2, 2 * size)),
        ):
            self.assertEqual(counted, tuple(map(sum, zip(then, gained, strict=True))))

    def test_flooded(self) -> None:
        """SCP messages, transactions, adverts, demands, and surveys though nobody may survey us."""
        survey = surveys.request(make_node(5))
        for message in (
            SCP,
            TX,
            advert(),
            demand(),
            Message(surveys.collecting(surveys.START)),
            Message(surveys.collecting(surveys.STOP)),
            Message(survey),
            Message(surveys.response(survey, by=make_node(5))),
        ):
            self.assert_counted(message, "flood")
        self.assertEqual(self.figures("fetch"), (0, 0, 0, 0))

    def test_fetched(self) -> None:
        """Transaction sets of both kinds and quorum sets, though nobody has asked for them."""
        for message in (
            tx_set(bytes(32), []),
            generalized_tx_set(bytes(32), [TX.body[4:]]),
            quorum_set(),
        ):
            self.assert_counted(message, "fetch")
        self.assertEqual(self.figures("flood"), (0, 0, 0, 0))

    def test_fetched_when_asked_for(self) -> None:
        """Counts the same: the first one is unique, the second peer's a duplicate."""
        item = generalized_tx_set(bytes(32), [TX.body[4:]])
        fetching = Deferred.fromCoroutine(self.node.fetch_tx_set(tx_set_hash(item.body)))
        self.world.settle()
        self.say(item)
        self.assertEqual(self.successResultOf(fetching), item)
        self.say(item, peer=self.other)
        self.assertEqual(self.figures("fetch"), (1, item.size, 1, item.size))

    def test_neither(self) -> None:
        """Questions, refusals and addresses."""
        for message in (
            get_tx_set(),
            Message(encode_dont_have(MessageType.TX_SET, bytes(32))),
            Message(encode_get_scp_state(0)),
        ):
            self.say(message, message)
        self.assertEqual((self.figures("flood"), self.figures("fetch")), 2 * ((0, 0, 0, 0),))

    def test_what_the_herder_refused(self) -> None:
        """It is judged anew when it comes again, but was heard before."""
        self.herder.verdicts = dict(BAD)
        for message in (SCP, TX):
            self.assert_counted(message, "flood")
            self.assertFalse(self.known(message))
        self.assertEqual(len(self.herder.heard), 6)

    def test_a_held_message_that_is_refused(self) -> None:
        """While its verdict is awaited, and after that."""
        self.herder.verdicts.clear()
        self.say(SCP)
        self.say(SCP, peer=self.other)
        self.release(EnvelopeStatus.DISCARDED)
        self.say(SCP, peer=self.other)
        self.assertEqual(self.figures("flood"), (1, SCP.size, 2, 2 * SCP.size))

    def test_our_own(self) -> None:
        """What we said ourselves and hear again is nothing new."""
        self.node.broadcast(SCP)
        self.say(SCP)
        self.assertEqual(self.figures("flood"), (0, 0, 1, SCP.size))

    def test_one_by_one_and_in_one_go(self) -> None:
        """A batch counts as its messages do."""
        item = quorum_set()
        self.say(SCP, item)
        self.say(SCP, item)
        self.say(advert())
        self.assertEqual(
            (self.figures("flood"), self.figures("fetch")),
            ((2, SCP.size + advert().size, 1, SCP.size), (1, item.size, 1, item.size)),
        )


class VerdictTests(DeliveryTestCase):
    """Credit is returned when the verdict is there; what is bad is forgotten."""

    def test_credit_is_held_until_then(self) -> None:
        """Of SCP messages and transactions, and of nobody else."""
        for message in (SCP, TX):
            before = self.grants()
            self.say(message)
            self.say(advert(), peer=self.other)
            self.assertEqual(self.grants(), (before[0], before[1] + 1))
            self.world.advance(20)
            self.assertEqual(self.grants(), (before[0], before[1] + 1))
            self.release(GOOD[message.type])
            self.assertEqual(self.grants(), (before[0] + 1, before[1] + 1))

    def test_what_comes_meanwhile(self) -> None:
        """Verdicts may come in any order; each returns the credit of its own message."""
        other = scp_nominate(2)
        self.say(SCP, other)
        self.herder.waiting.reverse()
        self.release(EnvelopeStatus.DISCARDED)
        self.assertEqual((self.known(SCP), self.known(other)), (True, False))
        self.assertEqual(self.grants(), (1, 0))
        self.release(EnvelopeStatus.READY)
        self.assertEqual(self.grants(), (2, 0))
        self.assertTrue(self.known(SCP))

    def test_what_is_bad_is_forgotten(self) -> None:
        """It comes again, from the same peer or another one, and is judged again."""
        self.herder.verdicts = dict(BAD)
        for message in (SCP, TX):
            self.say(message)
            self.say(message, message, peer=self.other)
            self.assertEqual(self.herder.heard.count(message.body), 3)
            self.assertFalse(self.known(message))
        self.assertEqual(self.grants(), (2, 4))
        self.assertEqual(self.node.metrics.scp_discarded.get(), 3)
        self.assertEqual(self.node.metrics.pulled_irrelevant_txs.get(), 3)

    def test_copies_of_what_turns_out_to_be_bad(self) -> None:
        """While the verdict is awaited they are duplicates, and credited at once."""
        self.say(SCP)
        self.say(SCP, SCP, peer=self.other)
        self.assertEqual(self.grants(), (0, 2))
        self.release(EnvelopeStatus.DISCARDED)
        self.assertEqual((len(self.herder.heard), self.grants()), (1, (1, 2)))

    def test_several_holders(self) -> None:
        """Observers and the verdict: the last one returns it, once."""
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            waiting: list[Deferred[None]] = [Deferred(), Deferred()]
            observers = [
                self.node.observe(lambda message, held=held: held, TX_KIND)  # type: ignore[misc]
                for held in waiting
            ]
            before = granted(self.peer)
            self.say(transaction(number=order[0]))
            releases: list[Callable[[], object]] = [
                lambda waiting=waiting: waiting[0].callback(None),  # type: ignore[misc]
                lambda waiting=waiting: waiting[1].callback(None),  # type: ignore[misc]
                lambda: self.herder.waiting.pop(0)(TxStatus.PENDING),
            ]
            for number, which in enumerate(order):
                self.assertEqual(granted(self.peer), before, (order, number))
                releases[which]()
                self.world.settle()
            self.assertEqual(granted(self.peer), before + 1, order)
            for observer in observers:
                observer.cancel()

    def test_a_herder_that_answers_twice(self) -> None:
        """Returns no more credit than was taken: the link stays within its grants."""
        self.say(SCP)
        (done,) = self.herder.waiting
        for _ in range(3):
            done(EnvelopeStatus.READY)
        self.world.settle()
        self.assertEqual(self.grants(), (1, 0))
        self.assertEqual(len(self.node.peer_infos()), 2)

    def test_reading_stops(self) -> None:
        """When all capacity is held, and goes on when a verdict is there."""
        messages = [scp_nominate(number) for number in (1, 2)]
        self.say(*messages, *(get_tx_set(number) for number in range(5)))
        self.assertEqual(len(self.herder.heard), 2)
        self.assertEqual(len(self.peer.of_type(MessageType.DONT_HAVE)), 5)
        self.release(EnvelopeStatus.READY)
        self.say(scp_nominate(3))
        self.assertEqual(len(self.herder.heard), 3)


class EndOfLinkTests(DeliveryTestCase):
    """Links that end while something of theirs is held, or because of it."""

    def test_a_link_that_dies_while_held(self) -> None:
        """A verdict that comes later concerns nobody, but what is bad is forgotten still."""
        self.say(SCP, TX)
        self.world.result(self.node.disconnect(make_node(9).peer_id))
        again = self.world.call(number=9)
        self.release(EnvelopeStatus.DISCARDED)
        self.release(TxStatus.PENDING)
        self.assertEqual((granted(self.peer), granted(again)), (0, 0))
        self.assertEqual((self.known(SCP), self.known(TX)), (False, True))

    def test_an_observer_that_holds_then(self) -> None:
        """Likewise."""
        waiting: Deferred[None] = Deferred()
        self.node.observe(lambda message: waiting, SCP_KIND)
        self.say(SCP)
        self.peer.transport.abortConnection()  # type: ignore[union-attr]
        self.world.settle()
        waiting.callback(None)
        self.release(EnvelopeStatus.READY)
        self.assertEqual(len(self.node.peer_infos()), 1)

    def test_an_observer_that_drops_the_peer(self) -> None:
        """What it dropped it for goes no further, and what came after is not looked at."""
        seen: list[bytes] = []

        def drop(message: OverlayMessage) -> None:
            seen.append(message.body)
            self.node.peer(message.from_peer).drop(DropReason.DROPPED_BY_USER.violation())

        observer = self.node.observe(drop, SCP_KIND, MessageType.GET_TX_SET)
        self.say(SCP, TX)
        self.assertEqual(self.peer.error, (0, b"dropped by user"))
        self.assertEqual((seen, self.herder.heard), ([SCP.body], []))
        self.assertFalse(self.known(TX))
        self.say(get_tx_set(), TX, peer=self.other)
        self.assertEqual((len(seen), self.herder.heard), (2, []))
        self.assertEqual(self.other.of_type(MessageType.DONT_HAVE), [])
        observer.cancel()

    def test_what_it_was_dropped_for_comes_again(self) -> None:
        """From another peer: it was not judged yet, so it is new still."""
        self.herder.verdicts = dict(GOOD)

        def drop(message: OverlayMessage) -> None:
            self.node.peer(message.from_peer).drop(DropReason.DROPPED_BY_USER.violation())

        observer = self.node.observe(drop, SCP_KIND, TX_KIND)
        third = self.world.call(number=7)
        self.say(SCP)
        self.say(TX, peer=third)
        observer.cancel()
        self.assertEqual((self.herder.heard, self.known(SCP), self.known(TX)), ([], False, False))
        self.say(SCP, TX, peer=self.other)
        self.assertEqual(self.herder.heard, [SCP.body, TX.body])
        self.assertEqual(self.grants(), (0, 2))

    def test_an_overlay_that_fails_the_herder(self) -> None:
        """While a verified message is passed on: its sender has its credit back all the same."""
        self.world.result(self.node.stop())
        verifier = ManualVerifier(is_prompt=False)
        herder = observer_herder(self.node.config, make_node(2), verifier, self.world.clock)
        self.node = self.world.node(2, herder=herder, **TINY)
        peer = self.world.call(2, number=10)
        self.say(nominate(make_node(5), 3, [b"v"]), kit.transaction(kit.payment()), peer=peer)
        self.assertEqual(granted(peer), 0)

        def fail(message: Message) -> int:
            raise ZeroDivisionError

        self.patch(self.node._flooding.relay, "broadcast", fail)
        for expected in (1, 2):
            with self.assertRaises(ZeroDivisionError):
                verifier.release(1)
            self.world.settle()
            self.assertEqual(granted(peer), expected)

    def test_a_herder_that_raises(self) -> None:
        """Our fault ends that link alone; it is logged, and the node goes on."""
        reasons = self.reasons_of(self.node)
        self.herder.verdicts = dict(GOOD)
        for message in (SCP, TX):
            peer = self.world.call(number=20 + message.type)
            self.herder.failing = message.body
            self.say(message, advert(), peer=peer)
            self.assertTrue(peer.is_closed)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(reasons, [DropReason.INTERNAL.text] * 2)
        self.assertEqual(self.node.metrics.drops[DropReason.INTERNAL].get(), 2)
        self.say(scp_nominate(2), transaction(number=2))
        self.assertEqual(self.grants(), (2, 0))


class HoldingTests(DeliveryTestCase):
    """How many bytes are held beyond their batch: of each link, and of those that are gone."""

    def setUp(self) -> None:
        super().setUp()
        self.delivery = self.node._links._delivery
        self.held: list[Deferred[None]] = []
        self.observer = self.node.observe(self.hold, ADVERT)

    def hold(self, message: OverlayMessage) -> Deferred[None]:
        """Hold a message until somebody else lets go of it."""
        self.held.append(Deferred())
        return self.held[-1]

    def let_go(self, number: int = 0) -> None:
        """Let go of a message that is held."""
        self.held.pop(number).callback(None)
        self.world.settle()

    def hang_up(self) -> None:
        """Let the first peer go."""
        self.peer.transport.abortConnection()  # type: ignore[union-attr]
        self.world.settle()

    def assert_held(self, *sizes: int, orphaned: int = 0) -> None:
        """Check how much is held of each link, least first, and of those that are gone."""
        self.assertEqual(sorted(self.delivery.holding.values()), list(sizes))
        self.assertEqual(self.delivery.orphaned, orphaned)

    def test_what_is_done_within_its_batch(self) -> None:
        """Is held by nobody, whatever was looked at."""
        self.herder.verdicts = dict(GOOD)
        self.say(SCP, SCP, get_tx_set())
        self.assert_held()

    def test_dropped_by_one_and_held_by_another(self) -> None:
        """What is held of a link that ends in that very moment is its bytes no more."""
        slow = self.node.subscribe(ADVERT, MessageType.FLOOD_DEMAND)
        violation = DropReason.DROPPED_BY_USER.violation
        self.node.observe(
            lambda message: self.node.peer(message.from_peer).drop(violation()),
            MessageType.FLOOD_DEMAND,
        )
        demand = Message(encode_hashes(MessageType.FLOOD_DEMAND, [bytes(32)]))
        self.observer.cancel()
        self.say(advert(1, 3), demand)
        self.assert_held(orphaned=advert(1, 3).size + demand.size)
        slow.cancel()
        self.assert_held()

    def test_bytes_by_link(self) -> None:
        """Body by body, until who holds them lets go; then nothing is kept about the link."""
        short, long = advert(1), advert(2, 3)
        self.say(short, long)
        self.say(short, peer=self.other)
        self.assert_held(short.size, short.size + long.size)
        self.let_go(1)
        self.assert_held(short.size, short.size)
        self.let_go()
        self.let_go()
        self.assert_held()
        self.assertEqual(self.grants(), (2, 1))

    def test_a_message_with_several_holders_counts_once(self) -> None:
        """Two observers, or one and the herder: until the last lets go."""
        second = self.node.observe(self.hold, ADVERT, TX_KIND)
        self.say(advert())
        self.assert_held(advert().size)
        self.let_go()
        self.assert_held(advert().size)
        self.let_go()
        self.assert_held()
        self.say(TX)
        self.release(TxStatus.PENDING)
        self.assert_held(TX.size)
        self.let_go()
        self.assert_held()
        second.cancel()

    def test_what_the_herder_looks_at_is_held_too(self) -> None:
        """Until its verdict; a copy of it is not, unless somebody holds that."""
        self.say(SCP)
        self.say(SCP, peer=self.other)
        self.assert_held(SCP.size)
        again = self.node.observe(self.hold, SCP_KIND)
        self.say(SCP, peer=self.other)
        self.assert_held(SCP.size, SCP.size)
        self.release(EnvelopeStatus.READY)
        self.assert_held(SCP.size)
        again.cancel()
        self.assert_held()

    def test_a_link_that_is_gone(self) -> None:
        """What is held of it has no link any more; each is forgotten when it is let go of."""
        self.say(advert(1), advert(2, 3))
        self.say(advert(1), peer=self.other)
        self.hang_up()
        size = advert(1).size
        self.assert_held(size, orphaned=size + advert(2, 3).size)
        self.let_go()
        self.assert_held(size, orphaned=advert(2, 3).size)
        self.let_go()
        self.assert_held(size)
        self.let_go()
        self.assert_held()
        self.assertEqual(self.grants(), (0, 1))

    def test_a_link_of_which_nothing_is_held(self) -> None:
        """Leaves nothing behind, though it was held of before."""
        self.say(advert())
        self.let_go()
        self.hang_up()
        self.assert_held()

    def test_who_comes_back(self) -> None:
        """Is another link: what is held of the old one is not of the new one."""
        self.say(advert(1))
        self.hang_up()
        again = self.world.call(number=9)
        self.say(advert(1), advert(2), peer=again)
        size = advert(1).size
        self.assert_held(2 * size, orphaned=size)
        self.let_go()
        self.assert_held(2 * size)
        self.assertEqual(granted(again), 0)
        self.let_go()
        self.let_go()
        self.assert_held()
        self.assertEqual(granted(again), 2)

    def test_an_observer_that_is_cancelled(self) -> None:
        """Holds nothing any more, of whatever link."""
        self.say(advert(1), advert(2))
        self.say(advert(1), peer=self.other)
        self.hang_up()
        self.observer.cancel()
        self.assert_held()


class EchoTests(DeliveryTestCase):
    """A message goes once to each, never back, and never again."""

    def setUp(self) -> None:
        super().setUp()
        self.herder.verdicts = dict(GOOD)
        self.herder.is_relaying = True

    def received(self, peer: ScriptedPeer) -> list[Message]:
        """Return the SCP messages and adverts that a peer got, in time."""
        self.world.advance(1)
        kinds = (SCP_KIND, ADVERT)
        return [message for message in peer.received if message.type in kinds]

    def test_what_is_relayed(self) -> None:
        """Byte-identical to the others; the sender, and a second sender, get nothing."""
        third = self.world.call(number=7)
        self.say(SCP, TX)
        self.say(SCP, peer=self.other)
        for peer, expected in ((self.peer, 0), (third, 2)):
            self.assertEqual(len(self.received(peer)), expected)
        self.assertEqual(self.received(third)[0], SCP)
        (tx_hash,) = decode_hashes(self.received(third)[1].body)
        self.assertEqual(len(tx_hash), 32)

    def test_a_second_sender(self) -> None:
        """Y11: it is known to know, though nobody was asked about its copy."""
        self.herder.is_relaying = False
        self.say(SCP, TX)
        self.say(SCP, TX, peer=self.other)
        third = self.world.call(number=7)
        self.assertEqual((self.node.broadcast(SCP), self.node.broadcast(TX)), (1, 1))
        counts = [len(self.received(peer)) for peer in (self.peer, self.other, third)]
        self.assertEqual(counts, [0, 0, 2])

    def test_own_broadcast(self) -> None:
        """Y33: peers are told once; repeating it returns 0; an echo goes nowhere."""
        self.assertEqual(self.node.broadcast(SCP), 2)
        self.assertEqual(self.node.broadcast(TX), 2)
        self.assertEqual(self.node.broadcast(SCP), 0)
        self.assertEqual(self.node.broadcast(TX), 0)
        self.assertEqual(len(self.received(self.peer)), 2)
        seen: list[bool] = []
        self.node.observe(lambda message: seen.append(message.is_first), SCP_KIND, TX_KIND)
        self.say(SCP, TX)
        self.assertEqual((self.herder.heard, seen), ([], [False, False]))
        self.assertEqual(self.grants(), (2, 0))
        self.assertEqual(self.node.broadcast(SCP), 0)
        for peer in (self.peer, self.other):
            self.assertEqual(len(self.received(peer)), 2)

    def test_who_comes_back(self) -> None:
        """With the same key on a new link, it is not told again; another one is."""
        self.node.broadcast(SCP)
        self.world.result(self.node.disconnect(make_node(9).peer_id))
        again = self.world.call(number=9)
        stranger = self.world.call(number=7)
        self.assertEqual(self.node.broadcast(SCP), 1)
        self.assertEqual((self.received(again), self.received(stranger)), ([], [SCP]))

    def test_what_was_sent_to_one(self) -> None:
        """``send_to`` counts as told, if the message was known here."""
        self.node.broadcast(SCP)
        newcomer = self.world.call(number=7)
        self.node.send_to(make_node(7).peer_id, SCP)
        self.assertEqual(self.node.broadcast(SCP), 0)
        self.assertEqual(self.received(newcomer), [SCP])

    def test_what_is_not_sent_to_one(self) -> None:
        """Does not count as told: should it be worth sending later, it is."""
        self.herder.is_relaying = False
        self.say(SCP)
        self.herder.lowest_slot = 2
        self.assertFalse(self.node.send_to(make_node(8).peer_id, SCP))
        self.herder.lowest_slot = 1
        self.assertEqual(self.node.broadcast(SCP), 1)
        self.assertEqual(self.received(self.other), [SCP])

    def test_old_slots(self) -> None:
        """Whatever an application says of them leaves to nobody: the link's queue refuses it."""
        self.herder.lowest_slot = 50
        self.assertFalse(self.node.send_to(make_node(9).peer_id, scp_nominate(49)))
        self.node.broadcast(scp_nominate(48))
        self.node.broadcast(scp_nominate(50))
        for peer in (self.peer, self.other):
            self.assertEqual(self.received(peer), [scp_nominate(50)])
        self.assertEqual(self.node.metrics.queue_drop_scp.get(), 3)

    def test_the_rate_limit(self) -> None:
        """FLOOD_RATE_LIMIT_PER_SEC: what is too much is credited and counted, and goes nowhere."""
        self.world.result(self.node.stop())
        self.world.advance(5)
        self.open(self.herder, flood_rate_limit_per_sec=1)
        self.say(TX, transaction(number=1))
        self.say(advert(5), SCP)
        self.assertEqual(self.herder.heard, [TX.body, SCP.body])
        self.assertEqual(self.grants(), (4, 0))
        self.assertEqual(self.node.metrics.snapshot()["flood_rate_limited"], 2)
        self.world.advance(1)
        self.say(transaction(number=1))
        self.assertEqual(len(self.herder.heard), 3)


class FakeLink:
    """A link that counts how often the credit of each message is returned."""

    waiting = 0, 0

    def __init__(self) -> None:
        self.violation = None
        self.ended: list[Item] = []
        self.batches = 0

    def processed(self, items: Sequence[Item]) -> None:
        self.batches += 1
        self.ended += items

    def finished(self, item: Item) -> None:
        self.ended.append(item)


class FakePeer:
    """An authenticated peer of whom nothing is known but its bit."""

    def __init__(self, bit: int) -> None:
        self.peer_id = PeerId(bytes([bit]) * 32)
        self.flood_bit = bit
        self.flood = ReceivedCounts()
        self.fetched = ReceivedCounts()
        self.ahead = 0, 0

    def send(self, message: Message) -> bool:
        return True


POSSIBLE = [
    SCP,
    TX,
    scp_nominate(2),
    transaction(number=1),
    advert(),
    Message((24).to_bytes(4, "big") + bytes(112)),
]
BATCHES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(range(len(POSSIBLE))), max_size=6),
        st.lists(st.integers(0, 20), max_size=4),
    ),
    max_size=8,
)


class AnyOrderTests(SynchronousTestCase):
    """Batches of anything, with holders that let go whenever they like."""

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(BATCHES)
    def test_credit_is_returned_once(
        self, batches: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> None:
        """Of each message, when its last holder is done, whoever they are."""
        clock, metrics, herder = Clock(), OverlayMetrics(), JudgingHerder()
        chance = MiddlingRandom(1)
        dispatcher = MessageDispatcher(herder, clock=clock, random=chance)
        gate = FloodGate(rate_limit_per_second=0)
        relay = Relay(
            herder,
            gate,
            dispatcher,
            links={},
            clock=clock,
            random=chance,
            metrics=metrics,
        )
        subscriptions = Subscriptions(metrics)
        held: list[Deferred[None]] = []

        def hold(message: OverlayMessage) -> Deferred[None]:
            held.append(Deferred())
            return held[-1]

        subscriptions.observe(hold, TX_KIND, ADVERT, duplicates=True)
        subscriptions.observe(hold, SCP_KIND, duplicates=False)
        delivery = Delivery(relay, dispatcher.handlers, subscriptions, lambda: WALL_NOW, metrics)
        link: Any = FakeLink()
        peer: Any = FakePeer(1)
        count = 0
        for batch, letting_go in batches:
            items = [(int(POSSIBLE[which].type), POSSIBLE[which].body) for which in batch]
            delivery.dispatch(link, peer, items, clock.seconds())
            count += len(items)
            for number in letting_go:
                if number % 2 and held:
                    held.pop(number % len(held)).callback(None)
                elif herder.waiting:
                    herder.waiting.pop(number % len(herder.waiting))(EnvelopeStatus.READY)
            most_held = len(held) + len(herder.waiting)
            self.assertLessEqual(count - most_held, len(link.ended))
            self.assertLessEqual(len(link.ended), count)
        while held:
            held.pop().callback(None)
        while herder.waiting:
            herder.waiting.pop()(TxStatus.PENDING)
        self.assertEqual(len(link.ended), count)
        self.assertEqual(link.batches, len(batches))
        self.assertEqual(len({id(item) for item in link.ended}), count)


STEPS = st.lists(
    st.tuples(st.sampled_from(["say", "let go", "leave"]), st.integers(0, 2), st.integers(0, 20)),
    max_size=30,
)


class AccountTests(SynchronousTestCase):
    """Links that come and go while observers hold what they like."""

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(STEPS)
    def test_each_byte_is_in_one_account(self, steps: Sequence[tuple[str, int, int]]) -> None:
        """As long as it is held: in that of its link, or of all that are gone; then in none."""
        clock, metrics, herder = Clock(), OverlayMetrics(), JudgingHerder()
        chance = MiddlingRandom(1)
        dispatcher = MessageDispatcher(herder, clock=clock, random=chance)
        gate = FloodGate(rate_limit_per_second=0)
        relay = Relay(
            herder, gate, dispatcher, links={}, clock=clock, random=chance, metrics=metrics
        )
        subscriptions = Subscriptions(metrics)
        delivery = Delivery(relay, dispatcher.handlers, subscriptions, lambda: WALL_NOW, metrics)
        links: list[Any] = [FakeLink() for _ in range(3)]
        held: list[tuple[Any, int, Deferred[None]]] = []
        speaking = links[0]

        def hold(message: OverlayMessage) -> Deferred[None]:
            held.append((speaking, len(message.body), Deferred()))
            return held[-1][2]

        subscriptions.observe(hold, ADVERT, TX_KIND)
        herder.verdicts = dict(GOOD)
        for step, which, number in steps:
            if step == "say":
                speaking = links[which]
                said = POSSIBLE[number % len(POSSIBLE)]
                items = [(int(said.type), said.body) for _ in range(2)]
                peer: Any = FakePeer(1 << which)
                delivery.dispatch(speaking, peer, items, clock.seconds())
            elif step == "leave":
                delivery.forget(links[which])
                links[which] = FakeLink()
            elif held:
                held.pop(number % len(held))[2].callback(None)
            expected: dict[Any, int] = {}
            for link, size, _ in held:
                expected[link] = expected.get(link, 0) + size
            gone = [size for link, size in expected.items() if link not in links]
            here = {link: size for link, size in expected.items() if link in links}
            self.assertEqual((delivery.holding, delivery.orphaned), (here, sum(gone)))
        for _, _, done in held:
            done.callback(None)
        self.assertEqual((delivery.holding, delivery.orphaned), ({}, 0))
