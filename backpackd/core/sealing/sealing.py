"""Sealing under the master key: AES-256-GCM with a key of its own for every seal.

Every sealed blob carries a fresh 32-byte salt, and its key is HKDF-SHA256 (RFC 5869) of the master
key with that salt. A key therefore seals exactly one message, which is why the nonce can be fixed,
and no derived key is kept: each call derives, uses and drops its own. This file knows nothing of
what is sealed.
"""

import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backpackd.core.sealing.canonical import context

KEY_SIZE = 32
SALT_SIZE = 32
TAG_SIZE = 16
_NONCE = bytes(12)
_LABEL = b"backpack/v1/"

Secret = bytes | memoryview
"""Key material: bytes, or a view of it in the secret arena."""


class OpenError(Exception):
    """A sealed blob did not open: altered, for another place, or under another key."""


def derive(secret: Secret, *, salt: bytes, purpose: str) -> bytes:
    """Derive 32 bytes from a secret by HKDF-SHA256 (RFC 5869, one block of output).

    Written with `hmac.digest`, which takes the secret as a view: no copy of the master key is made
    for a library object that lives on.

    Args:
        secret: uniformly random input key material.
        salt: public; a fresh one gives an independent key.
        purpose: what the key is for; different purposes give independent keys.
    """
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, _LABEL + purpose.encode("ascii") + b"\x01", "sha256")


def seal(master: Secret, plaintext: bytes, *, kind: str, bound_to: bytes, salt: bytes) -> bytes:
    """Seal a message under the master key.

    Args:
        master: the master key, 32 bytes.
        plaintext: any length.
        kind: what is sealed; a blob of one kind never opens as another.
        bound_to: associated data from `canonical.context`: the place that the blob belongs to.
        salt: 32 fresh random bytes; never used twice.

    Returns:
        salt, ciphertext and 16-byte tag, one after the other.

    Raises:
        ValueError: the salt is not 32 bytes.
    """
    if len(salt) != SALT_SIZE:
        raise ValueError("a salt is 32 bytes")
    key = derive(master, salt=salt, purpose=kind)
    return salt + AESGCM(key).encrypt(_NONCE, plaintext, context(kind.encode(), bound_to))


def open_sealed(master: Secret, sealed: bytes, *, kind: str, bound_to: bytes) -> bytes:
    """Open what `seal` made for the same kind and place.

    Raises:
        OpenError: it is not such a blob.
    """
    if len(sealed) < SALT_SIZE + TAG_SIZE:
        raise OpenError("too short to be sealed")
    key = derive(master, salt=sealed[:SALT_SIZE], purpose=kind)
    try:
        return AESGCM(key).decrypt(_NONCE, sealed[SALT_SIZE:], context(kind.encode(), bound_to))
    except InvalidTag as error:
        raise OpenError("does not open") from error


def pad(message: bytes) -> bytes:
    """Pad a message so that its length says little: to 256, 512, ... 4096, then by steps of 4096.

    The true length stands in the first 4 bytes, big-endian; the rest is zeros.
    """
    framed = len(message).to_bytes(4, "big") + message
    return framed.ljust(_padded_size(len(framed)), b"\0")


def unpad(padded: bytes) -> bytes:
    """Take the padding off again.

    Raises:
        OpenError: `pad` would not have written this.
    """
    length = int.from_bytes(padded[:4], "big")
    message, rest = padded[4 : 4 + length], padded[4 + length :]
    if len(padded) != _padded_size(4 + length) or any(rest):
        raise OpenError("padding is not what it should be")
    return message


def _padded_size(framed: int) -> int:
    size = 256
    while size < framed and size < 4096:  # noqa: PLR2004 - the steps that `pad` names
        size *= 2
    return -(-framed // size) * size
