"""The peer table in memory: types, back-off, purge, random selection, and its bounds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.store import peer_table
from stellar_overlay.store.peer_manager import (
    BATCH_SIZE,
    MAX_PEERS,
    MAX_PEERS_PER_IP,
    BackOffUpdate,
    PeerManager,
    PeerQuery,
    PeerRecord,
    RandomPeerSource,
    StoredPeerType,
)
from tests.store.world import WALL, at

INBOUND, OUTBOUND, PREFERRED = StoredPeerType
NOW = int(WALL)


def anyone(_: ResolvedPeerAddress) -> bool:
    """Accept every address."""
    return True


def row(
    number: int,
    peer_type: StoredPeerType = INBOUND,
    *,
    failures: int = 0,
    due: int = NOW,
    port: int = 11625,
) -> PeerRecord:
    """Return a row."""
    return PeerRecord(
        address=at(number, port), next_attempt=due, num_failures=failures, peer_type=peer_type
    )


class PeerManagerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = WALL
        self.peers = PeerManager(wall_clock=lambda: self.now, random=random.Random(7))

    def fill(self, rows: list[PeerRecord]) -> None:
        for record in rows:
            self.assertTrue(self.peers.store(record))

    def mark_written(self) -> None:
        self.peers.table.note_written(self.peers.table.changes())


class RowTests(PeerManagerTestCase):
    """One address at a time."""

    def test_round_trip(self) -> None:
        """P2: not there before, equal after, of each type."""
        for number, peer_type in enumerate(StoredPeerType):
            record = row(number, peer_type, failures=3, due=NOW + 5)
            self.assertIsNone(self.peers.table.get(record.address))
            self.peers.store(record)
            self.assertEqual(self.peers.load(record.address), record)
        self.assertEqual(self.peers.peer_count, 3)

    def test_unknown(self) -> None:
        """Loading what is unknown gives the row that it would have, and stores nothing."""
        self.assertEqual(self.peers.load(at(1)), row(1))
        self.assertEqual(self.peers.peer_count, 0)

    def test_heard_of(self) -> None:
        """Hearsay adds a row, and never changes one."""
        self.peers.ensure_exists(at(1))
        self.assertEqual(self.peers.get_all_peers(), [row(1)])
        known = row(1, PREFERRED, failures=7)
        self.peers.store(known)
        self.peers.ensure_exists(at(1))
        self.assertEqual(self.peers.get_all_peers(), [known])

    def test_types(self) -> None:
        """9.4 and P16: the whole table."""
        become = {
            (PREFERRED, False): (PREFERRED, PREFERRED, PREFERRED),
            (PREFERRED, True): (PREFERRED, PREFERRED, PREFERRED),
            (OUTBOUND, False): (OUTBOUND, OUTBOUND, PREFERRED),
            (OUTBOUND, True): (OUTBOUND, OUTBOUND, OUTBOUND),
            (INBOUND, False): (INBOUND, OUTBOUND, OUTBOUND),
            (INBOUND, True): (INBOUND, OUTBOUND, OUTBOUND),
        }
        for (observed, known), after in become.items():
            for before, expected in zip(StoredPeerType, after, strict=True):
                self.peers.store(row(1, before, failures=2))
                self.peers.update_type(at(1), observed, known)
                self.assertEqual(self.peers.load(at(1)), row(1, expected, failures=2))
                self.peers.update_type(at(2), observed, known)
                self.assertEqual(self.peers.load(at(2)).peer_type, observed)
                self.peers.clear_all()

    def test_backoff(self) -> None:
        """9.2: the wait is 1..10 * 2^n, is reset by success, and HARD_RESET makes it due."""
        for failures in range(1, 14):
            self.peers.update_backoff(at(1), BackOffUpdate.INCREASE)
            record = self.peers.load(at(1))
            self.assertEqual((record.num_failures, record.peer_type), (failures, INBOUND))
            wait = record.next_attempt - NOW
            self.assertTrue(1 <= wait <= 10 * 2 ** min(failures, 10), wait)
        self.peers.update_backoff(at(1), BackOffUpdate.RESET)
        reset = self.peers.load(at(1))
        self.assertEqual(reset.num_failures, 0)
        self.assertTrue(1 <= reset.next_attempt - NOW <= 10)
        self.peers.update_backoff(at(1), BackOffUpdate.HARD_RESET)
        self.assertEqual(self.peers.load(at(1)), row(1))

    def test_backoff_is_uniform(self) -> None:
        """Every second of the span comes up."""
        seen = set()
        for _ in range(400):
            self.peers.update_backoff(at(1), BackOffUpdate.RESET)
            seen.add(self.peers.load(at(1)).next_attempt - NOW)
        self.assertEqual(seen, set(range(1, 11)))

    def test_restoring(self) -> None:
        """What a dial cost is given back; what was learnt of the type stays."""
        before = row(1, failures=3)
        self.peers.store(before)
        self.peers.update_backoff(at(1), BackOffUpdate.INCREASE)
        self.peers.update_type(at(1), OUTBOUND, True)
        self.peers.restore_backoff(before)
        self.assertEqual(self.peers.load(at(1)), replace(before, peer_type=OUTBOUND))

    def test_wrong_clocks(self) -> None:
        """T28: a date that no back-off can have given is due; clocks may say anything."""
        self.assertTrue(row(1, due=NOW).is_ready(WALL))
        self.assertFalse(row(1, due=NOW + 1).is_ready(WALL))
        self.assertFalse(row(1, due=NOW + 10_240, failures=10).is_ready(WALL))
        self.assertTrue(row(1, due=NOW + 10_241, failures=10).is_ready(WALL))
        for failures, longest in ((0, 10), (1, 20), (5, 320), (9, 5120), (99, 10_240)):
            self.assertFalse(row(1, due=NOW + longest, failures=failures).is_ready(WALL))
            # No failures of its own can have put it off so far: our clock went back since.
            self.assertTrue(row(1, due=NOW + longest + 1, failures=failures).is_ready(WALL))
        for self.now in (-1e18, 0.0, 1e18):
            self.peers.update_backoff(at(1), BackOffUpdate.INCREASE)
            self.peers.ensure_exists(at(2))
        with self.assertRaises(ValueError):
            row(1, failures=-1)
        with self.assertRaises(ValueError):
            row(1, due=-1)


class PurgeTests(PeerManagerTestCase):
    """What is forgotten for failing."""

    def test_by_failures_and_ip(self) -> None:
        """P11: by number of failures; of one IP, all its ports."""
        self.fill([row(number, failures=number) for number in range(1, 6)])
        self.peers.store(row(2, failures=2, port=1234))
        self.assertEqual(self.peers.remove_peers_with_many_failures(3), 3)
        self.assertEqual(self.failures(), [1, 2, 2])
        self.assertEqual(self.peers.remove_peers_with_many_failures(3, at(2).host), 0)
        self.assertEqual(self.peers.remove_peers_with_many_failures(2, at(2).host), 2)
        self.assertEqual(self.failures(), [1])

    def test_at_start(self) -> None:
        """P12 to P14: 120 are too many, 119 may still succeed, or fail once more; any type."""
        self.fill([row(number, PREFERRED, failures=number) for number in range(118, 123)])
        self.peers.remove_peers_with_many_failures(120)
        self.assertEqual(self.failures(), [118, 119])
        self.peers.update_backoff(at(118), BackOffUpdate.RESET)
        self.peers.update_backoff(at(119), BackOffUpdate.INCREASE)
        self.peers.remove_peers_with_many_failures(120, at(119).host)
        self.assertEqual(self.failures(), [0])

    def failures(self) -> list[int]:
        return sorted(record.num_failures for record in self.peers.get_all_peers())


class SelectionTests(PeerManagerTestCase):
    """Which addresses are dialled and told."""

    def test_queries(self) -> None:
        """P7: of 18 rows, exactly those that match, for each of 16 queries."""
        kinds = product((NOW - 1, NOW, NOW + 1), (0, 1), StoredPeerType)
        rows = [
            row(number, kind, failures=failures, due=due)
            for number, (due, failures, kind) in enumerate(kinds)
        ]
        self.fill(rows)
        filters = [{INBOUND}, {OUTBOUND}, {PREFERRED}, {OUTBOUND, PREFERRED}]
        for is_due, most, types in product((True, False), (0, 1), filters):
            query = PeerQuery(
                use_next_attempt=is_due, max_num_failures=most, types=frozenset(types)
            )
            expected = {
                record.address
                for record in rows
                if (record.next_attempt <= NOW or not is_due)
                and record.num_failures <= most
                and record.peer_type in types
            }
            found = self.peers.load_random_peers(query, 50)
            self.assertEqual((set(found), len(found)), (expected, len(expected)))

    def test_cutoff(self) -> None:
        """P10 and Y18: 120 failures may be dialled, 121 not; more than 10 are not told."""
        rows = product((0, 10, 11, 120, 121), StoredPeerType)
        self.fill([row(number, kind, failures=count) for number, (count, kind) in enumerate(rows)])
        source = RandomPeerSource(self.peers, PeerQuery.to_dial(OUTBOUND))
        chosen = [self.peers.load(address) for address in source.get_random_peers(50, anyone)]
        self.assertEqual({record.peer_type for record in chosen}, {OUTBOUND})
        self.assertEqual(sorted(record.num_failures for record in chosen), [0, 10, 11, 120])
        self.assertEqual(len(self.peers.get_peers_to_send(50, anyone)), 6)

    def test_sizes_to_send(self) -> None:
        """P8: as many as asked, as far as there are."""
        self.assertEqual(self.peers.get_peers_to_send(50, anyone), [])
        for outbound, inbound in ((8, 0), (0, 8), (4, 4), (50, 0), (0, 50), (25, 25)):
            peers = PeerManager(wall_clock=lambda: self.now, random=random.Random(1))
            for number in range(outbound + inbound):
                peers.store(row(number, OUTBOUND if number < outbound else INBOUND))
            for asked in (8, 10, 30, 50):
                chosen = peers.get_peers_to_send(asked, anyone)
                self.assertEqual(len(set(chosen)), min(asked, outbound + inbound))

    def test_half_of_them_failed(self) -> None:
        """P9: those with 11 failures are not told."""
        shares = {(25, 25, 0, 0): 25, (0, 0, 25, 25): 25, (13, 12, 13, 12): 26}
        for counts, expected in shares.items():
            self.peers.clear_all()
            kinds = product((OUTBOUND, INBOUND), (0, 11))
            numbers = iter(range(100))
            for count, (kind, failures) in zip(counts, kinds, strict=True):
                self.fill([row(next(numbers), kind, failures=failures) for _ in range(count)])
            self.assertEqual(len(self.peers.get_peers_to_send(50, anyone)), expected)

    def test_order_of_sources(self) -> None:
        """9.6: who answered us is told before hearsay; what is refused, and IPv6, never."""
        self.fill([row(number, INBOUND) for number in range(10)])
        self.fill([row(number, OUTBOUND) for number in range(10, 13)])
        self.fill([row(number, PREFERRED) for number in range(13, 16)])
        six = ResolvedPeerAddress("2001:db8::1")
        self.peers.update_type(six, OUTBOUND, False)
        chosen = self.peers.get_peers_to_send(8, lambda address: address != at(10))
        self.assertEqual(set(chosen[:5]), {at(number) for number in range(11, 16)})
        self.assertEqual(len(chosen), 8)
        self.assertNotIn(six, chosen)
        self.assertNotIn(at(10), chosen)

    def test_consumption(self) -> None:
        """9.5: what was looked at is not offered again until too little is cached."""
        self.fill([row(number, OUTBOUND) for number in range(20)])
        source = RandomPeerSource(self.peers, PeerQuery.to_dial(OUTBOUND))
        first = source.get_random_peers(8, anyone)
        looked_at: list[ResolvedPeerAddress] = []

        def refuse(address: ResolvedPeerAddress) -> bool:
            looked_at.append(address)
            return False

        self.peers.clear_all()  # the cache may be stale
        self.assertEqual(source.get_random_peers(8, refuse), [])
        self.assertEqual(len(looked_at), 12)
        self.assertEqual(len({*first, *looked_at}), 20)
        self.assertEqual(source.get_random_peers(8, anyone), [])

    def test_batches(self) -> None:
        """9.5: a batch has 1,000 rows, neighbours from a random offset; all come up in time."""
        self.fill([row(number, OUTBOUND) for number in range(BATCH_SIZE + 500)])
        query = PeerQuery.to_dial(OUTBOUND)
        batches = [self.peers.load_random_peers(query, BATCH_SIZE) for _ in range(20)]
        self.assertEqual({len(set(batch)) for batch in batches}, {BATCH_SIZE})
        self.assertGreater(len(set().union(*batches)), BATCH_SIZE + 300)
        self.assertEqual(len({batch[0] for batch in batches}), 20)


class BoundsTests(PeerManagerTestCase):
    """What hearsay cannot do."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(peer_table, "MAX_PEERS", 300)

    def test_the_worst_make_room(self) -> None:
        """A new address takes the place of inbound rows that failed most, a hundred at once."""
        self.fill([row(number, failures=number) for number in range(299)])
        self.fill([row(999, OUTBOUND, failures=1000)])
        self.assertTrue(self.peers.ensure_exists(at(1000)))
        self.assertEqual(self.peers.peer_count, 201)
        kept = {record.num_failures for record in self.peers.get_all_peers()}
        self.assertEqual(kept, {*range(199), 1000})

    def test_no_room(self) -> None:
        """When none has failed the new one is forgotten; but who answered us always finds room."""
        self.fill([row(number) for number in range(300)])
        self.assertFalse(self.peers.ensure_exists(at(1000)))
        self.peers.update_backoff(at(1000), BackOffUpdate.INCREASE)
        self.assertEqual(self.peers.load(at(1000)), row(1000))
        for number in range(1000, 1310):
            self.peers.update_type(at(number), OUTBOUND, True)
        self.peers.update_type(at(2000), PREFERRED, True)
        self.assertEqual(self.peers.load(at(2000)).peer_type, PREFERRED)
        self.assertEqual(self.peers.load(at(1309)).peer_type, OUTBOUND)
        self.assertLessEqual(self.peers.peer_count, 300)

    def test_per_ip(self) -> None:
        """One public IP has 16 rows on hearsay; it may replace those of its own that failed."""
        for port in range(1, 40):
            self.peers.ensure_exists(at(1, port))
        self.assertEqual(self.peers.peer_count, MAX_PEERS_PER_IP)
        self.peers.update_backoff(at(1, 3), BackOffUpdate.INCREASE)
        self.assertTrue(self.peers.ensure_exists(at(1, 50)))
        self.assertIsNone(self.peers.table.get(at(1, 3)))
        self.peers.update_type(at(1, 60), OUTBOUND, True)
        self.assertEqual(self.peers.peer_count, MAX_PEERS_PER_IP + 1)
        for port in range(1, 40):
            self.peers.ensure_exists(ResolvedPeerAddress("10.0.0.1", port))
        self.assertEqual(self.peers.peer_count, MAX_PEERS_PER_IP + 40)

    @settings(derandomize=True, max_examples=30)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("hear", "dial", "answer", "prefer", "fail", "purge", "write")),
                st.integers(0, 30),
            ),
            max_size=120,
        )
    )
    def test_indexes_agree(self, acts: list[tuple[str, int]]) -> None:
        """Whatever happens, counts, types, IPs and changes describe the same rows."""
        self.patch(peer_table, "MAX_PEERS", 12)
        peers = PeerManager(wall_clock=lambda: WALL, random=random.Random(1))
        disk: dict[ResolvedPeerAddress, PeerRecord] = {}
        for act, number in acts:
            address = at(number % 9, 1 + number)
            if act == "hear":
                peers.ensure_exists(address)
            elif act in ("dial", "fail"):
                peers.update_backoff(address, BackOffUpdate.INCREASE)
            elif act in ("answer", "prefer"):
                peers.update_type(address, OUTBOUND if act == "answer" else PREFERRED, True)
            elif act == "purge":
                peers.remove_peers_with_many_failures(3, address.host)
            else:
                self.write(peers, disk)
            table = peers.table
            rows = {record.address: record for record in table}
            by_type = [record for kind in StoredPeerType for record in table.of_type(kind)]
            self.assertEqual({record.address: record for record in by_type}, rows)
            self.assertEqual(len(by_type), len(rows))
            for host in {address.host for address in rows}:
                expected = Counter(at.host for at in rows)[host]
                self.assertEqual(len(table.of_ip(host)), expected)
            self.assertLessEqual(len(rows), 12)
        self.write(peers, disk)
        self.assertEqual(disk, {record.address: record for record in peers.get_all_peers()})

    def write(self, peers: PeerManager, disk: dict[ResolvedPeerAddress, PeerRecord]) -> None:
        changes = peers.table.changes()
        if changes.replaces_all is not None:
            disk.clear()
        for address, record in changes.rows.items():
            disk.pop(address, None)
            if record is not None:
                disk[address] = record
        peers.table.note_written(changes)
        self.assertFalse(peers.table.has_changes)

    def test_changes_are_bounded(self) -> None:
        """However many addresses come and go, what is to be written is at most the table."""
        for number in range(1000):
            self.peers.store(row(number, failures=1))
        changes = self.peers.table.changes()
        self.assertIsNotNone(changes.replaces_all)
        self.assertLessEqual(len(changes.rows), 900)


class ChangesTests(PeerManagerTestCase):
    """What is to be written."""

    def test_while_it_is_written(self) -> None:
        """What changed after the changes were taken stays to be written."""
        self.fill([row(1), row(2)])
        changes = self.peers.table.changes()
        self.peers.store(row(2, failures=1))
        self.peers.table.note_written(changes)
        self.assertEqual(dict(self.peers.table.changes().rows), {at(2): row(2, failures=1)})

    def test_no_change(self) -> None:
        """Storing what is there already is none."""
        self.fill([row(1)])
        self.mark_written()
        self.fill([row(1)])
        self.peers.ensure_exists(at(1))
        self.assertFalse(self.peers.table.has_changes)

    def test_clearing(self) -> None:
        """After clearing, nothing is taken from the disk any more, and all there goes."""
        self.fill([row(1)])
        self.peers.clear_all()
        self.peers.table.merge([row(2)])
        self.assertEqual(self.peers.get_all_peers(), [])
        self.assertIsNotNone(self.peers.table.changes().replaces_all)

    def test_merging(self) -> None:
        """What memory has or has removed is newer than the disk; the rest is taken."""
        self.fill([row(1, failures=1), row(2)])
        self.peers.remove_peers_with_many_failures(1)
        self.peers.table.merge([row(1), row(2, failures=9), row(3)])
        self.assertEqual(self.peers.get_all_peers(), [row(2), row(3)])
        self.assertEqual(dict(self.peers.table.changes().rows), {at(1): None, at(2): row(2)})

    def test_a_full_table_is_quick(self) -> None:
        """With 10,000 rows: hearsay costs no scan, and a source loads once per batch."""
        for number in range(MAX_PEERS):
            self.peers.table.put(row(number))
        self.assertEqual(self.peers.peer_count, MAX_PEERS)
        scans = []
        evict = self.peers.table._evict

        def count(rows: Iterable[PeerRecord], most: int) -> bool:
            rows = list(rows)
            scans.append(len(rows))
            return evict(rows, most)

        self.patch(self.peers.table, "_evict", count)
        for number in range(MAX_PEERS, MAX_PEERS + 100):
            self.peers.ensure_exists(at(number))
        self.assertEqual(scans, [0] * 100)
        loads = []
        load = self.peers.load_random_peers

        def load_and_count(query: PeerQuery, size: int) -> list[ResolvedPeerAddress]:
            loads.append(size)
            return load(query, size)

        self.patch(self.peers, "load_random_peers", load_and_count)
        source = RandomPeerSource(self.peers, PeerQuery.to_dial(INBOUND))
        for _ in range(40):
            self.assertEqual(len(source.get_random_peers(50, anyone)), 50)
        self.assertEqual(len(loads), 2)
