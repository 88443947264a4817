"""What the structural check refuses beyond XDR: the too big, wide, deep and laborious."""

from __future__ import annotations

import inspect
import struct
import sys
import tracemalloc

from stellar_sdk import scval
from stellar_sdk import xdr as x

from stellar_overlay.error import XdrError
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import MessageType
from tests import xdr_extremes as extremes
from tests.wire.test_xdr_check import CheckTestCase, place
from tests.xdr_extremes import DEEP, words
from tests.xdr_samples import nominate, quorum_set, scp_message

FEW_MEGABYTES = 1_000_000


class LimitTests(CheckTestCase):
    """Each limit of ours: the last that passes, the first that does not."""

    def test_bytes_of_a_transaction(self) -> None:
        """A transaction of 256 KiB passes, alone and in a set; one of a word more does not."""
        most = xdr_check.MAX_TRANSACTION_BYTES
        signature_ = words(1) + b"hint" + words(64) + bytes(64)
        empty = extremes.envelope(words(1, 0, 24, 2, 0, 0), signatures=signature_)
        at = place(empty, words(24, 2, 0)) + 8

        def big(size: int) -> bytes:
            wasm = size - len(empty)
            return empty[:at] + words(wasm) + bytes(wasm) + empty[at + 4 :]

        for head in (words(8), words(7) + bytes(32) + words(1)):
            self.assert_passes(head + big(most))
            end = len(head) + most
            text = f"ends at byte {end + 4}, must end at byte {end} at the latest"
            self.assert_refused(head + big(most + 4), f"TransactionEnvelope: {text}")
        self.assert_passes(words(7) + bytes(32) + words(40) + big(most) * 40)

    def test_bytes_of_an_scp_envelope(self) -> None:
        """An SCPEnvelope of 64 KiB passes; one of a word more does not."""
        rest = len(scp_message(nominate([x.Value(b"")], [])).to_xdr_bytes())
        size = 4 + xdr_check.MAX_SCP_BYTES - rest
        self.assert_passes(scp_message(nominate([x.Value(bytes(size))], [])).to_xdr_bytes())
        self.assert_refused(
            scp_message(nominate([x.Value(bytes(size + 4))], [])).to_xdr_bytes(),
            "SCP_MESSAGE: ends at byte 65544, must end at byte 65540 at the latest",
        )

    def test_validators(self) -> None:
        """1,000 validators pass, in one set or many; 1,001 do not."""

        def body(validators: int, *inner: x.SCPQuorumSet) -> bytes:
            q_set = quorum_set(validators, inner)
            return x.StellarMessage(x.MessageType.SCP_QUORUMSET, q_set=q_set).to_xdr_bytes()

        self.assert_passes(body(1000))
        text = "SCPQuorumSet.validators: 1001 in all at byte 12, allowed: 1000"
        self.assert_refused(body(1001), text)
        self.assert_passes(body(400, quorum_set(300), quorum_set(0, [quorum_set(300)])))
        spread = body(400, quorum_set(300), quorum_set(0, [quorum_set(301)]))
        error = self.assertRaises(XdrError, xdr_check.check, spread)
        self.assertIn("SCPQuorumSet.validators: 1001 in all", str(error))

    def test_inner_sets(self) -> None:
        """4,000 inner sets pass, as 1,000 chains of 4 levels or all in a row; 4,001 do not."""
        kind = words(MessageType.SCP_QUORUMSET)
        chain = words(1, 0, 1) * 3 + words(1, 1) + extremes.NODE + words(0)
        self.assert_passes(kind + words(1, 0, 1000) + chain * 1000)
        flat = words(1, 0, 0)
        self.assert_passes(kind + words(1, 0, 4000) + flat * 4000)
        self.assert_refused(
            kind + words(1, 0, 4001) + flat * 4001,
            "SCPQuorumSet.innerSets: 4001 in all at byte 16, allowed: 4000",
        )

    def test_thresholds_are_not_judged(self) -> None:
        """A quorum set that stellar-core would find insane passes here: others judge that."""
        for threshold in (0, 2, 2**32 - 1):
            self.assert_passes(words(10, threshold, 1) + extremes.NODE + words(0))

    def test_levels(self) -> None:
        """Values pass up to the limit of levels, and not a level beyond."""
        for name, make in DEEP.items():
            most = xdr_check.MAX_QUORUM_LEVELS if "quorum" in name else xdr_check.MAX_LEVELS
            self.assert_passes(make(most))
            error = self.assertRaises(XdrError, xdr_check.check, make(most + 1))
            self.assertIn(f": more than {most} levels at byte ", str(error))

    def test_levels_are_counted_for_each_value(self) -> None:
        """The levels of one value are no burden to its neighbours, nor are empty arrays levels."""
        deep = words(16, 1, 1) * (xdr_check.MAX_LEVELS - 1) + words(16, 1, 0)
        body = extremes.transaction(extremes.envelope(extremes.invoke(words(3) + deep * 3)))
        self.assert_passes(body)

    def test_values_of_a_transaction(self) -> None:
        """As many SCVals as fit in a transaction pass; map entries are two."""
        for item in (extremes.VOID, words(17, 1, 1) + extremes.VOID * 2):
            room = xdr_check.MAX_TRANSACTION_BYTES - len(extremes.envelope(extremes.invoke())) + 4
            args = extremes.array(item, room)
            self.assert_passes(extremes.transaction(extremes.envelope(extremes.invoke(args))))

    def test_fewest_bytes_of_a_value(self) -> None:
        """No more than 65,536 SCVals fit in a transaction, so that nobody has to count them."""
        self.assertEqual(len(scval.to_void().to_xdr_bytes()), 4)
        self.assertEqual(xdr_check.MAX_TRANSACTION_BYTES // 4, 65_536)


class HostileTests(CheckTestCase):
    """Bodies that would keep a decoder busy for seconds, or break it."""

    def check_in_little_memory(self, body: bytes) -> str:
        """Return why a body is refused, or nothing; fail when that takes much memory."""
        text = ""
        tracemalloc.start()
        try:
            xdr_check.check(body)
        except XdrError as error:
            text = str(error)
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        self.assertLess(peak, FEW_MEGABYTES)
        return text

    def test_refused_at_once(self) -> None:
        """16 MiB of what cannot be legal are refused, in little memory."""
        for make in extremes.ILLEGAL.values():
            self.assertTrue(self.check_in_little_memory(make()))

    def test_refused_in_little_memory(self) -> None:
        """16 MiB of small elements are refused without any memory to speak of."""
        for name in ("void values", "empty clusters", "empty components", "smallest transactions"):
            text = self.check_in_little_memory(extremes.MANY[name]())
            self.assertIn("too many small elements in one message", text)

    def test_deep_in_little_memory(self) -> None:
        """So are 5,000 levels of anything."""
        for make in DEEP.values():
            self.assertTrue(self.check_in_little_memory(make(5_000)))

    def test_legal_in_little_memory(self) -> None:
        """A set of transactions that passes takes as little."""
        self.assertEqual(self.check_in_little_memory(extremes.mixed(1_000_000)), "")

    def test_many_small_elements(self) -> None:
        """What is legal in every part is refused for the work that it makes."""
        for name, make in extremes.MANY.items():
            error = self.assertRaises(XdrError, xdr_check.check, make())
            self.assertIn("too many small elements in one message", str(error), name)

    def test_deep_values_in_a_deep_stack(self) -> None:
        """5,000 levels of anything are refused, 300 calls deep, without a RecursionError."""

        def call(levels: int, body: bytes) -> None:
            if levels:
                call(levels - 1, body)
            else:
                self.assertRaises(XdrError, xdr_check.check, body)

        room = sys.getrecursionlimit() - len(inspect.stack())
        for make in DEEP.values():
            call(300, make(5_000))
            # Even where a decoder could not call a dozen functions.
            call(room - 60, make(5_000))

    def test_noise(self) -> None:
        """Bytes without meaning are refused behind any type, and nothing but XdrError is raised."""
        noise = b"".join(struct.pack(">I", n * 2_654_435_761 % 2**32) for n in range(20_000))
        for kind in MessageType:
            self.assertRaises(XdrError, xdr_check.check, words(kind) + noise)
            self.assertRaises(XdrError, xdr_check.check, words(kind) + b"\xff" * 80_000)
            self.assertRaises(XdrError, xdr_check.check, words(kind) + bytes(80_000))
