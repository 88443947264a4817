"""What waits to be sent to one peer, and what of it may leave now (connection.md 6.5, 6.6).

Flooded messages wait for credit in four queues; everything else leaves in the order it came.
Nothing here has a sequence number yet, so anything may still be dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.session.flow_control import MAX_GRANT, FlowControl, SendMoreCapacity
from stellar_overlay.wire.message import Message, MessageType, encode_send_more_extended
from stellar_overlay.wire.scp import ScpStatement

SCP_QUEUE_BYTE_LIMIT = 4 * 1024 * 1024
"""Bytes of SCP messages that wait for one peer; beyond, the oldest go. Core has no such limit."""
SCP_BACKLOG = 256
"""SCP messages that may wait before superseded ones are looked for, credit or not."""
MAX_GRANTS = 64
"""Grants that wait one by one for a peer that does not read; more are added to the last."""
ANSWER_BYTE_LIMIT = 32 * 1024 * 1024
"""Bytes of answers (tx sets, quorum sets, …) unsent to one peer; beyond, it is answered nothing."""


SMALL_ANSWER_BYTES = 256
"""What is no longer than that is counted by number alone: whoever reads nothing must not keep us
from asking others."""
MAX_CONTROL = 10_000
"""Messages that are not flooded and wait for one peer."""


class MessagePriority(IntEnum):
    """The order in which flooded messages leave (core FlowControl.cpp:418-460)."""

    SCP = 0
    TRANSACTION = 1
    FLOOD_DEMAND = 2
    FLOOD_ADVERT = 3


_PRIORITIES = {
    MessageType.SCP_MESSAGE: MessagePriority.SCP,
    MessageType.TRANSACTION: MessagePriority.TRANSACTION,
    MessageType.FLOOD_DEMAND: MessagePriority.FLOOD_DEMAND,
    MessageType.FLOOD_ADVERT: MessagePriority.FLOOD_ADVERT,
}


class AnswerBudget(Protocol):
    """Bytes that the answers to all peers share."""

    def take(self, size: int, own: int) -> bool:
        """Take so many for a peer that has ``own`` already; False when there is no room."""
        ...

    def give(self, size: int) -> None:
        """Give back what was taken."""
        ...


def _count_nothing(count: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class OutboxConfig:
    """How much may wait for one peer."""

    outbound_tx_queue_byte_limit: int = 3 * 1024 * 1024
    """Bytes of transactions (core Config.cpp, OUTBOUND_TX_QUEUE_BYTE_LIMIT)."""
    max_tx_set_size_ops: int = 10_000
    """Transactions, and advertised or demanded hashes: the network's largest tx set."""
    answer_byte_limit: int = ANSWER_BYTE_LIMIT
    answer_budget: AnswerBudget | None = None
    """What all peers' answers share; None is no limit but each peer's own."""
    min_slot_to_remember: Callable[[], int] = field(default=lambda: 1)
    """The oldest slot of which an SCP message is still worth sending."""
    checkpoint_slot: Callable[[], int] = field(default=lambda: 0)
    """The one older slot that is worth sending all the same: the checkpoint's first."""
    note_dropped: tuple[Callable[[int], None], ...] = (_count_nothing,) * len(MessagePriority)
    """What counts the messages, or hashes, of each priority that are not sent."""


class Entry:
    """A message that waits, since when, and how much of its queue's limit it takes up.

    One may wait in the queues of many links.
    """

    __slots__ = ("body", "queued_at", "weight")

    def __init__(self, body: bytes, queued_at: float, weight: int) -> None:
        self.body = body
        self.queued_at = queued_at
        self.weight = weight


class _Grant(Entry):
    """A SEND_MORE_EXTENDED that waits."""

    __slots__ = ("grant",)

    def __init__(self, grant: SendMoreCapacity, queued_at: float) -> None:
        super().__init__(_grant_body(grant), queued_at, 0)
        self.grant = grant

    def add(self, more: SendMoreCapacity) -> bool:
        """Grant more with the same message; False when it holds no more."""
        messages = self.grant.num_flood_messages + more.num_flood_messages
        size = self.grant.num_flood_bytes + more.num_flood_bytes
        if max(messages, size) > MAX_GRANT:
            return False
        self.grant = SendMoreCapacity(messages, size)
        self.body = _grant_body(self.grant)
        return True


def _grant_body(grant: SendMoreCapacity) -> bytes:
    return encode_send_more_extended(grant.num_flood_messages, grant.num_flood_bytes)


class Taken(NamedTuple):
    """What came of taking messages from a queue."""

    max_bytes: int
    last: Entry | None


_NOTHING: deque[Entry] = deque()
"""What waits on a link that never sent anything of its kind; a deque of its own takes 760 bytes."""


class _Queue:
    """One priority's messages, oldest first, with the sum of their weights."""

    __slots__ = ("_note_dropped", "dropped", "entries", "weight")

    def __init__(self, note_dropped: Callable[[int], None]) -> None:
        self.entries = _NOTHING
        self.weight = 0
        self.dropped = 0
        self._note_dropped = note_dropped

    def drop(self, count: int) -> None:
        """Count messages, or hashes, that are not sent."""
        self.dropped += count
        self._note_dropped(count)

    def append(self, entry: Entry) -> bool:
        """Queue it; False when it is not worth sending."""
        if self.entries is _NOTHING:
            self.entries = deque()
        self.entries.append(entry)
        self.weight += entry.weight
        return True

    def popleft(self) -> Entry:
        entry = self.entries.popleft()
        self.weight -= entry.weight
        return entry

    def take(self, flow: FlowControl, bodies: list[bytes], max_bytes: int, max_count: int) -> Taken:
        """Move the bodies that may leave now to ``bodies``, oldest first.

        :returns: the bytes of room that are left, and the last entry that was moved.
        """
        entries = self.entries
        messages, credit = flow.out_messages, flow.out_bytes
        last, room = None, max_count - len(bodies)
        while entries and max_bytes > 0 and room > 0:
            entry = entries[0]
            size = len(entry.body)
            if messages < 1 or credit < size:
                break
            messages -= 1
            room -= 1
            credit -= size
            max_bytes -= size
            self.weight -= entry.weight
            bodies.append(entry.body)
            entries.popleft()
            last = entry
        flow.out_messages, flow.out_bytes = messages, credit
        return Taken(max_bytes, last)

    def block(self) -> None:
        """Note that nothing leaves now, for want of credit."""

    def clear(self, dropped: int) -> None:
        """Shed the whole load: a peer so far behind is not helped by what is old."""
        if dropped:
            self.drop(dropped)
        self.entries = _NOTHING
        self.weight = 0


class _ScpQueue(_Queue):
    """SCP messages: never shed wholesale, but of one topic only the newest is worth sending.

    That is looked into only while they pile up; else they leave at once.
    """

    __slots__ = ("_config", "_is_blocked", "_newest", "_window")

    def __init__(self, config: OutboxConfig, note_dropped: Callable[[int], None]) -> None:
        super().__init__(note_dropped)
        self._config = config
        self._is_blocked = False
        self._window = (0, 0)
        self._newest: dict[tuple[bytes, bool], Entry] = {}

    def append(self, entry: Entry) -> bool:
        if self._is_blocked:
            self._forget_old_slots()
        if self._is_stale(entry):
            self.drop(1)
            return False
        if self._is_blocked:
            self._append_or_replace(entry)
            self._keep_below_limit()
        else:
            super().append(entry)
            if len(self.entries) >= SCP_BACKLOG or self.weight > SCP_QUEUE_BYTE_LIMIT:
                self.block()
        return True

    def push(self, entry: Entry) -> None:
        """Queue what is known to be of a slot that matters: the way of all that is relayed."""
        if self._is_blocked:
            self.append(_copy(entry))
            return
        entries = self.entries
        if entries is _NOTHING:
            entries = self.entries = deque()
        entries.append(entry)
        self.weight += entry.weight
        if len(entries) >= SCP_BACKLOG or self.weight > SCP_QUEUE_BYTE_LIMIT:
            self.block()

    def take(self, flow: FlowControl, bodies: list[bytes], max_bytes: int, max_count: int) -> Taken:
        if not self._is_blocked:
            return super().take(flow, bodies, max_bytes, max_count)
        last = None
        while self.entries and max_bytes > 0 and len(bodies) < max_count:
            size = len(self.entries[0].body)
            if not flow.may_send(size):
                break
            flow.spend(size)
            last = self.popleft()
            self._unlink(last)
            bodies.append(last.body)
            max_bytes -= size
        self._is_blocked = bool(self.entries)
        return Taken(max_bytes, last)

    def block(self) -> None:
        """Note that nothing leaves now, and drop what is superseded or of no use any more."""
        if not self._is_blocked:
            self._is_blocked = True
            waiting, self.entries, self.weight = self.entries, _NOTHING, 0
            for entry in waiting:
                self.append(_copy(entry))

    def clear(self, dropped: int) -> None:
        super().clear(dropped)
        self._is_blocked = False
        self._newest.clear()

    def _append_or_replace(self, entry: Entry) -> None:
        statement = ScpStatement(entry.body)
        older = self._newest.setdefault(statement.topic, entry)
        if older is not entry and statement.is_newer_than(ScpStatement(older.body)):
            self.weight += entry.weight - older.weight
            older.body, older.queued_at, older.weight = entry.body, entry.queued_at, entry.weight
            self.drop(1)
            return
        super().append(entry)

    def _keep_below_limit(self) -> None:
        while self.weight > SCP_QUEUE_BYTE_LIMIT:
            self._unlink(self.popleft())
            self.drop(1)

    def _is_stale(self, entry: Entry) -> bool:
        slot = ScpStatement(entry.body).slot
        return slot < self._config.min_slot_to_remember() and slot != self._config.checkpoint_slot()

    def _forget_old_slots(self) -> None:
        window = self._config.min_slot_to_remember(), self._config.checkpoint_slot()
        if window == self._window:
            return
        self._window = window
        for _ in range(len(self.entries)):
            entry = self.popleft()
            if self._is_stale(entry):
                self._unlink(entry)
                self.drop(1)
            else:
                super().append(entry)

    def _unlink(self, entry: Entry) -> None:
        topic = ScpStatement(entry.body).topic
        if self._newest.get(topic) is entry:
            del self._newest[topic]


def drop_counters(metrics: OverlayMetrics) -> tuple[Callable[[int], None], ...]:
    """Return what counts the dropped messages of each priority, of all links."""
    return (
        metrics.queue_drop_scp.inc,
        metrics.queue_drop_tx.inc,
        metrics.queue_drop_demand.inc,
        metrics.queue_drop_advert.inc,
    )


def _copy(entry: Entry) -> Entry:
    """Return an entry that may be changed: where messages wait, a newer one takes its place."""
    return Entry(entry.body, entry.queued_at, entry.weight)


class Outbox:
    """Everything that waits to leave on one link.

    :param flow: whose credit flooded messages wait for.
    :ivar max_tx_set_size_ops: how many transactions, and how many advertised or demanded hashes,
        may wait: the size of the network's largest tx set.
    :ivar scp: the queue of SCP messages, for who has one for many links.
    """

    __slots__ = (
        "_answer_bytes",
        "_config",
        "_control",
        "_flow",
        "_grants",
        "_last_grant",
        "_queues",
        "max_tx_set_size_ops",
        "scp",
    )

    def __init__(
        self,
        flow: FlowControl,
        config: OutboxConfig | None = None,
    ) -> None:
        self._flow = flow
        self._config = config or OutboxConfig()
        self.max_tx_set_size_ops = self._config.max_tx_set_size_ops
        self._control: deque[Entry] = deque()
        self._answer_bytes = 0
        self._grants = 0
        self._last_grant = _Grant(SendMoreCapacity(0, 0), 0.0)
        scp, *others = self._config.note_dropped
        self.scp = _ScpQueue(self._config, scp)
        self._queues = (self.scp, *map(_Queue, others))

    def add(self, message: Message, now: float) -> bool:
        """Queue a message; tell whether it will leave if nothing newer displaces it."""
        priority = _PRIORITIES.get(message.type)
        if priority is None:
            return self._add_answer(message, now)
        return self.add_msg_and_maybe_trim_queue(message, priority, now)

    def add_control(self, body: bytes, now: float) -> None:
        """Queue what the protocol itself needs (grants, pings, the handshake); never refused."""
        self._control.append(Entry(body, now, 0))

    def add_grant(self, grant: SendMoreCapacity, now: float) -> None:
        """Queue a grant; those of a peer that takes none of them become one."""
        if self._grants < MAX_GRANTS or not self._last_grant.add(grant):
            self._last_grant = _Grant(grant, now)
            self._control.append(self._last_grant)
            self._grants += 1

    def add_msg_and_maybe_trim_queue(
        self, message: Message, priority: MessagePriority, now: float
    ) -> bool:
        """Queue a flooded message behind its like, and shed what is too much or too old."""
        queue = self._queues[priority]
        size = message.size
        if priority is MessagePriority.TRANSACTION and size > self._flow.max_tx_size:
            queue.drop(1)
            return False
        counts_bytes = priority <= MessagePriority.TRANSACTION
        if not queue.append(Entry(message.body, now, size if counts_bytes else (size - 8) // 32)):
            return False
        if priority is MessagePriority.TRANSACTION:
            if (
                len(queue.entries) > self.max_tx_set_size_ops
                or queue.weight > self._config.outbound_tx_queue_byte_limit
            ):
                queue.clear(len(queue.entries))
        elif not counts_bytes and queue.weight > self.max_tx_set_size_ops:
            queue.clear(queue.weight)
        return bool(queue.entries)

    def get_next_batch_to_send(
        self, max_count: int, max_bytes: int, now: float
    ) -> tuple[list[bytes], float]:
        """Return the bodies that leave now, and since when the last of them might have left.

        What is not flooded goes first; then each queue goes as far as credit reaches: one that
        is blocked does not block those after it. The time in which a message waited for credit
        does not count: core gives it its place in the write queue only then.

        :param max_bytes: the message that crosses it is included (core TCPPeer.cpp:296-335).
        """
        bodies: list[bytes] = []
        queued_at = now
        while self._control and len(bodies) < max_count and max_bytes > 0:
            entry = self._control.popleft()
            if type(entry) is _Grant:
                self._grants -= 1
            if entry.weight:
                self._give_back(entry.weight)
            bodies.append(entry.body)
            queued_at = entry.queued_at
            max_bytes -= len(entry.body)
        for queue in self._queues:
            if not queue.entries:
                continue
            max_bytes, last = queue.take(self._flow, bodies, max_bytes, max_count)
            if last is not None:
                queued_at = max(last.queued_at, self._flow.credit_since)
            if queue.entries and max_bytes > 0 and len(bodies) < max_count:
                self._flow.note_no_capacity(now)
                queue.block()
        return bodies, queued_at

    def clear(self) -> None:
        """Forget everything: nothing more will leave."""
        self._control.clear()
        self._give_back(self._answer_bytes)
        self._grants = 0
        for queue in self._queues:
            queue.clear(0)

    @property
    def has_work(self) -> bool:
        """Whether anything waits, be it for credit."""
        one, two, three, four = self._queues
        return bool(self._control or one.entries or two.entries or three.entries or four.entries)

    @property
    def answer_bytes(self) -> int:
        """Bytes of answers that wait."""
        return self._answer_bytes

    def queue_size(self, priority: MessagePriority) -> int:
        """Return how many messages of one priority wait."""
        return len(self._queues[priority].entries)

    def queue_weight(self, priority: MessagePriority) -> int:
        """Return the bytes (SCP, transactions) or hashes (demands, adverts) that wait."""
        return self._queues[priority].weight

    def dropped(self, priority: MessagePriority) -> int:
        """Return how many messages (or hashes) of one priority were dropped so far."""
        return self._queues[priority].dropped

    def _add_answer(self, message: Message, now: float) -> bool:
        size = message.size
        if size <= SMALL_ANSWER_BYTES:  # questions, and that we do not have what was asked for
            if len(self._control) >= MAX_CONTROL:
                return False
            self._control.append(Entry(message.body, now, 0))
            return True
        if self._answer_bytes + size > self._config.answer_byte_limit:
            return False
        budget = self._config.answer_budget
        if budget is not None and not budget.take(size, self._answer_bytes):
            return False
        self._control.append(Entry(message.body, now, size))
        self._answer_bytes += size
        return True

    def _give_back(self, size: int) -> None:
        self._answer_bytes -= size
        if self._config.answer_budget is not None:
            self._config.answer_budget.give(size)
