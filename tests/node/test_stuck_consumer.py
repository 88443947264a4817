"""A node whose consumer stands still for most of a minute, while all its peers push."""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from stellar_overlay.identity import LocalNode
from stellar_overlay.node.subscriptions import OverlayMessage, Subscription
from stellar_overlay.wire.message import Message, MessageType, decode_send_more_extended
from tests.builders import advert, make_node
from tests.node.listening import ADVERT
from tests.node.world import LivelyPeer, WorldTestCase

PEERS = 10
CREDIT = 20
MESSAGES = 100
"""What each peer has to say."""


class Pusher(LivelyPeer):
    """Sends all it has, as fast as it is granted."""

    def __init__(
        self, local_node: LocalNode, *, we_called_remote: bool = True, is_polite: bool = True
    ) -> None:
        super().__init__(local_node, we_called_remote=we_called_remote, is_polite=is_polite)
        self.credit = 0
        self.to_send: deque[Message] = deque()

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.SEND_MORE_EXTENDED:
            self.credit += decode_send_more_extended(message.body)[0]
            self.push()

    def push(self) -> None:
        """Send as much as may be sent."""
        while self.credit and self.to_send:
            self.credit -= 1
            self.send(self.to_send.popleft())


class StuckConsumerTests(WorldTestCase):
    """The senders wait; nothing is lost, nothing piles up, and it all goes on afterwards."""

    def setUp(self) -> None:
        super().setUp()
        self.node = self.world.node(
            peer_reading_capacity=CREDIT + 1,
            peer_flood_reading_capacity=CREDIT,
            flow_control_send_more_batch_size=4,
        )
        self.pushers: list[Pusher] = []
        for number in range(10, 10 + PEERS):
            pusher = self.world.call(number=number, kind=Pusher)
            assert isinstance(pusher, Pusher)
            pusher.to_send.extend(advert(number * MESSAGES + i) for i in range(MESSAGES))
            self.pushers.append(pusher)

    def push(self) -> None:
        """Let all peers send what they may."""
        for pusher in self.pushers:
            pusher.push()
        self.world.settle()

    def left(self) -> list[int]:
        """Return how much each peer has not sent yet."""
        return [len(pusher.to_send) for pusher in self.pushers]

    async def read(self, subscription: Subscription, into: list[OverlayMessage]) -> None:
        """Read all there is."""
        async for message in subscription:
            into.append(message)  # noqa: PERF401 - it does not end

    def test_a_subscription_that_is_read_45_seconds_later(self) -> None:
        """Each peer waits with what it was not granted, and stays; then all is read, once."""
        reasons = self.reasons_of(self.node)
        seen: list[OverlayMessage] = []
        self.node.observe(seen.append, ADVERT)
        subscription = self.node.subscribe(ADVERT)
        self.push()
        with capturedLogs() as events:
            self.world.advance(45)
        (warning,) = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn(
            f"subscription to FLOOD_ADVERT is stuck with {PEERS * CREDIT} message(s)",
            formatEvent(warning),
        )
        self.assertEqual(self.left(), PEERS * [MESSAGES - CREDIT])
        self.assertEqual((len(seen), reasons), (PEERS * CREDIT, []))
        read: list[OverlayMessage] = []
        reading = self.world.outcome(self.read(subscription, read))
        self.world.settle()
        self.assertEqual((self.left(), reasons, reading), (PEERS * [0], [], []))
        self.assertEqual([message.body for message in read], [message.body for message in seen])
        for number in range(10, 10 + PEERS):
            sent = [advert(number * MESSAGES + i).body for i in range(MESSAGES)]
            self.assertEqual(self.bodies_of(read, number), sent)

    @staticmethod
    def bodies_of(messages: list[OverlayMessage], number: int) -> list[bytes]:
        """Return what came from one peer."""
        sender = make_node(number).peer_id
        return [message.body for message in messages if message.from_peer == sender]

    def test_an_observer_that_is_cancelled(self) -> None:
        """What it held is granted anew, and the peers go on."""
        seen: list[OverlayMessage] = []
        self.node.observe(seen.append, ADVERT)
        stuck = self.node.observe(lambda message: Deferred(), ADVERT)
        self.push()
        self.world.advance(20)
        self.assertEqual(len(seen), PEERS * CREDIT)
        stuck.cancel()
        self.world.settle()
        self.assertEqual((len(seen), self.left()), (PEERS * MESSAGES, PEERS * [0]))
