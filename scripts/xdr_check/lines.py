"""Small pieces of emitted Python: lines, names, conditions."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

LINE_LENGTH = 100

_TAKEN = {"body", "o", "end", "stop", "left", "count", "above", "cost", "size", "walk"}


@dataclass(frozen=True)
class Line:
    """A line of code; with ``args``, a call that may have to be wrapped."""

    text: str
    args: tuple[str, ...] | None = None
    depth: int = 0

    def render(self) -> str:
        """Return the line as ruff would format it."""
        indent = "    " * self.depth
        if self.args is None:
            return indent + self.text
        args = ", ".join(self.args)
        line = f"{indent}{self.text}({args})"
        if len(line) <= LINE_LENGTH:
            return line
        inner = f"\n{indent}    "
        if len(inner) - 1 + len(args) <= LINE_LENGTH:
            return f"{indent}{self.text}({inner}{args}\n{indent})"
        return f"{indent}{self.text}({inner}{f',{inner}'.join(self.args)},\n{indent})"


def indented(lines: Iterable[Line]) -> list[Line]:
    """Return the lines one level deeper."""
    return [replace(line, depth=line.depth + 1) for line in lines]


def block(head: str, lines: Iterable[Line]) -> list[Line]:
    """Return ``head`` and, one level deeper, the lines below it."""
    return [Line(head), *(indented(lines) or [Line("pass", None, 1)])]


def refuse(condition: str, error: str, *args: str) -> list[Line]:
    """Return the lines that raise ``error(*args)`` when ``condition`` holds."""
    return block(f"if {condition}:", [Line(f"raise {error}", args)])


def quoted(text: str) -> str:
    """Return ``text`` as a literal."""
    return f'"{text}"'


def snake(name: str) -> str:
    """Return ``CamelCase`` as ``camel_case``; abbreviations stay together."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).lower()


def variable(where: str) -> str:
    """Return the name of the variable that holds the word at the path ``where``."""
    name = snake("_".join(where.replace("[]", "Item").split(".")[-2:]))
    return f"{name}_" if name in _TAKEN or keyword.iskeyword(name) else name


def one_of(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text for people: ``0, 1, 256`` or ``0 to 26``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(
        f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs
    )


def is_one_of(name: str, numbers: Sequence[int]) -> str:
    """Return the condition that the unsigned variable ``name`` is one of ascending numbers."""
    first, last = numbers[0], numbers[-1]
    if first == last:
        return f"{name} == {first}"
    if last - first == len(numbers) - 1 > 1:
        return f"{first} <= {name} <= {last}" if first else f"{name} <= {last}"
    return f"{name} in {{{', '.join(map(str, numbers))}}}"


def is_none_of(name: str, numbers: Sequence[int]) -> str:
    """Return the condition that the unsigned variable ``name`` is none of ascending numbers."""
    if list(numbers) == [0]:
        return name
    if len(numbers) == 1:
        return f"{name} != {numbers[0]}"
    if list(numbers) == list(range(len(numbers))):
        return f"{name} > {numbers[-1]}"
    return f"{name} not in {{{', '.join(map(str, numbers))}}}"
