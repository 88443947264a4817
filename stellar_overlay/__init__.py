"""The Stellar peer-to-peer overlay: a Twisted application and a library.

>>> from stellar_overlay import LocalNode, OverlayConfig, OverlayManager, PeerAddress

What is heavy is imported when its name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from stellar_overlay.address import PeerAddress, ResolvedPeerAddress
from stellar_overlay.error import (
    AlreadyConnected,
    AlreadyStarted,
    AuthenticationFailed,
    AuthenticationTimeout,
    ConfigError,
    ConnectionFailed,
    ConnectionTimeout,
    CryptoError,
    DatabaseError,
    DropReason,
    ErrorCode,
    FetchTimeout,
    InvalidKey,
    InvalidPeerAddress,
    NetworkMismatch,
    NotStarted,
    OverlayError,
    PeerBanned,
    PeerDisconnected,
    PeerLimitReached,
    PeerNotFound,
    PeerViolation,
    ShuttingDown,
    SurveyError,
    VersionMismatch,
    XdrError,
)

if TYPE_CHECKING:
    from stellar_overlay.config import OverlayConfig
    from stellar_overlay.gossip.flood import FloodGate
    from stellar_overlay.gossip.item_fetcher import ItemFetcher
    from stellar_overlay.gossip.message_handlers import MessageDispatcher
    from stellar_overlay.gossip.survey import SurveyManager
    from stellar_overlay.gossip.survey_data import SurveyPhase
    from stellar_overlay.gossip.survey_results import SurveyResults
    from stellar_overlay.gossip.tx_adverts import TxAdverts
    from stellar_overlay.gossip.tx_demands import TxDemandsManager
    from stellar_overlay.identity import LocalNode, PeerId
    from stellar_overlay.metrics import OverlayMetrics
    from stellar_overlay.node.connection import Connection
    from stellar_overlay.node.events import PeerEvent
    from stellar_overlay.node.manager import OverlayManager
    from stellar_overlay.node.peer import Peer, PeerInfo
    from stellar_overlay.node.subscriptions import OverlayMessage
    from stellar_overlay.session.flow_control import FlowControl
    from stellar_overlay.store.ban_manager import BanManager
    from stellar_overlay.store.peer_manager import PeerManager
    from stellar_overlay.wire.auth import AuthContext
    from stellar_overlay.wire.message import Message, MessageType

__version__ = "0.1.0"

_HOMES = {
    "config": ("OverlayConfig",),
    "gossip.flood": ("FloodGate",),
    "gossip.item_fetcher": ("ItemFetcher",),
    "gossip.message_handlers": ("MessageDispatcher",),
    "gossip.survey": ("SurveyManager",),
    "gossip.survey_data": ("SurveyPhase",),
    "gossip.survey_results": ("SurveyResults",),
    "gossip.tx_adverts": ("TxAdverts",),
    "gossip.tx_demands": ("TxDemandsManager",),
    "identity": ("LocalNode", "PeerId"),
    "metrics": ("OverlayMetrics",),
    "node.connection": ("Connection",),
    "node.events": ("PeerEvent",),
    "node.manager": ("OverlayManager",),
    "node.peer": ("Peer", "PeerInfo"),
    "node.subscriptions": ("OverlayMessage",),
    "session.flow_control": ("FlowControl",),
    "store.ban_manager": ("BanManager",),
    "store.peer_manager": ("PeerManager",),
    "wire.auth": ("AuthContext",),
    "wire.message": ("Message", "MessageType"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AlreadyConnected",
    "AlreadyStarted",
    "AuthContext",
    "AuthenticationFailed",
    "AuthenticationTimeout",
    "BanManager",
    "ConfigError",
    "Connection",
    "ConnectionFailed",
    "ConnectionTimeout",
    "CryptoError",
    "DatabaseError",
    "DropReason",
    "ErrorCode",
    "FetchTimeout",
    "FloodGate",
    "FlowControl",
    "InvalidKey",
    "InvalidPeerAddress",
    "ItemFetcher",
    "LocalNode",
    "Message",
    "MessageDispatcher",
    "MessageType",
    "NetworkMismatch",
    "NotStarted",
    "OverlayConfig",
    "OverlayError",
    "OverlayManager",
    "OverlayMessage",
    "OverlayMetrics",
    "Peer",
    "PeerAddress",
    "PeerBanned",
    "PeerDisconnected",
    "PeerEvent",
    "PeerId",
    "PeerInfo",
    "PeerLimitReached",
    "PeerManager",
    "PeerNotFound",
    "PeerViolation",
    "ResolvedPeerAddress",
    "ShuttingDown",
    "SurveyError",
    "SurveyManager",
    "SurveyPhase",
    "SurveyResults",
    "TxAdverts",
    "TxDemandsManager",
    "VersionMismatch",
    "XdrError",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
