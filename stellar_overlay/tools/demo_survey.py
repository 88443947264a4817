"""A time-sliced survey of the demo's network, done as any user of the library does one.

Beside it, and not from it, the truth: which links each node had all the time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.task import deferLater

from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.gossip.survey_run import REQUESTS_AT_A_TIME
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import PeerInfo
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.node.surveying import LEDGERS_BETWEEN_REQUESTS
from stellar_overlay.tools.demo_network import DEADLINE_SECONDS, Network
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.survey_body import (
    PeerCounters,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
)

LOOKS_PER_SECOND = 10
MAX_TRIES = 3
"""How often a node is asked that says nothing new."""
ANSWER_SECONDS = 0.5
"""How long the last nodes that are asked may take, in plans; they take milliseconds."""
MAX_COLLECT_SECONDS = 600
"""Nodes collect for half an hour at most."""

Link = tuple[PeerId, PeerId]
"""From who dialled to who answered."""


@dataclass(slots=True)
class Told:
    """What one node has told, of whatever number of pages.

    :ivar tries: how often it was asked since it said something new.
    :ivar asked_at: when the request left; None while it waits to.
    """

    inbound: dict[PeerId, TimeSlicedPeerData] = field(default_factory=dict)
    outbound: dict[PeerId, TimeSlicedPeerData] = field(default_factory=dict)
    node: TimeSlicedNodeData | None = None
    tries: int = 0
    asked_at: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether it has told as much as it says there is."""
        return (
            self.node is not None
            and len(self.inbound) >= self.node.total_inbound_peers
            and len(self.outbound) >= self.node.total_outbound_peers
        )

    def merge(self, page: TopologyResponse) -> bool:
        """Add a page; tell whether there is anything new in it."""
        before = self.node, len(self.inbound), len(self.outbound)
        self.node = page.node
        self.inbound.update({PeerId(peer.node): peer for peer in page.inbound})
        self.outbound.update({PeerId(peer.node): peer for peer in page.outbound})
        return before != (self.node, len(self.inbound), len(self.outbound))

    def links(self, own: PeerId) -> dict[Link, TimeSlicedPeerData]:
        """Return what it said of each of its links."""
        return {
            **{(peer_id, own): peer for peer_id, peer in self.inbound.items()},
            **{(own, peer_id): peer for peer_id, peer in self.outbound.items()},
        }


class Truth:
    """What links each node had when it began to collect, and when it stopped.

    Nodes say so themselves, in the very turn in which they begin and stop.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._at_start: dict[PeerId, dict[Link, PeerInfo]] = {}
        self._at_stop: dict[PeerId, dict[Link, PeerInfo]] = {}
        for node in network.nodes:
            for kind, hear in (
                (MessageType.TIME_SLICED_SURVEY_START_COLLECTING, self._hear_start),
                (MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING, self._hear_stop),
            ):
                node.observe(partial(hear, node), kind, name="demo survey")

    def note_start(self) -> None:
        """Note that the surveyor is about to begin. Others do when they hear of it."""
        for node in self._network.nodes:
            self._at_start[node.local_node.peer_id] = _links_of(node)

    def note_stop(self) -> None:
        """Note that the surveyor is about to stop."""
        for node in self._network.nodes:
            self._at_stop[node.local_node.peer_id] = _links_of(node)

    def links(self, node: PeerId) -> dict[Link, PeerCounters]:
        """Return the links that a node had all the time, and what they carried in it."""
        at_start, at_stop = self._at_start.get(node, {}), self._at_stop.get(node, {})
        return {
            link: _carried(info, at_stop[link])
            for link, info in at_start.items()
            if link in at_stop and at_stop[link].connected_at == info.connected_at
        }

    # Observers come first: a node that takes the message is still in the phase that this ends.

    def _hear_start(self, node: OverlayManager, message: OverlayMessage) -> None:
        if node.survey.phase is SurveyPhase.INACTIVE:
            self._at_start[node.local_node.peer_id] = _links_of(node)

    def _hear_stop(self, node: OverlayManager, message: OverlayMessage) -> None:
        if node.survey.phase is SurveyPhase.COLLECTING:
            self._at_stop[node.local_node.peer_id] = _links_of(node)


class Survey:
    """One node surveys the others: its peers, then their peers, page after page.

    :param tell: called with a line about each phase, and about answers each second.
    :ivar told: what each node has told that was asked, the surveyor among them.
    :ivar truth: what they should have told.
    :ivar collect_seconds: for how long the nodes are to collect.
    :ivar seconds: how long it took, with that.
    :ivar is_running: whether it goes on.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        network: Network,
        reactor: Any,
        tell: Callable[[str], object],
    ) -> None:
        self.told: dict[PeerId, Told] = {}
        self.truth = Truth(network)
        self.seconds = 0.0
        self.is_running = False
        self._tell = tell
        self._nonce: int = arguments.seed % 2**32
        self._network = network
        self._reactor = reactor
        self._pause_seconds = LEDGERS_BETWEEN_REQUESTS * network.ledger_seconds
        rounds = -(-(network.size - 1) // REQUESTS_AT_A_TIME)
        self._ask_seconds = (rounds - 1) * self._pause_seconds + ANSWER_SECONDS
        self.collect_seconds = seconds_to_collect(arguments.seconds, self._ask_seconds)

    @property
    def max_seconds(self) -> float:
        """After how long it may be given up."""
        return self.collect_seconds + self._ask_seconds + DEADLINE_SECONDS

    @property
    def needs_ledgers(self) -> bool:
        """Whether it cannot end before the next ledger: one allows for so many requests only."""
        return self.is_running and self._network.size - 1 > REQUESTS_AT_A_TIME

    async def run(self, deadline: float) -> None:
        """Have all nodes collect, then ask them, up to a deadline."""
        clock, survey = self._reactor, self._network.surveyor.survey
        start = clock.seconds()
        self.is_running = True
        try:
            self.truth.note_start()
            survey.start_collecting(self._nonce)
            self._tell(f"survey: the nodes collect figures for {self.collect_seconds:.1f} s")
            await deferLater(clock, self.collect_seconds)
            self.truth.note_stop()
            survey.stop_collecting()
            self._tell("survey: they stop collecting, and the surveyor asks them")
            await self._ask_all(deadline)
            survey.stop_reporting()
        finally:
            self.seconds = clock.seconds() - start
            self.is_running = False
        self._tell(f"survey: {self._answers}, {self.seconds:.1f} s after the start")

    async def _ask_all(self, deadline: float) -> None:
        clock, surveyor = self._reactor, self._network.surveyor
        self._learn(surveyor.local_node.peer_id)
        for info in surveyor.peer_infos():
            self._learn(info.peer_id)
        said, say_at = "", clock.seconds()
        while self._look() and clock.seconds() < deadline:
            backlog = surveyor.survey.stats.backlog
            queued = f", {backlog} more are to be asked" if backlog else ""
            status = f"survey: {self._answers}{queued}"
            if clock.seconds() >= say_at and status != said:
                self._tell(status)
                said, say_at = status, clock.seconds() + 1
            await deferLater(clock, 1 / LOOKS_PER_SECOND)

    @property
    def _answers(self) -> str:
        complete = sum(told.is_complete for told in self.told.values())
        return f"{complete} of {self._network.size} nodes have answered"

    def _learn(self, node: PeerId) -> None:
        """Ask a node that was not heard of before."""
        if node not in self.told:
            self.told[node] = Told()
            self._ask(node)

    def _ask(self, node: PeerId) -> None:
        """Ask for what a node has not told yet."""
        told = self.told[node]
        told.tries += 1
        told.asked_at = None
        self._network.surveyor.survey.request(node, len(told.inbound), len(told.outbound))

    def _look(self) -> bool:
        """Take what was answered, and ask on; tell whether there is more to come."""
        survey = self._network.surveyor.survey
        for node, page in (survey.results().topology or {}).items():
            told = self.told[node]
            if page is not None and not told.is_complete and told.merge(page):
                told.tries = 0
                for peer in (*told.inbound, *told.outbound):
                    self._learn(peer)
                if not told.is_complete:
                    self._ask(node)
        missing = [node for node, told in self.told.items() if not told.is_complete]
        return self._go_on(missing, survey.results().backlog)

    def _go_on(self, missing: Sequence[PeerId], backlog: Sequence[PeerId]) -> bool:
        """Ask those again who are silent, once all others are asked; tell whether there is hope."""
        now, has_hope = self._reactor.seconds(), bool(backlog)
        for node in missing:
            told = self.told[node]
            if node in backlog:
                told.asked_at = None
                continue
            if told.asked_at is None:
                told.asked_at = now
            is_silent = now - told.asked_at >= self._pause_seconds
            if is_silent and not backlog and told.tries < MAX_TRIES:
                self._ask(node)
            has_hope |= not is_silent or told.asked_at is None
        return has_hope


def seconds_to_collect(seconds: float, ask_seconds: float) -> float:
    """Return for how long to collect: a third of the traffic, or less if asking takes long."""
    collect_seconds = max(seconds / 6, min(seconds / 3, seconds - ask_seconds))
    return min(collect_seconds, MAX_COLLECT_SECONDS)


def _links_of(node: OverlayManager) -> dict[Link, PeerInfo]:
    own = node.local_node.peer_id
    return {
        (info.peer_id, own) if info.direction == "inbound" else (own, info.peer_id): info
        for info in node.peer_infos()
    }


def _carried(before: PeerInfo, after: PeerInfo) -> PeerCounters:
    return PeerCounters._make(
        getattr(after, name) - getattr(before, name) for name in PeerCounters._fields
    )
