"""What all links of a node share: bytes that wait to leave, bytes that came in, and CPU time.

Each link has limits of its own in its session; these are the ones that no number of links gets
beyond. Nobody is dropped here: a link that has more than its share is read no further for a
while, and the clocks of :mod:`stellar_overlay.session.clocks` do the rest.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from stellar_overlay.interfaces import Clock, DelayedCall
from stellar_overlay.metrics import OverlayMetrics

UNSENT_ANSWERS_LIMIT = 64 * 1024 * 1024
"""Bytes of answers that wait for all peers together."""
RECEIVED_LIMIT = 256 * 1024 * 1024
"""Bytes received and not processed, of all peers together."""
RECEIVED_SHARE = 64 * 1024
"""The least that a peer's fair share of them is, however many peers there are: one read."""
RESUME_BELOW = 7 / 8
"""The part of a limit below which reading goes on: not for every byte that becomes free."""
CPU_ALLOWANCE_SECONDS = 0.020
CPU_WINDOW_SECONDS = 0.100
FORGIVEN_ALLOWANCES = 2
"""So much a link may owe and go on as soon as nobody else has anything to do."""
PAUSE_SECONDS = 0.003
"""For how long that must be so, where others had something to do just before."""
"""A peer whose messages take more than the allowance within a window lets others go first."""


class Hold(Enum):
    """Why a link is not read."""

    CREDIT = "credit"
    """What it sent is still being processed: its session's own limit."""
    RECEIVED = "received"
    """It has more than its share of what was received and waits."""
    CPU = "cpu"
    """It has had its share of the time."""


class Throttled(Protocol):
    """A link that can be told not to read; hashable, by identity."""

    def hold(self, reason: Hold) -> None:
        """Read nothing until :meth:`release`; other reasons may still hold after that."""
        ...

    def release(self, reason: Hold) -> None:
        """Go on reading unless something else holds; may receive before it returns."""
        ...


class ByteBudget:
    """Bytes that many share.

    :ivar used: bytes taken now.
    :ivar peak: the most that were ever taken at once.
    :ivar refused: how often there was no room.
    """

    __slots__ = ("limit", "peak", "refused", "used")

    def __init__(self, limit: int = UNSENT_ANSWERS_LIMIT) -> None:
        self.limit = limit
        self.used = self.peak = self.refused = 0

    def take(self, size: int, own: int = 0) -> bool:
        """Take so many bytes; False, and nothing taken, when there is no room for them.

        :param own: what whoever asks has taken already. That may become no more than what is left
            for all others, so that few cannot take everything.
        """
        used = self.used + size
        if used > self.limit or own + size > self.limit - self.used:
            self.refused += 1
            return False
        self.used = used
        if used > self.peak:
            self.peak = used
        return True

    def give(self, size: int) -> None:
        """Give back what was taken.

        :raises AssertionError: when that is more than was taken.
        """
        if size > self.used:
            raise AssertionError(f"{size} bytes given back of {self.used} taken")
        self.used -= size


class ReceiveBudget:
    """Bytes received and not processed, over all authenticated links.

    Over the limit a link that has more than its fair share (an equal part of the limit, or
    :data:`RECEIVED_SHARE`) is held; one that has not is never. So peers with small messages go on
    whatever others do, and the sum stays below the limit plus one read for each link, as long as
    the least shares fit into it (4,096 links). Links in their handshake are no concern of this
    budget: each has 4 KiB.

    Those that are held are let go, in the order in which they were held, once the sum has fallen
    below :data:`RESUME_BELOW` of the limit; each as soon as it has no more than its share.

    It may be that all those bytes are the beginnings of 16 MiB records, none of which can be
    completed while their links are held. Nothing complete arrives on these links then, and no
    grant either, so that they end by their clocks: once we have nothing to write to them, 30 to
    35 s after that; else 60 s after their credit is spent. The first that ends makes room for the
    next to go on.

    :ivar total: bytes now.
    :ivar peak: the most there ever were.
    :ivar holds: how often a link was held.
    """

    __slots__ = ("_amounts", "_held", "_low", "holds", "limit", "peak", "total")

    def __init__(self, limit: int = RECEIVED_LIMIT) -> None:
        self.limit = limit
        self.total = self.peak = self.holds = 0
        self._low = int(limit * RESUME_BELOW)
        self._amounts: dict[Throttled, int] = {}
        self._held: dict[Throttled, None] = {}

    def note(self, link: Throttled, amount: int) -> None:
        """Note how many bytes a link has now: after each read, and when some were processed."""
        amounts = self._amounts
        total = self.total = self.total + amount - amounts.get(link, 0)
        amounts[link] = amount
        if total > self.peak:
            self.peak = total
        if total > self.limit or self._held:
            self._adjust(link, amount)

    def forget(self, link: Throttled) -> None:
        """Give back all that a link has, which is gone; it is told nothing more."""
        self.total -= self._amounts.pop(link, 0)
        self._held.pop(link, None)
        for other in list(self._held):  # fewer links have larger shares
            if other in self._held and self._amounts[other] <= self.share:
                self._release(other)
        self._let_go()

    @property
    def share(self) -> int:
        """The bytes that each link may have whatever the others have."""
        return max(RECEIVED_SHARE, self.limit // max(1, len(self._amounts)))

    @property
    def held(self) -> int:
        """How many links are held now."""
        return len(self._held)

    def _adjust(self, link: Throttled, amount: int) -> None:
        if link in self._held:
            if amount <= self.share:
                self._release(link)
        elif self.total > self.limit and amount > self.share:
            self._held[link] = None
            self.holds += 1
            link.hold(Hold.RECEIVED)
        self._let_go()

    def _let_go(self) -> None:
        for link in list(self._held):  # who is let go may receive at once, and be held again
            if self.total > self._low:
                break
            if link in self._held:
                self._release(link)

    def _release(self, link: Throttled) -> None:
        del self._held[link]
        link.release(Hold.RECEIVED)


class CpuShares:
    """The time that each link's messages take, so that none keeps the others waiting.

    A link that has had more than its allowance within a window is held. Each window pays off one
    allowance, and whoever owes no more than that goes on: a link whose messages take long, one by
    one, has a fifth of the time in the end.

    It costs next to nothing while nobody else has anything to do. A link that was alone in its
    window goes on after an empty turn of the reactor; one that was not, after a pause in which
    nobody else took any time: shorter ones are those in which honest peers wait for our answers.
    Either has a fresh allowance then, unless it owes more than two.

    There is no timer unless a link is held, and then one.

    :param clock: in whose turns links are read.
    :ivar holds: how often a link was held.
    """

    __slots__ = (
        "_allowance",
        "_busy_until",
        "_call",
        "_clock",
        "_held",
        "_held_seconds",
        "_is_busy",
        "_spent",
        "_window",
        "_window_start",
        "holds",
    )

    def __init__(
        self,
        clock: Clock,
        allowance: float = CPU_ALLOWANCE_SECONDS,
        window: float = CPU_WINDOW_SECONDS,
    ) -> None:
        self._clock = clock
        self._allowance = allowance
        self._window = window
        self._window_start = clock.seconds()
        self._spent: dict[Throttled, float] = {}
        self._held: dict[Throttled, float] = {}  # since when
        self._held_seconds = 0.0
        self._is_busy = False
        self._busy_until = self._window_start
        self._call: DelayedCall | None = None
        self.holds = 0

    def spent(self, link: Throttled, seconds: float, now: float) -> None:
        """Note what the messages of one read took, up to now."""
        if not 0.0 <= now - self._window_start < self._window:  # or the clock was set back
            self._begin_window(now)
        spent = self._spent.get(link, 0.0) + seconds
        self._spent[link] = spent
        if link in self._held:
            return  # the rest of what it sent before; that is no reason to keep it waiting
        self._is_busy = True
        self._busy_until = now
        if spent > self._allowance:
            self._hold(link, now)

    def forget(self, link: Throttled) -> None:
        """Forget a link that is gone; it is told nothing more."""
        self._spent.pop(link, None)
        since = self._held.pop(link, None)
        if since is not None:
            self._held_seconds += max(0.0, self._clock.seconds() - since)
        self._stop_looking_if_idle()

    @property
    def held(self) -> int:
        """How many links are held now."""
        return len(self._held)

    @property
    def held_seconds(self) -> float:
        """For how long links were held, all together, up to now."""
        now = self._clock.seconds()
        return self._held_seconds + sum(now - since for since in self._held.values())

    def _hold(self, link: Throttled, now: float) -> None:
        self._held[link] = now
        self.holds += 1
        if self._call is None:
            self._call = self._clock.callLater(0, self._look_around)
        link.hold(Hold.CPU)

    def _look_around(self) -> None:
        """Let go whom nobody keeps waiting.

        The first look after somebody took time only begins a turn: who was read before that one
        in the same turn of the reactor may well have more.
        """
        self._call = None
        now = self._clock.seconds()
        was_busy, self._is_busy = self._is_busy, False
        if not 0.0 <= now - self._window_start < self._window:
            self._begin_window(now)
        elif not was_busy and self._pause_left(now) <= 0:
            link = self._first_of_small_debts()
            if link is not None:
                self._spent.pop(link)
                self._release(link, now)
        if self._held and self._call is None:
            self._call = self._clock.callLater(self._next_look(now), self._look_around)

    def _pause_left(self, now: float) -> float:
        """Return for how long nobody else may have anything to do before one goes on."""
        if all(link in self._held for link in self._spent):
            return 0.0
        return PAUSE_SECONDS - (now - self._busy_until)

    def _next_look(self, now: float) -> float:
        end_of_window = max(0.0, self._window_start + self._window - now)
        if self._first_of_small_debts() is None:
            return end_of_window
        return min(end_of_window, max(0.0, self._pause_left(now)))

    def _first_of_small_debts(self) -> Throttled | None:
        most = FORGIVEN_ALLOWANCES * self._allowance
        return next((link for link in self._held if self._spent.get(link, 0.0) <= most), None)

    def _begin_window(self, now: float) -> None:
        windows = max(1, int((now - self._window_start) / self._window))
        paid = windows * self._allowance
        self._window_start = now
        self._spent = {link: spent - paid for link, spent in self._spent.items() if spent > paid}
        for link in list(self._held):
            if link in self._held and self._spent.get(link, 0.0) <= self._allowance:
                self._release(link, now)
        self._stop_looking_if_idle()

    def _release(self, link: Throttled, now: float) -> None:
        self._held_seconds += max(0.0, now - self._held.pop(link))
        link.release(Hold.CPU)

    def _stop_looking_if_idle(self) -> None:
        if not self._held and self._call is not None:
            self._call.cancel()
            self._call = None


class Shares:
    """What all links of a node share.

    :param clock: in whose turns links are read.
    """

    def __init__(self, clock: Clock) -> None:
        self.answers = ByteBudget()
        self.received = ReceiveBudget()
        self.cpu = CpuShares(clock)

    def forget(self, link: Throttled) -> None:
        """Give back all that a link has, which is gone."""
        self.received.forget(link)
        self.cpu.forget(link)

    def report(self, metrics: OverlayMetrics) -> None:
        """Set the figures that say how much of it is in use, and who had to wait."""
        metrics.answers_unsent_bytes.set(self.answers.used)
        metrics.received_unprocessed_bytes.set(self.received.total)
        metrics.receive_holds.set(self.received.holds)
        metrics.cpu_holds.set(self.cpu.holds)
