"""What floods through a node: whom a verdict concerns, who is told, and what is forgotten."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip import relay as relay_module
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.relay import FloodPeer, Relay
from stellar_overlay.gossip.tx_adverts import PullModeConfig
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import EnvelopeStatus, TxStatus
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_get_scp_state,
    decode_hashes,
    encode_hash_query,
    encode_hashes,
)
from stellar_overlay.wire.quorum_set import quorum_set_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set_hash
from tests.builders import (
    advert,
    demand,
    get_tx_set,
    quorum_set,
    scp_externalize,
    scp_nominate,
    transaction,
)

SCP = scp_nominate()
TX = transaction()
TX_SET = generalized_tx_set(bytes(32), [TX.body[4:]])
QUORUM_SET = quorum_set(2)
SURVEYS = (
    MessageType.TIME_SLICED_SURVEY_REQUEST,
    MessageType.TIME_SLICED_SURVEY_RESPONSE,
    MessageType.TIME_SLICED_SURVEY_START_COLLECTING,
    MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING,
)
TTL = 300


class FakePeer:
    """A peer that keeps what it is sent.

    :ivar is_open: whether anything gets there.
    :ivar last_read: when it was last heard; a moment ago unless told otherwise.
    """

    last_read = float("inf")

    def __init__(self, number: int, gate: FloodGate) -> None:
        self.peer_id = PeerId(bytes([number]) * 32)
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.ping_ms: int | None = None
        self.flood_bit = gate.bit_of(self.peer_id)
        self.sent: list[Message] = []
        self.is_open = True

    def send(self, message: Message) -> bool:
        if self.is_open:
            self.sent.append(message)
        return self.is_open

    def take(self) -> list[Message]:
        """Return what it was sent since this was asked last."""
        sent, self.sent = self.sent, []
        return sent


class FakeHerder(IgnoringHerder):
    """Notes what it gets, and says what it is told to say, at once or later.

    :ivar verdict: what it says at once; None says nothing.
    :ivar waiting: whom it owes a verdict.
    :ivar on_recv: called with each body before anything is said.
    """

    def __init__(self) -> None:
        self.verdict: EnvelopeStatus | TxStatus | None = None
        self.heard: list[tuple[bytes, PeerId]] = []
        self.tx_hashes: list[bytes] = []
        self.waiting: list[Callable[..., None]] = []
        self.on_recv: Callable[[bytes], object] = lambda body: None
        self.own: list[Message] = []
        self.told: list[tuple[bytes, Message]] = []
        self.pool: dict[bytes, Message] = {}
        self.banned: set[bytes] = set()
        self.ledger = 0
        self.follows = True

    def recv_scp_envelope(
        self, body: bytes, from_peer: PeerId, done: Callable[[EnvelopeStatus], None]
    ) -> None:
        self._recv(body, from_peer, done)

    def recv_transaction(
        self, body: bytes, tx_hash: bytes, from_peer: PeerId, done: Callable[[TxStatus], None]
    ) -> None:
        self.tx_hashes.append(tx_hash)
        self._recv(body, from_peer, done)

    def note_own_envelope(self, message: Message) -> None:
        self.own.append(message)

    def recv_quorum_set(self, item_hash: bytes, message: Message) -> None:
        self.told.append((item_hash, message))

    def recv_tx_set(self, item_hash: bytes, message: Message) -> None:
        self.told.append((item_hash, message))

    def get_tx(self, tx_hash: bytes) -> Message | None:
        return self.pool.get(tx_hash)

    def is_banned_tx(self, tx_hash: bytes) -> bool:
        return tx_hash in self.banned

    def tracking_ledger(self) -> int:
        return self.ledger

    def scp_state_from(self) -> int:
        return 77

    def is_tracking(self) -> bool:
        return self.follows

    def _recv(self, body: bytes, from_peer: PeerId, done: Callable[..., None]) -> None:
        self.heard.append((body, from_peer))
        self.on_recv(body)
        if self.verdict is None:
            self.waiting.append(done)
        else:
            done(self.verdict)


def hash_of(message: Message) -> bytes:
    """Return the hash by which a transaction is advertised."""
    return hashlib.sha256(message.body[4:]).digest()


def advert_of(*messages: Message) -> Message:
    """Return a FLOOD_ADVERT of these transactions."""
    return Message(encode_hashes(MessageType.FLOOD_ADVERT, list(map(hash_of, messages))))


def demand_of(*messages: Message) -> Message:
    """Return a FLOOD_DEMAND of these transactions."""
    return Message(encode_hashes(MessageType.FLOOD_DEMAND, list(map(hash_of, messages))))


def survey(kind: MessageType, number: int = 0) -> Message:
    """Return the type of a survey message, with something behind it."""
    return Message(kind.to_bytes(4, "big") + number.to_bytes(4, "big"))


class RelayTestCase(SynchronousTestCase):
    """The relay of a node with some peers."""

    def setUp(self) -> None:
        self.start()

    def start(self, peers: int = 3, rate_limit: int = 0) -> None:
        """Begin anew."""
        self.clock = Clock()
        self.metrics = OverlayMetrics()
        self.herder = FakeHerder()
        self.gate = FloodGate(ttl_secs=TTL, rate_limit_per_second=rate_limit)
        self.links: dict[PeerId, FakePeer] = {}
        chance = random.Random(1)
        self.dispatcher = MessageDispatcher(
            self.herder,
            clock=self.clock,
            random=chance,
            links=self.links,
            knows=self.gate.get_peers_that_know,
            metrics=self.metrics,
        )
        self.relay = Relay(
            self.herder,
            self.gate,
            self.dispatcher,
            links=self.links,
            clock=self.clock,
            random=chance,
            metrics=self.metrics,
            config=PullModeConfig(),
        )
        self.woken: list[str] = []
        self.relay.wake_adverts = lambda: self.woken.append("adverts")
        self.relay.wake_demands = lambda: self.woken.append("demands")
        self.peers = [self.connect(number) for number in range(1, peers + 1)]

    def connect(self, number: int) -> FakePeer:
        """Let a peer come, or come back."""
        peer = FakePeer(number, self.gate)
        self.links[peer.peer_id] = peer
        self.relay.demands.add_peer(peer)
        return peer

    def leave(self, peer: FakePeer) -> None:
        """Let a peer go."""
        self.relay.demands.remove_peer(peer)
        del self.links[peer.peer_id]
        self.gate.release(peer.peer_id)

    def hear(self, message: Message, number: int = 0) -> list[str]:
        """Let a peer flood something new; return a list that says when its credit is free."""
        peer, now = self.peers[number], self.clock.seconds()
        if not self.relay.note_new(peer, int(message.type), message.body, now):
            return ["shed"]
        done: list[str] = []
        self.relay.recv(peer, int(message.type), message.body, now, lambda: done.append("done"))
        return done

    def say(self, message: Message, number: int = 0) -> None:
        """Let a peer say something that is not flooded."""
        self.dispatcher.handle_message(self.peers[number], message, self.clock.seconds())

    def counts(self) -> list[int]:
        """Return how many messages each peer was sent so far."""
        return [len(peer.sent) for peer in self.peers]


class VerdictTests(RelayTestCase):
    """What the herder says of a message decides whether it is remembered, and what is counted."""

    def test_what_the_herder_gets(self) -> None:
        """The exact body and who sent it; of a transaction, the SHA-256 of its envelope, too."""
        self.hear(SCP)
        self.hear(TX, 1)
        self.assertEqual(
            self.herder.heard,
            [(SCP.body, self.peers[0].peer_id), (TX.body, self.peers[1].peer_id)],
        )
        self.assertEqual(self.herder.tx_hashes, [hash_of(TX)])

    def test_envelopes(self) -> None:
        """Only DISCARDED is forgotten and counted; the rest is known (messages.md 1.3)."""
        for number, status in enumerate(EnvelopeStatus):
            self.herder.verdict = status
            message = scp_nominate(number + 1)
            self.assertEqual(self.hear(message), ["done"])
            is_kept = status is not EnvelopeStatus.DISCARDED
            self.assertEqual(self.gate.has_seen(message), is_kept, status)
        self.assertEqual(self.metrics.scp_discarded.get(), 1)

    def test_transactions(self) -> None:
        """ERROR alone is forgotten; all but PENDING are irrelevant (messages.md 2.7)."""
        expected = {TxStatus.PENDING: (1, 0), TxStatus.DUPLICATE: (1, 1), TxStatus.ERROR: (1, 2)}
        for number, (status, counted) in enumerate(expected.items()):
            self.herder.verdict = status
            message = transaction(number=number)
            self.assertEqual(self.hear(message), ["done"])
            self.assertEqual(self.gate.has_seen(message), status is not TxStatus.ERROR, status)
            relevant = self.metrics.pulled_relevant_txs.get()
            self.assertEqual((relevant, self.metrics.pulled_irrelevant_txs.get()), counted)

    def test_a_verdict_that_takes_its_time(self) -> None:
        """Meanwhile the message is known, and its sender's credit is held."""
        for message, status in ((SCP, EnvelopeStatus.DISCARDED), (TX, TxStatus.ERROR)):
            done = self.hear(message)
            self.assertTrue(self.gate.has_seen(message))
            self.assertEqual(done, [])
            self.herder.waiting.pop()(status)
            self.assertFalse(self.gate.has_seen(message))
            self.assertEqual(done, ["done"])

    def test_it_is_forgotten_before_credit_is_free(self) -> None:
        """So that a copy in the very next batch is judged again."""
        known: list[bool] = []
        self.herder.verdict = EnvelopeStatus.DISCARDED
        self.relay.note_new(self.peers[0], int(SCP.type), SCP.body, 0.0)
        self.relay.recv(
            self.peers[0],
            int(SCP.type),
            SCP.body,
            0.0,
            lambda: known.append(self.gate.has_seen(SCP)),
        )
        self.assertEqual(known, [False])

    def test_what_was_forgotten_comes_again(self) -> None:
        """It is judged like anything new; should it be good now, it is kept."""
        for message, bad, good in (
            (SCP, EnvelopeStatus.DISCARDED, EnvelopeStatus.READY),
            (TX, TxStatus.ERROR, TxStatus.PENDING),
        ):
            self.herder.verdict = bad
            self.hear(message)
            self.herder.verdict = good
            self.hear(message, 1)
            self.assertEqual(self.herder.heard.count((message.body, self.peers[0].peer_id)), 1)
            self.assertEqual(self.herder.heard.count((message.body, self.peers[1].peer_id)), 1)
            self.assertTrue(self.gate.has_seen(message))
            self.assertEqual(self.gate.get_peers_that_know(message), [self.peers[1].peer_id])

    def test_the_sender_is_known_before_the_herder_is_asked(self) -> None:
        """A herder that passes a message on at once sends it back to nobody."""
        for message in (SCP, TX):
            self.start()
            self.herder.on_recv = lambda body: self.relay.broadcast(Message(body))
            self.hear(message, 1)
            self.relay.flush_adverts()
            self.assertEqual(self.counts(), [1, 0, 1], message)

    def test_a_herder_that_raises(self) -> None:
        """Its failure goes on to who drops the link; credit is not freed twice, nor at all."""

        def fail(body: bytes) -> None:
            raise ZeroDivisionError

        self.herder.on_recv = fail
        for message in (SCP, TX):
            done: list[str] = []
            with self.assertRaises(ZeroDivisionError):
                done = self.hear(message)
            self.assertEqual(done, [])
        self.herder.on_recv = lambda body: None
        self.hear(scp_nominate(2))
        self.assertEqual(len(self.herder.waiting), 1)


class RateLimitTests(RelayTestCase):
    """DECISIONS 14: only first-seen transactions and adverts, and only where it is on."""

    def setUp(self) -> None:
        self.start(rate_limit=3)
        self.herder.verdict = TxStatus.PENDING

    def test_transactions(self) -> None:
        """Three in a second; the others are shed, counted, and new when they come again."""
        done = [self.hear(transaction(number=number)) for number in range(5)]
        self.assertEqual(done, [["done"]] * 3 + [["shed"]] * 2)
        self.assertEqual(len(self.herder.heard), 3)
        self.assertFalse(self.gate.has_seen(transaction(number=4)))
        self.relay.report()
        self.assertEqual(self.metrics.flood_rate_limited.get(), 2)
        self.clock.advance(1)
        self.hear(transaction(number=4))
        self.assertEqual(len(self.herder.heard), 4)

    def test_adverts(self) -> None:
        """They count together with transactions; demands are not woken for what is dropped."""
        self.hear(TX)
        for number in range(4):
            self.say(advert(number))
        self.assertEqual(self.woken, ["demands"] * 2)
        self.relay.demand()
        (asked,) = self.peers[0].take()
        self.assertEqual(len(decode_hashes(asked.body)), 2)
        self.assertEqual(self.gate.stats.rate_limited, 2)

    def test_what_is_never_limited(self) -> None:
        """SCP messages, duplicates, demands, questions, and what we say ourselves."""
        for number in range(3):
            self.hear(transaction(number=number))
        self.herder.verdict = EnvelopeStatus.READY
        for number in range(1, 20):
            self.hear(scp_nominate(number))
            self.say(demand(number))
            self.say(get_tx_set(number))
            self.relay.recv_again(self.peers[0], TX.body, 0.0)
            self.relay.broadcast_own(transaction(number=100 + number))
        self.assertEqual(len(self.herder.heard), 3 + 19)
        self.assertEqual(self.gate.stats.rate_limited, 0)
        self.assertEqual(self.metrics.flood_unfulfilled_unknown.get(), 19)

    def test_off(self) -> None:
        """As a node has it: however many come."""
        self.start()
        self.herder.verdict = TxStatus.PENDING
        for number in range(2000):
            self.hear(transaction(number=number))
        self.assertEqual(len(self.herder.heard), 2000)


class BroadcastTests(RelayTestCase):
    """Everybody is told once."""

    def test_an_envelope_is_pushed(self) -> None:
        """To each that does not know it; how many is returned, and counted."""
        self.hear(SCP, 1)
        self.assertEqual(self.relay.broadcast(SCP), 2)
        self.assertEqual([peer.sent for peer in self.peers], [[SCP], [], [SCP]])
        self.assertEqual(self.relay.broadcast(SCP), 0)
        self.assertEqual(self.counts(), [1, 0, 1])
        metrics = self.metrics
        self.assertEqual((metrics.flood_broadcast.get(), metrics.messages_broadcast.get()), (2, 1))

    def test_who_pushes(self) -> None:
        """What the herder broadcasts goes the fast way; what begins here goes the careful one."""
        pushed: list[tuple[Message, list[FloodPeer]]] = []
        self.relay.push = lambda message, peers: pushed.append((message, list(peers)))
        self.hear(SCP, 1)
        self.assertEqual(self.relay.broadcast(SCP), 2)
        self.assertEqual(pushed, [(SCP, [self.peers[0], self.peers[2]])])
        self.assertEqual(self.relay.broadcast(SCP), 0)
        self.assertEqual(self.relay.broadcast(TX), 3)
        self.assertEqual(self.counts(), [0, 0, 0])
        self.assertEqual(self.relay.broadcast_own(scp_nominate(2)), 3)
        self.assertEqual((len(pushed), self.counts()), (1, [1, 1, 1]))

    def test_a_transaction_is_advertised(self) -> None:
        """Not sent: its hash leaves with the next flush, several together."""
        other = transaction(number=1)
        self.assertEqual(self.relay.broadcast(TX), 3)
        self.assertEqual(self.relay.broadcast(other), 3)
        self.assertEqual(self.counts(), [0, 0, 0])
        self.assertEqual(self.woken, ["adverts"] * 2)
        self.assertFalse(self.relay.flush_adverts())
        self.assertEqual([peer.sent for peer in self.peers], [[advert_of(TX, other)]] * 3)
        self.relay.flush_adverts()
        self.assertEqual(self.counts(), [1, 1, 1])
        metrics = self.metrics
        self.assertEqual((metrics.flood_broadcast.get(), metrics.flood_advertised.get()), (0, 6))
        self.assertEqual(metrics.messages_broadcast.get(), 2)

    def test_whoever_advertised_it_is_not_told(self) -> None:
        """What is returned is how many are told; it counts as told all the same, as in core."""
        self.say(advert_of(TX), 2)
        self.assertEqual(self.relay.broadcast(TX), 2)
        self.assertEqual(self.relay.broadcast(TX), 0)
        self.relay.flush_adverts()
        self.assertEqual(self.counts(), [1, 1, 0])
        self.assertEqual(self.metrics.flood_advertised.get(), 2)

    def test_all_have_advertised_it(self) -> None:
        """Nobody is told, though a newcomer is."""
        for number in range(3):
            self.say(advert_of(TX), number)
        self.assertEqual(self.relay.broadcast(TX), 0)
        newcomer = self.connect(9)
        self.assertEqual(self.relay.broadcast(TX), 1)
        self.relay.flush_adverts()
        self.assertEqual((self.counts(), newcomer.sent), ([0, 0, 0], [advert_of(TX)]))

    def test_who_has_sent_it(self) -> None:
        """FL7: of five peers one has sent it; it again, and then something else."""
        self.start(5)
        self.hear(SCP, 2)
        for message, expected in (
            (SCP, [1, 1, 0, 1, 1]),
            (SCP, [1, 1, 0, 1, 1]),
            (scp_nominate(2), [2, 2, 1, 2, 2]),
        ):
            self.relay.broadcast(message)
            self.assertEqual(self.counts(), expected)

    def test_a_newcomer(self) -> None:
        """A repeated broadcast tells it, and it alone."""
        self.relay.broadcast(SCP)
        newcomer = self.connect(9)
        self.assertEqual(self.relay.broadcast(SCP), 1)
        self.assertEqual((newcomer.sent, self.counts()), ([SCP], [1, 1, 1]))

    def test_who_comes_back(self) -> None:
        """A peer with the same key is not told again, on whatever link."""
        self.relay.broadcast(SCP)
        self.hear(scp_nominate(2), 0)
        self.leave(self.peers[0])
        again = self.connect(1)
        self.assertEqual(self.relay.broadcast(SCP), 0)
        self.assertEqual(self.relay.broadcast(scp_nominate(2)), 2)
        self.assertEqual(again.sent, [])

    def test_nobody_is_there(self) -> None:
        """Nothing is counted as broadcast; who comes later is told when it is repeated."""
        self.start(0)
        self.assertEqual(self.relay.broadcast(SCP), 0)
        self.assertEqual(self.metrics.messages_broadcast.get(), 0)
        self.connect(1)
        self.assertEqual(self.relay.broadcast(SCP), 1)

    def test_after_it_was_forgotten(self) -> None:
        """FL3: at once nobody is told again; when it is too old to be remembered, all are."""
        self.relay.broadcast(TX)
        self.relay.flush_adverts()
        self.clock.advance(TTL - 1)
        self.relay.look_after_records()
        self.assertEqual(self.relay.broadcast(TX), 0)
        self.clock.advance(2)
        self.relay.look_after_records()
        self.assertEqual(self.relay.broadcast(TX), 3)
        self.relay.flush_adverts()
        self.assertEqual(self.counts(), [2, 2, 2])

    def test_what_was_sent_directly(self) -> None:
        """``note_told``: the peer is left out of any later broadcast of what is known."""
        self.hear(SCP, 0)
        self.relay.note_told(self.peers[1], SCP)
        self.assertEqual(self.relay.broadcast(SCP), 1)
        self.assertEqual([peer.sent for peer in self.peers], [[], [], [SCP]])

    def test_what_was_sent_directly_and_is_new_here(self) -> None:
        """It is not remembered for that: should others bring it, it is judged as ever."""
        for message in (scp_nominate(2), TX, *map(survey, SURVEYS)):
            self.relay.note_told(self.peers[1], message)
            self.assertFalse(self.gate.has_seen(message))

    def test_what_is_not_flooded_is_not_noted(self) -> None:
        """Sending an advert or a question directly makes no record."""
        for message in (advert(), demand(), get_tx_set()):
            self.relay.note_told(self.peers[0], message)
        self.assertEqual(len(self.gate.records), 0)


class OwnTests(RelayTestCase):
    """What begins here."""

    def test_an_envelope(self) -> None:
        """The herder has it before anybody can ask for it."""
        order: list[int] = []
        self.patch(self.herder, "note_own_envelope", lambda message: order.extend(self.counts()))
        self.assertEqual(self.relay.broadcast_own(SCP), 3)
        self.assertEqual((order, self.counts()), ([0, 0, 0], [1, 1, 1]))
        self.assertEqual(self.herder.heard, [])

    def test_a_transaction_is_served(self) -> None:
        """Whoever demands it gets it, though the herder's pool does not have it."""
        self.assertEqual(self.relay.broadcast_own(TX), 3)
        self.relay.flush_adverts()
        self.peers[1].take()
        self.say(demand_of(TX, transaction(number=1)), 1)
        self.assertEqual(self.peers[1].sent, [TX])
        self.assertEqual(self.metrics.flood_fulfilled.get(), 1)
        self.assertEqual(self.metrics.flood_unfulfilled_unknown.get(), 1)

    def test_a_transaction_is_not_demanded(self) -> None:
        """When a peer advertises it to us."""
        self.relay.broadcast_own(TX)
        self.say(advert_of(TX))
        self.relay.demand()
        self.assertEqual(self.counts(), [0, 0, 0])

    def test_what_is_kept_is_bounded(self) -> None:
        """By number and bytes; the oldest goes first."""
        self.patch(relay_module, "OWN_TRANSACTIONS", 3)
        self.patch(relay_module, "OWN_TRANSACTION_BYTES", 1000)
        self.start()
        for number in range(4):
            self.relay.broadcast_own(transaction(number=number))
        self.relay.broadcast_own(transaction(700, number=4))
        demanded = [transaction(number=number) for number in range(4)]
        self.say(demand_of(*demanded, transaction(700, number=4)))
        sent = [message.size for message in self.peers[0].sent if message.type is TX.type]
        self.assertEqual(sent, [200, 700])

    def test_the_figures(self) -> None:
        """10,000 transactions, 16 MiB."""
        self.assertEqual(relay_module.OWN_TRANSACTIONS, 10_000)
        self.assertEqual(relay_module.OWN_TRANSACTION_BYTES, 16 * 1024 * 1024)

    def test_a_survey(self) -> None:
        """All four types are pushed."""
        for number, kind in enumerate(SURVEYS):
            self.assertEqual(self.relay.broadcast_own(survey(kind)), 3)
            self.assertEqual(self.counts(), [number + 1] * 3)

    def test_what_is_not_flooded(self) -> None:
        """Is refused, and nobody is told."""
        for kind in MessageType:
            if kind not in (MessageType.TRANSACTION, MessageType.SCP_MESSAGE, *SURVEYS):
                with self.assertRaisesRegex(ValueError, kind.name):
                    self.relay.broadcast_own(survey(kind))
        self.assertEqual(self.counts(), [0, 0, 0])
        self.assertEqual(len(self.gate.records), 0)


class PullTests(RelayTestCase):
    """Adverts and demands, as far as the relay wires them."""

    def test_they_never_enter_the_flood_map(self) -> None:
        """Y7: neither what comes nor what goes."""
        self.say(advert_of(TX))
        self.say(demand_of(TX))
        self.relay.demand()
        self.relay.broadcast_own(TX)
        self.relay.flush_adverts()
        self.assertEqual(list(self.gate.records), [TX.body])

    def test_an_advert_is_demanded(self) -> None:
        """In the next run, which it wakes; until it is received, there is something to do."""
        self.say(advert_of(TX), 1)
        self.assertEqual((self.woken, self.counts()), (["demands"], [0, 0, 0]))
        self.assertTrue(self.relay.demand())
        self.assertEqual([peer.sent for peer in self.peers], [[], [demand_of(TX)], []])

    def test_nothing_to_demand(self) -> None:
        """Says that there is nothing to do."""
        self.assertFalse(self.relay.demand())
        self.say(Message(encode_hashes(MessageType.FLOOD_ADVERT, [])))
        self.assertFalse(self.relay.demand())

    def test_what_is_known_or_banned_is_not_demanded(self) -> None:
        """The herder says so; an item that it has given away since is unknown again."""
        known, banned = transaction(number=1), transaction(number=2)
        self.herder.pool[hash_of(known)] = known
        self.herder.banned.add(hash_of(banned))
        self.say(advert_of(known, banned, TX))
        self.relay.demand()
        self.assertEqual(self.peers[0].sent, [demand_of(TX)])

    def test_demands_are_answered_from_the_pool(self) -> None:
        """And what is banned is counted apart from what is unknown."""
        banned = transaction(number=2)
        self.herder.pool[hash_of(TX)] = TX
        self.herder.banned.add(hash_of(banned))
        self.say(demand_of(TX, banned, transaction(number=3)))
        self.assertEqual(self.peers[0].sent, [TX])
        metrics = self.metrics
        self.assertEqual(metrics.flood_fulfilled.get(), 1)
        self.assertEqual(metrics.flood_unfulfilled_banned.get(), 1)
        self.assertEqual(metrics.flood_unfulfilled_unknown.get(), 1)

    def test_latencies(self) -> None:
        """Of what was demanded: the first copy counts, and who was asked for a later one, too."""
        for number in (0, 1):
            self.say(advert_of(TX), number)
        self.relay.demand()
        self.clock.advance(1)
        self.relay.demand()
        self.clock.advance(0.25)
        self.hear(TX, 0)
        self.relay.recv_again(self.peers[1], TX.body, self.clock.seconds())
        self.relay.recv_again(self.peers[2], TX.body, self.clock.seconds())
        total = self.metrics.tx_pull_latency.snapshot()
        self.assertEqual((total.count, total.total), (1, 1.25))
        of_peers = self.metrics.peer_tx_pull_latency.snapshot()
        self.assertEqual((of_peers.count, of_peers.total), (2, 1.5))
        self.assertEqual(self.metrics.pulled_irrelevant_txs.get(), 2)

    def test_nobody_demanded_it(self) -> None:
        """It is taken like any other, and no latency is recorded."""
        self.hear(TX)
        self.assertEqual(len(self.herder.heard), 1)
        self.assertEqual(self.metrics.tx_pull_latency.snapshot().count, 0)


class FetchTests(RelayTestCase):
    """What the herder lacks."""

    def test_what_is_here(self) -> None:
        """It is told at once, and nobody is asked."""
        self.dispatcher.cache_item(TX_SET)
        self.dispatcher.cache_item(QUORUM_SET)
        self.herder.told.clear()
        hashes = tx_set_hash(TX_SET.body), quorum_set_hash(QUORUM_SET.body)
        self.relay.fetch_tx_set(hashes[0], 1, SCP.body)
        self.relay.fetch_quorum_set(hashes[1], 1, SCP.body)
        self.assertEqual(self.herder.told, list(zip(hashes, (TX_SET, QUORUM_SET), strict=True)))
        self.assertEqual(self.counts(), [0, 0, 0])

    def test_what_is_missing(self) -> None:
        """Who sent the envelope is asked first; the herder is told once, when it comes."""
        self.hear(SCP, 1)
        for kind, message, fetch, item_hash in (
            (
                MessageType.GET_TX_SET,
                TX_SET,
                self.relay.fetch_tx_set,
                tx_set_hash(TX_SET.body),
            ),
            (
                MessageType.GET_SCP_QUORUMSET,
                QUORUM_SET,
                self.relay.fetch_quorum_set,
                quorum_set_hash(QUORUM_SET.body),
            ),
        ):
            for _ in range(2):
                fetch(item_hash, 1, SCP.body)
            fetch(item_hash, 2, scp_nominate(2).body)
            self.assertEqual(self.peers[1].take(), [Message(encode_hash_query(kind, item_hash))])
            self.assertEqual(self.herder.told, [])
            self.say(message, 1)
            self.assertEqual(self.herder.told, [(item_hash, message)])
            self.herder.told.clear()
        self.assertEqual(self.counts(), [0, 0, 0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_consensus_moves(self) -> None:
        """What other slots want is given up: older ones but the checkpoint's, and far ones."""
        self.herder.ledger = 75
        for slot in (5, 63, 64, 175, 176, 2**63):
            for fetch in (self.relay.fetch_tx_set, self.relay.fetch_quorum_set):
                fetch((slot % 251).to_bytes(32, "big"), slot, scp_nominate(slot).body)
        self.relay.clear_below(64, 5)
        for stats in self.dispatcher.stats[:2]:
            self.assertEqual((stats.num_trackers, stats.total_waiting_envelopes), (3, 3))
        for slot in (5, 64, 175):
            fetcher = self.dispatcher._tx_sets.fetcher
            self.assertTrue(fetcher.is_tracking((slot % 251).to_bytes(32, "big")), slot)
        self.dispatcher.shutdown()


class TimeTests(RelayTestCase):
    """What is done every so often."""

    def test_records_belong_to_the_ledger_of_now(self) -> None:
        """As the herder says; those of the last 12 ledgers outlive the time to live."""
        self.herder.ledger = 50
        self.assertTrue(self.relay.look_after_records())
        self.hear(SCP)
        for ledger, is_known in ((61, True), (62, False)):
            self.herder.ledger = ledger
            self.clock.advance(TTL)
            self.relay.look_after_records()
            self.assertEqual(self.gate.has_seen(SCP), is_known)

    def test_what_is_young_is_not_forgotten(self) -> None:
        """However far consensus moves: DECISIONS 12."""
        self.herder.ledger = 50
        self.relay.clear_below(39, 0)
        self.hear(SCP)
        self.herder.ledger = 5000
        self.relay.clear_below(4989, 0)
        self.assertTrue(self.gate.has_seen(SCP))

    def test_adverts_of_old_ledgers(self) -> None:
        """What a peer advertised then may be advertised to it again."""
        self.herder.ledger = 50
        self.relay.look_after_records()
        self.say(advert_of(TX), 0)
        self.herder.ledger = 70
        self.relay.clear_below(59, 0)
        self.relay.broadcast(TX)
        self.relay.flush_adverts()
        self.assertEqual(self.counts(), [1, 1, 1])

    def test_out_of_sync(self) -> None:
        """Two peers are asked for what we missed, others each time; nobody while we follow."""
        self.start(5)
        self.assertTrue(self.relay.ask_for_scp_state())
        self.assertEqual(self.counts(), [0] * 5)
        self.herder.follows = False
        for _ in range(40):
            before = self.counts()
            self.assertTrue(self.relay.ask_for_scp_state())
            asked = [now - then for now, then in zip(self.counts(), before, strict=True)]
            self.assertEqual(sorted(asked), [0, 0, 0, 1, 1])
        self.assertTrue(all(self.counts()))
        questions = [message for peer in self.peers for message in peer.sent]
        self.assertEqual({decode_get_scp_state(question.body) for question in questions}, {77})

    def test_out_of_sync_with_few_peers(self) -> None:
        """One or nobody is asked, and nobody twice."""
        for peers in (1, 0):
            self.start(peers)
            self.herder.follows = False
            self.assertTrue(self.relay.ask_for_scp_state())
            self.assertEqual(self.counts(), [1] * peers)

    def test_who_is_silent(self) -> None:
        """For 10 s: it is not asked, as what we write would keep it; others are in its place."""
        self.clock.advance(100)
        self.herder.follows = False
        for peer, last_read in zip(self.peers, (90.0, 89.9, 90.1), strict=True):
            peer.last_read = last_read
        self.assertTrue(self.relay.ask_for_scp_state())
        self.assertEqual(self.counts(), [0, 0, 1])
        self.peers[0].last_read = 100.0
        self.assertTrue(self.relay.ask_for_scp_state())
        self.assertEqual(self.counts(), [1, 0, 2])

    def test_figures(self) -> None:
        """What the gate holds, forgot for want of room, and let not pass is in the snapshot."""
        self.start(rate_limit=1)
        self.hear(SCP)
        self.hear(TX)
        self.hear(transaction(number=1))
        figures = self.metrics.snapshot()
        names = ("known_count", "evicted", "rate_limited")
        self.assertEqual([figures[f"flood_{name}"] for name in names], [2, 0, 1])


MESSAGES = [scp_nominate(1), scp_externalize(2), scp_nominate(3, node=2)]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(("hear", "broadcast", "judge", "reconnect")),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=40,
)


class AnyOrderTests(RelayTestCase):
    """Whatever is heard, judged and broadcast, while peers come and go."""

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(OPERATIONS)
    def test_nobody_is_told_what_it_knows(self, operations: Sequence[tuple[str, int, int]]) -> None:
        """Each is sent a message at most once as long as that is remembered, and no echo."""
        self.start(4)
        knows: dict[bytes, set[PeerId]] = {}
        owed: list[tuple[bytes, list[str]]] = []
        for operation, which, number in operations:
            message, peer = MESSAGES[which], self.peers[number]
            if operation == "hear":
                if self.gate.has_seen(message):
                    self.gate.records[message.body].told |= peer.flood_bit
                else:
                    owed.append((message.body, self.hear(message, number)))
                knows.setdefault(message.body, set()).add(peer.peer_id)
            elif operation == "broadcast":
                known = knows.setdefault(message.body, set())
                others = [each for each in self.peers if each.peer_id not in known]
                self.assertEqual(self.relay.broadcast(message), len(others))
                for each in self.peers:
                    self.assertEqual(each.take(), [message] if each in others else [])
                    known.add(each.peer_id)
            elif operation == "judge" and owed:
                body, done = owed.pop(0)
                self.assertEqual(done, [])
                is_bad = number == 0
                status = EnvelopeStatus.DISCARDED if is_bad else EnvelopeStatus.READY
                self.herder.waiting.pop(0)(status)
                self.assertEqual(done, ["done"])
                if is_bad:
                    knows.pop(body, None)
            elif operation == "reconnect":
                self.leave(peer)
                self.peers[number] = self.connect(number + 1)
            for body, peer_ids in knows.items():
                self.assertEqual(set(self.gate.get_peers_that_know(body)), peer_ids)
