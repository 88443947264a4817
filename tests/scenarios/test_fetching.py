"""Transaction sets and quorum sets that somebody names, and others must find."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from twisted.internet.defer import CancelledError, Deferred

from stellar_overlay.error import ErrorCode, FetchTimeout, OverlayError
from stellar_overlay.identity import LocalNode
from stellar_overlay.interfaces import Clock
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import Message, MessageType, decode_dont_have, encode_dont_have
from stellar_overlay.wire.quorum_set import quorum_set_hash
from stellar_overlay.wire.scp import nominate
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set_hash
from tests.scenarios.traffic import (
    DONT_HAVE,
    GET_QUORUM_SET,
    GET_SCP_STATE,
    GET_TX_SET,
    QUORUM_SET,
    SCP,
    TX_SET,
    Heard,
    Mute,
    Neighbour,
    TrafficTestCase,
    a_hash,
    a_quorum_set,
    a_tx_set,
    a_value,
    chain,
    externalized,
    invocation,
    ring,
    star,
    validator,
)

PATIENCE = 1.5
"""How long a peer has to answer."""


class Liar(Neighbour):
    """Answers each question for a transaction set with another one."""

    def answer_to(self, kind: MessageType, item_hash: bytes) -> Message:
        if kind is TX_SET:
            return a_tx_set(7)
        return super().answer_to(kind, item_hash)


class Slow(Neighbour):
    """Answers pings and other questions after some time.

    :cvar delay: seconds.
    """

    delay = 0.7

    def __init__(
        self,
        clock: Clock,
        local_node: LocalNode,
        *,
        we_called_remote: bool = True,
        is_polite: bool = True,
    ) -> None:
        super().__init__(clock, local_node, we_called_remote=we_called_remote, is_polite=is_polite)
        self._timer_clock = clock

    def _answer_question(self, kind: MessageType, message: Message) -> None:
        answer = super()._answer_question
        self._timer_clock.callLater(self.delay, answer, kind, message)


def naming(slot: int, tx_set: Message, *, by: int = 0) -> Message:
    """Return an EXTERNALIZE that names a transaction set, and no quorum set."""
    return externalized(slot, by=by, tx_set=tx_set_hash(tx_set.body))


class EverybodyTests(TrafficTestCase):
    """Statements name what one node alone has published; all have it in the end."""

    def assert_spreads(self, links: Sequence[tuple[int, int]]) -> None:
        """Publish items at every node, name them, and check that each other node finds each."""
        self.again(latency=0.02)
        nodes = self.build(links)
        heard = [Heard(node, TX_SET, QUORUM_SET) for node in nodes]
        published: list[list[bytes]] = []
        for number, node in enumerate(nodes):
            items = a_tx_set(number, number + 1), a_quorum_set(number, number + 1)
            hashes = [node.publish(item) for item in items]
            published.append([item.body for item in items])
            node.broadcast(externalized(5, by=number, tx_set=hashes[0], quorum_set_hash=hashes[1]))
        self.network.advance(20)
        for number, one in enumerate(heard):
            wanted = [
                body for origin, items in enumerate(published) if origin != number for body in items
            ]
            self.assertEqual(sorted(set(one.first())), sorted(wanted))
        for node in nodes:
            for tx_set, _ in published:
                self.assert_here(node, Message(tx_set))
            # Who asked too early gets an item when it comes, and may have it from others by then.
            (repeated,) = self.figures(node, "fetch_duplicate_recv")
            self.assertLess(repeated, len(published))

    def assert_here(self, node: OverlayManager, item: Message) -> None:
        """Check that a node has a transaction set, and need ask nobody for it."""
        asked = node.metrics.messages_written.get()
        found = Deferred.fromCoroutine(node.fetch_tx_set(tx_set_hash(item.body)))
        self.assertEqual(self.successResultOf(found).body, item.body)
        self.assertEqual(node.metrics.messages_written.get(), asked)

    def test_a_ring_with_a_chord(self) -> None:
        """Eight nodes, each with a transaction set and a quorum set of its own."""
        self.assert_spreads([*ring(8), (0, 4)])

    def test_a_chain(self) -> None:
        """Who passed a statement on has what it names soon after, and answers then."""
        self.assert_spreads(chain(6))

    def test_a_star(self) -> None:
        """The centre finds all of them, and everybody asks the centre."""
        self.assert_spreads(star(7))


class RestartTests(TrafficTestCase):
    """A node that has lost its memory."""

    def test_all_is_learned_again(self) -> None:
        """It asks for SCP messages, though it was told of them before, and for what they name."""
        node, forgetful = self.build([(0, 1)])
        item = a_tx_set(1)
        node.publish(item)
        messages = [naming(slot, item, by=by) for slot in (5, 6) for by in range(3)]
        for message in messages:
            node.broadcast(message)
        self.network.advance(2)
        self.network.crash("1")
        self.network.advance(1)
        forgetful = self.network.restart("1")
        heard, items = Heard(forgetful, SCP), Heard(forgetful, TX_SET)
        self.link("0", "1")
        self.network.advance(5)
        self.assertEqual(sorted(heard.first()), sorted(message.body for message in messages))
        self.assertEqual(items.first(), [item.body])


class DelayTests(TrafficTestCase):
    """How long it takes until everybody has what is named."""

    def test_a_chain_that_begins_slowly(self) -> None:
        """Those further on hear the statement before their neighbour has the item.

        All should have it within the time of a ledger.
        """
        self.begin(latency=0.05)
        nodes = self.build(chain(10))
        for transport in self.network.memory.transports[0]:
            transport.latency = 0.12
        self.settle()
        heard = [Heard(node, TX_SET) for node in nodes[1:]]
        item = a_tx_set(1)
        nodes[0].publish(item)
        nodes[0].broadcast(naming(5, item))
        self.network.advance(5)
        self.assertEqual([len(one.messages) for one in heard], 9 * [1])

    def test_a_signer_that_invents_hashes(self) -> None:
        """What nobody has is looked for, too, and keeps nobody from finding what others have.

        A ledger each five seconds, each with a transaction set; and eight that do not exist.
        """
        node = self.add()
        honest = self.calls(3, Neighbour, name="honest")
        liar = self.call("liar", Neighbour)
        heard = Heard(node, TX_SET)
        late = []
        for slot in range(20, 44):
            liar.flood(nominate(validator(9), slot, [a_value((slot, n)) for n in range(8)]))
            self.network.advance(1)
            item = a_tx_set(slot)
            for peer in honest:
                peer.items[tx_set_hash(item.body)] = item
            honest[0].flood(naming(slot, item))
            self.network.advance(4)
            if item.body not in heard.first():
                late.append(slot)
        self.assertEqual(late, [])


class InsaneTests(TrafficTestCase):
    """A statement names a quorum set that core would refuse; what names it is passed on."""

    def assert_spreads(self, item: Message, *, delay: float, is_passed_on: bool) -> None:
        """Let a peer of the first of three nodes name a set, and give it when it is asked.

        The second node asks for it long before it comes.
        """
        self.again(latency=0.02)
        nodes = self.build(chain(3))
        heard = [Heard(node, QUORUM_SET) for node in nodes]
        self.patch(Slow, "delay", delay)
        item_hash = quorum_set_hash(item.body)
        witness, asker = self.call("witness", Slow, to="0"), self.call("asker", Neighbour, to="0")
        witness.items[item_hash] = item
        witness.flood(nominate(validator(9), 5, [b"no tx set"], quorum_set_hash=item_hash))
        self.network.advance(delay / 2)
        asker.ask(GET_QUORUM_SET, item_hash)
        self.network.advance(20)
        copies = [len(one.messages) for one in heard]
        self.assertEqual(copies, [1, 1, 1] if is_passed_on else [1, 0, 0])
        kept = [node._flooding.dispatcher.stats.cached_quorum_sets for node in nodes]
        self.assertEqual(kept, copies if is_passed_on else [0, 0, 0])
        self.assertEqual(asker.bodies(QUORUM_SET), [item.body] if is_passed_on else [])
        self.assertEqual(len(witness.asked(item_hash)), 1)
        asker.ask(GET_QUORUM_SET, item_hash)
        self.network.advance(1)
        answer = (asker.bodies(QUORUM_SET) if is_passed_on else asker.bodies(DONT_HAVE))[-1]
        nothing = encode_dont_have(QUORUM_SET, item_hash)
        self.assertEqual(answer, item.body if is_passed_on else nothing)
        self.assert_linked(witness, asker)

    def test_it_stays_where_it_came(self) -> None:
        """Whether those who asked early wait still or were turned away; a sane one goes to all."""
        insane, sane = a_quorum_set(1, 2, threshold=3), a_quorum_set(1, 2)
        for delay in (0.3, 0.9):
            self.assert_spreads(insane, delay=delay, is_passed_on=False)
            self.assert_spreads(sane, delay=delay, is_passed_on=True)


class SearchTestCase(TrafficTestCase):
    """One node that looks for one transaction set among scripted peers."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.add()
        self.item = a_tx_set(1, 2)
        self.item_hash = tx_set_hash(self.item.body)

    def look(self, seconds: float = 3600) -> Deferred[Message]:
        """Let the application look for the item."""
        return Deferred.fromCoroutine(self.node.fetch_tx_set(self.item_hash, timeout=seconds))

    def questions(self, peers: Sequence[Neighbour]) -> list[tuple[float, int]]:
        """Return when whom was asked, in that order."""
        return sorted(
            (round(at, 6), number)
            for number, peer in enumerate(peers)
            for at in peer.asked(self.item_hash)
        )


class OrderTests(SearchTestCase):
    """Who is asked, and who next."""

    def test_in_turn(self) -> None:
        """I5: one at once, the other after 1.5 s, and nobody any more once it is here."""
        peers = self.calls(2, Mute)
        start = self.network.clock.seconds()
        found = self.look()
        again = self.look()  # waits for the same
        self.network.advance(0)
        ((_, number),) = self.questions(peers)
        nothing = Message(encode_dont_have(TX_SET, self.item_hash))
        peers[1 - number].send(nothing)  # nobody has asked it yet
        self.network.advance(2 * PATIENCE - 0.01)
        asked = self.questions(peers)
        self.assertEqual([round(at - start, 6) for at, _ in asked], [0, PATIENCE])
        self.assertEqual({number for _, number in asked}, {0, 1})
        peers[0].send(self.item)
        self.network.advance(60)
        for one in (found, again):
            self.assertEqual(self.successResultOf(one).body, self.item.body)
        self.assertEqual(self.questions(peers), asked)

    def rounds(self, kind: type[Neighbour], seconds: float) -> list[list[float]]:
        """Return when both of two peers were asked, round by round."""
        peers = self.calls(2, kind)
        looking = self.look()
        self.network.advance(seconds)
        asked = self.questions(peers)
        self.assert_linked(*peers)
        looking.addErrback(lambda failure: failure.trap(CancelledError))
        looking.cancel()
        for a, b in zip(asked[::2], asked[1::2], strict=False):
            self.assertEqual({a[1], b[1]}, {0, 1})
        times = [at for at, _ in asked]
        return [times[at : at + 2] for at in range(0, len(times) - 1, 2)]

    def assert_pauses(self, rounds: list[list[float]]) -> None:
        """Check the pauses between rounds: the longer the more there were, up to 15 s."""
        self.assertGreater(len(rounds), 30)
        for number, (before, after) in enumerate(pairwise(rounds), 1):
            self.assertGreaterEqual(after[0] - before[1], PATIENCE * min(10, number) - 1e-6)

    def test_mute_peers(self) -> None:
        """I6: 1.5 s for each, and a pause between rounds that grows."""
        rounds = self.rounds(Mute, 700)
        self.assert_pauses(rounds)
        for first, second in rounds:
            self.assertGreaterEqual(second - first, PATIENCE - 1e-6)

    def test_peers_that_do_not_have_it(self) -> None:
        """I7: the other one is asked at once; the pauses between rounds are the same."""
        rounds = self.rounds(Neighbour, 700)
        self.assert_pauses(rounds)
        for first, second in rounds:
            self.assertLess(second - first, 0.2)

    def test_who_sent_the_envelope_comes_first(self) -> None:
        """Then those with the shortest round trip; DONT_HAVE of all leads to the one who has it."""
        slow, quick = self.call("slow", Slow), self.call("quick", Slow)
        quick.delay = 0.1
        slowest = self.call("slowest", Slow)
        slowest.delay = 1.3
        self.network.advance(12)  # two pings
        witness = self.call("witness", Slow)  # no ping yet: the last, were it not for what it says
        witness.flood(naming(1, self.item))
        slowest.items[self.item_hash] = self.item
        heard = Heard(self.node, TX_SET)
        self.network.advance(8)
        order = [number for _, number in self.questions([slowest, slow, quick, witness])]
        self.assertEqual(order, [3, 2, 1, 0])
        self.assertEqual(heard.first(), [self.item.body])

    def test_liars(self) -> None:
        """Who sends another item has not answered: it is not taken, and the next one is asked."""
        liars = self.calls(2, Liar)
        found = self.look()
        self.network.advance(0)
        self.assertEqual(len(self.questions(liars)), 1)
        self.network.advance(PATIENCE)
        self.assertEqual(len(self.questions(liars)), 2)
        self.assertEqual(  # both sent the same item
            self.figures(self.node, "fetch_unique_recv", "fetch_duplicate_recv"), [1, 1]
        )
        honest = self.call("honest", Neighbour)
        honest.items[self.item_hash] = self.item
        self.network.advance(10)
        self.assertEqual(self.successResultOf(found).body, self.item.body)
        self.assert_linked(*liars)
        honest.ask(GET_TX_SET, tx_set_hash(a_tx_set(7).body))
        self.network.advance(0)
        self.assertEqual(len(honest.bodies(DONT_HAVE)), 1)

    def test_a_set_that_is_not_canonical(self) -> None:
        """Who answers with one loses its link, and the next one is asked."""
        wanted = generalized_tx_set(bytes(32), [invocation().body[4:]])
        self.item_hash = tx_set_hash(wanted.body)
        crooked = self.call("crooked", Neighbour)
        crooked.items[self.item_hash] = Message(wanted.body.replace(b"abc\0", b"abc\1"))
        found = self.look()
        self.network.advance(1)
        self.assertEqual(crooked.error, (ErrorCode.ERR_DATA, b"received corrupt XDR"))
        honest = self.call("honest", Neighbour)
        honest.items[self.item_hash] = wanted
        self.network.advance(10)
        self.assertEqual(self.successResultOf(found).body, wanted.body)

    def test_all_kinds_of_bad_peers(self) -> None:
        """Mute, without it, and lying: whoever has it is found among them."""
        self.calls(3, Mute, name="mute")
        self.calls(3, Liar, name="liar")
        self.calls(3, Neighbour, name="empty")
        honest = self.call("honest", Neighbour)
        honest.items[self.item_hash] = self.item
        found = self.look(60)
        self.network.advance(7 * PATIENCE)
        self.assertEqual(self.successResultOf(found).body, self.item.body)

    def test_nobody_asked_for_it(self) -> None:
        """I8: what comes unasked is dropped and not served, but counted like all else."""
        peer = self.call("peer", Neighbour)
        peer.send(self.item)
        peer.send(a_quorum_set(1))
        peer.ask(GET_TX_SET, self.item_hash)
        peer.ask(GET_QUORUM_SET, quorum_set_hash(a_quorum_set(1).body))
        self.network.advance(1)
        answers = [decode_dont_have(body) for body in peer.bodies(DONT_HAVE)]
        self.assertEqual(answers, [(TX_SET, self.item_hash), (QUORUM_SET, answers[1][1])])
        self.assertEqual(
            self.figures(self.node, "fetch_unique_recv", "fetch_duplicate_recv"), [2, 0]
        )


class ApplicationTests(SearchTestCase):
    """``fetch_tx_set`` and ``fetch_quorum_set``."""

    def test_time_out(self) -> None:
        """It raises in time, and nobody is asked any more."""
        peer = self.call("peer", Mute)
        found = self.look(4)
        self.network.advance(3.9)
        self.assertNoResult(found)
        self.network.advance(0.2)
        self.failureResultOf(found, FetchTimeout)
        asked = len(peer.asked(self.item_hash))
        self.network.advance(60)
        self.assertEqual(len(peer.asked(self.item_hash)), asked)

    def test_cancelled(self) -> None:
        """Cancelling ends the search, too; what comes then is not taken."""
        peer = self.call("peer", Mute)
        found = self.look(100)
        self.network.advance(1)
        found.cancel()
        self.failureResultOf(found, CancelledError)
        peer.send(self.item)
        self.network.advance(60)
        self.assertEqual(len(peer.asked(self.item_hash)), 1)
        peer.ask(GET_TX_SET, self.item_hash)
        self.network.advance(1)
        self.assertEqual(len(peer.bodies(DONT_HAVE)), 1)

    def test_somebody_comes(self) -> None:
        """Who arrives while there is nobody to ask is asked at once."""
        found = self.look(100)
        self.network.advance(50)
        host = self.call("peer", Neighbour)
        self.assertEqual(len(host.asked(self.item_hash)), 1)
        host.items[self.item_hash] = self.item
        self.network.advance(10)
        self.assertEqual(self.successResultOf(found).body, self.item.body)

    def test_a_quorum_set(self) -> None:
        """Likewise, from the one who has it."""
        self.call("peer", Neighbour)
        item = a_quorum_set(1, 2, 3)
        other = self.call("other", Neighbour)
        other.items[quorum_set_hash(item.body)] = item
        found = self.network.result_of(self.node.fetch_quorum_set(quorum_set_hash(item.body)))
        self.assertEqual(found.body, item.body)

    def test_the_cap(self) -> None:
        """Y16: 512 at a time; one more is refused, one that is looked for already is not."""
        searches = [
            Deferred.fromCoroutine(self.node.fetch_tx_set(a_hash(number), timeout=30))
            for number in range(511)
        ]
        searches.append(self.look(30))
        refused = Deferred.fromCoroutine(self.node.fetch_tx_set(a_hash("more"), timeout=30))
        self.failureResultOf(refused, OverlayError)
        searches.append(self.look(30))
        self.assertEqual(self.figures(self.node, "item_fetcher_tracker_cap_reached"), [1])
        peer = self.call("peer", Neighbour)
        peer.send(self.item)
        self.network.advance(0)
        for search in searches[-2:]:
            self.assertEqual(self.successResultOf(search).body, self.item.body)
        searches[-2:] = [Deferred.fromCoroutine(self.node.fetch_tx_set(a_hash("more"), timeout=30))]
        self.network.advance(31)
        for search in searches:
            self.failureResultOf(search, FetchTimeout)
        self.assertLessEqual(len(peer.bodies(GET_TX_SET)), 25)  # a minute


class QuestionTests(TrafficTestCase):
    """Y19: how many questions of a peer are answered."""

    def test_limits(self) -> None:
        """300, 300 and 10 in a minute; then others again. The link stays, others are answered."""
        node = self.add()
        peer, other = self.calls(2, Neighbour)
        item = a_tx_set(1)
        item_hash = node.publish(item)
        node.broadcast(externalized(1))
        self.network.advance(0)
        self.assertEqual(len(peer.bodies(SCP)), 1)
        for rounds in (1, 2):
            for _ in range(400):
                peer.ask(GET_TX_SET, item_hash)
                peer.ask(GET_QUORUM_SET, a_hash("nothing"))
            for _ in range(20):
                peer.send(Message(GET_SCP_STATE.to_bytes(4, "big") + bytes(4)))
            self.network.advance(0)
            self.assertEqual(len(peer.bodies(TX_SET)), 300 * rounds)
            self.assertEqual(len(peer.bodies(DONT_HAVE)), 300 * rounds)
            self.assertEqual(len(peer.bodies(SCP)), 1 + 10 * rounds)
            self.assertEqual(self.figures(node, "queries_ignored"), [210 * rounds])
            other.ask(GET_TX_SET, item_hash)
            self.network.advance(60)
            self.assertEqual(len(other.bodies(TX_SET)), rounds)
        self.assert_linked(peer, other)
