"""Levels of the log: their names, whose they are, and what an observer gets to see."""

from __future__ import annotations

import sys
from io import StringIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel, PredicateResult
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.error import ConfigError
from stellar_overlay.log_levels import (
    LOG_LEVELS,
    ROOT,
    TO_STDERR,
    VARIABLE,
    Level,
    LogLevels,
    canonical,
    filtered,
    namespace_of,
)

NODE, LINKS, STORE = f"{ROOT}.node", f"{ROOT}.node.links", f"{ROOT}.store"
SHOWN = {
    *("Database", "Herder", "Overlay", ROOT, NODE, STORE),
    *(f"{ROOT}.{name}" for name in ("admin", "gossip", "herder", "session", "tools")),
}
BAD_PARTITIONS = (
    *("", ".", "x", "node", "twisted", "Tx", "Overlay.links", "stellar_overlay_too"),
    *(f"{ROOT}.", f"{ROOT}.nod", f"{ROOT}..node", f"{ROOT}.node.links.Links"),
    *(f"{ROOT}.__main__", f"{ROOT}.__pycache__", f"{ROOT}.../tests", f"{ROOT}.node/links"),
    f"{ROOT}.{'x' * 300}",
)


class NameTests(SynchronousTestCase):
    """What levels and partitions are called."""

    def test_levels(self) -> None:
        """Core's names and Twisted's, in any case; there is nothing finer than debug."""
        for text, level in (
            ("fatal", Level.FATAL),
            ("critical", Level.FATAL),
            ("Error", Level.ERROR),
            ("WARNING", Level.WARNING),
            ("warn", Level.WARNING),
            ("info", Level.INFO),
            ("debug", Level.DEBUG),
            ("trace", Level.DEBUG),
        ):
            self.assertIs(Level.named(text), level)
        self.assertEqual(str(Level.WARNING), "Warning")

    def test_no_level(self) -> None:
        """All else is none."""
        for text in ("", "verbose", "debug ", "inf", "information"):
            self.assertRaisesRegex(ConfigError, "^not a valid level$", Level.named, text)

    def test_partitions(self) -> None:
        """Core's names in any case, and what is a package or a module of ours."""
        for partition, namespace, name in (
            ("overlay", NODE, "Overlay"),
            ("DATABASE", STORE, "Database"),
            ("Herder", f"{ROOT}.herder", "Herder"),
            (ROOT, ROOT, ROOT),
            (NODE, NODE, NODE),
            ("Stellar_Overlay.Node.Links", LINKS, LINKS),
            (f"{ROOT}.tap", f"{ROOT}.tap", f"{ROOT}.tap"),
        ):
            self.assertEqual((namespace_of(partition), canonical(partition)), (namespace, name))

    def test_no_partition(self) -> None:
        """All else is none, so that nobody can make up any number of them."""
        for partition in BAD_PARTITIONS:
            self.assertRaisesRegex(ConfigError, "^not a valid partition$", namespace_of, partition)


class LevelTests(SynchronousTestCase):
    """Which partition has which level."""

    def setUp(self) -> None:
        self.levels = LogLevels()

    def test_at_first(self) -> None:
        """All is info; core's partitions come first."""
        found = self.levels.levels()
        self.assertEqual(found, dict.fromkeys(SHOWN, Level.INFO))
        self.assertEqual(list(found)[:4], ["Database", "Herder", "Overlay", ROOT])

    def test_one(self) -> None:
        """A level counts for what is below, by whichever name it is set, and for nothing else."""
        self.levels.set_level("overlay", Level.DEBUG)
        found = self.levels.levels()
        self.assertEqual({name for name in found if found[name] is Level.DEBUG}, {"Overlay", NODE})
        self.assertIs(self.levels.level(LINKS), Level.DEBUG)

    def test_deeper(self) -> None:
        """The nearest level counts; a module that has one is shown from then on."""
        self.levels.set_level(LINKS, Level.ERROR)
        self.levels.set_level(NODE, Level.DEBUG)
        self.assertIs(self.levels.level(LINKS), Level.ERROR)
        self.assertEqual(set(self.levels.levels()), {*SHOWN, LINKS})

    def test_all(self) -> None:
        """One for all ends those that single partitions had (core Logging.cpp)."""
        self.levels.set_level(LINKS, Level.ERROR)
        self.levels.set_level(None, Level.WARNING)
        self.assertEqual(self.levels.levels(), dict.fromkeys(SHOWN, Level.WARNING))

    def test_unknown(self) -> None:
        """A partition that is none changes nothing."""
        for partition in BAD_PARTITIONS:
            self.assertRaises(ConfigError, self.levels.set_level, partition, Level.DEBUG)
        self.assertEqual(self.levels.levels(), dict.fromkeys(SHOWN, Level.INFO))

    @settings(derandomize=True, max_examples=60)
    @given(
        st.lists(
            st.tuples(st.sampled_from([None, ROOT, NODE, LINKS, STORE]), st.sampled_from(Level))
        )
    )
    def test_any_course(self, steps: list[tuple[str | None, Level]]) -> None:
        """After any steps, each event is judged by the last level of the nearest partition."""
        levels, model = LogLevels(), {ROOT: Level.INFO}
        for partition, level in steps:
            levels.set_level(partition, level)
            model = {ROOT: level} if partition is None else {**model, partition: level}
        for namespace in (ROOT, NODE, LINKS, STORE):
            nearest = max((one for one in model if namespace.startswith(one)), key=len)
            for level in Level:
                judged = levels(event(f"{namespace}.Class", level))
                wanted = list(Level).index(level) <= list(Level).index(model[nearest])
                self.assertIs(judged is PredicateResult.yes, wanted)


def event(namespace: str, level: Level) -> dict[str, Any]:
    """Return an event of the log."""
    return {"log_namespace": namespace, "log_level": LogLevel.levelWithName(level.value)}


class EnvironmentTests(SynchronousTestCase):
    """What STELLAR_OVERLAY_LOG says."""

    def setUp(self) -> None:
        self.levels = LogLevels()

    def configure(self, text: str, default: Level = Level.INFO) -> dict[str, str]:
        """Return the levels that are not the default, after reading a text."""
        self.assertTrue(self.levels.configure({VARIABLE: text}, default))
        found = self.levels.levels()
        return {name: str(level) for name, level in found.items() if level is not default}

    def test_nothing(self) -> None:
        """Without it, or with nothing in it, all has the default."""
        for environ in ({}, {VARIABLE: ""}, {VARIABLE: " "}):
            self.assertFalse(self.levels.configure(environ, Level.ERROR))
            self.assertEqual(self.levels.levels(), dict.fromkeys(SHOWN, Level.ERROR))

    def test_one_level(self) -> None:
        """A level is for all of ours."""
        self.assertEqual(self.configure("debug"), dict.fromkeys(SHOWN, "Debug"))
        self.assertEqual(self.configure("info"), {})

    def test_partitions(self) -> None:
        """Partitions have theirs, all else what the runner says."""
        text = "stellar_overlay.node=debug,stellar_overlay.gossip=info"
        self.assertEqual(self.configure(text), {"Overlay": "Debug", NODE: "Debug"})
        found = self.configure(text, Level.WARNING)
        self.assertEqual(found, {"Overlay": "Debug", NODE: "Debug", f"{ROOT}.gossip": "Info"})

    def test_both(self) -> None:
        """A level for all, and others for some, in any order and with any blanks."""
        expected = dict.fromkeys(SHOWN, "Error") | {"Database": "Debug", STORE: "Debug"}
        for text in ("error,database=debug", " Database = DEBUG , error ,"):
            self.assertEqual(self.configure(text), expected)

    def test_bad(self) -> None:
        """What is wrong is quoted, with what there is; nothing is changed."""
        for text, word in (
            ("verbose", "not a valid level"),
            ("debug,stellar_overlay.nod=info", "'stellar_overlay.nod=info': not a valid partition"),
            ("=debug", "not a valid partition"),
            (f"{NODE}=", "not a valid level"),
            (f"{NODE}:debug", "not a valid level"),
            ("\x1b[31m", r"'\x1b[31m'"),
        ):
            error = self.assertRaises(ConfigError, self.levels.configure, {VARIABLE: text})
            for part in (VARIABLE, word, "stellar_overlay.node=debug"):
                self.assertIn(part, str(error))
            self.assertTrue(str(error).isprintable())
        self.assertEqual(self.levels.levels(), dict.fromkeys(SHOWN, Level.INFO))


class FilterTests(SynchronousTestCase):
    """What observers see."""

    def setUp(self) -> None:
        self.patch(LOG_LEVELS, "_current", LogLevels()._current)
        self.seen: list[str] = []

    def note(self, event: dict[str, Any]) -> None:
        """See an event."""
        self.seen.append(f"{event['log_namespace']} {event['log_level'].name}")

    def log(self, others: Level | None) -> list[str]:
        """Return what is seen of an info and a debug line of some namespaces."""
        self.seen = []
        for namespace in (ROOT, f"{LINKS}.Links", "twisted.web", "stellar_overlay_too", "-"):
            log = Logger(namespace, observer=filtered(self.note, others))  # type: ignore[arg-type]
            log.info("news")
            log.debug("details")
        return self.seen

    def test_ours(self) -> None:
        """Our levels decide about ours only, and can change at any time."""
        rest = [
            f"{namespace} {level}"
            for namespace in ("twisted.web", "stellar_overlay_too", "-")
            for level in ("info", "debug")
        ]
        self.assertEqual(self.log(None), [f"{ROOT} info", f"{LINKS}.Links info", *rest])
        LOG_LEVELS.set_level("Overlay", Level.DEBUG)
        LOG_LEVELS.set_level(ROOT, Level.FATAL)
        self.assertEqual(self.log(None), [f"{LINKS}.Links info", f"{LINKS}.Links debug", *rest])

    def test_others(self) -> None:
        """Others have a level of their own, which is none of ours."""
        LOG_LEVELS.set_level(None, Level.DEBUG)
        ours = [
            f"{name} {level}" for name in (ROOT, f"{LINKS}.Links") for level in ("info", "debug")
        ]
        self.assertEqual(self.log(Level.WARNING), ours)
        self.assertEqual(len(self.log(Level.INFO)), 7)

    def test_no_namespace(self) -> None:
        """What says nothing of itself is left to others."""
        self.assertIs(LOG_LEVELS({}), PredicateResult.maybe)

    def test_standard_error(self) -> None:
        """Commands and tests have lines on standard error: ours, and warnings of others."""
        stderr = StringIO()
        self.patch(sys, "stderr", stderr)
        for namespace in (LINKS, "twisted.web"):
            log = Logger(namespace, observer=TO_STDERR)
            log.info("some {what}", what="news")
            log.warn("trouble")
        lines = [line.partition("[")[2] for line in stderr.getvalue().splitlines()]
        self.assertEqual(
            lines,
            [f"{LINKS}#info] some news", f"{LINKS}#warn] trouble", "twisted.web#warn] trouble"],
        )
