"""Which node is meant by a text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.named import _fits, node_named
from stellar_overlay.herder.ignoring import IgnoringHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.scp import nominate
from tests.admin.kit import AdminTestCase
from tests.builders import make_node

NAMED, ALSO_NAMED, HEARD, LATER = (make_node(number) for number in (5, 6, 7, 8))


class NodeNamedTests(AdminTestCase):
    """A node of which two others have names, and two were heard."""

    settings = {  # noqa: RUF012
        "node_names": {NAMED.peer_id.strkey: "five", ALSO_NAMED.peer_id.strkey: "six"}
    }

    def setUp(self) -> None:
        super().setUp()
        peer = self.world.call(number=9)
        peer.send(nominate(HEARD, 10, [b"v"]))
        peer.send(nominate(LATER, 11, [b"v"]))
        self.world.settle()

    def test_key(self) -> None:
        """A whole key names any node, known or not."""
        for node in (NAMED, HEARD, make_node(77)):
            self.assertEqual(node_named(self.node, node.peer_id.strkey), node.peer_id)

    def test_alias(self) -> None:
        """A name of the configuration, exactly."""
        self.assertEqual(node_named(self.node, "$five"), NAMED.peer_id)
        self.assertEqual(node_named(self.node, "$six"), ALSO_NAMED.peer_id)
        for text in ("$Five", "$fiv", "five", "$", "$seven"):
            self.assertIsNone(node_named(self.node, text), text)

    def test_prefix(self) -> None:
        """The beginning of a key: of those with a name, or of those heard."""
        for node in (NAMED, ALSO_NAMED, HEARD, LATER):
            for length in (8, 52, 53, 55, 56):
                prefix = node.peer_id.strkey[:length]
                self.assertEqual(node_named(self.node, f"@{prefix}"), node.peer_id)
        for node in (make_node(9), make_node(77)):  # connected, but silent; and nowhere
            self.assertIsNone(node_named(self.node, f"@{node.peer_id.strkey[:8]}"))

    def test_order(self) -> None:
        """Those with names come first."""
        first = min(NAMED.peer_id.strkey, ALSO_NAMED.peer_id.strkey)
        self.assertEqual(node_named(self.node, "@G"), PeerId.from_strkey(first))

    def test_none(self) -> None:
        """What is no name names nobody, whatever it holds."""
        strkey = HEARD.peer_id.strkey
        for text in (
            "", "@", "G", strkey[:-1], strkey + "A", f"@{strkey}A", f"@{strkey[:55]}=", "@g",
            f"@{strkey[:8].lower()}", "@1", "@\0", "@é", "@S", "@A", "$\0", "\0", HEARD.secret_seed,
        ):  # fmt: skip
            self.assertIsNone(node_named(self.node, text), text)

    def test_ignorant(self) -> None:
        """Where nobody is heard, names are all there is."""
        node = self.world.node(2, herder=IgnoringHerder())
        self.assertIsNone(node_named(node, "@G"))


class NamelessTests(AdminTestCase):
    """A node that has no names for others."""

    def test_order(self) -> None:
        """Who was heard about the newest slot comes first, then the first in order of keys."""
        peer = self.world.call(number=9)
        for slot, node in ((10, HEARD), (11, LATER), (11, NAMED)):
            peer.send(nominate(node, slot, [b"v"]))
        self.world.settle()
        first = min(LATER.peer_id, NAMED.peer_id)
        self.assertEqual(node_named(self.node, "@G"), first)


class FitsTests(SynchronousTestCase):
    """The quick look at many keys."""

    @settings(derandomize=True, max_examples=100)
    @given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.data())
    def test_exact(self, one: bytes, other: bytes, data: st.DataObject) -> None:
        """It agrees with the text of a key, up to the checksum."""
        length = data.draw(st.integers(1, 52))
        prefix = PeerId(one).strkey[:length]
        fits = _fits(prefix)
        assert fits is not None
        self.assertTrue(fits(one))
        self.assertEqual(fits(other), PeerId(other).strkey.startswith(prefix))
