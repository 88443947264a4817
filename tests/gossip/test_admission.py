"""Who may stay: slots of each kind, and what becomes of a second link to one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import PeerViolation
from stellar_overlay.gossip.admission import (
    MAX_PENDING_PER_IP,
    SILENT_SECONDS,
    Admission,
    ConnectionLimits,
)
from stellar_overlay.identity import PeerId

OWN = PeerId(b"\x80" * 32)
LESSER = PeerId(b"\x01" * 32)
GREATER = PeerId(b"\xff" * 32)


@dataclass(eq=False)
class FakeLink:
    """A link that does as it is told."""

    we_called_remote: bool = False
    remote: ResolvedPeerAddress | None = None
    last_read: float = 0.0
    dropped: list[str] = field(default_factory=list)
    admission: Admission | None = None
    peer_id: PeerId | None = None

    def drop(self, violation: PeerViolation) -> None:
        self.dropped.append(violation.reason)
        assert self.admission is not None
        self.admission.remove(self, self.peer_id)


def at(host: str, port: int = 40_000) -> ResolvedPeerAddress:
    """Return the socket address of a caller."""
    return ResolvedPeerAddress(host, port)


def limits(outbound: int = 8, inbound: int = 64, pending: int = 500) -> ConnectionLimits:
    """Return the limits of a configuration."""
    return ConnectionLimits.of(outbound, inbound, pending)


class AdmissionTestCase(SynchronousTestCase):
    """Makes links and brings them through their stages."""

    def admission(
        self, *, allow_private: bool = False, outbound: int = 8, inbound: int = 64
    ) -> Admission:
        return Admission(limits(outbound, inbound), OWN, allow_private=allow_private)

    def pending(
        self, admission: Admission, *, ours: bool = False, host: str | None = "192.0.2.1"
    ) -> FakeLink:
        remote = None if host is None else at(host)
        link = FakeLink(we_called_remote=ours, remote=remote, admission=admission)
        admission.open(link)
        return link

    def authenticated(
        self, admission: Admission, peer_id: PeerId, *, ours: bool = False, last_read: float = 0
    ) -> FakeLink:
        link = self.pending(admission, ours=ours)
        link.peer_id = peer_id
        link.last_read = last_read
        admission.admit(link, peer_id)
        return link

    def assert_refused(self, reason: str, code: int, call: object, *args: object) -> None:
        assert callable(call)
        with self.assertRaises(PeerViolation) as caught:
            call(*args)
        violation = caught.exception
        self.assertEqual((violation.reason, violation.code), (reason, code))


class LimitsTests(SynchronousTestCase):
    """How pending slots are shared between the directions."""

    def test_the_table_of_core(self) -> None:
        """Connection.md 8.1: 500 make 56 and 444, and nobody gets less than one."""
        table = {
            (8, 64, 500): (56, 444),
            (8, 64, 1): (1, 1),
            (1, 1, 2): (1, 1),
            (1, 65535, 500): (1, 499),
            (65535, 1, 500): (500, 1),
            (3, 0, 10): (10, 1),
        }
        for (outbound, inbound, pending), shares in table.items():
            of = limits(outbound, inbound, pending)
            self.assertEqual((of.max_outbound_pending, of.max_inbound_pending), shares)
            self.assertEqual((of.max_outbound, of.max_inbound), (outbound, inbound))


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
            admission.begin_dial() if number % 2 else self.pending(admission, ours=True)
        self.assertFalse(admission.may_dial())
        self.assertEqual(admission.outbound, 56)
        self.assertTrue(admission.may_accept(at("192.0.2.1")))
        admission.end_dial()
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
            admission.remove(link, None)
        self.assertEqual(admission.pending, set())
        self.assertFalse(admission.may_accept(at("192.0.2.1")))
        admission.forget(links[0])
        self.assertTrue(admission.may_accept(at("192.0.2.1")))

    def test_closing_outbound_links_do_not(self) -> None:
        """What we dialled is bounded by what we dial."""
        admission = self.admission()
        for _ in range(100):
            admission.remove(self.pending(admission, ours=True), None)
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
                self.authenticated(admission, PeerId(bytes([number]) * 32), ours=ours)
            late = self.pending(admission, ours=ours)
            self.assert_refused("peer rejected", 4, admission.admit, late, GREATER)
            self.assertIn(late, admission.pending)
            self.authenticated(admission, GREATER, ours=not ours)
            self.assertEqual(len(admission.authenticated), 3)

    def test_a_slot_is_free_as_soon_as_its_link_is_dropped(self) -> None:
        """Not only when its transport is closed."""
        admission = self.admission(inbound=1)
        link = self.authenticated(admission, LESSER)
        admission.remove(link, LESSER)
        self.authenticated(admission, GREATER)
        self.assertEqual(list(admission.authenticated), [GREATER])

    def test_removing_twice_or_what_was_never_there(self) -> None:
        """Nothing happens."""
        admission = self.admission()
        link = self.authenticated(admission, LESSER)
        for _ in range(2):
            admission.remove(link, LESSER)
            admission.forget(link)
        admission.forget(FakeLink())
        self.assertEqual((admission.pending, admission.closing), (set(), set()))
        self.assertEqual(admission.authenticated, {})


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
        admission.remove(old, LESSER)
        admission.forget(old)
        self.assertIs(admission.authenticated[LESSER], new)


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
        admission = Admission(limits(2, 3, 10), OWN, allow_private=True)
        links = []
        for now, (ours, number, stage) in enumerate(story):
            peer_id = PeerId(bytes([number]) * 32)
            link = FakeLink(
                we_called_remote=ours,
                remote=at("192.0.2.1"),
                last_read=now,
                admission=admission,
                peer_id=peer_id,
            )
            links.append(link)
            admission.open(link)
            if stage != "pending":
                try:
                    admission.check_hello(peer_id, now)
                    admission.settle_duplicate(link, peer_id, now)
                    admission.admit(link, peer_id)
                except PeerViolation as violation:
                    link.drop(violation)
            if stage == "both":
                admission.remove(link, peer_id)
            taken = [other.we_called_remote for other in admission.authenticated.values()]
            self.assertLessEqual((taken.count(True), taken.count(False)), (2, 3))
        for link in links:
            admission.remove(link, link.peer_id)
            admission.forget(link)
        self.assertEqual((admission.pending, admission.closing), (set(), set()))
        self.assertEqual((admission.authenticated, admission.outbound), ({}, 0))
