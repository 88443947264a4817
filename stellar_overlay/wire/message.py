"""Messages as bytes: their types, their exact bodies, and flat layouts of the small ones.

A *body* is the XDR of one StellarMessage: a 4-byte type and what follows, without version,
sequence, MAC or record mark. Its length is its size for flow control (connection.md 2.3).
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from stellar_overlay.error import XdrError
from stellar_overlay.wire import xdr_check

if TYPE_CHECKING:
    from stellar_sdk.xdr import StellarMessage

MAX_ERROR_TEXT = 100
"""Bytes of the text of an ERROR_MSG (Stellar-overlay.x)."""
AUTH_FLAG_FLOW_CONTROL_BYTES = 200
"""The only flags with which an AUTH is accepted (core Peer.cpp:1948)."""


class MessageType(IntEnum):
    """The 21 types of StellarMessage (connection.md 2.1)."""

    ERROR_MSG = 0
    AUTH = 2
    DONT_HAVE = 3
    PEERS = 5
    GET_TX_SET = 6
    TX_SET = 7
    TRANSACTION = 8
    GET_SCP_QUORUMSET = 9
    SCP_QUORUMSET = 10
    SCP_MESSAGE = 11
    GET_SCP_STATE = 12
    HELLO = 13
    SEND_MORE = 16
    GENERALIZED_TX_SET = 17
    FLOOD_ADVERT = 18
    FLOOD_DEMAND = 19
    SEND_MORE_EXTENDED = 20
    TIME_SLICED_SURVEY_REQUEST = 21
    TIME_SLICED_SURVEY_RESPONSE = 22
    TIME_SLICED_SURVEY_START_COLLECTING = 23
    TIME_SLICED_SURVEY_STOP_COLLECTING = 24


FLOOD_TYPES = frozenset(
    {
        MessageType.TRANSACTION,
        MessageType.SCP_MESSAGE,
        MessageType.FLOOD_ADVERT,
        MessageType.FLOOD_DEMAND,
    }
)
"""What flow control counts (core OverlayManagerImpl.cpp:1119-1131)."""

FLOOD_KINDS = frozenset(int(kind) for kind in FLOOD_TYPES)
"""The same as plain numbers, for the hot path."""

MESSAGE_TYPES = {int(kind): kind for kind in MessageType}
"""The type of each number that is one; faster than calling the enum."""

_KIND = struct.Struct(">I")


class Message:
    """One StellarMessage: its type and exact body; decoded when somebody asks.

    :param body: exact XDR, as received or as made by this module; what may change is copied.
    :raises TypeError: when the body is not bytes.
    :raises XdrError: when the body does not begin with a type that exists. The rest is not
        looked at here; :func:`stellar_overlay.wire.xdr_check.check` does that.
    """

    __slots__ = ("_decoded", "_flood_hash", "body", "type")

    def __init__(self, body: bytes | bytearray | memoryview) -> None:
        self.body = body if type(body) is bytes else _as_bytes(body)
        self.type = message_type(self.body)
        self._decoded: StellarMessage | None = None
        self._flood_hash: bytes | None = None

    @classmethod
    def from_xdr(cls, message: StellarMessage) -> Message:
        """Return the message that a ``stellar_sdk.xdr.StellarMessage`` describes.

        :raises TypeError: when it is nothing of that kind.
        """
        from stellar_sdk.xdr import StellarMessage

        if not isinstance(message, StellarMessage):
            raise TypeError(
                f"a stellar_sdk.xdr.StellarMessage is wanted, not a {type(message).__name__}"
            )
        return cls(message.to_xdr_bytes())

    @property
    def size(self) -> int:
        """Bytes that flow control counts."""
        return len(self.body)

    @property
    def is_flood(self) -> bool:
        """Whether flow control counts it."""
        return self.type in FLOOD_TYPES

    @property
    def flood_hash(self) -> bytes:
        """BLAKE2b-256 of the body: core's name for it in the Floodgate (messages.md 1.1)."""
        if self._flood_hash is None:
            self._flood_hash = hashlib.blake2b(self.body, digest_size=32).digest()
        return self._flood_hash

    @property
    def decoded(self) -> StellarMessage:
        """The ``stellar_sdk.xdr`` object, made on first use: 10 to 250 microseconds.

        :raises XdrError: when the body is not canonical XDR, before anything is decoded.
        """
        if self._decoded is None:
            from stellar_sdk.xdr import StellarMessage

            xdr_check.check(self.body)
            try:
                self._decoded = StellarMessage.from_xdr_bytes(self.body)
            except ValueError as error:
                raise XdrError(f"{self.type.name}: {error}") from error
        return self._decoded

    def __eq__(self, other: object) -> bool:
        return self.body == other.body if isinstance(other, Message) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.body)

    def __repr__(self) -> str:
        return f"<Message {self.type.name} {len(self.body)} bytes>"


def _as_bytes(body: object) -> bytes:
    """Return a copy that nobody else can change."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of a message is bytes, not a {type(body).__name__}")


def message_type(body: bytes) -> MessageType:
    """Return the type of a body.

    :raises XdrError: when there is none or it does not exist.
    """
    kind = MESSAGE_TYPES.get(int.from_bytes(body[:4], "big")) if len(body) >= 4 else None
    if kind is None:
        raise XdrError(f"a message begins with its 4-byte type, not with {body[:4].hex()!r}")
    return kind


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthCert:
    """A node's session key, signed by the node: 32-byte key, Unix seconds, 64-byte signature.

    ``signature`` may have any length up to 64 when it comes from the wire.
    """

    public_key: bytes
    expiration: int
    signature: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """HELLO (connection.md 2.2). ``version_string`` is raw: it comes from the network.

    The nonce is half of what the MAC keys are made from, so ``repr`` leaves it out.
    """

    ledger_version: int
    overlay_version: int
    overlay_min_version: int
    network_id: bytes
    version_string: bytes
    listening_port: int
    node_key: bytes
    cert: AuthCert
    nonce: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return the body."""
        return b"".join(
            (
                _HELLO_HEAD.pack(
                    MessageType.HELLO,
                    self.ledger_version,
                    self.overlay_version,
                    self.overlay_min_version,
                    self.network_id,
                ),
                pack_opaque(self.version_string),
                _HELLO_TAIL.pack(
                    self.listening_port,
                    0,
                    self.node_key,
                    self.cert.public_key,
                    self.cert.expiration,
                ),
                pack_opaque(self.cert.signature),
                self.nonce,
            )
        )

    @classmethod
    def decode(cls, body: bytes) -> Hello:
        """Read a body.

        :raises XdrError: when it is not a canonical HELLO.
        """
        _expect(body, MessageType.HELLO)
        _, ledger, version, min_version, network = _HELLO_HEAD.unpack_from(body)
        version_string, at = _unpack_opaque(body, _HELLO_HEAD.size)
        port, _, node_key, session_key, expiration = _HELLO_TAIL.unpack_from(body, at)
        signature, at = _unpack_opaque(body, at + _HELLO_TAIL.size)
        return cls(
            ledger_version=ledger,
            overlay_version=version,
            overlay_min_version=min_version,
            network_id=network,
            version_string=version_string,
            listening_port=port,
            node_key=node_key,
            cert=AuthCert(public_key=session_key, expiration=expiration, signature=signature),
            nonce=body[at : at + 32],
        )


_HELLO_HEAD = struct.Struct(">IIII32s")
_HELLO_TAIL = struct.Struct(">iI32s32sQ")


@dataclass(frozen=True)
class PeerEntry:
    """One address in PEERS. ``port`` is whatever the wire said: 0 and 70000 are possible."""

    host: str
    port: int
    num_failures: int = 0


def encode_auth(flags: int = AUTH_FLAG_FLOW_CONTROL_BYTES) -> bytes:
    """Return the body of AUTH."""
    return struct.pack(">Ii", MessageType.AUTH, flags)


def decode_auth(body: bytes) -> int:
    """Return the flags of AUTH.

    :raises XdrError: when the body is not one.
    """
    _expect(body, MessageType.AUTH)
    return int.from_bytes(body[4:8], "big", signed=True)


def encode_error(code: int, text: str) -> bytes:
    """Return the body of ERROR_MSG; the text is cut to 100 bytes, between characters."""
    raw = text.encode(errors="replace")[:MAX_ERROR_TEXT].decode(errors="ignore").encode()
    return struct.pack(">Ii", MessageType.ERROR_MSG, code) + pack_opaque(raw)


def decode_error(body: bytes) -> tuple[int, bytes]:
    """Return code and text of ERROR_MSG: any int, up to 100 raw bytes.

    :raises XdrError: when the body is not one.
    """
    _expect(body, MessageType.ERROR_MSG)
    return int.from_bytes(body[4:8], "big", signed=True), _unpack_opaque(body, 8)[0]


def encode_send_more_extended(num_messages: int, num_bytes: int) -> bytes:
    """Return the body that grants so many flood messages and bytes, u32 each."""
    return struct.pack(">III", MessageType.SEND_MORE_EXTENDED, num_messages, num_bytes)


def decode_send_more_extended(body: bytes) -> tuple[int, int]:
    """Return the granted messages and bytes.

    :raises XdrError: when the body is not a SEND_MORE_EXTENDED.
    """
    _expect(body, MessageType.SEND_MORE_EXTENDED)
    return int.from_bytes(body[4:8], "big"), int.from_bytes(body[8:12], "big")


def encode_dont_have(wanted: int, item_hash: bytes) -> bytes:
    """Return the body that says that we lack the item of that message type and 32-byte hash."""
    return struct.pack(">II32s", MessageType.DONT_HAVE, wanted, item_hash)


def decode_dont_have(body: bytes) -> tuple[int, bytes]:
    """Return the wanted type, which may be any number, and the 32-byte hash.

    :raises XdrError: when the body is not a DONT_HAVE.
    """
    _expect(body, MessageType.DONT_HAVE)
    return int.from_bytes(body[4:8], "big"), body[8:40]


def encode_get_scp_state(ledger_seq: int) -> bytes:
    """Return the body that asks for the SCP messages from that slot on; 0 means all known."""
    return struct.pack(">II", MessageType.GET_SCP_STATE, ledger_seq)


def decode_get_scp_state(body: bytes) -> int:
    """Return the slot from which on SCP messages are asked for.

    :raises XdrError: when the body is not a GET_SCP_STATE.
    """
    _expect(body, MessageType.GET_SCP_STATE)
    return int.from_bytes(body[4:8], "big")


def encode_hash_query(kind: MessageType, item_hash: bytes) -> bytes:
    """Return the body of GET_TX_SET or GET_SCP_QUORUMSET for a 32-byte hash."""
    return struct.pack(">I32s", kind, item_hash)


def decode_hash_query(body: bytes) -> bytes:
    """Return the 32-byte hash of GET_TX_SET or GET_SCP_QUORUMSET.

    :raises XdrError: when the body is neither.
    """
    _expect(body, MessageType.GET_TX_SET, MessageType.GET_SCP_QUORUMSET)
    return body[4:36]


def encode_hashes(kind: MessageType, hashes: Sequence[bytes]) -> bytes:
    """Return the body of FLOOD_ADVERT or FLOOD_DEMAND for up to 1,000 transaction hashes."""
    return struct.pack(">II", kind, len(hashes)) + b"".join(hashes)


def decode_hashes(body: bytes) -> list[bytes]:
    """Return the 32-byte hashes of FLOOD_ADVERT or FLOOD_DEMAND, repeated ones included.

    :raises XdrError: when the body is neither.
    """
    _expect(body, MessageType.FLOOD_ADVERT, MessageType.FLOOD_DEMAND)
    return hashes_of(body)


def hashes_of(body: bytes) -> list[bytes]:
    """Return the hashes of a FLOOD_ADVERT or FLOOD_DEMAND that passed the structural check."""
    return [body[at : at + 32] for at in range(8, len(body), 32)]


def encode_peers(peers: Iterable[PeerEntry]) -> bytes:
    """Return the body of PEERS; at most 100 entries are legal."""
    entries = [
        struct.pack(f">I{len(ip)}sII", 0 if len(ip) == 4 else 1, ip, peer.port, peer.num_failures)
        for peer in peers
        for ip in (ipaddress.ip_address(peer.host).packed,)
    ]
    return struct.pack(">II", MessageType.PEERS, len(entries)) + b"".join(entries)


def decode_peers(body: bytes) -> list[PeerEntry]:
    """Return the entries of PEERS, unfiltered.

    :raises XdrError: when the body is not one.
    """
    _expect(body, MessageType.PEERS)
    peers, at = [], 8
    while at < len(body):
        ip_end = at + (8 if body[at + 3] == 0 else 20)
        host = str(ipaddress.ip_address(body[at + 4 : ip_end]))
        peers.append(PeerEntry(host, *struct.unpack_from(">II", body, ip_end)))
        at = ip_end + 8
    return peers


def pack_opaque(data: bytes) -> bytes:
    """Return variable opaque XDR: length, data, zero padding to 4."""
    return _KIND.pack(len(data)) + data + bytes(-len(data) % 4)


def _unpack_opaque(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the opaque at ``at`` of a checked body, and where what follows it begins."""
    start = at + 4
    end = start + int.from_bytes(body[at:start], "big")
    return body[start:end], end + (start - end) % 4


def _expect(body: bytes, *kinds: MessageType) -> None:
    """Refuse a body that is not canonical XDR of one of ``kinds``."""
    if message_type(body) not in kinds:
        names = " or ".join(kind.name for kind in kinds)
        raise XdrError(f"expected {names}, not {message_type(body).name}")
    xdr_check.check(body)
