"""What travels in the demo: synthetic consensus, real transactions, and statements to single peers.

The statements that go to a single peer are about slots of no ledger: they are there to use up the
credit that peers grant, and no node passes them on.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from twisted.internet.task import deferLater

from stellar_overlay.error import PeerNotFound
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.tools.demo_journal import FIRST_DIRECT_SLOT, Journal
from stellar_overlay.tools.demo_network import DEADLINE_SECONDS, Network
from stellar_overlay.tools.demo_validator import STATEMENTS_PER_LEDGER, Validator
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.quorum_set import FlatQuorumSet
from stellar_overlay.wire.scp import externalize

STEPS_PER_SECOND = 10
"""At each step a transaction is submitted, and direct statements are sent."""
MESSAGES_PER_LINK = 600
"""Direct statements in each direction of each link: three times the first grant."""
MAX_LINKS_WITH_DIRECT = 60
"""That is enough of them, and of work, in a large network."""
FIRST_LEDGER = 1
SPARE_SECONDS = 3600
"""For how long a transaction is good beyond all traffic."""


class Payments:
    """Makes real, signed transactions, each from an account of its own that nobody has funded.

    :param max_time: the Unix time up to which they are good.
    """

    def __init__(self, network_passphrase: str, max_time: int, seed: int) -> None:
        self._passphrase = network_passphrase
        self._max_time = max_time
        self._seed = seed
        self._count = 0

    def make(self) -> Message:
        """Return the TRANSACTION of the next one."""
        from stellar_sdk import Account, Asset, Keypair, TransactionBuilder

        self._count += 1
        name = f"stellar-overlay demo {self._seed} account {self._count}"
        payer = Keypair.from_raw_ed25519_seed(hashlib.sha256(name.encode()).digest())
        builder = TransactionBuilder(Account(payer.public_key, self._count), self._passphrase, 100)
        builder.append_payment_op(payer.public_key, Asset.native(), "1")
        builder.add_time_bounds(0, self._max_time)
        envelope = builder.build()
        envelope.sign(payer)
        kind = MessageType.TRANSACTION.to_bytes(4, "big")
        return Message(kind + envelope.to_xdr_object().to_xdr_bytes())


class Traffic:
    """Has the nodes of a network send all that is checked.

    :param report: called each second, with its number.
    :ivar ledger: the last one that was proposed.
    :ivar ledger_seconds: how often one is.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        network: Network,
        journal: Journal,
        reactor: Any,
        report: Callable[[int], None],
    ) -> None:
        self._seconds: int = arguments.seconds
        self._network = network
        self._journal = journal
        self._reactor = reactor
        self._report = report
        self._random = random.Random(f"{arguments.seed} traffic")  # noqa: S311 - the same each time
        first = network.nodes[0].local_node
        self._wall_clock = first.wall_clock
        max_time = int(first.wall_clock()) + self._seconds + SPARE_SECONDS
        self._payments = Payments(first.network_passphrase, max_time, arguments.seed)
        self._direct_links = network.links[:MAX_LINKS_WITH_DIRECT]
        self.ledger = FIRST_LEDGER - 1
        for node in network.nodes:
            journal.watch(node)
        self.validators = self._make_validators(network.nodes)
        self.ledger_seconds = network.ledger_seconds
        self._followed = [0] * network.size

    def _make_validators(self, nodes: Sequence[OverlayManager]) -> list[Validator]:
        """Have half of the nodes sign as validators, but not more than five."""
        size = self._network.validators
        chosen = self._random.sample(nodes, size)
        keys = sorted(node.local_node.peer_id.key for node in chosen)
        quorum_set = FlatQuorumSet(size - (size - 1) // 3, tuple(keys))
        return [Validator(node, quorum_set, self._reactor, self._journal) for node in chosen]

    async def run(
        self, deadline: float, is_ledger_wanted: Callable[[], bool] = lambda: False
    ) -> None:
        """Send everything in time, then wait until it has arrived, up to a deadline.

        :param is_ledger_wanted: tells whether ledgers are to go on when all else is sent, deadline
            or not; they take twice as long then, so that there are not many more.
        """
        clock, steps = self._reactor, self._seconds * STEPS_PER_SECOND
        start = clock.seconds()
        deadline = max(deadline, start + self._seconds + DEADLINE_SECONDS)
        for step in range(steps):
            wait = start + step / STEPS_PER_SECOND - clock.seconds()
            await self._pass(wait)
            if clock.seconds() > deadline:
                break
            self._submit()
            self._send_directly(MESSAGES_PER_LINK * (step + 1) // steps)
            self._close_ledger_each(self.ledger_seconds, step)
            if step % STEPS_PER_SECOND == 0:
                self._report(step // STEPS_PER_SECOND)
        for step in count():
            if is_ledger_wanted():
                self._close_ledger_each(2 * self.ledger_seconds, step)
                deadline = max(deadline, clock.seconds() + DEADLINE_SECONDS)
            elif self._is_done or clock.seconds() >= deadline:
                break
            await self._pass(1 / STEPS_PER_SECOND)
        self._report(self._seconds)

    async def _pass(self, seconds: float) -> None:
        """Let time pass, and see how far the nodes are by then."""
        await deferLater(self._reactor, max(0.0, seconds))
        self._followed = list(map(max, self._followed, self._network.ledgers))

    @property
    def _is_done(self) -> bool:
        """Whether all ledgers are closed, everywhere, and all else has arrived."""
        is_closed = self._journal.statements.broadcast >= self.statements_wanted
        return is_closed and self._journal.is_settled and self.followed == self.ledger

    @property
    def followed(self) -> int:
        """The last ledger that all nodes have reached; they may have lost consensus since."""
        return min(self._followed)

    @property
    def statements_wanted(self) -> int:
        """How many statements the validators make of all the ledgers that were proposed."""
        ledgers = self.ledger - FIRST_LEDGER + 1
        return ledgers * len(self.validators) * STATEMENTS_PER_LEDGER

    def _submit(self) -> None:
        node = self._random.choice(self._network.nodes)
        message = self._payments.make()
        self._journal.broadcast(node, message)
        for validator in self.validators:
            if validator.overlay is node:
                validator.add_transaction(message.body)

    def _close_ledger_each(self, seconds: int, step: int) -> None:
        """Propose a ledger if so many seconds have passed: half a second after they began."""
        if step % (STEPS_PER_SECOND * seconds) != STEPS_PER_SECOND // 2:
            return
        self.ledger += 1
        proposer = self.validators[self.ledger % len(self.validators)]
        proposer.propose(self.ledger, int(self._wall_clock()))

    def _send_directly(self, goal: int) -> None:
        """Bring what was sent in each direction of each link up to so many statements."""
        made: dict[tuple[OverlayManager, int], Message] = {}
        for link in self._direct_links:
            for a, b in (link, link[::-1]):
                with suppress(PeerNotFound):  # the check will say so
                    for number in range(self._journal.count_sent(a, b), goal):
                        if (a, number) not in made:
                            slot = FIRST_DIRECT_SLOT + number
                            made[a, number] = externalize(a.local_node, slot, bytes(32))
                        self._journal.send(a, b, made[a, number])
