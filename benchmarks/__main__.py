"""``python -m benchmarks [--json FILE]``: every figure, as a table and as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import channel, whole_process
from benchmarks.report import as_json, show


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    figures = [*channel.measure(), *whole_process.run()]
    show(figures)
    if arguments.json is None:
        print(as_json(figures))
    else:
        arguments.json.write_text(as_json(figures) + "\n")


main()
