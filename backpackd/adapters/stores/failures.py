"""Turns failures of the vault file into errors of `core.errors`, and decides nothing.

No message names a path or holds content of the file.
"""

import errno
import sqlite3

from backpackd.adapters.home.files import UnsafeFileError
from backpackd.adapters.refusal import why
from backpackd.core.errors import BackpackError, DamageError, DiskFullError, StoreError


def translate(error: sqlite3.Error) -> BackpackError:
    """Turn SQLite's error into ours, by its primary result code (sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError("no room on the disk: nothing was stored; make room and try again")
    # Too big: nothing that is written here comes near.
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}:
        return DamageError("the vault file is damaged: restore it from a backup")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError("another program has the vault file open: close it and try again")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StoreError(
        f"the vault file cannot be read or written ({name}): nothing was stored; see to the home's "
        "disk and permissions, then try again"
    )


def translate_unsafe(error: UnsafeFileError) -> BackpackError:
    """Turn the refusal of a file into our error."""
    return StoreError(f"{error}: nothing was stored")


def translate_os(error: OSError) -> BackpackError:
    """Turn a system error into our error."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError("no room on the disk: nothing was stored; make room and try again")
    otherwise = "see to the home's disk and permissions, then try again"
    return StoreError(f"the vault file cannot be used: {why(error, otherwise)}")
