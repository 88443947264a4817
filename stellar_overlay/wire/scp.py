"""Flat views of SCP statements: what the overlay must know of them, read in place."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

from stellar_overlay.error import XdrError
from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.message import Message, MessageType, pack_opaque

_ENVELOPE_TYPE_SCP = b"\0\0\0\1"
_STATEMENT_AT = 4
_NODE_AT = 8
_SLOT_AT = 40
_KIND_AT = 48
_PLEDGES_AT = 52
_HASH_SIZE = 32
_NO_QUORUM_SET = bytes(_HASH_SIZE)

EMPTY_TX_SET_HASH = bytes(_HASH_SIZE)
"""What a value names that stands for an empty ledger, without any transaction set (CAP-0083)."""


class StatementType(IntEnum):
    """SCPStatementType (Stellar-SCP.x)."""

    PREPARE = 0
    CONFIRM = 1
    EXTERNALIZE = 2
    NOMINATE = 3


_KINDS = tuple(StatementType)
_EXTERNALIZE, _NOMINATE = int(StatementType.EXTERNALIZE), int(StatementType.NOMINATE)
_HEAD = struct.Struct(">32sQI")
_WORD = struct.Struct(">I")
_BALLOT_HEAD = struct.Struct(">II")


class ScpStatement:
    """The statement in the body of an SCP_MESSAGE that passed the structural check.

    Nothing here says that the signature is good. What is at no fixed place is looked for when it
    is first asked for; the rest is read at once, as each message that is new is looked at so.

    :ivar node: the 32-byte key of the node that makes the statement.
    :ivar slot: the slot it is about.
    :ivar kind: which of the four it is.
    :ivar is_nomination: whether it is about what to vote on; if not, about ballots.
    :ivar is_externalize: whether it says that consensus is reached.
    """

    __slots__ = (
        "_end",
        "_order",
        "_quorum_set_hash",
        "_values",
        "body",
        "is_externalize",
        "is_nomination",
        "kind",
        "node",
        "slot",
    )

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.node: bytes
        self.slot: int
        self.node, self.slot, number = _HEAD.unpack_from(body, _NODE_AT)
        self.kind = _KINDS[number]
        self.is_nomination = number == _NOMINATE
        self.is_externalize = number == _EXTERNALIZE
        self._end = 0
        self._order: tuple[Any, ...] | None = None

    def __eq__(self, other: object) -> bool:
        return self.body == other.body if isinstance(other, ScpStatement) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.body)

    def __repr__(self) -> str:
        return f"<ScpStatement {self.kind.name} of slot {self.slot} by {self.node.hex()[:8]}>"

    @property
    def topic(self) -> tuple[bytes, bool]:
        """Node, slot and protocol: of two statements with one topic, the newer is enough."""
        return self.body[_NODE_AT:_KIND_AT], self.is_nomination

    @property
    def quorum_set_hash(self) -> bytes:
        """The SHA-256 of its quorum set (core Slot::getCompanionQuorumSetHashFromStatement)."""
        if not self._end:
            self._walk()
        return self._quorum_set_hash

    @property
    def values(self) -> tuple[bytes, ...]:
        """The values that it names, distinct, in the order in which they are written.

        Not that of the ballot of a PREPARE when its counter is 0: then there is no ballot yet
        (core BallotProtocol::getStatementValues).
        """
        if not self._end:
            self._walk()
        return self._values

    @property
    def externalized_value(self) -> bytes | None:
        """The value that the node has agreed to, when this is an EXTERNALIZE."""
        return self.values[0] if self.is_externalize else None

    @property
    def signed_part(self) -> bytes:
        """The XDR of the statement alone, without its signature."""
        if not self._end:
            self._walk()
        return self.body[_STATEMENT_AT : self._end]

    @property
    def signature(self) -> bytes:
        """Up to 64 bytes of whatever the sender put there."""
        if not self._end:
            self._walk()
        at = self._end + 4
        return self.body[at : at + _WORD.unpack_from(self.body, self._end)[0]]

    def signature_check(self, network_id: bytes) -> tuple[bytes, bytes, bytes]:
        """Return key, signed bytes and signature, to be verified (core HerderImpl::verifyEnvelope).

        :param network_id: 32 bytes.
        """
        if not self._end:
            self._walk()
        body, end = self.body, self._end
        signature = body[end + 4 : end + 4 + _WORD.unpack_from(body, end)[0]]
        return self.node, network_id + _ENVELOPE_TYPE_SCP + body[_STATEMENT_AT:end], signature

    def is_newer_than(self, other: ScpStatement) -> bool:
        """Tell whether this statement supersedes ``other``; never when their topics differ.

        The order is SCP's own (core SCP.cpp:428, BallotProtocol.cpp:56,
        NominationProtocol.cpp:88). Nominated values are compared as sets: core orders only
        statements whose values are sorted and distinct, and one that repeats a value is not newer.
        """
        if self.topic != other.topic:
            return False
        mine, its = self._position(), other._position()
        if not self.is_nomination:
            return bool(its < mine)
        return all(new >= old for new, old in zip(mine, its, strict=True)) and mine != its

    def _position(self) -> tuple[Any, ...]:
        """What statements of one topic are ordered by; an absent ballot sorts before any other."""
        if self._order is None:
            self._order = self._read_position()
        return self._order

    def _read_position(self) -> tuple[Any, ...]:
        read = _Reader(self.body, _PLEDGES_AT)
        match self.kind:
            case StatementType.NOMINATE:
                read.skip(_HASH_SIZE)
                return frozenset(read.opaques()), frozenset(read.opaques())
            case StatementType.PREPARE:
                read.skip(_HASH_SIZE)
                ballots = read.ballot(), read.optional_ballot(), read.optional_ballot()
                read.skip(4)
                return self.kind, *ballots, read.u32()
            case StatementType.CONFIRM:
                ballot, prepared = read.ballot(), read.u32()
                read.skip(4)
                return self.kind, ballot, prepared, read.u32()
        return (self.kind,)

    def _walk(self) -> None:
        """Find what is at no fixed place, and where the statement ends: the signature follows."""
        body, kind = self.body, self.kind
        if kind is StatementType.NOMINATE:
            read = _Reader(body, _PLEDGES_AT + _HASH_SIZE)
            named = [*read.opaques(), *read.opaques()]
            self._quorum_set_hash = body[_PLEDGES_AT : _PLEDGES_AT + _HASH_SIZE]
            self._values = tuple(dict.fromkeys(named))
            self._end = read.at
            return
        is_prepare = kind is StatementType.PREPARE
        at = _PLEDGES_AT + _HASH_SIZE if is_prepare else _PLEDGES_AT
        counter, size = _BALLOT_HEAD.unpack_from(body, at)
        value = body[at + 8 : at + 8 + size]
        at += 8 + (size + 3 & ~3)
        values: tuple[bytes, ...] = (value,)
        if is_prepare:
            values = values if counter else ()
            for _ in range(2):  # the ballots that it has accepted as prepared, each if there is one
                if not body[at + 3]:
                    at += 4
                    continue
                size = _WORD.unpack_from(body, at + 8)[0]
                prepared = body[at + 12 : at + 12 + size]
                if prepared not in values:
                    values = (*values, prepared)
                at += 12 + (size + 3 & ~3)
            self._quorum_set_hash = body[_PLEDGES_AT : _PLEDGES_AT + _HASH_SIZE]
            self._end = at + 8
        else:
            at += 12 if kind is StatementType.CONFIRM else 4
            self._quorum_set_hash = body[at : at + _HASH_SIZE]
            self._end = at + _HASH_SIZE
        self._values = values


def signer_of(body: bytes) -> bytes:
    """Return the 32-byte key of the node that says what an SCP_MESSAGE says."""
    return body[_NODE_AT:_SLOT_AT]


def sign_statement(node: LocalNode, statement: bytes) -> Message:
    """Return the SCP_MESSAGE of a statement's XDR, signed (core HerderImpl::signEnvelope)."""
    signature = node.sign(node.network_id + _ENVELOPE_TYPE_SCP + statement)
    kind = MessageType.SCP_MESSAGE.to_bytes(4, "big")
    return Message(kind + statement + pack_opaque(signature))


def nominate(
    node: LocalNode,
    slot: int,
    votes: Iterable[bytes],
    accepted: Iterable[bytes] = (),
    *,
    quorum_set_hash: bytes = _NO_QUORUM_SET,
) -> Message:
    """Return a signed NOMINATE of ``node`` for a slot.

    Its values are sorted and distinct, as they have to be (core NominationProtocol::isSane).
    """
    head = _statement_head(node, slot, StatementType.NOMINATE)
    return sign_statement(node, head + quorum_set_hash + _pack_values(votes, accepted))


def prepare(
    node: LocalNode,
    slot: int,
    value: bytes,
    counter: int = 1,
    *,
    quorum_set_hash: bytes = _NO_QUORUM_SET,
) -> Message:
    """Return a signed PREPARE of ``node`` for a slot: of a ballot, with nothing prepared yet."""
    head = _statement_head(node, slot, StatementType.PREPARE)
    nothing_prepared = bytes(16)
    return sign_statement(
        node, head + quorum_set_hash + _pack_ballot(counter, value) + nothing_prepared
    )


def externalize(
    node: LocalNode,
    slot: int,
    value: bytes,
    *,
    counter: int = 1,
    quorum_set_hash: bytes = _NO_QUORUM_SET,
) -> Message:
    """Return a signed EXTERNALIZE of ``node`` for a slot."""
    head = _statement_head(node, slot, StatementType.EXTERNALIZE)
    ballot = _pack_ballot(counter, value)
    return sign_statement(node, head + ballot + counter.to_bytes(4, "big") + quorum_set_hash)


def _statement_head(node: LocalNode, slot: int, kind: StatementType) -> bytes:
    return struct.pack(">I32sQI", 0, node.peer_id.key, slot, kind)


def _pack_ballot(counter: int, value: bytes) -> bytes:
    return counter.to_bytes(4, "big") + pack_opaque(value)


def _pack_values(*groups: Iterable[bytes]) -> bytes:
    """Return the XDR of sets of values, one after the other."""
    parts = []
    for group in groups:
        values = sorted(set(group))
        parts += [len(values).to_bytes(4, "big"), *map(pack_opaque, values)]
    return b"".join(parts)


# StellarValue (Stellar-ledger.x): txSetHash, closeTime, upgrades, and what the last word says.

_CLOSE_TIME_AT = 32
_UPGRADES_AT = 40
_MAX_UPGRADES = 6
_MAX_UPGRADE_BYTES = 128
_MAX_SIGNATURE_BYTES = 64


class _ValueType(IntEnum):
    """StellarValueType."""

    BASIC = 0
    SIGNED = 1
    EMPTY_TX_SET = 2


def stellar_value(tx_set_hash: bytes, close_time: int) -> bytes:
    """Return a value to vote for: no upgrades, not signed by who proposes it.

    :param tx_set_hash: 32 bytes.
    :param close_time: Unix seconds.
    """
    return struct.pack(">32sQII", tx_set_hash, close_time, 0, _ValueType.BASIC)


def tx_set_hash_of_value(value: bytes) -> bytes | None:
    """Return the hash of the transaction set that a value names.

    :param value: anything, as it comes in a statement.
    :return: None when it is no StellarValue, and when it is one that needs no transaction set
        (:data:`EMPTY_TX_SET_HASH`), which nobody could serve.
    """
    tx_set_hash = value[:_CLOSE_TIME_AT]
    if tx_set_hash == EMPTY_TX_SET_HASH or not _is_stellar_value(value):
        return None
    return tx_set_hash


def close_time_of_value(value: bytes) -> int | None:
    """Return the Unix time of a value; None when it is no StellarValue.

    :param value: anything, as it comes in a statement.
    """
    if not _is_stellar_value(value):
        return None
    return int.from_bytes(value[_CLOSE_TIME_AT:_UPGRADES_AT], "big")


def _is_stellar_value(value: bytes) -> bool:
    """Tell whether it is the canonical XDR of one (core toStellarValue)."""
    try:
        return _end_of_stellar_value(value) == len(value)
    except (struct.error, XdrError):
        return False


def _end_of_stellar_value(value: bytes) -> int:
    """Return where it should end; the caller sees whether it does."""
    upgrades = _word(value, _UPGRADES_AT)
    if upgrades > _MAX_UPGRADES:
        raise XdrError(f"StellarValue.upgrades: {upgrades} elements, allowed: {_MAX_UPGRADES}")
    at = _UPGRADES_AT + 4
    for _ in range(upgrades):
        at = _end_of_opaque(value, at, _MAX_UPGRADE_BYTES)
    kind = _word(value, at)
    at += 4
    if kind == _ValueType.BASIC:
        return at
    if kind == _ValueType.EMPTY_TX_SET:
        at += 68  # hashes of the set that was not had and of the last ledger, its version
    elif kind != _ValueType.SIGNED:
        raise XdrError(f"StellarValue.ext.v: {kind}, allowed: 0 to 2")
    key_type = _word(value, at)
    if key_type:
        raise XdrError(f"StellarValue.ext.lcValueSignature.nodeID.type: {key_type}, allowed: 0")
    return _end_of_opaque(value, at + 36, _MAX_SIGNATURE_BYTES)


def _end_of_opaque(value: bytes, at: int, most: int) -> int:
    size = _word(value, at)
    if size > most:
        raise XdrError(f"StellarValue: {size} bytes at byte {at}, allowed: {most}")
    end = at + 4 + size
    padded = end + -size % 4
    if any(value[end:padded]):
        raise XdrError(f"StellarValue: the padding before byte {padded} is not zero")
    return padded


def _word(value: bytes, at: int) -> int:
    word: int = _WORD.unpack_from(value, at)[0]
    return word


class _Reader:
    """Reads a checked body from left to right; ``at`` is where it is."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self.at = at

    def skip(self, size: int) -> None:
        self.at += size

    def u32(self) -> int:
        self.at += 4
        return int.from_bytes(self._body[self.at - 4 : self.at], "big")

    def hash(self) -> bytes:
        self.at += _HASH_SIZE
        return self._body[self.at - _HASH_SIZE : self.at]

    def opaque(self) -> bytes:
        size = self.u32()
        start = self.at
        self.at += size + -size % 4
        return self._body[start : start + size]

    def opaques(self) -> list[bytes]:
        return [self.opaque() for _ in range(self.u32())]

    def ballot(self) -> tuple[int, bytes]:
        return self.u32(), self.opaque()

    def optional_ballot(self) -> tuple[int, bytes] | tuple[()]:
        return self.ballot() if self.u32() else ()
