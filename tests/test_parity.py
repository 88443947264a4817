"""PARITY_STATUS.md: nothing of core is missing there, and what it names exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PACKAGE = "stellar_overlay"
CORE_COMMIT = "a9b861321"

_CORE_FILES = """
    BanManager.h BanManagerImpl.cpp BanManagerImpl.h Floodgate.cpp Floodgate.h FlowControl.cpp
    FlowControl.h FlowControlCapacity.cpp FlowControlCapacity.h Hmac.cpp Hmac.h ItemFetcher.cpp
    ItemFetcher.h OverlayManager.h OverlayManagerImpl.cpp OverlayManagerImpl.h OverlayMetrics.cpp
    OverlayMetrics.h OverlayUtils.cpp OverlayUtils.h Peer.cpp Peer.h PeerAuth.cpp PeerAuth.h
    PeerBareAddress.cpp PeerBareAddress.h PeerDoor.cpp PeerDoor.h PeerManager.cpp PeerManager.h
    PeerSharedKeyId.cpp PeerSharedKeyId.h README.md RandomPeerSource.cpp RandomPeerSource.h
    StellarXDR.h SurveyDataManager.cpp SurveyDataManager.h SurveyManager.cpp SurveyManager.h
    SurveyMessageLimiter.cpp SurveyMessageLimiter.h TCPPeer.cpp TCPPeer.h Tracker.cpp Tracker.h
    TxAdverts.cpp TxAdverts.h TxDemandsManager.cpp TxDemandsManager.h
"""
CORE_FILES = _CORE_FILES.split()
"""``git ls-tree --name-only a9b861321 src/overlay/``, without the directory of tests."""

HERE = ("done", "done differently")
STATUSES = (*HERE, "not ours without a ledger", "to come")
DUTIES = ("Duty", "Status", "Where", "Shown by", "Note")
EXTRAS = ("What", "Where", "Shown by", "Note")
BEYOND = "Beyond core"

CODE = re.compile(r"`([^`]+)`")
TEST_ID = re.compile(r"tests/[\w/]+\.py(::\w+){1,2}")


@dataclass(frozen=True)
class Table:
    """A table of the document.

    :ivar section: the heading above it, the document's own for what comes before the first.
    """

    section: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def cells(line: str) -> tuple[str, ...]:
    """Return what stands between the bars of a line."""
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


@cache
def tables() -> tuple[Table, ...]:
    """Return all tables of the document, in order."""
    section, found, lines = "", [], (ROOT / "PARITY_STATUS.md").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("# ", "## ")):
            section = line.lstrip("# ")
        elif re.fullmatch(r"(\| -+ )+\|", line):
            columns = cells(lines[number - 1])
            rows = []
            for row in lines[number + 1 :]:
                if not row.startswith("|"):
                    break
                if len(cells(row)) != len(columns):
                    raise ValueError(f"{section}: needs {len(columns)} cells: {row}")
                rows.append(dict(zip(columns, cells(row), strict=True)))
            found.append(Table(section, columns, tuple(rows)))
    return tuple(found)


def duties() -> Iterator[tuple[str, dict[str, str]]]:
    """Return the rows about core's files, each with a name for the messages of this test."""
    for table in tables():
        if table.columns == DUTIES:
            for row in table.rows:
                yield f"{table.section}: {row['Duty']}", row


def shown_by(row: dict[str, str]) -> list[str]:
    """Return the tests that a row names."""
    return CODE.findall(row["Shown by"])


@cache
def written_in(path: str) -> frozenset[str]:
    """Return the tests that are written out in a file: functions, and methods by their class."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            methods = (m for m in node.body if isinstance(m, ast.FunctionDef))
            found.update(f"{node.name}::{method.name}" for method in methods)
    return frozenset(found)


class DocumentTests(SynchronousTestCase):
    """Every file of core's ``src/overlay`` has its section, and every table its columns."""

    def test_every_file_of_core(self) -> None:
        """Each is in the heading of exactly one section, and nothing else is in one."""
        files = [
            file
            for section in dict.fromkeys(table.section for table in tables()[1:])
            if section != BEYOND
            for file in section.split(", ")
        ]
        self.assertEqual(sorted(files), sorted(CORE_FILES))

    def test_columns(self) -> None:
        """The head has the counts, the last section what is ours, all others the duties."""
        head, *others = tables()
        self.assertEqual(head.columns, ("Status", "Rows", "Means"))
        for table in others:
            columns = EXTRAS if table.section == BEYOND else DUTIES
            self.assertEqual(table.columns, columns, table.section)
            self.assertGreater(len(table.rows), 0, table.section)
        self.assertEqual(others[-1].section, BEYOND)

    def test_head(self) -> None:
        """The commit is named, and the figures are those of the tables."""
        head = (ROOT / "PARITY_STATUS.md").read_text().partition("\n## ")[0]
        counts = Counter(row["Status"] for _, row in duties())
        self.assertIn(CORE_COMMIT, head)
        self.assertEqual(
            [(row["Status"], row["Rows"]) for row in tables()[0].rows],
            [(status, str(counts[status])) for status in STATUSES],
        )
        self.assertIn(f"Together {counts.total()} rows.", head)


class RowTests(SynchronousTestCase):
    """Each row says what it must, and names only what exists."""

    def test_status(self) -> None:
        """One of four."""
        for name, row in duties():
            self.assertIn(row["Status"], STATUSES, name)

    def test_what_is_here(self) -> None:
        """Has a module and a test; what is done differently, or is not ours, has a reason."""
        for name, row in duties():
            if row["Status"] in HERE:
                self.assertNotEqual(shown_by(row), [], name)
                self.assertNotEqual(row["Where"], "", name)
            if row["Status"] in ("done differently", "not ours without a ledger"):
                self.assertNotEqual(row["Note"], "", name)

    def test_what_is_to_come(self) -> None:
        """Has neither a module nor a test."""
        for name, row in duties():
            if row["Status"] == "to come":
                self.assertEqual((row["Where"], row["Shown by"]), ("", ""), name)

    def test_what_is_beyond_core(self) -> None:
        """Has a module and a test as well."""
        for table in tables():
            if table.section == BEYOND:
                for row in table.rows:
                    self.assertNotEqual(shown_by(row), [], row["What"])
                    self.assertNotEqual(row["Where"], "", row["What"])

    def test_no_row_is_there_twice(self) -> None:
        """A duty of a file is judged once."""
        repeated = [
            name for name, count in Counter(name for name, _ in duties()).items() if count > 1
        ]
        self.assertEqual(repeated, [])

    def test_modules_exist(self) -> None:
        """Each is a file of the package."""
        for table in tables():
            for row in table.rows:
                for path in CODE.findall(row.get("Where", "")):
                    self.assertTrue((ROOT / PACKAGE / path).is_file(), f"{table.section}: {path}")

    def test_tests_exist(self) -> None:
        """Each is written out in its file, under its class if it has one; found without imports."""
        for table in tables():
            for row in table.rows:
                for test_id in shown_by(row) if "Shown by" in row else ():
                    name = f"{table.section}: {test_id}"
                    self.assertTrue(TEST_ID.fullmatch(test_id), name)
                    path, _, test = test_id.partition("::")
                    self.assertTrue((ROOT / path).is_file(), name)
                    self.assertTrue(test.rpartition("::")[2].startswith("test_"), name)
                    self.assertIn(test, written_in(path), name)

    def test_nothing_else_is_in_the_cells_of_tests(self) -> None:
        """One test a line, and no words around it that nobody checks."""
        for table in tables():
            for row in table.rows:
                rest = CODE.sub("", row.get("Shown by", "")).replace("<br>", "")
                self.assertEqual(rest, "", f"{table.section}: {row}")
