"""How many may watch: of one tree, of all trees and of the operator."""

import pytest

from backpackd.application.callers.watchers import Watchers
from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId

TREES = [ProcessId(100, start) for start in range(4)]


@pytest.fixture
def watchers() -> Watchers[str]:
    return Watchers("things", most=3, of_tree=2)


def refuses(watchers: Watchers[str], tree: ProcessId | None) -> bool:
    before = len(list(watchers))
    try:
        watchers.add(tree, "one more")
    except LimitError:
        return len(list(watchers)) == before
    return False


def test_a_tree_has_its_own_limit_and_keeps_no_other_tree_out(watchers: Watchers[str]) -> None:
    watchers.add(TREES[0], "a")
    watchers.add(TREES[0], "b")
    assert refuses(watchers, TREES[0])
    assert not refuses(watchers, TREES[1])


def test_all_trees_have_a_limit_together_which_does_not_count_the_operator(
    watchers: Watchers[str],
) -> None:
    for name in "abc":
        watchers.add(None, f"operator {name}")
    for name, tree in zip("abc", TREES, strict=False):
        watchers.add(tree, name)
    assert refuses(watchers, TREES[3])
    assert refuses(watchers, TREES[0])


def test_the_operator_has_a_limit_too_which_does_not_count_the_trees(
    watchers: Watchers[str],
) -> None:
    for name, tree in zip("abc", TREES, strict=False):
        watchers.add(tree, name)
    for name in "def":
        watchers.add(None, name)
    assert refuses(watchers, None)


@pytest.mark.parametrize("tree", [TREES[0], None])
def test_one_that_goes_makes_room_once(watchers: Watchers[str], tree: ProcessId | None) -> None:
    most = 3 if tree is None else 2
    for number in range(most):
        watchers.add(tree, str(number))
    watchers.discard("0")
    watchers.discard("0")
    assert not refuses(watchers, tree)
    assert refuses(watchers, tree)


def test_who_watches_a_tree_is_found_by_it_and_goes_without_a_trace(
    watchers: Watchers[str],
) -> None:
    watchers.add(TREES[0], "a")
    watchers.add(None, "b")
    assert (watchers.of(TREES[0]), watchers.of(None), watchers.of(TREES[1])) == (["a"], ["b"], [])
    # A watcher that is told may be removed by that.
    for each in watchers:
        watchers.discard(each)
    assert len(list(watchers)) == 0
    assert (watchers._trees, watchers._watchers) == ({}, {})
