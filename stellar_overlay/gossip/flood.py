"""The flood gate: which flooded messages we know, and who was told of each (core Floodgate.cpp).

Records lie in *generations*. What is old or too much goes a generation at a time, so nobody looks
through the records that stay; whoever was told of a message is a bit in a number.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from stellar_overlay.identity import PeerId
from stellar_overlay.wire.message import Message

DEFAULT_RATE_LIMIT_PER_SECOND = 1000
"""Messages that a gate used alone lets pass; a node turns the limit off (DECISIONS.md 14)."""
MAX_RECORDS = 200_000
MAX_RECORD_BYTES = 128 * 1024 * 1024
"""How many messages are remembered, and how long their bodies are together."""
LEDGERS_REMEMBERED = 12
"""The present one included (core's MAX_SLOTS_TO_REMEMBER)."""
PARTS = 16
"""A generation ends with such a part of the time to live or of a limit; so much goes at once."""
MAX_BITS_OF_THE_GONE = 1024
"""So many peers that left keep their bits, lest they be told again when they return."""


class FloodLink(Protocol):
    """What the gate uses of a peer."""

    @property
    def flood_bit(self) -> int:
        """Its :meth:`FloodGate.bit_of`; not to be used any more once it is released."""
        ...


L = TypeVar("L", bound=FloodLink)


class FloodRecord:
    """What we know of one message; ``told`` has the bits of who sent it to us or was told."""

    __slots__ = ("generation", "told")

    def __init__(self, told: int, generation: Generation) -> None:
        self.told = told
        self.generation = generation


@dataclass(slots=True, eq=False)
class Generation:
    """Records made from ``opened`` to ``newest``, all while one ledger was the present one."""

    number: int
    ledger_seq: int
    opened: float
    newest: float
    bodies: set[bytes] = field(default_factory=set)
    size: int = 0


@dataclass(kw_only=True)
class FloodGateStats:
    """What a gate holds (``seen_count``, ``bytes``), and what it counted since it was made."""

    seen_count: int = 0
    bytes: int = 0
    unique_messages: int = 0
    unique_bytes: int = 0
    duplicate_messages: int = 0
    duplicate_bytes: int = 0
    rate_limited: int = 0
    evictions_total: int = 0

    @property
    def total_messages(self) -> int:
        """Messages counted, known or not."""
        return self.unique_messages + self.duplicate_messages

    def duplicate_rate(self) -> float:
        """Return how many percent of all messages were duplicates; 0.0 before the first."""
        return 100.0 * self.duplicate_messages / max(1, self.total_messages)


class FloodGate:
    """An exact index of flooded messages by their bodies, bounded by age, number and bytes.

    :param ttl_secs: how long a message is remembered, unless room is needed.
    :param max_records: how many records there may be.
    :param max_bytes: of their bodies; one that alone takes more is held until the next comes.
    :param rate_limit_per_second: for :meth:`allow_message`; 0 lets everything pass.
    :raises ValueError: when a limit leaves room for nothing.
    :ivar records: the index: always the same dict, which only the gate adds to or removes from.
    :ivar ledger_seq: the ledger that new records belong to; 0 while it is unknown.
    """

    def __init__(
        self,
        *,
        ttl_secs: float = 300.0,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_RECORD_BYTES,
        rate_limit_per_second: int = DEFAULT_RATE_LIMIT_PER_SECOND,
    ) -> None:
        if not ttl_secs > 0 or max_records < 1 or max_bytes < 1 or rate_limit_per_second < 0:
            raise ValueError("ttl_secs, max_records and max_bytes must be positive, a rate not < 0")
        self.records: dict[bytes, FloodRecord] = {}
        self.ledger_seq = 0
        self._ttl, self._max_records, self._max_bytes = ttl_secs, max_records, max_bytes
        self._part_of_ttl = ttl_secs / PARTS
        self._part_of_records, self._part_of_bytes = max_records / PARTS, max_bytes / PARTS
        self._rate_limit, self._second, self._count = rate_limit_per_second, 0.0, 0
        self._generations: list[Generation] = []
        self._newest_number = 0
        self._bits: dict[PeerId, int] = {}
        self._free_bits: list[int] = []
        self._gone: dict[PeerId, int] = {}  # who left, and the newest generation of that time
        self._stats = FloodGateStats()

    def bit_of(self, peer_id: PeerId) -> int:
        """Return what stands for a peer in every ``told``; the same if it comes back in time."""
        self._gone.pop(peer_id, None)
        bit = self._bits.get(peer_id)
        if bit is None:  # the lowest free one, so that masks stay short
            bit = heapq.heappop(self._free_bits) if self._free_bits else 1 << len(self._bits)
            self._bits[peer_id] = bit
        return bit

    def release(self, peer_id: PeerId) -> None:
        """Note that a peer has gone, and nobody will set its bit any more.

        Another peer gets it when all generations of now have gone, too; when too many wait for
        that, they are cleared in every record: one walk per ``MAX_BITS_OF_THE_GONE`` departures.
        """
        if peer_id in self._bits:
            self._gone.setdefault(peer_id, self._newest_number)
        if len(self._gone) > MAX_BITS_OF_THE_GONE:
            kept = ~sum(self._bits[gone] for gone in self._gone)
            for record in self.records.values():
                record.told &= kept
            self._recycle_bits(self._newest_number + 1)

    def _recycle_bits(self, oldest: int) -> None:
        """Give back the bits of who left before there was a generation ``oldest``."""
        for peer_id in [peer_id for peer_id, number in self._gone.items() if number < oldest]:
            del self._gone[peer_id]
            heapq.heappush(self._free_bits, self._bits.pop(peer_id))

    def add_record(self, body: bytes, told: int, now: float) -> FloodRecord:
        """Remember a message, which ``told`` know; where it is known by now, they are added."""
        record = self.records.get(body)
        if record is not None:
            record.told |= told
            return record
        size = len(body)
        stats = self._stats
        if len(self.records) >= self._max_records or stats.bytes + size > self._max_bytes:
            self._make_room(size)
        generation = self._generation_at(now)
        generation.bodies.add(body)
        generation.size += size
        if now > generation.newest:
            generation.newest = now
        stats.bytes += size
        record = self.records[body] = FloodRecord(told, generation)
        return record

    def record_seen(
        self, message: Message | bytes, from_peer: PeerId | None = None, now: float = 0.0
    ) -> bool:
        """Note and count a message of a peer, or our own; tell whether it is new."""
        body = _body_of(message)
        is_new = body not in self.records
        self.count(*((1, len(body), 0, 0) if is_new else (0, 0, 1, len(body))))
        self.add_record(body, 0 if from_peer is None else self.bit_of(from_peer), now)
        return is_new

    def has_seen(self, message: Message | bytes) -> bool:
        """Tell whether a message is remembered."""
        return _body_of(message) in self.records

    def forget(self, message: Message | bytes) -> None:
        """Remember a message no longer, if it was: should it come again, it is new."""
        body = _body_of(message)
        record = self.records.pop(body, None)
        if record is not None:
            record.generation.bodies.discard(body)
            record.generation.size -= len(body)
            self._stats.bytes -= len(body)

    def get_forward_peers(self, message: Message | bytes, peers: Iterable[PeerId]) -> list[PeerId]:
        """Return those who neither sent a message nor were told of it; note nothing."""
        told, bits = self._told(message), self._bits
        return [peer_id for peer_id in peers if not told & bits.get(peer_id, 0)]

    def get_peers_that_know(self, message: Message | bytes) -> list[PeerId]:
        """Return those present who sent a message or were told of it (core getPeersKnows)."""
        told, gone = self._told(message), self._gone
        return [peer for peer, bit in self._bits.items() if told & bit and peer not in gone]

    def mark(self, body: bytes, links: Iterable[L], now: float) -> list[L]:
        """Return the links that do not know of a message, which is about to be sent to them.

        They are all marked before the first is sent to: that may close links, or broadcast itself.
        """
        record = self.records.get(body) or self.add_record(body, 0, now)
        told, untold = record.told, []
        for link in links:
            bit = link.flood_bit
            if not told & bit:
                told |= bit
                untold.append(link)
        record.told = told
        return untold

    def broadcast(
        self, body: bytes, links: Iterable[L], send: Callable[[L], object], now: float
    ) -> int:
        """Send to each link that does not know of a message; return how many those were."""
        untold = self.mark(body, links, now)
        for link in untold:
            send(link)
        return len(untold)

    def _told(self, message: Message | bytes) -> int:
        record = self.records.get(_body_of(message))
        return 0 if record is None else record.told

    def clear_below(self, ledger_seq: int) -> None:
        """Forget at once what belongs to lower ledgers, 0 included (core clearBelow)."""
        self._keep_if(lambda generation: generation.ledger_seq >= ledger_seq)

    def expire(self, now: float) -> None:
        """Forget what is older than the time to live and not of the last 12 ledgers.

        Age alone counts for ledger 0, and for one that consensus went back behind.
        """
        last, ttl = self.ledger_seq, self._ttl
        first = max(1, last - LEDGERS_REMEMBERED + 1)
        self._keep_if(lambda each: first <= each.ledger_seq <= last or now - each.newest < ttl)

    def clear(self) -> None:
        """Forget all messages; what was counted stays."""
        self._keep_if(lambda generation: False)

    def _generation_at(self, now: float) -> Generation:
        """Return the generation of a record made now: the last, or a new one."""
        if self._generations:
            last = self._generations[-1]
            if (
                last.ledger_seq == self.ledger_seq
                and 0 <= now - last.opened < self._part_of_ttl
                and len(last.bodies) < self._part_of_records
                and last.size < self._part_of_bytes
            ):
                return last
            self.expire(now)  # the owner may have no timer
        self._newest_number += 1
        self._generations.append(Generation(self._newest_number, self.ledger_seq, now, now))
        return self._generations[-1]

    def _make_room(self, size: int) -> None:
        """Forget as many of the oldest generations as it takes for one more body of that size."""
        count, size, last = len(self.records) + 1, self._stats.bytes + size, 0
        for each in self._generations:
            if count <= self._max_records and size <= self._max_bytes:
                break
            count, size, last = count - len(each.bodies), size - each.size, each.number
        self._stats.evictions_total += len(self.records) + 1 - count
        self._keep_if(lambda each: each.number > last)

    def _keep_if(self, may_stay: Callable[[Generation], bool]) -> None:
        """Forget all other generations, and those that hold nothing."""
        staying = []
        for generation in self._generations:
            if generation.bodies and may_stay(generation):
                staying.append(generation)
                continue
            for body in generation.bodies:
                del self.records[body]
            self._stats.bytes -= generation.size
            generation.bodies.clear()  # somebody may have one of its records still
        self._generations = staying
        self._recycle_bits(staying[0].number if staying else self._newest_number + 1)

    def allow_message(self, now: float) -> bool:
        """Tell whether one more message may pass within this second; count it if not."""
        if now - self._second >= 1:
            self._second, self._count = now, 0
        self._second = min(self._second, now)  # the clock may go back
        if self._rate_limit and self._count >= self._rate_limit:
            self._stats.rate_limited += 1
            return False
        self._count += 1
        return True

    def count(self, unique: int, unique_bytes: int, duplicates: int, duplicate_bytes: int) -> None:
        """Add a batch to what :attr:`stats` tells."""
        self._stats.unique_messages += unique
        self._stats.unique_bytes += unique_bytes
        self._stats.duplicate_messages += duplicates
        self._stats.duplicate_bytes += duplicate_bytes

    @property
    def stats(self) -> FloodGateStats:
        """The figures of now; they stay as they are."""
        return replace(self._stats, seen_count=len(self.records))


def _body_of(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.body
