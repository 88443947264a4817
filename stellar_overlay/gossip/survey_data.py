"""What a time-sliced survey collects here, and the pages in which it is reported.

One survey at a time (messages.md 5.1 and 5.6)::

    INACTIVE --START--> COLLECTING --STOP, or time--> REPORTING --time--> INACTIVE

COLLECTING is the time slice: what our links carry in it, and what befalls us. REPORTING is when
others may ask for it; then it is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from stellar_overlay.error import PeerViolation
from stellar_overlay.gossip.sliding_sample import SlidingSample, clamped_u32
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock, ScpLatency
from stellar_overlay.wire.survey_body import (
    PEERS_PER_PAGE,
    PeerCounters,
    SurveyRequest,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
)

COLLECTING_SECONDS = 30 * 60
"""How long a survey collects when nobody stops it (core SurveyDataManager.cpp:25)."""
REPORTING_SECONDS = 3 * 60 * 60
"""How long it can be asked about after that (core SurveyDataManager.cpp:30)."""


class SurveyPhase(Enum):
    """What a node does about surveys."""

    INACTIVE = "inactive"
    COLLECTING = "collecting"
    REPORTING = "reporting"


class SurveyPeer(Protocol):
    """An authenticated link, as surveys see it."""

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""
        ...

    @property
    def is_inbound(self) -> bool:
        """Whether it dialled us."""
        ...

    @property
    def version_string(self) -> bytes:
        """What its HELLO says: up to 100 bytes of anything."""
        ...

    @property
    def linked_at(self) -> float:
        """When the TCP connection was made, in seconds of the injected clock."""
        ...

    @property
    def flood_bit(self) -> int:
        """What stands for it in the memory of the flood gate."""
        ...

    def counters(self) -> PeerCounters:
        """Return what the link has carried so far."""
        ...

    def watch_latency(self, callback: Callable[[int], None] | None) -> None:
        """Call ``callback`` with each round trip in milliseconds, and no other; None ends it."""
        ...

    def drop(self, violation: PeerViolation) -> None:
        """End the link."""
        ...


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """What of our settings a survey tells, and how long its phases last at most."""

    is_validator: bool
    max_inbound_peers: int
    max_outbound_peers: int
    collecting_seconds: float = COLLECTING_SECONDS
    reporting_seconds: float = REPORTING_SECONDS


class SurveyDataManager:
    """The survey that is under way at this node, if there is one.

    What it is given as ``peers`` are all authenticated links of the moment.

    :ivar nonce: the survey's number, chosen by whoever began it; None while there is none.
    :ivar surveyor: the key of that node; None likewise.
    :ivar ends_at: until when the phase lasts at most, in seconds of the clock; None likewise.
    """

    def __init__(self, facts: NodeFacts, clock: Clock) -> None:
        self._facts = facts
        self._clock = clock
        self._slice: _TimeSlice | None = None
        self._final: TopologyResponse | None = None
        self.nonce: int | None = None
        self.surveyor: bytes | None = None
        self.ends_at: float | None = None

    @property
    def phase(self) -> SurveyPhase:
        """What is done now; only :meth:`update_phase` lets time change it."""
        if self._slice is not None:
            return SurveyPhase.COLLECTING
        return SurveyPhase.INACTIVE if self._final is None else SurveyPhase.REPORTING

    def start_collecting(
        self,
        nonce: int,
        surveyor: bytes,
        peers: Iterable[SurveyPeer],
        *,
        lost_sync_count: int,
        is_out_of_sync: bool,
    ) -> bool:
        """Begin a survey; False when there is one already."""
        if self.phase is not SurveyPhase.INACTIVE:
            return False
        self._slice = _TimeSlice(
            self._clock, peers, lost_sync_count=lost_sync_count, is_out_of_sync=is_out_of_sync
        )
        self.nonce, self.surveyor = nonce, surveyor
        self.ends_at = self._clock.seconds() + self._facts.collecting_seconds
        return True

    def stop_collecting(
        self, nonce: int, surveyor: bytes, peers: Iterable[SurveyPeer], *, lost_sync_count: int
    ) -> bool:
        """Report from now on; False unless it is that survey, and collects."""
        if self._slice is None or (nonce, surveyor) != (self.nonce, self.surveyor):
            return False
        self._report(self._slice, peers, lost_sync_count)
        return True

    def update_phase(self, peers: Iterable[SurveyPeer], *, lost_sync_count: int) -> bool:
        """End a phase that has lasted for longer than it may; tell whether one did.

        Reporting begins when this is called, and lasts its full time from then on.
        """
        if self.ends_at is None or self._clock.seconds() <= self.ends_at:
            return False
        if self._slice is not None:
            self._report(self._slice, peers, lost_sync_count)
        else:
            self.reset()
        return True

    def record_added_peer(self, peer: SurveyPeer) -> None:
        """Count a link that was authenticated. It is not reported on: it came too late."""
        if self._slice is not None:
            self._slice.added_peers += 1

    def record_dropped_peer(self, peer: SurveyPeer) -> None:
        """Count an authenticated link that ended. It is not reported on, even if it returns."""
        if self._slice is not None:
            self._slice.drop(peer)

    def record_scp_latency(self, kind: ScpLatency, seconds: float) -> None:
        """Take how long consensus took somewhere."""
        if self._slice is not None:
            self._slice.note_scp_latency(kind, seconds)

    def nonce_is_reporting(self, nonce: int) -> bool:
        """Tell whether the survey of that number is reported on, whoever began it."""
        return self._final is not None and nonce == self.nonce

    def page(self, request: SurveyRequest) -> TopologyResponse | None:
        """Return up to 25 peers each way, from the indices in the request on, and the node.

        None unless that survey of that surveyor is reported on. No peers are beyond the end.
        """
        if (request.nonce, request.surveyor) != (self.nonce, self.surveyor) or self._final is None:
            return None
        return replace(
            self._final,
            inbound=_page(self._final.inbound, request.inbound_index),
            outbound=_page(self._final.outbound, request.outbound_index),
        )

    def final(self) -> TopologyResponse | None:
        """Return the whole report, of any number of peers; None unless REPORTING."""
        return self._final

    @property
    def collecting_inbound_peers(self) -> int:
        """How many who dialled us have stayed since START; 0 unless COLLECTING."""
        return 0 if self._slice is None else self._slice.count(is_inbound=True)

    @property
    def collecting_outbound_peers(self) -> int:
        """How many whom we dialled have."""
        return 0 if self._slice is None else self._slice.count(is_inbound=False)

    def reset(self) -> None:
        """Forget the survey and all that it has collected."""
        if self._slice is not None:
            self._slice.stop_watching()
        self._slice = self._final = None
        self.nonce = self.surveyor = self.ends_at = None

    def _report(
        self, time_slice: _TimeSlice, peers: Iterable[SurveyPeer], lost_sync_count: int
    ) -> None:
        self._final = time_slice.report(peers, lost_sync_count, self._facts)
        time_slice.stop_watching()
        self._slice = None
        self.ends_at = self._clock.seconds() + self._facts.reporting_seconds


def _page(peers: tuple[TimeSlicedPeerData, ...], index: int) -> tuple[TimeSlicedPeerData, ...]:
    return peers[index : index + PEERS_PER_PAGE]


def _by_id(peers: Iterable[SurveyPeer]) -> dict[PeerId, SurveyPeer]:
    return {peer.peer_id: peer for peer in peers}


class _TimeSlice:
    """What is collected between START and STOP.

    :ivar added_peers: how many links were authenticated in it.
    """

    def __init__(
        self,
        clock: Clock,
        peers: Iterable[SurveyPeer],
        *,
        lost_sync_count: int,
        is_out_of_sync: bool,
    ) -> None:
        self._clock = clock
        self._lost_sync_count = lost_sync_count
        self._is_out_of_sync = is_out_of_sync
        self._watched = {
            peer_id: _WatchedPeer(peer, clock) for peer_id, peer in _by_id(peers).items()
        }
        self._scp_latencies = {kind: SlidingSample() for kind in ScpLatency}
        self._dropped_peers = 0
        self.added_peers = 0

    def count(self, *, is_inbound: bool) -> int:
        """Return how many links have stayed since START, one way."""
        return sum(watched.peer.is_inbound is is_inbound for watched in self._watched.values())

    def drop(self, peer: SurveyPeer) -> None:
        """Count a link that ended, and report on it no more."""
        self._dropped_peers += 1
        watched = self._watched.get(peer.peer_id)
        if watched is not None and watched.peer is peer:
            peer.watch_latency(None)
            del self._watched[peer.peer_id]

    def note_scp_latency(self, kind: ScpLatency, seconds: float) -> None:
        """Take a sample, in whole milliseconds as core does."""
        # Less than a microsecond is a float's dust: 1.001 s would be 1000.9999999999999 ms.
        milliseconds = round(seconds * 1000, 3) // 1
        self._scp_latencies[kind].add(milliseconds, self._clock.seconds())

    def stop_watching(self) -> None:
        """Let the links be."""
        for watched in self._watched.values():
            watched.peer.watch_latency(None)

    def report(
        self, peers: Iterable[SurveyPeer], lost_sync_count: int, facts: NodeFacts
    ) -> TopologyResponse:
        """Return what came out, of the same links that were there at START."""
        links = _by_id(peers)
        stayed = [
            watched
            for peer_id, watched in sorted(self._watched.items())
            if links.get(peer_id) is watched.peer
        ]
        inbound = tuple(watched.report() for watched in stayed if watched.peer.is_inbound)
        outbound = tuple(watched.report() for watched in stayed if not watched.peer.is_inbound)
        lost_sync = max(0, lost_sync_count - self._lost_sync_count) + self._is_out_of_sync
        node = TimeSlicedNodeData(
            added_authenticated_peers=self.added_peers,
            dropped_authenticated_peers=self._dropped_peers,
            total_inbound_peers=len(inbound),
            total_outbound_peers=len(outbound),
            p75_scp_first_to_self_latency_ms=self._p75(ScpLatency.FIRST_TO_SELF),
            p75_scp_self_to_other_latency_ms=self._p75(ScpLatency.SELF_TO_OTHER),
            lost_sync_count=lost_sync,
            is_validator=facts.is_validator,
            max_inbound_peers=facts.max_inbound_peers,
            max_outbound_peers=facts.max_outbound_peers,
        )
        return TopologyResponse(inbound=inbound, outbound=outbound, node=node)

    def _p75(self, kind: ScpLatency) -> int:
        return clamped_u32(self._scp_latencies[kind].percentile(0.75))


class _WatchedPeer:
    """One link that was there at START: what it had carried by then, and its round trips since."""

    __slots__ = ("_clock", "_counters", "_round_trips", "peer")

    def __init__(self, peer: SurveyPeer, clock: Clock) -> None:
        self.peer = peer
        self._clock = clock
        self._counters = peer.counters()
        self._round_trips = SlidingSample()
        peer.watch_latency(self._note_latency)

    def report(self) -> TimeSlicedPeerData:
        """Return what the link did since; only how long it has been there is told in full."""
        seconds = round(self._clock.seconds() - self.peer.linked_at, 6)  # without a float's dust
        pairs = zip(self.peer.counters(), self._counters, strict=True)
        return TimeSlicedPeerData(
            node=self.peer.peer_id.key,
            version_string=self.peer.version_string,
            counters=PeerCounters._make(max(0, now - then) for now, then in pairs),
            seconds_connected=max(0, int(seconds)),
            average_latency_ms=clamped_u32(self._round_trips.percentile(0.5)),
        )

    def _note_latency(self, milliseconds: int) -> None:
        self._round_trips.add(milliseconds, self._clock.seconds())
