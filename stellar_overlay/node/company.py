"""Whom a node keeps company with: what it does about it at the start and at each tick."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import OverlayError
from stellar_overlay.gossip.admission import Admission
from stellar_overlay.gossip.dial_pacer import DialPacer
from stellar_overlay.gossip.outreach import Outreach
from stellar_overlay.node.configured_peers import MAX_CONFIGURED_PEERS, ConfiguredPeers
from stellar_overlay.node.dialer import Dialer
from stellar_overlay.node.reconnecting import ReconnectingPeerService
from stellar_overlay.store.peer_manager import (
    BackOffUpdate,
    PeerQuery,
    RandomPeerSource,
    StoredPeerType,
)
from stellar_overlay.store.stores import Stores

START_DELAY_SECONDS = 2
"""At the latest so long after the start the first tick comes (core OverlayManagerImpl.cpp:340);
when exactly is left to chance, so that nodes that start together do not dial together."""


class Company(MultiService):
    """Finds, keeps and remembers peers.

    :param uniform: returns a number in [0, 1).
    :param is_connected: tells whether a peer that listens at an address is connected.
    """

    _log = Logger()

    def __init__(
        self,
        configured: ConfiguredPeers,
        stores: Stores,
        admission: Admission,
        dialer: Dialer,
        clock: IReactorTime,
        *,
        period_seconds: float,
        allow_private: bool,
        allow_localhost: bool,
        is_connected: Callable[[ResolvedPeerAddress], bool],
        is_tracking: Callable[[], bool],
        uniform: Callable[[], float],
    ) -> None:
        super().__init__()
        self.configured = configured
        self._stores = stores
        self._admission = admission
        self._dialer = dialer
        self._clock = clock
        self._period_seconds = period_seconds
        self._is_connected = is_connected
        self._uniform = uniform
        self._outreach = Outreach(
            admission,
            preferred=self._source(StoredPeerType.PREFERRED),
            outbound=self._source(StoredPeerType.OUTBOUND),
            inbound=self._source(StoredPeerType.INBOUND),
            dial=self._dial,
            is_connected=self._is_taken,
            is_connected_outbound=self._is_taken_outbound,
            pacer=DialPacer(allow_private=allow_private),
            is_tracking=is_tracking,
            choice=lambda items: items[int(uniform() * len(items))],
            allow_private=allow_private,
            allow_localhost=allow_localhost,
        )
        self._reset: set[ResolvedPeerAddress] = set()  # what was found for the first time
        self._reconnecting: dict[ResolvedPeerAddress, ReconnectingPeerService] = {}
        self._tick = LoopingCall(self._on_tick)
        self._tick.clock = clock
        self._timers: list[IDelayedCall] = []
        configured.setServiceParent(self)

    def startService(self) -> None:
        """Dial the anchors, then begin to tick."""
        super().startService()
        self._stores.peers.forget_dead_peers()
        self._take_names()
        at = START_DELAY_SECONDS / 2
        self._timers = [
            self._clock.callLater(at * self._uniform(), self._dial_anchors),
            self._clock.callLater(at + at * self._uniform(), self._begin),
        ]

    def stopService(self) -> Deferred[Any]:
        """Dial no more."""
        if self._tick.running:
            self._tick.stop()
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        stopped: Deferred[Any] = super().stopService()
        return stopped

    # The tick.

    def _begin(self) -> None:
        self._tick.start(self._period_seconds)

    def _on_tick(self) -> None:
        try:
            self._take_names()
            self._outreach.tick(self._clock.seconds())
            self._remember_anchors()
        except Exception:  # the next tick may go better; LoopingCall would end
            self._log.failure("tick")

    def _take_names(self) -> None:
        """Put what a round of looking up names has found where it belongs."""
        results = self.configured.take_results()
        if results is None:
            return
        book = self._stores.peers
        for addresses, kind in (
            (results.known, StoredPeerType.OUTBOUND),
            (results.preferred, StoredPeerType.PREFERRED),
        ):
            for address in addresses:
                book.update_type(address, kind, preferred_known=False)
                if address not in self._reset and len(self._reset) < MAX_CONFIGURED_PEERS:
                    self._reset.add(address)
                    book.update_backoff(address, BackOffUpdate.HARD_RESET)
        self._admission.preferred_addresses = frozenset(results.preferred)
        self._admission.configured = frozenset((*results.known, *results.preferred))
        self._keep_connected(self.configured.last_preferred)

    def _keep_connected(self, addresses: AbstractSet[ResolvedPeerAddress]) -> None:
        """Have a service for each preferred peer; one that moved is sought where it went."""
        for address in self._reconnecting.keys() - addresses:
            self._reconnecting.pop(address).disownServiceParent()
        for address in sorted(addresses - self._reconnecting.keys(), key=str):
            self._reconnect(address)

    def _reconnect(self, address: ResolvedPeerAddress) -> None:
        service = self._reconnecting[address] = ReconnectingPeerService(
            address,
            self._dialer,
            self._stores.peers,
            self._clock,
            delay_seconds=START_DELAY_SECONDS * self._uniform(),
            may_dial=self._admission.may_dial_preferred,
            is_connected=self._is_taken,
        )
        service.setServiceParent(self)

    # Dialling.

    def _dial_anchors(self) -> None:
        self._outreach.dial_first(self._stores.anchors, self._clock.seconds())

    def _dial(self, address: ResolvedPeerAddress) -> None:
        Deferred.fromCoroutine(self._dial_quietly(address))

    async def _dial_quietly(self, address: ResolvedPeerAddress) -> None:
        try:
            await self._dialer.dial(address)
        except (OverlayError, CancelledError) as error:
            log = self._log.info if address in self._admission.configured else self._log.debug
            log("{error}", error=str(error))
        except Exception:
            self._log.failure("dialling {address}", address=address)

    def _is_taken(self, address: ResolvedPeerAddress) -> bool:
        return self._is_taken_outbound(address) or self._is_connected(address)

    def _is_taken_outbound(self, address: ResolvedPeerAddress) -> bool:
        """Tell whether nobody need dial there: we did already, or know that it is ourselves."""
        dialer = self._dialer
        return (
            address in dialer.own_addresses
            or dialer.is_dialling(address)
            or dialer.has_link(address)
        )

    def _remember_anchors(self) -> None:
        """Keep the outbound peers of longest standing for the next start."""
        links = self._dialer.link_addresses
        if links:  # after a loss of all of them the old ones are still the best we know
            self._stores.set_anchors(links)

    def _source(self, kind: StoredPeerType) -> RandomPeerSource:
        return RandomPeerSource(self._stores.peers, PeerQuery.to_dial(kind))
