"""The demo's survey: who is asked, and for how long; and what is taken for the truth."""

from __future__ import annotations

from argparse import Namespace

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.gossip import survey_data
from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.gossip.survey_run import SurveyRun
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.tools.demo_survey import MAX_TRIES, Survey, Told, seconds_to_collect
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.survey_body import (
    PeerCounters,
    SurveyResponse,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
)
from tests.tools.demo_kit import Play, SimulatedNetwork

COUNTERS = PeerCounters(*range(12))


def _peer(number: int) -> TimeSlicedPeerData:
    return TimeSlicedPeerData(
        node=bytes([number]) * 32,
        version_string=b"",
        counters=COUNTERS,
        seconds_connected=1,
        average_latency_ms=1,
    )


def _page(inbound: tuple[int, ...], outbound: tuple[int, ...], total: int) -> TopologyResponse:
    node = TimeSlicedNodeData(
        added_authenticated_peers=0,
        dropped_authenticated_peers=0,
        total_inbound_peers=total,
        total_outbound_peers=1,
        p75_scp_first_to_self_latency_ms=0,
        p75_scp_self_to_other_latency_ms=0,
        lost_sync_count=0,
        is_validator=False,
        max_inbound_peers=64,
        max_outbound_peers=8,
    )
    return TopologyResponse(
        inbound=tuple(map(_peer, inbound)), outbound=tuple(map(_peer, outbound)), node=node
    )


class ToldTests(SynchronousTestCase):
    def test_pages(self) -> None:
        """Pages add up, in whatever order and how often they come."""
        told = Told()
        self.assertFalse(told.is_complete)
        news = [told.merge(_page((1, 2), (9,), 3)), told.merge(_page((1, 2), (9,), 3))]
        self.assertEqual((news, told.is_complete), ([True, False], False))
        self.assertTrue(told.merge(_page((3,), (), 3)))
        self.assertTrue(told.is_complete)
        own = PeerId(bytes(32))
        ids = {number: PeerId(bytes([number]) * 32) for number in (1, 2, 3, 9)}
        self.assertEqual(
            set(told.links(own)), {(ids[1], own), (ids[2], own), (ids[3], own), (own, ids[9])}
        )


class PlanTests(SynchronousTestCase):
    def test_collecting(self) -> None:
        """A third of the traffic, less if there is much to ask, and ten minutes at most."""
        for seconds, ask_seconds, collecting in (
            (1, 0.5, 1 / 3), (3, 0.5, 1), (20, 3.5, 20 / 3), (20, 9.5, 20 / 3), (12, 9.5, 2.5),
            (12, 30, 2), (86_400, 81.5, 600),
        ):  # fmt: skip
            with self.subTest(seconds=seconds, ask_seconds=ask_seconds):
                self.assertAlmostEqual(seconds_to_collect(seconds, ask_seconds), collecting)

    def test_in_time(self) -> None:
        """It fits the traffic in usual sizes, and else takes as long as asking takes."""
        network = SimulatedNetwork(Namespace(nodes=2, seconds=1, seed=7))
        for size, seconds, longest in ((2, 1, 1), (12, 20, 20), (40, 20, 20), (40, 1, 10)):
            network.size, network.ledger_seconds = size, 1
            survey = Survey(Namespace(seconds=seconds, seed=7), network, None, print)
            self.assertLessEqual(survey.max_seconds - 10, longest)


class SurveyTests(SynchronousTestCase):
    def survey(self, nodes: int, seconds: int = 2) -> Play:
        """Return a network that has sent and surveyed everything, and passed all checks."""
        play = Play(self, nodes=nodes, seconds=seconds)
        self.assertEqual([one.text for one in play.run().values() if not one.ok], [])
        return play

    def test_course(self) -> None:
        """All nodes collect, stop, and are asked while there is traffic; it is said what is on."""
        play = Play(self, nodes=5, seconds=3)
        clock, survey = play.network.world.clock, play.survey
        start = clock.seconds()
        surveying = Deferred.fromCoroutine(survey.run(start + 10))
        self.assertTrue(survey.is_running)
        phases = []
        for _ in range(3):
            clock.advance(0.4)
            phases.append({node.survey.phase for node in play.nodes})
        self.assertEqual(
            phases, [{SurveyPhase.COLLECTING}, {SurveyPhase.COLLECTING}, {SurveyPhase.REPORTING}]
        )
        play.network.world.result_of(surveying)
        self.assertFalse(survey.is_running)
        self.assertEqual(
            play.lines,
            [
                "survey: the nodes collect figures for 1.0 s",
                "survey: they stop collecting, and the surveyor asks them",
                "survey: 1 of 5 nodes have answered",
                "survey: 5 of 5 nodes have answered, 1.1 s after the start",
            ],
        )
        self.assertAlmostEqual(survey.seconds, 1.1)
        self.assertFalse(play.network.surveyor.survey.is_reporting)

    def test_surveyor(self) -> None:
        """The last node surveys; nobody lets another one do that."""
        network = SimulatedNetwork(Namespace(nodes=3, seconds=1, seed=7))
        *others, surveyor = network.nodes
        self.assertIs(network.surveyor, surveyor)
        for node in others:
            for other in network.nodes:
                may = node.survey.surveyor_permitted(other.local_node.peer_id)
                self.assertEqual(may, other in (node, surveyor))

    def test_strangers(self) -> None:
        """Those who are no peers of the surveyor are found through its peers."""
        play = Play(self, nodes=5, seconds=1)
        surveyor = play.network.surveyor
        for info in surveyor.peer_infos()[1:]:
            surveyor.peer(info.peer_id).drop(DropReason.DROPPED_BY_USER.violation())
        play.network.world.result_of(play.survey.run(play.network.world.clock.seconds() + 5))
        self.assertEqual(len(play.survey.told[surveyor.local_node.peer_id].inbound), 0)
        self.assertEqual(len(play.survey.told[surveyor.local_node.peer_id].outbound), 1)
        self.assertEqual(sum(told.is_complete for told in play.survey.told.values()), 5)

    def test_pages(self) -> None:
        """Who has more peers than fit an answer is asked for the others."""
        self.patch(survey_data, "PEERS_PER_PAGE", 2)
        play = self.survey(6, seconds=15)
        self.assertEqual(max(len(told.inbound) for told in play.survey.told.values()), 5)

    def test_many(self) -> None:
        """Where more than ten are to be asked, ledgers close until they were."""
        play = self.survey(13, seconds=1)
        self.assertGreaterEqual(play.traffic.ledger, 2)
        self.assertLess(play.survey.seconds, 5)
        refusals = [
            str(reason)
            for node in play.nodes
            for reason, counter in node.metrics.survey_refusals.items()
            if counter.get() and reason.name != "REPEATED"
        ]
        self.assertEqual(set(refusals), set())

    def test_lost_answers(self) -> None:
        """Who does not answer is asked again, and answers then."""
        play = Play(self, nodes=4, seconds=1)
        lost: list[SurveyResponse] = []
        honest = SurveyRun.take

        def take(run: SurveyRun, response: SurveyResponse) -> object:
            if len(lost) < 3:
                lost.append(response)
                return None
            return honest(run, response)

        self.patch(SurveyRun, "take", take)
        start = play.network.world.clock.seconds()
        deadline = start + 30
        clock = play.network.world.clock
        play.traffic._close_ledger_each(1, 5)  # they are not asked twice in a ledger
        clock.advance(2)
        surveying = Deferred.fromCoroutine(play.survey.run(deadline))
        clock.advance(1)
        play.traffic._close_ledger_each(1, 5)
        play.network.world.result_of(surveying, timeout=30)
        self.assertEqual(len(lost), 3)
        self.assertTrue(all(told.is_complete for told in play.survey.told.values()))

    def test_silent(self) -> None:
        """Who never answers is given up after some tries."""
        play = Play(self, nodes=3, seconds=10)
        _mute(play.nodes[1])
        check = play.run_for("survey")
        told = play.survey.told[play.nodes[1].local_node.peer_id]
        self.assertEqual((told.tries, told.is_complete, check.ok), (MAX_TRIES, False, False))
        self.assertTrue(9 <= play.survey.seconds <= 20, play.survey.seconds)

    def test_deadline(self) -> None:
        """Or earlier, if it is time."""
        play = Play(self, nodes=3, seconds=1)
        _mute(play.nodes[1])
        start = play.network.world.clock.seconds()
        play.network.world.result_of(play.survey.run(start + 2), timeout=70)
        self.assertTrue(2 <= play.survey.seconds <= 2.2, play.survey.seconds)


class TruthTests(SynchronousTestCase):
    """Four nodes that collect for two seconds."""

    def setUp(self) -> None:
        self.play = Play(self, nodes=4, seconds=6)
        self.clock = self.play.network.world.clock
        self.ids = [node.local_node.peer_id for node in self.play.nodes]

    def survey(self) -> None:
        """Survey, and find that what was told is so."""
        deadline = self.clock.seconds() + 20
        self.play.network.world.result_of(self.play.survey.run(deadline), timeout=30)
        for node in self.ids:
            truth = self.play.survey.truth.links(node)
            told = self.play.survey.told[node].links(node)
            self.assertEqual({link: peer.counters for link, peer in told.items()}, truth)

    def links(self) -> set[tuple[int, int]]:
        """Return what each end says of its links."""
        found = [set(self.play.survey.truth.links(node)) for node in self.ids]
        both = {link for links in found for link in links}
        for link in both:
            self.assertEqual(sum(link in links for links in found), 2)
        return {(self.ids.index(a), self.ids.index(b)) for a, b in both}

    def test_stayed(self) -> None:
        """The links of the network, with their direction."""
        self.survey()
        numbers = {node: number for number, node in enumerate(self.play.nodes)}
        links = {(numbers[a], numbers[b]) for a, b in self.play.network.links}
        self.assertEqual((self.links(), len(links)), (links, 6))

    def test_dropped(self) -> None:
        """A link that ends while the nodes collect is none, even if it returns."""
        one, other = self.play.nodes[1:3]
        leave = one.peer(other.local_node.peer_id).drop
        self.clock.callLater(0.5, leave, DropReason.DROPPED_BY_USER.violation())
        address = f"node-{2}:11625"
        self.clock.callLater(1, lambda: Deferred.fromCoroutine(one.connect(address)))
        self.survey()
        self.assertIn(other.local_node.peer_id, {info.peer_id for info in one.peer_infos()})
        self.assertEqual(len(self.links()), 5)
        self.assertFalse({(1, 2), (2, 1)} & self.links())

    def test_added(self) -> None:
        """Nor is one that comes about meanwhile."""
        one, other = self.play.nodes[1:3]
        one.peer(other.local_node.peer_id).drop(DropReason.DROPPED_BY_USER.violation())
        address = f"node-{2}:11625"
        self.clock.callLater(1, lambda: Deferred.fromCoroutine(one.connect(address)))
        self.survey()
        self.assertEqual(len(self.links()), 5)


def _mute(node: OverlayManager) -> None:
    """Have a node ignore whoever asks it."""
    node._flooding.dispatcher.handlers[MessageType.TIME_SLICED_SURVEY_REQUEST] = (
        lambda link, body, now: None
    )
