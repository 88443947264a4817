"""``stellar-overlay survey`` as a command, against a real HTTP server."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import networkx as nx
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import TESTNET_PASSPHRASE
from stellar_overlay.tools.survey_admin import Surveyor
from stellar_overlay.tools.survey_graph import graph_of
from stellar_overlay.tools.survey_merged import MergedResults
from tests.processes import (
    CLI,
    Listener,
    Result,
    Running,
    call,
    free_port,
    run,
    says,
    scratch,
)
from tests.tools.survey_kit import Edge, FakeCore, node_id, star

ME, A, B, C, D = map(node_id, ("me", "A", "B", "C", "D"))
SMALL = {(ME, A), (A, B), (C, ME), (B, C), (D, C)}
QUICK = ("--collect", "1", "--settle", "0")
CRLF = b"\r\n"
ENDLESS = b"HTTP/1.0 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
FIELDS = ["nonce", "seconds", "surveyor", "nodes", "silent", "bad", "not_asked", "edges"]


class Case(SynchronousTestCase):
    def serve(self, edges: Iterable[Edge] = SMALL) -> str:
        """Begin to answer as a node, and return the URL."""
        core = self.core = FakeCore(
            time.monotonic, edges, me=ME, batch_seconds=0.1, answer_seconds=0
        )
        lock = threading.Lock()
        self.status = dict[str, int]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805
                url = urlsplit(handler.path)
                code = self.status.get(url.path, 200)
                with lock:
                    text = core.answer(url.path, dict(parse_qsl(url.query))) if code == 200 else ""
                handler.send_response(code)
                handler.send_header("Content-Type", "application/json")
                handler.end_headers()
                handler.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def survey(self, url: str, *options: str) -> Result:
        """Run it to its end."""
        result = run(self, *CLI, "survey", "--admin", url, *QUICK, *options)
        self.assertFalse(result.has_traceback, result.said)
        return result


class CommandTests(Case):
    def test_table(self) -> None:
        """Progress on stderr, then the table; the files hold what the network said."""
        folder = scratch(self)
        out, graphml = folder / "out.json", folder / "out.graphml"
        url = self.serve()
        self.core.versions[A] = "\x1b[31mred\u202e"
        result = self.survey(url, "--nonce", "77", "--output", str(out), "--graphml", str(graphml))
        self.assertEqual(result.status, 0, result.said)
        self.assertEqual(self.core.nonce, 77)
        self.assertIn("collecting: 1 s left\n", result.stderr)
        self.assertIn("reporting: 4 of 4 nodes have answered\n", result.stderr)
        self.assertIn("nodes         5: 4 answered\nedges         5\n", result.stdout)
        self.assertIn(f"written       {out}\nwritten       {graphml}\n", result.stdout)
        self.assertIn("\\x1b[31mred\\u202e", result.stdout)
        self.assertTrue(all(line.isprintable() for line in result.said.splitlines()))
        merged = json.loads(out.read_text())
        self.assertEqual(set(merged), {ME, A, B, C, D})
        self.assertEqual(list(merged[A]["inboundPeers"]), [ME])
        expected = MergedResults()
        for node in (ME, A, B, C, D):
            expected.merge(node, self.core.entry(node))
        self.assertEqual(merged, dict(expected))
        surveyor = Surveyor(node=ME, build="", network=TESTNET_PASSPHRASE)
        self.assertEqual(
            dict(nx.read_graphml(graphml).nodes(data=True)),
            dict(graph_of(expected, surveyor, (0, 0)).nodes(data=True)),
        )
        self.assertEqual({*nx.read_graphml(graphml).edges}, SMALL)
        self.assertEqual(sorted(os.listdir(folder)), ["out.graphml", "out.json"])
        self.assertEqual(self.core.stops, 1)

    def test_json(self) -> None:
        """One object and nothing else; sixty peers are all there, and replace an older file."""
        folder = scratch(self)
        (folder / "file").write_text("old" * 100_000)
        (folder / "link").symlink_to(folder / "file")
        hub = node_id("hub")
        edges = {(ME, hub), *star(hub, 59)}
        result = self.survey(self.serve(edges), "--json", "--output", str(folder / "link"))
        self.assertEqual((result.status, result.stderr, result.stdout.count("\n")), (0, "", 1))
        report = json.loads(result.stdout)
        self.assertEqual(list(report), FIELDS)
        self.assertEqual((report["nonce"], report["surveyor"]), (self.core.nonce, ME))
        self.assertEqual((report["edges"], report["silent"], report["bad"]), (60, [], []))
        self.assertEqual(report["not_asked"], 0)
        self.assertEqual(len(report["nodes"][hub]["inboundPeers"]), 60)
        self.assertGreaterEqual(report["seconds"], 1)
        self.assertEqual(json.loads((folder / "file").read_text()), report["nodes"])
        self.assertTrue((folder / "link").is_symlink())

    def test_most(self) -> None:
        """No more than --max-nodes are asked, and it is said how many were not."""
        url = self.serve()
        report = json.loads(self.survey(url, "--json", "--max-nodes", "1", "--node", D).stdout)
        self.assertEqual((list(report["nodes"]), report["not_asked"]), (sorted([D, ME]), 2))
        self.core.phase = "inactive"
        self.assertIn("not asked     3 more", self.survey(url, "--max-nodes", "1").stdout)
        for wrong in ("0", "20001", "x"):
            self.assertEqual(self.survey(url, "--max-nodes", wrong).status, 2)

    def test_nobody_answers(self) -> None:
        """When only the surveyor speaks: status 1, and all that is known."""
        url = self.serve()
        self.core.silent = {A, B, C, D}
        result = self.survey(url, "--json", "--patience", "1", "--node", D)
        self.assertEqual((result.status, result.stderr), (1, ""))
        report = json.loads(result.stdout)
        self.assertEqual((list(report["nodes"]), report["silent"]), ([ME], sorted([A, C, D])))

    def test_unreachable(self) -> None:
        """Nobody there, or somebody else: one line, status 3."""
        for url in (
            f"http://127.0.0.1:{free_port()}",
            f"http://{Listener(self, says(b'SSH-2.0-x' + CRLF)).address}",
            f"http://{Listener(self, _says_404).address}",
            f"http://{Listener(self, says(ENDLESS)).address}",
            "http://no-such-host.invalid",
        ):
            result = self.survey(url)
            self.assertEqual((result.status, result.stdout), (3, ""), result.said)
            (line,) = result.stderr.splitlines()
            self.assertTrue(line.startswith("stellar-overlay survey: "), line)

    def test_refused(self) -> None:
        """Another survey, a guard, a node without surveys, another network: status 4, and why."""
        url = self.serve()
        for prepare, options, word in (
            (lambda: setattr(self.core, "phase", "reporting"), (), "Another survey is active"),
            (lambda: self.status.update({"/startsurveycollecting": 403}), (), "--http-host"),
            (lambda: self.status.update({"/startsurveycollecting": 404}), (), "does not know"),
            (lambda: None, ("--network", "pubnet"), "another network"),
        ):
            prepare()
            result = self.survey(url, *options)
            self.assertEqual((result.status, result.stdout), (4, ""), result.said)
            (line,) = result.stderr.splitlines()
            self.assertIn(word, line)

    def test_fails_midway(self) -> None:
        """What is known when the node goes away is shown, and it is said what stays behind."""
        folder = scratch(self)
        url = self.serve()
        self.core.silent = {A}
        surveying = self.start(url, "--output", str(folder / "out"), "--patience", "1")
        surveying.wait_until(lambda: "1 of" in surveying.stderr)
        self.status["/getsurveyresult"] = 500
        result = surveying.wait()
        self.assertEqual(result.status, 3, result.said)
        self.assertIn("edges  ", result.stdout)
        self.assertIn("HTTP status 500", result.stderr)
        self.assertIn("go on with this survey", result.stderr)
        self.assertIn(ME, json.loads((folder / "out").read_text()))

    def test_lost_start(self) -> None:
        """If nobody knows whether it has begun, it is said that it may go on."""
        url = self.serve()
        self.status["/startsurveycollecting"] = 500
        result = self.survey(url)
        self.assertEqual((result.status, result.stdout), (3, ""), result.said)
        reason, note = result.stderr.splitlines()
        self.assertIn("HTTP status 500", reason)
        self.assertIn("the nodes may go on with this survey", note)

    def start(self, url: str, *options: str) -> Running:
        """Start it."""
        return Running(self, (*CLI, "survey", "--admin", url, *QUICK, *options))


class PlaceTests(Case):
    def test_refused_up_front(self) -> None:
        """Where nothing can be written, nothing is begun."""
        url = self.serve()
        folder = scratch(self)
        for place in (folder, folder / "missing" / "file", "/dev/null"):
            for option in ("--output", "--graphml"):
                result = call(self, "survey", "--admin", url, option, str(place))
                self.assertEqual((result.status, result.stdout), (1, ""))
                (line,) = result.stderr.splitlines()
                self.assertIn("cannot be written", line)
        self.assertEqual((self.core.infos, os.listdir(folder)), (0, []))
        self.assertEqual(call(self, "survey", "--admin", url, "--output", "").status, 2)

    def test_lost_meanwhile(self) -> None:
        """A folder that vanishes during the survey costs the file and the status, nothing else."""
        folder = scratch(self) / "folder"
        folder.mkdir()
        url = self.serve()
        command = (*CLI, "survey", "--admin", url, *QUICK, "--output", str(folder / "out"))
        surveying = Running(self, command)
        surveying.wait_until(lambda: "collecting" in surveying.stderr)
        folder.rmdir()
        result = surveying.wait()
        self.assertEqual(result.status, 1, result.said)
        self.assertIn("cannot be written", result.stderr)
        self.assertIn("4 answered", result.stdout)


class EndedEarlyTests(Case):
    def test_interrupted(self) -> None:
        """Ctrl-C while nodes are asked: the node is told, and what is known is written."""
        folder = scratch(self)
        url = self.serve()
        self.core.silent = {A}
        for options in ((), ("--json",)):
            self.core.phase, self.core.looks, self.core.stops = "inactive", 0, 0
            out = folder / f"out{len(options)}"
            command = (*CLI, "survey", "--admin", url, *QUICK, "--output", str(out), *options)
            surveying = Running(self, command)
            surveying.wait_until(lambda: self.core.looks > 1)
            surveying.send(signal.SIGINT)
            result = surveying.wait(5)
            self.assertEqual((result.status, self.core.stops), (130, 1), result.said)
            self.assertFalse(result.has_traceback, result.said)
            self.assertIn("go on with this survey", result.stderr)
            self.assertIn(ME, json.loads(out.read_text()))
            if options:
                self.assertEqual(list(json.loads(result.stdout)), FIELDS)
            else:
                self.assertIn("edges  ", result.stdout)

    def test_impatient(self) -> None:
        """Ctrl-C once more, while a slow node is told, changes nothing."""
        url = self.serve()
        self.core.silent = {A}
        told, may_answer = threading.Event(), threading.Event()
        answer = self.core.answer

        def slow(path: str, parameters: dict[str, str]) -> str:
            if path == "/stopsurvey":
                told.set()
                may_answer.wait(5)
            return answer(path, parameters)

        self.core.answer = slow  # type: ignore[method-assign]
        surveying = Running(self, (*CLI, "survey", "--admin", url, *QUICK, "--json"))
        surveying.wait_until(lambda: self.core.looks > 1)
        surveying.send(signal.SIGINT)
        surveying.wait_until(told.is_set)
        surveying.send(signal.SIGINT)
        may_answer.set()
        result = surveying.wait(5)
        self.assertEqual((result.status, self.core.stops), (130, 1), result.said)
        self.assertFalse(result.has_traceback, result.said)

    def test_interrupted_while_collecting(self) -> None:
        """Before that, there is nothing to write."""
        folder = scratch(self)
        command = (*CLI, "survey", "--admin", self.serve(), "--output", str(folder / "out"))
        surveying = Running(self, command)
        surveying.wait_until(lambda: "collecting: 5 min left" in surveying.stderr)
        surveying.send(signal.SIGINT)
        result = surveying.wait(5)
        self.assertEqual((result.status, result.stdout, self.core.stops), (130, "", 0))
        self.assertEqual(os.listdir(folder), [])

    def test_closed_pipe(self) -> None:
        """When nobody reads the table, the files are written all the same."""
        folder = scratch(self)
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        out = str(folder / "out")
        command = (*CLI, "survey", "--admin", self.serve(), *QUICK, "--output", out, "--json")
        result = Running(self, command, stdout=writing).wait()
        self.assertEqual((result.status, result.stderr), (1, ""))
        self.assertEqual(os.listdir(folder), ["out"])


def _says_404(connection: Any) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
