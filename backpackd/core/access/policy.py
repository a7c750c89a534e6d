"""The policy: rules for every request, and how a configuration file may tighten them.

Only the operator changes the sealed policy. Every process of the user can write the configuration
file. `tightened` applies it on top, and nothing in it can widen anything.
"""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

from backpackd.core.access import selectors
from backpackd.core.access.grants import LONGEST_TTL, MAX_PATTERNS
from backpackd.core.access.selectors import Selector
from backpackd.core.errors import InvalidRequestError
from backpackd.core.names import check_pattern, matches
from backpackd.core.peer_facts import PeerFacts
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

DEFAULTS = ("allow", "ask", "deny")
"""From the widest to the tightest."""
LISTINGS = ("all", "granted")
"""From the widest to the tightest."""
MAX_RULES = 100


@dataclass(frozen=True, slots=True)
class DenyRule:
    """Denies keys, whatever grants there are.

    Attributes:
        patterns: key names and patterns.
        selector: the processes that it means; None: all.
    """

    patterns: tuple[str, ...]
    selector: Selector | None = None

    def denies(self, facts: PeerFacts, name: str, boot_id: str) -> bool:
        """Return whether this rule denies a key to a caller."""
        return self.covers(name) and (
            self.selector is None or selectors.concerns(self.selector, facts, boot_id)
        )

    def covers(self, name: str) -> bool:
        """Return whether this rule denies a key to the processes that it means."""
        return any(matches(pattern, name) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules for every request.

    Attributes:
        default: what happens to a request that no grant covers, one of `DEFAULTS`.
        listing: which names are listed to callers without operator authority, one of `LISTINGS`.
        deny: rules that beat every grant.
        max_ttl: the longest that any lease may live, in seconds.
    """

    default: str = "ask"
    listing: str = "granted"
    deny: tuple[DenyRule, ...] = ()
    max_ttl: int = LONGEST_TTL

    def denies(self, facts: PeerFacts, name: str, boot_id: str) -> bool:
        """Return whether a rule denies a key to a caller."""
        return any(rule.denies(facts, name, boot_id) for rule in self.deny)

    def meant(self, facts: PeerFacts, boot_id: str) -> frozenset[Selector]:
        """Return the selectors of rules that mean a caller, for any keys."""
        found = {rule.selector for rule in self.deny if rule.selector is not None}
        return frozenset(one for one in found if selectors.concerns(one, facts, boot_id))

    def tightened(self, by: "Policy") -> "Policy":
        """Return the tighter of two policies in every respect."""
        return Policy(
            max(self.default, by.default, key=DEFAULTS.index),
            max(self.listing, by.listing, key=LISTINGS.index),
            (*self.deny, *(rule for rule in by.deny if rule not in self.deny)),
            min(self.max_ttl, by.max_ttl),
        )

    def encode(self) -> dict[str, Any]:
        """Return the policy as plain data for canonical JSON."""
        return {
            "default": self.default,
            "deny": [
                {
                    "patterns": list(rule.patterns),
                    "selector": rule.selector.text if rule.selector else "",
                }
                for rule in self.deny
            ],
            "listing": self.listing,
            "max_ttl": self.max_ttl,
        }

    @classmethod
    def decode(cls, data: object) -> "Policy":
        """Read what `encode` wrote.

        Raises:
            CanonicalError: another shape, or out of bounds.
        """
        found = canonical.members(data, default=str, deny=list, listing=str, max_ttl=int)
        try:
            rules = []
            for rule in found["deny"]:
                known = canonical.members(rule, patterns=list, selector=str)
                rules.append(make_rule(known["patterns"], known["selector"]))
            return make(found["default"], found["listing"], rules, found["max_ttl"])
        except (InvalidRequestError, TypeError) as error:
            raise CanonicalError("not a policy") from error


def make(default: str, listing: str, deny: list[DenyRule], max_ttl: int) -> Policy:
    """Make a policy from parts that came from outside.

    Raises:
        InvalidRequestError: a part has a wrong form (`invalid-policy`).
    """
    if default not in DEFAULTS or listing not in LISTINGS:
        raise _invalid("the default is ask, allow or deny, and the listing is granted or all")
    check_count(deny)
    if not 1 <= max_ttl <= LONGEST_TTL:
        raise _invalid(f"the longest lease is 1 second to {LONGEST_TTL // 86400} days")
    return Policy(default, listing, tuple(deny), max_ttl)


def check_count(rules: Sized) -> None:
    """Raise if there are too many rules.

    Raises:
        InvalidRequestError: there are (`invalid-policy`).
    """
    if len(rules) > MAX_RULES:
        raise _invalid(f"a policy has at most {MAX_RULES} rules")


def make_rule(patterns: Sequence[str], selector: str) -> DenyRule:
    """Make a rule that denies keys from parts that came from outside.

    Args:
        patterns: 1 to 64 key names or patterns.
        selector: the processes that it means; empty: all.

    Raises:
        InvalidRequestError: a part has a wrong form.
    """
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise _invalid(f"a rule names 1 to {MAX_PATTERNS} keys or patterns")
    parsed = selectors.parse(selector) if selector else None
    if parsed is not None and parsed.kind == "tree":
        raise _invalid("a rule holds for longer than a process lives: use another selector")
    return DenyRule(tuple(check_pattern(pattern) for pattern in patterns), parsed)


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, reason="invalid-policy")
