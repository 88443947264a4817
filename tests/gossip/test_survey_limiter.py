"""Which survey messages are looked at: S9-S13, M-23, messages.md 9 cases 43-49, 53 and 56."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import SurveyRefusal
from stellar_overlay.gossip import survey_limiter
from stellar_overlay.gossip.survey_limiter import (
    CHECKS_FOR_NEW_LINKS,
    KNOWN_SECONDS,
    LEDGERS_BEFORE_IGNORE,
    MAX_CHECKS_PER_LEDGER,
    MAX_REQUESTS_PER_LEDGER,
    MAX_SURVEYORS_CHECKED,
    MAX_SURVEYORS_PER_LEDGER,
    SurveyLimiter,
    SurveyLimiterStats,
)
from stellar_overlay.wire.survey_body import SurveyCollecting, SurveyRequest, SurveyResponse

LEDGER = 100
NOTHING = SurveyLimiterStats(ledgers=0, requests=0, answered=0, checks=0)


def node(number: int) -> bytes:
    """Return the key of a node."""
    return hashlib.sha256(b"node %d" % number).digest()


OWN = node(0)


def collecting(surveyor: int = 1, ledger: int = LEDGER) -> SurveyCollecting:
    """Return a START or STOP."""
    return SurveyCollecting(
        surveyor=node(surveyor), nonce=7, ledger_num=ledger, signature=b"", signed=b""
    )


def request(
    surveyor: int = 1, surveyed: int = 2, ledger: int = LEDGER, command: int = 1
) -> SurveyRequest:
    """Return a REQUEST."""
    return SurveyRequest(
        surveyor=node(surveyor),
        surveyed=node(surveyed),
        ledger_num=ledger,
        encryption_key=bytes(32),
        command_type=command,
        nonce=7,
        inbound_index=0,
        outbound_index=0,
        signature=b"",
        signed=b"",
    )


def response(
    surveyor: int = 1, surveyed: int = 2, ledger: int = LEDGER, command: int = 1
) -> SurveyResponse:
    """Return a RESPONSE."""
    return SurveyResponse(
        surveyor=node(surveyor),
        surveyed=node(surveyed),
        ledger_num=ledger,
        command_type=command,
        encrypted_body=b"",
        nonce=7,
        signature=b"",
        signed=b"",
    )


class LimiterTestCase(SynchronousTestCase):
    """A limiter, and a validation that says what the test says.

    :ivar verdict: what validation answers.
    :ivar validations: how often it was asked.
    """

    def setUp(self) -> None:
        self.tracking = LEDGER
        self.limiter = SurveyLimiter(OWN, lambda: self.tracking)
        self.verdict: SurveyRefusal | None = None
        self.validations = 0

    def validate(self) -> SurveyRefusal | None:
        self.validations += 1
        return self.verdict

    def ask(
        self, surveyor: int = 1, surveyed: int = 2, ledger: int = LEDGER
    ) -> SurveyRefusal | None:
        return self.limiter.add_request(request(surveyor, surveyed, ledger), self.validate)

    def answer(
        self, surveyor: int = 1, surveyed: int = 2, ledger: int = LEDGER
    ) -> SurveyRefusal | None:
        return self.limiter.add_response(response(surveyor, surveyed, ledger), self.validate)

    def assert_not_validated(self, *results: SurveyRefusal | None) -> None:
        """What was refused was refused before anything expensive."""
        self.assertNotIn(None, results)
        self.assertEqual(self.validations, 0)


class RequestTests(LimiterTestCase):
    """What is asked, by whom and how often."""

    def test_repetitions(self) -> None:
        """S9, case 48: each surveyor may ask a node once per ledger."""
        for surveyor in (1, 2):
            self.assertIsNone(self.ask(surveyor))
            self.assertIs(self.ask(surveyor), SurveyRefusal.REPEATED)
        self.assertIsNone(self.ask(1, ledger=LEDGER + 1))
        self.assertEqual(self.validations, 3)
        self.assertEqual(self.limiter.stats.requests, 3)

    def test_eleventh_request(self) -> None:
        """S10, case 49: it is refused unseen; other surveyors and ledgers are counted apart."""
        for surveyed in range(1, 1 + MAX_REQUESTS_PER_LEDGER):
            self.assertIsNone(self.ask(1, surveyed))
        self.validations = 0
        self.assertIs(self.ask(1, 99), SurveyRefusal.TOO_MANY_REQUESTS)
        self.assertIs(self.ask(1, 1), SurveyRefusal.TOO_MANY_REQUESTS)
        self.assertEqual(self.validations, 0)
        self.assertIsNone(self.ask(2, 99))
        self.assertIsNone(self.ask(1, 99, LEDGER + 1))

    def test_eleventh_surveyor(self) -> None:
        """S10, case 49: as many as are known may go on, and we ourselves may begin."""
        for surveyor in range(1, 1 + MAX_SURVEYORS_PER_LEDGER):
            self.assertIsNone(self.ask(surveyor, 1))
        self.validations = 0
        self.assertIs(self.ask(99, 1), SurveyRefusal.TOO_MANY_SURVEYORS)
        self.assertEqual(self.validations, 0)
        self.assertIsNone(self.ask(1, 2))
        self.assertIsNone(self.ask(0, 1))
        self.assertIsNone(self.ask(99, 1, LEDGER + 1))

    def test_we_may_ask_more(self) -> None:
        """S10: our own requests are bounded by memory alone; each node once, as for anybody."""
        self.patch(survey_limiter, "MAX_OWN_REQUESTS_PER_LEDGER", 50)
        for surveyed in range(1, 51):
            self.assertIsNone(self.ask(0, surveyed))
            if surveyed < 50:
                self.assertIs(self.ask(0, surveyed), SurveyRefusal.REPEATED)
        self.assertIs(self.ask(0, 99), SurveyRefusal.TOO_MANY_REQUESTS)

    def test_we_take_room_among_the_surveyors(self) -> None:
        """As in core: with us, nine others make ten."""
        for surveyor in range(MAX_SURVEYORS_PER_LEDGER):
            self.assertIsNone(self.ask(surveyor))
        self.assertIs(self.ask(99), SurveyRefusal.TOO_MANY_SURVEYORS)

    def test_ledger_window(self) -> None:
        """S12, case 43: six ledgers either way; what is farther off leaves nothing."""
        for ledger in (LEDGER - 7, LEDGER + 7, 0, 2**32 - 1, 2**32 - 6):
            self.assert_not_validated(self.ask(ledger=ledger))
            self.assertIs(self.ask(ledger=ledger), SurveyRefusal.STALE_LEDGER)
        self.assertEqual(self.limiter.stats, NOTHING)
        for ledger in (LEDGER - 6, LEDGER, LEDGER + 6):
            self.assertIsNone(self.ask(ledger=ledger))

    def test_no_ledger_is_known(self) -> None:
        """The window is one of plain numbers: nothing wraps around at either end."""
        self.tracking = 0
        self.assertIsNone(self.ask(ledger=6))
        self.assertIs(self.ask(ledger=7), SurveyRefusal.STALE_LEDGER)
        self.assertIs(self.ask(ledger=2**32 - 1), SurveyRefusal.STALE_LEDGER)
        self.tracking = 2**32 - 1
        self.assertIsNone(self.ask(ledger=2**32 - 1))
        self.assertIs(self.ask(ledger=4), SurveyRefusal.STALE_LEDGER)

    def test_unknown_command(self) -> None:
        """Case 56: refused before all else, whatever else is wrong."""
        for command in (0, 2, 2**32 - 1):
            for ledger in (LEDGER, 1):
                asked = request(command=command, ledger=ledger)
                refusal = self.limiter.add_request(asked, self.validate)
                self.assertIs(refusal, SurveyRefusal.UNKNOWN_COMMAND)
        self.assertEqual((self.validations, self.limiter.stats), (0, NOTHING))

    def test_what_is_not_valid_is_not_recorded(self) -> None:
        """Case 47: a wrong nonce, or signature, uses nothing up and can be put right."""
        for verdict in (SurveyRefusal.WRONG_NONCE, SurveyRefusal.BAD_SIGNATURE):
            self.verdict = verdict
            for surveyed in range(2 * MAX_REQUESTS_PER_LEDGER):
                self.assertIs(self.ask(1, surveyed), verdict)
        self.assertEqual(self.limiter.stats, NOTHING)
        self.verdict = None
        self.assertIsNone(self.ask())


class ResponseTests(LimiterTestCase):
    """What is answered, and once only."""

    def test_first_valid_answer(self) -> None:
        """S11, case 53: what is not valid uses nothing up, then one is taken, then none."""
        self.ask()
        self.verdict = SurveyRefusal.BAD_SIGNATURE
        self.assertIs(self.answer(), SurveyRefusal.BAD_SIGNATURE)
        self.verdict = None
        self.assertIsNone(self.answer())
        self.validations = 0
        self.assertIs(self.answer(), SurveyRefusal.REPEATED)
        self.assertEqual(self.validations, 0)
        self.assertEqual(self.limiter.stats.answered, 1)

    def test_unasked(self) -> None:
        """S5, S12, case 53: what was not asked by that one of that one for that ledger."""
        self.assert_not_validated(self.answer())
        self.ask()
        self.validations = 0
        for refusal in (self.answer(3), self.answer(surveyed=3), self.answer(ledger=LEDGER + 1)):
            self.assertIs(refusal, SurveyRefusal.UNASKED)
        self.assertEqual(self.validations, 0)
        self.assertEqual(self.limiter.stats.ledgers, 1)

    def test_the_window_closes(self) -> None:
        """S12, case 43: an answer that comes seven ledgers later is too late, though asked for."""
        self.ask()
        self.validations = 0
        self.tracking = LEDGER + 7
        self.assertIs(self.answer(), SurveyRefusal.STALE_LEDGER)
        self.assertIs(self.answer(ledger=LEDGER + 14), SurveyRefusal.STALE_LEDGER)
        self.assertEqual(self.validations, 0)
        self.tracking = LEDGER + 6
        self.assertIsNone(self.answer())

    def test_its_command_is_not_looked_at(self) -> None:
        """Case 56: in a response the field means nothing."""
        self.ask()
        answer = response(command=99)
        self.assertIsNone(self.limiter.add_response(answer, self.validate))


class CollectingTests(LimiterTestCase):
    """START and STOP: the ledger window, and nothing is remembered."""

    def test_window(self) -> None:
        """Case 43: what is too far off is not validated."""
        for ledger in (LEDGER - 7, LEDGER + 7, 0, 2**32 - 1):
            refusal = self.limiter.check_collecting(collecting(ledger=ledger), self.validate)
            self.assertIs(refusal, SurveyRefusal.STALE_LEDGER)
        self.assertEqual(self.validations, 0)
        for ledger in (LEDGER - 6, LEDGER + 6):
            self.assertIsNone(
                self.limiter.check_collecting(collecting(ledger=ledger), self.validate)
            )
        self.assertEqual(self.limiter.stats, NOTHING)

    def test_validation_decides(self) -> None:
        """Cases 44 and 45: whether it fits is for the survey to say, each time anew."""
        for verdict in (SurveyRefusal.ALREADY_ACTIVE, SurveyRefusal.WRONG_NONCE, None, None):
            self.verdict = verdict
            self.assertIs(self.limiter.check_collecting(collecting(), self.validate), verdict)
        self.assertEqual(self.validations, 4)


class ClearTests(LimiterTestCase):
    """What is forgotten, and when."""

    def test_clear(self) -> None:
        """S13: as soon as a ledger is more than six behind, all of it goes."""
        for surveyed in range(MAX_REQUESTS_PER_LEDGER):
            self.ask(1, surveyed)
            self.ask(1, surveyed, LEDGER + 1)
        self.limiter.spend_check(node(1), LEDGER, KNOWN_SECONDS)
        self.limiter.clear_old_ledgers(LEDGER + LEDGERS_BEFORE_IGNORE)
        self.assertEqual(self.limiter.stats.ledgers, 2)
        self.assertIs(self.ask(1, 99), SurveyRefusal.TOO_MANY_REQUESTS)
        self.limiter.clear_old_ledgers(LEDGER + LEDGERS_BEFORE_IGNORE + 1)
        expected = SurveyLimiterStats(ledgers=1, requests=10, answered=0, checks=0)
        self.assertEqual(self.limiter.stats, expected)
        self.assertIs(self.ask(1, 99, LEDGER + 1), SurveyRefusal.TOO_MANY_REQUESTS)
        self.assertIsNone(self.ask(1, 99))

    def test_nobody_clears(self) -> None:
        """What left the window goes when something new is recorded, whichever way it left."""
        for self.tracking in (LEDGER, LEDGER + 50, LEDGER - 50):
            for ledger in range(self.tracking - 6, self.tracking + 7):
                self.assertIsNone(self.ask(ledger=ledger))
            self.assertEqual(self.limiter.stats.ledgers, 13)
        self.tracking = LEDGER + 1000
        self.assertTrue(self.limiter.spend_check(node(1), LEDGER + 1000, KNOWN_SECONDS))
        expected = SurveyLimiterStats(ledgers=1, requests=0, answered=0, checks=1)
        self.assertEqual(self.limiter.stats, expected)


class CheckTests(LimiterTestCase):
    """How many signatures are checked."""

    def spend(self, surveyor: int = 1, ledger: int = LEDGER) -> bool:
        return self.limiter.spend_check(node(surveyor), ledger, KNOWN_SECONDS)

    def test_ten(self) -> None:
        """M-23: no more for one surveyor and ledger; others are counted apart."""
        spent = [self.spend() for _ in range(20)]
        self.assertEqual(spent, [True] * MAX_CHECKS_PER_LEDGER + [False] * 10)
        self.assertTrue(self.spend(2))
        self.assertTrue(self.spend(1, LEDGER + 1))
        self.assertEqual(self.limiter.stats.checks, MAX_CHECKS_PER_LEDGER + 2)

    def test_refund(self) -> None:
        """What was good costs nothing, and leaves nothing."""
        for _ in range(100):
            self.assertTrue(self.spend())
            self.limiter.refund_check(node(1), LEDGER)
        self.assertEqual(self.limiter.stats.checks, 0)
        for _ in range(9):
            self.spend()
        for _ in range(20):
            self.assertTrue(self.spend())
            self.limiter.refund_check(node(1), LEDGER)
        self.assertTrue(self.spend())
        self.assertFalse(self.spend())

    def test_refund_of_nothing(self) -> None:
        """What was not spent, or is forgotten, cannot be given back."""
        self.limiter.refund_check(node(1), LEDGER)
        self.assertEqual(self.limiter.stats, NOTHING)
        self.spend(2)
        self.limiter.refund_check(node(1), LEDGER)
        self.limiter.clear_old_ledgers(LEDGER + 100)
        self.limiter.refund_check(node(2), LEDGER)
        self.assertEqual(self.limiter.stats, NOTHING)

    def test_window(self) -> None:
        """For a ledger too far off nothing is checked, and nothing is kept."""
        for ledger in (LEDGER - 7, LEDGER + 7):
            self.assertFalse(self.spend(1, ledger))
        self.assertEqual(self.limiter.stats, NOTHING)

    def test_new_links(self) -> None:
        """They use up half of it, so that a true message on another link is looked at."""
        spent = [self.limiter.spend_check(node(1), LEDGER, KNOWN_SECONDS - 1) for _ in range(9)]
        self.assertEqual(spent, [True] * CHECKS_FOR_NEW_LINKS + [False])
        self.assertEqual([self.spend() for _ in range(3)], [True, True, False])
        self.assertFalse(self.limiter.spend_check(node(1), LEDGER, 0))

    def test_many_surveyors(self) -> None:
        """A hundred surveyors per ledger may cost us something: forgers use others' names."""
        for surveyor in range(1, 1 + MAX_SURVEYORS_CHECKED):
            self.assertTrue(self.spend(surveyor))
        self.assertFalse(self.spend(199))
        self.assertTrue(self.spend(1))
        self.limiter.refund_check(node(2), LEDGER)
        self.assertTrue(self.spend(199))

    def test_ten_requests_and_answers_on_top(self) -> None:
        """After nine checks in vain, a whole ledger's survey goes through; then one more check."""
        for _ in range(9):
            self.spend()

        def validate() -> SurveyRefusal | None:
            if not self.spend():
                return SurveyRefusal.TOO_MANY_CHECKS
            self.limiter.refund_check(node(1), LEDGER)
            return None

        for surveyed in range(10):
            self.assertIsNone(self.limiter.add_request(request(1, surveyed), validate))
        for surveyed in range(10):
            self.assertIsNone(self.limiter.add_response(response(1, surveyed), validate))
        self.assertEqual([self.spend(), self.spend()], [True, False])

    def test_forgeries(self) -> None:
        """M-23: 10,000 forged messages of any kind cost ten checks per surveyor and ledger."""
        checks: defaultdict[tuple[bytes, int], int] = defaultdict(int)
        chance = random.Random(7)

        def forged(surveyor: bytes, ledger: int) -> Callable[[], SurveyRefusal]:
            def validate() -> SurveyRefusal:
                if not self.limiter.spend_check(surveyor, ledger, KNOWN_SECONDS):
                    return SurveyRefusal.TOO_MANY_CHECKS
                checks[surveyor, ledger] += 1
                return SurveyRefusal.BAD_SIGNATURE

            return validate

        for surveyor in (1, 2):
            self.ask(surveyor)
        for _ in range(10_000):
            surveyor, ledger = chance.randrange(3), LEDGER + chance.randrange(-8, 9)
            surveyed = chance.randrange(1000)
            validate = forged(node(surveyor), ledger)
            kind = chance.randrange(3)
            if kind == 0:
                refusal = self.limiter.check_collecting(collecting(surveyor, ledger), validate)
            elif kind == 1:
                asked = request(surveyor, surveyed, ledger)
                refusal = self.limiter.add_request(asked, validate)
            else:
                answer = response(surveyor, 2, ledger)
                refusal = self.limiter.add_response(answer, validate)
            self.assertIsNotNone(refusal)
        self.assertEqual(len(checks), 3 * 13)
        self.assertEqual(set(checks.values()), {MAX_CHECKS_PER_LEDGER})
        self.assertEqual(self.limiter.stats.requests, 2)


class MemoryTests(LimiterTestCase):
    """How much 10,000 hostile messages can make us remember."""

    def test_random_ledgers_and_keys(self) -> None:
        """Never more than 13 ledgers of ten surveyors with ten nodes each."""
        chance = random.Random(11)
        for number in range(10_000):
            if chance.random() < 0.01:
                self.tracking = chance.randrange(2**32)
            ledger = (self.tracking + chance.randrange(-9, 10)) % 2**32
            surveyor = chance.choice([chance.randrange(1, 15), 100 + number])
            self.ask(surveyor, 50_000 + number, ledger)
            self.limiter.spend_check(node(surveyor), ledger, KNOWN_SECONDS)
            if chance.random() < 0.2:
                self.answer(surveyor, 50_000 + number, ledger)
            stats = self.limiter.stats if number % 100 == 0 else NOTHING
            self.assertLessEqual(stats.ledgers, 13)
            self.assertLessEqual(stats.requests, 13 * 10 * 10)
            self.assertLessEqual(stats.checks, 13 * 10 * 10)

    def test_one_window_filled(self) -> None:
        """The bounds are reached exactly, and not passed."""
        for ledger in range(LEDGER - 8, LEDGER + 9):
            for surveyor in range(1, 13):
                for surveyed in range(12):
                    self.ask(surveyor, surveyed, ledger)
                    self.limiter.spend_check(node(surveyor), ledger, KNOWN_SECONDS)
        expected = SurveyLimiterStats(ledgers=13, requests=1300, answered=0, checks=13 * 12 * 10)
        self.assertEqual(self.limiter.stats, expected)


@dataclass(frozen=True)
class Step:
    """One message that reaches a limiter.

    :ivar ledger: relative to the tracking ledger.
    :ivar advance: by how many ledgers that moves before.
    """

    is_request: bool
    surveyor: int
    surveyed: int
    ledger: int
    is_valid: bool
    advance: int = 0

    @property
    def verdict(self) -> SurveyRefusal | None:
        """What validation says of it."""
        return None if self.is_valid else SurveyRefusal.BAD_SIGNATURE


STEPS = st.builds(
    Step,
    is_request=st.booleans(),
    surveyor=st.integers(0, 3),
    surveyed=st.integers(0, 3),
    ledger=st.integers(-8, 8),
    is_valid=st.booleans(),
    advance=st.sampled_from([0, 0, 0, 1, 7]),
)


class Naive:
    """The same rules, said over one flat map that nothing is ever removed from."""

    def __init__(self) -> None:
        self.answered: dict[tuple[int, int, int], bool] = {}

    def take(self, tracking: int, step: Step) -> SurveyRefusal | None:
        if not -6 <= step.ledger <= 6:
            return SurveyRefusal.STALE_LEDGER
        key = tracking + step.ledger, step.surveyor, step.surveyed
        refusal = self._of_request(key) if step.is_request else self._of_response(key)
        if refusal is None and step.is_valid:
            self.answered[key] = not step.is_request
        return refusal or step.verdict

    def _of_request(self, key: tuple[int, int, int]) -> SurveyRefusal | None:
        ledger, surveyor, _ = key
        here = [known for known in self.answered if known[0] == ledger]
        of_this = [known for known in here if known[1] == surveyor]
        if surveyor and not of_this and len({known[1] for known in here}) >= 10:
            return SurveyRefusal.TOO_MANY_SURVEYORS
        if surveyor and len(of_this) >= 10:
            return SurveyRefusal.TOO_MANY_REQUESTS
        return SurveyRefusal.REPEATED if key in of_this else None

    def _of_response(self, key: tuple[int, int, int]) -> SurveyRefusal | None:
        if key not in self.answered:
            return SurveyRefusal.UNASKED
        return SurveyRefusal.REPEATED if self.answered[key] else None


class ModelTests(LimiterTestCase):
    """Any sequence of messages, against rules written down twice."""

    def setUp(self) -> None:
        super().setUp()
        self.naive = Naive()

    def take(self, step: Step) -> SurveyRefusal | None:
        """Let both take a message, and return what both say."""
        self.tracking += step.advance
        self.verdict = step.verdict
        take = self.ask if step.is_request else self.answer
        refusal = take(step.surveyor, step.surveyed, self.tracking + step.ledger)
        self.assertIs(refusal, self.naive.take(self.tracking, step))
        return refusal

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(STEPS, max_size=80), st.booleans())
    def test_any_sequence(self, steps: list[Step], is_cleared: bool) -> None:
        """Each message meets the same answer, whether or not old ledgers are cleared in time."""
        self.setUp()
        for step in steps:
            self.take(step)
            if is_cleared:
                self.limiter.clear_old_ledgers(self.tracking)
            self.assertLessEqual(self.limiter.stats.ledgers, 13)

    @settings(derandomize=True, max_examples=20, deadline=None)
    @given(st.integers(0, 2**32))
    def test_crowded_ledgers(self, seed: int) -> None:
        """The same with so many messages for two ledgers that every limit is met."""
        self.setUp()
        chance = random.Random(seed)
        met = {
            self.take(
                Step(
                    is_request=chance.random() < 0.8,
                    surveyor=chance.randrange(13),
                    surveyed=chance.randrange(13),
                    ledger=chance.randrange(2),
                    is_valid=chance.random() < 0.9,
                )
            )
            for _ in range(800)
        }
        limits = {SurveyRefusal.TOO_MANY_SURVEYORS, SurveyRefusal.TOO_MANY_REQUESTS}
        others = {SurveyRefusal.REPEATED, SurveyRefusal.UNASKED, SurveyRefusal.BAD_SIGNATURE}
        self.assertEqual(met, {None, *limits, *others})
