"""The command line as a whole: help, what is typed wrong, and pipes and keys that end it early."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay import __version__
from stellar_overlay.tools.cli import shown
from tests.processes import CLI, Listener, Result, Running, call, environment, run, says, scratch

COMMANDS = ("demo", "probe", "watch", "submit", "survey", "keys", "config")
HEAVY = ("stellar_sdk", "nacl", "cryptography", "twisted", "zope", "tomllib", "asyncio", "ssl")
"""What takes its time to import; Twisted's reactor and the SDK above all."""


class HelpTests(SynchronousTestCase):
    def test_overview(self) -> None:
        """Without a command, or with --help, all commands and examples that can be copied."""
        for arguments in ((), ("--help",), ("-h",)):
            result = call(self, *arguments)
            self.assertEqual((result.status, result.stderr), (0, ""))
            for word in (*COMMANDS, "stellar-overlay demo", "twist stellar-overlay"):
                self.assertIn(word, result.stdout)

    def test_each_command(self) -> None:
        """Each command has a help with the options that all take, and a word about every option."""
        for command in COMMANDS:
            with self.subTest(command=command):
                result = call(self, command, "--help")
                self.assertEqual((result.status, result.stderr), (0, ""))
                options = result.stdout.partition("options:\n")[2]
                for option in ("--network", "--overlay-version", "--json", "--help"):
                    self.assertIn(option, options)
                for option in re.findall(r"^  (-.*)(?:\n {10,}.*)*", options, re.MULTILINE):
                    self.assertNotRegex(option, r"\s{2,}\[[^]]*\]$")

    def test_light(self) -> None:
        """The help of each command imports next to nothing, and so is there at once."""
        for arguments in (("--help",), *((command, "--help") for command in COMMANDS)):
            with self.subTest(arguments=arguments):
                result = run(self, *(sys.executable, "-X", "importtime", *CLI[1:], *arguments))
                self.assertEqual(result.status, 0)
                imported = re.findall(r"^import time:.*\|\s+(\S+)$", result.stderr, re.MULTILINE)
                self.assertIn("argparse", imported)
                self.assertEqual([m for m in imported if m.split(".")[0] in HEAVY], [])
                ours = [m for m in imported if m.startswith("stellar_overlay.tools.")]
                self.assertEqual(ours, ["stellar_overlay.tools.cli"])

    def test_version(self) -> None:
        """The version is one line, the same as the node's."""
        result = call(self, "--version")
        line = f"stellar-overlay {__version__}, overlay versions 38..42\n"
        self.assertEqual(result, Result(0, line, ""))


SURVEY = ("survey", "--admin", "http://127.0.0.1:1")
WRONG = (
    (("bogus",), "'bogus'"),
    (("",), "''"),
    (("--bogus",), "--bogus"),
    (("demo", "--bogus"), "--bogus"),
    (("demo", "extra"), "extra"),
    (("demo", "--nodes"), "--nodes"),
    (("demo", "--nodes", "1"), "--nodes"),
    (("demo", "--nodes", "101"), "--nodes"),
    (("demo", "--nodes", "x"), "--nodes"),
    (("demo", "--nodes", "٣"), "--nodes"),
    (("demo", "--nodes", "9" * 5000), "--nodes"),
    (("demo", "--seconds", "0"), "--seconds"),
    (("demo", "--seconds", "-1"), "--seconds"),
    (("demo", "--seconds", "1.5"), "--seconds"),
    (("demo", "--seconds", "86401"), "--seconds"),
    (("demo", "--seed", ""), "--seed"),
    (("demo", "--keep=yes"), "--keep"),
    (("demo", "--network", ""), "--network"),
    (("demo", "--overlay-version", "42..38"), "--overlay-version"),
    (("probe",), "HOST[:PORT]"),
    (("probe", ""), "''"),
    (("probe", "a b"), "'a b'"),
    (("probe", "host:0"), "port 0"),
    (("probe", "host:99999"), "port 99999"),
    (("probe", "host:x"), "'host:x'"),
    (("probe", "::1"), "[::1]"),
    (("probe", "http://host"), "'http://host'"),
    (("probe", "\x1b[31mhost"), "x1b"),
    (("probe", "host", "other"), "other"),
    (("probe", "host", "--timeout", "0"), "--timeout"),
    (("probe", "host", "--network="), "--network"),
    (("probe", "host", "--overlay-version", "40"), "--overlay-version"),
    (("probe", "host", "--overlay-version", "1..4294967296"), "--overlay-version"),
    (("watch", "extra"), "extra"),
    (("watch", "--peer"), "--peer"),
    (("watch", "--peer", "a b"), "'a b'"),
    (("watch", "--peer", "host:0"), "port 0"),
    (("watch", "--seconds", "0"), "--seconds"),
    (("watch", "--seconds", "1e9"), "--seconds"),
    (("watch", "--scp=yes"), "--scp"),
    (("watch", "--network", "private"), "--peer"),
    (("watch", "--overlay-version", "x"), "--overlay-version"),
    (("submit",), "ENVELOPE"),
    (("submit", "x", "y"), "y"),
    (("submit", ""), "ENVELOPE"),
    (("submit", "not base64!"), "ENVELOPE"),
    (("submit", "\x1b[31m"), "ENVELOPE"),
    (("submit", "AAAAAgAAAAA="), "no TransactionEnvelope"),
    (("submit", "AAAA", "--peers", "0"), "--peers"),
    (("submit", "AAAA", "--seconds", "3601"), "--seconds"),
    (("submit", "AAAA", "--peer", ""), "--peer"),
    (("submit", "AAAA", "--network", "private"), "--peer"),
    (("survey",), "--admin"),
    (("survey", "--admin", "localhost:11626"), "--admin"),
    (("survey", "--admin", "\x1b[31mhttp://x"), "--admin"),
    (("survey", "--admin", "http://user:secret@host"), "--admin"),
    ((*SURVEY, "--nonce", "4294967296"), "--nonce"),
    ((*SURVEY, "--nonce", "-1"), "--nonce"),
    ((*SURVEY, "--collect", "0"), "--collect"),
    ((*SURVEY, "--collect", "1801"), "--collect"),
    ((*SURVEY, "--settle", "601"), "--settle"),
    ((*SURVEY, "--patience", "0"), "--patience"),
    ((*SURVEY, "--node", "GABC"), "--node"),
    ((*SURVEY, "--network", ""), "--network"),
    ((*SURVEY, "--output", "a", "--graphml", "./a"), "--graphml"),
    (("keys",), "action"),
    (("keys", "lose", "file"), "'lose'"),
    (("keys", "show"), "FILE"),
    (("keys", "show", "missing"), "missing: No such file"),
    (("keys", "show", "."), "regular file"),
    (("keys", "new", "missing/file"), "missing/file: No such file"),
)
"""What can be typed wrong, and a word that the one line about it has."""


class WrongLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = scratch(self)
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(folder)

    def test_one_line(self) -> None:
        """What is typed wrong is one printable line that names it; the status is 2."""
        for arguments, word in WRONG:
            with self.subTest(arguments=[a[:50] for a in arguments]):
                result = call(self, *arguments)
                self.assertEqual((result.status, result.stdout), (2, ""), result.stderr)
                line, end, rest = result.stderr.partition("\n")
                self.assertEqual((end, rest), ("\n", ""))
                self.assertTrue(line.startswith("stellar-overlay"), line)
                self.assertTrue(line.isprintable(), ascii(line))
                self.assertIn(word, line)
        self.assertEqual(os.listdir(), [])

    def test_hint(self) -> None:
        """Who does not know the commands is told how to see them."""
        self.assertIn("try stellar-overlay --help", call(self, "bogus").stderr)
        self.assertIn("try stellar-overlay demo --help", call(self, "demo", "--nodes", "x").stderr)

    def test_as_a_process(self) -> None:
        """The same from a shell."""
        result = run(self, *CLI, "probe", "a b")
        line = "stellar-overlay probe: 'a b' is not a host name or an IPv4 address\n"
        self.assertEqual(result, Result(2, "", line))


class EndedEarlyTests(SynchronousTestCase):
    """Who reads our output may go, and who started us may lose patience."""

    def closed_pipe(self) -> int:
        """Return the writing end of a pipe that nobody reads."""
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        return writing

    def test_closed_pipe(self) -> None:
        """When nobody reads the output, a command ends without a word of complaint."""
        for arguments in (
            ("--help",),
            ("probe", "--help"),
            ("--version",),
            ("probe", "127.0.0.1:1"),
            ("demo", "--nodes", "2", "--seconds", "1"),
        ):
            with self.subTest(arguments=arguments):
                result = Running(self, (*CLI, *arguments), stdout=self.closed_pipe()).wait()
                self.assertEqual((result.stderr, result.status), ("", 1))

    def test_first_line_only(self) -> None:
        """``stellar-overlay … | head -1`` shows a line and nothing else."""
        command = subprocess.list2cmdline(CLI)
        line = f"{command} demo --nodes 2 --seconds 1 | head -1"
        result = run(self, "sh", "-c", line)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertEqual(len(result.stdout.splitlines()), 1)

    def test_no_stdout(self) -> None:
        """Nor does it matter when there is no output at all."""
        result = run(self, "sh", "-c", f"{subprocess.list2cmdline(CLI)} --version >&-")
        self.assertFalse(result.has_traceback, result.said)
        self.assertNotIn("Exception", result.stderr)

    def test_full_disk(self) -> None:
        """An output that cannot be written is said in one line, and is not success."""
        if not Path("/dev/full").exists():
            self.skipTest("there is no /dev/full")
        result = run(self, "sh", "-c", f"{subprocess.list2cmdline(CLI)} --version >/dev/full")
        self.assertEqual(result.status, 1)
        (line,) = result.stderr.splitlines()
        self.assertIn("No space left on device", line)

    def test_interrupted_demo(self) -> None:
        """Ctrl-C ends a demo at once, with the status of shells for it, and no verdict."""
        demo = Running(self, (*CLI, "demo", "--nodes", "2"))
        demo.wait_until(lambda: "t=" in demo.stdout)
        demo.send(signal.SIGINT)
        result = demo.wait(5)
        self.assertEqual((result.status, result.stderr), (130, "\n"))
        self.assertNotIn("PASS", result.stdout)
        self.assertNotIn("FAIL", result.stdout)

    def test_interrupted_probe(self) -> None:
        """Ctrl-C ends a probe that waits for an answer."""
        heard = []

        def answer(link: socket.socket) -> None:
            heard.append(link.recv(65536))
            says(b"")(link)

        probe = Running(self, (*CLI, "probe", Listener(self, answer).address))
        probe.wait_until(lambda: bool(heard))
        probe.send(signal.SIGINT)
        self.assertEqual(probe.wait(5), Result(130, "", "\n"))


class TerminalTests(SynchronousTestCase):
    def test_shown(self) -> None:
        """Text from the network goes to the terminal with every control character spelt out."""
        for text, visible in (
            ("stellar-core 27.0 (né)", "stellar-core 27.0 (né)"),
            ("\x1b[2J", "\\x1b[2J"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\x00"),
            ("\x7f\x9b31m", "\\x7f\\x9b31m"),
            ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
            ("\u2028\u200b\ufeff", "\\u2028\\u200b\\ufeff"),
            ("\ud800\U000e0041", "\\ud800\\U000e0041"),
        ):
            self.assertEqual(shown(text), visible)

    def test_poor_terminal(self) -> None:
        """A terminal that knows only ASCII gets numbers for letters, and no traceback."""
        folder = scratch(self)
        file = folder / "né.seed"
        self.assertEqual(call(self, "keys", "new", str(file)).status, 0)
        poor = environment(PYTHONIOENCODING="ascii")
        result = run(self, *CLI, "keys", "show", file, env=poor)
        self.assertEqual((result.status, result.stderr), (0, ""))
        self.assertIn("n\\xe9.seed", result.stdout)
