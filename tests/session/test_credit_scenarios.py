"""Core's scenarios of flow control (F1-F21 of OverlayTests.cpp) between two sessions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.session.flow_control import FlowControlConfig
from stellar_overlay.session.outbox import MessagePriority
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.channel import unwrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_send_more_extended,
    encode_auth,
    encode_send_more_extended,
)
from tests.builders import advert, demand, make_node, transaction
from tests.by_hand import ByHand
from tests.pair import LivePair, Pair, Side

TX1 = transaction(5000, 1)
TX2 = transaction(6440, 2)
"""Does not fit beside TX1 into :data:`TIGHT`; its 1,440 bytes more are 20 signatures in core."""
TIGHT = FlowControlConfig(
    peer_flood_reading_capacity_bytes=2 * TX1.size + 101,
    flow_control_send_more_batch_size_bytes=TX1.size + 1,
)
U64_MAX = 2**64 - 1


def pair_of(flow_control: FlowControlConfig, max_tx_size: int = TX1.size) -> LivePair:
    """Return a pair in which both sides grant like this."""
    config = SessionConfig(flow_control=flow_control, max_tx_size=max_tx_size)
    return LivePair(configs=(config, config))


def grants(side: Side) -> list[tuple[int, int]]:
    """Return all that ``side`` has granted, oldest first."""
    frames = FrameBuffer(MAX_MESSAGE_SIZE)
    frames.feed(bytes(side.sent))
    found = []
    while (record := frames.next_record()) is not None:
        kind, body = unwrap_unauthenticated(record)
        if kind == MessageType.SEND_MORE_EXTENDED:
            found.append(decode_send_more_extended(body))
    return found


def send(pair: Pair, side: Side, message: Message) -> bool:
    """Send a message and let both sides come to rest."""
    is_queued = side.session.send(message, pair.now)
    pair.settle()
    return is_queued


def tx_bytes(side: Side) -> int:
    """Return how many bytes of transactions wait."""
    return side.session.outbox.queue_weight(MessagePriority.TRANSACTION)


class AccountingTests(SynchronousTestCase):
    """One transaction from the caller to the callee, whose settings differ."""

    SIZE = TX1.size
    CASES = (
        # name, capacity in bytes, batch in bytes, capacity and batch in messages, F, grants
        ("F3 batch < message", 2 * SIZE + 2000, SIZE // 2, 200, 40, 2 * SIZE + 2000, 1),
        ("F5 count first", 3 * SIZE + 2000, 2 * SIZE, 1, 1, 3 * SIZE + 2000, 1),
        ("F6 automatic", 0, 0, 200, 40, 300_000, 0),
        ("F7 batch = message", 2 * SIZE + 2000, SIZE, 200, 40, 2 * SIZE + 2000, 1),
    )

    def check(self, case: tuple[str, int, int, int, int, int, int], pair: LivePair) -> None:
        """F1 and F2: what is used up, and what is given back."""
        name, *_, total, granted = case
        caller, callee = pair.caller, pair.callee
        callee.holds_credit = True
        before = callee.session.flow_control.get_stats()
        self.assertEqual(before.local_flood_bytes_capacity, total, name)
        send(pair, caller, TX1)
        sender, receiver = (s.session.flow_control.get_stats() for s in (caller, callee))
        self.assertEqual(sender.peer_bytes_capacity, total - self.SIZE, name)
        self.assertEqual(tx_bytes(caller), 0, name)
        self.assertEqual(receiver.local_flood_bytes_capacity, total - self.SIZE, name)
        first = len(grants(callee))
        pair.release(callee)
        pair.settle()
        self.assertEqual(grants(callee)[first:], [(1, self.SIZE)] * granted, name)
        self.assertEqual(callee.session.flow_control.get_stats().local_flood_capacity, case[3])
        sender = caller.session.flow_control.get_stats()
        self.assertEqual(sender.peer_bytes_capacity, total - (0 if granted else self.SIZE), name)
        self.assertEqual(callee.session.flow_control.get_stats().local_flood_bytes_capacity, total)
        self.assertTrue(pair.is_authenticated)

    def test_grant_flow(self) -> None:
        """F1, F2 with the settings of F3, F5, F6 and F7 (F4 is refused as a setting)."""
        for case in self.CASES:
            _, capacity_bytes, batch_bytes, capacity, batch, _, _ = case
            flow_control = FlowControlConfig(
                peer_reading_capacity=capacity + 1,
                peer_flood_reading_capacity=capacity,
                flow_control_send_more_batch_size=batch,
                peer_flood_reading_capacity_bytes=capacity_bytes,
                flow_control_send_more_batch_size_bytes=batch_bytes,
            )
            flow_control.validate_headroom(self.SIZE)
            self.check(case, pair_of(flow_control))

    def test_versions(self) -> None:
        """F7: it makes no difference when one side or both speak an older overlay version."""
        flow_control = FlowControlConfig(
            peer_flood_reading_capacity_bytes=self.CASES[3][1],
            flow_control_send_more_batch_size_bytes=self.CASES[3][2],
        )
        config = SessionConfig(flow_control=flow_control, max_tx_size=self.SIZE)
        for newest in ((38, 42), (42, 38), (38, 38)):
            nodes = [make_node(n, overlay=(38, newest[n - 1])) for n in (1, 2)]
            self.check(self.CASES[3], LivePair(*nodes, configs=(config, config)))


class TransactionSizeTests(SynchronousTestCase):
    """F9-F14: the network's largest transaction, on both sides or on one."""

    def received(self, pair: LivePair) -> int:
        """Return how many transactions the callee was given."""
        return len(pair.callee.of_type(MessageType.TRANSACTION))

    def upgrade(self, pair: LivePair, *sides: Side, to: int = TX2.size) -> None:
        """Let sides follow a new limit."""
        for side in sides:
            side.session.set_max_tx_size(to, pair.now)
        pair.settle()

    def test_over_the_limit(self) -> None:
        """F9: a larger transaction is never queued."""
        pair = pair_of(TIGHT)
        self.assertTrue(send(pair, pair.caller, TX1))
        self.assertFalse(send(pair, pair.caller, TX2))
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 1))

    def test_fee_bump(self) -> None:
        """F10: the limit includes a buffer, and what fits into it is sent."""
        pair = pair_of(TIGHT, max_tx_size=TX1.size + 100)
        self.assertTrue(send(pair, pair.caller, TX1))
        self.assertTrue(send(pair, pair.caller, transaction(TX1.size + 100, 3)))
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 2))

    def test_both_raise(self) -> None:
        """F11: each grants the difference, as bytes alone, and the larger ones pass."""
        pair = pair_of(TIGHT)
        send(pair, pair.caller, TX1)
        self.upgrade(pair, pair.caller, pair.callee)
        for side in (pair.caller, pair.callee):
            self.assertEqual(grants(side)[1:], [(0, 1440)])
        send(pair, pair.caller, TX2)
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 2))
        send(pair, pair.caller, transaction(TX2.size - 4, 3))
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 3))

    def test_both_lower(self) -> None:
        """F12: what is queued is delivered; nothing is granted; only new ones are too large."""
        pair = pair_of(TIGHT)
        self.upgrade(pair, pair.caller, pair.callee)
        self.assertTrue(pair.caller.session.send(TX2, pair.now))
        granted = len(grants(pair.caller))
        self.upgrade(pair, pair.caller, pair.callee, to=TX1.size)
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 1))
        self.assertEqual(len(grants(pair.caller)), granted)
        self.assertTrue(send(pair, pair.caller, TX1))
        self.assertFalse(send(pair, pair.caller, TX2))
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 2))
        self.assertTrue(pair.is_authenticated)

    def test_one_raises_first(self) -> None:
        """F13: the larger one waits until the other side grants room for it."""
        pair = pair_of(TIGHT)
        send(pair, pair.caller, TX1)
        self.upgrade(pair, pair.caller)
        self.assertTrue(send(pair, pair.caller, TX2))
        pair.advance(20)
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (TX2.size, 1))
        self.upgrade(pair, pair.callee)
        self.assertEqual(grants(pair.callee)[1:], [(0, 1440), (2, TX1.size + TX2.size)])
        self.assertEqual((tx_bytes(pair.caller), self.received(pair)), (0, 2))

    def test_other_never_raises(self) -> None:
        """F14: 60 s after the first attempt the link ends, and not before."""
        pair = pair_of(TIGHT)
        send(pair, pair.caller, TX1)
        self.upgrade(pair, pair.caller)
        send(pair, pair.caller, TX2)
        pair.advance(59.9)
        self.assertTrue(pair.is_authenticated)
        pair.advance(5.1)
        self.assertEqual(pair.caller.reason, "idle timeout (no new flood requests)")
        self.assertIsNone(pair.caller.sent_error())

    def test_before_the_handshake(self) -> None:
        """A limit that grows during the handshake is in the first grant, and no second follows."""
        pair = Pair()
        pair.callee.session.set_max_tx_size(250_000, pair.now)
        pair.settle()
        self.assertEqual(grants(pair.callee), [(200, 350_000)])
        self.assertEqual(pair.caller.session.flow_control.out_bytes, 350_000)


class ActivationTests(SynchronousTestCase):
    def test_first_grants(self) -> None:
        """F16: each side may send what the other has room for: 200 messages, 300,000 bytes."""
        pair = LivePair()
        for side in (pair.caller, pair.callee):
            stats = side.session.flow_control.get_stats()
            other = pair.other(side).session.flow_control.get_stats()
            self.assertEqual(stats.peer_message_capacity, other.local_flood_capacity)
            self.assertEqual(stats.peer_bytes_capacity, other.local_flood_bytes_capacity)
            self.assertEqual(
                (stats.peer_message_capacity, stats.peer_bytes_capacity), (200, 300_000)
            )
            self.assertEqual(grants(side), [(200, 300_000)])

    def test_different_settings(self) -> None:
        """Each side grants by its own settings."""
        small = FlowControlConfig(
            peer_reading_capacity=4,
            peer_flood_reading_capacity=3,
            flow_control_send_more_batch_size=2,
            peer_flood_reading_capacity_bytes=7000,
        )
        pair = LivePair(configs=(SessionConfig(), SessionConfig(flow_control=small)))
        self.assertEqual(grants(pair.caller), [(200, 300_000)])
        self.assertEqual(grants(pair.callee), [(3, 7000)])


class IllegalGrantTests(SynchronousTestCase):
    def assert_dropped(self, mouth: ByHand, body: bytes, reason: str) -> None:
        """Say it; the link ends for ``reason`` and the peer is told nothing."""
        before = len(mouth.side.sent)
        mouth.say(mouth.sealed(body))
        self.assertEqual(mouth.side.reason, reason)
        self.assertEqual(len(mouth.side.sent), before)

    def test_zero_bytes(self) -> None:
        """F17, row 44: SEND_MORE_EXTENDED(0, 0) and (1, 0)."""
        for messages in (0, 1):
            mouth = ByHand().go_to(AuthState.GOT_AUTH)
            body = encode_send_more_extended(messages, 0)
            self.assert_dropped(mouth, body, "invalid message SEND_MORE_EXTENDED")

    def test_zero_messages(self) -> None:
        """Row 44: (0, n) and (n, 1) are legal."""
        mouth = ByHand().go_to(AuthState.GOT_AUTH)
        mouth.say(mouth.sealed(encode_send_more_extended(0, 5)))
        mouth.say(mouth.sealed(encode_send_more_extended(7, 1)))
        stats = mouth.side.session.flow_control.get_stats()
        self.assertEqual((stats.peer_message_capacity, stats.peer_bytes_capacity), (7, 6))
        self.assertIsNone(mouth.side.reason)

    def test_old_type(self) -> None:
        """F18, row 43: SEND_MORE(1)."""
        mouth = ByHand().go_to(AuthState.GOT_AUTH)
        body = MessageType.SEND_MORE.to_bytes(4, "big") + bytes((0, 0, 0, 1))
        self.assert_dropped(mouth, body, "unexpected message type SEND_MORE")

    def test_overflow(self) -> None:
        """F21, row 45: (2, 2) on top of 2^64 - 1 messages, or bytes."""
        for name in ("out_messages", "out_bytes"):
            mouth = ByHand().go_to(AuthState.GOT_AUTH)
            setattr(mouth.side.session.flow_control, name, U64_MAX)
            self.assert_dropped(mouth, encode_send_more_extended(2, 2), "Peer capacity overflow")


class OverCreditTests(SynchronousTestCase):
    """F19, row 46: flood messages beyond what was granted end the link, silently."""

    REASON = "unexpected flood message, peer at capacity"

    def hand(self, flow_control: FlowControlConfig | None = None) -> ByHand:
        """Return a hand that speaks to a session with these settings."""
        config = SessionConfig(flow_control=flow_control or FlowControlConfig())
        return ByHand(Pair(configs=(config, config))).go_to(AuthState.GOT_AUTH)

    def assert_over(self, mouth: ByHand, said: list[Message], dispatched: int) -> None:
        """Say it all in one read; so many messages come out, then the link ends."""
        mouth.say(*[mouth.sealed(message.body) for message in said])
        self.assertEqual(mouth.side.reason, self.REASON)
        self.assertEqual(mouth.side.messages, said[:dispatched])
        self.assertIsNone(mouth.side.sent_error())

    def test_bytes_for_one(self) -> None:
        """F19: room for one transaction and a bit, and two come at once."""
        flow_control = FlowControlConfig(
            peer_flood_reading_capacity_bytes=TX1.size + 2001,
            flow_control_send_more_batch_size_bytes=1,
        )
        self.assert_over(self.hand(flow_control), [TX1, TX1], 1)

    def test_one_message(self) -> None:
        """F19: one message, in batches of one, and two come at once."""
        flow_control = FlowControlConfig(
            peer_reading_capacity=2,
            peer_flood_reading_capacity=1,
            flow_control_send_more_batch_size=1,
        )
        self.assert_over(self.hand(flow_control), [TX1, TX1], 1)

    def test_201st(self) -> None:
        """200 are dispatched, the 201st is one too many."""
        self.assert_over(self.hand(), [advert(n) for n in range(201)], 200)

    def test_bytes(self) -> None:
        """Nine adverts of 32,008 bytes are dispatched, the tenth goes beyond 300,000."""
        self.assert_over(self.hand(), [advert(n, 1000) for n in range(10)], 9)

    def test_single_message(self) -> None:
        """One flood message greater than all credit."""
        self.assert_over(self.hand(), [demand(), transaction(300_004)], 1)

    def test_exactly_all(self) -> None:
        """300,000 bytes in 200 messages at once are legal."""
        mouth = self.hand()
        said = [transaction(1500, number) for number in range(200)]
        mouth.say(*[mouth.sealed(message.body) for message in said])
        self.assertIsNone(mouth.side.reason)
        self.assertEqual(mouth.side.messages, said)

    def test_not_granted_back_yet(self) -> None:
        """DECISIONS 3b: what was processed may be sent again only after the grant."""
        mouth = self.hand()
        mouth.say(*[mouth.sealed(advert(n).body) for n in range(39)])
        mouth.side.messages.clear()
        self.assert_over(mouth, [advert(n) for n in range(162)], 161)

    def test_before_our_first_grant(self) -> None:
        """Credit exists from AUTH on: a flood message right behind it is legal."""
        mouth = ByHand().go_to(AuthState.GOT_HELLO)
        mouth.say(mouth.sealed(encode_auth()) + mouth.sealed(advert().body))
        self.assertEqual(mouth.side.messages, [advert()])
        self.assertIsNone(mouth.side.kind)

    def test_no_hashes(self) -> None:
        """Row 48: empty adverts and demands are accepted and cost one message each."""
        mouth = self.hand()
        empty = [advert(hashes=0), demand(hashes=0)] * 100
        self.assert_over(mouth, [*empty, advert(hashes=0)], 200)


class NeverGrantsAgainTests(SynchronousTestCase):
    def test_idle_flow_control(self) -> None:
        """F20: room for one, two are sent, and no grant follows: the sender ends the link."""
        flow_control = FlowControlConfig(peer_flood_reading_capacity_bytes=TX1.size)
        pair = pair_of(flow_control)
        pair.callee.holds_credit = True
        send(pair, pair.caller, TX1)
        send(pair, pair.caller, TX1)
        self.assertEqual(tx_bytes(pair.caller), TX1.size)
        self.assertLess(pair.caller.session.flow_control.out_bytes, TX1.size)
        pair.advance(59.9)
        self.assertTrue(pair.is_authenticated)
        pair.advance(5.1)
        self.assertEqual(pair.caller.kind, DropReason.NO_FLOOD_REQUESTS)
