"""T25: a database of ours that is damaged, and files that are not ours at all."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred

from stellar_overlay.error import ConfigError, DatabaseError
from stellar_overlay.store import salvage
from stellar_overlay.store.ban_export import FIRST_LINE
from stellar_overlay.store.schema import APPLICATION_ID, SCHEMA_VERSION, steps
from stellar_overlay.store.stores import Stores
from tests.store.world import FaultyConnection, FaultyDisk, StoreTestCase, at, impatient, node

BANS = 30


class DamageTests(StoreTestCase):
    """Copied aside first, then salvaged and built anew; no ban is lost."""

    def prepare(self, stores: Stores) -> None:
        for number in range(BANS):
            self.done(stores.bans.ban_node(node(number)))
        for number in range(2000):
            stores.peers.ensure_exists(at(number))
        stores.set_anchors([at(1)])
        self.flush(1)

    def damaged(self, offset: int, data: bytes, *, end: str = "") -> None:
        """Overwrite a part of the database, or of a file beside it."""
        with Path(f"{self.path}{end}").open("r+b") as file:
            file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
            file.write(data)

    def clean(self) -> int:
        """Leave a large database that was closed; return its size."""
        stores = self.opened()
        self.prepare(stores)
        self.closed(stores)
        self.events.clear()
        return self.path.stat().st_size

    def copies(self) -> list[Path]:
        return sorted(self.folder.glob("node.db.corrupt-*"))

    def assert_rebuilt(self, *, min_peers: int = 0) -> Stores:
        """Assert that the node opens it, keeps every ban, and has kept what was there."""
        before = self.path.read_bytes() if self.path.exists() else None
        log = Path(f"{self.path}-wal")
        log_before = log.read_bytes() if log.exists() else None
        stores = self.opened()
        self.assertEqual(stores.bans.get_bans(), sorted(node(number) for number in range(BANS)))
        self.assertGreaterEqual(stores.peers.peer_count, min_peers)
        (line,) = self.said()
        copy = next(path for path in self.copies() if not path.name.endswith("-wal"))
        self.assertRegex(copy.name, r"^node\.db\.corrupt-20270115T0800\d\d$")
        for word in (str(copy), f"{BANS} bans", f"{stores.peers.peer_count} peers"):
            self.assertIn(word, line)
        self.assertEqual(copy.read_bytes(), before)
        if log_before is not None:
            self.assertEqual(Path(f"{copy}-wal").read_bytes(), log_before)
        self.done(stores.bans.ban_node(node(99)))
        self.flush(1)
        self.assertIsNone(stores.trouble)
        self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), BANS + 1)
        self.closed(stores)
        again = self.opened()
        self.assertEqual(again.bans.ban_count, BANS + 1)
        self.assertEqual(again.peers.peer_count, stores.peers.peer_count)
        self.assertEqual(self.said(), [])
        return again

    def test_garbage_in_the_middle(self) -> None:
        """Rows before and behind the damage are saved."""
        size = self.clean()
        self.damaged(size // 2 // 4096 * 4096, bytes(range(256)) * 16)
        self.assert_rebuilt(min_peers=100)

    def test_truncated(self) -> None:
        """Half of the file is gone."""
        size = self.clean()
        os.truncate(self.path, size // 2)
        self.assert_rebuilt()

    def test_truncated_within_the_header(self) -> None:
        """Nearly all of the file is gone."""
        self.clean()
        os.truncate(self.path, 60)
        self.assert_rebuilt()

    def test_garbage_header(self) -> None:
        """The mark is gone; the export tells that it is ours, and what was banned."""
        self.clean()
        self.damaged(0, b"\xa5" * 100)
        self.assert_rebuilt()

    def test_not_a_database(self) -> None:
        """All of it is zeros."""
        size = self.clean()
        self.damaged(0, bytes(size))
        self.assert_rebuilt()

    def test_garbage_schema(self) -> None:
        """The header is whole, the schema is not."""
        self.clean()
        self.damaged(100, b"\xa5" * 3996)
        self.assert_rebuilt()

    def test_dropped_table(self) -> None:
        """A table is missing."""
        self.clean()
        self.script("DROP TABLE peers")
        self.assert_rebuilt()

    def test_garbage_log(self) -> None:
        """The log is no log: what was only in there is known from the export."""
        self.killed(self.prepare)
        log = Path(f"{self.path}-wal")
        log.write_bytes(b"\xa5" * log.stat().st_size)
        self.assert_rebuilt()

    def test_damaged_log(self) -> None:
        """A frame of the log is damaged: SQLite would silently forget all behind it."""
        self.killed(self.prepare)
        size = Path(f"{self.path}-wal").stat().st_size
        self.damaged(size // 2, b"\xa5" * 100, end="-wal")
        self.assert_rebuilt()

    def test_truncated_log(self) -> None:
        """The end of the log is gone, as if it had never been: the export knows better."""
        self.killed(self.prepare)
        log = Path(f"{self.path}-wal")
        os.truncate(log, log.stat().st_size // 3)
        stores = self.opened()
        self.assertEqual(stores.bans.ban_count, BANS)
        self.assertIn("were taken from", "".join(self.said()))
        self.flush(1)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), BANS)

    def test_lost_log(self) -> None:
        """The whole log is gone."""
        self.killed(self.prepare)
        Path(f"{self.path}-wal").unlink()
        self.assertEqual(self.opened().bans.ban_count, BANS)

    def test_stray_log(self) -> None:
        """A log of another database is not replayed into ours."""
        self.clean()
        other = self.folder / "other.db"
        connection = sqlite3.connect(other)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript("CREATE TABLE x (y); INSERT INTO x VALUES (1)")
        shutil.copy(f"{other}-wal", f"{self.path}-wal")
        connection.close()
        self.assert_rebuilt(min_peers=2000)

    def test_log_without_database(self) -> None:
        """What is left of a database is kept; the bans are in the export."""
        self.clean()
        self.path.unlink()
        Path(f"{self.path}-wal").write_bytes(b"left over")
        stores = self.opened()
        self.assertEqual(stores.bans.ban_count, BANS)
        (copy,) = self.copies()
        self.assertEqual(copy.read_bytes(), b"left over")

    def test_lost_database(self) -> None:
        """Without the database, the export alone keeps the bans."""
        self.clean()
        self.path.unlink()
        stores = self.opened()
        self.assertEqual(stores.bans.ban_count, BANS)
        self.flush(1)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), BANS)
        self.assertEqual(len(self.said()), 1)

    def test_unreadable_is_not_damaged(self) -> None:
        """A disk that fails to read a page is no reason to rebuild a good database."""
        self.clean()
        disk, sick = FaultyDisk(), ["Tree 2 page 9: unable to get the page. error code=266"]

        class Sick(FaultyConnection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                if "quick_check" in sql and sick:
                    sql = f"SELECT '{sick.pop()}'"
                return super().execute(sql, *args)

        def connect_sick(uri: str) -> sqlite3.Connection:
            return cast(sqlite3.Connection, Sick(impatient(uri), disk))

        stores = self.opened(connect=connect_sick)
        self.flush(2)
        self.assertEqual(self.copies(), [])
        self.assertEqual(stores.bans.ban_count, BANS)
        self.assertEqual(len(self.said()), 1)
        self.assertIsNone(stores.trouble)

    def test_changed_by_the_operator(self) -> None:
        """A ban that was deleted with SQL while no node ran does not come back with the export."""
        self.clean()
        self.script("DELETE FROM ban")
        stores = self.opened()
        self.assertFalse(stores.bans.is_banned(node(1)))
        self.closed(stores)
        self.path.unlink()
        self.assertFalse(self.opened().bans.is_banned(node(1)))

    def test_any_garbage(self) -> None:
        """Wherever it strikes, the node starts, no ban is lost, and the file is whole again."""
        size = self.clean()
        names = [name for name in self.folder.iterdir() if name.is_file()]
        originals = {name: name.read_bytes() for name in names}
        choose = random.Random(11)
        for _ in range(40):
            for name in self.folder.iterdir():
                name.unlink()
            for name, data in originals.items():
                name.write_bytes(data)
            length = choose.choice((1, 16, 300, 5000))
            self.damaged(choose.randrange(size), choose.randbytes(length))
            try:
                stores = self.opened()
            except self.failureException as error:
                # A mark that reads as another's: the file is refused, and can be recovered.
                self.assertIn("left untouched", str(error))
                continue
            missing = {node(number) for number in range(BANS)} - set(stores.bans.get_bans())
            self.assertEqual(missing, set())
            self.done(stores.bans.ban_node(node(99)))
            self.closed(stores)
            self.assertEqual(self.query("PRAGMA quick_check"), [("ok",)])
        self.events.clear()

    def test_no_room_for_a_copy(self) -> None:
        """Without a copy nothing is rebuilt: the file stays, the node serves from memory."""
        size = self.clean()
        self.damaged(size // 2 // 4096 * 4096, b"\xa5" * 4096)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        before = self.path.read_bytes()
        copy2 = shutil.copy2
        self.patch(shutil, "copy2", full)
        stores = self.opened()
        self.assertEqual(stores.bans.ban_count, BANS)
        self.assertGreater(stores.peers.peer_count, 100)
        self.failureResultOf(stores.bans.ban_node(node(99)), DatabaseError)
        self.flush(5)
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(self.copies(), [])
        (line,) = self.said()
        self.assertIn("No space left on device", line)
        self.patch(shutil, "copy2", copy2)
        self.flush(1)
        self.assertIsNone(stores.trouble)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), BANS + 1)

    def test_no_room_for_the_new_one(self) -> None:
        """A repair that fails leaves one copy, however often it is tried."""
        size = self.clean()
        self.damaged(size // 2 // 4096 * 4096, b"\xa5" * 4096)
        disk = FaultyDisk()
        disk.is_broken, disk.error = True, "database or disk is full"
        stores = self.opened(connect=disk.connect)
        self.flush(5)
        self.assertEqual(len(self.copies()), 1)
        self.assertEqual(stores.bans.ban_count, BANS)
        disk.is_broken = False
        self.flush(1)
        self.assertIsNone(stores.trouble)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), BANS)

    def test_copies_are_bounded(self) -> None:
        """A disk that damages all the time does not fill itself with copies."""
        for _ in range(salvage.MAX_COPIES + 3):
            self.with_contents(1)
            self.damaged(0, b"\xa5" * 100)
            stores = self.opened()
            self.assertEqual(stores.bans.get_bans(), [node(0)])
            self.closed(stores)
            self.clock.advance(1)
        self.assertIn("copies", stores.trouble or "")
        self.assertEqual(len(self.copies()), salvage.MAX_COPIES)

    def test_killed_while_rebuilding(self) -> None:
        """A rebuilt database that did not get to its place yet gets there with the next start."""
        self.killed(self.prepare)
        shutil.copy(self.path, self.folder / "kept")
        other = self.opened(self.folder / "other.db")
        self.done(other.bans.ban_node(node(77)))
        self.closed(other)
        shutil.copy(self.folder / "other.db", f"{self.path}.rebuilt")
        stores = self.opened()
        self.assertIn(node(77), stores.bans.get_bans())
        self.assertEqual(stores.bans.ban_count, BANS + 1)
        self.assertFalse(Path(f"{self.path}.rebuilt").exists())

    def test_while_running(self) -> None:
        """Found when writing: memory is the truth, and the change is acknowledged."""
        disk = FaultyDisk()
        disk.error = "database disk image is malformed"
        stores = self.opened(connect=disk.connect)
        self.prepare(stores)
        self.done(stores.bans.unban_node(node(0)))
        self.events.clear()
        disk.fails_at = disk.writes + 2
        self.done(stores.bans.ban_node(node(99)))
        (line,) = self.said()
        self.assertIn("malformed", line)
        self.assertIsNone(stores.trouble)
        self.assertEqual(len(self.copies()), 1)
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), BANS)
        self.assertEqual(self.query("SELECT count(*) FROM peers"), [(2000,)])
        self.assertEqual(self.query("SELECT count(*) FROM anchor"), [(1,)])


class NotOursTests(StoreTestCase):
    """Any other file is refused by name, and stays byte for byte what it was."""

    def assert_refused(self, *words: str) -> None:
        before = self.files()
        stores = self.stores()
        opening = Deferred.fromCoroutine(stores.open())
        error = self.failureResultOf(opening, ConfigError).value
        self.assertTrue(error.fatal)
        for word in (str(self.path), *words):
            self.assertIn(word, str(error))
        self.assertNotIn("\n", str(error))
        self.successResultOf(stores.stopService())
        self.assertEqual(self.files(), before)
        self.assertEqual(self.said(), [])

    def test_text(self) -> None:
        """A text."""
        self.path.write_text("my only copy of a novel\n" * 100)
        self.assert_refused("left untouched", "name another file")

    def test_short(self) -> None:
        """A file that is too short to be a database, but not empty."""
        self.path.write_bytes(b"x")
        self.assert_refused("left untouched")

    def test_core(self) -> None:
        """A database of stellar-core, which has the same tables."""
        self.script(steps()[0])
        self.script("INSERT INTO ban VALUES ('GA')")
        self.assert_refused("not a database of stellar-overlay")

    def test_core_in_use(self) -> None:
        """The same in WAL mode, all of it in the log still."""
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(steps()[0])
        self.assertGreater(Path(f"{self.path}-wal").stat().st_size, 0)
        Path(f"{self.path}-shm").chmod(0o600)
        self.assert_refused("not a database of stellar-overlay")
        connection.close()

    def test_another_application(self) -> None:
        """An SQLite file without tables that another application has marked."""
        self.script("PRAGMA application_id = 12345; PRAGMA user_version = 1")
        self.assert_refused("not a database of stellar-overlay")

    def test_another_beside_an_export(self) -> None:
        """An export vouches for a destroyed header only, not for a sound database of another."""
        self.script("CREATE TABLE theirs (x)")
        Path(f"{self.path}.bans").write_text(FIRST_LINE + "\n")
        self.assert_refused("not a database of stellar-overlay")

    def test_a_foreign_export(self) -> None:
        """A file beside it that only looks like an export vouches for nothing."""
        self.path.write_bytes(b"\xa5" * 5000)
        Path(f"{self.path}.bans").write_text("bans of something else\n")
        self.assert_refused("not a database of stellar-overlay")

    def test_newer(self) -> None:
        """A newer schema, cleanly closed."""
        self.with_contents(1)
        self.script(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        self.assert_refused("newer release", str(SCHEMA_VERSION + 1))

    def test_newer_in_the_log(self) -> None:
        """A newer schema that only the log knows of."""

        def prepare(_: Stores) -> None:
            connection = sqlite3.connect(self.path)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
            connection.close()

        self.killed(prepare)
        header = self.path.read_bytes()[60:64]
        self.assertNotEqual(int.from_bytes(header, "big"), SCHEMA_VERSION + 1)
        self.assert_refused("newer release")


class OursTests(StoreTestCase):
    """What may be taken, and how it is brought up to date."""

    def test_empty(self) -> None:
        """No bytes, or an SQLite file without tables and mark, is taken."""
        for number, sql in enumerate(
            ("", "VACUUM", "PRAGMA journal_mode = WAL; PRAGMA user_version = 0; VACUUM")
        ):
            path = self.folder / f"{number}.db"
            path.touch()
            self.script(sql, path)
            stores = self.opened(path)
            self.done(stores.bans.ban_node(node(1)))
            self.closed(stores)
            self.assertEqual(self.query("PRAGMA application_id", path), [(APPLICATION_ID,)])
            self.assertEqual(self.query("SELECT nodeid FROM ban", path), [(node(1),)])
        self.assertEqual(self.said(), [])

    def test_a_new_one(self) -> None:
        """A new database is marked in its own header, in WAL mode, with an export beside it."""
        stores = self.opened()
        self.assertEqual(self.path.read_bytes()[68:72], APPLICATION_ID.to_bytes(4, "big"))
        self.assertEqual(self.query("PRAGMA journal_mode"), [("wal",)])
        self.assertEqual(self.query("PRAGMA user_version"), [(SCHEMA_VERSION,)])
        export = Path(f"{self.path}.bans")
        self.assertEqual(export.read_text(), f"{FIRST_LINE}\n# change 0\n")
        self.done(stores.bans.ban_node(node(1)))
        self.done(stores.bans.ban_node_for(node(2), 60.5))
        expiry = stores.bans.expiry_of(node(2))
        lines = sorted([node(1), f"{node(2)} {expiry!r}"])
        self.assertEqual(export.read_text().splitlines()[1:-1], lines)

    def old(self) -> None:
        """Make a database of version 1."""
        self.script(
            f"PRAGMA application_id = {APPLICATION_ID}; {steps()[0]} PRAGMA user_version = 1;"
        )
        self.script(
            f"INSERT INTO ban VALUES ('{node(1)}');"  # noqa: S608
            "INSERT INTO peers VALUES ('8.8.8.8', 11625, '2027-01-15 08:00:00', 3, 2)"
        )

    def test_upgrade(self) -> None:
        """Version 1 is copied, then brought up to date; nothing is lost."""
        self.old()
        stores = self.opened()
        self.assertEqual((stores.bans.get_bans(), stores.peers.peer_count), ([node(1)], 1))
        self.done(stores.bans.ban_node_for(node(2), 60))
        copy = f"{self.path}.before-upgrade-to-{SCHEMA_VERSION}"
        self.assertEqual(self.query("PRAGMA user_version", copy), [(1,)])
        self.assertEqual(self.query("SELECT nodeid FROM ban", copy), [(node(1),)])
        self.assertEqual(self.query("PRAGMA user_version"), [(SCHEMA_VERSION,)])
        self.closed(stores)
        Path(copy).unlink()
        self.opened()
        self.assertFalse(Path(copy).exists())
        self.assertEqual(self.said(), [])

    def test_upgrade_fails(self) -> None:
        """Wherever it fails, the old version is whole, is served, and is upgraded later."""
        for number in range(1, 12):
            self.path = self.folder / f"{number}.db"
            self.old()
            disk = FaultyDisk()
            disk.fails_at = number
            stores = self.opened(connect=disk.connect)
            self.assertEqual((stores.bans.get_bans(), stores.peers.peer_count), ([node(1)], 1))
            self.flush(2)
            self.assertIsNone(stores.trouble)
            self.closed(stores)
            self.assertEqual(self.query("PRAGMA user_version"), [(SCHEMA_VERSION,)])
            self.assertEqual(self.query("PRAGMA integrity_check"), [("ok",)])

    def test_no_room_for_the_copy(self) -> None:
        """Without a copy there is no upgrade; the old version is read all the same."""
        self.old()
        blocked = Path(f"{self.path}.before-upgrade-to-{SCHEMA_VERSION}")
        blocked.mkdir()
        stores = self.opened()
        self.assertEqual(stores.bans.get_bans(), [node(1)])
        self.assertIsNotNone(stores.trouble)
        self.assertEqual(self.query("PRAGMA user_version"), [(1,)])
        blocked.rmdir()
        self.flush(1)
        self.assertIsNone(stores.trouble)
        self.assertEqual(self.query("PRAGMA user_version"), [(SCHEMA_VERSION,)])

    def test_steps(self) -> None:
        """There are as many steps as the version says, the first of them core's tables."""
        self.assertEqual(len(steps()), SCHEMA_VERSION)
        self.opened()
        connection = impatient(f"file:{self.path}")
        columns = [row[1] for row in connection.execute("PRAGMA table_info(peers)")]
        connection.close()
        self.assertEqual(columns, ["ip", "port", "nextattempt", "numfailures", "type"])
