"""KNOWN_PEERS and PREFERRED_PEERS: rounds, retries, results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import ConnectionFailed
from stellar_overlay.node.configured_peers import (
    LOOKUPS_AT_ONCE,
    MAX_CONFIGURED_PEERS,
    ConfiguredPeers,
    Resolved,
)

Answer = Deferred[ResolvedPeerAddress]


def named(*hosts: str) -> list[PeerAddress]:
    """Return addresses as they are configured."""
    return [PeerAddress(host) for host in hosts]


def at(*hosts: str) -> tuple[ResolvedPeerAddress, ...]:
    """Return addresses as they are resolved."""
    return tuple(ResolvedPeerAddress(host) for host in hosts)


class Names:
    """A resolver: names in ``hosts`` are found, those in ``silent`` get no answer, others fail."""

    def __init__(self, **hosts: str) -> None:
        self.hosts = hosts
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.waiting: list[tuple[str, Answer]] = []
        self.cancelled: list[str] = []

    def __call__(self, address: PeerAddress) -> Answer:
        assert not address.is_numeric, "it needs no lookup"
        name = address.host
        self.asked.append(name)
        if name in self.silent:
            answer: Answer = Deferred(lambda _: self.cancelled.append(name))
            self.waiting.append((name, answer))
            return answer
        if name not in self.hosts:
            return fail(ConnectionFailed(f'"{name}": no such name'))
        return succeed(ResolvedPeerAddress(self.hosts[name], address.port))


class ConfiguredPeersTestCase(SynchronousTestCase):
    """A service on a clock, with its log."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.names = Names(a="1.1.1.1", b="2.2.2.2", c="3.3.3.3")
        self.log: list[LogEvent] = []
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def note(self, event: LogEvent) -> None:
        self.log.append(event)

    def service(
        self, known: Sequence[str] = (), preferred: Sequence[str] = (), *, start: bool = True
    ) -> ConfiguredPeers:
        service = ConfiguredPeers(named(*known), named(*preferred), self.names, self.clock)
        if start:
            service.startService()
        return service

    def taken(self, service: ConfiguredPeers) -> Resolved:
        results = service.take_results()
        assert results is not None
        return results

    def said(self, level: LogLevel = LogLevel.warn) -> list[str]:
        """Return the lines that were logged at a level since the last call."""
        lines = [formatEvent(event) for event in self.log if event["log_level"] is level]
        self.log.clear()
        return lines

    def rounds(self, count: int) -> list[float]:
        """Return the pauses before the next so many rounds."""
        pauses = []
        for _ in range(count):
            (call,) = self.clock.getDelayedCalls()
            pause = call.getTime() - self.clock.seconds()
            pauses.append(pause)
            self.clock.advance(pause)
        return pauses


class RoundTests(ConfiguredPeersTestCase):
    """One round."""

    def test_results(self) -> None:
        """Positional order, known then preferred, and only once (Y32)."""
        service = self.service(["b", "9.9.9.9", "a"], ["c", "8.8.8.8"])
        self.assertEqual(self.names.asked, ["b", "a", "c"])
        results = self.taken(service)
        self.assertEqual(results.known, at("2.2.2.2", "9.9.9.9", "1.1.1.1"))
        self.assertEqual(results.preferred, at("3.3.3.3", "8.8.8.8"))
        self.assertEqual((service.known, service.preferred), (results.known, results.preferred))
        self.assertEqual(service.preferred_set, frozenset(results.preferred))
        self.assertIsNone(service.take_results())

    def test_order_of_answers(self) -> None:
        """The order of the configuration counts, not that of the answers."""
        self.names.silent = {"a", "b", "c"}
        service = self.service(["a", "b", "c"])
        for name, answer in reversed(self.names.waiting):
            self.assertIsNone(service.take_results())
            answer.callback(ResolvedPeerAddress(self.names.hosts[name]))
        self.assertEqual(self.taken(service).known, at("1.1.1.1", "2.2.2.2", "3.3.3.3"))

    def test_only_numbers(self) -> None:
        """They need no lookup, no time, and no second round."""
        service = self.service(["9.9.9.9"], ["8.8.8.8"])
        self.assertEqual(self.taken(service).known, at("9.9.9.9"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing(self) -> None:
        """No peers at all is a round, too."""
        service = self.service()
        self.assertEqual(service.take_results(), Resolved(known=(), preferred=()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_before_the_start(self) -> None:
        """Nobody is asked anything."""
        service = self.service(["a"], start=False)
        self.assertEqual((service.take_results(), service.known, self.names.asked), (None, (), []))

    def test_in_both_lists(self) -> None:
        """Such a peer is preferred only, whether the names are the same or just the address."""
        self.names.hosts["alias"] = "1.1.1.1"
        service = self.service(["a", "alias", "b"], ["a"])
        self.assertEqual(self.names.asked, ["alias", "b", "a"])
        results = self.taken(service)
        self.assertEqual((results.known, results.preferred), (at("2.2.2.2"), at("1.1.1.1")))

    def test_aliases(self) -> None:
        """Names that lead to one address are one peer (Y26)."""
        self.names.hosts["alias"] = "1.1.1.1"
        service = self.service(["alias", "a", "1.1.1.1", "a"])
        self.assertEqual(self.taken(service).known, at("1.1.1.1"))

    def test_bad_names_are_skipped(self) -> None:
        """The others are found nevertheless (Y32); each bad one has its line."""
        service = self.service(["a", "bad", "b"], ["worse"])
        self.assertEqual(self.taken(service).known, at("1.1.1.1", "2.2.2.2"))
        self.assertEqual(
            self.said(),
            [
                'bad:11625 is skipped: "bad": no such name',
                'worse:11625 is skipped: "worse": no such name',
            ],
        )

    def test_many_names(self) -> None:
        """Fifty are looked up at once; the next begins when one ends."""
        hosts = [f"n{number}" for number in range(LOOKUPS_AT_ONCE + 1)]
        self.names.silent = set(hosts)
        service = self.service(hosts)
        self.assertEqual(len(self.names.asked), LOOKUPS_AT_ONCE)
        self.names.waiting[7][1].errback(ConnectionFailed("no"))
        self.assertEqual(self.names.asked[LOOKUPS_AT_ONCE:], hosts[LOOKUPS_AT_ONCE:])
        for _, answer in self.names.waiting:
            if not answer.called:
                answer.callback(*at("5.5.5.5"))
        self.assertEqual(self.taken(service).known, at("5.5.5.5"))

    def test_a_fault_of_ours(self) -> None:
        """A resolver that raises what it should not spoils one name, and is reported."""
        service = ConfiguredPeers(
            named("a", "odd"),
            [],
            lambda address: fail(ValueError()) if address.host == "odd" else self.names(address),
            self.clock,
        )
        service.startService()
        self.assertEqual(self.taken(service).known, at("1.1.1.1"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class ScheduleTests(ConfiguredPeersTestCase):
    """When the next round is (connection.md 8.7.2)."""

    def test_clean_round(self) -> None:
        """Every ten minutes."""
        self.service(["a"])
        self.assertEqual(self.rounds(4), [600] * 4)
        self.assertEqual(self.names.asked, ["a"] * 5)

    def test_retries(self) -> None:
        """10, 20, … 600 s; then every 600 s for ever (Y32)."""
        service = self.service(["a", "bad"])
        self.assertEqual(self.rounds(70), [*range(10, 600, 10)] + [600] * 11)
        self.assertEqual(self.taken(service).known, at("1.1.1.1"))

    def test_no_retries_after_a_clean_round(self) -> None:
        """The first round without an error ends the short pauses for good."""
        self.service(["a", "bad"])
        self.assertEqual(self.rounds(2), [10, 20])
        self.names.hosts["bad"] = "4.4.4.4"
        self.assertEqual(self.rounds(1), [30])
        del self.names.hosts["bad"]
        self.assertEqual(self.rounds(3), [600] * 3)

    def test_pause_begins_at_the_end(self) -> None:
        """Lookups that take long put the next round off, and rounds never overlap."""
        self.names.silent = {"a"}
        self.service(["a"])
        self.clock.advance(1000)
        self.assertEqual(self.names.asked, ["a"])
        self.names.waiting[0][1].callback(*at("1.1.1.1"))
        self.clock.advance(599)
        self.assertEqual(self.names.asked, ["a"])
        self.clock.advance(1)
        self.assertEqual(self.names.asked, ["a", "a"])

    def test_dead_names_do_not_starve_others(self) -> None:
        """What failed is looked up last, and from another name on in each round."""
        self.service(["d0", "d1", "d2", "d3", "d4", "d5", "a"])
        self.names.asked.clear()
        self.rounds(1)
        self.assertEqual(self.names.asked, ["a", "d4", "d5", "d0", "d1", "d2", "d3"])
        self.assertEqual(len(self.said()), 6)

    def test_a_fault_of_ours(self) -> None:
        """It is logged, and the next round comes all the same."""
        service = self.service(["a"])
        faults = [ZeroDivisionError()]
        publish = service._publish

        def fail_once() -> None:
            if faults:
                raise faults.pop()
            publish()

        self.patch(service, "_publish", fail_once)
        self.taken(service)
        self.assertEqual(self.rounds(2), [600, 600])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNotNone(service.take_results())


class ChangeTests(ConfiguredPeersTestCase):
    """What differs from round to round."""

    def test_new_address(self) -> None:
        """A host that moves is found at its new address, under its name, and that is said."""
        service = self.service(["a"])
        self.taken(service)
        self.names.hosts["a"] = "5.5.5.5"
        self.rounds(1)
        results = self.taken(service)
        self.assertEqual(results.known, at("5.5.5.5"))
        self.assertEqual(self.said(LogLevel.info), ["a:11625 moved from 1.1.1.1 to 5.5.5.5"])

    def test_results_that_nobody_took(self) -> None:
        """The latest are what counts, and they are still the first."""
        service = self.service(["a"])
        self.names.hosts["a"] = "5.5.5.5"
        self.rounds(1)
        results = self.taken(service)
        self.assertEqual(results.known, at("5.5.5.5"))
        self.assertIsNone(service.take_results())

    def test_preferred_name_is_lost(self) -> None:
        """It is preferred no more until it is found again (row 62)."""
        service = self.service([], ["a", "b"])
        host = self.names.hosts.pop("a")
        self.rounds(1)
        self.assertEqual(service.preferred, at("2.2.2.2"))
        self.assertEqual(service.preferred_set, frozenset(at("2.2.2.2")))
        self.names.hosts["a"] = host
        self.rounds(1)
        self.assertEqual(service.preferred, at("1.1.1.1", "2.2.2.2"))

    def test_said_once(self) -> None:
        """A name that goes on failing is said once; that it is back, too; then it is news again."""
        self.service(["bad"])
        self.assertEqual(len(self.said()), 1)
        self.rounds(5)
        self.assertEqual(self.said(), [])
        self.names.hosts["bad"] = "4.4.4.4"
        self.rounds(2)
        self.assertEqual(self.said(LogLevel.info), ["bad:11625 was found again: 4.4.4.4"])
        del self.names.hosts["bad"]
        self.rounds(3)
        self.assertEqual(len(self.said()), 1)


class AddTests(ConfiguredPeersTestCase):
    """Known peers that home domains tell of."""

    def test_added_later(self) -> None:
        """They are looked up at once and alone, and in every later round with the others."""
        service = self.service(["a"], ["b"])
        self.taken(service)
        self.names.asked.clear()
        service.add_known(named("c", "9.9.9.9"))
        self.assertEqual(self.names.asked, ["c"])
        results = self.taken(service)
        self.assertEqual(results.known, at("1.1.1.1", "3.3.3.3", "9.9.9.9"))
        self.assertEqual(results.preferred, at("2.2.2.2"))
        self.assertEqual(self.rounds(1), [600])
        self.assertEqual(self.names.asked, ["c", "a", "c", "b"])

    def test_the_schedule_stays(self) -> None:
        """A round of additions, good or bad, puts nothing off."""
        service = self.service(["bad"])
        self.clock.advance(4)
        service.add_known(named("a"))
        service.add_known(named("worse"))
        self.assertEqual(self.rounds(2), [6, 20])

    def test_no_names_before(self) -> None:
        """The first name that is added begins the rounds, with the short pauses of a beginning."""
        service = self.service(["9.9.9.9"])
        service.add_known(named("8.8.8.8"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        service.add_known(named("bad"))
        self.assertEqual(service.known, at("9.9.9.9", "8.8.8.8"))
        self.assertEqual(self.rounds(2), [10, 20])

    def test_during_a_round(self) -> None:
        """They wait for its end; what comes together is looked up together."""
        self.names.silent = {"a"}
        service = self.service(["a"])
        service.add_known(named("b"))
        service.add_known(named("c"))
        self.assertEqual(self.names.asked, ["a"])
        self.names.waiting[0][1].callback(*at("1.1.1.1"))
        self.assertEqual(self.names.asked, ["a", "b", "c"])
        results = self.taken(service)
        self.assertEqual(results.known, at("1.1.1.1", "2.2.2.2", "3.3.3.3"))

    def test_a_round_that_is_due_meanwhile(self) -> None:
        """A round of additions may take longer than the pause: the whole round follows it."""
        service = self.service(["a"])
        self.names.silent = {"b"}
        service.add_known(named("b"))
        self.clock.advance(700)
        self.assertEqual(self.names.asked, ["a", "b"])
        self.names.silent.clear()
        self.names.waiting[0][1].callback(*at("2.2.2.2"))
        self.assertEqual(self.names.asked, ["a", "b", "a", "b"])

    def test_before_the_start(self) -> None:
        """The first round has them."""
        service = self.service(["a"], start=False)
        service.add_known(named("b"))
        self.assertEqual(self.names.asked, [])
        service.startService()
        self.assertEqual(self.taken(service).known, at("1.1.1.1", "2.2.2.2"))

    def test_duplicates(self) -> None:
        """What is configured already is not added; nothing new is no round."""
        service = self.service(["a"], ["b"])
        self.taken(service)
        service.add_known(named("a", "b", "c", "c"))
        self.assertEqual(self.names.asked, ["a", "b", "c"])
        self.taken(service)
        service.add_known(named("a", "c"))
        service.add_known([])
        self.assertIsNone(service.take_results())

    def test_at_most_a_thousand(self) -> None:
        """Y28: what is beyond is ignored, with one line in all; preferred peers come first."""
        hosts = [f"10.0.{number // 250}.{number % 250}" for number in range(MAX_CONFIGURED_PEERS)]
        service = self.service(hosts, ["a"])
        self.assertEqual(len(service.known), MAX_CONFIGURED_PEERS - 1)
        self.assertEqual(service.preferred, at("1.1.1.1"))
        service.add_known(named("b", "c"))
        self.assertEqual(self.names.asked, ["a"])
        self.assertEqual(len(self.said()), 1)


class StopTests(ConfiguredPeersTestCase):
    """Stopping leaves nothing."""

    def test_between_rounds(self) -> None:
        """The timer is gone; what was found can still be read."""
        service = self.service(["a"])
        service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(service.known, at("1.1.1.1"))

    def test_in_the_middle_of_a_lookup(self) -> None:
        """Lookups are cancelled, those that wait are not begun, and late answers are nothing."""
        hosts = [f"n{number}" for number in range(LOOKUPS_AT_ONCE + 10)]
        self.names.silent = set(hosts)
        service = self.service(hosts)
        service.add_known(named("b"))
        service.stopService()
        self.assertEqual(self.names.cancelled, hosts[:LOOKUPS_AT_ONCE])
        self.assertEqual(self.names.asked, hosts[:LOOKUPS_AT_ONCE])
        self.names.waiting[0][1].addErrback(lambda _: None)
        self.clock.advance(10_000)
        self.assertIsNone(service.take_results())
        self.assertEqual((self.clock.getDelayedCalls(), self.said()), ([], []))

    def test_add_after_the_stop(self) -> None:
        """It is too late."""
        service = self.service(["a"])
        service.stopService()
        service.add_known(named("b"))
        self.assertEqual(self.names.asked, ["a"])

    def test_start_again(self) -> None:
        """A service that starts anew begins with a round."""
        service = self.service(["a"])
        service.stopService()
        service.add_known(named("b"))
        service.startService()
        self.assertEqual(self.names.asked, ["a", "a", "b"])
        self.assertEqual(self.rounds(1), [600])


class ModelTests(SynchronousTestCase):
    """Any order of additions, failures, answers and time."""

    STEPS = st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 7)),
            st.tuples(st.just("flip"), st.integers(0, 7)),
            st.tuples(st.just("mute"), st.integers(0, 7)),
            st.tuples(st.just("answer"), st.integers(0, 7)),
            st.tuples(st.just("wait"), st.integers(1, 700)),
        ),
        max_size=40,
    )

    @settings(derandomize=True, max_examples=150)
    @given(STEPS)
    def test_invariants(self, steps: list[tuple[str, int]]) -> None:
        """At most one timer, no address twice, none in both lists, and nothing after the stop."""
        clock, names = Clock(), Names()
        service = ConfiguredPeers(named("n0", "n1", "9.9.9.9"), named("n2", "n1"), names, clock)
        service.startService()
        for action, number in steps:
            self.take_step(service, clock, names, action, number)
            self.assertEqual(len(set(service.known)), len(service.known))
            self.assertEqual(service.preferred_set, set(service.preferred))
            self.assertFalse(service.preferred_set & set(service.known))
            self.assertLessEqual(len(clock.getDelayedCalls()), 1)
        service.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertTrue(all(answer.called for _, answer in names.waiting))

    def take_step(
        self, service: ConfiguredPeers, clock: Clock, names: Names, action: str, number: int
    ) -> None:
        name = f"n{number}"
        if action == "add":
            service.add_known(named(name, f"4.4.4.{number}"))
        elif action == "flip" and names.hosts.pop(name, None) is None:
            names.hosts[name] = f"1.1.1.{number % 3}"
        elif action == "mute":
            names.silent ^= {name}
        elif action == "answer":
            for _, answer in names.waiting[:]:
                if not answer.called:
                    answer.callback(ResolvedPeerAddress(f"2.2.2.{number}"))
        elif action == "wait":
            clock.advance(number)
