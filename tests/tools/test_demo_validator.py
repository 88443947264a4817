"""The demo's validators: what they say, when, and from what they have heard."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.tools.demo_journal import FIRST_DIRECT_SLOT, Journal
from stellar_overlay.tools.demo_traffic import Payments
from stellar_overlay.tools.demo_validator import MAX_TXS_PER_SET, Validator
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.quorum_set import FlatQuorumSet
from stellar_overlay.wire.scp import (
    ScpStatement,
    StatementType,
    externalize,
    tx_set_hash_of_value,
)
from stellar_overlay.wire.tx_set import transactions_of
from tests.tools.demo_kit import SimulatedNetwork

NOMINATE, PREPARE, EXTERNALIZE = (
    StatementType.NOMINATE, StatementType.PREPARE, StatementType.EXTERNALIZE,
)  # fmt: skip


class ValidatorTests(SynchronousTestCase):
    """Four nodes, the first three of which are validators, two of them a quorum."""

    def setUp(self) -> None:
        self.network = SimulatedNetwork(Namespace(nodes=4, seconds=1, seed=7))
        self.network.find_links()
        self.clock = self.network.world.clock
        self.journal = Journal(4, self.clock)
        self.nodes = self.network.nodes
        for node in self.nodes:
            self.journal.watch(node)
        keys = [node.local_node.peer_id.key for node in self.nodes]
        self.quorum_set = FlatQuorumSet(2, tuple(sorted(keys[:3])))
        self.names = dict(zip(keys, "abcd", strict=True))
        self.heard: list[tuple[float, str, StatementType]] = []
        self.statements: list[ScpStatement] = []
        self.start = self.clock.seconds()
        self.nodes[3].observe(self.note, MessageType.SCP_MESSAGE, duplicates=False)

    def note(self, message: OverlayMessage) -> None:
        statement = ScpStatement(message.body)
        at = round(self.clock.seconds() - self.start, 2)
        self.heard.append((at, self.names[statement.node], statement.kind))
        self.statements.append(statement)

    def validator(self, number: int) -> Validator:
        return Validator(self.nodes[number], self.quorum_set, self.clock, self.journal)

    def payments(self, count: int) -> list[bytes]:
        payments = Payments(self.nodes[0].config.network_passphrase, 0, seed=1)
        return [payments.make().body for _ in range(count)]

    def test_ledger(self) -> None:
        """One nominates, the others follow, and each goes on with a quorum, but not at once."""
        proposer, *_ = [self.validator(number) for number in range(3)]
        proposer.propose(1, 1_700_000_000)
        self.network.world.advance(2)
        self.assertEqual(
            Counter((name, kind) for _, name, kind in self.heard),
            Counter((name, kind) for name in "abc" for kind in (NOMINATE, PREPARE, EXTERNALIZE)),
        )
        self.assertEqual(self.heard[0][1:], ("a", NOMINATE))
        for name in "abc":
            times = [at for at, by, _ in self.heard if by == name]
            kinds = [kind for _, by, kind in self.heard if by == name]
            self.assertEqual(kinds, [NOMINATE, PREPARE, EXTERNALIZE])
            self.assertTrue(all(b - a >= 0.24 for a, b in pairwise(times)))
        (value,) = {value for statement in self.statements for value in statement.values}
        self.assertIsNotNone(self.journal.tx_sets.get(tx_set_hash_of_value(value) or b""))
        hashes = {statement.quorum_set_hash for statement in self.statements}
        self.assertEqual(hashes, {proposer.quorum_set_hash})
        self.assertEqual(self.network.ledgers, [1, 1, 1, 1])

    def test_no_quorum(self) -> None:
        """One alone nominates, and waits for others."""
        self.validator(0).propose(1, 1_700_000_000)
        self.network.world.advance(5)
        self.assertEqual([kind for *_, kind in self.heard], [NOMINATE])

    def test_quorum_without_one(self) -> None:
        """Two of three go on without the third."""
        self.validator(1)
        self.validator(0).propose(1, 1_700_000_000)
        self.network.world.advance(2)
        self.assertEqual(len(self.heard), 6)
        self.assertEqual(self.network.ledgers, [1, 1, 1, 1])

    def test_direct_statements(self) -> None:
        """Direct statements are no reason to say anything."""
        self.validator(0)
        message = externalize(self.nodes[1].local_node, FIRST_DIRECT_SLOT, bytes(32))
        self.nodes[1].send_to(self.nodes[0].local_node.peer_id, message)
        self.network.world.advance(2)
        self.assertEqual(self.heard, [])

    def test_transactions(self) -> None:
        """A set has what its maker has heard or was told; others leave that out of theirs."""
        first, second = self.validator(0), self.validator(1)
        bodies = self.payments(4)
        for body in bodies[:3]:
            for validator in (first, second):
                validator.add_transaction(body)
        first.propose(1, 1_700_000_000)
        self.network.world.advance(2)
        second.add_transaction(bodies[3])
        second.propose(2, 1_700_000_001)
        self.network.world.advance(2)
        sets = [self.journal.tx_sets.get(item_hash) for item_hash in self.journal.tx_sets]
        contents = [set(transactions_of(one.message.body)) for one in sets if one is not None]
        self.assertEqual(contents, [{body[4:] for body in bodies[:3]}, {bodies[3][4:]}])

    def test_many_transactions(self) -> None:
        """What a set has no room for is for the next."""
        validator = self.validator(0)
        for body in self.payments(MAX_TXS_PER_SET + 5):
            validator.add_transaction(body)
        for slot in (1, 2):
            validator.propose(slot, 1_700_000_000)
        sets = [self.journal.tx_sets.get(item_hash) for item_hash in self.journal.tx_sets]
        sizes = [len(list(transactions_of(one.message.body))) for one in sets if one is not None]
        self.assertEqual(sizes, [MAX_TXS_PER_SET, 5])

    def test_stopped(self) -> None:
        """Once its node has stopped it says nothing more."""
        proposer, *_ = [self.validator(number) for number in range(3)]
        proposer.propose(1, 1_700_000_000)
        self.network.world.advance(0.1)
        self.network.world.stop("node 0")
        said = self.journal.statements.had_by[0]
        self.network.world.advance(5)
        self.assertEqual(Counter(name for _, name, _ in self.heard)["a"], 1)
        self.assertLessEqual(said, 3)
