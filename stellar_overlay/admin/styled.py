"""JSON as stellar-core writes it, and safe wherever it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias, Union

Json: TypeAlias = Union[bool, int, float, str, Sequence["Json"], Mapping[str, "Json"], None]  # noqa: UP007

_INDENT = "   "
_MARGIN = 74
"""An array that would be as long as this has a line for each element."""
_UNSAFE = re.compile("[<>&\x7f]")


def quoted(text: str) -> str:
    r"""Return a text as a JSON string of printable ASCII.

    All else comes out as ``\uXXXX``, and so does what means something in HTML: most of it was sent
    by somebody whom nobody knows.
    """
    return _escaped(json.dumps(text))


def plain(text: str) -> str:
    """Return a text for an answer that is no JSON, escaped as :func:`quoted` does it."""
    return quoted(text)[1:-1]


class Rendered(str):
    """JSON that was written before, for the very depth at which it is to appear."""

    __slots__ = ()


def rendered(value: Json, depth: int) -> Rendered:
    """Return what stands for ``value`` within so many objects and arrays."""
    return Rendered(_lines(value, depth * _INDENT))


def styled(value: Json) -> str:
    """Return JSON as jsoncpp's StyledWriter does: sorted keys, three blanks, a final line break.

    What jsoncpp makes an empty array or object by looking into it is null: say None for that.
    """
    return _lines(value, "") + "\n"


def medida_json(value: Json) -> str:
    """Return JSON as medida's reporter does: a line for each figure, keys in the order given.

    :raises ValueError: for a number that is not finite.
    """
    return _escaped(json.dumps(value, indent=0, separators=(",", ":"), allow_nan=False))


def _escaped(document: str) -> str:
    """Escape what JSON itself does not; in a document that can only be part of a string."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def _lines(value: Json, indent: str) -> str:
    if isinstance(value, str):
        return value if isinstance(value, Rendered) else quoted(value)
    inner = indent + _INDENT
    if isinstance(value, Mapping) and value:
        members = (f"{quoted(key)} : {_lines(value[key], inner)}" for key in sorted(value))
        return _block("{", members, "}", indent)
    if isinstance(value, Sequence) and value:
        line = _line(value)
        if line is not None:
            return line
        return _block("[", (_lines(element, inner) for element in value), "]", indent)
    return _scalar(value)


def _block(opening: str, members: Iterable[str], closing: str, indent: str) -> str:
    inner = "\n" + indent + _INDENT
    return opening + inner + f",{inner}".join(members) + f"\n{indent}{closing}"


def _line(array: Sequence[Json]) -> str | None:
    """Return an array on one line, or None when it is too long or holds more than scalars."""
    if len(array) * 3 >= _MARGIN or any(
        element and isinstance(element, Mapping | Sequence) and not isinstance(element, str)
        for element in array
    ):
        return None
    line = f"[ {', '.join(_lines(element, '') for element in array)} ]"
    return line if len(line) < _MARGIN else None


def _scalar(value: Json) -> str:
    if isinstance(value, float):
        return "null" if value != value else f"{value:.16g}".replace("inf", "1e+9999")
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence):
        return "[]"
    return json.dumps(value)
