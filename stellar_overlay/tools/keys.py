"""``stellar-overlay keys``: make or show an identity."""

from __future__ import annotations

import argparse

from stellar_overlay.identity import LocalNode, create_seed_file, read_seed_file
from stellar_overlay.tap import passphrase
from stellar_overlay.tools.cli import ExitStatus, print_json


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Make a seed file, or read one, and print the node id; the seed only when asked for."""
    make = create_seed_file if arguments.action == "new" else read_seed_file
    seed = make(arguments.file)
    node = LocalNode(passphrase(arguments.network) or "", seed)
    shown = {"node": node.peer_id.strkey, "file": arguments.file}
    if arguments.show_seed:
        shown["seed"] = seed
    if arguments.json:
        print_json(shown)
    else:
        print("\n".join(f"{name}: {value}" for name, value in shown.items()))
    return ExitStatus.DONE
