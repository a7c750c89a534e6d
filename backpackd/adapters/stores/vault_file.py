"""Opens, checks, upgrades and makes the vault file. It does not judge the stored rows.

The rules:

1. WAL with `synchronous=FULL`: a commit is on the disk before it is acknowledged.
2. `locking_mode=EXCLUSIVE`: while the daemon runs, no other process reads or writes through SQLite.
3. The schema must be exactly the expected text: a planted trigger or view would run inside the
   daemon's own transactions.
4. A vault is made under another name and linked into place when it is complete. So a file of that
   name that is empty or cut short is a damaged vault, never "no vault yet", and nothing here ever
   overwrites one.
5. A refused file stays as it is, byte for byte. It is first read with a read-only connection:
SQLite
   merges the write-ahead log into the file when a connection that may write is closed.
"""

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path

from backpackd.adapters.home.files import (
    UnsafeFileError,
    check_file,
    create_file,
    remove_file,
    sync_directory,
    sync_file,
)
from backpackd.adapters.stores.failures import translate
from backpackd.adapters.stores.formats import FORMATS, Format, check_schema
from backpackd.core.errors import AlreadyInitializedError, DamageError

FILE_NAME = "vault.db"
APPLICATION_ID = 0x4250434B
"""`BPCK`, so that file(1) and a restored backup can tell what this is."""
MOST_BYTES = 64 * 1024 * 1024
"""Of one value in the file: more than the largest authority record takes. What was planted must not
be read into memory before anybody looks at it (sqlite.org/limits.html)."""

_DRAFT_NAME = FILE_NAME + ".new"
_COMPANIONS = ("-wal", "-journal", "-shm")
"""What SQLite keeps beside a file (sqlite.org/tempfiles.html)."""


class VaultFile:
    """The vault's file in one directory. For one thread.

    Args:
        home: the directory, private to the user; checked by `adapters.home.home`.
        formats: the versions of the schema, oldest first.
    """

    def __init__(self, home: Path, formats: Sequence[Format] = FORMATS) -> None:
        self._path = home / FILE_NAME
        self._formats = formats

    def open(self) -> sqlite3.Connection | None:
        """Connect to the vault file; None when there is none.

        Raises:
            DamageError: the file is not a usable vault. It stays as it is.
        """
        # A daemon that was killed just after it made the vault leaves the other name behind.
        self._remove_draft()
        if not self._present():
            return None
        return self.connect_checked()

    def create(self, fill: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
        """Make the vault file, completely or not at all, and connect to it.

        Args:
            fill: stores what the new vault holds, inside the transaction that makes the tables.

        Raises:
            AlreadyInitializedError: there is a vault file.
        """
        self._remove_draft()
        if self._present():
            raise AlreadyInitializedError("there is a vault already; to use it, unlock it")
        draft = self._path.with_name(_DRAFT_NAME)
        create_file(draft)
        try:
            connection = self.connect(draft, "rw")
            try:
                self._fill(connection, fill)
            finally:
                connection.close()
            sync_file(draft)
            try:
                # link(2) fails where rename(2) would replace: an existing vault is never lost.
                os.link(draft, self._path)
            except FileExistsError:
                raise AlreadyInitializedError("there is a vault already") from None
            sync_directory(self._path.parent)
        finally:
            self._remove_draft()
        return self.connect_checked()

    def _fill(
        self, connection: sqlite3.Connection, fill: Callable[[sqlite3.Connection], None]
    ) -> None:
        # Here, before it is in its place: so there is never a journal beside a vault.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        with transaction(connection):
            for statement in self._formats[-1].schema:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={self._formats[-1].version}")
            fill(connection)

    def _remove_draft(self) -> None:
        # Only one daemon holds the home's lock, so a draft is the leftover of a killed daemon.
        for suffix in ("", *_COMPANIONS):
            remove_file(self._path.with_name(_DRAFT_NAME + suffix))

    def _present(self) -> bool:
        """Return whether there is a vault file, and refuse one that is not safe to use."""
        if not check_vault_files(self._path.parent):
            self._refuse_orphans()
            return False
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

    def connect_checked(self) -> sqlite3.Connection:
        """Check a file that is there, upgrade it where it is older, and connect to it."""
        self._look()
        connection = self.connect(self._path, "rw")
        try:
            # Checked again, now that nobody else can write, and before the first write of ours.
            version = self._check_format(connection)
            # Left by the look above. No one else has it open: the file is locked.
            remove_file(self._path.with_name(FILE_NAME + "-shm"))
            connection.execute("PRAGMA journal_mode=WAL")
            self._upgrade(connection, version)
        except BaseException:
            connection.close()
            raise
        return connection

    def _look(self) -> None:
        """Refuse a file that is not a vault, without changing it."""
        if self._path.with_name(FILE_NAME + "-journal").exists():
            # Rolled back by SQLite before anything can be read, for which it has to write.
            return
        try:
            with contextlib.closing(self.connect(self._path, "ro")) as connection:
                self._check_format(connection)
        except sqlite3.Error as error:
            damage = translate(error)
            if isinstance(damage, DamageError):
                raise damage from error
            # A full disk, for one, has no room for the index that a read-only connection needs.
            # The connection that will use the file decides whether it can be used.

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
        check_schema(connection, known[version])
        if self._cut_short(connection) or (
            connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",)
        ):
            raise DamageError("the vault file is damaged: restore it from a backup")
        return int(version)

    def _cut_short(self, connection: sqlite3.Connection) -> bool:
        """Return whether the last page is incomplete, which SQLite takes for zeros."""
        log = self._path.with_name(FILE_NAME + "-wal")
        if log.exists() and log.stat().st_size:
            # A write that found no room may have left such a page; it is whole in the log.
            return False
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        return self._path.stat().st_size % int(page_size) != 0

    def _upgrade(self, connection: sqlite3.Connection, version: int) -> None:
        for form in self._formats:
            if form.version > version:
                with transaction(connection):
                    for statement in form.upgrade:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={form.version}")
                    check_schema(connection, form)

    def connect(self, path: Path, mode: str, *, cut_short: bool = False) -> sqlite3.Connection:
        """Connect to a file with the settings that every connection has; `mode` is SQLite's.

        With `cut_short` and mode `ro`, a file that is shorter than its header says opens, too: for
        looking at what is left. It has no effect where anything could be written.
        """
        connection = sqlite3.connect(
            f"file:{urllib.parse.quote(os.fsencode(path))}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=True,
            timeout=1,
        )
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        # Locking comes first, before anything reads the file: SQLite then keeps its index of the
        # log in its own memory, which needs no room on the disk. Only a writer can lock.
        locking = ["locking_mode=EXCLUSIVE"] if mode == "rw" else []
        try:
            # SQLite refuses a file that lacks pages (SQLITE_CORRUPT) unless the schema is writable,
            # which on a connection that may write would let SQL in the file change it.
            for pragma in (
                *(["writable_schema=ON"] if cut_short and mode == "ro" else []),
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


class transaction:  # noqa: N801 - reads as a statement where it is used
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


def check_vault_files(home: Path) -> bool:
    """Check the vault file and what SQLite keeps beside it, before SQLite opens them.

    Returns:
        Whether there is a vault file.

    Raises:
        DamageError: one of them is not a plain, private file of this user.
    """
    try:
        found = [check_file(home / (FILE_NAME + suffix)) for suffix in ("", *_COMPANIONS)]
    except UnsafeFileError as error:
        raise DamageError(str(error), reason="unsafe") from None
    return found[0]
