"""What a command does about Ctrl-C, as processes of their own."""

from __future__ import annotations

import signal
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import Running

PROGRAM = """
import signal, sys, time
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from stellar_overlay.tools.running import run_reactor

def say(word):
    print(word, flush=True)

async def main(reactor):
    def leave_slowly():
        say("leaving")
        return deferLater(reactor, 0.5, say, "left")
    reactor.addSystemEventTrigger("before", "shutdown", leave_slowly)
    reactor.callWhenRunning(begin, reactor)
    await ENDING

def begin(reactor):
    say("running")
    BUSY

earlier = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
try:
    run_reactor(main)
    say("done")
except KeyboardInterrupt:
    say("interrupted")
assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == earlier
"""
NEVER = "Deferred()"
SOON = "deferLater(reactor, 0)"


class SignalTests(SynchronousTestCase):
    def start(self, *, ending: str = NEVER, busy: str = "pass", first: str = "") -> Running:
        """Start a command that takes its time to end."""
        program = first + PROGRAM.replace("ENDING", ending).replace("BUSY", busy)
        return Running(self, (sys.executable, "-c", program))

    def ended(self, running: Running, *words: str) -> None:
        """Assert that it comes to a quiet end, after these words."""
        result = running.wait(5)
        self.assertEqual((result.status, result.stderr), (0, ""), result.said)
        self.assertEqual(result.stdout.split(), list(words))

    def test_twice(self) -> None:
        """A second signal during a slow shutdown changes nothing, whichever it is."""
        for first in (signal.SIGINT, signal.SIGTERM):
            for second in (signal.SIGINT, signal.SIGTERM):
                running = self.start()
                running.wait_until(lambda running=running: "running" in running.stdout)  # type: ignore[misc]
                running.send(first)
                running.wait_until(lambda running=running: "leaving" in running.stdout)  # type: ignore[misc]
                running.send(second)
                self.ended(running, "running", "leaving", "left", "interrupted")

    def test_twice_while_busy(self) -> None:
        """Nor do two that come before the reactor has time for the first."""
        busy = "[(time.sleep(0.01), signal.raise_signal(signal.SIGINT)) for _ in range(3)]"
        self.ended(self.start(busy=busy), "running", "leaving", "left", "interrupted")

    def test_at_the_end(self) -> None:
        """When it is done, Ctrl-C while it leaves takes nothing from the result."""
        running = self.start(ending=SOON)
        running.wait_until(lambda: "leaving" in running.stdout)
        running.send(signal.SIGINT)
        self.ended(running, "running", "leaving", "left", "done")

    def test_ignored(self) -> None:
        """Who was started with SIGINT ignored, in the background, goes on ignoring it."""
        ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        busy = "signal.raise_signal(signal.SIGINT)"
        running = self.start(ending="deferLater(reactor, 0.2)", busy=busy, first=ignoring)
        self.ended(running, "running", "leaving", "left", "done")
