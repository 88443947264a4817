"""What an observer is called in warnings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from stellar_overlay.node.subscriptions import OverlayMessage
from tests.node.alone import ADVERT, QUERY, AloneTestCase


def function(message: OverlayMessage, *more: object) -> None:
    """Observe nothing."""


class Archive:
    """Can be called."""

    def __call__(self, message: OverlayMessage) -> None:
        """Observe nothing."""


class NameTests(AloneTestCase):
    """A warning must tell its reader whose code to look at."""

    def name_of(self, callback: Callable[[OverlayMessage], None], name: str | None = None) -> str:
        """Return what an observer is called."""
        return self.subscriptions.observe(callback, ADVERT, name=name).name

    def test_callbacks(self) -> None:
        """The qualified name, with the module, of whatever can be called."""
        here = __name__
        named: tuple[tuple[Any, str], ...] = (
            (function, f"{here}.function"),
            (partial(partial(function), "more"), f"{here}.function"),
            (self.note, "tests.node.alone.AloneTestCase.note"),
            (Archive(), f"{here}.Archive"),
            (lambda message: None, f"{here}.NameTests.test_callbacks.<locals>.<lambda>"),
            ([].append, "list.append"),
            (print, "builtins.print"),
        )
        for callback, name in named:
            self.assertEqual(self.name_of(callback), name)

    def test_given(self) -> None:
        """A name that was given says more."""
        self.assertEqual(self.name_of(function, "the archive"), "the archive")

    def test_subscriptions(self) -> None:
        """What they are for, in the order of the types' numbers; or their name."""
        kept = []
        for types, name, expected in (
            ((ADVERT, QUERY), None, "subscription to GET_TX_SET, FLOOD_ADVERT"),
            ((), None, "subscription to everything"),
            ((ADVERT,), "the archive", "the archive"),
        ):
            kept.append(self.subscriptions.subscribe(*types, name=name))
            self.assertIsInstance(self.say(), Deferred)
            self.wait(30)
            ((_, text),) = self.lines()
            self.assertTrue(text.startswith(f"{expected} is stuck with 1 "), text)
            kept[-1].cancel()
            self.lines()
