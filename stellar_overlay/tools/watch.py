"""``stellar-overlay watch``: follow the network: slots, statements, transactions, who was first."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.dialer import Connect
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.flooding import observer_herder, signature_verifier
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.resolver import Resolve
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.tools.cli import ExitStatus
from stellar_overlay.tools.contact import (
    Contact,
    addresses_of,
    complain,
    config_of,
    status_of,
)
from stellar_overlay.tools.lossy_output import LossyOutput, writer_to
from stellar_overlay.tools.running import local_node, run_reactor
from stellar_overlay.tools.sightings import Event, Sightings
from stellar_overlay.tools.watch_lines import Lines
from stellar_overlay.wire.message import MessageType

WANTED_PEERS = 3
"""Links to a network of which the user named no peer: as many as a node makes that nobody calls."""
SLOT_SECONDS = 0.2
"""How often it is looked whether consensus has moved."""

_OF_SCP = (
    MessageType.SCP_MESSAGE,
    MessageType.SCP_QUORUMSET,
    MessageType.TX_SET,
    MessageType.GENERALIZED_TX_SET,
)
_OF_TX = (MessageType.TRANSACTION, MessageType.FLOOD_ADVERT)


class Watch:
    """A node that looks on and tells what it sees.

    :param emit: takes each event: a dict as of the event log (``kind``, ``ts``, ``peer``, …), and
        those of the kind ``slot``, which are of this tool alone.
    :param connect: see :class:`~stellar_overlay.node.manager.OverlayManager`; likewise ``resolve``.
    """

    def __init__(
        self,
        config: OverlayConfig,
        node: LocalNode,
        reactor: Any,
        emit: Callable[[Event], object],
        *,
        wants_scp: bool = True,
        wants_tx: bool = True,
        connect: Connect | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        config = config.checked()
        self._clock = reactor
        self._emit = emit
        verifier = signature_verifier(reactor)
        self._herder = observer_herder(config, node, verifier, reactor)
        self.overlay = OverlayManager(
            config, node, reactor=reactor, connect=connect, resolve=resolve, herder=self._herder
        )
        if IService.providedBy(verifier):
            verifier.setServiceParent(self.overlay)
        self.sightings = Sightings(node)
        self._types = (_OF_SCP if wants_scp else ()) + (_OF_TX if wants_tx else ())
        self._wants_scp = wants_scp
        self._slots = LoopingCall(self._look_at_slots)
        self._slots.clock = reactor
        self._ended: Deferred[None] = Deferred()
        self._stopping: list[Callable[[], object]] = []
        self._started_at: float | None = None
        self._stopped_at: float | None = None

    async def run(self, contact: Contact, seconds: float | None) -> None:
        """Watch until it is ended; at once if nobody can be reached.

        :param seconds: from the first contact on; None is for good.
        """
        await self.overlay.start()
        self._started_at = self._clock.seconds()
        observer = self.overlay.observe(self._note, *self._types, name="watch")
        self._stopping += [self.overlay.on_peer_event(self._note_peer), observer.cancel]
        if self._wants_scp:
            self._slots.start(SLOT_SECONDS)
            self._stopping.append(self._slots.stop)
        await contact.reach()
        if contact.has_met_anyone and self._stopped_at is None:
            keeping = Deferred.fromCoroutine(contact.keep())
            keeping.addErrback(lambda failure: failure.trap(CancelledError))
            self._stopping.append(keeping.cancel)
            if seconds is not None:
                timer = self._clock.callLater(seconds, self.end)
                self._stopping.append(lambda: timer.active() and timer.cancel())
            await self._ended
        await self.stop()

    def end(self) -> None:
        """Let :meth:`run` come to its end."""
        if not self._ended.called:
            self._ended.callback(None)

    def stop(self) -> Deferred[None]:
        """Look at nothing more, and say goodbye to all peers; twice is harmless."""
        if self._stopped_at is None:
            self._stopped_at = self._clock.seconds()
        stopping, self._stopping = self._stopping, []
        for stop in stopping:
            stop()
        self.end()
        return self.overlay.stopService()

    def summary(self) -> Event:
        """Return the figures of what was seen so far."""
        end = self._clock.seconds() if self._stopped_at is None else self._stopped_at
        start = end if self._started_at is None else self._started_at
        return self.sightings.summary(end - start)

    def _note(self, message: OverlayMessage) -> None:
        event = self.sightings.note(message, self._herder.tracking_ledger())
        if event is not None:
            self._emit(event)

    def _note_peer(self, event: PeerEvent) -> None:
        self._emit(self.sightings.note_peer(event))

    def _look_at_slots(self) -> None:
        slot = self._herder.tracking_ledger()
        heard = {summary.slot: summary for summary in self._herder.slots()}
        validators = len(heard[slot].externalized) if slot in heard else 0
        event = self.sightings.note_slot(slot, validators)
        if event is not None:
            self._emit(event)


def run(arguments: argparse.Namespace) -> ExitStatus:
    """Watch and print; in the end a summary, or why there was nothing to be seen."""
    node = local_node(arguments)
    config = config_of(node, allow_private=arguments.allow_private)
    addresses = addresses_of(arguments, config)
    wanted = len(addresses) if arguments.peer else WANTED_PEERS
    config.target_outbound_peers = max(config.target_outbound_peers, wanted)
    is_everything = arguments.scp == arguments.tx
    lines = Lines(config.checked().node_names, has_scp=is_everything or arguments.scp)
    output = _output(arguments, node)
    watches: list[tuple[Watch, Contact]] = []

    def emit(event: Event) -> None:
        line = _json_line(event) if arguments.json else lines.of(event)
        if line is not None:
            output.put(line)

    async def main(reactor: Any) -> None:
        watch = Watch(
            config,
            node,
            reactor,
            emit,
            wants_scp=is_everything or arguments.scp,
            wants_tx=is_everything or arguments.tx,
        )
        contact = Contact(
            watch.overlay, reactor, addresses, wanted, follows_hints=not arguments.peer
        )
        watches.append((watch, contact))
        output.on_error = lambda: reactor.callFromThread(watch.end)
        reactor.addSystemEventTrigger("before", "shutdown", watch.stop)
        emit(watch.sightings.started())
        await watch.run(contact, arguments.seconds)

    is_interrupted = False
    try:
        run_reactor(main)
    except KeyboardInterrupt:
        is_interrupted = True
    if is_interrupted and not any(contact.has_met_anyone for _, contact in watches):
        raise KeyboardInterrupt
    watch, contact = watches[0]
    if not contact.has_met_anyone:
        output.close()
        failures = list(contact.failures.values())
        complain("watch", failures, is_well_known=not arguments.peer)
        return status_of(failures)
    summary = {**watch.summary(), "lost": output.lost}
    output.close(*([json.dumps(summary)] if arguments.json else lines.of_summary(summary)))
    return ExitStatus.DONE


def _output(arguments: argparse.Namespace, node: LocalNode) -> LossyOutput:
    """Return what prints without ever keeping the network waiting."""

    def lost_line(count: int) -> str:
        if not arguments.json:
            return f"({count} lines were lost: they are not read in time)"
        head = {"v": 1, "ts": node.wall_clock(), "node": node.peer_id.strkey}
        return json.dumps({**head, "kind": "lost", "peer": None, "count": count})

    return LossyOutput(writer_to(sys.stdout), lost_line)


def _json_line(event: Event) -> str | None:
    """Return an event as it is in event logs, which have none for slots: statements tell."""
    return None if event["kind"] == "slot" else json.dumps(event)
