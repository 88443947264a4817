"""Core's own handshake scenarios (H1 to H12), in both directions, and the deadline."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.identity import PUBNET_PASSPHRASE, LocalNode
from stellar_overlay.session.session_config import SessionConfig
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.channel import OpeningKey
from stellar_overlay.wire.message import Hello, MessageType, PeerEntry, encode_auth, encode_peers
from tests.builders import OpenGate, make_node
from tests.by_hand import ByHand
from tests.pair import Pair, Side

ERROR_MSG = MessageType.ERROR_MSG


def settled(caller: LocalNode, callee: LocalNode) -> Pair:
    """Return two nodes that have said to each other all that they had to say."""
    pair = Pair(caller, callee)
    pair.settle()
    return pair


def close_lost(pair: Pair) -> None:
    """Let a silent close of one side end the other, as a transport would."""
    for side in (pair.caller, pair.callee):
        if side.violation is None:
            pair.end(side, side.session.lost("closed"))


class ScenarioTests(SynchronousTestCase):
    """OverlayTests.cpp, as far as two nodes without a ledger or a table can play it."""

    def test_h1_hello(self) -> None:
        """H1: two nodes with default settings authenticate each other."""
        pair = settled(make_node(1), make_node(2))
        self.assertTrue(pair.is_authenticated)
        self.assertEqual(pair.caller.session.auth.peer_id, make_node(2).peer_id)
        self.assertEqual(pair.callee.session.auth.peer_id, make_node(1).peer_id)

    def test_h2_callee_without_port(self) -> None:
        """H2: a callee that names port 0 is told "bad address" by the caller."""
        pair = settled(make_node(1), make_node(2, port=0))
        self.assertEqual(pair.caller.reason, "bad address")
        self.assertEqual(pair.caller.sent_error(), (2, b"bad address"))
        self.assertEqual(pair.callee.reason, "ERR_CONF (bad address)")

    def test_h2_caller_without_port(self) -> None:
        """H2, the other way round: the callee answers HELLO, then refuses."""
        pair = settled(make_node(1, port=0), make_node(2))
        self.assertEqual(pair.callee.sent_types(), [MessageType.HELLO, ERROR_MSG])
        self.assertEqual(pair.callee.sent_error(), (2, b"bad address"))
        self.assertEqual(pair.caller.reason, "ERR_CONF (bad address)")

    def test_h3_auth_before_hello(self) -> None:
        """H3: who begins with AUTH is told that it is out of order, in both directions."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            mouth.say(mouth.plain(encode_auth()))
            self.assertEqual(mouth.side.reason, "out-of-order AUTH message")
            self.assertEqual(mouth.side.sent_error(), (0, b"out-of-order AUTH message"))
            self.assertIsNone(mouth.side.session.auth.remote)

    def test_h4_damaged_receive_key(self) -> None:
        """H4: a side whose key to open with is damaged ends the link with "unexpected MAC"."""
        for calls in (True, False):
            mouth = ByHand(calls=calls).go_to(AuthState.GOT_HELLO)
            mouth.side.session.auth.opening = OpeningKey(bytes(32))
            mouth.say(mouth.sealed(encode_auth()))
            self.assertEqual(mouth.side.reason, "unexpected MAC")
            self.assertEqual(mouth.side.sent_error(), (3, b"unexpected MAC"))

    def _share(self) -> Pair:
        gate = OpenGate(peers=(PeerEntry("1.1.1.1", 11625),))
        pair = Pair(gates=(OpenGate(), gate))
        pair.settle()
        self.assertTrue(pair.is_authenticated)
        return pair

    def _send_peers(self, pair: Pair, side: Side) -> None:
        sealing = side.session.auth.sealing
        assert sealing is not None
        pair.feed(pair.other(side), sealing.seal(encode_peers([PeerEntry("2.2.2.2", 1)])))

    def test_h5_peers_from_the_caller(self) -> None:
        """H5: a caller that sends PEERS is dropped without a word."""
        pair = self._share()
        self._send_peers(pair, pair.caller)
        self.assertEqual(pair.callee.reason, "received PEERS")
        self.assertIsNone(pair.callee.sent_error())
        self.assertEqual(pair.callee.of_type(MessageType.PEERS), [])

    def test_h6_second_peers(self) -> None:
        """H6: a callee that sends PEERS twice is dropped without a word; the first one counted."""
        pair = self._share()
        self._send_peers(pair, pair.callee)
        self.assertEqual(pair.caller.reason, "too many msgs PEERS")
        self.assertIsNone(pair.caller.sent_error())
        self.assertEqual(len(pair.caller.of_type(MessageType.PEERS)), 1)

    def test_h7_passphrase(self) -> None:
        """H7: of two networks' nodes the one that hears HELLO first closes without a byte."""
        nodes = make_node(1), make_node(2, passphrase=PUBNET_PASSPHRASE)
        for caller, callee in (nodes, nodes[::-1]):
            pair = settled(caller, callee)
            self.assertEqual(pair.callee.reason, "failed to verify auth cert")
            self.assertEqual(bytes(pair.callee.sent), b"")
            close_lost(pair)
            self.assertFalse(pair.is_authenticated)
            self.assertEqual(pair.caller.kind, DropReason.LOST_AT_HEADER)

    def test_h8_damaged_cert(self) -> None:
        """H8: a certificate whose expiration was put off by a second is not believed."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            cert = Hello.decode(mouth.auth.create_hello().body).cert
            said = len(mouth.heard)
            mouth.say(mouth.hello(cert=replace(cert, expiration=cert.expiration + 1)))
            self.assertEqual(mouth.side.reason, "failed to verify auth cert")
            self.assertEqual(len(mouth.heard), said)

    def test_h9_versions(self) -> None:
        """H9: a callee just above or below our versions is told so; the callee says it too."""
        for version in (43, 37):
            for flip in (False, True):
                nodes = make_node(1), make_node(2, overlay=(version, version))
                pair = settled(*(nodes[::-1] if flip else nodes))
                self.assertEqual(pair.caller.reason, "wrong protocol version")
                self.assertEqual(pair.callee.reason, "wrong protocol version")
                self.assertEqual(pair.caller.sent_error(), (2, b"wrong protocol version"))
                self.assertEqual(pair.callee.sent_types(), [MessageType.HELLO, ERROR_MSG])

    def test_h10_same_key(self) -> None:
        """H10: two nodes with one seed: both say "connecting to self"."""
        pair = settled(make_node(1), make_node(1))
        self.assertEqual(pair.caller.reason, "connecting to self")
        self.assertEqual(pair.caller.sent_error(), (2, b"connecting to self"))
        self.assertEqual(pair.callee.sent_types(), [MessageType.HELLO, ERROR_MSG])

    def test_h11_slow_handshake(self) -> None:
        """H11: with the caller's output blocked, both are gone in time, for any timeout."""
        for timeout in (2.0, 5.0):
            config = SessionConfig(auth_timeout_secs=timeout)
            pair = Pair(configs=(config, config))
            for side in (pair.caller, pair.callee):
                while side.violation is None:
                    pair.now = side.session.deadline
                    try:
                        side.session.on_deadline(pair.now)
                    except PeerViolation as violation:
                        pair.end(side, violation)
                self.assertIs(side.kind, DropReason.IDLE)
                self.assertTrue(timeout <= pair.now <= timeout + 5, (timeout, pair.now))

    def test_h12_banned(self) -> None:
        """H12: a banned node is closed without a byte by who hears it, in both directions."""
        refuse = {"check_node": DropReason.BANNED.violation()}
        for calls in (True, False):
            gates = (OpenGate(refuse=refuse), OpenGate(refuse=refuse))
            mouth = ByHand(Pair(gates=gates), calls=calls)
            said = len(mouth.heard)
            mouth.say(mouth.hello())
            self.assertEqual(mouth.side.reason, "node is banned")
            self.assertEqual(len(mouth.heard), said)


class DeadlineTests(SynchronousTestCase):
    """A handshake takes at most 2 to 7 seconds, whatever trickles in (DECISIONS 8)."""

    def _end_of(self, mouth: ByHand, step: float = 0.1, trickle: bytes = b"") -> float:
        """Feed one byte per step; return when the session ended the link."""
        while mouth.side.violation is None and mouth.pair.now < 20:
            mouth.pair.advance(step)
            mouth.say(trickle[:1])
            trickle = trickle[1:]
        return mouth.pair.now

    def _assert_idle(self, mouth: ByHand, when: float) -> None:
        self.assertEqual(mouth.side.reason, "idle timeout")
        self.assertIsNone(mouth.side.sent_error())
        self.assertTrue(2 <= round(when, 6) <= 7, when)

    def test_silent_peer(self) -> None:
        """A peer that opens the connection and says nothing is dropped in time (36)."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            self._assert_idle(mouth, self._end_of(mouth))
            self.assertEqual(len(mouth.heard), 0 if calls else 1)

    def test_silence_after_hello(self) -> None:
        """So is one that stops after its HELLO (36)."""
        for calls in (True, False):
            mouth = ByHand(calls=calls).go_to(AuthState.GOT_HELLO)
            self._assert_idle(mouth, self._end_of(mouth))

    def test_trickling_hello(self) -> None:
        """A HELLO byte by byte does not put the end off."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            self._assert_idle(mouth, self._end_of(mouth, 0.05, mouth.hello()))

    def test_late_hello(self) -> None:
        """A whole HELLO in the last moment, and a trickling AUTH, do not either."""
        mouth = ByHand()
        mouth.pair.advance(4.9)
        mouth.say(mouth.hello())
        self.assertIs(mouth.side.session.auth.state, AuthState.GOT_HELLO)
        auth = mouth.sealed(encode_auth())
        self._assert_idle(mouth, self._end_of(mouth, 0.05, auth))

    def test_half_a_record(self) -> None:
        """Nor does a record that announces more than ever comes (14)."""
        mouth = ByHand()
        mouth.say((0x80000000 | 4096).to_bytes(4, "big"))
        self._assert_idle(mouth, self._end_of(mouth, 0.01, bytes(4000)))

    def test_last_moment(self) -> None:
        """A handshake that is done within the time is done."""
        for calls in (True, False):
            mouth = ByHand(calls=calls)
            mouth.pair.advance(4.9)
            mouth.go_to(AuthState.GOT_AUTH)
            mouth.pair.advance(5.0)
            self.assertTrue(mouth.side.session.is_authenticated)

    def test_nothing_before_the_timeout(self) -> None:
        """A timeout of 12 seconds outlives the checks at 5 and 10 seconds, and ends at 15."""
        configs = (SessionConfig(auth_timeout_secs=12), SessionConfig(auth_timeout_secs=12))
        mouth = ByHand(Pair(configs=configs))
        mouth.pair.advance(12)
        self.assertIsNone(mouth.side.violation)
        mouth.pair.advance(5)
        self.assertEqual(mouth.side.reason, "idle timeout")

    def test_authenticated_peer_with_half_a_record(self) -> None:
        """After AUTH half a record and its trickling bytes are no progress: idle at 35 s (14)."""
        mouth = ByHand().go_to(AuthState.GOT_AUTH)
        mouth.say((0x80000000 | 4096).to_bytes(4, "big"))
        for second in range(1, 40):
            mouth.pair.advance(1)
            mouth.say(b"x")
            self.assertEqual(mouth.side.violation is None, second < 35, second)
        self.assertEqual(mouth.side.reason, "idle timeout")
