"""Names: looked up in time, a few at once, and never into a private network."""

from __future__ import annotations

from collections.abc import Sequence
from socket import gaierror
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet._resolver import GAIResolver
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import ConnectionFailed, ConnectionTimeout
from stellar_overlay.node import resolver as resolver_module
from stellar_overlay.node.resolver import (
    LOST_AFTER_SECONDS,
    MAX_ANSWERS,
    MAX_LOOKUPS,
    MAX_WAITING,
    Resolve,
    is_host_name,
    is_public_name,
    name_resolver,
)

PUBLIC = "198.51.100.7"
OTHER = "203.0.113.9"
PRIVATE = "10.1.2.3"


@implementer(IHostResolution)
class Resolution:
    """A lookup that cannot be cancelled, as Twisted's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError()


@implementer(IHostnameResolver)
class NameServer:
    """Answers what it was told, at once; names that it does not know are left waiting.

    :ivar asked: every name that was looked up, in order.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Sequence[str]] = {}
        self.asked: list[str] = []
        self.waiting: list[tuple[str, int, IResolutionReceiver]] = []

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type[IAddress]] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        assert addressTypes == [IPv4Address], "IPv4 only"
        self.asked.append(hostName)
        resolution = Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if hostName in self.answers:
            self._deliver(resolutionReceiver, portNumber, self.answers[hostName])
        else:
            self.waiting.append((hostName, portNumber, resolutionReceiver))
        return resolution

    def answer(self, name: str, *hosts: str) -> None:
        """Answer the oldest lookup of ``name`` that waits."""
        waiting = next(waiting for waiting in self.waiting if waiting[0] == name)
        self.waiting.remove(waiting)
        self._deliver(waiting[2], waiting[1], hosts)

    @staticmethod
    def _deliver(receiver: IResolutionReceiver, port: int, hosts: Sequence[str]) -> None:
        for host in hosts:
            kind: Any = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, port))
        receiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class ReactorWithNames(Clock):
    """A clock with a name server."""

    def __init__(self) -> None:
        super().__init__()
        self.names = NameServer()
        self.nameResolver: IHostnameResolver = self.names

    def installNameResolver(  # noqa: N802
        self, resolver: IHostnameResolver
    ) -> IHostnameResolver:
        self.nameResolver, old = resolver, self.nameResolver
        return old


class ResolverTestCase(SynchronousTestCase):
    """A resolver on a simulated reactor."""

    def setUp(self) -> None:
        self.reactor = ReactorWithNames()
        self.names = self.reactor.names
        self.resolve = self.resolver()

    def resolver(self, *, allow_private: bool = False) -> Resolve:
        return name_resolver(self.reactor, allow_private=allow_private)

    def outcome(self, name: str, resolve: Resolve | None = None, port: int = 11625) -> list[object]:
        """Return a list that will hold the address, or the exception."""
        outcome: list[object] = []
        answer = (resolve or self.resolve)(PeerAddress(name, port))
        answer.addCallbacks(outcome.append, lambda failure: outcome.append(failure.value))
        return outcome

    def host(self, name: str, resolve: Resolve | None = None) -> str:
        """Return what a name resolves to at once."""
        (found,) = self.outcome(name, resolve)
        assert isinstance(found, ResolvedPeerAddress), found
        return found.host

    def assert_refused(
        self, outcome: list[object], text: str, kind: type[ConnectionFailed] = ConnectionFailed
    ) -> None:
        (error,) = outcome
        assert isinstance(error, ConnectionFailed), error
        self.assertIs(type(error), kind)
        self.assertRegex(str(error), text)
        self.assertTrue(error.retriable)

    def assert_idle(self) -> None:
        """No timer is left."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class NumericTests(ResolverTestCase):
    """Numbers were written down on purpose."""

    def test_numeric(self) -> None:
        """They are their own answer, whatever they are, and nobody is asked."""
        for text in (PUBLIC, PRIVATE, "127.0.0.1", "0.0.0.0", "224.0.0.1", "::1", "fe80::1%eth0"):  # noqa: S104
            self.assertEqual(self.host(text), text)
        self.assertEqual(self.names.asked, [])
        self.assert_idle()

    def test_one_key(self) -> None:
        """The spellings of an IPv6 address lead to one key, with the port as it was."""
        (found,) = self.outcome("2001:DB8:0:0::1", port=99)
        self.assertEqual(found, ResolvedPeerAddress("2001:db8::1", 99))


class AnswerTests(ResolverTestCase):
    """Which answer is taken, and what is said when there is none."""

    def test_first_answer(self) -> None:
        """The first IPv4 address, with the port that was asked for."""
        self.names.answers["node.example"] = ["2001:db8::1", PUBLIC, OTHER]
        self.assertEqual(
            self.outcome("node.example", port=1234), [ResolvedPeerAddress(PUBLIC, 1234)]
        )
        self.assert_idle()

    def test_late_but_in_time(self) -> None:
        """An answer after 4.9 s is one."""
        outcome = self.outcome("node.example")
        self.reactor.advance(4.9)
        self.names.answer("node.example", PUBLIC)
        self.assertEqual(outcome, [ResolvedPeerAddress(PUBLIC)])
        self.assert_idle()

    def test_no_such_name(self) -> None:
        """NXDOMAIN is an empty answer."""
        self.names.answers["gone.example"] = []
        self.assert_refused(self.outcome("gone.example"), '^"gone.example": no such name')
        self.assert_idle()

    def test_ipv6_only(self) -> None:
        """A host without an IPv4 address is nobody to us, as to core."""
        self.names.answers["six.example"] = ["2001:db8::1", "2001:db8::2"]
        self.assert_refused(self.outcome("six.example"), "no IPv4 address")

    def test_many_answers(self) -> None:
        """Of 500 answers ten are looked at: the eleventh is too late to be good."""
        self.names.answers["many.example"] = [PUBLIC] * 500
        self.assertEqual(self.host("many.example"), PUBLIC)
        self.names.answers["many.example"] = [PRIVATE] * (MAX_ANSWERS - 1) + [PUBLIC]
        self.assertEqual(self.host("many.example"), PUBLIC)
        self.names.answers["many.example"] = [PRIVATE] * MAX_ANSWERS + [PUBLIC] * 490
        self.assert_refused(self.outcome("many.example"), "private")

    def test_private_answer(self) -> None:
        """A public name does not lead into a private network, unless that is allowed."""
        self.names.answers["rebound.example"] = [PRIVATE, PUBLIC]
        self.assertEqual(self.host("rebound.example"), PUBLIC)
        for private in (PRIVATE, "127.0.0.1", "169.254.169.254", "192.168.0.1", "100.64.0.1"):
            self.names.answers["rebound.example"] = [private]
            text = f"private address {private} only; --allow-private allows it"
            self.assert_refused(self.outcome("rebound.example"), text)
            self.assertEqual(
                self.host("rebound.example", self.resolver(allow_private=True)), private
            )

    def test_private_names(self) -> None:
        """Names of the local network may lead there."""
        for name in ("localhost", "node-1", "a.localhost", "node.LOCAL", "x.lan.", "a.home.arpa"):
            self.names.answers[name.lower()] = [PRIVATE]
            self.assertEqual(self.host(name), PRIVATE)

    def test_nowhere(self) -> None:
        """Where no host can be, nothing is ever dialled, whoever says so."""
        for host in (
            "0.0.0.0",  # noqa: S104
            "0.1.2.3",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
        ):
            for name in ("node.example", "localhost"):
                for allow_private in (False, True):
                    self.names.answers[name] = [host]
                    outcome = self.outcome(name, self.resolver(allow_private=allow_private))
                    self.assert_refused(outcome, f"leads to {host}, where nobody can be")

    def test_bad_answer(self) -> None:
        """An answer that is no address is passed over."""
        self.names.answers["odd.example"] = ["not an address", "1.2.3", PUBLIC]
        self.assertEqual(self.host("odd.example"), PUBLIC)

    def test_impossible_names(self) -> None:
        """Names that libc would choke on are not even looked up."""
        for name in ("a..b", "x" * 64 + ".example", ".example", "example.."):
            self.assert_refused(self.outcome(name), "no such name")
        self.assertEqual(self.names.asked, [])

    def test_resolver_that_raises(self) -> None:
        """What a resolver raises is an answer, too."""

        def explode(*_: object) -> IHostResolution:
            raise RuntimeError("boom\n" * 100)

        self.names.resolveHostName = explode  # type: ignore[method-assign, assignment]
        for _ in range(2 * MAX_LOOKUPS):
            outcome = self.outcome("node.example")
            self.assert_refused(outcome, r"cannot be looked up: 'boom\\n")
            self.assertLess(len(str(outcome[0])), 200)
        self.assert_idle()

    def test_the_resolver_of_the_moment(self) -> None:
        """A name server that is installed later is asked."""
        late = NameServer()
        late.answers["node.example"] = [OTHER]
        self.reactor.installNameResolver(late)
        self.assertEqual(self.host("node.example"), OTHER)

    def test_what_twisted_does(self) -> None:
        """Twisted's own resolver asks a thread for IPv4, and is understood."""
        calls: list[tuple[object, ...]] = []

        def getaddrinfo(host: str, port: int, *rest: object) -> list[Any]:
            calls.append((host, port))
            if host == "gone.example":
                raise gaierror("no")
            return [(2, 1, 6, "", (PUBLIC, port))]

        reactor: Any = self.reactor
        reactor.callFromThread = lambda function, *args: function(*args)
        pool: Any = _InlinePool()
        self.reactor.installNameResolver(GAIResolver(reactor, lambda: pool, getaddrinfo))  # type: ignore[arg-type]
        self.assertEqual(self.host("node.example"), PUBLIC)
        self.assert_refused(self.outcome("gone.example"), "no such name")
        self.assertEqual(calls, [("node.example", 11625), ("gone.example", 11625)])

    def test_no_blocking_call(self) -> None:
        """The module has no way to the blocking functions of ``socket``."""
        self.assertFalse(hasattr(resolver_module, "socket"))


class _InlinePool:
    """A thread pool that has no threads."""

    def callInThreadWithCallback(  # noqa: N802
        self,
        onResult: Any,  # noqa: N803
        function: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        try:
            result = function(*args, **kwargs)
        except Exception:
            onResult(False, Failure())
        else:
            onResult(True, result)


class DeadlineTests(ResolverTestCase):
    """A name server that is dead or slow."""

    def test_dead(self) -> None:
        """The answer is that there is none, after five seconds."""
        outcome = self.outcome("node.example")
        self.reactor.advance(4.999)
        self.assertEqual(outcome, [])
        self.reactor.advance(0.001)
        self.assert_refused(outcome, '^"node.example": not resolved within 5 s$', ConnectionTimeout)
        self.assert_idle()

    def test_answer_after_thirty_seconds(self) -> None:
        """It is ignored, and gives the turn to another name."""
        outcome = self.outcome("slow.example")
        self.reactor.advance(30)
        self.names.answer("slow.example", PUBLIC)
        self.assert_refused(outcome, "not resolved", ConnectionTimeout)

    def test_turns(self) -> None:
        """Four names at once; who waits has the same five seconds."""
        outcomes = [self.outcome(f"dead{number}.example") for number in range(6)]
        self.assertEqual(len(self.names.asked), MAX_LOOKUPS)
        self.names.answer("dead1.example", PUBLIC)
        self.assertEqual(self.names.asked[MAX_LOOKUPS:], ["dead4.example"])
        self.reactor.advance(5)
        for outcome in [outcomes[0], *outcomes[2:]]:
            self.assert_refused(outcome, "not resolved within 5 s", ConnectionTimeout)
        self.assertNotIn("dead5.example", self.names.asked)
        self.assert_idle()

    def test_turns_end_with_the_lookup(self) -> None:
        """Who gave up still holds a thread: four dead names keep a fifth waiting until one ends."""
        for number in range(MAX_LOOKUPS):
            self.outcome(f"dead{number}.example")
        self.reactor.advance(5)
        self.names.answers["good.example"] = [PUBLIC]
        waiting = self.outcome("good.example")
        self.assertEqual(waiting, [])
        self.names.answer("dead2.example")
        self.assertEqual(waiting, [ResolvedPeerAddress(PUBLIC)])

    def test_lost_lookups(self) -> None:
        """Lookups that never end do not block names for ever."""
        for number in range(MAX_LOOKUPS):
            self.outcome(f"lost{number}.example")
        self.names.answers["good.example"] = [PUBLIC]
        self.reactor.advance(LOST_AFTER_SECONDS - 6)
        too_early = self.outcome("good.example")
        self.reactor.advance(6)
        self.assert_refused(too_early, "not resolved", ConnectionTimeout)
        self.assertEqual(self.host("good.example"), PUBLIC)
        self.names.answer("lost0.example", OTHER)

    def test_the_queue_is_bounded(self) -> None:
        """Beyond it, the answer is no, at once; later there is room again."""
        for number in range(MAX_LOOKUPS + MAX_WAITING):
            self.outcome(f"dead{number}.example")
        self.assert_refused(self.outcome("one-more.example"), "too many names")
        self.reactor.advance(5)
        self.assertEqual(self.outcome("later.example"), [])

    def test_a_whole_queue_answered_at_once(self) -> None:
        """However many wait, nothing recurses."""
        for number in range(MAX_LOOKUPS):
            self.outcome(f"slow{number}.example")
        names = [f"good{number}.example" for number in range(MAX_WAITING)]
        self.names.answers.update((name, [PUBLIC]) for name in names)
        outcomes = [self.outcome(name) for name in names]
        self.names.answer("slow0.example")
        self.assertEqual(outcomes, [[ResolvedPeerAddress(PUBLIC)]] * MAX_WAITING)
        self.assertEqual(self.names.asked[MAX_LOOKUPS:], names)


class CancelTests(ResolverTestCase):
    """Who asked may lose interest."""

    def cancelled(self, name: str) -> Deferred[ResolvedPeerAddress]:
        """Ask for a name, and give up."""
        answer = self.resolve(PeerAddress(name))
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        return answer

    def test_under_way(self) -> None:
        """The answer comes to nobody."""
        self.cancelled("node.example")
        self.names.answer("node.example", PUBLIC)
        self.assert_idle()

    def test_waiting(self) -> None:
        """Whoever gives up while waiting is never looked up."""
        for number in range(MAX_LOOKUPS):
            self.outcome(f"slow{number}.example")
        self.cancelled("waiting.example")
        self.names.answer("slow0.example", PUBLIC)
        self.assertNotIn("waiting.example", self.names.asked)

    def test_after_the_answer(self) -> None:
        """Too late to change anything."""
        self.names.answers["node.example"] = [PUBLIC]
        answer = self.resolve(PeerAddress("node.example"))
        answer.cancel()
        self.assertEqual(self.successResultOf(answer), ResolvedPeerAddress(PUBLIC))


class RuleTests(SynchronousTestCase):
    """Which names are public, and which are names."""

    def test_public(self) -> None:
        """A dot, and none of the reserved endings."""
        for name in (
            "core-live-a.stellar.org", "a.xlocalhost", "local.example", "a.b", "localhost.com",
            "0x7f000001", "0x7f.1", "127.1.", "a.internal.example", "0x", "A.TEST.example",
        ):  # fmt: skip
            self.assertTrue(is_public_name(name), name)

    def test_not_public(self) -> None:
        """No dot, or an ending that no public name server knows."""
        for name in (
            "localhost", "localhost.", "LocalHost", "node", "node.", "a.localhost", "printer.local",
            "vm.internal", "nas.lan", "x.home.arpa", "x.home.arpa.", "a.b.test", "a.invalid",
        ):  # fmt: skip
            self.assertFalse(is_public_name(name), name)

    @settings(derandomize=True, max_examples=200)
    @given(st.from_regex(r"[A-Za-z0-9.-]{1,253}", fullmatch=True))
    def test_names(self, name: str) -> None:
        """Whatever counts as a name can be encoded as one, so that libc gets to see it."""
        if is_host_name(name):
            name.removesuffix(".").encode("idna")
        self.assertIsInstance(is_public_name(name), bool)


class ModelTests(SynchronousTestCase):
    """Any order of questions, answers, cancellations and time."""

    @settings(derandomize=True, max_examples=100)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("ask"), st.integers(0, 9)),
                st.tuples(st.just("answer"), st.integers(0, 9)),
                st.tuples(st.just("cancel"), st.integers(0, 9)),
                st.tuples(st.just("wait"), st.integers(1, 4)),
            ),
            max_size=60,
        )
    )
    def test_invariants(self, steps: list[tuple[str, int]]) -> None:
        """Never more than four lookups under way; each question has one answer, within 5 s."""
        reactor = ReactorWithNames()
        resolve = name_resolver(reactor, allow_private=False)
        asked: list[tuple[float, Deferred[ResolvedPeerAddress], list[float]]] = []

        def note_time(_: object, times: list[float]) -> None:
            times.append(reactor.seconds())

        for action, number in steps:
            if action == "ask":
                answer = resolve(PeerAddress(f"n{number}.example"))
                asked.append((reactor.seconds(), answer, []))
                answer.addBoth(note_time, asked[-1][2])
            elif action == "answer" and reactor.names.waiting:
                waiting = reactor.names.waiting
                reactor.names.answer(waiting[number % len(waiting)][0], PUBLIC)
            elif action == "cancel" and asked:
                asked[number % len(asked)][1].cancel()
            elif action == "wait":
                reactor.pump([1] * number)
            self.assertLessEqual(len(reactor.names.waiting), MAX_LOOKUPS)
        reactor.pump([1] * 5)
        for began, _, times in asked:
            self.assertEqual(len(times), 1)
            self.assertLessEqual(times[0] - began, 5)
        self.assertEqual(reactor.getDelayedCalls(), [])
