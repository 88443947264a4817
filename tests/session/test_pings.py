"""Pings: when one leaves, and what its answer tells."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.wire.message import (
    Message,
    MessageType,
    encode_dont_have,
    encode_hash_query,
)
from tests.builders import quorum_set
from tests.session.clocked import Clocked


def dont_have(item_hash: bytes, kind: int = MessageType.SCP_QUORUMSET) -> Message:
    """Return the usual answer to a ping."""
    return Message(encode_dont_have(kind, item_hash))


class SendingTests(SynchronousTestCase):
    def test_not_before_the_first_deadline(self) -> None:
        """The first ping leaves 5 s after the connection."""
        link = Clocked()
        self.assertIsNone(link.run(4.999))
        self.assertEqual(link.pings, [])
        link.run(5.0)
        self.assertEqual([when for when, _ in link.pings], [5.0])

    def test_what_it_is(self) -> None:
        """GET_SCP_QUORUMSET for 8 made-up bytes and 24 zeros, 36 bytes in all."""
        link = Clocked()
        link.run(5.0)
        kind, _, body = link.hand.heard[-1]
        self.assertEqual((kind, len(body)), (MessageType.GET_SCP_QUORUMSET, 36))
        self.assertEqual(body[12:], bytes(24))
        self.assertNotEqual(body[4:12], bytes(8))

    def test_every_five_seconds(self) -> None:
        """With each answered, a new one leaves at each deadline; no two are the same."""
        link = Clocked()
        for number in range(1, 21):
            link.run(5.0 * number)
            link.say(dont_have(link.pings[-1][1]))
        self.assertEqual([when for when, _ in link.pings], [5.0 * n for n in range(1, 21)])
        self.assertEqual(len({item_hash for _, item_hash in link.pings}), 20)

    def test_one_outstanding(self) -> None:
        """Unanswered, a ping is given up after 60 s and repeated, with another hash."""
        link = Clocked()
        link.talks = True
        link.run(190)
        self.assertEqual([when for when, _ in link.pings], [5.0, 65.0, 125.0, 185.0])
        self.assertEqual(len({item_hash for _, item_hash in link.pings}), 4)

    def test_never_answered(self) -> None:
        """Row 53: a peer that never answers, and to which nothing else is written, stays."""
        link = Clocked()
        link.talks = True
        self.assertIsNone(link.run(600))
        self.assertIsNone(link.session.clocks.ping_ms)

    def test_refreshes_the_idle_clock(self) -> None:
        """Y23: writing a ping counts as writing."""
        link = Clocked()
        link.run(5.0)
        self.assertEqual(
            (link.session.clocks.last_read, link.session.clocks.last_write), (0.0, 5.0)
        )


class AnswerTests(SynchronousTestCase):
    def pinged(self) -> tuple[Clocked, bytes]:
        """Return a link at 5.25 s, and the hash of the ping that it sent at 5 s."""
        link = Clocked()
        link.run(5.0)
        link.now = 5.25
        return link, link.pings[0][1]

    def test_nothing_known_at_first(self) -> None:
        """There is no round trip before the first answer."""
        link, _ = self.pinged()
        self.assertIsNone(link.session.clocks.ping_ms)

    def test_dont_have(self) -> None:
        """The usual answer; it is the session's own and not dispatched."""
        link, item_hash = self.pinged()
        link.say(dont_have(item_hash))
        self.assertEqual(link.session.clocks.ping_ms, 250)
        self.assertEqual(link.side.messages, [])
        self.assertEqual(link.session.metrics.connection_latency.snapshot().total, 0.25)

    def test_type_is_not_looked_at(self) -> None:
        """A DONT_HAVE of any type answers, existing or not."""
        for kind in (MessageType.TX_SET, MessageType.GENERALIZED_TX_SET, 0):
            link, item_hash = self.pinged()
            link.say(dont_have(item_hash, kind))
            self.assertEqual(link.session.clocks.ping_ms, 250)

    def test_quorum_set(self) -> None:
        """A quorum set with that SHA-256 answers as well; it is dispatched all the same."""
        link, _ = self.pinged()
        answer = quorum_set(3)
        # No quorum set has a hash with 24 zeros that could be found, so the hash is put there.
        link.session.clocks.note_ping(hashlib.sha256(answer.body[4:]).digest(), 5.0)
        link.say(quorum_set(2))
        self.assertIsNone(link.session.clocks.ping_ms)
        link.say(answer)
        self.assertEqual(link.session.clocks.ping_ms, 250)
        self.assertEqual(link.side.messages, [quorum_set(2), answer])

    def test_wrong_hash(self) -> None:
        """Another DONT_HAVE is no answer, and goes to whom it concerns."""
        link, item_hash = self.pinged()
        other = dont_have(item_hash[:-1] + b"\1")
        link.say(other)
        self.assertIsNone(link.session.clocks.ping_ms)
        self.assertEqual(link.side.messages, [other])
        link.say(dont_have(item_hash))
        self.assertEqual(link.session.clocks.ping_ms, 250)

    def test_query_is_no_answer(self) -> None:
        """The ping sent back as a query answers nothing."""
        link, item_hash = self.pinged()
        link.say(Message(encode_hash_query(MessageType.GET_SCP_QUORUMSET, item_hash)))
        self.assertIsNone(link.session.clocks.ping_ms)

    def test_matches_once(self) -> None:
        """Y23: a second answer is none; it changes nothing and is dispatched."""
        link, item_hash = self.pinged()
        link.say(dont_have(item_hash))
        link.now = 5.5
        link.say(dont_have(item_hash))
        self.assertEqual(link.session.clocks.ping_ms, 250)
        self.assertEqual(link.side.messages, [dont_have(item_hash)])

    def test_given_up(self) -> None:
        """The answer to a ping that was given up is none; that to its successor is one."""
        link = Clocked()
        link.talks = True
        link.run(65.0)
        (_, first), (_, second) = link.pings
        link.now = 65.1
        link.say(dont_have(first))
        self.assertIsNone(link.session.clocks.ping_ms)
        link.say(dont_have(second))
        self.assertEqual(link.session.clocks.ping_ms, 100)

    def test_late_answer(self) -> None:
        """An answer that takes 42 s still tells the round trip."""
        link = Clocked()
        link.talks = True
        link.run(47.0)
        link.say(dont_have(link.pings[0][1]))
        self.assertEqual(link.session.clocks.ping_ms, 42_000)

    def test_latest_counts(self) -> None:
        """Each answer replaces the round trip before it."""
        link, item_hash = self.pinged()
        link.say(dont_have(item_hash))
        link.run(10.0)
        link.now = 10.03
        link.say(dont_have(link.pings[1][1]))
        self.assertEqual(link.session.clocks.ping_ms, 30)

    def test_credit(self) -> None:
        """An answer leaves nothing in processing: it is done with at once."""
        link, item_hash = self.pinged()
        before = link.session.flow_control.get_stats()
        link.say(dont_have(item_hash))
        self.assertEqual(link.session.flow_control.get_stats(), before)

    def test_unasked(self) -> None:
        """DONT_HAVE before any ping is dispatched, and no round trip."""
        link = Clocked()
        link.say(dont_have(bytes(32)))
        self.assertIsNone(link.session.clocks.ping_ms)
        self.assertEqual(link.side.messages, [dont_have(bytes(32))])
