"""What the demo's survey has found: compared with the truth, and as a picture."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from stellar_overlay.identity import PeerId
from stellar_overlay.tools.demo_checks import Check, judged
from stellar_overlay.tools.demo_network import Network
from stellar_overlay.tools.demo_survey import Link, Survey, Told
from stellar_overlay.wire.survey_body import PeerCounters

MAX_NAMED = 3
"""Of whatever is wrong, the first few are named."""
MAX_WIDE_COLUMNS = 25
MAX_COLUMNS = 45
"""Of nodes, as many as fit 100 columns of text."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was told next to what was so.

    Each link has two ends, and each end has told of it or not.

    :ivar silent: the nodes that have not told all they know, if anything.
    :ivar expected: all links that there were; ``missing``: those that an end should have told of;
        ``extra``: what an end has told of that was none.
    :ivar wrong_totals: nodes that miscount their peers.
    :ivar right_ends: how many ends tell what the node itself has counted there; ``wrong_ends``:
        what others tell, in words.
    """

    silent: Sequence[PeerId]
    expected: Sequence[Link]
    missing: Sequence[Link]
    extra: Sequence[Link]
    wrong_totals: Sequence[PeerId]
    right_ends: int
    wrong_ends: Sequence[str]

    @property
    def matching(self) -> int:
        """How many links are as both ends say."""
        return len({*self.expected} - {*self.missing} - {*self.extra})


def compare(nodes: Sequence[PeerId], survey: Survey) -> Comparison:
    """Compare what each node has told with what was so."""
    expected: dict[Link, None] = {}
    missing: dict[Link, None] = {}
    extra: dict[Link, None] = {}
    silent, wrong_totals = [], []
    figures: list[str] = []
    for node in nodes:
        told, truth = survey.told.get(node, Told()), survey.truth.links(node)
        links = told.links(node)
        expected.update(dict.fromkeys(truth))
        missing.update(dict.fromkeys(truth.keys() - links.keys()))
        extra.update(dict.fromkeys(links.keys() - truth.keys()))
        if not told.is_complete:
            silent.append(node)
        if told.node is not None and _totals(told) != _degrees(node, truth):
            wrong_totals.append(node)
        figures += [
            _difference(node, link, links[link].counters, truth[link])
            for link in truth.keys() & links.keys()
        ]
    return Comparison(
        silent=silent,
        expected=sorted(expected),
        missing=sorted(missing),
        extra=sorted(extra),
        wrong_totals=wrong_totals,
        right_ends=figures.count(""),
        wrong_ends=sorted(filter(None, figures)),
    )


def check_survey(network: Network, survey: Survey) -> Check:
    """Every node has told the surveyor of its links as they were, and of none that was not."""
    nodes = _ids(network)
    found = compare(nodes, survey)
    answered, links = len(nodes) - len(found.silent), len(found.expected)
    written, read = _count_messages(survey)
    ends = found.right_ends + len(found.wrong_ends)
    expected = {
        f"all nodes{_but([node.short for node in found.silent])}": not found.silent,
        f"all links{_but(list(map(_arrow, found.missing)))}": not found.missing and links > 0,
        f"none made up{_but(list(map(_arrow, found.extra)))}": not found.extra,
        f"the right totals{_but([node.short for node in found.wrong_totals])}": (
            not found.wrong_totals
        ),
        f"the nodes' own figures{_but(found.wrong_ends)}": not found.wrong_ends,
    }
    text = (
        f"{answered}/{len(nodes)} nodes answered, {found.matching}/{links} links match, both ways"
        f" and at both ends, {len(found.extra)} made up; the figures of"
        f" {found.right_ends}/{ends} link ends are those of the nodes' own counters, {written}"
        f" messages written among them; {survey.collect_seconds:.1f} s of collecting, all told"
        f" {survey.seconds:.1f} s after the start"
    )
    figures = {
        "nodes": len(nodes),
        "answered": answered,
        "edges": found.matching,
        "expected": links,
        "missing": len(found.missing),
        "extra": len(found.extra),
        "ends": ends,
        "ends_wrong": len(found.wrong_ends),
        "totals_wrong": len(found.wrong_totals),
        "messages_written": written,
        "messages_read": read,
        "collecting_seconds": round(survey.collect_seconds, 1),
        "seconds": round(survey.seconds, 1),
    }
    return judged(text, expected, figures)


def picture(network: Network, survey: Survey) -> Iterator[str]:
    """Yield the surveyed network as a table: each row is what one node has told."""
    nodes = _ids(network)
    has_columns = len(nodes) <= MAX_COLUMNS
    numbers = [f"{number:>{len(str(len(nodes)))}}" for number in range(1, len(nodes) + 1)]
    yield " what each node told the surveyor of its links" + (
        ":  > it dialled that one  < was dialled by it" if has_columns else ":"
    )
    titles = "   in  out  median ms  answered"
    margin = f" {numbers[-1]} {nodes[-1].short}  "
    *upper, last = [_spread(digits) if has_columns else "" for digits in zip(*numbers, strict=True)]
    for line in upper if has_columns else ():
        yield f"{'':{len(margin)}}{line}".rstrip()
    yield f"{'':{len(margin)}}{last}{titles}"
    for number, node in zip(numbers, nodes, strict=True):
        cells = _spread(_cells(node, nodes, survey)) if has_columns else ""
        yield f" {number} {node.short}  {cells}{_summary(node, network, survey)}"
    found = compare(nodes, survey)
    if has_columns and (found.missing or found.extra):
        yield " ! is a link that the node has not told of, ? one that it has told of and not had"


def _cells(node: PeerId, nodes: Sequence[PeerId], survey: Survey) -> Iterator[str]:
    """Yield what a node has told of each node; ``!`` is what it left out, ``?`` what is not so."""
    told, truth = survey.told.get(node, Told()).links(node), survey.truth.links(node)
    for other in nodes:
        dialled, was_dialled = (node, other), (other, node)
        if {dialled, was_dialled} & (truth.keys() - told.keys()):
            yield "!"
        elif {dialled, was_dialled} & (told.keys() - truth.keys()):
            yield "?"
        elif dialled in told:
            yield ">"
        elif was_dialled in told:
            yield "<"
        else:
            yield "\\" if other == node else "."


def _summary(node: PeerId, network: Network, survey: Survey) -> str:
    """Return the last columns: how many links each way, and how long they take."""
    told = survey.told.get(node, Told())
    latencies = [peer.average_latency_ms for peer in told.links(node).values()]
    latency = f"{median(latencies):.0f}" if latencies else "-"
    if node == network.surveyor.local_node.peer_id:
        answered = "asks" if told.is_complete else "NO"
    else:
        answered = "yes" if told.is_complete else "NO"
    return f"  {len(told.inbound):>3}  {len(told.outbound):>3}  {latency:>9}  {answered}"


def _spread(characters: Iterable[str]) -> str:
    """Return a row of cells: each on its own, or in groups of five where there are many."""
    row = "".join(characters)
    if len(row) <= MAX_WIDE_COLUMNS:
        return " ".join(row)
    return " ".join(row[index : index + 5] for index in range(0, len(row), 5))


def _ids(network: Network) -> list[PeerId]:
    return [node.local_node.peer_id for node in network.nodes]


def _totals(told: Told) -> tuple[int, int]:
    assert told.node is not None
    return told.node.total_inbound_peers, told.node.total_outbound_peers


def _degrees(node: PeerId, links: Collection[Link]) -> tuple[int, int]:
    outbound = sum(dialler == node for dialler, _ in links)
    return len(links) - outbound, outbound


def _difference(node: PeerId, link: Link, told: PeerCounters, truth: PeerCounters) -> str:
    """Say what a node has told wrongly of a link, if anything."""
    for name, said, counted in zip(PeerCounters._fields, told, truth, strict=True):
        if said != counted:
            return f"{node.short} of {_arrow(link)}: {name} {counted}, not {said}"
    return ""


def _count_messages(survey: Survey) -> tuple[int, int]:
    """Return how many messages the nodes say they have written and read."""
    counters = [
        peer.counters for node, told in survey.told.items() for peer in told.links(node).values()
    ]
    return (
        sum(counter.messages_written for counter in counters),
        sum(counter.messages_read for counter in counters),
    )


def _arrow(link: Link) -> str:
    dialler, dialled = link
    return f"{dialler.short} -> {dialled.short}"


def _but(names: Sequence[str]) -> str:
    """Say which ones are not so, if there are any."""
    if not names:
        return ""
    rest = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f", but {', '.join(names[:MAX_NAMED])}{rest}"
