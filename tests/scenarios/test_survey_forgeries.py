"""Survey messages by the thousand that nobody has signed (reliability.md T37 and M-23)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice

from stellar_overlay.error import DropReason, SurveyRefusal
from stellar_overlay.gossip.survey_limiter import (
    CHECKS_FOR_NEW_LINKS,
    MAX_CHECKS_PER_LEDGER,
    SurveyLimiterStats,
)
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.scripted_host import ScriptedHost
from stellar_overlay.wire.message import Message
from tests.scenarios.surveys import (
    INACTIVE,
    INVALID,
    REPORTING,
    RESPONSE,
    START,
    STOP,
    SURVEY,
    OneNodeTestCase,
    bodies,
    collecting,
    request,
    response,
)
from tests.scenarios.traffic import Neighbour, externalized, validator

LEDGER = 1000
LEDGERS = range(LEDGER - 8, LEDGER + 9)
"""Two more than are looked at, either way."""
IN_WINDOW = 13
SURVEYORS = [validator(number) for number in range(50, 54)]
STRANGERS = [validator(number) for number in range(60, 64)]
ASKED = [validator(number) for number in range(70, 73)]
FORGERIES = 5_000


class ForgeryTestCase(OneNodeTestCase):
    """A node that four may survey, and forgers who call again whenever they are dropped."""

    def setUp(self) -> None:
        super().setUp()
        self.begin_at(LEDGER, others=SURVEYORS[1:])
        self.chance = random.Random(23)
        self.dropped = 0
        self.forgers: list[Neighbour] = []

    def garbage(self, signed: bytes) -> bytes:
        """Return a signature: of the right length mostly, and never the same twice."""
        size = 64 if self.chance.random() < 0.95 else self.chance.randrange(64)
        return self.chance.randbytes(size)

    def forge(self, messages: Iterator[Message]) -> None:
        """Send forgeries, four at a time, from hosts that come back; each is judged alone."""
        hosts = [self.host(f"forger {number}", Neighbour) for number in range(4)]
        self.forgers = [self.dial(host, Neighbour) for host in hosts]
        for message in messages:
            number = self.chance.randrange(len(hosts))
            if self.forgers[number].is_closed:
                self.come_back(number, hosts[number])
            self.forgers[number].send(message)
            self.network.advance(0)
        for number, host in enumerate(hosts):
            if self.forgers[number].is_closed:
                self.come_back(number, host)

    def come_back(self, number: int, host: ScriptedHost) -> None:
        """Note what a forger was told when it was dropped, and let it call again."""
        self.assertEqual(self.forgers[number].error, INVALID)
        self.dropped += 1
        self.forgers[number] = self.dial(host, Neighbour)

    def assert_bounded(self, checks_before: int) -> None:
        """Check what it cost the node: signatures, memory; and that it has said nothing."""
        checks = self.checks(self.node) - checks_before
        most = len(SURVEYORS) * IN_WINDOW * MAX_CHECKS_PER_LEDGER
        self.assertGreater(checks, most // 2)
        self.assertLessEqual(checks, most)
        self.assertGreater(self.dropped, checks)  # and for wrong lengths
        drops = self.node.metrics.drops
        self.assertEqual(drops[DropReason.BAD_SURVEY_SIGNATURE].get(), self.dropped)
        refused = self.refused(self.node)
        self.assertGreater(refused[SurveyRefusal.TOO_MANY_CHECKS], 100)
        self.assertEqual(refused[SurveyRefusal.BAD_SIGNATURE], self.dropped)
        for peer in (*self.forgers, self.speaker, self.listener):
            self.assertFalse(peer.is_closed)
        self.assertEqual(len(self.node.peer_infos()), len(self.forgers) + 2)

    def limiter(self) -> SurveyLimiterStats:
        """Return what the limiter remembers."""
        return self.node.survey._limiter.stats


class ForgeryTests(ForgeryTestCase):
    """M-23: ten thousand in all."""

    def test_before_a_survey(self) -> None:
        """STARTs and STOPs in the name of those who may, and of those who may not."""

        def forgeries() -> Iterator[Message]:
            for surveyor, kind in cycle(
                (one, kind) for one in (*SURVEYORS, *STRANGERS) for kind in (START, STOP)
            ):
                ledger, nonce = self.chance.choice(LEDGERS), self.chance.randrange(2**32)
                yield collecting(kind, surveyor, nonce=nonce, ledger=ledger, sign=self.garbage)

        records = self.figures(self.node, "flood_known_count")
        self.forge(islice(forgeries(), FORGERIES))
        self.assert_bounded(0)
        self.assert_phases([self.node], INACTIVE, None)
        self.assertEqual(self.figures(self.node, "flood_known_count"), records)
        stats = self.limiter()
        self.assertEqual((stats.requests, stats.answered), (0, 0))
        self.assertLessEqual(stats.checks, len(SURVEYORS) * IN_WINDOW * MAX_CHECKS_PER_LEDGER)
        self.assertLessEqual(stats.ledgers, IN_WINDOW)
        self.assert_nothing_said()

    def test_during_a_survey(self) -> None:
        """STOPs, REQUESTs and RESPONSEs; of nodes that were asked, too, and of us."""
        self.report()
        asked = [self.ask(one.peer_id, ledger=ledger) for ledger in LEDGERS[2:-2] for one in ASKED]
        self.assert_relayed(*asked)
        self.assertEqual(self.limiter().requests, len(asked))
        records = self.figures(self.node, "flood_known_count")
        heard = Counter(message.type for message in self.listener.received)
        checks = self.checks(self.node)
        self.forge(islice(self.forgeries_of(asked), FORGERIES))
        self.assert_bounded(checks)
        self.assert_phases([self.node], REPORTING)
        self.assertEqual(self.figures(self.node, "flood_known_count"), records)
        stats = self.limiter()
        self.assertEqual((stats.requests, stats.answered), (len(asked), 0))
        now = Counter(message.type for message in self.listener.received)
        self.assertEqual([now[kind] - heard[kind] for kind in SURVEY], [0, 0, 0, 0])
        self.assertEqual([one for peer in self.forgers for one in peer.bodies(RESPONSE)], [])
        self.assertEqual(self.node.metrics.survey_answers.get(), 0)

        # In a ledger that nobody forges for, everything is as it was.
        self.speaker.flood(*self.next_ledgers(9))
        self.network.advance(0)
        genuine = self.ask(ASKED[0].peer_id, ledger=LEDGERS[-1])
        self.assert_relayed(genuine, response(genuine, ASKED[0]))
        self.assertEqual([one.type for one in self.say(self.ask(ledger=LEDGERS[-1]))], [RESPONSE])

    def forgeries_of(self, asked: list[Message]) -> Iterator[Message]:
        """Yield messages with the number of the survey, signed by nobody."""
        while True:
            ledger = self.chance.choice(LEDGERS)
            by = self.chance.choice((*SURVEYORS, *STRANGERS))
            of = self.chance.choice((*STRANGERS, *ASKED, self.node.local_node)).peer_id
            yield collecting(STOP, by, ledger=ledger, sign=self.garbage)
            yield request(by, of, ledger=ledger, sign=self.garbage)
            question = self.chance.choice(asked)
            yield response(question, self.chance.choice(ASKED), sign=self.garbage)

    def next_ledgers(self, count: int) -> list[Message]:
        """Return what moves consensus by so many ledgers."""
        return [externalized(LEDGER + number) for number in range(1, count + 1)]

    def assert_nothing_said(self) -> None:
        """Check that no peer was told anything of surveys."""
        for peer in (*self.forgers, self.speaker, self.listener):
            self.assertEqual([one for one in peer.received if one.type in SURVEY], [])


class StrangerTests(ForgeryTestCase):
    """Who is not on the list signs everything well, and gets nothing."""

    def test_well_signed(self) -> None:
        """Whole surveys of strangers, by the hundred: no check, no answer, no drop, no memory."""
        self.report()
        before, limiter = self.checks(self.node), self.limiter()
        records = self.figures(self.node, "flood_known_count")
        said = [message for by in STRANGERS for message in self.survey_by(by)]
        self.assert_ignored(SurveyRefusal.NOT_PERMITTED, *said)
        self.assertEqual((self.checks(self.node), self.limiter()), (before, limiter))
        self.assertEqual(self.figures(self.node, "flood_known_count"), records)
        self.assertEqual(self.speaker.bodies(RESPONSE), [])

    def survey_by(self, by: LocalNode) -> list[Message]:
        """Return all that a surveyor may say within the window."""
        of = [self.node.local_node.peer_id, ASKED[0].peer_id]
        return [
            message
            for ledger in LEDGERS[2:-2]
            for message in (
                collecting(START, by, ledger=ledger),
                collecting(STOP, by, ledger=ledger),
                *(request(by, one, ledger=ledger) for one in of),
            )
        ]

    def test_the_same_bad_one_again_and_again(self) -> None:
        """Eight are checked on new links, each costs one; the others are for those we know."""
        bad = self.start(sign=self.garbage_of_64)
        for _ in range(CHECKS_FOR_NEW_LINKS):
            self.assert_dropped(bad, DropReason.BAD_SURVEY_SIGNATURE, is_checked=True)
        self.assert_ignored(SurveyRefusal.TOO_MANY_CHECKS, bad, self.start(), bad)
        self.assertEqual(self.checks(self.node), CHECKS_FOR_NEW_LINKS)
        self.assert_relayed(self.start(ledger=LEDGER + 1))  # the next one is free
        self.assertEqual(
            bodies(self.say(self.stop(ledger=LEDGER + 1))), [self.stop(ledger=LEDGER + 1).body]
        )

    def garbage_of_64(self, signed: bytes) -> bytes:
        """Return a signature that is the same each time."""
        return bytes(64)
