"""The foreign peer against itself: what it reports of our node, it reports rightly."""

from __future__ import annotations

import hashlib
import os
import socket
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from stellar_sdk import Keypair, xdr
from twisted.internet.threads import deferToThread

from stellar_overlay.identity import PUBNET_PASSPHRASE
from tests.interop import foreign
from tests.interop.conftest import StartForeignPeer
from tests.interop.foreign import (
    TIMEOUT_SECONDS,
    ForeignPeer,
    ForeignPeerError,
    Options,
    available,
)

_Test = TypeVar("_Test", bound=Callable[..., Awaitable[None]])
in_reactor: Callable[[_Test], _Test] = pytest_twisted.ensureDeferred

MANY = 3000


async def connect(listener: ForeignPeer, dialler: ForeignPeer) -> None:
    """Let ``dialler`` dial ``listener`` and wait until both are authenticated."""
    dialler.dial(await listener.listen())
    for peer, role in (listener, "responder"), (dialler, "initiator"):
        await peer.wait_for("authenticated", role=role)


async def hold(receiver: ForeignPeer, sender: ForeignPeer) -> None:
    """Keep ``receiver`` from processing, hence from granting more; returns once that is so."""
    receiver.command("hold")
    receiver.command("scp_state")
    await sender.wait_for("message", type="GET_SCP_STATE")


@in_reactor
async def test_authenticates_and_tells_who_is_there(foreign_peer: StartForeignPeer) -> None:
    """Both ends report the other's key, text and versions."""
    key = Keypair.random()
    listener = foreign_peer(Options(seed=key.secret, version_string="one", overlay_version=43))
    dialler = foreign_peer(Options(version_string="two", ledger_version=29))
    dialler.dial(await listener.listen())

    seen = await dialler.wait_for("authenticated")
    assert (seen.text("public_key"), seen.text("version")) == (key.public_key, "one")
    assert (seen.number("overlay_version"), seen.number("overlay_min_version")) == (43, 41)
    seen = await listener.wait_for("authenticated")
    assert (seen.text("version"), seen.number("ledger_version")) == ("two", 29)


@pytest.mark.parametrize("value_bytes", [32, 6000], ids=["message credit", "byte credit"])
@in_reactor
async def test_floods_both_ways_within_credit(
    foreign_peer: StartForeignPeer, value_bytes: int
) -> None:
    """3,000 SCP messages each way arrive whole, in order, and none beyond a grant."""
    peers = foreign_peer(Options()), foreign_peer(Options())
    await connect(*peers)
    for peer in peers:
        peer.command("scp", count=MANY, bytes=value_bytes)
    one, two = [await peer.report(received=MANY, sent=MANY, timeout=60) for peer in peers]

    for sender, receiver in (one, two), (two, one):
        assert receiver.number("flood_messages_in") == MANY
        assert receiver.number("credit_violations") == 0
        assert sender.number("queued") == 0
        assert sender.number("grants_received") > MANY // 200
        for name in "bytes", "sha256":
            assert receiver.fields[f"flood_{name}_in"] == sender.fields[f"flood_{name}_out"]


@in_reactor
async def test_sends_no_more_than_it_was_granted(foreign_peer: StartForeignPeer) -> None:
    """While the receiver holds what it got, the sender stops after the first grant, and goes on."""
    receiver, sender = foreign_peer(Options()), foreign_peer(Options())
    await connect(receiver, sender)
    await hold(receiver, sender)
    sender.command("scp", count=MANY)
    await receiver.report(received=200)
    sender.command("scp_state")  # comes after whatever else the sender has sent
    await receiver.wait_for("message", type="GET_SCP_STATE")

    assert (await receiver.report()).number("flood_messages_in") == 200
    assert (await sender.report()).number("queued") == MANY - 200
    receiver.command("release")
    counters = await receiver.report(received=MANY)
    assert counters.number("credit_violations") == 0


@in_reactor
async def test_counts_what_exceeds_its_grants(foreign_peer: StartForeignPeer) -> None:
    """A sender that does not look at its credit is found out, by messages and by bytes."""
    for count, value_bytes in (201, 32), (1, 300_000):
        receiver, sender = foreign_peer(Options()), foreign_peer(Options())
        await connect(receiver, sender)
        await hold(receiver, sender)
        sender.command("scp", count=count, bytes=value_bytes, beyond_credit=True)
        counters = await receiver.report(received=count)
        assert counters.number("credit_violations") == 1


@pytest.mark.parametrize("sequence", [0, 2], ids=["AUTH", "first SCP message"])
@in_reactor
async def test_forges_one_mac(foreign_peer: StartForeignPeer, sequence: int) -> None:
    """The message with the chosen sequence number is refused, those before it are not."""
    listener, dialler = foreign_peer(Options()), foreign_peer(Options(forge_mac_at=sequence))
    dialler.dial(await listener.listen())
    if sequence:
        await dialler.wait_for("authenticated")
        dialler.command("scp", count=1)
    closed = await listener.wait_for("closed")
    assert closed.text("reason") == "Invalid hmac"
    assert closed.number("flood_messages_in") == 0
    await dialler.wait_for("closed")


@in_reactor
async def test_refuses_another_network(foreign_peer: StartForeignPeer) -> None:
    """The certificate of another network does not verify; nobody is authenticated."""
    listener, dialler = foreign_peer(Options()), foreign_peer(Options(network=PUBNET_PASSPHRASE))
    dialler.dial(await listener.listen())
    assert (await listener.wait_for("closed")).text("reason") == "Invalid auth cert"
    assert (await dialler.wait_for("closed")).text("reason") == "closed by the other end"


@in_reactor
async def test_sends_what_it_is_given_and_tells_what_it_gets(
    foreign_peer: StartForeignPeer,
) -> None:
    """Any StellarMessage goes out; pings, errors and all else come in as events of their own."""
    listener, dialler = foreign_peer(Options()), foreign_peer(Options())
    await connect(listener, dialler)
    unique = os.urandom(8) + bytes(24)
    dialler.command("send", xdr=b64encode(b"\0\0\0\x09" + unique).decode())
    assert (await listener.wait_for("ping")).text("hash") == unique.hex()

    dont_have = b"\0\0\0\x03" + b"\0\0\0\x0a" + unique
    survey = b"\0\0\0\x17" + b"\0\0\0\x40" + bytes(64) + bytes(36) + bytes(8)
    for name, body in ("DONT_HAVE", dont_have), ("TIME_SLICED_SURVEY_START_COLLECTING", survey):
        listener.command("send", xdr=b64encode(body).decode())
        got = await dialler.wait_for("message", type=name)
        assert b64decode(got.text("xdr")) == body
        assert got.text("sha256") == hashlib.sha256(body).hexdigest()

    error = bytes(4) + b"\0\0\0\x02\0\0\0\x03bye\0"
    listener.command("send", xdr=b64encode(error).decode())
    said = await dialler.wait_for("error_msg")
    assert (said.text("code"), said.text("text")) == ("ERR_CONF", "bye")
    listener.command("close")
    assert (await listener.wait_for("closed")).text("reason") == "closed by command"
    await dialler.wait_for("closed")


@in_reactor
async def test_has_the_known_quirks(foreign_peer: StartForeignPeer) -> None:
    """No bit 31, port 11625 whatever it listens on, milliseconds for seconds, 2.5 s to answer."""
    dialler = foreign_peer(Options())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_SECONDS)
        dialler.dial(server.getsockname()[1])
        connection, _ = await deferToThread(server.accept)
        with connection, connection.makefile("rb") as stream:
            mark = int.from_bytes(await deferToThread(stream.read, 4), "big")
            assert mark == 44 + 232 + len("foreign peer")
            body = await deferToThread(stream.read, mark)
            assert (await dialler.wait_for("closed")).text("reason") == "timeout"
    message = xdr.AuthenticatedMessage.from_xdr_bytes(body).v0
    assert message is not None
    hello = message.message.hello
    assert hello is not None
    assert hello.listening_port == 11625
    assert hello.cert.expiration.uint64 > 1_000_000_000_000


@in_reactor
async def test_failures_say_what_happened(foreign_peer: StartForeignPeer) -> None:
    """Whoever waits in vain gets an error with all that the peer said, also when it is gone."""
    peer = foreign_peer(Options())
    await peer.wait_for("started")
    with pytest.raises(ForeignPeerError, match=r"no closed .*within 0.01 s\nit said:\n  started"):
        await peer.wait_for("closed", timeout=0.01)
    peer.command("no such command")
    with pytest.raises(ForeignPeerError, match="no such command"):
        await peer.wait_for("closed")
    await peer.stop()

    broken = foreign_peer(Options(seed="not a seed"))
    with pytest.raises(ForeignPeerError, match=r"(?s)the process ended.*Invalid private key"):
        await broken.wait_for("started")


def test_absence_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without node, a recent one, or the packages, there is a reason and what to do about it."""
    monkeypatch.setattr(foreign, "CONNECTOR", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "node is not installed" in str(available())
    for version, reason in ("v18.20.8", "too old"), ("v20.0.0", "run `make interop`"):
        (tmp_path / "node").write_text(f"#!/bin/sh\necho {version}\n")
        (tmp_path / "node").chmod(0o755)
        assert reason in str(available())
