"""Reads a vault file that may be damaged, as far as it can be read, and changes nothing in it.

It does not judge what a row means or whether it is genuine. A row that cannot be read is counted
and does not hide the others.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backpackd.adapters.home.files import open_file, remove_file
from backpackd.adapters.stores.failures import translate
from backpackd.adapters.stores.formats import FORMATS, check_schema
from backpackd.adapters.stores.vault_file import (
    APPLICATION_ID,
    FILE_NAME,
    VaultFile,
    check_vault_files,
)
from backpackd.core.errors import BackpackError, DamageError
from backpackd.core.rows import AuditPublic, AuditRow, KeyRow, SlotRow, StoredVault

_COMPANIONS = ("-shm", "-wal")
_MOST_SHOWN = 10


class Inspection:
    """A vault file, opened for reading only.

    Attributes:
        problems: problems of the file as a file.

    Args:
        home: its directory, which no daemon uses.

    Raises:
        BackpackError: the file is not safe to open, or cannot be opened at all.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / FILE_NAME
        # Before SQLite has the file open: closing a descriptor of it would drop SQLite's locks.
        self._head = _head(self._path) if check_vault_files(home) else b""
        self._before = {suffix for suffix in _COMPANIONS if self._beside(suffix).exists()}
        self.problems: list[str] = []
        try:
            self._connection = VaultFile(home).connect(self._path, "ro", cut_short=True)
        except sqlite3.Error as error:
            raise translate(error) from error
        self._look()

    def close(self) -> None:
        """Close the file, and remove files that reading has left beside it."""
        self._connection.close()
        for suffix in _COMPANIONS:
            if suffix not in self._before:
                remove_file(self._beside(suffix))

    def stored(self) -> StoredVault | None:
        """Return everything except keys and log; None if that cannot be read."""
        vault = self._one("SELECT vault_id FROM vault WHERE id = ?", 1)
        if vault is None:
            self.problems.append("the vault's id and authority record are missing")
            return None
        # Each row alone: a bad page hides only its own rows.
        authority = self._one("SELECT authority FROM vault WHERE id = ?", 1) or (b"",)
        found = []
        for number in self._numbers("slots", "slot_id"):
            slot = self._one("SELECT slot_id, body FROM slots WHERE rowid = ?", number)
            if slot is not None:
                found.append(SlotRow(*slot))
        return StoredVault(vault[0], authority[0], tuple(found))

    def rows(self) -> Iterator[KeyRow]:
        """Yield every readable key row, one by one: a bad page hides only its own rows."""
        for number in self._numbers("keys", "row_index"):
            row = self._one(
                "SELECT row_index, version, head, value FROM keys WHERE rowid = ?", number
            )
            if row is not None:
                yield KeyRow(*row)

    def audit_public(self) -> AuditPublic | None:
        """Return the public audit keys; None when there are none, or they cannot be read."""
        row = self._one("SELECT wrap, verify FROM audit_keys WHERE id = ?", 1)
        return AuditPublic(*row) if row is not None else None

    def audit_rows(self) -> Iterator[AuditRow]:
        """Yield every row of the audit log that can be read, in order."""
        for number in self._numbers("audit_log"):
            row = self._one(
                "SELECT number, kind, previous, body FROM audit_log WHERE rowid = ?", number
            )
            if row is not None:
                yield AuditRow(*row)

    def _numbers(self, table: str, *orders: str) -> list[int]:
        """Collect row numbers by every way to them: a bad page ends each at another place."""
        found: set[int] = set()
        for order in ("rowid", "rowid DESC", *orders):
            try:
                numbers = self._connection.execute(
                    f"SELECT rowid FROM {table} ORDER BY {order}"  # noqa: S608 - names of our own
                )
                found.update(number for (number,) in numbers)
            except sqlite3.Error as error:
                self._note(error)
        return sorted(found)

    def _one(self, statement: str, *values: int) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            self._note(error)
            return None
        return found

    def _look(self) -> None:
        try:
            (application,) = self._connection.execute("PRAGMA application_id").fetchone()
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            known = {form.version: form for form in FORMATS}
            if application != APPLICATION_ID:
                self.problems.append("it is not marked as a vault")
            if version not in known:
                self.problems.append(f"its format {version} is not one that this version knows")
            else:
                check_schema(self._connection, known[version])
            self._measure()
            for (line,) in self._connection.execute(f"PRAGMA integrity_check({_MOST_SHOWN})"):
                if line != "ok":
                    self.problems.append(f"SQLite: {line}")
        except sqlite3.Error as error:
            self._note(error)
        except DamageError as error:
            self.problems.append(error.message)

    def _measure(self) -> None:
        """Note whether the file lacks pages; SQLite reports that only if it needs them."""
        log = self._beside("-wal")
        if log.exists() and log.stat().st_size:
            # Pages that are in the log need not be in the file yet.
            return
        (size,) = self._connection.execute("PRAGMA page_size").fetchone()
        # sqlite.org/fileformat2.html, section 1.3: the size in pages.
        pages = int.from_bytes(self._head[28:], "big")
        there = self._path.stat().st_size // size
        if there < pages:
            self.problems.append(f"it was cut short: {pages - there} of {pages} pages are missing")

    def _note(self, error: sqlite3.Error) -> None:
        found: BackpackError = translate(error)
        if found.message not in self.problems:
            self.problems.append(found.message)

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(FILE_NAME + suffix)


def _head(path: Path) -> bytes:
    """Read the beginning of a database file."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read(32)
