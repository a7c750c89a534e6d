"""Finds, reads and replaces lock files on disk. Only the daemon knows their content.

The rules, each with its reason:

1. A lock file is a regular file. A symbolic link in its place is refused for reading and writing: a
   repository could contain a link to another file of the user.
2. A file is replaced as a whole: the new file is written beside the old one, synced and renamed
   over it, then the directory is synced. A killed writer leaves the old file or the new one.
3. A file is replaced only while it is byte for byte the file that the change was made from. Writers
   hold the lock (flock) of the file that they replace, so only one of two writers succeeds. A
   program that does not take this lock (git, an editor) is noticed if it writes before the
   comparison, but not in the instant between comparing and renaming.
4. In a directory that everybody may write, only the user's own file is read: anybody could have put
   another file there. The opened file decides, whatever its name leads to later.
5. A new file is 0600 from its first byte and never replaces another file. A replaced file keeps its
   mode, and its owner if possible.
"""

import contextlib
import errno
import fcntl
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from backpack_client.failures import Failure, printable, usage

LOCK_NAME = "agent.lock"
LOCK_VARIABLE = "BACKPACK_AGENT_LOCK"
"""Names the lock of the agent that `run` has started."""

SIZE_LIMIT = 1024 * 1024
"""The longest lock file that the daemon accepts, in bytes."""

_REPOSITORY = ".git"
_PATIENCE = 10.0
_RETRY_EVERY = 0.01
_SHOWN = 256
_NEW_MODE = 0o600
_AS_IT_WAS = "the file is as it was"
_ROOM = ": make room on its file system"
_REMEDIES = {
    errno.EACCES: ": its directory must be writable for you, since a new version takes its place",
    errno.EBUSY: ": if it is mounted by itself, mount its directory instead",
    errno.EDQUOT: _ROOM,
    errno.ENOSPC: _ROOM,
    errno.EROFS: ": have its directory mounted so that you can write there",
}
"""What helps against an error of the system, to go on with after `_AS_IT_WAS`."""


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock file as it was read.

    Attributes:
        path: its absolute path.
        data: its content.
        mode: its permissions.
    """

    path: str
    data: bytes = field(repr=False)
    mode: int = _NEW_MODE


def find(start: str | None = None) -> str:
    """Find the lock of an agent: `agent.lock` here or above.

    Inside a repository the search ends at its root. Outside of one it goes up through directories
    that belong to the user or to the owner of the first directory. So it does not find, by chance,
    a file that somebody else left in a directory that everybody may write.

    Args:
        start: the first directory; None: the current directory.

    Returns:
        The file's absolute path.

    Raises:
        Failure: there is none (`no-lock`).
    """
    here = Path(start or ".").absolute()
    owners = {os.geteuid(), _owner(here)}
    for directory in (here, *here.parents):
        if _owner(directory) not in owners:
            break
        candidate = directory / LOCK_NAME
        if os.path.lexists(candidate) and not _planted(directory, candidate):
            return str(candidate)
        if os.path.lexists(directory / _REPOSITORY):
            break
    raise Failure(
        f"no {LOCK_NAME} here or above",
        reason="no-lock",
        hint="make one: backpack-client agent init\nor name one: --lock FILE",
    )


def absolute(path: str) -> str:
    """Make the path that a person named absolute; a symbolic link at its end stays.

    Raises:
        Failure: a usage failure: it is not a path.
    """
    if not path or "\0" in path:
        raise usage("not the path of a file", hint="")
    return str(Path(path).absolute())


def to_send(named: str | None = None) -> bytes:
    """Read the lock that is sent along with a request for keys.

    Args:
        named: the file; None: the lock that `run` has started this agent with.

    Returns:
        The content of the file; empty if there is no lock.

    Raises:
        Failure: as `read`. An agent with a lock must not go on without it.
    """
    path = os.environ.get(LOCK_VARIABLE, "") if named is None else named
    if named is None and not path:
        return b""
    try:
        return read(absolute(path)).data
    except Failure as failure:
        if named is None:
            failure.hint = f"{LOCK_VARIABLE} names it: put it back, or unset that variable"
        raise


def read(path: str) -> LockFile:
    """Read a lock file.

    Raises:
        Failure: it does not exist (`no-lock`), is not a regular file, is too long, cannot be read,
            or belongs to somebody else in a directory that everybody may write (`lock-foreign`).
    """
    with _directory(path) as directory:
        return _read(path, directory)


def create(path: str, data: bytes, mode: int = _NEW_MODE) -> LockFile:
    """Write a new file.

    Raises:
        Failure: the name already exists (`lock-exists`), or the file cannot be written.
    """
    name = Path(path).name
    with _directory(path) as directory, _explained(path, "write"):
        fresh = f".{name}.{secrets.token_hex(8)}.new"
        try:
            _write_new(fresh, data, mode, directory)
            # link(2) never replaces an existing file; a rename would.
            os.link(fresh, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError:
            raise Failure(
                f"{printable(path, _SHOWN)} exists already",
                reason="lock-exists",
                hint="nothing was changed: move it away first, or name another file",
            ) from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=directory)
        os.fsync(directory)
    return LockFile(path, data, mode)


def replace(seen: LockFile, data: bytes) -> LockFile:
    """Replace the version that was read with a new version.

    Args:
        seen: the version that the new version was made from.
        data: the new version.

    Returns:
        The new version.

    Raises:
        Failure: the file is no longer what was read (`lock-changed`), or cannot be written. Then
            it is as it was.
    """
    if data == seen.data:
        return seen
    name = Path(seen.path).name
    with (
        _directory(seen.path) as directory,
        _explained(seen.path, "write"),
        _held(seen.path, directory) as held,
    ):
        _check_replaceable(seen.path, held, directory)
        _check_same(seen, directory, held)
        before = os.fstat(held)
        mode = stat.S_IMODE(before.st_mode) & 0o777
        # Named by the file whose lock is held. Another writer may hold the lock of a file that git,
        # for example, has replaced in the meantime. It writes under another name, and neither
        # renames the unfinished file of the other. So an existing file of this name was left by a
        # writer that died.
        fresh = f".{name}.{before.st_ino}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=directory)
        try:
            _write_new(fresh, data, mode, directory, owner=before)
            # Check once more: writing and syncing took time.
            _check_same(seen, directory, held)
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=directory)
            raise
        os.fsync(directory)
    return LockFile(seen.path, data, mode)


def check_writable(path: str) -> None:
    """Raise unless `create` and `replace` can write beside a path; call it before any other act.

    Raises:
        Failure: they cannot, or there is no such directory.
    """
    if not Path(path).parent.is_dir():
        raise Failure(
            f"there is no directory for {printable(path, _SHOWN)}",
            reason="lock-io",
            hint="make it first, or name another file",
        )
    fresh = f".{Path(path).name}.{secrets.token_hex(8)}.new"
    with _directory(path) as directory, _explained(path, "write"):
        with contextlib.suppress(FileNotFoundError):
            descriptor = _open(Path(path).name, getattr(os, "O_PATH", os.O_RDONLY), directory)
            try:
                _check_replaceable(path, descriptor, directory)
            finally:
                os.close(descriptor)
        try:
            _write_new(fresh, b"", _NEW_MODE, directory)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=directory)


def check_beside(seen: LockFile, suffix: str) -> None:
    """Raise unless `keep_beside` can keep its copy; call it before any act that would stay.

    Raises:
        Failure: another file has that name (`lock-exists`), or it cannot be read.
    """
    path = seen.path + suffix
    try:
        found = read(path)
    except Failure as failure:
        if failure.reason == "no-lock":
            return
        raise
    if found.data != seen.data:
        raise Failure(
            f"{printable(path, _SHOWN)} exists already",
            reason="lock-exists",
            hint="nothing was changed: move it away first",
        )


def keep_beside(seen: LockFile, suffix: str) -> str:
    """Keep a copy of a lock file beside it, under its name with a suffix.

    An existing copy of the same bytes is enough: an interrupted migration left it.

    Returns:
        The copy's path.

    Raises:
        Failure: another file has that name (`lock-exists`), or the copy cannot be written.
    """
    path = seen.path + suffix
    try:
        create(path, seen.data, seen.mode)
    except Failure as failure:
        if failure.reason != "lock-exists" or read(path).data != seen.data:
            raise
    return path


def _owner(directory: Path) -> int:
    try:
        return directory.stat().st_uid
    except OSError:
        return -1


def _planted(directory: Path, candidate: Path) -> bool:
    """Return whether `read` would refuse a file because of its directory."""
    try:
        # The owner of the link itself: its maker chose where it leads.
        return _foreign(directory.stat(), candidate.lstat())
    except OSError:
        return True


def _foreign(directory: os.stat_result, file: os.stat_result) -> bool:
    """Return whether somebody else may have left a file in a directory that everybody may write."""
    return bool(directory.st_mode & stat.S_IWOTH) and file.st_uid != os.geteuid()


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    """Hold the directory of a file open, so that all steps use the same directory."""
    with _explained(path, "read"):
        descriptor = os.open(Path(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: str, what: str) -> Iterator[None]:
    """Turn a system error into a failure that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise Failure(
            f"there is no {printable(path, _SHOWN)}",
            reason="no-lock",
            hint="make one: backpack-client agent init",
        ) from None
    except OSError as error:
        # O_NOFOLLOW fails with ELOOP for a symbolic link; FreeBSD's EMLINK means the same.
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _not_regular(path, "a symbolic link") from None
        why = os.strerror(error.errno or errno.EINVAL).lower()
        raise Failure(
            f"cannot {what} {printable(path, _SHOWN)}: {why}",
            reason="lock-io",
            hint="" if what == "read" else _AS_IT_WAS + _REMEDIES.get(error.errno or 0, ""),
        ) from None


def _read(path: str, directory: int) -> LockFile:
    with _explained(path, "read"):
        descriptor = _open(Path(path).name, os.O_RDONLY, directory)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _not_regular(path, "no regular file")
            if _foreign(os.fstat(directory), status):
                raise Failure(
                    f"{printable(path, _SHOWN)} is somebody else's, where everybody may write",
                    reason="lock-foreign",
                    hint="if it is the right one, copy it into your own directory",
                )
            data = bytearray()
            while len(data) <= SIZE_LIMIT and (more := os.read(descriptor, SIZE_LIMIT + 1)):
                data += more
        finally:
            os.close(descriptor)
    if len(data) > SIZE_LIMIT:
        raise Failure(
            f"{printable(path, _SHOWN)} is too long for a lock file: at most 1 MiB",
            reason="lock-too-long",
        )
    return LockFile(path, bytes(data), stat.S_IMODE(status.st_mode) & 0o777)


def _open(name: str, flags: int, directory: int) -> int:
    # Not blocking: a pipe in place of the file would block forever.
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=directory)


def _not_regular(path: str, what: str) -> Failure:
    return Failure(
        f"{printable(path, _SHOWN)} is {what}",
        reason="lock-not-regular",
        hint="a lock is a regular file: name the file itself with --lock FILE",
    )


def _check_same(seen: LockFile, directory: int, held: int) -> None:
    """Raise unless a name still leads to the held file, and the file has the bytes that were read.

    Raises:
        Failure: it does not (`lock-changed`).
    """
    current = os.stat(Path(seen.path).name, dir_fd=directory, follow_symlinks=False)
    same = os.path.samestat(current, os.fstat(held))
    if not same or not hmac.compare_digest(_read(seen.path, directory).data, seen.data):
        raise _changed(seen.path)


def _changed(path: str) -> Failure:
    return Failure(
        f"{printable(path, _SHOWN)} was changed in the meantime, and was not overwritten",
        reason="lock-changed",
        hint="nothing was lost: try again",
    )


@contextlib.contextmanager
def _held(path: str, directory: int) -> Iterator[int]:
    """Hold the lock of the file that a path leads to now, not of an earlier file."""
    until = time.monotonic() + _PATIENCE
    name = Path(path).name
    while True:
        descriptor = _open_to_lock(name, directory)
        try:
            if not _flock(descriptor):
                if time.monotonic() > until:
                    raise Failure(
                        f"{printable(path, _SHOWN)} is being written by another program",
                        reason="lock-busy",
                        hint="the file is as it was: try again",
                    )
                time.sleep(_RETRY_EVERY)
                continue
            current = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if os.path.samestat(current, os.fstat(descriptor)):
                yield descriptor
                return
            # Replaced while we waited: the held file no longer has a name.
        finally:
            os.close(descriptor)


def _open_to_lock(name: str, directory: int) -> int:
    try:
        # NFS locks only what is open for writing.
        return _open(name, os.O_RDWR, directory)
    except PermissionError:
        return _open(name, os.O_RDONLY, directory)


def _check_replaceable(path: str, descriptor: int, directory: int) -> None:
    """Return if another file can take a file's place.

    Raises:
        Failure: it is mounted by itself (`lock-mounted`), as containers are given single files: no
            rename(2) goes over a mount point.
    """
    mount = _mount(descriptor)
    if mount and mount != _mount(directory):
        raise Failure(
            f"{printable(path, _SHOWN)} is mounted by itself, so no new version can take its place",
            reason="lock-mounted",
            hint=f"{_AS_IT_WAS}: mount the directory that it lies in, instead of the file",
        )


def _mount(descriptor: int) -> str:
    """Name the mount that a file is reached by; empty where that cannot be told."""
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("mnt_id:")), "")


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_new(
    name: str, data: bytes, mode: int, directory: int, owner: os.stat_result | None = None
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, _NEW_MODE, dir_fd=directory)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        if owner is not None:
            mine = os.fstat(descriptor)
            if (mine.st_uid, mine.st_gid) != (owner.st_uid, owner.st_gid):
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
        # After the owner, because chown clears bits; and independent of the umask.
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
