"""Who asks for what we are fetching ourselves, and gets it when it comes."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip import early_questions
from stellar_overlay.gossip.early_questions import MAX_ASKERS, PATIENCE_SECONDS, EarlyQuestions
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.message import MessageType, decode_dont_have
from stellar_overlay.wire.quorum_set import quorum_set_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set, tx_set_hash
from tests.builders import scp_nominate
from tests.gossip.dispatching import (
    GENERALIZED,
    HASH,
    QUORUM_SET,
    REPLY_SECONDS,
    TX_SET,
    DispatcherTestCase,
    FakeLink,
    dont_have,
    get_quorum_set,
    get_tx_set,
    number_hash,
    waiter,
)


class AskerTests(DispatcherTestCase):
    """Who asks for what we are fetching ourselves has it when it comes.

    We pass an SCP message on before we have what it names, so that others ask us too early.
    """

    def setUp(self) -> None:
        super().setUp()
        self.asker = FakeLink(3)
        self.links[self.asker.peer_id] = self.asker
        self.asker.ping_ms = 4000
        self.hash = tx_set_hash(GENERALIZED.body)
        self.question = get_tx_set(self.hash)
        self.denial = dont_have(MessageType.GENERALIZED_TX_SET, self.hash)
        self.one_who_waits = waiter([])
        self.fetch()
        self.addCleanup(self.leave_nothing_behind)

    def leave_nothing_behind(self) -> None:
        """Check that a shutdown leaves no timer, and that nobody is told anything more."""
        links = [link for link in self.links.values() if isinstance(link, FakeLink)]
        self.dispatcher.shutdown()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for link in links:
            link.take()
        self.clock.advance(10)
        self.assertEqual([link.sent for link in links], [[]] * len(links))

    def fetch(self) -> None:
        """Begin to look for the item; the first peer is asked."""
        self.dispatcher.fetch_tx_set(self.hash, self.one_who_waits)
        self.assertEqual(self.first.take(), [self.question])

    def ask_early(self, *askers: FakeLink) -> None:
        """Let these ask for the item; nobody is answered for now."""
        for asker in askers or [self.asker]:
            self.assertEqual(self.ask(self.question, link=asker), [])

    def give(self, link: FakeLink | None = None) -> None:
        """Let the item come; nobody was sent anything before."""
        for each in self.links.values():
            assert isinstance(each, FakeLink)
            each.take()
        self.say(GENERALIZED, link=link)

    def test_it_comes_soon(self) -> None:
        """To each asker, once, as the only answer; and to nobody else."""
        others = [FakeLink(number) for number in (4, 5)]
        self.links |= {other.peer_id: other for other in others}
        self.ask_early(self.asker, others[0])
        self.clock.advance(PATIENCE_SECONDS - 0.001)
        self.give()
        self.assertEqual([self.asker.take(), others[0].take()], [[GENERALIZED]] * 2)
        self.assertEqual((self.first.sent, self.second.sent, others[1].sent), ([], [], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.say(GENERALIZED)
        self.say(GENERALIZED, link=self.second)
        self.assertEqual(self.asker.sent + others[0].sent, [])

    def test_it_comes_late(self) -> None:
        """Who has waited long enough is told that it is not here, and gets it all the same."""
        self.assertEqual(PATIENCE_SECONDS, 0.5)
        self.ask_early()
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual(self.asker.take(), [self.denial])
        self.clock.advance(30)
        self.assertNotIn(self.denial, self.asker.take())
        self.give()
        self.assertEqual(self.asker.take(), [GENERALIZED])

    def test_who_asks_again(self) -> None:
        """Has waited before: it is told at once, each time, and gets the item once."""
        self.ask_early()
        for _ in range(3):
            self.assertEqual(self.ask(self.question, link=self.asker), [self.denial])
        self.clock.advance(1)
        self.assertEqual(self.asker.take(), [self.denial])
        self.assertEqual(self.ask(self.question, link=self.asker), [self.denial])
        self.clock.advance(1)
        self.assertEqual(self.asker.take(), [])
        self.give()
        self.assertEqual(self.asker.take(), [GENERALIZED])

    def test_each_waits_for_a_while(self) -> None:
        """No longer than that; who comes after the others were turned away, as long again."""
        self.ask_early()
        self.clock.advance(0.25)
        self.ask_early(self.second)
        self.clock.advance(0.25)
        self.assertEqual([self.asker.take(), self.second.take()], [[self.denial]] * 2)
        late = FakeLink(4)
        self.links[late.peer_id] = late
        self.ask_early(late)
        self.clock.advance(0.499)
        self.assertEqual(late.take(), [])
        self.clock.advance(0.001)
        self.assertEqual((late.take(), self.asker.take()), ([self.denial], []))

    def test_quorum_sets(self) -> None:
        """Likewise, with the other type in DONT_HAVE; the kinds do not mix."""
        item_hash = quorum_set_hash(QUORUM_SET.body)
        self.dispatcher.fetch_quorum_set(item_hash, waiter([]))
        self.assertEqual(self.ask(get_quorum_set(item_hash), link=self.asker), [])
        (answer,) = self.ask(get_tx_set(item_hash), link=self.asker)
        self.assertEqual(decode_dont_have(answer.body), (17, item_hash))
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual(decode_dont_have(self.asker.take()[0].body), (10, item_hash))
        self.say(QUORUM_SET)
        self.assertEqual(self.asker.take(), [QUORUM_SET])
        self.say(GENERALIZED)
        self.assertEqual(self.asker.take(), [])

    def test_what_is_published(self) -> None:
        """Comes from ourselves: all who asked have it."""
        self.ask_early(self.asker, self.second)
        self.dispatcher.cache_item(GENERALIZED)
        self.assertEqual([self.asker.take(), self.second.take()], [[GENERALIZED]] * 2)

    def test_a_herder_that_raises(self) -> None:
        """Keeps it from nobody."""
        self.ask_early()
        self.herder.failure = ZeroDivisionError()
        with self.assertRaises(ZeroDivisionError):
            self.say(GENERALIZED)
        self.assertEqual(self.asker.take(), [GENERALIZED])

    def test_who_sends_it(self) -> None:
        """Has it: it is not sent back, and a later question of the sender is answered."""
        self.ask_early()
        self.give(self.asker)
        self.assertEqual(self.asker.sent, [])
        self.assertEqual(self.ask(self.question, link=self.asker), [GENERALIZED])

    def test_who_has_gone(self) -> None:
        """Is told nothing, and keeps it from nobody."""
        self.ask_early(self.second, self.asker)
        del self.links[self.second.peer_id]
        self.dispatcher.forget(self.second)
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual((self.second.sent, self.asker.take()), ([], [self.denial]))
        self.give()
        self.assertEqual((self.second.sent, self.asker.sent), ([], [GENERALIZED]))
        self.assertEqual(self.metrics.answers_refused.get(), 0)

    def test_when_it_is_given_up(self) -> None:
        """As consensus has moved: who waits is turned away at once, and forgotten."""
        self.dispatcher.stop_fetch_tx_set(self.hash, self.one_who_waits)
        slotted = waiter([], slot=5, envelope=scp_nominate(5).body)
        self.dispatcher.fetch_tx_set(self.hash, slotted)
        self.ask_early()
        self.dispatcher.stop_fetching_outside_range(5, None, 0)
        self.assertEqual(self.asker.take(), [])
        self.dispatcher.stop_fetching_outside_range(6, None, 0)
        self.assertEqual(self.asker.take(), [self.denial])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.dispatcher.cache_item(GENERALIZED)
        self.assertEqual(self.asker.take(), [])

    def test_when_nobody_here_wants_it_any_more(self) -> None:
        """Who waits is turned away in time; who asks then, at once."""
        self.ask_early()
        self.dispatcher.stop_fetch_tx_set(self.hash, self.one_who_waits)
        self.assertEqual(self.ask(self.question, link=self.second), [self.denial])
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual(self.asker.take(), [self.denial])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_asked_before_we_did(self) -> None:
        """It is told that the item is not here, and no more."""
        other = tx_set(number_hash(7), [])
        item_hash = tx_set_hash(other.body)
        (answer,) = self.ask(get_tx_set(item_hash), link=self.asker)
        self.assertEqual(decode_dont_have(answer.body), (17, item_hash))
        self.dispatcher.fetch_tx_set(item_hash, waiter([]))
        self.say(other)
        self.assertEqual(self.asker.take(), [])

    def test_who_asks_too_much(self) -> None:
        """A question that is ignored makes nobody an asker."""
        self.ask(*300 * [get_tx_set(number_hash(1))], link=self.asker)
        self.ask_early()
        self.clock.advance(1)
        self.assertEqual(self.asker.take(), [])
        self.give()
        self.assertEqual(self.asker.take(), [])

    def be_turned_away(self, *askers: FakeLink) -> None:
        """Ask for what does not come in time."""
        self.ask_early(*askers)
        self.clock.advance(PATIENCE_SECONDS)
        for asker in askers:
            self.assertEqual(asker.take(), [self.denial])

    def test_a_question_that_crosses_with_it(self) -> None:
        """After a DONT_HAVE: it is not sent twice. The next question is answered."""
        for seconds in (0.0, REPLY_SECONDS - 0.001):
            self.be_turned_away(self.asker)
            self.give()
            self.assertEqual(self.asker.take(), [GENERALIZED])
            self.clock.advance(seconds)
            self.assertEqual(self.ask(self.question, link=self.asker), [])
            self.assertEqual(self.ask(self.question, link=self.asker), [GENERALIZED])
            self.dispatcher = self.make(self.herder)
            self.fetch()

    def test_a_question_that_comes_later(self) -> None:
        """Who had an answer for so long has lost it, and is answered."""
        self.ask_early()
        self.give()
        self.clock.advance(REPLY_SECONDS)
        for _ in range(2):
            self.assertEqual(self.ask(self.question, link=self.asker), [GENERALIZED])

    def test_another_question_does_not_cross(self) -> None:
        """Of another peer, or for another item."""
        self.be_turned_away(self.asker)
        self.give()
        self.asker.take()
        self.assertEqual(self.ask(get_tx_set(), link=self.asker), [TX_SET])
        self.assertEqual(self.ask(self.question, link=self.second), [GENERALIZED])
        self.assertEqual(self.ask(self.question, link=self.asker), [])

    def test_who_does_not_get_it(self) -> None:
        """What the link refuses is counted, and was not handed out: its question is answered."""
        self.ask_early(self.asker, self.second)
        self.asker.is_open = False
        self.give()
        self.assertEqual((self.asker.sent, self.second.take()), ([], [GENERALIZED]))
        self.assertEqual(self.metrics.answers_refused.get(), 1)
        self.asker.is_open = True
        self.assertEqual(self.ask(self.question, link=self.asker), [GENERALIZED])

    def test_many(self) -> None:
        """A hundred for each item, the first; the others are turned away, and may ask again."""
        askers = [FakeLink(number) for number in range(100, 205)]
        self.links |= {asker.peer_id: asker for asker in askers}
        self.assertEqual(MAX_ASKERS, 100)
        answers = [self.ask(self.question, link=asker) for asker in askers]
        self.assertEqual(answers, [[]] * 100 + [[self.denial]] * 5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)  # one is of the search
        self.give()
        given = [asker.take() for asker in askers]
        self.assertEqual(given, [[GENERALIZED]] * 100 + [[]] * 5)
        for asker in (askers[-1], askers[0]):
            self.assertEqual(self.ask(self.question, link=asker), [GENERALIZED])

    def test_what_was_handed_out_is_bounded(self) -> None:
        """Who is forgotten may be answered twice."""
        self.patch(early_questions, "MAX_HANDED_OUT", 1)
        self.dispatcher.shutdown()
        self.dispatcher = self.make(self.herder)
        self.fetch()
        self.be_turned_away(self.asker, self.second)
        self.give()
        self.assertEqual([self.asker.take(), self.second.take()], [[GENERALIZED]] * 2)
        for link, expected in ((self.asker, [GENERALIZED]), (self.second, [])):
            self.assertEqual(self.ask(self.question, link=link), expected)

    def test_items_that_never_come(self) -> None:
        """Who asked for them is remembered for so many items only; the oldest makes room."""
        self.patch(early_questions, "MAX_TRACKERS", 2)
        self.dispatcher.stop_fetch_tx_set(self.hash, self.one_who_waits)
        sets = [generalized_tx_set(number_hash(number), []) for number in range(4)]
        for number, message in enumerate(sets):
            question = get_tx_set(tx_set_hash(message.body))
            self.dispatcher.fetch_tx_set(tx_set_hash(message.body), waiter([]))
            if number == 2:
                # All that is remembered is waited for still: there is no room.
                self.assertEqual(len(self.ask(question, link=self.asker)), 1)
                self.clock.advance(PATIENCE_SECONDS)
                self.assertEqual(len(self.asker.take()), 2)
            else:
                self.assertEqual(self.ask(question, link=self.asker), [])
        self.clock.advance(PATIENCE_SECONDS)
        self.asker.take()
        for message in sets:
            self.dispatcher.cache_item(message)
        self.assertEqual(self.asker.take(), [sets[1], sets[3]])

    def test_what_is_not_fetched_any_more(self) -> None:
        """Who waits for it is turned away, and forgotten."""
        question = get_tx_set(self.hash)
        self.assertEqual(self.ask(question, link=self.asker), [])
        self.dispatcher.stop_fetch_tx_set(self.hash, self.one_who_waits)
        self.assertEqual([m.type for m in self.asker.take()], [MessageType.DONT_HAVE])
        self.dispatcher.cache_item(GENERALIZED)
        self.assertEqual(self.asker.take(), [])

    def test_a_link_that_ended(self) -> None:
        """A new link of the same peer gets nothing that the old one asked for."""
        self.assertEqual(self.ask(get_tx_set(self.hash), link=self.asker), [])
        self.dispatcher.forget(self.asker)
        self.clock.advance(PATIENCE_SECONDS)
        self.dispatcher.cache_item(GENERALIZED)
        self.assertEqual(self.asker.take(), [])


class DropTests(SynchronousTestCase):
    """An item that nobody shall have, without the dispatcher."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.denied: list[tuple[bytes, PeerId]] = []
        self.questions = EarlyQuestions(self.clock, lambda *denied: self.denied.append(denied))
        self.one, self.other = (PeerId(bytes([number]) * 32) for number in (1, 2))

    def test_who_waits_is_turned_away_once(self) -> None:
        """At once, in order; who was turned away before hears nothing, and no timer is left."""
        self.questions.note(HASH, self.one)
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual(self.denied, [(HASH, self.one)])
        self.questions.note(HASH, self.other)
        self.questions.note(bytes(32), self.one)
        self.questions.drop(HASH)
        self.assertEqual(self.denied, [(HASH, self.one), (HASH, self.other)])
        self.clock.advance(PATIENCE_SECONDS - 0.001)
        self.assertEqual(len(self.denied), 2)
        self.clock.advance(0.001)
        self.assertEqual(self.denied[2:], [(bytes(32), self.one)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_kept(self) -> None:
        """Nobody has it, no question crosses with it, and who asks again may wait again."""
        self.questions.note(HASH, self.one)
        self.questions.drop(HASH)
        self.assertEqual(self.questions.take(HASH), [])
        self.assertFalse(self.questions.has_crossed(HASH, self.one))
        self.assertTrue(self.questions.note(HASH, self.one))
        self.questions.shutdown()

    def test_what_nobody_asked_for(self) -> None:
        """Is harmless."""
        self.questions.drop(HASH)
        self.assertEqual(self.denied, [])
