"""Two sessions and a clock between them: every rule of a link, without a transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.identity import LocalNode
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.session import Session
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.channel import unwrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_error,
    decode_hash_query,
    encode_dont_have,
)
from tests.builders import OpenGate, make_node


@dataclass
class Side:
    """One session, what it was sent, and what became of it."""

    session: Session
    gate: OpenGate
    messages: list[Message] = field(default_factory=list)
    sent: bytearray = field(default_factory=bytearray)
    violation: PeerViolation | None = None
    holds_credit: bool = False
    held: list[Item] = field(default_factory=list)
    outbound: list[bytes] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """Why this side ended the link."""
        return None if self.violation is None else self.violation.reason

    @property
    def kind(self) -> DropReason | None:
        """Why this side ended the link, as a row of the table."""
        return None if self.violation is None else self.violation.kind

    def of_type(self, kind: MessageType) -> list[Message]:
        """Return the dispatched messages of one type."""
        return [message for message in self.messages if message.type is kind]

    def sent_types(self) -> list[MessageType]:
        """Return the types of everything this side sent, in order."""
        frames = FrameBuffer(MAX_MESSAGE_SIZE)
        frames.feed(bytes(self.sent))
        kinds = []
        while (record := frames.next_record()) is not None:
            kinds.append(MessageType(unwrap_unauthenticated(record)[0]))
        return kinds

    def sent_error(self) -> tuple[int, bytes] | None:
        """Return code and text of the ERROR_MSG that this side sent, if it sent one."""
        frames = FrameBuffer(MAX_MESSAGE_SIZE)
        frames.feed(bytes(self.sent))
        while (record := frames.next_record()) is not None:
            kind, body = unwrap_unauthenticated(record)
            if kind == MessageType.ERROR_MSG:
                return decode_error(body)
        return None


class Pair:
    """A caller and a callee. Bytes move when :meth:`step` or :meth:`settle` is called.

    :param configs: of the caller and of the callee.
    """

    def __init__(
        self,
        caller: LocalNode | None = None,
        callee: LocalNode | None = None,
        *,
        configs: tuple[SessionConfig, SessionConfig] | None = None,
        gates: tuple[OpenGate, OpenGate] | None = None,
        is_known: Callable[[bytes], bool] = lambda body: False,
    ) -> None:
        self.now = 0.0
        caller_config, callee_config = configs or (SessionConfig(), SessionConfig())
        caller_gate, callee_gate = gates or (OpenGate(), OpenGate())
        self.caller = self._side(caller or make_node(1), True, caller_config, caller_gate, is_known)
        self.callee = self._side(
            callee or make_node(2), False, callee_config, callee_gate, is_known
        )

    def _side(
        self,
        node: LocalNode,
        we_called_remote: bool,
        config: SessionConfig,
        gate: OpenGate,
        is_known: Callable[[bytes], bool],
    ) -> Side:
        auth = AuthContext(node, we_called_remote)
        return Side(Session(auth, gate, config, now=self.now, is_known=is_known), gate)

    def other(self, side: Side) -> Side:
        """Return the other side."""
        return self.callee if side is self.caller else self.caller

    # Bytes.

    def feed(self, side: Side, data: bytes) -> None:
        """Let ``side`` receive bytes, dispatch what comes out and process it at once."""
        session = side.session
        if side.violation is not None:
            return
        received = session.receive(data, self.now)
        while True:
            side.messages += [Message(body) for _, body in received.messages]
            if side.holds_credit:
                side.held += received.messages
            else:
                session.processed(received.messages, self.now)
            if received.violation is not None:
                self.end(side, received.violation)
                return
            if not session.has_more:
                return
            received = session.resume(self.now)

    def end(self, side: Side, violation: PeerViolation) -> None:
        """End the link from ``side``; its last bytes are on their way."""
        if side.violation is None:
            side.violation = violation
            self._put(side, side.session.close(violation, self.now))

    def flush(self, side: Side) -> None:
        """Put what ``side`` may send on its way."""
        while data := side.session.data_to_send(self.now):
            self._put(side, data)
            side.session.note_written(self.now)

    def step(self) -> bool:
        """Move what is on its way, once in each direction; tell whether anything moved."""
        for side in (self.caller, self.callee):
            self.flush(side)
        moved = False
        for side in (self.caller, self.callee):
            outbound, side.outbound = side.outbound, []
            for data in outbound:
                moved = True
                self.feed(self.other(side), data)
        return moved

    def settle(self) -> None:
        """Move bytes until nothing moves any more."""
        while self.step():
            pass

    def _put(self, side: Side, data: bytes) -> None:
        if data:
            side.sent += data
            side.outbound.append(data)

    # Time.

    def advance(self, seconds: float) -> None:
        """Let time pass; each deadline is kept, and what it causes is delivered."""
        end = self.now + seconds
        while True:
            due = [s for s in (self.caller, self.callee) if s.violation is None]
            due = [s for s in due if s.session.deadline <= end]
            if not due:
                break
            side = min(due, key=lambda s: s.session.deadline)
            self.now = max(self.now, side.session.deadline)
            try:
                side.session.on_deadline(self.now)
            except PeerViolation as violation:
                self.end(side, violation)
            self.settle()
        self.now = end

    @property
    def is_authenticated(self) -> bool:
        """Whether both sides think so."""
        return self.caller.session.is_authenticated and self.callee.session.is_authenticated


def authenticated_pair(*, configs: tuple[SessionConfig, SessionConfig] | None = None) -> Pair:
    """Return a pair that has shaken hands and exchanged its first grants."""
    pair = Pair(configs=configs)
    pair.settle()
    assert pair.is_authenticated
    return pair


class LivePair(Pair):
    """An authenticated pair that does what a node does as well: it answers pings, and reads only
    while there is capacity. What a side does not read stays on its way, as in a socket.
    """

    READ_SIZE = 64 * 1024
    """Bytes that a transport hands over at most at once."""

    def __init__(
        self,
        caller: LocalNode | None = None,
        callee: LocalNode | None = None,
        *,
        configs: tuple[SessionConfig, SessionConfig] | None = None,
    ) -> None:
        super().__init__(caller, callee, configs=configs)
        self._unread: dict[int, bytearray] = {
            id(s): bytearray() for s in (self.caller, self.callee)
        }
        self.settle()
        assert self.is_authenticated

    def unread(self, side: Side) -> int:
        """Return how many bytes have come as far as ``side`` and are not read."""
        return len(self._unread[id(side)])

    def feed(self, side: Side, data: bytes) -> None:
        unread = self._unread[id(side)]
        unread += data
        while unread and side.violation is None and side.session.may_read:
            seen = len(side.messages)
            chunk = bytes(unread[: self.READ_SIZE])
            del unread[: self.READ_SIZE]
            super().feed(side, chunk)
            self._answer_pings(side, seen)

    def release(self, side: Side, count: int | None = None) -> None:
        """Let ``side`` be done with the oldest messages that it holds, and go on reading."""
        done = side.held[:count]
        del side.held[:count]
        side.session.processed(done, self.now)
        seen = len(side.messages)
        if side.session.has_more:
            super().feed(side, b"")
            self._answer_pings(side, seen)
        self.feed(side, b"")

    def _answer_pings(self, side: Side, seen: int) -> None:
        for message in side.messages[seen:]:
            if message.type is MessageType.GET_SCP_QUORUMSET:
                answer = encode_dont_have(
                    MessageType.SCP_QUORUMSET, decode_hash_query(message.body)
                )
                side.session.send(Message(answer), self.now)
