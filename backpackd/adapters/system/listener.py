"""The sockets that the door listens on: the daemon's own, or those of a service manager.

It opens, checks and closes them; the door accepts.

The daemon's own socket is in a directory that only its owner can write, with mode 0600 from the
start. A lock file beside it is taken first: it decides which of two daemons starts, and makes it
safe to unlink the socket file of a dead daemon.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import selectors
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backpackd.adapters.home.files import UPDATE, UnsafeFileError, open_file
from backpackd.adapters.refusal import is_forbidden, why
from backpackd.core.errors import HomeError

FIRST_PASSED_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

LAUNCHD_SOCKETS = "Listeners"
"""The name of the daemon's sockets in launchd's property list."""
_MOST_PASSED = 16
_BACKLOG = 1024
_NUMBER = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_CREDENTIALS_BYTES = 12
"""`sizeof (struct ucred)` (unix(7))."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Listener:
    """A listening Unix socket.

    Attributes:
        path: where clients find it, if known.
    """

    def __init__(self, sock: socket.socket, path: str, own: "_OwnFile | None" = None) -> None:
        sock.setblocking(False)
        sock.set_inheritable(False)
        self._socket = sock
        self._own = own
        self.path = path

    def fileno(self) -> int:
        """Return the descriptor, for the event loop; -1 if closed."""
        return self._socket.fileno()

    def accept(self) -> socket.socket:
        """Accept the next waiting connection.

        Raises:
            BlockingIOError: none does.
            OSError: see accept(2).
        """
        return self._socket.accept()[0]

    def close(self) -> None:
        """Stop listening, and remove our own socket file. Calling it twice is harmless."""
        own, self._own = self._own, None
        if own is not None:
            own.remove()
        self._socket.close()
        if own is not None:
            own.release()


class _OwnFile:
    """The daemon's own socket file: its directory, its lock, and which inode is ours."""

    def __init__(self, path: str) -> None:
        """Prepare the directory and take the lock.

        Raises:
            HomeError: another daemon has it, or the directory is not safe to use.
        """
        if "\0" in path or not Path(path).name:
            raise HomeError("the socket path names no file: set BACKPACK_SOCKET to one")
        self.path = path
        self.name = Path(path).name
        self.directory = _open_directory(Path.cwd() / Path(path).parent)
        self._inode: tuple[int, int] | None = None
        try:
            self._lock = self._take_lock()
        except BaseException:
            os.close(self.directory)
            raise

    def _take_lock(self) -> int:
        name = f"{self.name}.lock"
        try:
            fd = open_file(name, UPDATE, directory=self.directory)
        except UnsafeFileError as error:
            raise HomeError(f"cannot open {self.path!r}.lock: it {error.problem}") from None
        except OSError as error:
            raise HomeError(f"cannot open {self.path!r}.lock: {why(error)}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno != errno.EWOULDBLOCK:
                raise HomeError(f"cannot lock {self.path!r}.lock: {why(error)}") from None
            raise HomeError(
                f"another backpackd has the socket {self.path!r}: stop it, or set BACKPACK_SOCKET"
            ) from None
        return fd

    def address(self) -> str:
        """Name the socket so that it fits into a socket address.

        Raises:
            HomeError: the path is too long, and this platform has no way around that.
        """
        if len(os.fsencode(self.path)) < _ADDRESS_BYTES:
            return self.path
        short = f"/proc/self/fd/{self.directory}/{self.name}"
        if sys.platform != "linux" or len(os.fsencode(short)) >= _ADDRESS_BYTES:
            raise HomeError(
                f"the socket path {self.path!r} is longer than a socket address may be: "
                "set BACKPACK_SOCKET to a shorter one"
            )
        return short

    def clear(self) -> None:
        """Remove the socket file of a dead daemon.

        Raises:
            HomeError: a live daemon listens there, or it is not a socket.
        """
        try:
            found = os.lstat(self.name, dir_fd=self.directory)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise HomeError(f"{self.path!r} exists and is not a socket: move it away")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(self.address())
            except ConnectionRefusedError:
                os.unlink(self.name, dir_fd=self.directory)
                return
            except OSError:
                # A full queue, a file that cannot be written to: not known to be dead.
                pass
        raise HomeError(
            f"something listens on the socket {self.path!r} already, a service manager perhaps: "
            "stop it, or set BACKPACK_SOCKET"
        )

    def bind(self) -> socket.socket:
        """Make the socket file, with mode 0600 from the start, and listen.

        Raises:
            HomeError: that fails, or the directory was exchanged meanwhile.
        """
        address = self.address()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The mode is the umask's doing: with a chmod after the bind, another user could have the
        # socket open in between.
        before = os.umask(0o177)
        try:
            sock.bind(address)
        except OSError as error:
            sock.close()
            said = why(error) if error.errno else error
            raise HomeError(f"cannot bind the socket {self.path!r}: {said}") from None
        finally:
            os.umask(before)
        try:
            made = os.lstat(self.name, dir_fd=self.directory)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if is_forbidden(error):
                raise HomeError(f"cannot listen on {self.path!r}: {why(error)}") from None
            raise HomeError(
                f"the directory of {self.path!r} was exchanged meanwhile: {error.strerror}"
            ) from None
        self._inode = (made.st_dev, made.st_ino)
        return sock

    def remove(self) -> None:
        """Unlink the socket file, unless another one has taken its place."""
        with contextlib.suppress(OSError):
            found = os.lstat(self.name, dir_fd=self.directory)
            if (found.st_dev, found.st_ino) == self._inode:
                os.unlink(self.name, dir_fd=self.directory)

    def release(self) -> None:
        """Release the lock. Its file stays: without it, two daemons could each hold one."""
        os.close(self._lock)
        os.close(self.directory)


_ADDRESS_BYTES = 104 if sys.platform == "darwin" else 108
"""`sizeof sun_path` (unix(7)), the terminating zero included."""


def check_sockets() -> None:
    """Return if this process may use and watch Unix sockets, and is told who is at the other end.

    Tried before anything else does: an event loop that cannot be made leaves its own words behind,
    and a daemon that cannot tell who connects would start and serve nobody.

    Raises:
        HomeError: a sandbox forbids it, or no descriptors are left.
    """
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs, selectors.DefaultSelector() as selector:
            if sys.platform == "linux":
                ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS_BYTES)
            ours.setblocking(False)
            selector.register(ours, selectors.EVENT_READ)
            theirs.send(b"x")
            selector.select(0)
            ours.recv(1)
    except OSError as error:
        raise HomeError(f"cannot use Unix sockets: {why(error)}") from None


def found_listeners(path: str) -> list[Listener]:
    """Take the sockets that a service manager passed, otherwise open our own at a path.

    Raises:
        HomeError: they cannot be used.
    """
    passed = passed_listeners(os.environ, os.getpid())
    if not passed and sys.platform == "darwin":
        passed = launchd_listeners(LAUNCHD_SOCKETS)
    return passed or [open_listener(path)]


def open_listener(path: str) -> Listener:
    """Listen on the daemon's own socket, in a directory that only its owner can write to.

    Missing directories are made with mode 0700. The socket file of a dead daemon is replaced.

    Args:
        path: of the socket file; longer than a socket address may be is fine on Linux.

    Raises:
        HomeError: another daemon has it, or the directory or the file is not safe to use.
    """
    own = _OwnFile(path)
    try:
        own.clear()
        sock = own.bind()
    except BaseException:
        own.release()
        raise
    return Listener(sock, path, own)


def _open_directory(directory: Path) -> int:
    """Open the socket's directory, made if need be, and see that it is nobody else's to write to.

    The check uses the opened directory, so a later exchange of the path changes nothing.
    """
    path = str(directory)
    try:
        for missing in reversed([p for p in (directory, *directory.parents) if not p.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HomeError(f"cannot make the directory {path!r}: {why(error)}") from None
    try:
        link = os.lstat(path)
        if stat.S_ISLNK(link.st_mode) and link.st_uid != os.geteuid():
            raise HomeError(f"{path!r} is a link of another user: set BACKPACK_SOCKET elsewhere")
        fd = os.open(path, _OPEN_DIRECTORY)
    except OSError as error:
        raise HomeError(f"cannot open the directory {path!r}: {why(error)}") from None
    found = os.fstat(fd)
    if found.st_uid != os.geteuid():
        os.close(fd)
        raise HomeError(f"the directory {path!r} belongs to uid {found.st_uid}: use one of yours")
    if found.st_mode & _OTHERS_WRITE:
        os.close(fd)
        raise HomeError(
            f"others can write to the directory {path!r}: run chmod go-w on it, or use another one"
        )
    return fd


def passed_listeners(environ: Mapping[str, str], pid: int) -> list[Listener]:
    """Take over the listening sockets that systemd passes (sd_listen_fds(3)).

    They become close-on-exec, so this comes after the daemon's own re-exec.

    Args:
        environ: the environment, read for `LISTEN_PID` and `LISTEN_FDS`.
        pid: of this process.

    Returns:
        The listeners in their order; none when nothing was passed to this process.

    Raises:
        HomeError: the variables are malformed, or what was passed is no listening Unix socket.
    """
    meant_for = environ.get("LISTEN_PID")
    count = environ.get("LISTEN_FDS")
    if meant_for is None or count is None:
        return []
    if not _NUMBER.fullmatch(meant_for):
        raise HomeError("LISTEN_PID is not a process id: start backpackd without it")
    if int(meant_for) != pid:
        return []
    if not _NUMBER.fullmatch(count) or int(count) > _MOST_PASSED:
        raise HomeError(f"LISTEN_FDS is not a number from 1 to {_MOST_PASSED}")
    return _adopt(range(FIRST_PASSED_FD, FIRST_PASSED_FD + int(count)))


def launchd_listeners(name: str, libc: Any = None) -> list[Listener]:
    """Take over the listening sockets that launchd passes (launch_activate_socket(3)).

    Args:
        name: the key under `Sockets` in the property list.
        libc: what has `launch_activate_socket` and `free`; None: this process's own library.

    Returns:
        The listeners in their order; none when launchd did not start this process, or has no
        sockets of that name for it.

    Raises:
        HomeError: launchd refuses, or what was passed is no listening Unix socket.
    """
    library = libc if libc is not None else ctypes.CDLL(None)
    array = ctypes.POINTER(ctypes.c_int)()
    count = ctypes.c_size_t(0)
    failure = library.launch_activate_socket(
        name.encode(), ctypes.byref(array), ctypes.byref(count)
    )
    if failure in (errno.ENOENT, errno.ESRCH):
        return []
    if failure:
        raise HomeError(f"launchd passes no socket: {os.strerror(failure)}")
    fds = [array[i] for i in range(count.value)]
    library.free(array)
    return _adopt(fds)


def _adopt(fds: "range | list[int]") -> list[Listener]:
    listeners: list[Listener] = []
    try:
        for fd in fds:
            listeners.append(_adopt_one(fd))  # noqa: PERF401  # what was adopted is closed below
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _adopt_one(fd: int) -> Listener:
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise HomeError(f"descriptor {fd} was passed as a socket: {error.strerror}") from None
    listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listening:
        # Not ours to close: it may belong to somebody else.
        sock.detach()
        raise HomeError(f"descriptor {fd} is not a listening Unix stream socket")
    name = sock.getsockname()
    return Listener(sock, name if isinstance(name, str) else "")
