"""A process full of peers that load one node or another, as they are told."""

from __future__ import annotations

import time
from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import LoopingCall, deferLater

from benchmarks.bodies import bodies
from benchmarks.commands import Figures, asynchronous, reactor, serve
from benchmarks.network import local_node
from benchmarks.peers import BATCH, ROLES, LoadPeer, Receiver, Sender, Traffic
from stellar_overlay.identity import LocalNode
from stellar_overlay.node_service import spare_the_collector
from stellar_overlay.testing.scripted_peer import ScriptedPeer

WINDOW = 80
"""How many bodies senders may be ahead of the slowest receiver.

Far less than receivers grant, or the node would see some messages before the grant that they need,
and what is measured were queues that wait for credit.
"""
ROUND_SECONDS = 30
SETTLED_SECONDS = 0.01


class LoadError(Exception):
    """The node did not do what was expected of it."""


class Load:
    """The peers, and what they send."""

    def __init__(self) -> None:
        self._peers: list[LoadPeer] = []
        self._senders: list[Sender] = []
        self._receivers: list[Receiver] = []
        self._traffic = Traffic(moved=self._move, failed=self._fail)
        self._over: Deferred[None] | None = None
        self._problem = ""
        self._is_paced = False

    async def connect(self, port: int, role: str, count: int) -> None:
        """Connect so many peers, each with a key of its own."""
        for _ in range(count):
            peer = ROLES[role](local_node(), self._traffic)
            await _connect(port, peer)
            self._peers.append(peer)
            if isinstance(peer, Sender):
                self._senders.append(peer)
            elif isinstance(peer, Receiver):
                self._receivers.append(peer)

    def prepare(self, kind: str, first: int, count: int) -> None:
        """Make the bodies of the next round."""
        traffic = self._traffic
        traffic.bodies = bodies(kind, first, count)
        traffic.numbers = {body: number for number, body in enumerate(traffic.bodies)}
        for peer in self._peers:
            peer.begin()
        spare_the_collector()

    async def run(self, spacing: float = 0.0) -> Figures:
        """Send the bodies: as fast as credit allows, or one by one with so many seconds between.

        Over when all senders have their credit back and every receiver has every body.

        :raises LoadError: when that does not happen, or anything comes twice.
        """
        if self._problem:
            raise LoadError(self._problem)
        heard = sum(peer.heard for peer in self._peers)
        start, start_cpu = time.monotonic(), time.process_time()
        over = self._over = Deferred()
        over.addTimeout(ROUND_SECONDS, reactor)
        self._is_paced = spacing > 0
        ticking = LoopingCall(self._send_one_each)
        if spacing:
            ticking.start(spacing)
        else:
            self._move()
        try:
            await over
        except Exception:
            raise LoadError(f"the round does not end: {self._state()}") from None
        finally:
            self._over = None
            if ticking.running:
                ticking.stop()
        seconds, cpu = time.monotonic() - start, time.process_time() - start_cpu
        await self._settle()
        self._check()
        return {
            "seconds": seconds,
            "cpu": cpu,
            "sent": sum(sender.sent for sender in self._senders),
            "heard": sum(peer.heard for peer in self._peers) - heard,
        }

    async def shake(self, port: int, count: int, at_once: int) -> None:
        """Shake hands so many times, each time as somebody else, and hang up."""
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await _shake_hands(port, local_node())

        await DeferredList(
            [Deferred.fromCoroutine(worker()) for _ in range(at_once)], fireOnOneErrback=True
        )

    def _move(self) -> None:
        """Send what may be sent now; notice the end."""
        if self._over is None:
            return
        total = len(self._traffic.bodies)
        slowest = min([receiver.got for receiver in self._receivers], default=total)
        if not self._is_paced:
            limit = min(total, slowest // BATCH * BATCH + WINDOW)
            for sender in self._senders:
                sender.pump(limit)
        if slowest >= total and all(sender.is_done for sender in self._senders):
            over, self._over = self._over, None
            over.callback(None)

    def _send_one_each(self) -> None:
        total = len(self._traffic.bodies)
        for sender in self._senders:
            sender.pump(min(total, sender.sent + 1))

    async def _settle(self) -> None:
        """Wait until nobody hears anything any more: what senders get is awaited by nobody."""
        before = -1
        while before != (before := sum(peer.heard for peer in self._peers)):
            await deferLater(reactor, SETTLED_SECONDS)

    def _check(self) -> None:
        if self._problem:
            raise LoadError(self._problem)
        for number, receiver in enumerate(self._receivers):
            if receiver.faults:
                raise LoadError(f"receiver {number}: {receiver.faults}")

    def _state(self) -> str:
        waiting = sum(not sender.is_done for sender in self._senders)
        faults = {receiver.faults for receiver in self._receivers} - {""}
        return f"{waiting} senders wait; receivers: {sorted(faults)}; {self._problem}"

    def _fail(self, text: str) -> None:
        self._problem = text
        if self._over is not None:
            over, self._over = self._over, None
            over.errback(LoadError(text))


async def _connect(port: int, peer: ScriptedPeer) -> None:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    await endpoint.connect(ScriptedPeer.factory(lambda: peer))
    await peer.authenticated


async def _shake_hands(port: int, node: LocalNode) -> None:
    peer = ScriptedPeer(node)
    await _connect(port, peer)
    assert peer.transport is not None
    peer.transport.loseConnection()
    await peer.closed


def main(arguments: Sequence[str] = ()) -> None:
    """Take commands until the parent is gone."""
    load = Load()
    commands = {
        "connect": asynchronous(load.connect),
        "prepare": load.prepare,
        "run": asynchronous(load.run),
        "shake": asynchronous(load.shake),
    }
    reactor.callWhenRunning(serve, commands)
    reactor.run()


if __name__ == "__main__":
    main()
