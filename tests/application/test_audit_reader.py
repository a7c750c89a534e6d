"""Reading a log in which somebody altered rows: no filter hides it."""

from dataclasses import replace
from typing import Any

import pytest

from backpackd.application.audit.reader import Entry, Filter
from backpackd.core.audit import chain
from fakes import GOOD, World, turns


async def used() -> tuple[World, int]:
    """Return a world whose log tells of three leases of K, and the number of the second's entry."""
    world = await World().stocked()
    await world.grant("K", "L")
    for _ in range(3):
        await world.lease("K")
    await world.put("M")
    handed = await read(world, name="K", kinds=frozenset({"allowed"}))
    return world, handed[1].number


async def read(world: World, **wanted: Any) -> list[Entry]:
    await turns(lambda: world.audit_log.writer._task is None)
    found = world.reading.entries(world.vault.session(), Filter(**wanted))
    return [entry async for entry in found]


def damaged(entries: list[Entry]) -> list[int]:
    return [entry.number for entry in entries if entry.damaged]


def zero(world: World, number: int) -> None:
    row = world.store.audit[number]
    world.store.audit[number] = replace(row, body=bytes(len(row.body)))


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": "K"},
        {"pid": 4},
        {"kinds": frozenset({"put"})},
        {"since_ms": 2**50},
        {"until_ms": 1},
        {"name": "K", "kinds": frozenset({"allowed"}), "newest": 2},
    ],
)
async def test_a_damaged_entry_passes_every_filter(wanted: dict[str, Any]) -> None:
    world, number = await used()
    assert damaged(await read(world, **wanted)) == []
    zero(world, number)
    assert damaged(await read(world, **wanted)) == [number]


async def test_damaged_entries_take_no_room_from_the_newest() -> None:
    world, number = await used()
    for each in (number - 1, number + 1):
        zero(world, each)
    found = await read(world, name="K", kinds=frozenset({"allowed"}), newest=1)
    assert [entry.number for entry in found] == [number, number + 1]


@pytest.mark.parametrize("kind", [chain.HEADER, chain.CHECKPOINT])
async def test_a_row_that_reads_well_in_the_place_of_an_entry_is_told(kind: int) -> None:
    world, number = await used()
    other = next(row for row in world.store.audit.values() if row.kind == kind)
    world.store.audit[number] = replace(world.store.audit[number], kind=kind, body=other.body)
    # Behind a header out of its place nothing opens: told is what follows it.
    assert {number, number + 1} & set(damaged(await read(world, name="K")))


async def test_the_last_entry_is_held_against_the_end_that_the_daemon_knows() -> None:
    world, _ = await used()
    last = world.reading.head.number
    signed = next(row for row in world.store.audit.values() if row.kind == chain.CHECKPOINT)
    world.store.audit[last] = replace(
        world.store.audit[last], kind=chain.CHECKPOINT, body=signed.body
    )
    assert damaged(await read(world, name="K")) == [last]
    del world.store.audit[last]
    assert damaged(await read(world, name="K")) == [last]


async def test_entries_that_are_gone_are_told() -> None:
    world, number = await used()
    del world.store.audit[number]
    assert number in damaged(await read(world, name="K"))


async def test_the_header_of_a_segment_that_does_not_open_is_told() -> None:
    world, _ = await used()
    zero(world, 1)
    assert damaged(await read(world, name="K"))[0] == 1


async def test_what_stands_beside_a_damaged_entry_is_not_called_damaged() -> None:
    world, number = await used()
    row = world.store.audit[number]
    world.store.audit[number] = replace(row, previous=bytes(32), body=bytes(len(row.body)))
    assert damaged(await read(world, name="K")) == [number]


async def test_a_whole_log_over_several_unlocks_has_no_damage() -> None:
    world, _ = await used()
    world.vault.lock(by=None)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    await world.lease("K")
    assert damaged(await read(world)) == []
