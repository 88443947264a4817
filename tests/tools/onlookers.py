"""What the tests of commands that look on have in common: a network, and a tool's end of it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.loopback import EPOCH, LoopbackNetwork
from stellar_overlay.tools.contact import Contact, config_of

LATENCY = 0.01
IP = "10.9.9.9"
"""Where the tool is."""


class OnlookerTestCase(SynchronousTestCase):
    """A network on a clock, of which the tool is no part yet."""

    passphrase = TESTNET_PASSPHRASE

    def setUp(self) -> None:
        self.network = LoopbackNetwork(latency=LATENCY, passphrase=self.passphrase)
        clock = self.network.clock
        self.me = LocalNode(
            self.passphrase, bytes([9]) * 32, wall_clock=lambda: EPOCH + clock.seconds()
        )

    @property
    def ports(self) -> dict[str, Any]:
        """How the tool reaches the network."""
        memory = self.network.memory
        return {"connect": memory.client(IP), "resolve": memory.resolver()}

    def overlay(self) -> OverlayManager:
        """Return the tool's node, not started yet."""
        config = config_of(self.me, allow_private=True)
        return OverlayManager(config, self.me, reactor=self.network.clock, **self.ports)

    def contact(
        self,
        overlay: OverlayManager,
        *names: str,
        wanted: int | None = None,
        follows_hints: bool = False,
    ) -> Contact:
        """Return what finds these hosts."""
        addresses = [self.network.address(name) for name in names]
        return Contact(
            overlay,
            self.network.clock,
            addresses,
            len(names) if wanted is None else wanted,
            follows_hints=follows_hints,
        )

    def nowhere(self) -> PeerAddress:
        """Return an address at which nobody listens."""
        return PeerAddress("10.8.8.8", 1)
