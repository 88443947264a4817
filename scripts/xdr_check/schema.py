"""Questions about types that the emitter asks: how small, how plain, how deep, how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property

from scripts.xdr_check import rules, source
from scripts.xdr_check.idl import (
    Arm,
    Blob,
    Enum,
    Field,
    IdlError,
    List,
    Name,
    Optional,
    Plain,
    Repeat,
    Struct,
    Type,
    Union,
    Void,
)


def as_union(optional: Optional) -> Union:
    """Return what an optional is on the wire: a union of nothing (0) and its item (1)."""
    return Union("present", (Arm((0,), Field("", Void())), Arm((1,), Field("", optional.item))))


def parts(type_: Type) -> tuple[Type, ...]:
    """Return the types that make up ``type_``, one level down."""
    match type_:
        case Struct(fields):
            return tuple(field.type for field in fields)
        case Union(_, arms):
            return tuple(arm.field.type for arm in arms)
        case List(item, _) | Repeat(item, _) | Optional(item):
            return (item,)
    return ()


def names_in(type_: Type) -> Iterator[str]:
    """Yield every name that ``type_`` mentions, as often as it does, without following any."""
    if isinstance(type_, Name):
        yield type_.name
    for part in parts(type_):
        yield from names_in(part)


@dataclass(eq=False)
class Schema:
    """All types that can be reached from the root.

    :param used: what of the rules, by name or path, has had an effect so far.
    """

    used: set[str] = field(default_factory=set, init=False)
    _types: dict[str, Type] = field(default_factory=dict, init=False)

    def has_rule(self, name: str, those: Container[str]) -> bool:
        """Tell whether ``those`` rules have one for a name or path, and note that it is used."""
        if name not in those:
            return False
        self.used.add(name)
        return True

    def unused_rules(self) -> set[str]:
        """Return what the rules name and nothing has asked for: a misspelling, or an old name."""
        named = {*rules.ANY_NUMBER, *rules.MAX_BYTES, *rules.MAX_TOTALS, *rules.WORK}
        return (named | {*rules.EXTRA_WORK, *rules.COMMON_FIRST, *rules.INLINE}) - self.used

    def canonical(self, name: str) -> str:
        """Return the name under which ``name`` is defined."""
        return source.definition(name)[0]

    def type(self, name: str) -> Type:
        """Return what ``name`` stands for, with tolerated enums turned into plain numbers."""
        name, type_ = source.definition(name)
        if name not in self._types:
            if isinstance(type_, Struct):
                tolerant = (
                    Field(f.name, Plain(4))
                    if self.has_rule(f"{name}.{f.name}", rules.ANY_NUMBER)
                    else f
                    for f in type_.fields
                )
                type_ = Struct(tuple(tolerant))
            self._types[name] = type_
        return self._types[name]

    def _tolerant(self, name: str, field_: Field) -> Field:
        is_any = self.has_rule(f"{name}.{field_.name}", rules.ANY_NUMBER)
        return Field(field_.name, Plain(4)) if is_any else field_

    @cached_property
    def mentions(self) -> Counter[str]:
        """How often each type that can be reached is mentioned."""
        found: Counter[str] = Counter()
        todo = [rules.ROOT]
        while todo:
            for name in map(self.canonical, names_in(self.type(todo.pop()))):
                if name not in found:
                    todo.append(name)
                found[name] += 1
        return found

    @cached_property
    def recursive(self) -> frozenset[str]:
        """Types that contain themselves; of several in one circle, that which is met first."""
        roots: set[str] = set()
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                roots.add(name)
            elif name not in done:
                for inner in names_in(self.type(name)):
                    visit(self.canonical(inner), (*path, name))
                done.add(name)

        visit(rules.ROOT, ())
        return frozenset(roots)

    def is_inside(self, name: str, outer: Type) -> bool:
        """Tell whether a value of type ``name`` can be somewhere in ``outer``."""
        return name in self._names_inside(outer)

    @cache  # noqa: B019 - there is one schema
    def _names_inside(self, outer: Type) -> frozenset[str]:
        seen: set[str] = set()
        todo = list(names_in(outer))
        while todo:
            inner = self.canonical(todo.pop())
            if inner not in seen:
                seen.add(inner)
                todo.extend(names_in(self.type(inner)))
        return frozenset(seen)

    def plain_size(self, type_: Type) -> int | None:
        """Return the size of a type whose bytes need no look at all, or None."""
        match type_:
            case Void():
                return 0
            case Plain(size):
                return size
            case Name(name):
                return self.plain_size(self.type(name)) if name not in self.recursive else None
            case Repeat(item, times):
                size_of_item = self.plain_size(item)
                return None if size_of_item is None else size_of_item * times
            case Struct(fields):
                sizes = [self.plain_size(f.type) for f in fields]
                return None if None in sizes else sum(size for size in sizes if size)
        return None

    def min_size(self, type_: Type) -> int:
        """Return the smallest number of bytes that a value can have."""
        match type_:
            case Plain(size):
                return size
            case Enum() | Blob() | List() | Optional():
                return 4
            case Name(name):
                return self.min_size(self.type(name))
            case Repeat(item, times):
                return self.min_size(item) * times
            case Struct(fields):
                return sum(self.min_size(f.type) for f in fields)
            case Union(_, arms):
                return 4 + min(self.min_size(arm.field.type) for arm in arms)
        return 0

    @cached_property
    def min_after(self) -> dict[str, int]:
        """How many bytes of a message follow a value of each type at the least."""
        after = {rules.ROOT: 0}
        todo = [rules.ROOT]
        while todo:
            outer = todo.pop()
            for name, rest in self._with_rest(self.type(outer), after[outer]):
                if rest < after.get(name, rest + 1):
                    after[name] = rest
                    todo.append(name)
        return after

    def _with_rest(self, type_: Type, rest: int) -> Iterator[tuple[str, int]]:
        """Yield the names in ``type_``, and how much follows each, ``rest`` following it all."""
        match type_:
            case Name(name):
                yield self.canonical(name), rest
            case Struct(fields):
                for f in reversed(fields):
                    yield from self._with_rest(f.type, rest)
                    rest += self.min_size(f.type)
            case _:
                for part in parts(type_):
                    yield from self._with_rest(part, rest)

    def times_of(self, name: str, type_: Type) -> int:
        """Return how many values of type ``name``, and nothing else, make up ``type_``; 0: not."""
        match type_:
            case Name(inner):
                canonical = self.canonical(inner)
                return 1 if canonical == name else self.times_of(name, self.type(canonical))
            case Struct(fields):
                times = [self.times_of(name, f.type) for f in fields]
                return sum(times) if all(times) else 0
        return 0

    def work(self, item: Type) -> int:
        """Return the price of an item of a walked array.

        :raises IdlError: when the rules set none.
        """
        name = self.canonical(item.name) if isinstance(item, Name) else "an item without name"
        if not self.has_rule(name, rules.WORK):
            raise IdlError(f"rules.WORK sets no price for {name}")
        return rules.WORK[name]

    def is_around_budgeted(self, type_: Type) -> bool:
        """Tell whether ``type_`` is or holds the type that draws on the budget."""
        return self.is_inside(rules.BUDGETED, type_)

    def is_within_budgeted(self, name: str) -> bool:
        """Tell whether ``name`` is the type that draws on the budget or inside it."""
        return self.is_inside(name, Name(rules.BUDGETED))

    @cached_property
    def listed(self) -> frozenset[str]:
        """Types of which there are variable arrays."""
        return frozenset(
            self.canonical(list_.item.name)
            for name in (rules.ROOT, *self.mentions)
            for list_ in lists_in(self.type(name))
            if isinstance(list_.item, Name)
        )


def lists_in(type_: Type) -> Iterator[List]:
    """Yield the variable arrays in ``type_``, without following names."""
    if isinstance(type_, List):
        yield type_
    for part in parts(type_):
        yield from lists_in(part)
