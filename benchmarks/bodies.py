"""Bodies to send: distinct, canonical, and signed, so that no part of a node refuses them.

Body number ``n`` of a kind is the same in every process that makes it, so that who receives it can
check it against what was sent.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from functools import cache

from benchmarks.network import local_node
from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.message import MessageType, pack_opaque
from stellar_overlay.wire.scp import StatementType, sign_statement

SIGNERS = 500
"""Validators of the benchmarks' network; half of the statements that a node takes for one slot."""
_SIGNATURES_SIZE = 76
_ENVELOPE_TYPE_TX = 2


def _words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


QUORUM_SET = (
    _words(MessageType.SCP_QUORUMSET, 1, 1, 0) + local_node(bytes(32)).peer_id.key + _words(0)
)
"""The SCP_QUORUMSET that all statements name."""
TX_SET = (
    _words(MessageType.GENERALIZED_TX_SET, 1) + bytes(32) + _words(2) + _words(0, 0) + _words(0, 0)
)
"""The empty GENERALIZED_TX_SET for which all statements vote."""
ITEMS = {hashlib.sha256(body[4:]).digest(): body for body in (QUORUM_SET, TX_SET)}
"""What a node may ask whoever sends it these statements for, by hash."""


@cache
def _signers() -> Sequence[LocalNode]:
    return [local_node(struct.pack(">Q24x", number + 1)) for number in range(SIGNERS)]


@cache
def _pledges() -> bytes:
    """Return a PREPARE of two ballots with one value: it moves nobody's tracking ledger."""
    quorum_set_hash, tx_set_hash = ITEMS
    upgrades = (_words(16) + bytes(16)) * 3
    value = tx_set_hash + bytes(8) + _words(3) + upgrades + _words(0)
    ballot = pack_opaque(value)
    return b"".join(
        (
            quorum_set_hash,
            _words(2) + ballot,
            _words(1, 1) + ballot,
            _words(0, 0, 1),
        )
    )


def _prepare(number: int) -> bytes:
    slot, signer = divmod(number, SIGNERS)
    node = _signers()[signer]
    head = struct.pack(">I32sQI", 0, node.peer_id.key, 1 + slot, StatementType.PREPARE)
    return sign_statement(node, head + _pledges()).body


@cache
def _payment_template() -> bytes:
    """Return a native payment within time bounds, as wallets make it."""
    account = _words(0) + bytes(32)
    head = _words(MessageType.TRANSACTION, _ENVELOPE_TYPE_TX) + account + _words(100) + bytes(8)
    operation = _words(0, 1) + account + _words(0) + struct.pack(">Q", 10_000_000)
    conditions = _words(1) + bytes(16)
    return head + conditions + _words(0, 1) + operation + _words(0, 1, 0, 64) + bytes(64)


def _signed(template: bytes, number: int) -> bytes:
    """Return a TRANSACTION like ``template``, of an account of its own and with a number."""
    node = _signers()[number % SIGNERS]
    key = node.peer_id.key
    sequence = struct.pack(">Q", number + 1)
    middle = template[56:-_SIGNATURES_SIZE]
    transaction = template[8:12] + key + template[44:48] + sequence + middle
    digest = hashlib.sha256(node.network_id + _words(_ENVELOPE_TYPE_TX) + transaction).digest()
    signature = _words(1) + key[-4:] + pack_opaque(node.sign(digest))
    return template[:8] + transaction + signature


def _payment(number: int) -> bytes:
    return _signed(_payment_template(), number)


@cache
def _soroban_template() -> bytes:
    from tests.xdr_extremes import SWAP  # its import takes a second, and few need it

    return _words(MessageType.TRANSACTION) + SWAP


def _soroban_call(number: int) -> bytes:
    return _signed(_soroban_template(), number)


KINDS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "payment": (220, _payment),
    "prepare": (400, _prepare),
    "soroban": (1352, _soroban_call),
}
"""What can be sent: the size of a body, and what makes the n-th."""


def bodies(kind: str, first: int, count: int) -> list[bytes]:
    """Return so many bodies of a kind, from number ``first`` on."""
    size, make = KINDS[kind]
    made = [make(number) for number in range(first, first + count)]
    assert all(len(body) == size for body in made)
    return made
