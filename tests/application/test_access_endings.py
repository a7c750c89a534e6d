"""Everything that ends a lease, and what keeps one from beginning."""

import asyncio

import pytest

from backpackd.adapters.processes.memory import MemoryProcess
from backpackd.core.errors import (
    LeaseUnknownError,
    LimitError,
    PeerUnknownError,
)
from backpackd.core.peer_facts import ProcessId
from fakes import Gate, World, settled


async def test_leases_end_with_their_holder() -> None:
    world = await World().stocked()
    await world.grant("*")
    await world.get("K")
    await world.get("L")
    world.processes.kill(100)
    assert len(world.live_leases) == 0
    assert world.process_watches._held == {}


async def test_leases_outlive_the_tool_that_asked() -> None:
    world = await World().stocked()
    await world.grant("K")
    await world.get("K", pid=101)
    world.processes.kill(101)
    assert len(world.live_leases) == 1


async def test_leases_end_with_the_process_that_their_grant_names() -> None:
    world = await World().stocked()
    await world.grant("K", to="tree:101")
    await world.get("K", pid=101)
    world.processes.kill(101)
    assert len(world.live_leases) == 0
    assert [process.pid for process in world.process_watches._held] == [100]
    world.processes.kill(100)
    assert world.process_watches._held == {}


async def test_a_root_that_ends_between_attesting_and_issuing_gets_nothing() -> None:
    world = await World().stocked()
    await world.grant("K")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.after_rows.reached()
    world.processes.kill(100)
    world.store.after_rows.open()
    with pytest.raises(PeerUnknownError):
        await getting
    assert len(world.live_leases) == 0


async def test_a_process_named_by_a_grant_that_ends_before_issuing_gets_nothing() -> None:
    world = await World().stocked()
    await world.grant("K", to="tree:101")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.get("K", pid=101))
    await world.store.after_rows.reached()
    world.processes.kill(101)
    world.store.after_rows.open()
    with pytest.raises(PeerUnknownError):
        await getting
    assert len(world.live_leases) == 0
    assert world.process_watches._held == {}


async def test_a_recycled_pid_of_a_root_gets_nothing() -> None:
    world = await World().stocked()
    await world.grant("K")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.get("K"))
    await world.store.after_rows.reached()
    world.processes.kill(100)
    world.processes.add(100)
    world.store.after_rows.open()
    with pytest.raises(PeerUnknownError):
        await getting
    assert len(world.live_leases) == 0
    assert world.process_watches._held == {}


async def test_a_known_root_whose_end_was_not_yet_heard_of_gets_nothing() -> None:
    world = await World().stocked()
    await world.grant("*")
    await world.get("K")
    # The kernel knows, and the event loop has not come round to it yet.
    root = world.processes._table[100]
    connection = world.connect(101)
    world.store.after_rows = Gate()
    getting = asyncio.create_task(world.hand_out(connection, "L"))
    await world.store.after_rows.reached()
    del world.processes._table[100]
    world.store.after_rows.open()
    with pytest.raises(PeerUnknownError):
        await getting
    world.processes._table[100] = root
    world.processes.kill(100)
    assert len(world.live_leases) == 0


async def test_too_few_descriptors_are_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World().stocked()
    await world.grant("K")
    connection = world.connect()

    def pin(_: int) -> tuple[MemoryProcess, ProcessId]:
        raise LimitError("too many processes are held")

    monkeypatch.setattr(world.processes, "pin", pin)
    with pytest.raises(LimitError):
        await world.hand_out(connection, "K")
    assert len(world.live_leases) == 0


async def test_a_holder_is_watched_once_and_until_it_ends_or_the_vault_is_locked() -> None:
    world = await World().stocked()
    await world.grant("*")
    first, second = await world.lease("K"), await world.lease("L")
    assert len(world.process_watches._held) == 1
    world.revocation.give_back(first.holder, first.id, by=None)
    assert len(world.process_watches._held) == 1
    world.revocation.give_back(second.holder, second.id, by=None)
    # A revocation would still mean it: it had the keys.
    assert len(world.process_watches._held) == 1
    world.vault.lock(by=None)
    assert world.process_watches._held == {}


async def test_a_lease_expires_by_the_timer() -> None:
    world = await World().stocked()
    await world.grant("K")
    await world.get("K", ttl=60)
    assert world.timer.deadline == world.clock.boot() + 60
    world.clock.pass_(60)
    world.deadlines.review()
    assert len(world.live_leases) == 0


async def test_a_lease_that_is_due_is_over_before_the_timer_rings() -> None:
    world = await World().stocked()
    await world.grant("K")
    connection = world.connect()
    found = await world.lease(ttl=60)
    world.clock.pass_(60)
    assert world.live_leases.all() == []
    assert world.live_leases.of(world.tree()) == []
    with pytest.raises(LeaseUnknownError):
        world.renew(connection, found.id)


async def test_renewing_counts_from_now() -> None:
    world = await World().stocked()
    await world.grant("K")
    connection = world.connect()
    found = await world.lease(ttl=60)
    world.clock.pass_(30)
    assert world.renew(connection, found.id).expires_at == world.clock.boot() + 60
    assert world.timer.deadline == world.clock.boot() + 60


async def test_another_tree_cannot_renew_and_is_told_as_of_no_lease() -> None:
    world = await World().stocked()
    await world.grant("K")
    world.processes.add(200)
    stranger = world.connect(200)
    found = await world.lease()
    told = []
    for lease_id in (found.id, "0" * 32):
        with pytest.raises(LeaseUnknownError) as caught:
            world.renew(stranger, lease_id)
        told.append(caught.value.message)
    assert told[0] == told[1]


async def test_locking_ends_every_lease() -> None:
    world = await World().stocked()
    await world.grant("*")
    connection = world.connect()
    found = await world.lease()
    world.vault.lock(by=None)
    assert len(world.live_leases) == 0
    assert world.process_watches._held == {}
    await world.vault.unlock(b"seven quiet otters", world.tree(), by=None)
    with pytest.raises(LeaseUnknownError):
        world.renew(connection, found.id)


@pytest.mark.parametrize(
    ("what", "left"), [("id", 3), ("key", 2), ("tree", 1), ("grant", 2), ("all", 0)]
)
async def test_revoking_ends_what_it_names_and_nothing_else(what: str, left: int) -> None:
    world = await World().stocked()
    on_k, _ = await world.grant("K"), await world.grant("L")
    world.processes.add(200)
    found = await world.lease("K")
    await world.lease("L")
    await world.lease("L")
    await world.lease("K", pid=200)
    match what:
        case "id":
            ended = world.revocation.lease(found.id, by=None)
        case "key":
            ended = world.revocation.key("K", by=None)
        case "tree":
            ended = world.revocation.tree(100, by=None)
        case "grant":
            ended = world.live_leases.end_grant(on_k.id, "grant-gone", by=None)
        case _:
            ended = world.revocation.all(by=None)
    assert len(ended) == 4 - left
    assert len(world.live_leases) == left


async def test_deleting_a_key_ends_the_leases_that_hold_it() -> None:
    world = await World().stocked()
    await world.grant("*")
    await world.get("K")
    await world.get("K", "L")
    await world.get("L")
    assert await world.access.delete_keys(["K"], by=None) == 2
    assert len(world.live_leases) == 1


async def test_a_caller_that_goes_away_does_not_keep_leases_of_a_deleted_key() -> None:
    world = await World().stocked()
    await world.grant("K")
    await world.get("K")
    world.store.before_commit = Gate()
    deleting = asyncio.create_task(world.access.delete_keys(["K"], by=None))
    await world.store.before_commit.reached()
    deleting.cancel()
    world.store.before_commit.open()
    await settled(deleting)
    await world.vault.settle()
    assert len(world.live_leases) == 0
