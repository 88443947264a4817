"""Connections in memory behave like TCP, as far as the overlay can tell."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.error import ConnectionRefusedError as RefusedError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.address import PeerAddress
from stellar_overlay.testing.memory import BUFFER_SIZE, MemoryNetwork, MemoryTransport

SERVER = PeerAddress("10.0.0.1", 11625)


class Ear(Protocol):
    """Keeps what it hears, and why that ended."""

    transport: MemoryTransport

    def __init__(self) -> None:
        self.heard = b""
        self.reads = 0
        self.end: type[object] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.reads += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.end is None, "lost twice"
        self.end = type(reason.value)


@implementer(IHalfCloseableProtocol)
class HalfEar(Ear):
    """Can still talk when the other side no longer does."""

    has_fin = False

    def readConnectionLost(self) -> None:
        self.has_fin = True

    def writeConnectionLost(self) -> None:
        """Nothing to do."""


@implementer(IPushProducer)
class Tap:
    """A producer that notes whether it may produce."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class EarFactory(Factory):
    """Makes the protocols it was given, and then refuses."""

    noisy = False

    def __init__(self, *ears: Ear) -> None:
        self._ears = list(ears)

    def buildProtocol(self, addr: IAddress | None) -> Ear | None:
        return self._ears.pop(0) if self._ears else None


class MemoryTestCase(SynchronousTestCase):
    """A caller and a server, connected."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)

    def connect(self, near: Ear | None = None, far: Ear | None = None) -> tuple[Ear, Ear]:
        near, far = near or Ear(), far or Ear()
        self.network.listen(SERVER.host, SERVER.port, EarFactory(far))
        self.network.connect("10.0.0.2", SERVER, EarFactory(near))
        return near, far

    def settle(self) -> None:
        self.clock.advance(0)

    def assert_clean(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DeliveryTests(MemoryTestCase):
    """Bytes go from one end to the other, in order, when time passes."""

    def test_both_ways(self) -> None:
        """Nothing arrives within the call that wrote it."""
        near, far = self.connect()
        near.transport.write(b"to ")
        near.transport.writeSequence([b"the ", b"server"])
        far.transport.write(b"to the client")
        self.assertEqual((near.heard, far.heard), (b"", b""))
        self.settle()
        self.assertEqual((near.heard, far.heard), (b"to the client", b"to the server"))

    def test_latency(self) -> None:
        """Bytes take as long as the network says."""
        self.network.latency = 0.5
        near, far = self.connect()
        near.transport.write(b"slow")
        self.clock.advance(0.4)
        self.assertEqual(far.heard, b"")
        self.clock.advance(0.1)
        self.assertEqual(far.heard, b"slow")

    def test_reads_are_of_limited_size(self) -> None:
        """Much data comes in pieces, as from a socket."""
        near, far = self.connect()
        near.transport.write(bytes(3 * BUFFER_SIZE + 1))
        self.settle()
        self.assertEqual((len(far.heard), far.reads), (3 * BUFFER_SIZE + 1, 4))

    def test_paused_reading(self) -> None:
        """What is not read waits at the sender, and comes when reading goes on."""
        near, far = self.connect()
        far.transport.pauseProducing()
        near.transport.write(b"wait")
        self.settle()
        self.assertEqual((far.heard, near.transport.buffered), (b"", 4))
        far.transport.resumeProducing()
        self.assertEqual(far.heard, b"")
        self.settle()
        self.assertEqual((far.heard, near.transport.buffered), (b"wait", 0))

    def test_a_cork(self) -> None:
        """Holds one direction only."""
        near, far = self.connect()
        near.transport.cork()
        near.transport.write(b"held")
        far.transport.write(b"free")
        self.settle()
        self.assertEqual((near.heard, far.heard), (b"free", b""))
        near.transport.uncork()
        self.settle()
        self.assertEqual(far.heard, b"held")

    def test_addresses(self) -> None:
        """Each end knows both, and no two connections share one."""
        near, far = self.connect()
        other, _ = self.connect()
        self.assertEqual(near.transport.getHost(), far.transport.getPeer())
        self.assertEqual(near.transport.getPeer(), far.transport.getHost())
        self.assertEqual(near.transport.getHost().host, "10.0.0.2")
        self.assertEqual(far.transport.getHost().port, 11625)
        self.assertNotEqual(near.transport.getHost(), other.transport.getHost())


class ProducerTests(MemoryTestCase):
    """A full buffer pauses its producer, an empty one resumes it: as Twisted's transports do."""

    def test_pausing_and_resuming(self) -> None:
        """Above 64 KiB once, and once more when all is written."""
        near, far = self.connect()
        tap = Tap()
        near.transport.registerProducer(tap, True)
        near.transport.write(bytes(BUFFER_SIZE))
        self.assertEqual(tap.calls, [])
        near.transport.write(b"1")
        near.transport.write(b"2")
        self.assertEqual(tap.calls, ["pause"])
        self.settle()
        self.assertEqual(tap.calls, ["pause", "resume"])
        self.assertEqual(len(far.heard), BUFFER_SIZE + 2)

    def test_an_unregistered_producer_hears_nothing(self) -> None:
        """Neither that it may go on, nor that it is over."""
        near, _ = self.connect()
        tap = Tap()
        near.transport.registerProducer(tap, True)
        near.transport.unregisterProducer()
        near.transport.write(bytes(BUFFER_SIZE + 1))
        near.transport.abortConnection()
        self.settle()
        self.assertEqual(tap.calls, [])

    def test_the_end_stops_the_producer(self) -> None:
        """Of a connection that ends, and of one that has ended."""
        near, far = self.connect()
        taps = [Tap(), Tap()]
        near.transport.registerProducer(taps[0], True)
        far.transport.abortConnection()
        self.settle()
        near.transport.registerProducer(taps[1], True)
        self.assertEqual([tap.calls for tap in taps], [["stop"], ["stop"]])


class EndTests(MemoryTestCase):
    """How connections end."""

    def test_closing_delivers_first(self) -> None:
        """What was written arrives, and then the end; nothing can be written any more."""
        near, far = self.connect()
        near.transport.write(b"last")
        near.transport.loseConnection()
        near.transport.write(b"too late")
        self.settle()
        self.assertEqual((far.heard, far.end, near.end), (b"last", ConnectionDone, ConnectionDone))
        self.assert_clean()

    def test_closing_waits_for_a_reader(self) -> None:
        """While the other end reads nothing, what was written before keeps the connection open."""
        near, far = self.connect()
        far.transport.pauseProducing()
        near.transport.write(b"last")
        near.transport.loseConnection()
        self.clock.advance(100)
        self.assertEqual((near.end, far.end), (None, None))
        far.transport.resumeProducing()
        self.settle()
        self.assertEqual((far.heard, far.end, near.end), (b"last", ConnectionDone, ConnectionDone))
        self.assert_clean()

    def test_who_does_not_read_does_not_notice_the_end(self) -> None:
        """A closed connection is found out when reading goes on."""
        near, far = self.connect()
        far.transport.pauseProducing()
        near.transport.loseConnection()
        self.settle()
        self.assertEqual((near.end, far.end), (ConnectionDone, None))
        far.transport.resumeProducing()
        self.settle()
        self.assertIs(far.end, ConnectionDone)
        self.assert_clean()

    def test_a_half_close_closes_a_simple_protocol(self) -> None:
        """One that cannot half-close closes its side as well."""
        near, far = self.connect()
        near.transport.write(b"last")
        near.transport.loseWriteConnection()
        self.settle()
        self.assertEqual((far.heard, far.end, near.end), (b"last", ConnectionDone, ConnectionDone))
        self.assert_clean()

    def test_a_half_close_leaves_the_other_direction_open(self) -> None:
        """A protocol that can half-close is told, and may go on writing."""
        far = HalfEar()
        near, _ = self.connect(far=far)
        near.transport.loseWriteConnection()
        self.settle()
        self.assertEqual((far.has_fin, far.end, near.end), (True, None, None))
        far.transport.write(b"still here")
        self.settle()
        self.assertEqual(near.heard, b"still here")
        far.transport.loseConnection()
        self.settle()
        self.assertEqual((far.end, near.end), (ConnectionDone, ConnectionDone))
        self.assert_clean()

    def test_an_abort_is_a_reset(self) -> None:
        """At once, whoever reads or writes what; but not within the call."""
        near, far = self.connect()
        far.transport.pauseProducing()
        near.transport.write(b"lost")
        near.transport.abortConnection()
        self.assertEqual((near.end, far.end), (None, None))
        self.settle()
        self.assertEqual((near.end, far.end), (ConnectionAborted, ConnectionLost))
        self.assertEqual(far.heard, b"")
        near.transport.abortConnection()
        self.settle()
        self.assert_clean()

    def test_writing_to_who_is_gone_is_a_reset(self) -> None:
        """Who has not noticed the end and writes on loses the connection."""
        near, far = self.connect()
        far.transport.pauseProducing()
        near.transport.loseConnection()
        self.settle()
        far.transport.write(b"anybody?")
        self.settle()
        self.assertIs(far.end, ConnectionLost)
        self.assert_clean()


class NetworkTests(MemoryTestCase):
    """Hosts, ports, and connecting."""

    def open(self, factory: Factory, to: PeerAddress = SERVER) -> list[object]:
        outcome: list[object] = []
        connecting = self.network.client("10.0.0.2")(to).connect(factory)
        connecting.addBoth(
            lambda result: outcome.append(result.value if isinstance(result, Failure) else result)
        )
        return outcome

    def test_endpoints(self) -> None:
        """A server endpoint listens until its port is closed; a client endpoint finds it."""
        far, near = Ear(), Ear()
        listening = self.network.server("10.0.0.1", 11625).listen(EarFactory(far, Ear()))
        port = self.successResultOf(listening)
        self.assertEqual(self.open(EarFactory(near)), [near])
        near.transport.write(b"hello")
        self.settle()
        self.assertEqual(far.heard, b"hello")
        port.stopListening()
        self.assertIsInstance(self.open(EarFactory(Ear()))[0], RefusedError)
        self.assertIsNone(far.end)

    def test_refusals(self) -> None:
        """Nobody there, another port, a listener that wants no more, a caller that wants none."""
        self.assertIsInstance(self.open(EarFactory(Ear()))[0], RefusedError)
        self.network.listen(SERVER.host, SERVER.port, EarFactory())
        other = PeerAddress(SERVER.host, 1)
        for factory, to in ((EarFactory(Ear()), SERVER), (EarFactory(Ear()), other)):
            self.assertIsInstance(self.open(factory, to)[0], RefusedError)
        self.network.listen(SERVER.host, SERVER.port, EarFactory(Ear()))
        self.assertIsInstance(self.open(EarFactory())[0], RefusedError)

    def test_black_holes(self) -> None:
        """Connecting takes as long as the caller is patient, or until it is cancelled."""
        self.network.black_holes.add(SERVER.host)
        outcome = self.open(EarFactory(Ear()))
        self.clock.advance(4.9)
        self.assertEqual(outcome, [])
        self.clock.advance(0.1)
        self.assertIsInstance(outcome[0], ConnectTimeoutError)
        connecting: Deferred[object] = self.network.client("10.0.0.2")(SERVER).connect(
            EarFactory(Ear())
        )  # type: ignore[assignment]
        connecting.addErrback(lambda _: None)
        connecting.cancel()
        self.assert_clean()

    def test_dials_are_remembered(self) -> None:
        """When, from where and to where, whatever came of it."""
        self.clock.advance(3)
        self.open(EarFactory(Ear()))
        self.assertEqual(list(self.network.dials), [(3, "10.0.0.2", SERVER)])

    def test_closing_a_port_twice(self) -> None:
        """Is closing it once."""
        self.network.close("10.0.0.1", 1)
        self.assert_clean()
