"""Keep the table of all settings in README.rst as the code has it.

``python scripts/config_table.py`` writes it; ``--check`` exits with 1 when it is not up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stellar_overlay.config import Setting, settings  # noqa: E402 - from this checkout

README = ROOT / "README.rst"
BEGIN = ".. The table of settings is made by scripts/config_table.py.\n\n"
END = "\n.. End of the table of settings.\n"
_HEADER = ("Key", "Attribute", "Default", "Must be", "Meaning")


def table() -> str:
    """Return one row for each setting, as reStructuredText."""
    rows = ["   * - " + "\n     - ".join(cells) for cells in (_HEADER, *map(_cells, settings()))]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *rows]) + "\n"


def updated(text: str) -> str:
    """Return the README with the table as it must be."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + table() + END + rest.split(END)[1]


def main() -> None:
    """Write, or check."""
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        sys.exit(0 if updated(text) == text else "README.rst: run scripts/config_table.py")
    README.write_text(updated(text), encoding="utf-8")


def _cells(row: Setting) -> tuple[str, ...]:
    name = f"``{row.name}``" + (" (ours)" if row.ours else "")
    return name, f"``{row.attribute}``", row.default, str(row.rule), row.help


if __name__ == "__main__":
    main()
