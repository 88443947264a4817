"""What a node that looks on has seen: as events, one by one, and as figures in the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.wire.message import Message, MessageType, decode_hashes
from stellar_overlay.wire.quorum_set import decode_quorum_set, quorum_set_hash
from stellar_overlay.wire.scp import ScpStatement
from stellar_overlay.wire.signature import is_signed_by
from stellar_overlay.wire.transaction import TransactionView, tx_full_hash
from stellar_overlay.wire.tx_set import transactions_of, tx_set_hash

Event = dict[str, Any]

MAX_SEEN = 20_000
MAX_SEEN_BYTES = 32 * 1024 * 1024
"""Flooded messages that are known again when another peer sends them, too."""
MAX_ADVERTS = 100_000
"""Advertised transactions of which is remembered when that was."""
MAX_PEERS = 1000
MAX_NAMES = 10_000
"""Nodes, peers or signers, whose ids are kept as text."""


@dataclass(slots=True)
class _Share:
    """What came from one peer."""

    address: str = ""
    messages: int = 0
    first: int = 0


class Sightings:
    """Makes an event of each message, and counts them.

    A statement counts once its signature is found to be good: whatever a peer makes up, it cannot
    put words into the mouth of a validator.

    :ivar forged: SCP messages with a wrong signature.
    """

    def __init__(self, node: LocalNode) -> None:
        self.forged = 0
        self._node = node
        self._messages = self._unique = self._transactions = self._statements = 0
        self._signers: BoundedDict[bytes, None] = BoundedDict(MAX_NAMES)
        self._slots = 0
        self._first_slot = self._last_slot = 0
        self._slot_at = 0.0
        self._shares: BoundedDict[PeerId, _Share] = BoundedDict(MAX_PEERS)
        self._seen: BoundedDict[bytes, Event] = BoundedDict(MAX_SEEN, MAX_SEEN_BYTES)
        self._adverts: BoundedDict[bytes, tuple[float, PeerId]] = BoundedDict(MAX_ADVERTS)
        self._names: BoundedDict[bytes, str] = BoundedDict(MAX_NAMES)

    def started(self) -> Event:
        """Return the first event."""
        return self._event("node.started", self._node.wall_clock(), None)

    def note(self, message: OverlayMessage, tracking: int) -> Event | None:
        """Return the event of a message; None when there is nothing to be told of it.

        :param tracking: the slot that consensus has reached.
        """
        match message.type:
            case MessageType.SCP_MESSAGE | MessageType.TRANSACTION:
                return self._note_flooded(message, tracking)
            case MessageType.FLOOD_ADVERT:
                self._note_advert(message)
                return None
            case MessageType.SCP_QUORUMSET:
                return self._event(
                    "qset",
                    message.received_at,
                    message.from_peer,
                    hash=quorum_set_hash(message.body).hex(),
                    size=len(message.body),
                    validators=len(decode_quorum_set(message.body).nodes()),
                )
            case MessageType.TX_SET | MessageType.GENERALIZED_TX_SET:
                return self._event(
                    "txset",
                    message.received_at,
                    message.from_peer,
                    hash=tx_set_hash(message.body).hex(),
                    size=len(message.body),
                    transactions=sum(1 for _ in transactions_of(message.body)),
                )
        return None

    def note_peer(self, event: PeerEvent) -> Event:
        """Return the event of what happened to a peer."""
        address = None if event.address is None else str(event.address)
        if event.peer_id is not None and event.kind == "peer.authenticated":
            self._share(event.peer_id).address = address or ""
        told: dict[str, Any] = {"address": address, "direction": event.direction}
        if event.kind == "peer.authenticated":
            told["version"] = event.version_string
            told["overlay_version"] = event.overlay_version
            told["handshake_ms"] = _rounded(event.handshake_ms)
        elif event.kind == "peer.dropped":
            told |= {"reason": event.reason, "by": event.by, "code": event.code}
        return self._event(event.kind, event.ts, event.peer_id, **told)

    def note_slot(self, slot: int, validators: int) -> Event | None:
        """Return the event of a slot that consensus has reached; None when it has not moved.

        :param validators: how many were heard to say so.
        """
        if slot <= self._last_slot:
            return None
        now = self._node.wall_clock()
        seconds = now - self._slot_at if self._last_slot else None
        self._first_slot = self._first_slot or slot
        self._slots += 1
        self._last_slot, self._slot_at = slot, now
        return self._event("slot", now, None, slot=slot, validators=validators, seconds=seconds)

    def summary(self, seconds: float) -> Event:
        """Return the last event: all figures.

        :param seconds: for how long was watched.
        """
        shares = {peer: share for peer in self._shares if (share := self._shares.get(peer))}
        ranking = sorted(shares.items(), key=lambda item: (-item[1].first, item[0]))
        return self._event(
            "node.stopping",
            self._node.wall_clock(),
            None,
            seconds=round(seconds, 1),
            messages=self._messages,
            unique=self._unique,
            duplicates=self._messages - self._unique,
            forged=self.forged,
            transactions=self._transactions,
            statements=self._statements,
            signers=len(self._signers),
            slots=self._slots,
            first_slot=self._first_slot or None,
            last_slot=self._last_slot or None,
            peers=[
                {
                    "peer": self._strkey(peer.key),
                    "address": share.address,
                    "messages": share.messages,
                    "first": share.first,
                    "share": round(share.first / self._unique, 4) if self._unique else 0.0,
                }
                for peer, share in ranking
            ],
        )

    # What is flooded.

    def _note_flooded(self, message: OverlayMessage, tracking: int) -> Event | None:
        seen = self._seen.get(message.body)
        if seen is not None:
            self._count(message, is_first=False)
            behind = max(0.0, message.received_at - seen["ts"]) * 1000
            return {
                **seen,
                "ts": message.received_at,
                "peer": self._strkey(message.from_peer.key),
                "first": False,
                "behind_ms": _rounded(behind),
            }
        if not message.is_first:
            self._count(message, is_first=False)
            return None  # forged, or forgotten
        is_statement = message.type is MessageType.SCP_MESSAGE
        event = self._statement(message, tracking) if is_statement else self._transaction(message)
        if event is not None:
            self._count(message, is_first=True)
            self._seen.put(message.body, event, len(message.body))
        return event

    def _statement(self, message: OverlayMessage, tracking: int) -> Event | None:
        statement = ScpStatement(message.body)
        if not is_signed_by(*statement.signature_check(self._node.network_id)):
            self.forged += 1
            self._count(message, is_first=False)
            return None
        self._statements += 1
        self._signers.put(statement.node, None)
        return self._event(
            "scp",
            message.received_at,
            message.from_peer,
            slot=statement.slot,
            statement=statement.kind.name.lower(),
            signer=self._strkey(statement.node),
            hash=Message(message.body).flood_hash.hex(),
            first=True,
            size=len(message.body),
            tracking=tracking,
        )

    def _transaction(self, message: OverlayMessage) -> Event:
        self._transactions += 1
        full_hash = tx_full_hash(message.body)
        at, by = self._adverts.pop(full_hash) or (None, None)
        pull_ms = None if at is None else max(0.0, message.received_at - at) * 1000
        return self._event(
            "tx",
            message.received_at,
            message.from_peer,
            hash=full_hash.hex(),
            tx_hash=TransactionView(message.body).contents_hash(self._node.network_id).hex(),
            first=True,
            size=len(message.body),
            pull_ms=_rounded(pull_ms),
            advertised_by=None if by is None else self._strkey(by.key),
        )

    def _note_advert(self, message: OverlayMessage) -> None:
        for tx_hash in decode_hashes(message.body):
            if tx_hash not in self._adverts:
                self._adverts.put(tx_hash, (message.received_at, message.from_peer))

    def _count(self, message: OverlayMessage, *, is_first: bool) -> None:
        share = self._share(message.from_peer)
        share.messages += 1
        self._messages += 1
        if is_first:
            share.first += 1
            self._unique += 1

    def _share(self, peer: PeerId) -> _Share:
        share = self._shares.get(peer)
        if share is None:
            share = _Share()
            self._shares.put(peer, share)
        return share

    def _event(self, kind: str, ts: float, peer: PeerId | None, **fields: Any) -> Event:
        return {
            "v": 1,
            "ts": ts,
            "node": self._node.peer_id.strkey,
            "kind": kind,
            "peer": None if peer is None else self._strkey(peer.key),
            **fields,
        }

    def _strkey(self, key: bytes) -> str:
        """Return the ``G…`` form, which takes some time to make."""
        text = self._names.get(key)
        if text is None:
            text = PeerId(key).strkey
            self._names.put(key, text)
        return text


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)
