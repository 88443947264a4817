"""The network of the benchmarks: nodes, and how they are configured."""

from __future__ import annotations

from typing import Any

from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode

PASSPHRASE = "stellar_overlay benchmarks"
"""A network without a quorum set: a node without a ledger relays for any signer there."""


def local_node(seed: bytes | None = None) -> LocalNode:
    """Return a node of the network."""
    return LocalNode(PASSPHRASE, seed)


def overlay_config(**settings: Any) -> OverlayConfig:
    """Return a configuration for the network."""
    return OverlayConfig(network_passphrase=PASSPHRASE, allow_private=True, **settings)
