"""Transactions of every form, built with stellar_sdk: :data:`ENVELOPES` holds them by name."""

from __future__ import annotations

from collections.abc import Sequence

import stellar_sdk as sdk
from stellar_sdk import (
    Asset,
    Claimant,
    ClaimPredicate,
    LiquidityPoolAsset,
    MuxedAccount,
    Operation,
    Price,
    Signer,
    SignerKey,
    scval,
)
from stellar_sdk import xdr as x
from stellar_sdk.operation.revoke_sponsorship import RevokeSponsorship, RevokeSponsorshipType
from stellar_sdk.operation.revoke_sponsorship import Signer as SponsoredSigner
from stellar_sdk.operation.set_options import AuthorizationFlag
from stellar_sdk.operation.set_trust_line_flags import TrustLineFlags

from tests.xdr_parts import (
    ADDRESSES,
    AUTH,
    CONTRACT,
    HOST_FUNCTIONS,
    KEYS,
    LONGER,
    NAMES,
    USD,
    authorized,
    contract_data,
    decorated,
    hash_of,
    int64,
    invocation,
    public_key,
    soroban_data,
    uint32,
    vec,
)

MUXED = MuxedAccount(NAMES[2], 7)
POOL = "ab" * 32
BALANCE = "00000000" + "cd" * 32
PREDICATE = ClaimPredicate.predicate_and(
    ClaimPredicate.predicate_or(
        ClaimPredicate.predicate_unconditional(), ClaimPredicate.predicate_before_relative_time(9)
    ),
    ClaimPredicate.predicate_not(ClaimPredicate.predicate_before_absolute_time(8)),
)
SIGNER_KEYS = [
    SignerKey.ed25519_public_key(NAMES[1]),
    SignerKey.pre_auth_tx(b"\x0c" * 32),
    SignerKey.sha256_hash(b"\x0d" * 32),
    SignerKey.ed25519_signed_payload(sdk.SignedPayloadSigner(NAMES[1], b"payload")),
]
CLASSIC: list[Operation] = [
    sdk.CreateAccount(NAMES[1], "10"),
    sdk.CreateAccount(NAMES[1], "10", source=MUXED),
    sdk.Payment(NAMES[1], Asset.native(), "1"),
    sdk.Payment(MUXED, USD, "1", source=NAMES[0]),
    sdk.PathPaymentStrictReceive(NAMES[1], USD, "1", LONGER, "2", [Asset.native(), USD]),
    sdk.PathPaymentStrictSend(MUXED, LONGER, "1", Asset.native(), "2", [LONGER] * 5),
    sdk.ManageSellOffer(USD, LONGER, "1", Price(1, 2), 3),
    sdk.ManageBuyOffer(Asset.native(), LONGER, "1", Price(1, 2), 3),
    sdk.CreatePassiveSellOffer(USD, Asset.native(), "1", Price(1, 2)),
    sdk.SetOptions(),
    sdk.SetOptions(
        NAMES[3],
        AuthorizationFlag(1),
        AuthorizationFlag(2),
        *(3, 4, 5, 6),
        Signer(SIGNER_KEYS[0], 1),
        "example.com",
    ),
    *(sdk.SetOptions(signer=Signer(key, 1)) for key in SIGNER_KEYS),
    sdk.ChangeTrust(USD, "5"),
    sdk.ChangeTrust(LONGER),
    sdk.ChangeTrust(LiquidityPoolAsset(Asset.native(), USD)),
    sdk.AccountMerge(NAMES[1]),
    sdk.AccountMerge(MUXED),
    sdk.Inflation(),
    sdk.ManageData("name", b"value"),
    sdk.ManageData("odd", None),
    sdk.BumpSequence(12),
    sdk.CreateClaimableBalance(USD, "1", [Claimant(NAMES[1], PREDICATE), Claimant(NAMES[2])]),
    sdk.ClaimClaimableBalance(BALANCE),
    sdk.BeginSponsoringFutureReserves(NAMES[1]),
    sdk.EndSponsoringFutureReserves(),
    RevokeSponsorship.revoke_account_sponsorship(NAMES[1]),
    RevokeSponsorship.revoke_trustline_sponsorship(NAMES[1], USD),
    RevokeSponsorship.revoke_offer_sponsorship(NAMES[1], 5),
    RevokeSponsorship.revoke_data_sponsorship(NAMES[1], "entry"),
    RevokeSponsorship.revoke_claimable_balance_sponsorship(BALANCE),
    RevokeSponsorship.revoke_liquidity_pool_sponsorship(POOL),
    *(
        RevokeSponsorship(
            RevokeSponsorshipType.SIGNER,
            *(None,) * 5,
            SponsoredSigner(NAMES[1], key),
            None,
        )
        for key in SIGNER_KEYS
    ),
    sdk.Clawback(USD, MUXED, "1"),
    sdk.ClawbackClaimableBalance(BALANCE),
    sdk.SetTrustLineFlags(NAMES[1], LONGER, TrustLineFlags.AUTHORIZED_FLAG, TrustLineFlags(2)),
    sdk.LiquidityPoolDeposit(POOL, "1", "2", "3", "4"),
    sdk.LiquidityPoolWithdraw(POOL, "1", "2", "3"),
]
ALLOW_TRUST = [
    x.Operation(
        None,
        x.OperationBody(
            x.OperationType.ALLOW_TRUST,
            allow_trust_op=x.AllowTrustOp(x.AccountID(public_key(1)), code, uint32(1)),
        ),
    )
    for code in (
        x.AssetCode(x.AssetType.ASSET_TYPE_CREDIT_ALPHANUM4, x.AssetCode4(b"USD\0")),
        x.AssetCode(
            x.AssetType.ASSET_TYPE_CREDIT_ALPHANUM12, asset_code12=x.AssetCode12(b"LONGERNAME\0\0")
        ),
    )
]
SOROBAN: list[Operation] = [
    *(sdk.InvokeHostFunction(function, AUTH) for function in HOST_FUNCTIONS),
    sdk.InvokeHostFunction(HOST_FUNCTIONS[-1]),
    sdk.ExtendFootprintTTL(9),
    sdk.RestoreFootprint(),
]
TIME_BOUNDS = x.TimeBounds(x.TimePoint(x.Uint64(0)), x.TimePoint(x.Uint64(1_800_000_000)))
NO_PRECONDITION = x.Preconditions(x.PreconditionType.PRECOND_NONE)
TIME_PRECONDITION = x.Preconditions(x.PreconditionType.PRECOND_TIME, TIME_BOUNDS)
PRECONDITIONS = [
    NO_PRECONDITION,
    TIME_PRECONDITION,
    x.Preconditions(
        x.PreconditionType.PRECOND_V2,
        v2=x.PreconditionsV2(None, None, None, x.Duration(x.Uint64(1)), uint32(2), []),
    ),
    *(
        x.Preconditions(
            x.PreconditionType.PRECOND_V2,
            v2=x.PreconditionsV2(
                TIME_BOUNDS,
                x.LedgerBounds(uint32(1), uint32(2)),
                x.SequenceNumber(int64(3)),
                x.Duration(x.Uint64(1)),
                uint32(2),
                [key.to_xdr_object() for key in keys],
            ),
        )
        for keys in (SIGNER_KEYS[:2], SIGNER_KEYS[2:])
    ),
]
NO_MEMO = x.Memo(x.MemoType.MEMO_NONE)
MEMOS = [
    NO_MEMO,
    x.Memo(x.MemoType.MEMO_TEXT, text=b""),
    x.Memo(x.MemoType.MEMO_TEXT, text=b"sixteen bytes ok"),
    x.Memo(x.MemoType.MEMO_TEXT, text=b"\xffno utf-8"),
    x.Memo(x.MemoType.MEMO_ID, id=x.Uint64(6)),
    x.Memo(x.MemoType.MEMO_HASH, hash=hash_of(12)),
    x.Memo(x.MemoType.MEMO_RETURN, ret_hash=hash_of(13)),
]
PLAIN_EXT = x.TransactionExt(0)
PAYMENT = CLASSIC[2].to_xdr_object()


def transaction(
    ops: Sequence[x.Operation] = (PAYMENT,),
    *,
    source: MuxedAccount | None = None,
    cond: x.Preconditions = NO_PRECONDITION,
    memo: x.Memo = NO_MEMO,
    ext: x.TransactionExt = PLAIN_EXT,
    signatures: Sequence[x.DecoratedSignature] | None = None,
) -> x.TransactionV1Envelope:
    """Return a transaction of today, with one signature unless told otherwise."""
    muxed = (source or MuxedAccount(NAMES[0])).to_xdr_object()
    sequence = x.SequenceNumber(int64(1 << 40))
    tx = x.Transaction(muxed, uint32(100), sequence, cond, memo, list(ops), ext)
    return x.TransactionV1Envelope(tx, list(decorated() if signatures is None else signatures))


def envelope(v1: x.TransactionV1Envelope) -> x.TransactionEnvelope:
    """Return a transaction as it travels."""
    return x.TransactionEnvelope(x.EnvelopeType.ENVELOPE_TYPE_TX, v1=v1)


def fee_bump(v1: x.TransactionV1Envelope, source: str = NAMES[4]) -> x.TransactionEnvelope:
    """Return a transaction inside another that pays for it."""
    inner = x.FeeBumpTransactionInnerTx(x.EnvelopeType.ENVELOPE_TYPE_TX, v1)
    fee_source = MuxedAccount(source, 3 if source == NAMES[2] else None).to_xdr_object()
    tx = x.FeeBumpTransaction(fee_source, int64(400), inner, x.FeeBumpTransactionExt(0))
    return x.TransactionEnvelope(
        x.EnvelopeType.ENVELOPE_TYPE_TX_FEE_BUMP,
        fee_bump=x.FeeBumpTransactionEnvelope(tx, decorated(2)),
    )


def old_envelope(time_bounds: x.TimeBounds | None) -> x.TransactionEnvelope:
    """Return a transaction of before protocol 13."""
    tx = x.TransactionV0(
        x.Uint256(KEYS[0].raw_public_key()),
        uint32(100),
        x.SequenceNumber(int64(5)),
        time_bounds,
        MEMOS[2],
        [PAYMENT, CLASSIC[0].to_xdr_object()],
        x.TransactionV0Ext(0),
    )
    return x.TransactionEnvelope(
        x.EnvelopeType.ENVELOPE_TYPE_TX_V0, v0=x.TransactionV0Envelope(tx, decorated())
    )


def invoke(
    args: Sequence[x.SCVal], auth: Sequence[x.SorobanAuthorizationEntry] = ()
) -> x.Operation:
    """Return the operation that calls a contract."""
    function = x.HostFunction(
        x.HostFunctionType.HOST_FUNCTION_TYPE_INVOKE_CONTRACT, invoke_contract=invocation(args)
    )
    return sdk.InvokeHostFunction(function, list(auth)).to_xdr_object()


ENVELOPES: dict[str, x.TransactionEnvelope] = {
    "payment": envelope(transaction()),
    "all classic operations": envelope(
        transaction([*(one.to_xdr_object() for one in CLASSIC), *ALLOW_TRUST])
    ),
    "no operations": envelope(transaction([], signatures=[])),
    "muxed source": envelope(transaction(source=MUXED)),
    "odd signatures": envelope(transaction(signatures=[*decorated(1, 0), *decorated(19, 61)])),
    "soroban": envelope(transaction([SOROBAN[0].to_xdr_object()], ext=soroban_data())),
    "soroban without archived": envelope(
        transaction([SOROBAN[-1].to_xdr_object()], ext=soroban_data(archived=None))
    ),
    "fee bump": fee_bump(transaction(memo=MEMOS[2])),
    "fee bump, muxed": fee_bump(transaction(source=MUXED), NAMES[2]),
    "fee bump, soroban": fee_bump(
        transaction([SOROBAN[0].to_xdr_object()], cond=PRECONDITIONS[3], ext=soroban_data())
    ),
    "fee bump, condition": fee_bump(transaction(cond=PRECONDITIONS[4])),
    "before protocol 13": old_envelope(None),
    "before protocol 13, time bounds": old_envelope(TIME_BOUNDS),
    **{f"soroban {n}": envelope(transaction([o.to_xdr_object()])) for n, o in enumerate(SOROBAN)},
    **{f"condition {n}": envelope(transaction(cond=c)) for n, c in enumerate(PRECONDITIONS)},
    **{f"memo {n}": envelope(transaction(memo=memo)) for n, memo in enumerate(MEMOS)},
}


def swap() -> x.TransactionEnvelope:
    """Return a usual Soroban transaction: an exchange that its caller authorized, 1,348 bytes."""
    contract, account = (
        x.SCVal(x.SCValType.SCV_ADDRESS, address=address) for address in (CONTRACT, ADDRESSES[0])
    )
    path = vec([vec([contract, contract]), scval.to_bytes(b"\x21" * 32)])
    args = [account, path, scval.to_uint128(7), scval.to_uint128(8)]
    key, sig = scval.to_symbol("public_key"), scval.to_symbol("signature")
    signed = scval.to_map({key: scval.to_bytes(b"\x22" * 32), sig: scval.to_bytes(b"\x23" * 64)})
    address = x.SorobanAddressCredentials(ADDRESSES[0], int64(5), uint32(6), vec([signed]))
    caller = x.SorobanCredentials(
        x.SorobanCredentialsType.SOROBAN_CREDENTIALS_ADDRESS, address=address
    )
    instance = contract_data(x.SCVal(x.SCValType.SCV_LEDGER_KEY_CONTRACT_INSTANCE))
    balance = contract_data(vec([scval.to_symbol("Balance"), account]))
    nonce = contract_data(
        x.SCVal(x.SCValType.SCV_LEDGER_KEY_NONCE, nonce_key=x.SCNonceKey(int64(5)))
    )
    code = x.LedgerKey(
        x.LedgerEntryType.CONTRACT_CODE, contract_code=x.LedgerKeyContractCode(hash_of(10))
    )
    return envelope(
        transaction(
            [invoke(args, [x.SorobanAuthorizationEntry(caller, authorized(args))])],
            memo=x.Memo(x.MemoType.MEMO_TEXT, text=b"exchange XLM"),
            ext=soroban_data([instance, instance, code, code], [balance, nonce], None),
        )
    )
