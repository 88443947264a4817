"""Events and figures of what a node that looks on has seen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.identity import PeerId
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.tools.sightings import Event, Sightings
from stellar_overlay.wire.message import Message, MessageType, encode_hashes
from stellar_overlay.wire.scp import externalize, nominate, prepare
from stellar_overlay.wire.transaction import TransactionView, tx_full_hash
from stellar_overlay.wire.tx_set import generalized_tx_set, tx_set_hash
from tests.builders import WALL_NOW, make_node, quorum_set, transaction
from tests.herder.kit import forged

ALICE, BOB = (PeerId(bytes([number]) * 32) for number in (65, 66))
VALIDATOR = make_node(5)
STATEMENT = externalize(VALIDATOR, 7, b"value")


@dataclass(frozen=True)
class From:
    """How a message came."""

    peer: PeerId = ALICE
    at: float = 100.0
    is_first: bool = True


class SightingsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sightings = Sightings(make_node(1))

    def note(self, message: Message, how: From | None = None) -> Event | None:
        """Show a message; return its event."""
        how = how or From()
        return self.sightings.note(
            OverlayMessage(how.peer, message.type, message.body, how.at, how.is_first), 6
        )

    def event(self, message: Message, how: From | None = None) -> Event:
        """Show a message that has an event."""
        event = self.note(message, how)
        assert event is not None
        return event

    def test_every_event(self) -> None:
        """Each has the head of the event log."""
        head = {
            "v": 1,
            "ts": 100.0,
            "node": make_node(1).peer_id.strkey,
            "kind": "scp",
            "peer": ALICE.strkey,
        }
        event = self.event(STATEMENT)
        self.assertEqual({key: event[key] for key in head}, head)
        self.assertEqual(list(event)[:5], list(head))

    def test_statements(self) -> None:
        """It is said who signed what about which slot."""
        for message, kind in (
            (STATEMENT, "externalize"),
            (prepare(VALIDATOR, 7, b"value"), "prepare"),
            (nominate(VALIDATOR, 7, [b"value"]), "nominate"),
        ):
            event = self.event(message)
            self.assertEqual(event["statement"], kind)
            self.assertEqual((event["slot"], event["signer"]), (7, VALIDATOR.peer_id.strkey))
            self.assertEqual(event["hash"], message.flood_hash.hex())
            self.assertEqual((event["first"], event["size"]), (True, message.size))
            self.assertEqual(event["tracking"], 6)

    def test_forged_statement(self) -> None:
        """Nobody is said to have said what he has not signed; it is counted."""
        for how in (From(), From(BOB, is_first=False), From(BOB)):
            self.assertIsNone(self.note(forged(STATEMENT), how))
        summary = self.sightings.summary(1)
        self.assertEqual((summary["forged"], summary["statements"]), (2, 0))
        self.assertEqual((summary["messages"], summary["unique"]), (3, 0))

    def test_duplicate(self) -> None:
        """A message that comes again is an event too: from whom, and how much later."""
        first = self.event(STATEMENT)
        again = self.event(STATEMENT, From(BOB, 100.25, is_first=False))
        self.assertEqual(
            {key: again[key] for key in again if again[key] != first.get(key)},
            {"ts": 100.25, "peer": BOB.strkey, "first": False, "behind_ms": 250.0},
        )
        self.assertIsNone(self.note(prepare(VALIDATOR, 7, b"v"), From(BOB, is_first=False)))

    def test_heard_anew(self) -> None:
        """What the node has forgotten and hears as if for the first time is a duplicate here."""
        self.event(STATEMENT)
        self.assertFalse(self.event(STATEMENT, From(BOB, 99))["first"])
        self.assertEqual(self.event(STATEMENT, From(BOB, 99))["behind_ms"], 0.0)

    def test_transaction(self) -> None:
        """It is timed from the first advert, and the first advertiser is named."""
        message = transaction()
        full_hash = tx_full_hash(message.body)
        advert = Message(encode_hashes(MessageType.FLOOD_ADVERT, [bytes(32), full_hash]))
        self.assertIsNone(self.note(advert, From(BOB, 99.5)))
        self.assertIsNone(self.note(advert, From(ALICE, 99.9)))
        event = self.event(message)
        self.assertEqual((event["kind"], event["hash"]), ("tx", full_hash.hex()))
        network = make_node(1).network_id
        self.assertEqual(
            event["tx_hash"], TransactionView(message.body).contents_hash(network).hex()
        )
        self.assertEqual((event["pull_ms"], event["advertised_by"]), (500.0, BOB.strkey))
        self.assertEqual((event["first"], event["size"]), (True, message.size))

    def test_unasked_transaction(self) -> None:
        """One that was never advertised is not timed."""
        event = self.event(transaction())
        self.assertEqual((event["pull_ms"], event["advertised_by"]), (None, None))

    def test_items(self) -> None:
        """Transaction sets and quorum sets, by the hashes by which they are asked for."""
        envelopes = [transaction(number=number).body[4:] for number in range(3)]
        tx_set = generalized_tx_set(bytes(32), envelopes)
        event = self.event(tx_set)
        self.assertEqual((event["kind"], event["transactions"]), ("txset", 3))
        self.assertEqual(event["hash"], tx_set_hash(tx_set.body).hex())
        event = self.event(quorum_set(4))
        self.assertEqual((event["kind"], event["validators"]), ("qset", 4))
        self.assertEqual(event["hash"], hashlib.sha256(quorum_set(4).body[4:]).hexdigest())

    def test_peers(self) -> None:
        """What happens to peers, in the fields of the event log."""
        address = PeerAddress("192.0.2.1")
        event = self.sightings.note_peer(
            PeerEvent(
                kind="peer.authenticated",
                ts=3.0,
                peer_id=ALICE,
                address=address,
                direction="outbound",
                version_string="v",
                overlay_version=42,
                handshake_ms=1.26,
            )
        )
        self.assertEqual(
            (event["kind"], event["peer"], event["ts"]), ("peer.authenticated", ALICE.strkey, 3.0)
        )
        self.assertEqual(
            dict(list(event.items())[5:]),
            {
                "address": "192.0.2.1:11625",
                "direction": "outbound",
                "version": "v",
                "overlay_version": 42,
                "handshake_ms": 1.3,
            },
        )
        dropped = self.sightings.note_peer(
            PeerEvent(kind="peer.dropped", ts=4.0, reason="idle timeout", by="us")
        )
        self.assertEqual(
            dict(list(dropped.items())[4:]),
            {
                "peer": None,
                "address": None,
                "direction": None,
                "reason": "idle timeout",
                "by": "us",
                "code": None,
            },
        )

    def test_slots(self) -> None:
        """A slot is an event when consensus has moved, and only then."""
        self.assertIsNone(self.sightings.note_slot(0, 0))
        first = self.sightings.note_slot(5, 2)
        assert first is not None
        self.assertEqual((first["slot"], first["validators"], first["seconds"]), (5, 2, None))
        self.assertIsNone(self.sightings.note_slot(5, 3))
        second = self.sightings.note_slot(7, 3)
        assert second is not None
        self.assertEqual((second["seconds"], second["ts"]), (0.0, WALL_NOW))
        summary = self.sightings.summary(1)
        found = [summary[key] for key in ("slots", "first_slot", "last_slot")]
        self.assertEqual(found, [2, 5, 7])

    def test_summary(self) -> None:
        """Who was first how often, the best first; and all sums."""
        for number in range(3):
            self.event(transaction(number=number), From(BOB))
        self.event(STATEMENT)
        self.event(STATEMENT, From(BOB, is_first=False))
        summary = self.sightings.summary(12.34)
        self.assertEqual(summary["kind"], "node.stopping")
        expected = {
            "seconds": 12.3,
            "messages": 5,
            "unique": 4,
            "duplicates": 1,
            "transactions": 3,
            "statements": 1,
            "signers": 1,
        }
        self.assertEqual({key: summary[key] for key in expected}, expected)
        self.assertEqual(
            [
                (one["peer"], one["messages"], one["first"], one["share"])
                for one in summary["peers"]
            ],
            [(BOB.strkey, 4, 3, 0.75), (ALICE.strkey, 1, 1, 0.25)],
        )
