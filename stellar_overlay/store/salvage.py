"""What becomes of a damaged database: copied aside, read as far as it can be, built anew."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from glob import escape, glob

from stellar_overlay.store import rows
from stellar_overlay.store.ban_export import sync_folder
from stellar_overlay.store.connecting import IMMUTABLE, Connect, uri_of
from stellar_overlay.store.header import files_of, is_ours
from stellar_overlay.store.peer_table import PeerChanges
from stellar_overlay.store.schema import APPLICATION_ID, Transaction, upgrade

MAX_COPIES = 10
"""Of one database; with more, it is the disk that must be looked at."""
_DAMAGE_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DAMAGE_TEXTS = ("malformed", "not a database", "no such table", "no such column")


class Damaged(sqlite3.DatabaseError):
    """The database is ours, but what it holds cannot be relied on."""


def is_damage(error: BaseException) -> bool:
    """Tell whether an error means that the file is damaged, not that it cannot be reached."""
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _DAMAGE_CODES:
        return True
    return isinstance(error, Damaged) or any(text in str(error) for text in _DAMAGE_TEXTS)


def copy_aside(path: str, wall_now: float) -> str:
    """Copy a database with its logs; return where to.

    :raises OSError: when that failed; nothing is left behind.
    """
    copies = {re.sub("-(wal|journal)$", "", name) for name in glob(f"{escape(path)}.corrupt-*")}
    if len(copies) >= MAX_COPIES:
        raise OSError(f"there are {MAX_COPIES} copies {path}.corrupt-… already")
    stamp = datetime.fromtimestamp(wall_now, UTC).strftime("%Y%m%dT%H%M%S")
    target, number = f"{path}.corrupt-{stamp}", 1
    while glob(f"{escape(target)}*"):
        target, number = f"{path}.corrupt-{stamp}.{number}", number + 1
    made = []
    try:
        for file in files_of(path):
            made.append(target + str(file).removeprefix(path))
            shutil.copy2(file, made[-1])
            sync_file(made[-1])
        sync_folder(target)
    except OSError:
        for name in made:
            with suppress(OSError):
                os.unlink(name)
        raise
    return target


def read_damaged(path: str, connect: Connect, *, may_write: bool) -> rows.Contents:
    """Return whatever can be read of a database; never fails.

    :param may_write: whether SQLite may replay the log, which changes the files.
    """
    contents, is_whole = rows.Contents(), False
    without_log, _ = _read_in_mode(path, connect, IMMUTABLE)
    if may_write:
        contents, is_whole = _read_in_mode(path, connect, "mode=rw")
    if not is_whole:
        contents.add(without_log)
    return contents


def _read_in_mode(path: str, connect: Connect, mode: str) -> tuple[rows.Contents, bool]:
    contents, is_whole = rows.Contents(), False
    with suppress(sqlite3.Error), closing(connect(uri_of(path, mode))) as connection:
        # With another's log it would be another's database.
        if connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
            is_whole = rows.salvage(connection, contents)
    return contents, is_whole


def rebuild(path: str, contents: rows.Contents, connect: Connect) -> None:
    """Replace a database by a new one that holds ``contents``.

    :raises sqlite3.Error: as well as :exc:`OSError`, when that failed; the old one is still there.
    """
    temporary = f"{path}.rebuilding"
    _unlink(temporary)
    _unlink(f"{temporary}-journal")
    try:
        with closing(connect(uri_of(temporary, "mode=rwc"))) as connection:
            _fill(connection, contents)
        if os.path.exists(path):
            shutil.copymode(path, temporary)
        sync_file(temporary)
        os.replace(temporary, _rebuilt(path))
    except (sqlite3.Error, OSError):
        with suppress(OSError):
            _unlink(temporary)
        raise
    finish_rebuild(path)


def finish_rebuild(path: str) -> None:
    """Put a rebuilt database in its place, if there is one: also after a kill in between.

    The logs of the old one go first: SQLite would replay them into the new one.
    """
    if not is_ours(_rebuilt(path)):
        return
    sync_folder(path)
    for end in ("-wal", "-shm", "-journal"):
        _unlink(path + end)
    os.replace(_rebuilt(path), path)
    sync_folder(path)


def _rebuilt(path: str) -> str:
    return f"{path}.rebuilt"


def _fill(connection: sqlite3.Connection, contents: rows.Contents) -> None:
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    upgrade(connection, lambda _: None)
    peers = PeerChanges(rows=contents.peers, replaces_all=None)
    with Transaction(connection):
        rows.write_bans(connection, contents.bans)
        rows.write_peers(connection, peers, contents.anchors)
        rows.set_change(connection, contents.change + 1)


def sync_file(path: str) -> None:
    """Make what is in a file durable."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
