"""What a survey collects and reports: messages.md 5.1 and 5.6, cases 44-47, 50 and 51, S7, S8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, nan

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import PeerViolation
from stellar_overlay.gossip.survey_data import (
    COLLECTING_SECONDS,
    REPORTING_SECONDS,
    NodeFacts,
    SurveyDataManager,
    SurveyPhase,
)
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import ScpLatency
from stellar_overlay.wire.survey_body import (
    PEERS_PER_PAGE,
    PeerCounters,
    SurveyRequest,
    TimeSlicedNodeData,
    TimeSlicedPeerData,
    TopologyResponse,
    decode_topology,
    encode_topology,
)

NONCE = 1234
SURVEYOR = b"\xaa" * 32
OTHER_SURVEYOR = b"\xbb" * 32
FACTS = NodeFacts(is_validator=True, max_inbound_peers=64, max_outbound_peers=8)


class FakePeer:
    """A link whose counters and round trips are what the test says.

    :ivar watches: how often somebody began to watch it.
    """

    def __init__(self, number: int, *, is_inbound: bool = True, linked_at: float = 0.0) -> None:
        self.peer_id = PeerId(number.to_bytes(32, "big"))
        self.is_inbound = is_inbound
        self.version_string = b"v%d" % number
        self.linked_at = linked_at
        self.flood_bit = 1 << number
        self.carried = PeerCounters(*range(number, number + 12))
        self.callback: Callable[[int], None] | None = None
        self.watches = 0

    def counters(self) -> PeerCounters:
        return self.carried

    def carry(self, *amounts: int) -> None:
        """Count what the link carries, in the order of the counters."""
        pairs = zip(self.carried, amounts, strict=True)
        self.carried = PeerCounters._make(before + amount for before, amount in pairs)

    def watch_latency(self, callback: Callable[[int], None] | None) -> None:
        self.callback = callback
        self.watches += callback is not None

    def pong(self, milliseconds: int) -> None:
        """Measure a round trip."""
        if self.callback is not None:
            self.callback(milliseconds)

    def drop(self, violation: PeerViolation) -> None:
        raise AssertionError("a survey's data drops nobody")


def request(
    *, nonce: int = NONCE, surveyor: bytes = SURVEYOR, inbound: int = 0, outbound: int = 0
) -> SurveyRequest:
    """Return a request for a page."""
    return SurveyRequest(
        surveyor=surveyor,
        surveyed=bytes(32),
        ledger_num=1,
        encryption_key=bytes(32),
        command_type=1,
        nonce=nonce,
        inbound_index=inbound,
        outbound_index=outbound,
        signature=b"",
        signed=b"",
    )


def numbers(peers: Sequence[TimeSlicedPeerData]) -> list[int]:
    """Return which peers those are."""
    return [int.from_bytes(peer.node, "big") for peer in peers]


class SurveyDataTestCase(SynchronousTestCase):
    """A node, its links, and a clock that shows some time already."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.peers: list[FakePeer] = []
        self.lost_sync_count = 5
        self.data = SurveyDataManager(FACTS, self.clock)

    def link(self, number: int, *, is_inbound: bool = True) -> FakePeer:
        """Authenticate a peer, as the node tells it."""
        peer = FakePeer(number, is_inbound=is_inbound, linked_at=self.clock.seconds())
        self.peers.append(peer)
        self.data.record_added_peer(peer)
        return peer

    def unlink(self, peer: FakePeer) -> None:
        """End a link, likewise."""
        self.peers.remove(peer)
        self.data.record_dropped_peer(peer)

    def start(
        self, nonce: int = NONCE, surveyor: bytes = SURVEYOR, *, is_out_of_sync: bool = False
    ) -> bool:
        return self.data.start_collecting(
            nonce,
            surveyor,
            self.peers,
            lost_sync_count=self.lost_sync_count,
            is_out_of_sync=is_out_of_sync,
        )

    def stop(self, nonce: int = NONCE, surveyor: bytes = SURVEYOR) -> bool:
        return self.data.stop_collecting(
            nonce, surveyor, self.peers, lost_sync_count=self.lost_sync_count
        )

    def update(self) -> bool:
        return self.data.update_phase(self.peers, lost_sync_count=self.lost_sync_count)

    def report(self) -> TopologyResponse:
        """Stop collecting, and return what came out."""
        self.assertTrue(self.stop())
        final = self.data.final()
        assert final is not None
        return final

    def assert_wiped(self) -> None:
        """Nothing is left, and nobody is watched."""
        self.assertIs(self.data.phase, SurveyPhase.INACTIVE)
        self.assertEqual([self.data.nonce, self.data.surveyor, self.data.ends_at], [None] * 3)
        self.assertIsNone(self.data.final())
        self.assertIsNone(self.data.page(request()))
        self.assertFalse(self.data.nonce_is_reporting(NONCE))
        self.assertEqual([peer.callback for peer in self.peers], [None] * len(self.peers))


class PhaseTests(SurveyDataTestCase):
    """What is done when, and what ends it."""

    def test_at_first(self) -> None:
        """There is no survey, and time does not make one."""
        self.clock.advance(1e6)
        self.assertFalse(self.update())
        self.assert_wiped()

    def test_a_whole_survey(self) -> None:
        """S7: START, STOP, and three hours later it is over."""
        self.link(1)
        self.assertTrue(self.start())
        self.assertIs(self.data.phase, SurveyPhase.COLLECTING)
        self.assertEqual((self.data.nonce, self.data.surveyor), (NONCE, SURVEYOR))
        self.assertEqual(self.data.ends_at, 1000 + COLLECTING_SECONDS)
        self.clock.advance(300)
        self.assertTrue(self.stop())
        self.assertIs(self.data.phase, SurveyPhase.REPORTING)
        self.assertEqual((self.data.nonce, self.data.surveyor), (NONCE, SURVEYOR))
        self.assertEqual(self.data.ends_at, 1300 + REPORTING_SECONDS)
        self.clock.advance(REPORTING_SECONDS)
        self.assertFalse(self.update())
        self.assertIsNotNone(self.data.page(request()))
        self.clock.advance(0.5)
        self.assertTrue(self.update())
        self.assert_wiped()

    def test_stop_never_comes(self) -> None:
        """Case 46: more than 30 minutes, and it reports by itself; more than 3 hours, and it ends.

        Reporting lasts its full time from when collecting ended, not from when it should have.
        """
        self.link(1)
        self.start()
        self.clock.advance(COLLECTING_SECONDS)
        self.assertFalse(self.update())
        self.clock.advance(100_000)
        self.assertTrue(self.update())
        self.assertIs(self.data.phase, SurveyPhase.REPORTING)
        final = self.data.final()
        assert final is not None
        self.assertEqual(len(final.inbound), 1)
        self.clock.advance(REPORTING_SECONDS)
        self.assertFalse(self.update())
        self.clock.advance(0.001)
        self.assertTrue(self.update())
        self.assert_wiped()

    def test_one_survey_at_a_time(self) -> None:
        """Case 44: a START during a survey, the same or another, changes nothing."""
        self.start()
        self.clock.advance(10)
        for _ in range(2):
            before = self.data.ends_at
            self.assertFalse(self.start())
            self.assertFalse(self.start(nonce=9, surveyor=OTHER_SURVEYOR))
            self.assertEqual((self.data.nonce, self.data.surveyor), (NONCE, SURVEYOR))
            self.assertEqual(self.data.ends_at, before)
            self.stop()
        self.assertIs(self.data.phase, SurveyPhase.REPORTING)

    def test_stop_of_another_survey(self) -> None:
        """Case 45: of another number or surveyor, or not while collecting: no effect."""
        self.assertFalse(self.stop())
        self.start()
        self.assertFalse(self.stop(nonce=NONCE + 1))
        self.assertFalse(self.stop(surveyor=OTHER_SURVEYOR))
        self.assertIs(self.data.phase, SurveyPhase.COLLECTING)
        self.assertTrue(self.stop())
        self.clock.advance(1)
        ends_at, final = self.data.ends_at, self.data.final()
        self.assertFalse(self.stop())
        self.assertEqual((self.data.ends_at, self.data.final()), (ends_at, final))

    def test_the_next_survey(self) -> None:
        """It begins with nothing of the last one."""
        peer = self.link(1)
        self.start()
        peer.pong(500)
        peer.carry(*[9] * 12)
        self.link(2)
        self.report()
        self.data.reset()
        self.assert_wiped()
        self.assertTrue(self.start(nonce=0, surveyor=OTHER_SURVEYOR))
        self.assertTrue(self.stop(nonce=0, surveyor=OTHER_SURVEYOR))
        final = self.data.final()
        assert final is not None
        self.assertEqual(final.node.added_authenticated_peers, 0)
        self.assertEqual([peer.average_latency_ms for peer in final.inbound], [0, 0])
        self.assertEqual(final.inbound[0].counters, PeerCounters(*[0] * 12))

    def test_short_phases(self) -> None:
        """A test's node may have phases of a minute."""
        facts = replace(FACTS, collecting_seconds=60, reporting_seconds=120)
        self.data = SurveyDataManager(facts, self.clock)
        self.start()
        self.clock.advance(60.5)
        self.assertTrue(self.update())
        self.assertIs(self.data.phase, SurveyPhase.REPORTING)
        self.clock.advance(120.5)
        self.assertTrue(self.update())
        self.assert_wiped()

    def test_nonce(self) -> None:
        """Case 47: only the number of a survey that is reported on is good for a request."""
        self.assertFalse(self.data.nonce_is_reporting(NONCE))
        self.start()
        self.assertFalse(self.data.nonce_is_reporting(NONCE))
        self.stop()
        self.assertTrue(self.data.nonce_is_reporting(NONCE))
        self.assertFalse(self.data.nonce_is_reporting(NONCE + 1))

    def test_peers_are_watched_while_collecting_only(self) -> None:
        """From START on, once; until the end of it, however it ends."""
        peer = self.link(1)

        def expire() -> None:
            self.clock.advance(COLLECTING_SECONDS + 1)
            self.assertTrue(self.update())

        endings: list[Callable[[], object]] = [
            self.stop,
            expire,
            self.data.reset,
            lambda: self.unlink(peer),
        ]
        for end in endings:
            self.assertIsNone(peer.callback)
            self.start()
            self.assertIsNotNone(peer.callback)
            late = self.link(2)
            self.assertIsNone(late.callback)
            end()
            self.assertIsNone(peer.callback)
            self.unlink(late)
            self.data.reset()
        self.assertEqual(peer.watches, 4)

    def test_counts_of_peers(self) -> None:
        """How many are collected about, and reported on, each way."""

        def counts() -> list[int]:
            return [
                self.data.collecting_inbound_peers,
                self.data.collecting_outbound_peers,
                len(final.inbound) if (final := self.data.final()) else 0,
                len(final.outbound) if final else 0,
            ]

        first = self.link(1)
        for number in (2, 3):
            self.link(number, is_inbound=False)
        self.assertEqual(counts(), [0, 0, 0, 0])
        self.start()
        self.assertEqual(counts(), [1, 2, 0, 0])
        self.unlink(first)
        self.assertEqual(counts(), [0, 2, 0, 0])
        self.stop()
        self.assertEqual(counts(), [0, 0, 0, 2])


class PeerDataTests(SurveyDataTestCase):
    """What is told of a peer."""

    def test_differences(self) -> None:
        """Each counter tells what the slice added to it, whatever it was before."""
        peer = self.link(7, is_inbound=False)
        peer.carry(*[10**12] * 12)
        self.clock.advance(100)
        self.start()
        peer.carry(*range(1, 13))
        self.clock.advance(200.9)
        final = self.report()
        self.assertEqual(final.inbound, ())
        expected = TimeSlicedPeerData(
            node=peer.peer_id.key,
            version_string=b"v7",
            counters=PeerCounters(*range(1, 13)),
            seconds_connected=300,
            average_latency_ms=0,
        )
        self.assertEqual(final.outbound, (expected,))

    def test_what_comes_later_is_not_told(self) -> None:
        """What a link carries once collecting has ended is not in the report."""
        peer = self.link(1)
        self.start()
        peer.carry(*[1] * 12)
        final = self.report()
        peer.carry(*[1] * 12)
        peer.pong(99)
        self.clock.advance(50)
        self.assertIs(self.data.final(), final)
        self.assertEqual(final.inbound[0].counters, PeerCounters(*[1] * 12))

    def test_a_counter_that_goes_back(self) -> None:
        """None does on one link; if one did, nobody would be told a negative number."""
        peer = self.link(1)
        self.start()
        peer.carry(-1, *[3] * 11)
        self.assertEqual(self.report().inbound[0].counters, PeerCounters(0, *[3] * 11))

    def test_seconds_connected(self) -> None:
        """Whole seconds since the TCP connection, however floats fall; never below 0."""
        for linked_at, seconds in [(998.999, 1), (999.001, 0), (700.0, 300), (2000.0, 0)]:
            peer = self.link(1)
            peer.linked_at = linked_at
            self.start()
            self.assertEqual(self.report().inbound[0].seconds_connected, seconds)
            self.data.reset()
            self.unlink(peer)
        peer = self.link(1)
        peer.linked_at = 0.3
        self.clock.rightNow = 2.3  # 1.9999999999999998 later
        self.start()
        self.assertEqual(self.report().inbound[0].seconds_connected, 2)

    def test_latency_is_a_median(self) -> None:
        """Of the round trips since START; of an even number the middle, cut to whole ms."""
        peer = self.link(1)
        peer.pong(9999)
        self.start()
        for milliseconds in (40, 10, 5000, 21):
            peer.pong(milliseconds)
        self.assertEqual(self.report().inbound[0].average_latency_ms, 30)

    def test_latency_of_the_last_five_minutes(self) -> None:
        """Before the newest round trip, not before the end of collecting."""
        peer = self.link(1)
        self.start()
        peer.pong(1000)
        self.clock.advance(10)
        peer.pong(20)
        self.clock.advance(300)
        peer.pong(40)
        self.clock.advance(1000)
        self.assertEqual(self.report().inbound[0].average_latency_ms, 30)

    def test_who_came_late(self) -> None:
        """S8: whoever was not there at START is not listed, but counted."""
        self.link(1)
        self.start()
        self.link(2)
        final = self.report()
        self.assertEqual(numbers(final.inbound), [1])
        self.assertEqual(final.node.added_authenticated_peers, 1)

    def test_who_left(self) -> None:
        """S8: who did not stay is not listed, but counted; returning is of no use."""
        gone, back = self.link(1), self.link(2)
        self.link(3)
        self.start()
        self.unlink(gone)
        self.unlink(back)
        again = self.link(2)
        again.pong(1)
        final = self.report()
        self.assertEqual(numbers(final.inbound), [3])
        self.assertEqual(final.node.added_authenticated_peers, 1)
        self.assertEqual(final.node.dropped_authenticated_peers, 2)
        self.assertEqual(final.node.total_inbound_peers, 1)

    def test_another_link_to_the_same_node(self) -> None:
        """A new link is not taken for the old one, even if nobody said that that had ended."""
        old = self.link(1)
        self.start()
        self.peers[:] = [FakePeer(1)]
        final = self.report()
        self.assertEqual((final.inbound, final.outbound), ((), ()))
        self.assertIsNone(old.callback)

    def test_the_end_of_another_link_to_the_same_node(self) -> None:
        """A link that came late and went again takes nothing away from the one that stayed."""
        self.link(1)
        self.start()
        twin = FakePeer(1)
        self.data.record_dropped_peer(twin)
        final = self.report()
        self.assertEqual(numbers(final.inbound), [1])
        self.assertEqual(final.node.dropped_authenticated_peers, 1)

    def test_order(self) -> None:
        """Both lists are in the order of the nodes' keys, whoever came first."""
        for number in (300, 5, 77, 256, 6, 1):
            self.link(number, is_inbound=bool(number % 2))
        self.start()
        self.peers.reverse()
        final = self.report()
        self.assertEqual(numbers(final.inbound), [1, 5, 77])
        self.assertEqual(numbers(final.outbound), [6, 256, 300])


class NodeDataTests(SurveyDataTestCase):
    """What a node tells of itself."""

    def test_all(self) -> None:
        """Every field has its source."""
        stays, goes = self.link(1), self.link(2, is_inbound=False)
        self.link(3, is_inbound=False)
        self.start(is_out_of_sync=True)
        self.unlink(goes)
        for number in (4, 5, 6):
            self.link(number)
        self.data.record_scp_latency(ScpLatency.FIRST_TO_SELF, 0.25)
        self.data.record_scp_latency(ScpLatency.SELF_TO_OTHER, 1.5)
        self.lost_sync_count += 2
        expected = TimeSlicedNodeData(
            added_authenticated_peers=3,
            dropped_authenticated_peers=1,
            total_inbound_peers=1,
            total_outbound_peers=1,
            p75_scp_first_to_self_latency_ms=250,
            p75_scp_self_to_other_latency_ms=1500,
            lost_sync_count=3,
            is_validator=True,
            max_inbound_peers=64,
            max_outbound_peers=8,
        )
        self.assertEqual(self.report().node, expected)
        self.assertIsNone(stays.callback)

    def test_lost_sync(self) -> None:
        """The increase, and one more for a node that was out of sync at START."""
        for is_out_of_sync, increase, told in [
            (False, 0, 0),
            (True, 0, 1),
            (False, 3, 3),
            (True, 3, 4),
            (True, -2, 1),
        ]:
            self.start(is_out_of_sync=is_out_of_sync)
            self.lost_sync_count += increase
            self.assertEqual(self.report().node.lost_sync_count, told)
            self.data.reset()

    def test_changes_outside_collecting(self) -> None:
        """Before START and after STOP nothing is counted."""
        before = self.link(1)
        self.unlink(before)
        self.data.record_scp_latency(ScpLatency.FIRST_TO_SELF, 9.0)
        self.start()
        final = self.report()
        self.unlink(self.link(2))
        self.data.record_scp_latency(ScpLatency.SELF_TO_OTHER, 9.0)
        self.assertIs(self.data.final(), final)
        node = final.node
        self.assertEqual((node.added_authenticated_peers, node.dropped_authenticated_peers), (0, 0))
        self.assertEqual(node.p75_scp_first_to_self_latency_ms, 0)

    def test_scp_latencies(self) -> None:
        """Each kind apart: three quarters of the way through its samples of whole ms."""
        self.start()
        for seconds in (0.0109, 0.029, 0.0309, 0.0419):
            self.data.record_scp_latency(ScpLatency.FIRST_TO_SELF, seconds)
        self.data.record_scp_latency(ScpLatency.SELF_TO_OTHER, 1.001)  # 1000.9999999999999 ms
        node = self.report().node
        self.assertEqual(node.p75_scp_first_to_self_latency_ms, 32)  # 30 + (41 - 30) / 4
        self.assertEqual(node.p75_scp_self_to_other_latency_ms, 1001)

    def test_absurd_latencies(self) -> None:
        """What fits in no number of the wire is clamped to one."""
        for seconds, milliseconds in [(-3.0, 0), (1e12, 2**32 - 1), (inf, 2**32 - 1)]:
            self.start()
            self.data.record_scp_latency(ScpLatency.FIRST_TO_SELF, seconds)
            node = self.report().node
            self.assertEqual(node.p75_scp_first_to_self_latency_ms, milliseconds)
            self.data.reset()
        self.start()
        self.data.record_scp_latency(ScpLatency.FIRST_TO_SELF, nan)
        self.assertEqual(self.report().node.p75_scp_first_to_self_latency_ms, 2**32 - 1)


class PageTests(SurveyDataTestCase):
    """How a report is read."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(60):
            self.link(number)
        for number in range(100, 130):
            self.link(number, is_inbound=False)
        self.start()

    def page(self, inbound: int, outbound: int) -> TopologyResponse:
        page = self.data.page(request(inbound=inbound, outbound=outbound))
        assert page is not None
        return page

    def test_pages(self) -> None:
        """25 each way, from any index, both apart, always with the whole node."""
        node = self.report().node
        first = self.page(0, 0)
        self.assertEqual(numbers(first.inbound), list(range(25)))
        self.assertEqual(numbers(first.outbound), list(range(100, 125)))
        other = self.page(50, 1)
        self.assertEqual(numbers(other.inbound), list(range(50, 60)))
        self.assertEqual(numbers(other.outbound), list(range(101, 126)))
        self.assertEqual([first.node, other.node], [node, node])
        self.assertEqual((node.total_inbound_peers, node.total_outbound_peers), (60, 30))

    def test_beyond_the_end(self) -> None:
        """Case 51: no peers, but the whole node; one way does not hinder the other."""
        node = self.report().node
        for index in (60, 61, 2**32 - 1):
            page = self.page(index, index)
            self.assertEqual(page, TopologyResponse(inbound=(), outbound=(), node=node))
        page = self.page(2**32 - 1, 29)
        self.assertEqual((numbers(page.inbound), numbers(page.outbound)), ([], [129]))

    def test_all_pages_are_the_report(self) -> None:
        """Read page by page nobody is missed or told twice, and each page fits on the wire."""
        final = self.report()
        inbound: list[TimeSlicedPeerData] = []
        outbound: list[TimeSlicedPeerData] = []
        for index in range(0, 75, PEERS_PER_PAGE):
            page = self.page(index, index)
            self.assertEqual(decode_topology(encode_topology(page)), page)
            inbound += page.inbound
            outbound += page.outbound
        self.assertEqual((tuple(inbound), tuple(outbound)), (final.inbound, final.outbound))

    def test_for_whom(self) -> None:
        """Cases 47 and 50: in REPORTING, and only for who began that survey."""
        self.assertIsNone(self.data.page(request()))
        self.assertIsNone(self.data.final())
        self.stop()
        self.assertIsNotNone(self.data.page(request()))
        self.assertIsNone(self.data.page(request(nonce=NONCE + 1)))
        self.assertIsNone(self.data.page(request(surveyor=OTHER_SURVEYOR)))


@dataclass
class Expected:
    """What the report must say of a link."""

    peer: FakePeer
    counters: list[int]
    round_trips: list[int]


class ModelTests(SurveyDataTestCase):
    """Any comings and goings, against sums made beside."""

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(
        st.sets(st.integers(1, 8)),
        st.lists(
            st.tuples(
                st.sampled_from(["link", "unlink", "carry", "pong", "wait", "start"]),
                st.integers(1, 8),
                st.integers(0, 1000),
            ),
            max_size=60,
        ),
    )
    def test_any_slice(self, present: set[int], steps: list[tuple[str, int, int]]) -> None:
        """The numbers add up to what the links have carried, and the nodes that came and went."""
        self.setUp()
        links = {number: self.link(number, is_inbound=number < 5) for number in present}
        self.start()
        expected = {number: Expected(peer, [0] * 12, []) for number, peer in links.items()}
        added = dropped = 0
        for what, number, amount in steps:
            peer = links.get(number)
            if what == "link" and peer is None:
                links[number] = self.link(number, is_inbound=number < 5)
                added += 1
            elif what == "wait":
                self.clock.advance(amount / 1000)
            elif what == "start":
                self.assertFalse(self.start(nonce=amount))
            elif peer is None:
                pass
            elif what == "unlink":
                self.unlink(links.pop(number))
                dropped += 1
                expected.pop(number, None)
            elif what == "carry":
                peer.carry(*range(amount, amount + 12))
                if number in expected:
                    sums = zip(expected[number].counters, range(amount, amount + 12), strict=True)
                    expected[number].counters = [before + more for before, more in sums]
            elif what == "pong":
                peer.pong(amount)
                if number in expected:
                    expected[number].round_trips.append(amount)
        final = self.report()
        told = final.inbound + final.outbound
        self.assertEqual(numbers(told), sorted(expected))
        for peer_data in told:
            one = expected[numbers([peer_data])[0]]
            self.assertEqual(list(peer_data.counters), one.counters)
            ordered = sorted(one.round_trips) or [0]
            middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
            self.assertEqual(peer_data.average_latency_ms, middle)
            seconds = round(self.clock.seconds() - one.peer.linked_at, 6)
            self.assertEqual(peer_data.seconds_connected, int(seconds))
        node = final.node
        self.assertEqual(
            (node.added_authenticated_peers, node.dropped_authenticated_peers), (added, dropped)
        )
        self.assertEqual(
            (node.total_inbound_peers, node.total_outbound_peers),
            (len(final.inbound), len(final.outbound)),
        )
        self.assertEqual({peer.callback for peer in self.peers}, {None} if self.peers else set())
