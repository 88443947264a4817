"""Commands as a user runs them: real processes with a deadline, and sockets that they talk to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import TestCase

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.cli import main

ROOT = Path(__file__).resolve().parent.parent
CLI = (sys.executable, "-m", "stellar_overlay")
DEADLINE_SECONDS = 20.0
"""For what takes a second or two on an idle machine."""
_POLL_SECONDS = 0.02
_NOT_INHERITED = (
    *("STELLAR_OVERLAY_CONFIG", "STELLAR_OVERLAY_LOG", "COLUMNS"),
    *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"),
)
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Result:
    """How a process ended, and all that it said; a negative status is a signal."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """What it said, wherever."""
        return self.stdout + self.stderr

    @property
    def has_traceback(self) -> bool:
        """Whether it showed the user a traceback."""
        return _TRACEBACK in self.said


def script(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def environment(**changes: str | None) -> dict[str, str]:
    """Return the environment of a command that finds this checkout; None removes a variable."""
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    kept["PYTHONPATH"] = str(ROOT)
    for name, value in changes.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = value
    return kept


def scratch(test: TestCase) -> Path:
    """Return an empty folder that vanishes with the test."""
    folder = tempfile.TemporaryDirectory(prefix="stellar-overlay-test-")
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


class Running:
    """A process, in a folder of its own, that does not outlive the test.

    :param env: in full; that of :func:`environment` when None is given.
    :param cwd: a scratch folder when None is given.
    :param stdout: a file descriptor; what goes there is not seen here.
    """

    def __init__(
        self,
        test: TestCase,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: int | None = None,
    ) -> None:
        self.cwd = cwd or scratch(test)
        self._command = [str(part) for part in command]
        logs = scratch(test)
        self._stdout, self._stderr = logs / "stdout", logs / "stderr"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env=environment() if env is None else dict(env),
                cwd=self.cwd,
                start_new_session=True,
            )
        test.addCleanup(self.kill)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has said so far."""
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has complained of so far."""
        return self._stderr.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, deadline: float = DEADLINE_SECONDS) -> Result:
        """Return how it ended.

        :raises AssertionError: with all that it said, when it did not end in time.
        """
        try:
            status = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not end within {deadline} s") from None
        return Result(status, self.stdout, self.stderr)

    def wait_until(self, condition: Callable[[], bool], deadline: float = DEADLINE_SECONDS) -> None:
        """Wait for something that the process does while it runs.

        :raises AssertionError: with all that it said, when it does not come, or the process ends.
        """
        end = time.monotonic() + deadline
        while not condition():
            if self._process.poll() is not None and not condition():
                raise self._failure(f"ended with {self._process.returncode}")
            if time.monotonic() > end:
                raise self._failure(f"did not do it within {deadline} s")
            time.sleep(_POLL_SECONDS)

    def wait_for_ready_file(self, path: Path) -> dict[str, Any]:
        """Return what is in the ready file, once it is there."""
        self.wait_until(path.exists)
        ready: dict[str, Any] = json.loads(path.read_text())
        return ready

    def kill(self) -> None:
        """End it and all that it started, at once; harmless when it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _failure(self, what: str) -> AssertionError:
        return AssertionError(
            f"{' '.join(self._command)} {what}\nstdout:\n{self.stdout}\nstderr:\n{self.stderr}"
        )


def run(
    test: TestCase,
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline: float = DEADLINE_SECONDS,
) -> Result:
    """Run a command to its end."""
    return Running(test, command, env=env, cwd=cwd).wait(deadline)


def call(test: SynchronousTestCase, *arguments: str) -> Result:
    """Run ``stellar-overlay`` in this process: for commands that need no reactor."""
    out, err = StringIO(), StringIO()
    test.patch(sys, "stdout", out)
    test.patch(sys, "stderr", err)
    ending = test.assertRaises(SystemExit, main, arguments)
    return Result(int(ending.code), out.getvalue(), err.getvalue())


# Sockets.


def free_port() -> int:
    """Return a port of loopback that nobody had a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def taken_port() -> Iterator[int]:
    """Listen on a port of loopback, so that nobody else can."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


@implementer(ITransport)
class _SocketTransport:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._connection.close()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", *self._connection.getpeername())

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", *self._connection.getsockname())


class Talk:
    """A scripted peer on a blocking socket: no reactor, so that a test may wait for it."""

    def __init__(self, peer: ScriptedPeer, connection: socket.socket) -> None:
        self.peer = peer
        self._connection = connection
        peer.makeConnection(_SocketTransport(connection))

    @classmethod
    def dial(cls, test: TestCase, port: int, peer: ScriptedPeer) -> Talk:
        """Connect to a port of loopback, and shake hands if the peer is polite."""
        connection = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
        test.addCleanup(connection.close)
        talk = cls(peer, connection)
        if peer.is_polite:
            talk.hear_until(lambda: peer.authenticated.called)
        return talk

    def close(self) -> None:
        """Close the socket."""
        self._connection.close()

    def hear_until(self, condition: Callable[[], bool], deadline: float = DEADLINE_SECONDS) -> None:
        """Listen until something holds, or the other side closes.

        :raises AssertionError: when neither happens in time.
        """
        end = time.monotonic() + deadline
        while not (condition() or self.peer.is_closed):
            self._connection.settimeout(max(0.001, end - time.monotonic()))
            try:
                data = self._connection.recv(65536)
            except TimeoutError:
                raise AssertionError(f"nothing of that within {deadline} s") from None
            except ConnectionError:
                data = b""
            if data:
                self.peer.dataReceived(data)
            else:
                self.peer.connectionLost()


class Listener:
    """Answers connections to a port of loopback, one after the other, in a thread.

    :param answer: is called with each; when it returns, the connection is closed.
    """

    def __init__(self, test: TestCase, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        test.addCleanup(self._stop)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                connection.settimeout(DEADLINE_SECONDS)
                with connection, suppress(OSError, AssertionError):
                    self._answer(connection)

    def _stop(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(DEADLINE_SECONDS)


def scripted(make_peer: Callable[[], ScriptedPeer]) -> Callable[[socket.socket], None]:
    """Return an answer that is a scripted peer until the caller has gone."""

    def answer(connection: socket.socket) -> None:
        Talk(make_peer(), connection).hear_until(lambda: False)

    return answer


def says(data: bytes) -> Callable[[socket.socket], None]:
    """Return an answer of exactly these bytes, and then silence until the caller goes."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        while connection.recv(65536):
            pass

    return answer
