"""Output that keeps nobody waiting, however slow its reader is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from io import StringIO, TextIOWrapper

from twisted.trial.unittest import SynchronousTestCase

from stellar_overlay.tools.lossy_output import LossyOutput, writer_to

DEADLINE_SECONDS = 10.0


class Reader:
    """Reads nothing until it is let go on."""

    def __init__(self, *, is_slow: bool = False) -> None:
        self.text = ""
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()
        if not is_slow:
            self.may_go_on.set()

    def write(self, text: str) -> None:
        """Take text, in time."""
        self.has_begun.set()
        self.may_go_on.wait(DEADLINE_SECONDS)
        self.text += text


def output(write: Callable[[str], object], *, max_lines: int = 100) -> LossyOutput:
    """Return what is tested."""
    return LossyOutput(write, lambda count: f"({count} lost)", max_lines=max_lines)


class LossyOutputTests(SynchronousTestCase):
    def test_all_is_written(self) -> None:
        """To a reader that keeps up everything goes, in order, the last lines behind it."""
        reader = Reader()
        lines = output(reader.write)
        for number in range(50):
            lines.put(str(number))
        lines.close("the", "end", seconds=DEADLINE_SECONDS)
        self.assertEqual(reader.text.split("\n"), [*map(str, range(50)), "the", "end", ""])
        self.assertEqual(lines.lost, 0)

    def test_slow_reader(self) -> None:
        """What a slow reader has no room for is lost, and it is told how much that was, and where.

        The last lines are never lost.
        """
        reader = Reader(is_slow=True)
        lines = output(reader.write, max_lines=3)
        lines.put("first")
        self.assertTrue(reader.has_begun.wait(DEADLINE_SECONDS))
        for number in range(10):
            lines.put(str(number))
        self.assertEqual(lines.lost, 7)
        reader.may_go_on.set()
        lines.close("end", seconds=DEADLINE_SECONDS)
        self.assertEqual(reader.text.split(), ["first", "0", "1", "2", "(7", "lost)", "end"])

    def test_stuck_reader(self) -> None:
        """A reader that never goes on keeps nobody from ending."""
        reader = Reader(is_slow=True)
        self.addCleanup(reader.may_go_on.set)
        lines = output(reader.write)
        lines.put("first")
        lines.close("end", seconds=0)
        lines.put("too late")

    def test_broken_pipe(self) -> None:
        """When nobody reads any more that is told at once, and raised in the end."""
        noticed = threading.Event()

        def write(text: str) -> None:
            raise BrokenPipeError

        lines = output(write)
        lines.on_error = noticed.set
        lines.put("first")
        self.assertTrue(noticed.wait(DEADLINE_SECONDS))
        lines.put("second")
        self.assertRaises(BrokenPipeError, lines.close, "end")


class WriterTests(SynchronousTestCase):
    def test_descriptor(self) -> None:
        """Text goes out as the stream encodes it, past its buffer, behind what is in there."""
        reading, writing = os.pipe()
        stream = TextIOWrapper(
            os.fdopen(writing, "wb"), encoding="ascii", errors="backslashreplace"
        )
        self.addCleanup(stream.close)
        self.addCleanup(os.close, reading)
        stream.write("before ")
        writer_to(stream)("n\xe9\n")
        self.assertEqual(os.read(reading, 100), b"before n\\xe9\n")

    def test_no_descriptor(self) -> None:
        """A stream in memory is written to as it is, and where there is none nothing is written."""
        stream = StringIO()
        writer_to(stream)("text")
        writer_to(None)("text")
        self.assertEqual(stream.getvalue(), "text")
