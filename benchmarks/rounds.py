"""One target under load, round by round, each between two looks at what the bare HMAC takes now."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.bare import BareHmac
from benchmarks.processes import BenchmarkError, Load, Node, Target

STEADY = 12_800
"""Messages after which a node forgets one for each that is new, as it does after hours."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says to every group."""

    profile: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round took. ``bare_seconds`` is the CPU time of one bare HMAC around it."""

    cpu_seconds: float
    wall_seconds: float
    load_cpu_seconds: float
    received: int
    sent: int
    reads: int
    bare_seconds: float

    @property
    def message_seconds(self) -> float:
        """CPU seconds per message received or sent."""
        return self.cpu_seconds / (self.received + self.sent)

    @property
    def ratio(self) -> float:
        """Bare HMACs that a message costs."""
        return self.message_seconds / self.bare_seconds

    @property
    def messages_per_read(self) -> float:
        """How many messages a read brings."""
        return self.received / self.reads


def median(rounds: Sequence[Round], attribute: str) -> float:
    """Return the median of a figure."""
    return statistics.median(float(getattr(one, attribute)) for one in rounds)


class Rig:
    """A target and its load; both end with the ``with`` block.

    :param peers: how many of each role of :data:`benchmarks.peers.ROLES`.
    :param kind: of :data:`benchmarks.bodies.KINDS`.
    """

    def __init__(self, target: Target, peers: dict[str, int], kind: str = "prepare") -> None:
        self.target = target
        self.load = Load()
        self._peers = peers
        self._kind = kind
        self._next = 0

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            exits.enter_context(self.load)
            exits.enter_context(self.target)
            self._bare = BareHmac(self._kind)
            for role, count in self._peers.items():
                self.load.connect(self.target, role, count)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._exits.__exit__(kind, error, where)

    def warm_up(self, count: int = 400) -> None:
        """Let tables grow and code be compiled; from then on it counts."""
        self.round(count)
        if isinstance(self.target, Node):
            self.target.start_profile()

    def round(self, count: int, *, spacing: float = 0.0) -> Round:
        """Have every sender send the next ``count`` bodies, a multiple of 40.

        :param spacing: seconds between two messages of a sender; 0 is as fast as credit allows.
        :raises BenchmarkError: when the target drops a link, or loses or repeats anything.
        """
        assert count % 40 == 0, "all credit comes back only at the end of a batch"
        self.load.ask("prepare", kind=self._kind, first=self._next, count=count)
        self._next += count
        bare = self._bare.seconds()
        before = self.target.figures()
        run = self.load.ask("run", spacing=spacing)
        after = self.target.figures()
        bare = (bare + self._bare.seconds()) / 2
        if after.get("drops"):
            raise BenchmarkError(f"the node dropped a peer: {after['drops']}")
        return Round(
            cpu_seconds=after["cpu"] - before["cpu"],
            wall_seconds=run["seconds"],
            load_cpu_seconds=run["cpu"],
            received=run["sent"],
            sent=run["heard"],
            reads=after["reads"] - before["reads"],
            bare_seconds=bare,
        )

    def rounds(self, number: int, count: int, *, warm_up: int = 400) -> list[Round]:
        """Warm up with so many messages, and return so many rounds."""
        self.warm_up(warm_up)
        return [self.round(count) for _ in range(number)]
