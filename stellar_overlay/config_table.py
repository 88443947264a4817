"""The one table of the configuration: key, attribute, default, rule and meaning."""

# ruff: noqa: RUF009 - setting() is a dataclasses.field() with a row of the table in it

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, cast

from stellar_overlay.address import DEFAULT_PEER_PORT, PeerAddress
from stellar_overlay.config_nodes import QuorumSet, Validator, generated_quorum_set
from stellar_overlay.config_rules import (
    COUNT16,
    COUNT31,
    COUNT32,
    DATABASE,
    FILLED_TEXT,
    FLAG,
    MILLISECONDS,
    MODE,
    NODE_IDS,
    NODE_NAMES,
    PEERS,
    POSITIVE,
    QUORUM_SET,
    SECONDS,
    SECRET,
    TEXT,
    UINT16,
    UINT32,
    VALIDATORS,
    Setting,
    following,
    positive,
    setting,
    thawed,
    whole,
)
from stellar_overlay.identity import (
    OVERLAY_MIN_VERSION,
    OVERLAY_VERSION,
    TESTNET_PASSPHRASE,
    PeerId,
)

MIN_FLOOD_HEADROOM_BYTES = 102_400
"""The largest classic transaction (core Peer.h:37). Where Soroban transactions are larger, the
credit in bytes must be, too; only a node that knows its network can check that."""

_MAX_PEERS = 2**16 - 1
_MEBIBYTE = 1024 * 1024


@dataclass(kw_only=True, repr=False)
class ConfigTable:
    """What an operator can choose. Each attribute is a row of :func:`settings`.

    :ivar warnings: what whoever loaded files should log, a line each.
    :ivar sources: by attribute, the file or option that set it; the others have their defaults.
    """

    # The network, and who we are.
    network_passphrase: str = setting(
        "NETWORK_PASSPHRASE",
        TESTNET_PASSPHRASE,
        FILLED_TEXT,
        "The network, by its passphrase in full.",
    )
    node_seed: str = setting(
        "NODE_SEED",
        "",
        SECRET,
        'The secret seed of the node: "S…", "S… name", or in a file "$FILE:path", a file that '
        "only its owner may read.",
    )
    node_is_validator: bool = setting(
        "NODE_IS_VALIDATOR",
        False,
        FLAG,
        "Whether NODE_SEED belongs to a validator; only warned about, as we do not vote.",
    )
    node_home_domain: str = setting(
        "NODE_HOME_DOMAIN", "", TEXT, "Our home domain: VALIDATORS of it are preferred peers."
    )
    node_names: dict[str, str] = setting(
        "NODE_NAMES",
        {},
        NODE_NAMES,
        'Names for nodes; wherever a node id is read, "$name" means the node of that name.',
    )
    overlay_version: int = setting(
        "OVERLAY_PROTOCOL_VERSION",
        OVERLAY_VERSION,
        UINT32,
        "The overlay version that we announce.",
        ours=True,
    )
    overlay_min_version: int = setting(
        "OVERLAY_PROTOCOL_MIN_VERSION",
        OVERLAY_MIN_VERSION,
        UINT32,
        "The lowest overlay version that we accept; at most OVERLAY_PROTOCOL_VERSION.",
        ours=True,
    )

    # Where we listen.
    listen_port: int = setting("PEER_PORT", DEFAULT_PEER_PORT, COUNT16, "The port for other nodes.")
    run_standalone: bool = setting(
        "RUN_STANDALONE", False, FLAG, "Whether to talk to nobody: neither to listen nor to dial."
    )
    listen_enabled: bool = setting(
        "LISTEN_ENABLED",
        True,
        FLAG,
        "Whether other nodes may connect to us; the test and public network's presets say no.",
        ours=True,
    )
    http_port: int = setting(
        "HTTP_PORT",
        DEFAULT_PEER_PORT + 1,
        UINT16,
        "The port for the operator's commands; 0 = none.",
    )
    public_http_port: bool = setting(
        "PUBLIC_HTTP_PORT", False, FLAG, "Whether commands are accepted from other machines, too."
    )
    database: str = setting(
        "DATABASE", "sqlite3://stellar-overlay.db", DATABASE, "The database of peers and bans."
    )

    # Whom we meet.
    known_peers: list[PeerAddress | str] = setting("KNOWN_PEERS", [], PEERS, "Peers to begin with.")
    preferred_peers: list[PeerAddress | str] = setting(
        "PREFERRED_PEERS", [], PEERS, "Peers to stay connected to."
    )
    preferred_peer_keys: list[PeerId | str] = setting(
        "PREFERRED_PEER_KEYS", [], NODE_IDS, "Nodes that are preferred wherever they connect from."
    )
    preferred_peers_only: bool = setting(
        "PREFERRED_PEERS_ONLY", False, FLAG, "Whether no other peers are accepted."
    )
    allow_private: bool = setting(
        "ALLOW_PRIVATE_ADDRESSES_FOR_TESTING",
        False,
        FLAG,
        "Whether private addresses are dialled, shared and accepted.",
    )
    allow_localhost: bool = setting(
        "ALLOW_LOCALHOST_FOR_TESTING",
        False,
        FLAG,
        "Whether 127.0.0.1 is accepted from other peers' lists.",
    )

    # How many, and for how long.
    target_outbound_peers: int = setting(
        "TARGET_PEER_CONNECTIONS",
        8,
        COUNT16,
        "How many peers we dial up to; in use at most a third of "
        "MAX_ADDITIONAL_PEER_CONNECTIONS, plus 3.",
    )
    max_outbound_peers: int = setting(
        "MAX_OUTBOUND_CONNECTIONS",
        following("TARGET_PEER_CONNECTIONS", lambda config: config.target_outbound_peers),
        COUNT16,
        "The ceiling for peers that we dialled, that operators and preferred peers may use; at "
        "least TARGET_PEER_CONNECTIONS.",
        ours=True,
    )
    max_inbound_peers: int = setting(
        "MAX_ADDITIONAL_PEER_CONNECTIONS",
        following(
            "-1 (8 x TARGET_PEER_CONNECTIONS)",
            lambda config: min(8 * config.target_outbound_peers, _MAX_PEERS),
            unset=-1,
        ),
        whole(-1, _MAX_PEERS),
        "How many peers may dial us; at least TARGET_PEER_CONNECTIONS.",
    )
    max_pending_connections: int = setting(
        "MAX_PENDING_CONNECTIONS", 500, COUNT16, "How many connections may be in their handshake."
    )
    connect_timeout_secs: int = setting(
        "CONNECT_TIMEOUT",
        5,
        SECONDS,
        "How long a dialled peer may take to answer at all.",
        ours=True,
    )
    auth_timeout_secs: int = setting(
        "PEER_AUTHENTICATION_TIMEOUT", 2, SECONDS, "How long a peer may take for the handshake."
    )
    peer_timeout_secs: int = setting(
        "PEER_TIMEOUT", 30, SECONDS, "After how long of silence both ways a peer is dropped."
    )
    peer_straggler_timeout_secs: int = setting(
        "PEER_STRAGGLER_TIMEOUT", 120, SECONDS, "How long a peer may take to read what we sent."
    )

    # Credit, both ways.
    peer_reading_capacity: int = setting(
        "PEER_READING_CAPACITY",
        201,
        COUNT32,
        "How many messages of a peer are processed at once; more than PEER_FLOOD_READING_CAPACITY.",
    )
    peer_flood_reading_capacity: int = setting(
        "PEER_FLOOD_READING_CAPACITY",
        200,
        COUNT32,
        "How many of them may be flooded: a peer's first credit.",
    )
    flow_control_send_more_batch_size: int = setting(
        "FLOW_CONTROL_SEND_MORE_BATCH_SIZE",
        40,
        COUNT32,
        "After how many flooded messages credit is returned; at most PEER_FLOOD_READING_CAPACITY.",
    )
    peer_total_reading_capacity_bytes: int = setting(
        "PEER_TOTAL_READING_CAPACITY_BYTES",
        _MEBIBYTE,
        COUNT32,
        "How many bytes of a peer are processed at once.",
    )
    peer_flood_reading_capacity_bytes: int = setting(
        "PEER_FLOOD_READING_CAPACITY_BYTES",
        0,
        UINT32,
        "How many of them may be flooded; at least "
        f"{MIN_FLOOD_HEADROOM_BYTES} more than FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES; both 0 = "
        "as the network's transactions need.",
    )
    flow_control_send_more_batch_size_bytes: int = setting(
        "FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES",
        0,
        UINT32,
        "After how many flooded bytes credit is returned.",
    )
    outbound_tx_queue_byte_limit: int = setting(
        "OUTBOUND_TX_QUEUE_BYTE_LIMIT",
        3 * _MEBIBYTE,
        COUNT32,
        "How many bytes of transactions may wait for one peer.",
    )
    max_tx_size: int = setting(
        "MAX_TX_SIZE",
        200_000,
        COUNT31,
        "How many bytes the largest transaction has that we send: more than any network allows, "
        "and as much as the automatic credit in bytes has room for.",
        ours=True,
    )
    max_tx_set_size_ops: int = setting(
        "MAX_TX_SET_SIZE_OPS",
        10_000,
        COUNT31,
        "How many transactions, and how many advertised or demanded hashes, may wait for one peer.",
        ours=True,
    )
    max_batch_write_count: int = setting(
        "MAX_BATCH_WRITE_COUNT", 1024, COUNT31, "How many messages are written to a peer at once."
    )
    max_batch_write_bytes: int = setting(
        "MAX_BATCH_WRITE_BYTES", _MEBIBYTE, COUNT31, "How many bytes are written to a peer at once."
    )

    # Flooding.
    mode: str = setting(
        "MODE",
        "relay",
        MODE,
        "What becomes of flooded messages that verify: relay passes them on, observe does not.",
        ours=True,
    )
    flood_ttl_secs: int = setting(
        "FLOOD_TTL", 300, SECONDS, "How long flooded messages are remembered at least.", ours=True
    )
    flood_rate_limit_per_sec: int = setting(
        "FLOOD_RATE_LIMIT_PER_SEC",
        0,
        UINT32,
        "How many new transactions and adverts are taken in a second; 0 = any number.",
        ours=True,
    )
    flood_op_rate_per_ledger: float = setting(
        "FLOOD_OP_RATE_PER_LEDGER",
        1.0,
        POSITIVE,
        "How many operations are advertised per ledger, in parts of what a ledger holds.",
    )
    flood_tx_period_ms: int = setting(
        "FLOOD_TX_PERIOD_MS", 200, MILLISECONDS, "How often waiting transactions are flooded."
    )
    flood_soroban_rate_per_ledger: float = setting(
        "FLOOD_SOROBAN_RATE_PER_LEDGER",
        1.0,
        POSITIVE,
        "As FLOOD_OP_RATE_PER_LEDGER, for Soroban transactions.",
    )
    flood_soroban_tx_period_ms: int = setting(
        "FLOOD_SOROBAN_TX_PERIOD_MS",
        200,
        MILLISECONDS,
        "As FLOOD_TX_PERIOD_MS, for Soroban transactions.",
    )
    flood_advert_period_ms: int = setting(
        "FLOOD_ADVERT_PERIOD_MS", 100, MILLISECONDS, "How long adverts wait for company."
    )
    flood_demand_period_ms: int = setting(
        "FLOOD_DEMAND_PERIOD_MS", 200, MILLISECONDS, "How often transactions are demanded."
    )
    flood_demand_backoff_delay_ms: int = setting(
        "FLOOD_DEMAND_BACKOFF_DELAY_MS",
        500,
        MILLISECONDS,
        "By how much the wait grows with each demand of one transaction.",
    )
    flood_arb_tx_base_allowance: int = setting(
        "FLOOD_ARB_TX_BASE_ALLOWANCE",
        5,
        whole(-1, 2**31 - 1),
        "How many path payment loops of an asset pair are flooded per period; -1 = any number.",
    )
    flood_arb_tx_damping_factor: float = setting(
        "FLOOD_ARB_TX_DAMPING_FACTOR", 0.8, positive(1.0), "How strongly more of them are damped."
    )

    # Consensus, as far as we listen to it.
    max_slots_to_remember: int = setting(
        "MAX_SLOTS_TO_REMEMBER", 12, UINT32, "For how many ledgers messages are kept."
    )
    validators: list[Validator] = setting(
        "VALIDATORS",
        [],
        VALIDATORS,
        "Who votes: PUBLIC_KEY, HOME_DOMAIN, NAME, ADDRESS (a known peer, or a preferred one of "
        "NODE_HOME_DOMAIN), and QUALITY, here or in HOME_DOMAINS.",
    )
    quorum_set: QuorumSet | None = setting(
        "QUORUM_SET",
        following("what core makes of VALIDATORS", lambda c: generated_quorum_set(c.validators)),
        QUORUM_SET,
        "Whose agreement we believe: THRESHOLD_PERCENT, VALIDATORS and inner tables.",
    )
    surveyor_keys: list[PeerId | str] = setting(
        "SURVEYOR_KEYS",
        [],
        NODE_IDS,
        "Who may survey the network through us; none = the nodes of the quorum set. Nobody may "
        'where it names us alone: "$self".',
    )
    survey_phase_minutes: int = setting(
        "ARTIFICIALLY_SET_SURVEY_PHASE_DURATION_FOR_TESTING",
        0,
        UINT32,
        "After how many minutes each phase of a survey ends by itself; 0 = 30 for collecting, 180 "
        "for reporting.",
    )
    expected_ledger_close_secs: int = setting(
        "ARTIFICIALLY_SET_CLOSE_TIME_FOR_TESTING",
        0,
        UINT32,
        "How many seconds the network takes for a ledger; 0 = 5. A survey's requests leave ten at "
        "a time, then three ledgers later the next.",
    )

    warnings: tuple[str, ...] = field(default=(), init=False, compare=False)
    sources: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    if not TYPE_CHECKING:  # or else mypy would let anything be assigned

        def __setattr__(self, name: str, value: object) -> None:
            if name not in ("warnings", "sources"):
                row_of(name)
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        default = vars(ConfigTable())
        values = [
            f"{name}={row_of(name).rule.show(thawed(value))}"
            for name, value in vars(self).items()
            if name in _TABLE and thawed(value) != default.get(name)
        ]
        return f"OverlayConfig({', '.join(values)})"


_TABLE = {
    row.name: Setting(attribute=row.name, **cast(dict[str, Any], row.metadata))
    for row in fields(ConfigTable)
    if row.metadata
}


def settings() -> tuple[Setting, ...]:
    """Return the whole table, in the order in which it is best read."""
    return tuple(_TABLE.values())


def row_of(attribute: str) -> Setting:
    """Return the row of an attribute.

    :raises AttributeError: when there is none, with the closest one.
    """
    if attribute not in _TABLE:
        from difflib import get_close_matches

        close = get_close_matches(attribute, _TABLE, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise AttributeError(f"OverlayConfig has no setting {attribute!r}{hint}")
    return _TABLE[attribute]


def where(row: Setting, source: str | None) -> str:
    """Return what begins a message about a setting: its names, and where it was set."""
    return f"{source}: {row.name} ({row.attribute})" if source else f"{row.attribute} ({row.name})"
