"""Deadlines: who is dropped for silence, stinginess or slowness, and when exactly."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.session.clocks import Clocks, Timeouts
from stellar_overlay.session.flow_control import FlowControlConfig
from stellar_overlay.session.session import Session
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.message import Message, MessageType, encode_auth, encode_dont_have
from tests.builders import OpenGate, advert, get_tx_set, make_node, quorum_set, transaction
from tests.by_hand import ByHand
from tests.session.clocked import Clocked


class GridTests(SynchronousTestCase):
    """Core looks at the clocks of a link every 5 seconds, counted from its beginning."""

    def test_every_five_seconds(self) -> None:
        """The deadlines of a link that was made at 3.25 are 8.25, 13.25 and so on."""
        session = Session(AuthContext(make_node(), True), OpenGate(), now=3.25)
        deadlines = [session.deadline]
        session.on_deadline(5.0)  # early, and before the handshake must be done
        deadlines.append(session.deadline)
        self.assertEqual(deadlines, [8.25, 13.25])

    def test_late(self) -> None:
        """After a pause of any length the next deadline is ahead, on the grid, at once."""
        for late, following in (
            (0.0, 10.0),
            (0.1, 10.0),
            (4.999, 10.0),
            (5.0, 15.0),
            (7.0, 15.0),
            (60.0, 70.0),
            (3601.5, 3610.0),
        ):
            link = Clocked()
            link.now = 5.0 + late
            link.say(get_tx_set())
            link.send(get_tx_set())
            self.assertIsNone(link.tick(5.0 + late), f"{late} s late")
            self.assertEqual(link.session.deadline, following, f"{late} s late")

    def test_moves_even_when_the_link_ends(self) -> None:
        """A deadline at which a link ends is not due again."""
        link = Clocked()
        self.assertEqual(link.tick(100.0), DropReason.IDLE)
        self.assertEqual(link.session.deadline, 105.0)


class HandshakeTests(SynchronousTestCase):
    def test_absolute(self) -> None:
        """An unfinished handshake ends two seconds after the connection, not before."""
        for elapsed, is_over in ((1.999, False), (2.0, True), (5.0, True)):
            session = Session(AuthContext(make_node(), False), OpenGate(), now=10.0)
            if is_over:
                violation = self.assertRaises(PeerViolation, session.on_deadline, 10.0 + elapsed)
                self.assertEqual((violation.reason, violation.code), ("idle timeout", None))
            else:
                session.on_deadline(10.0 + elapsed)


class IdleTests(SynchronousTestCase):
    """Idle is 30 seconds of silence in both directions."""

    def test_silent_peer(self) -> None:
        """The ping at 5 s is the last that is written: the end is at 35 s (Y23)."""
        link = Clocked()
        self.assertEqual(link.run(200), (35.0, DropReason.IDLE))
        self.assertEqual([when for when, _ in link.pings], [5.0])

    def test_exactly(self) -> None:
        """30 s after the later of the two clocks, not a millisecond before."""
        for read, written in ((10.0, 5.0), (10.0, 12.0)):
            link = Clocked()
            link.run(5.0)
            link.now = read
            link.say(get_tx_set())
            link.now = written
            if written > read:
                link.send(get_tx_set())
            last = max(read, written)
            self.assertIsNone(link.tick(last + 29.999))
            self.assertEqual(link.tick(last + 30.0), DropReason.IDLE)

    def test_reading_is_enough(self) -> None:
        """A peer that talks is not idle, though our transport takes nothing for a while."""
        link = Clocked()
        link.talks, link.writes = True, False
        self.assertIsNone(link.run(115))

    def test_writing_is_enough(self) -> None:
        """A peer that only listens is not idle as long as we write."""
        link = Clocked()
        for second in range(10, 300, 10):
            self.assertIsNone(link.run(second))
            link.send(get_tx_set(second))

    def test_timeout_is_a_setting(self) -> None:
        """PEER_TIMEOUT."""
        self.assertEqual(
            Clocked(SessionConfig(peer_timeout_secs=12)).run(99), (20.0, DropReason.IDLE)
        )

    def test_handshake_is_reading(self) -> None:
        """HELLO and AUTH count as something read, each when it is complete."""
        for calls in (True, False):
            hand = ByHand(calls=calls)
            session = hand.side.session
            for record_of, done_at in (
                (ByHand.hello, 1.0),
                (lambda hand: hand.sealed(encode_auth()), 2.0),
            ):
                record = record_of(hand)
                hand.pair.now = done_at - 0.5
                hand.say(record[:-1])
                self.assertEqual(session.clocks.last_read, done_at - 1.0, f"{calls=}")
                hand.pair.now = done_at
                hand.say(record[-1:])
                self.assertEqual(session.clocks.last_read, done_at, f"{calls=}")
            self.assertTrue(session.is_authenticated)

    def test_trickle_of_a_record(self) -> None:
        """Bytes of a record that never gets complete are not reading (row 14)."""
        link = Clocked()
        record = link.hand.sealed(quorum_set(100).body)
        for second in range(34):
            self.assertIsNone(link.run(second))
            link.feed(record[second : second + 1])
        self.assertEqual(link.session.clocks.last_read, 0.0)
        self.assertEqual(link.run(99), (35.0, DropReason.IDLE))

    def test_bytes_of_an_incomplete_record(self) -> None:
        """However many come, and however fast: only a complete record was read (row 14)."""
        link = Clocked()
        record = link.hand.sealed(transaction(250_000).body)
        for second in range(34):
            self.assertIsNone(link.run(second))
            link.feed(record[second * 7000 : (second + 1) * 7000])
        self.assertEqual(link.session.clocks.last_read, 0.0)
        link.feed(record[34 * 7000 :])
        self.assertEqual(link.session.clocks.last_read, link.now)
        self.assertEqual(len(link.side.messages), 1)


class NoFloodRequestsTests(SynchronousTestCase):
    """60 seconds without credit, from the first moment of the want on (DECISIONS 9)."""

    def test_never_grants(self) -> None:
        """A peer that never grants goes at 60 s, though both sides talk and nothing waits."""
        link = Clocked(is_granted=False)
        link.talks = True
        self.assertEqual(link.run(200), (60.0, DropReason.NO_FLOOD_REQUESTS))

    def test_exactly(self) -> None:
        """Sixty seconds, not a millisecond less."""
        link = Clocked(is_granted=False)
        link.now = 59.0
        link.say(get_tx_set())
        self.assertIsNone(link.tick(59.999))
        self.assertEqual(link.tick(60.0), DropReason.NO_FLOOD_REQUESTS)

    def test_while_we_try(self) -> None:
        """It goes just as early when we try to flood it every second (row 42)."""
        link = Clocked(is_granted=False)
        link.talks = True
        ended = None
        for second in range(200):
            ended = ended or link.run(second)
            if ended is None:
                link.send(advert(second))
        self.assertEqual(ended, (60.0, DropReason.NO_FLOOD_REQUESTS))

    def test_from_the_first_failure(self) -> None:
        """Credit that is spent at 7 s and never renewed: failures from 8 s on, the end at 70 s."""
        link = Clocked(is_granted=False)
        link.talks = True
        link.run(7)
        link.grant(1, 40)
        link.send(advert(1))
        ended = None
        for second in range(8, 200):
            ended = ended or link.run(second)
            if ended is None:
                link.send(advert(second))
        self.assertEqual(link.session.flow_control.no_capacity_since, 8.0)
        self.assertEqual(ended, (70.0, DropReason.NO_FLOOD_REQUESTS))

    def test_a_grant_in_time(self) -> None:
        """A small grant every 50 s keeps the link, as in core, even if it unblocks nothing."""
        link = Clocked()
        link.talks = True
        link.send(transaction(100_000, 1))
        link.send(transaction(100_000, 2))
        link.send(transaction(102_400, 3))
        for second in range(50, 400, 50):
            self.assertIsNone(link.run(second))
            link.grant(0, 1)

    def test_nothing_waits(self) -> None:
        """With its credit spent and nothing to flood, a peer owes us nothing."""
        link = Clocked(is_granted=False)
        link.talks = True
        link.grant(1, 40)
        link.send(advert())
        self.assertIsNone(link.run(400))


class StragglingTests(SynchronousTestCase):
    """120 seconds since the last message that was written might have left."""

    def test_exactly(self) -> None:
        """Nothing is taken after 10 s: the end is 120 s after that message was queued."""
        link = Clocked()
        link.now = 10.0
        link.send(get_tx_set())
        link.writes = False
        link.now = 129.0
        link.say(get_tx_set())
        self.assertIsNone(link.tick(129.999))
        self.assertEqual(link.tick(130.0), DropReason.STRAGGLING)

    def test_from_the_queue(self) -> None:
        """What counts is when a message was queued, not when it was written at last (row 54)."""
        link = Clocked(SessionConfig(max_batch_write_count=1))
        link.talks = True
        link.run(12)
        link.writes = False
        for link.now in (12.0, 70.0):
            link.session.send(get_tx_set(), link.now)
            link.run(link.now + 30)
        self.assertNotEqual(link.session.data_to_send(100.0), b"")  # the first of the two
        link.session.note_written(100.0)
        self.assertEqual(link.run(300), (135.0, DropReason.STRAGGLING))

    def test_waiting_for_credit_is_not_straggling(self) -> None:
        """A flood message queued at 1 s that got credit at 55 s counts from then on."""
        link = Clocked(is_granted=False)
        link.talks = True
        link.grant(1, 40)
        link.now = 1.0
        link.send(advert(1))
        link.send(advert(2))
        link.run(55)
        link.grant(1, 40)
        link.writes = False
        self.assertEqual(link.run(400), (175.0, DropReason.STRAGGLING))

    def test_slow_credit_is_not_straggling(self) -> None:
        """A queue that a peer's small grants empty over ten minutes is no reason to drop it."""
        link = Clocked(is_granted=False)
        link.talks = True
        link.grant(1, 40)
        for number in range(61):
            link.send(advert(number))
        for number in range(60):
            self.assertIsNone(link.run(10.0 * number))
            link.grant(1, 40)
        sent = [body for kind, _, body in link.hand.heard if kind is MessageType.FLOOD_ADVERT]
        self.assertEqual(sent, [advert(number).body for number in range(61)])

    def test_timeout_is_a_setting(self) -> None:
        """PEER_STRAGGLER_TIMEOUT."""
        link = Clocked(SessionConfig(peer_straggler_timeout_secs=17))
        link.talks, link.writes = True, False
        self.assertEqual(link.run(99), (20.0, DropReason.STRAGGLING))


class OrderTests(SynchronousTestCase):
    def test_all_are_silent(self) -> None:
        """The peer is told nothing; the texts are core's."""
        reasons = (DropReason.IDLE, DropReason.NO_FLOOD_REQUESTS, DropReason.STRAGGLING)
        self.assertEqual([reason.code for reason in reasons], [None, None, None])
        self.assertEqual(
            [reason.text for reason in reasons],
            [
                "idle timeout",
                "idle timeout (no new flood requests)",
                "straggling (cannot keep up)",
            ],
        )

    def test_first_match_wins(self) -> None:
        """Idle comes before the want of credit, and that before straggling."""
        link = Clocked(is_granted=False)
        self.assertEqual(link.tick(500.0), DropReason.IDLE)
        link = Clocked(is_granted=False)
        link.now = 500.0
        link.say(get_tx_set())
        self.assertEqual(link.tick(500.0), DropReason.NO_FLOOD_REQUESTS)
        link = Clocked()
        link.writes = False
        link.now = 500.0
        link.say(get_tx_set())
        self.assertEqual(link.tick(500.0), DropReason.STRAGGLING)


class NotListeningTests(SynchronousTestCase):
    """While capacity is spent we read nothing, and hold nothing against the peer (row 47)."""

    def deaf(self, *, is_granted: bool = True) -> Clocked:
        """Return a link whose consumer holds the one message that fits."""
        flow_control = FlowControlConfig(peer_total_reading_capacity_bytes=1)
        link = Clocked(SessionConfig(flow_control=flow_control), is_granted=is_granted)
        link.side.holds_credit = True
        link.say(quorum_set(3))
        self.assertFalse(link.session.may_read)
        return link

    def listen(self, link: Clocked) -> None:
        """Let the consumer be done."""
        held, link.side.held = link.side.held, []
        link.session.processed(held, link.now)
        self.assertTrue(link.session.may_read)

    def test_no_drop(self) -> None:
        """Ten minutes in processing are no silence of the peer's, nor is what follows."""
        link = self.deaf()
        self.assertIsNone(link.run(600))
        self.listen(link)
        self.assertIsNone(link.run(620))

    def test_pings_go_on(self) -> None:
        """An answer cannot be heard, so a ping leaves every 5 s: the peer sees that we live."""
        link = self.deaf()
        link.run(60)
        self.assertEqual([when for when, _ in link.pings], [5.0 * n for n in range(1, 13)])
        self.assertEqual(len({ping for _, ping in link.pings}), 12)

    def test_silence_counts_anew(self) -> None:
        """Once we listen again, a peer that stays silent goes after 30 s."""
        link = self.deaf()
        link.run(100)
        self.listen(link)
        self.assertEqual(link.run(200), (130.0, DropReason.IDLE))

    def test_want_of_credit_counts_anew(self) -> None:
        """Grants may be waiting unread: the 60 s start when we listen again."""
        link = self.deaf(is_granted=False)
        self.assertIsNone(link.run(200))
        self.listen(link)
        link.talks, link.side.holds_credit = True, False
        self.assertEqual(link.run(400), (260.0, DropReason.NO_FLOOD_REQUESTS))

    def test_straggling_still_counts(self) -> None:
        """A peer that does not read us either is dropped as ever: idle, both ways."""
        link = self.deaf()
        link.writes = False
        self.assertEqual(link.run(400), (30.0, DropReason.IDLE))


class RoundTripTests(SynchronousTestCase):
    """Who wants to know of round trips is told of each, in whole milliseconds."""

    def pinged(self, after: float) -> tuple[Clocks, bytes]:
        """Return clocks whose ping has been under way for so long."""
        clocks = Clocks(Timeouts(), OverlayMetrics(), 0.0)
        clocks.note_ping(bytes(32), 100.0 - after)
        return clocks, bytes(32)

    def test_each(self) -> None:
        """Once per answer, with what ``ping_ms`` says."""
        clocks = Clocks(Timeouts(), OverlayMetrics(), 0.0)
        told: list[int] = []
        clocks.on_round_trip = told.append
        for number, seconds in enumerate((0.25, 0.0004, 3.0)):
            item_hash = number.to_bytes(32, "big")
            clocks.note_ping(item_hash, 10.0 * number)
            self.assertTrue(clocks.note_pong(item_hash, 10.0 * number + seconds))
            self.assertFalse(clocks.note_pong(item_hash, 10.0 * number + seconds))
        self.assertEqual(told, [250, 0, 3000])
        self.assertEqual(clocks.ping_ms, 3000)

    def test_nobody_wants_to_know(self) -> None:
        """That is so at first, and again when it is over."""
        told: list[int] = []
        clocks, item_hash = self.pinged(0.25)
        self.assertIsNone(clocks.on_round_trip)
        self.assertTrue(clocks.note_pong(item_hash, 100.0))
        clocks.on_round_trip = told.append
        clocks.on_round_trip = None
        clocks.note_ping(item_hash, 200.0)
        self.assertTrue(clocks.note_pong(item_hash, 201.0))
        self.assertEqual((told, clocks.ping_ms), ([], 1000))

    def test_other_answers(self) -> None:
        """What answers another question, or a ping that was given up, is no round trip."""
        clocks, item_hash = self.pinged(0.25)
        told: list[int] = []
        clocks.on_round_trip = told.append
        self.assertFalse(clocks.note_pong(b"\1" * 32, 100.0))
        clocks.forget_ping()
        self.assertFalse(clocks.note_pong(item_hash, 100.0))
        self.assertEqual(told, [])

    def test_on_a_link(self) -> None:
        """A session's own pings are told of as well."""
        link = Clocked()
        told: list[int] = []
        link.session.clocks.on_round_trip = told.append
        for at, took in ((5.0, 0.125), (10.0, 0.5)):
            link.run(at)
            link.now = at + took
            item_hash = link.pings[-1][1]
            link.say(Message(encode_dont_have(MessageType.SCP_QUORUMSET, item_hash)))
        self.assertEqual(told, [125, 500])
