"""What is shown of an agent lock: everything but values."""

from dataclasses import dataclass

from backpackd.application.agents.identities import labels
from backpackd.application.vault.vault import Session
from backpackd.core.agentlock.content import Contents
from backpackd.core.agentlock.document import LockFile
from backpackd.core.agentlock.legacy import LegacyLock
from backpackd.core.agentlock.naming import unaccepted
from backpackd.core.sealing.identity import Identity, PublicIdentity


@dataclass(frozen=True, slots=True)
class Party:
    """Who signed a lock, or who can open it.

    Attributes:
        spoken: the fingerprint, as people compare it.
        label: what the operator called it when it was accepted as an author; empty otherwise.
        trusted: this vault, or an accepted author.
        own: this vault.
    """

    spoken: str
    label: str
    trusted: bool
    own: bool


@dataclass(frozen=True, slots=True)
class LockView:
    """What is known of a lock.

    Attributes:
        version: 1 or 2; in version 1 there is nothing of what follows but the credentials.
        credentials: names, and whether the lock holds the value.
        warnings: stable words.
        lock_id: hexadecimal.
        author: who signed it last.
        generation: of the header.
        layers: by name, the generation (of the memory, the counter) that it was sealed in.
        memory_digest: names the memory as it is in this file.
        recipients: who can open it.
        unaccepted: names of embedded values that are handed out once the operator has accepted
            them.
    """

    version: int
    credentials: tuple[tuple[str, bool], ...]
    warnings: tuple[str, ...]
    lock_id: str = ""
    author: Party | None = None
    generation: int = 0
    layers: tuple[tuple[str, int], ...] = ()
    memory_digest: str = ""
    recipients: tuple[Party, ...] = ()
    unaccepted: tuple[str, ...] = ()


def accepted_names(session: Session, lock_id: str) -> tuple[str, ...]:
    """Return the names that the operator has accepted for a lock."""
    known = session.authority.locks.get(lock_id)
    return known.names if known is not None else ()


def view(
    session: Session,
    identity: Identity,
    lock: LockFile,
    contents: Contents,
    warnings: tuple[str, ...],
) -> LockView:
    """Say what is known of an opened lock of version 2."""
    return LockView(
        version=2,
        credentials=_credentials(contents),
        warnings=warnings,
        lock_id=lock.lock_id,
        author=_party(session, identity, lock.author),
        generation=lock.generation,
        layers=tuple(lock.layers.items()),
        memory_digest=lock.mark.memory_digest,
        recipients=tuple(_party(session, identity, each) for each in lock.recipients),
        unaccepted=unaccepted(contents.credentials, accepted_names(session, lock.lock_id)),
    )


def legacy_view(lock: LegacyLock, warnings: tuple[str, ...]) -> LockView:
    """Say what is known of a lock of version 1."""
    return LockView(version=1, credentials=_credentials(lock.contents), warnings=warnings)


def _credentials(contents: Contents) -> tuple[tuple[str, bool], ...]:
    return tuple((name, each.embedded) for name, each in sorted(contents.credentials.items()))


def _party(session: Session, identity: Identity, public: PublicIdentity) -> Party:
    known, own = labels(session), public == identity.public
    fingerprint = public.fingerprint
    return Party(public.spoken, known.get(fingerprint, ""), own or fingerprint in known, own)
