"""Bad records: their lengths and envelopes (connection.md 12, rows 1 to 18)."""

from __future__ import annotations

from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, frame
from stellar_overlay.wire.message import (
    MessageType,
    encode_auth,
)
from tests.builders import advert
from tests.by_hand import GOOD, ByHand, ByHandTestCase, changed, hands, well_made

CONNECTED, GOT_HELLO, GOT_AUTH = AuthState.CONNECTED, AuthState.GOT_HELLO, AuthState.GOT_AUTH
CORRUPT = "received corrupt XDR"
UNKNOWN_TYPES = (1, 4, 14, 15, 25, 255, 256, 2**31, 2**32 - 1)


class LengthTests(ByHandTestCase):
    """The record mark (rows 1 to 5, 13 to 15)."""

    def test_zero(self) -> None:
        """A record of no bytes ends the link in silence, in any state (1)."""
        for mark in (bytes(4), b"\x80\0\0\0"):
            for mouth, label in hands():
                self.assert_ends(mouth, mark, "error during read", label=label)

    def test_too_long_before_auth(self) -> None:
        """4,097 bytes are too many before AUTH, though the message were good later on (2)."""
        record = advert(hashes=130).body
        self.assertGreater(len(record), 4096)
        for mouth, label in hands(CONNECTED, GOT_HELLO):
            self.assert_ends(mouth, well_made(mouth, record), "error during read", label=label)
        for mouth, label in hands(CONNECTED, GOT_HELLO):
            mark = (0x80000000 | 4097).to_bytes(4, "big")
            self.assert_ends(mouth, mark, "error during read", label=label)

    def test_longest_before_auth(self) -> None:
        """4,096 bytes are looked at: a message that comes too early says so (2)."""
        body = advert().body + bytes(4096 - 44 - 40)
        for mouth, label in hands(CONNECTED, GOT_HELLO):
            reason = "received FLOOD_ADVERT before completed handshake"
            self.assert_ends(mouth, well_made(mouth, body), reason, label=label)

    def test_long_right_behind_auth(self) -> None:
        """The limit of 4,096 bytes is gone with the AUTH that comes in the same read."""
        for mouth, label in hands(GOT_HELLO):
            long = advert(hashes=200)
            mouth.say(mouth.sealed(encode_auth()), mouth.sealed(long.body))
            self.assertEqual([m.body for m in mouth.side.messages], [long.body], label)

    def test_too_long(self) -> None:
        """16 MiB and a byte end the link as soon as the mark is there (3)."""
        for length in (MAX_MESSAGE_SIZE + 1, 0x7FFFFFFF):
            for mouth, label in hands(GOT_AUTH):
                mark = (0x80000000 | length).to_bytes(4, "big")
                self.assert_ends(mouth, mark, "error during read", label=label)

    def test_longest(self) -> None:
        """Exactly 16 MiB are waited for and then judged by their MAC (3)."""
        for mouth, _ in hands(GOT_AUTH):
            number = mouth.auth.sealing.sequence if mouth.auth.sealing else 0
            record = bytearray(MAX_MESSAGE_SIZE)
            record[4:16] = number.to_bytes(8, "big") + b"\0\0\0\x07"
            mouth.say(frame(bytes(record))[:-1])
            self.assertIsNone(mouth.side.reason)
            mouth.say(b"\0")
            self.assertEqual(mouth.side.sent_error(), (3, b"unexpected MAC"))

    def test_mark_bit(self) -> None:
        """A mark without bit 31 is as good as one with it (4)."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            for body in (None, encode_auth(), GOOD):
                record = mouth.hello() if body is None else mouth.sealed(body)
                mouth.say(changed(record, 0, bytes([record[0] & 0x7F])))
            self.assertEqual([m.body for m in mouth.side.messages], [GOOD])

    def test_odd_length(self) -> None:
        """A length that is no multiple of 4 is corrupt, whatever the MAC (5)."""
        for extra in (1, 2, 3):
            for mouth, label in hands():
                record = well_made(mouth, GOOD + bytes(extra))
                self.assert_ends(mouth, record, CORRUPT, 1, label)
            for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                record = changed(mouth.sealed(GOOD + bytes(extra)), -1, b"\x55")
                self.assert_ends(mouth, record, CORRUPT, 1, label)

    def test_too_short(self) -> None:
        """Less than an envelope with a type is corrupt, though number and MAC be right."""
        for mouth, label in hands(GOT_HELLO, GOT_AUTH):
            self.assert_ends(mouth, mouth.sealed(b""), CORRUPT, 1, f"44 bytes, {label}")
        for mouth, label in hands(GOT_HELLO, GOT_AUTH):
            self.assert_ends(mouth, mouth.sealed(b"\0\0\0"), CORRUPT, 1, f"47 bytes, {label}")
        for length in (1, 4, 12, 43, 44, 47):
            for mouth, label in hands():
                self.assert_ends(mouth, frame(bytes(length)), CORRUPT, 1, f"{length}, {label}")

    def test_nothing_but_a_type(self) -> None:
        """48 bytes hold a type and no message, and a right MAC does not help."""
        for kind in (MessageType.GET_TX_SET, MessageType.TRANSACTION, MessageType.PEERS):
            mouth = ByHand(calls=False).go_to(GOT_AUTH)
            self.assert_ends(mouth, mouth.sealed(kind.to_bytes(4, "big")), CORRUPT, 1, kind.name)

    def test_lost_in_header_or_body(self) -> None:
        """A transport that ends says where the stream stopped (13)."""
        for end, where in ((0, "header"), (3, "header"), (4, "body"), (50, "body")):
            for mouth, label in hands():
                mouth.say(well_made(mouth, GOOD)[:end])
                violation = mouth.side.session.lost("gone")
                self.assertEqual(violation.reason, f"error reading message {where}: gone", label)
                self.assertIsNone(violation.code, label)

    def test_after_the_end(self) -> None:
        """Nothing is read after the end, however much comes (15)."""
        for mouth, label in hands():
            self.assert_ends(mouth, bytes(4), "error during read", label=label)
            received = mouth.side.session.receive(well_made(mouth, GOOD), 1.0)
            self.assertEqual((received.messages, received.violation), ([], None), label)
            self.assertEqual(mouth.side.session.data_to_send(1.0), b"", label)


class EnvelopeTests(ByHandTestCase):
    """Version, number and MAC (rows 8, 9, 16 to 18)."""

    def test_unknown_type(self) -> None:
        """A type that does not exist is corrupt, in any state, whatever the MAC (8)."""
        for kind in UNKNOWN_TYPES:
            for body in (kind.to_bytes(4, "big"), kind.to_bytes(4, "big") + bytes(32)):
                for mouth, label in hands():
                    right = well_made(mouth, body)
                    self.assert_ends(mouth, right, CORRUPT, 1, f"{kind}, {label}")
                for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                    wrong = changed(mouth.sealed(body), -1, b"\x55")
                    self.assert_ends(mouth, wrong, CORRUPT, 1, f"{kind}, {label}")

    def test_version(self) -> None:
        """An envelope of another version than 0 is corrupt; the MAC does not cover it (9)."""
        for version in (1, 2**24, 2**32 - 1):
            for mouth, label in hands():
                record = changed(well_made(mouth, GOOD), 4, version.to_bytes(4, "big"))
                self.assert_ends(mouth, record, CORRUPT, 1, f"{version}, {label}")

    def test_wrong_number(self) -> None:
        """A number that was skipped, used or is absurd, with any MAC, is said to be so (16)."""
        for jump in (-1, 1, 2**32, 2**63):
            for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                sealing = mouth.auth.sealing
                assert sealing is not None
                sealing.sequence = (sealing.sequence + jump) % 2**64
                record = mouth.sealed(encode_auth())
                sealing.sequence %= 2**63
                self.assert_ends(mouth, record, "unexpected auth sequence", 3, f"{jump}, {label}")

    def test_replay(self) -> None:
        """A record said twice is refused the second time (16)."""
        for mouth, label in hands(GOT_AUTH):
            record = mouth.sealed(GOOD)
            mouth.say(record)
            self.assert_ends(mouth, record, "unexpected auth sequence", 3, label)

    def test_wrong_mac(self) -> None:
        """One wrong bit in the MAC or in what it covers is enough (17)."""
        for at in (-1, -32, -33, 20):
            for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                record = mouth.sealed(GOOD)
                record = changed(record, at, bytes([record[at] ^ 1]))
                self.assert_ends(mouth, record, "unexpected MAC", 3, f"{at}, {label}")

    def test_number_before_mac(self) -> None:
        """Of a wrong number and a wrong MAC the number is named."""
        for mouth, label in hands(GOT_HELLO, GOT_AUTH):
            assert mouth.auth.sealing is not None
            mouth.auth.sealing.sequence += 1
            record = changed(mouth.sealed(GOOD), -1, b"\x55")
            self.assert_ends(mouth, record, "unexpected auth sequence", 3, label)

    def test_no_mac(self) -> None:
        """Zeros for a number and a MAC are wrong, one or the other, once there are keys (18)."""
        for kind, body in ((MessageType.AUTH, encode_auth()), (MessageType.GET_TX_SET, GOOD)):
            for mouth, label in hands(GOT_HELLO):
                self.assert_ends(mouth, mouth.plain(body), "unexpected MAC", 3, kind.name + label)
            for mouth, label in hands(GOT_AUTH):
                reason = "unexpected auth sequence"
                self.assert_ends(mouth, mouth.plain(body), reason, 3, kind.name + label)

    def test_own_direction(self) -> None:
        """What the session itself sealed, said back to it, is not taken for the peer's."""
        for mouth, label in hands(GOT_HELLO):
            sealing = mouth.side.session.auth.sealing
            assert sealing is not None
            sealing.sequence = 0
            self.assert_ends(mouth, sealing.seal(encode_auth()), "unexpected MAC", 3, label)
