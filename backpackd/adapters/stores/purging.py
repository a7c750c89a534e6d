"""Removes old sealed bytes after a rotation, even if the daemon was killed before that.

A file beside the vault notes that it is due. The file exists before the rotation is in force, and
is removed when nothing old is left. If a start finds it, it does the missed work.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from backpackd.adapters.home.files import UPDATE, check_file, open_file, remove_file, sync_directory

DUE_NAME = "vault.db.purge"


class Purging:
    """Old bytes that a vault file must still lose. For one thread.

    Args:
        home: the vault's directory.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / DUE_NAME

    def due(self) -> None:
        """Note durably that there will be old bytes to remove."""
        os.close(open_file(self._path, UPDATE))
        sync_directory(self._path.parent)

    def purge(self, connection: sqlite3.Connection) -> None:
        """Rewrite the vault file without deleted bytes, and empty its log.

        `secure_delete` overwrites deleted rows. This also removes copies left by moving rows
        between pages, and the write-ahead log, which keeps old pages until it is used again.
        """
        # A copy of the whole file, sealed as it is, which does not belong into memory. It goes into
        # the home: many a container has no place for temporary files that can be written to.
        with contextlib.suppress(sqlite3.Error, UnicodeError):
            place = str(self._path.parent).replace("'", "''")
            connection.execute(f"PRAGMA temp_store_directory='{place}'")
        connection.execute("PRAGMA temp_store=FILE")
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute("PRAGMA temp_store=MEMORY")
        remove_file(self._path)

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Do the work that an earlier daemon missed; without room, leave it to the next one.

        Raises:
            UnsafeFileError: the file in the note's place is not the daemon's.
        """
        if check_file(self._path):
            with contextlib.suppress(sqlite3.Error, OSError):
                self.purge(connection)
