"""The store on SQLite: one connection, one thread.

It stores sealed bytes and understands none of them. `vault_file` opens, checks and makes the file;
this module reads and writes its rows.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from backpackd.adapters.home.files import UnsafeFileError
from backpackd.adapters.stores.aside import Aside
from backpackd.adapters.stores.failures import translate, translate_os, translate_unsafe
from backpackd.adapters.stores.formats import FORMATS, Format
from backpackd.adapters.stores.purging import Purging
from backpackd.adapters.stores.remembered import Remembered
from backpackd.adapters.stores.vault_file import VaultFile, transaction
from backpackd.core.audit.chain import MOST_NUMBER
from backpackd.core.errors import AlreadyInitializedError, DamageError, StoreError
from backpackd.core.rows import (
    AuditPublic,
    AuditRow,
    Change,
    KeyRow,
    RowHead,
    SlotRow,
    StoredVault,
)

MOST_SLOTS = 64
"""That are read: more than a vault may have, so that too many are seen to be too many."""
MOST_SLOT_BYTES = 64 * 1024
MOST_ENTRY_BYTES = 2 * 1024 * 1024
"""Of an entry of the audit log: twice what one about the longest policy takes."""

_Result = TypeVar("_Result")


class SqliteStore:
    """Implements `ports.Store` in one directory.

    Args:
        home: the directory, private to the user; checked by `adapters.home.home`.
        formats: the versions of the schema, oldest first.
    """

    def __init__(self, home: Path, formats: Sequence[Format] = FORMATS) -> None:
        self._file = VaultFile(home, formats)
        self._aside = Aside(home)
        self._purging = Purging(home)
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
            # If the rows were forgotten in between, this row may be older than the change. Later
            # rows are not: the thread does one thing after the other.
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
        if change.put or change.delete or change.aside is not None:
            self._remembered = Remembered()
        await self._run(lambda: self._commit(change))

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """See `ports.Store`."""
        await self._run(lambda: self._append(rows))

    async def audit_rows(self, after: int, most: int) -> list[AuditRow]:
        """See `ports.Store`."""
        statement = (
            f"SELECT number, kind, previous, {_bounded('body', MOST_ENTRY_BYTES)} "  # noqa: S608
            "FROM audit_log WHERE number > ? ORDER BY number LIMIT ?"
        )
        return await self._run(
            lambda: [AuditRow(*row) for row in self._open().execute(statement, (after, most))]
        )

    async def audit_last(
        self, kind: int | None = None, before: int | None = None
    ) -> AuditRow | None:
        """See `ports.Store`."""
        last = MOST_NUMBER if before is None else before - 1
        statement = (
            "SELECT number, kind, previous, body FROM audit_log "
            "WHERE number BETWEEN 1 AND ?2 AND (?1 IS NULL OR kind = ?1) "
            "ORDER BY number DESC LIMIT 1"
        )

        def read() -> AuditRow | None:
            row = self._open().execute(statement, (kind, last)).fetchone()
            return AuditRow(*row) if row is not None else None

        return await self._run(read)

    async def set_aside(self, rows: Sequence[KeyRow]) -> None:
        """See `ports.Store`."""
        await self._run(lambda: self._aside.add(self._open(), rows))

    async def drop_aside(self) -> None:
        """See `ports.Store`."""
        await self._run(lambda: self._aside.drop(self._connection))

    async def purge(self) -> None:
        """See `ports.Store`."""
        await self._run(lambda: self._purging.purge(self._open()))

    async def close(self) -> None:
        """See `ports.Store`."""
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown()

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        def guarded() -> _Result:
            try:
                return work()
            except sqlite3.Error as error:
                raise translate(error) from error
            except UnsafeFileError as error:
                raise translate_unsafe(error) from error
            except OSError as error:
                raise translate_os(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("there is no vault file")
        return self._connection

    def _close(self) -> None:
        # What cannot be removed now, the next start names.
        with contextlib.suppress(UnsafeFileError, OSError):
            self._aside.drop(self._connection)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _load(self) -> StoredVault | None:
        if self._connection is None:
            # A daemon that was killed in between leaves it behind.
            self._aside.drop(None)
            self._connection = self._file.open()
            if self._connection is None:
                return None
            self._purging.catch_up(self._connection)
        row = self._connection.execute("SELECT vault_id, authority FROM vault").fetchone()
        if row is None:
            raise DamageError("the vault file is incomplete: restore it from a backup")
        slots = self._connection.execute(
            f"SELECT slot_id, {_bounded('body', MOST_SLOT_BYTES)} FROM slots "  # noqa: S608
            "ORDER BY slot_id LIMIT ?",
            (MOST_SLOTS,),
        )
        audit = self._connection.execute("SELECT wrap, verify FROM audit_keys").fetchone()
        public = AuditPublic(*audit) if audit is not None else None
        return StoredVault(row[0], row[1], tuple(SlotRow(*slot) for slot in slots), public)

    def _create(self, vault: StoredVault) -> None:
        if self._connection is not None:
            raise AlreadyInitializedError("there is a vault already; to use it, unlock it")

        def fill(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO vault (id, vault_id, authority) VALUES (1, ?, ?)",
                (vault.vault_id, vault.authority),
            )
            _put_slots(connection, vault.slots)

        self._connection = self._file.create(fill)

    def _rows(self, indexes: list[bytes]) -> dict[bytes, KeyRow]:
        statement = "SELECT row_index, version, head, value FROM keys WHERE row_index = ?"
        found = (self._open().execute(statement, (index,)).fetchone() for index in indexes)
        return {row[0]: KeyRow(*row) for row in found if row is not None}

    def _commit(self, change: Change) -> None:
        connection = self._open()
        if change.nothing_else:
            # The replaced slots wrap a master key that somebody may have got.
            self._purging.due()
        with transaction(connection):
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
            if change.aside is not None:
                self._aside.take(connection, change.aside, nothing_else=change.nothing_else)
            connection.executemany(
                "INSERT OR REPLACE INTO keys (row_index, version, head, value) VALUES (?, ?, ?, ?)",
                [(row.index, row.version, row.head, row.value) for row in change.put],
            )
            connection.executemany(
                "DELETE FROM slots WHERE slot_id = ?", [(slot,) for slot in change.delete_slots]
            )
            _put_slots(connection, change.put_slots)
            _append(connection, change.audit)
            if change.audit_public is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO audit_keys (id, wrap, verify) VALUES (1, ?, ?)",
                    (change.audit_public.wrap, change.audit_public.verify),
                )

    def _append(self, rows: Sequence[AuditRow]) -> None:
        connection = self._open()
        if len(rows) == 1:
            # A single statement is its own transaction, and every lease waits for this one.
            _append(connection, rows)
            return
        with transaction(connection):
            _append(connection, rows)


def _bounded(column: str, most: int) -> str:
    """Return SQL for a column that is empty where the file holds more bytes than there can be.

    A planted row still counts as damaged, and costs no memory.
    """
    return f"CASE WHEN length({column}) <= {most} THEN {column} ELSE x'' END"


def _put_slots(connection: sqlite3.Connection, slots: Iterable[SlotRow]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO slots (slot_id, body) VALUES (?, ?)",
        [(slot.slot_id, slot.body) for slot in slots],
    )


def _append(connection: sqlite3.Connection, rows: Iterable[AuditRow]) -> None:
    # No REPLACE: a written row is never overwritten.
    statement = "INSERT INTO audit_log (number, kind, previous, body) VALUES (?, ?, ?, ?)"
    for row in rows:
        connection.execute(statement, (row.number, row.kind, row.previous, row.body))
