"""Flat views of SCP statements: what the overlay must know of them, read in place."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.message import Message, MessageType, pack_opaque

_ENVELOPE_TYPE_SCP = b"\0\0\0\1"
_NODE_AT = 8
_SLOT_AT = 40
_KIND_AT = 48
_PLEDGES_AT = 52
_HASH_SIZE = 32


class StatementType(IntEnum):
    """SCPStatementType (Stellar-SCP.x)."""

    PREPARE = 0
    CONFIRM = 1
    EXTERNALIZE = 2
    NOMINATE = 3


@dataclass(frozen=True)
class ScpStatement:
    """The statement in the body of an SCP_MESSAGE that passed the structural check.

    ``node`` is the signer's 32-byte key. Nothing here says that the signature is good.
    """

    body: bytes

    @property
    def node(self) -> bytes:
        """The 32-byte key of the node that makes the statement."""
        return self.body[_NODE_AT:_SLOT_AT]

    @property
    def slot(self) -> int:
        """The slot it is about."""
        return int.from_bytes(self.body[_SLOT_AT:_KIND_AT], "big")

    @property
    def kind(self) -> StatementType:
        """Which of the four it is."""
        return StatementType(int.from_bytes(self.body[_KIND_AT:_PLEDGES_AT], "big"))

    @property
    def topic(self) -> tuple[bytes, bool]:
        """Node, slot and protocol: of two statements with one topic, the newer is enough."""
        return self.body[_NODE_AT:_KIND_AT], self.kind is StatementType.NOMINATE

    def is_newer_than(self, other: ScpStatement) -> bool:
        """Tell whether this statement supersedes ``other``; never when their topics differ.

        The order is SCP's own (core SCP.cpp:428, BallotProtocol.cpp:56,
        NominationProtocol.cpp:88). Nominated values are compared as sets: core orders only
        statements whose values are sorted and distinct, and one that repeats a value is not newer.
        """
        if self.topic != other.topic:
            return False
        if self.kind is not StatementType.NOMINATE:
            return bool(other._ballot_rank < self._ballot_rank)
        votes, accepted = self._nominated
        old_votes, old_accepted = other._nominated
        return (
            votes >= old_votes and accepted >= old_accepted and self._nominated != other._nominated
        )

    @cached_property
    def _ballot_rank(self) -> tuple[Any, ...]:
        """What ballot statements are ordered by; an absent ballot sorts before any other."""
        read = _Reader(self.body, _PLEDGES_AT)
        kind = self.kind
        if kind is StatementType.PREPARE:
            read.skip(_HASH_SIZE)
            ballots = read.ballot(), read.optional_ballot(), read.optional_ballot()
            read.skip(4)
            return kind, *ballots, read.u32()
        if kind is StatementType.CONFIRM:
            ballot, prepared = read.ballot(), read.u32()
            read.skip(4)
            return kind, ballot, prepared, read.u32()
        return (kind,)

    @cached_property
    def _nominated(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        read = _Reader(self.body, _PLEDGES_AT + _HASH_SIZE)
        return read.values(), read.values()


def sign_statement(node: LocalNode, statement: bytes) -> Message:
    """Return the SCP_MESSAGE of a statement's XDR, signed (core HerderImpl::signEnvelope)."""
    signature = node.sign(node.network_id + _ENVELOPE_TYPE_SCP + statement)
    kind = MessageType.SCP_MESSAGE.to_bytes(4, "big")
    return Message(kind + statement + pack_opaque(signature))


def externalize(
    node: LocalNode,
    slot: int,
    value: bytes,
    *,
    counter: int = 1,
    quorum_set_hash: bytes = bytes(32),
) -> Message:
    """Return a signed EXTERNALIZE of ``node`` for a slot."""
    head = struct.pack(">I32sQI", 0, node.peer_id.key, slot, StatementType.EXTERNALIZE)
    ballot = struct.pack(">I", counter) + pack_opaque(value)
    return sign_statement(node, head + ballot + struct.pack(">I32s", counter, quorum_set_hash))


class _Reader:
    """Reads a checked body from left to right."""

    def __init__(self, body: bytes, at: int) -> None:
        self._body = body
        self._at = at

    def skip(self, size: int) -> None:
        self._at += size

    def u32(self) -> int:
        self._at += 4
        return int.from_bytes(self._body[self._at - 4 : self._at], "big")

    def opaque(self) -> bytes:
        size = self.u32()
        start = self._at
        self._at += size + -size % 4
        return self._body[start : start + size]

    def ballot(self) -> tuple[int, bytes]:
        return self.u32(), self.opaque()

    def optional_ballot(self) -> tuple[int, bytes] | tuple[()]:
        return self.ballot() if self.u32() else ()

    def values(self) -> frozenset[bytes]:
        return frozenset(self.opaque() for _ in range(self.u32()))
