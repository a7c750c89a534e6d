"""Who may have how many bytes of unfinished requests: plain values."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door.budget import Account, Budget, Limits
from backpackd.core.facts import ProcessId

SMALL = Limits(per_connection=10, total=30)


@dataclass
class Connections:
    """Accounts, and which of them gave up."""

    gone: list[int] = field(default_factory=list)

    def account(self, tree: int, number: int = 0) -> Account:
        return Account(ProcessId(tree, 0), lambda: self.gone.append(number))


def test_a_connection_has_its_bound_and_gets_back_what_it_gives() -> None:
    budget, account = Budget(SMALL), Connections().account(1)
    assert budget.charge(account, 10)
    assert not budget.charge(account, 1)
    budget.give_back(account, 4)
    assert budget.charge(account, 4)
    assert (account.held, budget.held) == (10, 10)


def test_the_tree_with_the_most_gives_up_its_largest_connection_to_one_with_less() -> None:
    budget, connections = Budget(SMALL), Connections()
    many = [connections.account(1, number) for number in range(4)]
    for account, size in zip(many, (5, 9, 8, 8), strict=True):
        assert budget.charge(account, size)
    assert budget.charge(connections.account(2), 3)
    assert connections.gone == [1]
    assert (many[1].held, budget.held) == (0, 24)


def test_the_tree_with_the_most_gets_no_more_and_takes_from_nobody() -> None:
    budget, connections = Budget(SMALL), Connections()
    for number in range(2):
        assert budget.charge(connections.account(1, number), 10)
    assert budget.charge(connections.account(2, 2), 10)
    assert not budget.charge(connections.account(1, 3), 1)
    assert connections.gone == []


def test_equals_do_not_take_from_each_other() -> None:
    budget, connections = Budget(SMALL), Connections()
    for number in range(3):
        assert budget.charge(connections.account(number, number), 10)
    assert not budget.charge(connections.account(9), 10)
    assert budget.charge(connections.account(9), 9)
    assert len(connections.gone) == 1


def test_giving_back_more_than_is_held_or_twice_changes_nothing_else() -> None:
    budget, connections = Budget(SMALL), Connections()
    account, other = connections.account(1), connections.account(1)
    budget.charge(account, 3)
    budget.charge(other, 4)
    budget.give_back(account, 100)
    budget.give_back(account, 3)
    assert (account.held, other.held, budget.held) == (0, 4, 4)


STEP = st.tuples(st.integers(0, 7), st.integers(1, 14), st.booleans())


@given(st.lists(STEP, max_size=60))
def test_sums_are_right_and_within_their_bounds_whatever_happens(
    steps: list[tuple[int, int, bool]],
) -> None:
    budget, connections = Budget(SMALL), Connections()
    accounts = [connections.account(number // 2, number) for number in range(8)]
    for number, size, more in steps:
        account = accounts[number]
        before, gone = account.held, len(connections.gone)
        if not more:
            budget.give_back(account, size)
        elif budget.charge(account, size):
            assert account.held == before + size
        else:
            assert account.held == before
        assert number not in connections.gone[gone:]
        assert budget.held == sum(one.held for one in accounts) <= SMALL.total
        assert all(0 <= one.held <= SMALL.per_connection for one in accounts)
        held = {one.tree: 0 for one in accounts}
        for one in accounts:
            held[one.tree] += one.held
        assert {tree: found.held for tree, found in budget._trees.items()} == {
            tree: size for tree, size in held.items() if size
        }
