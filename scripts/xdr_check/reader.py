"""How the emitted code reads: where we are, which words to read together, which are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from scripts.xdr_check.idl import Arm, IdlError, Union
from scripts.xdr_check.lines import Line, variable

if TYPE_CHECKING:
    from scripts.xdr_check.functions import Functions


@dataclass
class Word:
    """A word to be read, so many bytes behind the base.

    ``judge`` returns the lines that refuse it, given the expression for where it is.
    """

    behind: int
    name: str
    judge: Callable[[str], list[Line]] | None = None


@dataclass(frozen=True)
class Choice:
    """A union somewhere: what is needed to write the code that picks its arm.

    :param name: the union's own name, if it has one.
    :param is_last: nothing follows it in the recursive type whose loop we are in.
    """

    union: Union
    where: str
    name: str | None
    is_last: bool

    @property
    def tag_where(self) -> str:
        """The path of the tag."""
        return f"{self.where}.{self.union.tag_name}"

    def arm_where(self, arm: Arm) -> str:
        """Return the path of what an arm holds."""
        return f"{self.where}.{arm.field.name}" if arm.field.name else self.where


@dataclass(frozen=True)
class Fork:
    """A choice that has been put off until it is known what follows it.

    :param behind: where that begins if the arm is the smallest, which is plain.
    """

    choice: Choice
    tag: Word
    smallest: Arm
    behind: int


@dataclass
class Reader:
    """Writes reads: notes the words that are wanted, and reads all of them at once.

    Positions are bytes behind a base, which is a number in the functions for messages and the
    variable ``o`` everywhere else. The base moves when a distance is not known any more.

    :param base: the base when it is a number; None when it is ``o``.
    :param owner: the recursive type in whose loop the code is.
    :param end: the variable that tells where reading must end.
    :param draws: the code has the budget at hand.
    :param checks: the code has to look whether the budget is spent; else somebody soon does.
    :param sure: so many bytes behind the base exist in any message that is long enough.
    :param skip: bytes behind the base that are done with, or noted to be read.
    :param loops: the counters of the loops around the code.
    :param known: variables that hold words already read, by their distance from the base.
    :param first: the words of the first read, once there was one or the base has moved.
    """

    functions: Functions
    base: int | None = None
    owner: str | None = None
    end: str = "end"
    draws: bool = False
    checks: bool = False
    sure: int = 0
    skip: int = 0
    loops: tuple[str, ...] = ()
    known: dict[int, str] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    first: list[Word] | None = None

    def block(self, behind: int) -> Self:
        """Return a writer for a block of code that begins so many bytes behind."""
        return replace(self, skip=behind, lines=[], words=[], first=None)

    def at(self, behind: int) -> str:
        """Return the position that many bytes behind the base."""
        if self.base is not None:
            return str(self.base + behind)
        return f"o {'+' if behind > 0 else '-'} {abs(behind)}" if behind else "o"

    def room(self) -> str:
        """Return how many bytes are left."""
        return f"{self.end} - {self.at(self.skip)}".replace("o +", "o -")

    def advance(self, size: str) -> None:
        """Move ``o`` to so many bytes behind where we are."""
        if self.base is not None:
            self.lines.append(Line(f"o = {self.at(self.skip)} + {size}"))
        else:
            self.lines.append(Line(f"o += {self.skip} + {size}" if self.skip else f"o += {size}"))
        self.here()

    def here(self) -> None:
        """Note that ``o`` is now where we are."""
        self.base, self.skip, self.known, self.sure = None, 0, {}, 0
        self.first = [] if self.first is None else self.first

    def settle(self) -> None:
        """Read what is wanted and move ``o`` behind it."""
        self.read()
        if self.base is not None:
            self.lines.append(Line(f"o = {self.at(self.skip)}"))
        elif self.skip:
            self.lines.append(Line(f"o += {self.skip}"))
        self.here()

    def lines_with_return(self) -> list[Line]:
        """Return the lines, with the ``return`` of where the value ends."""
        self.read()
        *lines, last = self.lines or [Line("")]
        if not self.skip and not last.depth and last.text.startswith("o = _"):
            return [*lines, replace(last, text=last.text.replace("o =", "return"))]
        return [*self.lines, Line(f"return {self.at(self.skip)}")]

    def word(self, where: str) -> Word:
        """Note that the next word is to be read."""
        word = Word(self.skip, self.known.get(self.skip) or variable(where))
        self.words.append(word)
        self.skip += 4
        return word

    def read(self) -> None:
        """Read the words that are wanted and judge them."""
        words, self.words = self.words, []
        self.unpack_unknown(words)
        self.judge(words)

    def unpack_unknown(self, words: list[Word]) -> None:
        """Write the read of those words that no variable holds yet."""
        if not words:
            return
        self.first = words if self.first is None else self.first
        unknown = [word for word in words if word.behind not in self.known]
        names = [*self.loops, *(word.name for word in words)]
        if len(set(names)) < len(names):
            raise IdlError(f"two words have one name: {', '.join(sorted(names))}")
        if unknown:
            self.unpack(unknown, 0)
        self.known = self.known | {word.behind: word.name for word in unknown}

    def unpack(self, words: Iterable[Word], done: int) -> None:
        """Write the read of words, when so many bytes before them are done with."""
        words, gaps = list(words), []
        for word in words:
            gaps.append(word.behind - done)
            done = word.behind + 4
        position = self.at(0)
        if self.base is not None:
            position, gaps[0] = self.at(words[0].behind), 0
        names = ", ".join(word.name for word in words)
        names = f"({names},)" if len(words) == 1 else names
        self.lines.append(Line(f"{names} = {self.functions.struct(gaps)}", ("body", position)))

    def judge(self, words: Iterable[Word], done: int = 0) -> None:
        """Write what refuses words, when the base is so many bytes farther than they count."""
        for word in words:
            if word.judge:
                self.lines += word.judge(self.at(word.behind - done))
