"""Adverts: which transactions a peer says it has, and which of ours we tell it of.

Transactions are not pushed: their hashes are advertised, and whoever lacks one demands it
(messages.md 2). A hash here is the SHA-256 of a TransactionEnvelope with its signatures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from heapq import heappop, heappush
from itertools import islice

from stellar_overlay.error import ConfigError
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.wire.message import Message, MessageType, encode_hashes

TX_ADVERT_VECTOR_MAX_SIZE = 1000
"""Hashes in one FLOOD_ADVERT (Stellar-overlay.x)."""
TX_DEMAND_VECTOR_MAX_SIZE = 1000
"""Hashes in one FLOOD_DEMAND (Stellar-overlay.x)."""


@dataclass(frozen=True, kw_only=True)
class PullModeConfig:
    """How much is advertised and demanded, and how often (core Config.cpp; messages.md 2.2).

    Core takes the sizes of ledgers from the ledger; a node without one is told them.
    """

    flood_op_rate_per_ledger: float = 1.0
    """Operations that are flooded per ledger, in parts of what a ledger holds."""
    flood_soroban_rate_per_ledger: float = 1.0
    flood_advert_period_ms: int = 100
    """How long adverts wait for company."""
    flood_demand_period_ms: int = 200
    """From one run of demands to the next."""
    flood_demand_backoff_delay_ms: int = 500
    """By how much the wait grows with each peer that was asked for a transaction."""
    max_tx_set_size_ops: int = 10_000
    """Operations in a ledger; also how many adverts of one peer may wait."""
    soroban_ledger_max_tx_count: int = 100
    """Soroban transactions in a ledger."""
    transaction_queue_size_multiplier: int = 2
    """Ledgers' worth of operations that may be pending."""
    soroban_transaction_queue_size_multiplier: int = 2
    expected_close_ms: int = 5000
    """From one ledger to the next."""
    advert_history_size: int = 10_000
    """Hashes remembered of what one peer advertised. Core keeps 50,000; here each takes some 130
    bytes, so 72 peers that advertise junk cost 94 MB."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{each.name}: must be above 0, not {value!r:.100}")

    @property
    def max_advert_size(self) -> int:
        """How many hashes are advertised at once (core TxAdverts::getMaxAdvertSize)."""
        operations = int(self.flood_op_rate_per_ledger * self.max_tx_set_size_ops) + int(
            self.flood_soroban_rate_per_ledger * self.soroban_ledger_max_tx_count
        )
        return self._share(operations, self.flood_advert_period_ms, TX_ADVERT_VECTOR_MAX_SIZE)

    @property
    def max_demand_size(self) -> int:
        """How many a peer is asked for in one run (core TxDemandsManager::getMaxDemandSize)."""
        classic = self.transaction_queue_size_multiplier * self.max_tx_set_size_ops
        soroban = self.soroban_transaction_queue_size_multiplier * self.soroban_ledger_max_tx_count
        operations = int(self.flood_op_rate_per_ledger * classic) + int(
            self.flood_soroban_rate_per_ledger * soroban
        )
        return self._share(operations, self.flood_demand_period_ms, TX_DEMAND_VECTOR_MAX_SIZE)

    def _share(self, per_ledger: int, period_ms: int, most: int) -> int:
        """Return the part of a ledger's worth that falls to a period, rounded up: 1 to ``most``."""
        return min(max(1, -(-per_ledger * period_ms // self.expected_close_ms)), most)


@dataclass(frozen=True, kw_only=True)
class TxAdvertsStats:
    """How many hashes of one peer wait, and how many are remembered."""

    incoming_queue_size: int
    retry_queue_size: int
    outgoing_queue_size: int
    history_size: int


_NOTHING: deque[bytes] = deque()
"""What a peer advertised that never did; a deque of its own takes 760 bytes."""


class TxAdverts:
    """Adverts from and to one peer (core TxAdverts.cpp).

    What waits is bounded: ``max_tx_set_size_ops`` hashes of the peer's, ``max_advert_size`` of
    ours, and ``advert_history_size`` remembered.

    :param send: gets each FLOOD_ADVERT for the peer.
    """

    __slots__ = (
        "_history",
        "_history_size",
        "_incoming",
        "_is_shut_down",
        "_limit",
        "_max_advert_size",
        "_metrics",
        "_outgoing",
        "_retries",
        "_send",
    )

    def __init__(
        self,
        send: Callable[[Message], object],
        config: PullModeConfig | None = None,
        *,
        metrics: OverlayMetrics | None = None,
    ) -> None:
        config = config or PullModeConfig()
        self._send = send
        self._limit = config.max_tx_set_size_ops
        self._max_advert_size = config.max_advert_size
        self._history_size = config.advert_history_size
        self._metrics = metrics or OverlayMetrics()
        self._incoming = _NOTHING
        self._retries = _NO_RETRIES
        self._outgoing: list[bytes] = []
        # Plain, since a BoundedDict takes twice the memory and there is one for each peer.
        self._history: dict[bytes, int] = {}
        self._is_shut_down = False

    # To the peer.

    def queue_outgoing_advert(self, tx_hash: bytes) -> bool:
        """Advertise a transaction with the next flush; at once when enough are waiting.

        :returns: False, and nothing is sent, when the peer advertised it to us.
        """
        if self._is_shut_down or tx_hash in self._history:
            return False
        self._outgoing.append(tx_hash)
        self._metrics.flood_advertised.inc()
        if len(self._outgoing) >= self._max_advert_size:
            self.flush_advert()
        return True

    def flush_advert(self) -> None:
        """Send what waits, in one FLOOD_ADVERT; nothing when nothing does."""
        if self._outgoing:
            hashes, self._outgoing = self._outgoing, []
            self._send(Message(encode_hashes(MessageType.FLOOD_ADVERT, hashes)))

    def maybe_flush_on_timer(self) -> None:
        """Send what waits; to be called once in each ``flood_advert_period_ms``."""
        self.flush_advert()

    @property
    def has_outgoing(self) -> bool:
        """Whether anything waits to be advertised."""
        return bool(self._outgoing)

    @property
    def outgoing_size(self) -> int:
        """How many hashes wait to be advertised."""
        return len(self._outgoing)

    # From the peer.

    def queue_incoming_advert(self, hashes: Sequence[bytes], ledger_seq: int) -> None:
        """Remember what the peer advertised, and queue it to be demanded.

        :param hashes: 32 bytes each; those repeated in one message count once (DECISIONS.md 13).
            When they are too many, the last ones are queued; all are remembered.
        :param ledger_seq: where consensus stands, for :meth:`clear_below`.
        """
        if self._is_shut_down:
            return
        distinct = dict.fromkeys(hashes, ledger_seq)
        self._remember(distinct)
        if self._incoming is _NOTHING:
            self._incoming = deque()
        self._incoming.extend(islice(distinct, max(0, len(distinct) - self._limit), None))
        self._trim()

    def retry_incoming_advert(self, hashes: Iterable[bytes], due: float = -math.inf) -> None:
        """Queue hashes again that were popped too early.

        :param due: from when on they are popped.
        """
        if not self._is_shut_down:
            if self._retries is _NO_RETRIES:
                self._retries = _Retries()
            self._retries.add(hashes, due)
            self._trim()

    def pop_incoming_advert(self, now: float = math.inf) -> bytes | None:
        """Return the next hash to be demanded: of those to be tried again first, if due by ``now``.

        None when there is none.
        """
        tx_hash = self._retries.pop(now)
        if tx_hash is None and self._incoming:
            tx_hash = self._incoming.popleft()
        return tx_hash

    def size(self) -> int:
        """Return how many of the peer's hashes wait, those to be tried again included."""
        return len(self._incoming) + self._retries.size

    @property
    def has_adverts(self) -> bool:
        """Whether any do."""
        return self.size() > 0

    def seen_advert(self, tx_hash: bytes) -> bool:
        """Tell whether the peer advertised a transaction not long ago."""
        return tx_hash in self._history

    def clear_below(self, ledger_seq: int) -> None:
        """Forget what was advertised before that ledger, but what still waits."""
        if any(seen_at < ledger_seq for seen_at in self._history.values()):
            # Anew, as a dict keeps the room of what is removed.
            self._history = {
                tx_hash: seen_at
                for tx_hash, seen_at in self._history.items()
                if seen_at >= ledger_seq
            }

    @property
    def stats(self) -> TxAdvertsStats:
        """The sizes of all queues."""
        return TxAdvertsStats(
            incoming_queue_size=len(self._incoming),
            retry_queue_size=self._retries.size,
            outgoing_queue_size=len(self._outgoing),
            history_size=len(self._history),
        )

    def shutdown(self) -> None:
        """Forget everything, and take and send nothing more: the link has ended."""
        self._is_shut_down = True
        self._incoming = _NOTHING
        self._retries = _NO_RETRIES
        self._outgoing = []
        self._history = {}

    def _remember(self, hashes: dict[bytes, int]) -> None:
        """Note hashes as the latest, and forget the oldest as far as need be.

        Core forgets the older one of two at random.
        """
        history = self._history
        for tx_hash in hashes:
            history.pop(tx_hash, None)
        history.update(hashes)
        # All at once: finding the first entry of a dict takes time in the entries removed there.
        for tx_hash in list(islice(history, max(0, len(history) - self._history_size))):
            del history[tx_hash]

    def _trim(self) -> None:
        """Drop what is beyond the limit, what is to be tried again first (core TxAdverts.cpp)."""
        for _ in range(self.size() - self._limit):
            self.pop_incoming_advert()


class _Retries:
    """Hashes that are to be tried again, each from some moment on; those due first come first.

    There are few moments and many hashes, which so take little more than a pointer each.
    """

    __slots__ = ("_batches", "_moments", "size")

    def __init__(self) -> None:
        self._batches: dict[float, deque[bytes]] = {}
        self._moments: list[float] = []
        self.size = 0

    def add(self, hashes: Iterable[bytes], due: float) -> None:
        """Append hashes to those that are due at the same moment."""
        added = deque(hashes)
        if not added:
            return
        self.size += len(added)
        batch = self._batches.setdefault(due, added)
        if batch is added:
            heappush(self._moments, due)
        else:
            batch.extend(added)

    def pop(self, now: float) -> bytes | None:
        """Return the next that is due; None when none is."""
        if not self._moments or self._moments[0] > now:
            return None
        batch = self._batches[self._moments[0]]
        tx_hash = batch.popleft()
        self.size -= 1
        if not batch:
            del self._batches[heappop(self._moments)]
        return tx_hash


_NO_RETRIES = _Retries()
"""Those of a peer of which nothing was tried again."""
