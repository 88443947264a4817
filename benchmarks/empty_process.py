"""The least that Twisted can do with the same bytes: reads, checks, grants, and nothing else.

No handshake: both directions use one fixed key, so that what it shares with a node is exactly the
reads, the writes and the crypto.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from twisted.internet.protocol import Factory, Protocol

from benchmarks.commands import Figures, reactor, serve
from stellar_overlay.wire.message import encode_send_more_extended

KEY = bytes(32)
BATCH = 40
_MARK = struct.Struct(">I")
_HEAD = struct.Struct(">IIQ")


class EmptyProtocol(Protocol):
    """Verifies each record and grants as a node does: 200 messages at first, then 40 by 40."""

    reads = 0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        self._copy = HMAC(KEY, SHA256()).copy
        self._tail = b""
        self._received = self._bytes = self._sequence = 0
        self._grant(200, 300_000)

    def dataReceived(self, data: bytes) -> None:
        EmptyProtocol.reads += 1
        if self._tail:
            data = self._tail + data
        at, size = 0, len(data)
        while at + 4 <= size:
            end = at + 4 + (_MARK.unpack_from(data, at)[0] & 0x7FFFFFFF)
            if end > size:
                break
            mac = self._copy()
            mac.update(data[at + 8 : end - 32])
            mac.verify(data[end - 32 : end])
            self._received += 1
            self._bytes += end - at - 48
            if self._received == BATCH:
                self._grant(self._received, self._bytes)
                self._received = self._bytes = 0
            at = end
        self._tail = data[at:]

    def _grant(self, messages: int, size: int) -> None:
        body = encode_send_more_extended(messages, size)
        head = _HEAD.pack((len(body) + 44) | 0x80000000, 0, self._sequence)
        mac = self._copy()
        mac.update(head[8:] + body)
        self._sequence += 1
        assert self.transport is not None
        self.transport.write(head + body + mac.finalize())


def figures() -> Figures:
    """Return what was used and counted so far."""
    return {"cpu": time.process_time(), "reads": EmptyProtocol.reads}


def main(arguments: Sequence[str] = ()) -> None:
    """Listen until the parent is gone."""
    factory = Factory.forProtocol(EmptyProtocol)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    reactor.callWhenRunning(serve, {"figures": figures}, port=port.getHost().port)
    reactor.run()


if __name__ == "__main__":
    main()
