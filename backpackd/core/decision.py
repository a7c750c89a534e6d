"""The decision: may this caller lease these keys? One pure function, on names alone.

It is made before any key is looked up, so a refusal tells nobody whether a key exists; and it is
the same for every caller, operators included. Rules that deny come first, then grants and consents,
then what the policy says about requests that neither covers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backpackd.core.facts import PeerFacts
from backpackd.core.grants import Grant
from backpackd.core.policy import Policy
from backpackd.core.requests import Answers
from backpackd.core.selectors import matches


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that a decision is made from, besides the caller and the names.

    Attributes:
        policy: in force, with the configuration file on top.
        grants: the standing grants.
        answers: what people's answers left behind.
        now_ms: the wall clock, Unix time in milliseconds, never earlier than the latest seen.
        boot_id: of the running system.
    """

    policy: Policy
    grants: Sequence[Grant]
    answers: Answers
    now_ms: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Allow:
    """The request is allowed.

    Attributes:
        grants: the grants and consents that it rests on, each once; none where the policy allows
            everything.
        max_ttl: the longest that a lease may live, in seconds.
    """

    grants: tuple[Grant, ...]
    max_ttl: int


@dataclass(frozen=True, slots=True)
class Deny:
    """The request is denied, whoever is asked."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Only a person can allow it.

    Attributes:
        names: the keys that neither a grant nor a consent covers.
    """

    names: tuple[str, ...]


Decision = Allow | Deny | Ask


def decide(facts: PeerFacts, names: Sequence[str], rules: Rules) -> Decision:
    """Decide on a request, all names or none.

    Args:
        facts: the caller, as attested just now.
        names: key names, checked; at least one.
        rules: what holds at this moment.

    Returns:
        `Deny` when a rule denies one of the names; `Allow` when every name is covered by a usable
        grant or consent to this caller; else what the policy says by default.
    """
    if any(rules.policy.denies(facts, name, rules.boot_id) for name in names):
        return Deny()
    chosen: dict[str, Grant] = {}
    open_names: list[str] = []
    usable = applicable(facts, rules)
    for name in names:
        covering = [grant for grant in usable if _counts(grant, facts, name, rules)]
        if covering:
            best = min(covering, key=_preference)
            chosen[best.id] = best
        else:
            open_names.append(name)
    if open_names and rules.policy.default == "deny":
        return Deny()
    if rules.policy.default == "allow":
        # What was revoked from this tree is asked about even where everything else is allowed.
        open_names = [n for n in open_names if _withdrawn(facts, n, rules)]
    if open_names:
        return Ask(tuple(open_names))
    longest = [grant.max_ttl for grant in chosen.values()]
    return Allow(tuple(chosen.values()), min([rules.policy.max_ttl, *longest]))


def applicable(facts: PeerFacts, rules: Rules) -> list[Grant]:
    """Return the usable grants and consents that are given to this caller, for whatever keys."""
    return [
        grant
        for grant in (*rules.grants, *rules.answers.consents())
        if grant.usable(rules.now_ms) and matches(grant.selector, facts, rules.boot_id)
    ]


def may_lease(facts: PeerFacts, name: str, usable: Sequence[Grant], rules: Rules) -> bool:
    """Tell whether a caller would get a key without anybody being asked, for listings.

    Args:
        facts: the caller.
        name: of the key.
        usable: what `applicable` returned for it.
        rules: the same.
    """
    if rules.policy.denies(facts, name, rules.boot_id):
        return False
    if any(_counts(grant, facts, name, rules) for grant in usable):
        return True
    return rules.policy.default == "allow" and not _withdrawn(facts, name, rules)


def _counts(grant: Grant, facts: PeerFacts, name: str, rules: Rules) -> bool:
    """Tell whether a grant counts for a key: a revocation sets aside what came before it.

    A standing grant stays set aside for as long as the tree lives, a consent only when it was
    given before the revocation.
    """
    if not grant.covers(name):
        return False
    since = grant.id if grant.consent else ""
    return not _withdrawn(facts, name, rules, since=since)


def _withdrawn(facts: PeerFacts, name: str, rules: Rules, *, since: str = "") -> bool:
    # From any tree that the caller is in: an agent is a root of its own, and still in another one.
    return any(rules.answers.withdrawn(each.id, name, since=since) for each in facts.tree)


def _preference(grant: Grant) -> tuple[bool, int, str]:
    # Counted uses are spent last; then the longest; then always the same one.
    return (grant.uses_left is not None, -grant.max_ttl, grant.id)
