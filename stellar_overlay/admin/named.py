"""Which node an operator means by ``G…``, ``$alias`` or ``@PREFIX``."""

from __future__ import annotations

from base64 import b32decode
from collections.abc import Callable

from stellar_overlay.error import InvalidKey
from stellar_overlay.herder.observer import ObserverHerder
from stellar_overlay.identity import PeerId
from stellar_overlay.node.manager import OverlayManager

_STRKEY_LENGTH = 56
_KEY_END = 33
"""Of the bytes that a ``G…`` text stands for: one says what it is, 32 are the key."""
_VERSION = b"\x30"


def node_named(overlay: OverlayManager, text: str) -> PeerId | None:
    """Return the node that a text names; None when there is none, or the text is no name.

    The rules are core's (HerderImpl::resolveNodeID, Config::expandNodeID).
    Of several nodes that ``@PREFIX`` fits, those that have a name in the configuration come first,
    then those heard about the newest slot, and so on; of these the first in order of keys.
    """
    name = text[1:]
    if not name or text[0] not in "$@":
        return _key(text)
    names = overlay.config.node_names
    if text[0] == "$":
        return _key(next((key for key in sorted(names) if names[key] == name), ""))
    key = next((key for key in sorted(names) if key.startswith(name)), None)
    return _heard(overlay, name) if key is None else _key(key)


def _key(text: str) -> PeerId | None:
    try:
        return PeerId.from_strkey(text)
    except InvalidKey:
        return None


def _heard(overlay: OverlayManager, prefix: str) -> PeerId | None:
    """Return the node with that prefix which was heard of last."""
    herder, fits = overlay.herder, _fits(prefix)
    if not isinstance(herder, ObserverHerder) or fits is None:
        return None
    for slot in herder.slots():
        for key in sorted(filter(fits, slot.signers)):
            if PeerId(key).strkey.startswith(prefix):  # which may reach into its checksum
                return PeerId(key)
    return None


def _fits(prefix: str) -> Callable[[bytes], bool] | None:
    """Return what tells whether a key begins so, as fast as there may be many; None: none does."""
    try:
        least, greatest = (
            b32decode(prefix.ljust(_STRKEY_LENGTH, filler))[:_KEY_END] for filler in "A7"
        )
    except ValueError:
        return None
    return lambda key: least <= _VERSION + key <= greatest
