"""The configuration: what may be set, what follows from it, and what files say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

from stellar_sdk import Keypair
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig, QuorumSet, Validator, settings
from stellar_overlay.error import ConfigError
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE, PeerId

ROOT = Path(__file__).resolve().parent.parent

KEYPAIR = Keypair.from_raw_ed25519_seed(b"\1" * 32)
SEED = KEYPAIR.secret
OWN_ID = KEYPAIR.public_key
A, B, C, D, E, F, G, H, K, L = (PeerId(bytes([n]) * 32).strkey for n in range(2, 12))

INT31 = 2**31 - 1
INT32 = 2**32 - 1

# Attribute, key in files (ours marked by !), default, lowest, highest.
NUMBERS = (
    ("listen_port", "PEER_PORT", 11625, 1, 65535),
    ("http_port", "HTTP_PORT", 11626, 0, 65535),
    ("target_outbound_peers", "TARGET_PEER_CONNECTIONS", 8, 1, 65535),
    ("max_outbound_peers", "!MAX_OUTBOUND_CONNECTIONS", 8, 1, 65535),
    ("max_inbound_peers", "MAX_ADDITIONAL_PEER_CONNECTIONS", 64, -1, 65535),
    ("max_pending_connections", "MAX_PENDING_CONNECTIONS", 500, 1, 65535),
    ("connect_timeout_secs", "!CONNECT_TIMEOUT", 5, 1, 65535),
    ("auth_timeout_secs", "PEER_AUTHENTICATION_TIMEOUT", 2, 1, 65535),
    ("peer_timeout_secs", "PEER_TIMEOUT", 30, 1, 65535),
    ("peer_straggler_timeout_secs", "PEER_STRAGGLER_TIMEOUT", 120, 1, 65535),
    ("peer_reading_capacity", "PEER_READING_CAPACITY", 201, 1, INT32),
    ("peer_flood_reading_capacity", "PEER_FLOOD_READING_CAPACITY", 200, 1, INT32),
    ("flow_control_send_more_batch_size", "FLOW_CONTROL_SEND_MORE_BATCH_SIZE", 40, 1, INT32),
    ("peer_total_reading_capacity_bytes", "PEER_TOTAL_READING_CAPACITY_BYTES", 2**20, 1, INT32),
    ("peer_flood_reading_capacity_bytes", "PEER_FLOOD_READING_CAPACITY_BYTES", 0, 0, INT32),
    (
        "flow_control_send_more_batch_size_bytes",
        "FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES",
        0,
        0,
        INT32,
    ),
    ("outbound_tx_queue_byte_limit", "OUTBOUND_TX_QUEUE_BYTE_LIMIT", 3 * 2**20, 1, INT32),
    ("max_tx_size", "!MAX_TX_SIZE", 200_000, 1, INT31),
    ("max_tx_set_size_ops", "!MAX_TX_SET_SIZE_OPS", 10_000, 1, INT31),
    ("max_batch_write_count", "MAX_BATCH_WRITE_COUNT", 1024, 1, INT31),
    ("max_batch_write_bytes", "MAX_BATCH_WRITE_BYTES", 2**20, 1, INT31),
    ("flood_ttl_secs", "!FLOOD_TTL", 300, 1, 65535),
    ("flood_rate_limit_per_sec", "!FLOOD_RATE_LIMIT_PER_SEC", 0, 0, INT32),
    ("flood_tx_period_ms", "FLOOD_TX_PERIOD_MS", 200, 1, INT31),
    ("flood_soroban_tx_period_ms", "FLOOD_SOROBAN_TX_PERIOD_MS", 200, 1, INT31),
    ("flood_advert_period_ms", "FLOOD_ADVERT_PERIOD_MS", 100, 1, INT31),
    ("flood_demand_period_ms", "FLOOD_DEMAND_PERIOD_MS", 200, 1, INT31),
    ("flood_demand_backoff_delay_ms", "FLOOD_DEMAND_BACKOFF_DELAY_MS", 500, 1, INT31),
    ("flood_arb_tx_base_allowance", "FLOOD_ARB_TX_BASE_ALLOWANCE", 5, -1, INT31),
    ("max_slots_to_remember", "MAX_SLOTS_TO_REMEMBER", 12, 0, INT32),
    (
        "survey_phase_minutes",
        "ARTIFICIALLY_SET_SURVEY_PHASE_DURATION_FOR_TESTING",
        0,
        0,
        INT32,
    ),
    ("expected_ledger_close_secs", "ARTIFICIALLY_SET_CLOSE_TIME_FOR_TESTING", 0, 0, INT32),
    ("overlay_version", "!OVERLAY_PROTOCOL_VERSION", 42, 0, INT32),
    ("overlay_min_version", "!OVERLAY_PROTOCOL_MIN_VERSION", 38, 0, INT32),
)

# Attribute, key, default, accepted, refused.
OTHERS: tuple[tuple[str, str, object, tuple[object, ...], tuple[object, ...]], ...] = (
    (
        "flood_op_rate_per_ledger",
        "FLOOD_OP_RATE_PER_LEDGER",
        1.0,
        (1e-9, 0.5, 2, 1e9),
        (0, 0.0, -1.0, float("nan"), float("inf"), "1.0", True),
    ),
    (
        "flood_soroban_rate_per_ledger",
        "FLOOD_SOROBAN_RATE_PER_LEDGER",
        1.0,
        (1e-9, 0.5, 2, 1e9),
        (0, 0.0, -1.0, float("nan"), float("inf"), "1.0", True),
    ),
    (
        "flood_arb_tx_damping_factor",
        "FLOOD_ARB_TX_DAMPING_FACTOR",
        0.8,
        (1e-9, 1.0, 1),
        (0.0, 1.0000001, 2, float("nan"), "0.8", True),
    ),
    ("mode", "!MODE", "relay", ("relay", "observe"), ("", "Relay", "both", 1, None)),
    ("network_passphrase", "NETWORK_PASSPHRASE", TESTNET_PASSPHRASE, ("x",), ("", 5, None, b"x")),
    ("node_seed", "NODE_SEED", "", ("", SEED), (5, b"x", True)),
    ("node_is_validator", "NODE_IS_VALIDATOR", False, (True, False), (1, 0, "true", None)),
    ("node_home_domain", "NODE_HOME_DOMAIN", "", ("", "a.org"), (5, None)),
    (
        "node_names",
        "NODE_NAMES",
        {},
        ({A: "a"}, [f"{A} a"], []),
        (A, {A: 5}, [5], [f"{A} a", f"{A} b"]),
    ),
    ("run_standalone", "RUN_STANDALONE", False, (True, False), (1, "yes")),
    ("listen_enabled", "!LISTEN_ENABLED", True, (True, False), (1, "yes")),
    ("public_http_port", "PUBLIC_HTTP_PORT", False, (True, False), (1, "yes", 11626)),
    (
        "database",
        "DATABASE",
        "sqlite3://stellar-overlay.db",
        ("sqlite3://x.db", "sqlite3://:memory:", "sqlite3:///var/x.db"),
        ("", "x.db", "sqlite3://", "sqlite://x.db", "mysql://x", "postgresql://x", 5),
    ),
    ("known_peers", "KNOWN_PEERS", [], ([], ["a", "b:1"]), ("a", [5], ["a b"], {"a": 1}, None)),
    ("preferred_peers", "PREFERRED_PEERS", [], ([], ["a", "b:1"]), ("a", [5], ["a:0"], None)),
    ("preferred_peer_keys", "PREFERRED_PEER_KEYS", [], ([], [A]), (A, [5], None)),
    ("preferred_peers_only", "PREFERRED_PEERS_ONLY", False, (True, False), (1, "no")),
    ("allow_private", "ALLOW_PRIVATE_ADDRESSES_FOR_TESTING", False, (True, False), (1, "no")),
    ("allow_localhost", "ALLOW_LOCALHOST_FOR_TESTING", False, (True, False), (1, "no")),
    ("validators", "VALIDATORS", [], ([],), ("x", [A], [{}], None)),
    ("quorum_set", "QUORUM_SET", None, (QuorumSet(1, (A,)),), (A, [A], {"VALIDATORS": [A]})),
    ("surveyor_keys", "SURVEYOR_KEYS", [], ([], [A]), (A, [5], None)),
)

# What is wrong when both are set, and the names that the error must tell.
CONFLICTS: tuple[tuple[dict[str, int], tuple[str, ...]], ...] = (
    ({"max_outbound_peers": 7}, ("max_outbound_peers", "TARGET_PEER_CONNECTIONS", "7", "8")),
    ({"max_inbound_peers": 7}, ("max_inbound_peers", "MAX_ADDITIONAL_PEER_CONNECTIONS", "7", "8")),
    (
        {"flow_control_send_more_batch_size": 201},
        ("FLOW_CONTROL_SEND_MORE_BATCH_SIZE", "PEER_FLOOD_READING_CAPACITY", "201", "200"),
    ),
    (
        {"peer_reading_capacity": 200},
        ("PEER_READING_CAPACITY", "PEER_FLOOD_READING_CAPACITY", "201", "200"),
    ),
    (
        {"flow_control_send_more_batch_size_bytes": 1},
        ("FLOW_CONTROL_SEND_MORE_BATCH_SIZE_BYTES", "PEER_FLOOD_READING_CAPACITY_BYTES"),
    ),
    ({"peer_flood_reading_capacity_bytes": 102_399}, ("102400", "102399")),
    (
        {
            "peer_flood_reading_capacity_bytes": 202_399,
            "flow_control_send_more_batch_size_bytes": 100_000,
        },
        ("100000", "202400", "202399"),
    ),
    ({"overlay_min_version": 43}, ("overlay_min_version", "overlay_version", "43", "42")),
)

AGREEMENTS: tuple[dict[str, int], ...] = (
    {"max_outbound_peers": 8, "max_inbound_peers": 8},
    {"flow_control_send_more_batch_size": 200},
    {"peer_reading_capacity": 202, "peer_flood_reading_capacity": 201},
    {"peer_flood_reading_capacity_bytes": 102_400},
    {
        "peer_flood_reading_capacity_bytes": 202_400,
        "flow_control_send_more_batch_size_bytes": 100_000,
    },
    {"overlay_min_version": 42},
    {"overlay_min_version": 0, "overlay_version": 0},
)


class ValueTests(SynchronousTestCase):
    """Each setting by itself."""

    def test_table_is_whole(self) -> None:
        """These tests name every setting, with its key, and which keys are ours."""
        expected = {row[0]: row[1] for row in (*NUMBERS, *OTHERS)}
        found = {row.attribute: "!" * row.ours + row.name for row in settings()}
        self.assertEqual(found, expected)

    def test_defaults(self) -> None:
        """Without a word, everything is as core has it, or as we document it."""
        config = OverlayConfig()
        for attribute, _, default, *_ in (*NUMBERS, *OTHERS):
            with self.subTest(attribute=attribute):
                self.assertEqual(getattr(config, attribute), default)
                kept = tuple(default) if isinstance(default, list) else default
                self.assertEqual(getattr(config.checked(), attribute), kept)

    def test_bounds(self) -> None:
        """The lowest and the highest number are accepted, the next ones are not."""
        for attribute, _, _, low, high in NUMBERS:
            for value in (low, high):
                with self.subTest(attribute=attribute, value=value):
                    OverlayConfig().override(attribute, value, "a test")
            for value in (low - 1, high + 1):
                with self.subTest(attribute=attribute, value=value):
                    self.refuse(attribute, value, f"from {low} to {high}", str(value))

    def test_numbers_are_integers(self) -> None:
        """A bool, a float, a text or nothing is not a number of something."""
        for attribute, *_ in NUMBERS:
            for value in (True, 9.0, "9", [9], b"9"):
                with self.subTest(attribute=attribute, value=value):
                    self.refuse(attribute, value, "whole number", repr(value))

    def test_others(self) -> None:
        """Of everything else, what is of the kind is accepted, and nothing more."""
        for attribute, _, _, accepted, refused in OTHERS:
            for value in accepted:
                with self.subTest(attribute=attribute, value=value):
                    config = OverlayConfig()
                    setattr(config, attribute, value)
                    config.checked()
            for value in refused:
                if value is not None or attribute != "quorum_set":
                    with self.subTest(attribute=attribute, value=value):
                        self.refuse(attribute, value)

    def refuse(self, attribute: str, value: object, *words: str) -> None:
        """Assert that the error tells attribute, key, value and rule in one line."""
        row = next(row for row in settings() if row.attribute == attribute)
        config = OverlayConfig()
        setattr(config, attribute, value)
        error = str(self.assertRaises(ConfigError, config.checked))
        for word in (attribute, row.name, str(row.rule), *words):
            self.assertIn(word, error)
        self.assertNotIn("\n", error)

    def test_error(self) -> None:
        """An error reads well."""
        config = OverlayConfig(listen_port=0)
        self.assertEqual(
            str(self.assertRaises(ConfigError, config.checked)),
            "listen_port (PEER_PORT) must be a whole number from 1 to 65535, not 0",
        )

    def test_error_is_short(self) -> None:
        """A long value is cut, a line break escaped."""
        config = OverlayConfig(known_peers=["a\n" * 10_000])
        error = str(self.assertRaises(ConfigError, config.checked))
        self.assertNotIn("\n", error)

    def test_misspelt(self) -> None:
        """A setting that does not exist cannot be assigned by mistake."""
        config = OverlayConfig()
        error = self.assertRaises(AttributeError, setattr, config, "max_inbound_peer", 5)
        self.assertIn("max_inbound_peers", str(error))
        self.assertRaises(AttributeError, config.override, "port", 5, "a test")


class TogetherTests(SynchronousTestCase):
    """What settings demand of each other."""

    def test_conflicts(self) -> None:
        """Of two settings that exclude each other, the error names both, with their values."""
        for values, words in CONFLICTS:
            with self.subTest(values=values):
                config = OverlayConfig()
                for attribute, value in values.items():
                    setattr(config, attribute, value)
                error = str(self.assertRaises(ConfigError, config.checked))
                for word in words:
                    self.assertIn(word, error)

    def test_agreements(self) -> None:
        """The closest values that do not exclude each other are accepted."""
        for values in AGREEMENTS:
            with self.subTest(values=values):
                config = OverlayConfig()
                for attribute, value in values.items():
                    setattr(config, attribute, value)
                config.checked()

    def test_maxima_follow_the_target(self) -> None:
        """Until they are set, the maxima are 8 times and once the target."""
        config = OverlayConfig(target_outbound_peers=4)
        self.assertEqual((config.max_inbound_peers, config.max_outbound_peers), (32, 4))
        config.target_outbound_peers = 5
        self.assertEqual((config.max_inbound_peers, config.max_outbound_peers), (40, 5))
        config.target_outbound_peers = 10_000
        self.assertEqual((config.max_inbound_peers, config.max_outbound_peers), (65535, 10_000))

    def test_maxima_stay(self) -> None:
        """Once they are set, the target moves without them."""
        config = OverlayConfig(max_inbound_peers=64, max_outbound_peers=8)
        config.target_outbound_peers = 4
        self.assertEqual((config.max_inbound_peers, config.max_outbound_peers), (64, 8))

    def test_minus_one(self) -> None:
        """Core's -1 makes the inbound maximum follow the target again."""
        config = OverlayConfig(max_inbound_peers=100)
        config.max_inbound_peers = -1
        config.target_outbound_peers = 2
        self.assertEqual(config.checked().max_inbound_peers, 16)

    def test_seed_readme(self) -> None:
        """Every value in the README of the seed is accepted."""
        config = OverlayConfig(
            max_inbound_peers=64,
            max_outbound_peers=8,
            target_outbound_peers=4,
            connect_timeout_secs=5,
            auth_timeout_secs=10,
            listen_port=11625,
            listen_enabled=True,
            network_passphrase="Test SDF Network ; September 2015",
            flood_ttl_secs=300,
        )
        self.assertEqual(config.checked().target_outbound_peers, 4)


class FrozenTests(SynchronousTestCase):
    """The copy that is in use."""

    def test_no_assignment(self) -> None:
        """Nothing can be assigned to the copy."""
        config = OverlayConfig().checked()
        with self.assertRaises(FrozenInstanceError):
            config.listen_port = 5
        with self.assertRaises(FrozenInstanceError):
            del config.listen_port
        with self.assertRaises(FrozenInstanceError):
            config.override("listen_port", 5, "a test")
        self.assertEqual(config.listen_port, 11625)

    def test_nothing_inside_changes(self) -> None:
        """Lists are tuples in the copy, dicts read-only; in the original all stays open."""
        validator = Validator(public_key=A, home_domain="a.org")
        config = OverlayConfig(
            known_peers=["a"],
            preferred_peers=["b"],
            preferred_peer_keys=[A],
            surveyor_keys=[B],
            validators=[validator],
            node_names={A: "a"},
            quorum_set=QuorumSet(1, [A], [QuorumSet(1, [B])]),  # type: ignore[arg-type]
        )
        config.sources["known_peers"] = "a test"
        copy = config.checked()
        for name, value in vars(copy).items():
            with self.subTest(name=name):
                self.assertFalse(hasattr(value, "append") or hasattr(value, "clear"))
                self.assertFalse(hasattr(value, "__setitem__"))
        assert copy.quorum_set is not None
        self.assertEqual(hash(copy.quorum_set), hash(QuorumSet(1, (A,), (QuorumSet(1, (B,)),))))
        for mapping in (copy.node_names, copy.sources):
            with self.assertRaises(TypeError):
                mapping["x"] = "y"
        with self.assertRaises(AttributeError):
            copy.known_peers.append("c")
        config.known_peers.append("c")
        config.node_names[B] = "b"
        self.assertEqual((len(copy.known_peers), len(copy.node_names)), (1, 1))

    def test_shown_as_the_original(self) -> None:
        """The copy shows what differs from the defaults, as the original does."""
        self.assertEqual(repr(OverlayConfig().checked()), "OverlayConfig()")
        config = OverlayConfig(known_peers=[PeerAddress("a")], node_names={A: "a"})
        self.assertEqual(repr(config.checked()), repr(config))

    def test_independent(self) -> None:
        """What happens to the original later does not happen to the copy."""
        config = OverlayConfig(known_peers=["a"], node_names={A: "a"})
        config.sources["known_peers"] = "a test"
        copy = config.checked()
        config.known_peers.append("b")
        config.node_names[B] = "b"
        config.target_outbound_peers = 3
        config.sources.clear()
        self.assertEqual(list(copy.known_peers), [PeerAddress("a")])
        self.assertEqual(copy.node_names, {A: "a"})
        self.assertEqual(copy.max_outbound_peers, 8)
        self.assertEqual(copy.sources, {"known_peers": "a test"})

    def test_original_stays(self) -> None:
        """Checking does not change the original."""
        config = OverlayConfig(known_peers=["a"])
        config.checked()
        self.assertEqual(config.known_peers, ["a"])

    def test_again(self) -> None:
        """A checked copy is checked like any other, and says the same."""
        for config in (OverlayConfig.testnet(), OverlayConfig(node_names={A: "a"})):
            copy = config.checked()
            self.assertEqual(copy.checked(), copy)

    def test_instances_share_nothing(self) -> None:
        """A list of one configuration is not that of another."""
        OverlayConfig().known_peers.append("a")
        self.assertEqual(OverlayConfig().known_peers, [])


class PeerTests(SynchronousTestCase):
    """Lists of addresses."""

    def test_both_kinds(self) -> None:
        """Texts and addresses may be mixed; the copy has addresses, in the same order."""
        config = OverlayConfig(known_peers=[PeerAddress("b", 2), "a"])
        config.known_peers.append("[::1]:5")
        expected = [PeerAddress("b", 2), PeerAddress("a", 11625), PeerAddress("::1", 5)]
        self.assertEqual(list(config.checked().known_peers), expected)
        self.assertEqual(config.known_addresses, tuple(expected))

    def test_repeated(self) -> None:
        """An address counts once, where it first stands."""
        config = OverlayConfig(preferred_peers=["b", "a:11625", PeerAddress("b"), "a"])
        self.assertEqual(config.preferred_addresses, (PeerAddress("b"), PeerAddress("a")))
        copy = config.checked()
        self.assertEqual(list(copy.preferred_peers), [PeerAddress("b"), PeerAddress("a")])

    def test_two_spellings(self) -> None:
        """A host that is spelt in two ways is one peer."""
        config = OverlayConfig(known_peers=["Host.Example", "host.example", "[0::1]", "[::1]"])
        self.assertEqual(config.known_addresses, (PeerAddress("host.example"), PeerAddress("::1")))

    def test_bad(self) -> None:
        """The error says which entry is wrong, and why."""
        config = OverlayConfig(known_peers=["fine", "127.0.0.256"])
        error = str(self.assertRaises(ConfigError, config.checked))
        self.assertIn("'127.0.0.256' is not an IPv4 address", error)


class NodeIdTests(SynchronousTestCase):
    """Lists of nodes, by id or by name, as core's Config.cpp:2459-2550 reads them."""

    def test_forms(self) -> None:
        """A node is named by its id, by its id with a name to give it, or by a name."""
        config = OverlayConfig(
            node_names={A: "eliza"},
            preferred_peer_keys=["$eliza", f"{B} hal9000 and a remark", PeerId.from_strkey(C)],
            surveyor_keys=["$hal9000", "$eliza", A],
        )
        copy = config.checked()
        self.assertEqual(list(copy.preferred_peer_keys), [A, B, C])
        self.assertEqual(list(copy.surveyor_keys), [B, A])
        self.assertEqual(copy.node_names, {A: "eliza", B: "hal9000"})
        self.assertEqual(copy.surveyor_ids, {PeerId.from_strkey(A), PeerId.from_strkey(B)})
        self.assertEqual(len(copy.preferred_ids), 3)

    def test_self(self) -> None:
        """A name after the seed is ours."""
        copy = OverlayConfig(node_seed=f"{SEED} self", surveyor_keys=["$self"]).checked()
        self.assertEqual(list(copy.surveyor_keys), [OWN_ID])
        self.assertEqual(copy.node_seed, SEED)

    def test_validators(self) -> None:
        """The name of a validator is known."""
        validator = Validator(public_key=A, home_domain="a.org", name="SDF 1")
        config = OverlayConfig(validators=[validator], surveyor_keys=["$SDF 1"])
        self.assertEqual(list(config.checked().surveyor_keys), [A])

    def test_quorum_set(self) -> None:
        """The nodes of a quorum set are found by name, too."""
        config = OverlayConfig(
            node_names={A: "a"}, quorum_set=QuorumSet(1, ("$a",), (QuorumSet(1, (f"{B} b",)),))
        )
        expected = QuorumSet(1, (A,), (QuorumSet(1, (B,)),))
        self.assertEqual(config.checked().quorum_set, expected)

    def test_validator_in_two_domains(self) -> None:
        """A validator counts once, in one domain."""
        config = OverlayConfig(
            validators=[*of_domain("HIGH", "a.org", A), *of_domain("HIGH", "b.org", A)]
        )
        error = str(self.assertRaises(ConfigError, config.checked))
        self.assertIn("validators (VALIDATORS)", error)
        self.assertIn("twice", error)

    def test_bad(self) -> None:
        """What names no node, or two, is an error that says so."""
        for config, words in (
            (OverlayConfig(surveyor_keys=["$eliza"]), "no node is named 'eliza'"),
            (OverlayConfig(preferred_peer_keys=["GABC"]), "'GABC' is not a node id"),
            (OverlayConfig(preferred_peer_keys=[""]), "'' is not a node id"),
            (OverlayConfig(node_names={"x": "y"}), "'x' is not a node id"),
            (OverlayConfig(node_names={A: "x", B: "x"}), "'x' names both"),
            (OverlayConfig(surveyor_keys=[f"{A} x", f"{A} y"]), "named both 'x' and 'y'"),
            (OverlayConfig(quorum_set=QuorumSet(1, ("$x",))), "no node is named 'x'"),
            (OverlayConfig(quorum_set=QuorumSet(3, (A, B))), "threshold 3 is not in 1..2"),
            (OverlayConfig(quorum_set=QuorumSet(1, (A, f"{A} a"))), "is in it twice"),
        ):
            with self.subTest(words=words):
                self.assertIn(words, str(self.assertRaises(ConfigError, config.checked)))


class QuorumSetTests(SynchronousTestCase):
    """Whose agreement is believed."""

    def test_percent(self) -> None:
        """A percentage of the entries is rounded up, as in core's Config.cpp:652-657."""
        nodes = (A, B, C, D, E, F, G, H, K, L)
        for percent, size, threshold in (
            (1, 1, 1),
            (100, 1, 1),
            (50, 2, 1),
            (51, 2, 2),
            (51, 3, 2),
            (66, 3, 2),
            (67, 3, 3),
            (66, 5, 4),
            (67, 4, 3),
            (67, 7, 5),
            (67, 10, 7),
            (100, 10, 10),
        ):
            with self.subTest(percent=percent, size=size):
                self.assertEqual(
                    QuorumSet.of_percent(percent, nodes[:size], []).threshold, threshold
                )

    def test_inner_sets_count_as_one(self) -> None:
        """An inner set is one entry of the outer one."""
        inner = QuorumSet(2, (C, D, E))
        self.assertEqual(QuorumSet.of_percent(67, (A, B), (inner,)), QuorumSet(3, (A, B), (inner,)))

    def test_generated(self) -> None:
        """Domains of each quality are grouped as core does: two thirds, the lower as one more."""
        config = OverlayConfig(
            validators=[
                *of_domain("HIGH", "b.org", A, B, C),
                *of_domain("HIGH", "a.org", D, E, F),
                *of_domain("MEDIUM", "m.org", G, H),
                *of_domain("LOW", "l.org", K),
            ]
        )
        self.assertEqual(
            config.quorum_set,
            QuorumSet(
                3,
                (),
                (
                    QuorumSet(2, (D, E, F)),
                    QuorumSet(2, (A, B, C)),
                    # A domain of one node is that node; the set of LOW ones was only that.
                    QuorumSet(2, (K,), (QuorumSet(2, (G, H)),)),
                ),
            ),
        )

    def test_critical(self) -> None:
        """All critical domains must agree, and the others together with them."""
        config = OverlayConfig(
            validators=[
                *of_domain("CRITICAL", "x.org", A, B, C),
                *of_domain("HIGH", "y.org", D, E, F),
            ]
        )
        expected = QuorumSet(2, (), (QuorumSet(2, (A, B, C)), QuorumSet(2, (D, E, F))))
        self.assertEqual(config.quorum_set, expected)

    def test_one_domain(self) -> None:
        """Of a single domain, a majority is enough."""
        for keys, threshold in (((A,), 1), ((A, B), 2), ((A, B, C), 2), ((A, B, C, D, E), 3)):
            with self.subTest(keys=keys):
                config = OverlayConfig(validators=of_domain("HIGH", "a.org", *keys))
                assert config.quorum_set is not None
                self.assertEqual(config.quorum_set.threshold, threshold)
                self.assertEqual(list(config.quorum_set.nodes), list(keys))

    def test_none(self) -> None:
        """Without validators there is no quorum set."""
        self.assertIsNone(OverlayConfig().checked().quorum_set)

    def test_set_by_hand(self) -> None:
        """A quorum set that is set wins over the validators."""
        config = OverlayConfig(
            validators=of_domain("HIGH", "a.org", A), quorum_set=QuorumSet(1, (B,))
        )
        self.assertEqual(config.checked().quorum_set, QuorumSet(1, (B,)))

    def test_limits(self) -> None:
        """Five levels in all and 1,000 nodes are accepted, and nothing beyond."""
        quorum_set = QuorumSet(1, (A,))
        for key in (B, C, D, E):
            quorum_set = QuorumSet(1, (key,), (quorum_set,))
        OverlayConfig(quorum_set=quorum_set).checked()
        deeper = OverlayConfig(quorum_set=QuorumSet(1, (F,), (quorum_set,)))
        self.assertIn("levels", str(self.assertRaises(ConfigError, deeper.checked)))
        nodes = tuple(PeerId(n.to_bytes(32, "big")).strkey for n in range(1001))
        OverlayConfig(quorum_set=QuorumSet(1, nodes[:1000])).checked()
        wider = OverlayConfig(quorum_set=QuorumSet(1, nodes))
        self.assertIn("1000", str(self.assertRaises(ConfigError, wider.checked)))


def of_domain(quality: str, home_domain: str, *keys: str) -> list[Validator]:
    """Return one validator for each key."""
    return [Validator(public_key=k, home_domain=home_domain, quality=quality) for k in keys]


class PresetTests(SynchronousTestCase):
    """The two public networks."""

    def test_testnet(self) -> None:
        """The test network: the foundation's three nodes, two of which must agree."""
        config = OverlayConfig.testnet().checked()
        self.assertEqual(config.network_passphrase, TESTNET_PASSPHRASE)
        self.assertFalse(config.listen_enabled)
        self.assertIn(PeerAddress("core-testnet1.stellar.org", 11625), config.known_peers)
        self.assertEqual(len(config.known_peers), 3)
        assert config.quorum_set is not None
        self.assertEqual((config.quorum_set.threshold, config.quorum_set.size), (2, 3))
        self.assertEqual(sorted(config.node_names.values()), ["sdftest1", "sdftest2", "sdftest3"])

    def test_pubnet(self) -> None:
        """The public network: seven domains of three nodes, five of which must agree."""
        config = OverlayConfig.pubnet().checked()
        self.assertEqual(config.network_passphrase, PUBNET_PASSPHRASE)
        self.assertFalse(config.listen_enabled)
        self.assertIn(PeerAddress("core-live-a.stellar.org", 11625), config.known_peers)
        self.assertEqual(len(config.known_peers), 21)
        assert config.quorum_set is not None
        self.assertEqual((config.quorum_set.threshold, config.quorum_set.size), (5, 7))
        for inner in config.quorum_set.inner_sets:
            self.assertEqual((inner.threshold, inner.size), (2, 3))

    def test_added_only_where_nothing_is(self) -> None:
        """What was given, even if it is nothing, is not filled up from the network's own."""
        config = OverlayConfig(known_peers=["a"], quorum_set=QuorumSet(1, (A,)))
        config.add_public_network()
        self.assertEqual(config.known_peers, ["a"])
        self.assertEqual(config.validators, [])
        config = OverlayConfig()
        config.override("known_peers", [], "a test")
        config.override("validators", [], "a test")
        config.add_public_network()
        self.assertEqual((config.known_peers, config.validators), ([], []))

    def test_private_network(self) -> None:
        """Of another network nothing is known."""
        config = OverlayConfig(network_passphrase="private")
        config.add_public_network()
        self.assertEqual(config, OverlayConfig(network_passphrase="private"))


class TableTests(SynchronousTestCase):
    """The table for people, and what importing it costs."""

    def test_rows(self) -> None:
        """Each row says in words what a setting is, defaults to and must be."""
        rows = {row.attribute: row for row in settings()}
        row = rows["max_inbound_peers"]
        self.assertEqual(row.name, "MAX_ADDITIONAL_PEER_CONNECTIONS")
        self.assertEqual(row.default, "-1 (8 x TARGET_PEER_CONNECTIONS)")
        self.assertEqual(str(row.rule), "a whole number from -1 to 65535")
        self.assertEqual(rows["known_peers"].default, "none")
        self.assertEqual(rows["listen_enabled"].default, "true")
        self.assertEqual(rows["peer_flood_reading_capacity_bytes"].default, "0")
        for row in rows.values():
            with self.subTest(attribute=row.attribute):
                self.assertTrue(row.default)
                self.assertTrue(row.help.endswith("."))
                self.assertNotIn("\n", row.help)

    def test_script(self) -> None:
        """The README's table is what the code says."""
        script = ROOT / "scripts" / "config_table.py"
        subprocess.run([sys.executable, script, "--check"], check=True, timeout=60)
        table = (ROOT / "README.rst").read_text(encoding="utf-8").partition(".. list-table::")[2]
        self.assertEqual(table.count("   * - "), 1 + len(settings()))
        self.assertIn("* - ``MAX_OUTBOUND_CONNECTIONS`` (ours)\n", table)

    def test_repr(self) -> None:
        """A configuration shows what differs from the defaults."""
        self.assertEqual(repr(OverlayConfig()), "OverlayConfig()")
        config = OverlayConfig(listen_port=5, max_inbound_peers=100)
        self.assertEqual(repr(config), "OverlayConfig(listen_port=5, max_inbound_peers=100)")

    def test_import_is_light(self) -> None:
        """Importing the configuration imports nothing heavy, and no reader of files."""
        heavy = "stellar_sdk", "nacl", "twisted", "cryptography", "tomllib", "difflib", "asyncio"
        code = (
            f"import sys, stellar_overlay.config as c; c.OverlayConfig().checked(); "
            f"print([m for m in {heavy} if m in sys.modules])"
        )
        printed = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
        ).stdout
        self.assertEqual(printed.strip(), "[]")
