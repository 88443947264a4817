"""Who is banned: for good or for a while, by node id, connected or not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.defer import Deferred, succeed

from stellar_overlay.error import OverlayError
from stellar_overlay.identity import PeerId

MAX_BANS = 100_000
MAX_BAN_SECONDS = 100 * 366 * 86_400
"""About a hundred years; what is to last longer is for good."""
FOR_GOOD = math.inf
"""The expiry of a ban that has none."""

BanChanges = Mapping[str, float | None]
"""What is to be written, by node id: when the ban ends, :data:`FOR_GOOD`, or None for no ban."""


class BanWriter(Protocol):
    """Where bans are kept."""

    def write_bans(self) -> Deferred[None]:
        """Write what :meth:`BanManager.changes` returns; fires when it is durable.

        Fails with :exc:`~stellar_overlay.error.DatabaseError` when it is not.
        """
        ...


class BanManager:
    """All bans, in memory; usable alone, without a ``writer``.

    A change has effect at once. The Deferred that a change returns fires when it is on disk, or
    fails with :exc:`~stellar_overlay.error.DatabaseError`: then it is in force until the node is
    restarted, and writing it is tried again.

    :param wall_clock: returns Unix seconds.
    """

    def __init__(
        self,
        writer: BanWriter | None = None,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._wall_clock = wall_clock
        self._bans: dict[str, float] = {}
        self._dirty: set[str] = set()
        self._lifted: set[str] = set()
        """Of the dirty, those whose ban on disk, if there is one, counts no more."""

    def is_banned(self, node_id: str) -> bool:
        """Tell whether ``node_id`` (G…) is banned; never waits."""
        expiry = self._bans.get(node_id)
        return expiry is not None and expiry > self._wall_clock()

    def ban_node(self, node_id: str) -> Deferred[None]:
        """Ban a node for good.

        :raises InvalidKey: when ``node_id`` is none.
        :raises OverlayError: when there are too many bans.
        """
        return self._ban(node_id, FOR_GOOD)

    def ban_node_for(self, node_id: str, seconds: float) -> Deferred[None]:
        """Ban a node for a while; a ban that lasts longer stays as it is.

        :raises InvalidKey: when ``node_id`` is none.
        :raises OverlayError: when there are too many bans, or ``seconds`` is no time.
        :raises TypeError: when ``seconds`` is no number.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"seconds must be a number, not {type(seconds).__name__}")
        if not 0 < seconds <= MAX_BAN_SECONDS:
            raise OverlayError(f"a ban of {seconds} s: must be above 0, at most {MAX_BAN_SECONDS}")
        return self._ban(node_id, self._wall_clock() + seconds)

    def unban_node(self, node_id: str) -> Deferred[None]:
        """Lift the ban of a node, if there is one.

        :raises InvalidKey: when ``node_id`` is none.
        :raises OverlayError: when too many changes wait for the disk; the ban is not lifted then.
        """
        node_id = str(PeerId.from_strkey(node_id))
        if len(self._dirty) >= 2 * MAX_BANS:
            raise OverlayError("too many changes of bans wait for the disk")
        self._bans.pop(node_id, None)
        if self._writer is None:
            return succeed(None)
        self._lifted.add(node_id)  # also without a ban: the disk may not have been read yet
        return self._changed(node_id)

    def get_bans(self) -> list[str]:
        """Return the banned nodes (G…), sorted."""
        now = self._wall_clock()
        return sorted(node_id for node_id, expiry in self._bans.items() if expiry > now)

    @property
    def ban_count(self) -> int:
        """How many nodes are banned."""
        now = self._wall_clock()
        return sum(expiry > now for expiry in self._bans.values())

    def expiry_of(self, node_id: str) -> float | None:
        """Return when the ban of a node ends, in Unix seconds; None for never, or no ban."""
        expiry = self._bans.get(node_id, FOR_GOOD)
        return None if expiry == FOR_GOOD else expiry

    def cleanup_expired_bans(self) -> int:
        """Forget the bans that have ended; return how many."""
        now = self._wall_clock()
        ended = [node_id for node_id, expiry in self._bans.items() if expiry <= now]
        for node_id in ended:
            del self._bans[node_id]
        if self._writer is not None:
            self._dirty.update(ended)
        return len(ended)

    def merge(self, stored: Mapping[str, float]) -> None:
        """Take in what is on disk: the stronger ban holds, a ban that was lifted is gone."""
        for node_id, expiry in stored.items():
            if node_id not in self._lifted:
                self._bans[node_id] = max(expiry, self._bans.get(node_id, expiry))
        for node_id in self._bans.keys() | stored.keys():
            if self._bans.get(node_id) != stored.get(node_id):
                self._dirty.add(node_id)

    def adopt(self, rescued: Mapping[str, float]) -> None:
        """Take in bans that ought to be on disk, and are not."""
        for node_id, expiry in rescued.items():
            if node_id not in self._lifted and self._bans.get(node_id, 0) < expiry:
                self._bans[node_id] = expiry
                self._dirty.add(node_id)

    def snapshot(self) -> dict[str, float]:
        """Return all bans with their expiries, also those that have ended."""
        return dict(self._bans)

    @property
    def has_changes(self) -> bool:
        """Whether anything is not on disk."""
        return bool(self._dirty)

    def changes(self) -> BanChanges:
        """Return what is not on disk."""
        return {node_id: self._bans.get(node_id) for node_id in self._dirty}

    def note_written(self, changes: BanChanges) -> None:
        """Note that ``changes`` are on disk; what changed meanwhile is still to be written."""
        for node_id, expiry in changes.items():
            if self._bans.get(node_id) == expiry:
                self._dirty.discard(node_id)
                self._lifted.discard(node_id)

    def _ban(self, node_id: str, expiry: float) -> Deferred[None]:
        node_id = str(PeerId.from_strkey(node_id))
        known = self._bans.get(node_id)
        if known is None and len(self._bans) >= MAX_BANS:
            self.cleanup_expired_bans()
            if len(self._bans) >= MAX_BANS:
                raise OverlayError(f"there are {MAX_BANS} bans already, and no room for more")
        if known is not None and known >= expiry and node_id not in self._dirty:
            return succeed(None)
        self._bans[node_id] = expiry if known is None else max(known, expiry)
        return self._changed(node_id)

    def _changed(self, node_id: str) -> Deferred[None]:
        if self._writer is None:
            return succeed(None)
        self._dirty.add(node_id)
        return self._writer.write_bans()
