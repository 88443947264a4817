"""What is made of the demo's survey: the verdict, in words and in figures, and the picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.gossip.survey_data import SurveyDataManager
from stellar_overlay.node.manager import OverlayManager
from stellar_overlay.tools.demo_checks import Check
from stellar_overlay.tools.demo_survey import Told
from stellar_overlay.tools.demo_topology import check_survey, picture
from stellar_overlay.wire.message import MessageType
from stellar_overlay.wire.survey_body import SurveyRequest, TimeSlicedPeerData, TopologyResponse
from tests.tools.demo_kit import Play

TITLE = (
    " what each node told the surveyor of its links:  > it dialled that one  < was dialled by it"
)
Change = Callable[[TopologyResponse], TopologyResponse]


class SurveyedTests(SynchronousTestCase):
    """Three nodes of which one, that is not the surveyor, may have its answers changed."""

    def surveyed(self, change: Change | None = None) -> Check:
        """Survey, and return what comes of it; the other checks are good."""
        self.play = Play(self, seconds=2)
        self.liar = self.play.nodes[1]
        if change is not None:
            _change_answers(self.liar, change)
        return self.play.run_for("survey")

    @property
    def names(self) -> list[str]:
        return [node.local_node.peer_id.short for node in self.play.nodes]

    def rows(self) -> list[str]:
        return list(picture(self.play.network, self.play.survey))

    def assert_fails(self, check: Check, seen: str, expected: str) -> None:
        """Assert that a check failed, and says what it saw and what it expected, and no more."""
        self.assertFalse(check.ok, check.text)
        self.assertIn(seen, check.text)
        self.assertTrue(check.text.endswith(f"(expected: {expected})"), check.text)


class VerdictTests(SurveyedTests):
    def test_good(self) -> None:
        """All nodes, all links, all figures."""
        check = self.surveyed()
        self.assertTrue(check.ok, check.text)
        figures = dict(check.figures)
        written, read = figures.pop("messages_written"), figures.pop("messages_read")
        assert isinstance(written, int)
        assert isinstance(read, int)
        self.assertTrue(6 < written < read + 100 < written + 200, (written, read))
        self.assertEqual(
            figures,
            {
                "nodes": 3, "answered": 3, "edges": 3, "expected": 3, "missing": 0, "extra": 0,
                "ends": 6, "ends_wrong": 0, "totals_wrong": 0, "collecting_seconds": 0.7,
                "seconds": 0.8,
            },
        )  # fmt: skip
        self.assertEqual(
            check.text,
            "3/3 nodes answered, 3/3 links match, both ways and at both ends, 0 made up; the"
            f" figures of 6/6 link ends are those of the nodes' own counters, {written} messages"
            " written among them; 0.7 s of collecting, all told 0.8 s after the start",
        )

    def test_left_out(self) -> None:
        """A link that one end keeps to itself does not match, although the other tells of it."""
        check = self.surveyed(lambda answer: _without_outbound(answer, fewer=1))
        seed, liar, _ = self.names
        self.assert_fails(
            check,
            "3/3 nodes answered, 2/3 links match, both ways and at both ends, 0 made up;",
            f"all links, but {liar} -> {seed}, the right totals, but {liar}",
        )
        self.assertEqual((check.figures["missing"], check.figures["extra"]), (1, 0))

    def test_made_up(self) -> None:
        """A link that there is not is noticed, even if it is one to a node that there is not."""
        ghost = bytes([7]) * 32
        check = self.surveyed(
            lambda answer: replace(
                answer,
                outbound=(*answer.outbound, replace(answer.outbound[0], node=ghost)),
                node=replace(answer.node, total_outbound_peers=len(answer.outbound) + 1),
            )
        )
        liar = self.names[1]
        self.assert_fails(
            check,
            "3/3 links match, both ways and at both ends, 1 made up;",
            f"none made up, but {liar} -> GADQO, the right totals, but {liar}",
        )

    def test_turned_round(self) -> None:
        """Who dialled whom matters."""
        check = self.surveyed(
            lambda answer: replace(
                answer,
                inbound=answer.outbound,
                outbound=answer.inbound,
                node=replace(
                    answer.node,
                    total_inbound_peers=len(answer.outbound),
                    total_outbound_peers=len(answer.inbound),
                ),
            )
        )
        self.assertEqual((check.ok, check.figures["edges"]), (False, 1))
        self.assertEqual((check.figures["missing"], check.figures["extra"]), (2, 2))

    def test_figures(self) -> None:
        """Nor may a node tell other figures of a link than it has counted."""
        check = self.surveyed(
            lambda answer: replace(answer, outbound=tuple(map(_with_one_more, answer.outbound)))
        )
        self.assertFalse(check.ok)
        self.assertIn("; the figures of 5/6 link ends are those of", check.text)
        seed, liar, _ = self.names
        self.assertRegex(
            check.text,
            rf"\(expected: the nodes' own figures, but {liar} of {liar} -> {seed}: messages_read"
            r" \d+, not \d+\)$",
        )
        self.assertEqual(check.figures["ends_wrong"], 1)

    def test_silent(self) -> None:
        """A node that does not answer is named, and so are its links."""
        self.play = Play(self, seconds=2)
        handlers = self.play.nodes[1]._flooding.dispatcher.handlers
        handlers[MessageType.TIME_SLICED_SURVEY_REQUEST] = lambda link, body, now: None
        check = self.play.run_for("survey")
        silent = self.names[1]
        links = sorted(
            (a.local_node.peer_id, b.local_node.peer_id)
            for a, b in self.play.network.links
            if self.play.nodes[1] in (a, b)
        )
        named = ", ".join(f"{a.short} -> {b.short}" for a, b in links)
        self.assert_fails(
            check, "2/3 nodes answered", f"all nodes, but {silent}, all links, but {named}"
        )
        self.assertEqual(len(links), 2)
        self.assertIn(f" 2 {silent}  ! \\ !    0    0          -  NO", self.rows())

    def test_nothing(self) -> None:
        """No links are none that match; of many that are missing, the first are named."""
        play = Play(self, nodes=5, seconds=1)
        check = check_survey(play.network, play.survey)
        self.assertIn("0/5 nodes answered, 0/0 links match", check.text)
        self.assertRegex(
            check.text, r"\(expected: all nodes, but \w{5}, \w{5}, \w{5} and 2 more, all links\)$"
        )


class PictureTests(SurveyedTests):
    def test_small(self) -> None:
        """Each row is what one node has told: whom it dialled, who dialled it, and how many."""
        self.surveyed()
        rows = self.rows()
        first, second, surveyor = self.names
        self.assertEqual(
            rows[:4],
            [
                TITLE,
                "          1 2 3   in  out  median ms  answered",
                f" 1 {first}  \\ < <    2    0          0  yes",
                rows[3],
            ],
        )
        marks = "><" if rows[3].startswith(f" 2 {second}  > \\ >") else "<>"
        self.assertTrue(rows[3].startswith(f" 2 {second}  > \\ {marks[0]} "), rows[3])
        self.assertTrue(rows[4].startswith(f" 3 {surveyor}  > {marks[1]} \\ "), rows[4])
        self.assertTrue(rows[4].endswith("  asks"))
        self.assertEqual(len(rows), 5)

    def test_wrong(self) -> None:
        """What is not so is marked, and the marks explained."""
        self.surveyed(lambda answer: _without_outbound(answer, fewer=1))
        *_, last = rows = self.rows()
        self.assertIn(f" 2 {self.names[1]}  ! \\ ", rows[3])
        self.assertEqual(
            last,
            " ! is a link that the node has not told of, ? one that it has told of and not had",
        )

    def test_sizes(self) -> None:
        """Up to a hundred nodes, it fits 100 columns of text; from 46 on there are no cells."""
        play = Play(self, nodes=3, seconds=1)
        play.run()
        network, nodes = play.network, play.nodes
        for size, head, least in ((25, 3, 50), (26, 3, 26), (45, 3, 45), (46, 2, 0), (100, 2, 0)):
            with self.subTest(size=size):
                network.nodes = [*nodes, *[nodes[0]] * (size - 4), nodes[2]]
                lines = list(picture(network, play.survey))
                self.assertLessEqual(max(map(len, lines)), 100)
                self.assertTrue(all(line.isprintable() for line in lines))
                self.assertGreaterEqual(len(lines[-1]), least)
                self.assertEqual(len([line for line in lines if " G" not in line]), head)
        network.nodes = nodes

    def test_untold(self) -> None:
        """Where nobody has told anything there are no links, and nobody has answered."""
        play = Play(self, nodes=3, seconds=1)
        play.survey.told = {play.nodes[0].local_node.peer_id: Told()}
        rows = list(picture(play.network, play.survey))
        self.assertEqual([row.split()[-1] for row in rows[2:]], ["NO"] * 3)


def _change_answers(node: OverlayManager, change: Change) -> None:
    """Have a node answer something else."""
    data: SurveyDataManager = node.survey._data
    honest = data.page

    def page(request: SurveyRequest) -> TopologyResponse | None:
        answer = honest(request)
        return None if answer is None else change(answer)

    data.page = page  # type: ignore[method-assign]


def _without_outbound(answer: TopologyResponse, fewer: int) -> TopologyResponse:
    """Leave out the first of those that a node has dialled, and do not count them either."""
    outbound = answer.outbound[fewer:]
    return replace(
        answer,
        outbound=outbound,
        node=replace(answer.node, total_outbound_peers=len(outbound)),
    )


def _with_one_more(peer: TimeSlicedPeerData) -> TimeSlicedPeerData:
    counters = peer.counters
    return replace(peer, counters=counters._replace(messages_read=counters.messages_read + 1))
