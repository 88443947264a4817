"""Who is let in while consumers hold much of peers that are gone."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as RefusedError

from stellar_overlay.error import ConnectionFailed, DropReason
from stellar_overlay.node import links
from stellar_overlay.node.links import ORPHANED_LIMIT
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import advert, get_tx_set, make_node
from tests.node.listening import ADVERT
from tests.node.world import WorldTestCase, ip

SIZE = advert().size


class CloggedTests(WorldTestCase):
    """No new links while more is held of peers that are gone than two adverts.

    Otherwise a consumer that is stuck would keep what any number of peers leaves behind: each
    comes back with new credit.
    """

    def setUp(self) -> None:
        super().setUp()
        self.patch(links, "ORPHANED_LIMIT", 2 * SIZE)
        self.node = self.world.node()
        self.held: list[Deferred[None]] = []
        self.observer = self.node.observe(self.hold, ADVERT)
        self.addCleanup(self.observer.cancel)

    def hold(self, message: OverlayMessage) -> Deferred[None]:
        """Hold a message until somebody else lets go of it."""
        self.held.append(Deferred())
        return self.held[-1]

    def say(self, peer: ScriptedPeer, *messages: Message) -> None:
        """Let a peer send these."""
        for message in messages:
            peer.send(message)
        self.world.settle()

    def leave_behind(self, count: int) -> None:
        """Let a peer come, say so many adverts, which are held, and go."""
        peer = self.world.call(number=7)
        self.say(peer, *(advert(number) for number in range(count)))
        peer.transport.abortConnection()  # type: ignore[union-attr]
        self.world.settle()

    def assert_let_in(self) -> None:
        """Check that links are made in both directions, and end them."""
        self.world.answer(2)
        callee = self.world.result(self.node.connect(ip(2)))
        caller = self.world.call(number=8)
        self.assertFalse(caller.is_closed)
        for peer_id in (callee, make_node(8).peer_id):
            self.world.result(self.node.disconnect(peer_id))

    def assert_refused(self) -> None:
        """Check that none is made in either direction; the others do not hear a byte."""
        callees = self.world.answer(2)
        with self.assertRaises(RefusedError):
            self.world.call(number=8)
        with self.assertRaises(ConnectionFailed):
            self.world.result(self.node.connect(ip(2)))
        self.assertEqual([callee.received for callee in callees], [[]])
        self.assertEqual(self.node.pending_peers(), [])

    def test_the_limit(self) -> None:
        """64 MiB: far more than the credit of one peer."""
        self.assertEqual(ORPHANED_LIMIT, 64 * 1024 * 1024)

    def test_up_to_the_limit(self) -> None:
        """Everybody is let in; with one byte more, nobody is."""
        self.leave_behind(2)
        self.assert_let_in()
        self.patch(links, "ORPHANED_LIMIT", 2 * SIZE - 1)
        self.assert_refused()

    def test_all_peers_that_are_gone_count(self) -> None:
        """However little each has left behind."""
        for _ in range(3):
            self.assert_let_in()
            self.leave_behind(1)
        self.assert_refused()

    def test_what_is_held_of_those_who_are_here_does_not_count(self) -> None:
        """Their credit is their limit."""
        peer = self.world.call()
        self.say(peer, *(advert(number) for number in range(50)))
        self.assertEqual(len(self.held), 50)
        self.assert_let_in()

    def test_back_to_normal(self) -> None:
        """As soon as the consumer has let go of enough, whatever it holds still."""
        self.leave_behind(4)
        self.assert_refused()
        self.held.pop().callback(None)
        self.assert_refused()
        self.held.pop(0).callback(None)
        self.assert_let_in()
        self.leave_behind(1)
        self.assert_refused()
        self.held.pop(0).callback(None)
        self.assert_let_in()

    def test_a_consumer_that_ends(self) -> None:
        """Lets go of everything."""
        self.leave_behind(10)
        self.assert_refused()
        self.observer.cancel()
        self.assert_let_in()

    def test_a_subscription_that_is_not_read(self) -> None:
        """Is such a consumer as well, and one that is read is none."""
        self.observer.cancel()
        subscription = self.node.subscribe(ADVERT)
        self.leave_behind(3)
        self.assert_refused()
        for _ in range(2):
            self.world.result(subscription.__anext__())
        self.assert_let_in()

    def test_a_lossy_subscription(self) -> None:
        """Holds nobody's messages, so that nothing counts."""
        self.observer.cancel()
        subscription = self.node.subscribe(ADVERT, lossy=100)
        self.leave_behind(10)
        self.assert_let_in()
        subscription.cancel()

    def test_who_is_here_stays(self) -> None:
        """Is heard and answered as ever."""
        peer = self.world.call()
        self.leave_behind(3)
        self.assert_refused()
        self.say(peer, advert(), get_tx_set())
        self.assertEqual((len(self.held), peer.is_closed), (4, False))
        self.assertEqual(len(peer.of_type(MessageType.DONT_HAVE)), 1)

    def test_who_is_shaking_hands(self) -> None:
        """Was let in already."""
        peer = self.world.call(is_polite=False)
        self.leave_behind(3)
        peer.say_hello()
        self.world.settle()
        peer.auth.accept_hello(peer.auth.read_hello(peer.received[0]))
        peer.say_auth()
        peer.grant()
        self.world.settle()
        self.assertEqual(len(self.node.peer_infos()), 1)

    def test_figures(self) -> None:
        """A caller counts as one for whom there was no slot; no link was established."""
        self.leave_behind(3)
        metrics = self.node.metrics
        names = (
            "inbound_attempt",
            "inbound_reject",
            "inbound_establish",
            "outbound_attempt",
            "outbound_establish",
        )
        before = [getattr(metrics, name).get() for name in names]
        self.assert_refused()
        gained = [
            getattr(metrics, name).get() - figure
            for name, figure in zip(names, before, strict=True)
        ]
        self.assertEqual(gained, [1, 1, 0, 1, 0])
        self.assertEqual(metrics.drops[DropReason.NO_PENDING_SLOT].get(), 1)

    def test_a_crowd_that_comes_again_and_again(self) -> None:
        """Leaves little more behind than the limit, and one peer's credit."""
        for _ in range(20):
            try:
                self.leave_behind(2)
            except RefusedError:
                continue
        self.assertEqual(len(self.held), 4)
        self.assert_refused()
