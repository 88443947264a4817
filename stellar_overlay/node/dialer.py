"""Where we go out: one attempt at a time per address, and the peers of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

from stellar_overlay.address import PeerAddress
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

Connect = Callable[[PeerAddress], IStreamClientEndpoint]
"""Returns the endpoint of an address, which need not be resolved."""

SECONDS_PER_BACKOFF = 10
MAX_BACKOFF_EXPONENT = 10


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
    """

    def __init__(
        self,
        connect: Connect,
        factory: ConnectionFactory,
        admission: Admission,
        metrics: OverlayMetrics,
    ) -> None:
        self._connect = connect
        self._factory = factory
        self._admission = admission
        self._metrics = metrics
        self._attempts: set[PeerAddress] = set()
        self._opening: set[Deferred[Connection]] = set()
        self._links: dict[PeerAddress, Connection] = {}

    async def dial(self, address: PeerAddress) -> Connection:
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
        self._attempts.add(address)
        try:
            link = self._links[address] = await self._attempt(address)
        finally:
            self._attempts.discard(address)
        return link

    def is_dialling(self, address: PeerAddress) -> bool:
        """Tell whether a link to ``address`` is being made."""
        return address in self._attempts

    def has_link(self, address: PeerAddress) -> bool:
        """Tell whether a link that was made by dialling ``address`` is up.

        The peer itself may be known by another name, or announce another port.
        """
        self._links = {to: link for to, link in self._links.items() if link.violation is None}
        return address in self._links

    def stopService(self) -> None:
        """Give up what has no transport yet; links are for their owner to end."""
        Service.stopService(self)
        for opening in list(self._opening):
            opening.cancel()

    async def _attempt(self, address: PeerAddress) -> Connection:
        link = await self._open(address)
        try:
            return await link.when_authenticated()
        except PeerViolation as violation:
            raise as_error(link, violation) from violation
        except CancelledError:
            link.drop(DropReason.DROPPED_BY_USER.violation())
            raise

    async def _open(self, address: PeerAddress) -> Connection:
        self._admission.begin_dial()
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
            self._admission.end_dial()


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


class Redialler:
    """Decides which of the configured peers to dial now: each attempt doubles its waiting time.

    :param random: returns a number in [0, 1).
    """

    def __init__(self, addresses: Iterable[PeerAddress], random: Callable[[], float]) -> None:
        self._due = dict.fromkeys(addresses, (0.0, 0))
        self._random = random

    def due(self, now: float) -> list[PeerAddress]:
        """Return the addresses whose time has come, in the order of the configuration."""
        return [address for address, (at, _) in self._due.items() if at <= now]

    def note_attempt(self, address: PeerAddress, now: float) -> None:
        """Put the next attempt off: 1 to 10 * 2^n seconds after the n-th (connection.md 9.2)."""
        failures = self._due[address][1] + 1
        exponent = min(failures, MAX_BACKOFF_EXPONENT)
        wait = 1 + int(self._random() * SECONDS_PER_BACKOFF * 2**exponent)
        self._due[address] = now + wait, failures

    def note_success(self, address: PeerAddress, now: float) -> None:
        """Forget past failures."""
        self._due[address] = now + 1 + int(self._random() * SECONDS_PER_BACKOFF), 0
