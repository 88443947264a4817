"""What a command is asked and what it answers: the row of a table of paths."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeAlias

from stellar_overlay.admin.query import Query

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain"
HTML_TYPE = "text/html"


class Ask(NamedTuple):
    """A request, as a command sees it.

    :ivar header: returns the last header of a name, None when there is none.
    """

    command: str
    query: Query
    header: Callable[[str], str | None] = lambda name: None


class Answer(NamedTuple):
    """A whole reply. Core gives every answer of a command 200 and ``application/json``."""

    text: str
    content_type: str = JSON_TYPE
    code: int = 200


Answering: TypeAlias = Coroutine[Any, Any, Answer]
"""An answer that may take a while."""


class Route(NamedTuple):
    """What answers at a path.

    :ivar answer: returns the answer, or what is awaited for it.
    :ivar is_changing: whether it changes the state of the node, so that the guard is asked first.
    :ivar changes: tells so by the parameters, of one that changes something with some of them only.
    :ivar is_offered_alone: whether a node that talks to nobody (RUN_STANDALONE) has it, too.
    """

    answer: Callable[[Ask], Answer | Answering]
    is_changing: bool = False
    is_offered_alone: bool = False
    changes: Callable[[Query], bool] | None = None

    def may_change(self, query: Query) -> bool:
        """Tell whether it would change something with these parameters."""
        return self.is_changing or (self.changes is not None and self.changes(query))


Routes = Mapping[str, Route]
