"""What a checked configuration allows."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.config import OverlayConfig
from stellar_overlay.gossip.admission import ConnectionLimits
from stellar_overlay.node.limits import connection_limits, max_open_files, session_config


def limits_of(config: OverlayConfig, max_files: int | None = None) -> ConnectionLimits:
    """Return the limits of a configuration on a system with so many files."""
    return connection_limits(config.checked(), max_files=lambda: max_files)


class ConnectionLimitsTests(SynchronousTestCase):
    """Settings arrive where they belong."""

    def test_defaults(self) -> None:
        """Connection.md 8.1: 8 and 64, and 56 and 444 of 500."""
        expected = ConnectionLimits(
            target_outbound=8,
            max_outbound=8,
            max_inbound=64,
            max_outbound_pending=56,
            max_inbound_pending=444,
        )
        limits = limits_of(OverlayConfig())
        self.assertEqual((limits, limits.warnings), (expected, ()))

    def test_settings(self) -> None:
        """Each of them counts."""
        config = OverlayConfig(
            target_outbound_peers=4,
            max_outbound_peers=6,
            max_inbound_peers=18,
            max_pending_connections=40,
        )
        expected = ConnectionLimits(
            target_outbound=4,
            max_outbound=6,
            max_inbound=18,
            max_outbound_pending=10,
            max_inbound_pending=30,
        )
        self.assertEqual(limits_of(config), expected)

    def test_maxima_follow_the_target(self) -> None:
        """INTERFACE.md 3: until they are set."""
        limits = limits_of(OverlayConfig(target_outbound_peers=3))
        self.assertEqual((limits.max_outbound, limits.max_inbound), (3, 24))

    def test_few_files(self) -> None:
        """The system's limit lowers them, and that is said."""
        limits = limits_of(OverlayConfig(), 256)
        self.assertEqual((limits.max_outbound_pending, limits.max_inbound_pending), (14, 106))
        self.assertIn("MAX_PENDING_CONNECTIONS lowered from 500 to 120", limits.warnings[0])

    def test_the_system_is_asked(self) -> None:
        """Unless somebody else answers for it."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        self.assertEqual(max_open_files(), 256)
        self.assertEqual(
            connection_limits(OverlayConfig().checked()), limits_of(OverlayConfig(), 256)
        )

    def test_no_limit_of_files(self) -> None:
        """``ulimit -n unlimited`` is not minus one."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.patch(resource, "getrlimit", lambda kind: unlimited)
        self.assertIsNone(max_open_files())


class SessionConfigTests(SynchronousTestCase):
    """What each link is given."""

    def test_settings(self) -> None:
        """They reach the link, its flow control and its outbox."""
        config = OverlayConfig(
            auth_timeout_secs=7,
            max_batch_write_count=9,
            peer_flood_reading_capacity=100,
            outbound_tx_queue_byte_limit=12345,
        )
        link = session_config(config.checked())
        self.assertEqual(link.max_batch_write_count, 9)
        self.assertEqual(link.auth_timeout_secs, 7)
        self.assertEqual(link.flow_control.peer_flood_reading_capacity, 100)
        self.assertEqual(link.outbox.outbound_tx_queue_byte_limit, 12345)
