"""``stellar-overlay survey``: a whole time-sliced survey through a node's admin HTTP.

The node, ours or stellar-core, is the surveyor: this only tells it what to do, and puts together
what it gets.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
import tempfile
from typing import Any

from stellar_overlay.error import ConfigError, InvalidKey
from stellar_overlay.identity import PeerId
from stellar_overlay.option_values import passphrase, write_atomically
from stellar_overlay.tools.admin_client import AdminClient, AdminError, AdminRefused, admin_url
from stellar_overlay.tools.cli import ExitStatus, print_json, shown
from stellar_overlay.tools.running import run_reactor
from stellar_overlay.tools.survey_admin import SurveyAdmin
from stellar_overlay.tools.survey_flow import SurveyFlow
from stellar_overlay.tools.survey_graph import graph_of, graphml_of
from stellar_overlay.tools.survey_plan import Plan, Progress
from stellar_overlay.tools.survey_table import lines, progress_line

MIN_SETTLE_SECONDS = 3
MAX_SETTLE_SECONDS = 60
"""For the STOP to spread: a tenth of the measuring, within these (core's script takes 60 s)."""


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Survey, write the files and print the table; also when it ended early, as far as it came."""
    url = admin_url(arguments.admin)
    plan = plan_of(arguments)
    for name in _files(arguments):
        try:
            _check_place(name)
        except OSError as error:
            return _cannot_write(name, error)
    surveys: list[SurveyFlow] = []
    try:
        _survey(url, plan, surveys, _Printer(is_silent=arguments.json))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what there is shall be delivered whole
        _deliver_part(surveys, plan, arguments)
        raise
    except AdminError as error:
        _complain(str(error))
        _deliver_part(surveys, plan, arguments)
        is_refusal = isinstance(error, AdminRefused)
        return ExitStatus.REFUSED if is_refusal else ExitStatus.UNREACHABLE
    status = _deliver(surveys[0], plan, arguments)
    if surveys[0].is_cut_off:
        _complain("the node has ended the run: somebody stopped the survey there, or the node")
    is_done = surveys[0].answered and not surveys[0].is_cut_off
    return status if is_done else ExitStatus.CHECK_FAILED


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return what the options ask for.

    :raises ConfigError: naming the option that is wrong.
    """
    collect = arguments.collect
    settle = arguments.settle
    if settle is None:
        settle = min(MAX_SETTLE_SECONDS, max(MIN_SETTLE_SECONDS, collect / 10))
    try:
        nodes = tuple(PeerId.from_strkey(node).strkey for node in arguments.node)
    except InvalidKey as error:
        raise ConfigError(f"--node: {error}") from None
    network = None if arguments.network is None else passphrase(arguments.network)
    if network == "":
        raise ConfigError("--network: must be testnet, pubnet or a passphrase, not ''")
    names = _files(arguments)
    if "" in names:
        raise ConfigError("--output and --graphml: must name a file, not ''")
    if len({os.path.realpath(name) for name in names}) < len(names):
        raise ConfigError("--graphml: is the file of --output, too; name two")
    return Plan(
        nonce=secrets.randbelow(2**32) if arguments.nonce is None else arguments.nonce,
        collect_seconds=collect,
        settle_seconds=settle,
        patience_seconds=arguments.patience,
        nodes=nodes,
        max_nodes=arguments.max_nodes,
        network=network,
    )


def report(survey: SurveyFlow, plan: Plan) -> dict[str, object]:
    """Return what ``--json`` prints."""
    return {
        "nonce": plan.nonce,
        "seconds": round(survey.collected_seconds, 1),
        "surveyor": None if survey.surveyor is None else survey.surveyor.node,
        "nodes": dict(survey.results),
        "silent": survey.silent,
        "bad": survey.bad,
        "not_asked": survey.not_asked,
        "edges": survey.results.edge_count(),
    }


def _survey(url: str, plan: Plan, surveys: list[SurveyFlow], printer: _Printer) -> None:
    """Run the reactor until a survey is over, and leave it in ``surveys``, whatever comes of it."""

    async def main(reactor: Any) -> None:
        survey = SurveyFlow(SurveyAdmin(AdminClient(url, reactor)), reactor, plan, printer.note)
        surveys.append(survey)
        reactor.addSystemEventTrigger("before", "shutdown", survey.stop)
        await survey.run()

    run_reactor(main)


class _Printer:
    """Says on stderr how far a survey is, each thing once."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent or sys.stderr is None
        self._last = ""

    def note(self, progress: Progress) -> None:
        """Print a line, if it says anything new."""
        line = progress_line(progress)
        if line != self._last and not self._is_silent:
            print(line, file=sys.stderr, flush=True)
        self._last = line


def _deliver(survey: SurveyFlow, plan: Plan, arguments: argparse.Namespace) -> ExitStatus:
    """Write the files, then print; all that there is, however the survey ended."""
    status = ExitStatus.DONE
    written = []
    for name, text_of in ((arguments.output, _json_text), (arguments.graphml, _graphml_text)):
        if name is not None:
            try:
                write_atomically(os.path.realpath(name), text_of(survey))
                written.append(name)
            except OSError as error:
                status = _cannot_write(name, error)
    if arguments.json:
        print_json(report(survey, plan))
        return status
    print("\n".join(lines(survey)))
    for name in written:
        print(f"written       {shown(name)}")
    return status


def _deliver_part(surveys: list[SurveyFlow], plan: Plan, arguments: argparse.Namespace) -> None:
    """Deliver what there is of a survey that ended early, and say what stays in the network."""
    if surveys and surveys[0].is_started:
        how = "go on" if surveys[0].is_start_certain else "may go on"
        _complain(
            f"the nodes {how} with this survey until it ends by itself, within 3 h 30 min, "
            "and take part in no other"
        )
    if surveys and surveys[0].is_reporting:
        _deliver(surveys[0], plan, arguments)


def _files(arguments: argparse.Namespace) -> list[str]:
    """Return the files to be written."""
    return [name for name in (arguments.output, arguments.graphml) if name is not None]


def _json_text(survey: SurveyFlow) -> str:
    return json.dumps(dict(survey.results)) + "\n"


def _graphml_text(survey: SurveyFlow) -> str:
    assert survey.surveyor is not None, "nothing is delivered before that is known"
    counts = len(survey.links.inbound), len(survey.links.outbound)
    return graphml_of(graph_of(survey.results, survey.surveyor, counts))


def _check_place(name: str) -> None:
    """See whether a file can be put there.

    :raises OSError: when it cannot, or what is there is no file.
    """
    path = os.path.realpath(name)
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(0, "is not a regular file")
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), prefix=".stellar-overlay-"):
        pass


def _cannot_write(name: str, error: OSError) -> ExitStatus:
    _complain(f"{name}: cannot be written: {error.strerror or error}")
    return ExitStatus.CHECK_FAILED


def _complain(text: str) -> None:
    print(shown(f"stellar-overlay survey: {text}"), file=sys.stderr)
