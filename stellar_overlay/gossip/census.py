"""Who is there: every link and every dial once, and the counts of them kept along the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from stellar_overlay.address import ResolvedPeerAddress, network_group
from stellar_overlay.error import PeerViolation
from stellar_overlay.identity import PeerId


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


class Stage(Enum):
    """How far a link has come."""

    DIALLING = "dialling"
    """No transport yet."""
    PENDING = "pending"
    """No key proven yet."""
    AUTHENTICATED = "authenticated"
    CLOSING = "closing"
    """Counts no more, but its transport is not closed yet."""


@dataclass(slots=True, eq=False)
class Entry:
    """What is remembered of one link or dial, as it was when it came.

    :ivar remote: where its transport leads.
    :ivar address: where the peer listens; known once it is authenticated.
    """

    is_outbound: bool
    remote: ResolvedPeerAddress | None
    stage: Stage
    peer_id: PeerId | None = None
    address: ResolvedPeerAddress | None = None


class Census:
    """Every link from its first moment to its last, in one stage at a time.

    Any call may come in any order and more than once: what makes no sense does nothing. Whatever
    a refused connection costs is counted here without looking at the others.

    :ivar pending: links whose handshake is under way.
    :ivar authenticated: links whose peer has proven its key.
    :ivar closing: links that have ended, and whose transport is not closed yet.
    """

    def __init__(self) -> None:
        self.pending: set[Candidate] = set()
        self.authenticated: dict[PeerId, Candidate] = {}
        self.closing: set[Candidate] = set()
        self._entries: dict[Candidate, Entry] = {}
        self._dials: dict[ResolvedPeerAddress, list[Entry]] = {}
        self._counts: Counter[tuple[Stage, bool]] = Counter()
        self._callers: Counter[str] = Counter()
        self._groups: dict[bytes, list[Entry]] = {}

    def count(self, stage: Stage, *, is_outbound: bool) -> int:
        """Return how many there are."""
        return self._counts[stage, is_outbound]

    def callers_from(self, host: str) -> int:
        """Return how many inbound links of an IP address are pending or closing."""
        return self._callers[host]

    def outbound_to(self, group: bytes) -> Collection[Entry]:
        """Return the dials and outbound links to a network group that have not ended."""
        return self._groups.get(group, ())

    def entry(self, link: Candidate) -> Entry | None:
        """Return what is remembered of a link; None when it is not there."""
        return self._entries.get(link)

    def peers(self) -> Iterator[tuple[PeerId, Entry]]:
        """Yield who is authenticated, and what is remembered of the link."""
        for peer_id, link in self.authenticated.items():
            yield peer_id, self._entries[link]

    def begin_dial(self, address: ResolvedPeerAddress) -> None:
        """Note a link that has no transport yet."""
        entry = Entry(True, address, Stage.DIALLING)
        self._dials.setdefault(address, []).append(entry)
        self._add(entry)

    def end_dial(self, address: ResolvedPeerAddress) -> None:
        """Note that it has one, or never will."""
        dials = self._dials.get(address)
        if dials:
            self._subtract(dials.pop())
            if not dials:
                del self._dials[address]

    def open(self, link: Candidate) -> None:
        """Note a link whose handshake begins."""
        if link not in self._entries:
            entry = Entry(link.we_called_remote, link.remote, Stage.PENDING)
            self._entries[link] = entry
            self.pending.add(link)
            self._add(entry)

    def authenticate(
        self, link: Candidate, peer_id: PeerId, address: ResolvedPeerAddress | None
    ) -> None:
        """Note that a pending link's peer is ``peer_id``, of which there is no other link."""
        entry = self._entries[link]
        assert entry.stage is Stage.PENDING
        assert peer_id not in self.authenticated
        self._leave(link, entry)
        entry.peer_id, entry.address = peer_id, address
        entry.stage = Stage.AUTHENTICATED
        self.authenticated[peer_id] = link
        self._add(entry)

    def close(self, link: Candidate) -> None:
        """Note that a link has ended."""
        entry = self._entries.get(link)
        if entry is not None and entry.stage is not Stage.CLOSING:
            self._leave(link, entry)
            entry.stage = Stage.CLOSING
            self.closing.add(link)
            self._add(entry)

    def forget(self, link: Candidate) -> None:
        """Note that a link's transport is closed."""
        entry = self._entries.pop(link, None)
        if entry is not None:
            self._leave(link, entry)

    def _leave(self, link: Candidate, entry: Entry) -> None:
        """Take a link out of the list that it is in."""
        self._subtract(entry)
        if entry.stage is Stage.AUTHENTICATED:
            assert entry.peer_id is not None
            del self.authenticated[entry.peer_id]
        else:
            (self.pending if entry.stage is Stage.PENDING else self.closing).discard(link)

    def _add(self, entry: Entry) -> None:
        self._counts[entry.stage, entry.is_outbound] += 1
        if entry.remote is None:
            return
        if not entry.is_outbound and entry.stage is not Stage.AUTHENTICATED:
            self._callers[entry.remote.host] += 1
        elif entry.is_outbound and entry.stage is not Stage.CLOSING:
            self._groups.setdefault(network_group(entry.remote.host), []).append(entry)

    def _subtract(self, entry: Entry) -> None:
        self._counts[entry.stage, entry.is_outbound] -= 1
        if entry.remote is None:
            return
        if not entry.is_outbound and entry.stage is not Stage.AUTHENTICATED:
            host = entry.remote.host
            self._callers[host] -= 1
            if not self._callers[host]:
                del self._callers[host]
        elif entry.is_outbound and entry.stage is not Stage.CLOSING:
            group = network_group(entry.remote.host)
            entries = self._groups[group]
            entries.remove(entry)
            if not entries:
                del self._groups[group]
