"""Record marks and length limits, and a stream that is cut anywhere."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.wire.codec import (
    LENGTH_MASK,
    MARK_BIT,
    MAX_MESSAGE_SIZE,
    MAX_UNAUTHENTICATED_SIZE,
    FrameBuffer,
    frame,
)

MIB = 1024 * 1024
BODIES = [bytes([n]) * size for n, size in enumerate((4, 48, 4096, 52, 1000, 48), start=1)]
STREAM = b"".join(map(frame, BODIES))


def mark(length: int, *, bit: int = MARK_BIT) -> bytes:
    """Return a record mark."""
    return (length | bit).to_bytes(4, "big")


def records(frames: FrameBuffer) -> Iterator[bytes]:
    """Take out every complete record."""
    while (record := frames.next_record()) is not None:
        yield record


def cut(pieces: Iterable[bytes], limit: int = MAX_UNAUTHENTICATED_SIZE) -> list[bytes]:
    """Feed pieces one by one; return all records that come out."""
    frames = FrameBuffer(limit)
    found: list[bytes] = []
    for piece in pieces:
        frames.feed(piece)
        found += records(frames)
    return found


def pieces_of(stream: bytes, size: int) -> list[bytes]:
    """Chop a stream into pieces of one size."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


class RecordMarkTests(SynchronousTestCase):
    """The four bytes before each body (connection.md 1.1)."""

    def test_mark_is_length_with_bit_31(self) -> None:
        """What we send carries the body's length with bit 31 set, whatever the length."""
        for size in (1, 4, 48, 4096, 70_000):
            self.assertEqual(frame(bytes(size)), mark(size) + bytes(size))

    def test_constants(self) -> None:
        """The limits and bits are those of the protocol."""
        self.assertEqual((MAX_UNAUTHENTICATED_SIZE, MAX_MESSAGE_SIZE), (4096, 16_777_216))
        self.assertEqual((MARK_BIT, LENGTH_MASK), (1 << 31, (1 << 31) - 1))

    def test_bit_31_has_no_meaning(self) -> None:
        """Row 4: a record whose bit 31 is clear is a complete one, among others with it set."""
        clear = mark(4, bit=0) + b"abcd"
        self.assertEqual(cut([clear + frame(b"efgh") + clear]), [b"abcd", b"efgh", b"abcd"])

    def test_body_may_look_like_a_mark(self) -> None:
        """What is inside a body is never taken for a mark."""
        body = mark(0) + mark(LENGTH_MASK)
        self.assertEqual(cut(pieces_of(frame(body) * 3, 1)), [body] * 3)


class LengthTests(SynchronousTestCase):
    """Which lengths are legal when (rows 1-3), and that they are judged by the mark alone."""

    def assert_refused(self, frames: FrameBuffer, length: int) -> None:
        with self.assertRaises(PeerViolation) as caught:
            frames.next_record()
        violation = caught.exception
        self.assertEqual(
            (violation.kind, violation.reason, violation.code),
            (DropReason.READ_ERROR, "error during read", None),
        )
        self.assertIn(f"{length} bytes", violation.detail)

    def test_illegal_lengths_before_authentication(self) -> None:
        """Rows 1 and 2: 0 and all beyond 4,096 are refused as soon as the mark is there."""
        for bit in (0, MARK_BIT):
            for length in (0, 4097, 4100, MAX_MESSAGE_SIZE, MAX_MESSAGE_SIZE + 1, LENGTH_MASK):
                frames = FrameBuffer()
                frames.feed(mark(length, bit=bit))
                self.assert_refused(frames, length)

    def test_illegal_lengths_after_authentication(self) -> None:
        """Rows 1 and 3: 0 and all beyond 16 MiB are refused as soon as the mark is there."""
        for length in (0, MAX_MESSAGE_SIZE + 1, MAX_MESSAGE_SIZE + 4, LENGTH_MASK):
            frames = FrameBuffer(MAX_MESSAGE_SIZE)
            frames.feed(mark(length))
            self.assert_refused(frames, length)

    def test_mark_that_comes_byte_by_byte(self) -> None:
        """Three bytes of a bad mark are waited for; with the fourth it is refused."""
        frames = FrameBuffer()
        for byte in mark(4097)[:3]:
            frames.feed(bytes([byte]))
            self.assertIsNone(frames.next_record())
        frames.feed(mark(4097)[3:])
        self.assert_refused(frames, 4097)

    def test_largest_legal_records(self) -> None:
        """4,096 bytes before and exactly 16 MiB after authentication are taken."""
        for limit in (MAX_UNAUTHENTICATED_SIZE, MAX_MESSAGE_SIZE):
            [record] = cut([frame(bytes(limit))], limit)
            self.assertEqual(len(record), limit)

    def test_smallest_record_is_one_byte(self) -> None:
        """Core has no minimum but 0: what a short record means is judged by the envelope."""
        self.assertEqual(cut([frame(b"x")]), [b"x"])

    def test_limit_rises_between_two_records(self) -> None:
        """A long record right behind a short one is judged by the limit when its turn comes."""
        frames = FrameBuffer()
        frames.feed(frame(b"auth") + frame(bytes(5000)))
        self.assertEqual(frames.next_record(), b"auth")
        frames.limit = MAX_MESSAGE_SIZE
        self.assertEqual(frames.next_record(), bytes(5000))

    def test_good_records_before_a_bad_mark_come_out(self) -> None:
        """What precedes an illegal length is complete and comes out first."""
        frames = FrameBuffer()
        frames.feed(frame(b"good") + mark(0) + frame(b"lost"))
        self.assertEqual(frames.next_record(), b"good")
        self.assert_refused(frames, 0)

    def test_refusal_lasts(self) -> None:
        """Row 3: nothing behind an illegal length is ever parsed, whatever else arrives."""
        frames = FrameBuffer(MAX_MESSAGE_SIZE)
        frames.feed(mark(MAX_MESSAGE_SIZE + 1))
        self.assert_refused(frames, MAX_MESSAGE_SIZE + 1)
        frames.feed(frame(b"good"))
        self.assert_refused(frames, MAX_MESSAGE_SIZE + 1)


class ChoppedStreamTests(SynchronousTestCase):
    """The same bytes give the same records, however they arrive (rows 9, 13, 14)."""

    def test_all_at_once(self) -> None:
        """One read may hold many records."""
        self.assertEqual(cut([STREAM]), BODIES)

    def test_equal_pieces(self) -> None:
        """Pieces of 1 to 64 bytes, among them each possible split of a mark, change nothing."""
        for size in range(1, 65):
            self.assertEqual(cut(pieces_of(STREAM, size)), BODIES, f"pieces of {size}")

    def test_each_split_in_two(self) -> None:
        """A stream that is cut once, at any place, gives the same records."""
        stream = b"".join(map(frame, BODIES[:2]))
        for at in range(len(stream) + 1):
            self.assertEqual(cut([stream[:at], stream[at:]]), BODIES[:2], f"cut at {at}")

    def test_empty_reads(self) -> None:
        """Empty reads between the others change nothing."""
        chopped = [piece for byte in pieces_of(STREAM, 7) for piece in (b"", byte, b"")]
        self.assertEqual(cut(chopped), BODIES)

    def test_several_reads_before_the_first_look(self) -> None:
        """Reads may pile up, as they do while capacity is spent; nothing is lost or reordered."""
        for size in (1, 3, 60, 5000):
            frames = FrameBuffer()
            for piece in pieces_of(STREAM, size):
                frames.feed(piece)
            self.assertEqual(len(frames), len(STREAM))
            self.assertEqual(list(records(frames)), BODIES)

    def test_read_between_two_looks(self) -> None:
        """A read that comes while some records are taken out, and some not, goes behind them."""
        frames = FrameBuffer()
        found = []
        for at, piece in enumerate(pieces_of(STREAM, 1500)):
            frames.feed(piece)
            if at % 2:
                found.append(frames.next_record())
        self.assertEqual([*found, *records(frames)], BODIES)

    def test_incomplete_record_is_waited_for(self) -> None:
        """Row 14: all but the last byte of a record gives nothing yet, and no error."""
        frames = FrameBuffer()
        frames.feed(frame(bytes(100))[:-1])
        self.assertIsNone(frames.next_record())
        self.assertIsNone(frames.next_record())
        frames.feed(b"!")
        self.assertEqual(frames.next_record(), bytes(99) + b"!")

    def test_where_the_stream_ended(self) -> None:
        """Row 13: after part of a mark it ended in a header; after a whole mark, in a body."""
        frames = FrameBuffer()
        expected = [(0, False), (1, False), (2, False), (3, False), (4, True), (5, True)]
        seen = [(len(frames), frames.is_in_record)]
        for byte in pieces_of(mark(48) + b"x", 1):
            frames.feed(byte)
            self.assertIsNone(frames.next_record())
            seen.append((len(frames), frames.is_in_record))
        self.assertEqual(seen, expected)

    def test_length_counts_what_is_not_taken_out(self) -> None:
        """``len()`` is what was received and is not part of a record that was taken out."""
        frames = FrameBuffer()
        frames.feed(frame(b"abcd") + frame(b"efgh") + b"\x80\0")
        left = [len(frames)]
        for _ in range(3):
            frames.next_record()
            left.append(len(frames))
        self.assertEqual(left, [18, 10, 2, 2])

    def test_has_record(self) -> None:
        """There is something to look at until a look found it incomplete, and then with more."""
        frames = FrameBuffer()
        self.assertFalse(frames.has_record)
        frames.feed(frame(b"abcd") + mark(4) + b"ef")
        self.assertTrue(frames.has_record)
        self.assertEqual(list(records(frames)), [b"abcd"])
        self.assertFalse(frames.has_record)
        frames.feed(b"gh")
        self.assertTrue(frames.has_record)


class CostTests(SynchronousTestCase):
    """Memory by what arrived, work by its length."""

    def test_claim_allocates_nothing(self) -> None:
        """A mark that claims 16 MiB costs no memory before the bytes arrive."""
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            links = [FrameBuffer(MAX_MESSAGE_SIZE) for _ in range(50)]
            for frames in links:
                frames.feed(mark(MAX_MESSAGE_SIZE))
                self.assertIsNone(frames.next_record())
            grown = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        self.assertLess(grown, 50 * 2048)

    def test_tiny_segments_cost_what_they_hold(self) -> None:
        """A record in segments of 1 or 2 bytes takes little more memory than was received."""
        for size in (1, 2):
            received = 50_000
            stream = mark(MAX_MESSAGE_SIZE) + bytes(received - 4)
            frames = FrameBuffer(MAX_MESSAGE_SIZE)
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for at in range(0, received, size):
                    frames.feed(stream[at : at + size])
                    frames.next_record()
                peak = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            self.assertEqual(len(frames), received)
            self.assertLess(peak, received * 1.5)

    def test_long_record_is_held_twice_at_most(self) -> None:
        """While a 16 MiB record is put together and taken out there are never three of it."""
        piece = bytes(64 * 1024)
        frames = FrameBuffer(MAX_MESSAGE_SIZE)
        tracemalloc.start()
        try:
            frames.feed(mark(MAX_MESSAGE_SIZE))
            for _ in range(MAX_MESSAGE_SIZE // len(piece)):
                self.assertIsNone(frames.next_record())
                frames.feed(piece)
            record = frames.next_record()
            peak = tracemalloc.get_traced_memory()[1]
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertEqual(len(record or b""), MAX_MESSAGE_SIZE)
        self.assertLess(peak, 2.25 * MAX_MESSAGE_SIZE)
        self.assertLess(held, 1.1 * MAX_MESSAGE_SIZE)

    def assert_linear(self, stream: bytes, size: int) -> None:
        """Assert that what the buffer puts together is a small multiple of the stream.

        What a read made it join with what it had is in ``data``.
        """
        frames = FrameBuffer(MAX_MESSAGE_SIZE)
        joined = count = 0
        for piece in pieces_of(stream, size):
            frames.feed(piece)
            joined += len(frames.data)
            count += sum(1 for _ in records(frames))
        self.assertEqual(len(frames), 0)
        self.assertGreater(count, 0)
        self.assertLessEqual(joined, 2 * len(stream) + size * count, f"pieces of {size}")

    def test_huge_record_is_linear(self) -> None:
        """16 MiB in pieces of 1 KiB and of 64 KiB are copied a few times, not once per piece."""
        stream = frame(bytes(MAX_MESSAGE_SIZE))
        for size in (1024, 64 * 1024):
            self.assert_linear(stream, size)

    def test_many_small_records_are_linear(self) -> None:
        """So are many small records in one read, and in reads that cut each of them."""
        stream = frame(bytes(300)) * 200
        for size in (1, 7, 301, 1024, len(stream)):
            self.assert_linear(stream, size)

    def test_records_beyond_the_join_limit_are_linear(self) -> None:
        """So are records around 64 KiB, where the way of joining changes."""
        for length in (64 * 1024 - 5, 64 * 1024, 64 * 1024 + 5):
            self.assert_linear(frame(bytes(length)) * 20, 1000)
