"""A link and its transport: what is written when, and when reading stops."""

from __future__ import annotations

from collections.abc import Sequence

from stellar_overlay.node.connection import Connection
from stellar_overlay.session.flow_control import FlowControlConfig, Item
from stellar_overlay.session.outbox import OutboxConfig
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.testing.memory import BUFFER_SIZE
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType, encode_send_more_extended
from tests.builders import advert, get_tx_set
from tests.node.world import LinkTestCase, Owner

SMALL = SessionConfig(
    flow_control=FlowControlConfig(
        peer_reading_capacity=3,
        peer_flood_reading_capacity=2,
        flow_control_send_more_batch_size=1,
    )
)
"""Three messages in processing, and no more."""


def tx_set(number: int, size: int) -> Message:
    """Return a big message that flow control does not count; well-formed in its type only."""
    return Message(b"\0\0\0\7" + number.to_bytes(4, "big") + bytes(size - 8))


def asked_for(peer: ScriptedPeer) -> list[Message]:
    """Return the GET_TX_SETs that a peer received."""
    return peer.of_type(MessageType.GET_TX_SET)


class WritingTests(LinkTestCase):
    """Towards the transport a link is a push producer."""

    def test_what_is_sent_in_one_turn_is_one_write(self) -> None:
        """Ten messages of one turn leave together, in the order in which they were sent."""
        owner, peer = self.open()
        writes = owner.metrics.async_write.get()
        messages = [get_tx_set(number) for number in range(10)]
        self.assertTrue(all(owner.link.send(message) for message in messages))
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 2)  # its timer, and the flush
        self.world.settle()
        self.assertEqual(owner.metrics.async_write.get(), writes + 1)
        self.assertEqual(asked_for(peer), messages)

    def test_answers_within_a_read_leave_with_it(self) -> None:
        """What is sent while messages are dispatched is written when their turn ends."""
        owner, peer = self.open()
        owner.on_dispatch = lambda link, items: [link.send(get_tx_set(i)) for i in range(3)]
        writes = owner.metrics.async_write.get()
        peer.send(get_tx_set(100))
        peer.send(get_tx_set(101))
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 2)
        self.assertEqual(len(asked_for(peer)), 3)
        self.assertEqual(owner.metrics.async_write.get(), writes + 1)

    def test_nothing_is_sealed_while_the_transport_is_full(self) -> None:
        """A message gets its number when it can leave, not when it is sent."""
        owner, peer = self.open()
        _, ours = self.world.transports()
        ours.cork()
        messages = [get_tx_set(number) for number in range(3000)]
        for message in messages[:2000]:
            owner.link.send(message)
        self.world.settle()
        sealing = owner.link.session.auth.sealing
        assert sealing is not None
        sealed = sealing.sequence
        buffered = ours.buffered
        self.assertGreater(buffered, BUFFER_SIZE)
        self.assertLess(sealed, 2000)
        for message in messages[2000:]:
            owner.link.send(message)
        self.world.advance(10)
        self.assertEqual((sealing.sequence, ours.buffered), (sealed, buffered))
        ours.uncork()
        self.world.settle()
        self.assertEqual(asked_for(peer), messages)

    def test_buffered_bytes_stay_bounded(self) -> None:
        """Of 5 MB for a peer that reads nothing, one batch is in the transport."""
        owner, peer = self.open()
        _, ours = self.world.transports()
        ours.cork()
        messages = [tx_set(number, 100_000) for number in range(50)]
        for message in messages:
            owner.link.send(message)
            self.world.settle()
            self.assertLess(ours.buffered, BUFFER_SIZE + 1024 * 1024 + 100_000)
        ours.uncork()
        self.world.settle()
        self.assertEqual(peer.of_type(MessageType.TX_SET), messages)

    def test_a_peer_is_not_owed_without_bound(self) -> None:
        """Beyond the limit of answers a message is refused, and those before it still leave."""
        limit = SessionConfig(outbox=OutboxConfig(answer_byte_limit=1_000_000))
        owner, peer = self.open(limit)
        _, ours = self.world.transports()
        ours.cork()
        sent = [owner.link.send(tx_set(number, 100_000)) for number in range(14)]
        self.world.settle()
        self.assertEqual(sent.count(True), 10)
        self.assertEqual(sent, sorted(sent, reverse=True))
        ours.uncork()
        self.world.settle()
        self.assertEqual(len(peer.of_type(MessageType.TX_SET)), 10)

    def test_writing_counts_when_the_transport_is_empty(self) -> None:
        """While bytes wait in a full transport, the clock of the last write stands still."""
        owner, _ = self.open()
        _, ours = self.world.transports()
        before = owner.link.session.clocks.last_write
        ours.cork()
        for number in range(2000):
            owner.link.send(get_tx_set(number))
        self.world.advance(3)
        self.assertEqual(owner.link.session.clocks.last_write, before)
        ours.uncork()
        self.world.settle()
        self.assertEqual(owner.link.session.clocks.last_write, self.world.clock.seconds())

    def test_messages_are_counted_alike_at_both_ends(self) -> None:
        """Each message that leaves is counted once, whoever made it (core TCPPeerTests.cpp:90)."""
        owner, peer = self.open()
        self.assertEqual(owner.metrics.messages_written.get(), len(peer.received))
        # HELLO, AUTH and the first grant.
        self.assertEqual(owner.metrics.messages_read.get(), 3)
        owner.link.send(get_tx_set())
        peer.send(get_tx_set())
        self.world.settle()
        self.assertEqual(owner.link.messages_written, len(peer.received))
        self.assertEqual(owner.link.messages_read, 4)
        self.assertEqual(owner.metrics.bytes_written.get(), owner.link.bytes_written)
        self.assertEqual(owner.metrics.bytes_read.get(), owner.link.bytes_read)

    def test_what_the_protocol_itself_sends_is_refused(self) -> None:
        """Nobody else may send HELLO, AUTH, ERROR_MSG, PEERS or grants."""
        owner, _ = self.open()
        for body in (
            owner.link.session.auth.create_hello().body,
            owner.link.session.auth.create_auth().body,
            encode_send_more_extended(1, 1),
            bytes(12),
            b"\0\0\0\5" + bytes(4),
            b"\0\0\0\x10" + bytes(4),
        ):
            message = Message(body)
            with self.assertRaises(ValueError, msg=message.type.name):
                owner.link.send(message)

    def test_nothing_can_be_sent_before_authentication(self) -> None:
        """A link that is shaking hands takes no message."""
        owner, _ = self.open(is_polite=False)
        self.assertIs(owner.link.send(get_tx_set()), False)


class ReadingTests(LinkTestCase):
    """Reading goes on while there is capacity for what comes."""

    def test_held_credit_pauses_reading(self) -> None:
        """With three messages held of three, the fourth is not dispatched and later ones wait."""
        owner, peer = self.open(SMALL)
        theirs, _ = self.world.transports()
        owner.holds_credit = True
        for number in range(4):
            peer.send(get_tx_set(number))
        self.world.settle()
        self.assertEqual(owner.dispatched, [get_tx_set(number) for number in range(3)])
        peer.send(get_tx_set(4))
        self.world.settle()
        self.assertEqual(theirs.buffered, 84)
        self.assertEqual(len(owner.dispatched), 3)

    def test_released_credit_resumes_reading(self) -> None:
        """Each message that is released lets one more in, in order, until all have come."""
        owner, peer = self.open(SMALL)
        theirs, _ = self.world.transports()
        owner.holds_credit = True
        for number in range(8):
            peer.send(get_tx_set(number))
            self.world.settle()
        for released in range(1, 9):
            owner.link.processed([owner.held.pop(0)])
            self.world.settle()
            expected = [get_tx_set(number) for number in range(min(8, 3 + released))]
            self.assertEqual(owner.dispatched, expected)
        self.assertEqual(theirs.buffered, 0)

    def test_bytes_are_capacity_too(self) -> None:
        """A message above the total byte capacity is taken alone; the next one waits for it."""
        owner, peer = self.open(
            SessionConfig(flow_control=FlowControlConfig(peer_total_reading_capacity_bytes=50))
        )
        owner.holds_credit = True
        for number in range(3):
            peer.send(get_tx_set(number))
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 2)
        owner.link.processed([owner.held.pop(0)])
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 3)

    def test_the_time_without_reading_is_measured(self) -> None:
        """The read-throttle timer gets the seconds from the pause to the resumption."""
        owner, peer = self.open(SMALL)
        owner.holds_credit = True
        for number in range(3):
            peer.send(get_tx_set(number))
        self.world.settle()
        self.assertTrue(owner.link.session.flow_control.is_throttled)
        self.world.advance(2.5)
        owner.link.processed(owner.held)
        self.assertFalse(owner.link.session.flow_control.is_throttled)
        throttle = owner.metrics.connection_read_throttle.snapshot()
        self.assertEqual((throttle.count, throttle.total), (1, 2.5))

    def test_a_release_within_a_dispatch_does_not_nest(self) -> None:
        """A message released while a later one is dispatched brings the next only afterwards."""
        owner, peer = self.open(SMALL)
        owner.holds_credit = True
        depths: list[int] = []
        depth = 0

        def dispatch(link: Connection, items: Sequence[Item]) -> None:
            nonlocal depth
            depth += 1
            depths.append(depth)
            held, owner.held = owner.held, []
            link.processed(held)
            depth -= 1

        for number in range(12):
            peer.send(get_tx_set(number))
            if number == 1:
                self.world.settle()
                owner.on_dispatch = dispatch
        self.world.settle()
        self.assertEqual(owner.dispatched, [get_tx_set(number) for number in range(12)])
        self.assertEqual(set(depths), {1})
        # And once more, from a link that does not read.
        owner.on_dispatch = lambda link, items: None
        for number in range(12, 24):
            peer.send(get_tx_set(number))
        self.world.settle()
        owner.on_dispatch = dispatch
        owner.link.processed([owner.held.pop()])
        self.assertEqual(owner.dispatched, [get_tx_set(number) for number in range(24)])
        self.assertEqual(set(depths), {1})

    def test_a_release_within_another_links_dispatch_keeps_order(self) -> None:
        """What one link's observer releases of another link comes at once, and in order."""
        owner, slow = self.open(SMALL)
        slow_link = owner.link
        quick = self.world.call(number=8)
        owner.holds_credit = True
        for number in range(6):
            slow.send(get_tx_set(number))
        self.world.settle()

        def dispatch(link: Connection, items: Sequence[Item]) -> None:
            if link is not slow_link:
                owner.holds_credit = False
                held, owner.held = owner.held, []
                slow_link.processed(held)

        owner.on_dispatch = dispatch
        quick.send(get_tx_set(100))
        self.world.settle()
        expected = [get_tx_set(number) for number in (0, 1, 2, 100, 3, 4, 5)]
        self.assertEqual(owner.dispatched, expected)

    def test_credit_that_is_never_released_ends_no_link(self) -> None:
        """A stuck consumer stops the reading, and ten minutes later the peer is still there."""
        owner, peer = self.open(SMALL)
        owner.holds_credit = True
        for number in range(3):
            peer.send(get_tx_set(number))
        self.world.advance(600, step=1)
        self.assertEqual(owner.violations, [])
        self.assertFalse(peer.is_closed)

    def test_credit_released_after_the_end_is_ignored(self) -> None:
        """A consumer that is done after the link is gone disturbs nobody."""
        owner, peer = self.open(SMALL)
        owner.holds_credit = True
        for number in range(5):
            peer.send(get_tx_set(number))
        self.world.settle()
        self.world.transports()[0].abortConnection()
        self.world.settle()
        owner.link.processed(owner.held)
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 3)
        self.assert_ended(
            owner,
            peer,
            "error reading message header: Connection to the other side was lost in a non-clean"
            " fashion.",
            None,
        )

    def test_messages_behind_auth_are_dispatched_after_it(self) -> None:
        """What arrives in one read with AUTH comes after the link was announced."""
        owner = Owner(self.world)
        peer = self.world.call(is_polite=False)
        peer.say_hello()
        self.world.settle()
        peer.auth.accept_hello(peer.auth.read_hello(peer.received[0]))
        seen: list[list[str]] = []
        owner.on_dispatch = lambda link, items: seen.append(list(owner.events))
        peer.say_auth()
        peer.grant()
        peer.send(advert())
        self.world.settle()
        self.assertEqual(seen, [["authenticated"]])
        self.assertEqual(owner.dispatched, [advert()])

    def test_any_chunking_gives_the_same_messages(self) -> None:
        """Byte by byte or all at once, the same is dispatched and the same is answered."""
        outcomes = []
        for size in (1, 7, 64, 1_000_000):
            owner, peer = self.open(SMALL)
            assert peer.auth.sealing is not None
            data = b"".join(peer.auth.sealing.seal(get_tx_set(n).body) for n in range(20))
            for at in range(0, len(data), size):
                owner.link.dataReceived(data[at : at + size])
            self.world.settle()
            outcomes.append((owner.dispatched, len(peer.received)))
            owner.link.abort()
            self.world.settle()
        self.assertEqual(outcomes[0][0], [get_tx_set(number) for number in range(20)])
        self.assertEqual(outcomes[1:], outcomes[:1] * 3)
