"""Whose turn it is of those who have connected: plain values and integer clocks."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.arrivals import LONG_AGO, Arrivals, Limits


def turns(arrivals: Arrivals[str], count: int = 1000, now: float = 0) -> list[str]:
    """Serve so many, as the door does, and return them in their order."""
    served: list[str] = []
    while len(served) < count and (found := arrivals.take(now)):
        group, one = found
        arrivals.serve(group)
        served.append(one)
    return served


def filled(*rows: tuple[object, str], limits: Limits | None = None) -> Arrivals[str]:
    arrivals: Arrivals[str] = Arrivals(limits)
    for group, one in rows:
        assert not arrivals.full(group)
        arrivals.add(group, one)
    return arrivals


def test_groups_take_turns_and_within_a_group_whoever_came_first_goes_first() -> None:
    arrivals = filled((1, "a"), (1, "b"), (1, "c"), (2, "d"), (2, "e"), (3, "f"))
    assert turns(arrivals) == ["a", "d", "f", "b", "e", "c"]


def test_a_newcomer_does_not_wait_behind_the_line_of_another_group() -> None:
    arrivals = filled(*((1, f"flood {n}") for n in range(500)))
    turns(arrivals, 10)
    arrivals.add(2, "newcomer")
    assert turns(arrivals, 1) == ["newcomer"]


def test_a_newcomer_goes_before_many_groups_that_were_served_after_its_own() -> None:
    arrivals = filled((0, "before"))
    turns(arrivals)
    for group in range(1, 200):
        arrivals.add(group, "flood")
    turns(arrivals)
    for group in range(1, 200):
        arrivals.add(group, "flood")
    arrivals.add(0, "newcomer")
    assert turns(arrivals, 1) == ["newcomer"]


def test_a_flood_of_groups_that_are_ever_new_does_not_starve_one_that_is_known() -> None:
    arrivals = filled(("known", "first"))
    turns(arrivals)
    for n in range(100):
        arrivals.add(n, "flood")
    arrivals.add("known", "second")
    served: list[str] = []
    for n in range(100, 1000):
        served += turns(arrivals, 1)
        arrivals.add(n, "flood")
    # Those that came before it, and those that came while it had been served a short time ago.
    assert served.index("second") <= 100 + LONG_AGO + 1


def test_what_is_said_to_be_served_counts_though_it_did_not_wait() -> None:
    arrivals = filled((1, "a"), (2, "b"))
    arrivals.serve(1)
    assert turns(arrivals) == ["b", "a"]


def test_a_group_that_rests_has_no_turn_before_its_time() -> None:
    arrivals = filled((1, "a"), (2, "b"))
    arrivals.rest(1, 10)
    assert arrivals.next_at() < 0
    assert turns(arrivals, now=9) == ["b"]
    assert arrivals.next_at() == 10
    assert turns(arrivals, now=10) == ["a"]
    assert arrivals.next_at() == float("inf")


def test_a_group_has_no_longer_line_than_its_limit() -> None:
    arrivals = filled((1, "a"), (1, "b"), limits=Limits(per_group=2, total=10))
    assert arrivals.full(1)
    assert not arrivals.full(2)


def test_when_all_room_is_taken_the_last_of_the_longest_line_gives_way() -> None:
    arrivals = filled((1, "a"), (1, "b"), (1, "c"), (2, "d"), limits=Limits(per_group=3, total=4))
    assert arrivals.add(3, "e") == "c"
    assert not arrivals.full(4)
    assert arrivals.add(4, "f") == "b"
    assert turns(arrivals) == ["a", "d", "e", "f"]


def test_nobody_gives_way_to_a_group_that_would_have_as_many() -> None:
    limits = Limits(per_group=3, total=4)
    arrivals = filled((1, "a"), (1, "b"), (2, "c"), (2, "d"), limits=limits)
    assert arrivals.full(1)
    assert not arrivals.full(3)
    arrivals.add(3, "e")
    assert arrivals.full(3)
    assert len(arrivals) == 4


def test_clearing_gives_everybody_back() -> None:
    arrivals = filled((1, "a"), (2, "b"), (1, "c"))
    assert sorted(arrivals.clear()) == ["a", "b", "c"]
    assert len(arrivals) == 0
    assert turns(arrivals) == []


@pytest.mark.parametrize("groups", [5000])
def test_what_is_known_of_groups_is_bounded(groups: int) -> None:
    arrivals: Arrivals[str] = Arrivals()
    for group in range(groups):
        arrivals.serve(group)
    assert len(arrivals._groups) <= Limits().total + 2 * LONG_AGO


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "rest"]), st.integers(0, 5))))
def test_everybody_comes_out_once_and_no_limit_is_exceeded(steps: list[tuple[str, int]]) -> None:
    limits = Limits(per_group=3, total=6)
    arrivals: Arrivals[int] = Arrivals(limits)
    inside: dict[int, int] = {}
    for now, (step, group) in enumerate(steps):
        if step == "add" and not arrivals.full(group):
            inside[now] = group
            gone = arrivals.add(group, now)
            if gone is not None:
                del inside[gone]
        elif step == "take" and (found := arrivals.take(now)):
            assert inside.pop(found[1]) == found[0]
            arrivals.serve(found[0])
        elif step == "rest":
            arrivals.rest(group, now + 2)
        assert len(arrivals) == len(inside) <= limits.total
        assert max(Counter(inside.values()).values(), default=0) <= limits.per_group
    assert sorted(arrivals.clear()) == sorted(inside)
