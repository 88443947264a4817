"""The database of a node: what is kept, when it is written, and that no disk stops the node."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel

from stellar_overlay.error import ConfigError, DatabaseError
from stellar_overlay.store import stores as stores_module
from stellar_overlay.store.database import InlineRunner
from stellar_overlay.store.file import DatabaseFile
from stellar_overlay.store.peer_manager import BackOffUpdate, StoredPeerType
from stellar_overlay.store.stores import (
    ACKNOWLEDGE_SECONDS,
    FLUSH_SECONDS,
    MAX_EXPORTED_AT_ONCE,
    OPEN_SECONDS,
    STOP_SECONDS,
    Stores,
)
from tests.store.world import WALL, FaultyDisk, StoreTestCase, at, node

T = TypeVar("T")
INFO, CRITICAL = LogLevel.info, LogLevel.critical


class KeepingTests(StoreTestCase):
    """What is there after a restart."""

    def test_restart(self) -> None:
        """Bans, timed bans, addresses and anchors come back; P2 through the disk."""
        stores = self.opened()
        self.done(stores.bans.ban_node(node(1)))
        self.done(stores.bans.ban_node_for(node(2), 3600))
        self.done(stores.bans.ban_node_for(node(3), 5))
        stores.peers.ensure_exists(at(1))
        stores.peers.update_type(at(2), StoredPeerType.PREFERRED, False)
        stores.peers.update_backoff(at(3), BackOffUpdate.INCREASE)
        stores.set_anchors(at(number) for number in range(20))
        rows = stores.peers.get_all_peers()
        self.closed(stores)
        self.flush(10)
        again = self.opened()
        self.assertEqual(again.bans.get_bans(), sorted([node(1), node(2)]))
        self.assertEqual(again.bans.expiry_of(node(2)), WALL + 3600)
        key = str
        self.assertEqual(sorted(again.peers.get_all_peers(), key=key), sorted(rows, key=key))
        self.assertEqual(again.anchors, tuple(at(number) for number in range(4)))
        self.assertEqual(self.said(), [])

    def test_an_operators_queries(self) -> None:
        """9.1: core's tables, in core's words, while the node runs."""
        stores = self.opened()
        self.done(stores.bans.ban_node(node(1)))
        self.done(stores.bans.ban_node_for(node(2), 60))
        stores.peers.update_type(at(2), StoredPeerType.PREFERRED, False)
        stores.peers.ensure_exists(at(1))
        self.flush()
        self.assertEqual(self.query("SELECT nodeid FROM ban"), [(node(1),)])
        self.assertEqual(
            self.query("SELECT ip, port FROM peers WHERE type=2"), [(at(2).host, 11625)]
        )
        self.assertEqual(
            self.query("SELECT nextattempt, numfailures FROM peers WHERE type=0"),
            [("2027-01-15 08:00:00", 0)],
        )

    def test_acknowledged(self) -> None:
        """T35: what was acknowledged survives a kill, also the lifting of a ban."""

        def prepare(stores: Stores) -> None:
            self.done(stores.bans.ban_node(node(1)))
            self.done(stores.bans.ban_node(node(2)))
            self.done(stores.bans.unban_node(node(1)))

        self.killed(prepare)
        self.assertGreater(Path(f"{self.path}-wal").stat().st_size, 0)
        self.assertEqual(self.opened().bans.get_bans(), [node(2)])
        self.assertEqual(self.said(), [])

    def test_kill(self) -> None:
        """A kill writes nothing: what was not flushed is gone."""
        stores = self.opened()
        stores.peers.ensure_exists(at(1))
        self.flush()
        stores.peers.ensure_exists(at(2))
        stores.kill()
        stores.running = 0
        self.flush(5)
        again = self.opened()
        self.assertEqual([row.address for row in again.peers.get_all_peers()], [at(1)])

    def test_many_bans(self) -> None:
        """Each is acknowledged when the database has it; the text of them all follows."""
        stores = self.opened()
        export = Path(f"{self.path}.bans")
        for number in range(MAX_EXPORTED_AT_ONCE + 5):
            self.done(stores.bans.ban_node(node(number)))
        exported = export.read_text().count("\nG")
        self.assertEqual(exported, MAX_EXPORTED_AT_ONCE)
        (stored,) = self.query("SELECT COUNT(*) FROM ban")[0]
        self.assertEqual(stored, MAX_EXPORTED_AT_ONCE + 5)
        self.flush(1)
        self.assertEqual(export.read_text().count("\nG"), MAX_EXPORTED_AT_ONCE + 5)
        self.done(stores.bans.ban_node(node(999)))
        self.closed(stores)
        self.assertIn(node(999), export.read_text())

    def test_write_behind(self) -> None:
        """Addresses are written within a second, all in one transaction; nothing when nothing."""
        disk = FaultyDisk()
        stores = self.opened(connect=disk.connect)
        self.flush(3)
        before = disk.writes
        self.flush(3)
        self.assertEqual(disk.writes, before)
        for number in range(50):
            stores.peers.ensure_exists(at(number))
        stores.set_anchors([at(1)])
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(0,)])
        self.clock.advance(FLUSH_SECONDS)
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(50,)])
        self.assertEqual(disk.writes - before, 5)  # BEGIN, peers, anchors twice, COMMIT

    def test_bans_are_synchronous(self) -> None:
        """A ban is written with synchronous=FULL, the rest with NORMAL."""
        modes: list[tuple[str, int]] = []

        class Spy(FaultyDisk):
            def connect(self, uri: str) -> sqlite3.Connection:
                self.connection = super().connect(uri)
                return self.connection

            def write(self, sql: str) -> None:
                if sql.startswith("INSERT"):
                    mode = self.connection.execute("PRAGMA synchronous").fetchone()[0]
                    modes.append((sql.split()[-5 if "ban" in sql else 2], mode))

        stores = self.opened(connect=Spy().connect)
        modes.clear()
        self.done(stores.bans.ban_node(node(1)))
        self.assertEqual([mode for _, mode in modes], [2])
        stores.peers.ensure_exists(at(1))
        self.flush()
        self.assertEqual([mode for _, mode in modes], [2, 1])

    def test_ended_bans_leave_the_disk(self) -> None:
        """Y8: clean-up of ended bans reaches the table."""
        stores = self.opened()
        self.done(stores.bans.ban_node_for(node(1), 30))
        self.flush(62)
        self.assertEqual(self.query("SELECT * FROM timed_ban"), [])

    def test_clock_jumps(self) -> None:
        """T28: ten years ahead or back, nothing breaks, permanent bans hold, rows stay readable."""
        stores = self.opened()
        self.done(stores.bans.ban_node(node(1)))
        for self.skew in (10 * 365 * 86_400.0, -10 * 365 * 86_400.0, -1e12, 1e12):
            stores.peers.update_backoff(at(1), BackOffUpdate.INCREASE)
            self.flush(2)
            self.assertTrue(stores.bans.is_banned(node(1)))
        self.skew = 0
        self.closed(stores)
        again = self.opened()
        self.assertEqual(again.peers.peer_count, 1)
        self.assertTrue(again.peers.load(at(1)).is_ready(self.wall()))
        self.assertEqual(self.said(), [])


class SettingTests(StoreTestCase):
    """What ``database`` may be."""

    def test_memory(self) -> None:
        """None and :memory: keep nothing, and work the same."""
        for database in ("sqlite3://:memory:", ":memory:"):
            stores = self.opened(database)
            self.done(stores.bans.ban_node(node(1)))
            self.done(stores.bans.unban_node(node(1)))
            stores.peers.ensure_exists(at(1))
            self.flush(2)
            self.assertIsNone(stores.trouble)
            self.closed(stores)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_url(self) -> None:
        """A URL is the same as its path; signs that a URI cares for are none here."""
        path = self.folder / "a b%20?#c.db"
        stores = self.opened(f"sqlite3://{path}")
        self.done(stores.bans.ban_node(node(1)))
        self.closed(stores)
        self.assertEqual(self.opened(path).bans.get_bans(), [node(1)])

    def test_refused(self) -> None:
        """Other schemes, no name, no folder, no file: one line that names it."""
        (self.folder / "folder").mkdir()
        (self.folder / "text").write_text("not a folder")
        for database in (
            "postgresql://dbname=core",
            "sqlite3://",
            "a\0b",
            str(self.folder / "none" / "node.db"),
            str(self.folder / "text" / "node.db"),
            str(self.folder / "folder"),
        ):
            stores = self.stores(database)
            opening = Deferred.fromCoroutine(stores.open())
            error = self.failureResultOf(opening, ConfigError).value
            self.assertIn(database.removeprefix("sqlite3://").split("\0")[0], str(error))
            self.assertNotIn("\n", str(error))
            self.successResultOf(stores.stopService())
        self.assertEqual({path.name for path in self.folder.iterdir()}, {"folder", "text"})


class FaultTests(StoreTestCase):
    """T25: a disk that refuses."""

    def assert_recovers(self, stores: Stores, disk: FaultyDisk, bans: list[str]) -> None:
        """Assert that all is on the disk soon after it works again."""
        disk.is_broken, disk.fails_at = False, None
        self.flush(2)
        self.assertIsNone(stores.trouble)
        self.closed(stores)
        self.assertEqual(sorted(self.query("SELECT nodeid FROM ban")), [(ban,) for ban in bans])
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(2,)])
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])

    def act(self, stores: Stores) -> list[Deferred[None]]:
        stores.peers.ensure_exists(at(1))
        changes = [stores.bans.ban_node(node(1)), stores.bans.ban_node_for(node(2), 1e6)]
        self.clock.advance(1)
        stores.peers.ensure_exists(at(2))
        changes += [stores.bans.ban_node(node(3)), stores.bans.unban_node(node(1))]
        self.clock.advance(1)
        return changes

    def test_any_write_fails(self) -> None:
        """The n-th write fails, for each n: the node goes on, and nothing is lost."""
        for error in ("disk I/O error", "database or disk is full"):
            number = 0
            while True:
                number += 1
                self.path = self.folder / f"{error[:4]}{number}.db"
                disk = FaultyDisk()
                disk.error, disk.fails_at = error, number
                stores = self.opened(connect=disk.connect)
                changes = self.act(stores)
                self.assertEqual(stores.bans.get_bans(), sorted([node(2), node(3)]))
                for change in changes:
                    change.addErrback(lambda failure: failure.trap(DatabaseError))
                    self.successResultOf(change)
                if disk.writes < number:
                    break
                self.assertLessEqual(len([t for t in self.said() if error in t]), 1)
                self.assertEqual(stores.database_errors.get(), 1)
                self.assert_recovers(stores, disk, [node(3)])
            self.assertGreater(number, 20)

    def test_all_writes_fail(self) -> None:
        """From the n-th write on, all fail for a while; bans say so, and are kept later."""
        for number in range(1, 40, 3):
            self.path = self.folder / f"{number}.db"
            disk = FaultyDisk()
            disk.fails_at = number
            stores = self.opened(connect=disk.connect)
            disk.is_broken = True
            for change in self.act(stores):
                error = self.failureResultOf(change, DatabaseError).value
                self.assertRegex(str(error), "until the node is restarted, but not on disk: disk I")
                self.assertTrue(error.retriable)
            self.assert_recovers(stores, disk, [node(3)])

    def test_once_a_minute(self) -> None:
        """One warning, one more for each minute that it lasts, one line when it is over."""
        disk = FaultyDisk()
        stores = self.opened(connect=disk.connect)
        disk.is_broken = True
        stores.peers.ensure_exists(at(1))
        self.flush(1)
        self.assertEqual(len(self.said()), 1)
        self.assertIn("disk I/O error", stores.trouble or "")
        self.flush(59)
        self.assertEqual(self.said(), [])
        self.flush(2)
        (line,) = self.said()
        self.assertIn("60 failures", line)
        self.flush(120)
        self.assertEqual(len(self.said()), 2)
        self.assertEqual(stores.database_errors.get(), 182)
        disk.is_broken = False
        self.flush(2)
        self.assertRegex("\n".join(self.said(INFO)), "works again$")
        disk.is_broken = True
        stores.peers.ensure_exists(at(2))
        self.flush(1)
        self.assertEqual(self.said(), [])  # a minute has not passed

    def test_notices_are_not_repeated(self) -> None:
        """However often the file is opened anew while the disk is in trouble."""
        self.with_contents(1)
        self.script(
            "INSERT INTO peers (ip, port, nextattempt, numfailures, type)"
            " VALUES ('no ip', 1, '2027-01-15 08:00:00', 0, 0)"
        )
        disk = FaultyDisk()
        stores = self.opened(connect=disk.connect)
        disk.is_broken = True
        stores.peers.ensure_exists(at(1))
        self.flush(50)
        self.assertEqual(len([line for line in self.said() if "skipped" in line]), 1)

    def test_locked(self) -> None:
        """Another process holds the database: bans are known, and written when it lets go."""
        self.with_contents(1)
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        stores = self.opened()
        self.assertEqual(len(self.said()), 1)
        self.assertEqual(stores.trouble, "database is locked")
        self.assertEqual(stores.bans.get_bans(), [node(0)])
        change = stores.bans.ban_node(node(1))
        self.failureResultOf(change, DatabaseError)
        stores.peers.ensure_exists(at(5))
        other.execute("ROLLBACK")
        other.close()
        self.flush(1)
        self.assertIsNone(stores.trouble)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), 2)
        self.assertEqual(len(self.query("SELECT * FROM peers")), 2)

    def test_locked_against_readers(self) -> None:
        """What cannot be read is merged later; its bans are known from the export at once."""
        self.with_contents(2)
        self.script("PRAGMA journal_mode = DELETE")
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        stores = self.opened()
        self.assertEqual(stores.bans.get_bans(), sorted([node(0), node(1)]))
        self.assertEqual(stores.peers.peer_count, 0)
        self.failureResultOf(stores.bans.unban_node(node(0)), DatabaseError)
        stores.peers.store(stores.peers.load(at(7)))
        other.execute("ROLLBACK")
        other.close()
        self.flush(1)
        self.assertEqual(stores.bans.get_bans(), [node(1)])
        self.assertEqual(stores.peers.peer_count, 3)
        self.closed(stores)
        self.assertEqual(self.query("SELECT nodeid FROM ban"), [(node(1),)])
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(3,)])

    def test_read_only(self) -> None:
        """A database that cannot be written, nor opened but as immutable, is read all the same."""
        self.with_contents(2)
        Path(f"{self.path}.bans").unlink()

        class ReadOnly(FaultyDisk):
            def connect(self, uri: str) -> sqlite3.Connection:
                if "immutable" not in uri:
                    raise sqlite3.OperationalError("unable to open database file")
                return super().connect(uri)

        before = self.files()
        stores = self.opened(connect=ReadOnly().connect)
        self.assertEqual(stores.bans.get_bans(), sorted([node(0), node(1)]))
        self.assertEqual(stores.peers.peer_count, 2)
        self.assertEqual(len(self.said()), 1)
        self.failureResultOf(stores.bans.ban_node(node(9)), DatabaseError)
        self.assertEqual(self.files(), before)

    def test_removed_while_running(self) -> None:
        """Without its file, a ban is not acknowledged; then all is written anew."""
        self.with_contents(2)
        stores = self.opened()
        for name in self.folder.iterdir():
            name.unlink()
        self.failureResultOf(stores.bans.ban_node(node(2)), DatabaseError)
        self.flush(1)
        self.done(stores.bans.ban_node(node(3)))
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), 4)
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(2,)])

    def test_replaced_while_running(self) -> None:
        """Another's database in its place is left alone; the node goes on from memory."""
        self.with_contents(1)
        stores = self.opened()
        for name in self.folder.iterdir():
            name.unlink()
        self.script("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        before = self.path.read_bytes()
        self.failureResultOf(stores.bans.ban_node(node(2)), DatabaseError)
        self.flush(3)
        self.assertIn("not a database of stellar-overlay", stores.trouble or "")
        self.assertEqual(self.path.read_bytes(), before)

    def test_export_cannot_be_written(self) -> None:
        """The ban is durable in the database; the export follows when it can."""
        stores = self.opened()
        Path(f"{self.path}.bans.tmp").mkdir()
        self.done(stores.bans.ban_node(node(1)))
        self.assertIn(".bans", stores.trouble or "")
        self.assertEqual(len(self.said()), 1)
        Path(f"{self.path}.bans.tmp").rmdir()
        self.flush(1)
        self.assertIsNone(stores.trouble)
        self.assertIn(node(1), Path(f"{self.path}.bans").read_text())


class StuckRunner(InlineRunner):
    """Hangs while it is told to."""

    is_stuck = False
    is_abandoned = False

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        if not self.is_stuck:
            return super().run(work)
        result: Deferred[T] = Deferred()
        self.waiting.append(lambda: super(StuckRunner, self).run(work).chainDeferred(result))
        return result

    def go_on(self) -> None:
        """Do what was asked meanwhile."""
        self.is_stuck = False
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()

    def abandon(self) -> None:
        self.is_abandoned = True


class StuckTests(StoreTestCase):
    """A disk that does not answer."""

    def setUp(self) -> None:
        super().setUp()
        self.runner = StuckRunner()

        def runner_for(_: IReactorTime, __: DatabaseFile) -> StuckRunner:
            return self.runner

        self.patch(stores_module, "runner_for", runner_for)

    def stores(self, *args: object, **kwargs: object) -> Stores:
        stores = super().stores()
        stores._make_runner = stores_module.runner_for
        return stores

    def test_stopping(self) -> None:
        """The node stops all the same."""
        stores = self.opened()
        self.runner.is_stuck = True
        stores.peers.ensure_exists(at(1))
        stopping = stores.stopService()
        self.clock.advance(STOP_SECONDS - 0.1)
        self.assertNoResult(stopping)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertTrue(self.runner.is_abandoned)
        self.runner.go_on()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_opening(self) -> None:
        """The node starts without, and takes in what is there when the disk answers."""
        self.with_contents(2)
        self.runner.is_stuck = True
        stores = self.stores()
        opening = Deferred.fromCoroutine(stores.open())
        self.clock.advance(OPEN_SECONDS)
        self.assertIsNone(self.successResultOf(opening))
        stores.startService()
        self.addCleanup(self.closed, stores)
        self.assertIn("no answer", stores.trouble or "")
        self.runner.go_on()
        self.assertIsNone(stores.trouble)
        self.assertEqual(stores.bans.ban_count, 2)

    def test_banning(self) -> None:
        """Who bans is told after a while; the ban is written when the disk answers."""
        stores = self.opened()
        self.runner.is_stuck = True
        first, second = stores.bans.ban_node(node(1)), stores.bans.ban_node(node(2))
        self.clock.advance(ACKNOWLEDGE_SECONDS)
        for change in (first, second):
            self.failureResultOf(change, DatabaseError)
        self.flush(10)
        self.assertIn("no answer", stores.trouble or "")
        self.assertEqual(len(self.said()), 1)
        self.runner.go_on()
        self.flush(1)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), 2)
        self.assertIsNone(stores.trouble)

    def test_banning_and_stopping(self) -> None:
        """Who waits for a ban to be written is told when the node stops, and nothing is left."""
        stores = self.opened()
        self.runner.is_stuck = True
        under_way, waiting = stores.bans.ban_node(node(1)), stores.bans.ban_node(node(2))
        stopping = stores.stopService()
        self.clock.advance(STOP_SECONDS)
        self.assertIsNone(self.successResultOf(stopping))
        for change in (under_way, waiting):
            self.failureResultOf(change, DatabaseError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_after_the_other(self) -> None:
        """Bans that come while one is written share the next transaction."""
        stores = self.opened()
        self.runner.is_stuck = True
        changes = [stores.bans.ban_node(node(number)) for number in range(5)]
        self.assertEqual(len(self.runner.waiting), 1)
        self.runner.go_on()
        for change in changes:
            self.done(change)
        self.assertEqual(self.query("SELECT number FROM ban_change"), [(2,)])


class SkippingTests(StoreTestCase):
    """Rows that make no sense."""

    def test_nonsense(self) -> None:
        """Each is skipped, all are counted in one line, and the rest is served."""
        self.with_contents(1)
        rows = [
            ("'no ip'", 1, "'2027-01-15 08:00:00'", 0, 0),
            ("'8.8.8.8'", 0, "'2027-01-15 08:00:00'", 0, 0),
            ("'8.8.8.8'", 65536, "'2027-01-15 08:00:00'", 0, 0),
            ("'8.8.8.8'", 1, "'2027-01-15 08:00:00'", -1, 0),
            ("'8.8.8.8'", 2, "'2027-01-15 08:00:00'", 0, 3),
            ("'8.8.8.8'", 3, "'tomorrow'", 0, 0),
            ("'8.8.8.8'", 4, "12", 0, 0),
            ("'8.8.8.8'", 5, "'2027-13-15 08:00:00'", 0, 0),
            ("'8.8.8.8'", "'six'", "'2027-01-15 08:00:00'", 0, 0),
            ("x'ff00'", 7, "'2027-01-15 08:00:00'", 0, 0),
            ("'8.8.8.8'", 8, "'2027-01-15 08:00:00'", "'many'", 0),
        ]
        values = ", ".join(f"({', '.join(map(str, row))})" for row in rows)
        self.script(
            f"PRAGMA ignore_check_constraints = ON; INSERT INTO peers VALUES {values}"  # noqa: S608
        )
        self.script("INSERT INTO ban VALUES ('nobody'); INSERT INTO timed_ban VALUES ('G', 'x')")
        stores = self.opened()
        self.assertEqual((stores.peers.peer_count, stores.bans.ban_count), (1, 1))
        (line,) = self.said()
        self.assertIn("13 rows were skipped", line)
        self.flush(1)
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(1,)])
        self.assertFalse(list(self.folder.glob("*corrupt*")))

    def test_too_many(self) -> None:
        """Of a table beyond the cap, those that answered and failed least are taken."""
        self.with_contents(0)
        self.script(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 10999)"
            " INSERT INTO peers SELECT '8.1.' || (i / 256) || '.' || (i % 256), 11625,"
            " '2027-01-15 08:00:00', i, i % 3 FROM n"
        )
        stores = self.opened()
        self.assertEqual(stores.peers.peer_count, 10_000)
        self.assertIn("1000 rows were skipped", "".join(self.said()))
        worst = max(row.num_failures for row in stores.peers.get_all_peers() if not row.peer_type)
        self.assertLess(worst, 8100)
        self.flush(1)
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(10_000,)])
        self.assertTrue(math.isfinite(stores.peers.load(at(1)).next_attempt))
