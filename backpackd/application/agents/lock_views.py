"""The parts of an agent lock that are shown: everything except values."""

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
    """A vault that signed a lock, or can open it.

    Attributes:
        spoken: the fingerprint, as people compare it.
        label: the operator's name for an accepted author; otherwise empty.
        trusted: whether it is this vault or an accepted author.
        own: whether it is this vault.
    """

    spoken: str
    label: str
    trusted: bool
    own: bool


@dataclass(frozen=True, slots=True)
class LockView:
    """The facts about a lock.

    Attributes:
        version: 1 or 2. Version 1 has only the credentials of what follows.
        credentials: names, and whether the lock embeds the value.
        warnings: stable words.
        lock_id: hexadecimal.
        author: the vault that signed it last.
        generation: of the header.
        layers: by name, the generation in which each was sealed (for the memory, the counter).
        memory_digest: identifies the memory in this file.
        recipients: the vaults that can open it.
        unaccepted: names of embedded values that are handed out only after the operator has
            accepted them.
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
    """Return the facts about an opened lock of version 2."""
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
    """Return the facts about a lock of version 1."""
    return LockView(version=1, credentials=_credentials(lock.contents), warnings=warnings)


def _credentials(contents: Contents) -> tuple[tuple[str, bool], ...]:
    return tuple((name, each.embedded) for name, each in sorted(contents.credentials.items()))


def _party(session: Session, identity: Identity, public: PublicIdentity) -> Party:
    known, own = labels(session), public == identity.public
    fingerprint = public.fingerprint
    return Party(public.spoken, known.get(fingerprint, ""), own or fingerprint in known, own)
