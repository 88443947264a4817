"""Survey messages of ours with a foreign implementation: it reads in them what we have written."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode, b64encode
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.survey_body import (
    PEERS_PER_PAGE,
    PeerCounters,
    SurveyKeys,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
    decode_request,
    decode_response,
    decode_topology,
    encode_collecting,
    encode_request,
    encode_response,
    encode_topology,
    seal,
)
from tests.integration.members import in_reactor, until
from tests.integration.neighbours import PATIENCE_SECONDS, address_of, running
from tests.interop.conftest import StartForeignPeer
from tests.interop.foreign import HERE, TIMEOUT_SECONDS, Options

START = MessageType.TIME_SLICED_SURVEY_START_COLLECTING
STOP = MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING

SURVEYOR, SURVEYED = LocalNode.testnet(bytes([1]) * 32), LocalNode.testnet(bytes([2]) * 32)
KEYS = SurveyKeys(bytes(range(32)))
NONCE, LEDGER = 0xFEDCBA98, 61_000_007


def a_peer(number: int) -> TimeSlicedPeerData:
    """Return what is said of a peer: numbers that are all different, one of them no double."""
    return TimeSlicedPeerData(
        node=bytes([number]) * 32,
        version_string=b"v" * number,
        counters=PeerCounters(*range(number, number + 12))._replace(bytes_read=2**64 - number),
        seconds_connected=1000 + number,
        average_latency_ms=2000 + number,
    )


TOPOLOGY = TopologyResponse(
    inbound=tuple(map(a_peer, range(1, 1 + PEERS_PER_PAGE))),
    outbound=(a_peer(100),),
    node=TimeSlicedNodeData(
        added_authenticated_peers=1,
        dropped_authenticated_peers=2,
        total_inbound_peers=30,
        total_outbound_peers=1,
        p75_scp_first_to_self_latency_ms=5,
        p75_scp_self_to_other_latency_ms=6,
        lost_sync_count=7,
        is_validator=True,
        max_inbound_peers=64,
        max_outbound_peers=2**32 - 1,
    ),
)


def our_messages() -> list[Message]:
    """Return one of each of the four, signed."""
    surveyor: dict[str, Any] = {"surveyor": SURVEYOR.peer_id.key, "sign": SURVEYOR.sign}
    when: dict[str, Any] = {"nonce": NONCE, "ledger_num": LEDGER}
    request = encode_request(
        **surveyor,
        **when,
        surveyed=SURVEYED.peer_id.key,
        encryption_key=KEYS.public,
        inbound_index=25,
        outbound_index=50,
    )
    box = seal(encode_topology(TOPOLOGY), KEYS.public)
    bodies = [
        encode_collecting(START, **surveyor, **when),
        encode_collecting(STOP, **surveyor, **when),
        request,
        encode_response(decode_request(request), box, SURVEYED.sign),
    ]
    return [Message(body) for body in bodies]


def read_there(kind: str, *bodies: bytes) -> list[dict[str, Any]]:
    """Return what the foreign codec reads in bodies of a type."""
    lines = [json.dumps({"type": kind, "xdr": b64encode(body).decode()}) for body in bodies]
    done = subprocess.run(
        ["node", "survey_fields.js"],
        cwd=HERE,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@in_reactor
async def test_ours_are_read_there(foreign_peer: StartForeignPeer) -> None:
    """START, STOP, REQUEST and RESPONSE arrive whole; fields and signers are those we wrote."""
    peer = foreign_peer(Options())
    messages = our_messages()
    async with running() as node:
        peer.dial(address_of(node).port)
        await peer.wait_for("authenticated")
        await until(lambda: len(node.peer_infos()) == 1, PATIENCE_SECONDS)
        (info,) = node.peer_infos()
        for message in messages:
            assert node.send_to(info.peer_id, message)
        heard = await gatherResults(
            [peer.wait_for("message", type=message.type.name) for message in messages]
        )
    again = [b64decode(event.text("xdr")) for event in heard]
    assert again == [message.body for message in messages]

    start, stop, request, response = read_there("StellarMessage", *again)
    for collecting, name in ((start, "startCollecting"), (stop, "stopCollecting")):
        assert collecting["is_signed"]
        assert collecting["fields"][name] == {
            "surveyorId": SURVEYOR.peer_id.key.hex(),
            "nonce": NONCE,
            "ledgerNum": LEDGER,
        }
    asked = {
        "surveyorPeerId": SURVEYOR.peer_id.key.hex(),
        "surveyedPeerId": SURVEYED.peer_id.key.hex(),
        "ledgerNum": LEDGER,
        "commandType": "timeSlicedSurveyTopology",
    }
    assert request["is_signed"]
    assert request["fields"]["request"] == {
        "request": asked | {"encryptionKey": {"key": KEYS.public.hex()}},
        "nonce": NONCE,
        "inboundPeersIndex": 25,
        "outboundPeersIndex": 50,
    }
    assert response["is_signed"]
    box = decode_response(messages[3].body).encrypted_body
    assert response["fields"]["response"] == {
        "response": asked | {"encryptedBody": box.hex()},
        "nonce": NONCE,
    }


@in_reactor
async def test_they_come_back(foreign_peer: StartForeignPeer) -> None:
    """What the foreign peer has decoded and encoded is ours still: the box opens."""
    peer = foreign_peer(Options())
    messages = our_messages()
    async with running() as node:
        heard: list[bytes] = []
        node.observe(lambda message: heard.append(message.body))
        peer.dial(address_of(node).port)
        await peer.wait_for("authenticated")
        for message in messages:
            peer.command("send", xdr=b64encode(message.body).decode())
        await until(lambda: messages[3].body in heard, PATIENCE_SECONDS)
        assert len(node.peer_infos()) == 1
    came_back = [message for message in map(Message, heard) if message in messages]
    assert came_back == messages
    box = decode_response(came_back[-1].body).encrypted_body
    assert decode_topology(KEYS.open(box)) == TOPOLOGY


@pytest.mark.usefixtures("foreign_peer")
def test_topology_is_read_there() -> None:
    """The foreign codec finds all peers of our topology, in both lists, and each number."""
    (read,) = read_there("SurveyResponseBody", encode_topology(TOPOLOGY))
    said = read["fields"]
    assert said["inboundPeers"] == list(map(as_read_there, TOPOLOGY.inbound))
    assert said["outboundPeers"] == list(map(as_read_there, TOPOLOGY.outbound))
    assert said["nodeData"] == {
        "addedAuthenticatedPeers": 1,
        "droppedAuthenticatedPeers": 2,
        "totalInboundPeerCount": 30,
        "totalOutboundPeerCount": 1,
        "p75ScpFirstToSelfLatencyMs": 5,
        "p75ScpSelfToOtherLatencyMs": 6,
        "lostSyncCount": 7,
        "isValidator": True,
        "maxInboundPeerCount": 64,
        "maxOutboundPeerCount": 2**32 - 1,
    }


def as_read_there(peer: TimeSlicedPeerData) -> dict[str, Any]:
    """Return a peer in the foreign codec's words."""
    counters = peer.counters
    numbers = {
        "messagesRead": counters.messages_read,
        "messagesWritten": counters.messages_written,
        "bytesRead": counters.bytes_read,
        "bytesWritten": counters.bytes_written,
        "secondsConnected": peer.seconds_connected,
        "uniqueFloodBytesRecv": counters.unique_flood_bytes_recv,
        "duplicateFloodBytesRecv": counters.duplicate_flood_bytes_recv,
        "uniqueFetchBytesRecv": counters.unique_fetch_bytes_recv,
        "duplicateFetchBytesRecv": counters.duplicate_fetch_bytes_recv,
        "uniqueFloodMessageRecv": counters.unique_flood_messages_recv,
        "duplicateFloodMessageRecv": counters.duplicate_flood_messages_recv,
        "uniqueFetchMessageRecv": counters.unique_fetch_messages_recv,
        "duplicateFetchMessageRecv": counters.duplicate_fetch_messages_recv,
    }
    names = {"id": peer.node.hex(), "versionStr": peer.version_string.hex()}
    stats = names | {name: str(number) for name, number in numbers.items()}
    return {"peerStats": stats, "averageLatencyMs": peer.average_latency_ms}
