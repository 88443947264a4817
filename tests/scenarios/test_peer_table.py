"""What is remembered of addresses (connection.md 9)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.store.peer_manager import PeerRecord, StoredPeerType
from stellar_overlay.testing.loopback import EPOCH
from stellar_overlay.wire.message import MessageType, decode_peers
from tests.scenarios.network import INBOUND, OUTBOUND, PREFERRED, GoodPeer, ScenarioTestCase


class PeerTableTestCase(ScenarioTestCase):
    def restarted_with(
        self, failures: dict[str, int], peer_type: StoredPeerType = OUTBOUND, **settings: object
    ) -> OverlayManager:
        """Return a node that found rows with so many failures in its database, all due."""
        node = self.network.add_node("node", database=self.mktemp(), **settings)  # type: ignore[arg-type]
        for name, count in failures.items():
            node.stores.peers.store(
                PeerRecord(
                    address=self.at(name),
                    next_attempt=EPOCH,
                    num_failures=count,
                    peer_type=peer_type,
                )
            )
        self.network.stop("node")
        return self.network.restart("node")


class FailureTests(PeerTableTestCase):
    """How often an address may fail."""

    def test_purge_at_the_start(self) -> None:
        """P12, row 60, Y18: what has failed 120 times is gone within two seconds, the rest not."""
        names = {f"dead {count}": count for count in range(118, 123)}
        for name in names:
            self.network.add_peer(name, is_listening=False)
            self.network.memory.black_holes.add(self.at(name).host)
        node = self.restarted_with(names)
        self.network.advance(2)
        left = {row.address for row in node.known_peers()}
        self.assertEqual(left, {self.at("dead 118"), self.at("dead 119")})

    def test_reset_after_success(self) -> None:
        """P13, Y18: an address with 119 failures is dialled, and one success forgives them."""
        self.network.add_peer("peer", kind=GoodPeer)
        node = self.restarted_with({"peer": 119})
        self.network.advance(4)
        row = self.row(node, "peer")
        assert row is not None
        self.assertEqual((row.num_failures, len(node.peer_infos())), (0, 1))

    def test_the_last_failure(self) -> None:
        """P14, row 60: an address whose 120th dial is refused is forgotten, within five seconds."""
        self.network.add_peer("peer", is_listening=False)
        node = self.restarted_with({"peer": 119})
        self.network.advance(5)
        self.assertEqual(node.metrics.outbound_attempt.get(), 1)
        self.assertIsNone(self.row(node, "peer"))

    def test_many_failures_still_dialled_not_told(self) -> None:
        """Y18: between 10 and 120 failures an address is dialled, and not told to others."""
        for name in ("weak", "sound"):
            self.network.add_peer(name, is_listening=False)
        node = self.restarted_with({"weak": 11, "sound": 10})
        caller = self.network.add_peer("caller", kind=GoodPeer, is_listening=False)
        peer = caller.dial(self.network.address("node"))
        self.network.advance(0)
        told = [entry.host for entry in decode_peers(peer.of_type(MessageType.PEERS)[0].body)]
        self.assertEqual(told, [self.at("sound").host])
        self.network.advance(5)
        for name, failures in (("weak", 12), ("sound", 11)):
            row = self.row(node, name)
            assert row is not None
            self.assertEqual(row.num_failures, failures)

    def test_nobody_is_dialled_who_is_connected(self) -> None:
        """Y18, row 59: a peer that called us from where it listens is not dialled as OUTBOUND."""
        host = self.network.add_peer("peer", kind=GoodPeer)
        node = self.restarted_with({"peer": 5})
        host.dial(self.network.address("node"))
        self.network.advance(0)
        self.assertEqual(len(node.peer_infos()), 1)
        self.network.advance(30)
        self.assertEqual(len(host.answered), 0)

    def test_another_service(self) -> None:
        """Row 58: what answers with junk, or not at all, is dialled ever less, and kept."""
        mute = self.network.add_peer("mute", is_polite=False)
        junk = self.network.add_peer("junk", is_polite=False)
        node = self.network.add_node("node", known_peers=["mute", "junk"])
        for _ in range(600):
            self.network.advance(1)
            for peer in junk.answered:
                if not peer.is_closed and not peer.received[1:]:
                    peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        for name, host in (("mute", mute), ("junk", junk)):
            row = self.row(node, name)
            assert row is not None
            self.assertEqual(row.num_failures, len(host.answered), name)
            self.assertTrue(3 <= row.num_failures <= 14, (name, row.num_failures))
        self.assertEqual(node.metrics.timeouts_idle.get(), len(mute.answered))


class ConfiguredTests(PeerTableTestCase):
    """Rows of the configuration's peers."""

    def test_both_lists(self) -> None:
        """P15: four preferred and three known peers, some by name, are typed from the start."""
        preferred = [f"p{number}" for number in range(4)]
        known = [f"k{number}" for number in range(3)]
        for name in (*preferred, *known):
            self.network.add_peer(name, is_listening=False)
        by_number = [str(self.network.address(name)) for name in ("p0", "k0")]
        node = self.network.add_node(
            "node",
            preferred_peers=[by_number[0], *preferred[1:]],
            known_peers=[by_number[1], *known[1:]],
        )
        self.network.advance(0)
        self.assertEqual(self.types(node, *preferred, *known), [PREFERRED] * 4 + [OUTBOUND] * 3)
        self.assertEqual(node.admission.preferred_addresses, {self.at(name) for name in preferred})

    def test_strangers_that_become_configured(self) -> None:
        """P16: rows of type INBOUND get the type of the list in which they stand now."""
        for name in ("p", "k", "stranger"):
            self.network.add_peer(name, is_listening=False)
        node = self.network.add_node("node", database=self.mktemp())
        for name in ("p", "k", "stranger"):
            node.stores.peers.ensure_exists(self.at(name))
        self.assertEqual(self.types(node, "p", "k", "stranger"), [INBOUND] * 3)
        self.network.stop("node")
        node = self.network.restart("node", preferred_peers=["p"], known_peers=["k"])
        self.network.advance(0)
        self.assertEqual(self.types(node, "p", "k", "stranger"), [PREFERRED, OUTBOUND, INBOUND])

    def test_one_who_is_preferred_no_more(self) -> None:
        """9.4: a row that was PREFERRED becomes OUTBOUND when it is met as an ordinary peer."""
        host = self.network.add_peer("peer", kind=GoodPeer, is_listening=False)
        node = self.network.add_node("node", database=self.mktemp(), preferred_peers=["peer"])
        self.network.advance(1)
        self.assertEqual(self.types(node, "peer"), [PREFERRED])
        self.network.stop("node")
        node = self.network.restart("node", preferred_peers=[])
        self.assertEqual(self.types(node, "peer"), [PREFERRED])
        host.dial(self.network.address("node"))
        self.network.advance(0)
        self.assertEqual(self.types(node, "peer"), [OUTBOUND])

    def test_at_most_a_thousand(self) -> None:
        """Y28: configured peers are counted once each, and there are no more than 1,000."""
        many = [f"20.{number >> 8}.{number & 255}.1" for number in range(1100)]
        self.network.memory.black_holes |= set(many)
        node = self.network.add_node("node", known_peers=[*many[:50], *many])
        self.network.advance(0)
        self.assertEqual(len(node.known_peers()), 1000)
        self.assertEqual(
            {row.address for row in node.known_peers()},
            {ResolvedPeerAddress(host, 11625) for host in many[:1000]},
        )


class Names(dict[str, list[str]]):
    """Names that count how often each was asked for.

    :ivar asked: when a name was asked for, by name.
    """

    def __init__(self, names: dict[str, list[str]], seconds: Callable[[], float]) -> None:
        super().__init__(names)
        self._seconds = seconds
        self.asked: dict[str, list[float]] = {}

    def get(self, name: str, default: list[str]) -> list[str]:  # type: ignore[override]
        self.asked.setdefault(name, []).append(self._seconds())
        return super().get(name, default)


class NameTests(PeerTableTestCase):
    """Names of configured peers, round after round (connection.md 8.7, 8.8)."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("good", "late"):
            self.network.add_peer(name, kind=GoodPeer)
        memory = self.network.memory
        self.names = memory.names = Names(memory.names, self.network.clock.seconds)

    def gaps(self, name: str) -> list[int]:
        """Return the seconds from one look-up of a name to the next."""
        return [round(b - a) for a, b in pairwise(self.names.asked[name])]

    def test_while_a_name_fails(self) -> None:
        """Y32: rounds after 10, 20, 30 … seconds; the names that can be found are used at once."""
        del self.names["late"]
        node = self.network.add_node("node", known_peers=["late", "good"])
        self.network.advance(2)
        self.assertEqual(len(node.peer_infos()), 1)
        self.network.advance(200)
        self.assertEqual(self.gaps("late"), [10, 20, 30, 40, 50])
        self.assertEqual(self.gaps("good"), [10, 20, 30, 40, 50])

    def test_once_all_are_found(self) -> None:
        """Y32: every 600 seconds from the first error-free round on, whatever fails later."""
        found = self.names.pop("late")
        node = self.network.add_node("node", known_peers=["late", "good"])
        self.network.advance(25)
        self.names["late"] = found
        self.network.advance(15)
        self.assertEqual(len(node.peer_infos()), 2)
        del self.names["good"]
        self.network.advance(1900)
        self.assertEqual(self.gaps("late"), [10, 20, 600, 600, 600])
        self.assertEqual(len(node.peer_infos()), 2)

    def test_private_answers_to_public_nodes(self) -> None:
        """Unless private addresses are allowed, a name that leads to one is skipped."""
        node = self.network.add_node(
            "node", ip="20.0.0.1", allow_private=False, known_peers=["good"]
        )
        self.network.advance(30)
        self.assertEqual((node.known_peers(), node.peer_infos()), ([], []))
