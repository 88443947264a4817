"""When links are written to: once in a turn of the reactor, and each whatever another one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.node.connection import Connection
from stellar_overlay.node.flush_queue import FEW, FlushQueue
from stellar_overlay.session.flow_control import Item
from stellar_overlay.session.session import Session
from stellar_overlay.wire.channel import SealingKey
from stellar_overlay.wire.message import MessageType
from tests.builders import get_tx_set
from tests.node.listening import granted
from tests.node.world import SMALL, LinkTestCase, Owner, World


class FakeLink:
    """Notes its name when it is flushed.

    :ivar then: called when it is flushed.
    """

    def __init__(self, name: int, log: list[int]) -> None:
        self.then: Callable[[], object] = lambda: None
        self._name = name
        self._log = log

    def flush(self) -> None:
        self._log.append(self._name)
        self.then()


class QueueTestCase(SynchronousTestCase):
    """A queue, ten links, and in which order they are flushed."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = FlushQueue(self.clock)
        self.log: list[int] = []
        self.links = [FakeLink(number, self.log) for number in range(10)]

    def turn(self, *numbers: int) -> None:
        """Let some links have something to send in one turn."""
        self.queue.begin_turn()
        for number in numbers:
            self.queue.add(self.links[number])
        self.queue.end_turn()

    def assert_flushed(self, *numbers: int) -> None:
        """Check which links were flushed since this was asked last, in that order."""
        flushed = self.log[:]
        self.log.clear()
        self.assertEqual(flushed, list(numbers))

    def assert_later(self, *numbers: int) -> None:
        """Check that these are flushed when the reactor's next turn comes, by one timer."""
        self.assert_flushed()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0)
        self.assert_flushed(*numbers)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TurnTests(QueueTestCase):
    """What is made dirty within a turn, and between turns."""

    def test_few(self) -> None:
        """Up to four are flushed when the turn ends, and not before; without any timer."""
        self.assertEqual(FEW, 4)
        for count in range(5):
            self.queue.begin_turn()
            for link in self.links[:count]:
                self.queue.add(link)
            self.assert_flushed()
            self.queue.end_turn()
            self.assert_flushed(*range(count))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """Five and more wait for the next turn of the reactor."""
        for count in (5, 10):
            self.turn(*range(count))
            self.assert_later(*range(count))

    def test_turns_that_wait(self) -> None:
        """What others bring meanwhile goes along, however few: each is flushed once."""
        self.turn(0, 1, 2, 3, 4)
        self.turn(1, 2)
        self.turn(7)
        self.queue.add(self.links[0])
        self.assert_later(0, 1, 2, 3, 4, 7)
        self.turn(1, 2)
        self.assert_flushed(1, 2)

    def test_a_link_counts_once(self) -> None:
        """However often it has something to send."""
        self.turn(*20 * [1, 2, 3])
        self.assert_flushed(1, 2, 3)

    def test_between_turns(self) -> None:
        """Soon, by one timer, whatever else is sent until then; few are many here."""
        self.queue.add(self.links[3])
        self.queue.add(self.links[1])
        self.queue.add_all([self.links[3], self.links[2]])
        self.turn(5)
        self.assert_later(3, 1, 2, 5)

    def test_many_at_once(self) -> None:
        """``add_all`` is as many ``add``."""
        self.queue.add_all(self.links[:3])
        self.assert_later(0, 1, 2)
        for count, is_later in ((4, False), (5, True)):
            self.queue.begin_turn()
            self.queue.add_all(self.links[:count])
            self.assert_flushed()
            self.queue.end_turn()
            if is_later:
                self.assert_later(*range(count))
            else:
                self.assert_flushed(*range(count))

    def test_turns_within_turns(self) -> None:
        """Are part of the outermost one."""
        self.queue.begin_turn()
        self.turn(0)
        self.queue.begin_turn()
        self.turn(1, 2)
        self.queue.end_turn()
        self.assert_flushed()
        self.queue.end_turn()
        self.assert_flushed(0, 1, 2)

    def test_what_a_flush_makes_dirty(self) -> None:
        """Is flushed before the reactor goes on: another link, or the same one once more."""
        self.links[0].then = lambda: self.turn(8)
        self.links[1].then = lambda: self.queue.add(self.links[9])
        self.turn(0, 1, 2)
        self.assertEqual(sorted(self.log), [0, 1, 2, 8, 9])
        self.log.clear()
        self.clock.advance(0)
        self.assert_flushed()
        again = [self.links[3]]
        self.links[3].then = lambda: self.queue.add(again.pop()) if again else None
        self.turn(3, 4)
        self.assert_flushed(3, 4, 3)

    def test_nothing_to_send(self) -> None:
        """Costs neither a flush nor a timer."""
        self.turn()
        self.queue.add_all([])
        self.clock.advance(0)
        self.assert_flushed()
        self.assertEqual(self.clock.getDelayedCalls(), [])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "turn"]), st.lists(st.integers(0, 9), max_size=7)),
        st.tuples(st.sampled_from(["begin", "end", "wait"]), st.just([])),
    ),
    max_size=40,
)


class AnyOrderTests(SynchronousTestCase):
    """Turns of any shape."""

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(STEPS)
    def test_nobody_is_forgotten(self, steps: Sequence[tuple[str, list[int]]]) -> None:
        """Who has something to send is flushed once, when no turn goes on, and soon."""
        clock, log = Clock(), list[int]()
        queue = FlushQueue(clock)
        links = [FakeLink(number, log) for number in range(10)]
        dirty: set[int] = set()
        depth = 0
        for step, numbers in steps:
            if step == "begin" or step == "turn":
                queue.begin_turn()
                depth += 1
            for number in numbers:
                queue.add(links[number])
                dirty.add(number)
            if depth and step in ("end", "turn"):
                depth -= 1
                queue.end_turn()
            elif step == "wait":
                clock.advance(0)
            self.assertEqual(len(set(log)), len(log))
            self.assertLessEqual(set(log), dirty)
            dirty -= set(log)
            log.clear()
            self.assertTrue(not dirty or depth or clock.getDelayedCalls())
            if step == "wait" and not depth:
                self.assertEqual(dirty, set())
        for _ in range(depth):
            queue.end_turn()
        clock.advance(0)
        self.assertEqual(set(log), dirty)
        self.assertEqual(clock.getDelayedCalls(), [])


class BrokenKey(SealingKey):
    """Fails to seal."""

    def seal_into(self, *_: object) -> None:
        raise ZeroDivisionError


class OurFaultTests(LinkTestCase):
    """An error of ours while a link is flushed ends that link, and none that is flushed with it."""

    def begin(self, count: int) -> None:
        """Start in a new world, with so many peers."""
        self.world = World()
        self.owner = Owner(self.world, SMALL)
        self.peers = [self.world.call(number=number) for number in range(10, 10 + count)]

    def break_link(self, number: int) -> None:
        """Let it fail to seal from now on."""
        self.owner.links[number].session.auth.sealing = BrokenKey(bytes(32))

    def answer_all(self, link: Connection, items: Sequence[Item]) -> None:
        """Send something to every peer."""
        for each in self.owner.links:
            each.send(get_tx_set())

    def assert_alone(self, *numbers: int, asked: int = 1) -> None:
        """Check that these links ended with "internal error", and all others sent their message.

        Their peers are told nothing, and the log tells each failure.
        """
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), len(numbers))
        reasons = [violation.reason for violation in self.owner.violations]
        self.assertEqual(reasons, len(numbers) * ["internal error"])
        for number, (link, peer) in enumerate(zip(self.owner.links, self.peers, strict=True)):
            is_broken = number in numbers
            self.assertEqual(link.violation is not None, is_broken, number)
            self.assertEqual((peer.is_closed, peer.error), (is_broken, None), number)
            sent = peer.of_type(MessageType.GET_TX_SET)
            self.assertEqual(len(sent), 0 if is_broken else asked, number)

    def test_in_whatever_place(self) -> None:
        """The first, one between them, the last, or several; whether few are flushed or many."""
        for count in (3, FEW + 3):
            for broken in ((0,), (count // 2,), (count - 1,), (0, 1, count - 1)):
                self.begin(count)
                for number in broken:
                    self.break_link(number)
                self.answer_all(self.owner.link, [])
                self.world.settle()
                self.assert_alone(*broken)

    def test_at_the_end_of_a_turn(self) -> None:
        """What another peer has said makes all of them speak: its link is none the worse for it."""
        for count in (FEW, FEW + 1):
            self.begin(count)
            self.break_link(1)
            self.owner.on_dispatch = self.answer_all
            self.peers[0].send(get_tx_set())
            self.world.settle()
            self.assert_alone(1)

    def test_in_credit_that_is_returned_late(self) -> None:
        """It is returned when the link is flushed; that of the others is returned all the same."""
        self.begin(3)
        self.owner.holds_credit = True
        for peer in self.peers:
            peer.send(get_tx_set())
        self.world.settle()

        broken, real = self.owner.links[1].session, Session.processed

        def processed(session: Session, items: Sequence[Item], now: float) -> None:
            if session is broken:
                raise ZeroDivisionError
            real(session, items, now)

        self.patch(Session, "processed", processed)
        for link, item in zip(self.owner.links, self.owner.held, strict=True):
            link.finished(item)
        self.world.settle()
        self.assert_alone(1, asked=0)
        self.assertEqual([link.session.unprocessed_bytes for link in self.owner.links], [0, 36, 0])

    def test_the_queue_goes_on(self) -> None:
        """After that, the others are written to as before."""
        self.begin(3)
        self.break_link(0)
        self.answer_all(self.owner.link, [])
        self.world.settle()
        self.answer_all(self.owner.link, [])
        self.world.settle()
        self.assert_alone(0, asked=2)


class CoalescingTests(LinkTestCase):
    """What many links have to say because of several peers leaves in one write each."""

    def writes(self, count: int, speakers: int) -> int:
        """Let some of so many peers speak in one turn of the reactor, and tell all of it.

        :returns: how often was written.
        """
        owner = Owner(self.world)
        peers = [self.world.call(number=number) for number in range(10, 10 + count)]
        owner.on_dispatch = lambda link, items: [each.send(get_tx_set()) for each in owner.links]
        before = owner.metrics.async_write.get()
        for peer in peers[:speakers]:
            peer.send(get_tx_set())
        self.world.settle()
        for peer in peers:
            self.assertEqual(len(peer.of_type(MessageType.GET_TX_SET)), speakers)
            self.assertEqual(granted(peer), 0)
        return owner.metrics.async_write.get() - before

    def test_many_links(self) -> None:
        """Each is written to once, however many have spoken."""
        for speakers in (1, 2, 5):
            self.assertEqual(self.writes(FEW + 1, speakers), FEW + 1)

    def test_few_links(self) -> None:
        """Are not kept waiting: a write each for every one who has spoken."""
        for speakers in (1, 2, 4):
            self.assertEqual(self.writes(FEW, speakers), FEW * speakers)
