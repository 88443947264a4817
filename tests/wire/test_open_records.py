"""Many records of one read: where they begin, where they end, and which of them is bad."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, ErrorCode, PeerViolation
from stellar_overlay.wire.channel import OpeningKey, wrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import encode_error
from tests.wire.test_channel import BODIES, K_AB, KEY, envelope, seal_all

Alter = Callable[[bytes], bytes]


class OpenRecordsTests(SynchronousTestCase):
    """Many records of one read, as a session opens them."""

    def open_stream(
        self, stream: bytes, count: int = 1000
    ) -> tuple[list[bytes], DropReason | None, OpeningKey]:
        """Return the bodies, the reason of the violation if there is one, and the key."""
        frames, opening = FrameBuffer(MAX_MESSAGE_SIZE), OpeningKey(KEY)
        frames.feed(stream)
        opened: list[tuple[int, bytes]] = []
        try:
            opening.open_records(frames, opened, count)
        except PeerViolation as violation:
            return [body for _, body in opened], violation.kind, opening
        return [body for _, body in opened], None, opening

    def test_good_records(self) -> None:
        """All complete records open; what is left of the next one waits."""
        stream = b"".join(seal_all(BODIES))
        self.assertEqual(self.open_stream(stream)[:2], (BODIES, None))
        self.assertEqual(self.open_stream(stream[:-1])[:2], (BODIES[:-1], None))

    def test_one_loop_for_many(self) -> None:
        """Good records are opened where they lie: none is copied out of the buffer on its own."""
        looks = 0

        class Watched(FrameBuffer):
            def next_record(self) -> bytes | None:
                nonlocal looks
                looks += 1
                return super().next_record()

        frames = Watched(MAX_MESSAGE_SIZE)
        opened: list[tuple[int, bytes]] = []
        frames.feed(b"".join(seal_all([*BODIES, bytes.fromhex("00000010")])))
        OpeningKey(KEY).open_records(frames, opened, 1000)
        self.assertEqual((len(opened), looks), (len(BODIES) + 1, 0))

    def test_count(self) -> None:
        """At most as many open as are asked for; the rest opens later."""
        frames, opening = FrameBuffer(MAX_MESSAGE_SIZE), OpeningKey(KEY)
        frames.feed(b"".join(seal_all(BODIES)))
        opened: list[tuple[int, bytes]] = []
        for expected in (0, 1, 3, 4, 4):
            opening.open_records(frames, opened, expected - len(opened))
            self.assertEqual([body for _, body in opened], BODIES[:expected])

    def test_bit_31(self) -> None:
        """Y1: bit 31 of the mark switches no check off, and a good record needs it not."""
        good = seal_all(BODIES[:1])[0]
        clear = bytes([good[0] & 0x7F]) + good[1:]
        self.assertEqual(self.open_stream(clear)[:2], (BODIES[:1], None))
        for mark in (good[:4], clear[:4]):
            junk = mark + good[4:-32] + b"\xaa" * 32
            self.assertEqual(self.open_stream(junk)[:2], ([], DropReason.UNEXPECTED_MAC))

    def test_bad_record_among_good_ones(self) -> None:
        """Whatever is wrong with the third of four records, the two before it come out."""
        forge: dict[DropReason, list[Alter]] = {
            DropReason.UNEXPECTED_MAC: [
                lambda good: good[:-1] + bytes([good[-1] ^ 1]),
                lambda good: good[:-33] + bytes([good[-33] ^ 0x80]) + good[-32:],
            ],
            DropReason.UNEXPECTED_SEQUENCE: [
                lambda good: frame(envelope(good[16:-32], 3)),
                lambda good: frame(wrap_unauthenticated(good[16:-32])),
            ],
            DropReason.CORRUPT_XDR: [
                lambda good: good[:4] + b"\0\0\0\1" + good[8:],
                lambda good: frame(envelope(good[16:-32], 3) + b"\0"),
                lambda good: frame(bytes(44)),
                lambda good: frame(envelope(b"", 2)),
            ],
            DropReason.READ_ERROR: [
                lambda good: bytes(4) + good[4:],
                lambda good: b"\x81\0\0\1" + good[4:],
            ],
        }
        records = seal_all(BODIES)
        for reason, alterations in forge.items():
            for alter in alterations:
                stream = b"".join((*records[:2], alter(records[2]), records[3]))
                bodies, violation, opening = self.open_stream(stream)
                self.assertEqual((bodies, violation), (BODIES[:2], reason))
                self.assertEqual(opening.sequence, 2)

    def test_limit(self) -> None:
        """A record beyond the limit is refused though it is all there and well sealed."""
        records = seal_all(BODIES)
        for limit, intact in ((len(records[1]) - 5, 1), (len(records[1]) - 4, len(BODIES))):
            frames = FrameBuffer(limit)
            frames.feed(b"".join(records))
            opened: list[tuple[int, bytes]] = []
            try:
                OpeningKey(KEY).open_records(frames, opened, 1000)
            except PeerViolation as violation:
                self.assertIs(violation.kind, DropReason.READ_ERROR)
            self.assertEqual([body for _, body in opened], BODIES[:intact])

    def test_error_among_good_ones(self) -> None:
        """An ERROR_MSG between others comes out in its place and does not count, MACed or not."""
        body = encode_error(ErrorCode.ERR_MISC, "bye")
        records = seal_all(BODIES)
        for error in (wrap_unauthenticated(body), envelope(body, 2), envelope(body, 9, K_AB)):
            stream = b"".join((*records[:2], frame(error), *records[2:]))
            bodies, violation, opening = self.open_stream(stream)
            self.assertEqual((bodies, violation), ([*BODIES[:2], body, *BODIES[2:]], None))
            self.assertEqual(opening.sequence, len(BODIES))
