"""Which requests may change something: none that a foreign web page has talked a browser into.

A page of the web can send requests to loopback, and a name that its owner points there makes it
even the same origin. So a changing request must call us by a name that nobody else can have, and
must not say that it comes from elsewhere (INTERFACE.md 4).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from stellar_overlay.error import ConfigError

HTTP_PORT_OF = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://([^/?#]+)")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_OWN_SITES = ("same-origin", "none")


def host_name(text: str) -> str:
    """Return a name or address by which an operator calls the node, in the spelling compared.

    :raises ConfigError: when it cannot be the host of a URL.
    """
    host = text.lower().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        if len(host) > 253 or not _NAME.fullmatch(host):
            raise ConfigError(
                f"{text[:100]!r} is not a host name, such as node.example.org, without a port"
            ) from None
        return host.removesuffix(".")


class Guard:
    """Judges requests by their headers.

    :param hosts: further names and addresses by which we may be called, besides loopback.
    """

    def __init__(self, hosts: Collection[str] = ()) -> None:
        self._hosts = frozenset(map(host_name, hosts))

    def refusal(
        self,
        *,
        hosts: Sequence[str],
        origins: Sequence[str],
        fetch_sites: Sequence[str],
        bound_host: str | None,
        bound_port: int | None,
    ) -> str | None:
        """Return why a changing request is refused; None lets it pass.

        :param hosts: every ``Host`` header; ``origins`` and ``fetch_sites`` (``Sec-Fetch-Site``)
            likewise.
        :param bound_host: the address at which the request came in; None when it has none.
        """
        if len(hosts) != 1:
            return "exactly one Host header is wanted"
        called = _authority(hosts[0])
        if called is None or not self._is_ours(called[0], bound_host):
            return "its Host is not ours; --http-host NAME accepts another one"
        for origin in origins:
            if not self._is_own_origin(origin, called, bound_host, bound_port):
                return "its Origin is another site"
        if any(site.lower() not in _OWN_SITES for site in fetch_sites):
            return "its Sec-Fetch-Site is another site"
        return None

    def _is_ours(self, host: str, bound_host: str | None) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host == "localhost" or host in self._hosts
        return address.is_loopback or str(address) in (*self._hosts, _address_text(bound_host))

    def _is_own_origin(
        self,
        origin: str,
        called: tuple[str, int | None],
        bound_host: str | None,
        bound_port: int | None,
    ) -> bool:
        """Tell whether a page of that origin is ours: at our port, or as the request calls us.

        The latter is how a tunnel or a proxy at another port looks.
        """
        found = _ORIGIN.fullmatch(origin.lower())
        authority = _authority(found[2]) if found else None
        if found is None or authority is None:
            return False
        default = HTTP_PORT_OF[found[1]]
        host, port = authority[0], authority[1] or default
        if (host, port) == (called[0], called[1] or default):
            return True
        return port == bound_port and self._is_ours(host, bound_host)


def _authority(text: str) -> tuple[str, int | None] | None:
    """Return host and port of ``host[:port]``, or None when it is none."""
    found = _AUTHORITY.fullmatch(text.strip().lower())
    if found is None:
        return None
    try:
        return host_name(found[1]), int(found[2]) if found[2] else None
    except ConfigError:
        return None


def _address_text(host: str | None) -> str | None:
    """Return an address as we compare it; None for what is none."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)  # of a socket for both families
