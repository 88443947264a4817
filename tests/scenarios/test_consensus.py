"""SCP messages at a node that has no ledger: which it passes on, and what it makes of them."""

from __future__ import annotations

from typing import Any

from stellar_overlay.config import QuorumSet
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.session.outbox import MessagePriority
from stellar_overlay.wire.message import Message, decode_get_scp_state, encode_get_scp_state
from stellar_overlay.wire.quorum_set import quorum_set_hash
from stellar_overlay.wire.scp import ScpStatement, externalize, nominate, prepare
from tests.scenarios.traffic import (
    GET_SCP_STATE,
    SCP,
    Heard,
    Neighbour,
    Stingy,
    TrafficTestCase,
    a_hash,
    a_quorum_set,
    a_tx_set,
    a_value,
    chain,
    externalized,
    forged,
    validator,
)

STUCK = 35
MAX_SLOT = 2**32 - 1


def prepared(slot: int, *, by: int = 0, counter: int = 1) -> Message:
    """Return a signed PREPARE: it is relayed, and moves nothing."""
    return prepare(validator(by), slot, a_value(), counter)


def trusting(*numbers: int, threshold: int) -> QuorumSet:
    """Return a quorum set of validators, as an operator writes it."""
    return QuorumSet(threshold, tuple(validator(number).peer_id.strkey for number in numbers))


class ConsensusTestCase(TrafficTestCase):
    """One node between a peer that speaks and one that listens."""

    def begin_at(self, tracking: int = 0, **settings: Any) -> None:
        """Start with a node that stands at some slot; 0 is nowhere."""
        self.node = self.add(**settings)
        self.speaker = self.call("speaker", Neighbour)
        self.listener = self.call("listener", Neighbour)
        if tracking:
            self.say(externalized(tracking))

    def say(self, *messages: Message) -> list[bytes]:
        """Let the speaker say something; return what of it the listener hears."""
        before = len(self.listener.bodies(SCP))
        self.speaker.flood(*messages)
        self.network.advance(0.1)
        self.assert_linked(self.speaker, self.listener)
        return self.listener.bodies(SCP)[before:]

    def assert_relayed(self, *messages: Message) -> None:
        """Check that each is passed on, in this order."""
        self.assertEqual(self.say(*messages), [message.body for message in messages])

    def assert_not_relayed(self, *messages: Message) -> None:
        """Check that nothing is passed on, and that this costs nobody the link."""
        self.assertEqual(self.say(*messages), [])

    def asked_from(self, node: OverlayManager | None = None) -> int:
        """Return from which slot on a newcomer is asked."""
        name = f"newcomer {len(self.network.memory.transports)}"
        newcomer = self.call(name, Neighbour)
        question = newcomer.bodies(GET_SCP_STATE)[0]
        newcomer.hang_up()
        self.network.advance(0)
        return decode_get_scp_state(question)

    def assert_tracking(self, slot: int) -> None:
        """Check where the node stands, by what it asks newcomers."""
        self.assertEqual(self.asked_from(), max(1, slot - 11))


class JudgementTests(ConsensusTestCase):
    """DECISIONS 19 on a private network: who is good is passed on, whoever it is."""

    def test_bad_signatures(self) -> None:
        """Not passed on, however often it comes; the link stays, and the good one goes out."""
        self.begin_at()
        good = prepared(1)
        self.assert_not_relayed(forged(good), forged(good))
        self.assertEqual(self.figures(self.node, "scp_discarded", "flood_known_count"), [2, 0])
        self.assert_relayed(good)

    def test_what_we_have_signed_ourselves(self) -> None:
        """It comes back to us, and is not passed on."""
        self.begin_at()
        own = prepare(self.node.local_node, 1, a_value())
        self.assert_not_relayed(own)

    def test_what_is_not_newer(self) -> None:
        """Of one node and slot, a ballot goes out after lower ones only; nominations likewise."""
        self.begin_at()
        first, second, third = (prepared(1, counter=counter) for counter in (1, 2, 3))
        self.assert_relayed(second)
        self.assert_not_relayed(first)
        self.assert_relayed(third, externalized(1))
        self.assert_not_relayed(prepared(1, counter=4))
        votes = [a_value(number) for number in range(3)]
        self.assert_relayed(nominate(validator(0), 1, votes[:2]))
        self.assert_not_relayed(nominate(validator(0), 1, votes[1:]))
        self.assert_not_relayed(nominate(validator(0), 1, votes[:1]))
        self.assert_relayed(nominate(validator(0), 1, votes))
        self.assert_relayed(prepared(1, by=1), prepared(2))

    def test_the_window(self) -> None:
        """Open at first; then 11 slots back, 100 ahead, and the checkpoint."""
        self.begin_at()
        self.assert_relayed(prepared(1), prepared(5000), prepared(MAX_SLOT))
        self.assert_relayed(externalized(1000))
        by = 1
        for slot in (959, 961, 988, 1101, 5000, MAX_SLOT):
            self.assert_not_relayed(prepared(slot, by=by))
        for slot in (960, 989, 1000, 1100):
            self.assert_relayed(prepared(slot, by=by))
        self.assert_tracking(1000)

    def test_slots_that_cannot_be(self) -> None:
        """Above 2^32-1, and 0."""
        self.begin_at()
        for slot in (0, MAX_SLOT + 1, 2**63, 2**64 - 1):
            self.assert_not_relayed(prepared(slot), externalized(slot))
        self.assert_tracking(0)
        self.assert_relayed(externalized(MAX_SLOT))
        self.assert_tracking(MAX_SLOT)
        self.assert_not_relayed(externalized(MAX_SLOT + 1, by=1))

    def test_too_many_signers(self) -> None:
        """A thousand for a slot; the next one waits for another slot."""
        self.begin_at()
        self.assertEqual(len(self.say(*(prepared(7, by=by) for by in range(999)))), 999)
        self.assert_relayed(nominate(validator(999), 7, [a_value()]))
        self.assert_not_relayed(prepared(7, by=1000))
        self.assert_not_relayed(nominate(validator(1000), 7, [a_value()]))
        self.assert_relayed(prepared(7, by=999))
        self.assert_relayed(prepared(7, counter=2))
        self.assert_relayed(prepared(8, by=1000))


class QuorumTests(ConsensusTestCase):
    """DECISIONS 19 and 19a with a quorum set: whom it trusts, transitively, and nobody else."""

    def setUp(self) -> None:
        super().setUp()
        self.begin_at(quorum_set=trusting(0, 1, 2, threshold=2))

    def test_strangers(self) -> None:
        """They are not passed on, and do not move anything."""
        self.assert_not_relayed(*(externalized(9, by=by) for by in range(3, 9)))
        self.assert_relayed(*(prepared(9, by=by) for by in range(3)))
        self.assert_tracking(0)

    def test_the_trusted_of_the_trusted(self) -> None:
        """A quorum set that is named is fetched; whom it names counts from then on."""
        heard = a_quorum_set(0, 5)
        heard_hash = quorum_set_hash(heard.body)
        further = a_quorum_set(5, 6)
        further_hash = quorum_set_hash(further.body)
        self.assert_not_relayed(prepared(1, by=5))
        naming = prepare(validator(0), 1, a_value(), quorum_set_hash=heard_hash)
        self.assert_relayed(naming)
        self.assertEqual(len(self.speaker.asked(heard_hash)), 1)
        self.speaker.send(heard)
        self.assert_not_relayed(prepared(1, by=6))
        self.assert_relayed(prepare(validator(5), 1, a_value(), 2, quorum_set_hash=further_hash))
        self.assert_not_relayed(prepared(2, by=6))
        self.assertEqual(len(self.speaker.asked(further_hash)), 1)
        self.speaker.send(further)
        self.assert_relayed(prepared(2, by=6))
        self.assert_not_relayed(prepared(2, by=7))

    def test_a_set_that_a_stranger_names(self) -> None:
        """Nobody asks for it, and it makes nobody count."""
        heard = a_quorum_set(7, 8)
        heard_hash = quorum_set_hash(heard.body)
        self.assert_not_relayed(prepare(validator(7), 1, a_value(), quorum_set_hash=heard_hash))
        self.speaker.send(heard)
        self.assert_not_relayed(prepared(2, by=7), prepared(1, by=8))
        self.assertEqual(self.speaker.asked(heard_hash), [])

    def test_a_quorum_moves_it(self) -> None:
        """Two of three that externalize the same slot; further ahead than any window at first."""
        self.assert_relayed(externalized(500))
        self.assert_tracking(0)
        self.assert_relayed(externalized(400, by=1))
        self.assert_tracking(0)
        self.assert_relayed(externalized(400))
        self.assert_tracking(400)
        self.assert_relayed(externalized(500, by=2))
        self.assert_tracking(500)
        self.assert_not_relayed(externalized(399, by=2))

    def test_35_seconds_without_a_move(self) -> None:
        """It stays where it is, looks ahead without limit, and asks its peers."""
        self.say(externalized(400), externalized(400, by=1))
        asked = len(self.speaker.bodies(GET_SCP_STATE))
        self.network.advance(STUCK - 3)
        self.assertEqual(len(self.speaker.bodies(GET_SCP_STATE)), asked)
        self.assert_not_relayed(prepared(501))
        self.network.advance(13)
        self.assertEqual(len(self.speaker.bodies(GET_SCP_STATE)), asked + 1)
        self.assertEqual(decode_get_scp_state(self.speaker.bodies(GET_SCP_STATE)[-1]), 389)
        self.assert_tracking(400)
        self.assert_not_relayed(prepared(388))
        self.assert_relayed(prepared(9000))
        self.say(externalized(9001), externalized(9001, by=1))
        self.assert_tracking(9001)
        self.assert_not_relayed(prepared(400, by=2))


class MajorityTests(ConsensusTestCase):
    """DECISIONS 19a on a private network: two thirds of whoever externalizes."""

    def test_two_thirds_move_it(self) -> None:
        """One at first; then two thirds, rounded up, by at most 100 slots at a time."""
        self.begin_at(100)
        self.assert_tracking(100)
        self.say(externalized(101, by=1))
        self.assert_tracking(100)  # one of two
        self.say(externalized(101, by=2))
        self.assert_tracking(101)
        self.say(externalized(102, by=3))
        self.assert_tracking(101)  # one of four
        self.say(externalized(201, by=1), externalized(201, by=2))
        self.assert_tracking(102)
        self.say(externalized(202, by=3))
        self.assert_tracking(201)
        self.assert_not_relayed(externalized(302, by=1))

    def test_those_who_fall_silent(self) -> None:
        """They count for 60 s."""
        self.begin_at(100)
        for by in (1, 2, 3):
            self.say(externalized(100, by=by))
        for slot in (101, 102):
            self.network.advance(20)
            self.say(*(externalized(slot, by=by) for by in (0, 1, 2)))
            self.assert_tracking(slot)
        self.network.advance(18)
        self.say(externalized(103), externalized(103, by=1))
        self.assert_tracking(102)  # two of four
        self.network.advance(2)
        self.say(externalized(104), externalized(104, by=1))
        self.assert_tracking(104)  # two of three

    def test_35_seconds_without_a_move(self) -> None:
        """It begins anew: all slots are of interest, old ones, too."""
        self.begin_at(1000)
        self.assert_not_relayed(prepared(5))
        self.network.advance(STUCK - 1)
        self.assert_tracking(1000)
        self.network.advance(2)
        self.assert_tracking(0)
        self.assert_relayed(prepared(5), prepared(5000))
        self.assert_relayed(externalized(5))
        self.assert_tracking(5)


class ForgettingTests(ConsensusTestCase):
    """What goes when consensus moves."""

    def test_searches_end(self) -> None:
        """Nobody looks for the transaction sets of old slots, but for the checkpoint's."""
        self.begin_at(128)
        slots = (128, 129, 140)
        hashes = {slot: a_hash(f"set of {slot}") for slot in slots}
        for slot in slots:
            self.say(prepare(validator(1), slot, a_value(f"set of {slot}")))
        self.network.advance(0.5)
        for slot in slots:
            self.assertNotEqual(self.speaker.asked(hashes[slot]), [])
        self.assert_relayed(externalized(144))
        before = {slot: len(self.speaker.asked(hashes[slot])) for slot in slots}
        self.network.advance(30)
        after = {slot: len(self.speaker.asked(hashes[slot])) for slot in slots}
        self.assertEqual(after[129], before[129])
        self.assertGreater(after[128], before[128])
        self.assertGreater(after[140], before[140])

    def test_old_slots_in_a_queue(self) -> None:
        """F22: of a peer that grants nothing, old slots go, but for the newest checkpoint's."""
        self.begin_at(120, max_slots_to_remember=3)
        stingy = self.call("stingy", Stingy)
        outbox = self.outbox(self.node, stingy)

        def waiting() -> int:
            return outbox.queue_size(MessagePriority.SCP)

        def slot(number: int) -> list[Message]:
            return [nominate(validator(0), number, [a_value()]), externalized(number)]

        self.assert_relayed(*slot(127))
        self.assertEqual(waiting(), 2)
        self.assert_relayed(*slot(128))
        self.assertEqual(waiting(), 4)
        self.assert_relayed(*slot(131))  # 129 to 131, and 128
        self.assertEqual((waiting(), outbox.dropped(MessagePriority.SCP)), (4, 2))
        self.assert_relayed(*slot(190))
        self.assertEqual((waiting(), outbox.dropped(MessagePriority.SCP)), (4, 4))
        # F23: the next checkpoint is reached.
        self.assert_relayed(*slot(192))
        self.assertEqual((waiting(), outbox.dropped(MessagePriority.SCP)), (4, 6))
        self.assert_not_relayed(prepared(128, by=1))
        self.assertEqual(self.figures(self.node, "queue_drop_scp"), [6])
        stingy.relent()
        self.network.advance(1)
        slots = [ScpStatement(body).slot for body in stingy.bodies(SCP)]
        self.assertEqual(slots, [190, 190, 192, 192])


class StateTests(ConsensusTestCase):
    """GET_SCP_STATE: what is asked, and what is answered."""

    def ask(self, peer: Neighbour, slot: int) -> list[tuple[int, str]]:
        """Return what is answered at once: slots and kinds of statements."""
        before = len(peer.bodies(SCP))
        peer.send(Message(encode_get_scp_state(slot)))
        self.network.advance(0)
        return self.shown(peer.bodies(SCP)[before:])

    def shown(self, bodies: list[bytes]) -> list[tuple[int, str]]:
        statements = map(ScpStatement, bodies)
        return [(statement.slot, statement.kind.name) for statement in statements]

    def test_answers(self) -> None:
        """Slots in order; nominations before ballots; the latest of each node; from some slot."""
        self.begin_at(900)
        for slot in (902, 901):
            self.say(
                prepared(slot, counter=1),
                prepared(slot, counter=2),
                nominate(validator(1), slot, [a_value()]),
            )
        curious = self.call("curious", Neighbour)
        later = [
            (901, "NOMINATE"),
            (901, "PREPARE"),
            (902, "NOMINATE"),
            (902, "PREPARE"),
        ]
        self.assertEqual(self.ask(curious, 0), [(900, "EXTERNALIZE"), *later])
        self.assertEqual(self.ask(curious, 901), later)
        self.assertEqual(self.ask(curious, 903), [])
        counters = {body[84:88] for body in curious.bodies(SCP) if body[51] == 0}
        self.assertEqual(counters, {b"\0\0\0\2"})

    def test_the_checkpoint(self) -> None:
        """The first slot of the checkpoint follows two seconds later; older ones are gone."""
        self.begin_at(959)
        self.say(externalized(960), externalized(970), externalized(1000))
        curious = self.call("curious", Neighbour)
        self.assertEqual(self.ask(curious, 0), [(1000, "EXTERNALIZE")])
        self.network.advance(1.9)
        self.assertEqual(len(curious.bodies(SCP)), 1)
        self.network.advance(0.2)
        self.assertEqual(self.shown(curious.bodies(SCP)[1:]), [(960, "EXTERNALIZE")])

    def test_a_newcomer(self) -> None:
        """A node that joins asks at once, learns all there is, and follows at once."""
        self.begin_at()
        for slot in range(50, 62):
            self.say(*(externalized(slot, by=by) for by in range(3)))
        newcomer = self.add("newcomer")
        heard = Heard(newcomer, SCP)
        self.link("newcomer", "node")
        self.network.advance(1)
        self.assertEqual(len(heard.first()), 3 * 12)
        self.assertEqual(heard.again(), [])
        late = self.call("late", Neighbour, to="newcomer")
        self.assertEqual(decode_get_scp_state(late.bodies(GET_SCP_STATE)[0]), 50)

    def test_a_newcomer_to_a_crowd(self) -> None:
        """It hears more than its credit lets pass at once, and all of it."""
        self.begin_at()
        for slot in range(50, 62):
            for by in range(30):
                self.speaker.flood(nominate(validator(by), slot, [a_value()]))
            self.speaker.flood(*(externalized(slot, by=by) for by in range(30)))
        self.network.advance(1)
        self.assertEqual(self.speaker.backlog, 0)
        newcomer = self.add("newcomer")
        heard = Heard(newcomer, SCP)
        self.link("newcomer", "node")
        self.network.advance(2)
        self.assertEqual((len(heard.first()), heard.again()), (12 * 60, []))

    def test_along_a_chain(self) -> None:
        """What the first of a chain knows reaches the last: each asks who it is linked with."""
        nodes = self.build(chain(4))
        nodes[0].broadcast(externalized(70))
        self.network.advance(1)
        for number in range(4):
            peer = self.call(f"peer {number}", Neighbour, to=str(number))
            self.assertEqual(decode_get_scp_state(peer.bodies(GET_SCP_STATE)[0]), 59)

    def test_what_an_unfollowed_network_is_asked(self) -> None:
        """Two peers every ten seconds while nothing moves; nobody while it does."""
        self.begin_at()
        self.call("third", Neighbour)
        peers = [self.speaker, self.listener]
        before = sum(len(peer.bodies(GET_SCP_STATE)) for peer in peers)
        self.network.advance(60)
        asked = sum(len(peer.bodies(GET_SCP_STATE)) for peer in peers) - before
        self.assertTrue(6 <= asked <= 12, asked)
        for slot in range(1, 7):
            self.say(externalized(slot))
            before = sum(len(peer.bodies(GET_SCP_STATE)) for peer in peers)
            self.network.advance(30)
            after = sum(len(peer.bodies(GET_SCP_STATE)) for peer in peers)
            self.assertEqual(after, before)

    def test_own_statements(self) -> None:
        """What the application says is answered, too, and followed."""
        node = self.add()
        own = externalize(node.local_node, 20, a_value(node.publish(a_tx_set(1))))
        node.broadcast(own)
        curious = self.call("curious", Neighbour)
        self.assertEqual(decode_get_scp_state(curious.bodies(GET_SCP_STATE)[0]), 9)
        self.assertEqual(self.ask(curious, 0), [(20, "EXTERNALIZE")])
