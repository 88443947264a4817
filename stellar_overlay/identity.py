"""Who nodes are: a peer's id, our own node, and the id of a network."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from stellar_overlay import __version__
from stellar_overlay.address import DEFAULT_PEER_PORT, MAX_PORT
from stellar_overlay.error import ConfigError, InvalidKey

TESTNET_PASSPHRASE = "Test SDF Network ; September 2015"
PUBNET_PASSPHRASE = "Public Global Stellar Network ; September 2015"

LEDGER_VERSION = 28
OVERLAY_VERSION = 42
OVERLAY_MIN_VERSION = 38
"""We announce 42 and accept 38..42 (no wire change in that range matters to us)."""

MAX_VERSION_STRING = 100
"""Bytes of ``versionStr`` in HELLO (Stellar-overlay.x)."""


def network_id(passphrase: str) -> bytes:
    """Return the 32-byte id of the network: SHA-256 of its passphrase."""
    return hashlib.sha256(passphrase.encode()).digest()


_STRKEY_VERSION = bytes([6 << 3])
"""What a ``G…`` key begins with, before base32 (SEP-23)."""


@dataclass(frozen=True, order=True)
class PeerId:
    """A node's Ed25519 public key. ``str()`` gives the ``G…`` form, ordering is by key bytes."""

    key: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.key, bytes):
            raise InvalidKey(f"a node id is 32 bytes, not a {type(self.key).__name__}")
        if len(self.key) != 32:
            raise InvalidKey(f"a node id has 32 bytes, not {len(self.key)}")

    @classmethod
    def from_strkey(cls, text: str) -> PeerId:
        """Read the ``G…`` form.

        :raises InvalidKey: when it is not one.
        """
        from stellar_sdk import StrKey

        if not isinstance(text, str):
            raise InvalidKey(f"a node id (G…) is a text, not a {type(text).__name__}")
        try:
            return cls(StrKey.decode_ed25519_public_key(text))
        except ValueError:
            # What starts with S may be a seed that strayed in here, and is never shown.
            shown = "a text that starts with S" if text.startswith("S") else repr(text)
            raise InvalidKey(f"{shown} is not a node id (G…)") from None

    @cached_property
    def strkey(self) -> str:
        """The ``G…`` form, 56 characters."""
        from stellar_sdk import StrKey

        return str(StrKey.encode_ed25519_public_key(self.key))

    @property
    def short(self) -> str:
        """The first five characters, as core's log and ``/peers`` show a node."""
        return base64.b32encode(_STRKEY_VERSION + self.key[:4])[:5].decode()

    def __str__(self) -> str:
        return self.strkey


class HasSecretKey(Protocol):
    """What we use of a ``stellar_sdk.Keypair``."""

    def raw_secret_key(self) -> bytes:
        """Return the 32-byte seed."""
        ...


Seed = str | bytes | HasSecretKey
"""``S…`` text, 32 raw bytes, or a ``stellar_sdk.Keypair``."""


class LocalNode:
    """Our own node: its key, its network, and what its HELLO says.

    :param passphrase: of the network, in full.
    :param seed: None makes a fresh identity.
    :param listening_port: what HELLO announces; the manager sets it to the port really bound.
    :param wall_clock: Unix time in seconds, for certificates only.
    :param token_bytes: returns so many random bytes, for nonces and ephemeral keys.
    :raises ConfigError: naming what HELLO could not say.
    :raises InvalidKey: when the seed is none; the text never shows it.
    """

    def __init__(
        self,
        passphrase: str,
        seed: Seed | None = None,
        *,
        version_string: str = f"stellar-overlay/{__version__}",
        ledger_version: int = LEDGER_VERSION,
        overlay_version: int = OVERLAY_VERSION,
        overlay_min_version: int = OVERLAY_MIN_VERSION,
        listening_port: int = DEFAULT_PEER_PORT,
        wall_clock: Callable[[], float] = time.time,
        token_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        from nacl.signing import SigningKey

        if not _encoded("passphrase", passphrase):
            raise ConfigError("passphrase: must not be empty")
        if len(_encoded("version_string", version_string)) > MAX_VERSION_STRING:
            raise ConfigError(f"version_string: at most {MAX_VERSION_STRING} bytes")
        _check_number("ledger_version", ledger_version, 2**32 - 1)
        _check_number("overlay_version", overlay_version, 2**32 - 1)
        _check_number("overlay_min_version", overlay_min_version, 2**32 - 1)
        _check_number("listening_port", listening_port, MAX_PORT)
        if overlay_min_version > overlay_version:
            raise ConfigError(
                f"overlay versions {overlay_min_version}..{overlay_version}: the lower one first"
            )
        self._signing_key = SigningKey(token_bytes(32) if seed is None else _raw_seed(seed))
        self.peer_id = PeerId(bytes(self._signing_key.verify_key))
        _ = self.peer_id.strkey  # its import takes 0.4 s, which a reactor had better not wait for
        self.network_passphrase = passphrase
        self.network_id = network_id(passphrase)
        self.version_string = version_string
        self.ledger_version = ledger_version
        self.overlay_version = overlay_version
        self.overlay_min_version = overlay_min_version
        self.listening_port = listening_port
        self.wall_clock = wall_clock
        self.token_bytes = token_bytes

    @classmethod
    def testnet(cls, seed: Seed | None = None) -> LocalNode:
        """Return a node of the test network."""
        return cls(TESTNET_PASSPHRASE, seed)

    @classmethod
    def pubnet(cls, seed: Seed | None = None) -> LocalNode:
        """Return a node of the public network."""
        return cls(PUBNET_PASSPHRASE, seed)

    @property
    def secret_seed(self) -> str:
        """The ``S…`` seed, for whoever stores it. Never log it."""
        from stellar_sdk import StrKey

        return str(StrKey.encode_ed25519_secret_seed(bytes(self._signing_key)))

    def sign(self, data: bytes) -> bytes:
        """Return our 64-byte Ed25519 signature of ``data``."""
        return bytes(self._signing_key.sign(data).signature)

    def __repr__(self) -> str:
        return f"<LocalNode {self.peer_id} on {self.network_passphrase!r}>"


def _encoded(name: str, text: str) -> bytes:
    """Return a text in UTF-8.

    :raises ConfigError: when it is none.
    """
    try:
        return text.encode()
    except (AttributeError, UnicodeError):
        raise ConfigError(f"{name}: must be a text, not {text!r:.100}") from None


def _check_number(name: str, number: int, highest: int) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= highest:
        rule = f"must be a whole number from 0 to {highest}"
        raise ConfigError(f"{name}: {rule}, not {number!r:.100}")


def _raw_seed(seed: Seed) -> bytes:
    """Return the 32 bytes of a seed in any of its forms; errors never show it."""
    if isinstance(seed, str):
        from stellar_sdk import StrKey

        try:
            return bytes(StrKey.decode_ed25519_secret_seed(seed))
        except ValueError:
            raise InvalidKey("the seed is not an S… secret seed") from None
    try:
        raw = seed if isinstance(seed, bytes) else seed.raw_secret_key()
    except (AttributeError, ValueError):
        raw = b""
    if len(raw) != 32:
        raise InvalidKey("the seed must be an S… text, a Keypair with its secret, or 32 bytes")
    return bytes(raw)


def read_seed_file(path: str | os.PathLike[str]) -> str:
    """Return the ``S…`` seed in a file that nobody but its owner may read.

    :raises InvalidKey: when the file cannot be read, is open to others, or holds no seed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not keep us waiting
        mode = os.fstat(descriptor).st_mode
        data = os.read(descriptor, 1024) if stat.S_ISREG(mode) else b""
        os.close(descriptor)
    except OSError as error:
        advice = "; keys new makes one" if error.errno == errno.ENOENT else ""
        raise InvalidKey(f"{os.fspath(path)}: {error.strerror}{advice}") from None
    if not stat.S_ISREG(mode):
        raise InvalidKey(f"{os.fspath(path)}: is not a regular file; name one that holds a seed")
    if mode & 0o077:
        raise InvalidKey(f"{os.fspath(path)}: others may read it; run chmod 600 on it first")
    seed = data.decode("ascii", errors="replace").strip()
    try:
        _raw_seed(seed)
    except InvalidKey:
        raise InvalidKey(
            f"{os.fspath(path)}: holds no S… seed; it must be all that is in the file"
        ) from None
    return seed


def create_seed_file(path: str | os.PathLike[str]) -> str:
    """Write a fresh ``S…`` seed into a new file of mode 0600, and return it.

    :raises InvalidKey: when the file exists or cannot be written.
    """
    seed = LocalNode(TESTNET_PASSPHRASE).secret_seed
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise InvalidKey(
            f"{os.fspath(path)}: File exists; no seed is ever overwritten, name another file"
        ) from None
    except OSError as error:
        raise InvalidKey(f"{os.fspath(path)}: {error.strerror}") from None
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(seed + "\n")
    except OSError as error:
        with suppress(OSError):  # half a seed would be of no use to anybody
            os.unlink(path)
        raise InvalidKey(f"{os.fspath(path)}: {error.strerror}") from None
    return seed
