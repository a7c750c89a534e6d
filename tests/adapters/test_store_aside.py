"""Rows set aside: no part of the vault until a change takes all of them in, on a real disk."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backpackd.adapters.secrets.secret_memory import Arena
from backpackd.adapters.stores.aside import ASIDE_NAME
from backpackd.adapters.stores.memory import MemoryStore
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.application.vault.keys import Keys
from backpackd.application.vault.rotation import Rotation
from backpackd.application.vault.slots import Slots
from backpackd.application.vault.vault import Vault
from backpackd.core.errors import DiskFullError, StoreError
from backpackd.core.peer_facts import ProcessId
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault
from backpackd.core.slots import slots
from fakes import GOOD, OTHER, FakeClock, FakeStretcher
from unaudited import Unaudited

VAULT = StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),))
TREE = ProcessId(1, 1)
ROOM = 4 * 1024 * 1024


def row(number: int, size: int = 100) -> KeyRow:
    return KeyRow(number.to_bytes(32, "big"), 1, b"h" * 100, os.urandom(size))


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteStore | MemoryStore:
    return SqliteStore(tmp_path) if request.param == "sqlite" else MemoryStore()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk with little room."""
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def squeeze(disk: Path, left: int) -> Path:
    """Fill a disk until so many bytes are left."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    size = status.f_bavail * status.f_bsize - left
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    return ballast


async def test_what_is_set_aside_is_no_part_of_the_vault_until_it_is_taken_in(
    store: SqliteStore | MemoryStore,
) -> None:
    old, new = row(1), [row(2), row(3)]
    await store.create(VAULT)
    await store.commit(Change(b"authority 0", b"authority 1", put=[old]))
    await store.set_aside(new[:1])
    await store.set_aside(new[1:])
    assert len(await store.heads()) == 1
    await store.commit(Change(b"authority 1", b"authority 2", aside=2))
    assert len(await store.heads()) == 3
    await store.drop_aside()
    await store.close()


async def test_a_change_can_put_them_in_place_of_everything_else(
    store: SqliteStore | MemoryStore,
) -> None:
    await store.create(VAULT)
    await store.commit(Change(b"authority 0", b"authority 1", put=[row(1), row(2)]))
    new = row(3)
    await store.set_aside([new])
    await store.commit(Change(b"authority 1", b"authority 2", aside=1, nothing_else=True))
    assert await store.heads() == [new.row_head]
    assert await store.rows([b"\0" * 31 + b"\1"]) == {}
    await store.purge()
    await store.close()


@pytest.mark.parametrize("nothing_else", [True, False])
async def test_rows_that_are_missing_keep_everything_as_it_was(
    store: SqliteStore | MemoryStore, nothing_else: bool
) -> None:
    await store.create(VAULT)
    await store.commit(Change(b"authority 0", b"authority 1", put=[row(1)]))
    await store.set_aside([row(2)])
    await store.drop_aside()
    with pytest.raises(StoreError):
        await store.commit(
            Change(b"authority 1", b"authority 2", aside=1, nothing_else=nothing_else)
        )
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority 1"
    assert len(await store.heads()) == 1
    await store.close()


def killed(home: Path) -> None:
    """Set a row aside in a process of its own, and kill that."""
    script = (
        "import asyncio, os, pathlib, signal, sys\n"
        "from backpackd.adapters.stores.sqlite import SqliteStore\n"
        "from backpackd.core.rows import KeyRow, SlotRow, StoredVault\n"
        "async def main():\n"
        "    store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "    slots = (SlotRow(b'a' * 16, b'slot'),)\n"
        "    await store.create(StoredVault(b'v' * 16, b'authority 0', slots))\n"
        "    await store.set_aside([KeyRow(b'1' * 32, 1, b'h' * 100, b'v' * 100)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", script, str(home)], check=False)


async def test_what_a_killed_daemon_had_set_aside_is_gone_with_the_next_start(
    tmp_path: Path,
) -> None:
    killed(tmp_path)
    aside = tmp_path / ASIDE_NAME
    assert aside.stat().st_mode & 0o777 == 0o600
    store = SqliteStore(tmp_path)
    assert await store.load() is not None
    assert not aside.exists()
    assert await store.heads() == []
    await store.close()


async def opened(home: Path, *, new: bool = False) -> tuple[SqliteStore, Vault, Arena]:
    store, arena = SqliteStore(home), Arena()
    vault = Vault(store, arena, FakeStretcher(), FakeClock(), Unaudited(store))
    await vault.open()
    if new:
        await vault.init(GOOD, TREE, by=None)
    else:
        await vault.unlock(GOOD, TREE, by=None)
    return store, vault, arena


async def test_a_disk_that_is_full_at_any_moment_of_a_rotation_leaves_one_key_in_force(
    small_disk: Path,
) -> None:
    store, vault, arena = await opened(small_disk, new=True)
    keys, rotation = Keys(vault, store), Rotation(vault, store, arena)
    names = [f"K{number}" for number in range(300)]
    await keys.put([(name, name.encode() * 20) for name in names], by=None)
    outcomes = set()
    for left in range(0, 2_000_000, 100_000):
        ballast = squeeze(small_disk, left)
        try:
            done = await rotation.rotate(lambda *_: None, by=None)
            outcomes.add("purged" if done.purged else "left")
        except DiskFullError:
            outcomes.add("full")
        found = await keys.open(vault.session(), names)
        assert found["K7"] == b"K7" * 20
        ballast.unlink()
        await keys.put([("AFTER", b"%d" % left)], replace=True, by=None)
        vault.lock(by=None)
        await vault.unlock(GOOD, TREE, by=None)
        assert len(await keys.list(lambda _: True)) == 301
    assert {"full", "purged"} <= outcomes
    await store.close()
    store, vault, arena = await opened(small_disk)
    assert (await Keys(vault, store).open(vault.session(), ["K299"]))["K299"] == b"K299" * 20
    await store.close()


async def test_a_full_disk_makes_no_slot_and_loses_none(small_disk: Path) -> None:
    store, vault, _ = await opened(small_disk, new=True)
    added = Slots(vault, FakeStretcher())
    ballast = squeeze(small_disk, 0)
    with pytest.raises(DiskFullError):
        await added.add(slots.PASSPHRASE, OTHER, TREE, by=None)
    assert len(added.list()) == 1
    ballast.unlink()
    await added.add(slots.PASSPHRASE, OTHER, TREE, by=None)
    vault.lock(by=None)
    await vault.unlock(OTHER, TREE, by=None)
    await store.close()
