"""Grants: standing permission for a subject to lease keys.

Values only. It does not decide who may add a grant.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backpackd.core import names
from backpackd.core.access import selectors
from backpackd.core.access.selectors import Selector
from backpackd.core.errors import InvalidRequestError, LimitError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

DEFAULT_MAX_TTL = 24 * 3600
LONGEST_TTL = 30 * 24 * 3600
MAX_PATTERNS = 64
MAX_REASON = 256
MAX_GRANTS = 1000
MAX_PATTERNS_OF_ALL = 4096
"""Durations in seconds, counts in pieces."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant.

    Attributes:
        id: 16 hexadecimal digits.
        patterns: key names and patterns of key names.
        selector: its subject.
        max_ttl: the longest life of a lease that rests on it, in seconds.
        expires_at_ms: Unix time in milliseconds; None: until taken back.
        uses_left: how many more leases; None: any number; 0: used up, kept while leases rest on it.
        created_at_ms: Unix time in milliseconds.
        reason: the operator's words.
        consent: True for a person's answer to a request: in memory only, never sealed.
    """

    id: str
    patterns: tuple[str, ...]
    selector: Selector
    max_ttl: int
    expires_at_ms: int | None
    uses_left: int | None
    created_at_ms: int
    reason: str
    consent: bool = False

    def covers(self, name: str) -> bool:
        """Return whether one of the patterns covers a key name."""
        return any(names.matches(pattern, name) for pattern in self.patterns)

    def usable(self, now_ms: int) -> bool:
        """Return whether it still allows new leases at this moment on the wall clock."""
        return self.uses_left != 0 and not self.expired(now_ms)

    def expired(self, now_ms: int) -> bool:
        """Return whether its time is over."""
        return self.expires_at_ms is not None and now_ms >= self.expires_at_ms

    def used(self) -> "Grant":
        """Return the grant with one use less."""
        if self.uses_left is None:
            return self
        assert self.uses_left > 0
        return replace(self, uses_left=self.uses_left - 1)

    def encode(self) -> dict[str, Any]:
        """Return the grant as plain data for canonical JSON.

        Raises:
            ValueError: its `tree:` selector was never tied to a process; nothing could read that.
        """
        return {
            "created": self.created_at_ms,
            "expires": self.expires_at_ms,
            "id": self.id,
            "max_ttl": self.max_ttl,
            "patterns": list(self.patterns),
            "reason": self.reason,
            "selector": self.selector.text,
            "tree": _encode_tree(self.selector),
            "uses": self.uses_left,
        }

    @classmethod
    def decode(cls, data: object) -> "Grant":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: another shape.
        """
        if type(data) is not dict:
            raise CanonicalError("not a grant")
        # The three members that may be null are judged here, the rest by their types.
        optional = {name: data.get(name) for name in ("expires", "tree", "uses")}
        found = canonical.members(
            {name: value for name, value in data.items() if name not in optional},
            created=int,
            id=str,
            max_ttl=int,
            patterns=list,
            reason=str,
            selector=str,
        )
        if not optional.keys() <= data.keys() or not all(
            type(optional[name]) in (int, type(None)) for name in ("expires", "uses")
        ):
            raise CanonicalError("not a grant")
        if not all(type(pattern) is str for pattern in found["patterns"]):
            raise CanonicalError("not a grant")
        if found["max_ttl"] < 1 or (optional["uses"] or 0) < 0:
            raise CanonicalError("not a grant")
        try:
            patterns = tuple(names.check_pattern(pattern) for pattern in found["patterns"])
            selector = selectors.parse(found["selector"])
        except InvalidRequestError as error:
            raise CanonicalError("not a grant") from error
        return cls(
            found["id"],
            patterns,
            _tied(selector, optional["tree"]),
            found["max_ttl"],
            optional["expires"],
            optional["uses"],
            found["created"],
            found["reason"],
        )


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns of a grant or a rule, checked; the count before anything is copied.

    Raises:
        InvalidRequestError: none, too many, or one that is no pattern.
    """
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise InvalidRequestError(f"a grant names 1 to {MAX_PATTERNS} keys or patterns")
    return tuple(names.check_pattern(pattern) for pattern in patterns)


def check_room(grants: Collection[Grant]) -> None:
    """Raise unless a vault may have all these grants.

    Every decision matches the requested names against all their patterns, so the patterns cost.

    Raises:
        LimitError: they are too many, or have too many patterns.
    """
    if len(grants) > MAX_GRANTS:
        raise LimitError(f"there are at most {MAX_GRANTS} grants: take some back first")
    if sum(len(grant.patterns) for grant in grants) > MAX_PATTERNS_OF_ALL:
        raise LimitError(
            f"all grants together name at most {MAX_PATTERNS_OF_ALL} keys and patterns: take some "
            "back first, or use patterns"
        )


def _encode_tree(selector: Selector) -> dict[str, Any] | None:
    if selector.kind != "tree":
        return None
    process = selector.process
    if process is None or selector.boot_id is None:
        raise ValueError("a tree: selector without its process")
    return {"boot": selector.boot_id, "start": process.start, "unique": process.unique}


def _tied(selector: Selector, tree: object) -> Selector:
    if selector.kind != "tree":
        if tree is not None:
            raise CanonicalError("a process for a selector that names none")
        return selector
    found = canonical.members(tree, boot=str, start=int, unique=int)
    process = ProcessId(int(selector.value), found["start"], found["unique"])
    return replace(selector, process=process, boot_id=found["boot"])
