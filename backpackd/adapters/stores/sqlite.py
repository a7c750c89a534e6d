"""The store on SQLite: one file, one connection, one thread.

It stores sealed bytes and understands none of them. The rules:

1. WAL with `synchronous=FULL`: a commit is on the disk before it is acknowledged.
2. `locking_mode=EXCLUSIVE`: while the daemon runs, no other process reads or writes through SQLite.
3. The schema must be exactly the expected text: a planted trigger or view would run inside the
   daemon's own transactions.
4. A vault is made under another name and linked into place when it is complete. So a file of that
   name that is empty or cut short is a damaged vault, never "no vault yet", and nothing here ever
   overwrites one.
5. A file that is refused stays as it is, byte for byte. It is looked at read-only first: SQLite
   folds the write-ahead log into the file when a connection that may write is closed.
"""

import asyncio
import contextlib
import errno
import os
import sqlite3
import stat
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backpackd.adapters.stores.remembered import Remembered
from backpackd.core.errors import (
    AlreadyInitializedError,
    BackpackError,
    DamageError,
    DiskFullError,
    StoreError,
)
from backpackd.core.rows import Change, KeyRow, RowHead, SlotRow, StoredVault

FILE_NAME = "vault.db"
APPLICATION_ID = 0x4250434B
"""`BPCK`, so that file(1) and a restored backup can tell what this is."""

_DRAFT_NAME = FILE_NAME + ".new"
_COMPANIONS = ("-wal", "-journal", "-shm")
"""What SQLite keeps beside a file (sqlite.org/tempfiles.html)."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Format:
    """One version of the file's schema.

    Attributes:
        version: SQLite's `user_version`.
        schema: the statements that make it; they are compared with the file's, letter by letter.
        upgrade: the statements that lead here from the version before.
    """

    version: int
    schema: tuple[str, ...]
    upgrade: tuple[str, ...] = ()


FORMATS: tuple[Format, ...] = (
    Format(
        1,
        (
            """CREATE TABLE vault (
                id INTEGER PRIMARY KEY CHECK (id = 1),
                vault_id BLOB NOT NULL,
                authority BLOB NOT NULL
            ) STRICT""",
            "CREATE TABLE slots (slot_id BLOB PRIMARY KEY NOT NULL, body BLOB NOT NULL) STRICT",
            """CREATE TABLE keys (
                row_index BLOB PRIMARY KEY NOT NULL,
                version INTEGER NOT NULL,
                head BLOB NOT NULL,
                value BLOB NOT NULL
            ) STRICT""",
        ),
    ),
)
"""Every version so far, oldest first. Opening an older file upgrades it in one transaction."""


class SqliteStore:
    """Implements `ports.Store` in one directory.

    Args:
        home: the directory, private to the user; checked by `adapters.home`.
        formats: the versions of the schema, oldest first.
    """

    def __init__(self, home: Path, formats: Sequence[Format] = FORMATS) -> None:
        self._path = home / FILE_NAME
        self._formats = formats
        self._connection: sqlite3.Connection | None = None
        self._remembered = Remembered()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def load(self) -> StoredVault | None:
        """See `ports.Store`."""
        self._remembered = Remembered()
        return await self._run(self._load)

    async def create(self, vault: StoredVault) -> None:
        """See `ports.Store`."""
        await self._run(lambda: self._create(vault))

    async def heads(self) -> list[RowHead]:
        """See `ports.Store`."""
        statement = "SELECT row_index, version, substr(head, -16), substr(value, -16) FROM keys"
        return await self._run(
            lambda: [
                RowHead(index, version, tags + more)
                for index, version, tags, more in self._open().execute(statement)
            ]
        )

    async def rows(self, indexes: Iterable[bytes]) -> dict[bytes, KeyRow]:
        """See `ports.Store`."""
        wanted = list(indexes)
        found = {index: row for index in wanted if (row := self._remembered.get(index))}
        missing = [index for index in wanted if index not in found]
        if missing:
            remembered = self._remembered
            read = await self._run(lambda: self._rows(missing))
            # If they were forgotten meanwhile, what was read may be older than the change. What is
            # read after that is not: the thread does one thing after the other.
            remembered.add(read.values())
            found |= read
        return found

    async def sealed_heads(self) -> list[tuple[RowHead, bytes]]:
        """See `ports.Store`."""
        statement = "SELECT row_index, version, head, substr(value, -16) FROM keys"
        return await self._run(
            lambda: [
                (RowHead(index, version, head[-16:] + tag), head)
                for index, version, head, tag in self._open().execute(statement)
            ]
        )

    async def commit(self, change: Change) -> None:
        """See `ports.Store`."""
        if change.put or change.delete:
            self._remembered = Remembered()
        await self._run(lambda: self._commit(change))

    async def close(self) -> None:
        """See `ports.Store`."""
        await self._run(self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        def guarded() -> _Result:
            try:
                return work()
            except sqlite3.Error as error:
                raise _translate(error) from error
            except OSError as error:
                raise _translate_os(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("there is no vault file")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _load(self) -> StoredVault | None:
        if self._connection is None:
            if not self._present():
                return None
            # A daemon that was killed just after it made the vault leaves the other name behind.
            self._remove_draft()
            self._connection = self._connect_checked()
        row = self._connection.execute("SELECT vault_id, authority FROM vault").fetchone()
        if row is None:
            raise DamageError("the vault file is incomplete: restore it from a backup")
        slots = self._connection.execute("SELECT slot_id, body FROM slots ORDER BY slot_id")
        return StoredVault(row[0], row[1], tuple(SlotRow(*slot) for slot in slots))

    def _present(self) -> bool:
        """Tell whether there is a vault file, and refuse one that is not safe to use."""
        for suffix in ("", *_COMPANIONS):
            path = self._path.with_name(FILE_NAME + suffix)
            try:
                status = path.lstat()
            except FileNotFoundError:
                if suffix == "":
                    self._refuse_orphans()
                    return False
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise DamageError(f"{path.name} is not a plain file of this user", reason="unsafe")
            if status.st_mode & 0o077:
                raise DamageError(
                    f"others can read or write {path.name}: if that was by mistake, run chmod 600 "
                    "on it; if they may have read it, change the passphrase and rotate",
                    reason="unsafe",
                )
        if self._path.stat().st_size == 0:
            raise DamageError("the vault file is empty: restore it from a backup")
        return True

    def _refuse_orphans(self) -> None:
        # A log or journal without its vault means that the vault was removed or renamed. A new one
        # in its place would make SQLite apply the old log to the new file.
        for suffix in ("-wal", "-journal"):
            orphan = self._path.with_name(FILE_NAME + suffix)
            if os.path.lexists(orphan):
                raise DamageError(
                    f"{FILE_NAME} is missing and {orphan.name} is there: put the vault file back, "
                    "or move the rest of it away"
                )

    def _connect_checked(self) -> sqlite3.Connection:
        self._look()
        connection = self._connect(self._path, "rw")
        try:
            # Checked again, now that nobody else can write, and before the first write of ours.
            version = self._check_format(connection)
            # Left by the look above. No one else has it open: the file is locked.
            self._path.with_name(FILE_NAME + "-shm").unlink(missing_ok=True)
            connection.execute("PRAGMA journal_mode=WAL")
            self._upgrade(connection, version)
        except BaseException:
            connection.close()
            raise
        return connection

    def _look(self) -> None:
        """Refuse a file that is no vault of ours without a chance of changing it."""
        if self._path.with_name(FILE_NAME + "-journal").exists():
            # Rolled back by SQLite before anything can be read, for which it has to write.
            return
        try:
            with contextlib.closing(self._connect(self._path, "ro")) as connection:
                self._check_format(connection)
        except sqlite3.Error as error:
            damage = _translate(error)
            if isinstance(damage, DamageError):
                raise damage from error
            # A full disk, for one, has no room for the index that a read-only connection needs.
            # Whether the file can be used is decided by the connection that will use it.

    def _check_format(self, connection: sqlite3.Connection) -> int:
        """Check the whole file and return the version of its schema."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        newest = self._formats[-1].version
        if application != APPLICATION_ID:
            raise DamageError(f"{FILE_NAME} is not a vault: restore it from a backup")
        if version > newest:
            raise DamageError(
                f"the vault file has format {version} and this version of backpackd reads up to "
                f"{newest}: install the newer version that wrote it",
                reason="vault-from-the-future",
            )
        known = {form.version: form for form in self._formats}
        if version not in known:
            raise DamageError("the vault file has an unknown format: restore it from a backup")
        _check_schema(connection, known[version])
        if self._cut_short(connection) or (
            connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
        ):
            raise DamageError("the vault file is damaged: restore it from a backup")
        return int(version)

    def _cut_short(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the last page is incomplete, which SQLite takes for zeros."""
        log = self._path.with_name(FILE_NAME + "-wal")
        if log.exists() and log.stat().st_size:
            # A write that found no room may have left such a page; it is whole in the log.
            return False
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        return self._path.stat().st_size % int(page_size) != 0

    def _upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        for form in self._formats:
            if form.version > version:
                with _transaction(connection):
                    for statement in form.upgrade:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={form.version}")
                    _check_schema(connection, form)

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{urllib.parse.quote(os.fspath(path))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=True,
            timeout=1,
        )
        # Locking comes first, before anything reads the file: SQLite then keeps its index of the
        # log in its own memory, which needs no room on the disk. Only a writer can lock.
        locking = ["locking_mode=EXCLUSIVE"] if mode == "rw" else []
        try:
            for pragma in (
                *locking,
                "synchronous=FULL",
                "secure_delete=ON",
                "trusted_schema=OFF",
                "cell_size_check=ON",
                "temp_store=MEMORY",
            ):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, vault: StoredVault) -> None:
        if self._connection is not None or self._present():
            raise AlreadyInitializedError("there is a vault already; to use it, unlock it")
        draft = self._path.with_name(_DRAFT_NAME)
        self._remove_draft()
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        try:
            connection = self._connect(draft, "rw")
            try:
                self._fill(connection, vault)
            finally:
                connection.close()
            _sync(draft)
            try:
                # link(2) fails where rename(2) would replace: an existing vault is never lost.
                os.link(draft, self._path)
            except FileExistsError:
                raise AlreadyInitializedError("there is a vault already") from None
            _sync(self._path.parent)
        finally:
            self._remove_draft()
        self._connection = self._connect_checked()

    def _remove_draft(self) -> None:
        # Only one daemon holds the home's lock, so a draft is the rest of one that was killed.
        for suffix in ("", *_COMPANIONS):
            self._path.with_name(_DRAFT_NAME + suffix).unlink(missing_ok=True)

    def _fill(self, connection: sqlite3.Connection, vault: StoredVault) -> None:
        # Here and not once it is in its place, so that no moment leaves a journal beside a vault.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        with _transaction(connection):
            for statement in self._formats[-1].schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={self._formats[-1].version}")
            connection.execute(
                "INSERT INTO vault (id, vault_id, authority) VALUES (1, ?, ?)",
                (vault.vault_id, vault.authority),
            )
            _put_slots(connection, vault.slots)

    def _rows(self, indexes: list[bytes]) -> dict[bytes, KeyRow]:
        statement = "SELECT row_index, version, head, value FROM keys WHERE row_index = ?"
        found = (self._open().execute(statement, (index,)).fetchone() for index in indexes)
        return {row[0]: KeyRow(*row) for row in found if row is not None}

    def _commit(self, change: Change) -> None:
        connection = self._open()
        with _transaction(connection):
            replaced = connection.execute(
                "UPDATE vault SET authority = ? WHERE id = 1 AND authority = ?",
                (change.authority, change.before),
            )
            if replaced.rowcount != 1:
                raise DamageError(
                    "the vault file was changed behind the daemon's back: nothing was stored; "
                    "lock the vault and restore the file from a backup",
                    reason="changed-underneath",
                )
            connection.executemany(
                "DELETE FROM keys WHERE row_index = ?", [(index,) for index in change.delete]
            )
            connection.executemany(
                "INSERT OR REPLACE INTO keys (row_index, version, head, value) VALUES (?, ?, ?, ?)",
                [(row.index, row.version, row.head, row.value) for row in change.put],
            )
            connection.executemany(
                "DELETE FROM slots WHERE slot_id = ?", [(slot,) for slot in change.delete_slots]
            )
            _put_slots(connection, change.put_slots)


class _transaction:  # noqa: N801 - reads as a statement where it is used
    """Commit on success and roll back on any failure, a failed commit included."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            # SQLite has rolled back by itself after some errors, a full disk among them.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _put_slots(connection: sqlite3.Connection, slots: Iterable[SlotRow]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO slots (slot_id, body) VALUES (?, ?)",
        [(slot.slot_id, slot.body) for slot in slots],
    )


def _check_schema(connection: sqlite3.Connection, form: Format) -> None:
    found = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    if sorted(sql for (sql,) in found) != sorted(form.schema):
        raise DamageError(
            "the vault file holds tables, views or triggers that do not belong there: restore it "
            "from a backup",
            reason="schema-changed",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _translate(error: sqlite3.Error) -> BackpackError:
    """Turn SQLite's error into ours, by its primary result code (sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError("no room on the disk: nothing was stored; make room and try again")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DamageError("the vault file is damaged: restore it from a backup")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError("another program has the vault file open: close it and try again")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreError(
        f"the vault file cannot be read or written ({name}): nothing was stored; see to the home's "
        "disk and permissions, then try again"
    )


def _translate_os(error: OSError) -> BackpackError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError("no room on the disk: nothing was stored; make room and try again")
    return StoreError(
        f"the vault file cannot be used ({error.strerror}): see to the home's disk and "
        "permissions, then try again"
    )
