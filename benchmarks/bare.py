"""What nobody can do without: the yardstick that everything else is a multiple of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from benchmarks.bodies import bodies
from benchmarks.network import local_node
from benchmarks.report import per_item
from stellar_overlay.wire.auth import SessionIdentity, is_valid_certificate

COUNT = 1_000


def bare_hmac(messages: Sequence[bytes]) -> Callable[[], None]:
    """Return the least that authenticating messages takes: copy, update, finalize."""
    key = HMAC(bytes(32), SHA256())
    signed = [bytes(8) + body for body in messages]

    def run() -> None:
        for data in signed:
            mac = key.copy()
            mac.update(data)
            mac.finalize()

    return run


class BareHmac:
    """Measures the bare HMAC of one kind of body, again and again: the machine changes."""

    def __init__(self, kind: str) -> None:
        self._run = bare_hmac(bodies(kind, 0, COUNT))

    def seconds(self) -> float:
        """Return CPU seconds per message, now."""
        return statistics.median(per_item(self._run, COUNT) for _ in range(7))


def bare_handshake() -> float:
    """Return the CPU seconds that a handshake cannot do without: a signature and an exchange."""
    node = local_node(bytes(32))
    identity = SessionIdentity(node)
    cert = identity.certificate()
    now = node.wall_clock()

    def run() -> None:
        for _ in range(100):
            assert is_valid_certificate(cert, node.peer_id, node.network_id, now)
            identity.shared_key(cert.public_key, True)

    return min(per_item(run, 100) for _ in range(20))
