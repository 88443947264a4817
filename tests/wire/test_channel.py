"""Numbers and MACs: what is sealed, what is opened, and every way to get it wrong."""

from __future__ import annotations

import hashlib
import hmac

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, ErrorCode, PeerViolation
from stellar_overlay.wire.channel import (
    MIN_RECORD,
    OVERHEAD,
    OpeningKey,
    SealingKey,
    unwrap_unauthenticated,
    wrap_unauthenticated,
)
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import (
    MessageType,
    encode_auth,
    encode_error,
    encode_get_scp_state,
    encode_send_more_extended,
)
from tests.builders import advert, get_tx_set

# connection.md 3.4
K_AB = bytes.fromhex("781d2eea2c91f118273661540bc2ec0b87cf6cf5c736d98af127b3be6c158484")
K_BA = bytes.fromhex("b34893b0b05304103d4efcef2c61631d3c115ec773dc01dad0881e2503b6789e")
A_AUTH = bytes.fromhex(
    "8000003400000000000000000000000000000002000000c8"
    "c6e4e901025800dac7dd89954938c1da144ae9e9ed0fb1d0b3721144a49d4081"
)
B_SEND_MORE = bytes.fromhex(
    "8000003800000000000000000000000100000014000000c8000493e0"
    "e411348c1b3f8d8720b626793499e6bbe0857280b0d3aef0ec9df394a241f3db"
)
ERROR = bytes.fromhex(
    "8000005000000000000000000000000000000000000000020000001677726f6e67"
    "2070726f746f636f6c2076657273696f6e0000" + "00" * 32
)

KEY = bytes(range(32))
BODIES = [encode_auth(), advert(1, 2).body, get_tx_set(2).body, encode_get_scp_state(7)]
VIOLATION = {
    DropReason.CORRUPT_XDR: ("received corrupt XDR", ErrorCode.ERR_DATA),
    DropReason.UNEXPECTED_SEQUENCE: ("unexpected auth sequence", ErrorCode.ERR_AUTH),
    DropReason.UNEXPECTED_MAC: ("unexpected MAC", ErrorCode.ERR_AUTH),
}


def envelope(body: bytes, number: int = 0, key: bytes = KEY, *, version: int = 0) -> bytes:
    """Return an envelope whose number, version and MAC are as told, made by hand."""
    signed = number.to_bytes(8, "big") + body
    return version.to_bytes(4, "big") + signed + hmac.digest(key, signed, "sha256")


BAD = {
    "MAC": envelope(BODIES[1], 1)[:-32] + bytes(32),
    "number": envelope(BODIES[1], 2),
    "version": envelope(BODIES[1], 1, version=1),
}
"""Records that are refused where number 1 is due."""


def seal_all(bodies: list[bytes], key: bytes = KEY) -> list[bytes]:
    """Return the sealed records of bodies, numbered from 0."""
    sealing = SealingKey(key)
    return [sealing.seal(body) for body in bodies]


class ChannelTestCase(SynchronousTestCase):
    """Asserts what became of a record."""

    def assert_refused(self, opening: OpeningKey, record: bytes, reason: DropReason) -> None:
        with self.assertRaises(PeerViolation) as caught:
            opening.open(record)
        violation = caught.exception
        self.assertIs(violation.kind, reason)
        self.assertEqual((violation.reason, violation.code), VIOLATION[reason])


class KnownFrameTests(ChannelTestCase):
    """The frames of connection.md 3.4."""

    def test_first_sealed_message(self) -> None:
        """A's AUTH, number 0, has the known bytes and opens."""
        self.assertEqual(SealingKey(K_AB).seal(encode_auth()).hex(), A_AUTH.hex())
        self.assertEqual(OpeningKey(K_AB).open(A_AUTH[4:]), (MessageType.AUTH, encode_auth()))

    def test_second_sealed_message(self) -> None:
        """B's SEND_MORE_EXTENDED, number 1 behind its AUTH, has the known bytes and opens."""
        body = encode_send_more_extended(200, 300_000)
        sealing, opening = SealingKey(K_BA), OpeningKey(K_BA)
        opening.open(sealing.seal(encode_auth())[4:])
        self.assertEqual(sealing.seal(body).hex(), B_SEND_MORE.hex())
        self.assertEqual(opening.open(B_SEND_MORE[4:]), (20, body))

    def test_error(self) -> None:
        """ERROR_MSG has number 0 and a zero MAC, and opens whatever the key and the count."""
        body = encode_error(ErrorCode.ERR_CONF, "wrong protocol version")
        self.assertEqual(frame(wrap_unauthenticated(body)).hex(), ERROR.hex())
        for opening in (OpeningKey(K_AB), OpeningKey(K_BA)):
            self.assertEqual(opening.open(ERROR[4:]), (MessageType.ERROR_MSG, body))

    def test_overhead(self) -> None:
        """An envelope adds 44 bytes: version 4, number 8, MAC 32 without a length."""
        self.assertEqual((OVERHEAD, MIN_RECORD), (44, 48))
        for body in BODIES:
            self.assertEqual(len(wrap_unauthenticated(body)), len(body) + 44)
            self.assertEqual(len(SealingKey(KEY).seal(body)), len(body) + 48)


class SealingTests(ChannelTestCase):
    """What leaves."""

    def test_numbers_and_macs(self) -> None:
        """Each message gets the next number and HMAC-SHA256 over number and body."""
        for number, (body, record) in enumerate(zip(BODIES, seal_all(BODIES), strict=True)):
            self.assertEqual(record, frame(envelope(body, number)))

    def test_batch_is_the_same_as_one_by_one(self) -> None:
        """A batch is sealed as its messages one by one, and the count goes on."""
        sealing = SealingKey(KEY)
        parts: list[bytes] = []
        sealing.seal_into(parts, BODIES[:3])
        sealing.seal_into(parts, [])
        sealing.seal_into(parts, tuple(BODIES[3:]))
        self.assertEqual(b"".join(parts), b"".join(seal_all(BODIES)))
        self.assertEqual(sealing.sequence, len(BODIES))

    def test_batch_does_not_copy_bodies(self) -> None:
        """One message that is sealed for many peers stays one object."""
        parts: list[bytes] = []
        SealingKey(KEY).seal_into(parts, BODIES)
        self.assertTrue(all(any(part is body for part in parts) for body in BODIES))

    def test_longest_message(self) -> None:
        """A record of exactly 16 MiB is sealed; a longer one, which no peer takes, is not."""
        sealing = SealingKey(KEY)
        self.assertEqual(len(sealing.seal(bytes(MAX_MESSAGE_SIZE - 44))), MAX_MESSAGE_SIZE + 4)
        with self.assertRaises(ValueError):
            sealing.seal(bytes(MAX_MESSAGE_SIZE - 40))
        self.assertEqual(sealing.sequence, 1)


class OpeningTests(ChannelTestCase):
    """What arrives: the order of the checks, and each of them."""

    def test_open_in_order(self) -> None:
        """Good records in order give type and body, and count."""
        opening = OpeningKey(KEY)
        for body, record in zip(BODIES, seal_all(BODIES), strict=True):
            self.assertEqual(opening.open(record[4:]), (int.from_bytes(body[:4], "big"), body))
        self.assertEqual(opening.sequence, len(BODIES))

    def test_wrong_number(self) -> None:
        """Row 16: a skipped, repeated or far number is refused though its MAC is right."""
        for number in (0, 2, 3, 2**32, 2**64 - 1):
            opening = OpeningKey(KEY)
            opening.open(envelope(BODIES[0], 0))
            self.assert_refused(
                opening, envelope(BODIES[1], number), DropReason.UNEXPECTED_SEQUENCE
            )

    def test_wrong_mac(self) -> None:
        """Rows 17 and Y5: one flipped bit of the MAC, any other MAC, or none at all is refused."""
        good = envelope(BODIES[0])
        macs = [bytes(32), b"\xff" * 32, good[-1:] + good[-32:-1]]
        macs += [
            (int.from_bytes(good[-32:], "big") ^ 1 << bit).to_bytes(32, "big") for bit in range(256)
        ]
        for mac in macs:
            self.assert_refused(OpeningKey(KEY), good[:-32] + mac, DropReason.UNEXPECTED_MAC)

    def test_mac_of_another_key(self) -> None:
        """A message of the other direction, or of another link, is refused."""
        for other in (K_AB, K_BA, bytes(32), KEY[::-1]):
            record = envelope(BODIES[0], 0, other)
            self.assert_refused(OpeningKey(KEY), record, DropReason.UNEXPECTED_MAC)

    def test_mac_covers_number_and_body(self) -> None:
        """Any flipped bit of the body (but those that make it an ERROR_MSG) is found out."""
        good = envelope(BODIES[1])
        for bit in range(12 * 8, (len(good) - 32) * 8):
            number = int.from_bytes(good, "big") ^ 1 << (len(good) * 8 - 1 - bit)
            bad = number.to_bytes(len(good), "big")
            unknown = bit < 16 * 8 and int.from_bytes(bad[12:16], "big") not in set(MessageType)
            reason = DropReason.CORRUPT_XDR if unknown else DropReason.UNEXPECTED_MAC
            self.assert_refused(OpeningKey(KEY), bad, reason)

    def test_corrupt_envelope(self) -> None:
        """Rows 5, 7, 8, 9: bad size, unknown type or version is corrupt XDR, sealed or not."""
        body = BODIES[1]
        bad = {
            "empty": b"",
            "shorter than an envelope": envelope(b"")[:-4],
            "an envelope around nothing": envelope(b""),
            "not a multiple of four": envelope(body + b"\0"),
            "255 bytes": bytes(255),
            "type cut off": envelope(body[:3]),
            **{f"version {n}": envelope(body, version=n) for n in (1, 2, 2**31, 2**32 - 1)},
            **{
                f"type {n}": envelope(n.to_bytes(4, "big") + body[4:])
                for n in (1, 4, 14, 15, 25, 2**31, 2**32 - 1)
            },
        }
        for name, record in bad.items():
            opening = OpeningKey(KEY)
            self.assert_refused(opening, record, DropReason.CORRUPT_XDR)
            self.assertEqual(opening.sequence, 0, name)
            with self.assertRaises(PeerViolation) as caught:
                unwrap_unauthenticated(record)
            self.assertIs(caught.exception.kind, DropReason.CORRUPT_XDR, name)

    def test_order_of_checks(self) -> None:
        """A corrupt envelope goes before a wrong number, and that before a wrong MAC."""
        forged = envelope(BODIES[0], 5, K_AB)
        self.assert_refused(OpeningKey(KEY), forged, DropReason.UNEXPECTED_SEQUENCE)
        corrupt = envelope(BODIES[0] + b"\0", 5, K_AB)
        self.assert_refused(OpeningKey(KEY), corrupt, DropReason.CORRUPT_XDR)

    def test_message_without_mac(self) -> None:
        """Row 18: what is sent as if there were no keys is refused, first or later."""
        for body in BODIES:
            opening = OpeningKey(KEY)
            self.assert_refused(opening, wrap_unauthenticated(body), DropReason.UNEXPECTED_MAC)
            opening = OpeningKey(KEY)
            opening.open(envelope(BODIES[0]))
            self.assert_refused(opening, wrap_unauthenticated(body), DropReason.UNEXPECTED_SEQUENCE)

    def test_refused_message_does_not_count(self) -> None:
        """Y2: a record that is refused leaves the count where it was."""
        for bad in BAD.values():
            opening = OpeningKey(KEY)
            opening.open(envelope(BODIES[0]))
            with self.assertRaises(PeerViolation):
                opening.open(bad)
            self.assertEqual(opening.sequence, 1)

    def test_no_use_after_an_error(self) -> None:
        """Once a record was refused, the genuine one is refused, too, alone or in a batch."""
        good = envelope(BODIES[1], 1)
        for name, bad in BAD.items():
            opening = OpeningKey(KEY)
            opening.open(envelope(BODIES[0]))
            with self.assertRaises(PeerViolation):
                opening.open(bad)
            for _ in range(2):
                self.assert_refused(opening, good, DropReason.UNEXPECTED_MAC)
            frames = FrameBuffer(MAX_MESSAGE_SIZE)
            frames.feed(frame(good))
            opened: list[tuple[int, bytes]] = []
            with self.assertRaises(PeerViolation):
                opening.open_records(frames, opened, 9)
            self.assertEqual((opened, opening.sequence), ([], 1), name)

    def test_error_after_an_error(self) -> None:
        """An ERROR_MSG, which is never verified, still says why the peer has gone."""
        body = encode_error(ErrorCode.ERR_AUTH, "unexpected MAC")
        for bad in BAD.values():
            opening = OpeningKey(KEY)
            with self.assertRaises(PeerViolation):
                opening.open(bad)
            self.assertEqual(
                opening.open(wrap_unauthenticated(body)), (MessageType.ERROR_MSG, body)
            )

    def test_error_is_never_verified(self) -> None:
        """Row 19: an ERROR_MSG opens with any number and MAC, and never counts."""
        body = encode_error(ErrorCode.ERR_LOAD, "peer rejected")
        opening = OpeningKey(KEY)
        opening.open(envelope(BODIES[0]))
        for record in (
            wrap_unauthenticated(body),
            envelope(body, 1),
            envelope(body, 77, K_AB),
            bytes(4) + b"\xff" * 8 + body + b"\xff" * 32,
        ):
            self.assertEqual(opening.open(record), (MessageType.ERROR_MSG, body))
        self.assertEqual(opening.sequence, 1)

    def test_error_must_be_an_envelope(self) -> None:
        """Not even an ERROR_MSG may have another version, or an odd length."""
        body = encode_error(ErrorCode.ERR_LOAD, "")
        for record in (envelope(body, version=1), wrap_unauthenticated(body) + b"\0"):
            self.assert_refused(OpeningKey(KEY), record, DropReason.CORRUPT_XDR)


class SecrecyTests(SynchronousTestCase):
    """Keys stay where they are."""

    def test_keys_show_nothing(self) -> None:
        """No key is seen in what may end up in a log, nor in a dictionary of attributes."""
        for key in (SealingKey(KEY), OpeningKey(KEY)):
            self.assertNotIn("\\x01\\x02", repr(key) + str(key))
            self.assertNotIn(KEY.hex(), repr(key))
            self.assertFalse(hasattr(key, "__dict__"))

    def test_violations_show_no_mac(self) -> None:
        """What a forger is told, and what is logged, does not hold the MAC that was expected."""
        good = envelope(BODIES[0])
        with self.assertRaises(PeerViolation) as caught:
            OpeningKey(KEY).open(good[:-32] + hashlib.sha256(b"").digest())
        shown = repr(caught.exception) + caught.exception.detail
        self.assertNotIn(good[-32:].hex(), shown)
        self.assertIsNone(caught.exception.__cause__)
