"""The handshake: who sends what, with which number, and what a refusal looks like."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason, PeerViolation
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import (
    Hello,
    MessageType,
    PeerEntry,
    encode_auth,
    encode_get_scp_state,
    encode_peers,
    encode_send_more_extended,
)
from tests.builders import OpenGate, error_record, make_node
from tests.by_hand import ByHand
from tests.pair import Pair

HELLO, AUTH, PEERS, ERROR_MSG = (
    MessageType.HELLO,
    MessageType.AUTH,
    MessageType.PEERS,
    MessageType.ERROR_MSG,
)
GRANT, GET_SCP_STATE = MessageType.SEND_MORE_EXTENDED, MessageType.GET_SCP_STATE
SHARED = (PeerEntry("1.1.1.1", 11625), PeerEntry("2.2.2.2", 11626))


def hand(*, calls: bool, gate: OpenGate | None = None, number: int = 2) -> ByHand:
    """Return a hand before a session that has ``gate``; the hand's node is the other one."""
    asked = gate or OpenGate()
    gates = (OpenGate(), asked) if calls else (asked, OpenGate())
    return ByHand(Pair(make_node(1), make_node(number), gates=gates), calls=calls)


def types_and_numbers(mouth: ByHand) -> list[tuple[MessageType, int]]:
    """Return what the session sent, without the bodies."""
    return [(kind, number) for kind, number, _ in mouth.heard]


class SequenceTests(SynchronousTestCase):
    """Who speaks when, and with which number (connection.md 4.2, 4.5)."""

    def test_caller_speaks_first(self) -> None:
        """A caller sends its HELLO as soon as there is a connection, and nothing else."""
        self.assertEqual(types_and_numbers(hand(calls=False)), [(HELLO, 0)])

    def test_callee_waits(self) -> None:
        """A callee sends nothing before it has heard a HELLO."""
        self.assertEqual(hand(calls=True).heard, [])

    def test_callee_answers_hello(self) -> None:
        """A callee answers a HELLO with its own, and with nothing else yet."""
        mouth = hand(calls=True).go_to(AuthState.GOT_HELLO)
        self.assertEqual(types_and_numbers(mouth), [(HELLO, 0)])

    def test_caller_answers_hello(self) -> None:
        """A caller answers a HELLO with AUTH, the first numbered message."""
        mouth = hand(calls=False).go_to(AuthState.GOT_HELLO)
        self.assertEqual(types_and_numbers(mouth), [(HELLO, 0), (AUTH, 0)])

    def test_callee_without_peers(self) -> None:
        """A callee with nothing to share sends no PEERS: AUTH 0, grant 1, GET_SCP_STATE 2."""
        mouth = hand(calls=True).go_to(AuthState.GOT_AUTH)
        self.assertEqual(
            types_and_numbers(mouth), [(HELLO, 0), (AUTH, 0), (GRANT, 1), (GET_SCP_STATE, 2)]
        )

    def test_callee_with_peers(self) -> None:
        """PEERS comes right after AUTH, and all that follows has a number more."""
        mouth = hand(calls=True, gate=OpenGate(peers=SHARED)).go_to(AuthState.GOT_AUTH)
        self.assertEqual(
            types_and_numbers(mouth),
            [(HELLO, 0), (AUTH, 0), (PEERS, 1), (GRANT, 2), (GET_SCP_STATE, 3)],
        )

    def test_caller(self) -> None:
        """A caller sends AUTH 0, grant 1, GET_SCP_STATE 2, and never PEERS."""
        mouth = hand(calls=False, gate=OpenGate(peers=SHARED)).go_to(AuthState.GOT_AUTH)
        self.assertEqual(
            types_and_numbers(mouth), [(HELLO, 0), (AUTH, 0), (GRANT, 1), (GET_SCP_STATE, 2)]
        )

    def test_bodies(self) -> None:
        """AUTH asks for bytes, the grant is 200 messages and 300,000 bytes, all of it exact."""
        mouth = hand(calls=True, gate=OpenGate(peers=SHARED)).go_to(AuthState.GOT_AUTH)
        self.assertEqual(
            [body for _, _, body in mouth.heard[1:]],
            [
                encode_auth(200),
                encode_peers(SHARED),
                encode_send_more_extended(200, 300_000),
                encode_get_scp_state(1),
            ],
        )

    def test_own_hello(self) -> None:
        """HELLO says who we are: versions, network, text, port, key; one nonce per link."""
        heard = [
            hand(calls=calls).go_to(AuthState.GOT_HELLO).heard[0][2] for calls in (False, True)
        ]
        hellos = [Hello.decode(body) for body in heard]
        for number, hello in zip((1, 2), hellos, strict=True):
            node = make_node(number)
            self.assertEqual(
                (hello.ledger_version, hello.overlay_version, hello.overlay_min_version),
                (28, 42, 38),
            )
            self.assertEqual(hello.network_id, node.network_id)
            self.assertEqual(hello.version_string, node.version_string.encode())
            self.assertEqual(hello.listening_port, 11625)
            self.assertEqual(hello.node_key, node.peer_id.key)
        self.assertNotEqual(hellos[0].nonce, hellos[1].nonce)

    def test_marks(self) -> None:
        """Every record that is sent has bit 31 of its mark set, HELLO's too."""
        mouth = hand(calls=True, gate=OpenGate(peers=SHARED)).go_to(AuthState.GOT_AUTH)
        stream, at, marks = bytes(mouth.side.sent), 0, []
        while at < len(stream):
            marks.append(stream[at] >> 7)
            at += 4 + (int.from_bytes(stream[at : at + 4], "big") & 0x7FFFFFFF)
        self.assertEqual(marks, [1] * 5)

    def test_peers_reach_the_caller(self) -> None:
        """PEERS is dispatched on the caller's side, after its handshake."""
        pair = Pair(gates=(OpenGate(), OpenGate(peers=SHARED)))
        pair.settle()
        self.assertEqual([m.body for m in pair.caller.of_type(PEERS)], [encode_peers(SHARED)])

    def test_early_sender(self) -> None:
        """What a peer sends right behind its AUTH, in the same read, is dispatched."""
        mouth = hand(calls=True).go_to(AuthState.GOT_HELLO)
        mouth.say(
            mouth.sealed(encode_auth()),
            mouth.sealed(encode_send_more_extended(200, 300_000)),
            mouth.sealed(encode_get_scp_state(7)),
        )
        self.assertEqual([m.body for m in mouth.side.messages], [encode_get_scp_state(7)])

    def test_hello_and_auth_in_one_read(self) -> None:
        """A callee that sends AUTH unasked, right behind HELLO, is understood."""
        mouth = hand(calls=False)
        mouth.say(mouth.hello(), mouth.sealed(encode_auth()))
        self.assertIsNone(mouth.side.reason)
        self.assertTrue(mouth.side.session.is_authenticated)

    def test_envelope_of_hello_is_not_looked_at(self) -> None:
        """Before there are keys, number and MAC of a HELLO mean nothing."""
        mouth = hand(calls=True)
        record = bytearray(mouth.hello())
        record[8:16], record[-32:] = b"\xff" * 8, b"\xaa" * 32
        mouth.say(bytes(record))
        self.assertIs(mouth.side.session.auth.state, AuthState.GOT_HELLO)

    def test_is_authenticated(self) -> None:
        """A session says so after AUTH in both roles, and not before."""
        for calls in (True, False):
            mouth = hand(calls=calls).go_to(AuthState.GOT_HELLO)
            self.assertFalse(mouth.side.session.is_authenticated)
            mouth.say(mouth.sealed(encode_auth()))
            self.assertTrue(mouth.side.session.is_authenticated)


class GateTests(SynchronousTestCase):
    """What the node is asked, when, and what the peer gets when it says no."""

    def test_order_of_questions_to_a_callee(self) -> None:
        """Ban, duplicate, duplicate again with the key proven, addresses to share, a slot."""
        gate = OpenGate(peers=SHARED)
        mouth = hand(calls=True, gate=gate).go_to(AuthState.GOT_HELLO)
        self.assertEqual(gate.asked, ["check_node", "check_hello"])
        mouth.say(mouth.sealed(encode_auth()))
        self.assertEqual(gate.asked[2:], ["settle_duplicate", "peers_to_send", "admit"])

    def test_order_of_questions_to_a_caller(self) -> None:
        """The same, but a caller shares no addresses."""
        gate = OpenGate(peers=SHARED)
        hand(calls=False, gate=gate).go_to(AuthState.GOT_AUTH)
        self.assertEqual(gate.asked, ["check_node", "check_hello", "settle_duplicate", "admit"])

    def _refuse(self, question: str, violation: PeerViolation, *, calls: bool) -> ByHand:
        gate = OpenGate(peers=SHARED, refuse={question: violation})
        mouth = hand(calls=calls, gate=gate)
        mouth.say(mouth.hello())
        if mouth.side.violation is None:
            mouth.say(mouth.sealed(encode_auth()))
        self.assertIs(mouth.side.violation, violation)
        self.assertEqual(gate.asked[-1], question)
        return mouth

    def test_refusals(self) -> None:
        """At each question, in each role: what was sent before, then ERROR_MSG if it has a code."""
        dup = DropReason.ALREADY_CONNECTED.violation(peer="GABCD")
        full, banned = DropReason.PEER_REJECTED.violation(), DropReason.BANNED.violation()
        dup_record = error_record(2, b"already-connected peer: GABCD")
        full_record = error_record(4, b"peer rejected")
        table = {
            ("check_node", True): (banned, [], b""),
            ("check_node", False): (banned, [HELLO], b""),
            ("check_hello", True): (dup, [HELLO], dup_record),
            ("check_hello", False): (dup, [HELLO], dup_record),
            ("settle_duplicate", True): (dup, [HELLO], dup_record),
            ("settle_duplicate", False): (dup, [HELLO, AUTH], dup_record),
            ("admit", True): (full, [HELLO, AUTH, PEERS], full_record),
            ("admit", False): (full, [HELLO, AUTH], full_record),
        }
        for (question, calls), (violation, before, last) in table.items():
            with self.subTest(question=question, calls=calls):
                mouth = self._refuse(question, violation, calls=calls)
                told = [ERROR_MSG] if last else []
                self.assertEqual([kind for kind, _, _ in mouth.heard], before + told)
                self.assertTrue(bytes(mouth.side.sent).endswith(last))
                self.assertFalse(mouth.side.session.is_authenticated)

    def test_unknown_address(self) -> None:
        """A callee whose peer has no address says nothing at all."""
        violation = DropReason.NO_REMOTE_ADDRESS.violation()
        self.assertEqual(self._refuse("check_node", violation, calls=True).heard, [])

    def test_refused_peer_was_never_authenticated(self) -> None:
        """Between the refusal of an AUTH and the close the session counts as no peer's."""
        for refused in ("settle_duplicate", "admit"):
            gate = OpenGate(refuse={refused: DropReason.PEER_REJECTED.violation()})
            mouth = hand(calls=True, gate=gate).go_to(AuthState.GOT_HELLO)
            received = mouth.side.session.receive(mouth.sealed(encode_auth()), 0.0)
            self.assertIsNotNone(received.violation)
            self.assertFalse(mouth.side.session.is_authenticated, refused)

    def test_what_a_rejected_caller_sees(self) -> None:
        """A caller that finds no slot gets AUTH and PEERS first: it may dial those instead."""
        gate = OpenGate(peers=SHARED, refuse={"admit": DropReason.PEER_REJECTED.violation()})
        pair = Pair(gates=(OpenGate(), gate))
        pair.settle()
        self.assertEqual([m.body for m in pair.caller.of_type(PEERS)], [encode_peers(SHARED)])
        self.assertEqual(pair.caller.reason, "ERR_LOAD (peer rejected)")
        self.assertEqual(pair.callee.reason, "peer rejected")

    def test_rejected_callee(self) -> None:
        """A caller without a slot tells its callee, which had let it in."""
        gate = OpenGate(refuse={"admit": DropReason.PEER_REJECTED.violation()})
        pair = Pair(gates=(gate, OpenGate()))
        pair.settle()
        self.assertEqual(pair.caller.kind, DropReason.PEER_REJECTED)
        self.assertEqual(pair.callee.reason, "ERR_LOAD (peer rejected)")

    def test_golden_error(self) -> None:
        """An ERROR_MSG is the documented bytes, zeros for number and MAC though there are keys."""
        mouth = hand(calls=True)
        mouth.say(mouth.hello(overlay_version=100, overlay_min_version=99))
        self.assertEqual(
            bytes(mouth.side.sent[-84:]).hex(),
            "8000005000000000000000000000000000000000000000020000001677726f6e672070726f746f636f"
            "6c2076657273696f6e0000" + "00" * 32,
        )


class AuthTests(SynchronousTestCase):
    """AUTH: only flags 200, and only once (connection.md 12, rows 21, 22 and 37)."""

    def test_flags(self) -> None:
        """Other flags are refused after the callee's AUTH and PEERS, before it looks for a slot."""
        for flags in (0, 100, 199, 201, -1, -(2**31), 2**31 - 1):
            gate = OpenGate(peers=SHARED)
            mouth = hand(calls=True, gate=gate).go_to(AuthState.GOT_HELLO)
            mouth.say(mouth.sealed(encode_auth(flags)))
            self.assertEqual(mouth.side.reason, "flow control bytes disabled", flags)
            self.assertEqual(types_and_numbers(mouth)[1:], [(AUTH, 0), (PEERS, 1), (ERROR_MSG, 0)])
            last = error_record(2, b"flow control bytes disabled")
            self.assertTrue(bytes(mouth.side.sent).endswith(last), flags)
            self.assertNotIn("admit", gate.asked)

    def test_flags_from_a_callee(self) -> None:
        """A caller that gets other flags says so and sends no grant."""
        mouth = hand(calls=False).go_to(AuthState.GOT_HELLO)
        mouth.say(mouth.sealed(encode_auth(100)))
        self.assertEqual([k for k, _, _ in mouth.heard], [HELLO, AUTH, ERROR_MSG])
        self.assertEqual(mouth.side.sent_error(), (2, b"flow control bytes disabled"))

    def test_duplicate_with_wrong_flags(self) -> None:
        """The duplicate is settled before the callee's AUTH, so it wins over the flags."""
        violation = DropReason.ALREADY_CONNECTED.violation(peer="GABCD")
        gate = OpenGate(peers=SHARED, refuse={"settle_duplicate": violation})
        mouth = hand(calls=True, gate=gate).go_to(AuthState.GOT_HELLO)
        mouth.say(mouth.sealed(encode_auth(100)))
        self.assertIs(mouth.side.violation, violation)

    def test_wrong_flags_without_a_slot(self) -> None:
        """Flags are looked at before slots."""
        gate = OpenGate(refuse={"admit": DropReason.PEER_REJECTED.violation()})
        for calls in (True, False):
            mouth = hand(calls=calls, gate=gate).go_to(AuthState.GOT_HELLO)
            mouth.say(mouth.sealed(encode_auth(100)))
            self.assertIs(mouth.side.kind, DropReason.BAD_AUTH_FLAGS)
