"""An authenticated session whose deadlines a test keeps, and a hand for its peer."""

from __future__ import annotations

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import Message, MessageType, encode_send_more_extended
from tests.builders import get_tx_set
from tests.by_hand import ByHand
from tests.pair import Pair


class Clocked:
    """A session that shook hands at time 0.

    :param is_granted: whether the peer grants credit at time 0, as a good peer does.
    :ivar writes: whether the transport takes what the session has to send.
    :ivar talks: whether the peer asks something just before each deadline.
    :ivar pings: when each ping was sent, and for what hash.
    """

    def __init__(self, config: SessionConfig | None = None, *, is_granted: bool = True) -> None:
        config = config or SessionConfig()
        self.pair = Pair(configs=(config, config))
        self.hand = ByHand(self.pair).go_to(AuthState.GOT_AUTH)
        self.side = self.hand.side
        self.session = self.side.session
        self.writes = True
        self.talks = False
        self.pings: list[tuple[float, bytes]] = []
        if is_granted:
            self.grant(200, 300_000)

    @property
    def now(self) -> float:
        """The time."""
        return self.pair.now

    @now.setter
    def now(self, now: float) -> None:
        self.pair.now = now

    def say(self, *messages: Message) -> None:
        """Let the session receive messages, and write what follows from them."""
        self.feed(b"".join(self.hand.sealed(message.body) for message in messages))

    def feed(self, data: bytes) -> None:
        """Let the session receive bytes, and write what follows from them."""
        self.pair.feed(self.side, data)
        self.flush()

    def grant(self, messages: int, size: int) -> None:
        """Let the peer grant credit."""
        self.say(Message(encode_send_more_extended(messages, size)))

    def send(self, message: Message) -> None:
        """Let the session send a message, as far as it can."""
        assert self.session.send(message, self.now)
        self.flush()

    def flush(self) -> None:
        """Write what may leave, and take note of pings."""
        if not self.writes:
            return
        known = len(self.hand.heard)
        self.hand.hear()
        for kind, _, body in self.hand.heard[known:]:
            if kind is MessageType.GET_SCP_QUORUMSET:
                self.pings.append((self.now, body[4:]))

    def tick(self, now: float) -> DropReason | None:
        """Keep a deadline, late or early; return why the link ends, if it does."""
        self.now = now
        try:
            self.session.on_deadline(now)
        except PeerViolation as violation:
            return violation.kind
        self.flush()
        return None

    def run(self, end: float) -> tuple[float, DropReason] | None:
        """Keep all deadlines until then; return when and why the link ended, if it did."""
        while self.session.deadline <= end:
            self.now = self.session.deadline
            if self.talks:
                self.say(get_tx_set())
            reason = self.tick(self.now)
            if reason is not None:
                return self.now, reason
        self.now = end
        return None
