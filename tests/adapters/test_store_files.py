"""The store's files where another program has put something else in the place of one."""

import os
from pathlib import Path

import pytest

from backpackd.adapters.stores.inspection import Inspection
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.errors import BackpackError
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault
from odd_files import ODD

VAULT = StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),))
READ = ["vault.db", "vault.db-wal", "vault.db-journal", "vault.db-shm", "vault.db.purge"]
"""What a start reads, or has SQLite read."""
LEFTOVERS = [
    f"{name}{suffix}"
    for name in ("vault.db.new", "vault.db.aside")
    for suffix in ("", "-wal", "-journal", "-shm")
]
"""What a killed daemon leaves, and nobody reads again."""

NEW = [KeyRow(b"k" * 32, 1, b"h" * 100, b"new" * 200)]
ROTATED = Change(b"authority 0", b"authority 1", aside=1, nothing_else=True)


def present(path: Path) -> bool:
    return os.path.lexists(path)


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    store = SqliteStore(home)
    await store.create(VAULT)
    await store.close()
    return home


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", READ)
async def test_a_start_refuses_it_names_it_and_says_what_to_do(
    home: Path, name: str, kind: str
) -> None:
    ODD[kind](home / name)
    store = SqliteStore(home)
    with pytest.raises(BackpackError) as caught:
        await store.load()
    await store.close()
    assert caught.value.message.startswith(f"{name} ")
    assert ": " in caught.value.message


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", READ[:-1])
def test_an_inspection_refuses_it_too(home: Path, name: str, kind: str) -> None:
    ODD[kind](home / name)
    with pytest.raises(BackpackError, match=name):
        Inspection(home)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", LEFTOVERS)
async def test_what_looks_like_a_leftover_is_removed_unread_or_named(
    home: Path, name: str, kind: str
) -> None:
    ODD[kind](home / name)
    store = SqliteStore(home)
    if kind == "a directory":
        with pytest.raises(BackpackError, match=rf"{name} is a directory: "):
            await store.load()
    else:
        loaded = await store.load()
        assert loaded is not None
        assert loaded.authority == b"authority 0"
        assert not present(home / name)
    await store.close()


@pytest.mark.parametrize("kind", ODD)
async def test_a_rotation_is_refused_where_its_note_cannot_be_made(home: Path, kind: str) -> None:
    store = SqliteStore(home)
    await store.load()
    ODD[kind](home / "vault.db.purge")
    await store.set_aside(NEW)
    with pytest.raises(BackpackError) as caught:
        await store.commit(ROTATED)
    assert caught.value.message.startswith("vault.db.purge ")
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority 0", "nothing was stored"
    await store.close()


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [*LEFTOVERS, "vault.db-journal"])
async def test_a_rotation_goes_on_whatever_lies_in_the_places_of_what_it_makes(
    home: Path, name: str, kind: str
) -> None:
    store = SqliteStore(home)
    await store.load()
    ODD[kind](home / name)
    if kind == "a directory" and "aside" in name:
        with pytest.raises(BackpackError, match=rf"{name} is a directory: "):
            await store.set_aside(NEW)
        (home / name).rmdir()
    await store.set_aside(NEW)
    await store.commit(ROTATED)
    await store.purge()
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority 1"
    assert len(await store.heads()) == 1
    await store.close()


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", [*READ[1:-1], *LEFTOVERS])
async def test_no_vault_is_made_beside_it(tmp_path: Path, name: str, kind: str) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    ODD[kind](home / name)
    store = SqliteStore(home)
    harmless = "aside" in name or (".new" in name and kind != "a directory")
    if harmless:
        await store.create(VAULT)
    else:
        with pytest.raises(BackpackError, match=name):
            await store.create(VAULT)
    if kind == "a directory":
        (home / name).rename(tmp_path / "away")
    await store.close()


async def test_a_vault_whose_making_was_cut_off_with_both_names_opens(home: Path) -> None:
    os.link(home / "vault.db", home / "vault.db.new")
    store = SqliteStore(home)
    assert await store.load() is not None
    await store.close()
    assert not (home / "vault.db.new").exists()
