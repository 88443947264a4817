"""Two contexts that authenticate without any transport, and every wrong order of their steps."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import CryptoError, DropReason, ErrorCode, PeerViolation
from stellar_overlay.identity import LocalNode
from stellar_overlay.wire.auth import AuthContext, AuthState, SessionIdentity
from stellar_overlay.wire.channel import wrap_unauthenticated
from stellar_overlay.wire.message import (
    Hello,
    Message,
    MessageType,
    encode_auth,
    encode_error,
    encode_get_scp_state,
)
from tests.builders import advert, get_tx_set, make_node


def contexts(
    caller: LocalNode | None = None, callee: LocalNode | None = None
) -> tuple[AuthContext, AuthContext]:
    """Return who dials and who is dialled; by default nodes 1 and 2."""
    return (
        AuthContext(caller or make_node(1), True),
        AuthContext(callee or make_node(2), False),
    )


def carry(sender: AuthContext, receiver: AuthContext, message: Message) -> Message:
    """Send a message through both ends of the channel."""
    return receiver.unwrap_message(sender.wrap_message(message))


def authenticated() -> tuple[AuthContext, AuthContext]:
    """Return two contexts that have shaken hands, in core's order."""
    caller, callee = contexts()
    callee.process_hello(carry(caller, callee, caller.create_hello()))
    caller.process_hello(carry(callee, caller, callee.create_hello()))
    callee.process_auth(carry(caller, callee, caller.create_auth()))
    caller.process_auth(carry(callee, caller, callee.create_auth()))
    return caller, callee


def hello_of(context: AuthContext, **changes: object) -> Message:
    """Return a context's HELLO with some fields changed, its certificate as it was."""
    hello = Hello.decode(context.create_hello().body)
    return Message(replace(hello, **changes).encode())  # type: ignore[arg-type]


class AuthTestCase(SynchronousTestCase):
    """Asserts how a step of the handshake ends."""

    def assert_violation(
        self, reason: DropReason, call: Callable[..., object], *args: object
    ) -> PeerViolation:
        with self.assertRaises(PeerViolation) as caught:
            call(*args)
        violation: PeerViolation = caught.exception
        self.assertIs(violation.kind, reason)
        self.assertEqual((violation.reason, violation.code), (reason.text, reason.code))
        return violation


class HandshakeTests(AuthTestCase):
    """Two contexts, step by step."""

    def test_both_roles_authenticate(self) -> None:
        """After HELLO and AUTH both ways each side knows the other, and only then."""
        caller, callee = contexts()
        for context in (caller, callee):
            self.assertEqual((context.state, context.peer_id), (AuthState.CONNECTED, None))
        callee.process_hello(caller.create_hello())
        caller.process_hello(callee.create_hello())
        self.assertEqual([c.state for c in (caller, callee)], [AuthState.GOT_HELLO] * 2)
        self.assertFalse(caller.is_authenticated or callee.is_authenticated)
        callee.process_auth(caller.create_auth())
        self.assertEqual((callee.is_authenticated, caller.is_authenticated), (True, False))
        caller.process_auth(callee.create_auth())
        self.assertEqual((callee.is_authenticated, caller.is_authenticated), (True, True))
        self.assertEqual(caller.peer_id, callee.local_node.peer_id)
        self.assertEqual(callee.peer_id, caller.local_node.peer_id)

    def test_thousands_of_messages(self) -> None:
        """Messages go through unchanged, in both directions at once, by the thousand."""
        caller, callee = authenticated()
        for number in range(3000):
            for sender, receiver in ((caller, callee), (callee, caller)):
                message = Message(encode_get_scp_state(number))
                record = sender.wrap_message(message)
                self.assertEqual(struct.unpack_from(">IQ", record), (0, number + 1))
                self.assertEqual(receiver.unwrap_message(record), message)

    def test_directions_count_alone(self) -> None:
        """A thousand messages one way leave the other way's numbers where they were."""
        caller, callee = authenticated()
        for number in range(1000):
            carry(caller, callee, advert(number))
        self.assertEqual(carry(callee, caller, get_tx_set()), get_tx_set())

    def test_hello_and_error_use_up_no_number(self) -> None:
        """HELLO and ERROR_MSG have number 0 and a zero MAC, also between sealed messages."""
        caller, callee = authenticated()
        for message in (caller.create_hello(), Message(encode_error(0, "x"))):
            record = caller.wrap_message(message)
            self.assertEqual(record, bytes(12) + message.body + bytes(32))
        self.assertEqual(carry(caller, callee, advert()), advert())

    def test_wrap_before_hello(self) -> None:
        """Before the peer's HELLO there is no key: only HELLO and ERROR_MSG can be wrapped."""
        caller, callee = contexts()
        for context in (caller, callee):
            context.wrap_message(context.create_hello())
            context.wrap_message(Message(encode_error(0, "")))
            for message in (context.create_auth(), advert()):
                with self.assertRaises(CryptoError):
                    context.wrap_message(message)

    def test_reflected_messages(self) -> None:
        """What a node said itself is not taken for the peer's: each direction has its key."""
        caller, callee = authenticated()
        record = caller.wrap_message(advert())
        self.assert_violation(DropReason.UNEXPECTED_MAC, caller.unwrap_message, record)
        self.assertEqual(callee.unwrap_message(record), advert())

    def test_replayed_connection(self) -> None:
        """A recorded HELLO passes again, but the AUTH recorded with it fails: nonces differ."""
        caller, callee = contexts()
        callee.process_hello(caller.create_hello())
        caller.process_hello(callee.create_hello())
        recorded = caller.create_hello(), caller.wrap_message(caller.create_auth())
        again = AuthContext(callee.local_node, False)
        again.process_hello(recorded[0])
        self.assert_violation(DropReason.UNEXPECTED_MAC, again.unwrap_message, recorded[1])

    def test_session_key_is_shared_by_connections(self) -> None:
        """Connections of one process share key and certificate, but never the nonce."""
        node = make_node(1)
        identity = SessionIdentity(node)
        hellos = [
            Hello.decode(AuthContext(node, True, identity=identity).create_hello().body)
            for _ in range(2)
        ]
        self.assertEqual(hellos[0].cert, hellos[1].cert)
        self.assertNotEqual(hellos[0].nonce, hellos[1].nonce)


class OrderTests(AuthTestCase):
    """Every message at a wrong moment (rows 21-23; H3; Y3, Y4)."""

    def test_auth_before_hello(self) -> None:
        """Row 21: nothing is verified yet, and AUTH is out of order."""
        for sender, receiver in (contexts(), contexts()[::-1]):
            auth = sender.create_auth()
            record = wrap_unauthenticated(auth.body)
            self.assert_violation(DropReason.AUTH_OUT_OF_ORDER, receiver.unwrap_message, record)
            self.assert_violation(DropReason.AUTH_OUT_OF_ORDER, receiver.process_auth, auth)
            self.assertIs(receiver.state, AuthState.CONNECTED)

    def test_nothing_unverified_is_given_out(self) -> None:
        """Row 24: before there are keys only HELLO and ERROR_MSG can be unwrapped."""
        for kind in MessageType:
            for receiver in contexts():
                record = wrap_unauthenticated(kind.to_bytes(4, "big") + bytes(32))
                if kind in (MessageType.HELLO, MessageType.ERROR_MSG):
                    self.assertIs(receiver.unwrap_message(record).type, kind)
                elif kind is not MessageType.AUTH:
                    violation = self.assertRaises(PeerViolation, receiver.unwrap_message, record)
                    self.assertIs(violation.kind, DropReason.TOO_EARLY)
                    self.assertEqual(
                        str(violation), f"received {kind.name} before completed handshake"
                    )
                    self.assertIsNone(violation.code)

    def test_goes_on_after_what_came_too_early(self) -> None:
        """What came out of turn harms nothing: the handshake can still be completed."""
        caller, callee = contexts()
        for message in (advert(), caller.create_auth()):
            with self.assertRaises(PeerViolation):
                callee.unwrap_message(wrap_unauthenticated(message.body))
        callee.process_hello(carry(caller, callee, caller.create_hello()))
        caller.process_hello(carry(callee, caller, callee.create_hello()))
        callee.process_auth(carry(caller, callee, caller.create_auth()))
        self.assertTrue(callee.is_authenticated)

    def test_second_auth(self) -> None:
        """Row 22: a second AUTH with a right MAC is out of order."""
        caller, callee = authenticated()
        for sender, receiver in ((caller, callee), (callee, caller)):
            message = carry(sender, receiver, sender.create_auth())
            self.assert_violation(DropReason.AUTH_OUT_OF_ORDER, receiver.process_auth, message)

    def test_second_hello_without_mac(self) -> None:
        """Row 23: a second HELLO as the first was sent fails as unauthentic."""
        caller, callee = contexts()
        callee.process_hello(caller.create_hello())
        record = caller.wrap_message(caller.create_hello())
        self.assert_violation(DropReason.UNEXPECTED_MAC, callee.unwrap_message, record)
        caller, callee = authenticated()
        self.assert_violation(DropReason.UNEXPECTED_SEQUENCE, callee.unwrap_message, record)

    def test_second_hello_changes_nothing(self) -> None:
        """Row 23, Y4: a second HELLO is unexpected, and keys, peer and numbers stay."""
        for is_authenticated in (False, True):
            caller, callee = authenticated() if is_authenticated else contexts()
            if not is_authenticated:
                callee.process_hello(caller.create_hello())
                caller.process_hello(callee.create_hello())
            keys = callee.sealing, callee.opening, callee.remote
            for other in (caller, AuthContext(make_node(3), True)):
                hello = other.create_hello()
                self.assert_violation(DropReason.UNEXPECTED_HELLO, callee.process_hello, hello)
            self.assertEqual((callee.sealing, callee.opening, callee.remote), keys)
            self.assertEqual(callee.peer_id, caller.local_node.peer_id)
            self.assertEqual(carry(caller, callee, advert()), advert())

    def test_auth_with_a_bad_mac(self) -> None:
        """Y3: there are keys since HELLO, so that a forged AUTH is refused as such."""
        caller, callee = contexts()
        callee.process_hello(caller.create_hello())
        caller.process_hello(callee.create_hello())
        record = bytearray(caller.wrap_message(caller.create_auth()))
        record[-1] ^= 1
        self.assert_violation(DropReason.UNEXPECTED_MAC, callee.unwrap_message, bytes(record))
        self.assertFalse(callee.is_authenticated)

    def test_other_message_instead(self) -> None:
        """What is no HELLO is no HELLO, and what is no AUTH is no AUTH."""
        caller, callee = contexts()
        self.assert_violation(DropReason.CORRUPT_XDR, callee.process_hello, caller.create_auth())
        caller, callee = contexts()
        callee.process_hello(caller.create_hello())
        self.assert_violation(DropReason.CORRUPT_XDR, callee.process_auth, advert())
        self.assertFalse(callee.is_authenticated)

    def test_auth_flags(self) -> None:
        """Row 37: any flags but 200 are refused, and the peer is not authenticated by them."""
        for flags in (0, 1, 100, 199, 201, -1, 2**31 - 1, -(2**31)):
            caller, callee = contexts()
            callee.process_hello(caller.create_hello())
            message = Message(encode_auth(flags))
            self.assert_violation(DropReason.BAD_AUTH_FLAGS, callee.process_auth, message)
            self.assertFalse(callee.is_authenticated)
            good = caller.create_auth()
            self.assert_violation(DropReason.AUTH_OUT_OF_ORDER, callee.process_auth, good)
            self.assertFalse(callee.is_authenticated)

    def test_error_is_read_in_every_state(self) -> None:
        """Row 19: ERROR_MSG comes through before HELLO, between, and after AUTH."""
        error = Message(encode_error(ErrorCode.ERR_LOAD, "peer rejected"))
        caller, callee = contexts()
        record = bytes(4) + b"\xff" * 8 + error.body + b"\xff" * 32
        seen = [callee.unwrap_message(record)]
        callee.process_hello(caller.create_hello())
        seen.append(callee.unwrap_message(record))
        seen.append(authenticated()[1].unwrap_message(record))
        self.assertEqual(seen, [error] * 3)
        self.assertEqual(error.type, MessageType.ERROR_MSG)


class RefusedTests(AuthTestCase):
    """A failure leaves a context that is used alone of no use, as it ends a connection."""

    def test_bad_hello(self) -> None:
        """After a HELLO that was refused for whatever reason, a good one is not taken."""
        for changes in (
            {"version_string": bytes(101)},
            {"nonce": bytes(28)},
            {"network_id": bytes(32)},
            {"node_key": make_node(3).peer_id.key},
            {"listening_port": 0},
        ):
            caller, callee = contexts()
            with self.assertRaises(PeerViolation):
                callee.process_hello(hello_of(caller, **changes))
            self.assertIs(callee.state, AuthState.REFUSED)
            hello = caller.create_hello()
            self.assert_violation(DropReason.UNEXPECTED_HELLO, callee.process_hello, hello)
            auth = caller.create_auth()
            self.assert_violation(DropReason.AUTH_OUT_OF_ORDER, callee.process_auth, auth)
            self.assertFalse(callee.is_authenticated)

    def test_bad_record(self) -> None:
        """After a forged, skipped or corrupt record the peer is authenticated no more."""
        for spoil in (
            lambda record: record[:-1] + bytes([record[-1] ^ 1]),
            lambda record: record[:11] + bytes([record[11] + 1]) + record[12:],
            lambda record: record + b"\0",
        ):
            caller, callee = authenticated()
            record = caller.wrap_message(advert())
            with self.assertRaises(PeerViolation):
                callee.unwrap_message(spoil(record))
            self.assertIs(callee.state, AuthState.REFUSED)
            self.assertFalse(callee.is_authenticated)
            self.assert_violation(DropReason.UNEXPECTED_MAC, callee.unwrap_message, record)
            error = Message(encode_error(ErrorCode.ERR_AUTH, "unexpected MAC"))
            self.assertEqual(carry(caller, callee, error), error)

    def test_bad_first_record(self) -> None:
        """A corrupt record before HELLO is a failure like any other."""
        caller, callee = contexts()
        self.assert_violation(DropReason.CORRUPT_XDR, callee.unwrap_message, bytes(44))
        hello = caller.create_hello()
        self.assert_violation(DropReason.UNEXPECTED_HELLO, callee.process_hello, hello)
