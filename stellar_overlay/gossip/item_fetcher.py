"""Items that envelopes name and that we lack: asked of one peer after the other (messages.md 3)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum

from stellar_overlay.gossip.tracker import (
    MS_TO_WAIT_FOR_FETCH_REPLY,
    Anycast,
    QuestionPace,
    Tracker,
    Waiter,
)
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock, Link, Random
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, encode_hash_query

MAX_TRACKERS = 512
"""Items looked for at a time (DECISIONS.md 11); core has no limit."""
MAX_WAITERS = 1000
"""Who may wait for one item; core has no limit."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Bytes of envelopes that wait, over all items; one that waits for two counts twice."""

QUESTIONS_PER_MINUTE = 25
"""Of one kind, to one peer: some builds of core answer no more (DECISIONS.md 14)."""
_PINGS_PER_MINUTE = 13
"""One each 5 s is up to so many: pings are questions for quorum sets as well (messages.md 4.2)."""


class ItemType(Enum):
    """What is fetched."""

    TX_SET = "tx-set"
    QUORUM_SET = "quorum-set"

    @property
    def question(self) -> MessageType:
        """The type of the message that asks for one."""
        return MessageType.GET_TX_SET if self is ItemType.TX_SET else MessageType.GET_SCP_QUORUMSET

    @property
    def questions_per_minute(self) -> int:
        """How often one peer may be asked for such an item."""
        pings = 0 if self is ItemType.TX_SET else _PINGS_PER_MINUTE
        return QUESTIONS_PER_MINUTE - pings


@dataclass(frozen=True, kw_only=True)
class ItemFetcherStats:
    """What is looked for at present.

    :ivar total_waiting_envelopes: all who wait, applications included.
    :ivar oldest_fetch_duration: seconds; None when nothing is looked for.
    """

    item_type: ItemType
    num_trackers: int
    total_waiting_envelopes: int
    oldest_fetch_duration: float | None


class ItemFetcher:
    """Finds items of one type: one search for each, many who wait for it.

    A search ends when its item comes, or when nobody waits any more; it never gives up.

    :param links: all authenticated peers, as they are at any time.
    :param knows: returns who has, or was sent, the SCP_MESSAGE with that body.
    :param max_trackers: how many items may be looked for at a time; 0 for no limit.
    :param questions_per_minute: how often one peer may be asked; None for what peers of all
        builds answer.
    """

    def __init__(
        self,
        item_type: ItemType,
        *,
        links: Mapping[PeerId, Link],
        knows: Callable[[bytes], Collection[PeerId]],
        clock: Clock,
        random: Random,
        metrics: OverlayMetrics | None = None,
        max_trackers: int = MAX_TRACKERS,
        max_waiters: int = MAX_WAITERS,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        questions_per_minute: int | None = None,
    ) -> None:
        if questions_per_minute is None:
            questions_per_minute = item_type.questions_per_minute
        self._item_type = item_type
        self._clock = clock
        self._metrics = OverlayMetrics() if metrics is None else metrics
        self._max_trackers = max_trackers
        self._max_waiters = max_waiters
        self._max_waiting_bytes = max_waiting_bytes
        self._anycast = Anycast(links, knows, clock, random, QuestionPace(questions_per_minute))
        self._trackers: dict[bytes, Tracker] = {}
        self._delivering: list[Tracker] = []
        self._waiting_bytes = 0
        self._looked_again_at = float("-inf")
        self._is_shut_down = False

    # Who wants what.

    def fetch(self, item_hash: bytes, waiter: Waiter) -> bool:
        """Let somebody wait for an item, and ask for it at once if it is not looked for yet.

        An equal waiter waits but once. False, and no waiting, when there is no room: that is
        counted as ``item_fetcher_tracker_cap_reached``; or after :meth:`shutdown`.

        :param item_hash: 32 bytes.
        """
        if len(item_hash) != 32:
            raise ValueError(f"an item's hash has 32 bytes, not {len(item_hash)}")
        if self._is_shut_down:
            return False
        tracker = self._trackers.get(item_hash)
        if not self._has_room(tracker, waiter):
            self._metrics.item_fetcher_tracker_cap_reached.inc()
            return False
        if tracker is not None:
            if tracker.listen(waiter):
                self._waiting_bytes += waiter.size
            return True
        tracker = self._trackers[item_hash] = self._track(item_hash)
        tracker.listen(waiter)
        self._waiting_bytes += waiter.size
        tracker.try_next_peer()
        return True

    def stop_fetch(self, item_hash: bytes, waiter: Waiter) -> None:
        """Let somebody wait no more: the item is not delivered to it after this.

        When nobody is left, it is not looked for any more (core forgets it at the next purge
        only, and a fetch before that asks nobody).
        """
        for delivering in self._delivering:
            if delivering.item_hash == item_hash:
                delivering.discard(waiter)
        tracker = self._trackers.get(item_hash)
        if tracker is not None and tracker.discard(waiter):
            self._waiting_bytes -= waiter.size
            if tracker.is_empty:
                self._end(tracker)

    def stop_fetching_outside_range(
        self, min_slot: int | None, max_slot: int | None, keep: int
    ) -> None:
        """Let nobody wait on behalf of other slots than these and ``keep``.

        :param min_slot: the first that stays; None for no such bound.
        :param max_slot: the last one, likewise.
        """
        for tracker in list(self._trackers.values()):
            before = tracker.waiting_bytes
            is_wanted = tracker.clear_envelopes_outside_range(min_slot, max_slot, keep)
            self._waiting_bytes += tracker.waiting_bytes - before
            if not is_wanted:
                self._end(tracker)

    def clear(self) -> None:
        """Look for nothing any more, and deliver nothing of what was looked for."""
        for tracker in list(self._trackers.values()):
            self._end(tracker)
        for tracker in self._delivering:
            while not tracker.is_empty:
                tracker.pop()

    def shutdown(self) -> None:
        """Look for nothing any more, nor ever again."""
        self._is_shut_down = True
        self.clear()

    # What peers say.

    def recv(self, item_hash: bytes, message: Message) -> int | None:
        """Deliver an item to all who wait for it, who came last first; return how many they were.

        None, and nothing happens, when nobody wants it. It is not looked for any more before it
        is delivered, so whoever gets it may fetch it again. Where ``deliver`` raises, the others
        get the item all the same; then the first exception goes on to the caller.
        """
        tracker = self._trackers.get(item_hash)
        if tracker is None:
            return None
        timer = (
            self._metrics.fetch_tx_set
            if self._item_type is ItemType.TX_SET
            else self._metrics.fetch_quorum_set
        )
        timer.record(tracker.get_duration())
        self._anycast.note_found(item_hash)
        self._end(tracker)
        self._delivering.append(tracker)
        try:
            return _deliver_all(tracker, message)
        finally:
            self._delivering.remove(tracker)

    def doesnt_have(self, item_hash: bytes, peer_id: PeerId) -> None:
        """Ask the next peer at once, if it is this one's answer that is awaited."""
        tracker = self._trackers.get(item_hash)
        if tracker is not None:
            tracker.doesnt_have(peer_id)

    def peers_changed(self) -> None:
        """Note that a peer was authenticated: what could be asked of nobody is asked of it now.

        Core does nothing then. Looked into once in 1.5 s at most, as each time costs all
        searches; those that found nobody look again as often by themselves.
        """
        now = self._clock.seconds()
        pause = MS_TO_WAIT_FOR_FETCH_REPLY / 1000
        if not self._anycast.has_peers or now - self._looked_again_at < pause:
            return
        self._looked_again_at = now
        for tracker in list(self._trackers.values()):
            if tracker.has_found_nobody:
                tracker.try_next_peer()

    # What is looked for.

    @property
    def num_trackers(self) -> int:
        """How many items are looked for."""
        return len(self._trackers)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the envelopes that wait."""
        return self._waiting_bytes

    def is_tracking(self, item_hash: bytes) -> bool:
        """Tell whether anybody wants an item."""
        return item_hash in self._trackers

    def get_last_seen_slot_index(self, item_hash: bytes) -> int:
        """Return the greatest slot that wants an item; 0 when none does."""
        tracker = self._trackers.get(item_hash)
        return 0 if tracker is None else tracker.last_seen_slot_index

    def fetching_for(self, item_hash: bytes) -> list[bytes]:
        """Return the envelopes that need an item, the newest last."""
        tracker = self._trackers.get(item_hash)
        return [] if tracker is None else tracker.waiting_envelopes

    def get_waiting_time(self, item_hash: bytes) -> float | None:
        """Return for how many seconds an item has been looked for; None when it is not."""
        tracker = self._trackers.get(item_hash)
        return None if tracker is None else tracker.get_duration()

    def get_stats(self) -> ItemFetcherStats:
        """Return what is looked for at present."""
        oldest = next(iter(self._trackers.values()), None)  # they stand in the order they began
        return ItemFetcherStats(
            item_type=self._item_type,
            num_trackers=len(self._trackers),
            total_waiting_envelopes=sum(map(len, self._trackers.values())),
            oldest_fetch_duration=None if oldest is None else oldest.get_duration(),
        )

    def _has_room(self, tracker: Tracker | None, waiter: Waiter) -> bool:
        if tracker is None:
            if 0 < self._max_trackers <= len(self._trackers):
                return False
        elif waiter in tracker:
            return True
        elif len(tracker) >= self._max_waiters:
            return False
        return self._waiting_bytes + waiter.size <= self._max_waiting_bytes

    def _track(self, item_hash: bytes) -> Tracker:
        return Tracker(
            item_hash,
            Message(encode_hash_query(self._item_type.question, item_hash)),
            anycast=self._anycast,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _end(self, tracker: Tracker) -> None:
        del self._trackers[tracker.item_hash]
        self._waiting_bytes -= tracker.waiting_bytes
        tracker.cancel()


def _deliver_all(tracker: Tracker, message: Message) -> int:
    count = 0
    failure: Exception | None = None
    while not tracker.is_empty:
        count += 1
        try:
            tracker.pop().deliver(message)
        except Exception as error:
            if failure is None:
                failure = error
    if failure is not None:
        raise failure
    return count
