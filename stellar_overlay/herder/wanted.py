"""Which items of one kind are being asked for, and who may have us ask for more."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from stellar_overlay.herder.window import SlotWindow

MAX_PER_SIGNER_AND_SLOT = 8
"""Honest nodes name one quorum set, and two or three transaction sets in a slot."""
MAX_PER_SIGNER = 64
"""Of all slots: enough to catch up with a whole window of them."""
MAX_WANTED = 448
"""Fetching has room for 512 (DECISIONS 11), some of which are for the application."""
MAX_WANTED_BY_OTHERS = MAX_WANTED // 2
"""How much of that is open to nodes that are not in the configured quorum set themselves."""


class _Wish(NamedTuple):
    slot: int
    signer: bytes
    is_others: bool
    is_shared: bool = False


class WantedItems:
    """What was asked for, by hash, until it comes or its slot is no longer of use.

    Each item is on the account of one signer who names it: the first, until another names it for a
    later slot. Who invents hashes uses up its own account, and keeps us from asking for nobody's
    but its own. An item that finds no room is not remembered, so that the next statement that
    names it may have it asked for.
    """

    def __init__(self) -> None:
        self._wishes: dict[bytes, _Wish] = {}
        self._by_signer: Counter[bytes] = Counter()
        self._by_slot: Counter[tuple[bytes, int]] = Counter()
        self._others = 0

    def __len__(self) -> int:
        return len(self._wishes)

    def add(self, item_hash: bytes, slot: int, signer: bytes, *, is_configured: bool) -> bool:
        """Note that a signer names an item that is not here; tell whether to ask for it now.

        That is so once; once more when a second signer names it, so that whoever fetches knows
        that it is not one node's invention; and again whenever it is named for a later slot.
        """
        wish = self._wishes.get(item_hash)
        if wish is not None and slot <= wish.slot:
            if wish.is_shared or signer == wish.signer:
                return False
            self._wishes[item_hash] = wish._replace(is_shared=True)
            return True
        if not self._has_room(slot, signer, is_configured):
            return False
        self.discard(item_hash)
        self._wishes[item_hash] = wish = _Wish(slot, signer, not is_configured)
        self._count(wish, 1)
        return True

    def _has_room(self, slot: int, signer: bytes, is_configured: bool) -> bool:
        return (
            len(self._wishes) < MAX_WANTED
            and (is_configured or self._others < MAX_WANTED_BY_OTHERS)
            and self._by_signer[signer] < MAX_PER_SIGNER
            and self._by_slot[signer, slot] < MAX_PER_SIGNER_AND_SLOT
        )

    def discard(self, item_hash: bytes) -> None:
        """Note that an item has come."""
        wish = self._wishes.pop(item_hash, None)
        if wish is not None:
            self._count(wish, -1)

    def keep_only(self, window: SlotWindow) -> None:
        """Forget what belongs to other slots: it is fetched no more."""
        for item_hash, wish in list(self._wishes.items()):
            if wish.slot not in window:
                self.discard(item_hash)

    def _count(self, wish: _Wish, amount: int) -> None:
        by_slot = wish.signer, wish.slot
        self._others += amount if wish.is_others else 0
        self._by_signer[wish.signer] += amount
        self._by_slot[by_slot] += amount
        if not self._by_slot[by_slot]:
            del self._by_slot[by_slot]
        if not self._by_signer[wish.signer]:
            del self._by_signer[wish.signer]
