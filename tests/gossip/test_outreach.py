"""Whom to dial next, and when to try other company."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from stellar_overlay.address import ResolvedPeerAddress, network_group
from stellar_overlay.gossip.admission import Admission, Candidate
from stellar_overlay.gossip.dial_pacer import MAX_DIALS_PER_SECOND, DialPacer
from stellar_overlay.gossip.outreach import MAX_DIALS_PER_STEP, OUT_OF_SYNC_SECONDS, Outreach
from tests.gossip.links import OWN, AdmissionTestCase, FakeLink, at, exactly, node

TICK = 3
DROPPED = "random disconnect due to out of sync"


class FakeSource:
    """Rows of one type, in order; a row that was returned is not due for the rest of the test.

    :ivar asked: how many were wanted each time.
    :ivar is_faulty: whether it returns what nobody accepted, and that again and again.
    """

    def __init__(self, rows: Sequence[ResolvedPeerAddress] = ()) -> None:
        self.rows = list(rows)
        self.asked: list[int] = []
        self.is_faulty = False

    def get_random_peers(
        self, count: int, accept: Callable[[ResolvedPeerAddress], bool]
    ) -> list[ResolvedPeerAddress]:
        self.asked.append(count)
        if self.is_faulty:
            return self.rows[:count]
        chosen = [row for row in self.rows if accept(row)][:count]
        self.rows = [row for row in self.rows if row not in chosen]
        return chosen


def spread(number: int, start: int = 0) -> list[ResolvedPeerAddress]:
    """Return so many addresses, each in a network group of its own."""
    return [
        ResolvedPeerAddress(f"{20 + index // 200}.{index % 200}.0.1", 11625)
        for index in range(start, start + number)
    ]


def local(number: int, start: int = 0) -> list[ResolvedPeerAddress]:
    """Return so many private addresses."""
    return [
        ResolvedPeerAddress(f"10.0.{index // 200}.{index % 200}", 11625)
        for index in range(start, start + number)
    ]


class OutreachTestCase(AdmissionTestCase):
    """A node with its sources; what is dialled stays under way."""

    def make(
        self,
        *,
        target: int = 8,
        outbound: int = 8,
        outbound_pending: int = 56,
        allow_private: bool = True,
        allow_localhost: bool = False,
        preferred_only: bool = False,
    ) -> Outreach:
        self.admission_ = Admission(
            exactly(outbound, target=target, outbound_pending=outbound_pending),
            OWN,
            allow_private=allow_private,
            preferred_only=preferred_only,
        )
        self.numbers = count(1)
        self.preferred, self.outbound, self.inbound = FakeSource(), FakeSource(), FakeSource()
        self.dialled: list[ResolvedPeerAddress] = []
        self.connected: set[ResolvedPeerAddress] = set()
        self.connected_outbound: set[ResolvedPeerAddress] = set()
        self.is_tracking = True
        self.is_refused_at_once = self.dials_another = False
        self.chosen_from: list[Sequence[Candidate]] = []
        return Outreach(
            self.admission_,
            preferred=self.preferred,
            outbound=self.outbound,
            inbound=self.inbound,
            dial=self.dial,
            is_connected=lambda address: self.is_taken(address) or address in self.connected,
            is_connected_outbound=self.is_taken,
            pacer=DialPacer(allow_private=allow_private),
            is_tracking=lambda: self.is_tracking,
            choice=self.choose,
            allow_private=allow_private,
            allow_localhost=allow_localhost,
        )

    def dial(self, address: ResolvedPeerAddress) -> None:
        self.admission_.begin_dial(address)
        self.dialled.append(address)
        if self.dials_another:
            self.admission_.begin_dial(at("30.0.0.1"))
        if self.is_refused_at_once:
            self.admission_.end_dial(address)

    def is_taken(self, address: ResolvedPeerAddress) -> bool:
        return address in self.dialled or address in self.connected_outbound

    def choose(self, links: Sequence[Candidate]) -> Candidate:
        self.chosen_from.append(links)
        return links[-1]

    def peers(self, number: int, *, ours: bool, preferred: bool = False) -> list[FakeLink]:
        """Return so many authenticated links."""
        links = []
        for _ in range(number):
            index = next(self.numbers)
            if preferred:
                self.admission_.preferred_ids |= {node(index)}
            links.append(
                self.authenticated(self.admission_, node(index), ours=ours, host=f"8.{index}.0.1")
            )
        return links

    def counts(self) -> tuple[int, ...]:
        """Return how many were dialled so far of each source."""
        sources = self.all_preferred, self.all_outbound, self.all_inbound
        return tuple(sum(row in rows for row in self.dialled) for rows in sources)

    def fill(self, preferred: int = 0, outbound: int = 0, inbound: int = 0) -> None:
        """Give each source so many rows, all of them private."""
        self.all_preferred, self.all_outbound = local(preferred), local(outbound, 1000)
        self.all_inbound = local(inbound, 2000)
        self.preferred.rows = list(self.all_preferred)
        self.outbound.rows, self.inbound.rows = list(self.all_outbound), list(self.all_inbound)


class OrderTests(OutreachTestCase):
    """Connection.md 8.7, steps 4 to 9."""

    def test_from_best_to_unknown(self) -> None:
        """With nobody there: as many of each as are wanted, and all other slots for promotion."""
        outreach = self.make(outbound_pending=20)
        self.peers(1, ours=False)
        self.fill(preferred=5, outbound=100, inbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (5, 8, 7))
        expected = [*self.all_preferred, *self.all_outbound[:8], *self.all_inbound[:7]]
        self.assertEqual(self.dialled, expected)

    def test_preferred_fill_all_there_is(self) -> None:
        """Free places, and those of whom they would replace."""
        outreach = self.make()
        self.peers(1, ours=False)
        self.peers(5, ours=True)
        self.peers(2, ours=True, preferred=True)
        self.fill(preferred=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (1 + 5, 0, 0))

    def test_no_pending_slot(self) -> None:
        """Step 4: the tick ends, and the sources are not even asked."""
        outreach = self.make(outbound_pending=3)
        self.fill(5, 5, 5)
        for number in range(3):
            self.admission_.begin_dial(at(f"30.{number}.0.1"))
        self.is_tracking = False
        outreach.tick(0)
        self.assertEqual(self.dialled, [])
        self.assertEqual(self.preferred.asked + self.outbound.asked + self.inbound.asked, [])

    def test_one_slot_is_kept_for_promotion(self) -> None:
        """Step 8, unless it is the only one."""
        for pending, expected in ((1, (0, 1, 0)), (2, (0, 1, 1)), (5, (0, 4, 1)), (9, (0, 8, 1))):
            outreach = self.make(outbound_pending=pending)
            self.peers(1, ours=False)
            self.fill(outbound=100, inbound=100)
            outreach.tick(0)
            self.assertEqual(self.counts(), expected, pending)

    def test_promotion_goes_on_when_all_is_well(self) -> None:
        """Step 9: whether or not anybody is missing."""
        outreach = self.make(outbound_pending=10)
        self.peers(1, ours=False)
        self.peers(8, ours=True)
        self.fill(outbound=100, inbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 0, 10))

    def test_fifty_at_once(self) -> None:
        """Of each kind."""
        outreach = self.make(target=60, outbound=60, outbound_pending=500)
        self.peers(1, ours=False)
        self.fill(100, 100, 100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (50, 50, 50))
        self.assertEqual(MAX_DIALS_PER_STEP, 50)

    def test_three_without_anybody_calling(self) -> None:
        """Step 5: who is not called takes few slots."""
        outreach = self.make()
        self.fill(outbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 3, 0))

    def test_never_more_than_the_target(self) -> None:
        """Not three, where the operator wants one."""
        outreach = self.make(target=1, outbound=1)
        self.fill(outbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 1, 0))

    def test_the_target_not_the_ceiling(self) -> None:
        """INTERFACE.md 3: what lies between is for the operator's own links."""
        outreach = self.make(target=4, outbound=8)
        self.peers(1, ours=False)
        self.fill(outbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 4, 0))
        outreach = self.make(target=4, outbound=8)
        self.peers(1, ours=False)
        self.peers(6, ours=True)
        self.fill(outbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 0, 0))

    def test_preferred_peers_only(self) -> None:
        """Outbound addresses are dialled all the same: their keys may be preferred."""
        outreach = self.make(preferred_only=True)
        self.fill(outbound=5)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 3, 0))

    def test_the_next_tick_goes_on(self) -> None:
        """What is under way is not dialled again, and takes its slots."""
        outreach = self.make(outbound_pending=12)
        self.peers(1, ours=False)
        self.fill(outbound=4, inbound=4)
        for tick in range(3):
            outreach.tick(tick * TICK)
            self.assertEqual(self.counts(), (0, 4, 4))
        self.assertEqual(len(self.dialled), len(set(self.dialled)))


class CandidateTests(OutreachTestCase):
    """Who is not dialled."""

    def test_connected_ones(self) -> None:
        """An inbound link forbids all but a probe of where it says that it listens."""
        outreach = self.make()
        called, caller = local(2)
        self.connected |= {called, caller}
        self.connected_outbound.add(called)
        for source in (self.preferred, self.outbound, self.inbound):
            source.rows = [called, caller]
        outreach.tick(0)
        self.assertEqual(self.dialled, [caller])
        self.assertEqual(self.inbound.rows, [called])

    def test_those_that_nobody_can_reach(self) -> None:
        """Private ones where not allowed, unless configured; nobody's addresses never."""
        hosts = (
            "10.0.0.1",
            "127.0.0.1",
            "169.254.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "0.0.0.9",
            "8.8.8.8",
        )
        rows = [at(host) for host in hosts]
        for allow_private, configured, expected in (
            (False, (), ["8.8.8.8"]),
            (True, (), ["10.0.0.1", "127.0.0.1", "8.8.8.8"]),
            (False, rows, ["10.0.0.1", "127.0.0.1", "169.254.0.1", "8.8.8.8"]),
        ):
            outreach = self.make(allow_private=allow_private)
            self.admission_.configured = frozenset(configured)
            self.inbound.rows = list(rows)
            outreach.tick(0)
            self.assertEqual([address.host for address in self.dialled], expected)

    def test_localhost(self) -> None:
        """ALLOW_LOCALHOST_FOR_TESTING: 127.0.0.1 alone."""
        outreach = self.make(allow_private=False, allow_localhost=True)
        self.inbound.rows = [at("127.0.0.2"), at("127.0.0.1"), at("10.0.0.1")]
        outreach.tick(0)
        self.assertEqual([address.host for address in self.dialled], ["127.0.0.1"])

    def test_the_pace(self) -> None:
        """Ten a second of public ones; configured ones neither wait nor count."""
        outreach = self.make(allow_private=False)
        configured = spread(20, start=500)
        self.admission_.configured = frozenset(configured)
        self.inbound.rows = [*spread(100), *configured]
        outreach.tick(0)
        self.assertEqual(self.dialled[:MAX_DIALS_PER_SECOND], spread(MAX_DIALS_PER_SECOND))
        self.assertEqual(self.dialled[MAX_DIALS_PER_SECOND:], configured)
        outreach.tick(0.5)
        self.assertEqual(len(self.dialled), 30)
        outreach.tick(TICK)
        self.assertEqual(len(self.dialled), 40)

    def test_peers_of_before_a_restart(self) -> None:
        """They are dialled at once, but at the pace and of the mixture of strangers."""
        outreach = self.make(allow_private=False)
        one_host = [ResolvedPeerAddress("20.0.0.1", port) for port in (1, 2)]
        one_group = [ResolvedPeerAddress(f"21.1.1.{number}", 1) for number in (1, 2, 3)]
        private = at("10.0.0.1")
        outreach.dial_first([*one_host, *one_group, private], 0)
        self.assertEqual(self.dialled, [one_host[0], *one_group[:2]])
        self.inbound.rows = [one_host[1], one_group[2]]
        outreach.tick(1)
        self.assertEqual(len(self.dialled), 3)

    def test_ports_of_one_host(self) -> None:
        """They wait a minute each, and keep nobody else waiting."""
        outreach = self.make(allow_private=False)
        ports = [ResolvedPeerAddress("20.0.0.1", port) for port in range(1, 60)]
        self.inbound.rows = [*ports, *spread(4, start=1)]
        outreach.tick(0)
        self.assertEqual(self.dialled, [ports[0], *spread(4, start=1)])

    def test_network_groups(self) -> None:
        """DECISIONS.md 15: two of a group at a time, however many are offered."""
        outreach = self.make(allow_private=False)
        crowd = [at(f"66.66.{number}.1") for number in range(80)]
        self.inbound.rows = [*crowd, *spread(4)]
        outreach.tick(0)
        self.assertEqual(self.dialled, [*crowd[:2], *spread(4)])

    def test_a_source_that_returns_what_nobody_wants(self) -> None:
        """It ends the step, and not the node."""
        outreach = self.make(allow_private=False)
        self.inbound.rows, self.inbound.is_faulty = local(100), True
        outreach.tick(0)
        self.assertEqual((self.dialled, len(self.inbound.asked)), ([], 1))

    def test_dials_that_fail_at_once(self) -> None:
        """They give no slot back within the tick, so that it ends."""
        outreach = self.make(outbound_pending=4)
        self.is_refused_at_once = True
        self.fill(outbound=100, inbound=100)
        outreach.tick(0)
        self.assertEqual(self.counts(), (0, 3, 1))

    def test_slots_that_others_take(self) -> None:
        """Whoever hears of a dial may start one too; the limit holds."""
        outreach = self.make(outbound_pending=6)
        self.dials_another = True
        self.fill(outbound=100, inbound=100)
        outreach.tick(0)
        self.assertEqual((self.counts(), self.admission_.pending_outbound), ((0, 3, 0), 6))

    def test_a_source_that_has_no_more(self) -> None:
        """It is asked once, as each question may read the table anew."""
        outreach = self.make()
        self.fill(outbound=2)
        outreach.tick(0)
        self.assertEqual((self.counts(), self.outbound.asked), ((0, 2, 0), [3]))

    @settings(derandomize=True, max_examples=100)
    @given(
        attackers=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 200)), max_size=120),
        honest=st.integers(0, 20),
        pending=st.integers(1, 60),
    )
    def test_a_flood_of_addresses(
        self, attackers: list[tuple[int, int]], honest: int, pending: int
    ) -> None:
        """Row 41: whatever is offered, the limits hold at every tick."""
        outreach = self.make(allow_private=False, outbound_pending=pending)
        self.peers(1, ours=False)
        self.inbound.rows = [
            *dict.fromkeys(at(f"66.{group}.0.{host}") for group, host in attackers),
            *spread(honest),
        ]
        for tick in range(5):
            before = len(self.dialled)
            outreach.tick(tick * TICK)
            self.assertLessEqual(len(self.dialled) - before, MAX_DIALS_PER_SECOND)
            self.assertLessEqual(self.admission_.pending_outbound, pending)
        groups = [network_group(address.host) for address in self.dialled]
        self.assertLessEqual(max(map(groups.count, groups), default=0), 2)
        self.assertEqual(len(set(self.dialled)), len(self.dialled))


class OutOfSyncTests(OutreachTestCase):
    """Y31, T5 and T6: one random outbound peer makes way for another."""

    def full(self, *, preferred: bool = False) -> tuple[Outreach, list[FakeLink]]:
        """Return a node without a free slot, which has lost sync."""
        outreach = self.make()
        self.peers(3, ours=False)
        links = self.peers(8, ours=True, preferred=preferred)
        self.is_tracking = False
        return outreach, links

    def dropped(self, links: Sequence[FakeLink]) -> int:
        return sum(link.dropped == [DROPPED] for link in links)

    def test_the_first_call_only_arms(self) -> None:
        """Nothing happens for a minute, then one is dropped."""
        outreach, links = self.full()
        for now in (1000, 1000 + OUT_OF_SYNC_SECONDS):
            outreach.tick(now)
            self.assertEqual(self.dropped(links), 0)
        outreach.tick(1000 + OUT_OF_SYNC_SECONDS + 0.1)
        self.assertEqual(self.dropped(links), 1)
        self.assertEqual((links[-1].dropped, links[-1].codes), ([DROPPED], [4]))
        self.assertEqual(len(self.chosen_from[0]), 8)

    def test_another_takes_its_place_in_the_same_tick(self) -> None:
        """Step 8 sees that one is missing."""
        outreach, links = self.full()
        self.fill(outbound=5)
        outreach.tick(0)
        self.assertEqual(self.dialled, [])
        outreach.tick(OUT_OF_SYNC_SECONDS + TICK)
        self.assertEqual((self.dropped(links), self.counts()), (1, (0, 1, 0)))

    def test_one_a_minute(self) -> None:
        """T5: as long as it lasts, and slots are full again."""
        outreach, links = self.full()
        for now in range(0, 600, TICK):
            outreach.tick(now)
            missing = 8 - self.admission_.authenticated_outbound
            links += self.peers(missing, ours=True)
            self.assertLessEqual(self.dropped(links), now // OUT_OF_SYNC_SECONDS)
        self.assertEqual(self.dropped(links), 9)

    def test_not_when_tracking(self) -> None:
        """And the minute begins anew when sync is lost again."""
        outreach, links = self.full()
        outreach.tick(0)
        self.is_tracking = True
        outreach.tick(OUT_OF_SYNC_SECONDS + TICK)
        self.is_tracking = False
        for now in (100, 100 + OUT_OF_SYNC_SECONDS):
            outreach.tick(now)
        self.assertEqual(self.dropped(links), 0)
        outreach.tick(101 + OUT_OF_SYNC_SECONDS)
        self.assertEqual(self.dropped(links), 1)

    def test_not_when_slots_are_free(self) -> None:
        """Somebody new can come without that; and the waiting time is over when it cannot."""
        outreach, links = self.full()
        self.admission_.remove(links.pop())
        for now in range(0, 10 * OUT_OF_SYNC_SECONDS, TICK):
            outreach.tick(now)
        self.assertEqual(self.dropped(links), 0)
        links += self.peers(1, ours=True)
        outreach.tick(10 * OUT_OF_SYNC_SECONDS)
        self.assertEqual(self.dropped(links), 1)

    def test_not_when_nobody_could_be_dialled(self) -> None:
        """Preferred peers that are dialled now may take all pending slots."""
        outreach, links = self.full()
        self.admission_.limits = exactly(outbound_pending=2)
        outreach.tick(0)
        self.fill(preferred=8)
        outreach.tick(OUT_OF_SYNC_SECONDS + TICK)
        self.assertEqual((self.dropped(links), self.counts()), (0, (2, 0, 0)))

    def test_never_a_preferred_one(self) -> None:
        """T6: islands of preferred peers stay what they are."""
        outreach, links = self.full(preferred=True)
        for now in range(0, 10 * OUT_OF_SYNC_SECONDS, TICK):
            outreach.tick(now)
        self.assertEqual((self.dropped(links), self.chosen_from), (0, []))

    def test_never_one_that_called_us(self) -> None:
        """Nor a preferred one among others."""
        outreach = self.make()
        callers = self.peers(3, ours=False)
        preferred = self.peers(7, ours=True, preferred=True)
        plain = self.peers(1, ours=True)
        self.is_tracking = False
        outreach.tick(0)
        outreach.tick(OUT_OF_SYNC_SECONDS + TICK)
        self.assertEqual((self.dropped(callers), self.dropped(preferred)), (0, 0))
        self.assertEqual((self.dropped(plain), self.chosen_from), (1, [plain]))

    def test_the_waiting_begins_anew_when_nobody_could_be_dropped(self) -> None:
        """As core does: whoever loses its preference has its minute."""
        outreach, links = self.full(preferred=True)
        outreach.tick(0)
        outreach.tick(OUT_OF_SYNC_SECONDS + 1)
        self.admission_.preferred_ids = frozenset()
        outreach.tick(OUT_OF_SYNC_SECONDS + 1 + TICK)
        self.assertEqual(self.dropped(links), 0)
        outreach.tick(2 * OUT_OF_SYNC_SECONDS + 2)
        self.assertEqual(self.dropped(links), 1)

    def test_a_preferred_peer_that_is_dialled_evicts_nobody(self) -> None:
        """Y31: not before it has arrived."""
        outreach = self.make()
        self.peers(1, ours=False)
        links = self.peers(8, ours=True)
        self.fill(preferred=3)
        outreach.tick(0)
        self.assertEqual(self.counts(), (3, 0, 0))
        for address in self.dialled:
            self.admission_.end_dial(address)
        self.assertEqual([link.dropped for link in links], 8 * [[]])
        self.assertEqual(self.admission_.authenticated_outbound, 8)
