"""An authenticated link as surveys see it: what it has carried, and its round trips."""

from __future__ import annotations

from stellar_overlay.error import DropReason
from stellar_overlay.gossip.survey_data import SurveyPeer
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.peer import Peer
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.survey_body import PeerCounters
from tests.builders import advert, get_tx_set, make_node, quorum_set, scp_nominate
from tests.node.world import LivelyPeer, WorldTestCase, ip

ITEM = quorum_set()
SCP = scp_nominate()


class SurveyedPeerTests(WorldTestCase):
    """One node, one peer that has dialled it."""

    def setUp(self) -> None:
        super().setUp()
        self.world.clock.advance(100)
        self.node = self.world.node(run_standalone=True)
        self.scripted = self.world.call(kind=LivelyPeer)
        self.peer = self.peer_of(self.node)

    def peer_of(self, node: OverlayManager) -> Peer:
        """Return the one peer of a node."""
        (peer,) = node._links.peers.values()
        return peer

    def say(self, *messages: Message) -> None:
        """Let the peer send these."""
        for message in messages:
            self.scripted.send(message)
        self.world.settle()

    def test_it_is_a_survey_peer(self) -> None:
        """For the type checker, too."""
        peer: SurveyPeer = self.peer
        self.assertEqual(peer.peer_id, make_node(9).peer_id)
        self.assertEqual(peer.version_string, make_node(9).version_string.encode())
        self.assertGreater(peer.flood_bit, 0)

    def test_directions(self) -> None:
        """Who has dialled whom, from both ends."""
        other = self.world.node(2, run_standalone=True)
        third = self.world.node(3, run_standalone=True)
        self.world.result(other.connect(ip(3)))
        self.assertTrue(self.peer.is_inbound)
        self.assertTrue(self.peer_of(third).is_inbound)
        self.assertFalse(self.peer_of(other).is_inbound)

    def test_linked_at(self) -> None:
        """The time of the TCP connection, however long the handshake takes."""
        slow = self.world.call(number=8, is_polite=False)
        self.world.advance(1.5)
        slow.is_polite = True
        slow.say_hello()
        self.world.settle()
        late = self.node._links.peers[make_node(8).peer_id]
        self.assertEqual((self.peer.linked_at, late.linked_at), (100.0, 100.0))
        self.assertEqual(late.info(101.5).handshake_ms, 1500)

    def test_counters(self) -> None:
        """Each is the one of its name."""
        before = self.peer.counters()
        self.say(SCP, SCP, ITEM, ITEM, ITEM, advert(), get_tx_set())
        after = self.peer.counters()
        gained = PeerCounters._make(
            now - then for now, then in zip(after, before, strict=True)
        )._asdict()
        read = 2 * SCP.size + 3 * ITEM.size + advert().size + get_tx_set().size
        answers = gained.pop("messages_written"), gained.pop("bytes_written")
        self.assertEqual(
            gained,
            {
                "messages_read": 7,
                "bytes_read": read + 7 * (4 + 4 + 8 + 32),  # mark, version, sequence, MAC
                "unique_flood_bytes_recv": SCP.size + advert().size,
                "duplicate_flood_bytes_recv": SCP.size,
                "unique_fetch_bytes_recv": ITEM.size,
                "duplicate_fetch_bytes_recv": 2 * ITEM.size,
                "unique_flood_messages_recv": 2,
                "duplicate_flood_messages_recv": 1,
                "unique_fetch_messages_recv": 1,
                "duplicate_fetch_messages_recv": 2,
            },
        )
        self.assertEqual(answers, (1, 40 + 4 + 4 + 8 + 32))  # DONT_HAVE

    def test_counters_and_infos_agree(self) -> None:
        """Both tell of the same link."""
        self.say(SCP, SCP, ITEM, ITEM, ITEM)
        (info,) = self.node.peer_infos()
        told = self.peer.counters()._asdict()
        self.assertEqual({name: getattr(info, name) for name in told}, told)

    def test_counters_stay(self) -> None:
        """What was returned is of that moment; what is returned later is never less."""
        first = self.peer.counters()
        kept = tuple(first)
        self.say(SCP, SCP, ITEM)
        self.world.advance(20)
        second = self.peer.counters()
        self.assertEqual(tuple(first), kept)
        for earlier, later in zip(first, second, strict=True):
            self.assertGreaterEqual(later, earlier)

    def test_after_the_end(self) -> None:
        """A link that is gone still says what it has carried, and hears of no round trip."""
        told: list[int] = []
        self.peer.watch_latency(told.append)
        self.say(SCP)
        before = self.peer.counters()
        self.peer.drop(DropReason.BAD_SURVEY_SIGNATURE.violation())
        self.world.advance(10)
        self.assertEqual(self.peer.counters().messages_read, before.messages_read)
        self.assertEqual(told, [])
        self.assertEqual(self.scripted.error, (0, b"Survey has invalid signature"))
        self.peer.watch_latency(None)

    def test_watch_latency(self) -> None:
        """Each ping from then on, until it is ended; the last who wants to know is told."""
        first: list[int] = []
        second: list[int] = []
        self.world.advance(6)
        self.peer.watch_latency(first.append)
        self.world.advance(10)
        self.assertEqual(first, [0, 0])
        self.peer.watch_latency(second.append)
        self.world.advance(5)
        self.peer.watch_latency(None)
        self.world.advance(10)
        self.assertEqual((first, second), ([0, 0], [0]))
        self.assertEqual(self.peer.ping_ms, 0)
