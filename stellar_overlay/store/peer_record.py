"""What is remembered of one address, and which addresses a query is about."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from stellar_overlay.address import ResolvedPeerAddress

SECONDS_PER_BACKOFF = 10
MAX_BACKOFF_EXPONENT = 10
MAX_BACKOFF_SECONDS = SECONDS_PER_BACKOFF * 2**MAX_BACKOFF_EXPONENT
"""The longest wait (connection.md 9.2); one that is longer comes from a clock that was wrong."""
MAX_UNIX_SECONDS = 253_402_300_799
"""The last second of the year 9999, the last that the table can hold."""


class StoredPeerType(IntEnum):
    """How an address came to us, as in core's column ``type``."""

    INBOUND = 0
    """It was only heard of, or dialled us."""
    OUTBOUND = 1
    """It once answered when we dialled it, or is configured as known."""
    PREFERRED = 2


class BackOffUpdate(Enum):
    """What happened to an address (connection.md 9.2)."""

    HARD_RESET = auto()
    """It is configured: due at once."""
    RESET = auto()
    """It was dialled with success."""
    INCREASE = auto()
    """It is about to be dialled, which counts as a failure until it succeeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerRecord:
    """One row of the table.

    :ivar next_attempt: Unix seconds before which it is not dialled.
    """

    address: ResolvedPeerAddress
    next_attempt: int
    num_failures: int = 0
    peer_type: StoredPeerType = StoredPeerType.INBOUND

    def __post_init__(self) -> None:
        if not 0 <= self.next_attempt <= MAX_UNIX_SECONDS:
            raise ValueError(f"next_attempt {self.next_attempt} is not in 0..{MAX_UNIX_SECONDS}")
        if self.num_failures < 0:
            raise ValueError(f"num_failures {self.num_failures} is negative")

    def seconds_to_wait(self, wall_now: float) -> float:
        """Return how long it is not to be dialled yet; 0 when it is due.

        A date further ahead than its failures can have put it was written by a clock that ran
        ahead of this one, and counts as due.
        """
        wait = self.next_attempt - wall_now
        longest = SECONDS_PER_BACKOFF * 2 ** min(self.num_failures, MAX_BACKOFF_EXPONENT)
        return wait if 0 < wait <= longest else 0

    def is_ready(self, wall_now: float) -> bool:
        """Tell whether it may be dialled."""
        return self.seconds_to_wait(wall_now) == 0


ALL_TYPES = frozenset(StoredPeerType)
MAX_FAILURES_TO_DIAL = 120
"""An address with more is not dialled (connection.md 9.5)."""
REALLY_DEAD_FAILURES = 120
"""After so many failed dials in a row an address is forgotten (connection.md 9.3)."""
MAX_FAILURES_TO_SEND = 10


@dataclass(frozen=True, kw_only=True)
class PeerQuery:
    """Which rows are meant.

    :ivar use_next_attempt: only those that are due.
    """

    use_next_attempt: bool
    max_num_failures: int
    types: frozenset[StoredPeerType] = ALL_TYPES

    @classmethod
    def to_dial(cls, peer_type: StoredPeerType) -> PeerQuery:
        """Return the query for addresses to dial (connection.md 9.5)."""
        return cls(
            use_next_attempt=True,
            max_num_failures=MAX_FAILURES_TO_DIAL,
            types=frozenset({peer_type}),
        )

    @classmethod
    def to_send(cls, *types: StoredPeerType) -> PeerQuery:
        """Return the query for addresses to tell others."""
        return cls(
            use_next_attempt=False, max_num_failures=MAX_FAILURES_TO_SEND, types=frozenset(types)
        )

    def matches(self, record: PeerRecord, wall_now: float) -> bool:
        """Tell whether ``record`` is one of them."""
        return (
            record.num_failures <= self.max_num_failures
            and record.peer_type in self.types
            and (not self.use_next_attempt or record.is_ready(wall_now))
        )
