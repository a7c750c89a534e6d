"""A vault's memory of agent locks: trusted authors, and the newest version of each lock.

A lock's header is signed, so nobody but a trusted author can make a new one; but an old one, or
one of another git branch, is as well signed as the newest. Only what is remembered here, outside
of the file, tells them apart (see `core.agentlock.history`). Part of the authority record.
"""

import re
from dataclasses import dataclass
from typing import Any

from backpackd.core.agentlock.history import Mark
from backpackd.core.errors import InvalidRequestError
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

MAX_AUTHORS = 256
MAX_LOCKS = 1000
MAX_LABEL = 64
"""Characters of what the operator calls an author."""
MAX_PATH = 256
"""Characters of where a client says that a lock lies."""
MAX_NAMES = 1000
"""Names that are accepted for locks, of all locks together."""

_LOCK_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SPOKEN_DIGITS = 32
_GROUP = 4


@dataclass(frozen=True, slots=True)
class TrustedAuthor:
    """An author of agent locks whom the operator has accepted.

    Attributes:
        fingerprint: of the author's identity, 64 hexadecimal digits.
        label: the operator's word for it.
        trusted_at_ms: Unix time in milliseconds.
    """

    fingerprint: str
    label: str
    trusted_at_ms: int

    @property
    def spoken(self) -> str:
        """The fingerprint as people compare it, the same as `PublicIdentity.spoken`."""
        digits = self.fingerprint[:_SPOKEN_DIGITS]
        return "-".join(digits[at : at + _GROUP] for at in range(0, _SPOKEN_DIGITS, _GROUP))

    def encode(self) -> dict[str, Any]:
        """Return the author as plain data for canonical JSON."""
        return {
            "fingerprint": self.fingerprint,
            "label": self.label,
            "trusted": self.trusted_at_ms,
        }

    @classmethod
    def decode(cls, data: object) -> "TrustedAuthor":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: another shape.
        """
        found = canonical.members(data, fingerprint=str, label=str, trusted=int)
        if not _FINGERPRINT.fullmatch(found["fingerprint"]):
            raise CanonicalError("not the fingerprint of an author")
        return cls(found["fingerprint"], found["label"], found["trusted"])


@dataclass(frozen=True, slots=True)
class KnownLock:
    """A lock that this vault has opened.

    Attributes:
        mark: the newest of each of its parts.
        path: where a client said that the file lies: a claim, for people.
        names: of embedded values that the operator has accepted for this lock, sorted. Names only:
            another value under an accepted name is not asked about.
    """

    mark: Mark
    path: str
    names: tuple[str, ...] = ()

    def encode(self) -> dict[str, Any]:
        """Return the lock as plain data for canonical JSON."""
        plain: dict[str, Any] = {"mark": self.mark.encode(), "path": self.path}
        return {**plain, "names": list(self.names)} if self.names else plain

    @classmethod
    def decode(cls, data: object) -> "KnownLock":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: another shape.
        """
        # Records from before there were names have none, and so have locks without accepted names.
        with_names = type(data) is dict and "names" in data
        types: dict[str, type] = {"names": list} if with_names else {}
        found = canonical.members(data, mark=dict, path=str, **types)
        names = found.get("names", ())
        if with_names and (not names or not _names_in_order(names)):
            raise CanonicalError("not accepted names")
        return cls(Mark.decode(found["mark"]), found["path"], tuple(names))


def _names_in_order(names: list[Any]) -> bool:
    return all(type(name) is str for name in names) and names == sorted(set(names))


def decode_locks(data: dict[str, Any]) -> dict[str, KnownLock]:
    """Read the known locks, by lock id.

    Raises:
        CanonicalError: another shape.
    """
    if not all(_LOCK_ID.fullmatch(lock_id) for lock_id in data):
        raise CanonicalError("not the id of a lock")
    return {lock_id: KnownLock.decode(each) for lock_id, each in data.items()}


def check_label(label: str) -> str:
    """Return what an author is to be called, if that can be shown on one line.

    Raises:
        InvalidRequestError: it is too long, or has characters that a terminal acts on.
    """
    if len(label) > MAX_LABEL or not label.isprintable():
        raise InvalidRequestError(
            f"a label is at most {MAX_LABEL} printable characters long", reason="invalid-label"
        )
    return label


def check_path(path: str) -> str:
    """Return a claimed path, if it is not too long.

    Raises:
        InvalidRequestError: it is.
    """
    if len(path) > MAX_PATH:
        raise InvalidRequestError(f"a claimed path is at most {MAX_PATH} characters long")
    return path
