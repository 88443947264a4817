"""Misbehaviour of an authenticated peer, and what is none (connection.md 12, rows 39 to 55)."""

from __future__ import annotations

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.session.flow_control import MAX_CAPACITY
from stellar_overlay.session.outbox import OutboxConfig
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import (
    MessageType,
    PeerEntry,
    encode_dont_have,
    encode_hashes,
    encode_peers,
    encode_send_more_extended,
)
from tests.builders import advert, demand, error_record, get_tx_set
from tests.by_hand import ByHand, ByHandTestCase, hands
from tests.pair import Pair

GOT_AUTH = AuthState.GOT_AUTH
ADVERT = MessageType.FLOOD_ADVERT


def authenticated(*, calls: bool = True, config: SessionConfig | None = None) -> ByHand:
    """Return a hand whose session has taken its AUTH."""
    config = config or SessionConfig()
    return ByHand(Pair(configs=(config, config)), calls=calls).go_to(GOT_AUTH)


class PeersTests(ByHandTestCase):
    """PEERS: from the side that was dialled, once (rows 39 and 40)."""

    def test_from_a_caller(self) -> None:
        """A callee never takes PEERS, not even empty ones."""
        for entries in ([], [PeerEntry("1.1.1.1", 11625)]):
            mouth = authenticated()
            self.assert_ends(mouth, mouth.sealed(encode_peers(entries)), "received PEERS")

    def test_twice_from_a_callee(self) -> None:
        """A caller takes PEERS once, empty or not; the second time ends the link in silence."""
        for first in ([], [PeerEntry("1.1.1.1", 11625)]):
            mouth = authenticated(calls=False)
            mouth.say(mouth.sealed(encode_peers(first)))
            self.assertIsNone(mouth.side.reason)
            self.assert_ends(mouth, mouth.sealed(encode_peers([])), "too many msgs PEERS")

    def test_twice_in_one_read(self) -> None:
        """The first of two in one read is dispatched."""
        mouth = authenticated(calls=False)
        mouth.say(*(mouth.sealed(encode_peers([PeerEntry("1.1.1.1", n)])) for n in (1, 2)))
        self.assertEqual(mouth.side.reason, "too many msgs PEERS")
        self.assertEqual(len(mouth.side.of_type(MessageType.PEERS)), 1)

    def test_strange_entries(self) -> None:
        """Addresses that nobody would dial are no misbehaviour: they come out as they are."""
        entries = [
            PeerEntry("1.1.1.1", 0),
            PeerEntry("1.1.1.1", 70_000, 2**32 - 1),
            PeerEntry("::1", 11625),
            PeerEntry("127.0.0.1", 2**32 - 1),
            PeerEntry("0.0.0.0", 1),  # noqa: S104
        ]
        mouth = authenticated(calls=False)
        mouth.say(mouth.sealed(encode_peers(entries * 20)))
        self.assertIsNone(mouth.side.reason)
        self.assertEqual([m.body for m in mouth.side.messages], [encode_peers(entries * 20)])


class GrantTests(ByHandTestCase):
    """SEND_MORE and SEND_MORE_EXTENDED (rows 43 to 45)."""

    def test_send_more(self) -> None:
        """The old SEND_MORE ends the link in silence, whatever it says (43)."""
        for number in (0, 1, 2**32 - 1):
            for mouth, label in hands(GOT_AUTH):
                record = mouth.sealed(b"\0\0\0\x10" + number.to_bytes(4, "big"))
                reason = "unexpected message type SEND_MORE"
                self.assert_ends(mouth, record, reason, None, label)

    def test_no_bytes(self) -> None:
        """A grant of no bytes ends the link in silence (44)."""
        for messages in (0, 1, 2**32 - 1):
            for mouth, label in hands(GOT_AUTH):
                record = mouth.sealed(encode_send_more_extended(messages, 0))
                self.assert_ends(mouth, record, "invalid message SEND_MORE_EXTENDED", None, label)

    def test_fine_grants(self) -> None:
        """A grant of no messages, of one byte, or of all that fits is fine (44)."""
        for messages, size in ((0, 1), (0, 2**32 - 1), (1, 1), (2**32 - 1, 2**32 - 1)):
            for mouth, label in hands(GOT_AUTH):
                mouth.say(mouth.sealed(encode_send_more_extended(messages, size)))
                self.assertIsNone(mouth.side.reason, label)
                flow = mouth.side.session.flow_control
                self.assertEqual((flow.out_messages, flow.out_bytes), (messages, size), label)

    def test_overflow(self) -> None:
        """Credit beyond 2^64-1 messages or bytes ends the link in silence (45)."""
        for messages, size in ((MAX_CAPACITY, 0), (0, MAX_CAPACITY)):
            mouth = authenticated()
            flow = mouth.side.session.flow_control
            flow.out_messages, flow.out_bytes = messages, size
            record = mouth.sealed(encode_send_more_extended(1, 1))
            self.assert_ends(mouth, record, "Peer capacity overflow")

    def test_up_to_the_brim(self) -> None:
        """Credit of exactly 2^64-1 is fine (45)."""
        mouth = authenticated()
        flow = mouth.side.session.flow_control
        flow.out_messages = flow.out_bytes = MAX_CAPACITY - 2
        mouth.say(mouth.sealed(encode_send_more_extended(2, 2)))
        self.assertIsNone(mouth.side.reason)
        self.assertEqual((flow.out_messages, flow.out_bytes), (MAX_CAPACITY, MAX_CAPACITY))

    def test_grants_are_nobody_elses(self) -> None:
        """A grant is not dispatched."""
        mouth = authenticated()
        mouth.say(mouth.sealed(encode_send_more_extended(1, 1)))
        self.assertEqual(mouth.side.messages, [])

    def test_many_grants(self) -> None:
        """Grants are dealt with as they come: a thousand of them leave all capacity free."""
        mouth = authenticated()
        mouth.side.holds_credit = True
        mouth.say(*(mouth.sealed(encode_send_more_extended(1, 1)) for _ in range(1000)))
        session = mouth.side.session
        self.assertEqual(session.flow_control.out_messages, 1000)
        self.assertEqual(session.flow_control.get_stats().local_total_capacity, 201)
        self.assertTrue(session.may_read)


class FloodTests(ByHandTestCase):
    """What a peer may flood (rows 46 to 48)."""

    def test_over_credit_across_reads(self) -> None:
        """With nothing processed the 201st flood message is too many, in whatever read (46)."""
        mouth = authenticated()
        mouth.side.holds_credit = True
        for number in range(200):
            mouth.say(mouth.sealed(advert(number).body))
        self.assertIsNone(mouth.side.reason)
        reason = "unexpected flood message, peer at capacity"
        self.assert_ends(mouth, mouth.sealed(demand().body), reason)

    def test_within_grants(self) -> None:
        """Whoever sends only what was granted may send for ever (46)."""
        mouth = authenticated()
        for number in range(1000):
            mouth.say(mouth.sealed(advert(number).body))
        self.assertIsNone(mouth.side.reason)
        grants = [body for kind, _, body in mouth.heard if kind is MessageType.SEND_MORE_EXTENDED]
        self.assertEqual(grants[1:], [encode_send_more_extended(40, 1600)] * 25)

    def test_empty_lists(self) -> None:
        """An advert or demand of no hashes is accepted and dispatched (48)."""
        for kind in (MessageType.FLOOD_ADVERT, MessageType.FLOOD_DEMAND):
            mouth = authenticated()
            mouth.say(mouth.sealed(encode_hashes(kind, [])))
            self.assertEqual([m.body for m in mouth.side.messages], [encode_hashes(kind, [])])
            self.assertIsNone(mouth.side.reason)

    def test_what_is_not_flood_never_ends_a_link(self) -> None:
        """A thousand questions in one read wait for capacity; the link stays (47)."""
        mouth = authenticated()
        mouth.say(*(mouth.sealed(get_tx_set(n).body) for n in range(1000)))
        self.assertEqual((len(mouth.side.messages), mouth.side.reason), (1000, None))


class ClockTests(ByHandTestCase):
    """Stingy, mute and slow peers (rows 42, 53 to 55)."""

    def _live(self, mouth: ByHand, seconds: int) -> None:
        """Let time pass, with a question from the peer every second."""
        for _ in range(seconds):
            mouth.pair.advance(1)
            mouth.say(mouth.sealed(get_tx_set().body))

    def test_never_grants(self) -> None:
        """A peer that grants nothing is dropped in silence at 60 s, though it talks (42)."""
        mouth = authenticated()
        self._live(mouth, 59)
        self.assertIsNone(mouth.side.reason)
        self._live(mouth, 6)
        self.assertEqual(mouth.side.reason, "idle timeout (no new flood requests)")
        self.assertIsNone(mouth.side.sent_error())

    def test_never_answers_pings(self) -> None:
        """A peer that answers no ping but talks stays; there is just no round trip (53)."""
        mouth = authenticated()
        mouth.say(mouth.sealed(encode_send_more_extended(200, 300_000)))
        self._live(mouth, 300)
        self.assertIsNone(mouth.side.reason)
        self.assertIsNone(mouth.side.session.clocks.ping_ms)

    def test_answers_another_ping(self) -> None:
        """A DONT_HAVE for a hash that was no ping is dispatched, and measures nothing (53)."""
        mouth = authenticated()
        mouth.pair.advance(5)
        mouth.say(mouth.sealed(encode_dont_have(10, b"\x01" * 32)))
        self.assertEqual(len(mouth.side.of_type(MessageType.DONT_HAVE)), 1)
        self.assertIsNone(mouth.side.session.clocks.ping_ms)

    def test_reads_nothing(self) -> None:
        """When our writes stall for 120 s the link ends in silence (54)."""
        mouth = authenticated()
        mouth.say(mouth.sealed(encode_send_more_extended(200, 300_000)))
        session = mouth.side.session
        for now in range(5, 120, 5):
            mouth.pair.now = now
            session.on_deadline(now)
            mouth.pair.feed(mouth.side, mouth.sealed(get_tx_set().body))
        with self.assertRaises(PeerViolation) as caught:
            session.on_deadline(120)
        self.assertEqual(caught.exception.reason, "straggling (cannot keep up)")
        self.assertIsNone(caught.exception.code)

    def test_queues_are_cleared(self) -> None:
        """Adverts for a peer without grants are dropped all at once, beyond the limit (55)."""
        config = SessionConfig(outbox=OutboxConfig(max_tx_set_size_ops=10))
        mouth = authenticated(config=config)
        for number in range(13):
            mouth.side.session.send(advert(number), 0.0)
        mouth.say(mouth.sealed(encode_send_more_extended(200, 300_000)))
        sent = [body for kind, _, body in mouth.heard if kind is ADVERT]
        self.assertEqual(sent, [advert(number).body for number in (11, 12)])
        self.assertIsNone(mouth.side.reason)

    def test_error_record_is_what_we_say(self) -> None:
        """An operator's drop is said with its text, after what was queued before it."""
        mouth = authenticated()
        mouth.side.session.send(get_tx_set(), 0.0)
        mouth.pair.end(mouth.side, DropReason.DROPPED_BY_USER.violation())
        mouth.hear()
        kinds = [kind for kind, _, _ in mouth.heard[-2:]]
        self.assertEqual(kinds, [MessageType.GET_TX_SET, MessageType.ERROR_MSG])
        self.assertTrue(bytes(mouth.side.sent).endswith(error_record(0, b"dropped by user")))
