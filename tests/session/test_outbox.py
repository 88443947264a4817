"""What waits for one peer: the order in which it leaves, and what is shed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.session import outbox as outbox_module
from stellar_overlay.session.flow_control import FlowControl, SendMoreCapacity
from stellar_overlay.session.outbox import (
    MAX_CONTROL,
    MAX_GRANTS,
    SMALL_ANSWER_BYTES,
    MessagePriority,
    Outbox,
    OutboxConfig,
)
from stellar_overlay.wire.message import (
    Message,
    decode_send_more_extended,
    encode_send_more_extended,
)
from tests.builders import (
    advert,
    demand,
    get_tx_set,
    quorum_set,
    scp_externalize,
    scp_prepare,
    transaction,
)

SCP, TX, DEMAND, ADVERT = MessagePriority
PLENTY = 10**9


def make_outbox(
    messages: int = 0, size: int = PLENTY, *, max_tx_size: int = 102_400, **config: object
) -> tuple[Outbox, FlowControl]:
    """Return an outbox, and its flow control with so much credit from the peer; 0 is none yet."""
    flow = FlowControl(max_tx_size=max_tx_size)
    if messages:
        flow.maybe_release_capacity(messages, size, 0.0)
    return Outbox(flow, OutboxConfig(**config)), flow  # type: ignore[arg-type]


def leave(outbox: Outbox, now: float = 0.0) -> list[bytes]:
    """Return all that leaves now."""
    return outbox.get_next_batch_to_send(PLENTY, PLENTY, now)[0]


def bodies(*messages: Message) -> list[bytes]:
    """Return the bodies of messages."""
    return [message.body for message in messages]


def answer_of(size: int) -> Message:
    """Return something that is not flooded, of so many bytes; well-formed in its type only."""
    return Message(b"\0\0\0\7" + bytes(size - 4))


LARGE = answer_of(400)


class Budget:
    """Bytes that answers share, without any rule of fairness; notes what it is asked."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.asked: list[tuple[int, int]] = []

    def take(self, size: int, own: int) -> bool:
        self.asked.append((size, own))
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        self.left += size


class PriorityTests(SynchronousTestCase):
    def test_order_of_the_four(self) -> None:
        """SCP, transactions, demands, adverts; what is not flooded goes before them all."""
        outbox, _ = make_outbox(10)
        mixed = [advert(1), demand(1), transaction(), scp_prepare(), get_tx_set()]
        for message in mixed:
            self.assertTrue(outbox.add(message, 0.0))
        self.assertEqual(leave(outbox), bodies(*reversed(mixed)))

    def test_first_in_first_out(self) -> None:
        """Within a queue messages keep their order."""
        outbox, _ = make_outbox(10)
        waiting = [advert(number) for number in range(10)]
        for message in waiting:
            outbox.add(message, 0.0)
        self.assertEqual(leave(outbox), bodies(*waiting))

    def test_not_flooded_keeps_its_order(self) -> None:
        """Queries, answers and the protocol's own messages leave as they came."""
        outbox, _ = make_outbox()
        grant = Message(encode_send_more_extended(1, 1))
        outbox.add(get_tx_set(1), 0.0)
        outbox.add_control(grant.body, 0.0)
        outbox.add(quorum_set(3), 0.0)
        outbox.add(get_tx_set(2), 0.0)
        expected = bodies(get_tx_set(1), grant, quorum_set(3), get_tx_set(2))
        self.assertEqual(leave(outbox), expected)


class CreditTests(SynchronousTestCase):
    def test_no_credit(self) -> None:
        """Without a grant nothing flooded leaves; everything else does."""
        outbox, _ = make_outbox()
        for message in (scp_prepare(), transaction(), demand(), advert(), get_tx_set()):
            self.assertTrue(outbox.add(message, 0.0))
        self.assertEqual(leave(outbox), bodies(get_tx_set()))

    def test_exactly_the_messages(self) -> None:
        """Three messages of credit let three leave; the next grant lets the next leave."""
        outbox, flow = make_outbox(3)
        for number in range(5):
            outbox.add(advert(number), 0.0)
        self.assertEqual(leave(outbox), bodies(advert(0), advert(1), advert(2)))
        self.assertEqual((leave(outbox), flow.out_messages), ([], 0))
        flow.maybe_release_capacity(1, 1, 1.0)
        self.assertEqual(leave(outbox), bodies(advert(3)))

    def test_exactly_the_bytes(self) -> None:
        """120 bytes are three adverts of one hash; 119 are two."""
        for size, count in ((120, 3), (119, 2)):
            outbox, flow = make_outbox(10, size)
            for number in range(5):
                outbox.add(advert(number), 0.0)
            self.assertEqual(len(leave(outbox)), count)
            self.assertEqual((flow.out_messages, flow.out_bytes), (10 - count, size - count * 40))

    def test_blocked_head_blocks_its_own_queue(self) -> None:
        """A small transaction does not overtake one that does not fit."""
        outbox, _ = make_outbox(10, 1000)
        outbox.add(transaction(2000, 1), 0.0)
        outbox.add(transaction(200, 2), 0.0)
        self.assertEqual(leave(outbox), [])

    def test_blocked_head_does_not_block_lower_queues(self) -> None:
        """Y14: behind an SCP message that does not fit, the three lower queues go on."""
        outbox, _ = make_outbox(10, 500)
        large = scp_prepare(value=bytes(600))
        for message in (large, transaction(200), transaction(400), demand(), advert()):
            outbox.add(message, 0.0)
        self.assertEqual(leave(outbox), bodies(transaction(200), demand(), advert()))
        self.assertEqual([outbox.queue_size(p) for p in MessagePriority], [1, 1, 0, 0])

    def test_want_of_credit_is_noted(self) -> None:
        """Only when something waits for it, and from the first attempt on."""
        outbox, flow = make_outbox(1)
        leave(outbox, 1.0)
        self.assertIsNone(flow.no_capacity_since)
        outbox.add(advert(1), 2.0)
        leave(outbox, 2.0)
        self.assertIsNone(flow.no_capacity_since)
        outbox.add(advert(2), 3.0)
        leave(outbox, 4.0)
        leave(outbox, 5.0)
        self.assertEqual(flow.no_capacity_since, 4.0)

    def test_waiting_alone_notes_nothing(self) -> None:
        """Queueing is no attempt: while the transport is stalled nobody wants for credit."""
        outbox, flow = make_outbox(1)
        for number in range(3):
            outbox.add(advert(number), 0.0)
        self.assertIsNone(flow.no_capacity_since)


class BatchTests(SynchronousTestCase):
    """Connection.md 1.3: a batch ends at either limit, with the message that reaches it."""

    def test_count(self) -> None:
        """At most so many messages a batch, control and flood together."""
        outbox, _ = make_outbox(10)
        waiting = [get_tx_set(1), get_tx_set(2), advert(1), advert(2), advert(3)]
        for message in waiting:
            outbox.add(message, 0.0)
        batches = [outbox.get_next_batch_to_send(3, PLENTY, 0.0)[0] for _ in range(3)]
        self.assertEqual(batches, [bodies(*waiting[:3]), bodies(*waiting[3:]), []])

    def test_bytes(self) -> None:
        """The message that crosses the limit is included; at the limit the batch ends."""
        for limit, count in ((1, 1), (36, 1), (37, 2), (76, 2), (77, 3), (116, 3)):
            outbox, _ = make_outbox(10)
            for message in (get_tx_set(1), advert(1), advert(2), advert(3)):
                outbox.add(message, 0.0)
            batch, _ = outbox.get_next_batch_to_send(PLENTY, limit, 0.0)
            self.assertEqual(len(batch), count, f"limit {limit}")

    def test_bytes_of_what_is_not_flooded(self) -> None:
        """The same limit holds for answers and the protocol's own messages."""
        for limit, count in ((36, 1), (37, 2), (72, 2), (73, 3)):
            outbox, _ = make_outbox()
            for number in range(4):
                outbox.add(get_tx_set(number), 0.0)
            batch, _ = outbox.get_next_batch_to_send(PLENTY, limit, 0.0)
            self.assertEqual(len(batch), count, f"limit {limit}")

    def test_batches_lose_nothing(self) -> None:
        """Batches of any limits, put together, are what one batch would have been."""
        waiting = [scp_prepare(), *map(transaction, range(100, 200, 4)), demand(), advert()]
        whole, _ = make_outbox(PLENTY)
        parts, _ = make_outbox(PLENTY)
        for message in waiting:
            whole.add(message, 0.0)
            parts.add(message, 0.0)
        left: list[bytes] = []
        while batch := parts.get_next_batch_to_send(3, 250, 0.0)[0]:
            left += batch
        self.assertEqual(left, leave(whole))

    def test_a_full_batch_notes_no_want(self) -> None:
        """What a batch has no room for does not wait for credit."""
        outbox, flow = make_outbox(1)
        outbox.add(get_tx_set(), 0.0)
        outbox.add(advert(1), 0.0)
        outbox.add(advert(2), 0.0)
        outbox.get_next_batch_to_send(1, PLENTY, 1.0)
        self.assertIsNone(flow.no_capacity_since)

    def test_since_when_the_last_might_have_left(self) -> None:
        """Of the last message of the batch it is told when it was queued."""
        outbox, _ = make_outbox(10)
        outbox.add(advert(), 3.0)
        outbox.add(get_tx_set(), 7.0)
        self.assertEqual(outbox.get_next_batch_to_send(1, PLENTY, 9.0)[1], 7.0)
        self.assertEqual(outbox.get_next_batch_to_send(1, PLENTY, 9.0)[1], 3.0)
        self.assertEqual(outbox.get_next_batch_to_send(1, PLENTY, 9.0), ([], 9.0))

    def test_waiting_for_credit_does_not_count(self) -> None:
        """A message that waited for a grant might have left since that grant (TCPPeer.cpp:225)."""
        outbox, flow = make_outbox(1)
        outbox.add(advert(1), 1.0)
        outbox.add(advert(2), 2.0)
        self.assertEqual(outbox.get_next_batch_to_send(9, PLENTY, 3.0)[1], 1.0)
        leave(outbox, 4.0)
        flow.maybe_release_capacity(5, 1000, 100.0)
        flow.maybe_release_capacity(5, 1000, 104.0)
        self.assertEqual(outbox.get_next_batch_to_send(9, PLENTY, 110.0)[1], 100.0)


class GrantTests(SynchronousTestCase):
    """Grants to a peer that takes none of them."""

    def test_one_by_one(self) -> None:
        """Each grant leaves as it is, before anything flooded."""
        outbox, _ = make_outbox()
        for messages in (40, 40, 3):
            outbox.add_grant(SendMoreCapacity(messages, 100 * messages), 0.0)
        self.assertEqual(
            leave(outbox),
            [encode_send_more_extended(n, 100 * n) for n in (40, 40, 3)],
        )

    def test_too_many_become_one(self) -> None:
        """What waits stays bounded, and nothing that was granted is lost."""
        outbox, _ = make_outbox()
        for _ in range(10_000):
            outbox.add_grant(SendMoreCapacity(40, 100_000), 0.0)
        grants = [decode_send_more_extended(body) for body in leave(outbox)]
        self.assertEqual(len(grants), MAX_GRANTS)
        self.assertEqual(sum(messages for messages, _ in grants), 400_000)
        self.assertEqual(sum(size for _, size in grants), 10**9)

    def test_no_grant_overflows(self) -> None:
        """A grant holds 2^32 - 1 of each; what is more goes into another, and nothing is lost."""
        for messages, size in ((1, 2**31), (2**31, 1), (2**31, 2**31)):
            outbox, _ = make_outbox()
            for _ in range(100):
                outbox.add_grant(SendMoreCapacity(messages, size), 0.0)
            grants = [decode_send_more_extended(body) for body in leave(outbox)]
            self.assertEqual(sum(count for count, _ in grants), 100 * messages)
            self.assertEqual(sum(total for _, total in grants), 100 * size)

    def test_a_grant_is_filled_to_the_brim(self) -> None:
        """Exactly 2^32 - 1 still go into one grant, of messages and of bytes; one more does not."""
        for first, more in (((2**32 - 2, 1), (1, 1)), ((1, 2**32 - 2), (1, 1))):
            outbox, _ = make_outbox()
            for _ in range(MAX_GRANTS - 1):
                outbox.add_grant(SendMoreCapacity(1, 1), 0.0)
            for grant in (first, more, more):
                outbox.add_grant(SendMoreCapacity(*grant), 0.0)
            full = encode_send_more_extended(first[0] + 1, first[1] + 1)
            last = encode_send_more_extended(*more)
            self.assertEqual(leave(outbox)[MAX_GRANTS - 1 :], [full, last])

    def test_counts_anew_when_they_left(self) -> None:
        """Once the peer takes them, grants are one by one again."""
        outbox, _ = make_outbox()
        for _ in range(MAX_GRANTS + 5):
            outbox.add_grant(SendMoreCapacity(1, 1), 0.0)
        leave(outbox)
        outbox.add_grant(SendMoreCapacity(1, 1), 0.0)
        outbox.add_grant(SendMoreCapacity(2, 2), 0.0)
        self.assertEqual(
            leave(outbox), [encode_send_more_extended(1, 1), encode_send_more_extended(2, 2)]
        )


class TransactionLimitTests(SynchronousTestCase):
    def test_count(self) -> None:
        """F24: at L + 1 the whole queue goes, the new one included; nine of L + 10 remain."""
        outbox, _ = make_outbox(max_tx_set_size_ops=20)
        kept = [outbox.add(transaction(200, number), 0.0) for number in range(30)]
        self.assertEqual(kept, [True] * 20 + [False] + [True] * 9)
        self.assertEqual((outbox.queue_size(TX), outbox.queue_weight(TX)), (9, 1800))
        self.assertEqual(outbox.dropped(TX), 21)

    def test_bytes(self) -> None:
        """F25: of three, with room for one and a half, the second clears both; one remains."""
        outbox, _ = make_outbox(outbound_tx_queue_byte_limit=300)
        kept = [outbox.add(transaction(200, number), 0.0) for number in range(3)]
        self.assertEqual(kept, [True, False, True])
        self.assertEqual((outbox.queue_size(TX), outbox.queue_weight(TX)), (1, 200))
        self.assertEqual(outbox.dropped(TX), 2)

    def test_exactly_at_the_limits(self) -> None:
        """L transactions of exactly the byte limit are no overload."""
        outbox, _ = make_outbox(max_tx_set_size_ops=4, outbound_tx_queue_byte_limit=800)
        for number in range(4):
            self.assertTrue(outbox.add(transaction(200, number), 0.0))
        self.assertEqual((outbox.queue_size(TX), outbox.dropped(TX)), (4, 0))

    def test_too_large(self) -> None:
        """F9: a transaction over the network's limit is never queued and clears nothing."""
        outbox, _ = make_outbox(max_tx_size=200)
        self.assertTrue(outbox.add(transaction(200, 1), 0.0))
        self.assertFalse(outbox.add(transaction(204, 2), 0.0))
        self.assertEqual((outbox.queue_size(TX), outbox.queue_weight(TX)), (1, 200))

    def test_what_left_does_not_count(self) -> None:
        """Transactions that have left make room."""
        outbox, _ = make_outbox(10, max_tx_set_size_ops=2)
        for number in range(8):
            self.assertTrue(outbox.add(transaction(200, number), 0.0))
            self.assertEqual(len(leave(outbox)), 1)
        self.assertEqual((outbox.queue_weight(TX), outbox.dropped(TX)), (0, 0))

    def test_limit_follows_the_ledger(self) -> None:
        """L is the network's largest tx set now: it applies from the next message on."""
        outbox, _ = make_outbox(max_tx_set_size_ops=10)
        for number in range(5):
            outbox.add(transaction(200, number), 0.0)
        outbox.max_tx_set_size_ops = 3
        self.assertEqual(outbox.queue_size(TX), 5)
        self.assertFalse(outbox.add(transaction(200, 5), 0.0))
        self.assertEqual(outbox.queue_size(TX), 0)


class HashLimitTests(SynchronousTestCase):
    """F29: adverts and demands are limited by the number of their hashes, each for itself."""

    def test_hashes(self) -> None:
        """Of L + 10 with one hash nine remain, whatever the byte limit; then one of two: ten."""
        outbox, _ = make_outbox(max_tx_set_size_ops=20, outbound_tx_queue_byte_limit=1)
        for make, priority in ((advert, ADVERT), (demand, DEMAND)):
            for number in range(30):
                outbox.add(make(number), 0.0)
            self.assertEqual(outbox.queue_size(priority), 9)
            outbox.add(make(99, 2), 0.0)
            self.assertEqual((outbox.queue_size(priority), outbox.queue_weight(priority)), (10, 11))
            self.assertEqual(outbox.dropped(priority), 21)

    def test_hashes_not_messages(self) -> None:
        """One message of more than L hashes is too much; one of L is not."""
        outbox, _ = make_outbox(max_tx_set_size_ops=20)
        self.assertTrue(outbox.add(advert(1, 20), 0.0))
        self.assertFalse(outbox.add(advert(2, 1), 0.0))
        self.assertFalse(outbox.add(advert(3, 21), 0.0))
        self.assertEqual((outbox.queue_size(ADVERT), outbox.dropped(ADVERT)), (0, 42))

    def test_others_are_left_alone(self) -> None:
        """An overload of one kind sheds nothing of another."""
        outbox, _ = make_outbox(max_tx_set_size_ops=2)
        outbox.add(transaction(), 0.0)
        outbox.add(demand(1), 0.0)
        outbox.add(scp_externalize(), 0.0)
        for number in range(3):
            outbox.add(advert(number), 0.0)
        self.assertEqual([outbox.queue_size(p) for p in MessagePriority], [1, 1, 1, 0])


class AnswerLimitTests(SynchronousTestCase):
    """A peer that asks and does not read is answered nothing more, at some point."""

    def test_limit(self) -> None:
        """Answers fill the limit exactly; the next is refused."""
        outbox, _ = make_outbox(answer_byte_limit=2 * LARGE.size)
        self.assertTrue(outbox.add(LARGE, 0.0))
        self.assertTrue(outbox.add(LARGE, 0.0))
        self.assertEqual(outbox.answer_bytes, 2 * LARGE.size)
        self.assertFalse(outbox.add(answer_of(SMALL_ANSWER_BYTES + 4), 0.0))
        self.assertEqual(leave(outbox), bodies(LARGE, LARGE))
        outbox, _ = make_outbox(answer_byte_limit=LARGE.size - 1)
        self.assertFalse(outbox.add(LARGE, 0.0))

    def test_what_is_small_is_not_counted(self) -> None:
        """Up to 256 bytes: what we ask, and that we have not what was asked for, always leaves."""
        self.assertEqual(SMALL_ANSWER_BYTES, 256)
        outbox, _ = make_outbox(answer_byte_limit=LARGE.size)
        outbox.add(LARGE, 0.0)
        small = [get_tx_set(), answer_of(256), quorum_set(3)]
        self.assertEqual([outbox.add(message, 0.0) for message in small], [True] * 3)
        self.assertEqual(outbox.answer_bytes, LARGE.size)
        self.assertFalse(outbox.add(answer_of(260), 0.0))
        self.assertEqual(leave(outbox), bodies(LARGE, *small))

    def test_what_is_small_is_bounded_by_number(self) -> None:
        """Whatever else waits counts as well; what leaves makes room."""
        self.assertEqual(MAX_CONTROL, 10_000)
        self.patch(outbox_module, "MAX_CONTROL", 3)
        outbox, _ = make_outbox()
        self.assertTrue(outbox.add(LARGE, 0.0))
        added = [outbox.add(get_tx_set(number), 0.0) for number in range(4)]
        self.assertEqual(added, [True, True, False, False])
        self.assertTrue(outbox.add(LARGE, 0.0))
        self.assertTrue(outbox.add(advert(), 0.0))
        self.assertEqual(len(leave(outbox)), 4)
        self.assertTrue(outbox.add(get_tx_set(), 0.0))

    def test_the_budget_of_all(self) -> None:
        """It is told of what is large, with what the peer has already; all of it comes back."""
        budget = Budget(3 * LARGE.size)
        outbox, _ = make_outbox(answer_budget=budget)
        for message in (LARGE, get_tx_set(), LARGE, answer_of(256), LARGE):
            self.assertTrue(outbox.add(message, 0.0))
        self.assertFalse(outbox.add(LARGE, 0.0))
        self.assertTrue(outbox.add(get_tx_set(), 0.0))
        size = LARGE.size
        self.assertEqual(budget.asked, [(size, own * size) for own in range(4)])
        self.assertEqual(outbox.answer_bytes, 3 * size)
        leave(outbox)
        self.assertEqual((budget.left, outbox.answer_bytes), (3 * size, 0))
        outbox.add(LARGE, 0.0)
        outbox.add(get_tx_set(), 0.0)
        outbox.clear()
        self.assertEqual((budget.left, outbox.answer_bytes), (3 * size, 0))

    def test_what_the_peer_s_own_limit_refuses_is_taken_from_nobody(self) -> None:
        """The budget of all is not even asked."""
        budget = Budget(10 * LARGE.size)
        outbox, _ = make_outbox(answer_budget=budget, answer_byte_limit=LARGE.size)
        self.assertTrue(outbox.add(LARGE, 0.0))
        self.assertFalse(outbox.add(LARGE, 0.0))
        self.assertEqual(budget.asked, [(LARGE.size, 0)])

    def test_what_left_makes_room(self) -> None:
        """Only what is unsent counts."""
        outbox, _ = make_outbox(answer_byte_limit=LARGE.size)
        for _ in range(5):
            self.assertTrue(outbox.add(LARGE, 0.0))
            leave(outbox)
            self.assertEqual(outbox.answer_bytes, 0)

    def test_control_is_never_refused(self) -> None:
        """Grants and pings are queued beyond both limits, and are not counted in bytes."""
        self.patch(outbox_module, "MAX_CONTROL", 2)
        outbox, _ = make_outbox(answer_byte_limit=LARGE.size)
        outbox.add(LARGE, 0.0)
        grants = [encode_send_more_extended(1, number) for number in range(1, 100)]
        for grant in grants:
            outbox.add_control(grant, 0.0)
        self.assertEqual(outbox.answer_bytes, LARGE.size)
        self.assertEqual(leave(outbox)[1:], grants)

    def test_flood_is_not_counted(self) -> None:
        """The queues of flooded messages have limits of their own."""
        outbox, _ = make_outbox(answer_byte_limit=0)
        self.assertTrue(outbox.add(advert(hashes=1000), 0.0))
        self.assertTrue(outbox.add(scp_prepare(), 0.0))

    def test_default(self) -> None:
        """32 MiB: two messages of the largest size."""
        self.assertEqual(OutboxConfig().answer_byte_limit, 32 * 1024 * 1024)


class ClearTests(SynchronousTestCase):
    def test_nothing_leaves_any_more(self) -> None:
        """After the end of a link nothing of what waited leaves, and nothing is counted."""
        outbox, flow = make_outbox(1)
        for number in range(2):
            for message in (scp_prepare(counter=number), transaction(), demand(), advert()):
                outbox.add(message, 0.0)
        outbox.add(get_tx_set(), 0.0)
        leave(outbox)
        outbox.add(get_tx_set(), 0.0)
        outbox.clear()
        flow.maybe_release_capacity(100, PLENTY, 0.0)
        self.assertEqual(leave(outbox), [])
        self.assertEqual([outbox.queue_weight(p) for p in MessagePriority], [0, 0, 0, 0])
        self.assertEqual(outbox.answer_bytes, 0)
