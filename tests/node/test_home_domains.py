"""What a stellar.toml says about validators, and when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import ConfigError
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.home_domains import (
    MAX_FILE_BYTES,
    MAX_VALIDATORS,
    HomeDomainError,
    HomeDomains,
    HomeDomainValidator,
    check_domain,
    fetch_validators,
    parse_validators,
)

KEY = str(LocalNode.testnet(bytes(range(32))).peer_id)
OTHER_KEY = str(LocalNode.testnet(bytes(32)).peer_id)


def entry(host: object = '"core.example.org:11625"', key: str = KEY, more: str = "") -> str:
    """Return one entry of VALIDATORS; ``host`` is TOML."""
    return f'[[VALIDATORS]]\nHOST = {host}\nPUBLIC_KEY = "{key}"\n{more}\n'


def validator(host: str) -> HomeDomainValidator:
    """Return a validator at ``host``."""
    return HomeDomainValidator(
        peer_id=PeerId.from_strkey(KEY), address=PeerAddress.parse(host), name=None
    )


class DomainTests(SynchronousTestCase):
    """What an operator may write."""

    def test_good(self) -> None:
        """A host name, in any case, with a port if need be."""
        for domain in ("example.org", "www.Stellar.org", "localhost:8443", "127.0.0.1:8443", "x"):
            self.assertEqual(check_domain(domain), domain.lower())

    def test_bad(self) -> None:
        """Everything else is refused by name, before anything is asked."""
        for domain in (
            "", "https://example.org", "example.org/", "example.org/stellar.toml", "a@example.org",
            "a:b@example.org", "example.org:0", "example.org:99999", "example.org:", "a b", "a..b",
            "example.org.", "[::1]", "::1", "ex\nample.org", "exämple.org", "a?b", "x" * 300, "1.2",
        ):  # fmt: skip
            with self.assertRaises(ConfigError, msg=domain) as caught:
                check_domain(domain)
            self.assertIn(repr(domain)[:50], str(caught.exception))
            self.assertLess(len(str(caught.exception)), 250)
            self.assertNotIn("\n", str(caught.exception))

    def test_fetching_a_bad_one(self) -> None:
        """It is refused without a reactor."""
        self.failureResultOf(
            Deferred.fromCoroutine(fetch_validators("https://x", reactor=None)), ConfigError
        )

    def test_nothing_heavy(self) -> None:
        """Importing the module imports neither treq nor twisted.web."""
        program = (
            "import sys, stellar_overlay.node.home_domains\n"
            "print([name for name in ('treq', 'twisted.web') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("[]\n", ""))


class FileTests(SynchronousTestCase):
    """SEP-1 and SEP-20."""

    def parse(self, text: str) -> tuple[HomeDomainValidator, ...]:
        return parse_validators(text.encode())

    def hosts(self, text: str) -> list[str]:
        return [str(found.address) for found in self.parse(text)]

    def assert_refused(self, data: str | bytes, pattern: str) -> None:
        with self.assertRaises(HomeDomainError) as caught:
            parse_validators(data.encode() if isinstance(data, str) else data)
        text = str(caught.exception)
        self.assertRegex(text, pattern)
        self.assertTrue(text.isprintable(), text)
        self.assertLess(len(text), 400)
        self.assertTrue(caught.exception.retriable)

    def test_validators(self) -> None:
        """Host, port, key and name of each, in the order of the file."""
        found = self.parse(
            'VERSION = "2.0.0"\nNETWORK_PASSPHRASE = "x"\n[DOCUMENTATION]\nORG_NAME = "y"\n'
            + entry(more='ALIAS = "one"\nDISPLAY_NAME = "Number one"')
            + entry('"9.9.9.9"', OTHER_KEY, 'ALIAS = "two"\nHISTORY = "https://z/"')
            + entry('"core3.example.org"')
        )
        self.assertEqual(
            [(str(one.address), str(one.peer_id), one.name) for one in found],
            [
                ("core.example.org:11625", KEY, "Number one"),
                ("9.9.9.9:11625", OTHER_KEY, "two"),
                ("core3.example.org:11625", KEY, None),
            ],
        )

    def test_without_host(self) -> None:
        """Such a validator is nothing to dial, and nothing wrong."""
        lonely = f'[[VALIDATORS]]\nPUBLIC_KEY = "{KEY}"\n'
        self.assertEqual(self.hosts(lonely), [])
        self.assertEqual(self.hosts(lonely + entry()), ["core.example.org:11625"])

    def test_faulty_entries(self) -> None:
        """They are passed over, as long as there is a good one; else the first is named."""
        for fault in (
            entry('"a b:11625"'), entry('"core.example.org:0"'), entry('""'), entry("17"),
            entry('["x"]'), entry(key="GABC"), entry(key=KEY[:-1] + "A"), entry('"x:y:z"'),
            '[[VALIDATORS]]\nHOST = "core.example.org"\n', entry('"https://core.example.org"'),
        ):  # fmt: skip
            self.assertEqual(self.hosts(fault + entry('"good.example.org"') + fault), [
                "good.example.org:11625"
            ])  # fmt: skip
            self.assert_refused(fault, "^VALIDATORS: no validator can have HOST ")
        self.assert_refused("VALIDATORS = [1, 2]", "^VALIDATORS: 1 is not a table")

    def test_hostile_text(self) -> None:
        """What is quoted is escaped and cut."""
        self.assert_refused(entry('"' + r"\u001b[31m\n" * 1000 + '"'), r"HOST '\\x1b\[31m\\n")
        self.assert_refused(f'VALIDATORS = ["{"x" * 1000}"]', "is not a table")

    def test_a_long_name(self) -> None:
        """It is cut; one that is no text is none."""
        (found,) = self.parse(entry(more=f'DISPLAY_NAME = "{"n" * 1000}"'))
        self.assertEqual(found.name, "n" * 100)
        (found,) = self.parse(entry(more="ALIAS = 5"))
        self.assertIsNone(found.name)

    def test_no_validators(self) -> None:
        """A file without any is told apart from one that is broken."""
        for text in ("", "VALIDATORS = []", "VALIDATORS = 5", "[VALIDATORS]\nHOST = 'x'"):
            self.assert_refused(text, "^its stellar.toml has no VALIDATORS$")

    def test_no_toml(self) -> None:
        """Neither is a web page, nor what no parser should be asked to read."""
        self.assert_refused("<!doctype html><html>", "^its stellar.toml is not TOML: ")
        self.assert_refused(b"\xff\xfe", "is not TOML: ")
        self.assert_refused("a = " + "9" * 5000, "is not TOML: ")
        self.assert_refused("a = " + "[" * 50_000, "nested too deeply")
        self.assert_refused("a." * 50_000 + "b = 1", "more than 100 dots")

    def test_byte_order_mark(self) -> None:
        """Some editors write one."""
        self.assertEqual(len(parse_validators(b"\xef\xbb\xbf" + entry().encode())), 1)

    def test_at_most_a_hundred(self) -> None:
        """The first ones count."""
        text = "".join(entry(f'"c{number}.example.org"') for number in range(MAX_VALIDATORS + 9))
        self.assertEqual(
            self.hosts(text), [f"c{number}.example.org:11625" for number in range(MAX_VALIDATORS)]
        )

    @settings(derandomize=True, max_examples=150)
    @given(st.one_of(st.binary(max_size=500), st.text(max_size=500).map(str.encode)))
    def test_anything(self, data: bytes) -> None:
        """Whatever a server sends is read or refused in one line."""
        assert len(data) <= MAX_FILE_BYTES
        try:
            found = parse_validators(b"[[VALIDATORS]]\nHOST = " + data)
        except HomeDomainError as error:
            self.assertTrue(str(error).isprintable(), str(error))
        else:
            self.assertLessEqual(len(found), MAX_VALIDATORS)


class Domains:
    """The world wide web: a list per domain, an exception, or no answer."""

    def __init__(self) -> None:
        self.answers: dict[str, Sequence[HomeDomainValidator] | Exception] = {}
        self.asked: list[str] = []
        self.waiting: list[Deferred[Sequence[HomeDomainValidator]]] = []
        self.cancelled = 0

    def __call__(self, domain: str) -> Deferred[Sequence[HomeDomainValidator]]:
        self.asked.append(domain)
        answer = self.answers.get(domain)
        if answer is None:
            waiting: Deferred[Sequence[HomeDomainValidator]] = Deferred(self._note_cancelled)
            self.waiting.append(waiting)
            return waiting
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def _note_cancelled(self, _: object) -> None:
        self.cancelled += 1


class HomeDomainsTests(SynchronousTestCase):
    """The service that asks."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.web = Domains()
        self.added: list[list[str]] = []
        self.log: list[LogEvent] = []
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def note(self, event: LogEvent) -> None:
        self.log.append(event)

    def service(self, *domains: str, allow_private: bool = False) -> HomeDomains:
        service = HomeDomains(
            domains,
            self.web,
            lambda hosts: self.added.append([str(host) for host in hosts]),
            self.clock,
            allow_private=allow_private,
        )
        service.startService()
        return service

    def said(self) -> list[str]:
        lines = [
            str(formatEvent(event))
            for event in self.log
            if event["log_level"] in (LogLevel.info, LogLevel.warn)
        ]
        self.log.clear()
        return lines

    def test_hosts_are_added(self) -> None:
        """Each once, as soon as its domain answers; one line per domain."""
        self.web.answers["a.example"] = [validator(host) for host in ("x.org", "y.org:1", "x.org")]
        self.web.answers["b.example"] = [validator("9.9.9.9")]
        self.service("a.example", "b.example", "A.example")
        self.assertEqual(self.web.asked, ["a.example", "b.example"])
        self.assertEqual(self.added, [["x.org:11625", "y.org:1"], ["9.9.9.9:11625"]])
        self.assertEqual(
            self.said(),
            [
                'home domain "a.example": 2 hosts of validators, 0 private ones skipped',
                'home domain "b.example": 1 hosts of validators, 0 private ones skipped',
            ],
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_private_hosts(self) -> None:
        """A stranger's file does not make us dial our own network."""
        hosts = ("10.0.0.1", "127.0.0.1", "[::1]", "localhost", "router", "db.internal",
                 "0x7f000001", "x.org")  # fmt: skip
        self.web.answers["a.example"] = [validator(host) for host in hosts]
        self.service("a.example")
        self.assertEqual(self.added, [["0x7f000001:11625", "x.org:11625"]])
        self.assertIn("6 private ones skipped", self.said()[0])
        self.service("a.example", allow_private=True)
        self.assertEqual(len(self.added[1]), len(hosts))

    def test_retries(self) -> None:
        """60, 120, … 3600 s after a failure; never again after an answer."""
        self.web.answers["a.example"] = HomeDomainError('home domain "a.example": no such name')
        self.service("a.example")
        pauses = []
        for _ in range(62):
            (call,) = self.clock.getDelayedCalls()
            pauses.append(call.getTime() - self.clock.seconds())
            self.clock.advance(pauses[-1])
        self.assertEqual(pauses, [*range(60, 3601, 60), 3600, 3600])
        self.assertEqual(self.said()[0], 'home domain "a.example": no such name; again in 60 s')
        self.web.answers["a.example"] = [validator("x.org")]
        self.clock.advance(3600)
        self.assertEqual(self.added, [["x.org:11625"]])
        self.clock.advance(100_000)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_does_not_wait_for_another(self) -> None:
        """A domain that does not answer keeps nobody waiting."""
        self.web.answers["b.example"] = [validator("x.org")]
        self.service("silent.example", "b.example")
        self.assertEqual(self.added, [["x.org:11625"]])
        self.web.waiting[0].callback([validator("y.org")])
        self.assertEqual(self.added[1:], [["y.org:11625"]])

    def test_a_fault_of_ours(self) -> None:
        """It is reported, and the domain is asked again."""
        self.web.answers["a.example"] = ZeroDivisionError()
        self.service("a.example")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.web.answers["a.example"] = [validator("x.org")]
        self.clock.advance(60)
        self.assertEqual(self.added, [["x.org:11625"]])

    def test_stop(self) -> None:
        """Questions are cancelled, timers are gone, late answers are nothing."""
        self.web.answers["failing.example"] = HomeDomainError("no")
        service = self.service("silent.example", "failing.example")
        self.said()
        service.stopService()
        self.assertEqual(self.web.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(10_000)
        self.assertEqual((self.added, self.said(), len(self.web.asked)), ([], [], 2))

    def test_bad_domain(self) -> None:
        """It is refused before anything starts."""
        with self.assertRaises(ConfigError):
            self.service("good.example", "https://bad.example")
        self.assertEqual(self.web.asked, [])
