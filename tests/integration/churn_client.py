"""A crowd that calls a node and hangs up, in every way there is.

``python -m tests.integration.churn_client PORT PASSPHRASE COUNT`` prints how many calls it made.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.auth import AuthContext
from stellar_overlay.wire.channel import wrap_unauthenticated
from stellar_overlay.wire.codec import frame

BATCH = 50
"""Calls that are open at the same time."""
PATIENCE_SECONDS = 10.0
AUTH_RECORD = bytes(4 + 8 + 4 + 4 + 32)
"""As long as an AUTH; the wrong one, but nobody can tell before its last byte."""
_RESET = struct.pack("ii", 1, 0)


def reset(call: socket.socket) -> None:
    """End it by RST."""
    call.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    call.close()


def finish(call: socket.socket) -> None:
    """End it by FIN."""
    call.close()


def half_close(call: socket.socket) -> None:
    """Say that no more will come, and wait until the other side closes."""
    with suppress(ConnectionError):
        call.shutdown(socket.SHUT_WR)
        while call.recv(65536):
            pass
    call.close()


ENDS: tuple[Callable[[socket.socket], None], ...] = (reset, finish, half_close)


def handshake(passphrase: str) -> bytes:
    """Return what a caller sends until it is authenticated, the last part of it forged."""
    hello = AuthContext(LocalNode(passphrase), True).create_hello()
    return frame(wrap_unauthenticated(hello.body)) + frame(AUTH_RECORD)


def churn(port: int, said: bytes, count: int, chance: random.Random) -> int:
    """Make so many calls; half of them say a part of a handshake, which is never complete."""
    made = 0
    while made < count:
        calls = []
        for _ in range(min(BATCH, count - made)):
            calls.append(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
            if chance.random() < 0.5:
                with suppress(ConnectionError):
                    calls[-1].sendall(said[: chance.randrange(1, len(said))])
        for call in calls:
            chance.choice(ENDS)(call)
        made += len(calls)
    return made


if __name__ == "__main__":
    port, passphrase, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    print(churn(port, handshake(passphrase), count, random.Random(port)))
