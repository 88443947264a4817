"""Which SCP envelopes are good (DECISIONS 19), in the order in which that is found out."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.envelopes import EnvelopeStore
from stellar_overlay.herder.scp_judge import MAX_SIGNERS_PER_SLOT, EnvelopeJudge
from stellar_overlay.herder.trust import TransitiveQuorum
from stellar_overlay.herder.window import SlotWindow
from stellar_overlay.interfaces import EnvelopeStatus
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import ScpStatement, externalize, nominate, prepare
from tests.builders import make_node
from tests.herder.kit import (
    NETWORK,
    NODES,
    OWN,
    ManualVerifier,
    Verdict,
    a_hash,
    a_value,
    forged,
    quorum_of,
)

DISCARDED, PROCESSED = EnvelopeStatus.DISCARDED, EnvelopeStatus.PROCESSED
READY = EnvelopeStatus.READY


class EnvelopeJudgeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.verifier = ManualVerifier()
        self.store = EnvelopeStore()
        self.accepted: list[bytes] = []

    def judge(self, trust: TransitiveQuorum | None = None) -> EnvelopeJudge:
        """Return a judge, whose store keeps what he accepts."""

        def accept(envelope: ScpStatement) -> EnvelopeStatus:
            self.store.put(envelope)
            self.accepted.append(envelope.body)
            return READY

        return EnvelopeJudge(
            self.store,
            network_id=NETWORK,
            own_key=OWN.peer_id.key,
            verifier=self.verifier,
            trust=trust,
            accept=accept,
        )

    def hear(self, judge: EnvelopeJudge, message: Message) -> Verdict:
        """Return what becomes of a message."""
        verdict = Verdict()
        judge.judge(message.body, verdict)
        return verdict

    def test_good_ones_are_accepted(self) -> None:
        """With the signature of their signer, over our network's id."""
        judge = self.judge()
        message = nominate(NODES[0], 5, [a_value()])
        self.assertEqual(self.hear(judge, message).said, [READY])
        self.assertEqual(self.accepted, [message.body])

    def test_another_network_s_are_not(self) -> None:
        """Though signed by the same key."""
        message = nominate(make_node(1, passphrase="another network"), 5, [a_value()])
        self.assertEqual(self.hear(self.judge(), message).said, [DISCARDED])

    def test_our_own_are_skipped(self) -> None:
        """Before anything else is looked at."""
        judge = self.judge()
        judge.window = SlotWindow(5, 6)
        message = forged(externalize(OWN, 99, a_value()))
        self.assertEqual(self.hear(judge, message).said, [EnvelopeStatus.SKIPPED_SELF])
        self.assertEqual(self.verifier.checked, 0)

    def test_slots_outside_the_window_are_discarded(self) -> None:
        """Unverified; the checkpoint's is inside."""
        judge = self.judge()
        judge.window = SlotWindow.around(1060, 12, is_ahead_open=False)
        for slot in (0, 1, 1048, 1161, 2**32, 2**64 - 1):
            self.assertEqual(self.hear(judge, prepare(NODES[0], slot, b"v")).said, [DISCARDED])
        self.assertEqual(self.verifier.checked, 0)
        for slot in (1024, 1049, 1160):
            self.assertEqual(self.hear(judge, prepare(NODES[0], slot, b"v")).said, [READY])

    def test_signers_whom_nobody_trusts_are_discarded(self) -> None:
        """Unverified, when there is a quorum set."""
        judge = self.judge(TransitiveQuorum(quorum_of(0, 1)))
        self.assertEqual(self.hear(judge, prepare(NODES[2], 5, b"v")).said, [DISCARDED])
        self.assertEqual(self.verifier.checked, 0)
        self.assertEqual(self.hear(judge, prepare(NODES[1], 5, b"v")).said, [READY])

    def test_without_a_quorum_set_at_most_1000_signers_per_slot(self) -> None:
        """Those who came first may go on, and other slots have room."""
        judge = self.judge()
        self.assertEqual(self.hear(judge, prepare(NODES[0], 5, b"v")).said, [READY])
        template = bytearray(prepare(NODES[0], 5, b"v").body)
        for number in range(MAX_SIGNERS_PER_SLOT - 1):
            template[8:40] = a_hash(number)
            self.store.put(ScpStatement(bytes(template)))
        self.assertEqual(self.hear(judge, prepare(NODES[1], 5, b"v")).said, [DISCARDED])
        self.assertEqual(self.verifier.checked, 1)
        self.assertEqual(self.hear(judge, prepare(NODES[0], 5, b"v", 2)).said, [READY])
        self.assertEqual(self.hear(judge, prepare(NODES[1], 6, b"v")).said, [READY])

    def test_old_news_are_known_already(self) -> None:
        """Neither verified nor accepted; the record of who has sent it is kept."""
        judge = self.judge()
        self.hear(judge, prepare(NODES[0], 5, b"v", 2))
        for message in (
            prepare(NODES[0], 5, b"v", 2),
            prepare(NODES[0], 5, b"v", 1),
            forged(prepare(NODES[0], 5, b"v", 1)),
        ):
            self.assertEqual(self.hear(judge, message).said, [PROCESSED])
        self.assertEqual((self.verifier.checked, len(self.accepted)), (1, 1))

    def test_nominations_and_ballots_are_news_of_their_own(self) -> None:
        """Per slot and protocol."""
        judge = self.judge()
        for message in (
            externalize(NODES[0], 5, b"v"),
            nominate(NODES[0], 5, [b"v"]),
            prepare(NODES[0], 6, b"v"),
            nominate(NODES[0], 5, [b"v", b"w"]),
        ):
            self.assertEqual(self.hear(judge, message).said, [READY])

    def test_bad_signatures_are_discarded(self) -> None:
        """Checked once: a copy is known by its hash, and costs nothing more."""
        judge = self.judge()
        bad = forged(prepare(NODES[0], 5, b"v"))
        for _ in range(3):
            self.assertEqual(self.hear(judge, bad).said, [DISCARDED])
        self.assertEqual(self.verifier.checked, 1)
        self.assertEqual(self.hear(judge, prepare(NODES[0], 5, b"v")).said, [READY])

    def test_news_may_grow_old_while_they_are_verified(self) -> None:
        """Then they are not accepted after what is newer."""
        self.verifier.is_prompt = False
        judge = self.judge()
        first = self.hear(judge, prepare(NODES[0], 5, b"v", 1))
        second = self.hear(judge, prepare(NODES[0], 5, b"v", 2))
        self.assertEqual(first.said + second.said, [])
        self.verifier.release(newest_first=True)
        self.assertEqual((first.said, second.said), ([PROCESSED], [READY]))
        self.assertEqual(len(self.accepted), 1)

    def test_the_window_may_move_while_they_are_verified(self) -> None:
        """What is outside by then is discarded."""
        self.verifier.is_prompt = False
        judge = self.judge()
        verdict = self.hear(judge, prepare(NODES[0], 5, b"v", 1))
        judge.window = SlotWindow(10, 20)
        self.verifier.release()
        self.assertEqual(verdict.said, [DISCARDED])

    def test_a_stopped_judge_says_so_once(self) -> None:
        """To what is being verified, and to what comes after."""
        self.verifier.is_prompt = False
        judge = self.judge()
        good = self.hear(judge, prepare(NODES[0], 5, b"v"))
        bad = self.hear(judge, forged(prepare(NODES[1], 5, b"v")))
        judge.stop()
        late = self.hear(judge, prepare(NODES[2], 5, b"v"))
        self.verifier.release()
        self.assertEqual([good.said, bad.said, late.said], [[DISCARDED]] * 3)
        self.assertEqual(self.accepted, [])
