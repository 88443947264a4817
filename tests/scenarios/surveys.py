"""What the scenarios of surveys are made of: signed messages, a surveyor with a script, nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stellar_overlay.error import DropReason, ErrorCode, SurveyRefusal
from stellar_overlay.gossip.survey_data import SurveyPhase
from stellar_overlay.gossip.survey_facts import SurveyEvent
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import PeerInfo
from stellar_overlay.wire.message import Message, MessageType, pack_opaque
from stellar_overlay.wire.survey_body import (
    PeerCounters,
    Sign,
    SurveyKeys,
    TopologyResponse,
    decode_request,
    decode_response,
    decode_topology,
    encode_collecting,
    encode_request,
    encode_response,
)
from tests.scenarios.traffic import Neighbour, TrafficTestCase, a_hash, externalized, validator

START = MessageType.TIME_SLICED_SURVEY_START_COLLECTING
STOP = MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING
REQUEST = MessageType.TIME_SLICED_SURVEY_REQUEST
RESPONSE = MessageType.TIME_SLICED_SURVEY_RESPONSE
SURVEY = (START, STOP, REQUEST, RESPONSE)

INACTIVE, COLLECTING, REPORTING = SurveyPhase
INVALID = (ErrorCode.ERR_MISC, b"Survey has invalid signature")
NONCE = 0xDEADBEEF
SIGNED_AT = 72
"""Where what is signed begins, behind a signature of 64 bytes."""
COMMAND_AT = 180
BODY_AT = 152
"""Where the length of a response's sealed body is."""
KEYS = SurveyKeys(a_hash("the keys of a run"))


# What is said.


def collecting(
    kind: MessageType,
    by: LocalNode,
    *,
    nonce: int = NONCE,
    ledger: int = 0,
    sign: Sign | None = None,
) -> Message:
    """Return a START or STOP.

    :param sign: forges the signature, if it is not ``by`` who signs.
    """
    return Message(
        encode_collecting(
            kind, surveyor=by.peer_id.key, nonce=nonce, ledger_num=ledger, sign=sign or by.sign
        )
    )


def request(
    by: LocalNode,
    of: PeerId,
    *,
    nonce: int = NONCE,
    ledger: int = 0,
    pages: tuple[int, int] = (0, 0),
    key: bytes = KEYS.public,
    sign: Sign | None = None,
) -> Message:
    """Return a REQUEST."""
    return Message(
        encode_request(
            surveyor=by.peer_id.key,
            surveyed=of.key,
            ledger_num=ledger,
            encryption_key=key,
            nonce=nonce,
            inbound_index=pages[0],
            outbound_index=pages[1],
            sign=sign or by.sign,
        )
    )


def response(
    to: Message, by: LocalNode, *, body: bytes = bytes(100), sign: Sign | None = None
) -> Message:
    """Return the RESPONSE of a node to a REQUEST; its sealed body is rubbish unless given."""
    return Message(encode_response(decode_request(to.body), body, sign or by.sign))


def signed_anew(message: Message, by: LocalNode, at: int, part: bytes, end: int = 0) -> Message:
    """Return a message of which the bytes from ``at`` to ``end`` are others, signed again."""
    body = message.body
    inner = body[SIGNED_AT:at] + part + body[end or at + len(part) :]
    return Message(body[:4] + pack_opaque(by.sign(inner)) + inner)


def with_body_of(to: Message, by: LocalNode, size: int) -> Message:
    """Return a RESPONSE with a sealed body of any size, too long a one as well."""
    short = response(to, by, body=b"")
    return signed_anew(short, by, BODY_AT, pack_opaque(bytes(size)), BODY_AT + 4)


def forged_signature(signed: bytes) -> bytes:
    """Return 64 bytes that sign nothing."""
    return a_hash(signed) + bytes(32)


class Surveyor(Neighbour):
    """Says what a surveyor says, and reads what it is answered."""

    def question(
        self, node: OverlayManager, *, pages: tuple[int, int] = (0, 0), ledger: int = 0
    ) -> None:
        """Send a REQUEST to a node."""
        of = node.local_node.peer_id
        self.send(request(self.auth.local_node, of, pages=pages, ledger=ledger))

    def collect(self, kind: MessageType, ledger: int = 0) -> None:
        """Send a START or STOP."""
        self.send(collecting(kind, self.auth.local_node, ledger=ledger))

    def answers(self) -> dict[PeerId, TopologyResponse]:
        """Return the last answer of each node."""
        said = map(decode_response, self.bodies(RESPONSE))
        return {
            PeerId(one.surveyed): decode_topology(KEYS.open(one.encrypted_body)) for one in said
        }


# Nodes.


class SurveyTestCase(TrafficTestCase):
    """Nodes that surveys pass through, and ledgers that close."""

    slot = 0

    def key(self, name: str) -> PeerId:
        """Return who a node is, or will be once it is added."""
        return self.network._local_node(name).peer_id

    def survey_nodes(
        self, links: Iterable[tuple[str, str]], trusted: dict[str, str], **settings: Any
    ) -> dict[str, OverlayManager]:
        """Return nodes of one letter each.

        :param links: the first dials the second.
        :param trusted: by letter, who may survey that node.
        """
        nodes = {
            name: self.add(name, surveyor_keys=[self.key(one) for one in those], **settings)
            for name, those in trusted.items()
        }
        for a, b in links:
            self.link(a, b)
        return nodes

    def close_ledgers(self, count: int, node: OverlayManager, seconds: float = 5) -> None:
        """Let consensus move on, as one node tells all others."""
        for _ in range(count):
            self.slot += 1
            node.broadcast(externalized(self.slot))
            self.network.advance(seconds)

    def phases(self, nodes: Iterable[OverlayManager]) -> list[SurveyPhase]:
        """Return what each node does about surveys."""
        return [node.survey.phase for node in nodes]

    def assert_phases(
        self, nodes: Iterable[OverlayManager], phase: SurveyPhase, nonce: int | None = NONCE
    ) -> None:
        """Check that nodes are all in one phase of one survey."""
        states = {(node.survey.phase, node.survey.nonce) for node in nodes}
        self.assertEqual(states, {(phase, nonce)})

    def refused(self, node: OverlayManager) -> dict[SurveyRefusal, int]:
        """Return how many survey messages a node has refused, by reason."""
        counts = {why: one.get() for why, one in node.metrics.survey_refusals.items()}
        return {why: count for why, count in counts.items() if count}

    def checks(self, node: OverlayManager) -> int:
        """Return how many signatures a node has checked for surveys."""
        return node.metrics.survey_signature_checks.get()


def events_of(node: OverlayManager) -> list[SurveyEvent]:
    """Return a list in which will appear what a node tells of surveys; it is logged as well."""
    events: list[SurveyEvent] = []
    tell = node.survey.on_event

    def listen(event: SurveyEvent) -> None:
        events.append(event)
        tell(event)

    node.survey.on_event = listen
    return events


class OneNodeTestCase(SurveyTestCase):
    """One node between a peer that speaks and one that listens.

    :ivar surveyor: who may survey it; so may ``others``.
    """

    ledger = 0

    def begin_at(
        self, ledger: int = 0, *, others: Sequence[LocalNode] = (), **settings: Any
    ) -> None:
        """Start with a node at some ledger; 0 is nowhere."""
        self.surveyor = validator(50)
        permitted = [one.peer_id for one in (self.surveyor, *others)]
        self.node = self.add(**{"surveyor_keys": permitted} | settings)
        self.own = self.node.local_node.peer_id
        self.meet()
        self.move_to(ledger)

    def meet(self) -> None:
        """Let both peers call."""
        number = len(self.network.memory.transports)
        self.speaker = self.call(f"speaker {number}", Neighbour)
        self.listener = self.call(f"listener {number}", Neighbour)

    def move_to(self, ledger: int) -> None:
        """Let consensus reach a ledger; 0 is where it begins."""
        self.ledger = ledger
        if ledger:
            self.speaker.flood(externalized(ledger))
            self.network.advance(0)
        self.assertEqual(self.node.herder.tracking_ledger(), ledger)

    def say(self, *messages: Message) -> list[Message]:
        """Let the speaker say something; return what the listener hears of surveys."""
        before = len(self.listener.received)
        for message in messages:
            self.speaker.send(message)
        self.network.advance(0.1)
        return [one for one in self.listener.received[before:] if one.type in SURVEY]

    def start(self, **settings: Any) -> Message:
        """Return a START of the surveyor."""
        return collecting(START, self.surveyor, **{"ledger": self.ledger} | settings)

    def stop(self, **settings: Any) -> Message:
        """Return its STOP."""
        return collecting(STOP, self.surveyor, **{"ledger": self.ledger} | settings)

    def ask(self, of: PeerId | None = None, **settings: Any) -> Message:
        """Return its REQUEST to the node, or to another one."""
        settings = {"ledger": self.ledger} | settings
        return request(settings.pop("by", self.surveyor), of or self.own, **settings)

    def collect(self) -> None:
        """Have the node collect."""
        self.assert_relayed(self.start())

    def report(self) -> None:
        """Have the node report."""
        self.collect()
        self.assert_relayed(self.stop())

    def assert_relayed(self, *messages: Message) -> None:
        """Check that each is passed on, in this order, and that nobody loses the link."""
        self.assertEqual(bodies(self.say(*messages)), bodies(messages))
        self.assert_linked(self.speaker, self.listener)

    def assert_ignored(self, why: SurveyRefusal, *messages: Message) -> None:
        """Check that nothing comes of messages, but that they are counted; nor of the link."""
        before = self.refused(self.node).get(why, 0)
        self.assertEqual(self.say(*messages), [])
        self.assert_linked(self.speaker, self.listener)
        self.assertEqual(self.refused(self.node).get(why), before + len(messages))

    def assert_dropped(self, message: Message, reason: DropReason, *, is_checked: bool) -> None:
        """Check that a message costs who relays it the link; another speaker calls then."""
        before = self.checks(self.node), self.node.metrics.drops[reason].get()
        self.assertEqual(self.say(message), [])
        self.assertTrue(self.speaker.is_closed)
        assert reason.code is not None
        self.assertEqual(self.speaker.error, (reason.code, reason.text.encode()))
        after = self.checks(self.node), self.node.metrics.drops[reason].get()
        self.assertEqual(after, (before[0] + is_checked, before[1] + 1))
        self.speaker = self.call(f"speaker {len(self.network.memory.transports)}", Neighbour)


def bodies(messages: Iterable[Message]) -> list[bytes]:
    """Return the bytes of messages."""
    return [message.body for message in messages]


# What came of it.


@dataclass
class Watch:
    """What a node's own counters say, at START and at STOP, and what happened in between.

    :ivar added: links that were authenticated while it collected; ``dropped`` likewise.
    :ivar losses: how often it had lost consensus.
    """

    node: OverlayManager
    at_start: dict[PeerId, PeerInfo] = field(default_factory=dict)
    at_stop: dict[PeerId, PeerInfo] = field(default_factory=dict)
    added: int = 0
    dropped: int = 0
    _linked: set[PeerId] = field(default_factory=set)

    def __post_init__(self) -> None:
        tell = self.node.survey.on_event
        self._linked = {info.peer_id for info in self.node.peer_infos()}
        self.node.on_peer_event(self._note_peer)

        def listen(event: SurveyEvent) -> None:
            if event.kind == SurveyPhase.COLLECTING.value:
                self.at_start = self._infos()
            elif event.kind == SurveyPhase.REPORTING.value:
                self.at_stop = self._infos()
            tell(event)

        self.node.survey.on_event = listen

    def _infos(self) -> dict[PeerId, PeerInfo]:
        return {info.peer_id: info for info in self.node.peer_infos()}

    def _note_peer(self, event: PeerEvent) -> None:
        linked = {info.peer_id for info in self.node.peer_infos()}
        if self.node.survey.phase is SurveyPhase.COLLECTING:
            self.added += event.kind == "peer.authenticated"
            self.dropped += event.kind == "peer.dropped" and event.peer_id in self._linked - linked
        self._linked = linked

    @property
    def stayed(self) -> dict[PeerId, tuple[PeerInfo, PeerInfo]]:
        """The links that were there all the time, and what they had carried then and later."""
        return {
            peer_id: (then, self.at_stop[peer_id])
            for peer_id, then in self.at_start.items()
            if peer_id in self.at_stop
            and self.at_stop[peer_id].connected_at == then.connected_at
            and self.at_stop[peer_id].direction == then.direction
        }


def difference(then: PeerInfo, now: PeerInfo) -> PeerCounters:
    """Return what a link has carried between two moments."""
    return PeerCounters(
        **{name: getattr(now, name) - getattr(then, name) for name in PeerCounters._fields}
    )


Edges = set[tuple[PeerId, PeerId]]


def edges_of(answers: Mapping[PeerId, TopologyResponse]) -> tuple[Edges, Edges]:
    """Return who dialled whom: as those who dialled say, and as those who were dialled say."""
    dialled = {
        (node, PeerId(peer.node)) for node, answer in answers.items() for peer in answer.outbound
    }
    answered = {
        (PeerId(peer.node), node) for node, answer in answers.items() for peer in answer.inbound
    }
    return dialled, answered
