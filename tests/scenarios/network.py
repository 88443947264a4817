"""A network for a scenario, which must be left as clean as it was found."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip.connection_limits import ConnectionLimits
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.store.peer_manager import PeerRecord, StoredPeerType
from stellar_overlay.testing.loopback import LoopbackNetwork
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_hash_query,
    encode_dont_have,
)

INBOUND, OUTBOUND, PREFERRED = StoredPeerType

REJECTED = (4, b"peer rejected")
SELECTED = (4, b"preferred peer selected instead")


class GoodPeer(ScriptedPeer):
    """Answers pings, too, so that nobody takes it for silent."""

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.GET_SCP_QUORUMSET:
            item_hash = decode_hash_query(message.body)
            self.send(Message(encode_dont_have(MessageType.SCP_QUORUMSET, item_hash)))


class LostHerder(IgnoringHerder):
    """Does not follow consensus."""

    def is_tracking(self) -> bool:
        return False


class ScenarioTestCase(SynchronousTestCase):
    """Scenarios on :attr:`network`, on which nothing may be left at the end but stopped nodes."""

    def setUp(self) -> None:
        self.begin()
        self.addCleanup(self.leave_nothing_behind)

    def begin(self, **settings: Any) -> LoopbackNetwork:
        """Start with a new network."""
        self.network = LoopbackNetwork(**settings)
        return self.network

    def again(self, **settings: Any) -> LoopbackNetwork:
        """End the network that there is, and start with a new one."""
        self.leave_nothing_behind()
        return self.begin(**settings)

    def leave_nothing_behind(self) -> None:
        """Stop all nodes; check that no slot, link or timer is left."""
        nodes = self.network.running
        for name, node in nodes.items():
            self.network.stop(name)
            self.assert_idle(node)
        self.network.advance(6)
        self.assertEqual(self.timers(), [])

    def assert_idle(self, node: OverlayManager) -> None:
        """Check that a node has no link in any state, and no slot is taken."""
        admission = node.admission
        self.assertEqual((admission.pending_outbound, admission.pending_inbound), (0, 0))
        self.assertEqual((set(admission.pending), set(admission.closing)), (set(), set()))
        self.assertEqual(dict(admission.authenticated), {})
        self.assertEqual((node.peer_infos(), node.pending_peers()), ([], []))

    def timers(self) -> list[IDelayedCall]:
        """Return what is going to happen if nothing else does."""
        return list(self.network.clock.getDelayedCalls())

    def at(self, name: str, port: int | None = None) -> ResolvedPeerAddress:
        """Return where a host listens, or another port there."""
        address = self.network.address(name)
        return ResolvedPeerAddress(address.host, port or address.port)

    def row(self, node: OverlayManager, name: str) -> PeerRecord | None:
        """Return what a node remembers of a host; None when it knows it not."""
        rows = {row.address: row for row in node.known_peers()}
        return rows.get(self.at(name))

    def types(self, node: OverlayManager, *names: str) -> list[StoredPeerType | None]:
        """Return how a node remembers some hosts."""
        rows = [self.row(node, name) for name in names]
        return [None if row is None else row.peer_type for row in rows]

    def peers(self, node: OverlayManager) -> set[str]:
        """Return the IP addresses of a node's peers, as ``>ip`` where it dialled."""
        return {
            (">" if info.direction == "outbound" else "") + info.address.host
            for info in node.peer_infos()
        }

    def drops(self, node: OverlayManager) -> list[PeerEvent]:
        """Return a list in which each dropped link will appear."""
        events: list[PeerEvent] = []
        node.on_peer_event(
            lambda event: events.append(event) if event.kind == "peer.dropped" else None
        )
        return events

    def limit(
        self,
        node: OverlayManager,
        *,
        inbound: int = 0,
        outbound: int = 0,
        inbound_pending: int = 20,
        outbound_pending: int = 20,
    ) -> None:
        """Give a node limits that no configuration can give it, such as 0."""
        node.admission.limits = ConnectionLimits(
            target_outbound=outbound,
            max_outbound=outbound,
            max_inbound=inbound,
            max_outbound_pending=outbound_pending,
            max_inbound_pending=inbound_pending,
        )


def shuffled(items: list[str], seed: int) -> list[str]:
    """Return the items in another order, the same for each seed."""
    return random.Random(seed).sample(items, len(items))
