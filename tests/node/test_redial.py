"""How configured peers are kept, and the endpoints that are dialled."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import (
    ConnectionTimeout,
)
from stellar_overlay.node.dialer import Redialler, open_link, tcp_endpoints
from stellar_overlay.node.listener import ConnectionFactory
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import Message
from tests.builders import make_node
from tests.node.world import PORT, LivelyPeer, WorldTestCase, ip


class RedialTests(WorldTestCase):
    """Configured peers are dialled at start, and again."""

    def dials(self, node: OverlayManager) -> Callable[[], int]:
        return node.metrics.outbound_attempt.get

    def test_configured_peers_are_dialled_at_start(self) -> None:
        """Preferred ones first, without anybody asking."""
        acceptors = {number: self.world.answer(number) for number in (7, 8, 9)}
        node = self.world.node(known_peers=[ip(7), ip(8)], preferred_peers=[ip(9)])
        order = [make_node(number).peer_id for number in (9, 7, 8)]
        self.assertEqual([info.peer_id for info in node.peer_infos()], order)
        self.assertEqual([len(peers) for peers in acceptors.values()], [1, 1, 1])

    def test_no_more_than_the_target(self) -> None:
        """With two slots to fill, the third configured peer is not dialled."""
        for number in (7, 8, 9):
            self.world.answer(number)
        node = self.world.node(
            known_peers=[ip(7), ip(8), ip(9)], target_outbound_peers=2, max_outbound_peers=5
        )
        self.world.advance(30)
        self.assertEqual((len(node.peer_infos()), self.dials(node)()), (2, 2))

    def test_each_failure_doubles_the_waiting_time(self) -> None:
        """Connection.md 9.2 with a random number in the middle: 11, 21, 41, 81 seconds."""
        node = self.world.node(known_peers=[ip(9)])
        times: list[float] = []
        for second in range(200):
            while self.dials(node)() > len(times):
                times.append(second)
            self.world.advance(1)
        # Each at the first tick (every three seconds) at which it is due.
        self.assertEqual(times, [0, 12, 33, 75, 156])

    def test_a_lost_peer_is_dialled_again(self) -> None:
        """After a success the count begins anew: at the latest ten seconds and a tick later."""
        acceptors = self.world.answer(9)
        node = self.world.node(known_peers=[ip(9)])
        for number in range(6):
            self.world.advance(20)
            self.assertEqual(len(acceptors), number + 1)
            acceptors[-1].send_forged(Message(b"\0\0\0\6" + bytes(32)))
            self.world.settle()
            self.assertEqual(node.peer_infos(), [])
            self.world.advance(13)
            self.assertEqual(len(node.peer_infos()), 1)

    def test_a_black_hole_is_dialled_again(self) -> None:
        """It has one attempt at a time, and does not keep others from being dialled."""
        self.world.network.black_holes.add(ip(9))
        self.world.answer(8)
        node = self.world.node(known_peers=[ip(9), ip(8)])
        self.assertEqual((len(node.peer_infos()), node.admission.outbound), (1, 2))
        self.world.advance(13)
        self.assertEqual(self.dials(node)(), 3)

    def test_a_connected_peer_is_not_dialled_again(self) -> None:
        """Not by its name when it is known by number, nor when it announces another port."""
        hosts = {"node.example": PeerAddress(ip(8)), ip(9): PeerAddress(ip(9))}
        acceptors = self.world.answer(8, kind=LivelyPeer)
        self.world.answer(9, local_node=make_node(9, port=777), kind=LivelyPeer)
        node = self.world.node(is_started=False, known_peers=["node.example", ip(9)])
        client = self.world.network.client(ip(1))
        node._dialer._connect = lambda address: client(hosts[address.host])
        self.world.result(node.start())
        self.world.advance(100)
        self.assertEqual(len(node.peer_infos()), 2)
        self.assertEqual(self.dials(node)(), 2)
        # Nor did waiting for it to go away count as failing to reach it.
        acceptors[0].transport.loseConnection()  # type: ignore[union-attr]
        self.world.advance(13)
        self.assertEqual((len(node.peer_infos()), self.dials(node)()), (2, 3))

    def test_nothing_is_dialled_after_the_stop(self) -> None:
        """The tick ends with the node."""
        node = self.world.node(known_peers=[ip(9)])
        self.world.result(node.stop())
        dials = self.dials(node)()
        self.world.advance(60)
        self.assertEqual(self.dials(node)(), dials)


class RedialerTests(SynchronousTestCase):
    """When a configured peer is due."""

    @settings(derandomize=True, max_examples=200)
    @given(failures=st.integers(1, 40), random=st.floats(0, 1, exclude_max=True))
    def test_waiting_times(self, failures: int, random: float) -> None:
        """After the n-th attempt, 1 to 10 * 2^min(n, 10) seconds."""
        address = PeerAddress(ip(9))
        redialler = Redialler([address], lambda: random)
        for _ in range(failures):
            redialler.note_attempt(address, 100)
        most = 10 * 2 ** min(failures, 10)
        self.assertEqual(redialler.due(100), [])
        self.assertEqual(redialler.due(100 + most), [address])
        wait = 1 + int(random * most)
        self.assertEqual(redialler.due(99.9 + wait), [])
        self.assertEqual(redialler.due(100 + wait), [address])

    def test_a_success_forgets_failures(self) -> None:
        """After it, 1 to 10 seconds, and the next failure counts as the first."""
        address = PeerAddress(ip(9))
        redialler = Redialler([address], lambda: 0.999)
        for _ in range(9):
            redialler.note_attempt(address, 0)
        redialler.note_success(address, 0)
        self.assertEqual((redialler.due(9.9), redialler.due(10)), ([], [address]))
        redialler.note_attempt(address, 10)
        self.assertEqual((redialler.due(29.9), redialler.due(30)), ([], [address]))

    def test_an_address_named_twice_is_one(self) -> None:
        """A peer that is known and preferred is dialled once, as preferred."""
        addresses = [PeerAddress(ip(number)) for number in (1, 2, 1)]
        self.assertEqual(Redialler(addresses, lambda: 0.5).due(0), addresses[:2])


class DeafResolver:
    """A name server that never answers."""

    def resolveHostName(self, *_: object, **__: object) -> None:  # noqa: N802
        """Say nothing."""


def deaf_reactor() -> MemoryReactorClock:
    """Return a reactor that can resolve no name."""
    reactor = MemoryReactorClock()
    reactor.nameResolver = DeafResolver()  # type: ignore[assignment]
    return reactor


class EndpointTests(SynchronousTestCase):
    """The endpoints that are used when none are given."""

    def open(self, reactor: MemoryReactorClock, host: str) -> list[object]:
        outcome: list[object] = []
        opening = Deferred.fromCoroutine(
            open_link(
                tcp_endpoints(reactor, 5), PeerAddress(host), ConnectionFactory(lambda _: None)
            )
        )
        opening.addErrback(lambda failure: outcome.append(failure.value))
        return outcome

    def test_a_name_that_is_never_resolved(self) -> None:
        """The time-out counts from the beginning, not from the first address."""
        reactor = deaf_reactor()
        outcome = self.open(reactor, "node.example")
        reactor.advance(4.9)
        self.assertEqual(outcome, [])
        reactor.advance(0.1)
        self.assertIs(type(outcome[0]), ConnectionTimeout)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_numbers_are_dialled_as_they_are(self) -> None:
        """With the time-out, over IPv4 and IPv6, without asking a name server."""
        reactor = deaf_reactor()
        for host in (ip(9), "2001:db8::1"):
            self.open(reactor, host)
        dialled = [(host, port, timeout) for host, port, _, timeout, _ in reactor.tcpClients]
        self.assertEqual(dialled, [(ip(9), PORT, 5), ("2001:db8::1", PORT, 5)])
