"""What surveys are tested with: peers, a brain, and messages of any kind and fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import PeerViolation, SurveyRefusal
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.survey import SurveyManager
from stellar_overlay.gossip.survey_data import NodeFacts
from stellar_overlay.gossip.survey_facts import SurveyConfig, SurveyEvent
from stellar_overlay.gossip.survey_limiter import KNOWN_SECONDS
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, pack_opaque
from stellar_overlay.wire.survey_body import (
    PeerCounters,
    SurveyKeys,
    TopologyResponse,
    decode_request,
    decode_response,
    decode_topology,
    encode_collecting,
    encode_request,
    encode_response,
)
from tests.builders import make_node

START = MessageType.TIME_SLICED_SURVEY_START_COLLECTING
STOP = MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING
REQUEST = MessageType.TIME_SLICED_SURVEY_REQUEST
RESPONSE = MessageType.TIME_SLICED_SURVEY_RESPONSE

LEDGER = 1000
NONCE = 7
PAUSE_SECONDS = 15
OWN, SURVEYOR, STRANGER = make_node(1), make_node(2), make_node(3)
NODES = [make_node(number) for number in range(10, 40)]
"""Others who may be asked."""
FACTS = NodeFacts(is_validator=True, max_inbound_peers=64, max_outbound_peers=8)
KEYS = SurveyKeys(b"\x05" * 32)

_SIGNATURE_AT, _INNER_AT = 8, 72
COMMAND_AT = 180
"""Where a REQUEST names its command (messages.md 5.2)."""
RESPONSE_COMMAND_AT = 148


def collecting(
    kind: MessageType, *, nonce: int = NONCE, ledger: int = LEDGER, by: LocalNode = SURVEYOR
) -> bytes:
    """Return a START or STOP."""
    return encode_collecting(
        kind, surveyor=by.peer_id.key, nonce=nonce, ledger_num=ledger, sign=by.sign
    )


def request(
    of: LocalNode = OWN,
    *,
    nonce: int = NONCE,
    ledger: int = LEDGER,
    by: LocalNode = SURVEYOR,
    pages: tuple[int, int] = (0, 0),
    key: bytes = KEYS.public,
) -> bytes:
    """Return a REQUEST."""
    return encode_request(
        surveyor=by.peer_id.key,
        surveyed=of.peer_id.key,
        ledger_num=ledger,
        encryption_key=key,
        nonce=nonce,
        inbound_index=pages[0],
        outbound_index=pages[1],
        sign=by.sign,
    )


def response(to: bytes, sealed: bytes = bytes(60), *, by: LocalNode) -> bytes:
    """Return a RESPONSE to a REQUEST."""
    return encode_response(decode_request(to), sealed, by.sign)


def forged(body: bytes, turned: int = 1) -> bytes:
    """Return a message with some bits of its signature turned."""
    signature = int.from_bytes(body[_SIGNATURE_AT:_INNER_AT], "big") ^ turned
    return body[:_SIGNATURE_AT] + signature.to_bytes(64, "big") + body[_INNER_AT:]


def cut(body: bytes, size: int) -> bytes:
    """Return a message whose signature is shorter than it should be."""
    signature = body[_SIGNATURE_AT : _SIGNATURE_AT + size]
    return body[:4] + pack_opaque(signature) + body[_INNER_AT:]


def changed(body: bytes, at: int, word: int, *, by: LocalNode) -> bytes:
    """Return a message with another number at some place, well signed."""
    inner = body[_INNER_AT:at] + word.to_bytes(4, "big") + body[at + 4 :]
    return body[:4] + pack_opaque(by.sign(inner)) + inner


def opened(body: bytes, keys: SurveyKeys = KEYS) -> TopologyResponse:
    """Return what a RESPONSE says to whoever can read it."""
    return decode_topology(keys.open(decode_response(body).encrypted_body))


class FakePeer:
    """A link that carries what it is told to, and stays when it is dropped.

    :ivar dropped: why, each time.
    :ivar callback: who is told of its round trips.
    """

    def __init__(self, number: int, gate: FloodGate, *, is_inbound: bool = True) -> None:
        self.peer_id = PeerId(number.to_bytes(32, "big"))
        self.is_inbound = is_inbound
        self.version_string = b"v%d" % number
        self.linked_at = 0.0
        self.flood_bit = gate.bit_of(self.peer_id)
        self.carried = PeerCounters(*[0] * 12)
        self.callback: Callable[[int], None] | None = None
        self.dropped: list[PeerViolation] = []

    def counters(self) -> PeerCounters:
        return self.carried

    def watch_latency(self, callback: Callable[[int], None] | None) -> None:
        self.callback = callback

    def drop(self, violation: PeerViolation) -> None:
        self.dropped.append(violation)


class FakeHerder(IgnoringHerder):
    """Stands where it is put."""

    def __init__(self) -> None:
        self.tracking = LEDGER
        self.lost_sync_count = 0
        self.is_in_sync = True

    def tracking_ledger(self) -> int:
        return self.tracking

    def is_tracking(self) -> bool:
        return self.is_in_sync


@dataclass(frozen=True)
class Sent:
    """A message that was broadcast, and who did not have it yet."""

    kind: MessageType
    body: bytes
    to: tuple[FakePeer, ...]


class SurveyTestCase(SynchronousTestCase):
    """A node that ``SURVEYOR`` may survey, with three peers, and all that it says.

    :ivar sent: what was broadcast.
    :ivar woken: how often the manager wanted to be called again.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(500)
        self.herder = FakeHerder()
        self.gate = FloodGate()
        self.metrics = OverlayMetrics()
        self.peers: dict[PeerId, FakePeer] = {}
        self.sent: list[Sent] = []
        self.events: list[SurveyEvent] = []
        self.woken = 0
        self.a, self.b, self.c = (
            self.link(number, is_inbound=number > 1) for number in range(1, 4)
        )
        self.manager = self.make()

    def make(self, local_node: LocalNode = OWN, **changes: Any) -> SurveyManager:
        """Return a manager; without changes, ``SURVEYOR`` alone may survey it."""
        settings: dict[str, Any] = {
            "surveyor_keys": frozenset({SURVEYOR.peer_id}),
            "facts": FACTS,
            "pause_seconds": PAUSE_SECONDS,
        }
        manager = SurveyManager(
            local_node,
            SurveyConfig(**settings | changes),
            herder=self.herder,
            peers=self.peers,
            gate=self.gate,
            broadcast=self._broadcast,
            clock=self.clock,
            metrics=self.metrics,
        )
        manager.on_event = self.events.append
        manager.wake = self._wake
        self.addCleanup(manager.shutdown)
        return manager

    def link(self, number: int, *, is_inbound: bool = True) -> FakePeer:
        """Return a peer that is connected from now on."""
        peer = FakePeer(number, self.gate, is_inbound=is_inbound)
        peer.linked_at = self.clock.seconds() - KNOWN_SECONDS  # so that it may cause ten checks
        self.peers[peer.peer_id] = peer
        return peer

    def _broadcast(self, message: Message) -> int:
        now = self.clock.seconds()
        untold = self.gate.mark(message.body, self.peers.values(), now)
        self.sent.append(Sent(message.type, message.body, tuple(untold)))
        return len(untold)

    def _wake(self) -> None:
        self.woken += 1

    def take(self) -> list[Sent]:
        """Return what was broadcast since this was asked last."""
        sent, self.sent = self.sent, []
        return sent

    def refusals(self) -> dict[SurveyRefusal, int]:
        """Return what was counted so far."""
        counters = self.metrics.survey_refusals.items()
        return {reason: counter.get() for reason, counter in counters if counter.get()}

    @property
    def checks(self) -> int:
        """How many signatures were checked so far."""
        return self.metrics.survey_signature_checks.get()

    def hear(self, body: bytes, link: FakePeer | None = None) -> list[SurveyRefusal]:
        """Let a peer send a message; return for what reasons it was counted as refused."""
        before = self.refusals()
        kind = int.from_bytes(body[:4], "big")
        self.manager.handlers[kind](link or self.a, body, self.clock.seconds())
        after = self.refusals()
        return [reason for reason, count in after.items() if count != before.get(reason, 0)]

    def assert_taken(self, *bodies: bytes, link: FakePeer | None = None) -> None:
        """Check that messages are taken."""
        for body in bodies:
            self.assertEqual(self.hear(body, link), [])

    def assert_refused(
        self, reason: SurveyRefusal, *bodies: bytes, link: FakePeer | None = None
    ) -> None:
        """Check that messages are refused for this reason, not relayed, and not remembered."""
        for body in bodies:
            known, sent = body in self.gate.records, len(self.sent)
            self.assertEqual(self.hear(body, link), [reason])
            self.assertEqual((body in self.gate.records, len(self.sent)), (known, sent))

    def report(self) -> None:
        """Let ``SURVEYOR``'s survey collect, and then report."""
        self.assert_taken(collecting(START), collecting(STOP))
        self.take()

    def survey(self) -> None:
        """Have a survey of our own collect, and then report."""
        self.manager.start_collecting(NONCE)
        self.assertTrue(self.manager.stop_collecting())
        self.take()

    def own_report(self) -> TopologyResponse:
        """Return what the results of our own survey say of ourselves."""
        own = (self.manager.results().topology or {})[OWN.peer_id]
        assert own is not None
        return own
