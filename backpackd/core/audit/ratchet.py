"""The ratchet: the key that seals an entry, and its successors, which cannot open earlier entries.

A segment starts from a random key, wrapped to the vault's audit key. Every row of the segment has
the state that came before it: an entry is sealed under a key derived from the state, and then the
state is replaced by its successor. HKDF cannot be reversed, so an attacker who takes a state reads
nothing that was sealed before it. This module does not decide where a state is kept.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backpackd.core.sealing import hybrid
from backpackd.core.sealing.canonical import context
from backpackd.core.sealing.sealing import TAG_SIZE, OpenError, Secret, derive, pad, unpad

STATE_SIZE = 32
SALT_SIZE = 16
_NONCE = bytes(12)


def wrap(state: Secret, public: bytes, *, vault_id: bytes, segment: int, fingerprint: str) -> bytes:
    """Wrap a segment's first state to the vault's audit key.

    Raises:
        UnwrapError: `public` is no public key.
    """
    return hybrid.wrap(state, public, info=_wrap_context(vault_id, segment, fingerprint))


def unwrap(
    wrapped: bytes, private: bytes, *, vault_id: bytes, segment: int, fingerprint: str
) -> bytes:
    """Unwrap a segment's first state.

    Raises:
        OpenError: it was wrapped to another key, for another segment, or altered.
    """
    try:
        state = hybrid.unwrap(wrapped, private, info=_wrap_context(vault_id, segment, fingerprint))
    except hybrid.UnwrapError as error:
        raise OpenError("the segment's key does not unwrap") from error
    if len(state) != STATE_SIZE:
        raise OpenError("not the key of a segment")
    return state


def advance(state: Secret) -> bytes:
    """Return the state that comes after this one."""
    return derive(state, salt=b"", purpose="audit-ratchet")


def seal_entry(
    state: Secret, plaintext: bytes, *, vault_id: bytes, number: int, previous: bytes, salt: bytes
) -> bytes:
    """Seal one entry under the state before it.

    Args:
        state: 32 bytes.
        plaintext: any length; padded, so that its length says little.
        vault_id: the vault's 16 bytes.
        number: of the row.
        previous: hash of the row before it.
        salt: 16 fresh random bytes. An entry that found no room on the disk is sealed again under
            the same state, perhaps as another one, and a key with a fixed nonce seals only once.
    """
    key = derive(state, salt=salt, purpose="audit-entry")
    bound_to = _entry_context(vault_id, number, previous)
    return salt + AESGCM(key).encrypt(_NONCE, pad(plaintext), bound_to)


def open_entry(
    state: Secret, sealed: bytes, *, vault_id: bytes, number: int, previous: bytes
) -> bytes:
    """Open what `seal_entry` made for the same place.

    Raises:
        OpenError: altered, of another place, or sealed under another state.
    """
    if len(sealed) < SALT_SIZE + TAG_SIZE:
        raise OpenError("too short to be an entry")
    key = derive(state, salt=sealed[:SALT_SIZE], purpose="audit-entry")
    bound_to = _entry_context(vault_id, number, previous)
    try:
        return unpad(AESGCM(key).decrypt(_NONCE, sealed[SALT_SIZE:], bound_to))
    except InvalidTag as error:
        raise OpenError("does not open") from error


def _wrap_context(vault_id: bytes, segment: int, fingerprint: str) -> bytes:
    place = segment.to_bytes(8, "big")
    return context(b"backpack/v1/audit-segment", vault_id, place, fingerprint.encode("ascii"))


def _entry_context(vault_id: bytes, number: int, previous: bytes) -> bytes:
    return context(b"backpack/v1/audit-entry", vault_id, number.to_bytes(8, "big"), previous)
