"""What we ask of a message beyond XDR, and hints that make the emitted code fast."""

from __future__ import annotations

ROOT = "StellarMessage"
"""The union of all messages; the checker covers what can be reached from it."""

ANY_NUMBER = {
    "Error.code",
    "DontHave.type",
    "SurveyRequestMessage.commandType",
    "SurveyResponseMessage.commandType",
}
"""Fields of an enum in which every number is legal, as in stellar-core."""

LIMITS = {
    "MAX_TRANSACTION_BYTES": 256 * 1024,
    "MAX_SCP_BYTES": 64 * 1024,
    "MAX_LEVELS": 200,
    "MAX_QUORUM_LEVELS": 5,
    "MAX_VALIDATORS": 1_000,
    "MAX_INNER_SETS": 4_000,
    "WORK_BUDGET": 200_000_000,
    "WORK_PER_BYTE": 5,
}
"""Constants of the checker."""

MEANINGS = {
    "MAX_TRANSACTION_BYTES": """
        Bytes of a TransactionEnvelope, alone or in a transaction set; a rule of ours, at nearly
        twice what pubnet allows. It also limits an envelope to 65,536 SCVals, which have 4 bytes
        at least, and a map entry 8, so that nobody has to count them.""",
    "MAX_SCP_BYTES": """
        Bytes of an SCPEnvelope; a rule of ours. Real ones have a few hundred.""",
    "MAX_LEVELS": """
        Levels of values inside values of the same type (SCVal, ClaimPredicate,
        SorobanAuthorizedInvocation, SorobanDelegateSignature), the outermost included; a rule of
        ours. stellar-core gives up at 1,500 levels of all types together (main.cpp).""",
    "MAX_QUORUM_LEVELS": """
        Levels of an SCP_QUORUMSET, its root included, which stellar-core calls depth 0: it allows
        depth 4 (QuorumSetUtils.cpp:16). Deeper ones are refused here rather than there.""",
    "MAX_VALIDATORS": """
        Validators of an SCP_QUORUMSET with all its inner sets (core QuorumSetUtils.cpp). Sets of
        more are refused here rather than there.""",
    "MAX_INNER_SETS": """
        Inner sets of an SCP_QUORUMSET, at all levels together; a rule of ours. 1,000 validators,
        each in a set of its own at each of 4 levels, need no more; thresholds are not judged.""",
    "WORK_BUDGET": """
        Work that one message may cost, in nanoseconds of a 2.6 GHz Xeon, roughly; a rule of ours
        against 16 MiB of tiny elements. 10 MiB of real transactions take 60 to 80 % of it. Bytes
        are paid at once; an element's work beyond that of its bytes is paid where an array begins
        that must be walked one by one; what is dearer than its neighbours, where it is met.""",
    "WORK_PER_BYTE": """
        Work that is paid for each byte of a message, in the unit of WORK_BUDGET.""",
}
"""What they mean: unit, origin and effect."""

MAX_BYTES = {"TransactionEnvelope": "MAX_TRANSACTION_BYTES", "SCPEnvelope": "MAX_SCP_BYTES"}
"""Types with a limit on their size."""

MAX_LEVELS = {"SCPQuorumSet": "MAX_QUORUM_LEVELS"}
"""Recursive types with another limit on their levels than ``MAX_LEVELS``."""

MAX_TOTALS = {
    "SCPQuorumSet.validators": "MAX_VALIDATORS",
    "SCPQuorumSet.innerSets": "MAX_INNER_SETS",
}
"""Arrays of recursive types that are limited over all levels together."""

BUDGETED = "TransactionEnvelope"
"""The type that draws on ``WORK_BUDGET``, as does everything in it and around it."""

WORK = {
    "TransactionPhase": 550,
    "TxSetComponent": 350,
    "ParallelTxExecutionStage": 300,
    "DependentTxCluster": 300,
    "TransactionEnvelope": 800,
    "Operation": 400,
    "DecoratedSignature": 220,
    "SignerKey": 100,
    "Asset": 100,
    "Claimant": 200,
    "ClaimPredicate": 120,
    "LedgerKey": 350,
    "SCVal": 135,
    "SorobanAuthorizationEntry": 1400,
    "SorobanAuthorizedInvocation": 700,
    "SorobanDelegateSignature": 800,
}
"""Price of an element of a walked array, in the unit of ``WORK_BUDGET``.

Measured: the time that a body full of the element takes, less ``WORK_PER_BYTE`` for its bytes; of
all elements of that type the dearest, but for what ``EXTRA_WORK`` covers. When one is too low, a
body full of that element takes longer than a budget; ``benchmarks.bench_xdr_check`` shows them.
"""

WORK_PER_LEVEL = 150
"""Price of going one level down in a recursive type."""

EXTRA_WORK = {
    "ChangeTrustOp.line.liquidityPool": 300,
    "InvokeHostFunctionOp": 700,
    "ManageDataOp": 300,
    "PathPaymentStrictReceiveOp": 200,
    "PathPaymentStrictSendOp": 200,
    "RevokeSponsorshipOp": 300,
    "SCVal.b": 60,
    "SCVal.bytes": 300,
    "SCVal.error": 130,
    "SCVal.executable_tag": 350,
    "SCVal.instance": 550,
    "SCVal.map": 130,
    "SCVal.str": 350,
    "SCVal.sym": 230,
    "SCVal.vec": 100,
    "SetOptionsOp": 900,
    "TransactionEnvelope.feeBump": 900,
    "TransactionEnvelope.v1.tx.ext.sorobanData": 300,
    "TransactionV1Envelope.tx.ext.sorobanData": 300,
}
"""Price of what is dearer than its neighbours, by path, when it is met."""

COMMON_FIRST = {
    "SCVal": (15, 18, 16, 17, 13),
    "LedgerKey": (6, 7, 0, 1),
    "SCAddress": (1, 0),
    "TransactionEnvelope": (2, 5, 0),
}
"""Tags of unions in the order in which to try them; the others follow as XDR lists them."""

INLINE = {
    "PaymentOp.asset",
    "SCVal.address",
    "LedgerKey.contractData.contract",
    "TransactionEnvelope.v1",
}
"""Paths to values whose type's code is repeated there for speed, rather than called."""
