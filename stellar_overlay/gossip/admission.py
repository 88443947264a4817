"""Who may stay: slots for links of each kind, and what becomes of a second link to one node.

Pure: told of links by their owner, it keeps the lists and raises
:exc:`~stellar_overlay.error.PeerViolation` for a link that must go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from stellar_overlay.address import ResolvedPeerAddress, network_group
from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.gossip.census import Candidate, Census, Entry, Stage
from stellar_overlay.gossip.connection_limits import MIN_INBOUND_FACTOR, ConnectionLimits
from stellar_overlay.identity import PeerId

__all__ = ["MIN_INBOUND_FACTOR", "Admission", "Candidate", "ConnectionLimits"]

SILENT_SECONDS = 10
"""After so long without a word, a link makes way for a new one to the same node."""
MAX_PENDING_PER_IP = 16
"""Inbound links from one address that have not shaken hands yet; off for addresses of preferred
peers, and for private ones where these are allowed (DECISIONS.md 15)."""
POSSIBLY_PREFERRED_EXTRA = 2
"""Inbound pending slots beyond the limit for addresses of preferred peers (core
OverlayManager.h)."""
MAX_OUTBOUND_PER_GROUP = 2
"""Links that we open to one network group, configured peers apart: whoever holds one /16 shall
not hold all our company (DECISIONS.md 15)."""


class Admission:
    """The lists of pending and authenticated links, and the rules about them.

    :param own_id: ours; of two crossed links, the one dialled by the greater id stays.
    :param name_of: how a refused node's id is shown to it.
    :param preferred_only: whether nobody but preferred peers may stay.
    :ivar preferred_ids: keys of preferred peers, wherever they live.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        own_id: PeerId,
        *,
        allow_private: bool,
        name_of: Callable[[PeerId], str] = lambda peer_id: peer_id.short,
        preferred_ids: frozenset[PeerId] = frozenset(),
        preferred_only: bool = False,
    ) -> None:
        self.limits = limits
        self.preferred_ids = preferred_ids
        self.preferred_only = preferred_only
        self.configured: AbstractSet[ResolvedPeerAddress] = frozenset()
        """Where known and preferred peers live, by the last look-up of their names."""
        self._preferred_addresses: frozenset[ResolvedPeerAddress] = frozenset()
        self._preferred_hosts: frozenset[str] = frozenset()
        self._name_of = name_of
        self._own_id = own_id
        self._allow_private = allow_private
        self._census = Census()

    # Who is there.

    @property
    def pending(self) -> AbstractSet[Candidate]:
        """Links whose handshake is under way."""
        return self._census.pending

    @property
    def authenticated(self) -> Mapping[PeerId, Candidate]:
        """Links whose peer has proven its key and has a slot."""
        return self._census.authenticated

    @property
    def closing(self) -> AbstractSet[Candidate]:
        """Links that count no more, but whose transport is not closed yet."""
        return self._census.closing

    @property
    def pending_outbound(self) -> int:
        """How many links we are opening, those without a transport included."""
        return self._count(Stage.DIALLING, True) + self._count(Stage.PENDING, True)

    @property
    def pending_inbound(self) -> int:
        """How many who called us are shaking hands."""
        return self._count(Stage.PENDING, False)

    @property
    def authenticated_outbound(self) -> int:
        """How many whom we called stay."""
        return self._count(Stage.AUTHENTICATED, True)

    @property
    def authenticated_inbound(self) -> int:
        """How many who called us stay."""
        return self._count(Stage.AUTHENTICATED, False)

    @property
    def outbound(self) -> int:
        """How many links we have opened or are opening."""
        return self.pending_outbound + self.authenticated_outbound

    @property
    def non_preferred_outbound(self) -> int:
        """How many of those whom we called and who stay must make way for preferred peers."""
        return len(self._non_preferred(is_outbound=True))

    def random_non_preferred_outbound(
        self, choice: Callable[[Sequence[Candidate]], Candidate]
    ) -> Candidate | None:
        """Return one of them.

        :param choice: returns any one of a sequence that is not empty.
        """
        peers = self._non_preferred(is_outbound=True)
        return choice([self.authenticated[peer_id] for peer_id in peers]) if peers else None

    # Who is preferred.

    @property
    def preferred_addresses(self) -> AbstractSet[ResolvedPeerAddress]:
        """Where preferred peers live, by the last look-up of their names. Set anew, not changed."""
        return self._preferred_addresses

    @preferred_addresses.setter
    def preferred_addresses(self, addresses: AbstractSet[ResolvedPeerAddress]) -> None:
        self._preferred_addresses = frozenset(addresses)
        self._preferred_hosts = frozenset(address.host for address in addresses)

    def is_preferred(
        self, address: ResolvedPeerAddress | None, peer_id: PeerId | None = None
    ) -> bool:
        """Tell whether a peer is preferred, by the lists as they are now.

        :param address: its IP address, and the port that it listens on.
        :param peer_id: only what it has proven to be.
        """
        return address in self._preferred_addresses or peer_id in self.preferred_ids

    def is_link_preferred(self, link: Candidate) -> bool:
        """Tell whether the peer of an authenticated link is preferred, by the lists as they are."""
        entry = self._census.entry(link)
        return entry is not None and self.is_preferred(entry.address, entry.peer_id)

    def is_configured(self, address: ResolvedPeerAddress) -> bool:
        """Tell whether the operator named who lives there."""
        return address in self.configured or address in self._preferred_addresses

    # Slots for what is under way.

    def may_accept(self, remote: ResolvedPeerAddress | None) -> bool:
        """Tell whether there is a pending slot for a link from ``remote``.

        A link that is closing takes one up (core OverlayManagerImpl.cpp:917-958), or else whoever
        gets itself refused could have any number of sockets open. An address of a preferred peer
        has two more, and is not held to the limit of one address: several nodes may live there,
        and the operator vouched for it.
        """
        taken = self.pending_inbound + self._count(Stage.CLOSING, False)
        free = self.limits.max_inbound_pending - taken
        if remote is not None and remote.host in self._preferred_hosts:
            return free + POSSIBLY_PREFERRED_EXTRA > 0
        if free <= 0 or remote is None:
            return free > 0
        if self._allow_private and remote.is_private:
            return True
        return self._census.callers_from(remote.host) < MAX_PENDING_PER_IP

    def may_dial(self) -> bool:
        """Tell whether there is a pending slot for a link that we open."""
        return self.pending_outbound < self.limits.max_outbound_pending

    def may_dial_preferred(self) -> bool:
        """Tell whether a preferred peer that we dial now would find a slot, or make one free."""
        has_slot = self.authenticated_outbound < self.limits.max_outbound
        return self.may_dial() and (has_slot or self.non_preferred_outbound > 0)

    def may_dial_group(self, address: ResolvedPeerAddress) -> bool:
        """Tell whether a link to ``address`` leaves our company mixed enough.

        Configured peers, and private addresses where these are allowed, may always be dialled,
        and do not count.
        """
        if self.is_configured(address) or (self._allow_private and address.is_private):
            return True
        others = self._census.outbound_to(network_group(address.host))
        return sum(not self._is_asked_for(other) for other in others) < MAX_OUTBOUND_PER_GROUP

    def begin_dial(self, address: ResolvedPeerAddress) -> None:
        """Take a pending slot for a link that has no transport yet."""
        self._census.begin_dial(address)

    def end_dial(self, address: ResolvedPeerAddress) -> None:
        """Give the slot back: the link has its transport, or never will."""
        self._census.end_dial(address)

    def open(self, link: Candidate) -> None:
        """Note a link whose handshake begins."""
        self._census.open(link)

    # Who stays.

    def check_hello(self, peer_id: PeerId, now: float) -> None:
        """Refuse a node that is authenticated already, unless that link has fallen silent.

        :raises PeerViolation: then.
        """
        other = self.authenticated.get(peer_id)
        if other is not None and not _is_silent(other, now):
            raise self._already_connected(peer_id)

    def settle_duplicate(self, link: Candidate, peer_id: PeerId, now: float) -> None:
        """Keep one of two links to a node that has proven its key on both.

        Of opposite directions the one dialled by the greater id stays; of one direction the
        older. But any link that has fallen silent makes way.

        :raises PeerViolation: when it is ``link`` that must go.
        """
        other = self.authenticated.get(peer_id)
        if other is None:
            return
        is_crossed = link.we_called_remote != other.we_called_remote
        has_precedence = is_crossed and link.we_called_remote == (self._own_id > peer_id)
        if not (has_precedence or _is_silent(other, now)):
            raise self._already_connected(peer_id)
        other.drop(self._already_connected(peer_id))

    def admit(
        self, link: Candidate, peer_id: PeerId, address: ResolvedPeerAddress | None = None
    ) -> None:
        """Take a pending link among the authenticated ones (core OverlayManagerImpl.cpp:208-276).

        A preferred peer that finds no slot takes that of the first peer of its direction, by node
        id, that is not preferred. A second call changes nothing.

        :param address: the peer's IP address, and the port that it listens on.
        :raises PeerViolation: when there is no slot.
        """
        entry = self._census.entry(link)
        if entry is None or entry.stage is Stage.CLOSING:
            raise DropReason.PEER_REJECTED.violation("the link has ended")
        if entry.stage is Stage.AUTHENTICATED:
            return
        if peer_id in self.authenticated:
            raise self._already_connected(peer_id)
        evicted = self._make_room(
            entry.is_outbound, is_preferred=self.is_preferred(address, peer_id)
        )
        if evicted is not None:
            self._census.close(evicted)
        self._census.authenticate(link, peer_id, address)
        if evicted is not None:  # last, as it calls back
            evicted.drop(DropReason.PREFERRED_SELECTED.violation())

    def remove(self, link: Candidate) -> None:
        """Free the slot of a link that ended; another link to the same node is left alone."""
        self._census.close(link)

    def forget(self, link: Candidate) -> None:
        """Note that the transport of a link is closed."""
        self._census.forget(link)

    # Inside.

    def _make_room(self, is_outbound: bool, *, is_preferred: bool) -> Candidate | None:
        """Return who must go for one more; None when nobody need.

        :raises PeerViolation: when there is no slot to be had.
        """
        count = self._count(Stage.AUTHENTICATED, is_outbound)
        limit = self.limits.max_outbound if is_outbound else self.limits.max_inbound
        if count < limit and (is_preferred or not self.preferred_only):
            return None
        others = self._non_preferred(is_outbound=is_outbound) if is_preferred else []
        if not others:
            only = ", preferred peers only" if self.preferred_only and not is_preferred else ""
            raise DropReason.PEER_REJECTED.violation(f"{count} links of its direction{only}")
        return self.authenticated[min(others)]

    def _count(self, stage: Stage, is_outbound: bool) -> int:
        return self._census.count(stage, is_outbound=is_outbound)

    def _non_preferred(self, *, is_outbound: bool) -> list[PeerId]:
        return [
            peer_id
            for peer_id, entry in self._census.peers()
            if entry.is_outbound == is_outbound and not self.is_preferred(entry.address, peer_id)
        ]

    def _is_asked_for(self, entry: Entry) -> bool:
        return entry.peer_id in self.preferred_ids or any(
            address is not None and self.is_configured(address)
            for address in (entry.remote, entry.address)
        )

    def _already_connected(self, peer_id: PeerId) -> PeerViolation:
        return DropReason.ALREADY_CONNECTED.violation(peer=self._name_of(peer_id))


def _is_silent(link: Candidate, now: float) -> bool:
    return now - link.last_read >= SILENT_SECONDS
