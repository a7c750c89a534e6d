"""The daemon's answers about agent locks and identities, as plain values.

This module completes `model`. It talks to nobody and does not know protobuf.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """The public keys of a vault.

    Attributes:
        text: one line with both keys, to be given to a teammate.
        fingerprint: short, for people to compare.
    """

    text: str = field(repr=False)
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Author:
    """Who signed a lock.

    Attributes:
        fingerprint: of the author's identity.
        label: what the operator called it; empty otherwise.
        trusted: True for this vault and for authors that the operator has accepted.
        own: True for this vault.
    """

    fingerprint: str
    label: str
    trusted: bool
    own: bool


@dataclass(frozen=True, slots=True)
class Recipient:
    """A vault that can open a lock.

    Attributes:
        fingerprint: of its identity.
        label: what the operator called it; empty otherwise.
        own: True for this vault.
    """

    fingerprint: str
    label: str
    own: bool


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of a lock: its name, and whether its value is sealed in the lock itself."""

    name: str
    embedded: bool


@dataclass(frozen=True, slots=True)
class LockInfo:
    """Facts about a lock that are not in its layers.

    Attributes:
        version: of its format, 1 or 2. Version 1 has no id, author, generations or recipients.
        lock_id: hexadecimal.
        author: who signed it; None in version 1.
        generation: counts up with every change that is signed.
        credentials_generation: in which the credentials were sealed.
        personality_generation: in which the personality was sealed.
        memory_counter: counts up with every change of the memory.
        memory_hash: names the memory as it is in this file.
        recipients: who can open it.
        credentials: what the agent needs.
        warnings: stable words, such as `default-key` or `memory-stepped-back`.
        unaccepted_names: of embedded values that are handed out only after the operator has
            accepted these names.
    """

    version: int
    lock_id: str
    author: Author | None
    generation: int
    credentials_generation: int
    personality_generation: int
    memory_counter: int
    memory_hash: str
    recipients: tuple[Recipient, ...]
    credentials: tuple[Credential, ...]
    warnings: tuple[str, ...]
    unaccepted_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenedLock:
    """A lock and its content, without values.

    Attributes:
        info: facts about the lock.
        personality: settings of the agent.
        memory: what the agent remembers. Everybody who can open the lock can write it.
    """

    info: LockInfo
    personality: Mapping[str, Any] = field(repr=False)
    memory: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ChangedLock:
    """A new version of a lock file.

    Attributes:
        data: the file's bytes.
        info: facts about the lock.
        stored: names of embedded values that are stored keys now.
    """

    data: bytes = field(repr=False)
    info: LockInfo
    stored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedMemory:
    """A lock file with a new memory.

    Attributes:
        data: the file's bytes.
        memory_counter: of the new memory.
        memory_hash: names the new memory.
    """

    data: bytes = field(repr=False)
    memory_counter: int
    memory_hash: str


@dataclass(frozen=True, slots=True)
class TrustedAuthor:
    """An author whom the operator has accepted."""

    fingerprint: str
    label: str
    trusted_at: datetime


@dataclass(frozen=True, slots=True)
class KnownLock:
    """A lock that the vault remembers.

    Attributes:
        lock_id: hexadecimal.
        generation: the highest that it has seen.
        memory_counter: the highest that it has seen.
        claimed_path: where a client said that it lies.
        accepted_names: of embedded values that the operator has accepted for it.
    """

    lock_id: str
    generation: int
    memory_counter: int
    claimed_path: str
    accepted_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trusted:
    """Whom a vault trusts, and which locks it remembers."""

    authors: tuple[TrustedAuthor, ...]
    locks: tuple[KnownLock, ...]
