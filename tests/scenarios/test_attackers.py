"""Peers that mean us, or through us others, no good."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Iterable
from itertools import count

from stellar_overlay.address import PeerAddress
from stellar_overlay.store.peer_table import MAX_PEERS, MAX_PEERS_PER_IP
from stellar_overlay.testing.memory import Dial
from stellar_overlay.wire.message import Message, MessageType, PeerEntry, encode_peers
from tests.builders import make_node
from tests.scenarios.network import (
    INBOUND,
    GoodPeer,
    LostHerder,
    ScenarioTestCase,
)

PER_SECOND = 10
SECONDS_PER_IP = 60

RESERVED = (
    "0.0.0.0",  # noqa: S104
    "0.1.2.3", "10.1.2.3", "100.64.0.9", "127.0.0.1", "127.1.2.3", "169.254.3.4",
    "172.16.5.6", "172.31.255.255", "192.168.7.8", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255",
)  # fmt: skip


class FeedingPeer(GoodPeer):
    """Tells whoever dials it addresses, as soon as it may.

    :cvar feed: called for what it tells.
    :cvar hangs_up: whether it then goes, to tell more next time.
    """

    feed: Iterable[list[PeerEntry]]
    hangs_up = False

    def hear(self, message: Message) -> None:
        super().hear(message)
        if message.type is MessageType.AUTH and not self.auth.we_called_remote:
            self.send(Message(encode_peers(next(iter(self.feed)))))
            if self.hangs_up:
                assert self.transport is not None
                self.transport.loseConnection()


def feeding(feed: Iterable[list[PeerEntry]], *, hangs_up: bool = False) -> type[FeedingPeer]:
    """Return peers that tell one list after the other."""
    return type("Feeding", (FeedingPeer,), {"feed": feed, "hangs_up": hangs_up})


class AttackTestCase(ScenarioTestCase):
    """Public addresses, and nothing private allowed."""

    def assert_paced(self, dials: list[Dial]) -> None:
        """Check DECISIONS.md 16: 10 dials in any second, and one a minute to any IP address."""
        latest: dict[str, float] = {}
        for earlier, later in zip(dials, dials[PER_SECOND:], strict=False):
            self.assertGreaterEqual(later.at - earlier.at, 1, (earlier, later))
        for dial in dials:
            since = dial.at - latest.get(dial.to.host, -SECONDS_PER_IP)
            self.assertGreaterEqual(since, SECONDS_PER_IP, dial)
            latest[dial.to.host] = dial.at

    def assert_public(self, dials: Iterable[Dial]) -> None:
        """Check that no address was dialled at which nobody can live."""
        hosts = {dial.to.host for dial in dials}
        self.assertEqual([host for host in hosts if not ipaddress.ip_address(host).is_global], [])


class FedAddressesTests(AttackTestCase):
    """A thousand addresses, and more, through PEERS of ten acceptors (rows 40 and 41)."""

    def setUp(self) -> None:
        super().setUp()
        network = self.begin(seed=8, latency=0.03)
        self.honest = [f"honest {number}" for number in range(3)]
        for number, name in enumerate(self.honest):
            network.add_node(name, ip=f"20.{number}.0.1", allow_private=False)
        self.acceptors = [f"acceptor {number}" for number in range(10)]
        self.chance = random.Random(8)
        self.lists = count()

    def add_acceptors(self, feed: Iterable[list[PeerEntry]], *, hangs_up: bool) -> None:
        for number, name in enumerate(self.acceptors):
            kind = feeding(feed, hangs_up=hangs_up)
            self.network.add_peer(name, ip=f"30.{number // 2}.{number}.1", kind=kind)

    def start(self, *known: str) -> None:
        """Start the node that is attacked, and let somebody call it, so that it wants company."""
        self.node = self.network.add_node(
            "victim",
            ip="20.9.0.1",
            allow_private=False,
            known_peers=[*self.honest, *known],
            target_outbound_peers=14,
        )
        self.configured = {self.network.address(name).host for name in (*self.honest, *known)}
        friend = self.network.add_peer("friend", ip="20.5.0.1", kind=GoodPeer, is_listening=False)
        friend.dial(self.network.address("victim"))

    def dials(self) -> list[Dial]:
        """Return the dials of the victim to strangers."""
        return [
            dial
            for dial in self.network.memory.dials
            if dial.from_ip == "20.9.0.1" and dial.to.host not in self.configured
        ]

    def honest_links(self) -> int:
        hosts = {self.network.address(name).host for name in self.honest}
        return sum(
            info.direction == "outbound" and info.address.host in hosts
            for info in self.node.peer_infos()
        )

    def bait(self) -> Iterable[list[PeerEntry]]:
        """Yield lists of 100: mostly addresses in a few networks, many of them on few hosts."""
        memory = self.network.memory
        while True:
            entries = []
            for number in range(100):
                host = f"40.{self.chance.randrange(40)}.{next(self.lists) % 256}.{number}"
                if number % 10 == 0:
                    host = f"50.0.0.{self.chance.randrange(4)}"
                if number % 3:
                    memory.black_holes.add(host)
                entries.append(PeerEntry(host, self.chance.randrange(1, 65536)))
            reserved = self.chance.sample(RESERVED, 8)
            entries[:8] = [PeerEntry(host, 11625) for host in reserved]
            number = self.chance.randrange(60)
            entries[8] = PeerEntry(f"40.{number // 20}.7.{number}", 11625)
            entries[9] = PeerEntry("20.9.0.1", 11625)
            yield entries

    def test_a_thousand_addresses(self) -> None:
        """Row 41: dialled at our pace, none reserved; the honest links live on."""
        self.add_acceptors(iter(self.bait()), hangs_up=False)
        for number in range(60):  # some of them even answer, and tell more
            kind = feeding(iter(self.bait()))
            name = f"answering {number}"
            self.network.add_peer(name, ip=f"40.{number // 20}.7.{number}", kind=kind)
        self.start()
        for name in self.acceptors:  # hearsay, as all else
            self.node.stores.peers.ensure_exists(self.at(name))
        for _ in range(30):
            self.network.advance(10)
            self.assertGreaterEqual(self.honest_links(), 1)
        rows = self.node.known_peers()
        self.assertGreater(next(self.lists), 1000)
        self.assertGreater(len(rows), 800)
        self.assertLessEqual(len(rows), MAX_PEERS)
        dials = self.dials()
        self.assertGreater(len(dials), 300)
        self.assert_paced(dials)
        self.assert_public(dials)
        to_acceptors = {dial.to.host for dial in dials if dial.to.host.startswith("30.")}
        self.assertEqual(len(to_acceptors), 10)
        to_itself = [dial for dial in dials if dial.to == PeerAddress("20.9.0.1")]
        self.assertLessEqual(len(to_itself), 1)  # it cannot know before it has met itself
        self.assertEqual(self.honest_links(), 3)
        self.assert_mixed()

    def assert_mixed(self) -> None:
        """Check DECISIONS.md 15: at most two of those whom nobody named in one /16."""
        groups = Counter(
            tuple(info.address.host.split(".")[:2])
            for info in self.node.peer_infos()
            if info.direction == "outbound" and info.address.host not in self.configured
        )
        self.assertLessEqual(max(groups.values(), default=0), 2, groups)

    def test_the_cap(self) -> None:
        """DECISIONS 15: acceptors that come back with more fill the table, and no more."""
        self.add_acceptors(iter(self.bait()), hangs_up=True)
        self.start(*self.acceptors)
        most, per_ip = 0, 0
        for _ in range(30):
            self.network.advance(10)
            rows = self.node.known_peers()
            most = max(most, len(rows))
            hosts = Counter(row.address.host for row in rows)
            per_ip = max(per_ip, max(hosts.values()))
        self.assertGreater(next(self.lists), 12_000)
        self.assertTrue(0.9 * MAX_PEERS < most <= MAX_PEERS, most)
        self.assertLessEqual(per_ip, MAX_PEERS_PER_IP)
        self.assertGreaterEqual(self.honest_links(), 1)
        self.assert_paced(self.dials())
        self.assert_public(self.dials())
        for name in (*self.honest, *self.acceptors):
            self.assertIsNotNone(self.row(self.node, name), name)


class PeersMessageTests(AttackTestCase):
    """What is believed of a PEERS (connection.md 9.7, DECISIONS.md 16)."""

    def test_which_entries_are_kept(self) -> None:
        """Y22, row 40: the others are skipped without a word, and the link stays."""
        entries = [
            PeerEntry("20.1.1.1", 11625),
            PeerEntry("20.1.1.1", 11626),
            PeerEntry("20.1.1.2", 0),
            PeerEntry("20.1.1.3", 70000),
            PeerEntry("2001:470::1", 11625),
            *(PeerEntry(host, 11625) for host in RESERVED),
            PeerEntry("20.7.0.1", 11625),  # our port at the sender's address
            PeerEntry("20.7.0.1", 11626),
            PeerEntry("20.1.1.4", 65535),
        ]
        host = self.network.add_peer("peer", ip="20.7.0.1", kind=feeding(iter([entries])))
        node = self.network.add_node(
            "node", ip="20.9.0.1", allow_private=False, run_standalone=True
        )
        self.network.result_of(node.connect(host.address))
        self.network.advance(0)
        rows = {str(row.address): row.peer_type for row in node.known_peers()}
        kept = ["20.1.1.1:11625", "20.1.1.1:11626", "20.7.0.1:11626", "20.1.1.4:65535"]
        del rows["20.7.0.1:11625"]  # its own
        self.assertEqual(rows, dict.fromkeys(kept, INBOUND))
        self.assertFalse(host.answered[0].is_closed)

    def test_who_may_send_it(self) -> None:
        """Row 39: a caller may not, an acceptor once; both are dropped without a word."""
        entries = [PeerEntry("20.1.1.1", 11625)]
        host = self.network.add_peer("peer", ip="20.7.0.1", kind=feeding(iter([entries])))
        node = self.network.add_node("node", ip="20.9.0.1", allow_private=False)
        drops = self.drops(node)
        caller = host.dial(self.network.address("node"))
        self.network.advance(0)
        caller.send(Message(encode_peers(entries)))
        self.network.advance(0)
        self.assertEqual((caller.is_closed, caller.error), (True, None))
        self.network.result_of(node.connect(host.address))
        host.answered[0].send(Message(encode_peers(entries)))
        self.network.advance(0)
        self.assertEqual((host.answered[0].is_closed, host.answered[0].error), (True, None))
        reasons = [event.reason for event in drops if event.by == "us"]
        self.assertEqual(reasons, ["received PEERS", "too many msgs PEERS"])


class BadPeerTests(AttackTestCase):
    """Callers that leave no trace in the table."""

    def test_bad_listening_ports(self) -> None:
        """Row 33: "bad address", and no row."""
        node = self.network.add_node("node")
        for port in (0, -1, 65536, 2**31 - 1, -(2**31)):
            local = make_node(50)
            local.listening_port = port
            local.wall_clock = node.local_node.wall_clock
            name = f"port {port}"
            host = self.network.add_peer(name, local_node=local, is_listening=False)
            peer = host.dial(self.network.address("node"))
            self.network.advance(0)
            self.assertEqual(peer.error, (2, b"bad address"), port)
        self.assertEqual(node.known_peers(), [])

    def test_flood_messages_before_auth(self) -> None:
        """Row 25 as DECISIONS.md 19b rules: dropped as row 24, out of sync or not."""
        for herder in (None, LostHerder()):
            node = self.network.add_node("node", herder=herder)
            drops = self.drops(node)
            host = self.network.add_peer("peer", is_listening=False, is_polite=False)
            for kind in (MessageType.FLOOD_ADVERT, MessageType.FLOOD_DEMAND):
                peer = host.dial(self.network.address("node"))
                peer.send(Message(kind.to_bytes(4, "big") + bytes(4)))
                self.network.advance(0)
                self.assertEqual((peer.is_closed, peer.error), (True, None))
            self.assertEqual(
                [event.reason for event in drops],
                [
                    "received FLOOD_ADVERT before completed handshake",
                    "received FLOOD_DEMAND before completed handshake",
                ],
            )
            self.again()
