"""Bodies as big, deep or dense as they come: what is just legal, and what must be refused fast.

Made of raw words, because stellar_sdk would take minutes. All of them are canonical, but for what
makes them refusable. :data:`LEGAL`, :data:`MANY`, :data:`ILLEGAL` and :data:`DEEP` hold functions
that make them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.xdr_check import MAX_TRANSACTION_BYTES
from tests.xdr_transactions import ENVELOPES, swap

MAX_BODY = 16 * 1024 * 1024
"""Bytes of the longest record that a peer may send."""
MAX_TX_SET = 10 * 1024 * 1024
"""Bytes that the transactions of a legal set can have (core Herder.h: 5 MiB of each kind)."""

PAYMENT = ENVELOPES["memo 2"].to_xdr_bytes()
"""A payment with a memo: 220 bytes."""
SWAP = swap().to_xdr_bytes()
"""The call of a contract: 1,348 bytes, so that its message has 1,352."""


def words(*values: int) -> bytes:
    """Return XDR unsigned ints."""
    return struct.pack(f">{len(values)}I", *values)


ADDRESS = words(1) + bytes(32)
"""An SCAddress of a contract."""


def array(item: bytes, size: int) -> bytes:
    """Return an array of as many equal items as there is room for in ``size`` bytes."""
    count = (size - 4) // len(item)
    return words(count) + item * count


def envelope(
    operations: bytes = words(0), *, ext: bytes = words(0), signatures: bytes = words(0)
) -> bytes:
    """Return a TransactionEnvelope without conditions and memo."""
    head = words(2, 0) + bytes(32) + words(100) + bytes(8) + words(0, 0)
    return head + operations + ext + signatures


def invoke(args: bytes = words(0), auth: bytes = words(0)) -> bytes:
    """Return the operation, alone in its array, that calls a contract without a name."""
    return words(1, 0, 24, 0) + ADDRESS + words(0) + args + auth


def invocation(inner: bytes = words(0)) -> bytes:
    """Return a SorobanAuthorizedInvocation of a function without a name or arguments."""
    return words(0) + ADDRESS + words(0, 0) + inner


def claimable(predicate: bytes) -> bytes:
    """Return the operation, alone in its array, that creates a balance for ten claimants."""
    claimant = words(0, 0) + bytes(32) + predicate
    return words(1, 0, 14, 0) + bytes(8) + words(10) + claimant * 10


def transaction(envelope_: bytes) -> bytes:
    """Return a TRANSACTION."""
    return words(MessageType.TRANSACTION) + envelope_


def tx_set(envelope_: bytes, size: int = MAX_BODY) -> bytes:
    """Return a TX_SET full of equal transactions."""
    head = words(MessageType.TX_SET) + bytes(32)
    return head + array(envelope_, size - len(head))


def generalized(*phases: bytes) -> bytes:
    """Return a GENERALIZED_TX_SET."""
    kind = words(MessageType.GENERALIZED_TX_SET, 1)
    return kind + bytes(32) + words(len(phases)) + b"".join(phases)


def full_of_phases(phase: bytes) -> bytes:
    """Return a GENERALIZED_TX_SET full of equal phases."""
    head = generalized()[:-4]
    return head + array(phase, MAX_BODY - len(head))


def parallel(stages: bytes) -> bytes:
    """Return a parallel phase without base fee."""
    return words(1, 0) + stages


def classic(components: bytes) -> bytes:
    """Return a classic phase."""
    return words(0) + components


def component(envelopes: bytes) -> bytes:
    """Return a component with a base fee."""
    return words(0, 1) + bytes(8) + envelopes


def full_of_values(item: bytes) -> bytes:
    """Return a TX_SET of transactions that pass as many SCVals as they can."""
    room = MAX_TRANSACTION_BYTES - len(envelope(invoke())) + 4
    return tx_set(envelope(invoke(array(item, room))))


def full_of_auth(entry: bytes) -> bytes:
    """Return a TX_SET of transactions with as many authorizations as they can hold."""
    room = MAX_TRANSACTION_BYTES - len(envelope(invoke())) + 4
    return tx_set(envelope(invoke(auth=array(entry, room))))


def full_of_keys(key: bytes) -> bytes:
    """Return a TX_SET of transactions with as many ledger keys as they can hold."""
    room = MAX_TRANSACTION_BYTES - len(envelope()) - 40
    return tx_set(envelope(ext=words(1, 0) + array(key, room) + words(0) + bytes(20)))


def full_of_operations(operation: bytes) -> bytes:
    """Return a TX_SET of transactions of a hundred equal operations."""
    return tx_set(envelope(words(100) + operation * 100))


def mixed(size: int = MAX_TX_SET) -> bytes:
    """Return a GENERALIZED_TX_SET of payments and, in 64 clusters, Soroban transactions."""
    cluster = array(SWAP, size // 2 // 64)
    payments = component(array(PAYMENT, size // 2))
    stage = words(64) + cluster * 64
    return generalized(classic(words(1) + payments), parallel(words(1) + stage))


def every_kind() -> bytes:
    """Return a TX_SET of transactions of all forms, again and again."""
    envelopes = b"".join(one.to_xdr_bytes() for one in ENVELOPES.values())
    times = MAX_TX_SET // len(envelopes)
    head = words(MessageType.TX_SET) + bytes(32) + words(times * len(ENVELOPES))
    return head + envelopes * times


def hundred_payments() -> bytes:
    """Return a transaction of a hundred operations, with a signature."""
    operation = words(0, 1, 0) + bytes(32) + words(0) + bytes(8)
    signatures = words(1) + b"hint" + words(64) + bytes(64)
    return envelope(words(100) + operation * 100, signatures=signatures)


LEGAL: dict[str, Callable[[], bytes]] = {
    "payments": lambda: tx_set(PAYMENT, MAX_TX_SET),
    "payments, generalized": lambda: generalized(
        classic(words(1) + component(array(PAYMENT, MAX_TX_SET)))
    ),
    "soroban": lambda: tx_set(SWAP, MAX_TX_SET),
    "soroban, one cluster": lambda: generalized(
        classic(words(0)), parallel(words(1, 1) + array(SWAP, MAX_TX_SET))
    ),
    "soroban, a cluster each": lambda: generalized(
        classic(words(0)), parallel(words(1) + array(words(1) + SWAP, MAX_TX_SET))
    ),
    "soroban, a stage each": lambda: generalized(
        classic(words(0)), parallel(array(words(1, 1) + SWAP, MAX_TX_SET))
    ),
    "half payments, half soroban": mixed,
    "a hundred payments each": lambda: tx_set(hundred_payments(), MAX_TX_SET),
    "every kind of transaction": every_kind,
}
"""Transaction sets of 10 MiB that must pass."""

VOID = words(1)
MANY = {
    "void values": lambda: full_of_values(VOID),
    "numbers": lambda: full_of_values(words(3, 0)),
    "booleans": lambda: full_of_values(words(0, 1)),
    "symbols of one letter": lambda: full_of_values(words(15, 1) + b"a\0\0\0"),
    "bytes of one byte": lambda: full_of_values(words(13, 1) + b"a\0\0\0"),
    "vectors of one void": lambda: full_of_values(words(16, 1, 1) + VOID),
    "maps of one pair of voids": lambda: full_of_values(words(17, 1, 1) + VOID * 2),
    "vectors 199 deep": lambda: full_of_values(words(16, 1, 1) * 199 + VOID),
    "instances with a reference": lambda: full_of_values(
        words(19, 2) + ADDRESS + words(1) + b"a\0\0\0" + words(1, 0)
    ),
    "keys of contract data": lambda: full_of_keys(words(6) + ADDRESS + words(16, 1, 1, 1, 0)),
    "keys of settings": lambda: full_of_keys(words(8, 0)),
    "authorizations": lambda: full_of_auth(words(0, 1, 1, 0, 1, 0)),
    "authorizations with delegates": lambda: full_of_auth(
        words(3) + ADDRESS + bytes(12) + VOID + words(0, 1, 1, 0, 1, 0)
    ),
    "empty operations": lambda: full_of_operations(words(0, 9)),
    "uploads of a byte": lambda: full_of_operations(words(0, 24, 2, 1) + b"a\0\0\0" + words(0)),
    "creations of contracts": lambda: full_of_operations(words(0, 24, 3, 1, 0, 1, 0, 0)),
    "data of a byte": lambda: full_of_operations(
        words(0, 10, 1) + b"a\0\0\0" + words(1, 1) + b"a\0\0\0"
    ),
    "paths": lambda: full_of_operations(
        words(0, 2, 0) + bytes(8) + words(0) + bytes(32) + words(0) + bytes(8) + array(words(0), 24)
    ),
    "options": lambda: full_of_operations(
        words(0, 5, 0) + words(1, 0) * 6 + words(1, 1) + b"a\0\0\0" + words(0)
    ),
    "predicates 199 deep": lambda: tx_set(envelope(claimable(words(3, 1) * 199 + words(0)))),
    "smallest transactions": lambda: tx_set(envelope()),
    "empty signatures": lambda: tx_set(envelope(signatures=words(20) + words(0, 0) * 20)),
    "empty footprints": lambda: tx_set(envelope(ext=words(1, 1, 0, 0, 0) + bytes(20))),
    "empty phases": lambda: full_of_phases(classic(words(0))),
    "empty components": lambda: generalized(classic(array(words(0, 0, 0), MAX_BODY - 60))),
    "empty stages": lambda: generalized(parallel(array(words(0), MAX_BODY - 60))),
    "empty clusters": lambda: generalized(parallel(words(1) + array(words(0), MAX_BODY - 60))),
}
"""Bodies of 16 MiB that are legal in every part, but for the work that they make."""

NODE = words(0) + bytes(32)
ILLEGAL: dict[str, Callable[[], bytes]] = {
    "empty inner quorum sets": lambda: (
        words(MessageType.SCP_QUORUMSET, 1, 0) + array(words(1, 0, 0), MAX_BODY - 12)
    ),
    "validators": lambda: (
        words(MessageType.SCP_QUORUMSET, 1) + array(NODE, MAX_BODY - 12) + words(0)
    ),
    "values in one vector": lambda: transaction(
        envelope(invoke(words(1, 16, 1) + array(VOID, MAX_BODY - 120)))
    ),
    "a contract of 16 MiB": lambda: transaction(
        envelope(words(1, 0, 24, 2, MAX_BODY - 120) + bytes(MAX_BODY - 120) + words(0))
    ),
    "votes": lambda: (
        words(MessageType.SCP_MESSAGE, 0)
        + bytes(40)
        + words(3)
        + bytes(32)
        + array(words(0), MAX_BODY - 160)
        + words(0, 0)
    ),
}
"""Bodies of 16 MiB that are too big, wide or many in one place."""


def deep_quorum_set(levels: int) -> bytes:
    """Return an SCP_QUORUMSET of so many levels, its root included."""
    return words(MessageType.SCP_QUORUMSET) + words(1, 0, 1) * (levels - 1) + words(1, 0, 0)


def deep_value(link: bytes, levels: int) -> bytes:
    """Return a TRANSACTION with an SCVal of so many levels; ``link`` ends before the next."""
    return transaction(envelope(invoke(words(1) + link * (levels - 1) + VOID)))


def deep_predicate(link: bytes, levels: int) -> bytes:
    """Return a TRANSACTION with a ClaimPredicate of so many levels."""
    claimant = words(1, 0, 0) + bytes(32) + link * (levels - 1) + words(0)
    return transaction(envelope(words(1, 0, 14, 0) + bytes(8) + claimant))


def deep_invocation(levels: int) -> bytes:
    """Return a TRANSACTION with so many levels of authorized calls."""
    tree = invocation(words(1)) * (levels - 1) + invocation()
    return transaction(envelope(invoke(auth=words(1, 0) + tree)))


def deep_delegates(levels: int) -> bytes:
    """Return a TRANSACTION with so many levels of delegates."""
    link = ADDRESS + VOID
    tree = words(1) + (link + words(1)) * (levels - 1) + link + words(0)
    auth = words(1, 3) + ADDRESS + bytes(12) + VOID + tree + invocation()
    return transaction(envelope(invoke(auth=auth)))


DEEP: dict[str, Callable[[int], bytes]] = {
    "quorum sets": deep_quorum_set,
    "vectors": lambda levels: deep_value(words(16, 1, 1), levels),
    "maps": lambda levels: deep_value(words(17, 1, 1) + VOID, levels),
    "instances": lambda levels: deep_value(words(19, 1, 1, 1) + VOID, levels),
    "predicates NOT": lambda levels: deep_predicate(words(3, 1), levels),
    "predicates AND": lambda levels: deep_predicate(words(1, 1), levels),
    "predicates OR": lambda levels: deep_predicate(words(2, 1), levels),
    "invocations": deep_invocation,
    "delegates": deep_delegates,
}
"""Values that contain themselves, by how many levels they are to have."""
