"""Signatures: checked inline or by threads, each answered once, in order, whatever goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import LocalNode
from stellar_overlay.interfaces import SignatureCheck, Verifier
from stellar_overlay.node.verifier import MIN_BATCH, InlineVerifier, ThreadPoolVerifier
from tests.builders import make_node

PATIENCE_SECONDS = 10
"""For what takes a millisecond on an idle machine."""


class Oops(Exception):
    """What a fault of ours raises."""


def signed_by(node: LocalNode, signed: bytes) -> SignatureCheck:
    """Return a check that comes out well."""
    return SignatureCheck(node.peer_id.key, signed, node.sign(signed))


def numbered(number: int) -> SignatureCheck:
    """Return a check for :func:`is_even`."""
    return SignatureCheck(b"key", bytes([number]), b"signature")


def is_even(key: bytes, signed: bytes, signature: bytes) -> bool:
    """Stand in for the signature of a number; 13 is bad luck."""
    if signed[0] == 13:
        raise Oops
    return signed[0] % 2 == 0


class Reactor(Clock):
    """A clock that threads may call."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(  # noqa: N802 - Twisted's name
        self, function: Callable[..., object], /, *args: object
    ) -> None:
        self._calls.put(lambda: function(*args))

    def turn(self) -> None:
        """Do what is due, and the first thing that comes from a thread."""
        self.advance(0)
        self._calls.get(timeout=PATIENCE_SECONDS)()

    @property
    def is_called(self) -> bool:
        """Whether a thread wants something."""
        return not self._calls.empty()


class Gate:
    """A check that takes until it is let go."""

    def __init__(self) -> None:
        self._may_go = threading.Event()
        self._has_come = threading.Semaphore(0)
        self.seen: list[int] = []

    def check(self, key: bytes, signed: bytes, signature: bytes) -> bool:
        self.seen.append(signed[0])
        self._has_come.release()
        assert self._may_go.wait(PATIENCE_SECONDS)
        return True

    def wait(self) -> None:
        """Wait until a thread is at a check."""
        assert self._has_come.acquire(timeout=PATIENCE_SECONDS)

    def open(self) -> None:
        """Let all go, now and later."""
        self._may_go.set()


class Book:
    """Who was told what, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[int, bool]] = []

    def ask(self, verifier: Verifier, *numbers: int) -> None:
        """Have some numbers checked."""
        for number in numbers:
            verifier.verify(numbered(number), partial(self._note, number))

    def _note(self, number: int, is_good: bool) -> None:
        self.told.append((number, is_good))


class InlineVerifierTests(SynchronousTestCase):
    def test_real_signatures(self) -> None:
        """What a node signed is good; with any part of it changed or cut it is not."""
        good = signed_by(make_node(1), b"what is signed")
        cases = [
            (good, True),
            (good._replace(signed=b"What is signed"), False),
            (good._replace(signed=b""), False),
            (good._replace(signature=bytes(64)), False),
            (good._replace(signature=good.signature[:63]), False),
            (good._replace(signature=b""), False),
            (good._replace(key=make_node(2).peer_id.key), False),
            (good._replace(key=bytes(32)), False),
            (good._replace(key=good.key[:31]), False),
        ]
        told: list[bool] = []
        for check, _ in cases:
            InlineVerifier().verify(check, told.append)
        self.assertEqual(told, [is_good for _, is_good in cases])

    def test_at_once(self) -> None:
        """The outcome is there when the call returns."""
        book = Book()
        book.ask(InlineVerifier(is_even), 1, 2, 3)
        self.assertEqual(book.told, [(1, False), (2, True), (3, False)])

    def test_faults(self) -> None:
        """A check that raises counts as bad; whoever raises is logged, and stops nobody."""
        book = Book()

        def fail(is_good: bool) -> None:
            raise Oops

        verifier = InlineVerifier(is_even)
        book.ask(verifier, 13)
        verifier.verify(numbered(2), fail)
        self.assertEqual(book.told, [(13, False)])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 2)


class ThreadPoolVerifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.book = Book()
        self.ends: list[int] = []

    def make(
        self,
        check: Callable[[bytes, bytes, bytes], bool] = is_even,
        *,
        threads: int = 1,
        max_batch: int = 64,
    ) -> ThreadPoolVerifier:
        """Return a verifier that is stopped when the test ends."""
        verifier = ThreadPoolVerifier(
            self.reactor,
            threads=threads,
            max_batch=max_batch,
            check=check,
            after_batch=lambda: self.ends.append(len(self.book.told)),
        )
        self.addCleanup(verifier.stopService)
        return verifier

    def started(
        self,
        check: Callable[[bytes, bytes, bytes], bool] = is_even,
        *,
        threads: int = 1,
        max_batch: int = 64,
    ) -> ThreadPoolVerifier:
        """Return a verifier that runs."""
        verifier = self.make(check, threads=threads, max_batch=max_batch)
        verifier.startService()
        return verifier

    def test_real_signatures(self) -> None:
        """Without anything injected it checks real signatures."""
        verifier = ThreadPoolVerifier(self.reactor)
        verifier.startService()
        self.addCleanup(verifier.stopService)
        good = signed_by(make_node(1), b"what is signed")
        told: list[bool] = []
        verifier.verify(good, told.append)
        verifier.verify(good._replace(signed=b"what is not"), told.append)
        self.reactor.turn()
        self.assertEqual(told, [True, False])

    def test_one_batch(self) -> None:
        """What a turn asks for comes back together, in order, and then the owner is told."""
        verifier = self.started()
        self.book.ask(verifier, *range(10))
        self.assertEqual((self.book.told, verifier.pending), ([], 10))
        self.reactor.turn()
        self.assertEqual(self.book.told, [(n, n % 2 == 0) for n in range(10)])
        self.assertEqual(self.ends, [10])
        self.assertEqual((verifier.checked, verifier.batches, verifier.pending), (10, 1, 0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_large_turn(self) -> None:
        """More than a batch holds goes over in several; with one thread they stay in order."""
        verifier = self.started(max_batch=16)
        self.book.ask(verifier, *range(20, 120))
        for _ in range(7):
            self.reactor.turn()
        self.assertEqual([number for number, _ in self.book.told], list(range(20, 120)))
        self.assertEqual(self.ends, [16, 32, 48, 64, 80, 96, 100])
        self.assertFalse(self.reactor.is_called)

    def test_division(self) -> None:
        """A turn's checks are divided among the threads, unless there are too few of them."""
        verifier = self.started(threads=2)
        self.book.ask(verifier, *range(14, 14 + MIN_BATCH))
        self.reactor.turn()
        self.assertEqual(verifier.batches, 1)
        self.book.ask(verifier, *range(50, 90))
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(verifier.batches, 3)
        self.assertEqual(sorted(n for n, _ in self.book.told[MIN_BATCH:]), list(range(50, 90)))

    def test_busy_threads(self) -> None:
        """What is asked for while the threads are busy waits here, and goes over together."""
        gate = Gate()
        verifier = self.started(gate.check)
        for number in range(5):
            self.book.ask(verifier, number)
            self.reactor.advance(0)
        gate.wait()
        self.assertEqual(verifier.batches, 2)
        gate.open()
        for _ in range(3):
            self.reactor.turn()
        self.assertEqual([number for number, _ in self.book.told], list(range(5)))
        self.assertEqual(self.ends, [1, 2, 5])

    def test_asked_again(self) -> None:
        """Who is told may ask for more at once; that is the next turn's."""
        verifier = self.started()
        verifier.verify(numbered(2), lambda is_good: self.book.ask(verifier, 4))
        self.reactor.turn()
        self.assertEqual(self.book.told, [])
        self.reactor.turn()
        self.assertEqual(self.book.told, [(4, True)])

    def test_check_that_raises(self) -> None:
        """A check that raises counts as bad, and the others as what they are."""
        self.book.ask(self.started(), 12, 13, 14)
        self.reactor.turn()
        self.assertEqual(self.book.told, [(12, True), (13, False), (14, True)])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)

    def test_check_that_exits(self) -> None:
        """Not even what ends a thread's work loses an answer."""

        def leave(key: bytes, signed: bytes, signature: bytes) -> bool:
            raise SystemExit

        verifier = self.started(leave)
        self.book.ask(verifier, 1, 2)
        self.reactor.turn()
        self.assertEqual(self.book.told, [(1, False), (2, False)])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_done_that_raises(self) -> None:
        """A consumer that raises is logged, and the others are told all the same."""

        def fail(is_good: bool) -> None:
            raise Oops

        verifier = self.started()
        self.book.ask(verifier, 1)
        verifier.verify(numbered(2), fail)
        self.book.ask(verifier, 3)
        self.reactor.turn()
        self.assertEqual(self.book.told, [(1, False), (3, False)])
        self.assertEqual(self.ends, [2])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)

    def test_owner_that_raises(self) -> None:
        """The same goes for what follows a batch."""

        def fail() -> None:
            raise Oops

        verifier = ThreadPoolVerifier(self.reactor, check=is_even, after_batch=fail)
        verifier.startService()
        self.addCleanup(verifier.stopService)
        for number in (1, 2):
            self.book.ask(verifier, number)
            self.reactor.turn()
        self.assertEqual(self.book.told, [(1, False), (2, True)])
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 2)

    def test_not_started(self) -> None:
        """What is asked for before the start waits for it."""
        verifier = self.make()
        self.book.ask(verifier, 1, 2)
        self.reactor.advance(1)
        self.assertEqual((self.book.told, verifier.pending), ([], 2))
        verifier.startService()
        self.reactor.turn()
        self.assertEqual(self.book.told, [(1, False), (2, True)])

    def test_no_threads_until_needed(self) -> None:
        """A verifier that nobody asks has no threads."""
        before = threading.active_count()
        self.started(threads=4)
        self.assertEqual(threading.active_count(), before)

    def test_stop(self) -> None:
        """Stopping tells all that wait, once and in order, and waits for one check, no more."""
        gate = Gate()
        before = threading.active_count()
        verifier = self.started(gate.check, max_batch=4)
        self.book.ask(verifier, *range(12))
        self.reactor.advance(0)
        gate.wait()
        self.book.ask(verifier, 12)
        join = ThreadPool.stop

        def open_and_join(pool: ThreadPool) -> None:
            gate.open()
            join(pool)

        self.patch(ThreadPool, "stop", open_and_join)
        verifier.stopService()
        self.assertEqual(self.book.told, [(n, False) for n in range(13)])
        self.assertEqual((gate.seen, self.ends, verifier.pending), ([0], [13], 0))
        while self.reactor.is_called:  # what the thread had to say comes too late
            self.reactor.turn()
        self.assertEqual((len(self.book.told), len(self.ends)), (13, 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(threading.active_count(), before)

    def test_after_stop(self) -> None:
        """Who asks afterwards is told at once that there is no telling; twice stopped is fine."""
        verifier = self.started()
        verifier.stopService()
        verifier.stopService()
        self.book.ask(verifier, 2)
        self.assertEqual((self.book.told, self.ends), ([(2, False)], []))

    def test_start_again(self) -> None:
        """It may be started again, and knows nothing of what it gave up."""
        gate = Gate()
        verifier = self.started(gate.check)
        self.book.ask(verifier, 1)
        self.reactor.advance(0)
        gate.wait()
        gate.open()
        verifier.stopService()
        verifier.startService()
        self.book.ask(verifier, 2)
        while len(self.book.told) < 2:
            self.reactor.turn()
        self.assertEqual(self.book.told, [(1, False), (2, True)])

    def test_wrong_sizes(self) -> None:
        """No thread, or no check in a batch, would mean no answer ever."""
        for threads, max_batch in ((0, 1), (1, 0)):
            with self.assertRaises(ValueError):
                ThreadPoolVerifier(self.reactor, threads=threads, max_batch=max_batch)
