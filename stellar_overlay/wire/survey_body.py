"""Time-sliced surveys as bytes: four signed messages, the topology, and its sealed box.

The layouts are those of messages.md 5.2. What is signed is the inner struct alone: no network id,
no message type. So the signature of a START is good for a STOP of the same nonce and ledger.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import NamedTuple

from nacl import exceptions
from nacl.bindings import crypto_box_seal, crypto_box_seal_open, crypto_scalarmult_base

from stellar_overlay.error import CryptoError, XdrError
from stellar_overlay.wire.message import MessageType, pack_opaque

PEERS_PER_PAGE = 25
"""Peers of each direction in one response (Stellar-overlay.x, TimeSlicedPeerDataList)."""
MAX_ENCRYPTED_BODY = 64_000
"""Bytes of a sealed box in a response; the largest topology needs 12,500."""
MAX_PEER_VERSION = 100
"""Bytes of a peer's version string."""
SEAL_OVERHEAD = 48
"""Bytes that sealing adds: an ephemeral key and a tag."""
TOPOLOGY_COMMAND = 1
"""The only commandType that a request may have (TIME_SLICED_SURVEY_TOPOLOGY)."""

Sign = Callable[[bytes], bytes]
"""Returns the 64-byte signature of what it is given."""

_COLLECTING_KINDS = (
    MessageType.TIME_SLICED_SURVEY_START_COLLECTING,
    MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING,
)
_KEY_SIZE = 32
_SIGNATURE_AT = 8
_MAX_U32 = 2**32 - 1
_MAX_U64 = 2**64 - 1
_WORD = struct.Struct(">I")
_COLLECTING = struct.Struct(">4x32sII")
_REQUEST = struct.Struct(">4x32s4x32sI32sIIII")
_RESPONSE_HEAD = struct.Struct(">4x32s4x32sII")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyCollecting:
    """A START or a STOP. Nothing here says that the signature, of 0 to 64 bytes, is good."""

    surveyor: bytes
    nonce: int
    ledger_num: int
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyRequest:
    """A question to one node; ``command_type``, the keys and the indices may be anything."""

    surveyor: bytes
    surveyed: bytes
    ledger_num: int
    encryption_key: bytes
    command_type: int
    nonce: int
    inbound_index: int
    outbound_index: int
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyResponse:
    """An answer, sealed for the surveyor in up to 64,000 bytes, and signed by the surveyed."""

    surveyor: bytes
    surveyed: bytes
    ledger_num: int
    command_type: int
    encrypted_body: bytes = field(repr=False)
    nonce: int
    signature: bytes = field(repr=False)
    signed: bytes = field(repr=False)


def decode_collecting(body: bytes) -> SurveyCollecting:
    """Read a START or STOP that passed the structural check."""
    signature, signed = _split(body)
    surveyor, nonce, ledger_num = _COLLECTING.unpack(signed)
    return SurveyCollecting(
        surveyor=surveyor, nonce=nonce, ledger_num=ledger_num, signature=signature, signed=signed
    )


def decode_request(body: bytes) -> SurveyRequest:
    """Read a REQUEST that passed the structural check."""
    signature, signed = _split(body)
    surveyor, surveyed, ledger_num, key, command, nonce, inbound, outbound = _REQUEST.unpack(signed)
    return SurveyRequest(
        surveyor=surveyor,
        surveyed=surveyed,
        ledger_num=ledger_num,
        encryption_key=key,
        command_type=command,
        nonce=nonce,
        inbound_index=inbound,
        outbound_index=outbound,
        signature=signature,
        signed=signed,
    )


def decode_response(body: bytes) -> SurveyResponse:
    """Read a RESPONSE that passed the structural check."""
    signature, signed = _split(body)
    surveyor, surveyed, ledger_num, command = _RESPONSE_HEAD.unpack_from(signed)
    start = _RESPONSE_HEAD.size + 4
    size = int.from_bytes(signed[start - 4 : start], "big")
    return SurveyResponse(
        surveyor=surveyor,
        surveyed=surveyed,
        ledger_num=ledger_num,
        command_type=command,
        encrypted_body=signed[start : start + size],
        nonce=int.from_bytes(signed[-4:], "big"),
        signature=signature,
        signed=signed,
    )


def _split(body: bytes) -> tuple[bytes, bytes]:
    """Return the signature, as long as it happens to be, and what it should sign."""
    end = _SIGNATURE_AT + int.from_bytes(body[4:_SIGNATURE_AT], "big")
    return body[_SIGNATURE_AT:end], body[end + -end % 4 :]


def encode_collecting(
    kind: MessageType, *, surveyor: bytes, nonce: int, ledger_num: int, sign: Sign
) -> bytes:
    """Return the body of a START or STOP: 116 bytes.

    :raises ValueError: for a type that is neither.
    """
    if kind not in _COLLECTING_KINDS:
        raise ValueError(f"{kind.name} neither starts nor stops the collecting of a survey")
    return _signed(kind, _COLLECTING.pack(surveyor, nonce, ledger_num), sign)


def encode_request(
    *,
    surveyor: bytes,
    surveyed: bytes,
    ledger_num: int,
    encryption_key: bytes,
    nonce: int,
    inbound_index: int,
    outbound_index: int,
    sign: Sign,
) -> bytes:
    """Return the body of a REQUEST for a page of the topology: 196 bytes."""
    inner = _REQUEST.pack(
        surveyor,
        surveyed,
        ledger_num,
        encryption_key,
        TOPOLOGY_COMMAND,
        nonce,
        inbound_index,
        outbound_index,
    )
    return _signed(MessageType.TIME_SLICED_SURVEY_REQUEST, inner, sign)


def encode_response(request: SurveyRequest, encrypted_body: bytes, sign: Sign) -> bytes:
    """Return the body of a RESPONSE to ``request``, from the node that it asks.

    :raises ValueError: for more than 64,000 bytes, which no peer would take.
    """
    if len(encrypted_body) > MAX_ENCRYPTED_BODY:
        raise ValueError(f"a sealed body of {len(encrypted_body)} bytes fits in no response")
    head = _RESPONSE_HEAD.pack(
        request.surveyor, request.surveyed, request.ledger_num, request.command_type
    )
    inner = head + pack_opaque(encrypted_body) + _WORD.pack(request.nonce)
    return _signed(MessageType.TIME_SLICED_SURVEY_RESPONSE, inner, sign)


def _signed(kind: MessageType, inner: bytes, sign: Sign) -> bytes:
    return _WORD.pack(kind) + pack_opaque(sign(inner)) + inner


# SurveyResponseBody: what is in the sealed box.

_TOPOLOGY_V2 = 2
_PEER_HEAD = struct.Struct(">I32sI")
_PEER_TAIL = struct.Struct(">13QI")
_NODE = struct.Struct(">10I")
_SECONDS_AFTER = 4
"""How many counters of a peer come before its ``seconds_connected``."""


class PeerCounters(NamedTuple):
    """What a link has carried so far, in the order of the wire; each only ever grows."""

    messages_read: int
    messages_written: int
    bytes_read: int
    bytes_written: int
    unique_flood_bytes_recv: int
    duplicate_flood_bytes_recv: int
    unique_fetch_bytes_recv: int
    duplicate_fetch_bytes_recv: int
    unique_flood_messages_recv: int
    duplicate_flood_messages_recv: int
    unique_fetch_messages_recv: int
    duplicate_fetch_messages_recv: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSlicedPeerData:
    """One peer of the surveyed node. ``version_string`` is raw: up to 100 bytes of anything."""

    node: bytes
    version_string: bytes
    counters: PeerCounters
    seconds_connected: int
    average_latency_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSlicedNodeData:
    """What the surveyed node says of itself, in the order of the wire."""

    added_authenticated_peers: int
    dropped_authenticated_peers: int
    total_inbound_peers: int
    total_outbound_peers: int
    p75_scp_first_to_self_latency_ms: int
    p75_scp_self_to_other_latency_ms: int
    lost_sync_count: int
    is_validator: bool
    max_inbound_peers: int
    max_outbound_peers: int


_NODE_FIELDS = tuple(one.name for one in fields(TimeSlicedNodeData))


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyResponse:
    """The surveyed node and its peers: one page of up to 25 each way when it comes by wire."""

    inbound: tuple[TimeSlicedPeerData, ...]
    outbound: tuple[TimeSlicedPeerData, ...]
    node: TimeSlicedNodeData


def encode_topology(response: TopologyResponse) -> bytes:
    """Return the XDR of a SurveyResponseBody: at most 12,452 bytes.

    Each number becomes the nearest one that the wire can say.

    :raises ValueError: for what the wire cannot say: more than 25 peers one way, or more than 100
        bytes of version.
    """
    peers = _pack_peers(response.inbound) + _pack_peers(response.outbound)
    return _WORD.pack(_TOPOLOGY_V2) + peers + _NODE.pack(*map(_u32, astuple(response.node)))


def _pack_peers(peers: Sequence[TimeSlicedPeerData]) -> bytes:
    if len(peers) > PEERS_PER_PAGE:
        raise ValueError(f"{len(peers)} peers on one page, allowed: {PEERS_PER_PAGE}")
    return _WORD.pack(len(peers)) + b"".join(map(_pack_peer, peers))


def _pack_peer(peer: TimeSlicedPeerData) -> bytes:
    if len(peer.version_string) > MAX_PEER_VERSION:
        raise ValueError(
            f"a version of {len(peer.version_string)} bytes, allowed: {MAX_PEER_VERSION}"
        )
    counters, after = peer.counters, _SECONDS_AFTER
    numbers = (*counters[:after], peer.seconds_connected, *counters[after:])
    tail = _PEER_TAIL.pack(*map(_u64, numbers), _u32(peer.average_latency_ms))
    return bytes(4) + peer.node + pack_opaque(peer.version_string) + tail


def _u32(number: int) -> int:
    return min(max(number, 0), _MAX_U32)


def _u64(number: int) -> int:
    return min(max(number, 0), _MAX_U64)


def decode_topology(data: bytes) -> TopologyResponse:
    """Read what was in a sealed box, whoever has put it there.

    :raises XdrError: when it is not exactly one canonical topology.
    """
    kind = _word(data, 0, "SurveyResponseBody.type")
    if kind != _TOPOLOGY_V2:
        raise XdrError(f"SurveyResponseBody.type: {kind} at byte 0, allowed: {_TOPOLOGY_V2}")
    inbound, at = _read_peers(data, 4, "inboundPeers")
    outbound, at = _read_peers(data, at, "outboundPeers")
    _need(data, at, _NODE.size, "nodeData")
    if len(data) != at + _NODE.size:
        raise XdrError(f"nodeData: ends at byte {at + _NODE.size}, but the body at {len(data)}")
    return TopologyResponse(inbound=inbound, outbound=outbound, node=_read_node(data, at))


def _read_peers(data: bytes, at: int, where: str) -> tuple[tuple[TimeSlicedPeerData, ...], int]:
    """Return the peers of the list at ``at``, and where it ends."""
    count = _word(data, at, where)
    if count > PEERS_PER_PAGE:
        raise XdrError(f"{where}: {count} elements at byte {at}, allowed: {PEERS_PER_PAGE}")
    peers, at = [], at + 4
    for _ in range(count):
        peer, at = _read_peer(data, at, where)
        peers.append(peer)
    return tuple(peers), at


def _read_peer(data: bytes, at: int, where: str) -> tuple[TimeSlicedPeerData, int]:
    """Return the peer at ``at``, and where it ends."""
    _need(data, at, _PEER_HEAD.size, where)
    key_type, node, size = _PEER_HEAD.unpack_from(data, at)
    if key_type:
        raise XdrError(f"{where}.id.type: {key_type} at byte {at}, allowed: 0")
    at += _PEER_HEAD.size
    if size > MAX_PEER_VERSION:
        raise XdrError(
            f"{where}.versionStr: {size} bytes at byte {at - 4}, allowed: {MAX_PEER_VERSION}"
        )
    end = at + size
    tail = end + -size % 4
    _need(data, at, tail - at + _PEER_TAIL.size, where)
    if any(data[end:tail]):
        raise XdrError(f"{where}.versionStr: the padding before byte {tail} is not zero")
    *numbers, latency = _PEER_TAIL.unpack_from(data, tail)
    seconds = numbers.pop(_SECONDS_AFTER)
    peer = TimeSlicedPeerData(
        node=node,
        version_string=data[at:end],
        counters=PeerCounters(*numbers),
        seconds_connected=seconds,
        average_latency_ms=latency,
    )
    return peer, tail + _PEER_TAIL.size


def _read_node(data: bytes, at: int) -> TimeSlicedNodeData:
    said = dict(zip(_NODE_FIELDS, _NODE.unpack_from(data, at), strict=True))
    validator = said["is_validator"]
    if validator > 1:
        raise XdrError(f"nodeData.isValidator: {validator} at byte {at + 28}, allowed: 0 or 1")
    said["is_validator"] = bool(validator)
    return TimeSlicedNodeData(**said)


def _word(data: bytes, at: int, where: str) -> int:
    _need(data, at, 4, where)
    return int.from_bytes(data[at : at + 4], "big")


def _need(data: bytes, at: int, size: int, where: str) -> None:
    if at + size > len(data):
        raise XdrError(f"{where}: needs {size} bytes at byte {at}, but the end is at {len(data)}")


# The sealed box of libsodium (core Curve25519.cpp): anyone can make one, only one can open it.


def seal(body: bytes, encryption_key: bytes) -> bytes:
    """Return ``body`` encrypted for the holder of a key, 48 bytes longer; never the same twice.

    :param encryption_key: whatever a request names.
    :raises CryptoError: when it is not 32 bytes, or is a low-order point in any encoding: libsodium
        refuses those, as everybody could open what is sealed for them.
    """
    if len(encryption_key) != _KEY_SIZE:
        raise CryptoError(f"an encryption key has 32 bytes, not {len(encryption_key)}")
    try:
        return crypto_box_seal(body, encryption_key)
    except exceptions.RuntimeError as error:
        raise CryptoError("the encryption key is a low-order point") from error


class SurveyKeys:
    """The X25519 pair of one reporting run, for which answers are sealed (SurveyManager.cpp:171).

    :param secret: 32 random bytes, used for nothing else.
    :ivar public: the 32 bytes that requests name.
    :raises ValueError: for a secret of another length.
    """

    __slots__ = ("_secret", "public")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _KEY_SIZE:
            raise ValueError(f"the secret has 32 bytes, not {len(secret)}")
        self._secret = secret
        self.public = crypto_scalarmult_base(secret)

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed for us, by whomever.

        :raises CryptoError: when it was not, or is damaged or cut.
        """
        if len(sealed) < SEAL_OVERHEAD:
            raise CryptoError(f"a sealed box has at least 48 bytes, not {len(sealed)}")
        try:
            return crypto_box_seal_open(sealed, self.public, self._secret)
        except exceptions.CryptoError as error:
            raise CryptoError("the box was not sealed for this key, or is damaged") from error
