"""The daemon's home: a private directory on a local disk, held by one daemon at a time.

It checks and never repairs: a home that others could read or write is refused, and the error says
what to do.
"""

import contextlib
import fcntl
import os
import re
import stat
import sys
from pathlib import Path

from backpackd.adapters.home.files import UPDATE, UnsafeFileError, open_file
from backpackd.adapters.refusal import why
from backpackd.core.errors import HomeError

LOCK_NAME = "backpackd.lock"
# File systems on which neither flock(2) nor fdatasync(2) can be relied on for SQLite's WAL, since
# other machines may write, or the server may acknowledge early (sqlite.org/wal.html). So it is with
# directories that a virtual machine shares with its host: two kernels, and no memory in common.
_NETWORK = frozenset(
    {
        "9p", "afs", "afpfs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph",
        "fuse.ceph-fuse", "fuse.curlftpfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys",
        "fuse.gvfsd-fuse", "fuse.juicefs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
        "fuse.vmhgfs-fuse", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2",
        "orangefs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav",
    }
)  # fmt: skip
# How the mount table writes white space and backslashes in paths: \040 for a space.
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


class Home:
    """A checked and locked home. The lock belongs to the process, and ends with it in any case.

    Attributes:
        path: the directory, absolute and without links in it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def note(self, socket: str) -> None:
        """Note where the daemon listens, for clients that look elsewhere.

        Nobody relies on it: on a full disk it is missing.
        """
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, b"%d\n%s\n" % (os.getpid(), os.fsencode(socket)), 0)

    def close(self) -> None:
        """Let another daemon have the home."""
        os.close(self._descriptor)


def open_home(path: Path) -> Home:
    """Make the home if it does not exist, check it, and take its lock.

    A path with links is followed once. A later change of a link changes nothing for this daemon,
    because its files are opened below the checked directory.

    Raises:
        HomeError: it cannot be made, is not private, can be replaced by others, lies on a network
            file system, or another daemon uses it.
    """
    path = Path(os.path.realpath(path))
    try:
        _make(path)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise HomeError(f"the home {path} is not a directory: choose another with --home")
        if status.st_uid != os.geteuid():
            raise HomeError(
                f"the home {path} belongs to uid {status.st_uid}: choose one of your own with "
                "--home"
            )
        if status.st_mode & 0o077:
            raise HomeError(
                f"others can get into the home {path}: run chmod 700 on it, after a look at who "
                "may have been there"
            )
        _check_above(path)
        kind = file_system(path, status.st_dev)
        if kind in _NETWORK:
            raise HomeError(
                f"the home {path} is on a network or shared file system ({kind}), where a vault is "
                "not safe: choose a local directory with --home or BACKPACK_HOME"
            )
        return Home(path, _lock(path))
    except OSError as error:
        another = "choose another with --home or BACKPACK_HOME"
        raise HomeError(f"the home {path} cannot be used: {why(error, another)}") from error


def file_system(path: Path, device: int) -> str:
    """Return the type of the file system of a path; empty if unknown.

    Args:
        path: an existing directory, without links in it.
        device: its `st_dev`.
    """
    if sys.platform != "linux":
        return ""
    mounts = Path("/proc/self/mountinfo").read_bytes()
    return kind_of_mount(mounts, os.fsencode(path), device)


def kind_of_mount(mounts: bytes, path: bytes, device: int) -> str:
    """Find a file system's type in the text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).

    By device number, and where none matches (btrfs gives its subvolumes others than the mount
    table says) by the longest mount point above the path; the later line wins, being on top.
    """
    number = b"%d:%d" % (os.major(device), os.minor(device))
    best, kind = -1, b""
    for line in mounts.split(b"\n"):
        fields, _, rest = line.partition(b" - ")
        columns, types = fields.split(b" "), rest.split(b" ")
        if len(columns) <= 4:  # noqa: PLR2004 - the mount point is the fifth column
            continue
        if columns[2] == number:
            return types[0].decode("ascii", "replace")
        point = _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), columns[4])
        above = path == point or path.startswith(point.rstrip(b"/") + b"/")
        if above and len(point) >= best:
            best, kind = len(point), types[0]
    return kind.decode("ascii", "replace")


def is_unmapped(uid: int) -> bool:
    """Tell whether a uid stands for all that this user namespace does not map.

    Root is one of them in most namespaces that an ordinary user makes, and owns what is above his
    files there (user_namespaces(7)). Elsewhere the number is that of an ordinary user, `nobody`.
    """
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_bytes())
        mapped = [line.split() for line in Path("/proc/self/uid_map").read_bytes().splitlines()]
    except (OSError, ValueError):
        return False
    if uid != overflow:
        return False
    return not any(int(first) <= uid < int(first) + int(count) for first, _, count in mapped)


def _check_above(path: Path) -> None:
    """Refuse a home that somebody else could replace with an older copy."""
    for directory in path.parents:
        status = directory.stat()
        shared = stat.S_IWGRP | stat.S_IWOTH
        if status.st_gid == os.getegid() == os.geteuid():
            # By convention a group of this number has this user as its only member.
            shared = stat.S_IWOTH
        replaceable = status.st_mode & shared and not status.st_mode & stat.S_ISVTX
        trusted = status.st_uid in (0, os.geteuid()) or is_unmapped(status.st_uid)
        if replaceable or not trusted:
            raise HomeError(
                f"others can replace what is in {directory}, which is above the home {path}: "
                "choose another home with --home, or see who owns and may write that directory"
            )


def _make(path: Path) -> None:
    if path.exists():
        return
    # The mode is right from creation, so nobody can slip in before a chmod. The same holds for
    # missing directories above, as the XDG base directory specification says.
    missing = [directory for directory in path.parents if not directory.exists()]
    for directory in (*reversed(missing), path):
        directory.mkdir(mode=0o700, exist_ok=True)


def _lock(path: Path) -> int:
    try:
        descriptor = open_file(path / LOCK_NAME, UPDATE)
    except UnsafeFileError as error:
        raise HomeError(f"the home {path} cannot be used: in it, {error}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).split(b"\n")[0].decode("ascii", "replace")
        os.close(descriptor)
        who = f" (pid {holder})" if holder.isdigit() else ""
        raise HomeError(
            f"another backpackd{who} uses the home {path}: stop it with backpack-client stop, or "
            "give this one a home and a socket of its own"
        ) from None
    # For people only: a full disk without room for it must not keep the daemon from starting.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
    return descriptor
