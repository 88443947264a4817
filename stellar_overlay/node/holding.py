"""Who holds messages, and a warning when somebody does so for too long.

A message that is held keeps its sender's credit. That is meant to slow senders down, not to stop
them: those without credit for 60 s leave (connection.md 7), so the warning comes before.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from stellar_overlay.interfaces import Clock, DelayedCall

WARN_AFTER_SECONDS = 30
"""How long a message may be held before there is a warning: half of what its sender bears."""
WARN_AGAIN_SECONDS = 60
"""The least time between two warnings about one holder."""


class Claim:
    """A message that is free again when the last of its holders lets go.

    :param size: of its body, in bytes.
    :ivar freed: fires then.
    """

    __slots__ = ("_holders", "freed", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.freed: Deferred[None] = Deferred()
        self._holders = 0

    def hold(self) -> None:
        """Count one more holder."""
        self._holders += 1

    def let_go(self) -> None:
        """Count one less."""
        self._holders -= 1
        if not self._holders:
            self.freed.callback(None)


class Holder:
    """One who may hold messages.

    :ivar held: since when each is held, the oldest first.
    :ivar stuck_since: since when the oldest was held of which it was warned; None while it flows.
    :ivar may_warn_at: when the next warning is allowed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.held: OrderedDict[Claim, float] = OrderedDict()
        self.stuck_since: float | None = None
        self.may_warn_at = -math.inf

    @property
    def oldest(self) -> float:
        """Since when it holds what it has held longest; infinity if it holds nothing."""
        return next(iter(self.held.values()), math.inf)


class Holders:
    """All who hold something, watched by one timer, which exists only while somebody does.

    :param clock: None warns of nobody.
    """

    _log = Logger()

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._holders: dict[Holder, None] = {}
        self._timer: DelayedCall | None = None

    def hold(self, holder: Holder, claim: Claim) -> None:
        """Let ``holder`` hold a message; once all of its holders do, :meth:`watch` them."""
        claim.hold()
        holder.held[claim] = 0.0 if self._clock is None else self._clock.seconds()
        self._holders[holder] = None

    def let_go(self, holder: Holder, claim: Claim) -> None:
        """End that; nothing happens if ``holder`` has let go already."""
        if holder.held.pop(claim, None) is not None:
            self._note_less(holder)
            claim.let_go()

    def let_go_of_all(self, holder: Holder) -> None:
        """Let ``holder`` hold nothing."""
        held, holder.held = holder.held, OrderedDict()
        if held:
            self._note_less(holder)
            for claim in held:
                claim.let_go()

    def watch(self) -> None:
        """Look after those who hold something, if that is not done already.

        Who is done before the message was shown to all thus costs no timer.
        """
        if self._timer is None and self._holders and self._clock is not None:
            self._timer = self._clock.callLater(WARN_AFTER_SECONDS, self._look)

    def _note_less(self, holder: Holder) -> None:
        if not holder.held:
            del self._holders[holder]
            if not self._holders:
                self._end_timer()
        if holder.stuck_since is not None and self._clock is not None:
            now = self._clock.seconds()
            if now - holder.oldest < WARN_AFTER_SECONDS:
                seconds = round(now - holder.stuck_since)
                holder.stuck_since = None
                self._log.info(
                    "{holder} is no longer stuck, after {seconds} s",
                    holder=holder.name,
                    seconds=seconds,
                )

    def _end_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _look(self) -> None:
        """Warn of those who are due, and look again when the next may be.

        Who begins to hold after this look is due 30 s after it at the earliest.
        """
        assert self._clock is not None
        now = self._clock.seconds()
        next_look = now + WARN_AFTER_SECONDS
        for holder in list(self._holders):
            due = max(holder.oldest + WARN_AFTER_SECONDS, holder.may_warn_at)
            if due <= now:
                self._warn(holder, now)
                due = holder.may_warn_at
            next_look = min(next_look, due)
        self._end_timer()
        if self._holders:
            self._timer = self._clock.callLater(next_look - now, self._look)

    def _warn(self, holder: Holder, now: float) -> None:
        if holder.stuck_since is None:
            holder.stuck_since = holder.oldest
        holder.may_warn_at = now + WARN_AGAIN_SECONDS
        self._log.warn(
            "{holder} is stuck with {count} message(s), {size} bytes, the oldest for {seconds} s:"
            " the senders wait",
            holder=holder.name,
            count=len(holder.held),
            size=sum(claim.size for claim in holder.held),
            seconds=round(now - holder.oldest),
        )
