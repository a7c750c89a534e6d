"""The socket between the door and the gRPC server, where nobody else can reach it.

The server sees the door's connections under one-time random names and takes a name for the peer,
so whoever else reached this socket could borrow one: abstract names are public in
`/proc/net/unix`, and a process in another network namespace can bind the same. Hence on Linux the
socket has a name in the file system only for the moment between the server's `bind` and `hide`,
in a 0700 directory of its own. After that it is reached through a descriptor of this process, and
the kernel is asked on every connection whether the listener is this process. `/proc/PID/fd` of an
undumpable process is closed to the user's other processes. A process of the *same* uid that finds
the directory and opens the socket within that moment at start is what remains, and a name does not
help it: the server's calls want the door's mark as well (see `marks`).

macOS has neither abstract names nor `/proc`: there the server's socket and, briefly, the door's
ends are path names in the private directory, which any process of the same uid can reach. Such a
process could bind the path of a live connection's end after it is unlinked, and connect. There it
is the mark alone that keeps it from being taken for that peer.
"""

import contextlib
import os
import re
import secrets
import socket
import sys
from pathlib import Path
from typing import Protocol, Self

from backpackd.adapters.door.credentials import peer_pid
from backpackd.core.errors import HomeError

_SOCKET = "inner.sock"
_NAME = r"backpack-[0-9a-f]{32}"
_LINUX_PEER = re.compile(rf"unix-abstract:({_NAME})", re.ASCII)
_DARWIN_PEER = re.compile(rf"unix:(/[^\x00%]*/{_NAME})", re.ASCII)


def name_of_peer(peer: str, platform: str = sys.platform) -> str | None:
    """Read the connection's name out of what gRPC's `context.peer()` returns.

    Args:
        peer: the server's word on the other end.
        platform: as in `sys.platform`.

    Returns:
        The name to look up, the whole path on macOS; None for everything that is not of the form.
    """
    form = _DARWIN_PEER if platform == "darwin" else _LINUX_PEER
    match = form.fullmatch(peer)
    return match[1] if match else None


class Inner(Protocol):
    """What the door needs of the inner socket."""

    def connect(self) -> tuple[socket.socket, str]:
        """Open a connection to the server: a non-blocking socket, and its one-time name.

        Raises:
            OSError: the server does not take it.
        """
        ...


class InnerSocket:
    """The inner socket's place in the file system, and the way to it.

    In this order: make it, let the server bind `address`, `hide` it, `connect` at will, stop the
    server, `close`. grpcio looks at the address again when the server stops and unlinks a socket
    that it finds there, so the directory's descriptor stays open until `close`: were its number
    reused, that would be somebody else's file.
    """

    def __init__(self, directory: Path, fd: int, platform: str) -> None:
        self._directory = directory
        self._fd = fd
        self._platform = platform
        self._way = -1

    @classmethod
    def make(cls, within: str | os.PathLike[str], platform: str = sys.platform) -> Self:
        """Make the private directory.

        Args:
            within: an existing directory of the daemon's own.
            platform: as in `sys.platform`; anything but "darwin" needs Linux's `/proc`.

        Raises:
            HomeError: the directory cannot be made there.
        """
        directory = Path(within, f"inner-{secrets.token_hex(16)}")
        try:
            directory.mkdir(mode=0o700)
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise HomeError(
                f"cannot make a directory in {os.fspath(within)!r} ({error.strerror}): "
                "choose a place that is yours to write to"
            ) from None
        return cls(directory, fd, platform)

    @property
    def address(self) -> str:
        """Where the gRPC server is to bind."""
        if self._platform == "darwin":
            return f"unix:{self._directory / _SOCKET}"
        return f"unix:/proc/self/fd/{self._fd}/{_SOCKET}"

    def hide(self) -> None:
        """Take the bound socket out of everybody else's reach.

        Raises:
            HomeError: no socket of this process listens there.
        """
        if self._platform != "darwin":
            try:
                self._way = os.open(
                    _SOCKET, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd
                )
            except OSError:
                raise HomeError("the gRPC server did not bind its inner socket") from None
            os.unlink(_SOCKET, dir_fd=self._fd)
            self._directory.rmdir()
        try:
            self.connect()[0].close()
        except OSError as error:
            raise HomeError(f"the inner socket does not work: {error.strerror or error}") from None

    def connect(self) -> tuple[socket.socket, str]:
        """Open a connection to the server from a socket with a one-time random name.

        Returns:
            The socket, non-blocking, and the name under which `name_of_peer` finds it.

        Raises:
            ConnectionError: another process listens there.
            OSError: the server does not take it, for want of descriptors, say.
        """
        name = f"backpack-{secrets.token_hex(16)}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self._platform == "darwin":
                name = str(self._directory / name)
                self._connect_by_path(sock, name)
            else:
                sock.bind(f"\0{name}")
                sock.connect(f"/proc/self/fd/{self._way}")
            _check_listener(sock)
        except BaseException:
            sock.close()
            raise
        return sock, name

    def _connect_by_path(self, sock: socket.socket, path: str) -> None:
        sock.bind(path)
        try:
            sock.connect(str(self._directory / _SOCKET))
        finally:
            Path(path).unlink()

    def close(self) -> None:
        """Forget the way, and remove what is left in the file system. For after the server."""
        if self._fd < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SOCKET, dir_fd=self._fd)
        with contextlib.suppress(FileNotFoundError):
            self._directory.rmdir()
        for fd in (self._way, self._fd):
            if fd >= 0:
                os.close(fd)
        self._way = self._fd = -1


def _check_listener(sock: socket.socket) -> None:
    """Ask the kernel which process listens at the other end, and accept this one only."""
    if peer_pid(sock) != os.getpid():
        raise ConnectionRefusedError("another process listens on the inner socket")
