"""What a survey found: the pages of all nodes, merged.

Shapes and names are those of stellar-core's ``scripts/OverlaySurvey.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from stellar_overlay.tools.survey_admin import LISTS, NODE_FIELDS, Fields

INBOUND, OUTBOUND = LISTS
PAGE = 25
"""Peers in each direction that a node tells of at a time, if it has so many (messages.md 5.6)."""
MAX_PEERS = 1000
"""That are taken from a node in each direction: what it claims to have is not to be trusted."""


class MergedResults(Mapping[str, Fields]):
    """What each node said that has answered, as OverlaySurvey.py writes it."""

    def __init__(self) -> None:
        self._nodes: dict[str, Fields] = {}

    def __iter__(self) -> Iterator[str]:
        """Yield who has answered."""
        return iter(sorted(self._nodes))

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, node: str) -> Fields:
        return self._nodes[node]

    def merge(self, node: str, page: Mapping[str, object]) -> bool:
        """Add a page of a node; tell whether it was its first one, or had a full page of new peers.

        Nodes keep nothing back: one that says less, and has more, is spinning it out.

        :param page: with checked values, as of :attr:`~stellar_overlay.tools.survey_admin.Answer`.
        """
        is_first = node not in self._nodes
        new = Counter[str]()
        merged = self._nodes.setdefault(node, _nothing())
        for name in LISTS:
            peers: list[Fields] = page.get(name) or []  # type: ignore[assignment]
            for peer in peers:
                known = merged[name]
                if peer["nodeId"] in known:
                    known[peer["nodeId"]] = peer
                elif len(known) < MAX_PEERS:
                    known[peer["nodeId"]] = peer
                    new[name] += 1
        merged.update({name: page[name] for name in NODE_FIELDS if name in page})
        return is_first or max(new.values(), default=0) >= PAGE

    def is_complete(self, node: str) -> bool:
        """Tell whether all peers are there that a node has."""
        merged = self._nodes[node]
        return all(
            len(merged[name]) >= min(merged[total], MAX_PEERS)
            for name, total in (
                (INBOUND, "numTotalInboundPeers"),
                (OUTBOUND, "numTotalOutboundPeers"),
            )
        )

    def indices(self, node: str) -> tuple[int, int]:
        """Return from which peers on, inbound and outbound, a node is to be asked."""
        merged = self._nodes.get(node)
        return (0, 0) if merged is None else (len(merged[INBOUND]), len(merged[OUTBOUND]))

    def peers_of(self, node: str) -> Iterator[str]:
        """Yield whom a node is connected to."""
        yield from self._nodes[node][INBOUND]
        yield from self._nodes[node][OUTBOUND]

    def links(self) -> Iterator[tuple[str, str, Fields]]:
        """Yield caller, callee and what was said of the link; a link twice, if both speak of it."""
        for node in self:
            for other, peer in self._nodes[node][INBOUND].items():
                yield other, node, peer
            for other, peer in self._nodes[node][OUTBOUND].items():
                yield node, other, peer

    def versions(self) -> dict[str, str]:
        """Return the version of each node that others speak of."""
        return {
            other: peer["version"]
            for node in self
            for name in LISTS
            for other, peer in self._nodes[node][name].items()
        }

    def edge_count(self) -> int:
        """Return how many links there are, each once."""
        return len({(caller, callee) for caller, callee, _ in self.links()})

    def mean_latency_ms(self) -> float | None:
        """Return the mean round trip over all links for which one was measured."""
        latencies = [peer.get("averageLatencyMs", 0) for _, _, peer in self.links()]
        measured = [latency for latency in latencies if latency]
        return sum(measured) / len(measured) if measured else None


def _nothing() -> Fields:
    """Return what a node is that has said nothing."""
    return {
        "numTotalInboundPeers": 0,
        "numTotalOutboundPeers": 0,
        "maxInboundPeerCount": 0,
        "maxOutboundPeerCount": 0,
        INBOUND: {},
        OUTBOUND: {},
    }
