"""The vault: its states, its one way to change, and locking in the middle of everything."""

import asyncio
import gc
from dataclasses import replace

import pytest

from backpackd.application.vault.vault import Draft, Session, Vault
from backpackd.core.errors import (
    AlreadyInitializedError,
    DamageError,
    DiskFullError,
    InvalidRequestError,
    KeyExistsError,
    LockedError,
    StoreError,
    UninitializedError,
    WrongPassphraseError,
)
from backpackd.core.slots.slots import Slot
from backpackd.core.vault.states import State
from backpackd.ports import Connection
from fakes import GOOD, OTHER, WRONG, Gate, World, settled, state_of, turns
from unaudited import Unaudited


async def test_a_new_vault_is_unlocked_and_stored() -> None:
    world = World()
    assert state_of(world) is State.UNINITIALIZED
    await world.vault.init(GOOD, world.tree(), by=None)
    assert state_of(world) is State.UNLOCKED
    assert world.store.vault_id is not None


async def test_of_two_inits_at_once_one_wins_and_one_is_told() -> None:
    world = World()
    first = asyncio.create_task(world.vault.init(GOOD, world.tree(), by=None))
    second = asyncio.create_task(world.vault.init(OTHER, world.tree(), by=None))
    outcome = await settled(first, second)
    assert outcome[0] == ""
    assert isinstance(outcome[1], AlreadyInitializedError)
    await world.opened_again()


async def test_a_weak_passphrase_makes_no_vault() -> None:
    world = World()
    with pytest.raises(InvalidRequestError):
        await world.vault.init(b"short", world.tree(), by=None)
    assert world.stretcher.calls == 0
    assert world.store.vault_id is None


async def test_an_init_that_cannot_be_stored_leaves_no_vault() -> None:
    world = World()
    world.store.faults.append(DiskFullError("no room"))
    with pytest.raises(DiskFullError):
        await world.vault.init(GOOD, world.tree(), by=None)
    assert state_of(world) is State.UNINITIALIZED
    await world.vault.init(OTHER, world.tree(), by=None)
    assert state_of(world) is State.UNLOCKED


async def test_a_vault_that_was_put_there_meanwhile_can_be_unlocked() -> None:
    donor, world = await World().unlocked(), World()
    world.store.vault_id = donor.store.vault_id
    world.store.authority, world.store.slots = donor.store.authority, donor.store.slots
    world.store.audit, world.store.audit_public = donor.store.audit, donor.store.audit_public
    with pytest.raises(AlreadyInitializedError):
        await world.vault.init(OTHER, world.tree(), by=None)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    assert state_of(world) is State.UNLOCKED


async def test_a_lock_in_the_middle_of_init_is_not_overtaken() -> None:
    world = World()
    world.stretcher.gate = Gate()
    making = asyncio.create_task(world.vault.init(GOOD, world.tree(), by=None))
    await world.stretcher.gate.reached()
    world.vault.lock(by=None)
    world.stretcher.gate.open()
    with pytest.raises(LockedError):
        await making
    assert state_of(world) is State.LOCKED
    await world.vault.unlock(GOOD, world.tree(), by=None)


async def test_nothing_is_unlocked_where_there_is_no_vault() -> None:
    world = World()
    with pytest.raises(UninitializedError):
        await world.vault.unlock(GOOD, world.tree(), by=None)
    assert world.stretcher.calls == 0


async def test_the_right_passphrase_unlocks() -> None:
    world = await World().unlocked()
    world.vault.lock(by=None)
    await world.vault.unlock(GOOD, world.tree(), by=None)
    assert state_of(world) is State.UNLOCKED


async def test_a_wrong_passphrase_does_not_unlock() -> None:
    world = await World().unlocked()
    world.vault.lock(by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(WRONG, world.tree(), by=None)
    assert state_of(world) is State.LOCKED


async def test_unlocking_an_unlocked_vault_checks_the_passphrase_and_changes_nothing() -> None:
    world = await World().unlocked()
    session = world.vault.session()
    await world.vault.unlock(GOOD, world.tree(), by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(WRONG, world.tree(), by=None)
    assert world.vault.session() is session


async def test_of_two_unlocks_at_once_both_succeed_in_one_session() -> None:
    world = await World().unlocked()
    world.vault.lock(by=None)
    unlocks = [
        asyncio.create_task(world.vault.unlock(GOOD, world.tree(), by=None)) for _ in range(2)
    ]
    assert await settled(*unlocks) == [None, None]
    await world.audit_log.ready()
    # The master key, and of the audit log the signing key and the ratchet's state.
    assert len(world.arena._slots) == 3


async def test_a_lock_in_the_middle_of_an_unlock_is_not_overtaken() -> None:
    world = await World().unlocked()
    world.vault.lock(by=None)
    world.stretcher.gate = Gate()
    unlocking = asyncio.create_task(world.vault.unlock(GOOD, world.tree(), by=None))
    await world.stretcher.gate.reached()
    world.vault.lock(by=None)
    world.stretcher.gate.open()
    with pytest.raises(LockedError):
        await unlocking
    assert state_of(world) is State.LOCKED


async def test_an_unlock_waits_for_the_put_that_was_under_way_when_it_locked() -> None:
    world = await World().unlocked()
    world.store.before_commit = Gate()
    put = asyncio.create_task(world.put("K"))
    await world.store.before_commit.reached()
    world.vault.lock(by=None)
    unlocking = asyncio.create_task(world.vault.unlock(GOOD, world.tree(), by=None))
    await asyncio.sleep(0)
    world.store.before_commit.open()
    assert await settled(put, unlocking) == [None, None]
    assert [head.name for head in await world.keys.list(lambda _: True)] == ["K"]


async def test_locking_wipes_the_master_key() -> None:
    world = await World().unlocked()
    session = world.vault.session()
    world.vault.lock(by=None)
    assert session.master not in world.arena._slots
    with pytest.raises(LockedError), session.open_master():
        pass


async def test_a_lock_leaves_only_the_ratchet_in_the_arena() -> None:
    world = await World().unlocked()
    world.vault.lock(by=None)
    # The signing key goes as soon as the lock's own checkpoint is written.
    await turns(lambda: len(world.arena._slots) == 1)
    (left,) = world.arena._slots
    assert left is world.audit_log.writer._state


async def test_everything_that_ends_with_a_lock_ends_even_if_a_part_of_it_fails() -> None:
    world = await World().unlocked()
    heard: list[str] = []

    def failing(_: Connection | None) -> None:
        heard.append("first")
        raise OSError

    world.vault.on_lock[:] = [failing, lambda _: heard.append("second")]
    with pytest.raises(OSError):  # noqa: PT011 - it has no text
        world.vault.lock(by=None)
    assert heard == ["first", "second"]
    assert state_of(world) is State.LOCKED


async def test_no_vault_is_made_without_a_journal() -> None:
    world = World()
    with pytest.raises(TypeError):
        Vault(world.store, world.arena, world.stretcher, world.clock)  # type: ignore[call-arg]


async def test_the_journal_hears_of_every_unlock_and_lock_before_anything_else() -> None:
    heard: list[str] = []

    class Listening(Unaudited):
        def unlocked(self, vault: Vault, by: Connection | None) -> None:
            del by
            assert vault.state is State.UNLOCKED
            heard.append("journal: unlocked")

        def locked(self, by: Connection | None) -> None:
            del by
            heard.append("journal: locked")

    def failing(_: Connection | None) -> None:
        heard.append("locked")
        raise OSError

    world = World()
    journal = Listening(world.store)
    vault = Vault(world.store, world.arena, world.stretcher, world.clock, journal)
    vault.on_unlock.append(lambda: heard.append("unlocked"))
    await vault.init(GOOD, world.tree(), by=None)
    vault.lock(by=None)
    vault.on_lock.append(failing)
    await vault.unlock(GOOD, world.tree(), by=None)
    with pytest.raises(OSError):  # noqa: PT011 - it has no text
        vault.lock(by=None)
    unlocking = ["journal: unlocked", "unlocked"]
    assert heard == [*unlocking, "journal: locked", *unlocking, "journal: locked", "locked"]


async def test_a_put_that_was_waiting_when_the_vault_locked_is_not_made_after_unlocking() -> None:
    world = await World().unlocked()
    world.store.before_commit = Gate()
    first = asyncio.create_task(world.put("FIRST"))
    await world.store.before_commit.reached()
    second = asyncio.create_task(world.put("SECOND"))
    await asyncio.sleep(0)
    world.vault.lock(by=None)
    unlocking = asyncio.create_task(world.vault.unlock(GOOD, world.tree(), by=None))
    world.store.before_commit.open()
    outcome = await settled(first, second, unlocking)
    assert isinstance(outcome[1], LockedError)
    assert [head.name for head in await world.keys.list(lambda _: True)] == ["FIRST"]


async def test_a_change_that_cannot_be_stored_leaves_the_session_as_before() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    session = world.vault.session()
    before = (session.authority, session.sealed, dict(session.rows))
    world.store.faults.append(StoreError("broken"))
    with pytest.raises(StoreError):
        await world.put("K", b"new")
    assert (session.authority, session.sealed, session.rows) == before
    await world.grant("K")
    assert await world.get("K") == {"K": b"old"}


async def test_a_change_whose_draft_fails_changes_nothing() -> None:
    world = await World().unlocked()
    writes = world.store.writes

    async def draft(_: Session) -> Draft:
        raise KeyExistsError("there")

    with pytest.raises(KeyExistsError):
        await world.vault.change(draft, by=None)
    assert world.store.writes == writes


async def test_a_caller_that_goes_away_leaves_memory_and_store_agreeing() -> None:
    world = await World().unlocked()
    world.store.before_commit = Gate()
    put = asyncio.create_task(world.put("K"))
    await world.store.before_commit.reached()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    world.store.before_commit.open()
    await world.vault.settle()
    assert world.vault.session().sealed == world.store.authority
    assert world.vault.session().rows.keys() == world.store.keys.keys()
    await world.opened_again()
    assert len(world.store.keys) == 1


async def test_the_failure_of_a_change_whose_caller_went_away_is_not_logged_with_its_text() -> None:
    world = await World().unlocked()
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    world.store.before_commit = Gate()
    world.store.faults.append(StoreError("text"))
    put = asyncio.create_task(world.put("K"))
    await world.store.before_commit.reached()
    put.cancel()
    world.store.before_commit.open()
    await asyncio.wait([put])
    await world.vault.settle()
    await turns(lambda: not world.vault._changes._tasks)
    del put
    # asyncio complains about what nobody asked for when it throws it away.
    gc.collect()
    assert logged == []


async def test_settling_waits_for_changes_under_way() -> None:
    world = await World().unlocked()
    world.store.before_commit = Gate()
    put = asyncio.create_task(world.put("K"))
    await world.store.before_commit.reached()
    settling = asyncio.create_task(world.vault.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    world.store.before_commit.open()
    await settling
    assert world.store.keys
    await put


async def test_the_old_passphrase_is_refused_after_a_change_and_the_new_one_works() -> None:
    world = await World().unlocked()
    await world.put("K")
    await world.slots.change_passphrase(GOOD, OTHER, world.tree(), by=None)
    world.vault.lock(by=None)
    with pytest.raises(WrongPassphraseError):
        await world.vault.unlock(GOOD, world.tree(), by=None)
    await world.vault.unlock(OTHER, world.tree(), by=None)
    assert len(world.store.slots) == 1


async def test_a_wrong_current_passphrase_changes_nothing() -> None:
    world = await World().unlocked()
    slots = dict(world.store.slots)
    with pytest.raises(WrongPassphraseError):
        await world.slots.change_passphrase(WRONG, OTHER, world.tree(), by=None)
    assert world.store.slots == slots


async def test_a_weak_replacement_changes_nothing() -> None:
    world = await World().unlocked()
    slots = dict(world.store.slots)
    with pytest.raises(InvalidRequestError):
        await world.slots.change_passphrase(GOOD, b"short", world.tree(), by=None)
    assert world.store.slots == slots


async def _add_slot(world: World, passphrase: bytes) -> bytes:
    """Add a second passphrase slot, for which there is no call yet."""
    kept = dict(world.store.slots)
    session = world.vault.session()
    (first,) = session.slots.values()
    await world.slots.change_passphrase(GOOD, passphrase, world.tree(), by=None)

    async def draft(now: Session) -> Draft:
        digests = {**now.authority.slots, first.slot_id.hex(): first.digest}
        return Draft(now.authority.next(world.vault.now_ms(), slots=digests), put_slots=[first])

    await world.vault.change(draft, by=None)
    (added,) = world.store.slots.keys() - kept.keys()
    return added


async def test_other_slots_stay_when_a_passphrase_is_changed() -> None:
    world = await World().unlocked()
    added = await _add_slot(world, OTHER)
    body = world.store.slots[added]
    await world.slots.change_passphrase(GOOD, b"eleven calm badgers", world.tree(), by=None)
    assert world.store.slots[added] == body
    world.vault.lock(by=None)
    await world.vault.unlock(OTHER, world.tree(), by=None)
    await world.vault.unlock(b"eleven calm badgers", world.tree(), by=None)


async def test_of_two_changes_of_one_passphrase_at_once_one_wins() -> None:
    world = await World().unlocked()
    changes = [
        asyncio.create_task(world.slots.change_passphrase(GOOD, new, world.tree(), by=None))
        for new in (OTHER, b"eleven calm badgers")
    ]
    outcome = await settled(*changes)
    assert [type(found) for found in outcome if found] == [WrongPassphraseError]
    assert len(world.store.slots) == 1


async def test_a_lock_in_the_middle_of_a_passphrase_change_leaves_the_old_one() -> None:
    world = await World().unlocked()
    slots = dict(world.store.slots)
    world.stretcher.gate = Gate()
    changing = asyncio.create_task(
        world.slots.change_passphrase(GOOD, OTHER, world.tree(), by=None)
    )
    await world.stretcher.gate.reached()
    world.vault.lock(by=None)
    world.stretcher.gate.open()
    with pytest.raises(LockedError):
        await changing
    assert world.store.slots == slots


@pytest.mark.parametrize("damage", ["removed", "added", "altered", "dear", "flooded"])
async def test_slots_that_the_vault_does_not_know_are_found_at_unlock(damage: str) -> None:
    world = await World().unlocked()
    added = await _add_slot(world, OTHER)
    (kept,) = world.store.slots.keys() - {added}
    world.vault.lock(by=None)
    match damage:
        case "removed":
            del world.store.slots[added]
        case "added":
            other = await World().unlocked()
            world.store.slots.update(other.store.slots)
        case "altered":
            body = world.store.slots[added]
            world.store.slots[added] = body.replace(b'"iterations":3', b'"iterations":4')
        case "dear":
            # Each within its bounds: together they would take minutes and a gibibyte each time.
            body = world.store.slots[added].replace(b'"memory_kib":65536', b'"memory_kib":1048576')
            for number in range(4):
                name = number.to_bytes(16, "big")
                world.store.slots[name] = body.replace(added.hex().encode(), name.hex().encode())
        case "flooded":
            for number in range(40):
                world.store.slots[number.to_bytes(16, "big")] = world.store.slots[kept]
    calls = world.stretcher.calls
    with pytest.raises(DamageError) as caught:
        await world.vault.unlock(GOOD, world.tree(), by=None)
    assert caught.value.reason == "slots-changed"
    assert state_of(world) is State.LOCKED
    assert world.stretcher.calls - calls <= (0 if damage == "dear" else 3)


async def test_a_vault_without_any_slot_is_damaged_and_no_passphrase_is_called_wrong() -> None:
    world = await World().unlocked()
    world.vault.lock(by=None)
    world.store.slots.clear()
    with pytest.raises(DamageError):
        await world.vault.unlock(GOOD, world.tree(), by=None)


async def test_swapped_wraps_are_refused() -> None:
    world = await World().unlocked()
    other = await World().unlocked()
    world.vault.lock(by=None)
    (slot_id,) = world.store.slots
    (donor,) = other.vault.session().slots.values()
    (_, body), *_ = world.store.slots.items()
    forged = replace(Slot.decode(slot_id, body), wrap=donor.wrap, signature=donor.signature)
    world.store.slots[slot_id] = forged.encode()
    with pytest.raises(DamageError) as caught:
        await world.vault.unlock(GOOD, world.tree(), by=None)
    assert caught.value.reason == "slots-changed"


@pytest.mark.parametrize("damage", ["deleted", "replayed", "reinserted"])
async def test_rows_that_the_vault_did_not_write_last_are_found_at_unlock(damage: str) -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    await world.put("L")
    old = dict(world.store.keys)
    await world.put("K", b"new")
    index = world.row_of("K")
    match damage:
        case "deleted":
            del world.store.keys[index]
        case "replayed":
            world.store.keys[index] = old[index]
        case "reinserted":
            await world.keys.delete(["L"], by=None)
            world.store.keys = {**old, index: world.store.keys[index]}
    world.vault.lock(by=None)
    with pytest.raises(DamageError) as caught:
        await world.vault.unlock(GOOD, world.tree(), by=None)
    assert caught.value.reason == "rows-changed"
    assert state_of(world) is State.LOCKED


async def test_an_older_authority_record_does_not_fit_the_rows() -> None:
    world = await World().unlocked()
    old = world.store.authority
    await world.put("K")
    world.vault.lock(by=None)
    world.store.authority = old
    with pytest.raises(DamageError):
        await world.vault.unlock(GOOD, world.tree(), by=None)


async def test_a_store_that_was_changed_underneath_takes_no_change() -> None:
    world = await World().unlocked()
    world.store.authority = b"something else"
    with pytest.raises(DamageError) as caught:
        await world.put("K")
    assert caught.value.reason == "changed-underneath"
    assert world.store.authority == b"something else"
    assert world.store.keys == {}
