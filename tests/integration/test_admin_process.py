"""The admin HTTP of a node as its operator has it: a real process, real sockets."""

from __future__ import annotations

import json
import signal
import socket
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import (
    DEADLINE_SECONDS,
    Running,
    free_port,
    is_open,
    run,
    scratch,
    script,
    taken_port,
)

NODE = (
    *(script("twist"), "--log-format=text", "stellar-overlay"),
    *("--network", "tests of the admin HTTP", "--allow-private", "--listen", "off"),
)
STOP_SECONDS = 5.0


class AdminProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = scratch(self)
        self.ready = self.folder / "ready.json"

    def start(self, *options: str | Path) -> tuple[Running, dict[str, Any]]:
        """Return a node that is ready, and what its ready file says."""
        node = Running(self, (*NODE, "--ready-file", self.ready, *options), cwd=self.folder)
        return node, node.wait_for_ready_file(self.ready)

    def get(self, port: int, uri: str, method: str = "GET", **kinds: Any) -> tuple[int, str]:
        """Return status and body of a reply."""
        connection = HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
        self.addCleanup(connection.close)
        connection.request(method, uri, **kinds)
        response: HTTPResponse = connection.getresponse()
        return response.status, response.read().decode("ascii")

    def test_life(self) -> None:
        """The ready file names the port; it answers, refuses what is too long, and ends in time."""
        node, ready = self.start("--http", "tcp:0:interface=127.0.0.1", "--http-host", "node.test")
        port = ready["http_port"]
        status, text = self.get(port, "/info")
        self.assertEqual(status, 200)
        self.assertEqual(json.loads(text)["info"]["network"], "tests of the admin HTTP")
        you = json.loads(self.get(port, "/scp?limit=0&fullkeys=true")[1])["you"]
        self.assertEqual(you, ready["node"])
        self.assertEqual(self.get(port, "/info", "POST", body=b"x" * 200_000)[0], 413)
        self.assertEqual(self.get(port, "/" + "x" * 9000)[0], 400)
        stop = "/stopsurvey"
        self.assertEqual(self.get(port, stop), (200, "survey stopped"))
        self.assertEqual(self.get(port, stop, headers={"Host": "node.test"})[0], 200)
        self.assertEqual(self.get(port, stop, headers={"Host": "evil.test"})[0], 403)
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        before = time.monotonic()
        node.send(signal.SIGTERM)
        result = node.wait(STOP_SECONDS)
        self.assertLess(time.monotonic() - before, STOP_SECONDS)
        for connection in idle:
            connection.close()
        self.assertEqual(result.status, -signal.SIGTERM)
        self.assertFalse(result.has_traceback, result.said)
        self.assertNotIn("GET", result.said)
        self.assertFalse(is_open(port))

    def test_file(self) -> None:
        """HTTP_PORT of a file is where it answers."""
        port = free_port()
        config = self.folder / "node.cfg"
        config.write_text(f"HTTP_PORT = {port}\n")
        _, ready = self.start("--config", config)
        self.assertEqual(ready["http_port"], port)
        self.assertEqual(self.get(port, "/nothing")[0], 404)

    def test_off(self) -> None:
        """Without it there is no port."""
        _, ready = self.start("--http", "off")
        self.assertIsNone(ready["http_port"])

    def test_taken(self) -> None:
        """A port that is taken is one line, and the end."""
        with taken_port() as port:
            http = f"tcp:{port}:interface=127.0.0.1"
            result = run(self, *NODE, "--http", http, cwd=self.folder)
        self.assertEqual(result.status, 1, result.said)
        (line,) = result.stderr.splitlines()
        self.assertIn(f"stellar-overlay: cannot listen on 127.0.0.1 port {port}", line)
        self.assertIn("--http tcp:PORT", line)
