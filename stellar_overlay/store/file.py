"""One database file: opened whatever its state, written to, repaired. All of it blocks.

Used by one thread at a time, that of a :class:`~stellar_overlay.store.database.Runner`.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.store import ban_export, rows, salvage
from stellar_overlay.store.ban_export import ExportedBans
from stellar_overlay.store.ban_manager import BanChanges
from stellar_overlay.store.connecting import IMMUTABLE, Connect, uri_of
from stellar_overlay.store.header import examine, is_ours
from stellar_overlay.store.peer_table import PeerChanges
from stellar_overlay.store.rows import Contents
from stellar_overlay.store.salvage import Damaged, is_damage
from stellar_overlay.store.schema import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    Transaction,
    upgrade,
    version_of,
)


@dataclass(kw_only=True)
class Opened:
    """What came of opening.

    :ivar contents: what is on disk; None when it could not be read, or not again.
    :ivar rescued: bans that are in the export only, and belong into the database.
    :ivar problem: why nothing can be written; empty when it can.
    :ivar export_problem: why the export could not be written.
    :ivar notices: what happened to the file, for the operator.
    """

    contents: Contents | None = None
    rescued: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""
    export_problem: str = ""
    notices: list[str] = field(default_factory=list)


class DatabaseFile:
    """The file at ``path``, which is absolute.

    :param connect: opens a URI; tests give one that fails.
    """

    def __init__(self, path: str, *, connect: Connect, wall_clock: Callable[[], float]) -> None:
        self.path = path
        self._connect = connect
        self._wall_clock = wall_clock
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._change = 0
        self._copy: str | None = None
        """Made for a repair that was not finished yet."""
        self._was_read = False

    def open(self) -> Opened:
        """Make the database ready, and read it.

        :raises ConfigError: when the file is not for us; it was not touched.
        """
        self.close()
        exported: ExportedBans | None = None
        opened = Opened()
        with suppress(OSError):
            exported = ban_export.read_export(self.path)
        try:
            if exported is not None or is_ours(self.path) or not os.path.exists(self.path):
                salvage.finish_rebuild(self.path)
            state = examine(self.path, is_vouched_for=exported is not None)
            if state.damage:
                opened = self._repair(state.damage, exported)
            else:
                self._open_sound(opened, exists=state.exists)
        except (sqlite3.Error, OSError) as error:
            self.close()
            if is_damage(error):
                opened = self._repair(str(error), exported)
            else:
                opened.problem = _text_of(error)
                self._read_at_least(opened, error)
        self._compare(opened, exported)
        self._was_read = self._was_read or opened.contents is not None
        return opened

    def write_bans(self, changes: BanChanges) -> None:
        """Write bans; they are durable when this returns.

        :raises sqlite3.Error: as well as :exc:`OSError`, when nothing was written.
        """
        connection = self._ready()
        connection.execute("PRAGMA synchronous = FULL")
        with Transaction(connection):
            rows.set_change(connection, self._change)
            rows.write_bans(connection, changes)
        connection.execute("PRAGMA synchronous = NORMAL")

    def write_peers(
        self, changes: PeerChanges, anchors: tuple[ResolvedPeerAddress, ...] | None
    ) -> None:
        """Write addresses, in one transaction.

        :raises sqlite3.Error: as well as :exc:`OSError`, when nothing was written.
        """
        connection = self._ready()
        with Transaction(connection):
            rows.write_peers(connection, changes, anchors)

    def write_export(self) -> str:
        """Write the bans that are in the database as text; return what went wrong."""
        try:
            contents = rows.read_bans(self._ready())
            self._change = max(self._change, contents.change)
            exported = ExportedBans(change=contents.change, bans=contents.bans)
            ban_export.write_export(self.path, exported)
        except (sqlite3.Error, OSError) as error:
            return f"{ban_export.export_path(self.path)}: {_text_of(error)}"
        return ""

    def rebuild(self, reason: str, truth: Contents) -> Opened:
        """Repair a database that turned out to be damaged; memory knows what was in it."""
        self.close()
        exported: ExportedBans | None = None
        with suppress(OSError):
            exported = ban_export.read_export(self.path)
        return self._repair(reason, exported, truth)

    def close(self) -> None:
        """Close the database, if it is open; never fails."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def forget(self) -> None:
        """Leave everything as it is, as if the process had ended here."""
        if self._connection is not None:
            _FORGOTTEN.append(self._connection)
        self._connection = None

    def commit(self) -> None:
        """Do nothing: each work commits by itself. For adbapi, as :meth:`rollback` is."""

    def rollback(self) -> None:
        """Undo what a work left unfinished."""
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None:
            raise OSError("the database is not open")
        if _identity_of(self.path) != self._identity:
            raise OSError("the file was removed or replaced while in use")
        return self._connection

    def _open_sound(self, opened: Opened, *, exists: bool) -> None:
        """Open what looks like a database of ours, or nothing yet."""
        mode = "mode=rw" if exists else "mode=rwc"
        connection = self._connection = self._connect(uri_of(self.path, mode))
        if self._was_read and exists:
            _check_writable(connection)  # before all is read again in vain
        _check(connection)
        opened.contents = rows.read(connection, version_of(connection))
        if not exists:
            # In the file itself, before there is a log that alone would hold it.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode = WAL")
        upgrade(connection, lambda version: self._copy_before_upgrade(connection, version))
        connection.execute("PRAGMA synchronous = NORMAL")
        _check_writable(connection)
        if not exists:
            ban_export.sync_folder(self.path)
        self._identity = _identity_of(self.path)
        self._change = max(self._change, opened.contents.change)
        self._copy = None

    def _copy_before_upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        if not version:
            return
        target = f"{self.path}.before-upgrade-to-{SCHEMA_VERSION}"
        temporary = f"{target}.tmp"
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        with closing(sqlite3.connect(temporary)) as copy:
            connection.backup(copy)
        salvage.sync_file(temporary)
        os.replace(temporary, target)

    def _read_at_least(self, opened: Opened, error: Exception) -> None:
        """Read what cannot be written."""
        if opened.contents is not None or self._was_read or not os.path.exists(self.path):
            return
        # Who has locked it may be writing; without the lock we would read half of that.
        modes = ("mode=ro",) if _is_busy(error) else ("mode=ro", IMMUTABLE)
        for mode in modes:
            with (
                suppress(sqlite3.Error),
                closing(self._connect(uri_of(self.path, mode))) as connection,
            ):
                opened.contents = rows.read(connection, version_of(connection))
                return

    def _compare(self, opened: Opened, exported: ExportedBans | None) -> None:
        """Take bans from the export if it is newer; write it if it is older, or says otherwise.

        It says otherwise when an operator has changed the table while no node ran.
        """
        if opened.contents is None and self._was_read:
            return
        change = opened.contents.change if opened.contents is not None else -1
        if exported is not None and exported.change > change:
            known = opened.contents.bans if opened.contents is not None else {}
            opened.rescued = {
                node_id: expiry
                for node_id, expiry in exported.bans.items()
                if known.get(node_id, 0) < expiry
            }
            self._change = max(self._change, exported.change)
            if opened.rescued and opened.contents is not None:
                opened.notices.append(
                    f"{len(opened.rescued)} bans were taken from"
                    f" {ban_export.export_path(self.path)}, which is newer than the database"
                )
        elif opened.contents is not None and not opened.problem:
            on_disk = ExportedBans(change=change, bans=opened.contents.bans)
            if exported != on_disk:
                opened.export_problem = self.write_export()

    def _repair(
        self, reason: str, exported: ExportedBans | None, truth: Contents | None = None
    ) -> Opened:
        opened = Opened(contents=truth)
        try:
            if self._copy is None:
                self._copy = salvage.copy_aside(self.path, self._wall_clock())
            if truth is None:
                opened.contents = self._salvaged(exported, may_write=True)
            assert opened.contents is not None
            opened.contents.change = max(opened.contents.change, self._change) + 1
            salvage.rebuild(self.path, opened.contents, self._connect)
            saved = opened.contents
            opened.notices.append(
                f"it was damaged ({reason}) and was built anew; {self._copy} is what it was;"
                f" {len(saved.bans)} bans and {len(saved.peers)} peers were saved"
            )
            self._open_sound(opened, exists=True)
        except (sqlite3.Error, OSError) as error:
            self.close()
            opened.problem = f"it is damaged ({reason}) and cannot be repaired: {_text_of(error)}"
            if opened.contents is None:
                opened.contents = self._salvaged(exported, may_write=False)
        return opened

    def _salvaged(self, exported: ExportedBans | None, *, may_write: bool) -> Contents:
        contents = salvage.read_damaged(self.path, self._connect, may_write=may_write)
        if exported is not None:
            contents.add_bans(exported.bans)
            contents.change = max(contents.change, exported.change)
        return contents


_FORGOTTEN: list[sqlite3.Connection] = []
"""Closing one, which happens when nothing refers to it, would write."""


def _check(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA ignore_check_constraints = ON")  # such rows are skipped, not damage
    found = connection.execute("PRAGMA quick_check(1)").fetchone()
    connection.execute("PRAGMA ignore_check_constraints = OFF")
    if found == ("ok",):
        return
    text = " ".join(str(found[0]).split())[:200] if found else "no answer"
    code = re.search(r"error code=(\d+)", text)
    if code is not None and int(code[1]) & 0xFF == sqlite3.SQLITE_IOERR:
        raise sqlite3.OperationalError(text)  # a disk that could not be read, not a damaged file
    raise Damaged(text)


def _check_writable(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def _is_busy(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "locked" in str(error)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _identity_of(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
