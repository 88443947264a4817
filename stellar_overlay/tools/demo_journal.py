"""What the demo's nodes broadcast and what their links carry, noted by an observer at each node."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import Clock
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.wire.message import Message, MessageType, decode_hashes
from stellar_overlay.wire.scp import ScpStatement, tx_set_hash_of_value
from stellar_overlay.wire.transaction import tx_full_hash
from stellar_overlay.wire.tx_set import tx_set_hash

MAX_JOURNEYS = 20_000
"""Messages of one kind that are followed at a time: a quarter of an hour's."""
MAX_TX_SETS = 200
"""Fewer than a node keeps."""
MAX_LATENCIES = 100_000
FIRST_DIRECT_SLOT = 2**32
"""Ledgers are numbered with 32 bits: nobody follows such a slot, or passes on what is said of it.
"""


def is_direct(slot: int) -> bool:
    """Tell whether a slot is that of a statement which is sent to a single peer."""
    return slot >= FIRST_DIRECT_SLOT


@dataclass(slots=True)
class Journey:
    """A message on its way to all nodes.

    Nodes, and directions of links, are bits of a number.

    :ivar heard: who has it, the node where it began included.
    :ivar carried: over which directions it came.
    """

    heard: int
    carried: int = 0


@dataclass
class Flood:
    """All messages of one kind that were broadcast, and how far they got.

    :ivar had_by: how many of them each node has, its own included.
    :ivar heard: how often one was new to a node; ``duplicates``: how often it was not.
    :ivar misjudged: how often a node took for new what it had, or for known what it had not.
    :ivar repeated: how often a direction of a link carried what it had carried before.
    :ivar strange: how often something was heard that nobody had broadcast.
    """

    size: int
    broadcast: int = 0
    heard: int = 0
    duplicates: int = 0
    misjudged: int = 0
    repeated: int = 0
    strange: int = 0
    had_by: Counter[int] = field(default_factory=Counter)
    journeys: BoundedDict[bytes, Journey] = field(default_factory=lambda: BoundedDict(MAX_JOURNEYS))

    @property
    def expected(self) -> int:
        """How often something is new to a node when all have heard everything."""
        return self.broadcast * (self.size - 1)

    def begin(self, body: bytes, node: int) -> None:
        """Note a message that a node is about to broadcast."""
        self.broadcast += 1
        self.had_by[node] += 1
        self.journeys.put(body, Journey(1 << node))

    def hear(
        self, journey: Journey, sender: int, receiver: int, *, is_first: bool, is_answer: bool
    ) -> None:
        """Note that a link carried a message.

        :param is_answer: whether it may have been sent once more because it was asked for.
        """
        bit, direction = 1 << receiver, 1 << sender * self.size + receiver
        if is_first == bool(journey.heard & bit):
            self.misjudged += 1
        if is_first:
            self.heard += 1
            self.had_by[receiver] += 1
        else:
            self.duplicates += 1
        if journey.carried & direction and not is_answer:
            self.repeated += 1
        journey.heard |= bit
        journey.carried |= direction


@dataclass(slots=True)
class Pull:
    """How a transaction was asked for.

    :ivar advertised: when each node was first told of it.
    :ivar demanded: who has asked whom, a bit for each direction.
    """

    advertised: dict[int, float] = field(default_factory=dict)
    demanded: int = 0


@dataclass(slots=True)
class TxSet:
    """A transaction set that one node made.

    :ivar named: when each node first heard a statement that names it; ``got``: when it came there.
    """

    message: Message
    publisher: int
    named: dict[int, float] = field(default_factory=dict)
    got: dict[int, float] = field(default_factory=dict)


class Journal:
    """All that is checked in the end.

    :param clock: what latencies are taken by.
    :ivar unsolicited: how many transactions came from a peer that was not asked for them.
    :ivar sent: direct statements, by sender and receiver; ``received`` likewise. Nodes are numbers
        here, in the order in which they were watched.
    :ivar astray: direct statements that came from another node than their signer.
    """

    def __init__(self, size: int, clock: Clock) -> None:
        self.statements = Flood(size)
        self.transactions = Flood(size)
        self.tx_sets: BoundedDict[bytes, TxSet] = BoundedDict(MAX_TX_SETS)
        self.tx_sets_made = self.tx_sets_got = 0
        self.unsolicited = 0
        self.pull_seconds: deque[float] = deque(maxlen=MAX_LATENCIES)
        self.fetch_seconds: deque[float] = deque(maxlen=MAX_LATENCIES)
        self.sent: Counter[tuple[int, int]] = Counter()
        self.received: Counter[tuple[int, int]] = Counter()
        self.astray = 0
        self._size = size
        self._clock = clock
        self._numbers: dict[PeerId, int] = {}
        self._pulls: BoundedDict[bytes, Pull] = BoundedDict(MAX_JOURNEYS)
        self._askers: set[tuple[int, int]] = set()

    def watch(self, node: OverlayManager) -> None:
        """Note from now on what a node hears."""
        number = self._numbers[node.local_node.peer_id] = len(self._numbers)
        for kind, note in (
            (MessageType.SCP_MESSAGE, self._note_statement),
            (MessageType.TRANSACTION, self._note_transaction),
            (MessageType.FLOOD_ADVERT, self._note_advert),
            (MessageType.FLOOD_DEMAND, self._note_demand),
            (MessageType.GENERALIZED_TX_SET, self._note_tx_set),
            (MessageType.GET_SCP_STATE, self._note_question),
        ):
            node.observe(partial(self._note, note, number), kind, name="demo")

    # What nodes are about to do.

    def broadcast(self, node: OverlayManager, message: Message) -> None:
        """Have a node broadcast a statement or a transaction."""
        number = self._number_of(node)
        if message.type is MessageType.TRANSACTION:
            self.transactions.begin(message.body, number)
            self._pulls.put(tx_full_hash(message.body), Pull())
        else:
            self.statements.begin(message.body, number)
        node.broadcast(message)

    def publish(self, node: OverlayManager, message: Message) -> bytes:
        """Have a node keep a transaction set for those who ask for it; return its hash."""
        item_hash = node.publish(message)
        self.tx_sets.put(item_hash, TxSet(message, self._number_of(node)))
        self.tx_sets_made += 1
        return item_hash

    def count_sent(self, sender: OverlayManager, receiver: OverlayManager) -> int:
        """Return how many direct statements a node has sent to a peer."""
        return self.sent[self._number_of(sender), self._number_of(receiver)]

    def send(self, sender: OverlayManager, receiver: OverlayManager, message: Message) -> None:
        """Have a node send a direct statement to one peer.

        :raises PeerNotFound: when that is not connected.
        """
        sender.send_to(receiver.local_node.peer_id, message)
        self.sent[self._number_of(sender), self._number_of(receiver)] += 1

    # How far it has come.

    @property
    def progress(self) -> tuple[int, int]:
        """How many deliveries of whatever kind there were, and how many there should have been."""
        floods = self.statements, self.transactions
        done = sum(flood.heard for flood in floods) + self.tx_sets_got
        wanted = sum(flood.expected for flood in floods)
        return done, wanted + self.tx_sets_made * (self._size - 1)

    @property
    def is_settled(self) -> bool:
        """Whether everything has arrived that was sent."""
        done, wanted = self.progress
        return done >= wanted and self.sent == self.received

    # What nodes hear.

    def _note(
        self,
        note: Callable[[int, int, OverlayMessage], None],
        receiver: int,
        message: OverlayMessage,
    ) -> None:
        sender = self._numbers.get(message.from_peer)
        if sender is not None:  # who else calls has no part in this
            note(sender, receiver, message)

    def _note_statement(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        journey = self.statements.journeys.get(message.body)
        if journey is None:
            self._note_direct(sender, receiver, message)
            return
        self.statements.hear(
            journey,
            sender,
            receiver,
            is_first=message.is_first,
            is_answer=(receiver, sender) in self._askers,
        )
        if message.is_first:
            now = self._clock.seconds()
            for value in ScpStatement(message.body).values:
                tx_set = self.tx_sets.get(tx_set_hash_of_value(value) or b"")
                if tx_set is not None:
                    tx_set.named.setdefault(receiver, now)

    def _note_direct(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        statement = ScpStatement(message.body)
        if not is_direct(statement.slot):
            self.statements.strange += 1
        elif statement.node != message.from_peer.key:
            self.astray += 1
        else:
            self.received[sender, receiver] += 1

    def _note_transaction(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        journey = self.transactions.journeys.get(message.body)
        pull = self._pulls.get(tx_full_hash(message.body))
        if journey is None or pull is None:
            self.transactions.strange += 1
            return
        self.transactions.hear(
            journey, sender, receiver, is_first=message.is_first, is_answer=False
        )
        if not pull.demanded & self._direction(receiver, sender):
            self.unsolicited += 1
        if message.is_first and receiver in pull.advertised:
            self.pull_seconds.append(self._clock.seconds() - pull.advertised.pop(receiver))

    def _note_advert(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        now = self._clock.seconds()
        for tx_hash in decode_hashes(message.body):
            pull = self._pulls.get(tx_hash)
            if pull is not None:
                pull.advertised.setdefault(receiver, now)

    def _note_demand(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        for tx_hash in decode_hashes(message.body):
            pull = self._pulls.get(tx_hash)
            if pull is not None:
                pull.demanded |= self._direction(sender, receiver)

    def _note_tx_set(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        tx_set = self.tx_sets.get(tx_set_hash(message.body))
        if tx_set is None or receiver in tx_set.got:
            return
        self.tx_sets_got += 1
        tx_set.got[receiver] = now = self._clock.seconds()
        self.fetch_seconds.append(now - tx_set.named.get(receiver, now))

    def _note_question(self, sender: int, receiver: int, message: OverlayMessage) -> None:
        self._askers.add((sender, receiver))

    def _number_of(self, node: OverlayManager) -> int:
        return self._numbers[node.local_node.peer_id]

    def _direction(self, sender: int, receiver: int) -> int:
        return 1 << sender * self._size + receiver
