"""What a survey is to do, and how it tells where it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_NODES = 1000
"""That are asked unless the user wants more: whoever answers may make up peers."""


class Phase(Enum):
    """What a survey is at."""

    COLLECTING = "collecting"
    SETTLING = "settling"
    REPORTING = "reporting"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done.

    :ivar settle_seconds: for all nodes to hear that the measuring is over.
    :ivar patience_seconds: without news before it is given up.
    :ivar nodes: who is asked in any case, before those that are heard of.
    :ivar max_nodes: that are asked, those of ``nodes`` among them.
    :ivar network: the passphrase that the node must have; None is any.
    """

    nonce: int
    collect_seconds: float
    settle_seconds: float
    patience_seconds: float
    nodes: tuple[str, ...] = ()
    max_nodes: int = MAX_NODES
    network: str | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a survey is.

    :ivar seconds_left: of the phase, if its end is known.
    :ivar asked: nodes that are to answer; ``queued``: those of them whom no request has left for.
    :ivar trouble: what the last request came to, if it failed and is repeated.
    """

    phase: Phase
    seconds_left: float | None = None
    asked: int = 0
    answered: int = 0
    queued: int = 0
    trouble: str | None = None
