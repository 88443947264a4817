"""Receiving and sending, without a transport, against the bare HMAC of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.bare import bare_hmac
from benchmarks.bodies import bodies
from benchmarks.report import Figure, at_most, ratio
from benchmarks.rounds import Options
from stellar_overlay.identity import LocalNode
from stellar_overlay.session.handshake import OpenGate
from stellar_overlay.session.session import Session
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.channel import OpeningKey, SealingKey
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer

COUNT = 20_000
CHUNK = 64 * 1024
GRANT = 100


def measure(options: Options) -> Iterator[Figure]:
    """Yield the ratios."""
    messages = bodies("prepare", 0, COUNT)
    bare = bare_hmac(messages)
    key = SealingKey(bytes(32))
    parts: list[bytes] = []
    key.seal_into(parts, messages)
    stream = b"".join(parts)
    chunks = [stream[at : at + CHUNK] for at in range(0, len(stream), CHUNK)]

    def receive() -> None:
        frames, opening, count = FrameBuffer(MAX_MESSAGE_SIZE), OpeningKey(bytes(32)), 0
        for chunk in chunks:
            opened: list[tuple[int, bytes]] = []
            frames.feed(chunk)
            opening.open_records(frames, opened, COUNT)
            count += len(opened)
        assert count == COUNT

    def send() -> None:
        sealing = SealingKey(bytes(32))
        for at in range(0, COUNT, 50):
            out: list[bytes] = []
            sealing.seal_into(out, messages[at : at + 50])
            b"".join(out)

    yield at_most("channel, receive+verify", ratio(receive, bare, COUNT), "x bare HMAC", 2.0)
    yield at_most("channel, send+seal", ratio(send, bare, COUNT), "x bare HMAC", 2.0)
    both = ratio(_session_run(messages), bare, COUNT)
    sealing = ratio(_sealing_run(messages), bare, COUNT)
    yield Figure("channel, a receiving session", both - sealing, "x bare HMAC")


def _session_run(messages: list[bytes]) -> Callable[[], None]:
    """Return a receiving session's whole work: channel, credit, structure, grants."""

    def run() -> None:
        caller, callee = _authenticated()
        assert caller.auth.sealing is not None
        for at in range(0, len(messages), GRANT):
            records: list[bytes] = []
            caller.auth.sealing.seal_into(records, messages[at : at + GRANT])
            received = callee.receive(b"".join(records), 0.0)
            assert len(received.messages) == GRANT
            callee.processed(received.messages, 0.0)
            callee.data_to_send(0.0)

    return run


def _sealing_run(messages: list[bytes]) -> Callable[[], None]:
    """Return what of :func:`_session_run` is the sender's work."""

    def run() -> None:
        caller, _ = _authenticated()
        assert caller.auth.sealing is not None
        for at in range(0, len(messages), GRANT):
            records: list[bytes] = []
            caller.auth.sealing.seal_into(records, messages[at : at + GRANT])
            b"".join(records)

    return run


def _authenticated() -> tuple[Session, Session]:
    nodes = LocalNode.testnet(bytes(32)), LocalNode.testnet(bytes([1]) * 32)
    caller, callee = (
        Session(AuthContext(node, is_caller), OpenGate(), now=0.0)
        for node, is_caller in zip(nodes, (True, False), strict=True)
    )
    for _ in range(3):
        callee.receive(caller.data_to_send(0.0), 0.0)
        caller.receive(callee.data_to_send(0.0), 0.0)
    assert caller.is_authenticated
    return caller, callee
