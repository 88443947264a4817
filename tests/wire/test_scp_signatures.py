"""Signatures of SCP statements, statements of our own, and the values that they are about."""

from __future__ import annotations

from typing import Any

from nacl.signing import VerifyKey
from stellar_sdk import xdr as x
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.wire import scp, xdr_check
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.scp import ScpStatement
from tests.builders import load_vectors, make_node
from tests.wire.test_scp import (
    ballot,
    confirm,
    externalized,
    nominate,
    prepare,
    statement,
)
from tests.xdr_samples import ODD_VALUE, VALUES

NODE = make_node(1)
RECORDED: list[dict[str, Any]] = [
    vector
    for vector in load_vectors("xdr-vectors")["vectors"]
    if vector["name"].startswith("SCP_MESSAGE_")
]
EACH_KIND = (
    prepare((2, b"odd"), (1, b"b")),
    confirm((1, b"odd")),
    externalized((1, b"odd")),
    nominate([b"a", b"odd"], [b"b"]),
)


class ViewTests(SynchronousTestCase):
    """The signature of a statement, and what it signs."""

    def test_recorded(self) -> None:
        """Key, signed bytes and signature of the recorded statements verify."""
        self.assertEqual(len(RECORDED), 4)
        for vector in RECORDED:
            fields = vector["fields"]
            seen = ScpStatement(bytes.fromhex(vector["hex"]))
            signature = bytes.fromhex(fields["signature"])
            signed = bytes.fromhex(fields["signedPayload"])
            self.assertEqual(seen.signature_check(signed[:32]), (seen.node, signed, signature))
            self.assertEqual(seen.signed_part, signed[36:])
            self.assertEqual(seen.quorum_set_hash.hex(), fields["quorumSetHash"])
            self.assertEqual([value.hex() for value in seen.values], [fields["value"]])
            VerifyKey(seen.node).verify(signed, seen.signature)

    def test_any_length_of_signature(self) -> None:
        """Statement and signature are told apart for every length that is legal."""
        for pledges in EACH_KIND:
            unsigned = statement(pledges)
            for size in range(65):
                envelope = x.SCPEnvelope(unsigned, x.Signature(b"\xff" * size))
                message = x.StellarMessage(x.MessageType.SCP_MESSAGE, envelope=envelope)
                seen = ScpStatement(message.to_xdr_bytes())
                self.assertEqual(seen.signature, b"\xff" * size)
                self.assertEqual(seen.signed_part, unsigned.to_xdr_bytes())

    def test_other_network(self) -> None:
        """What is signed begins with the network, so that no statement counts in two."""
        seen = ScpStatement(scp.externalize(NODE, 1, b"v").body)
        _, signed, _ = seen.signature_check(b"n" * 32)
        self.assertEqual(signed, b"n" * 32 + b"\0\0\0\1" + seen.signed_part)


class SigningTests(SynchronousTestCase):
    """Statements of our own."""

    def assert_signed(self, message: Message) -> Any:
        xdr_check.check(message.body)
        envelope: Any = message.decoded.envelope
        signed = NODE.network_id + b"\0\0\0\1" + envelope.statement.to_xdr_bytes()
        signer = envelope.statement.node_id.node_id.ed25519.uint256
        VerifyKey(signer).verify(signed, envelope.signature.signature)
        key, also_signed, signature = ScpStatement(message.body).signature_check(NODE.network_id)
        self.assertEqual((key, also_signed), (signer, signed))
        self.assertEqual(signature, envelope.signature.signature)
        return envelope.statement

    def test_recorded_signatures(self) -> None:
        """The recorded statements are signed in the same way."""
        for vector in RECORDED:
            self.assert_signed(Message(bytes.fromhex(vector["hex"])))

    def test_sign_statement(self) -> None:
        """What is signed is network id, envelope type 1 and the statement (as core verifies)."""
        for pledges in (prepare(), confirm(), externalized(), nominate([b"a"], [b"b"])):
            unsigned = statement(pledges)
            message = scp.sign_statement(NODE, unsigned.to_xdr_bytes())
            self.assertEqual(message.type, MessageType.SCP_MESSAGE)
            self.assertEqual(self.assert_signed(message), unsigned)

    def test_externalize(self) -> None:
        """An EXTERNALIZE of ours says slot, value and counter, and is signed."""
        first: Any = scp.externalize(NODE, 1, b"v").decoded.envelope
        self.assertEqual(first.statement.pledges, externalized((1, b"v"), 1))
        for value in (b"", b"v", b"value", bytes(100)):
            message = scp.externalize(NODE, 2**40, value, counter=3, quorum_set_hash=b"q" * 32)
            seen = self.assert_signed(message)
            expected = x.SCPStatementExternalize(ballot(3, value), x.Uint32(3), x.Hash(b"q" * 32))
            self.assertEqual(seen.pledges.externalize, expected)
            self.assertEqual(ScpStatement(message.body).slot, 2**40)
            self.assertEqual(ScpStatement(message.body).node, NODE.peer_id.key)

    def test_prepare(self) -> None:
        """A PREPARE of ours has a ballot and nothing else."""
        for value, counter in ((b"", 1), (b"odd", 2**32 - 1)):
            message = scp.prepare(NODE, 2**40, value, counter, quorum_set_hash=b"q" * 32)
            expected: Any = prepare((counter, value))
            expected.prepare.quorum_set_hash = x.Hash(b"q" * 32)
            seen = self.assert_signed(message)
            self.assertEqual((seen.pledges, seen.slot_index.uint64), (expected, 2**40))

    def test_nominate(self) -> None:
        """A NOMINATE of ours has its values in core's order, each once (core isSane)."""
        message = scp.nominate(NODE, 7, [b"b", b"a", b"b"], [b"a"], quorum_set_hash=b"q" * 32)
        expected: Any = nominate([b"a", b"b"], [b"a"])
        expected.nominate.quorum_set_hash = x.Hash(b"q" * 32)
        self.assertEqual(self.assert_signed(message).pledges, expected)
        alone = self.assert_signed(scp.nominate(NODE, 7, [b"odd"]))
        self.assertEqual(alone.pledges, nominate([b"odd"], []))

    def test_order_of_our_own(self) -> None:
        """What a node of ours says about a slot is newer each time."""
        steps = [
            scp.prepare(NODE, 7, b"v"),
            scp.prepare(NODE, 7, b"v", 2),
            scp.externalize(NODE, 7, b"v"),
        ]
        views = [ScpStatement(step.body) for step in steps]
        self.assertTrue(views[1].is_newer_than(views[0]))
        self.assertTrue(views[2].is_newer_than(views[1]))


class StellarValueTests(SynchronousTestCase):
    """Values are opaque to SCP; most are a StellarValue."""

    def test_all_forms(self) -> None:
        """Basic, signed and empty ones, with upgrades and without, name hash and time."""
        for value in VALUES:
            seen = x.StellarValue.from_xdr_bytes(value.value)
            self.assertEqual(scp.tx_set_hash_of_value(value.value), seen.tx_set_hash.hash)
            self.assertEqual(
                scp.close_time_of_value(value.value), seen.close_time.time_point.uint64
            )

    def test_recorded(self) -> None:
        """The recorded statements are about a signed value."""
        value = bytes.fromhex(RECORDED[0]["fields"]["value"])
        self.assertEqual(scp.tx_set_hash_of_value(value), value[:32])
        self.assertEqual(scp.close_time_of_value(value), 0x6553F409)

    def test_our_own(self) -> None:
        """A value of ours is a basic one."""
        value = scp.stellar_value(b"h" * 32, 2**64 - 1)
        basic = x.StellarValueExt(x.StellarValueType.STELLAR_VALUE_BASIC)
        when = x.TimePoint(x.Uint64(2**64 - 1))
        expected = x.StellarValue(x.Hash(b"h" * 32), when, [], basic)
        self.assertEqual(value, expected.to_xdr_bytes())
        self.assertEqual(scp.tx_set_hash_of_value(value), b"h" * 32)
        self.assertEqual(scp.close_time_of_value(value), 2**64 - 1)

    def test_empty_ledger(self) -> None:
        """A value for a ledger without a transaction set names none to fetch (CAP-0083)."""
        seen = x.StellarValue.from_xdr_bytes(VALUES[-1].value)
        seen.tx_set_hash = x.Hash(scp.EMPTY_TX_SET_HASH)
        value = seen.to_xdr_bytes()
        self.assertIsNone(scp.tx_set_hash_of_value(value))
        self.assertEqual(scp.close_time_of_value(value), 1_700_000_000)

    def test_not_a_value(self) -> None:
        """What is cut short, goes on, has bad padding, counts or types, says nothing."""
        signed = VALUES[2].value
        upgraded = VALUES[1].value
        bad = {
            "empty": b"",
            "odd": ODD_VALUE.value,
            "upgrades": signed[:40] + b"\0\0\0\7" + signed[44:],
            "huge upgrades": signed[:40] + b"\xff" * 4 + signed[44:],
            "long upgrade": upgraded[:44] + b"\0\0\0\x81" + bytes(132) + upgraded[48:],
            "huge upgrade": upgraded[:44] + b"\xff" * 4 + upgraded[48:],
            "padding": upgraded[:55] + b"\1" + upgraded[56:],
            "kind": signed[:44] + b"\0\0\0\3" + signed[48:],
            "key": signed[:48] + b"\0\0\0\1" + signed[52:],
            "signature": signed[:84] + b"\0\0\0\x41" + bytes(68),
            "trailing": signed + bytes(4),
        }
        for number, whole in enumerate(VALUES):
            bad |= {f"{number} cut to {n}": whole.value[:n] for n in range(len(whole.value))}
        for name, value in bad.items():
            self.assertIsNone(scp.tx_set_hash_of_value(value), name)
            self.assertIsNone(scp.close_time_of_value(value), name)
