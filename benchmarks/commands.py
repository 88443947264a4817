"""The child's end of its pipe: a JSON object per line comes in, one goes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet import stdio
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

reactor: Any = _reactor
Figures = dict[str, Any]


class Commands(LineReceiver):
    """Does what each line's ``do`` names; ends the process with its parent."""

    delimiter = b"\n"

    def __init__(self, commands: Mapping[str, Callable[..., Any]], greeting: Figures) -> None:
        self._commands = commands
        self._greeting = greeting

    def connectionMade(self) -> None:
        self.say(self._greeting)

    def lineReceived(self, line: bytes) -> None:  # noqa: N802 - Twisted's name
        fields = json.loads(line)
        done = maybeDeferred(self._commands[fields.pop("do")], **fields)
        done.addCallbacks(self._answer, self._fail)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reactor.running:
            reactor.stop()

    def say(self, figures: Figures) -> None:
        self.sendLine(json.dumps(figures).encode())

    def _answer(self, figures: Figures | None) -> None:
        self.say(figures or {})

    def _fail(self, failure: Failure) -> None:
        self.say({"error": failure.getTraceback()})


def serve(commands: Mapping[str, Callable[..., Any]], **greeting: Any) -> None:
    """Take commands from standard input from now on; say ``greeting`` first."""
    stdio.StandardIO(Commands(commands, greeting))


def asynchronous(command: Callable[..., Any]) -> Callable[..., Deferred[Any]]:
    """Return a coroutine function as a command."""

    def run(**fields: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(command(**fields))

    return run
