"""Lines for whoever reads them, or does not: who prints is never kept waiting."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

MAX_WAITING_LINES = 10_000
MAX_WAITING_CHARACTERS = 16 * 1024 * 1024
"""That wait for a slow reader; what is more is lost."""
LINES_AT_ONCE = 500
CLOSE_SECONDS = 2.0


class LossyOutput:
    """Writes lines from a thread of its own; while the reader is slow, new ones are lost.

    Where some were lost, a line says how many.

    :param write: writes text, and may block, or raise what ends the output.
    :param lost_line: returns the line that says so.
    :ivar lost: how many lines were lost in all.
    :ivar on_error: called once, in that thread, when writing has failed.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        lost_line: Callable[[int], str],
        *,
        max_lines: int = MAX_WAITING_LINES,
    ) -> None:
        self.lost = 0
        self.on_error: Callable[[], object] = lambda: None
        self._write = write
        self._lost_line = lost_line
        self._max_lines = max_lines
        self._lines: deque[str] = deque()
        self._characters = 0
        self._lost_here = 0
        self._error: OSError | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Have a line written, if there is room for it; never waits."""
        with self._changed:
            if self._error is not None or self._is_closed:
                return
            if (
                len(self._lines) >= self._max_lines
                or self._characters + len(line) > MAX_WAITING_CHARACTERS
            ):
                self.lost += 1
                self._lost_here += 1
                return
            self._note_lost()
            self._append(line)
            self._changed.notify()

    def close(self, *last_lines: str, seconds: float = CLOSE_SECONDS) -> None:
        """Write what waits and these lines, for at most so long.

        :raises OSError: that writing has failed with.
        """
        with self._changed:
            self._note_lost()
            for line in last_lines:
                self._append(line)
            self._is_closed = True
            self._changed.notify()
        self._thread.join(seconds)
        if self._error is not None:
            raise self._error

    def _note_lost(self) -> None:
        if self._lost_here:
            lost, self._lost_here = self._lost_here, 0
            self._append(self._lost_line(lost))

    def _append(self, line: str) -> None:
        self._lines.append(line)
        self._characters += len(line)

    def _run(self) -> None:
        while (text := self._take()) is not None:
            try:
                self._write(text)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._lines.clear()
                self.on_error()
                return

    def _take(self) -> str | None:
        """Wait for lines and return some of them; None when there will be no more."""
        with self._changed:
            while not self._lines:
                if self._is_closed:
                    return None
                self._changed.wait()
            lines = [self._lines.popleft() for _ in range(min(len(self._lines), LINES_AT_ONCE))]
            self._characters -= sum(map(len, lines))
        return "".join(f"{line}\n" for line in lines)


def writer_to(stream: TextIO | None) -> Callable[[str], object]:
    """Return what writes text to a stream, and in whose lock nobody else can get stuck.

    :param stream: None writes nothing, as when stdout is closed.
    """
    if stream is None:
        return lambda text: None
    try:
        descriptor = stream.fileno()
    except OSError:  # a stream in memory
        return stream.write
    stream.flush()
    encoding, errors = stream.encoding, stream.errors or "strict"

    def write(text: str) -> None:
        data = memoryview(text.encode(encoding, errors))
        while data:
            data = data[os.write(descriptor, data) :]

    return write
