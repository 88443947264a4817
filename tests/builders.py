"""Valid things by keyword, for tests: nodes, messages, and answers of a node that allows all."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import count

from stellar_overlay.error import PeerViolation
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.wire.message import (
    Hello,
    Message,
    MessageType,
    PeerEntry,
    encode_hash_query,
    encode_hashes,
)

WALL_NOW = 1_785_000_000.0
"""The Unix time of tests that do not care."""


def deterministic_bytes(seed: int) -> Callable[[int], bytes]:
    """Return a source of random-looking bytes that is the same in every run."""
    numbers = count()

    def token_bytes(size: int) -> bytes:
        digest = hashlib.shake_256(f"{seed}/{next(numbers)}".encode())
        return digest.digest(size)

    return token_bytes


def make_node(
    number: int = 1,
    *,
    passphrase: str = TESTNET_PASSPHRASE,
    overlay: tuple[int, int] = (38, 42),
    port: int = 11625,
    wall_clock: Callable[[], float] = lambda: WALL_NOW,
) -> LocalNode:
    """Return a node whose key depends on ``number`` alone."""
    return LocalNode(
        passphrase,
        bytes([number]) * 32,
        overlay_min_version=overlay[0],
        overlay_version=overlay[1],
        listening_port=port,
        wall_clock=wall_clock,
        token_bytes=deterministic_bytes(number),
    )


def advert(number: int = 0, hashes: int = 1) -> Message:
    """Return a FLOOD_ADVERT of so many distinct hashes: 8 + 32 * hashes bytes."""
    digests = [hashlib.sha256(f"{number}/{i}".encode()).digest() for i in range(hashes)]
    return Message(encode_hashes(MessageType.FLOOD_ADVERT, digests))


def demand(number: int = 0, hashes: int = 1) -> Message:
    """Return a FLOOD_DEMAND of so many distinct hashes."""
    digests = [hashlib.sha256(f"{number}/{i}".encode()).digest() for i in range(hashes)]
    return Message(encode_hashes(MessageType.FLOOD_DEMAND, digests))


def get_tx_set(number: int = 0) -> Message:
    """Return a GET_TX_SET: 36 bytes that flow control does not count as flood."""
    return Message(
        encode_hash_query(MessageType.GET_TX_SET, hashlib.sha256(b"%d" % number).digest())
    )


class OpenGate:
    """Lets everybody in; ``refuse`` names the question that is answered with a violation."""

    def __init__(
        self,
        *,
        peers: Sequence[PeerEntry] = (),
        refuse: dict[str, PeerViolation] | None = None,
    ) -> None:
        self.asked: list[str] = []
        self.peers = peers
        self.refuse = refuse or {}

    def check_node(self, hello: Hello) -> None:
        self._ask("check_node")

    def check_hello(self, hello: Hello) -> None:
        self._ask("check_hello")

    def settle_duplicate(self, hello: Hello) -> None:
        self._ask("settle_duplicate")

    def peers_to_send(self) -> Sequence[PeerEntry]:
        self._ask("peers_to_send")
        return self.peers

    def admit(self, hello: Hello) -> None:
        self._ask("admit")

    def scp_state_from(self) -> int:
        return 1

    def _ask(self, question: str) -> None:
        self.asked.append(question)
        if question in self.refuse:
            raise self.refuse[question]
