"""What a surveyor has learnt, in core's words: messages.md 5.8."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.survey_results import SurveyResults, topology_json
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.survey_body import (
    PeerCounters,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
)

A, B, C = (PeerId(bytes([number]) * 32) for number in (1, 2, 3))
COUNTERS = PeerCounters(*range(101, 113))
NODE = TimeSlicedNodeData(
    added_authenticated_peers=1,
    dropped_authenticated_peers=2,
    total_inbound_peers=3,
    total_outbound_peers=4,
    p75_scp_first_to_self_latency_ms=5,
    p75_scp_self_to_other_latency_ms=6,
    lost_sync_count=7,
    is_validator=True,
    max_inbound_peers=8,
    max_outbound_peers=9,
)


def peer(of: PeerId = B, version: bytes = b"v26") -> TimeSlicedPeerData:
    """Return what is said of a peer."""
    return TimeSlicedPeerData(
        node=of.key,
        version_string=version,
        counters=COUNTERS,
        seconds_connected=90,
        average_latency_ms=91,
    )


def topology(
    inbound: tuple[TimeSlicedPeerData, ...] = (), outbound: tuple[TimeSlicedPeerData, ...] = ()
) -> TopologyResponse:
    """Return what a node says."""
    return TopologyResponse(inbound=inbound, outbound=outbound, node=NODE)


class RunTests(SynchronousTestCase):
    """What is said of the run itself."""

    def test_before_the_first(self) -> None:
        """There is no topology at all."""
        self.assertEqual(
            SurveyResults().to_json(),
            {"backlog": None, "badResponseNodes": None, "surveyInProgress": False},
        )

    def test_nobody_asked_yet(self) -> None:
        """There is one, and it is empty."""
        answer = SurveyResults(in_progress=True, topology={}).to_json()
        self.assertEqual((answer["topology"], answer["surveyInProgress"]), ({}, True))

    def test_lists(self) -> None:
        """Full keys, in the order they are in."""
        answer = SurveyResults(backlog=(B, A), bad_response_nodes=(C,)).to_json()
        self.assertEqual(answer["backlog"], [B.strkey, A.strkey])
        self.assertEqual(answer["badResponseNodes"], [C.strkey])
        self.assertEqual([len(one) for one in answer["backlog"]], [56, 56])

    def test_answers(self) -> None:
        """None of who was asked, nothing of who was asked again, and all of who has answered."""
        results = SurveyResults(
            topology={A: None, B: None, C: topology()}, asked_again=frozenset({B, C})
        )
        answer = results.to_json()["topology"]
        self.assertEqual(list(answer), [A.strkey, B.strkey, C.strkey])
        self.assertEqual((answer[A.strkey], answer[B.strkey]), (None, {}))
        self.assertEqual(answer[C.strkey], topology_json(topology()))


class NodeTests(SynchronousTestCase):
    """What is said of a node and its peers."""

    def test_node(self) -> None:
        """Each figure under core's name, and no other name; no peers are null."""
        self.assertEqual(
            topology_json(topology()),
            {
                "addedAuthenticatedPeers": 1,
                "droppedAuthenticatedPeers": 2,
                "numTotalInboundPeers": 3,
                "numTotalOutboundPeers": 4,
                "p75SCPFirstToSelfLatencyMs": 5,
                "p75SCPSelfToOtherLatencyMs": 6,
                "lostSyncCount": 7,
                "isValidator": True,
                "maxInboundPeerCount": 8,
                "maxOutboundPeerCount": 9,
                "inboundPeers": None,
                "outboundPeers": None,
            },
        )

    def test_peer(self) -> None:
        """Likewise; the counters in the order of the wire (messages.md 5.2)."""
        answer = topology_json(topology(inbound=(peer(),)))
        self.assertEqual(
            answer["inboundPeers"],
            [
                {
                    "nodeId": B.strkey,
                    "version": "v26",
                    "averageLatencyMs": 91,
                    "secondsConnected": 90,
                    "messagesRead": 101,
                    "messagesWritten": 102,
                    "bytesRead": 103,
                    "bytesWritten": 104,
                    "uniqueFloodBytesRecv": 105,
                    "duplicateFloodBytesRecv": 106,
                    "uniqueFetchBytesRecv": 107,
                    "duplicateFetchBytesRecv": 108,
                    "uniqueFloodMessageRecv": 109,
                    "duplicateFloodMessageRecv": 110,
                    "uniqueFetchMessageRecv": 111,
                    "duplicateFetchMessageRecv": 112,
                }
            ],
        )
        self.assertIsNone(answer["outboundPeers"])

    def test_directions(self) -> None:
        """Each in its list, in the order they are in."""
        answer = topology_json(topology(inbound=(peer(C), peer(A)), outbound=(peer(B),)))
        self.assertEqual([one["nodeId"] for one in answer["inboundPeers"]], [C.strkey, A.strkey])
        self.assertEqual([one["nodeId"] for one in answer["outboundPeers"]], [B.strkey])

    def test_versions_of_any_bytes(self) -> None:
        """What is no UTF-8 is escaped; nothing that is, for the reader's JSON does that."""
        for version, text in (
            (b"", ""),
            (b"\xff\xfe v\x80", "\\xff\\xfe v\\x80"),
            ("é€".encode(), "é€"),
            ("é".encode()[:1], "\\xc3"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),  # half of a surrogate pair
            (b'"<script>\0\n', '"<script>\0\n'),
        ):
            answer = topology_json(topology(outbound=(peer(version=version),)))
            self.assertEqual(answer["outboundPeers"][0]["version"], text)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.binary(max_size=100))
    def test_it_is_json(self, version: bytes) -> None:
        """Whatever a peer calls itself, the whole can be written and read, in ASCII or UTF-8."""
        answer = SurveyResults(topology={A: topology((peer(version=version),))}).to_json()
        self.assertEqual(json.loads(json.dumps(answer)), answer)
        self.assertEqual(json.loads(json.dumps(answer, ensure_ascii=False).encode()), answer)
