"""Where the work runs: at once on a clock, in one thread of adbapi on a reactor."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.store.database import InlineRunner, PooledRunner
from stellar_overlay.store.stores import Stores
from tests.store.world import WALL, StoreTestCase, at, node

LONG_SECONDS = 10.0
"""For what takes a moment."""


@implementer(IReactorThreads)
class ThreadedClock(Clock):
    """As much of a reactor as adbapi needs; what threads hand over runs in :meth:`turn`."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[Callable[[], object]] = []
        self._has_calls = threading.Condition()
        self.triggers: dict[object, Callable[[], object]] = {}

    def callFromThread(  # noqa: N802
        self,
        callable: Callable[..., Any],  # noqa: A002
        *args: object,
        **kwargs: object,
    ) -> None:
        with self._has_calls:
            self._calls.append(lambda: callable(*args, **kwargs))
            self._has_calls.notify()

    def callWhenRunning(self, work: Callable[[], object]) -> None:  # noqa: N802
        work()

    def addSystemEventTrigger(self, _: str, __: str, work: Callable[[], object]) -> object:  # noqa: N802
        key = object()
        self.triggers[key] = work
        return key

    def removeSystemEventTrigger(self, key: object) -> None:  # noqa: N802
        del self.triggers[key]

    def callInThread(self, callable: Callable[..., Any], *args: object, **kw: object) -> None:  # noqa: N802, A002
        raise NotImplementedError

    def getThreadPool(self) -> NoReturn:  # noqa: N802
        raise NotImplementedError

    def suggestThreadPoolSize(self, size: int) -> None:  # noqa: N802
        raise NotImplementedError

    def turn(self) -> None:
        """Wait for a thread, and run what it hands over."""
        with self._has_calls:
            assert self._has_calls.wait_for(lambda: self._calls, LONG_SECONDS)
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def wait(self, result: Deferred[Any]) -> Any:
        """Return what a Deferred gives, in time."""
        results: list[Any] = []
        result.addBoth(results.append)
        while not results:
            self.turn()
        return results[0]


class FakeSession:
    """What adbapi takes for a connection."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def commit(self) -> None:
        self.said.append("commit")

    def rollback(self) -> None:
        self.said.append("rollback")

    def close(self) -> None:
        self.said.append("close")


class RunnerTests(SynchronousTestCase):
    """Both runners give what a work returns, or its failure."""

    def test_inline(self) -> None:
        """At once."""
        runner = InlineRunner()
        self.assertEqual(
            self.successResultOf(runner.run(threading.get_ident)), threading.get_ident()
        )
        self.failureResultOf(runner.run(lambda: 1 // 0), ZeroDivisionError)
        runner.close()
        runner.abandon()

    def test_pooled(self) -> None:
        """In one thread, in order, as adbapi does it; closing leaves no thread."""
        reactor, session = ThreadedClock(), FakeSession()
        before = threading.active_count()
        runner = PooledRunner(reactor, session)
        order: list[int] = []
        works = [runner.run(lambda number=number: order.append(number)) for number in range(20)]  # type: ignore[misc]
        for work in works:
            reactor.wait(work)
        self.assertEqual(order, list(range(20)))
        thread = reactor.wait(runner.run(threading.current_thread))
        self.assertIsNot(thread, threading.current_thread())
        self.assertTrue(thread.daemon)
        failure = reactor.wait(runner.run(lambda: 1 // 0))
        self.assertIsNotNone(failure.check(ZeroDivisionError))
        self.assertEqual(session.said, ["commit"] * 21 + ["rollback"])
        runner.close()
        self.assertEqual((threading.active_count(), reactor.triggers), (before, {}))
        self.assertEqual(session.said[-1], "close")

    def test_abandoned(self) -> None:
        """A reactor that stops does not wait for a thread that hangs."""
        reactor = ThreadedClock()
        runner = PooledRunner(reactor, FakeSession())
        hanging = threading.Event()
        self.addCleanup(hanging.set)
        self.assertNoResult(runner.run(hanging.wait))
        runner.abandon()
        runner.abandon()
        self.assertEqual(reactor.triggers, {})


class PooledStoresTests(StoreTestCase):
    """Stores on what has threads."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = ThreadedClock()
        self.clock = self.reactor

    def test_keeping(self) -> None:
        """All is written in the thread, and read by the next start."""
        threads = threading.active_count()
        for round_number in range(2):
            stores = Stores(
                str(self.path), self.reactor, wall_clock=lambda: WALL, random=random.Random(1)
            )
            self.assertIsNone(self.reactor.wait(Deferred.fromCoroutine(stores.open())))
            self.assertEqual(stores.bans.ban_count, 5 * round_number)
            self.assertEqual(stores.peers.peer_count, round_number)
            stores.startService()
            bans = [stores.bans.ban_node(node(number)) for number in range(5 + round_number)]
            for ban in bans:
                self.assertIsNone(self.reactor.wait(ban) if not ban.called else None)
            stores.peers.ensure_exists(at(1))
            self.assertIsNone(self.reactor.wait(stores.stopService()))
            self.assertEqual(threading.active_count(), threads)
            self.assertEqual((self.reactor.triggers, self.reactor.getDelayedCalls()), ({}, []))
        self.assertEqual(len(self.query("SELECT nodeid FROM ban")), 6)
        self.assertEqual(self.said(), [])
