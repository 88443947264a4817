"""What floods through a node and what it fetches: the parts, what they do in time, their brain."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from stellar_overlay.config import OverlayConfig, QuorumSet
from stellar_overlay.gossip.flood import FloodGate
from stellar_overlay.gossip.message_handlers import MessageDispatcher
from stellar_overlay.gossip.relay import Relay
from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.interfaces import Herder, Verifier
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.fetching import Fetches
from stellar_overlay.node.limits import pull_mode_config
from stellar_overlay.node.loops import Loop
from stellar_overlay.node.peer import Peer
from stellar_overlay.node.verifier import InlineVerifier, ThreadPoolVerifier
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import FlatQuorumSet

RECORDS_SECONDS = 5
"""How often it is looked what the flood gate may forget."""
SCP_STATE_SECONDS = 10
"""How often peers are asked for SCP messages when we are out of sync (core HerderImpl.cpp)."""


class Flooding(MultiService):
    """Makes the flood gate, the dispatcher and the relay of a node, and drives them in time.

    :param peers: all authenticated peers, live.
    """

    _log = Logger()

    def __init__(
        self,
        config: OverlayConfig,
        herder: Herder,
        peers: Mapping[PeerId, Peer],
        clock: Any,
        random: random.Random,
        metrics: OverlayMetrics,
    ) -> None:
        super().__init__()
        self.herder = herder
        self._clock = clock
        self._fetches = Fetches(clock)
        gate = FloodGate(
            ttl_secs=config.flood_ttl_secs, rate_limit_per_second=config.flood_rate_limit_per_sec
        )
        self.dispatcher = MessageDispatcher(
            herder,
            clock=clock,
            random=random,
            links=peers,
            knows=gate.get_peers_that_know,
            metrics=metrics,
        )
        self.relay = Relay(
            herder,
            gate,
            self.dispatcher,
            links=peers,
            clock=clock,
            random=random,
            metrics=metrics,
            config=pull_mode_config(config),
        )
        for loop in self._loops(config):
            loop.setServiceParent(self)

    def startService(self) -> None:
        """Begin: the herder may use the overlay from now on."""
        self.herder.start(self.relay)
        super().startService()

    def stopService(self) -> Any:
        """Do nothing more; what is being fetched is given up."""
        try:
            self.herder.stop()
        except Exception:
            self._log.failure("The herder failed to stop")
        self.dispatcher.shutdown()
        self._fetches.end_all()
        return super().stopService()

    async def fetch_tx_set(self, item_hash: bytes, seconds: float) -> Message:
        """Return the transaction set with a hash, from whoever has it."""
        start, stop = self.dispatcher.fetch_tx_set, self.dispatcher.stop_fetch_tx_set
        return await self._fetches.fetch(start, stop, item_hash, seconds)

    async def fetch_quorum_set(self, item_hash: bytes, seconds: float) -> Message:
        """Return the quorum set with a hash, from whoever has it."""
        start, stop = self.dispatcher.fetch_quorum_set, self.dispatcher.stop_fetch_quorum_set
        return await self._fetches.fetch(start, stop, item_hash, seconds)

    def _loops(self, config: OverlayConfig) -> tuple[Loop, ...]:
        relay, clock = self.relay, self._clock
        advert_seconds = config.flood_advert_period_ms / 1000
        demand_seconds = config.flood_demand_period_ms / 1000
        adverts = Loop("adverts", relay.flush_adverts, advert_seconds, clock, is_idle=True)
        demands = Loop("demands", relay.demand, demand_seconds, clock, is_idle=True)
        relay.wake_adverts, relay.wake_demands = adverts.wake, demands.wake
        records = Loop("records", relay.look_after_records, RECORDS_SECONDS, clock)
        scp_state = Loop("scp state", relay.ask_for_scp_state, SCP_STATE_SECONDS, clock)
        return adverts, demands, records, scp_state


def signature_verifier(clock: Any) -> Verifier:
    """Return a thread pool where there are threads, and who checks at once on a simulated clock."""
    has_threads = IReactorFromThreads.providedBy(clock)
    return ThreadPoolVerifier(clock) if has_threads else InlineVerifier()


def observer_herder(
    config: OverlayConfig,
    local_node: LocalNode,
    verifier: Verifier,
    clock: Any,
) -> ObserverHerder:
    """Return the herder that a checked configuration asks for."""
    return ObserverHerder(
        network_id=local_node.network_id,
        own_key=local_node.peer_id.key,
        verifier=verifier,
        clock=clock,
        wall_clock=local_node.wall_clock,
        quorum_set=None if config.quorum_set is None else flat_quorum_set(config.quorum_set),
        is_relaying=config.mode == "relay",
        max_slots_to_remember=config.max_slots_to_remember,
        max_tx_size=config.max_tx_size,
    )


def flat_quorum_set(quorum_set: QuorumSet) -> FlatQuorumSet:
    """Return a quorum set of the configuration as the wire has it."""
    return FlatQuorumSet(
        quorum_set.threshold,
        tuple(PeerId.from_strkey(node).key for node in quorum_set.validators),
        tuple(map(flat_quorum_set, quorum_set.inner_sets)),
    )
