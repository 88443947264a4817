"""Flooding: what is heard for the first time is judged by the herder and perhaps passed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.recent import RecentMessages
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.gossip.tx_adverts import PullModeConfig
from stellar_overlay.gossip.tx_demands import TxDemandsManager, TxKnownStatus
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import (
    Clock,
    EnvelopeStatus,
    Herder,
    Link,
    Random,
    ScpLatency,
    TxStatus,
)
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, encode_get_scp_state, hashes_of
from stellar_overlay.wire.transaction import tx_full_hash

OWN_TRANSACTIONS = 10_000
OWN_TRANSACTION_BYTES = 16 * 1024 * 1024
"""How much of what we broadcast ourselves is kept for those who demand it."""
SLOTS_AHEAD = 100
"""How far beyond consensus an item may be wanted (core LEDGER_VALIDITY_BRACKET)."""
SILENT_SECONDS = 10
"""Twice the time between pings."""
PEERS_TO_ASK = 2
"""How many are asked for SCP messages at a time when we are out of sync."""

_TRANSACTION = int(MessageType.TRANSACTION)
_PUSHED = frozenset(
    {
        MessageType.SCP_MESSAGE,
        MessageType.TIME_SLICED_SURVEY_REQUEST,
        MessageType.TIME_SLICED_SURVEY_RESPONSE,
        MessageType.TIME_SLICED_SURVEY_START_COLLECTING,
        MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING,
    }
)


class FloodPeer(Link, Protocol):
    """An authenticated peer, as flooding sees it."""

    @property
    def flood_bit(self) -> int:
        """Its bit in what the flood gate remembers."""
        ...

    @property
    def last_read(self) -> float:
        """When it was last heard."""
        ...


Push = Callable[[Message, Sequence[FloodPeer]], None]


class Relay:
    """What floods through a node: duplicates, adverts, demands, and the herder's verdicts.

    It is the :class:`~stellar_overlay.interfaces.Overlay` that the herder uses.

    :param links: all authenticated peers, live.
    :ivar discarded: the messages that are not remembered, as they were no good.
    :ivar push: sends a message of a slot that matters to many peers; whoever has a faster way may
        set it.
    :ivar wake_adverts: called when adverts wait for :meth:`flush_adverts`.
    :ivar wake_demands: called when adverts came in for :meth:`demand`.
    :ivar on_scp_latency: called with how long consensus took somewhere.
    """

    def __init__(
        self,
        herder: Herder,
        gate: FloodGate,
        dispatcher: MessageDispatcher,
        *,
        links: Mapping[PeerId, FloodPeer],
        clock: Clock,
        random: Random,
        metrics: OverlayMetrics,
        config: PullModeConfig | None = None,
    ) -> None:
        self.gate = gate
        self.demands = TxDemandsManager(
            tx_status=self._tx_status,
            get_tx=self._get_tx,
            config=config,
            random=random,
            metrics=metrics,
        )
        self.discarded = RecentMessages()
        self.push: Push = _send_to_each
        self.wake_adverts: Callable[[], object] = _do_nothing
        self.wake_demands: Callable[[], object] = _do_nothing
        self.on_scp_latency: Callable[[ScpLatency, float], None] = _ignore_latency
        self._herder = herder
        self._dispatcher = dispatcher
        self._links = links
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._own_transactions: BoundedDict[bytes, Message] = BoundedDict(
            OWN_TRANSACTIONS, OWN_TRANSACTION_BYTES
        )
        metrics.refreshers.append(self.report)
        dispatcher.handlers[MessageType.FLOOD_ADVERT] = self._recv_advert
        dispatcher.handlers[MessageType.FLOOD_DEMAND] = self._recv_demand

    # From peers.

    def note_new(self, link: FloodPeer, kind: int, body: bytes, now: float) -> bool:
        """Remember a flooded message that was not heard before; False when it is shed.

        That is a matter of DECISIONS.md 14, for transactions alone.
        """
        if kind == _TRANSACTION and not self.gate.allow_message(now):
            return False
        self.gate.add_record(body, link.flood_bit, now)
        return True

    def recv(
        self, link: FloodPeer, kind: int, body: bytes, now: float, done: Callable[[], None]
    ) -> None:
        """Have the herder judge a message that was not heard before.

        :param done: called once, when nothing is to be done with it any more.
        """
        if kind == _TRANSACTION:
            self._recv_transaction(link, body, now, done)
            return

        def judged(status: EnvelopeStatus) -> None:
            if status is EnvelopeStatus.DISCARDED:
                self._metrics.scp_discarded.inc()
                self.forget(body)
            done()

        self._herder.recv_scp_envelope(body, link.peer_id, judged)

    def forget(self, body: bytes) -> None:
        """Have a message judged anew should it come again; it counts as a duplicate even so."""
        self.gate.forget(body)
        self.discarded.note(body)

    def recv_again(self, link: FloodPeer, body: bytes, now: float) -> None:
        """Note that a transaction came once more: whoever was asked for it has answered."""
        if self.demands.pending_count:
            self.demands.record_tx_received(tx_full_hash(body), link.peer_id, now)
        self._metrics.pulled_irrelevant_txs.add(1)

    def _recv_transaction(
        self, link: FloodPeer, body: bytes, now: float, done: Callable[[], None]
    ) -> None:
        tx_hash = tx_full_hash(body)
        self.demands.record_tx_received(tx_hash, link.peer_id, now)

        def judged(status: TxStatus) -> None:
            if status is TxStatus.PENDING:
                self._metrics.pulled_relevant_txs.add(1)
            else:
                self._metrics.pulled_irrelevant_txs.add(1)
                if status is TxStatus.ERROR:
                    self.forget(body)
            done()

        self._herder.recv_transaction(body, tx_hash, link.peer_id, judged)

    def _recv_advert(self, link: Link, body: bytes, now: float) -> None:
        if not self.gate.allow_message(now):
            return
        self.demands.recv_advert(link, hashes_of(body), self.gate.ledger_seq)
        self.wake_demands()

    def _recv_demand(self, link: Link, body: bytes, now: float) -> None:
        self.demands.recv_demand(link, hashes_of(body), now)

    # For the herder and the application.

    def broadcast(self, message: Message) -> int:
        """Push a message, or advertise a transaction, to each peer that does not know it yet.

        :returns: how many were told.
        """
        return self._tell(message, self.push)

    def note_told(self, link: FloodPeer, message: Message) -> None:
        """Note that a peer was sent directly what is flooding: no broadcast need tell it again.

        What was neither heard nor broadcast is not remembered for that: it is still to be judged
        when it is heard.
        """
        record = self.gate.records.get(message.body)
        if record is not None:
            record.told |= link.flood_bit

    def broadcast_own(self, message: Message) -> int:
        """Broadcast what begins here; a transaction is kept for those who will demand it.

        :raises ValueError: for what is not flooded.
        """
        if message.type is MessageType.TRANSACTION:
            self._own_transactions.put(tx_full_hash(message.body), message, message.size)
        elif message.type not in _PUSHED:
            raise ValueError(f"{message.type.name} is not broadcast; send_to sends it to one peer")
        elif message.type is MessageType.SCP_MESSAGE:
            self._herder.note_own_envelope(message)
        return self._tell(message, _send_to_each)  # whoever broadcasts may be behind the times

    def _tell(self, message: Message, push: Push) -> int:
        untold = self.gate.mark(message.body, self._links.values(), self._clock.seconds())
        if not untold:
            return 0
        if message.type is MessageType.TRANSACTION:
            tx_hash, adverts = tx_full_hash(message.body), self.demands.adverts
            told = sum([adverts[link].queue_outgoing_advert(tx_hash) for link in untold])
            self.wake_adverts()
        else:
            push(message, untold)
            told = len(untold)
            self._metrics.flood_broadcast.add(told)
        self._metrics.messages_broadcast.add(1)
        return told

    def fetch_quorum_set(self, item_hash: bytes, slot: int, envelope: bytes) -> bool:
        """Ask for a quorum set; the herder will have it."""
        item = self._dispatcher.get_quorum_set(item_hash)
        if item is None:
            return self._dispatcher.fetch_quorum_set(item_hash, _herders_waiter(slot, envelope))
        self._herder.recv_quorum_set(item_hash, item)
        return True

    def fetch_tx_set(self, item_hash: bytes, slot: int, envelope: bytes) -> bool:
        """Ask for a transaction set; the herder will have it."""
        item = self._dispatcher.get_tx_set(item_hash)
        if item is None:
            return self._dispatcher.fetch_tx_set(item_hash, _herders_waiter(slot, envelope))
        self._herder.recv_tx_set(item_hash, item)
        return True

    def clear_below(self, min_slot: int, keep: int) -> None:
        """Forget what belongs to older slots: consensus has moved."""
        max_slot = self._herder.tracking_ledger() + SLOTS_AHEAD
        self._dispatcher.stop_fetching_outside_range(min_slot, max_slot, keep)
        for adverts in list(self.demands.adverts.values()):
            adverts.clear_below(min_slot)
        self.look_after_records()

    def note_scp_latency(self, kind: ScpLatency, seconds: float) -> None:
        """Hand on how long consensus took somewhere."""
        self.on_scp_latency(kind, seconds)

    # In time.

    def look_after_records(self) -> bool:
        """Forget what is old, and note where consensus stands."""
        self.gate.ledger_seq = self._herder.tracking_ledger()
        self.gate.expire(self._clock.seconds())
        return True

    def report(self) -> None:
        """Set the figures that the flood gate keeps."""
        stats, metrics = self.gate.stats, self._metrics
        metrics.flood_known_count.set(stats.seen_count)
        metrics.flood_evicted.set(stats.evictions_total)
        metrics.flood_rate_limited.set(stats.rate_limited)

    def flush_adverts(self) -> bool:
        """Send the adverts that have waited for company; nothing is left to do."""
        for adverts in list(self.demands.adverts.values()):
            adverts.maybe_flush_on_timer()
        return False

    def demand(self) -> bool:
        """Demand what peers advertised; tell whether any of it may have to be demanded again."""
        self.demands.demand(self._clock.seconds())
        return self.demands.has_work

    def ask_for_scp_state(self) -> bool:
        """Ask two peers what we missed, while we do not follow consensus.

        Core HerderImpl.cpp:2852-2867. Who is silent is not asked: writing to it would keep it.
        """
        if not self._herder.is_tracking():
            heard_since = self._clock.seconds() - SILENT_SECONDS
            links = [link for link in self._links.values() if link.last_read > heard_since]
            for _ in range(min(PEERS_TO_ASK, len(links))):
                link = links.pop(self._random.randrange(len(links)))
                link.send(Message(encode_get_scp_state(self._herder.scp_state_from())))
        return True

    # Transactions.

    def _get_tx(self, tx_hash: bytes) -> Message | None:
        return self._herder.get_tx(tx_hash) or self._own_transactions.get(tx_hash)

    def _tx_status(self, tx_hash: bytes) -> TxKnownStatus:
        if self._get_tx(tx_hash) is not None:
            return TxKnownStatus.KNOWN
        if self._herder.is_banned_tx(tx_hash):
            return TxKnownStatus.BANNED
        return TxKnownStatus.UNKNOWN


def _send_to_each(message: Message, peers: Sequence[FloodPeer]) -> None:
    for peer in peers:
        peer.send(message)


def _do_nothing() -> None:
    pass


def _ignore_latency(kind: ScpLatency, seconds: float) -> None:
    pass


def _herders_waiter(slot: int, envelope: bytes) -> Waiter:
    """Return a waiter for whom nothing is to be done: the herder is told of every item."""
    return Waiter(slot=slot, envelope=envelope, deliver=lambda message: None)
