"""The admin HTTP as options and files ask for it, and as part of a node's service."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from stellar_overlay.admin.server import AdminHttp
from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node_service import NodeService, StartFailed
from stellar_overlay.tap import _http_endpoint, makeService
from stellar_overlay.testing.memory import MemoryNetwork
from tests.test_tap_options import OptionsTests
from tests.test_tap_seed import SEED

DEFAULT = "tcp:11626:interface=127.0.0.1"


class EndpointTests(OptionsTests):
    """Where the operator is answered."""

    def endpoint(self, *arguments: str, file: str = "") -> str | None:
        """Return where, with these options and this file."""
        path = self.write("node.cfg", file)
        return _http_endpoint(self.parse("--config", path, *arguments))

    def test_default(self) -> None:
        """At core's port of loopback."""
        self.assertEqual(self.endpoint(), DEFAULT)

    def test_file(self) -> None:
        """HTTP_PORT chooses the port, 0 none; PUBLIC_HTTP_PORT opens it to everybody."""
        self.assertEqual(self.endpoint(file="HTTP_PORT = 80"), "tcp:80:interface=127.0.0.1")
        self.assertIsNone(self.endpoint(file="HTTP_PORT = 0"))
        self.assertEqual(self.endpoint(file="PUBLIC_HTTP_PORT = true"), "tcp:11626")
        self.assertIsNone(self.endpoint(file="HTTP_PORT = 0\nPUBLIC_HTTP_PORT = true"))

    def test_option(self) -> None:
        """The option wins over both."""
        file = "HTTP_PORT = 80\nPUBLIC_HTTP_PORT = true"
        self.assertEqual(self.endpoint("--http", "tcp:0", file=file), "tcp:0")
        self.assertIsNone(self.endpoint("--http", "off", file=file))
        self.assertEqual(self.endpoint("--http", "tcp:1", file="HTTP_PORT = 0"), "tcp:1")

    def test_hosts(self) -> None:
        """Further names may be given; one that is none is refused by name of the option."""
        options = self.parse("--http-host", "Node.example.org", "--http-host", "192.0.2.1")
        self.assertEqual(options.http_hosts, ["Node.example.org", "192.0.2.1"])
        for text in ("", "a b", "http://a", "a:80", "\x1b"):
            self.assertIn("--http-host: ", self.refuse("--http-host", text))

    def test_parts(self) -> None:
        """A node's service has the HTTP as its second child, or not at all."""
        for arguments, count in ((("--http", "off"), 1), (("--http", "tcp:0"), 2), ((), 2)):
            parts = list(makeService(self.parse("--network", "private", *arguments)))
            self.assertEqual(len(parts), count)
            self.assertTrue(all(isinstance(part, AdminHttp) for part in parts[1:]))


class ServiceTests(OptionsTests):
    """A node's service with its HTTP, in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(sys, "excepthook", sys.excepthook)  # what a failure puts in its place
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)
        self.ready = self.folder / "ready"

    def service(self, endpoint: IStreamServerEndpoint) -> NodeService:
        """Return the service of a node that answers its operator there."""
        config = OverlayConfig(network_passphrase="private", listen_enabled=False)
        self.overlay = OverlayManager(config, LocalNode("private", SEED), reactor=self.clock)
        http = AdminHttp(self.overlay, endpoint, clock=self.clock)
        return NodeService(self.overlay, str(self.ready), http)

    def ports(self) -> Iterator[tuple[str, int]]:
        """Yield where somebody listens."""
        yield from self.network._ports

    def test_ready_file(self) -> None:
        """The port that is really open is in the ready file; it closes with the node."""
        service = self.service(self.network.server("127.0.0.1", 4714))
        service.startService()
        ready = json.loads(self.ready.read_text())
        self.assertEqual((ready["http_port"], ready["pid"]), (4714, os.getpid()))
        self.assertEqual(list(self.ports()), [("127.0.0.1", 4714)])
        self.successResultOf(service.stopService())
        self.assertEqual(list(self.ports()), [])
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_taken_port(self) -> None:
        """A port that is taken is one line that names the option; the node is not even begun."""
        for number, words in (
            (errno.EADDRINUSE, "choose another with --http tcp:PORT"),
            (errno.EACCES, "from 1024 with --http tcp:PORT"),
            (errno.EADDRNOTAVAIL, "with --http tcp:PORT:interface=ADDRESS"),
        ):
            problem = CannotListenError("127.0.0.1", 11626, OSError(number, os.strerror(number)))
            service = self.service(_Endpoint(fail(problem)))
            error = str(self.assertRaises(StartFailed, service.startService))
            self.assertTrue(
                error.startswith("stellar-overlay: cannot listen on 127.0.0.1 port 11626: "), error
            )
            self.assertTrue(error.endswith(words), error)
            self.assertFalse(self.overlay.running)
            self.assertFalse(self.ready.exists())

    def test_waits_for_the_port(self) -> None:
        """The node begins when the port is open."""
        listening: Deferred[IListeningPort] = Deferred()
        endpoint = _Endpoint(listening)
        service = self.service(endpoint)
        service.startService()
        self.assertFalse(self.overlay.running)
        server = self.network.server("127.0.0.1", 4715)
        listening.callback(self.successResultOf(server.listen(endpoint.factory)))
        self.assertTrue(self.overlay.running)
        self.assertEqual(json.loads(self.ready.read_text())["http_port"], 4715)
        self.successResultOf(service.stopService())

    def test_stopped_meanwhile(self) -> None:
        """A port that opens when all is over is closed again."""
        listening: Deferred[IListeningPort] = Deferred()
        endpoint = _Endpoint(listening)
        service = self.service(endpoint)
        service.startService()
        self.successResultOf(service.stopService())
        server = self.network.server("127.0.0.1", 4716)
        listening.callback(self.successResultOf(server.listen(endpoint.factory)))
        self.assertEqual(list(self.ports()), [])
        self.assertFalse(self.overlay.running)
        self.assertFalse(self.ready.exists())


@implementer(IStreamServerEndpoint)
class _Endpoint:
    """Listens as it is told."""

    def __init__(self, listening: Deferred[IListeningPort]) -> None:
        self._listening = listening
        self.factory: IProtocolFactory

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        self.factory = protocolFactory
        return self._listening
