"""Where the XDR definitions come from: docstrings and constants of the installed stellar-sdk."""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib import metadata

from stellar_sdk import xdr
from stellar_sdk.xdr import constants

from scripts.xdr_check.idl import IdlError, Name, Parser, Type, tokenize

_MARK = "XDR Source Code::"
_HEAD = re.compile(r"(?:enum|struct|union)\s+(\w+)\s*(?:\{|switch)")
_TYPEDEF = re.compile(r"typedef\b.*?(\w+)\s*(?:\[\w*\]|<\w*>)?\s*;", re.DOTALL)

VERSION = metadata.version("stellar-sdk")


@cache
def texts() -> dict[str, str]:
    """Return every definition's text by the name that XDR gives it.

    Types without a name of their own are skipped: the type around them repeats their text.

    :raises IdlError: when the sdk has no docstrings, as under ``python -OO``.
    """
    found = {}
    for _, class_ in inspect.getmembers(xdr, inspect.isclass):
        _, mark, text = (class_.__doc__ or "").partition(_MARK)
        match = _HEAD.match(text.strip()) or _TYPEDEF.match(text.strip())
        if mark and match and not text.strip().startswith("union switch"):
            found[match[1]] = text
    if not found:
        raise IdlError("stellar_sdk.xdr has no docstrings with XDR (python -OO strips them)")
    return found


@cache
def numbers() -> dict[str, int]:
    """Return what the constants and the members of all enums stand for.

    :raises IdlError: when a member refers to a name that stands for nothing.
    """
    known: dict[str, int] = {
        name: value for name, value in vars(constants).items() if name.isupper()
    }
    members: dict[str, str] = {}
    for text in texts().values():
        tokens = tokenize(text)
        if tokens[0] == "enum":
            members.update(zip(tokens[3::4], tokens[5::4], strict=False))

    def number(word: str) -> int:
        if word in known:
            return known[word]
        if word in members:
            return number(members[word])
        try:
            return int(word, 0)
        except ValueError:
            raise IdlError(f"an enum refers to {word!r}, which is no number") from None

    return known | {name: number(name) for name in members}


@cache
def definition(name: str) -> tuple[str, Type]:
    """Return the type that XDR calls ``name``, and the name under which it is defined.

    The names differ when ``name`` is only another name, such as NodeID for PublicKey.

    :raises IdlError: when the sdk has no such definition or we cannot read it.
    """
    if name not in texts():
        raise IdlError(f"stellar-sdk {VERSION} defines no XDR type {name}")
    try:
        type_ = Parser(tokenize(texts()[name]), numbers()).definition()
    except IdlError as error:
        raise IdlError(f"{name}: {error}") from None
    return definition(type_.name) if isinstance(type_, Name) else (name, type_)
