"""A process of peers: honest ones, or one that is unfair in one of the ways of :data:`WAYS`.

``python -m tests.integration.traffic_client`` takes commands from standard input.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable
from itertools import count

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from benchmarks.bodies import bodies
from benchmarks.commands import Figures, asynchronous, reactor, serve
from benchmarks.network import local_node
from benchmarks.peers import LoadPeer, Traffic
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    encode_hash_query,
    encode_hashes,
)
from tests.xdr_extremes import LEGAL

TRANSACTION, TX_SET = "transaction", "transaction set"
"""What a node of these tests has for those who ask."""
QUERIES = 1000
HASHES = 1000
"""In one advert: as many as there may be."""
PREPARED = 2000
"""Messages that are made before any is sent."""
ASKED_WHEN_DEAF = 280
"""Questions for a large item, of the 300 that are answered within a minute."""
SETTLED_SECONDS = 0.03
CHAT_LOOKS = 100
"""So often it is looked whether the last statements of a chat have arrived."""


class Unfair(LoadPeer):
    """Keeps to its credit; what it does with it is up to subclasses.

    :param items: hashes of what the node has, by name.
    :ivar did: how much it did, in whatever it counts.
    """

    def __init__(self, node: LocalNode, items: dict[str, bytes]) -> None:
        super().__init__(node, Traffic())
        self.items = items
        self.did = 0
        self._credit = self._credit_bytes = 0

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_closed = True
        if not self.closed.called:
            self.closed.callback(self)

    def take_grant(self, messages: int, size: int) -> None:
        self._credit += messages
        self._credit_bytes += size
        self.push()

    def push(self) -> None:
        """Do what credit allows."""

    def prepare(self) -> None:
        """Make what takes time to make."""

    def act(self) -> None:
        """Do what needs no credit, once the link is there."""

    def spend(self, make: Callable[[], bytes]) -> None:
        """Send flood messages as long as there is credit."""
        parts: list[bytes] = []
        assert self.auth.sealing is not None
        sent = []
        while self._credit > 0:
            body = make()
            if len(body) > self._credit_bytes:
                break
            self._credit -= 1
            self._credit_bytes -= len(body)
            sent.append(body)
        if sent:
            self.did += len(sent)
            self.auth.sealing.seal_into(parts, sent)
            self.send_bytes(b"".join(parts))


class Stingy(Unfair):
    """Reads, and never grants anything."""

    def grant(self, messages: int = 0, size: int = 0) -> None:
        self.did += 1


class Deaf(Unfair):
    """Grants all there is, asks for large items, and never reads."""

    def grant(self, messages: int = 0, size: int = 0) -> None:
        super().grant(2**31, 2**31)

    def act(self) -> None:
        assert self.transport is not None
        self.transport.pauseProducing()  # type: ignore[attr-defined]
        for _ in range(ASKED_WHEN_DEAF):
            self.send(Message(encode_hash_query(MessageType.GET_TX_SET, self.items[TX_SET])))
            self.did += 1


class Boaster(Unfair):
    """Advertises as much as it may and serves nothing."""

    def push(self) -> None:
        self.spend(self._advert)

    def _advert(self) -> bytes:
        self.did += HASHES - 1
        hashes = [os.urandom(32) for _ in range(HASHES)]
        return encode_hashes(MessageType.FLOOD_ADVERT, hashes)


class Repeater(Unfair):
    """Demands one transaction, a thousand times and more."""

    def push(self) -> None:
        demand = encode_hashes(MessageType.FLOOD_DEMAND, [self.items[TRANSACTION]])
        self.spend(lambda: demand)


class Asker(Unfair):
    """Asks a thousand questions of each kind, and a thousand more when it heard the answers."""

    def act(self) -> None:
        for number in range(QUERIES):
            wanted = hashlib.sha256(struct.pack(">Q", number)).digest()
            self.send(Message(encode_hash_query(MessageType.GET_TX_SET, self.items[TX_SET])))
            self.send(Message(encode_hash_query(MessageType.GET_SCP_QUORUMSET, wanted)))
        self.did += 2 * QUERIES


class Costly(Unfair):
    """Floods the calls of contracts, with signatures that look right and are not."""

    def prepare(self) -> None:
        made = []
        for body in bodies("soroban", 0, PREPARED):
            wrong = bytearray(body)
            wrong[-1] ^= 1
            made.append(bytes(wrong))
        self._made = made
        self._numbers = count()

    def push(self) -> None:
        self.spend(self._next)

    def _next(self) -> bytes:
        number = next(self._numbers)
        made = bytearray(self._made[number % PREPARED])
        struct.pack_into(">Q", made, 48, number + 10**6)  # another sequence number: another hash
        return bytes(made)


class Bulky(Unfair):
    """Sends transaction sets of 10 MiB, which nobody asked for, one after the other."""

    name = "every kind of transaction"

    def prepare(self) -> None:
        self._body = LEGAL[self.name]()

    def act(self) -> None:
        transport = self.transport
        assert transport is not None
        transport.registerProducer(self, False)  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        """Send the next when the last one has left."""
        self.send(Message(self._body))
        self.did += 1

    def stopProducing(self) -> None:
        """Do nothing: the link has ended."""


WAYS: dict[str, type[Unfair]] = {
    "never grants": Stingy,
    "never reads": Deaf,
    "advertises and never serves": Boaster,
    "repeats a demand": Repeater,
    "asks": Asker,
    "costly transactions": Costly,
    "bulky transaction sets": Bulky,
}


class Honest(LoadPeer):
    """Pushes statements of its own as fast as it has credit, and grants what it is told.

    :param talk: what it shares with the others.
    """

    def __init__(self, talk: Talk) -> None:
        super().__init__(local_node(), Traffic(failed=talk.fail))
        self.to_say: list[bytes] = []
        self._talk = talk
        self._credit = self._credit_bytes = 0

    def take_grant(self, messages: int, size: int) -> None:
        self._credit += messages
        self._credit_bytes += size
        self.push()

    def note(self, body: bytes) -> None:
        said_at = self._talk.said_at.get(body)
        if said_at is not None:
            self._talk.latencies.append(time.monotonic() - said_at)

    def push(self) -> None:
        """Say what credit allows."""
        if not self.to_say:
            return
        size = len(self.to_say[0])
        number = min(self._credit, self._credit_bytes // size, len(self.to_say))
        said, self.to_say[:number] = self.to_say[:number], []
        self._credit -= number
        self._credit_bytes -= number * size
        parts: list[bytes] = []
        assert self.auth.sealing is not None
        self.auth.sealing.seal_into(parts, said)
        self.send_bytes(b"".join(parts))
        if not self.to_say:
            self._talk.end()


class Talk:
    """What honest peers share while they talk.

    :ivar said_at: when statements were sent of which the latency is measured.
    :ivar latencies: how long each took to each that heard it.
    """

    def __init__(self) -> None:
        self.said_at: dict[bytes, float] = {}
        self.latencies: list[float] = []
        self.problem = ""
        self._over: Deferred[None] | None = None

    def fail(self, text: str) -> None:
        """Note that a link ended, which none should."""
        self.problem = self.problem or text
        self.end()

    def end(self) -> None:
        """Let nobody wait for more: somebody has nothing more to say."""
        over, self._over = self._over, None
        if over is not None:
            over.callback(None)

    async def last(self, seconds: float) -> None:
        """Wait until it is over, or for so long."""
        over: Deferred[None] = Deferred()
        self._over = over
        call = reactor.callLater(seconds, self.end)
        await over
        if call.active():
            call.cancel()
        if self.problem:
            raise AssertionError(self.problem)


class Company:
    """Honest peers, who tell each other whatever they have to say."""

    def __init__(self) -> None:
        self._talk = Talk()
        self._peers: list[Honest] = []
        self._next = 0

    async def connect(self, port: int, number: int) -> None:
        """Call a node, so many times."""
        for _ in range(number):
            peer = Honest(self._talk)
            await _connect(port, peer)
            self._peers.append(peer)

    async def run(self, seconds: float, most: int) -> Figures:
        """Let them talk at full credit for so long; return how much they heard in a second.

        :param most: statements of each; it is over as soon as one has no more.
        """
        for peer in self._peers:
            peer.to_say = self._statements(most)
        before, began = self._heard, time.monotonic()
        for peer in self._peers:
            peer.push()
        await self._talk.last(seconds)
        rate = (self._heard - before) / (time.monotonic() - began)
        for peer in self._peers:
            peer.to_say = []
        await self._settle()
        return {"rate": rate}

    async def chat(self, number: int, spacing: float) -> Figures:
        """Let them say so many statements one by one; return how long each took to each other."""
        talk = self._talk
        talk.latencies.clear()
        for index, statement in enumerate(self._statements(number)):
            talk.said_at[statement] = time.monotonic()
            peer = self._peers[index % len(self._peers)]
            peer.to_say = [statement]
            peer.push()
            await talk.last(spacing)
        expected = number * (len(self._peers) - 1)
        for _ in range(CHAT_LOOKS):
            if len(talk.latencies) < expected:
                await talk.last(SETTLED_SECONDS)
        talk.said_at.clear()
        return {"latencies": sorted(talk.latencies), "expected": expected}

    @property
    def _heard(self) -> int:
        return sum(peer.heard for peer in self._peers)

    def _statements(self, number: int) -> list[bytes]:
        first = self._next
        self._next += number
        return bodies("prepare", first, number)

    async def _settle(self) -> None:
        """Wait until nobody hears anything any more."""
        before = -1
        while before != (before := self._heard):
            await self._talk.last(SETTLED_SECONDS)


class Client:
    """The unfair peer, while there is one."""

    def __init__(self) -> None:
        self._peer: Unfair | None = None

    async def begin(self, port: int, way: str, items: dict[str, str]) -> None:
        """Call a node, and be unfair to it."""
        hashes = {name: bytes.fromhex(item_hash) for name, item_hash in items.items()}
        peer = self._peer = WAYS[way](local_node(), hashes)
        peer.prepare()
        await _connect(port, peer)
        peer.act()

    async def end(self) -> Figures:
        """Hang up; return how much it did, and whether it was dropped before."""
        peer, self._peer = self._peer, None
        assert peer is not None
        was_dropped = peer.is_closed
        assert peer.transport is not None
        if not was_dropped:
            peer.transport.abortConnection()  # type: ignore[attr-defined]
            await peer.closed
        return {"did": peer.did, "was_dropped": was_dropped}


async def _connect(port: int, peer: ScriptedPeer) -> None:
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
    await endpoint.connect(ScriptedPeer.factory(lambda: peer))
    await peer.authenticated


def main() -> None:
    """Take commands until the parent is gone."""
    client, company = Client(), Company()
    commands = {
        "begin": asynchronous(client.begin),
        "end": asynchronous(client.end),
        "connect": asynchronous(company.connect),
        "run": asynchronous(company.run),
        "chat": asynchronous(company.chat),
    }
    reactor.callWhenRunning(serve, commands)
    reactor.run()


if __name__ == "__main__":
    main()
