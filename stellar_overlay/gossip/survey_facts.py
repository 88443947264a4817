"""What a node is told about surveys, and what it tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stellar_overlay.error import SurveyRefusal
from stellar_overlay.gossip.survey_data import NodeFacts, SurveyPhase
from stellar_overlay.identity import PeerId


@dataclass(frozen=True, kw_only=True)
class SurveyConfig:
    """Who may survey a node, and what it says of itself.

    :ivar surveyor_keys: if there are any, nobody else may.
    :ivar quorum_nodes: the keys of the configured quorum set, who may where there are none of
        those. Core lets those in as well whom these trust in turn.
    :ivar pause_seconds: between ten requests of ours and the next ten.
    """

    surveyor_keys: frozenset[PeerId] = frozenset()
    quorum_nodes: frozenset[bytes] = frozenset()
    facts: NodeFacts
    pause_seconds: float


class SurveyEvent(NamedTuple):
    """Something that an operator may want to know of.

    :ivar kind: ``collecting``, ``reporting`` or ``inactive``: the phase that has begun;
        ``answered``: we answered a surveyor; ``response``: a node answered us; ``failed``: one of
        these two could not be done.
    :ivar node: who was asked.
    """

    kind: str
    nonce: int | None = None
    surveyor: PeerId | None = None
    node: PeerId | None = None
    reason: SurveyRefusal | None = None


class SurveyManagerStats(NamedTuple):
    """Where surveys stand.

    :ivar seconds_left: until the phase ends by itself.
    :ivar backlog: nodes that wait to be asked by us; ``answered`` and ``bad_responses``: those who
        were.
    """

    phase: SurveyPhase
    nonce: int | None
    surveyor: PeerId | None
    seconds_left: float | None
    backlog: int
    answered: int
    bad_responses: int
    collecting_inbound_peers: int
    collecting_outbound_peers: int
