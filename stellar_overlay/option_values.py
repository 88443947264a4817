"""What options of the node and of the tools may say, and how what they say is read."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress

from stellar_overlay import __version__
from stellar_overlay.address import MAX_PORT
from stellar_overlay.error import ConfigError


def version_text() -> str:
    """Return the line that ``--version`` prints."""
    from stellar_overlay.identity import OVERLAY_MIN_VERSION, OVERLAY_VERSION

    return (
        f"stellar-overlay {__version__}, overlay versions {OVERLAY_MIN_VERSION}..{OVERLAY_VERSION}"
    )


def passphrase(network: str | None) -> str | None:
    """Return the passphrase of a network that is named or spelt out; None stays None."""
    from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE

    if network is None:
        return None
    return {"testnet": TESTNET_PASSPHRASE, "pubnet": PUBNET_PASSPHRASE}.get(network, network)


def version_range(option: str, text: str) -> tuple[int, int]:
    """Read ``MIN..MAX``.

    :raises ConfigError: naming the option.
    """
    low, dots, high = text.partition("..")
    if not (dots and _is_whole(low) and _is_whole(high)):
        raise ConfigError(f"{option}: must be MIN..MAX, such as 38..42, not {text!r}")
    if int(low) > int(high):
        raise ConfigError(f"{option}: {text!r} must have the lower version first")
    if int(high) >= 2**32:
        raise ConfigError(f"{option}: versions are below 2^32, not {text!r}")
    return int(low), int(high)


def check_endpoint(option: str, description: str) -> None:
    """Refuse a text that describes no server endpoint.

    :raises ConfigError: naming the option.
    """
    from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, serverFromString
    from twisted.internet.protocol import Factory
    from twisted.internet.testing import MemoryReactorClock

    reactor = MemoryReactorClock()
    try:
        endpoint = serverFromString(reactor, description)
        if isinstance(endpoint, TCP4ServerEndpoint | TCP6ServerEndpoint):
            endpoint.listen(Factory())
    except Exception as error:
        raise ConfigError(
            f"{option}: {description!r} is not an endpoint such as tcp:11625 or"
            f" tcp:0:interface=127.0.0.1 ({error})"
        ) from None
    for port, *_ in reactor.tcpServers:
        if not 0 <= port <= MAX_PORT:
            raise ConfigError(f"{option}: {description!r}: the port must be in 0..{MAX_PORT}")


def check_writable(option: str, path: str) -> None:
    """Refuse a path at which no file can be made, as far as that can be told beforehand.

    :raises ConfigError: naming the option.
    """
    folder = os.path.dirname(os.path.abspath(path))
    if not path or os.path.isdir(path):
        raise ConfigError(f"{option}: must be a file, not {path!r}")
    if not os.path.isdir(folder):
        raise ConfigError(f"{option}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}: nothing may be written into {folder}")


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def whole_number(option: str, text: str | None) -> int | None:
    """Read a whole number; None stays None.

    :raises ConfigError: naming the option.
    """
    if text is None:
        return None
    if not _is_whole(text):
        raise ConfigError(f"{option}: must be a whole number, not {text!r}")
    return int(text)


def write_atomically(path: str, text: str) -> None:
    """Replace a file as a whole: a reader sees the old text or the new one."""
    folder = os.path.dirname(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".stellar-overlay-")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
