"""Finds out whether a lock went on, stepped back or forked since it was last seen.

A signature says who wrote a file, but not when. Anybody who can write the repository can put an
older file back, and two branches can each hold a next version. So a vault keeps a mark of the
newest version of each lock that it trusts. Header and memory count separately: the author signs the
header, and any recipient writes the memory.

A mark cannot find a fork more than one generation back, or anything before the first look.
"""

import re
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any

from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

MOST = 2**53 - 1
"""The highest generation or counter: the largest integer that every JSON reader keeps exact."""
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mark:
    """The remembered facts about one version of a lock.

    Attributes:
        generation: of the header, from 1.
        digest: of the header, 64 hexadecimal digits.
        previous: digest of the header that this one was made from; zeros for the first.
        memory_counter: of the memory, from 1.
        memory_digest: of the memory.
    """

    generation: int
    digest: str
    previous: str
    memory_counter: int
    memory_digest: str

    def encode(self) -> dict[str, Any]:
        """Return the mark as plain data for canonical JSON."""
        return {
            "digest": self.digest,
            "generation": self.generation,
            "memory_counter": self.memory_counter,
            "memory_digest": self.memory_digest,
            "previous": self.previous,
        }

    @classmethod
    def decode(cls, data: Any) -> "Mark":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: anything else.
        """
        found = canonical.members(
            data,
            digest=str,
            generation=int,
            memory_counter=int,
            memory_digest=str,
            previous=str,
        )
        if not all(1 <= found[name] <= MOST for name in ("generation", "memory_counter")):
            raise CanonicalError("a count out of bounds")
        if not all(_DIGEST.fullmatch(found[name]) for name in _DIGESTS):
            raise CanonicalError("a digest of another form")
        return cls(**found)


_DIGESTS = ("digest", "memory_digest", "previous")


@unique
class Finding(Enum):
    """How a found version relates to the remembered one."""

    NEW = "new"
    SAME = "same"
    NEWER = "newer"
    STEP_BACK = "step-back"
    FORK = "fork"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings on both parts of a lock.

    Attributes:
        header: on what the author signed: credentials, personality, recipients.
        memory: on the memory.
    """

    header: Finding
    memory: Finding

    @property
    def clean(self) -> bool:
        """Whether neither part stepped back or forked, so that nobody must be asked."""
        return not {self.header, self.memory} & {Finding.STEP_BACK, Finding.FORK}


def judge(remembered: Mark | None, found: Mark) -> Verdict:
    """Compare a found lock with its mark.

    Args:
        remembered: the mark kept for this lock id; None: never seen.
        found: the mark of the file, whose signature was checked and whose author is trusted.
    """
    if remembered is None:
        return Verdict(Finding.NEW, Finding.NEW)
    header = _compare((remembered.generation, remembered.digest), (found.generation, found.digest))
    follows = found.generation == remembered.generation + 1
    if follows and found.previous != remembered.digest:
        # The next generation, made from another version than the one that was seen here.
        header = Finding.FORK
    memory = _compare(
        (remembered.memory_counter, remembered.memory_digest),
        (found.memory_counter, found.memory_digest),
    )
    return Verdict(header, memory)


def remember(remembered: Mark | None, found: Mark) -> Mark:
    """Return the mark after a clean verdict: the newest of each part.

    Call it only after the lock has opened. Before that, nobody vouches for the memory's counter: a
    bystander could raise it in a file that does not open, and every true memory would then count as
    a step back.

    Args:
        remembered: the mark kept so far; None: never seen.
        found: the mark of a lock that has opened, by an author who is trusted.
    """
    if remembered is None:
        return found
    header = max(remembered, found, key=lambda mark: mark.generation)
    memory = max(remembered, found, key=lambda mark: mark.memory_counter)
    return Mark(
        header.generation,
        header.digest,
        header.previous,
        memory.memory_counter,
        memory.memory_digest,
    )


def _compare(remembered: tuple[int, str], found: tuple[int, str]) -> Finding:
    if found[0] != remembered[0]:
        return Finding.NEWER if found[0] > remembered[0] else Finding.STEP_BACK
    return Finding.SAME if found[1] == remembered[1] else Finding.FORK
