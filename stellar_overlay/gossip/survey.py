"""Time-sliced surveys, on all three sides: who answers, who relays, and who asks (messages.md 5).

A surveyor has everybody collect figures for a while (START, STOP), and then asks one node after
the other (REQUEST), each of which answers for its eyes only (RESPONSE). Everything floods, for
nobody knows the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stellar_overlay.error import CryptoError, ShuttingDown, SurveyError, SurveyRefusal
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.survey_checks import SurveyChecks
from stellar_overlay.gossip.survey_data import SurveyDataManager, SurveyPeer, SurveyPhase
from stellar_overlay.gossip.survey_facts import SurveyConfig, SurveyEvent, SurveyManagerStats
from stellar_overlay.gossip.survey_limiter import SurveyLimiter
from stellar_overlay.gossip.survey_results import SurveyResults
from stellar_overlay.gossip.survey_run import Pages, SurveyRun
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.interfaces import Clock, Herder, ScpLatency
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.survey_body import (
    SurveyRequest,
    decode_collecting,
    decode_request,
    decode_response,
    encode_collecting,
    encode_request,
    encode_response,
    encode_topology,
    seal,
)

_MAX_UINT32 = 2**32 - 1


class SurveyManager:
    """The surveys of one node.

    :param peers: all authenticated peers, live.
    :param gate: remembers which survey messages were taken, and who has them.
    :param broadcast: sends a message to all peers that do not have it.
    :ivar handlers: what is done with each type of survey message.
    :ivar wake: called when a survey begins: :meth:`update_phase` is due every few seconds then.
    :ivar on_event: called with each :class:`SurveyEvent`.
    """

    def __init__(
        self,
        local_node: LocalNode,
        config: SurveyConfig,
        *,
        herder: Herder,
        peers: Mapping[PeerId, SurveyPeer],
        gate: FloodGate,
        broadcast: Callable[[Message], int],
        clock: Clock,
        metrics: OverlayMetrics,
    ) -> None:
        self.wake: Callable[[], object] = lambda: None
        self.on_event: Callable[[SurveyEvent], object] = lambda event: None
        self.handlers: dict[int, Callable[[Any, bytes, float], None]] = {
            MessageType.TIME_SLICED_SURVEY_START_COLLECTING: self._recv_start,
            MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING: self._recv_stop,
            MessageType.TIME_SLICED_SURVEY_REQUEST: self._recv_request,
            MessageType.TIME_SLICED_SURVEY_RESPONSE: self._recv_response,
        }
        self._is_stopped = False
        self._local_node = local_node
        self._own = local_node.peer_id
        self._herder = herder
        self._peers = peers
        self._gate = gate
        self._broadcast = broadcast
        self._clock = clock
        self._metrics = metrics
        self._data = SurveyDataManager(config.facts, clock)
        self._limiter = SurveyLimiter(self._own.key, herder.tracking_ledger)
        self._checks = SurveyChecks(
            self._own.key, config, gate, self._data, self._limiter, clock, metrics
        )
        self._run = SurveyRun(
            self._own,
            self._ask,
            self._is_own_reporting,
            clock=clock,
            pause_seconds=config.pause_seconds,
            token_bytes=local_node.token_bytes,
        )

    # Where it stands.

    @property
    def phase(self) -> SurveyPhase:
        """What our own node does at present."""
        return self._data.phase

    @property
    def nonce(self) -> int | None:
        """The number of the present survey."""
        return self._data.nonce

    @property
    def surveyor(self) -> PeerId | None:
        """Who has begun the present survey."""
        surveyor = self._data.surveyor
        return None if surveyor is None else PeerId(surveyor)

    @property
    def is_active(self) -> bool:
        """Whether there is a survey, ours or another node's."""
        return self.phase is not SurveyPhase.INACTIVE

    @property
    def is_reporting(self) -> bool:
        """Whether a run of our own requests goes on."""
        return self._run.is_running

    @property
    def stats(self) -> SurveyManagerStats:
        """The figures of now."""
        data, run, now = self._data, self._run, self._clock.seconds()
        return SurveyManagerStats(
            phase=data.phase,
            nonce=data.nonce,
            surveyor=self.surveyor,
            seconds_left=None if data.ends_at is None else max(0.0, data.ends_at - now),
            backlog=run.backlog,
            answered=run.answered,
            bad_responses=run.bad_responses,
            collecting_inbound_peers=data.collecting_inbound_peers,
            collecting_outbound_peers=data.collecting_outbound_peers,
        )

    def surveyor_permitted(self, peer_id: PeerId) -> bool:
        """Tell whether a node may survey us, and the network through us (DECISIONS.md 18)."""
        return self._checks.surveyor_permitted(peer_id.key)

    # For whoever surveys.

    def start_collecting(self, nonce: int) -> None:
        """Have the network collect figures, ourselves included.

        :param nonce: the survey's number, 0 to 2^32-1: any that was not used lately.
        :raises SurveyError: while there is a survey, ours or another node's.
        :raises ShuttingDown: when the overlay is stopped; so for all that follows.
        :raises ValueError: for what is no such number.
        """
        _check_uint32("a nonce", nonce)
        self._check_running()
        if self.is_active:
            raise SurveyError(f"the survey {self.nonce} of {self.surveyor} is active")
        self._begin(nonce, self._own)
        self._broadcast(self._collecting(MessageType.TIME_SLICED_SURVEY_START_COLLECTING, nonce))

    def stop_collecting(self) -> bool:
        """Have the network collect no more, and be ready to report.

        :returns: False when that has no effect: the survey is another node's, or reports already.
        :raises SurveyError: when there is no survey.
        """
        self._check_running()
        nonce = self.nonce
        if nonce is None:
            raise SurveyError("no survey is active")
        if self.surveyor != self._own or not self._stop(nonce, self._own):
            return False
        self._broadcast(self._collecting(MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING, nonce))
        return True

    def request(self, node: PeerId | str, inbound_index: int = 0, outbound_index: int = 0) -> bool:
        """Ask a node for what it collected: up to 25 of its peers of each direction.

        The first call begins a run, which ends with :meth:`stop_reporting` or with the survey.
        Ten requests leave at once, ten more after a pause. An earlier answer of the node is
        forgotten.

        :param inbound_index: from which one on, of those who dialled it; likewise
            ``outbound_index``, of those it dialled.
        :returns: False, without effect, when the node waits to be asked, was asked since the last
            pause and has not answered yet, or is ourselves.
        :raises SurveyError: unless a survey of ours is being reported.
        :raises InvalidKey: when the text is no node id.
        :raises ValueError: for what is no index.
        """
        node_id = PeerId.from_strkey(node) if isinstance(node, str) else node
        _check_uint32("an index", inbound_index)
        _check_uint32("an index", outbound_index)
        self._check_running()
        if not self._is_own_reporting():
            raise SurveyError(self._why_not_reporting())
        if not self._run.is_running:
            own_report = self._data.final()
            assert own_report is not None
            self._run.start(own_report)
        return self._run.add(node_id, (inbound_index, outbound_index))

    def stop_reporting(self) -> None:
        """End the run of our requests, if there is one; what was answered stays."""
        self._run.stop()

    def results(self) -> SurveyResults:
        """Return what our run of requests has learnt; the latest run, if none goes on."""
        return self._run.results()

    def _check_running(self) -> None:
        if self._is_stopped:
            raise ShuttingDown("the overlay is stopped")

    def _is_own_reporting(self) -> bool:
        return self.phase is SurveyPhase.REPORTING and self.surveyor == self._own

    def _why_not_reporting(self) -> str:
        match self.phase:
            case SurveyPhase.INACTIVE:
                return "no survey is active; start one, let it collect, and stop that first"
            case SurveyPhase.COLLECTING:
                return f"the survey {self.nonce} is still collecting; stop that first"
        return f"the survey {self.nonce} is of {self.surveyor}, not ours: nobody would answer us"

    def _collecting(self, kind: MessageType, nonce: int) -> Message:
        return Message(
            encode_collecting(
                kind,
                surveyor=self._own.key,
                nonce=nonce,
                ledger_num=self._herder.tracking_ledger(),
                sign=self._local_node.sign,
            )
        )

    def _ask(self, node: PeerId, pages: Pages, encryption_key: bytes) -> bool:
        """Send a request; False when nobody would relay it now."""
        nonce, ledger_num = self.nonce, self._limiter.ledger_to_ask_in(self._own.key, node.key)
        if nonce is None or ledger_num is None:
            return False
        body = encode_request(
            surveyor=self._own.key,
            surveyed=node.key,
            ledger_num=ledger_num,
            encryption_key=encryption_key,
            nonce=nonce,
            inbound_index=pages[0],
            outbound_index=pages[1],
            sign=self._local_node.sign,
        )
        self._limiter.add_request(decode_request(body), lambda: None)
        self._metrics.survey_requests.add(1)
        self._broadcast(Message(body))
        return True

    # What peers send.

    def _recv_start(self, link: SurveyPeer, body: bytes, now: float) -> None:
        message = decode_collecting(body)
        if not self._is_stopped and self._checks.accepts_start(link, body, message):
            self._begin(message.nonce, PeerId(message.surveyor))
            self._relay(link, body, now)

    def _recv_stop(self, link: SurveyPeer, body: bytes, now: float) -> None:
        message = decode_collecting(body)
        if not self._checks.accepts_stop(link, body, message):
            return
        if self._stop(message.nonce, PeerId(message.surveyor)):
            self._relay(link, body, now)
        else:
            self._checks.refuse(SurveyRefusal.WRONG_NONCE)

    def _recv_request(self, link: SurveyPeer, body: bytes, now: float) -> None:
        message = decode_request(body)
        if not self._checks.accepts_request(link, body, message):
            return
        if message.surveyed == self._own.key:
            self._gate.add_record(body, link.flood_bit, now)
            self._answer(message)
        else:
            self._relay(link, body, now)

    def _recv_response(self, link: SurveyPeer, body: bytes, now: float) -> None:
        message = decode_response(body)
        if not self._checks.accepts_response(link, body, message):
            return
        self._metrics.survey_responses.add(1)
        if message.surveyor != self._own.key:
            self._relay(link, body, now)
            return
        self._gate.add_record(body, link.flood_bit, now)
        reason = self._run.take(message)
        self._tell_how("response", message.nonce, self._own, PeerId(message.surveyed), reason)

    def _answer(self, request: SurveyRequest) -> None:
        """Answer a surveyor, so that nobody else can read it."""
        surveyor = PeerId(request.surveyor)
        page = self._data.page(request)
        reason = SurveyRefusal.WRONG_SURVEYOR if page is None else None
        if page is not None:
            try:
                sealed = seal(encode_topology(page), request.encryption_key)
            except CryptoError:
                reason = SurveyRefusal.BAD_KEY
            else:
                self._metrics.survey_answers.add(1)
                self._broadcast(Message(encode_response(request, sealed, self._local_node.sign)))
        self._tell_how("answered", request.nonce, surveyor, self._own, reason)

    def _tell_how(
        self,
        kind: str,
        nonce: int,
        surveyor: PeerId,
        node: PeerId,
        reason: SurveyRefusal | None,
    ) -> None:
        """Tell of what was done, or that and why it could not be."""
        if reason is not None:
            self._checks.refuse(reason)
            kind = "failed"
        self.on_event(SurveyEvent(kind, nonce, surveyor, node, reason))

    def _relay(self, link: SurveyPeer, body: bytes, now: float) -> None:
        self._gate.add_record(body, link.flood_bit, now)
        self._broadcast(Message(body))

    # Phases.

    def _begin(self, nonce: int, surveyor: PeerId) -> None:
        self._data.start_collecting(
            nonce,
            surveyor.key,
            self._peers.values(),
            lost_sync_count=self._herder.lost_sync_count,
            is_out_of_sync=not self._herder.is_tracking(),
        )
        self._metrics.survey_started.add(1)
        self._tell_phase(SurveyPhase.COLLECTING, nonce, surveyor)
        self.wake()

    def _stop(self, nonce: int, surveyor: PeerId) -> bool:
        is_stopped = self._data.stop_collecting(
            nonce,
            surveyor.key,
            self._peers.values(),
            lost_sync_count=self._herder.lost_sync_count,
        )
        if is_stopped:
            self._note_reporting()
        return is_stopped

    def update_phase(self) -> bool:
        """Do what time does: 30 minutes end collecting, 3 hours reporting.

        :returns: whether there is a survey, so that there will be more to do.
        """
        nonce, surveyor = self.nonce, self.surveyor
        if self._data.update_phase(
            self._peers.values(), lost_sync_count=self._herder.lost_sync_count
        ):
            if self.phase is SurveyPhase.REPORTING:
                self._note_reporting()
            else:
                self._run.stop()
                self._limiter.forget_requests()
                self._tell_phase(SurveyPhase.INACTIVE, nonce, surveyor)
        self._limiter.clear_old_ledgers(self._herder.tracking_ledger())
        return self.is_active

    def _note_reporting(self) -> None:
        self._metrics.survey_stopped.add(1)
        self._tell_phase(SurveyPhase.REPORTING, self.nonce, self.surveyor)

    def shutdown(self) -> None:
        """Survey no more, and watch nobody."""
        self._is_stopped = True
        self._run.stop()
        self._data.reset()

    # What is counted while collecting.

    def record_added_peer(self, peer: SurveyPeer) -> None:
        """Note that a peer was authenticated."""
        self._data.record_added_peer(peer)

    def record_dropped_peer(self, peer: SurveyPeer) -> None:
        """Note that an authenticated peer is gone."""
        self._data.record_dropped_peer(peer)

    def record_scp_latency(self, kind: ScpLatency, seconds: float) -> None:
        """Note how long consensus took somewhere."""
        self._data.record_scp_latency(kind, seconds)

    def _tell_phase(self, phase: SurveyPhase, nonce: int | None, surveyor: PeerId | None) -> None:
        self.on_event(SurveyEvent(phase.value, nonce, surveyor))


def _check_uint32(name: str, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_UINT32:
        raise ValueError(f"{name} is 0 to 2^32-1, not {value!r:.100}")
