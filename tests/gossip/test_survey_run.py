"""A surveyor's run: who is asked when, and what becomes of the answers (messages.md 5.7, S6)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import SurveyError, SurveyRefusal
from stellar_overlay.gossip import survey_run
from stellar_overlay.gossip.survey_run import REQUESTS_AT_A_TIME, Pages, SurveyRun
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.survey_body import (
    PeerCounters,
    SurveyKeys,
    SurveyResponse,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
    encode_topology,
    seal,
)
from tests.builders import deterministic_bytes

OWN = PeerId(b"\xee" * 32)
PAUSE_SECONDS = 15.0
NODE = TimeSlicedNodeData(
    added_authenticated_peers=1,
    dropped_authenticated_peers=2,
    total_inbound_peers=3,
    total_outbound_peers=4,
    p75_scp_first_to_self_latency_ms=5,
    p75_scp_self_to_other_latency_ms=6,
    lost_sync_count=7,
    is_validator=False,
    max_inbound_peers=8,
    max_outbound_peers=9,
)
OWN_REPORT = TopologyResponse(inbound=(), outbound=(), node=NODE)
OTHER_KEYS = SurveyKeys(b"\x09" * 32)


def node(number: int) -> PeerId:
    """Return the id of a node."""
    return PeerId(number.to_bytes(32, "big"))


def nodes(start: int, stop: int) -> list[PeerId]:
    """Return the ids of many."""
    return [node(number) for number in range(start, stop)]


def report(*inbound: int, outbound: tuple[int, ...] = (), lost_sync: int = 7) -> TopologyResponse:
    """Return what a node answers that has such peers."""

    def peer(number: int) -> TimeSlicedPeerData:
        return TimeSlicedPeerData(
            node=node(number).key,
            version_string=b"v",
            counters=PeerCounters(*range(12)),
            seconds_connected=1,
            average_latency_ms=2,
        )

    return TopologyResponse(
        inbound=tuple(map(peer, inbound)),
        outbound=tuple(map(peer, outbound)),
        node=replace(NODE, lost_sync_count=lost_sync),
    )


class RunTestCase(SynchronousTestCase):
    """A run, and a network that takes what is asked, or does not.

    :ivar asked: who was asked for which pages, in order; ``keys_named``: and for whose eyes.
    :ivar busy: who cannot be asked now.
    :ivar is_reporting: whether the survey still reports.
    """

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Make a run that has begun."""
        self.clock = Clock()
        self.asked: list[tuple[PeerId, Pages]] = []
        self.keys_named: list[bytes] = []
        self.busy: set[PeerId] = set()
        self.is_reporting = True
        self.run_ = SurveyRun(
            OWN,
            self._ask,
            lambda: self.is_reporting,
            clock=self.clock,
            pause_seconds=PAUSE_SECONDS,
            token_bytes=deterministic_bytes(1),
        )
        self.run_.start(OWN_REPORT)

    def _ask(self, who: PeerId, pages: Pages, encryption_key: bytes) -> bool:
        if who in self.busy:
            return False
        self.asked.append((who, pages))
        self.keys_named.append(encryption_key)
        return True

    def add(self, *who: PeerId) -> None:
        """Queue nodes that are not queued."""
        for one in who:
            self.assertTrue(self.run_.add(one, (0, 0)))

    def order(self) -> list[PeerId]:
        """Return who was asked so far."""
        return [who for who, _ in self.asked]

    def take(
        self, who: PeerId, answer: TopologyResponse | bytes, *, key: bytes | None = None
    ) -> SurveyRefusal | None:
        """Let a node answer, sealed for the run's key or another one."""
        if isinstance(answer, TopologyResponse):
            answer = encode_topology(answer)
        return self.take_sealed(who, seal(answer, key or self.keys_named[-1]))

    def take_sealed(self, who: PeerId, sealed: bytes) -> SurveyRefusal | None:
        """Let a node answer with such a body."""
        return self.run_.take(
            SurveyResponse(
                surveyor=OWN.key,
                surveyed=who.key,
                ledger_num=1,
                command_type=1,
                encrypted_body=sealed,
                nonce=7,
                signature=b"",
                signed=b"",
            )
        )

    def topology(self) -> dict[PeerId, TopologyResponse | None]:
        """Return what was learnt of others."""
        topology = dict(self.run_.results().topology or {})
        topology.pop(OWN)
        return topology


class OrderTests(RunTestCase):
    """Ten at a time, first in, first out."""

    def test_the_first_leaves_at_once(self) -> None:
        """Without a pause before it (messages.md 10.4)."""
        self.add(node(1))
        self.assertEqual(self.order(), [node(1)])
        self.assertEqual(self.run_.backlog, 0)

    def test_nineteen(self) -> None:
        """S6: 19 requests in two rounds, strictly in the order in which they were made."""
        wanted = nodes(50, 60) + nodes(1, 10)
        self.add(*wanted)
        self.assertEqual(self.order(), wanted[:10])
        self.clock.advance(PAUSE_SECONDS - 0.001)
        self.assertEqual((len(self.asked), self.run_.backlog), (10, 9))
        self.clock.advance(0.001)
        self.assertEqual(self.order(), wanted)
        self.assertEqual(self.run_.backlog, 0)

    def test_ten_after_each_pause(self) -> None:
        """As long as there are any; then the pause after the last ten, and no more timers."""
        self.add(*nodes(0, 35))
        counts = []
        while self.clock.getDelayedCalls():
            counts.append(len(self.asked))
            self.clock.advance(PAUSE_SECONDS)
        self.assertEqual(counts, [10, 20, 30, 35])
        self.assertEqual(self.order(), nodes(0, 35))

    def test_room_within_the_pause(self) -> None:
        """Who is added later in it leaves at once while fewer than ten have left."""
        self.add(*nodes(0, 4))
        self.clock.advance(10)
        self.add(*nodes(4, 12))
        self.assertEqual(self.order(), nodes(0, 10))
        self.clock.advance(5)  # the pause began with the first
        self.assertEqual(self.order(), nodes(0, 12))

    def test_after_the_pause(self) -> None:
        """Nobody waits for a pause that is over; the next one begins then."""
        self.add(*nodes(0, 10))
        self.clock.advance(100)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.add(*nodes(10, 21))
        self.assertEqual(len(self.asked), 20)
        self.clock.advance(PAUSE_SECONDS)
        self.assertEqual(len(self.asked), 21)

    def test_pages(self) -> None:
        """Those that were named first hold while a node waits."""
        self.add(*nodes(0, 10))
        self.assertTrue(self.run_.add(node(10), (25, 50)))
        self.assertFalse(self.run_.add(node(10), (1, 2)))
        self.clock.advance(PAUSE_SECONDS)
        self.assertEqual(self.asked[-1], (node(10), (25, 50)))
        self.assertFalse(self.run_.add(node(10), (50, 75)))
        self.assertIsNone(self.take(node(10), OWN_REPORT))
        self.assertTrue(self.run_.add(node(10), (50, 75)))
        self.assertEqual(self.asked[-1], (node(10), (50, 75)))

    def test_who_is_silent(self) -> None:
        """May be asked again after the pause."""
        self.add(node(0))
        self.assertFalse(self.run_.add(node(0), (0, 0)))
        self.clock.advance(PAUSE_SECONDS)
        self.add(node(0))
        self.assertEqual(self.order(), [node(0), node(0)])

    def test_oneself(self) -> None:
        """Is not asked; what we know of ourselves is there from the beginning."""
        self.assertFalse(self.run_.add(OWN, (0, 0)))
        self.assertEqual((self.asked, self.run_.backlog), ([], 0))
        self.assertEqual(self.run_.results().topology, {OWN: OWN_REPORT})

    def test_who_cannot_be_asked_waits(self) -> None:
        """Asked in this ledger already: others go first, and it takes nobody's place."""
        self.busy = {node(0), node(3)}
        self.add(*nodes(0, 13))
        self.assertEqual(self.order(), [one for one in nodes(1, 12) if one != node(3)])
        self.clock.advance(PAUSE_SECONDS)
        self.assertEqual(self.order()[10:], [node(12)])
        self.assertEqual(list(self.run_.results().backlog), [node(0), node(3)])
        self.busy.clear()
        self.clock.advance(PAUSE_SECONDS)
        self.assertEqual(self.order()[11:], [node(0), node(3)])

    def test_who_waits_is_asked_with_the_next(self) -> None:
        """Whoever is added gives it another chance at once."""
        self.busy = {node(0)}
        self.add(node(0))
        self.busy.clear()
        self.add(node(1))
        self.assertEqual(self.order(), nodes(0, 2))

    def test_too_many(self) -> None:
        """How many nodes one run asks is bounded; one of them may be asked again."""
        self.patch(survey_run, "MAX_NODES", 4)
        self.add(*nodes(0, 3))
        with self.assertRaisesRegex(SurveyError, "4 nodes"):
            self.run_.add(node(3), (0, 0))
        self.assertEqual(len(self.topology()), 3)
        self.clock.advance(PAUSE_SECONDS)
        self.add(node(0))

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.lists(st.one_of(st.integers(1, 25), st.floats(0, 20)), max_size=12))
    def test_any_course(self, course: list[int | float]) -> None:
        """Nodes come in any numbers at any times: order, pace and end are as they should be."""
        self.begin()
        added = 0
        left_at: list[float] = []
        for step in course:
            if isinstance(step, float):
                self.clock.advance(step)
            else:
                self.add(*nodes(added, added + step))
                added += step
            left_at += [self.clock.seconds()] * (len(self.asked) - len(left_at))
            if self.run_.backlog:
                self.assertTrue(self.clock.getDelayedCalls())
        while self.clock.getDelayedCalls():
            self.clock.advance(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds())
            left_at += [self.clock.seconds()] * (len(self.asked) - len(left_at))
        self.assertEqual(self.order(), nodes(0, added))
        for first, eleventh in zip(left_at, left_at[2 * REQUESTS_AT_A_TIME :], strict=False):
            self.assertGreaterEqual(eleventh - first, PAUSE_SECONDS - 1e-6)


class EndTests(RunTestCase):
    """What ends a run, and what is left of it."""

    def test_stop(self) -> None:
        """Nobody is asked any more; what waits and what was answered can still be read."""
        self.add(*nodes(0, 12))
        self.assertIsNone(self.take(node(0), report(5)))
        self.run_.stop()
        self.assertFalse(self.run_.is_running)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.assertEqual(len(self.asked), 10)
        results = self.run_.results()
        self.assertFalse(results.in_progress)
        self.assertEqual(list(results.backlog), nodes(10, 12))
        assert results.topology is not None
        self.assertEqual(results.topology[node(0)], report(5))
        self.run_.stop()  # a second time is harmless

    def test_the_key_is_forgotten(self) -> None:
        """A late answer is not even opened, let alone believed or found bad."""
        self.add(node(0), node(1))
        self.run_.stop()
        self.assertIs(self.take(node(0), report(5)), SurveyRefusal.TOO_LATE)
        self.assertIs(self.take_sealed(node(1), b"garbage"), SurveyRefusal.TOO_LATE)
        results = self.run_.results()
        self.assertEqual(self.topology(), {node(0): None, node(1): None})
        self.assertEqual(list(results.bad_response_nodes), [])
        self.assertNotIn("SurveyKeys", repr(vars(self.run_)))

    def test_the_survey_ends(self) -> None:
        """Then nobody answers any more: the run ends with it, at the latest after the pause."""
        self.add(*nodes(0, 12))
        self.is_reporting = False
        self.clock.advance(PAUSE_SECONDS)
        self.assertFalse(self.run_.is_running)
        self.assertEqual((len(self.asked), self.clock.getDelayedCalls()), (10, []))

    def test_another_run(self) -> None:
        """Begins with nothing but ourselves, ten requests, and a key of its own."""
        self.busy = {node(11)}
        self.add(*nodes(0, 12))
        self.assertIs(self.take_sealed(node(0), b"garbage"), SurveyRefusal.BAD_BODY)
        self.take(node(1), report(5))
        self.run_.add(node(1), (0, 0))
        self.run_.stop()
        self.run_.start(OWN_REPORT)
        results = self.run_.results()
        self.assertEqual(results.topology, {OWN: OWN_REPORT})
        self.assertEqual((list(results.backlog), list(results.bad_response_nodes)), ([], []))
        self.assertEqual(results.asked_again, frozenset())
        self.assertTrue(results.in_progress)
        self.add(*nodes(0, 10))
        self.assertEqual((len(self.asked), len(set(self.keys_named))), (20, 2))

    def test_an_answer_to_the_run_before(self) -> None:
        """Is sealed for a key that nobody has any more."""
        self.add(node(0))
        (former,) = set(self.keys_named)
        self.run_.stop()
        self.run_.start(OWN_REPORT)
        self.add(node(0))
        self.assertIs(self.take(node(0), report(5), key=former), SurveyRefusal.BAD_BODY)
        self.assertEqual(self.topology(), {node(0): None})


class AnswerTests(RunTestCase):
    """What is answered."""

    def setUp(self) -> None:
        super().setUp()
        self.add(node(0), node(1))

    def test_taken(self) -> None:
        """As it was said."""
        self.assertIsNone(self.take(node(0), report(5, 6, outbound=(7,))))
        self.assertEqual(self.topology(), {node(0): report(5, 6, outbound=(7,)), node(1): None})
        self.assertEqual(self.run_.answered, 1)

    def test_nothing_is_no_answer(self) -> None:
        """We ourselves do not count either."""
        self.assertEqual(self.run_.answered, 0)

    def test_garbage(self) -> None:
        """Case 54: what cannot be decrypted, and what then cannot be read."""
        (key,) = set(self.keys_named)
        good = encode_topology(report(5))
        wrong = (
            b"",
            bytes(47),
            bytes(48),
            bytes(64_000),
            seal(good, OTHER_KEYS.public),
            seal(good, key)[:-1],
            seal(good + bytes(4), key),
            seal(good[:-1], key),
            seal(b"", key),
            seal(b"\0\0\0\1" + good[4:], key),
            seal(bytes(60_000), key),
        )
        for sealed in wrong:
            self.assertIs(self.take_sealed(node(0), sealed), SurveyRefusal.BAD_BODY)
        results = self.run_.results()
        self.assertEqual(list(results.bad_response_nodes), [node(0)])
        self.assertEqual((self.run_.bad_responses, self.run_.answered), (1, 0))
        self.assertEqual(self.topology(), {node(0): None, node(1): None})

    def test_bad_ones_are_in_order(self) -> None:
        """By key, whoever was first."""
        for number in (1, 0):
            self.take_sealed(node(number), b"garbage")
        self.assertEqual(list(self.run_.results().bad_response_nodes), nodes(0, 2))

    def test_asked_again_after_a_bad_one(self) -> None:
        """It gets another chance, and is not bad until it uses that."""
        self.take_sealed(node(0), b"garbage")
        self.add(node(0))
        self.assertEqual(self.run_.bad_responses, 0)
        self.assertIsNone(self.take(node(0), report(5)))
        self.assertEqual(self.topology()[node(0)], report(5))
        self.assertEqual(self.run_.results().asked_again, frozenset())

    def test_asked_again_after_a_good_one(self) -> None:
        """For the next page: the former answer is forgotten, and the next one stands alone."""
        self.take(node(0), report(*range(5, 30)))
        self.assertTrue(self.run_.add(node(0), (25, 0)))
        self.assertIsNone(self.topology()[node(0)])
        self.assertEqual(self.run_.results().asked_again, {node(0)})
        self.take(node(0), report(30, 31))
        self.assertEqual(self.topology()[node(0)], report(30, 31))

    def test_a_late_answer(self) -> None:
        """Two answers to two questions, without one between them: the lists are put together.

        What the node says of itself is what it has said last.
        """
        self.take(node(0), report(5, outbound=(6,), lost_sync=1))
        self.assertIsNone(self.take(node(0), report(7, outbound=(8,), lost_sync=2)))
        self.assertEqual(self.topology()[node(0)], report(5, 7, outbound=(6, 8), lost_sync=2))
