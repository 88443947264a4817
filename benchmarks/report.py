"""How figures are taken and shown."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``aim`` is in words, ``ok`` whether it is met (None: no aim)."""

    name: str
    value: float
    unit: str
    aim: str = ""
    ok: bool | None = None


def at_most(name: str, value: float, unit: str, limit: float) -> Figure:
    """Return a figure that should not exceed ``limit``."""
    return Figure(name, value, unit, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float) -> Figure:
    """Return a figure that should reach ``limit``."""
    return Figure(name, value, unit, f">= {limit:g}", value >= limit)


def per_item(run: Callable[[], object], items: int) -> float:
    """Return CPU seconds per item of one run."""
    start = time.process_time()
    run()
    return (time.process_time() - start) / items


def ratio(
    measured: Callable[[], object], bare: Callable[[], object], items: int, rounds: int = 25
) -> float:
    """Return how many times dearer ``measured`` is than ``bare``: median of interleaved rounds."""
    return statistics.median(
        per_item(measured, items) / per_item(bare, items) for _ in range(rounds)
    )


def show(figures: Sequence[Figure]) -> None:
    """Print a table."""
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        mark = {None: "", True: "ok", False: "MISSED"}[figure.ok]
        print(
            f"{figure.name:<{width}}  {figure.value:>12,.2f} {figure.unit:<24}"
            f" {figure.aim:<10} {mark}".rstrip()
        )


def as_json(figures: Sequence[Figure]) -> str:
    """Return one JSON object, by name."""
    by_name = {figure.name: asdict(figure) for figure in figures}
    assert len(by_name) == len(figures), "two figures of one name"
    return json.dumps(by_name, indent=1)
