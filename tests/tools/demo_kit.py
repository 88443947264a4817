"""The demo's traffic between real nodes on a simulated clock."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.loopback import LoopbackNetwork
from stellar_overlay.tools import demo_checks, demo_traffic
from stellar_overlay.tools.demo_checks import Check
from stellar_overlay.tools.demo_journal import Journal
from stellar_overlay.tools.demo_network import Network
from stellar_overlay.tools.demo_survey import Survey
from stellar_overlay.tools.demo_topology import check_survey
from stellar_overlay.tools.demo_traffic import Traffic

MESSAGES_PER_LINK = 250
"""Enough to be beyond the first grant."""


class SimulatedNetwork(Network):
    """Nodes in one process, without sockets, that all know each other.

    :param known: whom each of the others knows, by numbers; the first by default.
    """

    def __init__(self, arguments: Namespace, known: dict[int, int] | None = None) -> None:
        self.world = LoopbackNetwork(latency=0.005)
        super().__init__(arguments, LocalNode.testnet(), self.world.clock)
        for number in range(self.size):
            known_peers = [f"node {(known or {}).get(number, 0)}"] if number else []
            node = self.world.add_node(
                f"node {number}",
                known_peers=known_peers,
                surveyor_keys=[self.world._local_node(f"node {self.size - 1}").peer_id],
                expected_ledger_close_secs=self.ledger_seconds,
            )
            self.nodes.append(node)
            self._herders.append(node._flooding.herder)

    def find_links(self) -> None:
        """Let the nodes find each other, and settle."""
        if not self.world.run_until(lambda: self.is_whole, timeout=30):
            raise AssertionError(f"only these links came about: {self.world.links()}")
        self.world.advance(10)
        self.links = self._found_links()


class Play:
    """All that happens between discovery and the checks.

    :ivar reports: the seconds of which there was a report; ``lines``: what was said of the survey.
    """

    def __init__(self, test: SynchronousTestCase, *, nodes: int = 3, seconds: int = 2) -> None:
        test.patch(demo_traffic, "MESSAGES_PER_LINK", MESSAGES_PER_LINK)
        arguments = Namespace(nodes=nodes, seconds=seconds, seed=7)
        self.network = SimulatedNetwork(arguments)
        test.addCleanup(self._stop)
        self.network.find_links()
        self.reports: list[int] = []
        clock = self.network.world.clock
        self.lines: list[str] = []
        self.journal = Journal(nodes, clock)
        self.survey = Survey(arguments, self.network, clock, self.lines.append)
        self.traffic = Traffic(arguments, self.network, self.journal, clock, self.reports.append)

    @property
    def nodes(self) -> list[OverlayManager]:
        """The nodes, in the order of their numbers."""
        return self.network.nodes

    def run(self) -> dict[str, Check]:
        """Send and survey everything, and return what the checks make of it, by name."""
        world, network, journal = self.network.world, self.network, self.journal
        deadline = world.clock.seconds() + self.survey.max_seconds
        surveying = Deferred.fromCoroutine(self.survey.run(deadline))
        world.result_of(self.traffic.run(0.0, lambda: self.survey.needs_ledgers), timeout=100)
        world.result_of(surveying, timeout=100)
        fetch = demo_checks.check_fetch(network, self.traffic, journal)
        return {
            "flood": demo_checks.check_flood(network, self.traffic, journal),
            "pull": demo_checks.check_pull(network, journal),
            "fetch": world.result_of(fetch, timeout=30),
            "flow-control": demo_checks.check_flow_control(network, journal),
            "survey": check_survey(network, self.survey),
        }

    def run_for(self, check: str) -> Check:
        """Send everything, and return what one check makes of it; the others must be good."""
        checks = self.run()
        wanted = checks.pop(check)
        for name, other in checks.items():
            if not other.ok:
                raise AssertionError(f"{name}: {other.text}")
        return wanted

    def _stop(self) -> None:
        for number in range(self.network.size):
            self.network.world.stop(f"node {number}")


def every(
    count: int, do: Callable[..., object], other: Callable[..., object]
) -> Callable[..., object]:
    """Return a function that does ``other`` each time of so many, and else ``do``."""
    calls = [0]

    def call(*arguments: object) -> object:
        calls[0] += 1
        return (other if calls[0] % count == 0 else do)(*arguments)

    return call
