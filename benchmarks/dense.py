"""Ten senders push the same messages as fast as their credit allows: nine of ten are duplicates."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.processes import Node
from benchmarks.report import Figure, at_most
from benchmarks.rounds import STEADY, Options, Rig, median

SENDERS = 10
ROUNDS = 7
MESSAGES = 4_000
MOST = 3.5
ROUNDS_BESIDE = 3
MESSAGES_BESIDE = 2_000


def measure(options: Options) -> Iterator[Figure]:
    """Yield what a received SCP message of 400 bytes costs, and what that is made of."""
    with Rig(Node(profile=options.profile), {"sender": SENDERS}) as rig:
        rounds = rig.rounds(ROUNDS, MESSAGES, warm_up=STEADY)
    mixed = median(rounds, "message_seconds")
    yield at_most("dense", median(rounds, "ratio"), "x bare HMAC", MOST)
    yield Figure("dense: rate", 1 / mixed, "messages per CPU second")
    yield Figure("dense: bare HMAC", 1 / median(rounds, "bare_seconds"), "per CPU second")
    yield Figure("dense: batch", median(rounds, "messages_per_read"), "messages per read")
    if options.profile is None:
        yield from _made_of(mixed)
        yield from _with_real_verifier()


def _made_of(mixed: float) -> Iterator[Figure]:
    """Yield what a message costs the first time, from a single sender, and what a repeated one."""
    with Rig(Node(), {"sender": 1}) as rig:
        rounds = rig.rounds(ROUNDS_BESIDE, MESSAGES_BESIDE, warm_up=STEADY)
    first = median(rounds, "message_seconds")
    repeated = (SENDERS * mixed - first) / (SENDERS - 1)
    yield Figure("dense: a message that is new", 1e6 * first, "us")
    yield Figure("dense: a duplicate", 1e6 * repeated, "us")


def _with_real_verifier() -> Iterator[Figure]:
    with Rig(Node(accepts_all=False), {"sender": SENDERS}) as rig:
        rounds = rig.rounds(ROUNDS_BESIDE, MESSAGES_BESIDE, warm_up=STEADY)
    yield Figure("dense, signatures verified", median(rounds, "ratio"), "x bare HMAC")
    rate = 1 / median(rounds, "message_seconds")
    yield Figure("dense, signatures verified: rate", rate, "messages per CPU second")
