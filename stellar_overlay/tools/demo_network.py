"""The nodes of the demo, how they find each other, and the one that means no good."""

from __future__ import annotations

import argparse
import hashlib
import random
from collections import Counter
from contextlib import suppress
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import ConnectionFailed
from stellar_overlay.identity import LocalNode
from stellar_overlay.interfaces import Herder
from stellar_overlay.node.flooding import observer_herder, signature_verifier
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.loopback import is_whole
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType, encode_hash_query

DIALS_PER_NODE = 4
MIN_LINKS = 2
TICK_SECONDS = 2
"""How often a node looks whom to dial; a second less than in earnest, to be quick."""
DISCOVERY_SECONDS = 15
"""How long the nodes may take to find each other; they need about five."""
LOOKS_PER_SECOND = 10
DEADLINE_SECONDS = 10
"""For each thing that takes milliseconds."""
MAX_VALIDATORS = 5
SETS_PER_SIGNER = 5
"""In any minute a node asks each peer for no more transaction sets that one signer alone has named,
as all are when they are asked for first (gossip/tracker.py, QuestionPace)."""

Link = tuple[OverlayManager, OverlayManager]


class Network:
    """N nodes of which one is known to all others.

    :param template: of whose network and versions they all are.
    :ivar size: how many nodes there are to be; ``validators``: how many of them are to vote.
    :ivar ledger_seconds: how often a ledger is to close.
    :ivar links: each once, from who dialled to who answered; found by :meth:`discover`.
    :ivar seconds_to_find: how long the nodes took to find each other, or were given to.
    """

    def __init__(self, arguments: argparse.Namespace, template: LocalNode, reactor: Any) -> None:
        self._reactor = reactor
        self._random = random.Random(arguments.seed)  # noqa: S311 - the same dials each time
        self._template = template
        self._seed: int = arguments.seed
        self.size: int = arguments.nodes
        self.validators = min(MAX_VALIDATORS, (self.size + 1) // 2)
        self.ledger_seconds = seconds_per_ledger(self.validators, arguments.seconds)
        self.nodes: list[OverlayManager] = []
        self.links: list[Link] = []
        self.seconds_to_find = 0.0
        self._herders: list[Herder] = []

    def add_node(self, *known_peers: PeerAddress | str) -> OverlayManager:
        """Make one more node, which is not started yet."""
        template = self._template
        config = OverlayConfig(
            network_passphrase=template.network_passphrase,
            allow_private=True,
            known_peers=list(known_peers),
            target_outbound_peers=DIALS_PER_NODE,
            max_inbound_peers=8 * DIALS_PER_NODE + self.size,
            auth_timeout_secs=TICK_SECONDS - 1,
            surveyor_keys=[self._local_node(self.size - 1).peer_id.strkey],
            expected_ledger_close_secs=self.ledger_seconds,
        ).checked()
        node = self._local_node(len(self.nodes))
        # What the overlay would make itself; only so can its herder be asked where it stands.
        verifier = signature_verifier(self._reactor)
        herder = observer_herder(config, node, verifier, self._reactor)
        manager = OverlayManager(
            config,
            node,
            reactor=self._reactor,
            listen="tcp:0:interface=127.0.0.1",
            herder=herder,
            random=random.Random(self._random.getrandbits(64)),  # noqa: S311 - the same dials
        )
        if IService.providedBy(verifier):
            verifier.setServiceParent(manager)
        self.nodes.append(manager)
        self._herders.append(herder)
        return manager

    async def discover(self) -> None:
        """Start all nodes; all but the first know the first one's address, and nothing else."""
        start = self._reactor.seconds()
        seed = self.add_node()
        await _start(seed)
        assert seed.peer_port is not None
        for _ in range(1, self.size):
            await _start(self.add_node(PeerAddress("127.0.0.1", seed.peer_port)))
        while not self.is_whole and self._reactor.seconds() < start + DISCOVERY_SECONDS:
            await deferLater(self._reactor, 1 / LOOKS_PER_SECOND)
        self.seconds_to_find = round(self._reactor.seconds() - start, 1)
        await deferLater(self._reactor, TICK_SECONDS)  # for what is under way
        self.links = self._found_links()

    async def forge(self) -> ScriptedPeer:
        """Let a peer shake hands with the first node, then send a message with a wrong MAC.

        Whatever the node makes of it, the peer is returned when the link has ended or should have.
        """
        template, port = self._template, self.nodes[0].peer_port
        assert port is not None
        stranger = LocalNode(
            template.network_passphrase,
            overlay_min_version=template.overlay_min_version,
            overlay_version=template.overlay_version,
        )
        forger = ScriptedPeer(stranger)
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", port)
        await endpoint.connect(ScriptedPeer.factory(lambda: forger))
        with suppress(DeferredTimeoutError):
            await forger.authenticated.addTimeout(DEADLINE_SECONDS, self._reactor)
            forger.send_forged(Message(encode_hash_query(MessageType.GET_TX_SET, bytes(32))))
            await forger.closed.addTimeout(DEADLINE_SECONDS, self._reactor)
        return forger

    async def stop(self) -> None:
        """Stop all nodes."""
        await DeferredList([node.stopService() for node in self.nodes])

    # Where it stands.

    @property
    def surveyor(self) -> OverlayManager:
        """The only node that the others let survey them: the last one, not the seed."""
        return self.nodes[-1]

    @property
    def is_whole(self) -> bool:
        """Whether all reach each other, even without the seed, and have links enough."""
        links = self._found_links()
        ends = Counter(node for link in links for node in link)
        if any(ends[node] < self.links_wanted for node in self.nodes):
            return False
        return is_whole(self.nodes[1:], links)

    @property
    def links_wanted(self) -> int:
        """How many links each node must have at least."""
        return min(MIN_LINKS, self.size - 1)

    @property
    def ledgers(self) -> list[int]:
        """The ledger that consensus has reached, as each node has it."""
        return [herder.tracking_ledger() for herder in self._herders]

    @property
    def ports(self) -> str:
        """Where the nodes listen."""
        return ", ".join(str(node.peer_port) for node in self.nodes)

    def count_ends(self) -> int:
        """Return how many ends of links know of each other."""
        return sum(
            b.local_node.peer_id in {info.peer_id for info in a.peer_infos()}
            for link in self.links
            for a, b in (link, link[::-1])
        )

    def _local_node(self, number: int) -> LocalNode:
        """Return who a node is: the same with the same seed."""
        template, name = self._template, f"stellar-overlay demo {self._seed} {number}"
        return LocalNode(
            template.network_passphrase,
            hashlib.sha256(name.encode()).digest(),
            overlay_min_version=template.overlay_min_version,
            overlay_version=template.overlay_version,
        )

    def _found_links(self) -> list[Link]:
        nodes = {node.local_node.peer_id: node for node in self.nodes}
        return [
            (node, nodes[info.peer_id])
            for node in self.nodes
            for info in node.peer_infos()
            if info.direction == "outbound" and info.peer_id in nodes
        ]


async def _start(node: OverlayManager) -> None:
    try:
        await node.start()
    except CannotListenError as error:
        raise ConnectionFailed(f"cannot listen on 127.0.0.1: {error.socketError}") from error


def seconds_per_ledger(validators: int, seconds: int) -> int:
    """Return how often a ledger closes: each second, unless peers had to be asked too often.

    That is so in a small network, or in a long run.

    :param seconds: for how long there is traffic.
    """
    return -(-min(seconds, 60) // (SETS_PER_SIGNER * validators))
