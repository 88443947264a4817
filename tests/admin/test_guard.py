"""Who may change something: every way in which a web page could try."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.guard import Guard, host_name
from stellar_overlay.error import ConfigError

PORT = 11626


class GuardTests(SynchronousTestCase):
    """A node at 192.0.2.1:11626, also known as node.example.org and 198.51.100.7."""

    def setUp(self) -> None:
        self.guard = Guard(["Node.Example.org", "198.51.100.7"])

    def is_let_pass(
        self,
        *hosts: str,
        origin: str | Sequence[str] = (),
        site: str | Sequence[str] = (),
        bound: str | None = "192.0.2.1",
    ) -> bool:
        """Tell whether a request with these headers may change something."""
        refusal = self.guard.refusal(
            hosts=hosts,
            origins=[origin] if isinstance(origin, str) else origin,
            fetch_sites=[site] if isinstance(site, str) else site,
            bound_host=bound,
            bound_port=PORT,
        )
        return refusal is None

    def test_own_hosts(self) -> None:
        """Loopback, the address at which it came in, and what the operator named; at any port."""
        for host in (
            "localhost", "LOCALHOST:11626", "localhost:8080", "127.0.0.1:11626", "127.8.9.1",
            "[::1]:11626", "[::1]", "localhost.", "192.0.2.1:11626", "node.example.org",
            "NODE.example.org.:443", "198.51.100.7:1",
        ):  # fmt: skip
            self.assertTrue(self.is_let_pass(host), host)

    def test_foreign_hosts(self) -> None:
        """A name that its owner may point to us is not ours, however it looks."""
        for host in (
            "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "0.0.0.0:11626",
            "127.1", "2130706433", "0x7f.1", "192.0.2.2", "[::]", "[::2]", "localhost:x",
            "localhost:123456", "evil@localhost", "localhost@evil", "localhost/evil", "localhost#",
            "", ":", ":11626", "[]", "[localhost]x", "local host", "[::1", "::1", "127.0.0.1,evil",
            "localhost\x00", "xlocalhost", "node.example.org.evil", "🏠",
        ):  # fmt: skip
            self.assertFalse(self.is_let_pass(host), host)

    def test_number_of_hosts(self) -> None:
        """There must be exactly one."""
        self.assertFalse(self.is_let_pass())
        self.assertFalse(self.is_let_pass("localhost", "localhost"))

    def test_own_origins(self) -> None:
        """A page of ours may: at our port, or at the place by which the request itself calls us."""
        for host, origin in (
            ("localhost:11626", "http://localhost:11626"),
            ("localhost:11626", "http://127.0.0.1:11626"),
            ("192.0.2.1:11626", "http://192.0.2.1:11626"),
            ("localhost:8080", "http://localhost:8080"),  # a tunnel
            ("node.example.org", "https://node.example.org"),  # a proxy
            ("node.example.org:11626", "http://NODE.example.org:11626"),
        ):
            self.assertTrue(self.is_let_pass(host, origin=origin), origin)

    def test_foreign_origins(self) -> None:
        """Any other page may not, even one of this machine."""
        for origin in (
            "http://evil.example", "http://evil.example:11626", "null", "", "http://localhost:3000",
            "http://localhost", "https://localhost", "file://", "ftp://localhost:11626",
            "http://localhost:11626.evil", "http://evil@localhost:11626", "localhost:11626",
            "http://localhost:11626/", "chrome-extension://abc", "http://[::1]:80",
        ):  # fmt: skip
            self.assertFalse(self.is_let_pass("localhost:11626", origin=origin), origin)
        both = ["http://localhost:11626", "http://evil.example"]
        self.assertFalse(self.is_let_pass("localhost:11626", origin=both))
        self.assertFalse(self.is_let_pass("evil.example", origin="http://evil.example"))

    def test_fetch_site(self) -> None:
        """Where the browser says that it comes from elsewhere, it does."""
        for site in ("same-origin", "none", "Same-Origin"):
            self.assertTrue(self.is_let_pass("localhost", site=site), site)
        for site in ("cross-site", "same-site", "", "nonsense"):
            self.assertFalse(self.is_let_pass("localhost", site=site), site)
        self.assertFalse(self.is_let_pass("localhost", site=["none", "cross-site"]))

    def test_bound_addresses(self) -> None:
        """Whatever family the socket has; a socket of the file system has no address."""
        self.assertTrue(self.is_let_pass("192.0.2.9", bound="::ffff:192.0.2.9"))
        self.assertTrue(self.is_let_pass("[2001:DB8::1]:11626", bound="2001:db8:0::1"))
        self.assertFalse(self.is_let_pass("192.0.2.1", bound=None))
        self.assertTrue(self.is_let_pass("localhost", bound=None))


class HostNameTests(SynchronousTestCase):
    """What an operator may write."""

    def test_good(self) -> None:
        """Names and addresses, in one spelling."""
        for text, name in (
            ("Node.Example.ORG", "node.example.org"), ("node.", "node"), ("my_node-1", "my_node-1"),
            ("192.0.2.1", "192.0.2.1"), ("[2001:DB8::0]", "2001:db8::"), ("::1", "::1"),
        ):  # fmt: skip
            self.assertEqual(host_name(text), name)

    def test_bad(self) -> None:
        """All else is refused in one printable line."""
        for text in ("", "a b", "a:80", "http://a", "a/b", "*.a", "a..b", "é", "x" * 300, "a\n"):
            error = self.assertRaises(ConfigError, host_name, text)
            self.assertTrue(str(error).isprintable())
            self.assertLess(len(str(error)), 250)
