"""Receiving and sending, without a transport, against the bare HMAC of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from benchmarks.report import Figure, at_most, per_item, ratio
from stellar_overlay.identity import LocalNode
from stellar_overlay.session.handshake import OpenGate
from stellar_overlay.session.session import Session
from stellar_overlay.wire.auth import AuthContext, SessionIdentity, is_valid_certificate
from stellar_overlay.wire.channel import OpeningKey, SealingKey
from stellar_overlay.wire.codec import MAX_MESSAGE_SIZE, FrameBuffer
from stellar_overlay.wire.scp import externalize

COUNT = 20_000
CHUNK = 64 * 1024
BODY_SIZE = 400
GRANT = 100


def bodies(count: int = COUNT) -> list[bytes]:
    """Return distinct SCP messages of 400 bytes, all canonical."""
    node = LocalNode.testnet(bytes(32))
    template = externalize(node, 1, bytes(BODY_SIZE - 200)).body
    padding = BODY_SIZE - len(template)
    value = bytes(BODY_SIZE - 200 + padding)
    template = externalize(node, 1, value).body
    assert len(template) == BODY_SIZE
    slot_at = 40
    return [
        template[:slot_at] + slot.to_bytes(8, "big") + template[slot_at + 8 :]
        for slot in range(count)
    ]


def bare_hmac(messages: list[bytes]) -> Callable[[], None]:
    """Return the least that authenticating messages takes: copy, update, finalize."""
    key = HMAC(bytes(32), SHA256())
    signed = [bytes(8) + body for body in messages]

    def run() -> None:
        for data in signed:
            mac = key.copy()
            mac.update(data)
            mac.finalize()

    return run


def bare_handshake() -> float:
    """Return the CPU seconds that a handshake cannot do without: a signature and an exchange."""
    node = LocalNode.testnet(bytes(32))
    identity = SessionIdentity(node)
    cert = identity.certificate()
    now = node.wall_clock()

    def run() -> None:
        for _ in range(100):
            assert is_valid_certificate(cert, node.peer_id, node.network_id, now)
            identity.shared_key(cert.public_key, True)

    return min(per_item(run, 100) for _ in range(20))


def measure() -> Iterator[Figure]:
    """Yield the ratios."""
    messages = bodies()
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

    yield at_most("receive+verify", ratio(receive, bare, COUNT), "x bare HMAC", 2.0)
    yield at_most("send+seal", ratio(send, bare, COUNT), "x bare HMAC", 2.0)
    both = ratio(_session_run(messages), bare, COUNT)
    sealing = ratio(_sealing_run(messages), bare, COUNT)
    yield Figure("receiving session, all of it", both - sealing, "x bare HMAC")


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
