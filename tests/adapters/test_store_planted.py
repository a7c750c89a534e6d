"""What somebody planted in the vault file costs the daemon no memory before it is found."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from backpackd.adapters.stores.sqlite import MOST_ENTRY_BYTES, MOST_SLOTS, SqliteStore
from backpackd.adapters.stores.vault_file import FILE_NAME, MOST_BYTES
from backpackd.application.vault import stored_vault
from backpackd.core.errors import DamageError
from backpackd.core.rows import SlotRow, StoredVault


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    """Return a home with a vault in it."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    store = SqliteStore(path)
    await store.create(StoredVault(b"v" * 16, b"authority", (SlotRow(b"a" * 16, b"slot"),)))
    await store.close()
    return path


def planted(home: Path, statement: str, *values: object) -> None:
    """Change the file behind the daemon's back."""
    with contextlib.closing(sqlite3.connect(home / FILE_NAME)) as connection, connection:
        connection.execute(statement, values)


async def test_a_planted_slot_of_megabytes_is_not_read_into_memory(home: Path) -> None:
    planted(home, "INSERT INTO slots (slot_id, body) VALUES (?, zeroblob(9000000))", b"b" * 16)
    store = SqliteStore(home)
    loaded = await store.load()
    await store.close()
    assert loaded is not None
    assert [len(slot.body) for slot in loaded.slots] == [4, 0]


async def test_of_thousands_of_planted_slots_only_so_many_are_read_that_they_are_too_many(
    home: Path,
) -> None:
    planted(
        home,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
        "INSERT INTO slots (slot_id, body) SELECT randomblob(16), x'00' FROM n",
    )
    store = SqliteStore(home)
    loaded = await store.load()
    await store.close()
    assert loaded is not None
    assert stored_vault.MOST_SLOTS < len(loaded.slots) == MOST_SLOTS


async def test_a_planted_record_of_hundreds_of_megabytes_is_damage(home: Path) -> None:
    planted(home, "UPDATE vault SET authority = zeroblob(?)", MOST_BYTES + 1)
    store = SqliteStore(home)
    with pytest.raises(DamageError):
        await store.load()
    await store.close()


async def test_a_planted_entry_of_the_audit_log_is_not_read_into_memory(home: Path) -> None:
    planted(
        home,
        "INSERT INTO audit_log (number, kind, previous, body) VALUES (1, 2, x'00', zeroblob(?))",
        MOST_ENTRY_BYTES + 1,
    )
    store = SqliteStore(home)
    await store.load()
    (row,) = await store.audit_rows(0, 10)
    await store.close()
    assert row.body == b""
