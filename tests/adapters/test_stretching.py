"""Stretching: Argon2id as RFC 9106 has it, one at a time, in turns."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from backpackd.adapters.secrets import stretching
from backpackd.adapters.secrets.stretching import (
    MOST_FAVORED,
    MOST_TREES,
    MOST_WAITING,
    Argon2idStretcher,
)
from backpackd.core.errors import LimitError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.slots.slots import Argon2idParameters
from fakes import settled, turns

A, B, C = (ProcessId(pid, pid) for pid in (1, 2, 3))
CHEAP = Argon2idParameters(b"s" * 16, iterations=1, lanes=1, memory_kib=8)


class Work:
    """Takes the place of Argon2id: each piece runs until it is let go, and says that it ran."""

    def __init__(self) -> None:
        self.ran: list[bytes] = []
        self.most_at_once = 0
        self._running = 0
        self._steps = threading.Semaphore(0)

    def __call__(self, passphrase: bytes, _: Argon2idParameters) -> bytes:
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        self.ran.append(passphrase)
        self._steps.acquire()
        self._running -= 1
        return passphrase

    def let_go(self, pieces: int = 1) -> None:
        for _ in range(pieces):
            self._steps.release()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    work = Work()
    monkeypatch.setattr(stretching, "_argon2id", work)
    yield work
    # Whatever a failed test left behind: its thread is waited for.
    work.let_go(1000)


@pytest_asyncio.fixture
async def stretcher() -> AsyncIterator[Argon2idStretcher]:
    stretcher = Argon2idStretcher()
    yield stretcher
    stretcher.close()


def start(
    stretcher: Argon2idStretcher, tree: ProcessId, passphrase: bytes
) -> "asyncio.Task[bytes]":
    return asyncio.create_task(stretcher.stretch(passphrase, CHEAP, tree))


async def test_the_result_is_that_of_argon2id(stretcher: Argon2idStretcher) -> None:
    # By argon2-cffi: hash_secret_raw(b"passphrase", b"s" * 16, 1, 8, 1, 32, Type.ID)
    expected = "5de76d31958143e892984f8f8306ab2274c28f0459a79830d629095d52270062"
    assert (await stretcher.stretch(b"passphrase", CHEAP, A)).hex() == expected


async def test_only_one_runs_at_a_time(stretcher: Argon2idStretcher, work: Work) -> None:
    waiting = [start(stretcher, tree, b"p") for tree in (A, B, C) for _ in range(2)]
    work.let_go(6)
    await settled(*waiting)
    assert work.most_at_once == 1


async def test_the_event_loop_turns_meanwhile(stretcher: Argon2idStretcher, work: Work) -> None:
    running = start(stretcher, A, b"p")
    await turns(lambda: bool(work.ran))
    assert not running.done()
    work.let_go()
    await running


async def test_a_lone_guess_waits_for_one_of_another_tree_at_most(
    stretcher: Argon2idStretcher, work: Work
) -> None:
    flood = [start(stretcher, A, b"a") for _ in range(MOST_WAITING + 1)]
    await turns(lambda: work.ran == [b"a"])
    lone = start(stretcher, B, b"b")
    await asyncio.sleep(0)
    work.let_go(MOST_WAITING + 2)
    await settled(*flood, lone)
    assert work.ran[:2] == [b"a", b"b"]


async def test_trees_take_turns(stretcher: Argon2idStretcher, work: Work) -> None:
    trees = {A: b"a", B: b"b", C: b"c"}
    waiting = [start(stretcher, tree, trees[tree]) for tree in trees for _ in range(3)]
    work.let_go(9)
    await settled(*waiting)
    assert [set(work.ran[place : place + 3]) for place in (0, 3, 6)] == [{b"a", b"b", b"c"}] * 3


async def test_one_tree_is_served_in_its_own_order(
    stretcher: Argon2idStretcher, work: Work
) -> None:
    waiting = [start(stretcher, A, b"%d" % number) for number in range(MOST_WAITING)]
    work.let_go(MOST_WAITING)
    await settled(*waiting)
    assert work.ran == [b"%d" % number for number in range(MOST_WAITING)]


async def test_waiting_of_one_tree_is_limited(stretcher: Argon2idStretcher, work: Work) -> None:
    waiting = [start(stretcher, A, b"p") for _ in range(MOST_WAITING + 1)]
    await turns(lambda: bool(work.ran))
    with pytest.raises(LimitError) as caught:
        await stretcher.stretch(b"p", CHEAP, A)
    assert caught.value.retry_after
    work.let_go(MOST_WAITING + 1)
    await settled(*waiting)


async def test_waiting_trees_are_limited(stretcher: Argon2idStretcher, work: Work) -> None:
    trees = [ProcessId(pid, pid) for pid in range(100, 100 + MOST_TREES + 1)]
    waiting = [start(stretcher, tree, b"p") for tree in trees]
    await turns(lambda: bool(work.ran))
    with pytest.raises(LimitError):
        await stretcher.stretch(b"p", CHEAP, A)
    work.let_go(len(trees))
    await settled(*waiting)


async def test_a_tree_that_gave_a_right_passphrase_is_let_in_and_first_and_then_in_turn(
    stretcher: Argon2idStretcher, work: Work
) -> None:
    stretcher.favor(A)
    trees = [ProcessId(pid, pid) for pid in range(100, 100 + MOST_TREES + 1)]
    waiting = [start(stretcher, tree, b"other") for tree in trees]
    await turns(lambda: bool(work.ran))
    waiting += [start(stretcher, A, b"favored") for _ in range(2)]
    await asyncio.sleep(0)
    work.let_go(len(waiting))
    await settled(*waiting)
    assert work.ran[:3] == [b"other", b"favored", b"other"]
    assert work.ran[-1] == b"favored"
    assert len(work.ran) == len(waiting)


async def test_only_so_many_trees_are_favored(stretcher: Argon2idStretcher) -> None:
    for pid in range(1, MOST_FAVORED + 2):
        stretcher.favor(ProcessId(pid, pid))
    assert len(stretcher._favored) == MOST_FAVORED
    assert A not in stretcher._favored
    assert B in stretcher._favored


async def test_a_waiter_that_goes_away_takes_up_no_place(
    stretcher: Argon2idStretcher, work: Work
) -> None:
    running = start(stretcher, A, b"running")
    await turns(lambda: bool(work.ran))
    for _ in range(3 * MOST_WAITING):
        gone = start(stretcher, B, b"gone")
        await asyncio.sleep(0)
        gone.cancel()
        await settled(gone)
    assert stretcher._waiting == {}
    stays = start(stretcher, B, b"stays")
    await asyncio.sleep(0)
    work.let_go(2)
    await settled(running, stays)
    assert work.ran == [b"running", b"stays"]


async def test_a_waiter_that_goes_away_with_the_turn_in_hand_passes_it_on(
    stretcher: Argon2idStretcher, work: Work
) -> None:
    running = start(stretcher, A, b"running")
    await turns(lambda: bool(work.ran))
    gone, stays = start(stretcher, B, b"gone"), start(stretcher, C, b"stays")
    await turns(lambda: len(stretcher._waiting) == 2)
    work.let_go()
    # The turn was given, and the task has not come round to taking it.
    await turns(lambda: len(stretcher._waiting) == 1)
    gone.cancel()
    work.let_go()
    await settled(running, gone, stays)
    assert b"stays" in work.ran


async def test_the_turn_of_a_caller_that_went_away_ends_with_its_work(
    stretcher: Argon2idStretcher, work: Work
) -> None:
    gone = start(stretcher, A, b"gone")
    await turns(lambda: bool(work.ran))
    gone.cancel()
    await settled(gone)
    stays = start(stretcher, B, b"stays")
    await asyncio.sleep(0)
    assert work.ran == [b"gone"]
    work.let_go(2)
    assert await stays == b"stays"
    assert work.most_at_once == 1


async def test_work_that_fails_gives_its_turn_back(
    stretcher: Argon2idStretcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: bytes, __: Argon2idParameters) -> bytes:
        raise MemoryError

    monkeypatch.setattr(stretching, "_argon2id", failing)
    for _ in range(2):
        with pytest.raises(MemoryError):
            await stretcher.stretch(b"p", CHEAP, A)
    assert not stretcher._busy
