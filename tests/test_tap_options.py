"""The options of a node: what each means, what it refuses, and who wins."""

from __future__ import annotations

import os
import sys
import tempfile
from io import StringIO
from pathlib import Path

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay import __version__
from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE
from stellar_overlay.option_values import version_text
from stellar_overlay.tap import Options

BAD = {
    "--network": ("",),
    "--listen": (
        "", "bogus", "bogus:1", "tcp", "tcp:", "tcp:abc", "tcp:-1", "tcp:65536", "tcp:99999",
        "tcp:1:backlog=x", "tcp:1:nothing=1", "11625", "127.0.0.1:11625", "OFF",
        "tcp6:70000", "systemd:domain=INET:name=nobody",
    ),
    "--http": ("", "bogus", "tcp:x", "tcp:65536", "on", "http://127.0.0.1:11626"),
    "--peer": (
        "", ":1", "host:", "host:0", "host:65536", "host:x", "a b", "::1", "[::1", "host:1:2",
        "1.2.3", "256.0.0.1", "-\x1b[31m", "host:+1", "host:٣",
    ),
    "--preferred-peer": ("", "host:0", "a b", "::1"),
    "--database": (
        "", "stellar.db", "sqlite3://", "sqlite://x", "postgresql://dbname=stellar",
    ),
    "--mode": ("", "Relay", "validate", "relay "),
    "--overlay-version": (
        "", "42", "..", "38..", "..42", "38...42", "42..38", "38-42", "a..b", "-1..2",
        "1..4294967296", "38..٤٢", "1.." + "9" * 5000, "38..42 ",
    ),
    "--flood-rate-limit": ("", "-1", "x", "1.5", "4294967296", "9" * 5000, "٣"),
    "--ready-file": ("", ".", "missing/ready"),
    "--seed-file": ("", ".", "missing/seed"),
    "--config": ("", ".", "missing.cfg"),
}  # fmt: skip
"""Values that each option refuses; relative paths are in an empty folder."""


class OptionsTests(SynchronousTestCase):
    """Options, read in an empty folder."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)

    def write(self, name: str, text: str, mode: int = 0o600) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return str(path)

    def parse(self, *arguments: str) -> Options:
        """Return the options of a command line."""
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def config(self, *arguments: str) -> OverlayConfig:
        """Return the configuration that a command line asks for."""
        return self.parse(*arguments).config

    def refuse(self, *arguments: str) -> str:
        """Assert that a command line is refused in one printable line, which is returned."""
        error = str(self.assertRaises(usage.UsageError, self.parse, *arguments))
        self.assertTrue(error.isprintable(), ascii(error))
        return error


class DefaultTests(OptionsTests):
    def test_nothing_given(self) -> None:
        """Without options it is a listening node of the test network, with its hosts as peers."""
        options = self.parse()
        config = options.config
        self.assertEqual(config.network_passphrase, TESTNET_PASSPHRASE)
        self.assertEqual(list(config.known_peers), OverlayConfig.testnet().known_peers)
        self.assertEqual(len(config.known_peers), 3)
        self.assertEqual((config.listen_enabled, config.listen_port), (True, 11625))
        self.assertEqual((config.overlay_min_version, config.overlay_version), (38, 42))
        self.assertEqual(config.database, "sqlite3://stellar-overlay.db")
        self.assertEqual(list(config.preferred_peers), [])
        self.assertEqual((config.allow_private, config.flood_rate_limit_per_sec), (False, 0))
        self.assertEqual((config.mode, options.seed), ("relay", None))

    def test_nothing_is_made(self) -> None:
        """Reading the options of a node alone makes no file."""
        self.parse("--database", "sqlite3://peers.db", "--ready-file", "ready")
        self.assertEqual(list(self.folder.iterdir()), [])


class GoodValueTests(OptionsTests):
    def test_networks(self) -> None:
        """A network is named, or spelt out as a passphrase that has no well-known hosts."""
        for name, passphrase, hosts in (
            ("testnet", TESTNET_PASSPHRASE, 3),
            (TESTNET_PASSPHRASE, TESTNET_PASSPHRASE, 3),
            ("pubnet", PUBNET_PASSPHRASE, len(OverlayConfig.pubnet().known_peers)),
            ("Testnet", "Testnet", 0),
            (" My own network ; July 2026 ", " My own network ; July 2026 ", 0),
        ):
            with self.subTest(network=name):
                config = self.config("--network", name)
                self.assertEqual(config.network_passphrase, passphrase)
                self.assertEqual(len(config.known_peers), hosts)

    def test_peers(self) -> None:
        """Peers that are given take the place of the well-known hosts, in their order."""
        config = self.config("--peer", "b.example.com", "--peer", "[::1]:7", "--peer=1.2.3.4:5")
        self.assertEqual(
            list(config.known_peers),
            [PeerAddress("b.example.com"), PeerAddress("::1", 7), PeerAddress("1.2.3.4", 5)],
        )

    def test_preferred_peers(self) -> None:
        """Preferred peers are kept beside the well-known hosts."""
        config = self.config("--preferred-peer", "a.example.com:1", "--preferred-peer", "b.example")
        self.assertEqual(
            list(config.preferred_peers),
            [PeerAddress("a.example.com", 1), PeerAddress("b.example")],
        )
        self.assertEqual(len(config.known_peers), 3)

    def test_overlay_version(self) -> None:
        """The range of versions is what it says; one version is a range, too."""
        for text, low, high in (("38..42", 38, 42), ("41..41", 41, 41), ("0..4294967295", 0, None)):
            with self.subTest(text=text):
                config = self.config("--overlay-version", text)
                self.assertEqual(config.overlay_min_version, low)
                self.assertEqual(config.overlay_version, 2**32 - 1 if high is None else high)

    def test_endpoints(self) -> None:
        """Endpoints as Twisted writes them, or off."""
        for text in ("tcp:0", "tcp:0:interface=127.0.0.1", "tcp6:0:interface=\\:\\:1",
                     "tcp:port=65535:backlog=5", "unix:overlay.sock", "off"):  # fmt: skip
            with self.subTest(text=text):
                options = self.parse("--listen", text, "--http", text)
                self.assertEqual((options["listen"], options["http"]), (text, text))
                self.assertEqual(options.config.listen_enabled, text != "off")

    def test_others(self) -> None:
        """Each of the other options arrives where it is meant."""
        config = self.config("--allow-private", "--flood-rate-limit", "7", "--database=sqlite3://p")
        self.assertTrue(config.allow_private)
        self.assertEqual(config.flood_rate_limit_per_sec, 7)
        self.assertEqual(config.database, "sqlite3://p")
        for mode in ("observe", "relay"):
            self.assertEqual(self.parse("--mode", mode)["mode"], mode)

    def test_ready_file(self) -> None:
        """The ready file is where the user meant it, even if the process goes elsewhere."""
        self.assertEqual(
            self.parse("--ready-file", "ready")["ready-file"], str(self.folder.resolve() / "ready")
        )

    def test_version(self) -> None:
        """The version is one line with ours and the overlay's, and nothing else happens."""
        out = StringIO()
        self.patch(sys, "stdout", out)
        ending = self.assertRaises(SystemExit, self.parse, "--version", "--listen", "bogus")
        self.assertEqual(ending.code, 0)
        self.assertEqual(
            out.getvalue(), f"stellar-overlay {__version__}, overlay versions 38..42\n"
        )
        self.assertEqual(out.getvalue(), version_text() + "\n")

    def test_help_names_all(self) -> None:
        """The help shows every option of a node."""
        text = str(Options())
        for option in (*BAD, "--allow-private", "--version", "--help"):
            self.assertIn(option, text)


class BadValueTests(OptionsTests):
    def test_refused(self) -> None:
        """A bad value is refused in one line that names the option, and no file is made."""
        for option, values in BAD.items():
            for value in values:
                with self.subTest(option=option, value=value[:80]):
                    others = {"--seed-file": "new.seed", "--ready-file": "ready"}
                    others[option] = value
                    given = [part for pair in others.items() for part in pair]
                    self.assertIn(option, self.refuse(*given))
                    self.assertEqual(list(self.folder.iterdir()), [])

    def test_not_shown(self) -> None:
        """The URL of another database may hold a password, which is not shown."""
        self.assertNotIn("hunter2", self.refuse("--database", "postgresql://password=hunter2"))

    def test_unknown(self) -> None:
        """An option that there is not, and a word that belongs to none, are named."""
        self.assertIn("--bogus", self.refuse("--bogus"))
        self.assertIn("'extra'", self.refuse("--listen", "off", "extra"))

    def test_without_value(self) -> None:
        """An option whose value is missing is named."""
        for option in BAD:
            with self.subTest(option=option):
                self.assertIn(option, self.refuse(option))

    def test_flag_with_value(self) -> None:
        """A flag takes no value."""
        self.assertIn("--allow-private", self.refuse("--allow-private=yes"))

    def test_in_file(self) -> None:
        """What is wrong in a file is said with the option, the file, the key and the value."""
        path = self.write("node.cfg", "TARGET_PEER_CONNECTIONS = 0\n")
        error = self.refuse("--config", path, "--seed-file", "new.seed")
        for word in ("--config", path, "TARGET_PEER_CONNECTIONS", "not 0"):
            self.assertIn(word, error)
        self.assertEqual(os.listdir(self.folder), ["node.cfg"])

    def test_default_that_does_not_fit(self) -> None:
        """A file that does not fit with a default is refused with its name and both keys."""
        path = self.write("node.cfg", "OVERLAY_PROTOCOL_MIN_VERSION = 50\n")
        error = self.refuse("--config", path)
        for word in (path, "OVERLAY_PROTOCOL_MIN_VERSION", "OVERLAY_PROTOCOL_VERSION"):
            self.assertIn(word, error)


class FileTests(OptionsTests):
    def test_options_win(self) -> None:
        """An option that is given wins over a file, wherever it stands on the line."""
        path = self.write(
            "node.cfg",
            'NETWORK_PASSPHRASE = "from the file"\nKNOWN_PEERS = ["file.example.com"]\n'
            'PREFERRED_PEERS = ["file.example.com"]\nDATABASE = "sqlite3://file.db"\n'
            "ALLOW_PRIVATE_ADDRESSES_FOR_TESTING = false\nFLOOD_RATE_LIMIT_PER_SEC = 1\n"
            "OVERLAY_PROTOCOL_VERSION = 40\nLISTEN_ENABLED = false\n",
        )
        given = ["--network", "given", "--peer", "given.example.com", "--allow-private",
                 "--preferred-peer", "given.example.com", "--database", "sqlite3://given.db",
                 "--flood-rate-limit", "2", "--overlay-version", "39..41",
                 "--listen", "tcp:0"]  # fmt: skip
        for line in ([*given, "--config", path], ["--config", path, *given]):
            config = self.config(*line)
            self.assertEqual(config.network_passphrase, "given")
            self.assertEqual(list(config.known_peers), [PeerAddress("given.example.com")])
            self.assertEqual(list(config.preferred_peers), [PeerAddress("given.example.com")])
            self.assertEqual(config.database, "sqlite3://given.db")
            self.assertEqual((config.allow_private, config.listen_enabled), (True, True))
            self.assertEqual(config.flood_rate_limit_per_sec, 2)
            self.assertEqual((config.overlay_min_version, config.overlay_version), (39, 41))

    def test_option_that_makes_a_file_fit(self) -> None:
        """It is the whole that must fit together, once the options have replaced what they do."""
        path = self.write("node.cfg", "OVERLAY_PROTOCOL_MIN_VERSION = 50\n")
        config = self.config("--config", path, "--overlay-version", "50..51")
        self.assertEqual((config.overlay_min_version, config.overlay_version), (50, 51))

    def test_files_count(self) -> None:
        """Without options it is the file that counts, not the default of an option."""
        path = self.write(
            "node.cfg",
            'NETWORK_PASSPHRASE = "from the file"\nDATABASE = "sqlite3://file.db"\n'
            "ALLOW_PRIVATE_ADDRESSES_FOR_TESTING = true\nFLOOD_RATE_LIMIT_PER_SEC = 1\n"
            "OVERLAY_PROTOCOL_VERSION = 40\nLISTEN_ENABLED = false\nPEER_PORT = 7\n",
        )
        config = self.config("--config", path)
        self.assertEqual(config.network_passphrase, "from the file")
        self.assertEqual(config.database, "sqlite3://file.db")
        self.assertEqual((config.allow_private, config.listen_enabled), (True, False))
        self.assertEqual((config.flood_rate_limit_per_sec, config.overlay_version), (1, 40))
        self.assertEqual(config.listen_port, 7)

    def test_later_files_win(self) -> None:
        """Of a key that two files have, the later file's counts; the others are kept."""
        first = self.write("first.cfg", "PEER_PORT = 1\nHTTP_PORT = 2\n")
        later = self.write("later.cfg", "PEER_PORT = 3\n")
        config = self.config("--config", first, "--config", later)
        self.assertEqual((config.listen_port, config.http_port), (3, 2))
        self.assertEqual(self.config("--config", later, "--config", first).listen_port, 1)

    def test_network_of_a_file(self) -> None:
        """The well-known hosts are those of the network that counts in the end."""
        path = self.write("node.cfg", f'NETWORK_PASSPHRASE = "{PUBNET_PASSPHRASE}"\n')
        config = self.config("--config", path)
        self.assertEqual(list(config.known_peers), OverlayConfig.pubnet().known_peers)
        config = self.config("--config", path, "--network", "testnet")
        self.assertEqual(list(config.known_peers), OverlayConfig.testnet().known_peers)

    def test_empty_list_of_a_file(self) -> None:
        """A file that wants no peers gets none."""
        path = self.write("node.cfg", "KNOWN_PEERS = []\n")
        self.assertEqual(list(self.config("--config", path).known_peers), [])
