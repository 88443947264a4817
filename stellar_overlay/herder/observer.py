"""The brain of a node without a ledger: it listens, judges, and answers from what it has heard."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.herder.envelopes import MAX_SLOTS_PER_SIGNER, EnvelopeStore
from stellar_overlay.herder.externalize_times import SLOTS_TIMED_AHEAD, ExternalizeTimes
from stellar_overlay.herder.scp_judge import EnvelopeJudge
from stellar_overlay.herder.tracking import (
    CONSENSUS_STUCK_SECONDS,
    MajorityTracking,
    QuorumTracking,
)
from stellar_overlay.herder.transactions import (
    DEFAULT_MAX_TX_SIZE,
    TransactionJudge,
    TransactionPool,
)
from stellar_overlay.herder.trust import QuorumSets, TransitiveQuorum
from stellar_overlay.herder.wanted import WantedItems
from stellar_overlay.herder.window import MAX_SLOT, SlotWindow
from stellar_overlay.identity import PeerId
from stellar_overlay.interfaces import (
    Clock,
    DelayedCall,
    EnvelopeStatus,
    Overlay,
    ScpLatency,
    ScpState,
    TxStatus,
    Verifier,
)
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import FlatQuorumSet
from stellar_overlay.wire.scp import ScpStatement, tx_set_hash_of_value

DEFAULT_SLOTS_TO_REMEMBER = 12
"""Core's MAX_SLOTS_TO_REMEMBER, the tracking ledger included."""
MAX_SLOTS_IN_STATE = 100
"""Of how many slots one answer to GET_SCP_STATE tells (messages.md 4.3)."""
MAX_STATE_BYTES = 4 * 1024 * 1024
"""How long it is at most: about as much as waits for one peer."""
MAX_TX_SETS = 256
TX_SET_BYTES = 32 * 1024 * 1024
"""How many transaction sets are kept for those who ask; the overlay's cache may hold more."""
MAX_VALUES = 1024
VALUE_BYTES = 1024 * 1024
"""Of how many values it is remembered what they name."""


MAX_COMPLETE = 256
"""How many combinations of items are remembered, all of which have been here."""


class SlotSummary(NamedTuple):
    """Who was heard about a slot, and who of them says that consensus is reached: by key."""

    slot: int
    signers: frozenset[bytes]
    externalized: frozenset[bytes]


class ObserverHerder:
    """Follows consensus from outside, and relays what is good as far as that can be told.

    SCP envelopes count that are signed, within the window of slots, newer than what their signer
    has said before, and from a node that the quorum set trusts, transitively. Transactions count
    that could be good. See DECISIONS 18 to 19b.

    :param own_key: our own node's key: what it says is not judged but remembered, see
        :meth:`note_own_envelope`.
    :param wall_clock: Unix time in seconds, for the time bounds of transactions.
    :param quorum_set: whose agreement is believed; None believes the majority of whoever is heard.
    :param is_relaying: whether anything is passed on at all.
    :param max_slots_to_remember: of how many slots, from the tracking ledger back, SCP messages
        are kept.
    :param max_tx_size: bytes of the largest transaction that is taken for good.
    :ivar lost_sync_count: how often consensus was lost.
    """

    def __init__(
        self,
        *,
        network_id: bytes,
        own_key: bytes,
        verifier: Verifier,
        clock: Clock,
        wall_clock: Callable[[], float],
        quorum_set: FlatQuorumSet | None = None,
        is_relaying: bool = True,
        max_slots_to_remember: int = DEFAULT_SLOTS_TO_REMEMBER,
        max_tx_size: int = DEFAULT_MAX_TX_SIZE,
    ) -> None:
        self.lost_sync_count = 0
        self._clock = clock
        self._own_key = own_key
        self._times = ExternalizeTimes(self._note_latency)
        self._is_relaying = is_relaying
        self._slots_to_remember = max_slots_to_remember
        self._overlay: Overlay | None = None
        self._lost: DelayedCall | None = None
        self._quorum_sets = QuorumSets(quorum_set)
        self._trust = None if quorum_set is None else TransitiveQuorum(quorum_set)
        self._tracking = MajorityTracking() if quorum_set is None else QuorumTracking(quorum_set)
        self._envelopes = EnvelopeStore(
            max_slots_per_signer=max(
                MAX_SLOTS_PER_SIGNER, max_slots_to_remember + DEFAULT_SLOTS_TO_REMEMBER
            )
        )
        self._tx_sets: BoundedDict[bytes, Message] = BoundedDict(MAX_TX_SETS, TX_SET_BYTES)
        self._values: BoundedDict[bytes, bytes] = BoundedDict(MAX_VALUES, VALUE_BYTES)
        self._wanted_quorum_sets = WantedItems()
        self._wanted_tx_sets = WantedItems()
        self._complete: BoundedDict[tuple[bytes, tuple[bytes, ...]], None] = BoundedDict(
            MAX_COMPLETE
        )
        self._pool = TransactionPool(clock, wall_clock)
        self._scp = EnvelopeJudge(
            self._envelopes,
            network_id=network_id,
            own_key=own_key,
            verifier=verifier,
            trust=self._trust,
            accept=self._accept,
        )
        self._transactions = TransactionJudge(
            self._pool,
            network_id=network_id,
            verifier=verifier,
            wall_clock=wall_clock,
            accept=self._relay,
            max_tx_size=max_tx_size,
        )

    def start(self, overlay: Overlay) -> None:
        """Relay to, and fetch from, this overlay from now on."""
        self._overlay = overlay

    def stop(self) -> None:
        """Relay, fetch and follow nothing more; what is asked is answered as before."""
        self._overlay = None
        self._scp.stop()
        self._transactions.stop()
        self._cancel_timer()

    # What peers tell.

    def recv_scp_envelope(
        self, body: bytes, from_peer: PeerId, done: Callable[[EnvelopeStatus], None]
    ) -> None:
        """Judge an envelope; keep it, follow it and pass it on when it is good.

        It is passed on without waiting for what it names (core waits for that, messages.md 1.3).
        """
        self._scp.judge(body, done)

    def recv_transaction(
        self, body: bytes, tx_hash: bytes, from_peer: PeerId, done: Callable[[TxStatus], None]
    ) -> None:
        """Judge a transaction; pool and advertise it when it is good."""
        self._transactions.judge(body, tx_hash, done)

    def recv_quorum_set(self, item_hash: bytes, message: Message) -> None:
        """Keep a quorum set, and trust whom it names if its owner is trusted."""
        self._wanted_quorum_sets.discard(item_hash)
        quorum_set = self._quorum_sets.add(item_hash, message)
        if quorum_set is not None and self._trust is not None:
            self._trust.note_heard(item_hash, quorum_set)

    def recv_tx_set(self, item_hash: bytes, message: Message) -> None:
        """Keep a transaction set."""
        self._wanted_tx_sets.discard(item_hash)
        self._tx_sets.put(item_hash, message, message.size)

    # What we say ourselves.

    def note_own_envelope(self, message: Message) -> None:
        """Keep and follow an envelope that is broadcast from here, whoever has signed it."""
        envelope = ScpStatement(message.body)
        latest = self._envelopes.latest(envelope)
        is_new = latest is None or envelope.is_newer_than(latest)
        if is_new and 0 < envelope.slot <= MAX_SLOT and self._overlay is not None:
            self._keep(envelope)

    # What peers ask.

    def get_quorum_set(self, item_hash: bytes) -> Message | None:
        """Return a quorum set that was heard, or our own."""
        return self._quorum_sets.get(item_hash)

    def get_tx_set(self, item_hash: bytes) -> Message | None:
        """Return a transaction set that was heard of late."""
        return self._tx_sets.get(item_hash)

    def get_tx(self, tx_hash: bytes) -> Message | None:
        """Return a transaction from the pool, if it is good still."""
        return self._pool.get(tx_hash)

    def is_banned_tx(self, tx_hash: bytes) -> bool:
        """Tell whether a transaction was found to be no good in the last ten minutes."""
        return self._pool.is_banned(tx_hash)

    def get_scp_state(self, ledger_seq: int) -> ScpState:
        """Return the latest envelopes of up to 100 slots, in order of slots.

        Those of the checkpoint's slot are for later when it is older than the others, whatever
        slot was asked for: the peer must know first where consensus stands (core
        HerderImpl.cpp:1035-1097).
        """
        tracking, checkpoint = self.tracking_ledger(), self.checkpoint_slot()
        is_old = 0 < checkpoint < max(1, tracking - self._slots_to_remember)
        slots = [
            slot
            for slot in self._envelopes.slots()
            if slot >= ledger_seq and not (is_old and slot == checkpoint)
        ]
        now: list[Message] = []
        size = 0
        for slot in slots[:MAX_SLOTS_IN_STATE]:
            now += (messages := self.latest_envelopes(slot))
            size += sum([message.size for message in messages])
            if size > MAX_STATE_BYTES:
                break
        return ScpState(
            now=now,
            later=self.latest_envelopes(checkpoint) if is_old else (),
        )

    # Where it stands.

    def tracking_ledger(self) -> int:
        """Return the slot that consensus has reached, as DECISIONS 19a defines it."""
        return self._tracking.slot

    def min_slot_to_remember(self) -> int:
        """Return the oldest slot of which envelopes are taken and kept; 1 at first."""
        return max(1, self._tracking.slot - self._slots_to_remember + 1)

    def checkpoint_slot(self) -> int:
        """Return the first ledger of the checkpoint that consensus is in."""
        return self._scp.window.checkpoint

    def scp_state_from(self) -> int:
        """Return the oldest slot that is of use."""
        return self.min_slot_to_remember()

    def is_tracking(self) -> bool:
        """Tell whether the tracking ledger has moved within 35 s."""
        return self._tracking.is_fresh(self._clock.seconds())

    # For those who look on.

    def quorum_nodes(self) -> frozenset[bytes]:
        """Return whom the quorum set trusts, transitively; nobody where there is none."""
        return frozenset() if self._trust is None else self._trust.nodes

    @property
    def pooled_transactions(self) -> int:
        """How many transactions are in the pool."""
        return len(self._pool)

    def slots(self) -> list[SlotSummary]:
        """Return who was heard about each slot, the newest slot first."""
        summaries = []
        for slot in reversed(self._envelopes.slots()):
            envelopes = self._envelopes.at(slot)
            if envelopes is not None:
                summaries.append(SlotSummary(slot, envelopes.signers, envelopes.externalized))
        return summaries

    def latest_envelopes(self, slot: int) -> list[Message]:
        """Return the latest nomination of each node for a slot, then the latest ballots."""
        envelopes = self._envelopes.at(slot)
        return [] if envelopes is None else [Message(one.body) for one in envelopes]

    # What follows.

    def _accept(self, envelope: ScpStatement) -> EnvelopeStatus:
        """Do all that is to be done with a good envelope."""
        self._keep(envelope)
        # Fetching comes first: who is known to have an item is who has sent us the envelope, and
        # not yet those whom we send it to.
        named = (envelope.quorum_set_hash, envelope.values)
        is_complete = named in self._complete
        if not is_complete:
            is_complete = self._fetch_missing(envelope)
            if is_complete:
                self._complete.put(named, None)
        if self._is_relaying and self._overlay is not None:
            self._overlay.broadcast(Message(envelope.body))
        return EnvelopeStatus.READY if is_complete else EnvelopeStatus.FETCHING

    def _keep(self, envelope: ScpStatement) -> None:
        if envelope.is_externalize:
            self._time(envelope)
        self._envelopes.put(envelope)
        if self._trust is not None:
            self._trust.note_named(envelope.node, envelope.quorum_set_hash, self._quorum_sets.get)
        if envelope.is_externalize and self._tracking.note(
            envelope.node, envelope.slot, self._clock.seconds()
        ):
            self._times.note_own(self._tracking.slot, self._clock.seconds())
            self._moved()

    def _time(self, envelope: ScpStatement) -> None:
        """Note when another node says for the first time that consensus on a slot is reached."""
        latest, tracking = self._envelopes.latest(envelope), self._tracking.slot
        is_first = latest is None or not latest.is_externalize
        is_near = not tracking or envelope.slot <= tracking + SLOTS_TIMED_AHEAD
        if is_first and is_near and envelope.node != self._own_key:
            self._times.note_heard(envelope.slot, self._clock.seconds())

    def _note_latency(self, kind: ScpLatency, seconds: float) -> None:
        if self._overlay is not None:
            self._overlay.note_scp_latency(kind, seconds)

    def _fetch_missing(self, envelope: ScpStatement) -> bool:
        """Ask for what an envelope names and is not here; tell whether all is here now."""
        overlay = self._overlay
        assert overlay is not None
        is_complete = True
        quorum_set_hash = envelope.quorum_set_hash
        if self._quorum_sets.is_wanted(quorum_set_hash):
            self._want(
                self._wanted_quorum_sets, quorum_set_hash, overlay.fetch_quorum_set, envelope
            )
            is_complete = not self._quorum_sets.is_wanted(quorum_set_hash)
        for value in envelope.values:
            tx_set_hash = self._tx_set_hash(value)
            if tx_set_hash and tx_set_hash not in self._tx_sets:
                self._want(self._wanted_tx_sets, tx_set_hash, overlay.fetch_tx_set, envelope)
                is_complete = is_complete and tx_set_hash in self._tx_sets
        return is_complete

    def _want(
        self,
        wanted: WantedItems,
        item_hash: bytes,
        fetch: Callable[[bytes, int, bytes], bool],
        envelope: ScpStatement,
    ) -> None:
        """Have an item fetched, if that is not under way and its signer has not asked too much."""
        node, slot = envelope.node, envelope.slot
        is_configured = self._trust is None or self._trust.is_configured(node)
        if wanted.add(item_hash, slot, node, is_configured=is_configured) and not fetch(
            item_hash, slot, envelope.body
        ):
            wanted.discard(item_hash)  # there is no room now; there may be for the next

    def _tx_set_hash(self, value: bytes) -> bytes:
        """Return which transaction set a value names; all nodes name the same few. b"" for none."""
        tx_set_hash = self._values.get(value)
        if tx_set_hash is None:
            tx_set_hash = tx_set_hash_of_value(value) or b""
            self._values.put(value, tx_set_hash, len(value))
        return tx_set_hash

    def _relay(self, message: Message) -> None:
        if self._is_relaying and self._overlay is not None:
            self._overlay.broadcast(message)

    def _moved(self) -> None:
        """Forget what is of no use any more, now that consensus has moved."""
        self._cancel_timer()
        self._lost = self._clock.callLater(CONSENSUS_STUCK_SECONDS, self._lose)
        self._look_from_here()
        window = self._scp.window
        for wanted in (self._wanted_quorum_sets, self._wanted_tx_sets):
            wanted.keep_only(window)
        self._pool.expire()
        if self._overlay is not None:
            self._overlay.clear_below(window.lowest, window.checkpoint)

    def _lose(self) -> None:
        """Note that consensus is lost; others may be ahead by any number of slots by now."""
        self._lost = None
        self.lost_sync_count += 1
        self._tracking.lose()
        self._look_from_here()

    def _look_from_here(self) -> None:
        """Take and keep only what is of use from where consensus stands now."""
        tracking = self._tracking.slot
        self._scp.window = SlotWindow.around(
            tracking, self._slots_to_remember, is_ahead_open=not self.is_tracking()
        )
        self._envelopes.keep_only(self._scp.window, tracking)

    def _cancel_timer(self) -> None:
        if self._lost is not None:
            self._lost.cancel()
            self._lost = None
