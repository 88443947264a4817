"""What floods through a node, in time: when it is advertised, demanded, asked for and forgotten."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.config import OverlayConfig, QuorumSet
from stellar_overlay.error import NotStarted, ShuttingDown
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import EnvelopeStatus, Overlay, TxStatus
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.flooding import (
    Flooding,
    flat_quorum_set,
    observer_herder,
    signature_verifier,
)
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.node.verifier import InlineVerifier, ThreadPoolVerifier
from stellar_overlay.testing.clock import SimulatedClock
from stellar_overlay.wire.message import Message, MessageType, decode_get_scp_state, decode_hashes
from stellar_overlay.wire.quorum_set import FlatQuorumSet
from stellar_overlay.wire.scp import externalize, nominate
from stellar_overlay.wire.transaction import tx_full_hash
from tests.builders import advert, make_node, scp_nominate, transaction
from tests.herder import kit
from tests.node.world import WorldTestCase, ip

SCP = scp_nominate()
TX = transaction()


class FakePeer:
    """An authenticated peer that keeps what it is sent, and when; it is heard all the time."""

    def __init__(self, flooding: Flooding, clock: Clock, number: int = 1) -> None:
        self.peer_id = PeerId(bytes([number]) * 32)
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.ping_ms = 1
        self.flood_bit = flooding.relay.gate.bit_of(self.peer_id)
        self.sent: list[tuple[float, Message]] = []
        self._clock = clock

    @property
    def last_read(self) -> float:
        return self._clock.seconds()

    def send(self, message: Message) -> bool:
        self.sent.append((round(self._clock.seconds(), 6), message))
        return True

    def kinds(self) -> list[tuple[float, MessageType]]:
        """Return when it was sent what."""
        return [(when, message.type) for when, message in self.sent]


class NotingHerder(IgnoringHerder):
    """Notes when it is started and stopped, and says where consensus stands.

    :ivar timers: how many calls were pending when it was.
    :ivar failure: what it raises when it is stopped.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.timers: list[int] = []
        self.overlay: Overlay | None = None
        self.ledger = 0
        self.follows = True
        self.failure: Exception | None = None

    def start(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.timers.append(len(self.clock.getDelayedCalls()))

    def stop(self) -> None:
        self.overlay = None
        if self.failure is not None:
            raise self.failure

    def tracking_ledger(self) -> int:
        return self.ledger

    def is_tracking(self) -> bool:
        return self.follows

    def scp_state_from(self) -> int:
        return 40


class FloodingTestCase(SynchronousTestCase):
    """The flooding of a node without the node, and one peer."""

    def setUp(self) -> None:
        self.clock = SimulatedClock()
        self.open()

    def open(self, **settings: Any) -> None:
        """Make it, started."""
        self.metrics = OverlayMetrics()
        self.herder = NotingHerder(self.clock)
        peers: dict[PeerId, Any] = {}
        self.flooding = Flooding(
            OverlayConfig(**settings).checked(),
            self.herder,
            peers,
            self.clock,
            random.Random(1),
            self.metrics,
        )
        self.relay = self.flooding.relay
        self.peers = peers
        self.peer = self.connect(1)
        self.flooding.startService()

    def connect(self, number: int) -> Any:
        """Let a peer come."""
        peer: Any = FakePeer(self.flooding, self.clock, number)
        self.peers[peer.peer_id] = peer
        self.relay.demands.add_peer(peer)
        return peer

    def say(self, message: Message) -> None:
        """Let the peer say something that is not flooded."""
        self.flooding.dispatcher.handle_message(self.peer, message, self.clock.seconds())

    def stop(self) -> None:
        """Stop, and check that no timer is left."""
        self.successResultOf(self.flooding.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ServiceTests(FloodingTestCase):
    """Starting and stopping."""

    def test_the_herder_is_started_first(self) -> None:
        """It has the relay before anything ticks, and nothing when all is over."""
        self.assertEqual(self.herder.timers, [0])
        self.assertIs(self.herder.overlay, self.relay)
        self.stop()
        self.assertIsNone(self.herder.overlay)

    def test_stopping_gives_up_what_is_fetched(self) -> None:
        """No peer is asked after it."""
        self.relay.fetch_tx_set(bytes(32), 1, SCP.body)
        self.relay.fetch_quorum_set(bytes(32), 1, SCP.body)
        self.assertEqual(len(self.peer.sent), 2)
        self.stop()
        self.clock.advance(30)
        self.assertEqual(len(self.peer.sent), 2)

    def test_a_herder_that_fails_to_stop(self) -> None:
        """All else is stopped: nothing ticks, nothing is fetched, and whoever waits is told."""
        self.relay.fetch_tx_set(bytes(32), 1, SCP.body)
        fetching = Deferred.fromCoroutine(self.flooding.fetch_quorum_set(bytes(32), 60))
        self.herder.failure = ZeroDivisionError()
        self.flooding.stopService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.failureResultOf(fetching, ShuttingDown)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.flooding.running)

    def test_applications_that_wait(self) -> None:
        """Are told at the stop, and not when their time is over."""
        fetches = [
            Deferred.fromCoroutine(fetch(bytes(32), 60))
            for fetch in (self.flooding.fetch_tx_set, self.flooding.fetch_quorum_set)
        ]
        self.stop()
        for fetching in fetches:
            self.failureResultOf(fetching, ShuttingDown)

    def test_nothing_is_woken_after_the_stop(self) -> None:
        """What a late verdict broadcasts starts no timer."""
        self.stop()
        self.relay.broadcast(TX)
        self.say(advert())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_idle_node(self) -> None:
        """Two slow timers, and nothing is said."""
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.clock.advance(100)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)
        self.assertEqual(self.peer.sent, [])
        due = sorted(call.getTime() for call in self.clock.getDelayedCalls())
        self.assertEqual(due, [105, 110])
        self.stop()


class HerderFailureTests(WorldTestCase):
    """A whole node whose brain fails."""

    def test_at_the_start(self) -> None:
        """The node does not start: whoever asked is told, and its port is closed again."""
        herder, failure = NotingHerder(self.world.clock), ZeroDivisionError()

        def fail(overlay: Overlay) -> None:
            raise failure

        self.patch(herder, "start", fail)
        node = self.world.node(herder=herder, is_started=False)
        asked = self.world.outcome(node.when_started())
        with self.assertRaises(ZeroDivisionError):
            self.world.result(node.start())
        self.assertEqual(asked, [failure])
        self.assertIsNone(node.peer_port)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
        with self.assertRaises(NotStarted):
            node.check_running()


class TimeTests(FloodingTestCase):
    """What happens when."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.stop)

    def test_adverts(self) -> None:
        """Leave 100 ms after the first of them, together; then nothing ticks."""
        self.clock.advance(0.35)
        self.relay.broadcast(TX)
        self.clock.advance(0.05)
        self.relay.broadcast(transaction(number=1))
        self.clock.advance(1)
        ((when, message),) = self.peer.sent
        self.assertEqual((when, message.type), (0.45, MessageType.FLOOD_ADVERT))
        self.assertEqual(len(decode_hashes(message.body)), 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)

    def test_an_envelope(self) -> None:
        """Leaves at once, and wakes nothing."""
        self.relay.broadcast(SCP)
        self.assertEqual(self.peer.kinds(), [(0.0, MessageType.SCP_MESSAGE)])
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)

    def test_demands(self) -> None:
        """Leave 200 ms after the advert; when they are too old to matter, nothing ticks."""
        self.clock.advance(0.1)
        self.say(advert(1, 3))
        self.clock.advance(70)
        ((when, message),) = self.peer.sent
        self.assertEqual((when, message.type), (0.3, MessageType.FLOOD_DEMAND))
        self.assertEqual(len(decode_hashes(message.body)), 3)
        self.assertEqual(self.metrics.abandoned_demands.get(), 3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)

    def test_out_of_sync(self) -> None:
        """Every 10 s somebody is asked for what we missed, until we follow again."""
        self.herder.follows = False
        self.clock.advance(25)
        asked = MessageType.GET_SCP_STATE
        self.assertEqual(self.peer.kinds(), [(10.0, asked), (20.0, asked)])
        self.assertEqual(decode_get_scp_state(self.peer.sent[0][1].body), 40)
        self.herder.follows = True
        self.clock.advance(25)
        self.assertEqual(len(self.peer.sent), 2)

    def test_who_is_asked_first(self) -> None:
        """Whoever has sent the envelope that names an item, whatever its round trip."""
        others = [self.connect(number) for number in (2, 3, 4)]
        others[1].ping_ms = 5000
        self.relay.gate.add_record(SCP.body, others[1].flood_bit, 0.0)
        self.relay.fetch_tx_set(bytes(32), 1, SCP.body)
        self.assertEqual(others[1].kinds(), [(0.0, MessageType.GET_TX_SET)])

    def test_records(self) -> None:
        """Every 5 s the ledger is noted, and what is too old is forgotten."""
        gate = self.relay.gate
        gate.add_record(SCP.body, 1, 0.0)
        self.herder.ledger = 50
        self.clock.advance(4.5)
        self.assertEqual(gate.ledger_seq, 0)
        self.clock.advance(0.5)
        self.assertEqual(gate.ledger_seq, 50)
        self.clock.advance(294)
        self.assertTrue(gate.has_seen(SCP))
        self.clock.advance(6)
        self.assertFalse(gate.has_seen(SCP))


class SettingsTests(FloodingTestCase):
    """What the configuration says."""

    def reopen(self, **settings: Any) -> None:
        """Begin anew with other settings."""
        self.stop()
        self.clock = SimulatedClock()
        self.open(**settings)
        self.addCleanup(self.stop)

    def test_periods(self) -> None:
        """Of adverts and demands."""
        self.reopen(flood_advert_period_ms=500, flood_demand_period_ms=1000)
        self.relay.broadcast(TX)
        self.say(advert(1))
        self.clock.advance(2)
        kinds = [(0.5, MessageType.FLOOD_ADVERT), (1.0, MessageType.FLOOD_DEMAND)]
        self.assertEqual(self.peer.kinds(), kinds)

    def test_time_to_live(self) -> None:
        """Of what is remembered."""
        self.reopen(flood_ttl_secs=60)
        self.relay.broadcast(SCP)
        self.clock.advance(59)
        self.assertEqual(self.relay.broadcast(SCP), 0)
        self.clock.advance(7)
        self.assertEqual(self.relay.broadcast(SCP), 1)

    def test_rate_limit(self) -> None:
        """Off by default; where it is on, it is this one."""
        self.assertTrue(all(self.relay.gate.allow_message(0.0) for _ in range(5000)))
        self.reopen(flood_rate_limit_per_sec=7)
        passed = [self.relay.gate.allow_message(0.0) for _ in range(10)]
        self.assertEqual(passed, [True] * 7 + [False] * 3)


@implementer(IReactorFromThreads)
class ThreadedClock(Clock):
    """A clock that says it has threads."""

    def callFromThread(  # type: ignore[override]  # noqa: N802 - as zope has it, without names
        self, function: Any, *args: Any, **kwargs: Any
    ) -> None:
        function(*args, **kwargs)


class BrainTests(SynchronousTestCase):
    """Who verifies, and what the default herder is told."""

    def herder(self, **settings: Any) -> tuple[Any, list[Message]]:
        """Return a herder of this configuration, and what it broadcasts."""
        local_node = make_node(1)
        config = OverlayConfig(**settings).checked()
        herder = observer_herder(config, local_node, InlineVerifier(), Clock())
        overlay = kit.FakeOverlay()
        herder.start(overlay)
        self.addCleanup(herder.stop)
        return herder, overlay.broadcasts

    def hear(self, herder: Any, message: Message) -> EnvelopeStatus:
        """Return what it says of an envelope."""
        said: list[EnvelopeStatus] = []
        herder.recv_scp_envelope(message.body, kit.PEER, said.append)
        (status,) = said
        return status

    def test_verifiers(self) -> None:
        """A thread pool where there are threads; on a simulated clock, whoever asks."""
        self.assertIsInstance(signature_verifier(Clock()), InlineVerifier)
        self.assertIsInstance(signature_verifier(ThreadedClock()), ThreadPoolVerifier)

    def test_modes(self) -> None:
        """DECISIONS 19: ``relay`` passes on what is good, ``observe`` nothing."""
        for mode, expected in (("relay", 1), ("observe", 0)):
            herder, broadcasts = self.herder(mode=mode)
            message = nominate(make_node(5), 1, [b"v"])
            self.assertNotEqual(self.hear(herder, message), EnvelopeStatus.DISCARDED)
            self.assertEqual(len(broadcasts), expected, mode)

    def test_whose_word_counts(self) -> None:
        """The nodes of the quorum set, where there is one; anybody's where there is none."""
        trusted, stranger = make_node(5), make_node(6)
        quorum_set = QuorumSet(threshold=1, validators=(trusted.peer_id.strkey,))
        for settings, expected in (({"quorum_set": quorum_set}, True), ({}, False)):
            herder, _ = self.herder(**settings)
            discarded = [
                self.hear(herder, nominate(node, 1, [b"v"])) is EnvelopeStatus.DISCARDED
                for node in (trusted, stranger)
            ]
            self.assertEqual(discarded, [False, expected])

    def test_our_own_word(self) -> None:
        """Is not judged when it comes back."""
        herder, _ = self.herder()
        message = nominate(make_node(1), 1, [b"v"])
        self.assertIs(self.hear(herder, message), EnvelopeStatus.SKIPPED_SELF)

    def test_the_largest_transaction(self) -> None:
        """By the setting."""
        message = kit.transaction(kit.payment())
        pending, error = TxStatus.PENDING, TxStatus.ERROR
        for size, expected in ((message.size, pending), (message.size - 1, error)):
            herder, _ = self.herder(max_tx_size=size)
            said: list[TxStatus] = []
            herder.recv_transaction(message.body, tx_full_hash(message.body), kit.PEER, said.append)
            self.assertEqual(said, [expected])

    def test_slots_to_remember(self) -> None:
        """By the setting."""
        for slots in (12, 20):
            herder, _ = self.herder(max_slots_to_remember=slots)
            self.hear(herder, externalize(make_node(5), 100, kit.a_value()))
            self.assertEqual(herder.tracking_ledger(), 100)
            self.assertEqual(herder.min_slot_to_remember(), 101 - slots)

    def test_quorum_sets(self) -> None:
        """As the wire has them, inner ones included."""
        nodes = [make_node(number).peer_id for number in (1, 2, 3)]
        inner = QuorumSet(threshold=1, validators=(nodes[1].strkey, nodes[2].strkey))
        outer = QuorumSet(threshold=2, validators=(nodes[0].strkey,), inner_sets=(inner,))
        self.assertEqual(
            flat_quorum_set(outer),
            FlatQuorumSet(
                2, (nodes[0].key,), (FlatQuorumSet(1, (nodes[1].key, nodes[2].key), ()),)
            ),
        )


class NetworkTests(WorldTestCase):
    """Whole nodes in a chain, a ring and a star: a message reaches everybody once."""

    def network(self, size: int, links: list[tuple[int, int]]) -> list[OverlayManager]:
        """Return nodes that relay, linked so and not otherwise."""
        nodes = [
            self.world.node(number, is_observing=True, run_standalone=True)
            for number in range(1, size + 1)
        ]
        for one, other in links:
            self.world.result(nodes[one].connect(ip(other + 1)))
        self.heard: list[Counter[tuple[PeerId, bytes]]] = [Counter() for _ in nodes]
        for node, heard in zip(nodes, self.heard, strict=True):
            self.count(node, heard)
        return nodes

    def count(self, node: OverlayManager, heard: Counter[tuple[PeerId, bytes]]) -> None:
        """Count what a node hears from whom, duplicates included."""

        def note(message: OverlayMessage) -> None:
            heard[message.from_peer, message.body] += 1

        node.observe(note, MessageType.SCP_MESSAGE, MessageType.TRANSACTION)

    def check(self, size: int, links: list[tuple[int, int]], most_heard: int) -> None:
        """Let one node say two things; check who hears them how often."""
        nodes = self.network(size, links)
        envelope = nominate(make_node(77), 5, [b"v"])
        payment = kit.transaction(kit.payment())
        for message in (envelope, payment):
            self.assertEqual(nodes[0].broadcast(message), len(nodes[0].peer_infos()))
        self.world.advance(3, step=0.05)  # before anybody asks for what it may have missed
        tx_hash = tx_full_hash(payment.body)
        for node, heard in zip(nodes[1:], self.heard[1:], strict=True):
            bodies = Counter(body for _, body in heard)
            self.assertEqual(set(bodies), {envelope.body, payment.body})
            self.assertEqual(set(heard.values()), {1})  # once per link and direction
            self.assertLessEqual(bodies[envelope.body], most_heard)
            self.assertEqual(bodies[payment.body], 1)  # it is pulled
            self.assertEqual(node._flooding.herder.get_tx(tx_hash), payment)
            self.assertEqual(node.metrics.snapshot()["flood_known_count"], 2)
        self.assertEqual(self.heard[0], {})  # no echo
        before = [heard.copy() for heard in self.heard]
        for node in nodes:
            for message in (envelope, payment):
                self.assertEqual(node.broadcast(message), 0)
        self.world.advance(5, step=0.05)
        self.assertEqual(self.heard, before)

    def test_a_chain(self) -> None:
        """Of six."""
        self.check(6, list(pairwise(range(6))), most_heard=1)

    def test_a_ring(self) -> None:
        """Of six: it meets itself at the far side, and ends there."""
        self.check(6, [*pairwise(range(6)), (5, 0)], most_heard=2)

    def test_a_star(self) -> None:
        """From the centre, and from a ray."""
        self.check(6, [(0, ray) for ray in range(1, 6)], most_heard=1)

    def test_a_ray_of_a_star(self) -> None:
        """By way of the centre."""
        self.check(6, [(1, ray) for ray in (0, 2, 3, 4, 5)], most_heard=1)

    def test_who_only_observes(self) -> None:
        """Passes nothing on, but what it broadcasts itself."""
        nodes = [
            self.world.node(number, is_observing=True, run_standalone=True, mode=mode)
            for number, mode in ((1, "relay"), (2, "observe"), (3, "relay"))
        ]
        for number in (0, 2):
            self.world.result(nodes[number].connect(ip(2)))
        self.heard = [Counter() for _ in nodes]
        for node, heard in zip(nodes, self.heard, strict=True):
            self.count(node, heard)
        nodes[0].broadcast(nominate(make_node(77), 5, [b"v"]))
        nodes[0].broadcast(kit.transaction(kit.payment()))
        self.world.advance(3, step=0.05)
        self.assertEqual([heard.total() for heard in self.heard], [0, 2, 0])
        self.assertEqual(nodes[1].broadcast(nominate(make_node(78), 5, [b"v"])), 2)
        self.world.advance(1, step=0.05)
        self.assertEqual([heard.total() for heard in self.heard], [1, 2, 1])
