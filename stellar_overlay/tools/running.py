"""What the commands that talk to peers have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from stellar_overlay.error import ConfigError
from stellar_overlay.identity import OVERLAY_MIN_VERSION, OVERLAY_VERSION, LocalNode, Seed
from stellar_overlay.option_values import passphrase, version_range


def local_node(arguments: argparse.Namespace, seed: Seed | None = None) -> LocalNode:
    """Return the node that a command speaks as, from ``--network`` and ``--overlay-version``.

    :raises ConfigError: naming the option that is wrong.
    """
    low, high = OVERLAY_MIN_VERSION, OVERLAY_VERSION
    if arguments.overlay_version is not None:
        low, high = version_range("--overlay-version", arguments.overlay_version)
    network = passphrase(arguments.network)
    if not network:
        raise ConfigError("--network: must be testnet, pubnet or a passphrase, not ''")
    return LocalNode(network, seed, overlay_min_version=low, overlay_version=high)


def run_reactor(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run ``main`` on the reactor until it is done; what it raises is raised here.

    :raises KeyboardInterrupt: when the user ended it.
    """
    outcome: list[BaseException | None] = []

    def interrupt() -> None:
        if not outcome:  # what follows is the end of all links, and no result
            outcome.append(KeyboardInterrupt())

    async def guarded(reactor: Any) -> None:
        reactor.addSystemEventTrigger("before", "shutdown", interrupt)
        try:
            await main(reactor)
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    with suppress(SystemExit):
        react(lambda reactor: Deferred.fromCoroutine(guarded(reactor)))
    if outcome[0] is not None:
        raise outcome[0]
