"""What was demanded, from whom and when: for as long as that decides whom to ask next."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from stellar_overlay.bounded import BoundedDict

MAX_RETRY_COUNT = 15
"""Peers that are asked for one transaction (core TxDemandsManager.h:45)."""
MAX_DELAY_DEMAND_SECONDS = 2.0
"""From asking one of them to asking the next, at most (core TxDemandsManager.cpp:25)."""
RETENTION_SECONDS = 2 * MAX_RETRY_COUNT * MAX_DELAY_DEMAND_SECONDS
"""How long a demand is remembered; then the transaction may be demanded anew."""
MAX_WAITING = 50_000
"""Transactions demanded and not received that are remembered. By rate alone 72 peers could make
it 17 million (72 x 808 a run x 300 runs in 60 s). The first half is for whoever comes first, the
other half shared out among the peers, so that nobody's junk keeps others' transactions waiting."""
MAX_RECEIVED = 50_000
"""Transactions demanded and received that are remembered, for how long they took."""


@dataclass(slots=True, eq=False)
class Demanded:
    """A transaction that was demanded: when first and last, and by node key when from whom."""

    first: float
    last: float
    peers: dict[bytes, float]
    is_received: bool = False


class DemandHistory:
    """The demands of the last ``RETENTION_SECONDS``.

    :ivar waiting: those not received, oldest first.
    :ivar received: the others; these may be evicted, as nobody is asked for what we have.
    """

    def __init__(self) -> None:
        self.waiting: OrderedDict[bytes, Demanded] = OrderedDict()
        self.received: BoundedDict[bytes, Demanded] = BoundedDict(MAX_RECEIVED)
        self._waiting_for: Counter[bytes] = Counter()

    def find(self, tx_hash: bytes, now: float) -> Demanded | None:
        """Return a demand that is not too old."""
        demanded = self.waiting.get(tx_hash) or self.received.get(tx_hash)
        if demanded is None or now - demanded.first >= RETENTION_SECONDS:
            return None
        return demanded

    def has_room(self, key: bytes, peers: int) -> bool:
        """Tell whether one of so many peers may be asked for something new."""
        if len(self.waiting) < MAX_WAITING // 2:
            return True
        share = MAX_WAITING // 2 // max(1, peers)
        return len(self.waiting) < MAX_WAITING and self._waiting_for[key] < share

    def ask(self, tx_hash: bytes, key: bytes, now: float) -> bool:
        """Note that a peer is asked; tell whether it is the first one."""
        demanded = self.find(tx_hash, now)
        if demanded is not None:
            demanded.peers[key] = demanded.last = now
            return False
        self.received.pop(tx_hash)
        self.waiting[tx_hash] = Demanded(now, now, {key: now})
        self._waiting_for[key] += 1
        return True

    def receive(self, tx_hash: bytes, demanded: Demanded) -> None:
        """Note that a transaction came for the first time."""
        demanded.is_received = True
        self._stop_waiting(tx_hash)
        self.received.put(tx_hash, demanded)

    def forget_old(self, now: float) -> int:
        """Forget the demands that are too old; return how many were in vain."""
        abandoned = 0
        while self.waiting:
            tx_hash, demanded = next(iter(self.waiting.items()))
            if now - demanded.first < RETENTION_SECONDS:
                break
            self._stop_waiting(tx_hash)
            abandoned += 1
        while self.received:
            tx_hash = next(iter(self.received))
            if self.find(tx_hash, now) is not None:
                break
            self.received.pop(tx_hash)
        return abandoned

    def _stop_waiting(self, tx_hash: bytes) -> None:
        first_asked = next(iter(self.waiting.pop(tx_hash).peers))
        self._waiting_for[first_asked] -= 1
        if not self._waiting_for[first_asked]:
            del self._waiting_for[first_asked]
