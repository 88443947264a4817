"""A Stellar peer that nobody here wrote, as a child process: the driver of ``foreign_peer.js``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from stellar_overlay.identity import TESTNET_PASSPHRASE

HERE = Path(__file__).parent
SCRIPT = HERE / "foreign_peer.js"
CONNECTOR = HERE / "node_modules" / "@stellarbeat" / "js-stellar-node-connector"
OLDEST_NODE = 20
TIMEOUT_SECONDS = 10.0


def available() -> str | None:
    """Tell in one line why the foreign peer cannot run here; None when it can."""
    node = shutil.which("node")
    if node is None:
        return f"node is not installed: the foreign peer needs node {OLDEST_NODE} or newer, and npm"
    asked = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    version = asked.stdout.strip()
    major = version.removeprefix("v").split(".")[0]
    if not major.isdecimal() or int(major) < OLDEST_NODE:
        return f"node {version or '(no version)'} is too old: {OLDEST_NODE} or newer is needed"
    if not CONNECTOR.is_dir():
        return "tests/interop/node_modules is missing: run `make interop`"
    return None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a foreign peer says of itself, and what it does wrong; the versions are core HEAD's.

    ``seed`` is an ``S…`` strkey, None for a random node. ``forge_mac_at`` is the sequence number
    (AUTH has 0) of the message that leaves with a wrong MAC.
    """

    network: str = TESTNET_PASSPHRASE
    seed: str | None = None
    overlay_version: int = 42
    overlay_min_version: int = 41
    ledger_version: int = 28
    version_string: str = "foreign peer"
    forge_mac_at: int | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment in which foreign_peer.js takes these options."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "NETWORK": self.network,
            "PRIVATE_KEY": self.seed or "",
            "OVERLAY_VERSION": str(self.overlay_version),
            "OVERLAY_MIN_VERSION": str(self.overlay_min_version),
            "LEDGER_VERSION": str(self.ledger_version),
            "VERSION_STRING": self.version_string,
            "FORGE_MAC_AT": "" if self.forge_mac_at is None else str(self.forge_mac_at),
        }


class ForeignPeerError(Exception):
    """The foreign peer did not do what the test waits for; the text holds all that it said."""


@dataclass(frozen=True)
class Event:
    """One line that the foreign peer said, such as ``authenticated`` or ``closed``."""

    kind: str
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        """Return the field ``name``, which is text."""
        value = self.fields[name]
        assert isinstance(value, str), self
        return value

    def number(self, name: str) -> int:
        """Return the field ``name``, which is a whole number."""
        value = self.fields[name]
        assert isinstance(value, int), self
        return value


@dataclass(frozen=True)
class _Waiter:
    kind: str
    fields: Mapping[str, object]
    found: Deferred[Event]

    def wants(self, event: Event) -> bool:
        return event.kind == self.kind and self.fields.items() <= event.fields.items()


class ForeignPeer(ProcessProtocol):
    """A running foreign peer: commands go in, each event comes out once, to the first who waits.

    Its events: started, listening, authenticated, message, ping, error_msg, counters, closed, and
    problem, which fails whoever waits. All but the first two say on which ``link`` (1, 2, …).

    :param reactor: provides IReactorProcess and IReactorTime.
    """

    def __init__(self, reactor: object, options: Options) -> None:
        self._clock = IReactorTime(reactor)
        self._unread = b""
        self._stderr = b""
        self._history: list[Event] = []
        self._events: list[Event] = []
        self._waiters: list[_Waiter] = []
        self._problem: str | None = None
        self._ended: list[Deferred[None]] = []
        self._has_ended = False
        self._transport = IReactorProcess(reactor).spawnProcess(
            self, "node", ["node", str(SCRIPT)], env=options.environment(), path=str(HERE)
        )

    def command(self, do: str, **fields: object) -> None:
        """Tell the peer what to do: a name in ``commands`` of foreign_peer.js, and its fields."""
        self._transport.write(json.dumps({"do": do, **fields}).encode() + b"\n")

    def wait_for(
        self, kind: str, *, timeout: float = TIMEOUT_SECONDS, **fields: object
    ) -> Deferred[Event]:
        """Return the oldest event of this kind and with these fields that nobody got yet.

        :raises ForeignPeerError: when there is none after ``timeout`` seconds or the process ends.
        """
        waiter = _Waiter(kind, fields, Deferred())
        for event in self._events:
            if waiter.wants(event):
                self._events.remove(event)
                return succeed(event)
        if self._problem is not None:
            return fail(self._error(f"no {kind}: {self._problem}"))
        self._waiters.append(waiter)

        def give_up(_: object, seconds: float) -> Event:
            self._waiters.remove(waiter)
            raise self._error(f"no {kind} {dict(fields) or ''} within {seconds} s")

        return waiter.found.addTimeout(timeout, self._clock, onTimeoutCancel=give_up)

    async def listen(self) -> int:
        """Accept connections on loopback; return the port, which the system chose."""
        self.command("listen")
        return (await self.wait_for("listening")).number("port")

    def dial(self, port: int, host: str = "127.0.0.1") -> None:
        """Connect to a node."""
        self.command("dial", host=host, port=port)

    def report(
        self, *, received: int = 0, sent: int = 0, timeout: float = TIMEOUT_SECONDS
    ) -> Deferred[Event]:
        """Return the counters once so many flood messages were received and sent on the link."""
        self.command("report", received=received, sent=sent)
        return self.wait_for("counters", timeout=timeout)

    def stop(self) -> Deferred[None]:
        """Kill the process; fires when it is gone, at once when it is gone already."""
        if self._has_ended:
            return succeed(None)
        with suppress(ProcessExitedAlready):
            self._transport.signalProcess("KILL")
        done: Deferred[None] = Deferred()
        self._ended.append(done)
        return done

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        """Hand each complete line of stdout to whoever waits for it."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            event = Event(said.pop("event"), said)
            self._history.append(event)
            if event.kind == "problem":
                self._fail_waiters(event.text("text"))
            else:
                self._deliver(event)

    def errReceived(self, data: bytes) -> None:  # noqa: N802
        """Keep stderr for the text of failures."""
        self._stderr += data

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Fail whoever waits for an event, release whoever waits for the end."""
        self._has_ended = True
        self._fail_waiters(f"the process ended: {reason.getErrorMessage()}")
        ended, self._ended = self._ended, []
        for done in ended:
            done.callback(None)

    def _deliver(self, event: Event) -> None:
        for waiter in self._waiters:
            if waiter.wants(event):
                self._waiters.remove(waiter)
                waiter.found.callback(event)
                return
        self._events.append(event)

    def _fail_waiters(self, problem: str) -> None:
        self._problem = self._problem or problem
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.found.errback(self._error(f"no {waiter.kind}: {problem}"))

    def _error(self, text: str) -> ForeignPeerError:
        said = "\n  ".join(
            f"{event.kind} {dict(event.fields)}"[:500] for event in self._history[-20:]
        )
        stderr = self._stderr.decode(errors="replace")
        return ForeignPeerError(f"{text}\nit said:\n  {said}\nstderr:\n{stderr}")
