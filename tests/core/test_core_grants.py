from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.core.access.grants import Grant
from backpackd.core.access.selectors import Selector, parse
from backpackd.core.peer_facts import ProcessId
from backpackd.core.sealing import canonical
from backpackd.core.sealing.canonical import CanonicalError

GRANT = Grant(
    id="0123456789abcdef",
    patterns=("A", "B_*"),
    selector=parse("uid:1000"),
    max_ttl=60,
    expires_at_ms=None,
    uses_left=None,
    created_at_ms=1000,
    reason="for the nightly run",
)
TREE = replace(parse("tree:20"), process=ProcessId(20, 200, 2000), boot_id="boot-1")
SELECTORS = st.sampled_from(
    [
        TREE,
        parse("uid:0"),
        parse("exe:/opt/agent"),
        parse("sha256:" + "ab" * 32),
        parse("unit:agent@1.service"),
    ]
)
GRANTS = st.builds(
    Grant,
    id=st.integers(0, 2**64 - 1).map(lambda number: f"{number:016x}"),
    patterns=st.lists(st.sampled_from(["A", "*", "B_*", "a.b-c"]), min_size=1).map(tuple),
    selector=SELECTORS,
    max_ttl=st.integers(1, 10**7),
    expires_at_ms=st.none() | st.integers(0, 2**42),
    uses_left=st.none() | st.integers(0, 10**6),
    created_at_ms=st.integers(0, 2**42),
    reason=st.text(max_size=20),
)


@given(GRANTS)
def test_decoding_gives_back_what_was_encoded(grant: Grant) -> None:
    stored = canonical.encode(grant.encode())
    assert Grant.decode(canonical.decode(stored)) == grant


@pytest.mark.parametrize("missing", sorted(GRANT.encode()))
def test_a_grant_with_a_member_missing_is_refused(missing: str) -> None:
    data = GRANT.encode()
    del data[missing]
    with pytest.raises(CanonicalError):
        Grant.decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"id": 1},
        {"id": None},
        {"patterns": "A"},
        {"patterns": [1]},
        {"patterns": ["A", None]},
        {"patterns": ["A?"]},
        {"patterns": [""]},
        {"max_ttl": "60"},
        {"max_ttl": True},
        {"max_ttl": 0},
        {"max_ttl": -1},
        {"expires": "never"},
        {"expires": False},
        {"uses": "1"},
        {"uses": True},
        {"uses": -1},
        {"created": None},
        {"reason": None},
        {"selector": None},
        {"selector": ""},
        {"selector": "uid"},
        {"selector": "uid:01000"},
        {"selector": "everybody:1"},
        {"selector": "exe:../agent"},
        {"tree": {}},
        {"tree": {"boot": "boot-1", "start": 1, "unique": 1}},
        {"selector": "tree:20"},
        {"selector": "tree:20", "tree": {"boot": "boot-1", "start": 1}},
        {"selector": "tree:20", "tree": {"boot": None, "start": 1, "unique": 1}},
        {"selector": "tree:20", "tree": {"boot": "boot-1", "start": "1", "unique": 1}},
        {"selector": "tree:20", "tree": {"boot": "boot-1", "start": 1, "unique": 1, "x": 1}},
        {"selector": "tree:0", "tree": {"boot": "boot-1", "start": 1, "unique": 1}},
        {"selector": "tree:\N{SUPERSCRIPT TWO}", "tree": {"boot": "b", "start": 1, "unique": 1}},
        {"selector": "tree:", "tree": {"boot": "boot-1", "start": 1, "unique": 1}},
    ],
)
def test_a_grant_of_another_form_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CanonicalError):
        Grant.decode({**GRANT.encode(), **change})


@pytest.mark.parametrize("data", [None, [], "grant", 1])
def test_what_is_no_object_is_no_grant(data: object) -> None:
    with pytest.raises(CanonicalError):
        Grant.decode(data)


@pytest.mark.parametrize(
    "selector", [parse("tree:20"), replace(TREE, process=None), replace(TREE, boot_id=None)]
)
def test_a_tree_that_was_never_looked_up_cannot_be_stored(selector: Selector) -> None:
    # It could never be read again, and with it the whole record.
    with pytest.raises(ValueError, match="without its process"):
        replace(GRANT, selector=selector).encode()


@pytest.mark.parametrize("name", ["A", "B_", "B_C"])
def test_a_grant_covers_what_one_of_its_patterns_covers(name: str) -> None:
    assert GRANT.covers(name)


@pytest.mark.parametrize("name", ["AA", "a", "B", "C_B_"])
def test_a_grant_does_not_cover_what_none_of_its_patterns_covers(name: str) -> None:
    assert not GRANT.covers(name)


@pytest.mark.parametrize(("now_ms", "usable"), [(999, True), (1000, False), (1001, False)])
def test_a_grant_ends_at_its_expiry(now_ms: int, usable: bool) -> None:
    assert replace(GRANT, expires_at_ms=1000).usable(now_ms) is usable


def test_a_grant_without_an_expiry_does_not_end() -> None:
    assert GRANT.usable(2**60)


def test_a_grant_that_is_used_up_allows_nothing() -> None:
    assert not replace(GRANT, uses_left=0).usable(0)


def test_every_use_counts_down_to_nothing_left() -> None:
    grant = replace(GRANT, uses_left=2)
    assert [grant.used().uses_left, grant.used().used().uses_left] == [1, 0]


def test_a_grant_that_is_used_up_cannot_be_used_again() -> None:
    with pytest.raises(AssertionError):
        replace(GRANT, uses_left=0).used()


def test_a_grant_of_any_number_of_uses_stays_as_it_is() -> None:
    assert GRANT.used() == GRANT
