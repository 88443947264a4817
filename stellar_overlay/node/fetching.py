"""Awaiting an item that some peer will have: a Deferred around a waiter of the item fetcher."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from stellar_overlay.error import FetchTimeout, OverlayError, ShuttingDown
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.wire.message import Message

HASH_SIZE = 32


Fetch = Callable[[bytes, Waiter], bool]
StopFetch = Callable[[bytes, Waiter], None]


class Fetches:
    """What applications are waiting for.

    :param clock: for time-outs.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pending: set[Deferred[Message]] = set()
        self._is_ended = False

    async def fetch(
        self, start: Fetch, stop: StopFetch, item_hash: bytes, seconds: float
    ) -> Message:
        """Return the item with a hash; cancelling the call, or its time-out, ends the search.

        :param start: begins to wait, or delivers at once; False when too much is waited for.
        :param stop: ends waiting.
        :raises ValueError: when the hash is not 32 bytes, or no time is given.
        :raises FetchTimeout: when nobody had it in time.
        :raises ShuttingDown: when the overlay is stopped meanwhile.
        """
        if not isinstance(item_hash, bytes | bytearray) or len(item_hash) != HASH_SIZE:
            raise ValueError(f"a hash is 32 bytes, not {item_hash!r:.100}")
        if not seconds > 0:
            raise ValueError(f"the time-out is a number of seconds above 0, not {seconds!r:.100}")
        if self._is_ended:
            raise ShuttingDown("the overlay is stopped")
        item_hash = bytes(item_hash)
        found: Deferred[Message] = Deferred()
        waiter = Waiter(slot=None, envelope=None, deliver=found.callback)
        if not start(item_hash, waiter):
            raise OverlayError(f"{item_hash.hex()} is not asked for: too many items are already")
        late = None
        if not found.called:
            timeout = FetchTimeout(f"no peer sent {item_hash.hex()} within {seconds:g} s")
            late = self._clock.callLater(seconds, found.errback, timeout)
            self._pending.add(found)
        try:
            return await found
        finally:
            self._pending.discard(found)
            stop(item_hash, waiter)
            if late is not None and late.active():
                late.cancel()

    def end_all(self) -> None:
        """Let nobody wait any more: the overlay stops."""
        self._is_ended = True
        for found in list(self._pending):
            found.errback(ShuttingDown("the overlay is stopped"))
