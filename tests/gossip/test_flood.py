"""What was flooded before, and who knows of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip import flood
from stellar_overlay.gossip.flood import (
    DEFAULT_RATE_LIMIT_PER_SECOND,
    LEDGERS_REMEMBERED,
    MAX_BITS_OF_THE_GONE,
    PARTS,
    FloodGate,
)
from stellar_overlay.identity import PeerId
from tests.builders import scp_nominate, scp_prepare, transaction

TTL = 300.0


def peer(number: int) -> PeerId:
    """Return one of many ids."""
    return PeerId(number.to_bytes(32, "big"))


def body_of(number: int, size: int = 8) -> bytes:
    """Return one of many bodies: a new object each time."""
    return number.to_bytes(size, "big")


@dataclass
class Stub:
    """An authenticated peer that counts what it is sent."""

    flood_bit: int
    sent: int = 0

    def take(self) -> None:
        """Be sent something."""
        self.sent += 1


def stubs(gate: FloodGate, count: int) -> list[Stub]:
    """Return so many connected peers, with the ids 1, 2, and so on."""
    return [Stub(gate.bit_of(peer(number))) for number in range(1, count + 1)]


def tell(gate: FloodGate, body: bytes, links: Sequence[Stub], now: float = 0.0) -> int:
    """Broadcast to stubs."""
    return gate.broadcast(body, links, Stub.take, now)


def add_many(gate: FloodGate, numbers: range, *, size: int = 8, now: float = 0.0) -> None:
    """Remember many messages, one after the other."""
    for number in numbers:
        gate.add_record(body_of(number, size), 0, now)


class RecordTests(SynchronousTestCase):
    """What is known, and from whom."""

    def test_new_once(self) -> None:
        """The same bytes are new once, whoever brings them; other bytes are another message."""
        gate = FloodGate()
        self.assertTrue(gate.record_seen(body_of(1), peer(1)))
        self.assertFalse(gate.record_seen(body_of(1), peer(1)))
        self.assertFalse(gate.record_seen(body_of(1), peer(2)))
        self.assertTrue(gate.record_seen(body_of(2), peer(2)))
        self.assertEqual(list(gate.records), [body_of(1), body_of(2)])

    def test_messages_and_bodies(self) -> None:
        """A message and its body are the same thing here."""
        gate, message = FloodGate(), scp_prepare()
        self.assertTrue(gate.record_seen(message, peer(1)))
        self.assertTrue(gate.has_seen(message.body))
        self.assertFalse(gate.record_seen(message.body))
        self.assertFalse(gate.has_seen(scp_nominate()))
        gate.forget(message)
        self.assertFalse(gate.has_seen(message))

    def test_whoever_sends_it_knows(self) -> None:
        """Each sender is noted, the second as well as the first; others are left to be told."""
        gate, message = FloodGate(), transaction()
        gate.record_seen(message, peer(1))
        gate.record_seen(message, peer(3))
        everybody = [peer(number) for number in (1, 2, 3, 4)]
        self.assertEqual(gate.get_forward_peers(message, everybody), [peer(2), peer(4)])
        self.assertEqual(gate.get_peers_that_know(message), [peer(1), peer(3)])

    def test_asking_notes_nothing(self) -> None:
        """Neither that peers were told, nor that there are such peers or messages."""
        gate = FloodGate()
        for _ in range(2):
            self.assertEqual(gate.get_forward_peers(body_of(1), [peer(1)]), [peer(1)])
            self.assertEqual(gate.get_peers_that_know(body_of(1)), [])
            self.assertFalse(gate.has_seen(body_of(1)))
        self.assertEqual(gate.records, {})
        self.assertEqual(gate.bit_of(peer(2)), 1)

    def test_our_own_comes_back(self) -> None:
        """What began with us is no news when it returns."""
        gate = FloodGate()
        self.assertTrue(gate.record_seen(body_of(1)))
        self.assertFalse(gate.record_seen(body_of(1), peer(1)))
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(1)])

    def test_added_meanwhile(self) -> None:
        """A record is not replaced when somebody else was faster: who was told stays told."""
        gate = FloodGate()
        record = gate.add_record(body_of(1), 0b01, 0.0)
        self.assertIs(gate.add_record(body_of(1), 0b10, 5.0), record)
        self.assertEqual(record.told, 0b11)
        self.assertEqual((gate.stats.seen_count, gate.stats.bytes), (1, 8))

    def test_one_index(self) -> None:
        """The index may be held on to: it is the same dict whatever happens."""
        gate = FloodGate(max_records=4)
        index = gate.records
        add_many(gate, range(10))
        gate.clear_below(1)
        gate.add_record(body_of(1), 0, 0.0)
        gate.clear()
        self.assertIs(gate.records, index)
        self.assertEqual(index, {})

    def test_refuses_nonsense(self) -> None:
        """A gate that could hold nothing is a mistake."""
        makers: Sequence[Callable[[], FloodGate]] = (
            lambda: FloodGate(ttl_secs=0),
            lambda: FloodGate(ttl_secs=-1),
            lambda: FloodGate(ttl_secs=float("nan")),
            lambda: FloodGate(max_records=0),
            lambda: FloodGate(max_bytes=0),
            lambda: FloodGate(rate_limit_per_second=-1),
        )
        for make in makers:
            with self.assertRaises(ValueError):
                make()


class BroadcastTests(SynchronousTestCase):
    """messages.md 1.2."""

    def test_to_all_but_the_sender(self) -> None:
        """FL7: of five peers, the third has sent it; nobody gets it twice, nor misses another."""
        gate = FloodGate()
        links = stubs(gate, 5)
        gate.record_seen(body_of(1), peer(3))
        self.assertEqual(tell(gate, body_of(1), links), 4)
        self.assertEqual([link.sent for link in links], [1, 1, 0, 1, 1])
        self.assertEqual(tell(gate, body_of(1), links), 0)
        self.assertEqual([link.sent for link in links], [1, 1, 0, 1, 1])
        gate.record_seen(body_of(2), peer(3))
        self.assertEqual(tell(gate, body_of(2), links), 4)
        self.assertEqual([link.sent for link in links], [2, 2, 0, 2, 2])

    def test_again_after_the_window(self) -> None:
        """FL3: at once nobody is told again, and once when its ledger is out of the window."""
        gate = FloodGate()
        links = stubs(gate, 3)
        gate.ledger_seq = 100
        self.assertEqual(tell(gate, body_of(1), links), 3)
        self.assertEqual(tell(gate, body_of(1), links), 0)
        gate.ledger_seq = 101
        gate.clear_below(100)
        self.assertEqual(tell(gate, body_of(1), links), 0)
        gate.clear_below(101)
        self.assertEqual(tell(gate, body_of(1), links), 3)
        self.assertEqual([link.sent for link in links], [2, 2, 2])

    def test_marked_before_it_is_sent(self) -> None:
        """Who is about to be told counts as told; who is not is not named."""
        gate = FloodGate()
        links = stubs(gate, 3)
        gate.record_seen(body_of(1), peer(2))
        self.assertEqual(gate.mark(body_of(1), links, 0.0), [links[0], links[2]])
        self.assertEqual(gate.mark(body_of(1), links, 0.0), [])
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(1), peer(2), peer(3)])

    def test_an_unknown_message_is_recorded(self) -> None:
        """Even when there is nobody to tell; who comes later is told later."""
        gate = FloodGate()
        self.assertEqual(tell(gate, body_of(1), []), 0)
        self.assertTrue(gate.has_seen(body_of(1)))
        self.assertEqual(tell(gate, body_of(1), stubs(gate, 2)), 2)
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(1), peer(2)])

    def test_an_answer_does_not_go_back(self) -> None:
        """Whom we told, and who then sends it to us, is counted once."""
        gate = FloodGate()
        links = stubs(gate, 2)
        tell(gate, body_of(1), links)
        self.assertFalse(gate.record_seen(body_of(1), peer(1)))
        self.assertEqual(tell(gate, body_of(1), links), 0)

    def test_a_link_named_twice(self) -> None:
        """One peer is told once."""
        gate = FloodGate()
        [link] = stubs(gate, 1)
        self.assertEqual(tell(gate, body_of(1), [link, link]), 1)
        self.assertEqual(link.sent, 1)

    def test_sending_may_close_links(self) -> None:
        """The links may be a live view from which those go that cannot be sent to."""
        gate = FloodGate()
        links = dict(enumerate(stubs(gate, 4)))

        def send(link: Stub) -> None:
            link.take()
            links.clear()
            for number in range(1, 5):
                gate.release(peer(number))

        everybody = list(links.values())
        self.assertEqual(gate.broadcast(body_of(1), links.values(), send, 0.0), 4)
        self.assertEqual([link.sent for link in everybody], [1, 1, 1, 1])

    def test_sending_may_broadcast(self) -> None:
        """The same message from within: all are marked by then."""
        gate = FloodGate()
        links = stubs(gate, 3)
        within = []

        def send(link: Stub) -> None:
            link.take()
            within.append(tell(gate, body_of(1), links))

        self.assertEqual(gate.broadcast(body_of(1), links, send, 0.0), 3)
        self.assertEqual(within, [0, 0, 0])
        self.assertEqual([link.sent for link in links], [1, 1, 1])

    def test_a_failed_send(self) -> None:
        """Who was about to be told counts as told, as in core: nothing is ever tried twice."""
        gate = FloodGate()
        links = stubs(gate, 2)

        def send(link: Stub) -> None:
            raise RuntimeError("no")

        with self.assertRaises(RuntimeError):
            gate.broadcast(body_of(1), links, send, 0.0)
        self.assertEqual(tell(gate, body_of(1), links), 0)


class PeerBitTests(SynchronousTestCase):
    """Bits stay with their peers while it matters, and are not used up."""

    def test_one_bit_each(self) -> None:
        """The same for the same peer; no two have one in common."""
        gate = FloodGate()
        bits = [gate.bit_of(peer(number)) for number in range(100)]
        self.assertEqual(bits, [1 << number for number in range(100)])
        self.assertEqual(bits, [gate.bit_of(peer(number)) for number in range(100)])

    def test_a_reconnecting_peer_is_not_told_again(self) -> None:
        """By its key, whatever others do meanwhile."""
        gate = FloodGate()
        tell(gate, body_of(1), stubs(gate, 3))
        gate.record_seen(body_of(2), peer(2))
        gate.release(peer(2))
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(1), peer(3)])
        self.assertEqual(gate.get_forward_peers(body_of(1), [peer(2)]), [])
        newcomer, returned = Stub(gate.bit_of(peer(4))), Stub(gate.bit_of(peer(2)))
        for number in (1, 2):
            tell(gate, body_of(number), [newcomer, returned])
        self.assertEqual((newcomer.sent, returned.sent), (2, 0))
        self.assertEqual(gate.get_peers_that_know(body_of(2)), [peer(2), peer(4)])

    def test_a_bit_is_used_again_when_no_record_has_it(self) -> None:
        """Not before all generations are gone that existed when its peer left."""
        gate = FloodGate(ttl_secs=TTL)
        gate.record_seen(body_of(1), peer(1), 0.0)
        gate.record_seen(body_of(2), peer(2), 100.0)
        gate.release(peer(1))
        gate.record_seen(body_of(3), peer(2), 200.0)
        self.assertEqual(gate.bit_of(peer(3)), 0b100)
        gate.expire(300.0)
        self.assertEqual(list(gate.records), [body_of(2), body_of(3)])
        self.assertEqual(gate.bit_of(peer(4)), 0b1000)
        gate.expire(400.0)
        self.assertEqual(list(gate.records), [body_of(3)])
        self.assertEqual(gate.bit_of(peer(5)), 0b1)
        self.assertEqual(gate.get_peers_that_know(body_of(3)), [peer(2)])

    def test_a_returned_peer_keeps_its_bit(self) -> None:
        """What was to be done with it after it left is off."""
        gate = FloodGate()
        gate.record_seen(body_of(1), peer(1))
        gate.release(peer(1))
        gate.bit_of(peer(1))
        gate.clear()
        self.assertEqual(gate.bit_of(peer(2)), 0b10)

    def test_release_of_strangers(self) -> None:
        """Who has no bit has nothing to give back, nor has anybody twice."""
        gate = FloodGate()
        gate.release(peer(9))
        gate.record_seen(body_of(1), peer(1))
        for _ in range(2):
            gate.release(peer(1))
        gate.clear()
        self.assertEqual([gate.bit_of(peer(2)), gate.bit_of(peer(3))], [0b1, 0b10])

    def test_bits_are_bounded(self) -> None:
        """However many come and go while records live: a newcomer never looks told."""
        gate = FloodGate()
        staying = gate.bit_of(peer(0))
        record = gate.add_record(body_of(1), staying, 0.0)
        for number in range(1, 3 * MAX_BITS_OF_THE_GONE):
            bit = gate.bit_of(peer(number))
            self.assertFalse(record.told & bit)
            self.assertLess(bit.bit_length(), MAX_BITS_OF_THE_GONE + 3)
            record.told |= bit
            gate.release(peer(number))
        self.assertTrue(record.told & staying)
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(0)])

    def test_a_sweep_while_sending(self) -> None:
        """Bits that are cleared while a broadcast goes on stay cleared."""
        self.patch(flood, "MAX_BITS_OF_THE_GONE", 1)
        gate = FloodGate()
        links = stubs(gate, 2)

        def send(link: Stub) -> None:
            gate.release(peer(1))
            gate.release(peer(2))

        gate.broadcast(body_of(1), links, send, 0.0)
        self.assertEqual(gate.get_forward_peers(body_of(1), [peer(1), peer(2)]), [peer(1), peer(2)])
        self.assertEqual(tell(gate, body_of(1), [Stub(gate.bit_of(peer(3)))]), 1)


class ForgettingTests(SynchronousTestCase):
    """DECISIONS.md 12."""

    def test_forget(self) -> None:
        """A forgotten message is new again, and its sender is not remembered with it."""
        gate = FloodGate()
        gate.record_seen(body_of(1), peer(1))
        gate.record_seen(body_of(2), peer(1))
        gate.forget(body_of(1))
        gate.forget(body_of(3))
        self.assertEqual(list(gate.records), [body_of(2)])
        self.assertEqual(gate.stats.bytes, 8)
        self.assertTrue(gate.record_seen(body_of(1), peer(2)))
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(2)])

    def test_nothing_holds_what_is_forgotten(self) -> None:
        """However it went, and though somebody still has its record."""
        ways: Sequence[Callable[[FloodGate, bytes], None]] = (
            FloodGate.forget,
            lambda gate, body: gate.clear_below(8),
            lambda gate, body: gate.clear(),
            lambda gate, body: add_many(gate, range(100, 140)),
        )
        for way in ways:
            gate, body = FloodGate(max_records=32), body_of(1)
            before = sys.getrefcount(body)
            gate.ledger_seq = 7
            records = [gate.add_record(each, 0, 0.0) for each in (body, body_of(2))]
            self.assertGreater(sys.getrefcount(body), before)
            way(gate, body)
            self.assertEqual(sys.getrefcount(body), before)
            self.assertEqual(len(records), 2)

    def test_clear_below_is_exact(self) -> None:
        """Each lower ledger goes, at any age, and nothing else; what has none goes first."""
        gate = FloodGate()
        for ledger_seq in (0, 5, 6, 7):
            gate.ledger_seq = ledger_seq
            gate.add_record(body_of(ledger_seq), 0, 0.0)
        for lowest, left in ((0, [0, 5, 6, 7]), (1, [5, 6, 7]), (5, [5, 6, 7]), (7, [7]), (8, [])):
            gate.clear_below(lowest)
            self.assertEqual(list(gate.records), [body_of(number) for number in left])

    def test_a_record_keeps_its_ledger(self) -> None:
        """The one of its first sight (core FloodRecord), however often it comes later."""
        gate = FloodGate()
        gate.ledger_seq = 5
        gate.record_seen(body_of(1), peer(1))
        gate.ledger_seq = 6
        gate.record_seen(body_of(1), peer(2))
        gate.clear_below(6)
        self.assertFalse(gate.has_seen(body_of(1)))

    def test_old_by_ledger_and_by_age(self) -> None:
        """Either alone is not enough; core's window is the present ledger and eleven before it."""
        for ledgers, seconds, stays in (
            (LEDGERS_REMEMBERED - 1, TTL, True),
            (LEDGERS_REMEMBERED, TTL - 0.1, True),
            (LEDGERS_REMEMBERED, TTL, False),
            (1000, TTL - 0.1, True),
            (0, 1000 * TTL, True),
        ):
            gate = FloodGate(ttl_secs=TTL)
            gate.ledger_seq = 50
            gate.add_record(body_of(1), 0, 10.0)
            gate.ledger_seq = 50 + ledgers
            gate.expire(10.0 + seconds)
            self.assertEqual(gate.has_seen(body_of(1)), stays, (ledgers, seconds))

    def test_by_age_where_there_is_no_ledger(self) -> None:
        """When it was unknown, when it is, or when consensus began anew from a lower one."""
        for then, today in ((0, 0), (0, 1), (0, 5), (50, 0), (50, 49)):
            gate = FloodGate(ttl_secs=TTL)
            gate.ledger_seq = then
            gate.add_record(body_of(1), 0, 10.0)
            gate.ledger_seq = today
            gate.expire(10.0 + TTL - 0.1)
            self.assertTrue(gate.has_seen(body_of(1)))
            gate.expire(10.0 + TTL)
            self.assertFalse(gate.has_seen(body_of(1)), (then, today))

    def test_never_too_early_and_hardly_too_late(self) -> None:
        """Of messages that come all the time, the ones within the time to live are there."""
        gate = FloodGate(ttl_secs=TTL)
        for now in range(1000):
            gate.add_record(body_of(now), 0, float(now))
            gate.expire(float(now))
            oldest = now - min(int.from_bytes(body, "big") for body in gate.records)
            if now >= TTL:
                self.assertGreaterEqual(oldest, TTL - 1)
            self.assertLess(oldest, TTL + TTL / PARTS)

    def test_a_clock_that_goes_back(self) -> None:
        """By a little, or by much: no record is younger or older than itself for that."""
        for back in (2.0, 100.0):
            gate = FloodGate(ttl_secs=TTL)
            for number, now in enumerate((198.0, 205.0, 205.0 - back)):
                gate.add_record(body_of(number), 0, now)
            gate.expire(204.9 + TTL)
            self.assertTrue(gate.has_seen(body_of(1)))
            self.assertEqual(gate.has_seen(body_of(2)), back < TTL / PARTS)
            gate.expire(205.0 + TTL)
            self.assertEqual(gate.records, {})

    def test_without_a_timer(self) -> None:
        """Whoever never calls expire does not remember for ever."""
        gate = FloodGate(ttl_secs=TTL)
        add_many(gate, range(10), now=0.0)
        gate.record_seen(body_of(20), now=TTL)
        self.assertEqual(list(gate.records), [body_of(20)])

    def test_clear(self) -> None:
        """Everything is new again; what was counted stays counted, and peers keep their bits."""
        gate = FloodGate()
        gate.record_seen(body_of(1), peer(1))
        gate.clear()
        self.assertEqual((gate.stats.seen_count, gate.stats.bytes), (0, 0))
        self.assertEqual(gate.stats.unique_messages, 1)
        self.assertTrue(gate.record_seen(body_of(1), peer(1)))
        self.assertEqual(gate.get_peers_that_know(body_of(1)), [peer(1)])


class BoundsTests(SynchronousTestCase):
    """Y10: whatever comes, there is room for it, and never more than that."""

    def test_as_many_as_there_may_be(self) -> None:
        """To the last one; the next makes the oldest go, a sixteenth of the limit at once."""
        gate = FloodGate(max_records=160)
        add_many(gate, range(160))
        self.assertEqual((len(gate.records), gate.stats.evictions_total), (160, 0))
        add_many(gate, range(160, 161))
        self.assertEqual(list(gate.records), [body_of(number) for number in range(10, 161)])
        self.assertEqual(gate.stats.evictions_total, 10)
        add_many(gate, range(161, 170))
        self.assertEqual(gate.stats.evictions_total, 10)
        add_many(gate, range(170, 1000))
        self.assertEqual(list(gate.records), [body_of(number) for number in range(840, 1000)])
        self.assertEqual(gate.stats.evictions_total, 840)

    def test_as_many_bytes_as_there_may_be(self) -> None:
        """Likewise: ten bodies of 16 are a sixteenth of 2,560 bytes."""
        gate = FloodGate(max_bytes=2560)
        add_many(gate, range(160), size=16)
        self.assertEqual((gate.stats.bytes, gate.stats.evictions_total), (2560, 0))
        gate.add_record(b"x", 0, 0.0)
        self.assertEqual(gate.stats.bytes, 2401)
        self.assertEqual(list(gate.records)[:2], [body_of(10, 16), body_of(11, 16)])

    def test_small_limits(self) -> None:
        """Exactly the newest few are there."""
        for limit in range(1, 17):
            gate = FloodGate(max_records=limit)
            add_many(gate, range(40))
            expected = [body_of(number) for number in range(40 - limit, 40)]
            self.assertEqual(list(gate.records), expected)

    def test_a_body_beyond_all_bounds(self) -> None:
        """It is known until the next one comes; that one is kept."""
        gate = FloodGate(max_bytes=100)
        add_many(gate, range(5))
        self.assertTrue(gate.record_seen(bytes(101)))
        self.assertFalse(gate.record_seen(bytes(101)))
        self.assertEqual(list(gate.records), [bytes(101)])
        add_many(gate, range(5))
        self.assertEqual(list(gate.records), [body_of(number) for number in range(5)])
        self.assertEqual(gate.stats.bytes, 40)

    def test_forgetting_makes_room(self) -> None:
        """What is forgotten counts no more, so nothing else has to go."""
        gate = FloodGate(max_records=32)
        add_many(gate, range(32))
        for number in range(100, 1100):
            gate.forget(body_of(number - 100 if number < 132 else number - 32))
            gate.add_record(body_of(number), 0, 0.0)
        self.assertEqual(list(gate.records), [body_of(number) for number in range(1068, 1100)])
        self.assertEqual(gate.stats.evictions_total, 0)

    def test_what_returns_is_young(self) -> None:
        """A message that was forgotten and came again goes last."""
        gate = FloodGate(max_records=4)
        add_many(gate, range(4))
        gate.forget(body_of(0))
        add_many(gate, range(1))
        add_many(gate, range(10, 13))
        self.assertEqual(list(gate.records), [body_of(n) for n in (0, 10, 11, 12)])

    def test_an_evicted_message_is_new(self) -> None:
        """And is told to everybody again."""
        gate = FloodGate(max_records=2)
        links = stubs(gate, 2)
        tell(gate, body_of(1), links)
        add_many(gate, range(10, 12))
        self.assertEqual(tell(gate, body_of(1), links), 2)

    def test_forgetting_all_the_time(self) -> None:
        """A gate through which ever new and ever forgotten messages go holds nothing at all."""
        gate = FloodGate(max_records=100)
        for number in range(2000):
            gate.ledger_seq = number // 2
            gate.add_record(body_of(number), 0, float(number))
            gate.forget(body_of(number))
        self.assertEqual((len(gate.records), gate.stats.bytes), (0, 0))
        self.assertEqual(gate.stats.evictions_total, 0)
        self.assertLessEqual(len(gate._generations), 1)


class RateLimitTests(SynchronousTestCase):
    """DECISIONS.md 14."""

    def test_a_thousand_a_second(self) -> None:
        """The seed's default; the next second has room again."""
        gate = FloodGate()
        passed = [gate.allow_message(5.0 + n / 2000) for n in range(2000)]
        self.assertEqual(passed.count(True), DEFAULT_RATE_LIMIT_PER_SECOND)
        self.assertEqual(passed, sorted(passed, reverse=True))
        self.assertEqual(gate.stats.rate_limited, 1000)
        self.assertTrue(gate.allow_message(6.0))

    def test_off(self) -> None:
        """As many as there are."""
        gate = FloodGate(rate_limit_per_second=0)
        self.assertTrue(all(gate.allow_message(0.0) for _ in range(5000)))
        self.assertEqual(gate.stats.rate_limited, 0)

    def test_a_clock_that_goes_back(self) -> None:
        """It gives nobody more than one second's share, and takes nothing away for longer."""
        gate = FloodGate(rate_limit_per_second=2)
        self.assertEqual([gate.allow_message(100.0) for _ in range(3)], [True, True, False])
        self.assertFalse(gate.allow_message(50.0))
        self.assertFalse(gate.allow_message(50.9))
        self.assertEqual([gate.allow_message(51.0) for _ in range(3)], [True, True, False])

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.integers(1, 5), st.lists(st.floats(-0.2, 0.6), max_size=60))
    def test_any_pace(self, limit: int, steps: list[float]) -> None:
        """No second has more than two windows' worth, and a second of silence is enough."""
        gate, now = FloodGate(rate_limit_per_second=limit), 10.0
        passed = []
        for step in steps:
            now += max(0.0, step)
            if gate.allow_message(now):
                passed.append(now)
        for start in passed:
            self.assertLessEqual(sum(start <= each < start + 1 for each in passed), 2 * limit)
        self.assertTrue(gate.allow_message(now + 1))


class StatsTests(SynchronousTestCase):
    """What can be read off."""

    def test_what_it_counts_itself(self) -> None:
        """The convenience counts; a bare record does not, as its maker counts by the batch."""
        gate = FloodGate()
        gate.record_seen(body_of(1, 10), peer(1))
        gate.record_seen(body_of(1, 10), peer(2))
        gate.record_seen(body_of(1, 10), peer(3))
        gate.record_seen(body_of(2, 30), peer(3))
        gate.add_record(body_of(3, 50), 0, 0.0)
        stats = gate.stats
        self.assertEqual((stats.seen_count, stats.bytes), (3, 90))
        self.assertEqual((stats.unique_messages, stats.unique_bytes), (2, 40))
        self.assertEqual((stats.duplicate_messages, stats.duplicate_bytes), (2, 20))
        self.assertEqual((stats.total_messages, stats.duplicate_rate()), (4, 50.0))

    def test_batches(self) -> None:
        """Nine in ten are duplicates on a dense network."""
        gate = FloodGate()
        self.assertEqual(gate.stats.duplicate_rate(), 0.0)
        for _ in range(3):
            gate.count(1, 400, 9, 3600)
        stats = gate.stats
        self.assertEqual((stats.unique_messages, stats.unique_bytes), (3, 1200))
        self.assertEqual((stats.duplicate_messages, stats.duplicate_bytes), (27, 10800))
        self.assertEqual((stats.total_messages, stats.duplicate_rate()), (30, 90.0))

    def test_figures_do_not_move(self) -> None:
        """They are of the moment when they were asked for."""
        gate = FloodGate()
        before = gate.stats
        gate.record_seen(body_of(1))
        self.assertEqual((before.seen_count, before.total_messages), (0, 0))
        self.assertEqual(gate.stats.seen_count, 1)
