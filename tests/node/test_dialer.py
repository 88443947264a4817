"""Going out: what ``connect`` answers."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import (
    AlreadyConnected,
    AuthenticationFailed,
    AuthenticationTimeout,
    ConnectionFailed,
    ConnectionTimeout,
    InvalidPeerAddress,
    NetworkMismatch,
    OverlayError,
    PeerDisconnected,
    PeerLimitReached,
    ShuttingDown,
    VersionMismatch,
)
from stellar_overlay.identity import PUBNET_PASSPHRASE
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import Hello, Message, encode_error
from tests.builders import make_node
from tests.node.world import NO_SLOTS, PORT, WorldTestCase, ip


class ConnectTests(WorldTestCase):
    """``connect`` answers who is there, or says why nobody is."""

    def refusal(
        self, node: OverlayManager, kind: type[OverlayError], text: str, to: str = ip(9)
    ) -> OverlayError:
        """Return what ``connect`` raises within five seconds; nothing may be left of it."""
        outcome = self.world.outcome(node.connect(to))
        self.world.advance(5)
        error = outcome[0]
        assert isinstance(error, OverlayError), error
        self.assertIs(type(error), kind)
        self.assertRegex(str(error), text)
        self.world.advance(5)
        self.assertEqual(node.admission.outbound, len(node.peer_infos()))
        self.assertEqual(list(node.admission.pending), [])
        return error

    def test_success(self) -> None:
        """It answers the id of who was dialled, once both are authenticated."""
        caller, callee = self.world.node(1), self.world.node(2)
        for address in (f"{ip(2)}:{PORT}", ip(2), PeerAddress(ip(2))):
            peer_id = self.world.result(caller.connect(address))
            self.assertEqual(peer_id, callee.local_node.peer_id)
            self.assertEqual([info.peer_id for info in caller.peer_infos()], [peer_id])
            self.world.result(caller.disconnect(peer_id))
        self.assertEqual(caller.metrics.outbound_attempt.get(), 3)
        self.assertEqual(caller.metrics.outbound_establish.get(), 3)

    def test_no_address(self) -> None:
        """A text that is no address is refused before anything is dialled."""
        node = self.world.node()
        for text in ("", "10.0.0.9:0", "10.0.0.9:70000", "10.0.0.999", "a b", "::1"):
            with self.assertRaises(InvalidPeerAddress, msg=text):
                self.world.result(node.connect(text))
        self.assertEqual(node.metrics.outbound_attempt.get(), 0)

    def test_nobody_listens(self) -> None:
        """It may be retried, and no slot stays taken."""
        node = self.world.node()
        error = self.refusal(node, ConnectionFailed, r"unable to connect to 10\.0\.0\.9:11625: ")
        self.assertTrue(error.retriable)
        self.assertEqual(node.metrics.outbound_attempt.get(), 1)
        self.assertEqual(node.metrics.outbound_establish.get(), 0)

    def test_nobody_answers(self) -> None:
        """A black hole is given up after five seconds, in which it takes up a slot."""
        self.world.network.black_holes.add(ip(9))
        node = self.world.node()
        outcome = self.world.outcome(node.connect(ip(9)))
        self.world.advance(4.875)
        self.assertEqual((outcome, node.admission.outbound), ([], 1))
        self.world.advance(0.125)
        self.assertIs(type(outcome[0]), ConnectionTimeout)
        self.assertEqual(node.admission.outbound, 0)

    def test_an_endpoint_that_fails_in_its_own_way(self) -> None:
        """Whatever a user's endpoint raises, the caller gets an error of ours."""

        @implementer(IStreamClientEndpoint)
        class Broken:
            def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
                raise ZeroDivisionError("own way")

        node = self.world.node()
        node._dialer._connect = lambda address: Broken()
        self.refusal(node, ConnectionFailed, "own way")

    def test_a_peer_that_says_nothing(self) -> None:
        """Y24: the handshake has its own clock, which starts when the connection is there."""
        self.world.answer(9, is_polite=False)
        error = self.refusal(
            self.world.node(), AuthenticationTimeout, "did not finish the handshake in time"
        )
        self.assertTrue(error.retriable)

    def test_a_peer_that_closes_without_a_word(self) -> None:
        """As core does with a banned node, and when all its slots are taken."""
        peers = self.world.answer(9, is_polite=False)
        node = self.world.node()
        outcome = self.world.outcome(node.connect(ip(9)))
        self.world.settle()
        assert peers[0].transport is not None
        peers[0].transport.loseConnection()
        self.world.settle()
        self.assertIs(type(outcome[0]), PeerDisconnected)
        self.assertIn("closed the connection without a word", str(outcome[0]))

    def test_another_service(self) -> None:
        """Row 58: what an HTTP server says is no record of legal length."""
        peers = self.world.answer(9, is_polite=False)
        node = self.world.node()
        reasons = self.reasons_of(node)
        outcome = self.world.outcome(node.connect(ip(9)))
        self.world.settle()
        peers[0].send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.world.settle()
        self.assertIs(type(outcome[0]), AuthenticationFailed)
        self.assertEqual(reasons, ["error during read"])

    def test_another_network(self) -> None:
        """H7: the certificate does not hold, which says what it most likely means."""
        stranger = make_node(9, passphrase=PUBNET_PASSPHRASE)
        self.world.answer(9, local_node=stranger, is_polite=True)
        self.refusal(self.world.node(), AuthenticationFailed, "another network")

    def test_another_network_id(self) -> None:
        """Row 32: a certificate for our network in a HELLO of another one."""
        peers = self.world.answer(9, is_polite=False)
        node = self.world.node()
        outcome = self.world.outcome(node.connect(ip(9)))
        self.world.settle()
        hello = Hello.decode(peers[0].auth.create_hello().body)
        peers[0].send(Message(replace(hello, network_id=bytes(32)).encode()))
        self.world.settle()
        self.assertIs(type(outcome[0]), NetworkMismatch)
        self.assertEqual(peers[0].error, (2, b"wrong network passphrase"))

    def test_no_common_version(self) -> None:
        """H9: it is fatal, and says what each side speaks."""
        self.world.node(9, overlay_min_version=36, overlay_version=37)
        error = self.refusal(self.world.node(), VersionMismatch, r"36\.\.37.*38\.\.42")
        self.assertTrue(error.fatal)

    def test_ourselves(self) -> None:
        """H10: whoever has our key is us, and is told."""
        node = self.world.node()
        self.refusal(node, AuthenticationFailed, "this very node", to=ip(1))
        self.assertEqual(node.peer_infos(), [])
        self.world.answer(9, local_node=make_node(1))
        self.refusal(node, AuthenticationFailed, "this very node")

    def test_a_peer_that_is_connected(self) -> None:
        """Dialled or having dialled: it is refused before a connection is made."""
        node, other = self.world.node(1), self.world.node(2)
        self.world.result(node.connect(ip(2)))
        for end, address in ((node, ip(2)), (other, ip(1))):
            with self.assertRaises(AlreadyConnected):
                self.world.result(end.connect(address))
        self.assertEqual(len(self.world.network.transports), 1)

    def test_a_peer_that_is_known_by_another_address(self) -> None:
        """Who is dialled twice, under two addresses, is one peer; the first link stays."""
        node, other = self.world.node(1), self.world.node(2)
        self.world.result(node.connect(ip(2)))
        node._dialer._connect = lambda _: self.world.network.client(ip(1))(PeerAddress(ip(2)))
        self.refusal(node, AlreadyConnected, "already-connected peer")
        self.assertEqual((len(node.peer_infos()), len(other.peer_infos())), (1, 1))
        self.assertFalse(self.world.transports(0)[0].is_closed)

    def test_a_peer_that_is_being_dialled(self) -> None:
        """A second attempt at the same time is refused; the first goes on."""
        self.world.answer(9, is_polite=False)
        node = self.world.node()
        first = self.world.outcome(node.connect(ip(9)))
        with self.assertRaises(AlreadyConnected):
            self.world.result(node.connect(ip(9)))
        self.assertEqual(first, [])

    def test_no_pending_slot(self) -> None:
        """C2: with all pending slots taken, nothing is dialled."""
        node = self.world.node()
        node.admission.limits = NO_SLOTS
        self.world.answer(9)
        self.refusal(node, PeerLimitReached, "all outbound connections taken")
        self.assertEqual(node.metrics.outbound_attempt.get(), 0)

    def test_no_slot_for_an_authenticated_peer(self) -> None:
        """We are full: the handshake ends with ERR_LOAD from us."""
        node = self.world.node(target_outbound_peers=1)
        self.world.answer(8)
        peers = self.world.answer(9)
        self.world.result(node.connect(ip(8)))
        error = self.refusal(node, PeerLimitReached, "peer rejected")
        self.assertTrue(error.retriable)
        self.assertEqual(peers[0].error, (4, b"peer rejected"))

    def test_what_the_peer_says_in_an_error(self) -> None:
        """Each text that core sends in a handshake has its exception."""
        table: dict[tuple[int, str], tuple[type[OverlayError], str]] = {
            (4, "peer rejected"): (PeerLimitReached, r"the peer is full: ERR_LOAD \(peer rejected"),
            (2, "wrong protocol version"): (VersionMismatch, r"you offered 38\.\.42"),
            (2, "wrong network passphrase"): (NetworkMismatch, "another network"),
            (2, "already-connected peer: GABCD"): (AlreadyConnected, "already.connected peer"),
            (2, "connecting to self"): (AuthenticationFailed, "connecting to self"),
            (3, "unexpected MAC"): (AuthenticationFailed, r"ERR_AUTH \(unexpected MAC\)"),
            (77, "\x1b[31m"): (AuthenticationFailed, r"UNKNOWN \(\*\*31m\)$"),
        }
        node = self.world.node()
        for (code, text), (kind, shown) in table.items():
            peers = self.world.answer(9, is_polite=False)
            outcome = self.world.outcome(node.connect(ip(9)))
            self.world.settle()
            peers[0].send(Message(encode_error(code, text)))
            self.world.settle()
            self.assertIs(type(outcome[0]), kind, text)
            self.assertRegex(str(outcome[0]), shown)

    def test_cancelled_while_connecting(self) -> None:
        """The attempt is given up, its slot is free and the address can be dialled again."""
        self.world.network.black_holes.add(ip(9))
        node = self.world.node()
        connecting = Deferred.fromCoroutine(node.connect(ip(9)))
        outcome = self.world.outcome(connecting)
        connecting.cancel()
        self.assertIs(type(outcome[0]), CancelledError)
        self.assertEqual(node.admission.outbound, 0)
        self.assertFalse(node._dialer.is_dialling(ResolvedPeerAddress(ip(9))))

    def test_cancelled_during_the_handshake(self) -> None:
        """The link is dropped, and does not become a peer behind the caller's back."""
        peers = self.world.answer(9, is_polite=False)
        node = self.world.node()
        connecting = Deferred.fromCoroutine(node.connect(ip(9)))
        outcome = self.world.outcome(connecting)
        connecting.cancel()
        self.world.settle()
        self.assertIs(type(outcome[0]), CancelledError)
        self.assertEqual(peers[0].error, (0, b"dropped by user"))
        self.assertTrue(peers[0].is_closed)
        self.assertEqual(list(node.admission.pending), [])

    def test_stopped_meanwhile(self) -> None:
        """Whatever stage it was in, the caller hears that the node is shutting down."""
        self.world.network.black_holes.add(ip(8))
        peers = self.world.answer(9, is_polite=False)
        node = self.world.node()
        outcomes = [self.world.outcome(node.connect(ip(number))) for number in (8, 9)]
        self.world.settle()
        self.world.result(node.stop())
        self.assertEqual([type(outcome[0]) for outcome in outcomes], [ShuttingDown] * 2)
        self.assertEqual(peers[0].error, (0, b"shutdown"))
