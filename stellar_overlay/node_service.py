"""A node as an application runs it: how it starts, and how it ends when it cannot."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import os
import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from stellar_overlay.error import ConfigError, OverlayError
from stellar_overlay.option_values import write_atomically

if TYPE_CHECKING:
    from stellar_overlay.admin.server import AdminHttp
    from stellar_overlay.node.manager import OverlayManager


class StartFailed(OverlayError):
    """The node cannot run; the text is the one line for its operator."""

    fatal = True


class NodeService(MultiService):
    """A node as an application runs it: a failure to start ends the process with one line.

    A failure before the reactor runs is raised, as :exc:`StartFailed`: ``twistd`` waits for ever
    for a daemon that ends in any other way.

    :param http: what answers the operator, if anything does: from before the node starts on.
    """

    _log = Logger()

    def __init__(
        self,
        overlay: OverlayManager,
        ready_file: str | None = None,
        http: AdminHttp | None = None,
    ) -> None:
        super().__init__()
        self._overlay = overlay
        self._ready_file = ready_file
        self._http = http
        self._is_stopped = False
        overlay.setServiceParent(self)
        if http is not None:
            http.setServiceParent(self)

    def startService(self) -> None:
        failures: list[Failure] = []
        started = Deferred.fromCoroutine(self._start())
        started.addErrback(failures.append)
        if failures:  # the runner has not started the reactor yet
            raise _without_traceback(StartFailed(_start_failure(failures[0])))
        started.addCallback(lambda _: _die(_start_failure(failures[0])) if failures else None)

    def stopService(self) -> Deferred[list[object]]:
        self._is_stopped = True
        stopped: Deferred[list[object]] = super().stopService()
        return stopped

    async def _start(self) -> None:
        if self._http is not None:
            try:
                await self._http.listen()
            except CannotListenError as error:
                raise StartFailed(f"cannot listen {_cannot_listen(error, '--http')}") from None
        if self._is_stopped:  # while it waited for the port
            await super().stopService()
            return
        started = self._overlay.when_started()
        super().startService()
        await started
        self._ready()

    def _ready(self) -> None:
        spare_the_collector()
        node, port = self._overlay.local_node, self._overlay.peer_port
        http_port = None if self._http is None else self._http.port
        self._log.info(
            "{node} on {network!r}: overlay {low}..{high}, peer port {port}, HTTP port {http_port}",
            node=node.peer_id.strkey,
            network=node.network_passphrase,
            low=node.overlay_min_version,
            high=node.overlay_version,
            port=port,
            http_port=http_port,
        )
        if self._ready_file is not None:
            ready = {
                "node": node.peer_id.strkey,
                "pid": os.getpid(),
                "peer_port": port,
                "http_port": http_port,
            }
            try:
                write_atomically(self._ready_file, json.dumps(ready) + "\n")
            except OSError as error:
                raise ConfigError(
                    f"--ready-file: cannot write {self._ready_file}: {error.strerror}"
                ) from None


def spare_the_collector() -> None:
    """Take all that was loaded so far out of garbage collection, for a process that is to stay.

    stellar-sdk alone makes some 100,000 objects that live for ever; looking through them again and
    again was a third of the CPU that a handshake took. And what a message leaves behind is no
    garbage for minutes, so that looking for it every 700 objects is in vain.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _start_failure(failure: Failure) -> str:
    """Return the line that says why the node cannot start, and what to do."""
    error = failure.value
    if isinstance(error, CannotListenError):
        return f"stellar-overlay: cannot listen {_cannot_listen(error)}"
    if isinstance(error, OverlayError):
        return f"stellar-overlay: {error}"
    return f"stellar-overlay: cannot start: {type(error).__name__}: {error}"


def _cannot_listen(error: CannotListenError, option: str = "--listen") -> str:
    number = getattr(error.socketError, "errno", None)
    reason = getattr(error.socketError, "strerror", None) or str(error.socketError)
    if not isinstance(error.port, int):  # a socket of the file system
        return f"at {error.interface or error.port}: {reason}"
    where = (
        f"on {error.interface} port {error.port}" if error.interface else f"on port {error.port}"
    )
    match number:
        case errno.EADDRINUSE:
            advice = f"stop who has it, or choose another with {option} tcp:PORT"
        case errno.EACCES:
            advice = f"choose a port from 1024 with {option} tcp:PORT"
        case _:
            advice = f"choose an address of this machine with {option} tcp:PORT:interface=ADDRESS"
    return f"{where}: {reason}; {advice}"


def _without_traceback(error: StartFailed) -> StartFailed:
    """Let Python show nothing but its text should it end the process."""
    previous = sys.excepthook

    def show(kind: type[BaseException], value: BaseException, where: TracebackType | None) -> None:
        if value is error:
            print(value, file=sys.stderr, flush=True)
        else:
            previous(kind, value, where)

    sys.excepthook = show
    return error


def _die(line: str) -> None:
    """End a process whose reactor runs already: with this line, and not with status 0."""
    from twisted.internet import reactor

    running: Any = reactor
    # Twisted has turned sys.stderr into the log; that is where to say it only to nobody's terminal.
    print(line, file=sys.stderr if _is_stderr_nowhere() else sys.__stderr__, flush=True)
    atexit.register(_exit_with_failure)
    running.stop()


def _is_stderr_nowhere() -> bool:
    """Tell whether standard error is closed, or leads to /dev/null as a daemon's does."""
    try:
        return os.path.samestat(os.fstat(2), os.stat(os.devnull))
    except OSError:
        return True


def _exit_with_failure() -> None:
    """Exit with status 1 although whoever runs the reactor means to exit with 0."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(1)
