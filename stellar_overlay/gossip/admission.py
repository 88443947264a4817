"""Who may stay: slots for links of each kind, and what becomes of a second link to one node.

Pure: told of links by their owner, it keeps the lists and raises
:exc:`~stellar_overlay.error.PeerViolation` for a link that must go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.identity import PeerId

SILENT_SECONDS = 10
"""After so long without a word, a link makes way for a new one to the same node."""
MAX_PENDING_PER_IP = 16
"""Inbound links from one address that have not shaken hands yet; off for private addresses
where these are allowed."""
MIN_INBOUND_FACTOR = 3


@dataclass(frozen=True, kw_only=True)
class ConnectionLimits:
    """How many links of each kind there may be."""

    max_outbound: int
    max_inbound: int
    max_outbound_pending: int
    max_inbound_pending: int

    @classmethod
    def of(cls, max_outbound: int, max_inbound: int, max_pending: int) -> ConnectionLimits:
        """Share the pending slots between the directions (core Config.cpp:2216-2347)."""
        outbound = ceil(max_pending * max_outbound / max(1, max_outbound + max_inbound))
        outbound = max(1, outbound)
        return cls(
            max_outbound=max_outbound,
            max_inbound=max_inbound,
            max_outbound_pending=outbound,
            max_inbound_pending=max(1, max_pending - outbound),
        )


class Candidate(Protocol):
    """What is asked of a link that wants to stay."""

    we_called_remote: bool
    remote: ResolvedPeerAddress | None

    @property
    def last_read(self) -> float:
        """When the peer was last heard, in seconds of the injected clock."""
        ...

    def drop(self, violation: PeerViolation) -> None:
        """End the link."""
        ...


class Admission:
    """The lists of pending and authenticated links, and the rules about them.

    :param own_id: ours; of two crossed links, the one dialled by the greater id stays.
    :param name_of: how a refused node's id is shown to it.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        own_id: PeerId,
        *,
        allow_private: bool,
        name_of: Callable[[PeerId], str] = lambda peer_id: peer_id.short,
    ) -> None:
        self.limits = limits
        self._name_of = name_of
        self.pending: set[Candidate] = set()
        self.authenticated: dict[PeerId, Candidate] = {}
        self.closing: set[Candidate] = set()
        """Links that count no more, but whose transport is not closed yet."""
        self._own_id = own_id
        self._allow_private = allow_private
        self._dialling = 0

    def may_accept(self, remote: ResolvedPeerAddress | None) -> bool:
        """Tell whether there is a pending slot for a link from ``remote``.

        A link that is closing takes one up (core OverlayManagerImpl.cpp:917-958), or else whoever
        gets itself refused could have any number of sockets open.
        """
        pending = (*self.pending, *self.closing)
        inbound = [link for link in pending if not link.we_called_remote]
        if len(inbound) >= self.limits.max_inbound_pending:
            return False
        if remote is None or (remote.is_private and self._allow_private):
            return True
        per_ip = Counter(link.remote.host for link in inbound if link.remote is not None)
        return per_ip[remote.host] < MAX_PENDING_PER_IP

    def may_dial(self) -> bool:
        """Tell whether there is a pending slot for a link that we open."""
        outbound = sum(link.we_called_remote for link in self.pending)
        return outbound + self._dialling < self.limits.max_outbound_pending

    @property
    def outbound(self) -> int:
        """How many links we have opened or are opening."""
        links = (*self.pending, *self.authenticated.values())
        return self._dialling + sum(link.we_called_remote for link in links)

    def begin_dial(self) -> None:
        """Take a pending slot for a link that has no transport yet."""
        self._dialling += 1

    def end_dial(self) -> None:
        """Give the slot back: the link has its transport, or never will."""
        self._dialling -= 1

    def open(self, link: Candidate) -> None:
        """Note a link whose handshake begins."""
        self.pending.add(link)

    def check_hello(self, peer_id: PeerId, now: float) -> None:
        """Refuse a node that is authenticated already, unless that link has fallen silent.

        :raises PeerViolation: then.
        """
        other = self.authenticated.get(peer_id)
        if other is not None and not _is_silent(other, now):
            raise DropReason.ALREADY_CONNECTED.violation(peer=self._name_of(peer_id))

    def settle_duplicate(self, link: Candidate, peer_id: PeerId, now: float) -> None:
        """Keep one of two links to a node that has proven its key on both.

        Of opposite directions the one dialled by the greater id stays; of one direction the
        older. But any link that has fallen silent makes way.

        :raises PeerViolation: when it is ``link`` that must go.
        """
        other = self.authenticated.get(peer_id)
        if other is None:
            return
        violation = DropReason.ALREADY_CONNECTED.violation(peer=self._name_of(peer_id))
        is_crossed = link.we_called_remote != other.we_called_remote
        has_precedence = is_crossed and link.we_called_remote == (self._own_id > peer_id)
        if not (has_precedence or _is_silent(other, now)):
            raise violation
        other.drop(violation)

    def admit(self, link: Candidate, peer_id: PeerId) -> None:
        """Take a link among the authenticated ones.

        :raises PeerViolation: when there is no slot.
        """
        limits, outbound = self.limits, link.we_called_remote
        count = sum(other.we_called_remote == outbound for other in self.authenticated.values())
        if count >= (limits.max_outbound if outbound else limits.max_inbound):
            raise DropReason.PEER_REJECTED.violation(f"{count} links of its direction")
        self.pending.discard(link)
        self.authenticated[peer_id] = link

    def remove(self, link: Candidate, peer_id: PeerId | None) -> None:
        """Free the slot of a link that ended; another link to the same node is left alone."""
        self.pending.discard(link)
        if peer_id is not None and self.authenticated.get(peer_id) is link:
            del self.authenticated[peer_id]
        self.closing.add(link)

    def forget(self, link: Candidate) -> None:
        """Note that the transport of a link that ended is closed."""
        self.closing.discard(link)


def _is_silent(link: Candidate, now: float) -> bool:
    return now - link.last_read >= SILENT_SECONDS
