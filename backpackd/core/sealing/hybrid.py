"""Key pairs that others wrap keys to: HPKE (RFC 9180) with the hybrid KEM ML-KEM-768 + X25519.

One suite for every wrap in Backpack. Hybrid, because a wrapped key lies in files that may be
copied today and attacked with machines of a later day. HPKE's base mode does not say who wrapped:
if that matters, the wrap is signed as well (see `core.slots.slots`).
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

PUBLIC_SIZE = 1184 + 32
"""ML-KEM-768 encapsulation key, then X25519 public key, in bytes."""
PRIVATE_SIZE = 64 + 32
"""ML-KEM-768 seed (FIPS 203), then X25519 private key, in bytes."""
OVERHEAD = 1088 + 32 + 16
"""How many bytes longer a wrap is than the key in it."""

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class UnwrapError(Exception):
    """A wrap did not open, or a key pair's bytes are not of the form."""


def generate() -> tuple[bytes, bytes]:
    """Draw a new key pair.

    Returns:
        The private key and the public key as bytes, in the layouts of `PRIVATE_SIZE` and
        `PUBLIC_SIZE`.
    """
    mlkem, x25519 = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    private = mlkem.private_bytes_raw() + x25519.private_bytes_raw()
    public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
    return private, public


def wrap(secret: bytes | memoryview, public: bytes, *, info: bytes) -> bytes:
    """Wrap a key to a public key.

    Args:
        secret: the key to wrap.
        public: `PUBLIC_SIZE` bytes.
        info: what the wrap is bound to, from `canonical.context`.

    Raises:
        UnwrapError: `public` is no public key.
    """
    if len(public) != PUBLIC_SIZE:
        raise UnwrapError("not a public key")
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:1184]),
            X25519PublicKey.from_public_bytes(public[1184:]),
        )
        return _SUITE.encrypt(secret, key, info)
    except ValueError as error:
        raise UnwrapError("not a public key") from error


def unwrap(wrapped: bytes, private: bytes, *, info: bytes) -> bytes:
    """Unwrap a key with the private key.

    Raises:
        UnwrapError: it was wrapped to another key, for another place, or altered.
    """
    if len(private) != PRIVATE_SIZE or len(wrapped) < OVERHEAD:
        raise UnwrapError("not a wrap, or not a private key")
    try:
        key = MLKEM768X25519PrivateKey(
            MLKEM768PrivateKey.from_seed_bytes(private[:64]),
            X25519PrivateKey.from_private_bytes(private[64:]),
        )
        return _SUITE.decrypt(wrapped, key, info)
    except (InvalidTag, ValueError) as error:
        raise UnwrapError("does not unwrap") from error
