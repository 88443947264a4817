"""Hands each message to whoever wants it, and returns its sender's credit when all are done.

Every message that a node receives goes through :meth:`Delivery.dispatch`, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stellar_overlay.gossip.message_handlers import Handler
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.peer import Peer
from stellar_overlay.node.subscriptions import Subscriptions
from stellar_overlay.session.flow_control import Item
from stellar_overlay.wire.message import MessageType

_TRANSACTION = int(MessageType.TRANSACTION)
_REPEATED = frozenset({int(MessageType.SCP_MESSAGE), _TRANSACTION})
"""What comes from many peers, so that it is remembered who had it."""


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
        records = self._records
        observed_again = self._subscriptions.by_kind_duplicates
        bit = peer.flood_bit
        fresh = fresh_bytes = repeated = repeated_bytes = 0
        held: dict[int, _Held] = {}
        for item in items:
            kind, body = item
            record = records.get(body) if kind in _REPEATED else None
            if record is None:
                if kind in _REPEATED:
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
                self.holding[link] = self.holding.get(link, 0) + len(body)
            if link.violation is not None:
                break
        if fresh or repeated:
            peer.flood.add(fresh, fresh_bytes, repeated, repeated_bytes)
            self._relay.gate.count(fresh, fresh_bytes, repeated, repeated_bytes)
            self._count(fresh, fresh_bytes, repeated, repeated_bytes)
        link.processed([item for item in items if id(item) not in held] if held else items)

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
                    self._relay.gate.forget(body)  # others may bring it yet
                return hold
        if is_flooded:
            self._relay.recv(peer, kind, body, now, hold.take())
        else:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(peer, body, now)
        return hold

    def _count(self, fresh: int, fresh_bytes: int, repeated: int, repeated_bytes: int) -> None:
        metrics = self._metrics
        if fresh:
            metrics.flood_unique_recv.add(fresh)
            metrics.flood_unique_bytes_recv.add(fresh_bytes)
        if repeated:
            metrics.flood_duplicate_recv.add(repeated)
            metrics.flood_duplicate_bytes_recv.add(repeated_bytes)

    def _show(self, peer: Peer, item: Item, hold: _Held, *, is_first: bool = True) -> None:
        received_at = self._wall_clock()
        pending = self._subscriptions.deliver(peer.peer_id, *item, received_at, is_first)
        if pending is not None:
            pending.addCallback(hold.take())


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
