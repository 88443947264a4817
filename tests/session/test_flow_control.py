"""Credit alone, with exact numbers: what is taken, what is given back, and when it is granted."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.session.flow_control import (
    FlowControl,
    FlowControlConfig,
    FlowControlStats,
    Item,
    SendMoreCapacity,
)
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import advert, demand, get_tx_set, transaction

READ_FLOOR = MAX_MESSAGE_SIZE + 4


def items(*messages: Message) -> list[Item]:
    """Return messages as flow control sees them."""
    return [(int(message.type), message.body) for message in messages]


def adverts(count: int, hashes: int = 1) -> list[Item]:
    """Return so many adverts of 8 + 32 * hashes bytes each."""
    return items(*[advert(number, hashes) for number in range(count)])


def queries(count: int) -> list[Item]:
    """Return so many messages of 36 bytes that are not flooded."""
    return items(*[get_tx_set(number) for number in range(count)])


def flow_with(
    *, messages: int = 200, batch: int = 40, capacity_bytes: int = 0, batch_bytes: int = 0
) -> FlowControl:
    """Return flow control with these settings, and one message in all more than flooded ones."""
    config = FlowControlConfig(
        peer_reading_capacity=messages + 1,
        peer_flood_reading_capacity=messages,
        flow_control_send_more_batch_size=batch,
        peer_flood_reading_capacity_bytes=capacity_bytes,
        flow_control_send_more_batch_size_bytes=batch_bytes,
    )
    return FlowControl(config)


class InitialGrantTests(SynchronousTestCase):
    def test_default(self) -> None:
        """200 messages and 300,000 bytes."""
        self.assertEqual(FlowControl().initial_grant(), SendMoreCapacity(200, 300_000))

    def test_fixed(self) -> None:
        """Fixed settings are granted as they are."""
        flow = flow_with(messages=7, batch=3, capacity_bytes=5000, batch_bytes=10)
        self.assertEqual(flow.initial_grant(), SendMoreCapacity(7, 5000))

    def test_computed_when_it_is_sent(self) -> None:
        """A largest transaction that changes during the handshake counts (connection.md 6.1)."""
        flow = FlowControl(max_tx_size=102_400)
        flow.max_tx_size = 250_000
        self.assertEqual(flow.initial_grant(), SendMoreCapacity(200, 350_000))
        self.assertEqual(flow.get_stats().local_flood_bytes_capacity, 350_000)

    def test_stats_of_a_fresh_link(self) -> None:
        """All of our capacity is there, nothing of the peer's."""
        self.assertEqual(
            FlowControl().get_stats(),
            FlowControlStats(
                local_flood_capacity=200,
                local_total_capacity=201,
                peer_message_capacity=0,
                local_flood_bytes_capacity=300_000,
                local_total_bytes_capacity=READ_FLOOR + 1_048_576,
                peer_bytes_capacity=0,
                is_throttled=False,
            ),
        )


class BeginTests(SynchronousTestCase):
    def test_flood_message_takes_from_all_four(self) -> None:
        """An advert of one hash takes one message and 40 bytes, of both capacities."""
        flow = FlowControl()
        self.assertEqual(flow.begin(adverts(1)), (1, None))
        stats = flow.get_stats()
        self.assertEqual(stats.local_flood_capacity, 199)
        self.assertEqual(stats.local_total_capacity, 200)
        self.assertEqual(stats.local_flood_bytes_capacity, 299_960)
        self.assertEqual(stats.local_total_bytes_capacity, READ_FLOOR + 1_048_536)

    def test_other_message_takes_from_the_totals(self) -> None:
        """A query of 36 bytes leaves the credit for flooding as it is."""
        flow = FlowControl()
        flow.begin(queries(1))
        stats = flow.get_stats()
        self.assertEqual((stats.local_flood_capacity, stats.local_total_capacity), (200, 200))
        self.assertEqual(stats.local_flood_bytes_capacity, 300_000)
        self.assertEqual(stats.local_total_bytes_capacity, READ_FLOOR + 1_048_540)

    def test_which_types_are_flooded(self) -> None:
        """Exactly TRANSACTION, SCP_MESSAGE, FLOOD_ADVERT and FLOOD_DEMAND use up credit."""
        flooded = set()
        for kind in MessageType:
            flow = FlowControl()
            flow.begin([(int(kind), bytes(8))])
            if flow.get_stats().local_flood_capacity == 199:
                flooded.add(kind)
        self.assertEqual(
            flooded,
            {
                MessageType.TRANSACTION,
                MessageType.SCP_MESSAGE,
                MessageType.FLOOD_ADVERT,
                MessageType.FLOOD_DEMAND,
            },
        )

    def test_no_hashes(self) -> None:
        """Row 48: an empty advert or demand costs one message and 8 bytes."""
        flow = FlowControl()
        self.assertEqual(flow.begin(items(advert(hashes=0), demand(hashes=0))), (2, None))
        stats = flow.get_stats()
        self.assertEqual(stats.local_flood_capacity, 198)
        self.assertEqual(stats.local_flood_bytes_capacity, 300_000 - 16)

    def test_nothing(self) -> None:
        """Nothing at all can always begin, and end."""
        flow = FlowControl()
        self.assertEqual((flow.begin([]), flow.end([])), ((0, None), []))


class TotalCapacityTests(SynchronousTestCase):
    """What is in processing, of any type, decides whether we read on."""

    def test_messages(self) -> None:
        """Of 250 queries 201 are taken, the others wait; each that ends lets one more in."""
        flow = FlowControl()
        waiting = queries(250)
        self.assertEqual(flow.begin(waiting), (201, None))
        self.assertFalse(flow.can_read)
        self.assertEqual(flow.begin(waiting[201:]), (0, None))
        flow.end(waiting[:1])
        self.assertTrue(flow.can_read)
        self.assertEqual(flow.begin(waiting[201:]), (1, None))

    def test_bytes(self) -> None:
        """Reading goes on while what is in processing is below the configured bytes."""
        for capacity, taken in ((971, 27), (972, 27), (973, 28), (1008, 28), (1009, 29), (1, 1)):
            flow = FlowControl(FlowControlConfig(peer_total_reading_capacity_bytes=capacity))
            self.assertEqual(flow.begin(queries(40)), (taken, None), f"{capacity} bytes")
            self.assertFalse(flow.can_read)

    def test_exactly_all_bytes(self) -> None:
        """28 queries of 36 bytes fill 1,008 bytes; nothing more fits then."""
        flow = FlowControl(FlowControlConfig(peer_total_reading_capacity_bytes=1008))
        self.assertEqual(flow.begin(queries(28)), (28, None))
        self.assertFalse(flow.can_read)
        self.assertEqual(flow.get_stats().local_total_bytes_capacity, READ_FLOOR)

    def test_largest_message_fits_into_one_byte(self) -> None:
        """The floor of 16 MiB + 4: a message of any size begins when a byte is left."""
        flow = FlowControl(FlowControlConfig(peer_total_reading_capacity_bytes=1))
        largest = [(int(MessageType.GENERALIZED_TX_SET), bytes(MAX_MESSAGE_SIZE))]
        self.assertEqual(flow.begin(largest), (1, None))
        self.assertEqual(flow.get_stats().local_total_bytes_capacity, 5)
        self.assertFalse(flow.can_read)
        self.assertEqual(flow.begin(queries(1)), (0, None))
        flow.end(largest)
        self.assertEqual(flow.begin(queries(1)), (1, None))

    def test_flood_messages_count_as_well(self) -> None:
        """200 adverts in processing leave room for one query, of 201 messages in all."""
        flow = FlowControl()
        flow.begin(adverts(200))
        self.assertTrue(flow.can_read)
        self.assertEqual(flow.begin(queries(2)), (1, None))

    def test_spent_capacity_comes_before_credit(self) -> None:
        """While nothing can be read, a message over credit is not looked at: it waits."""
        flow = FlowControl(FlowControlConfig(peer_total_reading_capacity_bytes=40))
        flow.begin(queries(1))
        flow.begin(queries(1))
        too_large = [(int(MessageType.TRANSACTION), bytes(400_000))]
        self.assertEqual(flow.begin(too_large), (0, None))
        flow.end(queries(2))
        taken, violation = flow.begin(too_large)
        assert violation is not None
        self.assertEqual((taken, violation.kind), (0, DropReason.AT_CAPACITY))

    def test_throttle_time(self) -> None:
        """Stopping is noted once, and going on tells for how long it lasted."""
        flow = FlowControl()
        self.assertFalse(flow.maybe_throttle_read(1.0))
        flow.begin(queries(201))
        self.assertTrue(flow.maybe_throttle_read(2.0))
        self.assertTrue(flow.maybe_throttle_read(3.0))
        self.assertTrue(flow.is_throttled)
        flow.end(queries(1))
        self.assertEqual(flow.stop_throttling(4.5), 2.5)
        self.assertFalse(flow.is_throttled)
        self.assertEqual(flow.stop_throttling(5.0), 0.0)


class OverCreditTests(SynchronousTestCase):
    """DECISIONS 3b: a peer may never have sent more than it was granted."""

    def assert_over(self, flow: FlowControl, batch: Sequence[Item], taken: int) -> None:
        """Check that ``taken`` messages begin and that the next one ends the link, silently."""
        got, violation = flow.begin(batch)
        assert violation is not None
        self.assertEqual(got, taken)
        self.assertEqual(violation.reason, "unexpected flood message, peer at capacity")
        self.assertEqual(violation.kind, DropReason.AT_CAPACITY)
        self.assertIsNone(violation.code)

    def test_count(self) -> None:
        """The 201st flood message."""
        self.assert_over(FlowControl(), adverts(201), 200)

    def test_bytes(self) -> None:
        """Nine adverts of 1,000 hashes are 288,072 bytes; the tenth is beyond 300,000."""
        self.assert_over(FlowControl(), adverts(10, hashes=1000), 9)

    def test_single_message(self) -> None:
        """One flood message greater than F; one of exactly F is legal."""
        self.assert_over(FlowControl(), items(transaction(300_004)), 0)
        self.assertEqual(FlowControl().begin(items(transaction(300_000))), (1, None))
        self.assert_over(FlowControl(), items(transaction(300_000), advert()), 1)

    def test_credit_returns_with_the_grant(self) -> None:
        """What was processed and not granted yet may not be sent again."""
        flow = FlowControl()
        self.assertEqual(flow.begin(adverts(200)), (200, None))
        self.assertEqual(flow.end(adverts(39)), [])
        self.assertEqual(flow.get_stats().local_flood_capacity, 39)
        self.assert_over(flow, adverts(1), 0)
        self.assertEqual(flow.end(adverts(1)), [SendMoreCapacity(40, 1600)])
        self.assertEqual(flow.begin(adverts(40)), (40, None))

    def test_nothing_leaks_when_bytes_fail(self) -> None:
        """Y12: a message refused for its bytes has taken neither count nor bytes."""
        flow = FlowControl()
        before = flow.get_stats()
        self.assert_over(flow, items(transaction(300_004)), 0)
        self.assertFalse(flow.begin_message_processing(transaction(300_004)))
        self.assertEqual(flow.get_stats(), before)

    def test_nothing_leaks_when_the_count_fails(self) -> None:
        """Y12, the reverse: refused for the count, no bytes are taken."""
        flow = flow_with(messages=1, batch=1)
        flow.begin(adverts(1))
        before = flow.get_stats()
        self.assert_over(flow, adverts(1), 0)
        self.assertFalse(flow.begin_message_processing(advert()))
        self.assertEqual(flow.get_stats(), before)

    def test_what_came_before_stays_taken(self) -> None:
        """The messages before the one at fault are in processing; those behind it are not."""
        flow = FlowControl()
        self.assert_over(flow, adverts(201) + queries(1), 200)
        self.assertEqual(flow.get_stats().local_total_capacity, 1)
        self.assertEqual(flow.get_stats().local_flood_bytes_capacity, 300_000 - 8000)
