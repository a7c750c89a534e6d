"""Backups of a vault that serves, and taking them into another one."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest

from backpackd.application.audit.reader import Filter
from backpackd.application.backup.backup import (
    FAIL,
    KEEP,
    REPLACE,
    Backup,
    Exported,
    Imported,
    Terms,
)
from backpackd.core.errors import (
    BackupError,
    DamageError,
    DiskFullError,
    InvalidRequestError,
    KeyExistsError,
    LockedError,
    StoreError,
    WrongPassphraseError,
)
from backpackd.core.rows import KeyRow
from backpackd.core.sealing import hybrid
from fakes import GOOD, OTHER, WRONG, Gate, World, settled

CHANGES = 250
SEAL = b"thirteen slow camels"


class MemorySpool:
    """Implements `ports.Spool` in memory, with a fault where a test wants one."""

    def __init__(self, room: int = 2**40) -> None:
        self.data = bytearray()
        self.room = room
        self.closed = False

    async def append(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if len(self.data) + len(data) > self.room:
            raise DiskFullError("full")
        self.data += data

    async def pieces(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), 5000):
            await asyncio.sleep(0)
            yield bytes(self.data[at : at + 5000])

    def close(self) -> None:
        self.closed = True


def backups(world: World, room: int = 2**40, identity: bytes = b"") -> Backup:
    return Backup(
        world.vault,
        world.store,
        world.stretcher,
        lambda: MemorySpool(room),
        lambda _: [identity] if identity else [],
    )


async def exported(world: World, *recipients: bytes) -> bytes:
    made = await backups(world).export(
        b"" if recipients else SEAL, recipients, world.tree(), by=None
    )
    return whole(made)


def whole(made: Exported) -> bytes:
    assert isinstance(made.spool, MemorySpool)
    return bytes(made.spool.data)


async def imported(world: World, file: bytes, terms: Terms | None = None) -> Imported:
    spool = MemorySpool()
    spool.data += file
    return await backups(world).take(spool, terms or Terms(SEAL), world.tree(), by=None)


async def values(world: World, *names: str) -> dict[str, bytes]:
    session = world.vault.session()
    return await world.keys.open(session, names)


async def names(world: World) -> list[str]:
    return [head.name for head in await world.keys.list(lambda _: True)]


async def stocked(count: int = 2) -> World:
    world = await World().stocked()
    more = [(f"N{number}", b"%d" % number) for number in range(count - 2)]
    for start in range(0, len(more), 1000):
        await world.keys.put(more[start : start + 1000], by=None)
    return world


async def test_a_backup_restores_to_an_empty_vault_with_its_dates() -> None:
    world = await stocked(450)
    file = await exported(world)
    heads = await world.keys.list(lambda _: True)
    other = await World().unlocked()
    other.clock.pass_(1000)
    done = await imported(other, file)
    assert (done.created, done.replaced, done.kept) == (450, 0, 0)
    assert await other.keys.list(lambda _: True) == heads
    assert await values(other, "K", "N447") == {"K": b"k", "N447": b"447"}
    await other.opened_again()
    assert await values(other, "L") == {"L": b"l"}
    assert other.store.aside == {}


async def test_a_backup_holds_no_name_or_value_in_plain() -> None:
    world = await World().unlocked()
    await world.put("TELLTALE_NAME", b"telltale-of-a-value")
    file = await exported(world)
    assert not re.search(rb"(?i)telltale", file)


async def test_a_backup_taken_while_keys_are_put_is_a_state_that_existed() -> None:
    world = await World().unlocked()

    async def putting() -> None:
        for number in range(CHANGES):
            # Two keys that always say the same: a mixture of two moments would show.
            value = b"%d" % number
            await world.keys.put(
                [("A", value), (f"N{number}", b"x"), ("Z", value)], replace=True, by=None
            )

    task = asyncio.create_task(putting())
    files = []
    while not task.done():
        for _ in range(40):
            await asyncio.sleep(0)
        if world.vault.session().rows:
            files.append(await exported(world))
    await task
    assert len(files) > 3
    for file in files[:: max(1, len(files) // 10)]:
        other = await World().unlocked()
        await imported(other, file)
        found = await values(other, "A", "Z")
        number = int(found["A"])
        assert found["A"] == found["Z"]
        assert set(await names(other)) == {"A", "Z", *(f"N{n}" for n in range(number + 1))}


async def test_a_wrong_passphrase_is_told() -> None:
    world = await stocked()
    file = await exported(world)
    with pytest.raises(WrongPassphraseError):
        await imported(world, file, Terms(WRONG))


@pytest.mark.parametrize("weak", [b"", b"short", b"passwordpassword"])
async def test_a_backup_is_not_made_with_less_than_a_good_passphrase(weak: bytes) -> None:
    world = await stocked()
    with pytest.raises(InvalidRequestError):
        await backups(world).export(weak, [], world.tree(), by=None)


async def test_a_backup_to_a_recipient_needs_no_passphrase() -> None:
    world = await stocked()
    private, public = hybrid.generate()
    file = await exported(world, public)
    other = await World().unlocked()
    spool = MemorySpool()
    spool.data += file
    done = await backups(other, identity=private).take(spool, Terms(b""), other.tree(), by=None)
    assert done.created == 2
    with pytest.raises(BackupError) as caught:
        await imported(other, file, Terms(b""))
    assert caught.value.reason == "backup-not-for-us"


@pytest.mark.parametrize(
    ("rule", "kept", "value"), [(KEEP, 1, b"mine"), (REPLACE, 0, b"k"), (FAIL, None, b"mine")]
)
async def test_a_conflict_is_settled_by_the_rule_that_was_chosen(
    rule: str, kept: int | None, value: bytes
) -> None:
    file = await exported(await stocked())
    other = await World().unlocked()
    await other.put("K", b"mine")
    if kept is None:
        with pytest.raises(KeyExistsError):
            await imported(other, file, Terms(SEAL, rule))
        assert await names(other) == ["K"]
    else:
        done = await imported(other, file, Terms(SEAL, rule))
        assert (done.created, done.kept, done.replaced) == (1, kept, 1 - kept)
        assert await names(other) == ["K", "L"]
    assert await values(other, "K") == {"K": value}
    await other.opened_again()
    assert await values(other, "K") == {"K": value}


async def test_a_dry_run_says_the_same_and_changes_nothing() -> None:
    world = await stocked()
    await world.grant("K")
    file = await exported(world)
    other = await World().unlocked()
    await other.put("K", b"mine")
    before = (other.store.authority, dict(other.store.keys))
    done = await imported(other, file, Terms(SEAL, REPLACE, dry_run=True, with_grants=True))
    assert (done.created, done.replaced, done.grants_added, len(done.grants)) == (1, 1, 1, 1)
    assert (other.store.authority, other.store.keys) == before


async def test_grants_and_policy_come_only_when_asked_for_and_never_for_a_process() -> None:
    world = await stocked()
    await world.grant("K")
    await world.grant("L", to="tree:100")
    policy = world.vault.session().authority.policy
    file = await exported(world)
    other = await World().unlocked()
    done = await imported(other, file)
    assert [grant.patterns for grant in done.grants] == [("K",)]
    assert not other.vault.session().authority.grants
    again = await imported(other, file, Terms(SEAL, KEEP, with_grants=True))
    assert again.grants_added == 1
    assert other.vault.session().authority.policy == policy
    (grant,) = other.vault.session().authority.grants.values()
    assert grant.patterns == ("K",)
    assert (await imported(other, file, Terms(SEAL, KEEP, with_grants=True))).grants_added == 0


async def test_a_file_that_is_cut_short_changes_nothing() -> None:
    file = await exported(await stocked(1500))
    for size in (10, 300, 70_000, len(file) - 1):
        other = await World().unlocked()
        with pytest.raises(BackupError):
            await imported(other, file[:size])
        assert other.store.keys == {}
        assert other.store.aside == {}


async def test_a_fault_at_any_write_of_an_import_takes_nothing_over() -> None:
    file = await exported(await stocked(450))
    other = await World().unlocked()
    for place in range(4):
        other.store.faults = [*[None] * place, DiskFullError("full")]
        with pytest.raises(DiskFullError):
            await imported(other, file)
        assert other.store.keys == {}
        assert other.store.aside == {}
    await imported(other, file)
    await other.opened_again()
    assert len(other.store.keys) == 450


async def test_a_disk_that_is_full_while_a_backup_is_written_is_told_and_nothing_waits() -> None:
    world = await stocked(450)
    for room in (0, 500, 40_000):
        with pytest.raises(DiskFullError):
            await backups(world, room).export(SEAL, [], world.tree(), by=None)
        await world.put("K", b"%d" % room)


async def test_rows_that_were_set_aside_by_nobody_are_never_taken_over() -> None:
    file = await exported(await stocked())
    other = await World().unlocked()
    other.store.before_commit = Gate()
    taking = asyncio.create_task(imported(other, file))
    await other.store.before_commit.reached()
    other.store.aside.clear()
    other.store.before_commit.open()
    (outcome,) = await settled(taking)
    assert isinstance(outcome, StoreError)
    assert other.store.keys == {}


async def test_a_lock_in_the_middle_ends_an_export() -> None:
    world = await stocked(450)
    world.store.before_rows = Gate()
    exporting = asyncio.create_task(backups(world).export(SEAL, [], world.tree(), by=None))
    await world.store.before_rows.reached()
    world.vault.lock(by=None)
    world.store.before_rows.open()
    with pytest.raises(LockedError):
        await exporting


async def test_a_damaged_row_is_not_left_out_in_silence() -> None:
    world = await stocked()
    index = world.row_of("K")
    row = world.store.keys[index]
    world.store.keys[index] = KeyRow(row.index, row.version, row.head, row.value[:-1] + b"x")
    with pytest.raises(DamageError):
        await backups(world).export(SEAL, [], world.tree(), by=None)


async def test_plain_text_is_one_object_on_each_line() -> None:
    world = await stocked()
    await world.put("RAW", b"\xff\0")
    made = await backups(world).export_plain(by=None)
    assert b'"value"' not in whole(made)
    lines = b"".join([line async for line in backups(world).plain(made)]).splitlines()
    found = {each["name"]: each for each in map(json.loads, lines)}
    assert found["K"] == {"name": "K", "value": "k"}
    assert found["RAW"] == {"name": "RAW", "value_base64": "/wA="}


async def test_a_backup_outlives_a_rotation_and_a_new_passphrase() -> None:
    world = await stocked()
    file = await exported(world)
    await world.rotation.rotate(lambda *_: None, by=None)
    await world.slots.change_passphrase(GOOD, OTHER, world.tree(), by=None)
    done = await imported(world, file, Terms(SEAL, REPLACE))
    assert done.replaced == 2
    await world.keys.put([("K", b"newest")], replace=True, by=None)
    assert await values(world, "K") == {"K": b"newest"}


@pytest.mark.parametrize("plain", [False, True])
async def test_an_export_is_in_the_log_with_its_keys_before_it_leaves(plain: bool) -> None:
    world = await World().stocked()
    made = await (
        backups(world).export_plain(by=None)
        if plain
        else backups(world).export(SEAL, (), world.tree(), by=None)
    )
    wanted = Filter(kinds=frozenset({"operator-act"}))
    entries = world.reading.entries(world.vault.session(), wanted)
    (event,) = [entry.event async for entry in entries]
    assert event.reason == ("exported-in-plain" if plain else "exported")
    assert len(event.names) == made.keys > 0


async def test_without_room_for_the_log_nothing_is_exported() -> None:
    world = await World().stocked()
    spool = MemorySpool()
    taking = Backup(world.vault, world.store, world.stretcher, lambda: spool)
    world.store.faults.append(DiskFullError("full"))
    with pytest.raises(DiskFullError):
        await taking.export_plain(by=None)
    assert spool.closed
