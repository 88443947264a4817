"""A synthetic validator of the demo: it signs and follows others as real ones do.

But it agrees with whoever proposes, and there is no ledger that anything is applied to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.interfaces import Clock
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.tools.demo_journal import Journal, is_direct
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set
from stellar_overlay.wire.scp import (
    ScpStatement,
    StatementType,
    externalize,
    nominate,
    prepare,
    stellar_value,
)
from stellar_overlay.wire.tx_set import generalized_tx_set, transactions_of

STEP_SECONDS = 0.25
"""How long it waits between two statements of its own about a slot. What is superseded is not
passed on by whoever hears the newer statement first."""
SLOTS_REMEMBERED = 20
MAX_PENDING = 1000
MAX_TXS_PER_SET = 100

_STEPS = StatementType.NOMINATE, StatementType.PREPARE, StatementType.EXTERNALIZE
STATEMENTS_PER_LEDGER = len(_STEPS)


@dataclass
class _Voting:
    """One slot, as a validator sees it.

    :ivar value: what it votes for, once it has heard a nomination.
    :ivar said: its own statements so far; ``heard``: who else has said what.
    """

    value: bytes = b""
    said: list[StatementType] = field(default_factory=list)
    heard: dict[StatementType, set[bytes]] = field(
        default_factory=lambda: {kind: set() for kind in StatementType}
    )
    is_waiting: bool = False


class Validator:
    """Votes for what it hears nominated, and goes on when a quorum has come as far.

    All that it knows it has heard from its own node.

    :param overlay: of the node that it signs as.
    :param quorum_set: of it and all others.
    :ivar quorum_set_hash: by which peers ask for that.
    """

    def __init__(
        self, overlay: OverlayManager, quorum_set: FlatQuorumSet, clock: Clock, journal: Journal
    ) -> None:
        self.overlay = overlay
        self._quorum_set = quorum_set
        self._clock = clock
        self._journal = journal
        self.quorum_set_hash = overlay.publish(encode_quorum_set(quorum_set))
        self._votings: BoundedDict[int, _Voting] = BoundedDict(SLOTS_REMEMBERED)
        self._pending: BoundedDict[bytes, None] = BoundedDict(MAX_PENDING)
        name = "demo validator"
        overlay.observe(self._hear, MessageType.SCP_MESSAGE, duplicates=False, name=name)
        overlay.observe(
            lambda message: self.add_transaction(message.body),
            MessageType.TRANSACTION,
            duplicates=False,
            name=name,
        )
        overlay.observe(self._forget, MessageType.GENERALIZED_TX_SET, name=name)

    def add_transaction(self, body: bytes) -> None:
        """Have a transaction in the next set that is proposed from here."""
        self._pending.put(body[4:], None)

    def propose(self, slot: int, close_time: int) -> None:
        """Make a set of the transactions that were heard here, and nominate it."""
        envelopes = list(self._pending)[:MAX_TXS_PER_SET]
        for envelope in envelopes:
            self._pending.pop(envelope)
        previous = hashlib.sha256(f"ledger {slot - 1} of the demo".encode()).digest()
        item_hash = self._journal.publish(self.overlay, generalized_tx_set(previous, envelopes))
        self._vote_for(slot, stellar_value(item_hash, close_time))

    def _forget(self, message: OverlayMessage) -> None:
        """Leave out what is in a set that somebody else proposed."""
        for envelope in transactions_of(message.body):
            self._pending.pop(envelope)

    def _hear(self, message: OverlayMessage) -> None:
        statement = ScpStatement(message.body)
        if is_direct(statement.slot):
            return
        voting = self._voting(statement.slot)
        voting.heard[statement.kind].add(statement.node)
        if statement.kind is StatementType.EXTERNALIZE:  # says all that a PREPARE does
            voting.heard[StatementType.PREPARE].add(statement.node)
        if statement.kind is StatementType.NOMINATE and not voting.value:
            self._vote_for(statement.slot, statement.values[0])
        self._go_on(statement.slot)

    def _vote_for(self, slot: int, value: bytes) -> None:
        self._voting(slot).value = value
        self._say(slot, StatementType.NOMINATE)

    def _go_on(self, slot: int) -> None:
        """Make the next statement if a quorum has made the last, and it is time to."""
        voting = self._voting(slot)
        if not voting.said or voting.is_waiting or len(voting.said) == len(_STEPS):
            return
        agreeing = voting.heard[voting.said[-1]] | {self.overlay.local_node.peer_id.key}
        if self._quorum_set.is_satisfied_by(agreeing):
            self._say(slot, _STEPS[len(voting.said)])

    def _say(self, slot: int, kind: StatementType) -> None:
        voting, node = self._voting(slot), self.overlay.local_node
        voting.said.append(kind)
        voting.is_waiting = True
        self._clock.callLater(STEP_SECONDS, self._wait_no_longer, slot)
        mine = self.quorum_set_hash
        if kind is StatementType.NOMINATE:
            message = nominate(node, slot, [voting.value], quorum_set_hash=mine)
        else:
            ballot = prepare if kind is StatementType.PREPARE else externalize
            message = ballot(node, slot, voting.value, quorum_set_hash=mine)
        self._journal.broadcast(self.overlay, message)

    def _wait_no_longer(self, slot: int) -> None:
        self._voting(slot).is_waiting = False
        if self.overlay.running:
            self._go_on(slot)

    def _voting(self, slot: int) -> _Voting:
        voting = self._votings.get(slot)
        if voting is None:
            voting = _Voting()
            self._votings.put(slot, voting)
        return voting
