"""What ``/quorum`` tells: the quorum set of a node, and how its own and others stand in a slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from stellar_overlay.admin.styled import Json
from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.node.flooding import flat_quorum_set
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.wire.quorum_set import (
    FlatQuorumSet,
    decode_quorum_set,
    encode_quorum_set,
    quorum_set_hash,
)
from stellar_overlay.wire.scp import ScpStatement

MAX_SLOTS_BACK = 12
"""In how many slots, from the newest one back, it is looked for what a node has said last."""
MAX_NODES = 1000
"""How many nodes the transitive answer tells of."""
MAX_MEMBERS = 20_000
"""How many members of quorum sets it names in all; a set for which no room is left is left out."""
_SHOWN_HASH = 6


class Quorum:
    """What is known of quorum sets and of a slot, as core's JSON.

    What only who takes part in consensus can measure is null, empty or left out: lags, costs, dead
    nodes, the intersection of quorums, and which value each node follows.

    :param is_compact: whether lists of nodes are told as their lengths.
    :param is_full: whether nodes are told by their full keys.
    """

    def __init__(self, overlay: OverlayManager, *, is_compact: bool, is_full: bool) -> None:
        self._overlay = overlay
        self._is_compact = is_compact
        self._is_full = is_full
        self._own_key = overlay.local_node.peer_id.key
        configured = overlay.config.quorum_set
        self._own = None if configured is None else flat_quorum_set(configured)
        herder = overlay.herder
        self._herder = herder if isinstance(herder, ObserverHerder) else None
        self._sets: dict[bytes, FlatQuorumSet | None] = {}
        self._names: dict[bytes, str] = {}
        self._room = MAX_MEMBERS

    def report(self, node: PeerId) -> dict[str, Json]:
        """Return how a node, and the nodes of our own quorum set, stand."""
        is_self = node.key == self._own_key
        slot = self._slot
        qset: dict[str, Json] = {} if slot is None else self._of_slot(node.key, slot)
        answer: dict[str, Json] = {"node": self._name(node.key)}
        if is_self:
            qset |= {"lag_ms": None, "cost": None}
            answer["maybe_dead_nodes"] = []
        return answer | {"qset": qset or None}

    def transitive(self, node: PeerId) -> dict[str, Json]:
        """Return the nodes that a node trusts, those that they trust, and so on."""
        root = self._heard_of(node.key)
        nodes = [self._of_node(key, distance, root) for key, distance in self._walk(node.key)]
        return {"nodes": nodes, "maybe_dead_nodes": []}

    # One slot.

    @cached_property
    def _slot(self) -> _Slot | None:
        """The slot that consensus has reached; the newest one where that is not known."""
        if self._herder is None:
            return None
        slots = self._herder.slots()
        if not slots:
            return None
        tracking = self._herder.tracking_ledger()
        number = next((slot.slot for slot in slots if slot.slot == tracking), slots[0].slot)
        return _Slot(number, _statements(self._herder, number))

    def _of_slot(self, node: bytes, slot: _Slot) -> dict[str, Json]:
        members = () if self._own is None else sorted(self._own.nodes())
        standing: dict[str, list[bytes]] = {
            "agree": [], "delayed": [], "disagree": [], "missing": []
        }  # fmt: skip
        agreed = slot.agreed_by(members)
        for member in members:
            standing["agree" if member == self._own_key else slot.of(member, agreed)].append(member)
        answer = self._of_quorum_set(node, slot) | {"ledger": slot.number}
        return answer | {name: self._listed(nodes) for name, nodes in standing.items()}

    def _of_quorum_set(self, node: bytes, slot: _Slot) -> dict[str, Json]:
        """Return how far a node has come, and whose failure would stop it."""
        ballot = slot.ballots.get(node)
        quorum_set = self._quorum_set_of(node, ballot)
        if quorum_set is None:
            return {"phase": "expired"}
        phase = "unknown" if ballot is None else ballot.kind.name
        value = slot.value_of(node)
        if ballot is None and self._is_settled(slot):
            phase, value = "EXTERNALIZE", slot.agreed_by(quorum_set.nodes())
        agreeing = {key for key in slot.ballots if slot.value_of(key) == value}
        failing = blocking(quorum_set, agreeing, spared=node)
        answer: dict[str, Json] = {
            "phase": phase,
            "hash": quorum_set_hash(encode_quorum_set(quorum_set).body).hex()[:_SHOWN_HASH],
            "fail_at": len(failing),
        }
        if not self._is_compact:
            answer["fail_with"] = [self._name(key) for key in failing] or None
            answer["value"] = self._set_json(quorum_set)
        return answer

    def _is_settled(self, slot: _Slot) -> bool:
        """Tell whether we have seen consensus on a slot, and follow it still."""
        herder = self._overlay.herder
        return slot.number == herder.tracking_ledger() and herder.is_tracking()

    # Many nodes.

    @cached_property
    def _heard(self) -> Mapping[bytes, ScpStatement]:
        """What each node has said last, about its newest slot: ballots rather than nominations."""
        heard: dict[bytes, ScpStatement] = {}
        herder = self._herder
        if herder is None:
            return heard
        for slot in herder.slots()[:MAX_SLOTS_BACK]:
            if slot.signers - heard.keys():
                heard = {one.node: one for one in _statements(herder, slot.slot)} | heard
        return heard

    def _walk(self, root: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield nodes and how far they are away, the nearest first, then in order of keys."""
        found, level, distance = {root}, [root], 0
        sets: set[int] = set()
        while level:
            following: set[bytes] = set()
            for node in level:
                yield node, distance
                quorum_set = self._quorum_set_of(node, self._heard.get(node))
                if quorum_set is not None and id(quorum_set) not in sets:
                    sets.add(id(quorum_set))
                    following |= quorum_set.nodes()
            level = sorted(following - found)[: MAX_NODES - len(found)]
            found.update(level)
            distance += 1

    def _heard_of(self, node: bytes) -> int:
        """Return the newest slot that a node has spoken about, or that we have reached; or 0."""
        latest = self._heard.get(node)
        if latest is not None:
            return latest.slot
        return self._overlay.herder.tracking_ledger() if node == self._own_key else 0

    def _of_node(self, node: bytes, distance: int, root_slot: int) -> dict[str, Json]:
        slot = self._heard_of(node)
        quorum_set = self._quorum_set_of(node, self._heard.get(node))
        answer: dict[str, Json] = {"node": self._name(node), "status": _status(slot, root_slot)}
        if slot:
            answer["heard"] = slot
        if not self._is_compact:
            answer["distance"] = distance
            if quorum_set is not None and self._has_room(quorum_set):
                answer["qset"] = self._set_json(quorum_set)
        return answer

    def _has_room(self, quorum_set: FlatQuorumSet) -> bool:
        self._room -= _size(quorum_set)
        return self._room >= 0

    # Names and sets.

    def _quorum_set_of(self, node: bytes, statement: ScpStatement | None) -> FlatQuorumSet | None:
        """Return the quorum set that a node names, or our own; None when it is not known."""
        if statement is None or self._herder is None:
            return self._own if node == self._own_key else None
        item_hash = statement.quorum_set_hash
        if item_hash not in self._sets:
            message = self._herder.get_quorum_set(item_hash)
            self._sets[item_hash] = None if message is None else decode_quorum_set(message.body)
        return self._sets[item_hash]

    def _set_json(self, quorum_set: FlatQuorumSet) -> dict[str, Json]:
        members: list[Json] = [self._name(key) for key in quorum_set.validators]
        members += [self._set_json(inner) for inner in quorum_set.inner]
        return {"t": quorum_set.threshold, "v": members}

    def _listed(self, nodes: list[bytes]) -> Json:
        return len(nodes) if self._is_compact else [self._name(key) for key in nodes] or None

    def _name(self, key: bytes) -> str:
        name = self._names.get(key)
        if name is None:
            node = PeerId(key)
            name = node.strkey if self._is_full else self._overlay.name_of(node)
            self._names[key] = name
        return name


class _Slot:
    """Where the nodes stand in one slot."""

    def __init__(self, number: int, statements: Iterable[ScpStatement]) -> None:
        self.number = number
        self.ballots: dict[bytes, ScpStatement] = {}
        self._nominating: set[bytes] = set()
        for one in statements:
            if one.is_nomination:
                self._nominating.add(one.node)
            else:
                self.ballots[one.node] = one

    def value_of(self, node: bytes) -> bytes | None:
        """Return the value of a node's ballot; None when it has none."""
        ballot = self.ballots.get(node)
        return ballot.values[0] if ballot is not None and ballot.values else None

    def agreed_by(self, nodes: Iterable[bytes]) -> bytes | None:
        """Return the value that most of ``nodes`` have agreed to."""
        values = Counter(
            self.ballots[node].externalized_value
            for node in nodes
            if node in self.ballots and self.ballots[node].is_externalize
        )
        return max(values, key=lambda value: (values[value], value), default=None)

    def of(self, node: bytes, agreed: bytes | None) -> str:
        """Return in which of core's lists a node belongs."""
        ballot = self.ballots.get(node)
        if ballot is not None and ballot.is_externalize:
            return "agree" if ballot.externalized_value == agreed else "disagree"
        return "delayed" if ballot is not None or node in self._nominating else "missing"


def blocking(quorum_set: FlatQuorumSet, agreeing: Collection[bytes], spared: bytes) -> list[bytes]:
    """Return a smallest group of agreeing nodes without which a quorum set cannot be satisfied.

    As core LocalNode::findClosestVBlocking: the others have failed already, and ``spared``, who
    asks, does not fail.
    """
    options = [
        [key] if key in agreeing else [] for key in quorum_set.validators if key != spared
    ] + [blocking(inner, agreeing, spared) for inner in quorum_set.inner]
    members = len(quorum_set.validators) + len(quorum_set.inner)
    options.sort(key=len)
    return [key for option in options[: members - quorum_set.threshold + 1] for key in option]


def _statements(herder: ObserverHerder, slot: int) -> Iterator[ScpStatement]:
    """Yield what was said about a slot: nominations, then ballots."""
    return (ScpStatement(message.body) for message in herder.latest_envelopes(slot))


def _size(quorum_set: FlatQuorumSet) -> int:
    """Return how many members it has, at all levels."""
    return len(quorum_set.validators) + sum(1 + _size(inner) for inner in quorum_set.inner)


def _status(slot: int, root_slot: int) -> str:
    """Return how a node is doing, compared with the one that was asked for; 0 is never heard."""
    if not slot:
        return "missing"
    if not root_slot:
        return "unknown"
    if slot == root_slot:
        return "tracking"
    return "behind" if slot < root_slot else "ahead"
