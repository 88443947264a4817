"""Writes the code that walks a value, one method per kind of type.

What makes the code fast:

- All words at a known distance are read at once, by one ``Struct`` with pad bytes. Bytes of which
  every value is legal are never looked at, and arrays of nothing else are skipped by an addition.
- A union whose smallest arm is plain, such as an absent optional or a native asset, is put off:
  the words behind it are read with its tag as if it were that arm. They exist in any message that
  is long enough; any other arm has them read again.
- Else, what the arms of a union read first is read with its tag, as far as it exists in all arms.
- Reading past the end raises ``struct.error``, which costs less than asking before each read.
- A recursive type is walked by one loop (:meth:`Writer.descend`), so that nothing recurses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from scripts.xdr_check import rules
from scripts.xdr_check.idl import (
    Arm,
    Blob,
    Enum,
    IdlError,
    List,
    Name,
    Optional,
    Repeat,
    Struct,
    Type,
    Union,
    Void,
)
from scripts.xdr_check.lines import (
    Line,
    block,
    is_none_of,
    is_one_of,
    one_of,
    quoted,
    refuse,
    snake,
    variable,
)
from scripts.xdr_check.reader import Choice, Fork, Reader, Word
from scripts.xdr_check.schema import as_union

DISPATCH_ARMS = 12
"""A union with more arms than this that need code picks a function from a dict."""
SIZE_TABLE_ARMS = 4
"""A union that big, but for so many plain arms at least, looks their sizes up in a dict."""


@dataclass
class Writer(Reader):
    """Writes the code for values that follow one another."""

    fork: Fork | None = None

    def value(
        self, type_: Type, where: str, *, name: str | None = None, is_last: bool = False
    ) -> None:
        """Write the code for a value.

        :param where: the path to it, for the text of errors.
        :param name: the type's own name.
        :param is_last: nothing follows it in the recursive type whose loop we are in.
        """
        plain = self.functions.schema.plain_size(type_)
        if plain is not None:
            self.skip += plain
            return
        match type_:
            case Name(other):
                self.named(self.functions.schema.canonical(other), where, is_last=is_last)
            case Struct(fields):
                for f in fields:
                    last = is_last and f is fields[-1]
                    self.value(f.type, f"{where}.{f.name}", is_last=last)
            case Union():
                self.union(Choice(type_, where, name, is_last))
            case Optional():
                self.union(Choice(as_union(type_), where, None, is_last))
            case Enum():
                self.legal_word(where, type_.values)
            case Blob(bound):
                self.blob(where, bound)
            case List():
                self.list(type_, where, is_last=is_last)
            case Repeat(item, times):
                for index in range(times):
                    self.value(item, f"{where}[{index}]")
            case _:
                raise IdlError(f"{where}: no code for {type_}")

    def named(self, name: str, where: str, *, is_last: bool) -> None:
        """Write the code for a value of a type with a name: inline, a call, or one level down."""
        if name == self.owner:
            self.descend(name, "1", where, is_last=is_last)
        elif self.functions.has(name, where):
            self.call(name, "1")
        else:
            self.value(self.functions.schema.type(name), where, name=name, is_last=is_last)

    def call(self, name: str, count: str) -> None:
        """Write the call of the function for a type, for ``count`` values if it wants to know."""
        function, more = self.functions.call(name)
        self.read()
        args = ["body", self.at(self.skip), self.end]
        args += [count if arg == "count" else arg for arg in more]
        self.lines.append(Line(f"o = {function}", tuple(args)))
        self.here()

    def legal_word(self, where: str, legal: Sequence[int]) -> None:
        """Write the code for a word that must be one of some numbers."""
        word = self.word(where)
        wrong = is_none_of(word.name, legal)
        args = quoted(where), word.name, quoted(one_of(legal))
        word.judge = lambda at: refuse(wrong, "_unknown", *args, at)

    def blob(self, where: str, bound: int | None) -> None:
        """Write the code for a string or variable opaque."""
        size = self.word(f"{where}.size").name
        self.read()
        name, start = quoted(where), self.at(self.skip)
        if bound is None:
            self.lines += refuse(f"{size} > {self.room()}", "_no_room", name, size, start, self.end)
        else:
            self.lines += refuse(f"{size} > {bound}", "_too_long", name, size, str(bound), start)
        self.advance(size)
        wrong = "o & 3 and body[o : (o := o + 3 & -4)] not in _ZEROS"
        self.lines += refuse(wrong, "_bad_padding", name, "o")

    # Unions: reading ahead.

    def union(self, choice: Choice) -> None:
        """Write the code for a union: at once, or when it is known what follows."""
        arms, schema = choice.union.arms, self.functions.schema
        if len(arms) == 1:
            self.legal_word(choice.tag_where, choice.union.tags)
            self.value(arms[0].field.type, choice.arm_where(arms[0]), is_last=choice.is_last)
            return
        tag = self.word(choice.tag_where)
        smallest = min(arms, key=lambda arm: schema.min_size(arm.field.type))
        plain = schema.plain_size(smallest.field.type)
        fork = Fork(choice, tag, smallest, self.skip + (plain or 0))
        if plain is not None and not self.fork and not self._is_dispatched(choice):
            self.skip += plain
            self.fork = fork
            return
        if not self.fork:
            self.unpack_unknown([*self.words, *self._read_by_arms(fork)])
        self.read()
        self._pick(choice, tag.name, arms)

    def read(self) -> None:
        """Read the words that are wanted and judge them; write a choice that was put off."""
        fork, self.fork = self.fork, None
        if fork is None:
            super().read()
            return
        split = self.words.index(fork.tag) + 1
        words, granted, self.words = self.words[:split], self.words[split:], []
        if granted:
            known = self.known
            self.unpack_unknown([*words, *granted])
            self.known = known
            self.judge(words)
            self._take_for_granted(fork, granted)
        else:
            self.unpack_unknown([*words, *self._read_by_arms(fork)])
            self.judge(words)
            rest, self.skip = self.skip - fork.behind, fork.tag.behind + 4
            self._pick(fork.choice, fork.tag.name, fork.choice.union.arms)
            self.skip = rest

    def block(self, behind: int) -> Self:
        """Return a writer for a block of code that begins so many bytes behind."""
        return replace(super().block(behind), fork=None)

    def _take_for_granted(self, fork: Fork, granted: list[Word]) -> None:
        """Write the branch between the smallest arm, and any other and a second read."""
        others = tuple(arm for arm in fork.choice.union.arms if arm is not fork.smallest)
        smallest, other = self.block(self.skip), self.block(fork.tag.behind + 4)
        smallest.settle()
        other._pick(fork.choice, fork.tag.name, others)
        other.unpack(granted, fork.behind)
        other.skip = self.skip - fork.behind
        other.settle()
        self.lines += block(f"if {is_one_of(fork.tag.name, fork.smallest.tags)}:", smallest.lines)
        self.lines += block("else:", other.lines)
        done = self.skip
        self.here()
        self.judge(granted, done)

    def _read_by_arms(self, fork: Fork) -> list[Word]:
        """Return what the arms read first, as far as it exists whichever arm it is."""
        choice, begin = fork.choice, fork.tag.behind + 4
        if self._is_dispatched(choice):
            return []
        end = max(self.sure, begin + self.functions.schema.min_size(fork.smallest.field.type))
        names: dict[int, set[str]] = {}
        for arm in choice.union.arms:
            trial = self.block(begin)
            trial._arm(choice, arm)
            for word in trial.first or ():
                if word.behind < end and word.behind not in self.known:
                    names.setdefault(word.behind, set()).add(word.name)
        uses = Counter(name for those in names.values() for name in those)
        words = []
        for behind, those in sorted(names.items()):
            name = min(those)
            is_clear = len(those) == 1 and uses[name] == 1
            words.append(Word(behind, name if is_clear else f"word_{behind}"))
        return words

    # Unions: picking the arm.

    def _pick(self, choice: Choice, tag: str, arms: tuple[Arm, ...]) -> None:
        """Write the code that picks one of ``arms`` by the tag, which ends where we are."""
        legal = one_of(choice.union.tags)
        unknown = quoted(choice.tag_where), tag, quoted(legal), self.at(self.skip - 4)
        if self._is_dispatched(choice):
            self._dispatch(choice, tag, unknown)
        elif len(arms) == 1:
            self.lines += refuse(is_none_of(tag, arms[0].tags), "_unknown", *unknown)
            self._arm(choice, arms[0])
        else:
            self._chain(choice, tag, arms, unknown)
        self.here()

    def _arm(self, choice: Choice, arm: Arm) -> None:
        """Write the code for an arm, which has been picked."""
        where = choice.arm_where(arm)
        self.pay_extra(where)
        self.value(arm.field.type, where, is_last=choice.is_last)
        self.settle()

    def _chain(
        self, choice: Choice, tag: str, arms: tuple[Arm, ...], unknown: tuple[str, ...]
    ) -> None:
        """Write ``if … elif … else: raise``, after a look into a table of sizes if it pays."""
        plain = self.functions.schema.plain_size
        name = choice.name or ""
        is_ranked = self.functions.schema.has_rule(name, rules.COMMON_FIRST)
        first = rules.COMMON_FIRST[name] if is_ranked else ()
        rank = {number: place for place, number in enumerate(first)}
        rest = sorted(arms, key=lambda arm: rank.get(arm.tags[0], len(rank)))
        word = "if"
        fixed = [arm for arm in arms if plain(arm.field.type) is not None]
        if len(fixed) >= SIZE_TABLE_ARMS and len(arms) > DISPATCH_ARMS:
            table = f"_{snake(choice.where).upper()}_SIZES"
            self.functions.table(
                f"{table} =",
                {tag: str(4 + (plain(arm.field.type) or 0)) for arm in fixed for tag in arm.tags},
            )
            more = f" + {self.skip - 4}" if self.skip != 4 else ""
            self.lines.append(Line(f"size = {table}.get({tag})"))
            self.lines += block("if size:", [Line(f"o += size{more}")])
            rest, word = [arm for arm in rest if arm not in fixed], "elif"
        for tags, arm in self._alike(rest):
            inner = self.block(self.skip)
            inner._arm(choice, arm)
            self.lines += block(f"{word} {is_one_of(tag, tags)}:", inner.lines)
            word = "elif"
        self.lines += block("else:", [Line("raise _unknown", unknown)])

    def _alike(self, arms: Iterable[Arm]) -> list[tuple[list[int], Arm]]:
        """Return arms with their tags; plain arms of one size are one arm."""
        found: dict[object, tuple[list[int], Arm]] = {}
        for arm in arms:
            size = self.functions.schema.plain_size(arm.field.type)
            found.setdefault(arm if size is None else size, ([], arm))[0].extend(arm.tags)
        return [(sorted(tags), arm) for tags, arm in found.values()]

    def _is_dispatched(self, choice: Choice) -> bool:
        plain = self.functions.schema.plain_size
        code = [arm for arm in choice.union.arms if plain(arm.field.type) is None]
        return len(code) > DISPATCH_ARMS and (self.owner is None or choice.name != self.owner)

    def _dispatch(self, choice: Choice, tag: str, unknown: tuple[str, ...]) -> None:
        """Write the call of the arm's function from a table."""
        table = f"_{snake(choice.where.replace('.', '_')).upper()}"
        rows = {}
        for arm in choice.union.arms:
            function = "_nothing"
            if isinstance(arm.field.type, Name):
                function, args = self.functions.call(
                    self.functions.schema.canonical(arm.field.type.name)
                )
                if args != ["left"]:
                    raise IdlError(f"{choice.arm_where(arm)}: {function} does not fit a table")
            elif not isinstance(arm.field.type, Void):
                raise IdlError(f"{choice.arm_where(arm)}: an arm without name in a big union")
            rows.update(dict.fromkeys(arm.tags, function))
        self.functions.table(f"{table}: dict[int, _Walker] =", rows)
        self.lines.append(Line(f"walk = {table}.get({tag})"))
        self.lines += refuse("walk is None", "_unknown", *unknown)
        self.lines.append(Line("o = walk", ("body", self.at(self.skip), self.end, "left")))

    # Arrays and levels.

    def list(self, list_: List, where: str, *, is_last: bool) -> None:
        """Write the code for a variable array."""
        schema = self.functions.schema
        count = self.word(f"{where}.count").name
        self.read()
        self._limit(list_, where, count)
        plain = schema.plain_size(list_.item)
        if plain is not None:
            self.advance(f"{count} * {plain}")
            return
        times = schema.times_of(self.owner, list_.item) if self.owner else 0
        if self.owner and times:
            more = count if times == 1 else f"{count} * {times}"
            self.descend(self.owner, more, where, is_last=is_last, guard=count)
            return
        if self.draws:
            self.pay(f"{count} * {schema.work(list_.item)}")
            if self.checks:
                at = self.at(self.skip)
                self.lines += refuse("left[0] < 0", "_too_much_work", quoted(where), at)
        name = schema.canonical(list_.item.name) if isinstance(list_.item, Name) else ""
        if name and self.functions.has(name, where):
            self.call(name, count)
            return
        self.settle()
        inner = self.block(0)
        inner.loops, inner.sure = (*self.loops, count), schema.min_size(list_.item)
        inner.value(list_.item, f"{where}[]")
        inner.settle()
        self.lines += block(f"while {count}:", [Line(f"{count} -= 1"), *inner.lines])

    def _limit(self, list_: List, where: str, count: str) -> None:
        """Write the code that refuses too many elements, and more than there can be."""
        least, at = self.functions.schema.min_size(list_.item), self.at(self.skip)
        wrong = f"{count} * {least} > {self.room()}"
        if list_.bound is not None:
            wrong = f"{count} > {list_.bound} or {wrong}"
        args = quoted(where), count, str(list_.bound), str(least), at, self.end
        self.lines += refuse(wrong, "_bad_count", *args)
        if self.functions.schema.has_rule(where, rules.MAX_TOTALS):
            limit = rules.MAX_TOTALS[where]
            total = f"{variable(where)}_total"
            self.lines.append(Line(f"{total} += {count}"))
            wrong = f"{total} > {limit}"
            self.lines += refuse(wrong, "_too_many", quoted(where), total, limit, at)

    def descend(
        self, name: str, count: str, where: str, *, is_last: bool, guard: str | None = None
    ) -> None:
        """Write the code that goes one level down in a recursive type, to ``count`` values.

        :param guard: go down only if this variable is not 0.
        """
        if not is_last:
            raise IdlError(f"{where}: {name} goes on after itself, which no loop can walk")
        self.settle()
        limit = rules.MAX_LEVELS.get(name, "MAX_LEVELS")
        lines = [
            Line("above.append(count)"),
            *refuse(f"len(above) >= {limit}", "_too_deep", quoted(where), limit, "o"),
            Line(f"count = {count}"),
        ]
        if self.draws:
            price = self.functions.schema.work(Name(name))
            lines.append(Line(f"cost += count * {price} + {rules.WORK_PER_LEVEL}"))
        self.lines += block(f"if {guard}:", lines) if guard else lines

    def pay(self, price: str) -> None:
        """Write the code that draws on the budget; in a loop over levels, it does so later."""
        self.lines.append(Line(f"cost += {price}" if self.owner else f"left[0] -= {price}"))

    def pay_extra(self, where: str) -> None:
        """Write the code that draws on the budget for what is dearer than its neighbours."""
        if self.draws and self.functions.schema.has_rule(where, rules.EXTRA_WORK):
            self.pay(str(rules.EXTRA_WORK[where]))
