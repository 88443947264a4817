"""The latest SCP statements of each node and slot: what is answered to GET_SCP_STATE."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from stellar_overlay.herder.window import SlotWindow
from stellar_overlay.wire.scp import ScpStatement

MAX_ENVELOPES = 50_000
MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
"""How much is kept in all; what is read from a body on the way may take as much again."""
MAX_SLOTS_PER_SIGNER = 24
"""Of how many slots one signer's statements are kept: a window, the checkpoint, and some ahead."""


@dataclass(slots=True, eq=False)
class SlotEnvelopes:
    """The latest statements about one slot, by signer."""

    nominations: dict[bytes, ScpStatement] = field(default_factory=dict)
    ballots: dict[bytes, ScpStatement] = field(default_factory=dict)

    @property
    def signers(self) -> frozenset[bytes]:
        """Who has said anything."""
        return frozenset(self.nominations.keys() | self.ballots.keys())

    @property
    def externalized(self) -> frozenset[bytes]:
        """Who says that consensus is reached."""
        return frozenset(node for node, ballot in self.ballots.items() if ballot.is_externalize)

    def __iter__(self) -> Iterator[ScpStatement]:
        """Yield all nominations, then all ballots: core's order (messages.md 4.3)."""
        yield from self.nominations.values()
        yield from self.ballots.values()


@dataclass(slots=True, eq=False)
class _Share:
    """What one signer takes up.

    :ivar slots: which it has spoken about, in the order in which it began to.
    """

    slots: dict[int, None] = field(default_factory=dict)
    size: int = 0


class EnvelopeStore:
    """The latest nomination and ballot of each node and slot, bounded in every direction.

    No signer can push out another's statements by speaking about many slots, which all are within
    the window while it is open: each has room for so many, and then forgets its own oldest one.
    When there are too many bytes, who takes up most forgets first. When there are too many
    statements, from too many signers, the slots farthest ahead of consensus go first.

    :param max_envelopes: how many statements, and ``max_bytes`` how long their messages, in all.
    :ivar evicted: how many were forgotten to make room.
    """

    def __init__(
        self,
        *,
        max_slots_per_signer: int = MAX_SLOTS_PER_SIGNER,
        max_envelopes: int = MAX_ENVELOPES,
        max_bytes: int = MAX_ENVELOPE_BYTES,
    ) -> None:
        self._max_slots_per_signer = max_slots_per_signer
        self._max_envelopes = max_envelopes
        self._max_bytes = max_bytes
        self._slots: dict[int, SlotEnvelopes] = {}
        self._shares: dict[bytes, _Share] = {}
        self._count = self._size = 0
        self._tracking = 0
        self.evicted = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """How long all messages are together, in bytes."""
        return self._size

    def slots(self) -> list[int]:
        """Return the slots of which there is something, in order."""
        return sorted(self._slots)

    def at(self, slot: int) -> SlotEnvelopes | None:
        """Return what there is of a slot; not to be changed."""
        return self._slots.get(slot)

    def latest(self, envelope: ScpStatement) -> ScpStatement | None:
        """Return what is kept of the same node, slot and protocol."""
        envelopes = self._slots.get(envelope.slot)
        if envelopes is None:
            return None
        topics = envelopes.nominations if envelope.is_nomination else envelopes.ballots
        return topics.get(envelope.node)

    def is_full_for(self, node: bytes, slot: int, max_signers: int) -> bool:
        """Tell whether so many others have said something about a slot, and this one nothing."""
        envelopes = self._slots.get(slot)
        if envelopes is None or len(envelopes.nominations) + len(envelopes.ballots) < max_signers:
            return False
        if node in envelopes.nominations or node in envelopes.ballots:
            return False
        return len(envelopes.signers) >= max_signers

    def put(self, envelope: ScpStatement) -> None:
        """Keep an envelope instead of the one of the same node, slot and protocol."""
        node, slot, grown = envelope.node, envelope.slot, len(envelope.body)
        envelopes = self._slots.get(slot)
        if envelopes is None:
            envelopes = self._slots[slot] = SlotEnvelopes()
        share = self._shares.get(node)
        if share is None:
            share = self._shares[node] = _Share()
        topics = envelopes.nominations if envelope.is_nomination else envelopes.ballots
        old = topics.get(node)
        topics[node] = envelope
        if old is not None:
            grown -= len(old.body)
        else:
            self._count += 1
            share.slots[slot] = None
        share.size += grown
        self._size += grown
        if len(share.slots) > self._max_slots_per_signer:
            self._evict(node, next(iter(share.slots)))
        if self._count > self._max_envelopes or self._size > self._max_bytes:
            self._make_room()

    def keep_only(self, window: SlotWindow, tracking: int) -> None:
        """Forget all other slots. Consensus has reached ``tracking``; 0 when that is not known."""
        self._tracking = tracking
        for slot in [slot for slot in self._slots if slot not in window]:
            self._drop(slot)

    def _make_room(self) -> None:
        """Forget an eighth, so that it has not to be done for each message."""
        count, size = self._max_envelopes * 7 // 8, self._max_bytes * 7 // 8
        while self._count > count and self._tracking:
            farthest = max(self._slots)
            if farthest <= self._tracking + 1:
                break
            self.evicted += self._drop(farthest)
        heaviest = [(-share.size, node) for node, share in self._shares.items()]
        heapq.heapify(heaviest)
        while self._count > count or self._size > size:
            _, node = heaviest[0]
            share = self._shares[node]
            self._evict(node, next(iter(share.slots)))
            if share.slots:
                heapq.heapreplace(heaviest, (-share.size, node))
            else:
                heapq.heappop(heaviest)

    def _evict(self, node: bytes, slot: int) -> None:
        self.evicted += self._forget(node, slot)

    def _drop(self, slot: int) -> int:
        """Forget a slot; return how many statements that were."""
        return sum(self._forget(node, slot) for node in self._slots[slot].signers)

    def _forget(self, node: bytes, slot: int) -> int:
        """Forget what a signer has said about a slot; return how many statements that were."""
        share, envelopes = self._shares[node], self._slots[slot]
        count = size = 0
        for topics in (envelopes.nominations, envelopes.ballots):
            envelope = topics.pop(node, None)
            if envelope is not None:
                count += 1
                size += len(envelope.body)
        self._count -= count
        self._size -= size
        share.size -= size
        del share.slots[slot]
        if not share.slots:
            del self._shares[node]
        if not envelopes.nominations and not envelopes.ballots:
            del self._slots[slot]
        return count
