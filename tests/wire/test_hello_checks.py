"""What is refused in a HELLO, in core's order, and what is not looked at (connection.md 4.3)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from stellar_overlay.error import DropReason
from stellar_overlay.identity import PUBNET_PASSPHRASE, TESTNET_PASSPHRASE, LocalNode, network_id
from stellar_overlay.wire.auth import AuthContext, AuthState, SessionIdentity
from stellar_overlay.wire.message import AuthCert, Hello, Message
from tests.builders import WALL_NOW, deterministic_bytes, given_bytes, make_cert, make_node
from tests.wire.test_auth import AuthTestCase, contexts, hello_of
from tests.wire.test_certificate import LOW_ORDER, NOW, make_secret

ROLES = {"caller": True, "callee": False}


def cert_of(context: AuthContext) -> AuthCert:
    """Return the certificate that a context's HELLO carries."""
    return Hello.decode(context.create_hello().body).cert


def node_at(now: float) -> LocalNode:
    """Return node 1, whose wall clock stands still."""
    return make_node(1, wall_clock=lambda: now)


class HelloTestCase(AuthTestCase):
    """Asserts what becomes of a HELLO, whichever side it comes from."""

    def assert_refused(
        self, reason: DropReason, us: LocalNode, peer: LocalNode, **changes: object
    ) -> None:
        for name, we_called_remote in ROLES.items():
            ours, theirs = (
                AuthContext(us, we_called_remote),
                AuthContext(peer, not we_called_remote),
            )
            hello = hello_of(theirs, **changes)
            self.assert_violation(reason, ours.process_hello, hello)
            self.assertFalse(ours.is_authenticated, name)
            self.assert_violation(
                DropReason.AUTH_OUT_OF_ORDER, ours.process_auth, theirs.create_auth()
            )

    def assert_accepted(self, us: LocalNode, peer: LocalNode, **changes: object) -> None:
        for name, we_called_remote in ROLES.items():
            ours, theirs = (
                AuthContext(us, we_called_remote),
                AuthContext(peer, not we_called_remote),
            )
            hello = hello_of(theirs, **changes)
            self.assertEqual(ours.process_hello(hello), Hello.decode(hello.body), name)
            self.assertIs(ours.state, AuthState.GOT_HELLO)
            self.assertEqual(ours.remote, Hello.decode(hello.body))
            self.assertEqual(ours.peer_id, peer.peer_id)


class CertificateCheckTests(HelloTestCase):
    """Silent refusals for the certificate (rows 26-29; H7, H8)."""

    def setUp(self) -> None:
        self.us, self.peer = make_node(1), make_node(2)

    def signed(self, expiration: int) -> AuthCert:
        return make_cert(self.peer, b"\x09" + bytes(31), expiration=expiration)

    def test_expired(self) -> None:
        """Row 26: expired a second ago is too late, this very second is not."""
        self.assert_refused(DropReason.BAD_CERT, self.us, self.peer, cert=self.signed(NOW - 1))
        self.assert_accepted(self.us, self.peer, cert=self.signed(NOW))

    def test_far_future(self) -> None:
        """Row 26: the year 3000, milliseconds and the end of time are accepted."""
        for expiration in (32_503_680_000, NOW * 1000, 2**64 - 1):
            self.assert_accepted(self.us, self.peer, cert=self.signed(expiration))

    def test_clock_of_the_peer_is_behind(self) -> None:
        """Row 26: a clock 30 minutes behind is always good enough, one beyond 60 never."""
        for behind, age, is_good in (
            (1800, 1800, True),
            (1801, 1800, False),
            (1801, 0, True),
            (3600, 0, True),
            (3601, 0, False),
        ):
            times = iter((WALL_NOW, WALL_NOW + age))
            slow = make_node(2, wall_clock=partial(next, times))
            identity = SessionIdentity(slow)
            identity.certificate()
            hello = AuthContext(slow, True, identity=identity).create_hello()
            ours = AuthContext(node_at(WALL_NOW + age + behind), False)
            if is_good:
                ours.process_hello(hello)
            else:
                violation = self.assert_violation(DropReason.BAD_CERT, ours.process_hello, hello)
                self.assertEqual(violation.detail, "expired 1 s ago")

    def test_other_network(self) -> None:
        """Row 27, H7: a certificate for another network is void; the networks are not compared."""
        stranger = make_node(2, passphrase=PUBNET_PASSPHRASE)
        self.assert_refused(DropReason.BAD_CERT, self.us, stranger)
        self.assert_refused(DropReason.BAD_CERT, self.us, stranger, network_id=self.us.network_id)

    def test_damaged(self) -> None:
        """H8: a second more than was signed, or another key, voids the certificate."""
        cert = cert_of(AuthContext(self.peer, True))
        for bad in (
            replace(cert, expiration=cert.expiration + 1),
            replace(cert, public_key=b"\x09" + bytes(31)),
            replace(cert, signature=cert.signature[::-1]),
        ):
            self.assert_refused(DropReason.BAD_CERT, self.us, self.peer, cert=bad)

    def test_other_signer(self) -> None:
        """Row 27: nobody can speak for a node with a certificate of his own."""
        thief = make_node(3)
        cert = cert_of(AuthContext(thief, True))
        self.assert_refused(DropReason.BAD_CERT, self.us, self.peer, cert=cert)
        self.assert_refused(DropReason.BAD_CERT, self.us, thief, node_key=self.peer.peer_id.key)

    def test_signature_length(self) -> None:
        """Row 27: up to 63 bytes are no signature; row 10: 65 and more are corrupt XDR."""
        cert = cert_of(AuthContext(self.peer, True))
        for length in (0, 1, 63):
            short = replace(cert, signature=cert.signature[:length])
            self.assert_refused(DropReason.BAD_CERT, self.us, self.peer, cert=short)
        for length in (65, 68, 128):
            long = replace(cert, signature=(cert.signature * 2)[:length])
            self.assert_refused(DropReason.CORRUPT_XDR, self.us, self.peer, cert=long)

    def test_low_order_session_key(self) -> None:
        """Row 29: a session key that shares no secret is refused silently, though well signed."""
        for point in LOW_ORDER:
            cert = make_cert(self.peer, point)
            self.assert_refused(DropReason.BAD_CRYPTO, self.us, self.peer, cert=cert)

    def test_low_order_leaves_no_keys(self) -> None:
        """After such a HELLO there are no keys, and nothing can be sealed or opened."""
        caller, callee = contexts()
        hello = hello_of(caller, cert=make_cert(caller.local_node, bytes(32)))
        self.assert_violation(DropReason.BAD_CRYPTO, callee.process_hello, hello)
        self.assertEqual((callee.sealing, callee.opening), (None, None))


class PeerCheckTests(HelloTestCase):
    """Refusals that the peer is told (rows 30-33; H2, H9, H10)."""

    def test_versions(self) -> None:
        """Row 30, H9: the ranges must overlap, and the peer's must be one."""
        us = make_node(1, overlay=(38, 42))
        for low, high, is_good in (
            (37, 37, False),
            (0, 37, False),
            (43, 43, False),
            (43, 2**32 - 1, False),
            (42, 41, False),  # no range, though each end is within ours
            (50, 30, False),
            (38, 38, True),
            (42, 42, True),
            (0, 38, True),
            (42, 99, True),
            (39, 41, True),
            (0, 2**32 - 1, True),
        ):
            changes = {"overlay_min_version": low, "overlay_version": high}
            if is_good:
                self.assert_accepted(us, make_node(2), **changes)
            else:
                self.assert_refused(DropReason.WRONG_VERSION, us, make_node(2), **changes)

    def test_versions_are_configured(self) -> None:
        """Row 30 with core's own range: 38..40 is refused by a node that speaks 41..42."""
        us, peer = make_node(1, overlay=(41, 42)), make_node(2, overlay=(38, 40))
        self.assert_refused(DropReason.WRONG_VERSION, us, peer)
        self.assert_refused(DropReason.WRONG_VERSION, peer, us)
        self.assert_accepted(us, make_node(2, overlay=(38, 41)))

    def test_version_violation_says_what_each_side_wants(self) -> None:
        """Our log names both ranges; the peer is told core's words."""
        caller, callee = contexts(make_node(1, overlay=(30, 31)))
        violation = self.assert_violation(
            DropReason.WRONG_VERSION, callee.process_hello, caller.create_hello()
        )
        self.assertEqual(violation.detail, "the peer speaks overlay 30..31, we speak 38..42")

    def test_ourselves(self) -> None:
        """Row 31, H10: our own node id is refused, from either side."""
        twin = LocalNode(
            TESTNET_PASSPHRASE,
            b"\1" * 32,
            wall_clock=lambda: WALL_NOW,
            token_bytes=deterministic_bytes(99),
        )
        self.assert_refused(DropReason.SELF, make_node(1), twin)

    def test_reflected_hello(self) -> None:
        """Our own HELLO sent back to us is from ourselves."""
        caller, _ = contexts()
        self.assert_violation(DropReason.SELF, caller.process_hello, caller.create_hello())

    def test_other_network_id(self) -> None:
        """Row 32: a foreign networkID with a certificate for ours is told."""
        for foreign in (bytes(32), network_id(PUBNET_PASSPHRASE)):
            self.assert_refused(
                DropReason.WRONG_NETWORK, make_node(1), make_node(2), network_id=foreign
            )

    def test_listening_port(self) -> None:
        """Row 33, H2: a port outside 1..65535 is a bad address."""
        for port in (0, -1, -(2**31), 65536, 2**31 - 1):
            self.assert_refused(
                DropReason.BAD_ADDRESS, make_node(1), make_node(2), listening_port=port
            )
        for port in (1, 11625, 65535):
            self.assert_accepted(make_node(1), make_node(2), listening_port=port)

    def test_not_looked_at(self) -> None:
        """Row 35: strange ledger versions, version strings and nonces are accepted."""
        us, peer = make_node(1), make_node(2)
        for version in (0, 1, 2**32 - 1):
            self.assert_accepted(us, peer, ledger_version=version)
        for text in (b"", b"\0" * 100, bytes(range(128, 228)), b"\x1b[31m%s{0}\r\n"):
            self.assert_accepted(us, peer, version_string=text)
        for nonce in (bytes(32), b"\xff" * 32):
            self.assert_accepted(us, peer, nonce=nonce)

    def test_repeated_nonce(self) -> None:
        """Row 35: a peer that uses our own nonce, or its last one, gets working keys."""
        caller, callee = contexts()
        theirs = Hello.decode(callee.create_hello().body).nonce
        hello = hello_of(caller, nonce=theirs)
        for _ in range(2):
            again = AuthContext(callee.local_node, False)
            again.process_hello(hello)
            self.assertIs(again.state, AuthState.GOT_HELLO)

    def test_order_of_checks(self) -> None:
        """Of a HELLO in which all is wrong, the faults are named in core's order."""
        us = make_node(1)
        hello = Hello.decode(AuthContext(us, True).create_hello().body)
        good_cert = hello.cert
        hello = replace(
            hello,
            network_id=bytes(32),
            overlay_version=1,
            overlay_min_version=1,
            listening_port=0,
            cert=make_cert(us, bytes(32), expiration=NOW - 1),
        )
        mended: list[tuple[DropReason, dict[str, object]]] = [
            (DropReason.BAD_CERT, {"cert": make_cert(us, bytes(32))}),
            (DropReason.BAD_CRYPTO, {"cert": good_cert}),
            (DropReason.WRONG_VERSION, {"overlay_version": 42}),
            (DropReason.SELF, {"node_key": make_node(2).peer_id.key}),
            (DropReason.BAD_CERT, {"cert": cert_of(AuthContext(make_node(2), True))}),
            (DropReason.WRONG_NETWORK, {"network_id": us.network_id}),
            (DropReason.BAD_ADDRESS, {"listening_port": 1}),
        ]
        for reason, mend in mended:
            message = Message(hello.encode())
            self.assert_violation(reason, AuthContext(us, False).process_hello, message)
            hello = replace(hello, **mend)  # type: ignore[arg-type]
        AuthContext(us, False).process_hello(Message(hello.encode()))


class SecrecyTests(AuthTestCase):
    """Nothing secret is seen in what may end up in a log."""

    def test_reprs(self) -> None:
        """No repr of what takes part in a handshake holds a seed, secret or nonce."""
        seed, secret, nonce = (bytes([n]) * 32 for n in (0xE1, 0xE2, 0xE3))
        node = LocalNode(
            TESTNET_PASSPHRASE,
            seed,
            wall_clock=lambda: WALL_NOW,
            token_bytes=given_bytes(secret, nonce),
        )
        caller, callee = contexts(node)
        callee.process_hello(caller.create_hello())
        caller.process_hello(callee.create_hello())
        things = [node, SessionIdentity(make_secret(secret)), caller, callee, callee.remote]
        things += [caller.sealing, caller.opening, caller.create_hello()]
        shown = " ".join(f"{thing!r} {thing}" for thing in things)
        for hidden in (seed, secret, nonce):
            self.assertNotIn(hidden.hex(), shown.lower())
            self.assertNotIn(repr(hidden)[2:-1], shown)
        self.assertNotIn(node.secret_seed, shown)
        self.assertIn(str(node.peer_id), shown)
