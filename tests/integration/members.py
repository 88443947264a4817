"""Nodes over real TCP, of one private network, and the processes that they meet."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import TestCase

import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import PeerInfo
from tests.processes import Result, Running

_Test = TypeVar("_Test", bound=Callable[..., Awaitable[None]])
in_reactor: Callable[[_Test], _Test] = pytest_twisted.ensureDeferred

NETWORK = "some private passphrase"
LOOPBACK = "127.0.0.1"
TARGET = 4
_POLL_SECONDS = 0.02


def the_reactor() -> Any:
    """Return the running one."""
    from twisted.internet import reactor

    return reactor


@asynccontextmanager
async def owner() -> AsyncIterator[TestCase]:
    """Yield what processes and folders belong to, and end with."""
    case = TestCase()
    try:
        yield case
    finally:
        case.doCleanups()


async def end_of(process: Running, seconds: float) -> Result:
    """Wait for a process while the reactor runs, which it may have to say goodbye to."""
    result: Result = await deferToThread(process.wait, seconds)
    return result


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Let the reactor run until something holds; return for how many seconds.

    :raises AssertionError: when it does not come true in time.
    """
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await deferLater(the_reactor(), _POLL_SECONDS)
    return time.monotonic() - began


class Member:
    """A node of the network: its key, its port and its database outlast its manager."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.key = LocalNode(NETWORK)
        self.database = folder / f"node-{number}.db"
        self.port = 0
        self.manager: OverlayManager | None = None

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""
        return self.key.peer_id

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def infos(self) -> list[PeerInfo]:
        """What it knows of its peers."""
        return [] if self.manager is None else self.manager.peer_infos()

    @property
    def peers(self) -> set[PeerId]:
        """Who is connected to it."""
        return {info.peer_id for info in self.infos}

    async def start(self, *known_peers: str) -> None:
        """Run a new manager, on the port that the first one found free."""
        config = OverlayConfig(
            network_passphrase=NETWORK,
            allow_private=True,
            auth_timeout_secs=1,
            target_outbound_peers=TARGET,
            known_peers=list(known_peers),
        )
        self.manager = OverlayManager(
            config,
            LocalNode(NETWORK, self.key.secret_seed),
            reactor=the_reactor(),
            database=str(self.database),
            listen=f"tcp:{self.port}:interface={LOOPBACK}",
        )
        await self.manager.start()
        assert self.manager.peer_port is not None
        self.port = self.manager.peer_port

    async def stop(self) -> None:
        """Stop the manager, if one runs."""
        manager, self.manager = self.manager, None
        if manager is not None:
            await manager.stop()


@asynccontextmanager
async def network(folder: Path, size: int) -> AsyncIterator[tuple[Member, list[Member]]]:
    """Run a seed, and others that know nobody else; yield both."""
    seed, *others = members = [Member(folder, number) for number in range(size)]
    try:
        await seed.start()
        for member in others:
            await member.start(seed.address)
        yield seed, others
    finally:
        await DeferredList([member.manager.stopService() for member in members if member.manager])
