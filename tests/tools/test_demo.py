"""``stellar-overlay demo``: what it prints when all is well, and when it is not."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay import __version__
from stellar_overlay.error import DropReason, ErrorCode
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.demo import Network
from stellar_overlay.wire.auth import AuthState
from tests.processes import CLI, Result, Running, is_open, run, scratch

SMALL = ("demo", "--nodes", "3", "--seconds", "2")
LINKS = 3
"""Of three nodes that all found each other."""
MESSAGES = 600
"""In each direction of each link."""

PATCHED = """
import sys
from stellar_overlay.tools import cli, demo
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
        self.assertIn("synthetic", first)
        self.assertEqual(lines[1], " one seed node; 2 nodes know its address and nothing else")
        self.assertEqual([line[:8] for line in lines[2:-3]], [f" t={i:>3} s" for i in range(3)])
        self.assertTrue(all(line.isprintable() for line in lines))
        ends, total = 2 * LINKS, 2 * LINKS * MESSAGES
        verdicts = self.verdicts(result)
        self.assertRegex(
            verdicts.pop("discovery"),
            r"^PASS 3 nodes found each other through one seed in \d+\.\d s: 3 links, 1 of them"
            r" between nodes that nobody had told of each other; whole without the seed$",
        )
        self.assertEqual(
            verdicts,
            {
                "auth": f"PASS {ends} of {ends} link ends authenticated; a forged MAC was refused"
                " with ERR_AUTH",
                "flow-control": f"PASS {total} of {total} SCP messages arrived, at least {MESSAGES}"
                " per link and direction with first grants of 200; 0 overruns",
            },
        )
        names = ["discovery", "auth", "flow-control"]
        self.assertEqual([line.split()[:2] for line in lines[-3:]],
                         [["PASS", name] for name in names])  # fmt: skip

    def test_json(self) -> None:
        """With --json: one final object with the figures, and nothing else."""
        result = self.demo(*SMALL, "--json", "--overlay-version", "40..41", "--network", "mine")
        self.assertEqual(result.status, 0)
        self.assertEqual(result.stdout.count("\n"), 1)
        report = json.loads(result.stdout)
        seconds = report.pop("seconds")
        self.assertTrue(2 <= seconds <= 20, seconds)
        found = report["checks"].pop("discovery")
        self.assertLess(found.pop("seconds"), 15)
        total = 2 * LINKS * MESSAGES
        self.assertEqual(
            found, {"ok": True, "nodes": 3, "links": LINKS, "links_between_strangers": 1}
        )
        self.assertEqual(
            report,
            {
                "ok": True,
                "checks": {
                    "auth": {
                        "ok": True, "nodes": 3, "links": LINKS, "ends": 2 * LINKS,
                        "forger_refused": True,
                    },
                    "flow-control": {
                        "ok": True, "sent": total, "received": total, "least": MESSAGES,
                        "overruns": 0,
                    },
                },
            },
        )  # fmt: skip

    def test_same_keys(self) -> None:
        """The same seed makes the same nodes, another seed others."""

        def keys(seed: int) -> list[str]:
            arguments = Namespace(nodes=7, seconds=1, seed=seed)
            network = Network(arguments, LocalNode.testnet(), Clock(), print)
            return [network._make_node(i, []).local_node.peer_id.short for i in range(7)]

        self.assertEqual(keys(1), keys(1))
        self.assertNotEqual(keys(1), keys(2))


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
        self.assertEqual(len(self.verdicts(result)), 3)
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
        self.assertEqual(set(verdicts), {"discovery", "auth", "flow-control"})
        failed = verdicts.pop(check)
        self.assertTrue(failed.startswith("FAIL "), failed)
        for word in words:
            self.assertIn(word, failed)
        for other in verdicts.values():
            self.assertTrue(other.startswith("PASS "), other)

    def test_forgery_not_noticed(self) -> None:
        """Were a wrong MAC taken for a right one, the demo would say so, and end."""
        patch = (
            "demo.DEADLINE_SECONDS = 1\ndemo.ScriptedPeer.send_forged = demo.ScriptedPeer.send\n"
        )
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1")
        self.assert_fails("auth", ["not refused with ERR_AUTH", "still open after 1 s"], result)

    def test_nobody_found(self) -> None:
        """Where nobody shares an address, nobody finds anybody but the seed, and it is said."""
        patch = (
            "from stellar_overlay.gossip.peer_exchange import PeerExchange\n"
            "demo.DISCOVERY_SECONDS = 6\n"
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
            "demo.DISCOVERY_SECONDS = 4\n"
            "async def dial(dialer, address):\n"
            "    raise ConnectionFailed('no cable')\n"
            "Dialer.dial = dial\n"
        )
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1")
        self.assertEqual(result.status, 1)
        verdicts = self.verdicts(result)
        self.assertIn("FAIL after", verdicts["discovery"])
        self.assertIn("FAIL 0 of 0 link ends authenticated", verdicts["auth"])
        self.assertIn("FAIL 0 of 0 SCP messages arrived", verdicts["flow-control"])

    def test_messages_lost(self) -> None:
        """Were messages lost, it is said how many, and that none may be; and it ends in time."""
        patch = (
            "count = [0]\n"
            "honest = demo.OverlayManager.send_to\n"
            "def send_to(node, peer, message):\n"
            "    count[0] += 1\n"
            "    return count[0] % 10 == 0 or honest(node, peer, message)\n"
            "demo.OverlayManager.send_to = send_to\n"
        )
        before = time.monotonic()
        result = self.patched(patch, "demo", "--nodes", "2", "--seconds", "1", "--json")
        self.assertLess(time.monotonic() - before, 25)
        report = json.loads(result.stdout)
        self.assertEqual((result.status, report["ok"]), (1, False))
        self.assertTrue(report["checks"]["auth"]["ok"])
        figures = {"ok": False, "sent": 1200, "received": 1080, "least": 540, "overruns": 0}
        self.assertEqual(report["checks"]["flow-control"], figures)


class CheckTests(SynchronousTestCase):
    """What the checks make of what was seen; nothing is started."""

    def setUp(self) -> None:
        arguments = Namespace(nodes=2, seconds=1, seed=7)
        self.network = Network(arguments, LocalNode.testnet(), Clock(), print)
        self.network.nodes = [self.network._make_node(number, []) for number in range(2)]
        one, other = (node.local_node.peer_id for node in self.network.nodes)
        self.ways = (one, other), (other, one)

    def test_forger(self) -> None:
        """Only ERR_AUTH with core's text will do; anything else is said as it was."""
        for shook_hands, error, is_closed, ending in (
            (False, None, True, "it could not even shake hands"),
            (True, (0, b"shutdown"), True, "it was told 'shutdown', code 0"),
            (True, (3, b"\x1b[2J\xff"), True, "it was told '\\\\x1b[2J\ufffd', code 3"),
            (True, (2, b"unexpected MAC"), True, "it was told 'unexpected MAC', code 2"),
            (True, None, True, "the link was closed without a word"),
            (True, None, False, "the link was still open after 10 s"),
        ):
            with self.subTest(ending=ending):
                forger = ScriptedPeer(LocalNode.testnet())
                forger.auth.state = AuthState.GOT_AUTH if shook_hands else AuthState.CONNECTED
                forger.error, forger.is_closed = error, is_closed
                check = self.network.check_auth(forger)
                self.assertFalse(check.ok)
                self.assertFalse(check.figures["forger_refused"])
                self.assertTrue(
                    check.text.endswith(f"not refused with ERR_AUTH: {ending}"), check.text
                )
        forger = ScriptedPeer(LocalNode.testnet())
        forger.error = ErrorCode.ERR_AUTH, b"unexpected MAC"
        self.assertTrue(self.network.check_auth(forger).figures["forger_refused"])

    def test_flow_control(self) -> None:
        """All that was sent must arrive, past the first grant each way, and not beyond credit."""
        for sent, received, overruns, is_ok in (
            ((600, 600), (600, 600), 0, True),
            ((201, 201), (201, 201), 0, True),
            ((600, 600), (600, 599), 0, False),
            ((600, 600), (599, 601), 0, False),
            ((200, 200), (200, 200), 0, False),
            ((600, 200), (600, 200), 0, False),
            ((600, 600), (600, 600), 1, False),
            ((0, 0), (0, 0), 0, False),
        ):
            with self.subTest(sent=sent, received=received, overruns=overruns):
                self.network.sent = Counter(dict(zip(self.ways, sent, strict=True)))
                self.network.received = Counter(dict(zip(self.ways, received, strict=True)))
                self.network.nodes[0].metrics.drops[DropReason.AT_CAPACITY].set(overruns)
                check = self.network.check_flow_control()
                self.assertEqual(check.ok, is_ok)
                self.assertIn(f"{sum(received)} of {sum(sent)} SCP messages", check.text)
                expected = "expected: all of them, more than 200 each"
                self.assertEqual(expected in check.text, not is_ok)


class CannotRunTests(DemoTests):
    def test_cannot_listen(self) -> None:
        """Where no port can be opened: one line, and the status of a missing network."""
        script = scratch(self) / "broken.py"
        patch = (
            "from twisted.internet.error import CannotListenError\n"
            "async def start(node):\n"
            "    raise CannotListenError('127.0.0.1', 0, OSError(24, 'Too many open files'))\n"
            "demo.OverlayManager.start = start\n"
        )
        script.write_text(PATCHED.format(patch=patch, arguments=["demo", "--json"]))
        result = run(self, sys.executable, script)
        self.assertEqual((result.status, result.stdout), (3, ""))
        (line,) = result.stderr.splitlines()
        self.assertEqual(
            line,
            "stellar-overlay demo: cannot listen on 127.0.0.1: [Errno 24] Too many open files",
        )
