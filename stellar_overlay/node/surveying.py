"""Surveys of a node: made from its configuration, driven in time, and logged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger

from stellar_overlay.config import OverlayConfig
from stellar_overlay.config_nodes import OURSELVES
from stellar_overlay.error import SurveyRefusal
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.gossip.survey import SurveyManager
from stellar_overlay.gossip.survey_data import (
    COLLECTING_SECONDS,
    REPORTING_SECONDS,
    NodeFacts,
)
from stellar_overlay.gossip.survey_facts import SurveyConfig, SurveyEvent
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.interfaces import Herder
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.flooding import flat_quorum_set
from stellar_overlay.node.loops import Loop
from stellar_overlay.node.peer import Peer

PHASE_SECONDS = 3
"""How often it is looked whether a phase is over (core's overlay tick)."""
LEDGER_SECONDS = 5
"""How long public networks take for a ledger, as far as surveys care (SurveyManager.cpp)."""
LEDGERS_BETWEEN_REQUESTS = 3


class Surveying(MultiService):
    """Makes the survey manager of a node, and looks after it while there is a survey.

    :param peers: all authenticated peers, live.
    """

    _log = Logger()

    def __init__(
        self,
        config: OverlayConfig,
        local_node: LocalNode,
        herder: Herder,
        relay: Relay,
        peers: Mapping[PeerId, Peer],
        clock: Any,
        metrics: OverlayMetrics,
    ) -> None:
        super().__init__()
        self.manager = SurveyManager(
            local_node,
            survey_config(config, local_node.peer_id),
            herder=herder,
            peers=peers,
            gate=relay.gate,
            broadcast=relay.broadcast,
            clock=clock,
            metrics=metrics,
        )
        self.manager.on_event = self._log_event
        relay.on_scp_latency = self.manager.record_scp_latency
        phases = Loop(
            "survey phases", self.manager.update_phase, PHASE_SECONDS, clock, is_idle=True
        )
        self.manager.wake = phases.wake
        phases.setServiceParent(self)

    def stopService(self) -> Any:
        """End the survey, as far as we take part in it."""
        self.manager.shutdown()
        return super().stopService()

    def _log_event(self, event: SurveyEvent) -> None:
        match event.kind:
            case "failed":
                assert event.reason is not None
                is_late = event.reason is SurveyRefusal.TOO_LATE
                log = self._log.debug if is_late else self._log.warn
                log(
                    "Survey {nonce} of {surveyor}, {node}: {reason}",
                    nonce=event.nonce,
                    surveyor=event.surveyor,
                    node=event.node,
                    reason=event.reason.value,
                )
            case "answered" | "response":
                self._log.debug(
                    "Survey {nonce} of {surveyor}: {node} has answered",
                    nonce=event.nonce,
                    surveyor=event.surveyor,
                    node=event.node,
                )
            case phase:
                self._log.info(
                    "Survey {nonce} of {surveyor}: {phase}",
                    nonce=event.nonce,
                    surveyor=event.surveyor,
                    phase=phase,
                )


def survey_config(config: OverlayConfig, own: PeerId) -> SurveyConfig:
    """Return who may survey a node, and what it says of itself, by a checked configuration."""
    keys = config.surveyor_ids
    if OURSELVES in config.surveyor_keys:
        keys |= {own}
    quorum_set = config.quorum_set
    minutes = config.survey_phase_minutes
    ledger_seconds = config.expected_ledger_close_secs or LEDGER_SECONDS
    return SurveyConfig(
        surveyor_keys=keys,
        quorum_nodes=(
            frozenset() if quorum_set is None else frozenset(flat_quorum_set(quorum_set).nodes())
        ),
        facts=NodeFacts(
            is_validator=config.node_is_validator,
            max_inbound_peers=config.max_inbound_peers,
            max_outbound_peers=config.target_outbound_peers,
            collecting_seconds=minutes * 60 or COLLECTING_SECONDS,
            reporting_seconds=minutes * 60 or REPORTING_SECONDS,
        ),
        pause_seconds=LEDGERS_BETWEEN_REQUESTS * ledger_seconds,
    )
