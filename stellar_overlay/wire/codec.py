"""Records: what a TCP stream is cut into (connection.md 1.1).

A record is a 4-byte mark and a body. Bit 31 of the mark is always set by us and never looked at;
the other 31 bits are the length of the body.
"""

from __future__ import annotations

from stellar_overlay.error import DropReason

MAX_UNAUTHENTICATED_SIZE = 0x1000
"""Bytes of a record until the peer's AUTH was accepted (core TCPPeer.h:19)."""
MAX_MESSAGE_SIZE = 16 * 1024 * 1024
"""Bytes of a record from then on (core Peer.h:26)."""

MARK_BIT = 0x80000000
LENGTH_MASK = 0x7FFFFFFF
_MARK_SIZE = 4
_JOIN_LIMIT = 64 * 1024
"""Bytes of a tail that are joined with the next read; a longer one is collected instead."""


def frame(body: bytes) -> bytes:
    """Return the record of ``body``."""
    return (len(body) | MARK_BIT).to_bytes(_MARK_SIZE, "big") + body


class FrameBuffer:
    """What was received and not yet cut: ``data`` from ``at`` on.

    Memory grows with what arrived, never with what a mark claims. However finely the stream is
    chopped, each byte is copied only a few times, as long as records are taken out as they come.

    :ivar limit: the largest legal length; raised when the peer is authenticated.
    """

    __slots__ = ("_tail", "at", "data", "limit")

    def __init__(self, limit: int = MAX_UNAUTHENTICATED_SIZE) -> None:
        self.limit = limit
        self.data = b""
        self.at = 0
        self._tail = bytearray()

    def __len__(self) -> int:
        return len(self.data) - self.at + len(self._tail)

    def feed(self, data: bytes) -> None:
        """Take what the transport received."""
        tail = self._tail
        if self.at < len(self.data):
            data = self.data[self.at :] + data
        elif tail:
            missing = self._missing()
            if len(data) < missing:
                tail += data
                return
            if len(tail) <= _JOIN_LIMIT:
                data = bytes(tail) + data
            else:
                tail += data
                data = bytes(tail)
            self._tail = bytearray()
        self.data = data
        self.at = 0

    def set_aside(self) -> None:
        """Keep what is left of ``data`` as the beginning of a record that is not complete yet."""
        if self.at < len(self.data):
            self._tail = bytearray(memoryview(self.data)[self.at :])
        self.data = b""
        self.at = 0

    def next_record(self) -> bytes | None:
        """Return the body of the next record, or None when it is not complete.

        :raises PeerViolation: when its length is illegal; no byte of it need have arrived.
        """
        start = self.at + _MARK_SIZE
        if start <= len(self.data):
            length = int.from_bytes(self.data[self.at : start], "big") & LENGTH_MASK
            self.check_length(length)
            if start + length <= len(self.data):
                end = start + length
                record = self.data[start:end]
                if end < len(self.data):
                    self.at = end
                else:  # a long record need not be kept twice
                    self.data = b""
                    self.at = 0
                return record
        self.set_aside()
        return None

    def check_length(self, length: int) -> None:
        """Refuse a record length that is not in 1..``limit`` (core TCPPeer.cpp:690-699).

        :raises PeerViolation: then.
        """
        if not 0 < length <= self.limit:
            raise DropReason.READ_ERROR.violation(
                f"a record of {length} bytes; 1 to {self.limit} are allowed now"
            )

    @property
    def has_record(self) -> bool:
        """Whether ``data`` holds something not looked at yet."""
        return self.at < len(self.data)

    @property
    def is_in_record(self) -> bool:
        """Whether a mark has arrived without the whole of its body."""
        return len(self) >= _MARK_SIZE

    def _missing(self) -> int:
        """Bytes that the record in the tail still lacks; its mark was checked when it came."""
        tail = self._tail
        if len(tail) < _MARK_SIZE:
            return _MARK_SIZE - len(tail)
        length = int.from_bytes(tail[:_MARK_SIZE], "big") & LENGTH_MASK
        return _MARK_SIZE + length - len(tail)
