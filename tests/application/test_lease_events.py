"""What watchers of leases are told, revoking that sticks, and the boot clock's jumps."""

import asyncio

import pytest

from backpackd.application.access.leases import _BACKLOG, LeaseWatcher
from backpackd.core.errors import LeaseUnknownError, LimitError, WaitingError
from fakes import Gate, World, settled


async def told(watcher: LeaseWatcher, events: int) -> list[tuple[str, str]]:
    found = []
    for _ in range(events):
        event = await watcher.next()
        assert event is not None
        found.append((event.kind, event.reason))
    return found


async def watched() -> tuple[World, LeaseWatcher]:
    world = await World().stocked()
    await world.grant("*")
    return world, world.live_leases.watch(None)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda world, _: world.revocation.all(by=None), "revoked"),
        (
            lambda world, lease: world.revocation.give_back(lease.holder, lease.id, by=None),
            "given-back",
        ),
        (lambda world, _: world.processes.kill(100), "holder-gone"),
        (lambda world, _: world.vault.lock(by=None), "locked"),
        (lambda world, _: world.revocation.panic(by=None), "panic"),
    ],
)
async def test_a_watcher_is_told_in_the_same_moment_and_why(end, reason: str) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    world, watcher = await watched()
    lease = await world.lease()
    end(world, lease)
    assert watcher._events.qsize() >= 2
    assert await told(watcher, 2) == [("issued", ""), ("ended", reason)]


async def test_a_watcher_is_told_of_deadlines_deleted_keys_and_taken_back_grants() -> None:
    world, watcher = await watched()
    (grant,) = world.standing_grants.all()
    await world.lease(ttl=60)
    world.clock.pass_(60)
    world.deadlines.review()
    await world.lease()
    await world.access.delete_keys(["K"], by=None)
    await world.lease("L")
    await world.standing_grants.remove(grant.id, by=None)
    reasons = [reason for kind, reason in await told(watcher, 6) if kind == "ended"]
    assert reasons == ["expired", "key-deleted", "grant-gone"]


async def test_a_renewal_is_told() -> None:
    world, watcher = await watched()
    connection = world.connect()
    world.renew(connection, (await world.lease()).id)
    assert await told(watcher, 2) == [("issued", ""), ("renewed", "")]


async def test_a_watcher_of_one_tree_is_told_of_no_other() -> None:
    world, _ = await watched()
    world.processes.add(200)
    own = world.live_leases.watch(world.tree(200))
    await world.lease(pid=101)
    lease = await world.lease(pid=200)
    event = await own.next()
    assert event is not None
    assert event.lease is lease
    assert own._events.empty()


async def test_a_slow_watcher_is_given_up_and_holds_nobody_up() -> None:
    world, watcher = await watched()
    for _ in range(_BACKLOG):
        await world.lease()
    assert len(world.revocation.all(by=None)) == _BACKLOG
    assert len(world.live_leases) == 0
    assert watcher.lost
    assert await watcher.next() is None


async def test_the_lock_ends_every_watch_after_what_was_told() -> None:
    world, watcher = await watched()
    world.vault.lock(by=None)
    assert await watcher.next() is None


async def test_the_watchers_of_a_tree_are_limited_and_keep_nobody_else_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.leases.MOST_WATCHERS", 3)
    monkeypatch.setattr("backpackd.application.access.leases.MOST_WATCHERS_OF_TREE", 2)
    world, _ = await watched()
    world.processes.add(200)
    own, other = world.tree(100), world.tree(200)
    world.live_leases.watch(own)
    world.live_leases.watch(own)
    for tree in (own, other):
        if tree == other:
            world.live_leases.watch(other)
        with pytest.raises(LimitError):
            world.live_leases.watch(tree)
    world.live_leases.watch(None)


async def test_watchers_are_limited_and_make_room_when_they_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.leases.MOST_WATCHERS", 2)
    world, watcher = await watched()
    world.live_leases.watch(None)
    with pytest.raises(LimitError):
        world.live_leases.watch(None)
    world.live_leases.unwatch(watcher)
    world.live_leases.watch(None)


@pytest.mark.parametrize(
    "revoke",
    [
        lambda world, lease: world.revocation.lease(lease.id, by=None),
        lambda world, _: world.revocation.key("K", by=None),
        lambda world, _: world.revocation.all(by=None),
    ],
)
async def test_revoking_sticks_until_a_person_is_asked(revoke) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    world, _ = await watched()
    revoke(world, await world.lease())
    with pytest.raises(WaitingError):
        await world.get("K")
    assert await world.get("L") == {"L": b"l"}
    world.approvals.approve(world.approvals.pending()[0].code, once=False, root_pid=0, by=None)
    assert await world.get("K") == {"K": b"k"}


async def test_revoking_from_a_tree_means_every_key_whether_it_had_it_or_not() -> None:
    world, _ = await watched()
    world.revocation.tree(100, by=None)
    for name in ("K", "L"):
        with pytest.raises(WaitingError):
            await world.get(name)
    world.processes.add(200)
    assert await world.get("K", pid=200) == {"K": b"k"}


async def test_revoking_from_a_pid_that_nobody_has_ends_nothing() -> None:
    world, _ = await watched()
    assert world.revocation.tree(4711, by=None) == []
    assert await world.get("K") == {"K": b"k"}


@pytest.mark.parametrize(
    "revoke",
    [lambda world: world.revocation.key("K", by=None), lambda world: world.revocation.all(by=None)],
)
@pytest.mark.parametrize("over", ["given back", "expired", "not yet issued"])
async def test_revoking_means_trees_that_have_no_lease_at_that_moment(over, revoke) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    world = await World().stocked()
    await world.grant("*")
    if over == "not yet issued":
        gate = world.store.after_rows = Gate()
        task = asyncio.create_task(world.get("K"))
        await gate.reached()
        world.store.after_rows = None
        revoke(world)
        gate.open()
        (found,) = await settled(task)
        assert isinstance(found, WaitingError)
    else:
        lease = await world.lease(ttl=1)
        if over == "given back":
            world.revocation.give_back(lease.holder, lease.id, by=None)
        else:
            world.clock.pass_(2)
            world.deadlines.review()
        revoke(world)
    assert len(world.live_leases) == 0
    with pytest.raises(WaitingError):
        await world.get("K")
    assert await world.get("L") == {"L": b"l"}


async def test_of_a_tree_that_had_too_many_keys_to_remember_every_one_is_revoked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpackd.application.access.leases._MOST_PAST", 1)
    world = await World().stocked()
    await world.grant("*")
    for name in ("K", "L"):
        lease = await world.lease(name)
        world.revocation.give_back(lease.holder, lease.id, by=None)
    world.revocation.key("M", by=None)
    with pytest.raises(WaitingError):
        await world.get("M")
    world.revocation.all(by=None)
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_what_is_remembered_of_a_tree_ends_with_it() -> None:
    world = await World().stocked()
    await world.grant("*")
    lease = await world.lease()
    world.revocation.give_back(lease.holder, lease.id, by=None)
    assert world.live_leases.had("K") == [(lease.holder, ("K",))]
    world.processes.kill(100)
    assert world.live_leases.had() == []


async def test_revoking_from_one_tree_leaves_the_others_their_grants() -> None:
    world, _ = await watched()
    world.processes.add(200)
    world.revocation.lease((await world.lease()).id, by=None)
    assert await world.get("K", pid=200) == {"K": b"k"}


async def test_what_was_given_back_may_be_leased_again() -> None:
    world, _ = await watched()
    lease = await world.lease()
    assert world.revocation.give_back(lease.holder, lease.id, by=None) == [lease]
    assert await world.get("K") == {"K": b"k"}


async def test_nobody_gives_back_what_is_anothers() -> None:
    world, _ = await watched()
    world.processes.add(200)
    lease = await world.lease()
    assert world.revocation.give_back(world.tree(200), lease.id, by=None) == []
    assert len(world.live_leases) == 1


async def consented(*, pid: int = 101, root_pid: int = 0) -> World:
    world = await World().stocked()
    task = world.asks("K", pid=pid)
    request = await world.waiting()
    world.approvals.approve(request.code, once=False, root_pid=root_pid, by=None)
    await task
    return world


@pytest.mark.parametrize("root_pid", [0, 50, 100, 101])
async def test_revoking_ends_the_consent_whichever_root_the_person_chose(root_pid: int) -> None:
    world = await World().stocked()
    world.processes.add(50, session=50, terminal=5)
    world.processes.add(100, parent=50, session=50, terminal=5)
    world.processes.add(101, parent=100, session=50, terminal=5)
    task = world.asks("K")
    request = await world.waiting()
    assert request.tree.pid == 100
    world.approvals.approve(request.code, once=False, root_pid=root_pid, by=None)
    await task
    assert len(world.revocation.all(by=None)) == 1
    with pytest.raises(WaitingError):
        await world.get("K")


@pytest.mark.parametrize(
    "revoke",
    [
        lambda world: world.revocation.key("K", by=None),
        lambda world: world.revocation.tree(100, by=None),
        lambda world: world.revocation.all(by=None),
    ],
)
async def test_giving_a_lease_back_first_does_not_save_a_consent(revoke) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    world = await consented()
    (lease,) = world.live_leases.all()
    world.revocation.give_back(lease.holder, lease.id, by=None)
    revoke(world)
    assert world.approvals.consents.in_force() == []
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_revoking_one_lease_ends_all_that_rest_on_its_consent() -> None:
    world = await consented()
    other = await world.lease()
    assert len(world.revocation.lease(other.id, by=None)) == 2
    assert len(world.live_leases) == 0


async def test_a_revocation_is_forgotten_with_its_tree() -> None:
    world, _ = await watched()
    await world.lease()
    world.revocation.all(by=None)
    assert world.approvals.consents.trees() == {world.tree(100)}
    world.processes.kill(100)
    assert world.approvals.consents.trees() == set()
    assert world.process_watches._held == {}


@pytest.mark.parametrize("eight_hours_and", [0, 1])
async def test_a_suspend_ends_what_was_due_and_lengthens_nothing(eight_hours_and: int) -> None:
    world = await World(idle=10**6, longest=10**6).stocked()
    await world.grant("*", max_ttl=9 * 3600)
    connection = world.connect()
    short, long = await world.lease(ttl=600), await world.lease(ttl=9 * 3600)
    bounds = (long.expires_at, long.max_expires_at)
    # The timer rings late; the boot clock has counted on, the wall clock was set back.
    world.clock.seconds += 8 * 3600 + eight_hours_and
    world.clock.epoch -= 60
    assert world.live_leases.find(short.id) is None
    with pytest.raises(LeaseUnknownError):
        world.renew(connection, short.id)
    world.deadlines.review()
    assert world.live_leases.all() == [long]
    assert (long.expires_at, long.max_expires_at) == bounds
    assert world.renew(connection, long.id).expires_at == bounds[1]


async def test_a_suspend_past_the_hard_maximum_locks() -> None:
    world = await World(idle=3600, longest=3600).stocked()
    await world.grant("K", max_ttl=9 * 3600)
    await world.lease(ttl=9 * 3600)
    world.clock.seconds += 8 * 3600
    world.deadlines.review()
    assert len(world.live_leases) == 0
    assert world.vault.state.name == "LOCKED"
