"""Who talks to whom: certificates, session keys, and one connection's side of the handshake.

The rules are core's PeerAuth.cpp and Peer.cpp:1779-1987 (connection.md 3 and 4).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import Enum

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from stellar_overlay.address import MAX_PORT
from stellar_overlay.error import CryptoError, DropReason, InvalidKey, PeerViolation, XdrError
from stellar_overlay.identity import LocalNode, PeerId
from stellar_overlay.wire import message as layout
from stellar_overlay.wire.channel import (
    OpeningKey,
    SealingKey,
    unwrap_unauthenticated,
    wrap_unauthenticated,
)
from stellar_overlay.wire.message import AuthCert, Hello, Message, MessageType

CERT_LIFETIME_SECONDS = 3600
CERT_REFRESH_SECONDS = 1800
"""A certificate is renewed when it has less than this to live (core PeerAuth.cpp:45-53)."""

_UNSEALED = (MessageType.HELLO, MessageType.ERROR_MSG)
"""What always travels without number and MAC."""
_ENVELOPE_TYPE_AUTH = 3
_CERT_DIGEST = struct.Struct(">32sIQ32s")


def certificate_digest(network_id: bytes, expiration: int, public_key: bytes) -> bytes:
    """Return the 32 bytes that a certificate's signature signs (core PeerAuth.cpp:21-34)."""
    return hashlib.sha256(
        _CERT_DIGEST.pack(network_id, _ENVELOPE_TYPE_AUTH, expiration, public_key)
    ).digest()


def is_valid_certificate(cert: AuthCert, node: PeerId, network_id: bytes, wall_now: float) -> bool:
    """Tell whether ``node`` signed ``cert`` for this network and it has not expired.

    A certificate that expires this very second is valid; there is no upper bound.
    """
    if cert.expiration < int(wall_now) or len(cert.signature) != 64:
        return False
    digest = certificate_digest(network_id, cert.expiration, cert.public_key)
    try:
        VerifyKey(node.key).verify(digest, cert.signature)
    except BadSignatureError:
        return False
    return True


class SessionIdentity:
    """The process's X25519 key and its certificate, signed by the node and renewed in time."""

    def __init__(self, local_node: LocalNode) -> None:
        self.local_node = local_node
        self._secret = X25519PrivateKey.from_private_bytes(local_node.token_bytes(32))
        self.public_key = self._secret.public_key().public_bytes_raw()
        self._cert: AuthCert | None = None

    def certificate(self) -> AuthCert:
        """Return a certificate with 30 to 60 minutes to live, whatever the clock did meanwhile."""
        now = int(self.local_node.wall_clock())
        cert = self._cert
        if (
            cert is None
            or not CERT_REFRESH_SECONDS <= cert.expiration - now <= CERT_LIFETIME_SECONDS
        ):
            expiration = now + CERT_LIFETIME_SECONDS
            digest = certificate_digest(self.local_node.network_id, expiration, self.public_key)
            cert = self._cert = AuthCert(
                public_key=self.public_key,
                expiration=expiration,
                signature=self.local_node.sign(digest),
            )
        return cert

    def shared_key(self, peer_public_key: bytes, we_called_remote: bool) -> bytes:
        """Return the 32-byte key K of connection.md 3.2.

        :raises CryptoError: for a low-order point.
        """
        try:
            q = self._secret.exchange(X25519PublicKey.from_public_bytes(peer_public_key))
        except ValueError as error:
            raise CryptoError("the peer's session key is a low-order point") from error
        pair = (self.public_key, peer_public_key)
        caller, called = pair if we_called_remote else pair[::-1]
        return hmac.digest(bytes(32), q + caller + called, "sha256")


def mac_key(
    shared_key: bytes, *, from_caller: bool, sender_nonce: bytes, receiver_nonce: bytes
) -> bytes:
    """Return the 32-byte MAC key of one direction (HKDF-expand, one block)."""
    direction = b"\0" if from_caller else b"\1"
    return hmac.digest(shared_key, direction + sender_nonce + receiver_nonce + b"\1", "sha256")


class AuthState(Enum):
    """What we received; core's PeerState without the transport (Peer.h:86-93)."""

    CONNECTED = "connected"
    GOT_HELLO = "got-hello"
    GOT_AUTH = "got-auth"
    REFUSED = "refused"
    """What it said was in turn, but :meth:`AuthContext.process_hello`,
    :meth:`AuthContext.process_auth` or :meth:`AuthContext.unwrap_message` refused it: it cannot
    be authenticated any more."""


_OUT_OF_TURN = frozenset(
    {DropReason.TOO_EARLY, DropReason.UNEXPECTED_HELLO, DropReason.AUTH_OUT_OF_ORDER}
)
"""Reasons for which a message is refused, and not the peer: keys and state stay as they are."""


class AuthContext:
    """One connection's authentication: HELLO and AUTH both ways, then the MACed channel.

    Usable alone: exchange :meth:`create_hello` and :meth:`process_hello`, then
    :meth:`create_auth` and :meth:`process_auth`, then :meth:`wrap_message` and
    :meth:`unwrap_message`. A peer that failed in one of these is refused for good, as it ends a
    connection; only what came out of turn changes nothing. Once a record failed, none but an
    ERROR_MSG, which is never verified, can be unwrapped any more.

    :param we_called_remote: whether we are the side that dialled.
    :param identity: the process's session key; one is made when none is given.
    """

    __slots__ = (
        "_identity",
        "_nonce",
        "local_node",
        "opening",
        "peer_id",
        "remote",
        "sealing",
        "state",
        "we_called_remote",
    )

    def __init__(
        self,
        local_node: LocalNode,
        we_called_remote: bool,
        *,
        identity: SessionIdentity | None = None,
    ) -> None:
        self.local_node = local_node
        self.we_called_remote = we_called_remote
        self.state = AuthState.CONNECTED
        self.remote: Hello | None = None
        self.peer_id: PeerId | None = None
        self.sealing: SealingKey | None = None
        self.opening: OpeningKey | None = None
        self._identity = identity or SessionIdentity(local_node)
        self._nonce = local_node.token_bytes(32)

    @property
    def is_authenticated(self) -> bool:
        """Whether the peer proved its key: its AUTH was accepted."""
        return self.state is AuthState.GOT_AUTH

    def create_hello(self) -> Message:
        """Return our HELLO."""
        node = self.local_node
        hello = Hello(
            ledger_version=node.ledger_version,
            overlay_version=node.overlay_version,
            overlay_min_version=node.overlay_min_version,
            network_id=node.network_id,
            version_string=node.version_string.encode(),
            listening_port=node.listening_port,
            node_key=node.peer_id.key,
            cert=self._identity.certificate(),
            nonce=self._nonce,
        )
        return Message(hello.encode())

    def process_hello(self, message: Message) -> Hello:
        """Accept the peer's HELLO: all of core's checks that need nobody else's knowledge.

        :raises PeerViolation: as core would drop the peer.
        """
        try:
            hello = self.read_hello(message)
            self.check_certificate(hello)
            self.accept_hello(hello)
            self.check_hello(hello)
        except PeerViolation as violation:
            self._refuse(violation)
            raise
        return hello

    def create_auth(self) -> Message:
        """Return our AUTH; it travels MACed, as the first message of the channel."""
        return Message(layout.encode_auth())

    def process_auth(self, message: Message) -> None:
        """Accept the peer's AUTH.

        :raises PeerViolation: when it comes out of order, or lacks the flow control flag.
        """
        try:
            self.accept_auth()
            self.check_auth_flags(message)
        except PeerViolation as violation:
            self._refuse(violation)
            raise

    def wrap_message(self, message: Message) -> bytes:
        """Return the envelope of ``message``, without record mark: numbered and MACed.

        HELLO and ERROR_MSG always have number 0 and a zero MAC and use up no number.

        :raises CryptoError: for any other message before the peer's HELLO.
        :raises ValueError: when it is longer than any peer takes.
        """
        if message.type in _UNSEALED:
            return wrap_unauthenticated(message.body)
        if self.sealing is None:
            raise CryptoError(f"{message.type.name} cannot be sealed before HELLO was received")
        return self.sealing.seal(message.body)[4:]

    def unwrap_message(self, record: bytes) -> Message:
        """Return the message in an envelope, verified as soon as there are keys.

        Before that nothing but HELLO and ERROR_MSG is given out.

        :raises PeerViolation: when the envelope is corrupt, out of sequence or forged, or holds
            what cannot be verified yet (connection.md 12, rows 21 and 24).
        """
        try:
            if self.opening is None:
                return self._unwrap_unverified(record)
            return Message(self.opening.open(record)[1])
        except PeerViolation as violation:
            self._refuse(violation)
            raise

    def _unwrap_unverified(self, record: bytes) -> Message:
        message = Message(unwrap_unauthenticated(record)[1])
        if message.type is MessageType.AUTH:
            raise DropReason.AUTH_OUT_OF_ORDER.violation(f"in state {self.state.value}")
        if message.type not in _UNSEALED:
            raise DropReason.TOO_EARLY.violation(kind=message.type.name)
        return message

    def _refuse(self, violation: PeerViolation) -> None:
        """Let no caller who overlooks a violation take the peer for authenticated."""
        if violation.kind not in _OUT_OF_TURN:
            self.state = AuthState.REFUSED

    # The steps of process_hello and process_auth, for who has more to check between them.

    def read_hello(self, message: Message) -> Hello:
        """Return the HELLO if it is the first.

        :raises PeerViolation: when it is not, or not canonical.
        """
        if self.state is not AuthState.CONNECTED:
            raise DropReason.UNEXPECTED_HELLO.violation()
        try:
            return Hello.decode(message.body)
        except XdrError as error:
            raise DropReason.CORRUPT_XDR.violation(str(error)) from error

    def check_certificate(self, hello: Hello) -> None:
        """Refuse a certificate that has expired or that the node did not sign for our network.

        :raises PeerViolation: then.
        """
        wall_now = self.local_node.wall_clock()
        if not is_valid_certificate(
            hello.cert, PeerId(hello.node_key), self.local_node.network_id, wall_now
        ):
            left = hello.cert.expiration - int(wall_now)
            raise DropReason.BAD_CERT.violation(
                f"expired {-left} s ago" if left < 0 else "not signed by the node for our network"
            )

    def accept_hello(self, hello: Hello) -> None:
        """Remember the peer and derive both keys; from here on every message is verified.

        :raises PeerViolation: for a session key that is a low-order point.
        """
        ours, theirs = self._nonce, hello.nonce
        caller = self.we_called_remote
        try:
            key = self._identity.shared_key(hello.cert.public_key, caller)
            self.peer_id = PeerId(hello.node_key)
        except (CryptoError, InvalidKey) as error:
            raise DropReason.BAD_CRYPTO.violation(str(error)) from error
        self.sealing = SealingKey(
            mac_key(key, from_caller=caller, sender_nonce=ours, receiver_nonce=theirs)
        )
        self.opening = OpeningKey(
            mac_key(key, from_caller=not caller, sender_nonce=theirs, receiver_nonce=ours)
        )
        self.remote = hello
        self.state = AuthState.GOT_HELLO

    def check_hello(self, hello: Hello) -> None:
        """Refuse what cannot be our peer: version, ourselves, network, port; in this order.

        :raises PeerViolation: then, with the code and text that the peer is told.
        """
        node = self.local_node
        low, high = hello.overlay_min_version, hello.overlay_version
        if low > high or high < node.overlay_min_version or low > node.overlay_version:
            raise DropReason.WRONG_VERSION.violation(
                f"the peer speaks overlay {low}..{high}, we speak "
                f"{node.overlay_min_version}..{node.overlay_version}"
            )
        if hello.node_key == node.peer_id.key:
            raise DropReason.SELF.violation()
        if hello.network_id != node.network_id:
            raise DropReason.WRONG_NETWORK.violation(
                f"network id {hello.network_id.hex()}, ours is {node.network_id.hex()}"
            )
        if not 0 < hello.listening_port <= MAX_PORT:
            raise DropReason.BAD_ADDRESS.violation(f"listening port {hello.listening_port}")

    def accept_auth(self) -> None:
        """Note that the peer proved its key: its AUTH came in turn.

        :raises PeerViolation: when it did not.
        """
        if self.state is not AuthState.GOT_HELLO:
            raise DropReason.AUTH_OUT_OF_ORDER.violation(f"in state {self.state.value}")
        self.state = AuthState.GOT_AUTH

    def check_auth_flags(self, message: Message) -> None:
        """Refuse an AUTH without flow control in bytes.

        :raises PeerViolation: then.
        """
        try:
            flags = layout.decode_auth(message.body)
        except XdrError as error:
            raise DropReason.CORRUPT_XDR.violation(str(error)) from error
        if flags != layout.AUTH_FLAG_FLOW_CONTROL_BYTES:
            raise DropReason.BAD_AUTH_FLAGS.violation(
                f"flags {flags}; only {layout.AUTH_FLAG_FLOW_CONTROL_BYTES} are accepted"
            )
