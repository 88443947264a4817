"""The table of limits: what each is for one peer, for all, and that the code has the same."""

from __future__ import annotations

from inspect import signature

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.config import OverlayConfig
from stellar_overlay.gossip.flood import MAX_RECORD_BYTES, MAX_RECORDS, FloodGate
from stellar_overlay.node.limit_table import (
    Limit,
    limits_of,
    total_bytes,
)

MEBIBYTE = 2**20


def table(max_files: int | None = None, **settings: object) -> dict[str, Limit]:
    """Return the limits of a configuration, by name."""
    config = OverlayConfig(**settings).checked()  # type: ignore[arg-type]
    return {limit.name: limit for limit in limits_of(config, max_files=lambda: max_files)}


class LimitTests(SynchronousTestCase):
    def test_total(self) -> None:
        """All together have what each has, or less where that is limited."""
        for count, cap, total in (
            (1, None, 10),
            (7, None, 70),
            (7, 50, 50),
            (5, 50, 50),
            (4, 50, 40),
        ):
            limit = Limit(name="a", meaning="b", unit="bytes", each=10, count=count, cap=cap)
            self.assertEqual(limit.total, total)

    def test_total_bytes(self) -> None:
        """Only bytes are added up."""
        limits = [
            Limit(name="a", meaning="b", unit=unit, each=10, count=2)
            for unit in ("bytes", "rows", "bytes")
        ]
        self.assertEqual(total_bytes(tuple(limits)), 40)


class LimitsOfTests(SynchronousTestCase):
    def test_defaults(self) -> None:
        """By default there are 72 peers and 500 handshakes; two sums are limits of their own."""
        limits = table()
        for name, each, count, total in (
            ("received_pending", 4096, 500, 500 * 4096),
            ("received", 17 * MEBIBYTE, 72, 256 * MEBIBYTE),
            ("processing", 201, 72, 201 * 72),
            ("answers", 32 * MEBIBYTE, 72, 64 * MEBIBYTE),
            ("tx_queue", 3 * MEBIBYTE, 72, 216 * MEBIBYTE),
            ("scp_queue", 4 * MEBIBYTE, 72, 288 * MEBIBYTE),
            ("advert_queue", 10_000, 72, 720_000),
            ("trackers", 512, 2, 1024),
            ("flood_records", 200_000, 1, 200_000),
            ("flood_bytes", 128 * MEBIBYTE, 1, 128 * MEBIBYTE),
            ("tx_set_cache", 64 * MEBIBYTE, 1, 64 * MEBIBYTE),
            ("demand_history", 100_000, 1, 100_000),
            ("peers", 10_000, 1, 10_000),
        ):
            limit = limits[name]
            self.assertEqual((limit.each, limit.count, limit.total), (each, count, total), name)

    def test_settings(self) -> None:
        """What an operator sets is in the table, and so is how many files may be open."""
        limits = table(
            target_outbound_peers=2,
            max_outbound_peers=4,
            max_inbound_peers=6,
            max_pending_connections=30,
            peer_reading_capacity=500,
            peer_total_reading_capacity_bytes=MEBIBYTE // 2,
            outbound_tx_queue_byte_limit=1000,
            max_tx_set_size_ops=50,
        )
        self.assertEqual(limits["received_pending"].count, 30)
        for name, each in (
            ("received", 16 * MEBIBYTE + MEBIBYTE // 2),
            ("processing", 500),
            ("tx_queue", 1000),
            ("advert_out_queue", 50),
            ("demand_out_queue", 50),
            ("advert_queue", 50),
        ):
            self.assertEqual((limits[name].each, limits[name].count), (each, 10), name)
        self.assertEqual(
            limits["received"].total, 165 * MEBIBYTE
        )  # fewer than the cap has room for
        self.assertLess(table(max_files=40)["tx_queue"].count, 72)

    def test_names(self) -> None:
        """Each limit has a name of its own, that may be part of a metric's."""
        limits = limits_of(OverlayConfig().checked(), max_files=lambda: None)
        names = [limit.name for limit in limits]
        self.assertEqual(len(names), len(set(names)))
        for limit in limits:
            self.assertRegex(limit.name, "^[a-z_]+$")
            self.assertIn(limit.unit, ("bytes", "messages", "hashes", "items", "rows"))
            self.assertGreater(limit.total, 0)

    def test_flood_gate(self) -> None:
        """What the table says of the flood gate is what one has that is told nothing else."""
        parameters = signature(FloodGate.__init__).parameters
        self.assertEqual(parameters["max_records"].default, MAX_RECORDS)
        self.assertEqual(parameters["max_bytes"].default, MAX_RECORD_BYTES)
