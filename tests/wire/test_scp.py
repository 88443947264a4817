"""Flat views of SCP statements against stellar_sdk's objects and core's order."""

from __future__ import annotations

from functools import cmp_to_key
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from stellar_sdk import xdr as x
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.wire.message import Message
from stellar_overlay.wire.scp import ScpStatement, StatementType
from tests.builders import load_vectors, make_node

NODE, OTHER_NODE = make_node(1), make_node(2)
Ballot = tuple[int, bytes]


def ballot(counter: int = 1, value: bytes = b"v") -> x.SCPBallot:
    """Return a ballot."""
    return x.SCPBallot(x.Uint32(counter), x.Value(value))


def optional(pair: Ballot | None) -> x.SCPBallot | None:
    """Return a ballot where there is one."""
    return None if pair is None else ballot(*pair)


def prepare(
    of: Ballot = (1, b"v"),
    prepared: Ballot | None = None,
    prepared_prime: Ballot | None = None,
    n_c: int = 0,
    n_h: int = 0,
) -> x.SCPStatementPledges:
    """Return a PREPARE."""
    return x.SCPStatementPledges(
        x.SCPStatementType.SCP_ST_PREPARE,
        prepare=x.SCPStatementPrepare(
            x.Hash(bytes(32)),
            ballot(*of),
            optional(prepared),
            optional(prepared_prime),
            x.Uint32(n_c),
            x.Uint32(n_h),
        ),
    )


def confirm(
    of: Ballot = (1, b"v"), n_prepared: int = 0, n_commit: int = 0, n_h: int = 0
) -> x.SCPStatementPledges:
    """Return a CONFIRM."""
    return x.SCPStatementPledges(
        x.SCPStatementType.SCP_ST_CONFIRM,
        confirm=x.SCPStatementConfirm(
            ballot(*of),
            x.Uint32(n_prepared),
            x.Uint32(n_commit),
            x.Uint32(n_h),
            x.Hash(bytes(32)),
        ),
    )


def externalized(commit: Ballot = (1, b"v"), n_h: int = 0) -> x.SCPStatementPledges:
    """Return an EXTERNALIZE."""
    return x.SCPStatementPledges(
        x.SCPStatementType.SCP_ST_EXTERNALIZE,
        externalize=x.SCPStatementExternalize(ballot(*commit), x.Uint32(n_h), x.Hash(bytes(32))),
    )


def nominate(votes: list[bytes], accepted: list[bytes]) -> x.SCPStatementPledges:
    """Return a NOMINATE, its values in the order given."""
    return x.SCPStatementPledges(
        x.SCPStatementType.SCP_ST_NOMINATE,
        nominate=x.SCPNomination(
            x.Hash(bytes(32)), [x.Value(v) for v in votes], [x.Value(v) for v in accepted]
        ),
    )


def statement(
    pledges: x.SCPStatementPledges, *, slot: int = 7, key: bytes = NODE.peer_id.key
) -> x.SCPStatement:
    """Return a statement."""
    node = x.NodeID(x.PublicKey(x.PublicKeyType.PUBLIC_KEY_TYPE_ED25519, x.Uint256(key)))
    return x.SCPStatement(node, x.Uint64(slot), pledges)


def view(
    pledges: x.SCPStatementPledges, *, slot: int = 7, key: bytes = NODE.peer_id.key
) -> ScpStatement:
    """Return the flat view of a statement in an unsigned SCP_MESSAGE."""
    envelope = x.SCPEnvelope(statement(pledges, slot=slot, key=key), x.Signature(b""))
    message = x.StellarMessage(x.MessageType.SCP_MESSAGE, envelope=envelope)
    return ScpStatement(message.to_xdr_bytes())


# Core's order, step by step, on objects.


def compare_ballots(one: Any, two: Any) -> int:
    """BallotProtocol.cpp:1825-1872."""
    if one is None or two is None:
        return (one is not None) - (two is not None)
    if one.counter.uint32 != two.counter.uint32:
        return -1 if one.counter.uint32 < two.counter.uint32 else 1
    left, right = list(one.value.value), list(two.value.value)
    return (left > right) - (left < right)


def is_newer_ballot(old: Any, new: Any) -> bool:
    """BallotProtocol.cpp:56-130."""
    if old.type != new.type:
        return bool(old.type.value < new.type.value)
    if new.type == x.SCPStatementType.SCP_ST_EXTERNALIZE:
        return False
    if new.type == x.SCPStatementType.SCP_ST_CONFIRM:
        first, second = old.confirm, new.confirm
        order = compare_ballots(first.ballot, second.ballot)
        if order:
            return order < 0
        if first.n_prepared.uint32 != second.n_prepared.uint32:
            return bool(first.n_prepared.uint32 < second.n_prepared.uint32)
        return bool(first.n_h.uint32 < second.n_h.uint32)
    first, second = old.prepare, new.prepare
    for order in (
        compare_ballots(first.ballot, second.ballot),
        compare_ballots(first.prepared, second.prepared),
        compare_ballots(first.prepared_prime, second.prepared_prime),
    ):
        if order:
            return order < 0
    return bool(first.n_h.uint32 < second.n_h.uint32)


def includes(outer: list[bytes], inner: list[bytes]) -> bool:
    """std::includes of sorted ranges."""
    left = list(outer)
    for value in inner:
        while left and left[0] < value:
            left.pop(0)
        if not left or left.pop(0) != value:
            return False
    return True


def is_newer_nomination(old: Any, new: Any) -> bool:
    """NominationProtocol.cpp:47-105."""
    grows = False
    for first, second in ((old.votes, new.votes), (old.accepted, new.accepted)):
        inner, outer = [v.value for v in first], [v.value for v in second]
        if len(inner) > len(outer) or not includes(outer, inner):
            return False
        grows = grows or len(inner) != len(outer)
    return grows


def older_first(one: ScpStatement, two: ScpStatement) -> int:
    """Compare for sorting."""
    return 1 if one.is_newer_than(two) else -1


NUMBERS = st.sampled_from([0, 1, 2, 255, 256, 2**24, 2**32 - 1])
VALUES = st.sampled_from(
    [b"", b"\0", b"\0\0", b"\1", b"\1\0\0\0\0", b"\x7f", b"\x80", b"\xff" * 40]
)
BALLOTS = st.tuples(NUMBERS, VALUES)
MAYBE = st.none() | BALLOTS
BALLOT_PLEDGES = st.one_of(
    st.builds(prepare, BALLOTS, MAYBE, MAYBE, NUMBERS, NUMBERS),
    st.builds(confirm, BALLOTS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(externalized, BALLOTS, NUMBERS),
)
SANE_VALUES = st.sets(VALUES, max_size=4).map(sorted)
NOMINATIONS = st.builds(nominate, SANE_VALUES, SANE_VALUES)
MODEST = settings(max_examples=300, derandomize=True, deadline=None)


class ViewTests(SynchronousTestCase):
    """Node, slot, kind and topic, read in place."""

    def test_fields_of_all_kinds(self) -> None:
        """Each of the four kinds shows its signer, slot and kind."""
        kinds = {
            StatementType.PREPARE: prepare(prepared=(1, b"x"), n_c=3),
            StatementType.CONFIRM: confirm(),
            StatementType.EXTERNALIZE: externalized(),
            StatementType.NOMINATE: nominate([b"a"], []),
        }
        for kind, pledges in kinds.items():
            for slot in (0, 1, 2**32, 2**64 - 1):
                seen = view(pledges, slot=slot, key=OTHER_NODE.peer_id.key)
                self.assertEqual(
                    (seen.node, seen.slot, seen.kind), (OTHER_NODE.peer_id.key, slot, kind)
                )

    def test_recorded_messages(self) -> None:
        """The recorded statements say what the recorder noted."""
        for vector in load_vectors("xdr-vectors")["vectors"]:
            if vector["name"].startswith("SCP_MESSAGE_"):
                seen = ScpStatement(bytes.fromhex(vector["hex"]))
                decoded: Any = Message(seen.body).decoded.envelope
                fields = vector["fields"]
                self.assertEqual(seen.slot, int(fields["slotIndex"]))
                self.assertEqual(seen.kind.name.lower(), fields["kind"])
                self.assertEqual(seen.node, decoded.statement.node_id.node_id.ed25519.uint256)

    def test_topic(self) -> None:
        """Statements share a topic when node, slot and protocol are the same."""
        ballot_topic = view(prepare()).topic
        self.assertEqual(ballot_topic, view(confirm()).topic)
        self.assertEqual(ballot_topic, view(externalized()).topic)
        for other in (
            view(nominate([b"a"], [])),
            view(prepare(), slot=8),
            view(prepare(), key=OTHER_NODE.peer_id.key),
        ):
            self.assertNotEqual(ballot_topic, other.topic)


class OrderTests(SynchronousTestCase):
    """Which of two statements of one topic supersedes the other."""

    @MODEST
    @given(BALLOT_PLEDGES, BALLOT_PLEDGES)
    def test_ballot_order_is_core_s(
        self, old: x.SCPStatementPledges, new: x.SCPStatementPledges
    ) -> None:
        """Of any two ballot statements the newer one is the one that core takes."""
        self.assertIs(view(new).is_newer_than(view(old)), is_newer_ballot(old, new))

    @MODEST
    @given(NOMINATIONS, NOMINATIONS)
    def test_nomination_order_is_core_s(
        self, old: x.SCPStatementPledges, new: x.SCPStatementPledges
    ) -> None:
        """Of any two sane nominations the newer one is the one that core takes."""
        expected = is_newer_nomination(old.nominate, new.nominate)
        self.assertIs(view(new).is_newer_than(view(old)), expected)

    @MODEST
    @given(st.one_of(BALLOT_PLEDGES, NOMINATIONS), st.one_of(BALLOT_PLEDGES, NOMINATIONS))
    def test_never_both(self, one: x.SCPStatementPledges, two: x.SCPStatementPledges) -> None:
        """No statement is newer than itself, and no two are each newer than the other."""
        first, second = view(one), view(two)
        self.assertFalse(first.is_newer_than(first))
        self.assertFalse(first.is_newer_than(second) and second.is_newer_than(first))

    def test_steps_of_a_slot(self) -> None:
        """A slot's statements in the order in which a node makes them are each newer."""
        steps = [
            view(prepare((1, b"a"))),
            view(prepare((1, b"a"), n_h=1)),
            view(prepare((1, b"a"), (1, b"a"))),
            view(prepare((1, b"a"), (1, b"b"), (1, b"a"))),
            view(prepare((2, b"a"))),
            view(confirm((1, b"a"))),
            view(confirm((1, b"a"), 0, 0, 5)),
            view(confirm((1, b"a"), 1, 0, 0)),
            view(confirm((2, b"a"))),
            view(externalized()),
        ]
        for at, newer in enumerate(steps):
            for older in steps[:at]:
                self.assertTrue(newer.is_newer_than(older))
                self.assertFalse(older.is_newer_than(newer))

    def test_numbers_count_in_full(self) -> None:
        """Each number that orders statements is read whole, from its own place."""
        numbers = [0, 1, 255, 256, 2**24 - 1, 2**24, 2**31, 2**32 - 1]
        for low, high in pairwise(numbers):
            for older, newer in (
                (prepare(n_c=high, n_h=low), prepare(n_c=low, n_h=high)),
                (prepare((low, b"z")), prepare((high, b"a"))),
                (prepare(prepared=(low, b"z")), prepare(prepared=(high, b"a"))),
                (prepare(prepared_prime=(low, b"z")), prepare(prepared_prime=(high, b"a"))),
                (confirm(n_commit=high, n_h=low), confirm(n_commit=low, n_h=high)),
                (confirm(n_prepared=low, n_h=high), confirm(n_prepared=high, n_h=low)),
            ):
                self.assertTrue(view(newer).is_newer_than(view(older)))
                self.assertFalse(view(older).is_newer_than(view(newer)))

    def test_same_number_of_commits(self) -> None:
        """nC, and nCommit of a CONFIRM, have no part in the order."""
        for one, two in (
            (prepare(n_c=1), prepare(n_c=2)),
            (confirm(n_commit=1), confirm(n_commit=2)),
            (externalized((1, b"a"), 1), externalized((2, b"b"), 2)),
        ):
            self.assertFalse(view(one).is_newer_than(view(two)))
            self.assertFalse(view(two).is_newer_than(view(one)))

    def test_values_are_ordered_as_bytes(self) -> None:
        """Values of equal counters sort byte by byte, a prefix before what it begins."""
        values = [b"", b"\0", b"\0\0", b"\0\1", b"\1", b"\x7f\xff", b"\x80"]
        views = [view(prepare((1, value))) for value in values]
        views.reverse()
        views.sort(key=cmp_to_key(older_first))
        self.assertEqual([v.body for v in views], [view(prepare((1, v))).body for v in values])

    def test_other_topic(self) -> None:
        """A statement of another node, slot or protocol is never superseded (core SCP.cpp:428)."""
        old = view(prepare())
        for other in (
            view(externalized(), slot=8),
            view(externalized(), key=OTHER_NODE.peer_id.key),
            view(nominate([b"a"], [b"a"])),
        ):
            self.assertFalse(other.is_newer_than(old))
            self.assertFalse(old.is_newer_than(other))

    def test_repeated_value_is_not_newer(self) -> None:
        """Nobody gets a statement through as newer by repeating or reordering its values."""
        old = view(nominate([b"a", b"b"], []))
        for votes in ([b"a", b"b", b"b"], [b"b", b"a"], [b"a"]):
            self.assertFalse(view(nominate(votes, [])).is_newer_than(old))


class ContentTests(SynchronousTestCase):
    """What a statement names: a quorum set and values."""

    def test_quorum_set_hash(self) -> None:
        """Each kind has the hash of its node's quorum set at a place of its own."""
        marked = x.Hash(b"\x9a" * 32)
        pledges = [prepare((1, b"odd"), (1, b"x")), confirm(), externalized(), nominate([b"a"], [])]
        for one in pledges:
            arm = one.prepare or one.confirm or one.externalize or one.nominate
            name = "commit_quorum_set_hash" if one.externalize else "quorum_set_hash"
            setattr(arm, name, marked)
            self.assertEqual(view(one).quorum_set_hash, marked.hash)

    def test_values(self) -> None:
        """Values come in the order in which they are written, each once."""
        for pledges, expected in (
            (prepare((2, b"b")), (b"b",)),
            (prepare((2, b"b"), (1, b"a")), (b"b", b"a")),
            (prepare((2, b"b"), None, (1, b"c")), (b"b", b"c")),
            (prepare((2, b"b"), (1, b"b"), (1, b"a")), (b"b", b"a")),
            (confirm((1, b"")), (b"",)),
            (externalized((1, b"longer")), (b"longer",)),
            (nominate([b"b", b"a"], [b"c", b"b"]), (b"b", b"a", b"c")),
            (nominate([], []), ()),
        ):
            self.assertEqual(view(pledges).values, expected)

    def test_prepare_without_a_ballot(self) -> None:
        """The value of a ballot that counts 0 does not count (core BallotProtocol.cpp:2087)."""
        self.assertEqual(view(prepare((0, b"b"))).values, ())
        self.assertEqual(view(prepare((0, b"b"), (0, b"a"))).values, (b"a",))

    def test_externalized_value(self) -> None:
        """Only an EXTERNALIZE says what was agreed to."""
        self.assertEqual(view(externalized((1, b"v"))).externalized_value, b"v")
        for other in (prepare(), confirm(), nominate([b"v"], [b"v"])):
            self.assertIsNone(view(other).externalized_value)
