"""A service that is started once, takes its time, and can say how that went."""

from __future__ import annotations

from enum import Enum
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.error import AlreadyStarted, NotStarted, ShuttingDown


class _State(Enum):
    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"


class Lifecycle(MultiService):
    """A MultiService whose children start once what they need is there.

    Subclasses say what that is: :meth:`open` and :meth:`close` are theirs.
    """

    _log = Logger()

    def __init__(self) -> None:
        super().__init__()
        self._state = _State.NEW
        self._start_result: Failure | None = None
        self._waiters: list[Deferred[Any]] = []
        self._undoing: list[Deferred[None]] | None = None  # who waits for that, while it lasts
        self._stopped: Deferred[tuple[Failure | None]] | None = None

    async def open(self) -> None:
        """Get ready what the children need; what is raised here ends the start."""

    async def close(self, *, was_running: bool) -> None:
        """Undo :meth:`open`, however far it got."""

    async def start(self) -> None:
        """Get ready, then start the children.

        :raises AlreadyStarted: when it was started before.
        :raises ShuttingDown: when it is stopped meanwhile.
        :raises Exception: whatever went wrong while getting ready.
        """
        if self._state is not _State.NEW:
            raise AlreadyStarted(f"an {type(self).__name__} is started once; make a new one")
        self._state = _State.STARTING
        try:
            await self.open()
            if self._state is _State.STARTING:
                self._state = _State.RUNNING
                super().startService()
                self._wake_waiters()
                return
        except Exception:
            self._start_result = Failure()
            await self._undo()
            raise
        await self.close(was_running=False)
        raise ShuttingDown("stopped before it had started")

    async def _undo(self) -> None:
        """Close whatever was opened; what fails then is logged, as why is told already."""
        was_running, self._state = self._state is _State.RUNNING, _State.STOPPED
        self._undoing = []
        try:
            if was_running:
                await super().stopService()
            await self.close(was_running=was_running)
        except Exception:
            self._log.failure("cannot close what was opened")
        undoing, self._undoing = self._undoing, None
        self._wake_waiters()
        for undone in undoing:
            undone.callback(None)

    def startService(self) -> None:
        """Start; :meth:`when_started` tells how it went, and the log if nobody asked."""
        is_asked = bool(self._waiters)
        starting = Deferred.fromCoroutine(self.start())
        starting.addErrback(self._note_failed_start, is_asked)

    def when_started(self) -> Deferred[None]:
        """Return a Deferred that fires once it runs, or fails with why it cannot."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self._wake_waiters()
        return waiter

    def stopService(self) -> Deferred[None]:
        """Stop; the Deferred fires when all is closed."""
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop()).addBoth(_wrapped)
        stopped: Deferred[None] = Deferred()
        self._stopped.addCallback(_share, stopped)
        return stopped

    async def stop(self) -> None:
        """Stop, and return when all is closed."""
        await self.stopService()

    def check_running(self) -> None:
        """Refuse what cannot be done now.

        :raises NotStarted: when it does not run.
        """
        if self._state is not _State.RUNNING:
            raise NotStarted("the overlay does not run")

    async def _stop(self) -> None:
        before, self._state = self._state, _State.STOPPED
        if before is _State.STARTING:  # what it waits for may hang, and nobody shall wait for that
            await self.close(was_running=False)
        if before is _State.RUNNING:
            try:
                await super().stopService()
            finally:
                await self.close(was_running=True)
        elif self._undoing is not None:
            undone: Deferred[None] = Deferred()
            self._undoing.append(undone)
            await undone
        else:
            if before is _State.NEW:
                await self.close(was_running=False)
            self._wake_waiters()

    def _note_failed_start(self, failure: Failure, is_asked: bool) -> None:
        if not is_asked:
            self._log.error("cannot start: {error}", error=str(failure.value))

    def _wake_waiters(self) -> None:
        if self._state in (_State.NEW, _State.STARTING):
            return
        result = self._start_result
        if result is None and self._state is _State.STOPPED:
            result = Failure(NotStarted("the overlay was stopped; make a new one"))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(result)


def _wrapped(result: Failure | None) -> tuple[Failure | None]:
    return (result,)


def _share(wrapped: tuple[Failure | None], stopped: Deferred[None]) -> tuple[Failure | None]:
    """Tell one of those who wait; the next one is told the same."""
    (result,) = wrapped
    if isinstance(result, Failure):
        stopped.errback(result)
    else:
        stopped.callback(result)
    return wrapped
