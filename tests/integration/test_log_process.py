"""The log as its readers have it: levels from the environment and from ``/ll``, and no secrets."""

from __future__ import annotations

import json
import re
import signal
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import LocalNode
from stellar_overlay.log_levels import VARIABLE
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
    run,
    scratch,
    script,
    scripted,
)

NETWORK = "tests of the log"
TWIST = (script("twist"), "--log-format=text")
TWISTD = (script("twistd"), "-n")
OPTIONS = (
    *("stellar-overlay", "--network", NETWORK, "--allow-private"),
    *("--listen", "tcp:0:interface=127.0.0.1", "--http", "tcp:0:interface=127.0.0.1"),
)
NODE = "stellar_overlay.node=debug"
DETAIL = "[stellar_overlay.node.links.Links#debug]"
NEWS = "[stellar_overlay.node.links.Links#info]"
OWN_NEWS = "[stellar_overlay.node_service.NodeService#info]"


class LogTests(SynchronousTestCase):
    """Processes with levels."""

    def setUp(self) -> None:
        self.folder = scratch(self)
        self.ready = self.folder / "ready.json"

    def start(
        self, command: tuple[str | Path, ...], levels: str | None, *more: str | Path
    ) -> tuple[Running, dict[str, Any]]:
        """Return a node that is ready, and what its ready file says."""
        self.ready.unlink(missing_ok=True)
        node = Running(
            self,
            (*command, *OPTIONS, "--ready-file", self.ready, *more),
            cwd=self.folder,
            env=environment(**{VARIABLE: levels}),
        )
        return node, node.wait_for_ready_file(self.ready)

    def talk(self, port: int) -> None:
        """Shake hands, so that there is news; and fail to, so that there are details."""
        Talk.dial(self, port, ScriptedPeer(LocalNode(NETWORK), we_called_remote=True)).close()
        stranger = ScriptedPeer(LocalNode("another"), we_called_remote=True, is_polite=False)
        talk = Talk.dial(self, port, stranger)
        talk.peer.say_hello()
        talk.hear_until(lambda: False)

    def end(self, node: Running) -> str:
        """Return all that a node has said when it has ended."""
        node.send(signal.SIGTERM)
        result = node.wait()
        self.assertFalse(result.has_traceback, result.said)
        return result.said

    def log_of(self, command: tuple[str | Path, ...], levels: str | None) -> str:
        """Return the log of a node that had a good peer and a bad one."""
        node, ready = self.start(command, levels)
        self.talk(ready["peer_port"])
        return self.end(node)

    def get(self, port: int, uri: str) -> Any:
        """Return the JSON of a reply."""
        connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        self.addCleanup(connection.close)
        connection.request("GET", uri)
        return json.loads(connection.getresponse().read())

    def assert_once(self, log: str) -> None:
        """No line is there twice, by its source and text."""
        lines = [line.partition(" ")[2] for line in log.splitlines()]
        self.assertEqual(len(lines), len(set(lines)), log)


class RunnerTests(LogTests):
    """The node, by whatever runs it."""

    def test_without(self) -> None:
        """Without levels there is news and no details, under ``twistd`` as well."""
        for command in (TWIST, TWISTD):
            log = self.log_of(command, None)
            self.assertIn(NEWS, log)
            self.assertIn(OWN_NEWS, log)
            self.assertNotIn("#debug]", log)
            self.assert_once(log)

    def test_details(self) -> None:
        """Details of a partition, once, and of nobody else."""
        for command in (TWIST, TWISTD):
            log = self.log_of(command, f"error,{NODE}")
            self.assertIn(DETAIL, log)
            self.assertIn(NEWS, log)
            self.assertNotIn(OWN_NEWS, log)
            self.assertIn("starting on", log)  # Twisted's own
            self.assert_once(log)

    def test_runners_level(self) -> None:
        """``twist --log-level`` counts for all that the environment does not name."""
        log = self.log_of((*TWIST, "--log-level=debug"), "stellar_overlay.node_service=error")
        self.assertIn(DETAIL, log)
        self.assertNotIn(OWN_NEWS, log)
        log = self.log_of((*TWIST, "--log-level=warn"), NODE)
        self.assertIn(DETAIL, log)
        self.assertNotIn("starting on", log)
        self.assertNotIn(OWN_NEWS, log)

    def test_log_file(self) -> None:
        """``twistd --logfile`` still is where the log goes."""
        self.assertNotIn("Links", self.log_of((*TWISTD, "--logfile", "node.log"), NODE))
        self.assertIn(DETAIL, (self.folder / "node.log").read_text())

    def test_tac(self) -> None:
        """A .tac file has the same levels, and refuses bad ones before anything opens."""
        config = self.folder / "node.cfg"
        config.write_text(
            f'NETWORK_PASSPHRASE = "{NETWORK}"\nRUN_STANDALONE = true\nHTTP_PORT = 0\n'
            "PEER_PROT = 1\n"
        )
        command = (script("twistd"), "-ny", ROOT / "tac" / "overlay.tac")
        for levels, is_there in ((None, True), ("stellar_overlay=error", False)):
            env = environment(STELLAR_OVERLAY_CONFIG=str(config), **{VARIABLE: levels})
            node = Running(self, command, cwd=self.folder, env=env)
            node.wait_until(lambda node=node: "reactor class" in node.stdout)  # type: ignore[misc]
            self.assertEqual("did you mean PEER_PORT?" in self.end(node), is_there)
        result = run(self, *command, env=environment(**{VARIABLE: "loud"}))
        self.assert_refused(result, 64)

    def test_refused(self) -> None:
        """A bad value is one line and a usage error; nothing is opened or made."""
        folder = scratch(self)
        for command in (TWIST, TWISTD):
            env = environment(**{VARIABLE: "loud"})
            result = run(self, *command, *OPTIONS, env=env, cwd=folder)
            self.assert_refused(result, 64)
        self.assertEqual(list(folder.iterdir()), [])

    def assert_refused(self, result: Result, status: int) -> None:
        """It ended with this status and one line, which says what is wrong."""
        self.assertEqual(result.status, status, result.said)
        (line,) = result.stderr.splitlines()
        self.assertIn(f"{VARIABLE}: 'loud': not a valid level", line)

    def test_changed(self) -> None:
        """``/ll`` changes what is logged while the node runs."""
        node, ready = self.start(TWIST, None)
        port = ready["http_port"]
        self.assertEqual(self.get(port, "/ll")["Overlay"], "Info")
        self.talk(ready["peer_port"])
        self.assertNotIn(DETAIL, node.stdout)
        self.assertEqual(self.get(port, "/ll?level=debug&partition=Overlay"), {"Overlay": "Debug"})
        self.talk(ready["peer_port"])
        node.wait_until(lambda: DETAIL in node.stdout)
        self.assertEqual(self.get(port, "/ll?level=fatal"), {"Global": "Fatal"})
        before = node.stdout
        self.talk(ready["peer_port"])
        self.assertNotIn("stellar_overlay", self.end(node)[len(before) :])


class SecretTests(LogTests):
    """What is in no log."""

    def test_seed(self) -> None:
        """The seed is in no field of any line, however much is logged, nor in any other file."""
        seed_file = self.folder / "node.seed"
        command = (script("twist"), "--log-level=debug", "--log-format=json")
        node, ready = self.start(command, "debug", "--seed-file", seed_file)
        self.talk(ready["peer_port"])
        self.get(ready["http_port"], "/ll")
        node.wait_until(lambda: '"debug"' in node.stdout)
        log = self.end(node)
        seed = seed_file.read_text().strip()
        raw = LocalNode(NETWORK, seed)
        self.assertEqual(ready["node"], raw.peer_id.strkey)
        self.assertIn(ready["node"], log)
        events = [json.loads(line.strip("\x1e")) for line in log.splitlines() if line.strip("\x1e")]
        ours = [one for one in events if one["log_namespace"].startswith("stellar_overlay")]
        levels = {one["log_level"]["name"] for one in ours}
        self.assertLessEqual({"info", "debug"}, levels)
        self.assertNotIn(seed, log)
        self.assertNotRegex(log, r"\bS[A-Z2-7]{55}\b")
        for path in self.folder.iterdir():
            if path != seed_file:
                self.assertNotIn(seed.encode(), path.read_bytes(), path)


class CommandTests(LogTests):
    """The tools."""

    def peer(self) -> Listener:
        """Return a peer of the network that can be dialled."""
        return Listener(
            self,
            scripted(lambda: ScriptedPeer(LocalNode(NETWORK), we_called_remote=False)),
        )

    def test_probe(self) -> None:
        """A bad value is one line and status 2; a good one leaves standard output as it is."""
        probe = (*CLI, "probe", self.peer().address, "--network", NETWORK, "--json")
        refused = run(self, *probe, env=environment(**{VARIABLE: "loud"}))
        self.assertEqual((refused.status, refused.stdout), (2, ""))
        (line,) = refused.stderr.splitlines()
        self.assertIn(f"stellar-overlay probe: {VARIABLE}: 'loud': not a valid level", line)
        done = run(self, *probe, env=environment(**{VARIABLE: "debug"}))
        self.assertEqual(done.status, 0, done.said)
        self.assertTrue(json.loads(done.stdout)["authenticated"])
        self.assertFalse(done.has_traceback)

    def test_watch(self) -> None:
        """A command that runs a node shows its log on standard error, when told to."""
        watch = (*CLI, "watch", "--peer", self.peer().address, "--network", NETWORK, "--json")
        for levels, is_shown in ((None, False), ("debug", True)):
            done = run(self, *watch, "--seconds", "1", env=environment(**{VARIABLE: levels}))
            self.assertEqual(NEWS in done.stderr, is_shown, done.said)
            for line in done.stdout.splitlines():
                json.loads(line)
            for line in done.stderr.splitlines() if is_shown else ():
                self.assertTrue(re.match(r"[-\d]+T[:\d]+[+-]\d{4} \[", line), line)
