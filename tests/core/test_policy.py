"""The policy: strict in what it takes, and never widened by what is laid on top."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.access import policy as policies
from backpackd.core.access.grants import LONGEST_TTL
from backpackd.core.access.policy import DEFAULTS, LISTINGS, DenyRule, Policy
from backpackd.core.access.selectors import parse
from backpackd.core.errors import InvalidRequestError
from backpackd.core.peer_facts import PeerFacts, ProcessFacts, ProcessId
from backpackd.core.sealing.canonical import CanonicalError

PYTHON = "/usr/bin/python3"
AGENT = ProcessFacts(ProcessId(20, 200), 1, 20, 0, 1000, executable=PYTHON)
FACTS = PeerFacts(1000, 1000, (AGENT,))
SELECTORS = [None, *map(parse, ("uid:1000", "uid:1001", f"exe:{PYTHON}", "exe:/bin/other"))]
PATTERNS = ["A", "B", "A*", "*", "*_KEY"]
NAMES = ["A", "B", "AB", "A_KEY"]
POLICIES = st.builds(
    Policy,
    st.sampled_from(DEFAULTS),
    st.sampled_from(LISTINGS),
    st.lists(
        st.builds(
            DenyRule,
            st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3).map(tuple),
            st.sampled_from(SELECTORS),
        ),
        max_size=4,
        unique=True,
    ).map(tuple),
    st.integers(1, LONGEST_TTL),
)
FORM: dict[str, Any] = Policy().encode()


@given(POLICIES, POLICIES)
def test_what_is_laid_on_top_only_takes_away(sealed: Policy, on_top: Policy) -> None:
    found = sealed.tightened(on_top)
    assert DEFAULTS.index(found.default) >= DEFAULTS.index(sealed.default)
    assert LISTINGS.index(found.listing) >= LISTINGS.index(sealed.listing)
    assert found.max_ttl <= sealed.max_ttl
    for name in NAMES:
        if sealed.denies(FACTS, name, "boot") or on_top.denies(FACTS, name, "boot"):
            assert found.denies(FACTS, name, "boot")


@given(POLICIES, POLICIES)
def test_tightening_twice_is_tightening_once(sealed: Policy, on_top: Policy) -> None:
    once = sealed.tightened(on_top)
    assert once.tightened(on_top) == once
    assert sealed.tightened(sealed) == sealed


@given(POLICIES)
def test_a_policy_is_read_as_it_was_written(policy: Policy) -> None:
    assert Policy.decode(policy.encode()) == policy


def test_a_policy_that_nobody_set_asks_and_lists_what_is_granted() -> None:
    assert Policy() == Policy("ask", "granted", (), LONGEST_TTL)


@pytest.mark.parametrize(
    "change",
    [
        {"default": "Allow"},
        {"default": ""},
        {"default": None},
        {"listing": "none"},
        {"max_ttl": 0},
        {"max_ttl": -1},
        {"max_ttl": LONGEST_TTL + 1},
        {"max_ttl": True},
        {"max_ttl": 1.5},
        {"deny": {}},
        {"deny": [{}]},
        {"deny": [{"patterns": [], "selector": ""}]},
        {"deny": [{"patterns": ["A"]}]},
        {"deny": [{"patterns": "A", "selector": ""}]},
        {"deny": [{"patterns": [1], "selector": ""}]},
        {"deny": [{"patterns": ["A"], "selector": "tree:20"}]},
        {"deny": [{"patterns": ["A"], "selector": "everybody"}]},
        {"deny": [{"patterns": ["A"], "selector": "", "more": 1}]},
        {"deny": [{"patterns": ["A"], "selector": ""}] * 101},
        {"allow": []},
    ],
)
def test_a_policy_of_another_form_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(CanonicalError):
        Policy.decode({**FORM, **change})


@pytest.mark.parametrize("missing", sorted(FORM))
def test_a_policy_with_a_part_missing_is_none(missing: str) -> None:
    with pytest.raises(CanonicalError):
        Policy.decode({name: part for name, part in FORM.items() if name != missing})


@pytest.mark.parametrize(
    ("default", "listing", "rules", "max_ttl"),
    [
        ("", "granted", 0, 60),
        ("asks", "granted", 0, 60),
        ("ask", "", 0, 60),
        ("ask", "granted", 101, 60),
        ("ask", "granted", 0, 0),
        ("ask", "granted", 0, LONGEST_TTL + 1),
    ],
)
def test_parts_out_of_bounds_make_no_policy(
    default: str, listing: str, rules: int, max_ttl: int
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        policies.make(default, listing, [DenyRule(("A",))] * rules, max_ttl)
    assert caught.value.reason == "invalid-policy"


@pytest.mark.parametrize(
    ("patterns", "selector", "reason"),
    [
        ([], "", "invalid-policy"),
        (["A"] * 65, "", "invalid-policy"),
        (["not a name"], "", "invalid-pattern"),
        (["A"], "tree:1", "invalid-policy"),
        (["A"], "exe:python", "invalid-selector"),
        (["A"], " ", "invalid-selector"),
    ],
)
def test_parts_of_another_form_make_no_rule(
    patterns: list[str], selector: str, reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        policies.make_rule(patterns, selector)
    assert caught.value.reason == reason


def test_a_rule_without_a_selector_means_everybody() -> None:
    assert policies.make_rule(["A"], "").denies(FACTS, "A", "boot")


def test_a_rule_means_only_its_keys_and_only_its_subjects() -> None:
    assert not DenyRule(("A",)).denies(FACTS, "B", "boot")
    assert not DenyRule(("A",), parse("uid:1001")).denies(FACTS, "A", "boot")
