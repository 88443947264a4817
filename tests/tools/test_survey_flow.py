"""The flow of a survey, against an admin HTTP that behaves as stellar-core's, on a clock."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.admin_client import (
    AdminMalformed,
    AdminNotFound,
    AdminRefused,
    AdminTooLong,
    AdminUnreachable,
)
from stellar_overlay.tools.survey_admin import SurveyAdmin
from stellar_overlay.tools.survey_flow import (
    MAX_TRIES,
    REPORTING_SECONDS,
    SurveyFlow,
)
from stellar_overlay.tools.survey_plan import MAX_NODES, Phase, Plan, Progress
from tests.tools.survey_kit import Edge, FakeAdmin, FakeCore, node_id, star

ME, A, B, C, D = map(node_id, ("me", "A", "B", "C", "D"))
SMALL = {(ME, A), (A, B), (C, ME), (B, C), (D, C)}
GONE = AdminUnreachable("nobody listens there")


class Case:
    """A survey on a clock of its own."""

    def __init__(
        self,
        edges: set[Edge],
        *,
        nodes: tuple[str, ...] = (),
        max_nodes: int = MAX_NODES,
        **options: float,
    ) -> None:
        self.clock = Clock()
        self.core = FakeCore(self.clock.seconds, edges, me=ME, **options)
        self.progress: list[Progress] = []
        plan = Plan(
            nonce=7,
            collect_seconds=300,
            settle_seconds=30,
            patience_seconds=120,
            nodes=nodes,
            max_nodes=max_nodes,
        )
        admin = SurveyAdmin(FakeAdmin(self.core))
        self.run = SurveyFlow(admin, self.clock, plan, self.progress.append)
        self.running: Deferred[None] | None = None

    def start(self) -> None:
        """Begin."""
        self.running = Deferred.fromCoroutine(self.run.run())

    def advance(self, seconds: float) -> None:
        """Let time pass, a quarter of a second at a time."""
        for _ in range(int(seconds * 4)):
            if self.running is not None and self.running.called:
                return
            self.clock.advance(0.25)

    def finish(self, seconds: float = REPORTING_SECONDS + 3600) -> float:
        """Run to the end and return how long it took."""
        self.start()
        self.advance(seconds)
        return self.clock.seconds()

    @property
    def edges(self) -> set[Edge]:
        """The links that were found."""
        return {(caller, callee) for caller, callee, _ in self.run.results.links()}

    @property
    def phases(self) -> list[Phase]:
        """The phases, in order."""
        return list(dict.fromkeys(progress.phase for progress in self.progress))


class FlowTests(SynchronousTestCase):
    def done(self, case: Case) -> None:
        """Assert that a run came to its end."""
        assert case.running is not None
        self.assertIsNone(self.successResultOf(case.running))

    def test_small(self) -> None:
        """Everybody is found and asked once, and the graph is the true one."""
        case = Case(SMALL)
        case.finish()
        self.done(case)
        self.assertEqual(case.edges, SMALL)
        self.assertEqual(case.run.answered, sorted([A, B, C, D]))
        self.assertEqual((case.run.silent, case.run.bad), ([], []))
        self.assertEqual(Counter(node for node, *_ in case.core.asked), Counter([A, B, C, D]))
        self.assertEqual((case.core.nonce, case.core.stops), (7, 1))
        self.assertEqual(case.run.collected_seconds, 300)
        self.assertEqual(case.phases, [Phase.COLLECTING, Phase.SETTLING, Phase.REPORTING])
        self.assertEqual(case.progress[-1].answered, 4)

    def test_time(self) -> None:
        """It measures as long as asked, says each minute what is left, and settles."""
        case = Case(SMALL)
        case.start()
        case.advance(299)
        self.assertEqual(case.core.phase, "collecting")
        case.advance(2)
        self.assertEqual((case.core.phase, case.core.is_running), ("reporting", False))
        left = [p.seconds_left for p in case.progress if p.phase is Phase.COLLECTING]
        self.assertEqual(left, [300, 240, 180, 120, 60])
        self.assertEqual(case.core.infos, 6)
        case.advance(30)
        self.assertTrue(case.core.is_running)

    def test_pages(self) -> None:
        """Sixty peers come in three pages, each asked for from where the last one ended."""
        hub = node_id("hub")
        edges = {(ME, hub), *star(hub, 59)}
        case = Case(edges)
        case.finish()
        self.done(case)
        self.assertEqual(case.edges, edges)
        self.assertEqual(len(case.run.results[hub]["inboundPeers"]), 60)
        pages = [indices for node, *indices in case.core.asked if node == hub]
        self.assertEqual(pages, [[0, 0], [25, 0], [50, 0]])
        others = Counter(node for node, *_ in case.core.asked if node != hub)
        self.assertEqual(set(others.values()), {1})

    def test_named_nodes(self) -> None:
        """Those that the user names are asked, too; the surveyor and doubles are not."""
        case = Case({(ME, A), (C, D)}, nodes=(D, ME, A, D))
        case.finish()
        self.done(case)
        self.assertEqual([node for node, *_ in case.core.asked], [D, A, C])

    def test_alone(self) -> None:
        """A surveyor without peers can tell of itself at least."""
        case = Case(set())
        case.finish()
        self.done(case)
        self.assertEqual((list(case.run.results), case.run.answered), ([ME], []))
        self.assertEqual((case.core.asked, case.core.stops), ([], 1))

    def test_texts_of_test_builds(self) -> None:
        """What a test build of stellar-core says of who needs not be asked is no error."""
        case = Case(set())
        case.core.says_nothing_of_a_queue = False
        case.finish()
        self.done(case)

    def test_silent(self) -> None:
        """The silent are asked anew while that brings anything, and are listed in the end."""
        case = Case(SMALL)
        case.core.silent = {B, D}
        seconds = case.finish()
        self.done(case)
        self.assertEqual((case.run.silent, case.run.answered), (sorted([B, D]), sorted([A, C])))
        self.assertEqual(Counter(node for node, *_ in case.core.asked)[B], 2)
        self.assertLess(seconds, 330 + 3 * (120 + 2 * 15))
        self.assertEqual(case.edges, SMALL)

    def test_a_ledger_that_stands_still(self) -> None:
        """Nobody can be asked twice in one ledger: who waits for the next is given up."""
        case = Case(SMALL)
        case.core.silent, case.core.has_still_ledger = {B}, True
        seconds = case.finish()
        self.done(case)
        self.assertEqual(case.run.silent, [B])
        self.assertLess(seconds, 330 + 3 * (120 + 240 + 2 * 15))

    def test_ended_by_the_node(self) -> None:
        """Somebody calls stopsurvey there: what there is is delivered, as a part."""
        case = Case(SMALL)
        case.core.silent = {A, B, C, D}
        case.clock.callLater(340, setattr, case.core, "is_running", False)
        case.finish()
        self.assertTrue(case.run.is_cut_off)
        done = Case(SMALL)
        done.finish()
        self.assertFalse(done.run.is_cut_off)

    def test_nobody_answers(self) -> None:
        """When nobody at all answers, nobody is asked twice."""
        case = Case(SMALL)
        case.core.silent = {A, B, C, D}
        seconds = case.finish()
        self.done(case)
        self.assertEqual(Counter(node for node, *_ in case.core.asked), Counter([A, C]))
        self.assertLess(seconds, 330 + 15 + 120 + 10)

    def test_late(self) -> None:
        """An answer that takes its time is waited for, and nobody is asked again meanwhile."""
        case = Case(SMALL, answer_seconds=100)
        case.finish()
        self.done(case)
        self.assertEqual(case.edges, SMALL)
        self.assertEqual({1}, set(Counter(node for node, *_ in case.core.asked).values()))

    def test_too_late(self) -> None:
        """Who answers after patience ran out was asked again, and counts, once."""
        case = Case(SMALL)
        case.core.answer_seconds = {B: 160}
        case.finish()
        self.done(case)
        self.assertEqual(case.run.silent, [])
        self.assertEqual(len(case.run.results[B]["inboundPeers"]), 1)

    def test_late_first_page(self) -> None:
        """A page that comes twice, after a repeated request, does not keep the next from coming."""
        hub = node_id("hub")
        edges = {(ME, hub), (ME, A), *star(hub, 40)}
        case = Case(edges)
        case.core.answer_seconds = {hub: 160}
        case.finish()
        self.done(case)
        self.assertEqual(case.edges, edges)

    def test_bad(self) -> None:
        """Whose answer cannot be read is listed as such, and not asked again."""
        case = Case(SMALL)
        case.core.bad = {B}
        case.finish()
        self.done(case)
        self.assertEqual((case.run.bad, case.run.silent), ([B], []))
        self.assertEqual(Counter(node for node, *_ in case.core.asked)[B], 1)

    def test_long_backlog(self) -> None:
        """It is not given up while requests are still to leave, however slowly they do."""
        case = Case(star(ME, 45), batch_seconds=200)
        case.finish()
        self.done(case)
        self.assertEqual(len(case.run.answered), 45)
        self.assertEqual(len(case.core.asked), 45)
        self.assertTrue(any(progress.queued > 20 for progress in case.progress))

    def test_liar(self) -> None:
        """A node that claims more peers than it has is asked a few times more, and no more."""
        case = Case(SMALL)
        truth = case.core.entry

        def lie(node: str, *arguments: int, **options: int) -> object:
            claim = {"numTotalInboundPeers": 2**32 - 1} if node == B else {}
            return {**truth(node, *arguments, **options), **claim}

        case.core.entry = lie  # type: ignore[method-assign]
        case.finish()
        self.done(case)
        self.assertEqual(case.edges, SMALL)
        self.assertEqual(Counter(node for node, *_ in case.core.asked)[B], 1 + MAX_TRIES)
        self.assertFalse(case.run.results.is_complete(B))

    def test_spun_out(self) -> None:
        """A node that says one thing at a time is asked no more often than one that says none."""
        case = Case({(ME, A), *star(A, 24)})
        truth = case.core.entry
        case.core.entry = lambda node, *indices, **options: truth(  # type: ignore[method-assign]
            node, *indices, **({"page": 1} if node == A else options)
        )
        case.finish()
        self.done(case)
        self.assertEqual(Counter(node for node, *_ in case.core.asked)[A], 1 + MAX_TRIES)

    def test_liars(self) -> None:
        """Three that make up crowds keep nobody long from those whom the others name."""
        liars = [node_id(f"liar {index}") for index in range(3)]
        invented = set[Edge]().union(*(star(liar, 150) for liar in liars))
        chain = [ME, *(node_id(f"honest {index}") for index in range(5))]
        honest = {*pairwise(chain), (chain[4], D), *star(chain[1], 10)}
        case = Case({*((ME, liar) for liar in liars), *honest, *invented}, max_nodes=150)
        case.core.silent = {caller for caller, _ in invented}
        seconds = case.finish()
        self.done(case)
        self.assertEqual(honest - case.edges, set())
        asked = [node for node, *_ in case.core.asked]
        self.assertLess(asked.index(chain[-1]), 150)
        self.assertEqual(len({*asked}), 150)
        self.assertEqual(case.run.not_asked, 3 + len(chain) - 1 + 1 + 10 + 450 - 150)
        self.assertFalse({*case.run.silent} & {node for edge in honest for node in edge})
        self.assertLess(seconds, 330 + 2 * (150 * 15 / 10 + 120 + 3 * 15))

    def test_most(self) -> None:
        """No more nodes are asked than that, the user's before all; the others are counted."""
        for max_nodes, asked, others in ((3, [D, C, A], 1), (2, [D, C], 2), (1, [D], 2)):
            case = Case(SMALL, nodes=(D,), max_nodes=max_nodes)
            seconds = case.finish()
            self.done(case)
            self.assertEqual([node for node, *_ in case.core.asked], asked)
            self.assertEqual(case.run.not_asked, others)
            self.assertEqual((case.run.silent, case.progress[-1].queued), ([], 0))
            self.assertLess(seconds, 330 + 3 * 15)

    def test_more_than_the_most(self) -> None:
        """All that the user names are asked in any case, with all their pages."""
        case = Case({(ME, A), *star(A, 59), (C, D)}, nodes=(C, D, A), max_nodes=1)
        case.finish()
        self.done(case)
        self.assertEqual((case.run.answered, case.run.not_asked), (sorted([A, C, D]), 59))
        self.assertEqual(len(case.run.results[A]["inboundPeers"]), 60)

    @settings(derandomize=True, max_examples=25, deadline=None)
    @given(st.data())
    def test_any_network(self, data: st.DataObject) -> None:
        """Whatever the network: the answers of all who answer are there, each entry once."""
        names = [ME, *(node_id(f"node {index}") for index in range(data.draw(st.integers(1, 40))))]
        nodes = st.sampled_from(names)
        pairs = st.tuples(nodes, nodes).filter(lambda pair: pair[0] != pair[1])
        edges = data.draw(st.sets(pairs, max_size=150))
        case = Case(edges, answer_seconds=data.draw(st.integers(0, 40)))
        case.core.silent = data.draw(st.sets(nodes, max_size=5)) - {ME}
        case.finish()
        self.done(case)
        reached: set[str] = set()
        ahead = {ME}
        while ahead:
            node = ahead.pop()
            reached.add(node)
            if node not in case.core.silent:
                ahead |= {b if a == node else a for a, b in edges if node in (a, b)} - reached
        speaking = reached - case.core.silent
        self.assertEqual(set(case.run.results), speaking)
        self.assertEqual(set(case.run.silent), reached - speaking)
        self.assertEqual(case.edges, {edge for edge in edges if {*edge} & speaking})
        for node in speaking:
            self.assertEqual(
                case.run.results[node]["inboundPeers"].keys(), {a for a, b in edges if b == node}
            )


class TroubleTests(SynchronousTestCase):
    def failure_of(self, case: Case, kind: type[Exception]) -> str:
        """Return what a run failed with."""
        assert case.running is not None
        return str(self.failureResultOf(case.running, kind).value)

    def test_another_survey(self) -> None:
        """While another survey is active, it says so, and touches nothing."""
        case = Case(SMALL)
        case.core.phase = "collecting"
        case.finish()
        self.assertIn("Another survey is active", self.failure_of(case, AdminRefused))
        self.assertEqual((case.run.is_started, case.core.stops), (False, 0))

    def test_lost_start(self) -> None:
        """If the answer to the START is lost, nodes may measure: that is known in the end."""
        for error in (GONE, AdminMalformed("status 500"), AdminTooLong("too long")):
            case = Case(SMALL)
            case.core.overrides["/startsurveycollecting"] = [error]
            case.finish()
            self.failure_of(case, type(error))
            self.assertEqual((case.run.is_started, case.run.is_start_certain), (True, False))

    def test_too_long(self) -> None:
        """An answer that is too long is so again: it is not asked for twice."""
        for path, seconds in (("/stopsurveycollecting", 300), ("/getsurveyresult", 331)):
            case = Case(SMALL)
            case.core.overrides[path] = [AdminTooLong("too long")]
            self.assertLess(case.finish(), seconds + 1)
            self.failure_of(case, AdminTooLong)
            self.assertTrue(case.run.is_start_certain)

    def test_no_admin(self) -> None:
        """What is no admin HTTP is found out before anything is begun."""
        for path, text in (
            ("/info", "<html>hello</html>"),
            ("/info", "[]"),
            ("/info", '{"info": []}'),
            ("/info", '{"info": {"build": 1, "network": "x"}}'),
            ("/scp", '{"you": "GABC"}'),
            ("/scp", '{"you": NaN}'),
        ):
            case = Case(SMALL)
            case.core.overrides[path] = [text]
            case.finish()
            self.assertIn(path, self.failure_of(case, AdminMalformed))
            self.assertEqual(case.core.phase, "inactive")

    def test_booting(self) -> None:
        """A node that is not ready yet refuses, in its own words."""
        case = Case(SMALL)
        case.core.overrides["/scp"] = ['{"error": "Core is booting, try again later"}']
        case.finish()
        self.assertIn("Core is booting", self.failure_of(case, AdminRefused))

    def test_missing_route(self) -> None:
        """A node that knows no surveys refuses."""
        case = Case(SMALL)
        case.core.overrides["/startsurveycollecting"] = [AdminNotFound("404")]
        case.finish()
        self.failure_of(case, AdminRefused)

    def test_other_network(self) -> None:
        """A node of another network than the user wants is not touched."""
        case = Case(SMALL)
        plan = Plan(
            nonce=1, collect_seconds=1, settle_seconds=0, patience_seconds=1, network="private"
        )
        case.run = SurveyFlow(SurveyAdmin(FakeAdmin(case.core)), case.clock, plan)
        case.finish()
        self.assertIn("another network", self.failure_of(case, AdminRefused))
        self.assertEqual(case.core.phase, "inactive")

    def test_short_absence(self) -> None:
        """A node that cannot be reached for a while is asked again, at any stage."""
        for path in (
            *("/info", "/stopsurveycollecting", "/peers", "/getsurveyresult"),
            "/surveytopologytimesliced",
        ):
            case = Case(SMALL)
            good: list[str | Exception] = [""] * (path == "/info")
            case.core.overrides[path] = [*good, GONE, GONE, AdminMalformed("status 500"), ""]
            case.finish()
            assert case.running is not None
            self.assertIsNone(self.successResultOf(case.running), path)
            self.assertEqual(case.edges, SMALL)
            self.assertIn(str(GONE), [progress.trouble for progress in case.progress])

    def test_gone_for_good(self) -> None:
        """When the node does not come back, there is what was heard until then."""
        case = Case(SMALL)
        case.start()
        case.advance(330 + 17)
        case.core.overrides["/getsurveyresult"] = [GONE]
        case.core.overrides["/stopsurvey"] = [GONE]
        case.advance(300)
        self.failure_of(case, AdminUnreachable)
        self.assertIn(ME, case.run.results)
        self.assertLess(case.clock.seconds(), 330 + 17 + 130)

    def test_restarted(self) -> None:
        """A node that was restarted knows of no survey: what was heard is kept, and that is all."""
        case = Case(SMALL)
        case.start()
        case.advance(330 + 17)
        case.core.overrides["/getsurveyresult"] = [
            '{"backlog": null, "badResponseNodes": null, "surveyInProgress": false}'
        ]
        case.advance(20)
        assert case.running is not None
        self.assertIsNone(self.successResultOf(case.running))
        self.assertIn(ME, case.run.results)

    def test_refused_first_request(self) -> None:
        """If already the first request is refused, so is the survey."""
        case = Case(SMALL)
        refusal = '{"exception": "no survey of ours is reporting"}'
        case.core.overrides["/surveytopologytimesliced"] = [refusal]
        case.finish()
        self.assertIn("no survey of ours is reporting", self.failure_of(case, AdminRefused))

    def test_refused_later_request(self) -> None:
        """A node that is refused later counts as silent."""
        case = Case(SMALL)
        requests: list[str | Exception] = ["", '{"exception": "bad public key"}', ""]
        case.core.overrides["/surveytopologytimesliced"] = requests
        case.finish()
        assert case.running is not None
        self.assertIsNone(self.successResultOf(case.running))
        self.assertEqual(len(case.run.silent), 1)

    def test_lost_answer_to_a_request(self) -> None:
        """A request that was taken although its answer got lost is not repeated."""
        case = Case(SMALL)
        answer = case.core.answer
        lost: list[str] = []

        def lossy(path: str, parameters: dict[str, str]) -> str:
            text = answer(path, parameters)
            if path == "/surveytopologytimesliced" and not lost:
                lost.append(path)
                raise GONE
            return text

        case.core.answer = lossy  # type: ignore[method-assign]
        case.finish()
        assert case.running is not None
        self.assertIsNone(self.successResultOf(case.running))
        self.assertEqual({1}, set(Counter(node for node, *_ in case.core.asked).values()))
        self.assertEqual(case.edges, SMALL)

    def test_nonsense(self) -> None:
        """A result that makes no sense is no result, and it is said where the fault is."""
        good = Case(SMALL).core.entry(A)
        peer = good["inboundPeers"][0]
        for where, entry in (
            ("topology", 7),
            ("topology", {"GABC": None}),
            (f"topology.{A}", {A: []}),
            ("numTotalInboundPeers", {A: {**good, "numTotalInboundPeers": "1"}}),
            ("lostSyncCount", {A: {**good, "lostSyncCount": True}}),
            ("isValidator", {A: {**good, "isValidator": 1}}),
            ("inboundPeers", {A: {**good, "inboundPeers": {"a": 1}}}),
            ("inboundPeers[0]", {A: {**good, "inboundPeers": [None]}}),
            ("[0].nodeId", {A: {**good, "inboundPeers": [{**peer, "nodeId": "x"}]}}),
            ("[0].version", {A: {**good, "inboundPeers": [{**peer, "version": None}]}}),
            ("messagesRead", {A: {**good, "inboundPeers": [{**peer, "messagesRead": -1}]}}),
            ("[0].new", {A: {**good, "inboundPeers": [{**peer, "new": None}]}}),
            ("bytesRead", {A: {**good, "inboundPeers": [{**peer, "bytesRead": 2**64}]}}),
        ):
            case = Case(SMALL)
            text = json.dumps({"surveyInProgress": True, "topology": entry})
            case.core.overrides["/getsurveyresult"] = [text]
            case.finish()
            self.assertIn(where, self.failure_of(case, AdminMalformed))
            self.assertEqual(case.core.stops, 1)

    def test_endless(self) -> None:
        """A survey ends when all nodes have forgotten it, whatever the surveyor says."""
        case = Case(SMALL, batch_seconds=10**6)
        seconds = case.finish()
        self.assertLess(seconds, 330 + REPORTING_SECONDS + 10)
        self.assertEqual((len(case.run.silent), case.core.stops), (2, 1))


class StopTests(SynchronousTestCase):
    def stopped_after(self, seconds: float) -> Case:
        """Return a survey that was stopped."""
        case = Case(SMALL)
        case.start()
        case.advance(seconds)
        case.run.stop()
        assert case.running is not None
        self.assertTrue(case.running.called)
        self.failureResultOf(case.running)
        self.assertEqual(case.clock.getDelayedCalls(), [])
        return case

    def test_collecting(self) -> None:
        """While the network measures, nothing is to be ended at the node."""
        self.assertEqual(self.stopped_after(10).core.stops, 0)

    def test_reporting(self) -> None:
        """While nodes are asked, the surveyor is told to ask no more; what was heard stays."""
        case = self.stopped_after(330 + 20)
        self.assertEqual((case.core.stops, case.core.is_running), (1, False))
        self.assertIn(ME, case.run.results)

    def test_afterwards(self) -> None:
        """When it is over, or has not begun, there is nothing to stop."""
        case = Case(SMALL)
        self.assertIsNone(case.run.stop())
        case.finish()
        self.assertIsNone(case.run.stop())
        self.assertEqual(case.core.stops, 1)
