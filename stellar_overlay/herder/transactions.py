"""Which transactions are good, as far as a node without a ledger can tell, and the pool of those.

The judge looks at one thing after the other, cheap ones first; the rules are those of
DECISIONS 19.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.interfaces import Clock, SignatureCheck, TxStatus, Verifier
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.transaction import TransactionView

DEFAULT_MAX_TX_SIZE = 102_400
"""Bytes, as core counts for a network without Soroban (connection.md 6.1)."""
MAX_POOLED = 10_000
MAX_POOLED_BYTES = 64 * 1024 * 1024
MAX_UNVERIFIED = 2_000
MAX_UNVERIFIED_BYTES = 16 * 1024 * 1024
"""How much is kept of what others than its source have signed, as far as one can see."""
POOL_SECONDS = 300
"""How long a transaction is served to those who demand it."""
MAX_BANNED = 10_000
BAN_SECONDS = 600
"""How long it is remembered that a transaction is no good."""
MAX_CHECKS_PER_SOURCE = 2
"""How many signatures are checked that have the hint of one account. Two keys share a hint once in
four thousand million times; more than that is somebody who wants us to check signatures."""

Judged = Callable[[TxStatus], None]
_Group = list[SignatureCheck]
"""Of which one must be good."""


class _Pooled(NamedTuple):
    """:ivar max_time: the Unix time up to which it is good; 0 is for ever."""

    message: Message
    max_time: int
    added_at: float

    def is_old(self, now: float, wall_now: float) -> bool:
        """Tell whether it is good no more."""
        return now - self.added_at >= POOL_SECONDS or 0 < self.max_time < wall_now


class TransactionPool:
    """The transactions that were found good lately, and the hashes of those that were not.

    :param wall_clock: Unix time in seconds.
    """

    def __init__(self, clock: Clock, wall_clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._pooled: BoundedDict[bytes, _Pooled] = BoundedDict(MAX_POOLED, MAX_POOLED_BYTES)
        # Apart: who writes such needs not even a key, and shall push out nobody else's.
        self._unverified: BoundedDict[bytes, _Pooled] = BoundedDict(
            MAX_UNVERIFIED, MAX_UNVERIFIED_BYTES
        )
        self._banned: BoundedDict[bytes, float] = BoundedDict(MAX_BANNED)

    def __len__(self) -> int:
        return len(self._pooled) + len(self._unverified)

    @property
    def size(self) -> int:
        """How long all messages are together, in bytes."""
        return self._pooled.weight + self._unverified.weight

    def add(self, tx_hash: bytes, message: Message, *, is_verified: bool = True) -> None:
        """Keep a transaction, whatever was thought of it before.

        :param is_verified: whether a signature of its source was seen to be good.
        """
        bounds = TransactionView(message.body).time_bounds
        max_time = 0 if bounds is None else bounds[1]
        self._banned.pop(tx_hash)
        pool = self._pooled if is_verified else self._unverified
        pool.put(tx_hash, _Pooled(message, max_time, self._clock.seconds()), message.size)

    def get(self, tx_hash: bytes) -> Message | None:
        """Return a transaction that is good still."""
        for pool in (self._pooled, self._unverified):
            pooled = pool.get(tx_hash)
            if pooled is None:
                continue
            if not pooled.is_old(self._clock.seconds(), self._wall_clock()):
                return pooled.message
            pool.pop(tx_hash)
        return None

    def ban(self, tx_hash: bytes) -> None:
        """Remember that a transaction is no good, and will not become so."""
        self._banned.put(tx_hash, self._clock.seconds())

    def is_banned(self, tx_hash: bytes) -> bool:
        """Tell whether that is remembered."""
        banned_at = self._banned.get(tx_hash)
        return banned_at is not None and self._clock.seconds() - banned_at < BAN_SECONDS

    def expire(self) -> None:
        """Forget what is good no more."""
        now, wall_now = self._clock.seconds(), self._wall_clock()
        for pool in (self._pooled, self._unverified):
            for tx_hash in list(pool):
                pooled = pool.get(tx_hash)
                if pooled is not None and pooled.is_old(now, wall_now):
                    pool.pop(tx_hash)


class TransactionJudge:
    """Says what each transaction is worth, and puts the good ones into the pool.

    :param accept: called with each that is good, when it is in the pool and before its verdict.
    """

    def __init__(
        self,
        pool: TransactionPool,
        *,
        network_id: bytes,
        verifier: Verifier,
        wall_clock: Callable[[], float],
        accept: Callable[[Message], object],
        max_tx_size: int = DEFAULT_MAX_TX_SIZE,
    ) -> None:
        self._pool = pool
        self._network_id = network_id
        self._verifier = verifier
        self._wall_clock = wall_clock
        self._accept = accept
        self._max_tx_size = max_tx_size
        self._under_way: dict[bytes, list[Judged]] = {}
        self._is_stopped = False

    def stop(self) -> None:
        """Find nothing good any more; what is being verified gets its verdict still."""
        self._is_stopped = True

    def judge(self, body: bytes, tx_hash: bytes, done: Judged) -> None:
        """Call ``done`` once, at once or when the signatures are verified.

        A transaction that is being verified already waits for the same verdict: if that is
        PENDING, it is a DUPLICATE.
        """
        waiting = self._under_way.get(tx_hash)
        if waiting is not None:
            waiting.append(done)
            return
        verdict = self._judge_at_once(body, tx_hash)
        if verdict is not None:
            done(verdict)
            return
        self._under_way[tx_hash] = [done]
        groups = _signature_groups(TransactionView(body), self._network_id)
        is_seen = bool(groups)
        self._verify(groups, partial(self._verified, body, tx_hash, is_seen))

    def _judge_at_once(self, body: bytes, tx_hash: bytes) -> TxStatus | None:
        """Return what can be said without looking at signatures."""
        pool = self._pool
        if self._is_stopped:
            return TxStatus.ERROR
        if len(body) > self._max_tx_size:
            pool.ban(tx_hash)
            return TxStatus.ERROR
        if pool.get(tx_hash) is not None:
            return TxStatus.DUPLICATE
        if pool.is_banned(tx_hash):
            return TxStatus.ERROR
        view = TransactionView(body)
        earliest, latest = view.time_bounds or (0, 0)
        wall_now = self._wall_clock()
        is_signed = all(part.is_signed for part in _parts(view))
        if not is_signed or 0 < latest < wall_now:
            pool.ban(tx_hash)
            return TxStatus.ERROR
        return TxStatus.ERROR if earliest > wall_now else None

    def _verify(self, groups: Sequence[_Group], done: Callable[[bool], None]) -> None:
        """Look for one good signature in each group, one after the other."""
        if not groups:
            done(True)
        elif not groups[0]:
            done(False)
        else:
            (check, *others), *rest = groups

            def checked(is_good: bool) -> None:
                self._verify(rest if is_good else [others, *rest], done)

            self._verifier.verify(check, checked)

    def _verified(self, body: bytes, tx_hash: bytes, is_seen: bool, is_good: bool) -> None:
        first, *others = self._under_way.pop(tx_hash)
        verdict = other_verdict = TxStatus.ERROR
        try:
            if is_good and not self._is_stopped:
                verdict, other_verdict = TxStatus.PENDING, TxStatus.DUPLICATE
                message = Message(body)
                self._pool.add(tx_hash, message, is_verified=is_seen)
                self._accept(message)
            elif not self._is_stopped:
                self._pool.ban(tx_hash)
        finally:  # whatever goes wrong, their senders have their credit back
            first(verdict)
            for done in others:
                done(other_verdict)


def _parts(view: TransactionView) -> list[TransactionView]:
    """Return a transaction, and the one inside it: each has a source, and signatures."""
    return [view] if view.inner is None else [view, view.inner]


def _signature_groups(view: TransactionView, network_id: bytes) -> list[_Group]:
    """Return, for each account that pays and seems to have signed, what may be its signature.

    None may seem to have: others can sign for an account, which only a ledger can tell.
    """
    groups = []
    for part in _parts(view):
        checks = part.signature_checks(network_id)[:MAX_CHECKS_PER_SOURCE]
        if checks:
            groups.append([SignatureCheck(*check) for check in checks])
    return groups
