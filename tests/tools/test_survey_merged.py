"""The pages of many nodes, merged."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.survey_merged import PAGE, MergedResults
from tests.tools.survey_kit import FakeCore, node_id, star

ME, A, B, C, D = map(node_id, ("me", "A", "B", "C", "D"))
EDGES = {(ME, A), (A, B), (C, ME), (B, C), (D, C), (A, ME)}


def core() -> FakeCore:
    """Return somebody who knows what the nodes say."""
    return FakeCore(lambda: 0.0, EDGES, me=ME)


def results_of(topology: dict[str, Any]) -> MergedResults:
    """Return the merged answers of nodes."""
    results = MergedResults()
    for node, entry in topology.items():
        results.merge(node, entry)
    return results


class MergedTests(SynchronousTestCase):
    def test_shape(self) -> None:
        """What is merged has the shape that OverlaySurvey.py writes."""
        entry = core().entry(C)
        (merged,) = results_of({C: entry}).values()
        self.assertEqual(set(merged), set(entry))
        self.assertEqual(merged["inboundPeers"], {p["nodeId"]: p for p in entry["inboundPeers"]})
        self.assertEqual(merged["outboundPeers"], {p["nodeId"]: p for p in entry["outboundPeers"]})

    def test_twice(self) -> None:
        """The same page again adds nothing; a link that both ends speak of is one edge."""
        results = results_of({node: core().entry(node) for node in (A, B, C)})
        self.assertEqual(results.edge_count(), len(EDGES))
        self.assertFalse(results.merge(A, core().entry(A)))
        self.assertEqual(results.edge_count(), len(EDGES))

    def test_latency(self) -> None:
        """The mean is that of the links that were measured."""
        results = MergedResults()
        self.assertIsNone(results.mean_latency_ms())
        for node, latency in ((A, 10), (B, 30), (C, 0)):
            peer = {"nodeId": D, "version": "", "averageLatencyMs": latency}
            results.merge(node, {"outboundPeers": [peer], "inboundPeers": None})
        self.assertEqual(results.mean_latency_ms(), 20)

    def test_full_pages(self) -> None:
        """The first page is as much as can be wanted, as is a full one; any other is not."""
        fake = FakeCore(lambda: 0.0, star(A, 2 * PAGE + 5), me=ME)
        results = MergedResults()
        for index, page, is_much in (
            (0, 1, True),
            (1, PAGE - 1, False),
            (PAGE, PAGE, True),
            (PAGE, PAGE, False),
            (2 * PAGE, PAGE, False),
        ):
            self.assertIs(results.merge(A, fake.entry(A, index, page=page)), is_much)
        self.assertTrue(results.is_complete(A))
