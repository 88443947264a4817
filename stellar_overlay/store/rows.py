"""Rows and values: what the tables hold, and what of it makes sense."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import InvalidKey, InvalidPeerAddress
from stellar_overlay.identity import PeerId
from stellar_overlay.store.ban_manager import FOR_GOOD, MAX_BANS, BanChanges
from stellar_overlay.store.peer_record import PeerRecord, StoredPeerType
from stellar_overlay.store.peer_table import MAX_PEERS, PeerChanges

MAX_ANCHORS = 4
"""Peers that are kept to be dialled first after a restart."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)

_PEER_COLUMNS = "ip, port, nextattempt, numfailures, type"
_READ_BANS = "SELECT nodeid, NULL FROM ban LIMIT ?", MAX_BANS
_READ_TIMED_BANS = "SELECT nodeid, expires FROM timed_ban LIMIT ?", MAX_BANS
_READ_PEERS = (  # of too many rows the best
    f"SELECT {_PEER_COLUMNS} FROM peers ORDER BY type DESC, numfailures LIMIT ?",  # noqa: S608
    MAX_PEERS,
)
_READ_ANCHORS = "SELECT ip, port FROM anchor ORDER BY position LIMIT ?", MAX_ANCHORS
_WRITE_PEER = (
    "INSERT INTO peers (ip, port, nextattempt, numfailures, type) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (ip, port) DO UPDATE SET nextattempt = excluded.nextattempt,"
    " numfailures = excluded.numfailures, type = excluded.type"
)

Row = tuple[Any, ...]
Query = tuple[str, int]
"""With the greatest number of rows."""


@dataclass(kw_only=True)
class Contents:
    """What a database holds.

    :ivar bans: when each ends, in Unix seconds.
    :ivar change: how many changes of bans there were.
    :ivar skipped: rows that make no sense, or are too many.
    :ivar skipped_peers: those of them that are in ``peers``.
    """

    bans: dict[str, float] = field(default_factory=dict)
    peers: dict[ResolvedPeerAddress, PeerRecord] = field(default_factory=dict)
    anchors: tuple[ResolvedPeerAddress, ...] = ()
    change: int = 0
    skipped: int = 0
    skipped_peers: int = 0

    def add_bans(self, bans: Mapping[str, float]) -> None:
        """Take in more bans; the stronger holds."""
        for node_id, expiry in bans.items():
            self.bans[node_id] = max(expiry, self.bans.get(node_id, expiry))

    def add(self, older: Contents) -> None:
        """Take in what an older state of the same database held."""
        self.add_bans(older.bans)
        self.peers = older.peers | self.peers
        self.anchors = self.anchors or older.anchors
        self.change = max(self.change, older.change)

    def take_ban(self, row: Row) -> None:
        """Add a row ``(nodeid, expires)``, if it makes sense."""
        node_id, expires = row
        try:
            expiry = FOR_GOOD if expires is None else float(expires)
            self.add_bans({str(PeerId.from_strkey(node_id)): expiry})
        except (InvalidKey, ValueError, TypeError):
            self.skipped += 1

    def take_peer(self, row: Row) -> None:
        """Add a row of ``peers``, if it makes sense."""
        try:
            record = _peer_of(row)
        except (InvalidPeerAddress, ValueError, TypeError):
            self.skipped += 1
            self.skipped_peers += 1
        else:
            self.peers.setdefault(record.address, record)

    def take_anchor(self, row: Row) -> None:
        """Add a row ``(ip, port)``, if it makes sense."""
        try:
            address = ResolvedPeerAddress(_text(row[0]), _number(row[1]))
        except (InvalidPeerAddress, ValueError):
            self.skipped += 1
        else:
            self.anchors = tuple(dict.fromkeys((*self.anchors, address)))[:MAX_ANCHORS]


def read(connection: sqlite3.Connection, version: int) -> Contents:
    """Return what a database of this schema version holds.

    :raises sqlite3.Error: when it cannot be read.
    """
    contents = Contents()
    for (query, limit), take in _queries(contents, version):
        for row in connection.execute(query, (limit,)):
            take(row)
    if version:
        counted = connection.execute("SELECT count(*) FROM peers").fetchone()[0]
        surplus = max(0, counted - MAX_PEERS)
        contents.skipped += surplus
        contents.skipped_peers += surplus
    if version > 1:
        contents.change = _read_change(connection)
    return contents


def salvage(connection: sqlite3.Connection, contents: Contents) -> bool:
    """Add to ``contents`` whatever can still be read; tell whether that is all."""
    is_whole = True
    tables = {
        "ban": ("nodeid, NULL", contents.take_ban, MAX_BANS),
        "timed_ban": ("nodeid, expires", contents.take_ban, MAX_BANS),
        "peers": (_PEER_COLUMNS, contents.take_peer, MAX_PEERS),
        "anchor": ("ip, port", contents.take_anchor, MAX_ANCHORS),
    }
    for table, (columns, take, limit) in tables.items():
        for order in ("", "DESC"):  # up to the damage, then from the other end
            query = f"SELECT {columns} FROM {table} ORDER BY rowid {order} LIMIT {limit}"  # noqa: S608
            try:
                for row in connection.execute(query):
                    take(row)
                break
            except sqlite3.Error:
                is_whole = False
    try:
        contents.change = max(contents.change, _read_change(connection))
    except sqlite3.Error:
        is_whole = False
    return is_whole


def write_bans(connection: sqlite3.Connection, changes: BanChanges) -> None:
    """Write bans, and count the change; within a transaction."""
    for node_id, expiry in changes.items():
        if expiry == FOR_GOOD:
            connection.execute("INSERT OR IGNORE INTO ban (nodeid) VALUES (?)", (node_id,))
        else:
            connection.execute("DELETE FROM ban WHERE nodeid = ?", (node_id,))
        if expiry is None or expiry == FOR_GOOD:
            connection.execute("DELETE FROM timed_ban WHERE nodeid = ?", (node_id,))
        else:
            connection.execute(
                "INSERT OR REPLACE INTO timed_ban (nodeid, expires) VALUES (?, ?)",
                (node_id, expiry),
            )
    connection.execute("UPDATE ban_change SET number = number + 1")


def read_bans(connection: sqlite3.Connection) -> Contents:
    """Return the bans of a database, and which change it has seen."""
    contents = Contents(change=_read_change(connection))
    for query, limit in (_READ_BANS, _READ_TIMED_BANS):
        for row in connection.execute(query, (limit,)):
            contents.take_ban(row)
    return contents


def set_change(connection: sqlite3.Connection, change: int) -> None:
    """Make the database as new as ``change``."""
    connection.execute("UPDATE ban_change SET number = max(number, ?)", (change,))


def write_peers(
    connection: sqlite3.Connection,
    changes: PeerChanges,
    anchors: Iterable[ResolvedPeerAddress] | None,
) -> None:
    """Write addresses; within a transaction.

    :param anchors: None when they are to stay as they are.
    """
    if changes.replaces_all is not None:
        connection.execute("DELETE FROM peers")
    gone = [(at.host, at.port) for at, record in changes.rows.items() if record is None]
    kept = [_row_of(record) for record in changes.rows.values() if record is not None]
    if gone:
        connection.executemany("DELETE FROM peers WHERE ip = ? AND port = ?", gone)
    if kept:
        connection.executemany(_WRITE_PEER, kept)
    if anchors is not None:
        connection.execute("DELETE FROM anchor")
        connection.executemany(
            "INSERT INTO anchor (position, ip, port) VALUES (?, ?, ?)",
            [(position, at.host, at.port) for position, at in enumerate(anchors)],
        )


def _queries(contents: Contents, version: int) -> list[tuple[Query, Callable[[Row], None]]]:
    queries: list[list[tuple[Query, Callable[[Row], None]]]] = [
        [(_READ_BANS, contents.take_ban), (_READ_PEERS, contents.take_peer)],
        [(_READ_TIMED_BANS, contents.take_ban), (_READ_ANCHORS, contents.take_anchor)],
    ]
    return [query for of_version in queries[:version] for query in of_version]


def _read_change(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT max(number) FROM ban_change").fetchone()[0] or 0)


def _peer_of(row: Row) -> PeerRecord:
    ip, port, next_attempt, failures, peer_type = row
    if not _TIME.fullmatch(_text(next_attempt)):
        raise ValueError(f"{next_attempt!r} is not a time")
    due = datetime.fromisoformat(next_attempt).replace(tzinfo=UTC)
    return PeerRecord(
        address=ResolvedPeerAddress(_text(ip), _number(port)),
        next_attempt=int(due.timestamp()),
        num_failures=_number(failures),
        peer_type=StoredPeerType(_number(peer_type)),
    )


def _row_of(record: PeerRecord) -> Row:
    due = datetime.fromtimestamp(record.next_attempt, UTC).strftime("%Y-%m-%d %H:%M:%S")
    address = record.address
    return address.host, address.port, due, record.num_failures, int(record.peer_type)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a number")
    return value
