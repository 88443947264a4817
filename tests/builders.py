"""Valid things by keyword, for tests: nodes, messages, and answers of a node that allows all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from stellar_overlay.error import PeerViolation
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode
from stellar_overlay.wire.auth import certificate_digest
from stellar_overlay.wire.message import (
    AuthCert,
    Hello,
    Message,
    MessageType,
    PeerEntry,
    encode_hash_query,
    encode_hashes,
    pack_opaque,
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


def make_cert(
    node: LocalNode,
    public_key: bytes,
    *,
    expiration: int = int(WALL_NOW) + 3600,
    network_id: bytes | None = None,
) -> AuthCert:
    """Return a certificate that ``node`` signed for its network, or for another one."""
    digest = certificate_digest(network_id or node.network_id, expiration, public_key)
    return AuthCert(public_key=public_key, expiration=expiration, signature=node.sign(digest))


def given_bytes(*chunks: bytes) -> Callable[[int], bytes]:
    """Return a source of "random" bytes that gives these chunks, one a call, and then no more."""
    left = list(chunks)

    def token_bytes(size: int) -> bytes:
        chunk = left.pop(0)
        assert len(chunk) == size
        return chunk

    return token_bytes


def load_vectors(name: str) -> Any:
    """Return what is in ``tests/vectors/<name>.json``."""
    return json.loads((Path(__file__).parent / "vectors" / f"{name}.json").read_text())


def transaction(size: int = 200, number: int = 0) -> Message:
    """Return a TRANSACTION of exactly ``size`` bytes: a multiple of 4, at least 96.

    It uploads a contract; ``number`` is its sequence number, so that no two need be equal.
    """
    code = size - 96
    assert code >= 0
    assert size % 4 == 0
    source = bytes(4) + bytes([7]) * 32
    before = MessageType.TRANSACTION.to_bytes(4, "big") + (2).to_bytes(4, "big") + source
    head = (100).to_bytes(4, "big") + number.to_bytes(8, "big") + bytes(8)
    upload = (1).to_bytes(4, "big") + bytes(4) + (24).to_bytes(4, "big") + (2).to_bytes(4, "big")
    return Message(before + head + upload + code.to_bytes(4, "big") + bytes(code) + bytes(12))


def quorum_set(validators: int = 1, number: int = 0) -> Message:
    """Return an SCP_QUORUMSET of so many validators: 16 + 36 * validators bytes."""
    keys = [hashlib.sha256(b"%d/%d" % (number, i)).digest() for i in range(validators)]
    members = b"".join(bytes(4) + key for key in keys)
    head = (MessageType.SCP_QUORUMSET, 1, validators)
    return Message(b"".join(part.to_bytes(4, "big") for part in head) + members + bytes(4))


def scp_nominate(slot: int = 1, votes: Sequence[bytes] = (b"v",), *, node: int = 1) -> Message:
    """Return an SCP_MESSAGE that nominates values."""
    values = b"".join(pack_opaque(vote) for vote in votes)
    return _scp_message(
        3, slot, node, bytes(32) + len(votes).to_bytes(4, "big") + values + bytes(4)
    )


def scp_prepare(slot: int = 1, counter: int = 1, *, node: int = 1, value: bytes = b"v") -> Message:
    """Return an SCP_MESSAGE that prepares a ballot; a greater counter is a newer statement."""
    return _scp_message(0, slot, node, bytes(32) + _ballot(counter, value) + bytes(16))


def scp_confirm(slot: int = 1, counter: int = 1, *, node: int = 1) -> Message:
    """Return an SCP_MESSAGE that confirms a ballot: newer than any that prepares one."""
    return _scp_message(1, slot, node, _ballot(counter, b"v") + bytes(12) + bytes(32))


def scp_externalize(slot: int = 1, *, node: int = 1) -> Message:
    """Return an SCP_MESSAGE that externalizes: newer than any other on ballots."""
    return _scp_message(2, slot, node, _ballot(1, b"v") + bytes(4) + bytes(32))


def _ballot(counter: int, value: bytes) -> bytes:
    return counter.to_bytes(4, "big") + pack_opaque(value)


def _scp_message(kind: int, slot: int, node: int, pledges: bytes) -> Message:
    head = MessageType.SCP_MESSAGE.to_bytes(4, "big") + bytes(4) + bytes([node]) * 32
    statement = slot.to_bytes(8, "big") + kind.to_bytes(4, "big") + pledges
    return Message(head + statement + pack_opaque(bytes(64)))


def error_record(code: int, text: bytes) -> bytes:
    """Return the exact bytes of an ERROR_MSG on the wire, put together here."""
    head = bytes(4) + code.to_bytes(4, "big") + len(text).to_bytes(4, "big")
    body = head + text + bytes(-len(text) % 4)
    return (0x80000000 | (len(body) + 44)).to_bytes(4, "big") + bytes(12) + body + bytes(32)
