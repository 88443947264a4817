"""``stellar-overlay config explain``: the same configuration as the node's, and whence it came."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stellar_sdk import Keypair
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.config import settings
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE, PeerId
from stellar_overlay.tap import Options
from tests.processes import CLI, Result, call, run, scratch

SEED = Keypair.from_raw_ed25519_seed(bytes(range(32))).secret
A, B, C, D = (PeerId(bytes([n]) * 32).strkey for n in range(2, 6))

VALIDATORS = f"""
[[HOME_DOMAINS]]
HOME_DOMAIN = "example.com"
QUALITY = "HIGH"
[[VALIDATORS]]
NAME = "one"
HOME_DOMAIN = "example.com"
PUBLIC_KEY = "{A}"
ADDRESS = "192.0.2.1"
[[VALIDATORS]]
NAME = "two"
HOME_DOMAIN = "example.com"
PUBLIC_KEY = "{B}"
[[VALIDATORS]]
NAME = "three"
HOME_DOMAIN = "example.com"
PUBLIC_KEY = "{C}"
"""


class ExplainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)

    def file(self, text: str, name: str = "node.cfg") -> str:
        """Return the path of a file with this text."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return str(path)

    def explain(self, *arguments: str) -> str:
        """Return what is printed for people."""
        result = call(self, "config", "explain", *arguments)
        self.assertEqual((result.status, result.stderr), (0, ""))
        return result.stdout

    def explain_json(self, *arguments: str) -> dict[str, Any]:
        """Return the one object that is printed for programs."""
        text = self.explain(*arguments, "--json")
        self.assertEqual(text.count("\n"), 1)
        explained: dict[str, Any] = json.loads(text)
        return explained

    def refused(self, *arguments: str) -> str:
        """Return the one line that refuses a command as wrong."""
        result = call(self, "config", *arguments)
        self.assertEqual((result.status, result.stdout), (2, ""))
        (line,) = result.stderr.splitlines()
        return line

    def test_defaults(self) -> None:
        """Without any file it is what a node has that is told nothing: the test network's."""
        explained = self.explain_json()
        self.assertEqual(list(explained["settings"]), [row.name for row in settings()])
        rows = explained["settings"]
        expected = {
            "NETWORK_PASSPHRASE": (TESTNET_PASSPHRASE, "default"),
            "PEER_PORT": (11625, "default"),
            "NODE_SEED": ("", "default"),
            "MAX_OUTBOUND_CONNECTIONS": (8, "default: TARGET_PEER_CONNECTIONS"),
            "PREFERRED_PEERS": ([], "default"),
        }
        for name, (value, source) in expected.items():
            self.assertEqual((rows[name]["value"], rows[name]["source"]), (value, source))
        self.assertEqual(rows["PEER_PORT"]["attribute"], "listen_port")
        self.assertEqual(rows["VALIDATORS"]["source"], "the well-known nodes of this network")
        self.assertEqual(rows["NODE_NAMES"]["source"], "other settings")
        self.assertEqual(len(explained["peers"]["known"]), 3)
        self.assertEqual(explained["peers"]["quorum_set"]["threshold"], 2)
        self.assertEqual(explained["warnings"], [])

    def test_files(self) -> None:
        """Each value comes from the last file that has it, and says from which."""
        first = self.file("PEER_PORT = 1\nHTTP_PORT = 2\n", "first.cfg")
        second = self.file("HTTP_PORT = 3\n", "second.cfg")
        rows = self.explain_json(first, second)["settings"]
        self.assertEqual((rows["PEER_PORT"]["value"], rows["PEER_PORT"]["source"]), (1, first))
        self.assertEqual((rows["HTTP_PORT"]["value"], rows["HTTP_PORT"]["source"]), (3, second))

    def test_same_as_the_node(self) -> None:
        """The node, given the same files and options, has the same configuration."""
        path = self.file(VALIDATORS + "[QUORUM_SET]\nVALIDATORS = ['$one', '$two']\n")
        for options in ((), ("--network", "pubnet"), ("--overlay-version", "40..41")):
            for files in ((), (path,)):
                node = Options()
                node.parseOptions([*(f"--config={file}" for file in files), *options])
                rows = self.explain_json(*files, *options)["settings"]
                for row in settings():
                    value = getattr(node.config, row.attribute)
                    if isinstance(value, str | int | float):
                        self.assertEqual(rows[row.name]["value"], value)
                known = rows["KNOWN_PEERS"]["value"]
                self.assertEqual(known, list(map(str, node.config.known_peers)))
                for row in settings():
                    source = node.config.sources.get(row.attribute)
                    if source is not None:
                        self.assertEqual(rows[row.name]["source"], source)

    def test_network(self) -> None:
        """--network wins over the files, and brings that network's nodes unless there are any."""
        path = self.file(
            f'NETWORK_PASSPHRASE = "{TESTNET_PASSPHRASE}"\nKNOWN_PEERS = ["192.0.2.9"]'
        )
        explained = self.explain_json(path, "--network", "pubnet")
        passphrase = explained["settings"]["NETWORK_PASSPHRASE"]
        self.assertEqual(passphrase["value"], PUBNET_PASSPHRASE)
        self.assertEqual(passphrase["source"], "option --network")
        self.assertEqual(explained["peers"]["known"], ["192.0.2.9:11625"])
        self.assertEqual(len(explained["settings"]["VALIDATORS"]["value"]), 21)
        explained = self.explain_json("--network", "a private one")
        self.assertEqual(explained["peers"]["known"], [])
        self.assertIsNone(explained["peers"]["quorum_set"])

    def test_network_of_the_file(self) -> None:
        """Without --network it is the files' network."""
        path = self.file(f'NETWORK_PASSPHRASE = "{PUBNET_PASSPHRASE}"')
        self.assertEqual(len(self.explain_json(path)["peers"]["known"]), 21)

    def test_secrets(self) -> None:
        """A seed is shown nowhere: not as the setting, not where it strayed to."""
        path = self.file(
            f'NODE_SEED = "{SEED} self"\nNODE_HOME_DOMAIN = "{SEED}"\nNODE_NAMES = ["{A} {SEED}"]\n'
            f'NODE_IS_VALIDATOR = true\n"{SEED}" = 1\n'
        )
        for text in (self.explain(path), self.explain(path, "--json")):
            self.assertNotIn(SEED, text)
            self.assertNotIn(SEED[5:50], text)
            self.assertIn("(hidden)", text)
        rows = self.explain_json(path)["settings"]
        self.assertEqual(rows["NODE_SEED"]["value"], "(hidden)")
        self.assertEqual(rows["NODE_SEED"]["source"], path)

    def test_peer_plan(self) -> None:
        """It says how many peers there will be, which, and whose agreement counts."""
        path = self.file(
            f"TARGET_PEER_CONNECTIONS = 4\nPREFERRED_PEERS = ['192.0.2.7:77']\n"
            f"PREFERRED_PEER_KEYS = ['{D} four']\nPREFERRED_PEERS_ONLY = true\n" + VALIDATORS
        )
        text = self.explain(path)
        for line in (
            "  dials up to 4 peers, keeps up to 4 of them",
            "  takes up to 32 peers that dial it, on port 11625",
            "  known: 1",
            "    192.0.2.1:11625",
            "  preferred: 1",
            "    192.0.2.7:77",
            "  preferred nodes: 1",
            f"    {D} four",
            "  no others than the preferred ones",
            "    2 of 3:",
            f"      {A} one",
        ):
            self.assertIn(line, text.splitlines())
        peers = self.explain_json(path)["peers"]
        self.assertEqual(
            [peers[key] for key in ("target_outbound", "max_outbound", "max_inbound")], [4, 4, 32]
        )
        self.assertEqual(peers["max_outbound_pending"] + peers["max_inbound_pending"], 500)
        self.assertEqual(peers["preferred_keys"], [D])
        self.assertEqual(peers["quorum_set"]["validators"], [A, B, C])

    def test_no_peers(self) -> None:
        """What a node that is alone, or that does not listen, makes of itself."""
        text = self.explain(self.file("RUN_STANDALONE = true"), "--network", "mine")
        self.assertIn("talks to nobody (RUN_STANDALONE)", text)
        self.assertIn("known: none", text)
        self.assertIn("quorum set: none", text)
        text = self.explain(self.file("LISTEN_ENABLED = false"))
        self.assertIn("but does not listen", text)

    def test_lowered(self) -> None:
        """What the node would make lower is warned about, and counts as it will be."""
        path = self.file("TARGET_PEER_CONNECTIONS = 16\nMAX_ADDITIONAL_PEER_CONNECTIONS = 16\n")
        explained = self.explain_json(path)
        self.assertEqual(explained["settings"]["TARGET_PEER_CONNECTIONS"]["value"], 16)
        self.assertEqual(explained["peers"]["target_outbound"], 8)
        self.assertIn("TARGET_PEER_CONNECTIONS lowered from 16 to 8", explained["warnings"][0])

    def test_warnings(self) -> None:
        """What reading the files warned about is shown, one printable line each."""
        path = self.file('PEER_PROT = 1\n"\\u001B[31m" = 1\nLOG_COLOR = true\n')
        text = self.explain(path)
        self.assertIn("did you mean PEER_PORT?", text)
        self.assertIn("LOG_COLOR", text)
        self.assertNotIn("\x1b", text)
        self.assertEqual(len(self.explain_json(path)["warnings"]), 3)
        self.assertIn("Warnings\n  none\n", self.explain())

    def test_limits(self) -> None:
        """Each limit is shown for one peer and for all, and what all bytes come to."""
        path = self.file("TARGET_PEER_CONNECTIONS = 4\nOUTBOUND_TX_QUEUE_BYTE_LIMIT = 1048576\n")
        lines = [" ".join(line.split()) for line in self.explain(path).splitlines()]
        self.assertIn("transactions not sent 1 MiB x 36 = 36 MiB", lines)
        self.assertIn("received and not processed 17 MiB x 36 = 256 MiB at most", lines)
        self.assertIn("in processing 201 messages x 36 = 7,236 messages", lines)
        explained = self.explain_json(path)
        limits = {limit["name"]: limit for limit in explained["limits"]}
        queue = limits["tx_queue"]
        self.assertEqual([queue["each"], queue["count"], queue["total"]], [2**20, 36, 36 * 2**20])
        total = sum(limit["total"] for limit in limits.values() if limit["unit"] == "bytes")
        self.assertEqual(explained["total_bytes"], total)

    def test_wrong(self) -> None:
        """What no node would start with is refused in the one line that the node would say."""
        for text, words in (
            ("PEER_PORT = 0", "PEER_PORT"),
            ("PEER_PORT = 'x'", "PEER_PORT"),
            ("PEER_PORT =", "is not TOML"),
            ("TARGET_PEER_CONNECTIONS = 9\nMAX_ADDITIONAL_PEER_CONNECTIONS = 8", "at least 9"),
            ("NODE_SEED = 'hunter2'", "NODE_SEED"),
        ):
            path = self.file(text)
            line = self.refused("explain", path)
            self.assertIn(words, line)
            self.assertIn(path, line)
            self.assertNotIn("hunter2", line)
        self.assertIn("cannot be read", self.refused("explain", str(self.folder / "missing")))
        self.assertIn("cannot be read", self.refused("explain", str(self.folder)))

    def test_wrong_options(self) -> None:
        """What is typed wrong is one line that names it."""
        for arguments, word in (
            ((), "action"),
            (("lose",), "'lose'"),
            (("explain", "--bogus"), "--bogus"),
            (("explain", "--network", ""), "--network"),
            (("explain", "--overlay-version", "42..38"), "--overlay-version"),
        ):
            self.assertIn(word, self.refused(*arguments))

    def test_as_a_process(self) -> None:
        """From a shell; nothing is written or opened but the file."""
        path = self.file("PEER_PORT = 4711\n")
        result: Result = run(self, *CLI, "config", "explain", Path(path).name, cwd=self.folder)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertIn("  PEER_PORT = 4711  (node.cfg)\n", result.stdout)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["node.cfg"])
