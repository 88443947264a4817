"""Surveys of one node on all three sides: messages.md 5, cases 44-52, 54 and 60, S1, S5, S7."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import stellar_overlay
from stellar_overlay.error import InvalidKey, OverlayError, SurveyError, SurveyRefusal
from stellar_overlay.gossip.survey import SurveyManager
from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.gossip.survey_facts import SurveyEvent, SurveyManagerStats
from stellar_overlay.gossip.survey_results import SurveyResults
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.interfaces import ScpLatency
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.survey_body import (
    PEERS_PER_PAGE,
    PeerCounters,
    TopologyResponse,
    decode_collecting,
    decode_request,
    decode_response,
    encode_topology,
    seal,
)
from tests.gossip.surveys import (
    LEDGER,
    NODES,
    NONCE,
    OWN,
    PAUSE_SECONDS,
    REQUEST,
    RESPONSE,
    START,
    STOP,
    STRANGER,
    SURVEYOR,
    FakePeer,
    Sent,
    SurveyTestCase,
    collecting,
    opened,
    request,
    response,
)

INACTIVE, COLLECTING, REPORTING = SurveyPhase
HALF_AN_HOUR, THREE_HOURS = 1800, 10_800
OTHER = NODES[0]


def keys_of(peers: tuple[FakePeer, ...]) -> list[bytes]:
    """Return the keys of peers, as reports are in the order of."""
    return sorted(peer.peer_id.key for peer in peers)


class PublicNameTests(SurveyTestCase):
    """What users import."""

    def test_names(self) -> None:
        """They are where the others are."""
        self.assertIs(stellar_overlay.SurveyManager, SurveyManager)
        self.assertIs(stellar_overlay.SurveyPhase, SurveyPhase)
        self.assertIs(stellar_overlay.SurveyResults, SurveyResults)
        self.assertIs(stellar_overlay.SurveyError, SurveyError)
        names = {"SurveyManager", "SurveyPhase", "SurveyResults", "SurveyError"}
        self.assertLessEqual(names, set(stellar_overlay.__all__))

    def test_error(self) -> None:
        """In another phase the same call may succeed."""
        self.assertTrue(issubclass(SurveyError, OverlayError))
        self.assertTrue(SurveyError.retriable)
        self.assertFalse(SurveyError.fatal)


class StartTests(SurveyTestCase):
    """A survey of our own begins."""

    def test_start(self) -> None:
        """We collect, and all are told: signed by us, of the present ledger."""
        self.manager.start_collecting(NONCE)
        (sent,) = self.sent
        self.assertEqual((sent.kind, sent.to), (START, (self.a, self.b, self.c)))
        self.assertEqual(sent.body, collecting(START, by=OWN))
        message = decode_collecting(sent.body)
        self.assertEqual((message.nonce, message.ledger_num), (NONCE, LEDGER))
        self.assertTrue(is_signed_by(OWN.peer_id.key, message.signed, message.signature))
        manager = self.manager
        self.assertEqual(
            (manager.phase, manager.nonce, manager.surveyor, manager.is_active),
            (COLLECTING, NONCE, OWN.peer_id, True),
        )
        self.assertFalse(manager.is_reporting)
        self.assertEqual(self.events, [SurveyEvent("collecting", NONCE, OWN.peer_id)])
        self.assertEqual((self.woken, self.metrics.survey_started.get()), (1, 1))

    def test_echo(self) -> None:
        """What comes back to us is neither believed nor relayed."""
        self.manager.start_collecting(NONCE)
        (sent,) = self.take()
        self.assert_refused(SurveyRefusal.REPEATED, sent.body)

    def test_any_number(self) -> None:
        """Of 32 bits, 0 included; nothing else is a number."""
        for nonce in (-1, 2**32, True, "7", 7.0, None):
            with self.assertRaises(ValueError):
                self.manager.start_collecting(nonce)  # type: ignore[arg-type]
        self.assertEqual((self.sent, self.manager.phase), ([], INACTIVE))
        for nonce in (0, 2**32 - 1):
            manager = self.make()
            manager.start_collecting(nonce)
            self.assertEqual(manager.nonce, nonce)

    def test_while_there_is_one(self) -> None:
        """Ours or another's, in either phase: refused, and the survey goes on."""
        self.manager.start_collecting(NONCE)
        with self.assertRaisesRegex(SurveyError, f"{NONCE} of {OWN.peer_id}"):
            self.manager.start_collecting(8)
        self.manager.stop_collecting()
        self.assertRaises(SurveyError, self.manager.start_collecting, 8)
        self.assertEqual((self.manager.phase, self.manager.nonce), (REPORTING, NONCE))
        self.manager = self.make()
        self.assert_taken(collecting(START, nonce=9))
        with self.assertRaisesRegex(SurveyError, str(SURVEYOR.peer_id)):
            self.manager.start_collecting(8)

    def test_own_ledger_unknown(self) -> None:
        """A node that follows nothing surveys ledger 0, and those like it take part."""
        self.herder.tracking = 0
        self.manager.start_collecting(NONCE)
        self.assertEqual(decode_collecting(self.sent[0].body).ledger_num, 0)


class StopTests(SurveyTestCase):
    """It collects no more."""

    def test_stop(self) -> None:
        """We report, and all are told, at the ledger of now."""
        self.manager.start_collecting(NONCE)
        self.take()
        self.herder.tracking += 5
        self.assertIs(self.manager.stop_collecting(), True)
        (sent,) = self.sent
        self.assertEqual(sent.body, collecting(STOP, by=OWN, ledger=LEDGER + 5))
        self.assertEqual(sent.to, (self.a, self.b, self.c))
        self.assertIs(self.manager.phase, REPORTING)
        self.assertEqual(self.events[1:], [SurveyEvent("reporting", NONCE, OWN.peer_id)])
        self.assertEqual(self.metrics.survey_stopped.get(), 1)

    def test_without_one(self) -> None:
        """There is nothing to stop."""
        with self.assertRaises(SurveyError):
            self.manager.stop_collecting()

    def test_without_effect(self) -> None:
        """When it is another's, or reports already: nothing is sent."""
        self.assert_taken(collecting(START))
        self.take()
        self.assertIs(self.manager.stop_collecting(), False)
        self.assertIs(self.manager.phase, COLLECTING)
        self.assert_taken(collecting(STOP))
        self.take()
        self.assertIs(self.manager.stop_collecting(), False)
        self.manager = self.make()
        self.survey()
        self.assertIs(self.manager.stop_collecting(), False)
        self.assertEqual(self.sent, [])


class OthersTests(SurveyTestCase):
    """A survey of another node."""

    def test_phases(self) -> None:
        """START and STOP are obeyed and passed on, and that is told."""
        self.assert_taken(collecting(START))
        manager = self.manager
        self.assertEqual((manager.phase, manager.nonce), (COLLECTING, NONCE))
        self.assertEqual(manager.surveyor, SURVEYOR.peer_id)
        self.assert_taken(collecting(STOP), link=self.c)
        self.assertIs(manager.phase, REPORTING)
        self.assertEqual(
            self.events,
            [
                SurveyEvent("collecting", NONCE, SURVEYOR.peer_id),
                SurveyEvent("reporting", NONCE, SURVEYOR.peer_id),
            ],
        )
        self.assertEqual([sent.to for sent in self.sent], [(self.b, self.c), (self.a, self.b)])
        started, stopped = self.metrics.survey_started, self.metrics.survey_stopped
        self.assertEqual((started.get(), stopped.get(), self.woken), (1, 1, 1))

    def test_answer(self) -> None:
        """Sealed for the surveyor, signed by us, sent to all; the request goes no further."""
        self.report()
        asked = request()
        self.assert_taken(asked, link=self.b)
        (sent,) = self.take()
        self.assertEqual((sent.kind, sent.to), (RESPONSE, (self.a, self.b, self.c)))
        answer = decode_response(sent.body)
        self.assertEqual(
            (answer.surveyor, answer.surveyed, answer.ledger_num, answer.nonce),
            (SURVEYOR.peer_id.key, OWN.peer_id.key, LEDGER, NONCE),
        )
        self.assertEqual(answer.command_type, 1)
        self.assertTrue(is_signed_by(OWN.peer_id.key, answer.signed, answer.signature))
        said = opened(sent.body)
        self.assertEqual([peer.node for peer in said.inbound], keys_of((self.b, self.c)))
        self.assertEqual([peer.node for peer in said.outbound], keys_of((self.a,)))
        self.assertTrue(said.node.is_validator)
        self.assertEqual(self.metrics.survey_answers.get(), 1)
        self.assertEqual(
            self.events[-1], SurveyEvent("answered", NONCE, SURVEYOR.peer_id, OWN.peer_id)
        )
        self.assertEqual(self.gate.records[asked].told, self.b.flood_bit)

    def test_nobody_else_can_read_it(self) -> None:
        """Two answers to the same question are not the same bytes either."""
        self.report()
        self.assert_taken(request(), request(ledger=LEDGER + 1))
        one, other = (decode_response(sent.body).encrypted_body for sent in self.sent)
        self.assertNotEqual(one, other)
        self.assertNotIn(self.a.version_string + bytes(2), one)
        self.assertEqual(opened(self.sent[0].body), opened(self.sent[1].body))

    def test_pages(self) -> None:
        """25 of each direction, from any index on; the node itself is on each page (case 51)."""
        for number in range(10, 67):
            self.link(number, is_inbound=number % 2 == 0)
        self.report()
        expected = {
            True: keys_of(tuple(peer for peer in self.peers.values() if peer.is_inbound)),
            False: keys_of(tuple(peer for peer in self.peers.values() if not peer.is_inbound)),
        }
        figures = set()
        pages = [(0, 0), (25, 1), (30, 28), (2**32 - 1, 29), (31, 2**32 - 1)]
        for ledger, (inbound, outbound) in enumerate(pages, LEDGER):
            self.assert_taken(request(pages=(inbound, outbound), ledger=ledger))
            said = opened(self.take()[0].body)
            self.assertEqual(
                [peer.node for peer in said.inbound],
                expected[True][inbound : inbound + PEERS_PER_PAGE],
            )
            self.assertEqual(
                [peer.node for peer in said.outbound],
                expected[False][outbound : outbound + PEERS_PER_PAGE],
            )
            figures.add(said.node)
        (node,) = figures
        self.assertEqual((node.total_inbound_peers, node.total_outbound_peers), (31, 29))

    def test_the_largest_answer_fits(self) -> None:
        """S1: 25 and 25 peers of 100-byte versions and the greatest figures make 12,660 bytes."""
        self.peers.clear()
        for number in range(50):
            peer = self.link(number, is_inbound=number < 25)
            peer.version_string = b"v" * 100
        self.assert_taken(collecting(START))
        for peer in self.peers.values():
            peer.carried = PeerCounters(*[2**64] * 12)
        self.assert_taken(collecting(STOP), request())
        sent = self.sent[-1]
        self.assertEqual(len(sent.body), 12_660)
        said = opened(sent.body)
        self.assertEqual((len(said.inbound), len(said.outbound)), (25, 25))
        self.assertEqual(set(said.inbound[0].counters), {2**64 - 1})

    def test_somebody_else_knows_the_number(self) -> None:
        """Case 50: a permitted node that did not begin the survey has no answer, but is relayed."""
        both = frozenset({SURVEYOR.peer_id, STRANGER.peer_id})
        self.manager = self.make(surveyor_keys=both)
        self.report()
        asked = request(by=STRANGER)
        self.assertEqual(self.hear(asked), [SurveyRefusal.WRONG_SURVEYOR])
        self.assertEqual(self.take(), [])
        wrong = SurveyRefusal.WRONG_SURVEYOR
        self.assertEqual(
            self.events[-1], SurveyEvent("failed", NONCE, STRANGER.peer_id, OWN.peer_id, wrong)
        )
        self.assert_refused(SurveyRefusal.REPEATED, asked)  # it is recorded
        self.assert_taken(request(OTHER, by=STRANGER))
        self.assertEqual([sent.kind for sent in self.take()], [REQUEST])

    def test_keys_of_no_use(self) -> None:
        """Case 52: low-order points; no answer, nobody dropped, and the next request is heard."""
        self.report()
        low_order = (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")
        for ledger, key in enumerate(low_order, LEDGER):
            refused = self.hear(request(key=key, ledger=ledger))
            self.assertEqual(refused, [SurveyRefusal.BAD_KEY])
            self.assertIs(self.events[-1].reason, SurveyRefusal.BAD_KEY)
        self.assertEqual((self.sent, self.a.dropped), ([], []))
        self.assert_taken(request(ledger=LEDGER + 3))
        self.assertEqual(len(self.sent), 1)

    def test_relayed_answers_are_not_kept(self) -> None:
        """They are for the surveyor; our own results know nothing of them."""
        self.report()
        asked = request(OTHER)
        self.assert_taken(asked, response(asked, by=OTHER))
        self.assertIsNone(self.manager.results().topology)
        self.assertEqual(self.metrics.survey_responses.get(), 1)
        self.assertEqual(len(self.events), 2)  # of the two phases


class TimeTests(SurveyTestCase):
    """Phases end by themselves (case 46); when that is looked at is up to the caller."""

    def pass_time(self, seconds: float) -> bool:
        self.clock.advance(seconds)
        return self.manager.update_phase()

    def test_nobody_stops_it(self) -> None:
        """30 minutes, then 3 hours, then nothing is left."""
        self.assert_taken(collecting(START))
        self.assertIs(self.pass_time(HALF_AN_HOUR), True)
        self.assertIs(self.manager.phase, COLLECTING)
        self.assertIs(self.pass_time(0.1), True)
        self.assertIs(self.manager.phase, REPORTING)
        self.assert_taken(request())
        self.assertIs(self.pass_time(THREE_HOURS), True)
        self.assertIs(self.manager.phase, REPORTING)
        self.assertIs(self.pass_time(0.1), False)
        self.assertEqual((self.manager.phase, self.manager.nonce), (INACTIVE, None))
        self.assertIsNone(self.manager.surveyor)
        self.assertEqual(
            [event.kind for event in self.events],
            ["collecting", "reporting", "answered", "inactive"],
        )
        self.assertEqual(self.events[-1], SurveyEvent("inactive", NONCE, SURVEYOR.peer_id))
        self.assertEqual((self.woken, self.metrics.survey_stopped.get()), (1, 1))

    def test_a_new_survey_after_that(self) -> None:
        """Of the same number, too."""
        self.survey()
        self.pass_time(THREE_HOURS + 1)
        self.manager.start_collecting(NONCE)
        self.assertEqual((self.manager.phase, self.woken), (COLLECTING, 2))

    def test_a_run_ends_with_its_survey(self) -> None:
        """What it has learnt stays until the next run."""
        self.survey()
        for node in NODES[:12]:
            self.manager.request(node.peer_id)
        self.pass_time(1)
        self.assertTrue(self.manager.is_reporting)
        self.pass_time(THREE_HOURS + 1)
        self.assertFalse(self.manager.is_reporting)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.manager.results().topology or {}), 13)

    def test_old_ledgers_are_forgotten(self) -> None:
        """What was asked in them is of no use any more."""
        self.report()
        self.assert_taken(request(OTHER))
        self.assertEqual(self.manager._limiter.stats.ledgers, 1)
        self.herder.tracking += 7
        self.manager.update_phase()
        self.assertEqual(self.manager._limiter.stats.ledgers, 0)

    def test_shutdown(self) -> None:
        """No phase, no run, no timer, and nobody is watched."""
        self.manager.start_collecting(NONCE)
        self.assertIsNotNone(self.a.callback)
        self.manager.shutdown()
        self.assertEqual([peer.callback for peer in self.peers.values()], [None] * 3)
        self.assertIs(self.manager.phase, INACTIVE)
        self.manager = self.make()
        self.survey()
        self.manager.request(OTHER.peer_id)
        self.manager.shutdown()
        self.assertFalse(self.manager.is_reporting)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FactTests(SurveyTestCase):
    """What the node tells the survey of itself."""

    def reported(self) -> TopologyResponse:
        """Stop the survey, and return what is reported of ourselves."""
        self.manager.stop_collecting()
        self.manager.request(OTHER.peer_id)
        return self.own_report()

    def test_consensus_lost(self) -> None:
        """How often while it collected, by what the herder counts."""
        self.herder.lost_sync_count = 5
        self.manager.start_collecting(NONCE)
        self.herder.lost_sync_count = 7
        self.assertEqual(self.reported().node.lost_sync_count, 2)

    def test_out_of_sync_from_the_start(self) -> None:
        """Counts as once more."""
        self.herder.is_in_sync = False
        self.manager.start_collecting(NONCE)
        self.assertEqual(self.reported().node.lost_sync_count, 1)

    def test_peers_and_latencies(self) -> None:
        """Who came and went, and how long consensus took, as the manager is told."""
        self.manager.start_collecting(NONCE)
        self.manager.record_added_peer(self.link(4))
        self.manager.record_dropped_peer(self.peers.pop(self.b.peer_id))
        self.manager.record_scp_latency(ScpLatency.FIRST_TO_SELF, 0.25)
        self.manager.record_scp_latency(ScpLatency.SELF_TO_OTHER, 1.5)
        own = self.reported()
        node = own.node
        self.assertEqual((node.added_authenticated_peers, node.dropped_authenticated_peers), (1, 1))
        self.assertEqual(node.p75_scp_first_to_self_latency_ms, 250)
        self.assertEqual(node.p75_scp_self_to_other_latency_ms, 1500)
        self.assertEqual([peer.node for peer in own.inbound], [self.c.peer_id.key])
        self.assertEqual((node.max_inbound_peers, node.max_outbound_peers), (64, 8))


class RequestTests(SurveyTestCase):
    """We ask."""

    def answer(
        self, sent: Sent, by: LocalNode, change: Callable[[bytes], bytes] = lambda sealed: sealed
    ) -> list[SurveyRefusal]:
        """Let a node answer a request that was sent."""
        asked = decode_request(sent.body)
        self.assertEqual(asked.surveyed, by.peer_id.key)
        report = TopologyResponse(inbound=(), outbound=(), node=self.own_report().node)
        sealed = change(seal(encode_topology(report), asked.encryption_key))
        return self.hear(response(sent.body, sealed, by=by))

    def learnt(self) -> set[LocalNode]:
        """Return who of the others has answered."""
        topology = self.manager.results().topology or {}
        return {node for node in NODES if topology.get(node.peer_id) is not None}

    def test_request(self) -> None:
        """Sent at once to all, of the ledger of now, with the key of the run."""
        self.survey()
        self.herder.tracking += 2
        self.assertIs(self.manager.request(OTHER.peer_id, 25, 50), True)
        self.assertIs(self.manager.request(NODES[1].peer_id.strkey), True)
        one, other = (decode_request(sent.body) for sent in self.sent)
        self.assertEqual(
            (one.surveyor, one.surveyed, one.ledger_num, one.nonce),
            (OWN.peer_id.key, OTHER.peer_id.key, LEDGER + 2, NONCE),
        )
        self.assertEqual((one.inbound_index, one.outbound_index, one.command_type), (25, 50, 1))
        self.assertEqual((other.inbound_index, other.outbound_index), (0, 0))
        self.assertEqual(other.surveyed, NODES[1].peer_id.key)
        self.assertTrue(is_signed_by(OWN.peer_id.key, one.signed, one.signature))
        self.assertEqual(one.encryption_key, other.encryption_key)
        self.assertNotIn(one.encryption_key, (bytes(32), OWN.peer_id.key))
        self.assertEqual([sent.to for sent in self.sent], 2 * [(self.a, self.b, self.c)])
        self.assertTrue(self.manager.is_reporting)
        self.assertEqual(self.metrics.survey_requests.get(), 2)

    def test_in_another_phase(self) -> None:
        """Case 60: refused, and the survey is none the worse for it."""
        ask = self.manager.request
        self.assertRaisesRegex(SurveyError, "no survey is active", ask, OTHER.peer_id)
        self.manager.start_collecting(NONCE)
        self.assertRaisesRegex(SurveyError, "still collecting", ask, OTHER.peer_id)
        self.assertEqual((self.manager.phase, self.manager.nonce), (COLLECTING, NONCE))
        self.assertIsNotNone(self.a.callback)
        self.assertIsNone(self.manager.results().topology)
        self.manager.stop_collecting()
        self.assertIs(ask(OTHER.peer_id), True)

    def test_of_anothers_survey(self) -> None:
        """Nobody would answer us."""
        self.report()
        with self.assertRaisesRegex(SurveyError, str(SURVEYOR.peer_id)):
            self.manager.request(OTHER.peer_id)
        self.assertFalse(self.manager.is_reporting)

    def test_bad_arguments(self) -> None:
        """They are refused before anything begins."""
        self.survey()
        for node in ("", "GABC", OTHER.secret_seed):
            self.assertRaises(InvalidKey, self.manager.request, node)
        for index in (-1, 2**32, True, 1.0, "0", None):
            for pages in ((index, 0), (0, index)):
                self.assertRaises(ValueError, self.manager.request, OTHER.peer_id, *pages)
        self.assertEqual((self.sent, self.manager.is_reporting), ([], False))

    def test_oneself_and_twice(self) -> None:
        """S7: neither is asked; who waits already keeps the pages that were named first."""
        self.survey()
        self.assertIs(self.manager.request(OWN.peer_id), False)
        self.assertTrue(self.manager.is_reporting)
        for node in NODES[:10]:
            self.assertIs(self.manager.request(node.peer_id), True)
        self.assertIs(self.manager.request(NODES[10].peer_id, 25, 0), True)
        self.assertIs(self.manager.request(NODES[10].peer_id, 1, 1), False)
        self.take()
        self.clock.advance(PAUSE_SECONDS)
        (sent,) = self.sent
        self.assertEqual(decode_request(sent.body).inbound_index, 25)

    def test_the_same_node_in_the_same_ledger(self) -> None:
        """Nobody takes that twice, so the second request names a ledger nearby."""
        self.survey()
        self.manager.request(OTHER.peer_id)
        self.assertIs(self.manager.request(OTHER.peer_id, 25, 0), False)
        self.clock.advance(PAUSE_SECONDS)
        self.assertIs(self.manager.request(OTHER.peer_id, 25, 0), True)
        asked = [decode_request(sent.body) for sent in self.take()]
        self.assertEqual([one.inbound_index for one in asked], [0, 25])
        self.assertEqual([one.ledger_num for one in asked], [LEDGER, LEDGER - 1])

    def test_a_ledger_that_stands_still(self) -> None:
        """Ten requests in each of 13 ledgers around ours, and one per node and ledger."""
        self.survey()
        asked = []
        for page in range(15):
            self.manager.request(OTHER.peer_id, 25 * page, 0)
            asked += [decode_request(sent.body).ledger_num for sent in self.take()]
            self.clock.advance(PAUSE_SECONDS)
        self.assertEqual(sorted(asked), list(range(LEDGER - 6, LEDGER + 7)))
        self.assertEqual(self.manager.stats.backlog, 1)
        self.herder.tracking += 1
        self.clock.advance(PAUSE_SECONDS)
        (sent,) = self.take()
        self.assertEqual(decode_request(sent.body).ledger_num, LEDGER + 7)

    def test_ten_in_a_ledger(self) -> None:
        """However the pauses fall: others refuse the eleventh of one surveyor."""
        self.survey()
        self.manager.request(NODES[0].peer_id)
        self.clock.advance(PAUSE_SECONDS - 0.1)
        for number in range(30):
            self.manager.request(PeerId(bytes([100 + number]) * 32))
        self.clock.advance(0.2)
        ledgers = Counter(decode_request(sent.body).ledger_num for sent in self.take())
        self.assertEqual(ledgers, {LEDGER: 10, LEDGER - 1: 10})

    def test_more_than_others_may(self) -> None:
        """In a ledger that lasts for long we ask ten after ten, as core does."""
        self.survey()
        for node in NODES:
            self.manager.request(node.peer_id)
        self.clock.pump([PAUSE_SECONDS] * 2)
        self.assertEqual(
            [decode_request(sent.body).surveyed for sent in self.sent],
            [node.peer_id.key for node in NODES],
        )

    def test_answered(self) -> None:
        """The answer is ours: kept, told, and sent to nobody."""
        self.survey()
        self.manager.request(OTHER.peer_id)
        (sent,) = self.take()
        self.assertEqual(self.answer(sent, OTHER), [])
        self.assertEqual((self.learnt(), self.sent), ({OTHER}, []))
        self.assertEqual(
            self.events[-1], SurveyEvent("response", NONCE, OWN.peer_id, OTHER.peer_id)
        )
        self.assertEqual(self.metrics.survey_responses.get(), 1)

    def test_answered_twice(self) -> None:
        """Case 53: the second one is not looked at."""
        self.survey()
        self.manager.request(OTHER.peer_id)
        (sent,) = self.take()
        self.answer(sent, OTHER)
        before = self.manager.results()
        self.assertEqual(self.answer(sent, OTHER), [SurveyRefusal.REPEATED])
        self.assertEqual(self.manager.results(), before)

    def test_unasked(self) -> None:
        """S5: what nobody asked for is not believed."""
        self.survey()
        self.manager.request(OTHER.peer_id)
        (sent,) = self.take()
        asked = decode_request(sent.body)
        unasked = request(NODES[1], by=OWN, key=asked.encryption_key)
        body = encode_topology(
            TopologyResponse(inbound=(), outbound=(), node=self.own_report().node)
        )
        answer = response(unasked, seal(body, asked.encryption_key), by=NODES[1])
        self.assert_refused(SurveyRefusal.UNASKED, answer)
        self.assertEqual(set(self.manager.results().topology or {}), {OWN.peer_id, OTHER.peer_id})

    def test_what_cannot_be_read(self) -> None:
        """Case 54: the node is in the list of the bad ones, its answer is used up."""
        self.survey()
        self.manager.request(OTHER.peer_id)
        (sent,) = self.take()
        refused = self.answer(sent, OTHER, lambda sealed: sealed[:-1])
        self.assertEqual(refused, [SurveyRefusal.BAD_BODY])
        self.assertEqual(list(self.manager.results().bad_response_nodes), [OTHER.peer_id])
        bad = SurveyRefusal.BAD_BODY
        self.assertEqual(
            self.events[-1], SurveyEvent("failed", NONCE, OWN.peer_id, OTHER.peer_id, bad)
        )
        self.assertEqual(self.answer(sent, OTHER), [SurveyRefusal.REPEATED])
        self.assertEqual((self.learnt(), self.a.dropped), (set(), []))

    def test_after_the_run(self) -> None:
        """Late answers are of no use, and bad ones do no harm."""
        self.survey()
        self.manager.request(OTHER.peer_id)
        (sent,) = self.take()
        self.manager.stop_reporting()
        self.assertFalse(self.manager.is_reporting)
        self.assertEqual(self.answer(sent, OTHER), [SurveyRefusal.TOO_LATE])
        self.assertEqual(self.learnt(), set())
        self.assertFalse(self.manager.results().in_progress)
        self.manager.stop_reporting()  # again is harmless
        self.manager.request(OTHER.peer_id)  # the survey goes on, so a run may begin anew
        self.assertTrue(self.manager.is_reporting)

    def test_results(self) -> None:
        """Nothing before a run; then ourselves, who was asked, and who waits."""
        self.assertEqual(self.manager.results(), SurveyResults())
        self.survey()
        self.assertNotIn("topology", self.manager.results().to_json())
        for node in NODES[:12]:
            self.manager.request(node.peer_id)
        answer = self.manager.results().to_json()
        self.assertEqual(answer["backlog"], [node.peer_id.strkey for node in NODES[10:12]])
        self.assertIs(answer["surveyInProgress"], True)
        self.assertEqual(len(answer["topology"]), 13)
        own = answer["topology"][OWN.peer_id.strkey]
        self.assertEqual(
            (len(own["inboundPeers"]), len(own["outboundPeers"]), own["isValidator"]), (2, 1, True)
        )
        self.assertEqual(own["outboundPeers"][0]["version"], "v1")

    def test_all_own_peers(self) -> None:
        """Of ourselves we know more than a page."""
        for number in range(10, 70):
            self.link(number)
        self.survey()
        self.manager.request(OWN.peer_id)
        own = self.manager.results().to_json()["topology"][OWN.peer_id.strkey]
        self.assertEqual((len(own["inboundPeers"]), own["numTotalInboundPeers"]), (62, 62))


class StatsTests(SurveyTestCase):
    """Where surveys stand, at a glance."""

    def test_course(self) -> None:
        """From nothing to nothing."""
        nothing = SurveyManagerStats(
            phase=INACTIVE,
            nonce=None,
            surveyor=None,
            seconds_left=None,
            backlog=0,
            answered=0,
            bad_responses=0,
            collecting_inbound_peers=0,
            collecting_outbound_peers=0,
        )
        self.assertEqual(self.manager.stats, nothing)
        self.manager.start_collecting(NONCE)
        self.clock.advance(60)
        collects = nothing._replace(
            phase=COLLECTING,
            nonce=NONCE,
            surveyor=OWN.peer_id,
            seconds_left=HALF_AN_HOUR - 60,
            collecting_inbound_peers=2,
            collecting_outbound_peers=1,
        )
        self.assertEqual(self.manager.stats, collects)
        self.manager.stop_collecting()
        for node in NODES[:11]:
            self.manager.request(node.peer_id)
        reports = collects._replace(
            phase=REPORTING,
            seconds_left=THREE_HOURS,
            backlog=1,
            collecting_inbound_peers=0,
            collecting_outbound_peers=0,
        )
        self.assertEqual(self.manager.stats, reports)
        self.clock.advance(THREE_HOURS + 5)  # and nobody looks
        self.assertEqual(self.manager.stats.seconds_left, 0)

    def test_answers(self) -> None:
        """Good ones and bad ones, of others."""
        self.survey()
        for node in NODES[:3]:
            self.manager.request(node.peer_id)
        node_data = self.own_report().node
        body = encode_topology(TopologyResponse(inbound=(), outbound=(), node=node_data))
        for node, sent, cut_off in zip(NODES[:2], self.take(), (None, -1), strict=False):
            sealed = seal(body, decode_request(sent.body).encryption_key)[:cut_off]
            self.hear(response(sent.body, sealed, by=node))
        stats = self.manager.stats
        self.assertEqual((stats.answered, stats.bad_responses, stats.backlog), (1, 1, 0))
