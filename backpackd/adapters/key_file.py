"""Reads the key of a file slot: a file of the user's own, or a credential of the service manager.

A key that others can read opens the vault for them, so such a file is refused and never repaired.
"""

import os
import stat
from pathlib import Path

from backpackd.core.errors import HomeError
from backpackd.core.passphrases import MAX_BYTES
from backpackd.core.render import render

# With an access control list, the group's bits are its mask: so systemd gives a unit's user the
# right to read a credential of root's (systemd.exec(5)).
_CREDENTIAL_MODE = 0o037
_FILE_MODE = 0o077


def credential_path(directory: str, name: str) -> Path:
    """Say where the service manager put a credential.

    Args:
        directory: `CREDENTIALS_DIRECTORY` of the daemon's environment.
        name: of the credential, checked.

    Raises:
        HomeError: the daemon was given none.
    """
    if not directory.startswith("/"):
        raise HomeError("the service manager gave no credentials: see LoadCredential= of the unit")
    return Path(directory, name)


def read_key(path: Path, *, credential: bool) -> bytes:
    """Read a key.

    Args:
        path: absolute.
        credential: whether it is one of the service manager's, which may belong to root.

    Returns:
        What the file holds, at most one byte more than a passphrase may have.

    Raises:
        HomeError: it cannot be read, or others can read or write it.
    """
    where = render(str(path), limit=256)
    try:
        # Not blocking: a FIFO put in the file's place must not hold the daemon up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise HomeError(f"the key file {where} cannot be read ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        roots = credential and status.st_uid == 0
        if not stat.S_ISREG(status.st_mode):
            raise HomeError(f"the key file {where} is not a regular file")
        if status.st_uid != os.geteuid() and not roots:
            raise HomeError(f"the key file {where} belongs to uid {status.st_uid}")
        if status.st_mode & (_CREDENTIAL_MODE if roots else _FILE_MODE):
            raise HomeError(f"others can get at the key file {where}: run chmod 600 on it")
        return os.read(descriptor, MAX_BYTES + 3)
    finally:
        os.close(descriptor)
