"""The SQLite store as an attacker with the file, a crash, or bad luck meets it."""

import asyncio
import hashlib
import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from backpackd.adapters.stores import remembered
from backpackd.adapters.stores.formats import FORMATS, Format
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.adapters.stores.vault_file import FILE_NAME
from backpackd.core.errors import (
    AlreadyInitializedError,
    BackpackError,
    DamageError,
    StoreError,
)
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault

VAULT = StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),))
KILLED = """
import asyncio, os, pathlib, signal, sys
from backpackd.adapters.stores.sqlite import SqliteStore
from backpackd.core.rows import Change, KeyRow, SlotRow, StoredVault
async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    await store.create(StoredVault(b"v" * 16, b"authority 0", (SlotRow(b"a" * 16, b"slot"),)))
    for n in range(1, 4):
        row = KeyRow(n.to_bytes(32, "big"), 1, b"h" * 100, b"v" * 5000)
        await store.commit(Change(b"authority %d" % (n - 1), b"authority %d" % n, put=[row]))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


async def make(home: Path, rows: int = 3, formats: Sequence[Format] = FORMATS) -> None:
    """Make a vault with some rows, in an orderly way."""
    store = SqliteStore(home, formats)
    await store.create(VAULT)
    for number in range(1, rows + 1):
        row = KeyRow(number.to_bytes(32, "big"), 1, b"h" * 100, b"v" * 5000)
        before, after = b"authority %d" % (number - 1), b"authority %d" % number
        await store.commit(Change(before, after, put=[row]))
    await store.close()


def killed(home: Path) -> None:
    """Make a vault with three rows and a write-ahead log that was never folded in."""
    done = subprocess.run([sys.executable, "-c", KILLED, home], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert (home / f"{FILE_NAME}-wal").stat().st_size > 0


def names(home: Path) -> list[str]:
    return [path.name for path in home.iterdir()]


def snapshot(home: Path) -> dict[str, str]:
    """Return what the vault's files hold."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in home.iterdir()
        if path.name.removeprefix(FILE_NAME) in {"", "-journal"}
        or (path.name == f"{FILE_NAME}-wal" and path.stat().st_size)
    }


async def refused(home: Path, formats: Sequence[Format] = FORMATS) -> BackpackError:
    """Assert that a vault is refused, that nothing takes its place, and that nothing changes."""
    before = snapshot(home)
    store = SqliteStore(home, formats)
    with pytest.raises(BackpackError) as caught:
        await store.load()
    with pytest.raises(BackpackError):
        await store.create(VAULT)
    await store.close()
    assert snapshot(home) == before
    return caught.value


def alter(home: Path, *statements: str) -> None:
    connection = sqlite3.connect(home / FILE_NAME)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "planted",
    [
        "CREATE TRIGGER t AFTER INSERT ON keys BEGIN DELETE FROM keys; END",
        "CREATE VIEW v AS SELECT * FROM keys",
        "CREATE TABLE t (a)",
        "CREATE INDEX i ON keys (version)",
        "ALTER TABLE keys ADD COLUMN more BLOB",
        "DROP TABLE slots",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
    ],
)
async def test_a_schema_that_is_not_the_expected_one_is_refused(home: Path, planted: str) -> None:
    await make(home)
    alter(home, planted)
    error = await refused(home)
    assert isinstance(error, DamageError)
    assert error.reason == "schema-changed"


async def test_a_refused_write_ahead_log_is_not_folded_into_the_file(home: Path) -> None:
    killed(home)
    copy = home.parent / "copy"
    copy.mkdir(mode=0o700)
    for name in (FILE_NAME, f"{FILE_NAME}-wal"):
        (copy / name).touch(0o600)
        (copy / name).write_bytes((home / name).read_bytes())
    # Held open, so that the trigger stays in the log while the files are copied back.
    connection = sqlite3.connect(copy / FILE_NAME)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON keys BEGIN DELETE FROM keys; END")
    connection.commit()
    for name in (FILE_NAME, f"{FILE_NAME}-wal"):
        (home / name).write_bytes((copy / name).read_bytes())
    connection.close()
    assert (await refused(home)).reason == "schema-changed"
    assert (home / f"{FILE_NAME}-wal").stat().st_size > 0


async def test_a_file_from_the_future_is_refused_by_its_version(home: Path) -> None:
    await make(home)
    alter(home, "PRAGMA user_version=7")
    error = await refused(home)
    assert error.reason == "vault-from-the-future"
    assert "7" in error.message


@pytest.mark.parametrize("version", [0, -1])
async def test_a_file_of_no_known_version_is_refused(home: Path, version: int) -> None:
    await make(home)
    alter(home, f"PRAGMA user_version={version}")
    assert isinstance(await refused(home), DamageError)


@pytest.mark.parametrize("content", [b"", b"x", b"not a database, and long enough " * 400])
async def test_a_file_that_is_no_database_is_refused(home: Path, content: bytes) -> None:
    (home / FILE_NAME).touch(0o600)
    (home / FILE_NAME).write_bytes(content)
    assert isinstance(await refused(home), DamageError)


async def test_a_database_of_somebody_else_is_refused(home: Path) -> None:
    (home / FILE_NAME).touch(0o600)
    alter(home, "CREATE TABLE t (a)")
    assert isinstance(await refused(home), DamageError)


async def test_a_file_cut_short_anywhere_is_refused_and_never_taken_for_none(home: Path) -> None:
    await make(home)
    whole = (home / FILE_NAME).read_bytes()
    lengths = {0, 1, 15, 16, 20, 99, 100, 511, 512, 1024, 4095, 4096, 4097, len(whole) - 1}
    lengths |= set(range(0, len(whole), 4096)) | set(range(1000, len(whole), 3000))
    for length in sorted(lengths):
        (home / FILE_NAME).write_bytes(whole[:length])
        error = await refused(home)
        assert isinstance(error, DamageError), (length, error)
        assert (home / FILE_NAME).read_bytes() == whole[:length]


async def test_a_damaged_page_is_found_at_opening(home: Path, chance: random.Random) -> None:
    await make(home)
    whole = bytearray((home / FILE_NAME).read_bytes())
    for place in range(4096, len(whole), 4096):
        damaged = bytearray(whole)
        damaged[place : place + 64] = chance.randbytes(64)
        (home / FILE_NAME).write_bytes(damaged)
        store = SqliteStore(home)
        try:
            loaded = await store.load()
        except DamageError:
            loaded = None
        # What lies in the values is not SQLite's to judge: their seals are checked at use.
        assert loaded is None or loaded.vault_id == VAULT.vault_id
        await store.close()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
async def test_a_log_without_its_vault_is_no_new_beginning(home: Path, suffix: str) -> None:
    (home / f"{FILE_NAME}{suffix}").touch(0o600)
    store = SqliteStore(home)
    with pytest.raises(DamageError):
        await store.load()
    with pytest.raises(DamageError):
        await store.create(VAULT)
    assert not (home / FILE_NAME).exists()
    await store.close()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o602])
async def test_a_file_that_others_can_open_is_refused(home: Path, mode: int) -> None:
    await make(home)
    (home / FILE_NAME).chmod(mode)
    error = await refused(home)
    assert error.reason == "unsafe"
    assert "chmod 600" in error.message
    assert stat.S_IMODE((home / FILE_NAME).stat().st_mode) == mode


async def test_a_log_that_others_can_open_is_refused(home: Path) -> None:
    killed(home)
    (home / f"{FILE_NAME}-wal").chmod(0o644)
    assert (await refused(home)).reason == "unsafe"


async def test_a_symbolic_link_is_refused(home: Path) -> None:
    await make(home)
    (home / FILE_NAME).rename(home / "elsewhere")
    (home / FILE_NAME).symlink_to("elsewhere")
    assert (await refused(home)).reason == "unsafe"


@pytest.mark.parametrize("kind", ["dangling", "directory", "fifo"])
async def test_what_is_no_plain_file_is_refused(home: Path, kind: str) -> None:
    match kind:
        case "dangling":
            (home / FILE_NAME).symlink_to("nowhere")
        case "directory":
            (home / FILE_NAME).mkdir(mode=0o700)
        case "fifo":
            os.mkfifo(home / FILE_NAME, 0o600)
    store = SqliteStore(home)
    with pytest.raises(DamageError) as caught:
        await store.load()
    assert caught.value.reason == "unsafe"
    with pytest.raises(DamageError):
        await store.create(VAULT)
    await store.close()


async def test_a_file_of_another_user_is_refused(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file away")
    await make(home)
    os.chown(home / FILE_NAME, 65534, 65534)
    assert (await refused(home)).reason == "unsafe"


async def test_a_vault_that_another_program_has_open_is_refused_for_now(home: Path) -> None:
    await make(home)
    connection = sqlite3.connect(home / FILE_NAME, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    store = SqliteStore(home)
    with pytest.raises(StoreError) as caught:
        await store.load()
    assert "another program" in caught.value.message
    connection.close()
    assert await store.load() is not None
    await store.close()


async def test_while_the_store_is_open_no_other_program_reads_the_vault(home: Path) -> None:
    await make(home)
    store = SqliteStore(home)
    await store.load()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(home / FILE_NAME, timeout=0).execute("SELECT * FROM vault")
    await store.close()


async def test_every_file_is_private_from_the_start(home: Path) -> None:
    old = os.umask(0)
    try:
        store = SqliteStore(home)
        await store.create(VAULT)
        await store.commit(Change(b"authority 0", b"authority 1"))
        modes = {name: stat.S_IMODE((home / name).stat().st_mode) for name in names(home)}
        await store.close()
    finally:
        os.umask(old)
    assert modes == {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600}


async def test_an_orderly_end_leaves_one_file(home: Path) -> None:
    await make(home)
    store = SqliteStore(home)
    await store.load()
    await store.close()
    assert names(home) == [FILE_NAME]


async def test_a_path_with_odd_characters_is_a_path(tmp_path: Path) -> None:
    home = tmp_path / "a?mode=ro&x=%41#b c"
    home.mkdir(mode=0o700)
    await make(home)
    assert names(home) == [FILE_NAME]


async def test_a_vault_in_the_making_that_was_left_over_is_not_in_the_way(home: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        (home / f"{FILE_NAME}.new{suffix}").write_bytes(b"half a vault")
    store = SqliteStore(home)
    assert await store.load() is None
    await store.create(VAULT)
    await store.close()
    assert names(home) == [FILE_NAME]


async def test_the_second_name_of_a_vault_that_was_left_over_is_removed(home: Path) -> None:
    await make(home)
    os.link(home / FILE_NAME, home / f"{FILE_NAME}.new")
    store = SqliteStore(home)
    assert await store.load() is not None
    await store.close()
    assert names(home) == [FILE_NAME]


async def test_a_vault_that_appears_while_another_is_made_is_not_lost(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = home.parent / "other"
    other.mkdir(mode=0o700)
    await make(other)
    content = (other / FILE_NAME).read_bytes()
    link = os.link

    def late(source: Path, target: Path) -> None:
        (other / FILE_NAME).rename(home / FILE_NAME)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    store = SqliteStore(home)
    with pytest.raises(AlreadyInitializedError):
        await store.create(VAULT)
    assert (home / FILE_NAME).read_bytes() == content
    assert names(home) == [FILE_NAME]
    await store.close()


NEWER = (
    *FORMATS,
    Format(
        FORMATS[-1].version + 1,
        (*FORMATS[-1].schema, "CREATE TABLE more (a BLOB NOT NULL) STRICT"),
        ("CREATE TABLE more (a BLOB NOT NULL) STRICT", "INSERT INTO more VALUES (x'01')"),
    ),
)


async def test_an_older_file_is_upgraded_when_it_is_opened(home: Path) -> None:
    await make(home)
    store = SqliteStore(home, NEWER)
    loaded = await store.load()
    assert loaded is not None
    assert loaded.authority == b"authority 3"
    assert len(await store.heads()) == 3
    await store.close()
    connection = sqlite3.connect(home / FILE_NAME)
    assert connection.execute("PRAGMA user_version").fetchone() == (NEWER[-1].version,)
    assert connection.execute("SELECT * FROM more").fetchall() == [(b"\x01",)]
    connection.close()


async def test_an_upgraded_file_is_from_the_future_for_the_version_before(home: Path) -> None:
    await make(home)
    store = SqliteStore(home, NEWER)
    await store.load()
    await store.close()
    assert (await refused(home)).reason == "vault-from-the-future"


@pytest.mark.parametrize(
    "steps",
    [
        ("CREATE TABLE more (a BLOB NOT NULL) STRICT", "INSERT INTO nowhere VALUES (1)"),
        ("CREATE TABLE something_else (a)",),
        (),
    ],
)
async def test_an_upgrade_that_fails_leaves_the_old_file(
    home: Path, steps: tuple[str, ...]
) -> None:
    await make(home)
    before = (home / FILE_NAME).read_bytes()
    broken = (*FORMATS, Format(NEWER[-1].version, NEWER[-1].schema, steps))
    store = SqliteStore(home, broken)
    with pytest.raises(BackpackError):
        await store.load()
    await store.close()
    assert (home / FILE_NAME).read_bytes() == before
    old = SqliteStore(home)
    assert (await old.load()) is not None
    await old.close()


async def test_a_new_vault_is_made_in_the_newest_format(home: Path) -> None:
    await make(home, formats=NEWER)
    store = SqliteStore(home, NEWER)
    assert await store.load() is not None
    await store.close()


async def test_a_caller_that_goes_away_does_not_stop_the_thread(home: Path) -> None:
    store = SqliteStore(home)
    await store.create(VAULT)
    loading = asyncio.create_task(store.load())
    await asyncio.sleep(0)
    loading.cancel()
    assert await store.load() == VAULT
    await store.close()


async def test_errors_hold_no_path_and_no_content(home: Path) -> None:
    await make(home)
    alter(home, "CREATE TABLE telltale (a)")
    error = await refused(home)
    assert "telltale" not in error.message
    assert str(home) not in error.message


class TestRemembered:
    """Rows that were read and need not be read again."""

    async def test_a_row_is_read_once(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        await make(home)
        store, read = SqliteStore(home), list[bytes]()
        await store.load()
        rows = store._rows

        def noting(indexes: list[bytes]) -> dict[bytes, KeyRow]:
            read.extend(indexes)
            return rows(indexes)

        monkeypatch.setattr(store, "_rows", noting)
        one, two, none = ((number).to_bytes(32, "big") for number in (1, 2, 9))
        first = await store.rows([one])
        assert await store.rows([one]) == first
        assert (await store.rows([two, one, none])).keys() == {one, two}
        assert read == [one, two, none]
        await store.close()

    async def test_a_row_that_is_put_or_deleted_is_as_the_change_made_it(self, home: Path) -> None:
        await make(home)
        store, index = SqliteStore(home), (1).to_bytes(32, "big")
        await store.load()
        await store.rows([index])
        new = KeyRow(index, 2, b"h" * 100, b"w" * 100)
        await store.commit(Change(b"authority 3", b"authority 4", put=[new]))
        assert await store.rows([index]) == {index: new}
        await store.commit(Change(b"authority 4", b"authority 5", delete=[index]))
        assert await store.rows([index]) == {}
        await store.close()

    async def test_what_a_change_overtakes_is_not_remembered(self, home: Path) -> None:
        await make(home)
        store, index = SqliteStore(home), (1).to_bytes(32, "big")
        await store.load()
        new = KeyRow(index, 2, b"h" * 100, b"w" * 100)
        reading = asyncio.create_task(store.rows([index]))
        await asyncio.sleep(0)
        changing = asyncio.create_task(
            store.commit(Change(b"authority 3", b"authority 4", put=[new]))
        )
        assert (await reading)[index].version == 1
        await changing
        assert await store.rows([index]) == {index: new}
        await store.close()

    async def test_loading_anew_reads_anew(self, home: Path) -> None:
        await make(home)
        store, index = SqliteStore(home), (1).to_bytes(32, "big")
        await store.load()
        await store.rows([index])
        await store.load()
        assert store._remembered.get(index) is None
        await store.close()

    async def test_no_more_is_remembered_than_so_many_bytes(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(home)
        monkeypatch.setattr(remembered, "MOST_BYTES", 2 * 5132)
        store = SqliteStore(home)
        await store.load()
        indexes = [number.to_bytes(32, "big") for number in (1, 2, 3)]
        assert len(await store.rows(indexes)) == 3
        assert [store._remembered.get(index) is None for index in indexes] == [True, False, False]
        await store.close()
