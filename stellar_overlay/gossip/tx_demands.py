"""Demands: which peer is asked for which advertised transaction, and what we answer to theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.gossip.demand_history import (
    MAX_DELAY_DEMAND_SECONDS,
    MAX_RETRY_COUNT,
    DemandHistory,
)
from stellar_overlay.gossip.tx_adverts import PullModeConfig, TxAdverts
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Link, Random
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, encode_hashes

MAX_LOOKS_PER_RUN = 20_000
"""Advertised hashes looked at in one run, some 25 ms; shared out among the peers that have any."""
CLOCK_GRAIN = 1e-6
"""Times are sums of floats: what is due within a microsecond is due."""
ANSWER_AGAIN_SECONDS = 30.0
"""How long a peer does not get a transaction again. Who waits as long as core before it asks the
same peer twice, which is 60 s, always gets it, should the first answer have been lost."""
MAX_ANSWERS_REMEMBERED = 2000
"""Per peer. Who demands more than those in turn gets them again, as fast as it gives credit."""


class DemandStatus(Enum):
    """What is to be done with an advertised hash."""

    DEMAND = "demand"
    RETRY_LATER = "retry-later"
    """Somebody else was asked not long ago, or there is no room."""
    DISCARD = "discard"
    """This peer need never be asked."""


class TxKnownStatus(Enum):
    """What the node knows of a transaction."""

    UNKNOWN = "unknown"
    KNOWN = "known"
    BANNED = "banned"


@dataclass(frozen=True, kw_only=True)
class TxPullLatency:
    """How long it took to get a transaction, in seconds.

    :ivar total_latency: since it was demanded first.
    :ivar peer_latency: since the peer that sent it was asked; None when it was not.
    """

    total_latency: float
    peer_latency: float | None
    peers_asked: int


@dataclass(frozen=True, kw_only=True)
class TxDemandsStats:
    """Demands remembered: all, which core counts twice, and those of what was not received."""

    pending_demands: int
    demand_history_size: int
    unserved_demands: int


class TxDemandsManager:
    """Demands what peers advertise, each transaction from one peer at a time; answers demands.

    Core TxDemandsManager.cpp; messages.md 2.5 and 2.6. All times are seconds of one clock.

    :param tx_status: what is known of a transaction; only unknown ones are demanded.
    :param get_tx: returns the TRANSACTION with that hash, if we have it to give away.
    :param random: who is asked first.
    :ivar adverts: of each peer.
    """

    def __init__(
        self,
        *,
        tx_status: Callable[[bytes], TxKnownStatus],
        get_tx: Callable[[bytes], Message | None],
        config: PullModeConfig | None = None,
        random: Random,
        metrics: OverlayMetrics | None = None,
    ) -> None:
        self.adverts: dict[Link, TxAdverts] = {}
        self._answered: dict[Link, BoundedDict[bytes, float]] = {}
        self._tx_status = tx_status
        self._get_tx = get_tx
        self._config = config or PullModeConfig()
        self._max_demand_size = self._config.max_demand_size
        self._random = random
        self._metrics = metrics or OverlayMetrics()
        self._history = DemandHistory()
        self._is_shut_down = False

    def add_peer(self, link: Link) -> TxAdverts:
        """Begin to exchange adverts and demands with an authenticated peer."""
        if link not in self.adverts:
            self.adverts[link] = TxAdverts(link.send, self._config, metrics=self._metrics)
        return self.adverts[link]

    def remove_peer(self, link: Link) -> None:
        """Forget a link that ended; what its peer was asked for is remembered all the same."""
        self._answered.pop(link, None)
        adverts = self.adverts.pop(link, None)
        if adverts is not None:
            adverts.shutdown()

    def shutdown(self) -> None:
        """Forget everything; demand and answer nothing more."""
        self._is_shut_down = True
        for link in list(self.adverts):
            self.remove_peer(link)
        self._history = DemandHistory()

    # What we lack.

    def recv_advert(self, link: Link, hashes: Sequence[bytes], ledger_seq: int) -> None:
        """Take a FLOOD_ADVERT: its hashes wait for the next run of :meth:`demand`."""
        adverts = self.adverts.get(link)
        if adverts is not None:
            adverts.queue_incoming_advert(hashes, ledger_seq)

    def demand(self, now: float) -> None:
        """Demand what was advertised; to be called once in each ``flood_demand_period_ms``.

        Peers take turns, in random order; in its turn each is asked for one more transaction.
        """
        if self._is_shut_down:
            return
        self._metrics.abandoned_demands.inc(self._history.forget_old(now))
        runs = [_Run(link, each) for link, each in self.adverts.items() if each.has_adverts]
        self._shuffle(runs)
        for run in runs:
            run.looks = max(1, MAX_LOOKS_PER_RUN // len(runs))
        # Who has nothing more to be asked for will not have anything later in the same run.
        taking_turns = runs
        while taking_turns:
            taking_turns = [run for run in taking_turns if self._take_turn(run, now)]
        for run in runs:
            for due, hashes in run.retries.items():
                run.adverts.retry_incoming_advert(hashes, due)
            if run.wanted:  # what is lost on the way is asked of others, as in core
                self._metrics.flood_demanded.inc(len(run.wanted))
                run.link.send(Message(encode_hashes(MessageType.FLOOD_DEMAND, run.wanted)))

    def demand_status(self, tx_hash: bytes, peer_id: PeerId, now: float) -> DemandStatus:
        """Tell whether a peer that advertised a transaction is to be asked for it."""
        return self._judge(tx_hash, peer_id.key, now)[0]

    def retry_delay(self, attempts: int) -> float:
        """Return how many seconds the next peer is not asked when so many were."""
        delay = attempts * self._config.flood_demand_backoff_delay_ms / 1000
        return min(delay, MAX_DELAY_DEMAND_SECONDS)

    def record_tx_received(
        self, tx_hash: bytes, peer_id: PeerId, now: float
    ) -> TxPullLatency | None:
        """Note that a peer sent a transaction; None when nobody was asked for it.

        Whether it is still to be demanded is for ``tx_status`` to say.
        """
        demanded = self._history.find(tx_hash, now)
        if demanded is None:
            return None
        total = now - demanded.first
        if not demanded.is_received:
            self._metrics.tx_pull_latency.record(total)
            self._history.receive(tx_hash, demanded)
        asked_at = demanded.peers.get(peer_id.key)
        latency = None if asked_at is None else now - asked_at
        if latency is not None:
            self._metrics.peer_tx_pull_latency.record(latency)
        return TxPullLatency(
            total_latency=total, peer_latency=latency, peers_asked=len(demanded.peers)
        )

    @property
    def has_work(self) -> bool:
        """Whether there is anything to demand, or to forget, in the next run."""
        return self.pending_count > 0 or any(each.has_adverts for each in self.adverts.values())

    @property
    def pending_count(self) -> int:
        """How many transactions are remembered as demanded, whether received or not."""
        return len(self._history.waiting) + len(self._history.received)

    @property
    def stats(self) -> TxDemandsStats:
        """How many demands are remembered."""
        return TxDemandsStats(
            pending_demands=self.pending_count,
            demand_history_size=self.pending_count,
            unserved_demands=len(self._history.waiting),
        )

    # What others lack.

    def recv_demand(self, link: Link, hashes: Sequence[bytes], now: float) -> None:
        """Answer a FLOOD_DEMAND: one TRANSACTION for each hash that we have; no other answer.

        A hash repeated in one message counts once (DECISIONS.md 13). In another message it is not
        answered again to the same peer for ``ANSWER_AGAIN_SECONDS``, but counted in
        ``queries_ignored``: a demand takes 40 bytes, and its answer may take 100,000.
        """
        if link not in self.adverts:
            return
        answered = self._answered.get(link)
        if answered is None:
            answered = self._answered[link] = BoundedDict(MAX_ANSWERS_REMEMBERED)
        _forget_answers(answered, now)
        metrics = self._metrics
        for tx_hash in dict.fromkeys(hashes):
            transaction = self._get_tx(tx_hash)
            if transaction is None:
                if self._tx_status(tx_hash) is TxKnownStatus.BANNED:
                    metrics.flood_unfulfilled_banned.inc()
                else:
                    metrics.flood_unfulfilled_unknown.inc()
            elif tx_hash in answered:
                metrics.queries_ignored.inc()
            elif link.send(transaction):
                answered.put(tx_hash, now)
                metrics.flood_fulfilled.inc()
            else:
                metrics.answers_refused.inc()

    # One run.

    def _take_turn(self, run: _Run, now: float) -> bool:
        """Add one transaction to what a peer is asked for; tell whether there was one."""
        key = run.link.peer_id.key
        while run.looks and len(run.wanted) < self._max_demand_size:
            tx_hash = run.adverts.pop_incoming_advert(now)
            if tx_hash is None:
                return False
            run.looks -= 1
            status, due = self._judge(tx_hash, key, now)
            if status is DemandStatus.DEMAND:
                if not self._history.ask(tx_hash, key, now):
                    self._metrics.demand_timeouts.inc()
                run.wanted.append(tx_hash)
                return True
            if status is DemandStatus.RETRY_LATER:
                run.retries.setdefault(due, []).append(tx_hash)
        return False

    def _judge(self, tx_hash: bytes, key: bytes, now: float) -> tuple[DemandStatus, float]:
        """Return what is to be done with a peer's advert, and when it makes sense to ask again."""
        demanded = self._history.find(tx_hash, now)
        if demanded is not None and (
            key in demanded.peers or len(demanded.peers) >= MAX_RETRY_COUNT
        ):
            return DemandStatus.DISCARD, now
        if self._tx_status(tx_hash) is not TxKnownStatus.UNKNOWN:
            return DemandStatus.DISCARD, now
        if demanded is not None:
            due = demanded.last + self.retry_delay(len(demanded.peers)) - CLOCK_GRAIN
        elif self._history.has_room(key, len(self.adverts)):
            due = now
        else:
            due = now + self.retry_delay(1)
        return (DemandStatus.RETRY_LATER if now < due else DemandStatus.DEMAND), due

    def _shuffle(self, runs: list[_Run]) -> None:
        for i in range(len(runs) - 1, 0, -1):
            j = self._random.randrange(i + 1)
            runs[i], runs[j] = runs[j], runs[i]


def _forget_answers(answered: BoundedDict[bytes, float], now: float) -> None:
    """Forget what may be answered again."""
    while answered:
        tx_hash = next(iter(answered))
        if now - (answered.get(tx_hash) or 0.0) < ANSWER_AGAIN_SECONDS:
            break
        answered.pop(tx_hash)


@dataclass(slots=True, eq=False)
class _Run:
    """What one run of demands does with one peer.

    :ivar retries: hashes to try again, by when.
    :ivar looks: how many more of its hashes may be looked at.
    """

    link: Link
    adverts: TxAdverts
    wanted: list[bytes] = field(default_factory=list)
    retries: dict[float, list[bytes]] = field(default_factory=dict)
    looks: int = 0
