"""Searches for items: who waits, who is asked and when, and how much of it there may be."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.item_fetcher import (
    MAX_TRACKERS,
    MAX_WAITERS,
    MAX_WAITING_BYTES,
    ItemFetcher,
    ItemFetcherStats,
    ItemType,
)
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Link
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, decode_hash_query, encode_hash_query
from tests.builders import quorum_set
from tests.gossip.test_tracker import FakePeer

ITEM = quorum_set()
A_LOT = 1_000_000
"""Questions a minute, where no limit is wanted."""


def hash_of(number: int) -> bytes:
    """Return the hash of an item; no two of different numbers are equal."""
    return number.to_bytes(32, "big", signed=True)


ZERO, TEN, TWELVE, FOURTEEN = map(hash_of, (0, 10, 12, 14))


class FetcherTestCase(SynchronousTestCase):
    """A fetcher, its peers, and envelopes that are told apart by a number.

    :ivar log: the numbers of the peers that were asked, and when.
    :ivar received: the ids of the envelopes whose item came, in order.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.metrics = OverlayMetrics()
        self.links: dict[PeerId, Link] = {}
        self.known: dict[bytes, set[PeerId]] = {}
        self.log: list[tuple[int, float]] = []
        self.received: list[int] = []
        self.slot = 0
        self.fetcher = self.make_fetcher()

    def make_fetcher(
        self,
        item_type: ItemType = ItemType.QUORUM_SET,
        *,
        max_trackers: int = MAX_TRACKERS,
        max_waiters: int = MAX_WAITERS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        questions_per_minute: int | None = A_LOT,
    ) -> ItemFetcher:
        return ItemFetcher(
            item_type,
            links=self.links,
            knows=self.knows,
            clock=self.clock,
            random=random.Random(7),
            metrics=self.metrics,
            max_trackers=max_trackers,
            max_waiters=max_waiters,
            max_waiting_bytes=max_waiting_bytes,
            questions_per_minute=questions_per_minute,
        )

    def knows(self, envelope: bytes) -> Collection[PeerId]:
        return self.known.get(envelope, ())

    def join(self, number: int) -> FakePeer:
        peer = LoggingPeer(number, self)
        self.links[peer.peer_id] = peer
        return peer

    def envelope(self, number: int, size: int = 100, *, signer: int | None = None) -> Waiter:
        """Return an envelope of a slot of its own, to be received as a number.

        :param signer: who says it; by default somebody who says nothing else.
        """
        self.slot += 1
        body = self.slot.to_bytes(8, "big") + hash_of(self.slot if signer is None else -signer)
        return Waiter(
            slot=self.slot,
            envelope=body.ljust(size, b"."),
            deliver=lambda message: self.received.append(number),
        )

    def application(self, deliver: Callable[[Message], None]) -> Waiter:
        return Waiter(slot=None, envelope=None, deliver=deliver)

    def cap_reached(self) -> int:
        return self.metrics.item_fetcher_tracker_cap_reached.get()


class LoggingPeer(FakePeer):
    """Notes when it is asked; answers at once when told to.

    :ivar denies: whether it says DONT_HAVE, a moment later.
    """

    def __init__(self, number: int, test: FetcherTestCase) -> None:
        super().__init__(number)
        self.test = test
        self.denies = False

    def send(self, message: Message) -> bool:
        self.test.log.append((self.number, self.test.clock.seconds()))
        if self.denies:
            item_hash = decode_hash_query(message.body)
            deny = partial(self.test.fetcher.doesnt_have, item_hash, self.peer_id)
            self.test.clock.callLater(0.125, deny)
        return super().send(message)


class WaiterTests(FetcherTestCase):
    """I1 to I4, I8: core's "ItemFetcher fetches"."""

    def setUp(self) -> None:
        super().setUp()
        self.ten, self.twelve, self.another = map(self.envelope, (10, 12, 12))
        self.assertTrue(self.fetcher.fetch(TEN, self.ten))
        self.assertTrue(self.fetcher.fetch(TWELVE, self.twelve))
        self.assertTrue(self.fetcher.fetch(TWELVE, self.another))
        self.assert_wanted({TEN: [self.ten], TWELVE: [self.twelve, self.another]})

    def assert_wanted(self, waiting: dict[bytes, list[Waiter]]) -> None:
        """Assert that these wait, and nobody else; and that there is a timer for each item."""
        for item_hash in (ZERO, TEN, TWELVE, FOURTEEN):
            waiters = waiting.get(item_hash, [])
            envelopes = [waiter.envelope for waiter in waiters]
            self.assertEqual(self.fetcher.fetching_for(item_hash), envelopes)
            self.assertEqual(self.fetcher.is_tracking(item_hash), bool(waiters))
            slot = self.fetcher.get_last_seen_slot_index(item_hash)
            self.assertEqual(slot != 0, bool(waiters))
        self.assertEqual(self.fetcher.num_trackers, len(waiting))
        self.assertEqual(len(self.clock.getDelayedCalls()), len(waiting))
        total = sum(waiter.size for waiters in waiting.values() for waiter in waiters)
        self.assertEqual(self.fetcher.waiting_bytes, total)

    def test_stop_one(self) -> None:
        """I1: the other one that waits for the item still gets it; nothing is wanted then."""
        self.fetcher.stop_fetch(TWELVE, self.twelve)
        self.assert_wanted({TEN: [self.ten], TWELVE: [self.another]})
        self.assertEqual(self.fetcher.recv(TWELVE, ITEM), 1)
        self.assertEqual(self.fetcher.recv(TEN, ITEM), 1)
        self.assertEqual(self.received, [12, 10])
        self.assert_wanted({})

    def test_stop_all(self) -> None:
        """I2: when nobody waits any more the item is not wanted, and nobody gets it."""
        self.fetcher.stop_fetch(TWELVE, self.twelve)
        self.fetcher.stop_fetch(TWELVE, self.another)
        self.assert_wanted({TEN: [self.ten]})
        self.assertIsNone(self.fetcher.recv(TWELVE, ITEM))
        self.fetcher.recv(TEN, ITEM)
        self.assertEqual(self.received, [10])
        self.assert_wanted({})

    def test_do_not_stop(self) -> None:
        """I3: all who wait get it, the newest first."""
        self.assertEqual(self.fetcher.recv(TWELVE, ITEM), 2)
        self.assertEqual(self.fetcher.recv(TEN, ITEM), 1)
        self.assertEqual(self.received, [12, 12, 10])
        self.assert_wanted({})

    def test_no_cache(self) -> None:
        """I4: what came is not kept; who wants it again makes it be asked for again."""
        self.join(1)
        for count in (1, 2):
            again = self.envelope(0)
            self.fetcher.fetch(ZERO, again)
            self.assertEqual(len(self.log), count)
            self.assert_wanted(
                {TEN: [self.ten], TWELVE: [self.twelve, self.another], ZERO: [again]}
            )
            if count == 1:
                self.fetcher.recv(ZERO, ITEM)
        self.assertEqual(self.received, [0])

    def test_nobody_wants_it(self) -> None:
        """I8: an item that was not asked for is nothing to anybody."""
        self.assertIsNone(self.fetcher.recv(ZERO, ITEM))
        self.fetcher.doesnt_have(ZERO, PeerId(bytes(32)))
        self.fetcher.stop_fetch(ZERO, self.ten)
        self.assertEqual(self.received, [])
        self.assert_wanted({TEN: [self.ten], TWELVE: [self.twelve, self.another]})

    def test_what_is_delivered(self) -> None:
        """The message as it came, in the order of the newest, to each once."""
        got: list[tuple[str, Message]] = []
        for name in "ab":
            app = self.application(lambda message, name=name: got.append((name, message)))  # type: ignore[misc]
            self.fetcher.fetch(ZERO, app)
            self.fetcher.fetch(ZERO, app)
        self.assertEqual(self.fetcher.recv(ZERO, ITEM), 2)
        self.assertEqual(got, [("b", ITEM), ("a", ITEM)])

    def test_ranges(self) -> None:
        """What nobody waits for any more is not asked for; an application waits on."""
        app = self.application(lambda message: None)
        self.fetcher.fetch(FOURTEEN, app)
        self.fetcher.stop_fetching_outside_range(3, None, 0)
        self.assertEqual(self.fetcher.fetching_for(TWELVE), [self.another.envelope])
        self.assertEqual((self.fetcher.num_trackers, self.fetcher.waiting_bytes), (2, 100))
        self.fetcher.stop_fetching_outside_range(None, 2, 3)
        self.assertTrue(self.fetcher.is_tracking(TWELVE))
        self.fetcher.stop_fetching_outside_range(None, 2, 0)
        self.assertEqual((self.fetcher.num_trackers, self.fetcher.waiting_bytes), (1, 0))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.fetcher.stop_fetch(FOURTEEN, app)
        self.assert_wanted({})

    def test_times_and_figures(self) -> None:
        """Each item's time is that since it was wanted first, in the timer of its type."""
        self.clock.advance(2)
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.clock.advance(1)
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.assertEqual(
            self.fetcher.get_stats(),
            ItemFetcherStats(
                item_type=ItemType.QUORUM_SET,
                num_trackers=3,
                total_waiting_envelopes=5,
                oldest_fetch_duration=3,
            ),
        )
        self.assertEqual(self.fetcher.get_waiting_time(ZERO), 1)
        self.assertIsNone(self.fetcher.get_waiting_time(FOURTEEN))
        self.fetcher.recv(ZERO, ITEM)
        self.fetcher.recv(TEN, ITEM)
        snapshot = self.metrics.fetch_quorum_set.snapshot()
        self.assertEqual((snapshot.count, snapshot.min, snapshot.max), (2, 1, 3))
        self.assertEqual(self.metrics.fetch_tx_set.snapshot().count, 0)
        self.fetcher.clear()
        self.assertIsNone(self.fetcher.get_stats().oldest_fetch_duration)

    def test_clear(self) -> None:
        """Nothing is wanted any more, and nothing is waited for; but it may be anew."""
        self.fetcher.clear()
        self.assert_wanted({})
        self.assertTrue(self.fetcher.fetch(TEN, self.ten))
        self.assert_wanted({TEN: [self.ten]})

    def test_shutdown(self) -> None:
        """Nothing is wanted ever again; that is no lack of room."""
        self.fetcher.shutdown()
        self.assertFalse(self.fetcher.fetch(TEN, self.ten))
        self.fetcher.peers_changed()
        self.assert_wanted({})
        self.assertEqual(self.cap_reached(), 0)

    def test_a_hash_has_32_bytes(self) -> None:
        """Another one is an error of ours, and would be asked for in vain."""
        for size in (0, 31, 33):
            self.assertRaises(ValueError, self.fetcher.fetch, bytes(size), self.ten)
        self.assertEqual(self.fetcher.num_trackers, 2)


class QuestionTests(FetcherTestCase):
    """I5 to I7: peers are asked in turn."""

    def test_what_was_found_counts_against_nobody(self) -> None:
        """One signer alone names twenty items, and each is there: each is asked for at once."""
        peer = self.join(1)
        fetcher = self.make_fetcher(ItemType.TX_SET, questions_per_minute=None)
        for number in range(20):
            envelope = bytes(8) + bytes([7]) * 32 + number.to_bytes(60, "big")
            waiter = Waiter(slot=1, envelope=envelope, deliver=lambda message: None)
            fetcher.fetch(hash_of(number), waiter)
            self.assertEqual(len(peer.asked), number + 1)
            fetcher.recv(hash_of(number), ITEM)

    def test_the_question(self) -> None:
        """For the hash, of the kind of the item."""
        for item_type, kind, per_minute in (
            (ItemType.TX_SET, MessageType.GET_TX_SET, 25),
            (ItemType.QUORUM_SET, MessageType.GET_SCP_QUORUMSET, 12),
        ):
            peer = self.join(1)
            fetcher = self.make_fetcher(item_type, questions_per_minute=None)
            for number in range(40):
                fetcher.fetch(hash_of(number), self.application(lambda message: None))
            self.assertEqual(len(peer.asked), per_minute)
            for number, message in enumerate(peer.asked):
                self.assertEqual(message.body, encode_hash_query(kind, hash_of(number)))
            fetcher.recv(hash_of(0), ITEM)
        snapshot = self.metrics.snapshot()
        self.assertEqual(
            [
                getattr(snapshot[name], "count", None)
                for name in ("fetch_tx_set", "fetch_quorum_set")
            ],
            [1, 1],
        )

    def test_in_turn(self) -> None:
        """I5: one question at once, one more to the other peer; none once the item came."""
        for wanted in (1, 2):
            self.setUp()
            for number in (1, 2):
                self.join(number)
            for _ in range(wanted):
                self.fetcher.fetch(ZERO, self.envelope(0))
            self.assertEqual(len(self.log), 1)
            self.clock.pump([0.5] * 6)
            self.assertEqual(sorted(number for number, _ in self.log), [1, 2])
            self.assertEqual([when for _, when in self.log], [0, 1.5])
            self.fetcher.recv(ZERO, ITEM)
            self.clock.pump([0.5] * 120)
            self.assertEqual(len(self.log), 2)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def rounds(self, *, denies: bool) -> list[list[tuple[int, float]]]:
        """Return the questions of 100 rounds, after one with nobody there."""
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.assertEqual(self.log, [])
        for number in (1, 2):
            peer = self.join(number)
            assert isinstance(peer, LoggingPeer)
            peer.denies = denies
        while len(self.log) < 200:
            self.clock.advance(0.0625)
        return [self.log[at : at + 2] for at in range(0, 200, 2)]

    def assert_rounds(self, *, denies: bool) -> None:
        rounds = self.rounds(denies=denies)
        for number, round_ in enumerate(rounds):
            (one, first), (other, second) = round_
            self.assertEqual({one, other}, {1, 2})
            to_answer = 0.125 if denies else 1.5
            self.assertEqual(second - first, to_answer)
            if number:
                last = rounds[number - 1][1][1]
                self.assertEqual(first - last, to_answer + 1.5 * min(10, number))

    def test_mute_peers(self) -> None:
        """I6: 1.5 s within a round; between rounds as much as often, up to 10 times, to 15 s."""
        self.assert_rounds(denies=False)

    def test_dont_have(self) -> None:
        """I7: at once within a round; between rounds, as long as with mute ones."""
        self.assert_rounds(denies=True)

    def test_both_minutes_are_kept(self) -> None:
        """With many items wanted, no peer is asked more often than one answers (25 a minute)."""
        self.fetcher = self.make_fetcher(ItemType.TX_SET, questions_per_minute=None)
        for number in (1, 2, 3):
            self.join(number)
        for number in range(200):
            for _ in range(2):
                self.fetcher.fetch(hash_of(number), self.envelope(number))
        self.clock.pump([0.5] * 400)
        for number in (1, 2, 3):
            times = [when for who, when in self.log if who == number]
            self.assertGreaterEqual(len(times), 75)
            for at in range(len(times) - 25):
                self.assertGreaterEqual(times[at + 25] - times[at], 60)

    def test_a_late_dont_have(self) -> None:
        """Of a peer that was given up already: nobody is asked before it is time."""
        for number in (1, 2, 3):
            self.join(number)
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.clock.advance(1.5)
        first = PeerId(hash_of(self.log[0][0]))
        self.fetcher.doesnt_have(ZERO, first)
        self.assertEqual(len(self.log), 2)
        self.assertEqual(self.metrics.item_fetcher_next_peer.get(), 1)


class ShareTests(FetcherTestCase):
    """Who invents hashes uses up its own questions, and nobody else's.

    Of the 25 in a minute a signer has 5 for what it alone names, and all such signers have 15.
    """

    def setUp(self) -> None:
        super().setUp()
        self.fetcher = self.make_fetcher(ItemType.TX_SET, questions_per_minute=None)
        self.peer = self.join(1)
        self.invented = 1000

    def invent(self, count: int, signer: int) -> None:
        """Let a signer name so many items that nobody has."""
        for _ in range(count):
            self.invented += 1
            waiter = self.envelope(self.invented, signer=signer)
            self.fetcher.fetch(hash_of(self.invented), waiter)

    def was_asked(self, item_hash: bytes) -> bool:
        """Tell whether the peer was asked for an item."""
        return encode_hash_query(MessageType.GET_TX_SET, item_hash) in [
            message.body for message in self.peer.asked
        ]

    def test_one_who_invents(self) -> None:
        """Five questions, and no more within the minute; what others name is asked at once."""
        self.invent(100, signer=1)
        self.clock.pump([0.5] * 100)
        self.assertEqual(len(self.log), 5)
        self.fetcher.fetch(TEN, self.envelope(10, signer=2))
        self.assertTrue(self.was_asked(TEN))
        self.fetcher.fetch(TWELVE, self.application(lambda message: None))
        self.assertTrue(self.was_asked(TWELVE))

    def test_what_it_names_like_others(self) -> None:
        """Is asked: it cannot keep us from it by naming it first, nor by naming it often."""
        self.invent(10, signer=1)
        for number in range(20):
            self.fetcher.fetch(TEN, self.envelope(number, signer=1))
        self.assertFalse(self.was_asked(TEN))
        self.fetcher.fetch(TEN, self.envelope(10, signer=2))
        self.clock.advance(1.5)
        self.assertTrue(self.was_asked(TEN))

    def test_twenty_who_invent(self) -> None:
        """Fifteen questions; ten are left for what two name, and for applications."""
        for signer in range(1, 21):
            self.invent(10, signer=signer)
        self.clock.pump([0.5] * 20)
        self.assertEqual(len(self.log), 15)
        self.fetcher.fetch(TEN, self.envelope(10, signer=30))
        self.assertFalse(self.was_asked(TEN))
        self.fetcher.fetch(TEN, self.envelope(10, signer=31))
        self.clock.advance(1.5)
        self.assertTrue(self.was_asked(TEN))
        for number in range(20):
            waiter = self.application(lambda message: None)
            self.fetcher.fetch(hash_of(number + 100), waiter)
        self.assertEqual(len(self.log), 25)

    def test_an_application_that_comes_later(self) -> None:
        """What one signer alone named is asked for as soon as an application wants it, too."""
        self.invent(5, signer=1)
        self.fetcher.fetch(TEN, self.envelope(10, signer=1))
        self.fetcher.fetch(TEN, self.application(lambda message: None))
        self.clock.advance(1.5)
        self.assertTrue(self.was_asked(TEN))

    def test_the_minute_slides(self) -> None:
        """Each question is free again a minute after it was put, of a share as of the whole."""
        for _ in range(5):
            self.invent(1, signer=1)
            self.clock.advance(1)
        self.invent(20, signer=1)
        self.clock.pump([0.5] * 109)
        self.assertEqual([when for _, when in self.log], [0, 1, 2, 3, 4])
        self.clock.pump([0.5] * 30)
        times = [when for _, when in self.log]
        self.assertEqual(len(times), 10)
        for at in range(5):
            self.assertGreaterEqual(times[at + 5] - times[at], 60)
            self.assertLess(times[at + 5] - times[at], 61.5)

    def test_quorum_sets(self) -> None:
        """Of the 12 in a minute: 2 for each signer, 7 for all such."""
        self.fetcher = self.make_fetcher(ItemType.QUORUM_SET, questions_per_minute=None)
        for signer in range(1, 21):
            before = len(self.log)
            self.invent(10, signer=signer)
            self.assertLessEqual(len(self.log) - before, 2)
        self.assertEqual(len(self.log), 7)

    def test_each_peer_has_its_own_shares(self) -> None:
        """What could not be asked of one is asked of the next."""
        self.join(2)
        self.invent(20, signer=1)
        self.assertEqual(sorted(number for number, _ in self.log), [1] * 5 + [2] * 5)


class NewcomerTests(FetcherTestCase):
    """Core lets what could be asked of nobody wait for up to 15 s more."""

    def test_the_first_peer(self) -> None:
        """Is asked as soon as it is there, and the next as soon as its time comes."""
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.clock.pump([0.5] * 200)
        for number in (1, 2):
            self.join(number)
            self.fetcher.peers_changed()
            self.assertEqual(self.log, [(1, 100.0)])
        self.clock.advance(1.5)
        self.assertEqual(self.log, [(1, 100.0), (2, 101.5)])

    def test_nobody_there(self) -> None:
        """That a peer left is nothing to act upon, and does not keep from acting later."""
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.fetcher.peers_changed()
        self.join(1)
        self.fetcher.peers_changed()
        self.assertEqual(self.log, [(1, 0.0)])

    def test_pauses_stay(self) -> None:
        """Where somebody was asked in the round, who comes later waits for the next one."""
        self.join(1)
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.clock.pump([1.5] * 2)
        self.join(2)
        self.fetcher.peers_changed()
        self.assertEqual(len(self.log), 2)
        self.clock.advance(1.5)
        self.clock.advance(1.0)
        self.fetcher.peers_changed()
        self.assertEqual(len(self.log), 3)

    def test_not_too_often(self) -> None:
        """Peers that come and go by the hundred do not have all searches look again each time."""
        fetcher = self.make_fetcher(questions_per_minute=1)
        self.join(1)
        for number in range(100):
            fetcher.fetch(hash_of(number), self.envelope(number))
        self.assertEqual(len(self.log), 1)
        for number in range(2, 52):
            self.join(number)
            fetcher.peers_changed()
        self.assertEqual(len(self.log), 2)
        self.clock.advance(1.5)
        self.assertEqual(len(self.log), 51)


class DeliveryTests(FetcherTestCase):
    """What they who get an item may do meanwhile."""

    def test_fetch_again(self) -> None:
        """It is looked for anew, by a search of its own."""
        self.join(1)
        again = self.envelope(2)

        def refetch(message: Message) -> None:
            self.received.append(1)
            self.assertFalse(self.fetcher.is_tracking(ZERO))
            self.fetcher.fetch(ZERO, again)

        self.fetcher.fetch(ZERO, self.envelope(0))
        self.fetcher.fetch(ZERO, self.application(refetch))
        self.assertEqual(self.fetcher.recv(ZERO, ITEM), 2)
        self.assertEqual(self.received, [1, 0])
        self.assertEqual((len(self.log), self.fetcher.fetching_for(ZERO)), (2, [again.envelope]))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_receive_again(self) -> None:
        """A second copy within the delivery of the first is wanted by nobody."""
        again: list[int | None] = []
        self.fetcher.fetch(ZERO, self.envelope(0))
        self.fetcher.fetch(
            ZERO, self.application(lambda message: again.append(self.fetcher.recv(ZERO, ITEM)))
        )
        self.assertEqual(self.fetcher.recv(ZERO, ITEM), 2)
        self.assertEqual((self.received, again), ([0], [None]))

    def test_withdraw_another(self) -> None:
        """Nothing is delivered to whom somebody else made wait no more, in whatever way."""
        other = self.envelope(0)
        for withdraw in (
            lambda: self.fetcher.stop_fetch(ZERO, other),
            self.fetcher.clear,
            self.fetcher.shutdown,
        ):
            self.fetcher.fetch(ZERO, other)
            self.fetcher.fetch(
                ZERO,
                self.application(lambda message, withdraw=withdraw: withdraw()),  # type: ignore[misc]
            )
            self.assertEqual(self.fetcher.recv(ZERO, ITEM), 1)
            self.assertEqual(self.fetcher.waiting_bytes, 0)
        self.assertEqual(self.received, [])

    def test_failures(self) -> None:
        """The others get it all the same; the first failure is the caller's."""

        def fail(text: str, message: Message) -> None:
            raise RuntimeError(text)

        for app in (
            self.application(partial(fail, "second")),
            self.envelope(2),
            self.application(partial(fail, "first")),
            self.envelope(1),
        ):
            self.fetcher.fetch(ZERO, app)
        error = self.assertRaises(RuntimeError, self.fetcher.recv, ZERO, ITEM)
        self.assertEqual((str(error), self.received), ("first", [1, 2]))
        self.assertEqual((self.fetcher.num_trackers, self.clock.getDelayedCalls()), (0, []))
        self.assertEqual(self.fetcher._delivering, [])
        self.fetcher.fetch(ZERO, self.envelope(3))
        self.assertEqual(self.fetcher.recv(ZERO, ITEM), 1)

    def test_at_once(self) -> None:
        """An item that comes within the question leaves nothing behind."""
        fetcher = self.fetcher

        class Quick(FakePeer):
            def send(self, message: Message) -> bool:
                fetcher.recv(decode_hash_query(message.body), ITEM)
                return super().send(message)

        quick = Quick(1)
        self.links[quick.peer_id] = quick
        self.assertTrue(fetcher.fetch(ZERO, self.envelope(7)))
        self.assertEqual((self.received, fetcher.num_trackers), ([7], 0))
        self.assertEqual((self.clock.getDelayedCalls(), fetcher.waiting_bytes), ([], 0))


class BoundTests(FetcherTestCase):
    """Y16, and what else there may be of."""

    def test_trackers(self) -> None:
        """Y16: 512 items; one more is refused and counted; who wants one of them may wait too."""
        for number in range(MAX_TRACKERS):
            self.assertTrue(self.fetcher.fetch(hash_of(number), self.envelope(number)))
        self.assertEqual(self.fetcher.num_trackers, 512)
        one_more = self.envelope(-1)
        self.assertFalse(self.fetcher.fetch(hash_of(512), one_more))
        self.assertFalse(self.fetcher.is_tracking(hash_of(512)))
        self.assertEqual((self.fetcher.num_trackers, self.cap_reached()), (512, 1))
        self.assertTrue(self.fetcher.fetch(hash_of(0), self.envelope(0)))
        self.assertEqual(self.cap_reached(), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 512)

    def test_room_again(self) -> None:
        """Y16: an item that came, or that nobody wants any more, makes room for another."""
        fetcher = self.make_fetcher(max_trackers=2)
        first, second = self.envelope(1), self.envelope(2)
        fetcher.fetch(hash_of(1), first)
        fetcher.fetch(hash_of(2), second)
        self.assertFalse(fetcher.fetch(hash_of(3), self.envelope(3)))
        fetcher.recv(hash_of(1), ITEM)
        self.assertTrue(fetcher.fetch(hash_of(3), self.envelope(3)))
        self.assertFalse(fetcher.fetch(hash_of(4), self.envelope(4)))
        fetcher.stop_fetch(hash_of(2), second)
        self.assertEqual(fetcher.num_trackers, 1)
        self.assertTrue(fetcher.fetch(hash_of(4), self.envelope(4)))
        fetcher.stop_fetching_outside_range(1000, None, 0)
        self.assertEqual(fetcher.num_trackers, 0)

    def test_no_limit(self) -> None:
        """Y16: 0 means as many as are wanted."""
        fetcher = self.make_fetcher(max_trackers=0)
        for number in range(MAX_TRACKERS + 100):
            self.assertTrue(fetcher.fetch(hash_of(number), self.envelope(number)))
        self.assertEqual((fetcher.num_trackers, self.cap_reached()), (612, 0))

    def test_waiters(self) -> None:
        """A thousand for one item; one that waits already is not refused."""
        first = self.envelope(0)
        self.fetcher.fetch(ZERO, first)
        for number in range(1, MAX_WAITERS):
            self.assertTrue(self.fetcher.fetch(ZERO, self.envelope(number)))
        self.assertFalse(self.fetcher.fetch(ZERO, self.envelope(-1)))
        self.assertFalse(self.fetcher.fetch(ZERO, self.application(lambda message: None)))
        self.assertEqual(self.cap_reached(), 2)
        self.assertTrue(self.fetcher.fetch(ZERO, first))
        self.assertTrue(self.fetcher.fetch(TEN, self.envelope(10)))
        self.fetcher.stop_fetch(ZERO, first)
        self.assertTrue(self.fetcher.fetch(ZERO, self.envelope(-1)))
        self.assertEqual(self.fetcher.recv(ZERO, ITEM), MAX_WAITERS)
        self.assertEqual(self.received, [-1, *reversed(range(1, MAX_WAITERS))])

    def test_bytes(self) -> None:
        """Over all items; who waits without an envelope always has room."""
        fetcher = self.make_fetcher(max_waiting_bytes=250)
        first = self.envelope(1)
        for item_hash in (TEN, TWELVE):
            self.assertTrue(fetcher.fetch(item_hash, first))
        self.assertEqual(fetcher.waiting_bytes, 200)
        self.assertFalse(fetcher.fetch(ZERO, self.envelope(2, size=51)))
        self.assertFalse(fetcher.fetch(TEN, self.envelope(2, size=51)))
        self.assertEqual((self.cap_reached(), fetcher.num_trackers), (2, 2))
        self.assertTrue(fetcher.fetch(ZERO, self.envelope(3, size=50)))
        self.assertTrue(fetcher.fetch(ZERO, self.application(lambda message: None)))
        self.assertTrue(fetcher.fetch(TEN, first))
        fetcher.recv(TEN, ITEM)
        self.assertEqual(fetcher.waiting_bytes, 150)
        self.assertTrue(fetcher.fetch(FOURTEEN, self.envelope(4)))
        fetcher.clear()
        self.assertEqual(fetcher.waiting_bytes, 0)
