"""The schema: how a database of ours is marked, made, and brought up to date step by step."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files

APPLICATION_ID = 0x53_74_4F_76
"""``StOv``: what tells our databases from others (``PRAGMA application_id``)."""


def steps() -> list[str]:
    """Return the SQL scripts, of which the n-th makes version n from n - 1."""
    folder = files(__package__) / "schema"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(folder / name).read_text(encoding="utf-8") for name in names]


SCHEMA_VERSION = 2
"""The version that this release reads and writes: how many steps there are."""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of a database; 0 of one without tables."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def upgrade(connection: sqlite3.Connection, before: Callable[[int], None]) -> None:
    """Bring a database to :data:`SCHEMA_VERSION`, each step in a transaction of its own.

    :param before: called with the present version when there is something to upgrade.
    """
    version = version_of(connection)
    if version == SCHEMA_VERSION:
        return
    before(version)
    for number, script in enumerate(steps()[version:SCHEMA_VERSION], version + 1):
        with Transaction(connection):
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


class Transaction:
    """A context in which all is written, or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):  # what was wrong is told already
                    self._connection.execute("ROLLBACK")


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
