"""Whatever the sizes, settings and interleaving: credit is kept, never lost, and never in the way.

"Legal" sends only what it was granted. A legal sender is never dropped and gets everything
through in the end; any other is dropped at the first message beyond.
"""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.session.flow_control import (
    FlowControl,
    FlowControlConfig,
    Item,
    SendMoreCapacity,
)
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import FLOOD_KINDS, FLOOD_TYPES, Message, MessageType
from tests.builders import advert, demand, get_tx_set, scp_prepare, transaction
from tests.by_hand import ByHand
from tests.pair import LivePair, Pair
from tests.session.test_credit_scenarios import grants

FLOOD, OTHER = int(MessageType.FLOOD_ADVERT), int(MessageType.GET_TX_SET)


@st.composite
def configs(draw: st.DrawFn, largest: int) -> FlowControlConfig:
    """Return small settings with room for a flood message of ``largest`` bytes."""
    flood = draw(st.integers(1, 8))
    batch_bytes = draw(st.integers(0, 2 * largest))
    slack = draw(st.sampled_from((0, 1, largest)))
    return FlowControlConfig(
        peer_reading_capacity=flood + draw(st.integers(1, 5)),
        peer_flood_reading_capacity=flood,
        flow_control_send_more_batch_size=draw(st.integers(1, flood)),
        peer_flood_reading_capacity_bytes=batch_bytes + largest + slack,
        flow_control_send_more_batch_size_bytes=batch_bytes,
        peer_total_reading_capacity_bytes=draw(st.integers(1, 4 * largest)),
    )


sizes = st.integers(1, 25).map(lambda words: 4 * words)
received = st.tuples(st.sampled_from((FLOOD, FLOOD, OTHER)), sizes.map(bytes))


class Wire:
    """A legal sender and a receiver, flow control alone, and what is under way between them."""

    def __init__(self, config: FlowControlConfig, to_send: list[Item]) -> None:
        self.sender, self.receiver = FlowControl(), FlowControl(config)
        self.to_send = deque(to_send)
        self.forth: deque[Item] = deque()
        self.processing: deque[Item] = deque()
        self.back = deque([self.receiver.initial_grant()])
        self.done: list[Item] = []
        self.granted: list[SendMoreCapacity] = []

    def act(self, action: int) -> bool:
        """Do one of four things; tell whether it could be done."""
        return (self._send, self._receive, self._process, self._hear)[action]()

    def _send(self) -> bool:
        if not self.to_send:
            return False
        kind, body = self.to_send[0]
        if kind in FLOOD_KINDS:
            if not self.sender.may_send(len(body)):
                return False
            self.sender.spend(len(body))
        self.forth.append(self.to_send.popleft())
        return True

    def _receive(self) -> bool:
        taken, violation = self.receiver.begin(list(self.forth))
        assert violation is None
        self.processing.extend(self.forth.popleft() for _ in range(taken))
        return bool(taken)

    def _process(self) -> bool:
        if not self.processing:
            return False
        item = self.processing.popleft()
        self.done.append(item)
        grants = self.receiver.end([item])
        self.back.extend(grants)
        self.granted.extend(grants)
        return True

    def _hear(self) -> bool:
        if not self.back:
            return False
        grant = self.back.popleft()
        self.sender.maybe_release_capacity(grant.num_flood_messages, grant.num_flood_bytes, 0.0)
        return True

    def in_circulation(self) -> tuple[int, int]:
        """Return all messages and bytes of credit that there are: to be used, or in use."""
        in_use = [*self.forth, *self.processing, *self.done]
        taken = [len(body) for kind, body in in_use if kind in FLOOD_KINDS]
        back = list(self.back)
        return (
            self.sender.out_messages
            + len(taken)
            + sum(grant.num_flood_messages for grant in back)
            - sum(grant.num_flood_messages for grant in self.granted),
            self.sender.out_bytes
            + sum(taken)
            + sum(grant.num_flood_bytes for grant in back)
            - sum(grant.num_flood_bytes for grant in self.granted),
        )


class FlowControlTests(SynchronousTestCase):
    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(configs(100), st.lists(received, max_size=60), st.lists(st.integers(0, 3), max_size=200))
    def test_legal_sender(
        self, config: FlowControlConfig, to_send: list[Item], actions: list[int]
    ) -> None:
        """Credit is conserved at every step, nobody is dropped, and all gets through."""
        wire = Wire(config, to_send)
        total = config.peer_flood_reading_capacity, config.peer_flood_reading_capacity_bytes
        for action in actions:
            wire.act(action)
            self.assertEqual(wire.in_circulation(), total)
        while any(wire.act(action) for action in range(4)):
            self.assertEqual(wire.in_circulation(), total)
        self.assertEqual(wire.done, to_send)
        self.assertEqual(wire.receiver.get_stats().local_flood_capacity, total[0])

    @settings(derandomize=True, max_examples=150, deadline=None)
    @given(configs(100), st.lists(received, max_size=30), st.integers(0, 30))
    def test_batches_make_no_difference(
        self, config: FlowControlConfig, items: list[Item], cut: int
    ) -> None:
        """Many messages begun and ended at once are what they are one by one."""
        at_once, singly, halves = FlowControl(config), FlowControl(config), FlowControl(config)
        taken, violation = at_once.begin(items)
        one_by_one = 0
        for item in items:
            if singly.begin([item]) != (1, None):
                break
            one_by_one += 1
        first, _ = halves.begin(items[:cut])
        second = halves.begin(items[cut:])[0] if first == min(cut, len(items)) else 0
        self.assertEqual((one_by_one, first + second), (taken, taken))
        refused = singly.begin(items[taken : taken + 1])[1]
        self.assertEqual(refused is None, violation is None)
        self.assertEqual((singly.get_stats(), halves.get_stats()), (at_once.get_stats(),) * 2)
        expected = at_once.end(items[:taken])
        self.assertEqual([g for item in items[:taken] for g in singly.end([item])], expected)
        self.assertEqual(halves.end(items[:cut][:taken]) + halves.end(items[cut:taken]), expected)
        self.assertEqual((singly.get_stats(), halves.get_stats()), (at_once.get_stats(),) * 2)

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(configs(100), st.lists(sizes, max_size=80))
    def test_grants_are_what_was_processed(
        self, config: FlowControlConfig, processed: list[int]
    ) -> None:
        """Each grant is a run of what was processed, and ends where a batch is full."""
        flow = FlowControl(config)
        run: list[int] = []
        for size in processed:
            flow.begin([(FLOOD, bytes(size))])
            run.append(size)
            is_due = len(run) >= config.flow_control_send_more_batch_size
            is_due = is_due or sum(run) >= config.bytes_batch
            grants_ = flow.end([(FLOOD, bytes(size))])
            expected = [(len(run), sum(run))] if is_due else []
            self.assertEqual([(g.num_flood_messages, g.num_flood_bytes) for g in grants_], expected)
            if is_due:
                run.clear()


def message(number: int, kind: int, size: int) -> Message:
    """Return a message of up to 1,200 bytes; no two of different numbers are equal."""
    return (
        lambda: advert(number, 1 + size % 30),
        lambda: demand(number, 1 + size % 30),
        lambda: transaction(96 + 4 * size, number),
        lambda: scp_prepare(1 + number, value=bytes(size)),
        lambda: get_tx_set(number),
    )[kind]()


moves = st.one_of(
    st.tuples(st.just("send"), st.booleans(), st.integers(0, 4), st.integers(0, 270)),
    st.tuples(st.just("release"), st.booleans(), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("step"), st.booleans(), st.just(0), st.just(0)),
)


class SessionTests(SynchronousTestCase):
    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(
        configs(1200),
        configs(1200),
        st.lists(moves, max_size=80),
        st.sampled_from((1, 7, 60, 61, 1000, 65536)),
    )
    def test_all_arrives(
        self,
        caller: FlowControlConfig,
        callee: FlowControlConfig,
        steps: list[tuple[str, bool, int, int]],
        read_size: int,
    ) -> None:
        """However it is chopped and held: all arrives in order and once, and nobody is dropped."""
        pair = LivePair(
            configs=(SessionConfig(flow_control=caller), SessionConfig(flow_control=callee))
        )
        pair.READ_SIZE = read_size
        sides = {False: pair.callee, True: pair.caller}
        pushed: dict[bool, list[Message]] = {False: [], True: []}
        for side in sides.values():
            side.messages.clear()
            side.holds_credit = True
        for number, (what, who, kind, size) in enumerate(steps):
            if what == "send":
                pushed[who].append(message(number, kind, size))
                self.assertTrue(sides[who].session.send(pushed[who][-1], pair.now))
            elif what == "release":
                pair.release(sides[who], kind)
            else:
                pair.step()
        pair.settle()
        while pair.caller.held or pair.callee.held:
            for side in sides.values():
                pair.release(side, 3)
            pair.settle()
        for who, side in sides.items():
            other = pair.other(side)
            self.assertIsNone(side.reason)
            for kind_ in (*FLOOD_TYPES, MessageType.GET_TX_SET):
                expected = [sent for sent in pushed[who] if sent.type is kind_]
                self.assertEqual(other.of_type(kind_), expected)
            granted = grants(side)
            config = side.session.config.flow_control
            self.assertEqual(
                granted[0],
                (config.peer_flood_reading_capacity, config.peer_flood_reading_capacity_bytes),
            )
            arrived = [m for m in side.messages if m.type in FLOOD_TYPES]
            count = sum(messages for messages, _ in granted[1:])
            self.assertLess(len(arrived) - count, config.flow_control_send_more_batch_size)
            spent = other.session.flow_control
            self.assertEqual(
                spent.out_messages + len(arrived), sum(messages for messages, _ in granted)
            )
            self.assertEqual(
                spent.out_bytes + sum(m.size for m in arrived), sum(size for _, size in granted)
            )

    @settings(derandomize=True, max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 100)), max_size=25))
    def test_over_spender(self, kinds: list[tuple[int, int]]) -> None:
        """All that fits into credit comes out; the first message beyond it ends the link."""
        config = FlowControlConfig(
            peer_reading_capacity=1000,
            peer_flood_reading_capacity=9,
            flow_control_send_more_batch_size=2,
            peer_flood_reading_capacity_bytes=3000,
        )
        mouth = ByHand(Pair(configs=(SessionConfig(flow_control=config),) * 2))
        mouth.go_to(AuthState.GOT_AUTH)
        said = [message(number, kind, size) for number, (kind, size) in enumerate(kinds)]
        count, size, fits = 0, 0, 0
        for item in said:
            if item.type in FLOOD_TYPES:
                count, size = count + 1, size + item.size
            if count > 9 or size > 3000:
                break
            fits += 1
        mouth.say(*[mouth.sealed(item.body) for item in said])
        self.assertEqual(mouth.side.messages, said[:fits])
        expected = None if fits == len(said) else DropReason.AT_CAPACITY
        self.assertEqual(mouth.side.kind, expected)
