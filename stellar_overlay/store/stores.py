"""The database of one node: bans and addresses answer from memory, and are kept on disk."""

from __future__ import annotations

import random as random_module
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import ConfigError, DatabaseError
from stellar_overlay.metrics import Counter, OverlayMetrics
from stellar_overlay.store import connecting
from stellar_overlay.store.ban_manager import BanManager
from stellar_overlay.store.connecting import Connect, path_of
from stellar_overlay.store.database import InlineRunner, PooledRunner, Runner
from stellar_overlay.store.file import DatabaseFile, Opened
from stellar_overlay.store.peer_manager import PeerManager
from stellar_overlay.store.rows import MAX_ANCHORS, Contents
from stellar_overlay.store.salvage import is_damage
from stellar_overlay.store.trouble import DiskTrouble

FLUSH_SECONDS = 1.0
CLEANUP_SECONDS = 60.0
"""How often bans that have ended are forgotten."""
OPEN_SECONDS = 10.0
"""How long a node waits for its disk before it starts without."""
ACKNOWLEDGE_SECONDS = 5.0
"""How long who bans a node waits for the disk."""
STOP_SECONDS = 1.5
MAX_EXPORTED_AT_ONCE = 200
"""Up to so many bans, the export is written before a ban is acknowledged. More take longer than
whoever bans many should wait for each: then it follows within seconds."""
EXPORT_SHARE = 0.1
"""Of the time, that writing a large export may take."""

T = TypeVar("T")
MakeRunner = Callable[[IReactorTime, DatabaseFile], Runner]


def runner_for(clock: IReactorTime, file: DatabaseFile) -> Runner:
    """Return adbapi's thread for a reactor, and none for a clock that has no threads."""
    return PooledRunner(clock, file) if IReactorThreads.providedBy(clock) else InlineRunner()


class _ProblemError(Exception):
    """The disk is not usable now; the text says why."""


class Stores(Service):
    """What a node keeps: ``await open()`` before anything is asked, then start as a service.

    Never fails because of the disk: what cannot be written stays in memory, and is tried again
    every second.

    :ivar anchors: peers to try first after a restart.
    :ivar database_errors: how often the disk refused something.
    :param database: a path, or ``sqlite3://PATH``; None, or ``:memory:``, for memory only.
    :param clock: a reactor, or a clock without threads: then the work is done at once.
    :param wall_clock: returns Unix seconds.
    :param connect: how SQLite opens a file.
    """

    _log = Logger()

    def __init__(
        self,
        database: str | None,
        clock: IReactorTime,
        *,
        wall_clock: Callable[[], float],
        random: random_module.Random,
        metrics: OverlayMetrics | None = None,
        connect: Connect = connecting.connect,
        make_runner: MakeRunner = runner_for,
    ) -> None:
        self._clock = clock
        self._make_runner = make_runner
        self._bad_setting: ConfigError | None = None
        try:
            path = path_of(database)
        except ConfigError as error:
            path, self._bad_setting = None, error
        self._file = None
        if path is not None:
            self._file = DatabaseFile(path, connect=connect, wall_clock=wall_clock)
        self._runner: Runner | None = None
        writer = None if self._file is None else self
        self.bans = BanManager(writer, wall_clock=wall_clock)
        self.peers = PeerManager(wall_clock=wall_clock, random=random)
        self.anchors: tuple[ResolvedPeerAddress, ...] = ()
        self._has_new_anchors = False
        self.database_errors = Counter() if metrics is None else metrics.database_errors
        self._trouble = DiskTrouble(str(path), clock, self.database_errors)
        self._is_open = False
        self._refusal: ConfigError | None = None
        self._is_ready = self._is_closing = False
        self._busy_since: float | None = None
        self._is_flush_due = False
        self._is_export_due = False
        self._has_export_failed = False
        self._next_export = 0.0
        self._waiters: list[Deferred[None]] = []
        self._writing: list[Deferred[None]] = []
        self._followers: list[Deferred[None]] = []
        self._flushing = LoopingCall(self._flush)
        self._cleaning = LoopingCall(self.bans.cleanup_expired_bans)
        self._flushing.clock = self._cleaning.clock = clock

    @property
    def trouble(self) -> str | None:
        """What is wrong with the disk at present; None when nothing is."""
        return self._trouble.text

    def set_anchors(self, addresses: Iterable[ResolvedPeerAddress]) -> None:
        """Keep the first few as peers to try first after a restart."""
        anchors = tuple(addresses)[:MAX_ANCHORS]
        self._has_new_anchors = self._has_new_anchors or anchors != self.anchors
        self.anchors = anchors

    async def open(self) -> None:
        """Read all that is on disk; where it cannot be read, begin without.

        :raises ConfigError: when the database is not for us; it was not touched.
        """
        if self._bad_setting is not None:
            raise self._bad_setting
        if self._file is None:
            return
        runner = self._runner = self._make_runner(self._clock, self._file)
        try:
            await self._work().addTimeout(OPEN_SECONDS, self._clock)
        except DeferredTimeout:
            self._trouble.begin(f"no answer for {OPEN_SECONDS:.0f} s")
        if self._refusal is not None:
            self._runner = None
            runner.close()
            raise self._refusal
        self._is_open = self._runner is not None  # unless it was stopped meanwhile

    def startService(self) -> None:
        Service.startService(self)
        if self._file is not None:
            self._flushing.start(FLUSH_SECONDS, now=False)
        self._cleaning.start(CLEANUP_SECONDS, now=False)

    def stopService(self) -> Deferred[None]:
        """Write what is left, and close; fires in time, whatever the disk does."""
        Service.stopService(self)
        self._stop_loops()
        if self._runner is None:
            return succeed(None)

        def give_up(_: object, __: float) -> None:
            self._trouble.begin(f"did not take the last changes in {STOP_SECONDS} s")
            self._abandon()

        closing = Deferred.fromCoroutine(self._close())
        return closing.addTimeout(STOP_SECONDS, self._clock, give_up).addErrback(self._note_bug)

    def kill(self) -> None:
        """Forget the disk at once, as if the process had been killed; for tests."""
        self._stop_loops()
        self._waiters.clear()
        self._abandon()
        if self._file is not None:
            self._file.forget()

    def write_bans(self) -> Deferred[None]:
        """Write the changes of bans; see :class:`~stellar_overlay.store.ban_manager.BanWriter`."""
        if self._runner is None:
            return fail(_not_on_disk("the database is closed"))
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self._work()

        def give_up(_: object, __: float) -> None:
            raise _not_on_disk(f"no answer for {ACKNOWLEDGE_SECONDS:.0f} s")

        return waiter.addTimeout(ACKNOWLEDGE_SECONDS, self._clock, give_up)

    def _flush(self) -> None:
        if self._busy_since is not None:
            if self._clock.seconds() - self._busy_since >= ACKNOWLEDGE_SECONDS:
                self._trouble.begin(f"no answer for {ACKNOWLEDGE_SECONDS:.0f} s")
        elif self._has_changes or self._is_export_due or not self._is_ready:
            self._is_flush_due = True
            self._work()

    def _work(self) -> Deferred[None]:
        """Write what is due, after what is being written; fires when nothing is under way."""
        follower: Deferred[None] = Deferred()
        self._followers.append(follower)
        if self._busy_since is None:
            self._busy_since = self._clock.seconds()
            Deferred.fromCoroutine(self._write_all()).addErrback(self._note_bug)
        return follower

    async def _write_all(self) -> None:
        waiters = self._writing
        try:
            while True:
                waiters += self._waiters
                self._waiters.clear()
                try:
                    await self._write(waiters)
                except sqlite3.Error as error:
                    if not is_damage(error):
                        raise
                    await self._rebuild(str(error))
                    await self._write(waiters)
                if not (self._waiters or self._is_flush_due):
                    break
            self._refusal = None
            if not self._has_export_failed:
                self._trouble.end()
        except ConfigError as error:
            self._refusal = error
            if self._is_open:  # somebody put another file there meanwhile
                self._failed(str(error), waiters)
        except (sqlite3.Error, OSError, _ProblemError) as error:
            self._failed(str(error), waiters)
        finally:
            self._busy_since = None
            _fire(self._followers)

    async def _write(self, waiters: list[Deferred[None]]) -> None:
        if not self._is_ready:
            self._merge(await self._run(lambda file: file.open()))
        if bans := self.bans.changes():
            await self._run(lambda file: file.write_bans(bans))
            self.bans.note_written(bans)
            self._is_export_due = True
            if self.bans.ban_count <= MAX_EXPORTED_AT_ONCE:
                await self._export()
        _fire(waiters)
        if not self._is_flush_due:
            return
        self._is_flush_due = False
        if self._is_export_due and (self._is_closing or self._clock.seconds() >= self._next_export):
            await self._export()
        peers = self.peers.table.changes()
        anchors = self.anchors if self._has_new_anchors else None
        if peers or anchors is not None:
            await self._run(lambda file: file.write_peers(peers, anchors))
            self.peers.table.note_written(peers)
            self._has_new_anchors = self._has_new_anchors and anchors is not self.anchors

    async def _export(self) -> None:
        start = self._clock.seconds()
        self._note_export(await self._run(lambda file: file.write_export()))
        end = self._clock.seconds()
        self._next_export = end + (end - start) / EXPORT_SHARE

    async def _rebuild(self, reason: str) -> None:
        truth = Contents(
            bans=self.bans.snapshot(),
            peers={record.address: record for record in self.peers.table},
            anchors=self.anchors,
        )
        self._merge(await self._run(lambda file: file.rebuild(reason, truth)))

    def _run(self, work: Callable[[DatabaseFile], T]) -> Deferred[T]:
        runner, file = self._runner, self._file
        if runner is None or file is None:
            raise _ProblemError("the database is closed")
        return runner.run(lambda: work(file))

    def _merge(self, opened: Opened) -> None:
        contents = opened.contents
        if contents is not None:
            self.bans.merge(contents.bans)
            self.peers.table.merge(contents.peers.values(), is_all=not contents.skipped_peers)
            if not self.anchors:
                self.anchors = contents.anchors
            if contents.skipped:
                opened.notices.append(
                    f"{contents.skipped} rows were skipped: nonsense, or too many"
                )
        self.bans.adopt(opened.rescued)
        for notice in opened.notices:
            self._trouble.note(notice)
        if opened.export_problem:
            self._note_export(opened.export_problem)
        self._is_ready = not opened.problem
        if opened.problem:
            raise _ProblemError(opened.problem)

    def _note_export(self, problem: str) -> None:
        self._is_export_due = self._has_export_failed = bool(problem)
        if problem:
            self._trouble.begin(problem)

    def _failed(self, text: str, waiters: list[Deferred[None]]) -> None:
        """Go on from memory; the file is opened anew with the next attempt."""
        self._is_ready = False
        self._is_flush_due = False
        self._trouble.begin(text)
        _fire(waiters, _not_on_disk(text))

    def _note_bug(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("writing to the database failed", failure=failure)
        self._is_ready = False

    async def _close(self) -> None:
        runner = self._runner
        assert runner is not None
        self._is_closing = True
        if self._has_changes or self._is_export_due:
            self._is_flush_due = True
        if self._is_flush_due or self._busy_since is not None:
            await self._work()
        await self._run(lambda file: file.close())
        self._runner = None
        self._is_open = self._is_ready = False
        runner.close()

    def _abandon(self) -> None:
        runner, self._runner = self._runner, None
        self._is_open = self._is_ready = False
        if runner is not None:
            runner.abandon()
        for waiters in (self._waiters, self._writing):
            _fire(waiters, _not_on_disk("the node stopped"))

    def _stop_loops(self) -> None:
        for loop in (self._flushing, self._cleaning):
            if loop.running:
                loop.stop()

    @property
    def _has_changes(self) -> bool:
        return self.bans.has_changes or self.peers.table.has_changes or self._has_new_anchors

    @property
    def _path(self) -> str:
        return "" if self._file is None else self._file.path


def _not_on_disk(text: str) -> DatabaseError:
    return DatabaseError(
        f"the change of bans is in force until the node is restarted, but not on disk: {text};"
        " writing it will be tried again"
    )


def _fire(waiting: list[Deferred[None]], error: Exception | None = None) -> None:
    """Fire and forget all that wait; who gave up waiting does not mind."""
    fired = waiting[:]
    waiting.clear()
    for waiter in fired:
        if waiter.called:
            continue
        if error is None:
            waiter.callback(None)
        else:
            waiter.errback(error)
