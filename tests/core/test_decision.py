"""May this caller lease these keys: against a slow model, and rule by rule."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpackd.core.access.consents import Consents
from backpackd.core.access.decision import (
    Allow,
    Ask,
    Decision,
    Deny,
    Rules,
    applicable,
    decide,
    may_lease,
)
from backpackd.core.access.grants import LONGEST_TTL, Grant
from backpackd.core.access.policy import DEFAULTS, LISTINGS, DenyRule, Policy
from backpackd.core.access.selectors import parse
from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId

BOOT = "boot-1"
USER = 1000
AGENT = ProcessFacts(ProcessId(20, 200), parent=1, session=20, terminal=0, uid=USER)
FACTS = PeerFacts(USER, USER, (AGENT,))
OWN_TREE = replace(parse("tree:20"), process=AGENT.id, boot_id=BOOT)
OTHER_TREE = replace(parse("tree:21"), process=ProcessId(21, 210), boot_id=BOOT)
OWN_UID, OTHER_UID = parse("uid:1000"), parse("uid:1001")


def grant(
    grant_id: str = "a" * 16,
    patterns: tuple[str, ...] = ("*",),
    *,
    max_ttl: int = 60,
    expires_at_ms: int | None = None,
    uses: int | None = None,
) -> Grant:
    return Grant(grant_id, patterns, OWN_UID, max_ttl, expires_at_ms, uses, 1, "")


def ruled(
    *grants: Grant,
    now_ms: int = 1000,
    default: str = "ask",
    deny: tuple[DenyRule, ...] = (),
    max_ttl: int = LONGEST_TTL,
    consents: Consents | None = None,
) -> Rules:
    policy = Policy(default=default, deny=deny, max_ttl=max_ttl)
    return Rules(policy, grants, consents or Consents(), now_ms, BOOT)


def decided(*names: str, given: Rules) -> Decision:
    return decide(FACTS, names, given)


def consent(grant_id: str = "c" * 16, patterns: tuple[str, ...] = ("A",)) -> Grant:
    return replace(grant(grant_id, patterns), selector=OWN_TREE, consent=True)


# A slow model of the decision, written from the description and not from the code.

MEANS_CALLER = {OWN_TREE: True, OTHER_TREE: False, OWN_UID: True, OTHER_UID: False}
COVERED_BY = {"*": {"A", "B", "AB"}, "A": {"A"}, "A*": {"A", "AB"}, "*B": {"B", "AB"}}
PATTERNS = st.lists(st.sampled_from(sorted(COVERED_BY)), min_size=1, max_size=2).map(tuple)
GRANTS = st.lists(
    st.builds(
        Grant,
        id=st.sampled_from([f"{number:016x}" for number in range(6)]),
        patterns=PATTERNS,
        selector=st.sampled_from(list(MEANS_CALLER)),
        max_ttl=st.integers(1, 4),
        expires_at_ms=st.none() | st.integers(0, 5),
        uses_left=st.none() | st.integers(0, 2),
        created_at_ms=st.just(0),
        reason=st.just(""),
    ),
    unique_by=lambda one: one.id,
    max_size=6,
)
NAMES = st.lists(st.sampled_from(["A", "B", "AB"]), min_size=1, max_size=3, unique=True)
MOMENTS = st.integers(0, 6)


def allows(given: Grant, name: str, moment: int) -> bool:
    if not MEANS_CALLER[given.selector]:
        return False
    if given.uses_left is not None and given.uses_left < 1:
        return False
    if given.expires_at_ms is not None and moment >= given.expires_at_ms:
        return False
    return any(name in COVERED_BY[pattern] for pattern in given.patterns)


DENYING = st.lists(
    st.sampled_from(
        [
            DenyRule(("A",)),
            DenyRule(("*B",), OWN_UID),
            DenyRule(("*",), OTHER_UID),
        ]
    ),
    max_size=2,
).map(tuple)
POLICIES = st.builds(
    Policy,
    st.sampled_from(DEFAULTS),
    st.sampled_from(LISTINGS),
    DENYING,
    st.integers(1, 5),
)
# What people answered about the caller's tree, one after the other.
ANSWERS = st.lists(st.tuples(st.sampled_from(["consent", "withdraw"]), PATTERNS), max_size=4)


def answered(told: Sequence[tuple[str, tuple[str, ...]]]) -> Consents:
    """Return what the answers left, with a consent for each that is one."""
    consents = Consents()
    for number, (kind, patterns) in enumerate(told):
        if kind == "consent":
            consents.consent(consent(f"consent-{number}", patterns), AGENT.id)
        else:
            consents.withdraw(AGENT.id, matched(patterns), ())
    return consents


def matched(patterns: Sequence[str]) -> set[str]:
    return set().union(*(COVERED_BY[pattern] for pattern in patterns))


def told_apart(told: Sequence[tuple[str, tuple[str, ...]]], name: str) -> tuple[bool, set[str]]:
    """Say whether a name was ever withdrawn, and which consents to it came after that."""
    withdrawn = False
    consents: set[str] = set()
    for number, (kind, patterns) in enumerate(told):
        if kind == "withdraw":
            if name in matched(patterns):
                withdrawn, consents = True, set()
            # A consent to several keys ends as a whole.
            consents -= {
                f"consent-{n}"
                for n, (was, those) in enumerate(told[:number])
                if was == "consent" and matched(those) & matched(patterns)
            }
        elif name in matched(patterns):
            consents.add(f"consent-{number}")
    return withdrawn, consents


def model(
    names: Sequence[str], given: Rules, told: Sequence[tuple[str, tuple[str, ...]]]
) -> Decision:
    for rule in given.policy.deny:
        if rule.selector != OTHER_UID and matched(rule.patterns) & set(names):
            return Deny()
    rested_on: list[Grant] = []
    asked: list[str] = []
    for name in names:
        withdrawn, consents = told_apart(told, name)
        able = [one for one in given.grants if not withdrawn and allows(one, name, given.now_ms)]
        able += [one for one in given.consents.in_force() if one.id in consents]
        able.sort(key=lambda one: one.id)
        able.sort(key=lambda one: one.max_ttl, reverse=True)
        able.sort(key=lambda one: one.uses_left is not None)
        if able:
            if able[0] not in rested_on:
                rested_on.append(able[0])
        elif given.policy.default == "deny":
            return Deny(by_rule=False)
        elif given.policy.default == "ask" or withdrawn:
            asked.append(name)
    if asked:
        return Ask(tuple(asked))
    longest = min([given.policy.max_ttl, *(one.max_ttl for one in rested_on)])
    return Allow(tuple(rested_on), longest)


@given(
    names=NAMES,
    grants=GRANTS,
    default=st.sampled_from(DEFAULTS),
    now_ms=MOMENTS,
    deny=DENYING,
    max_ttl=st.integers(1, 5),
    told=ANSWERS,
)
@settings(max_examples=600)
def test_the_decision_agrees_with_the_model(
    *,
    names: list[str],
    grants: list[Grant],
    default: str,
    now_ms: int,
    deny: tuple[DenyRule, ...],
    max_ttl: int,
    told: list[tuple[str, tuple[str, ...]]],
) -> None:
    given = ruled(
        *grants,
        default=default,
        now_ms=now_ms,
        deny=deny,
        max_ttl=max_ttl,
        consents=answered(told),
    )
    assert decided(*names, given=given) == model(names, given, told)


@given(NAMES, GRANTS, MOMENTS)
def test_no_allowance_rests_on_a_grant_that_is_over_or_somebody_elses(
    names: list[str], grants: list[Grant], now_ms: int
) -> None:
    decision = decided(*names, given=ruled(*grants, now_ms=now_ms, default="deny"))
    for used in decision.grants if isinstance(decision, Allow) else ():
        assert used.uses_left != 0
        assert used.expires_at_ms is None or now_ms < used.expires_at_ms
        assert MEANS_CALLER[used.selector]


@given(
    names=NAMES,
    grants=GRANTS,
    now_ms=MOMENTS,
    deny=DENYING,
    told=ANSWERS,
    default=st.sampled_from(DEFAULTS),
)
def test_all_names_are_allowed_exactly_when_each_is_by_itself(
    *,
    names: list[str],
    grants: list[Grant],
    now_ms: int,
    deny: tuple[DenyRule, ...],
    told: list[tuple[str, tuple[str, ...]]],
    default: str,
) -> None:
    given = ruled(*grants, now_ms=now_ms, deny=deny, consents=answered(told), default=default)
    each = [isinstance(decided(name, given=given), Allow) for name in names]
    together = isinstance(decided(*names, given=given), Allow)
    assert together == all(each)


@given(
    names=NAMES,
    grants=GRANTS,
    now_ms=MOMENTS,
    deny=DENYING,
    told=ANSWERS,
    default=st.sampled_from(DEFAULTS),
)
def test_what_is_listed_is_what_would_be_allowed(
    *,
    names: list[str],
    grants: list[Grant],
    now_ms: int,
    deny: tuple[DenyRule, ...],
    told: list[tuple[str, tuple[str, ...]]],
    default: str,
) -> None:
    given = ruled(*grants, now_ms=now_ms, deny=deny, consents=answered(told), default=default)
    usable = applicable(FACTS, given)
    for name in names:
        allowed = isinstance(decided(name, given=given), Allow)
        assert may_lease(FACTS, name, usable, given) == allowed


@given(NAMES, GRANTS, GRANTS, MOMENTS)
def test_taking_grants_away_never_allows_more(
    names: list[str], kept: list[Grant], others: list[Grant], now_ms: int
) -> None:
    fewer = decided(*names, given=ruled(*kept, now_ms=now_ms))
    known = {one.id for one in kept}
    more = [*kept, *(one for one in others if one.id not in known)]
    if isinstance(fewer, Allow):
        assert isinstance(decided(*names, given=ruled(*more, now_ms=now_ms)), Allow)


@given(NAMES, GRANTS, ANSWERS, POLICIES, POLICIES)
@settings(max_examples=600)
def test_a_configuration_file_never_lets_anybody_have_more(
    names: list[str],
    grants: list[Grant],
    told: list[tuple[str, tuple[str, ...]]],
    sealed: Policy,
    laid_on_top: Policy,
) -> None:
    alone = replace(ruled(*grants, now_ms=1, consents=answered(told)), policy=sealed)
    before = decided(*names, given=alone)
    tightened = replace(alone, policy=sealed.tightened(laid_on_top))
    after = decided(*names, given=tightened)
    rank = {Deny: 0, Ask: 1, Allow: 2}
    assert rank[type(after)] <= rank[type(before)]
    if isinstance(after, Allow) and isinstance(before, Allow):
        assert after.max_ttl <= before.max_ttl
    if isinstance(after, Ask) and isinstance(before, Ask):
        assert set(before.names) <= set(after.names)


def test_a_rule_that_denies_beats_grants_and_consents() -> None:
    consents = Consents()
    consents.consent(consent(), AGENT.id)
    given = ruled(grant(), deny=(DenyRule(("A",)),), consents=consents, default="allow")
    assert decided("A", given=given) == Deny()


def test_a_rule_denies_only_those_that_it_means() -> None:
    given = ruled(grant(), deny=(DenyRule(("A",), OTHER_UID), DenyRule(("B",))))
    assert isinstance(decided("A", given=given), Allow)


def test_a_revocation_sets_standing_grants_aside() -> None:
    consents = Consents()
    consents.withdraw(AGENT.id, ["A"], ())
    assert decided("A", "B", given=ruled(grant(), consents=consents)) == Ask(("A",))


def test_a_consent_after_a_revocation_counts() -> None:
    consents = Consents()
    consents.withdraw(AGENT.id, ["A"], ())
    consents.consent(consent(), AGENT.id)
    decision = decided("A", given=ruled(grant(), consents=consents))
    assert isinstance(decision, Allow)
    assert [used.id for used in decision.grants] == ["c" * 16]


def test_a_consent_to_another_root_of_the_chain_is_set_aside_like_any_other() -> None:
    # The person picked the caller itself, or a shell above: leases are held by the tree's root.
    shell = ProcessFacts(ProcessId(10, 100), parent=1, session=10, terminal=5, uid=USER)
    facts = PeerFacts(USER, USER, (replace(AGENT, terminal=5, session=10), shell))
    selector = replace(parse("tree:10"), process=shell.id, boot_id=BOOT)
    consents = Consents()
    consents.consent(replace(consent(), selector=selector), AGENT.id)
    assert facts.root.id == AGENT.id
    assert isinstance(decide(facts, ["A"], ruled(consents=consents)), Allow)
    consents.withdraw(facts.root.id, ["A"], ())
    assert decide(facts, ["A"], ruled(consents=consents)) == Ask(("A",))


def test_what_was_revoked_is_asked_about_where_everything_else_is_allowed() -> None:
    consents = Consents()
    consents.withdraw(AGENT.id, ["A"], ())
    given = ruled(default="allow", consents=consents)
    assert decided("A", "B", given=given) == Ask(("A",))
    assert decided("B", given=given) == Allow((), LONGEST_TTL)


def test_a_revocation_from_another_tree_changes_nothing_here() -> None:
    consents = Consents()
    consents.withdraw(ProcessId(21, 210), ["A"], ())
    assert isinstance(decided("A", given=ruled(grant(), consents=consents)), Allow)


def test_the_policy_bounds_every_lease() -> None:
    assert decided("A", given=ruled(grant(max_ttl=600), max_ttl=5)) == Allow(
        (grant(max_ttl=600),), 5
    )


@pytest.mark.parametrize(
    ("default", "expected"),
    [("ask", Ask(("A",))), ("deny", Deny(by_rule=False)), ("allow", Allow((), LONGEST_TTL))],
)
def test_what_no_grant_covers_is_up_to_the_policy(default: str, expected: Decision) -> None:
    assert decided("A", given=ruled(default=default)) == expected


def test_one_name_that_is_not_covered_refuses_them_all() -> None:
    given = ruled(grant(patterns=("A", "B")), default="deny")
    assert decided("A", "B", "C", given=given) == Deny(by_rule=False)


def test_a_name_that_nobody_stored_is_decided_like_any_other() -> None:
    # The decision has no store to ask, so names that exist and names that do not are one to it.
    given = ruled(grant(patterns=("KNOWN_*",)))
    assert decided("KNOWN_STORED", given=given) == decided("KNOWN_BUT_NOT_STORED", given=given)
    assert decided("OTHER_STORED", given=given) == Ask(("OTHER_STORED",))
    assert decided("OTHER_NOT_STORED", given=given) == Ask(("OTHER_NOT_STORED",))


def test_uncounted_grants_are_taken_before_counted_ones() -> None:
    counted = grant("a" * 16, max_ttl=600, uses=5)
    uncounted = grant("b" * 16, max_ttl=60)
    assert decided("A", given=ruled(counted, uncounted)) == Allow((uncounted,), 60)


def test_of_two_alike_the_longer_grant_is_taken() -> None:
    short, long = grant("a" * 16, max_ttl=60), grant("b" * 16, max_ttl=600)
    assert decided("A", given=ruled(short, long)) == Allow((long,), 600)


def test_of_two_equal_grants_always_the_same_is_taken() -> None:
    one, other = grant("a" * 16), grant("b" * 16)
    assert decided("A", given=ruled(one, other)) == decided("A", given=ruled(other, one))


def test_a_lease_on_several_grants_lives_as_long_as_the_shortest_allows() -> None:
    short, long = grant("a" * 16, ("A",), max_ttl=60), grant("b" * 16, ("B",), max_ttl=600)
    assert decided("A", "B", given=ruled(short, long)) == Allow((short, long), 60)


def test_one_grant_for_several_names_is_named_once() -> None:
    one = grant(uses=1)
    assert decided("A", "B", "C", given=ruled(one)) == Allow((one,), 60)


def test_a_tree_of_another_boot_allows_nothing() -> None:
    given = replace(ruled(replace(grant(), selector=OWN_TREE)), boot_id="boot-2")
    assert decided("A", given=given) == Ask(("A",))


def test_what_applies_is_what_is_usable_and_means_the_caller() -> None:
    own, other = grant("a" * 16), replace(grant("b" * 16), selector=OTHER_UID)
    over, spent = grant("c" * 16, expires_at_ms=1000), grant("d" * 16, uses=0)
    assert applicable(FACTS, ruled(own, other, over, spent)) == [own]
