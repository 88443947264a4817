"""What a client would rather have: the ``Accept`` header of a request (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?", re.ASCII)
_ANYTHING = "*/*"


class MediaRange(NamedTuple):
    """One of the kinds of content that are accepted.

    :ivar name: such as ``text/plain``, ``text/*`` or ``*/*``, in lower case.
    :ivar version: its parameter of that name, when it has one.
    :ivar weight: how welcome it is, from 0, which is not at all, to 1.
    """

    name: str
    version: str | None = None
    weight: float = 1.0


class Accept:
    """Tells what a header says; without one, anything is as welcome as anything else.

    A range whose weight cannot be read counts for nothing.
    """

    def __init__(self, header: str | None) -> None:
        ranges = [] if header is None else map(_media_range, header.split(","))
        self._ranges = [found for found in ranges if found is not None]
        if not self._ranges:
            self._ranges.append(MediaRange(_ANYTHING))

    def named(self, media_type: str, versions: tuple[str | None, ...] = ()) -> float | None:
        """Return the weight of a type that is named as such; None when it is not.

        :param versions: which of its versions count, None being one that is not told; all, when
            there are none.
        """
        weights = [
            found.weight
            for found in self._ranges
            if found.name == media_type and (not versions or found.version in versions)
        ]
        return max(weights, default=None)

    def weight(self, media_type: str) -> float:
        """Return the weight of a type: that of the narrowest range that it is in, else 0."""
        family = media_type.partition("/")[0] + "/*"
        for name in (media_type, family, _ANYTHING):
            weight = self.named(name)
            if weight is not None:
                return weight
        return 0.0


def _media_range(text: str) -> MediaRange | None:
    name, *parameters = (part.strip() for part in text.lower().split(";"))
    values = dict.fromkeys(("version", "q"), "")
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        values[key.strip()] = value.strip().strip('"')
    weight = values["q"] or "1"
    if not name or not _WEIGHT.fullmatch(weight):
        return None
    return MediaRange(name, values["version"] or None, float(weight))
