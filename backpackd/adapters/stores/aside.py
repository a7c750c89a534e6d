"""Rows set aside: a second file beside the vault, and the step that moves its rows into the vault.

Sealing thousands of rows again takes seconds, and a transaction that is open so long would keep all
others out. So the rows are collected in a separate file, which is not part of the vault. One
transaction that writes only to the vault then moves them. The next start removes leftovers of a
crash.
"""

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from backpackd.adapters.home.files import create_file, remove_file
from backpackd.core.errors import StoreError
from backpackd.core.rows import KeyRow

ASIDE_NAME = "vault.db.aside"
_COMPANIONS = ("", "-wal", "-journal", "-shm")
_TAKE = (
    "INSERT OR REPLACE INTO main.keys (row_index, version, head, value) "
    "SELECT row_index, version, head, value FROM aside.keys"
)


class Aside:
    """Rows beside a vault file. For one thread.

    Args:
        home: the vault's directory.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / ASIDE_NAME
        self._attached = False

    def add(self, connection: sqlite3.Connection, rows: Iterable[KeyRow]) -> None:
        """Set rows aside, in addition to those already there."""
        if not self._attached:
            self._attach(connection)
        connection.execute("BEGIN")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO aside.keys VALUES (?, ?, ?, ?)",
                [(row.index, row.version, row.head, row.value) for row in rows],
            )
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def take(self, connection: sqlite3.Connection, count: int, *, nothing_else: bool) -> None:
        """Store the rows that were set aside, inside a transaction on the vault.

        Args:
            connection: on which it was set aside.
            count: how many rows there must be.
            nothing_else: remove every other row.

        Raises:
            StoreError: there are more or fewer.
        """
        found = 0
        if self._attached:
            (found,) = connection.execute("SELECT count(*) FROM aside.keys").fetchone()
        if found != count:
            raise StoreError("rows that were set aside are missing: nothing was stored; try again")
        if nothing_else:
            connection.execute("DELETE FROM main.keys")
        if found:
            connection.execute(_TAKE)

    def drop(self, connection: sqlite3.Connection | None) -> None:
        """Forget rows that this process or an earlier one set aside."""
        if self._attached and connection is not None:
            # Where it cannot be detached, the file is gone all the same when it is closed.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("DETACH DATABASE aside")
        self._attached = False
        for suffix in _COMPANIONS:
            remove_file(self._path.with_name(ASIDE_NAME + suffix))

    def _attach(self, connection: sqlite3.Connection) -> None:
        self.drop(connection)
        create_file(self._path)
        uri = f"file:{urllib.parse.quote(os.fsencode(self._path))}?mode=rw"
        connection.execute("ATTACH DATABASE ? AS aside", (uri,))
        self._attached = True
        # It need not survive a crash: a half-written file is thrown away, never read.
        connection.execute("PRAGMA aside.journal_mode=OFF")
        connection.execute("PRAGMA aside.synchronous=OFF")
        connection.execute(
            "CREATE TABLE aside.keys (row_index BLOB PRIMARY KEY NOT NULL, "
            "version INTEGER NOT NULL, head BLOB NOT NULL, value BLOB NOT NULL) STRICT"
        )
