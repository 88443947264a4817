"""What one unfair peer takes from six honest ones, in each way there is.

``python -m tests.integration.unfair [PAIRS [WAY]]`` measures each way, or one, in so many pairs of
rounds without and with the unfair peer; it ends with status 1 when they keep less than 70 % of
their throughput in the median. An otherwise idle machine with two cores is needed.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from twisted.internet.defer import Deferred

from benchmarks.bodies import bodies
from benchmarks.commands import Figures, reactor, serve
from benchmarks.network import local_node, overlay_config
from benchmarks.processes import Child, Target
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node_service import spare_the_collector
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.transaction import tx_full_hash
from tests.integration.traffic_client import TRANSACTION, TX_SET, WAYS
from tests.xdr_extremes import PAYMENT, tx_set

HONEST = 6
LEAST_SHARE = 0.7
ITEM_BYTES = 200_000
ROUND_SECONDS = 1.0
SHORT_SECONDS = 0.4
PER_SECOND = 4_000
"""Statements that an honest peer may have to say; three times what a node passes on."""
CLIENT = "tests.integration.traffic_client"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one way to be unfair.

    :ivar shares: of their throughput that honest peers had, in each pair of rounds.
    :ivar moved: counters of the node that are higher than before.
    :ivar growth: bytes by which the node's memory grew while the unfair peer was there, at most.
    :ivar did: what the unfair peer did in the last round.
    """

    way: str
    shares: list[float]
    moved: dict[str, int]
    growth: int
    did: int

    @property
    def share(self) -> float:
        """The median."""
        return statistics.median(self.shares)


class Rig:
    """A node, honest peers, and one that is not, in processes of their own."""

    def __init__(self, node: Target, honest: Child, unfair: Child) -> None:
        self.node, self.honest, self.unfair = node, honest, unfair

    def rate(self, seconds: float) -> float:
        """Return how many messages honest peers hear in a second, at full credit."""
        most = int(seconds * PER_SECOND)
        return float(self.honest.ask("run", seconds=seconds, most=most)["rate"])

    def latencies(self, number: int, spacing: float) -> tuple[list[float], int]:
        """Return how long single statements took to each peer; and how many there should be."""
        chat = self.honest.ask("chat", number=number, spacing=spacing)
        return list(map(float, chat["latencies"])), int(chat["expected"])

    def figures(self) -> dict[str, int]:
        """Return the node's counters, and its resident bytes as ``rss``."""
        return self.node.ask("figures")

    def begin(self, way: str) -> None:
        """Let the unfair peer begin."""
        items = self.node.greeting["items"]
        self.unfair.ask("begin", port=self.node.port, way=way, items=items)

    def end(self) -> int:
        """End its link; return how much it did."""
        return int(self.unfair.ask("end")["did"])

    def measure(self, way: str, pairs: int, seconds: float) -> Outcome:
        """Measure one way, in turns with its absence."""
        shares, growth, did = [], 0, 0
        first = after = self.figures()
        for _ in range(pairs):
            without = self.rate(seconds)
            before = self.figures()
            self.begin(way)
            shares.append(self.rate(seconds) / without)
            after = self.figures()
            did = self.end()
            growth = max(growth, after["rss"] - before["rss"])
        moved = {name: after[name] - first.get(name, 0) for name in after}
        moved = {name: by for name, by in moved.items() if by > 0}
        return Outcome(way=way, shares=shares, moved=moved, growth=growth, did=did)


@contextmanager
def rig() -> Iterator[Rig]:
    """Run the processes; warm up."""
    python = sys.executable, "-m"
    with (
        Target(*python, "tests.integration.unfair", "node") as node,
        Child(*python, CLIENT) as honest,
        Child(*python, CLIENT) as unfair,
    ):
        honest.ask("connect", port=node.port, number=HONEST)
        made = Rig(node, honest, unfair)
        made.rate(SHORT_SECONDS)
        yield made


def run_node() -> None:
    """Run a node as it is by default, with a transaction and a transaction set to ask for."""
    overlay = OverlayManager(overlay_config(), local_node(), listen="tcp:0:interface=127.0.0.1")

    def figures() -> Figures:
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        snapshot = overlay.metrics.snapshot()
        counters = {name: value for name, value in snapshot.items() if isinstance(value, int)}
        return {"rss": pages * os.sysconf("SC_PAGE_SIZE"), **counters}

    async def start() -> None:
        await overlay.start()
        transaction = Message(bodies("payment", 0, 1)[0])
        overlay.broadcast(transaction)
        tx_set_hash = overlay.publish(Message(tx_set(PAYMENT, ITEM_BYTES)))
        items = {TRANSACTION: tx_full_hash(transaction.body).hex(), TX_SET: tx_set_hash.hex()}
        spare_the_collector()
        serve({"figures": figures}, port=overlay.peer_port, items=items)

    starting = Deferred.fromCoroutine(start())
    starting.addErrback(lambda failure: (failure.printTraceback(sys.stderr), reactor.stop()))
    reactor.run()


def main(arguments: list[str]) -> int:
    """Measure; return how many ways take too much."""
    pairs = int(arguments[0]) if arguments else 3
    failed = 0
    for way in arguments[1:] or WAYS:
        with rig() as made:
            outcome = made.measure(way, pairs, ROUND_SECONDS)
        failed += outcome.share < LEAST_SHARE
        shares = ", ".join(f"{share:.0%}" for share in outcome.shares)
        print(f"{way}: {outcome.share:.0%} of {shares}; {outcome.growth / 2**20:.0f} MiB;")
        print("   ", ", ".join(f"{name} {by}" for name, by in outcome.moved.items()))
    return failed


if __name__ == "__main__":
    if sys.argv[1:] == ["node"]:
        run_node()
    else:
        sys.exit(main(sys.argv[1:]) > 0)
