"""Making, opening and changing version 2 locks, with the identity of one recipient.

The caller must judge author and history before it changes anything: every change here adds the
identity's signature, or the agent's memory, to what is in the file. If a stranger has made the
lock, the stranger knows its lock key.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backpackd.core.agentlock import content
from backpackd.core.agentlock.content import MAX_RECIPIENTS, Contents, Credential
from backpackd.core.agentlock.document import LockFile
from backpackd.core.agentlock.errors import LockContentError, LockFileError, RecipientsError
from backpackd.core.agentlock.fields import LAYERS
from backpackd.core.agentlock.header import FIRST, LOCK_KEY_SIZE, Header, Layer
from backpackd.core.agentlock.history import MOST
from backpackd.core.agentlock.layers import (
    commitment_of,
    open_layer,
    seal_layer,
    unwrap_key,
    wrap_key,
)
from backpackd.core.errors import LimitError
from backpackd.core.sealing.identity import Identity, PublicIdentity
from backpackd.core.sealing.sealing import SALT_SIZE

LOCK_ID_SIZE = 16

Draw = Callable[[int], bytes]
"""Returns this number of fresh random bytes."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A lock and what it holds."""

    lock: LockFile
    contents: Contents


def create(
    contents: Contents, *, author: Identity, recipients: Iterable[PublicIdentity] = (), draw: Draw
) -> LockFile:
    """Make a new lock.

    Args:
        contents: what to seal.
        author: who signs; always the first recipient.
        recipients: who else can open it.
        draw: where random bytes come from.

    Raises:
        LockContentError: the contents are not of the form, or too large.
        RecipientsError: too many, or two that share a key.
    """
    plain = _encode(contents)
    everybody = _checked([author.public, *recipients])
    lock_id, key = draw(LOCK_ID_SIZE).hex(), draw(LOCK_KEY_SIZE)
    sealed = _seal(key, lock_id, plain, dict.fromkeys(LAYERS, 1), draw)
    commitment, wraps = commitment_of(key, lock_id), wrap_key(key, lock_id, everybody)
    header = Header(lock_id, 1, FIRST, author.public.fingerprint, commitment, {}, wraps)
    return _signed(header, sealed, author)


def open_lock(lock: LockFile, identity: Identity) -> Opened:
    """Open a lock.

    Raises:
        WrongRecipientError: it is not wrapped to this identity.
        LockFileError: the wrap or a layer does not open, or holds what it should not.
    """
    key = unwrap_key(lock, identity)
    plain = {
        name: open_layer(key, layer, lock_id=lock.lock_id, name=name)
        for name, layer in lock.sealed.items()
    }
    try:
        contents = Contents(
            content.decode_credentials(plain["credentials"]),
            content.decode_personality(plain["personality"]),
            content.decode_memory(plain["memory"]),
        )
    except LockContentError:
        whole = False
    else:
        whole = True
    if not whole:
        raise LockFileError(
            "a layer opens, and what it holds is not of the form: whoever sealed it used a "
            "program that writes other content",
            reason="lock-content",
        )
    return Opened(lock, contents)


def edit(
    lock: LockFile,
    identity: Identity,
    *,
    draw: Draw,
    credentials: Mapping[str, Credential] | None = None,
    personality: Mapping[str, Any] | None = None,
) -> LockFile:
    """Replace credentials, personality or both, and sign as a new generation.

    A layer that stays as it is keeps its bytes. When nothing changes, the lock is returned as it
    was, with its old signature.

    Args:
        lock: the version to go on from.
        identity: of a recipient, which becomes the author.
        draw: where random bytes come from.
        credentials: all of them; None: as they are.
        personality: the whole of it; None: as it is.

    Raises:
        WrongRecipientError: the lock is not wrapped to this identity.
        LockFileError: it does not open.
        LockContentError: the new content is not of the form, or too large.
    """
    contents = open_lock(lock, identity).contents
    before = _encode(contents)
    after = _encode(
        replace(
            contents,
            credentials=contents.credentials if credentials is None else credentials,
            personality=contents.personality if personality is None else personality,
        )
    )
    changed = {name: after[name] for name in LAYERS if before[name] != after[name]}
    if not changed:
        return lock
    key, header = unwrap_key(lock, identity), _following(lock, identity)
    counts = dict.fromkeys(changed, header.generation)
    fresh = _seal(key, lock.lock_id, changed, counts, draw)
    return _signed(header, {**lock.sealed, **fresh}, identity)


def update_memory(
    lock: LockFile, identity: Identity, memory: Mapping[str, Any], *, draw: Draw
) -> LockFile:
    """Replace the memory. Its counter goes up by one, and the author's header stays as it is.

    Raises:
        WrongRecipientError: the lock is not wrapped to this identity.
        LockFileError: it does not open.
        LockContentError: the memory is not of the form, or too large.
        LimitError: the counter is at its end.
    """
    encoded = content.encode_memory(memory)
    if encoded == content.encode_memory(open_lock(lock, identity).contents.memory):
        return lock
    key, counter = unwrap_key(lock, identity), _next(lock.memory_counter)
    fresh = _seal(key, lock.lock_id, {"memory": encoded}, {"memory": counter}, draw)
    return replace(lock, sealed={**lock.sealed, **fresh})


def add_recipients(
    lock: LockFile, identity: Identity, recipients: Iterable[PublicIdentity]
) -> LockFile:
    """Add recipients, and sign as a new generation.

    They can open every version since the lock key was last replaced.

    Raises:
        WrongRecipientError: the lock is not wrapped to this identity.
        LockFileError: it does not open.
        RecipientsError: none given, one is a recipient already, or too many.
    """
    added = list(recipients)
    if not added:
        raise RecipientsError("name at least one recipient to add")
    open_lock(lock, identity)
    key, header = unwrap_key(lock, identity), _following(lock, identity)
    _checked([*lock.recipients, *added])
    wraps = wrap_key(key, lock.lock_id, added)
    return _signed(replace(header, wraps=header.wraps + wraps), lock.sealed, identity)


def remove_recipients(
    lock: LockFile, identity: Identity, fingerprints: Collection[str], *, draw: Draw
) -> LockFile:
    """Exclude recipients from every later version: make a new lock key, wrapped to the others.

    They may have kept what they could open: replace embedded values at their issuers.

    Raises:
        WrongRecipientError: the lock is not wrapped to this identity.
        LockFileError: it does not open.
        RecipientsError: none given, one is no recipient, or is the identity itself.
    """
    leaving = set(fingerprints)
    if not leaving:
        raise RecipientsError("name at least one recipient to remove")
    if identity.public.fingerprint in leaving:
        raise RecipientsError(
            "this vault signs the lock and so stays a recipient: have another one remove it"
        )
    if not leaving <= {one.fingerprint for one in lock.recipients}:
        raise RecipientsError("one that is to be removed is no recipient of this lock")
    staying = [one for one in lock.recipients if one.fingerprint not in leaving]
    return _rewrapped(lock, identity, staying, draw)


def rewrap(lock: LockFile, identity: Identity, *, draw: Draw) -> LockFile:
    """Make a new lock key for the same recipients, reseal every layer, sign as a new generation.

    Raises:
        WrongRecipientError: the lock is not wrapped to this identity.
        LockFileError: it does not open.
    """
    return _rewrapped(lock, identity, lock.recipients, draw)


def _rewrapped(
    lock: LockFile, identity: Identity, recipients: Iterable[PublicIdentity], draw: Draw
) -> LockFile:
    plain = _encode(open_lock(lock, identity).contents)
    key, header = draw(LOCK_KEY_SIZE), _following(lock, identity)
    counts = dict.fromkeys(LAYERS, header.generation)
    # Other bytes of one counter would be taken for a fork.
    counts["memory"] = _next(lock.memory_counter)
    sealed = _seal(key, lock.lock_id, plain, counts, draw)
    commitment, wraps = commitment_of(key, lock.lock_id), wrap_key(key, lock.lock_id, recipients)
    return _signed(replace(header, commitment=commitment, wraps=wraps), sealed, identity)


def _following(lock: LockFile, identity: Identity) -> Header:
    return replace(
        lock.header,
        generation=_next(lock.generation),
        previous=lock.header.digest,
        author=identity.public.fingerprint,
    )


def _signed(header: Header, sealed: Mapping[str, Layer], author: Identity) -> LockFile:
    layers = {name: sealed[name] for name in LAYERS}
    anchors = {
        name: (layer.count, layer.digest(header.lock_id, name)) for name, layer in layers.items()
    }
    header = replace(header, anchors=anchors)
    return LockFile(header, author.sign(header.statement), layers)


def _seal(
    key: bytes, lock_id: str, plain: Mapping[str, bytes], counts: Mapping[str, int], draw: Draw
) -> dict[str, Layer]:
    return {
        name: seal_layer(
            key,
            plain[name],
            lock_id=lock_id,
            name=name,
            count=counts[name],
            salt=draw(SALT_SIZE),
        )
        for name in plain
    }


def _checked(recipients: list[PublicIdentity]) -> list[PublicIdentity]:
    if len(recipients) > MAX_RECIPIENTS:
        raise RecipientsError(f"a lock has at most {MAX_RECIPIENTS} recipients")
    apart = ({one.encryption for one in recipients}, {one.verifying for one in recipients})
    if any(len(keys) != len(recipients) for keys in apart):
        raise RecipientsError("one is named twice, or is a recipient already")
    return recipients


def _encode(contents: Contents) -> dict[str, bytes]:
    return {
        "credentials": content.encode_credentials(contents.credentials),
        "personality": content.encode_personality(contents.personality),
        "memory": content.encode_memory(contents.memory),
    }


def _next(count: int) -> int:
    if count >= MOST:
        raise LimitError("the lock was changed as often as it can be: make a new one")
    return count + 1
