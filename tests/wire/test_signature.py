"""One signature: good, changed, cut, or no signature at all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.wire.signature import is_signed_by
from tests.builders import make_node

NODE = make_node(1)
KEY = NODE.peer_id.key


class SignatureTests(SynchronousTestCase):
    @settings(derandomize=True, max_examples=50)
    @given(signed=st.binary(max_size=2000), bit=st.integers(0, 511))
    def test_good_and_changed(self, signed: bytes, bit: int) -> None:
        """What a node signed is good; with any bit of the signature flipped it is not."""
        signature = NODE.sign(signed)
        self.assertTrue(is_signed_by(KEY, signed, signature))
        flipped = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
        self.assertFalse(is_signed_by(KEY, signed, flipped))
        self.assertFalse(is_signed_by(KEY, signed + b"\0", signature))
        self.assertFalse(is_signed_by(make_node(2).peer_id.key, signed, signature))

    def test_wrong_lengths(self) -> None:
        """A key or a signature of another length is no good, and nothing is read beyond it."""
        signature = NODE.sign(b"signed")
        for key in (b"", KEY[:31], KEY + b"\0", KEY * 2):
            self.assertFalse(is_signed_by(key, b"signed", signature))
        for other in (b"", signature[:63], signature + b"\0", signature * 2):
            self.assertFalse(is_signed_by(KEY, b"signed", other))
        # The last byte of the signature moved over to what is signed, and back.
        self.assertFalse(is_signed_by(KEY, signature[63:] + b"signed", signature[:63]))

    def test_worthless_keys(self) -> None:
        """No signature is good for a key of low order, for which anybody could make one."""
        for key in (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"):
            for signature in (bytes(64), key + bytes(32), b"\1" + bytes(63)):
                self.assertFalse(is_signed_by(key, b"signed", signature))
