"""Whom a survey asks next, of all the nodes that others name.

Whoever answers may make up peers, thousands of them: those who named nodes take turns, so that the
inventions of one delay, and keep from being asked, only a few of those that the others name.
"""

from __future__ import annotations

from collections.abc import Iterable

NOBODY = ""
"""Names in place of a reporter: the user and the surveyor, whose nodes are asked before all."""


class Turns:
    """The nodes that are to be asked, in a queue for each reporter, which are served in turn.

    :param max_nodes: that are asked, however many are named; asking one again is always possible.
    """

    def __init__(self, max_nodes: int) -> None:
        self._room = max_nodes
        self._queues: dict[str, dict[str, None]] = {}  # the first one has its turn
        self._reporters: dict[str, str] = {}  # at whose turn a node was asked
        self._named: set[str] = set()
        self._again: set[str] = set()

    def __contains__(self, node: str) -> bool:
        """Tell whether a node is still to be asked, or to be asked again."""
        return node in self._again or (self._room > 0 and node in self._named)

    @property
    def not_asked(self) -> int:
        """How many nodes were named, and have not been asked."""
        return len(self._named)

    @property
    def first_time_count(self) -> int:
        """How many nodes are to be asked for the first time."""
        return min(self._room, len(self._named))

    @property
    def again_count(self) -> int:
        """How many nodes are to be asked again."""
        return len(self._again)

    def name(self, reporter: str, nodes: Iterable[str]) -> None:
        """Have nodes asked at the turns of a reporter, unless they have been asked already."""
        for node in nodes:
            if node not in self._reporters:
                self._named.add(node)
                if self._room > 0:
                    self._queues.setdefault(reporter, {}).setdefault(node)

    def repeat(self, node: str, *, is_own: bool = False) -> None:
        """Have a node asked again.

        :param is_own: at its own next turn, for it has more to say; otherwise at one of that
            reporter at whose turn it was asked, after all that this one has named.
        """
        self._again.add(node)
        if is_own:
            self._queues[node] = {node: None, **self._queues.get(node, {})}
        else:
            self._queues.setdefault(self._reporters.get(node, NOBODY), {}).setdefault(node)

    def drop_repeat(self, node: str) -> None:
        """Do not ask a node again after all."""
        self._again.discard(node)

    def next(self) -> str | None:
        """Return who is to be asked; the same one until it is taken, or more urgent ones come."""
        while (reporter := self._reporter()) is not None:
            queue = self._queues[reporter]
            while queue:
                node = next(iter(queue))
                if node in self:
                    return node
                del queue[node]
            del self._queues[reporter]
        return None

    def take(self, node: str) -> None:
        """Note that a node was asked; if that was its turn, the next reporter has one."""
        is_turn = node == self.next()
        reporter = self._reporter() or NOBODY
        if is_turn:
            queue = self._queues.pop(reporter)
            del queue[node]
            self._queues[reporter] = queue
        self._again.discard(node)
        if node in self._named:
            self._named.remove(node)
            self._reporters[node] = reporter
            self._room -= 1

    def _reporter(self) -> str | None:
        """Return whose turn it is."""
        return NOBODY if NOBODY in self._queues else next(iter(self._queues), None)
