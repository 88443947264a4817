"""T35 and T25 with real processes: killed after an acknowledgement; a folder that is read-only.

``python -m tests.integration.test_store_process ROUNDS`` runs as many rounds by hand.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.store.ban_export import read_export
from tests.processes import ROOT, environment, scratch
from tests.store.world import node

_READ_ONLY = """
import os, random, sys
import stellar_sdk
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from stellar_overlay.store.stores import Stores
stores = Stores(sys.argv[1], Clock(), wall_clock=lambda: 0.0, random=random.Random(1))
if os.geteuid() == 0:  # all is imported: the checkout may be in a folder for root alone
    os.setuid(65534)
Deferred.fromCoroutine(stores.open())
print(stores.bans.ban_count, stores.trouble)
"""


def kill_rounds(folder: Path, rounds: int) -> int:
    """Ban, kill within 5 ms of the acknowledgement, restart; return how many were acknowledged.

    :raises AssertionError: when a ban was lost, or the file is not whole.
    """
    database, banned = folder / "node.db", 0
    for _ in range(rounds):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.store.killed", str(database), str(banned)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "lost", "a ban was lost"
            for _ in range(random.randrange(1, 4)):
                banned = int(process.stdout.readline()) + 1
            time.sleep(random.uniform(0, 0.005))
            process.kill()
            more = process.stdout.read().split("\n")
            banned = max([banned, *(int(line) + 1 for line in more[:-1])])
        check(database, banned)
    return banned


def check(database: Path, banned: int) -> None:
    """Look at a copy of what the kill left behind, as it is."""
    with tempfile.TemporaryDirectory() as scratch_folder:
        copy = Path(scratch_folder) / "copy.db"
        for end in ("", "-wal"):
            if Path(f"{database}{end}").exists():
                shutil.copy(f"{database}{end}", f"{copy}{end}")
        connection = sqlite3.connect(copy)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {row[0] for row in connection.execute("SELECT nodeid FROM ban")}
        connection.close()
    exported = read_export(str(database))
    assert exported is not None
    for number in range(banned):
        assert node(number) in found, f"ban {number} was lost"
        assert node(number) in exported.bans, f"ban {number} is not in the export"


class KillTests(SynchronousTestCase):
    def test_no_ban_is_lost(self) -> None:
        """T35: ten kills right after an acknowledged ban; the file is whole each time."""
        self.assertGreaterEqual(kill_rounds(scratch(self), 10), 10)


class PermissionTests(SynchronousTestCase):
    def test_read_only(self) -> None:
        """T25: without the right to write, bans are honoured, and nothing changes."""
        folder = scratch(self)
        kill_rounds(folder, 1)
        # Opened and closed once more: no log is left beside it.
        connection = sqlite3.connect(folder / "node.db")
        banned = connection.execute("SELECT count(*) FROM ban").fetchone()[0]
        connection.close()
        (folder / "node.db.bans").unlink()
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        self.addCleanup(folder.chmod, 0o755)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        done = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, str(folder / "node.db")],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.stderr, "")
        self.assertRegex(done.stdout, rf"^{banned} .*(open|readonly|read-only|denied)")
        self.assertEqual({path.name: path.read_bytes() for path in folder.iterdir()}, before)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(kill_rounds(Path(place), int(sys.argv[1])), "bans, none lost")
