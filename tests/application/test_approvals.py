"""Asking a person: one question for many calls, and whom the answer reaches."""

import asyncio
from typing import Any

import pytest

from backpackd.core.access.requests import CODE_ALPHABET, LIFE, MOST, MOST_OF_TREE
from backpackd.core.errors import (
    DeniedError,
    InvalidRequestError,
    LimitError,
    LockedError,
    PeerUnknownError,
    RequestUnknownError,
    ShuttingDownError,
    WaitingError,
)
from backpackd.core.peer_facts import PeerFacts
from fakes import World, settled, turns


async def asked(*names: str, calls: int = 1, pid: int = 101) -> tuple[World, list[Any]]:
    """Return a world with calls that wait for a person."""
    world = await World().stocked()
    tasks = [world.asks(*(names or ("K",)), pid=pid) for _ in range(calls)]
    await world.waiting(calls)
    return world, tasks


def approve(world: World, *, once: bool = False, root_pid: int = 0) -> None:
    world.approvals.approve(
        world.approvals.pending()[0].code, once=once, root_pid=root_pid, by=None
    )


async def test_ten_calls_of_a_tree_are_one_question_and_one_answer() -> None:
    world, tasks = await asked(calls=10)
    assert len(world.notifier.codes) == 1
    approve(world)
    assert await settled(*tasks) == [{"K": b"k"}] * 10
    assert world.approvals.pending() == []


async def test_after_an_answer_the_tree_is_not_asked_again() -> None:
    world, tasks = await asked()
    approve(world)
    await settled(*tasks)
    assert await world.get("K", pid=100) == {"K": b"k"}
    assert len(world.notifier.codes) == 1


async def test_the_answer_covers_the_keys_of_the_question_only() -> None:
    world, tasks = await asked()
    approve(world)
    await settled(*tasks)
    with pytest.raises(WaitingError):
        await world.get("L")


async def test_another_tree_is_another_question() -> None:
    world, tasks = await asked()
    approve(world)
    await settled(*tasks)
    world.processes.add(200)
    with pytest.raises(WaitingError):
        await world.get("K", pid=200)
    assert [request.tree.pid for request in world.approvals.pending()] == [200]


async def test_the_caller_hears_the_code_before_the_answer() -> None:
    world = await World().stocked()
    heard: asyncio.Queue[str] = asyncio.Queue()
    call = asyncio.create_task(world.hand_out(world.connect(), "K", wait=60, announce=heard.put))
    code = await heard.get()
    assert (len(code), set(code) <= set(CODE_ALPHABET)) == (4, True)
    world.approvals.approve(code.lower(), once=False, root_pid=0, by=None)
    await call


async def test_who_does_not_wait_is_told_the_code_and_the_question_stays() -> None:
    world = await World().stocked()
    with pytest.raises(WaitingError) as caught:
        await world.get("K")
    (request,) = world.approvals.pending()
    assert caught.value.facts["request-code"] == request.code
    assert request.waiting == 0
    with pytest.raises(WaitingError) as again:
        await world.get("K")
    assert again.value.facts["request-code"] == request.code
    approve(world)
    assert await world.get("K") == {"K": b"k"}


async def test_asking_hands_out_nothing_and_looks_nothing_up() -> None:
    world = await World().stocked()
    with pytest.raises(WaitingError):
        await world.get("MISSING")
    assert world.store.asked == []


async def test_only_what_no_grant_covers_is_asked_about() -> None:
    world = await World().stocked()
    await world.grant("K")
    task = world.asks("K", "L")
    request = await world.waiting()
    assert request.names == ("L",)
    approve(world)
    assert await task == {"K": b"k", "L": b"l"}


async def test_once_is_as_many_leases_as_calls_waited() -> None:
    world, tasks = await asked(calls=3)
    approve(world, once=True)
    assert await settled(*tasks) == [{"K": b"k"}] * 3
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_once_where_nobody_waits_is_for_the_next_call() -> None:
    world = await World().stocked()
    with pytest.raises(WaitingError):
        await world.get("K")
    approve(world, once=True)
    assert await world.get("K") == {"K": b"k"}
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_once_is_not_for_ever() -> None:
    world = await World(idle=3600).stocked()
    with pytest.raises(WaitingError):
        await world.get("K")
    approve(world, once=True)
    world.clock.pass_(600)
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_another_root_may_be_chosen_from_the_chain() -> None:
    world, tasks = await asked(pid=101)
    approve(world, root_pid=101)
    assert await settled(*tasks) == [{"K": b"k"}]
    with pytest.raises(WaitingError):
        await world.get("K", pid=100)


@pytest.mark.parametrize("root_pid", [1, 200, -1, 50])
async def test_a_root_that_was_not_offered_is_refused(root_pid: int) -> None:
    world = await World().stocked()
    world.processes.add(50, uid=0)
    world.processes.reparent(100, 50)
    world.processes.add(200)
    tasks = [world.asks("K")]
    await world.waiting()
    with pytest.raises(InvalidRequestError) as caught:
        approve(world, root_pid=root_pid)
    assert caught.value.reason == "invalid-root"
    assert len(world.approvals.pending()) == 1
    world.approvals.close()
    await settled(*tasks)


async def test_a_refusal_reaches_those_who_wait_and_sticks() -> None:
    world, tasks = await asked(calls=3)
    world.approvals.deny(world.approvals.pending()[0].code, by=None)
    outcome = await settled(*tasks)
    assert [type(found) for found in outcome] == [DeniedError] * 3
    with pytest.raises(DeniedError) as caught:
        await world.get("K", "L")
    assert caught.value.reason == "refused-by-operator"
    assert len(world.notifier.codes) == 1


async def test_a_refusal_is_of_one_tree_and_ends_with_it() -> None:
    world, tasks = await asked()
    world.approvals.deny(world.approvals.pending()[0].code, by=None)
    await settled(*tasks)
    world.processes.add(200)
    with pytest.raises(WaitingError):
        await world.get("K", pid=200)
    world.processes.kill(100)
    world.processes.add(100)
    with pytest.raises(WaitingError):
        await world.get("K", pid=100)


async def test_a_refusal_takes_the_trees_other_questions_for_those_keys_with_it() -> None:
    world, tasks = await asked("K")
    tasks.append(world.asks("K", "L"))
    await turns(lambda: len(world.approvals.pending()) == 2)
    world.approvals.deny(world.approvals.pending()[0].code, by=None)
    assert [type(found) for found in await settled(*tasks)] == [DeniedError] * 2
    assert world.approvals.pending() == []


async def test_a_consent_answers_the_trees_other_questions_that_it_covers() -> None:
    world, tasks = await asked("K")
    tasks.append(world.asks("K", "L"))
    await turns(lambda: len(world.approvals.pending()) == 2)
    both = next(found for found in world.approvals.pending() if len(found.names) == 2)
    world.approvals.approve(both.code, once=False, root_pid=0, by=None)
    assert await settled(*tasks) == [{"K": b"k"}, {"K": b"k", "L": b"l"}]
    assert world.approvals.pending() == []


async def test_an_answer_is_given_once() -> None:
    world, tasks = await asked()
    code = world.approvals.pending()[0].code
    world.approvals.approve(code, once=False, root_pid=0, by=None)
    with pytest.raises(RequestUnknownError):
        world.approvals.deny(code, by=None)
    with pytest.raises(RequestUnknownError):
        world.approvals.approve(code, once=False, root_pid=0, by=None)
    await settled(*tasks)


async def test_those_who_wait_end_with_the_root_of_their_tree() -> None:
    # Its tool lives on as a tree of its own, and the code that it was told means nothing any more.
    world, tasks = await asked(pid=101)
    world.processes.kill(100)
    (outcome,) = await settled(*tasks)
    assert isinstance(outcome, PeerUnknownError)
    assert world.approvals.pending() == []
    assert world.process_watches._held == {}


async def test_a_consent_ends_with_its_root_though_the_pid_lives_on() -> None:
    world, tasks = await asked()
    approve(world)
    await settled(*tasks)
    world.processes.kill(100)
    world.processes.add(100)
    world.processes.reparent(101, 100)
    with pytest.raises(WaitingError):
        await world.get("K")
    assert len(world.live_leases) == 0


async def test_a_root_that_has_ended_unheard_of_cannot_be_approved() -> None:
    world, tasks = await asked()
    root = world.processes._table.pop(100)
    with pytest.raises(PeerUnknownError):
        approve(world)
    world.processes._table[100] = root
    assert world.approvals.consents.in_force() == []
    world.approvals.close()
    await settled(*tasks)


@pytest.mark.parametrize("how", ["lock", "panic"])
async def test_those_who_wait_are_told_of_a_lock(how: str) -> None:
    world, tasks = await asked(calls=2)
    if how == "lock":
        world.vault.lock(by=None)
    else:
        assert world.revocation.panic(by=None).requests == 1
    assert [type(found) for found in await settled(*tasks)] == [LockedError] * 2
    assert world.approvals.pending() == []
    assert world.process_watches._held == {}


async def test_a_lock_forgets_every_answer() -> None:
    world, tasks = await asked()
    approve(world)
    await settled(*tasks)
    await world.opened_again()
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_those_who_wait_while_it_is_locked_and_unlocked_get_nothing() -> None:
    world, tasks = await asked()
    await world.opened_again()
    assert [type(found) for found in await settled(*tasks)] == [LockedError]


async def test_those_who_wait_are_told_that_the_daemon_stops() -> None:
    world, tasks = await asked()
    world.approvals.close()
    assert [type(found) for found in await settled(*tasks)] == [ShuttingDownError]
    with pytest.raises(ShuttingDownError):
        await world.get("K")


async def test_a_caller_that_goes_away_waits_no_more() -> None:
    world, tasks = await asked()
    tasks[0].cancel()
    await settled(*tasks)
    assert world.approvals.pending()[0].waiting == 0
    world.clock.pass_(int(LIFE))
    world.deadlines.review()
    assert world.approvals.pending() == []
    assert world.process_watches._held == {}


async def test_the_alarm_is_set_for_the_end_of_a_question() -> None:
    world = await World(idle=7200, longest=7200).stocked()
    with pytest.raises(WaitingError):
        await world.get("K")
    assert world.timer.deadline == world.clock.boot() + LIFE


async def test_a_tree_with_too_many_questions_is_told_and_not_read_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World().stocked()
    read: list[PeerFacts] = []

    def counted(facts: PeerFacts) -> dict[int, str]:
        read.append(facts)
        return {}

    monkeypatch.setattr(world.processes, "claimed_commands", counted)
    for number in range(MOST_OF_TREE):
        with pytest.raises(WaitingError):
            await world.get(f"K{number}")
    with pytest.raises(LimitError):
        await world.get("L")
    assert len(read) == len(world.notifier.codes) == MOST_OF_TREE


async def test_calls_that_had_to_give_way_fail_and_do_not_push_out_others() -> None:
    world = await World().stocked()
    tasks = []
    trees = MOST // MOST_OF_TREE + 1
    for number in range(trees):
        world.processes.add(1000 + number)
        tasks += [world.asks(f"K{name}", pid=1000 + number) for name in range(MOST_OF_TREE)]
    # The last one finds its own tree among the fullest.
    told = trees * MOST_OF_TREE - 1
    await turns(lambda: len(world.notifier.codes) == told)
    await turns(lambda: sum(task.done() for task in tasks) == MOST_OF_TREE)
    # Some more, in which nothing may happen.
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(world.notifier.codes) == told
    gone = [task.exception() for task in tasks if task.done()]
    assert {type(error) for error in gone} == {LimitError}
    assert len(world.approvals.pending()) == MOST
    world.vault.lock(by=None)
    await settled(*tasks)


async def test_the_calls_that_wait_for_one_answer_are_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.approvals.MOST_WAITING_OF_TREE", 2)
    world, tasks = await asked(calls=2)
    with pytest.raises(LimitError):
        await world.get("K", wait=60)
    approve(world)
    await settled(*tasks)


async def test_who_watches_hears_of_every_change_and_of_the_lock() -> None:
    world = await World().stocked()
    event = world.approvals.subscribe(None)
    task = world.asks("K")
    await world.approvals.changes(event)
    assert len(world.approvals.pending()) == 1
    event.clear()
    approve(world)
    await world.approvals.changes(event)
    await task
    event.clear()
    world.vault.lock(by=None)
    await world.approvals.changes(event)
    world.approvals.unsubscribe(event)


async def test_the_watchers_of_a_tree_are_limited_and_keep_nobody_else_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.approvals.MOST_WATCHERS_OF_TREE", 1)
    world = await World().stocked()
    world.processes.add(200)
    first = world.approvals.subscribe(world.tree(100))
    with pytest.raises(LimitError):
        world.approvals.subscribe(world.tree(100))
    world.approvals.subscribe(world.tree(200))
    world.approvals.unsubscribe(first)
    world.approvals.subscribe(world.tree(100))


async def test_watchers_of_many_trees_do_not_keep_the_operator_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.approvals.MOST_WATCHERS", 1)
    world = await World().stocked()
    world.processes.add(200)
    world.approvals.subscribe(world.tree(100))
    with pytest.raises(LimitError):
        world.approvals.subscribe(world.tree(200))
    world.approvals.subscribe(None)


@pytest.mark.parametrize("wish", [{"reason": "x" * 257}, {"wait": 3601}])
async def test_a_wish_out_of_bounds_is_refused_before_anybody_is_asked(
    wish: dict[str, Any],
) -> None:
    world = await World().stocked()
    with pytest.raises(InvalidRequestError):
        await world.hand_out(world.connect(), "K", **wish)
    assert world.approvals.pending() == []
