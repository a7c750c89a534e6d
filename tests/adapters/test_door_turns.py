"""Taking turns: which tree's job runs, and when."""

import asyncio
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from backpackd.adapters.door import turns as module
from backpackd.adapters.door.limits import CALLS_OF_TREE, JOBS_OF_TREE, JOBS_PER_TURN
from backpackd.adapters.door.turns import LONG_AGO, Turns


class Ran:
    """Notes which jobs ran, in which turn of the event loop."""

    def __init__(self) -> None:
        self.turns: list[list[object]] = [[]]

    def job(self, name: object) -> Callable[[], None]:
        return lambda: self.turns[-1].append(name)

    async def turn(self) -> None:
        self.turns.append([])
        await asyncio.sleep(0)

    @property
    def order(self) -> list[object]:
        return [name for turn in self.turns for name in turn]

    async def all(self, count: int) -> list[object]:
        while len(self.order) < count:
            await self.turn()
        return self.order


async def test_a_job_runs_at_once_where_nothing_else_waits() -> None:
    turns, ran = Turns(), Ran()
    assert turns.take("tree", ran.job(1))
    assert ran.order == [1]


async def test_one_turn_runs_a_bounded_number_of_jobs_and_the_rest_comes_later_in_order() -> None:
    turns, ran = Turns(), Ran()
    took = [turns.take("tree", ran.job(number)) for number in range(100)]
    assert took == [True] * JOBS_OF_TREE + [False] * (100 - JOBS_OF_TREE)
    assert await ran.all(100) == list(range(100))
    assert max(map(len, ran.turns)) <= JOBS_PER_TURN


async def test_a_tree_alone_has_the_whole_turn() -> None:
    turns, ran = Turns(), Ran()
    for number in range(100):
        turns.take("tree", ran.job(number))
    await ran.turn()
    assert len(ran.turns[-1]) == JOBS_PER_TURN


async def test_another_tree_is_served_in_the_next_turn_of_a_flood() -> None:
    turns, ran = Turns(), Ran()
    for _ in range(1000):
        turns.take("flood", ran.job("flood"))
    await ran.turn()
    turns.take("other", ran.job("other"))
    await ran.turn()
    assert ran.turns[-1][0] == "other"


async def test_ever_new_trees_do_not_keep_a_known_one_waiting() -> None:
    turns, ran = Turns(), Ran()
    turns.take("known", ran.job("known"))
    fresh = iter(range(100_000))
    for _ in range(5):
        for _ in range(2 * JOBS_PER_TURN):
            turns.take(next(fresh), ran.job("new"))
        await ran.turn()
    turns.take("known", ran.job("known"))
    waited = 0
    while ran.order.count("known") < 2:
        for _ in range(2 * JOBS_PER_TURN):
            turns.take(next(fresh), ran.job("new"))
        await ran.turn()
        waited += 1
    assert waited <= 3 * LONG_AGO // JOBS_PER_TURN


async def test_a_tree_with_its_share_of_calls_runs_nothing_until_one_ends() -> None:
    turns, ran = Turns(), Ran()
    for _ in range(CALLS_OF_TREE):
        turns.begin_call("tree")
    assert turns.full("tree")
    assert not turns.take("tree", ran.job(1))
    turns.take("other", ran.job(2))
    await ran.all(1)
    for _ in range(5):
        await ran.turn()
    assert ran.order == [2]
    turns.end_call("tree")
    assert await ran.all(2) == [2, 1]


async def test_a_tree_that_rests_runs_nothing_until_it_has_rested() -> None:
    turns, ran = Turns(), Ran()
    turns.rest("tree")
    turns.rest("tree")
    assert not turns.take("tree", ran.job(1))
    turns.take("other", ran.job(2))
    await ran.all(1)
    assert ran.order == [2]
    while len(ran.order) < 2:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.001)
    assert ran.order == [2, 1]
    assert not turns._resting


async def test_nothing_is_scheduled_while_only_full_trees_wait() -> None:
    turns, ran = Turns(), Ran()
    for _ in range(CALLS_OF_TREE):
        turns.begin_call("tree")
    turns.take("tree", ran.job(1))
    await ran.turn()
    await ran.turn()
    assert turns._next is None


async def test_the_end_runs_what_still_waits() -> None:
    turns, ran = Turns(), Ran()
    for number in range(100):
        turns.take("tree", ran.job(number))
    turns.finish()
    assert ran.order == list(range(100))
    assert turns.waiting("tree") == 0


async def test_what_is_remembered_of_trees_is_bounded() -> None:
    turns, ran = Turns(), Ran()
    for number in range(module._REMEMBERED + 100):
        turns.take(number, ran.job(number))
        await ran.turn()
    assert len(turns._served) <= module._REMEMBERED
    assert not turns._lines


@given(st.lists(st.integers(0, 5), max_size=200))
def test_every_job_runs_exactly_once_and_those_of_a_tree_in_order(trees: list[int]) -> None:
    async def run() -> list[object]:
        turns, ran = Turns(), Ran()
        for number, tree in enumerate(trees):
            turns.take(tree, ran.job(number))
        return await ran.all(len(trees))

    order = [number for number in asyncio.run(run()) if isinstance(number, int)]
    assert sorted(order) == list(range(len(trees)))
    for tree in set(trees):
        own = [number for number in order if trees[number] == tree]
        assert own == sorted(own)
