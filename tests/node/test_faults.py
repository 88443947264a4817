"""Misbehaviour of the peer, time-outs, and errors of our own: what they do to a link."""

from __future__ import annotations

from stellar_overlay.node.connection import Connection
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.channel import SealingKey, wrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, frame
from stellar_overlay.wire.message import MessageType
from tests.builders import advert, get_tx_set
from tests.node.world import SMALL, LinkTestCase, Owner


class MisbehaviourTests(LinkTestCase):
    """Core's tests over TCP, on one link; what is wrong ends it and what follows is not parsed."""

    def assert_second_is_not_parsed(
        self, first: bytes, reason: str, error: tuple[int, bytes] | None
    ) -> None:
        owner, peer = self.open()
        read = owner.metrics.messages_read.get()
        good = frame(peer.auth.wrap_message(advert()))
        peer.send_bytes(first + good)
        self.world.settle()
        self.assertEqual(owner.dispatched, [])
        self.assertEqual(owner.metrics.messages_read.get(), read)
        self.assertEqual(len(peer.of_type(MessageType.ERROR_MSG)), 0 if error is None else 1)
        self.assert_ended(owner, peer, reason, error)

    def test_a_record_above_the_limit(self) -> None:
        """C4, row 3: 16 MiB and one byte are refused before a byte of them has come."""
        claim = (0x80000000 | MAX_MESSAGE_SIZE + 1).to_bytes(4, "big")
        self.assert_second_is_not_parsed(claim, "error during read", None)

    def test_a_message_without_a_number(self) -> None:
        """C5, row 16: one ERROR_MSG, and the good message behind it is not read."""
        self.assert_second_is_not_parsed(
            frame(wrap_unauthenticated(advert().body)),
            "unexpected auth sequence",
            (3, b"unexpected auth sequence"),
        )

    def test_junk(self) -> None:
        """C6, row 5: 255 bytes are no XDR."""
        self.assert_second_is_not_parsed(
            frame(bytes(255)), "received corrupt XDR", (1, b"received corrupt XDR")
        )

    def test_flood_beyond_the_grant(self) -> None:
        """C7: with credit for one message, the second one in processing ends the link silently."""
        owner, peer = self.open(SMALL)
        owner.holds_credit = True
        peer.send(advert(1))
        peer.send(advert(2))
        self.world.settle()
        self.assertEqual(owner.dispatched, [advert(1)])
        self.assert_ended(owner, peer, "unexpected flood message, peer at capacity", None)

    def test_messages_before_the_fault_are_dispatched(self) -> None:
        """Those that came with a forged one, but before it, count."""
        owner, peer = self.open()
        peer.send(get_tx_set(1))
        peer.send_forged(get_tx_set(2))
        peer.send(get_tx_set(3))
        self.world.settle()
        self.assertEqual(owner.dispatched, [get_tx_set(1)])
        self.assert_ended(owner, peer, "unexpected MAC", (3, b"unexpected MAC"))

    def test_a_fault_behind_messages_that_wait_for_credit_acts_after_them(self) -> None:
        """A forged message does not overtake good ones that are held up here."""
        owner, peer = self.open(SMALL)
        owner.holds_credit = True
        for number in range(5):
            peer.send(get_tx_set(number))
        peer.send_forged(get_tx_set(5))
        self.world.settle()
        self.assertEqual(owner.violations, [])
        while owner.held:
            owner.link.processed([owner.held.pop(0)])
        self.world.settle()
        self.assertEqual(owner.dispatched, [get_tx_set(number) for number in range(5)])
        self.assert_ended(owner, peer, "unexpected MAC", (3, b"unexpected MAC"))


class ClockTests(LinkTestCase):
    """What the one timer of a link does."""

    def test_a_handshake_has_until_the_first_look_at_the_clock(self) -> None:
        """H11, row 36: silence, or a trickle of bytes, is closed five seconds after it began."""
        for trickle in (b"", b"\0"):
            owner, peer = self.open(is_polite=False)
            peer.send_bytes(b"\x80\0\x01\0")
            for _ in range(39):
                peer.send_bytes(trickle)
                self.world.advance(0.125)
            self.assertEqual(owner.violations, [])
            self.world.advance(0.125)
            self.assert_ended(owner, peer, "idle timeout", None)

    def test_a_late_timer_reads_first(self) -> None:
        """After a turn of forty seconds, a peer whose bytes wait in the kernel is not idle."""
        owner, peer = self.open()
        self.world.advance(1)
        theirs, _ = self.world.transports()
        theirs.latency = 39
        peer.send(get_tx_set())
        self.world.clock.advance(40)
        self.assertEqual((owner.dispatched, owner.violations), ([get_tx_set()], []))

    def test_a_link_keeps_one_timer(self) -> None:
        """However long it lives and however much it reads."""
        owner, peer = self.open()
        for number in range(100):
            peer.send(get_tx_set(number))
            self.world.advance(1)
            self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)
        self.assertEqual(owner.violations, [])


class BrokenKey(SealingKey):
    """Fails to seal."""

    def seal_into(self, *_: object) -> None:
        raise ZeroDivisionError


class OurFaultTests(LinkTestCase):
    """An error of ours costs the link on which it happens, and no other."""

    def assert_internal(self, owner: Owner, peer: ScriptedPeer, others: list[Connection]) -> None:
        failures = self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(len(failures), 1)
        self.assertEqual([violation.reason for violation in owner.violations], ["internal error"])
        self.assertEqual(peer.of_type(MessageType.ERROR_MSG), [])
        self.assertTrue(peer.is_closed)
        for link in others:
            self.assertIsNone(link.violation)

    def break_down(self, *_: object) -> None:
        raise ZeroDivisionError

    def test_in_a_handler(self) -> None:
        """It is logged as a failure, and the peer is told nothing."""
        owner, other_peer = self.open()
        other = owner.link
        peer = self.world.call(number=8)
        owner.on_dispatch = lambda link, items: None if link is other else self.break_down()
        peer.send(get_tx_set(1))
        other_peer.send(get_tx_set(2))
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 2)
        self.assert_internal(owner, peer, [other])

    def test_while_writing(self) -> None:
        """The links that are flushed in the same turn are flushed all the same."""
        owner, before_peer = self.open()
        peer = self.world.call(number=8)
        after_peer = self.world.call(number=7)
        before, link, after = owner.links
        link.session.auth.sealing = BrokenKey(bytes(32))
        for each in owner.links:
            each.send(get_tx_set())
        self.world.settle()
        for fine in (before_peer, after_peer):
            self.assertEqual(len(fine.of_type(MessageType.GET_TX_SET)), 1)
        self.assert_internal(owner, peer, [before, after])

    def test_at_a_deadline(self) -> None:
        """A timer that fails leaves no link behind that nobody looks after."""
        owner, peer = self.open()
        self.patch(owner.local_node, "token_bytes", self.break_down)
        self.world.advance(5)
        self.assert_internal(owner, peer, [])
        self.world.advance(5)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
