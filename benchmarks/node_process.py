"""The node under test, alone in its process: prints its port, then its figures when asked."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
from collections.abc import Sequence

from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.protocols.basic import LineReceiver

from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.tap import spare_the_collector


class Commands(LineReceiver):
    """Answers every line with one JSON object of figures."""

    delimiter = b"\n"

    def __init__(self, overlay: OverlayManager) -> None:
        self._overlay = overlay

    def connectionMade(self) -> None:
        self.say({"port": self._overlay.peer_port})

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        gc.collect()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        metrics = self._overlay.metrics
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        self.say(
            {
                "cpu": usage.ru_utime + usage.ru_stime,
                "rss": pages * os.sysconf("SC_PAGE_SIZE"),
                "messages": metrics.messages_read.get(),
                "peers": len(self._overlay.admission.authenticated),  # lists nothing anew
                "drops": {k.name: v.get() for k, v in metrics.drops.items() if v.get()},
            }
        )

    def say(self, figures: object) -> None:
        self.sendLine(json.dumps(figures).encode())


def main(arguments: Sequence[str]) -> None:
    """Run a node with room for many peers; it logs as a node does, but to nowhere."""
    nowhere = open(os.devnull, "w")  # noqa: SIM115 - for the life of the process
    globalLogBeginner.beginLoggingTo(
        [
            FilteringLogObserver(
                textFileLogObserver(nowhere), [LogLevelFilterPredicate(LogLevel.info)]
            )
        ],
        redirectStandardIO=False,
    )
    config = OverlayConfig(allow_private=True, max_inbound_peers=5000, max_pending_connections=5000)
    overlay = OverlayManager(config, LocalNode.testnet(), listen="tcp:0:interface=127.0.0.1")

    async def start() -> None:
        await overlay.start()
        spare_the_collector()
        stdio.StandardIO(Commands(overlay))

    Deferred.fromCoroutine(start())
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
