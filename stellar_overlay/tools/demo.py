"""``stellar-overlay demo``: a network of real nodes on this machine that checks itself.

Real TCP on 127.0.0.1, real keys, real handshakes and flow control, real transactions. Only the
consensus is synthetic: the statements are signed, but whoever proposes is agreed with, and there
is no ledger.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from stellar_overlay import __version__
from stellar_overlay.tools import demo_checks as checks
from stellar_overlay.tools.cli import ExitStatus, print_json
from stellar_overlay.tools.demo_journal import Journal
from stellar_overlay.tools.demo_network import Network
from stellar_overlay.tools.demo_survey import Survey
from stellar_overlay.tools.demo_topology import check_survey, picture
from stellar_overlay.tools.demo_traffic import STEPS_PER_SECOND, Traffic
from stellar_overlay.tools.running import local_node, run_reactor

Checks = dict[str, checks.Check]


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Run the network, print what it does and what it proves."""
    template = local_node(arguments)
    found: Checks = {}

    def say(line: str) -> None:
        if not arguments.json:
            print(line, flush=True)

    async def main(reactor: Any) -> None:
        start = reactor.seconds()
        network = Network(arguments, template, reactor)
        say(
            f"stellar-overlay {__version__} demo: {arguments.nodes} nodes on 127.0.0.1, real TCP,"
            " real keys, signed transactions; the consensus is synthetic, and there is no ledger"
        )
        found.update(await _play(arguments, network, reactor, say))
        for name, check in found.items():
            say(f"{'PASS' if check.ok else 'FAIL'} {name} {check.text}")
        if arguments.json:
            print_json(_figures(found, round(reactor.seconds() - start, 1)))
        if arguments.keep:
            say(f"the network stays up until Ctrl-C; its nodes listen on ports {network.ports}")
            await Deferred()
        await network.stop()

    try:
        run_reactor(main)
    except KeyboardInterrupt:
        if not found:  # there is nothing yet to keep
            raise
    return ExitStatus.DONE if _all_ok(found) else ExitStatus.CHECK_FAILED


async def _play(
    arguments: argparse.Namespace, network: Network, reactor: Any, say: Callable[[str], None]
) -> Checks:
    """Let the nodes find each other and send all there is to send; return what came of it."""
    start = reactor.seconds()
    say(f" one seed node; {arguments.nodes - 1} nodes know its address and nothing else")
    await network.discover()
    discovery = checks.check_discovery(network)
    forger = await network.forge()
    journal = Journal(arguments.nodes, reactor)
    survey = Survey(arguments, network, reactor, lambda line: say(f"          {line}"))
    traffic = Traffic(
        arguments,
        network,
        journal,
        reactor,
        lambda second: say(_progress(second, network, traffic, journal)),
    )
    say(
        f" {len(traffic.validators)} of them vote as synthetic validators, a ledger each"
        f" {traffic.ledger_seconds} s; {STEPS_PER_SECOND} transactions a second, of accounts that"
        " nobody has funded"
    )
    deadline = start + 2 * arguments.seconds
    surveying = Deferred.fromCoroutine(
        survey.run(max(deadline, reactor.seconds() + survey.max_seconds))
    )
    await traffic.run(deadline, lambda: survey.needs_ledgers)
    await surveying
    flood = checks.check_flood(network, traffic, journal)
    pull = checks.check_pull(network, journal)
    fetch = await checks.check_fetch(network, traffic, journal)
    for line in picture(network, survey):
        say(line)
    return {
        "discovery": discovery,
        "flood": flood,
        "pull": pull,
        "fetch": fetch,
        "auth": checks.check_auth(network, forger),
        "flow-control": checks.check_flow_control(network, journal),
        "survey": check_survey(network, survey),
    }


def _progress(second: int, network: Network, traffic: Traffic, journal: Journal) -> str:
    done, wanted = journal.progress
    return (
        f" t={second:>3} s  links {len(network.links)}  ledger {traffic.followed}"
        f"  statements {journal.statements.broadcast}"
        f"  transactions {journal.transactions.broadcast}  tx sets {journal.tx_sets_made}"
        f"  delivered {done} of {wanted}"
    )


def _all_ok(found: Checks) -> bool:
    return all(check.ok for check in found.values())


def _figures(found: Checks, seconds: float) -> dict[str, object]:
    """Return what ``--json`` prints."""
    shown = {name: {"ok": check.ok, **check.figures} for name, check in found.items()}
    return {"ok": _all_ok(found), "checks": shown, "seconds": seconds}
