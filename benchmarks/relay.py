"""Ten senders push the same messages, which go to K receivers and to the slower of the senders.

Senders are at most as far ahead as the slowest receiver has granted; every receiver checks that it
gets each message once.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.processes import Node
from benchmarks.report import Figure, at_most
from benchmarks.rounds import Options, Rig, median

SENDERS = 10
ROUNDS = 5
RECEIVERS = {1: 2_000, 8: 1_600, 24: 800}
"""How many messages are relayed in a round to so many receivers."""
MOST = 3.0
MOST_AT = 24


def measure(options: Options) -> Iterator[Figure]:
    """Yield what a message costs that is received or sent."""
    for receivers, messages in RECEIVERS.items():
        node = Node(mode="relay", profile=options.profile)
        with Rig(node, {"sender": SENDERS, "receiver": receivers}) as rig:
            rounds = rig.rounds(ROUNDS, messages)
        name, ratio = f"relay to {receivers}", median(rounds, "ratio")
        if receivers == MOST_AT:
            yield at_most(name, ratio, "x bare HMAC", MOST)
        else:
            yield Figure(name, ratio, "x bare HMAC")
        rate = 1 / median(rounds, "message_seconds")
        yield Figure(f"{name}: rate", rate, "in and out per CPU s")
        yield Figure(f"{name}: batch", median(rounds, "messages_per_read"), "messages per read")
        yield Figure(f"{name}: sent", median(rounds, "sent") / messages, "per unique message")
