"""SCP messages that wait for one peer: only what is superseded or too old is dropped."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.session.flow_control import FlowControl
from stellar_overlay.session.outbox import (
    SCP_BACKLOG,
    SCP_QUEUE_BYTE_LIMIT,
    MessagePriority,
    Outbox,
    OutboxConfig,
)
from stellar_overlay.wire.message import Message
from tests.builders import (
    scp_confirm,
    scp_externalize,
    scp_nominate,
    scp_prepare,
    transaction,
)

SCP = MessagePriority.SCP
PLENTY = 10**9


class ScpOutbox(Outbox):
    """An outbox whose ledger a test moves, on a link with so much credit in messages."""

    def __init__(
        self,
        *,
        min_slot: int = 1,
        checkpoint: int = 0,
        credit: int = 0,
        outbound_tx_queue_byte_limit: int = PLENTY,
    ) -> None:
        self.min_slot = min_slot
        self.checkpoint = checkpoint
        self.flow = FlowControl()
        if credit:
            self.flow.maybe_release_capacity(credit, PLENTY, 0.0)
        config = OutboxConfig(
            outbound_tx_queue_byte_limit=outbound_tx_queue_byte_limit,
            min_slot_to_remember=lambda: self.min_slot,
            checkpoint_slot=lambda: self.checkpoint,
        )
        super().__init__(self.flow, config)

    def offer(self, *messages: Message) -> list[bool]:
        """Queue messages one by one, trying to send after each, as a node does."""
        results = []
        for message in messages:
            results.append(self.add(message, 0.0))
            self.get_next_batch_to_send(PLENTY, PLENTY, 0.0)
        return results

    def drain(self) -> list[Message]:
        """Return what waits, by granting all that it needs."""
        self.flow.maybe_release_capacity(PLENTY, PLENTY, 0.0)
        batch, _ = self.get_next_batch_to_send(PLENTY, PLENTY, 0.0)
        return [Message(body) for body in batch]


class SlotTests(SynchronousTestCase):
    def test_old_slot(self) -> None:
        """A message of a slot below the window is dropped, unless it is the checkpoint's (F22)."""
        outbox = ScpOutbox(min_slot=98, checkpoint=64)
        slots = (97, 98, 64, 63, 65, 100)
        results = outbox.offer(*[scp_externalize(slot) for slot in slots])
        self.assertEqual(results, [False, True, True, False, False, True])
        self.assertEqual(outbox.drain(), [scp_externalize(slot) for slot in (98, 64, 100)])
        self.assertEqual(outbox.dropped(SCP), 3)

    def test_old_slot_with_credit(self) -> None:
        """An old message is dropped even if it could leave at once, as in core."""
        outbox = ScpOutbox(min_slot=98, checkpoint=64, credit=10)
        self.assertFalse(outbox.add(scp_externalize(97), 0.0))
        self.assertTrue(outbox.add(scp_externalize(64), 0.0))
        self.assertEqual(outbox.drain(), [scp_externalize(64)])

    def test_two_of_the_checkpoint(self) -> None:
        """F22: nomination and externalization of the checkpoint's slot both stay."""
        outbox = ScpOutbox(min_slot=11, checkpoint=8)
        pair = [scp_nominate(8), scp_externalize(8)]
        outbox.offer(*pair)
        self.assertEqual(outbox.queue_size(SCP), 2)
        self.assertEqual(outbox.drain(), pair)

    def test_old_checkpoint(self) -> None:
        """F23: messages one checkpoint back are dropped."""
        outbox = ScpOutbox(min_slot=130, checkpoint=128)
        self.assertEqual(outbox.offer(scp_nominate(64), scp_externalize(64)), [False, False])
        self.assertEqual(outbox.queue_size(SCP), 0)

    def test_window_moves(self) -> None:
        """What has become too old while it waited goes with the next message that comes."""
        outbox = ScpOutbox(min_slot=90, checkpoint=64)
        outbox.offer(*[scp_externalize(slot) for slot in (64, 90, 91, 92)])
        outbox.min_slot = 92
        self.assertEqual(outbox.queue_size(SCP), 4)
        outbox.offer(scp_externalize(93))
        self.assertEqual(outbox.dropped(SCP), 2)
        self.assertEqual(outbox.drain(), [scp_externalize(slot) for slot in (64, 92, 93)])

    def test_checkpoint_moves_alone(self) -> None:
        """The old checkpoint's messages go even when the window stays where it is."""
        outbox = ScpOutbox(min_slot=90, checkpoint=64)
        outbox.offer(scp_externalize(64), scp_externalize(90))
        outbox.checkpoint = 80
        outbox.offer(scp_externalize(91))
        self.assertEqual(outbox.drain(), [scp_externalize(90), scp_externalize(91)])

    def test_an_old_message_moves_the_others_out(self) -> None:
        """A message that is dropped itself makes the queue be looked through all the same."""
        outbox = ScpOutbox()
        outbox.offer(scp_externalize(5), scp_externalize(50))
        outbox.min_slot = 40
        outbox.offer(scp_externalize(6))
        self.assertEqual((outbox.queue_size(SCP), outbox.dropped(SCP)), (1, 2))

    def test_no_ledger(self) -> None:
        """Without a ledger every slot is worth sending."""
        outbox = Outbox(FlowControl())
        for slot in (1, 2**64 - 1):
            self.assertTrue(outbox.add(scp_externalize(slot), 0.0))
        self.assertEqual(outbox.queue_size(SCP), 2)


class SupersededTests(SynchronousTestCase):
    def test_byte_limit_is_for_transactions(self) -> None:
        """F26: newest messages stay, whatever the byte limit of the transactions."""
        outbox = ScpOutbox(outbound_tx_queue_byte_limit=1)
        newest = [scp_nominate(), scp_externalize(), scp_externalize(node=2)]
        outbox.offer(transaction(), *newest)
        self.assertEqual(outbox.drain(), newest)

    def test_obsolete_ballot(self) -> None:
        """F27: of nominate, prepare, externalize of one node, nominate and externalize remain."""
        outbox = ScpOutbox()
        outbox.offer(scp_nominate(), scp_prepare(), scp_externalize())
        self.assertEqual(outbox.dropped(SCP), 1)
        self.assertEqual(outbox.drain(), [scp_nominate(), scp_externalize()])

    def test_other_nodes(self) -> None:
        """F28: prepare and externalize of three nodes leave one externalize of each."""
        outbox = ScpOutbox()
        for node in (1, 2, 3):
            outbox.offer(scp_prepare(node=node), scp_externalize(node=node))
        expected = [scp_externalize(node=node) for node in (1, 2, 3)]
        self.assertEqual(outbox.drain(), expected)

    def test_other_slots(self) -> None:
        """A statement supersedes nothing of another slot."""
        outbox = ScpOutbox()
        outbox.offer(scp_prepare(7), scp_externalize(8))
        self.assertEqual(outbox.queue_size(SCP), 2)

    def test_takes_the_place_of_the_older(self) -> None:
        """The newer statement leaves when the older would have."""
        outbox = ScpOutbox()
        outbox.offer(scp_prepare(node=1), scp_prepare(node=2), scp_confirm(node=1))
        self.assertEqual(outbox.drain(), [scp_confirm(node=1), scp_prepare(node=2)])

    def test_older_does_not_replace(self) -> None:
        """An older statement that comes late displaces nothing; both leave, as in core."""
        outbox = ScpOutbox()
        self.assertEqual(outbox.offer(scp_confirm(), scp_prepare()), [True, True])
        self.assertEqual(outbox.dropped(SCP), 0)
        self.assertEqual(outbox.drain(), [scp_confirm(), scp_prepare()])

    def test_every_step_of_a_ballot(self) -> None:
        """However many statements a node makes, one waits, and its size is counted."""
        outbox = ScpOutbox()
        steps = [scp_prepare(1, n, value=bytes(n)) for n in range(1, 30)]
        for step in steps:
            outbox.offer(step)
            self.assertEqual(outbox.queue_size(SCP), 1)
            self.assertEqual(outbox.queue_weight(SCP), step.size)
        self.assertEqual(outbox.dropped(SCP), 28)
        self.assertEqual(outbox.drain(), [steps[-1]])

    def test_nomination_that_grows(self) -> None:
        """More votes supersede fewer; other votes do not."""
        outbox = ScpOutbox()
        outbox.offer(
            scp_nominate(1, [b"a"]), scp_nominate(1, [b"a", b"b"]), scp_nominate(1, [b"c"])
        )
        self.assertEqual(outbox.drain(), [scp_nominate(1, [b"a", b"b"]), scp_nominate(1, [b"c"])])

    def test_what_left_is_not_replaced(self) -> None:
        """After the older statement has left, the newer one is queued behind the others."""
        outbox = ScpOutbox(credit=1)
        outbox.offer(scp_prepare(node=1), scp_prepare(node=2), scp_externalize(node=1))
        self.assertEqual(outbox.drain(), [scp_prepare(node=2), scp_externalize(node=1)])

    def test_with_credit_all_leave(self) -> None:
        """What may leave at once is in flight, as far as this rule goes: nothing is dropped."""
        outbox = ScpOutbox(credit=10)
        both = [scp_prepare(), scp_externalize()]
        for message in both:
            self.assertTrue(outbox.add(message, 0.0))
        self.assertEqual(outbox.drain(), both)

    def test_looked_through_when_credit_ends(self) -> None:
        """What piled up before the credit was found to be spent is looked through then."""
        outbox = ScpOutbox(credit=1)
        for message in (
            scp_nominate(),
            scp_prepare(),
            scp_prepare(node=2),
            scp_confirm(),
            scp_externalize(),
        ):
            outbox.add(message, 0.0)
        self.assertEqual(outbox.get_next_batch_to_send(9, PLENTY, 0.0)[0], [scp_nominate().body])
        self.assertEqual(outbox.dropped(SCP), 2)
        self.assertEqual(outbox.drain(), [scp_externalize(), scp_prepare(node=2)])

    def test_forgets_with_the_link(self) -> None:
        """After a clear nothing is replaced that is not there any more."""
        outbox = ScpOutbox()
        outbox.offer(scp_prepare())
        outbox.clear()
        self.assertEqual(outbox.offer(scp_externalize()), [True])
        self.assertEqual(outbox.queue_weight(SCP), scp_externalize().size)
        self.assertEqual(outbox.drain(), [scp_externalize()])


class BoundTests(SynchronousTestCase):
    """Core keeps any amount; here memory is bounded, with and without attempts to send."""

    def assert_bounded(self, outbox: ScpOutbox, newest: Sequence[Message]) -> None:
        """Check that the queue is within its limit, and that the newest messages are there."""
        self.assertLessEqual(outbox.queue_weight(SCP), SCP_QUEUE_BYTE_LIMIT)
        left = outbox.drain()
        self.assertEqual(left[-len(newest) :], list(newest))

    def test_oldest_go(self) -> None:
        """Beyond 4 MiB the oldest messages make room, and are counted."""
        outbox = ScpOutbox()
        messages = [scp_prepare(slot, value=bytes(60_000)) for slot in range(1, 101)]
        self.assertEqual(outbox.offer(*messages), [True] * 100)
        kept = SCP_QUEUE_BYTE_LIMIT // messages[0].size
        self.assertEqual((outbox.queue_size(SCP), outbox.dropped(SCP)), (kept, 100 - kept))
        self.assert_bounded(outbox, messages[-kept:])

    def test_exactly_the_limit(self) -> None:
        """4 MiB may wait, to the byte; the smallest message more drops the oldest, and one only."""
        outbox = ScpOutbox()
        overhead = scp_prepare(value=b"").size
        size = SCP_QUEUE_BYTE_LIMIT // 128
        messages = [scp_prepare(slot, value=bytes(size - overhead)) for slot in range(1, 129)]
        outbox.offer(*messages)
        self.assertEqual(outbox.queue_weight(SCP), SCP_QUEUE_BYTE_LIMIT)
        self.assertEqual((outbox.queue_size(SCP), outbox.dropped(SCP)), (128, 0))
        outbox.offer(scp_prepare(129))
        self.assertEqual((outbox.queue_size(SCP), outbox.dropped(SCP)), (128, 1))
        self.assertEqual(outbox.drain(), [*messages[1:], scp_prepare(129)])

    def test_growth_by_replacement(self) -> None:
        """Small statements replaced by large ones stay within the limit as well."""
        outbox = ScpOutbox()
        outbox.offer(*[scp_prepare(slot) for slot in range(1, 101)])
        large = [scp_prepare(slot, 2, value=bytes(60_000)) for slot in range(1, 101)]
        outbox.offer(*large)
        self.assert_bounded(outbox, large[-60:])

    def test_while_nothing_is_tried(self) -> None:
        """A stalled transport does not lift the limit."""
        outbox = ScpOutbox(credit=1000)
        messages = [scp_prepare(slot, value=bytes(60_000)) for slot in range(1, 101)]
        for message in messages:
            outbox.add(message, 0.0)
        self.assert_bounded(outbox, messages[-60:])

    def test_superseded_while_nothing_is_tried(self) -> None:
        """A backlog is looked through even when there is credit: the transport is stalled."""
        outbox = ScpOutbox(credit=PLENTY)
        for counter in range(1, SCP_BACKLOG + 50):
            outbox.add(scp_prepare(counter=counter), 0.0)
        self.assertEqual(outbox.drain(), [scp_prepare(counter=SCP_BACKLOG + 49)])
