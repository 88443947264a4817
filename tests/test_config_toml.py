"""Configuration files: stellar-core's keys, its tables, its secrets, and what is none of ours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig, QuorumSet, Validator
from stellar_overlay.error import ConfigError
from tests.test_config import NUMBERS, OWN_ID, SEED, A, B, C, D, E, F, G, H, K, L

REALISTIC = f"""\
# A watcher as operators run it: what stellar-core reads, most of which is none of our business.
LOG_FILE_PATH = "/var/log/stellar/stellar-core.log"
LOG_COLOR = false
BUCKET_DIR_PATH = "/var/lib/stellar/buckets"
DATABASE = "sqlite3:///var/lib/stellar/stellar.db"
HTTP_PORT = 11636
PUBLIC_HTTP_PORT = true
HTTP_MAX_CLIENT = 64
COMMANDS = ["ll?level=info"]
NETWORK_PASSPHRASE = "Private network ; 2026"
CATCHUP_COMPLETE = false
CATCHUP_RECENT = 18000
FAILURE_SAFETY = -1
UNSAFE_QUORUM = false
RUN_STANDALONE = false
INVARIANT_CHECKS = [".*"]
WORKER_THREADS = 11
PEER_PORT = 11635
TARGET_PEER_CONNECTIONS = 12
MAX_ADDITIONAL_PEER_CONNECTIONS = -1
PEER_AUTHENTICATION_TIMEOUT = 4
FLOOD_OP_RATE_PER_LEDGER = 2
KNOWN_PEERS = ["known.example.com", "10.0.0.1:11700"]
PREFERRED_PEERS = ["preferred.example.com"]
NODE_NAMES = ["{A} eliza"]
PREFERRED_PEER_KEYS = ["$eliza", "{B}"]
SURVEYOR_KEYS = ["$north"]
NODE_HOME_DOMAIN = "ours.example.com"

[[HOME_DOMAINS]]
HOME_DOMAIN = "theirs.example.com"
QUALITY = "HIGH"

[[VALIDATORS]]
NAME = "north"
HOME_DOMAIN = "theirs.example.com"
PUBLIC_KEY = "{C}"
ADDRESS = "north.theirs.example.com:11625"
HISTORY = "curl -sf https://history.theirs.example.com/{{0}} -o {{1}}"

[[VALIDATORS]]
NAME = "own"
HOME_DOMAIN = "ours.example.com"
QUALITY = "MEDIUM"
PUBLIC_KEY = "{D}"
ADDRESS = "own.ours.example.com"

[HISTORY.local]
get = "cp /var/lib/stellar/history/{{0}} {{1}}"
"""


class FileTests(SynchronousTestCase):
    """What is read from TOML files."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def write(self, text: str, name: str = "overlay.cfg") -> Path:
        """Write a file and return its path."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def load(self, text: str) -> OverlayConfig:
        """Read a file of this text."""
        return OverlayConfig.from_toml(self.write(text))

    def refuse(self, text: str, *words: str) -> str:
        """Assert that one line tells what is wrong with a file, and in which; return it."""
        path = self.write(text)
        error = str(self.assertRaises(ConfigError, lambda: OverlayConfig.from_toml(path).checked()))
        self.assertIn(str(path), error)
        for word in words:
            self.assertIn(word, error)
        self.assertNotIn("\n", error)
        return error


class TomlTests(FileTests):
    """Files as such."""

    def test_realistic(self) -> None:
        """A whole stellar-core.cfg is understood, and one line sums up what is ignored."""
        config = self.load(REALISTIC)
        self.assertEqual(len(config.warnings), 1)
        self.assertIn("(12): BUCKET_DIR_PATH, CATCHUP_COMPLETE, ", config.warnings[0])
        self.assertIn("HISTORY", config.warnings[0])
        self.assertEqual(config.network_passphrase, "Private network ; 2026")
        self.assertEqual((config.listen_port, config.http_port), (11635, 11636))
        self.assertTrue(config.public_http_port)
        self.assertEqual(config.database, "sqlite3:///var/lib/stellar/stellar.db")
        self.assertEqual(config.max_inbound_peers, 96)
        self.assertEqual(config.auth_timeout_secs, 4)
        self.assertEqual(config.flood_op_rate_per_ledger, 2.0)
        self.assertEqual(
            config.known_addresses,
            (
                PeerAddress("known.example.com"),
                PeerAddress("10.0.0.1", 11700),
                PeerAddress("north.theirs.example.com"),
            ),
        )
        self.assertEqual(
            config.preferred_addresses,
            (PeerAddress("preferred.example.com"), PeerAddress("own.ours.example.com")),
        )
        self.assertEqual(config.preferred_peer_keys, [A, B])
        self.assertEqual(config.surveyor_keys, [C])
        self.assertEqual(config.node_names, {A: "eliza", C: "north", D: "own"})
        self.assertEqual(config.quorum_set, QuorumSet(2, (C, D)))

    def test_every_number(self) -> None:
        """Each key of a number sets its attribute."""
        for attribute, name, default, *_ in NUMBERS:
            with self.subTest(name=name):
                config = self.load(f"{name.lstrip('!')} = {default}")
                self.assertEqual(getattr(config, attribute), default)
                self.assertEqual(config.sources, {attribute: str(self.directory / "overlay.cfg")})

    def test_bounds(self) -> None:
        """A number beyond its bounds is refused by file, key, value and rule."""
        for attribute, name, _, low, high in NUMBERS:
            for value in (low - 1, high + 1, 2**64):
                with self.subTest(name=name, value=value):
                    key = name.lstrip("!")
                    self.refuse(f"{key} = {value}", key, attribute, f"from {low} to {high}")

    def test_types(self) -> None:
        """A value of the wrong type is refused by file, key, value and rule."""
        for text in (
            "PEER_PORT = true",
            "PEER_PORT = 11625.0",
            'PEER_PORT = "11625"',
            "PEER_PORT = [11625]",
            "PREFERRED_PEERS_ONLY = 1",
            'KNOWN_PEERS = "host"',
            "KNOWN_PEERS = [1]",
            "NETWORK_PASSPHRASE = 5",
            "NODE_NAMES = 5",
            "SURVEYOR_KEYS = [2026-01-01]",
            "FLOOD_OP_RATE_PER_LEDGER = nan",
        ):
            with self.subTest(text=text):
                self.refuse(text, text.split(" ", maxsplit=1)[0], "must be")

    def test_error(self) -> None:
        """An error reads well."""
        path = self.directory / "overlay.cfg"
        self.assertEqual(
            self.refuse("PEER_PORT = 0"),
            f"{path}: PEER_PORT (listen_port) must be a whole number from 1 to 65535, not 0",
        )
        self.assertEqual(
            self.refuse("PEER_READING_CAPACITY = 100"),
            "peer_flood_reading_capacity (PEER_FLOOD_READING_CAPACITY) is 200, so "
            f"{path}: PEER_READING_CAPACITY (peer_reading_capacity) must be at least 201, not 100",
        )

    def test_empty(self) -> None:
        """An empty file says nothing."""
        self.assertEqual(self.load(""), OverlayConfig())
        self.assertEqual(OverlayConfig.from_toml_files([]), OverlayConfig())

    def test_byte_order_mark(self) -> None:
        """What Windows' editors leave in a file does no harm."""
        self.assertEqual(self.load("\ufeffPEER_PORT = 5\r\nHTTP_PORT = 6\r\n").http_port, 6)

    def test_syntax(self) -> None:
        """What is not TOML is refused in one line that says where it goes wrong."""
        for text in ("PEER_PORT", "PEER_PORT = ", "A = 1\nA = 2", "A = " + "[" * 5000):
            with self.subTest(text=text[:20]):
                self.refuse(text, "is not TOML")
        path = self.directory / "latin.cfg"
        path.write_bytes(b'NETWORK_PASSPHRASE = "\xe9"')
        self.assertRaises(ConfigError, OverlayConfig.from_toml, path)

    def test_huge_number(self) -> None:
        """A number that Python would not even write is refused like any other."""
        self.refuse(f"PEER_PORT = 0x{'f' * 5000}", "PEER_PORT", "from 1 to 65535")

    def test_no_file(self) -> None:
        """A file that is none is refused by name."""
        for path in (self.directory / "missing", self.directory):
            error = str(self.assertRaises(ConfigError, OverlayConfig.from_toml, path))
            self.assertIn(f"{path}: cannot be read", error)

    def test_unreadable(self) -> None:
        """A file that we may not read is refused by name."""
        path = self.write("")
        path.chmod(0)
        if os.access(path, os.R_OK):
            self.skipTest("we may read everything")
        error = str(self.assertRaises(ConfigError, OverlayConfig.from_toml, path))
        self.assertIn(f"{path}: cannot be read: Permission denied", error)

    def test_later_file_wins(self) -> None:
        """Of a key in several files the last one counts, with its whole value."""
        first = self.write('PEER_PORT = 1\nHTTP_PORT = 2\nKNOWN_PEERS = ["a"]', "first.cfg")
        second = self.write('PEER_PORT = 3\nKNOWN_PEERS = ["b"]', "second.cfg")
        config = OverlayConfig.from_toml_files([first, str(second)])
        self.assertEqual((config.listen_port, config.http_port), (3, 2))
        self.assertEqual(config.known_addresses, (PeerAddress("b"),))
        self.assertEqual(
            config.sources,
            {"listen_port": str(second), "http_port": str(first), "known_peers": str(second)},
        )

    def test_result_is_open(self) -> None:
        """What was read can still be changed, and options win over it."""
        config = self.load("PEER_PORT = 5\nTARGET_PEER_CONNECTIONS = 4")
        config.override("listen_port", 6, "option --listen")
        config.known_peers.append("host")
        self.assertEqual(config.sources["listen_port"], "option --listen")
        self.assertEqual(config.checked().listen_port, 6)
        config.target_outbound_peers = 2
        self.assertEqual(config.max_outbound_peers, 2)

    def test_bad_option(self) -> None:
        """The error of an option names the option."""
        error = self.assertRaises(
            ConfigError, OverlayConfig().override, "known_peers", ["a b"], "option --peer"
        )
        self.assertTrue(str(error).startswith("option --peer: KNOWN_PEERS (known_peers) must be"))

    def test_unknown_keys(self) -> None:
        """Keys that nobody knows are named one by one, with the closest one that exists."""
        config = self.load("TARGET_PEER_CONECTIONS = 4\npeer_port = 5\nXYZZY = 6\n[QUORUM]")
        path = self.directory / "overlay.cfg"
        meant = "TARGET_PEER_CONNECTIONS"
        self.assertEqual(
            config.warnings,
            (
                f"{path}: unknown key TARGET_PEER_CONECTIONS is ignored; did you mean {meant}?",
                f"{path}: unknown key peer_port is ignored; did you mean PEER_PORT?",
                f"{path}: unknown key XYZZY is ignored; the closest known key is MAX_TX_SIZE",
                f"{path}: unknown key QUORUM is ignored; did you mean QUORUM_SET?",
            ),
        )
        self.assertEqual(config.target_outbound_peers, 8)

    def test_unknown_key_like_no_other(self) -> None:
        """The closest key is named even when none is near."""
        for key in ('""', '"\N{SNOWMAN}"', "q", "-" * 500):
            (warning,) = self.load(f"{key} = 1").warnings
            self.assertRegex(warning, "; the closest known key is [A-Z0-9_]+$")

    def test_unknown_key_is_one_line(self) -> None:
        """A key with a line break in it does not break the log."""
        (warning,) = self.load('"A\\nB" = 1').warnings
        self.assertNotIn("\n", warning)

    def test_one_summary_of_several_files(self) -> None:
        """What is ignored in several files is still one line."""
        paths = [self.write("LOG_COLOR = true", "a"), self.write("WORKER_THREADS = 9", "b")]
        (warning,) = OverlayConfig.from_toml_files(paths).warnings
        self.assertIn("LOG_COLOR, WORKER_THREADS", warning)

    def test_warnings_are_kept(self) -> None:
        """The checked copy still tells warnings and sources."""
        config = self.load("LOG_COLOR = true\nPEER_PORT = 5")
        self.assertEqual(config.checked().warnings, config.warnings)
        self.assertEqual(config.checked().sources, config.sources)


class DatabaseTests(FileTests):
    """DATABASE, of which core has another one."""

    def test_postgresql(self) -> None:
        """PostgreSQL means one warning and our default file, and no password is shown."""
        config = self.load('DATABASE = "postgresql://dbname=stellar password=hush"')
        self.assertEqual(config.database, OverlayConfig().database)
        self.assertNotIn("database", config.sources)
        (warning,) = config.warnings
        self.assertIn("DATABASE: postgresql:// is not supported", warning)
        self.assertNotIn("hush", warning + repr(config))

    def test_another(self) -> None:
        """Any other database is refused by name, and no password is shown."""
        error = self.refuse('DATABASE = "mysql://user:hush@host"', "DATABASE", "mysql://…")
        self.assertNotIn("hush", error)
        self.assertNotIn("hush", repr(OverlayConfig(database="mysql://user:hush@host")))
        self.assertNotIn("hush", self.refuse('DATABASE = "password=hush"', "DATABASE"))

    def test_from_a_file(self) -> None:
        """The URL may stand in a file of its own, as in core."""
        self.write("sqlite3://x.db\n", "url").chmod(0o600)
        self.assertEqual(self.load('DATABASE = "$FILE:url"').database, "sqlite3://x.db")


class SeedTests(FileTests):
    """NODE_SEED, which is never shown."""

    def secret(self, text: str, mode: int = 0o600) -> Path:
        """Write a file with a secret."""
        path = self.write(text, "seed")
        path.chmod(mode)
        return path

    def test_forms(self) -> None:
        """The seed stands in the configuration, with or without a name, or in another file."""
        path = self.secret(f"{SEED}\n")
        for value in (SEED, f"{SEED} self", f"$FILE:{path}", "$FILE:seed"):
            with self.subTest(value=value):
                self.assertEqual(self.load(f'NODE_SEED = "{value}"').node_seed, SEED)

    def test_name(self) -> None:
        """The name after the seed is ours, wherever the seed stands."""
        self.secret(f"{SEED} self\n")
        for value in (f"{SEED} self", "$FILE:seed"):
            config = self.load(f'NODE_SEED = "{value}"\nSURVEYOR_KEYS = ["$self"]')
            self.assertEqual(config.surveyor_keys, [OWN_ID])
            self.assertEqual(config.node_names, {OWN_ID: "self"})

    def test_modes(self) -> None:
        """A file that others can read is refused, as core does."""
        for mode in (0o640, 0o604, 0o601, 0o660, 0o644):
            with self.subTest(mode=oct(mode)):
                self.secret(SEED, mode)
                self.refuse('NODE_SEED = "$FILE:seed"', "NODE_SEED", "group or others")
        self.secret(SEED, 0o400)
        self.assertEqual(self.load('NODE_SEED = "$FILE:seed"').node_seed, SEED)

    def test_bad_files(self) -> None:
        """A file that is missing, empty or none is refused by name."""
        self.refuse('NODE_SEED = "$FILE:seed"', "NODE_SEED", "seed", "No such file")
        self.refuse('NODE_SEED = "$FILE:."', "NODE_SEED", "not a regular file")
        self.secret(" \n")
        self.refuse('NODE_SEED = "$FILE:seed"', "NODE_SEED", "is empty")

    def test_never_shown(self) -> None:
        """The seed, right or wrong, is in no error, no warning and no repr."""
        wrong = SEED[:-1] + ("A" if SEED[-1] != "A" else "B")
        self.secret(wrong)
        for text in (
            f'NODE_SEED = "{wrong}"',
            f'NODE_SEED = "{wrong} self"',
            'NODE_SEED = "$FILE:seed"',
            f'NODE_SEED = ["{SEED}"]',
            f"NODE_SEED = {SEED}",
            f'PREFERRED_PEER_KEYS = ["{SEED}"]',
            f'NODE_NAMES = ["{SEED} self"]',
            f'SURVEYOR_KEYS = "{SEED}"',
            f'QUORUM_SET = {{ VALIDATORS = ["{SEED}"] }}',
        ):
            with self.subTest(text=text):
                error = self.refuse(text)
                self.assertNotIn(SEED[1:-1], error)
        config = self.load(f'NODE_SEED = "{SEED} self"\nNODE_IS_VALIDATOR = true')
        self.assertNotIn(SEED, f"{config!r} {config} {config.warnings} {config.sources}")
        self.assertNotIn(SEED, repr(config.checked()))
        self.assertIn("node_seed=(hidden)", repr(config))

    def test_validator(self) -> None:
        """With the key of a validator comes the warning that it can be used once only."""
        config = self.load(f'NODE_SEED = "{SEED}"\nNODE_IS_VALIDATOR = true')
        (warning,) = config.warnings
        for words in ("NODE_SEED", "NODE_IS_VALIDATOR", "two nodes with one key", "--seed-file"):
            self.assertIn(words, warning)
        self.assertEqual(self.load(f'NODE_SEED = "{SEED}"').warnings, ())
        self.assertEqual(self.load("NODE_IS_VALIDATOR = true").warnings, ())


class ValidatorFileTests(FileTests):
    """VALIDATORS, HOME_DOMAINS and QUORUM_SET in files."""

    def test_validators(self) -> None:
        """An entry has its own quality, that of its domain, or the lowest."""
        config = self.load(
            f"""
            HOME_DOMAINS = [{{ HOME_DOMAIN = "a.org", QUALITY = "HIGH" }}]
            [[VALIDATORS]]
            PUBLIC_KEY = "{A}"
            HOME_DOMAIN = "a.org"
            NAME = "SDF 1"
            ADDRESS = "a.org:5"
            [[VALIDATORS]]
            PUBLIC_KEY = "{B}"
            HOME_DOMAIN = "b.org"
            QUALITY = "CRITICAL"
            [[VALIDATORS]]
            PUBLIC_KEY = "{C}"
            HOME_DOMAIN = "c.org"
            """
        )
        self.assertEqual(
            config.validators,
            [
                Validator(
                    public_key=A,
                    home_domain="a.org",
                    name="SDF 1",
                    quality="HIGH",
                    address="a.org:5",
                ),
                Validator(public_key=B, home_domain="b.org", quality="CRITICAL"),
                Validator(public_key=C, home_domain="c.org", quality="LOW"),
            ],
        )
        self.assertEqual(config.known_addresses, (PeerAddress("a.org", 5),))
        self.assertIn("VALIDATORS of ", config.sources["known_peers"])
        self.assertEqual(config.warnings, ())

    def test_bad_validators(self) -> None:
        """A malformed entry is refused by its number."""
        good = f'PUBLIC_KEY = "{A}"\nHOME_DOMAIN = "a.org"\n'
        for text, words in (
            ("VALIDATORS = 5", "[[VALIDATORS]]"),
            ("VALIDATORS = [5]", "[[VALIDATORS]]"),
            ("HOME_DOMAINS = [5]\n[[VALIDATORS]]\n" + good, "[[HOME_DOMAINS]]"),
            ('[[VALIDATORS]]\nHOME_DOMAIN = "a.org"', "entry 1: PUBLIC_KEY and HOME_DOMAIN"),
            (f"[[VALIDATORS]]\n{good}\n[[VALIDATORS]]\n", "entry 2: PUBLIC_KEY and HOME_DOMAIN"),
            (f"[[VALIDATORS]]\n{good}NAME = 5", "entry 1: NAME must be a text"),
            (f'[[VALIDATORS]]\n{good}QUALITY = "BEST"', "entry 1: QUALITY must be one of LOW"),
            (f'[[VALIDATORS]]\n{good}ADDRESS = "a b"', "'a b'"),
            ('[[VALIDATORS]]\nPUBLIC_KEY = "G"\nHOME_DOMAIN = "a"', "'G' is not a node id"),
            (
                f'[[VALIDATORS]]\n{good}[[HOME_DOMAINS]]\nHOME_DOMAIN = "a"\nQUALITY = "BEST"',
                "HOME_DOMAINS, entry 1: QUALITY",
            ),
        ):
            with self.subTest(words=words):
                self.refuse(text, words)

    def test_unknown_element(self) -> None:
        """A misspelt element is warned about with the closest one."""
        config = self.load(
            f'[[VALIDATORS]]\nPUBLIC_KEY = "{A}"\nHOME_DOMAIN = "a.org"\nADRESS = "x"'
        )
        (warning,) = config.warnings
        self.assertIn("VALIDATORS, entry 1: unknown key ADRESS", warning)
        self.assertIn("did you mean ADDRESS?", warning)

    def test_quorum_set(self) -> None:
        """Nested tables, names and default percentages are core's."""
        config = self.load(
            f"""
            NODE_SEED = "{SEED} self"
            [QUORUM_SET]
            THRESHOLD_PERCENT = 66
            VALIDATORS = ["{A} a", "{B} b", "{C}"]
            [QUORUM_SET.1]
            VALIDATORS = ["$self", "{D}", "{E}"]
            [QUORUM_SET.2]
            THRESHOLD_PERCENT = 100
            VALIDATORS = ["{F}", "{G}"]
            [QUORUM_SET.2.1]
            THRESHOLD_PERCENT = 50
            VALIDATORS = ["{H}", "{K}", "{L}"]
            """
        )
        self.assertEqual(
            config.quorum_set,
            QuorumSet(
                4,
                (A, B, C),
                (
                    QuorumSet(3, (OWN_ID, D, E)),
                    QuorumSet(3, (F, G), (QuorumSet(2, (H, K, L)),)),
                ),
            ),
        )
        self.assertEqual(config.node_names, {OWN_ID: "self", A: "a", B: "b"})

    def test_bad_quorum_sets(self) -> None:
        """What core cannot read is refused by its place in the tables."""
        for text, words in (
            ("QUORUM_SET = 5", "QUORUM_SET must be a table"),
            ("[QUORUM_SET]", "needs validators or inner sets"),
            (f'[QUORUM_SET]\nVALIDATORS = ["{A}"]\n[QUORUM_SET.1]', "QUORUM_SET.1: a quorum set"),
            (f'[QUORUM_SET]\nVALIDATORS = "{A}"', "QUORUM_SET VALIDATORS must be a list"),
            ('[QUORUM_SET]\nVALIDATORS = ["$nobody"]', "no node is named 'nobody'"),
            (f'[QUORUM_SET]\nVALIDATORS = ["{A}", "{A}"]', "twice"),
            (f'[QUORUM_SET]\nTHRESHOLD = 5\nVALIDATORS = ["{A}"]', "QUORUM_SET.THRESHOLD must be"),
        ):
            with self.subTest(words=words):
                self.refuse(text, words)

    def test_percentages(self) -> None:
        """A percentage is a whole number from 1 to 100."""
        for percent in (1, 100):
            self.load(f'[QUORUM_SET]\nTHRESHOLD_PERCENT = {percent}\nVALIDATORS = ["{A}"]')
        for value in ("0", "101", "67.0", "true", '"67"'):
            with self.subTest(value=value):
                self.refuse(
                    f'[QUORUM_SET]\nTHRESHOLD_PERCENT = {value}\nVALIDATORS = ["{A}"]',
                    "QUORUM_SET THRESHOLD_PERCENT must be a whole number from 1 to 100",
                )

    def test_depth(self) -> None:
        """Four levels of inner sets are accepted, and no more (core ConfigTests.cpp)."""
        text = ""
        for depth, key in enumerate((A, B, C, D, E, F)):
            text += f'[QUORUM_SET{".1" * depth}]\nVALIDATORS = ["{key}"]\n'
            if depth <= 4:
                self.load(text)
        self.refuse(text, "levels")
