"""``/quorum``: what is known of how nodes stand, and nothing that is not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin import core_quorum
from stellar_overlay.admin.core_info import fail_at
from stellar_overlay.admin.core_quorum import blocking
from stellar_overlay.config import QuorumSet
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.node.flooding import flat_quorum_set
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import (
    FlatQuorumSet,
    encode_quorum_set,
    quorum_set_hash,
)
from stellar_overlay.wire.scp import externalize, nominate, prepare, stellar_value
from tests.admin.kit import AdminTestCase
from tests.builders import WALL_NOW, make_node

A, B, C, D = NODES = [make_node(number) for number in (11, 12, 13, 14)]
KEYS = [node.peer_id.key for node in NODES]
STRKEYS = [node.peer_id.strkey for node in NODES]
OWN_SET = QuorumSet(2, tuple(STRKEYS[:3]), (QuorumSet(1, (STRKEYS[3],)),))
OWN_HASH = quorum_set_hash(encode_quorum_set(flat_quorum_set(OWN_SET)).body)
VALUE = stellar_value(bytes(32), int(WALL_NOW))
OTHER_VALUE = stellar_value(bytes(32), int(WALL_NOW) + 1)
SLOT = 1000
EMPTY = {"agree": None, "delayed": None, "disagree": None, "missing": None}


def names(*positions: int) -> list[str]:
    """Return the short names of nodes, in order of keys."""
    return [node.peer_id.short for node in sorted(
        (NODES[position] for position in positions), key=lambda node: node.peer_id
    )]  # fmt: skip


class QuorumTestCase(AdminTestCase):
    """A node that a peer tells what others say."""

    def setUp(self) -> None:
        super().setUp()
        self.peer = self.world.call(number=9)

    def hear(self, *messages: Message) -> None:
        """Let the node hear statements."""
        for message in messages:
            self.peer.send(message)
        self.world.settle()

    def agree(self, *positions: int, slot: int = SLOT, value: bytes = VALUE) -> None:
        """Let nodes say that they have agreed; they name our own quorum set as theirs."""
        for position in positions:
            self.hear(externalize(NODES[position], slot, value, quorum_set_hash=OWN_HASH))


class ReportTests(QuorumTestCase):
    """How a node stands, for a node that has a quorum set."""

    settings = {"quorum_set": OWN_SET}  # noqa: RUF012

    def test_nothing_heard(self) -> None:
        """Then nothing is said; ourselves we know."""
        self.assertEqual(
            self.ask("/quorum"),
            {
                "node": self.node.local_node.peer_id.short,
                "qset": {"lag_ms": None, "cost": None},
                "maybe_dead_nodes": [],
            },
        )
        other = A.peer_id
        self.assertEqual(self.ask(f"/quorum?node={other}"), {"node": other.short, "qset": None})

    def test_self(self) -> None:
        """Who agrees, who lags, who is silent; how far we are from being stuck, and our set."""
        self.agree(0, 1)
        self.hear(nominate(C, SLOT, [VALUE], quorum_set_hash=OWN_HASH))
        self.assertEqual(self.node.herder.tracking_ledger(), SLOT)
        answer = self.ask("/quorum")
        self.assertEqual(set(answer), {"node", "qset", "maybe_dead_nodes"})
        qset = answer["qset"]
        failing = qset.pop("fail_with")
        self.assertEqual(len(failing), 1)
        self.assertIn(failing[0], names(0, 1))
        self.assertEqual(
            qset,
            {
                "phase": "EXTERNALIZE", "hash": OWN_HASH.hex()[:6], "fail_at": 1, "ledger": SLOT,
                "agree": names(0, 1), "delayed": names(2), "disagree": None, "missing": names(3),
                "value": {
                    "t": 2,
                    "v": [*(node.peer_id.short for node in (A, B, C)),
                          {"t": 1, "v": [D.peer_id.short]}],
                },
                "lag_ms": None, "cost": None,
            },
        )  # fmt: skip

    def test_compact(self) -> None:
        """Lists are told as numbers, and the set is left out."""
        self.agree(0, 1, 2)
        qset = self.ask("/quorum?compact=true")["qset"]
        self.assertEqual(
            qset,
            {
                "phase": "EXTERNALIZE", "hash": OWN_HASH.hex()[:6], "fail_at": 2, "ledger": SLOT,
                "agree": 3, "delayed": 0, "disagree": 0, "missing": 1,
                "lag_ms": None, "cost": None,
            },
        )  # fmt: skip
        self.assertIn("value", self.ask("/quorum?compact=1")["qset"])

    def test_as_info(self) -> None:
        """It tells the same as ``/info`` does."""
        self.agree(0, 1)
        whole: dict[str, Any] = self.ask("/quorum?compact=true")["qset"]
        brief = self.ask("/info")["info"]["quorum"]["qset"]
        self.assertEqual(brief, {name: whole[name] for name in brief})

    def test_full_keys(self) -> None:
        """Keys in full when asked for."""
        self.agree(0, 1)
        answer = self.ask("/quorum?fullkeys=true")
        self.assertEqual(answer["node"], self.node.local_node.peer_id.strkey)
        self.assertEqual(sorted(answer["qset"]["agree"]), sorted(STRKEYS[:2]))

    def test_disagree(self) -> None:
        """Who agreed to something else stands apart."""
        self.agree(0, 1)
        self.agree(2, value=OTHER_VALUE)
        qset = self.ask("/quorum")["qset"]
        self.assertEqual((qset["agree"], qset["disagree"]), (names(0, 1), names(2)))

    def test_others(self) -> None:
        """Of another node it is told how far it has come, by its own quorum set."""
        self.agree(0)
        self.hear(prepare(B, SLOT, VALUE, quorum_set_hash=OWN_HASH))
        answer = self.ask(f"/quorum?node={A.peer_id}")
        self.assertEqual(set(answer), {"node", "qset"})
        self.assertEqual(answer["qset"]["phase"], "EXTERNALIZE")
        self.assertEqual(answer["qset"]["fail_at"], 1)
        self.assertEqual(answer["qset"]["fail_with"], names(1))
        self.assertNotIn("lag_ms", answer["qset"])
        self.assertEqual(self.ask(f"/quorum?node=@{B.peer_id}")["qset"]["phase"], "PREPARE")

    def test_expired(self) -> None:
        """Whose quorum set is not known has no figures of its own."""
        self.agree(0)
        self.hear(externalize(B, SLOT, VALUE, quorum_set_hash=b"\1" * 32))
        for node in (B, C, make_node(77)):
            qset = self.ask(f"/quorum?node={node.peer_id}")["qset"]
            self.assertEqual(qset["phase"], "expired")
            self.assertEqual(set(qset), {"phase", "ledger", *EMPTY})

    def test_out_of_sync(self) -> None:
        """What is long ago is settled no more."""
        self.agree(0, 1)
        self.world.advance(40)
        self.assertEqual(self.ask("/quorum")["qset"]["phase"], "unknown")

    def test_unknown_name(self) -> None:
        """A name that nobody has; none at all is ourselves."""
        for name in ("$nobody", "@GZZ", "x", "%1b</b>"):
            self.assertEqual(self.say(f"/quorum?node={name}"), '{"exception": "unknown name"}')
        self.assertEqual(self.ask("/quorum?node=&compact=true"), self.ask("/quorum?compact=true"))


class TransitiveTests(QuorumTestCase):
    """Whom a node trusts, and whom they trust."""

    settings = {"quorum_set": OWN_SET}  # noqa: RUF012

    def test_self(self) -> None:
        """Ourselves first, then the others; who is behind, who was never heard."""
        self.agree(0, 1)
        self.hear(nominate(C, SLOT - 1, [VALUE]))
        answer = self.ask("/quorum?transitive=true")
        self.assertEqual(set(answer), {"nodes", "maybe_dead_nodes"})
        own, *others = answer["nodes"]
        self.assertEqual(own["node"], self.node.local_node.peer_id.short)
        self.assertEqual((own["status"], own["heard"], own["distance"]), ("tracking", SLOT, 0))
        self.assertEqual(own["qset"]["t"], 2)
        self.assertEqual([one["node"] for one in others], names(0, 1, 2, 3))
        found = {one["node"]: one for one in others}
        a, b, c, d = (found[node.peer_id.short] for node in NODES)
        self.assertEqual({one["distance"] for one in others}, {1})
        self.assertEqual((a["status"], a["heard"], a["qset"]), ("tracking", SLOT, own["qset"]))
        self.assertEqual(b["status"], "tracking")
        self.assertEqual(
            c, {"node": C.peer_id.short, "status": "behind", "heard": SLOT - 1, "distance": 1}
        )
        self.assertEqual(d, {"node": D.peer_id.short, "status": "missing", "distance": 1})

    def test_another(self) -> None:
        """From another node: compared with that."""
        self.hear(nominate(A, SLOT, [VALUE], quorum_set_hash=OWN_HASH))
        self.hear(nominate(B, SLOT + 1, [VALUE]))
        nodes = self.ask(f"/quorum?transitive=true&compact=true&node={A.peer_id}")["nodes"]
        self.assertEqual(nodes[0], {"node": A.peer_id.short, "status": "tracking", "heard": SLOT})
        found = {one["node"]: one["status"] for one in nodes}
        self.assertEqual((found[B.peer_id.short], found[C.peer_id.short]), ("ahead", "missing"))
        self.assertNotIn(self.node.local_node.peer_id.short, found)

    def test_bounds(self) -> None:
        """However many nodes there are, and however long their sets, the answer is not endless."""
        self.agree(0, 1)
        self.patch(core_quorum, "MAX_NODES", 3)
        self.patch(core_quorum, "MAX_MEMBERS", 12)  # ours has five
        nodes = self.ask("/quorum?transitive=true")["nodes"]
        self.assertEqual(len(nodes), 3)
        self.patch(core_quorum, "MAX_NODES", 9)
        nodes = self.ask("/quorum?transitive=true")["nodes"]
        self.assertEqual(len(nodes), 5)
        self.assertEqual(sum("qset" in node for node in nodes), 2)

    def test_unheard(self) -> None:
        """Where nothing was heard, nobody is said to be ahead."""
        nodes = self.ask("/quorum?transitive=true&compact=true")["nodes"]
        self.assertEqual({one["status"] for one in nodes}, {"missing"})
        self.assertEqual(len(nodes), 5)
        self.hear(nominate(B, SLOT, [VALUE]))
        nodes = self.ask("/quorum?transitive=true&compact=true")["nodes"]
        found = {one["node"]: one["status"] for one in nodes}
        self.assertEqual(found[B.peer_id.short], "unknown")


class NoQuorumSetTests(QuorumTestCase):
    """A node that trusts nobody in particular."""

    def test_report(self) -> None:
        """It has no figures of its own; what others say it can tell."""
        self.hear(prepare(A, SLOT, VALUE))
        qset = self.ask("/quorum")["qset"]
        self.assertEqual(
            qset, {"phase": "expired", "ledger": SLOT, "lag_ms": None, "cost": None, **EMPTY}
        )
        self.assertEqual(len(self.ask("/quorum?transitive=true")["nodes"]), 1)


class IgnorantTests(AdminTestCase):
    """A node whose brain ignores all it hears."""

    settings = {"quorum_set": OWN_SET}  # noqa: RUF012

    def make_node(self) -> OverlayManager:
        return self.world.node(herder=IgnoringHerder(), **self.settings)

    def test_report(self) -> None:
        """It knows of no slot, but whom it trusts."""
        self.assertEqual(self.ask("/quorum")["qset"], {"lag_ms": None, "cost": None})
        self.assertEqual(len(self.ask("/quorum?transitive=true")["nodes"]), 5)


class BlockingTests(SynchronousTestCase):
    """The fewest failures that stop a node."""

    SET = FlatQuorumSet(
        2, (KEYS[0],), (FlatQuorumSet(2, tuple(KEYS[1:])), FlatQuorumSet(1, (b"\5" * 32,)))
    )

    @settings(derandomize=True, max_examples=100)
    @given(st.sets(st.sampled_from([*KEYS, b"\5" * 32])))
    def test_blocks(self, agreeing: set[bytes]) -> None:
        """Without them the rest is no slice; there are as many as ``/info`` says."""
        failing = blocking(self.SET, agreeing, b"")
        self.assertLessEqual(set(failing), agreeing)
        self.assertFalse(self.SET.is_satisfied_by(agreeing - set(failing)))
        for one in failing:
            self.assertTrue(self.SET.is_satisfied_by(agreeing - (set(failing) - {one})))

    def test_spared(self) -> None:
        """Who asks does not count on failing itself."""
        simple = FlatQuorumSet(2, tuple(KEYS[:3]))
        self.assertEqual(blocking(simple, KEYS[:3], KEYS[0]), KEYS[1:3])
        self.assertEqual(blocking(simple, KEYS[:2], KEYS[0]), KEYS[1:2])
        self.assertEqual(blocking(simple, KEYS[:1], KEYS[0]), [])

    def test_as_info(self) -> None:
        """The number is that of ``/info``."""
        flat = flat_quorum_set(OWN_SET)
        for count in range(5):
            self.assertEqual(
                len(blocking(flat, KEYS[:count], b"")), fail_at(OWN_SET, set(STRKEYS[:count]))
            )
