"""Bad things in one read with good ones, and which of two faults counts (DECISIONS 3, 3a, 3b)."""

from __future__ import annotations

from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import (
    MessageType,
    encode_auth,
    encode_peers,
    encode_send_more_extended,
)
from tests.builders import advert, error_record, get_tx_set
from tests.by_hand import (
    BAD,
    GOOD,
    ByHand,
    ByHandTestCase,
    forged,
    hands,
    of_type,
    other_version,
    renumbered,
)

GOT_HELLO, GOT_AUTH = AuthState.GOT_HELLO, AuthState.GOT_AUTH


class PositionTests(ByHandTestCase):
    """What came before in the same read is dispatched, what comes after is not (3a)."""

    def test_every_position(self) -> None:
        """Each bad thing, first, last and between good ones, of one kind or mixed."""
        good = [get_tx_set(n).body if n % 2 else advert(n).body for n in range(4)]
        for name, (bad, reason, code) in BAD.items():
            for position in range(len(good) + 1):
                mouth = ByHand().go_to(GOT_AUTH)
                before = b"".join(mouth.sealed(body) for body in good[:position])
                said = len(mouth.side.sent)
                behind = b"".join([bad(mouth), *(mouth.sealed(body) for body in good[position:])])
                mouth.say(before + behind)
                label = f"{name} at {position}"
                self.assertEqual(mouth.side.reason, reason, label)
                dispatched = [message.body for message in mouth.side.messages]
                self.assertEqual(dispatched, good[:position], label)
                told = b"" if code is None else error_record(code, reason.encode())
                self.assertEqual(bytes(mouth.side.sent[said:]), told, label)

    def test_two_bad_things(self) -> None:
        """Of two bad things in one read the first one counts."""
        for first, (bad, reason, _) in BAD.items():
            for second, (worse, _, _) in BAD.items():
                mouth = ByHand().go_to(GOT_AUTH)
                mouth.say(bad(mouth), mouth.sealed(GOOD), worse(mouth))
                self.assertEqual(mouth.side.reason, reason, f"{first}, then {second}")
                self.assertEqual(mouth.side.messages, [], f"{first}, then {second}")

    def test_grants_of_what_came_before(self) -> None:
        """Credit of what was processed before is granted ahead of the last words."""
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.say(*(mouth.sealed(advert(n).body) for n in range(40)), forged(mouth, GOOD))
        kind, _, body = mouth.heard[-2]
        self.assertIs(kind, MessageType.SEND_MORE_EXTENDED)
        self.assertEqual(body, encode_send_more_extended(40, 40 * 40))
        self.assertEqual(mouth.side.sent_error(), (3, b"unexpected MAC"))

    def test_right_behind_auth(self) -> None:
        """A bad thing behind AUTH in one read: the peer was authenticated, then dropped."""
        for name, (bad, reason, _) in BAD.items():
            mouth = ByHand().go_to(GOT_HELLO)
            mouth.say(mouth.sealed(encode_auth()), mouth.sealed(GOOD), bad(mouth))
            self.assertEqual(mouth.side.reason, reason, name)
            self.assertEqual([m.body for m in mouth.side.messages], [GOOD], name)

    def test_in_two_reads(self) -> None:
        """A violation cut in two is one all the same: nothing happens at its first half."""
        for name, (bad, reason, _) in BAD.items():
            mouth = ByHand().go_to(GOT_AUTH)
            record = bad(mouth)
            mouth.say(record[:3])
            self.assertIsNone(mouth.side.reason, name)
            mouth.say(record[3:])
            self.assertEqual(mouth.side.reason, reason, name)


class CapacityTests(ByHandTestCase):
    """A violation waits its turn behind messages that wait for capacity (3a, 3b)."""

    def test_violation_waits(self) -> None:
        """With 201 messages in processing the others, and the violation, wait for credit."""
        for name, (bad, reason, _) in BAD.items():
            mouth = ByHand().go_to(GOT_AUTH)
            side, session = mouth.side, mouth.side.session
            side.holds_credit = True
            mouth.say(*(mouth.sealed(get_tx_set(n).body) for n in range(250)), bad(mouth))
            self.assertEqual((len(side.messages), side.reason), (201, None), name)
            self.assertFalse(session.has_more, name)
            self.assertFalse(session.may_read, name)
            session.processed(side.held, 0.0)
            self.assertTrue(session.has_more, name)
            mouth.say()
            self.assertEqual((len(side.messages), side.reason), (250, reason), name)

    def test_over_credit(self) -> None:
        """The 201st flood message of one read ends the link in silence; 200 are dispatched."""
        mouth = ByHand().go_to(GOT_AUTH)
        said = len(mouth.side.sent)
        mouth.side.holds_credit = True
        mouth.say(*(mouth.sealed(advert(n).body) for n in range(205)))
        self.assertEqual(mouth.side.reason, "unexpected flood message, peer at capacity")
        self.assertEqual(len(mouth.side.messages), 200)
        self.assertEqual(len(mouth.side.sent), said)

    def test_credit_counts_from_auth(self) -> None:
        """200 flood messages may come right behind AUTH in its read, before any grant is sent."""
        for count, reason in ((200, None), (201, "unexpected flood message, peer at capacity")):
            mouth = ByHand().go_to(GOT_HELLO)
            flood = [mouth.sealed(encode_auth())]
            flood += [mouth.sealed(advert(n).body) for n in range(count)]
            mouth.say(*flood)
            self.assertEqual((mouth.side.reason, len(mouth.side.messages)), (reason, 200))

    def test_bad_thing_before_the_one_over_credit(self) -> None:
        """A fault in what is within credit counts before a flood message that is not."""
        mouth = ByHand().go_to(GOT_AUTH)
        records = [mouth.sealed(advert(n).body) for n in range(199)]
        records += [mouth.sealed(of_type(25))]
        mouth.say(*records, *(mouth.sealed(advert(n).body) for n in range(3)))
        self.assertEqual(mouth.side.sent_error(), (1, b"received corrupt XDR"))

    def test_flood_bytes(self) -> None:
        """Bytes count as messages do: 300,000 of them, and a single message over that."""
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.side.holds_credit = True
        large = advert(hashes=1000).body  # 32,008 bytes: nine fit
        mouth.say(*(mouth.sealed(large) for _ in range(10)))
        self.assertEqual(mouth.side.reason, "unexpected flood message, peer at capacity")
        self.assertEqual(len(mouth.side.messages), 9)
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.say(mouth.sealed(of_type(8, extra=bytes(300_000))))
        self.assertEqual(mouth.side.reason, "unexpected flood message, peer at capacity")
        self.assertIsNone(mouth.side.sent_error())


class PrecedenceTests(ByHandTestCase):
    """The order in which one record is looked at (DECISIONS 3)."""

    def test_envelope_before_number_and_mac(self) -> None:
        """Odd, short, of another version or of no type: corrupt, however forged."""
        for say in (forged, renumbered):
            for body in (b"", GOOD + b"\0\0", of_type(1), of_type(2**32 - 1)):
                for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                    self.assert_ends(mouth, say(mouth, body), "received corrupt XDR", 1, label)
            for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                record = other_version(say(mouth, GOOD))
                self.assert_ends(mouth, record, "received corrupt XDR", 1, label)

    def test_mac_before_type_and_structure(self) -> None:
        """A forged message is forged before it is out of turn or corrupt."""
        for body in (of_type(2), of_type(5), of_type(13), of_type(16), GOOD + bytes(4)):
            for mouth, label in hands(GOT_HELLO, GOT_AUTH):
                self.assert_ends(mouth, forged(mouth, body), "unexpected MAC", 3, label)

    def test_type_before_structure(self) -> None:
        """What may not come at all is not walked, before AUTH and after."""
        table: dict[int, tuple[str, int | None]] = {
            2: ("out-of-order AUTH message", 0),
            13: ("received unexpected HELLO", None),
            16: ("unexpected message type SEND_MORE", None),
        }
        for kind, (reason, code) in table.items():
            for mouth, label in hands(GOT_AUTH):
                self.assert_ends(mouth, mouth.sealed(of_type(kind)), reason, code, label)
        mouth = ByHand().go_to(GOT_AUTH)
        self.assert_ends(mouth, mouth.sealed(of_type(5)), "received PEERS")
        mouth = ByHand(calls=False).go_to(GOT_AUTH)
        mouth.say(mouth.sealed(encode_peers([])))
        self.assert_ends(mouth, mouth.sealed(of_type(5)), "too many msgs PEERS")

    def test_odd_length_before_type(self) -> None:
        """An odd length is corrupt before the message is out of turn, the MAC being right."""
        for kind in (2, 13, 16, 5):
            for mouth, label in hands(GOT_AUTH):
                record = mouth.sealed(of_type(kind, extra=b"\0\0"))
                self.assert_ends(mouth, record, "received corrupt XDR", 1, f"{kind}, {label}")

    def test_odd_length_before_credit(self) -> None:
        """An odd length is corrupt before the message is over credit."""
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.side.holds_credit = True
        mouth.say(*(mouth.sealed(advert(n).body) for n in range(200)))
        record = mouth.sealed(advert().body + b"\0")
        self.assert_ends(mouth, record, "received corrupt XDR", 1)

    def test_credit_before_structure(self) -> None:
        """A flood message over credit is not walked."""
        mouth = ByHand().go_to(GOT_AUTH)
        mouth.side.holds_credit = True
        mouth.say(*(mouth.sealed(advert(n).body) for n in range(200)))
        record = mouth.sealed(advert().body + bytes(4))
        self.assert_ends(mouth, record, "unexpected flood message, peer at capacity")

    def test_structure_before_handler(self) -> None:
        """A grant of no bytes that is also too long is corrupt."""
        mouth = ByHand().go_to(GOT_AUTH)
        record = mouth.sealed(encode_send_more_extended(1, 0) + bytes(4))
        self.assert_ends(mouth, record, "received corrupt XDR", 1)

    def test_error_of_another_version(self) -> None:
        """An ERROR_MSG needs no number and MAC, but a right envelope."""
        error = error_record(0, b"bye")
        for mouth, label in hands():
            self.assert_ends(mouth, other_version(error), "received corrupt XDR", 1, label)
