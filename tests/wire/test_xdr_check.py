"""The structural check of messages: rules, limits, hostile bodies, and the generator's promises."""

from __future__ import annotations

from stellar_sdk import scval
from stellar_sdk import xdr as x
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import XdrError
from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import MessageType
from tests import xdr_extremes as extremes
from tests.builders import load_vectors
from tests.xdr_extremes import LEGAL, words
from tests.xdr_parts import contract_data, int64, uint32
from tests.xdr_samples import (
    EXTERNALIZE,
    SAMPLES,
    ballot,
    classic_phase,
    generalized,
    hello,
    message_of,
    nominate,
    prepare,
    scp_message,
    survey_response,
)
from tests.xdr_transactions import NO_MEMO, PAYMENT, PLAIN_EXT, envelope, invoke, transaction


def replaced(body: bytes, at: int, *values: int) -> bytes:
    """Return ``body`` with other words from byte ``at`` on."""
    new = words(*values)
    return body[:at] + new + body[at + len(new) :]


def place(body: bytes, part: bytes) -> int:
    """Return where ``part`` is in ``body``, in which it is once."""
    assert body.count(part) == 1, f"{body.count(part)} times"
    return body.index(part)


def transaction_body(
    *ops: x.Operation, memo: x.Memo = NO_MEMO, ext: x.TransactionExt = PLAIN_EXT
) -> bytes:
    """Return a TRANSACTION of some operations."""
    return message_of(envelope(transaction(ops, memo=memo, ext=ext))).to_xdr_bytes()


def call_with(*args: x.SCVal) -> bytes:
    """Return a TRANSACTION that passes arguments to a contract."""
    return transaction_body(invoke(args))


class CheckTestCase(SynchronousTestCase):
    """Adds the two assertions of this file."""

    def assert_passes(self, body: bytes) -> None:
        """Fail when the body is refused."""
        try:
            xdr_check.check(body)
        except XdrError as error:
            self.fail(f"refused: {error}")

    def assert_refused(self, body: bytes, text: str) -> None:
        """Fail when the body is not refused with this text."""
        error = self.assertRaises(XdrError, xdr_check.check, body)
        self.assertEqual(str(error), text)


class SampleTests(CheckTestCase):
    """What must pass."""

    def test_samples(self) -> None:
        """Messages of all types and forms, as stellar_sdk encodes them, pass."""
        for body in SAMPLES.values():
            self.assert_passes(body)

    def test_all_types_have_samples(self) -> None:
        """No type of message was forgotten."""
        self.assertEqual({name.split()[0] for name in SAMPLES}, {kind.name for kind in MessageType})

    def test_vectors(self) -> None:
        """Messages that another implementation encoded pass."""
        vectors = [
            v for v in load_vectors("xdr-vectors")["vectors"] if v["xdrType"] == "StellarMessage"
        ]
        self.assertEqual(len(vectors), 30)
        for vector in vectors:
            self.assert_passes(bytes.fromhex(vector["hex"]))

    def test_transcript(self) -> None:
        """Whatever that implementation said on a connection passes."""
        frames = load_vectors("transcript")["frames"]
        self.assertGreater(len(frames), 100)
        for frame in frames:
            self.assert_passes(bytes.fromhex(frame["message"]))

    def test_legal_sets_of_ten_megabytes(self) -> None:
        """The biggest sets of payments, of Soroban transactions and of both pass."""
        for make in LEGAL.values():
            self.assert_passes(make())

    def test_sizes_of_the_usual(self) -> None:
        """The payment and the Soroban call of which those consist are as big as real ones."""
        self.assertEqual((len(extremes.PAYMENT), len(extremes.SWAP)), (220, 1348))


class RuleTests(CheckTestCase):
    """What is refused, and in which words."""

    def test_unknown_type(self) -> None:
        """A type that does not exist is refused, whatever follows."""
        for kind in (1, 4, 14, 15, 25, 2**31, 2**32 - 1):
            self.assert_refused(
                words(kind, 0, 0),
                f"StellarMessage.type: {kind} at byte 0, allowed: 0, 2, 3, 5 to 13, 16 to 24",
            )

    def test_no_type(self) -> None:
        """Less than a word is refused."""
        for size in range(4):
            text = f"StellarMessage.type: needs 4 bytes, has {size}"
            self.assert_refused(bytes(size), text)

    def test_trailing_bytes(self) -> None:
        """Bytes behind any message are refused, be they zero or not."""
        for name, body in SAMPLES.items():
            kind = name.split()[0]
            for more in (b"\0", bytes(4), b"\0\0\0\1"):
                text = f"{kind}: ends at byte {len(body)}, but {len(more)} more follow"
                self.assert_refused(body + more, text)

    def test_missing_bytes(self) -> None:
        """No message passes when its end is missing, be it a byte or nearly all."""
        for body in SAMPLES.values():
            for size in {0, 4, 8, *range(4, len(body), max(1, len(body) // 97)), len(body) - 1}:
                if size < len(body):
                    self.assertRaises(XdrError, xdr_check.check, body[:size])

    def test_texts_of_missing_bytes(self) -> None:
        """The text says what goes on, and where the message ends."""
        self.assert_refused(words(6, 0), "GET_TX_SET: needs 36 bytes, has 8")
        self.assert_refused(words(0), "ERROR_MSG: goes on where the message ends, at byte 4")
        body = transaction_body(PAYMENT)
        text = "PaymentOp: goes on where the message ends, at byte 88"
        self.assert_refused(body[:88], text)

    def test_unknown_arm(self) -> None:
        """A union that exists in another form only is refused, wherever it is."""
        cases = [
            (SAMPLES["HELLO"], 76, "HELLO.peerID.type: 9 at byte 76, allowed: 0"),
            (SAMPLES["PEERS"], 8, "PEERS[].ip.type: 9 at byte 8, allowed: 0, 1"),
            (
                scp_message(EXTERNALIZE).to_xdr_bytes(),
                48,
                "SCP_MESSAGE.statement.pledges.type: 9 at byte 48, allowed: 0 to 3",
            ),
            (
                transaction_body(PAYMENT),
                4,
                "TransactionEnvelope.type: 9 at byte 4, allowed: 0, 2, 5",
            ),
            (
                transaction_body(PAYMENT),
                8,
                "TransactionEnvelope.v1.tx.sourceAccount.type: 9 at byte 8, allowed: 0, 256",
            ),
            (
                generalized([]).to_xdr_bytes(),
                4,
                "GENERALIZED_TX_SET.v: 9 at byte 4, allowed: 1",
            ),
        ]
        for body, at, text in cases:
            self.assert_passes(body)
            self.assert_refused(replaced(body, at, 9), text)

    def test_unknown_operation(self) -> None:
        """An operation that does not exist is refused."""
        body = transaction_body(PAYMENT)
        at = place(body, words(1, 0, 1, 0)) + 8
        self.assert_refused(
            replaced(body, at, 27), f"Operation.body.type: 27 at byte {at}, allowed: 0 to 26"
        )

    def test_unknown_value(self) -> None:
        """An SCVal of a type that does not exist is refused."""
        body = call_with(scval.to_uint32(0xABCD))
        at = place(body, words(3, 0xABCD))
        self.assert_refused(
            replaced(body, at, 23), f"SCVal.type: 23 at byte {at}, allowed: 0 to 22"
        )

    def test_optional_flag(self) -> None:
        """A presence flag is 0 or 1."""
        body = scp_message(prepare(ballot())).to_xdr_bytes()
        at = len(body) - 84
        where = "SCP_MESSAGE.statement.pledges.prepare.prepared.present"
        text = f"{where}: 2 at byte {at}, allowed: 0, 1"
        self.assert_refused(replaced(body, at, 2), text)
        body = transaction_body(PAYMENT)
        at = place(body, words(1, 0, 1, 0)) + 4
        text = f"Operation.sourceAccount.present: 256 at byte {at}, allowed: 0, 1"
        self.assert_refused(replaced(body, at, 256), text)
        body = generalized([classic_phase([[]], None)]).to_xdr_bytes()
        where = "GENERALIZED_TX_SET.v1TxSet.phases[].v0Components[].txsMaybeDiscountedFee.baseFee"
        self.assert_refused(replaced(body, 56, 2), f"{where}.present: 2 at byte 56, allowed: 0, 1")

    def test_bool(self) -> None:
        """A bool is 0 or 1, though stellar-core takes any other number for 1."""
        body = call_with(scval.to_bool(True), scval.to_uint32(0xABCD))
        at = place(body, words(3, 0xABCD)) - 4
        self.assert_passes(replaced(body, at, 0))
        self.assert_refused(replaced(body, at, 2), f"SCVal.b: 2 at byte {at}, allowed: 0, 1")

    def test_enum_fields(self) -> None:
        """A field of an enum holds one of its numbers."""
        error = x.SCError(x.SCErrorType.SCE_WASM_VM, code=x.SCErrorCode.SCEC_INTERNAL_ERROR)
        body = call_with(x.SCVal(x.SCValType.SCV_ERROR, error=error))
        at = place(body, words(2, 1, 7)) + 8
        self.assert_refused(
            replaced(body, at, 10), f"SCVal.error.code: 10 at byte {at}, allowed: 0 to 9"
        )
        key = x.LedgerKey(
            x.LedgerEntryType.CONFIG_SETTING,
            config_setting=x.LedgerKeyConfigSetting(
                x.ConfigSettingID.CONFIG_SETTING_FREEZE_BYPASS_TXS_DELTA
            ),
        )
        footprint = x.LedgerFootprint([contract_data(scval.to_uint64(0xABCD)), key], [])
        resources = x.SorobanResources(footprint, uint32(0), uint32(0), uint32(0))
        data = x.SorobanTransactionData(x.SorobanTransactionDataExt(0), resources, int64(0))
        body = transaction_body(ext=x.TransactionExt(1, data))
        at = place(body, words(0xABCD, 1)) + 4
        self.assert_refused(
            replaced(body, at, 2),
            f"LedgerKey.contractData.durability: 2 at byte {at}, allowed: 0, 1",
        )
        self.assert_refused(
            replaced(body, at + 8, 21),
            f"LedgerKey.configSetting.configSettingID: 21 at byte {at + 8}, allowed: 0 to 20",
        )

    def test_tolerated_enum_fields(self) -> None:
        """Any code of ERROR_MSG, type in DONT_HAVE and command of a survey passes, as in core."""
        for number in (5, 77, 2**31, 2**32 - 1):
            self.assert_passes(replaced(SAMPLES["ERROR_MSG error ERR_DATA"], 4, number))
            self.assert_passes(replaced(SAMPLES["DONT_HAVE TX_SET"], 4, number))
            self.assert_passes(replaced(SAMPLES["TIME_SLICED_SURVEY_REQUEST"], 180, number))
            self.assert_passes(replaced(SAMPLES["TIME_SLICED_SURVEY_RESPONSE"], 148, number))

    def test_padding(self) -> None:
        """Padding is zero, each byte of it."""
        for size in (1, 2, 3):
            body = hello(b"v" * size).to_xdr_bytes()
            self.assert_passes(body)
            for at in range(52 + size, 56):
                self.assert_refused(
                    body[:at] + b"\1" + body[at + 1 :],
                    "HELLO.versionStr: the padding before byte 56 is not zero",
                )

    def test_padding_everywhere(self) -> None:
        """A byte of padding that is not zero is refused in texts, signatures and values alike."""
        bodies = [
            (SAMPLES["ERROR_MSG error ERR_DATA"], b"why\0"),
            (scp_message(EXTERNALIZE, 3).to_xdr_bytes(), b"\x5a\x5a\x5a\0"),
            (scp_message(nominate([x.Value(b"odd")], [])).to_xdr_bytes(), b"odd\0"),
            (call_with(scval.to_symbol("odd")), b"odd\0"),
            (call_with(scval.to_bytes(b"odd")), b"odd\0"),
            (call_with(scval.to_string("odd")), b"odd\0"),
            (
                transaction_body(invoke([]), memo=x.Memo(x.MemoType.MEMO_TEXT, text=b"odd")),
                b"odd\0",
            ),
        ]
        for body, part in bodies:
            self.assert_passes(body)
            at = body.rindex(part) + 3
            changed = body[:at] + b"\1" + body[at + 1 :]
            error = self.assertRaises(XdrError, xdr_check.check, changed)
            self.assertTrue(str(error).endswith(f"the padding before byte {at + 1} is not zero"))

    def test_too_long(self) -> None:
        """A string or opaque is at most as long as its bound."""
        text = "x" * 100
        body = words(0, 2, 100) + text.encode()
        self.assert_passes(body)
        self.assert_refused(
            words(0, 2, 101) + text.encode() + b"x\0\0\0",
            "ERROR_MSG.msg: 101 bytes at byte 12, allowed: 100",
        )
        body = survey_response(64_000).to_xdr_bytes()
        self.assert_passes(body)
        self.assert_refused(
            replaced(body, 152, 64_001),
            "TIME_SLICED_SURVEY_RESPONSE.response.response.encryptedBody:"
            " 64001 bytes at byte 156, allowed: 64000",
        )
        body = call_with(scval.to_symbol("x" * 32))
        at = place(body, words(15, 32)) + 8
        self.assert_passes(body)
        self.assert_refused(
            replaced(body, at - 4, 33), f"SCVal.sym: 33 bytes at byte {at}, allowed: 32"
        )
        body = scp_message(EXTERNALIZE).to_xdr_bytes()
        at = len(body) - 64
        self.assert_refused(
            replaced(body, at - 4, 65),
            f"SCP_MESSAGE.signature: 65 bytes at byte {at}, allowed: 64",
        )

    def test_too_many(self) -> None:
        """An array has at most as many elements as its bound."""
        peer = words(0, 0x0A000001, 1, 0)
        self.assert_passes(words(5, 100) + peer * 100)
        text = "PEERS: 101 elements at byte 8, allowed: 100"
        self.assert_refused(words(5, 101) + peer * 101, text)
        for kind in (MessageType.FLOOD_ADVERT, MessageType.FLOOD_DEMAND):
            self.assert_passes(words(kind, 1000) + bytes(32_000))
            text = f"{kind.name}.txHashes: 1001 elements at byte 8, allowed: 1000"
            self.assert_refused(words(kind, 1001) + bytes(32_032), text)
        operation = words(0, 9)
        self.assert_passes(extremes.transaction(extremes.envelope(words(100) + operation * 100)))
        self.assert_refused(
            extremes.transaction(extremes.envelope(words(101) + operation * 101)),
            "TransactionEnvelope.v1.tx.operations: 101 elements at byte 68, allowed: 100",
        )
        self.assert_refused(
            extremes.transaction(
                extremes.envelope(signatures=words(21) + words(0, 0) * 21),
            ),
            "TransactionEnvelope.v1.signatures: 21 elements at byte 76, allowed: 20",
        )

    def test_more_than_there_can_be(self) -> None:
        """An array whose elements cannot fit is refused before the first is looked at."""
        self.assert_refused(
            words(7) + bytes(32) + words(2**32 - 1),
            "TX_SET.txs: 4294967295 elements at byte 40 need 68 bytes each,"
            " but the end is at byte 40",
        )
        body = extremes.transaction(extremes.envelope(words(2**32 - 1)))
        text = "4294967295 elements at byte 68, allowed: 100"
        self.assert_refused(body, f"TransactionEnvelope.v1.tx.operations: {text}")
        body = extremes.transaction(extremes.envelope(extremes.invoke(words(2**32 - 1))))
        text = "4294967295 elements at byte 124 need 4 bytes each, but the end is at byte 136"
        where = "InvokeHostFunctionOp.hostFunction.invokeContract.args"
        self.assert_refused(body, f"{where}: {text}")

    def test_huge_words(self) -> None:
        """A word that is made huge is refused, or may be huge; nothing but XdrError is raised."""
        refused = 0
        for body in SAMPLES.values():
            for at in range(4, min(len(body), 600), 4):
                for word in (2**31 - 1, 2**31, 2**32 - 1):
                    try:
                        xdr_check.check(replaced(body, at, word))
                    except XdrError:
                        refused += 1
        self.assertGreater(refused, 3_000)

    def test_endless_opaque(self) -> None:
        """An opaque without a bound cannot be longer than what is left."""
        body = scp_message(EXTERNALIZE).to_xdr_bytes()
        self.assert_refused(
            replaced(body, 56, 2**32 - 1),
            "SCP_MESSAGE.statement.pledges.externalize.commit.value:"
            f" 4294967295 bytes at byte 60, but the end is at byte {len(body)}",
        )
