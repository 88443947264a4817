"""What is answered to peers' questions, what is fetched from them, and what is kept."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip import message_handlers
from stellar_overlay.gossip.early_questions import PATIENCE_SECONDS
from stellar_overlay.gossip.item_fetcher import MAX_TRACKERS
from stellar_overlay.gossip.message_handlers import (
    CHECKPOINT_DELAY_SECONDS,
    MAX_CACHED_ITEMS,
    MessageDispatcher,
)
from stellar_overlay.gossip.peer_exchange import PeerExchange
from stellar_overlay.gossip.tracker import Waiter
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.interfaces import ScpState
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    PeerEntry,
    decode_dont_have,
    decode_hash_query,
    encode_peers,
)
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set, quorum_set_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set, tx_set_hash
from tests.builders import advert, demand, quorum_set, scp_nominate, transaction
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
    get_scp_state,
    get_tx_set,
    number_hash,
    waiter,
)

KEY, OTHER_KEY = (bytes([number]) * 32 for number in (1, 2))


class AnswerTests(DispatcherTestCase):
    """Rows 51 and 52."""

    def test_what_is_known_is_sent(self) -> None:
        """The herder's own message, in the order of the questions."""
        sent = self.ask(get_tx_set(), get_quorum_set(), get_tx_set())
        self.assertEqual(sent, [TX_SET, QUORUM_SET, TX_SET])

    def test_what_is_unknown_is_said_so(self) -> None:
        """DONT_HAVE of type 17 for a transaction set, 10 for a quorum set, with the hash."""
        sent = self.ask(get_tx_set(bytes(32)), get_quorum_set(bytes(32)))
        self.assertEqual(
            [decode_dont_have(answer.body) for answer in sent], [(17, bytes(32)), (10, bytes(32))]
        )

    def test_a_brain_that_knows_nothing_still_answers(self) -> None:
        """So a ping always has its answer."""
        self.dispatcher = self.make(IgnoringHerder())
        sent = self.ask(get_quorum_set())
        self.assertEqual([decode_dont_have(answer.body) for answer in sent], [(10, HASH)])

    def test_what_is_no_question_is_not_answered(self) -> None:
        """Flooded messages, unsolicited answers, and GET_SCP_STATE of who knows no state."""
        others = (
            advert(),
            demand(),
            transaction(),
            scp_nominate(),
            QUORUM_SET,
            TX_SET,
            GENERALIZED,
            dont_have(6, HASH),
            get_scp_state(),
            Message(encode_peers([])),
        )
        self.assertEqual(self.ask(*others), [])

    def test_what_was_published_is_sent_as_it_is(self) -> None:
        """Each kind of transaction set in its own type, whatever the herder lacks."""
        for message, question in (
            (tx_set(number_hash(7), []), get_tx_set),
            (GENERALIZED, get_tx_set),
            (quorum_set(3), get_quorum_set),
        ):
            item_hash = self.dispatcher.cache_item(message)
            self.assertEqual(self.ask(question(item_hash)), [message])

    def test_the_kinds_do_not_mix(self) -> None:
        """A transaction set is no answer to a question for a quorum set of the same hash."""
        item_hash = self.dispatcher.cache_item(GENERALIZED)
        (answer,) = self.ask(get_quorum_set(item_hash))
        self.assertEqual(decode_dont_have(answer.body), (10, item_hash))
        self.assertIsNone(self.dispatcher.get_quorum_set(item_hash))
        self.assertEqual(self.dispatcher.get_tx_set(item_hash), GENERALIZED)

    def test_an_answer_that_the_link_refuses_is_counted(self) -> None:
        """Items and DONT_HAVE alike."""
        self.first.is_open = False
        self.ask(get_tx_set(), get_tx_set(bytes(32)), get_quorum_set())
        self.assertEqual(self.metrics.answers_refused.get(), 3)

    def test_others_may_add_types(self) -> None:
        """What is in the table is called with the exact body; types without entry are ignored."""
        seen: list[tuple[object, bytes, float]] = []
        self.dispatcher.handlers[MessageType.FLOOD_ADVERT] = lambda *args: seen.append(args)
        self.clock.advance(3)
        self.say(advert(1), demand(1))
        self.assertEqual(seen, [(self.first, advert(1).body, 3.0)])


class SharedAddressesTests(DispatcherTestCase):
    """PEERS goes to the exchange, once there is one."""

    def test_learning(self) -> None:
        """Each address is offered to the book; before, the message is ignored."""
        known: list[ResolvedPeerAddress] = []

        class Book:
            def ensure_exists(self, address: ResolvedPeerAddress) -> bool:
                known.append(address)
                return True

            def get_peers_to_send(self, size: int, accept: object) -> list[ResolvedPeerAddress]:
                return []

        message = Message(encode_peers([PeerEntry("198.51.1.7", 11625, 0)]))
        self.say(message)
        self.assertEqual(known, [])
        exchange = PeerExchange(
            Book(),
            own_port=lambda: 11625,
            own_addresses=set(),
            allow_private=False,
            allow_localhost=False,
        )
        self.dispatcher.learn_peers(exchange)
        self.say(message)
        self.assertEqual(known, [ResolvedPeerAddress("198.51.1.7", 11625)])


class QueryLimitTests(DispatcherTestCase):
    """Row 50, Y19: how many questions are answered in a window."""

    def test_what_is_ignored_is_counted(self) -> None:
        """1,000 of each: 300, 300 and 10 answers, and ``queries_ignored`` says the rest."""
        self.herder.state = ScpState(now=[scp_nominate()])
        self.dispatcher = self.make(self.herder)
        ignored = 0
        for question, most in ((get_tx_set(), 300), (get_quorum_set(), 300), (get_scp_state(), 10)):
            answers = self.ask(*1000 * [question])
            ignored += 1000 - most
            self.assertEqual(len(answers), most)
            self.assertEqual(self.metrics.queries_ignored.get(), ignored)
        self.assertEqual(len(self.herder.asked_from), 10)

    def test_the_next_window(self) -> None:
        """After a minute of the clock a peer is answered again."""
        for seconds, expected in ((0.0, 300), (59.0, 0), (1.0, 300), (59.9, 0), (0.2, 300)):
            self.clock.advance(seconds)
            self.assertEqual(len(self.ask(*301 * [get_tx_set()])), expected)

    def test_peers_are_counted_apart(self) -> None:
        """One peer's questions cost another peer nothing."""
        greedy = self.ask(*301 * [get_tx_set()])
        modest = self.ask(get_tx_set(), link=self.second)
        self.assertEqual((len(greedy), len(modest)), (300, 1))

    def test_a_peer_that_left_is_forgotten(self) -> None:
        """Nothing is kept of it, and its next link begins anew."""
        link = FakeLink(3)
        self.herder.state = ScpState(later=[scp_nominate()])
        self.ask(*301 * [get_tx_set()], link=link)
        self.dispatcher.forget(link)
        self.dispatcher.forget(link)
        self.assertEqual(len(self.ask(get_tx_set(), get_scp_state(), link=link)), 1)
        self.dispatcher.forget(link)
        kept = weakref.ref(link)
        del link
        gc.collect()
        self.assertIsNone(kept())


class FetchTests(DispatcherTestCase):
    """What is missing is asked for; what comes is kept if, and only if, somebody waits."""

    def setUp(self) -> None:
        super().setUp()
        self.items: list[Message] = []
        self.hash = tx_set_hash(GENERALIZED.body)

    def test_what_is_here_is_delivered_at_once(self) -> None:
        """From the herder, or from what was published; nobody is asked."""
        self.assertTrue(self.dispatcher.fetch_tx_set(HASH, waiter(self.items)))
        self.assertTrue(self.dispatcher.fetch_quorum_set(HASH, waiter(self.items)))
        self.dispatcher.cache_item(GENERALIZED)
        self.assertTrue(self.dispatcher.fetch_tx_set(self.hash, waiter(self.items)))
        self.assertEqual(self.items, [TX_SET, QUORUM_SET, GENERALIZED])
        self.assertEqual(self.first.sent + self.second.sent, [])

    def test_it_is_asked_for_and_comes(self) -> None:
        """The herder is told before those who wait; then it is here for whoever asks."""
        for message, question, fetch, item_hash in (
            (GENERALIZED, get_tx_set, self.dispatcher.fetch_tx_set, self.hash),
            (TX_SET, get_tx_set, self.dispatcher.fetch_tx_set, tx_set_hash(TX_SET.body)),
            (
                QUORUM_SET,
                get_quorum_set,
                self.dispatcher.fetch_quorum_set,
                quorum_set_hash(QUORUM_SET.body),
            ),
        ):
            order: list[str] = []
            fetch(
                item_hash,
                Waiter(
                    slot=None,
                    envelope=None,
                    deliver=lambda item, order=order: order.append(  # type: ignore[misc]
                        f"{item.type.name} after {len(self.herder.told)}"
                    ),
                ),
            )
            self.assertEqual(self.first.take(), [question(item_hash)])
            self.say(message)
            self.assertEqual(order, [f"{message.type.name} after {len(self.herder.told)}"])
            self.assertEqual(self.herder.told[-1], (item_hash, message))
            self.assertEqual(self.ask(question(item_hash), link=self.second), [message])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.metrics.fetch_tx_set.snapshot().count, 2)
        self.assertEqual(self.metrics.fetch_quorum_set.snapshot().count, 1)

    def test_unsolicited(self) -> None:
        """T38, I8: neither kept nor told to anybody."""
        self.say(GENERALIZED, TX_SET, QUORUM_SET)
        self.assertEqual(self.herder.told, [])
        stats = self.dispatcher.stats
        self.assertEqual((stats.cached_tx_sets, stats.cached_quorum_sets), (0, 0))

    def test_what_nobody_waits_for_is_not_even_hashed(self) -> None:
        """Unless something of its kind is looked for: a transaction set may have megabytes."""
        hashed: list[int] = []

        def hash_of(body: bytes) -> bytes:
            hashed.append(len(body))
            return bytes(32)

        for name in ("tx_set_hash", "quorum_set_hash"):
            self.patch(message_handlers, name, hash_of)
        self.dispatcher = self.make(self.herder)
        self.say(GENERALIZED, TX_SET, QUORUM_SET)
        self.assertEqual(hashed, [])
        one = waiter(self.items)
        self.dispatcher.fetch_quorum_set(number_hash(1), one)
        self.say(GENERALIZED, QUORUM_SET)
        self.assertEqual(hashed, [QUORUM_SET.size])
        self.dispatcher.stop_fetch_quorum_set(number_hash(1), one)
        self.say(GENERALIZED, QUORUM_SET)
        self.assertEqual(hashed, [QUORUM_SET.size])

    def test_a_second_answer_is_unsolicited(self) -> None:
        """Two peers answer: who waits, and the herder, hear of it once."""
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.say(GENERALIZED)
        self.say(GENERALIZED, link=self.second)
        self.assertEqual((len(self.items), len(self.herder.told)), (1, 1))

    def test_another_item_than_was_asked_for(self) -> None:
        """The search goes on as if nothing had come."""
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.say(TX_SET, generalized_tx_set(number_hash(3), []), QUORUM_SET)
        self.assertEqual((self.items, self.herder.told), ([], []))
        self.clock.advance(REPLY_SECONDS)
        self.assertEqual(self.second.take(), [get_tx_set(self.hash)])
        self.say(GENERALIZED, link=self.second)
        self.assertEqual(self.items, [GENERALIZED])

    def test_who_was_not_asked_may_answer(self) -> None:
        """An item is what its hash says, whoever sends it."""
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.say(GENERALIZED, link=FakeLink(9))
        self.assertEqual(self.items, [GENERALIZED])

    def test_all_who_wait_get_it(self) -> None:
        """One question; the one that gave up gets nothing."""
        given_up: list[Message] = []
        gone = waiter(given_up)
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.dispatcher.fetch_tx_set(self.hash, gone)
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.dispatcher.stop_fetch_tx_set(self.hash, gone)
        self.say(GENERALIZED)
        self.assertEqual((self.items, given_up), ([GENERALIZED] * 2, []))
        self.assertEqual(self.first.sent + self.second.sent, [get_tx_set(self.hash)])

    def test_when_nobody_waits_any_more(self) -> None:
        """Nobody is asked any more, no timer is left, and what comes is unsolicited."""
        one, other = waiter(self.items), waiter(self.items)
        self.dispatcher.fetch_tx_set(self.hash, one)
        self.dispatcher.fetch_quorum_set(number_hash(1), other)
        self.dispatcher.stop_fetch_tx_set(self.hash, one)
        self.dispatcher.stop_fetch_quorum_set(number_hash(1), other)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.say(GENERALIZED)
        self.assertEqual((self.items, self.herder.told), ([], []))

    def test_a_herder_that_raises(self) -> None:
        """Those who wait get their item all the same; then the failure goes on."""
        self.herder.failure = ZeroDivisionError()
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        with self.assertRaises(ZeroDivisionError):
            self.say(GENERALIZED)
        self.assertEqual(self.items, [GENERALIZED])
        self.assertEqual(self.dispatcher.get_tx_set(self.hash), GENERALIZED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_herder_that_raises_on_what_is_published(self) -> None:
        """Likewise: the item is here, and whoever waits for it has it."""
        self.herder.failure = ZeroDivisionError()
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        with self.assertRaises(ZeroDivisionError):
            self.dispatcher.cache_item(GENERALIZED)
        self.assertEqual(self.items, [GENERALIZED])
        self.assertEqual(self.ask(get_tx_set(self.hash)), [GENERALIZED])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_herder_that_fetches_the_next_one(self) -> None:
        """From within: what it is told of may name what it lacks."""
        other = tx_set_hash(TX_SET.body)

        def fetch_more(item_hash: bytes, message: Message) -> None:
            self.dispatcher.fetch_tx_set(other, waiter(self.items))

        self.patch(self.herder, "recv_tx_set", fetch_more)
        self.dispatcher = self.make(self.herder)
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.say(GENERALIZED)
        self.say(TX_SET)
        self.assertEqual(self.items[:2], [GENERALIZED, TX_SET])

    def test_too_many(self) -> None:
        """DECISIONS 11: 512 of each kind; then it is refused, and counted."""
        for number in range(MAX_TRACKERS):
            self.assertTrue(self.dispatcher.fetch_tx_set(number_hash(number), waiter([])))
        self.assertFalse(self.dispatcher.fetch_tx_set(self.hash, waiter(self.items)))
        self.assertTrue(self.dispatcher.fetch_quorum_set(self.hash, waiter(self.items)))
        self.assertEqual(self.metrics.item_fetcher_tracker_cap_reached.get(), 1)
        self.assertEqual(self.dispatcher.stats.tx_set_fetcher.num_trackers, MAX_TRACKERS)
        self.dispatcher.shutdown()

    def test_a_hash_of_another_size(self) -> None:
        """It is refused before anybody is asked."""
        for item_hash in (b"", bytes(31), bytes(33)):
            with self.assertRaises(ValueError):
                self.dispatcher.fetch_tx_set(item_hash, waiter(self.items))
        self.assertEqual(self.first.sent, [])

    def test_slots_that_are_over(self) -> None:
        """Both kinds are given up, but for the slot to keep and for applications."""
        for number, slot in enumerate((5, 8, 9, None)):
            for fetch in (self.dispatcher.fetch_tx_set, self.dispatcher.fetch_quorum_set):
                envelope = None if slot is None else b"%d" % slot
                fetch(number_hash(number), waiter([], slot=slot, envelope=envelope))
        self.dispatcher.stop_fetching_outside_range(9, None, 5)
        stats = self.dispatcher.stats
        self.assertEqual(stats.tx_set_fetcher.num_trackers, 3)
        self.assertEqual(stats.quorum_set_fetcher.num_trackers, 3)
        self.dispatcher.shutdown()

    def test_a_peer_that_comes_later(self) -> None:
        """What nobody could be asked for is asked of it at once."""
        self.links.clear()
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.dispatcher.fetch_quorum_set(number_hash(1), waiter(self.items))
        self.links[self.first.peer_id] = self.first
        self.dispatcher.peers_changed()
        self.assertEqual(self.first.take(), [get_tx_set(self.hash), get_quorum_set(number_hash(1))])
        self.dispatcher.shutdown()

    def test_shutdown(self) -> None:
        """No timer is left, and nothing is fetched any more; what is here is still given."""
        self.dispatcher.fetch_tx_set(self.hash, waiter(self.items))
        self.dispatcher.fetch_quorum_set(number_hash(1), waiter(self.items))
        self.dispatcher.shutdown()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.dispatcher.fetch_tx_set(self.hash, waiter(self.items)))
        self.say(GENERALIZED)
        self.assertEqual(self.items, [])
        self.assertEqual(self.ask(get_tx_set()), [TX_SET])


class InsaneTests(DispatcherTestCase):
    """A quorum set that core would refuse goes no further than to whoever looks for it here.

    Core passes on nothing that names such a set (messages.md 4.2).
    """

    def setUp(self) -> None:
        super().setUp()
        self.asker = FakeLink(3)
        self.links[self.asker.peer_id] = self.asker
        self.asker.ping_ms = 4000
        self.items: list[Message] = []
        self.fetch(FlatQuorumSet(2, (KEY,)))

    def fetch(self, wanted: FlatQuorumSet) -> None:
        """Begin to look for a set; the first peer is asked."""
        self.message = encode_quorum_set(wanted)
        self.hash = quorum_set_hash(self.message.body)
        self.question = get_quorum_set(self.hash)
        self.denial = dont_have(MessageType.SCP_QUORUMSET, self.hash)
        self.dispatcher.fetch_quorum_set(self.hash, waiter(self.items))
        self.assertEqual(self.first.take(), [self.question])

    def test_neither_kept_nor_served(self) -> None:
        """Whatever is wrong with it; a sane one is both."""
        for one, is_sane in (
            (FlatQuorumSet(0, (KEY,)), False),
            (FlatQuorumSet(3, (KEY, OTHER_KEY)), False),
            (FlatQuorumSet(1, (KEY, KEY)), False),
            (FlatQuorumSet(1, (KEY,), (FlatQuorumSet(2, (OTHER_KEY,)),)), False),
            (FlatQuorumSet(1), False),
            (FlatQuorumSet(2, (KEY, OTHER_KEY)), True),
        ):
            self.fetch(one)
            self.say(self.message)
            here, answer = (self.message, self.message) if is_sane else (None, self.denial)
            self.assertEqual(self.dispatcher.get_quorum_set(self.hash), here)
            for link in (self.first, self.asker):
                self.assertEqual(self.ask(self.question, link=link), [answer], one)
            self.assertEqual(self.dispatcher.stats.cached_quorum_sets, int(is_sane))

    def test_what_was_looked_for_was_found(self) -> None:
        """The herder is told, and who waits has it: nobody is asked any more."""
        self.say(self.message)
        self.assertEqual(self.herder.told, [(self.hash, self.message)])
        self.assertEqual(self.items, [self.message])
        self.assertEqual(self.dispatcher.stats.quorum_set_fetcher.num_trackers, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_asked_for_anew(self) -> None:
        """Should somebody here want it once more, as it is not here."""
        self.say(self.message)
        self.dispatcher.fetch_quorum_set(self.hash, waiter(self.items))
        self.assertEqual(self.first.take(), [self.question])
        self.say(self.message)
        self.assertEqual(self.items, 2 * [self.message])

    def test_who_asked_early(self) -> None:
        """Is turned away at once when it comes, and gets it not."""
        for link in (self.second, self.asker):
            self.assertEqual(self.ask(self.question, link=link), [])
        self.clock.advance(PATIENCE_SECONDS - 0.001)
        self.say(self.message)
        self.assertEqual([self.second.take(), self.asker.take()], 2 * [[self.denial]])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.first.sent, [])
        # Nothing was handed out, so that no question can have crossed with it.
        self.assertEqual(self.ask(self.question, link=self.asker), [self.denial])

    def test_who_was_turned_away_before(self) -> None:
        """Hears nothing more of it, though it would get a sane one."""
        self.assertEqual(self.ask(self.question, link=self.asker), [])
        self.clock.advance(PATIENCE_SECONDS)
        self.assertEqual(self.asker.take(), [self.denial])
        self.say(self.message)
        self.assertEqual(self.asker.take(), [])
        self.assertEqual(self.ask(self.question, link=self.asker), [self.denial])

    def test_one_that_nobody_here_looks_for(self) -> None:
        """Turns away nobody who waits for another one."""
        self.assertEqual(self.ask(self.question, link=self.asker), [])
        self.say(encode_quorum_set(FlatQuorumSet(7, (KEY,))))
        self.assertEqual(self.asker.take(), [])
        self.assertEqual((self.items, self.herder.told), ([], []))
        self.dispatcher.shutdown()


class DontHaveTests(DispatcherTestCase):
    """Who does not have an item is not waited for."""

    def setUp(self) -> None:
        super().setUp()
        self.hash = number_hash(1)
        self.dispatcher.fetch_tx_set(self.hash, waiter([]))
        self.dispatcher.fetch_quorum_set(self.hash, waiter([]))
        self.addCleanup(self.dispatcher.shutdown)
        self.assertEqual(len(self.first.take()), 2)

    def test_types(self) -> None:
        """7 and 17 are about transaction sets, 10 is about quorum sets: the next peer is asked."""
        self.say(dont_have(10, self.hash))
        self.assertEqual(self.second.take(), [get_quorum_set(self.hash)])
        self.say(dont_have(7, self.hash))
        self.assertEqual(self.second.take(), [get_tx_set(self.hash)])
        self.dispatcher.fetch_tx_set(number_hash(2), waiter([]))
        self.say(dont_have(17, number_hash(2)))
        self.assertEqual(self.second.take(), [get_tx_set(number_hash(2))])

    def test_other_numbers(self) -> None:
        """DECISIONS 4: any number is legal; what is not about an item changes nothing."""
        for kind in (*range(30), 99, 2**31, 2**32 - 1):
            if kind not in (7, 10, 17):
                self.say(dont_have(kind, self.hash))
        self.assertEqual(self.second.sent, [])

    def test_of_whom_nothing_is_awaited(self) -> None:
        """A peer that was not asked, an item that is not looked for: nothing changes."""
        for kind in (7, 10, 17):
            self.say(dont_have(kind, self.hash), link=self.second)
            self.say(dont_have(kind, number_hash(9)))
        self.assertEqual(self.first.sent + self.second.sent, [])


class ScpStateTests(DispatcherTestCase):
    """GET_SCP_STATE is answered with what the herder says: now, and two seconds later."""

    def setUp(self) -> None:
        super().setUp()
        self.new = [scp_nominate(slot) for slot in (100, 101, 102)]
        self.old = [scp_nominate(64, node=node) for node in (1, 2)]
        self.herder.state = ScpState(now=self.new, later=self.old)

    def test_the_answer(self) -> None:
        """The herder's messages in their order, from the slot that was asked for."""
        self.assertEqual(self.ask(get_scp_state(99)), self.new)
        self.assertEqual(self.ask(get_scp_state(0), get_scp_state(2**32 - 1)), 2 * self.new)
        self.assertEqual(self.herder.asked_from, [99, 0, 2**32 - 1])

    def test_the_checkpoint_comes_two_seconds_later(self) -> None:
        """So that the peer knows first where consensus stands (messages.md 4.3)."""
        self.assertEqual(self.ask(get_scp_state()), self.new)
        self.clock.advance(CHECKPOINT_DELAY_SECONDS - 0.001)
        self.assertEqual(self.first.take(), [])
        self.clock.advance(0.001)
        self.assertEqual(self.first.take(), self.old)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_new_question_replaces_what_is_pending(self) -> None:
        """One delayed answer per peer, counted from the last question; peers do not interfere."""
        self.say(get_scp_state())
        self.say(get_scp_state(), link=self.second)
        self.clock.advance(1.5)
        self.ask(get_scp_state())
        self.clock.advance(0.5)
        self.assertEqual(self.first.take(), [])
        self.assertEqual(self.second.take(), self.new + self.old)
        self.clock.advance(1.5)
        self.assertEqual(self.first.take(), self.old)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_link_that_ends_meanwhile(self) -> None:
        """Its delayed answer is cancelled, no other one is."""
        self.say(get_scp_state())
        self.say(get_scp_state(), link=self.second)
        self.dispatcher.forget(self.first)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.first.take()
        self.clock.advance(10)
        self.assertEqual(self.first.take(), [])
        self.assertEqual(self.second.take(), self.new + self.old)

    def test_nothing_for_later(self) -> None:
        """Costs no timer."""
        self.herder.state = ScpState(now=self.new)
        self.assertEqual(self.ask(get_scp_state()), self.new)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_question_that_has_nothing_for_later(self) -> None:
        """Leaves what is pending as it was."""
        self.say(get_scp_state())
        self.herder.state = ScpState(now=self.new[:1])
        self.clock.advance(1)
        self.assertEqual(self.ask(get_scp_state()), self.new[:1])
        self.clock.advance(1)
        self.assertEqual(self.first.take(), self.old)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_the_link_refuses(self) -> None:
        """Is counted, message by message, now as well as later."""
        self.first.is_open = False
        self.say(get_scp_state())
        self.assertEqual(self.metrics.answers_refused.get(), 3)
        self.clock.advance(CHECKPOINT_DELAY_SECONDS)
        self.assertEqual(self.metrics.answers_refused.get(), 5)

    def test_shutdown(self) -> None:
        """No delayed answer is left, whoever is connected still."""
        self.say(get_scp_state())
        self.say(get_scp_state(), link=self.second)
        self.dispatcher.shutdown()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for link in (self.first, self.second):
            link.take()
            self.dispatcher.forget(link)
        self.clock.advance(10)
        self.assertEqual(self.first.sent + self.second.sent, [])

    def test_over_the_limit(self) -> None:
        """An ignored question neither asks the herder nor puts off what is pending."""
        self.ask(*10 * [get_scp_state()])
        self.clock.advance(1)
        self.assertEqual(self.ask(get_scp_state()), [])
        self.clock.advance(1)
        self.assertEqual(self.first.take(), self.old)
        self.assertEqual(len(self.herder.asked_from), 10)
        self.assertEqual(self.metrics.queries_ignored.get(), 1)


class CacheTests(DispatcherTestCase):
    """Y17: what is kept is bounded; the oldest goes first."""

    def test_by_number(self) -> None:
        """10,000 quorum sets, and as many transaction sets."""
        hashes = [
            self.dispatcher.cache_item(generalized_tx_set(number_hash(number), []))
            for number in range(MAX_CACHED_ITEMS + 1)
        ]
        first = self.dispatcher.cache_item(quorum_set(1))
        self.assertEqual(self.dispatcher.stats.cached_tx_sets, 10_000)
        self.assertEqual(self.dispatcher.stats.cached_quorum_sets, 1)
        self.assertIsNone(self.dispatcher.get_tx_set(hashes[0]))
        self.assertIsNotNone(self.dispatcher.get_tx_set(hashes[1]))
        self.assertIsNotNone(self.dispatcher.get_quorum_set(first))

    def test_by_bytes(self) -> None:
        """Large items push out more; one that is too large is not kept, and harms nothing."""
        for name in ("TX_SET_CACHE_BYTES", "QUORUM_SET_CACHE_BYTES"):
            self.patch(message_handlers, name, 1000)
        dispatcher = self.make(self.herder)
        small = [dispatcher.cache_item(quorum_set(1, number)) for number in range(19)]
        self.assertEqual(dispatcher.stats.cached_quorum_sets, 19)  # of 52 bytes each
        dispatcher.cache_item(quorum_set(20))  # 736 bytes
        self.assertEqual(dispatcher.stats.cached_quorum_sets, 6)
        self.assertIsNotNone(dispatcher.get_quorum_set(small[-1]))
        large = dispatcher.cache_item(quorum_set(28))
        self.assertIsNone(dispatcher.get_quorum_set(large))
        self.assertEqual(dispatcher.stats.cached_quorum_sets, 6)

    def test_what_was_fetched_counts_as_well(self) -> None:
        """It lies in the same place."""
        self.dispatcher.fetch_tx_set(tx_set_hash(GENERALIZED.body), waiter([]))
        self.say(GENERALIZED)
        self.assertEqual(self.dispatcher.stats.cached_tx_sets, 1)

    def test_publishing(self) -> None:
        """The hash is returned, the herder told, and whoever waits is served."""
        items: list[Message] = []
        for message, item_hash, fetch in (
            (GENERALIZED, tx_set_hash(GENERALIZED.body), self.dispatcher.fetch_tx_set),
            (QUORUM_SET, quorum_set_hash(QUORUM_SET.body), self.dispatcher.fetch_quorum_set),
        ):
            fetch(item_hash, waiter(items))
            self.assertEqual(self.dispatcher.cache_item(message), item_hash)
            self.assertEqual(items.pop(), message)
            self.assertEqual(self.herder.told.pop(), (item_hash, message))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.metrics.fetch_unique_recv.get(), 0)

    def test_nothing_else_is_published(self) -> None:
        """What peers ask for by hash is these three types."""
        for message in (
            transaction(),
            scp_nominate(),
            advert(),
            get_tx_set(),
            dont_have(10, HASH),
            Message(encode_peers([])),
        ):
            with self.assertRaisesRegex(ValueError, "transaction sets and quorum sets"):
                self.dispatcher.cache_item(message)
        stats = self.dispatcher.stats
        self.assertEqual((stats.cached_tx_sets, stats.cached_quorum_sets), (0, 0))


OPERATION_NAMES = ("fetch", "stop", "answer", "deny", "wait", "publish")
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(OPERATION_NAMES), st.integers(0, 3)),
    max_size=30,
)


class AnyOrderTests(SynchronousTestCase):
    """Whatever is fetched, given up, answered and denied, in whatever order."""

    @settings(derandomize=True, max_examples=100, deadline=None)
    @given(OPERATIONS)
    def test_each_gets_its_item_once(self, operations: Sequence[tuple[str, int]]) -> None:
        """Nobody who gave up gets anything, nobody gets another item, no timer is left."""
        clock, link = Clock(), FakeLink()
        dispatcher = MessageDispatcher(
            IgnoringHerder(), clock=clock, random=random.Random(0), links={link.peer_id: link}
        )
        sets = [generalized_tx_set(number_hash(number), []) for number in range(4)]
        hashes = [tx_set_hash(message.body) for message in sets]
        here: set[int] = set()
        waiting: list[tuple[int, Waiter, list[Message]]] = []
        ended: list[tuple[list[Message], list[Message]]] = []

        def arrive(number: int) -> None:
            for each in [each for each in waiting if each[0] == number]:
                waiting.remove(each)
                ended.append((each[2], [sets[number]]))

        for operation, number in operations:
            if operation == "fetch":
                got: list[Message] = []
                one = waiter(got)
                dispatcher.fetch_tx_set(hashes[number], one)
                waiting.append((number, one, got))
                if number in here:
                    arrive(number)
            elif operation == "stop" and waiting:
                chosen, one, got = waiting.pop(number % len(waiting))
                dispatcher.stop_fetch_tx_set(hashes[chosen], one)
                ended.append((got, []))
            elif operation == "answer":
                if any(each[0] == number for each in waiting):
                    here.add(number)
                dispatcher.handle_message(link, sets[number], clock.seconds())
                arrive(number)
            elif operation == "deny":
                denial = dont_have(17, hashes[number])
                dispatcher.handle_message(link, denial, clock.seconds())
            elif operation == "wait":
                clock.advance(number)
            elif operation == "publish":
                dispatcher.cache_item(sets[number])
                here.add(number)
                arrive(number)
            for got, expected in ended:
                self.assertEqual(got, expected)
            wanted = {hashes[each[0]] for each in waiting}
            self.assertEqual(dispatcher.stats.tx_set_fetcher.num_trackers, len(wanted))
            self.assertEqual(dispatcher.stats.cached_tx_sets, len(here))
            if not wanted:
                self.assertEqual(clock.getDelayedCalls(), [])
        asked = {decode_hash_query(question.body) for question in link.sent}
        self.assertTrue(asked <= set(hashes))
        dispatcher.shutdown()
        self.assertEqual(clock.getDelayedCalls(), [])
