"""What tests of the audit log ask of a world: what is in the log, once all of it is."""

from typing import Any

from backpackd.application.audit.reader import Entry, Filter, Verified
from backpackd.core.audit.chain import Head
from fakes import World, turns


async def shown(world: World, **wanted: Any) -> list[Entry]:
    await written(world)
    found = world.reading.entries(world.vault.session(), Filter(**wanted))
    return [entry async for entry in found]


async def kinds(world: World, **wanted: Any) -> list[str]:
    return [entry.event.kind for entry in await shown(world, **wanted)]


async def only(world: World, kind: str) -> Entry:
    (entry,) = await shown(world, kinds=frozenset({kind}))
    return entry


async def written(world: World) -> None:
    """Wait until all that was noted is in the log."""
    await turns(lambda: world.audit_log.writer._task is None)


async def verdict(world: World, expected: Head | None = None) -> Verified:
    await written(world)
    return [answer async for answer in world.reading.verify(expected)][-1]


async def granted() -> World:
    world = await World().stocked()
    await world.grant("K", "L")
    return world
