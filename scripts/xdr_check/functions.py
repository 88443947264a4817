"""The functions and tables that the emitted module consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scripts.xdr_check import rules
from scripts.xdr_check.idl import Name, Type
from scripts.xdr_check.lines import Line, block, indented, quoted, refuse, variable
from scripts.xdr_check.schema import Schema
from scripts.xdr_check.writer import Writer

INLINE_LINES = 14
"""A type that is mentioned more than once gets a function when its code is longer than this."""


@dataclass
class Functions:
    """What has been emitted so far; functions come before those that call them.

    :param texts: functions by name, as lines.
    :param tables: tables by name, as lines.
    :param layouts: what stands in the format of a ``Struct``, without the ``>``.
    """

    schema: Schema = field(default_factory=Schema)
    texts: dict[str, list[str]] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    layouts: set[str] = field(default_factory=set)
    _is_short: dict[str, bool] = field(default_factory=dict)

    def struct(self, gaps: Sequence[int]) -> str:
        """Return the reader of words before each of which so many bytes are skipped."""
        layout = "".join((f"{gap}x" if gap else "") + "I" for gap in gaps)
        self.layouts.add(layout)
        return f"_{layout}"

    def table(self, head: str, rows: Mapping[int, str]) -> None:
        """Add a dict."""
        lines = [f"    {key}: {value}," for key, value in sorted(rows.items())]
        self.tables[head] = [f"{head} {{", *lines, "}"]

    def has(self, name: str, where: str) -> bool:
        """Tell whether a type is walked by a function at a path, rather than inline."""
        schema = self.schema
        if schema.has_rule(where, rules.INLINE):
            return False
        if schema.is_inside(name, schema.type(name)):
            return name in schema.recursive
        if schema.mentions[name] == 1:
            return False
        return name in rules.MAX_BYTES or not self._has_short_code(name)

    def _has_short_code(self, name: str) -> bool:
        if name not in self._is_short:
            scratch = Writer(Functions(self.schema, _is_short=self._is_short), draws=True)
            scratch.value(self.schema.type(name), name, name=name)
            scratch.settle()
            self._is_short[name] = len(scratch.lines) <= INLINE_LINES
        return self._is_short[name]

    def call(self, name: str) -> tuple[str, list[str]]:
        """Return the function for a type, emitted if need be, and its last arguments.

        ``left`` is the budget, ``count`` how many values to walk.
        """
        schema = self.schema
        draws = schema.is_within_budgeted(name) or schema.is_around_budgeted(Name(name))
        is_many = name in schema.recursive or name in schema.listed
        if f"_{name}" not in self.texts:
            self._emit(name, draws=draws, is_many=is_many)
        return f"_{name}", ["left"] * draws + ["count"] * is_many

    def _emit(self, name: str, *, draws: bool, is_many: bool) -> None:
        """Emit the function for a type."""
        schema = self.schema
        cap = rules.MAX_BYTES[name] if schema.has_rule(name, rules.MAX_BYTES) else None
        is_recursive = name in schema.recursive
        writer = Writer(
            self,
            owner=name if is_recursive else None,
            end="stop" if cap else "end",
            draws=draws,
            checks=not schema.is_within_budgeted(name),
            sure=schema.min_size(Name(name)) + schema.min_after[name],
        )
        writer.pay_extra(name)
        writer.value(schema.type(name), name, name=name, is_last=is_recursive)
        if is_many:
            writer.settle()
            lines = self._with_cap(name, cap, writer.lines) if cap else writer.lines
            lines = [Line("count -= 1"), *lines]
            if is_recursive:
                lines = self._loop_over_levels(name, lines, draws=draws)
            else:
                lines = [*block("while count:", lines), Line("return o")]
        else:
            lines = writer.lines_with_return()
        params = ["body: bytes", "o: int", "end: int"]
        params += ["left: list[int]"] * draws + ["count: int"] * is_many
        self._add(f"_{name}", params, f"Walk {'``count`` ' * is_many}{name}.", lines)

    def _with_cap(self, name: str, cap: str, lines: list[Line]) -> list[Line]:
        """Return the lines for one element within its limit on bytes."""
        head = [Line(f"stop = o + {cap} if end - o > {cap} else end")]
        if name == rules.BUDGETED:
            head = [*refuse("left[0] < 0", "_too_much_work", quoted(name), "o"), *head]
        return [*head, *lines, *refuse("o > stop", "_overrun", quoted(name), "o", "stop")]

    def _loop_over_levels(self, name: str, element: list[Line], *, draws: bool) -> list[Line]:
        """Return the loop that walks values of a recursive type, level by level.

        ``above`` remembers for each level around this one how many values are still to come.
        """
        totals = [path for path in rules.MAX_TOTALS if path.startswith(f"{name}.")]
        leave = [*[Line("left[0] -= cost")] * draws, Line("return o")]
        climb = [*block("if not above:", leave), Line("count = above.pop()")]
        return [
            Line("above: list[int] = []"),
            *[Line("cost = 0")] * draws,
            *(Line(f"{variable(path)}_total = 0") for path in totals),
            *block("while True:", [*block("while not count:", climb), *element]),
        ]

    def message(self, name: str, type_: Type) -> str:
        """Emit the function for one arm of the root and return its name."""
        draws = self.schema.is_around_budgeted(type_)
        writer = Writer(self, base=4, draws=draws, checks=draws, sure=self.schema.min_size(type_))
        writer.value(type_, name)
        lines = writer.lines_with_return()
        if draws:
            lines = [Line("left = [WORK_BUDGET - end * WORK_PER_BYTE]"), *lines]
        alone = type_.name if isinstance(type_, Name) and not self.has(type_.name, name) else ""
        if self.schema.has_rule(alone, rules.MAX_BYTES):
            limit = f"4 + {rules.MAX_BYTES[alone]}"
            lines = [*refuse(f"end > {limit}", "_overrun", quoted(name), "end", limit), *lines]
        self._add(f"_{name}", ["body: bytes", "end: int"], f"Walk the message {name}.", lines)
        return f"_{name}"

    def _add(self, name: str, params: list[str], what: str, lines: list[Line]) -> None:
        head = Line(f"def {name}", tuple(params)).render() + " -> int:"
        code = [line.render() for line in indented(lines)]
        self.texts[name] = [head, f'    """{what}"""', *code]
