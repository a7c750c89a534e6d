"""The date by which grants expire is never set back while the vault is unlocked."""

import pytest

from backpackd.core.errors import LockedError, WaitingError
from fakes import World


async def test_a_clock_that_is_set_back_revives_no_grant() -> None:
    world = await World().stocked()
    await world.grant("K", valid=60)
    world.clock.pass_(120)
    with pytest.raises(WaitingError):
        await world.get("K")
    world.clock.epoch -= 110
    with pytest.raises(WaitingError):
        await world.get("K")
    assert world.standing_grants.all() == []


async def test_a_grant_stands_for_its_time_though_the_clock_was_set_back() -> None:
    world = await World().stocked()
    world.grant_clock.now_ms()
    world.clock.epoch -= 3600
    await world.grant("K", valid=60)
    assert await world.get("K") == {"K": b"k"}
    world.clock.pass_(60)
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_a_consent_for_once_can_be_used_though_the_clock_was_set_back() -> None:
    world = await World().stocked()
    waiting = world.asks("K")
    request = await world.waiting()
    world.clock.epoch -= 3600
    world.approvals.approve(request.code, once=True, root_pid=0, by=None)
    assert await waiting == {"K": b"k"}


async def test_the_date_goes_on_with_the_boot_clock_and_jumps_ahead_with_the_other() -> None:
    world = await World().stocked()
    start = world.grant_clock.now_ms()
    world.clock.seconds += 5
    assert world.grant_clock.now_ms() == start + 5000
    world.clock.epoch += 60
    assert world.grant_clock.now_ms() == start + 60_000
    world.clock.epoch -= 30
    world.clock.seconds += 1
    assert world.grant_clock.now_ms() == start + 61_000


async def test_a_clock_that_was_put_right_counts_again_after_locking() -> None:
    world = await World().stocked()
    start = world.grant_clock.now_ms()
    world.clock.epoch += 10**6
    assert world.grant_clock.now_ms() == start + 10**9
    world.clock.epoch -= 10**6
    world.clock.seconds += 1
    await world.opened_again()
    assert world.grant_clock.now_ms() == start


async def test_a_locked_vault_has_no_date() -> None:
    world = await World().stocked()
    world.vault.lock(by=None)
    with pytest.raises(LockedError):
        world.grant_clock.now_ms()
