"""What the commands that talk to peers have in common."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import react

from stellar_overlay.error import ConfigError
from stellar_overlay.identity import OVERLAY_MIN_VERSION, OVERLAY_VERSION, LocalNode, Seed
from stellar_overlay.option_values import passphrase, version_range

_ENDING = (signal.SIGINT, signal.SIGTERM)


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

    Once it is ending, SIGINT and SIGTERM change nothing any more, however long it takes; afterwards
    they mean what they meant before.

    :raises KeyboardInterrupt: when the user ended it.
    """
    outcome: list[BaseException | None] = []

    def interrupt() -> None:
        if not outcome:  # what follows is the end of all links, and no result
            outcome.append(KeyboardInterrupt())

    async def guarded(reactor: Any) -> None:
        reactor.callWhenRunning(_stop_at_signals, reactor, handlers)
        reactor.addSystemEventTrigger("before", "shutdown", interrupt)
        try:
            await main(reactor)
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    handlers = {number: signal.getsignal(number) for number in _ENDING}
    try:
        with suppress(SystemExit):
            react(lambda reactor: Deferred.fromCoroutine(guarded(reactor)))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if outcome[0] is not None:
        raise outcome[0]


def _stop_at_signals(reactor: Any, earlier: Mapping[signal.Signals, object]) -> None:
    """Take the place of the reactor's own handlers, which ends with a traceback if used twice.

    :param earlier: what was there before them; where that is still so, it stays.
    """

    def stop() -> None:
        with suppress(ReactorNotRunning):
            reactor.stop()

    for number in _ENDING:
        if signal.getsignal(number) != earlier[number]:
            signal.signal(number, lambda *_: reactor.callFromThread(stop))
