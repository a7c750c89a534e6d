"""Rotation: all or nothing, whatever comes in between, and others are served meanwhile."""

import asyncio
import sys
from itertools import product

import pytest

from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.application.vault import rotation
from backpackd.core.errors import (
    BackpackError,
    DamageError,
    DiskFullError,
    LockedError,
    StoreError,
    WrongPassphraseError,
)
from backpackd.core.rows import KeyRow
from backpackd.core.slots import slots
from backpackd.core.vault import records
from backpackd.core.vault.states import State
from fakes import GOOD, OTHER, Gate, World, settled, state_of

# Three full steps and one that is cut short in the middle of a slice.
STEPS = 4
SEVERAL = 3 * rotation._READ + rotation._SLICE + 1
LAST = f"N{SEVERAL - 3}"


def quiet(_: int, __: int) -> None:
    """Take no notice of the progress."""


async def filled(count: int = 5, *, more: bool = True) -> World:
    world = await World().unlocked()
    await world.keys.put([("K", b"k"), ("L", b"l")], by=None)
    names = [f"N{number}" for number in range(count - 2)]
    for start in range(0, len(names), 1000):
        await world.keys.put(
            [(name, name.encode()) for name in names[start : start + 1000]], by=None
        )
    await world.grant("*")
    if more:
        await world.slots.add(slots.PASSPHRASE, OTHER, world.tree(), by=None)
    return world


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect what rotations put into the arena."""
    kept: list[object] = []
    real = Arena.store

    def noted(arena: Arena, secret: bytes) -> object:
        slot = real(arena, secret)
        caller = sys._getframe(1).f_code.co_filename
        if caller.endswith(("rotation.py", "application/vault/vault.py")):
            kept.append(slot)
        return slot

    monkeypatch.setattr(Arena, "store", noted)
    return kept


def master_of(world: World) -> bytes:
    with world.vault.session().open_master() as master:
        return bytes(master)


async def test_every_value_is_there_and_every_passphrase_goes_on_to_be_good() -> None:
    world = await filled(450)
    old = master_of(world)
    done = await world.rotation.rotate(quiet, by=None)
    assert (done.keys, done.slots, done.purged) == (450, 2, True)
    assert master_of(world) != old
    assert await world.get("K", "L", "N447") == {"K": b"k", "L": b"l", "N447": b"N447"}
    for passphrase in (GOOD, OTHER):
        world.vault.lock(by=None)
        await world.vault.unlock(passphrase, world.tree(), by=None)
        assert await world.get("N7") == {"N7": b"N7"}
    assert len(await world.keys.list(lambda _: True)) == 450


async def test_nothing_that_is_stored_afterwards_was_stored_before() -> None:
    world = await filled()
    before = [*world.store.keys, *world.store.slots.values(), world.store.authority]
    for row in world.store.keys.values():
        before += [row.head, row.value]
    await world.rotation.rotate(quiet, by=None)
    after = [*world.store.keys, *world.store.slots.values(), world.store.authority]
    for row in world.store.keys.values():
        after += [row.head, row.value]
    assert not set(before) & set(after)
    assert world.store.aside == {}


async def test_slots_added_and_keys_put_after_a_rotation_are_good() -> None:
    world = await filled()
    await world.rotation.rotate(quiet, by=None)
    await world.rotation.rotate(quiet, by=None)
    code = (await world.slots.add(slots.RECOVERY, b"", world.tree(), by=None)).secret
    await world.put("K", b"newer")
    world.vault.lock(by=None)
    await world.vault.unlock(code, world.tree(), by=None)
    assert await world.get("K") == {"K": b"newer"}


async def test_a_vault_without_keys_rotates() -> None:
    world = await World().unlocked()
    assert (await world.rotation.rotate(quiet, by=None)).keys == 0
    await world.opened_again()


async def test_the_progress_begins_at_nothing_and_ends_with_all() -> None:
    world = await filled(450)
    told: list[tuple[int, int]] = []
    await world.rotation.rotate(lambda done, total: told.append((done, total)), by=None)
    assert told == [(0, 450), (200, 450), (400, 450), (450, 450)]


async def test_leases_live_on() -> None:
    world = await filled()
    lease = await world.lease("K")
    await world.rotation.rotate(quiet, by=None)
    assert world.live_leases.find(lease.id) is not None


async def unharmed(world: World, before: tuple[object, ...]) -> None:
    """Check that the old master key is fully in force, now and after starting anew."""
    assert (world.store.authority, world.store.slots, world.store.keys) == before
    assert world.store.aside == {}
    assert await world.get("K", "L") == {"K": b"k", "L": b"l"}
    await world.put("NEW")
    await world.opened_again()
    assert await world.get("K", "NEW") == {"K": b"k", "NEW": b"value"}


async def test_a_rotation_interrupted_at_any_write_leaves_all_under_the_old_key_or_the_new() -> (
    None
):
    world = await filled(SEVERAL)
    writes = world.store.writes
    await world.rotation.rotate(quiet, by=None)
    needed = world.store.writes - writes
    assert needed == STEPS + 2
    for place, fault in product(range(needed), [DiskFullError("full"), StoreError("broken")]):
        before = (world.store.authority, dict(world.store.slots), dict(world.store.keys))
        world.store.faults = [*[None] * place, fault]
        if place == needed - 1:
            # What comes after the commit only tidies up: the new key is in force.
            done = await world.rotation.rotate(quiet, by=None)
            assert not done.purged
            assert world.store.keys.keys().isdisjoint(before[2])
        else:
            with pytest.raises(type(fault)):
                await world.rotation.rotate(quiet, by=None)
            assert (world.store.authority, world.store.slots, world.store.keys) == before
        assert world.store.faults == []
        assert world.store.aside == {}
        assert await world.get("K", "N77") == {"K": b"k", "N77": b"N77"}
    await world.opened_again()
    assert await world.get("K", LAST) == {"K": b"k", LAST: LAST.encode()}


async def test_after_a_fault_the_vault_serves_and_rotates_as_if_nothing_had_been() -> None:
    world = await filled()
    before = (world.store.authority, dict(world.store.slots), dict(world.store.keys))
    world.store.faults = [DiskFullError("full")]
    with pytest.raises(DiskFullError):
        await world.rotation.rotate(quiet, by=None)
    await unharmed(world, before)
    await world.rotation.rotate(quiet, by=None)
    assert await world.get("NEW") == {"NEW": b"value"}


@pytest.mark.parametrize("how", ["lock", "panic"])
async def test_a_lock_or_panic_in_the_middle_ends_it_and_leaves_the_old_key(
    how: str, stored: list[object]
) -> None:
    world = await filled(450)
    before = (world.store.authority, dict(world.store.slots), dict(world.store.keys))

    def stop(done: int, _: int) -> None:
        if done == 200:
            (world.vault.lock if how == "lock" else world.revocation.panic)(by=None)

    with pytest.raises(LockedError):
        await world.rotation.rotate(stop, by=None)
    assert state_of(world) is State.LOCKED
    assert all(slot not in world.arena._slots for slot in stored)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    if how == "lock":
        await unharmed(world, before)


async def test_a_lock_just_after_the_commit_leaves_a_locked_vault_with_the_new_key(
    stored: list[object],
) -> None:
    world = await filled()
    old = dict(world.store.keys)
    world.store.after_commit = Gate()
    rotating = asyncio.create_task(world.rotation.rotate(quiet, by=None))
    await world.store.after_commit.reached()
    world.vault.lock(by=None)
    world.store.after_commit.open()
    await rotating
    assert state_of(world) is State.LOCKED
    assert all(slot not in world.arena._slots for slot in stored)
    assert world.store.keys.keys().isdisjoint(old)
    await world.vault.unlock(OTHER, world.tree(), by=None)
    assert await world.get("K") == {"K": b"k"}


async def test_a_caller_that_goes_away_does_not_end_it() -> None:
    world = await filled()
    old = master_of(world)
    world.store.before_aside = Gate()
    rotating = asyncio.create_task(world.rotation.rotate(quiet, by=None))
    await world.store.before_aside.reached()
    rotating.cancel()
    world.store.before_aside.open()
    await settled(rotating)
    await world.vault.settle()
    assert master_of(world) != old
    assert await world.get("K") == {"K": b"k"}


async def test_keys_are_handed_out_and_listed_while_it_goes_on_and_changes_wait() -> None:
    world = await filled(450)
    world.store.before_aside = Gate()
    rotating = asyncio.create_task(world.rotation.rotate(quiet, by=None))
    await world.store.before_aside.reached()
    assert await world.get("K") == {"K": b"k"}
    putting = asyncio.create_task(world.put("LATE"))
    listing = asyncio.create_task(world.keys.list(lambda _: True))
    await asyncio.sleep(0)
    assert not putting.done()
    world.store.before_aside.open()
    await settled(rotating, putting)
    assert {head.name for head in await listing} >= {"K", "L"}
    assert await world.get("LATE", "K") == {"LATE": b"value", "K": b"k"}


@pytest.mark.parametrize("gate", ["before_rows", "after_rows"])
async def test_a_key_that_was_being_read_when_the_new_key_came_is_handed_out(gate: str) -> None:
    world = await filled()
    held = Gate()
    setattr(world.store, gate, held)
    getting = asyncio.create_task(world.get("K"))
    await held.reached()
    setattr(world.store, gate, None)
    await world.rotation.rotate(quiet, by=None)
    held.open()
    assert await getting == {"K": b"k"}


async def test_a_list_that_was_under_way_when_the_new_key_came_is_whole() -> None:
    world = await filled(1000)
    listing = asyncio.create_task(world.keys.list(lambda _: True))
    for _ in range(4):
        await asyncio.sleep(0)
    assert not listing.done()
    await world.rotation.rotate(quiet, by=None)
    assert len(await listing) == 1000


async def test_a_passphrase_that_was_being_checked_when_the_new_key_came_is_right() -> None:
    world = await filled()
    world.stretcher.gate = Gate()
    checking = asyncio.create_task(world.vault.verify(GOOD, world.tree()))
    await world.stretcher.gate.reached()
    await world.rotation.rotate(quiet, by=None)
    world.stretcher.gate.open()
    assert (await checking).kind == slots.PASSPHRASE


async def test_a_passphrase_change_that_was_under_way_when_the_new_key_came_is_made() -> None:
    world = await filled(more=False)
    world.stretcher.gate = Gate()
    changing = asyncio.create_task(
        world.slots.change_passphrase(GOOD, OTHER, world.tree(), by=None)
    )
    await world.stretcher.gate.reached()
    await world.rotation.rotate(quiet, by=None)
    world.stretcher.gate.open()
    await changing
    world.vault.lock(by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(GOOD, world.tree(), by=None)
    await world.vault.unlock(OTHER, world.tree(), by=None)
    assert await world.get("K") == {"K": b"k"}


@pytest.mark.parametrize("damage", ["altered", "gone"])
async def test_a_damaged_row_keeps_it_from_happening(damage: str) -> None:
    world = await filled()
    index = world.row_of("K")
    row = world.store.keys[index]
    if damage == "gone":
        del world.store.keys[index]
    else:
        value = row.value[:40] + bytes([row.value[40] ^ 1]) + row.value[41:]
        world.store.keys[index] = KeyRow(row.index, row.version, row.head, value)
    before = (world.store.authority, dict(world.store.slots), dict(world.store.keys))
    with pytest.raises(DamageError):
        await world.rotation.rotate(quiet, by=None)
    assert (world.store.authority, world.store.slots, world.store.keys) == before


async def test_two_at_once_come_one_after_the_other() -> None:
    world = await filled()
    outcome = await settled(
        *(asyncio.create_task(world.rotation.rotate(quiet, by=None)) for _ in range(2))
    )
    assert not [found for found in outcome if isinstance(found, BackpackError)]
    await world.opened_again()
    assert await world.get("K", "L") == {"K": b"k", "L": b"l"}
    assert world.vault.session().authority.master_generation == 3


async def test_the_loop_turns_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await filled(400)
    turns, most = 0, 0
    real = records.open_value

    def counted(*arguments: object, **named: object) -> bytes:
        nonlocal most
        most += 1
        assert most <= 20
        return real(*arguments, **named)  # type: ignore[arg-type]

    async def turning() -> None:
        nonlocal turns, most
        while True:
            turns, most = turns + 1, 0
            await asyncio.sleep(0)

    from backpackd.core.vault import rekeying  # noqa: PLC0415 - only to be watched here

    monkeypatch.setattr(rekeying, "open_value", counted)
    other = asyncio.create_task(turning())
    await world.rotation.rotate(quiet, by=None)
    other.cancel()
    assert turns >= 400 // 20
