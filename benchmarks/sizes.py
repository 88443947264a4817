"""Dense reception of the bodies that a network is made of, each against its own bare HMAC."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bodies import KINDS
from benchmarks.dense import SENDERS
from benchmarks.processes import Node
from benchmarks.report import Figure
from benchmarks.rounds import STEADY, Options, Rig, median

ROUNDS = 5
MESSAGES = 2_000


def measure(options: Options) -> Iterator[Figure]:
    """Yield a ratio and a rate for each kind of body."""
    for kind, (size, _) in KINDS.items():
        with Rig(Node(profile=options.profile), {"sender": SENDERS}, kind) as rig:
            rounds = rig.rounds(ROUNDS, MESSAGES, warm_up=STEADY)
        name = f"sizes, {kind} {size} B"
        yield Figure(name, median(rounds, "ratio"), "x bare HMAC")
        rate = 1 / median(rounds, "message_seconds")
        yield Figure(f"{name}: rate", rate, "messages per CPU second")
