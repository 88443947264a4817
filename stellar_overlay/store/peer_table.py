"""The table of addresses in memory: bounded, indexed, and aware of what is not on disk yet."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.store.peer_record import PeerRecord, StoredPeerType

MAX_PEERS = 10_000
"""Rows; a PEERS message is free for who sends it."""
MAX_PEERS_PER_IP = 16
"""Rows of one public IP, from which no more are taken on hearsay."""
EVICTED_AT_ONCE = 100
"""So that the scan for the worst is seldom made."""


@dataclass(frozen=True, kw_only=True)
class PeerChanges:
    """What is to be written.

    :ivar rows: the rows as they are now; None for one that is gone.
    :ivar replaces_all: not None when no other row may be left on disk.
    """

    rows: Mapping[ResolvedPeerAddress, PeerRecord | None]
    replaces_all: object | None

    def __bool__(self) -> bool:
        return bool(self.rows) or self.replaces_all is not None


class PeerTable:
    """At most :data:`MAX_PEERS` rows, each under its address.

    A change is noted until :meth:`note_written` says that it is on disk. Notes are kept by
    address; when there are too many of them, they become one: that all is to be written.
    """

    def __init__(self) -> None:
        self._rows: dict[ResolvedPeerAddress, PeerRecord] = {}
        self._by_type: dict[StoredPeerType, dict[ResolvedPeerAddress, PeerRecord]] = {
            peer_type: {} for peer_type in StoredPeerType
        }
        self._by_ip: dict[str, dict[ResolvedPeerAddress, None]] = {}
        self._failed_inbound: dict[ResolvedPeerAddress, None] = {}
        self._dirty: dict[ResolvedPeerAddress, None] = {}
        self._replaces_all: object | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[PeerRecord]:
        return iter(self._rows.values())

    def get(self, address: ResolvedPeerAddress) -> PeerRecord | None:
        """Return the row of ``address``, or None."""
        return self._rows.get(address)

    def of_type(self, peer_type: StoredPeerType) -> Iterable[PeerRecord]:
        """Return the rows of one type."""
        return self._by_type[peer_type].values()

    def of_ip(self, ip: str) -> list[PeerRecord]:
        """Return the rows of one IP, all ports."""
        return [self._rows[address] for address in self._by_ip.get(ip, ())]

    def put(self, record: PeerRecord) -> bool:
        """Insert or replace a row; False when there is no room for a new one."""
        old = self._rows.get(record.address)
        if old == record:
            return True
        if old is None and not self._make_room(record):
            return False
        self._link(record, old)
        self._touch(record.address)
        return True

    def remove(self, address: ResolvedPeerAddress) -> None:
        """Delete the row of ``address``, if there is one."""
        record = self._rows.pop(address, None)
        if record is None:
            return
        del self._by_type[record.peer_type][address]
        self._failed_inbound.pop(address, None)
        of_ip = self._by_ip[address.host]
        del of_ip[address]
        if not of_ip:
            del self._by_ip[address.host]
        self._touch(address)

    def clear(self) -> None:
        """Delete all, also what is on disk and was never read."""
        for rows in (self._rows, *self._by_type.values()):
            rows.clear()
        self._by_ip.clear()
        self._failed_inbound.clear()
        self._replace_all()

    def merge(self, stored: Iterable[PeerRecord], *, is_all: bool = True) -> None:
        """Take in what is on disk; what memory has, or has removed, is newer.

        :param is_all: whether ``stored`` is all that is there; if not, the rest is to go.
        """
        on_disk = {record.address: record for record in stored}
        if self._replaces_all is None:
            for address, record in on_disk.items():
                is_known = address in self._rows or address in self._dirty
                if not is_known and len(self._rows) < MAX_PEERS:
                    self._link(record, None)
        for address in self._rows.keys() | on_disk.keys():
            if self._rows.get(address) != on_disk.get(address):
                self._touch(address)
        if not is_all:
            self._replace_all()

    @property
    def has_changes(self) -> bool:
        """Whether anything is not on disk."""
        return bool(self._dirty) or self._replaces_all is not None

    def changes(self) -> PeerChanges:
        """Return what is not on disk."""
        rows: dict[ResolvedPeerAddress, PeerRecord | None]
        rows = {address: self._rows.get(address) for address in self._dirty}
        if self._replaces_all is not None:
            rows |= self._rows
        return PeerChanges(rows=rows, replaces_all=self._replaces_all)

    def note_written(self, changes: PeerChanges) -> None:
        """Note that ``changes`` are on disk; what changed meanwhile is still to be written."""
        if self._replaces_all is changes.replaces_all:
            self._replaces_all = None
        for address, record in changes.rows.items():
            if self._rows.get(address) is record:
                self._dirty.pop(address, None)

    def _link(self, record: PeerRecord, old: PeerRecord | None) -> None:
        address = record.address
        if old is not None and old.peer_type is not record.peer_type:
            del self._by_type[old.peer_type][address]
        self._rows[address] = self._by_type[record.peer_type][address] = record
        self._by_ip.setdefault(address.host, {})[address] = None
        if record.peer_type is StoredPeerType.INBOUND and record.num_failures:
            self._failed_inbound[address] = None
        else:
            self._failed_inbound.pop(address, None)

    def _touch(self, address: ResolvedPeerAddress) -> None:
        self._dirty[address] = None
        if len(self._dirty) > 2 * MAX_PEERS:
            self._replace_all()

    def _replace_all(self) -> None:
        self._dirty.clear()
        self._replaces_all = object()

    def _make_room(self, record: PeerRecord) -> bool:
        is_hearsay = record.peer_type is StoredPeerType.INBOUND
        if is_hearsay and not record.address.is_private:
            of_ip = self.of_ip(record.address.host)
            if len(of_ip) >= MAX_PEERS_PER_IP and not self._evict(
                (row for row in of_ip if row.address in self._failed_inbound), 1
            ):
                return False
        if len(self._rows) < MAX_PEERS:
            return True
        failed = (self._rows[address] for address in self._failed_inbound)
        if self._evict(failed, EVICTED_AT_ONCE):
            return True
        if is_hearsay:
            return False
        # Whoever answered us, or is configured, is worth more than any hearsay.
        oldest = next(iter(self._by_type[StoredPeerType.INBOUND].values()), None)
        if oldest is not None:
            return self._evict([oldest], 1)
        return self._evict(self._by_type[StoredPeerType.OUTBOUND].values(), EVICTED_AT_ONCE)

    def _evict(self, rows: Iterable[PeerRecord], count: int) -> bool:
        worst = heapq.nlargest(count, rows, key=lambda row: row.num_failures)
        for row in worst:
            self.remove(row.address)
        return bool(worst)
