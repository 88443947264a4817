"""How a link ends: for which reason, what the peer is told, and that nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.error import DropReason
from stellar_overlay.node.connection import CLOSING_DELAY_SECONDS
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import MessageType
from tests.builders import advert, get_tx_set, make_node
from tests.node.world import CLEANLY, SILENT, SMALL, TOLD, UNCLEANLY, LinkTestCase, Owner


def pause_writing(test: LinkTestCase, owner: Owner) -> None:
    """Fill the transport of a link whose peer reads nothing."""
    test.world.transports()[1].cork()
    for number in range(2000):
        owner.link.send(get_tx_set(number))
    test.world.settle()


def pause_reading(test: LinkTestCase, owner: Owner, peer: ScriptedPeer) -> None:
    """Let the owner hold all the credit there is, and let more wait in the transport."""
    owner.holds_credit = True
    for number in range(4):
        peer.send(get_tx_set(number))
        test.world.settle()


class OurDropTests(LinkTestCase):
    """The link is dropped here."""

    def test_a_reason_with_a_code_is_told(self) -> None:
        """The peer gets ERROR_MSG and then the end of the stream."""
        owner, peer = self.open()
        owner.link.drop(TOLD.violation())
        self.assertEqual(owner.events, ["authenticated", "dropped"])
        self.world.settle()
        self.assertIs(peer.received[-1].type, MessageType.ERROR_MSG)
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))

    def test_a_reason_without_a_code_is_not_told(self) -> None:
        """The peer only sees the end of the stream."""
        owner, peer = self.open()
        owner.link.drop(SILENT.violation())
        self.world.settle()
        self.assert_ended(owner, peer, "unexpected flood message, peer at capacity", None)
        self.assertEqual(peer.of_type(MessageType.ERROR_MSG), [])

    def test_what_was_sent_before_leaves_before_the_error(self) -> None:
        """C3: GET_TX_SET and ERROR_MSG are the last two messages that are written."""
        owner, peer = self.open()
        written = owner.metrics.messages_written.get()
        owner.link.send(get_tx_set())
        owner.link.drop(TOLD.violation())
        self.world.settle()
        kinds = [message.type for message in peer.received[-2:]]
        self.assertEqual(kinds, [MessageType.GET_TX_SET, MessageType.ERROR_MSG])
        self.assertEqual(owner.metrics.messages_written.get(), written + 2)
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))

    def test_a_second_drop_does_nothing(self) -> None:
        """The first reason counts, and the peer is told once."""
        owner, peer = self.open()
        owner.link.drop(TOLD.violation())
        owner.link.drop(DropReason.SHUTDOWN.violation())
        self.world.settle()
        owner.link.drop(DropReason.IDLE.violation())
        self.assertEqual(len(peer.of_type(MessageType.ERROR_MSG)), 1)
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))
        self.assertEqual(owner.metrics.drops[TOLD].get(), 1)
        self.assertEqual(owner.metrics.drops[DropReason.SHUTDOWN].get(), 0)

    def test_a_dropped_link_sends_nothing_more(self) -> None:
        """What is sent after the drop is refused."""
        owner, _ = self.open()
        owner.link.drop(TOLD.violation())
        self.assertIs(owner.link.send(get_tx_set()), False)

    def test_what_a_dropped_peer_still_says_is_not_looked_at(self) -> None:
        """Row 15: bytes after our drop are neither dispatched nor answered."""
        owner, peer = self.open()
        peer.send(get_tx_set())
        peer.send_forged(get_tx_set())
        owner.link.drop(TOLD.violation())
        self.world.settle()
        self.assertEqual(owner.dispatched, [])
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))

    def test_a_dropped_link_is_gone_in_five_seconds_whatever_the_peer_does(self) -> None:
        """A peer that reads nothing and closes nothing is cut off, told or not."""
        for reason in (TOLD, SILENT):
            owner, peer = self.open()
            self.world.transports()[1].cork()
            owner.link.send(get_tx_set())
            self.world.settle()
            owner.link.drop(reason.violation())
            self.world.advance(CLOSING_DELAY_SECONDS - 0.125)
            self.assertEqual(owner.events, ["authenticated", "dropped"], reason)
            self.world.advance(0.125)
            self.assert_ended(owner, peer, reason.text, None)

    def test_a_peer_that_never_stops_talking_is_cut_off(self) -> None:
        """After its ERROR_MSG, a peer that keeps the link open and busy has five seconds."""
        owner, peer = self.open()
        theirs, _ = self.world.transports()
        theirs.pauseProducing()
        owner.link.drop(TOLD.violation())
        for _ in range(39):
            peer.send(get_tx_set())
            self.world.advance(0.125)
        self.assertEqual(owner.events, ["authenticated", "dropped"])
        self.world.advance(0.125)
        self.assertEqual(owner.dispatched, [])
        self.assert_ended(owner, peer, "dropped by user", None)

    def test_a_full_transport_gets_the_error_and_nothing_more(self) -> None:
        """A stalled peer that reads again hears what was sealed before, and ERROR_MSG."""
        owner, peer = self.open()
        pause_writing(self, owner)
        sealed = owner.link.session.auth.sealing
        assert sealed is not None
        number = sealed.sequence
        owner.link.drop(TOLD.violation())
        self.assertEqual(sealed.sequence, number)
        self.world.transports()[1].uncork()
        self.world.settle()
        self.assertEqual(len(peer.received), number + 2)  # and HELLO and ERROR_MSG
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))

    def test_a_paused_link_can_be_dropped(self) -> None:
        """With reading paused and credit held, the peer is told and the link closes."""
        owner, peer = self.open(SMALL)
        pause_reading(self, owner, peer)
        owner.link.drop(TOLD.violation())
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 2)
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))

    def test_a_drop_within_a_dispatch_ends_the_dispatching(self) -> None:
        """When an observer drops the peer, what came in the same read is not dispatched."""
        owner, peer = self.open(SMALL)
        owner.on_dispatch = lambda link, items: link.drop(TOLD.violation())
        for number in range(6):
            peer.send(get_tx_set(number))
        self.world.settle()
        self.assertEqual(len(owner.dispatched), 2)
        self.assert_ended(owner, peer, "dropped by user", (0, b"dropped by user"))

    def test_a_drop_as_it_is_authenticated_ends_the_dispatching(self) -> None:
        """Whoever hears of a new peer may drop it: nothing that it sent is dispatched."""
        owner = Owner(self.world)
        peer = self.world.call(is_polite=False)
        waiting = self.world.outcome(owner.link.when_authenticated())
        self.patch(owner, "link_authenticated", lambda link: link.drop(TOLD.violation()))
        peer.say_hello()
        self.world.settle()
        peer.auth.accept_hello(peer.auth.read_hello(peer.received[0]))
        peer.say_auth()
        peer.send(advert())
        self.world.settle()
        self.assertEqual(owner.dispatched, [])
        self.assertEqual([str(error) for error in waiting], ["dropped by user"])
        self.assertEqual(peer.error, (0, b"dropped by user"))


class TheirEndTests(LinkTestCase):
    """The transport ends under the link."""

    def test_reasons(self) -> None:
        """Row 13: closed cleanly or reset, between records or within one, at every stage."""
        closings: dict[str, Callable[[ScriptedPeer], None]] = {
            CLEANLY: lambda peer: peer.transport.loseConnection(),  # type: ignore[union-attr]
            UNCLEANLY: lambda peer: peer.transport.abortConnection(),  # type: ignore[union-attr]
        }
        stages = {
            "header": b"",
            "header ": b"\x80\0\0",
            "body": b"\x80\0\0\x40",
            "body ": b"\x80\0\0\x40half a record",
        }
        for is_polite in (False, True):
            for text, close in closings.items():
                for place, data in stages.items():
                    owner, peer = self.open(is_polite=is_polite)
                    peer.send_bytes(data)
                    self.world.settle()
                    close(peer)
                    self.world.settle()
                    reason = f"error reading message {place.strip()}: {text}"
                    self.assert_ended(owner, peer, reason, None)

    def test_a_half_close_is_a_close(self) -> None:
        """A peer that sends no more but would still read is gone, as in core."""
        owner, peer = self.open()
        self.world.transports()[0].loseWriteConnection()
        self.world.settle()
        self.assert_ended(owner, peer, f"error reading message header: {CLEANLY}", None)

    def test_a_link_that_reads_nothing_notices_the_end_when_it_reads(self) -> None:
        """What the peer sent before it closed is dispatched first, once there is credit."""
        owner, peer = self.open(SMALL)
        pause_reading(self, owner, peer)
        assert peer.transport is not None
        peer.transport.loseConnection()
        self.world.advance(2)
        self.assertEqual(owner.events, ["authenticated"])
        owner.holds_credit = False
        owner.link.processed(owner.held)
        self.world.settle()
        self.assertEqual(owner.dispatched, [get_tx_set(number) for number in range(4)])
        self.assert_ended(owner, peer, f"error reading message header: {CLEANLY}", None)

    def test_a_reset_is_noticed_at_once(self) -> None:
        """Neither paused reading nor a full transport hides it."""
        owner, peer = self.open(SMALL)
        pause_reading(self, owner, peer)
        pause_writing(self, owner)
        self.world.transports()[0].abortConnection()
        self.world.settle()
        self.assert_ended(owner, peer, f"error reading message header: {UNCLEANLY}", None)

    def test_an_end_during_our_drop_changes_nothing(self) -> None:
        """A peer that goes while we are closing leaves our reason and no timer."""
        owner, peer = self.open()
        self.world.transports()[1].cork()
        owner.link.drop(TOLD.violation())
        self.world.transports()[0].abortConnection()
        self.world.settle()
        self.assert_ended(owner, peer, "dropped by user", None)

    def test_the_error_of_the_peer_ends_the_link_without_an_answer(self) -> None:
        """Row 19: an ERROR_MSG with any number and MAC is honoured, and never answered."""
        owner, peer = self.open()
        peer.send_record(bytes(4) + b"\xff" * 8 + b"\0\0\0\0\0\0\0\4\0\0\0\1x\0\0\0" + b"\xff" * 32)
        self.world.settle()
        self.assert_ended(owner, peer, "ERR_LOAD (x)", None)

    def test_who_waits_for_authentication_is_told(self) -> None:
        """All that wait get the violation; who asks later gets it as well."""
        owner, peer = self.open(is_polite=False)
        waiting = [self.world.outcome(owner.link.when_authenticated()) for _ in range(2)]
        assert peer.transport is not None
        peer.transport.loseConnection()
        self.world.settle()
        waiting.append(self.world.outcome(owner.link.when_authenticated()))
        for outcome in waiting:
            self.assertIs(outcome[0], owner.violations[0])


class HalfCloseTests(LinkTestCase):
    """The peer says that it will send no more, and may be reading still."""

    def half_close(self, peer: ScriptedPeer) -> None:
        peer.transport.loseWriteConnection()  # type: ignore[union-attr]

    def test_right_after_what_was_wrong(self) -> None:
        """It hears why it is refused, all the same."""
        owner, peer = self.open()
        peer.send_forged(get_tx_set())
        self.half_close(peer)
        self.world.settle()
        self.assert_ended(owner, peer, "unexpected MAC", (3, b"unexpected MAC"))

    def test_right_after_a_wrong_hello(self) -> None:
        """So it does before it is anybody: our HELLO, then ERROR_MSG."""
        _, peer = self.open(is_polite=False)
        node = make_node(9, overlay=(30, 31))
        stranger = self.world.call(local_node=node, is_polite=False)
        stranger.say_hello()
        self.half_close(stranger)
        self.world.settle()
        self.assertEqual(stranger.error, (2, b"wrong protocol version"))
        self.assertIs(stranger.received[0].type, MessageType.HELLO)
        peer.transport.loseConnection()  # type: ignore[union-attr]
        self.world.settle()

    def test_of_its_own_accord(self) -> None:
        """The link ends as when the peer hangs up; what was written before is delivered."""
        owner, peer = self.open()
        owner.link.send(get_tx_set(7))
        self.half_close(peer)
        self.world.settle()
        self.assert_ended(owner, peer, f"error reading message header: {CLEANLY}", None)
        self.assertEqual(peer.of_type(MessageType.GET_TX_SET), [get_tx_set(7)])

    def test_and_never_reads(self) -> None:
        """Who half-closes and leaves our bytes lying is gone in five seconds."""
        owner, peer = self.open()
        pause_writing(self, owner)
        self.half_close(peer)
        self.world.settle()
        self.world.advance(CLOSING_DELAY_SECONDS - 0.1)
        self.assertEqual(owner.events[-1], "dropped")
        self.world.advance(0.2)
        self.assertEqual(owner.events[-1], "gone")
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
