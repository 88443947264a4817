"""The fetcher against a model: who waits as plain lists, whatever peers do meanwhile."""

from __future__ import annotations

import random
from collections.abc import Collection

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.item_fetcher import ItemFetcher, ItemType
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Link
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, decode_hash_query
from tests.builders import quorum_set
from tests.gossip.test_tracker import FakePeer

MAX_TRACKERS, MAX_WAITERS, MAX_BYTES, PER_MINUTE = 3, 3, 220, 6
PER_SIGNER, OF_SINGLE_SIGNERS = 1, 3
ITEM = quorum_set()

hashes = st.integers(1, 5).map(lambda number: bytes([number]) * 32)
slots = st.one_of(st.none(), st.integers(1, 6))
peers = st.integers(1, 4)


def envelope_of(slot: int, number: int) -> bytes:
    """Return what a node, of three, says of a slot; the greater the number, the longer it is."""
    return slot.to_bytes(8, "big") + bytes([number]) * 32 + bytes(12 + 8 * number)


class Peer(FakePeer):
    """Tells the machine what it is asked."""

    def __init__(self, number: int, machine: FetcherMachine) -> None:
        super().__init__(number)
        self.machine = machine

    def send(self, message: Message) -> bool:
        if self.is_open:
            self.machine.note_question(self, decode_hash_query(message.body))
        return self.is_open


class FetcherMachine(RuleBasedStateMachine):
    """``waiting`` is the model: for each item those who wait, the oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.links: dict[PeerId, Link] = {}
        self.known: dict[bytes, set[PeerId]] = {}
        self.metrics = OverlayMetrics()
        self.waiting: dict[bytes, list[Waiter]] = {}
        self.waiters: dict[tuple[int | None, int], Waiter] = {}
        self.delivered: list[Waiter] = []
        self.questions: list[tuple[float, PeerId, bytes]] = []
        self.signers: list[tuple[float, PeerId, bytes]] = []
        self.may_hurry = False
        self.refused = 0
        self.fetcher = ItemFetcher(
            ItemType.TX_SET,
            links=self.links,
            knows=self.knows,
            clock=self.clock,
            random=random.Random(3),
            metrics=self.metrics,
            max_trackers=MAX_TRACKERS,
            max_waiters=MAX_WAITERS,
            max_waiting_bytes=MAX_BYTES,
            questions_per_minute=PER_MINUTE,
        )

    def knows(self, envelope: bytes) -> Collection[PeerId]:
        return self.known.get(envelope, ())

    def note_question(self, peer: Peer, item_hash: bytes) -> None:
        """Assert that it may be put now, to this one."""
        now = self.clock.seconds()
        assert self.waiting.get(item_hash)
        assert self.links.get(peer.peer_id) is peer
        before = [when for when, peer_id, _ in self.questions if peer_id == peer.peer_id]
        assert sum(now - when < 60 for when in before) < PER_MINUTE
        self.note_signer(peer, item_hash)
        same = [when for when, _, asked in self.questions if asked == item_hash]
        assert self.may_hurry or not same or now - same[-1] >= 1.5
        self.questions.append((now, peer.peer_id, item_hash))

    def note_signer(self, peer: Peer, item_hash: bytes) -> None:
        """Assert that what one signer alone names is within its share, and that of all such."""
        envelopes = [waiter.envelope for waiter in self.waiting[item_hash]]
        signers = {envelope if envelope is None else envelope[8:40] for envelope in envelopes}
        signer = signers.pop()
        if signers or signer is None:
            return
        now = self.clock.seconds()
        recent = [one for at, who, one in self.signers if who == peer.peer_id and now - at < 60]
        assert len(recent) < OF_SINGLE_SIGNERS
        assert recent.count(signer) < PER_SIGNER
        self.signers.append((now, peer.peer_id, signer))

    def waiter(self, slot: int | None, number: int) -> Waiter:
        """Return the same one for the same slot and number."""
        key = slot, number
        if key not in self.waiters:
            envelope = None if slot is None else envelope_of(slot, number)
            waiter = Waiter(
                slot=slot,
                envelope=envelope,
                deliver=lambda message: self.delivered.append(waiter),
            )
            self.waiters[key] = waiter
        return self.waiters[key]

    @rule(item_hash=hashes, slot=slots, number=st.integers(0, 2))
    def fetch(self, item_hash: bytes, slot: int | None, number: int) -> None:
        """Whoever waits already, or finds room, waits; the first of an item makes it be asked."""
        waiter = self.waiter(slot, number)
        there = self.waiting.get(item_hash, [])
        total = sum(each.size for waiters in self.waiting.values() for each in waiters)
        has_room = len(there) < MAX_WAITERS if there else len(self.waiting) < MAX_TRACKERS
        has_room = has_room and total + waiter.size <= MAX_BYTES
        if waiter not in there and has_room:
            self.waiting.setdefault(item_hash, []).append(waiter)
        self.may_hurry = not there
        asked = len(self.questions)
        assert self.fetcher.fetch(item_hash, waiter) == (waiter in there or has_room)
        assert not there or len(self.questions) == asked
        self.refused += waiter not in there and not has_room

    @rule(item_hash=hashes, slot=slots, number=st.integers(0, 2))
    def stop(self, item_hash: bytes, slot: int | None, number: int) -> None:
        """One less waits."""
        waiter = self.waiter(slot, number)
        self.waiting[item_hash] = [
            each for each in self.waiting.get(item_hash, []) if each != waiter
        ]
        self.drop_empty()
        self.fetcher.stop_fetch(item_hash, waiter)

    @rule(item_hash=hashes)
    def recv(self, item_hash: bytes) -> None:
        """All who wait get it, the newest first."""
        self.delivered.clear()
        there = self.waiting.pop(item_hash, [])
        assert self.fetcher.recv(item_hash, ITEM) == (len(there) or None)
        assert self.delivered == there[::-1]

    @rule(item_hash=hashes, number=peers)
    def doesnt_have(self, item_hash: bytes, number: int) -> None:
        """Somebody denies; only of who was asked last does it matter."""
        peer_id = FakePeer(number).peer_id
        to = [who for _, who, asked in self.questions if asked == item_hash]
        self.may_hurry = bool(to) and to[-1] == peer_id
        self.fetcher.doesnt_have(item_hash, peer_id)

    @rule(
        min_slot=st.one_of(st.none(), st.integers(1, 7)),
        max_slot=st.one_of(st.none(), st.integers(0, 6)),
        keep=st.integers(0, 6),
    )
    def purge(self, min_slot: int | None, max_slot: int | None, keep: int) -> None:
        """The ledger goes on."""
        for item_hash, there in self.waiting.items():
            self.waiting[item_hash] = [
                each
                for each in there
                if each.slot in (None, keep)
                or ((min_slot or 0) <= each.slot <= (9 if max_slot is None else max_slot))
            ]
        self.drop_empty()
        self.fetcher.stop_fetching_outside_range(min_slot, max_slot, keep)

    @rule()
    def clear(self) -> None:
        """All is given up."""
        self.waiting.clear()
        self.fetcher.clear()

    @rule(tenths=st.integers(1, 200))
    def advance(self, tenths: int) -> None:
        """Time passes, in small steps."""
        self.may_hurry = False
        self.clock.pump([0.125] * tenths)

    @rule(number=peers, is_open=st.booleans(), ping_ms=st.sampled_from((None, 10, 499, 500)))
    def join(self, number: int, is_open: bool, ping_ms: int | None) -> None:
        """A peer comes, perhaps in place of itself; perhaps it gets nothing."""
        peer = Peer(number, self)
        peer.is_open, peer.ping_ms = is_open, ping_ms
        self.links[peer.peer_id] = peer
        self.may_hurry = True
        self.fetcher.peers_changed()

    @rule(number=peers)
    def leave(self, number: int) -> None:
        """A peer goes."""
        self.links.pop(FakePeer(number).peer_id, None)

    @rule(slot=st.integers(1, 6), number=st.integers(0, 2), who=peers)
    def learn(self, slot: int, number: int, who: int) -> None:
        """A peer turns out to have an envelope."""
        envelope = self.waiter(slot, number).envelope
        assert envelope is not None
        self.known.setdefault(envelope, set()).add(FakePeer(who).peer_id)

    def drop_empty(self) -> None:
        self.waiting = {key: there for key, there in self.waiting.items() if there}

    @invariant()
    def books_agree(self) -> None:
        """What is wanted is what somebody waits for, and there is one timer for each."""
        assert self.fetcher.num_trackers == len(self.waiting) <= MAX_TRACKERS
        for item_hash, there in self.waiting.items():
            assert self.fetcher.is_tracking(item_hash)
            envelopes = [each.envelope for each in there if each.envelope is not None]
            assert self.fetcher.fetching_for(item_hash) == envelopes
            assert len(there) <= MAX_WAITERS
        calls = self.clock.getDelayedCalls()
        assert len(calls) == len(self.waiting)
        assert all(0 <= call.getTime() - self.clock.seconds() <= 15 for call in calls)
        total = sum(each.size for there in self.waiting.values() for each in there)
        assert self.fetcher.waiting_bytes == total <= MAX_BYTES
        stats = self.fetcher.get_stats()
        assert stats.total_waiting_envelopes == sum(map(len, self.waiting.values()))
        assert self.metrics.item_fetcher_tracker_cap_reached.get() == self.refused


class ModelTests(SynchronousTestCase):
    def test_against_the_model(self) -> None:
        """Any sequence of calls, peers and times."""
        run_state_machine_as_test(
            FetcherMachine,
            settings=settings(
                derandomize=True, max_examples=60, stateful_step_count=40, deadline=None
            ),
        )
