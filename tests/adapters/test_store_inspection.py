"""How a vault file is opened for looking at what is left of it."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.stores.vault_file import FILE_NAME, VaultFile
from backpackd.core.rows import SlotRow, StoredVault


@pytest.mark.parametrize(
    ("mode", "cut_short", "on"), [("ro", True, 1), ("ro", False, 0), ("rw", True, 0)]
)
async def test_the_schema_is_writable_only_where_nothing_can_be_written(
    tmp_path: Path, mode: str, cut_short: bool, on: int
) -> None:
    store = SqliteStore(tmp_path)
    await store.create(StoredVault(b"v" * 16, b"authority", (SlotRow(b"a" * 16, b"slot"),)))
    await store.close()
    made = VaultFile(tmp_path).connect(tmp_path / FILE_NAME, mode, cut_short=cut_short)
    with contextlib.closing(made) as connection:
        assert connection.execute("PRAGMA writable_schema").fetchone() == (on,)
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("UPDATE sqlite_schema SET sql = ''")
