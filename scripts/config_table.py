"""Print the table of all settings as reStructuredText, for the README."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stellar_overlay.config import Setting, settings

_HEADER = ("Key", "Attribute", "Default", "Must be", "Meaning")


def main() -> None:
    """Print one row for each setting."""
    print(".. list-table::\n   :header-rows: 1\n")
    for cells in (_HEADER, *map(_cells, settings())):
        print("   * - " + "\n     - ".join(cells))


def _cells(row: Setting) -> tuple[str, ...]:
    name = f"``{row.name}``" + (" (ours)" if row.ours else "")
    return name, f"``{row.attribute}``", row.default, str(row.rule), row.help


if __name__ == "__main__":
    main()
