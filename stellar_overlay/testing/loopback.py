"""A whole overlay on a simulated clock: real nodes, in-memory transports.

.. code-block:: python

    network = LoopbackNetwork()
    seed = network.add_node("seed")
    for number in range(19):
        network.add_node(f"node {number}", known_peers=["seed"])
    assert network.run_until(network.is_whole, timeout=30)
    network.crash("seed")
    network.advance(60)
    print(network.links())

Everything is real but the wires, the clock, name resolution and chance: handshakes, databases,
PEERS, back-off. Time passes only by :meth:`LoopbackNetwork.advance` and
:meth:`~LoopbackNetwork.run_until`, so a minute takes as long as the work that is done in it.

Peers that do wrong, or nothing, are hosts like the others:

.. code-block:: python

    mute = network.add_peer("mute", is_polite=False)
    node = network.add_node("node", known_peers=["mute"])
    network.advance(10)
    print(mute.answered[0].received, node.metrics.timeouts_idle.get())

What becomes of the network itself is asked of :attr:`LoopbackNetwork.memory`: what names resolve
to (``names``), where connecting takes for ever (``black_holes``), what was dialled (``dials``),
and both ends of each connection (``transports``).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Coroutine, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from stellar_overlay.address import DEFAULT_PEER_PORT, PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.interfaces import Herder
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.clock import SimulatedClock
from stellar_overlay.testing.memory import MemoryNetwork
from stellar_overlay.testing.scripted_host import ScriptedHost
from stellar_overlay.testing.scripted_peer import ScriptedPeer

T = TypeVar("T")
Node = TypeVar("Node", bound=Hashable)

EPOCH = 1_700_000_000
"""The Unix time at which every simulation begins."""


@dataclass
class _Host:
    ip: str
    database: str | None
    herder: Herder | None
    settings: dict[str, Any]
    overlay: OverlayManager | None = None


def is_whole(nodes: Collection[Node], links: Iterable[tuple[Node, ...]]) -> bool:
    """Tell whether all nodes can reach each other over links between them."""
    neighbours: dict[Node, set[Node]] = {node: set() for node in nodes}
    for a, b in links:
        if a in neighbours and b in neighbours:
            neighbours[a].add(b)
            neighbours[b].add(a)
    reached: set[Node] = set()
    grown = set(list(nodes)[:1])
    while grown:
        reached |= grown
        grown = {near for node in grown for near in neighbours[node]} - reached
    return len(reached) == len(neighbours)


class LoopbackNetwork:
    """Nodes with names, each on a host of its own; a name also resolves to its host's address.

    :param seed: of all that is left to chance, keys included: the same seed, the same run.
    :param latency: seconds from a write to its delivery.
    :ivar clock: the clock of everything.
    :ivar memory: the network itself, for scripted peers and black holes.
    """

    def __init__(
        self, *, seed: int = 0, latency: float = 0.0, passphrase: str = TESTNET_PASSPHRASE
    ) -> None:
        self.clock = SimulatedClock()
        self.memory = MemoryNetwork(self.clock, latency)
        self._seed = seed
        self._passphrase = passphrase
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._hosts: dict[str, _Host] = {}
        self._ips: dict[str, str] = {}

    # Nodes.

    def add_node(
        self,
        name: str,
        *,
        ip: str | None = None,
        database: str | None = None,
        herder: Herder | None = None,
        **settings: Any,
    ) -> OverlayManager:
        """Return a new node that is running.

        Peers in the settings may be named by the names of other nodes.

        :param database: a path; without one, a restart forgets everything.
        :param settings: attributes of its :class:`~stellar_overlay.config.OverlayConfig`.
        """
        host = _Host(self._place(name, ip), database, herder, settings)
        self._hosts[name] = host
        return self.restart(name)

    def add_peer(
        self,
        name: str,
        *,
        ip: str | None = None,
        local_node: LocalNode | None = None,
        kind: Callable[..., ScriptedPeer] = ScriptedPeer,
        is_polite: bool = True,
        is_listening: bool = True,
    ) -> ScriptedHost:
        """Return a new host whose peers say and misspeak what they are told to.

        :param local_node: whose key its peers have; without one, a key of its own.
        :param kind: what is made for each connection.
        """
        ip = self._place(name, ip)
        local_node = local_node or self._local_node(name)
        host = ScriptedHost(self.memory, ip, local_node, kind=kind, is_polite=is_polite)
        if is_listening:
            host.listen()
        return host

    def node(self, name: str) -> OverlayManager:
        """Return a running node.

        :raises LookupError: when it does not run.
        """
        overlay = self._hosts[name].overlay
        if overlay is None:
            raise LookupError(f"{name!r} does not run")
        return overlay

    def address(self, name: str) -> PeerAddress:
        """Return where a host listens, or would."""
        return PeerAddress(self._ips[name], DEFAULT_PEER_PORT)

    @property
    def running(self) -> dict[str, OverlayManager]:
        """The nodes that run, by name."""
        return {name: host.overlay for name, host in self._hosts.items() if host.overlay}

    def stop(self, name: str) -> None:
        """Stop a node as an operator would: its peers are told."""
        overlay = self._take(name)
        stopping = overlay.stopService()
        self.run_until(lambda: bool(stopping.called), timeout=10, step=0.1)

    def crash(self, name: str) -> None:
        """Stop a node as ``kill -9`` would: its sockets are reset, nothing more is written."""
        overlay = self._take(name)
        overlay.stores.kill()
        self.memory.unplug(self._ips[name])
        overlay.stopService()
        self.advance(0)
        self.memory.plug(self._ips[name])

    def restart(self, name: str, **changes: Any) -> OverlayManager:
        """Start a node that was stopped or has crashed, with the key and database it had.

        :param changes: settings that are to be others than before.
        """
        host = self._hosts[name]
        if host.overlay is not None:
            raise ValueError(f"{name!r} runs")
        host.settings |= changes
        settings: dict[str, Any] = {
            "network_passphrase": self._passphrase,
            "allow_private": True,
        }
        settings |= {key: _with_hosts(key, value) for key, value in host.settings.items()}
        config = OverlayConfig(**settings)
        overlay = host.overlay = OverlayManager(
            config,
            self._local_node(name),
            reactor=self.clock,
            database=host.database,
            herder=host.herder,
            listen=self.memory.server(host.ip, config.listen_port),
            connect=self.memory.client(host.ip, config.connect_timeout_secs),
            resolve=self.memory.resolver(allow_private=config.allow_private),
            random=random.Random(self._random.getrandbits(64)),  # noqa: S311 - a simulation
        )
        Deferred.fromCoroutine(overlay.start())
        return overlay

    def unplug(self, name: str) -> None:
        """Cut a host off; it runs on, and loses its connections."""
        self.memory.unplug(self._ips[name])

    def plug(self, name: str) -> None:
        """Let a host be reached again, and reach others."""
        self.memory.plug(self._ips[name])

    # Time.

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def run_until(
        self, condition: Callable[[], bool], *, timeout: float, step: float = 0.5
    ) -> bool:
        """Let time pass until something is so; tell whether it came to be.

        :param step: how often that is looked at.
        """
        end = self.clock.seconds() + timeout
        while not condition():
            if self.clock.seconds() >= end:
                return False
            self.clock.advance(step)
        return True

    def result_of(self, waiting: Deferred[T] | Coroutine[Any, Any, T], *, timeout: float = 10) -> T:
        """Let time pass until a call has its result, and return it, or raise what it raised.

        :raises TimeoutError: when it has none by then.
        """
        outcome: list[T | BaseException] = []
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        if not self.run_until(lambda: bool(outcome), timeout=timeout, step=0.1):
            raise TimeoutError(f"no result in {timeout} s")
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    # What came of it.

    def links(self) -> set[frozenset[str]]:
        """Return the pairs of nodes that have an authenticated link, as both ends see it."""
        names = {overlay.local_node.peer_id: name for name, overlay in self.running.items()}
        seen = {
            (name, names.get(info.peer_id))
            for name, overlay in self.running.items()
            for info in overlay.peer_infos()
        }
        return {frozenset((a, b)) for a, b in seen if b is not None and (b, a) in seen}

    def is_whole(self, without: Collection[str] = ()) -> bool:
        """Tell whether all running nodes can reach each other over links, some left aside."""
        return is_whole(set(self.running) - set(without), map(tuple, self.links()))

    def _place(self, name: str, ip: str | None) -> str:
        """Give a new host an address, to which its name resolves."""
        if name in self._ips:
            raise ValueError(f"there is a {name!r} already")
        number = len(self._ips) + 1
        self._ips[name] = ip or f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self.memory.names[_as_host(name)] = [self._ips[name]]
        return self._ips[name]

    def _take(self, name: str) -> OverlayManager:
        overlay = self.node(name)
        self._hosts[name].overlay = None
        return overlay

    def _local_node(self, name: str) -> LocalNode:
        return LocalNode(
            self._passphrase,
            hashlib.sha256(f"{self._seed} {name}".encode()).digest(),
            wall_clock=lambda: EPOCH + self.clock.seconds(),
        )


def _as_host(name: str) -> str:
    """Return a node's name as a host name: what may not be in one becomes a hyphen."""
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "-" for c in name.lower())


def _with_hosts(key: str, value: object) -> object:
    if key not in ("known_peers", "preferred_peers") or not isinstance(value, list):
        return value
    return [_as_host(peer) if isinstance(peer, str) and ":" not in peer else peer for peer in value]
