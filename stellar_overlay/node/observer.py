"""One who listens to the overlay, and what it is shown."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from stellar_overlay.identity import PeerId
from stellar_overlay.node.holding import Holder
from stellar_overlay.wire.message import Message, MessageType

if TYPE_CHECKING:
    from stellar_sdk.xdr import StellarMessage


@dataclass(frozen=True, eq=False)
class OverlayMessage:
    """A message and where it came from.

    :ivar received_at: Unix time in seconds when its bytes arrived.
    :ivar is_first: whether its body was not heard before; only what is flooded comes again.
    """

    from_peer: PeerId
    type: MessageType
    body: bytes
    received_at: float
    is_first: bool = True

    @cached_property
    def message(self) -> StellarMessage:
        """The decoded message, made on first use.

        :raises XdrError: never for a message that a peer sent; those were checked.
        """
        return Message(self.body).decoded


Callback = Callable[[OverlayMessage], "Deferred[Any] | Coroutine[Any, Any, Any] | None"]


class Observer(Holder):
    """A callback and what it wants to see; :meth:`cancel` ends it.

    :param name: what warnings call it; by default the name of the callback.
    :param on_cancel: called once, before what the observer holds is let go of.
    :param forget: called once, to let go of that.
    """

    def __init__(
        self,
        callback: Callback,
        types: frozenset[MessageType],
        *,
        name: str | None = None,
        wants_duplicates: bool = True,
        on_cancel: Callable[[], None] = lambda: None,
        forget: Callable[[Observer], None],
    ) -> None:
        super().__init__(name or _name_of(callback))
        self.callback = callback
        self.types = types
        self.wants_duplicates = wants_duplicates
        self.is_cancelled = False
        self._on_cancel = on_cancel
        self._forget = forget

    def cancel(self) -> None:
        """See nothing from now on, and return the credit of what is held; twice is harmless."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self._on_cancel()
            self._forget(self)


def _name_of(callback: Callable[..., object]) -> str:
    """Return the qualified name of a function, or of the class of what else can be called."""
    while isinstance(callback, partial):
        callback = callback.func
    named = callback if hasattr(callback, "__qualname__") else type(callback)
    module = getattr(named, "__module__", None)  # a method of a built-in type has none
    return f"{module}.{named.__qualname__}" if module else named.__qualname__
