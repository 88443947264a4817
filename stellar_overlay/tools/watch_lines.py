"""What ``stellar-overlay watch`` shows to people: a short line for each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from stellar_overlay.tools.cli import shown
from stellar_overlay.tools.sightings import Event

MAX_NAME = 16
"""Characters of a node's name."""
_SHOWN_HASH = 16
"""Hexadecimal digits of the hash of an item; those of transactions are shown in full."""


class Lines:
    """Turns events into lines.

    :param names: of nodes, by id.
    :param has_scp: whether slots and statements are watched.
    """

    def __init__(self, names: Mapping[str, str], *, has_scp: bool = True) -> None:
        self._names = names
        self._has_scp = has_scp

    def of(self, event: Event) -> str | None:
        """Return the line of an event; None for what is of no interest, such as a duplicate."""
        if event.get("first") is False:
            return None
        match event["kind"]:
            case "slot":
                text = _slot(event)
            case "scp":
                signer = self._name(event["signer"])
                text = (
                    f"{event['slot']:<10} {event['statement']:<11} {signer:<{MAX_NAME}}"
                    f" from {self._name(event['peer'])}"
                )
            case "tx":
                text = self._transaction(event)
            case "txset":
                text = f"{self._item(event)}  {_counted(event['transactions'], 'transaction')}"
            case "qset":
                text = f"{self._item(event)}  {_counted(event['validators'], 'validator')}"
            case "peer.authenticated":
                text = (
                    f"{self._name(event['peer'])} {event['address']} connected:"
                    f" {shown(event['version'])}, overlay {event['overlay_version']},"
                    f" {event['handshake_ms']:.0f} ms"
                )
            case "peer.dropped":
                who = f"{self._name(event['peer'])} " if event["peer"] else ""
                text = f"{who}{event['address']} dropped by {event['by']}: {event['reason']}"
            case _:
                return None
        time = datetime.fromtimestamp(event["ts"], UTC).strftime("%H:%M:%S.%f")[:-3]
        kind = event["kind"].partition(".")[0]
        return shown(f"{time}  {kind:<5}  {text}")

    def of_summary(self, summary: Event) -> Iterator[str]:
        """Yield the lines of the last event."""
        yield (
            f"{summary['seconds']} s: {_counted(summary['messages'], 'message')},"
            f" {summary['unique']} unique, {_counted(summary['duplicates'], 'duplicate')},"
            f" {_counted(summary['transactions'], 'transaction')}"
        )
        if self._has_scp:
            yield _consensus(summary)
        if summary["forged"]:
            yield f"{_counted(summary['forged'], 'SCP message')} with a wrong signature"
        if summary["lost"]:
            yield f"{_counted(summary['lost'], 'line')} lost: not read in time"
        for share in summary["peers"]:
            first = f"{100 * share['share']:.1f} %"
            yield shown(
                f"  {self._name(share['peer']):<{MAX_NAME}} {share['address']:<21}"
                f" first with {first:>7}: {share['first']} of its {share['messages']} messages"
            )

    def _transaction(self, event: Event) -> str:
        text = f"{event['tx_hash']} {event['size']:>6} bytes from {self._name(event['peer'])}"
        if event["pull_ms"] is not None:
            text += f", {event['pull_ms']:.0f} ms after the advert"
            if event["advertised_by"] != event["peer"]:
                text += f" of {self._name(event['advertised_by'])}"
        return text

    def _item(self, event: Event) -> str:
        peer = self._name(event["peer"])
        return f"{event['hash'][:_SHOWN_HASH]} {event['size']:>7} bytes from {peer}"

    def _name(self, node: str) -> str:
        """Return the name of a node, or the first characters of its id, as core's log."""
        return shown(self._names.get(node) or node[:5])[:MAX_NAME]


def _slot(event: Event) -> str:
    text = f"{event['slot']:<10} reached, {_counted(event['validators'], 'validator')} heard"
    if event["seconds"] is not None:
        text += f", {event['seconds']:.1f} s after the last"
    return text


def _consensus(summary: Event) -> str:
    statements = _counted(summary["statements"], "statement")
    text = f"{statements} of {_counted(summary['signers'], 'node')}"
    if summary["slots"]:
        return (
            f"{text}; {_counted(summary['slots'], 'slot')} from {summary['first_slot']} to"
            f" {summary['last_slot']}"
        )
    return f"{text}; no slot was seen to be reached"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
