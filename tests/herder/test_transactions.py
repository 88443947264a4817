"""Which transactions are good, as far as that can be told without a ledger (DECISIONS 19)."""

from __future__ import annotations

import stellar_sdk as sdk
from stellar_sdk.decorated_signature import DecoratedSignature
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder import transactions as module
from stellar_overlay.herder.transactions import TransactionJudge, TransactionPool
from stellar_overlay.identity import TESTNET_PASSPHRASE
from stellar_overlay.interfaces import TxStatus
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.transaction import tx_full_hash
from tests.builders import WALL_NOW
from tests.herder.kit import NETWORK, ManualVerifier, Verdict, keypair, payment, transaction

NOW = int(WALL_NOW)
PENDING, DUPLICATE, ERROR = TxStatus.PENDING, TxStatus.DUPLICATE, TxStatus.ERROR


def tx_hash(message: Message) -> bytes:
    """Return the hash by which a transaction is advertised."""
    return tx_full_hash(message.body)


def hinted(envelope: sdk.TransactionEnvelope, source: int, *signatures: bytes) -> Message:
    """Return a transaction with more signatures that seem to be those of an account."""
    hint = keypair(source).signature_hint()
    added = [DecoratedSignature(hint, signature) for signature in signatures]
    envelope.signatures[:0] = added
    return transaction(envelope)


def fee_bump(
    inner: sdk.TransactionEnvelope, source: int = 5, *signers: int
) -> sdk.FeeBumpTransactionEnvelope:
    """Return a transaction for which another account pays."""
    outer = sdk.TransactionBuilder.build_fee_bump_transaction(
        keypair(source), 200, inner, TESTNET_PASSPHRASE
    )
    for number in signers or (source,):
        outer.sign(keypair(number))
    return outer


class PoolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.wall_now = WALL_NOW
        self.pool = TransactionPool(self.clock, lambda: self.wall_now)

    def keep(self, message: Message) -> bytes:
        """Put a transaction into the pool; return its hash."""
        self.pool.add(tx_hash(message), message)
        return tx_hash(message)


class TransactionPoolTests(PoolTestCase):
    def test_what_is_in_it(self) -> None:
        """By its full hash."""
        message = transaction(payment())
        self.assertIsNone(self.pool.get(tx_hash(message)))
        self.keep(message)
        self.assertEqual(self.pool.get(tx_hash(message)), message)
        self.assertEqual((len(self.pool), self.pool.size), (1, message.size))

    def test_five_minutes_are_enough(self) -> None:
        """What is not in a ledger by then will not be."""
        key = self.keep(transaction(payment()))
        self.clock.advance(299.9)
        self.assertIsNotNone(self.pool.get(key))
        self.clock.advance(0.1)
        self.assertIsNone(self.pool.get(key))

    def test_nothing_is_served_after_its_time(self) -> None:
        """The last second is part of it; 0 is for ever."""
        bounded = self.keep(transaction(payment(bounds=(0, NOW + 10))))
        unbounded = self.keep(transaction(payment(bounds=(0, 0))))
        self.wall_now += 10
        self.assertIsNotNone(self.pool.get(bounded))
        self.wall_now += 1
        self.assertIsNone(self.pool.get(bounded))
        self.assertIsNotNone(self.pool.get(unbounded))

    def test_old_ones_can_be_swept_out(self) -> None:
        """So that they do not fill the memory when nobody asks for them."""
        self.keep(transaction(payment(bounds=(0, NOW))))
        self.clock.advance(1)
        self.keep(transaction(payment(sequence=2)))
        self.wall_now += 1
        self.pool.expire()
        self.assertEqual(len(self.pool), 1)
        self.clock.advance(300)
        self.pool.expire()
        self.assertEqual((len(self.pool), self.pool.size), (0, 0))

    def test_it_is_bounded_by_number_and_bytes(self) -> None:
        """The oldest go first."""
        self.patch(module, "MAX_POOLED", 3)
        pool = TransactionPool(self.clock, lambda: self.wall_now)
        messages = [transaction(payment(sequence=number)) for number in range(4)]
        for message in messages:
            pool.add(tx_hash(message), message)
        self.assertEqual(len(pool), 3)
        self.assertIsNone(pool.get(tx_hash(messages[0])))
        self.patch(module, "MAX_POOLED_BYTES", messages[0].size)
        pool = TransactionPool(self.clock, lambda: self.wall_now)
        for message in messages:
            pool.add(tx_hash(message), message)
        self.assertEqual(len(pool), 1)

    def test_what_nobody_is_seen_to_have_signed_pushes_out_no_other(self) -> None:
        """It has a small place of its own, bounded by number and by bytes."""
        limits = module.MAX_UNVERIFIED, module.MAX_UNVERIFIED_BYTES
        self.assertEqual(limits, (2_000, 16 * 1024 * 1024))
        seen = transaction(payment())
        unseen = [transaction(payment(sequence=number, signers=(1,))) for number in range(1, 5)]
        for name, limit in (("MAX_UNVERIFIED", 2), ("MAX_UNVERIFIED_BYTES", 2 * unseen[0].size)):
            self.patch(module, "MAX_POOLED", 1)
            self.patch(module, name, limit)
            self.pool = TransactionPool(self.clock, lambda: self.wall_now)
            self.keep(seen)
            for message in unseen:
                self.pool.add(tx_hash(message), message, is_verified=False)
            self.assertEqual(self.pool.get(tx_hash(seen)), seen)
            here = [self.pool.get(tx_hash(message)) for message in unseen]
            self.assertEqual(here, [None, None, *unseen[2:]])
            self.assertEqual((len(self.pool), self.pool.size), (3, 3 * seen.size))

    def test_it_is_not_pushed_out_either(self) -> None:
        """By what was verified, however much that is."""
        self.patch(module, "MAX_POOLED", 1)
        self.pool = TransactionPool(self.clock, lambda: self.wall_now)
        unseen = transaction(payment(signers=(1,)))
        self.pool.add(tx_hash(unseen), unseen, is_verified=False)
        for number in range(3):
            self.keep(transaction(payment(sequence=number)))
        self.assertEqual(self.pool.get(tx_hash(unseen)), unseen)
        self.assertEqual(len(self.pool), 2)

    def test_it_grows_old_as_all_others(self) -> None:
        """By the time that it is here, and by its own; swept out, or when it is asked for."""
        early, late = (
            transaction(payment(sequence=number, bounds=(0, NOW + 10 * number), signers=(1,)))
            for number in (1, 2)
        )
        for message in (early, late):
            self.pool.add(tx_hash(message), message, is_verified=False)
        self.wall_now += 11
        self.assertIsNone(self.pool.get(tx_hash(early)))
        self.assertEqual(len(self.pool), 1)
        self.clock.advance(300)
        self.pool.expire()
        self.assertEqual((len(self.pool), self.pool.size), (0, 0))

    def test_bans_are_forgotten(self) -> None:
        """After ten minutes, or when there are too many, or when it turns out to be good."""
        self.patch(module, "MAX_BANNED", 2)
        pool = TransactionPool(self.clock, lambda: self.wall_now)
        messages = [transaction(payment(sequence=number)) for number in range(3)]
        for message in messages:
            pool.ban(tx_hash(message))
        self.assertEqual([pool.is_banned(tx_hash(one)) for one in messages], [False, True, True])
        pool.add(tx_hash(messages[1]), messages[1])
        self.assertFalse(pool.is_banned(tx_hash(messages[1])))
        self.clock.advance(599.9)
        self.assertTrue(pool.is_banned(tx_hash(messages[2])))
        self.clock.advance(0.1)
        self.assertFalse(pool.is_banned(tx_hash(messages[2])))


class TransactionJudgeTests(PoolTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.verifier = ManualVerifier()
        self.accepted: list[Message] = []
        self.judge = TransactionJudge(
            self.pool,
            network_id=NETWORK,
            verifier=self.verifier,
            wall_clock=lambda: self.wall_now,
            accept=self.accepted.append,
            max_tx_size=1000,
        )

    def take(self, message: Message) -> Verdict:
        """Return what becomes of a transaction."""
        verdict = Verdict()
        self.judge.judge(message.body, tx_hash(message), verdict)
        return verdict

    def assert_refused(self, message: Message, *, is_banned: bool = True, checks: int = 0) -> None:
        """Check that a transaction comes to nothing, after so many signature checks."""
        before = self.verifier.checked
        self.assertEqual(self.take(message).said, [ERROR])
        self.assertEqual(self.pool.is_banned(tx_hash(message)), is_banned)
        self.assertEqual(self.verifier.checked - before, checks)
        self.assertIsNone(self.pool.get(tx_hash(message)))
        self.assertNotIn(message, self.accepted)

    def assert_accepted(self, message: Message, *, checks: int = 1) -> None:
        """Check that a transaction is good, after so many signature checks."""
        before = self.verifier.checked
        self.assertEqual(self.take(message).said, [PENDING])
        self.assertEqual(self.verifier.checked - before, checks)
        self.assertEqual(self.pool.get(tx_hash(message)), message)
        self.assertEqual(self.accepted[-1:], [message])

    def test_a_signed_payment_is_good(self) -> None:
        """And known the next time."""
        message = transaction(payment())
        self.assert_accepted(message)
        self.assertEqual(self.take(message).said, [DUPLICATE])
        self.assertEqual((self.verifier.checked, len(self.accepted)), (1, 1))

    def test_too_large(self) -> None:
        """Whatever it is; the limit itself is allowed."""
        message = transaction(payment())
        self.judge = TransactionJudge(
            self.pool,
            network_id=NETWORK,
            verifier=self.verifier,
            wall_clock=lambda: self.wall_now,
            accept=self.accepted.append,
            max_tx_size=message.size,
        )
        self.assert_accepted(message)
        self.assert_refused(transaction(payment(sequence=1, signers=(0, 1))))

    def test_banned(self) -> None:
        """What was no good is not looked at again."""
        message = transaction(payment())
        self.pool.ban(tx_hash(message))
        self.assert_refused(message)

    def test_unsigned(self) -> None:
        """The network would refuse it; so it would a bump of what is unsigned."""
        self.assert_refused(transaction(payment(signers=())))
        self.assert_refused(transaction(fee_bump(payment(signers=()))))

    def test_too_late(self) -> None:
        """The last second is part of its time."""
        self.assert_refused(transaction(payment(bounds=(0, NOW - 1))))
        self.assert_accepted(transaction(payment(bounds=(0, NOW))))

    def test_too_early(self) -> None:
        """It may become good, so it is not banned."""
        message = transaction(payment(bounds=(NOW + 1, 0)))
        self.assert_refused(message, is_banned=False)
        self.wall_now += 1
        self.assert_accepted(message)

    def test_bounds_inside_a_fee_bump_count(self) -> None:
        """As it has none of its own."""
        self.assert_refused(transaction(fee_bump(payment(bounds=(0, NOW - 1)))))

    def test_the_source_has_not_signed_it(self) -> None:
        """Though the hint says so."""
        message = hinted(payment(signers=()), 0, keypair(1).sign(b"something else"))
        self.assert_refused(message, checks=1)
        self.assert_refused(message, checks=0)

    def test_a_twin_with_another_content_is_refused(self) -> None:
        """The signature is that of the first."""
        twin = payment(sequence=7, signers=())
        twin.signatures = list(payment().signatures)
        self.assert_refused(transaction(twin), checks=1)

    def test_others_may_sign_for_an_account(self) -> None:
        """Whether they may, only a ledger knows."""
        self.assert_accepted(transaction(payment(signers=(1, 2))), checks=0)

    def test_what_others_have_signed_pushes_out_nobody_else_s(self) -> None:
        """Nothing is checked of it, so that it takes not even a key to write it."""
        self.patch(module, "MAX_UNVERIFIED", 2)
        self.pool = TransactionPool(self.clock, lambda: self.wall_now)
        self.judge = TransactionJudge(
            self.pool,
            network_id=NETWORK,
            verifier=self.verifier,
            wall_clock=lambda: self.wall_now,
            accept=self.accepted.append,
        )
        seen = transaction(payment())
        unseen = [transaction(payment(sequence=number, signers=(1,))) for number in range(1, 5)]
        self.assert_accepted(seen)
        for message in unseen:
            self.assert_accepted(message, checks=0)
        here = [self.pool.get(tx_hash(message)) for message in (seen, *unseen)]
        self.assertEqual(here, [seen, None, None, *unseen[2:]])
        self.assertEqual(self.take(unseen[-1]).said, [DUPLICATE])

    def test_another_signer_may_have_the_same_hint(self) -> None:
        """One good signature is enough."""
        self.assert_accepted(hinted(payment(), 0, bytes(64)), checks=2)

    def test_many_signatures_with_one_hint_cost_two_checks(self) -> None:
        """That is no coincidence any more."""
        message = hinted(payment(signers=()), 0, *(bytes([n]) * 64 for n in range(8)))
        self.assert_refused(message, checks=2)

    def test_a_short_signature_is_a_bad_one(self) -> None:
        """The wire allows any length up to 64."""
        self.assert_refused(hinted(payment(signers=()), 0, b"short"), checks=1)

    def test_both_accounts_of_a_fee_bump_must_have_signed(self) -> None:
        """Who pays the fee, and whose transaction it is."""
        self.assert_accepted(transaction(fee_bump(payment())), checks=2)
        bad_inner = payment(signers=())
        bad_inner.signatures = [DecoratedSignature(keypair(0).signature_hint(), bytes(64))]
        self.assert_refused(transaction(fee_bump(bad_inner)), checks=2)
        bad_outer = fee_bump(payment())
        bad_outer.signatures = [DecoratedSignature(keypair(5).signature_hint(), bytes(64))]
        self.assert_refused(transaction(bad_outer), checks=1)
        self.assert_accepted(transaction(fee_bump(payment(signers=(3,)), 5, 4)), checks=0)

    def test_copies_wait_for_the_same_verdict(self) -> None:
        """One check for all; the first one is new, the others are duplicates."""
        self.verifier.is_prompt = False
        message = transaction(payment())
        verdicts = [self.take(message) for _ in range(3)]
        self.assertEqual([one.said for one in verdicts], [[], [], []])
        self.assertEqual(len(self.verifier.waiting), 1)
        self.verifier.release()
        self.assertEqual([one.said for one in verdicts], [[PENDING], [DUPLICATE], [DUPLICATE]])
        self.assertEqual(self.accepted, [message])

    def test_copies_of_a_bad_one_are_all_bad(self) -> None:
        """And the hash is banned."""
        self.verifier.is_prompt = False
        message = hinted(payment(signers=()), 0, bytes(64))
        verdicts = [self.take(message), self.take(message)]
        self.verifier.release()
        self.assertEqual([one.said for one in verdicts], [[ERROR], [ERROR]])
        self.assertTrue(self.pool.is_banned(tx_hash(message)))

    def test_a_stopped_judge_says_so_once(self) -> None:
        """To what is being verified, and to what comes after; nobody is banned for it."""
        self.verifier.is_prompt = False
        message = transaction(payment())
        early = self.take(message)
        self.judge.stop()
        late = self.take(transaction(payment(sequence=1)))
        self.verifier.release()
        self.assertEqual((early.said, late.said), ([ERROR], [ERROR]))
        self.assertFalse(self.pool.is_banned(tx_hash(message)))
        self.assertEqual((len(self.pool), self.accepted), (0, []))
