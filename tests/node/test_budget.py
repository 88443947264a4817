"""What links share: nobody has more than the limit, nobody modest waits, nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.node.budget import (
    RECEIVED_SHARE,
    ByteBudget,
    CpuShares,
    Hold,
    ReceiveBudget,
    Shares,
)

SHARE = RECEIVED_SHARE
MS = 0.001


class Link:
    """A link that notes what it is told, and may receive as soon as it is let go."""

    def __init__(self, log: list[str], name: str) -> None:
        self.holds: set[Hold] = set()
        self.on_release: Callable[[], object] = lambda: None
        self._log = log
        self._name = name

    def hold(self, reason: Hold) -> None:
        assert reason not in self.holds
        self.holds.add(reason)
        self._log.append(f"hold {self._name}")

    def release(self, reason: Hold) -> None:
        assert reason in self.holds
        self.holds.remove(reason)
        self._log.append(f"release {self._name}")
        self.on_release()


class Turns(Clock):
    """A clock that, as the reactor, puts off to the next turn what a turn puts off."""

    def turn(self, seconds: float = 0.0) -> None:
        """Let time pass, then do what is due, once."""
        due, self.calls = self.calls, []
        self.rightNow += seconds
        for call in due:
            if call.getTime() > self.seconds():
                self.calls.append(call)
            elif call.active():
                call.called = 1
                call.func(*call.args, **call.kw)


class ByteBudgetTests(SynchronousTestCase):
    def test_limit(self) -> None:
        """The limit itself may be used, and not a byte more; what is given back can be had."""
        budget = ByteBudget(127)
        taken = [budget.take(2**number) for number in range(6, -1, -1)]
        self.assertEqual((taken, budget.used, budget.refused), (7 * [True], 127, 0))
        self.assertFalse(budget.take(1))
        self.assertTrue(budget.take(0))
        self.assertEqual((budget.used, budget.peak, budget.refused), (127, 127, 1))
        budget.give(64)
        self.assertTrue(budget.take(1))
        self.assertEqual((budget.used, budget.peak, budget.refused), (64, 127, 1))

    def test_one_alone(self) -> None:
        """May have half, in one piece or in many, and leaves as much to all others."""
        for pieces in ([50], [49, 1], 50 * [1]):
            budget, own = ByteBudget(100), 0
            for piece in pieces:
                self.assertTrue(budget.take(piece, own))
                own += piece
            self.assertFalse(budget.take(1, own))
            self.assertEqual((budget.used, budget.refused), (50, 1))

    def test_a_few_that_take_all_they_can(self) -> None:
        """Leave as much as the last of them has: who comes then finds room."""
        budget, owns = ByteBudget(1024), [0, 0, 0]
        for number in range(len(owns)):
            while budget.take(1, owns[number]):
                owns[number] += 1
        self.assertEqual(owns, [512, 256, 128])
        self.assertTrue(budget.take(128))
        self.assertEqual(budget.used, 1024)

    def test_who_has_much_waits_for_others_to_give_back(self) -> None:
        """What it may have depends on what is left."""
        budget = ByteBudget(100)
        self.assertTrue(budget.take(40))
        self.assertTrue(budget.take(30))
        self.assertFalse(budget.take(1, 40))
        budget.give(30)
        self.assertTrue(budget.take(10, 40))

    def test_nothing(self) -> None:
        """No bytes always have room."""
        budget = ByteBudget(0)
        self.assertTrue(budget.take(0))
        self.assertFalse(budget.take(1))

    def test_more_than_was_taken(self) -> None:
        """To give back what was not taken is a fault of ours, and changes nothing."""
        budget = ByteBudget(100)
        budget.take(5)
        with self.assertRaises(AssertionError):
            budget.give(6)
        self.assertEqual(budget.used, 5)

    @settings(derandomize=True, max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.booleans())))
    def test_arithmetic(self, steps: list[tuple[int, int, bool]]) -> None:
        """Whatever is taken and given, what is used is what was taken, and never too much."""
        budget = ByteBudget(100)
        taken: list[list[int]] = [[], [], []]
        peak = refused = 0
        for who, size, is_giving in steps:
            own, used = sum(taken[who]), sum(map(sum, taken))
            if is_giving and taken[who]:
                budget.give(taken[who].pop())
            elif budget.take(size, own):
                taken[who].append(size)
                self.assertLessEqual(own + size, 100 - used)
                peak = max(peak, used + size)
            else:
                self.assertGreater(own + size, 100 - used)
                refused += 1
            used = sum(map(sum, taken))
            self.assertEqual((budget.used, budget.peak, budget.refused), (used, peak, refused))
            self.assertLessEqual(budget.used, 100)


class ReceiveBudgetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log: list[str] = []
        self.a, self.b, self.c, self.d = (Link(self.log, name) for name in "abcd")
        self.budget = ReceiveBudget(16 * SHARE)

    def said(self) -> list[str]:
        """Return what links were told since the last time."""
        said, self.log[:] = list(self.log), []
        return said

    def test_sum(self) -> None:
        """Each link counts with what it has now, and with nothing once it is gone."""
        self.budget.note(self.a, 100)
        self.budget.note(self.b, 50)
        self.budget.note(self.a, 20)
        self.assertEqual((self.budget.total, self.budget.peak), (70, 150))
        self.budget.forget(self.a)
        self.budget.forget(self.c)
        self.assertEqual((self.budget.total, self.log), (50, []))

    def test_up_to_the_limit(self) -> None:
        """One link alone may have all of it; it is held with the first byte beyond."""
        self.budget.note(self.a, 16 * SHARE)
        self.assertEqual(self.said(), [])
        self.budget.note(self.a, 16 * SHARE + 1)
        self.assertEqual(self.said(), ["hold a"])
        self.assertEqual((self.budget.held, self.budget.holds), (1, 1))

    def test_modest_links_go_on(self) -> None:
        """Whatever the others have, a link with no more than its fair share is never held."""
        for link in (self.a, self.b, self.c, self.d):
            self.budget.note(link, 0)
        self.assertEqual(self.budget.share, 4 * SHARE)
        self.budget.note(self.a, 14 * SHARE)
        self.budget.note(self.b, 3 * SHARE)
        self.assertEqual(self.said(), [])
        self.budget.note(self.b, 4 * SHARE)
        self.assertEqual(self.said(), [])
        self.budget.note(self.b, 4 * SHARE + 1)
        self.budget.note(self.a, 14 * SHARE)
        self.assertEqual(self.said(), ["hold b", "hold a"])

    def test_least_share(self) -> None:
        """However many links there are, each may have one read."""
        links = [Link(self.log, str(number)) for number in range(100)]
        for link in links:
            self.budget.note(link, SHARE)
        self.assertEqual((self.said(), self.budget.share), ([], SHARE))
        self.budget.note(links[50], SHARE + 1)
        self.assertEqual(self.said(), ["hold 50"])

    def test_let_go_in_order(self) -> None:
        """Those that are held go on in order, once well below the limit, and not before."""
        self.budget.note(self.a, 6 * SHARE)
        self.budget.note(self.b, 7 * SHARE)
        self.budget.note(self.c, 5 * SHARE)
        self.assertEqual(self.said(), [])  # c has less than a third
        self.budget.note(self.c, 6 * SHARE)
        self.budget.note(self.a, 6 * SHARE)
        self.assertEqual(self.said(), ["hold c", "hold a"])
        self.budget.note(self.b, 2 * SHARE + 1)
        self.assertEqual(self.said(), [])
        self.budget.note(self.b, 2 * SHARE)
        self.assertEqual(self.said(), ["release c", "release a"])
        self.assertEqual((self.budget.held, self.budget.holds), (0, 2))

    def test_let_go_for_its_own_sake(self) -> None:
        """A held link whose bytes were processed goes on as soon as it has no more than others."""
        for link in (self.a, self.b):
            self.budget.note(link, 9 * SHARE)
        self.assertEqual(self.said(), ["hold b"])
        self.budget.note(self.b, 8 * SHARE + 1)
        self.assertEqual(self.said(), [])
        self.budget.note(self.b, 8 * SHARE)
        self.assertEqual(self.said(), ["release b"])
        self.assertGreater(self.budget.total, 16 * SHARE)

    def test_gone(self) -> None:
        """A link that is gone gives everything back and is told nothing; the others go on."""
        self.budget.note(self.a, 9 * SHARE)
        self.budget.note(self.b, 9 * SHARE)
        self.budget.note(self.a, 9 * SHARE)
        self.assertEqual(self.said(), ["hold b", "hold a"])
        self.budget.forget(self.b)
        self.assertEqual(self.said(), ["release a"])
        self.budget.forget(self.a)
        self.assertEqual((self.budget.total, self.budget.held, self.said()), (0, 0, []))

    def test_larger_shares(self) -> None:
        """When links go, those that are left may have more, whatever the sum."""
        for link in (self.a, self.b, self.c, self.d):
            self.budget.note(link, 0)
        self.budget.note(self.a, 20 * SHARE)
        self.budget.note(self.b, 5 * SHARE)
        self.assertEqual(self.said(), ["hold a", "hold b"])
        self.budget.forget(self.c)
        self.assertEqual(self.said(), ["release b"])

    def test_receives_when_let_go(self) -> None:
        """A link that is let go and fills up at once is held again, and the others wait on."""
        self.budget.note(self.a, 6 * SHARE)
        self.budget.note(self.b, 6 * SHARE)
        self.budget.note(self.c, 5 * SHARE)
        self.budget.note(self.a, 6 * SHARE)
        self.budget.note(self.b, 6 * SHARE)
        self.a.on_release = partial(self.budget.note, self.a, 17 * SHARE)
        self.assertEqual(self.said(), ["hold a", "hold b"])
        self.budget.note(self.c, 2 * SHARE)
        self.assertEqual(self.said(), ["release a", "hold a"])
        self.a.on_release = lambda: None
        self.budget.note(self.a, 6 * SHARE)
        self.assertEqual(self.said(), ["release b", "release a"])  # a is behind b now

    @settings(derandomize=True, max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 20)), max_size=60))
    def test_any_order(self, steps: list[tuple[int, int]]) -> None:
        """Whoever has, loses and leaves what: sums agree, the modest read, the empty free all.

        A link that is held receives nothing: its amount does not grow.
        """
        log: list[str] = []
        links = [Link(log, str(number)) for number in range(6)]
        budget = ReceiveBudget(16 * SHARE)
        amounts: dict[int, int] = {}
        for number, reads in steps:
            link = links[number]
            if reads < 0:
                budget.forget(link)
                links[number] = Link(log, str(number))
                amounts.pop(number, None)
            elif not link.holds or reads * SHARE <= amounts[number]:
                budget.note(link, reads * SHARE)
                amounts[number] = reads * SHARE
            self.assertEqual(budget.total, sum(amounts.values()))
            self.assertEqual(budget.held, sum(bool(other.holds) for other in links))
            for other, amount in amounts.items():
                if links[other].holds:
                    self.assertGreater(amount, budget.share)
            if budget.total <= 14 * SHARE:
                self.assertEqual(budget.held, 0)
            if number in amounts and budget.total > 16 * SHARE and amounts[number] > budget.share:
                self.assertTrue(links[number].holds)


class CpuSharesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log: list[str] = []
        self.a, self.b, self.c, self.d = (Link(self.log, name) for name in "abcd")
        self.clock = Turns()
        self.shares = CpuShares(self.clock, allowance=20 * MS, window=100 * MS)

    def said(self) -> list[str]:
        """Return what links were told since the last time."""
        said, self.log[:] = list(self.log), []
        return said

    def test_within_the_allowance(self) -> None:
        """Up to its allowance a link goes on, and nothing is timed."""
        for _ in range(20):
            self.shares.spent(self.a, 0.99 * MS, self.clock.seconds())
            self.clock.turn(1 * MS)
        self.assertEqual((self.said(), self.clock.getDelayedCalls()), ([], []))

    def test_new_window(self) -> None:
        """What was spent in one window does not count in the next."""
        self.shares.spent(self.a, 20 * MS, self.clock.seconds())
        self.clock.turn(100 * MS)
        self.shares.spent(self.a, 20 * MS, self.clock.seconds())
        self.assertEqual(self.said(), [])
        self.shares.spent(self.a, 0.1 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a"])

    def test_alone(self) -> None:
        """A single busy link loses one empty turn for each allowance, and is timed no longer."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a"])
        self.clock.turn()
        self.assertEqual(self.said(), [])
        self.clock.turn()
        self.assertEqual(self.said(), ["release a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.shares.spent(self.a, 19 * MS, self.clock.seconds())
        self.assertEqual(self.said(), [])
        self.shares.spent(self.a, 2 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a"])
        self.assertEqual(self.shares.holds, 2)

    def test_others_go_first(self) -> None:
        """While others have something to do it waits, up to the end of the window."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        for _ in range(98):
            self.shares.spent(self.b, 0.1 * MS, self.clock.seconds())
            self.clock.turn(1 * MS)
        self.assertEqual((self.said(), self.shares.held), (["hold a"], 1))
        self.shares.spent(self.b, 0.1 * MS, self.clock.seconds())
        self.clock.turn(2 * MS)
        self.assertEqual((self.said(), self.shares.held), (["release a"], 0))
        self.assertAlmostEqual(self.shares.held_seconds, 100 * MS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_have_done(self) -> None:
        """As soon as the others have nothing to do it goes on."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        for _ in range(10):
            self.shares.spent(self.b, 1 * MS, self.clock.seconds())
            self.clock.turn(1 * MS)
        self.assertEqual(self.said(), ["hold a"])
        for _ in range(2):
            self.clock.turn(4 * MS)
        self.assertEqual(self.said(), ["release a"])

    def test_earlier_in_the_turn(self) -> None:
        """Who was read before it in the same turn counts: a whole turn decides, not its rest."""
        self.shares.spent(self.b, 1 * MS, self.clock.seconds())
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.clock.turn()
        self.shares.spent(self.b, 1 * MS, self.clock.seconds())
        self.clock.turn()
        self.assertEqual(self.said(), ["hold a"])

    def test_alternation(self) -> None:
        """Links that are all busy have an allowance each in turn, the oldest first."""
        for link in (self.a, self.b, self.c):
            self.shares.spent(link, 21 * MS, self.clock.seconds())
            link.on_release = partial(self.shares.spent, link, 21 * MS, 0.0)
        self.assertEqual(self.said(), ["hold a", "hold b", "hold c"])
        turns = []
        for _ in range(8):
            self.clock.turn()
            turns.append(" ".join(self.said()))
        # Each is held again behind the others; the turn after that is the next one's to wait.
        expected = [f"release {name} hold {name}" for name in "abca"]
        self.assertEqual([said for said in turns if said], expected)

    def test_end_of_window(self) -> None:
        """It pays off an allowance: who owes no more than another goes on, in order."""
        for link in (self.b, self.a, self.c):
            self.shares.spent(link, 21 * MS, self.clock.seconds())
        self.said()
        self.clock.turn(100 * MS)
        self.assertEqual(self.said(), ["release b", "release a", "release c"])
        self.shares.spent(self.a, 19 * MS, self.clock.seconds())
        self.assertEqual(self.said(), [])
        self.shares.spent(self.a, 1 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a"])

    def test_what_takes_long(self) -> None:
        """A debt is paid off window by window, whoever is idle: a fifth of the time in the end."""
        self.shares.spent(self.a, 150 * MS, self.clock.seconds())
        for _ in range(6):
            self.clock.turn(101 * MS)
        self.assertEqual(self.said(), ["hold a"])
        self.clock.turn(101 * MS)
        self.assertEqual(self.said(), ["release a"])

    def test_a_short_pause(self) -> None:
        """Of others who had something to do just before: it may be us that they wait for."""
        self.shares.spent(self.b, 1 * MS, self.clock.seconds())
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.clock.turn()
        self.clock.turn(2 * MS)
        self.assertEqual(self.said(), ["hold a"])
        self.clock.turn(2 * MS)
        self.assertEqual(self.said(), ["release a"])

    def test_window_ends_in_a_read(self) -> None:
        """It makes no difference who notices that the window is over."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.clock.rightNow += 100 * MS
        self.shares.spent(self.b, 21 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a", "release a", "hold b"])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_clock_set_back(self) -> None:
        """A clock that is set back, as a reactor's may be, holds nobody until it has caught up."""
        self.clock.rightNow = 5000.0
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.clock.rightNow = 100.0
        self.shares.spent(self.b, 1 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a", "release a"])
        self.assertEqual(self.shares.held_seconds, 0.0)
        self.shares.spent(self.b, 20 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold b"])

    def test_long_read(self) -> None:
        """A single read that takes longer than a window is followed by a chance for others."""
        self.clock.turn(300 * MS)
        self.shares.spent(self.a, 300 * MS, self.clock.seconds())
        self.shares.spent(self.b, 1 * MS, self.clock.seconds())
        self.assertEqual(self.said(), ["hold a"])
        self.clock.turn(1 * MS)
        self.shares.spent(self.b, 1 * MS, self.clock.seconds())
        self.clock.turn(1 * MS)
        self.assertEqual((self.said(), self.shares.held), ([], 1))

    def test_leftovers(self) -> None:
        """What a held link still had in hand is no work of others, and holds it no second time."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.clock.turn()
        self.shares.spent(self.a, 5 * MS, self.clock.seconds())
        self.clock.turn()
        self.assertEqual(self.said(), ["hold a", "release a"])

    def test_gone(self) -> None:
        """A link that is gone is told nothing, and leaves no timer."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.clock.turn(3 * MS)
        self.shares.forget(self.a)
        self.shares.forget(self.b)
        self.assertEqual((self.said(), self.clock.getDelayedCalls()), (["hold a"], []))
        self.assertAlmostEqual(self.shares.held_seconds, 3 * MS)

    def test_held_seconds(self) -> None:
        """The time that links were held counts for each, those that are held now included."""
        self.shares.spent(self.a, 21 * MS, self.clock.seconds())
        self.shares.spent(self.b, 21 * MS, self.clock.seconds())
        self.clock.rightNow += 10 * MS
        self.assertAlmostEqual(self.shares.held_seconds, 20 * MS)

    def test_on_a_plain_clock(self) -> None:
        """On a simulated clock no turn is without end: whoever is held goes on at once."""
        clock = Clock()
        shares = CpuShares(clock)
        for link in (self.a, self.b):
            shares.spent(link, 30 * MS, clock.seconds())
        clock.advance(0)
        self.assertEqual(self.said(), ["hold a", "hold b", "release a", "release b"])
        self.assertEqual(clock.getDelayedCalls(), [])

    @settings(derandomize=True, max_examples=200)
    @given(st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 25)), max_size=80))
    def test_any_load(self, steps: list[tuple[int, int]]) -> None:
        """Nobody is held beyond what it owes, nor with nothing to do; no timer while nobody is."""
        log: list[str] = []
        links = [Link(log, str(number)) for number in range(4)]
        clock = Turns()
        shares = CpuShares(clock, allowance=20 * MS, window=100 * MS)
        since: dict[Link, float] = {}
        for number, milliseconds in steps:
            if number < 0:
                clock.turn()
            elif not links[number].holds:
                clock.turn(milliseconds * MS)
                if not links[number].holds:
                    shares.spent(links[number], milliseconds * MS, self.clock.seconds())
            since = {link: since.get(link, clock.seconds()) for link in links if link.holds}
            self.assertEqual(shares.held, len(since))
            self.assertEqual(len(clock.getDelayedCalls()), bool(since))
            for held_at in since.values():
                self.assertLess(clock.seconds() - held_at, 300 * MS)
        for _ in range(40):
            clock.turn(10 * MS)
        self.assertEqual((shares.held, clock.getDelayedCalls()), (0, []))


class SharesTests(SynchronousTestCase):
    def test_gone(self) -> None:
        """A link that is gone gives back its bytes and its time, whatever it was held for."""
        log: list[str] = []
        link, clock = Link(log, "a"), Clock()
        shares = Shares(clock)
        shares.received.note(link, 300 * 2**20)
        shares.cpu.spent(link, 1.0, clock.seconds())
        self.assertEqual(link.holds, {Hold.RECEIVED, Hold.CPU})
        shares.forget(link)
        self.assertEqual((shares.received.total, shares.received.held, shares.cpu.held), (0, 0, 0))
        self.assertEqual((log, clock.getDelayedCalls()), (["hold a", "hold a"], []))

    def test_two_reasons(self) -> None:
        """Each budget lets go for itself alone."""
        link, clock = Link([], "a"), Clock()
        shares = Shares(clock)
        shares.received.note(link, 300 * 2**20)
        shares.cpu.spent(link, 30 * MS, clock.seconds())
        clock.advance(0)
        self.assertEqual(link.holds, {Hold.RECEIVED})
        shares.received.note(link, 0)
        self.assertEqual(link.holds, set())
