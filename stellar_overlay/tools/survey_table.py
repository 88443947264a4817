"""What ``stellar-overlay survey`` shows to people: progress, a table, figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stellar_overlay.tools.cli import shown
from stellar_overlay.tools.survey_flow import SurveyFlow
from stellar_overlay.tools.survey_plan import Phase, Progress

MAX_VERSION = 28
"""Characters of a version."""
SHORT_ID = 5
"""Characters of a node id, as stellar-core shows it; more, where two nodes share these."""

_HEAD = (
    *("node", "version", "in", "out", "max in", "max out", "added", "dropped"),
    *("p75 to self", "p75 to other", "lost sync", "answered"),
)
_FIELDS = (
    *("numTotalInboundPeers", "numTotalOutboundPeers"),
    *("maxInboundPeerCount", "maxOutboundPeerCount"),
    *("addedAuthenticatedPeers", "droppedAuthenticatedPeers"),
    *("p75SCPFirstToSelfLatencyMs", "p75SCPSelfToOtherLatencyMs", "lostSyncCount"),
)
_LEFT = (0, 1, len(_HEAD) - 1)
"""Columns of words, not numbers."""


def progress_line(progress: Progress) -> str:
    """Return a line about where a survey is."""
    left = duration(progress.seconds_left or 0)
    if progress.trouble is not None:
        return f"{progress.phase.value}: {shown(progress.trouble)}"
    if progress.phase is Phase.COLLECTING:
        return f"collecting: {left} left"
    if progress.phase is Phase.SETTLING:
        return f"settling: {left} for all nodes to hear that it is over"
    queued = f", {progress.queued} not asked yet" if progress.queued else ""
    return f"reporting: {progress.answered} of {progress.asked} nodes have answered{queued}"


def lines(survey: SurveyFlow) -> Iterator[str]:
    """Yield the table of all nodes, and what they come to."""
    rows = [_HEAD, *_rows(survey)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.ljust(width) if index in _LEFT else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
    yield ""
    latency = survey.results.mean_latency_ms()
    silent = f", {len(survey.silent)} silent" if survey.silent else ""
    bad = f", {len(survey.bad)} unreadable" if survey.bad else ""
    yield f"nodes         {len(rows) - 1}: {len(survey.answered)} answered{silent}{bad}"
    if survey.not_asked:
        yield f"not asked     {survey.not_asked} more that others named"
    yield f"edges         {survey.results.edge_count()}"
    yield f"mean latency  {'unknown' if latency is None else f'{latency:.0f} ms'}"


def duration(seconds: float) -> str:
    """Return a time in words."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def _rows(survey: SurveyFlow) -> Iterator[tuple[str, ...]]:
    nodes = sorted({*survey.results, *survey.silent, *survey.bad})
    versions = survey.results.versions()
    if survey.surveyor is not None:
        versions.setdefault(survey.surveyor.node, survey.surveyor.build)
    length = _short_length(nodes)
    for node in nodes:
        fields = survey.results.get(node, {})
        version = shown(versions.get(node, "?"))
        yield (
            node[:length],
            version if len(version) <= MAX_VERSION else f"{version[: MAX_VERSION - 1]}…",
            *(str(fields.get(name, "-")) for name in _FIELDS),
            _verdict(survey, node),
        )


def _verdict(survey: SurveyFlow, node: str) -> str:
    """Say whether a node has answered."""
    if survey.surveyor is not None and node == survey.surveyor.node:
        return "the surveyor"
    if node in survey.bad:
        return "unreadable"
    if node not in survey.results:
        return "silent"
    return "yes" if survey.results.is_complete(node) else "in part"


def _short_length(nodes: Sequence[str]) -> int:
    """Return how many characters tell ids apart."""
    length = SHORT_ID
    while len({node[:length] for node in nodes}) < len(nodes):
        length += 1
    return length
