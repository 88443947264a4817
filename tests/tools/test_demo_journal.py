"""The demo's journal: what it makes of each message that a node hears."""

from __future__ import annotations

from argparse import Namespace

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.tools.demo_journal import FIRST_DIRECT_SLOT, Journal, is_direct
from stellar_overlay.tools.demo_traffic import Payments
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    encode_get_scp_state,
    encode_hashes,
)
from stellar_overlay.wire.scp import externalize, stellar_value
from stellar_overlay.wire.transaction import tx_full_hash
from stellar_overlay.wire.tx_set import generalized_tx_set
from tests.tools.demo_kit import SimulatedNetwork

SCP = MessageType.SCP_MESSAGE
TX = MessageType.TRANSACTION


class JournalTests(SynchronousTestCase):
    """Three nodes without links: what they hear is put into their ears."""

    def setUp(self) -> None:
        arguments = Namespace(nodes=3, seconds=1, seed=7)
        self.network = SimulatedNetwork(arguments, known={2: 2, 1: 1})
        self.clock = self.network.world.clock
        self.journal = Journal(3, self.clock)
        self.nodes = self.network.nodes
        for node in self.nodes:
            self.journal.watch(node)

    def hear(
        self, sender: int, receiver: int, kind: MessageType, body: bytes, *, is_first: bool = True
    ) -> None:
        """Let a node hear a message of another."""
        peer_id = self.nodes[sender].local_node.peer_id
        subscriptions = self.nodes[receiver]._links.subscriptions
        subscriptions.deliver(peer_id, int(kind), body, 0.0, is_first)

    def statement(self, slot: int = 1, by: int = 0, value: bytes = bytes(32)) -> bytes:
        return externalize(self.nodes[by].local_node, slot, value).body

    def broadcast(self, body: bytes, by: int = 0) -> None:
        self.journal.broadcast(self.nodes[by], Message(body))


class FloodTests(JournalTests):
    def test_once_everywhere(self) -> None:
        """New once to each other node, then a duplicate from another peer: nothing is wrong."""
        body = self.statement()
        self.broadcast(body)
        flood = self.journal.statements
        self.assertEqual((flood.expected, self.journal.is_settled), (2, False))
        self.hear(0, 1, SCP, body)
        self.hear(0, 2, SCP, body)
        self.hear(1, 2, SCP, body, is_first=False)
        self.hear(2, 1, SCP, body, is_first=False)
        self.hear(1, 0, SCP, body, is_first=False)
        self.assertEqual((flood.heard, flood.duplicates), (2, 3))
        self.assertEqual((flood.misjudged, flood.repeated, flood.strange), (0, 0, 0))
        self.assertEqual(flood.had_by, {0: 1, 1: 1, 2: 1})
        self.assertTrue(self.journal.is_settled)

    def test_repeated(self) -> None:
        """One direction of a link must carry it once only; the other has nothing to do with it."""
        body = self.statement()
        self.broadcast(body)
        self.hear(0, 1, SCP, body)
        self.hear(1, 0, SCP, body, is_first=False)
        self.assertEqual(self.journal.statements.repeated, 0)
        self.hear(0, 1, SCP, body, is_first=False)
        self.assertEqual(self.journal.statements.repeated, 1)

    def test_answers(self) -> None:
        """Who asks a peer for its statements gets from it what it had before; nobody else does."""
        body = self.statement()
        self.broadcast(body)
        self.hear(0, 1, SCP, body)
        self.hear(0, 2, SCP, body)
        self.hear(1, 0, MessageType.GET_SCP_STATE, encode_get_scp_state(0))
        self.hear(0, 1, SCP, body, is_first=False)
        self.assertEqual(self.journal.statements.repeated, 0)
        self.hear(0, 2, SCP, body, is_first=False)
        self.assertEqual(self.journal.statements.repeated, 1)

    def test_misjudged(self) -> None:
        """New twice, known although it is new, or new to where it comes from."""
        body = self.statement()
        self.broadcast(body)
        flood = self.journal.statements
        self.hear(0, 1, SCP, body)
        self.hear(2, 1, SCP, body)
        self.assertEqual(flood.misjudged, 1)
        self.hear(1, 2, SCP, body, is_first=False)
        self.assertEqual(flood.misjudged, 2)
        self.hear(1, 0, SCP, body)
        self.assertEqual(flood.misjudged, 3)

    def test_strange(self) -> None:
        """What nobody has broadcast; but what a stranger says does not count."""
        self.hear(0, 1, SCP, self.statement())
        payment = Payments("net", 0, 1).make()
        self.hear(0, 1, TX, payment.body)
        stranger = PeerId(bytes(32))
        self.nodes[1]._links.subscriptions.deliver(stranger, int(SCP), self.statement(2), 0.0)
        self.assertEqual(self.journal.statements.strange, 1)
        self.assertEqual(self.journal.transactions.strange, 1)

    def test_direct(self) -> None:
        """Direct statements are counted by sender and receiver, unless somebody passes them on."""
        self.assertEqual([is_direct(slot) for slot in (1, 2**32 - 1, 2**32)], [False, False, True])
        body = self.statement(FIRST_DIRECT_SLOT + 3)
        self.hear(0, 1, SCP, body)
        self.hear(0, 2, SCP, body)
        self.hear(1, 2, SCP, body, is_first=False)
        self.assertEqual(self.journal.received, {(0, 1): 1, (0, 2): 1})
        self.assertEqual((self.journal.astray, self.journal.statements.strange), (1, 0))


class PullTests(JournalTests):
    def setUp(self) -> None:
        super().setUp()
        self.payment = Payments(LocalNode.testnet().network_passphrase, 0, 1).make()
        self.tx_hash = tx_full_hash(self.payment.body)
        self.broadcast(self.payment.body)

    def say(self, sender: int, receiver: int, kind: MessageType) -> None:
        self.hear(sender, receiver, kind, encode_hashes(kind, [self.tx_hash, bytes(32)]))

    def test_solicited(self) -> None:
        """Advertised, demanded, served: it took as long as from the first advert."""
        self.say(0, 1, MessageType.FLOOD_ADVERT)
        self.clock.advance(0.25)
        self.say(2, 1, MessageType.FLOOD_ADVERT)
        self.say(1, 0, MessageType.FLOOD_DEMAND)
        self.clock.advance(0.25)
        self.hear(0, 1, TX, self.payment.body)
        self.assertEqual(list(self.journal.pull_seconds), [0.5])
        self.assertEqual((self.journal.unsolicited, self.journal.transactions.heard), (0, 1))

    def test_unsolicited(self) -> None:
        """It was asked of another peer, or by another, or not at all."""
        self.say(1, 0, MessageType.FLOOD_DEMAND)
        self.hear(2, 1, TX, self.payment.body)
        self.assertEqual(self.journal.unsolicited, 1)
        self.hear(0, 2, TX, self.payment.body)
        self.assertEqual(self.journal.unsolicited, 2)
        self.hear(0, 1, TX, self.payment.body, is_first=False)
        self.assertEqual(self.journal.unsolicited, 2)


class FetchTests(JournalTests):
    def test_latency(self) -> None:
        """From the first statement that names it until it comes; the first time it comes counts."""
        message = generalized_tx_set(bytes(32), [])
        item_hash = self.journal.publish(self.nodes[0], message)
        body = self.statement(value=stellar_value(item_hash, 1))
        self.broadcast(body)
        self.hear(0, 1, SCP, body)
        self.clock.advance(0.5)
        self.assertFalse(self.journal.is_settled)
        for _ in range(2):
            self.hear(0, 1, MessageType.GENERALIZED_TX_SET, message.body)
            self.clock.advance(1)
        self.assertEqual(list(self.journal.fetch_seconds), [0.5])
        self.assertEqual((self.journal.tx_sets_made, self.journal.tx_sets_got), (1, 1))
        self.assertEqual(self.journal.progress, (2, 4))
