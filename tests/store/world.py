"""A node's stores on a simulated clock and a real file, with disks that fail on request."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

from stellar_sdk import StrKey
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.store.connecting import Connect
from stellar_overlay.store.connecting import connect as real_connect
from stellar_overlay.store.stores import Stores

WALL = 1_800_000_000.0
"""When all tests begin, in Unix seconds."""


@cache
def node(number: int) -> str:
    """Return the strkey of a node."""
    return str(StrKey.encode_ed25519_public_key(number.to_bytes(32, "big")))


def at(number: int, port: int = 11625) -> ResolvedPeerAddress:
    """Return a public address."""
    return ResolvedPeerAddress(f"8.{number >> 16}.{number >> 8 & 255}.{number & 255}", port)


def impatient(uri: str) -> sqlite3.Connection:
    """Open a database without waiting for locks."""
    return real_connect(uri, 0)


class FaultyDisk:
    """Opens databases whose n-th write fails, or all of them from then on.

    :ivar writes: how many writes there were.
    """

    KINDS = ("INSERT", "DELETE", "UPDATE", "CREATE", "COMMIT", "PRAGMA application_id", "BEGIN")

    def __init__(self) -> None:
        self.writes = 0
        self.fails_at: int | None = None
        self.is_broken = False
        self.error = "disk I/O error"

    def connect(self, uri: str) -> sqlite3.Connection:
        return cast(sqlite3.Connection, FaultyConnection(impatient(uri), self))

    def write(self, sql: str) -> None:
        """Note a statement; raise when it is the one to fail."""
        if not sql.lstrip().startswith(self.KINDS):
            return
        self.writes += 1
        if self.is_broken or self.writes == self.fails_at:
            raise sqlite3.OperationalError(self.error)


class FaultyConnection:
    """A connection to a :class:`FaultyDisk`."""

    def __init__(self, connection: sqlite3.Connection, disk: FaultyDisk) -> None:
        self._connection = connection
        self._disk = disk

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self._disk.write(sql)
        return self._connection.execute(sql, *args)

    def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
        self._disk.write(sql)
        return self._connection.executemany(sql, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class StoreTestCase(SynchronousTestCase):
    """Opens stores, looks into their files, and hears what they tell the operator."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "node.db"
        self.skew = 0.0
        self.events: list[LogEvent] = []

        @implementer(ILogObserver)
        def hear(event: LogEvent) -> None:
            self.events.append(event)

        globalLogPublisher.addObserver(hear)
        self.addCleanup(globalLogPublisher.removeObserver, hear)

    def wall(self) -> float:
        return WALL + self.clock.seconds() + self.skew

    def stores(self, database: str | Path | None = None, *, connect: Connect = impatient) -> Stores:
        """Return stores that are not open yet."""
        return Stores(
            str(database or self.path),
            self.clock,
            wall_clock=self.wall,
            random=random.Random(7),
            connect=connect,
        )

    def opened(self, database: str | Path | None = None, *, connect: Connect = impatient) -> Stores:
        """Return stores that run."""
        stores = self.stores(database, connect=connect)
        self.successResultOf(Deferred.fromCoroutine(stores.open()))
        stores.startService()
        self.addCleanup(self.closed, stores)
        return stores

    def closed(self, stores: Stores) -> None:
        if stores.running:
            self.successResultOf(stores.stopService())

    def flush(self, seconds: int = 1) -> None:
        """Let seconds pass."""
        for _ in range(seconds):
            self.clock.advance(1)

    def done(self, change: Deferred[None]) -> None:
        """Assert that a change is durable."""
        self.assertIsNone(self.successResultOf(change))

    def query(self, sql: str, path: str | Path | None = None) -> list[Any]:
        """Ask what an operator asks."""
        connection = sqlite3.connect(path or self.path)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def script(self, sql: str, path: str | Path | None = None) -> None:
        """Do to a file what an operator should not."""
        connection = sqlite3.connect(path or self.path)
        connection.executescript(sql)
        connection.close()

    def said(self, level: LogLevel = LogLevel.warn) -> list[str]:
        """Return and forget the lines of one level."""
        lines = [formatEvent(event) for event in self.events if event["log_level"] is level]
        self.events.clear()
        return lines

    def files(self) -> dict[str, tuple[bytes, int]]:
        """Return everything in the folder: bytes and time of change."""
        return {
            name.name: (name.read_bytes(), os.stat(name).st_mtime_ns)
            for name in self.folder.iterdir()
        }

    def with_contents(self, count: int = 3) -> None:
        """Leave a database with some bans and peers, cleanly closed."""
        stores = self.opened()
        for number in range(count):
            self.done(stores.bans.ban_node(node(number)))
            stores.peers.ensure_exists(at(number))
        self.closed(stores)
        self.events.clear()

    def killed(self, prepare: Callable[[Stores], None]) -> None:
        """Leave a database as a kill does: with a log that was not replayed."""
        stores = self.opened()
        prepare(stores)
        files = {
            end: Path(f"{self.path}{end}").read_bytes()
            for end in ("", "-wal")
            if Path(f"{self.path}{end}").exists()
        }
        export = Path(f"{self.path}.bans").read_bytes()
        stores.kill()
        stores.running = 0
        for name in self.folder.iterdir():
            name.unlink()
        for end, data in files.items():
            Path(f"{self.path}{end}").write_bytes(data)
        Path(f"{self.path}.bans").write_bytes(export)
        self.events.clear()
