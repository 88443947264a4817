"""Parts of XDR values, built with stellar_sdk: keys, and what Soroban transactions are made of.

They are structurally rich, not sensible: hashes are of one byte, and nothing is signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stellar_sdk import Asset, Keypair, scval
from stellar_sdk import xdr as x

KEYS = [Keypair.from_raw_ed25519_seed(bytes([n]) * 32) for n in range(1, 6)]
NAMES = [key.public_key for key in KEYS]
USD, LONGER = Asset("USD", NAMES[0]), Asset("LONGERNAME", NAMES[1])


def uint32(value: int) -> x.Uint32:
    """Return a u32."""
    return x.Uint32(value)


def int64(value: int) -> x.Int64:
    """Return an i64."""
    return x.Int64(value)


def hash_of(number: int) -> x.Hash:
    """Return 32 bytes of one value."""
    return x.Hash(bytes([number]) * 32)


def public_key(index: int = 0) -> x.PublicKey:
    """Return one of the keys."""
    return KEYS[index].xdr_public_key()


def node_id(index: int = 0) -> x.NodeID:
    """Return one of the keys as a node's name."""
    return x.NodeID(public_key(index))


def signature(size: int = 64) -> x.Signature:
    """Return bytes in the place of a signature."""
    return x.Signature(b"\x5a" * size)


def decorated(count: int = 1, size: int = 64) -> list[x.DecoratedSignature]:
    """Return signatures of a transaction."""
    return [x.DecoratedSignature(x.SignatureHint(b"hint"), signature(size))] * count


# Soroban.


def vec(values: Iterable[x.SCVal]) -> x.SCVal:
    """Return a vector."""
    return scval.to_vec(list(values))


ADDRESSES = [
    x.SCAddress(x.SCAddressType.SC_ADDRESS_TYPE_ACCOUNT, account_id=x.AccountID(public_key())),
    x.SCAddress(x.SCAddressType.SC_ADDRESS_TYPE_CONTRACT, contract_id=x.ContractID(hash_of(4))),
    x.SCAddress(
        x.SCAddressType.SC_ADDRESS_TYPE_MUXED_ACCOUNT,
        muxed_account=x.MuxedEd25519Account(x.Uint64(5), x.Uint256(b"\x06" * 32)),
    ),
    x.SCAddress(
        x.SCAddressType.SC_ADDRESS_TYPE_CLAIMABLE_BALANCE,
        claimable_balance_id=x.ClaimableBalanceID(
            x.ClaimableBalanceIDType.CLAIMABLE_BALANCE_ID_TYPE_V0, hash_of(7)
        ),
    ),
    x.SCAddress(
        x.SCAddressType.SC_ADDRESS_TYPE_LIQUIDITY_POOL, liquidity_pool_id=x.PoolID(hash_of(8))
    ),
]
CONTRACT = ADDRESSES[1]
EXECUTABLES = [
    x.ContractExecutable(x.ContractExecutableType.CONTRACT_EXECUTABLE_WASM, hash_of(10)),
    x.ContractExecutable(x.ContractExecutableType.CONTRACT_EXECUTABLE_STELLAR_ASSET),
    x.ContractExecutable(
        x.ContractExecutableType.CONTRACT_EXECUTABLE_EXTERNAL_REF,
        external_ref=x.ContractExecutableExternalRef(CONTRACT, x.SCString(b"tag")),
    ),
]
STORAGE = x.SCMap([x.SCMapEntry(scval.to_symbol("key"), scval.to_uint32(1))])
ERRORS = [
    x.SCVal(
        x.SCValType.SCV_ERROR,
        error=x.SCError(x.SCErrorType.SCE_CONTRACT, contract_code=uint32(12)),
    ),
    *(
        x.SCVal(
            x.SCValType.SCV_ERROR, error=x.SCError(kind, code=x.SCErrorCode.SCEC_UNEXPECTED_SIZE)
        )
        for kind in x.SCErrorType
        if kind is not x.SCErrorType.SCE_CONTRACT
    ),
]
INSTANCES = [
    x.SCVal(x.SCValType.SCV_CONTRACT_INSTANCE, instance=x.SCContractInstance(executable, storage))
    for executable in EXECUTABLES
    for storage in (None, STORAGE)
]
VALUES_OF_ALL_ARMS = [
    scval.to_bool(False),
    scval.to_bool(True),
    scval.to_void(),
    scval.to_uint32(1),
    scval.to_int32(-1),
    scval.to_uint64(2),
    scval.to_int64(-2),
    scval.to_timepoint(3),
    scval.to_duration(4),
    scval.to_uint128(5),
    scval.to_int128(-5),
    scval.to_uint256(6),
    scval.to_int256(-6),
    scval.to_bytes(b"\0\1\2\3\4"),
    scval.to_string("text"),
    scval.to_symbol("transfer"),
    scval.to_symbol("odd"),
    vec([]),
    vec([vec([scval.to_void(), vec([])]), scval.to_int32(1)]),
    x.SCVal(x.SCValType.SCV_VEC),
    scval.to_map({scval.to_symbol("a"): vec([]), scval.to_symbol("b"): scval.to_void()}),
    x.SCVal(x.SCValType.SCV_MAP),
    *(x.SCVal(x.SCValType.SCV_ADDRESS, address=address) for address in ADDRESSES),
    *ERRORS,
    *INSTANCES,
    x.SCVal(x.SCValType.SCV_LEDGER_KEY_CONTRACT_INSTANCE),
    x.SCVal(x.SCValType.SCV_LEDGER_KEY_NONCE, nonce_key=x.SCNonceKey(int64(-9))),
    x.SCVal(x.SCValType.SCV_EXECUTABLE_TAG, executable_tag=x.SCString(b"tag")),
]
PREIMAGES = [
    x.ContractIDPreimage(
        x.ContractIDPreimageType.CONTRACT_ID_PREIMAGE_FROM_ADDRESS,
        from_address=x.ContractIDPreimageFromAddress(ADDRESSES[0], x.Uint256(b"\x0b" * 32)),
    ),
    x.ContractIDPreimage(
        x.ContractIDPreimageType.CONTRACT_ID_PREIMAGE_FROM_ASSET, from_asset=USD.to_xdr_object()
    ),
]


def invocation(args: Sequence[x.SCVal], name: str = "transfer") -> x.InvokeContractArgs:
    """Return the call of a contract."""
    return x.InvokeContractArgs(CONTRACT, x.SCSymbol(name.encode()), list(args))


CREATIONS = [
    x.CreateContractArgs(preimage, executable)
    for preimage in PREIMAGES
    for executable in EXECUTABLES
]
CREATIONS_V2 = [
    x.CreateContractArgsV2(preimage, EXECUTABLES[0], VALUES_OF_ALL_ARMS[:4])
    for preimage in PREIMAGES
]
HOST_FUNCTIONS = [
    x.HostFunction(
        x.HostFunctionType.HOST_FUNCTION_TYPE_INVOKE_CONTRACT,
        invoke_contract=invocation(VALUES_OF_ALL_ARMS),
    ),
    *(
        x.HostFunction(
            x.HostFunctionType.HOST_FUNCTION_TYPE_CREATE_CONTRACT, create_contract=creation
        )
        for creation in CREATIONS
    ),
    *(
        x.HostFunction(
            x.HostFunctionType.HOST_FUNCTION_TYPE_CREATE_CONTRACT_V2, create_contract_v2=creation
        )
        for creation in CREATIONS_V2
    ),
    x.HostFunction(
        x.HostFunctionType.HOST_FUNCTION_TYPE_UPLOAD_CONTRACT_WASM, wasm=b"\0asm" + b"\7" * 99
    ),
]


def authorized(
    arguments: Sequence[x.SCVal] = (), inner: Sequence[x.SorobanAuthorizedInvocation] = ()
) -> x.SorobanAuthorizedInvocation:
    """Return the authorization of a call and of calls inside it."""
    function = x.SorobanAuthorizedFunction(
        x.SorobanAuthorizedFunctionType.SOROBAN_AUTHORIZED_FUNCTION_TYPE_CONTRACT_FN,
        contract_fn=invocation(arguments),
    )
    return x.SorobanAuthorizedInvocation(function, list(inner))


AUTHORIZED_CREATIONS = [
    x.SorobanAuthorizedInvocation(
        x.SorobanAuthorizedFunction(
            x.SorobanAuthorizedFunctionType.SOROBAN_AUTHORIZED_FUNCTION_TYPE_CREATE_CONTRACT_HOST_FN,
            create_contract_host_fn=CREATIONS[2],
        ),
        [],
    ),
    x.SorobanAuthorizedInvocation(
        x.SorobanAuthorizedFunction(
            x.SorobanAuthorizedFunctionType.SOROBAN_AUTHORIZED_FUNCTION_TYPE_CREATE_CONTRACT_V2_HOST_FN,
            create_contract_v2_host_fn=CREATIONS_V2[0],
        ),
        [],
    ),
]
AUTH_TREE = authorized(
    VALUES_OF_ALL_ARMS[:5], [authorized([], AUTHORIZED_CREATIONS), authorized(inner=[authorized()])]
)


def delegate(inner: Sequence[x.SorobanDelegateSignature] = ()) -> x.SorobanDelegateSignature:
    """Return a delegate's signature, with those of its delegates."""
    return x.SorobanDelegateSignature(ADDRESSES[0], scval.to_bytes(b"sig"), list(inner))


def credentials() -> list[x.SorobanCredentials]:
    """Return credentials of all kinds."""
    kind = x.SorobanCredentialsType
    address = x.SorobanAddressCredentials(
        ADDRESSES[0],
        int64(77),
        uint32(1_000),
        vec([scval.to_map({scval.to_symbol("k"): ERRORS[0]})]),
    )
    delegates = [delegate([delegate(), delegate([delegate()])])]
    return [
        x.SorobanCredentials(kind.SOROBAN_CREDENTIALS_SOURCE_ACCOUNT),
        x.SorobanCredentials(kind.SOROBAN_CREDENTIALS_ADDRESS, address=address),
        x.SorobanCredentials(kind.SOROBAN_CREDENTIALS_ADDRESS_V2, address_v2=address),
        x.SorobanCredentials(
            kind.SOROBAN_CREDENTIALS_ADDRESS_WITH_DELEGATES,
            address_with_delegates=x.SorobanAddressCredentialsWithDelegates(address, delegates),
        ),
    ]


AUTH = [x.SorobanAuthorizationEntry(one, AUTH_TREE) for one in credentials()]


def contract_data(
    key: x.SCVal,
    durability: x.ContractDataDurability = x.ContractDataDurability.PERSISTENT,
) -> x.LedgerKey:
    """Return the key of an entry of a contract."""
    data = x.LedgerKeyContractData(CONTRACT, key, durability)
    return x.LedgerKey(x.LedgerEntryType.CONTRACT_DATA, contract_data=data)


LEDGER_KEYS = [
    x.LedgerKey(x.LedgerEntryType.ACCOUNT, account=x.LedgerKeyAccount(x.AccountID(public_key(1)))),
    *(
        x.LedgerKey(
            x.LedgerEntryType.TRUSTLINE,
            trust_line=x.LedgerKeyTrustLine(x.AccountID(public_key(1)), asset),
        )
        for asset in (
            x.TrustLineAsset(x.AssetType.ASSET_TYPE_NATIVE),
            x.TrustLineAsset.from_xdr_bytes(USD.to_xdr_object().to_xdr_bytes()),
            x.TrustLineAsset.from_xdr_bytes(LONGER.to_xdr_object().to_xdr_bytes()),
            x.TrustLineAsset(
                x.AssetType.ASSET_TYPE_POOL_SHARE, liquidity_pool_id=x.PoolID(hash_of(8))
            ),
        )
    ),
    x.LedgerKey(
        x.LedgerEntryType.OFFER, offer=x.LedgerKeyOffer(x.AccountID(public_key()), int64(5))
    ),
    x.LedgerKey(
        x.LedgerEntryType.DATA,
        data=x.LedgerKeyData(x.AccountID(public_key()), x.String64(b"entry")),
    ),
    x.LedgerKey(
        x.LedgerEntryType.CLAIMABLE_BALANCE,
        claimable_balance=x.LedgerKeyClaimableBalance(
            x.ClaimableBalanceID(x.ClaimableBalanceIDType.CLAIMABLE_BALANCE_ID_TYPE_V0, hash_of(7))
        ),
    ),
    x.LedgerKey(
        x.LedgerEntryType.LIQUIDITY_POOL,
        liquidity_pool=x.LedgerKeyLiquidityPool(x.PoolID(hash_of(8))),
    ),
    *(
        contract_data(key, durability)
        for durability in x.ContractDataDurability
        for key in (
            VALUES_OF_ALL_ARMS[-3],
            vec([scval.to_symbol("Balance"), VALUES_OF_ALL_ARMS[2]]),
        )
    ),
    x.LedgerKey(
        x.LedgerEntryType.CONTRACT_CODE, contract_code=x.LedgerKeyContractCode(hash_of(10))
    ),
    x.LedgerKey(
        x.LedgerEntryType.CONFIG_SETTING,
        config_setting=x.LedgerKeyConfigSetting(
            x.ConfigSettingID.CONFIG_SETTING_CONTRACT_MAX_SIZE_BYTES
        ),
    ),
    x.LedgerKey(x.LedgerEntryType.TTL, ttl=x.LedgerKeyTtl(hash_of(11))),
]


def soroban_data(
    read_only: Sequence[x.LedgerKey] = LEDGER_KEYS,
    read_write: Sequence[x.LedgerKey] = LEDGER_KEYS[-4:-2],
    archived: Sequence[int] | None = (1, 2),
) -> x.TransactionExt:
    """Return what a Soroban transaction says about its resources."""
    ext = (
        x.SorobanTransactionDataExt(0)
        if archived is None
        else x.SorobanTransactionDataExt(1, x.SorobanResourcesExtV0([uint32(n) for n in archived]))
    )
    footprint = x.LedgerFootprint(list(read_only), list(read_write))
    resources = x.SorobanResources(footprint, uint32(1_000_000), uint32(4_000), uint32(500))
    return x.TransactionExt(1, x.SorobanTransactionData(ext, resources, int64(30_000)))
