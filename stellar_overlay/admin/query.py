"""How stellar-core reads the URI of a command, and the parameters in it."""

from __future__ import annotations

import re

from stellar_overlay.error import OverlayError

_HEX = frozenset(b"0123456789abcdefABCDEF")
_WHOLE = re.compile(r"[0-9]{1,20}", re.ASCII)


class BadUri(ValueError):
    """A URI has a percent sign that is followed by no byte."""


class BadQuery(OverlayError):
    """A parameter is missing, or not what it should be; the text is core's."""


class Query:
    """The parameters of a command.

    :param values: as :func:`split_uri` found them.
    """

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self._values = values or {}

    def get(self, key: str) -> str | None:
        """Return a parameter as it is; None when it was not given."""
        return self._values.get(key)

    def required(self, key: str) -> str:
        """Return one that must be given, and be a single word.

        :raises BadQuery: with core's text.
        """
        text = self._values.get(key)
        if text is None:
            raise BadQuery(f"'{key}' argument is required!")
        if not text or text.split() != [text]:
            raise _unreadable(key)
        return text

    def required_uint(self, key: str) -> int:
        """Return one that must be given, from 0 to 2^32-1.

        :raises BadQuery: with core's text.
        """
        return _uint(key, self.required(key), 32)

    def uint(self, key: str, default: int, *, bits: int = 32) -> int:
        """Return a whole number, or ``default`` when it is not given.

        :raises BadQuery: with core's text.
        """
        text = self._values.get(key)
        return default if text is None else _uint(key, text, bits)

    def is_true(self, key: str) -> bool:
        """Tell whether a parameter is exactly ``true``."""
        return self._values.get(key) == "true"

    def is_false(self, key: str) -> bool:
        """Tell whether a parameter is exactly ``false``."""
        return self._values.get(key) == "false"


def split_uri(uri: bytes) -> tuple[str, Query]:
    """Return the command that a URI names, without its slash, and the parameters.

    The whole is decoded before it is split (core lib/http/server.cpp), so that an escaped ``&``
    separates as a plain one does. Bytes that are no UTF-8 come out as escapes.

    :raises BadUri: when it cannot be decoded.
    """
    text = _decode(uri).decode(errors="backslashreplace")
    command, _, parameters = text.removeprefix("/").partition("?")
    return command, Query(_split(parameters))


def _decode(uri: bytes) -> bytes:
    first, *rest = uri.replace(b"+", b" ").split(b"%")
    decoded = [first]
    for part in rest:
        if len(part) < 2 or not _HEX.issuperset(part[:2]):
            raise BadUri("a percent sign must be followed by two hexadecimal digits")
        decoded.append(bytes.fromhex(part[:2].decode()) + part[2:])
    return b"".join(decoded)


def _split(parameters: str) -> dict[str, str]:
    """Return the pairs: of a key given twice the last one, and never a last one without a value."""
    pairs = []
    for pair in parameters.replace("?", "").split("&"):
        name, _, value = pair.partition("=")
        pairs.append((name, value.replace("=", "")))
    name, value = pairs.pop()
    if name and value:
        pairs.append((name, value))
    return dict(pairs)


def _uint(key: str, text: str, bits: int) -> int:
    if not _WHOLE.fullmatch(text) or int(text) >= 1 << bits:
        raise _unreadable(key)
    return int(text)


def _unreadable(key: str) -> BadQuery:
    return BadQuery(f"Failed to parse '{key}' argument")
