"""Which slot consensus has reached, told by the EXTERNALIZE statements of others."""

from __future__ import annotations

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.herder.window import MAX_SLOT, SLOTS_AHEAD
from stellar_overlay.wire.quorum_set import FlatQuorumSet

CONSENSUS_STUCK_SECONDS = 35
"""Without a move for so long, consensus is lost (core Herder.h, CONSENSUS_STUCK_TIMEOUT)."""
HEARD_SECONDS = 60
"""How long a node counts after its last EXTERNALIZE, where nobody is trusted more than others."""
MAX_NODES_HEARD = 2000
"""Of how many nodes that is remembered; the one that was silent for longest goes first."""
SLOTS_PER_NODE = 128
"""How many slots are remembered that a trusted node has externalized: more than a window has."""


class Tracking:
    """The slot that consensus has reached, and whether that moves.

    :ivar slot: 0 while it is not known.
    """

    def __init__(self) -> None:
        self.slot = 0
        self._moved_at: float | None = None

    def is_fresh(self, now: float) -> bool:
        """Tell whether the slot has moved not long ago."""
        return self._moved_at is not None and now - self._moved_at < CONSENSUS_STUCK_SECONDS

    def note(self, node: bytes, slot: int, now: float) -> bool:
        """Note that a node has externalized a slot, by its signature; tell whether ours moved."""
        if not 0 < slot <= MAX_SLOT:
            return False
        agreed = self._agreed(node, slot, now)
        if agreed <= self.slot:
            return False
        self.slot = agreed
        self._moved_at = now
        return True

    def lose(self) -> None:
        """Note that the slot has not moved for too long."""
        self._moved_at = None

    def _agreed(self, node: bytes, slot: int, now: float) -> int:
        """Note it, and return the slot that now follows from it; 0 when none does."""
        raise NotImplementedError


class QuorumTracking(Tracking):
    """Follows the nodes of a quorum set: the highest slot for which they satisfy it.

    What anybody else says does not matter, and nothing moves the slot back. A node that makes up
    slots only makes those be forgotten that it has named itself.
    """

    def __init__(self, quorum_set: FlatQuorumSet) -> None:
        super().__init__()
        self._quorum_set = quorum_set
        self._heard: dict[bytes, BoundedDict[int, None]] = {
            node: BoundedDict(SLOTS_PER_NODE) for node in quorum_set.nodes()
        }

    def _agreed(self, node: bytes, slot: int, now: float) -> int:
        slots = self._heard.get(node)
        if slots is None or slot <= self.slot:
            return 0
        if slot not in slots:
            slots.put(slot, None)
        agreeing = [one for one, heard in self._heard.items() if slot in heard]
        return slot if self._quorum_set.is_satisfied_by(agreeing) else 0


class MajorityTracking(Tracking):
    """Follows everybody: the highest slot that at least two thirds have reached.

    That is, two thirds, rounded up, of the nodes that were heard externalizing anything in the
    last 60 s have externalized it or a later one. It moves by at most 100 slots at a time, and
    starts anew when it is lost. For private networks: whoever makes up two thirds of the nodes
    heard decides, and that is the very first one at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard: dict[bytes, tuple[int, float]] = {}
        """The highest slot of each node, and when it was last heard; in the order of the latter."""

    def lose(self) -> None:
        """Start anew: the network may have done so, too."""
        super().lose()
        self.slot = 0
        self._heard.clear()

    def _agreed(self, node: bytes, slot: int, now: float) -> int:
        highest, _ = self._heard.pop(node, (0, now))
        self._heard[node] = max(slot, highest), now
        self._forget_silent(now)
        if slot <= self.slot:
            return 0  # one more that lags takes us nowhere
        slots = sorted((highest for highest, _ in self._heard.values()), reverse=True)
        agreed = slots[-(-2 * len(slots) // 3) - 1]
        return min(agreed, self.slot + SLOTS_AHEAD) if self.slot else agreed

    def _forget_silent(self, now: float) -> None:
        while True:
            node, (_, heard_at) = next(iter(self._heard.items()))  # there is who was just heard
            if len(self._heard) <= MAX_NODES_HEARD and now - heard_at < HEARD_SECONDS:
                break
            del self._heard[node]
