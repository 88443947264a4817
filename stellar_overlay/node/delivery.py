"""Hands each message to whoever wants it, and returns its sender's credit when all are done.

Every message that a node receives goes through :meth:`Delivery.dispatch`, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stellar_overlay.gossip.message_handlers import Handler
from stellar_overlay.gossip.recent import FETCHED, FLOODED, RecentMessages
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.peer import Peer
from stellar_overlay.node.subscriptions import Subscriptions
from stellar_overlay.session.flow_control import Item
from stellar_overlay.wire.channel import RECORD_OVERHEAD
from stellar_overlay.wire.message import MessageType

_TRANSACTION = int(MessageType.TRANSACTION)
_REPEATED = frozenset({int(MessageType.SCP_MESSAGE), _TRANSACTION})
"""What comes from many peers, so that it is remembered who had it."""
_COUNTED = FETCHED | FLOODED
_PHASES = frozenset(
    {
        int(MessageType.TIME_SLICED_SURVEY_START_COLLECTING),
        int(MessageType.TIME_SLICED_SURVEY_STOP_COLLECTING),
    }
)
"""Where a survey's figures begin and end: what came before is counted by then, and nothing else."""


class Delivery:
    """One node's way from a verified message to those who want it.

    :param handlers: what is done with the types that are not flooded.
    :param wall_clock: Unix time in seconds: when observers are told that a message arrived.
    """

    def __init__(
        self,
        relay: Relay,
        handlers: dict[int, Handler],
        subscriptions: Subscriptions,
        wall_clock: Callable[[], float],
        metrics: OverlayMetrics,
    ) -> None:
        self._relay = relay
        self._records = relay.gate.records
        self._handlers = handlers
        self._subscriptions = subscriptions
        self._wall_clock = wall_clock
        self._metrics = metrics
        self._recent = RecentMessages()
        self.holding: dict[Connection, int] = {}
        """Bytes that are held beyond their batch, by link."""
        self.orphaned = 0
        """Bytes that are held although their link is gone."""

    def forget(self, link: Connection) -> None:
        """Note that a link is gone; what is held of it stays until who holds it lets go."""
        self.orphaned += self.holding.pop(link, 0)

    def let_go(self, link: Connection, item: Item) -> None:
        """Return the credit of a message that was held, if there is anybody to return it to."""
        size = len(item[1])
        if link not in self.holding:
            self.orphaned -= size
            return
        self.holding[link] -= size
        if not self.holding[link]:
            del self.holding[link]
        link.finished(item)

    def dispatch(self, link: Connection, peer: Peer, items: Sequence[Item], now: float) -> None:
        """Take a batch: a duplicate costs a look into one dict, and what is new goes further.

        Once somebody drops the peer, what came after is not looked at.
        """
        records, discarded = self._records, self._relay.discarded
        observed_again = self._subscriptions.by_kind_duplicates
        bit = peer.flood_bit
        fresh = fresh_bytes = repeated = repeated_bytes = 0
        held: dict[int, _Held] = {}
        for item in items:
            kind, body = item
            record = records.get(body) if kind in _REPEATED else None
            if record is None:
                if kind in _PHASES:
                    self._report(peer, fresh, fresh_bytes, repeated, repeated_bytes)
                    fresh = fresh_bytes = repeated = repeated_bytes = 0
                    peer.ahead = _rest(items, item, link.waiting)
                if kind not in _REPEATED:
                    self._count_other(peer, kind, body)
                elif discarded and body in discarded:
                    repeated += 1
                    repeated_bytes += len(body)
                else:
                    fresh += 1
                    fresh_bytes += len(body)
                hold = self._take(link, peer, item, now)
            else:
                record.told |= bit
                repeated += 1
                repeated_bytes += len(body)
                if kind == _TRANSACTION:
                    self._relay.recv_again(peer, body, now)
                if kind not in observed_again:
                    continue
                hold = _Held(self, link, item)
                self._show(peer, item, hold, is_first=False)
            if hold.count > 0:
                hold.is_late = True
                held[id(item)] = hold
                self._note_held(link, len(body))
            if link.violation is not None:
                break
        self._report(peer, fresh, fresh_bytes, repeated, repeated_bytes)
        peer.ahead = 0, 0
        link.processed([item for item in items if id(item) not in held] if held else items)

    def _note_held(self, link: Connection, size: int) -> None:
        if link.violation is None:
            self.holding[link] = self.holding.get(link, 0) + size
        else:  # it was dropped while somebody took hold of this
            self.orphaned += size

    def _take(self, link: Connection, peer: Peer, item: Item, now: float) -> _Held:
        """Hand on a message that was not heard before, or is of a kind that is not remembered."""
        kind, body = item
        hold = _Held(self, link, item)
        is_flooded = kind in _REPEATED
        if is_flooded and not self._relay.note_new(peer, kind, body, now):
            return hold
        if kind in self._subscriptions.by_kind:
            self._show(peer, item, hold)
            if link.violation is not None:
                if is_flooded:
                    self._relay.forget(body)  # others may bring it yet
                return hold
        if is_flooded:
            self._relay.recv(peer, kind, body, now, hold.take())
        else:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(peer, body, now)
        return hold

    def _report(
        self, peer: Peer, fresh: int, fresh_bytes: int, repeated: int, repeated_bytes: int
    ) -> None:
        """Count SCP messages and transactions where others look, a batch at a time."""
        if fresh or repeated:
            peer.flood.add(fresh, fresh_bytes, repeated, repeated_bytes)
            self._relay.gate.count(fresh, fresh_bytes, repeated, repeated_bytes)
            self._count(fresh, fresh_bytes, repeated, repeated_bytes)

    def _count(self, fresh: int, fresh_bytes: int, repeated: int, repeated_bytes: int) -> None:
        metrics = self._metrics
        if fresh:
            metrics.flood_unique_recv.add(fresh)
            metrics.flood_unique_bytes_recv.add(fresh_bytes)
        if repeated:
            metrics.flood_duplicate_recv.add(repeated)
            metrics.flood_duplicate_bytes_recv.add(repeated_bytes)

    def _count_other(self, peer: Peer, kind: int, body: bytes) -> None:
        """Count what is fetched, or flooded without being remembered (messages.md 6.4)."""
        if kind not in _COUNTED:
            return
        size, metrics = len(body), self._metrics
        counts = (1, size, 0, 0) if self._recent.note(body) else (0, 0, 1, size)
        if kind not in FETCHED:
            peer.flood.add(*counts)
            self._count(*counts)
            return
        peer.fetched.add(*counts)
        if counts[0]:
            metrics.fetch_unique_recv.add(1)
            metrics.fetch_unique_bytes_recv.add(size)
        else:
            metrics.fetch_duplicate_recv.add(1)
            metrics.fetch_duplicate_bytes_recv.add(size)

    def _show(self, peer: Peer, item: Item, hold: _Held, *, is_first: bool = True) -> None:
        received_at = self._wall_clock()
        pending = self._subscriptions.deliver(peer.peer_id, *item, received_at, is_first)
        if pending is not None:
            pending.addCallback(hold.take())


def _rest(items: Sequence[Item], item: Item, waiting: tuple[int, int]) -> tuple[int, int]:
    """Return how many messages, and bytes on the wire, were read after one of a batch."""
    place = next(place for place, each in enumerate(items) if each is item)
    rest = items[place + 1 :]
    size = sum([len(body) + RECORD_OVERHEAD for _, body in rest])
    return len(rest) + waiting[0], size + waiting[1]


class _Held:
    """A message whose credit somebody may hold beyond its batch.

    :ivar count: how many do.
    :ivar is_late: whether its batch is over.
    """

    __slots__ = ("_delivery", "_item", "_link", "count", "is_late")

    def __init__(self, delivery: Delivery, link: Connection, item: Item) -> None:
        self._delivery = delivery
        self._link = link
        self._item = item
        self.count = 0
        self.is_late = False

    def take(self) -> Any:
        """Return what is to be called when one more of them is done."""
        self.count += 1
        return self._release

    def _release(self, _: object = None) -> None:
        self.count -= 1
        if self.is_late and not self.count:
            self._delivery.let_go(self._link, self._item)
