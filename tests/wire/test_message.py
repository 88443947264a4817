"""Types, bodies and flat layouts, against recorded bytes and against stellar_sdk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from stellar_sdk.xdr import StellarMessage
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ErrorCode, PeerError, XdrError
from stellar_overlay.identity import PeerId
from stellar_overlay.wire import message as layout
from stellar_overlay.wire.message import (
    AuthCert,
    Hello,
    Message,
    MessageType,
    PeerEntry,
    encode_error,
    message_type,
    pack_opaque,
)
from tests.builders import load_vectors

VECTORS = {vector["name"]: vector for vector in load_vectors("xdr-vectors")["vectors"]}
BODIES = {
    name: bytes.fromhex(vector["hex"])
    for name, vector in VECTORS.items()
    if vector["xdrType"] == "StellarMessage"
}
"""Bodies recorded from a foreign implementation, by name."""

HASH = bytes.fromhex("a43752ab87a24df074af00611e04b69c80c16096a8b38e829648fb9a69725be8")
OTHER_HASH = bytes.fromhex("7e8707e3477df0e9baed5e5d79fb1d2f7cc2b71f79772e57ac41e7fd90851fef")
HASHES = [HASH, OTHER_HASH]

KNOWN: dict[str, tuple[object, Callable[[bytes], object], bytes]] = {
    "FLOOD_ADVERT": (
        HASHES,
        layout.decode_hashes,
        layout.encode_hashes(MessageType.FLOOD_ADVERT, HASHES),
    ),
    "FLOOD_ADVERT_empty": (
        [],
        layout.decode_hashes,
        layout.encode_hashes(MessageType.FLOOD_ADVERT, []),
    ),
    "FLOOD_DEMAND": (
        HASHES,
        layout.decode_hashes,
        layout.encode_hashes(MessageType.FLOOD_DEMAND, HASHES),
    ),
    "PEERS": (
        [PeerEntry("203.0.113.7", 11626), PeerEntry("2001:db8::1", 11625, 5)],
        layout.decode_peers,
        layout.encode_peers(
            [PeerEntry("203.0.113.7", 11626), PeerEntry("2001:db8::1", 11625, num_failures=5)]
        ),
    ),
    "PEERS_empty": ([], layout.decode_peers, layout.encode_peers([])),
    "SEND_MORE_EXTENDED": (
        (40, 100_000),
        layout.decode_send_more_extended,
        layout.encode_send_more_extended(40, 100_000),
    ),
    "ERROR_MSG": (
        (ErrorCode.ERR_CONF, b"wrong protocol version"),
        layout.decode_error,
        encode_error(ErrorCode.ERR_CONF, "wrong protocol version"),
    ),
    "ERROR_MSG_empty": (
        (ErrorCode.ERR_MISC, b""),
        layout.decode_error,
        encode_error(ErrorCode.ERR_MISC, ""),
    ),
    "AUTH": (200, layout.decode_auth, layout.encode_auth()),
    "DONT_HAVE_txset": (
        (MessageType.GENERALIZED_TX_SET, HASH),
        layout.decode_dont_have,
        layout.encode_dont_have(MessageType.GENERALIZED_TX_SET, HASH),
    ),
    "DONT_HAVE_qset": (
        (MessageType.SCP_QUORUMSET, HASH),
        layout.decode_dont_have,
        layout.encode_dont_have(MessageType.SCP_QUORUMSET, HASH),
    ),
    "GET_TX_SET": (
        HASH,
        layout.decode_hash_query,
        layout.encode_hash_query(MessageType.GET_TX_SET, HASH),
    ),
    "GET_SCP_QUORUMSET": (
        HASH,
        layout.decode_hash_query,
        layout.encode_hash_query(MessageType.GET_SCP_QUORUMSET, HASH),
    ),
    "GET_SCP_STATE": (
        123_456,
        layout.decode_get_scp_state,
        layout.encode_get_scp_state(123_456),
    ),
}
"""By name: the fields, what reads them, and the bytes that we make of them."""

DECODERS: dict[Callable[[bytes], object], set[MessageType]] = {
    Hello.decode: {MessageType.HELLO},
    layout.decode_auth: {MessageType.AUTH},
    layout.decode_error: {MessageType.ERROR_MSG},
    layout.decode_peers: {MessageType.PEERS},
    layout.decode_dont_have: {MessageType.DONT_HAVE},
    layout.decode_get_scp_state: {MessageType.GET_SCP_STATE},
    layout.decode_send_more_extended: {MessageType.SEND_MORE_EXTENDED},
    layout.decode_hash_query: {MessageType.GET_TX_SET, MessageType.GET_SCP_QUORUMSET},
    layout.decode_hashes: {MessageType.FLOOD_ADVERT, MessageType.FLOOD_DEMAND},
}


def recorded_hello() -> Hello:
    """Return the HELLO that the vectors describe, field by field."""
    fields = VECTORS["HELLO"]["fields"]
    return Hello(
        ledger_version=fields["ledgerVersion"],
        overlay_version=fields["overlayVersion"],
        overlay_min_version=fields["overlayMinVersion"],
        network_id=bytes.fromhex(fields["networkId"]),
        version_string=fields["versionStr"].encode(),
        listening_port=fields["listeningPort"],
        node_key=PeerId.from_strkey(fields["peerId"]).key,
        cert=AuthCert(
            public_key=bytes.fromhex(fields["certPubkey"]),
            expiration=int(fields["certExpiration"]),
            signature=bytes.fromhex(fields["certSig"]),
        ),
        nonce=bytes.fromhex(fields["nonce"]),
    )


class RecordedLayoutTests(SynchronousTestCase):
    """The small messages against what a foreign implementation wrote."""

    def test_decoders_read_the_recorded_fields(self) -> None:
        """Each decoder finds in the recorded bytes the fields that were put there."""
        for name, (fields, decode, _) in KNOWN.items():
            self.assertEqual(decode(BODIES[name]), fields, name)

    def test_encoders_write_the_recorded_bytes(self) -> None:
        """Each encoder makes of the same fields the same bytes."""
        for name, (_, _, body) in KNOWN.items():
            self.assertEqual(body.hex(), BODIES[name].hex(), name)

    def test_hello(self) -> None:
        """HELLO is read and written as recorded, its signed parts included."""
        self.assertEqual(Hello.decode(BODIES["HELLO"]), recorded_hello())
        self.assertEqual(recorded_hello().encode().hex(), BODIES["HELLO"].hex())

    def test_sizes(self) -> None:
        """The length of a body, which flow control counts, is the recorded number of bytes."""
        for name, body in BODIES.items():
            self.assertEqual(Message(body).size, VECTORS[name]["bytes"], name)

    def test_sdk_reads_the_same(self) -> None:
        """Every recorded body decodes to an object of its type that encodes to the same bytes."""
        for name, body in BODIES.items():
            message = Message(body)
            self.assertEqual(message.decoded.type.value, message.type, name)
            self.assertEqual(Message.from_xdr(message.decoded), message, name)

    def test_decoders_refuse_other_types(self) -> None:
        """A decoder takes the types that are its own and refuses every other."""
        by_type = {message_type(body): body for body in BODIES.values()}
        self.assertEqual(set(by_type), set(MessageType))
        for decode, own in DECODERS.items():
            for kind, body in by_type.items():
                if kind in own:
                    decode(body)
                else:
                    with self.assertRaises(XdrError, msg=f"{decode} {kind!r}"):
                        decode(body)


class HelloTests(SynchronousTestCase):
    """HELLO's corners (connection.md 2.2; row 35)."""

    def test_size_is_232_and_the_padded_version(self) -> None:
        """Each length of versionStr up to 100 gives 232 bytes and the padded string, and back."""
        for length in (0, 1, 2, 3, 4, 19, 97, 100):
            hello = replace(recorded_hello(), version_string=b"\xff" * length)
            self.assertEqual(len(hello.encode()), 232 + length + -length % 4)
            self.assertEqual(Hello.decode(hello.encode()), hello)

    def test_largest_is_332(self) -> None:
        """The longest HELLO has 332 bytes, so that no legal one exceeds the early limit."""
        longest = replace(recorded_hello(), version_string=b"v" * 100)
        self.assertEqual(len(longest.encode()), 332)

    def test_extreme_numbers(self) -> None:
        """Each number goes through at both ends of its range; only the port has a sign."""
        for low_or_high in (0, 2**32 - 1):
            hello = replace(
                recorded_hello(),
                ledger_version=low_or_high,
                overlay_version=low_or_high,
                overlay_min_version=low_or_high,
                listening_port=-(2**31) if low_or_high else 2**31 - 1,
                cert=replace(recorded_hello().cert, expiration=low_or_high << 32 | low_or_high),
            )
            self.assertEqual(Hello.decode(hello.encode()), hello)

    def test_signature_of_any_length(self) -> None:
        """A signature of 0 to 64 bytes can be read; whether it is one is not asked here."""
        for length in (0, 1, 63, 64):
            cert = replace(recorded_hello().cert, signature=b"s" * length)
            hello = replace(recorded_hello(), cert=cert)
            self.assertEqual(Hello.decode(hello.encode()), hello)

    def test_bounds(self) -> None:
        """Row 10: a versionStr of 101 bytes and a signature of 65 are not canonical."""
        hello = recorded_hello()
        for bad in (
            replace(hello, version_string=b"v" * 101),
            replace(hello, cert=replace(hello.cert, signature=b"s" * 65)),
        ):
            with self.assertRaises(XdrError):
                Hello.decode(bad.encode())

    def test_repr_keeps_the_nonce(self) -> None:
        """What may end up in a log shows no nonce."""
        nonce = recorded_hello().nonce
        for shown in (repr(recorded_hello()), str(recorded_hello())):
            self.assertNotIn(repr(nonce)[2:-1], shown)
            self.assertNotIn(nonce.hex(), shown)


class ErrorTextTests(SynchronousTestCase):
    """ERROR_MSG as sent and as received (Y21; row 20)."""

    def assert_text(self, text: str, expected: bytes) -> None:
        code, raw = layout.decode_error(encode_error(ErrorCode.ERR_MISC, text))
        self.assertEqual((code, raw), (ErrorCode.ERR_MISC, expected))

    def test_text_of_100_bytes_is_whole(self) -> None:
        """100 bytes pass uncut, whatever characters they are."""
        self.assert_text("x" * 100, b"x" * 100)
        self.assert_text("é" * 50, "é".encode() * 50)

    def test_long_text_is_cut_between_characters(self) -> None:
        """A longer text loses the characters that do not fit into 100 bytes whole."""
        self.assert_text("x" * 101, b"x" * 100)
        self.assert_text("x" + "é" * 50, b"x" + "é".encode() * 49)
        self.assert_text("€" * 34, "€".encode() * 33)
        for lead in range(1, 4):
            self.assert_text("x" * lead + "🙂" * 30, b"x" * lead + "🙂".encode() * 24)

    def test_what_cannot_be_encoded_is_replaced(self) -> None:
        """A text with half a surrogate pair can still be told."""
        self.assert_text("a\ud800b", b"a?b")

    def test_any_code_is_read(self) -> None:
        """A code outside the five is a number like any other, negative ones included."""
        for code in (5, 99, -1, 2**31 - 1, -(2**31)):
            self.assertEqual(layout.decode_error(encode_error(code, "x")), (code, b"x"))

    def test_reason_of_a_remote_error(self) -> None:
        """Row 20: the reason names the code, or UNKNOWN, and stars what is not plain text."""
        shown = {
            (2, b"wrong protocol version"): "ERR_CONF (wrong protocol version)",
            (4, b""): "ERR_LOAD ()",
            (5, b"x"): "UNKNOWN (x)",
            (-1, b"x"): "UNKNOWN (x)",
            (0, b"a\n\x1b[31m<b>{0}%s\0"): "ERR_MISC (a***31m*b**0**s*)",
            (0, "é_-.,".encode()): "ERR_MISC (******)",
        }
        for (code, text), reason in shown.items():
            error = PeerError(code, text)
            self.assertEqual((error.reason, error.code), (reason, None))
            self.assertEqual((error.remote_code, error.remote_text), (code, text))


class MessageTests(SynchronousTestCase):
    """A message is its type and its exact body."""

    def test_types(self) -> None:
        """The 21 types have core's numbers; 1, 4, 14 and 15 are none."""
        self.assertEqual(sorted(MessageType), [0, 2, 3, *range(5, 14), *range(16, 25)])

    def test_body_is_bytes(self) -> None:
        """A text or a number is no body, and the error says what is wanted."""
        for body in ("x", "", None, 5, [0, 0, 0, 11], object()):
            error = self.assertRaises(TypeError, Message, body)
            self.assertEqual(
                str(error), f"the body of a message is bytes, not a {type(body).__name__}"
            )

    def test_what_may_change_is_copied(self) -> None:
        """A buffer may be used for something else afterwards: the message stays."""
        exact = BODIES["FLOOD_ADVERT"]
        buffer = bytearray(exact)
        for body in (buffer, memoryview(buffer)):
            message = Message(body)
            buffer[:] = bytes(len(exact))
            self.assertIs(type(message.body), bytes)
            self.assertEqual(message, Message(exact))
            self.assertEqual(hash(message), hash(Message(exact)))
            buffer[:] = exact
        self.assertIs(Message(exact).body, exact)

    def test_from_what_is_no_message(self) -> None:
        """Only a StellarMessage describes a message, not even another object of XDR."""
        hello = Message(BODIES["HELLO"]).decoded.hello
        for thing in (None, b"", BODIES["HELLO"], "HELLO", Message(BODIES["HELLO"]), hello):
            error = self.assertRaises(TypeError, Message.from_xdr, thing)
            self.assertEqual(
                str(error),
                f"a stellar_sdk.xdr.StellarMessage is wanted, not a {type(thing).__name__}",
            )

    def test_unknown_or_missing_type(self) -> None:
        """A body that does not begin with a type that exists makes no message."""
        bad = [b"", b"\0", b"\0\0\0", *(n.to_bytes(4, "big") for n in (1, 4, 14, 15, 25, 2**31))]
        for body in bad:
            with self.assertRaises(XdrError, msg=body.hex()):
                Message(body)

    def test_flood_types(self) -> None:
        """Flow control counts four types."""
        flooded = {kind for kind in MessageType if Message(kind.to_bytes(4, "big")).is_flood}
        self.assertEqual({int(kind) for kind in flooded}, {8, 11, 18, 19})
        self.assertEqual(layout.FLOOD_KINDS, {8, 11, 18, 19})

    def test_flood_hash(self) -> None:
        """The name in the Floodgate is BLAKE2b-256 of the whole body, the type included."""
        body = BODIES["TRANSACTION_payment_v1"]
        expected = hashlib.blake2b(body, digest_size=32).digest()
        self.assertEqual(Message(body).flood_hash, expected)
        self.assertNotEqual(Message(body).flood_hash, hashlib.sha256(body[4:]).digest())

    def test_equal_when_the_bodies_are(self) -> None:
        """Messages are equal, and one key of a set, when their bodies are."""
        advert, demand = BODIES["FLOOD_ADVERT"], BODIES["FLOOD_DEMAND"]
        self.assertEqual(len({Message(advert), Message(bytes(advert)), Message(demand)}), 2)
        self.assertNotEqual(Message(advert), advert)

    def test_decoded_only_once(self) -> None:
        """The object is made on first use and kept."""
        message = Message(BODIES["GET_SCP_STATE"])
        self.assertIsInstance(message.decoded, StellarMessage)
        self.assertIs(message.decoded, message.decoded)

    def test_decoded_refuses_what_is_not_canonical(self) -> None:
        """Trailing bytes and a bad padding are XdrErrors when somebody asks for the object."""
        good = BODIES["ERROR_MSG"]
        for bad in (good + bytes(4), good[:-4], good[:-1] + b"\1"):
            with self.assertRaises(XdrError):
                _ = Message(bad).decoded

    def test_tolerated_numbers_have_no_object(self) -> None:
        """An unknown error code or wanted type is legal, but stellar_sdk has no object for it."""
        for body in (encode_error(99, "x"), layout.encode_dont_have(99, HASH)):
            with self.assertRaises(XdrError):
                _ = Message(body).decoded
            self.assertEqual(Message(body).body, body)

    def test_repr_is_short(self) -> None:
        """A message shows its type and size and none of its bytes."""
        self.assertEqual(repr(Message(BODIES["AUTH"])), "<Message AUTH 8 bytes>")

    def test_opaque_is_padded_with_zeros(self) -> None:
        """Variable opaque data carries its length and up to three zero bytes."""
        padded = [pack_opaque(b"x" * size).hex() for size in range(4)]
        expected = ["00000000", "0000000178000000", "0000000278780000", "0000000378787800"]
        self.assertEqual(padded, expected)
        self.assertEqual(pack_opaque(b"xxxx").hex(), "0000000478787878")
