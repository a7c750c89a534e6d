"""The bytes of unfinished requests: of a connection, of a tree, of all."""

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.budget import Budget
from backpackd.adapters.door.limits import (
    UNFINISHED,
    UNFINISHED_OF_CONNECTION,
    UNFINISHED_OF_TREE,
)


def test_a_connection_holds_so_much_and_no_more() -> None:
    budget = Budget()
    assert budget.charge("a", "tree", UNFINISHED_OF_CONNECTION)
    assert not budget.charge("a", "tree", 1)
    assert budget.charge("b", "tree", 1)


def test_a_tree_holds_so_much_and_no_more() -> None:
    budget = Budget()
    count = UNFINISHED_OF_TREE // UNFINISHED_OF_CONNECTION
    assert all(budget.charge(each, "tree", UNFINISHED_OF_CONNECTION) for each in range(count))
    assert not budget.charge("another", "tree", 1)
    assert budget.charge("another", "other tree", 1)


def test_all_together_hold_so_much_and_no_more() -> None:
    budget = Budget()
    count = UNFINISHED // UNFINISHED_OF_CONNECTION
    assert all(budget.charge(each, each, UNFINISHED_OF_CONNECTION) for each in range(count))
    assert not budget.charge("another", "another", 1)
    budget.give_back(0, 0, UNFINISHED_OF_CONNECTION)
    assert budget.charge("another", "another", UNFINISHED_OF_CONNECTION)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000_000))))
def test_what_is_given_back_leaves_nothing(charges: list[tuple[int, int]]) -> None:
    budget = Budget()
    held = [(one, size) for one, size in charges if budget.charge(one, one % 2, size)]
    assert budget.held == sum(size for _, size in held)
    for one, size in held:
        budget.give_back(one, one % 2, size)
    assert budget.held == 0
    assert not budget._of_connections
    assert not budget._of_trees
