"""What a setting may be: one rule per kind of value, in words and in code."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, TypeVar, cast

from stellar_overlay.address import PeerAddress
from stellar_overlay.config_nodes import QuorumSet, Validator, id_and_name
from stellar_overlay.error import ConfigError, OverlayError
from stellar_overlay.identity import PeerId

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_MAX_SHOWN = 100
_SECRET_SEED = re.compile(r"S[A-Z2-7]{55}")
_SQLITE = "sqlite3://"


def shown(value: object) -> str:
    """Quote ``value`` for people: one line, at most 100 characters, never a secret seed."""
    try:
        text = _SECRET_SEED.sub("S…", repr(value))
    except ValueError:  # Python writes no integers of more than 4,300 digits
        return "a far larger number"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


@dataclass(frozen=True, slots=True)
class Rule(Generic[_T_co]):
    """What a value must be. ``str()`` gives it in words that follow "must be".

    ``accept`` returns the value as it is kept, lists copied, or raises ValueError, TypeError or
    an OverlayError. ``show`` quotes a value, good or bad, without its secrets.
    """

    text: str
    accept: Callable[[object], _T_co]
    show: Callable[[object], str] = shown

    def check(self, where: str, value: object) -> _T_co:
        """Return ``value`` as it is kept.

        :param where: begins the message: which setting it is, and where it was made.
        :raises ConfigError: when it is not what it must be.
        """
        try:
            return self.accept(value)
        except (OverlayError, ValueError, TypeError) as error:
            raise self.refusal(where, value, str(error)) from None

    def refusal(self, where: str, value: object, detail: str) -> ConfigError:
        """Return the error that says which value is wrong, and what it must be.

        :param detail: what exactly is wrong, as far as the rule does not tell.
        """
        ending = f": {detail}" if detail else ""
        return ConfigError(f"{where} must be {self.text}, not {self.show(value)}{ending}")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One row of the table: a key of the file, its attribute, default, rule and meaning.

    ``default`` is in words; ``ours`` tells the keys that stellar-core does not have.
    """

    name: str
    attribute: str
    default: str
    rule: Rule[object]
    help: str
    ours: bool


def setting(name: str, default: _T, rule: Rule[object], meaning: str, *, ours: bool = False) -> _T:
    """Declare a field of a dataclass with its row of the table, but for the attribute's name."""
    words = str(default).lower() if isinstance(default, bool) else str(default)
    row = {
        "name": name,
        "default": words if default or default == 0 else "none",
        "rule": rule,
        "help": meaning,
        "ours": ours,
    }
    if isinstance(default, list | dict):
        return field(default_factory=type(default), metadata=row)
    return field(default=default, metadata=row)


class Following:
    """A setting that follows others until it is set itself; None, or ``unset``, ends that again.

    What was set is kept in the instance's ``__dict__``, under the setting's own name.

    :param words: how it follows; ``str()`` gives them.
    """

    def __init__(
        self, words: str, compute: Callable[[Any], object], unset: int | None = None
    ) -> None:
        self._words = words
        self._compute = compute
        self._unset = unset

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> object:
        if instance is None:
            return self
        own = vars(instance)
        return own[self._name] if self._name in own else self._compute(instance)

    def __set__(self, instance: object, value: object) -> None:
        is_unset = isinstance(value, int) and value == self._unset
        if value is self or value is None or is_unset:
            vars(instance).pop(self._name, None)
        else:
            vars(instance)[self._name] = value

    def __str__(self) -> str:
        return self._words


def following(words: str, compute: Callable[[Any], _T], *, unset: int | None = None) -> _T:
    """Return a default that follows others, for :func:`setting`; see :class:`Following`."""
    return cast(_T, Following(words, compute, unset))


def whole(low: int, high: int, unit: str = "") -> Rule[int]:
    """Accept integers from ``low`` to ``high``; a bool or a float is none."""

    def accept(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError
        return value

    return Rule(f"a whole number{unit and f' of {unit}'} from {low} to {high}", accept)


def positive(high: float = math.inf) -> Rule[float]:
    """Accept finite numbers above 0, up to ``high``; integers too, as core does."""

    def accept(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError
        if not 0 < value <= high or not math.isfinite(value):
            raise ValueError
        return float(value)

    limit = "" if high == math.inf else f", at most {high:g}"
    return Rule(f"a number greater than 0{limit}", accept)


def frozen(value: object) -> object:
    """Return a value that nobody can change: lists as tuples, dicts as read-only mappings."""
    if isinstance(value, list):
        return tuple(value)
    return MappingProxyType(dict(value)) if isinstance(value, dict) else value


def thawed(value: object) -> object:
    """Return what :func:`frozen` was given."""
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, MappingProxyType) else value


def addresses_of(entries: object) -> list[PeerAddress]:
    """Read a list of ``host[:port]`` texts and addresses; repeated ones are dropped.

    :raises InvalidPeerAddress: when a text is none.
    :raises ValueError: when it is no list of such.
    """
    return _unique(
        entry if isinstance(entry, PeerAddress) else PeerAddress.parse(_text(entry))
        for entry in _entries(entries)
    )


def _entries(value: object) -> Iterable[object]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError
    return value


def _unique(entries: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(entries))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _texts(value: object) -> list[str]:
    return [_text(entry) for entry in _entries(value)]


def _mode(value: object) -> str:
    text = _text(value)
    if text not in ("relay", "observe"):
        raise ValueError
    return text


def _filled_text(value: object) -> str:
    if not _text(value):
        raise ValueError
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _database(value: object) -> str:
    if not _text(value).startswith(_SQLITE) or value == _SQLITE:
        raise ValueError
    return _text(value)


def _show_database(value: object) -> str:
    """Quote a database URL; that of another scheme may hold a password."""
    if isinstance(value, str) and not value.startswith(_SQLITE):
        scheme, separator, _ = value.partition("://")
        return shown(f"{scheme}://…") if separator else "another text"
    return shown(value)


def _node_ids(value: object) -> list[str]:
    return _unique(
        str(entry) if isinstance(entry, PeerId) else _text(entry) for entry in _entries(value)
    )


def _node_names(value: object) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {_text(key): _text(name) for key, name in value.items()}
    pairs = _unique(id_and_name(_text(entry)) for entry in _entries(value))
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a node is named twice")
    return dict(pairs)


def _validator(entry: object) -> Validator:
    if not isinstance(entry, Validator):
        raise ValueError
    return entry


def _validators(value: object) -> list[Validator]:
    return _unique(_validator(entry) for entry in _entries(value))


def _quorum_set(value: object) -> QuorumSet:
    if not isinstance(value, QuorumSet):
        raise ValueError
    value.check()
    return value


UINT16 = whole(0, 2**16 - 1)
UINT32 = whole(0, 2**32 - 1)
COUNT16 = whole(1, 2**16 - 1)
COUNT31 = whole(1, 2**31 - 1)
COUNT32 = whole(1, 2**32 - 1)
SECONDS = whole(1, 2**16 - 1, "seconds")
MILLISECONDS = whole(1, 2**31 - 1, "milliseconds")
POSITIVE = positive()
FLAG = Rule("true or false", _flag)
TEXT = Rule("a text", _text)
TEXTS = Rule("a list of texts", _texts)
FILLED_TEXT = Rule("a text that is not empty", _filled_text)
MODE = Rule("relay or observe", _mode)
SECRET = Rule('a secret seed: "S…" or "S… name"', _text, show=lambda _: "(hidden)")
DATABASE = Rule("sqlite3://PATH", _database, _show_database)
PEERS = Rule("a list of host[:port]", addresses_of)
NODE_IDS = Rule('a list of node ids: "G…", "G… name" or "$name"', _node_ids)
NODE_NAMES = Rule('a list of "G… name"', _node_names)
VALIDATORS = Rule("a list of validators", _validators)
QUORUM_SET = Rule("a quorum set", _quorum_set)
