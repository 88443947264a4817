"""Who is preferred, and what that is worth."""

from __future__ import annotations

from itertools import product
from operator import itemgetter

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import PeerViolation
from stellar_overlay.gossip.admission import (
    MAX_OUTBOUND_PER_GROUP,
    MAX_PENDING_PER_IP,
    POSSIBLY_PREFERRED_EXTRA,
    Admission,
)
from tests.gossip.links import GREATER, LESSER, AdmissionTestCase, FakeLink, at, node

LISTENS = ResolvedPeerAddress("192.0.2.1", 11625)
SELECTED = "preferred peer selected instead"


class PreferenceTests(AdmissionTestCase):
    """By address and by key."""

    def test_who_is(self) -> None:
        """IP and listening port, or a proven key."""
        admission = self.admission(preferred=[LESSER])
        admission.preferred_addresses = {LISTENS}
        self.assertTrue(admission.is_preferred(LISTENS))
        self.assertTrue(admission.is_preferred(None, LESSER))
        self.assertTrue(admission.is_preferred(at("198.51.100.1"), LESSER))
        self.assertFalse(admission.is_preferred(at("192.0.2.1", 11626), GREATER))
        self.assertFalse(admission.is_preferred(None))

    def test_links(self) -> None:
        """Of a link it is known once its peer is; and it goes by the lists as they are then."""
        admission = self.admission(preferred=[LESSER])
        pending = self.pending(admission)
        pending.peer_id = LESSER
        self.assertFalse(admission.is_link_preferred(pending))
        admission.admit(pending, LESSER)
        self.assertTrue(admission.is_link_preferred(pending))
        other = self.authenticated(admission, GREATER, address=LISTENS)
        self.assertFalse(admission.is_link_preferred(other))
        admission.preferred_addresses = {LISTENS}
        self.assertTrue(admission.is_link_preferred(other))
        admission.remove(other)
        admission.forget(other)
        self.assertFalse(admission.is_link_preferred(other))

    def test_lists_change(self) -> None:
        """Row 62: whose name resolves no more is not preferred, and its link stays."""
        admission = self.admission()
        link = self.authenticated(admission, LESSER, ours=True, address=LISTENS)
        self.assertEqual(admission.non_preferred_outbound, 1)
        admission.preferred_addresses = {LISTENS}
        self.assertEqual(admission.non_preferred_outbound, 0)
        admission.preferred_addresses = frozenset()
        self.assertEqual(admission.non_preferred_outbound, 1)
        self.assertIs(admission.authenticated[LESSER], link)

    def test_one_at_random(self) -> None:
        """Only outbound ones that are not preferred are offered."""
        admission = self.admission(preferred=[node(1)])
        admission.preferred_addresses = {LISTENS}
        self.assertIsNone(admission.random_non_preferred_outbound(lambda links: links[0]))
        self.authenticated(admission, node(1), ours=True)
        self.authenticated(admission, node(2), ours=True, address=LISTENS)
        self.authenticated(admission, node(3))
        self.pending(admission, ours=True)
        self.assertIsNone(admission.random_non_preferred_outbound(lambda links: links[0]))
        plain = [self.authenticated(admission, node(number), ours=True) for number in (4, 5)]
        for index in (0, 1):
            chosen = admission.random_non_preferred_outbound(itemgetter(index))
            self.assertIs(chosen, plain[index])


class StrictTests(AdmissionTestCase):
    """PREFERRED_PEERS_ONLY."""

    def test_nobody_else(self) -> None:
        """R1, row 38: all others are rejected, in both directions, though slots are free."""
        for ours in (False, True):
            admission = self.admission(preferred=[GREATER], preferred_only=True)
            link = self.pending(admission, ours=ours)
            self.assert_refused("peer rejected", 4, admission.admit, link, LESSER, LISTENS)
            self.assertEqual(admission.authenticated, {})

    def test_the_preferred(self) -> None:
        """R2: by key or by address, in both directions."""
        for ours, by_key in product((False, True), repeat=2):
            admission = self.admission(preferred=[LESSER] if by_key else [], preferred_only=True)
            admission.preferred_addresses = frozenset() if by_key else {LISTENS}
            link = self.authenticated(admission, LESSER, ours=ours, address=LISTENS)
            self.assertEqual(admission.authenticated, {LESSER: link})


class EvictionTests(AdmissionTestCase):
    """Connection.md 8.5."""

    def test_preferred_first(self) -> None:
        """R5: a preferred peer that is there stays, the next one is rejected."""
        for ours in (False, True):
            admission = self.admission(outbound=1, inbound=1, preferred=[GREATER])
            preferred = self.authenticated(admission, GREATER, ours=ours)
            late = self.pending(admission, ours=ours)
            self.assert_refused("peer rejected", 4, admission.admit, late, LESSER)
            self.assertEqual(admission.authenticated, {GREATER: preferred})

    def test_preferred_second(self) -> None:
        """R6, row 61: it takes the place of one that is not; by key or by address."""
        for ours, by_key in product((False, True), repeat=2):
            admission = self.admission(outbound=1, inbound=1, preferred=[GREATER] if by_key else [])
            admission.preferred_addresses = frozenset() if by_key else {LISTENS}
            first = self.authenticated(admission, LESSER, ours=ours)
            second = self.authenticated(admission, GREATER, ours=ours, address=LISTENS)
            self.assertEqual((first.dropped, first.codes), ([SELECTED], [4]))
            self.assertEqual(admission.authenticated, {GREATER: second})
            self.assertEqual(admission.closing, {first})

    def test_the_first_by_node_id(self) -> None:
        """Not the oldest; and Y28: one for one, never a preferred one, never of the other side."""
        admission = self.admission(outbound=3, inbound=3, preferred=[node(1), node(8), node(9)])
        links = {
            number: self.authenticated(admission, node(number), ours=ours)
            for number, ours in ((5, True), (3, True), (1, True), (2, False), (4, False))
        }
        self.authenticated(admission, node(8), ours=True)
        dropped = {number: len(link.dropped) for number, link in links.items()}
        self.assertEqual(dropped, {5: 0, 3: 1, 1: 0, 2: 0, 4: 0})
        self.authenticated(admission, node(9), ours=True)
        dropped = {number: len(link.dropped) for number, link in links.items()}
        self.assertEqual(dropped, {5: 1, 3: 1, 1: 0, 2: 0, 4: 0})
        self.assertEqual(
            (admission.authenticated_outbound, admission.authenticated_inbound), (3, 2)
        )

    def test_all_are_preferred(self) -> None:
        """Y28: then there is no slot for one more."""
        admission = self.admission(inbound=2, preferred=[node(1), node(2), node(3)])
        links = [self.authenticated(admission, node(number)) for number in (1, 2)]
        late = self.pending(admission)
        self.assert_refused("peer rejected", 4, admission.admit, late, node(3))
        self.assertEqual([link.dropped for link in links], [[], []])

    def test_a_free_slot_is_taken_first(self) -> None:
        """Nobody is evicted without need."""
        admission = self.admission(inbound=2, preferred=[GREATER])
        first = self.authenticated(admission, LESSER)
        self.authenticated(admission, GREATER)
        self.assertEqual((first.dropped, admission.authenticated_inbound), ([], 2))

    def test_who_has_lost_its_preference_is_evicted(self) -> None:
        """The lists count as they are when somebody needs the slot."""
        admission = self.admission(inbound=1, preferred=[GREATER])
        admission.preferred_addresses = {LISTENS}
        first = self.authenticated(admission, LESSER, address=LISTENS)
        admission.preferred_addresses = frozenset()
        self.authenticated(admission, GREATER)
        self.assertEqual(first.dropped, [SELECTED])

    def test_a_transport_that_is_closed_at_once(self) -> None:
        """The evicted link is gone when it says so, not closing for ever."""
        admission = self.admission(inbound=1, preferred=[GREATER])
        first = self.authenticated(admission, LESSER)
        first.is_abrupt = True
        second = self.authenticated(admission, GREATER)
        self.assertEqual((admission.authenticated, admission.closing), ({GREATER: second}, set()))

    def test_the_slot_has_changed_hands_when_the_evicted_hears_of_it(self) -> None:
        """Whatever its end sets off finds the lists as they will stay."""
        admission = self.admission(inbound=1, preferred=[GREATER])
        seen = []

        class CuriousLink(FakeLink):
            def drop(self, violation: PeerViolation) -> None:
                seen.append((dict(admission.authenticated), set(admission.closing)))

        first = CuriousLink(admission=admission, peer_id=LESSER)
        admission.open(first)
        admission.admit(first, LESSER)
        second = self.authenticated(admission, GREATER)
        self.assertEqual(seen, [({GREATER: second}, {first})])

    def test_may_dial_preferred(self) -> None:
        """As long as there is a slot, or somebody who would make way."""
        admission = self.admission(outbound=1, outbound_pending=1, preferred=[GREATER])
        self.assertTrue(admission.may_dial_preferred())
        link = self.authenticated(admission, LESSER, ours=True)
        self.assertTrue(admission.may_dial_preferred())
        admission.remove(link)
        self.authenticated(admission, GREATER, ours=True)
        self.assertFalse(admission.may_dial_preferred())
        admission.limits = self.admission(outbound=2, outbound_pending=1).limits
        self.assertTrue(admission.may_dial_preferred())
        self.pending(admission, ours=True)
        self.assertFalse(admission.may_dial_preferred())


class PossiblyPreferredTests(AdmissionTestCase):
    """Connection.md 8.3: slots for who may turn out to be preferred."""

    def full(self) -> Admission:
        admission = self.admission(inbound_pending=3)
        admission.preferred_addresses = {ResolvedPeerAddress("192.0.2.7", 17)}
        for _ in range(3):
            self.pending(admission)
        return admission

    def test_two_more(self) -> None:
        """R8: for the IP of a preferred address, whatever the port."""
        admission = self.full()
        for _ in range(POSSIBLY_PREFERRED_EXTRA):
            self.assertFalse(admission.may_accept(at("192.0.2.1")))
            self.assertTrue(admission.may_accept(at("192.0.2.7")))
            self.pending(admission, host="192.0.2.7")
        self.assertFalse(admission.may_accept(at("192.0.2.7")))

    def test_without_an_address(self) -> None:
        """Y9: who has no IP has no claim to them."""
        self.assertFalse(self.full().may_accept(None))

    def test_slots_that_are_free_are_for_all(self) -> None:
        """Y9: a preferred address does not use up the head-room before it needs it."""
        admission = self.admission(inbound_pending=3)
        admission.preferred_addresses = {ResolvedPeerAddress("192.0.2.7", 17)}
        self.pending(admission, host="192.0.2.7")
        self.assertTrue(admission.may_accept(at("192.0.2.1")))
        self.pending(admission)
        self.assertTrue(admission.may_accept(None))

    def test_addresses_that_come_later(self) -> None:
        """Y9: each look-up of names counts from then on."""
        admission = self.full()
        admission.preferred_addresses = {ResolvedPeerAddress("198.51.100.9", 17)}
        self.assertFalse(admission.may_accept(at("192.0.2.7")))
        self.assertTrue(admission.may_accept(at("198.51.100.9")))

    def test_the_limit_per_address_does_not_hold(self) -> None:
        """The operator vouched for that address; the limit of all holds."""
        admission = self.admission(inbound_pending=100)
        admission.preferred_addresses = {LISTENS}
        for _ in range(MAX_PENDING_PER_IP + 1):
            self.pending(admission, host="192.0.2.1")
            self.pending(admission, host="198.51.100.1")
        self.assertTrue(admission.may_accept(at("192.0.2.1")))
        self.assertFalse(admission.may_accept(at("198.51.100.1")))


class GroupTests(AdmissionTestCase):
    """DECISIONS.md 15: outbound, at most two to one /16."""

    def test_two(self) -> None:
        """Whatever their stage; not those that have ended, nor those that came in."""
        for stages in product(("dialling", "pending", "authenticated"), repeat=2):
            admission = self.admission()
            for number, stage in enumerate(stages):
                host = f"203.0.{number}.1"
                self.assertTrue(admission.may_dial_group(at("203.0.9.9")), stages)
                if stage == "dialling":
                    admission.begin_dial(at(host))
                elif stage == "pending":
                    self.pending(admission, ours=True, host=host)
                else:
                    self.authenticated(admission, node(number), ours=True, host=host)
            self.assertFalse(admission.may_dial_group(at("203.0.9.9")), stages)
            self.assertTrue(admission.may_dial_group(at("203.1.0.1")), stages)
        for _ in range(MAX_OUTBOUND_PER_GROUP):
            self.pending(admission, host="203.1.0.1")
        self.assertTrue(admission.may_dial_group(at("203.1.0.1")))

    def test_an_end_makes_room(self) -> None:
        """Of a dial and of a link; one that is closing does not count."""
        admission = self.admission()
        admission.begin_dial(at("203.0.0.1"))
        link = self.pending(admission, ours=True, host="203.0.0.2")
        self.assertFalse(admission.may_dial_group(at("203.0.9.9")))
        admission.end_dial(at("203.0.0.1"))
        self.assertTrue(admission.may_dial_group(at("203.0.9.9")))
        admission.begin_dial(at("203.0.0.1"))
        admission.remove(link)
        self.assertTrue(admission.may_dial_group(at("203.0.9.9")))

    def test_configured_peers(self) -> None:
        """They may always be dialled, and leave the group to others."""
        admission = self.admission(preferred=[node(3)])
        admission.preferred_addresses = {at("203.0.0.1")}
        admission.configured = {at("203.0.0.2")}
        admission.begin_dial(at("203.0.0.1"))
        self.authenticated(admission, node(2), ours=True, address=at("203.0.0.2"), host="203.0.0.2")
        self.authenticated(admission, node(3), ours=True, host="203.0.0.3")
        for host in ("203.0.0.4", "203.0.0.5"):
            self.assertTrue(admission.may_dial_group(at(host)))
            self.pending(admission, ours=True, host=host)
        self.assertFalse(admission.may_dial_group(at("203.0.0.6")))
        self.assertTrue(admission.may_dial_group(at("203.0.0.1")))
        self.assertTrue(admission.may_dial_group(at("203.0.0.2")))
        self.assertFalse(admission.may_dial_group(at("203.0.0.2", 2)))
        admission.configured = frozenset()
        self.assertFalse(admission.may_dial_group(at("203.0.0.2")))

    def test_private_addresses(self) -> None:
        """Only where they are allowed."""
        for allow_private in (False, True):
            admission = self.admission(allow_private=allow_private)
            for _ in range(MAX_OUTBOUND_PER_GROUP):
                admission.begin_dial(at("10.0.0.1"))
            self.assertIs(admission.may_dial_group(at("10.0.0.2")), allow_private)

    def test_ipv6(self) -> None:
        """A /32 is a group."""
        admission = self.admission()
        for number in range(MAX_OUTBOUND_PER_GROUP):
            admission.begin_dial(at(f"2001:db8:{number}::1"))
        self.assertFalse(admission.may_dial_group(at("2001:db8:9::1")))
        self.assertTrue(admission.may_dial_group(at("2001:db9::1")))
