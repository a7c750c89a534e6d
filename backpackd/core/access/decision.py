"""The decision: may this caller lease these keys? One pure function, on names alone.

It is made before any key is looked up, so a refusal does not reveal whether a key exists. It is the
same for every caller, including operators. Rules that deny come first, then grants and consents,
then the policy's default for requests that neither covers.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from backpackd.core.access.consents import EVERY_KEY, Consents, Suspended
from backpackd.core.access.grants import Grant
from backpackd.core.access.leases import Lease
from backpackd.core.access.policy import Policy
from backpackd.core.access.selectors import matches
from backpackd.core.names import is_exact
from backpackd.core.peer_facts import PeerFacts, ProcessId


@dataclass(frozen=True, slots=True)
class Rules:
    """The input of a decision, besides the caller and the names.

    Attributes:
        policy: in force, with the configuration file on top.
        grants: the standing grants.
        consents: consents, refusals and revocations.
        now_ms: the wall clock, Unix time in milliseconds, never earlier than the latest seen.
        boot_id: of the running system.
    """

    policy: Policy
    grants: Sequence[Grant]
    consents: Consents
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
    """The request is denied, and nobody is asked.

    Attributes:
        by_rule: a rule denies it, and no grant helps; False: no grant covers it, and the policy's
            default denies it.
    """

    by_rule: bool = True


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
        rules: the rules at this moment.

    Returns:
        `Deny` when a rule denies one of the names; `Allow` when every name is covered by a usable
        grant or consent to this caller; otherwise the policy's default.
    """
    if any(rules.policy.denies(facts, name, rules.boot_id) for name in names):
        return Deny()
    chosen: dict[str, Grant] = {}
    open_names: list[str] = []
    usable = applicable(facts, rules)
    suspended = rules.consents.suspended(facts)
    for name in names:
        covering = [grant for grant in usable if _counts(grant, facts, name, rules, suspended)]
        if covering:
            best = min(covering, key=_preference)
            chosen[best.id] = best
        else:
            open_names.append(name)
    if open_names and rules.policy.default == "deny":
        return Deny(by_rule=False)
    if rules.policy.default == "allow":
        # Keys that were revoked from this tree need a question even if everything else is allowed.
        open_names = [n for n in open_names if _asked_about(facts, n, rules, suspended)]
    if open_names:
        return Ask(tuple(open_names))
    longest = [grant.max_ttl for grant in chosen.values()]
    return Allow(tuple(chosen.values()), min([rules.policy.max_ttl, *longest]))


def applicable(facts: PeerFacts, rules: Rules) -> list[Grant]:
    """Return the usable grants and consents to this caller, for any keys."""
    return [
        grant
        for grant in (*rules.grants, *rules.consents.in_force())
        if grant.usable(rules.now_ms) and matches(grant.selector, facts, rules.boot_id)
    ]


def needs_digests(names: Sequence[str] | None, rules: Rules) -> bool:
    """Return whether a decision may depend on digests of what the caller runs.

    Args:
        names: the keys asked for; None: any.
        rules: the rules at this moment.
    """

    def concerned(covers: Callable[[str], bool]) -> bool:
        return names is None or any(map(covers, names))

    return any(
        grant.selector.kind == "sha256" and grant.usable(rules.now_ms) and concerned(grant.covers)
        for grant in rules.grants
    ) or any(
        rule.selector is not None and rule.selector.kind == "sha256" and concerned(rule.covers)
        for rule in rules.policy.deny
    )


def wanted_names(usable: Collection[Grant], rules: Rules) -> Collection[str] | None:
    """Return the only names that a listing for a caller can hold; None: any name.

    Args:
        usable: from `applicable` for the caller.
        rules: the same.
    """
    if rules.policy.default == "allow":
        return None
    patterns = {pattern for grant in usable for pattern in grant.patterns}
    return patterns if all(map(is_exact, patterns)) else None


def newly_denied(names: Iterable[str], before: Policy, policy: Policy) -> set[str]:
    """Return the keys that a new rule denies to some process.

    Args:
        names: keys.
        before: the policy that was in force.
        policy: the policy that is in force now.
    """
    new = [rule for rule in policy.deny if rule not in before.deny]
    return {name for name in names if any(rule.covers(name) for rule in new)}


def resting_on_default(leases: Iterable[Lease], rules: Rules) -> list[Lease]:
    """Return the leases that hold a key which none of their grants and consents covers."""
    known = {grant.id: grant for grant in (*rules.grants, *rules.consents.in_force())}

    def covered(lease: Lease, name: str) -> bool:
        return any(known[one].covers(name) for one in lease.grant_ids if one in known)

    return [lease for lease in leases if not all(covered(lease, name) for name in lease.names)]


def may_lease(
    facts: PeerFacts,
    name: str,
    usable: Sequence[Grant],
    rules: Rules,
    suspended: Suspended | None = None,
) -> bool:
    """Return whether a caller would get a key without a question, for listings.

    Args:
        facts: the caller.
        name: of the key.
        usable: from `applicable` for the caller.
        rules: the same.
        suspended: from `Consents.suspended` for the caller; None: look it up.
    """
    if rules.policy.denies(facts, name, rules.boot_id):
        return False
    if suspended is None:
        suspended = rules.consents.suspended(facts)
    if any(_counts(grant, facts, name, rules, suspended) for grant in usable):
        return True
    return rules.policy.default == "allow" and not _asked_about(facts, name, rules, suspended)


def withdrawn(facts: PeerFacts, name: str, rules: Rules, *, since: str = "") -> bool:
    """Return whether a key was revoked from a process above the caller, or from the caller itself.

    The whole chain counts, not only the tree: a new terminal or a setuid program in between moves
    the root of the caller's tree inwards, away from the revoked root.

    Args:
        facts: the caller.
        name: of the key.
        rules: the rules at this moment.
        since: the id of a consent: only a revocation after that one counts.
    """
    if not rules.consents.any_withdrawn:
        return False
    return any(rules.consents.withdrawn(each.id, name, since=since) for each in facts.chain)


def _counts(grant: Grant, facts: PeerFacts, name: str, rules: Rules, suspended: Suspended) -> bool:
    """Return whether a grant counts for a key: a revocation sets aside earlier grants.

    A standing grant stays set aside as long as the tree lives, a consent only if it was given
    before the revocation. A grant to a `tree:` names this caller or a process above it. So it
    counts even if another tree may have left the caller behind. It does not count if that tree had
    the grant, too: a root that gave its own parent a child is below the same grant.
    """
    if not grant.covers(name):
        return False
    since = grant.id if grant.consent else ""
    if grant.selector.kind != "tree":
        if _suspended(name, rules, suspended):
            return False
    elif any(
        rules.consents.withdrawn(root, name, since=since)
        for root, parent in suspended.beside
        if _reaches(grant, facts, parent)
    ):
        return False
    return not withdrawn(facts, name, rules, since=since)


def _reaches(grant: Grant, facts: PeerFacts, process: ProcessId) -> bool:
    """Return whether a grant to a tree names a process of a caller's chain or one above it."""
    from_there = [each.id for each in facts.chain]
    return grant.selector.process in from_there[from_there.index(process) :]


def _asked_about(facts: PeerFacts, name: str, rules: Rules, suspended: Suspended) -> bool:
    return withdrawn(facts, name, rules) or _suspended(name, rules, suspended)


def _suspended(name: str, rules: Rules, suspended: Suspended) -> bool:
    """Return whether a caller that a tree may have left behind is asked about a key."""
    if name in suspended.names or EVERY_KEY in suspended.names:
        return True
    return any(
        rule.selector in suspended.selectors and rule.covers(name) for rule in rules.policy.deny
    )


def _preference(grant: Grant) -> tuple[bool, int, str]:
    # Counted uses are spent last; then the longest; then always the same one.
    return (grant.uses_left is not None, -grant.max_ttl, grant.id)
