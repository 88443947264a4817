"""The MACed channel: a number and an HMAC-SHA256 on every message (connection.md 1.5, 3.3).

In a record's body, ``[0:4]`` is version 0, ``[4:12]`` the sequence, ``[12:-32]`` the message and
``[-32:]`` the MAC over ``[4:-32]``: exactly the received bytes, so nothing is decoded to be
verified, and one message sealed for many peers stays one bytes object.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.wire.codec import MARK_BIT, MAX_MESSAGE_SIZE, FrameBuffer
from stellar_overlay.wire.message import MESSAGE_TYPES, MessageType

OVERHEAD = 44
"""Bytes of version, sequence and MAC around a message."""
RECORD_OVERHEAD = OVERHEAD + 4
"""And of the record mark before it."""
MIN_RECORD = OVERHEAD + 4
"""The smallest record: a message is at least its type."""

_ERROR_MSG = int(MessageType.ERROR_MSG)
_MAC_SIZE = 32
_UNSEALED_HEAD = bytes(12)
_ZERO_MAC = bytes(_MAC_SIZE)
_RECORD_HEAD = struct.Struct(">IIQ")
_RECORD_PEEK = struct.Struct(">IIQI")
_ENVELOPE_PEEK = struct.Struct(">IQI")


def wrap_unauthenticated(body: bytes) -> bytes:
    """Return the record body of a HELLO or ERROR_MSG: sequence 0 and a zero MAC, always."""
    return b"".join((_UNSEALED_HEAD, body, _ZERO_MAC))


def unwrap_unauthenticated(record: bytes) -> tuple[int, bytes]:
    """Return type and body from a record whose sequence and MAC do not matter.

    :raises PeerViolation: when it is no envelope around a message of a known type.
    """
    if len(record) < MIN_RECORD or len(record) % 4:
        raise _corrupt(f"a record of {len(record)} bytes")
    version, _, kind = _ENVELOPE_PEEK.unpack_from(record)
    if version:
        raise _corrupt(f"version {version} of the envelope; only 0 exists")
    if kind not in MESSAGE_TYPES:
        raise _corrupt(f"unknown message type {kind}")
    return kind, record[12:-_MAC_SIZE]


def _corrupt(detail: str) -> PeerViolation:
    return DropReason.CORRUPT_XDR.violation(detail)


class SealingKey:
    """Our direction: gives each message the next number and a MAC.

    :param key: 32 bytes.
    """

    __slots__ = ("_hmac", "sequence")

    def __init__(self, key: bytes) -> None:
        self._hmac = HMAC(key, SHA256())
        self.sequence = 0

    def seal(self, body: bytes) -> bytes:
        """Return the record of ``body``, with its mark.

        :raises ValueError: when the record is longer than any peer takes.
        """
        if len(body) > MAX_MESSAGE_SIZE - OVERHEAD:
            raise ValueError(f"a message of {len(body)} bytes fits in no record")
        parts: list[bytes] = []
        self.seal_into(parts, (body,))
        return b"".join(parts)

    def seal_into(self, parts: list[bytes], bodies: tuple[bytes, ...] | list[bytes]) -> None:
        """Append the records of ``bodies`` to ``parts``, three pieces each, to be joined once."""
        sequence = self.sequence
        copy = self._hmac.copy
        pack = _RECORD_HEAD.pack
        extend = parts.extend
        for body in bodies:
            head = pack((len(body) + OVERHEAD) | MARK_BIT, 0, sequence)
            mac = copy()
            mac.update(head[8:] + body)
            extend((head, body, mac.finalize()))
            sequence += 1
        self.sequence = sequence


class _LostKey:
    """Stands in for the HMAC of a key that is of no use any more: no MAC is right."""

    def copy(self) -> _LostKey:
        return self

    def update(self, data: bytes | memoryview) -> None:
        """Do nothing: whatever is signed, :meth:`verify` refuses it."""

    def verify(self, signature: bytes) -> None:
        raise InvalidSignature


class OpeningKey:
    """The peer's direction: checks number and MAC of each message, in order.

    After a record that was refused the key is of no use, as a link whose channel failed once is
    closed: nothing opens any more but an ERROR_MSG, which is never verified.

    :param key: 32 bytes.
    :ivar sequence: how many messages were opened, which is the number of the next one.
    """

    __slots__ = ("_hmac", "sequence")

    def __init__(self, key: bytes) -> None:
        self._hmac: HMAC | _LostKey = HMAC(key, SHA256())
        self.sequence = 0

    def open(self, record: bytes) -> tuple[int, bytes]:
        """Return type and body from one record (no mark).

        :raises PeerViolation: when the envelope is corrupt, the number or the MAC is wrong; in
            this order. Only an ERROR_MSG is never verified (core Peer.cpp:1030-1049).
        """
        try:
            kind, body = unwrap_unauthenticated(record)
            if kind == _ERROR_MSG:
                return kind, body
            number = int.from_bytes(record[4:12], "big")
            if number != self.sequence:
                raise DropReason.UNEXPECTED_SEQUENCE.violation(
                    f"message {number} instead of {self.sequence}"
                )
            mac = self._hmac.copy()
            mac.update(memoryview(record)[4:-_MAC_SIZE])
            try:
                mac.verify(record[-_MAC_SIZE:])
            except InvalidSignature:
                raise DropReason.UNEXPECTED_MAC.violation(f"message {number}") from None
        except PeerViolation:
            self._hmac = _LostKey()
            raise
        self.sequence += 1
        return kind, body

    def open_records(
        self, frames: FrameBuffer, opened: list[tuple[int, bytes]], count: int
    ) -> None:
        """Append type and body of at most ``count`` complete records to ``opened``.

        :raises PeerViolation: at the first bad record, as :meth:`open`, or at an illegal length;
            those before it are in ``opened``.
        """
        enough = len(opened) + count
        while len(opened) < enough:
            if len(frames.data) - frames.at <= frames.limit:
                self._open_run(frames, opened, enough - len(opened))
                if len(opened) == enough:
                    return
                if frames.at == len(frames.data):
                    frames.set_aside()
                    return
            odd = frames.next_record()
            if odd is None:
                return
            opened.append(self.open(odd))

    def _open_run(self, frames: FrameBuffer, opened: list[tuple[int, bytes]], count: int) -> None:
        """Open a run of good records; stop before the first that is bad, odd or incomplete.

        This is the loop that every received message goes through, so it looks at nothing that
        the MAC or the structural check finds out as well: a peer that seals an unknown type gets
        it through here. What stopped it is looked at again by :meth:`open`, which knows what to
        say; so is an ERROR_MSG (type 0), which is neither verified nor counted.
        """
        data, at = frames.data, frames.at
        end, last = len(data), len(data) - 52  # a mark and the smallest record
        sequence = self.sequence
        peek = _RECORD_PEEK.unpack_from
        copy = self._hmac.copy
        append = opened.append
        try:
            for _ in range(count):
                if at > last:
                    break
                mark, version, number, kind = peek(data, at)
                stop = at + 4 + (mark & 0x7FFFFFFF)
                if (
                    stop > end
                    or number != sequence
                    or version
                    or mark & 3
                    or not kind
                    or stop < at + 52
                ):
                    break
                mac_at = stop - 32
                mac = copy()
                mac.update(data[at + 8 : mac_at])
                mac.verify(data[mac_at:stop])
                append((kind, data[at + 16 : mac_at]))
                sequence += 1
                at = stop
        except InvalidSignature:
            pass
        self.sequence = sequence
        frames.at = at
