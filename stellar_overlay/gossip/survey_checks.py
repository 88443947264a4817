"""Which survey messages of peers are taken (messages.md 5.3-5.5, cases 41-56).

Core's order of checks: what costs nothing comes first, the signature last. Each message that is
not taken is counted by its reason, and only a bad signature has consequences for who sent it.
"""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.error import DropReason, SurveyRefusal
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.survey_data import SurveyDataManager, SurveyPeer, SurveyPhase
from stellar_overlay.gossip.survey_facts import SurveyConfig
from stellar_overlay.gossip.survey_limiter import SurveyLimiter
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.survey_body import SurveyCollecting, SurveyRequest, SurveyResponse

_SIGNATURE_SIZE = 64


class SurveyChecks:
    """Judges what peers send; nothing is relayed, answered or believed that it refuses."""

    def __init__(
        self,
        own: bytes,
        config: SurveyConfig,
        gate: FloodGate,
        data: SurveyDataManager,
        limiter: SurveyLimiter,
        clock: Clock,
        metrics: OverlayMetrics,
    ) -> None:
        self._own = own
        self._surveyors = frozenset(peer_id.key for peer_id in config.surveyor_keys)
        self._quorum_nodes = config.quorum_nodes
        self._gate = gate
        self._data = data
        self._limiter = limiter
        self._clock = clock
        self._metrics = metrics

    def surveyor_permitted(self, surveyor: bytes) -> bool:
        """Tell whether a node may survey us, and the network through us (DECISIONS.md 18)."""
        if surveyor == self._own:
            return True
        if self._surveyors:
            return surveyor in self._surveyors
        return surveyor in self._quorum_nodes

    def accepts_start(self, link: SurveyPeer, body: bytes, message: SurveyCollecting) -> bool:
        """Tell whether a survey is to begin."""

        def validate() -> SurveyRefusal | None:
            if self._data.phase is not SurveyPhase.INACTIVE:
                return SurveyRefusal.ALREADY_ACTIVE
            return self._check_collecting(link, message)

        return self._may_look(link, body, message.surveyor) and self._passes(
            self._limiter.check_collecting(message, validate)
        )

    def accepts_stop(self, link: SurveyPeer, body: bytes, message: SurveyCollecting) -> bool:
        """Tell whether a survey is to stop collecting, if it is the present one."""
        return self._may_look(link, body, message.surveyor) and self._passes(
            self._limiter.check_collecting(message, lambda: self._check_collecting(link, message))
        )

    def accepts_request(self, link: SurveyPeer, body: bytes, message: SurveyRequest) -> bool:
        """Tell whether a request is to be relayed, or answered; it is remembered then."""
        return self._may_look(link, body, message.surveyor) and self._passes(
            self._limiter.add_request(message, self._nonce_and_signature(link, message))
        )

    def accepts_response(self, link: SurveyPeer, body: bytes, message: SurveyResponse) -> bool:
        """Tell whether an answer is to be relayed, or is for us; it is remembered then."""
        return self._is_new(link, body) and self._passes(
            self._limiter.add_response(message, self._nonce_and_signature(link, message))
        )

    def refuse(self, reason: SurveyRefusal) -> None:
        """Count a message that was not taken."""
        self._metrics.survey_refusals[reason].add(1)

    def _may_look(self, link: SurveyPeer, body: bytes, surveyor: bytes) -> bool:
        """Tell whether a message is worth a closer look; nothing here costs much."""
        if not self.surveyor_permitted(surveyor):
            return self._passes(SurveyRefusal.NOT_PERMITTED)
        if not self._is_new(link, body):
            return False
        # What we send is in the gate: whoever else speaks in our name has made it up.
        return surveyor != self._own or self._passes(SurveyRefusal.NOT_OURS)

    def _is_new(self, link: SurveyPeer, body: bytes) -> bool:
        """Tell whether a message was not taken before; note who else has it."""
        record = self._gate.records.get(body)
        if record is None:
            return True
        record.told |= link.flood_bit
        return self._passes(SurveyRefusal.REPEATED)

    def _passes(self, reason: SurveyRefusal | None) -> bool:
        if reason is not None:
            self.refuse(reason)
        return reason is None

    def _nonce_and_signature(
        self, link: SurveyPeer, message: SurveyRequest | SurveyResponse
    ) -> Callable[[], SurveyRefusal | None]:
        is_request = isinstance(message, SurveyRequest)
        signer = message.surveyor if is_request else message.surveyed

        def validate() -> SurveyRefusal | None:
            if not self._data.nonce_is_reporting(message.nonce):
                return SurveyRefusal.WRONG_NONCE
            reason = self._check_signature(link, message, signer)
            if reason is None:
                self._limiter.refund_check(message.surveyor, message.ledger_num)
            return reason

        return validate

    def _check_collecting(
        self, link: SurveyPeer, message: SurveyCollecting
    ) -> SurveyRefusal | None:
        if self._limiter.was_verified(message):
            return None
        reason = self._check_signature(link, message, message.surveyor)
        if reason is None:
            self._limiter.note_verified(message)
        return reason

    def _check_signature(
        self,
        link: SurveyPeer,
        message: SurveyCollecting | SurveyRequest | SurveyResponse,
        signer: bytes,
    ) -> SurveyRefusal | None:
        """Check a signature; who relays a bad one is dropped, for it ought to have checked it."""
        if len(message.signature) == _SIGNATURE_SIZE:
            link_seconds = self._clock.seconds() - link.linked_at
            if not self._limiter.spend_check(message.surveyor, message.ledger_num, link_seconds):
                return SurveyRefusal.TOO_MANY_CHECKS
            self._metrics.survey_signature_checks.add(1)
            if is_signed_by(signer, message.signed, message.signature):
                return None
        link.drop(
            DropReason.BAD_SURVEY_SIGNATURE.violation(
                f"survey {message.nonce}, said to be signed by {PeerId(signer)}"
            )
        )
        return SurveyRefusal.BAD_SIGNATURE
