"""A whole node over loopback TCP, in a process of its own; the load comes from this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater

from benchmarks.channel import bare_handshake, bare_hmac, bodies
from benchmarks.report import Figure, at_least, at_most, per_item
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType, decode_send_more_extended

reactor: Any = _reactor
SENDERS = 10
MESSAGES_PER_SENDER = 20_000
HANDSHAKES = 3_000
AT_ONCE = 50
IDLE_PEERS = 800


class NodeUnderTest:
    """The other process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.node_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port: int = self._read()["port"]

    def figures(self) -> dict[str, Any]:
        """Return what the node says of itself now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while not line.startswith("{"):
            line = self._process.stdout.readline()
        return dict(json.loads(line))


class Sender(ScriptedPeer):
    """Sends as much as it is granted, as fast as it can."""

    def __init__(self, node: LocalNode, load: list[bytes]) -> None:
        super().__init__(node)
        self.done: Deferred[None] = Deferred()
        self._load = load
        self._sent = 0

    def hear(self, message: Message) -> None:
        super().hear(message)
        self.received.clear()
        if message.type is MessageType.SEND_MORE_EXTENDED:
            self._send_some(decode_send_more_extended(message.body)[0])

    def _send_some(self, count: int) -> None:
        assert self.auth.sealing is not None
        parts: list[bytes] = []
        self.auth.sealing.seal_into(parts, self._load[self._sent : self._sent + count])
        self._sent += count
        self.send_bytes(b"".join(parts))
        if self._sent >= len(self._load) and not self.done.called:
            self.done.callback(None)


async def measure() -> list[Figure]:
    """Return the figures, each from a fresh node."""
    return [*await _dense(), *await _handshakes(), *await _idle()]


async def _dense() -> list[Figure]:
    node = NodeUnderTest()
    load = bodies(MESSAGES_PER_SENDER)
    hmac_seconds = min(per_item(bare_hmac(load), len(load)) for _ in range(5))
    before = node.figures()
    senders = [Sender(LocalNode.testnet(), load) for _ in range(SENDERS)]
    for sender in senders:
        await _connect(node.port, sender)
    await DeferredList([sender.done for sender in senders])
    total = SENDERS * MESSAGES_PER_SENDER
    after = node.figures()
    while after["messages"] - before["messages"] < total:
        await deferLater(reactor, 0.05)
        after = node.figures()
    node.stop()
    assert not after["drops"], after
    seconds = (after["cpu"] - before["cpu"]) / total
    return [
        Figure("dense receive, whole process", seconds / hmac_seconds, "x bare HMAC"),
        Figure("dense receive, whole process", 1 / seconds, "messages per CPU second"),
    ]


async def _handshakes() -> list[Figure]:
    node = NodeUnderTest()
    local = LocalNode.testnet()
    await _shake_hands(node.port, local)
    before = node.figures()
    left = iter(range(HANDSHAKES))

    async def worker() -> None:
        for _ in left:
            await _shake_hands(node.port, LocalNode.testnet())

    await DeferredList([Deferred.fromCoroutine(worker()) for _ in range(AT_ONCE)])
    after = node.figures()
    node.stop()
    seconds = (after["cpu"] - before["cpu"]) / HANDSHAKES
    return [
        Figure("handshake, whole process", seconds / bare_handshake(), "x bare cryptography"),
        at_least("handshakes", 1 / seconds, "per CPU second", 4_000),
    ]


async def _idle() -> list[Figure]:
    node = NodeUnderTest()
    before = await _settle(node, 0)
    peers = []
    for _ in range(IDLE_PEERS):
        peers.append(ScriptedPeer(LocalNode.testnet()))
        await _connect(node.port, peers[-1])
    after = await _settle(node, IDLE_PEERS)
    node.stop()
    size = (after["rss"] - before["rss"]) / IDLE_PEERS / 1024
    return [at_most("idle authenticated peer", size, "KiB of RSS", 8)]


async def _settle(node: NodeUnderTest, peers: int) -> dict[str, Any]:
    while node.figures()["peers"] < peers:
        await deferLater(reactor, 0.05)
    return node.figures()


async def _connect(port: int, peer: ScriptedPeer) -> None:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    await endpoint.connect(ScriptedPeer.factory(lambda: peer))
    await peer.authenticated


async def _shake_hands(port: int, local: LocalNode) -> None:
    peer = ScriptedPeer(local)
    await _connect(port, peer)
    assert peer.transport is not None
    peer.transport.loseConnection()
    await peer.closed


def run() -> Iterator[Figure]:
    """Yield the figures of a node; runs the reactor, so only once per process."""
    results: list[list[Figure]] = []

    async def main() -> None:
        try:
            results.append(await measure())
        finally:
            reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
    reactor.run()
    yield from results[0]
