"""Nodes over real TCP that flood to each other, and scripted peers that call them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.verifier import ThreadPoolVerifier
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from tests.integration.members import LOOPBACK, the_reactor, until
from tests.scenarios.traffic import Neighbour

PATIENCE_SECONDS = 20
"""How long anything may take on a busy machine before it counts as hanging."""
QUIET_LOOKS = 3

P = TypeVar("P", bound=Neighbour)


def new_node(**settings: Any) -> OverlayManager:
    """Return a node of the test network that will listen, and dials nobody by itself."""
    return OverlayManager(
        OverlayConfig(allow_private=True, run_standalone=True, **settings),
        LocalNode.testnet(),
        reactor=the_reactor(),
        listen=f"tcp:0:interface={LOOPBACK}",
    )


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[OverlayManager]:
    """Run a node."""
    async with linked([], **settings) as (node,):
        yield node


@asynccontextmanager
async def linked(
    links: Sequence[tuple[int, int]], **settings: Any
) -> AsyncIterator[list[OverlayManager]]:
    """Run nodes that are linked as pairs of numbers say: the first dials the second."""
    nodes = [new_node(**settings) for _ in range(1 + max(map(max, links), default=0))]
    try:
        for node in nodes:
            await node.start()
        for a, b in links:
            await nodes[a].connect(address_of(nodes[b]))
        count = 2 * len(links)
        await until(lambda: sum(len(n.peer_infos()) for n in nodes) == count, PATIENCE_SECONDS)
        yield nodes
    finally:
        await DeferredList([node.stopService() for node in nodes])


def address_of(node: OverlayManager) -> PeerAddress:
    """Return where a node listens."""
    assert node.peer_port is not None
    return PeerAddress(LOOPBACK, node.peer_port)


async def call(node: OverlayManager, kind: type[P]) -> P:
    """Return a peer that has dialled a node, when the node has admitted it."""
    endpoint = TCP4ClientEndpoint(the_reactor(), LOOPBACK, address_of(node).port)
    made = kind(the_reactor(), LocalNode.testnet())
    await endpoint.connect(ScriptedPeer.factory(lambda: made))
    await soon(made.authenticated)
    await until(lambda: is_peer(node, made), PATIENCE_SECONDS)
    return made


async def calls(node: OverlayManager, count: int, kind: type[P]) -> list[P]:
    """Return so many."""
    return [await call(node, kind) for _ in range(count)]


async def hang_up(*peers: Neighbour) -> None:
    """Close links that are open, and wait until they are closed."""
    for peer in peers:
        if not peer.is_closed:
            peer.hang_up()
        await soon(peer.closed)


def is_peer(node: OverlayManager, peer: Neighbour) -> bool:
    """Tell whether a node has admitted a scripted peer."""
    return any(info.peer_id == peer.peer_id for info in node.peer_infos())


def soon(waiting: Deferred[Any]) -> Deferred[Any]:
    """Return ``waiting``, with an end to all patience."""
    return waiting.addTimeout(PATIENCE_SECONDS, the_reactor())


def figures(node: OverlayManager, *names: str) -> list[int]:
    """Return counters of a node."""
    snapshot = node.metrics.snapshot()
    found = [snapshot[name] for name in names]
    return [figure for figure in found if isinstance(figure, int)]


async def quiet(nodes: Sequence[OverlayManager], peers: Sequence[Neighbour] = ()) -> None:
    """Wait until nobody has anything to say: no signature, queue or socket holds a message.

    What is said by the clock alone, such as a ping, may follow.
    """
    looks: dict[tuple[int, ...], int] = defaultdict(int)

    def is_quiet() -> bool:
        busy = any(verifier_of(node).pending or _has_unsent(node) for node in nodes)
        counts = [count for node in nodes for count in figures(node, "bytes_read", "bytes_written")]
        state = (*counts, *(len(peer.received) + peer.sent for peer in peers))
        looks[state] += not busy
        return looks[state] >= QUIET_LOOKS

    await until(is_quiet, PATIENCE_SECONDS)


def verifier_of(node: OverlayManager) -> ThreadPoolVerifier:
    """Return the threads that check signatures for a node."""
    verifier = node.getServiceNamed(ThreadPoolVerifier.name)
    assert isinstance(verifier, ThreadPoolVerifier)
    return verifier


def _has_unsent(node: OverlayManager) -> bool:
    links = [node.peer(info.peer_id).connection for info in node.peer_infos()]
    return any(link.session.outbox.has_work for link in links)
