"""What a hostile peer can cost a node, and that honest peers do not notice."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.memory import BUFFER_SIZE
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.channel import OVERHEAD
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE
from stellar_overlay.wire.message import Message, MessageType, encode_dont_have
from tests.builders import get_tx_set
from tests.node.world import LivelyPeer, WorldTestCase

MEBIBYTE = 1024 * 1024
LARGEST = MAX_MESSAGE_SIZE - OVERHEAD
"""Bytes of the longest legal message."""
MEMORY_ABOVE_THE_FRAME = 40_000_000
REACTOR_SECONDS = 0.25


def quorum_set(validators: bytes = b"", inner_sets: bytes = b"") -> bytes:
    """Return the body of an SCP_QUORUMSET; both arrays with their counts."""
    return struct.pack(">II", 10, 1) + (validators or bytes(4)) + (inner_sets or bytes(4))


def many_empty_sets() -> bytes:
    """Return a quorum set of 1.3 million inner sets with nothing in them."""
    count = (LARGEST - 16) // 12
    return quorum_set(inner_sets=struct.pack(">I", count) + bytes(12 * count))


def many_validators() -> bytes:
    """Return a quorum set of 466,000 validators."""
    count = (LARGEST - 16) // 36
    return quorum_set(validators=struct.pack(">I", count) + bytes(36 * count))


def deep_set(depth: int) -> bytes:
    """Return a quorum set in a quorum set in a quorum set …"""
    level = struct.pack(">III", 1, 0, 1)
    return b"\0\0\0\x0a" + level * depth + bytes(12)


def transactions_of(value: bytes) -> bytes:
    """Return a TX_SET whose one transaction calls a contract with this SCVal."""
    account = struct.pack(">I32s", 0, bytes(32))
    transaction = account + struct.pack(">IQII", 100, 1, 0, 0)
    address = struct.pack(">I32s", 1, bytes(32))
    call = struct.pack(">III", 1, 0, 24) + b"\0\0\0\0" + address + b"\0\0\0\1f\0\0\0"
    operation = call + b"\0\0\0\1" + value + bytes(4)
    envelope = struct.pack(">I", 2) + transaction + operation + bytes(8)
    return struct.pack(">I32sI", 7, bytes(32), 1) + envelope


def many_voids() -> bytes:
    """Return four million void values in one vector."""
    count = (LARGEST - 400) // 4
    return transactions_of(struct.pack(">III", 16, 1, count) + b"\0\0\0\1" * count)


def deep_value(depth: int) -> bytes:
    """Return a vector in a vector in a vector …"""
    return transactions_of(struct.pack(">III", 16, 1, 1) * depth + b"\0\0\0\1")


BOMBS = {
    "1.3 million empty inner sets": many_empty_sets,
    "466,000 validators": many_validators,
    "4 million voids": many_voids,
    "sets 5,000 deep": lambda: deep_set(5000),
    "sets a million deep": lambda: deep_set((LARGEST - 16) // 12),
    "values 5,000 deep": lambda: deep_value(5000),
    "values a million deep": lambda: deep_value((LARGEST - 400) // 12),
    "a count of 2^32 - 1": lambda: quorum_set(inner_sets=b"\xff" * 4 + bytes(LARGEST - 16)),
    "16 MiB of zeros": lambda: bytes(LARGEST),
}


def pieces(data: bytes) -> Iterator[bytes]:
    """Cut data into what one read of a socket brings."""
    return (data[at : at + 65536] for at in range(0, len(data), 65536))


class HostileTestCase(WorldTestCase):
    """A node with an honest peer, which must be served whatever others do."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node()
        self.honest = self.world.call(number=8)
        self.asked = 0

    def attacker(self) -> tuple[ScriptedPeer, Connection]:
        """Return an authenticated peer, and the node's end of its link."""
        peer = self.world.call()
        link = self.world.transports()[1].protocol
        assert isinstance(link, Connection)
        return peer, link

    def assert_honest_peer_is_served(self) -> None:
        """Let it ask for something, and get the answer at once."""
        self.asked += 1
        self.honest.send(get_tx_set(self.asked))
        self.world.settle()
        wanted = get_tx_set(self.asked).body[4:]
        answer = Message(encode_dont_have(MessageType.GENERALIZED_TX_SET, wanted))
        self.assertEqual(self.honest.received[-1], answer)
        self.assertFalse(self.honest.is_closed)

    def refuse(self, body: bytes) -> tuple[int, float]:
        """Let the node refuse a sealed body; return peak memory and seconds that it cost.

        Both above the frame itself, which is there before the clock starts.
        """
        peer, link = self.attacker()
        assert peer.auth.sealing is not None
        frame = peer.auth.sealing.seal(body)
        del body
        began = time.thread_time()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for piece in pieces(frame):
            link.dataReceived(piece)
        seconds = time.thread_time() - began
        peak = tracemalloc.get_traced_memory()[1] - before - len(frame)
        assert link.violation is not None
        self.assertEqual(link.violation.reason, "received corrupt XDR")
        self.world.settle()
        self.assertEqual(peer.error, (1, b"received corrupt XDR"))
        return peak, seconds


class MemoryTests(HostileTestCase):
    """Memory follows what was received, not what was claimed, and is not multiplied."""

    def setUp(self) -> None:
        super().setUp()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)

    def test_a_claim_costs_nothing(self) -> None:
        """Fifty peers announce 16 MiB each, and send a kilobyte of it."""
        links = [self.attacker()[1] for _ in range(1)]
        links += [self._claimant(number) for number in range(10, 59)]
        data = struct.pack(">I", 0x80000000 | MAX_MESSAGE_SIZE) + bytes(1024)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        for link in links:
            link.dataReceived(data)
        peak = tracemalloc.get_traced_memory()[1] - before
        self.assertLess(peak, 50 * 8192)
        self.assertTrue(all(link.violation is None for link in links))
        self.assert_honest_peer_is_served()

    def test_bombs(self) -> None:
        """Each is refused as corrupt XDR, at a cost of less than 40 MB above the frame."""
        for name, make in BOMBS.items():
            peak, _ = self.refuse(make())
            self.assertLess(peak, MEMORY_ABOVE_THE_FRAME, name)
            self.assert_honest_peer_is_served()

    def _claimant(self, number: int) -> Connection:
        self.world.call(number=number)
        link = self.world.transports()[1].protocol
        assert isinstance(link, Connection)
        return link


class TimeTests(HostileTestCase):
    """The reactor is not held up."""

    def test_bombs(self) -> None:
        """Each is refused within a quarter of a second; one of three tries is enough."""
        for name, make in BOMBS.items():
            body = make()
            is_quick = any(self.refuse(body)[1] < REACTOR_SECONDS for _ in range(3))
            self.assertTrue(is_quick, name)
        self.assert_honest_peer_is_served()


class SlowTests(HostileTestCase):
    """Peers that take their time."""

    def test_tricklers_are_gone_by_the_handshake_deadline(self) -> None:
        """M-06: a byte at a time, a HELLO is no progress; an honest newcomer gets in meanwhile."""
        reasons = self.reasons_of(self.node)
        tricklers = [self.world.call(number=30 + n, is_polite=False) for n in range(20)]
        hello = tricklers[0].auth.create_hello()
        data = struct.pack(">I", len(hello.body) + OVERHEAD) + bytes(12) + hello.body
        for at in range(20):
            for trickler in tricklers:
                trickler.send_bytes(data[at : at + 1])
            self.world.advance(0.24)
        self.assertEqual((reasons, len(self.node.admission.pending)), ([], 20))
        self.assertIsNone(self.world.call(number=7).error)
        self.world.advance(0.25)
        self.assertEqual(reasons, ["idle timeout"] * 20)
        self.assertTrue(all(trickler.is_closed for trickler in tricklers))
        self.assertEqual(len(self.node.peer_infos()), 2)

    def test_stopping_after_hello(self) -> None:
        """A HELLO buys no time: the deadline is absolute."""
        peer = self.world.call(is_polite=False)
        self.world.advance(4.5)
        peer.say_hello()
        self.world.advance(0.5)
        self.assertTrue(peer.is_closed)
        self.assertIsNone(peer.error)

    def test_a_trickle_after_authentication(self) -> None:
        """Row 14: the bytes of a record that never ends do not keep a link alive."""
        peer, link = self.attacker()
        peer.send_bytes(struct.pack(">I", 0x80001000))
        for _ in range(40):
            peer.send_bytes(b"\0")
            self.world.advance(1)
        assert link.violation is not None
        self.assertEqual(link.violation.reason, "idle timeout")

    def test_a_peer_that_stops_reading(self) -> None:
        """Row 54: it costs a bounded buffer and is dropped as a straggler at 120 to 125 s."""
        answer = Message(b"\0\0\0\7" + bytes(36) + bytes(200_000))
        herder = IgnoringHerder()
        self.patch(herder, "get_tx_set", lambda _: answer)
        node = self.world.node(2, herder=herder)
        reasons = self.reasons_of(node)
        other = self.world.call(2, number=8, kind=LivelyPeer)
        peer = self.world.call(2)
        theirs, ours = self.world.transports()
        link = ours.protocol
        assert isinstance(link, Connection)
        theirs.pauseProducing()
        for second in range(120):
            for number in range(3):
                peer.send(get_tx_set(number))
            self.world.advance(1)
            self.assertEqual(reasons, [], second)
            self.assertLessEqual(ours.buffered, BUFFER_SIZE + MEBIBYTE + answer.size)
            self.assertLessEqual(link.session.outbox.answer_bytes, 32 * MEBIBYTE)
        self.world.advance(5)
        self.assertEqual(reasons, ["straggling (cannot keep up)"])
        self.assertEqual(node.metrics.timeouts_straggler.get(), 1)
        self.world.advance(5)
        self.assertTrue(ours.is_closed)
        self.assertEqual(len(reasons), 1)
        other.send(get_tx_set())
        self.world.settle()
        self.assertEqual(other.received[-1], answer)


class JunkTests(WorldTestCase):
    """Whatever bytes come, a link ends with a reason of the table, and nothing is logged."""

    @settings(derandomize=True, max_examples=150)
    @given(junk=st.binary(min_size=1, max_size=200), stage=st.integers(0, 2))
    def test_junk(self, junk: bytes, stage: int) -> None:
        """As the first bytes, after HELLO, and from an authenticated peer."""
        if not hasattr(self, "node"):
            self.node: OverlayManager = self.world.node()
        peer = self.world.call(is_polite=stage == 2)
        if stage == 1:
            peer.say_hello()
            self.world.settle()
        peer.send_bytes(junk)
        self.world.settle()
        self.world.transports()[0].abortConnection()
        self.world.settle()
        self.assertEqual(self.node.peer_infos(), [])
        self.assertEqual(list(self.node.admission.pending), [])
        self.assertEqual(self.flushLoggedErrors(), [])
