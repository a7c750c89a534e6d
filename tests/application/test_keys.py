"""Stored keys: all or nothing, genuine or refused."""

import asyncio

import pytest

from backpackd.application.vault.keys import PutResult
from backpackd.core.errors import (
    DamageError,
    InvalidRequestError,
    KeyExistsError,
    KeyUnknownError,
    LimitError,
    LockedError,
)
from backpackd.core.vault.records import KeyHead
from fakes import Gate, World, settled


async def heads(world: World) -> list[KeyHead]:
    return await world.keys.list(lambda _: True)


async def value(world: World, name: str) -> bytes:
    return (await world.keys.open(world.vault.session(), [name]))[name]


async def test_a_key_that_was_put_opens() -> None:
    world = await World().unlocked()
    assert await world.keys.put([("K", b"v"), ("L", b"w")], by=None) == PutResult(2, 0, ())
    assert await value(world, "L") == b"w"


async def test_keys_are_listed_in_the_order_of_their_names() -> None:
    world = await World().unlocked()
    await world.keys.put([("C", b"v"), ("A", b"v"), ("B", b"v")], by=None)
    assert [head.name for head in await heads(world)] == ["A", "B", "C"]


async def test_only_the_wanted_names_are_listed() -> None:
    world = await World().unlocked()
    await world.keys.put([("A", b"v"), ("B", b"v")], by=None)
    assert [head.name for head in await world.keys.list("B".__eq__)] == ["B"]


@pytest.mark.parametrize(
    "bad", [("1K", b"v"), ("K", b""), ("K", bytes(65537)), ("GOOD", b"named twice")]
)
async def test_one_bad_key_among_many_stores_none(bad: tuple[str, bytes]) -> None:
    world = await World().unlocked()
    with pytest.raises(InvalidRequestError):
        await world.keys.put([("GOOD", b"v"), bad], by=None)
    assert world.store.keys == {}


async def test_one_stored_key_among_many_stores_none() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    with pytest.raises(KeyExistsError) as caught:
        await world.keys.put([("L", b"v"), ("K", b"new")], by=None)
    assert "1 of the 2 keys" in caught.value.message
    assert len(world.store.keys) == 1
    assert await value(world, "K") == b"old"


async def test_replacing_says_how_many_were_new() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    assert await world.keys.put([("L", b"v"), ("K", b"new")], replace=True, by=None) == PutResult(
        1, 1, ()
    )
    assert await value(world, "K") == b"new"


async def test_replacing_keeps_the_date_of_creation() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    created = world.vault.now_ms()
    world.clock.pass_(60)
    await world.put("K", b"new")
    assert await heads(world) == [KeyHead("K", created, world.vault.now_ms())]


async def test_skipping_leaves_stored_keys_alone_and_names_them() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    put = await world.keys.put([("L", b"v"), ("K", b"new")], skip_existing=True, by=None)
    assert put == PutResult(1, 0, ("K",))
    assert await value(world, "K") == b"old"


@pytest.mark.parametrize("replace", [True, False])
async def test_a_dry_run_tells_the_same_and_changes_nothing(replace: bool) -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    before = (dict(world.store.keys), world.store.authority)
    how = {"replace": replace, "skip_existing": not replace}
    dry = await world.keys.put([("L", b"v"), ("K", b"new")], dry_run=True, **how, by=None)
    assert (world.store.keys, world.store.authority) == before
    assert await world.keys.put([("L", b"v"), ("K", b"new")], **how, by=None) == dry


async def test_a_dry_run_refuses_what_would_be_refused() -> None:
    world = await World().unlocked()
    await world.put("K")
    with pytest.raises(KeyExistsError):
        await world.keys.put([("K", b"new")], dry_run=True, by=None)


async def test_a_full_vault_takes_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpackd.application.vault.keys.MOST_STORED", 2)
    world = await World().unlocked()
    await world.keys.put([("A", b"v"), ("B", b"v")], by=None)
    with pytest.raises(LimitError):
        await world.keys.put([("C", b"v")], by=None)
    await world.put("A", b"replacing is no growth")


async def test_a_deleted_key_is_gone() -> None:
    world = await World().unlocked()
    await world.put("K")
    await world.keys.delete(["K"], by=None)
    assert world.store.keys == {}
    with pytest.raises(KeyUnknownError):
        await value(world, "K")
    await world.opened_again()


async def test_one_unknown_key_among_many_deletes_none() -> None:
    world = await World().unlocked()
    await world.put("K")
    with pytest.raises(KeyUnknownError) as caught:
        await world.keys.delete(["K", "L"], by=None)
    assert "L" not in caught.value.message.split()
    assert len(world.store.keys) == 1


@pytest.mark.parametrize("damage", ["altered", "replayed", "deleted", "swapped"])
async def test_a_row_that_was_tampered_with_is_found_at_use_by_name(damage: str) -> None:
    world = await World().unlocked()
    await _tamper(world, damage)
    with pytest.raises(DamageError) as caught:
        await value(world, "K")
    assert caught.value.reason == "row-changed"
    assert " K " in caught.value.message


@pytest.mark.parametrize("damage", ["altered", "replayed", "deleted", "swapped"])
async def test_a_row_that_was_tampered_with_is_not_written_over(damage: str) -> None:
    world = await World().unlocked()
    await _tamper(world, damage)
    before = dict(world.store.keys)
    with pytest.raises(DamageError) as caught:
        await world.put("K", b"newer still")
    assert caught.value.reason == "row-changed"
    assert world.store.keys == before


@pytest.mark.parametrize("damage", ["altered", "replayed", "deleted", "swapped", "reinserted"])
async def test_a_row_that_was_tampered_with_is_found_when_listing(damage: str) -> None:
    world = await World().unlocked()
    await _tamper(world, damage)
    with pytest.raises(DamageError):
        await heads(world)


async def test_a_row_that_was_put_back_after_deleting_it_is_unknown_at_use() -> None:
    world = await World().unlocked()
    await _tamper(world, "reinserted")
    with pytest.raises(KeyUnknownError):
        await value(world, "GONE")


async def _tamper(world: World, damage: str) -> None:
    await world.put("K", b"old")
    await world.put("L")
    await world.put("GONE")
    old = dict(world.store.keys)
    await world.put("K", b"new")
    await world.keys.delete(["GONE"], by=None)
    index, other, gone = (world.row_of(name) for name in ("K", "L", "GONE"))
    rows = world.store.keys
    match damage:
        case "altered":
            row = rows[index]
            rows[index] = type(row)(row.index, row.version, row.head, bytes(len(row.value)))
        case "replayed":
            rows[index] = old[index]
        case "deleted":
            del rows[index]
        case "swapped":
            row = rows[other]
            rows[index] = type(row)(index, row.version, row.head, row.value)
        case "reinserted":
            rows[gone] = old[gone]


async def test_a_put_beside_a_get_is_no_damage() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    world.store.before_rows = Gate()
    getting = asyncio.create_task(value(world, "K"))
    await world.store.before_rows.reached()
    gate, world.store.before_rows = world.store.before_rows, None
    await world.put("K", b"new")
    gate.open()
    assert await getting == b"new"


async def test_a_delete_beside_a_get_makes_the_key_unknown_and_is_no_damage() -> None:
    world = await World().unlocked()
    await world.put("K")
    world.store.before_rows = Gate()
    getting = asyncio.create_task(value(world, "K"))
    await world.store.before_rows.reached()
    await world.keys.delete(["K"], by=None)
    world.store.before_rows.open()
    with pytest.raises(KeyUnknownError):
        await getting


async def test_a_value_that_was_read_before_its_key_was_deleted_is_not_handed_over() -> None:
    world = await World().unlocked()
    await world.put("K")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(value(world, "K"))
    await world.store.after_rows.reached()
    await world.keys.delete(["K"], by=None)
    world.store.after_rows.open()
    with pytest.raises(KeyUnknownError):
        await getting


async def test_a_lock_in_the_middle_of_a_get_ends_it() -> None:
    world = await World().unlocked()
    await world.put("K")
    world.store.after_rows = Gate()
    getting = asyncio.create_task(value(world, "K"))
    await world.store.after_rows.reached()
    world.vault.lock(by=None)
    world.store.after_rows.open()
    with pytest.raises(LockedError):
        await getting


async def test_a_lock_in_the_middle_of_a_list_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpackd.application.vault.keys._BATCH", 1)
    world = await World().unlocked()
    await world.keys.put([(f"K{number}", b"v") for number in range(5)], by=None)
    seen: list[str] = []

    def wanted(name: str) -> bool:
        seen.append(name)
        world.vault.lock(by=None)
        return True

    with pytest.raises(LockedError):
        await world.keys.list(wanted)
    assert len(seen) == 1


async def test_a_list_beside_puts_is_of_one_moment() -> None:
    world = await World().unlocked()
    await world.put("A")
    world.store.before_commit = Gate()
    put = asyncio.create_task(world.keys.put([("B", b"v"), ("C", b"v")], by=None))
    await world.store.before_commit.reached()
    listing = asyncio.create_task(heads(world))
    await asyncio.sleep(0)
    world.store.before_commit.open()
    _, found = await settled(put, listing)
    assert [head.name for head in found] == ["A", "B", "C"]


async def test_a_list_that_waited_while_the_vault_locked_tells_nothing() -> None:
    world = await World().unlocked()
    await world.put("A")
    world.store.before_commit = Gate()
    deleting = asyncio.create_task(world.keys.delete(["A"], by=None))
    await world.store.before_commit.reached()
    listing = asyncio.create_task(heads(world))
    await asyncio.sleep(0)
    world.vault.lock(by=None)
    world.store.before_commit.open()
    _, found = await settled(deleting, listing)
    assert isinstance(found, LockedError)


async def test_a_lock_while_a_put_reads_what_it_replaces_stores_nothing() -> None:
    world = await World().unlocked()
    await world.put("K", b"old")
    before = dict(world.store.keys)
    world.store.after_rows = Gate()
    put = asyncio.create_task(world.put("K", b"new"))
    await world.store.after_rows.reached()
    world.vault.lock(by=None)
    world.store.after_rows.open()
    with pytest.raises(LockedError):
        await put
    assert world.store.keys == before
