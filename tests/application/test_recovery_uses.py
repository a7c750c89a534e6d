"""What a recovery code is good for, with the vault locked and unlocked."""

import pytest

from backpackd.core.errors import (
    DamageError,
    InvalidRequestError,
    UninitializedError,
    WrongPassphraseError,
)
from backpackd.core.slots import recovery_code
from backpackd.core.vault.states import State
from fakes import GOOD, OTHER, World, state_of

STRANGE = recovery_code.encode(b"another sixteen!").encode()


async def coded(*, locked: bool) -> tuple[World, bytes]:
    world = World()
    code = await world.vault.init(GOOD, world.tree(), recovery=True, by=None)
    await world.put("K", b"v")
    if locked:
        world.vault.lock(by=None)
    return world, code.encode()


@pytest.mark.parametrize("locked", [True, False])
async def test_a_code_sets_a_new_passphrase_and_the_old_one_is_gone(locked: bool) -> None:
    world, code = await coded(locked=locked)
    called: list[bool] = []
    await world.recovery.recover(code, OTHER, world.tree(), lambda: called.append(True), by=None)
    assert state_of(world) is State.UNLOCKED
    assert called
    await world.vault.verify(OTHER, world.tree())
    with pytest.raises(WrongPassphraseError):
        await world.vault.verify(GOOD, world.tree())
    await world.vault.verify(code, world.tree())


@pytest.mark.parametrize("locked", [True, False])
async def test_a_wrong_code_changes_nothing(locked: bool) -> None:
    world, _ = await coded(locked=locked)
    before, state = dict(world.store.slots), world.vault.state
    with pytest.raises(WrongPassphraseError):
        await world.recovery.recover(STRANGE, OTHER, world.tree(), by=None)
    assert (world.store.slots, world.vault.state) == (before, state)


async def test_a_passphrase_is_no_code() -> None:
    world, _ = await coded(locked=True)
    with pytest.raises(InvalidRequestError):
        await world.recovery.recover(GOOD, OTHER, world.tree(), by=None)
    assert state_of(world) is State.LOCKED


async def test_a_weak_new_passphrase_leaves_a_locked_vault_locked() -> None:
    world, code = await coded(locked=True)
    with pytest.raises(InvalidRequestError):
        await world.recovery.recover(code, b"short", world.tree(), by=None)
    assert state_of(world) is State.LOCKED


@pytest.mark.parametrize("locked", [True, False])
async def test_a_drill_changes_nothing_but_its_date(locked: bool) -> None:
    world, code = await coded(locked=locked)
    state, slots, keys = world.vault.state, dict(world.store.slots), dict(world.store.keys)
    world.clock.pass_(60)
    at = await world.recovery.drill(code, world.tree(), by=None)
    assert (world.vault.state, world.store.slots, world.store.keys) == (state, slots, keys)
    if locked:
        assert world.recovery.drilled_ms == 0
        await world.vault.unlock(GOOD, world.tree(), by=None)
    assert world.recovery.drilled_ms == at == world.clock.epoch * 1000


@pytest.mark.parametrize("locked", [True, False])
async def test_a_drill_with_a_wrong_code_notes_nothing(locked: bool) -> None:
    world, _ = await coded(locked=locked)
    before = world.store.authority
    with pytest.raises(WrongPassphraseError):
        await world.recovery.drill(STRANGE, world.tree(), by=None)
    assert world.store.authority == before


async def test_a_drill_of_a_locked_vault_finds_a_deleted_row() -> None:
    world, code = await coded(locked=True)
    world.store.keys.clear()
    with pytest.raises(DamageError):
        await world.recovery.drill(code, world.tree(), by=None)


async def test_there_is_nothing_to_recover_without_a_vault() -> None:
    world = World()
    with pytest.raises(UninitializedError):
        await world.recovery.drill(STRANGE, world.tree(), by=None)
    with pytest.raises(UninitializedError):
        await world.recovery.recover(STRANGE, OTHER, world.tree(), by=None)
