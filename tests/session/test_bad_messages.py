"""Good records with messages out of turn, or that are not canonical XDR."""

from __future__ import annotations

from stellar_overlay.error import DropReason
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import (
    Hello,
    Message,
    MessageType,
    PeerEntry,
    encode_auth,
    encode_dont_have,
    encode_get_scp_state,
    encode_hash_query,
    encode_hashes,
    encode_peers,
    encode_send_more_extended,
    pack_opaque,
)
from tests.builders import advert
from tests.by_hand import GOOD, ByHand, ByHandTestCase, changed, hands, well_made

CONNECTED, GOT_HELLO, GOT_AUTH = AuthState.CONNECTED, AuthState.GOT_HELLO, AuthState.GOT_AUTH
CORRUPT = "received corrupt XDR"
UNKNOWN_TYPES = (1, 4, 14, 15, 25, 255, 256, 2**31, 2**32 - 1)


class TurnTests(ByHandTestCase):
    """Messages that are right, but not now (rows 21 to 24)."""

    def test_second_auth(self) -> None:
        """A second AUTH is out of order, with the right MAC (22)."""
        for mouth, label in hands(GOT_AUTH):
            record = mouth.sealed(encode_auth())
            self.assert_ends(mouth, record, "out-of-order AUTH message", 0, label)

    def test_second_auth_in_one_read(self) -> None:
        """Two AUTHs in one read are one too many, and the first was accepted (22)."""
        for mouth, label in hands(GOT_HELLO):
            mouth.say(mouth.sealed(encode_auth()), mouth.sealed(encode_auth()))
            self.assertEqual(mouth.side.reason, "out-of-order AUTH message", label)
            kinds = [kind for kind, _, _ in mouth.heard]
            self.assertEqual(kinds[-1], MessageType.ERROR_MSG, label)
            self.assertIn(MessageType.SEND_MORE_EXTENDED, kinds, label)

    def test_second_hello_without_mac(self) -> None:
        """A HELLO said again is not authentic any more (23)."""
        for state, reason in (
            (GOT_HELLO, "unexpected MAC"),
            (GOT_AUTH, "unexpected auth sequence"),
        ):
            for mouth, label in hands(state):
                self.assert_ends(mouth, mouth.hello(), reason, 3, label)

    def test_two_hellos_in_one_read(self) -> None:
        """It makes no difference whether both came in one read (23)."""
        for mouth, label in hands(CONNECTED):
            mouth.say(mouth.hello(), mouth.hello())
            self.assertEqual(mouth.side.sent_error(), (3, b"unexpected MAC"), label)

    def test_second_hello_with_mac(self) -> None:
        """A sealed HELLO ends the link in silence (23)."""
        for mouth, label in hands(GOT_HELLO, GOT_AUTH):
            record = mouth.sealed(mouth.auth.create_hello().body)
            self.assert_ends(mouth, record, "received unexpected HELLO", label=label)

    def test_too_early(self) -> None:
        """Whatever needs AUTH and comes before it ends the link in silence, by its name (24)."""
        early = set(MessageType) - {MessageType.ERROR_MSG, MessageType.HELLO, MessageType.AUTH}
        self.assertEqual(len(early), 18)
        for kind in sorted(early):
            reason = f"received {kind.name} before completed handshake"
            for mouth, label in hands(CONNECTED, GOT_HELLO):
                record = well_made(mouth, kind.to_bytes(4, "big") + bytes(32))
                self.assert_ends(mouth, record, reason, label=label)

    def test_too_early_and_forged(self) -> None:
        """After HELLO the MAC is looked at before the type (24)."""
        for mouth, label in hands(GOT_HELLO):
            self.assert_ends(
                mouth, changed(mouth.sealed(GOOD), -1, b"\x55"), "unexpected MAC", 3, label
            )

    def test_hello_again_is_judged_by_its_turn_alone(self) -> None:
        """What a second HELLO says is not looked at, not even its structure."""
        for mouth, label in hands(GOT_HELLO, GOT_AUTH):
            record = mouth.sealed(MessageType.HELLO.to_bytes(4, "big") + b"\xff" * 40)
            self.assert_ends(mouth, record, "received unexpected HELLO", label=label)


class StructureTests(ByHandTestCase):
    """What is no canonical XDR (rows 6, 7, 10, 11, 12), whoever says it and when."""

    def _assert_corrupt(self, name: str, body: bytes, *states: AuthState) -> None:
        for mouth, label in hands(*states):
            if body[3] == MessageType.PEERS and mouth.side is mouth.pair.callee:
                continue  # a callee does not take PEERS at all
            self.assert_ends(mouth, well_made(mouth, body), CORRUPT, 1, f"{name}, {label}")

    def test_after_auth(self) -> None:
        """Trailing, missing and too many bytes, and padding that is not zero."""
        hashes = [bytes([n % 256]) * 32 for n in range(1001)]
        survey_head = b"\0\0\0\x16" + pack_opaque(bytes(64)) + bytes(72 + 4 + 4)
        table = {
            "trailing bytes": GOOD + bytes(4),
            "trailing bytes after a list": advert().body + bytes(32),
            "a hash too short": GOOD[:-4],
            "an advert that lacks a hash": advert(hashes=2).body[:-32],
            "an advert of 2^32-1 hashes": b"\0\0\0\x12\xff\xff\xff\xff" + bytes(32),
            "1,001 adverts": encode_hashes(MessageType.FLOOD_ADVERT, hashes),
            "1,001 demands": encode_hashes(MessageType.FLOOD_DEMAND, hashes),
            "101 peers": encode_peers([PeerEntry("1.2.3.4", 1)] * 101),
            "an address of no kind": b"\0\0\0\5\0\0\0\1\0\0\0\2" + bytes(12),
            "a grant without bytes": encode_send_more_extended(1, 1)[:-4],
            "DONT_HAVE without a hash": encode_dont_have(10, b"")[:-32],
            "a truncated transaction": b"\0\0\0\x08\0\0\0\2" + bytes(8),
            "an SCP statement of no kind": b"\0\0\0\x0b" + bytes(44) + b"\0\0\0\4" + bytes(40),
            "a survey answer of 64,001 bytes": survey_head + pack_opaque(bytes(64_001)) + bytes(4),
        }
        for name, body in table.items():
            self._assert_corrupt(name, body, GOT_AUTH)

    def test_nesting(self) -> None:
        """2,000 quorum sets inside each other are too deep (12)."""
        body = MessageType.SCP_QUORUMSET.to_bytes(4, "big")
        body += (b"\0\0\0\1" + bytes(4) + b"\0\0\0\1") * 2000 + b"\0\0\0\1" + bytes(8)
        self._assert_corrupt("deep", body, GOT_AUTH)

    def test_hello(self) -> None:
        """A HELLO with a text or signature too long, bad padding or a bad key type (10, 11)."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            hello = mouth.auth.create_hello().body
            text = Hello.decode(hello).version_string
            head, tail = hello[:48], hello[52 + len(text) + -len(text) % 4 :]
            table = {
                "trailing bytes": hello + bytes(4),
                "truncated": hello[:-4],
                "101 bytes of text": head + pack_opaque(b"x" * 101) + tail,
                "padding": head + b"\0\0\0\5abcde\0\0\1" + tail,
                "a text of 2^32-1 bytes": head + b"\xff\xff\xff\xff" + tail,
                "a key of no kind": head + pack_opaque(text) + tail[:4] + b"\0\0\0\1" + tail[8:],
                "65 bytes of signature": hello[:-100] + pack_opaque(bytes(65)) + hello[-32:],
            }
            for name, body in table.items():
                mouth = ByHand(calls=calls)
                self.assert_ends(mouth, mouth.plain(body), CORRUPT, 1, f"{name}, {calls=}")

    def test_auth(self) -> None:
        """An AUTH with too much or too little in it is corrupt, whatever its flags."""
        for name, body in {"long": encode_auth() + bytes(4), "short": encode_auth()[:4]}.items():
            self._assert_corrupt(name, body, GOT_HELLO)

    def test_nothing_is_hashed_before(self) -> None:
        """A good message is dispatched byte for byte; GET_SCP_STATE keeps all its 32 bits."""
        mouth = ByHand().go_to(GOT_AUTH)
        body = encode_get_scp_state(2**32 - 1)
        mouth.say(
            mouth.sealed(body), mouth.sealed(encode_hash_query(MessageType.GET_TX_SET, bytes(32)))
        )
        self.assertEqual(mouth.side.messages[0], Message(body))
        self.assertIsNone(mouth.side.kind)

    def test_reason_is_told_in_the_log(self) -> None:
        """The violation is of its kind, and its detail says more than the peer is told."""
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.say(mouth.sealed(GOOD + bytes(4)))
        self.assertIs(mouth.side.kind, DropReason.CORRUPT_XDR)
        assert mouth.side.violation is not None
        self.assertNotEqual(mouth.side.violation.detail, "")
