"""Surveys over real TCP, while traffic flows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count

from twisted.internet.defer import DeferredList
from twisted.internet.task import LoopingCall

from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import DropReason
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from tests.integration.members import LOOPBACK, in_reactor, the_reactor, until
from tests.integration.neighbours import PATIENCE_SECONDS, address_of, call, hang_up, soon
from tests.scenarios.surveys import (
    COLLECTING,
    INVALID,
    NONCE,
    REPORTING,
    START,
    STOP,
    SURVEY,
    Watch,
    collecting,
    difference,
    edges_of,
    forged_signature,
    request,
)
from tests.scenarios.traffic import Neighbour, Reader, externalized, payment

LINKS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3)]
"""The first dials the second; node 0 is the surveyor."""
COLLECTING_SECONDS = 1.5
TURN_SECONDS = 0.05
LEDGER_TURNS = 20


@asynccontextmanager
async def surveyed(
    links: list[tuple[int, int]], surveyor: LocalNode
) -> AsyncIterator[list[OverlayManager]]:
    """Run nodes that one of them, the first, may survey."""
    keys = [surveyor, *(LocalNode.testnet() for _ in range(max(map(max, links), default=0)))]
    nodes = [
        OverlayManager(
            OverlayConfig(
                allow_private=True,
                run_standalone=True,
                surveyor_keys=[surveyor.peer_id],
                max_inbound_peers=9,
                target_outbound_peers=4,
            ),
            key,
            reactor=the_reactor(),
            listen=f"tcp:0:interface={LOOPBACK}",
        )
        for key in keys
    ]
    try:
        for node in nodes:
            await node.start()
        for a, b in links:
            await nodes[a].connect(address_of(nodes[b]))
        both = 2 * len(links)
        await until(lambda: sum(len(n.peer_infos()) for n in nodes) == both, PATIENCE_SECONDS)
        yield nodes
    finally:
        await DeferredList([node.stopService() for node in nodes])


@contextmanager
def traffic(nodes: list[OverlayManager]) -> Iterator[None]:
    """Let a ledger close every second, and a node send a transaction twenty times in it."""
    numbers = count()

    def turn() -> None:
        number = next(numbers)
        nodes[number % len(nodes)].broadcast(payment(number))
        if number % LEDGER_TURNS < len(nodes):
            by = number % LEDGER_TURNS
            nodes[by].broadcast(externalized(number // LEDGER_TURNS + 1, by=by))

    loop = LoopingCall(turn)
    loop.clock = the_reactor()
    loop.start(TURN_SECONDS)
    try:
        yield
    finally:
        loop.stop()


def are_all(nodes: list[OverlayManager], phase: object) -> Callable[[], bool]:
    """Return what tells whether nodes are all in a phase of the survey."""
    return lambda: {(node.survey.phase, node.survey.nonce) for node in nodes} == {(phase, NONCE)}


async def passed(seconds: float) -> None:
    """Wait."""
    end = the_reactor().seconds() + seconds
    await until(lambda: the_reactor().seconds() >= end, PATIENCE_SECONDS + seconds)


@in_reactor
async def test_a_whole_survey() -> None:
    """Five nodes, six links: who is linked, what each link carried, as the nodes count it."""
    async with surveyed(LINKS, LocalNode.testnet()) as nodes:
        watches = {node.local_node.peer_id: Watch(node) for node in nodes}
        survey = nodes[0].survey
        with traffic(nodes):
            await passed(0.2)
            survey.start_collecting(NONCE)
            await until(are_all(nodes, COLLECTING), PATIENCE_SECONDS)
            await passed(COLLECTING_SECONDS)
            assert survey.stop_collecting()
            await until(are_all(nodes, REPORTING), PATIENCE_SECONDS)
            for node in nodes[1:]:
                assert survey.request(node.local_node.peer_id)
            await until(lambda: survey.stats.answered == len(nodes) - 1, PATIENCE_SECONDS)
        survey.stop_reporting()

    results = survey.results()
    assert results.topology is not None
    answers = {node: answer for node, answer in results.topology.items() if answer is not None}
    assert set(answers) == set(watches)
    ids = list(watches)
    truth = {(ids[a], ids[b]) for a, b in LINKS}
    assert edges_of(answers) == (truth, truth)
    for node_id, answer in answers.items():
        said, stayed = answer.node, watches[node_id].stayed
        peers = (*answer.inbound, *answer.outbound)
        assert {peer.node for peer in peers} == {peer_id.key for peer_id in stayed}
        for peer_id, (then, now) in stayed.items():
            (peer,) = (peer for peer in peers if peer.node == peer_id.key)
            assert peer.counters == difference(then, now)
            assert peer.counters.unique_flood_messages_recv > 0
            assert 1 <= peer.seconds_connected < PATIENCE_SECONDS
        assert said.total_inbound_peers == len(answer.inbound)
        assert said.total_outbound_peers == len(answer.outbound)
        assert (said.added_authenticated_peers, said.dropped_authenticated_peers) == (0, 0)
        assert (said.max_inbound_peers, said.max_outbound_peers) == (9, 4)
    shown = results.to_json()
    assert set(shown["topology"]) == {node_id.strkey for node_id in ids}
    assert (shown["surveyInProgress"], shown["badResponseNodes"]) == (False, None)


@in_reactor
async def test_who_relays_a_bad_signature() -> None:
    """It is told why, and dropped; nobody else is, and nobody hears of it."""
    surveyor = LocalNode.testnet()
    async with surveyed([(0, 1)], surveyor) as (node, other):
        reader = await call(other, Reader)
        for kind in (START, STOP):
            liar = await call(other, Neighbour)
            liar.send(collecting(kind, surveyor, sign=forged_signature))
            await soon(liar.closed)
            assert liar.error == INVALID
        node.survey.start_collecting(NONCE)
        await until(lambda: bool(reader.bodies(START)), PATIENCE_SECONDS)
        node.survey.stop_collecting()
        await until(lambda: bool(reader.bodies(STOP)), PATIENCE_SECONDS)
        liar = await call(other, Neighbour)
        own = other.local_node.peer_id
        liar.send(request(surveyor, own, sign=lambda signed: forged_signature(signed)[:63]))
        await soon(liar.closed)
        assert liar.error == INVALID
        assert other.metrics.drops[DropReason.BAD_SURVEY_SIGNATURE].get() == 3
        assert other.metrics.survey_answers.get() == 0
        assert len(other.peer_infos()) == 2
        assert sum(len(reader.bodies(kind)) for kind in SURVEY) == 2

        node.survey.request(own)
        await until(lambda: node.survey.stats.answered == 1, PATIENCE_SECONDS)
        node.survey.stop_reporting()
        await hang_up(reader)
