"""One connection, without a transport: bytes and the time go in, messages and bytes come out.

:class:`Session` only orders the objects that know the rules: the handshake, the channel, flow
control and the outbox. Its owner feeds it what was received, dispatches the messages that come
out, tells it when they were processed, writes what it has to send, and calls it at its deadline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stellar_overlay.error import DropReason, PeerError, PeerViolation, XdrError
from stellar_overlay.interfaces import Gate
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.session.clocks import Clocks
from stellar_overlay.session.flow_control import FlowControl, Item, SendMoreCapacity
from stellar_overlay.session.handshake import Handshake, check_legal
from stellar_overlay.session.outbox import Outbox
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.channel import (
    OVERHEAD,
    RECORD_OVERHEAD,
    unwrap_unauthenticated,
    wrap_unauthenticated,
)
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import (
    MESSAGE_TYPES,
    Message,
    MessageType,
    decode_dont_have,
    decode_error,
    decode_send_more_extended,
    encode_error,
    encode_get_scp_state,
    encode_hash_query,
)

_ALL = 1 << 30
_RESERVED = frozenset(
    {
        MessageType.HELLO,
        MessageType.AUTH,
        MessageType.ERROR_MSG,
        MessageType.PEERS,
        MessageType.SEND_MORE,
        MessageType.SEND_MORE_EXTENDED,
    }
)
_RELAYED = frozenset({int(MessageType.SCP_MESSAGE), int(MessageType.TRANSACTION)})
"""What is received many times over, from many peers."""


@dataclass(slots=True)
class Received:
    """What came out of some bytes: messages to dispatch and then, perhaps, the end of the link."""

    messages: list[Item]
    violation: PeerViolation | None = None


class Session:
    """One connection's protocol. Once closed, nothing more comes out of it.

    :param auth: fresh, for this connection.
    :param gate: what the node decides about the link.
    :param now: when the TCP connection was made.
    :param is_known: tells whether a body was accepted before, so that its structure is known to
        be good.
    :param metrics: for latencies and throttle times.
    """

    __slots__ = (
        "_frames",
        "_gate",
        "_handshake",
        "_has_received_peers",
        "_is_admitted",
        "_is_known",
        "_now",
        "_opened",
        "_violation",
        "auth",
        "clocks",
        "config",
        "flow_control",
        "is_closed",
        "metrics",
        "outbox",
    )

    def __init__(
        self,
        auth: AuthContext,
        gate: Gate,
        config: SessionConfig | None = None,
        *,
        now: float,
        is_known: Callable[[bytes], bool] = lambda body: False,
        metrics: OverlayMetrics | None = None,
    ) -> None:
        self.config = config or SessionConfig()
        self.auth = auth
        self.flow_control = FlowControl(
            self.config.flow_control, max_tx_size=self.config.max_tx_size, now=now
        )
        self.metrics = metrics or OverlayMetrics()
        self.outbox = Outbox(self.flow_control, self.config.outbox)
        self.clocks = Clocks(self.config, self.metrics, now)
        self.is_closed = False
        self._gate = gate
        self._is_known = is_known
        self._now = now
        self._frames = FrameBuffer()
        self._opened: list[Item] = []  # verified, not in processing yet
        self._violation: PeerViolation | None = None  # acts after what was opened before it
        self._is_admitted = False
        self._has_received_peers = False
        self._handshake = Handshake(auth, gate, self._send_control)
        self._handshake.start()

    @property
    def is_authenticated(self) -> bool:
        """Whether the peer proved its key, was admitted, and the link is open."""
        return self._is_admitted and not self.is_closed

    # Bytes in, messages out.

    def receive(self, data: bytes, now: float) -> Received:
        """Take what the transport received; return what is to be dispatched now."""
        if self.is_closed:
            return Received([])
        self._frames.feed(data)
        return self.resume(now)

    def resume(self, now: float) -> Received:
        """Go on with what was received, as far as capacity reaches."""
        if self.is_closed:
            return Received([])
        self._now = now
        if not self._opened and self._violation is None:
            self._open()
        taken, over_credit = self.flow_control.begin(self._opened)
        if taken == len(self._opened):
            items, self._opened = self._opened, []
        else:
            items, self._opened = self._opened[:taken], self._opened[taken:]
        if over_credit is not None:
            self._fail(over_credit)
        elif self._opened:
            self._check_credit_of_waiting()
        messages = self._judge(items)
        return Received(messages, None if self._opened else self._violation)

    def _check_credit_of_waiting(self) -> None:
        """Let no grant cover what was sent before it (DECISIONS.md 3b)."""
        covered = self.flow_control.count_within_credit(self._opened)
        if covered < len(self._opened):
            del self._opened[covered:]
            self._violation = DropReason.AT_CAPACITY.violation("sent before it was granted")

    @property
    def has_more(self) -> bool:
        """Whether :meth:`resume` would bring something now."""
        if self.is_closed or not self.flow_control.can_read:
            return False
        return bool(self._opened) or self._frames.has_record

    @property
    def may_read(self) -> bool:
        """Whether there is capacity for what the transport may bring next."""
        return not self._opened and self.flow_control.can_read

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages that were verified and wait for capacity, and bytes of all that waits."""
        bodies = sum(len(body) + RECORD_OVERHEAD for _, body in self._opened)
        return len(self._opened), bodies + len(self._frames)

    @property
    def unprocessed_bytes(self) -> int:
        """Bytes that were received, and that nobody is done with yet."""
        total = len(self._frames) + self.flow_control.processing_bytes
        return total + sum(len(body) for _, body in self._opened) if self._opened else total

    def processed(self, items: Sequence[Item], now: float) -> None:
        """Note that all consumers are done with ``items``; grants follow from it."""
        self._now = now
        if not self.is_closed:
            self._end(items)

    # Messages in, bytes out.

    def send(self, message: Message, now: float) -> bool:
        """Queue a message; tell whether it will leave if nothing newer displaces it.

        :raises ValueError: for what only the protocol itself may send, or what fits in no record.
        """
        if message.type in _RESERVED:
            raise ValueError(f"{message.type.name} is sent by the protocol itself")
        if message.size > MAX_MESSAGE_SIZE - OVERHEAD:
            raise ValueError(f"a message of {message.size} bytes fits in no record")
        return self.is_authenticated and self.outbox.add(message, now)

    def data_to_send(self, now: float) -> bytes:
        """Return the bytes that leave now, sealed; empty when nothing may."""
        if self.is_closed:
            return b""
        bodies, queued_at = self.outbox.get_next_batch_to_send(
            self.config.max_batch_write_count, self.config.max_batch_write_bytes, now
        )
        if not bodies:
            return b""
        self.clocks.last_queued_at = queued_at
        return self._seal(bodies)

    def note_written(self, now: float) -> None:
        """Note that the transport took everything it was given."""
        self.clocks.last_write = now

    def close(self, violation: PeerViolation, now: float, *, may_flush: bool = True) -> bytes:
        """End the link; return its last bytes: what may still leave, then ERROR_MSG if due.

        :param may_flush: whether anything but the ERROR_MSG is worth sending.
        """
        last = self.data_to_send(now) if may_flush else b""
        if violation.code is not None and not self.is_closed:
            last += frame(wrap_unauthenticated(encode_error(violation.code, violation.reason)))
        self.is_closed = True
        self.outbox.clear()
        self._opened = []
        self._frames = FrameBuffer()
        return last

    def lost(self, text: str) -> PeerViolation:
        """Return the reason for which the link ended when its transport did."""
        reason = DropReason.LOST_IN_BODY if self._frames.is_in_record else DropReason.LOST_AT_HEADER
        return reason.violation(text=text)

    # Settings that follow the ledger.

    def set_max_tx_size(self, max_tx_size: int, now: float) -> None:
        """Follow the network's largest transaction; growth is granted to the peer at once."""
        self._now = now
        increase = max_tx_size - self.flow_control.max_tx_size
        if increase > 0 and self.is_authenticated:
            self._grant(self.flow_control.handle_tx_size_increase(increase))
        else:
            self.flow_control.max_tx_size = max_tx_size

    # Time.

    @property
    def deadline(self) -> float:
        """When :meth:`on_deadline` is due, in seconds of the injected clock."""
        return self.clocks.deadline

    def on_deadline(self, now: float) -> None:
        """Look at the clocks, ping, and set the next :attr:`deadline`.

        :raises PeerViolation: when the peer has been silent, stingy or slow for too long.
        """
        if self.is_closed:
            return
        self._now = now
        clocks = self.clocks
        clocks.rearm(now)
        clocks.check_idle(now, is_authenticated=self.is_authenticated)
        if not self.may_read:
            self._excuse(now)
        if self.flow_control.no_outbound_capacity_timeout(now):
            raise DropReason.NO_FLOOD_REQUESTS.violation()
        clocks.check_straggling(now)
        if self.is_authenticated and clocks.may_ping(now):
            item_hash = self.auth.local_node.token_bytes(8) + bytes(24)
            clocks.note_ping(item_hash, now)
            self._send_control(Message(encode_hash_query(MessageType.GET_SCP_QUORUMSET, item_hash)))

    def _excuse(self, now: float) -> None:
        """Hold nothing against a peer that we do not read: its grants and answers may be waiting.

        A new ping instead of the one whose answer we cannot hear keeps the link from idling.
        """
        if self.flow_control.no_capacity_since is not None:
            self.flow_control.no_capacity_since = now
        self.clocks.forget_ping()

    # From records to items.

    def _open(self) -> None:
        """Open every complete record; a violation is kept until those before it are done."""
        frames, auth = self._frames, self.auth
        before = 0 if auth.is_authenticated else len(frames)
        try:
            if not auth.is_authenticated:
                self._shake_hands()
            if auth.is_authenticated:
                assert auth.opening is not None
                auth.opening.open_records(frames, self._opened, _ALL)
        except PeerViolation as violation:
            self._violation = violation
        if self._opened or len(frames) < before:
            self.clocks.last_read = self._now

    def _shake_hands(self) -> None:
        """Go through the handshake, record by record, until it is done or bytes are missing."""
        while not self.auth.is_authenticated:
            record = self._frames.next_record()
            if record is None:
                return
            opening = self.auth.opening
            opened = unwrap_unauthenticated(record) if opening is None else opening.open(record)
            message = Message(opened[1])
            check_legal(self.auth.state, message.type)
            _check_structure(message.body)
            if message.type is MessageType.ERROR_MSG:
                raise PeerError(*decode_error(message.body))
            self._handshake.receive(message)
        self._is_admitted = True
        self._frames.limit = MAX_MESSAGE_SIZE
        self._grant(self.flow_control.initial_grant())
        self._send_control(Message(encode_get_scp_state(self._gate.scp_state_from())))

    # From items to messages.

    def _judge(self, items: list[Item]) -> list[Item]:
        """Return the items to dispatch: legal, well-formed, and not the session's own."""
        is_known = self._is_known
        own: list[int] = []  # their indices
        index = -1
        try:
            for index, (kind, body) in enumerate(items):
                if kind in _RELAYED:
                    if not is_known(body):
                        xdr_check.check(body)
                elif not self._is_for_others(kind, body):
                    own.append(index)
        except XdrError as error:
            del items[index:]
            self._fail(DropReason.CORRUPT_XDR.violation(str(error)))
        except PeerViolation as violation:
            del items[index:]
            self._fail(violation)
        if own:
            self._end([items[index] for index in own])
            for index in reversed(own):
                del items[index]
        return items

    def _is_for_others(self, kind: int, body: bytes) -> bool:
        """Act on what concerns the link itself; tell whether anybody else wants the message."""
        message_type = MESSAGE_TYPES.get(kind)
        if message_type is None:
            raise DropReason.CORRUPT_XDR.violation(f"unknown message type {kind}")
        check_legal(self.auth.state, message_type)
        if message_type is MessageType.SEND_MORE:
            raise DropReason.SEND_MORE.violation()
        if message_type is MessageType.PEERS:
            self._check_peers_allowed()
        xdr_check.check(body)
        match message_type:
            case MessageType.SEND_MORE_EXTENDED:
                self._take_grant(*decode_send_more_extended(body))
                return False
            case MessageType.ERROR_MSG:
                raise PeerError(*decode_error(body))
            case MessageType.DONT_HAVE:
                return not self.clocks.note_pong(decode_dont_have(body)[1], self._now)
            case MessageType.SCP_QUORUMSET if self.clocks.awaits_pong:
                self.clocks.note_pong(hashlib.sha256(body[4:]).digest(), self._now)
        return True

    def _take_grant(self, messages: int, size: int) -> None:
        stalled = self.flow_control.maybe_release_capacity(messages, size, self._now)
        if stalled:
            self.metrics.connection_flood_throttle.record(stalled)

    def _check_peers_allowed(self) -> None:
        if not self.auth.we_called_remote:
            raise DropReason.PEERS_FROM_CALLER.violation()
        if self._has_received_peers:
            raise DropReason.TOO_MANY_PEERS.violation()
        self._has_received_peers = True

    def _fail(self, violation: PeerViolation) -> None:
        """Let nothing that came after the message at fault be looked at."""
        self._violation = violation
        self._opened = []

    def _end(self, items: Sequence[Item]) -> None:
        for grant in self.flow_control.end(items):
            self._grant(grant)

    # Out.

    def _grant(self, grant: SendMoreCapacity) -> None:
        if grant.should_send:
            self.outbox.add_grant(grant, self._now)

    def _send_control(self, message: Message) -> None:
        self.outbox.add_control(message.body, self._now)

    def _seal(self, bodies: list[bytes]) -> bytes:
        parts: list[bytes] = []
        if bodies[0][3] == MessageType.HELLO:  # only ever the first message of a link
            parts.append(frame(wrap_unauthenticated(bodies.pop(0))))
        if bodies:
            assert self.auth.sealing is not None
            self.auth.sealing.seal_into(parts, bodies)
        return b"".join(parts)


def _check_structure(body: bytes) -> None:
    try:
        xdr_check.check(body)
    except XdrError as error:
        raise DropReason.CORRUPT_XDR.violation(str(error)) from error
