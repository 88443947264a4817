"""What one node reports of a time slice: pages, links, round trips, consensus."""

from __future__ import annotations

import statistics
from typing import Any

from stellar_overlay.config import QuorumSet
from stellar_overlay.testing.memory import MemoryTransport
from stellar_overlay.wire.survey_body import PEERS_PER_PAGE, TopologyResponse
from tests.scenarios.surveys import (
    COLLECTING,
    START,
    STOP,
    Surveyor,
    SurveyTestCase,
)
from tests.scenarios.traffic import (
    Neighbour,
    a_tx_set,
    externalized,
    payment,
    validator,
)


class AnswerTests(SurveyTestCase):
    """What one node reports, against what was done to it."""

    def begin_asking(self, **settings: Any) -> None:
        """Start a node that a scripted surveyor has called."""
        host = self.host("surveyor", Surveyor)
        settings = {"surveyor_keys": [host.local_node.peer_id]} | settings
        self.node = self.add(**settings)
        self.surveyor = self.dial(host, Surveyor)

    def collect(self) -> None:
        """Begin a survey."""
        self.surveyor.collect(START)
        self.network.advance(0)
        self.assert_phases([self.node], COLLECTING)

    def answer(self, pages: tuple[int, int] = (0, 0), ledger: int = 0) -> TopologyResponse:
        """Stop collecting, if it is not stopped yet, and return what the node reports."""
        tracking = self.node.herder.tracking_ledger()
        if self.node.survey.phase is COLLECTING:
            self.surveyor.collect(STOP, tracking)
        self.surveyor.question(self.node, pages=pages, ledger=tracking + ledger)
        self.network.advance(self.network.memory.latency * 2)
        self.assert_linked(self.surveyor)
        return self.surveyor.answers()[self.node.local_node.peer_id]

    def test_pages(self) -> None:
        """25 of each direction from an index on, by node id; none beyond the end (case 51)."""
        self.begin_asking()
        peers = self.calls(28, Neighbour)
        hosts = [
            self.host(f"dialled {number}", Neighbour, is_listening=True) for number in range(3)
        ]
        for number in range(3):
            self.link("node", f"dialled {number}")
        inbound = sorted(peer.peer_id.key for peer in (*peers, self.surveyor))
        outbound = sorted(host.local_node.peer_id.key for host in hosts)
        self.collect()
        for ledger, (start, further) in enumerate(((0, 0), (25, 2), (29, 3), (3, 2**32 - 1))):
            answer = self.answer((start, further), ledger)
            end = start + PEERS_PER_PAGE
            self.assertEqual([peer.node for peer in answer.inbound], inbound[start:end])
            self.assertEqual([peer.node for peer in answer.outbound], outbound[further:])
            node = answer.node
            self.assertEqual((node.total_inbound_peers, node.total_outbound_peers), (29, 3))

    def test_what_links_carried(self) -> None:
        """Between START and STOP, as counted at the other end of each link."""
        self.begin_asking()
        one, other = self.calls(2, Neighbour)
        statements = [externalized(1, by=number) for number in range(3)]
        tx_set = a_tx_set(1, 2)
        self.network.advance(3)
        ends = {peer.peer_id.key: peer for peer in (one, other)}
        before = {key: carried(peer) for key, peer in ends.items()}
        self.collect()
        one.flood(statements[0], statements[1], statements[0])
        self.network.advance(0)
        other.flood(statements[0], statements[2])
        one.offer(payment(1))
        for peer in (one, other, one):
            peer.send(tx_set)
            self.network.advance(1)
        self.network.advance(18)
        after = {key: carried(peer) for key, peer in ends.items()}
        answer = self.answer()

        said = {peer.node: peer for peer in answer.inbound}
        self.assertEqual(set(said), {*ends, self.surveyor.peer_id.key})
        for key in ends:
            counters = said[key].counters
            expected = [now - then for now, then in zip(after[key], before[key], strict=True)]
            self.assertEqual(list(counters[:4]), expected)
        size = statements[0].size
        advert = 4 + 4 + 32
        first, second = said[one.peer_id.key], said[other.peer_id.key]
        self.assertEqual(
            first.counters[4:],
            # two statements, an advert, the transaction; a statement again; the set; the set again
            (2 * size + advert + payment(1).size, size, tx_set.size, tx_set.size, 4, 1, 1, 1),
        )
        self.assertEqual(second.counters[4:], (size, size, 0, tx_set.size, 1, 1, 0, 1))
        third = said[self.surveyor.peer_id.key]
        self.assertEqual(third.counters[4:], (116, 0, 0, 0, 1, 0, 0, 0))  # the STOP alone
        self.assertEqual({peer.seconds_connected for peer in answer.inbound}, {24})

    def test_who_comes_and_goes(self) -> None:
        """Only authenticated links count, and only those that were there all the time are told."""
        self.begin_asking()
        steady, leaving, returning = self.calls(3, Neighbour)
        self.collect()
        leaving.hang_up()
        returning.hang_up()
        self.network.advance(0)
        self.calls(2, Neighbour, name="late")
        rude = self.host("rude", Neighbour)
        rude.is_polite = False
        rude.dial(self.network.address("node"))  # it never says anything
        self.network.advance(10)
        node = self.answer().node
        self.assertEqual((node.added_authenticated_peers, node.dropped_authenticated_peers), (2, 2))
        self.assertEqual((node.total_inbound_peers, node.total_outbound_peers), (2, 0))
        reported = {peer.node for peer in self.answer(ledger=1).inbound}
        self.assertEqual(reported, {steady.peer_id.key, self.surveyor.peer_id.key})

    def test_round_trips(self) -> None:
        """The median of the pings since START; of the last five minutes before the last one."""
        self.network = self.again(latency=0.04)
        self.begin_asking()
        other = self.add("other")
        self.link("node", "other")
        peer = self.node.peer(other.local_node.peer_id)
        self.network.advance(12)
        self.collect_from_afar()
        seen: list[int] = []
        for latency, pings in ((0.04, 3), (0.1, 5), (0.03, 4)):
            self.set_latency(latency)
            for _ in range(pings):
                self.network.advance(5)
                assert peer.ping_ms is not None
                seen.append(peer.ping_ms)
        self.assertEqual(set(seen), {80, 200, 60})
        (reported,) = self.answer().outbound
        self.assertEqual(reported.average_latency_ms, int(statistics.median(seen)))

    def test_old_round_trips(self) -> None:
        """Those of six minutes ago do not matter any more."""
        self.network = self.again(latency=0.1)
        self.begin_asking()
        self.add("other")
        self.link("node", "other")
        self.collect_from_afar()
        self.network.advance(400)
        self.set_latency(0.02)
        self.network.advance(320)
        (reported,) = self.answer().outbound
        self.assertEqual(reported.average_latency_ms, 40)

    def collect_from_afar(self) -> None:
        """Begin a survey, over links that take time."""
        self.surveyor.collect(START)
        self.network.advance(self.network.memory.latency)
        self.assert_phases([self.node], COLLECTING)

    def set_latency(self, seconds: float) -> None:
        """Make all links as slow as that from now on."""
        for pair in self.network.memory.transports:
            for end in pair:
                end.latency = seconds

    def test_consensus(self) -> None:
        """How long after the first node we believe, and how long after us the others tell."""
        names = tuple(validator(number).peer_id.strkey for number in range(7))
        self.begin_asking(quorum_set=QuorumSet(4, names))
        speaker = self.call("speaker", Neighbour)
        milliseconds = (
            (0, 5, 12, 29, 31, 40, 1000),
            (0, 0, 0, 250, 250, 300),
            (0, 100, 100, 113),
            (0, 1, 2, 3, 7, 4000, 4001),
            (0, 40, 80, 700, 701, 702, 2703),
            (0, 60, 61),  # that is no quorum
        )
        self.say_externalized(speaker, 1, (0, 0, 0, 7, 9))  # before the survey
        self.collect()
        for slot, offsets in enumerate(milliseconds, 2):
            self.say_externalized(speaker, slot, offsets)
        agreed = [offsets for offsets in milliseconds if len(offsets) > 3]
        first_to_self = [offsets[3] for offsets in agreed]
        self_to_other = [at - offsets[3] for offsets in agreed for at in offsets[4:]]
        node = self.answer().node
        self.assertEqual(
            (node.p75_scp_first_to_self_latency_ms, node.p75_scp_self_to_other_latency_ms),
            (p75(first_to_self), p75(self_to_other)),
        )

    def say_externalized(self, speaker: Neighbour, slot: int, offsets: tuple[int, ...]) -> None:
        """Let one validator after the other externalize a slot, after so many milliseconds."""
        now = 0
        for by, at in enumerate(offsets):
            self.network.advance((at - now) / 1000)
            speaker.flood(externalized(slot, by=by))
            self.network.advance(0)
            now = at
        self.network.advance(1)

    def test_losing_consensus(self) -> None:
        """As often as it was lost since START; once more if it was not there at START."""
        for is_lost_at_first, losses in ((True, 1), (False, 0), (False, 2)):
            self.network = self.again()
            self.begin_asking()
            speaker = self.call("speaker", Neighbour)
            if not is_lost_at_first:
                speaker.flood(externalized(1))
                self.network.advance(0)
            self.surveyor.collect(START)
            self.network.advance(1)
            for slot in range(2, 2 + losses - is_lost_at_first):
                self.network.advance(36)
                speaker.flood(externalized(slot))
                self.network.advance(0)
            if losses == 2:
                self.network.advance(36)
            expected = losses + (losses == 2)
            self.assertEqual(self.answer().node.lost_sync_count, expected if losses else 0)


def p75(samples: list[int]) -> int:
    """Return the 75th percentile as medida has it, cut to a whole number."""
    return int(statistics.quantiles(samples, n=4, method="inclusive")[2])


def carried(peer: Neighbour) -> tuple[int, int, int, int]:
    """Return what the node has read from and written to a peer, as the peer counts it.

    Messages read and written, then bytes. HELLO has no number.
    """
    assert peer.auth.sealing is not None
    assert peer.auth.opening is not None
    near = peer.transport
    assert isinstance(near, MemoryTransport)
    return (
        1 + peer.auth.sealing.sequence,
        1 + peer.auth.opening.sequence,
        len(near.written),
        len(near.other.written),
    )
