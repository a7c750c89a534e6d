"""The report of what was revealed: bounded, and sealed for as long as it is kept."""

import pickle

import pytest

from backpackd.application.handouts import Handouts
from backpackd.core.errors import LockedError
from fakes import World


async def handed_out() -> World:
    world = await World().stocked()
    await world.put("TELLTALE_NAME", b"v")
    await world.grant("*")
    return world


async def test_what_was_revealed_is_listed_oldest_first() -> None:
    world = await handed_out()
    first = await world.lease("K")
    world.clock.pass_(5)
    second = await world.lease("L", "K")
    found = await world.handouts.list(world.vault.session())
    assert [(entry.names, entry.lease_id) for entry in found] == [
        (("K",), first.id),
        (("L", "K"), second.id),
    ]
    assert found[1].at_ms - found[0].at_ms == 5000
    assert (found[0].pid, found[0].root_pid) == (101, 100)
    assert (found[0].executable, found[0].root_executable) == ("/usr/bin/tool", "/usr/bin/agent")


async def test_it_outlives_a_lock_and_cannot_be_read_while_locked() -> None:
    world = await handed_out()
    await world.lease("K")
    session = world.vault.session()
    world.vault.lock()
    with pytest.raises(LockedError):
        await world.handouts.list(session)
    await world.vault.unlock(b"seven quiet otters", world.tree())
    assert len(await world.handouts.list(world.vault.session())) == 1


async def test_no_name_is_in_memory() -> None:
    world = await handed_out()
    await world.lease("TELLTALE_NAME")
    kept = pickle.dumps(vars(world.handouts))
    assert b"TELLTALE" not in kept
    assert b"agent" not in kept
    assert all(type(entry) is bytes for entry in world.handouts._sealed)


async def test_what_was_not_handed_out_is_not_listed() -> None:
    world = await World().stocked()
    with pytest.raises(Exception, match="still waiting"):
        await world.get("K")
    assert await world.handouts.list(world.vault.session()) == []


async def test_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpackd.application.handouts.MOST", 2)
    world = await handed_out()
    world.handouts.__init__()  # type: ignore[misc]
    assert isinstance(world.handouts, Handouts)
    leases = [await world.lease("K") for _ in range(3)]
    found = await world.handouts.list(world.vault.session())
    assert [entry.lease_id for entry in found] == [lease.id for lease in leases[1:]]


async def test_a_lock_while_it_is_read_ends_the_reading() -> None:
    world = await handed_out()
    await world.lease("K")
    session = world.vault.session()
    reading = world.handouts.list(session)
    world.vault.lock()
    with pytest.raises(LockedError):
        await reading


async def test_paths_are_escaped() -> None:
    world = await handed_out()
    world.processes.exec(101, "/tmp/a\nb\u202e")
    await world.lease("K")
    (entry,) = await world.handouts.list(world.vault.session())
    assert entry.executable == "/tmp/a\\nb\\u202e"
