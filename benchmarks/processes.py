"""The parent's end: processes that are measured, and those that load them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class BenchmarkError(Exception):
    """A measurement did not do what it should measure; the text says what went wrong."""


class Child:
    """A process that answers one line with one line; ends with its ``with`` block.

    It starts at once and is waited for only when first used, so that several start together.
    """

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self._greeting: dict[str, Any] | None = None

    @property
    def greeting(self) -> dict[str, Any]:
        """What it says when it is ready."""
        if self._greeting is None:
            self._greeting = self._read()
        return self._greeting

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have it do something; return what it answers.

        :raises BenchmarkError: when it fails or has ended.
        """
        assert self.greeting is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer = dict(json.loads(line))
                if "error" in answer:
                    raise BenchmarkError(answer["error"])
                return answer
        raise BenchmarkError(f"{self._process.args!r} ended with {self._process.wait()}")


class Target(Child):
    """A process that listens and is measured."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.greeting["port"])

    def figures(self) -> dict[str, Any]:
        """Return ``cpu`` seconds, ``reads`` and whatever else it counts."""
        return self.ask("figures")


class Node(Target):
    """A node of ours.

    :param mode: as ``--mode``.
    :param accepts_all: takes every signature for good, so that no verification is measured.
    :param profile: the file to which a profile of it is added in the end.
    """

    def __init__(
        self, *, mode: str = "observe", accepts_all: bool = True, profile: Path | None = None
    ) -> None:
        verifier = "accepting" if accepts_all else "real"
        super().__init__(sys.executable, "-m", "benchmarks.node_process", mode, verifier)
        self._profile = profile

    def start_profile(self) -> None:
        """Profile from now on, if it was asked for."""
        if self._profile is not None:
            self.ask("start_profile")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._profile is not None and error is None:
            self.ask("add_profile", path=str(self._profile))
        super().__exit__(kind, error, where)


class EmptyProtocol(Target):
    """A process that does nothing but the reads, the writes and the crypto of a node."""

    def __init__(self) -> None:
        super().__init__(sys.executable, "-m", "benchmarks.empty_process")


class Load(Child):
    """A process full of peers."""

    def __init__(self) -> None:
        super().__init__(sys.executable, "-m", "benchmarks.load_process")

    def connect(self, target: Target, role: str, count: int = 1) -> None:
        """Connect so many peers of a role of :data:`benchmarks.peers.ROLES`."""
        self.ask("connect", port=target.port, role=role, count=count)
