"""Everything that can go wrong: our errors, and the reasons for which a link ends.

Two trees that never mix. An :exc:`OverlayError` is raised to whoever called us. A
:exc:`PeerViolation` is a peer's fault: raised anywhere below, caught in one place
(:class:`stellar_overlay.node.connection.Connection`), and always one of the :class:`DropReason` s.
"""

from __future__ import annotations

import re
from enum import Enum, IntEnum


class ErrorCode(IntEnum):
    """The code of an ERROR_MSG (Stellar-overlay.x)."""

    ERR_MISC = 0
    ERR_DATA = 1
    ERR_CONF = 2
    ERR_AUTH = 3
    ERR_LOAD = 4


class OverlayError(Exception):
    """The root of all errors that this library raises to its caller."""

    retriable = False
    """Whether the same call may succeed later, unchanged."""
    fatal = False
    """Whether no later call can succeed before somebody changes a setting."""


class ConfigError(OverlayError):
    """A setting has a value that it cannot have; the text names key, value and rule."""

    fatal = True


class InvalidPeerAddress(OverlayError):
    """A text is not ``host[:port]``."""


class InvalidKey(OverlayError):
    """A text is not the key (G… or S…) that it should be."""


class XdrError(OverlayError):
    """Bytes are not the canonical XDR of what they should be, or too deep, wide or long."""


class CryptoError(OverlayError):
    """A key is of no use, such as a low-order Curve25519 point."""


class SurveyError(OverlayError):
    """A survey is not in the phase that this takes, or is another node's."""

    retriable = True


class DatabaseError(OverlayError):
    """The database did not take something; the node goes on from memory, and tries again."""

    retriable = True


class ConnectionFailed(OverlayError):
    """A link could not be opened."""

    retriable = True


class ConnectionTimeout(ConnectionFailed):
    """A link was not opened in time."""


class FetchTimeout(OverlayError):
    """No peer sent an item in time."""

    retriable = True


class PeerDisconnected(OverlayError):
    """A link ended before what was asked for was done; the text is the reason."""

    retriable = True


class AuthenticationFailed(OverlayError):
    """A handshake was refused, by us or by the peer; the text is the reason."""


class AuthenticationTimeout(AuthenticationFailed):
    """A handshake was not finished in time."""

    retriable = True


class VersionMismatch(AuthenticationFailed):
    """No overlay version is spoken by both sides."""

    fatal = True


class NetworkMismatch(AuthenticationFailed):
    """The peer belongs to another network."""

    fatal = True


class PeerLimitReached(OverlayError):
    """There is no free slot for one more link."""

    retriable = True


class PeerBanned(OverlayError):
    """The node is banned here."""


class PeerNotFound(OverlayError):
    """No authenticated link to that node."""


class AlreadyConnected(OverlayError):
    """There is a link to that node or address already."""


class NotStarted(OverlayError):
    """The overlay was not started yet, or was stopped."""


class AlreadyStarted(OverlayError):
    """The overlay runs already."""


class ShuttingDown(OverlayError):
    """The overlay is stopping and takes on nothing new."""


class DropReason(Enum):
    """Every reason for which we end a link: its text, and the code that the peer is told.

    Texts and codes are stellar-core's (connection.md 7). No code means that the peer is told
    nothing. ``{…}`` is filled by :meth:`violation`.
    """

    # The stream and the envelope.
    READ_ERROR = "error during read", None
    CORRUPT_XDR = "received corrupt XDR", ErrorCode.ERR_DATA
    UNEXPECTED_SEQUENCE = "unexpected auth sequence", ErrorCode.ERR_AUTH
    UNEXPECTED_MAC = "unexpected MAC", ErrorCode.ERR_AUTH
    # The handshake, in the order of the checks.
    TOO_EARLY = "received {kind} before completed handshake", None
    UNEXPECTED_HELLO = "received unexpected HELLO", None
    BAD_CERT = "failed to verify auth cert", None
    BANNED = "node is banned", None
    BAD_CRYPTO = "Bad crypto request", None
    NO_REMOTE_ADDRESS = "failed to determine remote address", None
    WRONG_VERSION = "wrong protocol version", ErrorCode.ERR_CONF
    SELF = "connecting to self", ErrorCode.ERR_CONF
    WRONG_NETWORK = "wrong network passphrase", ErrorCode.ERR_CONF
    BAD_ADDRESS = "bad address", ErrorCode.ERR_CONF
    ALREADY_CONNECTED = "already-connected peer: {peer}", ErrorCode.ERR_CONF
    AUTH_OUT_OF_ORDER = "out-of-order AUTH message", ErrorCode.ERR_MISC
    BAD_AUTH_FLAGS = "flow control bytes disabled", ErrorCode.ERR_CONF
    PEER_REJECTED = "peer rejected", ErrorCode.ERR_LOAD
    # Making room.
    PREFERRED_SELECTED = "preferred peer selected instead", ErrorCode.ERR_LOAD
    RANDOM_DISCONNECT = "random disconnect due to out of sync", ErrorCode.ERR_LOAD
    # An authenticated peer.
    PEERS_FROM_CALLER = "received PEERS", None
    TOO_MANY_PEERS = "too many msgs PEERS", None
    SEND_MORE = "unexpected message type SEND_MORE", None
    BAD_SEND_MORE = "invalid message SEND_MORE_EXTENDED", None
    CAPACITY_OVERFLOW = "Peer capacity overflow", None
    AT_CAPACITY = "unexpected flood message, peer at capacity", None
    BAD_SURVEY_SIGNATURE = "Survey has invalid signature", ErrorCode.ERR_MISC
    # Clocks.
    IDLE = "idle timeout", None
    NO_FLOOD_REQUESTS = "idle timeout (no new flood requests)", None
    STRAGGLING = "straggling (cannot keep up)", None
    # Slots, and the operator.
    NO_PENDING_SLOT = "all pending inbound connections are taken", None
    DROPPED_BY_USER = "dropped by user", ErrorCode.ERR_MISC
    SHUTDOWN = "shutdown", ErrorCode.ERR_MISC
    # The other side, the network, and ourselves.
    REMOTE_ERROR = "{code} ({text})", None
    LOST_AT_HEADER = "error reading message header: {text}", None
    LOST_IN_BODY = "error reading message body: {text}", None
    INTERNAL = "internal error", None

    def __init__(self, text: str, code: ErrorCode | None) -> None:
        self.text = text
        self.code = code

    def violation(self, detail: str = "", **fields: str) -> PeerViolation:
        """Return the exception that ends a link for this reason.

        :param detail: for our log only: what exactly was wrong, and what was expected.
        :param fields: what fills the text.
        """
        return PeerViolation(self.text.format(**fields), self.code, kind=self, detail=detail)


class SurveyRefusal(Enum):
    """Why a survey message of a peer was not taken (messages.md 5.3-5.5, cases 41-56)."""

    NOT_PERMITTED = "its surveyor may not survey us"
    NOT_OURS = "it names us as its surveyor, and we did not send it, or long ago"
    STALE_LEDGER = "its ledger is too far from ours"
    ALREADY_ACTIVE = "a survey is active already"
    WRONG_NONCE = "it is not of the survey that we report to, or collect for"
    WRONG_SURVEYOR = "its surveyor did not begin this survey"
    UNKNOWN_COMMAND = "it asks for something unknown"
    TOO_MANY_SURVEYORS = "too many surveyors ask in that ledger"
    TOO_MANY_REQUESTS = "its surveyor asks too many nodes in that ledger"
    TOO_MANY_CHECKS = "too many signatures were checked for that surveyor and ledger"
    REPEATED = "it was taken before"
    UNASKED = "nobody asked for it, as far as we know"
    BAD_SIGNATURE = "its signature is not that of its signer"
    BAD_KEY = "nothing can be encrypted for its key"
    BAD_BODY = "it cannot be decrypted or read"
    TOO_LATE = "we do not wait for it any more"


class PeerViolation(OverlayError):
    """A link must end. With a code, the peer is sent ERROR_MSG first; without, nothing.

    :param reason: the text for the peer, the log and the events.
    :param detail: for the log only.
    """

    def __init__(
        self,
        reason: str,
        code: ErrorCode | None = None,
        *,
        kind: DropReason | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.kind = kind
        self.detail = detail


class PeerError(PeerViolation):
    """The peer ended the link with an ERROR_MSG; it is never answered.

    :param remote_code: any number.
    :param remote_text: raw: up to 100 bytes from the network.
    """

    def __init__(self, remote_code: int, remote_text: bytes) -> None:
        self.remote_code = remote_code
        self.remote_text = remote_text
        names = {int(code): code.name for code in ErrorCode}
        name = names.get(remote_code, "UNKNOWN")
        text = re.sub(rb"[^A-Za-z0-9 ]", b"*", remote_text).decode()
        super().__init__(
            DropReason.REMOTE_ERROR.text.format(code=name, text=text), kind=DropReason.REMOTE_ERROR
        )
