"""Five thousand callers who hang up leave nothing behind: no slot, no timer, no descriptor."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stellar_overlay.node.connection import Connection
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import MessageType
from tests.builders import advert
from tests.integration.members import (
    NETWORK,
    end_of,
    in_reactor,
    network,
    owner,
    the_reactor,
    until,
)
from tests.processes import CLI, ROOT, Running

CALLS = 5000
PATIENCE_SECONDS = 60
CLOSING_SECONDS = 10
"""After the last call, until nothing is left of it: what is refused may take five to close."""


def occupied(node: OverlayManager) -> dict[str, int]:
    """Count what links take up."""
    return {
        "pending": len(node.admission.pending),
        "authenticated": len(node.admission.authenticated),
        "closing": len(node.admission.closing),
        "timers": len(the_reactor().getDelayedCalls()),
        "readers": len(the_reactor().getReaders()),
        "descriptors": len(os.listdir("/dev/fd")),
    }


def count_links() -> int:
    """Count the links in memory, those that nobody knows any more included."""
    gc.collect()
    return sum(isinstance(thing, Connection) for thing in gc.get_objects())


def is_quiet(*nodes: OverlayManager) -> bool:
    """Tell whether no link is being made or closed."""
    lists = [node.admission for node in nodes]
    return not any(it.pending or it.pending_outbound or it.closing for it in lists)


@in_reactor
async def test_callers_who_hang_up(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """RST, FIN and half-close, before, within and after a HELLO: all is as it was before."""
    async with owner() as case, network(tmp_path, 2) as (member, [honest]):
        node, other = member.manager, honest.manager
        assert node is not None
        assert other is not None
        await until(lambda: bool(node.peer_infos() and other.peer_infos()), PATIENCE_SECONDS)
        await until(lambda: is_quiet(node, other), PATIENCE_SECONDS)
        dropped: list[PeerEvent] = []
        node.on_peer_event(
            lambda event: dropped.append(event) if event.kind == "peer.dropped" else None
        )
        link, links = node.peer(honest.peer_id), count_links()
        before, attempts = occupied(node), node.metrics.inbound_attempt.get()

        began = time.monotonic()
        client = Running(
            case,
            [CLI[0], "-m", "tests.integration.churn_client", str(member.port), NETWORK, str(CALLS)],
            cwd=ROOT,
        )
        result = await end_of(client, PATIENCE_SECONDS)
        record_property("seconds of calls", time.monotonic() - began)
        assert (result.status, result.said.strip()) == (0, str(CALLS))

        await until(lambda: is_quiet(node, other), CLOSING_SECONDS)
        assert node.metrics.inbound_attempt.get() - attempts == CALLS
        callers = [event for event in dropped if event.direction == "inbound"]
        record_property("callers who had a slot", len(callers))
        record_property("reasons", sorted({str(event.reason) for event in callers}))
        with suppress(AssertionError):  # what differs is shown by the next line
            await until(lambda: occupied(node) == before, CLOSING_SECONDS)
        assert occupied(node) == before
        assert count_links() <= links  # fewer if other tests had left some

        assert node.peer(honest.peer_id) is link
        heard: list[bytes] = []
        other.observe(lambda message: heard.append(message.body), MessageType.FLOOD_ADVERT)
        assert node.send_to(honest.peer_id, advert(1))
        await until(lambda: bool(heard), PATIENCE_SECONDS)
        assert heard == [advert(1).body]
