"""What is done with each type of message: one table."""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.gossip.query_limits import QueryLimits
from stellar_overlay.interfaces import Herder, Link
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_hash_query,
    encode_dont_have,
)

Handler = Callable[[Link, bytes, float], None]


class MessageDispatcher:
    """Answers peers' questions from what the herder knows.

    :param herder: the brain that knows quorum sets and transaction sets.
    """

    def __init__(self, herder: Herder) -> None:
        self._herder = herder
        self._limits: dict[Link, QueryLimits] = {}
        self.handlers: dict[int, Handler] = {
            MessageType.GET_SCP_QUORUMSET: self._answer_quorum_set,
            MessageType.GET_TX_SET: self._answer_tx_set,
        }

    def handle_message(self, link: Link, message: Message, now: float) -> None:
        """Do what is to be done with one message."""
        handler = self.handlers.get(message.type)
        if handler is not None:
            handler(link, message.body, now)

    def forget(self, link: Link) -> None:
        """Drop what is kept about a link that ended."""
        self._limits.pop(link, None)

    def _answer_quorum_set(self, link: Link, body: bytes, now: float) -> None:
        kind = MessageType.GET_SCP_QUORUMSET
        if self._may_ask(link, kind, now):
            item_hash = decode_hash_query(body)
            answer = self._herder.get_quorum_set(item_hash)
            link.send(answer or _dont_have(MessageType.SCP_QUORUMSET, item_hash))

    def _answer_tx_set(self, link: Link, body: bytes, now: float) -> None:
        kind = MessageType.GET_TX_SET
        if self._may_ask(link, kind, now):
            item_hash = decode_hash_query(body)
            answer = self._herder.get_tx_set(item_hash)
            link.send(answer or _dont_have(MessageType.GENERALIZED_TX_SET, item_hash))

    def _may_ask(self, link: Link, kind: MessageType, now: float) -> bool:
        limits = self._limits.get(link)
        if limits is None:
            limits = self._limits[link] = QueryLimits()
        return limits.allow(kind, now)


def _dont_have(wanted: MessageType, item_hash: bytes) -> Message:
    return Message(encode_dont_have(wanted, item_hash))
