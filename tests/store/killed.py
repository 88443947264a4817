"""A process that bans nodes on a real reactor, and says each as soon as it is acknowledged.

``python -m tests.store.killed DATABASE FIRST`` bans nodes number FIRST, FIRST + 1, …
"""

from __future__ import annotations

import random
import sys
import time
from itertools import count
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from stellar_overlay.store.stores import Stores
from tests.store.world import at, node


async def ban_on(reactor: Any, database: str, first: int) -> None:
    """Ban until killed."""
    stores = Stores(database, reactor, wall_clock=time.time, random=random.Random(first))
    await stores.open()
    stores.startService()
    missing = [number for number in range(first) if not stores.bans.is_banned(node(number))]
    print("lost", *missing, flush=True)
    for number in count(first):
        stores.peers.ensure_exists(at(number))
        await stores.bans.ban_node(node(number))
        print(number, flush=True)


if __name__ == "__main__":
    task.react(
        lambda reactor: Deferred.fromCoroutine(ban_on(reactor, sys.argv[1], int(sys.argv[2])))
    )
