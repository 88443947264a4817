"""Whose statements matter: the nodes of a quorum set, and those that they trust in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stellar_overlay.bounded import BoundedDict
from stellar_overlay.wire.message import Message
from stellar_overlay.wire.quorum_set import (
    FlatQuorumSet,
    decode_quorum_set,
    encode_quorum_set,
    quorum_set_hash,
)

MAX_QUORUM_NODES = 1000
"""How many nodes are trusted at most, the configured ones apart."""
MAX_QUORUM_SETS = 1000
QUORUM_SET_BYTES = 8 * 1024 * 1024
"""How many quorum sets are kept for those who ask."""
MAX_NODES_NAMED = 64_000
"""How many nodes the sets of trusted nodes may name in all, each time counted."""

_NO_HASH = bytes(32)


class QuorumSets:
    """The quorum sets that were heard, and our own one.

    :param own: the configured one; never forgotten.
    """

    def __init__(self, own: FlatQuorumSet | None = None) -> None:
        self._messages: BoundedDict[bytes, Message] = BoundedDict(MAX_QUORUM_SETS, QUORUM_SET_BYTES)
        self._insane: BoundedDict[bytes, None] = BoundedDict(MAX_QUORUM_SETS)
        self._own: dict[bytes, Message] = {}
        if own is not None:
            message = encode_quorum_set(own)
            self._own[quorum_set_hash(message.body)] = message

    def add(self, item_hash: bytes, message: Message) -> FlatQuorumSet | None:
        """Keep a quorum set that was heard; return None, and keep the hash alone, if it is insane.

        Core discards what names such a set, and does not pass it on (messages.md 4.2).
        """
        quorum_set = decode_quorum_set(message.body)
        if not quorum_set.is_sane():
            self._insane.put(item_hash, None)
            return None
        if item_hash not in self._own:
            self._messages.put(item_hash, message, message.size)
        return quorum_set

    def get(self, item_hash: bytes) -> Message | None:
        """Return a quorum set, if it is here."""
        return self._own.get(item_hash) or self._messages.get(item_hash)

    def is_wanted(self, item_hash: bytes) -> bool:
        """Tell whether it makes sense to ask for a set; all zeros name none."""
        return not (
            item_hash in self._messages
            or item_hash == _NO_HASH
            or item_hash in self._own
            or item_hash in self._insane
        )


class TransitiveQuorum:
    """The nodes of a quorum set, those in the sets of these, and so on.

    Built anew when asked for after something changed, breadth first up to
    :data:`MAX_QUORUM_NODES`; of the nodes at one distance, those with small sets go first, so that
    one long list of inventions crowds out as little as possible.

    A node's set is what it named last and was heard since; it stays until the next is heard.
    """

    def __init__(self, quorum_set: FlatQuorumSet) -> None:
        self._configured = quorum_set.nodes()
        self._named: dict[bytes, bytes] = {}
        """The hash that each node has named last."""
        self._trusts: dict[bytes, frozenset[bytes]] = {}
        self._size = 0
        self._nodes: frozenset[bytes] | None = None

    @property
    def nodes(self) -> frozenset[bytes]:
        """All of them."""
        if self._nodes is None:
            self._nodes = frozenset(self._walk())
            self._forget_others(self._nodes)
        return self._nodes

    def is_configured(self, node: bytes) -> bool:
        """Tell whether a node is in the quorum set itself."""
        return node in self._configured

    def note_named(
        self, node: bytes, item_hash: bytes, find: Callable[[bytes], Message | None]
    ) -> None:
        """Note which set a node names in a statement that it has signed.

        :param find: returns that set, if it is here.
        """
        if self._named.get(node) == item_hash or node not in self.nodes:
            return
        self._named[node] = item_hash
        known = find(item_hash)
        if known is not None:
            self._trust(node, decode_quorum_set(known.body).nodes())

    def note_heard(self, item_hash: bytes, quorum_set: FlatQuorumSet) -> None:
        """Take a sane set that has come, for all nodes that have named it last."""
        who = [node for node, named in self._named.items() if named == item_hash]
        nodes = quorum_set.nodes()
        for node in who:
            self._trust(node, nodes)

    def _trust(self, node: bytes, nodes: frozenset[bytes]) -> None:
        before = self._trusts.get(node, frozenset())
        size = self._size + len(nodes) - len(before)
        if nodes == before or (size > MAX_NODES_NAMED and not self.is_configured(node)):
            return
        self._trusts[node] = nodes
        self._size = size
        self._nodes = None

    def _walk(self) -> Iterator[bytes]:
        found = set(self._configured)
        yield from found
        room = MAX_QUORUM_NODES
        level = list(found)
        while level:
            sets = sorted((self._trusts[node] for node in level if node in self._trusts), key=len)
            level = []
            for nodes in sets:
                new = sorted(nodes - found)[:room]
                room -= len(new)
                found.update(new)
                level += new
                yield from new

    def _forget_others(self, nodes: frozenset[bytes]) -> None:
        """Keep nothing of nodes that nobody trusts any more."""
        for node in self._trusts.keys() - nodes:
            self._size -= len(self._trusts.pop(node))
        for node in self._named.keys() - nodes:
            del self._named[node]
