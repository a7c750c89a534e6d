"""Slots added and removed, and who may unlock or authorize with what."""

import pytest

from backpackd.core.errors import (
    DamageError,
    InvalidRequestError,
    LastSlotError,
    SlotUnknownError,
    WrongPassphraseError,
)
from backpackd.core.slots import slots
from backpackd.core.vault.states import State
from fakes import GOOD, OTHER, World, state_of

CHOSEN = b"twelve brown bears ran"


def ids(world: World, kind: str) -> list[str]:
    return [info.id for info in world.slots.list() if info.kind == kind]


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [
        (slots.PASSPHRASE, CHOSEN),
        (slots.RECOVERY, b""),
        (slots.FILE, b""),
        (slots.FILE, CHOSEN),
        (slots.ENVIRONMENT, b""),
        (slots.ENVIRONMENT, CHOSEN),
    ],
)
async def test_a_slot_of_each_kind_opens_the_vault(kind: str, chosen: bytes) -> None:
    world = await World().unlocked()
    added = await world.slots.add(kind, chosen, world.tree(), by=None)
    assert bool(added.secret) != bool(chosen)
    world.vault.lock(by=None)
    await world.vault.unlock(added.secret or chosen, world.tree(), kinds={kind}, by=None)
    assert state_of(world) is State.UNLOCKED


async def test_a_drawn_key_is_not_stretched_and_a_chosen_one_is() -> None:
    world = await World().unlocked()
    await world.slots.add(slots.FILE, b"", world.tree(), by=None)
    await world.slots.add(slots.ENVIRONMENT, CHOSEN, world.tree(), by=None)
    stretched = {info.kind: info.stretched for info in world.slots.list()}
    assert stretched == {slots.PASSPHRASE: True, slots.FILE: False, slots.ENVIRONMENT: True}


@pytest.mark.parametrize("kind", sorted(slots.UNATTENDED))
async def test_what_only_unlocks_never_authorizes(kind: str) -> None:
    world = await World().unlocked()
    await world.slots.add(kind, CHOSEN, world.tree(), by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.verify(CHOSEN, world.tree())


@pytest.mark.parametrize("kind", sorted(slots.UNATTENDED))
async def test_what_lies_in_a_file_does_not_unlock_when_a_person_types_it(kind: str) -> None:
    world = await World().unlocked()
    drawn = (await world.slots.add(kind, b"", world.tree(), by=None)).secret
    world.vault.lock(by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(drawn, world.tree(), by=None)


async def test_a_key_of_one_unattended_kind_does_not_open_a_slot_of_the_other() -> None:
    world = await World().unlocked()
    drawn = (await world.slots.add(slots.FILE, b"", world.tree(), by=None)).secret
    await world.slots.add(slots.ENVIRONMENT, b"", world.tree(), by=None)
    world.vault.lock(by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(drawn, world.tree(), kinds={slots.ENVIRONMENT}, by=None)


@pytest.mark.parametrize("weak", [b"default-key", b"short", b"passwordpassword", b"a" * 40])
@pytest.mark.parametrize("kind", [slots.PASSPHRASE, slots.FILE, slots.ENVIRONMENT])
async def test_a_guessable_secret_is_refused_for_every_kind(kind: str, weak: bytes) -> None:
    world = await World().unlocked()
    before = dict(world.store.slots)
    with pytest.raises(InvalidRequestError) as caught:
        await world.slots.add(kind, weak, world.tree(), by=None)
    assert caught.value.reason == "weak-passphrase"
    assert world.store.slots == before


@pytest.mark.parametrize(
    ("kind", "chosen"), [("keychain", b""), (slots.PASSPHRASE, b""), (slots.RECOVERY, CHOSEN)]
)
async def test_what_makes_no_slot_is_refused(kind: str, chosen: bytes) -> None:
    world = await World().unlocked()
    with pytest.raises(InvalidRequestError):
        await world.slots.add(kind, chosen, world.tree(), by=None)


async def test_the_last_slot_that_authorizes_stays() -> None:
    world = await World().unlocked()
    await world.slots.add(slots.FILE, b"", world.tree(), by=None)
    (last,) = ids(world, slots.PASSPHRASE)
    with pytest.raises(LastSlotError):
        await world.slots.remove(last, by=None)
    await world.slots.add(slots.RECOVERY, b"", world.tree(), by=None)
    await world.slots.remove(last, by=None)
    (code,) = ids(world, slots.RECOVERY)
    with pytest.raises(LastSlotError):
        await world.slots.remove(code, by=None)


async def test_a_removed_slot_opens_nothing_any_more() -> None:
    world = await World().unlocked()
    added = await world.slots.add(slots.PASSPHRASE, OTHER, world.tree(), by=None)
    await world.slots.remove(added.id[:12], by=None)
    assert not [slot for slot in world.store.slots if slot.hex() == added.id]
    world.vault.lock(by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(OTHER, world.tree(), by=None)


@pytest.mark.parametrize("slot_id", ["", "zz", "00" * 16])
async def test_an_id_that_no_slot_has_removes_nothing(slot_id: str) -> None:
    world = await World().unlocked()
    with pytest.raises(SlotUnknownError):
        await world.slots.remove(slot_id, by=None)


async def test_bodies_that_changed_places_are_damage_and_not_a_wrong_passphrase() -> None:
    world = await World().unlocked()
    await world.slots.add(slots.PASSPHRASE, OTHER, world.tree(), by=None)
    first, second = world.store.slots
    bodies = world.store.slots
    bodies[first], bodies[second] = bodies[second], bodies[first]
    world.vault.lock(by=None)
    with pytest.raises(DamageError) as caught:
        await world.vault.unlock(GOOD, world.tree(), by=None)
    assert caught.value.reason == "slots-changed"


async def test_a_file_slot_that_is_called_a_passphrase_opens_nothing() -> None:
    world = await World().unlocked()
    added = await world.slots.add(slots.FILE, CHOSEN, world.tree(), by=None)
    world.vault.lock(by=None)
    slot_id = bytes.fromhex(added.id)
    body = world.store.slots[slot_id]
    world.store.slots[slot_id] = body.replace(b'"kind":"file"', b'"kind":"passphrase"')
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(CHOSEN, world.tree(), by=None)


async def test_the_kinds_of_slots_are_known_while_it_is_locked() -> None:
    world = await World().unlocked()
    await world.slots.add(slots.FILE, b"", world.tree(), by=None)
    world.vault.lock(by=None)
    assert world.vault.slot_kinds == {slots.PASSPHRASE, slots.FILE}


async def test_a_recovery_code_authorizes() -> None:
    world = World()
    code = await world.vault.init(GOOD, world.tree(), recovery=True, by=None)
    assert (await world.vault.verify(code.lower().encode(), world.tree())).kind == slots.RECOVERY
