"""Links that end: a scenario for each reason, between a session and a hand or with a whole node."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PUBNET_PASSPHRASE
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.session.flow_control import MAX_CAPACITY
from stellar_overlay.testing.memory import MemoryNetwork
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.auth import AuthContext, AuthState
from stellar_overlay.wire.channel import unwrap_unauthenticated, wrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_error,
    encode_send_more_extended,
)
from stellar_overlay.wire.survey_body import encode_collecting
from tests.builders import OpenGate, advert, get_tx_set, make_node
from tests.by_hand import GOOD, ByHand, changed
from tests.pair import Pair

CONNECTED, GOT_AUTH = AuthState.CONNECTED, AuthState.GOT_AUTH


@dataclass(frozen=True)
class Outcome:
    """Why a link ended, in whose words, and code and text of the ERROR_MSG if one was sent."""

    kind: DropReason | None
    reason: str | None
    told: tuple[int, bytes] | None


# Links without a node.


def at(state: AuthState, *, calls: bool = True, **questions: PeerViolation) -> ByHand:
    """Return a hand in a state, before a gate that refuses some questions."""
    gate = OpenGate(refuse=dict(questions))
    return ByHand(Pair(gates=(gate, gate)), calls=calls).go_to(state)


def after(mouth: ByHand, *records: bytes) -> Outcome:
    """Return what becomes of a link after these records."""
    mouth.say(*records)
    side = mouth.side
    return Outcome(side.kind, side.reason, side.sent_error())


def sealed(body: bytes, *, calls: bool = True) -> Outcome:
    """Return what becomes of an authenticated link after one well-sealed body."""
    mouth = at(GOT_AUTH, calls=calls)
    return after(mouth, mouth.sealed(body))


def hello(**changes: object) -> Outcome:
    """Return what becomes of a link after a HELLO like this."""
    mouth = at(CONNECTED)
    return after(mouth, mouth.hello(**changes))


def replayed() -> Outcome:
    """Say a good record twice."""
    mouth = at(GOT_AUTH)
    return after(mouth, mouth.sealed(GOOD) * 2)


def forged() -> Outcome:
    """Turn a bit of a MAC."""
    mouth = at(GOT_AUTH)
    record = mouth.sealed(GOOD)
    return after(mouth, changed(record, -1, bytes([record[-1] ^ 1])))


def foreign() -> Outcome:
    """Be of another network."""
    mouth = ByHand(Pair(make_node(1, passphrase=PUBNET_PASSPHRASE)))
    return after(mouth, mouth.hello())


def oneself() -> Outcome:
    """Dial oneself."""
    mouth = ByHand(Pair(make_node(1), make_node(1)))
    return after(mouth, mouth.hello())


def banned() -> Outcome:
    """Be banned."""
    mouth = at(CONNECTED, check_node=DropReason.BANNED.violation())
    return after(mouth, mouth.hello())


def overflowing() -> Outcome:
    """Grant more than core can count."""
    mouth = at(GOT_AUTH)
    mouth.side.session.flow_control.out_messages = MAX_CAPACITY
    return after(mouth, mouth.sealed(encode_send_more_extended(1, 1)))


def greedy() -> Outcome:
    """Send a flood message more than was granted."""
    mouth = at(GOT_AUTH)
    return after(mouth, *(mouth.sealed(advert(number).body) for number in range(201)))


def silent() -> Outcome:
    """Say nothing."""
    mouth = at(CONNECTED)
    mouth.pair.advance(5)
    return after(mouth)


def stingy() -> Outcome:
    """Talk, and grant nothing."""
    mouth = at(GOT_AUTH)
    for second in range(60):
        mouth.say(mouth.sealed(get_tx_set(second).body))
        mouth.pair.advance(1)
    return after(mouth)


def slow() -> Outcome:
    """Talk, and read nothing: our writes stall."""
    mouth = at(GOT_AUTH)
    mouth.say(mouth.sealed(encode_send_more_extended(1, 1)))
    side = mouth.side
    while side.violation is None:
        mouth.pair.feed(side, mouth.sealed(GOOD))
        mouth.pair.now = side.session.deadline
        try:
            side.session.on_deadline(mouth.pair.now)
        except PeerViolation as violation:
            mouth.pair.end(side, violation)
    return after(mouth)


# Links of a real node, in memory.


class Fault(Exception):
    """A fault of ours."""


class FaultyHerder(IgnoringHerder):
    """A brain that fails when it is asked for a transaction set."""

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        raise Fault


class Network(MemoryNetwork):
    """A network in memory whose one listener can be reached past it."""

    factory: IProtocolFactory

    def listen(self, ip: str, port: int, factory: IProtocolFactory) -> None:
        self.factory = factory
        super().listen(ip, port, factory)


class Node:
    """A node that listens, and what it says of its links; it dials nobody unless told otherwise.

    :param settings: of its configuration.
    """

    def __init__(self, herder: IgnoringHerder | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.events: list[PeerEvent] = []
        self.manager = OverlayManager(
            OverlayConfig(**{"allow_private": True, "run_standalone": True} | settings),
            make_node(1),
            reactor=self.clock,
            listen=self.network.server("10.0.0.1", 11625),
            connect=self.network.client("10.0.0.1"),
            resolve=self.network.resolver(),
            herder=herder,
        )
        self.manager.on_peer_event(self.events.append)
        self.run(self.manager.start())

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine, and all that follows from it in a second, happen."""
        done = Deferred.fromCoroutine(coroutine)
        self.clock.pump([0.1] * 10)
        assert done.called

    def visit(self, number: int = 2, *, is_polite: bool = True) -> ScriptedPeer:
        """Let a peer dial the node, and shake hands if it is polite."""
        peer = ScriptedPeer(make_node(number), is_polite=is_polite)
        factory = ScriptedPeer.factory(lambda: peer)
        self.network.connect(f"10.0.0.{number}", PeerAddress("10.0.0.1"), factory)
        self.clock.pump([0.1] * 10)
        return peer

    def outcome(self, link: int = -1, end: int = 1) -> Outcome:
        """Return what the node says of the link that it dropped, and told its peer.

        :param end: of the connection at which the node is: 1 if it was called.
        """
        self.clock.pump([0.1] * 10)
        (kind,) = self.reasons()
        (drop,) = (event for event in self.events if event.kind == "peer.dropped")
        return Outcome(kind, drop.reason, error_in(self.network.transports[link][end].written))

    def reasons(self) -> list[DropReason]:
        """Return for which reasons links were dropped."""
        return [kind for kind, counter in self.manager.metrics.drops.items() if counter.get()]


def error_in(written: bytes | bytearray) -> tuple[int, bytes] | None:
    """Return code and text of the ERROR_MSG at the end of what was written, if there is one."""
    frames, last = FrameBuffer(MAX_MESSAGE_SIZE), b""
    frames.feed(bytes(written))
    while (record := frames.next_record()) is not None:
        last = record
    if not last:
        return None
    kind, body = unwrap_unauthenticated(last)
    return decode_error(body) if kind == MessageType.ERROR_MSG else None


def without_address() -> Outcome:
    """Come over a transport that has no IP address."""
    node = Node()
    address = UNIXAddress("socket")
    link, transport = (
        node.network.factory.buildProtocol(address),
        StringTransport(peerAddress=address),
    )
    assert link is not None
    link.makeConnection(transport)
    hello_body = AuthContext(make_node(2), True).create_hello().body
    link.dataReceived(frame(wrap_unauthenticated(hello_body)))
    (drop,) = (event for event in node.events if event.kind == "peer.dropped")
    (kind,) = node.reasons()
    return Outcome(kind, drop.reason, error_in(transport.value()))


def already_connected() -> Outcome:
    """Dial a node that one has a link to."""
    node = Node()
    node.visit()
    node.visit()
    return node.outcome()


def without_slot() -> Outcome:
    """Find the only slot taken."""
    node = Node(max_inbound_peers=1, target_outbound_peers=1)
    node.visit(2)
    node.visit(3)
    return node.outcome()


def displaced() -> Outcome:
    """Have the only slot when a preferred peer comes."""
    preferred = make_node(3).peer_id
    node = Node(max_inbound_peers=1, target_outbound_peers=1, preferred_peer_keys=[preferred])
    node.visit(2)
    node.visit(3)
    return node.outcome(link=0)


class LostHerder(IgnoringHerder):
    """A brain that has lost sight of consensus."""

    def is_tracking(self) -> bool:
        return False


def unlucky() -> Outcome:
    """Be the peer that a node out of sync parts with."""
    node = Node(
        LostHerder(), run_standalone=False, known_peers=["10.0.0.2"], target_outbound_peers=1
    )

    def answer() -> ScriptedPeer:
        return ScriptedPeer(make_node(2), we_called_remote=False)

    MemoryNetwork.listen(node.network, "10.0.0.2", 11625, ScriptedPeer.factory(answer))
    for _ in range(70):
        node.clock.pump([0.5, 0.5])
        for ours, theirs in node.network.transports[-1:]:
            if not ours.is_closed:  # it is a good peer
                assert isinstance(theirs.protocol, ScriptedPeer)
                theirs.protocol.grant(1, 1)
    drops = [event for event in node.events if event.kind == "peer.dropped"]
    told = error_in(node.network.transports[0][0].written)
    (kind,) = node.reasons()
    return Outcome(kind, drops[0].reason, told)


def without_pending_slot() -> Outcome:
    """Find the only slot for a handshake taken; there is no link then, and not a byte."""
    node = Node(max_pending_connections=2, target_outbound_peers=1, max_inbound_peers=1)
    node.visit(2, is_polite=False)
    with capturedLogs() as logged, suppress(RefusedError):
        node.visit(3)
    (event,) = (event for event in logged if "refused" in str(event.get("log_format")))
    (kind,) = node.reasons()
    (link,) = node.network.transports
    return Outcome(kind, event["reason"], error_in(link[1].written))


def dropped() -> Outcome:
    """Displease the operator."""
    node = Node()
    node.visit()
    node.run(node.manager.disconnect(make_node(2).peer_id))
    return node.outcome()


def shut_down() -> Outcome:
    """Be connected when the node stops."""
    node = Node()
    node.visit()
    node.run(node.manager.stop())
    return node.outcome()


def lost(last_words: bytes, *, is_clean: bool) -> Outcome:
    """Close the connection, or break it off, after some bytes."""
    node = Node()
    node.visit().send_bytes(last_words)
    node.clock.pump([0.1] * 10)
    transport = node.network.transports[-1][0]
    if is_clean:
        transport.loseConnection()
    else:
        transport.abortConnection()
    return node.outcome()


def forged_survey() -> Outcome:
    """Pass on the start of a survey that its surveyor has not signed."""
    surveyor = make_node(3).peer_id
    node = Node(surveyor_keys=[surveyor])
    start = encode_collecting(
        MessageType.TIME_SLICED_SURVEY_START_COLLECTING,
        surveyor=surveyor.key,
        nonce=1,
        ledger_num=0,
        sign=make_node(2).sign,
    )
    node.visit().send(Message(start))
    return node.outcome()


def faulty() -> Outcome:
    """Ask what our own brain fails at."""
    node = Node(FaultyHerder())
    node.visit().send(get_tx_set())
    return node.outcome()
