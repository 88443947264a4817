"""Who checks signatures: threads of their own, or, on a simulated clock, whoever asks.

Both are :class:`~stellar_overlay.interfaces.Verifier` s. What they share: ``done`` is called
exactly once for each check; a check that raises counts as a bad signature; a ``done`` that raises
is logged, and concerns nobody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from threading import Thread
from typing import Protocol

from twisted.application.service import Service
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from stellar_overlay.interfaces import Clock, DelayedCall, SignatureCheck
from stellar_overlay.wire.signature import is_signed_by

THREADS = 2
MAX_BATCH = 64
"""Checks in one batch: some 3 ms of work, for a hand-over of 50 microseconds both ways."""
MIN_BATCH = 8
"""Fewer are not divided among threads: that would cost more than it saves."""

Check = Callable[[bytes, bytes, bytes], bool]
"""Tells of a key, what was signed and a signature whether they belong together."""
Done = Callable[[bool], None]
_Batch = list[tuple[SignatureCheck, Done]]
_Outcome = tuple[list[bool], Failure | None]


class ThreadedReactor(Clock, Protocol):
    """What a verifier uses of a reactor."""

    def callFromThread(  # noqa: N802 - Twisted's name
        self, function: Callable[..., object], /, *args: object
    ) -> object:
        """Call ``function`` soon, in the reactor's thread."""
        ...


class _Thread(Thread):
    """One that is no reason for a process to stay: who forgets to stop a node can still exit."""

    daemon = True


class InlineVerifier:
    """Checks at once: ``done`` is called before :meth:`verify` returns."""

    _log = Logger()

    def __init__(self, check: Check = is_signed_by) -> None:
        self._check = check

    def verify(self, check: SignatureCheck, done: Done) -> None:
        """Check a signature, and tell what came out."""
        (is_good,), failure = _outcome(self._check, [(check, done)], lambda: False)
        _note_failed_check(self._log, failure)
        _tell(self._log, done, is_good)


class ThreadPoolVerifier(Service):
    """Checks in a few threads: what one turn of the reactor asks for goes over together.

    While all threads are busy the checks wait here, and make larger batches; how many may wait is
    up to those who ask, who hold their peers' credit meanwhile. Within a batch ``done`` is called
    in the order of asking; two batches may overtake each other.

    What is asked for before the service starts waits until then. Stopping it calls ``done`` with
    False for all that is not decided, and waits for the one check that each thread is at, no more;
    so does asking when it has stopped. It may be started again.

    :param after_batch: called after the last ``done`` of each batch, to send what came of them.
    :ivar checked: how many checks were decided so far.
    :ivar batches: in how many batches.
    """

    name = "verifier"
    _log = Logger()

    def __init__(
        self,
        reactor: ThreadedReactor,
        *,
        threads: int = THREADS,
        max_batch: int = MAX_BATCH,
        check: Check = is_signed_by,
        after_batch: Callable[[], None] | None = None,
    ) -> None:
        if threads < 1 or max_batch < 1:
            raise ValueError("a verifier needs at least one thread and one check in a batch")
        self._reactor = reactor
        self._threads = threads
        self._max_batch = max_batch
        self._check = check
        self._after_batch = after_batch
        self._waiting: deque[tuple[SignatureCheck, Done]] = deque()
        self._under_way: dict[int, _Batch] = {}
        self._call: DelayedCall | None = None
        self._pool: ThreadPool | None = None
        self._has_stopped = False
        self.checked = self.batches = 0

    def verify(self, check: SignatureCheck, done: Done) -> None:
        """Check a signature soon, and tell what came out in a later turn of the reactor."""
        if self._has_stopped:
            _tell(self._log, done, False)
            return
        self._waiting.append((check, done))
        if self._call is None and self._pool is not None:
            self._call = self._reactor.callLater(0, self._hand_over)

    def startService(self) -> None:
        """Begin with what is waiting; threads are started when they are needed."""
        super().startService()
        self._has_stopped = False
        self._pool = ThreadPool(0, self._threads, name=self.name)
        self._pool.threadFactory = _Thread
        self._pool.start()
        self._hand_over()

    def stopService(self) -> None:
        """Give up whatever is not decided, within the time that one check takes."""
        super().stopService()
        self._has_stopped = True
        pool, self._pool = self._pool, None
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        under_way, self._under_way = self._under_way, {}
        if pool is not None:
            pool.stop()
        abandoned = [pair for batch in under_way.values() for pair in batch] + [*self._waiting]
        self._waiting.clear()
        for _, done in abandoned:
            _tell(self._log, done, False)
        if abandoned:
            self._end_batch()

    @property
    def pending(self) -> int:
        """How many checks are not decided yet."""
        return len(self._waiting) + sum(map(len, self._under_way.values()))

    def _hand_over(self) -> None:
        """Give the pool what is waiting, as far as its threads have not enough to do.

        Two batches for each thread: one that it works at, and one to go on with.
        """
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        share = -(-len(self._waiting) // self._threads)
        size = min(self._max_batch, max(MIN_BATCH, share))
        while self._pool is not None and self._waiting:
            if len(self._under_way) >= 2 * self._threads:
                return  # the next that ends comes back here
            batch = list(islice(self._waiting, size))
            for _ in batch:
                self._waiting.popleft()
            self._start(self._pool, batch)

    def _start(self, pool: ThreadPool, batch: _Batch) -> None:
        self.batches += 1
        number = self.batches
        self._under_way[number] = batch

        def is_given_up() -> bool:
            return number not in self._under_way

        def finish(is_done: bool, result: _Outcome | Failure) -> None:
            self._reactor.callFromThread(self._finish, number, result)

        pool.callInThreadWithCallback(finish, _outcome, self._check, batch, is_given_up)

    def _finish(self, number: int, result: _Outcome | Failure) -> None:
        """Tell what came out of a batch; nothing when it was given up."""
        batch = self._under_way.pop(number, None)
        if batch is None:
            return
        if isinstance(result, Failure):  # something that is no Exception ended the whole batch
            result = [False] * len(batch), result
        verdicts, failure = result
        _note_failed_check(self._log, failure)
        self._hand_over()
        self.checked += len(batch)
        for (_, done), is_good in zip(batch, verdicts, strict=True):
            _tell(self._log, done, is_good)
        self._end_batch()

    def _end_batch(self) -> None:
        if self._after_batch is not None:
            try:
                self._after_batch()
            except Exception:
                self._log.failure("What follows a batch of signature checks failed")


def _outcome(
    check: Check, batch: Sequence[tuple[SignatureCheck, Done]], is_given_up: Callable[[], bool]
) -> _Outcome:
    """Return what came out of each check, and the last failure; in whatever thread."""
    verdicts = []
    failure = None
    for (key, signed, signature), _ in batch:
        if is_given_up():
            break
        try:
            verdicts.append(check(key, signed, signature))
        except Exception:
            verdicts.append(False)
            failure = Failure()
    return verdicts, failure


def _tell(log: Logger, done: Done, is_good: bool) -> None:
    try:
        done(is_good)
    except Exception:
        log.failure("Whoever asked for a signature check failed on its outcome")


def _note_failed_check(log: Logger, failure: Failure | None) -> None:
    """Log a fault of ours: no signature, good or bad, makes a check raise."""
    if failure is not None:
        log.failure("A signature check failed", failure=failure)
