"""``stellar-overlay COMMAND``: what a person types first.

Each command is a module of this package, imported only when it is called.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from importlib import import_module
from typing import Any, NoReturn

from stellar_overlay.error import ConfigError, OverlayError

HELP = """\
The Stellar overlay at your fingertips. For example:

  stellar-overlay demo                                a whole network on this machine, in seconds
  stellar-overlay probe core-testnet1.stellar.org     who is there, and would it talk to us?
  stellar-overlay keys new node.seed                  an identity for a node
  twist stellar-overlay --network testnet             run a node
"""


class ExitStatus(IntEnum):
    """What the process ends with."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitStatus.USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        sys.exit(ExitStatus.DONE)
    try:
        command = import_module(f"stellar_overlay.tools.{arguments.command}")
        status = command.run(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        parser.exit(ExitStatus.USAGE, f"{parser.prog} {arguments.command}: {error}\n")
    except OverlayError as error:
        parser.exit(ExitStatus.CHECK_FAILED, f"{parser.prog} {arguments.command}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "\n")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.CHECK_FAILED)
    sys.exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="stellar-overlay",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print it and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    demo = commands.add_parser("demo", help="run a network on this machine that checks itself")
    demo.add_argument("--nodes", type=_at_least(2), default=12, metavar="N", help="[12]")
    demo.add_argument(
        "--seconds", type=_at_least(1), default=20, metavar="S", help="of traffic [20]"
    )
    demo.add_argument(
        "--seed", type=_at_least(0), default=7, metavar="N", help="same keys, same dials [7]"
    )
    demo.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    _common(demo)

    probe = commands.add_parser("probe", help="dial a peer, shake hands, report")
    probe.add_argument("address", metavar="HOST[:PORT]")
    probe.add_argument("--timeout", type=_at_least(1), default=5, metavar="S", help="[5]")
    _common(probe)

    keys = commands.add_parser("keys", help="make or show a node's identity")
    keys.add_argument("action", choices=("new", "show"))
    keys.add_argument("file", metavar="FILE", help="a seed file, mode 0600")
    keys.add_argument("--show-seed", action="store_true", help="print the secret seed, too")
    _common(keys)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network", default="testnet", metavar="NAME", help="testnet, pubnet or a passphrase"
    )
    parser.add_argument(
        "--overlay-version", metavar="MIN..MAX", help="announced and accepted [38..42]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")


def _at_least(low: int) -> Any:
    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < low:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low}, not {text!r}")
        return int(text)

    return number


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from stellar_overlay.tap import version_text  # not light enough for --help

        parser.exit(ExitStatus.DONE, version_text() + "\n")


def print_json(value: object) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value))


def shown(text: str) -> str:
    """Return text from the network as it may go to a terminal: no control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
