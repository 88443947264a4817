"""How many links of each kind there may be."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.connection_limits import ConnectionLimits


def limits_of(
    target: int = 8,
    outbound: int = 8,
    inbound: int = 64,
    pending: int = 500,
    files: int | None = None,
) -> ConnectionLimits:
    """Return what becomes of these settings."""
    return ConnectionLimits.of(
        target_outbound=target,
        max_outbound=outbound,
        max_inbound=inbound,
        max_pending=pending,
        max_files=files,
    )


def numbers(limits: ConnectionLimits) -> tuple[int, int, int, int, int]:
    """Return target, outbound, inbound, outbound pending and inbound pending."""
    return (
        limits.target_outbound,
        limits.max_outbound,
        limits.max_inbound,
        limits.max_outbound_pending,
        limits.max_inbound_pending,
    )


class TableTests(SynchronousTestCase):
    """Connection.md 8.1, worked by hand."""

    def assert_table(
        self,
        table: dict[tuple[int, int, int, int, int | None], tuple[int, int, int, int, int]],
    ) -> None:
        for given_settings, expected in table.items():
            self.assertEqual(numbers(limits_of(*given_settings)), expected, given_settings)

    def test_shares_of_the_pending_slots(self) -> None:
        """As outbound to all, rounded up; nobody gets less than one."""
        self.assert_table(
            {
                (8, 8, 64, 500, None): (8, 8, 64, 56, 444),  # 500 x 8/72 = 55.6
                (8, 8, 64, 72, None): (8, 8, 64, 8, 64),  # 72 x 8/72 = 8, not 9
                (8, 8, 64, 10, None): (8, 8, 64, 2, 8),  # 1.1
                (8, 8, 64, 1, None): (8, 8, 64, 1, 1),
                (1, 1, 1, 2, None): (1, 1, 1, 1, 1),
                (1, 1, 1, 3, None): (1, 1, 1, 2, 1),  # 1.5
                (1, 1, 0, 10, None): (1, 1, 0, 10, 1),
                (4, 8, 64, 500, None): (4, 8, 64, 56, 444),  # the ceiling counts, not the target
            }
        )

    def test_the_inbound_factor(self) -> None:
        """No more out than a third of what may come in, and three; the ceiling follows."""
        self.assert_table(
            {
                (8, 8, 15, 500, None): (8, 8, 15, 174, 326),  # 5 + 3; 500 x 8/23 = 173.9
                (8, 8, 14, 500, None): (7, 7, 14, 167, 333),  # 4 + 3; 500 x 7/21 = 166.7
                (8, 8, 8, 500, None): (5, 5, 8, 193, 307),  # 2 + 3; 500 x 5/13 = 192.3
                (8, 8, 0, 10, None): (3, 3, 0, 10, 1),
                (8, 12, 8, 500, None): (5, 12, 8, 300, 200),  # the ceiling was set apart
                (3, 3, 0, 10, None): (3, 3, 0, 10, 1),
            }
        )

    def test_few_files(self) -> None:
        """Three quarters of them; pending slots go first, then all alike; shares stay."""
        self.assert_table(
            {
                (8, 8, 64, 500, 1024): (8, 8, 64, 56, 444),  # 572 <= 768
                (8, 8, 64, 500, 763): (8, 8, 64, 56, 444),  # 572 <= 572
                (8, 8, 64, 500, 762): (8, 8, 64, 56, 443),  # 571: 499 pending, 55.4
                (8, 8, 64, 500, 256): (8, 8, 64, 14, 106),  # 192: 120 pending, 13.3
                (8, 8, 64, 500, 98): (8, 8, 64, 1, 1),  # 73: one is left
                # 72: 72 x 8/572 = 1.01, 72 x 64/572 = 8.06, 61 are left, 61 x 8/72 = 6.8
                (8, 8, 64, 500, 97): (2, 2, 9, 7, 54),
                (8, 8, 64, 500, 4): (1, 1, 1, 1, 1),
                (8, 8, 64, 500, 1): (1, 1, 1, 1, 1),
                (8, 8, 64, 500, 0): (1, 1, 1, 1, 1),
            }
        )

    def test_few_files_and_a_ceiling_above_the_target(self) -> None:
        """The ceiling takes the target's place in the sums, and the target stays below it."""
        self.assert_table(
            {
                # 80 + 500; 72 x 16/580 = 1.99, 72 x 64/580 = 7.9, 62 left, 62 x 16/80 = 12.4
                (8, 16, 64, 500, 97): (2, 2, 8, 13, 49),
                # 88 + 500; 72 x 24/588 = 2.9, 72 x 64/588 = 7.8, 61 left, 61 x 24/88 = 16.6
                (2, 24, 64, 500, 97): (2, 3, 8, 17, 44),
            }
        )

    def test_many_connections(self) -> None:
        """There are never more than 65535, however many files may be open."""
        # 66043; 65535 x 8/66043 = 7.9, 65535 x 65535/66043 = 65030.9, 496 left, 0.06
        expected = (8, 8, 65031, 1, 495)
        self.assert_table(
            {(8, 8, 65535, 500, None): expected, (8, 8, 65535, 500, 1_000_000): expected}
        )

    def test_what_is_off_stays_off(self) -> None:
        """No limit of 0 becomes 1 for want of files."""
        self.assert_table({(1, 1, 0, 500, 4): (1, 1, 0, 2, 1), (1, 1, 0, 500, 1): (1, 1, 0, 1, 1)})


class WarningTests(SynchronousTestCase):
    """An operator hears which settings do not hold, and why."""

    def test_none(self) -> None:
        """Not when all is as it was set."""
        self.assertEqual(limits_of().warnings, ())
        self.assertEqual(limits_of(files=1024).warnings, ())

    def test_the_inbound_factor(self) -> None:
        """One line; a ceiling that merely follows is not mentioned."""
        why = "at most a third of MAX_ADDITIONAL_PEER_CONNECTIONS (8) plus 3"
        expected = f"TARGET_PEER_CONNECTIONS lowered from 8 to 5: {why}"
        self.assertEqual(limits_of(inbound=8).warnings, (expected,))

    def test_few_files(self) -> None:
        """A line for each setting."""
        why = "at most 72 connections in all, three quarters of the 97 files that may be open"
        self.assertEqual(
            limits_of(outbound=16, files=97).warnings,
            (
                f"TARGET_PEER_CONNECTIONS lowered from 8 to 2: {why}",
                f"MAX_OUTBOUND_CONNECTIONS lowered from 16 to 2: {why}",
                f"MAX_ADDITIONAL_PEER_CONNECTIONS lowered from 64 to 8: {why}",
                f"MAX_PENDING_CONNECTIONS lowered from 500 to 62: {why}",
            ),
        )

    def test_both(self) -> None:
        """Each with its own reason."""
        first, second = limits_of(inbound=8, files=256).warnings
        self.assertIn("from 8 to 5: at most a third", first)
        self.assertIn("MAX_PENDING_CONNECTIONS lowered from 500 to 179: at most 192", second)

    def test_they_do_not_count(self) -> None:
        """Two ways to the same limits make the same limits."""
        self.assertEqual(limits_of(target=8, outbound=8, inbound=8), limits_of(5, 5, 8))


class PropertyTests(SynchronousTestCase):
    """Whatever is set."""

    @settings(derandomize=True, max_examples=500)
    @given(
        target=st.integers(1, 65535),
        extra=st.integers(0, 1000),
        inbound=st.integers(0, 65535),
        pending=st.integers(1, 65535),
        files=st.none() | st.integers(0, 200_000),
    )
    def test_limits(
        self, target: int, extra: int, inbound: int, pending: int, files: int | None
    ) -> None:
        """They are never above the settings, never nothing, and fit into the files there are."""
        limits = limits_of(target, target + extra, inbound, pending, files)
        handles = min(65535, 65535 if files is None else files * 3 // 4)
        self.assertLessEqual(limits.target_outbound, target)
        self.assertLessEqual(limits.target_outbound, limits.max_outbound)
        self.assertLessEqual(limits.max_outbound, target + extra)
        self.assertLessEqual(limits.max_inbound, inbound)
        self.assertEqual(limits.max_inbound == 0, inbound == 0)
        self.assertGreater(min(limits.target_outbound, limits.max_outbound), 0)
        self.assertGreater(min(limits.max_outbound_pending, limits.max_inbound_pending), 0)
        pending_sum = limits.max_outbound_pending + limits.max_inbound_pending
        self.assertLessEqual(pending_sum, max(2, pending + 1))
        self.assertLessEqual(limits.max_outbound + limits.max_inbound + pending_sum, handles + 4)
        lowered = (limits.target_outbound, limits.max_outbound, limits.max_inbound) != (
            target,
            target + extra,
            inbound,
        )
        if lowered:
            self.assertNotEqual(limits.warnings, ())
