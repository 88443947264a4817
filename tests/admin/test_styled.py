"""JSON as jsoncpp writes it, whatever is in it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.styled import Json, medida_json, plain, quoted, styled

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(),
    st.sampled_from([0.5, -1.25, 1e300]),
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


class PlainTests(SynchronousTestCase):
    """``plain``: a text outside of JSON."""

    @settings(derandomize=True, max_examples=50)
    @given(st.text())
    def test_harmless(self, text: str) -> None:
        """It is printable, no markup, and tells the same text."""
        shown = plain(text)
        self.assertTrue(shown.isascii() and shown.isprintable())
        self.assertTrue({"<", ">", "&"}.isdisjoint(shown))
        self.assertEqual(json.loads(f'"{shown}"'), text)


class StyledTests(SynchronousTestCase):
    """``styled``, against what stellar-core prints."""

    def test_layout(self) -> None:
        """Sorted keys, three blanks, blanks around colons, short arrays on a line."""
        self.assertEqual(
            styled(
                {
                    "b": {"y": 1, "x": None},
                    "a": [1, 2],
                    "objects": [{"id": "G"}, {"id": "H"}],
                    "empty": [],
                    "none": {},
                    "truth": True,
                    "real": 0.5,
                }
            ),
            "{\n"
            '   "a" : [ 1, 2 ],\n'
            '   "b" : {\n'
            '      "x" : null,\n'
            '      "y" : 1\n'
            "   },\n"
            '   "empty" : [],\n'
            '   "none" : {},\n'
            '   "objects" : [\n'
            "      {\n"
            '         "id" : "G"\n'
            "      },\n"
            "      {\n"
            '         "id" : "H"\n'
            "      }\n"
            "   ],\n"
            '   "real" : 0.5,\n'
            '   "truth" : true\n'
            "}\n",
        )

    def test_long_arrays(self) -> None:
        """An array that is too long for a line has one for each element."""
        key = "G" * 56
        self.assertEqual(styled([key]), f'[ "{key}" ]\n')
        self.assertEqual(styled([key, key]), f'[\n   "{key}",\n   "{key}"\n]\n')
        self.assertEqual(styled(list(range(3))), "[ 0, 1, 2 ]\n")
        self.assertEqual(len(styled([0] * 25).splitlines()), 27)
        self.assertEqual(styled([[], {}]), "[ [], {} ]\n")

    def test_numbers_that_are_none(self) -> None:
        """jsoncpp's words for them can be read again."""
        self.assertEqual(styled(float("nan")), "null\n")
        self.assertEqual(json.loads(styled(float("-inf"))), float("-inf"))

    @settings(derandomize=True, max_examples=200)
    @given(TREES)
    def test_any_value(self, value: Json) -> None:
        """Whatever it is, it can be read again, and is printable ASCII but for line breaks."""
        for text in (styled(value), medida_json(value)):
            self.assertEqual(json.loads(text), value)
            self.assertTrue(text.isascii())
            self.assertTrue(text.replace("\n", "").isprintable())


class HostileTextTests(SynchronousTestCase):
    """What strangers call themselves."""

    def test_escaped(self) -> None:
        """Control bytes, markup, text that runs backwards, half characters: all are escapes."""
        text = '</script><b>&"\\\x00\x1b[31m\x7f\x85\u202e\u2028\ud800é\U0001f600'
        shown = quoted(text)
        self.assertEqual(json.loads(shown), text)
        self.assertTrue(shown.isascii() and shown.isprintable())
        for character in "<>&":
            self.assertNotIn(character, shown)
        self.assertIn("\\u202e", shown)
        self.assertEqual(json.loads(medida_json({text: text})), {text: text})
        self.assertNotIn("<", medida_json({text: text}))
