"""Quorum sets: whom a node trusts, and what follows when some of those agree or fail."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.xdr_check import MAX_QUORUM_LEVELS, MAX_VALIDATORS

_HEAD = struct.Struct(">II")
_KEY_SIZE = 32
_VALIDATOR_SIZE = 4 + _KEY_SIZE


def quorum_set_hash(body: bytes) -> bytes:
    """Return the SHA-256 by which an SCP_QUORUMSET is asked for and named in statements."""
    return hashlib.sha256(memoryview(body)[4:]).digest()


@dataclass(frozen=True, slots=True)
class FlatQuorumSet:
    """So many of these validators and inner sets must agree. Validators are 32-byte keys.

    What a peer sent may be nonsense: ask :meth:`is_sane` before trusting it.
    """

    threshold: int
    validators: tuple[bytes, ...] = ()
    inner: tuple[FlatQuorumSet, ...] = ()

    def nodes(self) -> frozenset[bytes]:
        """Return the keys of all validators, at all levels."""
        return frozenset(self._all_validators())

    def is_sane(self) -> bool:
        """Tell whether core would take it from another node (core QuorumSetUtils.cpp).

        Each threshold can be met and asks for something, no node is named twice, and there are 1 to
        1,000 nodes in at most 5 levels. A node's own set must moreover have high thresholds.
        """
        if not self._has_sane_thresholds(MAX_QUORUM_LEVELS):
            return False
        validators = list(self._all_validators())
        return 1 <= len(validators) <= MAX_VALIDATORS and len(set(validators)) == len(validators)

    def is_satisfied_by(self, nodes: Collection[bytes]) -> bool:
        """Tell whether ``nodes`` hold a quorum slice (core LocalNode::isQuorumSlice)."""
        return self._is_satisfied(frozenset(nodes))

    def is_blocked_by(self, nodes: Collection[bytes]) -> bool:
        """Tell whether no slice is without one of ``nodes`` (core LocalNode::isVBlocking)."""
        return self._is_blocked(frozenset(nodes))

    def _all_validators(self) -> Iterator[bytes]:
        yield from self.validators
        for one in self.inner:
            yield from one._all_validators()

    def _has_sane_thresholds(self, levels: int) -> bool:
        return (
            levels > 0
            and 1 <= self.threshold <= len(self.validators) + len(self.inner)
            and all(one._has_sane_thresholds(levels - 1) for one in self.inner)
        )

    def _is_satisfied(self, nodes: frozenset[bytes]) -> bool:
        if self.threshold == 0:
            return False  # as for core, whose count has wrapped around by then
        agreeing = sum(key in nodes for key in self.validators)
        agreeing += sum(one._is_satisfied(nodes) for one in self.inner)
        return agreeing >= self.threshold

    def _is_blocked(self, nodes: frozenset[bytes]) -> bool:
        if self.threshold == 0:
            return False
        failing = sum(key in nodes for key in self.validators)
        failing += sum(one._is_blocked(nodes) for one in self.inner)
        members = len(self.validators) + len(self.inner)
        return failing >= max(1, members - self.threshold + 1)


def decode_quorum_set(body: bytes) -> FlatQuorumSet:
    """Read an SCP_QUORUMSET that passed the structural check, which has limited its depth."""
    return _read(body, 4)[0]


def encode_quorum_set(quorum_set: FlatQuorumSet) -> Message:
    """Return an SCP_QUORUMSET, exactly as it is given: not put in core's standard order."""
    return Message(MessageType.SCP_QUORUMSET.to_bytes(4, "big") + _pack(quorum_set))


def _read(body: bytes, at: int) -> tuple[FlatQuorumSet, int]:
    """Return the quorum set that begins at ``at``, and where it ends."""
    threshold, count = _HEAD.unpack_from(body, at)
    at += _HEAD.size
    end = at + count * _VALIDATOR_SIZE
    validators = tuple(
        body[start + 4 : start + _VALIDATOR_SIZE] for start in range(at, end, _VALIDATOR_SIZE)
    )
    inner = []
    at = end + 4
    for _ in range(int.from_bytes(body[end:at], "big")):
        one, at = _read(body, at)
        inner.append(one)
    return FlatQuorumSet(threshold, validators, tuple(inner)), at


def _pack(quorum_set: FlatQuorumSet) -> bytes:
    parts = [_HEAD.pack(quorum_set.threshold, len(quorum_set.validators))]
    parts += [bytes(4) + key for key in quorum_set.validators]
    parts.append(len(quorum_set.inner).to_bytes(4, "big"))
    parts += map(_pack, quorum_set.inner)
    return b"".join(parts)
