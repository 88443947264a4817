"""The settings of one connection, of all its parts."""

from __future__ import annotations

from dataclasses import dataclass, field

from stellar_overlay.session.clocks import Timeouts
from stellar_overlay.session.flow_control import DEFAULT_MAX_TX_SIZE_BYTES, FlowControlConfig
from stellar_overlay.session.outbox import OutboxConfig


@dataclass(frozen=True, kw_only=True)
class SessionConfig(Timeouts):
    """The settings of one connection (connection.md 10)."""

    max_batch_write_count: int = 1024
    max_batch_write_bytes: int = 1024 * 1024
    max_tx_size: int = DEFAULT_MAX_TX_SIZE_BYTES
    flow_control: FlowControlConfig = field(default_factory=FlowControlConfig)
    outbox: OutboxConfig = field(default_factory=OutboxConfig)
