"""The vault locks by itself: after its longest time, and when it is idle without a lease."""

from backpackd.core.vault.states import State
from fakes import World, state_of


async def world_(idle: int = 600, longest: int = 3600) -> World:
    world = await World(idle=idle, longest=longest).unlocked()
    await world.put("K")
    await world.grant("K")
    world.vault.touch()
    world.deadlines.review()
    return world


async def test_an_idle_vault_locks() -> None:
    world = await world_()
    world.clock.pass_(599)
    world.deadlines.review()
    assert state_of(world) is State.UNLOCKED
    world.clock.pass_(1)
    world.deadlines.review()
    assert state_of(world) is State.LOCKED


async def test_the_alarm_is_set_to_the_moment_of_idleness() -> None:
    world = await world_()
    assert world.timer.deadline == world.clock.boot() + 600


async def test_a_use_puts_locking_off() -> None:
    world = await world_()
    world.clock.pass_(500)
    world.vault.touch()
    world.clock.pass_(500)
    world.deadlines.review()
    assert state_of(world) is State.UNLOCKED
    assert world.timer.deadline == world.clock.boot() + 100


async def test_a_vault_with_a_live_lease_is_not_idle() -> None:
    world = await world_()
    await world.get("K", ttl=2000)
    world.clock.pass_(1999)
    world.deadlines.review()
    assert state_of(world) is State.UNLOCKED


async def test_idling_begins_with_the_end_of_the_last_lease() -> None:
    world = await world_()
    await world.get("K", ttl=2000)
    world.clock.pass_(2000)
    world.deadlines.review()
    assert state_of(world) is State.UNLOCKED
    assert world.timer.deadline == world.clock.boot() + 600
    world.clock.pass_(600)
    world.deadlines.review()
    assert state_of(world) is State.LOCKED


async def test_the_vault_locks_after_its_longest_time_used_or_not() -> None:
    world = await world_()
    await world.get("K", ttl=5000)
    world.clock.pass_(3600)
    world.vault.touch()
    world.deadlines.review()
    assert state_of(world) is State.LOCKED
    assert len(world.live_leases) == 0


async def test_a_forgotten_agent_that_renews_does_not_outlast_the_longest_time() -> None:
    world = await world_()
    connection = world.connect()
    handout = await world.hand_out(connection, "K", ttl=600)
    for _ in range(7):
        world.clock.pass_(500)
        world.renew(connection, handout.lease.id)
    world.clock.pass_(100)
    world.deadlines.review()
    assert state_of(world) is State.LOCKED


async def test_a_locked_vault_sets_no_alarm() -> None:
    world = await world_()
    await world.get("K")
    world.vault.lock(by=None)
    assert world.timer.deadline is None


async def test_a_new_session_is_not_idle_because_of_the_last_one() -> None:
    world = await world_()
    await world.get("K")
    world.clock.pass_(5000)
    await world.opened_again()
    world.deadlines.review()
    assert state_of(world) is State.UNLOCKED
    assert world.timer.deadline == world.clock.boot() + 600
