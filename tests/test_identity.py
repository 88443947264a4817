"""Who nodes are: ids, our own node with its seed, and networks."""

from __future__ import annotations

from typing import Any

from stellar_sdk import Keypair
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ConfigError, InvalidKey
from stellar_overlay.identity import (
    MAX_VERSION_STRING,
    PUBNET_PASSPHRASE,
    TESTNET_PASSPHRASE,
    LocalNode,
    PeerId,
    Seed,
    network_id,
)
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.message import Hello

RAW_SEED = b"\1" * 32
NODE_ID = "GCFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYOJR"
KEYPAIR = Keypair.from_raw_ed25519_seed(RAW_SEED)


class NetworkIdTests(SynchronousTestCase):
    def test_testnet(self) -> None:
        """The test network's id is the one that everybody knows."""
        self.assertEqual(
            network_id(TESTNET_PASSPHRASE).hex(),
            "cee0302d59844d32bdca915c8203dd44b33fbb7edc19051ea37abedf28ecd472",
        )

    def test_pubnet(self) -> None:
        """The public network's id is the one that everybody knows."""
        self.assertEqual(
            network_id(PUBNET_PASSPHRASE).hex(),
            "7ac33997544e3175d266bd022439b22cdb16508c01163f26e5cb2a3e1045a979",
        )


class PeerIdTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """A node id is read from its G… form and written in it."""
        peer_id = PeerId.from_strkey(NODE_ID)
        self.assertEqual(peer_id, PeerId(KEYPAIR.raw_public_key()))
        self.assertEqual(str(peer_id), NODE_ID)
        self.assertEqual(peer_id.short, "GCFIR")

    def test_order(self) -> None:
        """Ids are ordered by key bytes, as core does; their texts would be ordered otherwise."""
        low, high = PeerId(b"\x32" * 32), PeerId(b"\x34" * 32)
        self.assertLess(low, high)
        self.assertEqual(sorted([high, low]), [low, high])
        self.assertGreater(low.strkey, high.strkey)

    def test_key(self) -> None:
        """Equal ids are one key of a dict."""
        self.assertEqual(len({PeerId(RAW_SEED), PeerId(bytes(RAW_SEED))}), 1)

    def test_size(self) -> None:
        """An id has 32 bytes."""
        for key in (b"", b"\1" * 31, b"\1" * 33):
            self.assertRaises(InvalidKey, PeerId, key)

    def test_type(self) -> None:
        """An id is bytes, which cannot change; a text, or what can change, is refused."""
        for key in ("x" * 32, bytearray(32), memoryview(bytes(32)), None, 32, [0] * 32):
            error = self.assertRaises(InvalidKey, PeerId, key)
            self.assertIn(f"not a {type(key).__name__}", str(error))

    def test_strkey_type(self) -> None:
        """The G… form is a text; what may be a seed in bytes is not shown."""
        for text in (None, 5, KEYPAIR.secret.encode(), bytearray(KEYPAIR.secret.encode())):
            error = self.assertRaises(InvalidKey, PeerId.from_strkey, text)
            self.assertIn(f"not a {type(text).__name__}", str(error))
            self.assertNotIn(KEYPAIR.secret, str(error))

    def test_refused(self) -> None:
        """A text that is no node id is refused in one line that shows it."""
        for text in ("", "G", NODE_ID.lower(), NODE_ID[:-1] + "A", NODE_ID + "\n", "M" + NODE_ID):
            with self.subTest(text=text):
                error = self.assertRaises(InvalidKey, PeerId.from_strkey, text)
                self.assertIn(repr(text), str(error))
                self.assertNotIn("\n", str(error))

    def test_seed_is_not_shown(self) -> None:
        """A secret seed in the place of a node id is refused, and does not get into a log."""
        error = self.assertRaises(InvalidKey, PeerId.from_strkey, KEYPAIR.secret)
        self.assertNotIn(KEYPAIR.secret, str(error))


class LocalNodeTests(SynchronousTestCase):
    def test_known_answer(self) -> None:
        """The seed of 32 bytes 01 has the node id that all Ed25519 libraries give it."""
        self.assertEqual(LocalNode.testnet(RAW_SEED).peer_id.strkey, NODE_ID)

    def test_forms_of_seeds(self) -> None:
        """A seed is S… text, 32 bytes or a Keypair, and the node is the same."""
        for seed in (KEYPAIR.secret, RAW_SEED, KEYPAIR):
            with self.subTest(seed=type(seed)):
                node = LocalNode.testnet(seed)
                self.assertEqual(node.peer_id.strkey, NODE_ID)
                self.assertEqual(node.secret_seed, KEYPAIR.secret)

    def test_fresh(self) -> None:
        """Without a seed each node is another one, from the injected randomness."""
        self.assertNotEqual(LocalNode.testnet().peer_id, LocalNode.testnet().peer_id)
        node = LocalNode(TESTNET_PASSPHRASE, token_bytes=lambda count: b"\1" * count)
        self.assertEqual(node.peer_id.strkey, NODE_ID)

    def test_bad_seeds(self) -> None:
        """What is no seed is refused, and never shown."""
        other_key = Keypair.from_public_key(NODE_ID)
        wrong = KEYPAIR.secret[:-1] + ("A" if KEYPAIR.secret[-1] != "A" else "B")
        seeds: tuple[Seed, ...] = ("", "secret-text", wrong, NODE_ID, b"\2" * 31, b"", other_key)
        for seed in seeds:
            with self.subTest(seed=seed):
                error = self.assertRaises(InvalidKey, LocalNode.testnet, seed)
                for hidden in ("secret-text", wrong, NODE_ID, "\\x02", "\2\2"):
                    self.assertNotIn(hidden, str(error))

    def test_repr(self) -> None:
        """A node shows its id and its network, and never its seed."""
        node = LocalNode.testnet(KEYPAIR)
        self.assertIn(NODE_ID, repr(node))
        self.assertIn(TESTNET_PASSPHRASE, repr(node))
        self.assertNotIn(KEYPAIR.secret, repr(node))
        self.assertNotIn(KEYPAIR.secret, str(node))

    def test_signature(self) -> None:
        """Others can verify what we sign."""
        KEYPAIR.verify(b"data", LocalNode.testnet(KEYPAIR).sign(b"data"))

    def test_networks(self) -> None:
        """Each preset is on its network."""
        self.assertEqual(LocalNode.testnet().network_id, network_id(TESTNET_PASSPHRASE))
        self.assertEqual(LocalNode.pubnet().network_id, network_id(PUBNET_PASSPHRASE))

    def test_version_string(self) -> None:
        """The version string fits in HELLO, counted in bytes."""
        limit = "é" * (MAX_VERSION_STRING // 2)
        node = LocalNode(TESTNET_PASSPHRASE, RAW_SEED, version_string=limit)
        self.assertEqual(node.version_string, limit)
        with self.assertRaises(ConfigError):
            LocalNode(TESTNET_PASSPHRASE, RAW_SEED, version_string=limit + "x")

    def test_overlay_versions(self) -> None:
        """The lowest version is not above the highest, and both are 32-bit numbers."""
        LocalNode(TESTNET_PASSPHRASE, RAW_SEED, overlay_version=5, overlay_min_version=5)
        for low, high in ((43, 42), (-1, 42), (0, 2**32)):
            with self.assertRaises(ConfigError):
                LocalNode(
                    TESTNET_PASSPHRASE, RAW_SEED, overlay_version=high, overlay_min_version=low
                )

    def refuse(self, name: str, value: object) -> None:
        """Assert that no node is made with this, and that the error names and shows it."""
        error = str(self.assertRaises(ConfigError, self.make, **{name: value}))
        self.assertIn(name, error)
        self.assertIn(repr(value)[:100], error)

    def make(self, **settings: Any) -> LocalNode:
        """Return a node with these settings."""
        return LocalNode(TESTNET_PASSPHRASE, RAW_SEED, **settings)

    def test_passphrase(self) -> None:
        """A network has a passphrase, which is a text."""
        for passphrase in ("", None, 5, b"private", bytearray(b"private"), "\ud800"):
            error = self.assertRaises(ConfigError, LocalNode, passphrase, RAW_SEED)
            self.assertTrue(str(error).startswith("passphrase: must "), error)
        self.assertEqual(LocalNode(" ", RAW_SEED).network_id, network_id(" "))

    def test_numbers(self) -> None:
        """What HELLO could not say is refused when the node is made, not when it speaks."""
        for name, highest in (
            ("listening_port", 65535),
            ("ledger_version", 2**32 - 1),
            ("overlay_version", 2**32 - 1),
            ("overlay_min_version", 2**32 - 1),
        ):
            for value in (-1, highest + 1, 2**200, True, 1.0, "1", None):
                with self.subTest(name=name, value=value):
                    self.refuse(name, value)
        for port, version in ((0, 0), (65535, 2**32 - 1)):
            node = self.make(
                listening_port=port,
                ledger_version=version,
                overlay_version=version,
                overlay_min_version=version,
            )
            hello = Hello.decode(AuthContext(node, True).create_hello().body)
            self.assertEqual((hello.listening_port, hello.ledger_version), (port, version))
            self.assertEqual((hello.overlay_version, hello.overlay_min_version), (version, version))

    def test_version_string_type(self) -> None:
        """The version string is a text."""
        for value in (None, b"x", 5):
            self.refuse("version_string", value)
