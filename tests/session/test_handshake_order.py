"""What a HELLO may say, and which of two faults in one HELLO is the one that counts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import DropReason
from stellar_overlay.wire.auth import AuthState
from stellar_overlay.wire.message import Hello, MessageType
from tests.builders import WALL_NOW, OpenGate, make_cert, make_node
from tests.by_hand import ByHand
from tests.pair import Pair

FOREIGN = b"\x11" * 32
"""Another network's id."""
LOW_ORDER_POINTS = tuple(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Session keys with which the shared secret is zero (https://cr.yp.to/ecdh.html#validate)."""

ORDER = (
    DropReason.CORRUPT_XDR,
    DropReason.BAD_CERT,
    DropReason.BANNED,
    DropReason.BAD_CRYPTO,
    DropReason.WRONG_VERSION,
    DropReason.SELF,
    DropReason.WRONG_NETWORK,
    DropReason.BAD_ADDRESS,
    DropReason.ALREADY_CONNECTED,
)
"""What can be wrong with a HELLO, as it is looked at: structure (DECISIONS 3), then 4.3."""
TOLD = {
    DropReason.CORRUPT_XDR: (1, b"received corrupt XDR"),
    DropReason.WRONG_VERSION: (2, b"wrong protocol version"),
    DropReason.SELF: (2, b"connecting to self"),
    DropReason.WRONG_NETWORK: (2, b"wrong network passphrase"),
    DropReason.BAD_ADDRESS: (2, b"bad address"),
    DropReason.ALREADY_CONNECTED: (2, b"already-connected peer: GABCD"),
}
"""Code and text of the ERROR_MSG; the others are silent."""


def judge(*faults: DropReason, calls: bool) -> ByHand:
    """Say a HELLO with these faults to a session; return what came of it."""
    asked = (("check_node", DropReason.BANNED), ("check_hello", DropReason.ALREADY_CONNECTED))
    refuse = {question: kind.violation(peer="GABCD") for question, kind in asked if kind in faults}
    node = make_node(1 if DropReason.SELF in faults else 2)
    gates = (OpenGate(refuse=refuse), OpenGate(refuse=refuse))
    nodes = (node, make_node(1)) if calls else (make_node(1), node)
    mouth = ByHand(Pair(*nodes, gates=gates), calls=calls)
    hello = Hello.decode(mouth.auth.create_hello().body)
    if DropReason.BAD_CRYPTO in faults:
        hello = replace(hello, cert=make_cert(node, LOW_ORDER_POINTS[0]))
    if DropReason.BAD_CERT in faults:
        first, *rest = hello.cert.signature
        hello = replace(hello, cert=replace(hello.cert, signature=bytes((first ^ 1, *rest))))
    if DropReason.WRONG_VERSION in faults:
        hello = replace(hello, overlay_version=44, overlay_min_version=43)
    if DropReason.WRONG_NETWORK in faults:
        hello = replace(hello, network_id=FOREIGN)
    if DropReason.BAD_ADDRESS in faults:
        hello = replace(hello, listening_port=0)
    mouth.say(mouth.plain(hello.encode() + bytes(4 * (DropReason.CORRUPT_XDR in faults))))
    return mouth


class OrderTests(SynchronousTestCase):
    """The checks of a HELLO one by one, and each two of them together."""

    def test_each_alone(self) -> None:
        """Each fault has its reason, in both roles; a good HELLO has none."""
        for calls in (True, False):
            self.assertIsNone(judge(calls=calls).side.kind)
            for fault in ORDER:
                self.assertIs(judge(fault, calls=calls).side.kind, fault, f"{calls=}")

    def test_each_two(self) -> None:
        """Of two faults the one that is looked at first is the reason, in both roles."""
        for calls in (True, False):
            for earlier, later in combinations(ORDER, 2):
                kind = judge(earlier, later, calls=calls).side.kind
                self.assertIs(kind, earlier, f"{earlier.name} and {later.name}, {calls=}")

    def test_what_a_callee_says(self) -> None:
        """A callee says HELLO before ERR_CONF, nothing before a silent drop or ERR_DATA."""
        for fault in ORDER:
            mouth = judge(fault, calls=True)
            hello = [] if fault in ORDER[:4] else [MessageType.HELLO]
            error = [MessageType.ERROR_MSG] if fault in TOLD else []
            self.assertEqual([kind for kind, _, _ in mouth.heard], hello + error, fault.name)
            self.assertEqual(mouth.side.sent_error(), TOLD.get(fault), fault.name)

    def test_what_a_caller_says(self) -> None:
        """A caller, which said HELLO long ago, adds ERROR_MSG or nothing, and never AUTH."""
        for fault in ORDER:
            mouth = judge(fault, calls=False)
            error = [MessageType.ERROR_MSG] if fault in TOLD else []
            self.assertEqual(
                [kind for kind, _, _ in mouth.heard], [MessageType.HELLO, *error], fault.name
            )
            self.assertEqual(mouth.side.sent_error(), TOLD.get(fault), fault.name)


class HelloTests(SynchronousTestCase):
    """What each field may say (connection.md 12, rows 26 to 35)."""

    def _say(self, **changes: object) -> ByHand:
        mouth = ByHand(Pair(make_node(2), make_node(1)))
        mouth.say(mouth.hello(**changes))
        return mouth

    def _say_cert(
        self, *, left: int = 3600, network_id: bytes | None = None, number: int = 2
    ) -> ByHand:
        mouth = ByHand(Pair(make_node(2), make_node(1)))
        key = Hello.decode(mouth.auth.create_hello().body).cert.public_key
        expiration = int(WALL_NOW) + left
        cert = make_cert(make_node(number), key, expiration=expiration, network_id=network_id)
        mouth.say(mouth.hello(cert=cert))
        return mouth

    def _assert_silent(self, mouth: ByHand, kind: DropReason) -> None:
        self.assertIs(mouth.side.kind, kind)
        self.assertEqual(bytes(mouth.side.sent), b"")

    def test_expiration(self) -> None:
        """A certificate holds up to the second in which it expires, however far that is (26)."""
        self._assert_silent(self._say_cert(left=-1), DropReason.BAD_CERT)
        self._assert_silent(self._say_cert(left=-int(WALL_NOW)), DropReason.BAD_CERT)
        for left in (0, 1, 32_503_680_000, 2**64 - 1 - int(WALL_NOW)):
            self.assertIsNone(self._say_cert(left=left).side.kind, left)

    def test_signer(self) -> None:
        """Another node's signature does not hold, nor one for another network (27)."""
        self._assert_silent(self._say_cert(number=3), DropReason.BAD_CERT)
        self._assert_silent(self._say_cert(network_id=FOREIGN), DropReason.BAD_CERT)

    def test_signature_length(self) -> None:
        """A signature of any length but 64 does not hold (27)."""
        mouth = ByHand()
        cert = Hello.decode(mouth.auth.create_hello().body).cert
        for length in (0, 1, 32, 63):
            mouth = self._say(cert=replace(cert, signature=cert.signature[:length]))
            self._assert_silent(mouth, DropReason.BAD_CERT)

    def test_node_key_that_is_no_point(self) -> None:
        """A node id that is no Ed25519 key cannot have signed anything."""
        for key in (bytes(32), b"\xff" * 32, b"\x02" + bytes(31)):
            self._assert_silent(self._say(node_key=key), DropReason.BAD_CERT)

    def test_low_order_keys(self) -> None:
        """No session key gives the shared secret zero, in either role (29)."""
        for point in LOW_ORDER_POINTS:
            for calls in (True, False):
                mouth = ByHand(Pair(make_node(2), make_node(2)), calls=calls)
                before = len(mouth.heard)
                mouth.say(mouth.hello(cert=make_cert(make_node(2), point)))
                self.assertEqual(mouth.side.reason, "Bad crypto request", point.hex())
                self.assertEqual(len(mouth.heard), before)

    def test_versions(self) -> None:
        """Ranges must overlap with 38..42 and not be upside down (30)."""
        for low, high in ((38, 42), (1, 38), (42, 99), (0, 2**32 - 1), (40, 40)):
            self.assertIsNone(self._say(overlay_min_version=low, overlay_version=high).side.kind)
        for low, high in ((37, 37), (0, 0), (43, 43), (43, 99), (42, 41), (2**32 - 1, 0)):
            mouth = self._say(overlay_min_version=low, overlay_version=high)
            self.assertEqual(mouth.side.sent_error(), (2, b"wrong protocol version"), (low, high))

    def test_versions_are_named(self) -> None:
        """The log says what each side speaks (DECISIONS 1)."""
        violation = self._say(overlay_min_version=43, overlay_version=44).side.violation
        assert violation is not None
        self.assertEqual(violation.detail, "the peer speaks overlay 43..44, we speak 38..42")

    def test_ports(self) -> None:
        """A port is 1 to 65535; the field is signed (33)."""
        for port in (1, 11625, 65535):
            self.assertIsNone(self._say(listening_port=port).side.kind, port)
        for port in (0, -1, -(2**31), 65536, 2**31 - 1):
            mouth = self._say(listening_port=port)
            self.assertEqual(mouth.side.sent_error(), (2, b"bad address"), port)

    def test_what_nobody_looks_at(self) -> None:
        """Any ledger version, any bytes in versionStr and any nonce are fine (35)."""
        for changes in (
            {"ledger_version": 0},
            {"ledger_version": 2**32 - 1},
            {"version_string": b""},
            {"version_string": b"\0\xff\n{}%s" * 12},
            {"version_string": b"x" * 100},
            {"nonce": bytes(32)},
        ):
            self.assertIs(self._say(**changes).side.session.auth.state, AuthState.GOT_HELLO)

    def test_repeated_nonce(self) -> None:
        """A nonce seen before, even the session's own, is fine (35)."""
        mouth = ByHand(calls=False)
        own = Hello.decode(mouth.heard[0][2]).nonce
        mouth.pair.feed(mouth.side, mouth.hello(nonce=own))
        self.assertIs(mouth.side.session.auth.state, AuthState.GOT_HELLO)

    def test_foreign_network_field(self) -> None:
        """A foreign network id under a certificate for ours is told so (32)."""
        mouth = self._say(network_id=FOREIGN)
        self.assertEqual(mouth.side.sent_error(), (2, b"wrong network passphrase"))
