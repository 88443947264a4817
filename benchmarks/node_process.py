"""The node under test, alone in its process: ``node_process MODE accepting|real``."""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import sys
import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

from benchmarks.commands import Figures, reactor, serve
from benchmarks.network import local_node, overlay_config
from stellar_overlay.interfaces import SignatureCheck
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node_service import spare_the_collector


class AcceptingVerifier:
    """Takes every signature for good, at once."""

    def verify(self, check: SignatureCheck, done: Callable[[bool], None]) -> None:
        done(True)


class Measured:
    """What can be asked of the node."""

    def __init__(self, overlay: OverlayManager) -> None:
        self._overlay = overlay
        self._profiler = cProfile.Profile()

    def figures(self) -> Figures:
        """Return what was used and counted so far."""
        metrics = self._overlay.metrics
        return {
            "cpu": time.process_time(),
            "reads": metrics.async_read.get(),
            "peers": len(self._overlay.admission.authenticated),  # lists nothing anew
            "drops": {k.name: v.get() for k, v in metrics.drops.items() if v.get()},
        }

    def memory(self) -> Figures:
        """Return resident bytes, and how many peers there are."""
        gc.collect()
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return {"rss": pages * os.sysconf("SC_PAGE_SIZE"), **self.figures()}

    def start_profile(self) -> None:
        """Profile from now on."""
        self._profiler.enable()

    def add_profile(self, path: str) -> None:
        """Write the profile to a file, added to what that holds."""
        self._profiler.disable()
        stats = pstats.Stats(self._profiler)
        if os.path.exists(path) and os.path.getsize(path):
            stats.add(path)
        stats.dump_stats(path)


def new_overlay(mode: str, verifier: str) -> OverlayManager:
    """Return a node with room for many peers."""
    config = overlay_config(mode=mode, max_inbound_peers=5000, max_pending_connections=5000)
    return OverlayManager(
        config,
        local_node(),
        listen="tcp:0:interface=127.0.0.1",
        verifier=AcceptingVerifier() if verifier == "accepting" else None,
    )


def main(arguments: Sequence[str]) -> None:
    """Run the node; it logs as a node does, but to nowhere."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    level = FilteringLogObserver(
        textFileLogObserver(nowhere), [LogLevelFilterPredicate(LogLevel.info)]
    )
    globalLogBeginner.beginLoggingTo([level], redirectStandardIO=False)
    overlay = new_overlay(*arguments)

    async def start() -> None:
        await overlay.start()
        spare_the_collector()
        measured = Measured(overlay)
        commands = {
            name: getattr(measured, name)
            for name in ("figures", "memory", "start_profile", "add_profile")
        }
        serve(commands, port=overlay.peer_port)

    starting = Deferred.fromCoroutine(start())
    starting.addErrback(lambda failure: (failure.printTraceback(sys.stderr), reactor.stop()))
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
