"""What of peers' survey messages is taken: messages.md 5.3-5.5, cases 41-56, M-23."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from stellar_overlay.error import DropReason, ErrorCode, SurveyRefusal
from stellar_overlay.gossip import survey_checks
from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.gossip.survey_limiter import MAX_CHECKS_PER_LEDGER, MAX_SURVEYORS_PER_LEDGER
from stellar_overlay.wire.signature import is_signed_by
from tests.builders import make_node
from tests.gossip.surveys import (
    COMMAND_AT,
    LEDGER,
    NODES,
    NONCE,
    OWN,
    REQUEST,
    RESPONSE,
    RESPONSE_COMMAND_AT,
    START,
    STOP,
    STRANGER,
    SURVEYOR,
    FakePeer,
    Sent,
    SurveyTestCase,
    changed,
    collecting,
    cut,
    forged,
    request,
    response,
)

NOT_PERMITTED = SurveyRefusal.NOT_PERMITTED
STALE_LEDGER = SurveyRefusal.STALE_LEDGER
ALREADY_ACTIVE = SurveyRefusal.ALREADY_ACTIVE
WRONG_NONCE = SurveyRefusal.WRONG_NONCE
REPEATED = SurveyRefusal.REPEATED
BAD_SIGNATURE = SurveyRefusal.BAD_SIGNATURE
TOO_MANY_CHECKS = SurveyRefusal.TOO_MANY_CHECKS
STALE = (LEDGER - 7, LEDGER + 7, 0, 2**32 - 1)
RECENT = (LEDGER - 6, LEDGER, LEDGER + 6)
OTHER = NODES[0]
"""A node that is neither ours nor the surveyor."""


class PermissionTests(SurveyTestCase):
    """Who may survey us (DECISIONS.md 18)."""

    def permitted(self, **settings: Any) -> list[bool]:
        """Return who may: the surveyor, a stranger, ourselves."""
        manager = self.make(**settings)
        return [manager.surveyor_permitted(node.peer_id) for node in (SURVEYOR, STRANGER, OWN)]

    def test_nobody(self) -> None:
        """Without keys and without a quorum set; but we may ask others ourselves."""
        self.assertEqual(self.permitted(surveyor_keys=frozenset()), [False, False, True])

    def test_keys(self) -> None:
        """Where there are any, nobody else may, whoever is trusted."""
        trusted = frozenset({STRANGER.peer_id.key})
        self.assertEqual(self.permitted(quorum_nodes=trusted), [True, False, True])

    def test_ourselves_alone(self) -> None:
        """``SURVEYOR_KEYS=["$self"]`` opts out."""
        own = frozenset({OWN.peer_id})
        self.assertEqual(self.permitted(surveyor_keys=own), [False, False, True])

    def test_quorum_set(self) -> None:
        """Whoever is in ours may, when there are no keys."""
        nodes = frozenset({STRANGER.peer_id.key})
        self.assertEqual(
            self.permitted(surveyor_keys=frozenset(), quorum_nodes=nodes), [False, True, True]
        )

    def test_case_41(self) -> None:
        """Not processed, not relayed, no signature checked, and nobody is dropped for it."""
        self.report()
        good = request(OTHER)
        self.assert_taken(good)
        checks, sent = self.checks, len(self.sent)
        messages = (
            collecting(START, by=STRANGER),
            collecting(STOP, by=STRANGER),
            request(by=STRANGER),
            request(OTHER, by=STRANGER),
        )
        for body in messages:
            for faulty in (body, forged(body), cut(body, 0)):
                self.assert_refused(NOT_PERMITTED, faulty)
        self.assertEqual((self.checks, len(self.sent), self.a.dropped), (checks, sent, []))
        self.assertEqual(self.refusals(), {NOT_PERMITTED: 12})

    def test_an_answer_needs_no_permission(self) -> None:
        """It needs a request that was permitted."""
        self.report()
        asked = request(OTHER)
        self.assert_taken(asked, response(asked, by=OTHER))


class OrderTests(SurveyTestCase):
    """With several faults at once, the first one of core's order counts; only then the next."""

    def assert_order(self, faulty: Sequence[tuple[SurveyRefusal, bytes]], good: bytes) -> None:
        """Check for what each is refused, and that no signature but the last's is looked at."""
        for reason, body in faulty:
            checks, dropped = self.checks, len(self.a.dropped)
            self.assert_refused(reason, body)
            is_bad = reason is BAD_SIGNATURE
            self.assertEqual(self.checks - checks, int(is_bad), reason)
            self.assertEqual(len(self.a.dropped) - dropped, int(is_bad), reason)
        self.assertEqual(self.hear(good), [])

    def test_start(self) -> None:
        """Permission, ledger, no survey, signature; a repeated one first of all."""
        self.assert_order(
            [
                (NOT_PERMITTED, forged(collecting(START, by=STRANGER, ledger=0))),
                (STALE_LEDGER, forged(collecting(START, ledger=0))),
                (BAD_SIGNATURE, forged(collecting(START))),
            ],
            collecting(START),
        )
        self.assert_order(
            [
                (NOT_PERMITTED, forged(collecting(START, by=STRANGER, ledger=0))),
                (REPEATED, collecting(START)),
                (STALE_LEDGER, forged(collecting(START, ledger=0))),
                (ALREADY_ACTIVE, forged(collecting(START))),
                (ALREADY_ACTIVE, collecting(START, nonce=NONCE + 1)),
            ],
            collecting(STOP),
        )

    def test_stop(self) -> None:
        """Permission, ledger, signature, and only then whether it is of this survey."""
        self.assert_taken(collecting(START))
        self.assert_order(
            [
                (NOT_PERMITTED, forged(collecting(STOP, by=STRANGER, ledger=0, nonce=8))),
                (STALE_LEDGER, forged(collecting(STOP, ledger=0, nonce=8))),
                (BAD_SIGNATURE, forged(collecting(STOP, nonce=8))),
            ],
            collecting(STOP),
        )
        checks = self.checks
        self.assert_refused(WRONG_NONCE, collecting(STOP, nonce=8))
        self.assertEqual(self.checks, checks + 1)

    def test_request(self) -> None:
        """Permission, command, ledger, numbers, nonce, signature (core
        SurveyMessageLimiter.cpp:22-96).
        """
        self.report()
        other_command = changed(request(by=STRANGER, ledger=0), COMMAND_AT, 0, by=STRANGER)
        self.assert_order(
            [
                (NOT_PERMITTED, forged(other_command)),
                (
                    SurveyRefusal.UNKNOWN_COMMAND,
                    forged(changed(request(ledger=0, nonce=8), COMMAND_AT, 0, by=SURVEYOR)),
                ),
                (STALE_LEDGER, forged(request(ledger=0, nonce=8))),
                (WRONG_NONCE, forged(request(nonce=8))),
                (BAD_SIGNATURE, forged(request())),
            ],
            request(),
        )
        self.assert_order(
            [
                (REPEATED, forged(request(nonce=8))),  # another one for the same node
                (REPEATED, request()),  # the very same
            ],
            request(OTHER),
        )

    def test_response(self) -> None:
        """Ledger, whether it was asked for and not given yet, nonce, signature."""
        self.report()
        asked = request(OTHER)
        stale = response(request(OTHER, ledger=0, nonce=8), by=OTHER)
        unasked = response(request(NODES[1], nonce=8), by=NODES[1])
        self.assert_taken(asked)
        self.assert_order(
            [
                (STALE_LEDGER, forged(stale)),
                (SurveyRefusal.UNASKED, forged(unasked)),
                (WRONG_NONCE, forged(response(request(OTHER, nonce=8), by=OTHER))),
                (BAD_SIGNATURE, forged(response(asked, by=OTHER))),
            ],
            response(asked, by=OTHER),
        )
        self.assert_order(
            [
                (REPEATED, forged(response(request(OTHER, nonce=8), b"other", by=OTHER))),
                (REPEATED, response(asked, b"other", by=OTHER)),
                (REPEATED, response(asked, by=OTHER)),
            ],
            request(NODES[1]),
        )


class SignatureTests(SurveyTestCase):
    """Case 42: who passes on what its signer has not signed ought to have checked it."""

    def assert_dropped(self, link: FakePeer, body: bytes) -> None:
        """Check that a message is refused for its signature, with all that follows."""
        before = len(link.dropped)
        self.assert_refused(BAD_SIGNATURE, body, link=link)
        self.assertEqual(len(link.dropped), before + 1)
        violation = link.dropped[-1]
        self.assertIs(violation.kind, DropReason.BAD_SURVEY_SIGNATURE)
        self.assertEqual(violation.reason, "Survey has invalid signature")
        self.assertEqual(violation.code, ErrorCode.ERR_MISC)

    def messages(self) -> list[bytes]:
        """Bring a survey so far, one by one, that each of the four would be taken, save the
        signature.
        """
        asked = request(OTHER)
        return [collecting(START), collecting(STOP), asked, response(asked, by=OTHER)]

    def test_each_type(self) -> None:
        """The link that it came over is dropped, no other; then the right one is taken."""
        for body in self.messages():
            self.assert_dropped(self.b, forged(body))
            self.assert_taken(body, link=self.a)
        self.assertEqual((self.a.dropped, len(self.b.dropped), self.c.dropped), ([], 4, []))
        self.assertEqual(self.refusals(), {BAD_SIGNATURE: 4})

    def test_each_length(self) -> None:
        """A signature has 64 bytes; any other length costs no check."""
        for body in self.messages():
            checks = self.checks
            for size in (0, 1, 32, 60, 63):
                self.assert_dropped(self.a, cut(body, size))
            self.assertEqual(self.checks, checks)
            self.assert_taken(body)

    def test_of_somebody_else(self) -> None:
        """A surveyor cannot answer for the surveyed, nor those ask for the surveyor."""
        self.report()
        asked = request(OTHER)
        inner = asked[72:]
        self.assert_dropped(self.a, asked[:8] + OTHER.sign(inner) + inner)
        self.assert_taken(asked)
        self.assert_dropped(self.a, response(asked, by=SURVEYOR))
        self.assert_dropped(self.a, response(asked, by=STRANGER))
        self.assert_taken(response(asked, by=OTHER))

    def test_nothing_is_recorded(self) -> None:
        """Neither a forged request nor a forged response uses anything up."""
        self.report()
        for node in NODES[:5]:
            self.assert_dropped(self.a, forged(request(node)))
        for node in NODES[:9]:
            self.assert_taken(request(node))
        self.assert_taken(request(NODES[9]))

    def test_start_replayed_as_stop(self) -> None:
        """The signature of one is good for the other (messages.md 5.2): taken for what it says.

        It was checked once.
        """
        start = collecting(START)
        self.assert_taken(start)
        replayed = STOP.to_bytes(4, "big") + start[4:]
        self.assertEqual(replayed, collecting(STOP))
        self.assert_taken(replayed)
        self.assertIs(self.manager.phase, SurveyPhase.REPORTING)
        self.assertEqual(self.checks, 1)
        self.assert_refused(REPEATED, start, replayed)

    def test_one_good_signature_excuses_no_other(self) -> None:
        """It is good for these very bytes, and of this signer."""
        self.assert_taken(collecting(START))
        self.assert_dropped(self.a, forged(collecting(STOP)))
        stop = collecting(STOP, nonce=NONCE + 1)
        self.assert_dropped(self.a, stop[:8] + collecting(STOP)[8:72] + stop[72:])
        self.assertEqual(self.checks, 3)

    def test_stop_replayed_as_start(self) -> None:
        """While its survey is active, and after it within the ledgers of the window only."""
        start, stop = collecting(START, ledger=LEDGER - 3), collecting(STOP)
        self.assert_taken(start, stop)
        replayed = START.to_bytes(4, "big") + stop[4:]
        self.assert_refused(ALREADY_ACTIVE, replayed)
        self.clock.advance(3 * 3600 + 1)
        self.manager.update_phase()
        self.assertIs(self.manager.phase, SurveyPhase.INACTIVE)
        self.herder.tracking += 7
        self.assert_refused(STALE_LEDGER, replayed)


class CollectingTests(SurveyTestCase):
    """Cases 43 to 45."""

    def test_ledgers(self) -> None:
        """Six ledgers either way; nothing else of a stale one is looked at."""
        for kind, ledger in product((START, STOP), STALE):
            self.assert_refused(STALE_LEDGER, collecting(kind, ledger=ledger))
        self.assertEqual(self.checks, 0)
        for ledger in RECENT:
            self.manager = self.make()
            self.assert_taken(collecting(START, ledger=ledger))

    def test_while_there_is_a_survey(self) -> None:
        """Case 44: a START is ignored, be it of the same survey or another."""
        self.assert_taken(collecting(START))
        others = (
            collecting(START, nonce=NONCE + 1),
            collecting(START, ledger=LEDGER + 1),
        )
        self.assert_refused(ALREADY_ACTIVE, *others)
        self.assert_taken(collecting(STOP))
        self.assert_refused(ALREADY_ACTIVE, *others)
        self.assertEqual((self.manager.nonce, self.checks), (NONCE, 1))

    def test_stop_of_nothing(self) -> None:
        """Case 45: without a survey, and when it reports already; links stay."""
        self.assert_refused(WRONG_NONCE, collecting(STOP))
        self.assert_taken(collecting(START), collecting(STOP))
        self.assert_refused(WRONG_NONCE, collecting(STOP, ledger=LEDGER + 1))
        self.assertEqual(self.a.dropped, [])

    def test_stop_of_another_survey(self) -> None:
        """Case 45: of another number, or of another surveyor."""
        both = frozenset({SURVEYOR.peer_id, STRANGER.peer_id})
        self.manager = self.make(surveyor_keys=both)
        self.assert_taken(collecting(START))
        self.assert_refused(WRONG_NONCE, collecting(STOP, nonce=8), collecting(STOP, by=STRANGER))
        self.assertIs(self.manager.phase, SurveyPhase.COLLECTING)
        self.assert_taken(collecting(STOP))


class RequestTests(SurveyTestCase):
    """Cases 43, 47 to 49 and 56."""

    def test_before_it_reports(self) -> None:
        """Case 47: while there is no survey, or it collects; what is refused may come again."""
        self.assert_refused(WRONG_NONCE, request(), request(OTHER))
        self.assert_taken(collecting(START))
        self.assert_refused(WRONG_NONCE, request(), request(OTHER))
        self.assert_taken(collecting(STOP), request(), request(OTHER))

    def test_of_another_number(self) -> None:
        """Case 47: not recorded."""
        self.report()
        self.assert_refused(WRONG_NONCE, request(nonce=8), request(OTHER, nonce=0))
        self.assert_taken(request(), request(OTHER))

    def test_ledgers(self) -> None:
        """Case 43."""
        self.report()
        for ledger in STALE:
            self.assert_refused(STALE_LEDGER, request(ledger=ledger))
        for ledger in RECENT:
            self.assert_taken(request(ledger=ledger))

    def test_twice(self) -> None:
        """Case 48: with other pages as well; in another ledger it may ask again."""
        self.report()
        self.assert_taken(request(OTHER))
        self.assert_refused(REPEATED, request(OTHER), request(OTHER, pages=(25, 0)))
        self.assert_taken(request(OTHER, ledger=LEDGER + 1, pages=(25, 0)))

    def test_eleven(self) -> None:
        """Case 49: the eleventh node in one ledger is refused, its signature not looked at."""
        self.report()
        self.assert_taken(*map(request, NODES[:10]))
        checks = self.checks
        refused = request(NODES[10])
        self.assert_refused(SurveyRefusal.TOO_MANY_REQUESTS, refused, forged(refused))
        self.assertEqual(self.checks, checks)
        self.assert_taken(request(NODES[10], ledger=LEDGER + 1))

    def test_eleven_surveyors(self) -> None:
        """Case 49: who knows the number of the survey may ask in its stead, ten of them."""
        surveyors = [make_node(number) for number in range(50, 61)]
        self.manager = self.make(
            surveyor_keys=frozenset(one.peer_id for one in (*surveyors, SURVEYOR))
        )
        self.report()
        self.assertEqual(len(surveyors), MAX_SURVEYORS_PER_LEDGER + 1)
        self.assert_taken(*(request(OTHER, by=one) for one in surveyors[:10]))
        checks = self.checks
        late = request(OTHER, by=surveyors[10])
        self.assert_refused(SurveyRefusal.TOO_MANY_SURVEYORS, late, forged(late))
        self.assertEqual((self.checks, self.a.dropped), (checks, []))

    def test_commands(self) -> None:
        """Case 56: one command is known; others are neither answered nor relayed."""
        self.report()
        for of, command in product((OWN, OTHER), (0, 2, 2**32 - 1)):
            other = changed(request(of), COMMAND_AT, command, by=SURVEYOR)
            self.assert_refused(SurveyRefusal.UNKNOWN_COMMAND, other)
        self.assert_taken(request(), request(OTHER))

    def test_taken_once(self) -> None:
        """It is one record and no more, for whoever brings it."""
        self.report()
        self.assert_taken(request(OTHER), link=self.a)
        for link in (self.a, self.b, self.c):
            self.assert_refused(REPEATED, request(OTHER), link=link)
        self.assertEqual(self.refusals(), {REPEATED: 3})


class ResponseTests(SurveyTestCase):
    """Cases 43, 53, 55 and 56."""

    def test_unasked(self) -> None:
        """Case 53, S5: nobody has asked that node; or in that ledger; or another surveyor has."""
        self.report()
        self.assert_taken(request(OTHER))
        for asked, by in (
            (request(NODES[1]), NODES[1]),
            (request(OTHER, ledger=LEDGER + 1), OTHER),
            (request(OTHER, by=STRANGER), OTHER),
        ):
            self.assert_refused(SurveyRefusal.UNASKED, response(asked, by=by))
        self.assertEqual(self.a.dropped, [])

    def test_second(self) -> None:
        """Case 53."""
        self.report()
        asked = request(OTHER)
        self.assert_taken(asked, response(asked, by=OTHER))
        self.assert_refused(REPEATED, response(asked, b"once more", by=OTHER))

    def test_after_the_survey(self) -> None:
        """What was asked is forgotten with it."""
        self.report()
        asked = request(OTHER)
        self.assert_taken(asked)
        self.clock.advance(3 * 3600 + 1)
        self.manager.update_phase()
        self.assert_refused(SurveyRefusal.UNASKED, response(asked, by=OTHER))

    def test_stale(self) -> None:
        """Case 43: consensus has moved on since it was asked."""
        self.report()
        asked = request(OTHER, ledger=LEDGER - 6)
        self.assert_taken(asked)
        self.herder.tracking += 1
        self.assert_refused(STALE_LEDGER, response(asked, by=OTHER))

    def test_any_command(self) -> None:
        """Case 56: here the field is not looked at."""
        self.report()
        asked = request(OTHER)
        self.assert_taken(asked)
        other = changed(response(asked, by=OTHER), RESPONSE_COMMAND_AT, 9, by=OTHER)
        self.assert_taken(other)

    def test_any_body(self) -> None:
        """Case 55: who relays cannot read it; up to 64,000 bytes it is passed on."""
        self.report()
        for node, size in zip(NODES, (0, 1, 63_999, 64_000), strict=False):
            asked = request(node)
            self.assert_taken(asked, response(asked, bytes(size), by=node))


class BoundTests(SurveyTestCase):
    """M-23: at most ten signature checks in vain for each surveyor and ledger."""

    def setUp(self) -> None:
        super().setUp()
        self.really_checked = 0

        def counting(key: bytes, signed: bytes, signature: bytes) -> bool:
            self.really_checked += 1
            return is_signed_by(key, signed, signature)

        self.patch(survey_checks, "is_signed_by", counting)

    def flood(self, bodies: Sequence[bytes], count: int = 2500) -> int:
        """Send forgeries of each message, all different; return how many were checked."""
        before = self.really_checked
        for turned, body in product(range(1, count + 1), bodies):
            self.hear(forged(body, turned))
        self.assertEqual(self.really_checked, self.checks)
        return self.really_checked - before

    def test_ten_thousand(self) -> None:
        """Of all four types in turn; records are not made of any, and links are dropped."""
        self.report()
        asked = request(OTHER)
        self.assert_taken(asked)
        before, records, sent = self.checks, len(self.gate.records), self.take()
        checked = self.flood(
            [
                collecting(START),
                collecting(STOP),
                request(NODES[1]),
                response(asked, by=OTHER),
            ]
        )
        self.assertLessEqual(checked + before, MAX_CHECKS_PER_LEDGER + 1)  # and the good request
        self.assertEqual(len(self.gate.records), records)
        self.assertEqual((self.sent, len(sent)), ([], 1))
        self.assertEqual(len(self.a.dropped), self.refusals()[BAD_SIGNATURE])
        self.assertEqual(sum(self.refusals().values()), 10_000)

    def test_ten_thousand_of_each(self) -> None:
        """Whatever the survey is at, and whichever type it is."""
        self.assertEqual(self.flood([collecting(START)], 10_000), MAX_CHECKS_PER_LEDGER)
        self.herder.tracking += 1
        start = collecting(START, ledger=LEDGER + 1)
        self.assert_taken(start)
        stop = collecting(STOP, ledger=LEDGER + 1)
        self.assertEqual(self.flood([stop], 10_000), MAX_CHECKS_PER_LEDGER - 1)
        self.herder.tracking += 1
        self.assert_taken(collecting(STOP, ledger=LEDGER + 2))
        asked = request(OTHER, ledger=LEDGER + 3)
        self.assert_taken(asked)
        answer = response(asked, by=OTHER)
        self.assertEqual(self.flood([answer], 10_000), MAX_CHECKS_PER_LEDGER)
        of_another = request(NODES[1], ledger=LEDGER + 4)
        self.assertEqual(self.flood([of_another], 10_000), MAX_CHECKS_PER_LEDGER)

    def test_good_ones_cost_nothing(self) -> None:
        """START, STOP, ten requests and their ten answers pass in one ledger, in spite of some
        forgeries.
        """
        self.report()
        self.assertEqual(self.checks, 1)  # what is signed is the same for both
        self.flood([request(NODES[0])], 8)
        for node in NODES[:10]:
            asked = request(node)
            self.assert_taken(asked, response(asked, by=node))
        self.assertEqual(self.checks, 1 + 8 + 20)
        self.assertNotIn(TOO_MANY_CHECKS, self.refusals())

    def test_what_is_spent_is_spent(self) -> None:
        """Then good ones are refused, too, in that ledger and of that surveyor alone."""
        both = frozenset({SURVEYOR.peer_id, STRANGER.peer_id})
        self.manager = self.make(surveyor_keys=both)
        self.report()
        self.flood([request(OTHER)], 10)
        self.assert_refused(TOO_MANY_CHECKS, request(OTHER))
        self.assert_taken(request(OTHER, by=STRANGER), request(OTHER, ledger=LEDGER + 1))
        dropped = len(self.a.dropped)
        self.assert_refused(TOO_MANY_CHECKS, forged(request(OTHER), 99))
        self.assertEqual(len(self.a.dropped), dropped)  # nobody knows that it is forged

    def test_a_good_stop_of_nothing(self) -> None:
        """The same one again and again costs one check; different ones are bounded as well."""
        for _ in range(50):
            self.assert_refused(WRONG_NONCE, collecting(STOP))
        self.assertEqual(self.really_checked, 1)
        for nonce in range(100, 150):
            self.hear(collecting(STOP, nonce=nonce))
        self.assertEqual(self.really_checked, MAX_CHECKS_PER_LEDGER)
        self.assertEqual(
            self.refusals(), {WRONG_NONCE: 49 + MAX_CHECKS_PER_LEDGER, TOO_MANY_CHECKS: 41}
        )

    def test_unknown_surveyors(self) -> None:
        """Those who may not survey are not checked at all, however many they are."""
        for number in range(100, 120):
            self.hear(collecting(START, by=make_node(number)))
        self.assertEqual(self.really_checked, 0)


class WhoKnowsTests(SurveyTestCase):
    """Who has a message already is not sent it."""

    def test_relayed_to_the_others(self) -> None:
        """Each of the four types goes to all but its sender, byte for byte."""
        asked = request(OTHER)
        answer = response(asked, by=OTHER)
        for kind, body in (
            (START, collecting(START)),
            (STOP, collecting(STOP)),
            (REQUEST, asked),
            (RESPONSE, answer),
        ):
            self.assert_taken(body, link=self.b)
            self.assertEqual(self.take(), [Sent(kind, body, (self.a, self.c))])

    def test_who_repeats_it_has_it(self) -> None:
        """Although it is sent to nobody any more: a peer that comes later does not have it."""
        start = collecting(START)
        self.assert_taken(start, link=self.a)
        late = self.link(4)
        self.assertEqual(self.gate.records[start].told & late.flood_bit, 0)
        self.assert_refused(REPEATED, start, link=late)
        self.assertEqual(self.gate.records[start].told & late.flood_bit, late.flood_bit)

    def test_refused_ones_are_relayed_to_nobody(self) -> None:
        """And are not remembered, so that the right moment may come."""
        early = collecting(STOP)
        self.assert_refused(WRONG_NONCE, early)
        self.assertEqual((self.sent, self.gate.has_seen(early)), ([], False))
