"""What a node does with the file that ``--database`` names, whatever it finds there."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.identity import LocalNode
from stellar_overlay.store.stores import Stores
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from tests.integration.ban_rounds import rounds
from tests.processes import CLI, Result, Running, Talk, scratch, script
from tests.store.world import node as node_id

NETWORK = "tests of a node's database"
TWIST = (script("twist"), "--log-format=text", "stellar-overlay")
OPTIONS = (
    *("--network", NETWORK, "--allow-private", "--http", "off"),
    *("--listen", "tcp:0:interface=127.0.0.1"),
)
STOP_SECONDS = 5.0
"""Within which a node is gone, by contract, whatever its disk does."""
BANS = 50
PEERS = 300
TROUBLE = "the node goes on from memory"
BOUND = """
import ctypes, os, sys
if not os.geteuid():
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Runs a command that may not write what is read-only, even if it is root's (prctl(2))."""
LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = " + sys.argv[2])
connection.execute("BEGIN EXCLUSIVE")
connection.execute("SELECT count(*) FROM ban").fetchone()
print("locked", flush=True)
time.sleep(60)
"""

Snapshot = dict[str, tuple[bytes, int]]


def snapshot(folder: Path) -> Snapshot:
    """Return every file in a folder: what is in it, and when it was changed."""
    return {
        path.name: (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in folder.iterdir()
    }


class DatabaseTestCase(SynchronousTestCase):
    """Nodes in processes, with databases that were made before."""

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.banned = LocalNode(NETWORK)

    def start(
        self,
        *options: str | Path,
        cwd: Path | None = None,
        stdout: int | None = None,
        runner: Sequence[str] = (),
    ) -> Running:
        """Start a node in the test's folder."""
        command = (*runner, *TWIST, *OPTIONS, *options)
        return Running(self, command, cwd=cwd or self.folder, stdout=stdout)

    def start_on(
        self, database: Path, *, stdout: int | None = None, runner: Sequence[str] = ()
    ) -> tuple[Running, int]:
        """Start a node on a database; return it, and the port at which it serves."""
        ready = scratch(self) / "ready.json"
        options = ("--database", f"sqlite3://{database}", "--ready-file", ready)
        node = self.start(*options, stdout=stdout, runner=runner)
        port: int = node.wait_for_ready_file(ready)["peer_port"]
        return node, port

    def call(self, port: int, caller: LocalNode | None = None) -> Talk:
        """Call a node; return when it has let us in, or not."""
        return Talk.dial(self, port, ScriptedPeer(caller or LocalNode(NETWORK)))

    def assert_serves(self, port: int, *, listening_port: int = 11625) -> None:
        """Assert that a stranger is let in."""
        talk = self.call(port, LocalNode(NETWORK, listening_port=listening_port))
        self.assertTrue(talk.peer.authenticated.called)
        talk.close()

    def assert_keeps_bans(self, port: int) -> None:
        """Assert that the banned one is not."""
        self.assertFalse(self.call(port, self.banned).peer.authenticated.called)

    def assert_ends(self, node: Running) -> Result:
        """Assert that a node is gone in time when it is told to, without a traceback."""
        node.send(signal.SIGTERM)
        result = node.wait(STOP_SECONDS)
        self.assertEqual(result.status, -signal.SIGTERM, result.said)
        self.assertFalse(result.has_traceback, result.said)
        return result

    def assert_warned_once(self, said: str, *words: str) -> None:
        """Assert that the log has one warning, with these words."""
        (line,) = [line for line in said.splitlines() if "#warn]" in line or "#error]" in line]
        for word in words:
            self.assertIn(word, line)

    def fill(self, path: Path) -> None:
        """Make a database with bans, and with peers that nobody can reach."""
        stores = Stores(str(path), Clock(), wall_clock=time.time, random=random.Random(7))
        self.successResultOf(Deferred.fromCoroutine(stores.open()))
        stores.startService()
        for banned in (*map(node_id, range(BANS)), self.banned.peer_id.strkey):
            self.successResultOf(stores.bans.ban_node(banned))
        for number in range(PEERS):
            stores.peers.ensure_exists(ResolvedPeerAddress(f"127.1.{number // 250}.1", number + 1))
        self.successResultOf(stores.stopService())

    def query(self, path: Path, sql: str) -> set[object]:
        """Return what is in the first column."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return {row[0] for row in connection.execute(sql)}

    def all_bans(self) -> set[object]:
        """Return who is banned in a database that was filled."""
        return {*map(node_id, range(BANS)), self.banned.peer_id.strkey}


class RefusalTests(DatabaseTestCase):
    """Databases that are not ours to use: not a byte of them is touched."""

    def assert_refused(self, cases: dict[Path, str]) -> None:
        """Assert that each of these ends a node with one line, and is as it was before."""
        before = {path: snapshot(path.parent) for path in cases if path.parent.exists()}
        nodes = {path: self.start("--database", f"sqlite3://{path}") for path in cases}
        for path, node in nodes.items():
            result = node.wait()
            self.assertEqual(result.status, 1, result.said)
            lines = [line for line in result.said.splitlines() if "stellar-overlay: " in line]
            self.assertEqual(len(lines), 1, result.said)
            self.assertIn(f"database {path}: ", lines[0])
            self.assertIn(cases[path], lines[0])
            self.assertFalse(result.has_traceback, result.said)
        for path, files in before.items():
            self.assertEqual(snapshot(path.parent), files)

    def place(self, name: str) -> Path:
        """Return a path in a folder of its own."""
        (self.folder / name).mkdir()
        return self.folder / name / name

    def test_not_ours(self) -> None:
        """A core's database, at rest or killed while it ran, a text, JSON, a folder, nowhere."""
        core, killed = self.place("stellar.db"), self.place("killed.db")
        with closing(sqlite3.connect(core)) as connection:
            connection.executescript(_CORE)
        running = self.folder / "running.db"
        with closing(sqlite3.connect(running)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_CORE)
            for end in ("", "-wal", "-shm"):
                Path(f"{killed}{end}").write_bytes(Path(f"{running}{end}").read_bytes())
        text, json = self.place("notes.txt"), self.place("peers.json")
        text.write_text("A shopping list is no database.\n" * 200)
        json.write_text('{"peers": ["127.0.0.1:11625"]}\n')
        directory = self.place("folder")
        directory.mkdir()
        ours = "is not a database of stellar-overlay, and was left untouched; name another file"
        self.assert_refused(
            {
                core: ours,
                killed: ours,
                text: ours,
                json: ours,
                directory: "is not a file; name one",
                self.folder / "missing" / "node.db": "create the folder",
            }
        )

    def test_of_a_newer_release(self) -> None:
        """One of ours with a schema that this release does not know."""
        newer = self.place("newer.db")
        self.fill(newer)
        with closing(sqlite3.connect(newer)) as connection:
            connection.execute("PRAGMA user_version = 99")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assert_refused({newer: "was written by a newer release (schema 99"})


class DefaultTests(DatabaseTestCase):
    def test_default(self) -> None:
        """Without ``--database``, or with a PostgreSQL in a file, it is ours in this folder."""
        config = self.folder / "node.cfg"
        config.write_text('DATABASE = "postgresql://dbname=stellar user=stellar"\n')
        for name, options in (("plain", ()), ("postgresql", ("--config", config))):
            folder = self.folder / name
            folder.mkdir()
            node = self.start(*options, "--ready-file", "ready.json", cwd=folder)
            node.wait_for_ready_file(folder / "ready.json")
            said = self.assert_ends(node).said
            self.assertEqual(said.count("#warn]"), len(options) // 2, said)
            if options:
                self.assert_warned_once(said, "node.cfg: DATABASE: postgresql:// is not supported")
            self.assertEqual(
                self.query(folder / "stellar-overlay.db", "SELECT nodeid FROM ban"), set()
            )


class DamageTests(DatabaseTestCase):
    """Databases of ours that something happened to."""

    def assert_repaired(self, name: str, damage: Callable[[bytes], bytes]) -> None:
        """Assert that a node starts, says so once, keeps a copy, and has forgotten no ban."""
        path = self.folder / name / "node.db"
        path.parent.mkdir()
        self.fill(path)
        damaged = damage(path.read_bytes())
        path.write_bytes(damaged)
        node, port = self.start_on(path)
        self.assert_serves(port)
        self.assert_keeps_bans(port)
        said = self.assert_ends(node).said
        self.assert_warned_once(said, f"database {path}: it was damaged", "was built anew")
        (copy,) = path.parent.glob("node.db.corrupt-*")
        self.assertIn(str(copy), said)
        self.assertEqual(copy.read_bytes(), damaged)
        self.assertEqual(self.query(path, "SELECT nodeid FROM ban"), self.all_bans())
        self.assertEqual(self.query(path, "PRAGMA integrity_check"), {"ok"})

    def test_page(self) -> None:
        """A page in the middle."""

        def overwrite(data: bytes) -> bytes:
            middle = len(data) // 4096 // 2 * 4096
            return data[:middle] + b"\xa5" * 4096 + data[middle + 4096 :]

        self.assert_repaired("page", overwrite)

    def test_header(self) -> None:
        """The first hundred bytes: what is beside it still says that it is ours."""
        self.assert_repaired("header", lambda data: b"\xa5" * 100 + data[100:])

    def test_truncated(self) -> None:
        """The second half is missing."""
        self.assert_repaired("truncated", lambda data: data[: len(data) // 2 + 1])


class UnusableTests(DatabaseTestCase):
    """Databases of ours that cannot be written at present: the node serves, and honours bans."""

    def test_read_only(self) -> None:
        """Neither the file nor its folder may be written."""
        path = self.folder / "read-only" / "node.db"
        path.parent.mkdir()
        self.fill(path)
        for file in path.parent.iterdir():
            file.chmod(0o444)
        path.parent.chmod(0o555)
        self.addCleanup(path.parent.chmod, 0o755)
        before = snapshot(path.parent)
        node, port = self.start_on(path, runner=(CLI[0], "-c", BOUND))
        self.assert_serves(port)
        self.assert_keeps_bans(port)
        time.sleep(2.5)  # in which two more attempts to write fail
        said = self.assert_ends(node).said
        self.assert_warned_once(said, f"database {path}: ", TROUBLE)
        self.assertEqual(snapshot(path.parent), before)

    def locked(self, mode: str) -> tuple[Path, Running, Running]:
        """Start a node on a database that another process has locked, and see that it serves."""
        path = self.folder / "node.db"
        self.fill(path)
        locker = Running(self, [CLI[0], "-c", LOCK, path, mode])
        locker.wait_until(lambda: "locked" in locker.stdout)
        node, port = self.start_on(path)
        self.assert_serves(port, listening_port=4711)
        self.assert_keeps_bans(port)
        return path, locker, node

    def assert_told_once(self, node: Running, path: Path) -> None:
        """Assert that a node ends, and has told its operator once."""
        said = self.assert_ends(node).said
        self.assert_warned_once(said, f"database {path}: database is locked", TROUBLE)

    def test_locked(self) -> None:
        """Another process has begun to write, and lets go after a while: nothing is lost."""
        path, locker, node = self.locked("NORMAL")
        locker.kill()
        node.wait_until(lambda: "works again" in node.stdout)
        self.assert_told_once(node, path)
        self.assertEqual(self.query(path, "SELECT nodeid FROM ban"), self.all_bans())
        self.assertIn(4711, self.query(path, "SELECT port FROM peers"))

    def test_locked_for_good(self) -> None:
        """Another process has it for itself: not even the bans can be read from it."""
        path, locker, node = self.locked("EXCLUSIVE")
        self.assert_told_once(node, path)
        locker.kill()
        self.assertEqual(self.query(path, "SELECT nodeid FROM ban"), self.all_bans())

    def test_hanging(self) -> None:
        """A disk that does not answer, while the node starts: it can be stopped all the same."""
        path = self.folder / "node.db"
        os.mkfifo(f"{path}.bans")  # to read it is to wait for ever
        node = self.start("--database", f"sqlite3://{path}")
        node.wait_until(lambda: "Starting reactor" in node.stdout)
        self.assert_ends(node)

    def test_no_space(self) -> None:
        """No file may grow any more: it serves on, says so once, and recovers."""
        if not hasattr(resource, "prlimit"):
            self.skipTest("needs to change the limits of another process")
        path = self.folder / "node.db"
        self.fill(path)
        reading, writing = os.pipe()  # a log in a file could not grow either
        self.addCleanup(os.close, reading)
        os.set_blocking(reading, False)
        node, port = self.start_on(path, stdout=writing)
        os.close(writing)
        said = bytearray()

        def log() -> str:
            try:
                while data := os.read(reading, 65536):
                    said.extend(data)
            except BlockingIOError:
                pass
            return said.decode()

        limit = resource.RLIMIT_FSIZE
        before = resource.prlimit(node.pid, limit)
        resource.prlimit(node.pid, limit, (0, before[1]))
        self.assert_serves(port, listening_port=4711)
        node.wait_until(lambda: TROUBLE in log())
        for number in range(4712, 4715):
            time.sleep(1)  # for an attempt to write, which fails
            self.assert_serves(port, listening_port=number)
        self.assert_keeps_bans(port)
        self.assertNotIn("works again", log())

        resource.prlimit(node.pid, limit, before)
        node.wait_until(lambda: "works again" in log())
        self.assert_ends(node)
        self.assertNotIn("Traceback", log())
        self.assert_warned_once(log(), f"database {path}: ", TROUBLE)
        ports = self.query(path, "SELECT port FROM peers")
        self.assertLessEqual({4711, 4712, 4713, 4714}, ports)


class KillTests(DatabaseTestCase):
    def test_no_ban_is_lost(self) -> None:
        """Ten kills within 5 ms of an acknowledged ban: the next node knows them all."""
        self.assertGreaterEqual(rounds(self.folder, 10), 10)


_CORE = """
CREATE TABLE storestate (statename CHARACTER(70) PRIMARY KEY, state TEXT);
CREATE TABLE peers (ip VARCHAR(15) NOT NULL, port INT NOT NULL DEFAULT 0,
    nextattempt TIMESTAMP NOT NULL, numfailures INT NOT NULL DEFAULT 0, type INT NOT NULL,
    PRIMARY KEY (ip, port));
CREATE TABLE ban (nodeid CHARACTER(56) NOT NULL PRIMARY KEY);
CREATE TABLE ledgerheaders (ledgerhash CHARACTER(64) PRIMARY KEY, ledgerseq INT UNIQUE, data TEXT);
INSERT INTO storestate VALUES ('databaseschema', '24');
INSERT INTO peers VALUES ('127.0.0.1', 11625, '2026-01-01 00:00:00', 0, 1);
"""
