"""What herders are tested with: an overlay that notes, a verifier that waits, and signed things."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import stellar_sdk as sdk
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import TESTNET_PASSPHRASE, PeerId, network_id
from stellar_overlay.interfaces import (
    EnvelopeStatus,
    Herder,
    ScpLatency,
    SignatureCheck,
    TxStatus,
)
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.quorum_set import FlatQuorumSet
from stellar_overlay.wire.scp import stellar_value
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.transaction import tx_full_hash
from tests.builders import WALL_NOW, make_node

NETWORK = network_id(TESTNET_PASSPHRASE)
OWN = make_node(200)
NODES = [make_node(number) for number in range(1, 13)]
KEYS = [node.peer_id.key for node in NODES]
PEER = PeerId(b"\x77" * 32)

Status = TypeVar("Status")


def keys(*numbers: int) -> frozenset[bytes]:
    """Return the keys of nodes, counted from 0."""
    return frozenset(KEYS[number] for number in numbers)


def a_hash(name: object) -> bytes:
    """Return 32 bytes that look like a hash."""
    return hashlib.sha256(repr(name).encode()).digest()


def a_value(name: object = "tx set") -> bytes:
    """Return a value that names the transaction set :func:`a_hash` (name)."""
    return stellar_value(a_hash(name), int(WALL_NOW))


def quorum_of(*numbers: int, threshold: int | None = None) -> FlatQuorumSet:
    """Return a quorum set of nodes, counted from 0; all must agree unless told otherwise."""
    return FlatQuorumSet(threshold or len(numbers), tuple(KEYS[number] for number in numbers))


class ManualVerifier:
    """Checks signatures when it is told to, or at once if ``is_prompt``."""

    def __init__(self, *, is_prompt: bool = True) -> None:
        self.is_prompt = is_prompt
        self.checked = 0
        self.waiting: list[tuple[SignatureCheck, Callable[[bool], None]]] = []

    def verify(self, check: SignatureCheck, done: Callable[[bool], None]) -> None:
        self.checked += 1
        if self.is_prompt:
            done(is_signed_by(*check))
        else:
            self.waiting.append((check, done))

    def release(self, count: int | None = None, *, newest_first: bool = False) -> None:
        """Check so many of those that wait, or all."""
        for _ in range(len(self.waiting) if count is None else count):
            check, done = self.waiting.pop(-1 if newest_first else 0)
            done(is_signed_by(*check))


@dataclass
class FakeOverlay:
    """Notes what a herder wants of it.

    :ivar herder: told at once of the items that are here.
    :ivar has_room: whether it fetches anything.
    """

    herder: Herder | None = None
    has_room: bool = True
    items: dict[bytes, Message] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    broadcasts: list[Message] = field(default_factory=list)
    quorum_sets: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    tx_sets: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    cleared: list[tuple[int, int]] = field(default_factory=list)
    latencies: list[tuple[ScpLatency, float]] = field(default_factory=list)

    def broadcast(self, message: Message) -> int:
        self.log.append("broadcast")
        self.broadcasts.append(message)
        return 1

    def fetch_quorum_set(self, item_hash: bytes, slot: int, envelope: bytes) -> bool:
        self.log.append("fetch quorum set")
        self.quorum_sets.append((item_hash, slot, envelope))
        if item_hash in self.items and self.herder is not None:
            self.herder.recv_quorum_set(item_hash, self.items[item_hash])
        return self.has_room

    def fetch_tx_set(self, item_hash: bytes, slot: int, envelope: bytes) -> bool:
        self.log.append("fetch tx set")
        self.tx_sets.append((item_hash, slot, envelope))
        if item_hash in self.items and self.herder is not None:
            self.herder.recv_tx_set(item_hash, self.items[item_hash])
        return self.has_room

    def clear_below(self, min_slot: int, keep: int) -> None:
        self.log.append("clear")
        self.cleared.append((min_slot, keep))

    def note_scp_latency(self, kind: ScpLatency, seconds: float) -> None:
        self.latencies.append((kind, seconds))


@dataclass
class Verdict:
    """What became of something, every time it was said."""

    said: list[Any] = field(default_factory=list)

    def __call__(self, status: object) -> None:
        self.said.append(status)


class ObserverTestCase(SynchronousTestCase):
    """One herder, the overlay that it uses, and all that it asks to be verified."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall_now = WALL_NOW
        self.verifier = ManualVerifier()
        self.overlay = FakeOverlay()

    def observer(self, quorum_set: FlatQuorumSet | None = None, **options: Any) -> ObserverHerder:
        """Return a herder that runs."""
        herder = ObserverHerder(
            network_id=NETWORK,
            own_key=OWN.peer_id.key,
            verifier=self.verifier,
            clock=self.clock,
            wall_clock=lambda: self.wall_now,
            quorum_set=quorum_set,
            **options,
        )
        self.overlay.herder = herder
        herder.start(self.overlay)
        self.addCleanup(herder.stop)
        return herder

    def hear(self, herder: Herder, message: Message) -> Verdict:
        """Hand on an envelope that a peer has sent; return what becomes of it."""
        verdict = Verdict()
        herder.recv_scp_envelope(message.body, PEER, verdict)
        return verdict

    def take(self, herder: Herder, message: Message) -> Verdict:
        """Hand on a transaction, likewise."""
        verdict = Verdict()
        herder.recv_transaction(message.body, tx_full_hash(message.body), PEER, verdict)
        return verdict

    def assert_heard(self, status: EnvelopeStatus, herder: Herder, *messages: Message) -> None:
        """Check that this becomes of each, once, at once."""
        for message in messages:
            self.assertEqual(self.hear(herder, message).said, [status])

    def assert_taken(self, status: TxStatus, herder: Herder, *messages: Message) -> None:
        """Check that this becomes of each, once, at once."""
        for message in messages:
            self.assertEqual(self.take(herder, message).said, [status])


def forged(message: Message) -> Message:
    """Return a message that ends in a signature with its last bit turned."""
    body = bytearray(message.body)
    body[-1] ^= 1
    return Message(body)


def keypair(number: int) -> sdk.Keypair:
    """Return the keys of an account."""
    return sdk.Keypair.from_raw_ed25519_seed(bytes([100 + number]) * 32)


def payment(
    source: int = 0,
    *,
    sequence: int = 0,
    bounds: tuple[int, int] = (0, 0),
    signers: Sequence[int] | None = None,
) -> sdk.TransactionEnvelope:
    """Return a transaction of an account, signed by it or by others."""
    account = sdk.Account(keypair(source).public_key, sequence)
    builder = sdk.TransactionBuilder(account, TESTNET_PASSPHRASE, base_fee=100)
    builder.append_payment_op(keypair(99).public_key, sdk.Asset.native(), "1")
    builder.time_bounds = sdk.TimeBounds(*bounds)
    envelope = builder.build()
    for number in [source] if signers is None else signers:
        envelope.sign(keypair(number))
    return envelope


def transaction(envelope: Any) -> Message:
    """Return the TRANSACTION of an envelope."""
    head = MessageType.TRANSACTION.to_bytes(4, "big")
    return Message(head + envelope.to_xdr_object().to_xdr_bytes())
