"""``stellar-overlay keys``: make or show an identity."""

from __future__ import annotations

import argparse

from stellar_overlay.error import ConfigError, InvalidKey
from stellar_overlay.identity import create_seed_file, read_seed_file
from stellar_overlay.tools.cli import ExitStatus, print_json, shown
from stellar_overlay.tools.running import local_node


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Make a seed file, or read one, and print the node id; the seed only when asked for."""
    local_node(arguments)  # wrong options leave no file behind
    make = create_seed_file if arguments.action == "new" else read_seed_file
    try:
        seed = make(arguments.file)
    except InvalidKey as error:
        raise ConfigError(str(error)) from None
    found = {"node": local_node(arguments, seed).peer_id.strkey, "file": arguments.file}
    if arguments.show_seed:
        found["seed"] = seed
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(f"{name}: {shown(value)}" for name, value in found.items()))
    return ExitStatus.DONE
