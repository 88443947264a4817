"""The outbox against a model: core's FlowControl.cpp:418-563 as plain lists."""

from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.node.budget import ByteBudget
from stellar_overlay.session import outbox as outbox_module
from stellar_overlay.session.flow_control import FlowControl
from stellar_overlay.session.outbox import (
    SMALL_ANSWER_BYTES,
    MessagePriority,
    Outbox,
    OutboxConfig,
)
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import (
    advert,
    demand,
    get_tx_set,
    scp_confirm,
    scp_externalize,
    scp_nominate,
    scp_prepare,
    transaction,
)

MAX_TX_SIZE = 400
TX_BYTES = 2000
ANSWER_BYTES = 1500
BUDGET = 2400
"""Of all peers: one alone has half of it, which is less than its own limit."""
CONTROL_LIMIT = 6
SCP, TX, DEMAND, ADVERT = MessagePriority


def weight(priority: MessagePriority, body: bytes) -> int:
    """Return how much of its queue's limit a message takes up: its bytes, or its hashes."""
    return len(body) if priority <= TX else int.from_bytes(body[4:8], "big")


def some_answer(size: int, number: int = 0) -> Message:
    """Return something that is not flooded, of so many bytes; well-formed in its type only."""
    return Message(b"\0\0\0\7" + number.to_bytes(4, "big") + bytes(size - 8))


class Model:
    """What waits, in plain lists; ``topics`` tells node, slot and protocol of SCP messages."""

    def __init__(self) -> None:
        self.limit = 10
        self.window = (1, 0)
        self.control: list[bytes] = []
        self.queues: dict[MessagePriority, list[bytes]] = {p: [] for p in MessagePriority}
        self.dropped = dict.fromkeys(MessagePriority, 0)
        self.topics: dict[bytes, tuple[int, int, str]] = {}
        self.messages = self.bytes = 0

    def add(self, priority: MessagePriority, body: bytes) -> bool:
        """Queue and trim; tell whether the message is there afterwards."""
        queue = self.queues[priority]
        if priority is TX and len(body) > MAX_TX_SIZE:
            self.dropped[TX] += 1
            return False
        queue.append(body)
        total = sum(weight(priority, waiting) for waiting in queue)
        if priority is SCP:
            self._trim_scp(queue)
        elif priority is TX and (len(queue) > self.limit or total > TX_BYTES):
            self.dropped[TX] += len(queue)
            queue.clear()
        elif priority > TX and total > self.limit:
            self.dropped[priority] += total
            queue.clear()
        return body in queue

    def _trim_scp(self, queue: list[bytes]) -> None:
        min_slot, checkpoint = self.window
        at, is_replaced = 0, False
        while at < len(queue):
            slot = self.topics[queue[at]][1]
            is_last = at == len(queue) - 1
            if slot < min_slot and slot != checkpoint:
                del queue[at]
                self.dropped[SCP] += 1
                continue
            # A node's statements come in growing order here: the last of a topic is the newest.
            if not is_replaced and not is_last and self._topic(queue, at) == self._topic(queue, -1):
                queue[at] = queue.pop()
                is_replaced = True
                self.dropped[SCP] += 1
            at += 1

    def _topic(self, queue: list[bytes], at: int) -> tuple[int, int, str]:
        return self.topics[queue[at]]

    def add_other(self, body: bytes) -> bool:
        """Queue what is not flooded, if there is room for it."""
        if len(body) <= SMALL_ANSWER_BYTES:
            has_room = len(self.control) < CONTROL_LIMIT
        else:
            own = self.answer_bytes + len(body)
            has_room = own <= ANSWER_BYTES and own <= BUDGET - self.answer_bytes
        if has_room:
            self.control.append(body)
        return has_room

    @property
    def answer_bytes(self) -> int:
        """How long those are together that are not small."""
        return sum(len(body) for body in self.control if len(body) > SMALL_ANSWER_BYTES)

    def flush(self) -> list[bytes]:
        """Return what leaves with the credit that there is."""
        left, self.control = self.control, []
        for queue in self.queues.values():
            while queue and self.messages >= 1 and self.bytes >= len(queue[0]):
                self.messages -= 1
                self.bytes -= len(queue[0])
                left.append(queue.pop(0))
        return left


class OutboxMachine(RuleBasedStateMachine):
    """After each message an attempt is made to send, as a node does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.budget = ByteBudget(BUDGET)
        self.flow = FlowControl(max_tx_size=MAX_TX_SIZE)
        config = OutboxConfig(
            outbound_tx_queue_byte_limit=TX_BYTES,
            max_tx_set_size_ops=self.model.limit,
            min_slot_to_remember=lambda: self.model.window[0],
            checkpoint_slot=lambda: self.model.window[1],
            answer_byte_limit=ANSWER_BYTES,
            answer_budget=self.budget,
        )
        self.outbox = Outbox(self.flow, config)
        self.number = 0

    def add(self, priority: MessagePriority, message: Message) -> None:
        """Queue a message in both, and compare what becomes of it."""
        self.number += 1
        assert self.outbox.add(message, 0.0) == self.model.add(priority, message.body)
        self.flush(1000, 10**6)

    @rule(max_count=st.integers(1, 4), max_bytes=st.integers(1, 500))
    def flush(self, max_count: int, max_bytes: int) -> None:
        """Send all that may leave, in batches."""
        left: list[bytes] = []
        while batch := self.outbox.get_next_batch_to_send(max_count, max_bytes, 0.0)[0]:
            assert len(batch) <= max_count
            assert sum(map(len, batch[:-1])) < max_bytes
            left += batch
        assert left == self.model.flush()

    @rule(size=st.integers(24, 110))
    def add_transaction(self, size: int) -> None:
        """Of 96 to 440 bytes, some of which are too large."""
        self.add(TX, transaction(4 * size, self.number))

    @rule(hashes=st.integers(0, 6))
    def add_advert(self, hashes: int) -> None:
        """Of up to 6 hashes."""
        self.add(ADVERT, advert(self.number, hashes))

    @rule(hashes=st.integers(0, 6))
    def add_demand(self, hashes: int) -> None:
        """Of up to 6 hashes."""
        self.add(DEMAND, demand(self.number, hashes))

    @rule(node=st.integers(1, 3), slot=st.integers(1, 4), is_nomination=st.booleans())
    def add_scp(self, node: int, slot: int, is_nomination: bool) -> None:
        """Newer than any before it of the same node, slot and protocol."""
        self.number += 1
        if is_nomination:
            votes = [b"%05d" % number for number in range(self.number)]
            message = scp_nominate(slot, votes, node=node)
        else:
            message = scp_prepare(slot, self.number, node=node)
        self.model.topics[message.body] = node, slot, "nominate" if is_nomination else "ballot"
        self.add(SCP, message)

    @rule()
    def ask(self) -> None:
        """Something small that is not flooded: it is counted by number alone."""
        self.number += 1
        self.add_other(get_tx_set(self.number))

    @rule(size=st.sampled_from((256, 260, 400, 900)))
    def answer(self, size: int) -> None:
        """Something that is not flooded, small or large."""
        self.number += 1
        self.add_other(some_answer(size, self.number))

    def add_other(self, message: Message) -> None:
        """Queue what is not flooded in both; it leaves with the next message, or later."""
        assert self.outbox.add(message, 0.0) == self.model.add_other(message.body)

    @rule(messages=st.integers(0, 4), size=st.integers(1, 900))
    def grant(self, messages: int, size: int) -> None:
        """Some credit, of which nothing is used yet."""
        self.flow.maybe_release_capacity(messages, size, 0.0)
        self.model.messages += messages
        self.model.bytes += size

    @rule(min_slot=st.integers(1, 5), checkpoint=st.integers(0, 5))
    def move_window(self, min_slot: int, checkpoint: int) -> None:
        """The ledger goes on (or back)."""
        self.flush(1000, 10**6)
        self.model.window = min_slot, checkpoint

    @rule(limit=st.integers(1, 12))
    def change_limit(self, limit: int) -> None:
        """The network's largest tx set changes."""
        self.outbox.max_tx_set_size_ops = self.model.limit = limit

    @invariant()
    def books_agree(self) -> None:
        """All that is told of the queues is what is in them."""
        for priority, queue in self.model.queues.items():
            assert self.outbox.queue_size(priority) == len(queue)
            total = sum(weight(priority, body) for body in queue)
            assert self.outbox.queue_weight(priority) == total
            assert self.outbox.dropped(priority) == self.model.dropped[priority]
        assert self.outbox.answer_bytes == self.budget.used == self.model.answer_bytes
        credit = self.model.messages, self.model.bytes
        assert (self.flow.out_messages, self.flow.out_bytes) == credit


class ModelTests(SynchronousTestCase):
    def test_agrees_with_core(self) -> None:
        """What leaves, what waits and what was dropped are always the model's."""
        self.patch(outbox_module, "MAX_CONTROL", CONTROL_LIMIT)
        run_state_machine_as_test(
            OutboxMachine,
            settings=settings(
                derandomize=True, max_examples=60, stateful_step_count=40, deadline=None
            ),
        )


some_ballot = st.tuples(  # slot, node, whether it confirms, counter
    st.integers(1, 2), st.integers(1, 2), st.integers(0, 1), st.integers(1, 4)
)
ballots = st.builds(
    lambda make, slot, node, counter: make(slot, counter, node=node),
    st.sampled_from((scp_prepare, scp_confirm)),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 4),
)
nominations = st.builds(
    lambda slot, votes: scp_nominate(slot, sorted(votes)),
    st.integers(1, 2),
    st.sets(st.sampled_from((b"a", b"b", b"c"))),
)
anything = st.one_of(
    ballots,
    nominations,
    st.builds(scp_externalize, st.integers(1, 2)),
    st.builds(advert, st.integers(0, 9), st.integers(0, 5)),
    st.builds(demand, st.integers(0, 9), st.integers(0, 5)),
    st.builds(lambda size: transaction(4 * size), st.integers(24, 110)),
    st.builds(get_tx_set, st.integers(0, 9)),
    st.builds(some_answer, st.sampled_from((256, 260, 400)), st.integers(0, 9)),
)
some_credit = st.tuples(st.integers(0, 3), st.integers(1, 600))
some_batch = st.integers(1, 4)


class BookkeepingTests(SynchronousTestCase):
    """Any order of messages, grants and batches, old statements and repeated ones included."""

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.one_of(anything, anything, some_credit, some_batch), max_size=30))
    def test_recount(self, steps: list[Message | tuple[int, int] | int]) -> None:
        """At any time, what would leave with enough credit is what is said to wait."""
        flow = FlowControl(max_tx_size=MAX_TX_SIZE)
        config = OutboxConfig(outbound_tx_queue_byte_limit=TX_BYTES, max_tx_set_size_ops=8)
        outbox = Outbox(flow, config)
        for step in steps:
            if isinstance(step, Message):
                outbox.add(step, 0.0)
            elif isinstance(step, tuple):
                flow.maybe_release_capacity(*step, 0.0)
            else:
                outbox.get_next_batch_to_send(step, 10**6, 0.0)
            self.assert_counts_right(outbox, flow)

    def assert_counts_right(self, outbox: Outbox, flow: FlowControl) -> None:
        """Let all leave from a copy, and count."""
        outbox, flow = copy.deepcopy((outbox, flow))
        said = [(outbox.queue_size(p), outbox.queue_weight(p)) for p in MessagePriority]
        answer_bytes = outbox.answer_bytes
        flow.maybe_release_capacity(10**6, 10**9, 0.0)
        left = [Message(body) for body in outbox.get_next_batch_to_send(10**6, 10**9, 0.0)[0]]
        kinds = dict(
            zip(
                MessagePriority,
                (
                    MessageType.SCP_MESSAGE,
                    MessageType.TRANSACTION,
                    MessageType.FLOOD_DEMAND,
                    MessageType.FLOOD_ADVERT,
                ),
                strict=True,
            )
        )
        for (size, total), (priority, kind) in zip(said, kinds.items(), strict=True):
            bodies = [message.body for message in left if message.type is kind]
            counted = (len(bodies), sum(weight(priority, body) for body in bodies))
            self.assertEqual((size, total), counted)
        others = [
            message.size
            for message in left
            if message.type not in kinds.values() and message.size > SMALL_ANSWER_BYTES
        ]
        self.assertEqual(answer_bytes, sum(others))
        self.assertEqual([outbox.queue_weight(p) for p in MessagePriority], [0, 0, 0, 0])

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(st.lists(st.one_of(some_ballot, some_credit), max_size=30))
    def test_newest_is_never_lost(self, steps: list[tuple[int, ...]]) -> None:
        """Of each node and slot the newest ballot statement leaves, whatever came when."""
        flow = FlowControl()
        outbox = Outbox(flow)
        newest: dict[tuple[int, int], tuple[int, int, bytes]] = {}
        left = []
        for step in (*steps, (10**6, 10**9)):
            if len(step) == 4:
                slot, node, kind, counter = step
                body = (scp_prepare, scp_confirm)[kind](slot, counter, node=node).body
                self.assertTrue(outbox.add(Message(body), 0.0))
                statement = kind, counter, body
                newest[slot, node] = max(newest.get((slot, node), statement), statement)
            else:
                flow.maybe_release_capacity(step[0], step[1], 0.0)
            left += outbox.get_next_batch_to_send(10**6, 10**9, 0.0)[0]
        for _, _, body in newest.values():
            self.assertIn(body, left)
