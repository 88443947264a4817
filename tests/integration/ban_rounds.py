"""A node that bans is killed right after each acknowledgement, and started again.

``python -m tests.integration.ban_rounds ROUNDS`` runs so many rounds;
``… ban_rounds DATABASE FIRST`` is such a node, which bans nodes number FIRST, FIRST + 1, ….
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from tests.processes import ROOT, environment
from tests.store.world import node as node_id

MAX_DELAY_SECONDS = 0.005
"""From an acknowledgement to the kill."""


async def ban_for_ever(reactor: Any, database: str, first: int) -> None:
    """Say who is banned, then ban one after the other until killed."""
    node = OverlayManager(
        OverlayConfig(allow_private=True, known_peers=[]),
        LocalNode.testnet(),
        reactor=reactor,
        database=database,
        listen="tcp:0:interface=127.0.0.1",
    )
    await node.start()
    print(*(peer_id.strkey for peer_id in node.banned_peers()), flush=True)
    for number in count(first):
        await node.ban_peer(node_id(number))
        print(number, flush=True)


def rounds(folder: Path, number: int) -> int:
    """Run so many rounds in a folder; return how many bans were acknowledged.

    :raises AssertionError: when one was lost, or the database is not whole.
    """
    database, banned = folder / "node.db", 0
    for _ in range(number):
        banned = _round(database, banned)
        _check(database, banned)
    return banned


def _round(database: Path, banned: int) -> int:
    command = [sys.executable, "-m", "tests.integration.ban_rounds", str(database), str(banned)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        try:
            known = node.stdout.readline().split()
            missing = {node_id(earlier) for earlier in range(banned)} - set(known)
            assert not missing, f"{len(missing)} bans were lost"
            for _ in range(random.randrange(1, 6)):
                banned = int(node.stdout.readline()) + 1
            time.sleep(random.uniform(0, MAX_DELAY_SECONDS))
        finally:
            node.kill()
        later = node.stdout.read().split("\n")[:-1]  # acknowledged before the kill came
    return max([banned, *(int(line) + 1 for line in later)])


def _check(database: Path, banned: int) -> None:
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {row[0] for row in connection.execute("SELECT nodeid FROM ban")}
    missing = {node_id(number) for number in range(banned)} - found
    assert not missing, f"{len(missing)} bans are not in the database"


def main(arguments: list[str]) -> None:
    """Run rounds, or be the node of one."""
    if len(arguments) == 2:
        database, first = arguments
        react(
            lambda reactor: Deferred.fromCoroutine(ban_for_ever(reactor, database, int(first))), ()
        )
    with tempfile.TemporaryDirectory() as folder:
        print(rounds(Path(folder), int(arguments[0])), "bans, none lost")


if __name__ == "__main__":
    main(sys.argv[1:])
