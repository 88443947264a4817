"""Nodes over real TCP, on loopback."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import ConnectionFailed, ShuttingDown
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.connection import Connection
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.listener import ConnectionFactory, ListenerService
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import Message, MessageType
from tests.builders import advert, get_tx_set

_Test = TypeVar("_Test", bound=Callable[..., Awaitable[None]])
in_reactor: Callable[[_Test], _Test] = pytest_twisted.ensureDeferred

PATIENCE_SECONDS = 20
"""How long anything here may take before it counts as hanging."""
FLOOD = 3000
LOOPBACK = "127.0.0.1"


def the_reactor() -> Any:
    """Return the running one."""
    from twisted.internet import reactor

    return reactor


@asynccontextmanager
async def running(
    listen: str = f"tcp:0:interface={LOOPBACK}", **settings: Any
) -> AsyncIterator[OverlayManager]:
    """Run a node, and stop it at the end."""
    node = OverlayManager(
        OverlayConfig(allow_private=True, **settings),
        LocalNode.testnet(),
        reactor=the_reactor(),
        listen=listen,
    )
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def address_of(node: OverlayManager, host: str = LOOPBACK) -> PeerAddress:
    """Return where a node listens."""
    assert node.peer_port is not None
    return PeerAddress(host, node.peer_port)


async def call(node: OverlayManager, *, is_polite: bool = True) -> ScriptedPeer:
    """Return a scripted peer that has dialled the node, authenticated if it is polite."""
    endpoint = TCP4ClientEndpoint(the_reactor(), LOOPBACK, address_of(node).port)
    factory = ScriptedPeer.factory(lambda: ScriptedPeer(LocalNode.testnet(), is_polite=is_polite))
    peer = await endpoint.connect(factory)
    assert isinstance(peer, ScriptedPeer)
    if is_polite:
        await soon(peer.authenticated)
    return peer


def raw(node: OverlayManager) -> socket.socket:
    """Return a socket that is connected to the node, as the kernel sees it."""
    return socket.create_connection((LOOPBACK, address_of(node).port), timeout=5)


def soon(waiting: Deferred[Any]) -> Deferred[Any]:
    """Return ``waiting``, with an end to all patience."""
    return waiting.addTimeout(PATIENCE_SECONDS, the_reactor())


def event(
    node: OverlayManager, kind: str, matches: Callable[[PeerEvent], bool] = lambda event: True
) -> Deferred[PeerEvent]:
    """Return a Deferred of the next event of a kind."""
    waiting: Deferred[PeerEvent] = Deferred()

    def listen(found: PeerEvent) -> None:
        if found.kind == kind and matches(found):
            cancel()
            waiting.callback(found)

    cancel = node.on_peer_event(listen)
    return soon(waiting)


def collect(
    node: OverlayManager, count: int, kind: MessageType
) -> tuple[list[bytes], Deferred[None]]:
    """Return the bodies that a node will receive, and a Deferred of the last of them."""
    bodies: list[bytes] = []
    complete: Deferred[None] = Deferred()

    def observe(message: Any) -> None:
        bodies.append(message.body)
        if len(bodies) == count:
            complete.callback(None)

    node.observe(observe, kind)
    return bodies, soon(complete)


def links_of(node: OverlayManager) -> list[Connection]:
    """Return every link whose transport is not closed."""
    return list(node._links._open)


def big_quorum_set(number: int) -> Message:
    """Return a legal message of 36 KB that flow control does not count."""
    keys = b"".join(struct.pack(">III24x", 0, number, i) + bytes(0) for i in range(1000))
    return Message(struct.pack(">III", 10, 1, 1000) + keys + bytes(4))


@in_reactor
async def test_3000_flood_messages_each_way() -> None:
    """Two nodes authenticate and flood each other far past the first grants; none is lost."""
    async with running() as one, running() as other:
        found = await one.connect(address_of(other))
        assert found == other.local_node.peer_id
        if not other.peer_infos():
            await event(other, "peer.authenticated")
        (info,) = other.peer_infos()
        assert info.address.port == one.peer_port
        drops = [event(node, "peer.dropped") for node in (one, other)]
        messages = [advert(number) for number in range(FLOOD)]
        waiting = []
        for sender, receiver in ((one, other), (other, one)):
            waiting.append(collect(receiver, FLOOD, MessageType.FLOOD_ADVERT))
            for message in messages:
                assert sender.send_to(receiver.local_node.peer_id, message)
        for bodies, complete in waiting:
            await complete
            assert bodies == [message.body for message in messages]
        await turn()  # in which the last of them are processed
        for node in (one, other):
            (peer,) = (node.peer(info.peer_id) for info in node.peer_infos())
            assert peer.flow_control.local_flood_capacity == 200
        assert not any(drop.called for drop in drops)
        await one.disconnect(found)
        await DeferredList(drops)


@in_reactor
async def test_ten_megabytes_each_way_through_full_buffers() -> None:
    """More than any socket buffer holds, in both directions at once, arrives complete."""
    async with running() as one, running() as other:
        await one.connect(address_of(other))
        if not other.peer_infos():
            await event(other, "peer.authenticated")
        messages = [big_quorum_set(number) for number in range(300)]
        waiting = []
        for sender, receiver in ((one, other), (other, one)):
            waiting.append(collect(receiver, len(messages), MessageType.SCP_QUORUMSET))
            for message in messages:
                assert sender.send_to(receiver.local_node.peer_id, message)
        for bodies, complete in waiting:
            await complete
            assert bodies == [message.body for message in messages]


@in_reactor
async def test_socket_options() -> None:
    """Both directions: TCP_NODELAY on, SO_LINGER off."""
    async with running() as one, running() as other:
        await one.connect(address_of(other))
        for node in (one, other):
            (link,) = links_of(node)
            handle: socket.socket = link.transport.getHandle()  # type: ignore[attr-defined]
            assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            linger = handle.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
            assert struct.unpack("ii", linger)[0] == 0


@pytest.mark.parametrize("place", ["header", "body"])
@pytest.mark.parametrize("end", ["fin", "rst", "half-close"])
@in_reactor
async def test_ends_of_the_stream(end: str, place: str) -> None:
    """Row 13: FIN, RST and half-close, between records and within one, free the slot."""
    async with running() as node:
        connecting = event(node, "peer.connecting")
        client = raw(node)
        await connecting
        dropped = event(node, "peer.dropped")
        if place == "body":
            client.sendall(b"\x80\0\1\0half a record")
            await links_have_read(node)
        if end == "rst":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if end == "half-close":
            client.shutdown(socket.SHUT_WR)
        else:
            client.close()
        found = await dropped
        assert found.by == "them"
        assert found.reason is not None
        assert found.reason.startswith(f"error reading message {place}: ")
        for _ in range(3):  # what is still to be written goes out first
            await turn()
        assert not node.admission.pending
        assert links_of(node) == []
        client.close()


async def links_have_read(node: OverlayManager) -> None:
    """Wait until the one link of a node has read something."""
    (link,) = links_of(node)
    ends = time.monotonic() + PATIENCE_SECONDS
    while not link.bytes_read:
        assert time.monotonic() < ends
        await turn()


def turn() -> Deferred[None]:
    """Return a Deferred of the reactor's next turn."""
    waiting: Deferred[None] = Deferred()
    the_reactor().callLater(0, waiting.callback, None)
    return waiting


@pytest.mark.parametrize("is_deaf", [False, True])
@in_reactor
async def test_the_error_reaches_a_peer_whose_bytes_we_never_read(is_deaf: bool) -> None:
    """Megabytes behind a forged message reset nothing: the peer reads ERROR_MSG, then the end."""
    async with running() as node:
        peer = await call(node)
        transport: Any = peer.transport
        if is_deaf:  # it reads only when it has said all it had to say
            transport.pauseProducing()
            the_reactor().callLater(1, transport.resumeProducing)
        dropped = event(node, "peer.dropped")
        peer.send_forged(get_tx_set())
        peer.send_bytes(bytes(4_000_000))
        found = await dropped
        assert (found.reason, found.code) == ("unexpected MAC", 3)
        await soon(peer.closed)
        assert peer.error == (3, b"unexpected MAC")


@in_reactor
async def test_a_silent_drop_says_nothing() -> None:
    """Without a code the peer only sees the end of the stream."""
    async with running() as node:
        peer = await call(node)
        peer.send(Message(b"\0\0\0\x10\0\0\0\1"))
        await soon(peer.closed)
        assert peer.error is None
        assert peer.of_type(MessageType.ERROR_MSG) == []


@in_reactor
async def test_stopping_with_fifty_peers() -> None:
    """Each gets ERR_MISC "shutdown"; those that never read or close do not hold it up."""
    async with running() as node:
        peers = [await call(node) for _ in range(40)]
        pending = [await call(node, is_polite=False) for _ in range(5)]
        connecting = event(node, "peer.connecting")
        stalled = [raw(node) for _ in range(5)]
        await connecting
        while len(links_of(node)) < 50:
            await turn()
        began = time.monotonic()
        await soon(Deferred.fromCoroutine(node.stop()))
        assert time.monotonic() - began < 5
        assert node.peer_port is None
        await soon(DeferredList([peer.closed for peer in [*peers, *pending]]))
        assert [peer.error for peer in [*peers, *pending]] == [(0, b"shutdown")] * 45
        assert links_of(node) == []
        for client in stalled:
            assert client.recv(4096).endswith(b"shutdown" + bytes(32))
            client.close()


@in_reactor
async def test_stopping_without_stalled_peers_is_quick() -> None:
    """Peers that close when they are told cost no waiting."""
    async with running() as one, running() as other:
        await one.connect(address_of(other))
        began = time.monotonic()
        await one.stop()
        assert time.monotonic() - began < 2


@in_reactor
async def test_a_port_that_is_taken() -> None:
    """The second node fails to start, with nothing left of it; the first one goes on."""
    async with running() as node:
        port = address_of(node).port
        second = OverlayManager(
            OverlayConfig(),
            LocalNode.testnet(),
            reactor=the_reactor(),
            listen=f"tcp:{port}:interface={LOOPBACK}",
        )
        with pytest.raises(CannotListenError):
            await second.start()
        await second.stop()
        await call(node)
        assert len(node.peer_infos()) == 1


@in_reactor
async def test_a_stopped_node_refuses_connections() -> None:
    """Its port is closed, and its address can be dialled in vain."""
    async with running() as one, running() as other:
        address = address_of(other)
        await other.stop()
        with pytest.raises(ConnectionFailed):
            await one.connect(address)


@in_reactor
async def test_stopped_while_it_dials() -> None:
    """An attempt under way leaves neither a connection nor a timer."""
    async with running() as node:
        dialling = Deferred.fromCoroutine(node.connect(address_of(node)))
        errors: list[Any] = []
        dialling.addErrback(errors.append)
        await node.stop()
        assert errors[0].check(ShuttingDown)


@in_reactor
async def test_cancelled_while_it_dials() -> None:
    """Who gives up a dial gets what Twisted gives to who cancels, by number and by name."""
    async with running() as node:
        for host in (LOOPBACK, "localhost"):
            dialling = Deferred.fromCoroutine(node.connect(address_of(node, host)))
            errors: list[Any] = []
            dialling.addErrback(errors.append)
            dialling.cancel()
            assert len(errors) == 1
            assert errors[0].check(CancelledError, ConnectionFailed)
            assert node.admission.outbound == 0


@in_reactor
async def test_ipv6() -> None:
    """Listened on and dialled when asked to."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        async with running(r"tcp6:0:interface=\:\:1") as one, running() as other:
            assert await other.connect(address_of(one, "::1")) == one.local_node.peer_id
            (info,) = other.peer_infos()
            assert str(info.address) == f"[::1]:{one.peer_port}"
    except CannotListenError:
        pytest.skip("no IPv6 loopback here")


@in_reactor
async def test_who_calls_too_early_waits() -> None:
    """A port that is open accepts nobody before the node has read its database."""
    accepted: list[object] = []
    endpoint = serverFromString(the_reactor(), f"tcp:0:interface={LOOPBACK}")
    listener = ListenerService(endpoint, ConnectionFactory(accepted.append))
    await listener.listen()
    assert listener.port is not None
    try:
        with socket.create_connection((LOOPBACK, listener.port)) as client:
            for _ in range(5):
                await deferLater(the_reactor(), 0.02)
            assert accepted == []
            listener.startService()
            while not accepted:
                await deferLater(the_reactor(), 0.02)
            assert client.recv(1) == b""  # refused by this factory, but not left alone
    finally:
        await listener.stopService()
