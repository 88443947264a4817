"""One Ed25519 signature, checked: what every verifier does in the end."""

from __future__ import annotations

from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

_KEY_SIZE = 32
_SIGNATURE_SIZE = 64


def is_signed_by(key: bytes, signed: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` is that of ``signed`` by the node with this key.

    False, too, for a key that is not 32 bytes and a signature that is not 64. Thread-safe; other
    threads run while libsodium works.
    """
    if len(key) != _KEY_SIZE or len(signature) != _SIGNATURE_SIZE:
        return False  # libsodium looks at no length: it would read beyond the end
    try:
        crypto_sign_open(signature + signed, key)
    except BadSignatureError:
        return False
    return True
