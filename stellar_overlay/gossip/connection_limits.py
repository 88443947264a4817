"""How many links of each kind there may be, once settings and the system have had their say."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

MIN_INBOUND_FACTOR = 3
"""Who takes in little may go out little: at most a third as much, and so many more (core
OverlayManager.h)."""
MAX_CONNECTIONS = 65535
"""Of all kinds, however many files may be open."""


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """How many links of each kind there may be.

    :ivar target_outbound: up to so many are opened unasked.
    :ivar max_outbound: up to so many stay, those that an operator asked for included.
    :ivar warnings: what :meth:`of` made lower than it was set, and why: one line each.
    """

    target_outbound: int
    max_outbound: int
    max_inbound: int
    max_outbound_pending: int
    max_inbound_pending: int
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def of(
        cls,
        *,
        target_outbound: int,
        max_outbound: int,
        max_inbound: int,
        max_pending: int,
        max_files: int | None,
    ) -> ConnectionLimits:
        """Work out the limits (core Config.cpp:2216-2347, connection.md 8.1).

        The pending slots are shared as the directions were before the number of files cut them;
        a limit that is set to 0 stays 0.

        :param max_files: how many the process may have open; None when nobody limits them.
        """
        asked = _Slots(target_outbound, max_outbound, max_inbound, max_pending)
        fair = asked.balanced()
        handles = MAX_CONNECTIONS
        if max_files is not None:
            handles = min(handles, max_files * 3 // 4)
        fitting = fair.within(handles)
        share = _scaled(fitting.pending, fair.outbound, fair.outbound + fair.inbound)
        outbound_pending = max(1, share)
        return cls(
            target_outbound=fitting.target,
            max_outbound=fitting.outbound,
            max_inbound=fitting.inbound,
            max_outbound_pending=outbound_pending,
            max_inbound_pending=max(1, fitting.pending - outbound_pending),
            warnings=(
                *fair.lowered_from(
                    asked,
                    f"at most a third of MAX_ADDITIONAL_PEER_CONNECTIONS ({max_inbound})"
                    f" plus {MIN_INBOUND_FACTOR}",
                ),
                *fitting.lowered_from(fair, _why_no_more(handles, max_files)),
            ),
        )


@dataclass(frozen=True)
class _Slots:
    target: int
    outbound: int
    inbound: int
    pending: int

    def balanced(self) -> _Slots:
        """Return what remains when no more goes out than what comes in entitles to.

        An outbound limit that was the target follows it down; one that was set apart stays.
        """
        target = min(self.target, self.inbound // MIN_INBOUND_FACTOR + MIN_INBOUND_FACTOR)
        outbound = target if self.outbound == self.target else self.outbound
        return replace(self, target=target, outbound=outbound)

    def within(self, handles: int) -> _Slots:
        """Return what remains of so many connections: pending ones go first, then all alike."""
        authenticated = self.outbound + self.inbound
        total = authenticated + self.pending
        if total <= handles:
            return self
        if authenticated < handles:
            return replace(self, pending=handles - authenticated)
        outbound = _at_least_one(self.outbound, handles, total)
        inbound = _at_least_one(self.inbound, handles, total)
        return _Slots(
            target=min(self.target, outbound),
            outbound=outbound,
            inbound=inbound,
            pending=max(1, handles - outbound - inbound),
        )

    def lowered_from(self, before: _Slots, why: str) -> list[str]:
        """Return a line for each setting that was higher before."""
        rows = [
            ("TARGET_PEER_CONNECTIONS", before.target, self.target),
            ("MAX_OUTBOUND_CONNECTIONS", before.outbound, self.outbound),
            ("MAX_ADDITIONAL_PEER_CONNECTIONS", before.inbound, self.inbound),
            ("MAX_PENDING_CONNECTIONS", before.pending, self.pending),
        ]
        if (before.target, self.target) == (before.outbound, self.outbound):
            del rows[1]  # it was not set, and follows the target
        return [f"{key} lowered from {old} to {new}: {why}" for key, old, new in rows if new != old]


def _at_least_one(limit: int, handles: int, total: int) -> int:
    return max(1, _scaled(limit, handles, total)) if limit else 0


def _scaled(number: int, part: int, whole: int) -> int:
    """Return number * part / whole, rounded up."""
    return -(-number * part // max(1, whole))


def _why_no_more(handles: int, max_files: int | None) -> str:
    if max_files is None or handles == MAX_CONNECTIONS:
        return f"at most {MAX_CONNECTIONS} connections in all"
    return (
        f"at most {handles} connections in all, three quarters of the {max_files} files"
        " that may be open"
    )
