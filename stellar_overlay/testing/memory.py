"""A network in memory: transports, endpoints and hosts, all on one clock.

Enough of TCP for the overlay not to notice: bounded buffers with push producers, paused reading,
half-close, refusal, and delivery after a latency. Nothing happens but when the clock advances.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import ConnectionFailed

BUFFER_SIZE = 64 * 1024
"""Bytes in a transport's buffer beyond which its producer is paused, as Twisted's."""
MAX_DIALS = 100_000
"""Dials that a network remembers."""


class Dial(NamedTuple):
    """An attempt to connect: when, from which IP address, and to where."""

    at: float
    from_ip: str
    to: PeerAddress


@implementer(ITransport, IPushProducer)
class MemoryTransport:
    """One end of a connection.

    As with TCP, the end of the stream waits behind the data and is noticed by who reads; a reset
    is noticed at once.

    :ivar is_corked: while true, what is written stays here, as when a peer's window is full.
    :ivar written: all bytes that were ever written, for tests.
    """

    def __init__(self, clock: IReactorTime, host: IPv4Address, peer: IPv4Address) -> None:
        self._clock = clock
        self._host = host
        self._peer = peer
        self.other: MemoryTransport
        self.protocol: IProtocol
        self.latency = 0.0
        self.is_corked = False
        self.written = bytearray()
        self.is_closed = False
        self._buffer = bytearray()
        self._producer: IPushProducer | None = None
        self._is_producer_paused = False
        self._is_reading = True
        self._is_closing = False
        self._is_half_closed = False
        self._has_sent_fin = False
        self._has_fin = False
        self._delivery: IDelayedCall | None = None

    # ITransport and IConsumer.

    @property
    def disconnecting(self) -> bool:
        """Whether it is being closed from this end: Twisted's line protocols ask."""
        return self._is_closing

    def write(self, data: bytes) -> None:
        if self.is_closed or self._is_closing or self._is_half_closed:
            return
        self.written += data
        self._buffer += data
        producer = self._producer
        if (
            producer is not None
            and len(self._buffer) > BUFFER_SIZE
            and not self._is_producer_paused
        ):
            self._is_producer_paused = True
            producer.pauseProducing()
        self.schedule()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self._is_closing = True
        self._is_reading = False
        self.schedule()

    def loseWriteConnection(self) -> None:
        self._is_half_closed = True
        self.schedule()

    def abortConnection(self) -> None:
        self._buffer.clear()
        self._is_reading = False
        self._clock.callLater(0, self._reset)

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHost(self) -> IPv4Address:
        return self._host

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self._producer = producer
        if self.is_closed:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        self._is_producer_paused = False
        self.schedule()

    # IPushProducer: the reading side.

    def pauseProducing(self) -> None:
        self._is_reading = False

    def resumeProducing(self) -> None:
        if not self.is_closed and not self._is_closing:
            self._is_reading = True
            self.other.schedule()
            if self._has_fin:
                self._clock.callLater(0, self._read_fin)

    def stopProducing(self) -> None:
        self.loseConnection()

    # Knobs.

    def cork(self) -> None:
        """Deliver nothing of what is written here, until :meth:`uncork`."""
        self.is_corked = True

    def uncork(self) -> None:
        """Deliver what has piled up."""
        self.is_corked = False
        self.schedule()

    @property
    def buffered(self) -> int:
        """Bytes that were written and not delivered."""
        return len(self._buffer)

    def schedule(self) -> None:
        """Deliver after the latency, if there is anything to deliver."""
        if self._delivery is None and not self.is_closed:
            self._delivery = self._clock.callLater(self.latency, self._deliver)

    def _deliver(self) -> None:
        self._delivery = None
        if self.is_closed or self.is_corked or not self._hand_over():
            return
        if self._buffer:
            self.schedule()
        elif self._producer is not None and self._is_producer_paused:
            self._is_producer_paused = False
            self._producer.resumeProducing()
        elif self._is_closing:
            self._finish(ConnectionDone())
        elif self._is_half_closed:
            self._send_fin()

    def _hand_over(self) -> bool:
        """Let the other end read, if it does; tell whether this end can go on."""
        other = self.other
        if self._buffer and other.is_closed:
            self._finish(ConnectionLost())
        elif self._buffer:
            if not (other._is_reading or other._is_closing):
                return False
            data = bytes(self._buffer[:BUFFER_SIZE])
            del self._buffer[:BUFFER_SIZE]
            if other._is_reading:
                other.protocol.dataReceived(data)
        return not self.is_closed

    def _send_fin(self) -> None:
        if not self._has_sent_fin:
            self._has_sent_fin = True
            self.other._has_fin = True
            self.other._read_fin()

    def _read_fin(self) -> None:
        if self.is_closed or not (self._has_fin and self._is_reading):
            return
        self._has_fin = False
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self._finish(ConnectionDone())
        else:
            half_closeable.readConnectionLost()

    def _reset(self) -> None:
        self._has_sent_fin = True
        self._finish(ConnectionAborted())
        self.other._has_sent_fin = True
        self.other._finish(ConnectionLost())

    def _finish(self, reason: Exception) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        if self._delivery is not None and self._delivery.active():
            self._delivery.cancel()
        self._delivery = None
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))
        self._send_fin()


class MemoryNetwork:
    """Hosts and ports in memory.

    :param clock: delivers everything.
    :param latency: seconds from a write to its delivery.
    """

    def __init__(self, clock: IReactorTime, latency: float = 0.0) -> None:
        self.clock = clock
        self.latency = latency
        self.black_holes: set[str] = set()
        """IP addresses to which connecting takes for ever."""
        self.names: dict[str, list[str]] = {}
        """What names resolve to; a name that is missing does not exist."""
        self.unplugged: set[str] = set()
        """IP addresses that nothing reaches."""
        self.transports: list[tuple[MemoryTransport, MemoryTransport]] = []
        """Every connection that was made: who dialled, and who answered."""
        self.dials: deque[Dial] = deque(maxlen=MAX_DIALS)
        """What was tried through :meth:`client`, whatever came of it."""
        self._ports: dict[tuple[str, int], IProtocolFactory] = {}
        self._ephemeral = count(40_000)

    def server(self, ip: str, port: int) -> IStreamServerEndpoint:
        """Return an endpoint that listens at ``ip:port``."""
        return _ServerEndpoint(self, ip, port)

    def client(
        self, from_ip: str, timeout: float = 5
    ) -> Callable[[PeerAddress], IStreamClientEndpoint]:
        """Return what makes endpoints for connections from ``from_ip``."""
        return lambda address: _ClientEndpoint(self, from_ip, address, timeout)

    def resolver(
        self, *, allow_private: bool = True
    ) -> Callable[[PeerAddress], Deferred[ResolvedPeerAddress]]:
        """Return what resolves names as a node's resolver does, from :attr:`names`."""

        def resolve(address: PeerAddress) -> Deferred[ResolvedPeerAddress]:
            found = [address.host] if address.is_numeric else self.names.get(address.host, [])
            for ip in found:
                resolved = ResolvedPeerAddress(ip, address.port)
                if allow_private or address.is_numeric or not resolved.is_private:
                    return succeed(resolved)
            return fail(ConnectionFailed(f"{address.host!r}: no such name"))

        return resolve

    def unplug(self, ip: str) -> None:
        """Cut a host off: its connections are reset, and no new ones come about."""
        self.unplugged.add(ip)
        for near, far in self.transports:
            if not near.is_closed and ip in (near.getHost().host, far.getHost().host):
                near.abortConnection()

    def plug(self, ip: str) -> None:
        """Let a host be reached again."""
        self.unplugged.discard(ip)

    def connect(self, from_ip: str, address: PeerAddress, factory: IProtocolFactory) -> IProtocol:
        """Connect at once.

        :raises twisted.internet.error.ConnectionRefusedError: when nobody listens, or who does
            wants no more.
        """
        if self.unplugged & {from_ip, address.host}:
            raise RefusedError()
        listener = self._ports.get((address.host, address.port))
        ours = IPv4Address("TCP", from_ip, next(self._ephemeral))
        theirs = IPv4Address("TCP", address.host, address.port)
        server = None if listener is None else listener.buildProtocol(ours)
        if server is None:
            raise RefusedError()
        client = factory.buildProtocol(theirs)
        if client is None:
            raise RefusedError()
        near, far = (
            MemoryTransport(self.clock, ours, theirs),
            MemoryTransport(self.clock, theirs, ours),
        )
        near.other, near.protocol, near.latency = far, client, self.latency
        far.other, far.protocol, far.latency = near, server, self.latency
        if len(self.transports) % 1024 == 1023:  # a long simulation keeps no dead ones
            self.transports = [pair for pair in self.transports if not pair[0].is_closed]
        self.transports.append((near, far))
        server.makeConnection(far)
        client.makeConnection(near)
        return client

    def listen(self, ip: str, port: int, factory: IProtocolFactory) -> None:
        self._ports[ip, port] = factory

    def close(self, ip: str, port: int) -> None:
        self._ports.pop((ip, port), None)


@implementer(IStreamClientEndpoint)
class _ClientEndpoint:
    def __init__(
        self, network: MemoryNetwork, from_ip: str, address: PeerAddress, timeout: float
    ) -> None:
        self._network = network
        self._from_ip = from_ip
        self._address = address
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        network = self._network
        network.dials.append(Dial(network.clock.seconds(), self._from_ip, self._address))
        if self._address.host in network.black_holes:
            never: Deferred[IProtocol] = Deferred(lambda _: timer.cancel())
            timer = network.clock.callLater(self._timeout, never.errback, ConnectTimeoutError())
            return never
        try:
            return succeed(network.connect(self._from_ip, self._address, protocolFactory))
        except RefusedError as error:
            return fail(error)


@implementer(IStreamServerEndpoint)
class _ServerEndpoint:
    def __init__(self, network: MemoryNetwork, ip: str, port: int) -> None:
        self._network = network
        self._ip = ip
        self._port = port

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        self._network.listen(self._ip, self._port, protocolFactory)
        return succeed(_Port(self._network, self._ip, self._port))


@implementer(IListeningPort)
class _Port:
    def __init__(self, network: MemoryNetwork, ip: str, port: int) -> None:
        self._network = network
        self._ip = ip
        self._port = port

    def startListening(self) -> None:
        """Do nothing: it listens."""

    def stopListening(self) -> None:
        self._network.close(self._ip, self._port)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", self._ip, self._port)
