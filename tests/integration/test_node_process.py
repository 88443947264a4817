"""A node as its operator runs it: the real commands, signals, and why it does not start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ErrorCode
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from tests.processes import (
    CLI,
    DEADLINE_SECONDS,
    ROOT,
    Listener,
    Result,
    Running,
    Talk,
    environment,
    free_port,
    is_open,
    run,
    scratch,
    script,
    scripted,
    taken_port,
)

NETWORK = "tests of the node's process"
TWIST = (script("twist"), "--log-format=text", "stellar-overlay")
TWISTD = (script("twistd"), "-n", "stellar-overlay")
QUIET = ("--network", NETWORK, "--allow-private", "--http", "off")
ANY_PORT = ("--listen", "tcp:0:interface=127.0.0.1")
STOP_SECONDS = 5.0
"""Within which a node is gone, by contract."""
SHUTDOWN = (ErrorCode.ERR_MISC, b"shutdown")


def new_peer(*, calls: bool = True, is_polite: bool = True) -> ScriptedPeer:
    """Return a scripted peer of the node's network."""
    return ScriptedPeer(LocalNode(NETWORK), we_called_remote=calls, is_polite=is_polite)


class NodeTests(SynchronousTestCase):
    """Nodes in processes."""

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.ready = self.folder / "ready.json"

    def start(self, *command: str | Path, env: dict[str, str] | None = None) -> Running:
        """Start a command in the test's folder."""
        return Running(self, command, cwd=self.folder, env=env)

    def write(self, name: str, text: str) -> Path:
        """Write a file that its owner alone can read."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def assert_ends(self, node: Running, number: signal.Signals) -> Result:
        """Send a signal; the process is gone in time, with that signal, as Twisted ends it."""
        before = time.monotonic()
        node.send(number)
        result = node.wait(STOP_SECONDS)
        self.assertLess(time.monotonic() - before, STOP_SECONDS)
        self.assertEqual(result.status, -number, result.said)
        self.assertFalse(result.has_traceback, result.said)
        return result


class RunningTests(NodeTests):
    def test_twist(self) -> None:
        """``twist``: a ready file as documented, a peer that a probe can talk to, a clean end."""
        seed_file = self.folder / "node.seed"
        node = self.start(
            *TWIST, *QUIET, *ANY_PORT, "--ready-file", self.ready, "--seed-file", seed_file
        )
        ready = node.wait_for_ready_file(self.ready)
        self.assertEqual(set(ready), {"node", "pid", "peer_port", "http_port"})
        self.assertEqual(ready["pid"], node.pid)
        self.assertIsNone(ready["http_port"])
        expected = LocalNode(NETWORK, seed_file.read_text().strip()).peer_id.strkey
        self.assertEqual(ready["node"], expected)

        address = f"127.0.0.1:{ready['peer_port']}"
        probe = run(self, *CLI, "probe", address, "--network", NETWORK, "--json")
        self.assertEqual((probe.status, probe.stderr), (0, ""))
        report = json.loads(probe.stdout)
        self.assertEqual(report["node_id"], expected)
        self.assertEqual(report["listening_port"], ready["peer_port"])

        talks = [Talk.dial(self, ready["peer_port"], new_peer()) for _ in range(2)]
        node.send(signal.SIGTERM)
        for talk in talks:
            talk.hear_until(lambda talk=talk: talk.peer.error is not None)  # type: ignore[misc]
        self.assertFalse(is_open(ready["peer_port"]))
        before = time.monotonic()
        for talk in talks:
            talk.close()
        result = node.wait(STOP_SECONDS)
        self.assertLess(time.monotonic() - before, 2.0)  # it does not wait for nobody
        self.assertEqual(result.status, -signal.SIGTERM)
        self.assertIn(expected, result.said)
        self.assertNotIn(seed_file.read_text().strip(), result.said)

    def test_twistd(self) -> None:
        """``twistd -n``: the same, by SIGINT; its pid file goes with it."""
        node = self.start(*TWISTD, *QUIET, *ANY_PORT, "--ready-file", self.ready)
        ready = node.wait_for_ready_file(self.ready)
        Talk.dial(self, ready["peer_port"], new_peer()).close()
        result = self.assert_ends(node, signal.SIGINT)
        self.assertIn("Server Shut Down", result.said)
        left = ["ready.json", "stellar-overlay.db", "stellar-overlay.db.bans"]
        self.assertEqual(sorted(os.listdir(self.folder)), left)

    def test_daemon(self) -> None:
        """``twistd`` without -n leaves a process behind, whose id is in the ready file."""
        launcher = self.start(
            script("twistd"), "stellar-overlay", *QUIET, *ANY_PORT, "--ready-file", self.ready
        )
        pid_file = self.folder / "twistd.pid"
        self.addCleanup(self.kill_daemon, pid_file)
        self.assertEqual(launcher.wait(), Result(0, "", ""))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.ready.exists() and time.monotonic() < deadline:
            time.sleep(0.05)  # the daemon is reading its database
        ready = json.loads(self.ready.read_text())
        self.assertEqual(ready["pid"], int(pid_file.read_text()))
        talk = Talk.dial(self, ready["peer_port"], new_peer())
        os.kill(ready["pid"], signal.SIGTERM)
        talk.hear_until(lambda: False)
        self.assertEqual(talk.peer.error, SHUTDOWN)

    def kill_daemon(self, pid_file: Path) -> None:
        """Make sure that the daemon of this test is gone."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)

    def test_overlay_tac(self) -> None:
        """``twistd -ny tac/overlay.tac`` takes its settings from STELLAR_OVERLAY_CONFIG."""
        port = free_port()
        config = self.write(
            "node.cfg",
            f'NETWORK_PASSPHRASE = "{NETWORK}"\nPEER_PORT = {port}\nHTTP_PORT = 0\n'
            "ALLOW_PRIVATE_ADDRESSES_FOR_TESTING = true\nPEER_PROT = 1\n",
        )
        node = self.start(
            *(script("twistd"), "-ny", ROOT / "tac" / "overlay.tac"),
            env=environment(STELLAR_OVERLAY_CONFIG=str(config)),
        )
        node.wait_until(lambda: is_open(port))
        talk = Talk.dial(self, port, new_peer())
        assert talk.peer.auth.remote is not None
        self.assertEqual(talk.peer.auth.remote.listening_port, port)
        talk.close()
        result = self.assert_ends(node, signal.SIGTERM)
        self.assertIn("did you mean PEER_PORT?", result.said)

    def test_without_listening(self) -> None:
        """With ``--listen off`` no port is open; it dials, and announces the configured port."""
        port = free_port()
        config = self.write("node.cfg", f"PEER_PORT = {port}\n")
        heard: list[ScriptedPeer] = []

        def answer() -> ScriptedPeer:
            heard.append(new_peer(calls=False))
            return heard[-1]

        peer = Listener(self, scripted(answer))
        node = self.start(
            *TWIST, *QUIET, "--config", config, "--listen", "off", "--peer", peer.address,
            *("--ready-file", self.ready),
        )  # fmt: skip
        self.assertIsNone(node.wait_for_ready_file(self.ready)["peer_port"])
        node.wait_until(lambda: bool(heard) and heard[0].authenticated.called)
        self.assertFalse(is_open(port))
        hello = heard[0].auth.remote
        assert hello is not None
        self.assertEqual(hello.listening_port, port)
        self.assert_ends(node, signal.SIGINT)
        self.assertEqual(heard[0].error, SHUTDOWN)


class ShutdownTests(NodeTests):
    def test_last_words(self) -> None:
        """Each peer is told ERR_MISC "shutdown", shaken hands or not, and none can hold us up."""
        node = self.start(*TWIST, *QUIET, *ANY_PORT, "--ready-file", self.ready)
        port = node.wait_for_ready_file(self.ready)["peer_port"]
        talks = [Talk.dial(self, port, new_peer()) for _ in range(5)]
        slow = Talk.dial(self, port, new_peer(is_polite=False))
        slow.peer.say_hello()
        slow.hear_until(lambda: bool(slow.peer.received))

        before = time.monotonic()
        node.send(signal.SIGTERM)
        for talk in (*talks, slow):
            talk.hear_until(lambda talk=talk: talk.peer.error is not None)  # type: ignore[misc]
            self.assertEqual(talk.peer.error, SHUTDOWN)
        # Nobody of them closes.
        result = node.wait(STOP_SECONDS)
        self.assertLess(time.monotonic() - before, STOP_SECONDS)
        self.assertEqual(result.status, -signal.SIGTERM)
        self.assertFalse(result.has_traceback, result.said)


class StartFailureTests(NodeTests):
    """A node that cannot start says why in one line, and is gone with a status that is not 0."""

    def assert_refused(self, result: Result, *words: str, status: int) -> None:
        """Assert that all that the user sees is one line with these words."""
        self.assertEqual(result.status, status, result.said)
        line, *rest = result.stderr.splitlines()
        self.assertEqual(rest, [])
        self.assertTrue(line.startswith("stellar-overlay: "), line)
        for word in words:
            self.assertIn(word, line)
        self.assertNotIn("stellar-overlay", result.stdout)

    def assert_logged(self, result: Result, *words: str, status: int) -> None:
        """Assert that one line of what ``twistd -n`` shows has these words, without a traceback."""
        self.assertEqual(result.status, status, result.said)
        lines = [line for line in result.said.splitlines() if "stellar-overlay: " in line]
        self.assertEqual(len(lines), 1, result.said)
        for word in words:
            self.assertIn(word, lines[0])
        self.assertFalse(result.has_traceback, result.said)

    def run_to_end(self, *command: str | Path, **env: str) -> Result:
        """Run a command that ends by itself."""
        return run(self, *command, cwd=self.folder, env=environment(**env))

    def test_wrong_options(self) -> None:
        """A wrong option is one line that names it and the way to help, whichever command it is."""
        for command, option, value in (
            (TWIST, "--listen", "bogus"),
            (TWISTD, "--seed-file", "."),
            (TWIST, "--bogus", "1"),
        ):
            given = (*QUIET, *ANY_PORT, "--ready-file", self.ready, option, value)
            result = self.run_to_end(*command, *given)
            help_of = f"{Path(command[0]).name} stellar-overlay --help"
            self.assert_refused(result, option, help_of, status=64)
            self.assertEqual(result.stdout, "")
        self.assertEqual(os.listdir(self.folder), [])

    def test_unreadable_config(self) -> None:
        """A configuration that is not there, or is none, is named."""
        self.write("node.cfg", "PEER_PORT = = 1\n")
        result = self.run_to_end(*TWISTD, *QUIET, "--config", "node.cfg")
        self.assert_refused(result, "--config", "node.cfg: is not TOML", status=64)
        result = self.run_to_end(*TWIST, *QUIET, "--config", "missing.cfg")
        self.assert_refused(result, "missing.cfg", "No such file", status=64)

    def test_unreadable_config_of_tac(self) -> None:
        """The same for the .tac file: no traceback of how it was loaded."""
        overlay = (script("twistd"), "-ny", ROOT / "tac" / "overlay.tac")
        result = self.run_to_end(*overlay, STELLAR_OVERLAY_CONFIG="missing.cfg")
        self.assert_logged(result, "missing.cfg", "No such file", status=64)
        self.write("node.cfg", "PEER_PORT = 0\n")
        result = self.run_to_end(*overlay, STELLAR_OVERLAY_CONFIG="node.cfg")
        self.assert_logged(result, "node.cfg", "PEER_PORT", "not 0", status=64)

    def test_bad_seed(self) -> None:
        """A seed that others may read, or that is none, is refused and not shown."""
        seed = self.write("node.seed", "hunter2\n")
        result = self.run_to_end(*TWIST, *QUIET, *ANY_PORT, "--seed-file", seed)
        self.assert_refused(result, "--seed-file", str(seed), "no S… seed", status=64)
        seed.chmod(0o644)
        result = self.run_to_end(*TWISTD, *QUIET, *ANY_PORT, "--seed-file", seed)
        self.assert_refused(result, "--seed-file", str(seed), "chmod 600", status=64)

    def test_port_in_use(self) -> None:
        """A port that is taken is named, with what to do."""
        words = ("cannot listen on 127.0.0.1 port", "already in use", "--listen tcp:PORT")
        with taken_port() as port:
            listen = f"tcp:{port}:interface=127.0.0.1"
            given = (*QUIET, "--listen", listen, "--ready-file", self.ready)
            result = self.run_to_end(*TWIST, *given)
            self.assert_refused(result, str(port), *words, status=1)
            result = self.run_to_end(*TWISTD, *given)
            self.assert_logged(result, str(port), *words, status=1)
        self.assertFalse(self.ready.exists())

    def test_port_in_use_of_daemon(self) -> None:
        """Who starts a daemon learns from its status that there is none, and why from its log."""
        with taken_port() as port:
            listen = f"tcp:{port}:interface=127.0.0.1"
            result = self.run_to_end(
                script("twistd"), "stellar-overlay", *QUIET, "--listen", listen
            )
        self.assertEqual(result.status, 1)
        self.assertIn("cannot listen", result.stderr)
        self.assertFalse(result.has_traceback, result.said)
        log = (self.folder / "twistd.log").read_text()
        self.assertIn(f"stellar-overlay: cannot listen on 127.0.0.1 port {port}", log)
        self.assertNotIn("Traceback", log)
        self.assertEqual(os.listdir(self.folder), ["twistd.log"])

    def test_default_port_in_use(self) -> None:
        """``tac/testnet.tac`` where another node has the port of Stellar: it says so, and ends."""
        with socket.socket() as holder:
            with contextlib.suppress(OSError):  # somebody may have it already
                holder.bind(("127.0.0.1", 11625))
                holder.listen()
            result = self.run_to_end(script("twistd"), "-ny", ROOT / "tac" / "testnet.tac")
        # The port of the admin HTTP comes first, and somebody may have that already, too.
        self.assert_logged(result, "port 1162", "already in use", status=1)

    def test_address_of_others(self) -> None:
        """An interface that this machine does not have is named."""
        given = (*QUIET, "--listen", "tcp:0:interface=203.0.113.1")
        result = self.run_to_end(*TWIST, *given)
        self.assert_refused(result, "cannot listen on 203.0.113.1", "ADDRESS", status=1)

    def test_unwritable_ready_file(self) -> None:
        """A ready file that cannot be written: a node that nobody can wait for does not stay."""
        if not Path("/proc/self").exists():
            self.skipTest("needs a folder that not even root can write to")
        port = free_port()
        given = (*QUIET, "--listen", f"tcp:{port}:interface=127.0.0.1")
        result = self.run_to_end(*TWIST, *given, "--ready-file", "/proc/ready")
        status = 1 if os.access("/proc", os.W_OK) else 64  # root learns it only when it tries
        self.assert_refused(result, "--ready-file", "/proc", status=status)
        self.assertFalse(is_open(port))


LATE = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.error import CannotListenError
from zope.interface import implementer
from stellar_overlay.config import OverlayConfig
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node_service import NodeService

@implementer(IStreamServerEndpoint)
class Late:
    def listen(self, factory):
        result = Deferred()
        error = CannotListenError("127.0.0.1", 4711, OSError(98, "Address already in use"))
        reactor.callLater(0.1, result.errback, error)
        return result

node = LocalNode("late")
config = OverlayConfig(network_passphrase="late")
service = NodeService(OverlayManager(config, node, listen=Late()), "ready.json")
"""
"""A node whose port turns out to be taken when the reactor runs already."""
AS_SCRIPT = """
service.startService()
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
"""
AS_TAC = """
from twisted.application.service import Application
application = Application("late")
service.setServiceParent(application)
"""


class LateFailureTests(NodeTests):
    def test_script(self) -> None:
        """A failure that comes when the reactor runs ends the process as early ones do."""
        self.write("late.py", LATE + AS_SCRIPT)
        result = run(self, CLI[0], "late.py", cwd=self.folder)
        self.assertEqual((result.status, result.stdout), (1, ""))
        (line,) = result.stderr.splitlines()
        self.assertIn("stellar-overlay: cannot listen on 127.0.0.1 port 4711", line)
        self.assertFalse(self.ready.exists())

    def test_twistd(self) -> None:
        """Under twistd, too: the line is in the log, the pid file is gone, the status is not 0."""
        tac = self.write("late.tac", LATE + AS_TAC)
        result = run(self, script("twistd"), "-noy", tac, cwd=self.folder)
        self.assertEqual(result.status, 1, result.said)
        self.assertIn("stellar-overlay: cannot listen on 127.0.0.1 port 4711", result.said)
        self.assertIn("Server Shut Down", result.said)
        self.assertFalse(result.has_traceback, result.said)
        self.assertEqual(os.listdir(self.folder), ["late.tac"])
