"""Networks that know one seed: they find each other, lose some, and come back without it."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from unittest import TestCase

from cryptography.hazmat.primitives.serialization import Encoding

from stellar_overlay.identity import LocalNode, PeerId, read_seed_file
from tests.integration.members import (
    LOOPBACK,
    NETWORK,
    Member,
    end_of,
    in_reactor,
    network,
    owner,
    the_reactor,
    until,
)
from tests.node.https_server import certificate, serving, text
from tests.processes import Running, environment, free_port, is_open, script

NODES = 20
CONNECTED_SECONDS = 30
BACK_SECONDS = 10
"""Within which a node that was killed has its peers again."""
BACK_PEERS = 3
TWIST = (script("twist"), "--log-format=text", "stellar-overlay")


def is_connected(members: Iterable[Member]) -> bool:
    """Tell whether each of these is linked to each other, over no others than these."""
    by_id = {member.peer_id: member for member in members}
    reached: set[PeerId] = set()
    ahead = [next(iter(by_id))]
    while ahead:
        node = ahead.pop()
        if node not in reached:
            reached.add(node)
            linked = by_id[node].peers & by_id.keys()
            ahead.extend(other for other in linked if node in by_id[other].peers)
    return len(reached) == len(by_id)


def has_anchors(database: Path) -> bool:
    """Tell whether a node has written down enough of those it will dial first."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        count: int = connection.execute("SELECT count(*) FROM anchor").fetchone()[0]
    return count >= BACK_PEERS


def start_node(case: TestCase, folder: Path, *options: str, port: int = 0, **env: str) -> Running:
    """Start a node as a process, with its files in a folder."""
    command: list[str | Path] = [
        *TWIST,
        *("--network", NETWORK, "--allow-private", "--http", "off"),
        *("--database", f"sqlite3://{folder}/node.db", "--seed-file", folder / "node.seed"),
        *("--listen", f"tcp:{port}:interface={LOOPBACK}"),
        *options,
    ]
    return Running(case, command, cwd=folder, env=environment(**env))


@in_reactor
async def test_a_network_that_knows_one_seed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Twenty nodes find each other through PEERS; three that go and return change nothing."""
    chance = random.Random(7)
    async with network(tmp_path, NODES) as (seed, others):
        joined = await until(lambda: is_connected(others), CONNECTED_SECONDS)
        record_property("connected within seconds", joined)
        await seed.stop()
        await until(lambda: all(len(other.peers) >= BACK_PEERS for other in others), 10)
        await until(lambda: is_connected(others), 5)
        leaving = chance.sample(others, 3)
        staying = [member for member in others if member not in leaving]
        for member in leaving:
            await member.stop()
        record_property("whole again after seconds", await until(lambda: is_connected(staying), 5))

        for member in leaving:
            await member.start()  # which knows nobody but those in its database
        back = await until(lambda: is_connected(others), CONNECTED_SECONDS)
        record_property("back within seconds", back)
        assert seed.manager is None


@in_reactor
async def test_a_process_that_is_killed(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Killed by SIGKILL, a node has its peers again within ten seconds, and asks no seed."""
    port = free_port()
    async with owner() as case, network(tmp_path, 8) as (seed, others):
        process = start_node(case, tmp_path, "--peer", seed.address, port=port)
        await until(lambda: is_open(port), CONNECTED_SECONDS)
        node = LocalNode(NETWORK, read_seed_file(tmp_path / "node.seed")).peer_id

        def links() -> int:
            return sum(node in other.peers for other in others)

        found = await until(lambda: links() >= BACK_PEERS, CONNECTED_SECONDS)
        record_property("peers found after seconds", found)
        await until(lambda: has_anchors(tmp_path / "node.db"), CONNECTED_SECONDS)

        await seed.stop()
        for again in (port, 0):  # the second time nobody can call it where it was
            process.send(signal.SIGKILL)
            assert process.wait().status == -signal.SIGKILL
            await until(lambda: links() == 0, 5)
            began = time.monotonic()
            process = start_node(case, tmp_path, "--peer", seed.address, port=again)
            await until(lambda: links() >= BACK_PEERS, BACK_SECONDS)
            where = "where it was" if again else "elsewhere"
            record_property(f"back {where} after seconds", time.monotonic() - began)
        process.send(signal.SIGTERM)
        ended = await end_of(process, 5)
        assert ended.status == -signal.SIGTERM
        assert not ended.has_traceback, ended.said


@in_reactor
async def test_home_domain(tmp_path: Path) -> None:
    """The HOST that a domain names is dialled, if the domain has a certificate that is trusted."""
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(
        certificate("localhost").original.to_cryptography().public_bytes(Encoding.PEM)
    )
    async with (
        owner() as case,
        network(tmp_path, 1) as (validator, _),
        serving(the_reactor()) as server,
    ):
        server.pages.answers["/.well-known/stellar.toml"] = text(
            f'[[VALIDATORS]]\nHOST = "{validator.address}"\nPUBLIC_KEY = "{validator.peer_id}"\n'
        )
        node = start_node(
            case, tmp_path, "--home-domain", server.domain, SSL_CERT_FILE=str(trusted)
        )
        await until(lambda: bool(validator.peers), CONNECTED_SECONDS)
        assert "1 hosts of validators, 0 private ones skipped" in node.stdout
        (info,) = validator.infos
        assert info.direction == "inbound"
        node.send(signal.SIGTERM)
        assert (await end_of(node, 5)).status == -signal.SIGTERM


@in_reactor
async def test_home_domain_that_does_not_answer(tmp_path: Path) -> None:
    """Nobody there: one line in the log, and a node that serves; no domain: no node."""
    port = free_port()
    async with owner() as case, network(tmp_path, 1) as (other, _):
        node = start_node(
            case, tmp_path, "--home-domain", f"localhost:{port}", "--peer", other.address
        )
        wrong = start_node(case, tmp_path, "--home-domain", "https://example.org/")
        await until(lambda: bool(other.peers), CONNECTED_SECONDS)
        (line,) = [line for line in node.stdout.splitlines() if "#warn]" in line]
        assert f'home domain "localhost:{port}": ' in line
        assert "; again in 60 s" in line
        node.send(signal.SIGTERM)
        result = await end_of(node, 5)
        assert result.status == -signal.SIGTERM
        assert not result.has_traceback, result.said

        result = await end_of(wrong, 5)
        assert result.status == 64
        (line,) = result.said.splitlines()
        assert line.startswith("stellar-overlay: --home-domain: ")
        assert "https://example.org/" in line
