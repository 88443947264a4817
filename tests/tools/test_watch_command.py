"""``stellar-overlay watch`` as a command, against real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ErrorCode
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType, encode_error, encode_get_scp_state
from stellar_overlay.wire.scp import externalize
from tests.builders import transaction
from tests.processes import CLI, Listener, Result, Running, free_port, run, says, scripted

FIGURES = ("seconds", "messages", "unique", "duplicates", "transactions", "slots", "peers", "lost")


class Lively(ScriptedPeer):
    """Has something to say after the handshake, and calls itself something odd."""

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.AUTH:
            self.send(Message(encode_get_scp_state(1)))
            self.send(externalize(self.auth.local_node, 7, b"value"))
            self.send(transaction())


class Full(ScriptedPeer):
    """Has no slot left."""

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.AUTH:
            self.send(Message(encode_error(ErrorCode.ERR_LOAD, "peer rejected")))


class CommandTests(SynchronousTestCase):
    def listener(self, kind: type[ScriptedPeer] = Lively, network: str = "private") -> Listener:
        """Return a peer on a port of loopback."""
        node = LocalNode(network, version_string="\x1b[31mred\u202e")
        return Listener(self, scripted(lambda: kind(node, we_called_remote=False)))

    def command(self, *peers: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the command that watches these."""
        named = [part for peer in peers for part in ("--peer", peer)]
        return (*CLI, "watch", "--network", "private", *named, *options)

    def watch(self, *peers: str, options: tuple[str, ...] = ()) -> Result:
        """Run it to its end."""
        result = run(self, *self.command(*peers, options=options))
        self.assertFalse(result.has_traceback, result.said)
        return result

    def watch_json(self, *peers: str, seconds: int = 1) -> tuple[int, list[dict[str, Any]]]:
        """Run it with ``--json``: every line is an object."""
        result = self.watch(*peers, options=("--json", "--seconds", str(seconds)))
        return result.status, [json.loads(line) for line in result.stdout.splitlines()]

    def test_lines(self) -> None:
        """What is heard, a printable line each, then the figures: status 0."""
        result = self.watch(self.listener().address, options=("--seconds", "1"))
        self.assertEqual((result.status, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        self.assertTrue(all(line.isprintable() for line in lines))
        kinds = [line.split()[1] for line in lines[:4]]
        self.assertEqual(sorted(kinds), ["peer", "scp", "slot", "tx"])
        self.assertIn("\\x1b[31mred\\u202e", lines[0])
        self.assertIn("2 messages, 2 unique, 0 duplicates, 1 transaction", lines[4])
        self.assertIn("first with 100.0 %", lines[-1])

    def test_json(self) -> None:
        """Events with the fields of the event log, and the last one has the figures."""
        status, events = self.watch_json(self.listener().address)
        self.assertEqual(status, 0)
        self.assertEqual(
            [event["kind"] for event in events],
            [
                *("node.started", "peer.connecting", "peer.authenticated"),
                *("scp", "tx", "node.stopping"),
            ],
        )
        for event in events:
            self.assertEqual(list(event)[:5], ["v", "ts", "node", "kind", "peer"])
        for figure in FIGURES:
            self.assertIn(figure, events[-1])

    def test_nobody_there(self) -> None:
        """A line of reason for each peer, and status 3; ``--json`` puts only events on stdout."""
        peers = [f"127.0.0.1:{free_port()}", "no-such-host.invalid"]
        result = self.watch(*peers)
        self.assertEqual((result.status, result.stdout), (3, ""))
        refused, unknown = sorted(result.stderr.splitlines())
        self.assertIn(f"watch: {peers[0]}: nobody listens there", refused)
        self.assertIn(f"watch: {peers[1]}:11625: ", unknown)
        status, events = self.watch_json(peers[0])
        self.assertEqual((status, [event["kind"] for event in events]), (3, ["node.started"]))

    def test_refused(self) -> None:
        """When those who are there want nothing of us: status 4, and why."""
        peers = [
            self.listener(Full).address,
            self.listener(network="another").address,
            Listener(self, says(b"HTTP/1.1 400 Bad Request\r\n\r\n")).address,
            f"127.0.0.1:{free_port()}",
        ]
        result = self.watch(*peers)
        self.assertEqual(result.status, 4)
        self.assertEqual(len(result.stderr.splitlines()), 4)
        self.assertIn(f"{peers[0]}: the peer is full: ERR_LOAD (peer rejected)", result.stderr)
        self.assertIn(f"{peers[1]}: the peer's certificate does not hold", result.stderr)

    def test_interrupted(self) -> None:
        """Ctrl-C is how it ends: with the figures, and status 0; SIGTERM the same."""
        for number in (signal.SIGINT, signal.SIGTERM):
            watch = Running(self, self.command(self.listener().address))
            watch.wait_until(lambda watch=watch: "slot" in watch.stdout)  # type: ignore[misc]
            watch.send(number)
            result = watch.wait(5)
            self.assertEqual((result.status, result.stderr), (0, ""))
            self.assertIn("2 messages", result.stdout)

    def test_interrupted_early(self) -> None:
        """Ctrl-C before anybody has answered is no success."""
        dialled = []

        def answer(link: socket.socket) -> None:
            dialled.append(link)
            says(b"")(link)

        mute = Listener(self, answer)
        watch = Running(self, self.command(mute.address))
        watch.wait_until(lambda: bool(dialled))
        watch.send(signal.SIGINT)
        self.assertEqual(watch.wait(5), Result(130, "", "\n"))

    def test_first_line_only(self) -> None:
        """``watch | head -1`` shows a line and nothing else, and comes to its end."""
        command = subprocess.list2cmdline(self.command(self.listener().address))
        result = run(self, "sh", "-c", f"{command} --json | head -1")
        self.assertEqual((result.status, result.stderr, result.stdout.count("\n")), (0, "", 1))

    def test_closed_pipe(self) -> None:
        """When nobody can read what it says, it ends, whatever time it was given."""
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        watch = Running(self, self.command(self.listener().address), stdout=writing)
        self.assertEqual(watch.wait(), Result(1, "", ""))

    def test_nobody_reads(self) -> None:
        """A reader that never reads keeps the command from nothing, however full the pipe."""
        command = subprocess.list2cmdline(self.command(self.listener().address))
        result = run(self, "sh", "-c", f"{command} --seconds 1 --json | sleep 2")
        self.assertEqual((result.status, result.said), (0, ""))
