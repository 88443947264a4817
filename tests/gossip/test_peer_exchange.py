"""Addresses that peers tell each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import ResolvedPeerAddress
from stellar_overlay.gossip.peer_exchange import MAX_RECEIVED, MAX_SENT, PeerExchange
from stellar_overlay.identity import PeerId
from stellar_overlay.wire.message import Message, PeerEntry, decode_peers, encode_peers
from tests.gossip.links import LESSER

OWN_PORT = 11625
PEER = ResolvedPeerAddress("198.51.100.7", 11630)

PUBLIC = ("8.8.8.8", "1.2.3.4", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1")
PRIVATE = ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "127.0.0.2")
NOWHERE = (
    "0.0.0.0", "0.1.2.3",  # noqa: S104 - nothing is bound here
    "169.254.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
)  # fmt: skip
LOCALHOST = "127.0.0.1"


@dataclass
class FakeLink:
    """A peer that is asked where it lives."""

    address: ResolvedPeerAddress = PEER
    peer_id: PeerId = LESSER
    ping_ms: int | None = None

    def send(self, message: Message) -> bool:
        raise AssertionError(f"nothing is sent: {message}")


@dataclass
class FakeBook:
    """A table of peers: a list with so much room."""

    rows: list[ResolvedPeerAddress] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    room: int = 1000

    def ensure_exists(self, address: ResolvedPeerAddress) -> bool:
        if len(self.rows) == self.room:
            return False
        self.rows.append(address)
        return True

    def get_peers_to_send(
        self, size: int, accept: Callable[[ResolvedPeerAddress], bool]
    ) -> list[ResolvedPeerAddress]:
        self.sizes.append(size)
        return [row for row in self.rows if accept(row)][:size]


class PeerExchangeTestCase(SynchronousTestCase):
    """A node that listens on 11625."""

    def setUp(self) -> None:
        self.book = FakeBook()
        self.own_addresses: set[ResolvedPeerAddress] = set()

    def exchange(
        self, *, allow_private: bool = False, allow_localhost: bool = False
    ) -> PeerExchange:
        return PeerExchange(
            self.book,
            own_port=lambda: OWN_PORT,
            own_addresses=self.own_addresses,
            allow_private=allow_private,
            allow_localhost=allow_localhost,
        )

    def receive(self, *addresses: tuple[str, int], **allow: bool) -> list[tuple[str, int]]:
        """Return what is remembered of these, having checked the number that is returned."""
        self.book.rows.clear()
        entries = [PeerEntry(host, port) for host, port in addresses]
        count = self.exchange(**allow).receive(FakeLink(), entries)
        self.assertEqual(count, len(self.book.rows))
        return [(row.host, row.port) for row in self.book.rows]


class ReceiveTests(PeerExchangeTestCase):
    """Y22, row 40: what is skipped is skipped without a word, the rest is remembered."""

    def test_ports(self) -> None:
        """0 and more than 65535 are on the wire, but nowhere else."""
        ports = (0, 1, 65535, 65536, 70000, 2**32 - 1)
        heard = self.receive(*(("8.8.8.8", port) for port in ports))
        self.assertEqual(heard, [("8.8.8.8", 1), ("8.8.8.8", 65535)])

    def test_ipv6(self) -> None:
        """Never, not even what stands for an IPv4 address (DECISIONS.md 22)."""
        hosts = ("2001:db8::1", "::1", "::ffff:8.8.8.8", "::")
        for allow_private in (False, True):
            heard = self.receive(*((host, 1) for host in hosts), allow_private=allow_private)
            self.assertEqual(heard, [])

    def test_addresses(self) -> None:
        """Public ones; private ones and loopback where allowed; the rest never."""
        entries = [(host, 11625) for host in (*PUBLIC, *PRIVATE, LOCALHOST, *NOWHERE)]
        table: list[tuple[dict[str, bool], tuple[str, ...]]] = [
            ({}, PUBLIC),
            ({"allow_localhost": True}, (*PUBLIC, LOCALHOST)),
            ({"allow_private": True}, (*PUBLIC, *PRIVATE, LOCALHOST)),
            ({"allow_private": True, "allow_localhost": True}, (*PUBLIC, *PRIVATE, LOCALHOST)),
        ]
        for allow, hosts in table:
            heard = self.receive(*entries, **allow)
            self.assertEqual(heard, [(host, 11625) for host in hosts], allow)

    def test_ourselves(self) -> None:
        """Where we met ourselves, and our own port at the peer's IP address."""
        self.own_addresses.add(ResolvedPeerAddress("8.8.8.8", OWN_PORT))
        heard = self.receive(
            ("8.8.8.8", OWN_PORT), ("8.8.8.8", 2), (PEER.host, OWN_PORT), (PEER.host, PEER.port)
        )
        self.assertEqual(heard, [("8.8.8.8", 2), (PEER.host, PEER.port)])

    def test_once(self) -> None:
        """An address that is said twice counts once."""
        heard = self.receive(*(3 * [("8.8.8.8", 1)]), ("8.8.8.8", 2))
        self.assertEqual(heard, [("8.8.8.8", 1), ("8.8.8.8", 2)])

    def test_no_more_than_a_hundred(self) -> None:
        """Of which the bad ones are some."""
        entries = [("10.0.0.1", 1), *((f"8.8.8.{number}", 1) for number in range(200))]
        self.assertEqual(len(self.receive(*entries)), MAX_RECEIVED - 1)

    def test_a_full_table(self) -> None:
        """What there is no room for is not counted."""
        self.book.room = 3
        self.assertEqual(len(self.receive(*(("8.8.8.8", port) for port in range(1, 9)))), 3)

    def test_the_failures_that_it_tells_are_its_own(self) -> None:
        """Connection.md 9.7: they do not matter."""
        entries = [PeerEntry("8.8.8.8", 1, num_failures=2**32 - 1)]
        self.assertEqual(self.exchange().receive(FakeLink(), entries), 1)

    @settings(derandomize=True, max_examples=200)
    @given(
        st.lists(
            st.builds(
                PeerEntry,
                st.ip_addresses().map(str) | st.ip_addresses(v=4, network="0.0.0.0/4").map(str),
                st.integers(0, 2**32 - 1) | st.integers(0, 65535),
            ),
            max_size=100,
        )
    )
    def test_whatever_the_wire_brings(self, entries: list[PeerEntry]) -> None:
        """No message hurts, and nothing private or impossible is ever kept."""
        self.book.rows.clear()
        decoded = decode_peers(encode_peers(entries))
        self.exchange().receive(FakeLink(), decoded)
        for row in self.book.rows:
            self.assertFalse(row.is_private)
            self.assertNotIn(":", row.host)
        self.assertEqual(len(set(self.book.rows)), len(self.book.rows))


class SendTests(PeerExchangeTestCase):
    """Connection.md 9.6."""

    def sent(self, **allow: bool) -> list[str]:
        entries = self.exchange(**allow).to_send(PEER)
        self.assertEqual({entry.num_failures for entry in entries}, {0} if entries else set())
        return [entry.host for entry in entries]

    def test_nothing_to_tell(self) -> None:
        """Then there is no message."""
        self.assertEqual(self.sent(), [])

    def test_at_most_fifty(self) -> None:
        """So many are asked for."""
        self.book.rows = [ResolvedPeerAddress(f"8.8.8.{number}", 1) for number in range(200)]
        self.assertEqual((len(self.sent()), self.book.sizes), (MAX_SENT, [MAX_SENT]))

    def test_filters(self) -> None:
        """As for those that we hear, but for a peer's neighbours, who are not ourselves."""
        hosts = (*PUBLIC, *PRIVATE, LOCALHOST, *NOWHERE, "2001:db8::1", PEER.host)
        self.book.rows = [ResolvedPeerAddress(host, OWN_PORT) for host in hosts]
        self.assertEqual(self.sent(), [*PUBLIC, PEER.host])
        self.assertEqual(self.sent(allow_localhost=True), [*PUBLIC, LOCALHOST, PEER.host])
        self.assertEqual(self.sent(allow_private=True), [*PUBLIC, *PRIVATE, LOCALHOST, PEER.host])

    def test_not_ourselves(self) -> None:
        """Where we have met ourselves is no address to tell others."""
        ours = ResolvedPeerAddress("8.8.4.4", OWN_PORT)
        self.book.rows = [ours, ResolvedPeerAddress("8.8.8.8", 7)]
        self.own_addresses.add(ours)
        self.assertEqual(self.sent(), ["8.8.8.8"])

    def test_not_to_itself(self) -> None:
        """The receiver knows where it lives."""
        self.book.rows = [PEER, ResolvedPeerAddress("8.8.8.8", 7)]
        self.assertEqual(self.exchange().to_send(PEER), [PeerEntry("8.8.8.8", 7, 0)])
