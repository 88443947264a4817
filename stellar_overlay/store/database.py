"""Where the work on a database runs: in adbapi's thread, or, on a simulated clock, at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorThreads

T = TypeVar("T")

apilevel = "2.0"
threadsafety = 1


class Session(Protocol):
    """What is worked on: to adbapi, a connection."""

    def commit(self) -> None:
        """Make the work last."""
        ...

    def rollback(self) -> None:
        """Undo the work."""
        ...

    def close(self) -> None:
        """End the session."""
        ...


def connect(session: Session) -> Session:
    """Return ``session``; adbapi knows this module as a DB-API driver."""
    return session


class Runner(Protocol):
    """Runs one work after the other, in the order in which they were given."""

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Return what ``work`` returns, or its failure."""
        ...

    def close(self) -> None:
        """Let go of the thread; no work is under way, and none will come."""
        ...

    def abandon(self) -> None:
        """Let go of the thread, which may never come back from its work."""
        ...


class InlineRunner:
    """Works at once, in the thread that asks: a whole network on one simulated clock."""

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Return what ``work`` returns, or its failure."""
        return execute(work)

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


class PooledRunner:
    """Works in the one thread of an adbapi pool, whose one connection is ``session``.

    :param reactor: that the results are returned to.
    """

    def __init__(self, reactor: IReactorThreads, session: Session) -> None:
        self._session = session
        self._pool: Any = _Pool(
            __name__, session, cp_min=1, cp_max=1, cp_noisy=False, cp_reactor=reactor
        )

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Return what ``work`` returns, or its failure."""
        result: Deferred[T] = self._pool.runWithConnection(lambda _: work())
        return result

    def close(self) -> None:
        """Let go of the thread; no work is under way, and none will come."""
        self._pool.close()

    def abandon(self) -> None:
        """Let go of the thread, which may never come back from its work."""
        self._pool.forget_shutdown()
        self._pool.threadpool.callInThread(self._session.close)  # should it come back after all


class _Pool(ConnectionPool):
    """One thread, which may hang in a dead disk: that must not keep the process from ending."""

    def start(self) -> None:
        self.threadpool.threadFactory = _DaemonThread
        super().start()

    def forget_shutdown(self) -> None:
        """Do not make the reactor wait for the thread when it stops."""
        for event in filter(None, (self.startID, self.shutdownID)):
            self._reactor.removeSystemEventTrigger(event)
        self.startID = self.shutdownID = None


class _DaemonThread(threading.Thread):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.daemon = True
