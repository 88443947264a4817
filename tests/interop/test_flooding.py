"""Flooding and fetching with a foreign implementation as a neighbour, and other nodes of ours."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from twisted.internet.defer import Deferred

from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import Message, encode_hash_query, encode_hashes
from stellar_overlay.wire.scp import ScpStatement
from stellar_overlay.wire.transaction import tx_full_hash
from stellar_overlay.wire.tx_set import tx_set_hash
from tests.integration.members import in_reactor, until
from tests.integration.neighbours import (
    PATIENCE_SECONDS,
    address_of,
    figures,
    linked,
    quiet,
)
from tests.interop.conftest import StartForeignPeer
from tests.interop.foreign import ForeignPeer, Options
from tests.scenarios.traffic import (
    ADVERT,
    DEMAND,
    GET_TX_SET,
    SCP,
    TX,
    TX_SET,
    Heard,
    a_tx_set,
    externalized,
    invocation,
    payment,
    payments,
)

BY_PUSH, BY_PULL = "pushed", "pulled"
SLOTS = 12
"""Said at once: so many are of use to a node, in whatever order their signatures are checked."""


@asynccontextmanager
async def beside(peer: ForeignPeer) -> AsyncIterator[tuple[OverlayManager, OverlayManager]]:
    """Run two nodes; yield the one that the foreign peer dials, and the one behind it."""
    async with linked([(0, 1)]) as (behind, near):
        peer.dial(address_of(near).port)
        await peer.wait_for("authenticated")
        await until(lambda: len(near.peer_infos()) == 2, PATIENCE_SECONDS)
        await quiet([behind, near])
        yield near, behind


def sha256(*messages: Message) -> str:
    """Return the hash of all bodies, one after the other."""
    return hashlib.sha256(b"".join(message.body for message in messages)).hexdigest()


def advert_of(*transactions: Message) -> Message:
    """Return the FLOOD_ADVERT of transactions."""
    return Message(encode_hashes(ADVERT, [tx_full_hash(one.body) for one in transactions]))


def demand_of(*transactions: Message) -> Message:
    """Return the FLOOD_DEMAND of transactions."""
    return Message(encode_hashes(DEMAND, [tx_full_hash(one.body) for one in transactions]))


def say(peer: ForeignPeer, message: Message) -> None:
    """Let the foreign peer decode a message, encode it again and send it."""
    peer.command("send", xdr=b64encode(message.body).decode())


@in_reactor
async def test_what_it_hears(foreign_peer: StartForeignPeer) -> None:
    """An SCP message, adverts and, demanded, the transactions, from a node behind ours."""
    peer = foreign_peer(Options())
    async with beside(peer) as (near, behind):
        heard: list[Message] = []

        async def hears(message: Message) -> None:
            heard.append(message)
            report = await peer.report(received=len(heard))
            assert report.text("flood_sha256_in") == sha256(*heard)
            assert report.number("credit_violations") == 0

        behind.broadcast(externalized(1))
        await hears(externalized(1))
        for transaction in (payment(1), invocation()):
            behind.broadcast(transaction)
            await hears(advert_of(transaction))
            say(peer, demand_of(transaction))
            await hears(transaction)
        assert figures(near, "flood_fulfilled", "flood_unfulfilled_unknown") == [2, 0]
        assert len(near.peer_infos()) == 2


@pytest.mark.parametrize("how", [BY_PUSH, BY_PULL])
@in_reactor
async def test_its_transactions(foreign_peer: StartForeignPeer, how: str) -> None:
    """They reach the node behind ours whole, pushed by the foreign peer or under our demand."""
    peer = foreign_peer(Options())
    async with beside(peer) as (near, behind):
        heard = Heard(behind, TX)
        transactions = [*payments(20), invocation()]
        if how == BY_PULL:
            say(peer, advert_of(*transactions))
            report = await peer.report(received=1)
            assert report.text("flood_sha256_in") == sha256(demand_of(*transactions))
        for message in transactions:
            say(peer, message)
        count = len(transactions)
        await until(lambda: len(heard.first()) == count, PATIENCE_SECONDS)
        await quiet([near, behind])
        assert sorted(heard.first()) == sorted(message.body for message in transactions)
        assert heard.again() == []
        demanded = count if how == BY_PULL else 0
        assert figures(near, "flood_demanded", "demand_timeouts") == [demanded, 0]
        report = await peer.report()
        assert report.number("flood_messages_in") == (1 if how == BY_PULL else 0)


@in_reactor
async def test_its_statements(foreign_peer: StartForeignPeer) -> None:
    """Those that it has signed reach the node behind ours, whole, and do not come back to it."""
    peer = foreign_peer(Options())
    async with beside(peer) as (near, behind):
        heard = Heard(behind, SCP)
        peer.command("scp", count=SLOTS, slot=10, kind="externalize")
        report = await peer.report(sent=SLOTS)
        await until(lambda: len(heard.first()) == SLOTS, PATIENCE_SECONDS)
        in_order = sorted(heard.first(), key=lambda body: ScpStatement(body).slot)
        said = hashlib.sha256(b"".join(in_order)).hexdigest()
        assert report.text("flood_sha256_out") == said
        await quiet([near, behind])
        assert heard.again() == []
        assert near.herder.tracking_ledger() == behind.herder.tracking_ledger() == 9 + SLOTS
        assert (await peer.report()).number("flood_messages_in") == 0


@in_reactor
async def test_a_transaction_set(foreign_peer: StartForeignPeer) -> None:
    """We fetch it from the foreign peer when others have it not; then it may fetch it from us."""
    peer = foreign_peer(Options())
    wanted = a_tx_set(1, 2, 3)
    item_hash = tx_set_hash(wanted.body)
    async with beside(peer) as (near, behind):
        fetching = Deferred.fromCoroutine(behind.fetch_tx_set(item_hash))
        directly = Deferred.fromCoroutine(near.fetch_tx_set(item_hash))
        question = await peer.wait_for("message", type="GET_TX_SET")
        assert b64decode(question.text("xdr")) == encode_hash_query(GET_TX_SET, item_hash)
        say(peer, wanted)
        for waiting in (fetching, directly):
            assert (await waiting).body == wanted.body
        say(peer, Message(encode_hash_query(GET_TX_SET, item_hash)))
        answer = await peer.wait_for("message", type=TX_SET.name)
        assert b64decode(answer.text("xdr")) == wanted.body
