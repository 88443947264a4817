"""A node with little credit to give, for tests of who holds it."""

from __future__ import annotations

from typing import Any

from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_send_more_extended,
)
from tests.node.world import WorldTestCase

ADVERT = MessageType.FLOOD_ADVERT
TINY: dict[str, Any] = {
    "peer_reading_capacity": 3,
    "peer_flood_reading_capacity": 2,
    "flow_control_send_more_batch_size": 1,
}
"""Credit for two flood messages, returned one by one."""


def granted(peer: ScriptedPeer) -> int:
    """Return how many flood messages a peer was granted so far, the first grant not counted."""
    grants = peer.of_type(MessageType.SEND_MORE_EXTENDED)[1:]
    return sum(decode_send_more_extended(grant.body)[0] for grant in grants)


class ListeningTestCase(WorldTestCase):
    """One node with little credit to give, and two peers."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node(**TINY)
        self.peer = self.world.call(number=9)
        self.other = self.world.call(number=8)

    def say(self, *messages: Message, peer: ScriptedPeer | None = None) -> None:
        """Let a peer send these in one go."""
        for message in messages:
            (peer or self.peer).send(message)
        self.world.settle()
