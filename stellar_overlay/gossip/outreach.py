"""Whom to dial next, and when to try other company: what is decided at each tick."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import DropReason
from stellar_overlay.gossip.admission import MIN_INBOUND_FACTOR, Admission
from stellar_overlay.gossip.census import Candidate
from stellar_overlay.gossip.dial_pacer import DialPacer
from stellar_overlay.gossip.reachable import is_nobodys, is_reachable
from stellar_overlay.interfaces import PeerSource

MAX_DIALS_PER_STEP = 50
"""Of one tick (core OverlayManagerImpl.cpp, connection.md 8.7)."""
RESERVED_FOR_PROMOTION = 1
"""Pending slots that outbound peers leave to addresses that were only heard of."""
OUT_OF_SYNC_SECONDS = 60
"""Out of sync for longer, we drop one peer at random; the next after as long again."""


class Outreach:
    """Fills the outbound slots, from the best addresses to those that were only heard of.

    :param preferred: addresses of preferred peers that are due.
    :param outbound: addresses at which somebody has answered, and known peers.
    :param inbound: addresses that were only heard of, or that called us.
    :param dial: starts an attempt; calls ``admission.begin_dial`` before it returns.
    :param is_connected: tells whether a peer that listens there is connected, or being dialled.
    :param is_connected_outbound: tells whether we dialled it: links that came in do not count.
    :param is_tracking: tells whether the node follows consensus.
    :param choice: returns any one of a sequence that is not empty.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        preferred: PeerSource,
        outbound: PeerSource,
        inbound: PeerSource,
        dial: Callable[[ResolvedPeerAddress], None],
        is_connected: Callable[[ResolvedPeerAddress], bool],
        is_connected_outbound: Callable[[ResolvedPeerAddress], bool],
        pacer: DialPacer,
        is_tracking: Callable[[], bool],
        choice: Callable[[Sequence[Candidate]], Candidate],
        allow_private: bool,
        allow_localhost: bool = False,
    ) -> None:
        self._admission = admission
        self._preferred = preferred
        self._outbound = outbound
        self._inbound = inbound
        self._dial = dial
        self._is_connected = is_connected
        self._is_connected_outbound = is_connected_outbound
        self._pacer = pacer
        self._is_tracking = is_tracking
        self._choice = choice
        self._is_reachable = partial(
            is_reachable, allow_private=allow_private, allow_localhost=allow_localhost
        )
        self._out_of_sync_since: float | None = None

    def tick(self, now: float) -> None:
        """Do what is due, in core's order (connection.md 8.7, steps 4 to 9)."""
        admission = self._admission
        free = admission.limits.max_outbound_pending - admission.pending_outbound
        if free <= 0:
            return
        missing = self._missing
        wanted = min(free, missing + admission.non_preferred_outbound)
        free -= self._dial_some(self._preferred, wanted, self._is_connected, now)
        self._leave_bad_company(now, may_drop=missing == 0 and free > 0)
        missing = self._missing  # one more, if somebody was dropped
        if free > 0 and missing > 0:
            wanted = min(free - RESERVED_FOR_PROMOTION, missing) if free > 1 else free
            free -= self._dial_some(self._outbound, wanted, self._is_connected, now)
        if free > 0:
            self._dial_some(self._inbound, free, self._is_connected_outbound, now)

    def dial_first(self, addresses: Sequence[ResolvedPeerAddress], now: float) -> None:
        """Dial those that may be dialled now: peers of before a restart, whether due or not."""
        for address in addresses:
            is_free = self._admission.may_dial() and not self._is_connected(address)
            if is_free and self._may_dial(address, now):
                self._note_and_dial(address, now)

    @property
    def _missing(self) -> int:
        """How many more peers we want to have dialled.

        Whom nobody calls goes out less, as it takes slots that it does not give.
        """
        admission = self._admission
        target = admission.limits.target_outbound
        if not admission.authenticated_inbound:
            target = min(target, MIN_INBOUND_FACTOR)
        return max(0, target - admission.authenticated_outbound)

    def _leave_bad_company(self, now: float, *, may_drop: bool) -> None:
        """Drop a peer once in a while as long as we are out of sync: others may know more."""
        if self._is_tracking():
            self._out_of_sync_since = None
        elif self._out_of_sync_since is None:
            self._out_of_sync_since = now
        elif may_drop and now - self._out_of_sync_since > OUT_OF_SYNC_SECONDS:
            self._out_of_sync_since = now
            peer = self._admission.random_non_preferred_outbound(self._choice)
            if peer is not None:
                peer.drop(DropReason.RANDOM_DISCONNECT.violation())

    def _dial_some(
        self,
        source: PeerSource,
        wanted: int,
        is_taken: Callable[[ResolvedPeerAddress], bool],
        now: float,
    ) -> int:
        """Dial up to so many addresses of a source; return how many.

        What a source returns is looked at once more: each dial may have used up the pace, or a
        network group, for the next. Then it is asked again for what is missing.
        """

        def accept(address: ResolvedPeerAddress) -> bool:
            return not is_taken(address) and self._may_dial(address, now)

        wanted = min(wanted, MAX_DIALS_PER_STEP)
        dialled = 0
        while dialled < wanted:
            addresses = source.get_random_peers(wanted - dialled, accept)
            before, is_exhausted = dialled, len(addresses) < wanted - dialled
            for address in addresses:
                if self._admission.may_dial() and accept(address):
                    self._note_and_dial(address, now)
                    dialled += 1
            if is_exhausted or dialled == before:
                break
        return dialled

    def _may_dial(self, address: ResolvedPeerAddress, now: float) -> bool:
        if self._admission.is_configured(address):
            return not is_nobodys(address)
        return (
            self._pacer.may_dial(address, now)  # first, as it is cheap, and says no most often
            and self._is_reachable(address)
            and self._admission.may_dial_group(address)
        )

    def _note_and_dial(self, address: ResolvedPeerAddress, now: float) -> None:
        if not self._admission.is_configured(address):
            self._pacer.allow(address, now)
        self._dial(address)
