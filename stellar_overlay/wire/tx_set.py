"""Transaction sets as bytes: their hashes, what is in them, and sets of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence

from stellar_overlay.wire.message import Message, MessageType, message_type
from stellar_overlay.wire.transaction import end_of_envelope

BASE_FEE = 100
"""Stroops that a transaction of a generalized set pays per operation; the network's least."""

_TXS_OF_TX_SET_AT = 36
_PHASES_AT = 40


def tx_set_hash(body: bytes) -> bytes:
    """Return the SHA-256 by which a TX_SET or GENERALIZED_TX_SET is asked for.

    That of the former leaves out the number of transactions (messages.md 3.3).
    """
    view = memoryview(body)
    if _is_generalized(body):
        return hashlib.sha256(view[4:]).digest()
    digest = hashlib.sha256(view[4:_TXS_OF_TX_SET_AT])
    digest.update(view[_TXS_OF_TX_SET_AT + 4 :])
    return digest.digest()


def transactions_of(body: bytes) -> Iterator[bytes]:
    """Yield the TransactionEnvelopes of a TX_SET or GENERALIZED_TX_SET that passed the check.

    In the order in which they are written, through all phases.
    """
    if not _is_generalized(body):
        yield from _envelopes(body, _TXS_OF_TX_SET_AT)
        return
    at = _PHASES_AT + 4
    for _ in range(_word(body, _PHASES_AT)):
        walk = _parallel_phase if _word(body, at) else _sequential_phase
        at = yield from walk(body, at + 4)


def tx_set(previous_ledger_hash: bytes, envelopes: Sequence[bytes]) -> Message:
    """Return a TX_SET, as the network had them before protocol 20.

    :param previous_ledger_hash: 32 bytes.
    :param envelopes: XDR of TransactionEnvelopes, in any order.
    """
    return Message(
        _pack_words(MessageType.TX_SET) + previous_ledger_hash + _pack_envelopes(envelopes)
    )


def generalized_tx_set(
    previous_ledger_hash: bytes, envelopes: Sequence[bytes], *, base_fee: int = BASE_FEE
) -> Message:
    """Return a GENERALIZED_TX_SET of classic transactions.

    It has the two phases that core insists on, the second, for Soroban, empty and parallel (since
    protocol 23; core TxSetFrame.cpp validateTxSetXDRStructure, TxSetXDRFrame::makeEmpty).

    :param previous_ledger_hash: 32 bytes.
    :param envelopes: XDR of TransactionEnvelopes, in any order.
    """
    head = _pack_words(MessageType.GENERALIZED_TX_SET, 1) + previous_ledger_hash
    classic = _pack_words(0, 0)
    if envelopes:  # core refuses an empty component
        fee = _pack_words(1) + base_fee.to_bytes(8, "big", signed=True)
        classic = _pack_words(0, 1, 0) + fee + _pack_envelopes(envelopes)
    soroban = _pack_words(1, 0, 0)
    return Message(head + _pack_words(2) + classic + soroban)


def _is_generalized(body: bytes) -> bool:
    """Tell which of the two kinds of sets it is.

    :raises ValueError: when it is neither.
    """
    kind = message_type(body)
    if kind not in (MessageType.TX_SET, MessageType.GENERALIZED_TX_SET):
        raise ValueError(f"a {kind.name} is no transaction set")
    return kind is MessageType.GENERALIZED_TX_SET


def _word(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "big")


def _pack_words(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "big") for word in words)


def _pack_envelopes(envelopes: Sequence[bytes]) -> bytes:
    """Return a vector of envelopes in the order of their hashes (core sortTxsInHashOrder)."""
    ordered = sorted(envelopes, key=lambda envelope: hashlib.sha256(envelope).digest())
    return _pack_words(len(ordered)) + b"".join(ordered)


# Each of these yields the envelopes of what begins at ``at``, and returns where that ends.


def _sequential_phase(body: bytes, at: int) -> Generator[bytes, None, int]:
    components = _word(body, at)
    at += 4
    for _ in range(components):
        at = yield from _envelopes(body, _end_of_base_fee(body, at + 4))
    return at


def _parallel_phase(body: bytes, at: int) -> Generator[bytes, None, int]:
    at = _end_of_base_fee(body, at)
    stages = _word(body, at)
    at += 4
    for _ in range(stages):
        clusters = _word(body, at)
        at += 4
        for _ in range(clusters):
            at = yield from _envelopes(body, at)
    return at


def _envelopes(body: bytes, at: int) -> Generator[bytes, None, int]:
    count = _word(body, at)
    at += 4
    for _ in range(count):
        start, at = at, end_of_envelope(body, at)
        yield body[start:at]
    return at


def _end_of_base_fee(body: bytes, at: int) -> int:
    return at + (12 if _word(body, at) else 4)
