"""The fixture of the tests with a foreign peer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import pytest_twisted  # type: ignore[import-untyped]

from tests.interop.foreign import ForeignPeer, Options, available

StartForeignPeer = Callable[[Options], ForeignPeer]


@pytest.fixture
def foreign_peer() -> Iterator[StartForeignPeer]:
    """Start foreign peers that end with the test; skip it (fail it in CI) where none can run."""
    reason = available()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    from twisted.internet import reactor

    started: list[ForeignPeer] = []

    def start(options: Options) -> ForeignPeer:
        started.append(ForeignPeer(reactor, options))
        return started[-1]

    yield start
    for peer in started:
        pytest_twisted.blockon(peer.stop())
