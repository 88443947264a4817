"""What honest receivers still get beside peers that never read and peers that never grant."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.processes import Node
from benchmarks.report import Figure, at_least
from benchmarks.rounds import Options, Rig

HONEST = {"sender": 4, "receiver": 8}
SLOW = {"deaf": 2, "stingy": 2}
FILLING = 12_000
"""Messages before anything is measured: more than a node keeps for a peer that takes none."""
ROUNDS = 5
MESSAGES = 1_600
LEAST = 70.0


def measure(options: Options) -> Iterator[Figure]:
    """Yield the share of the throughput that is left, run by run in turns."""
    alone, beside = Node(mode="relay"), Node(mode="relay", profile=options.profile)
    with Rig(alone, HONEST) as without, Rig(beside, {**HONEST, **SLOW}) as among:
        for rig in (without, among):
            rig.warm_up(FILLING)
        pairs = [(without.round(MESSAGES), among.round(MESSAGES)) for _ in range(ROUNDS)]
    share = statistics.median(one.wall_seconds / other.wall_seconds for one, other in pairs)
    cost = statistics.median(one.cpu_seconds / other.cpu_seconds for one, other in pairs)
    delivered = [MESSAGES * HONEST["receiver"] / other.wall_seconds for _, other in pairs]
    yield at_least("beside slow readers: throughput", 100 * share, "% of that without", LEAST)
    yield Figure("beside slow readers: per CPU second", 100 * cost, "% of that without")
    yield Figure("beside slow readers: rate", statistics.median(delivered), "delivered per second")
