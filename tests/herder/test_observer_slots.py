"""A herder without a ledger: where consensus stands (DECISIONS 19a), and what it tells of it."""

from __future__ import annotations

from stellar_overlay.herder import observer
from stellar_overlay.herder.observer import MAX_STATE_BYTES, ObserverHerder, SlotSummary
from stellar_overlay.herder.wanted import MAX_PER_SIGNER
from stellar_overlay.interfaces import EnvelopeStatus, ScpState
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set
from stellar_overlay.wire.scp import externalize, nominate, prepare
from tests.builders import WALL_NOW
from tests.herder.kit import (
    KEYS,
    NODES,
    ObserverTestCase,
    a_hash,
    a_value,
    keys,
    payment,
    quorum_of,
    transaction,
)

DISCARDED, FETCHING = EnvelopeStatus.DISCARDED, EnvelopeStatus.FETCHING


class SlotsTestCase(ObserverTestCase):
    def reach(self, herder: ObserverHerder, slot: int, *nodes: int) -> int:
        """Let nodes, counted from 0, externalize a slot; return where consensus stands then."""
        for node in nodes or (0,):
            self.hear(herder, externalize(NODES[node], slot, b"v"))
        return herder.tracking_ledger()

    def assert_open(self, herder: ObserverHerder, *slots: int) -> None:
        """Check that envelopes of these slots are taken."""
        for slot in slots:
            message = prepare(NODES[1], slot, b"v")
            self.assertNotIn(DISCARDED, self.hear(herder, message).said, slot)

    def assert_closed(self, herder: ObserverHerder, *slots: int) -> None:
        """Check that envelopes of these slots are discarded."""
        for slot in slots:
            self.assert_heard(DISCARDED, herder, nominate(NODES[1], slot, [b"w"]))


class TrackingTests(SlotsTestCase):
    def test_unknown_at_first(self) -> None:
        """Then all slots are of use, and the first one is where to begin."""
        herder = self.observer(quorum_of(0, 1))
        self.assertEqual(herder.tracking_ledger(), 0)
        self.assertFalse(herder.is_tracking())
        self.assertEqual((herder.min_slot_to_remember(), herder.scp_state_from()), (1, 1))
        self.assertEqual(herder.checkpoint_slot(), 0)
        self.assert_open(herder, 1, 10**6, 2**32 - 1)
        self.assert_closed(herder, 0, 2**32)

    def test_with_a_quorum_set_its_agreement_counts(self) -> None:
        """By what was verified and is trusted only."""
        herder = self.observer(quorum_of(0, 1, 2, threshold=2))
        self.assertEqual(self.reach(herder, 1060, 0, 5, 6, 7), 0)
        self.assertEqual(self.reach(herder, 1060, 1), 1060)
        self.assertTrue(herder.is_tracking())
        self.assertEqual(herder.min_slot_to_remember(), 1049)
        self.assertEqual(herder.scp_state_from(), 1049)
        self.assertEqual(herder.checkpoint_slot(), 1024)

    def test_without_one_two_thirds_count(self) -> None:
        """Of those who were heard externalizing."""
        herder = self.observer()
        self.reach(herder, 10, 0, 1, 2)
        self.assertEqual(self.reach(herder, 11, 3), 10)
        self.assertEqual(self.reach(herder, 11, 0, 1), 11)

    def test_nominations_and_ballots_say_nothing(self) -> None:
        """However many agree."""
        herder = self.observer()
        for node in NODES:
            self.hear(herder, prepare(node, 5, b"v"))
            self.hear(herder, nominate(node, 5, [b"v"]))
        self.assertEqual(herder.tracking_ledger(), 0)

    def test_the_window_is_around_it(self) -> None:
        """tracking-11 .. tracking+100, and the checkpoint."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        self.reach(herder, 1060)
        self.assert_open(herder, 1049, 1060, 1160, 1024)
        self.assert_closed(herder, 1, 1023, 1048, 1161, 2**32 - 1)

    def test_slots_to_remember_are_a_matter_of_configuration(self) -> None:
        """MAX_SLOTS_TO_REMEMBER."""
        herder = self.observer(max_slots_to_remember=50)
        self.reach(herder, 1060)
        self.assertEqual(herder.min_slot_to_remember(), 1011)
        self.assert_open(herder, *range(1011, 1061))
        self.assertEqual(len(herder.slots()), 50)

    def test_a_move_forgets_what_is_of_no_use(self) -> None:
        """Here and in the overlay, which learns what to keep; transactions that are over, too."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        tx = transaction(payment(bounds=(0, int(WALL_NOW) + 5)))
        self.take(herder, tx)
        self.assertEqual(herder.pooled_transactions, 1)
        self.assert_open(herder, 1, 100, 128, 139, 150)
        self.reach(herder, 150)
        self.assertEqual([one.slot for one in herder.slots()], [150, 139, 128])
        self.assertEqual(self.overlay.cleared, [(139, 128)])
        self.wall_now += 6
        self.reach(herder, 192)
        self.assertEqual(self.overlay.cleared[1:], [(181, 192)])
        self.assertEqual([one.slot for one in herder.slots()], [192])
        self.assertEqual(herder.pooled_transactions, 0)

    def test_what_was_wanted_for_old_slots_is_not_counted_any_more(self) -> None:
        """As the overlay has given it up: there is room for what is named since."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        for number in range(MAX_PER_SIGNER + 1):
            self.hear(herder, prepare(NODES[1], 1 + number, a_value(number)))
        self.assertEqual(len(self.overlay.tx_sets), MAX_PER_SIGNER)
        self.reach(herder, 100)
        self.hear(herder, prepare(NODES[1], 101, a_value("new")))
        self.assertEqual(self.overlay.tx_sets[-1][:2], (a_hash("new"), 101))

    def test_a_far_slot_ends_no_search(self) -> None:
        """What one names for slot 4,000,000,000 is asked for again when others name it later."""
        item, far = a_hash("honest"), 4_000_000_000
        herder = self.observer(quorum_of(0, 1, 2, threshold=2))
        self.hear(herder, prepare(NODES[2], far, a_value("honest"), quorum_set_hash=item))
        self.reach(herder, 100, 0, 1)
        for node in NODES[:2]:
            self.hear(herder, prepare(node, 101, a_value("honest"), quorum_set_hash=item))
        for asked in (self.overlay.tx_sets, self.overlay.quorum_sets):
            named = [(item_hash, slot) for item_hash, slot, _ in asked]
            self.assertEqual(named, [(item, far), (item, 101), (item, 101)])

    def test_it_has_moved_when_the_overlay_is_told(self) -> None:
        """The overlay asks where consensus stands while it forgets."""
        herder = self.observer()
        seen: list[int] = []
        self.overlay.clear_below = (  # type: ignore[method-assign]
            lambda min_slot, keep: seen.append(herder.tracking_ledger())
        )
        self.reach(herder, 7)
        self.assertEqual(seen, [7])


class LostSyncTests(SlotsTestCase):
    def test_35_seconds_without_a_move(self) -> None:
        """Counted once each time; every move begins the 35 seconds again."""
        herder = self.observer(quorum_of(0))
        self.reach(herder, 100)
        self.clock.advance(30)
        self.reach(herder, 101)
        self.clock.advance(34.9)
        self.assertTrue(herder.is_tracking())
        self.assertEqual(herder.lost_sync_count, 0)
        self.clock.advance(0.1)
        self.assertFalse(herder.is_tracking())
        self.clock.advance(1000)
        self.assertEqual(herder.lost_sync_count, 1)
        self.reach(herder, 102)
        self.assertTrue(herder.is_tracking())
        self.clock.advance(35)
        self.assertEqual(herder.lost_sync_count, 2)

    def test_the_same_slot_again_is_no_move(self) -> None:
        """From whomever."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        self.reach(herder, 100)
        self.clock.advance(20)
        self.reach(herder, 100, 1)
        self.clock.advance(15)
        self.assertFalse(herder.is_tracking())

    def test_with_a_quorum_set_it_may_have_got_far_ahead_of_us(self) -> None:
        """So the window opens upwards: messages.md 4.2. It closes when we follow again."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        self.reach(herder, 1000)
        self.assert_closed(herder, 1101)
        self.clock.advance(35)
        self.assertEqual(herder.tracking_ledger(), 1000)
        self.assertEqual(herder.scp_state_from(), 989)
        self.assert_open(herder, 1102, 5000)
        self.assert_closed(herder, 988)
        self.assertEqual(self.reach(herder, 3000), 3000)
        self.assert_closed(herder, 1103, 5001)
        self.assertEqual([one.slot for one in herder.slots()], [3000])

    def test_without_one_it_starts_anew(self) -> None:
        """The network may be another one by now."""
        herder = self.observer()
        self.reach(herder, 1000, 0, 1, 2)
        self.clock.advance(35)
        self.assertEqual(herder.tracking_ledger(), 0)
        self.assertEqual(herder.checkpoint_slot(), 0)
        self.assertEqual(herder.scp_state_from(), 1)
        self.assertEqual(self.reach(herder, 3, 0, 1), 3)

    def test_stop_leaves_no_timer(self) -> None:
        """And counts nothing more."""
        herder = self.observer()
        self.reach(herder, 5)
        herder.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.assertEqual(herder.lost_sync_count, 0)
        self.assertFalse(herder.is_tracking())


class ScpStateTests(SlotsTestCase):
    def state(
        self, herder: ObserverHerder, ledger_seq: int = 0
    ) -> tuple[list[Message], list[Message]]:
        """Return the answer to GET_SCP_STATE."""
        state = herder.get_scp_state(ledger_seq)
        return list(state.now), list(state.later)

    def test_nothing_is_known_at_first(self) -> None:
        """And nothing is told."""
        self.assertEqual(self.state(self.observer()), ([], []))
        self.assertEqual(ScpState(), ((), ()))

    def test_slots_in_order_and_nominations_before_ballots(self) -> None:
        """Core's order (messages.md 4.3), from the slot that was asked for."""
        herder = self.observer()
        said = [
            prepare(NODES[1], 7, b"v"),
            nominate(NODES[1], 7, [b"v"]),
            prepare(NODES[0], 6, b"v"),
            prepare(NODES[0], 6, b"v", 2),
            nominate(NODES[0], 7, [b"v"]),
        ]
        for message in said:
            self.hear(herder, message)
        self.assertEqual(self.state(herder), ([said[3], said[1], said[4], said[0]], []))
        self.assertEqual(self.state(herder, 7)[0], [said[1], said[4], said[0]])
        self.assertEqual(self.state(herder, 8), ([], []))

    def test_at_most_100_slots(self) -> None:
        """The lowest ones, though all that are known are more."""
        herder = self.observer()
        for slot in range(1, 121):
            self.hear(herder, prepare(NODES[slot % 12], slot, b"v"))
        self.assertEqual(len(herder.slots()), 120)
        self.assertEqual(len(self.state(herder)[0]), 100)
        self.assertEqual(len(self.state(herder, 100)[0]), 21)

    def test_at_most_so_many_bytes(self) -> None:
        """The slot in which the limit is passed is told of as a whole, and none after it."""
        said = [
            [prepare(node, slot, bytes([slot]) * 50) for node in NODES[:2]] for slot in range(1, 6)
        ]
        size = sum(message.size for message in said[0])
        for limit, slots in ((0, 1), (2 * size - 1, 2), (2 * size, 3), (4 * size, 5)):
            self.patch(observer, "MAX_STATE_BYTES", limit)
            herder = self.observer()
            for messages in said:
                for message in messages:
                    self.hear(herder, message)
            now, _ = self.state(herder)
            self.assertEqual(len(now), 2 * slots)
            self.assertEqual({message.body for message in now}, self.bodies(said[:slots]))
            self.assertEqual(len(self.state(herder, 5)[0]), 2)
        self.assertEqual(MAX_STATE_BYTES, 4 * 1024 * 1024)

    @staticmethod
    def bodies(slots: list[list[Message]]) -> set[bytes]:
        """Return the bodies of all messages of some slots."""
        return {message.body for messages in slots for message in messages}

    def test_an_old_checkpoint_is_for_later(self) -> None:
        """Whatever slot was asked for: who catches up must know first where we are."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        checkpoint = prepare(NODES[1], 128, b"v")
        self.hear(herder, checkpoint)
        self.reach(herder, 141)
        current = externalize(NODES[0], 141, b"v")
        for ledger_seq in (0, 129, 141):
            self.assertEqual(self.state(herder, ledger_seq), ([current], [checkpoint]))

    def test_a_young_checkpoint_is_a_slot_as_others(self) -> None:
        """Up to tracking-12, as in core."""
        herder = self.observer(quorum_of(0, 1, threshold=1))
        checkpoint = prepare(NODES[1], 128, b"v")
        self.hear(herder, checkpoint)
        self.reach(herder, 140)
        current = externalize(NODES[0], 140, b"v")
        self.assertEqual(self.state(herder), ([checkpoint, current], []))
        self.assertEqual(self.state(herder, 129), ([current], []))


class ViewTests(SlotsTestCase):
    def test_slots_newest_first_and_who_was_heard(self) -> None:
        """For those who look on."""
        herder = self.observer()
        self.hear(herder, nominate(NODES[0], 5, [b"v"]))
        self.hear(herder, externalize(NODES[1], 5, b"v"))
        self.hear(herder, prepare(NODES[2], 6, b"v"))
        self.assertEqual(
            herder.slots(),
            [SlotSummary(6, keys(2), frozenset()), SlotSummary(5, keys(0, 1), keys(1))],
        )

    def test_latest_envelopes_of_a_slot(self) -> None:
        """As they were received."""
        herder = self.observer()
        message = nominate(NODES[0], 5, [b"v"])
        self.hear(herder, message)
        self.assertEqual(herder.latest_envelopes(5), [message])
        self.assertEqual(herder.latest_envelopes(6), [])


class HostileTests(SlotsTestCase):
    def test_one_who_names_far_slots_pushes_nobody_out_while_nothing_is_known(self) -> None:
        """Neither the slots of others, nor consensus when it comes."""
        quorum_set = quorum_of(0, 1, 2, threshold=2)
        herder = self.observer(quorum_set)
        for slot in range(1000, 1012):
            self.hear(herder, prepare(NODES[0], slot, b"v"))
        for number in range(300):
            self.hear(herder, externalize(NODES[2], 2**32 - 1 - number, b"v"))
        heard = [one.slot for one in herder.slots() if KEYS[0] in one.signers]
        self.assertEqual(heard, list(range(1011, 999, -1)))
        self.assertLess(len(herder.slots()), 50)
        self.assertEqual(self.reach(herder, 1011, 0, 1), 1011)
        self.assertEqual(len(herder.slots()), 12)

    def test_nothing_moves_before_it_is_verified(self) -> None:
        """Nor is anything kept, passed on or fetched."""
        self.verifier.is_prompt = False
        herder = self.observer()
        verdict = self.hear(herder, externalize(NODES[0], 5, a_value()))
        self.assertEqual((verdict.said, herder.tracking_ledger(), herder.slots()), ([], 0, []))
        self.assertEqual(self.overlay.log, [])
        self.verifier.release()
        self.assertEqual((verdict.said, herder.tracking_ledger()), ([FETCHING], 5))

    def test_a_large_quorum_set_of_strangers_agrees_on_nothing(self) -> None:
        """Tracking goes by the configured set alone, whoever else is trusted."""
        herder = self.observer(FlatQuorumSet(1, (KEYS[0],)))
        herder.recv_quorum_set(a_hash("q"), _friends())
        self.hear(herder, prepare(NODES[0], 5, b"v", quorum_set_hash=a_hash("q")))
        self.assertEqual(herder.quorum_nodes(), keys(*range(12)))
        self.assertEqual(self.reach(herder, 9, *range(1, 12)), 0)


def _friends() -> Message:
    return encode_quorum_set(quorum_of(*range(1, 12)))
