"""What people see of a survey."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.survey_admin import SurveyAdmin
from stellar_overlay.tools.survey_flow import SurveyFlow
from stellar_overlay.tools.survey_plan import Phase, Plan, Progress
from stellar_overlay.tools.survey_table import duration, lines, progress_line
from tests.tools.survey_kit import FakeAdmin, FakeCore, node_id

ME, A, B, C, D = map(node_id, ("me", "A", "B", "C", "D"))


def finished(core: FakeCore, clock: Clock, max_nodes: int = 100) -> SurveyFlow:
    """Return a survey that has come to its end."""
    plan = Plan(
        nonce=1, collect_seconds=1, settle_seconds=0, patience_seconds=20, max_nodes=max_nodes
    )
    run = SurveyFlow(SurveyAdmin(FakeAdmin(core)), clock, plan)
    running = Deferred.fromCoroutine(run.run())
    while not running.called:
        clock.advance(0.5)
    return run


class TableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        edges = {(ME, A), (A, B), (B, C), (D, ME)}
        self.core = FakeCore(self.clock.seconds, edges, me=ME)

    def test_table(self) -> None:
        """A row for each node, who has answered and who has not; then what it comes to."""
        self.core.silent, self.core.bad = {C}, {D}
        table = list(lines(finished(self.core, self.clock)))
        self.assertEqual(len({line.index("answered") for line in table[:1]}), 1)
        rows = {row.split()[0]: row for row in table[1:6]}
        self.assertEqual(list(rows), sorted(node[:5] for node in (ME, A, B, C, D)))
        self.assertRegex(rows[A[:5]], r"^\S+ +v27\.0\.0 +1 +1 +64 +8 +1 +2 +121 +112 +3 +yes$")
        self.assertRegex(rows[ME[:5]], "the surveyor$")
        self.assertRegex(rows[C[:5]], r"v27\.0\.0( +-){9} +silent$")
        self.assertRegex(rows[D[:5]], r"v27\.0\.0( +-){9} +unreadable$")
        self.assertEqual(table[6:8], ["", "nodes         5: 2 answered, 1 silent, 1 unreadable"])
        self.assertEqual(table[8], "edges         4")
        self.assertRegex(table[9], r"^mean latency  \d+ ms$")

    def test_not_asked(self) -> None:
        """How many were named and never asked is said where there are any."""
        table = list(lines(finished(self.core, self.clock, max_nodes=2)))
        self.assertEqual(
            table[4:7],
            ["", "nodes         3: 2 answered", "not asked     1 more that others named"],
        )

    def test_hostile_version(self) -> None:
        """A version is one printable word or more, and never longer than its column."""
        self.core.versions = {A: "\x1b[2J" * 50, B: "\u202e\n\n", C: "v" * 100}
        for line in lines(finished(self.core, self.clock)):
            self.assertTrue(line.isprintable())
            self.assertLess(len(line), 150)

    def test_alike(self) -> None:
        """Ids that begin alike are shown as long as it takes to tell them apart."""
        run = finished(self.core, self.clock)
        twins = [f"{A[:5]}{letter}{A[6:]}" for letter in "XYZ"]
        for twin in twins:
            run.results.merge(twin, {})
        table = list(lines(run))
        self.assertEqual(
            [row.split()[0] for row in table if row[:5] == A[:5]][-3:], [twin[:6] for twin in twins]
        )

    def test_empty(self) -> None:
        """Nothing at all is a table, too."""
        plan = Plan(nonce=1, collect_seconds=1, settle_seconds=0, patience_seconds=20)
        run = SurveyFlow(SurveyAdmin(FakeAdmin(self.core)), self.clock, plan)
        self.assertEqual(
            list(lines(run))[1:],
            [
                "",
                "nodes         0: 0 answered",
                "edges         0",
                "mean latency  unknown",
            ],
        )


class ProgressTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Where it is, and what is left."""
        for progress, line in (
            (Progress(phase=Phase.COLLECTING, seconds_left=300), "collecting: 5 min left"),
            (
                Progress(phase=Phase.SETTLING, seconds_left=3),
                "settling: 3 s for all nodes to hear that it is over",
            ),
            (
                Progress(phase=Phase.REPORTING, asked=9, answered=2, queued=3),
                "reporting: 2 of 9 nodes have answered, 3 not asked yet",
            ),
            (
                Progress(phase=Phase.REPORTING, asked=9, answered=9),
                "reporting: 9 of 9 nodes have answered",
            ),
            (Progress(phase=Phase.COLLECTING, trouble="a\x1bb"), "collecting: a\\x1bb"),
        ):
            self.assertEqual(progress_line(progress), line)

    def test_duration(self) -> None:
        """In minutes and seconds."""
        for seconds, words in ((0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (1800, "30 min")):
            self.assertEqual(duration(seconds), words)
