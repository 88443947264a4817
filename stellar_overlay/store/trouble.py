"""What is wrong with the disk: said at once, then at most once a minute while it lasts."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from stellar_overlay.metrics import Counter

SECONDS_BETWEEN_WARNINGS = 60.0
MAX_NOTES = 20


class DiskTrouble:
    """The state of the disk, as far as operators are told.

    :ivar text: what is wrong at present; None when nothing is.
    :param errors: counts every failure.
    """

    _log = Logger()

    def __init__(self, database: str, clock: IReactorTime, errors: Counter) -> None:
        self.text: str | None = None
        self._database = database
        self._clock = clock
        self._errors = errors
        self._warned_at: float | None = None
        self._is_told = False
        self._unsaid = 0
        self._noted: set[str] = set()

    def note(self, text: str) -> None:
        """Say what happened to the file, once until all is well again."""
        if text not in self._noted and len(self._noted) < MAX_NOTES:
            self._noted.add(text)
            self._log.warn("database {database}: {text}", database=self._database, text=text)

    def begin(self, text: str) -> None:
        """Note a failure."""
        self.text = text
        self._errors.inc()
        self._unsaid += 1
        now = self._clock.seconds()
        if self._warned_at is not None and now - self._warned_at < SECONDS_BETWEEN_WARNINGS:
            return
        self._warned_at = now
        self._is_told = True
        self._log.warn(
            "database {database}: {text}; the node goes on from memory and keeps trying"
            " ({count} failures since last told)",
            database=self._database,
            text=text,
            count=self._unsaid,
        )
        self._unsaid = 0

    def end(self) -> None:
        """Note that all is well."""
        self.text = None
        self._noted.clear()
        if self._is_told:
            self._is_told = False
            self._log.info("database {database}: works again", database=self._database)
