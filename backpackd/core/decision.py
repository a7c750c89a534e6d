"""The decision: may this caller lease these keys? One pure function, on names alone.

It is made before any key is looked up, so a refusal tells nobody whether a key exists; and it is
the same for every caller, operators included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backpackd.core.authority import Authority
from backpackd.core.facts import PeerFacts
from backpackd.core.grants import LONGEST_TTL, Grant
from backpackd.core.selectors import matches


@dataclass(frozen=True, slots=True)
class Allow:
    """The request is allowed.

    Attributes:
        grants: the grants that it rests on, each once; none where the policy allows everything.
        max_ttl: the longest that a lease may live, in seconds.
    """

    grants: tuple[Grant, ...]
    max_ttl: int


@dataclass(frozen=True, slots=True)
class Deny:
    """The request is denied, whoever is asked."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Only a person can allow it."""


Decision = Allow | Deny | Ask


def decide(
    facts: PeerFacts, names: Sequence[str], authority: Authority, now_ms: int, boot_id: str
) -> Decision:
    """Decide on a request, all names or none.

    Args:
        facts: the caller, as attested just now.
        names: key names, checked; at least one.
        authority: the vault's authority record.
        now_ms: the wall clock, Unix time in milliseconds.
        boot_id: of the running system.

    Returns:
        `Allow` when every name is covered by a usable grant to this caller; else what the policy
        says about requests that no grant covers.
    """
    usable = applicable(facts, authority, now_ms, boot_id)
    chosen: dict[str, Grant] = {}
    for name in names:
        covering = [grant for grant in usable if grant.covers(name)]
        if not covering:
            return _by_default(authority)
        best = min(covering, key=_preference)
        chosen[best.id] = best
    return Allow(tuple(chosen.values()), min(grant.max_ttl for grant in chosen.values()))


def applicable(facts: PeerFacts, authority: Authority, now_ms: int, boot_id: str) -> list[Grant]:
    """Return the usable grants that are given to this caller, whatever keys they name."""
    now_ms = max(now_ms, authority.latest_ms)
    return [
        grant
        for grant in authority.grants.values()
        if grant.usable(now_ms) and matches(grant.selector, facts, boot_id)
    ]


def _preference(grant: Grant) -> tuple[bool, int, str]:
    # Counted uses are spent last; then the longest; then always the same one.
    return (grant.uses_left is not None, -grant.max_ttl, grant.id)


def _by_default(authority: Authority) -> Decision:
    match authority.default:
        case "allow":
            return Allow((), LONGEST_TTL)
        case "ask":
            return Ask()
        case _:
            return Deny()
