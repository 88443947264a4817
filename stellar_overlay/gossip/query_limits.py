"""How many questions a peer may ask (connection.md 4.8): tumbling windows, one per kind."""

from __future__ import annotations

from stellar_overlay.wire.message import MessageType

WINDOW_SECONDS = 60
"""Twelve ledgers of five seconds (core: expected close time x MAX_SLOTS_TO_REMEMBER)."""

LIMITS = {
    MessageType.GET_TX_SET: 300,
    MessageType.GET_SCP_QUORUMSET: 300,
    MessageType.GET_SCP_STATE: 10,
}
"""Questions answered per window (core Peer.cpp:59-61); more are ignored without a word."""


class QueryLimits:
    """What one peer asked in the present windows."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = {kind: (float("-inf"), 0) for kind in LIMITS}

    def allow(self, kind: MessageType, now: float) -> bool:
        """Count a question; tell whether it is to be answered."""
        since, count = self._counts[kind]
        if now - since >= WINDOW_SECONDS:
            since, count = now, 0
        self._counts[kind] = since, count + 1
        return count < LIMITS[kind]
