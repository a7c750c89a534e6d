"""Old sealed bytes after a rotation, where the daemon is killed before it gets rid of them."""

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from backpackd.adapters.stores.purging import DUE_NAME, Purging
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.errors import StoreError
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault
from sandboxes import unshared

VAULT = StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),))
OLD = b"old-sealed-bytes" * 100


def row(number: int, value: bytes) -> KeyRow:
    return KeyRow(number.to_bytes(32, "big"), 1, b"h" * 100, value)


def empty(home: Path) -> SqliteStore:
    home.mkdir(mode=0o700)
    return SqliteStore(home)


async def rotated(home: Path) -> SqliteStore:
    """Make a vault and put new rows in place of its old ones, up to the commit."""
    store = empty(home)
    await store.create(VAULT)
    await store.commit(Change(b"authority 0", b"authority 1", put=[row(1, OLD)]))
    await store.set_aside([row(2, b"new" * 500)])
    await store.commit(Change(b"authority 1", b"authority 2", aside=1, nothing_else=True))
    return store


def left(home: Path) -> bool:
    return any(OLD[:64] in path.read_bytes() for path in home.iterdir())


async def test_what_a_killed_daemon_left_is_purged_by_the_next_start(tmp_path: Path) -> None:
    store = await rotated(tmp_path / "home")
    # As a kill leaves it: the files as they are, and nobody to close them.
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "home", killed)
    await store.close()
    assert left(killed)
    again = SqliteStore(killed)
    loaded = await again.load()
    assert loaded is not None
    assert loaded.authority == b"authority 2"
    assert len(await again.heads()) == 1
    assert not left(killed)
    await again.close()
    assert not (killed / DUE_NAME).exists()


async def test_after_a_purge_none_is_due_and_a_start_writes_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await rotated(tmp_path / "home")
    await store.purge()
    await store.close()
    assert not (tmp_path / "home" / DUE_NAME).exists()
    purged: list[bool] = []
    monkeypatch.setattr(Purging, "purge", lambda *_: purged.append(True))
    again = SqliteStore(tmp_path / "home")
    await again.load()
    await again.close()
    assert purged == []


async def test_a_purge_that_fails_at_the_start_stays_due_and_the_vault_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await rotated(tmp_path / "home")).close()

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Purging, "purge", full)
    again = SqliteStore(tmp_path / "home")
    assert await again.load() is not None
    await again.close()
    assert (tmp_path / "home" / DUE_NAME).stat().st_mode & 0o777 == 0o600


async def test_without_the_note_nothing_is_rotated(tmp_path: Path) -> None:
    home = tmp_path / "home"
    store = empty(home)
    await store.create(VAULT)
    (home / DUE_NAME).symlink_to(tmp_path / "elsewhere")
    await store.set_aside([row(2, b"new" * 500)])
    with pytest.raises(StoreError):
        await store.commit(Change(b"authority 0", b"authority 1", aside=1, nothing_else=True))
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority 0"
    await store.close()


_NO_TEMPORARY_FILES = """
import os, sqlite3, subprocess, sys
from pathlib import Path
from backpackd.adapters.stores.purging import Purging

home = sys.argv[1]
mount = lambda *words: subprocess.run(["mount", *words], check=True)
mount("--bind", home, home)
for place in ("/tmp", "/var/tmp", "/usr/tmp"):
    if os.path.isdir(place):
        mount("--rbind", place, place)
        mount("-o", "remount,bind,ro", place)
# SQLite's last resort is the current directory.
os.chdir("/proc")
connection = sqlite3.connect(f"{home}/vault.db", isolation_level=None)
connection.execute("CREATE TABLE t (a)")
connection.execute("INSERT INTO t VALUES (zeroblob(8000000))")
purging = Purging(Path(home))
purging.due()
purging.purge(connection)
connection.close()
print(sorted(os.listdir(home)))
"""


@pytest.mark.parametrize("name", ["home", "it's a home"])
def test_what_is_deleted_is_purged_also_without_a_place_for_temporary_files(
    tmp_path: Path, name: str
) -> None:
    home = tmp_path / name
    home.mkdir(mode=0o700)
    command = [*unshared("--mount"), sys.executable, "-c", _NO_TEMPORARY_FILES, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("['vault.db']\n", "")
