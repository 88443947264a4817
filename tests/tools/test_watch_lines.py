"""What people see of events."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.sightings import Event
from stellar_overlay.tools.watch_lines import Lines

ALICE, VALIDATOR = "GALICE" + 50 * "A", "GVALID" + 50 * "B"
NAMES = {VALIDATOR: "sdf1"}


def event(kind: str, peer: str | None = ALICE, **fields: Any) -> Event:
    """Return an event of 22:13:20 UTC."""
    return {"v": 1, "ts": 1_700_000_000.5, "node": "G", "kind": kind, "peer": peer, **fields}


def scp(**changes: Any) -> Event:
    """Return the event of a statement."""
    fields = {"slot": 12, "statement": "externalize", "signer": VALIDATOR, "first": True}
    return event("scp", **{**fields, **changes})


def tx(pull_ms: float | None, advertised_by: str | None) -> Event:
    """Return the event of a transaction."""
    found = {"pull_ms": pull_ms, "advertised_by": advertised_by}
    return event("tx", first=True, tx_hash="ab" * 32, size=220) | found


class LineTests(SynchronousTestCase):
    def assert_line(self, event: Event, text: str) -> None:
        """Check a line, but for its time."""
        self.assertEqual(Lines(NAMES).of(event), f"22:13:20.500  {text}")

    def test_lines(self) -> None:
        """Names for those who have one, the first characters of ids for the others."""
        self.assert_line(scp(), "scp    12         externalize sdf1             from GALIC")
        self.assert_line(
            tx(213.4, ALICE), f"tx     {'ab' * 32}    220 bytes from GALIC, 213 ms after the advert"
        )
        self.assert_line(tx(None, None), f"tx     {'ab' * 32}    220 bytes from GALIC")
        text = Lines(NAMES).of(tx(1.0, VALIDATOR))
        assert text is not None
        self.assertTrue(text.endswith("1 ms after the advert of sdf1"))
        self.assert_line(
            event("slot", None, slot=12, validators=3, seconds=5.04),
            "slot   12         reached, 3 validators heard, 5.0 s after the last",
        )
        self.assert_line(
            event("slot", None, slot=12, validators=3, seconds=None),
            "slot   12         reached, 3 validators heard",
        )
        self.assert_line(
            event("txset", hash="cd" * 32, size=1000, transactions=4),
            "txset  cdcdcdcdcdcdcdcd    1000 bytes from GALIC  4 transactions",
        )
        self.assert_line(
            event("qset", hash="cd" * 32, size=1000, validators=4),
            "qset   cdcdcdcdcdcdcdcd    1000 bytes from GALIC  4 validators",
        )
        self.assert_line(
            event("peer.dropped", None, address="a:1", by="them", reason="ERR_LOAD (full)"),
            "peer   a:1 dropped by them: ERR_LOAD (full)",
        )

    def test_hostile_version(self) -> None:
        """What a peer calls itself reaches the terminal spelt out."""
        connected = event(
            "peer.authenticated",
            address="a:1",
            version="\x1b[2J\nx\u202e",
            overlay_version=42,
            handshake_ms=3.6,
        )
        self.assert_line(
            connected, "peer   GALIC a:1 connected: \\x1b[2J\\nx\\u202e, overlay 42, 4 ms"
        )

    def test_nothing_to_see(self) -> None:
        """Duplicates and dials are no lines."""
        for each in (scp(first=False), event("peer.connecting"), event("node.started", None)):
            self.assertIsNone(Lines(NAMES).of(each))

    def test_summary(self) -> None:
        """All figures; those of consensus only where it was watched."""
        summary = event(
            "node.stopping",
            None,
            seconds=12.0,
            messages=10,
            unique=4,
            duplicates=6,
            forged=0,
            transactions=3,
            statements=1,
            signers=1,
            slots=2,
            first_slot=5,
            last_slot=7,
            lost=0,
            peers=[{"peer": ALICE, "address": "a:1", "messages": 10, "first": 4, "share": 1.0}],
        )
        first = "12.0 s: 10 messages, 4 unique, 6 duplicates, 3 transactions"
        last = f"  GALIC            {'a:1':<21} first with 100.0 %: 4 of its 10 messages"
        consensus = "1 statement of 1 node; 2 slots from 5 to 7"
        self.assertEqual(list(Lines({}).of_summary(summary)), [first, consensus, last])
        self.assertEqual(list(Lines({}, has_scp=False).of_summary(summary)), [first, last])
        odd = {**summary, "slots": 0, "forged": 2, "lost": 9}
        self.assertEqual(
            list(Lines({}).of_summary(odd))[1:-1],
            [
                "1 statement of 1 node; no slot was seen to be reached",
                "2 SCP messages with a wrong signature",
                "9 lines lost: not read in time",
            ],
        )
