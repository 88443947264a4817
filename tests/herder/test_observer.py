"""A herder without a ledger: what it takes, passes on and fetches (DECISIONS 19)."""

from __future__ import annotations

from stellar_overlay.herder import wanted
from stellar_overlay.herder.wanted import MAX_PER_SIGNER_AND_SLOT
from stellar_overlay.interfaces import EnvelopeStatus, Herder, TxStatus
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set, quorum_set_hash
from stellar_overlay.wire.scp import (
    EMPTY_TX_SET_HASH,
    externalize,
    nominate,
    prepare,
    stellar_value,
)
from stellar_overlay.wire.transaction import tx_full_hash
from tests.builders import advert
from tests.herder.kit import (
    NODES,
    OWN,
    ObserverTestCase,
    a_hash,
    a_value,
    forged,
    keys,
    payment,
    quorum_of,
    transaction,
)

DISCARDED, FETCHING = EnvelopeStatus.DISCARDED, EnvelopeStatus.FETCHING
READY, PROCESSED = EnvelopeStatus.READY, EnvelopeStatus.PROCESSED
PENDING, DUPLICATE, ERROR = TxStatus.PENDING, TxStatus.DUPLICATE, TxStatus.ERROR

NO_TX_SET = stellar_value(EMPTY_TX_SET_HASH, 1)
ITEM = advert()
"""Stands for a transaction set: nobody looks into it."""


def named(quorum_set: FlatQuorumSet) -> tuple[bytes, Message]:
    """Return the hash and the message of a quorum set."""
    message = encode_quorum_set(quorum_set)
    return quorum_set_hash(message.body), message


class RelayTests(ObserverTestCase):
    def test_it_is_a_herder(self) -> None:
        """For the type checker, too."""
        herder: Herder = self.observer()
        self.assertEqual(herder.tracking_ledger(), 0)

    def test_relay_passes_on_what_is_good(self) -> None:
        """Byte for byte, once."""
        herder = self.observer()
        envelope, tx = nominate(NODES[0], 5, [NO_TX_SET]), transaction(payment())
        self.assert_heard(READY, herder, envelope)
        self.assert_taken(PENDING, herder, tx)
        self.assert_heard(PROCESSED, herder, envelope)
        self.assert_taken(DUPLICATE, herder, tx)
        self.assertEqual(self.overlay.broadcasts, [envelope, tx])

    def test_relay_passes_on_nothing_else(self) -> None:
        """Forged, foreign, from ourselves, or signed by nobody."""
        herder = self.observer(quorum_of(0))
        self.assert_heard(DISCARDED, herder, forged(nominate(NODES[0], 5, [NO_TX_SET])))
        self.assert_heard(DISCARDED, herder, nominate(NODES[1], 5, [NO_TX_SET]))
        self.assert_heard(EnvelopeStatus.SKIPPED_SELF, herder, nominate(OWN, 5, [NO_TX_SET]))
        self.assert_taken(ERROR, herder, transaction(payment(signers=())))
        self.assertEqual(self.overlay.broadcasts, [])
        self.assertEqual(herder.slots(), [])

    def test_observe_passes_on_nothing_and_answers_all_the_same(self) -> None:
        """What it takes, keeps and fetches is the same."""
        herder = self.observer(is_relaying=False)
        envelope, tx = externalize(NODES[0], 5, a_value()), transaction(payment())
        self.assert_heard(FETCHING, herder, envelope)
        self.assert_taken(PENDING, herder, tx)
        self.assertEqual(self.overlay.broadcasts, [])
        self.assertEqual(herder.get_scp_state(0).now, [envelope])
        self.assertEqual(herder.get_tx(tx_full_hash(tx.body)), tx)
        self.assertEqual(len(self.overlay.tx_sets), 1)

    def test_envelopes_do_not_wait_for_what_they_name(self) -> None:
        """It is asked for first, of those who have sent the envelope."""
        item_hash, _ = named(quorum_of(1))
        herder = self.observer()
        self.assert_heard(
            FETCHING, herder, prepare(NODES[0], 5, a_value(), quorum_set_hash=item_hash)
        )
        self.assertEqual(self.overlay.log, ["fetch quorum set", "fetch tx set", "broadcast"])

    def test_a_bad_transaction_is_banned(self) -> None:
        """So that it is not demanded again."""
        herder = self.observer()
        bad = transaction(payment(signers=()))
        self.assert_taken(ERROR, herder, bad)
        self.assertTrue(herder.is_banned_tx(tx_full_hash(bad.body)))
        self.assertFalse(herder.is_banned_tx(a_hash("any")))

    def test_no_gate_for_transactions_when_out_of_sync(self) -> None:
        """DECISIONS 19b: without a ledger that cannot be told."""
        herder = self.observer(quorum_of(0))
        self.assertFalse(herder.is_tracking())
        self.assert_taken(PENDING, herder, transaction(payment()))

    def test_the_largest_transaction_is_a_matter_of_configuration(self) -> None:
        """The network may vote for another size."""
        herder = self.observer(max_tx_size=100)
        self.assert_taken(ERROR, herder, transaction(payment()))

    def test_after_stop_every_verdict_is_given_and_nothing_done(self) -> None:
        """Also on what was being verified."""
        self.verifier.is_prompt = False
        herder = self.observer()
        scp = self.hear(herder, externalize(NODES[0], 5, a_value()))
        tx = self.take(herder, transaction(payment()))
        herder.stop()
        self.verifier.release()
        late = self.hear(herder, externalize(NODES[1], 5, a_value()))
        herder.note_own_envelope(externalize(OWN, 5, a_value()))
        self.assertEqual((scp.said, late.said, tx.said), ([DISCARDED], [DISCARDED], [ERROR]))
        self.assertEqual(self.overlay.log, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OwnTests(ObserverTestCase):
    def test_our_own_envelopes_are_answered_and_followed(self) -> None:
        """Neither verified nor broadcast: they are on their way already."""
        herder = self.observer()
        old, new = prepare(OWN, 5, a_value()), externalize(OWN, 5, a_value())
        for message in (old, new, old):
            herder.note_own_envelope(message)
        self.assertEqual(herder.get_scp_state(0).now, [new])
        self.assertEqual(herder.tracking_ledger(), 5)
        self.assertEqual(self.verifier.checked, 0)
        self.assertNotIn("broadcast", self.overlay.log)

    def test_a_slot_that_cannot_be_is_not_kept(self) -> None:
        """Not even of our own."""
        herder = self.observer()
        for slot in (0, 2**32):
            herder.note_own_envelope(prepare(OWN, slot, b"v"))
        self.assertEqual(herder.slots(), [])

    def test_what_comes_back_is_old_news(self) -> None:
        """Of a validator that we speak for."""
        herder = self.observer()
        message = externalize(NODES[0], 5, a_value())
        herder.note_own_envelope(message)
        self.assert_heard(PROCESSED, herder, message)


class FetchTests(ObserverTestCase):
    def test_what_a_statement_names_is_fetched_once(self) -> None:
        """By each of the first two who name it, for the slot and the envelope that do."""
        herder = self.observer()
        first = externalize(NODES[0], 5, a_value(), quorum_set_hash=a_hash("q"))
        self.assert_heard(FETCHING, herder, first)
        second, third = (
            externalize(node, 5, a_value(), quorum_set_hash=a_hash("q")) for node in NODES[1:3]
        )
        self.assert_heard(FETCHING, herder, second)
        self.assert_heard(FETCHING, herder, third)
        bodies = first.body, second.body
        self.assertEqual(self.overlay.tx_sets, [(a_hash("tx set"), 5, body) for body in bodies])
        self.assertEqual(self.overlay.quorum_sets, [(a_hash("q"), 5, body) for body in bodies])

    def test_what_the_overlay_has_no_room_for(self) -> None:
        """Is not kept: the next statement asks again, whoever makes it."""
        herder = self.observer()
        self.overlay.has_room = False
        said = [
            prepare(NODES[0], 5, a_value(), number, quorum_set_hash=a_hash("q"))
            for number in range(1, 6)
        ]
        for number, envelope in enumerate(said, 1):
            self.overlay.has_room = number >= 3
            self.assert_heard(FETCHING, herder, envelope)
            expected = min(number, 3)
            self.assertEqual(len(self.overlay.tx_sets), expected)
            self.assertEqual(len(self.overlay.quorum_sets), expected)

    def test_what_was_refused_is_on_nobody_s_account(self) -> None:
        """Whoever names much while there is no room may name as much when there is."""
        herder = self.observer()
        self.overlay.has_room = False
        for number in range(3 * MAX_PER_SIGNER_AND_SLOT):
            self.hear(herder, prepare(NODES[0], 5, a_value(number), number + 1))
        self.assertEqual(len(self.overlay.tx_sets), 3 * MAX_PER_SIGNER_AND_SLOT)
        self.overlay.tx_sets.clear()
        self.overlay.has_room = True
        for number in range(3 * MAX_PER_SIGNER_AND_SLOT):
            self.hear(herder, prepare(NODES[0], 5, a_value(-1 - number), 100 + number))
        self.assertEqual(len(self.overlay.tx_sets), MAX_PER_SIGNER_AND_SLOT)

    def test_all_kinds_of_statements_name_values(self) -> None:
        """Nominated ones, too."""
        herder = self.observer()
        self.assert_heard(FETCHING, herder, nominate(NODES[0], 5, [a_value(1)], [a_value(2)]))
        self.assert_heard(FETCHING, herder, prepare(NODES[0], 5, a_value(3)))
        self.assert_heard(FETCHING, herder, externalize(NODES[0], 5, a_value(4)))
        wanted = {item_hash for item_hash, _, _ in self.overlay.tx_sets}
        self.assertEqual(wanted, {a_hash(number) for number in (1, 2, 3, 4)})

    def test_ready_when_all_is_here(self) -> None:
        """Because it came, or because the overlay had it at once."""
        herder = self.observer()
        item_hash, message = named(quorum_of(1, 2))
        self.overlay.items = {a_hash("here"): ITEM, item_hash: message}
        self.assert_heard(
            READY, herder, externalize(NODES[0], 5, a_value("here"), quorum_set_hash=item_hash)
        )
        self.assert_heard(FETCHING, herder, externalize(NODES[0], 6, a_value("later")))
        herder.recv_tx_set(a_hash("later"), ITEM)
        self.assert_heard(READY, herder, externalize(NODES[1], 6, a_value("later")))
        self.assertEqual(len(self.overlay.tx_sets), 2)

    def test_what_was_fetched_is_answered(self) -> None:
        """Quorum sets and transaction sets; and our own quorum set, which nobody need fetch."""
        own_hash, own = named(quorum_of(0))
        item_hash, message = named(quorum_of(1, 2))
        herder = self.observer(quorum_of(0))
        herder.recv_quorum_set(item_hash, message)
        herder.recv_tx_set(a_hash(1), ITEM)
        self.assertEqual(herder.get_quorum_set(item_hash), message)
        self.assertEqual(herder.get_quorum_set(own_hash), own)
        self.assertEqual(herder.get_tx_set(a_hash(1)), ITEM)
        self.assertIsNone(herder.get_quorum_set(a_hash(1)))
        self.assertIsNone(herder.get_tx_set(item_hash))

    def test_nothing_is_fetched_that_nobody_can_have(self) -> None:
        """The empty transaction set, what is no value at all, and a quorum set of zeros."""
        herder = self.observer()
        self.assert_heard(READY, herder, nominate(NODES[0], 5, [NO_TX_SET, b"v"]))
        self.assertEqual(self.overlay.log, ["broadcast"])

    def test_nothing_is_fetched_for_those_whom_nobody_trusts(self) -> None:
        """Nor for what is forged."""
        herder = self.observer(quorum_of(0))
        self.assert_heard(DISCARDED, herder, externalize(NODES[1], 5, a_value()))
        self.assert_heard(DISCARDED, herder, forged(externalize(NODES[0], 5, a_value())))
        self.assertEqual(self.overlay.log, [])

    def test_a_signer_who_invents_hashes_does_not_use_up_the_fetching(self) -> None:
        """What others name is fetched as before, even if it was among the inventions."""
        herder = self.observer()
        junk = [a_value(number) for number in range(500)]
        self.assert_heard(FETCHING, herder, nominate(NODES[0], 5, junk))
        self.assertEqual(len(self.overlay.tx_sets), MAX_PER_SIGNER_AND_SLOT)
        asked = {item_hash for item_hash, _, _ in self.overlay.tx_sets}
        left_out = next(n for n in range(500) if a_hash(n) not in asked)
        self.assert_heard(FETCHING, herder, nominate(NODES[1], 5, [a_value(left_out)]))
        self.assertEqual(self.overlay.tx_sets[-1][0], a_hash(left_out))

    def test_what_has_come_is_not_counted_any_more(self) -> None:
        """One whose items all are to be had may go on naming more."""
        herder = self.observer()
        count = 3 * MAX_PER_SIGNER_AND_SLOT
        for number in range(count):
            item_hash, message = named(quorum_of(number % 12, (number + 1 + number // 12) % 12))
            envelope = prepare(NODES[0], 5, a_value(number), number + 1, quorum_set_hash=item_hash)
            self.assert_heard(FETCHING, herder, envelope)
            herder.recv_quorum_set(item_hash, message)
            herder.recv_tx_set(a_hash(number), ITEM)
        self.assertEqual(len(self.overlay.tx_sets), count)
        self.assertEqual(len(self.overlay.quorum_sets), count)

    def test_nodes_that_are_trusted_by_others_only_leave_room(self) -> None:
        """For what those name whom we trust ourselves."""
        self.patch(wanted, "MAX_WANTED_BY_OTHERS", 1)
        herder = self.observer(quorum_of(0))
        item_hash, message = named(quorum_of(1))
        self.overlay.items = {item_hash: message}
        said = [prepare(NODES[0], 1, NO_TX_SET, quorum_set_hash=item_hash)]
        said += [prepare(NODES[1], slot, a_value(slot)) for slot in (2, 3, 4)]
        said += [prepare(NODES[0], slot, a_value(slot)) for slot in (5, 6, 7)]
        for envelope in said:
            self.hear(herder, envelope)
        self.assertEqual([slot for _, slot, _ in self.overlay.tx_sets], [2, 5, 6, 7])

    def test_a_hash_of_the_wrong_kind_is_in_nobody_s_way(self) -> None:
        """A transaction set's hash named as that of a quorum set is fetched as both."""
        herder = self.observer()
        self.assert_heard(
            FETCHING, herder, nominate(NODES[0], 5, [NO_TX_SET], quorum_set_hash=a_hash("tx set"))
        )
        self.assert_heard(FETCHING, herder, externalize(NODES[1], 5, a_value()))
        self.assertEqual(len(self.overlay.quorum_sets), 1)
        self.assertEqual(len(self.overlay.tx_sets), 1)


class TrustTests(ObserverTestCase):
    def test_trust_is_transitive_as_quorum_sets_are_heard(self) -> None:
        """DECISIONS 19: the nodes of the quorum set, those in their sets, and so on."""
        herder = self.observer(quorum_of(0))
        item_hash, message = named(quorum_of(0, 1))
        stranger = externalize(NODES[1], 5, NO_TX_SET)
        self.assert_heard(DISCARDED, herder, stranger)
        self.assert_heard(
            FETCHING, herder, prepare(NODES[0], 5, NO_TX_SET, quorum_set_hash=item_hash)
        )
        self.assertEqual(herder.quorum_nodes(), keys(0))
        herder.recv_quorum_set(item_hash, message)
        self.assertEqual(herder.quorum_nodes(), keys(0, 1))
        self.assert_heard(READY, herder, stranger)

    def test_an_insane_quorum_set_is_ignored(self) -> None:
        """It is not asked for again, and it is not answered."""
        herder = self.observer(quorum_of(0))
        item_hash, message = named(quorum_of(0, 1, threshold=9))
        said = [prepare(NODES[0], slot, NO_TX_SET, quorum_set_hash=item_hash) for slot in (5, 6)]
        self.assert_heard(FETCHING, herder, said[0])
        herder.recv_quorum_set(item_hash, message)
        self.assert_heard(READY, herder, said[1])
        self.assertEqual(herder.quorum_nodes(), keys(0))
        self.assertIsNone(herder.get_quorum_set(item_hash))
        self.assertEqual(len(self.overlay.quorum_sets), 1)

    def test_what_a_forged_statement_names_does_not_count(self) -> None:
        """Though the set it names is known."""
        herder = self.observer(quorum_of(0))
        item_hash, message = named(quorum_of(1))
        herder.recv_quorum_set(item_hash, message)
        good = prepare(NODES[0], 5, NO_TX_SET, quorum_set_hash=item_hash)
        self.assert_heard(DISCARDED, herder, forged(good))
        self.assertEqual(herder.quorum_nodes(), keys(0))
        self.assert_heard(READY, herder, good)
        self.assertEqual(herder.quorum_nodes(), keys(0, 1))

    def test_nobody_is_trusted_where_there_is_no_quorum_set(self) -> None:
        """Everybody is heard there."""
        herder = self.observer()
        self.assert_heard(READY, herder, externalize(NODES[0], 5, NO_TX_SET))
        self.assertEqual(herder.quorum_nodes(), frozenset())
