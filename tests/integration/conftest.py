"""What every test on the real reactor must leave behind: nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.task import deferLater

TURNS = 5
"""Of the reactor, in which what was closed is forgotten."""


@pytest.fixture(autouse=True)
def _clean_reactor() -> Iterator[None]:
    """Fail a test that leaves a timer, a port or a connection on the reactor."""
    from twisted.internet import reactor

    pytest_twisted.blockon(deferLater(reactor, 0))  # its first turn opens readers of its own
    before = _occupied(reactor)
    yield
    for _ in range(TURNS):
        pytest_twisted.blockon(deferLater(reactor, 0))
    left = _occupied(reactor) - before
    if left:
        pytest.fail(f"left on the reactor: {sorted(map(str, left))}", pytrace=False)


def _occupied(reactor: Any) -> set[object]:
    return {*reactor.getDelayedCalls(), *reactor.getReaders(), *reactor.getWriters()}
