"""A dispatcher, the peers that ask it, and what they ask for."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.tracker import MS_TO_WAIT_FOR_FETCH_REPLY, Waiter
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Herder, Link, ScpState
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    encode_dont_have,
    encode_get_scp_state,
    encode_hash_query,
)
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set
from tests.builders import quorum_set, transaction

HASH = bytes(range(32))
QUORUM_SET = quorum_set(2)
TX_SET = tx_set(bytes(32), [])
GENERALIZED = generalized_tx_set(bytes(32), [transaction().body[4:]])
REPLY_SECONDS = MS_TO_WAIT_FOR_FETCH_REPLY / 1000


class FakeLink:
    """A peer that keeps what it is sent.

    :ivar is_open: whether anything gets there.
    """

    def __init__(self, number: int = 1) -> None:
        self.peer_id = PeerId(bytes([number]) * 32)
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.ping_ms: int | None = None
        self.sent: list[Message] = []
        self.is_open = True

    def send(self, message: Message) -> bool:
        if self.is_open:
            self.sent.append(message)
        return self.is_open

    def take(self) -> list[Message]:
        """Return what it was sent since this was asked last."""
        sent, self.sent = self.sent, []
        return sent


class KnowingHerder(IgnoringHerder):
    """Knows one quorum set and one transaction set under a hash, and notes what it is told.

    :ivar told: the hash and the message, each time.
    :ivar failure: what it raises when it is told.
    """

    def __init__(self, state: ScpState | None = None) -> None:
        self.told: list[tuple[bytes, Message]] = []
        self.failure: Exception | None = None
        self.state = state or ScpState()
        self.asked_from: list[int] = []

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        return QUORUM_SET if item_hash == HASH else None

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        return TX_SET if item_hash == HASH else None

    def recv_quorum_set(self, item_hash: bytes, message: Message) -> None:
        self._note(item_hash, message)

    def recv_tx_set(self, item_hash: bytes, message: Message) -> None:
        self._note(item_hash, message)

    def get_scp_state(self, ledger_seq: int) -> ScpState:
        self.asked_from.append(ledger_seq)
        return self.state

    def _note(self, item_hash: bytes, message: Message) -> None:
        self.told.append((item_hash, message))
        if self.failure is not None:
            raise self.failure


def get_quorum_set(item_hash: bytes = HASH) -> Message:
    """Return the question for a quorum set; also the ping."""
    return Message(encode_hash_query(MessageType.GET_SCP_QUORUMSET, item_hash))


def get_tx_set(item_hash: bytes = HASH) -> Message:
    """Return the question for a transaction set."""
    return Message(encode_hash_query(MessageType.GET_TX_SET, item_hash))


def get_scp_state(ledger_seq: int = 0) -> Message:
    """Return the question for SCP messages."""
    return Message(encode_get_scp_state(ledger_seq))


def dont_have(kind: int, item_hash: bytes) -> Message:
    """Return a DONT_HAVE."""
    return Message(encode_dont_have(kind, item_hash))


def number_hash(number: int) -> bytes:
    """Return 32 bytes."""
    return number.to_bytes(32, "big")


def waiter(
    items: list[Message], *, slot: int | None = None, envelope: bytes | None = None
) -> Waiter:
    """Return somebody who waits for an item, and puts it there."""
    return Waiter(slot=slot, envelope=envelope, deliver=items.append)


class DispatcherTestCase(SynchronousTestCase):
    """A dispatcher, its clock, and two peers that it may ask."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.metrics = OverlayMetrics()
        self.first, self.second = FakeLink(1), FakeLink(2)
        self.second.ping_ms = 2000
        self.first.ping_ms = 10  # so it is asked first
        self.links: dict[PeerId, Link] = {link.peer_id: link for link in (self.first, self.second)}
        self.herder = KnowingHerder()
        self.dispatcher = self.make(self.herder)

    def make(self, herder: Herder) -> MessageDispatcher:
        """Return a dispatcher with this brain."""
        return MessageDispatcher(
            herder,
            clock=self.clock,
            random=random.Random(1),
            links=self.links,
            metrics=self.metrics,
        )

    def say(self, *messages: Message, link: FakeLink | None = None) -> None:
        """Let a peer send these."""
        for message in messages:
            self.dispatcher.handle_message(link or self.first, message, self.clock.seconds())

    def ask(self, *questions: Message, link: FakeLink | None = None) -> list[Message]:
        """Let a peer ask; return what it is answered."""
        link = link or self.first
        link.take()
        self.say(*questions, link=link)
        return link.take()
