"""Our node and a foreign implementation, over real TCP, in both roles."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from stellar_overlay.address import PeerAddress
from stellar_overlay.config import OverlayConfig
from stellar_overlay.error import AuthenticationFailed, DropReason, OverlayError
from stellar_overlay.identity import PUBNET_PASSPHRASE, LocalNode, PeerId
from stellar_overlay.node.events import PeerEvent
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.node.subscriptions import OverlayMessage
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.scp import externalize
from tests.interop.conftest import StartForeignPeer
from tests.interop.foreign import ForeignPeer, Options

_Test = TypeVar("_Test", bound=Callable[..., Awaitable[None]])
in_reactor: Callable[[_Test], _Test] = pytest_twisted.ensureDeferred

MANY = 3000


class OurNode:
    """A node of ours, what it received, and what became of its links."""

    def __init__(self) -> None:
        config = OverlayConfig(allow_private=True)
        self.overlay = OverlayManager(
            config,
            LocalNode.testnet(),
            reactor=reactor,
            listen="tcp:0:interface=127.0.0.1",
        )
        self.events: list[PeerEvent] = []
        self.messages: list[OverlayMessage] = []
        self.overlay.on_peer_event(self.events.append)
        self.overlay.observe(self.messages.append)

    @property
    def port(self) -> int:
        assert self.overlay.peer_port is not None
        return self.overlay.peer_port

    @property
    def peer_id(self) -> PeerId:
        (info,) = self.overlay.peer_infos()
        return info.peer_id

    async def meet(self, peer: ForeignPeer, *, we_dial: bool) -> None:
        """Be authenticated with ``peer`` at both ends."""
        if we_dial:
            await self.overlay.connect(PeerAddress("127.0.0.1", await peer.listen()))
        else:
            peer.dial(self.port)
        await peer.wait_for("authenticated")
        await self.until(lambda: bool(self.overlay.peer_infos()))

    async def until(self, is_so: Callable[[], bool], seconds: float = 20) -> None:
        """Wait for something that real sockets bring about."""
        for _ in range(int(seconds / 0.02)):
            if is_so():
                return
            await deferLater(reactor, 0.02)
        raise AssertionError(f"not within {seconds} s; events: {self.events}")

    async def dropped(self) -> PeerEvent:
        """Return how a link ended, once one did."""
        await self.until(lambda: any(event.kind == "peer.dropped" for event in self.events))
        return next(event for event in self.events if event.kind == "peer.dropped")

    def of_type(self, kind: MessageType) -> list[OverlayMessage]:
        return [message for message in self.messages if message.type is kind]


@pytest_twisted.async_yield_fixture  # type: ignore[untyped-decorator]
async def ours() -> object:
    """A node of ours that listens, and stops with the test."""
    node = OurNode()
    await node.overlay.start()
    yield node
    await node.overlay.stop()


both_roles = pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "it dials"])


@both_roles
@in_reactor
async def test_authenticates(foreign_peer: StartForeignPeer, ours: OurNode, we_dial: bool) -> None:
    """Each end knows the other's key and versions."""
    peer = foreign_peer(Options(version_string="a foreign peer", ledger_version=27))
    await ours.meet(peer, we_dial=we_dial)

    (info,) = ours.overlay.peer_infos()
    assert info.direction == ("outbound" if we_dial else "inbound")
    assert (info.version_string, info.ledger_version) == ("a foreign peer", 27)
    assert (info.overlay_min_version, info.overlay_version) == (41, 42)
    assert info.address.port == 11625  # it always says so


@both_roles
@in_reactor
async def test_floods_both_ways_within_credit(
    foreign_peer: StartForeignPeer, ours: OurNode, we_dial: bool
) -> None:
    """3,000 SCP messages each way arrive whole and in order, and none beyond a grant."""
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=we_dial)
    bodies = [
        externalize(ours.overlay.local_node, i, b"%032d" % i).body for i in range(1, MANY + 1)
    ]
    peer.command("scp", count=MANY)
    for body in bodies:
        ours.overlay.send_to(ours.peer_id, Message(body))
    counters = await peer.report(received=MANY, sent=MANY, timeout=60)
    await ours.until(lambda: len(ours.of_type(MessageType.SCP_MESSAGE)) == MANY)

    assert counters.number("flood_messages_in") == MANY
    assert counters.number("credit_violations") == 0
    assert counters.number("grants_received") > MANY // 200
    assert counters.text("flood_sha256_in") == hashlib.sha256(b"".join(bodies)).hexdigest()
    received = b"".join(message.body for message in ours.of_type(MessageType.SCP_MESSAGE))
    assert counters.text("flood_sha256_out") == hashlib.sha256(received).hexdigest()


@in_reactor
async def test_stops_at_the_end_of_its_credit(
    foreign_peer: StartForeignPeer, ours: OurNode
) -> None:
    """While the peer grants nothing we send exactly the first 200, and the rest when it does."""
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=True)
    peer.command("hold")
    peer.command("scp_state")
    await ours.until(lambda: bool(ours.of_type(MessageType.GET_SCP_STATE)))
    for i in range(1, 1001):
        ours.overlay.send_to(ours.peer_id, externalize(ours.overlay.local_node, i, b"%032d" % i))
    await peer.report(received=200)
    await deferLater(reactor, 0.2)  # time enough for one more to come

    assert (await peer.report()).number("flood_messages_in") == 200
    peer.command("release")
    counters = await peer.report(received=1000)
    assert counters.number("credit_violations") == 0


@in_reactor
async def test_a_stuck_observer_stops_the_peer_and_loses_nothing(
    foreign_peer: StartForeignPeer, ours: OurNode
) -> None:
    """The peer may send what it was granted and no more until our observer is done."""
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=False)
    gate: Deferred[None] = Deferred()
    observer = ours.overlay.observe(lambda message: _after(gate), MessageType.SCP_MESSAGE)
    peer.command("scp", count=MANY)
    await ours.until(lambda: len(ours.of_type(MessageType.SCP_MESSAGE)) == 200)
    assert (await peer.report()).number("queued") == MANY - 200
    observer.cancel()
    gate.callback(None)
    await ours.until(lambda: len(ours.of_type(MessageType.SCP_MESSAGE)) == MANY)
    assert not [event for event in ours.events if event.kind == "peer.dropped"]


async def _after(gate: Deferred[None]) -> None:
    waiter: Deferred[None] = Deferred()
    gate.addCallback(lambda _: waiter.callback(None))
    await waiter


@in_reactor
async def test_pings(foreign_peer: StartForeignPeer, ours: OurNode) -> None:
    """We ping after five seconds; a DONT_HAVE with its hash is the answer."""
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=True)
    ping = await peer.wait_for("ping", timeout=10)
    dont_have = bytes.fromhex("000000030000000a" + ping.text("hash"))
    peer.command("send", xdr=b64encode(dont_have).decode())
    await ours.until(lambda: ours.overlay.peer(ours.peer_id).ping_ms is not None)
    assert 0 <= (ours.overlay.peer(ours.peer_id).ping_ms or 0) < 5000


@in_reactor
async def test_answers_its_questions(foreign_peer: StartForeignPeer, ours: OurNode) -> None:
    """A quorum set and a tx set that nobody knows are answered with DONT_HAVE, 10 and 17."""
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=False)
    for query, wanted in (9, 10), (6, 17):
        body = query.to_bytes(4, "big") + bytes([query]) * 32
        peer.command("send", xdr=b64encode(body).decode())
        answer = await peer.wait_for("message", type="DONT_HAVE")
        assert b64decode(answer.text("xdr")) == bytes([0, 0, 0, 3, 0, 0, 0, wanted]) + body[4:]


@in_reactor
async def test_wrong_network_is_refused_when_it_dials(
    foreign_peer: StartForeignPeer, ours: OurNode
) -> None:
    """Its certificate is signed for another network: we close without a word."""
    peer = foreign_peer(Options(network=PUBNET_PASSPHRASE))
    peer.dial(ours.port)
    assert (await ours.dropped()).reason == DropReason.BAD_CERT.text
    await peer.wait_for("closed")
    assert not ours.overlay.peer_infos()


@in_reactor
async def test_wrong_network_is_refused_when_we_dial(
    foreign_peer: StartForeignPeer, ours: OurNode
) -> None:
    """It does not take our certificate, and the caller of connect learns of it."""
    peer = foreign_peer(Options(network=PUBNET_PASSPHRASE))
    with pytest.raises(OverlayError, match="another network"):
        await ours.overlay.connect(PeerAddress("127.0.0.1", await peer.listen()))


@both_roles
@in_reactor
async def test_wrong_mac_is_refused(
    foreign_peer: StartForeignPeer, ours: OurNode, we_dial: bool
) -> None:
    """A forged message ends the link with ERR_AUTH, which reaches the forger; nothing is seen."""
    peer = foreign_peer(Options(forge_mac_at=2))
    await ours.meet(peer, we_dial=we_dial)
    peer.command("scp", count=1)
    dropped = await ours.dropped()
    assert (dropped.reason, dropped.by) == (DropReason.UNEXPECTED_MAC.text, "us")
    told = await peer.wait_for("error_msg")
    assert told.text("text") == DropReason.UNEXPECTED_MAC.text
    assert not ours.of_type(MessageType.SCP_MESSAGE)


@in_reactor
async def test_forged_auth_is_refused(foreign_peer: StartForeignPeer, ours: OurNode) -> None:
    """The very first MAC counts: there is no authenticated peer, not for a moment."""
    peer = foreign_peer(Options(forge_mac_at=0))
    with pytest.raises(AuthenticationFailed, match=DropReason.UNEXPECTED_MAC.text):
        await ours.overlay.connect(PeerAddress("127.0.0.1", await peer.listen()))
    assert "peer.authenticated" not in [event.kind for event in ours.events]


@in_reactor
async def test_beyond_credit_is_refused(foreign_peer: StartForeignPeer, ours: OurNode) -> None:
    """A peer that sends more than it was granted is dropped; what was granted is delivered."""
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=True)
    held: list[Deferred[None]] = []

    def hold(message: OverlayMessage) -> Deferred[None]:
        held.append(Deferred())
        return held[-1]

    ours.overlay.observe(hold, MessageType.SCP_MESSAGE)
    peer.command("scp", count=201, beyond_credit=True)
    assert (await ours.dropped()).reason == DropReason.AT_CAPACITY.text
    assert len(held) == 200


@pytest.mark.parametrize(
    ("low", "high"), [(43, 44), (30, 37), (42, 41)], ids=["newer", "older", "crossed"]
)
@in_reactor
async def test_versions_that_do_not_overlap_are_refused(
    foreign_peer: StartForeignPeer, ours: OurNode, low: int, high: int
) -> None:
    """The peer is told ERR_CONF, and our log and events say so, too."""
    peer = foreign_peer(Options(overlay_min_version=low, overlay_version=high))
    peer.dial(ours.port)
    dropped = await ours.dropped()
    assert (dropped.reason, dropped.code) == (DropReason.WRONG_VERSION.text, 2)
    told = await peer.wait_for("error_msg")
    assert told.text("text") == DropReason.WRONG_VERSION.text


@in_reactor
async def test_survey_messages_pass_unharmed(foreign_peer: StartForeignPeer, ours: OurNode) -> None:
    """A survey message of the other implementation is canonical here, byte for byte."""
    path = Path(__file__).parents[1] / "vectors" / "xdr-vectors.json"
    vectors = {vector["name"]: vector for vector in json.loads(path.read_text())["vectors"]}
    names = [name for name in vectors if name.startswith("TIME_SLICED_SURVEY")]
    assert len(names) >= 4
    peer = foreign_peer(Options())
    await ours.meet(peer, we_dial=False)
    for name in names:
        body = bytes.fromhex(vectors[name]["hex"])
        peer.command("send", xdr=b64encode(body).decode())
        await ours.until(lambda body=body: body in [m.body for m in ours.messages])  # type: ignore[misc]
