"""Whose statements matter."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder import trust
from stellar_overlay.herder.trust import (
    MAX_QUORUM_NODES,
    MAX_QUORUM_SETS,
    QuorumSets,
    TransitiveQuorum,
)
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set, quorum_set_hash
from tests.herder.kit import KEYS, a_hash, keys, quorum_of


def named(quorum_set: FlatQuorumSet) -> tuple[bytes, Message]:
    """Return the hash and the message of a quorum set."""
    message = encode_quorum_set(quorum_set)
    return quorum_set_hash(message.body), message


def nowhere(item_hash: bytes) -> None:
    """Have no quorum set."""


def inventions(name: object, count: int) -> FlatQuorumSet:
    """Return a quorum set of nodes that nobody has heard of."""
    return FlatQuorumSet(1, tuple(a_hash((name, number)) for number in range(count)))


class QuorumSetsTests(SynchronousTestCase):
    def test_our_own_is_always_known(self) -> None:
        """However many others are heard."""
        own = quorum_of(0, 1, 2, threshold=2)
        sets = QuorumSets(own)
        for number in range(MAX_QUORUM_SETS + 1):
            sets.add(*named(inventions(number, 1)))
        item_hash, message = named(own)
        self.assertEqual(sets.get(item_hash), message)
        self.assertFalse(sets.is_wanted(item_hash))

    def test_what_was_heard_is_known(self) -> None:
        """And not wanted again."""
        sets = QuorumSets()
        item_hash, message = named(quorum_of(3))
        self.assertTrue(sets.is_wanted(item_hash))
        self.assertEqual(sets.add(item_hash, message), quorum_of(3))
        self.assertEqual(sets.get(item_hash), message)
        self.assertFalse(sets.is_wanted(item_hash))

    def test_an_insane_one_is_neither_kept_nor_wanted(self) -> None:
        """Core discards what names one (messages.md 4.2)."""
        sets = QuorumSets()
        item_hash, message = named(quorum_of(0, 1, threshold=3))
        self.assertIsNone(sets.add(item_hash, message))
        self.assertIsNone(sets.get(item_hash))
        self.assertFalse(sets.is_wanted(item_hash))

    def test_zeros_name_no_set(self) -> None:
        """Nobody could have it."""
        self.assertFalse(QuorumSets().is_wanted(bytes(32)))


class TransitiveQuorumTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.quorum = TransitiveQuorum(quorum_of(0, 1))

    def trust(self, node: bytes, quorum_set: FlatQuorumSet) -> None:
        """Let a node name a set, and let that be heard."""
        item_hash, _ = named(quorum_set)
        self.quorum.note_named(node, item_hash, nowhere)
        self.quorum.note_heard(item_hash, quorum_set)

    def test_it_begins_with_the_configured_nodes(self) -> None:
        """At all levels of the set."""
        nested = FlatQuorumSet(1, (KEYS[5],), (quorum_of(6, 7),))
        self.assertEqual(TransitiveQuorum(nested).nodes, keys(5, 6, 7))
        self.assertEqual(self.quorum.nodes, keys(0, 1))

    def test_it_grows_as_sets_are_heard(self) -> None:
        """Whether the set comes before it is named, or after."""
        self.trust(KEYS[0], quorum_of(2))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 2))
        item_hash, message = named(quorum_of(3))
        self.quorum.note_named(KEYS[2], item_hash, {item_hash: message}.get)
        self.assertEqual(self.quorum.nodes, keys(0, 1, 2, 3))

    def test_strangers_add_nobody(self) -> None:
        """Only the sets of those who are trusted count."""
        self.trust(KEYS[5], quorum_of(6))
        self.assertEqual(self.quorum.nodes, keys(0, 1))
        self.trust(KEYS[0], quorum_of(5))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 5))

    def test_a_node_changes_its_mind(self) -> None:
        """Its former friends are trusted until its new set is heard, and no longer."""
        self.trust(KEYS[0], quorum_of(2))
        self.trust(KEYS[2], quorum_of(3))
        item_hash, _ = named(quorum_of(4))
        self.quorum.note_named(KEYS[0], item_hash, nowhere)
        self.assertEqual(self.quorum.nodes, keys(0, 1, 2, 3))
        self.quorum.note_heard(item_hash, quorum_of(4))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 4))

    def test_several_nodes_may_share_a_set(self) -> None:
        """As organisations do."""
        shared = quorum_of(2, 3)
        item_hash, _ = named(shared)
        self.quorum.note_named(KEYS[0], item_hash, nowhere)
        self.quorum.note_named(KEYS[1], item_hash, nowhere)
        self.quorum.note_heard(item_hash, shared)
        self.trust(KEYS[0], quorum_of(4))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 2, 3, 4))

    def test_a_long_list_of_inventions_crowds_out_nobody_near(self) -> None:
        """There is an end to it, and small sets of nodes at the same distance go first."""
        self.trust(KEYS[0], inventions(0, MAX_QUORUM_NODES))
        self.trust(KEYS[1], quorum_of(2, 3, 4))
        self.assertEqual(len(self.quorum.nodes), MAX_QUORUM_NODES + 2)
        self.assertLessEqual(keys(0, 1, 2, 3, 4), self.quorum.nodes)

    def test_who_is_trusted_no_more_begins_anew(self) -> None:
        """Nothing is kept of it: its set counts when it is named again."""
        self.trust(KEYS[0], quorum_of(2))
        self.trust(KEYS[2], quorum_of(3))
        self.trust(KEYS[0], quorum_of(4))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 4))
        self.trust(KEYS[0], quorum_of(2))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 2))
        self.trust(KEYS[2], quorum_of(3))
        self.assertEqual(self.quorum.nodes, keys(0, 1, 2, 3))

    def test_lists_of_lists_cost_bounded_memory(self) -> None:
        """Configured nodes are heard however much was invented before."""
        self.patch(trust, "MAX_NODES_NAMED", 100)
        self.trust(KEYS[0], inventions(0, 50))
        invented = sorted(self.quorum.nodes - keys(0, 1))
        self.trust(invented[0], inventions(1, 45))
        self.trust(invented[1], inventions(2, 6))
        self.assertEqual(len(self.quorum.nodes), 2 + 50 + 45)
        self.trust(KEYS[1], quorum_of(2, 3, 4, 5, 6, 7))
        self.assertLessEqual(keys(2, 3, 4, 5, 6, 7), self.quorum.nodes)
