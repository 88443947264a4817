"""A whole time-sliced survey through a node's admin HTTP: measure, ask everybody, wait.

It prints nothing, and its time is that of the clock that it is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from stellar_overlay.tools.admin_client import (
    AdminError,
    AdminMalformed,
    AdminRefused,
    AdminUnreachable,
)
from stellar_overlay.tools.survey_admin import Answer, Links, SurveyAdmin, Surveyor
from stellar_overlay.tools.survey_merged import MergedResults
from stellar_overlay.tools.survey_plan import Phase, Plan, Progress
from stellar_overlay.tools.survey_turns import NOBODY, Turns

KEEP_ALIVE_SECONDS = 60
"""How often something is asked while the network measures (core OverlaySurvey.py)."""
MIN_POLL_SECONDS = 0.5
MAX_POLL_SECONDS = 5.0
"""From one look at the results to the next; longer and longer, until somebody new is asked."""
MAX_BACKLOG = 20
"""Nodes that wait for their request at the surveyor, which sends ten at a time."""
STUCK_SECONDS = 240
"""After so long a surveyor whose queue does not move sends nothing: its ledger stands still."""
MAX_TRIES = 3
"""How often a node is asked that says nothing new."""
REPORTING_SECONDS = 3 * 3600
"""After so long nodes forget a survey (core SurveyDataManager.cpp:30)."""
STOP_SECONDS = 5
"""How long the node may take to hear that it need not go on."""

_PASSING = (AdminUnreachable, AdminMalformed)
"""What may be over by the next time; an answer that is too long is not."""
_T = TypeVar("_T")


@dataclass(slots=True)
class _Target:
    """A node that was asked.

    :ivar tries: requests since it said as much as a request can bring.
    :ivar is_waiting: whether it was asked and has not answered yet.
    """

    tries: int = 0
    is_waiting: bool = False
    is_bad: bool = False


class SurveyFlow:
    """One survey.

    :param note: is told of all progress.
    :ivar results: what came in; also if :meth:`run` failed or was stopped.
    :ivar surveyor: who does it, once that is known; ``links``: whom it was connected to.
    :ivar collected_seconds: how long was measured.
    :ivar is_started: whether the node was told to begin, and did not refuse; ``is_start_certain``:
        whether it said that it does.
    :ivar is_reporting: whether the node was told to ask somebody; ``is_cut_off``: whether it, or
        somebody else there, put an end to that.
    """

    def __init__(
        self,
        admin: SurveyAdmin,
        clock: IReactorTime,
        plan: Plan,
        note: Callable[[Progress], object] = lambda progress: None,
    ) -> None:
        self.results = MergedResults()
        self.surveyor: Surveyor | None = None
        self.links = Links(inbound=(), outbound=())
        self.collected_seconds = 0.0
        self.is_started = False
        self.is_start_certain = False
        self.is_cut_off = False
        self.is_reporting = False
        self._admin = admin
        self._clock = clock
        self._plan = plan
        self._note = note
        self._phase = Phase.COLLECTING
        self._targets: dict[str, _Target] = {}
        self._turns = Turns(max(plan.max_nodes, len(plan.nodes)))
        self._backlog: set[str] = set()
        self._failing_since: dict[str, float] = {}
        self._quiet_since = self._moved_at = 0.0
        self._has_news = False
        self._running: Deferred[None] | None = None
        self._ended: Deferred[None] = Deferred()

    async def run(self) -> None:
        """Do it all.

        :raises AdminError: when the node refuses, or nothing comes from it any more.
        """
        self._running = Deferred.fromCoroutine(self._run())
        try:
            await self._running
        finally:
            self._ended.callback(None)

    def stop(self) -> Deferred[None] | None:
        """End :meth:`run`, and the node's asking; harmless when that is over."""
        if self._running is None or self._running.called:
            return None
        self._running.cancel()
        return self._ended

    @property
    def answered(self) -> list[str]:
        """Who has answered, without the surveyor itself."""
        return [node for node in self.results if not self._is_surveyor(node)]

    @property
    def silent(self) -> list[str]:
        """Who was asked, and has never answered."""
        return sorted(
            node
            for node, target in self._targets.items()
            if node not in self.results and not target.is_bad and not self._is_surveyor(node)
        )

    @property
    def not_asked(self) -> int:
        """How many nodes were named, and never asked."""
        return self._turns.not_asked

    @property
    def bad(self) -> list[str]:
        """Whose last answer could not be read."""
        return sorted(node for node, target in self._targets.items() if target.is_bad)

    async def _run(self) -> None:
        self.surveyor = await self._admin.surveyor()
        if self._plan.network not in (None, self.surveyor.network):
            raise AdminRefused(f"the node is in another network: {self.surveyor.network!r:.100}")
        await self._collect()
        try:
            await self._report()
        finally:
            if self.is_reporting:
                await self._stop_asking()

    # Measuring.

    async def _collect(self) -> None:
        await self._start()
        start = self._clock.seconds()
        end = start + self._plan.collect_seconds
        trouble: str | None = None
        while (left := end - self._clock.seconds()) > 0:
            self._note(Progress(phase=Phase.COLLECTING, seconds_left=left, trouble=trouble))
            await self._sleep(min(left, KEEP_ALIVE_SECONDS))
            trouble = None
            try:
                await self._admin.keep_alive()
            except AdminError as error:
                trouble = str(error)
        self._phase = Phase.SETTLING
        await self._insist("stop", self._admin.stop_collecting)
        self.collected_seconds = self._clock.seconds() - start
        settle = self._plan.settle_seconds
        self._note(Progress(phase=Phase.SETTLING, seconds_left=settle))
        await self._sleep(settle)
        self._phase = Phase.REPORTING

    async def _start(self) -> None:
        self.is_started = True  # also if the answer to that is lost
        try:
            await self._admin.start_collecting(self._plan.nonce)
        except AdminRefused:
            self.is_started = False
            raise
        self.is_start_certain = True

    # Asking.

    async def _report(self) -> None:
        self.links = await self._insist("peers", self._admin.links)
        self._name(NOBODY, (*self._plan.nodes, *self.links.inbound, *self.links.outbound))
        if self._turns.next() is None and self.surveyor is not None:
            self._turns.repeat(self.surveyor.node)  # at least it can tell of itself
        start = self._quiet_since = self._moved_at = self._clock.seconds()
        pause = MIN_POLL_SECONDS
        self._tell()
        while self._clock.seconds() - start < REPORTING_SECONDS:
            if await self._ask():
                pause = MIN_POLL_SECONDS
            await self._sleep(pause)
            pause = min(2 * pause, MAX_POLL_SECONDS)
            answer = await self._attempt("results", self._admin.results)
            if answer is not None:
                self._take(answer)
                self._tell()
                if self._is_over(answer):
                    break

    async def _ask(self) -> bool:
        """Have those asked for whom the surveyor has room; tell whether there were any."""
        has_asked = False
        while len(self._backlog) < MAX_BACKLOG and (node := self._turns.next()) is not None:
            try:
                is_taken = await self._attempt("request", partial(self._request, node))
            except AdminRefused:
                if not self.is_reporting:
                    raise
                self._turns.take(node)
                self._targets.setdefault(node, _Target())  # it will be silent
                continue
            if is_taken is None:
                break
            self.is_reporting = has_asked = True
            self._backlog.add(node)
            self._note_asked(node)
        return has_asked

    async def _request(self, node: str) -> bool:
        return await self._admin.request(node, *self.results.indices(node))

    def _note_asked(self, node: str) -> None:
        """Note that a node need not be asked, as the surveyor does that."""
        self._turns.take(node)
        if not self._is_surveyor(node):
            target = self._targets.setdefault(node, _Target())
            target.tries += 1
            target.is_waiting, target.is_bad = True, False

    def _take(self, answer: Answer) -> None:
        """Take in what the surveyor knows, and see who is to be asked next."""
        now = self._clock.seconds()
        if {*answer.backlog} != self._backlog:
            self._moved_at = now
        self._backlog = {*answer.backlog}
        for node in filter(self._turns.__contains__, answer.backlog):  # that answer went astray
            self.is_reporting = True
            self._note_asked(node)
        has_news = self._take_pages(answer)
        for node in answer.bad:
            target = self._targets.get(node)
            if target is not None and target.is_waiting:
                has_news = True
                target.is_waiting, target.is_bad = False, True
        self._has_news = self._has_news or has_news
        has_more = bool(self._backlog) or self._turns.next() is not None
        if has_news or (has_more and now - self._moved_at < STUCK_SECONDS):
            self._quiet_since = now

    def _take_pages(self, answer: Answer) -> bool:
        """Merge what nodes said; tell whether any of those that were asked has answered."""
        has_news = False
        for node in sorted(answer.topology):
            page = answer.topology[node]
            if not page:  # asked, and not answered yet
                continue
            has_much = self.results.merge(node, page)
            self._name(NOBODY if self._is_surveyor(node) else node, self.results.peers_of(node))
            target = self._targets.get(node)
            if target is not None and target.is_waiting and node not in answer.backlog:
                has_news = True
                target.is_waiting = False
                target.tries = 0 if has_much else target.tries
                self._turns.drop_repeat(node)
                if not self.results.is_complete(node) and target.tries < MAX_TRIES:
                    self._turns.repeat(node, is_own=True)
        return has_news

    def _is_over(self, answer: Answer) -> bool:
        """Tell whether nothing more is to be expected; otherwise the silent may be asked again.

        Whoever was silent is asked again as long as the time before brought any answer at all.
        """
        waiting = [node for node, target in self._targets.items() if target.is_waiting]
        has_more = bool(waiting) or self._turns.next() is not None
        if not answer.is_running or not has_more:
            self.is_cut_off = self.is_reporting and has_more
            return self.is_reporting
        if self._clock.seconds() - self._quiet_since < self._plan.patience_seconds:
            return False
        again = [node for node in waiting if self._targets[node].tries < MAX_TRIES]
        if not again or not self._has_news:
            return True
        self._has_news = False
        for node in again:
            self._turns.repeat(node)
        self._quiet_since = self._clock.seconds()
        return False

    def _name(self, reporter: str, nodes: Iterable[str]) -> None:
        """Have nodes asked, at the turns of who named them."""
        self._turns.name(reporter, (node for node in nodes if not self._is_surveyor(node)))

    async def _stop_asking(self) -> None:
        stopping = Deferred.fromCoroutine(self._admin.stop_survey())
        with suppress(AdminError, TimedOut):
            await stopping.addTimeout(STOP_SECONDS, self._clock)

    # What all of them need.

    async def _insist(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat a request until it is answered, or patience runs out."""
        while (result := await self._attempt(what, call)) is None:
            await self._sleep(MAX_POLL_SECONDS)
        return result

    async def _attempt(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T | None:
        """Return what a request brings; None when it failed, and should be repeated.

        :raises AdminError: when that has been so for too long, or will not change.
        """
        try:
            result = await call()
        except _PASSING as error:
            now = self._clock.seconds()
            since = self._failing_since.setdefault(what, now)
            if now - since >= self._plan.patience_seconds:
                raise
            self._tell(str(error))
            return None
        self._failing_since.pop(what, None)
        return result

    def _tell(self, trouble: str | None = None) -> None:
        turns = self._turns
        self._note(
            Progress(
                phase=self._phase,
                asked=len(self._targets) + turns.first_time_count,
                answered=len(self.answered),
                queued=turns.first_time_count + turns.again_count + len(self._backlog),
                trouble=trouble,
            )
        )

    def _is_surveyor(self, node: str) -> bool:
        return self.surveyor is not None and node == self.surveyor.node

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._clock, seconds)
