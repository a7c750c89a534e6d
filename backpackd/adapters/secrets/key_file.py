"""Reads the key of a file slot: a file of the user's own, or a credential of the service manager.

A key that others can read opens the vault for them. Such a file is refused and never repaired.
"""

import os
from pathlib import Path

from backpackd.adapters.home.files import PRIVATE, UnsafeFileError, open_file
from backpackd.core.errors import HomeError
from backpackd.core.render import render
from backpackd.core.slots.passphrases import MAX_BYTES

# With an access control list, the group's bits are its mask: so systemd gives a unit's user the
# right to read a credential of root's (systemd.exec(5)).
_CREDENTIAL_MODE = 0o037


def credential_path(directory: str, name: str) -> Path:
    """Return the path of a credential from the service manager.

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
        credential: whether it is a credential of the service manager, which may belong to root.

    Returns:
        What the file holds; at most one byte more than a passphrase may have with a line end and a
        byte-order mark.

    Raises:
        HomeError: it cannot be read, or others can read or write it.
    """
    where = render(str(path), limit=256)
    owners = (os.geteuid(), 0) if credential else ()
    refused = _CREDENTIAL_MODE if credential else PRIVATE
    try:
        descriptor = open_file(path, owners=owners, refused=refused)
    except UnsafeFileError as error:
        raise HomeError(f"the key file {where} {error.problem}") from None
    except OSError as error:
        raise HomeError(f"the key file {where} cannot be read ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if status.st_uid != 0 and status.st_mode & PRIVATE:
            raise HomeError(f"others can get at the key file {where}: run chmod 600 on it")
        return os.read(descriptor, MAX_BYTES + 6)
    finally:
        os.close(descriptor)
