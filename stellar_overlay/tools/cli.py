"""``stellar-overlay COMMAND``: what a person types first.

Each command is a module of this package, imported only when it is called.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

from stellar_overlay.error import ConfigError, ConnectionFailed, OverlayError

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
    INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitStatus.USAGE, f"{self.prog}: {message}; try {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status."""
    if isinstance(sys.stdout, TextIOWrapper):  # what a terminal cannot show it gets as a number
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            status = _run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        status = ExitStatus.INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"stellar-overlay: {error}", file=sys.stderr)
        if sys.stdout is not None:  # or else Python tries again, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = ExitStatus.CHECK_FAILED
    sys.exit(status)


def _run(argv: Sequence[str] | None) -> ExitStatus:
    """Run a command and return its status; what is wrong with it is said in one line."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return ExitStatus.DONE
    try:
        command = import_module(f"stellar_overlay.tools.{arguments.command}")
        status: ExitStatus = command.run(arguments)
    except OverlayError as error:
        print(shown(f"{parser.prog} {arguments.command}: {error}"), file=sys.stderr)
        if isinstance(error, ConfigError):
            return ExitStatus.USAGE
        if isinstance(error, ConnectionFailed):
            return ExitStatus.UNREACHABLE
        return ExitStatus.CHECK_FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="stellar-overlay",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_PrintVersion, nargs=0, help="print it and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    demo = commands.add_parser("demo", help="run a network on this machine that checks itself")
    demo.add_argument("--nodes", type=_whole(2, 100), default=12, metavar="N", help="how many [12]")
    demo.add_argument(
        "--seconds",
        type=_whole(1, 86_400),
        default=20,
        metavar="S",
        help="of traffic, after some 5 s for the nodes to find each other [20]",
    )
    demo.add_argument(
        "--seed",
        type=_whole(0, 2**64),
        default=7,
        metavar="N",
        help="same keys, same dials with the same seed [7]",
    )
    demo.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    _common(demo)

    probe = commands.add_parser("probe", help="dial a peer, shake hands, report")
    probe.add_argument("address", metavar="HOST[:PORT]", help="port 11625 if none is given")
    probe.add_argument(
        "--timeout",
        type=_whole(1, 3600),
        default=5,
        metavar="S",
        help="seconds to wait for an answer, and again for the handshake [5]",
    )
    _common(probe)

    keys = commands.add_parser("keys", help="make or show a node's identity")
    keys.add_argument("action", choices=("new", "show"))
    keys.add_argument("file", metavar="FILE", help="a seed file, mode 0600")
    keys.add_argument("--show-seed", action="store_true", help="print the secret seed, too")
    _common(keys)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--network",
        default="testnet",
        metavar="NAME",
        help="testnet, pubnet or a passphrase [testnet]",
    )
    parser.add_argument(
        "--overlay-version", metavar="MIN..MAX", help="announced and accepted [38..42]"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(high))
        if not (is_number and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, not {text!r}"
            )
        return int(text)

    return number


class _PrintVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from stellar_overlay.option_values import version_text  # not light enough for --help

        print(version_text())
        parser.exit(ExitStatus.DONE)


def print_json(value: object) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value), flush=True)


def shown(text: str) -> str:
    """Return text from the network as it may go to a terminal: no control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
