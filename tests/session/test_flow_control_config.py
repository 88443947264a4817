"""The settings of flow control: what they come to, and which of them are refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ConfigError
from stellar_overlay.session.flow_control import FlowControl, FlowControlConfig, SendMoreCapacity
from tests.builders import transaction


def byte_config(capacity: int, batch: int) -> FlowControlConfig:
    """Return a configuration with these two byte settings."""
    return FlowControlConfig(
        peer_flood_reading_capacity_bytes=capacity, flow_control_send_more_batch_size_bytes=batch
    )


class DefaultsTests(SynchronousTestCase):
    def test_defaults_are_core_s(self) -> None:
        """Without any setting the six values are those of core's Config.cpp."""
        config = FlowControlConfig()
        self.assertEqual(
            (
                config.peer_reading_capacity,
                config.peer_flood_reading_capacity,
                config.flow_control_send_more_batch_size,
                config.peer_flood_reading_capacity_bytes,
                config.flow_control_send_more_batch_size_bytes,
                config.peer_total_reading_capacity_bytes,
            ),
            (201, 200, 40, 0, 0, 1_048_576),
        )


class ByteSettingsTests(SynchronousTestCase):
    """F6, Y15: automatic is when both are 0, and only then."""

    def test_automatic_total_follows_the_largest_transaction(self) -> None:
        """F is 300,000 as long as that leaves room for a largest transaction beside a batch."""
        config = FlowControlConfig()
        self.assertTrue(config.is_auto)
        for max_tx_size, total in (
            (0, 300_000),
            (102_400, 300_000),
            (199_999, 300_000),
            (200_000, 300_000),
            (200_001, 300_001),
            (1_000_000, 1_100_000),
        ):
            self.assertEqual(config.bytes_total(max_tx_size), total, f"max_tx_size {max_tx_size}")

    def test_automatic_batch(self) -> None:
        """G is 100,000, whatever the largest transaction."""
        self.assertEqual(FlowControlConfig().bytes_batch, 100_000)

    def test_fixed_values_are_taken_as_they_are(self) -> None:
        """With one of the two set, F and G are the configured values; G may be 0."""
        for capacity, batch in ((500_000, 1), (500_000, 0), (7, 7), (1, 0), (2**32 - 1, 2**32 - 1)):
            config = byte_config(capacity, batch)
            self.assertFalse(config.is_auto, f"{capacity}, {batch}")
            self.assertEqual(config.bytes_total(102_400), capacity)
            self.assertEqual(config.bytes_total(10**9), capacity)
            self.assertEqual(config.bytes_batch, batch)

    def test_no_batch_alone(self) -> None:
        """A batch with an automatic total of 0 is a batch beyond the total: refused."""
        error = self.assertRaises(ConfigError, byte_config, 0, 1)
        self.assertIn("FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES", str(error))
        self.assertIn("PEER_FLOOD_READING_CAPACITY_BYTES, not 1, 0", str(error))


class ChecksTests(SynchronousTestCase):
    def test_refused(self) -> None:
        """Each rule of core's Config.cpp:2024-2070 is kept, and the error names the keys."""
        counts = "FLOW_CONTROL_SEND_MORE_BATCH_SIZE <= PEER_FLOOD_READING_CAPACITY"
        sizes = "FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES <= PEER_FLOOD_READING_CAPACITY_BYTES"
        cases: tuple[tuple[dict[str, int], str], ...] = (
            ({"flow_control_send_more_batch_size": 0}, counts),
            ({"flow_control_send_more_batch_size": -1}, counts),
            ({"flow_control_send_more_batch_size": 201}, counts),
            ({"peer_flood_reading_capacity": 0}, counts),
            ({"peer_flood_reading_capacity": 39}, counts),
            ({"peer_flood_reading_capacity": 201}, counts),
            ({"peer_reading_capacity": 200}, counts),
            ({"peer_reading_capacity": 0}, counts),
            ({"peer_flood_reading_capacity_bytes": -1}, sizes),
            ({"flow_control_send_more_batch_size_bytes": -1}, sizes),
            ({"peer_total_reading_capacity_bytes": 0}, "PEER_TOTAL_READING_CAPACITY_BYTES"),
            ({"peer_total_reading_capacity_bytes": -5}, "PEER_TOTAL_READING_CAPACITY_BYTES"),
            ({"peer_flood_reading_capacity_bytes": 2**32}, "below 2^32"),
            (
                {"peer_flood_reading_capacity": 2**32, "peer_reading_capacity": 2**32 + 1},
                "below 2^32",
            ),
        )
        for settings, text in cases:
            error = self.assertRaises(ConfigError, FlowControlConfig, **settings)
            self.assertIn(text, str(error), str(settings))

    def test_byte_batch_beyond_the_total_is_refused(self) -> None:
        """A byte batch of one more than the byte capacity would never be granted."""
        self.assertRaises(ConfigError, byte_config, 1000, 1001)

    def test_smallest(self) -> None:
        """All capacities 1, with one more message in all, are legal (F30, F31)."""
        config = FlowControlConfig(
            peer_reading_capacity=2,
            peer_flood_reading_capacity=1,
            flow_control_send_more_batch_size=1,
            peer_flood_reading_capacity_bytes=1,
            flow_control_send_more_batch_size_bytes=1,
            peer_total_reading_capacity_bytes=1,
        )
        flow = FlowControl(config)
        self.assertEqual(flow.initial_grant(), SendMoreCapacity(1, 1))

    def test_largest_grant_fits_its_message(self) -> None:
        """The largest legal capacities are what two u32 can say."""
        config = FlowControlConfig(
            peer_reading_capacity=2**32,
            peer_flood_reading_capacity=2**32 - 1,
            peer_flood_reading_capacity_bytes=2**32 - 1,
        )
        self.assertEqual(
            FlowControl(config).initial_grant(), SendMoreCapacity(2**32 - 1, 2**32 - 1)
        )


class HeadroomTests(SynchronousTestCase):
    """Whatever waits for a batch to fill up, a largest transaction must still fit beside it."""

    def test_exact(self) -> None:
        """A difference of exactly the largest transaction is enough."""
        byte_config(150_000, 47_600).validate_headroom(102_400)

    def test_one_byte_short(self) -> None:
        """One byte less is refused, with both numbers in the text."""
        error = self.assertRaises(
            ConfigError, byte_config(150_000, 47_601).validate_headroom, 102_400
        )
        self.assertIn("is 102399, but must be at least the largest transaction, 102400", str(error))

    def test_batch_of_zero_bytes(self) -> None:
        """With G = 0 the whole capacity is room."""
        byte_config(102_400, 0).validate_headroom(102_400)
        self.assertRaises(ConfigError, byte_config(102_399, 0).validate_headroom, 102_400)

    def test_automatic_always_has_it(self) -> None:
        """Automatic settings fit any largest transaction."""
        for size in (0, 102_400, 200_000, 200_001, 10**9):
            FlowControlConfig().validate_headroom(size)

    def test_batch_greater_than_message(self) -> None:
        """F4: capacity 2 * size + 2000 with a batch of 2 * size leaves 2000 bytes: refused."""
        size = transaction(5000).size
        config = byte_config(2 * size + 2000, 2 * size)
        error = self.assertRaises(ConfigError, config.validate_headroom, size)
        self.assertIn("is 2000,", str(error))
