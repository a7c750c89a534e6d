from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.authority import Authority
from backpackd.core.decision import Allow, Ask, Decision, Deny, applicable, decide
from backpackd.core.facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.core.grants import LONGEST_TTL, Grant
from backpackd.core.records import RowSet
from backpackd.core.selectors import parse

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


def authority(*grants: Grant, latest_ms: int = 0, default: str = "ask") -> Authority:
    return Authority(
        generation=1,
        master_generation=1,
        rows=RowSet(),
        slots={},
        signing_key=b"",
        latest_ms=latest_ms,
        grants={given.id: given for given in grants},
        default=default,
    )


def decided(*names: str, given: Authority, now_ms: int = 1000) -> Decision:
    return decide(FACTS, names, given, now_ms, BOOT)


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
    max_size=6,
)
NAMES = st.lists(st.sampled_from(["A", "B", "AB"]), min_size=1, max_size=3, unique=True)
MOMENTS = st.integers(0, 6)
BY_DEFAULT: dict[str, Decision] = {"ask": Ask(), "deny": Deny(), "allow": Allow((), LONGEST_TTL)}


def allows(given: Grant, name: str, moment: int) -> bool:
    if not MEANS_CALLER[given.selector]:
        return False
    if given.uses_left is not None and given.uses_left < 1:
        return False
    if given.expires_at_ms is not None and moment >= given.expires_at_ms:
        return False
    return any(name in COVERED_BY[pattern] for pattern in given.patterns)


def model(names: Sequence[str], given: Authority, now_ms: int) -> Decision:
    moment = max(now_ms, given.latest_ms)
    rested_on: list[Grant] = []
    for name in names:
        able = [one for one in given.grants.values() if allows(one, name, moment)]
        able.sort(key=lambda one: one.id)
        able.sort(key=lambda one: one.max_ttl, reverse=True)
        able.sort(key=lambda one: one.uses_left is not None)
        if not able:
            return BY_DEFAULT[given.default]
        if able[0] not in rested_on:
            rested_on.append(able[0])
    return Allow(tuple(rested_on), min(one.max_ttl for one in rested_on))


@given(NAMES, GRANTS, st.sampled_from(["ask", "allow", "deny"]), MOMENTS, MOMENTS)
def test_the_decision_agrees_with_the_model(
    names: list[str], grants: list[Grant], default: str, now_ms: int, latest_ms: int
) -> None:
    given = authority(*grants, latest_ms=latest_ms, default=default)
    assert decided(*names, given=given, now_ms=now_ms) == model(names, given, now_ms)


@given(NAMES, GRANTS, MOMENTS, MOMENTS)
def test_no_allowance_rests_on_a_grant_that_is_over_or_somebody_elses(
    names: list[str], grants: list[Grant], now_ms: int, latest_ms: int
) -> None:
    decision = decided(
        *names, given=authority(*grants, latest_ms=latest_ms, default="deny"), now_ms=now_ms
    )
    for used in decision.grants if isinstance(decision, Allow) else ():
        assert used.uses_left != 0
        assert used.expires_at_ms is None or max(now_ms, latest_ms) < used.expires_at_ms
        assert MEANS_CALLER[used.selector]


@given(NAMES, GRANTS, MOMENTS)
def test_all_names_are_allowed_exactly_when_each_is_by_itself(
    names: list[str], grants: list[Grant], now_ms: int
) -> None:
    given = authority(*grants)
    each = [isinstance(decided(name, given=given, now_ms=now_ms), Allow) for name in names]
    together = isinstance(decided(*names, given=given, now_ms=now_ms), Allow)
    assert together == all(each)


@given(NAMES, GRANTS, GRANTS, MOMENTS)
def test_taking_grants_away_never_allows_more(
    names: list[str], kept: list[Grant], others: list[Grant], now_ms: int
) -> None:
    fewer = decided(*names, given=authority(*kept), now_ms=now_ms)
    known = {one.id for one in kept}
    more = [*kept, *(one for one in others if one.id not in known)]
    if isinstance(fewer, Allow):
        assert isinstance(decided(*names, given=authority(*more), now_ms=now_ms), Allow)


@pytest.mark.parametrize(
    ("default", "expected"),
    [*BY_DEFAULT.items(), ("ALLOW", Deny()), ("", Deny())],
)
def test_what_no_grant_covers_is_up_to_the_policy(default: str, expected: Decision) -> None:
    assert decided("A", given=authority(default=default)) == expected


def test_one_name_that_is_not_covered_refuses_them_all() -> None:
    given = authority(grant(patterns=("A", "B")), default="deny")
    assert decided("A", "B", "C", given=given) == Deny()


def test_a_name_that_nobody_stored_is_decided_like_any_other() -> None:
    # The decision has no store to ask, so names that exist and names that do not are one to it.
    given = authority(grant(patterns=("KNOWN_*",)))
    assert decided("KNOWN_STORED", given=given) == decided("KNOWN_BUT_NOT_STORED", given=given)
    assert decided("OTHER_STORED", given=given) == decided("OTHER_NOT_STORED", given=given)


def test_a_clock_that_is_set_back_does_not_bring_an_expired_grant_to_life() -> None:
    given = authority(grant(expires_at_ms=2000), latest_ms=2000)
    assert decided("A", given=given, now_ms=1) == Ask()


def test_uncounted_grants_are_taken_before_counted_ones() -> None:
    counted = grant("a" * 16, max_ttl=600, uses=5)
    uncounted = grant("b" * 16, max_ttl=60)
    assert decided("A", given=authority(counted, uncounted)) == Allow((uncounted,), 60)


def test_of_two_alike_the_longer_grant_is_taken() -> None:
    short, long = grant("a" * 16, max_ttl=60), grant("b" * 16, max_ttl=600)
    assert decided("A", given=authority(short, long)) == Allow((long,), 600)


def test_of_two_equal_grants_always_the_same_is_taken() -> None:
    one, other = grant("a" * 16), grant("b" * 16)
    assert decided("A", given=authority(one, other)) == decided("A", given=authority(other, one))


def test_a_lease_on_several_grants_lives_as_long_as_the_shortest_allows() -> None:
    short, long = grant("a" * 16, ("A",), max_ttl=60), grant("b" * 16, ("B",), max_ttl=600)
    assert decided("A", "B", given=authority(short, long)) == Allow((short, long), 60)


def test_one_grant_for_several_names_is_named_once() -> None:
    one = grant(uses=1)
    assert decided("A", "B", "C", given=authority(one)) == Allow((one,), 60)


def test_a_tree_of_another_boot_allows_nothing() -> None:
    given = authority(replace(grant(), selector=OWN_TREE))
    assert decide(FACTS, ["A"], given, 1000, "boot-2") == Ask()


def test_what_applies_is_what_is_usable_and_means_the_caller() -> None:
    own, other = grant("a" * 16), replace(grant("b" * 16), selector=OTHER_UID)
    over, spent = grant("c" * 16, expires_at_ms=1000), grant("d" * 16, uses=0)
    assert applicable(FACTS, authority(own, other, over, spent), 1000, BOOT) == [own]
