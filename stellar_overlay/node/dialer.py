"""Where we go out: one attempt at a time per address."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import (
    AlreadyConnected,
    ConnectionFailed,
    ConnectionTimeout,
    DropReason,
    PeerLimitReached,
    PeerViolation,
    ShuttingDown,
)
from stellar_overlay.gossip.admission import Admission
from stellar_overlay.metrics import OverlayMetrics
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.listener import ConnectionFactory
from stellar_overlay.node.refusal import as_error
from stellar_overlay.store.peer_manager import BackOffUpdate, PeerManager, PeerRecord

Connect = Callable[[PeerAddress], IStreamClientEndpoint]
"""Returns the endpoint of an address, which need not be resolved."""

MAX_OWN_ADDRESSES = 64
_OUR_TROUBLES = frozenset(
    {
        errno.ENETUNREACH, errno.ENETDOWN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS,
        errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM,
    }
)  # fmt: skip
"""What keeps us from dialling anybody, and says nothing of who was dialled."""


def tcp_endpoints(reactor: Any, timeout_seconds: float) -> Connect:
    """Return what makes TCP endpoints that give up after so long.

    :param reactor: that opens the connections, and whose clock counts.
    """
    timeout = max(1, round(timeout_seconds))

    def connect(address: PeerAddress) -> IStreamClientEndpoint:
        if not address.is_numeric:
            named = HostnameEndpoint(reactor, address.host, address.port, timeout)
            return _ImpatientEndpoint(named, reactor, timeout)
        kind = TCP6ClientEndpoint if ":" in address.host else TCP4ClientEndpoint
        return kind(reactor, address.host, address.port, timeout)

    return connect


@implementer(IStreamClientEndpoint)
class _ImpatientEndpoint:
    """Gives up after so many seconds, whatever they were spent on.

    Twisted's time-out counts for each address of a host, and not at all for finding them.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: IReactorTime, timeout_seconds: float
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def give_up(_: object, __: float) -> NoReturn:
            raise ConnectTimeoutError()

        connecting = self._endpoint.connect(protocolFactory)
        return connecting.addTimeout(self._timeout_seconds, self._clock, give_up)


class Dialer(Service):
    """Opens links.

    :param connect: returns an address's endpoint.
    :param factory: makes the link.
    :param book: keeps count of failures: each attempt is one until it succeeds.
    :param is_connected: tells whether a peer that listens at an address is connected.
    :param own_addresses: filled with where we met ourselves; nobody need dial there again.
    """

    def __init__(
        self,
        connect: Connect,
        factory: ConnectionFactory,
        admission: Admission,
        book: PeerManager,
        is_connected: Callable[[ResolvedPeerAddress], bool],
        own_addresses: set[ResolvedPeerAddress],
        metrics: OverlayMetrics,
    ) -> None:
        self.own_addresses = own_addresses
        self._connect = connect
        self._factory = factory
        self._admission = admission
        self._book = book
        self._is_connected = is_connected
        self._metrics = metrics
        self._attempts: set[ResolvedPeerAddress] = set()
        self._opening: set[Deferred[Connection]] = set()
        self._links: dict[ResolvedPeerAddress, Connection] = {}

    async def dial(self, address: ResolvedPeerAddress) -> Connection:
        """Return an authenticated link.

        :raises OverlayError: that says why there is none.
        """
        if address in self._attempts:
            raise AlreadyConnected(f"{address} is being dialled already")
        if self.has_link(address):
            raise AlreadyConnected(f"{address} was dialled, and the link is up")
        if not self._admission.may_dial():
            raise PeerLimitReached("all outbound connections taken")
        self._metrics.outbound_attempt.inc()
        before = self._book.load(address)
        self._book.update_backoff(address, BackOffUpdate.INCREASE)
        self._attempts.add(address)
        try:
            link = await self._attempt(address)
        except Exception as error:
            self._note_failure(address, before, error)
            raise
        finally:
            self._attempts.discard(address)
        self._forget_dead_links()
        self._links[address] = link
        return link

    def is_dialling(self, address: ResolvedPeerAddress) -> bool:
        """Tell whether a link to ``address`` is being made."""
        return address in self._attempts

    def has_link(self, address: ResolvedPeerAddress) -> bool:
        """Tell whether a link that was made by dialling ``address`` is up.

        The peer itself may announce another port.
        """
        link = self._links.get(address)
        return link is not None and link.violation is None

    @property
    def link_addresses(self) -> list[ResolvedPeerAddress]:
        """Where the links lead that are up, oldest first."""
        self._forget_dead_links()
        return list(self._links)

    def stopService(self) -> None:
        """Give up what has no transport yet; links are for their owner to end."""
        Service.stopService(self)
        for opening in list(self._opening):
            opening.cancel()

    async def _attempt(self, address: ResolvedPeerAddress) -> Connection:
        link = await self._open(address)
        try:
            return await link.when_authenticated()
        except PeerViolation as violation:
            if violation.kind is DropReason.SELF and len(self.own_addresses) < MAX_OWN_ADDRESSES:
                self.own_addresses.add(address)
            raise as_error(link, violation) from violation
        except CancelledError:
            link.drop(DropReason.DROPPED_BY_USER.violation())
            raise

    async def _open(self, address: ResolvedPeerAddress) -> Connection:
        self._admission.begin_dial(address)
        opening = Deferred.fromCoroutine(open_link(self._connect, address, self._factory))
        self._opening.add(opening)
        try:
            return await opening
        except Exception:
            if not self.running:
                raise ShuttingDown(f"gave up connecting to {address}") from None
            raise
        finally:
            self._opening.discard(opening)
            self._admission.end_dial(address)

    def _forget_dead_links(self) -> None:
        self._links = {to: link for to, link in self._links.items() if link.violation is None}

    def _note_failure(
        self, address: ResolvedPeerAddress, before: PeerRecord, error: Exception
    ) -> None:
        """Charge the address for the failure, unless it was ours or none.

        Two nodes that dial each other at once both end up with a link (DECISIONS.md 6).
        """
        if isinstance(error, AlreadyConnected) and self._is_connected(address):
            self._book.update_backoff(address, BackOffUpdate.RESET)
        elif _is_ours(error):
            self._book.restore_backoff(before)
        else:
            self._book.forget_dead_peers(address.host)


def _is_ours(error: Exception) -> bool:
    """Tell whether a dial failed for no fault of whoever was dialled."""
    if isinstance(error, CancelledError | ShuttingDown):
        return True
    cause = error.__cause__
    number = getattr(cause, "osError", None) or getattr(cause, "errno", None)
    return isinstance(error, ConnectionFailed) and number in _OUR_TROUBLES


async def open_link(
    connect: Connect, address: PeerAddress, factory: ConnectionFactory
) -> Connection:
    """Return a link whose transport is there, and whose handshake has begun.

    :raises ConnectionFailed: when nobody answers, or not in time.
    :raises CancelledError: when whoever waits for it gave up.
    """
    try:
        link = await connect(address).connect(factory)
    except ConnectTimeoutError:
        raise ConnectionTimeout(f"unable to connect to {address}: no answer in time") from None
    except (CancelledError, ConnectingCancelledError):
        raise CancelledError() from None
    except Exception as error:  # whatever an endpoint of the user's own may raise
        raise ConnectionFailed(f"unable to connect to {address}: {error}") from error
    assert isinstance(link, Connection)
    return link
