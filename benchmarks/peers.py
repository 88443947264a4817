"""The peers that load a node: cheap, honest about credit, or dishonest in one way each.

They check no MACs, which would be half of their work: what they receive is compared with what was
sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from benchmarks.bodies import ITEMS
from benchmarks.empty_process import KEY
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.channel import SealingKey
from stellar_overlay.wire.message import (
    FLOOD_KINDS,
    Message,
    MessageType,
    decode_error,
    decode_send_more_extended,
    encode_dont_have,
)

BATCH = 40
"""Flood messages read per grant."""
_HEAD = struct.Struct(">IIQI")
_SEND_MORE = int(MessageType.SEND_MORE_EXTENDED)
_QUERIES = {
    int(MessageType.GET_SCP_QUORUMSET): MessageType.SCP_QUORUMSET,
    int(MessageType.GET_TX_SET): MessageType.TX_SET,
}
_ERROR = int(MessageType.ERROR_MSG)


@dataclass
class Traffic:
    """What is sent in one round, and whom to tell of progress."""

    bodies: list[bytes] = field(default_factory=list)
    numbers: dict[bytes, int] = field(default_factory=dict)
    moved: Callable[[], None] = lambda: None
    failed: Callable[[str], None] = lambda text: None


class LoadPeer(ScriptedPeer):
    """Takes whatever comes, answers what it is asked for, and grants what it has read.

    :ivar heard: flood messages received so far.
    """

    def __init__(self, node: LocalNode, traffic: Traffic) -> None:
        super().__init__(node)
        self.traffic = traffic
        self.heard = 0
        self._is_ready = False
        self._left = b""
        self._read_messages = self._read_bytes = 0

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        messages = self._split(data)
        if self._is_ready:
            self.take(messages)
        else:
            self._shake_hands(messages)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.traffic.failed(f"a link ended: {self.error or reason.getErrorMessage()}")

    def take(self, messages: list[tuple[int, bytes]]) -> None:
        """Act on what was read."""
        count = size = 0
        for kind, body in messages:
            if kind in FLOOD_KINDS:
                count += 1
                size += len(body)
                self.note(body)
            else:
                self._answer_to(kind, body)
        if count:
            self.heard += count
            self._read_messages += count
            self._read_bytes += size
            if self._read_messages >= BATCH:
                self.grant(self._read_messages, self._read_bytes)
                self._read_messages = self._read_bytes = 0
            self.traffic.moved()

    def note(self, body: bytes) -> None:
        """Look at a flood message."""

    def take_grant(self, messages: int, size: int) -> None:
        """Note that the node takes more."""

    def begin(self) -> None:
        """Prepare for a round."""

    def _split(self, data: bytes) -> list[tuple[int, bytes]]:
        if self._left:
            data = self._left + data
        at, size = 0, len(data)
        messages = []
        unpack = _HEAD.unpack_from
        while at + _HEAD.size <= size:
            mark, _, _, kind = unpack(data, at)
            end = at + 4 + (mark & 0x7FFFFFFF)
            if end > size:
                break
            messages.append((kind, data[at + 16 : end - 32]))
            at = end
        self._left = data[at:]
        return messages

    def _shake_hands(self, messages: list[tuple[int, bytes]]) -> None:
        for number, (kind, body) in enumerate(messages, 1):
            self.hear(Message(body))
            if kind == MessageType.AUTH:
                self._is_ready = True
                self.received.clear()
                self.take(messages[number:])
                return

    def _answer_to(self, kind: int, body: bytes) -> None:
        if kind == _SEND_MORE:
            self.take_grant(*decode_send_more_extended(body))
        elif kind in _QUERIES:
            wanted = body[4:36]
            self.send(Message(ITEMS.get(wanted) or encode_dont_have(_QUERIES[kind], wanted)))
        elif kind == _ERROR:
            self.error = decode_error(body)


class Sender(LoadPeer):
    """Sends the round's bodies in order, as far as it has credit."""

    def __init__(self, node: LocalNode, traffic: Traffic) -> None:
        super().__init__(node, traffic)
        self.sent = 0
        self._credit = self._credit_bytes = self._initial = 0

    def take_grant(self, messages: int, size: int) -> None:
        self._credit += messages
        self._credit_bytes += size
        self._initial = self._initial or messages
        self.traffic.moved()

    def begin(self) -> None:
        self.sent = 0

    @property
    def is_done(self) -> bool:
        """Whether all was sent, and all credit for it has come back: the node is done with it."""
        return self._credit == self._initial and self.sent == len(self.traffic.bodies)

    def pump(self, limit: int) -> None:
        """Send what credit allows of the first ``limit`` bodies."""
        count = min(limit - self.sent, self._credit)
        if count <= 0:
            return
        size = len(self.traffic.bodies[0])
        count = min(count, self._credit_bytes // size)
        parts: list[bytes] = []
        assert self.auth.sealing is not None
        self.auth.sealing.seal_into(parts, self.traffic.bodies[self.sent : self.sent + count])
        self.sent += count
        self._credit -= count
        self._credit_bytes -= count * size
        self.send_bytes(b"".join(parts))


class BareSender(Sender):
    """A sender to the empty protocol: no handshake, and a key that both ends know."""

    def say_hello(self) -> None:
        self.auth.sealing = SealingKey(KEY)
        self._is_ready = True
        self.authenticated.callback(self)


class Receiver(LoadPeer):
    """Checks that it gets every body of a round once.

    :ivar got: bodies of the round received so far, repetitions included.
    """

    def __init__(self, node: LocalNode, traffic: Traffic) -> None:
        super().__init__(node, traffic)
        self.got = self.strange = 0
        self._times = bytearray()

    def begin(self) -> None:
        self.got = self.strange = 0
        self._times = bytearray(len(self.traffic.bodies))

    def note(self, body: bytes) -> None:
        number = self.traffic.numbers.get(body)
        if number is None:
            self.strange += 1
        else:
            self._times[number] = min(255, self._times[number] + 1)
            self.got += 1

    @property
    def faults(self) -> str:
        """What did not come exactly once, in words; empty when all did."""
        lost, once = self._times.count(0), self._times.count(1)
        repeated = len(self._times) - lost - once
        if not (lost or repeated or self.strange):
            return ""
        return f"{lost} lost, {repeated} repeated, {self.strange} that nobody sent"


class Stingy(LoadPeer):
    """Reads, and never grants anything."""

    def grant(self, messages: int = 0, size: int = 0) -> None:
        """Say nothing."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_closed = True  # which serves it right


class Deaf(LoadPeer):
    """Grants all there is, and never reads again."""

    def grant(self, messages: int = 0, size: int = 0) -> None:
        super().grant(2**31, 2**31)
        assert self.transport is not None
        self.transport.pauseProducing()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_closed = True


class Idle(LoadPeer):
    """Is there."""


ROLES: dict[str, type[LoadPeer]] = {
    "sender": Sender,
    "bare sender": BareSender,
    "receiver": Receiver,
    "stingy": Stingy,
    "deaf": Deaf,
    "idle": Idle,
}
