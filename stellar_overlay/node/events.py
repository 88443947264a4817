"""What happens to peers, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.logger import Logger

from stellar_overlay.address import PeerAddress
from stellar_overlay.identity import PeerId


@dataclass(frozen=True, kw_only=True)
class PeerEvent:
    """One thing that happened to a link.

    :ivar kind: ``peer.connecting``, ``peer.authenticated``, ``peer.dropped`` or ``peer.banned``.
    :ivar ts: Unix time in seconds.
    :ivar reason: why it was dropped, and ``by`` whom: ``us`` or ``them``.
    :ivar code: the number of the ERROR_MSG that was sent or received, if one was.
    :ivar seconds: how long a ban lasts; None is for good.
    """

    kind: str
    ts: float
    address: PeerAddress | None = None
    direction: str | None = None
    peer_id: PeerId | None = None
    version_string: str | None = None
    overlay_version: int | None = None
    handshake_ms: float | None = None
    reason: str | None = None
    by: str | None = None
    code: int | None = None
    seconds: float | None = None


PeerListener = Callable[[PeerEvent], object]


class PeerEvents:
    """Who watches peers. What a listener raises is logged and concerns nobody else."""

    _log = Logger()

    def __init__(self) -> None:
        self._listeners: list[PeerListener] = []

    def add(self, listener: PeerListener) -> Callable[[], None]:
        """Call ``listener`` with each event from now on; return what ends that."""
        self._listeners.append(listener)

        def cancel() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return cancel

    @property
    def is_watched(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def publish(self, event: PeerEvent) -> None:
        """Tell all listeners."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                self._log.failure("A listener failed on {kind}", kind=event.kind)
