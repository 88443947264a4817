"""ERROR_MSG from the peer: honoured in any state, believed by nobody, never answered."""

from __future__ import annotations

from stellar_overlay.error import DropReason, PeerError
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import encode_auth, encode_error, pack_opaque
from tests.builders import error_record
from tests.by_hand import GOOD, ByHand, ByHandTestCase, changed, hands, well_made

GOT_AUTH = AuthState.GOT_AUTH


def raw_error(code: int, text: bytes) -> bytes:
    """Return the body of an ERROR_MSG with any code and bytes."""
    return bytes(4) + (code % 2**32).to_bytes(4, "big") + pack_opaque(text)


class ErrorTests(ByHandTestCase):
    """Rows 19 and 20 of connection.md 12."""

    def test_in_any_state(self) -> None:
        """The link ends for what the peer says, in silence, and nothing behind it is seen."""
        for mouth, label in hands():
            self.assert_ends(mouth, error_record(4, b"peer rejected"), "ERR_LOAD (peer rejected)")
            violation = mouth.side.violation
            assert isinstance(violation, PeerError)
            self.assertIs(violation.kind, DropReason.REMOTE_ERROR, label)
            told = (violation.remote_code, violation.remote_text, violation.code)
            self.assertEqual(told, (4, b"peer rejected", None), label)

    def test_garbage_around_it(self) -> None:
        """Its number and MAC may be anything (19)."""
        for number, mac in ((2**64 - 1, bytes(32)), (0, b"\xaa" * 32), (1, b"\xff" * 32)):
            for mouth, label in hands():
                record = changed(error_record(0, b"bye"), 8, number.to_bytes(8, "big"))
                self.assert_ends(mouth, changed(record, -32, mac), "ERR_MISC (bye)", None, label)

    def test_sealed(self) -> None:
        """They may even be right (19)."""
        for mouth, label in hands():
            record = well_made(mouth, encode_error(3, "unexpected MAC"))
            self.assert_ends(mouth, record, "ERR_AUTH (unexpected MAC)", None, label)

    def test_codes(self) -> None:
        """The five codes have names; any other number is UNKNOWN (20)."""
        names = ("ERR_MISC", "ERR_DATA", "ERR_CONF", "ERR_AUTH", "ERR_LOAD")
        for code, name in (
            *enumerate(names),
            *((n, "UNKNOWN") for n in (5, -1, 2**31 - 1, -(2**31))),
        ):
            mouth = ByHand().go_to(GOT_AUTH)
            record = mouth.plain(raw_error(code, b"text"))
            self.assert_ends(mouth, record, f"{name} (text)", None, str(code))
            violation = mouth.side.violation
            assert isinstance(violation, PeerError)
            self.assertEqual(violation.remote_code, code)

    def test_texts(self) -> None:
        """Of the text only letters, digits and spaces are shown; the rest are stars (20)."""
        table = {
            b"": "",
            b"already-connected peer: GABCD": "already*connected peer* GABCD",
            b"\x1b[31mred\r\n\0": "**31mred***",
            b"{code} %s": "*code* *s",
            "é".encode(): "**",
            b"\xff" * 100: "*" * 100,
            b"x" * 100: "x" * 100,
        }
        for text, shown in table.items():
            for mouth, label in hands():
                record = mouth.plain(raw_error(2, text))
                self.assert_ends(mouth, record, f"ERR_CONF ({shown})", None, label)
                assert isinstance(mouth.side.violation, PeerError)
                self.assertEqual(mouth.side.violation.remote_text, text)

    def test_corrupt(self) -> None:
        """One that is no canonical XDR is answered as any other corrupt message."""
        table = {
            "101 bytes of text": raw_error(0, b"x" * 101),
            "a text of 2^32-1 bytes": bytes(8) + b"\xff\xff\xff\xff",
            "truncated": raw_error(0, b"x" * 8)[:-4],
            "trailing bytes": raw_error(0, b"x") + bytes(4),
            "padding": bytes(8) + b"\0\0\0\1x\0\0\1",
            "no text": bytes(8),
            "no code": bytes(4),
        }
        for name, body in table.items():
            for mouth, label in hands():
                record = mouth.plain(body)
                self.assert_ends(mouth, record, "received corrupt XDR", 1, f"{name}, {label}")

    def test_behind_good_messages(self) -> None:
        """What came before it in the same read is dispatched."""
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.say(mouth.sealed(GOOD), error_record(0, b"shutdown"), mouth.sealed(GOOD))
        self.assertEqual([m.body for m in mouth.side.messages], [GOOD])
        self.assertEqual(mouth.side.reason, "ERR_MISC (shutdown)")

    def test_behind_auth(self) -> None:
        """An AUTH that is followed by an ERROR_MSG in the same read was accepted."""
        for mouth, label in hands(AuthState.GOT_HELLO):
            mouth.say(mouth.sealed(encode_auth()), error_record(4, b"peer rejected"))
            self.assertEqual(mouth.side.reason, "ERR_LOAD (peer rejected)", label)
            self.assertIs(mouth.side.session.auth.state, GOT_AUTH, label)

    def test_byte_by_byte(self) -> None:
        """It may come in any pieces."""
        for mouth, label in hands():
            for byte in error_record(1, b"received corrupt XDR"):
                self.assertIsNone(mouth.side.reason, label)
                mouth.say(bytes([byte]))
            self.assertEqual(mouth.side.reason, "ERR_DATA (received corrupt XDR)", label)

    def test_crossing_errors(self) -> None:
        """Of two sides that complain at once each ends for its own reason; nobody answers."""
        mouth = ByHand().go_to(GOT_AUTH)
        self.assert_ends(mouth, bytes(4), "error during read")
        mouth.say(error_record(0, b"bye"))
        self.assertEqual(mouth.side.reason, "error during read")
