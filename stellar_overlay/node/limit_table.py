"""How much a node holds at the very most: each limit, and what it makes for all peers together.

Messages are counted wherever they are kept, though a body that waits for twenty peers is kept
once; so what is really used stays far below the sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stellar_overlay.config import OverlayConfig
from stellar_overlay.gossip.demand_history import MAX_RECEIVED, MAX_WAITING
from stellar_overlay.gossip.flood import MAX_RECORD_BYTES, MAX_RECORDS
from stellar_overlay.gossip.item_fetcher import MAX_TRACKERS, MAX_WAITING_BYTES
from stellar_overlay.gossip.message_handlers import QUORUM_SET_CACHE_BYTES, TX_SET_CACHE_BYTES
from stellar_overlay.gossip.relay import OWN_TRANSACTION_BYTES
from stellar_overlay.gossip.tx_demands import MAX_ANSWERS_REMEMBERED
from stellar_overlay.herder.envelopes import MAX_ENVELOPE_BYTES
from stellar_overlay.herder.transactions import MAX_POOLED_BYTES
from stellar_overlay.herder.trust import QUORUM_SET_BYTES
from stellar_overlay.node.budget import RECEIVED_LIMIT, UNSENT_ANSWERS_LIMIT
from stellar_overlay.node.limits import (
    connection_limits,
    max_open_files,
    pull_mode_config,
    session_config,
)
from stellar_overlay.session.outbox import SCP_QUEUE_BYTE_LIMIT
from stellar_overlay.store.ban_manager import MAX_BANS
from stellar_overlay.store.peer_table import MAX_PEERS
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, MAX_UNAUTHENTICATED_SIZE

ADVERT_BYTES = 130
"""What a remembered hash takes (tx_adverts.py)."""
FETCHERS = 2
"""One for transaction sets and one for quorum sets."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit.

    :ivar name: as in ``--json`` and in metrics.
    :ivar meaning: what is limited, in words.
    :ivar unit: bytes, messages, hashes, items or rows.
    :ivar each: for one peer, or whatever there are ``count`` of.
    :ivar cap: for all of them together, when that is limited, too.
    """

    name: str
    meaning: str
    unit: str
    each: int
    count: int = 1
    cap: int | None = None

    @property
    def total(self) -> int:
        """The most that all together may have."""
        product = self.each * self.count
        return product if self.cap is None else min(product, self.cap)


def limits_of(
    config: OverlayConfig, *, max_files: Callable[[], int | None] = max_open_files
) -> tuple[Limit, ...]:
    """Return every limit of a checked configuration: of peers first, then of the node."""
    links = connection_limits(config, max_files=max_files)
    pending = links.max_outbound_pending + links.max_inbound_pending
    return (
        Limit(
            name="received_pending",
            meaning="received in handshakes",
            unit="bytes",
            each=MAX_UNAUTHENTICATED_SIZE,
            count=pending,
        ),
        *_of_peers(config, links.max_outbound + links.max_inbound),
        *_of_node(),
    )


def total_bytes(limits: tuple[Limit, ...]) -> int:
    """Return how many bytes all limits make together."""
    return sum(limit.total for limit in limits if limit.unit == "bytes")


def _of_peers(config: OverlayConfig, peers: int) -> tuple[Limit, ...]:
    session, pull = session_config(config), pull_mode_config(config)
    outbox = session.outbox

    def limit(name: str, meaning: str, unit: str, each: int, cap: int | None = None) -> Limit:
        return Limit(name=name, meaning=meaning, unit=unit, each=each, count=peers, cap=cap)

    return (
        limit(
            "received",
            "received and not processed",
            "bytes",
            MAX_MESSAGE_SIZE + session.flow_control.peer_total_reading_capacity_bytes,
            RECEIVED_LIMIT,
        ),
        limit(
            "processing",
            "in processing",
            "messages",
            session.flow_control.peer_reading_capacity,
        ),
        limit(
            "answers",
            "answers not sent",
            "bytes",
            outbox.answer_byte_limit,
            UNSENT_ANSWERS_LIMIT,
        ),
        limit("tx_queue", "transactions not sent", "bytes", outbox.outbound_tx_queue_byte_limit),
        limit("scp_queue", "SCP messages not sent", "bytes", SCP_QUEUE_BYTE_LIMIT),
        limit("advert_out_queue", "adverts not sent", "hashes", outbox.max_tx_set_size_ops),
        limit("demand_out_queue", "demands not sent", "hashes", outbox.max_tx_set_size_ops),
        limit("advert_queue", "adverts not demanded", "hashes", pull.max_tx_set_size_ops),
        limit(
            "advert_history",
            "adverts remembered",
            "bytes",
            pull.advert_history_size * ADVERT_BYTES,
        ),
        limit("answer_history", "served demands remembered", "hashes", MAX_ANSWERS_REMEMBERED),
    )


def _of_node() -> tuple[Limit, ...]:
    rows = (
        ("flood_records", "flooded messages remembered", "messages", MAX_RECORDS),
        ("flood_bytes", "flooded messages remembered", "bytes", MAX_RECORD_BYTES),
        ("demand_history", "demands remembered", "hashes", MAX_WAITING + MAX_RECEIVED),
        ("own_transactions", "transactions of our own", "bytes", OWN_TRANSACTION_BYTES),
        ("tx_set_cache", "transaction sets fetched", "bytes", TX_SET_CACHE_BYTES),
        ("quorum_set_cache", "quorum sets fetched", "bytes", QUORUM_SET_CACHE_BYTES),
        ("scp_envelopes", "SCP statements kept", "bytes", MAX_ENVELOPE_BYTES),
        ("tx_pool", "transactions kept", "bytes", MAX_POOLED_BYTES),
        ("quorum_sets", "quorum sets kept", "bytes", QUORUM_SET_BYTES),
        ("peers", "addresses in the table of peers", "rows", MAX_PEERS),
        ("bans", "nodes banned", "rows", MAX_BANS),
    )
    return (
        Limit(
            name="trackers",
            meaning="items looked for",
            unit="items",
            each=MAX_TRACKERS,
            count=FETCHERS,
        ),
        Limit(
            name="waiting_envelopes",
            meaning="who waits for such an item",
            unit="bytes",
            each=MAX_WAITING_BYTES,
            count=FETCHERS,
        ),
        *(
            Limit(name=name, meaning=meaning, unit=unit, each=each)
            for name, meaning, unit, each in rows
        ),
    )
