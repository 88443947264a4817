"""How fast we dial: strangers' addresses must not make us a nuisance to third parties."""

from __future__ import annotations

from collections import deque

from stellar_overlay.address import ResolvedPeerAddress

MAX_DIALS_PER_SECOND = 10
"""To all addresses, in any one second (DECISIONS.md 16)."""
SECONDS_PER_HOST = 60
"""From one dial to the next at the same IP address, whatever the ports (DECISIONS.md 16)."""


class DialPacer:
    """Says whether an address may be dialled now: two sliding windows, one of them per IP address.

    Remembers the dials of the last minute only, which are at most 600 as it allowed them itself.

    :param allow_private: whether private addresses are dialled at any pace, and not counted.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._recent: deque[float] = deque(maxlen=MAX_DIALS_PER_SECOND)
        self._by_host: dict[str, float] = {}

    def may_dial(self, address: ResolvedPeerAddress, now: float) -> bool:
        """Tell what :meth:`allow` would answer, and note nothing."""
        if self._is_exempt(address):
            return True
        if self.is_spent(now):
            return False
        last = self._by_host.get(address.host)
        return last is None or now - last >= SECONDS_PER_HOST

    def is_spent(self, now: float) -> bool:
        """Tell whether nobody may be dialled now who is not exempt."""
        recent = self._recent
        return len(recent) == MAX_DIALS_PER_SECOND and now - recent[0] < 1

    def allow(self, address: ResolvedPeerAddress, now: float) -> bool:
        """Tell whether ``address`` may be dialled now, and if so take it for done."""
        if not self.may_dial(address, now):
            return False
        if not self._is_exempt(address):
            self._forget_before(now - SECONDS_PER_HOST)
            self._recent.append(now)
            self._by_host[address.host] = now
        return True

    def _is_exempt(self, address: ResolvedPeerAddress) -> bool:
        return self._allow_private and address.is_private

    def _forget_before(self, time: float) -> None:
        """Forget who was dialled then or earlier; they stand in the order of their dials."""
        by_host = self._by_host
        while by_host and by_host[host := next(iter(by_host))] <= time:
            del by_host[host]
