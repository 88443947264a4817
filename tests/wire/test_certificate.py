"""Session keys and their certificates: known answers, what is good, when ours is renewed."""

from __future__ import annotations

import hmac
from dataclasses import replace
from functools import partial

from nacl.bindings import crypto_scalarmult
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import CryptoError
from stellar_overlay.identity import TESTNET_PASSPHRASE, LocalNode, PeerId, network_id
from stellar_overlay.wire.auth import (
    SessionIdentity,
    certificate_digest,
    is_valid_certificate,
    mac_key,
)
from stellar_overlay.wire.codec import frame
from stellar_overlay.wire.message import AuthCert, Hello, Message, encode_send_more_extended
from tests.builders import WALL_NOW, given_bytes, make_cert, make_node
from tests.wire.test_auth import contexts
from tests.wire.test_channel import A_AUTH, B_SEND_MORE, K_AB, K_BA

NOW = int(WALL_NOW)
Q = "9e004098efc091d4ec2663b4e9f5cfd4d7064571690b4bea97ab146ab9f35056"
K = "bd1478ae9d23064f6967c95102c47f8292b7219a5527c5a26ed500b98637207b"
P = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [
    (point | high << 255).to_bytes(32, "little")
    for point in (0, 1, *ORDER_8, P - 1, P, P + 1)
    for high in (0, 1)
]
"""Every encoding of a point of order 1, 2, 4 or 8: the last bit is ignored, P and P + 1 are not
reduced (libsodium's blocklist)."""


def make_secret(secret: bytes) -> LocalNode:
    """Return a node whose next session key has this X25519 secret."""
    return LocalNode(TESTNET_PASSPHRASE, b"\1" * 32, token_bytes=given_bytes(secret))


class KnownAnswerTests(SynchronousTestCase):
    """Every figure of connection.md 3.4."""

    def setUp(self) -> None:
        def node(seed: int, secret: int, nonce: int) -> LocalNode:
            return LocalNode(
                TESTNET_PASSPHRASE,
                bytes([seed]) * 32,
                version_string="stellar_overlay 0.1",
                overlay_min_version=41,
                wall_clock=lambda: 1_785_000_000 - 3600,
                token_bytes=given_bytes(bytes([secret]) * 32, bytes([nonce]) * 32),
            )

        self.a, self.b = contexts(node(0x01, 0x11, 0xAA), node(0x02, 0x22, 0xBB))
        self.a_pub = "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"
        self.b_pub = "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20"

    def test_identities(self) -> None:
        """Network id, node keys, their text and the session keys."""
        self.assertEqual(
            network_id(TESTNET_PASSPHRASE).hex(),
            "cee0302d59844d32bdca915c8203dd44b33fbb7edc19051ea37abedf28ecd472",
        )
        a_node, b_node = self.a.local_node.peer_id, self.b.local_node.peer_id
        self.assertEqual(
            (a_node.key.hex(), b_node.key.hex(), str(a_node)),
            (
                "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
                "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
                "GCFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYOJR",
            ),
        )
        hellos = [Hello.decode(context.create_hello().body) for context in (self.a, self.b)]
        self.assertEqual(
            [hello.cert.public_key.hex() for hello in hellos], [self.a_pub, self.b_pub]
        )
        self.assertEqual([hello.nonce for hello in hellos], [b"\xaa" * 32, b"\xbb" * 32])

    def test_certificate(self) -> None:
        """A's certificate: what is signed, and the signature."""
        cert = Hello.decode(self.a.create_hello().body).cert
        self.assertEqual(cert.expiration, 1_785_000_000)
        digest = certificate_digest(self.a.local_node.network_id, 1_785_000_000, cert.public_key)
        self.assertEqual(
            digest.hex(), "abf2d2d51c9772c8cac35b90b9b09a0f1e25df17ae18a842e3828ad37d949e1a"
        )
        self.assertEqual(
            cert.signature.hex(),
            "0c2a20ed874a3891029552b0ddea5cd68e616755fc8e9b1f8a443e6873c54e14"
            "78c8811e75860dfed62b6078dd5035845722dd2b1c29faa03086915cfc57400b",
        )

    def test_scalar_product(self) -> None:
        """q is the same from both ends, and K is its HMAC with both public keys, A's first."""
        pubs = bytes.fromhex(self.a_pub), bytes.fromhex(self.b_pub)
        for secret, pub in ((b"\x11" * 32, pubs[1]), (b"\x22" * 32, pubs[0])):
            q = crypto_scalarmult(secret, pub)
            self.assertEqual(q.hex(), Q)
            self.assertEqual(hmac.digest(bytes(32), q + pubs[0] + pubs[1], "sha256").hex(), K)

    def test_shared_key_and_mac_keys(self) -> None:
        """K is the same from both ends, and gives the two MAC keys."""
        a_pub, b_pub = bytes.fromhex(self.a_pub), bytes.fromhex(self.b_pub)
        nonces = b"\xaa" * 32, b"\xbb" * 32
        ends = (
            SessionIdentity(make_secret(b"\x11" * 32)).shared_key(b_pub, True),
            SessionIdentity(make_secret(b"\x22" * 32)).shared_key(a_pub, False),
        )
        for key in ends:
            self.assertEqual(key.hex(), K)
            a_to_b = mac_key(
                key, from_caller=True, sender_nonce=nonces[0], receiver_nonce=nonces[1]
            )
            b_to_a = mac_key(
                key, from_caller=False, sender_nonce=nonces[1], receiver_nonce=nonces[0]
            )
            self.assertEqual((a_to_b, b_to_a), (K_AB, K_BA))

    def test_shared_key_depends_on_who_called(self) -> None:
        """The same two nodes have another K when the other one dialled."""
        identity = SessionIdentity(make_secret(b"\x11" * 32))
        b_pub = bytes.fromhex(self.b_pub)
        self.assertNotEqual(identity.shared_key(b_pub, True), identity.shared_key(b_pub, False))

    def test_hello(self) -> None:
        """A's HELLO has 252 bytes, 300 on the wire, and the known beginning."""
        record = frame(self.a.wrap_message(self.a.create_hello()))
        self.assertEqual((self.a.create_hello().size, len(record)), (252, 300))
        self.assertEqual(
            record[:32].hex(), "80000128" + "00" * 12 + "0000000d0000001c0000002a00000029"
        )

    def test_frames(self) -> None:
        """A's first sealed message and B's second are the known frames."""
        self.b.process_hello(self.a.create_hello())
        self.a.process_hello(self.b.create_hello())
        self.assertEqual(frame(self.a.wrap_message(self.a.create_auth())).hex(), A_AUTH.hex())
        self.b.wrap_message(self.b.create_auth())
        grant = Message(encode_send_more_extended(200, 300_000))
        self.assertEqual(frame(self.b.wrap_message(grant)).hex(), B_SEND_MORE.hex())


class CertificateTests(SynchronousTestCase):
    """When a certificate is good (rows 26 and 27)."""

    node = make_node(1)

    def is_valid(self, cert: AuthCert, wall_now: float = WALL_NOW) -> bool:
        return is_valid_certificate(cert, self.node.peer_id, self.node.network_id, wall_now)

    def test_expiration(self) -> None:
        """Good up to and including its last second; there is no upper bound."""
        make = partial(make_cert, self.node, b"k" * 32)
        for expiration, is_good in {
            0: False,
            NOW - 3600: False,
            NOW - 1: False,
            NOW: True,
            NOW + 1: True,
            NOW + 3600: True,
            32_503_680_000: True,  # the year 3000
            NOW * 1000: True,  # milliseconds, as a foreign implementation sends
            2**63: True,
            2**64 - 1: True,
        }.items():
            self.assertIs(self.is_valid(make(expiration=expiration)), is_good, str(expiration))

    def test_whole_seconds_count(self) -> None:
        """The clock's fraction does not shorten the last second."""
        cert = make_cert(self.node, b"k" * 32, expiration=NOW)
        self.assertTrue(self.is_valid(cert, NOW + 0.999))
        self.assertFalse(self.is_valid(cert, NOW + 1.0))

    def test_signature_length(self) -> None:
        """A signature that has not 64 bytes is none, even if it begins like a good one."""
        cert = make_cert(self.node, b"k" * 32)
        for length in (0, 1, 32, 63):
            self.assertFalse(self.is_valid(replace(cert, signature=cert.signature[:length])))
        for longer in (cert.signature + b"\0", bytes(1) + cert.signature, cert.signature * 2):
            self.assertFalse(self.is_valid(replace(cert, signature=longer)))

    def test_everything_is_signed(self) -> None:
        """A change of key, time, network, signer or signature makes it void."""
        cert = make_cert(self.node, b"k" * 32)
        self.assertTrue(self.is_valid(cert))
        flipped = bytes([cert.signature[0] ^ 1]) + cert.signature[1:]
        for bad in (
            replace(cert, public_key=b"l" * 32),
            replace(cert, expiration=cert.expiration + 1),
            replace(cert, signature=flipped),
            replace(cert, signature=bytes(64)),
            make_cert(self.node, b"k" * 32, network_id=bytes(32)),
            make_cert(make_node(2), b"k" * 32),
        ):
            self.assertFalse(self.is_valid(bad))

    def test_key_that_is_no_point(self) -> None:
        """A node id that is no point of the curve, or a small one, has signed nothing."""
        cert = make_cert(self.node, b"k" * 32)
        for key in (bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"\2" + bytes(31)):
            for bad in (cert, replace(cert, signature=bytes(64))):
                self.assertFalse(
                    is_valid_certificate(bad, PeerId(key), self.node.network_id, WALL_NOW)
                )


class RenewalTests(SynchronousTestCase):
    """Our own certificate always has 30 to 60 minutes to live."""

    def setUp(self) -> None:
        self.now = WALL_NOW
        self.identity = SessionIdentity(make_node(1, wall_clock=lambda: self.now))
        self.first = self.identity.certificate()

    def at(self, now: float) -> AuthCert:
        self.now = now
        return self.identity.certificate()

    def test_kept_for_half_an_hour(self) -> None:
        """The same certificate serves until it has less than 1,800 s to live."""
        self.assertEqual(self.first.expiration, NOW + 3600)
        for age in (0, 1, 1799, 1800, 1800.9):
            self.assertIs(self.at(NOW + age), self.first)

    def test_renewed_after_half_an_hour(self) -> None:
        """A second later there is a new one, good for an hour, of the same session key."""
        renewed = self.at(NOW + 1801)
        self.assertEqual(renewed.expiration, NOW + 1801 + 3600)
        self.assertEqual(renewed.public_key, self.first.public_key)
        node = self.identity.local_node
        self.assertTrue(is_valid_certificate(renewed, node.peer_id, node.network_id, self.now))

    def test_steps_of_the_wall_clock(self) -> None:
        """M-16: however the clock jumps, the next HELLO carries 30 to 60 minutes."""
        ten_years = 10 * 365 * 86400
        for step in (1, -1, 1800, -1800, 3600, -3600, ten_years, -ten_years):
            cert = self.at(self.now + step)
            left = cert.expiration - int(self.now)
            self.assertTrue(1800 <= left <= 3600, f"{step}: {left}")

    def test_small_step_back_is_not_too_long_a_life(self) -> None:
        """A step back by a second makes the certificate live longer than an hour: a new one."""
        self.assertEqual(self.at(NOW - 1).expiration, NOW - 1 + 3600)


class LowOrderTests(SynchronousTestCase):
    """Session keys with which no secret can be shared (row 29)."""

    def test_low_order_points(self) -> None:
        """Every encoding of a point of small order is refused, whatever our secret."""
        self.assertEqual(len(set(LOW_ORDER)), 14)
        for number in range(5):
            identity = SessionIdentity(make_node(number))
            for point in LOW_ORDER:
                for we_called_remote in (True, False):
                    with self.assertRaises(CryptoError, msg=point.hex()):
                        identity.shared_key(point, we_called_remote)

    def test_strange_but_usable_points(self) -> None:
        """Other encodings that are not reduced, and points of the twist, are usable, as in core."""
        identity = SessionIdentity(make_node(1))
        for x in (2, 9, P + 2, P + 9, P + 18, P - 2, 2**255 + 9, 2**256 - 1):
            self.assertEqual(len(identity.shared_key(x.to_bytes(32, "little"), True)), 32)

    def test_key_of_another_size(self) -> None:
        """What has not 32 bytes is no key."""
        for key in (b"", bytes(31), b"\x09" * 33):
            with self.assertRaises(CryptoError):
                SessionIdentity(make_node(1)).shared_key(key, True)
