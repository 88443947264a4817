"""Transaction sets against stellar_sdk's objects and recorded hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.wire import xdr_check
from stellar_overlay.wire.message import Message, MessageType
from stellar_overlay.wire.tx_set import generalized_tx_set, transactions_of, tx_set, tx_set_hash
from tests.builders import load_vectors
from tests.xdr_samples import SAMPLES
from tests.xdr_transactions import ENVELOPES

PREVIOUS = b"\x17" * 32
RECORDED: dict[str, dict[str, Any]] = {
    vector["name"]: vector for vector in load_vectors("xdr-vectors")["vectors"]
}
SETS = {name: body for name, body in SAMPLES.items() if "TX_SET" in name.split()[0]}
SETS = {name: body for name, body in SETS.items() if not name.startswith("GET_")}
ENVELOPE_BYTES = [envelope.to_xdr_bytes() for envelope in ENVELOPES.values()]


def recorded(name: str) -> bytes:
    """Return a recorded body."""
    return bytes.fromhex(RECORDED[name]["hex"])


def transactions_in(decoded: Any) -> Iterator[Any]:
    """Yield the envelopes in a set that stellar_sdk has decoded."""
    if decoded.tx_set is not None:
        yield from decoded.tx_set.txs
        return
    for phase in decoded.generalized_tx_set.v1_tx_set.phases:
        for component in phase.v0_components or ():
            yield from component.txs_maybe_discounted_fee.txs
        parallel = phase.parallel_txs_component
        for stage in parallel.execution_stages if parallel else ():
            for cluster in stage.parallel_tx_execution_stage:
                yield from cluster.dependent_tx_cluster


def full_hashes(body: bytes) -> list[bytes]:
    """Return the hashes of the transactions in a set."""
    return [hashlib.sha256(envelope).digest() for envelope in transactions_of(body)]


class HashTests(SynchronousTestCase):
    """What sets are asked for by."""

    def test_recorded_generalized(self) -> None:
        """The recorded sets have the recorded hashes."""
        names = [name for name in RECORDED if name.startswith("GENERALIZED_TX_SET")]
        self.assertEqual(len(names), 2)
        for name in names:
            self.assertEqual(tx_set_hash(recorded(name)).hex(), RECORDED[name]["fields"]["hash"])

    def test_legacy(self) -> None:
        """That of a TX_SET is over the ledger's hash and the transactions, without their number."""
        bodies = [body for name, body in SETS.items() if name.startswith("TX_SET")]
        for body in [recorded("TX_SET_legacy"), *bodies]:
            decoded: Any = Message(body).decoded.tx_set
            hashed = hashlib.sha256(decoded.previous_ledger_hash.hash)
            for envelope in decoded.txs:
                hashed.update(envelope.to_xdr_bytes())
            self.assertEqual(tx_set_hash(body), hashed.digest())

    def test_neither(self) -> None:
        """Another message has no such hash."""
        with self.assertRaises(ValueError):
            tx_set_hash(SAMPLES["TRANSACTION payment"])
        with self.assertRaises(ValueError):
            next(transactions_of(SAMPLES["TRANSACTION payment"]))


class ContentTests(SynchronousTestCase):
    """The transactions in a set."""

    def test_samples(self) -> None:
        """All are found, in order, whatever the phases are made of."""
        self.assertEqual(len(SETS), 6)
        for name, body in SETS.items():
            expected = [one.to_xdr_bytes() for one in transactions_in(Message(body).decoded)]
            self.assertEqual(list(transactions_of(body)), expected, name)

    def test_recorded(self) -> None:
        """The recorded sets have as many as the recorder noted."""
        for name, count in (
            ("GENERALIZED_TX_SET_v1_two_phases", 2),
            ("GENERALIZED_TX_SET_v1_parallel_phase", 1),
            ("TX_SET_legacy", 1),
        ):
            self.assertEqual(len(list(transactions_of(recorded(name)))), count)


class BuildingTests(SynchronousTestCase):
    """Sets of our own."""

    def test_tx_set(self) -> None:
        """A TX_SET is canonical and holds what it was given, sorted by hash."""
        for envelopes in ([], ENVELOPE_BYTES[:1], ENVELOPE_BYTES):
            message = tx_set(PREVIOUS, envelopes)
            self.assertEqual(message.type, MessageType.TX_SET)
            xdr_check.check(message.body)
            decoded: Any = message.decoded.tx_set
            self.assertEqual(decoded.previous_ledger_hash.hash, PREVIOUS)
            self.assertEqual(sorted(transactions_of(message.body)), sorted(envelopes))
            self.assertEqual(full_hashes(message.body), sorted(full_hashes(message.body)))

    def test_recorded_tx_set(self) -> None:
        """The recorded one is built again from its parts."""
        body = recorded("TX_SET_legacy")
        self.assertEqual(tx_set(body[4:36], list(transactions_of(body))).body, body)

    def test_generalized(self) -> None:
        """A GENERALIZED_TX_SET has one classic component and an empty parallel phase."""
        for envelopes in (ENVELOPE_BYTES[:1], ENVELOPE_BYTES):
            message = generalized_tx_set(PREVIOUS, envelopes, base_fee=7)
            self.assertEqual(message.type, MessageType.GENERALIZED_TX_SET)
            xdr_check.check(message.body)
            decoded: Any = message.decoded.generalized_tx_set
            self.assertEqual(decoded.v1_tx_set.previous_ledger_hash.hash, PREVIOUS)
            classic, soroban = decoded.v1_tx_set.phases
            (component,) = classic.v0_components
            self.assertEqual(component.txs_maybe_discounted_fee.base_fee.int64, 7)
            self.assertIsNone(soroban.parallel_txs_component.base_fee)
            self.assertEqual(soroban.parallel_txs_component.execution_stages, [])
            self.assertEqual(sorted(transactions_of(message.body)), sorted(envelopes))
            self.assertEqual(full_hashes(message.body), sorted(full_hashes(message.body)))

    def test_recorded_generalized(self) -> None:
        """The recorded one is built again, but for its second phase, which is of before 23."""
        body = recorded("GENERALIZED_TX_SET_v1_two_phases")
        ours = generalized_tx_set(body[8:40], list(transactions_of(body))[::-1]).body
        self.assertEqual(ours[:-12], body[:-8])

    def test_nothing_in_it(self) -> None:
        """Without transactions there is no component: core refuses an empty one."""
        message = generalized_tx_set(PREVIOUS, [])
        xdr_check.check(message.body)
        decoded: Any = message.decoded.generalized_tx_set
        self.assertEqual(decoded.v1_tx_set.phases[0].v0_components, [])
        self.assertEqual(list(transactions_of(message.body)), [])
