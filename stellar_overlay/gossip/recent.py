"""Which messages came of late, from whomever: for figures alone (core OverlayManagerImpl.cpp)."""

from __future__ import annotations

from stellar_overlay.wire.message import MessageType

MAX_RECENT = 65_535
"""How many messages are remembered at most (messages.md 6.4)."""

FETCHED = frozenset(
    {
        int(MessageType.TX_SET),
        int(MessageType.GENERALIZED_TX_SET),
        int(MessageType.SCP_QUORUMSET),
    }
)
"""What counts as fetched; unasked ones, too."""
FLOODED = frozenset(
    {
        int(MessageType.SCP_MESSAGE),
        int(MessageType.TRANSACTION),
        int(MessageType.FLOOD_ADVERT),
        int(MessageType.FLOOD_DEMAND),
        int(MessageType.TIME_SLICED_SURVEY_REQUEST),
        int(MessageType.TIME_SLICED_SURVEY_RESPONSE),
        int(MessageType.TIME_SLICED_SURVEY_START_COLLECTING),
        int(MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING),
    }
)
"""What counts as flooded; nothing else is counted as either."""


class RecentMessages:
    """The hashes of at least the last 32,767 different messages; what is older is forgotten.

    Python's own hash is keyed by chance, as core's is, so that nobody can make two messages meet.
    """

    def __init__(self, max_recent: int = MAX_RECENT) -> None:
        self._half = max(1, max_recent // 2)
        self._young: set[int] = set()
        self._old: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._young)

    def __contains__(self, body: bytes) -> bool:
        key = hash(body)
        return key in self._young or key in self._old

    def note(self, body: bytes) -> bool:
        """Remember a message; tell whether it is new."""
        if body in self:
            return False
        if len(self._young) >= self._half:
            self._old, self._young = self._young, set()
        self._young.add(hash(body))
        return True
