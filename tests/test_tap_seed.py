"""The identity of a node: its seed file, and the seed of its configuration."""

from __future__ import annotations

import os
from pathlib import Path

from stellar_sdk import Keypair

from stellar_overlay.identity import LocalNode
from tests.test_tap_options import OptionsTests

SEED = Keypair.from_raw_ed25519_seed(b"\1" * 32).secret
OTHER_SEED = Keypair.from_raw_ed25519_seed(b"\2" * 32).secret
NODE_ID = "GCFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYOJR"


class SeedTests(OptionsTests):
    def test_made(self) -> None:
        """A seed file that is not there is made for its owner alone, whatever the umask is."""
        for umask in (0o000, 0o022, 0o077):
            name = f"{umask}.seed"
            self.addCleanup(os.umask, os.umask(umask))
            seed = self.parse("--seed-file", name).seed
            path = self.folder / name
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            self.assertEqual(path.read_text(), f"{seed}\n")
            self.assertEqual(LocalNode.testnet(seed).secret_seed, seed)

    def test_kept(self) -> None:
        """A second run is the same node, and leaves the file as it is."""
        first = self.parse("--seed-file", "node.seed").seed
        before = (self.folder / "node.seed").stat()
        self.assertEqual(self.parse("--seed-file", "node.seed").seed, first)
        self.assertEqual((self.folder / "node.seed").stat().st_mtime_ns, before.st_mtime_ns)

    def test_each_is_another(self) -> None:
        """Two files that were made hold two seeds."""
        self.assertNotEqual(
            self.parse("--seed-file", "a.seed").seed, self.parse("--seed-file", "b.seed").seed
        )

    def test_forms(self) -> None:
        """White space around the seed does not matter, nor does a stricter mode."""
        for text, mode in ((SEED, 0o600), (f"\n {SEED} \r\n", 0o600), (SEED, 0o400)):
            path = self.write("node.seed", text, mode)
            self.assertEqual(self.parse("--seed-file", path).seed, SEED)
            os.unlink(path)

    def test_open_to_others(self) -> None:
        """A seed that others can reach is refused, with what to do about it."""
        for mode in (0o640, 0o604, 0o644, 0o660, 0o666, 0o620, 0o601, 0o700 | 0o007):
            with self.subTest(mode=oct(mode)):
                path = self.write("node.seed", SEED, mode)
                error = self.refuse("--seed-file", path)
                for word in ("--seed-file", path, "chmod 600"):
                    self.assertIn(word, error)
                self.assertNotIn(SEED, error)

    def test_no_file(self) -> None:
        """A folder, a pipe and a device are refused at once: nobody waits for a writer."""
        os.mkfifo(self.folder / "pipe", 0o600)
        for path in (str(self.folder), "pipe", "/dev/null", "/dev/zero"):
            with self.subTest(path=path):
                error = self.refuse("--seed-file", path)
                self.assertIn("--seed-file", error)
                self.assertIn("not a regular file", error)

    def test_dangling_link(self) -> None:
        """A link to nowhere is refused, and nothing is made at its end."""
        (self.folder / "link").symlink_to(self.folder / "nowhere")
        self.assertIn("--seed-file", self.refuse("--seed-file", "link"))
        self.assertFalse((self.folder / "nowhere").exists())

    def test_rubbish(self) -> None:
        """What holds no seed is refused and left alone, and its content is never shown."""
        mistyped = SEED[:-1] + ("A" if SEED[-1] != "A" else "B")
        rubbish = (
            *("", "\n", "hunter2", mistyped, NODE_ID, SEED.lower(), f"{SEED}{SEED}"),
            *(f"{SEED}\n{OTHER_SEED}", f'NODE_SEED="{SEED}"', "é" * 56, "x" * 5000),
        )
        for text in rubbish:
            with self.subTest(text=text[:60]):
                path = self.write("node.seed", text)
                error = self.refuse("--seed-file", path)
                self.assertIn("--seed-file", error)
                for secret in ("hunter2", mistyped, SEED, SEED.lower(), "é", "xxx"):
                    self.assertNotIn(secret, error)
                self.assertEqual(Path(path).read_text(encoding="utf-8"), text)

    def test_from_configuration(self) -> None:
        """NODE_SEED is the identity, in each of its forms, and --seed-file wins over it."""
        self.write("validator.seed", f"{SEED}\n")
        for value in (SEED, f"{SEED} self", "$FILE:validator.seed"):
            with self.subTest(value=value[-10:]):
                path = self.write("node.cfg", f'NODE_SEED = "{value}"\n')
                self.assertEqual(self.parse("--config", path).seed, SEED)
                other = self.parse("--config", path, "--seed-file", "other.seed").seed
                self.assertNotIn(other, (SEED, None))

    def test_wrong_in_configuration(self) -> None:
        """A NODE_SEED that is none is refused with file and key, and never shown."""
        path = self.write("node.cfg", 'NODE_SEED = "hunter2"\n')
        error = self.refuse("--config", path, "--seed-file", "new.seed")
        for word in ("--config", path, "NODE_SEED"):
            self.assertIn(word, error)
        self.assertNotIn("hunter2", error)
        self.assertFalse((self.folder / "new.seed").exists())
