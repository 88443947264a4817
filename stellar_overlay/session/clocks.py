"""When a peer was last heard and written to, and what follows from silence (connection.md 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stellar_overlay.error import DropReason
from stellar_overlay.metrics import OverlayMetrics

CHECK_PERIOD_SECONDS = 5
"""How often the clocks of a link are looked at (core Peer.cpp:376)."""
PING_TIMEOUT_SECONDS = 60
"""After how long an unanswered ping is given up. Core never does."""


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long a peer may be silent or slow, in seconds (connection.md 10)."""

    auth_timeout_secs: float = 2
    peer_timeout_secs: float = 30
    peer_straggler_timeout_secs: float = 120


class Clocks:
    """One link's times, in seconds of the injected clock, and its pings.

    :param now: when the TCP connection was made.

    :ivar last_read: when a record was last complete.
    :ivar last_write: when the transport had last taken everything.
    :ivar last_queued_at: since when the message that left last might have left.
    :ivar deadline: when :meth:`check` is due.
    :ivar ping_ms: the latest round trip; None before the first.
    :ivar on_round_trip: called with each one, if anybody wants to know.
    """

    __slots__ = (
        "_metrics",
        "_ping",
        "_timeouts",
        "connected_at",
        "deadline",
        "last_queued_at",
        "last_read",
        "last_write",
        "on_round_trip",
        "ping_ms",
    )

    def __init__(self, timeouts: Timeouts, metrics: OverlayMetrics, now: float) -> None:
        self._timeouts = timeouts
        self._metrics = metrics
        self.connected_at = self.last_read = self.last_write = self.last_queued_at = now
        self.deadline = now + CHECK_PERIOD_SECONDS
        self.ping_ms: int | None = None
        self.on_round_trip: Callable[[int], None] | None = None
        self._ping: tuple[bytes, float] | None = None

    def rearm(self, now: float) -> None:
        """Set the next deadline, in the future however late this one was kept."""
        missed = max(0, int((now - self.deadline) // CHECK_PERIOD_SECONDS))
        self.deadline += CHECK_PERIOD_SECONDS * (1 + missed)

    def check_idle(self, now: float, *, is_authenticated: bool) -> None:
        """Refuse a peer that has been silent for too long.

        The handshake's deadline is absolute: no trickle of bytes puts it off.

        :raises PeerViolation: then.
        """
        if is_authenticated:
            limit = self._timeouts.peer_timeout_secs
            is_idle = now - self.last_read >= limit and now - self.last_write >= limit
        else:
            is_idle = now - self.connected_at >= self._timeouts.auth_timeout_secs
        if is_idle:
            raise DropReason.IDLE.violation()

    def check_straggling(self, now: float) -> None:
        """Refuse a peer that does not take what we write.

        :raises PeerViolation: then.
        """
        if now - self.last_queued_at >= self._timeouts.peer_straggler_timeout_secs:
            raise DropReason.STRAGGLING.violation()

    def may_ping(self, now: float) -> bool:
        """Tell whether no ping is under way."""
        return self._ping is None or now - self._ping[1] >= PING_TIMEOUT_SECONDS

    def note_ping(self, item_hash: bytes, now: float) -> None:
        """Remember a question for an item that does not exist: its answer is the pong."""
        self._ping = item_hash, now

    def forget_ping(self) -> None:
        """Expect no answer any more."""
        self._ping = None

    @property
    def awaits_pong(self) -> bool:
        """Whether a ping is under way."""
        return self._ping is not None

    def note_pong(self, item_hash: bytes, now: float) -> bool:
        """Take the round trip from an answer; tell whether it is the answer to the ping."""
        if self._ping is None or self._ping[0] != item_hash:
            return False
        seconds = now - self._ping[1]
        self.ping_ms = round(seconds * 1000)
        self._metrics.connection_latency.record(seconds)
        self._ping = None
        if self.on_round_trip is not None:
            self.on_round_trip(self.ping_ms)
        return True
