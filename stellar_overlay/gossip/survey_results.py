"""What a surveyor has learnt: as plain data, and as core's JSON (messages.md 5.8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stellar_overlay.identity import PeerId
from stellar_overlay.wire.survey_body import TimeSlicedPeerData, TopologyResponse


@dataclass(frozen=True, kw_only=True)
class SurveyResults:
    """Where a run of requests stands, and what was answered.

    :ivar in_progress: whether the run goes on.
    :ivar backlog: the nodes that wait to be asked, in order.
    :ivar bad_response_nodes: those whose answer could not be decrypted or read.
    :ivar topology: the latest answer of each node that was asked; None while there is none.
        Ourselves are among them, with all our peers. An answer has up to 25 peers of each
        direction; who asks for further pages merges them.
    :ivar asked_again: the nodes without an answer that had given one before.
    """

    in_progress: bool = False
    backlog: Sequence[PeerId] = ()
    bad_response_nodes: Sequence[PeerId] = ()
    topology: Mapping[PeerId, TopologyResponse | None] | None = None
    asked_again: frozenset[PeerId] = frozenset()

    def to_json(self, report: Callable[[TopologyResponse], Any] | None = None) -> dict[str, Any]:
        """Return what core answers to ``getsurveyresult``; there is no topology before a run.

        :param report: returns one node's answer, if :func:`topology_json` is not to do that.
        """
        report = report or topology_json
        answer: dict[str, Any] = {
            "backlog": [node.strkey for node in self.backlog] or None,
            "badResponseNodes": [node.strkey for node in self.bad_response_nodes] or None,
            "surveyInProgress": self.in_progress,
        }
        if self.topology is not None:
            answer["topology"] = {
                node.strkey: self._none_yet(node) if response is None else report(response)
                for node, response in self.topology.items()
            }
        return answer

    def _none_yet(self, node: PeerId) -> dict[str, Any] | None:
        return {} if node in self.asked_again else None


def topology_json(response: TopologyResponse) -> dict[str, Any]:
    """Return one node's answer in core's words."""
    node = response.node
    return {
        "addedAuthenticatedPeers": node.added_authenticated_peers,
        "droppedAuthenticatedPeers": node.dropped_authenticated_peers,
        "inboundPeers": [_peer_json(peer) for peer in response.inbound] or None,
        "isValidator": node.is_validator,
        "lostSyncCount": node.lost_sync_count,
        "maxInboundPeerCount": node.max_inbound_peers,
        "maxOutboundPeerCount": node.max_outbound_peers,
        "numTotalInboundPeers": node.total_inbound_peers,
        "numTotalOutboundPeers": node.total_outbound_peers,
        "outboundPeers": [_peer_json(peer) for peer in response.outbound] or None,
        "p75SCPFirstToSelfLatencyMs": node.p75_scp_first_to_self_latency_ms,
        "p75SCPSelfToOtherLatencyMs": node.p75_scp_self_to_other_latency_ms,
    }


_NAMES = {
    "messages_read": "messagesRead",
    "messages_written": "messagesWritten",
    "bytes_read": "bytesRead",
    "bytes_written": "bytesWritten",
    "unique_flood_bytes_recv": "uniqueFloodBytesRecv",
    "duplicate_flood_bytes_recv": "duplicateFloodBytesRecv",
    "unique_fetch_bytes_recv": "uniqueFetchBytesRecv",
    "duplicate_fetch_bytes_recv": "duplicateFetchBytesRecv",
    "unique_flood_messages_recv": "uniqueFloodMessageRecv",
    "duplicate_flood_messages_recv": "duplicateFloodMessageRecv",
    "unique_fetch_messages_recv": "uniqueFetchMessageRecv",
    "duplicate_fetch_messages_recv": "duplicateFetchMessageRecv",
}


def _peer_json(peer: TimeSlicedPeerData) -> dict[str, Any]:
    return {
        "averageLatencyMs": peer.average_latency_ms,
        "nodeId": PeerId(peer.node).strkey,
        "secondsConnected": peer.seconds_connected,
        "version": peer.version_string.decode(errors="backslashreplace"),
        **{_NAMES[name]: value for name, value in peer.counters._asdict().items()},
    }
