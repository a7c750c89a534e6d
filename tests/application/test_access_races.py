"""Answers, revocations and policies that come while a call is under way."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from backpackd.core.access.policy import DenyRule, Policy, make_rule
from backpackd.core.errors import DeniedError, PeerUnknownError, RequestUnknownError, WaitingError
from fakes import Gate, World, settled, turns


async def under_way(world: World, *names: str) -> tuple["asyncio.Task[dict[str, bytes]]", Gate]:
    """Begin to get keys, and hold the call when it was decided on and the values are open."""
    gate = world.store.after_rows = Gate()
    task = asyncio.create_task(world.get(*names))
    await gate.reached()
    world.store.after_rows = None
    return task, gate


async def in_commit(world: World, *names: str) -> tuple["asyncio.Task[dict[str, bytes]]", Gate]:
    """Begin to get keys, and hold the call when a use of its grant is spent."""
    gate = world.store.after_commit = Gate()
    task = asyncio.create_task(world.get(*names))
    await gate.reached()
    world.store.after_commit = None
    return task, gate


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda world: world.revocation.key("K", by=None), "waiting-for-approval"),
        (lambda world: world.revocation.tree(100, by=None), "waiting-for-approval"),
        (lambda world: world.revocation.all(by=None), "waiting-for-approval"),
        (
            lambda world: world.vault_policy.tighten(Policy("allow", "all", (DenyRule(("K",)),))),
            "denied-by-rule",
        ),
    ],
)
@pytest.mark.parametrize("before", [False, True])
async def test_what_comes_while_a_use_is_spent_overtakes_the_call(
    change: Callable[[World], object], told: str, before: bool
) -> None:
    world = await World().stocked()
    await world.grant("K", uses=5)
    if before:
        await world.get("K")
    task, gate = await in_commit(world, "K")
    change(world)
    gate.open()
    (found,) = await settled(task)
    assert found.reason == told
    assert len(world.live_leases) == 0


async def test_a_lower_ceiling_that_comes_while_a_use_is_spent_holds_for_the_lease() -> None:
    world = await World().stocked()
    await world.grant("K", uses=5)
    gate = world.store.after_commit = Gate()
    task = asyncio.create_task(world.lease("K", ttl=86400))
    await gate.reached()
    world.store.after_commit = None
    world.vault_policy.tighten(Policy("allow", "all", (), 60))
    gate.open()
    lease = await task
    assert lease.max_expires_at - lease.issued_at == 60


async def test_the_last_use_of_a_grant_is_handed_out() -> None:
    world = await World().stocked()
    await world.grant("K", uses=1)
    assert await world.get("K") == {"K": b"k"}
    assert [grant.uses_left for grant in world.standing_grants.all()] == [0]


async def test_a_rule_by_digest_that_comes_under_way_is_looked_at() -> None:
    world = await World().stocked()
    await world.grant("K")
    caller = world.access.attest(world.connect()).process
    assert caller.executable is not None
    digest = world.processes.digest(caller.id, caller.executable)
    task, gate = await under_way(world, "K")
    world.vault_policy.tighten(Policy("allow", "all", (make_rule(["K"], f"sha256:{digest}"),)))
    gate.open()
    (found,) = await settled(task)
    assert isinstance(found, DeniedError)
    assert found.reason == "denied-by-rule"
    assert len(world.live_leases) == 0


async def test_a_rule_by_digest_of_another_program_keeps_nobody_from_a_key() -> None:
    world = await World().stocked()
    await world.grant("K")
    task, gate = await under_way(world, "K")
    world.vault_policy.tighten(Policy("allow", "all", (make_rule(["K"], "sha256:" + "0" * 64),)))
    gate.open()
    assert await task == {"K": b"k"}


@pytest.mark.parametrize(
    "revoke",
    [
        lambda world: world.revocation.key("K", by=None),
        lambda world: world.revocation.tree(100, by=None),
        lambda world: world.revocation.all(by=None),
    ],
)
@pytest.mark.parametrize("consented", [False, True])
async def test_a_revocation_overtakes_a_call_that_was_decided_on(
    revoke: Callable[[World], object], consented: bool
) -> None:
    world = await World().stocked()
    if consented:
        task = world.asks("K")
        world.approvals.approve((await world.waiting()).code, once=False, root_pid=0, by=None)
        await task
    else:
        await world.grant("K")
        await world.get("K")
    task, gate = await under_way(world, "K")
    revoke(world)
    gate.open()
    # What was revoked is a question from then on.
    with pytest.raises(WaitingError):
        await task
    assert len(world.live_leases) == 0


async def test_a_new_rule_overtakes_a_call_that_was_decided_on() -> None:
    world = await World().stocked()
    await world.grant("K")
    task, gate = await under_way(world, "K")
    world.vault_policy.tighten(Policy(deny=(DenyRule(("K",)),)))
    gate.open()
    with pytest.raises(DeniedError) as caught:
        await task
    assert caught.value.reason == "denied-by-rule"
    assert len(world.live_leases) == 0


async def test_of_two_calls_with_one_use_of_a_consent_one_gets_it() -> None:
    world = await World().stocked()
    first = world.asks("K")
    world.approvals.approve((await world.waiting()).code, once=True, root_pid=0, by=None)
    # In the moment of the answer another call of the tree is faster than the one that waited.
    second = world.asks("K")
    await turns(lambda: first.done() or second.done())
    # The other one is a question again.
    await world.waiting()
    assert len(world.live_leases) == 1
    world.vault.lock(by=None)
    await settled(first, second)


@pytest.mark.parametrize(
    "answer",
    [
        lambda world, code: world.approvals.approve(code, once=False, root_pid=0, by=None),
        lambda world, code: world.approvals.deny(code, by=None),
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
    assert world.approvals.consents.in_force() == []
    assert world.process_watches._held == {}


async def test_renewing_at_the_ceiling_again_and_again_moves_nothing_and_keeps_nothing() -> None:
    world = await World().stocked()
    await world.grant("K", max_ttl=60)
    connection = world.connect()
    lease = await world.lease(ttl=10**6)
    until = world.clock.boot() + 60
    world.clock.pass_(30)
    for _ in range(1000):
        assert world.renew(connection, lease.id, ttl=10**6).expires_at == until
    assert len(world.live_leases._table._heap) < 100
    world.clock.pass_(30)
    assert world.live_leases.all() == []


async def delete_and_put(world: World) -> None:
    await world.access.delete_keys(["K"], by=None)
    await world.put("K", b"new")


async def replace(world: World) -> None:
    await world.put("K", b"new")


async def rotate(world: World) -> None:
    await world.rotation.rotate(lambda _done, _total: None, by=None)


@pytest.mark.parametrize(
    ("change", "value"), [(delete_and_put, b"new"), (replace, b"new"), (rotate, b"k")]
)
@pytest.mark.parametrize("uses", [0, 1])
async def test_a_value_that_was_taken_back_meanwhile_is_not_handed_out(
    change: Callable[[World], Awaitable[None]], value: bytes, uses: int
) -> None:
    world = await World().stocked()
    await world.grant("K", uses=uses)
    task, gate = await under_way(world, "K")
    await change(world)
    gate.open()
    # Decided from the beginning, with the one use that there is.
    assert await task == {"K": value}
    assert len(world.live_leases) == 1
