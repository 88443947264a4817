"""``stellar-overlay config explain``: what a node would make of its configuration files.

Reads files and options as ``twist stellar-overlay`` does, opens nothing and dials nobody. The
number of connections depends on how many files this process may have open (``ulimit -n``).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig, QuorumSet, Setting, Validator, settings
from stellar_overlay.config_rules import SECRET, Following, thawed
from stellar_overlay.config_table import ConfigTable
from stellar_overlay.node.limit_table import Limit, limits_of, total_bytes
from stellar_overlay.node.limits import connection_limits
from stellar_overlay.option_values import passphrase, version_range
from stellar_overlay.tools.cli import ExitStatus, print_json, shown

_HIDDEN = "(hidden)"
_SEED = re.compile(r"\bS[A-Z2-7]{55}\b")
_MAX_LISTED = 4
"""Entries of a list that fit on a line; of more, their number is shown."""


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Print the effective configuration, the peer plan and the limits.

    :raises ConfigError: when no node would start with it.
    """
    config = read_config(arguments)
    if arguments.json:
        print_json(explanation(config))
    else:
        print("\n".join(shown(_without_seeds(line)) for line in _lines(config)))
    return ExitStatus.DONE


def read_config(arguments: argparse.Namespace) -> OverlayConfig:
    """Return the configuration that a node with these files and options would have.

    :raises ConfigError: naming file or option, key, value and rule.
    """
    config = OverlayConfig.from_toml_files(arguments.files)
    if arguments.network is not None:
        config.override("network_passphrase", passphrase(arguments.network), "option --network")
    if arguments.overlay_version is not None:
        low, high = version_range("--overlay-version", arguments.overlay_version)
        config.override("overlay_min_version", low, "option --overlay-version")
        config.override("overlay_version", high, "option --overlay-version")
    config.add_public_network()
    return config.checked()


def explanation(config: OverlayConfig) -> dict[str, object]:
    """Return what ``--json`` prints of a checked configuration."""
    links = asdict(connection_limits(config))
    del links["warnings"]
    limits = limits_of(config)
    return {
        "settings": {
            row.name: {
                "attribute": row.attribute,
                "value": _value(config, row),
                "source": _source(config, row),
            }
            for row in settings()
        },
        "warnings": _warnings(config),
        "peers": {
            **links,
            "known": list(map(str, config.known_addresses)),
            "preferred": list(map(str, config.preferred_addresses)),
            "preferred_keys": list(map(str, config.preferred_peer_keys)),
            "preferred_only": config.preferred_peers_only,
            "quorum_set": _plain(config.quorum_set),
        },
        "limits": [{**asdict(limit), "total": limit.total} for limit in limits],
        "total_bytes": total_bytes(limits),
    }


# Values and sources.


def _value(config: OverlayConfig, row: Setting) -> object:
    value = getattr(config, row.attribute)
    if row.rule is SECRET:
        return _HIDDEN if value else ""
    return _plain(value)


def _plain(value: object) -> object:
    """Return a value as JSON has it, without any secret seed."""
    if isinstance(value, str):
        return _without_seeds(value)
    if isinstance(value, PeerAddress):
        return str(value)
    if isinstance(value, QuorumSet | Validator):
        value = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(entry) for entry in value]
    return value


def _without_seeds(text: str) -> str:
    """Return a text without what might be a secret seed that strayed into it."""
    return _SEED.sub("S…", text)


def _source(config: OverlayConfig, row: Setting) -> str:
    if row.attribute in config.sources:
        return config.sources[row.attribute]
    if isinstance(vars(ConfigTable).get(row.attribute), Following):
        return f"default: {row.default}"
    default = getattr(OverlayConfig(), row.attribute)
    is_default = thawed(getattr(config, row.attribute)) == default
    return "default" if is_default else "other settings"


def _warnings(config: OverlayConfig) -> list[str]:
    warnings = (*config.warnings, *connection_limits(config).warnings)
    return [_without_seeds(warning) for warning in warnings]


# For people.


def _lines(config: OverlayConfig) -> Iterator[str]:
    yield "Settings"
    for row in settings():
        yield f"  {row.name} = {_brief(_value(config, row))}  ({_source(config, row)})"
    yield ""
    yield "Warnings"
    yield from (f"  {warning}" for warning in _warnings(config) or ["none"])
    yield ""
    yield "Peers"
    yield from (f"  {line}" for line in _peer_plan(config))
    yield ""
    yield "Limits"
    yield from _limit_table(limits_of(config))


def _brief(value: object) -> str:
    """Return a value of JSON on one line; of what is long, how long it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, dict) and "threshold" in value:
        return "see Peers"
    if isinstance(value, list | dict) and (
        len(value) > _MAX_LISTED or any(isinstance(entry, dict) for entry in value)
    ):
        return f"{len(value)} entries"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {name}" for key, name in value.items())
    return str(value)


def _peer_plan(config: OverlayConfig) -> Iterator[str]:
    links = connection_limits(config)
    if config.run_standalone:
        yield "talks to nobody (RUN_STANDALONE)"
    yield f"dials up to {links.target_outbound} peers, keeps up to {links.max_outbound} of them"
    yield f"takes up to {links.max_inbound} peers that dial it" + _listening(config)
    pending = links.max_outbound_pending, links.max_inbound_pending
    yield f"handshakes under way: {pending[0]} dialled, {pending[1]} taken"
    yield from _listed("known", config.known_addresses)
    yield from _listed("preferred", config.preferred_addresses)
    names = [_named(config, str(key)) for key in config.preferred_peer_keys]
    yield from _listed("preferred nodes", names)
    if config.preferred_peers_only:
        yield "no others than the preferred ones"
    if config.quorum_set is None:
        yield "quorum set: none; consensus is what two thirds of all that are heard say"
    else:
        yield "quorum set:"
        yield from (f"  {line}" for line in _quorum_set(config, config.quorum_set))


def _listening(config: OverlayConfig) -> str:
    if config.run_standalone or not config.listen_enabled:
        return ", but does not listen"
    return f", on port {config.listen_port}"


def _listed(what: str, entries: Sequence[object]) -> Iterator[str]:
    yield f"{what}: {len(entries) or 'none'}"
    yield from (f"  {entry}" for entry in entries)


def _quorum_set(config: OverlayConfig, quorum_set: QuorumSet) -> Iterator[str]:
    yield f"{quorum_set.threshold} of {quorum_set.size}:"
    for node in quorum_set.validators:
        yield f"  {_named(config, node)}"
    for inner in quorum_set.inner_sets:
        yield from (f"  {line}" for line in _quorum_set(config, inner))


def _named(config: OverlayConfig, node: str) -> str:
    name = config.node_names.get(node)
    return f"{node} {name}" if name else node


def _limit_table(limits: tuple[Limit, ...]) -> Iterator[str]:
    for limit in limits:
        each, total = (_amount(number, limit.unit) for number in (limit.each, limit.total))
        product = f"{each} x {limit.count:,}" if limit.count > 1 else ""
        yield f"  {limit.meaning:<32}{product:>24}  = {total}" + (" at most" if limit.cap else "")
    total = _amount(total_bytes(limits), "bytes")
    yield f"  {'all bytes that are listed':<56}  = {total}"


def _amount(number: int, unit: str) -> str:
    if unit != "bytes":
        return f"{number:,} {unit}"
    for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            amount = number / size
            return f"{amount:,.0f} {name}" if amount >= 100 else f"{amount:.3g} {name}"
    return f"{number} bytes"
