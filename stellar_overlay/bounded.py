"""A map that forgets its oldest entries: for whatever the network can make us remember."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(Generic[K, V]):
    """Entries in the order in which they were added, bounded by number and by weight.

    :param max_entries: how many there may be.
    :param max_weight: how much they may weigh in all, such as bytes.
    :ivar weight: what they weigh now.
    :ivar evicted: how many were forgotten to make room.
    """

    __slots__ = ("_entries", "_max_entries", "_max_weight", "evicted", "weight")

    def __init__(self, max_entries: int, max_weight: int | None = None) -> None:
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._max_entries = max_entries
        self._max_weight = max_weight
        self.weight = 0
        self.evicted = 0

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Add an entry, as the youngest, and forget the oldest as far as need be.

        What alone is over the limit is not kept, and makes nothing else be forgotten but what
        was there under the same key.

        :param weight: 0 or more.
        """
        self.pop(key)
        if self._max_weight is not None and weight > self._max_weight:
            return
        self._entries[key] = value, weight
        self.weight += weight
        while len(self._entries) > self._max_entries or (
            self._max_weight is not None and self.weight > self._max_weight
        ):
            _, (_, weight) = self._entries.popitem(last=False)
            self.weight -= weight
            self.evicted += 1

    def get(self, key: K) -> V | None:
        """Return a value, if it is there still."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def pop(self, key: K) -> V | None:
        """Remove an entry; return its value if it was there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.weight -= entry[1]
        return entry[0]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.weight = 0

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)
