"""``stellar-overlay keys``: an identity is made or shown; its seed only when asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path

from stellar_sdk import Keypair
from twisted.trial.unittest import SynchronousTestCase

from tests.processes import CLI, Result, call, run, scratch

KEYPAIR = Keypair.from_raw_ed25519_seed(b"\1" * 32)


class KeysTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)
        self.file = self.folder / "node.seed"

    def write(self, text: str, mode: int = 0o600) -> Path:
        """Write the seed file."""
        self.file.write_text(text)
        self.file.chmod(mode)
        return self.file

    def keys(self, *arguments: str | Path) -> Result:
        """Run a command that nobody complains of."""
        result = call(self, "keys", *map(str, arguments))
        self.assertEqual((result.status, result.stderr), (0, ""))
        return result

    def refused(self, *arguments: str | Path) -> str:
        """Return the one line that refuses a command as wrong."""
        result = call(self, "keys", *map(str, arguments))
        self.assertEqual((result.status, result.stdout), (2, ""))
        (line,) = result.stderr.splitlines()
        return line

    def test_new(self) -> None:
        """A new identity is in a file for its owner alone; its node id is shown, its seed not."""
        result = self.keys("new", self.file)
        seed = self.file.read_text().strip()
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        node_id = Keypair.from_secret(seed).public_key
        self.assertEqual(result.stdout, f"node: {node_id}\nfile: {self.file}\n")

    def test_show(self) -> None:
        """The same is shown of a file that exists, whatever the network."""
        self.write(KEYPAIR.secret)
        for network in ((), ("--network", "pubnet"), ("--network", "any other")):
            result = self.keys("show", self.file, *network)
            self.assertEqual(result.stdout, f"node: {KEYPAIR.public_key}\nfile: {self.file}\n")

    def test_json(self) -> None:
        """With --json it is one object on one line, without the seed."""
        self.write(KEYPAIR.secret)
        result = self.keys("show", self.file, "--json")
        expected = {"node": KEYPAIR.public_key, "file": str(self.file)}
        self.assertEqual(json.loads(result.stdout), expected)
        self.assertEqual(result.stdout.count("\n"), 1)
        made = json.loads(self.keys("new", self.folder / "other", "--json").stdout)
        self.assertEqual(set(made), {"node", "file"})

    def test_show_seed(self) -> None:
        """The seed is shown when asked for, in both forms of output, of a new file, too."""
        self.write(f" {KEYPAIR.secret}\n")
        result = self.keys("show", self.file, "--show-seed")
        self.assertEqual(result.stdout.splitlines()[2:], [f"seed: {KEYPAIR.secret}"])
        result = self.keys("show", self.file, "--show-seed", "--json")
        self.assertEqual(json.loads(result.stdout)["seed"], KEYPAIR.secret)
        other = self.folder / "other"
        made = json.loads(self.keys("new", other, "--show-seed", "--json").stdout)
        self.assertEqual(made["seed"], other.read_text().strip())

    def test_new_on_old(self) -> None:
        """An identity that exists is never overwritten, whatever the file holds."""
        for text in (KEYPAIR.secret, "", "rubbish"):
            self.write(text)
            self.assertIn(f"{self.file}: File exists", self.refused("new", self.file))
            self.assertEqual(self.file.read_text(), text)
        (self.folder / "link").symlink_to(self.folder / "nowhere")
        self.assertIn("File exists", self.refused("new", self.folder / "link"))
        self.assertFalse((self.folder / "nowhere").exists())

    def test_wrong_files(self) -> None:
        """What is no seed file is refused with its name and what to do, and never shown."""
        self.assertIn(f"{self.file}: No such file", self.refused("show", self.file))
        self.assertIn("not a regular file", self.refused("show", self.folder))
        os.mkfifo(self.folder / "pipe", 0o600)
        self.assertIn("not a regular file", self.refused("show", self.folder / "pipe"))
        self.write(KEYPAIR.secret, 0o644)
        self.assertIn("chmod 600", self.refused("show", self.file, "--show-seed"))
        self.write("hunter2")
        line = self.refused("show", self.file, "--show-seed")
        self.assertIn(f"{self.file}: holds no S… seed", line)
        self.assertNotIn("hunter2", line)

    def test_wrong_options(self) -> None:
        """Where an option is wrong nothing is made."""
        for option, value in (("--network", ""), ("--overlay-version", "x")):
            self.assertIn(option, self.refused("new", self.file, option, value))
            self.assertFalse(self.file.exists())

    def test_odd_name(self) -> None:
        """A file with an odd name cannot play with the terminal."""
        odd = self.folder / "\x1b[31m\nnode: G"
        result = self.keys("new", odd)
        self.assertEqual(len(result.stdout.splitlines()), 2)
        self.assertNotIn("\x1b", result.stdout)
        self.assertNotIn("\x1b", self.refused("new", odd))

    def test_as_a_process(self) -> None:
        """From a shell, in a folder of the user's: the file is where the name says."""
        result = run(self, *CLI, "keys", "new", "node.seed", cwd=self.folder)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertIn("file: node.seed\n", result.stdout)
        self.assertEqual(os.listdir(self.folder), ["node.seed"])
        shown = run(self, *CLI, "keys", "show", "node.seed", cwd=self.folder)
        self.assertEqual(shown.stdout, result.stdout)
