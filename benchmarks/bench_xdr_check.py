"""What the structural check of a message takes: ``python -m benchmarks.bench_xdr_check``.

Microseconds for messages as they are, also as a multiple of a call that walks nothing; milliseconds
for the biggest sets of transactions, which pass, and for the worst 16 MiB, which do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from stellar_sdk.xdr import StellarValueType

from stellar_overlay.error import XdrError
from stellar_overlay.wire.xdr_check import check
from tests.xdr_extremes import ILLEGAL, LEGAL, MANY, PAYMENT, SWAP, transaction
from tests.xdr_samples import SAMPLES, VALUES, ballot, nominate, prepare, scp_message

ROUNDS = 200
SIGNED = VALUES[2 * list(StellarValueType).index(StellarValueType.STELLAR_VALUE_SIGNED)]
"""What validators of the public network vote for: 152 bytes."""

GOALS = {
    "SCP externalize": 0.6,
    "SCP prepare": 0.9,
    "SCP nominate": 1.1,
    "payment": 1.6,
    "Soroban call": 16.0,
    "FLOOD_ADVERT, 50 hashes": 0.4,
    "GET_TX_SET": 0.25,
    "SEND_MORE_EXTENDED": 0.25,
    "DONT_HAVE": 0.25,
}
"""Microseconds that a check should take at most on a 2.6 GHz Xeon."""

MESSAGES = {
    "SCP externalize": SAMPLES["SCP_MESSAGE externalize"],
    "SCP prepare": scp_message(prepare(ballot(2, SIGNED), ballot(1, SIGNED))).to_xdr_bytes(),
    "SCP nominate": scp_message(nominate([SIGNED], [SIGNED])).to_xdr_bytes(),
    "payment": transaction(PAYMENT),
    "Soroban call": transaction(SWAP),
    "FLOOD_ADVERT, 50 hashes": SAMPLES["FLOOD_ADVERT 50 hashes"],
    "GET_TX_SET": SAMPLES["GET_TX_SET"],
    "SEND_MORE_EXTENDED": SAMPLES["SEND_MORE_EXTENDED"],
    "DONT_HAVE": SAMPLES["DONT_HAVE TX_SET"],
    "HELLO": SAMPLES["HELLO"],
    "PEERS, 100": SAMPLES["PEERS"],
    "SCP_QUORUMSET, 5 validators": SAMPLES["SCP_QUORUMSET flat"],
}


def walk_nothing(body: bytes) -> None:
    """Do nothing: what a call costs."""


def least_seconds(function: Callable[[bytes], object], bodies: Iterable[bytes]) -> list[float]:
    """Return for each body the shortest time of a call in many short series.

    The series of all bodies take turns, so that a busy moment of the machine hits all alike.
    """
    bodies = list(bodies)
    least = [float("inf")] * len(bodies)
    for _ in range(ROUNDS):
        for index, body in enumerate(bodies):
            calls = range(max(10, 50_000 // (100 + len(body))))
            start = time.perf_counter()
            for _ in calls:
                function(body)
            least[index] = min(least[index], (time.perf_counter() - start) / len(calls))
    return least


def verdict(body: bytes) -> tuple[float, str]:
    """Return the shortest of five times for one check, in seconds, and what came out."""
    least, text = float("inf"), "passes"
    for _ in range(5):
        start = time.process_time()
        try:
            check(body)
        except XdrError as error:
            text = str(error)
        least = min(least, time.process_time() - start)
    return least, text


def main() -> None:
    """Print both tables."""
    ours = least_seconds(check, MESSAGES.values())
    nothing = least_seconds(walk_nothing, MESSAGES.values())
    print(f"{'message':28} {'bytes':>6} {'us':>7} {'goal':>6} {'ratio':>6}")
    for (name, body), us, least in zip(MESSAGES.items(), ours, nothing, strict=True):
        goal = GOALS.get(name, "")
        print(f"{name:28} {len(body):6} {us * 1e6:7.2f} {goal:>6} {us / least:6.1f}")
    print(f"\n{'body':32} {'MiB':>5} {'ms':>6}  outcome")
    for name, make in {**LEGAL, **MANY, **ILLEGAL}.items():
        body = make()
        seconds, text = verdict(body)
        print(f"{name:32} {len(body) / 2**20:5.1f} {seconds * 1e3:6.1f}  {text}")


if __name__ == "__main__":
    main()
