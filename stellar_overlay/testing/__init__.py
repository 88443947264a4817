"""Shipped for users' tests too: networks and peers without sockets, on a simulated clock.

>>> from stellar_overlay.testing import LoopbackNetwork, MemoryNetwork, ScriptedPeer

Each is imported when its name is first used: a peer alone needs no node.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stellar_overlay.testing.clock import SimulatedClock
    from stellar_overlay.testing.loopback import LoopbackNetwork
    from stellar_overlay.testing.memory import MemoryNetwork
    from stellar_overlay.testing.scripted_host import ScriptedHost
    from stellar_overlay.testing.scripted_peer import ScriptedPeer

_HOME_OF = {
    "LoopbackNetwork": "loopback",
    "MemoryNetwork": "memory",
    "ScriptedHost": "scripted_host",
    "ScriptedPeer": "scripted_peer",
    "SimulatedClock": "clock",
}

__all__ = ["LoopbackNetwork", "MemoryNetwork", "ScriptedHost", "ScriptedPeer", "SimulatedClock"]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
