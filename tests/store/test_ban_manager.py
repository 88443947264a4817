"""Bans, alone: what is in force, what weakens nothing, and what waits for the disk."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import InvalidKey, OverlayError
from stellar_overlay.store import ban_manager
from stellar_overlay.store.ban_manager import FOR_GOOD, MAX_BAN_SECONDS, BanManager
from tests.store.world import node

A, B = node(1), node(2)


class Wall:
    """A wall clock that is set by hand."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Disk:
    """A writer that answers when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[None]] = []

    def write_bans(self) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]


class BanTests(SynchronousTestCase):
    """Y8: what is in force."""

    def setUp(self) -> None:
        self.wall = Wall()
        self.bans = BanManager(wall_clock=self.wall)

    def test_for_good(self) -> None:
        """A ban holds until it is lifted; twice is harmless."""
        for _ in range(2):
            self.successResultOf(self.bans.ban_node(A))
        self.assertTrue(self.bans.is_banned(A))
        self.assertIsNone(self.bans.expiry_of(A))
        self.assertEqual((self.bans.get_bans(), self.bans.ban_count), ([A], 1))
        self.wall.now += 10 * MAX_BAN_SECONDS
        self.assertTrue(self.bans.is_banned(A))
        for _ in range(2):
            self.successResultOf(self.bans.unban_node(A))
        self.assertFalse(self.bans.is_banned(A))

    def test_for_a_while(self) -> None:
        """A timed ban ends by itself, and is then forgotten."""
        self.successResultOf(self.bans.ban_node_for(A, 60))
        self.assertEqual(self.bans.expiry_of(A), self.wall.now + 60)
        self.wall.now += 59.9
        self.assertTrue(self.bans.is_banned(A))
        self.wall.now += 0.1
        self.assertFalse(self.bans.is_banned(A))
        self.assertEqual((self.bans.get_bans(), self.bans.ban_count), ([], 0))
        self.assertEqual((self.bans.cleanup_expired_bans(), self.bans.snapshot()), (1, {}))

    def test_nothing_weakens(self) -> None:
        """A timed ban changes neither a permanent nor a longer one; a permanent one upgrades."""
        self.bans.ban_node_for(A, 60)
        self.bans.ban_node_for(A, 30)
        self.assertEqual(self.bans.expiry_of(A), self.wall.now + 60)
        self.bans.ban_node(A)
        self.bans.ban_node_for(A, 90)
        self.assertIsNone(self.bans.expiry_of(A))
        self.assertTrue(self.bans.is_banned(A))

    def test_bad_values(self) -> None:
        """What is no node id, or no time, is refused and changes nothing."""
        for bad in ("", "G", A[:-1] + "A", A.lower(), "S" + A[1:]):
            for call in (self.bans.ban_node, self.bans.unban_node):
                with self.assertRaises(InvalidKey):
                    call(bad)
        for seconds in (0, -1, math.inf, math.nan, MAX_BAN_SECONDS + 1):
            with self.assertRaises(OverlayError):
                self.bans.ban_node_for(A, seconds)
        self.assertEqual(self.bans.ban_count, 0)

    def test_bounded(self) -> None:
        """Beyond the limit there is no room, but for those that take the place of ended ones."""
        self.patch(ban_manager, "MAX_BANS", 2)
        self.bans.ban_node(A)
        self.bans.ban_node_for(B, 5)
        with self.assertRaises(OverlayError):
            self.bans.ban_node(node(3))
        self.bans.ban_node(A)
        self.wall.now += 5
        self.bans.ban_node(node(3))
        self.assertEqual(self.bans.ban_count, 2)


class WritingTests(SynchronousTestCase):
    """What waits for the disk."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.wall = Wall()
        self.bans = BanManager(self.disk, wall_clock=self.wall)

    def test_at_once(self) -> None:
        """A ban is in force before it is on disk, which alone is what its Deferred says."""
        done = self.bans.ban_node(A)
        self.assertTrue(self.bans.is_banned(A))
        self.assertNoResult(done)
        changes = self.bans.changes()
        self.assertEqual(dict(changes), {A: FOR_GOOD})
        self.bans.note_written(changes)
        self.assertFalse(self.bans.has_changes)
        self.successResultOf(self.bans.ban_node(A))

    def test_twice_before_it_is_written(self) -> None:
        """The second time waits for the disk too."""
        self.bans.ban_node(A)
        self.assertNoResult(self.bans.ban_node(A))

    def test_changed_while_it_is_written(self) -> None:
        """What was written is not what is now: it stays to be written."""
        self.bans.ban_node(A)
        changes = self.bans.changes()
        self.bans.unban_node(A)
        self.bans.note_written(changes)
        self.assertEqual(dict(self.bans.changes()), {A: None})

    def test_merging(self) -> None:
        """The stronger ban of disk and memory holds; what was lifted meanwhile stays lifted."""
        self.bans.ban_node_for(A, 60)
        self.bans.unban_node(B)
        self.bans.merge({A: FOR_GOOD, B: FOR_GOOD, node(3): 2_000.0})
        self.assertEqual(self.bans.get_bans(), sorted([A, node(3)]))
        self.assertIsNone(self.bans.expiry_of(A))
        self.assertEqual(dict(self.bans.changes()), {A: FOR_GOOD, B: None})

    def test_lifted_then_banned(self) -> None:
        """A ban on disk that was lifted does not strengthen a shorter one that came after."""
        self.bans.unban_node(A)
        self.bans.ban_node_for(A, 60)
        self.bans.merge({A: FOR_GOOD})
        self.assertEqual(self.bans.expiry_of(A), self.wall.now + 60)


class BanMachine(RuleBasedStateMachine):
    """Any sequence of bans, losses and writes: disk and memory agree in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.wall = Wall()
        self.bans = BanManager(Disk(), wall_clock=self.wall)
        self.model: dict[str, float] = {}
        self.disk: dict[str, float] = {}

    nodes = st.sampled_from([node(number) for number in range(4)])

    @rule(node_id=nodes)
    def ban(self, node_id: str) -> None:
        self.bans.ban_node(node_id)
        self.model[node_id] = FOR_GOOD

    @rule(node_id=nodes, seconds=st.integers(1, 50))
    def ban_for(self, node_id: str, seconds: int) -> None:
        self.bans.ban_node_for(node_id, seconds)
        self.model[node_id] = max(self.model.get(node_id, 0), self.wall.now + seconds)

    @rule(node_id=nodes)
    def unban(self, node_id: str) -> None:
        self.bans.unban_node(node_id)
        self.model.pop(node_id, None)

    @rule(seconds=st.integers(1, 30))
    def wait(self, seconds: int) -> None:
        self.wall.now += seconds

    @rule()
    def clean(self) -> None:
        self.bans.cleanup_expired_bans()

    @rule(is_acknowledged=st.booleans())
    def write(self, is_acknowledged: bool) -> None:
        changes = self.bans.changes()
        for node_id, expiry in changes.items():
            self.disk.pop(node_id, None)
            if expiry is not None:
                self.disk[node_id] = expiry
        if is_acknowledged:
            self.bans.note_written(changes)

    @rule()
    def reopen(self) -> None:
        self.bans.merge(self.disk)

    @invariant()
    def agrees(self) -> None:
        in_force = {key: expiry for key, expiry in self.model.items() if expiry > self.wall.now}
        assert self.bans.get_bans() == sorted(in_force)
        for node_id, expiry in in_force.items():
            assert (self.bans.expiry_of(node_id) or FOR_GOOD) == expiry
        if not self.bans.has_changes:
            on_disk = {key for key, expiry in self.disk.items() if expiry > self.wall.now}
            assert on_disk == set(in_force)


BanMachineTests = BanMachine.TestCase
BanMachineTests.settings = settings(derandomize=True, max_examples=40, stateful_step_count=30)
