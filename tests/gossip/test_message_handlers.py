"""What is answered to peers' questions, and how many of them."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.query_limits import LIMITS, WINDOW_SECONDS, QueryLimits
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_dont_have,
    encode_dont_have,
    encode_get_scp_state,
    encode_hash_query,
)
from tests.builders import advert, demand

HASH = bytes(range(32))
QUORUM_SET = Message(b"\0\0\0\x0a\0\0\0\1" + bytes(8))
TX_SET = Message(b"\0\0\0\x07" + bytes(36))


class FakeLink:
    """A peer that keeps what it is sent."""

    def __init__(self, number: int = 1) -> None:
        self.peer_id = PeerId(bytes([number]) * 32)
        self.address = ResolvedPeerAddress("192.0.2.1", 11625)
        self.sent: list[Message] = []

    def send(self, message: Message) -> bool:
        self.sent.append(message)
        return True


class KnowingHerder(IgnoringHerder):
    """Knows one quorum set and one transaction set."""

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        return QUORUM_SET if item_hash == HASH else None

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        return TX_SET if item_hash == HASH else None


def get_quorum_set(item_hash: bytes = HASH) -> Message:
    """Return the question for a quorum set; also the ping."""
    return Message(encode_hash_query(MessageType.GET_SCP_QUORUMSET, item_hash))


def get_tx_set(item_hash: bytes = HASH) -> Message:
    """Return the question for a transaction set."""
    return Message(encode_hash_query(MessageType.GET_TX_SET, item_hash))


class AnswerTests(SynchronousTestCase):
    """Rows 51 and 52."""

    def ask(self, herder: IgnoringHerder, *questions: Message) -> list[Message]:
        link = FakeLink()
        dispatcher = MessageDispatcher(herder)
        for question in questions:
            dispatcher.handle_message(link, question, 0.0)
        return link.sent

    def test_what_is_known_is_sent(self) -> None:
        """The herder's own message, in the order of the questions."""
        sent = self.ask(KnowingHerder(), get_tx_set(), get_quorum_set(), get_tx_set())
        self.assertEqual(sent, [TX_SET, QUORUM_SET, TX_SET])

    def test_what_is_unknown_is_said_so(self) -> None:
        """DONT_HAVE of type 17 for a transaction set, 10 for a quorum set, with the hash."""
        sent = self.ask(KnowingHerder(), get_tx_set(bytes(32)), get_quorum_set(bytes(32)))
        self.assertEqual(
            [decode_dont_have(answer.body) for answer in sent], [(17, bytes(32)), (10, bytes(32))]
        )

    def test_a_brain_that_knows_nothing_still_answers(self) -> None:
        """So a ping always has its answer."""
        sent = self.ask(IgnoringHerder(), get_quorum_set())
        self.assertEqual([decode_dont_have(answer.body) for answer in sent], [(10, HASH)])

    def test_what_is_no_question_is_not_answered(self) -> None:
        """Flooded messages, unsolicited answers, and GET_SCP_STATE of who knows no state."""
        others = (
            advert(),
            demand(),
            QUORUM_SET,
            TX_SET,
            Message(encode_dont_have(6, HASH)),
            Message(encode_get_scp_state(0)),
        )
        self.assertEqual(self.ask(KnowingHerder(), *others), [])


class QueryLimitTests(SynchronousTestCase):
    """Row 50: how many questions are answered in a window."""

    def test_limits(self) -> None:
        """300, 300 and 10 per minute; one more is ignored without a word."""
        for kind, most in {
            MessageType.GET_TX_SET: 300,
            MessageType.GET_SCP_QUORUMSET: 300,
            MessageType.GET_SCP_STATE: 10,
        }.items():
            limits = QueryLimits()
            allowed = [limits.allow(kind, 0.1 * number) for number in range(most + 5)]
            self.assertEqual(allowed, [True] * most + [False] * 5, kind)

    def test_the_window_restarts_at_the_first_question_after_it(self) -> None:
        """Connection.md 4.8: tumbling windows, which begin with a question."""
        limits = QueryLimits()
        kind = MessageType.GET_SCP_STATE
        for _ in range(10):
            self.assertTrue(limits.allow(kind, 100.0))
        self.assertFalse(limits.allow(kind, 100.0 + WINDOW_SECONDS - 0.001))
        start = 100.0 + 3.5 * WINDOW_SECONDS
        for _ in range(10):
            self.assertTrue(limits.allow(kind, start))
        self.assertFalse(limits.allow(kind, start + WINDOW_SECONDS - 0.001))
        self.assertTrue(limits.allow(kind, start + WINDOW_SECONDS))

    def test_kinds_are_counted_apart(self) -> None:
        """Who has used up one kind of question may ask another."""
        limits = QueryLimits()
        for kind, most in LIMITS.items():
            self.assertTrue(all(limits.allow(kind, 0.0) for _ in range(most)), kind)

    def test_peers_are_counted_apart(self) -> None:
        """One peer's questions cost another peer nothing."""
        dispatcher = MessageDispatcher(IgnoringHerder())
        greedy, modest = FakeLink(1), FakeLink(2)
        for _ in range(301):
            dispatcher.handle_message(greedy, get_tx_set(), 0.0)
        dispatcher.handle_message(modest, get_tx_set(), 0.0)
        self.assertEqual((len(greedy.sent), len(modest.sent)), (300, 1))

    def test_a_peer_that_left_is_forgotten(self) -> None:
        """Nothing is kept of it, and its next link begins anew."""
        dispatcher = MessageDispatcher(IgnoringHerder())
        link = FakeLink()
        for _ in range(301):
            dispatcher.handle_message(link, get_tx_set(), 0.0)
        dispatcher.forget(link)
        dispatcher.forget(link)
        dispatcher.handle_message(link, get_tx_set(), 0.0)
        self.assertEqual(len(link.sent), 301)
        dispatcher.forget(link)
        kept = weakref.ref(link)
        del link
        gc.collect()
        self.assertIsNone(kept())
