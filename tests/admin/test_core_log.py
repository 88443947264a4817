"""``/ll``: which levels it tells, which it changes, and for whom."""

from __future__ import annotations

from typing import Any

from stellar_overlay.log_levels import LOG_LEVELS, Level, LogLevels
from tests.admin.kit import HERE, AdminTestCase, request

NODE, STORE = "stellar_overlay.node", "stellar_overlay.store"


class LevelsTestCase(AdminTestCase):
    """A node with the levels that a process has at first."""

    def setUp(self) -> None:
        self.patch(LOG_LEVELS, "_current", LogLevels()._current)
        super().setUp()


class LevelsTests(LevelsTestCase):
    """What it says."""

    def test_reading(self) -> None:
        """Each partition has its level, core's that we have among them."""
        for uri in ("/ll", "/ll?level=", "/ll?partition=Overlay", "/ll?partition=x&level="):
            found = self.ask(uri)
            self.assertEqual(set(found.values()), {"Info"})
            self.assertLess({"Database", "Herder", "Overlay", "stellar_overlay", NODE}, set(found))

    def test_one(self) -> None:
        """A partition has a new level; the answer has its name as core spells it."""
        self.assertEqual(
            self.say("/ll?level=DEBUG&partition=overlay"), '{\n   "Overlay" : "Debug"\n}\n'
        )
        self.assertEqual(self.ask(f"/ll?level=error&partition={STORE}"), {STORE: "Error"})
        found = self.ask("/ll")
        self.assertEqual({found["Overlay"], found[NODE]}, {"Debug"})
        self.assertEqual({found["Database"], found[STORE]}, {"Error"})
        self.assertEqual(found["stellar_overlay"], "Info")

    def test_all(self) -> None:
        """Without a partition, all have it."""
        self.ask("/ll?level=error&partition=database")
        for uri in ("/ll?level=trace", "/ll?level=trace&partition="):
            self.assertEqual(self.ask(uri), {"Global": "Debug"})
            self.assertEqual(set(self.ask("/ll").values()), {"Debug"})

    def test_bad(self) -> None:
        """What is none is refused, in core's words where it has some, and changes nothing."""
        for query, text in (
            ("level=info&partition=Tx", "not a valid partition"),
            ("level=info&partition=stellar_overlay.nod", "not a valid partition"),
            ("level=info&partition=%1b%3cb%3e", "not a valid partition"),
            ("level=verbose", "not a valid level"),
            ("level=verbose&partition=Overlay", "not a valid level"),
        ):
            self.assertEqual(self.ask(f"/ll?{query}"), {"exception": text}, query)
        self.assertEqual(set(self.ask("/ll").values()), {"Info"})
        self.assertEqual(self.flushLoggedErrors(), [])


class GuardTests(LevelsTestCase):
    """Who may."""

    def status(self, uri: str, *headers: tuple[str, str]) -> int:
        """Return the status of a request with only these headers."""
        return self.reply(request(uri, headers)).status

    def test_strangers(self) -> None:
        """Whoever reaches us may read; only who is at home may change something."""
        for headers in (
            (("Host", "evil.example"),),
            (("Host", HERE), ("Origin", "http://evil.example")),
            (("Host", HERE), ("Sec-Fetch-Site", "cross-site")),
            (),
        ):
            self.assertEqual(self.status("/ll", *headers), 200)
            for uri in ("/ll?level=debug", "/ll?partition=Overlay&level=debug", "/ll%3flevel=x"):
                self.assertEqual(self.status(uri, *headers), 403, uri)
        self.assertIs(LOG_LEVELS.level("stellar_overlay"), Level.INFO)
        self.assertEqual(self.status("/ll?level=debug", ("Host", HERE)), 200)
        self.assertIs(LOG_LEVELS.level("stellar_overlay"), Level.DEBUG)


class AloneTests(LevelsTestCase):
    """A node that talks to nobody."""

    settings: dict[str, Any] = {"run_standalone": True}  # noqa: RUF012

    def test_offered(self) -> None:
        """It logs as well."""
        self.assertEqual(self.ask("/ll?level=error"), {"Global": "Error"})
