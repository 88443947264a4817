"""How fast we dial."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.dial_pacer import MAX_DIALS_PER_SECOND, SECONDS_PER_HOST, DialPacer
from tests.gossip.links import at


class DialPacerTests(SynchronousTestCase):
    """DECISIONS.md 16."""

    def test_ten_a_second(self) -> None:
        """In any second, not in each: the eleventh waits until the first is a second old."""
        pacer = DialPacer(allow_private=False)
        for number in range(MAX_DIALS_PER_SECOND):
            self.assertTrue(pacer.allow(at(f"192.0.2.{number}"), 0.5 + number * 0.05))
        for now in (0.95, 1.0, 1.49):
            self.assertFalse(pacer.allow(at("198.51.100.1"), now))
        self.assertTrue(pacer.allow(at("198.51.100.1"), 1.5))
        self.assertFalse(pacer.allow(at("198.51.100.2"), 1.5))
        self.assertTrue(pacer.allow(at("198.51.100.2"), 1.55))

    def test_once_a_minute_to_one_host(self) -> None:
        """Whatever the port."""
        pacer = DialPacer(allow_private=False)
        self.assertTrue(pacer.allow(at("192.0.2.1", 1), 100))
        for now in (100, 100 + SECONDS_PER_HOST - 0.01):
            self.assertFalse(pacer.allow(at("192.0.2.1", 2), now))
        self.assertTrue(pacer.allow(at("192.0.2.2", 2), 100))
        self.assertTrue(pacer.allow(at("192.0.2.1", 2), 100 + SECONDS_PER_HOST))
        self.assertFalse(pacer.allow(at("192.0.2.1", 1), 100 + SECONDS_PER_HOST + 1))

    def test_a_refused_dial_does_not_count(self) -> None:
        """Neither against its host nor against all."""
        pacer = DialPacer(allow_private=False)
        for _ in range(3 * MAX_DIALS_PER_SECOND):
            pacer.allow(at("192.0.2.1"), 0)
        for number in range(1, MAX_DIALS_PER_SECOND):
            self.assertTrue(pacer.allow(at(f"198.51.100.{number}"), 0))
        self.assertFalse(pacer.allow(at("192.0.2.2"), 0))
        self.assertTrue(pacer.allow(at("192.0.2.2"), 1))

    def test_asking_does_not_count(self) -> None:
        """It tells what would be, and leaves it so."""
        pacer = DialPacer(allow_private=False)
        for _ in range(100):
            self.assertTrue(pacer.may_dial(at("192.0.2.1"), 0))
        self.assertTrue(pacer.allow(at("192.0.2.1"), 0))
        self.assertFalse(pacer.may_dial(at("192.0.2.1"), 0))

    def test_private_addresses(self) -> None:
        """Where they are allowed, at any pace, and at nobody's expense."""
        for allow_private in (False, True):
            pacer = DialPacer(allow_private=allow_private)
            answers = [pacer.allow(at("127.0.0.1", port), 0) for port in range(1, 100)]
            self.assertEqual(answers, [True] + 98 * [allow_private])
            answers = [pacer.allow(at(f"192.0.2.{number}"), 0) for number in range(10)]
            self.assertEqual(answers, 9 * [True] + [allow_private])

    @settings(derandomize=True, max_examples=200)
    @given(
        st.lists(st.tuples(st.floats(0, 3), st.integers(0, 30), st.integers(1, 3)), max_size=200)
    )
    def test_any_story(self, story: list[tuple[float, int, int]]) -> None:
        """No second has more than ten dials, no minute two of a host, and little is remembered."""
        pacer, now = DialPacer(allow_private=False), 0.0
        dials: list[tuple[float, str]] = []
        for wait, number, port in story:
            now += wait if number % 3 == 0 else 0
            host = f"192.0.2.{number}"
            is_due = all(now - then >= SECONDS_PER_HOST for then, other in dials if other == host)
            has_room = sum(now - then < 1 for then, _ in dials) < MAX_DIALS_PER_SECOND
            self.assertIs(pacer.may_dial(at(host, port), now), is_due and has_room)
            self.assertIs(pacer.allow(at(host, port), now), is_due and has_room)
            if is_due and has_room:
                dials.append((now, host))
            young = {host for then, host in dials if now - then < SECONDS_PER_HOST}
            self.assertLessEqual(young, pacer._by_host.keys())
            self.assertLessEqual(len(pacer._by_host), MAX_DIALS_PER_SECOND * SECONDS_PER_HOST)

    def test_memory(self) -> None:
        """An hour at full pace leaves a minute's dials behind."""
        pacer = DialPacer(allow_private=False)
        for number in range(20_000):
            host = f"198.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            self.assertTrue(pacer.allow(at(host), number * 0.125))
        self.assertEqual(len(pacer._by_host), SECONDS_PER_HOST * 8)
