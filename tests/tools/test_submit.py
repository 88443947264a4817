"""``stellar-overlay submit``: which transactions it takes, and what it says became of them."""

from __future__ import annotations

import base64
import time
from dataclasses import asdict

import stellar_sdk as sdk

from stellar_overlay.error import ConfigError
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.testing.loopback import EPOCH
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.cli import ExitStatus
from stellar_overlay.tools.submit import (
    ECHO_SECONDS,
    Report,
    Submission,
    objection_to,
    transaction_of,
)
from stellar_overlay.wire.message import Message, MessageType, decode_hashes, encode_hashes
from stellar_overlay.wire.transaction import tx_full_hash
from tests.builders import transaction as unsigned
from tests.herder.kit import keypair, payment
from tests.herder.kit import transaction as message_of
from tests.processes import call
from tests.tools.onlookers import OnlookerTestCase

PAYMENT = payment()
SECONDS = 10


def fee_bump(inner: sdk.TransactionEnvelope) -> sdk.FeeBumpTransactionEnvelope:
    """Return a transaction paid for by another account."""
    envelope = sdk.TransactionBuilder.build_fee_bump_transaction(
        keypair(5).public_key, 200, inner, TESTNET_PASSPHRASE
    )
    envelope.sign(keypair(5))
    return envelope


class Demanding(ScriptedPeer):
    """Demands what is advertised to it, twice, and then has heard of it elsewhere."""

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.FLOOD_ADVERT:
            hashes = decode_hashes(message.body)
            for _ in range(2):
                self.send(Message(encode_hashes(MessageType.FLOOD_DEMAND, [bytes(32), *hashes])))
        elif message.type is MessageType.TRANSACTION:
            self.send(
                Message(encode_hashes(MessageType.FLOOD_ADVERT, [tx_full_hash(message.body)]))
            )
            self.send(message)


class Ignorant(ScriptedPeer):
    """Demands something else."""

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.FLOOD_ADVERT:
            self.send(Message(encode_hashes(MessageType.FLOOD_DEMAND, [bytes(32)])))


class SubmissionTests(OnlookerTestCase):
    def submit(self, *names: str, message: Message | None = None) -> Report:
        """Submit a transaction to these hosts."""
        overlay = self.overlay()
        contact = self.contact(overlay, *names)
        submission = Submission(overlay, self.network.clock, message or message_of(PAYMENT))
        start = self.network.clock.seconds()
        report = self.network.result_of(submission.run(contact, SECONDS), timeout=60)
        self.seconds = self.network.clock.seconds() - start
        return report

    def test_real_nodes(self) -> None:
        """Real nodes ask for it, get it, and pass it on to one that we do not know."""
        self.network.add_node("far")
        self.network.add_node("near", known_peers=["far"])
        self.network.add_node("other")
        self.network.advance(5)
        report = self.submit("near", "other")
        nodes = {
            self.network.node(name).local_node.peer_id.strkey: str(self.network.address(name))
            for name in ("near", "other")
        }
        self.assertEqual({one["node"]: one["address"] for one in report.peers}, nodes)
        self.assertEqual(report.told, 2)
        self.assertEqual({heard.peer for heard in report.demands}, set(nodes))
        for heard in report.demands:
            self.assertTrue(20 <= heard.ms <= 1000, heard)
        self.assertEqual(report.status, ExitStatus.DONE)
        self.assertLess(self.seconds, SECONDS)
        far = self.network.node("far")
        self.assertEqual(far.metrics.pulled_relevant_txs.get(), 1)

    def test_names(self) -> None:
        """It is told by both its names: that of the network, and that of adverts."""
        self.network.add_node("a")
        report = self.submit("a")
        self.assertEqual(report.tx_hash, PAYMENT.hash_hex())
        self.assertEqual(report.hash, tx_full_hash(message_of(PAYMENT).body).hex())
        self.assertEqual(report.size, len(PAYMENT.to_xdr_object().to_xdr_bytes()))

    def test_heard_once(self) -> None:
        """Who asks twice is named once; what comes back is told, whatever way it comes."""
        host = self.network.add_peer("a", kind=Demanding)
        report = self.submit("a")
        name = host.local_node.peer_id.strkey
        self.assertEqual([(one.peer, one.what) for one in report.demands], [(name, "demand")])
        self.assertEqual(
            [(one.peer, one.what) for one in report.echoes],
            [(name, "advert"), (name, "transaction")],
        )
        (peer,) = host.answered
        self.assertEqual(peer.of_type(MessageType.TRANSACTION), [message_of(PAYMENT)])

    def test_ends_early(self) -> None:
        """When all have asked, it waits a moment for news from elsewhere, and no longer."""
        self.network.add_peer("a", kind=Demanding)
        self.submit("a")
        self.assertGreater(self.seconds, ECHO_SECONDS)
        self.assertLess(self.seconds, ECHO_SECONDS + 3)
        self.assertEqual([c for c in self.network.clock.getDelayedCalls() if c.active()], [])

    def test_nobody_asks(self) -> None:
        """Nobody asks for it in time: that is no success."""
        self.network.add_peer("a", kind=Ignorant)
        self.network.add_peer("b")
        report = self.submit("a", "b")
        self.assertEqual((report.told, report.demands, report.echoes), (2, [], []))
        self.assertEqual(report.status, ExitStatus.CHECK_FAILED)
        self.assertGreaterEqual(self.seconds, SECONDS)

    def test_nobody_there(self) -> None:
        """Without any peer there is no point in waiting."""
        self.network.add_peer("a", is_listening=False)
        report = self.submit("a")
        self.assertEqual((report.status, report.peers), (ExitStatus.UNREACHABLE, []))
        self.network.add_peer("b", local_node=LocalNode("another network"))
        report = self.submit("a", "b")
        self.assertEqual(report.status, ExitStatus.REFUSED)
        self.assertEqual([failure.is_refusal for failure in report.failures], [False, True])
        self.assertEqual(list(asdict(report))[-1], "failures")


class EnvelopeTests(OnlookerTestCase):
    """What is typed or piped in."""

    def test_read(self) -> None:
        """Base64, broken into lines or not, is exactly the transaction."""
        for envelope in (PAYMENT, fee_bump(PAYMENT)):
            text = envelope.to_xdr()
            for form in (text, f" {text}\n", "\n".join(text[i : i + 8] for i in range(0, 999, 8))):
                self.assertEqual(transaction_of(form), message_of(envelope))

    def test_not_a_transaction(self) -> None:
        """What is none is refused with a reason, whatever it is."""
        raw = PAYMENT.to_xdr_object().to_xdr_bytes()
        for text, reason in (
            ("", "is empty"),
            ("\n", "is empty"),
            (PAYMENT.hash_hex() + "x", "is not base64"),
            (PAYMENT.hash_hex(), "no TransactionEnvelope"),
            ("né", "is not base64"),
            ("\ud800", "is not base64"),
            ("AAA", "is not base64"),
            ("A" * (1024 * 1024 + 4), "characters"),
            (base64.b64encode(raw + bytes(4)).decode(), "no TransactionEnvelope"),
            (base64.b64encode(raw[:-1]).decode(), "no TransactionEnvelope"),
            (base64.b64encode(raw[:-4]).decode(), "no TransactionEnvelope"),
            (base64.b64encode(bytes(3) + b"\x09" + raw[4:]).decode(), "no TransactionEnvelope"),
        ):
            with self.subTest(text=text[:20], reason=reason):
                error = self.assertRaises(ConfigError, transaction_of, text)
                self.assertIn(reason, str(error))

    def objection(self, envelope: object, node: LocalNode | None = None) -> str | None:
        """Return what is said against a transaction."""
        return objection_to(message_of(envelope), node or self.me, max_size=200_000)

    def test_good(self) -> None:
        """Signed by its source, or by others, which only a ledger can judge: nothing is said."""
        for envelope in (PAYMENT, payment(signers=[3]), fee_bump(PAYMENT)):
            self.assertIsNone(self.objection(envelope))

    def test_signatures(self) -> None:
        """Unsigned, changed, or signed for another network: it is said which."""
        self.assertEqual(self.objection(payment(signers=[])), "the transaction is not signed")
        pubnet = LocalNode(PUBNET_PASSPHRASE)
        self.assertIn("another network, --network testnet", str(self.objection(PAYMENT, pubnet)))
        changed = payment()
        changed.transaction.fee += 1
        self.assertIn("or was changed since", str(self.objection(changed)))
        self.assertEqual(
            self.objection(fee_bump(payment(signers=[]))),
            "the transaction inside the fee bump is not signed",
        )

    def test_time_bounds(self) -> None:
        """What nobody takes any more, or not yet, is not sent."""
        now = EPOCH
        self.assertIsNone(self.objection(payment(bounds=(now - 5, now + 5))))
        self.assertIn("ended 5 s ago", str(self.objection(payment(bounds=(0, now - 5)))))
        self.assertIn("begin in 7 s", str(self.objection(payment(bounds=(now + 7, 0)))))

    def test_size(self) -> None:
        """Nor is what no network allows."""
        message = unsigned(200_004)
        self.assertIn("200000", str(objection_to(message, self.me, max_size=200_000)))

    def test_refused(self) -> None:
        """On the command line that is one line, which tells of --force, and status 2."""
        old = payment(bounds=(0, int(time.time()) - 100)).to_xdr()
        result = call(self, "submit", old)
        self.assertEqual((result.status, result.stdout), (2, ""))
        self.assertIn("--force", result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1)
