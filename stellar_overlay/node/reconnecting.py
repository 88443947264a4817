"""Links that come back by themselves: one service per preferred peer."""

from __future__ import annotations

from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import OverlayError
from stellar_overlay.node.dialer import Dialer
from stellar_overlay.store.peer_manager import PeerManager

CHECK_SECONDS = 3
"""How often it is looked whether the link is still there, or a slot has become free."""


class ReconnectingPeerService(Service):
    """Keeps one peer connected while it runs: dials it, and again whenever there is no link.

    When to dial next is the peer table's decision, so that a restart forgets no back-off and an
    operator sees it; but in a running node no other dial delays a preferred peer.

    :param delay_seconds: at least so long after its start the first attempt is made.
    :param may_dial: tells whether there is a slot, be it one that has to be made free.
    :param is_connected: tells whether the peer is connected, whoever dialled.
    """

    _log = Logger()

    def __init__(
        self,
        address: ResolvedPeerAddress,
        dialer: Dialer,
        book: PeerManager,
        clock: IReactorTime,
        *,
        delay_seconds: float = 0,
        may_dial: Callable[[], bool],
        is_connected: Callable[[ResolvedPeerAddress], bool],
    ) -> None:
        self.address = address
        self._dialer = dialer
        self._book = book
        self._clock = clock
        self._delay_seconds = delay_seconds
        self._may_dial = may_dial
        self._is_connected = is_connected
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """Dial as soon as the table allows."""
        super().startService()
        self._wait(max(self._delay_seconds, self.seconds_to_wait))

    def stopService(self) -> None:
        """Dial no more; a link that is there stays."""
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    @property
    def seconds_to_wait(self) -> float:
        """How long the table has us wait before the next attempt."""
        return self._book.seconds_to_wait(self.address)

    def _wait(self, seconds: float) -> None:
        if self.running:
            self._timer = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._is_connected(self.address) or not self._may_dial():
            self._wait(CHECK_SECONDS)
        elif self.seconds_to_wait > 0:
            self._wait(min(self.seconds_to_wait, CHECK_SECONDS))
        else:
            Deferred.fromCoroutine(self._dial())

    async def _dial(self) -> None:
        try:
            await self._dialer.dial(self.address)
        except (OverlayError, CancelledError) as error:
            self._log.info("preferred peer {error}", error=str(error))
        except Exception:
            self._log.failure("dialling {address}", address=self.address)
        self._wait(CHECK_SECONDS)
