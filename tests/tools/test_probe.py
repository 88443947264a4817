"""``stellar-overlay probe``: what it finds, and in which words it says why it was refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import PeerAddress
from stellar_overlay.error import ConnectionFailed, ConnectionTimeout, ErrorCode
from stellar_overlay.identity import LocalNode
from stellar_overlay.testing.memory import MemoryNetwork
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.tools.probe import PATIENCE_SECONDS, Probe, Report
from stellar_overlay.wire.message import (
    Message,
    MessageType,
    PeerEntry,
    encode_error,
    encode_get_scp_state,
    encode_peers,
)
from tests.builders import make_node

THERE = PeerAddress("198.51.100.1", 11625)
HANDSHAKE_SECONDS = 4.0
FIELDS = [
    *("address", "authenticated", "node_id", "version_string", "ledger_version"),
    *("overlay_version", "overlay_min_version", "listening_port", "handshake_ms", "peers"),
    "refusal",
]
"""Of ``--json``, in this order."""
Behaviour = Callable[[ScriptedPeer, Message], None]


class Actor(ScriptedPeer):
    """A peer that was dialled and does something of its own with each message it hears."""

    def __init__(self, node: LocalNode, behave: Behaviour, *, is_polite: bool = False) -> None:
        super().__init__(node, we_called_remote=False, is_polite=is_polite)
        self._behave = behave

    def hear(self, message: Message) -> None:
        super().hear(message)
        self._behave(self, message)


class Speaker(Protocol):
    """Says some bytes and nothing else."""

    def __init__(self, data: bytes, *, hangs_up: bool = False) -> None:
        self._data = data
        self._hangs_up = hangs_up

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._data)
        if self._hangs_up:
            self.transport.loseConnection()


class _Listening(Factory):
    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


def error_at(kind: MessageType, code: int, text: str) -> Behaviour:
    """Return the behaviour of who sends an ERROR_MSG in reply to a message, and hangs up.

    :param code: any number.
    """
    body = encode_error(ErrorCode.ERR_MISC, text)
    error = Message(body[:4] + code.to_bytes(4, "big") + body[8:])

    def behave(peer: ScriptedPeer, message: Message) -> None:
        if message.type is kind:
            peer.send(error)
            assert peer.transport is not None
            peer.transport.loseConnection()

    return behave


def closes_at(kind: MessageType) -> Behaviour:
    """Return the behaviour of who hangs up when it hears a message."""

    def behave(peer: ScriptedPeer, message: Message) -> None:
        if message.type is kind:
            assert peer.transport is not None
            peer.transport.loseConnection()

    return behave


def sends_after_auth(*messages: Message) -> Behaviour:
    """Return the behaviour of a good peer that has something to say after the handshake."""

    def behave(peer: ScriptedPeer, message: Message) -> None:
        if message.type is MessageType.AUTH:
            for each in messages:
                peer.send(each)

    return behave


def nothing(peer: ScriptedPeer, message: Message) -> None:
    """Behave as a good peer that says no more than it must."""


class ProbeTests(SynchronousTestCase):
    """A probe in memory, and the other end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock, latency=0.01)

    def listen(self, protocol: Protocol) -> None:
        """Let the other end answer."""
        server = self.network.server(THERE.host, THERE.port)
        self.successResultOf(server.listen(_Listening(protocol)))

    def probing(self, node: LocalNode | None = None) -> Deferred[Report]:
        """Begin to probe the other end."""
        probe = Probe(
            node or make_node(1),
            self.network.client("198.51.100.2"),
            self.clock,
            handshake_seconds=HANDSHAKE_SECONDS,
        )
        return Deferred.fromCoroutine(probe.run(THERE))

    def probe(self, protocol: Protocol, node: LocalNode | None = None) -> Report:
        """Probe the other end; the clock runs until there is a report."""
        self.listen(protocol)
        report = self.probing(node)
        for _ in range(1000):
            if report.called:
                break
            self.clock.advance(0.01)
        return self.successResultOf(report)

    def refusal(self, protocol: Protocol) -> tuple[object, object]:
        """Probe a peer that refuses; return the code and the explanation."""
        report = self.probe(protocol)
        assert report.refusal is not None
        self.assertEqual(list(report.refusal), ["code", "text", "explanation"])
        return report.refusal["code"], report.refusal["explanation"]


class GoodPeerTests(ProbeTests):
    def test_report(self) -> None:
        """Everything that the peer says of itself is in the report."""
        theirs = make_node(2, overlay=(40, 43), port=11999)
        report = self.probe(Actor(theirs, nothing, is_polite=True))
        self.assertEqual(
            asdict(report),
            {
                "address": "198.51.100.1:11625",
                "authenticated": True,
                "node_id": theirs.peer_id.strkey,
                "version_string": theirs.version_string,
                "ledger_version": 28,
                "overlay_version": 43,
                "overlay_min_version": 40,
                "listening_port": 11999,
                "handshake_ms": report.handshake_ms,
                "peers": [],
                "refusal": None,
            },
        )
        self.assertEqual(list(asdict(report)), FIELDS)

    def test_handshake_time(self) -> None:
        """The handshake is timed from the connection to the peer's AUTH: two round trips."""
        self.listen(Actor(make_node(2), nothing, is_polite=True))
        report = self.probing()
        for _ in range(1000):
            self.clock.advance(0.005)
        self.assertEqual(self.successResultOf(report).handshake_ms, 40.0)

    def test_peers(self) -> None:
        """The addresses that it shares are reported; those that are none are left out."""
        entries = [PeerEntry(f"203.0.113.{i}", port, 0) for i, port in enumerate((1, 65535))]
        broken = [PeerEntry("203.0.113.9", port, 0) for port in (0, 65536, 2**32 - 1)]
        peers = Message(encode_peers([*entries, *broken]))
        report = self.probe(Actor(make_node(2), sends_after_auth(peers), is_polite=True))
        self.assertEqual(report.peers, ["203.0.113.0:1", "203.0.113.1:65535"])
        self.assertIsNone(report.refusal)

    def test_patience(self) -> None:
        """It waits a moment for addresses; no longer once the peer has said all it says first."""
        for message, least in (
            ((), PATIENCE_SECONDS),
            ((Message(encode_get_scp_state(1)),), 0.0),
        ):
            start = self.clock.seconds()
            report = self.probe(Actor(make_node(2), sends_after_auth(*message), is_polite=True))
            self.assertIsNone(report.refusal)
            self.assertTrue(least <= self.clock.seconds() - start <= least + 0.2)

    def test_leaves_nothing(self) -> None:
        """When it is done the link is closed and no call is left waiting."""
        self.probe(Actor(make_node(2), nothing, is_polite=True))
        self.clock.advance(1)
        for pair in self.network.transports:
            self.assertTrue(all(transport.is_closed for transport in pair))
        self.assertEqual(self.clock.getDelayedCalls(), [])


NO_STELLAR_PEER = "what answers there is no Stellar peer"
NO_WORD = "the peer closed the connection without a word"


class RefusalTests(ProbeTests):
    def test_full(self) -> None:
        """A full peer authenticates and then says ERR_LOAD: both are reported."""
        full = error_at(MessageType.AUTH, ErrorCode.ERR_LOAD, "peer rejected")
        report = self.probe(Actor(make_node(2), full, is_polite=True))
        self.assertTrue(report.authenticated)
        self.assertEqual(report.node_id, make_node(2).peer_id.strkey)
        self.assertEqual(
            report.refusal,
            {
                "code": "ERR_LOAD",
                "text": "ERR_LOAD (peer rejected)",
                "explanation": "the peer is full: ERR_LOAD (peer rejected)",
            },
        )

    def test_other_versions(self) -> None:
        """It is said what the peer wants and what we offered, whoever noticed."""
        for low, high in ((29, 30), (50, 52), (43, 43)):
            theirs = make_node(2, overlay=(low, high))
            code, explanation = self.refusal(Actor(theirs, nothing, is_polite=True))
            self.assertEqual(code, "ERR_CONF")
            self.assertEqual(
                explanation,
                f"the peer wants overlay versions {low}..{high}, you offered 38..42",
            )

    def test_told_of_other_versions(self) -> None:
        """The same when it is the peer that says so, after its HELLO."""

        def behave(peer: ScriptedPeer, message: Message) -> None:
            if message.type is MessageType.HELLO:
                peer.say_hello()
            error_at(MessageType.HELLO, ErrorCode.ERR_CONF, "wrong protocol version")(peer, message)

        report = self.probe(Actor(make_node(2, overlay=(41, 50)), behave))
        assert report.refusal is not None
        self.assertEqual(report.overlay_min_version, 41)
        self.assertEqual(
            report.refusal["explanation"],
            "the peer wants overlay versions 41..50, you offered 38..42",
        )

    def test_other_network(self) -> None:
        """A peer of another network is told by its certificate, or tells us."""
        theirs = make_node(2, passphrase="another network")
        code, explanation = self.refusal(Actor(theirs, nothing, is_polite=True))
        self.assertEqual(code, None)
        self.assertIn("belongs to another network", str(explanation))
        told = error_at(MessageType.HELLO, ErrorCode.ERR_CONF, "wrong network passphrase")
        self.assertEqual(
            self.refusal(Actor(theirs, told)), ("ERR_CONF", "the peer belongs to another network")
        )

    def test_ourselves(self) -> None:
        """Who probes with the key of the peer is told that it is its own."""
        report = self.probe(Actor(make_node(1), nothing, is_polite=True), make_node(1))
        assert report.refusal is not None
        self.assertEqual(
            report.refusal["explanation"], "the peer is this very node: it has the same key"
        )

    def test_hung_up(self) -> None:
        """A peer that hangs up is told from one that speaks, by when it did so."""
        for protocol, begins in (
            (Speaker(b"", hangs_up=True), f"{NO_WORD}: it may be full"),
            (Actor(make_node(2), closes_at(MessageType.HELLO)), f"{NO_WORD}: it may be full"),
            (
                Actor(make_node(2), closes_at(MessageType.AUTH), is_polite=True),
                f"{NO_WORD} right after the handshake",
            ),
        ):
            with self.subTest(begins=begins):
                code, explanation = self.refusal(protocol)
                self.assertEqual(code, None)
                self.assertTrue(str(explanation).startswith(begins), explanation)

    def test_other_errors(self) -> None:
        """Any other ERROR_MSG is quoted; its text cannot play with the terminal."""
        for code, text, shown in (
            (ErrorCode.ERR_MISC, "banned", "ERR_MISC (banned)"),
            (ErrorCode.ERR_DATA, "\x1b[31mred", "ERR_DATA (**31mred)"),
            (4711, "new", "UNKNOWN (new)"),
        ):
            actor = Actor(make_node(2), error_at(MessageType.HELLO, code, text))
            found = self.refusal(actor)
            self.assertEqual(found, (shown.split()[0], f"the peer refused us: {shown}"))

    def test_no_stellar_peer(self) -> None:
        """What speaks another protocol, or none, is called that."""
        for data in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"\x15\x03\x01\x00\x02\x02\x46",
            bytes(64),
            b"\xff" * 64,
            b"\x80\0\0\x08" + bytes(8),
        ):
            with self.subTest(data=data):
                _, explanation = self.refusal(Speaker(data))
                self.assertTrue(str(explanation).startswith(NO_STELLAR_PEER), explanation)

    def test_forged_mac(self) -> None:
        """A peer whose AUTH is forged is refused by us, with core's reason."""

        def behave(peer: ScriptedPeer, message: Message) -> None:
            if message.type is MessageType.HELLO:
                peer.auth.accept_hello(peer.auth.read_hello(message))
                peer.say_hello()
                peer.send_forged(peer.auth.create_auth())

        report = self.probe(Actor(make_node(2), behave))
        assert report.refusal is not None
        self.assertFalse(report.authenticated)
        self.assertEqual(report.refusal["code"], "ERR_AUTH")
        self.assertEqual(report.refusal["text"], "unexpected MAC")


class PatienceTests(ProbeTests):
    def test_mute(self) -> None:
        """Who says nothing is given up when the time for the handshake is over, not before."""
        self.listen(Speaker(b""))
        report = self.probing()
        self.clock.advance(HANDSHAKE_SECONDS - 0.1)
        self.assertNoResult(report)
        self.clock.pump([0.1, 0.1])
        refusal = self.successResultOf(report).refusal
        assert refusal is not None
        self.assertEqual(refusal["text"], "idle timeout")
        self.assertEqual(refusal["explanation"], "the peer did not finish the handshake in time")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_trickle(self) -> None:
        """Nor does it help to send byte after byte of a record that never ends."""
        speaker = Speaker(b"\x80\0\x0f\0")
        self.listen(speaker)
        report = self.probing()
        for _ in range(50):
            assert speaker.transport is not None
            speaker.transport.write(b"\0")
            self.clock.advance(0.1)
        self.assertIsNotNone(self.successResultOf(report).refusal)

    def test_nobody(self) -> None:
        """Where nobody listens, or nothing comes back, it is no report but an error."""
        self.failureResultOf(self.probing(), ConnectionFailed)
        self.network.black_holes.add(THERE.host)
        report = self.probing()
        self.clock.advance(10)
        self.failureResultOf(report, ConnectionTimeout)
