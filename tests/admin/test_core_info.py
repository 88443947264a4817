"""What /info says of the quorum."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.core_info import _of_slot, fail_at
from stellar_overlay.config import QuorumSet
from stellar_overlay.herder.observer import SlotSummary
from tests.builders import make_node

IDS = [make_node(number).peer_id for number in range(1, 8)]
A, B, C, D, E, F, G = (peer_id.strkey for peer_id in IDS)
SIMPLE = QuorumSet(3, (A, B, C, D))
NESTED = QuorumSet(2, (A,), (QuorumSet(2, (B, C, D)), QuorumSet(1, (E, F))))


def is_satisfied(quorum_set: QuorumSet, nodes: set[str]) -> bool:
    """Tell whether these nodes are enough."""
    agreeing = sum(node in nodes for node in quorum_set.validators)
    agreeing += sum(is_satisfied(inner, nodes) for inner in quorum_set.inner_sets)
    return agreeing >= quorum_set.threshold


class FailAtTests(SynchronousTestCase):
    """How many more failures a quorum set can stand."""

    def test_examples(self) -> None:
        """One more than may fail; nothing once it is broken."""
        self.assertEqual(fail_at(SIMPLE, {A, B, C, D}), 2)
        self.assertEqual(fail_at(SIMPLE, {A, B, C}), 1)
        self.assertEqual(fail_at(SIMPLE, {A, B}), 0)
        self.assertEqual(fail_at(NESTED, {A, B, C, D, E, F}), 3)

    @settings(derandomize=True, max_examples=100)
    @given(st.sets(st.sampled_from([A, B, C, D, E, F])))
    def test_least(self, agreeing: set[str]) -> None:
        """It is the size of the smallest group whose failure breaks it."""
        members = sorted(agreeing)
        groups = [
            {member for bit, member in enumerate(members) if bits >> bit & 1}
            for bits in range(1 << len(members))
        ]
        least = min(len(group) for group in groups if not is_satisfied(NESTED, agreeing - group))
        self.assertEqual(fail_at(NESTED, agreeing), least)


class SlotTests(SynchronousTestCase):
    """How the nodes of a quorum set stand in a slot."""

    def test_counts(self) -> None:
        """Who has externalized agrees, who said less is late, the rest is missing."""
        keys = [peer_id.key for peer_id in IDS]
        slot = SlotSummary(9, frozenset(keys[:3] + keys[6:]), frozenset(keys[:2] + keys[6:]))
        expected = {
            "phase": "EXTERNALIZE", "ledger": 9, "agree": 2, "delayed": 1, "disagree": 0,
            "missing": 1, "fail_at": 0,
        }  # fmt: skip
        self.assertEqual(_of_slot(SIMPLE, slot, is_settled=True), expected)
        self.assertEqual(_of_slot(SIMPLE, slot, is_settled=False)["phase"], "unknown")
