"""Write ``stellar_overlay/wire/xdr_check.py`` from the XDR that the installed stellar-sdk carries.

``--check`` writes nothing and fails when the committed file is not what would be written.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "stellar_overlay" / "wire" / "xdr_check.py"
sys.path.insert(0, str(ROOT))

from scripts.xdr_check.idl import IdlError  # noqa: E402 - run as a script, see the path above
from scripts.xdr_check.module import generate  # noqa: E402


def main(arguments: list[str]) -> int | str:
    """Write or compare; return 0, or what to say when leaving with 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    options = parser.parse_args(arguments)
    try:
        text = generate()
    except IdlError as error:
        return f"cannot generate {TARGET.name}: {error}"
    if not options.check:
        TARGET.write_text(text)
        return 0
    committed = TARGET.read_text()
    if committed == text:
        return 0
    difference = difflib.unified_diff(
        committed.splitlines(), text.splitlines(), "committed", "generated", lineterm="", n=1
    )
    return "\n".join(
        [f"{TARGET} is stale: run scripts/generate_xdr_check.py", *islice(difference, 20)]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
