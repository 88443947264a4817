"""Flat views of transactions against stellar_sdk's objects, hashes and signatures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import stellar_sdk as sdk
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from stellar_sdk import xdr as x
from stellar_sdk.base_transaction_envelope import BaseTransactionEnvelope
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import TESTNET_PASSPHRASE, network_id
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.transaction import (
    EnvelopeType,
    TransactionView,
    end_of_envelope,
    tx_full_hash,
)
from tests.builders import load_vectors
from tests.xdr_parts import KEYS, NAMES, int64, soroban_data, uint32
from tests.xdr_samples import message_of
from tests.xdr_transactions import (
    ENVELOPES,
    MUXED,
    PRECONDITIONS,
    SOROBAN,
    TIME_BOUNDS,
    envelope,
    fee_bump,
    old_envelope,
    transaction,
)

NETWORK = network_id(TESTNET_PASSPHRASE)
RECORDED: dict[str, dict[str, Any]] = {
    vector["name"]: vector
    for vector in load_vectors("xdr-vectors")["vectors"]
    if vector["name"].startswith("TRANSACTION_")
}
BOUNDS = (TIME_BOUNDS.min_time.time_point.uint64, TIME_BOUNDS.max_time.time_point.uint64)


def view(one: x.TransactionEnvelope) -> TransactionView:
    """Return the view of an envelope that passes the structural check."""
    body = message_of(one).to_xdr_bytes()
    xdr_check.check(body)
    return TransactionView(body)


def recorded(name: str) -> TransactionView:
    """Return the view of a recorded transaction."""
    return TransactionView(bytes.fromhex(RECORDED[name]["hex"]))


def contents_hash(one: x.TransactionEnvelope) -> bytes:
    """Return what is signed, from the XDR that says so: TransactionSignaturePayload."""
    kind = x.EnvelopeType
    if one.fee_bump is not None:
        tagged = x.TransactionSignaturePayloadTaggedTransaction(
            kind.ENVELOPE_TYPE_TX_FEE_BUMP, fee_bump=one.fee_bump.tx
        )
    else:
        tx = as_today(one.v0.tx) if one.v0 is not None else one.v1.tx  # type: ignore[union-attr]
        tagged = x.TransactionSignaturePayloadTaggedTransaction(kind.ENVELOPE_TYPE_TX, tx=tx)
    payload = x.TransactionSignaturePayload(x.Hash(NETWORK), tagged)
    return hashlib.sha256(payload.to_xdr_bytes()).digest()


def as_today(old: x.TransactionV0) -> x.Transaction:
    """Return a transaction of before protocol 13 as it would be written since."""
    cond = x.Preconditions(x.PreconditionType.PRECOND_NONE)
    if old.time_bounds is not None:
        cond = x.Preconditions(x.PreconditionType.PRECOND_TIME, old.time_bounds)
    source = x.MuxedAccount(x.CryptoKeyType.KEY_TYPE_ED25519, old.source_account_ed25519)
    return x.Transaction(
        source, old.fee, old.seq_num, cond, old.memo, old.operations, x.TransactionExt(0)
    )


def signatures_in(one: x.TransactionEnvelope) -> Sequence[x.DecoratedSignature]:
    """Return the signatures of the outermost envelope."""
    arm = one.v0 or one.v1 or one.fee_bump
    assert arm is not None
    return arm.signatures


def pairs(signatures: Sequence[x.DecoratedSignature]) -> tuple[tuple[bytes, bytes], ...]:
    """Return hints and signatures as bytes."""
    return tuple((one.hint.signature_hint, one.signature.signature) for one in signatures)


def decorated(hint: bytes, signature: bytes) -> x.DecoratedSignature:
    """Return a signature."""
    return x.DecoratedSignature(x.SignatureHint(hint), x.Signature(signature))


def build(source: Any = NAMES[0], operation: Any = None) -> sdk.TransactionEnvelope:
    """Return an unsigned transaction as an application makes it."""
    account = sdk.Account(source, 41)
    builder = sdk.TransactionBuilder(account, TESTNET_PASSPHRASE, base_fee=100)
    builder.append_operation(operation or sdk.BumpSequence(99))
    return builder.add_time_bounds(5, 2**63).add_text_memo("odd").build()


class FieldTests(SynchronousTestCase):
    """What transactions of all forms say."""

    def test_kinds_and_signatures(self) -> None:
        """Every sample shows its form and its signatures, none more and none less."""
        for name, one in ENVELOPES.items():
            seen = view(one)
            self.assertEqual(seen.kind, one.type.value, name)
            self.assertEqual(seen.signatures, pairs(signatures_in(one)), name)
            self.assertEqual(seen.is_signed, bool(signatures_in(one)), name)
            self.assertEqual(seen.inner is None, one.fee_bump is None, name)

    def test_today(self) -> None:
        """Source, fee and sequence number of a transaction of today."""
        for source in (None, MUXED):
            seen = view(envelope(transaction(source=source)))
            key = KEYS[2 if source else 0].raw_public_key()
            self.assertEqual(seen.kind, EnvelopeType.TX)
            self.assertEqual((seen.source, seen.fee, seen.sequence), (key, 100, 1 << 40))

    def test_before_protocol_13(self) -> None:
        """The same of an old one, whose source has no type."""
        for bounds in (None, TIME_BOUNDS):
            seen = view(old_envelope(bounds))
            self.assertEqual(seen.kind, EnvelopeType.TX_V0)
            self.assertEqual(
                (seen.source, seen.fee, seen.sequence), (KEYS[0].raw_public_key(), 100, 5)
            )
            self.assertEqual(seen.time_bounds, BOUNDS if bounds else None)

    def test_fee_bump(self) -> None:
        """A fee bump has a source and fee of its own, and the rest from inside."""
        for payer, key in ((NAMES[4], KEYS[4]), (NAMES[2], KEYS[2])):  # the latter multiplexed
            v1 = transaction(source=MUXED, cond=PRECONDITIONS[3], signatures=[])
            seen = view(fee_bump(v1, payer))
            self.assertEqual(seen.kind, EnvelopeType.TX_FEE_BUMP)
            self.assertEqual((seen.source, seen.fee), (key.raw_public_key(), 400))
            self.assertEqual((seen.sequence, seen.time_bounds), (1 << 40, BOUNDS))
            self.assertEqual(seen.inner, view(envelope(v1)))
            assert seen.inner is not None
            self.assertEqual(seen.inner.source, KEYS[2].raw_public_key())
            self.assertFalse(seen.inner.is_signed)
            self.assertTrue(seen.is_signed)

    def test_extreme_numbers(self) -> None:
        """Fees and sequence numbers are read in full, with their signs."""
        v1 = transaction()
        v1.tx.fee, v1.tx.seq_num = uint32(2**32 - 1), x.SequenceNumber(int64(-(2**63)))
        self.assertEqual(view(envelope(v1)).fee, 2**32 - 1)
        bump = fee_bump(v1)
        for fee in (-1, 2**63 - 1):
            bump.fee_bump.tx.fee = int64(fee)  # type: ignore[union-attr]
            self.assertEqual((view(bump).fee, view(bump).sequence), (fee, -(2**63)))

    def test_time_bounds(self) -> None:
        """All forms of preconditions, alone, in a fee bump, and before a Soroban extension."""
        expected = [None, BOUNDS, None, BOUNDS, BOUNDS]
        for cond, bounds in zip(PRECONDITIONS, expected, strict=True):
            for source in (None, MUXED):
                v1 = transaction(source=source, cond=cond)
                self.assertEqual(view(envelope(v1)).time_bounds, bounds)
                self.assertEqual(view(fee_bump(v1)).time_bounds, bounds)
                v1.tx.ext = soroban_data()
                self.assertEqual(view(envelope(v1)).time_bounds, bounds)
                self.assertEqual(view(envelope(v1)).signatures, pairs(v1.signatures))


class HashTests(SynchronousTestCase):
    """Full hashes and contents hashes."""

    def test_recorded(self) -> None:
        """The recorded transactions have the recorded hashes."""
        payment, bump = recorded("TRANSACTION_payment_v1"), recorded("TRANSACTION_feebump")
        fields = RECORDED["TRANSACTION_payment_v1"]["fields"]
        self.assertEqual(payment.contents_hash(NETWORK).hex(), fields["txHash"])
        self.assertEqual(tx_full_hash(payment.body).hex(), fields["fullHash_sha256_of_envelope"])
        fields = RECORDED["TRANSACTION_feebump"]["fields"]
        self.assertEqual(bump.contents_hash(NETWORK).hex(), fields["txHash"])
        self.assertEqual(bump.inner, payment)

    def test_samples(self) -> None:
        """Every sample has the hashes that the XDR of signature payloads gives it."""
        for name, one in ENVELOPES.items():
            seen = view(one)
            self.assertEqual(seen.contents_hash(NETWORK), contents_hash(one), name)
            full = hashlib.sha256(one.to_xdr_bytes()).digest()
            self.assertEqual(tx_full_hash(seen.body), full, name)

    def test_as_applications_hash(self) -> None:
        """stellar_sdk computes the same, of old transactions too."""
        for name in ("payment", "muxed source", "fee bump", "fee bump, muxed", "condition 4"):
            self.assert_same_hash(ENVELOPES[name], name)
        for bounds in (None, TIME_BOUNDS):
            self.assert_same_hash(old_envelope(bounds), "old")
        self.assertNotEqual(
            view(ENVELOPES["payment"]).contents_hash(bytes(32)),
            view(ENVELOPES["payment"]).contents_hash(NETWORK),
        )

    def assert_same_hash(self, one: x.TransactionEnvelope, name: str) -> None:
        parsed = sdk.TransactionBuilder.from_xdr(one.to_xdr(), TESTNET_PASSPHRASE)
        self.assertEqual(view(one).contents_hash(NETWORK), parsed.hash(), name)


class SignatureTests(SynchronousTestCase):
    """What the source account signed, or seems to have signed."""

    def assert_verifies(self, seen: TransactionView, key: sdk.Keypair) -> None:
        ((public, signed, signature),) = seen.signature_checks(NETWORK)
        self.assertEqual(public, key.raw_public_key())
        VerifyKey(public).verify(signed, signature)

    def signed(self, one: BaseTransactionEnvelope[Any], *keys: sdk.Keypair) -> TransactionView:
        for key in keys:
            one.sign(key)
        return view(one.to_xdr_object())

    def test_recorded(self) -> None:
        """The recorded transactions are signed by their sources."""
        for name in RECORDED:
            seen = recorded(name)
            for one in (seen, seen.inner):
                if one is not None:
                    ((public, signed, signature),) = one.signature_checks(NETWORK)
                    VerifyKey(public).verify(signed, signature)

    def test_signed_by_applications(self) -> None:
        """What stellar_sdk signs verifies: classic, multiplexed, Soroban, and old."""
        self.assert_verifies(self.signed(build(), KEYS[0]), KEYS[0])
        self.assert_verifies(self.signed(build(MUXED), KEYS[2]), KEYS[2])
        soroban = build(operation=SOROBAN[0])
        soroban.transaction.soroban_data = soroban_data().soroban_data
        self.assert_verifies(self.signed(soroban, KEYS[0]), KEYS[0])
        old = build()
        old.transaction.v1 = False
        seen = self.signed(old, KEYS[0])
        self.assertEqual(seen.kind, EnvelopeType.TX_V0)
        self.assert_verifies(seen, KEYS[0])

    def test_fee_bump(self) -> None:
        """Of a fee bump both who pays and who acts are asked about, each for its own hash."""
        inner = build(MUXED)
        inner.sign(KEYS[2])
        bump = sdk.TransactionBuilder.build_fee_bump_transaction(
            NAMES[4], 300, inner, TESTNET_PASSPHRASE
        )
        seen = self.signed(bump, KEYS[4])
        self.assert_verifies(seen, KEYS[4])
        assert seen.inner is not None
        self.assert_verifies(seen.inner, KEYS[2])
        self.assertNotEqual(seen.contents_hash(NETWORK), seen.inner.contents_hash(NETWORK))

    def test_other_signers(self) -> None:
        """Signatures of others are passed over, in whatever order they come."""
        self.assert_verifies(self.signed(build(), KEYS[1], KEYS[0], KEYS[3]), KEYS[0])
        seen = self.signed(build(), KEYS[1])
        self.assertEqual(seen.signature_checks(NETWORK), ())
        self.assertTrue(seen.is_signed)
        unsigned = self.signed(build())
        self.assertEqual(unsigned.signature_checks(NETWORK), ())
        self.assertFalse(unsigned.is_signed)

    def test_wrong_signature(self) -> None:
        """A hint of the source's makes a signature count, whatever it is worth."""
        source = KEYS[0].raw_public_key()
        blobs = [b"", b"\1", b"\2" * 61, b"\3" * 64, b"\3" * 64]
        seen = view(envelope(transaction(signatures=[decorated(source[-4:], b) for b in blobs])))
        checks = seen.signature_checks(NETWORK)
        signed = seen.contents_hash(NETWORK)
        self.assertEqual(checks, tuple((source, signed, blob) for blob in blobs))
        with self.assertRaises(BadSignatureError):
            VerifyKey(source).verify(signed, blobs[-1])

    def test_other_network(self) -> None:
        """A signature for one network does not verify in another."""
        ((public, signed, signature),) = self.signed(build(), KEYS[0]).signature_checks(bytes(32))
        with self.assertRaises(BadSignatureError):
            VerifyKey(public).verify(signed, signature)


class HostileTests(SynchronousTestCase):
    """Bytes that look like signatures, where there are none."""

    fake = (1).to_bytes(4, "big") + KEYS[0].raw_public_key()[-4:] + (0).to_bytes(4, "big")
    """A list of one empty signature with the source's hint."""

    def test_list_in_an_operation(self) -> None:
        """An operation that ends like a list of signatures is not one."""
        for tail in (self.fake, bytes(4) + self.fake, self.fake + bytes(8)):
            data = sdk.ManageData("name", tail).to_xdr_object()
            seen = view(envelope(transaction([data], signatures=[])))
            self.assertEqual(seen.signatures, ())
            self.assertFalse(seen.is_signed)
            self.assertEqual(seen.signature_checks(NETWORK), ())

    def test_list_in_a_signature(self) -> None:
        """Nor is a signature that goes on like an extension and a list of its own."""
        for nothing in (b"", bytes(4)):
            blob = b"\7" * 36 + nothing + self.fake
            v1 = transaction(signatures=[decorated(b"hint", blob)])
            for one in (envelope(v1), fee_bump(v1)):
                inner = view(one).inner or view(one)
                self.assertEqual(inner.signatures, ((b"hint", blob),))
                self.assertEqual(inner.signature_checks(NETWORK), ())

    def test_count_that_reaches_back(self) -> None:
        """A signature that encodes the real list's rest does not hide what comes before it."""
        source = KEYS[0].raw_public_key()
        real = decorated(source[-4:], b"\3" * 64)
        seen = view(envelope(transaction(signatures=[real, decorated(b"hint", self.fake)])))
        self.assertEqual(len(seen.signatures), 2)
        self.assertEqual(len(seen.signature_checks(NETWORK)), 1)

    def test_largest(self) -> None:
        """An envelope of the greatest size is walked as any other."""
        contract = x.HostFunction(
            x.HostFunctionType.HOST_FUNCTION_TYPE_UPLOAD_CONTRACT_WASM,
            wasm=self.fake * ((xdr_check.MAX_TRANSACTION_BYTES - 200) // len(self.fake)),
        )
        upload = sdk.InvokeHostFunction(contract).to_xdr_object()
        one = envelope(transaction([upload]))
        seen = view(one)
        self.assertEqual(seen.signatures, pairs(signatures_in(one)))
        self.assertEqual(seen.contents_hash(NETWORK), contents_hash(one))


class WalkTests(SynchronousTestCase):
    """Where envelopes end."""

    def test_one_after_the_other(self) -> None:
        """In a row of envelopes each ends where the next begins."""
        all_bytes = [one.to_xdr_bytes() for one in ENVELOPES.values()]
        row, at = b"".join(all_bytes), 0
        for one in all_bytes:
            at, start = end_of_envelope(row, at), at
            self.assertEqual(row[start:at], one)
        self.assertEqual(at, len(row))
