"""Taking turns within one process tree: order, bound, and what gives a turn back."""

import asyncio

import pytest

from backpackd.application.callers.lines import Lines
from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId
from fakes import settled

TREE, OTHER = ProcessId(100, 1), ProcessId(100, 2)


class Line:
    """Calls that note when they are served, and are done when the test says so."""

    def __init__(self, most: int = 3) -> None:
        self.turns = Lines(most, lambda: LimitError("too many wait", retry_after=1))
        self.served: asyncio.Queue[str] = asyncio.Queue()
        self.done: dict[str, asyncio.Event] = {}

    async def call(self, name: str, tree: ProcessId = TREE) -> None:
        async with self.turns.turn(tree):
            self.served.put_nowait(name)
            await self.done.setdefault(name, asyncio.Event()).wait()

    async def start(self, name: str, tree: ProcessId = TREE) -> "asyncio.Task[None]":
        task = asyncio.create_task(self.call(name, tree))
        await asyncio.sleep(0)
        return task

    async def finish(self, name: str, task: "asyncio.Task[None]") -> None:
        self.done[name].set()
        await task


async def test_one_call_of_a_tree_is_served_at_a_time_in_the_order_of_arrival() -> None:
    line = Line()
    tasks = {name: await line.start(name) for name in "abc"}
    for name in "abc":
        assert await line.served.get() == name
        assert line.served.empty()
        await line.finish(name, tasks[name])


async def test_another_tree_with_the_same_pid_does_not_wait() -> None:
    line = Line(most=1)
    first, second = await line.start("a"), await line.start("b", OTHER)
    assert [line.served.get_nowait() for _ in "ab"] == ["a", "b"]
    await line.finish("b", second)
    await line.finish("a", first)


async def test_the_call_that_is_served_counts_among_those_that_may_wait() -> None:
    line = Line(most=2)
    tasks = [await line.start(name) for name in "ab"]
    with pytest.raises(LimitError, match="too many wait") as caught:
        await asyncio.wait_for(line.call("c"), 5)
    assert caught.value.retry_after == 1
    await line.finish("a", tasks[0])
    third = await line.start("c")
    for task in (tasks[1], third):
        task.cancel()
    await settled(tasks[1], third)


@pytest.mark.parametrize("served", [True, False])
async def test_a_call_that_goes_away_gives_its_place_back(served: bool) -> None:
    line = Line(most=2)
    tasks = [await line.start(name) for name in "ab"]
    gone, stays = tasks if served else reversed(tasks)
    gone.cancel()
    await settled(gone)
    later = await line.start("c")
    for name in "abc":
        line.done.setdefault(name, asyncio.Event()).set()
    await asyncio.gather(stays, later)
    assert line.turns._lines == {}


async def test_a_call_that_fails_gives_its_turn_back_and_nothing_is_kept_of_the_tree() -> None:
    line = Line(most=1)
    with pytest.raises(KeyError):
        async with line.turns.turn(TREE):
            raise KeyError
    assert line.turns._lines == {}
    async with line.turns.turn(TREE):
        pass
