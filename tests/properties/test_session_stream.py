"""A session over any stream: how it is cut does not matter, and no bit of it may be turned."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate, cycle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE
from stellar_overlay.wire.message import (
    Hello,
    MessageType,
    PeerEntry,
    encode_auth,
    encode_dont_have,
    encode_get_scp_state,
    encode_send_more_extended,
)
from tests.builders import (
    OpenGate,
    advert,
    demand,
    error_record,
    get_tx_set,
    quorum_set,
    scp_nominate,
    scp_prepare,
    transaction,
)
from tests.by_hand import BAD, STATES, ByHand, well_made
from tests.pair import Pair

TRAFFIC = (
    get_tx_set(1).body,
    advert(1).body,
    advert(2, hashes=30).body,
    demand(3).body,
    transaction(500).body,
    quorum_set(3).body,
    scp_prepare().body,
    scp_nominate(votes=(b"a", b"bcd")).body,
    encode_dont_have(10, bytes(32)),
    encode_send_more_extended(5, 1000),
    encode_get_scp_state(7),
)
"""What a peer may say after AUTH."""

bodies = st.lists(st.sampled_from(TRAFFIC), max_size=25)
sizes = st.lists(st.integers(1, 300), min_size=1, max_size=12)


@dataclass(frozen=True)
class Result:
    """What came of a stream: messages dispatched, the reason for the end, all bytes sent."""

    messages: tuple[bytes, ...]
    reason: str | None
    sent: bytes


class Replay:
    """A session that hears a stream which was made for one just like it."""

    def __init__(self, *, calls: bool) -> None:
        self.mouth = new_hand(calls=calls)

    def hear(self, stream: bytes, pieces: list[int] | None = None) -> None:
        """Receive the stream in pieces of these sizes, over and over; or all of it at once."""
        pair, side = self.mouth.pair, self.mouth.side
        at, cuts = 0, cycle(pieces or [len(stream) or 1])
        while at < len(stream):
            size = next(cuts)
            pair.feed(side, stream[at : at + size])
            pair.flush(side)
            at += size

    @property
    def result(self) -> Result:
        """What has come of it so far."""
        side = self.mouth.side
        messages = tuple(message.body for message in side.messages)
        return Result(messages, side.reason, bytes(side.sent))


def new_hand(*, calls: bool) -> ByHand:
    """Return a hand before a session that is the same each time."""
    gate = OpenGate(peers=(PeerEntry("1.1.1.1", 11625),))
    return ByHand(Pair(gates=(gate, gate)), calls=calls)


def speech(
    traffic: list[bytes], *, calls: bool, fault: str | None = None, at: int = 0
) -> list[bytes]:
    """Return the records of a handshake and traffic, perhaps with a fault before the ``at``-th."""
    mouth = new_hand(calls=calls)
    records = [mouth.hello()]
    mouth.say(records[0])
    for number, body in enumerate((encode_auth(), *traffic)):
        if fault is not None and number == min(at, len(traffic)):
            records.append(BAD[fault][0](mouth))
        records.append(mouth.sealed(body))
    return records


def play(stream: bytes, pieces: list[int] | None = None, *, calls: bool) -> Result:
    """Return what comes of a stream that is cut like this."""
    replay = Replay(calls=calls)
    replay.hear(stream, pieces)
    return replay.result


class ChunkingTests(SynchronousTestCase):
    """However a stream is cut, the same comes of it.

    But for credit: a peer that sends ahead of its grants is ahead or not by what was read so far
    (DECISIONS 3b), so these streams stay within the first grant.
    """

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(bodies, sizes, st.booleans())
    def test_good_stream(self, traffic: list[bytes], pieces: list[int], calls: bool) -> None:
        """A good session is dispatched whole, and answered with the same bytes."""
        stream = b"".join(speech(traffic, calls=calls))
        whole = play(stream, calls=calls)
        own = MessageType.SEND_MORE_EXTENDED
        expected = tuple(body for body in traffic if body[3] != own)
        self.assertEqual((whole.messages, whole.reason), (expected, None))
        self.assertEqual(play(stream, pieces, calls=calls), whole)

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(bodies, sizes, st.booleans(), st.sampled_from(sorted(BAD)), st.integers(0, 25))
    def test_stream_with_a_fault(
        self, traffic: list[bytes], pieces: list[int], calls: bool, fault: str, at: int
    ) -> None:
        """With a fault anywhere after HELLO: the same messages, reason and bytes."""
        stream = b"".join(speech(traffic, calls=calls, fault=fault, at=at))
        whole = play(stream, calls=calls)
        self.assertEqual(play(stream, pieces, calls=calls), whole)
        if fault != "AUTH" or at > 0:  # an AUTH in place of the AUTH is none
            self.assertIsNotNone(whole.reason)

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.binary(max_size=300), sizes, st.booleans(), st.sampled_from(STATES))
    def test_noise(self, noise: bytes, pieces: list[int], calls: bool, state: AuthState) -> None:
        """Noise in any state: the same reason, whatever it is, and no message."""
        prefix = b"".join(speech([], calls=calls)[: STATES.index(state)])
        whole = play(prefix + noise, calls=calls)
        self.assertEqual(play(prefix + noise, pieces, calls=calls), whole)
        self.assertEqual(whole.messages, ())

    def test_byte_by_byte(self) -> None:
        """One byte at a time, with every fault, through several grants."""
        traffic = [*TRAFFIC, *(advert(number).body for number in range(90)), *TRAFFIC]
        for calls in (True, False):
            for fault in (None, *BAD):
                stream = b"".join(speech(traffic, calls=calls, fault=fault, at=100))
                whole = play(stream, calls=calls)
                pieces = [1] if fault in (None, "MAC", "error") else [3]
                self.assertEqual(play(stream, pieces, calls=calls), whole, fault)


class SealedNoiseTests(SynchronousTestCase):
    """What a peer seals well may be anything."""

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(
        st.one_of(st.sampled_from(sorted(MessageType)), st.integers(0, 40)),
        st.binary(max_size=120),
        st.sampled_from(STATES),
        st.booleans(),
    )
    def test_any_body(self, kind: int, rest: bytes, state: AuthState, calls: bool) -> None:
        """Any type and bytes behind it are dispatched whole or end the link; nothing escapes."""
        mouth = new_hand(calls=calls).go_to(state)
        body = struct.pack(">I", kind) + rest
        mouth.say(well_made(mouth, body))
        messages = [message.body for message in mouth.side.messages]
        if mouth.side.violation is None:
            self.assertIn(messages, ([body], []))
        else:
            self.assertIsNotNone(mouth.side.kind)
            self.assertEqual(messages, [])


@dataclass(frozen=True)
class Turned:
    """A stream with one bit turned: in which record, and where in it."""

    stream: bytes
    record: int
    offset: int
    bit: int

    @property
    def is_mark_bit(self) -> bool:
        """Whether it is bit 31 of a mark, which means nothing."""
        return self.offset == 0 and self.bit == 7

    @property
    def is_length(self) -> bool:
        """Whether it changes where the record ends."""
        return self.offset < 4 and not self.is_mark_bit


def turn(records: list[bytes], position: int) -> Turned:
    """Turn one bit, counted from the first and around."""
    stream = bytearray(b"".join(records))
    position %= 8 * len(stream)
    at, bit = divmod(position, 8)
    stream[at] ^= 1 << bit
    ends = list(accumulate(len(record) for record in records))
    record = next(number for number, end in enumerate(ends) if at < end)
    return Turned(bytes(stream), record, at - ends[record] + len(records[record]), bit)


class TurnedBitTests(SynchronousTestCase):
    """Whatever bit is turned on the way, the link ends; or it is known why not."""

    REASONS = frozenset(
        {DropReason.CORRUPT_XDR, DropReason.UNEXPECTED_SEQUENCE, DropReason.UNEXPECTED_MAC}
    )
    UNVERIFIED = frozenset({DropReason.CORRUPT_XDR, DropReason.REMOTE_ERROR})
    """What becomes of an ERROR_MSG: its number, MAC and text are nobody's business."""

    def _end(self, replay: Replay, turned: Turned) -> None:
        """Assert the end of a link; a record that seems longer first gets what it waits for."""
        side = replay.mouth.side
        if side.violation is None and turned.is_length:
            replay.hear(bytes(MAX_MESSAGE_SIZE))
        self.assertIsNotNone(side.violation, turned)

    @settings(max_examples=250, derandomize=True, deadline=None)
    @given(bodies, st.integers(0, 10**6), st.booleans(), st.booleans())
    def test_after_hello(
        self, traffic: list[bytes], position: int, calls: bool, has_error: bool
    ) -> None:
        """A bit of any record after HELLO: nothing from that record on is dispatched."""
        first, *records = speech(traffic, calls=calls)
        if has_error:
            records.append(error_record(0, b"shutdown"))
        turned = turn(records, position)
        clean, replay = play(first + b"".join(records), calls=calls), Replay(calls=calls)
        replay.hear(first + turned.stream)
        if turned.is_mark_bit:
            self.assertEqual(replay.result, clean)
            return
        own = MessageType.SEND_MORE_EXTENDED
        expected = [body for body in traffic[: max(0, turned.record - 1)] if body[3] != own]
        self.assertEqual(list(replay.result.messages), expected)
        self._end(replay, turned)
        self.assertEqual(list(replay.result.messages), expected)
        if not turned.is_length:
            is_error = has_error and turned.record == len(records) - 1
            allowed = self.REASONS | self.UNVERIFIED if is_error else self.REASONS
            self.assertIn(replay.mouth.side.kind, allowed)

    @settings(max_examples=250, derandomize=True, deadline=None)
    @given(st.integers(0, 10**6), st.booleans())
    def test_in_hello(self, position: int, calls: bool) -> None:
        """A bit of HELLO: the link never gets past AUTH, unless it is one that nobody signed."""
        first, *records = speech([TRAFFIC[0]], calls=calls)
        turned = turn([first], position)
        replay = Replay(calls=calls)
        replay.hear(turned.stream + b"".join(records))
        if not (turned.is_mark_bit or turned.offset in unsigned_bytes(first)):
            self._end(replay, turned)
        is_open = replay.mouth.side.violation is None
        self.assertEqual(replay.result.messages, (TRAFFIC[0],) if is_open else ())


def unsigned_bytes(record: bytes) -> set[int]:
    """Return where in a HELLO's record, mark and all, is what no certificate or key depends on."""
    text = Hello.decode(record[16:-32]).version_string
    port_at = 68 + len(text) + -len(text) % 4
    spans = {
        "number": range(8, 16),
        "ledger version": range(20, 24),
        "overlay versions": range(24, 32),
        "version string and its length": range(64, 68 + len(text)),
        "listening port": range(port_at, port_at + 4),
        "MAC": range(len(record) - 32, len(record)),
    }
    return {at for span in spans.values() for at in span}
