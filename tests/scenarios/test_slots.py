"""Whatever becomes of a link or a dial: its slots, its timers and its address are free again."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from twisted.internet.defer import CancelledError, Deferred

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import (
    AlreadyConnected,
    AuthenticationTimeout,
    ConnectionFailed,
    ConnectionTimeout,
    OverlayError,
    PeerBanned,
    PeerDisconnected,
    PeerLimitReached,
    ShuttingDown,
)
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.memory import MemoryTransport
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType, encode_error
from tests.builders import get_tx_set
from tests.scenarios.network import GoodPeer, ScenarioTestCase

CUT_OFF = 2_000


class FullPeer(ScriptedPeer):
    """Refuses whoever it answers, as soon as it may."""

    def _answer(self, message: Message) -> None:
        super()._answer(message)
        if message.type is MessageType.AUTH:
            self.send(Message(encode_error(4, "peer rejected")))


class SlotsTestCase(ScenarioTestCase):
    def setUp(self) -> None:
        super().setUp()
        # Without ticks: nothing happens but what the scenario does.
        self.node = self.network.add_node("node", run_standalone=True)
        self.before = self.state()

    def state(self) -> object:
        """Return all that a link or a dial may take up."""
        admission = self.node.admission
        return (
            admission.pending_outbound,
            admission.pending_inbound,
            admission.authenticated_outbound,
            admission.authenticated_inbound,
            set(admission.closing),
            [info.peer_id for info in self.node.peer_infos()],
            len(self.node.pending_peers()),
            len(self.timers()),
        )

    def dial(self, to: PeerAddress | str) -> tuple[Deferred[PeerId], list[object]]:
        """Let the node dial; return what waits for it, and a list for what comes of it."""
        outcome: list[object] = []
        dialling = Deferred.fromCoroutine(self.node.connect(to))
        dialling.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        return dialling, outcome

    def assert_freed(self) -> None:
        """Check that all is as it was, and nobody is on the line."""
        self.assertEqual(self.state(), self.before)
        for near, far in self.network.memory.transports:
            self.assertTrue(near.is_closed)
            self.assertTrue(far.is_closed)


class DialTests(SlotsTestCase):
    """Y25: every end of an outbound attempt."""

    def assert_error(self, to: PeerAddress | str, error: type[Exception], seconds: float) -> None:
        """Check what a dial ends with, within so many seconds, and that it can be made again."""
        for _ in range(2):
            _, outcome = self.dial(to)
            self.network.advance(seconds)
            self.assertEqual([type(result) for result in outcome], [error], outcome)
            self.network.advance(5)  # within which a link that ended closes
            self.assert_freed()

    def test_no_such_name(self) -> None:
        """Y25: no name, no slot; and no row, as there is no address."""
        self.assert_error("nowhere.example", ConnectionFailed, 0)
        self.assertEqual(self.node.known_peers(), [])

    def test_refused(self) -> None:
        """Y25: nobody listens there; on IPv6 likewise."""
        self.network.add_peer("deaf", is_listening=False)
        self.assert_error(self.network.address("deaf"), ConnectionFailed, 0)
        self.assert_error("[2001:470::9]:11625", ConnectionFailed, 0)

    def test_ipv6(self) -> None:
        """Y25, DECISIONS 22: it is dialled when it is asked for, and ends like any other."""
        host = self.network.add_peer("six", ip="2001:470::9", kind=GoodPeer)
        peer_id = self.network.result_of(self.node.connect("[2001:470::9]:11625"))
        self.assertEqual(peer_id, host.local_node.peer_id)
        self.network.result_of(self.node.disconnect(peer_id))
        self.network.advance(6)
        self.assert_freed()

    def test_black_hole(self) -> None:
        """Y24: the time to connect has a clock of its own."""
        self.network.add_peer("hole", kind=GoodPeer)
        self.network.memory.black_holes.add(self.network.address("hole").host)
        self.assert_error(self.network.address("hole"), ConnectionTimeout, 5)

    def test_mute(self) -> None:
        """Y24, row 36: the time for the handshake begins with the connection."""
        self.network.add_peer("mute", is_polite=False)
        self.assert_error(self.network.address("mute"), AuthenticationTimeout, 7)

    def test_they_are_full(self) -> None:
        """Row 38, at the other end: AUTH, and ERR_LOAD right behind it, is no link."""
        self.network.add_peer("full", kind=FullPeer)
        self.assert_error(self.network.address("full"), PeerLimitReached, 0)

    def test_they_hang_up(self) -> None:
        """Row 57, at the other end: without a word."""

        class Rude(ScriptedPeer):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        self.network.add_peer("rude", kind=Rude)
        self.assert_error(self.network.address("rude"), PeerDisconnected, 0)

    def test_banned(self) -> None:
        """Y25, row 28: found out at HELLO."""
        host = self.network.add_peer("banned", kind=GoodPeer)
        self.network.result_of(self.node.ban_peer(host.local_node.peer_id))
        self.assert_error(host.address, PeerBanned, 0)

    def test_cancelled(self) -> None:
        """Y25: while connecting, and within the handshake; such a dial is no failure of theirs."""
        for name, is_hole in (("hole", True), ("mute", False)):
            host = self.network.add_peer(name, is_polite=False)
            if is_hole:
                self.network.memory.black_holes.add(host.address.host)
            dialling, outcome = self.dial(host.address)
            self.network.advance(1)
            self.assertEqual(outcome, [])
            dialling.cancel()
            self.assertEqual([type(result) for result in outcome], [CancelledError])
            self.network.advance(5)
            self.assert_freed()
            row = self.row(self.node, name)
            self.assertEqual(row.num_failures if row else 0, 0, name)

    def test_in_flight(self) -> None:
        """Y25, Y26: a second dial to an address is refused, and leaves the first alone."""
        host = self.network.add_peer("late", is_polite=False)
        _, first = self.dial(host.address)
        self.network.advance(0)
        _, second = self.dial("late")
        self.network.advance(0)
        self.assertEqual([type(result) for result in second], [AlreadyConnected])
        (peer,) = host.answered
        peer.is_polite = True
        peer._answer(peer.received[0])
        self.network.advance(0)
        self.assertEqual(first, [host.local_node.peer_id])

    def test_stopping(self) -> None:
        """Y25, Y30: whatever is under way ends with the node."""
        outcomes = []
        for name in ("hole", "mute"):
            host = self.network.add_peer(name, is_polite=False)
            if name == "hole":
                self.network.memory.black_holes.add(host.address.host)
            outcomes.append(self.dial(host.address)[1])
        self.network.advance(1)
        self.network.stop("node")
        self.assert_idle(self.node)
        for outcome in outcomes:
            self.assertEqual([type(result) for result in outcome], [ShuttingDown], outcome)


class ClockTests(SlotsTestCase):
    """Y24: connecting and shaking hands are timed apart, whoever found the address."""

    def test_long_to_connect_short_to_shake_hands(self) -> None:
        """Y24: each is given up in its own time, whether it was asked for or only heard of."""
        for is_explicit in (True, False):
            self.again()
            mute = self.network.add_peer("mute", is_polite=False)
            hole = self.network.add_peer("hole")
            self.network.memory.black_holes.add(hole.address.host)
            node = self.network.add_node(
                "node", run_standalone=is_explicit, connect_timeout_secs=18, auth_timeout_secs=4
            )
            for name in ("mute", "hole"):
                if is_explicit:
                    dialling = Deferred.fromCoroutine(node.connect(self.network.address(name)))
                    dialling.addErrback(lambda failure: None)
                else:
                    node.stores.peers.ensure_exists(self.at(name))
            began = self.moment_at(node, dialled=2)
            self.assertTrue(4 <= self.moment_at(node, dialled=1) - began <= 9)
            mute.stop_listening()  # else it would be dialled again
            self.assertAlmostEqual(self.moment_at(node, dialled=0) - began, 18, delta=0.1)
            self.assertEqual(len(mute.answered), 1)
            self.network.stop("node")

    def moment_at(self, node: OverlayManager, *, dialled: int) -> float:
        """Let time pass until so many links are being opened; return when that was."""
        reached = self.network.run_until(
            lambda: node.admission.outbound == dialled, timeout=30, step=0.01
        )
        self.assertTrue(reached)
        return self.network.clock.seconds()


class AliasTests(ScenarioTestCase):
    """Y26: what is dialled is an address, however it is called."""

    def test_one_dial_for_all_names(self) -> None:
        """Y26: two names and a number are one peer; another port of that host is another."""
        host = self.network.add_peer("peer", kind=GoodPeer)
        ip = host.address.host
        self.network.memory.names["alias"] = [ip]
        self.network.add_peer("second", ip=ip, is_listening=False)
        node = self.network.add_node("node", known_peers=["peer", "alias", ip, f"{ip}:777"])
        self.network.advance(30)
        self.assertEqual(len(host.answered), 1)
        self.assertEqual(len(node.peer_infos()), 1)
        ports = Counter(dial.to.port for dial in self.network.memory.dials)
        self.assertEqual(ports[11625], 1)
        self.assertGreaterEqual(ports[777], 1)

    def test_cool_down(self) -> None:
        """Y26, 9.2: a peer that was lost at once is dialled again one to ten seconds later."""
        host = self.network.add_peer("peer", kind=GoodPeer)
        self.network.add_node("node", known_peers=["peer"])
        moments = []
        for number in range(10):
            arrived = self.network.run_until(
                lambda number=number: len(host.answered) > number,  # type: ignore[misc]
                timeout=20,
                step=0.1,
            )
            self.assertTrue(arrived)
            moments.append(self.network.clock.seconds())
            host.answered[-1].transport.abortConnection()  # type: ignore[union-attr]
        gaps = [later - before for before, later in pairwise(moments)]
        self.assertTrue(all(1 <= gap <= 14 for gap in gaps), gaps)  # at a tick

    def test_ourselves(self) -> None:
        """Y26, row 31: where we met ourselves nobody dials again."""
        node = self.network.add_node("node", known_peers=["node"])
        self.network.advance(120)
        self.assertEqual(node.metrics.outbound_attempt.get(), 1)


class CuttingPeer(ScriptedPeer):
    """Says so many bytes, and then ends as it was told."""

    transport: MemoryTransport

    def __init__(
        self, local_node: LocalNode, *, we_called_remote: bool = True, is_polite: bool = True
    ) -> None:
        super().__init__(local_node, we_called_remote=we_called_remote, is_polite=is_polite)
        self.left = CuttingPeer.limit

    limit = 0
    way: Callable[[MemoryTransport], object]

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.left == 0:
            self.send_bytes(b"")

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.AUTH:
            for number in range(40):
                self.send(get_tx_set(number))

    def send_bytes(self, data: bytes) -> None:
        if self.left < 0:
            return
        self.transport.write(data[: self.left])
        self.left -= len(data)
        if self.left <= 0:
            self.left = -1
            type(self).way(self.transport)


def _reset(transport: MemoryTransport) -> None:
    transport.abortConnection()


def _fin(transport: MemoryTransport) -> None:
    transport.loseConnection()


def _half_close(transport: MemoryTransport) -> None:
    transport.loseWriteConnection()


def _vanish(transport: MemoryTransport) -> None:
    transport.cork()


class CutOffTests(SlotsTestCase):
    """Row 13: connections that end at any byte, in each way that there is."""

    def run_many(self, count: int, *, is_outbound: bool) -> Counter[str]:
        """Cut so many connections off; return how many got how far."""
        chance = random.Random(count)
        host = self.network.add_peer("cut", kind=CuttingPeer, is_listening=is_outbound)
        far: Counter[str] = Counter()
        self.node.on_peer_event(lambda event: far.update([event.kind]))
        ways = (_reset, _fin, _half_close, _vanish)
        for number in range(count):
            # ScriptedHost makes each with the limit and way that the class has then.
            CuttingPeer.limit = chance.choice((0, 1, 3, 4, 5, chance.randrange(600), 2500))
            CuttingPeer.way = staticmethod(chance.choice(ways))
            if is_outbound:
                self.dial(host.address)
            else:
                host.dial(self.network.address("node"))
            self.network.advance(0.01)
            if CuttingPeer.way is _vanish or number % 50 == 49:
                self.network.advance(40)
                self.assert_freed()
        self.network.advance(60)
        return far

    def test_inbound(self) -> None:
        """Row 13: a thousand that called us; nothing of them is left."""
        far = self.run_many(CUT_OFF // 2, is_outbound=False)
        self.assertEqual(far["peer.connecting"], CUT_OFF // 2)
        self.assertEqual(far["peer.dropped"], CUT_OFF // 2)
        self.assertGreater(far["peer.authenticated"], CUT_OFF // 20)
        self.assert_freed()

    def test_outbound(self) -> None:
        """Row 13: a thousand that we called; each can be dialled again at once."""
        far = self.run_many(CUT_OFF // 2, is_outbound=True)
        self.assertEqual(far["peer.connecting"], CUT_OFF // 2)
        self.assertEqual(far["peer.dropped"], CUT_OFF // 2)
        self.assertGreater(far["peer.authenticated"], CUT_OFF // 20)
        self.assert_freed()


class ShutdownTests(ScenarioTestCase):
    """Y30: stopping is bounded, whatever the peers do."""

    def stopping(self, node: OverlayManager) -> list[float]:
        """Stop a node; return a list in which the moment will appear at which it had stopped."""
        done: list[float] = []
        began = self.network.clock.seconds()
        node.stopService().addCallback(lambda _: done.append(self.network.clock.seconds() - began))
        return done

    def test_without_peers(self) -> None:
        """Y30: at once; and a second and third time, too."""
        node = self.network.add_node("node", known_peers=["nowhere"])
        self.network.advance(10)
        self.assertEqual([self.stopping(node) for _ in range(3)], [[0.0]] * 3)
        self.assertEqual(self.network.result_of(node.stop()), None)

    def test_peers_are_told(self) -> None:
        """Y30: whoever reads hears ERR_MISC "shutdown", and it takes no time."""
        node = self.network.add_node("node")
        hosts = [self.network.add_peer(f"peer {n}", kind=GoodPeer) for n in range(5)]
        peers = [host.dial(self.network.address("node")) for host in hosts]
        self.network.advance(0)
        done = self.stopping(node)
        self.network.advance(0.1)
        self.assertEqual([peer.error for peer in peers], [(0, b"shutdown")] * 5)
        self.assertEqual(done, [0.0])

    def test_peers_that_do_not_read(self) -> None:
        """Y30: are broken off; all is over in five seconds, however often it was asked for."""
        node = self.network.add_node("node", known_peers=["hole"])
        self.network.add_peer("hole")
        self.network.memory.black_holes.add(self.network.address("hole").host)
        host = self.network.add_peer("peer", kind=GoodPeer)
        host.dial(self.network.address("node"))
        mute = self.network.add_peer("mute", is_polite=False)
        mute.dial(self.network.address("node"))
        self.network.advance(2)
        for _, ours in self.network.memory.transports:
            ours.cork()
        done = [self.stopping(node) for _ in range(2)]
        self.network.advance(1)
        self.assertEqual(done, [[], []])
        self.network.advance(4)
        self.assertEqual([len(moments) for moments in done], [1, 1])
        self.assert_idle(node)
        with self.assertRaises(OverlayError):
            self.network.result_of(node.connect(host.address))
        with self.assertRaisesRegex(Exception, "refused"):
            host.dial(self.network.address("node"))
