"""A node as a service: what is made of its options, its ready file, and why it does not start."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from pathlib import Path

from twisted.application.service import IServiceCollection, loadApplication
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node_service import NodeService, StartFailed
from stellar_overlay.option_values import write_atomically
from stellar_overlay.tap import makeService
from stellar_overlay.testing.memory import MemoryNetwork
from tests.processes import ROOT
from tests.test_tap_options import OptionsTests
from tests.test_tap_seed import NODE_ID, SEED


class ServiceTests(OptionsTests):
    """What is made of options; nothing is started."""

    def logged(self, *arguments: str) -> list[str]:
        """Return what making a service logs."""
        options = self.parse(*arguments)
        with capturedLogs() as events:
            makeService(options)
        return [f"{event['log_level'].name}: {formatEvent(event)}" for event in events]

    def test_warnings(self) -> None:
        """Each warning about a file is logged as one."""
        path = self.write("node.cfg", f'PEER_PROT = 1\nWORKER_THREADS = 1\nNODE_SEED = "{SEED}"\n')
        warnings = self.logged("--config", path)
        self.assertEqual(len(warnings), 2)
        self.assertEqual(
            warnings[0],
            f"warn: {path}: unknown key PEER_PROT is ignored; did you mean PEER_PORT?",
        )
        self.assertIn("(1): WORKER_THREADS", warnings[1])

    def test_validator_key(self) -> None:
        """Whoever brings the key of a validator is told why not, and of --seed-file."""
        path = self.write("node.cfg", f'NODE_SEED = "{SEED}"\nNODE_IS_VALIDATOR = true\n')
        (warning,) = self.logged("--config", path)
        self.assertIn("refuse each other", warning)
        self.assertIn("--seed-file", warning)
        self.assertNotIn(SEED, warning)

    def test_ephemeral_identity(self) -> None:
        """That the identity will not outlive the run is said, and only then."""
        (line,) = self.logged("--network", "private")
        self.assertIn("for this run only", line)
        self.assertIn("--seed-file", line)
        self.assertEqual(self.logged("--network", "private", "--seed-file", "node.seed"), [])

    def test_braces(self) -> None:
        """A warning is logged as it is, whatever the key is called."""
        path = self.write("node.cfg", f'"{{log_source}}" = 1\nNODE_SEED = "{SEED}"\n')
        (line,) = self.logged("--config", path)
        self.assertIn("unknown key {log_source} is ignored", line)


class TacTests(OptionsTests):
    """The .tac files; nothing is started."""

    def node_of(self, name: str) -> OverlayManager:
        """Return the node of an application file."""
        application = loadApplication(str(ROOT / "tac" / name), "python")
        (service,) = IServiceCollection(application)
        self.assertIsInstance(service, NodeService)
        overlay, _ = service
        assert isinstance(overlay, OverlayManager)
        return overlay

    def test_testnet(self) -> None:
        """``testnet.tac`` is a node of the test network as it is, whatever the environment says."""
        self.patch(os, "environ", {**os.environ, "STELLAR_OVERLAY_CONFIG": "missing.cfg"})
        overlay = self.node_of("testnet.tac")
        self.assertEqual(overlay.local_node.network_passphrase, TESTNET_PASSPHRASE)
        self.assertEqual(overlay.config.listen_port, 11625)
        self.assertTrue(overlay.config.listen_enabled)
        self.assertEqual(len(overlay.config.known_peers), 3)

    def test_overlay(self) -> None:
        """``overlay.tac`` has the settings of STELLAR_OVERLAY_CONFIG, else the defaults."""
        path = self.write("node.cfg", f'NETWORK_PASSPHRASE = "private"\nNODE_SEED = "{SEED}"\n')
        for value, network, node_id in (
            (path, "private", NODE_ID),
            ("", TESTNET_PASSPHRASE, None),
        ):
            self.patch(os, "environ", {**os.environ, "STELLAR_OVERLAY_CONFIG": value})
            node = self.node_of("overlay.tac").local_node
            self.assertEqual(node.network_passphrase, network)
            self.assertIn(node_id, (None, node.peer_id.strkey))


class NodeServiceTests(SynchronousTestCase):
    """A node's service, in memory."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ready = self.folder / "ready"
        self.patch(sys, "excepthook", sys.excepthook)  # what a failure puts in its place
        self.network = MemoryNetwork(Clock())

    def service(self, endpoint: IStreamServerEndpoint | None) -> NodeService:
        """Return the service of a node that listens there."""
        config = OverlayConfig(network_passphrase="private", listen_enabled=False)
        node = LocalNode("private", SEED)
        clock = self.network.clock
        manager = OverlayManager(config, node, reactor=clock, listen=endpoint)
        return NodeService(manager, str(self.ready))

    def test_ready_file(self) -> None:
        """The ready file is one JSON object with exactly the four keys, readable for all."""
        service = self.service(self.network.server("127.0.0.1", 4711))
        self.assertFalse(self.ready.exists())
        service.startService()
        self.assertEqual(
            json.loads(self.ready.read_text()),
            {"node": NODE_ID, "pid": os.getpid(), "peer_port": 4711, "http_port": None},
        )
        self.assertTrue(self.ready.read_text().endswith("}\n"))
        self.assertEqual(self.ready.stat().st_mode & 0o777, 0o644)
        self.assertEqual(os.listdir(self.folder), ["ready"])
        self.successResultOf(service.stopService())

    def test_not_listening(self) -> None:
        """A node that does not listen has no port in its ready file."""
        service = self.service(None)
        service.startService()
        self.assertEqual(json.loads(self.ready.read_text())["peer_port"], None)
        self.successResultOf(service.stopService())

    def test_waits_for_the_port(self) -> None:
        """There is no ready file before the port is open."""
        endpoint = _LateEndpoint()
        service = self.service(endpoint)
        service.startService()
        self.assertFalse(self.ready.exists())
        server = self.network.server("127.0.0.1", 4712)
        endpoint.listening.callback(self.successResultOf(server.listen(endpoint.factory)))
        self.assertEqual(json.loads(self.ready.read_text())["peer_port"], 4712)
        self.successResultOf(service.stopService())

    def test_replaced_as_a_whole(self) -> None:
        """An older ready file is replaced: who has it open reads the old one to its end."""
        self.ready.write_text("old")
        with self.ready.open() as old:
            write_atomically(str(self.ready), "new")
            self.assertEqual(old.read(), "old")
        self.assertEqual(self.ready.read_text(), "new")

    def test_half_written(self) -> None:
        """What cannot be put in its place leaves nothing behind."""
        self.ready.mkdir()
        self.assertRaises(OSError, write_atomically, str(self.ready), "text")
        self.assertEqual(os.listdir(self.folder), ["ready"])
        self.assertEqual(os.listdir(self.ready), [])

    def test_unwritable(self) -> None:
        """A ready file that cannot be written ends the process with a line that names it."""
        self.ready.mkdir()
        service = self.service(self.network.server("127.0.0.1", 4711))
        error = self.assertRaises(StartFailed, service.startService)
        self.assertEqual(
            str(error), f"stellar-overlay: --ready-file: cannot write {self.ready}: Is a directory"
        )

    def test_why_not(self) -> None:
        """Each way in which a port cannot be opened is one line, with what to do."""
        for reason, lines in (
            (
                CannotListenError("", 11625, OSError(errno.EADDRINUSE, "Address already in use")),
                ("cannot listen on port 11625: Address already in use; stop who has it, or",
                 "choose another with --listen tcp:PORT"),
            ),
            (
                CannotListenError("127.0.0.1", 80, OSError(errno.EACCES, "Permission denied")),
                ("cannot listen on 127.0.0.1 port 80: Permission denied; choose a port from 1024",
                 "with --listen tcp:PORT"),
            ),
            (
                CannotListenError("203.0.113.1", 0, OSError(errno.EADDRNOTAVAIL, "Not here")),
                ("cannot listen on 203.0.113.1 port 0: Not here; choose an address of this",
                 "machine with --listen tcp:PORT:interface=ADDRESS"),
            ),
            (
                RuntimeError("no sockets today"),
                ("cannot start: RuntimeError: no sockets today",),
            ),
        ):  # fmt: skip
            line = " ".join(lines)
            with self.subTest(line=line):
                service = self.service(_FailingEndpoint(reason))
                error = self.assertRaises(StartFailed, service.startService)
                self.assertEqual(str(error), f"stellar-overlay: {line}")
                self.assertFalse(self.ready.exists())


@implementer(IStreamServerEndpoint)
class _FailingEndpoint:
    """Opens no port."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return fail(self._error)


@implementer(IStreamServerEndpoint)
class _LateEndpoint:
    """Opens its port when told to."""

    def __init__(self) -> None:
        self.listening: Deferred[IListeningPort] = Deferred()
        self.factory: IProtocolFactory

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        self.factory = protocolFactory
        return self.listening
