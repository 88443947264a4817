"""``stellar-overlay demo``: a network of real nodes on this machine that checks itself.

Real TCP on 127.0.0.1, real keys, real handshakes and flow control. Only the consensus is
synthetic: the SCP messages are signed, but nobody votes.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from stellar_overlay import __version__
from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import (
    ConnectionFailed,
    DropReason,
    ErrorCode,
    PeerNotFound,
)
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.testing.loopback import is_whole
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.cli import ExitStatus, print_json, shown
from stellar_overlay.tools.running import local_node, run_reactor
from stellar_overlay.wire.message import Message, MessageType, encode_hash_query
from stellar_overlay.wire.scp import externalize

DIALS_PER_NODE = 4
MIN_LINKS = 2
MESSAGES_PER_LINK = 600
"""SCP messages in each direction of each link: three times the first grant."""
TICK_SECONDS = 2
"""How often a node looks whom to dial; a second less than in earnest, to be quick."""
DISCOVERY_SECONDS = 15
"""How long the nodes may take to find each other; they need about five."""
STEPS_PER_SECOND = 10
DEADLINE_SECONDS = 10
"""For each thing that takes milliseconds."""


@dataclass
class Check:
    """One thing that the demo proves, in words and in figures."""

    ok: bool
    text: str
    figures: dict[str, object] = field(default_factory=dict)


class Network:
    """N nodes of which one is known to all others.

    :param template: of whose network and versions they all are.
    :param say: prints a line for the user.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        template: LocalNode,
        reactor: Any,
        say: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._say = say
        self._random = random.Random(arguments.seed)  # noqa: S311 - the same dials each time
        self._template = template
        self._seconds: int = arguments.seconds
        self._seed: int = arguments.seed
        self._size: int = arguments.nodes
        self.nodes: list[OverlayManager] = []
        self.links: list[tuple[OverlayManager, OverlayManager]] = []
        self.seconds_to_find = 0.0
        self._start = 0.0
        self.sent: Counter[tuple[PeerId, PeerId]] = Counter()
        self.received: Counter[tuple[PeerId, PeerId]] = Counter()

    def _make_node(self, number: int, known_peers: list[PeerAddress | str]) -> OverlayManager:
        template = self._template
        config = OverlayConfig(
            network_passphrase=template.network_passphrase,
            allow_private=True,
            known_peers=known_peers,
            target_outbound_peers=DIALS_PER_NODE,
            max_inbound_peers=8 * DIALS_PER_NODE + self._size,
            auth_timeout_secs=TICK_SECONDS - 1,
        )
        node = LocalNode(
            template.network_passphrase,
            hashlib.sha256(f"stellar-overlay demo {self._seed} {number}".encode()).digest(),
            overlay_min_version=template.overlay_min_version,
            overlay_version=template.overlay_version,
        )
        manager = OverlayManager(
            config,
            node,
            reactor=self._reactor,
            listen="tcp:0:interface=127.0.0.1",
            random=random.Random(self._random.getrandbits(64)),  # noqa: S311 - the same dials
        )
        manager.observe(self._counter_of(node.peer_id), MessageType.SCP_MESSAGE)
        return manager

    def _counter_of(self, receiver: PeerId) -> Callable[[OverlayMessage], None]:
        def count(message: OverlayMessage) -> None:
            self.received[message.from_peer, receiver] += 1

        return count

    # The acts.

    async def discover(self) -> None:
        """Start all nodes; all but the first know the first one's address, and nothing else."""
        start = self._start = self._reactor.seconds()
        seed = await self._start_node(0, [])
        assert seed.peer_port is not None
        for number in range(1, self._size):
            await self._start_node(number, [PeerAddress("127.0.0.1", seed.peer_port)])
        self._say(f" one seed node; {self._size - 1} nodes know its address and nothing else")
        while not self.is_whole and self._reactor.seconds() < start + DISCOVERY_SECONDS:
            await deferLater(self._reactor, 1 / STEPS_PER_SECOND)
        self.seconds_to_find = round(self._reactor.seconds() - start, 1)
        await deferLater(self._reactor, TICK_SECONDS)  # for what is under way
        self.links = self._found_links()

    async def _start_node(
        self, number: int, known_peers: list[PeerAddress | str]
    ) -> OverlayManager:
        node = self._make_node(number, known_peers)
        self.nodes.append(node)
        try:
            await node.start()
        except CannotListenError as error:
            raise ConnectionFailed(f"cannot listen on 127.0.0.1: {error.socketError}") from error
        return node

    def _found_links(self) -> list[tuple[OverlayManager, OverlayManager]]:
        """Return each link once, from who dialled to who answered."""
        nodes = {node.local_node.peer_id: node for node in self.nodes}
        return [
            (node, nodes[info.peer_id])
            for node in self.nodes
            for info in node.peer_infos()
            if info.direction == "outbound" and info.peer_id in nodes
        ]

    @property
    def is_whole(self) -> bool:
        """Whether all reach each other, even without the seed, and have links enough."""
        links = self._found_links()
        enough = min(MIN_LINKS, self._size - 1)
        ends = Counter(node for link in links for node in link)
        if any(ends[node] < enough for node in self.nodes):
            return False
        return is_whole(self.nodes[1:], links)

    async def flood(self) -> None:
        """Send SCP messages both ways over every link, far more than the first grant allows."""
        steps = self._seconds * STEPS_PER_SECOND
        sizes = [MESSAGES_PER_LINK * (i + 1) // steps for i in range(steps)]
        start = self._reactor.seconds()
        for step, goal in enumerate(sizes):
            wait = start + step / STEPS_PER_SECOND - self._reactor.seconds()
            await deferLater(self._reactor, max(0.0, wait))
            self._send_up_to(goal)
            if step % STEPS_PER_SECOND == 0:
                self._report(step // STEPS_PER_SECOND)
        deadline = max(self._start + 2 * self._seconds, start + self._seconds + DEADLINE_SECONDS)
        while self.sent != self.received and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 1 / STEPS_PER_SECOND)
        self._report(self._seconds)

    async def forge(self) -> ScriptedPeer:
        """Let a peer shake hands with the first node, then send a message with a wrong MAC.

        Whatever the node makes of it, the peer is returned when the link has ended or should have.
        """
        template, port = self._template, self.nodes[0].peer_port
        assert port is not None
        forger = ScriptedPeer(fresh_node_like(template))
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

    # What came of it.

    def check_discovery(self) -> Check:
        """Nodes that were told one address have found each other."""
        seed = self.nodes[0]
        strangers = sum(seed not in link for link in self.links)
        figures = {
            "nodes": len(self.nodes),
            "links": len(self.links),
            "links_between_strangers": strangers,
            "seconds": self.seconds_to_find,
        }
        if self.is_whole:
            text = (
                f"{len(self.nodes)} nodes found each other through one seed in"
                f" {self.seconds_to_find} s: {len(self.links)} links, {strangers} of them between"
                " nodes that nobody had told of each other; whole without the seed"
            )
        else:
            text = (
                f"after {self.seconds_to_find} s not every node had"
                f" {min(MIN_LINKS, self._size - 1)} links, or some could not reach the others"
                f" without the seed ({len(self.links)} links)"
            )
        return Check(self.is_whole, text, dict(figures))

    def check_auth(self, forger: ScriptedPeer) -> Check:
        """Every link is authenticated at both ends, and the forger was refused."""
        ends = sum(
            PeerId(b.local_node.peer_id.key) in {info.peer_id for info in a.peer_infos()}
            for link in self.links
            for a, b in (link, link[::-1])
        )
        refused = forger.error == (ErrorCode.ERR_AUTH, DropReason.UNEXPECTED_MAC.text.encode())
        wanted = 2 * len(self.links)
        text = f"{ends} of {wanted} link ends authenticated; a forged MAC was " + (
            "refused with ERR_AUTH" if refused else f"not refused with ERR_AUTH: {_fate(forger)}"
        )
        figures = {"nodes": len(self.nodes), "links": len(self.links), "ends": ends}
        return Check(0 < wanted == ends and refused, text, {**figures, "forger_refused": refused})

    def check_flow_control(self) -> Check:
        """Every message arrived, past the first grant, and nobody sent more than was granted."""
        sent, received = self.sent.total(), self.received.total()
        least = min((self.received[link] for link in self.sent), default=0)
        overruns = sum(node.metrics.drops[DropReason.AT_CAPACITY].get() for node in self.nodes)
        grant = self.nodes[0].config.peer_flood_reading_capacity
        text = (
            f"{received} of {sent} SCP messages arrived, at least {least} per link and direction"
            f" with first grants of {grant}; {overruns} overruns"
        )
        is_ok = self.sent == self.received and least > grant and not overruns
        if not is_ok:
            text += f" (expected: all of them, more than {grant} each, 0 overruns)"
        figures = {"sent": sent, "received": received, "least": least, "overruns": overruns}
        return Check(is_ok, text, dict(figures))

    @property
    def ports(self) -> str:
        """Where the nodes listen."""
        return ", ".join(str(node.peer_port) for node in self.nodes)

    def _send_up_to(self, goal: int) -> None:
        """Bring what was sent in each direction of each link up to so many messages."""
        for link in self.links:
            for a, b in (link, link[::-1]):
                key = a.local_node.peer_id, b.local_node.peer_id
                value = hashlib.sha256(key[0].key + key[1].key).digest()
                with suppress(PeerNotFound):  # the check will say so
                    while self.sent[key] < goal:
                        a.send_to(key[1], externalize(a.local_node, self.sent[key] + 1, value))
                        self.sent[key] += 1

    def _report(self, second: int) -> None:
        ends = sum(len(node.peer_infos()) for node in self.nodes)
        self._say(
            f" t={second:>3} s  links {len(self.links)}  authenticated ends {ends}"
            f"  scp sent {self.sent.total()}  received {self.received.total()}"
        )


def _fate(forger: ScriptedPeer) -> str:
    """Return what became of a peer that should have been told ERR_AUTH."""
    if not forger.auth.is_authenticated:
        return "it could not even shake hands"
    if forger.error is not None:
        code, text = forger.error
        return f"it was told {shown(text.decode(errors='replace'))!r}, code {code}"
    if forger.is_closed:
        return "the link was closed without a word"
    return f"the link was still open after {DEADLINE_SECONDS} s"


def fresh_node_like(template: LocalNode) -> LocalNode:
    """Return a fresh node of the same network and versions."""
    return LocalNode(
        template.network_passphrase,
        overlay_min_version=template.overlay_min_version,
        overlay_version=template.overlay_version,
    )


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Run the network, print what it does and what it proves."""
    template = local_node(arguments)
    checks: dict[str, Check] = {}

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    async def main(reactor: Any) -> None:
        start = reactor.seconds()
        network = Network(arguments, template, reactor, say)
        say(
            f"stellar-overlay {__version__} demo: {arguments.nodes} nodes on 127.0.0.1, real TCP,"
            " real keys; the consensus is synthetic: signed SCP messages of nobody's votes"
        )
        await network.discover()
        found = {"discovery": network.check_discovery()}
        await network.flood()
        found["auth"] = network.check_auth(await network.forge())
        found["flow-control"] = network.check_flow_control()
        checks.update(found)
        for name, check in checks.items():
            say(f"{'PASS' if check.ok else 'FAIL'} {name} {check.text}")
        if arguments.json:
            print_json(_figures(checks, round(reactor.seconds() - start, 1)))
        if arguments.keep:
            say(f"the network stays up until Ctrl-C; its nodes listen on ports {network.ports}")
            await Deferred()
        await network.stop()

    try:
        run_reactor(main)
    except KeyboardInterrupt:
        if not checks:  # there is nothing yet to keep
            raise
    return ExitStatus.DONE if _all_ok(checks) else ExitStatus.CHECK_FAILED


def _all_ok(checks: dict[str, Check]) -> bool:
    return all(check.ok for check in checks.values())


def _figures(checks: dict[str, Check], seconds: float) -> dict[str, object]:
    """Return what ``--json`` prints."""
    found = {name: {"ok": check.ok, **check.figures} for name, check in checks.items()}
    return {"ok": _all_ok(checks), "checks": found, "seconds": seconds}
