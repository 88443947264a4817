"""What ``/info`` tells: where the node stands, as far as one without a ledger can know."""

from __future__ import annotations

from datetime import UTC, datetime

from stellar_overlay import __version__
from stellar_overlay.admin.styled import Json
from stellar_overlay.config import QuorumSet
from stellar_overlay.herder.observer import ObserverHerder, SlotSummary
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager

BUILD = f"v{__version__} (stellar-overlay)"
"""Tools read three numbers from it (messages.md 8.2)."""
_NO_HASH = "0" * 64


def info(overlay: OverlayManager, started_at: float) -> dict[str, Json]:
    """Return core's ``/info``; what only a ledger can tell is 0.

    :param started_at: Unix time in seconds.
    """
    node, ledger = overlay.local_node, overlay.herder.tracking_ledger()
    started = datetime.fromtimestamp(int(started_at), UTC)
    return {
        "info": {
            "build": BUILD,
            "protocol_version": node.ledger_version,
            "state": "Synced!" if ledger and overlay.herder.is_tracking() else "Joining SCP",
            "startedOn": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "network": node.network_passphrase,
            "ledger": {
                "num": ledger,
                "hash": _NO_HASH,
                "closeTime": 0,
                "version": 0,
                "baseFee": 0,
                "baseReserve": 0,
                "maxTxSetSize": 0,
                "age": 0,
            },
            "peers": {
                "pending_count": len(overlay.pending_peers()),
                "authenticated_count": len(overlay.peer_infos()),
            },
            "quorum": {"node": overlay.name_of(node.peer_id), "qset": _quorum(overlay)},
        }
    }


def _quorum(overlay: OverlayManager) -> Json:
    """Return how the nodes of our quorum set stand, by what they were heard to say."""
    quorum_set, herder = overlay.config.quorum_set, overlay.herder
    slots = herder.slots() if isinstance(herder, ObserverHerder) else []
    if quorum_set is None or not slots:
        nodes = set() if quorum_set is None else set(quorum_set.nodes)
        return _standing("unknown", missing=len(nodes))
    tracking = herder.tracking_ledger()
    slot = next((slot for slot in slots if slot.slot == tracking), slots[0])
    is_settled = slot.slot == tracking and herder.is_tracking()
    return _of_slot(quorum_set, slot, is_settled=is_settled)


def _of_slot(quorum_set: QuorumSet, slot: SlotSummary, *, is_settled: bool) -> dict[str, Json]:
    nodes = {PeerId.from_strkey(node).key: node for node in quorum_set.nodes}
    agree = {name for key, name in nodes.items() if key in slot.externalized}
    heard = {name for key, name in nodes.items() if key in slot.signers}
    return _standing(
        "EXTERNALIZE" if is_settled else "unknown",
        agree=len(agree),
        delayed=len(heard - agree),
        missing=len(nodes) - len(heard | agree),
        fail_at=fail_at(quorum_set, agree),
    ) | {"ledger": slot.slot}


def _standing(
    phase: str, *, agree: int = 0, delayed: int = 0, missing: int = 0, fail_at: int = 0
) -> dict[str, Json]:
    return {
        "phase": phase,
        "agree": agree,
        "delayed": delayed,
        "disagree": 0,
        "missing": missing,
        "fail_at": fail_at,
    }


def fail_at(quorum_set: QuorumSet, agreeing: set[str]) -> int:
    """Return how many more nodes must fail before a quorum set cannot be satisfied.

    :param agreeing: the nodes that do their part, ``G…``; all others have failed already.
    """
    costs = [int(node in agreeing) for node in quorum_set.validators]
    costs += [fail_at(inner, agreeing) for inner in quorum_set.inner_sets]
    return sum(sorted(costs)[: quorum_set.size - quorum_set.threshold + 1])
