"""The latest statements of each node and slot."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.envelopes import EnvelopeStore
from stellar_overlay.herder.window import SlotWindow
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import ScpStatement
from tests.builders import scp_confirm, scp_externalize, scp_nominate, scp_prepare


def view(message: Message) -> ScpStatement:
    """Return what a message says."""
    return ScpStatement(message.body)


def key(node: int) -> bytes:
    """Return the key of a node of the builders."""
    return bytes([node]) * 32


def bodies(store: EnvelopeStore, slot: int) -> list[bytes]:
    """Return what is kept of a slot."""
    return [one.body for one in store.at(slot) or ()]


def signers(store: EnvelopeStore, slot: int) -> frozenset[bytes]:
    """Return who was heard about a slot."""
    envelopes = store.at(slot)
    return frozenset() if envelopes is None else envelopes.signers


def put(store: EnvelopeStore, node: int, slots: Sequence[int], size: int = 1) -> None:
    """Let a node nominate a value of that size for slots."""
    for slot in slots:
        store.put(view(scp_nominate(slot, (b"v" * size,), node=node)))


class EnvelopeStoreTests(SynchronousTestCase):
    def test_one_nomination_and_one_ballot_per_node_and_slot(self) -> None:
        """Each takes the place of the one before it."""
        store = EnvelopeStore()
        said = (scp_nominate(5), scp_prepare(5), scp_nominate(5, (b"v", b"w")), scp_confirm(5))
        for message in said:
            store.put(view(message))
        self.assertEqual(bodies(store, 5), [said[2].body, said[3].body])
        self.assertEqual(len(store), 2)
        self.assertEqual(store.size, said[2].size + said[3].size)

    def test_nominations_come_before_ballots(self) -> None:
        """Core's order (messages.md 4.3)."""
        store = EnvelopeStore()
        said = [scp_prepare(5, node=1), scp_nominate(5, node=2), scp_nominate(5, node=1)]
        for message in said:
            store.put(view(message))
        self.assertEqual(bodies(store, 5), [one.body for one in (*said[1:], said[0])])

    def test_the_latest_of_the_same_topic(self) -> None:
        """Of this node, this slot and this protocol."""
        store = EnvelopeStore()
        prepare = view(scp_prepare(5))
        store.put(prepare)
        self.assertEqual(store.latest(view(scp_externalize(5))), prepare)
        for other in (scp_nominate(5), scp_confirm(6), scp_confirm(5, node=2)):
            self.assertIsNone(store.latest(view(other)))

    def test_who_was_heard(self) -> None:
        """And who of them says that consensus is reached."""
        store = EnvelopeStore()
        for message in (scp_nominate(5, node=1), scp_externalize(5, node=2), scp_prepare(5)):
            store.put(view(message))
        envelopes = store.at(5)
        assert envelopes is not None
        self.assertEqual(envelopes.signers, {key(1), key(2)})
        self.assertEqual(envelopes.externalized, {key(2)})
        self.assertIsNone(store.at(6))

    def test_a_slot_may_be_full_for_newcomers_only(self) -> None:
        """Who has said something may go on."""
        store = EnvelopeStore()
        for message in (scp_nominate(5, node=1), scp_prepare(5, node=1), scp_prepare(5, node=2)):
            store.put(view(message))
        self.assertFalse(store.is_full_for(key(3), 5, 3))
        self.assertTrue(store.is_full_for(key(3), 5, 2))
        self.assertFalse(store.is_full_for(key(1), 5, 2))
        self.assertFalse(store.is_full_for(key(3), 6, 2))

    def test_only_the_window_and_the_checkpoint_are_kept(self) -> None:
        """When consensus moves."""
        store = EnvelopeStore()
        put(store, 1, (100, 128, 129, 149, 150, 160, 260, 261))
        store.keep_only(SlotWindow.around(160, 12, is_ahead_open=False), 160)
        self.assertEqual(store.slots(), [128, 149, 150, 160, 260])
        self.assertEqual(len(store), 5)
        self.assertEqual(store.evicted, 0)


class HostileTests(SynchronousTestCase):
    def test_a_signer_of_many_slots_forgets_its_own_oldest(self) -> None:
        """While the window is open nobody else loses anything by it."""
        store = EnvelopeStore(max_slots_per_signer=24)
        put(store, 1, range(1000, 1012))
        put(store, 2, range(10**6, 10**6 + 500))
        put(store, 2, range(1, 20))
        put(store, 1, range(1012, 1013))
        honest = [slot for slot in store.slots() if bodies(store, slot) and 1000 <= slot < 1013]
        self.assertEqual(honest, list(range(1000, 1013)))
        self.assertEqual(len(store), 13 + 24)

    def test_who_takes_up_most_bytes_forgets_first(self) -> None:
        """Whichever slots it speaks about."""
        store = EnvelopeStore(max_bytes=100_000)
        put(store, 1, range(1, 13))
        put(store, 2, range(1, 13), size=1000)
        put(store, 3, range(1, 25), size=20_000)
        put(store, 1, range(13, 16))
        self.assertLessEqual(store.size, 100_000)
        self.assertTrue(store.evicted)
        for slot in range(1, 16):
            self.assertIn(key(1), signers(store, slot))
            self.assertTrue(slot > 12 or key(2) in signers(store, slot))

    def test_equals_forget_alike(self) -> None:
        """In turn: nobody loses everything because he was looked at first."""
        store = EnvelopeStore(max_bytes=20_000)
        put(store, 1, range(1, 10), size=1000)
        put(store, 2, range(1, 10), size=1000)
        self.assertTrue(store.evicted)
        kept = [sum(key(node) in signers(store, slot) for slot in range(1, 10)) for node in (1, 2)]
        self.assertLessEqual(abs(kept[0] - kept[1]), 1)

    def test_what_was_forgotten_does_not_count(self) -> None:
        """Who took up most before consensus moved does not forget for others now."""
        store = EnvelopeStore(max_bytes=20_000)
        put(store, 1, (100,), size=2000)
        for _ in range(2):
            put(store, 1, (1, 2, 3), size=5000)
            store.keep_only(SlotWindow.around(100, 12, is_ahead_open=False), 100)
        put(store, 2, range(95, 110), size=1500)
        self.assertIn(key(1), signers(store, 100))
        self.assertNotIn(key(2), signers(store, 95))

    def test_too_many_signers_lose_the_slots_that_are_farthest_ahead(self) -> None:
        """What consensus is about stays."""
        store = EnvelopeStore(max_envelopes=64)
        window = SlotWindow.around(20, 12, is_ahead_open=False)
        put(store, 1, range(9, 22))
        store.keep_only(window, 20)
        for node in range(2, 200):
            put(store, node, (100,))
        put(store, 1, (22,))
        self.assertLessEqual(len(store), 64)
        heard = [slot for slot in range(9, 22) if key(1) in signers(store, slot)]
        self.assertEqual(heard, list(range(9, 22)))

    def test_caps_hold_even_when_one_message_is_over_them(self) -> None:
        """Then there is nothing left."""
        store = EnvelopeStore(max_bytes=500)
        put(store, 1, (1,), size=1000)
        self.assertEqual((len(store), store.size, store.slots()), (0, 0, []))

    @settings(derandomize=True, max_examples=100)
    @given(
        st.lists(
            st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(0, 300), st.booleans()),
            max_size=80,
        )
    )
    def test_bounds_and_sums(self, said: list[tuple[int, int, int, bool]]) -> None:
        """Whatever is said, the caps hold and the sums are those of what is there."""
        store = EnvelopeStore(max_slots_per_signer=5, max_envelopes=20, max_bytes=4000)
        for node, slot, size, is_nomination in said:
            if size == 0:
                store.keep_only(SlotWindow.around(slot, 12, is_ahead_open=False), slot)
            elif is_nomination:
                put(store, node, (slot,), size)
            else:
                store.put(view(scp_prepare(slot, size, node=node)))
            kept = [one for at in store.slots() for one in store.at(at) or ()]
            self.assertEqual(len(kept), len(store))
            self.assertEqual(sum(len(one.body) for one in kept), store.size)
            self.assertTrue(len(store) <= 20 and store.size <= 4000)
            for signer in {one.node for one in kept}:
                self.assertLessEqual(len({one.slot for one in kept if one.node == signer}), 5)
