"""What a node does with survey messages that are not as they ought to be (messages.md 9, 41-56)."""

from __future__ import annotations

from collections.abc import Iterator

from stellar_overlay.error import DropReason, SurveyRefusal
from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.survey_body import Sign, decode_response, seal
from tests.scenarios.surveys import (
    COLLECTING,
    COMMAND_AT,
    INACTIVE,
    KEYS,
    NONCE,
    REPORTING,
    REQUEST,
    RESPONSE,
    START,
    STOP,
    OneNodeTestCase,
    bodies,
    collecting,
    events_of,
    forged_signature,
    request,
    response,
    signed_anew,
    with_body_of,
)
from tests.scenarios.traffic import (
    externalized,
    validator,
)

LEDGER = 1000
WINDOW = 6
BAD_SIGNATURE = DropReason.BAD_SURVEY_SIGNATURE
LOW_ORDER_KEYS = (
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),  # -1
    (2**255 - 19).to_bytes(32, "little"),  # 0 again
    (2**255 - 18).to_bytes(32, "little"),  # 1 again
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes(31) + b"\x80",  # 0, with the bit that is not looked at
)


class SignatureTests(OneNodeTestCase):
    """Case 42: whoever relays a bad signature ought to have checked it."""

    def messages(self, sign: Sign) -> Iterator[Message]:
        """Yield one of each kind that gets as far as its signature, at a node that reports."""
        asked = self.ask(validator(60).peer_id)
        self.assert_relayed(asked)
        yield self.stop(sign=sign)
        yield self.ask(sign=sign)
        yield response(asked, validator(60), sign=sign)

    def test_wrong_ones(self) -> None:
        """ERR_MISC for who relays any of the four, nothing for anybody else, and no effect."""
        self.begin_at(LEDGER)
        self.assert_dropped(self.start(sign=forged_signature), BAD_SIGNATURE, is_checked=True)
        self.assert_phases([self.node], INACTIVE, None)
        self.report()
        for message in self.messages(forged_signature):
            self.assert_dropped(message, BAD_SIGNATURE, is_checked=True)
        self.assert_phases([self.node], REPORTING)
        self.assertEqual(self.refused(self.node), {SurveyRefusal.BAD_SIGNATURE: 4})

    def test_those_of_others(self) -> None:
        """A permitted node cannot sign for another one; nor can the node that is asked."""
        self.begin_at(LEDGER, others=[validator(51)])
        other = validator(51).sign
        self.assert_dropped(self.start(sign=other), BAD_SIGNATURE, is_checked=True)
        self.report()
        for message in self.messages(other):
            self.assert_dropped(message, BAD_SIGNATURE, is_checked=True)

    def test_wrong_lengths(self) -> None:
        """0 to 63 bytes: the same, without a look at the signature."""
        self.begin_at()

        def cut(by: LocalNode, length: int) -> Sign:
            return lambda signed: by.sign(signed)[:length]

        for length in range(64):
            start = self.start(sign=cut(self.surveyor, length))
            self.assert_dropped(start, BAD_SIGNATURE, is_checked=False)
        self.assert_phases([self.node], INACTIVE, None)
        self.report()
        asked = self.ask(validator(60).peer_id)
        self.assert_relayed(asked)
        for length in (0, 1, 32, 63):
            answer = response(asked, validator(60), sign=cut(validator(60), length))
            for message in (
                self.stop(sign=cut(self.surveyor, length)),
                self.ask(sign=cut(self.surveyor, length)),
                answer,
            ):
                self.assert_dropped(message, BAD_SIGNATURE, is_checked=False)
        self.assertEqual(self.refused(self.node), {SurveyRefusal.BAD_SIGNATURE: 76})

    def test_what_was_said_before_it(self) -> None:
        """In one batch: what comes before the bad signature is taken, and nothing after it."""
        self.begin_at()
        start, bad = self.start(), self.stop(sign=forged_signature)
        self.assertEqual(bodies(self.say(start, bad, self.stop())), [start.body])
        self.assertTrue(self.speaker.is_closed)
        self.assert_phases([self.node], COLLECTING)


class WindowTests(OneNodeTestCase):
    """Case 43: a ledger may be six away, either way."""

    def test_start_and_stop(self) -> None:
        """Seven away is ignored, and its signature not checked; six away is taken."""
        for away in (-WINDOW, WINDOW):
            self.begin_at(LEDGER)
            further = LEDGER + away + (1 if away > 0 else -1)
            self.assert_ignored(SurveyRefusal.STALE_LEDGER, self.start(ledger=further))
            self.assert_phases([self.node], INACTIVE, None)
            self.assert_relayed(self.start(ledger=LEDGER + away))
            self.assert_ignored(SurveyRefusal.STALE_LEDGER, self.stop(ledger=further))
            self.assert_phases([self.node], COLLECTING)
            self.assert_relayed(self.stop(ledger=LEDGER + away))
            self.assertEqual(self.checks(self.node), 1)  # what a STOP signs, its START did, too
            self.again()

    def test_requests_and_responses(self) -> None:
        """Likewise; and a response that comes when its ledger is seven back is too late."""
        self.begin_at(LEDGER)
        self.report()
        for away in (-WINDOW - 1, WINDOW + 1, -LEDGER, 2**32 - 1 - LEDGER):
            stale = self.ask(validator(60).peer_id, ledger=LEDGER + away)
            self.assert_ignored(SurveyRefusal.STALE_LEDGER, stale)
            self.assert_ignored(SurveyRefusal.STALE_LEDGER, response(stale, validator(60)))
        for away in (-WINDOW, WINDOW):
            asked = self.ask(validator(60).peer_id, ledger=LEDGER + away)
            self.assert_relayed(asked, response(asked, validator(60)))
        late = self.ask(validator(61).peer_id)
        self.assert_relayed(late)
        self.speaker.flood(externalized(LEDGER + WINDOW + 1))
        self.network.advance(0)
        self.assert_ignored(SurveyRefusal.STALE_LEDGER, response(late, validator(61)))

    def test_near_zero(self) -> None:
        """A node that knows of no ledger takes ledgers up to 6; nothing wraps around."""
        self.begin_at()
        for ledger in (7, 2**32 - 6, 2**32 - 1):
            self.assert_ignored(SurveyRefusal.STALE_LEDGER, self.start(ledger=ledger))
        self.assert_relayed(self.start(ledger=6))


class SurveyStateTests(OneNodeTestCase):
    """Cases 44, 45, 47 and 50: which survey it is."""

    def test_second_starts(self) -> None:
        """While a survey is active none is taken, relayed, or its signature checked."""
        others = [validator(51)]
        self.begin_at(others=others)
        self.collect()
        for phase in (COLLECTING, REPORTING):
            checks = self.checks(self.node)
            self.assert_ignored(SurveyRefusal.REPEATED, self.start())
            for start in (
                self.start(ledger=1),
                self.start(nonce=1),
                collecting(START, validator(51)),
                self.start(nonce=2, sign=forged_signature),
            ):
                self.assert_ignored(SurveyRefusal.ALREADY_ACTIVE, start)
            self.assertEqual(self.checks(self.node), checks)
            self.assert_phases([self.node], phase)
            if phase is COLLECTING:
                self.assert_relayed(self.stop())

    def test_wrong_stops(self) -> None:
        """Of no survey, another number, another surveyor, or once more: neither taken nor relayed.

        Its signature is checked first, as in core.
        """
        self.begin_at(others=[validator(51)])
        wrong = SurveyRefusal.WRONG_NONCE
        self.assert_ignored(wrong, self.stop())
        self.collect()
        self.assert_ignored(wrong, self.stop(nonce=1), collecting(STOP, validator(51)))
        self.assert_phases([self.node], COLLECTING)
        self.assert_relayed(self.stop())
        self.assert_ignored(SurveyRefusal.REPEATED, self.stop())
        self.assert_ignored(wrong, self.stop(ledger=1))
        self.assert_phases([self.node], REPORTING)

    def test_a_start_replayed_as_a_stop(self) -> None:
        """The signature says nothing of the type: who heard a START can stop it, for six ledgers.

        As in core (messages.md 5.2), where it cannot be helped.
        """
        self.begin_at(LEDGER)
        start = self.start()
        replayed = Message(STOP.to_bytes(4, "big") + start.body[4:])
        self.assertEqual(replayed.body, self.stop().body)
        self.assert_relayed(start, replayed)
        self.assert_phases([self.node], REPORTING)

        self.again()
        self.begin_at(LEDGER)
        self.collect()
        self.speaker.flood(externalized(LEDGER + WINDOW + 1))
        self.network.advance(0)
        self.assert_ignored(SurveyRefusal.STALE_LEDGER, replayed)
        self.assert_phases([self.node], COLLECTING)

    def test_requests_out_of_turn(self) -> None:
        """Before START, before STOP and with a wrong number: no answer, not relayed, unchecked.

        Nor is it recorded: the same node can be asked in the same ledger when it reports.
        """
        self.begin_at()
        elsewhere = self.ask(validator(60).peer_id)
        self.assert_ignored(SurveyRefusal.WRONG_NONCE, self.ask(), elsewhere)
        self.collect()
        checks = self.checks(self.node)
        self.assert_ignored(SurveyRefusal.WRONG_NONCE, self.ask(), elsewhere)
        self.assertEqual(self.checks(self.node), checks)
        self.assert_relayed(self.stop())
        other = self.ask(nonce=NONCE + 1), self.ask(validator(60).peer_id, nonce=0)
        self.assert_ignored(SurveyRefusal.WRONG_NONCE, *other)
        self.assert_relayed(elsewhere)
        self.assertEqual([one.type for one in self.say(self.ask())], [RESPONSE])

    def test_responses_with_another_number(self) -> None:
        """Not relayed, although the node was asked."""
        self.begin_at()
        self.report()
        asked = self.ask(validator(60).peer_id)
        self.assert_relayed(asked)
        other = self.ask(validator(60).peer_id, nonce=1)
        self.assert_ignored(SurveyRefusal.WRONG_NONCE, response(other, validator(60)))
        self.assert_relayed(response(asked, validator(60)))

    def test_a_permitted_node_that_is_not_the_surveyor(self) -> None:
        """It knows the number: relays let it pass, and who is asked says nothing (case 50)."""
        guest = validator(51)
        self.begin_at(others=[guest])
        events = events_of(self.node)
        self.report()
        self.assert_relayed(request(guest, validator(60).peer_id))
        self.assert_ignored(SurveyRefusal.WRONG_SURVEYOR, request(guest, self.own))
        self.assertEqual(events[-1].kind, "failed")
        self.assertEqual(events[-1].reason, SurveyRefusal.WRONG_SURVEYOR)
        self.assertEqual(self.speaker.bodies(RESPONSE), [])
        self.assertEqual([one.type for one in self.say(self.ask())], [RESPONSE])

    def test_who_missed_the_start(self) -> None:
        """Neither requests nor responses pass, nor the STOP (S8)."""
        self.begin_at()
        asked = self.ask(validator(60).peer_id)
        wrong = SurveyRefusal.WRONG_NONCE
        self.assert_ignored(wrong, self.stop())
        self.assert_ignored(wrong, asked, self.ask())
        self.assert_ignored(SurveyRefusal.UNASKED, response(asked, validator(60)))
        self.assert_phases([self.node], INACTIVE, None)


class LimitTests(OneNodeTestCase):
    """Cases 48 and 49: ten surveyors in a ledger, ten requests of each, one to each node."""

    def test_the_eleventh_request(self) -> None:
        """Ignored without a look at its signature; in the next ledger it passes."""
        self.begin_at(LEDGER)
        self.report()
        for number in range(10):
            self.assert_relayed(self.ask(validator(60 + number).peer_id))
        checks = self.checks(self.node)
        too_many = SurveyRefusal.TOO_MANY_REQUESTS
        self.assert_ignored(too_many, self.ask(validator(70).peer_id), self.ask())
        self.assertEqual(self.checks(self.node), checks)
        self.assert_relayed(self.ask(validator(70).peer_id, ledger=LEDGER + 1))

    def test_the_eleventh_surveyor(self) -> None:
        """Likewise; those ten may go on asking."""
        others = [validator(number) for number in range(51, 61)]
        self.begin_at(LEDGER, others=others)
        self.report()
        for by in (self.surveyor, *others[:9]):
            self.assert_relayed(self.ask(validator(70).peer_id, by=by))
        checks, last = self.checks(self.node), others[9]
        too_many = SurveyRefusal.TOO_MANY_SURVEYORS
        self.assert_ignored(too_many, self.ask(validator(70).peer_id, by=last))
        self.assertEqual(self.checks(self.node), checks)
        self.assert_relayed(self.ask(validator(71).peer_id, by=others[8]))
        self.assert_relayed(self.ask(validator(70).peer_id, by=last, ledger=LEDGER - 1))

    def test_the_same_node_twice(self) -> None:
        """One answer per ledger, whatever page is asked for."""
        self.begin_at(LEDGER)
        self.report()
        self.assertEqual(len(self.say(self.ask())), 1)
        repeated = SurveyRefusal.REPEATED
        self.assert_ignored(repeated, self.ask(), self.ask(pages=(25, 25)))
        self.assertEqual(len(self.say(self.ask(ledger=LEDGER + 1))), 1)

    def test_the_response_that_nobody_asked_for(self) -> None:
        """Neither relayed nor its signature checked; nor the second one, nor another node's."""
        self.begin_at(others=[validator(51)])
        self.report()
        asked = self.ask(validator(60).peer_id)
        checks = self.checks(self.node)
        unasked = SurveyRefusal.UNASKED
        self.assert_ignored(unasked, response(asked, validator(60)))
        self.assertEqual(self.checks(self.node), checks)
        self.assert_relayed(asked)
        checks = self.checks(self.node)
        of_another = self.ask(validator(61).peer_id)
        to_another = request(validator(51), validator(60).peer_id)
        of_another_ledger = self.ask(validator(60).peer_id, ledger=1)
        for question, by in ((of_another, 61), (to_another, 60), (of_another_ledger, 60)):
            self.assert_ignored(unasked, response(question, validator(by)))
        self.assertEqual(self.checks(self.node), checks)

        first = response(asked, validator(60))
        self.assert_relayed(first)
        second = response(asked, validator(60), body=b"other")
        self.assert_ignored(SurveyRefusal.REPEATED, first, second)
        self.assertEqual(self.checks(self.node), checks + 1)


class ContentTests(OneNodeTestCase):
    """Cases 51, 52, 54-56: what is in the messages."""

    def test_keys_of_no_use(self) -> None:
        """What is sealed for a low-order key everybody could read: no answer, and no failure."""
        self.begin_at(LEDGER)
        events = events_of(self.node)
        self.report()
        for number, key in enumerate(LOW_ORDER_KEYS):
            self.assert_ignored(
                SurveyRefusal.BAD_KEY, self.ask(key=key, ledger=LEDGER - WINDOW + number)
            )
            self.assertEqual((events[-1].kind, events[-1].node), ("failed", self.own))
        self.assertEqual(self.speaker.bodies(RESPONSE), [])
        self.assertEqual(self.node.metrics.survey_answers.get(), 0)
        elsewhere = self.ask(validator(60).peer_id, key=bytes(32))
        self.assert_relayed(elsewhere)  # that is for whom it concerns

    def test_the_longest_body(self) -> None:
        """64,000 bytes are relayed; one byte more is no XDR, and who sends it is dropped."""
        self.begin_at()
        self.report()
        asked = self.ask(validator(60).peer_id)
        self.assert_relayed(asked)
        long = with_body_of(asked, validator(60), 64_001)
        before = self.checks(self.node)
        self.assert_dropped(long, DropReason.CORRUPT_XDR, is_checked=False)
        self.assertEqual(self.checks(self.node), before)
        self.assert_relayed(with_body_of(asked, validator(60), 64_000))

    def test_unknown_commands(self) -> None:
        """In a request: ignored before anything else is; in a response nobody looks (case 56)."""
        self.begin_at(LEDGER)
        self.report()
        checks = self.checks(self.node)
        for command in (0, 2, 2**32 - 1):
            word = command.to_bytes(4, "big")
            for asked in (self.ask(), self.ask(validator(60).peer_id, ledger=9)):
                odd = signed_anew(asked, self.surveyor, COMMAND_AT, word)
                self.assert_ignored(SurveyRefusal.UNKNOWN_COMMAND, odd)
        self.assertEqual(self.checks(self.node), checks)
        asked = self.ask(validator(60).peer_id)
        self.assert_relayed(asked)
        answer = response(asked, validator(60))
        self.assert_relayed(signed_anew(answer, validator(60), 148, (77).to_bytes(4, "big")))

    def test_a_request_to_us_goes_no_further(self) -> None:
        """The answer goes to everybody, and nobody but the surveyor can read it."""
        self.begin_at()
        self.report()
        (heard,) = self.say(self.ask())
        self.assertEqual(self.speaker.bodies(RESPONSE), [heard.body])
        self.assertEqual(self.listener.bodies(REQUEST), [])
        answer = decode_response(heard.body)
        self.assertEqual(
            (answer.surveyor, answer.surveyed), (self.surveyor.peer_id.key, self.own.key)
        )
        self.assertEqual((answer.nonce, answer.command_type, answer.ledger_num), (NONCE, 1, 0))
        self.assertNotIn(self.speaker.peer_id.key, heard.body)

    def test_what_nobody_can_read(self) -> None:
        """Rubbish of any length, or sealed rubbish, as the answer to us: a bad node (case 54).

        Its slot is used up, and the link over which it came is not to blame.
        """
        self.begin_at(LEDGER)
        sealed = seal(b"no topology", KEYS.public)
        survey = self.node.survey
        survey.start_collecting(NONCE)
        survey.stop_collecting()
        for number, body in enumerate((b"", bytes(47), bytes(48), sealed, bytes(64_000))):
            by = validator(60 + number)
            survey.request(by.peer_id)
            self.network.advance(0)
            (asked,) = [Message(one) for one in self.listener.bodies(REQUEST)[number:]]
            self.assert_ignored(SurveyRefusal.BAD_BODY, response(asked, by, body=body))
            self.assert_ignored(SurveyRefusal.REPEATED, response(asked, by, body=b"again"))
        results = survey.results()
        self.assertEqual(
            set(results.bad_response_nodes), {validator(60 + n).peer_id for n in range(5)}
        )
        assert results.topology is not None
        answered = [node for node, one in results.topology.items() if one is not None]
        self.assertEqual(answered, [self.own])
        survey.stop_reporting()
