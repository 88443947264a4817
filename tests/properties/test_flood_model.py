"""The flood gate against a model: plain sets of names, and a list in the order of arrival."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip import flood
from stellar_overlay.gossip.flood import LEDGERS_REMEMBERED, PARTS, FloodGate
from stellar_overlay.identity import PeerId

TTL = 64.0
MAX_RECORDS = 40
MAX_BYTES = 900

PEERS = [PeerId(bytes([number]) * 32) for number in range(1, 13)]
BODIES = [bytes([number]) * (12 + 31 * number % 24) for number in range(120)]
peers = st.sampled_from(PEERS)
bodies = st.sampled_from(BODIES)
batches = st.builds(
    lambda first, count: BODIES[first : first + count], st.integers(0, 110), st.integers(1, 30)
)


@dataclass
class Known:
    """One message: since when it is known, and all who know it."""

    ledger_seq: int
    since: float
    told: set[PeerId] = field(default_factory=set)


@dataclass
class Link:
    """A connected peer."""

    peer_id: PeerId
    flood_bit: int


class FloodMachine(RuleBasedStateMachine):
    """Peers come, go and talk; ledgers close; time passes, and sometimes goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = FloodGate(ttl_secs=TTL, max_records=MAX_RECORDS, max_bytes=MAX_BYTES)
        self.known: dict[bytes, Known] = {}
        self.links: dict[PeerId, Link] = {}
        self.away = set(PEERS)  # at the time when somebody last left
        self.now = 100.0
        self.evicted = 0

    # What is expected of the gate.

    def is_recent(self, known: Known) -> bool:
        """Whether its ledger keeps it at any age."""
        seq = self.gate.ledger_seq
        return known.ledger_seq > 0 and 0 <= seq - known.ledger_seq < LEDGERS_REMEMBERED

    def let_expire(self, *, must: bool) -> None:
        """Let go what the gate has let go, if that was old enough (or left, if too old)."""
        for body, known in list(self.known.items()):
            age = self.now - known.since
            if body not in self.gate.records:
                assert age >= TTL
                assert not self.is_recent(known)
                del self.known[body]
            elif must and age >= TTL + TTL / PARTS:
                assert self.is_recent(known)

    def let_evict(self, size: int) -> None:
        """Let go the oldest, as many as the gate says: enough, and few more than that."""
        count = self.gate.stats.evictions_total - self.evicted
        self.evicted += count
        needed, sizes = 0, [len(body) for body in self.known]
        while needed < len(sizes) and (
            len(sizes) - needed >= MAX_RECORDS or sum(sizes[needed:]) + size > MAX_BYTES
        ):
            needed += 1
        assert needed <= count < needed + ceil(MAX_RECORDS / PARTS)
        for body in list(self.known)[:count]:
            del self.known[body]

    def make_known(self, body: bytes) -> Known:
        """Add a message to the model, after the gate took it in."""
        if body not in self.known:
            self.let_evict(len(body))
            self.let_expire(must=False)
            self.known[body] = Known(self.gate.ledger_seq, self.now)
        return self.known[body]

    # What happens.

    @rule(coming=st.sets(peers), going=st.sets(peers))
    def come_and_go(self, coming: set[PeerId], going: set[PeerId]) -> None:
        """For the first time or again; those who go may not have been there."""
        for peer_id in sorted(going):
            self.links.pop(peer_id, None)
            self.gate.release(peer_id)
        self.away = set(PEERS) - self.links.keys()
        for peer_id in sorted(coming - going):
            self.links[peer_id] = Link(peer_id, self.gate.bit_of(peer_id))

    @rule(peer_id=peers, batch=batches)
    def receive(self, peer_id: PeerId, batch: list[bytes]) -> None:
        """As a node does: it looks into the index, and adds what is not there."""
        link = self.links.get(peer_id)
        for body in batch if link is not None else ():
            assert link is not None
            record = self.gate.records.get(body)
            assert (record is not None) == (body in self.known)
            if record is None:
                self.gate.add_record(bytes(bytearray(body)), link.flood_bit, self.now)
            else:
                record.told |= link.flood_bit
            self.make_known(body).told.add(peer_id)

    @rule(body=bodies)
    def make(self, body: bytes) -> None:
        """Something of our own."""
        assert self.gate.record_seen(body, now=self.now) == (body not in self.known)
        self.make_known(body)

    @rule(body=bodies)
    def broadcast(self, body: bytes) -> None:
        """Whoever is there and was not told is told."""
        told: list[PeerId] = []
        count = self.gate.broadcast(
            body, self.links.values(), lambda link: told.append(link.peer_id), self.now
        )
        known = self.make_known(body)
        assert count == len(told)
        assert set(told) == self.untold(known)
        known.told.update(told)

    def untold(self, known: Known) -> set[PeerId]:
        """Return the connected peers that do not know a message."""
        return self.links.keys() - known.told

    @rule(body=bodies)
    def forget(self, body: bytes) -> None:
        """Whether it was known or not."""
        self.gate.forget(body)
        self.known.pop(body, None)

    @rule(seconds=st.sampled_from((0.1, 1.0, TTL / PARTS, 30.0, TTL - 1, TTL)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(seconds=st.sampled_from((0.1, 1.0, 10.0)))
    def set_back(self, seconds: float) -> None:
        """As no clock should."""
        self.now -= seconds

    @rule(ledgers=st.integers(1, 15))
    def close_ledgers(self, ledgers: int) -> None:
        """Consensus moves on."""
        self.gate.ledger_seq += ledgers

    @rule(ledger_seq=st.integers(0, 20))
    def begin_anew(self, ledger_seq: int) -> None:
        """Consensus is lost, or found elsewhere."""
        self.gate.ledger_seq = ledger_seq

    @rule()
    def expire(self) -> None:
        """The owner's timer."""
        self.gate.expire(self.now)
        self.let_expire(must=True)

    @rule(back=st.integers(-1, 20))
    def clear_below(self, back: int) -> None:
        """By hand."""
        lowest = self.gate.ledger_seq - back
        self.gate.clear_below(lowest)
        self.known = {b: known for b, known in self.known.items() if known.ledger_seq >= lowest}

    # What always holds.

    @invariant()
    def books_agree(self) -> None:
        """The same messages in the same order, within the limits, and nothing beside them."""
        gate = self.gate
        assert list(gate.records) == list(self.known)
        assert len(gate.records) <= MAX_RECORDS
        assert gate.stats.bytes == sum(map(len, self.known)) <= MAX_BYTES
        assert gate.stats.seen_count == len(self.known)
        held = [body for generation in gate._generations for body in generation.bodies]
        assert sorted(held) == sorted(self.known)
        assert len(gate._generations) <= MAX_RECORDS

    @invariant()
    def told_agree(self) -> None:
        """Whoever was told counts as told, also after it went away, and nobody else does."""
        for body, known in self.known.items():
            assert set(self.gate.get_forward_peers(body, PEERS)) == set(PEERS) - known.told
            knowing = self.gate.get_peers_that_know(body)
            assert set(knowing) == known.told & self.links.keys()


class CrowdedMachine(FloodMachine):
    """So many peers leave that the gate will not remember all of them."""

    @invariant()
    def told_agree(self) -> None:
        """Who has left may be forgotten; who stays is not, and nobody is taken for another."""
        for body, known in self.known.items():
            told = set(PEERS) - set(self.gate.get_forward_peers(body, PEERS))
            assert told <= known.told
            assert known.told - told <= self.away
            known.told = told
            assert set(self.gate.get_peers_that_know(body)) == told & self.links.keys()
        self.away = set(PEERS) - self.links.keys()


SETTINGS = settings(derandomize=True, max_examples=80, stateful_step_count=60, deadline=None)


class ModelTests(SynchronousTestCase):
    def test_agrees_with_plain_sets(self) -> None:
        """What is known, who knows it, and what had to go."""
        run_state_machine_as_test(FloodMachine, settings=SETTINGS)

    def test_agrees_when_bits_are_short(self) -> None:
        """A bit that is used again never makes its new owner look told."""
        self.patch(flood, "MAX_BITS_OF_THE_GONE", 2)
        run_state_machine_as_test(CrowdedMachine, settings=SETTINGS)
