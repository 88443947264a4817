"""Which IP addresses are worth telling, keeping and dialling."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from stellar_overlay.address import ResolvedPeerAddress

_NOBODYS = tuple(
    ipaddress.ip_network(network)
    for network in ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4", "::/128", "ff00::/8")
)
_LOCALHOST = "127.0.0.1"
_UNREACHABLE = (
    *_NOBODYS,
    *(ipaddress.ip_network(network) for network in ("169.254.0.0/16", "fe80::/10")),
)
"""With what is never more than one link wide."""


def is_nobodys(address: ResolvedPeerAddress) -> bool:
    """Tell whether no node can live there, whoever says so: unspecified, multicast, reserved."""
    return _is_in(address.host, _NOBODYS)


def is_reachable(
    address: ResolvedPeerAddress, *, allow_private: bool, allow_localhost: bool = False
) -> bool:
    """Tell whether a node there can be reached from more than one link or site.

    :param allow_private: whether private networks and loopback count; link-local ones never do.
    :param allow_localhost: whether 127.0.0.1 does, if nothing else of the kind.
    """
    if not address.is_private or (allow_localhost and address.host == _LOCALHOST):
        return True
    return allow_private and not _is_in(address.host, _UNREACHABLE)


@lru_cache(maxsize=16_384)  # more than the table of peers has rows
def _is_in(host: str, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    ip = ipaddress.ip_address(host)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks if network.version == ip.version)
