"""Stellar-core's command about the log: from which level on each partition is in it."""

from __future__ import annotations

from stellar_overlay.admin.query import Query
from stellar_overlay.admin.route import Answer, Ask
from stellar_overlay.admin.styled import styled
from stellar_overlay.log_levels import LOG_LEVELS, Level, canonical


def sets_level(query: Query) -> bool:
    """Tell whether ``/ll`` is to change something; without a level it tells how things are."""
    return bool(query.get("level"))


def log_levels(ask: Ask) -> Answer:
    """Tell the levels, or change that of one partition, or of all (core CommandHandler.cpp).

    The answer has the level that is in force: debug for trace. A level that is none is refused,
    where core would take it for info.

    :raises ConfigError: for a level or a partition that is none.
    """
    if not sets_level(ask.query):
        return Answer(styled({one: str(level) for one, level in LOG_LEVELS.levels().items()}))
    level = Level.named(ask.query.get("level") or "")
    partition = ask.query.get("partition") or None
    LOG_LEVELS.set_level(partition, level)
    return Answer(styled({canonical(partition) if partition else "Global": str(level)}))
