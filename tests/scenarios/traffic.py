"""What the scenarios of flooding and fetching are made of: peers, topologies, signed things."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import stellar_sdk as sdk

from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.interfaces import Clock
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.observer import OverlayMessage
from stellar_overlay.session.outbox import Outbox
from stellar_overlay.testing.loopback import EPOCH
from stellar_overlay.testing.scripted_host import ScriptedHost
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_hash_query,
    decode_hashes,
    decode_send_more_extended,
    encode_dont_have,
    encode_hash_query,
    encode_hashes,
)
from stellar_overlay.wire.quorum_set import FlatQuorumSet, encode_quorum_set
from stellar_overlay.wire.scp import externalize, stellar_value
from stellar_overlay.wire.transaction import tx_full_hash
from stellar_overlay.wire.tx_set import generalized_tx_set
from tests.scenarios.network import ScenarioTestCase

SCP = MessageType.SCP_MESSAGE
TX = MessageType.TRANSACTION
ADVERT = MessageType.FLOOD_ADVERT
DEMAND = MessageType.FLOOD_DEMAND
TX_SET = MessageType.GENERALIZED_TX_SET
QUORUM_SET = MessageType.SCP_QUORUMSET
GET_TX_SET = MessageType.GET_TX_SET
GET_QUORUM_SET = MessageType.GET_SCP_QUORUMSET
GET_SCP_STATE = MessageType.GET_SCP_STATE
DONT_HAVE = MessageType.DONT_HAVE

FLOODED = frozenset({SCP, TX, ADVERT, DEMAND})

# Things that travel.


def a_hash(name: object) -> bytes:
    """Return 32 bytes that look like a hash."""
    return hashlib.sha256(repr(name).encode()).digest()


@cache
def validator(number: int) -> LocalNode:
    """Return a synthetic validator: a key that signs statements and has no overlay."""
    return LocalNode(TESTNET_PASSPHRASE, a_hash(f"validator {number}"), wall_clock=lambda: EPOCH)


def a_value(name: object = "tx set") -> bytes:
    """Return a value that names the transaction set of a hash, or of :func:`a_hash` (name)."""
    return stellar_value(name if isinstance(name, bytes) else a_hash(name), EPOCH)


def externalized(
    slot: int, *, by: int = 0, tx_set: object = "tx set", quorum_set_hash: bytes = bytes(32)
) -> Message:
    """Return a signed EXTERNALIZE of a validator."""
    return externalize(validator(by), slot, a_value(tx_set), quorum_set_hash=quorum_set_hash)


def forged(message: Message) -> Message:
    """Return a message that ends in a signature with its last bit turned."""
    body = bytearray(message.body)
    body[-1] ^= 1
    return Message(bytes(body))


@cache
def _keypair(number: int) -> sdk.Keypair:
    return sdk.Keypair.from_raw_ed25519_seed(a_hash(f"account {number}"))


def payment(number: int = 0, *, bounds: tuple[int, int] = (0, 0)) -> Message:
    """Return the signed TRANSACTION of an account that pays another one."""
    account = sdk.Account(_keypair(number % 16).public_key, number)
    builder = sdk.TransactionBuilder(account, TESTNET_PASSPHRASE, base_fee=100)
    builder.append_payment_op(_keypair(99).public_key, sdk.Asset.native(), "1")
    builder.time_bounds = sdk.TimeBounds(*bounds)
    return _signed(builder, number % 16)


def payments(count: int, first: int = 0) -> list[Message]:
    """Return so many different ones."""
    return [payment(number) for number in range(first, first + count)]


def _signed(builder: sdk.TransactionBuilder, signer: int) -> Message:
    envelope = builder.build()
    envelope.sign(_keypair(signer))
    return transaction(envelope.to_xdr_object().to_xdr_bytes())


def transaction(envelope: bytes) -> Message:
    """Return the TRANSACTION of a TransactionEnvelope."""
    return Message(TX.to_bytes(4, "big") + envelope)


def invocation(number: int = 0) -> Message:
    """Return the signed call of a contract: with a text, an optional account and a boolean."""
    account = sdk.Account(_keypair(1).public_key, number)
    builder = sdk.TransactionBuilder(account, TESTNET_PASSPHRASE, base_fee=100)
    builder.add_text_memo("abc")
    builder.time_bounds = sdk.TimeBounds(0, 0)
    builder.append_invoke_contract_function_op(
        sdk.StrKey.encode_contract(bytes(32)),
        "f",
        [sdk.scval.to_symbol("needle00"), sdk.scval.to_bool(True)],
        source=_keypair(2).public_key,
    )
    return _signed(builder, 1)


def twins(message: Message) -> dict[str, bytes]:
    """Return what a lax reader takes for the same :func:`invocation`: each is not canonical."""
    body = message.body
    memo = body.index(b"abc\0")
    flag_at, bool_at = memo + 8, body.index(b"needle00") + 12
    assert body[flag_at : flag_at + 4] == body[bool_at : bool_at + 4] == b"\0\0\0\1"
    return {
        "padding": _with(body, memo + 3, 1),
        "optional flag": _with(body, flag_at + 3, 2),
        "bool": _with(body, bool_at + 3, 2),
        "trailing bytes": body + bytes(4),
    }


def _with(body: bytes, at: int, byte: int) -> bytes:
    return body[:at] + bytes([byte]) + body[at + 1 :]


def a_tx_set(*numbers: int) -> Message:
    """Return a GENERALIZED_TX_SET of payments."""
    return generalized_tx_set(
        a_hash("previous ledger"), [payment(number).body[4:] for number in numbers]
    )


def a_quorum_set(*numbers: int, threshold: int | None = None) -> Message:
    """Return the SCP_QUORUMSET of validators, all of whom must agree unless told otherwise."""
    keys = tuple(validator(number).peer_id.key for number in numbers)
    return encode_quorum_set(FlatQuorumSet(threshold or len(keys), keys))


# Peers.


class Neighbour(ScriptedPeer):
    """An honest peer: keeps to its credit, returns it, answers pings and whoever asks.

    :cvar is_granting: whether it returns credit.
    :cvar is_serving: whether it sends the transactions that it advertised.
    :cvar is_demanding: whether it demands what is advertised to it.
    :cvar is_answering: whether it answers questions for transaction sets.
    :ivar transactions: what it serves, by hash.
    :ivar items: what it answers questions with, by hash.
    :ivar heard: what it received, and when.
    """

    is_granting = True
    is_serving = True
    is_demanding = False
    is_answering = True

    def __init__(
        self,
        clock: Clock,
        local_node: LocalNode,
        *,
        we_called_remote: bool = True,
        is_polite: bool = True,
    ) -> None:
        super().__init__(local_node, we_called_remote=we_called_remote, is_polite=is_polite)
        self.peer_id = local_node.peer_id
        self.transactions: dict[bytes, Message] = {}
        self.items: dict[bytes, Message] = {}
        self.heard: list[tuple[float, Message]] = []
        self.sent = 0
        self.granted = 0
        self._clock = clock
        self._granted_bytes = 0
        self._to_flood: deque[Message] = deque()
        self._demanded: set[bytes] = set()

    # What it says.

    def flood(self, *messages: Message) -> None:
        """Send flooded messages as soon as there is credit for each."""
        self._to_flood.extend(messages)
        self._push()

    def advertise(self, *hashes: bytes) -> None:
        """Flood one FLOOD_ADVERT."""
        self.flood(Message(encode_hashes(ADVERT, hashes)))

    def offer(self, *transactions: Message) -> None:
        """Advertise transactions, and serve them."""
        hashes = [tx_full_hash(message.body) for message in transactions]
        self.transactions.update(zip(hashes, transactions, strict=True))
        self.advertise(*hashes)

    def demand(self, *hashes: bytes) -> None:
        """Flood one FLOOD_DEMAND."""
        self.flood(Message(encode_hashes(DEMAND, hashes)))

    def ask(self, kind: MessageType, item_hash: bytes) -> None:
        """Ask for a transaction set or quorum set."""
        self.send(Message(encode_hash_query(kind, item_hash)))

    def hang_up(self) -> None:
        """Close the connection."""
        assert self.transport is not None
        self.transport.loseConnection()

    @property
    def backlog(self) -> int:
        """How many messages wait for credit."""
        return len(self._to_flood)

    def _push(self) -> None:
        while self._to_flood and self.sent < self.granted:
            size = self._to_flood[0].size
            if size > self._granted_bytes:
                break
            self._granted_bytes -= size
            self.sent += 1
            self.send(self._to_flood.popleft())

    # What it hears.

    def hear(self, message: Message) -> None:
        self.heard.append((self._clock.seconds(), message))
        super().hear(message)
        kind = message.type
        if kind is MessageType.SEND_MORE_EXTENDED:
            count, size = decode_send_more_extended(message.body)
            self.granted += count
            self._granted_bytes += size
            self._push()
        elif kind in FLOODED:
            self._hear_flooded(message)
        elif kind is GET_QUORUM_SET:
            self._answer_question(QUORUM_SET, message)
        elif kind is GET_TX_SET and self.is_answering:
            self._answer_question(TX_SET, message)

    def _hear_flooded(self, message: Message) -> None:
        if self.is_granting:
            self.grant(1, message.size)
        if message.type is DEMAND and self.is_serving:
            hashes = decode_hashes(message.body)
            self.flood(*(self.transactions[one] for one in hashes if one in self.transactions))
        elif message.type is ADVERT and self.is_demanding:
            wanted = [one for one in decode_hashes(message.body) if one not in self._demanded]
            self._demanded.update(wanted)
            if wanted:
                self.demand(*wanted)

    def _answer_question(self, kind: MessageType, message: Message) -> None:
        item_hash = decode_hash_query(message.body)
        self.send(self.answer_to(kind, item_hash))

    def answer_to(self, kind: MessageType, item_hash: bytes) -> Message:
        """Return the answer to a question; may be overridden."""
        return self.items.get(item_hash) or Message(encode_dont_have(kind, item_hash))

    # What it has heard.

    def bodies(self, kind: MessageType) -> list[bytes]:
        """Return the messages of a type, in the order in which they came."""
        return [message.body for message in self.received if message.type is kind]

    def hashes(self, kind: MessageType) -> list[bytes]:
        """Return all hashes that were advertised, or demanded, to it."""
        return [one for body in self.bodies(kind) for one in decode_hashes(body)]

    def times(self, kind: MessageType) -> list[float]:
        """Return when messages of a type came."""
        return [at for at, message in self.heard if message.type is kind]

    def asked(self, item_hash: bytes) -> list[float]:
        """Return when it was asked for an item."""
        return [
            at
            for at, message in self.heard
            if message.type in (GET_TX_SET, GET_QUORUM_SET)
            and decode_hash_query(message.body) == item_hash
        ]


class Reader(Neighbour):
    """Demands whatever is advertised."""

    is_demanding = True


class Stingy(Neighbour):
    """Never grants any credit."""

    is_granting = False

    def grant(self, messages: int = 200, size: int = 300_000) -> None:
        """Do nothing."""

    def relent(self, messages: int = 200, size: int = 300_000) -> None:
        """Grant something after all; as much as others do at first unless told otherwise."""
        super().grant(messages, size)


class Boaster(Neighbour):
    """Advertises and never serves."""

    is_serving = False


class Mute(Neighbour):
    """Answers no question for transaction sets."""

    is_answering = False


P = TypeVar("P", bound=Neighbour)


class Heard:
    """What a node's observers are shown, duplicates included."""

    def __init__(self, node: OverlayManager, *types: MessageType) -> None:
        self.messages: list[OverlayMessage] = []
        node.observe(self.messages.append, *types)

    def first(self) -> list[bytes]:
        """Return what was heard for the first time, in order."""
        return [message.body for message in self.messages if message.is_first]

    def again(self) -> list[bytes]:
        """Return what was heard again."""
        return [message.body for message in self.messages if not message.is_first]

    def copies(self) -> Counter[tuple[bytes, bytes]]:
        """Return how often each peer has sent each message."""
        return Counter((message.from_peer.key, message.body) for message in self.messages)


# Topologies: pairs of numbers; the first dials the second.


def chain(count: int) -> list[tuple[int, int]]:
    """Return a line of nodes."""
    return [(number, number + 1) for number in range(count - 1)]


def ring(count: int) -> list[tuple[int, int]]:
    """Return a circle of nodes."""
    return [*chain(count), (count - 1, 0)]


def star(count: int) -> list[tuple[int, int]]:
    """Return node 0 and its satellites."""
    return [(number, 0) for number in range(1, count)]


def mesh(count: int) -> list[tuple[int, int]]:
    """Return nodes that are all linked with each other."""
    return [(a, b) for a in range(count) for b in range(a + 1, count)]


def core_and_outer(core: int, outer: int) -> list[tuple[int, int]]:
    """Return a mesh, and nodes around it with two links into it each."""
    links = mesh(core)
    for number in range(outer):
        links += [(core + number, number % core), (core + number, (number + 1) % core)]
    return links


class TrafficTestCase(ScenarioTestCase):
    """Nodes with exactly the links that they are given, and peers that call them."""

    def add(self, name: str = "node", **settings: Any) -> OverlayManager:
        """Return a node that dials nobody by itself."""
        return self.network.add_node(name, run_standalone=True, **settings)

    def link(self, a: str, b: str) -> None:
        """Let one node dial another one."""
        self.network.result_of(self.network.node(a).connect(self.network.address(b)))

    def build(self, links: Sequence[tuple[int, int]], **settings: Any) -> list[OverlayManager]:
        """Return nodes, by number, that are linked so; and are called by their numbers."""
        count = 1 + max(max(pair) for pair in links)
        nodes = [self.add(str(number), **settings) for number in range(count)]
        for a, b in links:
            self.link(str(a), str(b))
        self.assertEqual(len(self.network.links()), len(links))
        return nodes

    def settle(self) -> None:
        """Let time pass until questions for SCP messages are answered, and none comes for 9 s.

        Nodes that were started at 0 and follow no consensus ask every 10 s.
        """
        self.network.advance(11 - self.network.clock.seconds() % 10)

    def host(self, name: str, kind: type[Neighbour], *, is_listening: bool = False) -> ScriptedHost:
        """Return a host of peers that have one key."""
        made = partial(kind, self.network.clock)
        return self.network.add_peer(name, kind=made, is_listening=is_listening)

    def dial(self, host: ScriptedHost, kind: type[P], *, to: str = "node") -> P:
        """Return a peer of a host that has called a node, and shaken hands."""
        peer = host.dial(self.network.address(to))
        self.network.advance(0)
        self.network.advance(8 * self.network.memory.latency)
        assert isinstance(peer, kind)
        return peer

    def call(self, name: str, kind: type[P], *, to: str = "node") -> P:
        """Return the first peer of a new host that has called a node."""
        return self.dial(self.host(name, kind), kind, to=to)

    def calls(self, count: int, kind: type[P], *, to: str = "node", name: str = "peer") -> list[P]:
        """Return so many."""
        return [self.call(f"{name} {number}", kind, to=to) for number in range(count)]

    def outbox(self, node: OverlayManager, peer: Neighbour) -> Outbox:
        """Return what waits for a peer."""
        return node.peer(peer.peer_id).connection.session.outbox

    def figures(self, node: OverlayManager, *names: str) -> list[int]:
        """Return counters of a node."""
        snapshot = node.metrics.snapshot()
        figures = [snapshot[name] for name in names]
        assert all(isinstance(figure, int) for figure in figures)
        return [figure for figure in figures if isinstance(figure, int)]

    def assert_linked(self, *peers: Neighbour) -> None:
        """Check that peers have their links still."""
        self.assertEqual([peer.peer_id for peer in peers if peer.is_closed], [])

    def assert_told(self, peers: Iterable[Neighbour], kind: MessageType, *bodies: bytes) -> None:
        """Check what flooded messages each of some peers was sent, in any order."""
        for peer in peers:
            self.assertEqual(sorted(peer.bodies(kind)), sorted(bodies))
