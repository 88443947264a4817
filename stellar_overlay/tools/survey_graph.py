"""The graph of a survey in GraphML, with the attributes that stellar-core's script gives it."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from stellar_overlay.tools.cli import shown
from stellar_overlay.tools.survey_admin import NODE_FIELDS, Fields, Surveyor
from stellar_overlay.tools.survey_merged import MergedResults

if TYPE_CHECKING:
    import networkx as nx


def graph_of(
    results: MergedResults, surveyor: Surveyor, link_counts: tuple[int, int]
) -> nx.DiGraph:
    """Return the directed graph: an edge leads from who called to who was called.

    :param link_counts: of the surveyor, inbound and outbound, if it has not spoken of itself.
    """
    import networkx as nx  # takes a while

    graph = nx.DiGraph()
    graph.add_node(
        surveyor.node,
        version=shown(surveyor.build),
        numTotalInboundPeers=link_counts[0],
        numTotalOutboundPeers=link_counts[1],
    )
    for node in results:
        graph.add_node(node)
    for caller, callee, peer in results.links():
        graph.add_edge(caller, callee, **_attributes(peer))
    for node, version in results.versions().items():
        graph.add_node(node, version=shown(version))
    for node in results:
        fields = results[node]
        graph.add_node(node, **{name: fields[name] for name in NODE_FIELDS if name in fields})
    return graph


def graphml_of(graph: nx.DiGraph) -> str:
    """Return a graph in GraphML."""
    import networkx as nx

    file = BytesIO()
    nx.write_graphml(graph, file)
    return file.getvalue().decode()


def _attributes(peer: Fields) -> Fields:
    """Return what belongs to an edge; of texts, only what XML can hold."""
    return {
        name: shown(value) if isinstance(value, str) else value
        for name, value in peer.items()
        if name not in ("nodeId", "version")
    }
