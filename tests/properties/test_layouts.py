"""The flat layouts with any fields, and ERROR_MSG with any text."""

from __future__ import annotations

import hashlib

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.wire import message as layout
from stellar_overlay.wire.channel import OpeningKey, wrap_unauthenticated
from stellar_overlay.wire.message import (
    AuthCert,
    Hello,
    Message,
    MessageType,
    PeerEntry,
    encode_error,
)

KEY = hashlib.sha256(b"key").digest()
MODEST = settings(max_examples=100, derandomize=True, deadline=None)
THOROUGH = settings(max_examples=300, derandomize=True, deadline=None)

U32 = st.integers(0, 2**32 - 1)
I32 = st.integers(-(2**31), 2**31 - 1)
KEYS = st.binary(min_size=32, max_size=32)


class ErrorTests(SynchronousTestCase):
    """ERROR_MSG is never verified, and its text always fits."""

    @MODEST
    @given(I32, st.text(max_size=30), st.integers(0, 2**64 - 1), KEYS)
    def test_any_number_and_mac(self, code: int, text: str, number: int, mac: bytes) -> None:
        """With whatever number and MAC it comes, an ERROR_MSG is read, and does not count."""
        body = encode_error(code, text)
        opening = OpeningKey(KEY)
        record = bytes(4) + number.to_bytes(8, "big") + body + mac
        self.assertEqual(opening.open(record), (0, body))
        self.assertEqual(opening.sequence, 0)

    @THOROUGH
    @given(st.text(max_size=150))
    @example("x" * 99 + "é")
    @example("🙂" * 26)
    def test_text_is_cut_between_characters(self, text: str) -> None:
        """The text on the wire is the longest beginning, in whole characters, of 100 bytes."""
        _, raw = layout.decode_error(encode_error(0, text))
        fitting = [
            raw for raw in (text[:n].encode() for n in range(len(text) + 1)) if len(raw) <= 100
        ]
        self.assertEqual(raw, fitting[-1])


class RoundTripTests(SynchronousTestCase):
    """What we encode is what we decode, and what stellar_sdk reads."""

    def assert_canonical(self, body: bytes) -> None:
        self.assertEqual(Message(body).decoded.to_xdr_bytes(), body)

    @MODEST
    @given(
        st.builds(
            Hello,
            ledger_version=U32,
            overlay_version=U32,
            overlay_min_version=U32,
            network_id=KEYS,
            version_string=st.binary(max_size=100),
            listening_port=I32,
            node_key=KEYS,
            cert=st.builds(
                AuthCert,
                public_key=KEYS,
                expiration=st.integers(0, 2**64 - 1),
                signature=st.binary(max_size=64),
            ),
            nonce=KEYS,
        )
    )
    def test_hello(self, hello: Hello) -> None:
        """HELLO, its certificate and its variable fields."""
        self.assertEqual(Hello.decode(hello.encode()), hello)
        self.assert_canonical(hello.encode())

    @MODEST
    @given(
        st.lists(
            st.builds(PeerEntry, st.ip_addresses().map(str), U32, U32),
            max_size=100,
        )
    )
    def test_peers(self, peers: list[PeerEntry]) -> None:
        """PEERS of both families, with any port and number of failures."""
        body = layout.encode_peers(peers)
        self.assertEqual(layout.decode_peers(body), peers)
        self.assert_canonical(body)

    @MODEST
    @given(
        st.sampled_from([MessageType.FLOOD_ADVERT, MessageType.FLOOD_DEMAND]),
        st.lists(KEYS, max_size=20),
    )
    def test_hashes(self, kind: MessageType, hashes: list[bytes]) -> None:
        """FLOOD_ADVERT and FLOOD_DEMAND, hashes repeated or not."""
        body = layout.encode_hashes(kind, hashes)
        self.assertEqual(layout.decode_hashes(body), hashes)
        self.assertEqual(len(body), 8 + 32 * len(hashes))
        self.assert_canonical(body)

    @MODEST
    @given(I32, U32, U32, KEYS, st.sampled_from(MessageType))
    def test_small(
        self, number: int, one: int, two: int, item_hash: bytes, wanted: MessageType
    ) -> None:
        """AUTH, grants, queries and DONT_HAVE with any number and hash."""
        self.assertEqual(layout.decode_auth(layout.encode_auth(number)), number)
        grant = layout.encode_send_more_extended(one, two)
        self.assertEqual(layout.decode_send_more_extended(grant), (one, two))
        self.assertEqual(layout.decode_get_scp_state(layout.encode_get_scp_state(one)), one)
        lacking = layout.encode_dont_have(wanted, item_hash)
        self.assertEqual(layout.decode_dont_have(lacking), (wanted, item_hash))
        self.assertEqual(
            layout.decode_dont_have(layout.encode_dont_have(one, item_hash)), (one, item_hash)
        )
        for kind in (MessageType.GET_TX_SET, MessageType.GET_SCP_QUORUMSET):
            query = layout.encode_hash_query(kind, item_hash)
            self.assertEqual(layout.decode_hash_query(query), item_hash)
            self.assert_canonical(query)
        for body in (layout.encode_auth(number), grant, lacking):
            self.assert_canonical(body)

    @MODEST
    @given(st.binary(min_size=4, max_size=200))
    def test_envelope_without_keys(self, body: bytes) -> None:
        """An envelope of HELLO or ERROR_MSG is 12 zero bytes, the body and 32 zero bytes."""
        record = wrap_unauthenticated(body)
        self.assertEqual((record[:12], record[12:-32], record[-32:]), (bytes(12), body, bytes(32)))
