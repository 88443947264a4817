"""One session, and a test that speaks to it by hand: every byte, right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.channel import wrap_unauthenticated
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer, frame
from stellar_overlay.wire.message import Hello, MessageType, encode_auth, encode_send_more_extended
from tests.builders import error_record, get_tx_set
from tests.pair import Pair

STATES = AuthState.CONNECTED, AuthState.GOT_HELLO, AuthState.GOT_AUTH
GOOD = get_tx_set().body
"""A message that is fine after AUTH."""


class ByHand:
    """One session of a pair, and a test that speaks for the other, record by record.

    :param calls: whether the hand is the side that dialled.
    :ivar side: the session, and what became of it.
    :ivar auth: the hand's; it takes in the session's HELLO as soon as it is heard.
    """

    def __init__(self, pair: Pair | None = None, *, calls: bool = True) -> None:
        self.pair = pair or Pair()
        self.side = self.pair.callee if calls else self.pair.caller
        mute = self.pair.other(self.side)
        mute.violation = DropReason.INTERNAL.violation()
        mute.session.close(mute.violation, self.pair.now, may_flush=False)
        self.auth = mute.session.auth
        self.heard: list[tuple[MessageType, int, bytes]] = []
        """Type, number and body of all that the session sent, MACs verified."""
        self._frames = FrameBuffer(MAX_MESSAGE_SIZE)
        self._heard_bytes = 0
        self.hear()

    def hello(self, **changes: object) -> bytes:
        """Return the record of a HELLO that differs from a good one in some fields."""
        hello = Hello.decode(self.auth.create_hello().body)
        return self.plain(replace(hello, **changes).encode())  # type: ignore[arg-type]

    def plain(self, body: bytes) -> bytes:
        """Return a record with number 0 and a MAC of zeros."""
        return frame(wrap_unauthenticated(body))

    def sealed(self, body: bytes) -> bytes:
        """Return a record with the next number and the right MAC."""
        assert self.auth.sealing is not None
        return self.auth.sealing.seal(body)

    def say(self, *records: bytes) -> None:
        """Let the session receive all this in one read; hear what it answers."""
        self.pair.feed(self.side, b"".join(records))
        self.hear()

    def hear(self) -> None:
        """Take in what the session has sent, or may send now."""
        self.pair.flush(self.side)
        self._frames.feed(bytes(self.side.sent[self._heard_bytes :]))
        self._heard_bytes = len(self.side.sent)
        while (record := self._frames.next_record()) is not None:
            number = int.from_bytes(record[4:12], "big")
            message = self.auth.unwrap_message(record)
            if message.type is MessageType.HELLO:
                self.auth.accept_hello(Hello.decode(message.body))
            if message.type in (MessageType.HELLO, MessageType.ERROR_MSG):
                assert record == wrap_unauthenticated(message.body)
            self.heard.append((message.type, number, message.body))

    def go_to(self, state: AuthState) -> ByHand:
        """Shake hands as far as that the session is in ``state``."""
        if state is not AuthState.CONNECTED:
            self.say(self.hello())
        if state is AuthState.GOT_AUTH:
            self.say(self.sealed(encode_auth()))
        assert self.side.session.auth.state is state
        return self


def hands(*states: AuthState) -> Iterator[tuple[ByHand, str]]:
    """Yield a hand in each of these states (or of all), in both roles, with a label."""
    for state in states or STATES:
        for calls in (True, False):
            yield ByHand(calls=calls).go_to(state), f"{state.name}, {calls=}"


def well_made(mouth: ByHand, body: bytes) -> bytes:
    """Return a record as right as the state allows: sealed if there are keys."""
    return mouth.plain(body) if mouth.auth.sealing is None else mouth.sealed(body)


def changed(record: bytes, at: int, value: bytes) -> bytes:
    """Return a record with some bytes replaced; ``at`` may count from the end."""
    at %= len(record)
    return record[:at] + value + record[at + len(value) :]


def forged(mouth: ByHand, body: bytes) -> bytes:
    """Return a record with the next number and a wrong MAC."""
    record = mouth.sealed(body)
    return changed(record, -1, bytes([record[-1] ^ 1]))


def renumbered(mouth: ByHand, body: bytes, by: int = 1) -> bytes:
    """Return a record whose number is ahead, and whose MAC fits it."""
    assert mouth.auth.sealing is not None
    mouth.auth.sealing.sequence += by
    return mouth.sealed(body)


def other_version(record: bytes) -> bytes:
    """Return the record as an envelope of version 1."""
    return changed(record, 4, b"\0\0\0\1")


def of_type(kind: int, *, extra: bytes = bytes(32)) -> bytes:
    """Return a body that is nothing but a type and some bytes."""
    return kind.to_bytes(4, "big") + extra


BAD: dict[str, tuple[Callable[[ByHand], bytes], str, int | None]] = {
    "length": (lambda hand: bytes(4), "error during read", None),
    "too long": (lambda hand: b"\xff\xff\xff\xff", "error during read", None),
    "too short": (lambda hand: hand.sealed(b""), "received corrupt XDR", 1),
    "odd": (lambda hand: hand.sealed(GOOD + b"\0"), "received corrupt XDR", 1),
    "version": (lambda hand: other_version(hand.sealed(GOOD)), "received corrupt XDR", 1),
    "type": (lambda hand: hand.sealed(of_type(25)), "received corrupt XDR", 1),
    "type and MAC": (lambda hand: forged(hand, of_type(25)), "received corrupt XDR", 1),
    "number": (lambda hand: renumbered(hand, GOOD), "unexpected auth sequence", 3),
    "MAC": (lambda hand: forged(hand, GOOD), "unexpected MAC", 3),
    "HELLO": (lambda hand: hand.sealed(of_type(13)), "received unexpected HELLO", None),
    "AUTH": (lambda hand: hand.sealed(encode_auth()), "out-of-order AUTH message", 0),
    "SEND_MORE": (lambda hand: hand.sealed(of_type(16)), "unexpected message type SEND_MORE", None),
    "no bytes": (
        lambda hand: hand.sealed(encode_send_more_extended(1, 0)),
        "invalid message SEND_MORE_EXTENDED",
        None,
    ),
    "structure": (lambda hand: hand.sealed(GOOD + bytes(4)), "received corrupt XDR", 1),
    "error": (lambda hand: error_record(4, b"full"), "ERR_LOAD (full)", None),
}
"""What ends a link after AUTH: how to say it, the reason, the code that is told."""


class ByHandTestCase(SynchronousTestCase):
    """Says bad things and looks at what comes back."""

    def assert_ends(
        self, mouth: ByHand, said: bytes, reason: str, code: int | None = None, label: str = ""
    ) -> None:
        """Say something in one read, good messages behind it; the link must end for ``reason``.

        With a code exactly one ERROR_MSG is sent, without nothing; what follows is not seen.
        """
        before, dispatched = len(mouth.side.sent), len(mouth.side.messages)
        behind = b"" if mouth.auth.sealing is None else mouth.sealed(GOOD) * 2
        mouth.say(said + behind + mouth.plain(GOOD))
        self.assertEqual(mouth.side.reason, reason, label)
        told = b"" if code is None else error_record(code, reason.encode())
        self.assertEqual(bytes(mouth.side.sent[before:]), told, label)
        self.assertEqual(len(mouth.side.messages), dispatched, label)
        self.assertFalse(mouth.side.session.is_authenticated, label)
