"""What Prometheus is told about each figure of an overlay: its name and what it means.

Names are henyey's where it has one (crates/app/src/metrics.rs), so that its dashboards and alerts
work here, and so are the texts where it counts the same; all others are named after the attribute.
"""

from __future__ import annotations

from typing import NamedTuple

PREFIX = "stellar_overlay_"


class Figure(NamedTuple):
    """How one attribute of :class:`OverlayMetrics` is shown.

    :ivar name: without what all names begin and end with; the attribute's own when it is empty.
    :ivar label: what tells its members apart, when it has several.
    :ivar is_gauge: whether it goes down as well as up.
    """

    help: str
    name: str = ""
    label: str = ""
    is_gauge: bool = False


FIGURES: dict[str, Figure] = {
    # Messages and bytes.
    "messages_read": Figure("Total overlay messages read from peers", "message_read"),
    "messages_written": Figure("Total overlay messages written to peers", "message_write"),
    "messages_broadcast": Figure(
        "Total overlay messages broadcast to all peers", "message_broadcast"
    ),
    "bytes_read": Figure("Total bytes read from peers, frame headers included", "byte_read"),
    "bytes_written": Figure("Total bytes written to peers, frame headers included", "byte_write"),
    "async_read": Figure("Total successful recv I/O operations"),
    "async_write": Figure("Total successful send I/O operations"),
    "errors_read": Figure("Total overlay read errors", "error_read"),
    "timeouts_idle": Figure("Total peers dropped due to idle timeout", "timeout_idle"),
    "timeouts_straggler": Figure(
        "Total peers dropped due to straggler timeout", "timeout_straggler"
    ),
    # Connections.
    "inbound_attempt": Figure("Total inbound connection accepts"),
    "inbound_establish": Figure("Total inbound connections that got a slot (before handshake)"),
    "inbound_drop": Figure("Total inbound disconnections (handshakes included)"),
    "inbound_reject": Figure("Total inbound connections rejected for want of a slot"),
    "outbound_attempt": Figure("Total outbound connection attempts (dial initiated)"),
    "outbound_establish": Figure("Total outbound connections opened (before handshake)"),
    "outbound_drop": Figure("Total outbound disconnections (handshakes included)"),
    "outbound_cancel": Figure("Total outbound connections given up for want of a slot"),
    "drops": Figure("Total links ended or refused, by reason", label="reason"),
    # Queues.
    "queue_drop_scp": Figure(
        "Outbound SCP messages dropped (queue trim)", "outbound_queue_drop_scp"
    ),
    "queue_drop_tx": Figure(
        "Outbound transaction messages dropped (queue trim)", "outbound_queue_drop_tx"
    ),
    "queue_drop_demand": Figure(
        "Outbound flood demand tx-hashes dropped (queue trim)", "outbound_queue_drop_demand"
    ),
    "queue_drop_advert": Figure(
        "Outbound flood advert tx-hashes dropped (queue trim)", "outbound_queue_drop_advert"
    ),
    # Flooding.
    "flood_broadcast": Figure("Total flood messages broadcast (per-recipient deliveries)"),
    "flood_advertised": Figure("Total transaction hashes queued for adverts"),
    "flood_demanded": Figure("Total transaction hashes demanded of peers"),
    "flood_fulfilled": Figure("Total demanded transactions sent to peers"),
    "flood_unfulfilled_banned": Figure("Total demands of peers for banned transactions"),
    "flood_unfulfilled_unknown": Figure("Total demands of peers for unknown transactions"),
    "flood_unique_recv": Figure("Total unique flood messages received"),
    "flood_duplicate_recv": Figure("Total duplicate flood messages received"),
    "flood_unique_bytes_recv": Figure("Total bytes of unique flood messages received"),
    "flood_duplicate_bytes_recv": Figure("Total bytes of duplicate flood messages received"),
    "flood_rate_limited": Figure("Total flood messages ignored for the rate limit"),
    "flood_known_count": Figure(
        "Current FloodGate known entries count", "memory_flood_known", is_gauge=True
    ),
    "flood_evicted": Figure("Total FloodGate entries forgotten for want of room"),
    "scp_discarded": Figure("Total SCP messages that the herder discarded"),
    # Fetching.
    "fetch_unique_recv": Figure("Total unique/solicited fetch responses received"),
    "fetch_duplicate_recv": Figure("Total duplicate/unsolicited fetch responses received"),
    "fetch_unique_bytes_recv": Figure("Total bytes of unique fetch responses received"),
    "fetch_duplicate_bytes_recv": Figure("Total bytes of duplicate fetch responses received"),
    "item_fetcher_next_peer": Figure("Total item fetcher next-peer selections"),
    "item_fetcher_tracker_cap_reached": Figure("Total items not fetched for want of trackers"),
    "fetch_tx_set": Figure("Time from wanting a transaction set to its arrival (seconds)"),
    "fetch_quorum_set": Figure("Time from wanting a quorum set to its arrival (seconds)"),
    # Pull mode.
    "demand_timeouts": Figure("Total transactions demanded again, of another peer"),
    "abandoned_demands": Figure("Total demanded transactions that never came"),
    "pulled_relevant_txs": Figure("Total transactions received that were new and valid"),
    "pulled_irrelevant_txs": Figure("Total transactions received that were of no use"),
    "tx_pull_latency": Figure("Global tx demand-to-fulfillment latency (seconds)"),
    "peer_tx_pull_latency": Figure("Per-peer tx demand-to-fulfillment latency (seconds)"),
    # Limits.
    "queries_ignored": Figure("Total queries of peers ignored for their rate"),
    "answers_refused": Figure("Total answers not sent for want of room in the queue"),
    "answers_unsent_bytes": Figure("Current bytes of answers not sent yet", is_gauge=True),
    "received_unprocessed_bytes": Figure("Current bytes received, not processed", is_gauge=True),
    "receive_holds": Figure("Total times reading from a peer was held for memory"),
    "cpu_holds": Figure("Total times reading from a peer was held for its CPU time"),
    "connection_latency": Figure("Peer ping round-trip time (seconds)"),
    "connection_read_throttle": Figure("Time reading stopped for want of capacity (seconds)"),
    "connection_flood_throttle": Figure(
        "Outbound flood throttle duration (seconds)", "flood_throttle"
    ),
    # Surveys.
    "survey_started": Figure("Total surveys that this node began to collect for"),
    "survey_stopped": Figure("Total surveys that went from collecting to reporting"),
    "survey_requests": Figure("Total requests that this node sent as the surveyor"),
    "survey_responses": Figure("Total survey responses taken: to relay, or for this node"),
    "survey_answers": Figure("Total survey requests answered by this node"),
    "survey_signature_checks": Figure("Total signatures of survey messages checked"),
    "survey_refusals": Figure("Total survey messages refused, by reason", label="reason"),
    # Within the node.
    "observer_lost": Figure("Total events that slow observers lost"),
    "observer_errors": Figure("Total errors raised by observers"),
    "database_errors": Figure("Total database errors"),
}
"""By attribute of :class:`OverlayMetrics`; the test of this table names what is missing."""

LIMIT = Figure(
    "What may be used at most, by name: bytes, messages, hashes, items or rows", "limit", "limit"
)
PEER_COUNT = "stellar_peer_count"
PEER_COUNT_HELP = "Number of connected peers"
LINKS = {
    "inbound_authenticated": Figure("Authenticated inbound peer connections"),
    "outbound_authenticated": Figure("Authenticated outbound peer connections"),
    "inbound_pending": Figure("Pending inbound peer connections (handshaking)"),
    "outbound_pending": Figure("Pending outbound peer connections (handshaking)"),
}
