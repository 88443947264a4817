"""Unfair peers on real sockets: what they cost honest ones, and the node."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.integration.traffic_client import WAYS
from tests.integration.unfair import SHORT_SECONDS, Rig, rig

LEAST_SHARE = 0.25
"""Of the throughput without it, in short rounds on a machine that does other things, too; the full
measure is 0.7, and ``python -m tests.integration.unfair`` takes it."""
PAIRS = 5
"""Of rounds, of which the median counts: if the first is good, it is enough."""
MOST_GROWTH = 128 * 1024 * 1024
"""Bytes of memory: 32 MiB of answers and three transaction sets on their way, and the honest."""
COUNTERS = {
    "never grants": [],  # queue_drop_scp, after some 10,000 statements
    "never reads": ["answers_unsent_bytes", "answers_refused"],
    "advertises and never serves": ["flood_demanded"],
    "repeats a demand": ["queries_ignored"],
    "asks": ["queries_ignored"],
    "costly transactions": ["pulled_irrelevant_txs", "cpu_holds"],
    "bulky transaction sets": ["cpu_holds"],  # and fetch_unique_recv, or fetch_duplicate_recv
}
"""What must say that it happened."""

CHAT = 60
SPACING_SECONDS = 0.02
MEDIAN_SECONDS = 0.2
"""A structural check of 10 MiB takes so long on a slow machine, and nothing can interrupt it."""
LONGEST_SECONDS = 1.5


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def processes() -> Iterator[Rig]:
    """A node and six honest peers, for all tests: each measures without its unfair peer as well."""
    with rig() as made:
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_what_is_left_to_others(
    processes: Rig, way: str, record_property: Callable[[str, object], None]
) -> None:
    """Most of the throughput; the node's memory stays, and its counters say what happened."""
    outcomes = [processes.measure(way, 1, SHORT_SECONDS)]
    if outcomes[0].share < LEAST_SHARE:
        outcomes += [processes.measure(way, 1, SHORT_SECONDS) for _ in range(PAIRS - 1)]
    for outcome in outcomes:
        assert [name for name in COUNTERS[way] if name in outcome.moved] == COUNTERS[way]
        assert outcome.growth < MOST_GROWTH
        assert outcome.did > 0
    shares = [outcome.share for outcome in outcomes]
    record_property("shares", shares)
    assert statistics.median(shares) > LEAST_SHARE


def test_latency_beside_bulky_transaction_sets(
    processes: Rig, record_property: Callable[[str, object], None]
) -> None:
    """Sets of 10 MiB at full speed: single statements of others pass between them."""
    processes.begin("bulky transaction sets")
    latencies, expected = processes.latencies(CHAT, SPACING_SECONDS)
    assert processes.end() > 1
    assert len(latencies) == expected
    record_property("median and longest", (statistics.median(latencies), max(latencies)))
    assert statistics.median(latencies) < MEDIAN_SECONDS
    assert max(latencies) < LONGEST_SECONDS
