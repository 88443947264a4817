"""Awaiting an item that some peer has: found, fetched, too late, given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import (
    FetchTimeout,
    NotStarted,
    OverlayError,
    ShuttingDown,
    XdrError,
)
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.fetching import Fetches
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_dont_have,
    decode_hash_query,
    encode_dont_have,
    encode_hash_query,
)
from stellar_overlay.wire.quorum_set import quorum_set_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set, tx_set_hash
from tests.builders import advert, quorum_set, scp_nominate, transaction
from tests.node.world import WorldTestCase

HASH = bytes(range(32))
ITEM = generalized_tx_set(bytes(32), [transaction().body[4:]])
ITEM_HASH = tx_set_hash(ITEM.body)
QUORUM_SET = quorum_set(3)
QUORUM_SET_HASH = quorum_set_hash(QUORUM_SET.body)


class FakeFetcher:
    """Who waits for what.

    :ivar here: what is delivered at once.
    :ivar has_room: whether anybody may wait.
    """

    def __init__(self) -> None:
        self.waiting: list[tuple[bytes, Waiter]] = []
        self.here: Message | None = None
        self.has_room = True
        self.stopped = 0

    def start(self, item_hash: bytes, waiter: Waiter) -> bool:
        if self.here is not None:
            waiter.deliver(self.here)
        elif self.has_room:
            self.waiting.append((item_hash, waiter))
        return self.has_room

    def stop(self, item_hash: bytes, waiter: Waiter) -> None:
        self.stopped += 1
        if (item_hash, waiter) in self.waiting:
            self.waiting.remove((item_hash, waiter))

    def deliver(self, item: Message = ITEM) -> None:
        """Let the item come."""
        while self.waiting:
            self.waiting.pop()[1].deliver(item)


class FetchItemTests(SynchronousTestCase):
    """A Deferred around a waiter; whatever ends it, nobody waits and no timer is left."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fetcher = FakeFetcher()
        self.fetches = Fetches(self.clock)
        self.addCleanup(self.leave_nothing_behind)

    def leave_nothing_behind(self) -> None:
        """Check that nobody waits any more."""
        self.assertEqual(self.fetcher.waiting, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def fetch(self, item_hash: Any = HASH, seconds: Any = 10) -> Deferred[Message]:
        """Begin to fetch."""
        return Deferred.fromCoroutine(
            self.fetches.fetch(self.fetcher.start, self.fetcher.stop, item_hash, seconds)
        )

    def outlive(self, one: Deferred[Any], other: Deferred[Any]) -> None:
        """Let the end of one fetch cancel another."""
        one.addErrback(lambda failure: other.cancel())

    def test_what_is_here(self) -> None:
        """Comes at once, and costs no timer."""
        self.fetcher.here = ITEM
        self.assertIs(self.successResultOf(self.fetch()), ITEM)

    def test_what_comes(self) -> None:
        """Ends the wait, however late it is."""
        for seconds in (0, 9.999):
            fetching = self.fetch()
            self.clock.advance(seconds)
            self.assertNoResult(fetching)
            self.fetcher.deliver()
            self.assertIs(self.successResultOf(fetching), ITEM)
            self.leave_nothing_behind()

    def test_too_late(self) -> None:
        """FetchTimeout says what did not come, and how long that took; it may be tried again."""
        fetching = self.fetch(seconds=2.5)
        self.clock.advance(2.5)
        error = self.failureResultOf(fetching, FetchTimeout).value
        self.assertEqual(str(error), f"no peer sent {HASH.hex()} within 2.5 s")
        assert isinstance(error, FetchTimeout)
        self.assertTrue(error.retriable)

    def test_cancelled(self) -> None:
        """What comes afterwards concerns nobody."""
        fetching = self.fetch()
        ((_, waiter),) = self.fetcher.waiting
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.leave_nothing_behind()
        waiter.deliver(ITEM)
        self.assertEqual(self.fetcher.stopped, 1)

    def test_cancelled_by_who_waits_for_it(self) -> None:
        """A coroutine that is cancelled cancels what it awaits."""

        async def want() -> Message:
            return await self.fetches.fetch(self.fetcher.start, self.fetcher.stop, HASH, 10)

        wanting = Deferred.fromCoroutine(want())
        wanting.cancel()
        self.failureResultOf(wanting, CancelledError)

    def test_too_many(self) -> None:
        """Is said at once."""
        self.fetcher.has_room = False
        error = self.failureResultOf(self.fetch(), OverlayError).value
        self.assertRegex(str(error), f"{HASH.hex()} is not asked for")

    def test_what_is_no_hash(self) -> None:
        """Refused before anybody is asked, with not too much of it in the text."""
        for wrong in (b"", bytes(31), bytes(33), bytes(10_000), HASH.hex(), None, 32, [0] * 32):
            error = self.failureResultOf(self.fetch(wrong), ValueError).value
            self.assertRegex(str(error), "a hash is 32 bytes, not ")
            self.assertLess(len(str(error)), 150)
        self.assertEqual(self.fetcher.stopped, 0)

    def test_what_may_change(self) -> None:
        """A bytearray is copied."""
        mutable = bytearray(HASH)
        fetching = self.fetch(mutable)
        mutable[0] ^= 1
        self.assertEqual([item_hash for item_hash, _ in self.fetcher.waiting], [HASH])
        self.fetcher.deliver()
        self.successResultOf(fetching)

    def test_what_is_no_time(self) -> None:
        """Zero, less, and what is no number at all."""
        for wrong in (0, -1, float("nan"), float("-inf")):
            error = self.failureResultOf(self.fetch(seconds=wrong), ValueError).value
            self.assertRegex(str(error), "number of seconds above 0")

    def test_several(self) -> None:
        """Each has its own time; the item is everybody's."""
        first, second, third = self.fetch(seconds=1), self.fetch(seconds=5), self.fetch()
        self.assertEqual(len(self.fetcher.waiting), 3)
        self.clock.advance(1)
        self.failureResultOf(first, FetchTimeout)
        self.assertEqual(len(self.fetcher.waiting), 2)
        self.fetcher.deliver()
        self.assertEqual([self.successResultOf(one) for one in (second, third)], [ITEM, ITEM])

    def test_the_end_of_all(self) -> None:
        """Who waits is told that the overlay stops, at once; who had an end before is not."""
        late, cancelled, served = self.fetch(seconds=1), self.fetch(), self.fetch()
        self.fetcher.waiting.pop()[1].deliver(ITEM)
        self.clock.advance(1)
        cancelled.cancel()
        for ended, kind in ((late, FetchTimeout), (cancelled, CancelledError)):
            self.failureResultOf(ended, kind)
        waiting = [self.fetch() for _ in range(3)]
        self.fetches.end_all()
        for fetching in waiting:
            self.failureResultOf(fetching, ShuttingDown)
        self.assertIs(self.successResultOf(served), ITEM)
        self.leave_nothing_behind()
        self.fetches.end_all()

    def test_the_end_of_one_ends_another(self) -> None:
        """Who hears of the end may cancel what else it waits for."""
        first, second = self.fetch(), self.fetch()
        for one, other in ((first, second), (second, first)):
            self.outlive(one, other)
        self.fetches.end_all()
        for fetching in (first, second):
            self.assertIsNone(self.successResultOf(fetching))

    def test_who_fetches_the_next_one_at_once(self) -> None:
        """From within the delivery."""

        async def want_two() -> list[Message]:
            return [await self.fetch(), await self.fetch()]

        wanting = Deferred.fromCoroutine(want_two())
        ((_, waiter),) = self.fetcher.waiting
        self.fetcher.waiting.clear()
        waiter.deliver(ITEM)
        self.assertNoResult(wanting)
        self.fetcher.deliver(QUORUM_SET)
        self.assertEqual(self.successResultOf(wanting), [ITEM, QUORUM_SET])


class OverlayFetchTests(WorldTestCase):
    """``fetch_tx_set``, ``fetch_quorum_set`` and ``publish`` of a node."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node()
        self.peer = self.world.call(number=9)
        self.other = self.world.call(number=8)

    def questions(self, peer: ScriptedPeer, kind: MessageType) -> list[bytes]:
        """Return what a peer was asked for, pings aside."""
        hashes = [decode_hash_query(message.body) for message in peer.of_type(kind)]
        return [item_hash for item_hash in hashes if item_hash in (ITEM_HASH, QUORUM_SET_HASH)]

    def asked(self, kind: MessageType = MessageType.GET_TX_SET) -> list[ScriptedPeer]:
        """Return the peers that were asked, as often as they were."""
        return [peer for peer in (self.peer, self.other) for _ in self.questions(peer, kind)]

    def stats(self) -> tuple[int, int]:
        """Return how many items of each kind are looked for."""
        stats = self.node._flooding.dispatcher.stats
        return stats.tx_set_fetcher.num_trackers, stats.quorum_set_fetcher.num_trackers

    def each(self) -> list[tuple[Callable[..., Any], bytes, Message, MessageType]]:
        """Return how each kind is fetched, and what of."""
        return [
            (self.node.fetch_tx_set, ITEM_HASH, ITEM, MessageType.GET_TX_SET),
            (
                self.node.fetch_quorum_set,
                QUORUM_SET_HASH,
                QUORUM_SET,
                MessageType.GET_SCP_QUORUMSET,
            ),
        ]

    def test_fetched(self) -> None:
        """One peer is asked; its answer is the result, and is here from then on."""
        for fetch, item_hash, item, kind in self.each():
            fetching = self.world.outcome(fetch(item_hash))
            self.world.settle()
            (asked,) = self.asked(kind)
            asked.send(item)
            self.world.settle()
            self.assertEqual(fetching, [item])
            self.assertEqual(self.world.result(fetch(item_hash)), item)
            self.assertEqual(len(self.asked(kind)), 1)
        self.assertEqual(self.stats(), (0, 0))

    def test_what_was_fetched_is_given_to_others(self) -> None:
        """Like what was published."""
        fetching = self.world.outcome(self.node.fetch_tx_set(ITEM_HASH))
        self.world.settle()
        self.asked()[0].send(ITEM)
        newcomer = self.world.call(number=7)
        newcomer.send(Message(encode_hash_query(MessageType.GET_TX_SET, ITEM_HASH)))
        self.world.settle()
        self.assertEqual(fetching, [ITEM])
        self.assertEqual(newcomer.of_type(MessageType.GENERALIZED_TX_SET), [ITEM])

    def test_who_does_not_have_it(self) -> None:
        """The next peer is asked at once."""
        fetching = self.world.outcome(self.node.fetch_tx_set(ITEM_HASH))
        self.world.settle()
        (first,) = self.asked()
        first.send(Message(encode_dont_have(MessageType.TX_SET, ITEM_HASH)))
        self.world.settle()
        (second,) = [peer for peer in self.asked() if peer is not first]
        second.send(ITEM)
        self.world.settle()
        self.assertEqual(fetching, [ITEM])

    def test_two_at_once(self) -> None:
        """One question, and both get the answer; one may be cancelled."""
        fetches = [Deferred.fromCoroutine(self.node.fetch_tx_set(ITEM_HASH)) for _ in range(3)]
        outcomes = [self.world.outcome(fetch) for fetch in fetches]
        fetches[1].cancel()
        self.world.settle()
        (asked,) = self.asked()
        asked.send(ITEM)
        self.world.settle()
        self.assertEqual((outcomes[0], outcomes[2]), ([ITEM], [ITEM]))
        self.assertIsInstance(outcomes[1][0], CancelledError)

    def test_both_kinds_at_once(self) -> None:
        """A hash is looked for as what it is asked as."""
        outcomes = [
            self.world.outcome(self.node.fetch_tx_set(HASH, 2)),
            self.world.outcome(self.node.fetch_quorum_set(HASH, 2)),
        ]
        self.assertEqual(self.stats(), (1, 1))
        self.world.advance(2)
        for (outcome,) in outcomes:
            self.assertIsInstance(outcome, FetchTimeout)
        self.assertEqual(self.stats(), (0, 0))

    def test_too_late(self) -> None:
        """Both peers were asked meanwhile; then nobody is asked, and nothing is kept."""
        with self.assertRaises(FetchTimeout):
            self.world.result(self.node.fetch_tx_set(ITEM_HASH, timeout=4), 4)
        self.assertEqual(set(self.asked()), {self.peer, self.other})
        before = len(self.asked())
        self.assertEqual(self.stats(), (0, 0))
        self.world.advance(8)
        self.assertEqual(len(self.asked()), before)
        self.peer.send(ITEM)
        self.world.settle()
        self.assertEqual(self.node._flooding.dispatcher.stats.cached_tx_sets, 0)

    def test_cancelled(self) -> None:
        """Nothing is left waiting, and the answer is thrown away."""
        fetching = Deferred.fromCoroutine(self.node.fetch_tx_set(ITEM_HASH))
        outcome = self.world.outcome(fetching)
        self.world.settle()
        fetching.cancel()
        self.assertIsInstance(outcome[0], CancelledError)
        self.assertEqual(self.stats(), (0, 0))
        self.asked()[0].send(ITEM)
        self.world.settle()
        self.assertEqual(self.node._flooding.dispatcher.stats.cached_tx_sets, 0)

    def test_a_hash_of_another_size(self) -> None:
        """Nobody is asked, and nothing is looked for."""
        for fetch, *_ in self.each():
            for wrong in (b"", bytes(31), bytes(33)):
                with self.assertRaises(ValueError):
                    self.world.result(fetch(wrong))
        self.assertEqual((self.stats(), self.asked()), ((0, 0), []))

    def test_without_peers(self) -> None:
        """Whoever comes first is asked at once."""
        node = self.world.node(2)
        fetching = self.world.outcome(node.fetch_tx_set(ITEM_HASH))
        self.world.advance(1)
        peer = self.world.call(2, number=7)
        self.assertEqual(self.questions(peer, MessageType.GET_TX_SET), [ITEM_HASH])
        peer.send(ITEM)
        self.world.settle()
        self.assertEqual(fetching, [ITEM])

    def test_of_a_node_that_does_not_run(self) -> None:
        """Before the start and after the stop."""
        node = self.world.node(2, is_started=False)
        for _ in range(2):
            for fetch in (node.fetch_tx_set, node.fetch_quorum_set):
                with self.assertRaises(NotStarted):
                    self.world.result(fetch(ITEM_HASH))
            self.world.result(node.stop())

    def test_a_node_that_stops(self) -> None:
        """Who waits is told at once, and not when its time is over."""
        outcomes = [self.world.outcome(fetch(HASH, 60)) for fetch, *_ in self.each()]
        self.world.result(self.node.stop())
        for (outcome,) in outcomes:
            self.assertIsInstance(outcome, ShuttingDown)
        self.world.advance(5)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_between_nodes(self) -> None:
        """What one publishes the other fetches."""
        other: OverlayManager = self.world.node(2)
        self.world.result(other.connect("10.0.0.1"))
        for fetch, item_hash, item, _ in (
            (other.fetch_tx_set, ITEM_HASH, ITEM, None),
            (other.fetch_quorum_set, QUORUM_SET_HASH, QUORUM_SET, None),
        ):
            self.assertEqual(self.node.publish(item), item_hash)
            self.assertEqual(self.world.result(fetch(item_hash), 1), item)


class PublishTests(WorldTestCase):
    """``publish``: what is kept for whoever asks."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node()
        self.peer = self.world.call()

    def ask(self, kind: MessageType, item_hash: bytes) -> list[Message]:
        """Let the peer ask; return what it is answered."""
        before = len(self.peer.received)
        self.peer.send(Message(encode_hash_query(kind, item_hash)))
        self.world.settle()
        return self.peer.received[before:]

    def test_what_is_given(self) -> None:
        """Exactly what was published, under the hash that was returned."""
        for item, kind in (
            (ITEM, MessageType.GET_TX_SET),
            (tx_set(bytes(32), [transaction().body[4:]]), MessageType.GET_TX_SET),
            (QUORUM_SET, MessageType.GET_SCP_QUORUMSET),
        ):
            self.assertEqual(self.ask(kind, self.node.publish(item)), [item])

    def test_the_hashes(self) -> None:
        """Those by which the network asks for them."""
        self.assertEqual(self.node.publish(ITEM), ITEM_HASH)
        self.assertEqual(self.node.publish(QUORUM_SET), QUORUM_SET_HASH)

    def test_as_sdk_object(self) -> None:
        """A ``stellar_sdk.xdr.StellarMessage`` is as good."""
        item_hash = self.node.publish(QUORUM_SET.decoded)
        self.assertEqual(self.ask(MessageType.GET_SCP_QUORUMSET, item_hash), [QUORUM_SET])

    def test_nothing_was_published(self) -> None:
        """DONT_HAVE."""
        (answer,) = self.ask(MessageType.GET_TX_SET, ITEM_HASH)
        self.assertEqual(decode_dont_have(answer.body), (17, ITEM_HASH))

    def test_what_is_refused(self) -> None:
        """What nobody asks for by hash, and what peers would drop us for."""
        for message in (transaction(), scp_nominate(), advert()):
            with self.assertRaises(ValueError):
                self.node.publish(message)
        with self.assertRaises(XdrError):
            self.node.publish(Message(ITEM.body + bytes(4)))
        with self.assertRaises(TypeError):
            self.node.publish(ITEM.body)  # type: ignore[arg-type]

    def test_of_a_node_that_does_not_run(self) -> None:
        """Before the start and after the stop: nothing is kept, nor is the herder told."""
        told: list[bytes] = []

        class Herder(IgnoringHerder):
            def recv_tx_set(self, item_hash: bytes, message: Message) -> None:
                told.append(item_hash)

        node = self.world.node(2, herder=Herder(), is_started=False)
        for _ in range(2):
            with self.assertRaises(NotStarted):
                node.publish(ITEM)
            self.world.result(node.stop())
        self.assertEqual(told, [])
        self.assertEqual(node._flooding.dispatcher.stats.cached_tx_sets, 0)

    def test_who_waits_for_it(self) -> None:
        """Gets it as if a peer had sent it."""
        fetching = self.world.outcome(self.node.fetch_tx_set(ITEM_HASH))
        self.assertEqual(fetching, [])
        self.node.publish(ITEM)
        self.assertEqual(fetching, [ITEM])
