"""From which level on each part of the package logs: one place for the node, tools and tests."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEventAsClassicLogText,
    globalLogBeginner,
)
from zope.interface import implementer

from stellar_overlay.error import ConfigError

VARIABLE = "STELLAR_OVERLAY_LOG"
"""Of the environment: ``debug``, or ``stellar_overlay.node=debug,stellar_overlay.gossip=info``."""
ROOT = "stellar_overlay"
NO_PARTITION = "not a valid partition"
"""Core's words for it (Logging.cpp)."""
NO_LEVEL = "not a valid level"

_CORE = {"database": "store", "herder": "herder", "overlay": "node"}
"""Core's partitions that are parts of ours, too: their names in lower case, our packages."""
_SHOWN = ("", ".admin", ".gossip", ".herder", ".node", ".session", ".store", ".tools")
_PART = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


class Level(Enum):
    """How much is told, by core's names; the values are Twisted's."""

    FATAL = "critical"
    ERROR = "error"
    WARNING = "warn"
    INFO = "info"
    DEBUG = "debug"

    def __str__(self) -> str:
        return self.name.capitalize()

    @classmethod
    def named(cls, text: str) -> Level:
        """Return a level by core's name of it, or Twisted's, in upper or lower case.

        :raises ConfigError: when there is none. Core takes it for info.
        """
        name = text.lower()
        if name == "trace":  # there is nothing finer
            return cls.DEBUG
        for level in cls:
            if name in (level.name.lower(), level.value):
                return level
        raise ConfigError(NO_LEVEL)


class _Current(NamedTuple):
    """The levels by namespace, and what judges by them: replaced as one, as threads log, too."""

    by_namespace: Mapping[str, Level]
    predicate: LogLevelFilterPredicate

    @classmethod
    def of(cls, by_namespace: Mapping[str, Level]) -> _Current:
        predicate = LogLevelFilterPredicate()
        for namespace, level in by_namespace.items():
            predicate.setLogLevelForNamespace(namespace, LogLevel.levelWithName(level.value))
        return cls(by_namespace, predicate)


@implementer(ILogFilterPredicate)
class LogLevels:
    """The levels of our namespaces, which count for all that is below unless it has its own.

    As a predicate of a ``FilteringLogObserver`` it decides on our events, and on no others.
    """

    def __init__(self) -> None:
        self._current = _Current.of({ROOT: Level.INFO})

    def __call__(self, event: dict[str, Any]) -> Any:
        if not f"{event.get('log_namespace')}.".startswith(f"{ROOT}."):
            return PredicateResult.maybe
        if self._current.predicate(event) is PredicateResult.no:
            return PredicateResult.no
        return PredicateResult.yes

    def levels(self) -> dict[str, Level]:
        """Return the level of each partition: core's that we have, and our own."""
        own = {*self._current.by_namespace, *(ROOT + part for part in _SHOWN)}
        partitions = (*map(str.capitalize, _CORE), *sorted(own))
        return {partition: self.level(partition) for partition in partitions}

    def level(self, partition: str) -> Level:
        """Return from which level on a partition is logged.

        :raises ConfigError: as :func:`namespace_of`.
        """
        namespace, by_namespace = namespace_of(partition), self._current.by_namespace
        while namespace not in by_namespace:
            namespace = namespace.rpartition(".")[0]
        return by_namespace[namespace]

    def set_level(self, partition: str | None, level: Level) -> None:
        """Log a partition from a level on; None is all of them, as if none had had its own.

        :raises ConfigError: as :func:`namespace_of`.
        """
        kept = {} if partition is None else self._current.by_namespace
        namespace = ROOT if partition is None else namespace_of(partition)
        self._current = _Current.of({**kept, namespace: level})

    def configure(
        self, environ: Mapping[str, str] = os.environ, default: Level = Level.INFO
    ) -> bool:
        """Set the levels as the environment has them; tell whether it says anything.

        :param default: for all that it does not name.
        :raises ConfigError: for what is neither a level nor a partition's; nothing is changed then.
        """
        text = environ.get(VARIABLE, "")
        wanted = _read(text)
        self.set_level(None, wanted.pop(None, default))
        for partition, level in wanted.items():
            self.set_level(partition, level)
        return bool(text.strip())


LOG_LEVELS = LogLevels()
"""Those of this process."""


def canonical(partition: str) -> str:
    """Return the name of a partition as :meth:`LogLevels.levels` has it.

    :raises ConfigError: as :func:`namespace_of`.
    """
    name = partition.lower()
    return name.capitalize() if name in _CORE else namespace_of(partition)


def namespace_of(partition: str) -> str:
    """Return the namespace of a partition: one of core's, or a package or module of ours.

    :raises ConfigError: with core's text, when there is none. So names are few, whoever gives them.
    """
    name = partition.lower()
    if name in _CORE:
        return f"{ROOT}.{_CORE[name]}"
    root, *parts = name.split(".")
    if root == ROOT and all(map(_PART.fullmatch, parts)):
        path = Path(__file__).parent.joinpath(*parts)
        if path.is_dir() or path.with_suffix(".py").is_file():
            return name
    raise ConfigError(NO_PARTITION)


def filtered(observer: ILogObserver, others: Level | None = None) -> ILogObserver:
    """Return an observer that sees of our events what the levels let through.

    :param others: from which level on it sees all other events; None is all of them.
    """
    predicates: list[ILogFilterPredicate] = [LOG_LEVELS]
    if others is not None:
        predicates.append(LogLevelFilterPredicate(LogLevel.levelWithName(others.value)))
    return FilteringLogObserver(observer, predicates)


@cache
def filter_what_begins() -> None:
    """Filter the observers that logging begins with, whoever makes them, later on.

    ``twistd`` makes its own when a .tac file has been read already, without levels, and has no
    place for a filter that would leave ``--logfile`` and ``--syslog`` to it.
    """
    begin = globalLogBeginner.beginLoggingTo

    def begin_filtered(observers: Iterable[ILogObserver], *how: bool, **named: bool) -> None:
        begin([filtered(observer) for observer in observers], *how, **named)

    globalLogBeginner.beginLoggingTo = begin_filtered  # type: ignore[method-assign]


@implementer(ILogObserver)
def _write(event: dict[str, Any]) -> None:
    """Write to whatever standard error is now: pytest has one of its own."""
    text = formatEventAsClassicLogText(event)
    if text and sys.stderr is not None:
        sys.stderr.write(text)


TO_STDERR = filtered(_write, Level.WARNING)
"""Shows our events, and warnings of others, where nothing else shows a log."""


def show_if_wanted() -> None:
    """Show the log of a command on standard error, if the environment has levels for it.

    :raises ConfigError: as :meth:`LogLevels.configure`.
    """
    if LOG_LEVELS.configure():
        _begin()


@cache
def _begin() -> None:
    globalLogBeginner.beginLoggingTo([TO_STDERR], redirectStandardIO=False)


def _read(text: str) -> dict[str | None, Level]:
    """Return the levels that a text names; that of None is a level without a partition."""
    wanted: dict[str | None, Level] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        partition, equals, level = map(str.strip, item.rpartition("="))
        try:
            wanted[namespace_of(partition) if equals else None] = Level.named(level)
        except ConfigError as error:
            raise ConfigError(
                f"{VARIABLE}: {item[:100]!r}: {error}; levels are fatal, error, warning, info and"
                " debug, partitions Database, Herder, Overlay, stellar_overlay and its modules,"
                " such as stellar_overlay.node=debug"
            ) from None
    return wanted
