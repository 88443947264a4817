"""The XDR language (RFC 4506) as far as Stellar uses it: text in, plain values out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class IdlError(Exception):
    """A definition is missing, or says something that we cannot read."""


@dataclass(frozen=True)
class Void:
    """Nothing, zero bytes."""


@dataclass(frozen=True)
class Plain:
    """A fixed number of bytes of which every value is legal: numbers and fixed opaques."""

    size: int


@dataclass(frozen=True)
class Blob:
    """A string or variable opaque: length, bytes, zero padding to 4. No bound is None."""

    bound: int | None


@dataclass(frozen=True)
class Name:
    """Another type, by name."""

    name: str


@dataclass(frozen=True)
class Repeat:
    """A fixed array."""

    item: Type
    times: int


@dataclass(frozen=True)
class List:
    """A variable array: count, items. No bound is None."""

    item: Type
    bound: int | None


@dataclass(frozen=True)
class Optional:
    """A presence flag, then perhaps the value."""

    item: Type


@dataclass(frozen=True)
class Enum:
    """A word that is one of some numbers, each of which has a name; unsigned, as it is read."""

    members: tuple[tuple[str, int], ...]

    @property
    def values(self) -> tuple[int, ...]:
        """All numbers that exist, ascending."""
        return tuple(sorted(value for _, value in self.members))


@dataclass(frozen=True)
class Field:
    """A named part of a struct, or what an arm of a union holds."""

    name: str
    type: Type


@dataclass(frozen=True)
class Struct:
    """Fields, one after another."""

    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Arm:
    """What follows the discriminant when it is one of ``tags``."""

    tags: tuple[int, ...]
    field: Field


@dataclass(frozen=True)
class Union:
    """A discriminant, here called tag, then the arm that it selects; tags are unsigned."""

    tag_name: str
    arms: tuple[Arm, ...]

    @property
    def tags(self) -> tuple[int, ...]:
        """All tags that exist, ascending."""
        return tuple(sorted(tag for arm in self.arms for tag in arm.tags))


Type = Void | Plain | Blob | Name | Repeat | List | Optional | Enum | Struct | Union

_BUILTIN: dict[str, Type] = {
    "int": Plain(4),
    "float": Plain(4),
    "hyper": Plain(8),
    "double": Plain(8),
    "bool": Enum((("FALSE", 0), ("TRUE", 1))),
}
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|-?0[xX][0-9a-fA-F]+|-?\d+|[{}()\[\]<>;:,=*])")


def tokenize(text: str) -> list[str]:
    """Cut a definition into words, numbers and signs, without comments.

    :raises IdlError: at a character that XDR does not know.
    """
    text, tokens, at = _COMMENT.sub(" ", text).strip(), [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise IdlError(f"cannot read {text[at : at + 20]!r}")
        tokens.append(match[1])
        at = match.end()
    return tokens


@dataclass
class Parser:
    """Reads one definition, from first token to last.

    :param tokens: what :func:`tokenize` returned.
    :param numbers: what the names of constants and of the members of all enums stand for.
    """

    tokens: Sequence[str]
    numbers: Mapping[str, int]
    at: int = field(default=0, init=False)

    def definition(self) -> Type:
        """Return the type that a ``typedef``, ``enum``, ``struct`` or ``union`` defines.

        :raises IdlError: when the text is none of these or goes on after its end.
        """
        type_ = self.declaration().type if self.took("typedef") else self.specifier()
        self.take(";")
        if self.at != len(self.tokens):
            raise IdlError(f"{self.tokens[self.at]!r} after the end of a definition")
        return type_

    def declaration(self) -> Field:
        """Read a type, a name, and what stands around the name: ``*``, ``[4]``, ``<64>``."""
        if self.took("void"):
            return Field("", Void())
        word = self.peek()
        if word in ("opaque", "string"):
            self.next()
            return self.bytes_declaration(self.next())
        type_ = self.specifier()
        if self.took("*"):
            return Field(self.next(), Optional(type_))
        name = self.next()
        if self.took("["):
            times = self.number()
            self.take("]")
            return Field(name, Repeat(type_, times))
        if self.peek() == "<":
            return Field(name, List(type_, self.bound()))
        return Field(name, type_)

    def bytes_declaration(self, name: str) -> Field:
        """Read what follows the name of an ``opaque`` or a ``string``."""
        if self.took("["):
            size = self.number()
            self.take("]")
            if size % 4:
                raise IdlError(f"{name}: a fixed opaque with padding is not supported")
            return Field(name, Plain(size))
        return Field(name, Blob(self.bound()))

    def specifier(self) -> Type:
        """Read a type without its name."""
        word = self.next()
        if word == "enum":
            return self.enum()
        if word == "struct":
            return self.struct()
        if word == "union":
            return self.union()
        if word == "unsigned":
            word = self.next()
        return _BUILTIN.get(word) or Name(word)

    def enum(self) -> Enum:
        """Read what follows ``enum``."""
        if not self.took("{"):
            self.next()
            self.take("{")
        members = []
        while not self.took("}"):
            name = self.next()
            self.take("=")
            members.append((name, self.number() % 2**32))
            self.took(",")
        return Enum(tuple(members))

    def struct(self) -> Struct:
        """Read what follows ``struct``."""
        if not self.took("{"):
            self.next()
            self.take("{")
        fields = []
        while not self.took("}"):
            fields.append(self.declaration())
            self.take(";")
        return Struct(tuple(fields))

    def union(self) -> Union:
        """Read what follows ``union``; without ``default``, which Stellar does not use."""
        if not self.took("switch"):
            self.next()
            self.take("switch")
        self.take("(")
        tag = self.declaration()
        self.take(")")
        self.take("{")
        arms = []
        while not self.took("}"):
            tags = []
            while self.took("case"):
                tags.append(self.number() % 2**32)
                self.take(":")
            if not tags:
                raise IdlError(f"expected 'case', not {self.peek()!r}")
            arms.append(Arm(tuple(tags), self.declaration()))
            self.take(";")
        return Union(tag.name, tuple(arms))

    def bound(self) -> int | None:
        """Read ``<64>``, ``<SOME_LIMIT>`` or ``<>``."""
        self.take("<")
        bound = None if self.peek() == ">" else self.number()
        self.take(">")
        return bound

    def number(self) -> int:
        """Read a number, or a name that stands for one."""
        word = self.next()
        try:
            return self.numbers[word] if word in self.numbers else int(word, 0)
        except ValueError:
            raise IdlError(f"{word!r} is no number that we know") from None

    def peek(self) -> str:
        """Return the next token, which stays."""
        return self.tokens[self.at] if self.at < len(self.tokens) else "the end"

    def next(self) -> str:
        """Take the next token, whatever it is."""
        token = self.peek()
        self.at += 1
        return token

    def took(self, token: str) -> bool:
        """Take the next token if it is this one, and tell."""
        if self.peek() != token:
            return False
        self.at += 1
        return True

    def take(self, token: str) -> None:
        """Take the next token, which must be this one."""
        if not self.took(token):
            raise IdlError(f"expected {token!r}, not {self.peek()!r}")
