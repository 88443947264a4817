"""Quorum sets against stellar_sdk's objects and core's rules."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import PeerId
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.quorum_set import (
    FlatQuorumSet,
    decode_quorum_set,
    encode_quorum_set,
    quorum_set_hash,
)
from tests.builders import load_vectors, quorum_set
from tests.xdr_samples import SAMPLES

A, B, C, D, E = (bytes([number]) * 32 for number in range(1, 6))


def keys(count: int) -> tuple[bytes, ...]:
    """Return so many distinct keys."""
    return tuple(number.to_bytes(32, "big") for number in range(count))


def nested(levels: int) -> FlatQuorumSet:
    """Return a set inside a set, so many in all, with one validator."""
    q = FlatQuorumSet(1, (A,))
    for _ in range(levels - 1):
        q = FlatQuorumSet(1, (), (q,))
    return q


class LayoutTests(SynchronousTestCase):
    """From bytes and back."""

    def test_recorded(self) -> None:
        """The recorded quorum set has the recorded hash and members."""
        (vector,) = (
            one for one in load_vectors("xdr-vectors")["vectors"] if one["name"] == "SCP_QUORUMSET"
        )
        body, fields = bytes.fromhex(vector["hex"]), vector["fields"]
        self.assertEqual(quorum_set_hash(body).hex(), fields["hash"])
        (outer,) = fields["validators"]
        (inner,) = fields["innerSets"]
        expected = FlatQuorumSet(
            2,
            (PeerId.from_strkey(outer).key,),
            (FlatQuorumSet(1, (PeerId.from_strkey(inner["validators"][0]).key,)),),
        )
        self.assertEqual(decode_quorum_set(body), expected)
        self.assertEqual(encode_quorum_set(expected).body, body)

    def test_samples(self) -> None:
        """Decoded sets say what stellar_sdk's objects say, and encode to the same bytes."""
        bodies = [body for name, body in SAMPLES.items() if name.startswith("SCP_QUORUMSET")]
        self.assertEqual(len(bodies), 3)
        for body in bodies:
            q = decode_quorum_set(body)
            self.assert_same(q, Message(body).decoded.q_set)
            self.assertEqual(encode_quorum_set(q).body, body)

    def assert_same(self, q: FlatQuorumSet, expected: Any) -> None:
        self.assertEqual(q.threshold, expected.threshold.uint32)
        nodes = tuple(one.node_id.ed25519.uint256 for one in expected.validators)
        self.assertEqual(q.validators, nodes)
        for one, other in zip(q.inner, expected.inner_sets, strict=True):
            self.assert_same(one, other)

    def test_widest(self) -> None:
        """The most and the deepest that the check lets through are read."""
        wide = quorum_set(xdr_check.MAX_VALIDATORS)
        deep = encode_quorum_set(nested(xdr_check.MAX_QUORUM_LEVELS))
        for message in (wide, deep):
            xdr_check.check(message.body)
            q = decode_quorum_set(message.body)
            self.assertEqual(encode_quorum_set(q), message)
            self.assertTrue(q.is_sane())

    def test_type(self) -> None:
        """What is made is an SCP_QUORUMSET."""
        self.assertEqual(encode_quorum_set(nested(1)).type, MessageType.SCP_QUORUMSET)

    def test_nodes(self) -> None:
        """All validators count, at every level, each once."""
        q = FlatQuorumSet(1, (A, B), (FlatQuorumSet(1, (B, C), (FlatQuorumSet(1, (D,)),)),))
        self.assertEqual(q.nodes(), {A, B, C, D})
        self.assertEqual(FlatQuorumSet(0).nodes(), frozenset())


class SanityTests(SynchronousTestCase):
    """core QuorumSetUtils.cpp."""

    def test_sane(self) -> None:
        """Low thresholds are fine in the sets of others."""
        for q in (
            FlatQuorumSet(1, (A,)),
            FlatQuorumSet(1, (A, B, C)),
            FlatQuorumSet(3, (A, B), (FlatQuorumSet(1, (C, D)),)),
            FlatQuorumSet(1, (), (FlatQuorumSet(1, (A,)), FlatQuorumSet(1, (B,)))),
            FlatQuorumSet(1, keys(1_000)),
            nested(5),
        ):
            self.assertTrue(q.is_sane(), q)

    def test_insane(self) -> None:
        """Thresholds out of range, repeated nodes, no node, too many, too deep."""
        for q in (
            FlatQuorumSet(0),
            FlatQuorumSet(0, (A,)),
            FlatQuorumSet(2, (A,)),
            FlatQuorumSet(2**32 - 1, (A, B)),
            FlatQuorumSet(1, (A, A)),
            FlatQuorumSet(1, (A,), (FlatQuorumSet(1, (A,)),)),
            FlatQuorumSet(1, (A,), (FlatQuorumSet(0, (B,)),)),
            FlatQuorumSet(1, (A,), (FlatQuorumSet(2, (B,)),)),
            FlatQuorumSet(1, (A,), (FlatQuorumSet(1),)),
            FlatQuorumSet(1, (), (FlatQuorumSet(1, (B,)), FlatQuorumSet(1, (B,)))),
            FlatQuorumSet(1, keys(1_001)),
            FlatQuorumSet(1, keys(600), (FlatQuorumSet(1, keys(1_200)[600:]),)),
            nested(6),
        ):
            self.assertFalse(q.is_sane(), q)


class AgreementTests(SynchronousTestCase):
    """Slices and blocking sets (core LocalNode.cpp)."""

    def test_flat(self) -> None:
        """Three of four agree; two of four are enough to block that."""
        q = FlatQuorumSet(3, (A, B, C, D))
        for nodes, is_satisfied, is_blocked in (
            ((), False, False),
            ((A,), False, False),
            ((A, D), False, True),
            ((A, B, D), True, True),
            ((A, B, C, D, E), True, True),
            ((E,), False, False),
        ):
            self.assertIs(q.is_satisfied_by(nodes), is_satisfied)
            self.assertIs(q.is_blocked_by(set(nodes)), is_blocked)

    def test_nested(self) -> None:
        """An inner set counts as one member, when it is satisfied or blocked itself."""
        q = FlatQuorumSet(2, (A,), (FlatQuorumSet(2, (B, C, D)),))
        self.assertTrue(q.is_satisfied_by([A, B, D]))
        self.assertFalse(q.is_satisfied_by([A, B]))
        self.assertFalse(q.is_satisfied_by([B, C, D]))
        self.assertTrue(q.is_blocked_by([A]))
        self.assertTrue(q.is_blocked_by([B, C]))
        self.assertFalse(q.is_blocked_by([B]))

    def test_threshold_of_nothing(self) -> None:
        """A set that asks for nobody is neither satisfied nor blocked, as in core."""
        q = FlatQuorumSet(0, (A,))
        self.assertFalse(q.is_satisfied_by([A]))
        self.assertFalse(q.is_blocked_by([A]))

    def test_threshold_that_cannot_be_met(self) -> None:
        """A set that asks for too many is never satisfied, and blocked by any member."""
        for threshold in (3, 4, 2**32 - 1):
            q = FlatQuorumSet(threshold, (A, B))
            self.assertFalse(q.is_satisfied_by([A, B]))
            self.assertFalse(q.is_blocked_by([]))
            self.assertTrue(q.is_blocked_by([A]))
