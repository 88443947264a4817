"""``stellar-overlay probe`` as a command, against real sockets."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, encode_get_scp_state
from tests.processes import (
    CLI,
    Listener,
    Result,
    Running,
    Talk,
    environment,
    free_port,
    run,
    says,
    scratch,
    script,
    scripted,
)
from tests.tools.test_probe import FIELDS, NO_STELLAR_PEER, Actor, sends_after_auth


class CommandTests(SynchronousTestCase):
    """The command, as a process, against sockets."""

    def probe(self, address: str, *options: str, env: dict[str, str] | None = None) -> Result:
        """Run the command; nothing is ever complained of."""
        result = run(self, *CLI, "probe", address, *options, env=env)
        self.assertEqual(result.stderr, "")
        return result

    def probe_json(self, address: str, *options: str) -> tuple[int, dict[str, Any]]:
        """Run the command with ``--json``; its output is one object and nothing else."""
        result = self.probe(address, *options, "--json")
        self.assertEqual(result.stdout.count("\n"), 1)
        report: dict[str, Any] = json.loads(result.stdout)
        self.assertEqual(list(report), FIELDS)
        return result.status, report

    def test_hostile_version(self) -> None:
        """What a peer calls itself reaches the terminal spelt out, and JSON escaped."""
        name = "\x1b]0;owned\x07\x1b[2J\u202e\r\nnode id  G\x9b\x7f né"

        def answer() -> ScriptedPeer:
            node = LocalNode("private", version_string=name, listening_port=7)
            last = sends_after_auth(Message(encode_get_scp_state(1)))
            return Actor(node, last, is_polite=True)

        listener = Listener(self, scripted(answer))
        env = environment(PYTHONIOENCODING="ascii")
        result = self.probe(listener.address, "--network", "private", env=env)
        self.assertEqual(result.status, 0)
        self.assertTrue(all(line.isprintable() for line in result.stdout.split("\n")))
        version = r"\x1b]0;owned\x07\x1b[2J\u202e\r\nnode id  G\x9b\x7f n\xe9"
        labels = dict(line.split("  ", 1) for line in result.stdout.splitlines())
        self.assertEqual(labels["version"].strip(), version)
        self.assertEqual(labels["listening port"].strip(), "7")
        self.assertEqual(labels["verdict"].strip(), "it would talk to us")

        status, report = self.probe_json(listener.address, "--network", "private")
        self.assertEqual((status, report["version_string"]), (0, name))
        self.assertTrue(report["authenticated"])
        self.assertGreater(report["handshake_ms"], 0)

    def test_refused_connection(self) -> None:
        """Where nobody listens: status 3, said in plain words, and as JSON."""
        address = f"127.0.0.1:{free_port()}"
        result = self.probe(address)
        self.assertEqual(
            result,
            Result(
                3,
                f"address           {address}\n"
                "verdict           nobody listens there: the connection was refused\n",
                "",
            ),
        )
        status, report = self.probe_json(address)
        refusal = report.pop("refusal")
        self.assertEqual(status, 3)
        self.assertEqual(
            (refusal["code"], refusal["explanation"]),
            (None, "nobody listens there: the connection was refused"),
        )
        empty = dict.fromkeys(FIELDS[:-1], None)
        self.assertEqual(report, {**empty, "address": address, "authenticated": False, "peers": []})

    def test_no_such_host(self) -> None:
        """A name that nobody has, or that nobody could find in time: status 3."""
        env = environment(RES_OPTIONS="attempts:1 timeout:1")
        result = self.probe("no-such-host.invalid", "--timeout", "3", env=env)
        self.assertEqual(result.status, 3)
        self.assertRegex(result.stdout, "verdict +(its name cannot be resolved|nobody answers)")

    def test_impossible_host(self) -> None:
        """A name that cannot be is no reason for a traceback."""
        result = self.probe(f"{'a' * 64}.invalid:1")
        self.assertEqual(result.status, 3)
        self.assertIn("nobody can be reached there: invalid hostname", result.stdout)

    def test_mute_listener(self) -> None:
        """Who accepts and says nothing is given up after --timeout: status 4."""
        listener = Listener(self, says(b""))
        status, report = self.probe_json(listener.address, "--timeout", "1")
        self.assertEqual((status, report["authenticated"]), (4, False))
        self.assertIn("in time", report["refusal"]["explanation"])

    def test_garbage(self) -> None:
        """Who answers in another protocol: status 4, and nothing of what it said."""
        listener = Listener(self, says(b"HTTP/1.1 400 \x1b[31mBad Request\r\n\r\n"))
        result = self.probe(listener.address)
        self.assertEqual(result.status, 4)
        self.assertIn(f"verdict           {NO_STELLAR_PEER}", result.stdout)

    def test_wrong_network_and_version(self) -> None:
        """A real node of another network or of other versions: status 4, and why."""

        def answer() -> ScriptedPeer:
            return ScriptedPeer(LocalNode("private"), we_called_remote=False)

        listener = Listener(self, scripted(answer))
        status, report = self.probe_json(listener.address)
        self.assertEqual(status, 4)
        self.assertIn("belongs to another network", report["refusal"]["explanation"])
        result = self.probe(listener.address, "--network", "private", "--overlay-version", "30..37")
        self.assertEqual(result.status, 4)
        self.assertIn(
            "verdict           the peer wants overlay versions 38..42, you offered 30..37\n",
            result.stdout,
        )

    def test_full_node(self) -> None:
        """A node of ours that has no slot left says so after the handshake: status 4."""
        folder = scratch(self)
        config = folder / "node.cfg"
        config.write_text("TARGET_PEER_CONNECTIONS = 1\nMAX_ADDITIONAL_PEER_CONNECTIONS = 1\n")
        ready = folder / "ready"
        node = Running(
            self,
            (
                *(script("twist"), "stellar-overlay", "--network", "private", "--allow-private"),
                *("--http", "off", "--listen", "tcp:0:interface=127.0.0.1"),
                *("--config", config, "--ready-file", ready),
            ),
        )
        port = node.wait_for_ready_file(ready)["peer_port"]
        first = Talk.dial(self, port, ScriptedPeer(LocalNode("private")))
        status, report = self.probe_json(f"127.0.0.1:{port}", "--network", "private")
        self.assertEqual((status, report["authenticated"]), (4, True))
        self.assertEqual(report["refusal"]["code"], "ERR_LOAD")
        first.close()
        node.wait_until(
            lambda: self.probe_json(f"127.0.0.1:{port}", "--network", "private")[0] == 0
        )
