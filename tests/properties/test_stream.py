"""Whatever happens to a stream of bytes: chopped, altered, cut short, or with records missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import accumulate, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.wire import message as layout
from stellar_overlay.wire.channel import OpeningKey, SealingKey
from stellar_overlay.wire.codec import (
    MAX_MESSAGE_SIZE,
    MAX_UNAUTHENTICATED_SIZE,
    FrameBuffer,
    frame,
)
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import advert, demand, get_tx_set, load_vectors
from tests.pair import Pair, authenticated_pair

KEY = hashlib.sha256(b"key").digest()
TRANSACTION = next(
    Message(bytes.fromhex(vector["hex"]))
    for vector in load_vectors("xdr-vectors")["vectors"]
    if vector["name"] == "TRANSACTION_payment_v1"
)
MESSAGES = [advert(1), get_tx_set(2), TRANSACTION, demand(3, 3), advert(4, 2), get_tx_set(5)]
"""What an honest peer sends behind the handshake, in the tests of a whole session."""

MODEST = settings(max_examples=100, derandomize=True, deadline=None)
THOROUGH = settings(max_examples=300, derandomize=True, deadline=None)

BODIES = st.lists(st.binary(min_size=1, max_size=150), max_size=12)
BAD_LENGTHS = st.sampled_from([0, MAX_UNAUTHENTICATED_SIZE + 1, MAX_MESSAGE_SIZE + 1, 2**31 - 1])
SEALABLE = st.lists(
    st.builds(
        lambda kind, words: kind.to_bytes(4, "big") + bytes(4 * words),
        st.sampled_from([kind for kind in MessageType if kind is not MessageType.ERROR_MSG]),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=8,
)

CUTS = st.lists(st.floats(0, 1), max_size=20).map(sorted)
"""Places, as fractions of a stream, where it is cut."""

Outcome = tuple[list[bytes], DropReason | None]


def pieces(stream: bytes, places: Iterable[float]) -> list[bytes]:
    """Chop a stream at some fractions of its length."""
    bounds = [0, *(round(place * len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


def cut(chopped: Iterable[bytes]) -> Outcome:
    """Return the records of a stream and the reason why it ended, if it did."""
    frames = FrameBuffer()
    found: list[bytes] = []
    try:
        for piece in chopped:
            frames.feed(piece)
            while (record := frames.next_record()) is not None:
                found.append(record)
    except PeerViolation as violation:
        return found, violation.kind
    return found, None


def open_pieces(chopped: Iterable[bytes]) -> Outcome:
    """Return the messages of a sealed stream as a session opens them, and why it ended."""
    frames, opening = FrameBuffer(MAX_MESSAGE_SIZE), OpeningKey(KEY)
    opened: list[tuple[int, bytes]] = []
    reason = None
    try:
        for piece in chopped:
            frames.feed(piece)
            opening.open_records(frames, opened, 1000)
    except PeerViolation as violation:
        reason = violation.kind
    return [body for _, body in opened], reason


def open_singly(stream: bytes) -> Outcome:
    """The same, record by record."""
    frames, opening = FrameBuffer(MAX_MESSAGE_SIZE), OpeningKey(KEY)
    opened: list[bytes] = []
    try:
        frames.feed(stream)
        while (record := frames.next_record()) is not None:
            opened.append(opening.open(record)[1])
    except PeerViolation as violation:
        return opened, violation.kind
    return opened, None


def seal(bodies: Iterable[bytes]) -> list[bytes]:
    """Return the records of bodies, numbered from 0."""
    sealing = SealingKey(KEY)
    return [sealing.seal(body) for body in bodies]


def flip(data: bytes, bit: int) -> bytes:
    """Return data with one bit turned, counted from the first byte's highest."""
    flipped = bytearray(data)
    flipped[bit // 8] ^= 0x80 >> bit % 8
    return bytes(flipped)


class ChoppingTests(SynchronousTestCase):
    """How a stream is chopped into reads means nothing."""

    @THOROUGH
    @given(BODIES, st.none() | BAD_LENGTHS, st.booleans(), CUTS)
    def test_records(
        self, bodies: list[bytes], bad: int | None, has_bit: bool, places: list[float]
    ) -> None:
        """Any chopping gives the same records and then the same error."""
        stream = b"".join(map(frame, bodies))
        if bad is not None:
            stream += (bad | has_bit << 31).to_bytes(4, "big") + b"never looked at"
        expected = bodies, None if bad is None else DropReason.READ_ERROR
        self.assertEqual(cut(pieces(stream, places)), expected)
        self.assertEqual(cut(stream[at : at + 1] for at in range(len(stream))), expected)

    @THOROUGH
    @given(SEALABLE, CUTS)
    def test_sealed_messages(self, bodies: list[bytes], places: list[float]) -> None:
        """Any chopping of a sealed stream opens to the same messages."""
        stream = b"".join(seal(bodies))
        self.assertEqual(open_pieces(pieces(stream, places)), (bodies, None))

    @THOROUGH
    @given(SEALABLE, st.floats(0, 1, exclude_max=True), CUTS)
    def test_altered_stream(self, bodies: list[bytes], where: float, places: list[float]) -> None:
        """Any chopping of an altered stream opens as far, and ends for the same reason.

        Record by record too: the loop for many records judges as the method for one.
        """
        stream = b"".join(seal(bodies))
        stream = flip(stream, int(where * len(stream) * 8))
        expected = open_singly(stream)
        self.assertEqual(open_pieces([stream]), expected)
        self.assertEqual(open_pieces(pieces(stream, places)), expected)


class TamperingTests(SynchronousTestCase):
    """Whatever somebody on the path does to an authenticated link, the link ends (M-08)."""

    def setUp(self) -> None:
        pair = authenticated_pair()
        for message in MESSAGES:
            pair.caller.session.send(message, pair.now)
        stream = pair.caller.session.data_to_send(pair.now)
        frames = FrameBuffer(MAX_MESSAGE_SIZE)
        frames.feed(stream)
        self.records = [frame(frames.next_record() or b"") for _ in MESSAGES]
        self.starts = [0, *accumulate(map(len, self.records))]
        by_body = {message.body: message for message in MESSAGES}
        self.messages = [by_body[record[16:-32]] for record in self.records]
        self.assertEqual(b"".join(self.records), stream)

    def receive(self, stream: bytes) -> Pair:
        """Return a pair like that of the stream, whose callee has received it instead."""
        pair = authenticated_pair()
        pair.callee.messages.clear()
        pair.feed(pair.callee, stream)
        return pair

    def assert_ends(self, stream: bytes, intact: int, *reasons: DropReason) -> None:
        """Assert that a stream delivers its first messages and then ends the link.

        Where it seems to want more, more comes: no claim of a length goes unnoticed for ever.
        """
        pair = self.receive(stream)
        if pair.callee.violation is None:
            pair.feed(pair.callee, bytes(MAX_MESSAGE_SIZE + 4))
        self.assertIn(pair.callee.kind, reasons)
        self.assertEqual(pair.callee.messages, self.messages[:intact])
        self.assertTrue(pair.callee.session.is_closed)

    def test_untouched(self) -> None:
        """The stream as it was sent delivers everything."""
        pair = self.receive(b"".join(self.records))
        self.assertEqual((pair.callee.messages, pair.callee.violation), (self.messages, None))

    @THOROUGH
    @given(st.data())
    def test_flipped_bit(self, data: st.DataObject) -> None:
        """Any flipped bit but bit 31 of a mark ends the link, for the reason of its place."""
        index = data.draw(st.integers(0, len(self.records) - 1))
        record = self.records[index]
        head, tail = st.integers(1, 20 * 8 - 1), st.integers(1, len(record) * 8 - 1)
        bit = data.draw(head | tail)
        bad = flip(record, bit)
        kind = int.from_bytes(bad[16:20], "big")
        reasons = {DropReason.UNEXPECTED_MAC}
        if bit < 32:
            reasons |= {DropReason.READ_ERROR, DropReason.CORRUPT_XDR}
        elif bit < 64 or kind not in layout.MESSAGE_TYPES:
            reasons = {DropReason.CORRUPT_XDR}
        elif bit < 128:
            reasons = {DropReason.UNEXPECTED_SEQUENCE}
        elif kind == MessageType.ERROR_MSG:
            reasons = {DropReason.CORRUPT_XDR, DropReason.REMOTE_ERROR}
        stream = b"".join((*self.records[:index], bad, *self.records[index + 1 :]))
        self.assert_ends(stream, index, *reasons)

    def test_bit_31_of_each_mark(self) -> None:
        """Bit 31 of the marks alone may be turned by anybody; it means nothing."""
        pair = self.receive(b"".join(flip(record, 0) for record in self.records))
        self.assertEqual((pair.callee.messages, pair.callee.violation), (self.messages, None))

    def test_dropped_record(self) -> None:
        """A missing record shows at the next one; the last one, at whatever follows."""
        for index in range(len(self.records) - 1):
            stream = b"".join(self.records[:index] + self.records[index + 1 :])
            self.assert_ends(stream, index, DropReason.UNEXPECTED_SEQUENCE)

    def test_repeated_record(self) -> None:
        """A record that comes twice, at once or later, is refused the second time."""
        for index, record in enumerate(self.records):
            for at in range(index + 1, len(self.records) + 1):
                stream = b"".join((*self.records[:at], record, *self.records[at:]))
                self.assert_ends(stream, at, DropReason.UNEXPECTED_SEQUENCE)

    def test_swapped_records(self) -> None:
        """Two records that change places are refused at the first of the two places."""
        for first in range(len(self.records)):
            for second in range(first + 1, len(self.records)):
                records = list(self.records)
                records[first], records[second] = records[second], records[first]
                self.assert_ends(b"".join(records), first, DropReason.UNEXPECTED_SEQUENCE)

    @MODEST
    @given(st.data())
    def test_missing_bytes(self, data: st.DataObject) -> None:
        """Bytes cut out of the middle of the stream are noticed where they are missing."""
        stream = b"".join(self.records)
        start = data.draw(st.integers(0, len(stream) - 1))
        end = data.draw(st.integers(start + 1, len(stream)))
        if start in self.starts and end in self.starts:
            return  # whole records: see above
        intact = max(i for i, at in enumerate(self.starts) if at <= start)
        self.assert_ends(
            stream[:start] + stream[end:],
            intact,
            DropReason.READ_ERROR,
            DropReason.CORRUPT_XDR,
            DropReason.UNEXPECTED_SEQUENCE,
            DropReason.UNEXPECTED_MAC,
            DropReason.REMOTE_ERROR,
        )

    def test_end_of_the_stream(self) -> None:
        """Wherever the stream stops, all whole records before are delivered, and nothing else."""
        stream = b"".join(self.records)
        for end in range(0, len(stream), 5):
            whole = max(i for i, at in enumerate(self.starts) if at <= end)
            pair = self.receive(stream[:end])
            self.assertEqual(pair.callee.messages, self.messages[:whole])
            self.assertIsNone(pair.callee.violation)

    def test_record_of_another_link(self) -> None:
        """A record with the right number from another link of the same nodes is refused."""
        for number, record in enumerate(self.records):
            other = SealingKey(KEY)
            other.sequence = int.from_bytes(record[8:16], "big")
            stolen = other.seal(record[16:-32])
            stream = b"".join((*self.records[:number], stolen, *self.records[number:]))
            self.assert_ends(stream, number, DropReason.UNEXPECTED_MAC)
