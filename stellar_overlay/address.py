"""Where peers are: what people write, what sockets use, and which of them are nobody's business."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from stellar_overlay.error import InvalidPeerAddress

DEFAULT_PEER_PORT = 11625
MAX_PORT = 65535

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}")
_NUMERIC = re.compile(r"[0-9.]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?")
"""With a scope id, in which Python allows any character, even line breaks."""
_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
        "::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8",
    )
)  # fmt: skip
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A host, by name or number, and a port. ``str()`` gives ``host:port``, IPv6 in brackets.

    The host is kept in one spelling, so that a host is not two peers: names in lower case, IPv6
    as sockets write it.

    :raises InvalidPeerAddress: saying what is wrong with host or port.
    """

    host: str
    port: int = DEFAULT_PEER_PORT

    def __post_init__(self) -> None:
        host, port = self.host, self.port
        if not isinstance(host, str):
            raise InvalidPeerAddress(f"the host must be a text, not {host!r}")
        if not isinstance(port, int) or port is True or not 0 < port <= MAX_PORT:
            raise InvalidPeerAddress(
                f"{host!r}: port {port!r} is not a whole number in 1..{MAX_PORT}"
            )
        if _NUMERIC.fullmatch(host):
            _check_ipv4(host)
        elif ":" in host:
            object.__setattr__(self, "host", _canonical_ipv6(host))
        elif _HOST.fullmatch(host):
            object.__setattr__(self, "host", host.lower())
        else:
            raise InvalidPeerAddress(f"{host!r} is not a host name or an IPv4 address")

    @classmethod
    def parse(cls, text: str, default_port: int = DEFAULT_PEER_PORT) -> PeerAddress:
        """Read ``host[:port]`` as core does (PeerBareAddress.cpp:46-121).

        What core does not read: IPv6, in brackets only (``[::1]:11625``).

        :raises InvalidPeerAddress: saying what is wrong with ``text``.
        """
        if not isinstance(text, str):
            raise InvalidPeerAddress(f"an address must be a text, not {text!r}")
        bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text, re.DOTALL)
        host, port = bracketed.groups() if bracketed else _split(text)
        if port is not None and not _PORT.fullmatch(port):
            raise InvalidPeerAddress(f"{text!r}: the port must be a number in 1..{MAX_PORT}")
        if bracketed and ":" not in host:
            raise InvalidPeerAddress(f"{host!r} is not an IPv6 address")
        if ":" in host and not bracketed:
            raise InvalidPeerAddress(f"{text!r}: write an IPv6 address in brackets, [::1]:port")
        return cls(host, default_port if port is None else int(port))

    @property
    def is_numeric(self) -> bool:
        """Whether the host is an IP address, so that nothing need be resolved."""
        return ":" in self.host or bool(_NUMERIC.fullmatch(self.host))

    @property
    def is_private(self) -> bool:
        """Whether no public node can live there: RFC 1918, loopback, link-local, multicast, …

        Written out, as :attr:`ipaddress.IPv4Address.is_private` also counts the documentation
        networks, and differently in each Python.
        """
        if not self.is_numeric:
            return self.host.rstrip(".").lower() == "localhost"
        return _is_private(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ResolvedPeerAddress(PeerAddress):
    """An IP address and a port: the one key under which a peer's address is stored and dialled."""

    def __post_init__(self) -> None:
        PeerAddress.__post_init__(self)
        if not self.is_numeric:
            raise InvalidPeerAddress(f"{self.host!r} is not an IP address")


def network_group(host: str) -> bytes:
    """Return what an IP address shares with its neighbours: the /16 of IPv4, the /32 of IPv6."""
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.packed[:2] if ip.version == 4 else ip.packed[:4]


def _split(text: str) -> tuple[str, str | None]:
    host, colon, port = text.rpartition(":")
    return (host, port) if colon else (text, None)


@lru_cache(maxsize=16_384)  # more than the table of peers has rows
def _is_private(host: str) -> bool:
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _PRIVATE if network.version == ip.version)


def _check_ipv4(host: str) -> None:
    try:
        socket.inet_pton(socket.AF_INET, host)  # strict, and made for every link
    except OSError:
        raise InvalidPeerAddress(f"{host!r} is not an IPv4 address") from None


def _canonical_ipv6(host: str) -> str:
    """Return the one spelling of an IPv6 address, which is that of sockets; a scope id stays."""
    number, percent, scope = host.partition("%")
    if _IPV6.fullmatch(host):
        with suppress(OSError):
            packed = socket.inet_pton(socket.AF_INET6, number)
            return socket.inet_ntop(socket.AF_INET6, packed) + percent + scope
    raise InvalidPeerAddress(f"{host!r} is not an IPv6 address")
