"""Parts of a network that do not know of each other (connection.md 8.7, step 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stellar_overlay.herder.ignoring import IgnoringHerder
from tests.scenarios.network import GoodPeer, LostHerder, ScenarioTestCase

RANDOM = "random disconnect due to out of sync"
STUCK_SECONDS = 35
RECOVERY_SECONDS = 180


class IslandHerder(IgnoringHerder):
    """Follows consensus as long as it hears both islands."""

    def __init__(self, hears_both: Callable[[], bool]) -> None:
        self.is_tracking = hears_both  # type: ignore[method-assign]


class IslandTests(ScenarioTestCase):
    """Four nodes and three, each with one outbound slot; consensus needs both islands."""

    def build(self, kind: str, *, seed: int = 0, is_tracking: bool = False) -> None:
        """Build two rings; when they are stuck, tell all of the other one's addresses.

        :param kind: the list in which a node has its neighbour.
        :param is_tracking: whether all follow consensus all the same.
        """
        network = self.begin(seed=seed, latency=0.02)
        islands = [[f"a{number}" for number in range(4)], [f"b{number}" for number in range(3)]]
        for island in islands:
            for number, name in enumerate(island):
                settings: dict[str, Any] = {kind: [island[(number + 1) % len(island)]]}
                network.add_node(
                    name,
                    herder=IslandHerder(
                        lambda name=name: is_tracking or self.hears_both(name)  # type: ignore[misc]
                    ),
                    target_outbound_peers=1,
                    max_inbound_peers=8,
                    **settings,
                )
        network.advance(STUCK_SECONDS)
        self.assertEqual(self.bridges(), set())
        for name in (name for island in islands for name in island):
            others = islands[1] if name in islands[0] else islands[0]
            network.node(name).add_known_peers(network.address(other) for other in others)
        self.random_drops = [self.drops(node) for node in network.running.values()]

    def hears_both(self, name: str) -> bool:
        """Tell whether links lead from a node to the other island."""
        links, reached, grown = self.network.links(), {name}, {name}
        while grown:
            near = {end for link in links if link & grown for end in link}
            grown = near - reached
            reached |= grown
        return len({other[0] for other in reached}) == 2

    def bridges(self) -> set[frozenset[str]]:
        """Return the links between the islands."""
        return {link for link in self.network.links() if len({name[0] for name in link}) == 2}

    def reasons(self) -> list[str | None]:
        return [event.reason for events in self.random_drops for event in events]

    def test_known_peers(self) -> None:
        """T5: who is out of sync for a minute gives a peer up at random; the islands join."""
        for seed in range(5):
            self.build("known_peers", seed=seed)
            joined = self.network.run_until(self.network.is_whole, timeout=RECOVERY_SECONDS)
            self.assertTrue(joined, (seed, self.network.links()))
            self.assertIn(RANDOM, self.reasons())
            self.leave_nothing_behind()

    def test_in_sync(self) -> None:
        """T5, Y31: as long as they follow consensus, nobody gives anybody up, and none joins."""
        self.build("known_peers", is_tracking=True)
        before = self.network.links()
        self.network.advance(RECOVERY_SECONDS)
        self.assertEqual((self.network.links(), self.bridges()), (before, set()))
        self.assertNotIn(RANDOM, self.reasons())

    def test_preferred_peers(self) -> None:
        """T6: preferred peers are never given up at random, and the islands stay apart."""
        self.build("preferred_peers")
        before = self.network.links()
        self.network.advance(RECOVERY_SECONDS)
        self.assertEqual((self.network.links(), self.bridges()), (before, set()))
        self.assertNotIn(RANDOM, self.reasons())


class RandomDropTests(ScenarioTestCase):
    """Who is given up, and when."""

    def lost(self, **settings: Any) -> list[float]:
        """Run a node that never is in sync; return the list of moments of its random drops."""
        node = self.network.add_node("node", herder=LostHerder(), **settings)
        moments: list[float] = []

        def note(event: Any) -> None:
            if event.reason == RANDOM:
                self.assertEqual(event.direction, "outbound")
                self.assertEqual(event.code, 4)
                moments.append(self.network.clock.seconds())

        node.on_peer_event(note)
        return moments

    def test_once_a_minute(self) -> None:
        """Y31: the first tick only arms; then more than 60 s apart, at a tick, one each time."""
        names = [f"peer {number}" for number in range(6)]
        for name in names:
            self.network.add_peer(name, kind=GoodPeer)
        moments = self.lost(known_peers=names, target_outbound_peers=3)
        self.network.advance(60)
        self.assertEqual(moments, [])
        self.network.advance(540)
        gaps = [later - earlier for earlier, later in zip([0, *moments], moments, strict=False)]
        self.assertTrue(all(60 < gap < 90 for gap in gaps), moments)
        self.assertTrue(6 <= len(moments) <= 9, moments)

    def test_not_while_a_slot_is_free(self) -> None:
        """Y31: who has room for one more loses nobody."""
        for name in ("one", "two"):
            self.network.add_peer(name, kind=GoodPeer)
        moments = self.lost(known_peers=["one", "two"], target_outbound_peers=3)
        self.network.advance(300)
        self.assertEqual(moments, [])
        self.assertEqual(len(self.peers(self.network.node("node"))), 2)

    def test_never_a_preferred_or_inbound_one(self) -> None:
        """Y31, T6: preferred by address or by key, or having called us: these stay."""
        hosts = {
            name: self.network.add_peer(name, kind=GoodPeer)
            for name in ("by address", "by key", "caller", "stranger")
        }
        key = hosts["by key"].local_node.peer_id.strkey
        moments = self.lost(
            known_peers=["by key", "stranger"],
            preferred_peers=["by address"],
            preferred_peer_keys=[key],
            target_outbound_peers=3,
        )
        caller = hosts["caller"].dial(self.network.address("node"))
        self.network.advance(400)
        self.assertGreater(len(moments), 3)
        self.assertFalse(caller.is_closed)
        for name in ("by address", "by key"):
            self.assertEqual([peer.error for peer in hosts[name].answered], [None], name)
        told = {peer.error for peer in hosts["stranger"].answered}
        self.assertEqual(told - {None}, {(4, RANDOM.encode())})

    def test_a_preferred_peer_that_is_dead_costs_nobody_the_slot(self) -> None:
        """Y31: dialling it evicts nobody; only its AUTH does."""
        self.network.add_peer("dead", is_listening=False)
        stranger = self.network.add_peer("stranger", kind=GoodPeer)
        node = self.network.add_node(
            "node",
            preferred_peers=["dead"],
            known_peers=["stranger"],
            target_outbound_peers=1,
            herder=IgnoringHerder(),
        )
        self.network.advance(200)
        self.assertEqual(len(stranger.answered), 1)
        row = self.row(node, "dead")
        assert row is not None
        self.assertGreater(row.num_failures, 3)
        self.assertEqual(len(node.peer_infos()), 1)
