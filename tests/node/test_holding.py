"""Consumers that hold messages for long: who is warned of, when, and what it costs to know."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.node.holding import Claim, Holder, Holders
from stellar_overlay.node.subscriptions import OverlayMessage, Subscriptions
from tests.builders import WALL_NOW, advert
from tests.node.alone import ADVERT, PEER, QUERY, AloneTestCase, CountingClock

SIZE = len(advert().body)


def stuck(name: str, count: int, seconds: int) -> tuple[str, str]:
    """Return the warning of one that holds so many adverts."""
    return "warn", (
        f"{name} is stuck with {count} message(s), {count * SIZE} bytes,"
        f" the oldest for {seconds} s: the senders wait"
    )


def flows(name: str, seconds: int) -> tuple[str, str]:
    """Return the line that says that it is over."""
    return "info", f"{name} is no longer stuck, after {seconds} s"


class StuckTests(AloneTestCase):
    """Half a minute is too long: the senders leave after a whole one."""

    def hold_with(self, name: str | None = "slow") -> list[Deferred[None]]:
        """Observe adverts and hold them; return the list of what holds them."""
        waiting: list[Deferred[None]] = []

        def observer(message: OverlayMessage) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.subscriptions.observe(observer, ADVERT, name=name)
        return waiting

    def test_a_hold_of_45_seconds(self) -> None:
        """The warning comes at 30 s, says what is held, and a line says when it is over."""
        waiting = self.hold_with()
        pending = [self.held()]
        self.wait(10)
        pending.append(self.held())
        self.wait(19.9)
        self.assertEqual(self.lines(), [])
        self.wait(0.1)
        self.assertEqual(self.lines(), [stuck("slow", 2, 30)])
        self.wait(15)
        self.assertEqual(self.lines(), [])
        waiting[0].callback(None)
        self.successResultOf(pending[0])
        self.assertNoResult(pending[1])
        self.assertEqual(self.lines(), [])
        waiting[1].callback(None)
        self.successResultOf(pending[1])
        self.assertEqual(self.lines(), [flows("slow", 45)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_it_goes_on(self) -> None:
        """One warning a minute."""
        self.hold_with()
        self.held()
        said = []
        for second in range(200):
            said += [(second, line) for line in self.lines()]
            self.clock.advance(1)
        self.assertEqual(said, [(second, stuck("slow", 1, second)) for second in (30, 90, 150)])

    def test_whoever_gets_stuck_again_and_again(self) -> None:
        """No more than one warning a minute, and as many lines that it is over."""
        waiting = self.hold_with()
        said = []
        for _ in range(10):
            self.held()
            self.wait(31)
            waiting.pop().callback(None)
            said += self.lines()
        self.assertEqual(said, 5 * [stuck("slow", 1, 30), flows("slow", 31)])

    def test_slow_but_not_stuck(self) -> None:
        """One that holds something all the time, but nothing for long, is left in peace."""
        waiting = self.hold_with()
        self.held()
        for _ in range(30):
            self.wait(14)
            self.held()
            waiting.pop(0).callback(None)
        self.assertEqual(self.lines(), [])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_backlog(self) -> None:
        """Reading goes on, but what is next is always old: stuck until it has caught up."""
        subscription = self.subscriptions.subscribe(ADVERT, name="reader")
        for _ in range(5):
            self.held()
        said = []
        for _ in range(5):
            self.next_of(subscription)
            said += self.lines()
            self.wait(20)
        self.assertEqual(said, [stuck("reader", 4, 30)])
        self.assertEqual(self.lines(), [stuck("reader", 1, 90)])
        subscription.cancel()
        self.assertEqual(self.lines(), [flows("reader", 100)])

    def test_several_consumers(self) -> None:
        """One is stuck: it alone is named, and the others see everything meanwhile."""
        waiting = self.hold_with()
        other = self.subscriptions.subscribe(ADVERT, name="other")
        self.subscriptions.observe(self.note)
        read = 0
        for _ in range(45):
            self.held()
            read += self.next_of(other).is_first
            self.clock.advance(1)
        self.assertEqual((len(self.seen), read), (45, 45))
        self.assertEqual(self.lines(), [stuck("slow", 30, 30)])
        for deferred in waiting:
            deferred.callback(None)
        self.assertEqual(self.lines(), [flows("slow", 45)])

    def test_each_has_its_own_time(self) -> None:
        """The second is warned of when its own half minute is over, not with the first."""
        self.hold_with("first")
        self.held()
        self.wait(35)
        self.subscriptions.observe(lambda message: Deferred(), QUERY, name="second")
        self.held(QUERY)
        self.lines()
        self.wait(29.5)
        self.assertEqual(self.lines(), [])
        self.wait(0.5)
        ((_, text),) = self.lines()
        self.assertIn("second is stuck with 1 message(s), 36 bytes, the oldest for 30 s", text)

    def test_the_whole_time_at_once(self) -> None:
        """A clock that jumps warns once, with the true figure."""
        self.hold_with()
        self.held()
        self.clock.advance(1000)
        self.assertEqual(self.lines(), [stuck("slow", 1, 1000)])

    def test_without_a_clock(self) -> None:
        """Everything is held as ever, and nobody is warned of."""
        waiting: Deferred[None] = Deferred()
        subscriptions = Subscriptions(self.metrics)
        subscriptions.observe(lambda message: waiting)
        pending = subscriptions.deliver(PEER, int(ADVERT), advert().body, WALL_NOW)
        assert pending is not None
        self.assertNoResult(pending)
        waiting.callback(None)
        self.successResultOf(pending)


class LettingGoTests(AloneTestCase):
    """Whatever ends a hold returns the credit, and ends the warnings."""

    def test_cancelling_an_observer(self) -> None:
        """What it holds is let go of, once; a Deferred that fires later changes nothing."""
        waiting: Deferred[None] = Deferred()
        observer = self.subscriptions.observe(lambda message: waiting, ADVERT, name="slow")
        pending = [self.held(), self.held()]
        self.wait(40)
        observer.cancel()
        for deferred in pending:
            self.successResultOf(deferred)
        self.assertEqual(self.lines(), [stuck("slow", 2, 30), flows("slow", 40)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        waiting.callback(None)
        observer.cancel()

    def test_another_holds_it_still(self) -> None:
        """The message is free when the last lets go, and the timer stays until then."""
        last: Deferred[None] = Deferred()
        first = self.subscriptions.observe(lambda message: Deferred(), ADVERT)
        self.subscriptions.observe(lambda message: last, ADVERT)
        pending = self.held()
        first.cancel()
        self.assertNoResult(pending)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        last.callback(None)
        self.successResultOf(pending)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure(self) -> None:
        """A Deferred that fails after a while is a hold that ended, and an error."""
        waiting: Deferred[None] = Deferred()
        self.subscriptions.observe(lambda message: waiting, ADVERT, name="slow")
        pending = self.held()
        self.wait(33)
        waiting.errback(ZeroDivisionError())
        self.successResultOf(pending)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.metrics.observer_errors.get(), 1)
        self.assertEqual(self.lines()[-1], flows("slow", 33))

    def test_a_failure_of_who_was_cancelled(self) -> None:
        """It is logged like any other, and nobody's credit is returned twice."""
        waiting: Deferred[None] = Deferred()
        observer = self.subscriptions.observe(lambda message: waiting, ADVERT)
        pending = self.held()
        observer.cancel()
        self.successResultOf(pending)
        waiting.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_who_cancels_itself(self) -> None:
        """While it sees a message, and returns a Deferred for it: nothing is held."""

        def observer(message: OverlayMessage) -> Deferred[None]:
            once.cancel()
            return Deferred()

        once = self.subscriptions.observe(observer, ADVERT)
        self.assertIsNone(self.say())

    def test_who_is_cancelled_by_the_next(self) -> None:
        """Before the message was shown to all: the hold is over before it has begun."""
        first = self.subscriptions.observe(lambda message: Deferred(), ADVERT)
        self.subscriptions.observe(lambda message: first.cancel(), ADVERT)
        self.subscriptions.observe(self.note, ADVERT)
        self.assertIsNone(self.say())
        self.assertEqual(self.seen, [ADVERT])

    def test_the_end_of_the_overlay(self) -> None:
        """All is let go of."""
        self.subscriptions.observe(lambda message: Deferred(), ADVERT)
        subscription = self.subscriptions.subscribe(ADVERT)
        pending = [self.held(), self.held()]
        self.next_of(subscription)
        self.subscriptions.end_all()
        for deferred in pending:
            self.successResultOf(deferred)
        self.assertIsNone(self.say())


class CostTests(AloneTestCase):
    """Who is done at once costs no timer; all others together have one."""

    def test_done_at_once(self) -> None:
        """A callback that returns nothing, what has fired already, a reader that keeps up."""

        async def coroutine(message: OverlayMessage) -> None:
            self.note(message)

        async def read() -> None:
            async for message in self.subscriptions.subscribe(ADVERT):
                self.note(message)

        self.subscriptions.observe(self.note, ADVERT)
        self.subscriptions.observe(lambda message: succeed(None), ADVERT)
        self.subscriptions.observe(coroutine, ADVERT)
        reading = Deferred.fromCoroutine(read())
        for _ in range(100):
            self.assertIsNone(self.say())
        self.assertEqual((len(self.seen), self.clock.timers), (300, 0))
        self.subscriptions.end_all()
        self.successResultOf(reading)

    def test_fired_but_not_done(self) -> None:
        """A Deferred whose callbacks wait for another, or that was paused, holds still."""
        gate: Deferred[None] = Deferred()
        paused = succeed(None)
        paused.pause()
        returned = [succeed(None).addCallback(lambda _: gate), paused]
        self.subscriptions.observe(lambda message: returned.pop(0), ADVERT)
        pending = self.held(), self.held()
        gate.callback(None)
        self.successResultOf(pending[0])
        self.assertNoResult(pending[1])
        paused.unpause()
        self.successResultOf(pending[1])

    def test_one_timer_for_all(self) -> None:
        """However many hold however much."""
        for _ in range(5):
            self.subscriptions.observe(lambda message: Deferred(), ADVERT)
            for _ in range(20):
                self.held()
        self.assertEqual((self.clock.timers, len(self.clock.getDelayedCalls())), (1, 1))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("hold"), st.integers(1, 7)),
        st.tuples(st.just("let go"), st.integers(0, 20)),
        st.tuples(st.just("let go of all"), st.integers(0, 2)),
        st.tuples(st.just("wait"), st.sampled_from((0.1, 3, 10, 29.7, 30, 61, 200))),
    ),
    max_size=40,
)


class HoldersTests(SynchronousTestCase):
    """Whatever is held and let go of, in whatever order."""

    @settings(derandomize=True, max_examples=200, deadline=None)
    @given(OPERATIONS)
    def test_any_order(self, operations: list[tuple[str, float]]) -> None:
        """A claim is free when nobody holds it; whoever is stuck was warned of a minute ago."""
        clock = CountingClock()
        holders = Holders(clock)
        people = [_Person(f"holder {number}") for number in range(3)]
        claims: list[Claim] = []
        for operation, number in operations:
            if operation == "hold":
                claims.append(Claim(4))
                for person in _chosen(people, int(number)):
                    holders.hold(person, claims[-1])
                holders.watch()
            elif operation == "let go" and claims:
                chosen = int(number)
                holders.let_go(people[chosen % 3], claims[chosen % len(claims)])
            elif operation == "let go of all":
                holders.let_go_of_all(people[int(number)])
            elif operation == "wait":
                clock.advance(number)
            self.check(clock, people, claims)
        for person in people:
            holders.let_go_of_all(person)
        self.check(clock, people, claims)
        self.assertEqual(clock.getDelayedCalls(), [])

    def check(self, clock: CountingClock, people: list[_Person], claims: list[Claim]) -> None:
        """Check what holds at any time."""
        for claim in claims:
            is_held = any(claim in person.held for person in people)
            self.assertEqual(claim.freed.called, not is_held)
        holds_anything = any(person.held for person in people)
        self.assertEqual(len(clock.getDelayedCalls()), int(holds_anything))
        for person in people:
            is_late = clock.seconds() - person.oldest >= 30
            self.assertTrue(not is_late or clock.seconds() < person.may_warn_at)
            self.assertTrue(person.stuck_since is None or is_late)
            self.assertTrue(all(gap >= 60 for gap in person.gaps()))


class _Person(Holder):
    """Remembers when it was warned of."""

    def __init__(self, name: str) -> None:
        self.warned_at: list[float] = []
        super().__init__(name)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "may_warn_at" and isinstance(value, float) and value > 0:
            self.warned_at.append(value)

    def gaps(self) -> Iterator[float]:
        """Yield the seconds between two warnings."""
        for before, after in zip(self.warned_at, self.warned_at[1:], strict=False):
            yield after - before


def _chosen(people: list[_Person], bits: int) -> list[_Person]:
    return [person for number, person in enumerate(people) if bits >> number & 1]
