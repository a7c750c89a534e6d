"""Getting rid of old sealed bytes after a rotation, also where the daemon is killed before it.

A file beside the vault says that it is due. It is there before the rotation is in force, and gone
when nothing old is left; a start that finds it makes up for what was missed.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from backpackd.adapters.home.files import UPDATE, check_file, open_file, remove_file, sync_directory

DUE_NAME = "vault.db.purge"


class Purging:
    """What a vault file still has to get rid of. For one thread.

    Args:
        home: the vault's directory.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / DUE_NAME

    def due(self) -> None:
        """Note, durably, that there is going to be something to get rid of."""
        os.close(open_file(self._path, UPDATE))
        sync_directory(self._path.parent)

    def purge(self, connection: sqlite3.Connection) -> None:
        """Write the vault file anew without what was deleted, and empty its log.

        `secure_delete` overwrites what is deleted; this also reaches what moving rows between pages
        left behind, and the write-ahead log, which keeps old pages until it is used again.
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
        """Do what a daemon before this one could not; where there is no room, the next one does.

        Raises:
            UnsafeFileError: what lies in the note's place is not the daemon's.
        """
        if check_file(self._path):
            with contextlib.suppress(sqlite3.Error, OSError):
                self.purge(connection)
