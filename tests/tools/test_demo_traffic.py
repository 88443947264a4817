"""What travels in the demo, and when."""

from __future__ import annotations

from argparse import Namespace

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.identity import TESTNET_PASSPHRASE, network_id
from stellar_overlay.tools import demo_traffic
from stellar_overlay.tools.demo_journal import Journal
from stellar_overlay.tools.demo_traffic import Payments, Traffic
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.transaction import TransactionView
from tests.tools.demo_kit import MESSAGES_PER_LINK, Play, SimulatedNetwork


class PaymentTests(SynchronousTestCase):
    def test_real(self) -> None:
        """Signed by its source for the network, in its time, each from another account."""
        payments = Payments(TESTNET_PASSPHRASE, 1_700_003_600, seed=7)
        views = [TransactionView(payments.make().body) for _ in range(5)]
        self.assertEqual(len({view.source for view in views}), 5)
        for view in views:
            xdr_check.check(view.body)
            (check,) = view.signature_checks(network_id(TESTNET_PASSPHRASE))
            self.assertTrue(is_signed_by(*check))
            self.assertEqual(view.time_bounds, (0, 1_700_003_600))

    def test_same_again(self) -> None:
        """The same seed makes the same transactions, another seed others."""

        def bodies(seed: int) -> list[bytes]:
            payments = Payments(TESTNET_PASSPHRASE, 1_700_000_000, seed)
            return [payments.make().body for _ in range(3)]

        self.assertEqual(bodies(1), bodies(1))
        self.assertFalse(set(bodies(1)) & set(bodies(2)))


class TrafficTests(SynchronousTestCase):
    def test_reports(self) -> None:
        """There is one each second, and one when all has arrived."""
        play = Play(self, seconds=3)
        play.run()
        self.assertEqual(play.reports, [0, 1, 2, 3])

    def test_amounts(self) -> None:
        """Ten transactions and one ledger a second; so many direct statements each way."""
        play = Play(self, seconds=3)
        start = play.network.world.clock.seconds()
        play.run()
        self.assertLess(play.network.world.clock.seconds() - start, 3.8)
        journal = play.journal
        self.assertEqual(journal.transactions.broadcast, 30)
        self.assertEqual((play.traffic.ledger, journal.tx_sets_made), (3, 3))
        self.assertEqual(play.network.ledgers, [3, 3, 3])
        self.assertEqual(set(journal.sent.values()), {MESSAGES_PER_LINK})
        self.assertEqual(len(journal.sent), 6)

    def test_deadline(self) -> None:
        """What does not arrive is waited for ten seconds, not for ever."""
        play = Play(self, seconds=1)
        for node in play.nodes:
            node._flooding.relay.demands.demand = lambda now: None  # type: ignore[method-assign]
        clock = play.network.world.clock
        start = clock.seconds()
        play.network.world.result_of(play.traffic.run(0.0), timeout=20)
        self.assertTrue(10.5 < clock.seconds() - start < 11.5, clock.seconds() - start)

    def test_later_deadline(self) -> None:
        """Or as long as it is said, if that is longer."""
        play = Play(self, seconds=1)
        play.nodes[1]._flooding.relay.demands.demand = lambda now: None  # type: ignore[method-assign]
        clock = play.network.world.clock
        start = clock.seconds()
        play.network.world.result_of(play.traffic.run(start + 15), timeout=20)
        self.assertTrue(14.5 < clock.seconds() - start < 15.5, clock.seconds() - start)

    def test_same_again(self) -> None:
        """The same seed has the same nodes sign and submit the same things."""

        def traffic(seed: int) -> tuple[list[bytes], list[bytes]]:
            arguments = Namespace(nodes=4, seconds=1, seed=seed)
            network = SimulatedNetwork(arguments)
            network.find_links()
            journal = Journal(4, network.world.clock)
            traffic = Traffic(arguments, network, journal, network.world.clock, lambda second: None)
            self.patch(demo_traffic, "MESSAGES_PER_LINK", 1)
            network.world.result_of(traffic.run(0.0))
            keys = [one.overlay.local_node.peer_id.key for one in traffic.validators]
            return keys, list(journal.transactions.journeys)

        self.assertEqual(traffic(1), traffic(1))
        self.assertNotEqual(traffic(1), traffic(2))

    def test_long_runs(self) -> None:
        """At that pace, everything is fetched in time for minutes, whatever the size."""
        for nodes, seconds in ((2, 70), (3, 70), (5, 20), (8, 70)):
            with self.subTest(nodes=nodes):
                play = Play(self, nodes=nodes, seconds=seconds)
                self.assertEqual([one.text for one in play.run().values() if not one.ok], [])

    def test_consensus_lost(self) -> None:
        """What was followed counts, even if consensus is lost while the rest is awaited."""
        play = Play(self, seconds=1)
        play.nodes[1]._flooding.relay.demands.demand = lambda now: None  # type: ignore[method-assign]
        deadline = play.network.world.clock.seconds() + 60
        play.network.world.result_of(play.traffic.run(deadline), timeout=70)
        self.assertEqual((min(play.network.ledgers), play.traffic.followed), (0, 1))

    def test_more_ledgers(self) -> None:
        """Ledgers go on for whoever needs them, half as often, and are followed to the last."""
        play = Play(self, seconds=2)
        clock = play.network.world.clock
        end = clock.seconds() + 7.5
        running = play.traffic.run(end + 10, lambda: clock.seconds() < end)
        play.network.world.result_of(running, timeout=20)
        self.assertEqual((play.traffic.ledger, play.traffic.followed), (5, 5))
        self.assertEqual(play.journal.transactions.broadcast, 20)
        self.assertLess(clock.seconds(), end + 1.5)

    def test_many_links(self) -> None:
        """Where there are very many links, only some carry direct statements."""
        self.patch(demo_traffic, "MAX_LINKS_WITH_DIRECT", 2)
        play = Play(self, nodes=4, seconds=1)
        checks = play.run()
        self.assertEqual(len(play.journal.sent), 4)
        self.assertTrue(checks["flow-control"].ok)

    def test_lost_link(self) -> None:
        """A link that ends on the way is no reason to stop, only to fail."""
        play = Play(self, nodes=2, seconds=1)
        one, other = play.nodes
        leave = one.peer(other.local_node.peer_id).drop
        clock = play.network.world.clock
        clock.callLater(0.5, leave, DropReason.DROPPED_BY_USER.violation())
        check = play.run()["flow-control"]
        self.assertEqual((check.ok, play.reports), (False, [0, 1]))
        self.assertLess(int(str(check.figures["sent"])), 2 * MESSAGES_PER_LINK)
