"""Surveys of whole networks: core's scenarios (reliability.md S2-S8), and phases."""

from __future__ import annotations

from typing import Any

from stellar_overlay.error import SurveyError, SurveyRefusal
from stellar_overlay.gossip.survey_data import COLLECTING_SECONDS, REPORTING_SECONDS
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.surveying import PHASE_SECONDS
from stellar_overlay.wire.survey_body import decode_request
from tests.scenarios.surveys import (
    COLLECTING,
    INACTIVE,
    NONCE,
    REPORTING,
    REQUEST,
    SurveyTestCase,
    request,
    response,
)
from tests.scenarios.traffic import (
    Neighbour,
    star,
)

LINKS = (("D", "A"), ("A", "B"), ("B", "C"), ("B", "E"))
TRUSTED = {"A": "AC", "B": "AE", "C": "AC", "D": "AC", "E": "AC"}
"""As in core's tests, where A and C are the quorum, and B has a list."""
PROPAGATION_LEDGERS = 6
"""Twice the pause between requests (core's crankForSurveyPropagation)."""


class CoreTestCase(SurveyTestCase):
    """Core's five nodes: D dials A, A dials B, B dials C and E."""

    def begin_with_five(self, **settings: Any) -> None:
        """Start with them."""
        self.nodes = self.survey_nodes(LINKS, TRUSTED, **settings)
        self.a, self.b, self.c, self.d, self.e = self.nodes.values()
        self.wait(1)

    def wait(self, ledgers: int = PROPAGATION_LEDGERS) -> None:
        """Let ledgers close."""
        self.close_ledgers(ledgers, self.a)

    def report_from(self, node: OverlayManager) -> None:
        """Have a node survey the network until others report."""
        node.survey.start_collecting(0xCAFE)
        self.wait()
        self.assertTrue(node.survey.stop_collecting())
        self.wait()

    def topology(self, node: OverlayManager) -> dict[str, Any]:
        """Return what ``getsurveyresult`` shows, by the letters of nodes."""
        names = {self.key(name).strkey: name for name in "ABCDEF"}
        topology = node.survey.results().to_json()["topology"]
        return {names[key]: answer for key, answer in topology.items()}

    def assert_peers(self, answer: dict[str, Any], inbound: str, outbound: str) -> None:
        """Check who dialled a node, and whom it dialled, and that the totals say the same."""
        for way, total, expected in (
            ("inboundPeers", "numTotalInboundPeers", inbound),
            ("outboundPeers", "numTotalOutboundPeers", outbound),
        ):
            ids = {peer["nodeId"] for peer in answer[way] or []}
            self.assertEqual(ids, {self.key(name).strkey for name in expected})
            self.assertEqual(answer[total], len(expected))
        empty = [way for way in ("inboundPeers", "outboundPeers") if answer[way] == []]
        self.assertEqual(empty, [])  # core says null


class TopologyTests(CoreTestCase):
    """S2 to S5."""

    def test_five_nodes(self) -> None:
        """S2: A surveys B, then C and E; who is connected to whom, and the limits of each."""
        self.begin_with_five(max_inbound_peers=7, target_outbound_peers=3)
        self.report_from(self.a)
        self.assertTrue(self.a.survey.request(self.b.local_node.peer_id.strkey))
        self.wait()
        topology = self.topology(self.a)
        self.assertEqual(set(topology), {"A", "B"})
        self.assert_peers(topology["A"], "D", "B")
        self.assert_peers(topology["B"], "A", "CE")

        for node in (self.c, self.e):
            self.assertTrue(self.a.survey.request(node.local_node.peer_id))
        self.wait()
        topology = self.topology(self.a)
        self.assertEqual(set(topology), set("ABCE"))
        self.assert_peers(topology["C"], "B", "")
        self.assert_peers(topology["E"], "B", "")
        for answer in topology.values():
            self.assertEqual(
                (answer["maxInboundPeerCount"], answer["maxOutboundPeerCount"]), (7, 3)
            )
            self.assertFalse(answer["isValidator"])
            self.assertEqual(
                (answer["addedAuthenticatedPeers"], answer["droppedAuthenticatedPeers"]), (0, 0)
            )
        self.assertEqual(self.a.survey.stats.answered, 3)

    def test_a_surveyor_whom_nobody_trusts(self) -> None:
        """S3: D gets nothing from A, and nothing through A; its own answer is all it has."""
        self.begin_with_five()
        self.report_from(self.d)
        self.assert_phases((self.a, self.b, self.c, self.e), INACTIVE, None)
        for node in (self.a, self.b):
            self.d.survey.request(node.local_node.peer_id)
        self.wait()
        topology = self.topology(self.d)
        self.assert_peers(topology.pop("D"), "", "A")
        self.assertEqual(topology, {"A": None, "B": None})
        self.assertEqual(set(self.refused(self.a)), {SurveyRefusal.NOT_PERMITTED})
        self.assertEqual(self.refused(self.b), {})

    def test_a_surveyor_who_is_not_on_the_list(self) -> None:
        """S4: C is not on B's; A would answer, but never hears of it."""
        self.begin_with_five()
        self.assertTrue(self.a.survey.surveyor_permitted(self.c.local_node.peer_id))
        self.report_from(self.c)
        for node in (self.b, self.a):
            self.c.survey.request(node.local_node.peer_id)
        self.wait()
        topology = self.topology(self.c)
        self.assert_peers(topology.pop("C"), "B", "")
        self.assertEqual(topology, {"A": None, "B": None})
        self.assertEqual((self.a.survey.phase, self.refused(self.a)), (INACTIVE, {}))

    def test_an_answer_that_nobody_wants(self) -> None:
        """S5: D answers a question that A has never asked; A shows itself and B only."""
        self.begin_with_five()
        self.report_from(self.a)
        listener = self.call("listener", Neighbour, to="A")
        self.a.survey.request(self.b.local_node.peer_id)
        self.network.advance(0)
        (asked,) = map(decode_request, listener.bodies(REQUEST))
        question = request(  # as A would have asked
            self.a.local_node,
            self.d.local_node.peer_id,
            nonce=0xCAFE,
            ledger=asked.ledger_num,
            key=asked.encryption_key,
        )
        self.d.broadcast(response(question, self.d.local_node))
        self.wait()
        self.assertEqual(self.refused(self.a), {SurveyRefusal.UNASKED: 1})
        topology = self.topology(self.a)
        self.assertEqual(set(topology), {"A", "B"})
        self.assertIsNotNone(topology["B"])


class OrderTests(SurveyTestCase):
    """S6."""

    def test_first_come_first_served(self) -> None:
        """Of 19 questions ten leave at once and nine after 15 s, all in order."""
        nodes = self.build(star(20), surveyor_keys=[self.key("0")])
        hub, others = nodes[0], [node.local_node.peer_id for node in nodes[1:]]
        listener = self.call("listener", Neighbour, to="0")
        self.close_ledgers(1, hub)
        hub.survey.start_collecting(NONCE)
        self.close_ledgers(1, hub)
        hub.survey.stop_collecting()
        self.close_ledgers(1, hub)

        def asked() -> list[PeerId]:
            return [PeerId(decode_request(one).surveyed) for one in listener.bodies(REQUEST)]

        for node in others:
            self.assertTrue(hub.survey.request(node))
        self.network.advance(0)
        self.assertEqual(asked(), others[:10])
        self.assertEqual(list(hub.survey.results().backlog), others[10:])
        self.assertFalse(hub.survey.request(others[12], 25, 25))
        self.close_ledgers(3, hub, seconds=4.99)
        self.assertEqual(asked(), others[:10])
        self.network.advance(0.03)
        self.assertEqual(asked(), others)
        self.assertEqual((hub.survey.stats.backlog, hub.survey.stats.answered), (0, 19))
        self.assertEqual(hub.survey.results().to_json()["backlog"], None)
        hub.survey.stop_reporting()


class StaticTests(CoreTestCase):
    """S7."""

    MINUTES = 10

    def test_a_whole_survey(self) -> None:
        """Phases, numbers, pages, whoever interferes; and all ends by itself."""
        self.begin_with_five(survey_phase_minutes=self.MINUTES)
        every = list(self.nodes.values())
        survey = self.a.survey
        survey.start_collecting(NONCE)
        self.close_ledgers(10, self.a, seconds=30)
        self.assert_phases(every, COLLECTING)
        self.assertTrue(survey.stop_collecting())
        self.close_ledgers(2, self.a, seconds=30)
        self.assert_phases(every, REPORTING)
        self.assertFalse(survey.stop_collecting())

        self.pages()
        with self.assertRaises(SurveyError):
            self.b.survey.start_collecting(0xCAFE)
        with self.assertRaises(SurveyError):
            self.b.survey.request(self.a.local_node.peer_id)
        self.wait()
        self.assert_phases(every, REPORTING)
        self.assertTrue(survey.is_reporting)

        self.network.advance(self.MINUTES * 60)
        self.assert_phases(every, INACTIVE, None)
        self.assertFalse(survey.is_reporting)
        self.assertEqual(set(self.topology(self.a)), {"A", "B"})  # what was learnt stays
        survey.start_collecting(NONCE)
        self.network.advance(1)
        self.assert_phases(every, COLLECTING)
        self.network.advance(self.MINUTES * 60 + PHASE_SECONDS)
        self.assert_phases(every, REPORTING)

    def pages(self) -> None:
        """Ask B, for what is further on, and twice at once."""
        survey, b = self.a.survey, self.b.local_node.peer_id
        self.assertTrue(survey.request(b))
        self.wait()
        self.assert_peers(self.topology(self.a)["B"], "A", "CE")
        self.assertTrue(survey.request(b, 1, 1))
        self.assertEqual(self.topology(self.a)["B"], {})
        self.network.advance(1)
        answer = self.topology(self.a)["B"]
        self.assertEqual((answer["inboundPeers"], len(answer["outboundPeers"])), (None, 1))
        self.assertEqual((answer["numTotalInboundPeers"], answer["numTotalOutboundPeers"]), (1, 2))
        self.assertTrue(survey.request(b, 0, 0))
        self.assertFalse(survey.request(b, 1, 1))
        self.assertFalse(survey.request(self.a.local_node.peer_id))
        self.assertEqual(survey.results().to_json()["backlog"], None)
        self.wait()
        self.assert_peers(self.topology(self.a)["B"], "A", "CE")


class DynamicTests(CoreTestCase):
    """S8."""

    MINUTES = 10

    def test_who_comes_and_goes(self) -> None:
        """F comes too late, E misses the STOP: both are silent; B counts one of each."""
        trusted = {name: TRUSTED[name] + "F" for name in "ABCDE"}
        self.nodes = self.survey_nodes(LINKS, trusted, survey_phase_minutes=self.MINUTES)
        self.a, self.b, self.c, self.d, self.e = self.nodes.values()
        stayed = [self.a, self.b, self.c, self.d]
        self.wait(1)
        self.a.survey.start_collecting(NONCE)
        self.wait()
        f = self.add("F", surveyor_keys=[self.key("A")], survey_phase_minutes=self.MINUTES)
        self.link("F", "B")
        self.wait()
        self.network.result_of(self.b.disconnect(self.e.local_node.peer_id))
        self.wait()
        self.assert_phases([*stayed, self.e], COLLECTING)
        self.assert_phases([f], INACTIVE, None)

        self.a.survey.stop_collecting()
        self.wait()
        self.link("B", "E")
        self.wait()
        self.assert_phases(stayed, REPORTING)
        self.assert_phases([self.e], COLLECTING)
        self.assert_phases([f], INACTIVE, None)

        for node in (self.b, self.e, f):
            self.a.survey.request(node.local_node.peer_id)
        self.wait()
        topology = self.topology(self.a)
        self.assertEqual((topology.pop("E"), topology.pop("F")), (None, None))
        self.assert_peers(topology["A"], "D", "B")
        self.assert_peers(topology["B"], "A", "C")
        changes = ("addedAuthenticatedPeers", "droppedAuthenticatedPeers")
        self.assertEqual([topology["A"][name] for name in changes], [0, 0])
        self.assertEqual([topology["B"][name] for name in changes], [1, 1])

        f.survey.start_collecting(0xCAFE)
        self.wait()
        self.assert_phases(stayed, REPORTING)
        self.assert_phases([self.e], COLLECTING)
        self.assert_phases([f], COLLECTING, 0xCAFE)
        self.assertEqual(self.refused(self.b)[SurveyRefusal.ALREADY_ACTIVE], 1)
        self.network.advance(2 * (self.MINUTES * 60 + PHASE_SECONDS))
        self.assert_phases([*stayed, self.e, f], INACTIVE, None)


class PhaseTests(SurveyTestCase):
    """What time alone does: 30 minutes, then 3 hours."""

    def test_nobody_stops_it(self) -> None:
        """Neither does a phase end early, nor later than the next look; then all is forgotten."""
        nodes = self.build(star(2), surveyor_keys=[self.key("0")])
        surveyor, other = nodes
        surveyor.survey.start_collecting(NONCE)
        self.network.advance(COLLECTING_SECONDS)
        self.assert_phases(nodes, COLLECTING)
        self.network.advance(PHASE_SECONDS)
        self.assert_phases(nodes, REPORTING)
        surveyor.survey.request(other.local_node.peer_id)
        self.network.advance(1)
        self.assertEqual(surveyor.survey.stats.answered, 1)

        self.network.advance(REPORTING_SECONDS - PHASE_SECONDS)
        self.assert_phases(nodes, REPORTING)
        self.network.advance(2 * PHASE_SECONDS)
        self.assert_phases(nodes, INACTIVE, None)
        self.assertFalse(surveyor.survey.is_reporting)
        self.assertEqual(surveyor.survey.stats.seconds_left, None)

    def test_the_surveyor_is_gone(self) -> None:
        """It crashes while all collect: they come to an end without it, and to the next survey."""
        nodes = self.build(star(4), surveyor_keys=[self.key("0")], survey_phase_minutes=1)
        nodes[0].survey.start_collecting(NONCE)
        self.network.advance(1)
        self.assert_phases(nodes, COLLECTING)
        self.network.crash("0")
        self.network.advance(60 + PHASE_SECONDS)
        self.assert_phases(nodes[1:], REPORTING)
        self.network.advance(60 + PHASE_SECONDS)
        self.assert_phases(nodes[1:], INACTIVE, None)
        again = self.network.restart("0")
        self.assertEqual(again.survey.phase, INACTIVE)
        for number in (1, 2, 3):
            self.link(str(number), "0")
        again.survey.start_collecting(1)
        self.network.advance(1)
        self.assert_phases([again, *nodes[1:]], COLLECTING, 1)
