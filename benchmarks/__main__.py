"""``python -m benchmarks [GROUP …] [--json FILE] [--profile FILE]``: a table, and JSON."""

from __future__ import annotations

import argparse
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import channel, connector, dense, links, relay, sizes, slow_readers, sparse
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure, as_json, show
from benchmarks.rounds import Options

GROUPS: dict[str, Callable[[Options], Iterator[Figure]]] = {
    "channel": channel.measure,
    "dense": dense.measure,
    "relay": relay.measure,
    "sparse": sparse.measure,
    "sizes": sizes.measure,
    "slow": slow_readers.measure,
    "connector": connector.measure,
    "handshakes": links.measure_handshakes,
    "idle": links.measure_idle,
}
PROFILE_ROWS = 25


def main() -> int:
    """Measure and print; return 1 when a measurement failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(GROUPS)}; all if none"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="profile the node, and show where its time goes; the figures then mean nothing",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.groups) - GROUPS.keys()
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    if arguments.profile is not None:
        arguments.profile.unlink(missing_ok=True)
    figures, failed = _measure(arguments.groups or list(GROUPS), Options(profile=arguments.profile))
    if figures:
        show(figures)
    if arguments.json is not None:
        arguments.json.write_text(as_json(figures) + "\n")
    elif arguments.profile is None:
        print(as_json(figures))
    if arguments.profile is not None and arguments.profile.exists():
        stats = pstats.Stats(str(arguments.profile))
        stats.strip_dirs().sort_stats("tottime").print_stats(PROFILE_ROWS)
    return 1 if failed else 0


def _measure(groups: list[str], options: Options) -> tuple[list[Figure], bool]:
    figures: list[Figure] = []
    failed = False
    for group in groups:
        start = time.monotonic()
        try:
            figures.extend(GROUPS[group](options))
        except BenchmarkError as error:
            failed = True
            print(f"{group}: FAILED\n{error}", file=sys.stderr)
        print(f"{group}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    return figures, failed


sys.exit(main())
