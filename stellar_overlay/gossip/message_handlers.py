"""What is done with each type of message: one table."""

from __future__ import annotations

from collections.abc import Callable

from stellar_overlay.gossip.peer_exchange import PeerExchange
from stellar_overlay.gossip.query_limits import QueryLimits
from stellar_overlay.interfaces import Herder, Link
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_hash_query,
    decode_peers,
    encode_dont_have,
)

Handler = Callable[[Link, bytes, float], None]


class MessageDispatcher:
    """Answers peers' questions from what the herder knows, and hands on what they tell.

    :param herder: the brain that knows quorum sets and transaction sets.
    :param exchange: takes the addresses that peers share.
    """

    def __init__(self, herder: Herder, exchange: PeerExchange | None = None) -> None:
        self._limits: dict[Link, QueryLimits] = {}
        self.handlers: dict[int, Handler] = {
            MessageType.GET_SCP_QUORUMSET: self._answering(
                MessageType.GET_SCP_QUORUMSET, MessageType.SCP_QUORUMSET, herder.get_quorum_set
            ),
            MessageType.GET_TX_SET: self._answering(
                MessageType.GET_TX_SET, MessageType.GENERALIZED_TX_SET, herder.get_tx_set
            ),
        }
        if exchange is not None:
            self.handlers[MessageType.PEERS] = _learning(exchange)

    def handle_message(self, link: Link, message: Message, now: float) -> None:
        """Do what is to be done with one message."""
        handler = self.handlers.get(message.type)
        if handler is not None:
            handler(link, message.body, now)

    def forget(self, link: Link) -> None:
        """Drop what is kept about a link that ended."""
        self._limits.pop(link, None)

    def _answering(
        self, question: MessageType, item: MessageType, find: Callable[[bytes], Message | None]
    ) -> Handler:
        """Return what answers a question: with the item, or with DONT_HAVE of its type."""

        def answer(link: Link, body: bytes, now: float) -> None:
            if self._may_ask(link, question, now):
                item_hash = decode_hash_query(body)
                link.send(find(item_hash) or Message(encode_dont_have(item, item_hash)))

        return answer

    def _may_ask(self, link: Link, kind: MessageType, now: float) -> bool:
        limits = self._limits.get(link)
        if limits is None:
            limits = self._limits[link] = QueryLimits()
        return limits.allow(kind, now)


def _learning(exchange: PeerExchange) -> Handler:
    def learn(link: Link, body: bytes, now: float) -> None:
        exchange.receive(link, decode_peers(body))

    return learn
