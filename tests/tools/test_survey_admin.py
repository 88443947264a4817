"""The words and shapes of the survey routes, one by one."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.admin_client import AdminMalformed, AdminNotFound, AdminRefused
from stellar_overlay.tools.survey_admin import Answer, Links, SurveyAdmin
from tests.tools.survey_kit import FakeAdmin, FakeCore, node_id

ME, A, B = map(node_id, ("me", "A", "B"))
QUEUED = (
    "Tried to add node G to survey backlog, but it is already queued or is the self node",
    "addPeerToBacklog failed: Peer is already in the backlog, or peer is self.",
)
"""What builds of stellar-core for tests say, and what its script expects."""


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.core = FakeCore(Clock().seconds, {(ME, A), (B, ME)}, me=ME)
        self.admin = SurveyAdmin(FakeAdmin(self.core))

    def says(self, path: str, answer: str | Exception) -> None:
        """Have this answered."""
        self.core.overrides[path] = [answer]


class OrderTests(Case):
    def test_request(self) -> None:
        """Whoever is on the list already is as good as put there."""
        path = "/surveytopologytimesliced"
        for text in (
            *("Adding node.Survey started ", "Adding node.Survey already running!"),
            *(json.dumps({"exception": text}) for text in QUEUED),
        ):
            self.says(path, text)
            asking = Deferred.fromCoroutine(self.admin.request(A, 0, 0))
            self.assertTrue(self.successResultOf(asking))

    def test_refused(self) -> None:
        """What else a node says is the reason, also where it is no JSON, and cut if it is long."""
        for text, reason in (
            ('{"exception": "a "bad" key"}', 'a "bad" key'),
            ("Failed to do it", "Failed to do it"),
            ("x" * 1000, "x" * 100),
        ):
            for path, ask in (
                ("/surveytopologytimesliced", self.admin.request(A, 0, 0)),
                ("/startsurveycollecting", self.admin.start_collecting(1)),
                ("/stopsurveycollecting", self.admin.stop_collecting()),
            ):
                self.says(path, text)
                failure = self.failureResultOf(Deferred.fromCoroutine(ask), AdminRefused)
                self.assertTrue(str(failure.value).endswith(f": {reason}"), str(failure.value))

    def test_nonsense(self) -> None:
        """Pages and other objects are no answer of a node."""
        for text in ("", " ", "<html>", '{"ok": true}'):
            self.says("/startsurveycollecting", text or " ")
            asking = Deferred.fromCoroutine(self.admin.start_collecting(1))
            self.failureResultOf(asking, AdminMalformed)


class AnswerTests(Case):
    def test_surveyor(self) -> None:
        """Its id, its software, its network; what has no /info is no admin HTTP."""
        surveyor = self.successResultOf(Deferred.fromCoroutine(self.admin.surveyor()))
        self.assertEqual((surveyor.node, surveyor.build), (ME, "stellar-core 27.0.0"))
        self.says("/info", AdminNotFound("404"))
        asking = Deferred.fromCoroutine(self.admin.surveyor())
        self.failureResultOf(asking, AdminMalformed)

    def test_links(self) -> None:
        """Both directions; null is nobody, and a short id is of no use."""
        links = self.successResultOf(Deferred.fromCoroutine(self.admin.links()))
        self.assertEqual(links, Links(inbound=(B,), outbound=(A,)))
        self.says("/peers", '{"authenticated_peers": {"inbound": null, "outbound": []}}')
        links = self.successResultOf(Deferred.fromCoroutine(self.admin.links()))
        self.assertEqual(links, Links(inbound=(), outbound=()))
        for inbound in ('[{"id": "GABCD"}]', '["x"]', "{}", "[{}]", '[{"id": null}]'):
            self.says("/peers", f'{{"authenticated_peers": {{"inbound": {inbound}}}}}')
            self.failureResultOf(Deferred.fromCoroutine(self.admin.links()), AdminMalformed)

    def test_results(self) -> None:
        """Before the first run there is nothing; null and {} are nodes that were asked."""
        results = self.successResultOf(Deferred.fromCoroutine(self.admin.results()))
        empty: frozenset[str] = frozenset()
        self.assertEqual(results, Answer(is_running=False, topology={}, backlog=empty, bad=empty))
        text = json.dumps(
            {
                "backlog": [A],
                "badResponseNodes": [B],
                "surveyInProgress": True,
                "topology": {A: None, B: {}},
            }
        )
        self.says("/getsurveyresult", text)
        results = self.successResultOf(Deferred.fromCoroutine(self.admin.results()))
        self.assertEqual(
            results,
            Answer(
                is_running=True,
                topology={A: {}, B: {}},
                backlog=frozenset([A]),
                bad=frozenset([B]),
            ),
        )

    def test_no_json(self) -> None:
        """Endless nesting, endless numbers, and what is no number."""
        for text in ("[" * 100_000, '{"a": ' + "9" * 5000 + "}", '{"a": NaN}', "null", "7"):
            self.says("/getsurveyresult", text)
            asking = Deferred.fromCoroutine(self.admin.results())
            failure = self.failureResultOf(asking, AdminMalformed)
            self.assertLess(len(str(failure.value)), 250)
