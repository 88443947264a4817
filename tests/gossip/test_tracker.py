"""Who waits for one item, and whom it is asked of: I9 to I13, and the order of peers."""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from collections.abc import Collection, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip import tracker as tracker_module
from stellar_overlay.gossip.tracker import Anycast, QuestionPace, Tracker, Waiter
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Link
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, encode_hash_query
from tests.builders import scp_nominate

HASH = bytes(range(32))
QUESTION = Message(encode_hash_query(MessageType.GET_TX_SET, HASH))
A_LOT = 1_000_000
"""Questions a minute, where no limit is wanted."""
QUESTIONS = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from((None, b"a", b"b", b"c", b"d"))), max_size=60
)
"""How long after the last one each is put, and on whose behalf."""


class FakePeer:
    """A peer that keeps what it is asked.

    :ivar is_open: whether it gets what it is sent.
    """

    def __init__(self, number: int, log: list[int] | None = None) -> None:
        self.number = number
        self.peer_id = PeerId(number.to_bytes(32, "big"))
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.ping_ms: int | None = 10
        self.is_open = True
        self.asked: list[Message] = []
        self.log: list[int] = [] if log is None else log

    def send(self, message: Message) -> bool:
        if self.is_open:
            self.asked.append(message)
            self.log.append(self.number)
        return self.is_open


def waiter(slot: int | None = 1, envelope: bytes | None = None) -> Waiter:
    """Return somebody to whom nothing can be delivered; by default for an envelope of the slot."""
    if envelope is None and slot is not None:
        envelope = b"envelope of %d" % slot
    return Waiter(slot=slot, envelope=envelope, deliver=lambda message: None)


class TrackerTestCase(SynchronousTestCase):
    """A tracker, and peers that join and learn of envelopes as they are told.

    :ivar log: the numbers of the peers that were asked, in order.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.metrics = OverlayMetrics()
        self.links: dict[PeerId, Link] = {}
        self.known: dict[bytes, Collection[PeerId]] = {}
        self.looked_up = 0
        self.log: list[int] = []
        self.tracker = self.make_tracker()

    def make_tracker(self, per_minute: int = A_LOT, seed: int = 7) -> Tracker:
        anycast = Anycast(
            self.links, self.knows, self.clock, random.Random(seed), QuestionPace(per_minute)
        )
        return Tracker(HASH, QUESTION, anycast=anycast, clock=self.clock, metrics=self.metrics)

    def knows(self, envelope: bytes) -> Collection[PeerId]:
        self.looked_up += 1
        return self.known.get(envelope, ())

    def join(self, number: int, ping_ms: int | None = 10) -> FakePeer:
        peer = FakePeer(number, self.log)
        peer.ping_ms = ping_ms
        self.links[peer.peer_id] = peer
        return peer

    def tell(self, peer: FakePeer, envelope: bytes) -> None:
        self.known[envelope] = {*self.known.get(envelope, ()), peer.peer_id}

    def assert_next(self, seconds: float) -> None:
        """Assert that it goes on after so many seconds, and not before."""
        [call] = self.clock.getDelayedCalls()
        self.assertAlmostEqual(call.getTime() - self.clock.seconds(), seconds)


class WaitingTests(TrackerTestCase):
    """I12 and I13: core's TrackerTests."""

    def test_empty(self) -> None:
        """I12: nobody waits at first."""
        self.assertEqual((len(self.tracker), self.tracker.is_empty), (0, True))
        self.assertEqual(self.tracker.last_seen_slot_index, 0)
        self.assertRaises(KeyError, self.tracker.pop)

    def test_listen(self) -> None:
        """I12: the slot last seen outlives who waited for it, until it is reset."""
        first = waiter(1)
        self.assertTrue(self.tracker.listen(first))
        self.assertEqual((len(self.tracker), self.tracker.is_empty), (1, False))
        self.assertEqual(self.tracker.last_seen_slot_index, 1)
        self.assertIs(self.tracker.pop(), first)
        self.assertEqual((len(self.tracker), self.tracker.is_empty), (0, True))
        self.assertEqual(self.tracker.last_seen_slot_index, 1)
        self.tracker.reset_last_seen_slot_index()
        self.assertEqual(self.tracker.last_seen_slot_index, 0)

    def test_listen_twice(self) -> None:
        """I12: an envelope waits once, whoever says so, and keeps its place."""
        first, again = waiter(1), waiter(1)
        self.assertTrue(self.tracker.listen(first))
        self.assertTrue(self.tracker.listen(waiter(2)))
        self.assertFalse(self.tracker.listen(again))
        self.assertEqual((len(self.tracker), self.tracker.last_seen_slot_index), (2, 2))
        self.tracker.pop()
        self.assertIs(self.tracker.pop(), first)
        self.assertTrue(self.tracker.is_empty)

    def test_listen_to_two(self) -> None:
        """I12: the newest first."""
        first, second = waiter(1), waiter(2)
        for number, each in enumerate((first, second), 1):
            self.tracker.listen(each)
            self.assertEqual(self.tracker.last_seen_slot_index, number)
        self.assertEqual(self.tracker.waiting_envelopes, [b"envelope of 1", b"envelope of 2"])
        self.assertEqual([self.tracker.pop(), self.tracker.pop()], [second, first])

    def test_ranges(self) -> None:
        """I13: what is left of the slots 5, 3, 1, 2, 4, the newest first."""
        for min_slot, max_slot, keep, left in (
            (4, None, 4, [4, 5]),
            (6, None, 6, []),
            (5, None, 1, [1, 5]),
            (None, 3, 3, [2, 1, 3]),
            (None, 0, 0, []),
            (None, 2, 5, [2, 1, 5]),
            (2, 4, 0, [4, 2, 3]),
            (3, 3, 1, [1, 3]),
            (None, None, 0, [4, 2, 1, 3, 5]),
        ):
            tracker = self.make_tracker()
            for slot in (5, 3, 1, 2, 4):
                tracker.listen(waiter(slot))
            self.assertEqual(tracker.last_seen_slot_index, 5)
            any_left = tracker.clear_envelopes_outside_range(min_slot, max_slot, keep)
            self.assertEqual(any_left, bool(left))
            self.assertEqual(tracker.waiting_bytes, 13 * len(left))
            self.assertEqual([tracker.pop().slot for _ in range(len(tracker))], left)

    def test_an_application_has_no_slot(self) -> None:
        """No range leaves it out, and it makes no slot be seen."""
        app = waiter(None)
        self.tracker.listen(app)
        self.tracker.listen(waiter(7))
        self.assertTrue(self.tracker.clear_envelopes_outside_range(100, 0, 0))
        self.assertEqual((len(self.tracker), self.tracker.waiting_envelopes), (1, []))
        self.assertIs(self.tracker.pop(), app)

    def test_two_applications(self) -> None:
        """Each waits for itself, were they alike in everything."""
        first, second = waiter(None), waiter(None)
        for each in (first, second, first):
            self.tracker.listen(each)
        self.assertEqual(len(self.tracker), 2)
        self.assertTrue(self.tracker.discard(first))
        self.assertFalse(self.tracker.discard(first))
        self.assertIs(self.tracker.pop(), second)

    def test_discard(self) -> None:
        """Whoever names the same envelope takes it out, with its bytes."""
        self.tracker.listen(waiter(1))
        self.tracker.listen(waiter(22))
        self.assertEqual(self.tracker.waiting_bytes, 13 + 14)
        self.assertFalse(self.tracker.discard(waiter(3)))
        self.assertTrue(self.tracker.discard(waiter(22)))
        self.assertEqual((len(self.tracker), self.tracker.waiting_bytes), (1, 13))
        self.assertNotEqual(waiter(1), b"envelope of 1")


class NextPeerTests(TrackerTestCase):
    """I9 to I11: core's "next peer strategy"."""

    def setUp(self) -> None:
        super().setUp()
        self.peer = self.join(1)
        self.tracker.listen(waiter(1))
        self.tracker.try_next_peer()
        self.assertEqual((self.log, self.tracker.last_asked_peer), ([1], self.peer.peer_id))

    def test_the_only_peer(self) -> None:
        """I9: it is not asked again; nobody is left."""
        self.tracker.try_next_peer()
        self.assertEqual((self.log, self.tracker.last_asked_peer), ([1], None))
        self.assertEqual(self.peer.asked, [QUESTION])

    def test_a_new_peer(self) -> None:
        """I10: it is asked next; then nobody is left; then the list is begun anew."""
        second = self.join(2)
        self.tracker.try_next_peer()
        self.assertEqual((self.log, self.tracker.last_asked_peer), ([1, 2], second.peer_id))
        self.tracker.try_next_peer()
        self.assertEqual((self.log, self.tracker.last_asked_peer), ([1, 2], None))
        self.tracker.try_next_peer()
        self.assertEqual(len(self.log), 3)
        self.assertIsNotNone(self.tracker.last_asked_peer)

    def test_a_peer_that_says_that_it_knows(self) -> None:
        """I11: it is asked again, before one that was not asked yet; and then no more."""
        self.join(2)
        self.tell(self.peer, b"envelope of 1")
        for log in ([1, 1], [1, 1, 2], [1, 1, 2], [1, 1, 2, 1]):
            self.tracker.try_next_peer()
            self.assertEqual(self.log, log)

    def test_moves_are_counted(self) -> None:
        """Whenever a peer that was asked is given up; not at the end of a pause."""
        for expected in (1, 1, 2):
            self.tracker.try_next_peer()
            self.assertEqual(self.metrics.item_fetcher_next_peer.get(), expected)
            self.clock.advance(0)

    def test_one_timer(self) -> None:
        """However often it is made to go on, it waits for one thing only; when ended, for none."""
        for seconds in (1.5, 1.5, 3.0, 1.5, 4.5):
            self.tracker.try_next_peer()
            self.assert_next(seconds)
        self.tracker.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.tracker.try_next_peer()
        self.tracker.doesnt_have(self.peer.peer_id)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_dont_have(self) -> None:
        """Only of the peer whose answer is awaited."""
        self.join(2)
        self.tracker.doesnt_have(PeerId(bytes([9]) * 32))
        self.assertEqual(self.log, [1])
        self.tracker.doesnt_have(self.peer.peer_id)
        self.assertEqual(self.log, [1, 2])
        self.tracker.doesnt_have(self.peer.peer_id)
        self.assertEqual(self.log, [1, 2])


class OrderTests(TrackerTestCase):
    """seed.md 2b.14: who should know is asked first, then who is near, then at random."""

    def ask_all(self) -> list[int]:
        while True:
            self.tracker.try_next_peer()
            if self.tracker.last_asked_peer is None:
                return self.log

    def test_who_sent_the_envelope_first(self) -> None:
        """Whatever the round trips of others."""
        self.join(1, 10)
        far = self.join(2, 5000)
        self.join(3, 20)
        self.tracker.listen(waiter(1))
        self.tell(far, b"envelope of 1")
        self.assertEqual(self.ask_all()[0], 2)

    def test_any_envelope_will_do(self) -> None:
        """Who sent one of those that wait is asked before who sent none; the near ones first."""
        peers = [self.join(number, 10) for number in range(1, 7)]
        peers[4].ping_ms = 900
        for slot, peer in ((1, peers[4]), (2, peers[5]), (3, peers[5])):
            self.tracker.listen(waiter(slot))
            self.tell(peer, b"envelope of %d" % slot)
        self.tell(FakePeer(99), b"envelope of 1")  # gone by now
        self.assertEqual(self.ask_all()[:2], [6, 5])
        self.assertEqual(sorted(self.log[2:]), [1, 2, 3, 4])

    def test_the_near_ones_first(self) -> None:
        """In steps of half a second; who was never heard is the farthest of all."""
        pings = {1: None, 2: 1700, 3: 499, 4: 86_400_000 - 1, 5: 500, 6: 999, 7: 0}
        for number, ping_ms in pings.items():
            self.join(number, ping_ms)
        order = self.ask_all()
        self.assertEqual({*order[:2]}, {3, 7})
        self.assertEqual({*order[2:4]}, {5, 6})
        self.assertEqual(order[4:], [2, 4, 1])

    def test_at_random_among_the_near(self) -> None:
        """Each of them is the first about as often."""
        for number in range(1, 5):
            self.join(number, 100 * number)
        self.join(5, 600)
        firsts: Counter[int] = Counter()
        for seed in range(400):
            self.log.clear()
            self.make_tracker(seed=seed).try_next_peer()
            firsts[self.log[0]] += 1
        self.assertEqual(firsts.keys(), {1, 2, 3, 4})
        self.assertGreater(min(firsts.values()), 60)

    def test_chance_is_all_there_is(self) -> None:
        """The same chances make the same order, whatever the order of the sets in between."""
        for number in range(1, 20):
            self.tell(self.join(number), b"envelope of 1")
        self.tracker.listen(waiter(1))
        first = self.ask_all().copy()
        self.log.clear()
        self.known[b"envelope of 1"] = sorted(self.known[b"envelope of 1"], reverse=True)
        self.tracker = self.make_tracker()
        self.tracker.listen(waiter(1))
        self.assertEqual(self.ask_all(), first)

    def test_records_looked_up(self) -> None:
        """No more than it takes to have all peers, and few before any question at most."""
        self.tell(self.join(1), b"envelope of 500")
        for slot in range(1, 1001):
            self.tracker.listen(waiter(slot))
        self.tracker.try_next_peer()
        self.assertEqual(self.looked_up, 32)
        self.tell(self.join(2), b"envelope of 1000")
        self.tell(FakePeer(1), b"envelope of 999")
        self.looked_up = 0
        self.tracker.try_next_peer()
        self.assertEqual((self.looked_up, len(self.log)), (2, 2))

    def test_applications_hide_no_records(self) -> None:
        """Those who wait without an envelope are not among those that are looked up."""
        self.join(1)
        self.tell(self.join(2), b"envelope of 1")
        self.tracker.listen(waiter(1))
        for _ in range(100):
            self.tracker.listen(waiter(None))
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [2])


class TroubleTests(TrackerTestCase):
    """Peers that cannot be asked, that leave, and that answer before we have finished asking."""

    def test_who_does_not_get_it_is_passed_over(self) -> None:
        """The next best is asked at once; who could not be asked may be, later in the round."""
        for number in range(1, 4):
            peer = self.join(number, 500 * number)
            peer.is_open = number == 3
        self.tell(peer, b"of another")
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [3])
        self.assert_next(1.5)
        for link in self.links.values():
            assert isinstance(link, FakePeer)
            link.is_open = True
        self.clock.advance(1.5)
        self.assertEqual(self.log, [3, 1])

    def test_who_knows_but_does_not_get_it(self) -> None:
        """Others are asked instead; it may be asked again, were it asked before it knew."""
        first = self.join(1)
        self.tracker.listen(waiter(1))
        self.tracker.try_next_peer()
        self.join(2)
        self.tell(first, b"envelope of 1")
        first.is_open = False
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [1, 2])
        first.is_open = True
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [1, 2, 1])

    def test_nobody_gets_it(self) -> None:
        """Nobody's answer is awaited; the pauses become no longer, as nobody was bothered."""
        for number in range(1, 4):
            self.join(number).is_open = False
        self.tracker.try_next_peer()
        self.assertEqual((self.log, self.tracker.last_asked_peer), ([], None))
        self.assertTrue(self.tracker.has_found_nobody)
        for _ in range(20):
            self.assert_next(1.5)
            self.clock.advance(1.5)

    def test_nobody_is_there(self) -> None:
        """Such rounds make the pauses no longer: whoever comes is not to be waited for so long."""
        self.tracker.try_next_peer()
        for _ in range(30):
            self.assertTrue(self.tracker.has_found_nobody)
            self.assert_next(1.5)
            self.clock.advance(1.5)
        self.join(1)
        self.clock.advance(1.5)
        self.assertEqual(self.log, [1])
        self.assertFalse(self.tracker.has_found_nobody)
        self.clock.advance(1.5)
        self.assert_next(1.5)

    def test_who_was_asked_leaves(self) -> None:
        """The others are asked when it is late, and nothing keeps the link that ended."""
        first = self.join(1)
        self.tracker.try_next_peer()
        self.join(2)
        del self.links[first.peer_id]
        kept = weakref.ref(first)
        del first
        gc.collect()
        self.assertIsNone(kept())
        self.clock.advance(1.5)
        self.assertEqual(self.log, [1, 2])

    def test_all_who_were_asked_leave(self) -> None:
        """That nobody is there is no round either, though somebody was asked in it."""
        first = self.join(1)
        self.tracker.try_next_peer()
        del self.links[first.peer_id]
        self.clock.advance(1.5)
        self.assertTrue(self.tracker.has_found_nobody)
        self.links[first.peer_id] = first
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [1, 1])
        self.clock.advance(1.5)
        self.assertFalse(self.tracker.has_found_nobody)
        self.assert_next(1.5)

    def test_who_comes_back(self) -> None:
        """A peer with the same key is not asked again before all others were."""
        self.join(1)
        self.tracker.try_next_peer()
        self.join(1)
        self.join(2, None)
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [1, 2])

    def test_answers_within_the_question(self) -> None:
        """DONT_HAVE before ``send`` returns makes it go on once, and wait once."""

        class Denying(FakePeer):
            tracker = self.tracker

            def send(self, message: Message) -> bool:
                super().send(message)
                self.tracker.doesnt_have(self.peer_id)
                return True

        for number in range(1, 6):
            peer = Denying(number, self.log)
            self.links[peer.peer_id] = peer
        self.tracker.try_next_peer()
        self.assertEqual(sorted(self.log), [1, 2, 3, 4, 5])
        self.assert_next(1.5)

    def test_ended_within_the_question(self) -> None:
        """Nobody else is asked, and nothing is waited for, whether the question left or not."""

        class Ending(FakePeer):
            tracker = self.tracker
            attempts = 0

            def send(self, message: Message) -> bool:
                Ending.attempts += 1
                self.tracker.cancel()
                return super().send(message)

        for is_open in (True, False):
            Ending.tracker = self.tracker = self.make_tracker()
            self.log.clear()
            for number in range(1, 4):
                peer = Ending(number, self.log)
                peer.is_open = is_open
                self.links[peer.peer_id] = peer
            self.tracker.try_next_peer()
            self.assertEqual((Ending.attempts, len(self.log)), (1, int(is_open)))
            Ending.attempts = 0
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_peers_without_end(self) -> None:
        """However many come and go, a round ends, and what is remembered of it is bounded."""
        self.patch(tracker_module, "_MAX_ASKED", 50)
        for number in range(1, 60):
            self.links.clear()
            self.join(number)
            self.tracker.try_next_peer()
        self.assertEqual(len(self.log), 58)
        self.assertEqual(self.metrics.item_fetcher_next_peer.get(), 57)


class SignerTests(TrackerTestCase):
    """On whose behalf a question is put: one signer's alone, or that of all."""

    def setUp(self) -> None:
        super().setUp()
        self.pace = QuestionPace(25)
        self.join(1)
        anycast = Anycast(self.links, self.knows, self.clock, random.Random(7), self.pace)
        self.tracker = Tracker(
            HASH, QUESTION, anycast=anycast, clock=self.clock, metrics=self.metrics
        )
        for node in (1, 2):  # who has used up its share
            for _ in range(5):
                self.pace.allow(PeerId((1).to_bytes(32, "big")), 0, bytes([node]) * 32)

    def assert_asked(self, is_asked: bool, *waiters: Waiter) -> None:
        """Let these wait; check whether anybody is asked now."""
        for each in waiters:
            self.tracker.listen(each)
        self.tracker.try_next_peer()
        self.assertEqual(self.log, [1] * is_asked)
        self.tracker.cancel()

    def test_one(self) -> None:
        """However many envelopes it signs."""
        envelopes = [scp_nominate(slot, node=1).body for slot in range(1, 101)]
        self.assert_asked(False, *(waiter(1, envelope) for envelope in envelopes))

    def test_another_one(self) -> None:
        """Has its own share."""
        self.assert_asked(True, waiter(1, scp_nominate(node=3).body))

    def test_two(self) -> None:
        """Who have both used up what they have alone."""
        self.assert_asked(True, *(waiter(1, scp_nominate(node=node).body) for node in (1, 2)))

    def test_two_of_whom_one_gives_up(self) -> None:
        """What is left is one alone."""
        first, second = (waiter(1, scp_nominate(node=node).body) for node in (1, 2))
        self.tracker.listen(first)
        self.tracker.listen(second)
        self.tracker.discard(second)
        self.assert_asked(False)

    def test_an_application(self) -> None:
        """Alone, or with a signer."""
        self.assert_asked(True, waiter(None))
        self.log.clear()
        self.tracker = self.make_tracker()
        self.assert_asked(True, waiter(1, scp_nominate(node=1).body), waiter(None))

    def test_what_is_no_envelope(self) -> None:
        """Has no signer: what is too short to name one counts as nobody's."""
        short = scp_nominate(node=1).body[:51]
        self.assert_asked(True, waiter(1, short))


class QuestionPaceTests(TrackerTestCase):
    """DECISIONS.md 14: what we ask others."""

    def test_any_minute(self) -> None:
        """So many in each, wherever it begins: in fixed minutes there could be twice as many."""
        pace, peer_id = QuestionPace(25), PeerId(bytes(32))
        allowed = [now for now in range(0, 300, 2) if pace.allow(peer_id, now)]
        self.assertEqual(len(allowed), 125)
        for begin in range(240):
            self.assertLessEqual(sum(begin <= now < begin + 60 for now in allowed), 25)

    def test_may_ask(self) -> None:
        """It tells what would be, and leaves it so."""
        pace, peer_id = QuestionPace(1), PeerId(bytes(32))
        self.assertTrue(all(pace.may_ask(peer_id, 0) for _ in range(9)))
        self.assertTrue(pace.allow(peer_id, 0))
        self.assertFalse(pace.may_ask(peer_id, 59.9))
        self.assertTrue(pace.may_ask(peer_id, 60))

    def test_refused_questions_do_not_count(self) -> None:
        """Else a peer that is always tried would never be free."""
        pace, peer_id = QuestionPace(2), PeerId(bytes(32))
        allowed = [now for now in range(0, 130, 10) if pace.allow(peer_id, now)]
        self.assertEqual(allowed, [0, 10, 60, 70, 120])

    def test_peers_are_counted_apart(self) -> None:
        """And only so many are remembered: the last that were asked."""
        pace = QuestionPace(1)
        ids = [PeerId(number.to_bytes(32, "big")) for number in range(2000)]
        self.assertTrue(all(pace.allow(peer_id, 0) for peer_id in ids))
        self.assertFalse(any(pace.allow(peer_id, 59.9) for peer_id in ids[-1024:]))
        self.assertTrue(pace.allow(ids[0], 59.9))
        self.assertRaises(ValueError, QuestionPace, 0)

    def test_a_signers_share(self) -> None:
        """A fifth: what it alone names takes no more; another signer has as much again."""
        pace, peer_id = QuestionPace(25), PeerId(bytes(32))
        for signer in (b"a", b"b"):
            allowed = [pace.allow(peer_id, 0, signer) for _ in range(20)]
            self.assertEqual(allowed, [True] * 5 + [False] * 15)
            self.assertFalse(pace.may_ask(peer_id, 0, signer))
        self.assertTrue(pace.may_ask(peer_id, 0, b"c"))
        self.assertTrue(pace.may_ask(peer_id, 0))

    def test_all_single_signers(self) -> None:
        """Three fifths, however many they are; the rest is for what several name."""
        pace, peer_id = QuestionPace(25), PeerId(bytes(32))
        allowed = [pace.allow(peer_id, 0, b"%d" % signer) for signer in range(20)]
        self.assertEqual(allowed, [True] * 15 + [False] * 5)
        self.assertEqual([pace.allow(peer_id, 0) for _ in range(12)], [True] * 10 + [False] * 2)

    def test_what_several_name_has_all(self) -> None:
        """Of it nothing is reserved for single signers: then they wait."""
        pace, peer_id = QuestionPace(25), PeerId(bytes(32))
        self.assertTrue(all(pace.allow(peer_id, 0) for _ in range(25)))
        self.assertFalse(pace.may_ask(peer_id, 59.9, b"a"))
        self.assertTrue(pace.may_ask(peer_id, 60, b"a"))

    def test_shares_slide(self) -> None:
        """A signer's question is free a minute after it was put, and not all at once."""
        pace, peer_id = QuestionPace(25), PeerId(bytes(32))
        for now in (0.0, 10.0, 20.0, 30.0, 40.0):
            self.assertTrue(pace.allow(peer_id, now, b"a"))
        for now, is_allowed in ((59.9, False), (60, True), (60, False), (70, True), (79.9, False)):
            self.assertIs(pace.allow(peer_id, now, b"a"), is_allowed, now)

    def test_small_shares(self) -> None:
        """Whoever may be asked at all may be asked once on behalf of one signer."""
        for per_minute, expected in ((1, 1), (2, 1), (4, 2), (5, 3), (12, 7), (25, 15)):
            pace, peer_id = QuestionPace(per_minute), PeerId(bytes(32))
            allowed = [pace.allow(peer_id, 0, b"%d" % signer) for signer in range(20)]
            self.assertEqual(sum(allowed), expected, per_minute)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(QUESTIONS)
    def test_in_any_minute_of_any_questions(
        self, questions: Sequence[tuple[int, bytes | None]]
    ) -> None:
        """Neither the whole nor any share is exceeded; nothing is refused that is within them."""
        pace, peer_id, now = QuestionPace(10), PeerId(bytes(32)), 0
        asked: list[tuple[int, bytes | None]] = []
        for pause, signer in questions:
            now += pause
            recent = [one for when, one in asked if now - when < 60]
            of_single = [one for one in recent if one is not None]
            has_room = len(recent) < 10 and (
                signer is None or (len(of_single) < 6 and of_single.count(signer) < 2)
            )
            self.assertIs(pace.may_ask(peer_id, now, signer), has_room)
            self.assertIs(pace.allow(peer_id, now, signer), has_room)
            if has_room:
                asked.append((now, signer))

    def test_a_peer_over_the_limit_is_passed_over(self) -> None:
        """Another one is asked in its place, were it farther or less likely to know."""
        near, far = self.join(1), self.join(2, None)
        self.tell(near, b"envelope of 1")
        self.tracker = self.make_tracker(per_minute=2)
        self.tracker.listen(waiter(1))
        for expected in ([1], [1, 2], [1, 2], [1, 2, 1], [1, 2, 1, 2], [1, 2, 1, 2]):
            self.tracker.try_next_peer()
            self.assertEqual(self.log, expected)
        self.tracker.try_next_peer()
        self.assertEqual((len(near.asked), len(far.asked)), (2, 2))
        self.assertTrue(self.tracker.has_found_nobody)
        self.looked_up = 0
        self.clock.pump([1.5] * 39)
        self.assertEqual((self.looked_up, len(self.log)), (0, 4))
        self.clock.advance(1.5)
        self.assertEqual((self.looked_up, len(self.log)), (1, 5))
