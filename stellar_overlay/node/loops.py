"""What a node does every so often: each a LoopingCall on the injected clock."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger


class Loop(Service):
    """Calls a function every so many seconds, as long as it has something to do.

    What it raises is logged and stops nothing.

    :param name: what the log calls it.
    :param function: returns whether there will be something to do the next time; once there is
        not, :meth:`wake` starts it anew.
    :param is_idle: whether there is nothing to do before :meth:`wake` is called for the first time.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        function: Callable[[], bool],
        seconds: float,
        clock: IReactorTime,
        *,
        is_idle: bool = False,
    ) -> None:
        self.name = name
        self._function = function
        self._seconds = seconds
        self._is_wanted = not is_idle
        self._loop = LoopingCall(self._run)
        self._loop.clock = clock

    def startService(self) -> None:
        """Call it for the first time after one period, or after the first :meth:`wake`."""
        super().startService()
        if self._is_wanted:
            self.wake()

    def stopService(self) -> None:
        """Call it no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def wake(self) -> None:
        """Note that there is something to do, one period from now."""
        self._is_wanted = True
        if self.running and not self._loop.running:
            self._loop.start(self._seconds, now=False)

    def _run(self) -> None:
        self._is_wanted = False  # unless the function itself wakes it again
        try:
            goes_on = self._function()
        except Exception:
            self._log.failure("The loop {name} failed", name=self.name)
            goes_on = True
        self._is_wanted = self._is_wanted or goes_on
        if not self._is_wanted and self._loop.running:
            self._loop.stop()
