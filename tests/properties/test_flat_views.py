"""Flat views of any statement, value, transaction and quorum set say what the objects say."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import xdr as x
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import TESTNET_PASSPHRASE, network_id
from stellar_overlay.wire import scp, xdr_check
from stellar_overlay.wire.quorum_set import FlatQuorumSet, decode_quorum_set, encode_quorum_set
from stellar_overlay.wire.transaction import TransactionView, tx_full_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, transactions_of, tx_set
from tests.properties.test_xdr_oracle import (
    MAX_SAMPLE,
    MUTATIONS,
    SCHEMA,
    Mutation,
    mutate,
    our_verdict,
    random_value,
    verdict_of_sdk,
)
from tests.wire.test_scp import BALLOT_PLEDGES, MODEST, NOMINATIONS, statement
from tests.wire.test_transaction import contents_hash, pairs, signatures_in
from tests.xdr_samples import ODD_VALUE, SAMPLES, VALUES, message_of
from tests.xdr_transactions import envelope

NETWORK = network_id(TESTNET_PASSPHRASE)
TRANSACTIONS = [
    body
    for name, body in SAMPLES.items()
    if name.startswith("TRANSACTION ") and len(body) <= MAX_SAMPLE
]
THOROUGH = settings(max_examples=1_000, derandomize=True, deadline=None)

U64 = st.integers(0, 2**64 - 1)
SEEDS = st.integers(0, 2**32 - 1)
BLOBS = st.lists(st.tuples(st.booleans(), st.binary(max_size=64)), max_size=20)
"""Signatures, and whether each has the hint of the source."""


def sample(name: str, seed: int) -> bytes:
    """Return canonical bytes of a type, of any shape."""
    chance = random.Random(seed)
    return random_value(SCHEMA.type(name), chance, chance.choice((10, 20, 30)))


def signed(seed: int, blobs: list[tuple[bool, bytes]]) -> x.TransactionEnvelope:
    """Return a transaction of any form with these signatures."""
    one = x.TransactionEnvelope.from_xdr_bytes(sample("TransactionEnvelope", seed))
    hints = {True: source_of(one)[-4:], False: b"hint"}
    signatures_in(one)[:] = [  # type: ignore[index]
        x.DecoratedSignature(x.SignatureHint(hints[is_own]), x.Signature(blob))
        for is_own, blob in blobs
    ]
    return one


ENVELOPES = st.builds(signed, SEEDS, BLOBS)


def source_of(one: x.TransactionEnvelope) -> bytes:
    """Return the key of who pays."""
    tx: Any = arm_of(one).tx
    if one.v0 is not None:
        return tx.source_account_ed25519.uint256  # type: ignore[no-any-return]
    return key_of(tx.fee_source if one.fee_bump else tx.source_account)


def arm_of(one: x.TransactionEnvelope) -> Any:
    """Return the envelope within an envelope."""
    return one.v0 or one.v1 or one.fee_bump


def key_of(account: Any) -> bytes:
    """Return the key of a MuxedAccount."""
    return (account.ed25519 or account.med25519.ed25519).uint256  # type: ignore[no-any-return]


def bounds_of(tx: Any) -> tuple[int, int] | None:
    """Return the time bounds of a transaction of any age."""
    holder = tx if isinstance(tx, x.TransactionV0) else tx.cond.v2 or tx.cond
    found = holder.time_bounds
    if found is None:
        return None
    return found.min_time.time_point.uint64, found.max_time.time_point.uint64


class TransactionTests(SynchronousTestCase):
    """Transactions of all forms, with any operations and signatures."""

    def assert_same(self, seen: TransactionView, one: x.TransactionEnvelope) -> None:
        tx = arm_of(one).tx
        inner = tx.inner_tx.v1.tx if one.fee_bump else tx
        self.assertEqual(seen.kind, one.type.value)
        self.assertEqual(seen.source, source_of(one))
        self.assertEqual(seen.sequence, inner.seq_num.sequence_number.int64)
        self.assertEqual(seen.time_bounds, bounds_of(inner))
        self.assertEqual(seen.fee, tx.fee.int64 if one.fee_bump else tx.fee.uint32)
        self.assertEqual(seen.signatures, pairs(signatures_in(one)))
        self.assertEqual(seen.is_signed, bool(seen.signatures))
        self.assertEqual(seen.contents_hash(NETWORK), contents_hash(one))
        self.assertEqual(tx_full_hash(seen.body), hashlib.sha256(one.to_xdr_bytes()).digest())
        if one.fee_bump is not None:
            assert seen.inner is not None
            self.assert_same(seen.inner, envelope(tx.inner_tx.v1))

    @THOROUGH
    @given(ENVELOPES)
    def test_view(self, one: x.TransactionEnvelope) -> None:
        """All that a view shows is what the object holds."""
        body = message_of(one).to_xdr_bytes()
        xdr_check.check(body)
        self.assert_same(TransactionView(body), one)

    @THOROUGH
    @given(st.sampled_from(TRANSACTIONS), st.lists(MUTATIONS, min_size=1, max_size=3))
    def test_changed_samples(self, body: bytes, mutations: list[Mutation]) -> None:
        """Whatever is done to a transaction, one that passes the check is read exactly."""
        for mutation in mutations:
            body = mutate(body, TRANSACTIONS[mutation.what % len(TRANSACTIONS)], mutation)
        if body[:4] == TRANSACTIONS[0][:4] and not our_verdict(body) and not verdict_of_sdk(body):
            one = x.TransactionEnvelope.from_xdr_bytes(body[4:])
            self.assert_same(TransactionView(body), one)

    @MODEST
    @given(ENVELOPES)
    def test_signature_checks(self, one: x.TransactionEnvelope) -> None:
        """Those signatures are asked about whose hint is the source's, in order."""
        seen = TransactionView(message_of(one).to_xdr_bytes())
        mine = [blob for hint, blob in seen.signatures if hint == seen.source[-4:]]
        expected = tuple((seen.source, contents_hash(one), blob) for blob in mine)
        self.assertEqual(seen.signature_checks(NETWORK), expected)

    @settings(max_examples=50, derandomize=True, deadline=None)
    @given(st.lists(ENVELOPES, max_size=4), st.binary(min_size=32, max_size=32))
    def test_sets(self, envelopes: list[x.TransactionEnvelope], previous: bytes) -> None:
        """What is put into a set is found in it."""
        given_ = [one.to_xdr_bytes() for one in envelopes]
        for message in (tx_set(previous, given_), generalized_tx_set(previous, given_)):
            xdr_check.check(message.body)
            self.assertEqual(sorted(transactions_of(message.body)), sorted(given_))


class StatementTests(SynchronousTestCase):
    """SCP statements with any pledges and signature."""

    @MODEST
    @given(st.one_of(BALLOT_PLEDGES, NOMINATIONS), st.binary(max_size=64), U64)
    def test_view(self, pledges: x.SCPStatementPledges, signature: bytes, slot: int) -> None:
        """Statement, signature and values are told apart, exactly."""
        unsigned = statement(pledges, slot=slot)
        message = x.StellarMessage(
            x.MessageType.SCP_MESSAGE, envelope=x.SCPEnvelope(unsigned, x.Signature(signature))
        )
        body = message.to_xdr_bytes()
        xdr_check.check(body)
        seen = scp.ScpStatement(body)
        self.assertEqual((seen.signed_part, seen.signature), (unsigned.to_xdr_bytes(), signature))
        expected = tuple(dict.fromkeys(values_of(pledges)))
        self.assertEqual(seen.values, expected)
        agreed = expected[0] if pledges.externalize else None
        self.assertEqual(seen.externalized_value, agreed)


def values_of(pledges: x.SCPStatementPledges) -> Iterator[bytes]:
    """Yield the values that core takes from a statement, in their order there."""
    if pledges.nominate is not None:
        yield from (one.value for one in [*pledges.nominate.votes, *pledges.nominate.accepted])
    elif pledges.prepare is not None:
        if pledges.prepare.ballot.counter.uint32:
            yield pledges.prepare.ballot.value.value
        for ballot in (pledges.prepare.prepared, pledges.prepare.prepared_prime):
            if ballot is not None:
                yield ballot.value.value
    elif pledges.confirm is not None:
        yield pledges.confirm.ballot.value.value
    elif pledges.externalize is not None:
        yield pledges.externalize.commit.value.value


def decoded(value: bytes) -> x.StellarValue | None:
    """Return what stellar_sdk makes of a value, if it is canonical."""
    try:
        seen = x.StellarValue.from_xdr_bytes(value)
    except Exception:
        return None
    return seen if seen.to_xdr_bytes() == value else None


class ValueTests(SynchronousTestCase):
    """Values of any bytes."""

    def assert_as_decoded(self, value: bytes) -> None:
        seen = decoded(value)
        if seen is None:
            self.assertIsNone(scp.close_time_of_value(value))
            self.assertIsNone(scp.tx_set_hash_of_value(value))
            return
        self.assertEqual(scp.close_time_of_value(value), seen.close_time.time_point.uint64)
        named = None if seen.tx_set_hash.hash == scp.EMPTY_TX_SET_HASH else seen.tx_set_hash.hash
        self.assertEqual(scp.tx_set_hash_of_value(value), named)

    @MODEST
    @given(SEEDS)
    def test_any_value(self, seed: int) -> None:
        """A StellarValue of any shape names its hash and time."""
        value = sample("StellarValue", seed)
        self.assertIsNotNone(decoded(value))
        self.assert_as_decoded(value)

    @MODEST
    @given(st.binary(max_size=250))
    def test_any_bytes(self, value: bytes) -> None:
        """Whatever comes is a StellarValue for us exactly when it is one for stellar_sdk."""
        self.assert_as_decoded(value)

    @MODEST
    @given(
        st.sampled_from([*VALUES, ODD_VALUE]),
        st.integers(0, 80),
        st.sampled_from([0, 1, 2, 3, 6, 7, 64, 65, 128, 129, 2**31, 2**32 - 1]),
        st.integers(-8, 8),
    )
    def test_changed(self, value: x.Value, at: int, word: int, more: int) -> None:
        """So too when one word of a good value is changed, or its end."""
        raw = value.value
        changed = raw[: 4 * at] + word.to_bytes(4, "big") + raw[4 * at + 4 :]
        self.assert_as_decoded(changed + bytes(more) if more >= 0 else changed[:more])

    @MODEST
    @given(st.sampled_from(VALUES), st.integers(0, 10_000), st.integers(1, 255))
    def test_changed_byte(self, value: x.Value, at: int, change: int) -> None:
        """And when a byte is, padding included."""
        raw = bytearray(value.value)
        raw[at % len(raw)] ^= change
        self.assert_as_decoded(bytes(raw))


NODES = [bytes([number]) * 32 for number in range(6)]
MEMBERS = st.lists(st.sampled_from(NODES), min_size=1, max_size=4).map(tuple)
QUORUM_SETS: st.SearchStrategy[FlatQuorumSet] = st.recursive(
    st.builds(FlatQuorumSet, st.integers(0, 4), MEMBERS),
    lambda inner: st.builds(
        FlatQuorumSet, st.integers(0, 4), MEMBERS, st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=6,
)


def meetable(q: FlatQuorumSet) -> FlatQuorumSet:
    """Return the same set with thresholds that can be met and ask for something."""
    most = len(q.validators) + len(q.inner)
    return FlatQuorumSet(1 + q.threshold % most, q.validators, tuple(map(meetable, q.inner)))


def has_slice(q: FlatQuorumSet, nodes: set[bytes]) -> bool:
    """Tell whether some choice of so many members all agree: by trying all."""
    members = [key in nodes for key in q.validators]
    members += [has_slice(one, nodes) for one in q.inner]
    return any(all(choice) for choice in combinations(members, q.threshold))


class QuorumSetTests(SynchronousTestCase):
    """Quorum sets of any shape."""

    @MODEST
    @given(QUORUM_SETS)
    def test_round_trip(self, q: FlatQuorumSet) -> None:
        """What is encoded is canonical, unless too deep, and is decoded again."""
        message = encode_quorum_set(q)
        self.assertEqual(decode_quorum_set(message.body), q)
        if depth(q) <= xdr_check.MAX_QUORUM_LEVELS:
            self.assertEqual(message.decoded.to_xdr_bytes(), message.body)

    @MODEST
    @given(QUORUM_SETS.map(meetable), st.sets(st.sampled_from(NODES)))
    def test_agreement(self, q: FlatQuorumSet, nodes: set[bytes]) -> None:
        """Nodes hold a slice when some choice of members agrees; they block if others hold none."""
        self.assertEqual(q.is_satisfied_by(nodes), has_slice(q, nodes))
        self.assertEqual(q.is_blocked_by(nodes), not has_slice(q, set(NODES) - nodes))


def depth(q: FlatQuorumSet) -> int:
    """Return how many levels a quorum set has."""
    return 1 + max((depth(one) for one in q.inner), default=0)
