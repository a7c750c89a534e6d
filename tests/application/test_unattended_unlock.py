"""What is recorded when the daemon tries to unlock the vault by itself."""

from collections.abc import Callable

import pytest

from backpackd.application.audit.reader import Filter
from backpackd.application.unattended import unlock_unattended
from backpackd.core.audit.events import AuditEvent
from backpackd.core.errors import HomeError
from backpackd.core.rows import AuditPublic
from backpackd.core.vault.states import State
from fakes import GOOD, World, state_of, turns


async def locked() -> tuple[World, bytes]:
    world = await World().stocked()
    key = (await world.slots.add("file", b"", world.tree(), by=None)).secret
    world.vault.lock(by=None)
    await turns(lambda: world.audit_log.writer._task is None)
    return world, key


async def attempt(world: World, key: Callable[[], bytes | None]) -> str:
    return await unlock_unattended(world.vault, world.audit_log, "file", key, world.tree())


async def recorded(world: World, kind: str) -> list[AuditEvent]:
    if state_of(world) is State.LOCKED:
        await world.vault.unlock(GOOD, world.tree(), by=None)
        await world.audit_log.ready()
    found = world.reading.entries(world.vault.session(), Filter(kinds=frozenset({kind})))
    return [entry.event async for entry in found]


@pytest.mark.parametrize("key", [b"not the key of this vault", b"\xff not even text"])
async def test_a_key_that_does_not_fit_is_recorded_and_leaves_the_vault_locked(key: bytes) -> None:
    world, _ = await locked()
    assert "not unlocked by file" in await attempt(world, lambda: key)
    assert state_of(world) is State.LOCKED
    (event,) = await recorded(world, "wrong-passphrase")
    assert (event.who, event.details) == (None, {"kind": "file"})


async def test_a_key_that_fits_is_recorded_as_an_unlock_by_its_kind() -> None:
    world, key = await locked()
    assert "unlocked by file: every program" in await attempt(world, lambda: key)
    assert (await recorded(world, "wrong-passphrase")) == []
    assert (await recorded(world, "unlocked"))[-1].details["kind"] == "file"


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"\n"), (b"", b"\r\n"), (b"\xef\xbb\xbf", b"\r\n")]
)
async def test_what_editors_add_to_the_file_of_a_key_is_no_part_of_it(
    before: bytes, after: bytes
) -> None:
    world, key = await locked()
    assert "unlocked by file: every program" in await attempt(world, lambda: before + key + after)


async def test_a_key_that_cannot_be_read_is_no_attempt() -> None:
    world, _ = await locked()

    def unreadable() -> bytes:
        raise HomeError("the key file is not there")

    assert "the key file is not there" in await attempt(world, unreadable)
    assert "there is no key for it" in await attempt(world, lambda: None)
    assert (await recorded(world, "wrong-passphrase")) == []


async def test_damage_is_recorded() -> None:
    world, key = await locked()
    stored = dict(world.store.keys)
    world.store.keys.clear()
    assert "not unlocked by file" in await attempt(world, lambda: key)
    assert state_of(world) is State.LOCKED
    world.store.keys.update(stored)
    (event,) = await recorded(world, "damage-found")
    assert (event.who, event.reason) == (None, "rows-changed")


async def test_planted_audit_keys_are_not_called_an_unlock() -> None:
    world, key = await locked()
    public = world.audit_log.writer.public
    assert public is not None
    world.audit_log.writer.public = AuditPublic(public.wrap, b"p" * 32)
    said = await attempt(world, lambda: key)
    assert "not unlocked by file" in said
    assert state_of(world) is State.LOCKED
