"""Why a link was not to be: as an exception for callers, and in words for people."""

from __future__ import annotations

from stellar_overlay.error import (
    AlreadyConnected,
    AuthenticationFailed,
    AuthenticationTimeout,
    DropReason,
    ErrorCode,
    NetworkMismatch,
    OverlayError,
    PeerBanned,
    PeerDisconnected,
    PeerError,
    PeerLimitReached,
    PeerViolation,
    ShuttingDown,
    VersionMismatch,
)
from stellar_overlay.node.connection import Connection

_ERRORS: dict[DropReason, type[OverlayError]] = {
    DropReason.IDLE: AuthenticationTimeout,
    DropReason.BANNED: PeerBanned,
    DropReason.WRONG_VERSION: VersionMismatch,
    DropReason.WRONG_NETWORK: NetworkMismatch,
    DropReason.ALREADY_CONNECTED: AlreadyConnected,
    DropReason.PEER_REJECTED: PeerLimitReached,
    DropReason.SHUTDOWN: ShuttingDown,
    DropReason.LOST_AT_HEADER: PeerDisconnected,
    DropReason.LOST_IN_BODY: PeerDisconnected,
}

_TOLD: tuple[tuple[str, type[OverlayError]], ...] = (
    ("wrong protocol version", VersionMismatch),
    ("wrong network passphrase", NetworkMismatch),
    ("already-connected peer", AlreadyConnected),
    ("connecting to self", AuthenticationFailed),
)


def as_error(link: Connection, violation: PeerViolation) -> OverlayError:
    """Return what the caller of ``connect`` is told about a link that ended for ``violation``."""
    text = f"{link.remote}: {explain(link, violation)}"
    if isinstance(violation, PeerError):
        if violation.remote_code == ErrorCode.ERR_LOAD:
            return PeerLimitReached(text)
        told = violation.remote_text.decode(errors="replace")
        for beginning, kind in _TOLD:
            if told.startswith(beginning):
                return kind(text)
    if violation.kind in _ERRORS:
        return _ERRORS[violation.kind](text)
    return AuthenticationFailed(text)


def explain(link: Connection, violation: PeerViolation) -> str:
    """Return one plain sentence, without a full stop, about why a link was refused."""
    if isinstance(violation, PeerError):
        return _explain_peer_error(link, violation)
    match violation.kind:
        case DropReason.WRONG_VERSION:
            return _explain_versions(link)
        case DropReason.BAD_CERT:
            return (
                "the peer's certificate does not hold: most likely it belongs to another network,"
                f" or a clock is wrong ({violation.detail})"
            )
        case DropReason.WRONG_NETWORK:
            return "the peer belongs to another network"
        case DropReason.SELF:
            return "the peer is this very node: it has the same key"
        case DropReason.IDLE:
            return "the peer did not finish the handshake in time"
        case DropReason.LOST_AT_HEADER | DropReason.LOST_IN_BODY:
            if link.session.auth.remote is None:
                return (
                    "the peer closed the connection without a word: it may be full, have banned"
                    " us, or belong to another network"
                )
    return violation.reason + (f" ({violation.detail})" if violation.detail else "")


def _explain_peer_error(link: Connection, error: PeerError) -> str:
    told = error.remote_text.decode(errors="replace")
    if error.remote_code == ErrorCode.ERR_LOAD:
        return f"the peer is full: {error.reason}"
    if told == DropReason.WRONG_VERSION.text:
        return _explain_versions(link)
    if told == DropReason.WRONG_NETWORK.text:
        return "the peer belongs to another network"
    return f"the peer refused us: {error.reason}"


def _explain_versions(link: Connection) -> str:
    node, hello = link.session.auth.local_node, link.session.auth.remote
    offered = f"you offered {node.overlay_min_version}..{node.overlay_version}"
    if hello is None:
        return f"the peer speaks none of our overlay versions; {offered}"
    wants = f"{hello.overlay_min_version}..{hello.overlay_version}"
    return f"the peer wants overlay versions {wants}, {offered}"
