"""Survey messages, the topology and its sealed box: recorded ones, stellar_sdk's, hostile ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from stellar_sdk import xdr as x
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import CryptoError, XdrError
from stellar_overlay.identity import PeerId
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import Message, MessageType, pack_opaque
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.survey_body import (
    MAX_ENCRYPTED_BODY,
    PEERS_PER_PAGE,
    SEAL_OVERHEAD,
    TOPOLOGY_COMMAND,
    PeerCounters,
    Sign,
    SurveyCollecting,
    SurveyKeys,
    SurveyRequest,
    SurveyResponse,
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
from tests.builders import load_vectors, make_node

START = MessageType.TIME_SLICED_SURVEY_START_COLLECTING
STOP = MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING
REQUEST = MessageType.TIME_SLICED_SURVEY_REQUEST
RESPONSE = MessageType.TIME_SLICED_SURVEY_RESPONSE

VECTORS: dict[str, Any] = {one["name"]: one for one in load_vectors("xdr-vectors")["vectors"]}
ANSWER: dict[str, Any] = VECTORS[RESPONSE.name]["fields"]
TRANSCRIPT: dict[str, Any] = load_vectors("transcript")

SURVEYOR, SURVEYED = make_node(1), make_node(2)
SECRET = bytes(range(32))

U32, U64 = 2**32 - 1, 2**64 - 1
COUNTERS = PeerCounters(1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13)
"""Those of the recorded topology, where ``seconds_connected`` is 5."""
PEER = TimeSlicedPeerData(
    node=PeerId.from_strkey(ANSWER["surveyorPeerId"]).key,
    version_string=b"v1",
    counters=COUNTERS,
    seconds_connected=5,
    average_latency_ms=99,
)
OWN = TimeSlicedNodeData(
    added_authenticated_peers=1,
    dropped_authenticated_peers=2,
    total_inbound_peers=3,
    total_outbound_peers=4,
    p75_scp_first_to_self_latency_ms=5,
    p75_scp_self_to_other_latency_ms=6,
    lost_sync_count=7,
    is_validator=True,
    max_inbound_peers=64,
    max_outbound_peers=8,
)
TOPOLOGY = TopologyResponse(inbound=(PEER,), outbound=(), node=OWN)

FIELD = 2**255 - 19
LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    FIELD - 1,
)
"""The u of every Curve25519 point, and of its twist, whose order divides 8."""


def encodings(u: int) -> Iterator[bytes]:
    """Yield all 32 bytes that X25519 reads as ``u``: it ignores the top bit (RFC 7748, 5)."""
    for value in range(u, 2**255, FIELD):
        for top in (0, 2**255):
            yield (value + top).to_bytes(32, "little")


def body_of(name: str) -> bytes:
    """Return the bytes of a recorded thing."""
    return bytes.fromhex(VECTORS[name]["hex"])


def key_of(fields: dict[str, Any], name: str) -> bytes:
    """Return the key of a recorded node id."""
    return PeerId.from_strkey(fields[name]).key


def full_page() -> TopologyResponse:
    """Return the largest topology: 25 peers each way, whose versions have 100 bytes."""
    peers = tuple(
        replace(PEER, node=bytes([number]) * 32, version_string=b"v" * 100)
        for number in range(PEERS_PER_PAGE)
    )
    return TopologyResponse(inbound=peers, outbound=peers, node=OWN)


def all_numbers(number: int) -> TimeSlicedNodeData:
    """Return what a validator says of itself, with one number in all fields."""
    numbers: dict[str, Any] = dict.fromkeys(asdict(OWN), number) | {"is_validator": True}
    return replace(OWN, **numbers)


def always(signature: bytes) -> Sign:
    """Return who signs everything with the same."""
    return lambda _: signature


def a_request(**others: Any) -> bytes:
    """Return a REQUEST of the surveyor."""
    fields: dict[str, Any] = {
        "surveyor": SURVEYOR.peer_id.key,
        "surveyed": SURVEYED.peer_id.key,
        "ledger_num": 1000,
        "encryption_key": SurveyKeys(SECRET).public,
        "nonce": 7,
        "inbound_index": 25,
        "outbound_index": 50,
        "sign": SURVEYOR.sign,
    }
    return encode_request(**fields | others)


def a_collecting(kind: MessageType, **others: Any) -> bytes:
    """Return a START or STOP of the surveyor."""
    fields: dict[str, Any] = {
        "surveyor": SURVEYOR.peer_id.key,
        "nonce": 7,
        "ledger_num": 1000,
        "sign": SURVEYOR.sign,
    }
    return encode_collecting(kind, **fields | others)


class RecordedTests(SynchronousTestCase):
    """What a foreign implementation has signed and sealed."""

    def assert_signed(self, seen: SurveyCollecting | SurveyRequest, fields: dict[str, Any]) -> None:
        self.assertEqual(seen.signature.hex(), fields["signature"])
        self.assertEqual(seen.signed.hex(), fields["signedPayload"])
        self.assertTrue(is_signed_by(seen.surveyor, seen.signed, seen.signature))

    def test_collecting(self) -> None:
        """START and STOP: every field, the signature, and the same bytes from the fields."""
        for kind in (START, STOP):
            body, fields = body_of(kind.name), VECTORS[kind.name]["fields"]
            seen = decode_collecting(body)
            self.assertEqual(seen.surveyor, key_of(fields, "surveyorId"))
            self.assertEqual((seen.nonce, seen.ledger_num), (7, 1_000_000))
            self.assert_signed(seen, fields)
            self.assertEqual(body, self.encoded(kind, seen, fields))

    def encoded(self, kind: MessageType, seen: SurveyCollecting, fields: dict[str, Any]) -> bytes:
        return encode_collecting(
            kind,
            surveyor=key_of(fields, "surveyorId"),
            nonce=fields["nonce"],
            ledger_num=fields["ledgerNum"],
            sign={seen.signed: seen.signature}.__getitem__,
        )

    def test_request(self) -> None:
        """REQUEST likewise."""
        body, fields = body_of(REQUEST.name), VECTORS[REQUEST.name]["fields"]
        seen = decode_request(body)
        self.assertEqual(seen.surveyor, key_of(fields, "surveyorPeerId"))
        self.assertEqual(seen.surveyed, key_of(fields, "surveyedPeerId"))
        self.assertEqual(seen.encryption_key.hex(), fields["encryptionKey"])
        numbers = seen.ledger_num, seen.command_type, seen.nonce
        self.assertEqual(numbers, (1_000_000, TOPOLOGY_COMMAND, 7))
        self.assertEqual((seen.inbound_index, seen.outbound_index), (0, 0))
        self.assert_signed(seen, fields)
        again = encode_request(
            surveyor=seen.surveyor,
            surveyed=seen.surveyed,
            ledger_num=seen.ledger_num,
            encryption_key=seen.encryption_key,
            nonce=seen.nonce,
            inbound_index=seen.inbound_index,
            outbound_index=seen.outbound_index,
            sign={seen.signed: seen.signature}.__getitem__,
        )
        self.assertEqual(again, body)

    def test_response(self) -> None:
        """RESPONSE answers that REQUEST; its signer is the node that was asked."""
        body = body_of(RESPONSE.name)
        seen = decode_response(body)
        self.assertEqual(seen.surveyor, key_of(ANSWER, "surveyorPeerId"))
        self.assertEqual(seen.surveyed, key_of(ANSWER, "surveyedPeerId"))
        self.assertEqual((seen.ledger_num, seen.command_type, seen.nonce), (1_000_000, 1, 7))
        self.assertEqual(seen.encrypted_body.hex(), ANSWER["encryptedBody"])
        self.assertEqual(seen.signed.hex(), ANSWER["signedPayload"])
        self.assertTrue(is_signed_by(seen.surveyed, seen.signed, seen.signature))
        request = decode_request(body_of(REQUEST.name))
        sign = {seen.signed: seen.signature}.__getitem__
        self.assertEqual(encode_response(request, seen.encrypted_body, sign), body)

    def test_sealed_box(self) -> None:
        """Its box opens with the recorded secret, and holds the recorded topology."""
        keys = SurveyKeys(bytes.fromhex(ANSWER["encSecret"]))
        self.assertEqual(keys.public.hex(), ANSWER["encPublic"])
        opened = keys.open(decode_response(body_of(RESPONSE.name)).encrypted_body)
        self.assertEqual(opened.hex(), ANSWER["decrypted"])
        self.assertEqual(opened, body_of("SurveyResponseBody_V2"))

    def test_topology(self) -> None:
        """The recorded topology says what its description says, and is made again from it."""
        body = body_of("SurveyResponseBody_V2")
        self.assertEqual(decode_topology(body), TOPOLOGY)
        self.assertEqual(encode_topology(TOPOLOGY), body)

    def test_transcript(self) -> None:
        """The four that were sent over a link were all signed by who sent them.

        The RESPONSE answers another node, and what it calls a box is too short to be one.
        """
        sender = bytes.fromhex(TRANSCRIPT["initiator"]["rawPublicKey"])
        other = bytes.fromhex(TRANSCRIPT["responder"]["rawPublicKey"])
        bodies = [bytes.fromhex(TRANSCRIPT["frames"][n]["message"]) for n in range(29, 33)]
        kinds = [Message(body).type for body in bodies]
        self.assertEqual(kinds, [START, REQUEST, RESPONSE, STOP])
        start, stop = decode_collecting(bodies[0]), decode_collecting(bodies[3])
        request, response = decode_request(bodies[1]), decode_response(bodies[2])
        for one in (start, stop, request, response):
            self.assertEqual((one.nonce, one.ledger_num), (7, 1_000_000))
            self.assertTrue(is_signed_by(sender, one.signed, one.signature))
            self.assertFalse(is_signed_by(other, one.signed, one.signature))
        self.assertEqual(start, stop)
        self.assertEqual((request.surveyor, request.surveyed), (sender, other))
        self.assertEqual((response.surveyor, response.surveyed), (other, sender))
        self.assertEqual(len(response.encrypted_body), 32)
        with self.assertRaisesRegex(CryptoError, "at least 48 bytes, not 32"):
            SurveyKeys(SECRET).open(response.encrypted_body)


class MessageTests(SynchronousTestCase):
    """The four messages as we make them."""

    def assert_canonical(self, body: bytes) -> None:
        xdr_check.check(body)
        self.assertEqual(x.StellarMessage.from_xdr_bytes(body).to_xdr_bytes(), body)

    def test_collecting(self) -> None:
        """116 bytes, signed by the surveyor, read as they were written."""
        for kind in (START, STOP):
            body = a_collecting(kind)
            self.assertEqual((len(body), Message(body).type), (116, kind))
            self.assert_canonical(body)
            seen = decode_collecting(body)
            self.assertEqual((seen.nonce, seen.ledger_num), (7, 1000))
            self.assertEqual(seen.surveyor, SURVEYOR.peer_id.key)
            self.assertEqual(seen.signed, body[72:])
            self.assertTrue(is_signed_by(seen.surveyor, body[72:], seen.signature))

    def test_start_is_stop(self) -> None:
        """What a START signs is what a STOP signs: one signature is good for both."""
        start, stop = a_collecting(START), a_collecting(STOP)
        self.assertEqual(start[4:], stop[4:])
        self.assertEqual(decode_collecting(start), decode_collecting(stop))

    def test_collecting_of_another_type(self) -> None:
        """There is no START or STOP of another type."""
        with self.assertRaisesRegex(ValueError, "TIME_SLICED_SURVEY_REQUEST neither starts"):
            a_collecting(REQUEST)

    def test_request(self) -> None:
        """196 bytes, signed by the surveyor."""
        body = a_request()
        self.assertEqual((len(body), Message(body).type), (196, REQUEST))
        self.assert_canonical(body)
        seen = decode_request(body)
        self.assertEqual(seen.surveyor, SURVEYOR.peer_id.key)
        self.assertEqual(seen.surveyed, SURVEYED.peer_id.key)
        self.assertEqual(seen.encryption_key, SurveyKeys(SECRET).public)
        self.assertEqual((seen.ledger_num, seen.command_type, seen.nonce), (1000, 1, 7))
        self.assertEqual((seen.inbound_index, seen.outbound_index), (25, 50))
        self.assertTrue(is_signed_by(seen.surveyor, body[72:], seen.signature))

    def test_response(self) -> None:
        """It repeats what was asked, and is signed by who answers."""
        request = decode_request(a_request())
        sealed = seal(encode_topology(TOPOLOGY), request.encryption_key)
        for size in (len(sealed), len(sealed) - 1, len(sealed) - 2, len(sealed) - 3):
            body = encode_response(request, sealed[:size], SURVEYED.sign)
            self.assertEqual(Message(body).type, RESPONSE)
            self.assert_canonical(body)
            seen = decode_response(body)
            self.assertEqual((seen.surveyor, seen.surveyed), (request.surveyor, request.surveyed))
            self.assertEqual((seen.ledger_num, seen.command_type, seen.nonce), (1000, 1, 7))
            self.assertEqual(seen.encrypted_body, sealed[:size])
            self.assertTrue(is_signed_by(SURVEYED.peer_id.key, body[72:], seen.signature))

    def test_odd_command(self) -> None:
        """A command that nobody knows is read as it is, and repeated in the answer."""
        body = bytearray(a_request())
        for number in (0, 2, U32):
            body[180:184] = number.to_bytes(4, "big")
            xdr_check.check(bytes(body))
            request = decode_request(bytes(body))
            self.assertEqual(request.command_type, number)
            answer = encode_response(request, b"", SURVEYED.sign)
            xdr_check.check(answer)
            self.assertEqual(decode_response(answer).command_type, number)

    def test_short_signatures(self) -> None:
        """A signature may have any length up to 64; the rest is found behind it."""
        whole, start = decode_request(a_request()), decode_collecting(a_collecting(START))
        answer = decode_response(encode_response(whole, b"box", SURVEYED.sign))
        for size in range(65):
            signature = bytes(range(size))
            sign = always(signature)
            body = a_request(sign=sign)
            self.assert_canonical(body)
            self.assertEqual(decode_request(body), replace(whole, signature=signature))
            body = a_collecting(START, sign=sign)
            self.assert_canonical(body)
            self.assertEqual(decode_collecting(body), replace(start, signature=signature))
            body = encode_response(whole, b"box", sign)
            self.assert_canonical(body)
            self.assertEqual(decode_response(body), replace(answer, signature=signature))

    def test_numbers_at_their_ends(self) -> None:
        """Every u32 is taken."""
        for number in (0, U32):
            seen = decode_request(
                a_request(
                    nonce=number, ledger_num=number, inbound_index=number, outbound_index=number
                )
            )
            numbers = {seen.nonce, seen.ledger_num, seen.inbound_index, seen.outbound_index}
            self.assertEqual(numbers, {number})
            collecting = decode_collecting(a_collecting(STOP, nonce=number, ledger_num=number))
            self.assertEqual({collecting.nonce, collecting.ledger_num}, {number})

    def test_largest_box(self) -> None:
        """64,000 bytes pass; one more is not sent, as it would end the link."""
        request = decode_request(a_request())
        body = encode_response(request, bytes(MAX_ENCRYPTED_BODY), SURVEYED.sign)
        self.assert_canonical(body)
        self.assertEqual(decode_response(body).encrypted_body, bytes(MAX_ENCRYPTED_BODY))
        with self.assertRaisesRegex(ValueError, "64001 bytes fits in no response"):
            encode_response(request, bytes(MAX_ENCRYPTED_BODY + 1), SURVEYED.sign)

    def test_repr(self) -> None:
        """What is long is not shown."""
        request = decode_request(a_request())
        answer = decode_response(encode_response(request, bytes(60_000), SURVEYED.sign))
        self.assertLess(len(repr(answer)), 500)
        self.assertLess(len(repr(request)), 600)


class TopologyTests(SynchronousTestCase):
    """The body of an answer."""

    def test_largest(self) -> None:
        """25 + 25 peers with versions of 100 bytes: the sizes of messages.md 5.2, far from 64,000.

        Scenario S1.
        """
        page = full_page()
        body = encode_topology(page)
        one_less = encode_topology(replace(page, inbound=page.inbound[1:]))
        self.assertEqual(len(body) - len(one_less), 248)
        self.assertEqual(len(body), 12_452)
        request = decode_request(a_request())
        sealed = seal(body, request.encryption_key)
        self.assertEqual(len(sealed), 12_500)
        message = encode_response(request, sealed, SURVEYED.sign)
        self.assertEqual(len(message), 12_660)
        xdr_check.check(message)
        opened = SurveyKeys(SECRET).open(decode_response(message).encrypted_body)
        self.assertEqual(decode_topology(opened), page)

    def test_smallest(self) -> None:
        """No peers at all: 52 bytes."""
        nobody = TopologyResponse(inbound=(), outbound=(), node=replace(OWN, is_validator=False))
        body = encode_topology(nobody)
        self.assertEqual(len(body), 52)
        self.assertEqual(decode_topology(body), nobody)
        self.assertIs(decode_topology(body).node.is_validator, False)

    def test_directions(self) -> None:
        """Inbound peers come first."""
        caller, called = (replace(PEER, node=bytes([number]) * 32) for number in (1, 2))
        both = TopologyResponse(inbound=(caller,), outbound=(called,), node=OWN)
        seen = x.SurveyResponseBody.from_xdr_bytes(encode_topology(both))
        topology: Any = seen.topology_response_body_v2
        for peers, number in ((topology.inbound_peers, 1), (topology.outbound_peers, 2)):
            (one,) = peers.time_sliced_peer_data_list
            self.assertEqual(one.peer_stats.id.node_id.ed25519.uint256, bytes([number]) * 32)
        self.assertEqual(decode_topology(encode_topology(both)), both)

    def test_numbers_are_clamped(self) -> None:
        """A number that does not fit becomes the nearest that does: in each field, both ways."""
        for below, above in ((-1, 2**64), (-(2**70), 2**70)):
            for given, u32, u64 in ((below, 0, 0), (above, U32, U64)):
                peer = replace(
                    PEER,
                    counters=PeerCounters(*[given] * 12),
                    seconds_connected=given,
                    average_latency_ms=given,
                )
                page = TopologyResponse(inbound=(), outbound=(peer,), node=all_numbers(given))
                seen = decode_topology(encode_topology(page))
                self.assertEqual(seen.outbound[0].counters, PeerCounters(*[u64] * 12))
                self.assertEqual(seen.outbound[0].seconds_connected, u64)
                self.assertEqual(seen.outbound[0].average_latency_ms, u32)
                self.assertEqual(seen.node, all_numbers(u32))

    def test_numbers_at_their_ends(self) -> None:
        """What just fits is left alone: u64 for counters and seconds, u32 for the rest."""
        peer = replace(
            PEER,
            counters=PeerCounters(*[U64] * 12),
            seconds_connected=U64,
            average_latency_ms=U32,
        )
        page = TopologyResponse(
            inbound=(peer,), outbound=(), node=replace(OWN, lost_sync_count=U32)
        )
        self.assertEqual(decode_topology(encode_topology(page)), page)

    def test_what_the_wire_cannot_say(self) -> None:
        """A 26th peer and a version of 101 bytes are our own mistakes."""
        page = full_page()
        for crowded in (
            replace(page, inbound=(*page.inbound, PEER)),
            replace(page, outbound=(*page.outbound, PEER)),
        ):
            with self.assertRaisesRegex(ValueError, "26 peers on one page, allowed: 25"):
                encode_topology(crowded)
        wordy = replace(PEER, version_string=bytes(101))
        with self.assertRaisesRegex(ValueError, "a version of 101 bytes, allowed: 100"):
            encode_topology(replace(TOPOLOGY, inbound=(wordy,)))


class HostileTopologyTests(SynchronousTestCase):
    """Bytes that somebody else sealed: canonical, or refused in words."""

    def assert_refused(self, data: bytes, text: str) -> None:
        with self.assertRaisesRegex(XdrError, text):
            decode_topology(data)

    def changed(self, at: int, new: bytes, body: bytes | None = None) -> bytes:
        """Return the recorded topology, or another, with other bytes at one place."""
        body = encode_topology(TOPOLOGY) if body is None else body
        return body[:at] + new + body[at + len(new) :]

    def test_discriminant(self) -> None:
        """Only V2 exists; the retired ones are refused too."""
        for number in (0, 1, 3, U32):
            data = self.changed(0, number.to_bytes(4, "big"))
            self.assert_refused(data, f"SurveyResponseBody.type: {number} at byte 0, allowed: 2")

    def test_counts(self) -> None:
        """More than 25 peers are refused before any is read, however many are said to come."""
        for number in (26, 2**31, U32):
            said = number.to_bytes(4, "big")
            text = f"inboundPeers: {number} elements at byte 4, allowed: 25"
            self.assert_refused(self.changed(4, said), text)
            text = f"outboundPeers: {number} elements at byte 160, allowed: 25"
            self.assert_refused(self.changed(160, said), text)

    def test_26_real_peers(self) -> None:
        """So too when they are all there."""
        one = encode_topology(TOPOLOGY)[8:160]
        data = b"\0\0\0\2" + b"\0\0\0\x1a" + one * 26 + bytes(4) + bytes(40)
        self.assert_refused(data, "26 elements at byte 4, allowed: 25")

    def test_key_type(self) -> None:
        """A node id is of type 0."""
        self.assert_refused(self.changed(8, b"\0\0\0\1"), "id.type: 1 at byte 8, allowed: 0")

    def test_version(self) -> None:
        """A version has at most 100 bytes, and not more than there are."""
        for number in (101, 2**31, U32):
            data = self.changed(44, number.to_bytes(4, "big"))
            self.assert_refused(data, f"versionStr: {number} bytes at byte 44, allowed: 100")
        data = self.changed(44, b"\0\0\0\x64")
        self.assert_refused(data[:120], "needs 208 bytes at byte 48, but the end is at 120")

    def test_padding(self) -> None:
        """The padding of a version is zero."""
        for padding in (b"\1\0", b"\0\1"):
            self.assert_refused(self.changed(50, padding), "padding before byte 52 is not zero")

    def test_bool(self) -> None:
        """Whether it is a validator is 0 or 1."""
        for number in (2, 256, U32):
            data = self.changed(192, number.to_bytes(4, "big"))
            text = f"isValidator: {number} at byte 192, allowed: 0 or 1"
            self.assert_refused(data, text)

    def test_trailing(self) -> None:
        """Nothing follows."""
        for more in (1, 4, 40):
            data = encode_topology(TOPOLOGY) + bytes(more)
            self.assert_refused(data, f"ends at byte 204, but the body at {204 + more}")

    def test_cut(self) -> None:
        """What ends anywhere before its end is refused."""
        for body in (encode_topology(TOPOLOGY), encode_topology(replace(TOPOLOGY, inbound=()))):
            for size in range(len(body)):
                self.assert_refused(body[:size], f"needs [0-9]+ bytes at byte .* at {size}$")

    def test_every_changed_byte(self) -> None:
        """With any one byte changed to anything, it is still canonical, or refused."""
        taken = 0
        body = encode_topology(replace(TOPOLOGY, outbound=(PEER,)))
        for at in range(len(body)):
            for number in range(256):
                data = self.changed(at, bytes([number]), body)
                try:
                    seen = decode_topology(data)
                except XdrError:
                    continue
                self.assertEqual(encode_topology(seen), data)
                taken += 1
        self.assertGreater(taken, len(body) * 200)


class SealTests(SynchronousTestCase):
    """Sealed boxes, and keys and boxes that are none."""

    def setUp(self) -> None:
        self.keys = SurveyKeys(SECRET)

    def test_round_trip(self) -> None:
        """Who has the secret opens it; it is 48 bytes longer, and never the same."""
        for body in (b"", b"x", encode_topology(full_page())):
            boxes = [seal(body, self.keys.public) for _ in range(2)]
            self.assertNotEqual(*boxes)
            for box in boxes:
                self.assertEqual(len(box), len(body) + SEAL_OVERHEAD)
                self.assertEqual(self.keys.open(box), body)

    def test_low_order_keys(self) -> None:
        """Nothing is sealed for a point of low order, in any of its encodings (case 52)."""
        keys = [key for u in LOW_ORDER for key in encodings(u)]
        self.assertEqual(len(set(keys)), 14)
        for key in keys:
            with self.assertRaisesRegex(CryptoError, "low-order point"):
                seal(b"body", key)

    def test_low_order_is_what_it_says(self) -> None:
        """Eight times each of these points is the point at infinity; others may be sealed for."""
        for u in LOW_ORDER:
            self.assertTrue(vanishes(u))
        for u in (2, 9, FIELD - 2):
            self.assertFalse(vanishes(u))
            for key in encodings(u):
                self.assertEqual(len(seal(b"body", key)), 52)

    def test_key_of_another_length(self) -> None:
        """A key has 32 bytes."""
        for size in (0, 31, 33, 64):
            with self.assertRaisesRegex(CryptoError, f"has 32 bytes, not {size}"):
                seal(b"body", bytes([9]) * size)

    def test_damaged(self) -> None:
        """A box with any one bit changed, or cut, or with more behind it, does not open.

        The top bit of its own key, which X25519 ignores, counts too: it is part of the nonce.
        """
        box = seal(b"body", self.keys.public)
        for bit in range(8 * len(box)):
            number = int.from_bytes(box, "little") ^ 1 << bit
            self.assert_closed(number.to_bytes(len(box), "little"))
        for size in range(len(box)):
            self.assert_closed(box[:size])
        self.assert_closed(box + b"\0")

    def assert_closed(self, box: bytes) -> None:
        with self.assertRaises(CryptoError):
            self.keys.open(box)

    def test_not_for_us(self) -> None:
        """What is sealed for another key does not open."""
        self.assert_closed(seal(b"body", SurveyKeys(bytes(32)).public))

    def test_ephemeral_key_of_low_order(self) -> None:
        """A box whose own key is of low order does not open."""
        for key in (key for u in LOW_ORDER for key in encodings(u)):
            self.assert_closed(key + bytes(16 + 52))

    def test_secret_of_another_length(self) -> None:
        """A secret has 32 bytes; what it was is not said."""
        for secret in (b"", b"s" * 31, b"s" * 33):
            with self.assertRaisesRegex(ValueError, f"has 32 bytes, not {len(secret)}") as caught:
                SurveyKeys(secret)
            self.assertNotIn("ss", str(caught.exception))

    def test_secret_is_not_shown(self) -> None:
        """Neither text of a key pair has the secret in it."""
        for text in (repr(self.keys), str(self.keys)):
            self.assertNotIn(repr(SECRET), text)
            self.assertNotIn(SECRET.hex(), text)


def vanishes(u: int) -> bool:
    """Tell whether the point with this u, doubled three times, is at infinity."""
    top, bottom = u, 1
    for _ in range(3):
        total, left = (top + bottom) ** 2 % FIELD, (top - bottom) ** 2 % FIELD
        both = total - left
        top, bottom = total * left % FIELD, both * (left + 121666 * both) % FIELD
    return bottom == 0


class ObjectTests(SynchronousTestCase):
    """The messages as stellar_sdk's objects."""

    def test_collecting(self) -> None:
        """Its fields are ours."""
        for kind, arm, inner in (
            (START, "signed_time_sliced_survey_start_collecting_message", "start_collecting"),
            (STOP, "signed_time_sliced_survey_stop_collecting_message", "stop_collecting"),
        ):
            body = a_collecting(kind)
            seen = decode_collecting(body)
            signed = getattr(x.StellarMessage.from_xdr_bytes(body), arm)
            said = getattr(signed, inner)
            self.assertEqual(signed.signature.signature, seen.signature)
            self.assertEqual(said.to_xdr_bytes(), seen.signed)
            self.assertEqual(said.surveyor_id.node_id.ed25519.uint256, seen.surveyor)
            self.assertEqual((said.nonce.uint32, said.ledger_num.uint32), (7, 1000))

    def test_request_and_response(self) -> None:
        """So are those of a question and its answer."""
        body = a_request()
        asked: Any = x.StellarMessage.from_xdr_bytes(body)
        signed = asked.signed_time_sliced_survey_request_message
        request = decode_request(body)
        self.assertEqual(signed.request_signature.signature, request.signature)
        self.assertEqual(signed.request.to_xdr_bytes(), request.signed)
        indices = signed.request.inbound_peers_index, signed.request.outbound_peers_index
        self.assertEqual([one.uint32 for one in indices], [25, 50])
        self.assertEqual(signed.request.request.encryption_key.key, request.encryption_key)
        body = encode_response(request, b"a box", SURVEYED.sign)
        said: Any = x.StellarMessage.from_xdr_bytes(body)
        signed = said.signed_time_sliced_survey_response_message
        response: SurveyResponse = decode_response(body)
        self.assertEqual(signed.response_signature.signature, response.signature)
        self.assertEqual(signed.response.to_xdr_bytes(), response.signed)
        self.assertEqual(signed.response.response.encrypted_body.encrypted_body, b"a box")
        self.assertEqual(signed.response.nonce.uint32, 7)

    def test_signature_is_first(self) -> None:
        """The signature is an opaque of its own before what it signs."""
        body = a_request()
        seen = decode_request(body)
        self.assertEqual(body, b"\0\0\0\x15" + pack_opaque(seen.signature) + seen.signed)
