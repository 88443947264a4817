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
from typing import NoReturn, TypeAlias

from stellar_overlay.error import ConfigError, ConnectionFailed, OverlayError

HELP = """\
The Stellar overlay at your fingertips. For example:

  stellar-overlay demo                                a whole network on this machine, in seconds
  stellar-overlay probe core-testnet1.stellar.org     who is there, and would it talk to us?
  stellar-overlay watch --seconds 60                  consensus and transactions as they happen
  stellar-overlay submit AAAAAgAAAAC…                 send a signed transaction, without Horizon
  stellar-overlay survey --admin http://127.0.0.1:11626
                                                      who is linked to whom in the network
  stellar-overlay keys new node.seed                  an identity for a node
  stellar-overlay config explain node.cfg             what a node makes of its configuration
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


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


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
        if os.environ.get("STELLAR_OVERLAY_LOG"):  # or else nothing is loaded for it
            import_module("stellar_overlay.log_levels").show_if_wanted()
        command = import_module(f"stellar_overlay.tools.{arguments.module or arguments.command}")
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
    parser.set_defaults(module=None)  # that of the command's own name
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

    _add_watch(commands)
    _add_submit(commands)
    _add_survey(commands)

    keys = commands.add_parser("keys", help="make or show a node's identity")
    keys.add_argument("action", choices=("new", "show"))
    keys.add_argument("file", metavar="FILE", help="a seed file, mode 0600")
    keys.add_argument("--show-seed", action="store_true", help="print the secret seed, too")
    _common(keys)

    config = commands.add_parser("config", help="tell what a node makes of its configuration")
    config.add_argument("action", choices=("explain",))
    config.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="as --config of the node; without any, its defaults",
    )
    _common(config, network="the files', or testnet")
    config.set_defaults(module="explain")
    return parser


def _add_watch(commands: _Commands) -> None:
    watch = commands.add_parser("watch", help="follow slots, statements and transactions")
    _peers(watch)
    watch.add_argument("--scp", action="store_true", help="slots and statements, and their items")
    watch.add_argument("--tx", action="store_true", help="transactions; neither of the two is both")
    watch.add_argument(
        "--seconds",
        type=_whole(1, 366 * 86_400),
        metavar="S",
        help="how long, from the first contact on [until Ctrl-C]",
    )
    watch.add_argument(
        "--allow-private",
        action="store_true",
        help="also follow names to private addresses, and dial those that peers share",
    )
    _common(watch, output="a JSON object per event, the last one a summary, and nothing else")


def _add_submit(commands: _Commands) -> None:
    submit = commands.add_parser("submit", help="push a signed transaction through the overlay")
    submit.add_argument(
        "envelope", metavar="ENVELOPE", help="a TransactionEnvelope in base64, or - to read it"
    )
    _peers(submit)
    submit.add_argument(
        "--peers",
        type=_whole(1, 100),
        metavar="N",
        help="how many to connect to [3, or all that --peer names]",
    )
    submit.add_argument(
        "--seconds",
        type=_whole(1, 3600),
        default=10,
        metavar="S",
        help="how long peers may take to ask for it [10]",
    )
    submit.add_argument(
        "--force", action="store_true", help="send it even if it looks as if nobody would take it"
    )
    _common(submit)


def _add_survey(commands: _Commands) -> None:
    survey = commands.add_parser("survey", help="have a node survey the network")
    survey.add_argument(
        "--admin",
        required=True,
        metavar="URL",
        help="the admin HTTP of the node that does it, ours or stellar-core's:"
        " http://127.0.0.1:11626",
    )
    survey.add_argument(
        "--nonce", type=_whole(0, 2**32 - 1), metavar="N", help="of the survey [random]"
    )
    survey.add_argument(
        "--collect",
        type=_whole(1, 1800),
        default=300,
        metavar="SECONDS",
        help="how long nodes measure [300]",
    )
    survey.add_argument(
        "--settle",
        type=_whole(0, 600),
        metavar="SECONDS",
        help="for all nodes to hear that it is over [a tenth of --collect, 3 to 60]",
    )
    survey.add_argument(
        "--patience",
        type=_whole(1, 3600),
        default=120,
        metavar="SECONDS",
        help="without any answer before those who are silent are given up [120]",
    )
    survey.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="G…",
        help="ask this one in any case, may be repeated [whoever is heard of]",
    )
    survey.add_argument(
        "--max-nodes",
        type=_whole(1, 20_000),
        default=1000,
        metavar="N",
        help="ask no more, whoever is named; those of --node come first [1000]",
    )
    survey.add_argument("--output", metavar="FILE", help="write the answers, merged, as JSON")
    survey.add_argument("--graphml", metavar="FILE", help="write the graph, as GraphML")
    _common(survey, network="whatever the node's is")


def _peers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="HOST[:PORT]",
        help="whom to connect to, may be repeated [who is well known in the network]",
    )


def _common(
    parser: argparse.ArgumentParser,
    network: str | None = None,
    output: str = "one JSON object and nothing else",
) -> None:
    """Add the options that all commands take.

    :param network: in words, when ``--network`` has a default that is found out later.
    :param output: what ``--json`` prints.
    """
    parser.add_argument(
        "--network",
        default=None if network else "testnet",
        metavar="NAME",
        help=f"testnet, pubnet or a passphrase [{network or 'testnet'}]",
    )
    parser.add_argument(
        "--overlay-version", metavar="MIN..MAX", help="announced and accepted [38..42]"
    )
    parser.add_argument("--json", action="store_true", help=output)


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
