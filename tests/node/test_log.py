"""What the log says about peers, and what it never repeats."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.logger import LogLevel, capturedLogs, eventAsText

from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.wire.message import Message, encode_error
from tests.builders import WALL_NOW, deterministic_bytes, get_tx_set, make_node
from tests.node.world import WorldTestCase

EVIL = "\x1b[31m\r\n\x00evil\u202e"


class FailingHerder(IgnoringHerder):
    """A brain with a fault."""

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Fail."""
        raise ZeroDivisionError


class LogTests(WorldTestCase):
    """Events with fields; the peer's words are quoted."""

    def said(self, act: Callable[[], object]) -> list[tuple[LogLevel, str]]:
        """Return level and text of what is logged meanwhile."""
        with capturedLogs() as events:
            act()
            self.world.settle()
        found: list[Any] = list(events)
        return [
            (event["log_level"], eventAsText(event, includeTimestamp=False, includeSystem=False))
            for event in found
        ]

    def test_an_authenticated_peer_is_news(self) -> None:
        """That it came, with direction and versions, and that it was dropped, by whom and why."""
        self.world.node()
        came = self.said(self.come)
        self.assertEqual([level for level, _ in came], [LogLevel.info])
        for text in (make_node(9).peer_id.short, "inbound", "overlay 42", "10.0.0.9"):
            self.assertIn(text, came[0][1])
        left = self.said(self.forge)
        self.assertEqual([level for level, _ in left], [LogLevel.info])
        self.assertIn("dropped by us: unexpected MAC (message 2)", left[0][1])

    def come(self) -> None:
        self.last = self.world.call()

    def forge(self) -> None:
        self.last.send_forged(get_tx_set())

    def test_a_peer_that_never_was_one_is_no_news(self) -> None:
        """Whoever connects and goes is noted for debugging only."""
        self.world.node()
        said = self.said(
            lambda: self.world.call(is_polite=False).transport.loseConnection()  # type: ignore[union-attr]
        )
        self.assertEqual([level for level, _ in said], [LogLevel.debug])
        self.assertIn("dropped by them: error reading message header", said[0][1])

    def test_words_from_the_network_are_harmless(self) -> None:
        """Neither a version string nor an error text brings control characters into the log."""
        self.world.node()
        evil = LocalNode(
            TESTNET_PASSPHRASE,
            bytes([9]) * 32,
            version_string=EVIL,
            wall_clock=lambda: WALL_NOW,
            token_bytes=deterministic_bytes(9),
        )
        peer = self.world.call(number=8)
        said = self.said(lambda: self.world.call(local_node=evil))
        said += self.said(lambda: peer.send(Message(encode_error(0, EVIL))))
        self.assertEqual(len(said), 2)
        for _, text in said:
            self.assertIn("evil", text)
            self.assertIsNone(re.search(r"[\x00-\x1f\x7f\u202a-\u202e]", text), text)

    def test_secrets_are_never_logged(self) -> None:
        """Not the seed, in whatever form, at any level."""
        node = self.world.node()
        secrets = (node.local_node.secret_seed, (bytes([1]) * 32).hex(), repr(bytes([1]) * 32))
        said = [*self.said(self.come), *self.said(self.forge)]
        said.append((LogLevel.info, repr([node.local_node, node.config, node.peer_infos()])))
        for _, text in said:
            for secret in secrets:
                self.assertNotIn(secret, text)

    def test_an_error_of_the_brain_costs_the_link_that_asked(self) -> None:
        """It is logged with the link; the peer is told nothing, and others are answered."""
        node = self.world.node(herder=FailingHerder())
        peer, other = self.world.call(number=9), self.world.call(number=8)
        reasons = self.reasons_of(node)
        said = self.said(lambda: peer.send(get_tx_set()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(said[0][0], LogLevel.critical)
        self.assertIn(f"{make_node(9).peer_id.short}@10.0.0.9", said[0][1])
        self.assertEqual((reasons, peer.error, peer.is_closed), (["internal error"], None, True))
        self.assertFalse(other.is_closed)
        self.assertEqual(len(node.peer_infos()), 1)
