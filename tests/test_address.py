"""Where peers are: what is read, what is refused, how it is written, what is private."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.address import DEFAULT_PEER_PORT, PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import InvalidPeerAddress

READ = {
    # core PeerManagerTests.cpp:205-227
    "127.0.0.2": PeerAddress("127.0.0.2", DEFAULT_PEER_PORT),
    "127.0.0.2:1": PeerAddress("127.0.0.2", 1),
    "127.0.0.2:1234": PeerAddress("127.0.0.2", 1234),
    "127.0.0.2:65534": PeerAddress("127.0.0.2", 65534),
    "127.0.0.2:65535": PeerAddress("127.0.0.2", 65535),
    "127.0.0.1:80": PeerAddress("127.0.0.1", 80),
    # names
    "localhost": PeerAddress("localhost", DEFAULT_PEER_PORT),
    "core-testnet1.stellar.org:11625": PeerAddress("core-testnet1.stellar.org", 11625),
    "EXAMPLE.com.:5": PeerAddress("EXAMPLE.com.", 5),
    # IPv6, which core does not read
    "[::1]": PeerAddress("::1", DEFAULT_PEER_PORT),
    "[::1]:11626": PeerAddress("::1", 11626),
    "[2001:db8::1]:65535": PeerAddress("2001:db8::1", 65535),
    "[fe80::1%eth0]:7": PeerAddress("fe80::1%eth0", 7),
}

REFUSED = (
    # core PeerManagerTests.cpp:94-187
    "",
    "random string",
    "random string:80",
    "127.0.0.256",
    "256.256.256.256",
    "127.0.0.1/8",
    "127.0.0.1/16",
    "127.0.0.1/24",
    "2001:db8:a0b:12f0::1",
    "200:1db8:0a0b:12f0:0000:0000:0000:0001",
    "2001:db8:a0b:12f0::1/16",
    "127.0.0.2:",
    "127.0.0.2:-1",
    "127.0.0.2:0",
    "127.0.0.2:65536",
    "127.0.0.2:65537",
    # and more
    ":11625",
    "127.0.0.1.",
    "1.2.3",
    "host:1:2",
    "host:+1",
    "host:1_0",
    "host:\N{ARABIC-INDIC DIGIT ONE}",
    " host",
    "host ",
    "host\n",
    "h\N{LATIN SMALL LETTER O WITH DIAERESIS}st",
    "x" * 254,
    "[]",
    "[::1]:",
    "[::1]:0",
    "[::1]11625",
    "[127.0.0.1]:80",
    "[::1",
    "[::g]",
    "[::1%a\nb]:1",
)

SPELLINGS = {
    "::1": ("::1", "0:0:0:0:0:0:0:1", "0000::0001", "::0.0.0.1", "0::1"),
    "::": ("::", "0::0", "0:0:0:0:0:0:0:0"),
    "2001:db8::a:0:0:1": ("2001:DB8::A:0:0:1", "2001:0db8:0:0:000a::1"),
    "fe80::1%Eth0": ("FE80::1%Eth0", "fe80:0::0001%Eth0"),
    "::ffff:1.2.3.4": ("::ffff:1.2.3.4", "::FFFF:102:304", "0:0:0:0:0:ffff:0102:0304"),
    "example.com": ("example.com", "EXAMPLE.com", "Example.COM"),
    "1.2.3.4": ("1.2.3.4",),
}
"""The one that is kept, and others of the same host."""

PRIVATE = (
    "10.1.2.3",
    "172.16.0.0",
    "172.17.1.2",
    "172.31.255.255",
    "192.168.1.2",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.1.1",
    "0.0.0.0",  # noqa: S104 - no socket is bound
    "224.0.0.1",
    "255.255.255.255",
    "localhost",
    "LocalHost.",
    "::",
    "::1",
    "fc00::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "::ffff:10.0.0.1",
)

PUBLIC = (
    "1.2.3.4",
    "9.255.255.255",
    "11.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "192.0.2.1",
    "203.0.113.7",
    "localhost.example.com",
    "core-live-a.stellar.org",
    "2001:db8::1",
    "::ffff:1.2.3.4",
)


class PeerAddressTests(SynchronousTestCase):
    def test_read(self) -> None:
        """What core reads is read the same, and so is IPv6 in brackets."""
        for text, address in READ.items():
            with self.subTest(text=text):
                self.assertEqual(PeerAddress.parse(text), address)

    def test_refused(self) -> None:
        """What core refuses is refused, and so is all that is ambiguous."""
        for text in REFUSED:
            with self.subTest(text=text):
                self.assertRaises(InvalidPeerAddress, PeerAddress.parse, text)

    def test_refusal_is_one_line(self) -> None:
        """A line break in a text does not break the line of the log that tells of it."""
        for text in ("a\nb", "a\nb:0", "[a\nb]:1", "[::1%\n]"):
            error = self.assertRaises(InvalidPeerAddress, PeerAddress.parse, text)
            self.assertNotIn("\n", str(error))

    def test_default_port(self) -> None:
        """A default port is for texts without one only."""
        self.assertEqual(PeerAddress.parse("127.0.0.2", 10).port, 10)
        self.assertEqual(PeerAddress.parse("127.0.0.2:5", 10).port, 5)

    def test_made_by_hand(self) -> None:
        """An address that is not read from a text is checked in the same way."""
        for host, port in (("", 80), ("", 0), ("random string", 80), ("::g", 80), ("1.2.3", 80)):
            with self.subTest(host=host, port=port):
                self.assertRaises(InvalidPeerAddress, PeerAddress, host, port)
        self.assertEqual(PeerAddress("127.0.0.1", 80).host, "127.0.0.1")

    def test_wrong_types(self) -> None:
        """A port that is no whole number and a host that is no text are refused by name."""
        wrong: tuple[tuple[object, object, str], ...] = (
            ("h", 1.0, "'h': port 1.0 is not a whole number in 1..65535"),
            ("h", True, "port True is not"),
            ("h", False, "port False is not"),
            ("h", "1", "port '1' is not"),
            ("h", None, "port None is not"),
            ("h", b"1", "port b'1' is not"),
            ("h", float("nan"), "port nan is not"),
            ("h", 65536, "port 65536 is not"),
            ("h", -1, "port -1 is not"),
            (None, 1, "the host must be a text, not None"),
            (b"h", 1, "the host must be a text, not b'h'"),
            (127, 1, "the host must be a text, not 127"),
        )
        for host, port, words in wrong:
            for make in (PeerAddress, ResolvedPeerAddress):
                with self.subTest(host=host, port=port, make=make):
                    self.assertIn(
                        words, str(self.assertRaises(InvalidPeerAddress, make, host, port))
                    )
        for text in (None, 5, b"h:1", ["h:1"]):
            error = self.assertRaises(InvalidPeerAddress, PeerAddress.parse, text)
            self.assertIn(repr(text), str(error))

    def test_one_spelling(self) -> None:
        """Whichever way a host is spelt, it is one address and one key."""
        for host, spellings in SPELLINGS.items():
            for spelling in spellings:
                with self.subTest(spelling=spelling):
                    address = PeerAddress(spelling, 5)
                    self.assertEqual(address.host, host)
                    self.assertEqual(len({address, PeerAddress(host, 5)}), 1)
                    text = f"[{spelling}]:5" if ":" in spelling else f"{spelling}:5"
                    self.assertEqual(PeerAddress.parse(text), address)
                    if address.is_numeric:
                        self.assertEqual(ResolvedPeerAddress(spelling, 5).host, host)

    def test_other_hosts(self) -> None:
        """What only looks alike stays apart."""
        hosts = ("::1", "::1:0", "1::", "fe80::1", "fe80::1%eth0", "fe80::1%ETH0", "a", "a.", "b")
        self.assertEqual(len({PeerAddress(host) for host in hosts}), len(hosts))

    @settings(derandomize=True, max_examples=200)
    @given(st.integers(0, 2**128 - 1), st.integers(1, 65535))
    def test_any_ipv6_has_one_spelling(self, number: int, port: int) -> None:
        """In full, in capitals or in short: the address is the same, and so is its text."""
        ip = ipaddress.IPv6Address(number)
        spellings = (ip.exploded, ip.compressed, ip.exploded.upper())
        (address,) = {PeerAddress(spelling, port) for spelling in spellings}
        self.assertEqual(ipaddress.IPv6Address(address.host), ip)
        self.assertEqual(PeerAddress.parse(str(address)), address)
        self.assertEqual(PeerAddress(address.host, port), address)

    def test_written(self) -> None:
        """What is written is read as the same address."""
        for text, address in READ.items():
            with self.subTest(text=text):
                self.assertEqual(PeerAddress.parse(str(address)), address)
        self.assertEqual(str(PeerAddress("host", 1)), "host:1")
        self.assertEqual(str(PeerAddress("::1", 2)), "[::1]:2")

    def test_private(self) -> None:
        """Addresses where no public node can live are private; all others are not."""
        for host in PRIVATE:
            with self.subTest(host=host):
                self.assertTrue(PeerAddress(host, 11625).is_private)
        for host in PUBLIC:
            with self.subTest(host=host):
                self.assertFalse(PeerAddress(host, 11625).is_private)

    def test_numeric(self) -> None:
        """Only IP addresses need no resolver."""
        self.assertTrue(PeerAddress("127.0.0.1").is_numeric)
        self.assertTrue(PeerAddress("::1").is_numeric)
        self.assertFalse(PeerAddress("1a.example.com").is_numeric)

    def test_key(self) -> None:
        """Equal addresses are one key of a dict."""
        self.assertEqual({PeerAddress("host"): 1}[PeerAddress.parse("host")], 1)


class ResolvedPeerAddressTests(SynchronousTestCase):
    def test_numbers_only(self) -> None:
        """A stored address is an IP address, never a name."""
        self.assertEqual(str(ResolvedPeerAddress("127.0.0.1", 1)), "127.0.0.1:1")
        self.assertRaises(InvalidPeerAddress, ResolvedPeerAddress, "localhost", 1)
        self.assertRaises(InvalidPeerAddress, ResolvedPeerAddress.parse, "localhost:1")

    def test_parse(self) -> None:
        """Reading one gives one."""
        self.assertIs(type(ResolvedPeerAddress.parse("[::1]:5")), ResolvedPeerAddress)
