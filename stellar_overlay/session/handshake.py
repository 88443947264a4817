"""The handshake: what is legal when, and core's order of checks (connection.md 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from stellar_overlay.error import DropReason
from stellar_overlay.interfaces import Gate
from stellar_overlay.wire.auth import AuthContext, AuthState
from stellar_overlay.wire.message import (
    Hello,
    Message,
    MessageType,
    PeerEntry,
    encode_peers,
)

EXPECTED: Final = {
    AuthState.CONNECTED: MessageType.HELLO,
    AuthState.GOT_HELLO: MessageType.AUTH,
}
"""What moves the handshake on; ERROR_MSG is legal in every state, all else only after AUTH."""

OUT_OF_TURN: Final = {
    MessageType.HELLO: DropReason.UNEXPECTED_HELLO,
    MessageType.AUTH: DropReason.AUTH_OUT_OF_ORDER,
}


def check_legal(state: AuthState, kind: MessageType) -> None:
    """Refuse ``kind`` unless it may arrive in ``state`` (core Peer.cpp:1224, 1786, 1932).

    :raises PeerViolation: then.
    """
    if kind is MessageType.ERROR_MSG or kind is EXPECTED.get(state):
        return
    if kind in OUT_OF_TURN:
        raise OUT_OF_TURN[kind].violation(f"in state {state.value}")
    if state is not AuthState.GOT_AUTH:
        raise DropReason.TOO_EARLY.violation(kind=kind.name)


class Handshake:
    """One side's way from a fresh link to an authenticated peer.

    :param send: queues a message for the peer; what was queued is sent even if a check fails.
    """

    __slots__ = ("_auth", "_gate", "_send")

    def __init__(self, auth: AuthContext, gate: Gate, send: Callable[[Message], None]) -> None:
        self._auth = auth
        self._gate = gate
        self._send = send

    def start(self) -> None:
        """Speak first, if we dialled."""
        if self._auth.we_called_remote:
            self._send(self._auth.create_hello())

    def receive(self, message: Message) -> None:
        """Take the HELLO or the AUTH that is due.

        :raises PeerViolation: when the peer is refused.
        """
        if message.type is MessageType.HELLO:
            self._receive_hello(message)
        else:
            self._receive_auth(message)

    def _receive_hello(self, message: Message) -> None:
        auth, gate = self._auth, self._gate
        hello = auth.read_hello(message)
        auth.check_certificate(hello)
        gate.check_node(hello)
        auth.accept_hello(hello)
        if not auth.we_called_remote:
            self._send(auth.create_hello())  # before the checks that a caller is told about
        auth.check_hello(hello)
        gate.check_hello(hello)
        if auth.we_called_remote:
            self._send(auth.create_auth())

    def _receive_auth(self, message: Message) -> None:
        auth, gate = self._auth, self._gate
        auth.accept_auth()
        assert auth.remote is not None
        gate.settle_duplicate(auth.remote)
        if not auth.we_called_remote:
            self._send(auth.create_auth())
            peers = gate.peers_to_send()
            if peers:
                self._send(Message(encode_peers(peers)))
        auth.check_auth_flags(message)
        gate.admit(auth.remote)


class OpenGate:
    """A gate that lets everybody in and shares nothing: for tools, and to begin with."""

    def check_node(self, hello: Hello) -> None:
        """Refuse nobody."""

    def check_hello(self, hello: Hello) -> None:
        """Refuse nobody."""

    def settle_duplicate(self, hello: Hello) -> None:
        """Know of no other link."""

    def admit(self, hello: Hello) -> None:
        """Have a slot for everybody."""

    def peers_to_send(self) -> Sequence[PeerEntry]:
        """Share no address."""
        return ()

    def scp_state_from(self) -> int:
        """Ask for SCP messages of no slot that there is."""
        return 2**32 - 1
