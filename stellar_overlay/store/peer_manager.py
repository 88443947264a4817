"""The addresses that we know of: when to dial which, and which to tell others."""

from __future__ import annotations

import random as random_module
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.store.peer_record import (
    MAX_BACKOFF_EXPONENT,
    MAX_BACKOFF_SECONDS,
    MAX_FAILURES_TO_DIAL,
    MAX_UNIX_SECONDS,
    REALLY_DEAD_FAILURES,
    SECONDS_PER_BACKOFF,
    BackOffUpdate,
    PeerQuery,
    PeerRecord,
    StoredPeerType,
)
from stellar_overlay.store.peer_table import MAX_PEERS, MAX_PEERS_PER_IP, PeerTable

__all__ = [
    "BATCH_SIZE",
    "MAX_FAILURES_TO_DIAL",
    "MAX_PEERS",
    "MAX_PEERS_PER_IP",
    "BackOffUpdate",
    "PeerManager",
    "PeerQuery",
    "PeerRecord",
    "RandomPeerSource",
    "StoredPeerType",
]

BATCH_SIZE = 1000
"""Addresses that a source loads at once (core RandomPeerSource.cpp)."""

INBOUND, OUTBOUND, PREFERRED = StoredPeerType

Accept = Callable[[ResolvedPeerAddress], bool]


class PeerManager:
    """All rows of core's table ``peers``, in memory; usable alone.

    :ivar table: the rows; whoever keeps them on disk takes its changes from there.
    :param wall_clock: returns Unix seconds.
    """

    def __init__(
        self,
        *,
        wall_clock: Callable[[], float] = time.time,
        random: random_module.Random | None = None,
    ) -> None:
        self.table = PeerTable()
        self._wall_clock = wall_clock
        self._random = random or random_module.Random()  # noqa: S311 - no secret
        self._sources_to_send = (
            RandomPeerSource(self, PeerQuery.to_send(OUTBOUND, PREFERRED)),
            RandomPeerSource(self, PeerQuery.to_send(INBOUND)),
        )

    @property
    def peer_count(self) -> int:
        """How many addresses are known."""
        return len(self.table)

    def ensure_exists(self, address: ResolvedPeerAddress) -> bool:
        """Remember an address that was heard of, if there is room; tell whether it is known."""
        return self.table.put(self.load(address))

    def load(self, address: ResolvedPeerAddress) -> PeerRecord:
        """Return the row of ``address``; for one that is unknown what it would be: due now."""
        known = self.table.get(address)
        return known or PeerRecord(address=address, next_attempt=self._wall_now())

    def store(self, record: PeerRecord) -> bool:
        """Insert or replace a row; False when there is no room for a new one."""
        return self.table.put(record)

    def update_type(
        self, address: ResolvedPeerAddress, observed: StoredPeerType, preferred_known: bool
    ) -> None:
        """Note how an address was met (connection.md 9.4).

        :param preferred_known: whether ``observed`` would say so if it were preferred.
        """
        record = self.load(address)
        peer_type = _next_type(record.peer_type, observed, preferred_known)
        self.table.put(replace(record, peer_type=peer_type))

    def update_backoff(self, address: ResolvedPeerAddress, update: BackOffUpdate) -> None:
        """Count failures and put the next attempt off (connection.md 9.2)."""
        failures, wait = 0, 0
        record = self.load(address)
        if update is BackOffUpdate.INCREASE:
            failures = record.num_failures + 1
        if update is not BackOffUpdate.HARD_RESET:
            span = SECONDS_PER_BACKOFF * 2 ** min(failures, MAX_BACKOFF_EXPONENT)
            wait = 1 + self._random.getrandbits(32) % span
        due = self._wall_now() + wait
        self.table.put(replace(record, num_failures=failures, next_attempt=due))

    def restore_backoff(self, record: PeerRecord) -> None:
        """Undo what a dial cost: failures and next attempt as in ``record``, the type as it is."""
        known = self.table.get(record.address) or record
        self.table.put(replace(record, peer_type=known.peer_type))

    def load_random_peers(self, query: PeerQuery, size: int) -> list[ResolvedPeerAddress]:
        """Return at most ``size`` addresses: neighbours in the table, shuffled."""
        now = self._wall_clock()
        found = [
            record.address
            for peer_type in sorted(query.types)
            for record in self.table.of_type(peer_type)
            if query.matches(record, now)
        ]
        offset = self._random.randint(0, max(0, len(found) - size))
        batch = found[offset : offset + size]
        self._random.shuffle(batch)
        return batch

    def seconds_to_wait(self, address: ResolvedPeerAddress) -> float:
        """Return how long ``address`` is not to be dialled yet; 0 when it is due."""
        return self.load(address).seconds_to_wait(self._wall_clock())

    def forget_dead_peers(self, ip: str | None = None) -> int:
        """Delete the rows that nobody hopes for any more, of one IP or of all (9.3)."""
        return self.remove_peers_with_many_failures(REALLY_DEAD_FAILURES, ip)

    def remove_peers_with_many_failures(self, min_failures: int, ip: str | None = None) -> int:
        """Delete rows that failed so often, of one IP or of all; return how many (9.3)."""
        rows = self.table.of_ip(ip) if ip is not None else self.table
        doomed = [row.address for row in rows if row.num_failures >= min_failures]
        for address in doomed:
            self.table.remove(address)
        return len(doomed)

    def get_peers_to_send(self, size: int, accept: Accept) -> list[ResolvedPeerAddress]:
        """Return what to tell a caller: first who answered us, then hearsay (9.6).

        IPv4 only; all else that must not be told is for ``accept`` to refuse.
        """
        chosen: dict[ResolvedPeerAddress, None] = {}

        def is_wanted(address: ResolvedPeerAddress) -> bool:
            return ":" not in address.host and address not in chosen and accept(address)

        for source in self._sources_to_send:
            missing = size - len(chosen)
            if missing > 0:
                chosen |= dict.fromkeys(source.get_random_peers(missing, is_wanted))
        return list(chosen)

    def get_all_peers(self) -> list[PeerRecord]:
        """Return all rows."""
        return list(self.table)

    def clear_all(self) -> None:
        """Forget all addresses."""
        self.table.clear()

    def _wall_now(self) -> int:
        latest = MAX_UNIX_SECONDS - MAX_BACKOFF_SECONDS
        return int(min(max(self._wall_clock(), 0), latest))


class RandomPeerSource:
    """Addresses in random order, loaded in batches (core RandomPeerSource.cpp).

    What is cached may be stale: whoever asks says what it accepts.
    """

    def __init__(self, peer_manager: PeerManager, query: PeerQuery) -> None:
        self._peer_manager = peer_manager
        self._query = query
        self._cache: deque[ResolvedPeerAddress] = deque()

    def get_random_peers(self, count: int, accept: Accept) -> list[ResolvedPeerAddress]:
        """Return at most ``count`` addresses; what is looked at is not offered again (9.5)."""
        if len(self._cache) < count:
            batch = self._peer_manager.load_random_peers(self._query, max(count, BATCH_SIZE))
            self._cache = deque(batch)
        chosen: list[ResolvedPeerAddress] = []
        while self._cache and len(chosen) < count:
            address = self._cache.popleft()
            if accept(address):
                chosen.append(address)
        return chosen


def _next_type(
    current: StoredPeerType, observed: StoredPeerType, preferred_known: bool
) -> StoredPeerType:
    if observed is PREFERRED:
        return PREFERRED
    if current is not PREFERRED:
        return max(current, observed)
    if observed is OUTBOUND and not preferred_known:
        return PREFERRED
    return OUTBOUND
