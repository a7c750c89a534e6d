"""Opens every file that the daemon keeps or reads. No other code of the daemon opens one.

Every process of the user can replace a file with something else: a link that leads elsewhere, a
pipe that blocks its opener, a second name through which another program goes on writing. So:

1. The last component of a path is never followed if it is a symbolic link.
2. Opening never blocks: a FIFO, or a device without a carrier, would block its thread forever.
3. Checks use the descriptor of the opened file, so it cannot be exchanged between check and use:
   a regular file, of an expected owner, with no permissions for others, and with one name only.
4. A new file is private from its creation on.

SQLite opens its files itself. `check_file` checks them before; docs/threat-model.md says what may
happen in between. `check_file` must not be used on a file that SQLite has open in
this process: closing any descriptor of a file drops the process's locks on it (fcntl(2)).
"""

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path

READ = os.O_RDONLY
UPDATE = os.O_RDWR | os.O_CREAT
"""Read and write a file, which is made if it is not there."""
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL
"""Make a file that must not be there."""

PRIVATE = 0o077
"""Permission bits that a file which nobody else may read must not have."""
UNWRITABLE = 0o022
"""Permission bits that a file which nobody else may write must not have."""

_ALWAYS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MODE = 0o600
_SEE = "see who put it there, then move it away"
_LINK = "is a symbolic link"
# Errors of open(2) for files that are not regular. FreeBSD's O_NOFOLLOW fails with EMLINK.
_KINDS = {
    errno.ELOOP: _LINK,
    errno.EMLINK: _LINK,
    errno.EISDIR: "is a directory",
    errno.ENXIO: "is a pipe, a socket or a device",
    errno.ENODEV: "is a device",
    errno.EOPNOTSUPP: "is a socket",
}


class UnsafeFileError(Exception):
    """A file is not used. The text names the file, and says what to do.

    Attributes:
        problem: the problem and what to do, without the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], what: str, remedy: str = _SEE) -> None:
        self.problem = f"{what}: {remedy}"
        super().__init__(f"{Path(path).name} {self.problem}")


def open_file(
    path: str | os.PathLike[str],
    use: int = READ,
    *,
    owners: Collection[int] = (),
    refused: int = PRIVATE,
    directory: int | None = None,
) -> int:
    """Open a file by the rules above.

    Args:
        path: of the file; with `directory`, its name.
        use: `READ`, `UPDATE` or `CREATE`.
        owners: the uids that the file may belong to; empty: this process's own.
        refused: permission bits that the file must not have.
        directory: descriptor of the directory that holds the file.

    Returns:
        A descriptor. Reading from it and writing to it block as usual.

    Raises:
        UnsafeFileError: something else is in its place, or others can access it.
        OSError: it does not exist, already exists (`CREATE`), or cannot be opened.
    """
    try:
        descriptor = os.open(path, use | _ALWAYS, _MODE, dir_fd=directory)
    except OSError as error:
        if error.errno in _KINDS:
            what = _KINDS[error.errno]
            remedy = "name the file itself, or move the link away" if what == _LINK else _SEE
            raise UnsafeFileError(path, what, remedy) from None
        raise
    try:
        _check(path, descriptor, owners or (os.geteuid(),), refused)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_file(path: Path) -> bool:
    """Check a private file before other code than `open_file` opens it.

    Returns:
        Whether the file is there.

    Raises:
        UnsafeFileError: something else is in its place, or others can access it.
        OSError: it cannot be opened.
    """
    try:
        os.close(open_file(path))
    except FileNotFoundError:
        return False
    return True


def create_file(path: Path) -> None:
    """Make an empty private file.

    Raises:
        UnsafeFileError: it cannot be made private.
        OSError: the name exists, or there is no room.
    """
    os.close(open_file(path, CREATE))


def remove_file(path: Path) -> None:
    """Remove a file of any kind, if it exists, without opening it or following a link.

    Raises:
        UnsafeFileError: it is a directory.
        OSError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        # POSIX lets unlink(2) answer either to a directory, and a sandbox may forbid the call where
        # there is nothing to remove.
        if not os.path.lexists(path):
            return
        if stat.S_ISDIR(path.lstat().st_mode):
            raise UnsafeFileError(path, "is a directory") from None
        raise


def sync_file(path: Path) -> None:
    """Sync a file's content to the disk.

    Raises:
        UnsafeFileError: something else is in its place, or others can access it.
        OSError: it cannot be opened or written.
    """
    _sync(open_file(path))


def sync_directory(path: Path) -> None:
    """Sync a directory's names to the disk.

    Raises:
        OSError: it is not a directory, or cannot be written.
    """
    _sync(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(
    path: str | os.PathLike[str], descriptor: int, owners: Collection[int], refused: int
) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFileError(path, f"is {_kind(status.st_mode)} and not a regular file")
    if status.st_uid not in owners:
        raise UnsafeFileError(
            path, f"belongs to uid {status.st_uid}", "use a file of your own in its place"
        )
    if status.st_mode & refused and os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
        # A secret of a container, for example: nobody can run chmod on it.
        raise UnsafeFileError(
            path,
            "can be read or changed by others, and lies on something that is mounted read-only",
            "copy it into a file of your own with mode 600, and name that one",
        )
    if status.st_mode & refused:
        if refused == UNWRITABLE:
            raise UnsafeFileError(
                path, "can be changed by others", "run chmod go-w on it, after a look inside"
            )
        raise UnsafeFileError(
            path,
            "can be read or changed by others",
            "run chmod 600 on it; if others may have read it, replace what is in it (of a vault: "
            "change the passphrase and rotate)",
        )
    if status.st_nlink != 1:
        # Through the other name, another program could go on reading and writing the file, and a
        # copy made of links (`cp -al`) would change with it.
        raise UnsafeFileError(
            path,
            f"has {status.st_nlink} names (hard links)",
            "copy it, and put the copy in its place",
        )


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
