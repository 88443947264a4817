"""The peer's credit: what its grants allow us, and since when we have none."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.session.flow_control import FlowControl

U64_MAX = 2**64 - 1


class GrantedTests(SynchronousTestCase):
    def test_nothing_at_first(self) -> None:
        """Before the first grant nothing may be sent, not even an empty advert."""
        flow = FlowControl(now=3.0)
        self.assertEqual((flow.out_messages, flow.out_bytes), (0, 0))
        self.assertFalse(flow.may_send(8))

    def test_grants_add_up(self) -> None:
        """Each grant adds; nothing tops up to a limit."""
        flow = FlowControl()
        flow.maybe_release_capacity(200, 300_000, 0.0)
        flow.maybe_release_capacity(200, 300_000, 0.0)
        stats = flow.get_stats()
        self.assertEqual((stats.peer_message_capacity, stats.peer_bytes_capacity), (400, 600_000))

    def test_may_send(self) -> None:
        """A message needs one message and its bytes, exactly."""
        flow = FlowControl()
        flow.maybe_release_capacity(1, 40, 0.0)
        self.assertTrue(flow.may_send(40))
        self.assertFalse(flow.may_send(44))
        flow.spend(40)
        self.assertEqual((flow.out_messages, flow.out_bytes), (0, 0))
        self.assertFalse(flow.may_send(4))

    def test_one_of_two_is_not_enough(self) -> None:
        """Bytes without messages, or messages without bytes, allow nothing."""
        flow = FlowControl()
        flow.maybe_release_capacity(0, 1000, 0.0)
        self.assertFalse(flow.may_send(40))
        flow.maybe_release_capacity(5, 1, 0.0)
        self.assertTrue(flow.may_send(1001))
        self.assertFalse(flow.may_send(1002))


class IllegalGrantTests(SynchronousTestCase):
    def assert_refused(self, flow: FlowControl, grant: tuple[int, int], kind: DropReason) -> None:
        """Check that the grant ends the link for ``kind``, silently, and changes nothing."""
        before = (flow.out_messages, flow.out_bytes, flow.no_capacity_since, flow.credit_since)
        self.assertFalse(flow.is_send_more_valid(*grant))
        violation = self.assertRaises(PeerViolation, flow.maybe_release_capacity, *grant, 9.0)
        self.assertEqual((violation.kind, violation.code), (kind, None))
        after = (flow.out_messages, flow.out_bytes, flow.no_capacity_since, flow.credit_since)
        self.assertEqual(after, before)

    def test_zero_bytes(self) -> None:
        """Row 44: no bytes, with or without messages, is an invalid message."""
        for messages in (0, 1, 2**32 - 1):
            self.assert_refused(FlowControl(), (messages, 0), DropReason.BAD_SEND_MORE)
        self.assertEqual(DropReason.BAD_SEND_MORE.text, "invalid message SEND_MORE_EXTENDED")

    def test_zero_messages_and_one_byte_are_legal(self) -> None:
        """Row 44: (0, n) and (n, 1) are fine."""
        for grant in ((0, 1), (0, 2**32 - 1), (2**32 - 1, 1), (1, 1)):
            flow = FlowControl()
            self.assertTrue(flow.is_send_more_valid(*grant))
            flow.maybe_release_capacity(*grant, 0.0)
            self.assertEqual((flow.out_messages, flow.out_bytes), grant)

    def test_message_overflow(self) -> None:
        """F21, row 45: up to 2^64 - 1 messages are counted; one more is an overflow."""
        flow = FlowControl()
        flow.out_messages = U64_MAX - 2
        self.assert_refused(flow, (3, 1), DropReason.CAPACITY_OVERFLOW)
        flow.maybe_release_capacity(2, 1, 0.0)
        self.assertEqual(flow.out_messages, U64_MAX)
        self.assert_refused(flow, (1, 1), DropReason.CAPACITY_OVERFLOW)
        flow.maybe_release_capacity(0, 1, 0.0)

    def test_byte_overflow(self) -> None:
        """F21, row 45: the same for bytes."""
        flow = FlowControl()
        flow.out_bytes = U64_MAX - 1
        self.assert_refused(flow, (0, 2), DropReason.CAPACITY_OVERFLOW)
        flow.maybe_release_capacity(0, 1, 0.0)
        self.assertEqual(flow.out_bytes, U64_MAX)
        self.assert_refused(flow, (2, 2), DropReason.CAPACITY_OVERFLOW)

    def test_zero_bytes_come_before_overflow(self) -> None:
        """A grant with both faults is an invalid message."""
        flow = FlowControl()
        flow.out_messages = U64_MAX
        self.assert_refused(flow, (1, 0), DropReason.BAD_SEND_MORE)


class WantOfCreditTests(SynchronousTestCase):
    """DECISIONS 9: the first moment without credit counts, from the construction on."""

    def test_from_construction(self) -> None:
        """A link begins without credit, at the time when it was made."""
        self.assertEqual(FlowControl(now=12.5).no_capacity_since, 12.5)

    def test_first_moment_only(self) -> None:
        """Later failed attempts do not restart the clock."""
        flow = FlowControl()
        flow.maybe_release_capacity(1, 1, 1.0)
        for now in (2.0, 3.0, 61.0):
            flow.note_no_capacity(now)
        self.assertEqual(flow.no_capacity_since, 2.0)

    def test_a_grant_ends_it(self) -> None:
        """A grant clears the clock and tells how long the want lasted; a second one tells 0."""
        flow = FlowControl(now=10.0)
        self.assertEqual(flow.maybe_release_capacity(1, 1, 14.0), 4.0)
        self.assertIsNone(flow.no_capacity_since)
        self.assertEqual(flow.maybe_release_capacity(1, 1, 20.0), 0.0)
        flow.note_no_capacity(21.0)
        self.assertEqual(flow.maybe_release_capacity(0, 1, 21.5), 0.5)

    def test_timeout(self) -> None:
        """Sixty seconds, exactly; never while there is no want."""
        flow = FlowControl(now=100.0)
        self.assertFalse(flow.no_outbound_capacity_timeout(159.999))
        self.assertTrue(flow.no_outbound_capacity_timeout(160.0))
        self.assertTrue(flow.no_outbound_capacity_timeout(103.0, seconds=3))
        self.assertFalse(flow.no_outbound_capacity_timeout(102.9, seconds=3))
        flow.maybe_release_capacity(1, 1, 159.0)
        self.assertFalse(flow.no_outbound_capacity_timeout(10_000.0))

    def test_since_when_there_is_credit(self) -> None:
        """What waits might have left since the grant that ended the want, not since a later one."""
        flow = FlowControl(now=1.0)
        self.assertEqual(flow.credit_since, 1.0)
        flow.maybe_release_capacity(1, 1, 2.0)
        flow.maybe_release_capacity(1, 1, 3.0)
        self.assertEqual(flow.credit_since, 2.0)
        flow.note_no_capacity(4.0)
        flow.maybe_release_capacity(1, 1, 5.0)
        self.assertEqual(flow.credit_since, 5.0)
