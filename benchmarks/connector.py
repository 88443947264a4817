"""The npm connector as receiver of the same load as our node, in turns with it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.network import PASSPHRASE
from benchmarks.processes import BenchmarkError, Node, Target
from benchmarks.report import Figure
from benchmarks.rounds import Options, Rig, median
from tests.interop import foreign

SCRIPT = Path(__file__).parent / "connector_process.js"
SENDERS = 10
WARM_UP = 400
ROUNDS = 5
MESSAGES = 1_200


class Connector(Target):
    """The connector as a process: decodes and verifies, has no duplicate check, relays nothing."""

    def __init__(self) -> None:
        options = foreign.Options(network=PASSPHRASE).environment()
        super().__init__("node", str(SCRIPT), environment={**options, "INTEROP": str(foreign.HERE)})


def measure(options: Options) -> Iterator[Figure]:
    """Yield both rates, and how many of its messages our node receives in the same time."""
    reason = foreign.available()
    if reason is not None:
        print(f"connector: skipped, {reason}")
        return
    peers = {"sender": SENDERS}
    node = Node(profile=options.profile)
    with Rig(node, peers) as ours, Rig(Connector(), peers) as theirs:
        ours.warm_up(WARM_UP)
        theirs.warm_up(WARM_UP)
        pairs = [(ours.round(MESSAGES), theirs.round(MESSAGES)) for _ in range(ROUNDS)]
        taken = theirs.target.figures()["messages"]
    if taken != SENDERS * (WARM_UP + ROUNDS * MESSAGES):
        raise BenchmarkError(f"the connector handed on {taken} messages only")
    ratio = statistics.median(other.message_seconds / one.message_seconds for one, other in pairs)
    rates = [1 / median(side, "message_seconds") for side in zip(*pairs, strict=True)]
    yield Figure("npm connector: ours is faster by", ratio, "x")
    yield Figure("npm connector: ours", rates[0], "messages per CPU second")
    yield Figure("npm connector: its own", rates[1], "messages per CPU second")
