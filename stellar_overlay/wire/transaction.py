"""Flat views of transactions: what the overlay must know of them, read in place.

Signatures come last, after operations of any length. They are found by walking what is before
them, never by searching from the end: the sender chooses all bytes, so an operation or a signature
can be made to look like another list of signatures. The walkers are those of the structural check.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from stellar_overlay.wire import xdr_check

_ENVELOPE_AT = 4
_TX_AT = 8
_KEY_SIZE = 32
_HINT_SIZE = 4
_FEE_AND_SEQUENCE = struct.Struct(">Iq")
_TIME_BOUNDS = struct.Struct(">QQ")


class EnvelopeType(IntEnum):
    """The forms in which a transaction travels (EnvelopeType, Stellar-ledger-entries.x)."""

    TX_V0 = 0
    TX = 2
    TX_FEE_BUMP = 5


class DecoratedSignature(NamedTuple):
    """A signature of up to 64 bytes of anything, and the last 4 bytes of its signer's key."""

    hint: bytes
    signature: bytes


class _Head(NamedTuple):
    """What comes before the operations. ``end`` is where the memo begins."""

    source: bytes
    fee: int
    sequence: int
    time_bounds: tuple[int, int] | None
    end: int


def tx_full_hash(body: bytes) -> bytes:
    """Return the SHA-256 of the envelope in a TRANSACTION: by this it is advertised and demanded.

    Signatures are part of it (messages.md 2.1).
    """
    return hashlib.sha256(memoryview(body)[_ENVELOPE_AT:]).digest()


def end_of_envelope(body: bytes, at: int) -> int:
    """Return where a TransactionEnvelope ends that begins at ``at`` of a checked body."""
    return xdr_check._TransactionEnvelope(body, at, len(body), [xdr_check.WORK_BUDGET], 1)


@dataclass(frozen=True)
class TransactionView:
    """The envelope in the body of a TRANSACTION that passed the structural check.

    Nothing here says that a signature is good, or that an account exists.
    """

    body: bytes

    @property
    def kind(self) -> EnvelopeType:
        """Which of the three it is."""
        return EnvelopeType(_word(self.body, _ENVELOPE_AT))

    @property
    def source(self) -> bytes:
        """The 32-byte key of the account that pays: of a fee bump, its fee source.

        Of a multiplexed account the key alone.
        """
        return self._head.source

    @property
    def fee(self) -> int:
        """The most that is paid, in stroops; of a fee bump any 64-bit number, even a negative."""
        return self._head.fee

    @property
    def sequence(self) -> int:
        """The sequence number; of a fee bump, that of the transaction inside."""
        return self._head.sequence

    @property
    def time_bounds(self) -> tuple[int, int] | None:
        """The Unix times from and up to which it is good; 0 as the latter is for ever.

        Those of the transaction inside a fee bump. None when it is good at any time.
        """
        return self._head.time_bounds

    @cached_property
    def inner(self) -> TransactionView | None:
        """The transaction inside a fee bump."""
        if self.kind is not EnvelopeType.TX_FEE_BUMP:
            return None
        start = _account(self.body, _TX_AT)[1] + 8
        budget = [xdr_check.WORK_BUDGET]
        end = xdr_check._TransactionV1Envelope(self.body, start + 4, len(self.body), budget)
        # Inside is the same as a TransactionEnvelope, number of its type included.
        return TransactionView(self.body[:_ENVELOPE_AT] + self.body[start:end])

    @cached_property
    def signatures(self) -> tuple[DecoratedSignature, ...]:
        """The signatures of the outermost envelope, in order, repeated ones included."""
        found = []
        at = self._end + 4
        for _ in range(_word(self.body, self._end)):
            start = at + _HINT_SIZE + 4
            end = start + _word(self.body, at + _HINT_SIZE)
            found.append(DecoratedSignature(self.body[at : at + _HINT_SIZE], self.body[start:end]))
            at = end + (start - end) % 4
        return tuple(found)

    @property
    def is_signed(self) -> bool:
        """Whether the outermost envelope has a signature, of whomever."""
        return _word(self.body, self._end) > 0

    def contents_hash(self, network_id: bytes) -> bytes:
        """Return what the signatures sign, and what the network calls the transaction's hash.

        A V0 is hashed as if it were of today, which is why its key gets a type (core
        TransactionFrame::getContentsHash, FeeBumpTransactionFrame::getContentsHash).

        :param network_id: 32 bytes.
        """
        if self.kind is EnvelopeType.TX_V0:
            tag = EnvelopeType.TX.to_bytes(4, "big") + bytes(4)
        else:
            tag = self.kind.to_bytes(4, "big")
        digest = hashlib.sha256(network_id + tag)
        digest.update(memoryview(self.body)[_TX_AT : self._end])
        return digest.digest()

    def signature_checks(self, network_id: bytes) -> tuple[tuple[bytes, bytes, bytes], ...]:
        """Return key, signed bytes and signature of what :attr:`source` seems to have signed.

        That is each signature of the outermost envelope whose hint is the source's: up to 20, of
        any length up to 64, and none when others sign for the account.
        """
        hint = self.source[-_HINT_SIZE:]
        signatures = [one.signature for one in self.signatures if one.hint == hint]
        if not signatures:
            return ()
        signed = self.contents_hash(network_id)
        return tuple((self.source, signed, signature) for signature in signatures)

    @cached_property
    def _head(self) -> _Head:
        body = self.body
        if self.inner is not None:
            source, at = _account(body, _TX_AT)
            fee = int.from_bytes(body[at : at + 8], "big", signed=True)
            end = at + 8 + len(self.inner.body) - _ENVELOPE_AT
            return _Head(source, fee, self.inner.sequence, self.inner.time_bounds, end)
        if self.kind is EnvelopeType.TX_V0:
            source, at = body[_TX_AT : _TX_AT + _KEY_SIZE], _TX_AT + _KEY_SIZE
        else:
            source, at = _account(body, _TX_AT)
        fee, sequence = _FEE_AND_SEQUENCE.unpack_from(body, at)
        # What a V0 has here, optional time bounds, are the same bytes as the first two of three
        # kinds of preconditions.
        time_bounds, end = _preconditions(body, at + _FEE_AND_SEQUENCE.size)
        return _Head(source, fee, sequence, time_bounds, end)

    @cached_property
    def _end(self) -> int:
        """Where the transaction ends and its signatures begin."""
        if self.kind is EnvelopeType.TX_FEE_BUMP:
            return self._head.end + 4
        return _end_of_transaction(self.body, self._head.end)


def _word(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "big")


def _account(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the key of a MuxedAccount, and where that ends."""
    is_multiplexed = _word(body, at) != 0
    at += 12 if is_multiplexed else 4
    return body[at : at + _KEY_SIZE], at + _KEY_SIZE


def _preconditions(body: bytes, at: int) -> tuple[tuple[int, int] | None, int]:
    """Return the time bounds among Preconditions, and where those end."""
    kind = _word(body, at)
    if kind < 2:  # none, or only time bounds
        return _optional_time_bounds(body, at)
    time_bounds, at = _optional_time_bounds(body, at + 4)
    for _ in range(2):  # ledgerBounds, minSeqNum
        at += 12 if _word(body, at) else 4
    at += 12  # minSeqAge, minSeqLedgerGap
    signers = _word(body, at)
    at += 4
    for _ in range(signers):
        at = _end_of_signer_key(body, at)
    return time_bounds, at


def _optional_time_bounds(body: bytes, at: int) -> tuple[tuple[int, int] | None, int]:
    if not _word(body, at):
        return None, at + 4
    earliest, latest = _TIME_BOUNDS.unpack_from(body, at + 4)
    return (earliest, latest), at + 4 + _TIME_BOUNDS.size


def _end_of_signer_key(body: bytes, at: int) -> int:
    end = at + 4 + _KEY_SIZE
    has_payload = _word(body, at) == 3
    if has_payload:
        size = _word(body, end)
        end += 4 + size + -size % 4
    return end


def _end_of_transaction(body: bytes, at: int) -> int:
    """Return where a V0 or V1 transaction ends whose memo begins at ``at``."""
    end, budget = len(body), [xdr_check.WORK_BUDGET]
    at = xdr_check._Memo(body, at, end, budget)
    at = xdr_check._Operation(body, at + 4, end, budget, _word(body, at))
    is_soroban = _word(body, at) != 0
    at += 4
    if not is_soroban:
        return at
    has_archived_entries = _word(body, at) != 0
    at += 4
    if has_archived_entries:
        at += 4 + 4 * _word(body, at)
    for _ in range(2):  # readOnly, readWrite
        at = xdr_check._LedgerKey(body, at + 4, end, budget, _word(body, at))
    return at + 20  # three limits and the fee for resources
