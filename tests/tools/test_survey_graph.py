"""The graph, compared with one that is built as stellar-core's script builds it."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import networkx as nx
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import TESTNET_PASSPHRASE
from stellar_overlay.tools.survey_admin import NODE_FIELDS, Surveyor
from stellar_overlay.tools.survey_graph import graph_of, graphml_of
from stellar_overlay.tools.survey_merged import MergedResults
from tests.tools.survey_kit import FakeCore, node_id

ME, A, B, C, D = map(node_id, ("me", "A", "B", "C", "D"))
EDGES = {(ME, A), (A, B), (C, ME), (B, C), (D, C), (A, ME)}
SURVEYOR = Surveyor(node=ME, build="stellar-core 27.0.0", network=TESTNET_PASSPHRASE)


def core() -> FakeCore:
    """Return somebody who knows what the nodes say."""
    return FakeCore(lambda: 0.0, EDGES, me=ME)


def results_of(topology: dict[str, Any]) -> MergedResults:
    """Return the merged answers of nodes."""
    results = MergedResults()
    for node, entry in topology.items():
        results.merge(node, entry)
    return results


def reference(topology: dict[str, Any], surveyor: Surveyor, counts: tuple[int, int]) -> Any:
    """Return the graph that OverlaySurvey.py makes of a result, in which keys are sorted."""
    graph = nx.DiGraph()
    graph.add_node(
        surveyor.node,
        version=surveyor.build,
        numTotalInboundPeers=counts[0],
        numTotalOutboundPeers=counts[1],
    )
    for node in sorted(topology):
        for peer in topology[node]["inboundPeers"] or []:
            rest = {name: peer[name] for name in peer if name not in ("nodeId", "version")}
            graph.add_node(peer["nodeId"], version=peer["version"])
            graph.add_edge(peer["nodeId"], node, **rest)
        for peer in topology[node]["outboundPeers"] or []:
            rest = {name: peer[name] for name in peer if name not in ("nodeId", "version")}
            graph.add_node(peer["nodeId"], version=peer["version"])
            graph.add_edge(node, peer["nodeId"], **rest)
        graph.add_node(node, **{name: topology[node][name] for name in NODE_FIELDS})
    return graph


def read_back(text: str) -> Any:
    """Return the graph in a file."""
    return nx.read_graphml(BytesIO(text.encode()))


def types_in(text: str) -> set[tuple[str, ...]]:
    """Return what a file declares: for nodes or edges, name and type."""
    found: set[tuple[str, ...]] = set()
    for key in re.findall("<key ([^>]*)/>", text):
        declared = dict(re.findall('([a-z.]+)="([^"]*)"', key))
        found.add((declared["for"], declared["attr.name"], declared["attr.type"]))
    return found


class GraphTests(SynchronousTestCase):
    def assert_same(self, graph: Any, other: Any) -> None:
        """Assert that nodes, edges and all their attributes are equal."""
        self.assertEqual(dict(graph.nodes(data=True)), dict(other.nodes(data=True)))
        edges, others = ({(a, b): d for a, b, d in g.edges(data=True)} for g in (graph, other))
        self.assertEqual(edges, others)

    def test_as_core(self) -> None:
        """Same nodes, edges, attributes, and types in the file; also where some were silent."""
        for speaking in ((ME, A, B, C, D), (ME, B), (A,)):
            topology = {node: core().entry(node) for node in speaking}
            expected = reference(topology, SURVEYOR, (2, 1))
            graph = graph_of(results_of(topology), SURVEYOR, (2, 1))
            self.assert_same(graph, expected)
            text = graphml_of(graph)
            self.assert_same(read_back(text), expected)
            file = BytesIO()
            nx.write_graphml(expected, file)
            self.assertEqual(types_in(text), types_in(file.getvalue().decode()))
            self.assertIn(("node", "isValidator", "boolean"), types_in(text))
            self.assertIn(("edge", "averageLatencyMs", "long"), types_in(text))

    def test_surveyor_that_says_nothing(self) -> None:
        """It is there with its build and the number of its links."""
        graph = graph_of(MergedResults(), SURVEYOR, (2, 1))
        self.assertEqual(
            dict(graph.nodes(data=True)),
            {
                ME: {
                    "version": "stellar-core 27.0.0",
                    "numTotalInboundPeers": 2,
                    "numTotalOutboundPeers": 1,
                }
            },
        )

    def test_hostile_texts(self) -> None:
        """A version that XML cannot hold is spelt out; one that looks like XML stays a text."""
        for version, seen in (
            ("\x1b[31m\x00\ud800\ufffe", "\\x1b[31m\\x00\\ud800\\ufffe"),
            ("</data><node id='x'/>&amp;", "</data><node id='x'/>&amp;"),
            ("]]>\r\n", "]]>\\r\\n"),
        ):
            fake = core()
            fake.versions[B] = version
            results = results_of({A: fake.entry(A)})
            graph = read_back(graphml_of(graph_of(results, SURVEYOR, (0, 0))))
            self.assertEqual(graph.nodes[B]["version"], seen)
            self.assertEqual(set(graph), {ME, A, B})
