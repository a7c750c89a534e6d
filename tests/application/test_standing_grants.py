"""Grants: bounded, tied to what they name, and gone when taken back."""

import asyncio
from typing import Any

import pytest

from backpackd.core.access.grants import DEFAULT_MAX_TTL, LONGEST_TTL
from backpackd.core.errors import (
    GrantUnknownError,
    InvalidRequestError,
    LimitError,
    ProcessUnknownError,
    WaitingError,
)
from fakes import UID, Gate, World, settled


async def stocked() -> World:
    world = await World().unlocked()
    await world.put("K", b"k")
    return world


async def test_a_grant_outlives_a_lock() -> None:
    world = await stocked()
    await world.grant("K")
    await world.opened_again()
    assert await world.get("K") == {"K": b"k"}


async def test_a_tree_grant_covers_the_process_and_its_descendants() -> None:
    world = await stocked()
    await world.grant("K", to="tree:100")
    assert await world.get("K", pid=101) == {"K": b"k"}
    assert await world.get("K", pid=100) == {"K": b"k"}


async def test_a_tree_grant_covers_nobody_else() -> None:
    world = await stocked()
    await world.grant("K", to="tree:100")
    world.processes.add(200)
    with pytest.raises(WaitingError):
        await world.get("K", pid=200)


async def test_a_tree_grant_dies_with_its_root_though_the_pid_lives_on() -> None:
    world = await stocked()
    await world.grant("K", to="tree:100")
    world.processes.kill(100)
    world.processes.add(100)
    world.processes.reparent(101, 100)
    with pytest.raises(WaitingError):
        await world.get("K", pid=101)
    assert world.standing_grants.all() == []


async def test_a_tree_that_is_not_running_is_granted_nothing() -> None:
    world = await stocked()
    with pytest.raises(ProcessUnknownError):
        await world.grant("K", to="tree:4242")


async def test_a_tree_grant_of_another_boot_covers_nobody() -> None:
    world = await stocked()
    await world.grant("K", to="tree:100")
    world.processes._boot_id = "boot-2"
    with pytest.raises(WaitingError):
        await world.get("K")
    assert world.standing_grants.all() == []


async def test_grants_that_can_never_allow_anything_are_pruned_with_the_next_one() -> None:
    world = await stocked()
    await world.grant("K", uses=1)
    await world.get("K")
    world.revocation.all(by=None)
    dead = await world.grant("K", to="tree:100")
    expired = await world.grant("K", valid=10)
    assert {dead.id, expired.id} <= world.vault.session().authority.grants.keys()
    world.processes.kill(100)
    world.clock.pass_(10)
    kept = await world.grant("K")
    assert set(world.vault.session().authority.grants) == {kept.id}


async def test_a_spent_grant_is_kept_while_a_lease_rests_on_it() -> None:
    world = await stocked()
    spent = await world.grant("K", uses=1)
    await world.get("K")
    await world.grant("L")
    assert await world.standing_grants.remove(spent.id, by=None) == 1
    assert len(world.live_leases) == 0


async def test_a_grant_to_another_user_is_refused() -> None:
    world = await stocked()
    with pytest.raises(InvalidRequestError) as caught:
        await world.grant("K", to=f"uid:{UID + 1}")
    assert caught.value.reason == "invalid-selector"


@pytest.mark.parametrize(
    "terms",
    [
        {"max_ttl": LONGEST_TTL + 1},
        {"valid": 11 * 365 * 86400},
        {"uses": 1_000_001},
        {"reason": "x" * 257},
    ],
)
async def test_terms_out_of_bounds_are_refused(terms: dict[str, Any]) -> None:
    world = await stocked()
    with pytest.raises(InvalidRequestError):
        await world.grant("K", **terms)


@pytest.mark.parametrize("patterns", [(), ("K",) * 65, ("bad name",), ("",)])
async def test_patterns_that_are_none_are_refused(patterns: tuple[str, ...]) -> None:
    world = await stocked()
    with pytest.raises(InvalidRequestError):
        await world.grant(*patterns)


@pytest.mark.parametrize("selector", ["", "K", "tree:", "tree:0", "pid:1", "exe:relative"])
async def test_a_selector_of_no_known_form_is_refused(selector: str) -> None:
    world = await stocked()
    with pytest.raises(InvalidRequestError) as caught:
        await world.grant("K", to=selector)
    assert caught.value.reason == "invalid-selector"


async def test_the_number_of_grants_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpackd.core.access.grants.MAX_GRANTS", 2)
    world = await stocked()
    await world.grant("K")
    await world.grant("L")
    with pytest.raises(LimitError):
        await world.grant("M")


async def test_a_grant_says_how_long_its_leases_may_live_by_default() -> None:
    world = await stocked()
    assert (await world.grant("K")).max_ttl == DEFAULT_MAX_TTL


async def test_grants_are_listed_oldest_first() -> None:
    world = await stocked()
    first = await world.grant("K")
    world.clock.pass_(1)
    second = await world.grant("L")
    assert world.standing_grants.all() == [first, second]


async def test_taking_a_grant_back_ends_the_leases_that_rest_on_it() -> None:
    world = await stocked()
    grant = await world.grant("K")
    await world.get("K")
    await world.get("K")
    assert await world.standing_grants.remove(grant.id, by=None) == 2
    assert len(world.live_leases) == 0
    with pytest.raises(WaitingError):
        await world.get("K")


async def test_a_caller_that_goes_away_does_not_keep_leases_of_a_grant_taken_back() -> None:
    world = await stocked()
    grant = await world.grant("K")
    await world.get("K")
    world.store.before_commit = Gate()
    removing = asyncio.create_task(world.standing_grants.remove(grant.id, by=None))
    await world.store.before_commit.reached()
    removing.cancel()
    world.store.before_commit.open()
    await settled(removing)
    await world.vault.settle()
    assert len(world.live_leases) == 0


async def test_an_unknown_grant_cannot_be_taken_back() -> None:
    world = await stocked()
    writes = world.store.writes
    with pytest.raises(GrantUnknownError):
        await world.standing_grants.remove("0" * 16, by=None)
    assert world.store.writes == writes


async def test_the_tree_of_a_service_manager_is_refused() -> None:
    world = await stocked()
    with pytest.raises(InvalidRequestError, match="service manager"):
        await world.grant("K", to="tree:1")


async def test_the_same_grant_again_takes_the_new_terms_and_is_no_second_one() -> None:
    world = await stocked()
    first = await world.grant("K", "L", valid=60, uses=1, reason="first")
    await world.get("K")
    again = await world.grant("L", "K", "K", valid=3600, uses=5, reason="second")
    assert again.id == first.id
    assert world.standing_grants.all() == [again]
    assert (again.uses_left, again.reason) == (5, "second")
    # The lease that rests on it does, still.
    assert await world.standing_grants.remove(again.id, by=None) == 1


async def test_leases_are_held_to_the_shorter_terms_of_their_grant() -> None:
    world = await World().stocked()
    await world.grant("K", valid=3600)
    lease = await world.lease("K", ttl=3000)
    watcher = world.live_leases.watch(None)
    await world.grant("K", valid=5)
    event = await watcher.next()
    assert event is not None
    assert (event.kind, event.lease.expires_at) == ("renewed", world.clock.boot() + 5)
    assert world.renew(world.connect(), lease.id, ttl=3000).expires_at == world.clock.boot() + 5
    world.clock.pass_(6)
    world.deadlines.review()
    assert len(world.live_leases) == 0


async def test_longer_terms_of_a_grant_lengthen_no_lease() -> None:
    world = await World().stocked()
    await world.grant("K", valid=60)
    lease = await world.lease("K")
    await world.grant("K", valid=3600)
    assert lease.max_expires_at == world.clock.boot() + 60


@pytest.mark.parametrize(
    "other",
    [
        {"patterns": ("K",)},
        {"to": "tree:100"},
        {"max_ttl": 60},
        {"uses": 1},
        {"valid": 60},
    ],
)
async def test_a_grant_that_is_another_one_stands_beside_the_first(other: dict[str, Any]) -> None:
    world = await stocked()
    await world.grant("K", "L")
    await world.grant(*other.pop("patterns", ("K", "L")), **other)
    assert len(world.standing_grants.all()) == 2


async def test_a_tree_with_a_recycled_pid_is_another_subject() -> None:
    world = await stocked()
    first = await world.grant("K", to="tree:100")
    world.processes.kill(100)
    world.processes.add(100)
    assert (await world.grant("K", to="tree:100")).id != first.id


async def test_grants_that_name_a_key_are_counted_and_patterns_are_not() -> None:
    world = await stocked()
    await world.grant("K", "L")
    await world.grant("K", to="tree:100")
    await world.grant("K*")
    assert world.standing_grants.naming(["K"]) == 2
    assert world.standing_grants.naming(["L", "M"]) == 1
