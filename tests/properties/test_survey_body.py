"""Survey messages and topologies with any fields are those of stellar_sdk, byte for byte."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import xdr as x
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import CryptoError, XdrError
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.survey_body import (
    MAX_ENCRYPTED_BODY,
    PEERS_PER_PAGE,
    PeerCounters,
    SurveyKeys,
    SurveyRequest,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
    decode_collecting,
    decode_request,
    decode_response,
    decode_topology,
    encode_collecting,
    encode_request,
    encode_response,
    encode_topology,
    seal,
)

MODEST = settings(max_examples=100, derandomize=True, deadline=None)
THOROUGH = settings(max_examples=400, derandomize=True, deadline=None)

KINDS = st.sampled_from(
    [
        MessageType.TIME_SLICED_SURVEY_START_COLLECTING,
        MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING,
    ]
)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
KEYS = st.binary(min_size=32, max_size=32)
SIGNATURES = st.binary(max_size=64)
COMMAND = x.SurveyMessageCommandType.TIME_SLICED_SURVEY_TOPOLOGY
WORDS = (0, 1, 2, 3, 24, 25, 26, 27, 99, 100, 101, 104, 2**31, 2**32 - 1)

PEERS = st.builds(
    TimeSlicedPeerData,
    node=KEYS,
    version_string=st.binary(max_size=100),
    counters=st.builds(PeerCounters, *[U64] * 12),
    seconds_connected=U64,
    average_latency_ms=U32,
)
LISTS = st.lists(PEERS, max_size=3).map(tuple)
NODES = st.builds(
    TimeSlicedNodeData,
    added_authenticated_peers=U32,
    dropped_authenticated_peers=U32,
    total_inbound_peers=U32,
    total_outbound_peers=U32,
    p75_scp_first_to_self_latency_ms=U32,
    p75_scp_self_to_other_latency_ms=U32,
    lost_sync_count=U32,
    is_validator=st.booleans(),
    max_inbound_peers=U32,
    max_outbound_peers=U32,
)
TOPOLOGIES = st.builds(TopologyResponse, inbound=LISTS, outbound=LISTS, node=NODES)


def u32(number: int) -> x.Uint32:
    """Return the object of a u32."""
    return x.Uint32(number)


def node_id(key: bytes) -> x.NodeID:
    """Return the object of a node's key."""
    kind = x.PublicKeyType.PUBLIC_KEY_TYPE_ED25519
    return x.NodeID(x.PublicKey(kind, ed25519=x.Uint256(key)))


def peer_object(peer: TimeSlicedPeerData) -> x.TimeSlicedPeerData:
    """Return a peer as stellar_sdk has it."""
    c = peer.counters
    stats = x.PeerStats(
        id=node_id(peer.node),
        version_str=peer.version_string,
        messages_read=x.Uint64(c.messages_read),
        messages_written=x.Uint64(c.messages_written),
        bytes_read=x.Uint64(c.bytes_read),
        bytes_written=x.Uint64(c.bytes_written),
        seconds_connected=x.Uint64(peer.seconds_connected),
        unique_flood_bytes_recv=x.Uint64(c.unique_flood_bytes_recv),
        duplicate_flood_bytes_recv=x.Uint64(c.duplicate_flood_bytes_recv),
        unique_fetch_bytes_recv=x.Uint64(c.unique_fetch_bytes_recv),
        duplicate_fetch_bytes_recv=x.Uint64(c.duplicate_fetch_bytes_recv),
        unique_flood_message_recv=x.Uint64(c.unique_flood_messages_recv),
        duplicate_flood_message_recv=x.Uint64(c.duplicate_flood_messages_recv),
        unique_fetch_message_recv=x.Uint64(c.unique_fetch_messages_recv),
        duplicate_fetch_message_recv=x.Uint64(c.duplicate_fetch_messages_recv),
    )
    return x.TimeSlicedPeerData(stats, u32(peer.average_latency_ms))


def node_object(node: TimeSlicedNodeData) -> x.TimeSlicedNodeData:
    """Return a node's account of itself as stellar_sdk has it."""
    return x.TimeSlicedNodeData(
        added_authenticated_peers=u32(node.added_authenticated_peers),
        dropped_authenticated_peers=u32(node.dropped_authenticated_peers),
        total_inbound_peer_count=u32(node.total_inbound_peers),
        total_outbound_peer_count=u32(node.total_outbound_peers),
        p75_scp_first_to_self_latency_ms=u32(node.p75_scp_first_to_self_latency_ms),
        p75_scp_self_to_other_latency_ms=u32(node.p75_scp_self_to_other_latency_ms),
        lost_sync_count=u32(node.lost_sync_count),
        is_validator=node.is_validator,
        max_inbound_peer_count=u32(node.max_inbound_peers),
        max_outbound_peer_count=u32(node.max_outbound_peers),
    )


def topology_object(topology: TopologyResponse) -> x.SurveyResponseBody:
    """Return a topology as stellar_sdk has it."""
    inbound, outbound = (
        x.TimeSlicedPeerDataList([peer_object(peer) for peer in peers])
        for peers in (topology.inbound, topology.outbound)
    )
    return x.SurveyResponseBody(
        x.SurveyMessageResponseType.SURVEY_TOPOLOGY_RESPONSE_V2,
        topology_response_body_v2=x.TopologyResponseBodyV2(
            inbound, outbound, node_object(topology.node)
        ),
    )


def request_object(
    request: SurveyRequest, signature: bytes
) -> tuple[x.TimeSlicedSurveyRequestMessage, x.StellarMessage]:
    """Return a REQUEST as stellar_sdk has it: what is signed, and all."""
    inner = x.TimeSlicedSurveyRequestMessage(
        x.SurveyRequestMessage(
            node_id(request.surveyor),
            node_id(request.surveyed),
            u32(request.ledger_num),
            x.Curve25519Public(request.encryption_key),
            COMMAND,
        ),
        u32(request.nonce),
        u32(request.inbound_index),
        u32(request.outbound_index),
    )
    signed = x.SignedTimeSlicedSurveyRequestMessage(x.Signature(signature), inner)
    return inner, x.StellarMessage(
        x.MessageType.TIME_SLICED_SURVEY_REQUEST,
        signed_time_sliced_survey_request_message=signed,
    )


def collecting_object(
    kind: MessageType, surveyor: bytes, nonce: int, ledger_num: int, signature: bytes
) -> x.StellarMessage:
    """Return a START or STOP as stellar_sdk has it."""
    fields = node_id(surveyor), u32(nonce), u32(ledger_num)
    signed = x.Signature(signature)
    if kind is MessageType.TIME_SLICED_SURVEY_START_COLLECTING:
        return x.StellarMessage(
            x.MessageType.TIME_SLICED_SURVEY_START_COLLECTING,
            signed_time_sliced_survey_start_collecting_message=(
                x.SignedTimeSlicedSurveyStartCollectingMessage(
                    signed, x.TimeSlicedSurveyStartCollectingMessage(*fields)
                )
            ),
        )
    return x.StellarMessage(
        x.MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING,
        signed_time_sliced_survey_stop_collecting_message=(
            x.SignedTimeSlicedSurveyStopCollectingMessage(
                signed, x.TimeSlicedSurveyStopCollectingMessage(*fields)
            )
        ),
    )


class MessageTests(SynchronousTestCase):
    """The four messages, with signatures of any length."""

    @MODEST
    @given(KINDS, KEYS, U32, U32, SIGNATURES)
    def test_collecting(
        self, kind: MessageType, surveyor: bytes, nonce: int, ledger_num: int, signature: bytes
    ) -> None:
        """START and STOP are made and read as stellar_sdk does."""
        body = encode_collecting(
            kind, surveyor=surveyor, nonce=nonce, ledger_num=ledger_num, sign=lambda _: signature
        )
        expected = collecting_object(kind, surveyor, nonce, ledger_num, signature)
        self.assertEqual(body, expected.to_xdr_bytes())
        xdr_check.check(body)
        seen = decode_collecting(body)
        self.assertEqual((seen.surveyor, seen.signature), (surveyor, signature))
        self.assertEqual((seen.nonce, seen.ledger_num), (nonce, ledger_num))

    @MODEST
    @given(KEYS, KEYS, KEYS, st.tuples(U32, U32, U32, U32), SIGNATURES, SIGNATURES, st.data())
    def test_request_and_response(
        self,
        surveyor: bytes,
        surveyed: bytes,
        encryption_key: bytes,
        numbers: tuple[int, int, int, int],
        signature: bytes,
        answered: bytes,
        data: st.DataObject,
    ) -> None:
        """REQUEST and RESPONSE are, too; what is given to be signed is what is read as signed."""
        ledger_num, nonce, inbound_index, outbound_index = numbers
        given_to_sign: list[bytes] = []

        def sign(inner: bytes) -> bytes:
            given_to_sign.append(inner)
            return signature if len(given_to_sign) == 1 else answered

        body = encode_request(
            surveyor=surveyor,
            surveyed=surveyed,
            ledger_num=ledger_num,
            encryption_key=encryption_key,
            nonce=nonce,
            inbound_index=inbound_index,
            outbound_index=outbound_index,
            sign=sign,
        )
        request = decode_request(body)
        inner, message = request_object(request, signature)
        self.assertEqual(body, message.to_xdr_bytes())
        self.assertEqual([request.signed], given_to_sign)
        self.assertEqual(request.signed, inner.to_xdr_bytes())
        self.assertEqual(request.signature, signature)

        box = data.draw(st.binary(max_size=200) | st.just(bytes(MAX_ENCRYPTED_BODY - 1)))
        body = encode_response(request, box, sign)
        answer = x.TimeSlicedSurveyResponseMessage(
            x.SurveyResponseMessage(
                node_id(surveyor),
                node_id(surveyed),
                u32(ledger_num),
                COMMAND,
                x.EncryptedBody(box),
            ),
            u32(nonce),
        )
        signed = x.SignedTimeSlicedSurveyResponseMessage(x.Signature(answered), answer)
        expected = x.StellarMessage(
            x.MessageType.TIME_SLICED_SURVEY_RESPONSE,
            signed_time_sliced_survey_response_message=signed,
        )
        self.assertEqual(body, expected.to_xdr_bytes())
        response = decode_response(body)
        self.assertEqual(response.signed, answer.to_xdr_bytes())
        self.assertEqual(response.signed, given_to_sign[1])
        self.assertEqual((response.encrypted_body, response.signature), (box, answered))
        self.assertEqual((response.surveyor, response.surveyed), (surveyor, surveyed))
        self.assertEqual((response.ledger_num, response.nonce), (ledger_num, nonce))


class TopologyTests(SynchronousTestCase):
    """What is in the box."""

    @THOROUGH
    @given(TOPOLOGIES)
    def test_as_stellar_sdk(self, topology: TopologyResponse) -> None:
        """It is made as stellar_sdk makes it, and stellar_sdk's is read."""
        body = topology_object(topology).to_xdr_bytes()
        self.assertEqual(encode_topology(topology), body)
        self.assertEqual(decode_topology(body), topology)

    @MODEST
    @given(TOPOLOGIES, st.data())
    def test_cut(self, topology: TopologyResponse, data: st.DataObject) -> None:
        """What is cut anywhere is refused."""
        body = encode_topology(topology)
        size = data.draw(st.integers(0, len(body) - 1))
        with self.assertRaises(XdrError):
            decode_topology(body[:size])

    @THOROUGH
    @given(TOPOLOGIES, st.data())
    def test_changed(self, topology: TopologyResponse, data: st.DataObject) -> None:
        """Whatever bytes and words are changed in it, it is canonical or refused."""
        body = bytearray(encode_topology(topology))
        for _ in range(data.draw(st.integers(1, 3))):
            at = 4 * data.draw(st.integers(0, len(body) // 4 - 1))
            if data.draw(st.booleans()):
                body[at : at + 4] = data.draw(st.sampled_from(WORDS)).to_bytes(4, "big")
            else:
                body[at + data.draw(st.integers(0, 3))] = data.draw(st.integers(0, 255))
        self.assert_canonical_or_refused(bytes(body))

    @MODEST
    @given(st.binary(max_size=400), st.booleans())
    def test_any_bytes(self, data: bytes, is_begun_well: bool) -> None:
        """Any bytes are refused, or canonical, like those that begin as a topology does."""
        self.assert_canonical_or_refused(b"\0\0\0\2" + data if is_begun_well else data)

    def assert_canonical_or_refused(self, data: bytes) -> None:
        """Nothing is taken but what is encoded in no other way, and what stellar_sdk takes."""
        try:
            seen = decode_topology(data)
        except XdrError:
            self.assertIsNone(read_by_sdk(data))
            return
        self.assertEqual(encode_topology(seen), data)
        self.assertEqual(topology_object(seen), read_by_sdk(data))
        self.assertLessEqual(max(len(seen.inbound), len(seen.outbound)), PEERS_PER_PAGE)


def read_by_sdk(data: bytes) -> Any:
    """Return what stellar_sdk makes of bytes if they are canonical; None if not."""
    try:
        seen = x.SurveyResponseBody.from_xdr_bytes(data)
    except Exception:
        return None
    return seen if seen.to_xdr_bytes() == data else None


class SealTests(SynchronousTestCase):
    """Sealed boxes."""

    @MODEST
    @given(KEYS, KEYS, st.binary(max_size=13_000))
    def test_round_trip(self, secret: bytes, other: bytes, body: bytes) -> None:
        """What is sealed for a key opens with its secret alone, whatever that is."""
        keys = SurveyKeys(secret)
        box = seal(body, keys.public)
        self.assertEqual(keys.open(box), body)
        if SurveyKeys(other).public != keys.public:
            with self.assertRaises(CryptoError):
                SurveyKeys(other).open(box)

    @MODEST
    @given(KEYS, st.binary(max_size=300))
    def test_any_box(self, secret: bytes, box: bytes) -> None:
        """Bytes that nobody sealed do not open."""
        with self.assertRaises(CryptoError):
            SurveyKeys(secret).open(box)

    @MODEST
    @given(st.binary(max_size=40) | KEYS)
    def test_any_key(self, key: bytes) -> None:
        """For any key, a box is made or refused."""
        try:
            box = seal(b"body", key)
        except CryptoError:
            self.assertTrue(len(key) != 32 or key == bytes(32) or key == b"\1" + bytes(31))
        else:
            self.assertEqual((len(key), len(box)), (32, 52))
