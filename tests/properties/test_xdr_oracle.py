"""Whatever happens to a message, the checker and stellar_sdk agree on it, but for named reasons.

A body is good for stellar_sdk when it decodes and encodes again to the same bytes. Run as a script
with a number of mutations, and perhaps a seed, for a long search.
"""

from __future__ import annotations

import random
import re
import struct
import sys
from collections import Counter
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk.xdr import StellarMessage
from twisted.trial.unittest import SynchronousTestCase

from scripts.xdr_check import idl
from scripts.xdr_check.schema import Schema
from stellar_overlay.error import XdrError
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import MessageType
from tests.xdr_samples import SAMPLES

MAX_SAMPLE = 6_000
"""Bytes of a sample that is mutated: stellar_sdk takes a millisecond for so many."""
WORDS = (0, 1, 2, 3, 4, 5, 20, 256, 2**31 - 1, 2**31, 2**32 - 1)

SCHEMA = Schema()
NAMES = sorted(name for name, body in SAMPLES.items() if len(body) <= MAX_SAMPLE)

WE_ALONE_REFUSE = {
    "quorum sets are limited in width": r"^SCP_QUORUMSET\S*: \d+ in all",
    "values are limited in depth": r"more than (5|200) levels",
    "envelopes are limited in size": r"must end at byte",
    "work is limited": r"too many small elements",
}
"""Why we may refuse what stellar_sdk takes: the text of our error."""
THEY_ALONE_REFUSE = {
    "any code of ERROR_MSG is legal": r"is not a valid ErrorCode",
    "any type in DONT_HAVE is legal": r"is not a valid MessageType",
    "any commandType of a survey is legal": r"is not a valid SurveyMessageCommandType",
    "stellar_sdk is limited in depth": r"Maximum decoding depth reached|maximum recursion depth",
}
"""Why stellar_sdk may refuse what we take: the text of its error."""


class Mutation(NamedTuple):
    """One thing to do to a body.

    :param where: any number; taken modulo the number of places.
    :param what: any number; what it means depends on the kind.
    """

    kind: str
    where: int
    what: int


def mutate(body: bytes, other: bytes, mutation: Mutation) -> bytes:
    """Return ``body`` changed; ``other`` is what a splice goes on with."""
    kind, where, what = mutation
    at = where % (len(body) // 4 + 1) * 4
    word = struct.pack(">I", WORDS[what % len(WORDS)])
    if kind == "flip" and body:
        at = where % len(body)
        return body[:at] + bytes([body[at] ^ 1 << what % 8]) + body[at + 1 :]
    if kind == "overwrite":
        return body[:at] + word + body[at + 4 :]
    if kind == "increment":
        number = int.from_bytes(body[at : at + 4], "big") + what % 3 - 1
        return body[:at] + struct.pack(">I", number % 2**32) + body[at + 4 :]
    if kind == "insert":
        return body[:at] + word + body[at:]
    if kind == "delete":
        return body[:at] + body[at + 4 :]
    if kind == "truncate":
        return body[: where % (len(body) + 1)]
    if kind == "extend":
        return body + word[: what % 4 + 1]
    if kind == "swap":
        second = what % (len(body) // 4 + 1) * 4
        first, second = sorted((at, second))
        words = body[first : first + 4], body[second : second + 4]
        return body[:first] + words[1] + body[first + 4 : second] + words[0] + body[second + 4 :]
    if kind == "splice":
        return body[:at] + other[what % (len(other) // 4 + 1) * 4 :]
    return body


KINDS = (
    "flip",
    "overwrite",
    "increment",
    "insert",
    "delete",
    "truncate",
    "extend",
    "swap",
    "splice",
)


def verdict_of_sdk(body: bytes) -> str:
    """Return why stellar_sdk does not find ``body`` canonical, or nothing."""
    try:
        message = StellarMessage.from_xdr_bytes(body)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if message.to_xdr_bytes() == body else "encodes to other bytes"


def our_verdict(body: bytes) -> str:
    """Return why the checker refuses ``body``, or nothing."""
    try:
        xdr_check.check(body)
    except XdrError as error:
        return str(error)
    return ""


def disagreement(body: bytes) -> str:
    """Return the name of the rule on which the two disagree; nothing when they agree.

    :raises AssertionError: when no rule explains it.
    """
    ours, theirs = our_verdict(body), verdict_of_sdk(body)
    if bool(ours) == bool(theirs):
        return ""
    reasons = WE_ALONE_REFUSE if ours else THEY_ALONE_REFUSE
    for reason, pattern in reasons.items():
        if re.search(pattern, ours or theirs):
            return reason
    raise AssertionError(f"unexplained: ours {ours!r}, theirs {theirs!r}, body {body.hex()}")


MUTATIONS = st.builds(
    Mutation, st.sampled_from(KINDS), st.integers(0, 2**16), st.integers(0, 2**16)
)


def random_value(type_: idl.Type, rng: random.Random, room: int = 12) -> bytes:
    """Return canonical bytes of a type, with all arms equally likely while there is room.

    :param room: how many levels of types may come; then arms and arrays are the smallest.
    """
    inner = room - 1
    match type_:
        case idl.Plain(size):
            return rng.randbytes(size)
        case idl.Enum():
            return struct.pack(">I", rng.choice(type_.values))
        case idl.Blob(bound):
            size = rng.choice((0, 1, 2, 3, 4, 5, min(bound or 9, 64)))
            size = min(size, bound or size)
            return struct.pack(">I", size) + rng.randbytes(size) + bytes(-size % 4)
        case idl.Name(name):
            return random_value(SCHEMA.type(name), rng, inner)
        case idl.Repeat(item, times):
            return b"".join(random_value(item, rng, inner) for _ in range(times))
        case idl.List(item, bound):
            count = rng.choice((0, 1, 1, 2)) if room > 0 else 0
            items = [random_value(item, rng, inner) for _ in range(min(count, bound or count))]
            return struct.pack(">I", len(items)) + b"".join(items)
        case idl.Optional(item):
            flag = rng.randrange(2) if room > 0 else 0
            return struct.pack(">I", flag) + (random_value(item, rng, inner) if flag else b"")
        case idl.Struct(fields):
            return b"".join(random_value(field.type, rng, inner) for field in fields)
        case idl.Union(_, arms):
            arm = rng.choice(arms)
            if room <= 0:
                arm = min(arms, key=lambda arm: SCHEMA.min_size(arm.field.type))
            return struct.pack(">I", rng.choice(arm.tags)) + random_value(
                arm.field.type, rng, inner
            )
    return b""


def random_message(rng: random.Random) -> bytes:
    """Return a canonical message; transactions are likelier than their share of the types."""
    kind = rng.choice((*MessageType, *[MessageType.TRANSACTION] * 40))
    root = SCHEMA.type("StellarMessage")
    assert isinstance(root, idl.Union)
    (arm,) = (arm for arm in root.arms if kind in arm.tags)
    return struct.pack(">I", kind) + random_value(arm.field.type, rng, rng.choice((10, 20, 30)))


class OracleTests(SynchronousTestCase):
    """The checker against an independent decoder."""

    @given(
        st.sampled_from(NAMES), st.sampled_from(NAMES), st.lists(MUTATIONS, min_size=1, max_size=3)
    )
    @settings(max_examples=3_000, deadline=None, derandomize=True, database=None)
    def test_changed_samples(self, name: str, other: str, mutations: list[Mutation]) -> None:
        """A sample with up to three changes is refused by both or by neither."""
        body = SAMPLES[name]
        for mutation in mutations:
            body = mutate(body, SAMPLES[other], mutation)
        disagreement(body)

    @given(st.integers(0, 2**32), st.lists(MUTATIONS, max_size=2))
    @settings(max_examples=3_000, deadline=None, derandomize=True, database=None)
    def test_any_arm(self, seed: int, mutations: list[Mutation]) -> None:
        """A message made at random from the definitions is taken by both, until it is changed."""
        body = random_message(random.Random(seed))
        if our_verdict(body):
            self.assertIn(disagreement(body), WE_ALONE_REFUSE)
        for mutation in mutations:
            body = mutate(body, body, mutation)
        disagreement(body)


def search(count: int, seed: int) -> Counter[str]:
    """Try random changes; return how often each rule explained a disagreement."""
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    for _ in range(count):
        other = SAMPLES[rng.choice(NAMES)]
        body = random_message(rng) if rng.randrange(2) else SAMPLES[rng.choice(NAMES)]
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            mutation = Mutation(rng.choice(KINDS), rng.getrandbits(16), rng.getrandbits(16))
            body = mutate(body, other, mutation)
        agreed = "both refuse it" if our_verdict(body) else "both take it"
        found[disagreement(body) or agreed] += 1
    return found


if __name__ == "__main__":
    numbers = [*map(int, sys.argv[1:]), 10_000, 1]
    for rule, times in search(*numbers[:2]).most_common():
        print(f"{times:8} {rule}")
