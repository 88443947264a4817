"""``stellar-overlay demo``: what it prints when all is well, and when it is not."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay import __version__
from tests.processes import CLI, Result, Running, is_open, run, scratch

SMALL = ("demo", "--nodes", "3", "--seconds", "2")
LINKS = 3
"""Of three nodes that all found each other."""
MESSAGES = 600
"""In each direction of each link."""

VERDICTS = {
    "discovery": r"3 nodes found each other through one seed in \d+\.\d s: 3 links, 1 of them"
    r" between nodes that nobody had told of each other; whole without the seed",
    "flood": r"12 signed SCP statements of 2 synthetic validators reached each of the 2 other"
    r" nodes: 24 of 24; 2 of 2 ledgers followed by all; \d+ duplicates from other peers",
    "pull": r"20 signed transactions reached each of the 2 other nodes: 40 of 40, byte for byte,"
    r" 0 unsolicited; \d+ adverts, \d+ demands, \d+ fulfilled; median \d+\.\d ms from the first"
    r" advert",
    "fetch": r"2 transaction sets, made by one node each, fetched by the others: 4 of 4, by 3"
    r" nodes; 6 of 6 kept; median \d+\.\d ms from the first statement, longest \d+\.\d ms; 3 know"
    r" the validators' quorum set",
    "auth": "6 of 6 link ends authenticated; a forged MAC was refused with ERR_AUTH",
    "flow-control": "3600 of 3600 direct SCP messages arrived, at least 600 per link and direction"
    " with first grants of 200; 0 overruns",
    "survey": r"3/3 nodes answered, 3/3 links match, both ways and at both ends, 0 made up; the"
    r" figures of 6/6 link ends are those of the nodes' own counters, \d+ messages written among"
    r" them; 0\.7 s of collecting, all told \d\.\d s after the start",
}
"""When all is well."""
STATEMENTS = 12
"""Of two validators about two ledgers, three each."""
CHECKS = ["discovery", "flood", "pull", "fetch", "auth", "flow-control", "survey"]
SURVEY = [
    "          survey: the nodes collect figures for 0.7 s",
    "          survey: they stop collecting, and the surveyor asks them",
]

PATCHED = """
import sys
from stellar_overlay.tools import cli, demo, demo_checks, demo_network, demo_survey, demo_traffic
{patch}
cli.main({arguments!r})
"""


class DemoTests(SynchronousTestCase):
    def demo(self, *arguments: str) -> Result:
        """Run a demo to its end; it complains of nothing."""
        result = run(self, *CLI, *arguments)
        self.assertEqual(result.stderr, "")
        return result

    def patched(self, patch: str, *arguments: str) -> Result:
        """Run a demo in which something of ours is broken."""
        script = scratch(self) / "broken.py"
        script.write_text(PATCHED.format(patch=patch, arguments=list(arguments)))
        result = run(self, sys.executable, script)
        self.assertFalse(result.has_traceback, result.said)
        self.assertEqual(result.stderr, "")
        return result

    def verdicts(self, result: Result) -> dict[str, str]:
        """Return the last lines by the name of their check, such as ``PASS detail``."""
        found = re.findall(r"^(PASS|FAIL) (\S+) (.+)$", result.stdout, re.MULTILINE)
        return {name: f"{verdict} {detail}" for verdict, name, detail in found}


class GoodDemoTests(DemoTests):
    def test_plain(self) -> None:
        """A line per second, what is synthetic, and a PASS line with figures per check."""
        before = time.monotonic()
        result = self.demo(*SMALL)
        self.assertEqual(result.status, 0, result.said)
        self.assertLess(time.monotonic() - before, 25)
        first, *_ = lines = result.stdout.splitlines()
        self.assertIn(f"stellar-overlay {__version__} demo: 3 nodes on 127.0.0.1", first)
        self.assertIn("the consensus is synthetic, and there is no ledger", first)
        self.assertEqual(lines[1], " one seed node; 2 nodes know its address and nothing else")
        self.assertEqual(
            lines[2],
            " 2 of them vote as synthetic validators, a ledger each 1 s; 10 transactions a second,"
            " of accounts that nobody has funded",
        )
        self.assertTrue(all(line.isprintable() for line in lines))
        checks = len(CHECKS)
        self.assertEqual([line.split()[:2] for line in lines[-checks:]],
                         [["PASS", name] for name in CHECKS])  # fmt: skip
        *course, picture, head, one, two, three = lines[3:-checks]
        self.assertTrue(picture.startswith(" what each node told the surveyor of its links:"))
        self.assertEqual(head, "          1 2 3   in  out  median ms  answered")
        for row, figures in (
            (one, r"1 G\w{4}  \\ < <    2    0 +\d+  yes"),
            (two, r"2 G\w{4}  > \\ [<>]    [01]    [12] +\d+  yes"),
            (three, r"3 G\w{4}  > [<>] \\    [01]    [12] +\d+  asks"),
        ):
            self.assertRegex(row, f"^ {figures}$")
        survey = [line for line in course if line.startswith("          survey: ")]
        seconds = [line for line in course if line not in survey]
        self.assertEqual([line[:8] for line in seconds], [f" t={i:>3} s" for i in range(3)])
        self.assertEqual(
            seconds[-1],
            " t=  2 s  links 3  ledger 2  statements 12  transactions 20  tx sets 2"
            "  delivered 68 of 68",
        )
        self.assertEqual(survey[:2], SURVEY)
        self.assertRegex(survey[-1], r": 3 of 3 nodes have answered, \d\.\d s after the start$")
        verdicts = self.verdicts(result)
        for name, pattern in VERDICTS.items():
            self.assertRegex(verdicts[name], f"^PASS {pattern}$")

    def test_json(self) -> None:
        """With --json: one final object with the figures, and nothing else."""
        result = self.demo(*SMALL, "--json", "--overlay-version", "40..41", "--network", "mine")
        self.assertEqual(result.status, 0)
        self.assertEqual(result.stdout.count("\n"), 1)
        report = json.loads(result.stdout)
        seconds = report.pop("seconds")
        self.assertTrue(2 <= seconds <= 20, seconds)
        self.assertEqual((list(report), report["ok"]), (["ok", "checks"], True))
        found = report["checks"]
        self.assertEqual(list(found), CHECKS)
        self.assertEqual([check["ok"] for check in found.values()], [True] * len(CHECKS))
        self.assertLess(found["discovery"].pop("seconds"), 15)
        total = 2 * LINKS * MESSAGES
        self.assertEqual(
            [found[name] for name in ("discovery", "auth", "flow-control")],
            [
                {"ok": True, "nodes": 3, "links": LINKS, "links_between_strangers": 1},
                {"ok": True, "nodes": 3, "links": LINKS, "ends": 2 * LINKS, "forger_refused": True},
                {"ok": True, "sent": total, "received": total, "least": MESSAGES, "overruns": 0},
            ],
        )
        self.assertEqual(found["flood"]["statements"], STATEMENTS)
        self.assertEqual(found["pull"]["transactions"], 20)
        self.assertEqual(found["fetch"]["tx_sets"], 2)
        survey = found["survey"]
        self.assertEqual([survey[name] for name in ("nodes", "answered", "ends")], [3, 3, 6])
        edges = [survey[name] for name in ("edges", "expected", "missing", "extra")]
        self.assertEqual(edges, [LINKS, LINKS, 0, 0])
        self.assertLess(survey["seconds"], 15)


class KeepTests(DemoTests):
    def test_keep(self) -> None:
        """With --keep the nodes stay until Ctrl-C, which does not change the verdict."""
        demo = Running(self, (*CLI, "demo", "--nodes", "2", "--seconds", "1", "--keep"))
        demo.wait_until(lambda: "Ctrl-C" in demo.stdout)
        ports = [int(port) for port in re.findall(r"\d+", demo.stdout.splitlines()[-1])]
        self.assertEqual(len(ports), 2)
        self.assertTrue(all(map(is_open, ports)))
        demo.send(signal.SIGINT)
        result = demo.wait(5)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertEqual(list(self.verdicts(result)), CHECKS)
        self.assertFalse(any(map(is_open, ports)))

    def test_keep_json(self) -> None:
        """With --json the object comes before the waiting, once."""
        arguments = ("demo", "--nodes", "2", "--seconds", "1", "--keep", "--json")
        demo = Running(self, (*CLI, *arguments))
        demo.wait_until(lambda: "\n" in demo.stdout)
        demo.send(signal.SIGINT)
        result = demo.wait(5)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertTrue(json.loads(result.stdout)["ok"])


class BadDemoTests(DemoTests):
    """Each check fails when what it checks is broken, and says what it saw and expected."""

    def assert_fails(self, check: str, words: Sequence[str], result: Result) -> None:
        """Assert that one check failed, and in which words; the other passed."""
        self.assertEqual(result.status, 1, result.said)
        verdicts = self.verdicts(result)
        self.assertEqual(list(verdicts), CHECKS)
        failed = verdicts.pop(check)
        self.assertTrue(failed.startswith("FAIL "), failed)
        for word in words:
            self.assertIn(word, failed)
        for other in verdicts.values():
            self.assertTrue(other.startswith("PASS "), other)

    def test_forgery_not_noticed(self) -> None:
        """Were a wrong MAC taken for a right one, the demo would say so, and end."""
        patch = (
            "demo_network.DEADLINE_SECONDS = demo_checks.DEADLINE_SECONDS = 1\n"
            "demo_survey.DEADLINE_SECONDS = 1\n"
            "Peer = demo_network.ScriptedPeer\n"
            "Peer.send_forged = Peer.send\n"
        )
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1")
        self.assert_fails("auth", ["not refused with ERR_AUTH", "still open after 1 s"], result)

    def test_survey_lies(self) -> None:
        """Were a node to tell of links that it has not, the survey would be found to be wrong."""
        patch = (
            "from dataclasses import replace\n"
            "from stellar_overlay.gossip.survey_data import SurveyDataManager\n"
            "honest = SurveyDataManager.page\n"
            "def page(data, request):\n"
            "    answer = honest(data, request)\n"
            "    return replace(answer, inbound=(), outbound=answer.inbound or answer.outbound)\n"
            "SurveyDataManager.page = page\n"
            "demo_survey.DEADLINE_SECONDS = 1\n"
        )
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1")
        words = ["0/1 links match", "1 made up", "(expected: all nodes, but ", "none made up, but "]
        self.assert_fails("survey", words, result)

    def test_nobody_found(self) -> None:
        """Where nobody shares an address, nobody finds anybody but the seed, and it is said."""
        patch = (
            "from stellar_overlay.gossip.peer_exchange import PeerExchange\n"
            "demo_network.DISCOVERY_SECONDS = 6\n"
            "PeerExchange.to_send = lambda exchange, address: []\n"
        )
        result = self.patched(patch, "demo", "--nodes", "4", "--seconds", "1")
        words = ["not every node had 2 links", "could not reach the others without the seed"]
        self.assert_fails("discovery", words, result)

    def test_no_link(self) -> None:
        """Where no link comes about, nothing is sent, and every check says so."""
        patch = (
            "from stellar_overlay.node.dialer import Dialer\n"
            "from stellar_overlay.error import ConnectionFailed\n"
            "demo_network.DISCOVERY_SECONDS = 4\n"
            "async def dial(dialer, address):\n"
            "    raise ConnectionFailed('no cable')\n"
            "Dialer.dial = dial\n"
            "demo_traffic.DEADLINE_SECONDS = demo_checks.DEADLINE_SECONDS = 1\n"
            "demo_survey.DEADLINE_SECONDS = 1\n"
        )
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1")
        self.assertEqual(result.status, 1)
        verdicts = self.verdicts(result)
        self.assertIn("FAIL after", verdicts["discovery"])
        self.assertIn("FAIL 0 of 0 link ends authenticated", verdicts["auth"])
        self.assertIn("FAIL 0 of 0 direct SCP messages arrived", verdicts["flow-control"])
        self.assertIn("reached the other node: 0 of ", verdicts["flood"])
        self.assertIn("reached the other node: 0 of 10,", verdicts["pull"])
        self.assertIn("fetched by the others: 0 of 1,", verdicts["fetch"])
        self.assertIn("FAIL 1/2 nodes answered, 0/0 links match", verdicts["survey"])

    def test_messages_lost(self) -> None:
        """Were messages lost, it is said how many, and that none may be; and it ends in time."""
        patch = (
            "count = [0]\n"
            "Overlay = demo_network.OverlayManager\n"
            "honest = Overlay.send_to\n"
            "def send_to(node, peer, message):\n"
            "    count[0] += 1\n"
            "    return count[0] % 10 == 0 or honest(node, peer, message)\n"
            "Overlay.send_to = send_to\n"
            "demo_traffic.DEADLINE_SECONDS = 1\n"
        )
        before = time.monotonic()
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1", "--json")
        self.assertLess(time.monotonic() - before, 25)
        report = json.loads(result.stdout)
        self.assertEqual((result.status, report["ok"]), (1, False))
        self.assertTrue(report["checks"]["auth"]["ok"])
        figures = {"ok": False, "sent": 1200, "received": 1080, "least": 540, "overruns": 0}
        self.assertEqual(report["checks"]["flow-control"], figures)


class CannotRunTests(DemoTests):
    def test_cannot_listen(self) -> None:
        """Where no port can be opened: one line, and the status of a missing network."""
        script = scratch(self) / "broken.py"
        patch = (
            "from twisted.internet.error import CannotListenError\n"
            "async def start(node):\n"
            "    raise CannotListenError('127.0.0.1', 0, OSError(24, 'Too many open files'))\n"
            "demo_network.OverlayManager.start = start\n"
        )
        script.write_text(PATCHED.format(patch=patch, arguments=["demo", "--json"]))
        result = run(self, sys.executable, script)
        self.assertEqual((result.status, result.stdout), (3, ""))
        (line,) = result.stderr.splitlines()
        self.assertEqual(
            line,
            "stellar-overlay demo: cannot listen on 127.0.0.1: [Errno 24] Too many open files",
        )
