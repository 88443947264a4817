"""Messages of every type, built with stellar_sdk: bodies for the tests of the wire.

:data:`SAMPLES` holds them by type and name. They are structurally rich, not sensible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stellar_sdk import xdr as x

from tests.xdr_parts import KEYS, hash_of, int64, node_id, signature, uint32
from tests.xdr_transactions import ENVELOPES

# SCP.


def stellar_value(kind: x.StellarValueType, upgrades: int = 0) -> x.Value:
    """Return a value as nodes vote for it."""
    signed = x.LedgerCloseValueSignature(node_id(), signature())
    proposed = x.StellarValueProposedValue(hash_of(1), hash_of(2), uint32(24), signed)
    ext = {
        x.StellarValueType.STELLAR_VALUE_BASIC: x.StellarValueExt(kind),
        x.StellarValueType.STELLAR_VALUE_SIGNED: x.StellarValueExt(kind, signed),
        x.StellarValueType.STELLAR_VALUE_EMPTY_TX_SET: x.StellarValueExt(
            kind, proposed_value=proposed
        ),
    }[kind]
    when = x.TimePoint(x.Uint64(1_700_000_000))
    value = x.StellarValue(hash_of(3), when, [x.UpgradeType(b"upgrade")] * upgrades, ext)
    return x.Value(value.to_xdr_bytes())


VALUES = [stellar_value(kind, upgrades) for kind in x.StellarValueType for upgrades in (0, 2)]
ODD_VALUE = x.Value(b"odd")


def ballot(counter: int = 1, value: x.Value = VALUES[0]) -> x.SCPBallot:
    """Return a ballot."""
    return x.SCPBallot(uint32(counter), value)


def scp_message(pledges: x.SCPStatementPledges, signature_size: int = 64) -> x.StellarMessage:
    """Return an SCP_MESSAGE."""
    statement = x.SCPStatement(node_id(), x.Uint64(50_000_000), pledges)
    return x.StellarMessage(
        x.MessageType.SCP_MESSAGE, envelope=x.SCPEnvelope(statement, signature(signature_size))
    )


def nominate(votes: Sequence[x.Value], accepted: Sequence[x.Value]) -> x.SCPStatementPledges:
    """Return pledges that nominate."""
    nomination = x.SCPNomination(hash_of(9), list(votes), list(accepted))
    return x.SCPStatementPledges(x.SCPStatementType.SCP_ST_NOMINATE, nominate=nomination)


def prepare(
    ballot_: x.SCPBallot, prepared: x.SCPBallot | None = None, prime: x.SCPBallot | None = None
) -> x.SCPStatementPledges:
    """Return pledges that prepare."""
    return x.SCPStatementPledges(
        x.SCPStatementType.SCP_ST_PREPARE,
        prepare=x.SCPStatementPrepare(hash_of(9), ballot_, prepared, prime, uint32(0), uint32(1)),
    )


CONFIRM = x.SCPStatementPledges(
    x.SCPStatementType.SCP_ST_CONFIRM,
    confirm=x.SCPStatementConfirm(ballot(2), uint32(1), uint32(1), uint32(2), hash_of(9)),
)
EXTERNALIZE = x.SCPStatementPledges(
    x.SCPStatementType.SCP_ST_EXTERNALIZE,
    externalize=x.SCPStatementExternalize(ballot(3, VALUES[2]), uint32(3), hash_of(9)),
)


def quorum_set(validators: int, inner: Sequence[x.SCPQuorumSet] = ()) -> x.SCPQuorumSet:
    """Return a quorum set of so many validators, not all different, and inner sets."""
    nodes = [node_id(index % len(KEYS)) for index in range(validators)]
    return x.SCPQuorumSet(uint32(1), nodes, list(inner))


# Transaction sets.


def tx_set(envelopes: Sequence[x.TransactionEnvelope]) -> x.StellarMessage:
    """Return a TX_SET."""
    return x.StellarMessage(
        x.MessageType.TX_SET, tx_set=x.TransactionSet(hash_of(14), list(envelopes))
    )


def classic_phase(
    components: Sequence[Sequence[x.TransactionEnvelope]], base_fee: int | None = 100
) -> x.TransactionPhase:
    """Return a phase of components."""
    fee = None if base_fee is None else int64(base_fee)
    kind = x.TxSetComponentType.TXSET_COMP_TXS_MAYBE_DISCOUNTED_FEE
    return x.TransactionPhase(
        0,
        v0_components=[
            x.TxSetComponent(kind, x.TxSetComponentTxsMaybeDiscountedFee(fee, list(txs)))
            for txs in components
        ],
    )


def parallel_phase(
    stages: Sequence[Sequence[Sequence[x.TransactionEnvelope]]], base_fee: int | None = None
) -> x.TransactionPhase:
    """Return a phase of stages of clusters."""
    fee = None if base_fee is None else int64(base_fee)
    component = x.ParallelTxsComponent(
        fee,
        [
            x.ParallelTxExecutionStage([x.DependentTxCluster(list(txs)) for txs in clusters])
            for clusters in stages
        ],
    )
    return x.TransactionPhase(1, parallel_txs_component=component)


def generalized(phases: Sequence[x.TransactionPhase]) -> x.StellarMessage:
    """Return a GENERALIZED_TX_SET."""
    return x.StellarMessage(
        x.MessageType.GENERALIZED_TX_SET,
        generalized_tx_set=x.GeneralizedTransactionSet(
            1, x.TransactionSetV1(hash_of(14), list(phases))
        ),
    )


def message_of(envelope_: x.TransactionEnvelope) -> x.StellarMessage:
    """Return a TRANSACTION."""
    return x.StellarMessage(x.MessageType.TRANSACTION, transaction=envelope_)


# Handshake, flow control, queries, surveys.


def hello(version: bytes = b"stellar_overlay 1.0") -> x.StellarMessage:
    """Return a HELLO."""
    cert = x.AuthCert(x.Curve25519Public(b"\x0e" * 32), x.Uint64(1_800_000_000), signature())
    return x.StellarMessage(
        x.MessageType.HELLO,
        hello=x.Hello(
            uint32(28),
            uint32(42),
            uint32(38),
            hash_of(15),
            version,
            11625,
            node_id(),
            cert,
            x.Uint256(b"\x0f" * 32),
        ),
    )


PEERS = [
    x.PeerAddress(x.PeerAddressIp(x.IPAddrType.IPv4, ipv4=b"\x0a\0\0\1"), uint32(1), uint32(0)),
    x.PeerAddress(x.PeerAddressIp(x.IPAddrType.IPv6, ipv6=b"\x20" * 16), uint32(2), uint32(3)),
]
TOPOLOGY = x.SurveyMessageCommandType.TIME_SLICED_SURVEY_TOPOLOGY


def survey_request() -> x.StellarMessage:
    """Return a request of a survey."""
    request = x.SurveyRequestMessage(
        node_id(0), node_id(1), uint32(9), x.Curve25519Public(b"\x0e" * 32), TOPOLOGY
    )
    signed = x.SignedTimeSlicedSurveyRequestMessage(
        signature(), x.TimeSlicedSurveyRequestMessage(request, uint32(1), uint32(2), uint32(3))
    )
    return x.StellarMessage(
        x.MessageType.TIME_SLICED_SURVEY_REQUEST,
        signed_time_sliced_survey_request_message=signed,
    )


def survey_response(size: int = 77) -> x.StellarMessage:
    """Return a response of a survey."""
    response = x.SurveyResponseMessage(
        node_id(0), node_id(1), uint32(9), TOPOLOGY, x.EncryptedBody(b"\x11" * size)
    )
    signed = x.SignedTimeSlicedSurveyResponseMessage(
        signature(), x.TimeSlicedSurveyResponseMessage(response, uint32(1))
    )
    return x.StellarMessage(
        x.MessageType.TIME_SLICED_SURVEY_RESPONSE,
        signed_time_sliced_survey_response_message=signed,
    )


def all_messages() -> Iterable[tuple[str, x.StellarMessage]]:
    """Yield messages of all types, with what is special about them."""
    kind, message = x.MessageType, x.StellarMessage
    payment, soroban, bump = (ENVELOPES[name] for name in ("payment", "soroban", "fee bump"))
    for code in x.ErrorCode:
        yield f"error {code.name}", message(kind.ERROR_MSG, error=x.Error(code, b"why"))
    yield "", hello()
    yield "odd version", hello(b"v")
    yield "", message(kind.AUTH, auth=x.Auth(200))
    for wanted in kind:
        dont_have = x.DontHave(wanted, x.Uint256(b"\x10" * 32))
        yield wanted.name, message(kind.DONT_HAVE, dont_have=dont_have)
    yield "", message(kind.PEERS, peers=PEERS * 50)
    yield "none", message(kind.PEERS, peers=[])
    yield "", message(kind.GET_TX_SET, tx_set_hash=x.Uint256(b"\x10" * 32))
    yield "", message(kind.GET_SCP_QUORUMSET, q_set_hash=x.Uint256(b"\x10" * 32))
    yield "", message(kind.GET_SCP_STATE, get_scp_ledger_seq=uint32(0))
    yield "", message(kind.SEND_MORE, send_more_message=x.SendMore(uint32(40)))
    grant = x.SendMoreExtended(uint32(40), uint32(100_000))
    yield "", message(kind.SEND_MORE_EXTENDED, send_more_extended_message=grant)
    for count in (0, 50, 1000):
        hashes = [hash_of(number % 256) for number in range(count)]
        advert = x.FloodAdvert(x.TxAdvertVector(hashes))
        demand = x.FloodDemand(x.TxDemandVector(hashes))
        yield f"{count} hashes", message(kind.FLOOD_ADVERT, flood_advert=advert)
        yield f"{count} hashes", message(kind.FLOOD_DEMAND, flood_demand=demand)
    yield "", survey_request()
    yield "", survey_response()
    start = x.TimeSlicedSurveyStartCollectingMessage(node_id(), uint32(1), uint32(2))
    yield (
        "",
        message(
            kind.TIME_SLICED_SURVEY_START_COLLECTING,
            signed_time_sliced_survey_start_collecting_message=(
                x.SignedTimeSlicedSurveyStartCollectingMessage(signature(), start)
            ),
        ),
    )
    stop = x.TimeSlicedSurveyStopCollectingMessage(node_id(), uint32(1), uint32(2))
    yield (
        "",
        message(
            kind.TIME_SLICED_SURVEY_STOP_COLLECTING,
            signed_time_sliced_survey_stop_collecting_message=(
                x.SignedTimeSlicedSurveyStopCollectingMessage(signature(), stop)
            ),
        ),
    )
    tree = quorum_set(3, [quorum_set(2), quorum_set(0, [quorum_set(1, [quorum_set(1)])])])
    for name, q_set in {"flat": quorum_set(5), "empty": quorum_set(0), "tree": tree}.items():
        yield name, message(kind.SCP_QUORUMSET, q_set=q_set)
    yield "externalize", scp_message(EXTERNALIZE)
    yield "externalize, odd signature", scp_message(EXTERNALIZE, 3)
    yield "confirm", scp_message(CONFIRM)
    yield "nominate", scp_message(nominate(VALUES[:2], VALUES[2:3]))
    yield "nominate nothing", scp_message(nominate([], []))
    yield "nominate all", scp_message(nominate([*VALUES, ODD_VALUE], [ODD_VALUE, *VALUES]))
    yield "prepare", scp_message(prepare(ballot()))
    yield "prepare, prepared", scp_message(prepare(ballot(), ballot(2)))
    yield "prepare, prime", scp_message(prepare(ballot(), None, ballot(2, ODD_VALUE)))
    yield "prepare, both", scp_message(prepare(ballot(1, ODD_VALUE), ballot(2), ballot(3)))
    for name, one in ENVELOPES.items():
        yield name, message_of(one)
    yield "none", tx_set([])
    yield "all", tx_set(list(ENVELOPES.values()))
    yield "none", generalized([])
    yield "empty phases", generalized([classic_phase([]), parallel_phase([])])
    yield (
        "two phases",
        generalized(
            [
                classic_phase([[payment, bump], [payment], []]),
                parallel_phase([[[soroban], [soroban, soroban]], [[]]], 100),
            ]
        ),
    )
    yield "free", generalized([classic_phase([[payment]], None), parallel_phase([[[soroban]]])])


SAMPLES: dict[str, bytes] = {
    f"{message.type.name} {name}".strip(): message.to_xdr_bytes()
    for name, message in all_messages()
}
"""Canonical bodies; each key begins with the name of the message's type."""
