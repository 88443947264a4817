"""A peer that says what it is told to, right or wrong: for testing nodes, ours and others'."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.channel import unwrap_unauthenticated, wrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    decode_error,
    encode_send_more_extended,
)


class ScriptedPeer(Protocol):
    """Shakes hands by itself if asked to, keeps all it receives, and sends what it is told.

    :param we_called_remote: whether it dialled.
    :param is_polite: whether it answers HELLO and AUTH, and grants credit, as a good peer.
    """

    def __init__(
        self, local_node: LocalNode, *, we_called_remote: bool = True, is_polite: bool = True
    ) -> None:
        self.auth = AuthContext(local_node, we_called_remote)
        self.is_polite = is_polite
        self.received: list[Message] = []
        self.error: tuple[int, bytes] | None = None
        self.is_closed = False
        self.closed: Deferred[ScriptedPeer] = Deferred()
        self.authenticated: Deferred[ScriptedPeer] = Deferred()
        self._frames = FrameBuffer(MAX_MESSAGE_SIZE)
        self._waiting: list[tuple[MessageType, Deferred[Message]]] = []

    @classmethod
    def factory(cls, build: Callable[[], ScriptedPeer]) -> Factory:
        """Return a factory for endpoints."""
        return _ScriptedFactory(build)

    # What it says.

    def say_hello(self) -> None:
        """Send HELLO."""
        self.send(self.auth.create_hello())

    def say_auth(self) -> None:
        """Send AUTH, MACed if there is a key."""
        self.send(self.auth.create_auth())

    def grant(self, messages: int = 200, size: int = 300_000) -> None:
        """Send SEND_MORE_EXTENDED."""
        self.send(Message(encode_send_more_extended(messages, size)))

    def send(self, message: Message) -> None:
        """Send a message with the right number and MAC, as far as there are keys."""
        if self.auth.sealing is None:
            self.send_record(wrap_unauthenticated(message.body))
        else:
            self.send_record(self.auth.wrap_message(message))

    def send_forged(self, message: Message) -> None:
        """Send a message with the right number and one bit of its MAC turned."""
        record = bytearray(self.auth.wrap_message(message))
        record[-1] ^= 1
        self.send_record(bytes(record))

    def send_record(self, record: bytes) -> None:
        """Send an envelope as it is, behind a right record mark."""
        self.send_bytes(frame(record))

    def send_bytes(self, data: bytes) -> None:
        """Send anything."""
        assert self.transport is not None
        self.transport.write(data)

    # What it hears.

    def of_type(self, kind: MessageType) -> list[Message]:
        """Return what was received of one type, oldest first."""
        return [message for message in self.received if message.type is kind]

    def wait_for(self, kind: MessageType) -> Deferred[Message]:
        """Return the next message of a type that arrives from now on."""
        waiter: Deferred[Message] = Deferred()
        self._waiting.append((kind, waiter))
        return waiter

    def connectionMade(self) -> None:
        if self.is_polite and self.auth.we_called_remote:
            self.say_hello()

    def dataReceived(self, data: bytes) -> None:
        self._frames.feed(data)
        while (record := self._frames.next_record()) is not None:
            if self.auth.opening is None:  # without keys, it hears all there is
                self.hear(Message(unwrap_unauthenticated(record)[1]))
            else:
                self.hear(self.auth.unwrap_message(record))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_closed = True
        self.closed.callback(self)

    def hear(self, message: Message) -> None:
        """Keep a message, and answer it if polite; may be overridden."""
        self.received.append(message)
        if message.type is MessageType.ERROR_MSG:
            self.error = decode_error(message.body)
        elif self.is_polite:
            self._answer(message)
        waiting = [item for item in self._waiting if item[0] is message.type]
        self._waiting = [item for item in self._waiting if item[0] is not message.type]
        for _, waiter in waiting:
            waiter.callback(message)

    def _answer(self, message: Message) -> None:
        if message.type is MessageType.HELLO:
            self.auth.accept_hello(self.auth.read_hello(message))
            if self.auth.we_called_remote:
                self.say_auth()
            else:
                self.say_hello()
        elif message.type is MessageType.AUTH:
            self.auth.accept_auth()
            if not self.auth.we_called_remote:
                self.say_auth()
            self.grant()
            self.authenticated.callback(self)


class _ScriptedFactory(Factory):
    noisy = False

    def __init__(self, build: Callable[[], ScriptedPeer]) -> None:
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> ScriptedPeer:  # type: ignore[override]
        return self._build()
