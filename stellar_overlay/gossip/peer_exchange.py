"""Addresses that peers tell each other: what we believe of theirs, and what we say of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

from stellar_overlay.address import MAX_PORT, ResolvedPeerAddress
from stellar_overlay.gossip.reachable import is_reachable
from stellar_overlay.interfaces import AddressBook, Link
from stellar_overlay.wire.message import PeerEntry

MAX_SENT = 50
"""Addresses in a PEERS that we send (core Peer.h)."""
MAX_RECEIVED = 100
"""Addresses looked at in one that we get; the wire allows no more (Stellar-overlay.x)."""


class PeerExchange:
    """Both ends of PEERS (connection.md 9.6 and 9.7, DECISIONS.md 16).

    :param own_port: returns the port that we listen on.
    :param own_addresses: where we have met ourselves; may grow.
    :param allow_private: whether private and loopback addresses are told and believed.
    :param allow_localhost: whether 127.0.0.1 is, if nothing else of the kind.
    """

    def __init__(
        self,
        book: AddressBook,
        *,
        own_port: Callable[[], int],
        own_addresses: AbstractSet[ResolvedPeerAddress],
        allow_private: bool,
        allow_localhost: bool,
    ) -> None:
        self._book = book
        self._own_port = own_port
        self._own_addresses = own_addresses
        self._allow_private = allow_private
        self._allow_localhost = allow_localhost

    def receive(self, link: Link, entries: Sequence[PeerEntry]) -> int:
        """Remember the addresses that a peer told us; return how many are known now.

        The rest is skipped without a word, and is no fault: core tells us such things too. That
        includes our own port at the peer's IP address, by which core means ourselves.
        """
        heard = (
            ResolvedPeerAddress(entry.host, entry.port)
            for entry in entries[:MAX_RECEIVED]
            if 0 < entry.port <= MAX_PORT and ":" not in entry.host
        )
        ours = link.address.host, self._own_port()
        addresses = [
            address
            for address in dict.fromkeys(heard)
            if (address.host, address.port) != ours
            and address not in self._own_addresses
            and self._is_shared(address)
        ]
        return sum(self._book.ensure_exists(address) for address in addresses)

    def to_send(self, address: ResolvedPeerAddress) -> list[PeerEntry]:
        """Return what to tell the peer that listens at ``address``; may be empty."""

        def accept(other: ResolvedPeerAddress) -> bool:
            is_of_use = other != address and other not in self._own_addresses
            return is_of_use and ":" not in other.host and self._is_shared(other)

        return [
            PeerEntry(other.host, other.port)
            for other in self._book.get_peers_to_send(MAX_SENT, accept)
        ]

    def _is_shared(self, address: ResolvedPeerAddress) -> bool:
        return is_reachable(
            address, allow_private=self._allow_private, allow_localhost=self._allow_localhost
        )
