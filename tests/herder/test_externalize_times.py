"""How long consensus takes, from EXTERNALIZE statements: messages.md 5.6, table and 10.4."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.externalize_times import MAX_SLOTS, ExternalizeTimes
from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.interfaces import EnvelopeStatus, ScpLatency
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import externalize, nominate, prepare
from tests.herder.kit import NODES, OWN, ObserverTestCase, a_value, forged, quorum_of

FIRST_TO_SELF, SELF_TO_OTHER = ScpLatency.FIRST_TO_SELF, ScpLatency.SELF_TO_OTHER


class TimesTests(SynchronousTestCase):
    """The times alone."""

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Remember nothing."""
        self.reported: list[tuple[ScpLatency, float]] = []
        self.times = ExternalizeTimes(lambda *sample: self.reported.append(sample))

    def test_one_slot(self) -> None:
        """First to self once; self to other for each who says so later, from our own time on."""
        for now in (10.0, 10.25, 10.5):
            self.times.note_heard(5, now)
        self.assertEqual(self.reported, [])
        self.times.note_own(5, 11.0)
        for now in (11.0, 11.5, 13.0):
            self.times.note_heard(5, now)
        self.assertEqual(
            self.reported,
            [
                (FIRST_TO_SELF, 1.0),
                (SELF_TO_OTHER, 0.0),
                (SELF_TO_OTHER, 0.5),
                (SELF_TO_OTHER, 2.0),
            ],
        )

    def test_own_once(self) -> None:
        """A slot is believed once."""
        self.times.note_heard(5, 10.0)
        for now in (11.0, 12.0):
            self.times.note_own(5, now)
        self.times.note_heard(5, 13.0)
        self.assertEqual(self.reported, [(FIRST_TO_SELF, 1.0), (SELF_TO_OTHER, 2.0)])

    def test_we_were_the_first(self) -> None:
        """Nothing is told of what took no time; of others it is."""
        self.times.note_own(5, 10.0)
        self.times.note_heard(5, 12.0)
        self.assertEqual(self.reported, [(SELF_TO_OTHER, 2.0)])

    def test_slots_by_themselves(self) -> None:
        """They may overlap."""
        self.times.note_heard(5, 10.0)
        self.times.note_heard(6, 20.0)
        self.times.note_own(6, 21.0)
        self.times.note_own(5, 30.0)
        self.assertEqual(self.reported, [(FIRST_TO_SELF, 1.0), (FIRST_TO_SELF, 20.0)])

    def test_bounded(self) -> None:
        """Of 24 slots; then the one that was heard of first goes."""
        for slot in range(MAX_SLOTS + 1):
            self.times.note_heard(slot, 10.0)
        self.assertEqual(len(self.times._slots), MAX_SLOTS)
        self.times.note_own(1, 11.0)
        self.assertEqual(self.reported, [(FIRST_TO_SELF, 1.0)])
        self.times.note_own(0, 12.0)
        self.assertEqual(len(self.reported), 1)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(1, 4), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40
        )
    )
    def test_any_course(self, course: list[tuple[int, bool, int]]) -> None:
        """As one would reckon it from a list of all that happened."""
        self.begin()
        expected: list[tuple[ScpLatency, float]] = []
        heard: dict[int, list[float]] = {}
        own: dict[int, float] = {}
        now = 0.0
        for slot, is_own, pause in course:
            now += pause
            if not is_own:
                self.times.note_heard(slot, now)
                if slot in own:
                    expected.append((SELF_TO_OTHER, now - own[slot]))
                heard.setdefault(slot, []).append(now)
                continue
            self.times.note_own(slot, now)
            if slot not in own:
                own[slot] = now
                if slot in heard:
                    expected.append((FIRST_TO_SELF, now - heard[slot][0]))
        self.assertEqual(self.reported, expected)


class HerderTests(ObserverTestCase):
    """What the observer reports to the overlay."""

    def say(self, herder: ObserverHerder, slot: int, *numbers: int, after: float = 0.0) -> None:
        """Let nodes externalize a slot, each so many seconds after the one before."""
        for number in numbers:
            self.clock.advance(after)
            self.hear(herder, externalize(NODES[number], slot, a_value(slot)))

    def reported(self) -> list[tuple[ScpLatency, float]]:
        """Return what was told since this was asked last, to the millisecond."""
        told = [(kind, round(seconds, 3)) for kind, seconds in self.overlay.latencies]
        self.overlay.latencies.clear()
        return told

    def test_a_quorum(self) -> None:
        """Believed when two of three say so; the third is the other."""
        herder = self.observer(quorum_of(0, 1, 2, threshold=2))
        self.say(herder, 5, 0)
        self.say(herder, 5, 1, after=0.25)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.25)])
        self.say(herder, 5, 2, after=0.5)
        self.assertEqual(self.reported(), [(SELF_TO_OTHER, 0.5)])
        self.say(herder, 6, 2)
        self.say(herder, 6, 0, 1, after=0.125)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.125), (SELF_TO_OTHER, 0.125)])

    def test_a_majority(self) -> None:
        """Without a quorum set the first one heard is believed, and then two thirds of all."""
        herder = self.observer()
        self.say(herder, 5, 0, 1, 2, after=0.5)
        self.assertEqual(
            self.reported(), [(FIRST_TO_SELF, 0.0), (SELF_TO_OTHER, 0.5), (SELF_TO_OTHER, 1.0)]
        )
        self.say(herder, 6, 0, 1, 2, after=0.25)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.25), (SELF_TO_OTHER, 0.25)])

    def test_each_node_once(self) -> None:
        """A node that externalizes a slot again, in other words, adds nothing."""
        herder = self.observer(quorum_of(0, 1))
        self.say(herder, 5, 0, 1)
        self.reported()
        self.clock.advance(3)
        for number in (0, 1):
            for counter in (1, 2, 3):
                self.hear(herder, externalize(NODES[number], 5, a_value(5), counter=counter))
        self.assertEqual(self.reported(), [])

    def test_other_statements(self) -> None:
        """Nominations and ballots tell nothing, nor what is forged, or of nobody's concern."""
        herder = self.observer(quorum_of(0, 1))
        for message in (
            nominate(NODES[0], 5, [a_value()]),
            prepare(NODES[0], 5, a_value()),
            forged(externalize(NODES[0], 5, a_value(5))),
            externalize(NODES[7], 5, a_value(5)),
        ):
            self.hear(herder, message)
        self.clock.advance(1)
        self.say(herder, 5, 0, 1, after=0.5)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.5)])

    def test_own_statement(self) -> None:
        """What we broadcast ourselves is no other node's, though it may decide."""
        herder = self.observer(quorum_of(0, 1, threshold=2))
        own = externalize(OWN, 5, a_value(5))
        herder.note_own_envelope(own)
        self.clock.advance(1)
        self.say(herder, 5, 0, 1, after=0.5)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.5)])
        self.assert_heard(EnvelopeStatus.SKIPPED_SELF, herder, own)
        self.assertEqual(self.reported(), [])

    def test_own_statement_of_a_validator(self) -> None:
        """Alone in its quorum set: its own time is that of its own statement."""
        herder = ObserverHerder(
            network_id=OWN.network_id,
            own_key=NODES[0].peer_id.key,
            verifier=self.verifier,
            clock=self.clock,
            wall_clock=lambda: self.wall_now,
            quorum_set=quorum_of(0, 1, threshold=1),
        )
        herder.start(self.overlay)
        self.addCleanup(herder.stop)
        herder.note_own_envelope(externalize(NODES[0], 5, a_value(5)))
        self.say(herder, 5, 1, after=2.0)
        self.assertEqual(self.reported(), [(SELF_TO_OTHER, 2.0)])

    def test_made_up_slots(self) -> None:
        """Far ones of a node that lies push out nothing: the next slot is timed all the same."""
        herder = self.observer(quorum_of(0, 1, 2, threshold=2))
        self.say(herder, 5, 0, 1, 2)
        self.reported()
        self.say(herder, 6, 0)
        for slot in range(7, 100):
            self.say(herder, slot, 2)
        self.assertLess(len(herder._times._slots), MAX_SLOTS)
        self.say(herder, 6, 1, after=0.75)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.75)])

    def test_after_a_gap(self) -> None:
        """A slot that was heard of from afar is believed without a word on how long it took."""
        herder = self.observer(quorum_of(0, 1))
        self.say(herder, 5, 0, 1)
        self.reported()
        self.say(herder, 20, 0, 1, after=0.5)
        self.assertEqual((herder.tracking_ledger(), self.reported()), (20, []))
        self.say(herder, 23, 0, 1, after=0.5)
        self.assertEqual(self.reported(), [(FIRST_TO_SELF, 0.5)])

    def test_stopped(self) -> None:
        """Nobody is told any more."""
        herder = self.observer(quorum_of(0, 1))
        self.say(herder, 5, 0)
        herder.stop()
        herder.note_own_envelope(Message(externalize(NODES[1], 5, a_value(5)).body))
        self.assertEqual(self.reported(), [])
