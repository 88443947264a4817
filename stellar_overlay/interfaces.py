"""The ports: what one room may use of another without importing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.message import Hello, Message, PeerEntry


class Gate(Protocol):
    """What a node decides about one link while it shakes hands.

    Asked in core's order of checks. Each ``check_`` and ``settle_`` raises
    :exc:`~stellar_overlay.error.PeerViolation` to end the link.
    """

    def check_node(self, hello: Hello) -> None:
        """Refuse a banned node, or a link whose remote address cannot be told."""
        ...

    def check_hello(self, hello: Hello) -> None:
        """Refuse a node that we are connected to already."""
        ...

    def settle_duplicate(self, hello: Hello) -> None:
        """Decide between this link and another one to the same node, now that its key is proven."""
        ...

    def peers_to_send(self) -> Sequence[PeerEntry]:
        """Return the addresses that an acceptor shares with who dialled it; may be empty."""
        ...

    def admit(self, hello: Hello) -> None:
        """Take the peer among the authenticated ones, or refuse it for want of a slot."""
        ...

    def scp_state_from(self) -> int:
        """Return the slot from which on we ask the peer for SCP messages."""
        ...


class AddressBook(Protocol):
    """What gossip may use of the table of peers."""

    def ensure_exists(self, address: ResolvedPeerAddress) -> bool:
        """Remember an address that was heard of, if there is room; tell whether it is known."""
        ...

    def get_peers_to_send(
        self, size: int, accept: Callable[[ResolvedPeerAddress], bool]
    ) -> list[ResolvedPeerAddress]:
        """Return up to ``size`` accepted addresses to share, at random.

        Those come first at which somebody has answered us.
        """
        ...


class PeerSource(Protocol):
    """Addresses of one type that are due to be dialled."""

    def get_random_peers(
        self, count: int, accept: Callable[[ResolvedPeerAddress], bool]
    ) -> list[ResolvedPeerAddress]:
        """Return up to ``count`` accepted addresses, at random."""
        ...


class DelayedCall(Protocol):
    """A call that was put off."""

    def cancel(self) -> None:
        """Call it never."""
        ...

    def active(self) -> bool:
        """Tell whether it is still to come."""
        ...


class Clock(Protocol):
    """Time: as ``IReactorTime``, as far as the pure rooms use it."""

    def seconds(self) -> float:
        """Return the present."""
        ...

    def callLater(  # noqa: N802 - Twisted's name
        self, delay: float, function: Callable[..., object], /, *args: object
    ) -> DelayedCall:
        """Call ``function`` after so many seconds."""
        ...


class Random(Protocol):
    """Chance: as ``random.Random``, as far as the pure rooms use it."""

    def random(self) -> float:
        """Return a number from 0 up to but not including 1."""
        ...

    def randrange(self, stop: int, /) -> int:
        """Return a whole number from 0 up to but not including ``stop``."""
        ...


class Link(Protocol):
    """What gossip may use of an authenticated peer."""

    @property
    def peer_id(self) -> PeerId:
        """Who it is."""
        ...

    @property
    def address(self) -> ResolvedPeerAddress:
        """Its IP address, and the port that it says it listens on."""
        ...

    @property
    def ping_ms(self) -> int | None:
        """The latest round trip in milliseconds; None before the first."""
        ...

    def send(self, message: Message) -> bool:
        """Queue a message; False when the peer will not get it."""
        ...


class SignatureCheck(NamedTuple):
    """An Ed25519 signature, and what it should be good for."""

    key: bytes
    signed: bytes
    signature: bytes


class Verifier(Protocol):
    """Checks signatures, perhaps elsewhere and later."""

    def verify(self, check: SignatureCheck, done: Callable[[bool], None]) -> None:
        """Call ``done`` once, at once or later in the reactor's thread, with what came out."""
        ...


class EnvelopeStatus(Enum):
    """What became of an SCP envelope (core Herder.h)."""

    DISCARDED = "discarded"
    SKIPPED_SELF = "skipped-self"
    FETCHING = "fetching"
    READY = "ready"
    PROCESSED = "processed"


class TxStatus(Enum):
    """What became of a transaction (core TransactionQueue::AddResultCode)."""

    PENDING = "pending"
    DUPLICATE = "duplicate"
    ERROR = "error"


class ScpLatency(Enum):
    """What is timed of a slot's EXTERNALIZE statements (core HerderSCPDriver.cpp)."""

    FIRST_TO_SELF = "first-to-self"
    """From the first one heard until we believed it ourselves."""
    SELF_TO_OTHER = "self-to-other"
    """From then until another node said so, too."""


class ScpState(NamedTuple):
    """The answer to GET_SCP_STATE: what is sent now, and what two seconds later."""

    now: Sequence[Message] = ()
    later: Sequence[Message] = ()


class Overlay(Protocol):
    """What a herder may use of the overlay."""

    def broadcast(self, message: Message) -> int:
        """Pass on an SCP message or advertise a transaction; return how many peers were told.

        Whoever sent it to us, or was told before, is left out.
        """
        ...

    def fetch_quorum_set(self, item_hash: bytes, slot: int, envelope: bytes) -> bool:
        """Ask for a quorum set that an envelope of that slot names, until somebody has it.

        It is handed to :meth:`Herder.recv_quorum_set`; at once if it is here already. False when
        too much is asked for already.
        """
        ...

    def fetch_tx_set(self, item_hash: bytes, slot: int, envelope: bytes) -> bool:
        """Ask for a transaction set, likewise; it is handed to :meth:`Herder.recv_tx_set`."""
        ...

    def clear_below(self, min_slot: int, keep: int) -> None:
        """Forget what belongs to slots below ``min_slot``, but for the slot ``keep``."""
        ...

    def note_scp_latency(self, kind: ScpLatency, seconds: float) -> None:
        """Take how long consensus took somewhere, for surveys."""
        ...


class Herder(Protocol):
    """What a node's brain must answer: what a validator's ledger would know."""

    def start(self, overlay: Overlay) -> None:
        """Note that the overlay runs; nothing else is called before."""
        ...

    def stop(self) -> None:
        """Do nothing more of one's own accord."""
        ...

    # What peers tell.

    def recv_scp_envelope(
        self, body: bytes, from_peer: PeerId, done: Callable[[EnvelopeStatus], None]
    ) -> None:
        """Take an SCP_MESSAGE of sound structure that was not heard before.

        Its sender's credit is held until ``done`` is called, once, at once or later.
        """
        ...

    def recv_transaction(
        self, body: bytes, tx_hash: bytes, from_peer: PeerId, done: Callable[[TxStatus], None]
    ) -> None:
        """Take a TRANSACTION, likewise; ``tx_hash`` is the SHA-256 of its envelope."""
        ...

    def recv_quorum_set(self, item_hash: bytes, message: Message) -> None:
        """Take the SCP_QUORUMSET with that hash, which was asked for."""
        ...

    def recv_tx_set(self, item_hash: bytes, message: Message) -> None:
        """Take the TX_SET or GENERALIZED_TX_SET with that hash, which was asked for."""
        ...

    # What we say ourselves.

    def note_own_envelope(self, message: Message) -> None:
        """Take an SCP_MESSAGE that the application broadcasts, for those who will ask."""
        ...

    # What peers ask.

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        """Return the SCP_QUORUMSET with that SHA-256, if it is known."""
        ...

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Return the TX_SET or GENERALIZED_TX_SET with that hash, if it is known."""
        ...

    def get_tx(self, tx_hash: bytes) -> Message | None:
        """Return the TRANSACTION whose envelope has that SHA-256, if it is in the pool."""
        ...

    def is_banned_tx(self, tx_hash: bytes) -> bool:
        """Tell whether a transaction was found to be no good not long ago."""
        ...

    def get_scp_state(self, ledger_seq: int) -> ScpState:
        """Return the SCP messages of that slot and later ones; 0 is from the oldest known."""
        ...

    # Where it stands.

    def tracking_ledger(self) -> int:
        """Return the slot that consensus has reached; 0 while that is not known."""
        ...

    def min_slot_to_remember(self) -> int:
        """Return the oldest slot of which SCP messages are of use."""
        ...

    def checkpoint_slot(self) -> int:
        """Return the one older slot of which they are, too; 0 when there is none."""
        ...

    def scp_state_from(self) -> int:
        """Return the slot from which on a new peer is asked for SCP messages."""
        ...

    def is_tracking(self) -> bool:
        """Tell whether the node follows consensus; out of sync, it tries other peers."""
        ...

    @property
    def lost_sync_count(self) -> int:
        """How often consensus was lost so far."""
        ...
