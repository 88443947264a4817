"""The brain that knows nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.interfaces import EnvelopeStatus, Herder, ScpState, TxStatus
from tests.builders import quorum_set, scp_externalize, transaction
from tests.herder.kit import PEER, FakeOverlay, Verdict, a_hash


class IgnoringHerderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.overlay = FakeOverlay()
        self.herder: Herder = IgnoringHerder()
        self.herder.start(self.overlay)

    def test_everything_heard_is_settled_at_once_and_goes_nowhere(self) -> None:
        """Credit comes back; a repeated message is known, so neither DISCARDED nor ERROR."""
        scp, tx = Verdict(), Verdict()
        self.herder.recv_scp_envelope(scp_externalize().body, PEER, scp)
        self.herder.recv_transaction(transaction().body, a_hash(1), PEER, tx)
        self.herder.recv_quorum_set(a_hash(2), quorum_set())
        self.herder.note_own_envelope(scp_externalize())
        self.assertEqual(scp.said, [EnvelopeStatus.PROCESSED])
        self.assertEqual(tx.said, [TxStatus.DUPLICATE])
        self.assertEqual(self.overlay, FakeOverlay())

    def test_nothing_is_known(self) -> None:
        """Whatever was heard before."""
        self.herder.recv_quorum_set(a_hash(2), quorum_set())
        self.herder.recv_tx_set(a_hash(2), quorum_set())
        self.assertIsNone(self.herder.get_quorum_set(a_hash(2)))
        self.assertIsNone(self.herder.get_tx_set(a_hash(2)))
        self.assertIsNone(self.herder.get_tx(a_hash(2)))
        self.assertFalse(self.herder.is_banned_tx(a_hash(2)))
        self.assertEqual(self.herder.get_scp_state(0), ScpState())

    def test_it_misses_nothing(self) -> None:
        """So no peer is left for want of consensus, and every slot is asked for."""
        self.herder.stop()
        self.assertTrue(self.herder.is_tracking())
        self.assertEqual(self.herder.tracking_ledger(), 0)
        self.assertEqual(self.herder.min_slot_to_remember(), 1)
        self.assertEqual(self.herder.checkpoint_slot(), 0)
        self.assertEqual(self.herder.scp_state_from(), 1)
