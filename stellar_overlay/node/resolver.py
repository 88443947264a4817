"""From a name to an IP address: in time, off the reactor's thread, and to no private network."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.config_rules import shown
from stellar_overlay.error import ConnectionFailed, ConnectionTimeout, InvalidPeerAddress
from stellar_overlay.gossip.reachable import is_nobodys

Resolve = Callable[[PeerAddress], Deferred[ResolvedPeerAddress]]
"""Looks an address up; fails with :exc:`~stellar_overlay.error.ConnectionFailed`."""

LOOKUP_TIMEOUT_SECONDS = 5
MAX_LOOKUPS = 4
"""Under way at once: each takes a thread of the reactor's ten for as long as libc likes."""
MAX_WAITING = 256
"""Lookups that wait for one of those to end; a round of configured names starts fewer."""
MAX_ANSWERS = 10
"""Of a lookup, that are looked at."""
LOST_AFTER_SECONDS = 300
"""A lookup that has not ended by then never will: Twisted's resolver loses those that fail with
anything but "no such name", such as "too many open files"."""

_LABEL = re.compile(r"[A-Za-z0-9-]{1,63}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_ENDINGS = tuple(
    f".{ending}"
    for ending in ("localhost", "local", "internal", "lan", "home.arpa", "test", "invalid")
)


def is_host_name(host: str) -> bool:
    """Tell whether ``host`` can be looked up: labels of 1 to 63 letters, digits and hyphens."""
    return all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))


def is_public_name(host: str) -> bool:
    """Tell whether the answer to ``host`` comes from strangers, and must be a public address.

    Not public are names without a dot, which only the local network or ``/etc/hosts`` knows, and
    those under the endings that are reserved for such use (RFC 6761, 6762, 8375; ``.internal``;
    ``.lan`` by habit). What ends in a number (``0x7f.1``, ``0x7f000001``) is an address in
    disguise and gets no such licence.
    """
    name = "." + host.removesuffix(".").lower()
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return True
    return name.count(".") > 1 and not name.endswith(_LOCAL_ENDINGS)


def as_resolved(address: PeerAddress) -> ResolvedPeerAddress:
    """Return a numeric address as the key under which it is stored and dialled.

    :raises InvalidPeerAddress: when it is a name.
    """
    return ResolvedPeerAddress(address.host, address.port)


def name_resolver(
    reactor: IReactorPluggableNameResolver,
    *,
    allow_private: bool,
    timeout_seconds: float = LOOKUP_TIMEOUT_SECONDS,
) -> Resolve:
    """Return what looks names up through ``reactor.nameResolver``: IPv4 only, as core.

    A numeric address is its own answer, at once and whatever it is: somebody wrote it down.

    :param allow_private: whether a public name may lead to a private address.
    :param timeout_seconds: from the call to the answer, waiting for a turn included.
    """
    return _NameResolver(reactor, allow_private, timeout_seconds).resolve


class _NameResolver:
    """Looks up a few names at once; the others wait, up to their deadlines.

    A turn ends when the lookup does, not when who asked has given up: a thread cannot be called
    back, and a dead name server would soon have them all.
    """

    def __init__(
        self, reactor: IReactorPluggableNameResolver, allow_private: bool, timeout_seconds: float
    ) -> None:
        self._reactor = reactor
        self._clock = IReactorTime(reactor)
        self._allow_private = allow_private
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[_Lookup, None] = {}
        self._under_way: dict[_Lookup, float] = {}
        self._is_beginning = False

    def resolve(self, address: PeerAddress) -> Deferred[ResolvedPeerAddress]:
        if address.is_numeric:
            return succeed(as_resolved(address))
        if not is_host_name(address.host):  # libc would raise what Twisted's resolver loses
            return fail(ConnectionFailed(f'"{address.host}": no such name, nor can there be'))
        self._forget_lost()
        if len(self._waiting) >= MAX_WAITING:
            return fail(ConnectionFailed(f'"{address.host}": too many names are being looked up'))
        is_private_fine = self._allow_private or not is_public_name(address.host)
        lookup = _Lookup(address, is_private_fine, self._end)
        self._waiting[lookup] = None

        def give_up(_: object, seconds: float) -> NoReturn:
            raise ConnectionTimeout(f'"{address.host}": not resolved within {seconds:g} s')

        lookup.answer.addTimeout(self._timeout_seconds, self._clock, give_up)
        self._begin_waiting()
        return lookup.answer

    def _begin_waiting(self) -> None:
        if self._is_beginning:  # called by a lookup that ended at once: the loop goes on anyway
            return
        self._is_beginning = True
        try:
            while self._waiting and len(self._under_way) < MAX_LOOKUPS:
                lookup = next(iter(self._waiting))
                del self._waiting[lookup]
                self._under_way[lookup] = self._clock.seconds()
                lookup.begin(self._reactor.nameResolver)
        finally:
            self._is_beginning = False

    def _end(self, lookup: _Lookup) -> None:
        self._waiting.pop(lookup, None)
        self._under_way.pop(lookup, None)
        self._begin_waiting()

    def _forget_lost(self) -> None:
        horizon = self._clock.seconds() - LOST_AFTER_SECONDS
        self._under_way = {
            lookup: since for lookup, since in self._under_way.items() if since > horizon
        }


@implementer(IResolutionReceiver)
class _Lookup:
    """One name, from the question to the end of the last answer.

    :ivar answer: for who asked; may fire, or be cancelled, before the lookup ends.
    :param on_end: called when the lookup needs no turn any more.
    """

    def __init__(
        self, address: PeerAddress, is_private_fine: bool, on_end: Callable[[_Lookup], None]
    ) -> None:
        self.answer: Deferred[ResolvedPeerAddress] = Deferred(lambda _: self._give_up())
        self._address = address
        self._is_private_fine = is_private_fine
        self._on_end = on_end
        self._has_begun = False
        self._answers = 0
        self._objection = "no such name, or no IPv4 address"

    def begin(self, resolver: IHostnameResolver) -> None:
        self._has_begun = True
        host, port = self._address.host, self._address.port
        try:
            resolver.resolveHostName(self, host, port, [IPv4Address])
        except Exception as error:  # whatever a resolver of the user's own may raise
            self._objection = f"cannot be looked up: {shown(str(error))}"
            self.resolutionComplete()

    # Called by the resolver, whose answers may come in any number and at any time.

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N802, N803
        """Do nothing: what is in progress could be cancelled, but no resolver knows how."""

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802
        self._answers += 1
        if self.answer.called or self._answers > MAX_ANSWERS:
            return
        if not isinstance(address, IPv4Address):
            return
        try:
            found = ResolvedPeerAddress(address.host, self._address.port)
        except InvalidPeerAddress:
            return
        if is_nobodys(found):
            self._objection = f"leads to {found.host}, where nobody can be"
        elif found.is_private and not self._is_private_fine:
            self._objection = (
                f"leads to the private address {found.host} only; --allow-private allows it"
            )
        else:
            self.answer.callback(found)

    def resolutionComplete(self) -> None:  # noqa: N802
        if not self.answer.called:
            self.answer.errback(ConnectionFailed(f'"{self._address.host}": {self._objection}'))
        self._on_end(self)

    def _give_up(self) -> None:
        if not self._has_begun:
            self._on_end(self)
