"""Ten senders send one message at a time, so that each read brings one: an idle network.

What the reactor takes for a read is most of it, so the yardstick is a protocol that does nothing
but the same reads, the same grants and the crypto of both.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from benchmarks.processes import EmptyProtocol, Node
from benchmarks.report import Figure, at_most
from benchmarks.rounds import Options, Rig, median

SENDERS = 10
RUNS = 7
MESSAGES = 240
SPACING_SECONDS = 0.002
MOST = 1.7


def measure(options: Options) -> Iterator[Figure]:
    """Yield the ratio to the empty protocol, run by run in turns."""
    node, empty = Node(profile=options.profile), EmptyProtocol()
    with Rig(node, {"sender": SENDERS}) as ours, Rig(empty, {"bare sender": SENDERS}) as least:
        ours.warm_up()
        least.warm_up()
        pairs = [
            (
                ours.round(MESSAGES, spacing=SPACING_SECONDS),
                least.round(MESSAGES, spacing=SPACING_SECONDS),
            )
            for _ in range(RUNS)
        ]
    rounds = [one for one, _ in pairs]
    ratio = statistics.median(one.message_seconds / other.message_seconds for one, other in pairs)
    yield at_most("sparse", ratio, "x empty protocol", MOST)
    yield Figure("sparse: cost", 1e6 * median(rounds, "message_seconds"), "us per message")
    yield Figure(
        "sparse: empty protocol",
        1e6 * median([other for _, other in pairs], "message_seconds"),
        "us per message",
    )
    yield Figure("sparse: batch", median(rounds, "messages_per_read"), "messages per read")
