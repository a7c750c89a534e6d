"""The cryptography of version 2: the lock key, its recipients, and the sealed layers.

Every layer is sealed under its own key, derived from the lock key by layer, count and a fresh
salt, with the lock's id as associated data: a layer opens in its place, in its lock, as its count,
and no derived key seals two messages. The lock key is wrapped to each recipient, and the header
commits to it, so all recipients get the same key. It does not know what the layers hold, or who may
change them.
"""

import hmac
from collections.abc import Iterable

from backpackd.core.agentlock.document import LockFile
from backpackd.core.agentlock.errors import LockFileError, RecipientsError, WrongRecipientError
from backpackd.core.agentlock.header import Layer, Recipient, statement
from backpackd.core.sealing import hybrid
from backpackd.core.sealing.canonical import context
from backpackd.core.sealing.hybrid import UnwrapError
from backpackd.core.sealing.identity import Identity, PublicIdentity
from backpackd.core.sealing.sealing import OpenError, derive, open_sealed, pad, seal, unpad


def commitment_of(key: bytes, lock_id: str) -> str:
    """Return what the header says of the lock key: 64 hexadecimal digits that bind it and hide it.

    Finding two keys with one commitment means finding a collision of SHA-256.
    """
    return derive(key, salt=bytes.fromhex(lock_id), purpose="agent-lock/commitment").hex()


def wrap_key(
    key: bytes, lock_id: str, recipients: Iterable[PublicIdentity]
) -> tuple[Recipient, ...]:
    """Wrap the lock key to each recipient.

    Raises:
        RecipientsError: a public key is none that can be wrapped to.
    """
    commitment = commitment_of(key, lock_id)
    try:
        return tuple(
            Recipient(
                one, hybrid.wrap(key, one.encryption, info=_wrap_info(lock_id, commitment, one))
            )
            for one in recipients
        )
    except UnwrapError as error:
        raise RecipientsError("a recipient's public key is none that can be wrapped to") from error


def unwrap_key(lock: LockFile, identity: Identity) -> bytes:
    """Unwrap the lock key, and compare it with the commitment.

    Raises:
        WrongRecipientError: the lock is not wrapped to this identity.
        LockFileError: `lock-key`.
    """
    own = [one for one in lock.header.wraps if one.identity == identity.public]
    if not own:
        raise WrongRecipientError(
            "this vault is not among the recipients of the lock: ask one of them to add it"
        )
    commitment = lock.header.commitment
    info = _wrap_info(lock.lock_id, commitment, identity.public)
    try:
        key = hybrid.unwrap(own[0].wrap, identity.decryption, info=info)
    except UnwrapError:
        key = b""
    # An author could wrap one key to some recipients and another to the rest, and make bytes that
    # open under both, to a reading for each.
    if not key or not hmac.compare_digest(commitment_of(key, lock.lock_id), commitment):
        raise LockFileError(
            "the lock key that the author wrapped to this vault is not the one that the header "
            "names: have the author rewrap the lock",
            reason="lock-key",
        )
    return key


def seal_layer(
    key: bytes, plain: bytes, *, lock_id: str, name: str, count: int, salt: bytes
) -> Layer:
    """Seal a layer's content.

    Args:
        key: the lock key.
        plain: the content, of any length.
        lock_id: the lock that it belongs to.
        name: of the layer.
        count: the generation or counter that it is sealed for.
        salt: 32 fresh random bytes; never used twice.
    """
    bound_to = context(bytes.fromhex(lock_id))
    sealed = seal(key, pad(plain), kind=_kind(name, count), bound_to=bound_to, salt=salt)
    return Layer(count, sealed)


def open_layer(key: bytes, layer: Layer, *, lock_id: str, name: str) -> bytes:
    """Open what `seal_layer` made for the same place.

    Raises:
        LockFileError: `lock-layer-changed`.
    """
    bound_to = context(bytes.fromhex(lock_id))
    try:
        return unpad(
            open_sealed(key, layer.sealed, kind=_kind(name, layer.count), bound_to=bound_to)
        )
    except OpenError as error:
        raise LockFileError(
            f"the {name} layer does not open: it was changed, or comes from another version or "
            "file; restore the file from version control",
            reason="lock-layer-changed",
        ) from error


def _kind(name: str, count: int) -> str:
    return f"agent-lock/{name}/{count}"


def _wrap_info(lock_id: str, commitment: str, recipient: PublicIdentity) -> bytes:
    return statement("wrap", bytes.fromhex(lock_id), bytes.fromhex(commitment), recipient.encode())
