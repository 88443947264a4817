"""What a checked configuration allows: links of each kind, and each link by itself."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from stellar_overlay.config import OverlayConfig
from stellar_overlay.gossip.admission import ConnectionLimits
from stellar_overlay.gossip.tx_adverts import PullModeConfig
from stellar_overlay.interfaces import Herder
from stellar_overlay.session.flow_control import FlowControlConfig
from stellar_overlay.session.outbox import OutboxConfig
from stellar_overlay.session.session_config import SessionConfig


def max_open_files() -> int | None:
    """Return how many files this process may have open (``ulimit -n``); None for any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def connection_limits(
    config: OverlayConfig, *, max_files: Callable[[], int | None] = max_open_files
) -> ConnectionLimits:
    """Return how many links of each kind a checked configuration and the system allow."""
    return ConnectionLimits.of(
        target_outbound=config.target_outbound_peers,
        max_outbound=config.max_outbound_peers,
        max_inbound=config.max_inbound_peers,
        max_pending=config.max_pending_connections,
        max_files=max_files(),
    )


def session_config(config: OverlayConfig, herder: Herder | None = None) -> SessionConfig:
    """Return the settings of each link that a checked configuration asks for.

    :param herder: knows of which slots messages are still worth sending.
    """

    def pick(kind: type) -> dict[str, Any]:
        return {
            row.name: getattr(config, row.name) for row in fields(kind) if hasattr(config, row.name)
        }

    outbox = OutboxConfig(**pick(OutboxConfig))
    if herder is not None:
        outbox = replace(
            outbox,
            min_slot_to_remember=herder.min_slot_to_remember,
            checkpoint_slot=herder.checkpoint_slot,
        )
    return SessionConfig(
        **pick(SessionConfig),
        flow_control=FlowControlConfig(**pick(FlowControlConfig)),
        outbox=outbox,
    )


def pull_mode_config(config: OverlayConfig) -> PullModeConfig:
    """Return the settings of adverts and demands that a checked configuration asks for."""
    return PullModeConfig(
        **{
            row.name: getattr(config, row.name)
            for row in fields(PullModeConfig)
            if hasattr(config, row.name)
        }
    )
