"""The bans as text beside the database: no ban is lost with it, and it tells whose database it is.

The first line is fixed. Each further line is a ban: ``G…``, or ``G… UNIX_EXPIRY``. The last line
says how often bans were changed, as does the database: the greater number is the newer.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stellar_overlay.error import InvalidKey
from stellar_overlay.identity import PeerId
from stellar_overlay.store.ban_manager import FOR_GOOD, MAX_BANS

FIRST_LINE = "# Bans of the stellar-overlay database beside this file. Do not remove."
_CHANGE = re.compile(r"# change ([0-9]{1,18})")
_MAX_BYTES = 100 * MAX_BANS


@dataclass(frozen=True, kw_only=True)
class ExportedBans:
    """What an export says.

    :ivar change: how many changes of bans it has seen.
    """

    change: int = 0
    bans: Mapping[str, float] = field(default_factory=dict)


def export_path(path: str) -> str:
    """Return where the bans of a database are exported to."""
    return f"{path}.bans"


def read_export(path: str) -> ExportedBans | None:
    """Read the export beside the database ``path``; None when there is none of ours.

    :raises OSError: when it cannot be read.
    """
    try:
        with open(export_path(path), "rb") as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    first, *lines = data.decode("ascii", "replace").splitlines() or [""]
    if first != FIRST_LINE:
        return None
    bans, change = {}, 0
    for line in lines:
        if found := _CHANGE.fullmatch(line):
            change = int(found[1])
        elif ban := _read_line(line):
            bans[ban[0]] = ban[1]
    return ExportedBans(change=change, bans=bans)


def write_export(path: str, exported: ExportedBans) -> None:
    """Replace the export, at once and durably.

    :raises OSError: when it cannot be written, or the file that is there is not ours.
    """
    target = export_path(path)
    if os.path.exists(target) and read_export(path) is None:
        raise OSError(f"{target} is not ours")
    lines = [FIRST_LINE]
    lines += [_as_line(node_id, expiry) for node_id, expiry in sorted(exported.bans.items())]
    lines += [f"# change {exported.change}", ""]
    temporary = f"{target}.tmp"
    try:
        with open(temporary, "w", encoding="ascii") as file:
            file.write("\n".join(lines))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(target)


def sync_folder(path: str) -> None:
    """Make the creation or renaming of ``path`` durable."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _as_line(node_id: str, expiry: float) -> str:
    return node_id if expiry == FOR_GOOD else f"{node_id} {expiry!r}"


def _read_line(line: str) -> tuple[str, float] | None:
    node_id, _, expiry = line.partition(" ")
    try:
        until = float(expiry) if expiry else FOR_GOOD
        return None if math.isnan(until) else (str(PeerId.from_strkey(node_id)), until)
    except (InvalidKey, ValueError):
        return None
