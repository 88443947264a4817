"""Who may stay: slots of each kind, and what becomes of a second link to one node."""

from __future__ import annotations

from itertools import permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from stellar_overlay.error import PeerViolation
from stellar_overlay.gossip.admission import MAX_PENDING_PER_IP, SILENT_SECONDS, Admission
from stellar_overlay.identity import PeerId
from tests.gossip.links import (
    GREATER,
    LESSER,
    OWN,
    AdmissionTestCase,
    FakeLink,
    at,
    limits,
    node,
)


class PendingTests(AdmissionTestCase):
    """Slots for links that have not shaken hands yet."""

    def test_inbound_slots(self) -> None:
        """Row 57: 444 may wait, whatever goes out."""
        admission = self.admission()
        for number in range(444):
            host = f"192.0.{number // 250}.{number % 250}"
            self.assertTrue(admission.may_accept(at(host)), number)
            self.pending(admission, host=host)
        self.assertFalse(admission.may_accept(at("198.51.100.1")))
        self.assertTrue(admission.may_dial())

    def test_outbound_slots(self) -> None:
        """56 may be under way, those without a transport included."""
        admission = self.admission()
        for number in range(56):
            self.assertTrue(admission.may_dial(), number)
            if number % 2:
                admission.begin_dial(at(f"192.0.2.{number}"))
            else:
                self.pending(admission, ours=True)
        self.assertFalse(admission.may_dial())
        self.assertEqual((admission.outbound, admission.pending_outbound), (56, 56))
        self.assertTrue(admission.may_accept(at("192.0.2.1")))
        admission.end_dial(at("192.0.2.1"))
        self.assertTrue(admission.may_dial())

    def test_one_address_has_sixteen(self) -> None:
        """DECISIONS.md 15: and does not keep other addresses out."""
        admission = self.admission()
        links = [self.pending(admission) for _ in range(MAX_PENDING_PER_IP)]
        self.assertFalse(admission.may_accept(at("192.0.2.1", 5)))
        self.assertTrue(admission.may_accept(at("192.0.2.2")))
        admission.admit(links[0], GREATER)
        self.assertTrue(admission.may_accept(at("192.0.2.1")))

    def test_private_addresses_are_excepted_where_allowed(self) -> None:
        """Only there, and only private ones."""
        for host, is_allowed in product(("127.0.0.1", "10.0.0.1", "::1", "192.0.2.1"), (0, 1)):
            admission = self.admission(allow_private=bool(is_allowed))
            for _ in range(MAX_PENDING_PER_IP):
                self.pending(admission, host=host)
            is_excepted = bool(is_allowed) and host != "192.0.2.1"
            self.assertIs(admission.may_accept(at(host)), is_excepted, host)

    def test_who_has_no_address_counts_as_well(self) -> None:
        """A link over a pipe takes a slot and belongs to no address."""
        admission = self.admission()
        for _ in range(MAX_PENDING_PER_IP + 1):
            self.assertTrue(admission.may_accept(None))
            self.pending(admission, host=None)
        self.assertTrue(admission.may_accept(at("192.0.2.1")))

    def test_closing_links_take_up_pending_slots(self) -> None:
        """Connection.md 8.3: being refused over and over does not open more sockets."""
        admission = self.admission()
        links = [self.pending(admission) for _ in range(MAX_PENDING_PER_IP)]
        for link in links:
            admission.remove(link)
        self.assertEqual(admission.pending, set())
        self.assertFalse(admission.may_accept(at("192.0.2.1")))
        admission.forget(links[0])
        self.assertTrue(admission.may_accept(at("192.0.2.1")))

    def test_closing_outbound_links_do_not(self) -> None:
        """What we dialled is bounded by what we dial."""
        admission = self.admission()
        for _ in range(100):
            admission.remove(self.pending(admission, ours=True))
        self.assertTrue(admission.may_dial())
        self.assertEqual(admission.outbound, 0)
        self.assertTrue(admission.may_accept(at("192.0.2.1")))


class SlotTests(AdmissionTestCase):
    """Slots for authenticated links."""

    def test_each_direction_has_its_own(self) -> None:
        """Row 38: over the limit, ERR_LOAD "peer rejected"; the other direction is not full."""
        for ours in (False, True):
            admission = self.admission(outbound=2, inbound=2)
            for number in range(2):
                self.authenticated(admission, node(number), ours=ours)
            late = self.pending(admission, ours=ours)
            self.assert_refused("peer rejected", 4, admission.admit, late, GREATER)
            self.assertIn(late, admission.pending)
            self.authenticated(admission, GREATER, ours=not ours)
            self.assertEqual(len(admission.authenticated), 3)

    def test_a_slot_is_free_as_soon_as_its_link_is_dropped(self) -> None:
        """Not only when its transport is closed."""
        admission = self.admission(inbound=1)
        link = self.authenticated(admission, LESSER)
        admission.remove(link)
        self.authenticated(admission, GREATER)
        self.assertEqual(list(admission.authenticated), [GREATER])

    def test_removing_twice_or_what_was_never_there(self) -> None:
        """Nothing happens."""
        admission = self.admission()
        link = self.authenticated(admission, LESSER)
        for _ in range(2):
            admission.remove(link)
            admission.forget(link)
        admission.forget(FakeLink())
        self.assertEqual((admission.pending, admission.closing), (set(), set()))
        self.assertEqual(admission.authenticated, {})

    def test_admitting_twice(self) -> None:
        """A link has one slot, and a node one link."""
        admission = self.admission()
        link = self.authenticated(admission, LESSER)
        admission.admit(link, LESSER)
        self.assertEqual(admission.authenticated_inbound, 1)
        reason = f"already-connected peer: {LESSER.short}"
        self.assert_refused(reason, 2, admission.admit, self.pending(admission), LESSER)
        self.assertIs(admission.authenticated[LESSER], link)

    def test_who_has_ended_is_not_admitted(self) -> None:
        """However it came to that; nobody would ever free its slot."""
        admission = self.admission()
        ended = self.pending(admission)
        admission.remove(ended)
        for link in (ended, FakeLink()):
            self.assert_refused("peer rejected", 4, admission.admit, link, LESSER)
        self.assertEqual(admission.authenticated, {})

    def test_counts(self) -> None:
        """What an operator and the tick see."""
        admission = self.admission()
        admission.begin_dial(at("198.51.100.1"))
        for number, ours in enumerate((True, True, False)):
            self.authenticated(admission, node(number), ours=ours)
            self.pending(admission, ours=ours)
        self.pending(admission)
        self.assertEqual((admission.pending_outbound, admission.pending_inbound), (3, 2))
        self.assertEqual((admission.authenticated_outbound, admission.outbound), (2, 5))
        self.assertEqual(admission.authenticated_inbound, 1)


class ScenarioTests(AdmissionTestCase):
    """What core's tests ask of admission, R3, R4, R7 and R9 of reliability.md 1.2."""

    def test_beyond_the_maximum(self) -> None:
        """R3, R4, row 38: who came first stays; the next is rejected, whoever dialled."""
        for ours in (False, True):
            admission = self.admission(outbound=int(ours), inbound=int(not ours))
            first = self.authenticated(admission, GREATER, ours=ours)
            late = self.pending(admission, ours=ours)
            self.assert_refused("peer rejected", 4, admission.admit, late, LESSER)
            self.assertEqual((admission.authenticated, first.dropped), ({GREATER: first}, []))

    def test_three_pending_inbound(self) -> None:
        """R7: of three mute or slow ones the fourth has no slot, until one has left."""
        admission = self.admission(inbound_pending=3)
        mute, other, talker = (self.pending(admission) for _ in range(3))
        self.assertFalse(admission.may_accept(at("192.0.2.1")))
        self.assertFalse(admission.may_accept(at("198.51.100.1")))
        admission.admit(talker, LESSER)
        self.assertTrue(admission.may_accept(at("192.0.2.1")))
        self.pending(admission)
        admission.remove(mute)
        self.assertFalse(admission.may_accept(at("192.0.2.1")))
        admission.forget(mute)
        self.assertTrue(admission.may_accept(at("192.0.2.1")))
        self.assertEqual(other.dropped, [])

    def test_three_pending_outbound(self) -> None:
        """R9: with three under way, a fourth is not dialled, until one has left."""
        admission = self.admission(outbound_pending=3)
        links = [self.pending(admission, ours=True) for _ in range(3)]
        self.assertFalse(admission.may_dial())
        admission.admit(links[0], LESSER)
        self.assertTrue(admission.may_dial())
        self.pending(admission, ours=True)
        self.assertFalse(admission.may_dial())
        admission.remove(links[1])
        self.assertTrue(admission.may_dial())


class DuplicateTests(AdmissionTestCase):
    """DECISIONS.md 5 and 6."""

    def test_a_hello_of_a_connected_node(self) -> None:
        """Refused, until its link has been silent for ten seconds."""
        admission = self.admission()
        self.authenticated(admission, LESSER, last_read=100)
        reason = f"already-connected peer: {LESSER.short}"
        for now in (100, 100 + SILENT_SECONDS - 0.01):
            self.assert_refused(reason, 2, admission.check_hello, LESSER, now)
        admission.check_hello(LESSER, 100 + SILENT_SECONDS)
        admission.check_hello(GREATER, 100)

    def test_a_hello_of_a_pending_node(self) -> None:
        """Its key is not proven, so it is in nobody's way."""
        admission = self.admission()
        self.pending(admission).peer_id = LESSER
        admission.check_hello(LESSER, 0)

    def test_which_link_stays(self) -> None:
        """The whole table: directions, ids, and whether the older link is silent."""
        for old_ours, new_ours, peer_id, is_silent in product(
            (False, True), (False, True), (LESSER, GREATER), (False, True)
        ):
            admission = self.admission()
            old = self.authenticated(admission, peer_id, ours=old_ours)
            new = self.pending(admission, ours=new_ours)
            new_is_of_the_greater = new_ours == (peer_id < OWN)
            new_stays = is_silent or (old_ours != new_ours and new_is_of_the_greater)
            now = SILENT_SECONDS if is_silent else SILENT_SECONDS - 1
            case = (old_ours, new_ours, peer_id, is_silent)
            reason = f"already-connected peer: {peer_id.short}"
            if new_stays:
                admission.settle_duplicate(new, peer_id, now)
                self.assertEqual(old.dropped, [reason], case)
                self.assertEqual(admission.authenticated, {})
            else:
                self.assert_refused(reason, 2, admission.settle_duplicate, new, peer_id, now)
                self.assertEqual(old.dropped, [], case)
                self.assertIs(admission.authenticated[peer_id], old)

    def test_both_ends_agree(self) -> None:
        """Of two crossed links, both nodes keep the same one, whoever settles first."""
        for one, other in ((LESSER, GREATER), (GREATER, LESSER)):
            kept = []
            for own, peer_id in ((one, other), (other, one)):
                admission = Admission(limits(), own, allow_private=False)
                link = FakeLink(we_called_remote=True, admission=admission, peer_id=peer_id)
                admission.open(link)
                admission.admit(link, peer_id)
                try:
                    admission.settle_duplicate(FakeLink(), peer_id, 0)
                except PeerViolation:
                    kept.append(own)
                else:
                    kept.append(peer_id)
            self.assertEqual(kept, [GREATER, GREATER])

    def test_without_another_link_there_is_nothing_to_settle(self) -> None:
        """It is admitted next."""
        admission = self.admission()
        link = self.pending(admission)
        admission.settle_duplicate(link, LESSER, 0)
        admission.admit(link, LESSER)
        self.assertEqual(admission.pending, set())

    def test_a_late_end_leaves_the_newcomer_alone(self) -> None:
        """Y27: the slot belongs to the link that has it now."""
        admission = self.admission()
        old = self.authenticated(admission, LESSER)
        new = self.pending(admission)
        admission.settle_duplicate(new, LESSER, SILENT_SECONDS)
        admission.admit(new, LESSER)
        admission.remove(old)
        admission.forget(old)
        self.assertIs(admission.authenticated[LESSER], new)

    def test_crossed_dials(self) -> None:
        """Y27: in whatever order the keys are proven, and the news of an end arrives or not."""
        events = list(product("ab", (True, False)))
        for order, ids, is_prompt in product(
            permutations(events), ((LESSER, GREATER), (GREATER, LESSER)), (True, False)
        ):
            own = dict(zip("ab", ids, strict=True))
            ends = CrossedLinks(own, is_prompt=is_prompt)
            for name, is_of_a in order:
                ends.prove(name, is_of_a)
            ends.deliver()
            case = (order, ids, is_prompt)
            self.assertEqual([ends.kept("a"), ends.kept("b")], [[GREATER], [GREATER]], case)


class CrossedLinks:
    """Two nodes, and the two links that they opened to each other at once.

    :param is_prompt: whether an end hears at once that the other has ended a link.
    """

    def __init__(self, own: dict[str, PeerId], *, is_prompt: bool) -> None:
        self.own = own
        self.is_prompt = is_prompt
        self.nodes = {
            name: Admission(limits(), peer_id, allow_private=False) for name, peer_id in own.items()
        }
        self.links = {
            (name, is_of_a): FakeLink(
                we_called_remote=is_of_a == (name == "a"),
                admission=self.nodes[name],
                peer_id=own["b" if name == "a" else "a"],
            )
            for name, is_of_a in product("ab", (True, False))
        }
        for (name, _), link in self.links.items():
            self.nodes[name].open(link)

    def prove(self, name: str, is_of_a: bool) -> None:
        """Let a node hear AUTH on one of the links, if it still has it."""
        node, link = self.nodes[name], self.links[name, is_of_a]
        if link in node.pending and link.peer_id is not None:
            try:
                node.settle_duplicate(link, link.peer_id, 0)
                node.admit(link, link.peer_id)
            except PeerViolation as violation:
                link.drop(violation)
        if self.is_prompt:
            self.deliver()

    def deliver(self) -> None:
        """End at each node what the other has ended."""
        for (name, is_of_a), link in self.links.items():
            if link.dropped:
                other = "b" if name == "a" else "a"
                self.nodes[other].remove(self.links[other, is_of_a])

    def kept(self, name: str) -> list[PeerId]:
        """Return who dialled the links that a node still has."""
        links = self.nodes[name].authenticated.values()
        others = {True: name, False: "b" if name == "a" else "a"}
        return [self.own[others[link.we_called_remote]] for link in links]


class AccountTests(AdmissionTestCase):
    """Y25: slots come back on every path."""

    @settings(derandomize=True, max_examples=200)
    @given(
        st.lists(
            st.tuples(
                st.booleans(), st.integers(0, 3), st.sampled_from(["pending", "admitted", "both"])
            ),
            max_size=40,
        )
    )
    def test_nothing_is_left(self, story: list[tuple[bool, int, str]]) -> None:
        """Whatever links come, prove themselves, replace each other and go."""
        admission = self.admission(outbound=2, inbound=3, allow_private=True)
        links = []
        for now, (ours, number, stage) in enumerate(story):
            peer_id = node(number)
            link = self.pending(admission, ours=ours)
            link.peer_id, link.last_read = peer_id, now
            links.append(link)
            if stage != "pending":
                try:
                    admission.check_hello(peer_id, now)
                    admission.settle_duplicate(link, peer_id, now)
                    admission.admit(link, peer_id)
                except PeerViolation as violation:
                    link.drop(violation)
            if stage == "both":
                admission.remove(link)
            taken = [other.we_called_remote for other in admission.authenticated.values()]
            self.assertLessEqual(taken.count(True), 2)
            self.assertLessEqual(taken.count(False), 3)
        for link in links:
            admission.remove(link)
            admission.forget(link)
        self.assertEqual((admission.pending, admission.closing), (set(), set()))
        self.assertEqual((admission.authenticated, admission.outbound), ({}, 0))
