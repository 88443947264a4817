"""What a peer costs before it says anything: handshakes, and memory while it is idle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from benchmarks.bare import bare_handshake
from benchmarks.processes import Load, Node
from benchmarks.report import Figure, at_least, at_most
from benchmarks.rounds import Options

HANDSHAKES = 3_000
AT_ONCE = 50
IDLE_PEERS = 800


def measure_handshakes(options: Options) -> Iterator[Figure]:
    """Yield what a handshake takes of the node's CPU."""
    with Load() as load, Node(profile=options.profile) as node:
        load.ask("shake", port=node.port, count=1, at_once=1)
        node.start_profile()
        before = node.figures()
        load.ask("shake", port=node.port, count=HANDSHAKES, at_once=AT_ONCE)
        after = node.figures()
    seconds = (after["cpu"] - before["cpu"]) / HANDSHAKES
    yield Figure("handshake", seconds / bare_handshake(), "x bare cryptography")
    yield at_least("handshake: rate", 1 / seconds, "per CPU second", 4_000)


def measure_idle(options: Options) -> Iterator[Figure]:
    """Yield what an idle peer takes of the node's memory."""
    with Load() as load, Node() as node:
        before = node.ask("memory")
        load.connect(node, "idle", IDLE_PEERS)
        after = _memory_with_all(node)
    size = (after["rss"] - before["rss"]) / IDLE_PEERS / 1024
    yield at_most("idle authenticated peer", size, "KiB of RSS", 8)


def _memory_with_all(node: Node) -> dict[str, Any]:
    while node.figures()["peers"] < IDLE_PEERS:
        time.sleep(0.05)
    return node.ask("memory")
