"""Who stays when there is not room for all (connection.md 8.3 to 8.5)."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from stellar_overlay.error import DropReason, OverlayError, PeerLimitReached
from stellar_overlay.identity import LocalNode
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.testing.scripted_host import ScriptedHost
from stellar_overlay.testing.scripted_peer import ScriptedPeer
from stellar_overlay.wire.message import MessageType
from tests.builders import make_node
from tests.scenarios.network import (
    INBOUND,
    OUTBOUND,
    PREFERRED,
    REJECTED,
    SELECTED,
    GoodPeer,
    ScenarioTestCase,
)


class LimitsTestCase(ScenarioTestCase):
    def host(self, name: str, **options: object) -> ScriptedHost:
        return self.network.add_peer(name, kind=GoodPeer, **options)  # type: ignore[arg-type]

    def call(self, host: ScriptedHost, to: str = "B") -> ScriptedPeer:
        """Let a scripted peer dial a node; return it once it has nothing more to say."""
        peer = host.dial(self.network.address(to))
        self.network.advance(0)
        return peer

    def dial(self, node: OverlayManager, name: str) -> ScriptedPeer:
        """Let a node dial a scripted host; return the peer that answered."""
        host = self.hosts[name]
        try:
            self.network.result_of(node.connect(self.network.address(name)), timeout=1)
        except OverlayError as error:
            self.error: OverlayError | None = error
        else:
            self.error = None
        self.network.advance(0)
        return host.answered[-1]

    def make_hosts(self, *names: str) -> None:
        self.hosts = {name: self.host(name) for name in names}

    def key(self, name: str) -> str:
        return self.hosts[name].local_node.peer_id.strkey


class AuthenticatedTests(LimitsTestCase):
    """Slots for peers that have proven who they are."""

    def test_not_preferred_under_strict_mode(self) -> None:
        """R1, row 38: refused after AUTH and PEERS; typed by who dialled."""
        for is_outbound in (False, True):
            self.make_hosts("A")
            node = self.network.add_node("B", preferred_peers_only=True)
            drops = self.drops(node)
            if is_outbound:
                peer = self.dial(node, "A")
                self.assertIsInstance(self.error, PeerLimitReached)
                self.assertEqual(node.metrics.outbound_cancel.get(), 1)
            else:
                peer = self.call(self.hosts["A"])
                self.assertEqual(len(peer.of_type(MessageType.AUTH)), 1)
                self.assertEqual(node.metrics.inbound_reject.get(), 1)
            self.assertEqual(peer.error, REJECTED)
            self.assertEqual([event.reason for event in drops], ["peer rejected"])
            self.assertEqual(self.types(node, "A"), [OUTBOUND if is_outbound else INBOUND])
            self.again()

    def test_a_preferred_key_under_strict_mode(self) -> None:
        """R2: authenticated; its type says who dialled, not that it is preferred."""
        for is_outbound in (False, True):
            self.make_hosts("A")
            node = self.network.add_node(
                "B", preferred_peers_only=True, preferred_peer_keys=[self.key("A")]
            )
            peer = self.dial(node, "A") if is_outbound else self.call(self.hosts["A"])
            self.assertFalse(peer.is_closed)
            self.assertEqual([info.is_preferred for info in node.peer_infos()], [True])
            self.assertEqual(self.types(node, "A"), [OUTBOUND if is_outbound else INBOUND])
            self.again()

    def one_slot(self, *, is_outbound: bool, preferred: str = "") -> OverlayManager:
        """Return a node with one slot of one direction, and none of the other."""
        self.again()
        self.make_hosts("A", "C")
        keys = [self.key(preferred)] if preferred else []
        # Without ticks: who dials is for the scenario to say.
        node = self.network.add_node("B", run_standalone=True, preferred_peer_keys=keys)
        self.limit(node, inbound=0 if is_outbound else 1, outbound=1 if is_outbound else 0)
        return node

    def open(self, node: OverlayManager, name: str, *, is_outbound: bool) -> ScriptedPeer:
        return self.dial(node, name) if is_outbound else self.call(self.hosts[name])

    def test_beyond_the_limit(self) -> None:
        """R3, R4, row 38: who came first stays; the second gets AUTH, PEERS and ERR_LOAD."""
        for is_outbound in (False, True):
            node = self.one_slot(is_outbound=is_outbound)
            drops = self.drops(node)
            first = self.open(node, "A", is_outbound=is_outbound)
            second = self.open(node, "C", is_outbound=is_outbound)
            self.assertEqual((first.error, second.error), (None, REJECTED))
            self.assertEqual([event.reason for event in drops], ["peer rejected"])
            self.assertEqual(len(node.peer_infos()), 1)
            expected = OUTBOUND if is_outbound else INBOUND
            self.assertEqual(self.types(node, "A", "C"), [expected] * 2)
            if not is_outbound:
                kinds = [message.type for message in second.received]
                self.assertEqual(
                    kinds,
                    [
                        MessageType.HELLO,
                        MessageType.AUTH,
                        MessageType.PEERS,
                        MessageType.ERROR_MSG,
                    ],
                )

    def test_with_the_smallest_legal_settings(self) -> None:
        """R3: one inbound slot by configuration, as an operator would have it."""
        self.make_hosts("A", "C")
        node = self.network.add_node("B", target_outbound_peers=1, max_inbound_peers=1)
        first, second = self.call(self.hosts["A"]), self.call(self.hosts["C"])
        self.assertEqual((first.error, second.error), (None, REJECTED))
        self.assertEqual(self.types(node, "A", "C"), [INBOUND, INBOUND])

    def test_a_preferred_peer_first(self) -> None:
        """R5: it stays, and the next one is refused."""
        for is_outbound in (False, True):
            node = self.one_slot(is_outbound=is_outbound, preferred="C")
            preferred = self.open(node, "C", is_outbound=is_outbound)
            other = self.open(node, "A", is_outbound=is_outbound)
            self.assertEqual((preferred.error, other.error), (None, REJECTED))

    def test_a_preferred_peer_second(self) -> None:
        """R6, row 61: it takes the slot of the other, who is told so."""
        for is_outbound in (False, True):
            node = self.one_slot(is_outbound=is_outbound, preferred="C")
            drops = self.drops(node)
            other = self.open(node, "A", is_outbound=is_outbound)
            preferred = self.open(node, "C", is_outbound=is_outbound)
            self.assertEqual((preferred.error, other.error), (None, SELECTED))
            self.assertEqual(
                [(event.reason, event.by, event.code) for event in drops],
                [("preferred peer selected instead", "us", 4)],
            )
            self.assertEqual([info.is_preferred for info in node.peer_infos()], [True])

    def test_eviction_is_of_one_and_of_the_same_direction(self) -> None:
        """Y28: the first by node id; never one of the other direction, never a preferred one."""
        names = ["in 1", "in 2", "in 3", "out 1"]
        for preferred_ones in (1, 2, 3):
            self.make_hosts(*names, "P1", "P2", "P3", "P4")
            keys = [self.key(f"P{number}") for number in (1, 2, 3, 4)]
            node = self.network.add_node("B", run_standalone=True, preferred_peer_keys=keys)
            self.limit(node, inbound=3, outbound=1)
            callers = {name: self.call(self.hosts[name]) for name in names[:3]}
            answerer = self.dial(node, "out 1")
            arrived = [self.call(self.hosts[f"P{n + 1}"]) for n in range(preferred_ones)]
            evicted = {name for name, peer in callers.items() if peer.is_closed}
            by_id = sorted(names[:3], key=lambda name: self.hosts[name].local_node.peer_id)
            self.assertEqual(evicted, set(by_id[:preferred_ones]))
            self.assertFalse(answerer.is_closed)
            self.assertEqual([peer.error for peer in arrived], [None] * preferred_ones)
            if preferred_ones == 3:  # all who came in are preferred: the fourth finds no slot
                self.assertEqual(self.call(self.hosts["P4"]).error, REJECTED)
                self.assertFalse(answerer.is_closed)
            self.again()

    def test_preferred_by_address(self) -> None:
        """R6, row 61: of a configured address, whoever dials; typed PREFERRED."""
        self.make_hosts("A", "C")
        self.hosts["C"].stop_listening()
        node = self.network.add_node("B", preferred_peers=["C"])
        self.network.advance(3)
        self.limit(node, inbound=1)
        other = self.call(self.hosts["A"])
        preferred = self.call(self.hosts["C"])
        self.assertEqual((preferred.error, other.error), (None, SELECTED))
        self.assertEqual(self.types(node, "A", "C"), [INBOUND, PREFERRED])

    def test_a_preferred_name_that_stops_resolving(self) -> None:
        """Row 62, Y9: it is preferred no more after the next round, and its link stays."""
        self.make_hosts("A", "C")
        node = self.network.add_node("B", preferred_peers=["C"])
        self.network.advance(10)
        (info,) = node.peer_infos()
        self.assertTrue(info.is_preferred)
        found = self.network.memory.names.pop("c")
        self.network.advance(610)
        (info,) = node.peer_infos()
        self.assertFalse(info.is_preferred)
        self.network.memory.names["c"] = found
        self.network.advance(610)
        (info,) = node.peer_infos()
        self.assertTrue(info.is_preferred)
        self.assertEqual(len(self.hosts["C"].answered), 1)


class PendingTests(LimitsTestCase):
    """Slots for those that are shaking hands."""

    def mute(self, name: str, ip: str | None = None) -> ScriptedPeer:
        host = self.network.add_peer(name, ip=ip, is_listening=False, is_polite=False)
        return self.call(host)

    def test_no_inbound_slot(self) -> None:
        """R7, row 57: the fourth is closed without a byte; the mute ones when time is up."""
        node = self.network.add_node("B", run_standalone=True)
        self.limit(node, inbound=10, inbound_pending=3)
        mute = [self.mute("A"), self.mute("C")]
        talker = self.network.add_peer("D", kind=GoodPeer, is_listening=False, is_polite=False)
        fourth = self.host("E", is_listening=False)
        third = self.call(talker)
        with self.assertRaisesRegex(Exception, "refused"):
            fourth.dial(self.network.address("B"))
        third.is_polite = True
        third.say_hello()
        self.network.advance(5)
        self.assertEqual([peer.is_closed for peer in mute], [True, True])
        self.assertEqual(node.metrics.timeouts_idle.get(), 2)
        self.assertEqual(node.metrics.inbound_reject.get(), 1)
        self.assertFalse(third.is_closed)
        self.assertEqual([row.address for row in node.known_peers()], [self.at("D")])

    def test_possibly_preferred(self) -> None:
        """R8, Y9: an address of a preferred peer has two more slots, whatever the port."""
        node = self.network.add_node("B", preferred_peers=["10.9.9.9:17"])
        self.network.advance(0.1)
        self.network.memory.black_holes.add("10.9.9.9")
        self.network.advance(3)
        self.limit(node, inbound=10, inbound_pending=3)
        waiting = [self.mute(name) for name in ("A", "C", "D")]
        rejected = node.metrics.inbound_reject.get()
        host = self.host("E", ip="10.9.9.9", is_listening=False)
        fourth = self.call(host)
        self.assertFalse(fourth.is_closed)
        self.assertEqual(node.metrics.inbound_reject.get(), rejected)
        self.assertEqual(len(node.peer_infos()), 1)
        host.is_polite = False
        others = [host.dial(self.network.address("B")) for _ in range(2)]
        with self.assertRaisesRegex(Exception, "refused"):
            host.dial(self.network.address("B"))
        self.network.advance(5)
        self.assertTrue(all(peer.is_closed for peer in [*waiting, *others]))
        self.assertEqual(node.metrics.timeouts_idle.get(), 5)

    def test_preferred_addresses_that_move(self) -> None:
        """Y9: the extra slots go with the name, once a round has found where it went."""
        self.network.memory.names["moving"] = ["10.9.9.1"]
        self.network.memory.black_holes |= {"10.9.9.1", "10.9.9.2"}
        node = self.network.add_node("B", preferred_peers=["moving"])
        self.network.advance(3)
        self.limit(node, inbound_pending=1)
        outcomes = []
        for _ in range(2):
            self.mute(f"mute at {self.network.clock.seconds()}")
            for number in (1, 2):
                ip = f"10.9.9.{number}"
                name = f"{ip} at {self.network.clock.seconds()}"
                try:
                    self.mute(name, ip=ip)
                except Exception:
                    outcomes.append(f"{ip} refused")
                else:
                    outcomes.append(f"{ip} accepted")
            self.network.memory.names["moving"] = ["10.9.9.2"]
            self.network.advance(620)
        self.assertEqual(
            outcomes,
            ["10.9.9.1 accepted", "10.9.9.2 refused", "10.9.9.1 refused", "10.9.9.2 accepted"],
        )

    def test_no_outbound_slot(self) -> None:
        """R9: the fourth dial does not begin; the mute ones are given up when time is up."""
        node = self.network.add_node("B", run_standalone=True)
        self.limit(node, outbound=10, outbound_pending=3)
        for name in ("A", "C"):
            self.network.add_peer(name, is_polite=False)
        for name in ("D", "E"):
            self.host(name)
        outcomes: dict[str, object] = {}

        def begin(name: str) -> Callable[[object], None]:
            return lambda result: outcomes.__setitem__(name, result)

        for name in ("A", "C", "D", "E"):
            dialling = Deferred.fromCoroutine(node.connect(self.network.address(name)))
            dialling.addBoth(begin(name))
        self.network.advance(0)
        self.assertEqual(set(outcomes), {"D", "E"})
        self.assertIn("all outbound connections taken", str(outcomes["E"]))
        self.network.advance(7)
        self.assertEqual(node.metrics.timeouts_idle.get(), 2)
        self.assertEqual([info.peer_id for info in node.peer_infos()], [outcomes["D"]])
        self.assertIsNone(self.row(node, "E"))

    def test_one_address_has_sixteen(self) -> None:
        """Rows 57 and 36, DECISIONS 15: of public addresses only; the others find a slot."""
        node = self.network.add_node("B", ip="20.0.0.1", allow_private=False)
        many = self.network.add_peer("many", ip="20.0.9.9", is_polite=False, is_listening=False)
        peers = [many.dial(self.network.address("B")) for _ in range(16)]
        with self.assertRaisesRegex(Exception, "refused"):
            many.dial(self.network.address("B"))
        self.assertEqual(node.metrics.drops[DropReason.NO_PENDING_SLOT].get(), 1)
        other = self.call(self.host("other", ip="20.0.9.8", is_listening=False))
        self.assertFalse(other.is_closed)
        self.network.advance(7)
        self.assertTrue(all(peer.is_closed for peer in peers))
        self.assertFalse(many.dial(self.network.address("B")).is_closed)
        self.network.advance(7)


class SameKeyTests(LimitsTestCase):
    """Slots of a node id."""

    def test_connected_already(self) -> None:
        """Row 34: whoever comes second with the key of a peer is told, and writes no row."""
        node = self.network.add_node("B")
        key: LocalNode = make_node(77)
        key.wall_clock = node.local_node.wall_clock
        one = self.host("one", local_node=key, is_listening=False)
        other = self.host("other", local_node=key, is_listening=False)
        first, second = self.call(one), self.call(other)
        self.assertFalse(first.is_closed)
        text = f"already-connected peer: {key.peer_id.short}".encode()
        self.assertEqual(second.error, (2, text))
        self.assertEqual(self.types(node, "one", "other"), [INBOUND, None])


class SaturatedTests(LimitsTestCase):
    """Networks with hardly a slot to spare."""

    def connections(self) -> int:
        """Return the ends of links, as core counts them."""
        return sum(len(node.peer_infos()) for node in self.network.running.values())

    def test_a_saturated_network(self) -> None:
        """R10: a chain forms behind a full head, and forms anew without it."""
        self.begin(seed=4, latency=0.01)
        head = self.network.add_node("head", max_inbound_peers=1, target_outbound_peers=1)
        self.limit(head, inbound=1)
        for number, (seconds, ends) in enumerate(((3, 2), (20, 4), (30, 6))):
            self.network.add_node(
                f"node {number}",
                target_outbound_peers=1,
                max_inbound_peers=1,
                known_peers=["head"],
            )
            self.assert_connections(ends, within=seconds)
        self.network.crash("head")
        self.assert_connections(6, within=30)

    def assert_connections(self, ends: int, *, within: float) -> None:
        """Check that there are so many ends of links in time."""
        self.network.run_until(lambda: self.connections() == ends, timeout=within)
        self.assertEqual(self.connections(), ends, self.network.links())
