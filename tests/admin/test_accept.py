"""What a client would rather have."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.admin.accept import Accept

TEXT, JSON = "text/plain", "application/json"


class AcceptTests(SynchronousTestCase):
    """One header."""

    def test_no_header(self) -> None:
        """Without a header, or with an empty one, anything is welcome and nothing is named."""
        for header in (None, "", ",", " ; q=1"):
            accept = Accept(header)
            self.assertEqual((accept.weight(TEXT), accept.named(TEXT)), (1.0, None), header)

    def test_the_narrowest_range_counts(self) -> None:
        """A name beats its family, which beats anything; what is in no range is not welcome."""
        accept = Accept("*/*;q=0.1, text/*;q=0.2, text/plain;q=0.3")
        self.assertEqual(
            [accept.weight(kind) for kind in (TEXT, "text/html", JSON)], [0.3, 0.2, 0.1]
        )
        self.assertEqual(Accept("text/*").weight(JSON), 0)
        self.assertEqual(Accept("*/*, text/plain;q=0").weight(TEXT), 0)

    def test_spelling(self) -> None:
        """Case and blanks mean nothing, nor does the order of parameters."""
        for header in (
            "TEXT/Plain;Q=0.5",
            " text/plain ; charset=utf-8 ; q = 0.5 ",
            "a/b,text/plain;q=.5,text/plain;q=0.5",
        ):
            self.assertEqual(Accept(header).named(TEXT), 0.5, header)

    def test_the_best_of_several(self) -> None:
        """A type that is named more than once is as welcome as it is at best."""
        header = 'text/plain;version=1.0.0;q=0.5,text/plain;version="0.0.4";q=0.4'
        accept = Accept(header)
        self.assertEqual(accept.named(TEXT), 0.5)
        self.assertEqual(accept.named(TEXT, ("0.0.4",)), 0.4)
        self.assertIsNone(accept.named(TEXT, (None, "2")))

    def test_bad_weights(self) -> None:
        """A weight that is none makes its range count for nothing."""
        for weight in ("nan", "inf", "-1", "1.001", "2", "0.1234", "1e0", "\u0660", "0x0", "q"):
            self.assertIsNone(Accept(f"text/plain;q={weight}, a/b").named(TEXT), weight)

    @settings(derandomize=True, max_examples=300)
    @given(st.text('*/textplainq=;,.01" \xe9\x00', max_size=60))
    def test_whatever_is_sent(self, header: str) -> None:
        """No header is too odd to be read, and every weight is from 0 to 1."""
        accept = Accept(header)
        self.assertTrue(0 <= accept.weight(TEXT) <= 1)
        self.assertTrue(0 <= (accept.named(TEXT) or 0) <= 1)
