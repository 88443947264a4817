"""Where a database is, and how SQLite opens it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from urllib.parse import quote

from stellar_overlay.error import ConfigError

BUSY_SECONDS = 1.0
"""How long SQLite waits for another process to let go."""
URL_SCHEME = "sqlite3://"
IMMUTABLE = "mode=ro&immutable=1"
"""Options for a database that nobody changes; its log is not looked at."""
_MEMORY = ":memory:"

Connect = Callable[[str], sqlite3.Connection]
"""Opens a ``file:`` URI; statements are committed one by one unless a transaction is begun."""


def connect(uri: str, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Open a database."""
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    return connection


def uri_of(path: str, options: str) -> str:
    """Return the ``file:`` URI of a path."""
    return f"file:{quote(path)}?{options}"


def path_of(database: str | None) -> str | None:
    """Return the absolute path that a setting names; None for memory.

    :raises ConfigError: when it names something else.
    """
    if database is None:
        return None
    path = database.removeprefix(URL_SCHEME)
    if path == _MEMORY:
        return None
    if path == database and "://" in path:
        raise ConfigError(f"database {database!r}: write {URL_SCHEME}PATH; no other kind is known")
    if not path or "\0" in path or path.endswith(os.sep):
        raise ConfigError(f"database {database!r}: no file is named; write {URL_SCHEME}PATH")
    return os.path.realpath(path)
