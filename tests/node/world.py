"""Whole nodes, single links and scripted peers, on one simulated clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.gossip.connection_limits import ConnectionLimits
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import LocalNode
from stellar_overlay.interfaces import Herder
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.flush_queue import FlushQueue
from stellar_overlay.node.listener import ConnectionFactory
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.session.flow_control import FlowControlConfig, Item
from stellar_overlay.session.session import Session
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.testing.memory import MemoryNetwork, MemoryTransport
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_hash_query,
    encode_dont_have,
)
from tests.builders import WALL_NOW, OpenGate, make_node

Result = TypeVar("Result")

PORT = 11625
CLEANLY = "Connection was closed cleanly."
UNCLEANLY = "Connection to the other side was lost in a non-clean fashion."
TOLD = DropReason.DROPPED_BY_USER
SILENT = DropReason.AT_CAPACITY
SMALL = SessionConfig(
    flow_control=FlowControlConfig(
        peer_reading_capacity=2,
        peer_flood_reading_capacity=1,
        flow_control_send_more_batch_size=1,
    )
)
NO_SLOTS = ConnectionLimits(
    target_outbound=0,
    max_outbound=0,
    max_inbound=0,
    max_outbound_pending=0,
    max_inbound_pending=0,
)


def ip(number: int) -> str:
    """Return the address of a host."""
    return f"10.0.0.{number}"


class MiddlingRandom(random.Random):
    """Always says a half; what is shuffled is still shuffled, the same way each time."""

    def random(self) -> float:
        return 0.5


class LivelyPeer(ScriptedPeer):
    """Also answers pings."""

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.GET_SCP_QUORUMSET:
            item_hash = decode_hash_query(message.body)
            self.send(Message(encode_dont_have(MessageType.SCP_QUORUMSET, item_hash)))


class World:
    """Hosts 10.0.0.1, 10.0.0.2, … and what lives on them.

    :param latency: seconds from a write to its delivery.
    """

    def __init__(self, latency: float = 0.0) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock, latency)
        self.nodes: list[OverlayManager] = []

    def node(
        self,
        number: int = 1,
        *,
        local_node: LocalNode | None = None,
        herder: Herder | None = None,
        database: str | None = None,
        is_started: bool = True,
        is_observing: bool = False,
        **settings: Any,
    ) -> OverlayManager:
        """Return a node on its host, started unless told otherwise.

        :param is_observing: whether it has the brain of a real node; else it ignores all it hears,
            and is content.
        """
        if local_node is None:
            local_node = make_node(number)
            local_node.wall_clock = lambda: WALL_NOW + self.clock.seconds()
        node = OverlayManager(
            OverlayConfig(**{"allow_private": True} | settings),
            local_node,
            reactor=self.clock,
            listen=self.network.server(ip(number), PORT),
            connect=self.network.client(ip(number)),
            resolve=self.network.resolver(),
            database=database,
            herder=herder or (None if is_observing else IgnoringHerder()),
            random=MiddlingRandom(number),
        )
        self.nodes.append(node)
        if is_started:
            self.result(node.start())
        return node

    def call(
        self,
        to: int = 1,
        *,
        number: int = 9,
        local_node: LocalNode | None = None,
        is_polite: bool = True,
        from_ip: str | None = None,
        kind: type[ScriptedPeer] = ScriptedPeer,
    ) -> ScriptedPeer:
        """Let a scripted peer dial a host; return it once it has nothing more to say."""
        peer = kind(local_node or make_node(number), is_polite=is_polite)
        self.network.connect(
            from_ip or ip(number), PeerAddress(ip(to), PORT), ScriptedPeer.factory(lambda: peer)
        )
        self.settle()
        return peer

    def answer(
        self,
        number: int = 9,
        *,
        local_node: LocalNode | None = None,
        is_polite: bool = True,
        kind: type[ScriptedPeer] = ScriptedPeer,
    ) -> list[ScriptedPeer]:
        """Let scripted peers listen on a host; return the list in which they will appear."""
        peers: list[ScriptedPeer] = []

        def build() -> ScriptedPeer:
            node = local_node or make_node(number)
            peers.append(kind(node, we_called_remote=False, is_polite=is_polite))
            return peers[-1]

        self.network.listen(ip(number), PORT, ScriptedPeer.factory(build))
        return peers

    def settle(self) -> None:
        """Let happen what takes no time."""
        self.clock.advance(0)

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, in steps."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() + step < end:
            self.clock.advance(step)
        self.clock.advance(max(0.0, end - self.clock.seconds()))

    def result(
        self, waiting: Deferred[Result] | Coroutine[Any, Any, Result], seconds: float = 0
    ) -> Result:
        """Return what comes of it, without time passing or within so many seconds."""
        outcome = self.outcome(waiting)
        self.settle()
        if seconds:
            self.advance(seconds)
        assert outcome, "it did not come to an end"
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def outcome(
        self, waiting: Deferred[Result] | Coroutine[Any, Any, Result]
    ) -> list[Result | BaseException]:
        """Return a list in which the result, or the exception, will appear."""
        results: list[Result | BaseException] = []
        deferred = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
        deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
        return results

    def transports(self, number: int = -1) -> tuple[MemoryTransport, MemoryTransport]:
        """Return both ends of one of the connections made so far: who dialled, who answered."""
        return self.network.transports[number]


class WorldTestCase(SynchronousTestCase):
    """Tests on a world that must be left as clean as it was: no timer, no link, no slot taken."""

    def setUp(self) -> None:
        self.world = World()
        self.addCleanup(self.leave_nothing_behind)

    def leave_nothing_behind(self) -> None:
        """Stop all nodes and check that it was so."""
        for node in self.world.nodes:
            stopped = self.world.outcome(node.stop())
            self.world.settle()
            self.world.advance(5)
            self.assertEqual(stopped, [None])
            self.assertEqual(list(node.admission.pending), [])
            self.assertEqual(node.admission.authenticated, {})
            self.assertEqual(list(node.admission.closing), [])
            links = node._links
            self.assertEqual((links.peers, links._open, links._dispatcher._limits), ({}, {}, {}))
        self.world.advance(5)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def reasons_of(self, node: OverlayManager) -> list[str | None]:
        """Return a list in which the reason of each dropped link will appear."""
        reasons: list[str | None] = []
        node.on_peer_event(
            lambda event: reasons.append(event.reason) if event.kind == "peer.dropped" else None
        )
        return reasons


class Owner:
    """Whom a single link reports to: keeps what it hears, and processes it unless told to hold.

    :ivar events: ``authenticated``, ``dropped`` and ``gone``, in order.
    :ivar dispatched: every message, in order.
    :ivar on_dispatch: called with each batch before it is processed.
    """

    def __init__(self, world: World, config: SessionConfig | None = None) -> None:
        self.world = world
        self.config = config
        self.local_node = make_node(1)
        self.gate = OpenGate()
        self.metrics = OverlayMetrics()
        self.links: list[Connection] = []
        self.events: list[str] = []
        self.violations: list[PeerViolation] = []
        self.dispatched: list[Message] = []
        self.held: list[Item] = []
        self.holds_credit = False
        self.on_dispatch: Callable[[Connection, Sequence[Item]], object] = lambda link, items: None
        self._flusher = FlushQueue(world.clock)
        world.network.listen(ip(1), PORT, ConnectionFactory(self._accept))

    @property
    def link(self) -> Connection:
        """The latest link."""
        return self.links[-1]

    def open_session(self, link: Connection) -> Session:
        auth = AuthContext(self.local_node, link.we_called_remote)
        return Session(auth, self.gate, self.config, now=self.world.clock.seconds())

    def link_authenticated(self, link: Connection) -> None:
        self.events.append("authenticated")

    def dispatch(self, link: Connection, items: Sequence[Item]) -> None:
        self.dispatched += [Message(body) for _, body in items]
        self.on_dispatch(link, items)
        if self.holds_credit:
            self.held += items
        else:
            link.processed(items)

    def link_dropped(self, link: Connection, violation: PeerViolation) -> None:
        self.events.append("dropped")
        self.violations.append(violation)

    def link_gone(self, link: Connection) -> None:
        self.events.append("gone")

    def _accept(self, _: IAddress) -> Connection:
        link = Connection(
            self, self.world.clock, self._flusher, self.metrics, we_called_remote=False
        )
        self.links.append(link)
        return link


class LinkTestCase(SynchronousTestCase):
    """Tests of one link whose other end is a scripted peer."""

    def setUp(self) -> None:
        self.world = World()

    def open(
        self, config: SessionConfig | None = None, *, is_polite: bool = True
    ) -> tuple[Owner, ScriptedPeer]:
        """Return the owner of a link and the peer that has dialled it, authenticated if polite."""
        owner = Owner(self.world, config)
        peer = self.world.call(is_polite=is_polite)
        if is_polite:
            self.assertEqual(owner.events, ["authenticated"])
        owner.dispatched.clear()
        return owner, peer

    def assert_ended(
        self, owner: Owner, peer: ScriptedPeer, reason: str, error: tuple[int, bytes] | None
    ) -> None:
        """Check why the one link ended, what the peer was told, and that nothing is left."""
        self.assertTrue(owner.link.session.is_closed)
        self.assertEqual([violation.reason for violation in owner.violations], [reason])
        self.assertEqual(peer.error, error)
        self.assertEqual(owner.events[-2:], ["dropped", "gone"])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])
