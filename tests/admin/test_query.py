"""How URIs are read: as core does, quirks included, and never otherwise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.query import BadQuery, BadUri, Query, split_uri


def query(uri: str) -> Query:
    """Return the parameters of a URI."""
    return split_uri(uri.encode())[1]


class UriTests(SynchronousTestCase):
    """``split_uri``."""

    def test_command(self) -> None:
        """The command is what comes before the first question mark, without one slash."""
        for uri, command in (
            ("/info", "info"), ("info", "info"), ("/info?", "info"), ("/info?a=b", "info"),
            ("/", ""), ("//info", "/info"), ("/info/", "info/"), ("*", "*"),
            ("/%69nfo", "info"), ("/info%3Fa=b", "info"), ("/in+fo", "in fo"),
            ("http://host/info", "http://host/info"),
        ):  # fmt: skip
            self.assertEqual(split_uri(uri.encode())[0], command, uri)

    def test_pairs(self) -> None:
        """What core's parser makes of pairs, whole or not."""
        for parameters, expected in (
            ("a=1&b=2", {"a": "1", "b": "2"}),
            ("a=1&a=2", {"a": "2"}),  # the last one wins
            ("a=1&a=", {"a": "1"}),  # but not without a value, at the end
            ("a=&b=1", {"a": "", "b": "1"}),
            ("a&b=1", {"a": "", "b": "1"}),
            ("b=1&a", {"b": "1"}),
            ("?a=?1?&?b=2", {"a": "1", "b": "2"}),  # stray question marks
            ("a=1=2", {"a": "12"}),
            ("a=x+y%20z", {"a": "x y z"}),
            ("a=1%26b=2", {"a": "1", "b": "2"}),  # decoded before it is split
            ("a%3D1", {"a": "1"}),
        ):
            found = query(f"/x?{parameters}")
            self.assertEqual({key: found.get(key) for key in expected}, expected, parameters)

    def test_undecodable(self) -> None:
        """A percent sign without two digits is a bad request."""
        for uri in ("/%", "/%4", "/%zz", "/info?a=%4", "/%%41", "/% 1", "/%+1"):
            self.assertRaises(BadUri, split_uri, uri.encode())

    def test_strange_bytes(self) -> None:
        """Bytes that are no text come out as escapes."""
        self.assertEqual(split_uri(b"/\xff%fe%00")[0], "\\xff\\xfe\x00")

    @settings(derandomize=True, max_examples=300)
    @given(st.binary(max_size=60))
    def test_any_bytes(self, uri: bytes) -> None:
        """Whatever comes is read, or refused as a bad URI."""
        try:
            command, found = split_uri(uri)
        except BadUri:
            self.assertIn(b"%", uri)
        else:
            self.assertNotIn("?", command)
            self.assertIsInstance(found, Query)


class ParameterTests(SynchronousTestCase):
    """What a command may ask of its parameters."""

    def refusal(self, parameters: str) -> str:
        """Return why ``n`` is no number of 32 bits."""
        return str(self.assertRaises(BadQuery, query(f"/x?{parameters}").required_uint, "n"))

    def test_numbers(self) -> None:
        """A whole number that fits, in decimal digits."""
        for text, number in (("0", 0), ("007", 7), ("4294967295", 2**32 - 1)):
            self.assertEqual(query(f"/x?n={text}").required_uint("n"), number)
        self.assertEqual(query("/x?n=18446744073709551615").uint("n", 2, bits=64), 2**64 - 1)

    def test_no_numbers(self) -> None:
        """All else is refused in core's words."""
        for text in ("4294967296", "-1", "1.5", "1x", "x", "0x10", "1e3", "1 2", "٣", "9" * 5000):
            self.assertEqual(self.refusal(f"n={text}"), "Failed to parse 'n' argument", text)
        self.assertEqual(self.refusal("n=&m=1"), "Failed to parse 'n' argument")

    def test_missing(self) -> None:
        """What is missing is named, unless there is a default."""
        for parameters in ("", "m=1", "n=", "n"):
            self.assertEqual(self.refusal(parameters), "'n' argument is required!")
        self.assertEqual(query("/x").uint("n", 2), 2)
        self.assertEqual(str(self.assertRaises(BadQuery, query("/x").required, "node")),
                         "'node' argument is required!")  # fmt: skip

    def test_words(self) -> None:
        """A word has no blanks."""
        self.assertEqual(query("/x?node=GABC").required("node"), "GABC")
        for text in ("a+b", "+", "a%09"):
            self.assertRaises(BadQuery, query(f"/x?node={text}&y=1").required, "node")

    def test_flags(self) -> None:
        """Only these two words mean anything."""
        self.assertTrue(query("/x?a=true").is_true("a"))
        self.assertTrue(query("/x?a=false").is_false("a"))
        for text in ("1", "True", "yes", "truefalse"):
            self.assertFalse(
                query(f"/x?a={text}").is_true("a") or query(f"/x?a={text}").is_false("a")
            )
        self.assertFalse(query("/x").is_true("a"))
