"""What is done with each type of message that is not flooded: one table.

Questions are answered from what the herder knows and from what was fetched before; what is missing
is fetched from whoever has it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.gossip.early_questions import EarlyQuestions
from stellar_overlay.gossip.item_fetcher import ItemFetcher, ItemFetcherStats, ItemType
from stellar_overlay.gossip.peer_exchange import PeerExchange
from stellar_overlay.gossip.query_limits import QueryLimits
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock, DelayedCall, Herder, Link, Random
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_dont_have,
    decode_get_scp_state,
    decode_hash_query,
    decode_peers,
    encode_dont_have,
)
from stellar_overlay.wire.quorum_set import decode_quorum_set, quorum_set_hash
from stellar_overlay.wire.tx_set import tx_set_hash

MAX_CACHED_ITEMS = 10_000
"""Transaction sets, and quorum sets, that are kept (core PendingEnvelopes.cpp)."""
TX_SET_CACHE_BYTES = 64 * 1024 * 1024
QUORUM_SET_CACHE_BYTES = 16 * 1024 * 1024
CHECKPOINT_DELAY_SECONDS = 2
"""How long the messages of the checkpoint's slot wait for the newer ones (messages.md 4.3)."""

_TX_SETS = frozenset({MessageType.TX_SET, MessageType.GENERALIZED_TX_SET})
Handler = Callable[[Link, bytes, float], None]


class MessageDispatcherStats(NamedTuple):
    """How much is being fetched, and kept."""

    tx_set_fetcher: ItemFetcherStats
    quorum_set_fetcher: ItemFetcherStats
    cached_tx_sets: int
    cached_quorum_sets: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    """One kind of item: who has it, who is asked for it, who is told of it.

    :ivar answer: the type that DONT_HAVE names.
    :ivar early: who asked for what we are fetching ourselves.
    :ivar is_sane: tells of a body whether it is fit to be passed on.
    :ivar find: asks the herder; ``tell`` tells it.
    """

    answer: MessageType
    fetcher: ItemFetcher
    cache: BoundedDict[bytes, Message]
    early: EarlyQuestions
    hash_of: Callable[[bytes], bytes]
    is_sane: Callable[[bytes], bool]
    find: Callable[[bytes], Message | None]
    tell: Callable[[bytes, Message], None]

    def get(self, item_hash: bytes) -> Message | None:
        """Return the item, if anybody here has it."""
        return self.find(item_hash) or self.cache.get(item_hash)


class MessageDispatcher:
    """Answers peers' questions, fetches what is missing, and hands on what peers tell.

    :param herder: the brain that knows quorum sets and transaction sets.
    :param links: all authenticated peers, live.
    :param knows: tells which peers are known to have an SCP message.
    :ivar handlers: what is done with each type; others may add theirs.
    """

    def __init__(
        self,
        herder: Herder,
        *,
        clock: Clock,
        random: Random,
        links: Mapping[PeerId, Link] | None = None,
        knows: Callable[[bytes], Collection[PeerId]] = lambda envelope: (),
        metrics: OverlayMetrics | None = None,
    ) -> None:
        self._herder = herder
        self._clock = clock
        self._links: Mapping[PeerId, Link] = {} if links is None else links
        self._metrics = metrics = metrics or OverlayMetrics()
        self._limits: dict[Link, QueryLimits] = {}
        self._checkpoints: dict[Link, DelayedCall] = {}

        def fetcher(item_type: ItemType) -> ItemFetcher:
            return ItemFetcher(
                item_type,
                links=self._links,
                knows=knows,
                clock=clock,
                random=random,
                metrics=metrics,
            )

        self._tx_sets = _Kind(
            answer=MessageType.GENERALIZED_TX_SET,
            fetcher=fetcher(ItemType.TX_SET),
            cache=BoundedDict(MAX_CACHED_ITEMS, TX_SET_CACHE_BYTES),
            early=EarlyQuestions(clock, partial(self._deny, MessageType.GENERALIZED_TX_SET)),
            hash_of=tx_set_hash,
            is_sane=lambda body: True,
            find=herder.get_tx_set,
            tell=herder.recv_tx_set,
        )
        self._quorum_sets = _Kind(
            answer=MessageType.SCP_QUORUMSET,
            fetcher=fetcher(ItemType.QUORUM_SET),
            cache=BoundedDict(MAX_CACHED_ITEMS, QUORUM_SET_CACHE_BYTES),
            early=EarlyQuestions(clock, partial(self._deny, MessageType.SCP_QUORUMSET)),
            hash_of=quorum_set_hash,
            is_sane=lambda body: decode_quorum_set(body).is_sane(),
            find=herder.get_quorum_set,
            tell=herder.recv_quorum_set,
        )
        self.handlers: dict[int, Handler] = {
            MessageType.GET_SCP_QUORUMSET: self._answering(
                MessageType.GET_SCP_QUORUMSET, self._quorum_sets
            ),
            MessageType.GET_TX_SET: self._answering(MessageType.GET_TX_SET, self._tx_sets),
            MessageType.GET_SCP_STATE: self._recv_get_scp_state,
            MessageType.SCP_QUORUMSET: self._receiving(self._quorum_sets),
            MessageType.TX_SET: self._receiving(self._tx_sets),
            MessageType.GENERALIZED_TX_SET: self._receiving(self._tx_sets),
            MessageType.DONT_HAVE: self._recv_dont_have,
        }

    def learn_peers(self, exchange: PeerExchange) -> None:
        """Hand the addresses that peers share to ``exchange``."""

        def learn(link: Link, body: bytes, now: float) -> None:
            exchange.receive(link, decode_peers(body))

        self.handlers[MessageType.PEERS] = learn

    def handle_message(self, link: Link, message: Message, now: float) -> None:
        """Do what is to be done with one message."""
        handler = self.handlers.get(message.type)
        if handler is not None:
            handler(link, message.body, now)

    def peers_changed(self) -> None:
        """Ask a new peer for what nobody could be asked for so far."""
        self._tx_sets.fetcher.peers_changed()
        self._quorum_sets.fetcher.peers_changed()

    def forget(self, link: Link) -> None:
        """Drop what is kept about a link that ended."""
        self._limits.pop(link, None)
        self._forget_checkpoint(link)
        for kind in (self._tx_sets, self._quorum_sets):
            kind.early.forget(link.peer_id)

    def shutdown(self) -> None:
        """Fetch nothing more, and answer nothing that was put off."""
        for link in list(self._checkpoints):
            self._forget_checkpoint(link)
        for kind in (self._tx_sets, self._quorum_sets):
            kind.fetcher.shutdown()
            kind.early.shutdown()

    # Items.

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Return a transaction set, if it is here."""
        return self._tx_sets.get(item_hash)

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        """Return a quorum set, if it is here."""
        return self._quorum_sets.get(item_hash)

    def cache_item(self, message: Message) -> bytes:
        """Keep a transaction set or a quorum set for whoever asks; return its hash.

        :raises ValueError: for any other message.
        """
        kind = self._tx_sets if message.type in _TX_SETS else self._quorum_sets
        if kind is self._quorum_sets and message.type is not MessageType.SCP_QUORUMSET:
            raise ValueError(f"peers ask for transaction sets and quorum sets, not {message!r}")
        item_hash = kind.hash_of(message.body)
        kind.cache.put(item_hash, message, message.size)
        self._hand_out(kind, item_hash, message)
        return item_hash

    def fetch_tx_set(self, item_hash: bytes, waiter: Waiter) -> bool:
        """Ask for a transaction set until somebody has it; at once if it is here.

        :returns: False when too much is being fetched already.
        """
        return _fetch(self._tx_sets, item_hash, waiter)

    def fetch_quorum_set(self, item_hash: bytes, waiter: Waiter) -> bool:
        """Ask for a quorum set, likewise."""
        return _fetch(self._quorum_sets, item_hash, waiter)

    def stop_fetch_tx_set(self, item_hash: bytes, waiter: Waiter) -> None:
        """Let one waiter wait no longer."""
        _stop_fetch(self._tx_sets, item_hash, waiter)

    def stop_fetch_quorum_set(self, item_hash: bytes, waiter: Waiter) -> None:
        """Let one waiter wait no longer."""
        _stop_fetch(self._quorum_sets, item_hash, waiter)

    def stop_fetching_outside_range(
        self, min_slot: int | None, max_slot: int | None, keep: int
    ) -> None:
        """Give up what only the slots outside a range want, but for the slot ``keep``."""
        for kind in (self._tx_sets, self._quorum_sets):
            kind.fetcher.stop_fetching_outside_range(min_slot, max_slot, keep)
            kind.early.keep_only(kind.fetcher.is_tracking)

    @property
    def stats(self) -> MessageDispatcherStats:
        """How much is being fetched, and kept."""
        return MessageDispatcherStats(
            self._tx_sets.fetcher.get_stats(),
            self._quorum_sets.fetcher.get_stats(),
            len(self._tx_sets.cache),
            len(self._quorum_sets.cache),
        )

    # Handlers.

    def _answering(self, question: MessageType, kind: _Kind) -> Handler:
        """Return what answers a question: with the item, or with DONT_HAVE of its type.

        Who asks for what we are fetching ourselves is answered when that has come, or did not.
        """

        def answer(link: Link, body: bytes, now: float) -> None:
            if not self._may_ask(link, question, now):
                return
            item_hash, peer_id = decode_hash_query(body), link.peer_id
            if kind.early.has_crossed(item_hash, peer_id):
                return
            item = kind.get(item_hash)
            if item is None:
                if kind.fetcher.is_tracking(item_hash) and kind.early.note(item_hash, peer_id):
                    return
                item = Message(encode_dont_have(kind.answer, item_hash))
            if not link.send(item):
                self._metrics.answers_refused.inc()

        return answer

    def _deny(self, answer: MessageType, item_hash: bytes, peer_id: PeerId) -> None:
        link = self._links.get(peer_id)
        if link is not None:
            self._send_all(link, [Message(encode_dont_have(answer, item_hash))])

    def _receiving(self, kind: _Kind) -> Handler:
        """Return what takes an item that came: it is kept if somebody waits for it."""

        def receive(link: Link, body: bytes, now: float) -> None:
            # Nobody waits for anything, most of the time: then it need not even be hashed.
            item_hash = kind.hash_of(body) if kind.fetcher.num_trackers else b""
            if not kind.fetcher.is_tracking(item_hash):
                return
            message = Message(body)
            if kind.is_sane(body):
                kind.cache.put(item_hash, message, len(body))
            else:
                kind.early.drop(item_hash)
            self._hand_out(kind, item_hash, message, link.peer_id)

        return receive

    def _hand_out(
        self, kind: _Kind, item_hash: bytes, message: Message, sender: PeerId | None = None
    ) -> None:
        """Give an item that has come to all who want it: the herder, peers, applications."""
        for peer_id in kind.early.take(item_hash):
            link = self._links.get(peer_id)
            if link is not None and peer_id != sender:
                self._send_all(link, [message])
        try:
            kind.tell(item_hash, message)
        finally:
            kind.fetcher.recv(item_hash, message)

    def _recv_dont_have(self, link: Link, body: bytes, now: float) -> None:
        wanted, item_hash = decode_dont_have(body)
        match wanted:
            case MessageType.TX_SET | MessageType.GENERALIZED_TX_SET:
                self._tx_sets.fetcher.doesnt_have(item_hash, link.peer_id)
            case MessageType.SCP_QUORUMSET:
                self._quorum_sets.fetcher.doesnt_have(item_hash, link.peer_id)

    def _recv_get_scp_state(self, link: Link, body: bytes, now: float) -> None:
        if not self._may_ask(link, MessageType.GET_SCP_STATE, now):
            return
        state = self._herder.get_scp_state(decode_get_scp_state(body))
        self._send_all(link, state.now)
        if state.later:
            self._forget_checkpoint(link)
            self._checkpoints[link] = self._clock.callLater(
                CHECKPOINT_DELAY_SECONDS, self._send_checkpoint, link, state.later
            )

    def _send_checkpoint(self, link: Link, messages: Collection[Message]) -> None:
        del self._checkpoints[link]
        self._send_all(link, messages)

    def _send_all(self, link: Link, messages: Collection[Message]) -> None:
        refused = len(messages) - sum([link.send(message) for message in messages])
        self._metrics.answers_refused.add(refused)

    def _forget_checkpoint(self, link: Link) -> None:
        checkpoint = self._checkpoints.pop(link, None)
        if checkpoint is not None and checkpoint.active():
            checkpoint.cancel()

    def _may_ask(self, link: Link, kind: MessageType, now: float) -> bool:
        limits = self._limits.get(link)
        if limits is None:
            limits = self._limits[link] = QueryLimits()
        if limits.allow(kind, now):
            return True
        self._metrics.queries_ignored.inc()
        return False


def _stop_fetch(kind: _Kind, item_hash: bytes, waiter: Waiter) -> None:
    kind.fetcher.stop_fetch(item_hash, waiter)
    kind.early.keep_only(kind.fetcher.is_tracking)


def _fetch(kind: _Kind, item_hash: bytes, waiter: Waiter) -> bool:
    item = kind.get(item_hash)
    if item is None:
        return kind.fetcher.fetch(item_hash, waiter)
    waiter.deliver(item)
    return True
