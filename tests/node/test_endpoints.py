"""The endpoints that are used to dial when none are given."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import ConnectionTimeout
from stellar_overlay.node.dialer import open_link, tcp_endpoints
from stellar_overlay.node.listener import ConnectionFactory
from tests.node.world import PORT, ip


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
