"""Answers, revocations and policies that come while a call is under way."""

import asyncio
from collections.abc import Callable

import pytest

from backpackd.core.errors import DeniedError, PeerUnknownError, RequestUnknownError
from backpackd.core.policy import DenyRule, Policy
from fakes import Gate, World, settled, turns


async def under_way(world: World, *names: str) -> tuple["asyncio.Task[dict[str, bytes]]", Gate]:
    """Begin to get keys, and hold the call when it was decided on and the values are open."""
    gate = world.store.after_rows = Gate()
    task = asyncio.create_task(world.get(*names))
    await gate.reached()
    world.store.after_rows = None
    return task, gate


@pytest.mark.parametrize(
    "revoke",
    [
        lambda world: world.revoking.key("K"),
        lambda world: world.revoking.tree(100),
        lambda world: world.revoking.all(),
    ],
)
@pytest.mark.parametrize("consented", [False, True])
async def test_a_revocation_overtakes_a_call_that_was_decided_on(
    revoke: Callable[[World], object], consented: bool
) -> None:
    world = await World().stocked()
    if consented:
        task = world.asks("K")
        world.asking.approve((await world.waiting()).code, once=False, root_pid=0)
        await task
    else:
        await world.grant("K")
        await world.get("K")
    task, gate = await under_way(world, "K")
    revoke(world)
    gate.open()
    with pytest.raises(DeniedError):
        await task
    assert len(world.leasing) == 0


async def test_a_new_rule_overtakes_a_call_that_was_decided_on() -> None:
    world = await World().stocked()
    await world.grant("K")
    task, gate = await under_way(world, "K")
    world.ruling.tighten(Policy(deny=(DenyRule(("K",)),)))
    gate.open()
    with pytest.raises(DeniedError) as caught:
        await task
    assert caught.value.reason == "denied-by-rule"
    assert len(world.leasing) == 0


async def test_of_two_calls_with_one_use_of_a_consent_one_gets_it() -> None:
    world = await World().stocked()
    first = world.asks("K")
    world.asking.approve((await world.waiting()).code, once=True, root_pid=0)
    # In the moment of the answer another call of the tree is faster than the one that waited.
    second = world.asks("K")
    await turns(lambda: first.done() or second.done())
    # The other one is a question again.
    await world.waiting()
    assert len(world.leasing) == 1
    world.vault.lock()
    await settled(first, second)


@pytest.mark.parametrize(
    "answer",
    [
        lambda world, code: world.asking.approve(code, once=False, root_pid=0),
        lambda world, code: world.asking.deny(code),
    ],
)
async def test_a_tree_that_ends_while_a_person_types_is_answered_for_nobody(
    answer: Callable[[World, str], object],
) -> None:
    world = await World().stocked()
    task = world.asks("K")
    code = (await world.waiting()).code
    world.processes.kill(100)
    world.processes.add(100)
    with pytest.raises(RequestUnknownError):
        answer(world, code)
    (error,) = await settled(task)
    assert isinstance(error, PeerUnknownError)
    assert world.asking.answers.consents() == []
    assert world.watching._held == {}


async def test_renewing_at_the_ceiling_again_and_again_moves_nothing_and_keeps_nothing() -> None:
    world = await World().stocked()
    await world.grant("K", max_ttl=60)
    connection = world.connect()
    lease = await world.lease(ttl=10**6)
    until = world.clock.boot() + 60
    world.clock.pass_(30)
    for _ in range(1000):
        assert world.renew(connection, lease.id, ttl=10**6).expires_at == until
    assert len(world.leasing._table._heap) < 100
    world.clock.pass_(30)
    assert world.leasing.all() == []
