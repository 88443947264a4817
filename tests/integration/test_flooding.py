"""Flooding over real TCP and in real time: what a simulated clock cannot show."""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred

from stellar_overlay.error import DropReason, ErrorCode
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.observer import OverlayMessage
from stellar_overlay.node.subscriptions import Subscription
from stellar_overlay.node.verifier import ThreadPoolVerifier
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import prepare
from stellar_overlay.wire.transaction import tx_full_hash
from tests.integration.members import end_of, in_reactor, owner, until
from tests.integration.neighbours import (
    PATIENCE_SECONDS,
    call,
    calls,
    figures,
    hang_up,
    linked,
    quiet,
    running,
    soon,
    verifier_of,
)
from tests.processes import ROOT, Running
from tests.scenarios.traffic import (
    ADVERT,
    DEMAND,
    SCP,
    TX,
    Boaster,
    Heard,
    Neighbour,
    Reader,
    a_hash,
    a_value,
    chain,
    externalized,
    forged,
    invocation,
    payment,
    ring,
    star,
    twins,
    validator,
)

SCP_SECONDS = 5.0
"""Within which an SCP message has reached everybody; a tenth of a second when nobody is busy."""
TX_SECONDS = 10.0
"""A transaction waits for an advert and a demand at each hop: 0.1 and 0.2 s at most."""
CORRUPT = (ErrorCode.ERR_DATA, b"received corrupt XDR")
CREDIT = 200

TOPOLOGIES = {"chain": chain(5), "ring": ring(6), "star": star(6)}


# To everybody, once.


def hearing(heard: list[Heard], body: bytes, origin: int) -> Callable[[], bool]:
    """Return what tells whether all but the one that began have heard a message."""
    others = [one for number, one in enumerate(heard) if number != origin]
    return lambda: all(body in one.first() for one in others)


def assert_once(heard: list[Heard], body: bytes, origin: int, *, most_copies: int) -> None:
    """Check that all have heard it, at most once from each peer, and who began from nobody."""
    for number, one in enumerate(heard):
        assert one.first().count(body) == (number != origin)
        copies = {peer: n for (peer, said), n in one.copies().items() if said == body}
        assert set(copies.values()) <= {1}
        assert len(copies) <= most_copies


@pytest.mark.parametrize("name", TOPOLOGIES)
@in_reactor
async def test_everybody_hears_it_once(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """An SCP message and a signed transaction of each node, whole, and soon."""
    links = TOPOLOGIES[name]
    async with linked(links) as nodes:
        await quiet(nodes)  # they ask each other for SCP messages first, and would get these twice
        heard = [Heard(node, SCP, TX) for node in nodes]
        statements = [externalized(1, by=number) for number in range(len(nodes))]
        transactions = [payment(number) for number in range(len(nodes))]
        slowest = 0.0
        for origin, message in enumerate(statements):
            assert nodes[origin].broadcast(message) > 0
            seconds = await until(hearing(heard, message.body, origin), SCP_SECONDS)
            slowest = max(slowest, seconds)
        record_property("an SCP message took seconds", slowest)
        for origin, message in enumerate(transactions):
            assert nodes[origin].broadcast(message) > 0
        began = time.monotonic()
        for origin, message in enumerate(transactions):
            await until(hearing(heard, message.body, origin), TX_SECONDS)
        record_property("the transactions took seconds", time.monotonic() - began)

        await quiet(nodes)
        for origin in range(len(nodes)):
            copies = 2 if name == "ring" else 1
            assert_once(heard, statements[origin].body, origin, most_copies=copies)
            assert_once(heard, transactions[origin].body, origin, most_copies=1)
        said = {message.body for message in (*statements, *transactions)}
        assert {body for one in heard for body in one.first()} == said
        for node in nodes:
            assert figures(node, "flood_known_count") == [len(said)]
            assert figures(node, "demand_timeouts", "scp_discarded") == [0, 0]


@in_reactor
async def test_nothing_comes_back() -> None:
    """What is repeated, echoed by everybody, or known to a peer that comes back, stays here."""
    async with running() as node:
        a, b, c = peers = await calls(node, 3, Reader)
        message = externalized(1)
        a.flood(message)
        await until(lambda: bool(b.bodies(SCP) and c.bodies(SCP)), PATIENCE_SECONDS)
        for peer in peers:
            peer.flood(message, message)
        await until(lambda: figures(node, "flood_duplicate_recv") == [6], PATIENCE_SECONDS)
        await quiet([node], peers)
        assert [peer.bodies(SCP) for peer in peers] == [[], [message.body], [message.body]]
        assert node.broadcast(message) == 0
        await hang_up(*peers)


# Bytes that a lax reader would take.


@in_reactor
async def test_twins_spread_nowhere() -> None:
    """Pushed, or sent under a demand: ERR_DATA for the sender, nothing for anybody else."""
    genuine = invocation()
    async with running() as node:
        readers = await calls(node, 2, Reader)
        heard = Heard(node, TX)
        for body in twins(genuine).values():
            twin = Message(body)
            pushing = await call(node, Neighbour)
            pushing.flood(twin)
            await soon(pushing.closed)
            assert pushing.error == CORRUPT
            serving = await call(node, Neighbour)
            serving.offer(twin)
            await soon(serving.closed)
            assert serving.error == CORRUPT
            assert serving.hashes(DEMAND) == [tx_full_hash(body)]
        assert heard.messages == []
        assert node.metrics.drops[DropReason.CORRUPT_XDR].get() == 8

        honest = await call(node, Neighbour)
        honest.offer(genuine)
        await until(lambda: all(reader.bodies(TX) for reader in readers), PATIENCE_SECONDS)
        await quiet([node], readers)
        for reader in readers:
            assert reader.hashes(ADVERT) == [tx_full_hash(genuine.body)]
            assert reader.bodies(TX) == [genuine.body]
        await hang_up(honest, *readers)


# A13.

LIARS = 19
ASKED = 5
FEW = 4
LEAST_GAP_SECONDS = 0.5
LONGEST_GAP_SECONDS = 2.5
READING_SECONDS = 0.05
"""By how much one demand may be noticed later than the next: the reactor is shared."""


@in_reactor
async def test_liars_are_asked_one_after_the_other() -> None:
    """A13 for as long as five demands take; fifteen take half a minute, on a simulated clock.

    Of a hash that only four peers advertise there are four demands, and then no more.
    """
    hashes = [a_hash(("wanted", number)) for number in range(3)]
    rare = a_hash("advertised by few")
    async with running() as node:
        peers = await calls(node, LIARS, Boaster)
        for number, peer in enumerate(peers):
            peer.advertise(*hashes, *([rare] if number < FEW else []))

        def asked(tx_hash: bytes) -> list[tuple[float, PeerId]]:
            return sorted(
                (at, peer.peer_id)
                for peer in peers
                for at, message in peer.heard
                if message.type is DEMAND and tx_hash in message.body
            )

        await until(lambda: all(len(asked(one)) >= ASKED for one in hashes), PATIENCE_SECONDS)
        assert len(asked(rare)) == FEW
        for one in (*hashes, rare):
            assert len({peer_id for _, peer_id in asked(one)}) == len(asked(one))
            gaps = [later - earlier for (earlier, _), (later, _) in pairwise(asked(one))]
            assert min(gaps) > LEAST_GAP_SECONDS - READING_SECONDS
            assert max(gaps) < LONGEST_GAP_SECONDS
        (timeouts,) = figures(node, "demand_timeouts")
        assert timeouts >= len(hashes) * (ASKED - 1)
        await hang_up(*peers)


# Whoever holds.

HOLD_SECONDS = 2.0
PUSHERS = 4
PUSHED = 600


async def read(
    subscription: Subscription, into: list[OverlayMessage], release: Deferred[None]
) -> None:
    """Take the first message, do not let go of it until told to, and take all others."""
    async for message in subscription:
        into.append(message)
        if len(into) == 1:
            await release


@in_reactor
async def test_a_subscriber_that_holds() -> None:
    """Peers push what they were granted and wait; later everything comes, and all credit."""
    statements = [
        [prepare(validator(number), slot, a_value()) for slot in range(1, PUSHED + 1)]
        for number in range(PUSHERS)
    ]
    async with running() as node:
        subscription = node.subscribe(SCP, duplicates=False, name="the slow one")
        taken: list[OverlayMessage] = []
        release: Deferred[None] = Deferred()
        reading = Deferred.fromCoroutine(read(subscription, taken, release))
        peers = await calls(node, PUSHERS, Neighbour)
        for peer, said in zip(peers, statements, strict=True):
            peer.flood(*said)
        began = time.monotonic()

        def has_held() -> bool:
            spent = all(peer.sent == CREDIT for peer in peers)
            return spent and time.monotonic() - began >= HOLD_SECONDS

        await until(has_held, PATIENCE_SECONDS)
        await quiet([node], peers)
        assert [(peer.sent, peer.granted) for peer in peers] == PUSHERS * [(CREDIT, CREDIT)]
        size = sum(message.size for said in statements for message in said[:CREDIT])
        assert 0 < figures(node, "received_unprocessed_bytes")[0] <= size
        assert len(taken) == 1

        release.callback(None)
        await until(lambda: len(taken) == PUSHERS * PUSHED, PATIENCE_SECONDS)
        await quiet([node], peers)
        for peer, said in zip(peers, statements, strict=True):
            mine = [message.body for message in taken if message.from_peer == peer.peer_id]
            assert mine == [message.body for message in said]
            assert peer.backlog == 0
        assert figures(node, "received_unprocessed_bytes") == [0]
        subscription.cancel()
        await soon(reading)
        await hang_up(*peers)


# Signatures, in threads.

GOOD = 1000


def verifier_threads() -> list[threading.Thread]:
    """Return the threads that check signatures."""
    name = f"-{ThreadPoolVerifier.name}-"
    return [thread for thread in threading.enumerate() if name in thread.name]


def assert_credit_is_back(node: OverlayManager, peers: list[Neighbour]) -> None:
    """Check that peers may send as much as at first, but for what is granted 40 by 40."""
    for peer in peers:
        flow = node.peer(peer.peer_id).flow_control
        assert flow.local_flood_capacity == CREDIT
        assert not flow.is_throttled
        assert peer.granted == CREDIT + peer.sent // 40 * 40


@in_reactor
async def test_good_and_bad_signatures() -> None:
    """2,000 from four peers, half of them forged: the good ones are relayed, and no other."""
    chance = random.Random(1)
    good = [prepare(validator(number), 1, a_value()) for number in range(GOOD)]
    bad = [forged(message) for message in good]  # in the name of the same nodes
    async with running() as node:
        reader = await call(node, Reader)
        peers = await calls(node, 4, Neighbour)
        for number, peer in enumerate(peers):
            said = good[number::4] + bad[(number + 1) % 4 :: 4]
            chance.shuffle(said)
            peer.flood(*said)
        await until(lambda: len(reader.bodies(SCP)) >= GOOD, PATIENCE_SECONDS)
        await quiet([node], [reader, *peers])
        assert Counter(reader.bodies(SCP)) == Counter(message.body for message in good)
        for number, peer in enumerate(peers):
            mine = {message.body for message in good[number::4]}
            assert set(peer.bodies(SCP)) == {message.body for message in good} - mine
            assert peer.backlog == 0
        # Of a forged statement that comes after the good one no signature is looked at.
        (discarded,) = figures(node, "scp_discarded")
        assert 0 < discarded <= GOOD
        assert verifier_of(node).checked == GOOD + discarded
        assert figures(node, "received_unprocessed_bytes") == [0]
        assert_credit_is_back(node, peers)
        assert 0 < len(verifier_threads()) <= 2
        await hang_up(reader, *peers)
    assert verifier_threads() == []


FORGETFUL = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from stellar_overlay.wire.scp import prepare
from tests.integration.members import until
from tests.integration.neighbours import address_of, new_node, verifier_of
from tests.integration.test_flooding import verifier_threads
from tests.scenarios.traffic import a_value, validator

async def main(*_):
    one, other = new_node(), new_node()
    await one.start()
    await other.start()
    await one.connect(address_of(other))
    one.broadcast(prepare(validator(0), 1, a_value()))
    await until(lambda: verifier_of(other).checked == 1, 20)
    assert verifier_threads()
    print("ready", flush=True)
    if sys.argv[1:] == ["wait"]:
        await Deferred()

react(main)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, None])
@in_reactor
async def test_a_process_that_forgets_to_stop(how: signal.Signals | None) -> None:
    """Two nodes and their threads keep no process alive, whether it is told to end or is done."""
    async with owner() as case:
        wait = ["wait"] if how else []
        process = Running(case, [sys.executable, "-c", FORGETFUL, *wait], cwd=ROOT)
        await until(lambda: "ready" in process.stdout, PATIENCE_SECONDS)
        if how is not None:
            process.send(how)
        result = await end_of(process, 5)
        assert result.status in (0, -how if how else 0), result.said
        assert not result.has_traceback, result.said
