"""Questions for what we are fetching ourselves, from peers who heard of it through us.

We pass an SCP message on before we have what it names, so that others ask us early. They are not
turned away at once: the item is on its way, as a rule, and they would ask those who are no nearer
to it. Who was told that we do not have it yet gets it nevertheless when it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.gossip.item_fetcher import MAX_TRACKERS
from stellar_overlay.gossip.tracker import MS_TO_WAIT_FOR_FETCH_REPLY
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock, DelayedCall

MAX_ASKERS = 100
"""Peers that may wait for one item."""
PATIENCE_SECONDS = MS_TO_WAIT_FOR_FETCH_REPLY / 1000 / 3
"""How long an item may take: who asks waits three times as long before it asks another."""
MAX_HANDED_OUT = 1000


@dataclass(slots=True, eq=False)
class _Early:
    """Who asked for one item; ``waiting`` has no answer yet."""

    askers: dict[PeerId, None] = field(default_factory=dict)
    waiting: dict[PeerId, None] = field(default_factory=dict)
    timer: DelayedCall | None = None


class EarlyQuestions:
    """The early questions for items of one kind.

    :param deny: tells a peer that we do not have an item: its time is over.
    """

    def __init__(self, clock: Clock, deny: Callable[[bytes, PeerId], None]) -> None:
        self._clock = clock
        self._deny = deny
        self._items: dict[bytes, _Early] = {}
        self._handed_out: BoundedDict[tuple[bytes, PeerId], float] = BoundedDict(MAX_HANDED_OUT)

    def note(self, item_hash: bytes, peer_id: PeerId) -> bool:
        """Let a peer wait for an item; False when there is no room for it, or it waited before."""
        early = self._items.get(item_hash)
        if early is None:
            if len(self._items) >= MAX_TRACKERS and not self._forget_one():
                return False
            early = self._items[item_hash] = _Early()
        if peer_id in early.askers or len(early.askers) >= MAX_ASKERS:
            return False
        early.askers[peer_id] = early.waiting[peer_id] = None
        if early.timer is None:
            early.timer = self._clock.callLater(PATIENCE_SECONDS, self._give_up, item_hash)
        return True

    def take(self, item_hash: bytes) -> list[PeerId]:
        """Return who asked for an item that has come, and forget them.

        Of those who were turned away it is remembered: their next question may be under way.
        """
        early = self._items.pop(item_hash, None)
        if early is None:
            return []
        _cancel(early)
        for peer_id in early.askers:
            if peer_id not in early.waiting:
                self._handed_out.put((item_hash, peer_id), self._clock.seconds())
        return list(early.askers)

    def drop(self, item_hash: bytes) -> None:
        """Turn away who waits for an item that nobody shall have."""
        if item_hash in self._items:
            self._give_up(item_hash)
            del self._items[item_hash]

    def has_crossed(self, item_hash: bytes, peer_id: PeerId) -> bool:
        """Tell whether a question crossed with the item itself; the next one will not have."""
        at = self._handed_out.pop((item_hash, peer_id))
        patience = MS_TO_WAIT_FOR_FETCH_REPLY / 1000
        return at is not None and self._clock.seconds() - at < patience

    def keep_only(self, is_wanted: Callable[[bytes], bool]) -> None:
        """Turn away who waits for what is not fetched any more."""
        for item_hash in [item_hash for item_hash in self._items if not is_wanted(item_hash)]:
            self.drop(item_hash)

    def forget(self, peer_id: PeerId) -> None:
        """Note that a peer's link ended: a new one begins anew."""
        for early in self._items.values():
            early.askers.pop(peer_id, None)
            early.waiting.pop(peer_id, None)
        for key in [key for key in self._handed_out if key[1] == peer_id]:
            self._handed_out.pop(key)

    def shutdown(self) -> None:
        """Forget everybody."""
        for early in self._items.values():
            _cancel(early)
        self._items.clear()

    def _forget_one(self) -> bool:
        """Make room: of the items whose askers are all turned away, the oldest goes."""
        for item_hash, early in self._items.items():
            if not early.waiting:
                del self._items[item_hash]
                return True
        return False

    def _give_up(self, item_hash: bytes) -> None:
        early = self._items[item_hash]
        _cancel(early)
        waiting, early.waiting = early.waiting, {}
        for peer_id in waiting:
            self._deny(item_hash, peer_id)


def _cancel(early: _Early) -> None:
    if early.timer is not None and early.timer.active():
        early.timer.cancel()
    early.timer = None
